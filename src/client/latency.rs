//! The figures of the engine in the words of `--stats` and `--json`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::engine::figures::Figures;

/// A line per kind of operation and lane, under a line of headings; empty where nothing was done.
pub(super) fn table(figures: &Figures) -> String {
    let mut table = String::new();
    for row in figures.rows() {
        if table.is_empty() {
            let head = ["Latency", "lane", "count", "p50", "p90", "p99", "max"];
            let [what, lane, count, p50, p90, p99, max] = head;
            write!(
                table,
                "\n\n{what:<12}  {lane:<9}  {count:>8}  {p50:>8}  {p90:>8}  {p99:>8}  {max:>8}"
            )
            .expect(TAKES_ALL);
        }
        let [p50, p90, p99, max] = [row.p50, row.p90, row.p99, row.max].map(shown);
        write!(
            table,
            "\n{:<12}  {:<9}  {:>8}  {p50:>8}  {p90:>8}  {p99:>8}  {max:>8}",
            row.what, row.lane, row.count
        )
        .expect(TAKES_ALL);
    }
    table
}

const TAKES_ALL: &str = "a String takes everything";

/// Two or three digits: what is measured has no more.
fn shown(time: Duration) -> String {
    let microseconds = time.as_micros();
    match microseconds {
        0..1_000 => format!("{microseconds} us"),
        1_000..10_000 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        10_000..1_000_000 => format!("{} ms", microseconds / 1000),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

/// `{"read": {"inline": {"count": 1, ...}}}`
pub(super) type ByKind = BTreeMap<&'static str, BTreeMap<&'static str, Latency>>;

#[derive(Serialize)]
pub(super) struct Latency {
    count: u64,
    p50_us: u128,
    p90_us: u128,
    p99_us: u128,
    max_us: u128,
}

pub(super) fn by_kind(figures: &Figures) -> ByKind {
    let mut kinds = ByKind::new();
    for row in figures.rows() {
        let latency = Latency {
            count: row.count,
            p50_us: row.p50.as_micros(),
            p90_us: row.p90.as_micros(),
            p99_us: row.p99.as_micros(),
            max_us: row.max.as_micros(),
        };
        kinds.entry(row.what).or_default().insert(row.lane, latency);
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_in_the_unit_that_fits_it() {
        for (microseconds, text) in [
            (7, "7 us"),
            (999, "999 us"),
            (1_500, "1.5 ms"),
            (15_900, "15 ms"),
            (1_250_000, "1.2 s"),
            (60_000_000, "60.0 s"),
        ] {
            assert_eq!(shown(Duration::from_micros(microseconds)), text);
        }
    }

    #[test]
    fn nothing_measured_is_no_table_and_an_empty_object() {
        assert_eq!(table(&Figures::default()), "");
        assert!(by_kind(&Figures::default()).is_empty());
    }
}
