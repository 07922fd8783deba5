//! `SessionError`: why a session ended before its REPORT, and whose doing it was.

use crate::model::report::{Attempt, Exit};
use crate::ops::Errno;
use crate::wire::WireError;
use crate::wire::hello::Refused;

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SessionError {
    /// The peer's: what it sent is not allowed, or was damaged on the way.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// The peer's decision.
    #[error("refused: {}", String::from_utf8_lossy(&.0.text))]
    Refused(Refused),
    /// The network's: the stream ended or failed. `None`: it was closed.
    #[error("connection lost")]
    Lost(Option<Errno>),
    /// Nothing came from the peer for so many seconds.
    #[error("no sign of life for {0} s")]
    Silent(u64),
    /// The peer took longer than so many seconds for one frame while others needed its memory.
    #[error("too slow: a frame took more than {0} s, and others waited for its memory")]
    Slow(u64),
    /// The target's disk.
    #[error("the target's disk failed: {errno}")]
    Disk {
        path: Vec<u8>,
        attempt: Attempt,
        errno: Errno,
    },
    /// The user's: with --delete an empty source would empty the target.
    #[error("the source is empty")]
    EmptySource,
    /// The user's: a source is DEST itself.
    #[error("the source is the target itself")]
    OntoItself,
    /// The operator's: this server is stopping.
    #[error("shutting down")]
    ShuttingDown,
    /// The user's: a signal.
    #[error("stopped by {0}")]
    Signal(&'static str),
    /// Ours: a job ended in a panic.
    #[error("an internal error; please report it")]
    Internal,
}

impl SessionError {
    /// The exit code that it means, on either side.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Wire(WireError::Version { .. } | WireError::NotSy(_)) => Exit::Incompatible,
            Self::Wire(_) | Self::Internal => Exit::Stream,
            Self::Refused(refused) => refused.refusal.exit(),
            Self::Lost(_) => Exit::Socket,
            Self::Silent(_) | Self::Slow(_) => Exit::Timeout,
            Self::Disk { .. } => Exit::FileIo,
            Self::EmptySource | Self::OntoItself => Exit::Selection,
            Self::ShuttingDown => Exit::Start,
            Self::Signal(_) => Exit::Signal,
        }
    }
}
