//! How long a push takes, what it costs and how much memory it holds, beside rsync in the same run.
//! `cargo bench --bench scale_bench -- streaming` prints the table; `benches/README.md` says what a
//! number means.

#[path = "scale/mod.rs"]
mod scale;

use std::process::ExitCode;

fn main() -> ExitCode {
    scale::main()
}
