//! How long each of many clients took, by quantile.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Three digits from a microsecond up; it grows as it has to.
const DIGITS: u8 = 3;

pub struct Latencies(Histogram<u64>);

impl Latencies {
    pub fn new() -> Self {
        Self(Histogram::new(DIGITS).expect("three digits are allowed"))
    }

    pub fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0.record(micros).expect("it grows up to any number");
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// What `quantile` of all took at most, in 0 to 1.
    pub fn at(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(quantile))
    }

    pub fn longest(&self) -> Duration {
        Duration::from_micros(self.0.max())
    }
}
