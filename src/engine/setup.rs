//! How a ring is set up: the sets of flags, newest first; the sizes, which fall to small ones where
//! the user may lock little memory; and what became of the arena.
//!
//! **Locked memory.** Without CAP_IPC_LOCK the kernel counts a ring's queues, and an arena once it is
//! registered, against the RLIMIT_MEMLOCK of the process, summed over all processes of the user (measured on
//! 6.18). So the steps down are: a ring of the usual size with the arena registered; the same
//! with plain reads and writes; a small ring. With 64 KiB, as old hosts have it, eight rings of a user fit.

use std::io;
use std::time::Duration;

use io_uring::IoUring;

use super::arena::Region;
use crate::limits::{
    RING_COMPLETIONS, RING_COMPLETIONS_SMALL, RING_SUBMISSIONS, RING_SUBMISSIONS_SMALL,
};
use crate::ops::Errno;

/// Memory of an ended process of the same user is given back late (some tens of milliseconds), and
/// counts until then.
const MEMLOCK_PAUSE: Duration = Duration::from_millis(10);
/// Without a ring nothing works.
const RING_TRIES: u32 = 25;
/// Without a registered arena everything does.
const ARENA_TRIES: u32 = 3;

/// Why there is no ring. What to do about it is said by `probe`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SetupError {
    #[error("io_uring is refused (EPERM): by a seccomp profile, or by kernel.io_uring_disabled")]
    Refused,
    #[error("this kernel has no io_uring (ENOSYS), or a seccomp profile hides it")]
    Missing,
    #[error("this kernel's io_uring is older than 6.1 (EINVAL)")]
    TooOld,
    #[error("no memory for the ring (ENOMEM): RLIMIT_MEMLOCK is too low")]
    Memlock,
    #[error("io_uring can't be set up: {0}")]
    Other(Errno),
}

impl From<io::Error> for SetupError {
    fn from(error: io::Error) -> Self {
        match errno_of(&error) {
            Errno::PERM | Errno::ACCESS => Self::Refused,
            Errno::NOSYS => Self::Missing,
            Errno::INVAL => Self::TooOld,
            Errno::NOMEM => Self::Memlock,
            errno => Self::Other(errno),
        }
    }
}

/// Which set of flags the kernel took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tier {
    /// Linux 6.6 and later: NO_SQARRAY too.
    NoSqArray,
    /// Linux 6.1 and later: DEFER_TASKRUN.
    DeferTaskrun,
}

/// What became of the arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Registration {
    /// Operations that can use it as a fixed buffer do.
    Registered,
    /// The kernel said no (ENOMEM: RLIMIT_MEMLOCK); plain READ and WRITE cost a few ns more.
    Refused(Errno),
    /// Nothing has needed it so far.
    NotAsked,
}

/// How the ring was set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setup {
    pub tier: Tier,
    pub arena: Registration,
    /// Entries of the completion queue.
    pub completions: u32,
}

impl Setup {
    /// RLIMIT_MEMLOCK was too low for a ring of the usual size.
    pub fn is_small(self) -> bool {
        self.completions < RING_COMPLETIONS
    }
}

/// How a ring of this thread would be set up; it is closed again.
pub fn try_setup(arena: Option<Region>) -> Result<Setup, SetupError> {
    let (ring, mut setup) = set_up()?;
    if let Some(arena) = arena {
        setup.arena = register(&ring, arena);
    }
    Ok(setup)
}

pub(super) fn set_up() -> Result<(IoUring, Setup), SetupError> {
    let (ring, tier) = match build_ring(RING_SUBMISSIONS, RING_COMPLETIONS) {
        Err(error) if errno_of(&error) == Errno::NOMEM => patiently(RING_TRIES, || {
            build_ring(RING_SUBMISSIONS_SMALL, RING_COMPLETIONS_SMALL)
        })?,
        built => built?,
    };
    let setup = Setup {
        tier,
        arena: Registration::NotAsked,
        completions: ring.params().cq_entries(),
    };
    Ok((ring, setup))
}

/// Makes the arena the ring's fixed buffer.
pub(super) fn register(ring: &IoUring, arena: Region) -> Registration {
    match patiently(ARENA_TRIES, || arena.register(ring)) {
        Ok(()) => Registration::Registered,
        Err(error) => Registration::Refused(errno_of(&error)),
    }
}

/// Tries some times what fails for want of locked memory.
fn patiently<T>(tries: u32, attempt: impl Fn() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..tries {
        match attempt() {
            Err(error) if errno_of(&error) == Errno::NOMEM => std::thread::sleep(MEMLOCK_PAUSE),
            done => return done,
        }
    }
    attempt()
}

/// Tries the sets of flags, newest first. DEFER_TASKRUN runs completions on our thread, when it
/// enters; TASKRUN_FLAG shows when there are some; SUBMIT_ALL keeps one refused entry from
/// stopping those behind it.
fn build_ring(submissions: u32, completions: u32) -> io::Result<(IoUring, Tier)> {
    let mut builder = IoUring::builder();
    builder
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_coop_taskrun()
        .setup_submit_all()
        .setup_clamp()
        .setup_cqsize(completions);
    let with_array = builder.clone();
    match builder.setup_no_sqarray().build(submissions) {
        Ok(ring) => Ok((ring, Tier::NoSqArray)),
        Err(error) if errno_of(&error) == Errno::INVAL => {
            let ring = with_array.build(submissions)?;
            Ok((ring, Tier::DeferTaskrun))
        }
        Err(error) => Err(error),
    }
}

pub(super) fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_of_the_setup_names_its_cause() {
        let of = |errno: Errno| SetupError::from(io::Error::from(errno));
        assert_eq!(of(Errno::PERM), SetupError::Refused);
        assert_eq!(of(Errno::NOSYS), SetupError::Missing);
        assert_eq!(of(Errno::NOMEM), SetupError::Memlock);
        assert_eq!(of(Errno::INVAL), SetupError::TooOld);
        assert_eq!(of(Errno::MFILE), SetupError::Other(Errno::MFILE));
    }
}
