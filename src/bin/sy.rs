//! `sy`: the command line's door. What it does is in `sy::client`.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use sy::client::args::{self, Cli, Command};
use sy::client::output;
use sy::client::plan::Plan;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => {
            // Nobody is left to be told that the terminal is closed.
            match args::rsync_flag(&answer) {
                Some(said) => drop(writeln!(std::io::stderr(), "{said}")),
                None => drop(answer.print()),
            }
            return ExitCode::from(args::exit_of(&answer) as u8);
        }
    };
    let Command::Push(mut push) = cli.command;
    push.rsh_usual = std::env::var_os("SY_RSH");
    let exit = match Plan::new(push) {
        Ok(plan) => sy::client::run::push(&plan),
        Err(error) => output::plan_error(&error),
    };
    ExitCode::from(exit as u8)
}
