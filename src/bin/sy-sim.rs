//! `sy-sim SEED [COUNT]`: simulated pushes from one seed on. Prints the weather of each run before
//! it starts, so that the number alone is a report; many at once print only what is wrong.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use sy::sim::scenario::Scenario;
use sy::sim::world::World;

fn main() -> ExitCode {
    let numbers: Result<Vec<u64>, _> = std::env::args().skip(1).map(|arg| arg.parse()).collect();
    let (first, count) = match numbers.as_deref() {
        Ok([seed]) => (*seed, 1),
        Ok([seed, count]) => (*seed, *count),
        Ok(_) | Err(_) => {
            say("usage: sy-sim SEED [COUNT]");
            return ExitCode::from(1);
        }
    };
    let mut failed_count = 0;
    for seed in first..first.saturating_add(count) {
        let scenario = Scenario::new(seed);
        if count == 1 {
            say(&scenario.to_string());
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| World::new(scenario).run()));
        match outcome {
            Ok(Ok(summary)) if count == 1 => say(&format!("{summary:?}")),
            Ok(Ok(_)) => {}
            Ok(Err(what)) => {
                failed_count += 1;
                say(&format!("seed {seed}: {what}"));
            }
            Err(_) => {
                failed_count += 1;
                say(&format!("seed {seed}: panicked"));
            }
        }
    }
    say(&format!("seeds {count}, {failed_count} failed"));
    ExitCode::from(u8::from(failed_count > 0))
}

#[expect(clippy::print_stdout, reason = "a program's own output")]
fn say(line: &str) {
    println!("{line}");
}
