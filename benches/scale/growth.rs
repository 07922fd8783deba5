//! How much more memory a push holds of a tree of ten times the files: as good as none, where no end
//! has an index of the tree.

use serde_json::{Value, json};

use super::figures::{Measure, Spread};
use super::race::Ran;
use super::row::Row;
use super::table;

/// The same files and directories, ten times as many in the second.
const PAIRS: [(&str, &str); 2] = [
    ("many-same-100k", "many-same"),
    ("many-same", "many-same-10m"),
];
/// Of the subject's largest peaks.
const REACH: f64 = 1.25;

/// The subject's peaks in the rows that are compared, client's and server's, as far as they were run.
#[derive(Default)]
pub struct Growth {
    peaks: Vec<(&'static str, [Option<f64>; 2])>,
}

impl Growth {
    pub fn add(&mut self, row: &Row, ran: &Ran) {
        if PAIRS
            .iter()
            .any(|(one, ten)| [*one, *ten].contains(&row.name))
        {
            let peak = |measure| Spread::of(&ran.runs, 0, measure).map(|spread| spread.max);
            let peaks = [Measure::ClientPeak, Measure::ServerPeak].map(peak);
            self.peaks.push((row.name, peaks));
        }
    }

    /// A line and a row of the record for each pair of which both were run.
    pub fn tell(&self, is_judged: bool) -> Vec<Value> {
        let peaks = |name| self.peaks.iter().find(|(row, _)| *row == name);
        let mut rows = Vec::new();
        for (one, ten) in PAIRS {
            let (Some((_, less)), Some((_, more))) = (peaks(one), peaks(ten)) else {
                continue;
            };
            for (end, less, more) in [("client", less[0], more[0]), ("server", less[1], more[1])] {
                let (Some(less), Some(more)) = (less, more) else {
                    continue;
                };
                let ratio = more / less;
                let verdict = match (is_judged, ratio <= REACH) {
                    (false, _) => "not judged",
                    (true, true) => "pass",
                    (true, false) => "MISS",
                };
                table::line(&format!(
                    "\ngrowth: peak RSS, {end}, {ten} / {one} {ratio:.2}; reach {REACH}: {verdict}"
                ));
                rows.push(json!({
                    "name": "growth",
                    "what": format!("peak RSS, {end}, {ten} / {one}"),
                    "measured": ratio,
                    "reach": REACH,
                }));
            }
        }
        rows
    }
}
