//! The command line.

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory, Parser, Subcommand};

use super::tool::Tool;
use super::{floor, naive};

#[derive(Parser)]
#[command(
    name = "scale_bench",
    about = "Races sy push against rsync, cp and what can be written by hand",
    disable_help_subcommand = true
)]
struct Line {
    #[command(subcommand)]
    mode: Option<Mode>,
    /// Cargo adds this to every bench it starts
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
pub enum Mode {
    /// Time, CPU, memory and first file of whole pushes, sy and its peers in turns
    Streaming(Streaming),
    /// Heap allocations per file, at the end of the table, too
    Allocations(Allocations),
    #[command(hide = true)]
    FloorServe(floor::Serve),
    #[command(hide = true)]
    FloorPush(floor::Push),
    #[command(hide = true)]
    NaiveCopy(naive::Options),
}

#[derive(Args)]
pub struct Allocations {
    /// Where the trees are made, and removed again
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    pub dir: PathBuf,
}

#[derive(Args)]
pub struct Streaming {
    /// Small trees and two rounds: shows that it runs, measures nothing
    #[arg(long)]
    pub quick: bool,
    /// Only these rows (see --list)
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub rows: Vec<String>,
    /// Rounds of each row: one run of every contender in each
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub pairs: Option<u32>,
    /// Where the raw runs go [default: scale_bench.json in the target directory]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where the ratios go as a picture [default: beside the raw runs, .svg]
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Where the trees are made, and removed again
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    pub dir: PathBuf,
    /// Who is measured; `rsync` against itself shows what the machine's noise looks like
    #[arg(long, value_enum, default_value_t = Tool::Sy)]
    pub subject: Tool,
    /// Name the rows and end
    #[arg(long)]
    pub list: bool,
}

impl Streaming {
    pub fn rounds(&self) -> u32 {
        self.pairs.unwrap_or(if self.quick { 2 } else { 5 })
    }

    pub fn plot_path(&self) -> PathBuf {
        let beside = || self.json_path().with_extension("svg");
        self.plot.clone().unwrap_or_else(beside)
    }

    pub fn json_path(&self) -> PathBuf {
        self.json.clone().unwrap_or_else(|| {
            // target/release/sy, whose grandparent is the target directory whatever it is called.
            let sy = Path::new(env!("CARGO_BIN_EXE_sy"));
            let target = sy.ancestors().nth(2).unwrap_or(Path::new("."));
            target.join("scale_bench.json")
        })
    }
}

/// The mode asked for. Without one, prints the help: a bare `cargo bench` or `cargo test
/// --all-targets` shouldn't fill the memory for minutes.
pub fn read() -> Option<Mode> {
    let line = Line::parse();
    if line.mode.is_none() {
        // A closed stdout is not worth a word here.
        let _ = Line::command().print_help();
    }
    line.mode
}
