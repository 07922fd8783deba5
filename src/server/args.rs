//! The command line of `sy-server`: what was typed. `server::config` says what it means.

use std::ffi::OsString;

use clap::{Parser, Subcommand};

use crate::engine::posix::EngineChoice;
use crate::limits::{POOL_THREADS_MAX, SHARDS_MAX};

const EXAMPLES: &str = "\
A config file is TOML; what the command line says goes first:
  socket = \"/run/sy/sy.sock\"
  listen = [\"127.0.0.1:7873\"]     # needs no_auth = true
  no_auth = true
  max_connections = 500
  shards = 2
  pool_threads = 4
  engine = \"auto\"
  [module.backup]
  path = \"/srv/backup\"
  read_only = false               # true where it is left out

Exit codes:
   0  stopped in good order (SIGTERM, SIGINT)
   1  nonsense on the command line or in the config
   5  no engine runs here
  10  a socket can't be listened on
  12  an internal error; the log tells which

With --stdio it serves one session and exits as that session did. A key that
may push to one module and do nothing else, in authorized_keys:
  restrict,command=\"sy-server --stdio --module m=/srv/m,rw\" ssh-ed25519 ...
The other end then pushes with: sy push -e ssh SRC host::m/path

Examples:
  sy-server --module backup=/srv/backup,rw
  sy-server --listen 127.0.0.1:7873 --no-auth --module pub=/srv/pub
  sy-server doctor";

/// Serves directories to sy push
///
/// Without --socket and --listen it listens on a UNIX socket that only its own user may open.
#[derive(Parser, Debug, Default)]
#[command(
    name = "sy-server",
    version,
    after_long_help = EXAMPLES,
    max_term_width = 78,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
pub struct ServerArgs {
    #[command(subcommand)]
    pub command: Option<ServerCommand>,

    /// Serve one session on stdin and stdout
    ///
    /// That is what sy push runs by ssh, so it is seldom typed. With the rights of its user:
    /// without modules DEST may be anywhere, with them only there.
    #[arg(
        long,
        conflicts_with_all = ["socket", "listen", "no_auth", "shards"],
        help_heading = "Connections"
    )]
    pub stdio: bool,

    /// Export PATH as NAME, read-only without ,rw
    #[arg(
        long = "module",
        value_name = "NAME=PATH[,rw]",
        help_heading = "Modules"
    )]
    pub modules: Vec<OsString>,
    /// Read modules and settings from a TOML file
    ///
    /// It must belong to root or to the server's user, and nobody else may write to it. An
    /// unknown key is an error.
    #[arg(long, value_name = "FILE", help_heading = "Modules")]
    pub config: Option<OsString>,

    /// Listen on a UNIX socket, mode 0600
    ///
    /// Default: /run/sy/sy.sock, unless --listen is given.
    #[arg(long, value_name = "PATH", help_heading = "Connections")]
    pub socket: Option<OsString>,
    /// Listen on a loopback address; needs --no-auth
    ///
    /// The port is 7873 if left out. Every user of this host can connect.
    #[arg(long, value_name = "ADDR:PORT", help_heading = "Connections")]
    pub listen: Vec<String>,
    /// Serve TCP without asking who connects
    #[arg(long, help_heading = "Connections")]
    pub no_auth: bool,

    /// Connections at once; more are refused
    ///
    /// They are told that the server is busy. Default: what doctor shows.
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "Connections"
    )]
    pub max_connections: Option<u32>,

    /// Event loops; one per core if left out
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=i64::from(SHARDS_MAX)),
        help_heading = "Machine"
    )]
    pub shards: Option<u16>,
    /// Threads for calls that a ring can't make
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=i64::from(POOL_THREADS_MAX)),
        help_heading = "Machine"
    )]
    pub pool_threads: Option<u16>,
    /// What moves the bytes: auto, uring, portable
    ///
    /// auto: io_uring, and where this host refuses it epoll and threads, which is said. Default: what
    /// SY_ENGINE says, else auto.
    #[arg(
        long,
        value_name = "NAME",
        env = "SY_ENGINE",
        hide_env = true,
        help_heading = "Machine"
    )]
    pub engine: Option<EngineChoice>,
}

#[derive(Subcommand, Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerCommand {
    /// Tell what this host offers, and what to do about the rest
    ///
    /// Which engine, which kernel features, which limits.
    Doctor,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(args: &[&str]) -> Result<ServerArgs, clap::Error> {
        ServerArgs::try_parse_from(["sy-server"].iter().chain(args))
    }

    #[test]
    fn the_command_line_is_well_formed() {
        ServerArgs::command().debug_assert();
    }

    #[test]
    fn every_option_is_read() {
        let args = parse(&[
            "--module=a=/a,rw",
            "--module",
            "b=/b",
            "--config=/c",
            "--socket=/s",
            "--listen=127.0.0.1:1",
            "--listen=[::1]:1",
            "--no-auth",
            "--max-connections=9",
            "--shards=2",
            "--pool-threads=3",
        ])
        .unwrap();
        assert_eq!((args.modules.len(), args.listen.len()), (2, 2));
        assert_eq!((args.shards, args.pool_threads), (Some(2), Some(3)));
        assert_eq!(args.max_connections, Some(9));
        assert!(args.no_auth && args.command.is_none());
    }

    #[test]
    fn doctor_stands_alone() {
        let args = parse(&["doctor"]).unwrap();
        assert_eq!(args.command, Some(ServerCommand::Doctor));
        parse(&["--shards=1", "doctor"]).unwrap_err();
        for bad in [
            "--max-connections=0",
            "--shards=0",
            "--pool-threads=100000",
            "x",
        ] {
            parse(&[bad]).unwrap_err();
        }
    }

    #[test]
    fn stdin_and_stdout_leave_no_room_for_listeners() {
        let args = parse(&["--stdio", "--module=a=/a", "--pool-threads=1"]).unwrap();
        assert!(args.stdio && args.modules.len() == 1);
        for other in ["--socket=/s", "--listen=::1", "--no-auth", "--shards=1"] {
            parse(&["--stdio", other]).unwrap_err();
        }
        parse(&["--stdio", "doctor"]).unwrap_err();
    }

    #[test]
    fn help_stays_under_79_columns() {
        let short = ServerArgs::command().render_help().to_string();
        assert_eq!(
            short
                .lines()
                .filter(|l| l.starts_with("          "))
                .count(),
            0
        );
        let help = ServerArgs::command().render_long_help().to_string();
        for line in help.lines() {
            assert!(line.chars().count() < 79, "{line}");
        }
    }
}
