//! The rows as one picture: a bar for each ratio of the subject to a peer, with a mark where it should
//! end. Plain SVG, drawn by hand: rectangles and words.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use super::failure::{Doing, Result};
use super::figures::{Measure, Ratio};
use super::race::Ran;
use super::row::{Goal, Row, Scale};
use super::table;

const WIDTH: f64 = 900.0;
/// Where bars begin; what they are of stands before them.
const LEFT: f64 = 270.0;
/// The length of a bar of 1.
const ONE: f64 = 260.0;
/// Longer bars are cut off here; the number behind them is not.
const RATIO_MAX: f64 = 2.0;
const HEAD: f64 = 70.0;
const ROW: f64 = 30.0;
const BAR: f64 = 18.0;

const GOOD: &str = "#3b7a57";
const MISSED: &str = "#c0533a";
const UNJUDGED: &str = "#7a8794";

pub struct Plot {
    body: String,
    bottom: f64,
}

impl Plot {
    pub fn new(subject: &str, machine: &str, is_quick: bool) -> Self {
        let mut plot = Self {
            body: String::new(),
            bottom: HEAD,
        };
        let title = format!("{subject} relative to its peers: shorter is better");
        plot.words(10.0, 22.0, "title", &title);
        plot.words(10.0, 40.0, "note", machine);
        plot.words(
            10.0,
            56.0,
            "note",
            match is_quick {
                true => "--quick: these trees are too small to judge anything by",
                false => "the worse of two ratios, see benches/README.md; the black mark is the target to reach",
            },
        );
        plot
    }

    pub fn add(&mut self, row: &Row, ran: &Ran, is_judged: bool) {
        self.bottom += ROW;
        let title = format!("{}: {}, {}", row.name, row.scene.name(), row.way.name());
        self.words(10.0, self.bottom - 8.0, "row", &title);
        for peer in 1..ran.names.len() {
            for measure in table::compared(row.scene) {
                if let Some(ratio) = Ratio::of(&ran.runs, peer, measure) {
                    let reach = reach(&ran.goals, measure, Scale::Of(ran.tools[peer]));
                    let what = format!("{} / {}", measure.name(), ran.names[peer]);
                    self.bar(&what, ratio.worse(), reach.filter(|_| is_judged));
                }
            }
        }
    }

    fn bar(&mut self, what: &str, ratio: f64, reach: Option<f64>) {
        if !ratio.is_finite() {
            return;
        }
        let top = self.bottom;
        self.bottom += BAR;
        let color = match reach {
            Some(reach) if ratio <= reach => GOOD,
            Some(_) => MISSED,
            None => UNJUDGED,
        };
        let length = ONE * ratio.min(RATIO_MAX);
        self.words(30.0, top + 12.0, "what", what);
        self.rect(LEFT, top + 2.0, length, BAR - 5.0, color);
        if let Some(reach) = reach {
            self.rect(LEFT + ONE * reach - 1.0, top, 2.0, BAR - 1.0, "black");
        }
        let number = match reach {
            Some(reach) => format!("{ratio:.2} (reach {reach:.2})"),
            None => format!("{ratio:.2}"),
        };
        let behind = length.max(ONE * reach.unwrap_or(0.0));
        self.words(LEFT + behind + 6.0, top + 12.0, "what", &number);
    }

    fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, color: &str) {
        writeln!(
            self.body,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{color}"/>"#
        )
        .expect("a string takes everything");
    }

    fn words(&mut self, x: f64, y: f64, class: &str, words: &str) {
        let words = words
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        writeln!(
            self.body,
            r#"<text x="{x:.1}" y="{y:.1}" class="{class}">{words}</text>"#
        )
        .expect("a string takes everything");
    }

    /// Returns where it went.
    pub fn write(mut self, path: &Path) -> Result<PathBuf> {
        let height = self.bottom + 12.0;
        // As long as the peer took.
        self.rect(LEFT + ONE, HEAD, 1.0, self.bottom - HEAD, "#b0b0b0");
        self.words(LEFT + ONE - 3.0, HEAD - 2.0, "note", "1");
        let svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\">\n\
             <style>text {{ font-family: sans-serif; font-size: 12px; }} .title {{ font-size: 16px; }} \
             .row {{ font-weight: bold; }} .note {{ fill: #606060; }}</style>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{}</svg>\n",
            self.body
        );
        fs::write(path, svg).doing(|| path.display().to_string())?;
        Ok(path.into())
    }
}

fn reach(goals: &[Goal], measure: Measure, scale: Scale) -> Option<f64> {
    goals
        .iter()
        .find(|goal| goal.measure == measure && goal.scale == scale)
        .and_then(|goal| goal.reach)
}
