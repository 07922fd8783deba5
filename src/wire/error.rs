//! `WireError`: what a peer sent that is not allowed, and where. Always the peer's fault (or the
//! network's); the session ends with it.

use crate::model::name::NameError;

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireError {
    #[error("this is not sy: the first bytes are {0:02x?}")]
    NotSy([u8; 16]),
    #[error("a frame's head was damaged on the way")]
    HeadDamaged,
    #[error("a frame of kind {kind:#04x} was damaged on the way")]
    BodyDamaged { kind: u8 },
    #[error("a frame of {bytes} bytes is longer than allowed")]
    TooLong { bytes: u32 },
    #[error("unknown frame kind {0:#04x}")]
    UnknownKind(u8),
    #[error("a {frame} frame where none may come")]
    OutOfOrder { frame: &'static str },
    #[error("a {what} ends in the middle, at byte {at}")]
    CutShort { what: &'static str, at: usize },
    #[error("{bytes} bytes too many behind a {what}")]
    Trailing { what: &'static str, bytes: usize },
    #[error("{what} holds the forbidden value {value}")]
    Forbidden { what: &'static str, value: u64 },
    #[error("{0}")]
    Name(#[from] NameError),
    #[error("a listing's names do not ascend")]
    NotAscending,
    #[error("directory {0} was not declared, or is closed")]
    UnknownDir(u32),
    #[error("directory {0} is declared already")]
    DirTwice(u32),
    #[error("directory {0} is closed before directories below it")]
    OpenBelow(u32),
    #[error("owner {0} is declared already")]
    OwnerTwice(u32),
    #[error("file {0} was not begun, or has ended")]
    UnknownFile(u32),
    #[error("file {0} was begun already")]
    FileTwice(u32),
    #[error("a delete in directory {0}, whose listing was not completed")]
    DeleteUnlisted(u32),
    #[error("a delete, which this session does not allow")]
    DeleteNotAllowed,
    #[error("bytes beyond the announced size of file {0}")]
    BeyondSize(u32),
    #[error("tokens of file {file}: {why}")]
    Tokens { file: u32, why: String },
    #[error("a signature that was not asked for, of file {0}")]
    UnknownSignature(u32),
    #[error("digests that were not asked for, under the number {0}")]
    UnknownCheck(u32),
    #[error("{what}: more than {max}")]
    TooMany { what: &'static str, max: usize },
    #[error("version {theirs} of the protocol; this is version {ours}")]
    Version { ours: u16, theirs: u16 },
}
