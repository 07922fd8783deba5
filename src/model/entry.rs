//! `Stat`, what a disk says of one object, and `Kind`.

use super::time::Mtime;

/// What a directory entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    File,
    Dir,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

/// The file type bits of `st_mode`.
const TYPE_MASK: u16 = 0o170_000;

impl Kind {
    /// From the type bits of an `st_mode`; `None` for a type Linux does not have.
    pub fn from_mode(st_mode: u16) -> Option<Self> {
        Some(match st_mode & TYPE_MASK {
            0o100_000 => Self::File,
            0o040_000 => Self::Dir,
            0o120_000 => Self::Symlink,
            0o010_000 => Self::Fifo,
            0o140_000 => Self::Socket,
            0o020_000 => Self::CharDevice,
            0o060_000 => Self::BlockDevice,
            _ => return None,
        })
    }

    /// The type bits of `st_mode`.
    pub fn mode_bits(self) -> u16 {
        match self {
            Self::File => 0o100_000,
            Self::Dir => 0o040_000,
            Self::Symlink => 0o120_000,
            Self::Fifo => 0o010_000,
            Self::Socket => 0o140_000,
            Self::CharDevice => 0o020_000,
            Self::BlockDevice => 0o060_000,
        }
    }

    /// Fifo, socket or device: made by mknod, without content.
    pub fn is_special(self) -> bool {
        matches!(
            self,
            Self::Fifo | Self::Socket | Self::CharDevice | Self::BlockDevice
        )
    }

    pub fn is_device(self) -> bool {
        matches!(self, Self::CharDevice | Self::BlockDevice)
    }
}

/// What a disk says of one object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stat {
    pub kind: Kind,
    /// Permission bits, 0..=0o7777.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Bytes of a file or of a symlink's target; the device number (`rdev`) of a device.
    pub size: u64,
    /// It takes less space than that: it may have holes.
    pub is_sparse: bool,
    pub mtime: Mtime,
    pub ctime: Mtime,
    pub dev: u64,
    pub ino: u64,
    pub nlink: u32,
}

/// The metadata that travels with an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meta {
    pub kind: Kind,
    /// Permission bits, 0..=0o7777.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Mtime,
}

impl From<&Stat> for Meta {
    fn from(stat: &Stat) -> Self {
        Self {
            kind: stat.kind,
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            mtime: stat.mtime,
        }
    }
}
