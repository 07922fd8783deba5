//! `Figures`, how long the operations of a ring took, by what they were and which way they went.
//!
//! Each ring has its own and adds to it on its own thread; whoever wants those of several gets
//! copies and adds them up. Measured is what the floors above wait for: from the moment an
//! operation is given to the ring until its end has come back into the loop, so the line in front
//! of the pool counts, and so does a loop that is busy elsewhere. What failed isn't counted; what the
//! kernel ended short counts as an operation of its own, and so does the rest of it.
//!
//! Three rows mean something of their own:
//!
//! - `receive` and `send` also wait for the peer: payloads only, since the time to the next head says
//!   what the peer was doing;
//! - `commit` is what making one entry at the target took: the time that a job of the second pass
//!   over a PACK worked, the line not counted, divided by the entries that it made. Clocks around each
//!   entry would cost more than they tell. `commit_large` is a job: it names a file whose content
//!   was written before.
//!
//! It costs one look at the clock per operation and one per batch of completions, and 10 KiB per row: 1 us
//! to 60 s, two digits, 32-bit counts, all allocated with the ring.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::lanes::Lane;
use crate::ops::op::JobKind;

const MICROSECONDS_MAX: u64 = 60_000_000;
const DIGITS: u8 = 2;

/// What is timed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Timed {
    Receive,
    Send,
    SendZeroCopy,
    Read(Lane),
    Write(Lane),
    /// One entry of a PACK that was applied.
    Commit,
    Job(JobKind),
}

/// What was timed, and on which lane, as both are printed; by `Timed::index`.
const ROWS: [(&str, &str); 21] = [
    ("receive", "stream"),
    ("send", "stream"),
    ("read", "ring"),
    ("read", "inline"),
    ("read", "pool"),
    ("write", "ring"),
    ("write", "inline"),
    ("write", "pool"),
    ("list_source", "pool"),
    ("read_pack", "pool"),
    ("list_target", "pool"),
    ("apply_pack", "pool"),
    ("commit", "pool"),
    ("commit_large", "pool"),
    ("sync", "pool"),
    ("other", "pool"),
    ("send", "zero_copy"),
    ("match", "pool"),
    ("sign", "pool"),
    ("weave", "pool"),
    ("digest", "pool"),
];

impl Timed {
    fn index(self) -> usize {
        let by_lane = |lane| match lane {
            Lane::Ring => 0,
            Lane::Inline => 1,
            Lane::Pool => 2,
        };
        match self {
            Self::Receive => 0,
            Self::Send => 1,
            Self::SendZeroCopy => 16,
            Self::Read(lane) => 2 + by_lane(lane),
            Self::Write(lane) => 5 + by_lane(lane),
            Self::Job(JobKind::ListSource) => 8,
            Self::Job(JobKind::ReadPack) => 9,
            Self::Job(JobKind::ListTarget) => 10,
            Self::Job(JobKind::ApplyPack) => 11,
            Self::Commit => 12,
            Self::Job(JobKind::CommitLarge) => 13,
            Self::Job(JobKind::Sync) => 14,
            Self::Job(JobKind::Other) => 15,
            Self::Job(JobKind::Match) => 17,
            Self::Job(JobKind::Sign) => 18,
            Self::Job(JobKind::Weave) => 19,
            Self::Job(JobKind::Digest) => 20,
        }
    }
}

/// One row that has something in it. Times are right to two digits and at most a minute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    pub what: &'static str,
    pub lane: &'static str,
    pub count: u64,
    pub p50: Duration,
    pub p90: Duration,
    pub p99: Duration,
    pub max: Duration,
}

#[derive(Clone)]
pub struct Figures {
    /// One per `ROWS`.
    histograms: Vec<Histogram<u32>>,
}

impl Default for Figures {
    fn default() -> Self {
        let empty = Histogram::new_with_bounds(1, MICROSECONDS_MAX, DIGITS)
            .expect("the bounds are in order and the digits few");
        Self {
            histograms: vec![empty; ROWS.len()],
        }
    }
}

impl Figures {
    pub(super) fn record(&mut self, timed: Timed, took: Duration) {
        self.record_each(timed, took, 1);
    }

    /// So many took so long each.
    pub(super) fn record_each(&mut self, timed: Timed, took: Duration, count: u32) {
        let nearest = (took.as_nanos() + 500) / 1000;
        let microseconds = u64::try_from(nearest).unwrap_or(u64::MAX).max(1);
        self.histograms[timed.index()].saturating_record_n(microseconds, count);
    }

    /// Takes another ring's in.
    pub fn add(&mut self, other: &Self) {
        for (own, other) in self.histograms.iter_mut().zip(&other.histograms) {
            own.add(other).expect("the bounds are the same");
        }
    }

    pub fn rows(&self) -> impl Iterator<Item = Row> {
        let filled = ROWS.iter().zip(&self.histograms);
        let filled = filled.filter(|(_, histogram)| !histogram.is_empty());
        filled.map(|(&(what, lane), histogram)| {
            let at = |quantile| Duration::from_micros(histogram.value_at_quantile(quantile));
            Row {
                what,
                lane,
                count: histogram.len(),
                p50: at(0.5),
                p90: at(0.9),
                p99: at(0.99),
                max: Duration::from_micros(histogram.max()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_row_appears_with_its_first_time_and_has_its_own_name() {
        let lanes = [Lane::Ring, Lane::Inline, Lane::Pool];
        let jobs = [
            JobKind::ListSource,
            JobKind::ReadPack,
            JobKind::ListTarget,
            JobKind::ApplyPack,
            JobKind::Match,
            JobKind::Sign,
            JobKind::Weave,
            JobKind::Digest,
            JobKind::CommitLarge,
            JobKind::Sync,
            JobKind::Other,
        ];
        let streams = [Timed::Receive, Timed::Send, Timed::SendZeroCopy];
        let all = streams
            .into_iter()
            .chain([Timed::Commit])
            .chain(lanes.map(Timed::Read))
            .chain(lanes.map(Timed::Write))
            .chain(jobs.map(Timed::Job));
        let mut figures = Figures::default();
        assert_eq!(figures.rows().count(), 0);
        for (number, timed) in all.enumerate() {
            figures.record(timed, MS);
            assert_eq!(figures.rows().count(), number + 1, "{timed:?}");
        }
        assert_eq!(figures.rows().count(), ROWS.len());
        assert!(figures.rows().all(|row| row.count == 1));
    }

    #[test]
    fn quantiles_are_right_to_two_digits_and_whatever_is_too_long_is_a_minute() {
        let mut figures = Figures::default();
        for milliseconds in 1..=100 {
            figures.record(Timed::Send, MS * milliseconds);
        }
        figures.record(Timed::Receive, Duration::from_secs(100_000));
        figures.record(Timed::Commit, Duration::from_nanos(1));
        let rows: Vec<Row> = figures.rows().collect();
        let nearly = |is: Duration, should: Duration| is.abs_diff(should) <= should / 100;
        assert!(nearly(rows[1].p50, MS * 50) && nearly(rows[1].p99, MS * 99));
        assert!(nearly(rows[1].p90, MS * 90) && nearly(rows[1].max, MS * 100));
        assert!(nearly(rows[0].max, Duration::from_secs(60)));
        assert_eq!(rows[2].p50, Duration::from_micros(1));
    }

    #[test]
    fn the_figures_of_two_rings_add_up() {
        let (mut one, mut other) = (Figures::default(), Figures::default());
        one.record_each(Timed::Commit, MS, 30);
        other.record_each(Timed::Commit, MS * 2, 70);
        other.record(Timed::Read(Lane::Pool), MS);
        one.add(&other);
        let counts: Vec<_> = one.rows().map(|row| (row.what, row.count)).collect();
        assert_eq!(counts, [("read", 1), ("commit", 100)]);
    }
}
