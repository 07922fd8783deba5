//! One connection as one machine: frames and completions go in by `handle`, what is to be done
//! comes out by `poll_action`. Both are right in any interleaving, so a caller with no room
//! simply stops asking.
//!
//! `source` and `target` are the two roles; `port` turns a byte stream into frames and back.

mod digesting;
mod door;
pub mod error;
mod owners;
pub mod port;
pub mod source;
pub mod target;
mod weaving;

use std::time::Duration;

use crate::job::Work;
use crate::model::id::FileId;
use crate::model::report::{Tell, Totals};
use crate::model::time::Moment;
use crate::ops::disk::SharedFd;
use crate::ops::{BlockPool, Buf, Disk, Errno};
use crate::wire::Head;

pub use error::SessionError;
pub use source::Source;
pub use target::Target;

/// What a session is told.
pub enum Event<D: Disk> {
    /// A frame from the peer, its payload behind the head's place in the block; checked.
    Frame { head: Head, buf: Buf },
    /// Answers `Action::Send`.
    Sent,
    /// Answers `Action::Job`; `false`: it panicked.
    JobDone(Work<D>, bool),
    /// Answers `Action::Read`: bytes read, less than asked for only at the end of the file.
    Read {
        file: FileId,
        buf: Buf,
        offset: u64,
        result: Result<usize, Errno>,
    },
    /// Answers `Action::Write`, whole or not at all.
    Written {
        file: FileId,
        result: Result<(), Errno>,
    },
    /// The stream has ended or is of no use any more.
    Broken(SessionError),
    /// This side has a reason to end the session; the stream still stands.
    Stopped(SessionError),
}

/// What a session asks for.
pub enum Action<D: Disk> {
    /// Send a frame: `buf[..len]`. One at a time.
    Send {
        buf: Buf,
        len: usize,
    },
    Job(Work<D>),
    /// Read a chunk of a file into `buf` at `at`.
    Read {
        file: FileId,
        fd: SharedFd<D>,
        buf: Buf,
        at: usize,
        len: usize,
        offset: u64,
    },
    /// Write a chunk, `len` bytes from `buf` at `at`.
    Write {
        file: FileId,
        fd: SharedFd<D>,
        buf: Buf,
        at: usize,
        len: usize,
        offset: u64,
    },
    /// Nothing more will be sent; the session is over once everything in flight is back.
    End,
}

/// What the loop lends a session while it asks.
pub struct Env<'a> {
    pub now: Moment,
    pub blocks: &'a BlockPool,
}

/// Either role.
pub enum Session<D: Disk> {
    Source(Box<Source<D>>),
    Target(Box<Target<D>>),
}

impl<D: Disk> Session<D> {
    pub fn handle(&mut self, event: Event<D>) {
        match self {
            Self::Source(source) => source.handle(event),
            Self::Target(target) => target.handle(event),
        }
    }

    pub fn poll_action(&mut self, env: &Env<'_>) -> Option<Action<D>> {
        match self {
            Self::Source(source) => source.poll_action(env),
            Self::Target(target) => target.poll_action(env),
        }
    }

    /// Whether a frame from the peer is welcome now; while it is not, nothing is received and
    /// the peer's sending stops by itself.
    pub fn wants_frame(&self) -> bool {
        match self {
            Self::Source(_) => true,
            Self::Target(target) => target.wants_frame(),
        }
    }

    /// Whether silence of the peer means that it is gone.
    pub fn awaits_peer(&self) -> bool {
        match self {
            Self::Source(source) => !source.is_over(),
            Self::Target(target) => target.wants_frame() && !target.is_over(),
        }
    }

    /// The peer has ended its direction of the stream. `true` where it had said all that counts:
    /// it may listen still, and hear the last word.
    pub fn heard_end(&mut self) -> bool {
        match self {
            Self::Source(_) => false,
            Self::Target(target) => target.heard_end(),
        }
    }

    /// At a target, the silence that its source bears, once that is known.
    pub fn patience_of_source(&self) -> Option<Duration> {
        match self {
            Self::Source(_) => None,
            Self::Target(target) => {
                let seconds = target.hello()?.patience?;
                Some(Duration::from_secs(seconds.get().into()))
            }
        }
    }

    /// When a session that had nothing to do is to be polled again, whatever happens until then.
    pub fn wakes_at(&self) -> Option<Moment> {
        match self {
            Self::Source(source) => source.wakes_at(),
            Self::Target(_) => None,
        }
    }

    /// Whether HELLO and WELCOME are behind us.
    pub fn is_greeted(&self) -> bool {
        match self {
            Self::Source(source) => source.is_greeted(),
            Self::Target(target) => target.is_greeted(),
        }
    }

    /// The next thing to say to people.
    pub fn next_tell(&mut self) -> Option<Tell> {
        match self {
            Self::Source(source) => source.next_tell(),
            Self::Target(_) => None,
        }
    }

    pub fn totals(&self) -> Totals {
        match self {
            Self::Source(source) => source.totals(),
            Self::Target(target) => target.totals(),
        }
    }
}
