//! `PosixRing`, the engine that runs here: the ring, or where the kernel refuses one, epoll and a pool.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::str::FromStr;

use super::arena::Region;
use super::bell::Waker;
use super::figures::Figures;
use super::lanes::LaneTable;
use super::pool::Pool;
use super::portable::Portable;
use super::setup::SetupError;
use super::uring::Uring;
use crate::model::time::Moment;
use crate::ops::op::{Completion, Job, Op, Ring, StreamId};
use crate::ops::{Disk, Errno};

/// Which engine is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EngineChoice {
    /// The ring; the portable engine where the kernel refuses it.
    #[default]
    Auto,
    Uring,
    Portable,
}

impl EngineChoice {
    pub const NAMES: [&str; 3] = ["auto", "uring", "portable"];

    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Portable => "portable",
        }
    }
}

/// Not one of `EngineChoice::NAMES`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an engine is auto, uring or portable")]
pub struct UnknownEngine;

impl FromStr for EngineChoice {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<Self, UnknownEngine> {
        match name {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "portable" => Ok(Self::Portable),
            _ => Err(UnknownEngine),
        }
    }
}

/// The engine of one thread. An enum, not a generic floor: a shard is compiled once, and its choice is a
/// branch that always goes the same way.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one per thread, and it is moved once"
)]
pub enum PosixRing<D: Disk, J: Job<D>> {
    Uring(Uring<D, J>),
    /// With what the kernel said to a ring, where one was wanted.
    Portable(Portable<D, J>, Option<SetupError>),
}

impl<D, J> PosixRing<D, J>
where
    D: Disk<Fd: AsFd + AsRawFd>,
    J: Job<D>,
{
    /// For the calling thread.
    pub fn new(
        choice: EngineChoice,
        disk: D,
        pool: Pool<D, J>,
        arena: Region,
        lanes: LaneTable,
    ) -> Result<Self, SetupError>
    where
        D: Clone,
    {
        let refused = match choice {
            EngineChoice::Portable => None,
            EngineChoice::Auto | EngineChoice::Uring => {
                let ring = Uring::new(disk.clone(), pool.clone(), Some(arena), lanes.clone());
                match ring {
                    Ok(ring) => return Ok(Self::Uring(ring)),
                    // Too few descriptors, or worse: the other engine would fare no better.
                    Err(error @ SetupError::Other(_)) => return Err(error),
                    Err(error) if choice == EngineChoice::Uring => return Err(error),
                    Err(error) => Some(error),
                }
            }
        };
        let portable = Portable::new(disk, pool, lanes).map_err(SetupError::Other)?;
        Ok(Self::Portable(portable, refused))
    }

    /// Which of the two it is.
    pub fn choice(&self) -> EngineChoice {
        match self {
            Self::Uring(_) => EngineChoice::Uring,
            Self::Portable(..) => EngineChoice::Portable,
        }
    }

    /// Why it isn't the ring, where that was left open.
    pub fn refused(&self) -> Option<SetupError> {
        match self {
            Self::Uring(_) => None,
            Self::Portable(_, refused) => *refused,
        }
    }

    /// How long its operations took so far.
    pub fn figures(&self) -> &Figures {
        match self {
            Self::Uring(ring) => ring.figures(),
            Self::Portable(ring, _) => ring.figures(),
        }
    }

    /// Wakes its thread from any other.
    pub fn waker(&self) -> Waker {
        match self {
            Self::Uring(ring) => ring.waker(),
            Self::Portable(ring, _) => ring.waker(),
        }
    }

    /// Takes over a connected stream socket, or one descriptor that is read and written. Whether it
    /// blocks is changed, for everyone who shares its open file description, until it is released.
    pub fn add_stream(&mut self, fd: OwnedFd) -> StreamId {
        match self {
            Self::Uring(ring) => ring.add_stream(fd),
            Self::Portable(ring, _) => ring.add_stream(fd),
        }
    }

    /// Takes over a stream of two descriptors: an inherited stdin and stdout.
    pub fn add_stream_pair(&mut self, input: OwnedFd, output: OwnedFd) -> StreamId {
        match self {
            Self::Uring(ring) => ring.add_stream_pair(input, output),
            Self::Portable(ring, _) => ring.add_stream_pair(input, output),
        }
    }
}

impl<D, J> Ring<D, J> for PosixRing<D, J>
where
    D: Disk<Fd: AsFd + AsRawFd>,
    J: Job<D>,
{
    fn push(&mut self, tag: u64, op: Op<D, J>) {
        match self {
            Self::Uring(ring) => ring.push(tag, op),
            Self::Portable(ring, _) => ring.push(tag, op),
        }
    }

    fn submit_and_wait(&mut self, until: Option<Moment>) -> Result<(), Errno> {
        match self {
            Self::Uring(ring) => ring.submit_and_wait(until),
            Self::Portable(ring, _) => ring.submit_and_wait(until),
        }
    }

    fn reap(&mut self) -> Option<Completion<D, J>> {
        match self {
            Self::Uring(ring) => ring.reap(),
            Self::Portable(ring, _) => ring.reap(),
        }
    }

    fn now(&self) -> Moment {
        match self {
            Self::Uring(ring) => ring.now(),
            Self::Portable(ring, _) => ring.now(),
        }
    }

    fn nudge(&mut self, stream: StreamId) {
        match self {
            Self::Uring(ring) => ring.nudge(stream),
            Self::Portable(ring, _) => ring.nudge(stream),
        }
    }

    fn shut(&mut self, stream: StreamId) {
        match self {
            Self::Uring(ring) => ring.shut(stream),
            Self::Portable(ring, _) => ring.shut(stream),
        }
    }

    fn release(&mut self, stream: StreamId) {
        match self {
            Self::Uring(ring) => ring.release(stream),
            Self::Portable(ring, _) => ring.release(stream),
        }
    }
}
