//! `Mtime`, a file's time as the disk tells it, and `Moment`, the program's own monotonic clock.

use std::time::Duration;

/// A modification time: whole seconds since 1970 (negative before) and nanoseconds after them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Mtime {
    pub sec: i64,
    /// 0..=999_999_999
    pub nsec: u32,
}

impl Mtime {
    /// `None` where the nanoseconds are out of range (they would mean "now" or "leave it").
    pub fn new(sec: i64, nsec: u32) -> Option<Self> {
        (nsec < 1_000_000_000).then_some(Self { sec, nsec })
    }

    /// Whether a target that shows `self` has what a source of `source` asked for. A target whose
    /// nanoseconds are zero may stand on a file system of whole seconds; the seconds decide there.
    pub fn satisfies(self, source: Self) -> bool {
        self.sec == source.sec && (self.nsec == source.nsec || self.nsec == 0)
    }
}

/// Nanoseconds of a monotonic clock that the engine (or the simulator) reads and hands in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Moment(pub u64);

impl Moment {
    pub fn plus(self, wait: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
