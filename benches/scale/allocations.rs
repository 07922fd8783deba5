//! Heap allocations of a push, client and server together, for each file that is more in the tree.

use std::fs;
use std::path::Path;

use clap::Parser;
use serde_json::{Value, json};
use sy::client::args::{Cli, Command};
use sy::client::plan::Plan;

use super::failure::{Doing, Failure, Result};
use super::ground::Ground;
use super::stop::Stop;
use super::table;
use super::tree::{SMALL, Shape};

/// Counts while a `Profiler` stands, in this process only: what is raced runs in others.
#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Design: at most one for ten files, and none to chase.
const REACH: f64 = 0.1;

/// Two trees of as many directories: what the larger one needs more, its files need.
const FEWER: Shape = Shape {
    files: 10_000,
    dirs: 100,
    ..SMALL
};
const MORE: Shape = Shape {
    files: 40_000,
    ..FEWER
};

pub struct PerFile {
    first_push: f64,
    nothing_changed: f64,
}

/// Pushes both trees inside this process, twice each.
pub fn measure(ground: &Ground, stop: &Stop) -> Result<PerFile> {
    let fewer = allocations(&FEWER, ground, stop)?;
    let more = allocations(&MORE, ground, stop)?;
    let files = (MORE.files - FEWER.files) as f64;
    let per_file = |push: usize| (more[push] as f64 - fewer[push] as f64) / files;
    Ok(PerFile {
        first_push: per_file(0),
        nothing_changed: per_file(1),
    })
}

/// Of the first push of a tree, and of one that finds nothing to do.
fn allocations(shape: &Shape, ground: &Ground, stop: &Stop) -> Result<[u64; 2]> {
    let (source, target) = (ground.source(), ground.target());
    for dir in [&source, &target] {
        ground.clear(dir)?;
    }
    fs::create_dir(&target).doing(|| target.display().to_string())?;
    shape.make(&source, stop)?;
    let target = target.join("sy");
    Ok([push(&source, &target)?, push(&source, &target)?])
}

fn push(source: &Path, target: &Path) -> Result<u64> {
    let words = [
        "sy".into(),
        "push".into(),
        "--quiet".into(),
        source.join(""),
        target.into(),
    ];
    let unfit = |what: &dyn std::fmt::Display| Failure::Tool(format!("sy push: {what}"));
    let cli = Cli::try_parse_from(words).map_err(|error| unfit(&error))?;
    let Command::Push(push) = cli.command;
    let plan = Plan::new(push).map_err(|error| unfit(&error))?;
    let profiler = dhat::Profiler::builder().testing().build();
    let exit = sy::client::run::push(&plan);
    let count = dhat::HeapStats::get().total_blocks;
    drop(profiler);
    match exit as u8 {
        0 => Ok(count),
        code => Err(unfit(&format!("exit code {code}"))),
    }
}

impl PerFile {
    pub fn show(&self) {
        let Self {
            first_push,
            nothing_changed,
        } = self;
        let worst = first_push.max(*nothing_changed);
        let verdict = if worst <= REACH { "pass" } else { "MISS" };
        table::line(&format!(
            "\nallocations: heap allocations per file, both ends, local\n  first push {first_push:.3}, nothing \
             changed {nothing_changed:.3}\n  target                {worst:.3}; reach {REACH}: {verdict}"
        ));
    }

    pub fn value(&self) -> Value {
        json!({
            "name": "allocations",
            "first_push_per_file": self.first_push,
            "nothing_changed_per_file": self.nothing_changed,
            "reach": REACH,
        })
    }
}
