//! Numbers made of runs.

use std::time::Duration;

use serde_json::Value;

use super::latencies::Latencies;
use super::procfs::Usage;
use super::row::{Goal, Scale};
use super::tool::Tool;

/// One client, a crowd, or a line of them, from the start to the end, with what the server did for it.
pub struct Run {
    /// None for a run that only warms up and is checked.
    pub round: Option<u32>,
    /// Index of who ran: 0 is the subject.
    pub contender: usize,
    pub scene: &'static str,
    pub elapsed: Duration,
    /// Of a crowd or a line: what its slowest client took, from that one's own start.
    pub slowest: Option<Duration>,
    /// Of a line: what each of its clients took, from its own start.
    pub line: Option<Latencies>,
    /// What the huge push beside a line took.
    pub huge: Option<Duration>,
    /// Where the server was put far away.
    pub round_trip: Option<Duration>,
    pub client: Usage,
    pub server: Option<Usage>,
    /// CPU time of everybody else on the machine meanwhile, the bench's own looks included.
    pub others_cpu: Duration,
    /// Both ways, as far as the client told it.
    pub wire_bytes: Option<u64>,
    /// sy's own account, where it was asked for one.
    pub summary: Option<Value>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Measure {
    Elapsed,
    P50,
    P90,
    P99,
    Slowest,
    Pushes,
    Huge,
    RoundTrips,
    Cpu,
    Voluntary,
    Involuntary,
    Wire,
    ClientPeak,
    ServerPeak,
}

impl Measure {
    pub fn name(self) -> &'static str {
        match self {
            Self::Elapsed => "time",
            Self::P50 => "time, median push",
            Self::P90 => "time, p90",
            Self::P99 => "time, p99",
            Self::Slowest => "time, slowest",
            Self::Pushes => "pushes in the line",
            Self::Huge => "time, huge push",
            Self::RoundTrips => "time, round trips",
            Self::Cpu => "CPU, both ends",
            Self::Voluntary => "voluntary switches",
            Self::Involuntary => "involuntary switches",
            Self::Wire => "bytes on the wire",
            Self::ClientPeak => "peak RSS, client",
            Self::ServerPeak => "peak RSS, server",
        }
    }

    /// In seconds, switches, bytes or pushes; None where there is no server, or it was not seen or told.
    pub fn of(self, run: &Run) -> Option<f64> {
        let server = run.server.unwrap_or_default();
        let line = run.line.as_ref();
        let at = |quantile| line.map(|line| line.at(quantile).as_secs_f64());
        match self {
            Self::Elapsed => Some(run.elapsed.as_secs_f64()),
            Self::P50 => at(0.5),
            Self::P90 => at(0.9),
            Self::P99 => at(0.99),
            Self::Slowest => run.slowest.map(|slowest| slowest.as_secs_f64()),
            Self::Pushes => line.map(|line| line.count() as f64),
            Self::Huge => run.huge.map(|huge| huge.as_secs_f64()),
            Self::RoundTrips => run
                .round_trip
                .map(|round_trip| run.elapsed.as_secs_f64() / round_trip.as_secs_f64()),
            Self::Cpu => Some((run.client.cpu + server.cpu).as_secs_f64()),
            Self::Voluntary => Some((run.client.voluntary + server.voluntary) as f64),
            Self::Involuntary => Some((run.client.involuntary + server.involuntary) as f64),
            Self::Wire => run.wire_bytes.map(|bytes| bytes as f64),
            Self::ClientPeak => Some(run.client.peak_rss_bytes as f64),
            Self::ServerPeak => run.server.map(|server| server.peak_rss_bytes as f64),
        }
        // Nobody holds no memory: the process was gone before the first look at it.
        .filter(|value| !self.is_peak() || *value > 0.0)
    }

    pub fn is_time(self) -> bool {
        match self {
            Self::Elapsed | Self::P50 | Self::P90 | Self::P99 | Self::Slowest | Self::Huge => true,
            Self::Pushes
            | Self::RoundTrips
            | Self::Cpu
            | Self::Voluntary
            | Self::Involuntary
            | Self::Wire
            | Self::ClientPeak
            | Self::ServerPeak => false,
        }
    }

    /// Of a peak the largest counts, of everything else the median.
    fn is_peak(self) -> bool {
        matches!(self, Self::ClientPeak | Self::ServerPeak)
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Of the measured runs of one contender.
    pub fn of(runs: &[Run], contender: usize, measure: Measure) -> Option<Self> {
        let mut values: Vec<f64> = measured(runs, contender)
            .filter_map(|run| measure.of(run))
            .collect();
        values.sort_by(f64::total_cmp);
        Some(Self {
            median: median(&values)?,
            min: *values.first()?,
            max: *values.last()?,
        })
    }
}

/// The subject relative to a peer.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Ratio {
    pub of_medians: f64,
    /// The median of each round's own ratio: neighbours in time suffer the same weather.
    pub of_pairs: f64,
}

impl Ratio {
    pub fn of(runs: &[Run], peer: usize, measure: Measure) -> Option<Self> {
        let of_medians =
            Spread::of(runs, 0, measure)?.median / Spread::of(runs, peer, measure)?.median;
        let mut pairs: Vec<f64> = measured(runs, 0)
            .filter_map(|run| {
                let other = measured(runs, peer).find(|other| other.round == run.round)?;
                Some(measure.of(run)? / measure.of(other)?)
            })
            .collect();
        pairs.sort_by(f64::total_cmp);
        Some(Self {
            of_medians,
            of_pairs: median(&pairs)?,
        })
    }

    /// What a target is held against.
    pub fn worse(&self) -> f64 {
        self.of_medians.max(self.of_pairs)
    }
}

/// What a goal is held against: the worse of the two ratios, the largest peak, or the median.
pub fn judged(runs: &[Run], goal: &Goal, tools: &[Tool]) -> Option<f64> {
    match goal.scale {
        Scale::Of(tool) => {
            let peer = 1 + tools.iter().skip(1).position(|peer| *peer == tool)?;
            Ratio::of(runs, peer, goal.measure).map(|ratio| ratio.worse())
        }
        Scale::Absolute => {
            let spread = Spread::of(runs, 0, goal.measure)?;
            Some(if goal.measure.is_peak() {
                spread.max
            } else {
                spread.median
            })
        }
    }
    .filter(|value| value.is_finite())
}

/// The share of the machine's CPU that others used, in the median run.
pub fn others_share(runs: &[Run]) -> Option<f64> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let mut shares: Vec<f64> = runs
        .iter()
        .filter(|run| run.round.is_some())
        .map(|run| run.others_cpu.as_secs_f64() / (run.elapsed.as_secs_f64() * cores))
        .collect();
    shares.sort_by(f64::total_cmp);
    median(&shares)
}

fn measured(runs: &[Run], contender: usize) -> impl Iterator<Item = &Run> {
    runs.iter()
        .filter(move |run| run.contender == contender && run.round.is_some())
}

fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        len if len % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}
