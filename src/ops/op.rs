//! `Op`, what a session asks of the ring, the same for every driver; and `Ring`, the seam at
//! which the kernel and the simulator stand in for each other.

use std::ops::Range;

use super::disk::SharedFd;
use super::{Buf, Disk, Errno};
use crate::limits::FRAME_HEAD_BYTES;
use crate::model::time::Moment;

/// A byte stream that a ring knows: a socket, or a simulated one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(pub u32);

/// Work of several plain disk calls, run away from the loop (or by the simulator, call by call).
pub trait Job<D: Disk>: Send + 'static {
    /// Works until done or until the budget is spent. Failures of the disk are outcomes inside
    /// the job, not errors of the run.
    fn run(&mut self, disk: &D) -> Progress;
    /// As what its time is counted.
    fn kind(&self) -> JobKind {
        JobKind::Other
    }
    /// Entries of a PACK that it has made so far.
    fn entries_made(&self) -> u32 {
        0
    }
}

/// What a job is about, as far as it matters to whoever measures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JobKind {
    ListSource,
    ReadPack,
    ListTarget,
    ApplyPack,
    Match,
    Sign,
    Weave,
    Digest,
    CommitLarge,
    Sync,
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    Done,
    /// Budget spent: run again after the others in line.
    Again,
}

/// One request. It moves into the ring with its buffer and comes back whole in the completion.
pub enum Op<D: Disk, J> {
    /// Receives the rest of a frame's head, `got` bytes of which are there, into the ring's own
    /// memory: an idle connection holds no block.
    RecvHead {
        stream: StreamId,
        head: [u8; FRAME_HEAD_BYTES],
        got: usize,
    },
    /// Receives into `buf[range]`.
    Recv {
        stream: StreamId,
        buf: Buf,
        range: Range<usize>,
    },
    /// Sends `buf[range]`.
    Send {
        stream: StreamId,
        buf: Buf,
        range: Range<usize>,
    },
    /// Reads a file at `offset` into `buf[range]`.
    Read {
        fd: SharedFd<D>,
        buf: Buf,
        range: Range<usize>,
        offset: u64,
    },
    /// Writes `buf[range]` to a file at `offset`.
    Write {
        fd: SharedFd<D>,
        buf: Buf,
        range: Range<usize>,
        offset: u64,
    },
    Job(J),
}

impl<D: Disk, J> Op<D, J> {
    /// The stream it is about; `None`: a file or a job.
    pub fn stream(&self) -> Option<StreamId> {
        match self {
            Self::RecvHead { stream, .. }
            | Self::Recv { stream, .. }
            | Self::Send { stream, .. } => Some(*stream),
            Self::Read { .. } | Self::Write { .. } | Self::Job(_) => None,
        }
    }
}

/// An op that ended. `result` is the kernel's: bytes moved (0: end of stream or file), or errno.
/// For a job it is `Ok(0)`; its outcomes are inside it.
pub struct Completion<D: Disk, J> {
    /// What `push` was given.
    pub tag: u64,
    pub op: Op<D, J>,
    pub result: Result<usize, Errno>,
}

/// The seam. Answers have the kernel's shape (short, late, in any order), so that everything
/// above is simulated too. Completions are collected first and handled afterwards: nothing runs
/// inside a reap.
pub trait Ring<D: Disk, J: Job<D>> {
    /// Takes the op, and with it the buffer, until its completion. Never fails and never blocks:
    /// what does not fit into the kernel's queue waits in ours.
    fn push(&mut self, tag: u64, op: Op<D, J>);
    /// Submits what was pushed and sleeps until a completion, a wake from another thread, or
    /// `until` (at once when it has passed; `None`: no deadline). The only place a core sleeps.
    fn submit_and_wait(&mut self, until: Option<Moment>) -> Result<(), Errno>;
    /// The next completion that is there.
    fn reap(&mut self) -> Option<Completion<D, J>>;
    fn now(&self) -> Moment;
    /// Makes payloads that are on their way through a stream end soon with the bytes that have
    /// moved, where some have: a kernel that was asked for a whole one says nothing before. The
    /// others stay.
    fn nudge(&mut self, stream: StreamId);
    /// Ends a stream in both directions: what is in flight on it completes soon, with an error,
    /// short, or as an end of stream. The first of three steps; the second is to wait for that.
    fn shut(&mut self, stream: StreamId);
    /// Closes a stream that was shut and has nothing in flight. The third step.
    fn release(&mut self, stream: StreamId);
}
