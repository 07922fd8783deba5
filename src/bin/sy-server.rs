//! `sy-server`: the command line's door. What it does is in `sy::server`.

use std::process::ExitCode;

use clap::Parser;
use sy::client::args::exit_of;
use sy::model::report::Exit;
use sy::server::args::ServerArgs;
use sy::server::config::ServerConfig;
use sy::server::log::Log;

fn main() -> ExitCode {
    let args = match ServerArgs::try_parse() {
        Ok(args) => args,
        Err(answer) => {
            // Nobody is left to be told that the terminal is closed.
            drop(answer.print());
            return ExitCode::from(exit_of(&answer) as u8);
        }
    };
    if args.command.is_some() {
        return ExitCode::from(sy::server::run::doctor() as u8);
    }
    let log = Log::new();
    let exit = match ServerConfig::new(args) {
        Ok(config) => sy::server::run::serve(config, log),
        Err(error) => {
            log.say(format_args!("{error}"), error.wrong.hint());
            Exit::Usage
        }
    };
    ExitCode::from(exit as u8)
}
