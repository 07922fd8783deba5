//! `sy-sim [--first] SEED [COUNT]`: simulated pushes from one seed on. Prints the weather of each run before
//! it starts, so that the number alone is a report; many at once print only what is wrong, and with `--first`
//! end with the first seed that finds something.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use rustix::time::{ClockId, clock_gettime};
use sy::sim::scenario::Scenario;
use sy::sim::world::World;

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let ends_at_first = args.first().is_some_and(|arg| arg == "--first");
    if ends_at_first {
        args.remove(0);
    }
    let numbers: Result<Vec<u64>, _> = args.iter().map(|arg| arg.parse()).collect();
    let (first, count) = match numbers.as_deref() {
        Ok([seed]) => (*seed, 1),
        Ok([seed, count]) => (*seed, *count),
        Ok(_) | Err(_) => {
            say("usage: sy-sim [--first] SEED [COUNT]");
            return ExitCode::from(1);
        }
    };
    let (mut run_count, mut failed_count) = (0_u32, 0_u32);
    for seed in first..first.saturating_add(count) {
        let scenario = Scenario::new(seed);
        if count == 1 {
            say(&scenario.to_string());
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| World::new(scenario).run()));
        let wrong = match outcome {
            Ok(Ok(summary)) if count == 1 => {
                say(&format!("{summary:?}"));
                None
            }
            Ok(Ok(_)) => None,
            Ok(Err(what)) => Some(what),
            Err(panic) => Some(format!("panicked: {}", words_of(&*panic))),
        };
        run_count += 1;
        if let Some(what) = wrong {
            failed_count += 1;
            say(&format!("seed {seed}: {what}"));
            if ends_at_first {
                break;
            }
        }
    }
    let seconds = cpu_seconds();
    let per_minute = f64::from(run_count) * 60.0 / seconds;
    say(&format!(
        "seeds {run_count}, {failed_count} failed, {seconds:.1} s, {per_minute:.0} a minute"
    ));
    ExitCode::from(u8::from(failed_count > 0))
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let string = panic.downcast_ref::<String>().map(String::as_str);
    string
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or_default()
}

/// What it took of one core, whoever else works on this host.
#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[expect(clippy::print_stdout, reason = "a program's own output")]
fn say(line: &str) {
    println!("{line}");
}
