//! `SimClock`, the time of a simulated world. It moves only when the world moves it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::time::{Moment, Mtime};

/// Wall time at moment zero: 2026-01-01T00:00:00Z.
pub const WALL_START_SEC: i64 = 1_767_225_600;

/// Clones tell the same time. Atomic only because a `Disk` must be `Sync`.
#[derive(Clone, Debug, Default)]
pub struct SimClock(Arc<AtomicU64>);

impl SimClock {
    pub fn now(&self) -> Moment {
        Moment(self.0.load(Ordering::Relaxed))
    }

    /// Moves the time forward; a moment that has passed changes nothing.
    pub fn advance_to(&self, moment: Moment) {
        self.0.fetch_max(moment.0, Ordering::Relaxed);
    }

    /// What a host shows as the time of day: `skew_sec` ahead of the world, cut to `granule_ns`.
    pub fn wall(&self, skew_sec: i64, granule_ns: u64) -> Mtime {
        let now_ns = self.now().0;
        let cut_ns = now_ns - now_ns % granule_ns.max(1);
        let sec = i64::try_from(cut_ns / 1_000_000_000).expect("2^64 ns are 2^34 s");
        Mtime {
            sec: WALL_START_SEC + skew_sec + sec,
            nsec: u32::try_from(cut_ns % 1_000_000_000).expect("below a second"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_moves_forward_only_and_shows_whole_granules() {
        let clock = SimClock::default();
        clock.advance_to(Moment(3_000_000_007));
        clock.advance_to(Moment(1));
        assert_eq!(clock.now(), Moment(3_000_000_007));
        let wall = clock.wall(-2, 4);
        assert_eq!((wall.sec, wall.nsec), (WALL_START_SEC + 1, 4));
    }
}
