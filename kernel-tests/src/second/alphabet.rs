//! Section 2: numbers, names, texts and metadata, put into a payload and taken out of one.

use super::Failure;

pub(super) const NAME_BYTES_MAX: usize = 255;
/// What the target's own files are called.
pub(super) const OWN_PREFIX: &[u8] = b".sy.";

/// What an entry is: the upper four bits of `st_mode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Fifo,
    CharacterDevice,
    Directory,
    BlockDevice,
    File,
    Symlink,
    Socket,
}

impl Kind {
    pub(super) fn of(st_mode: u16) -> Option<Self> {
        match st_mode >> 12 {
            0x1 => Some(Self::Fifo),
            0x2 => Some(Self::CharacterDevice),
            0x4 => Some(Self::Directory),
            0x6 => Some(Self::BlockDevice),
            0x8 => Some(Self::File),
            0xa => Some(Self::Symlink),
            0xc => Some(Self::Socket),
            _ => None,
        }
    }
}

/// Nanoseconds count forwards from the seconds, also before 1970.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Time {
    pub(super) seconds: i64,
    pub(super) nanos: u32,
}

/// `meta`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Meta {
    pub(super) st_mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Time,
}

impl Meta {
    pub(super) fn kind(self) -> Option<Kind> {
        Kind::of(self.st_mode)
    }

    /// The lower twelve bits.
    pub(super) fn permissions(self) -> u16 {
        self.st_mode & 0o7777
    }
}

/// Bytes on their way into a payload.
pub(super) trait Put {
    fn put(&mut self, bytes: &[u8]);

    fn put_name(&mut self, name: &[u8]) {
        let len = u8::try_from(name.len()).expect("the kernel's names are no longer");
        self.put(&[len]);
        self.put(name);
    }

    fn put_text(&mut self, text: &[u8]) {
        let len = u16::try_from(text.len()).expect("each place has its maximum");
        self.put(&len.to_le_bytes());
        self.put(text);
    }

    fn put_meta(&mut self, meta: Meta) {
        self.put(&meta.st_mode.to_le_bytes());
        self.put(&meta.uid.to_le_bytes());
        self.put(&meta.gid.to_le_bytes());
        self.put(&meta.mtime.seconds.to_le_bytes());
        self.put(&meta.mtime.nanos.to_le_bytes());
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// What is still to be read of a payload.
pub(super) struct Payload<'a>(pub(super) &'a [u8]);

impl<'a> Payload<'a> {
    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Failure> {
        let (taken, rest) = self
            .0
            .split_at_checked(len)
            .ok_or_else(|| Failure::protocol("a payload lacks bytes"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const LEN: usize>(&mut self) -> Result<[u8; LEN], Failure> {
        let bytes = self.bytes(LEN)?;
        Ok(bytes.try_into().expect("that many were taken"))
    }

    pub(super) fn u8(&mut self) -> Result<u8, Failure> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16, Failure> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Failure> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Failure> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn i64(&mut self) -> Result<i64, Failure> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub(super) fn id16(&mut self) -> Result<[u8; 16], Failure> {
        self.array()
    }

    pub(super) fn text(&mut self, bytes_max: usize) -> Result<&'a [u8], Failure> {
        let len = usize::from(self.u16()?);
        if len > bytes_max {
            return Err(Failure::protocol("a text is too long"));
        }
        self.bytes(len)
    }

    pub(super) fn meta(&mut self) -> Result<Meta, Failure> {
        let meta = Meta {
            st_mode: self.u16()?,
            uid: self.u32()?,
            gid: self.u32()?,
            mtime: Time {
                seconds: self.i64()?,
                nanos: self.u32()?,
            },
        };
        let sound = meta.kind().is_some()
            && meta.uid != u32::MAX
            && meta.gid != u32::MAX
            && meta.mtime.nanos < 1_000_000_000;
        if sound {
            Ok(meta)
        } else {
            Err(Failure::protocol("metadata that can't be"))
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing may be left over.
    pub(super) fn end(self) -> Result<(), Failure> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(Failure::protocol("a payload has bytes left over"))
        }
    }
}

pub(super) fn is_name(name: &[u8]) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && !name.contains(&b'/')
        && !name.contains(&0)
        && name != b"."
        && name != b".."
        && !name.starts_with(OWN_PREFIX)
}
