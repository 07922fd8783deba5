//! `Reader` and `Writer`: little-endian numbers and counted bytes over a slice. A read never
//! panics, whatever the bytes; a write panics when it does not fit, for the caller has asked
//! `room` before.

use super::error::WireError;
use crate::model::entry::{Kind, Meta};
use crate::model::name::Name;
use crate::model::time::Mtime;

/// Bytes that `Writer::meta` takes.
///
/// ```text
///  0         2     6     10              18                  22
///  | st_mode | uid | gid | mtime seconds | mtime nanoseconds |
///  | u16     | u32 | u32 | i64           | u32               |
/// ```
pub const META_BYTES: usize = 2 + 4 + 4 + 8 + 4;

pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, a `what` in error messages.
    pub fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { bytes, at: 0, what }
    }

    pub fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Where the next byte is read.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Ends the reading: nothing may be left.
    pub fn finish(self) -> Result<(), WireError> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            bytes => Err(WireError::Trailing {
                what: self.what,
                bytes,
            }),
        }
    }

    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let cut = WireError::CutShort {
            what: self.what,
            at: self.at,
        };
        let end = self.at.checked_add(count).ok_or(cut.clone())?;
        let taken = self.bytes.get(self.at..end).ok_or(cut)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        Ok(self.bytes(N)?.try_into().expect("bytes(N) gives N bytes"))
    }

    pub fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Result<i64, WireError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub fn u128(&mut self) -> Result<u128, WireError> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    pub fn id16(&mut self) -> Result<[u8; 16], WireError> {
        self.array()
    }

    pub fn key32(&mut self) -> Result<[u8; 32], WireError> {
        self.array()
    }

    /// One byte of length, then a name that a peer may use.
    pub fn name(&mut self) -> Result<Name<'a>, WireError> {
        let len = self.u8()?;
        Ok(Name::new(self.bytes(usize::from(len))?)?)
    }

    /// Two bytes of length, then at most `max` bytes.
    pub fn text(&mut self, max: usize) -> Result<&'a [u8], WireError> {
        let len = usize::from(self.u16()?);
        if len > max {
            return Err(WireError::TooMany {
                what: self.what,
                max,
            });
        }
        self.bytes(len)
    }

    pub fn mtime(&mut self) -> Result<Mtime, WireError> {
        let sec = self.i64()?;
        let nsec = self.u32()?;
        Mtime::new(sec, nsec).ok_or(WireError::Forbidden {
            what: "nanoseconds",
            value: u64::from(nsec),
        })
    }

    pub fn meta(&mut self) -> Result<Meta, WireError> {
        let st_mode = self.u16()?;
        let kind = Kind::from_mode(st_mode).ok_or(WireError::Forbidden {
            what: "file type",
            value: u64::from(st_mode),
        })?;
        let (uid, gid) = self.owners()?;
        Ok(Meta {
            kind,
            mode: st_mode & 0o7777,
            uid,
            gid,
            mtime: self.mtime()?,
        })
    }

    pub fn owners(&mut self) -> Result<(u32, u32), WireError> {
        Ok((self.id("user id")?, self.id("group id")?))
    }

    /// An owner; the all-ones value would mean "leave it" to chown.
    pub fn id(&mut self, what: &'static str) -> Result<u32, WireError> {
        match self.u32()? {
            u32::MAX => Err(WireError::Forbidden {
                what,
                value: u64::from(u32::MAX),
            }),
            id => Ok(id),
        }
    }
}

pub struct Writer<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Continues behind the `at` bytes that were written before.
    pub fn resume(bytes: &'a mut [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    pub fn at(&self) -> usize {
        self.at
    }

    pub fn room(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    /// The memory behind what was written, to be filled in place and claimed by `advance`.
    pub fn rest(&mut self) -> &mut [u8] {
        &mut self.bytes[self.at..]
    }

    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.room());
        self.at += count;
    }

    /// Takes back everything behind `at`.
    pub fn rewind(&mut self, at: usize) {
        assert!(at <= self.at);
        self.at = at;
    }

    /// Overwrites four bytes that were written before.
    pub fn patch_u32(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    pub fn patch_u8(&mut self, at: usize, value: u8) {
        self.bytes[at] = value;
    }

    pub fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    pub fn i64(&mut self, value: i64) {
        self.bytes(&value.to_le_bytes());
    }

    pub fn u128(&mut self, value: u128) {
        self.bytes(&value.to_le_bytes());
    }

    pub fn name(&mut self, name: &[u8]) {
        self.u8(u8::try_from(name.len()).expect("a name has at most 255 bytes"));
        self.bytes(name);
    }

    /// Cuts what does not fit into `max` bytes.
    pub fn text(&mut self, text: &[u8], max: usize) {
        let text = &text[..text.len().min(max)];
        self.u16(u16::try_from(text.len()).expect("callers bound texts below 64 KiB"));
        self.bytes(text);
    }

    pub fn mtime(&mut self, mtime: Mtime) {
        self.i64(mtime.sec);
        self.u32(mtime.nsec);
    }

    pub fn meta(&mut self, meta: &Meta) {
        self.u16(meta.kind.mode_bits() | meta.mode);
        self.u32(meta.uid);
        self.u32(meta.gid);
        self.mtime(meta.mtime);
    }
}
