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

    /// How long a file that bears this time must be left alone until every later change shows:
    /// two changes within a tick of the clock that stamps them bear the same time. `None`: it
    /// has rested, or the time was not stamped by a clock that shows `now`.
    pub fn rest(self, now: Self) -> Option<Duration> {
        let tick = if self.nsec == 0 {
            WHOLE_SECONDS_TICK
        } else {
            TICK
        };
        let nanos = |time: Self| i128::from(time.sec) * 1_000_000_000 + i128::from(time.nsec);
        let tick_ns = tick.as_nanos().cast_signed();
        let age_ns = nanos(now) - nanos(self);
        (age_ns.abs() < tick_ns)
            .then(|| u64::try_from(tick_ns - age_ns).expect("below two ticks, above none"))
            .map(Duration::from_nanos)
    }

    /// Whether a target that shows `self` has what a source of `source` asked for. A target whose
    /// nanoseconds are zero may stand on a file system of whole seconds; the seconds decide there.
    pub fn satisfies(self, source: Self) -> bool {
        self.sec == source.sec && (self.nsec == source.nsec || self.nsec == 0)
    }
}

/// Twice the coarsest tick of Linux: inodes are stamped by the jiffy, 10 ms at CONFIG_HZ=100. (From
/// 6.13 on most file systems stamp finer once somebody has looked.)
const TICK: Duration = Duration::from_millis(20);
/// The same where a time has no fraction of a second: FAT counts in two seconds, others in one.
const WHOLE_SECONDS_TICK: Duration = Duration::from_millis(2020);

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_rests_until_its_time_is_a_tick_ago() {
        let at = |sec, nsec| Mtime { sec, nsec };
        let rest = |mtime: Mtime, now| mtime.rest(now).map(|rest| rest.as_millis());
        assert_eq!(rest(at(10, 5_000_000), at(10, 5_000_000)), Some(20));
        assert_eq!(rest(at(10, 5_000_000), at(10, 19_000_000)), Some(6));
        assert_eq!(rest(at(10, 5_000_000), at(10, 25_000_000)), None);
        assert_eq!(rest(at(9, 999_000_000), at(10, 1_000_000)), Some(18));
        // Its clock is a little ahead of ours.
        assert_eq!(rest(at(10, 5_000_000), at(10, 0)), Some(25));
        // No clock stamped that.
        assert_eq!(rest(at(3000, 5), at(10, 0)), None);
        assert_eq!(rest(at(-5, 5), at(10, 0)), None);
        // A file system of whole seconds.
        assert_eq!(rest(at(10, 0), at(11, 20_000_000)), Some(1000));
        assert_eq!(rest(at(10, 0), at(12, 20_000_000)), None);
        assert_eq!(rest(at(i64::MIN, 0), at(i64::MAX, 0)), None);
    }
}
