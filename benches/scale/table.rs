//! The table, and a word now and then while it grows.

#![expect(
    clippy::print_stdout,
    reason = "the table is what the bench is run for"
)]
#![expect(
    clippy::print_stderr,
    reason = "progress, so that the table alone can go to a file"
)]

use super::figures::{self, Measure, Ratio, Spread};
use super::options::Streaming;
use super::race::{Outcome, Ran};
use super::record::Record;
use super::row::{Goal, Row, Scale, Scene};
use super::tree::Count;

const MIB: f64 = 1024.0 * 1024.0;

pub fn say(line: &str) {
    eprintln!("  {line}");
}

pub fn line(line: &str) {
    println!("{line}");
}

pub fn list(rows: &[Row]) {
    for row in rows {
        let demand = if row.on_demand { " (on demand)" } else { "" };
        println!("{:15} {}{demand}", row.name, title(row));
    }
}

pub fn head(record: &Record, options: &Streaming) {
    println!("{}", record.machine_line());
    for line in record.tool_lines() {
        println!("{line}");
    }
    if options.quick {
        println!("--quick: these trees are too small to judge anything by");
    }
}

pub fn row(row: &Row, outcome: &Outcome, options: &Streaming) {
    println!("\n{}: {}", row.name, title(row));
    match outcome {
        Outcome::Ran(ran) => {
            let Count { files, dirs, bytes } = ran.source;
            println!(
                "  {files} files, {dirs} directories, {:.1} MiB",
                bytes as f64 / MIB
            );
            figures(row, ran);
            ratios(row, ran);
            if !options.quick {
                verdicts(ran);
            }
            if let Some(share) = figures::others_share(&ran.runs) {
                println!(
                    "  others used {:.0} % of the machine's CPU meanwhile",
                    100.0 * share
                );
            }
        }
        Outcome::Skipped(why) => println!("  skipped: {why}"),
        Outcome::Failed(why) => println!("  FAILED: {why}"),
    }
}

fn title(row: &Row) -> String {
    format!("{}, {}, {}", row.what, row.scene.name(), row.way.name())
}

fn figures(row: &Row, ran: &Ran) {
    print!("  {:22}", "median (min..max)");
    for name in &ran.names {
        print!("{name:<34}");
    }
    println!();
    for measure in measures(row.scene) {
        let spreads: Vec<_> = (0..ran.names.len())
            .map(|index| Spread::of(&ran.runs, index, *measure))
            .collect();
        if spreads.iter().all(Option::is_none) {
            continue;
        }
        print!("  {:22}", measure.name());
        for spread in spreads {
            let cell = spread.map_or("-".into(), |Spread { median, min, max }| {
                let [median, min, max] = [median, min, max].map(|number| value(*measure, number));
                format!("{median} ({min}..{max})")
            });
            print!("{cell:<34}");
        }
        println!();
    }
}

fn ratios(row: &Row, ran: &Ran) {
    for (peer, name) in ran.names.iter().enumerate().skip(1) {
        for measure in compared(row.scene) {
            if let Some(Ratio {
                of_medians,
                of_pairs,
            }) = Ratio::of(&ran.runs, peer, measure)
            {
                let pair = format!("{} / {name}", ran.names[0]);
                println!(
                    "  {pair:22}{}: {of_medians:.2} of medians, {of_pairs:.2} median of pairs",
                    measure.name()
                );
            }
        }
    }
}

fn verdicts(ran: &Ran) {
    for goal in &ran.goals {
        let Some(judged) = figures::judged(&ran.runs, goal, &ran.tools) else {
            continue;
        };
        let bar = |name: &str, bar: Option<f64>| {
            bar.map(|bar| {
                let verdict = if judged <= bar { "pass" } else { "MISS" };
                format!("{name} {}: {verdict}", on_scale(goal, bar))
            })
        };
        let bars: Vec<String> = [bar("reach", goal.reach), bar("record", goal.record)]
            .into_iter()
            .flatten()
            .collect();
        let against = match goal.scale {
            Scale::Of(tool) => format!(" / {}'s", tool.name()),
            Scale::Absolute => String::new(),
        };
        println!(
            "  target                {}{against} {}; {}",
            goal.measure.name(),
            on_scale(goal, judged),
            bars.join(", ")
        );
    }
}

fn on_scale(goal: &Goal, number: f64) -> String {
    match goal.scale {
        Scale::Of(_) => format!("{number:.2}"),
        Scale::Absolute => value(goal.measure, number),
    }
}

/// A push that is stopped at its first file has used nothing worth telling.
fn measures(scene: Scene) -> &'static [Measure] {
    match scene {
        Scene::FirstFile => &[Measure::Elapsed],
        // Nobody looks at so many processes while they are timed.
        Scene::Crowd(_) => &[Measure::Elapsed, Measure::Slowest, Measure::Cpu],
        Scene::Beside { .. } => &[
            Measure::P50,
            Measure::P90,
            Measure::P99,
            Measure::Slowest,
            Measure::Pushes,
            Measure::Huge,
        ],
        Scene::FirstPush | Scene::NothingChanged | Scene::Idle(_) | Scene::Changed(_) => &[
            Measure::Elapsed,
            Measure::RoundTrips,
            Measure::Cpu,
            Measure::Wire,
            Measure::Voluntary,
            Measure::Involuntary,
            Measure::ClientPeak,
            Measure::ServerPeak,
        ],
    }
}

/// What is told relative to a peer, too.
pub fn compared(scene: Scene) -> impl Iterator<Item = Measure> {
    let is_compared =
        |measure: &Measure| measure.is_time() || matches!(measure, Measure::Cpu | Measure::Wire);
    measures(scene).iter().copied().filter(is_compared)
}

/// A number with its unit, in three digits or so.
pub fn value(measure: Measure, number: f64) -> String {
    match measure {
        Measure::Elapsed
        | Measure::P50
        | Measure::P90
        | Measure::P99
        | Measure::Slowest
        | Measure::Huge
        | Measure::Cpu => match number {
            ..0.1 => format!("{:.1} ms", number * 1e3),
            ..10.0 => format!("{number:.3} s"),
            _ => format!("{number:.1} s"),
        },
        Measure::RoundTrips => format!("{number:.2}"),
        Measure::Pushes | Measure::Voluntary | Measure::Involuntary => format!("{number:.0}"),
        Measure::Wire | Measure::ClientPeak | Measure::ServerPeak => {
            format!("{:.1} MiB", number / MIB)
        }
    }
}
