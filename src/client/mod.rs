//! FLOOR 5: `sy push`, from the command line to the last line printed.

pub mod args;
pub mod dest;
pub mod failure;
mod latency;
pub mod messages;
pub mod output;
pub mod plan;
pub mod progress;
pub mod rsh;
pub mod run;
pub mod sources;
