//! The bench's rooms, and its way from the command line to the table.
//!
//! `options` says what to measure, `row` what there is, `race` runs one row round by round in a
//! `ground` that holds the `tree`s. `tool` knows the command lines, `child` and `daemon` the processes,
//! `ssh` and `distance` the ways between them, `idlers` sessions that only stand by, `procfs` what the kernel says of them; `floor` and
//! `naive` are the peers that are written here. `allocations` counts in this very process. `figures`
//! makes numbers of runs, `latencies` of many pushes in one, `growth` of rows beside each other; `table` shows them, `record` keeps them, `plot` draws them.

mod allocations;
mod child;
mod daemon;
mod distance;
mod edits;
mod failure;
mod figures;
mod first_file;
mod floor;
mod ground;
mod growth;
mod idlers;
mod latencies;
mod naive;
mod options;
mod plot;
mod procfs;
mod race;
mod record;
mod row;
mod ssh;
mod stop;
mod table;
mod tool;
mod tree;

use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use failure::{Failure, Result};
use ground::Ground;
use growth::Growth;
use options::{Mode, Streaming};
use plot::Plot;
use race::{Outcome, Race};
use stop::Stop;

pub fn main() -> ExitCode {
    let ended = match options::read() {
        Some(Mode::Streaming(options)) => streaming(&options),
        Some(Mode::Allocations(options)) => count_allocations(&options.dir),
        Some(Mode::FloorServe(options)) => floor::serve(&options),
        Some(Mode::FloorPush(options)) => floor::push(&options),
        Some(Mode::NaiveCopy(options)) => naive::copy(&options),
        None => return ExitCode::SUCCESS,
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            table::say(&format!("scale_bench: {failure}"));
            ExitCode::FAILURE
        }
    }
}

/// Races `sy push` against its peers, row by row. True when every row was run or skipped for a
/// reason, false when one failed.
fn streaming(options: &Streaming) -> Result<bool> {
    let rows = row::chosen(options)?;
    if options.list {
        table::list(&rows);
        return Ok(true);
    }
    let stop = Stop::on_signals()?;
    procfs::is_enough()?;
    let ground = Ground::new(&options.dir)?;
    let tools = tool::versions(&ground, &stop)?;
    let mut record = record::Record::new(options, &ground, tools, SystemTime::now());
    table::head(&record, options);

    let mut plot = Plot::new(
        options.subject.name(),
        &record.machine_line(),
        options.quick,
    );
    let mut race = Race::new(options, &ground, &stop);
    let mut growth = Growth::default();
    let mut all_well = true;
    for row in &rows {
        let outcome = match race.run(row) {
            Ok(outcome) => outcome,
            Err(Failure::Interrupted) => {
                table::say("interrupted; removing the trees");
                all_well = false;
                break;
            }
            Err(failure) => Outcome::Failed(failure.to_string()),
        };
        all_well &= !matches!(outcome, Outcome::Failed(_));
        table::row(row, &outcome, options);
        if let Outcome::Ran(ran) = &outcome {
            plot.add(row, ran, !options.quick);
            growth.add(row, ran);
        }
        record.add(row, &outcome);
    }
    for value in growth.tell(!options.quick) {
        record.add_value(value);
    }
    if options.rows.is_empty() && all_well {
        let per_file = allocations::measure(&ground, &stop)?;
        per_file.show();
        record.add_value(per_file.value());
    }
    let path = record.write(&options.json_path())?;
    table::say(&format!("raw runs: {}", path.display()));
    let path = plot.write(&options.plot_path())?;
    table::say(&format!("plot: {}", path.display()));
    Ok(all_well)
}

fn count_allocations(dir: &Path) -> Result<bool> {
    let stop = Stop::on_signals()?;
    let ground = Ground::new(dir)?;
    allocations::measure(&ground, &stop)?.show();
    Ok(true)
}
