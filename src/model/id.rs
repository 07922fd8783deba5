//! Identifiers that travel: sessions, directories, large files.

use std::fmt;

/// 64 random bits. The source draws one, for logs; the target draws another, for the names of its
/// temp files and of its marker, which must not be a peer's choice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A directory of one session, declared by the source and never used again once it is closed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DirId(pub u32);

/// DEST itself.
pub const ROOT: DirId = DirId(0);

/// A large file of one session, declared by BEGIN and retired by END.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileId(pub u32);
