//! `Bell`, by which other threads get a ring's thread out of its sleep, at the cost of a system
//! call only when it really sleeps. The pool rings it, and whoever holds a `Waker`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use rustix::event::{EventfdFlags, eventfd};

use crate::ops::Errno;

/// Both flags are used with sequential consistency, because each side writes one and then reads
/// the other: a ringer sets `rung` and looks at `sleeping`, the sleeper sets `sleeping` and looks
/// at `rung`. At least one of them sees the other, so no ring is slept through.
pub(super) struct Bell {
    rung: AtomicBool,
    sleeping: AtomicBool,
    /// Readable when the sleeper must get up.
    eventfd: OwnedFd,
    /// Writes to the eventfd.
    writes_count: AtomicU64,
}

impl Bell {
    pub(super) fn new() -> Result<Self, Errno> {
        Ok(Self {
            rung: AtomicBool::new(false),
            sleeping: AtomicBool::new(false),
            eventfd: eventfd(0, EventfdFlags::CLOEXEC)?,
            writes_count: AtomicU64::new(0),
        })
    }

    /// What the sleeper waits on. A read of eight bytes takes the rings that were written.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }

    /// Tells the ring's thread that there is news. What the news is must be in place before.
    pub(super) fn ring(&self) {
        self.rung.store(true, SeqCst);
        if self.sleeping.swap(false, SeqCst) {
            self.writes_count.fetch_add(1, SeqCst);
            // Only a counter near 2^64 could block or fail here.
            let _ = rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes());
        }
    }

    /// Announces a sleep. `false`: there is news, don't sleep.
    pub(super) fn lie_down(&self) -> bool {
        self.sleeping.store(true, SeqCst);
        if self.rung.load(SeqCst) {
            self.sleeping.store(false, SeqCst);
            return false;
        }
        true
    }

    /// Ends a sleep, whatever ended it.
    pub(super) fn get_up(&self) {
        self.sleeping.store(false, SeqCst);
    }

    /// Whether it rang since the last time this was asked.
    pub(super) fn take_rung(&self) -> bool {
        self.rung.load(SeqCst) && self.rung.swap(false, SeqCst)
    }

    pub(super) fn writes_count(&self) -> u64 {
        self.writes_count.load(SeqCst)
    }
}

/// Ends the sleep of a ring's thread, or keeps it from its next one. For mailboxes: put the
/// message in, then wake.
#[derive(Clone)]
pub struct Waker {
    pub(super) bell: Arc<Bell>,
}

impl Waker {
    pub fn wake(&self) {
        self.bell.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_before_the_sleep_prevents_it_without_a_call() {
        let bell = Bell::new().unwrap();
        bell.ring();
        bell.ring();
        assert!(!bell.lie_down());
        assert_eq!(bell.writes_count(), 0);
        assert!(bell.take_rung());
        assert!(!bell.take_rung());
        assert!(bell.lie_down());
    }

    #[test]
    fn a_sleeper_is_called_once() {
        let bell = Bell::new().unwrap();
        assert!(bell.lie_down());
        bell.ring();
        bell.ring();
        assert_eq!(bell.writes_count(), 1);
        let mut word = [0; 8];
        assert_eq!(rustix::io::read(bell.fd(), &mut word).unwrap(), 8);
        assert_eq!(u64::from_ne_bytes(word), 1);
    }

    #[test]
    fn no_ring_is_slept_through() {
        let bell = Arc::new(Bell::new().unwrap());
        let waker = Waker {
            bell: Arc::clone(&bell),
        };
        let news = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&news);
        let ringer = std::thread::spawn(move || {
            for _ in 0..2000 {
                told.fetch_add(1, SeqCst);
                waker.wake();
            }
        });
        // Ends only if each sleep ends.
        while news.load(SeqCst) < 2000 {
            if bell.lie_down() {
                let mut word = [0; 8];
                rustix::io::read(bell.fd(), &mut word).unwrap();
            }
            bell.get_up();
            bell.take_rung();
        }
        ringer.join().unwrap();
    }
}
