//! The command line of `sy`: what was typed. `client::plan` says what it means.

use std::ffi::OsString;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};

use crate::engine::posix::EngineChoice;
use crate::limits::{DELTA_BLOCK_BYTES_MAX, DELTA_BLOCK_BYTES_MIN};
use crate::model::policy::{Durability, Sameness};
use crate::model::report::Exit;

/// `sy`.
#[derive(Parser, Debug)]
#[command(
    name = "sy",
    version,
    about = "Pushes directory trees to a storage host, fast and safely.",
    max_term_width = 78,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    Push(PushArgs),
}

const EXAMPLES_AND_EXIT_CODES: &str = "\
SRC and DEST:
  dir              the directory itself: it becomes DEST/dir
  dir/             its contents, as in rsync
  /path, path      a DEST on this host; ./a:b where a name holds a colon
  [user@]host:path your own ssh runs sy-server there; path begins in your
                   home, unless at a slash; ~/path is the same
  sy://host[:port]/module/path
                   a server (port 7873); an IPv6 address stands in brackets
  host::module/path
                   the same, as rsync spells it; with -e the server that the
                   remote shell starts, where a key is kept to modules
  sy:///module/path
                   the server of this host, over its UNIX socket

  Several SRC are merged; the first wins a name, and --delete removes only
  what none of them has.

Exit codes, as rsync's:
   0  everything is in place
   1  nonsense on the command line; nothing was done
   2  the two ends speak different protocol versions
   3  a SRC or the DEST can't be used
   5  the server refused: unknown or read-only module, too many sessions
  10  no connection, or it was lost
  11  a fatal error of the target's disk: full, read-only
  12  the peer broke the protocol, or bits flipped on the way
  14  the remote shell could not be started here
  20  SIGINT, SIGTERM or SIGHUP
  23  some entries failed; each was named
  24  some source files vanished during the push; each was named
  25  --max-delete stopped deletions
  30  the peer was silent for too long
  35  the server did not accept the connection in time
 126  the remote shell could not run sy-server there
 127  the remote shell did not find sy-server there

Examples:
  sy push photos/ nas:backup/photos
  sy push -e 'ssh -p 2222' photos me@nas:/srv/backup/
  sy push -n --delete photos/ nas:/backup/photos
  sy push --stats /etc /home sy:///backup/$(hostname)/";

const EXIT_CODES_SHORT: &str = "\
SRC/ means its contents. Exit codes are rsync's; --help explains them all.";

/// Pushes SRC into DEST: new files, changed files and, if asked, deletions
///
/// It recurses and keeps what rsync -a keeps: modes, times, symlinks, and as root also owners and
/// devices. Files whose size and time agree are left alone.
#[derive(Args, Clone, Debug, Default)]
#[command(
    override_usage = "sy push [OPTIONS] SRC... DEST",
    after_help = EXIT_CODES_SHORT,
    after_long_help = EXAMPLES_AND_EXIT_CODES,
    max_term_width = 78,
    args_override_self = true
)]
pub struct PushArgs {
    /// What to push, and where to: the last one is DEST
    #[arg(value_name = "SRC... DEST", required = true, num_args = 1.., hide = true)]
    pub paths: Vec<OsString>,

    /// Recurse and keep everything: always on
    ///
    /// Accepted because fingers type it.
    #[arg(short, long, help_heading = "What is done")]
    pub archive: bool,
    /// Change nothing, say what would be done
    ///
    /// Prints as -i does, unless -v asks for names only. The target is not touched.
    #[arg(short = 'n', long, help_heading = "What is done")]
    pub dry_run: bool,
    /// Keep owners and groups by number
    ///
    /// Without it, what belongs to a user or group here belongs to the one of that name over there,
    /// and keeps its number only where there is none. 0 is always 0.
    #[arg(long, help_heading = "What is done")]
    pub numeric_ids: bool,
    /// Send what changed whole, not as a delta
    ///
    /// Without it, of a large file that DEST has in another version only that travels which differs.
    /// A DEST that is a path is written whole, as by rsync, unless --no-whole-file is given.
    #[arg(
        short = 'W',
        long,
        overrides_with = "no_whole_file",
        help_heading = "What is done"
    )]
    pub whole_file: bool,
    /// Send deltas to a DEST that is a path, too
    #[arg(long, overrides_with = "whole_file", help_heading = "What is done")]
    pub no_whole_file: bool,
    /// Update files where they stand, not beside
    ///
    /// They keep their inode, no second copy takes space, and what does not change is not written. Until a file
    /// is whole, everybody sees a mixture; the next push sends what broke off again. One that has other
    /// names, that belongs to somebody else, or that can't be written to is replaced all the same.
    #[arg(long, help_heading = "What is done")]
    pub inplace: bool,
    /// Blocks of BYTES for deltas
    ///
    /// It is rounded up to a power of two from 4K to 256K, and files whose size asks for larger blocks
    /// have those. Without it, the size of the file decides: 4K up to 1 GiB.
    #[arg(
        short = 'B',
        long,
        value_name = "BYTES",
        value_parser = block_size,
        help_heading = "What is done"
    )]
    pub block_size: Option<u32>,
    /// Compare files by content, not by size and time
    ///
    /// Files of one name and one size are read on both sides; what is the same stays, and a time or mode
    /// that differs is mended. --ignore-times and --size-only change nothing beside it, as in rsync.
    #[arg(short, long, help_heading = "What is done")]
    pub checksum: bool,
    /// Keep what arrived of a large file when the push breaks off, and go on from it
    ///
    /// Give it to every push: one that breaks off leaves a file .sy.HASH.partial beside the large file's
    /// place, and the next one sends what is missing there. Nothing depends on it: it is compared with
    /// SRC. It goes when the file has arrived, and after 7 days. With -W it is kept, and not used.
    #[arg(long, help_heading = "What is done")]
    pub partial: bool,
    /// The same as --partial --progress
    #[arg(short = 'P', help_heading = "What is done")]
    pub partial_and_progress: bool,
    /// Send every file, whatever its size and time
    #[arg(
        short = 'I',
        long,
        overrides_with = "size_only",
        help_heading = "What is done"
    )]
    pub ignore_times: bool,
    /// Leave files alone whose size agrees
    ///
    /// A time that differs is mended. For a DEST that has no times of its own, once.
    #[arg(long, overrides_with = "ignore_times", help_heading = "What is done")]
    pub size_only: bool,
    /// How durable success is: none, session, file
    ///
    /// none: the files are in the page cache, as after rsync, and a crash of the target is
    /// noticed and repaired by the next push. session: the target's file system is synced once,
    /// before the push reports success. file: each file is synced before it gets its name.
    #[arg(
        long,
        value_name = "LEVEL",
        default_value = "none",
        hide_default_value = true,
        hide_possible_values = true,
        value_parser = PossibleValuesParser::new(["none", "session", "file"]).map(durability),
        help_heading = "What is done"
    )]
    pub durability: Durability,

    /// Delete from DEST what no SRC has
    ///
    /// Only in directories that were listed completely on both sides, and nothing more once
    /// reading a SRC has failed.
    #[arg(long, help_heading = "Deletion")]
    pub delete: bool,
    /// Delete at most NUM entries
    ///
    /// The others stay, and the exit code is 25. Without --delete it has no effect, as in rsync.
    #[arg(long, value_name = "NUM", help_heading = "Deletion")]
    pub max_delete: Option<u64>,
    /// Let an empty SRC empty DEST
    ///
    /// With --delete an empty SRC/ is refused otherwise: it may be a disk that is not mounted. A
    /// directory that is pushed by its name (SRC) may be empty: DEST/SRC is emptied, as by rsync.
    #[arg(long, help_heading = "Deletion")]
    pub allow_empty_source: bool,

    /// Name what is sent and deleted, sum up at the end
    #[arg(short, long, help_heading = "Output")]
    pub verbose: bool,
    /// Print nothing but errors
    ///
    /// It silences -v, -i, --stats and the progress line. With --json, errors and the summary
    /// remain.
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,
    /// One line per change, as rsync's -i
    ///
    /// Each line is rsync's %i, a space, and the path below DEST.
    #[arg(short, long, help_heading = "Output")]
    pub itemize_changes: bool,
    /// Print totals at the end
    #[arg(long, help_heading = "Output")]
    pub stats: bool,
    /// Print NDJSON: one event per line
    ///
    /// Events are item, deleted, error and, last, summary. They hold what -v, -i and --stats
    /// print, so those change nothing beside it.
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// Show progress on stderr even if it is no terminal
    #[arg(long, overrides_with = "no_progress", help_heading = "Output")]
    pub progress: bool,
    /// Show no progress on a terminal either
    #[arg(long, overrides_with = "progress", help_heading = "Output")]
    pub no_progress: bool,

    /// The remote shell, for host:path: a command
    ///
    /// Default: what SY_RSH says, else ssh. Spaces separate its words; quotes hold them together,
    /// as in rsync. With it, host::module/path goes by the remote shell, too.
    #[arg(short = 'e', long, value_name = "COMMAND", help_heading = "Connection")]
    pub rsh: Option<OsString>,
    /// SY_RSH of the environment.
    #[arg(skip)]
    pub rsh_usual: Option<OsString>,
    /// What to run there, for host:path
    ///
    /// Default: sy-server. The shell on that host reads it, so it may be a command: 'sudo
    /// sy-server'.
    #[arg(long, value_name = "PATH", help_heading = "Connection")]
    pub sy_path: Option<OsString>,
    /// The UNIX socket of sy:///module/path
    ///
    /// Default: /run/sy/sy.sock
    #[arg(long, value_name = "PATH", help_heading = "Connection")]
    pub socket: Option<OsString>,
    /// Give up after that long without a sign of life
    ///
    /// Default: 60, and 300 until a remote shell has let you in; 0 waits for ever. Both ends send
    /// signs of life while they are busy.
    #[arg(long, value_name = "SECONDS", help_heading = "Connection")]
    pub timeout: Option<u64>,

    /// What moves the bytes: auto, uring, portable
    ///
    /// auto: io_uring, and where this host refuses it epoll and threads, which is said. Default: what
    /// SY_ENGINE says, else auto. The other end chooses its own.
    #[arg(
        long,
        value_name = "NAME",
        env = "SY_ENGINE",
        hide_env = true,
        help_heading = "Connection"
    )]
    pub engine: Option<EngineChoice>,
}

impl PushArgs {
    pub fn sameness(&self) -> Sameness {
        match (self.checksum, self.ignore_times, self.size_only) {
            (true, _, _) => Sameness::Content,
            (false, true, _) => Sameness::Never,
            (false, false, true) => Sameness::Size,
            (false, false, false) => Sameness::SizeAndTime,
        }
    }
}

/// Bytes, with a K behind them or without.
fn block_size(typed: &str) -> Result<u32, String> {
    let (digits, unit) = match typed.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1024),
        None => (typed, 1),
    };
    let bytes = digits.parse::<u32>().ok();
    let bytes = bytes.and_then(|bytes| bytes.checked_mul(unit));
    bytes
        .filter(|bytes| (1..=DELTA_BLOCK_BYTES_MAX).contains(bytes))
        .map(|bytes| bytes.next_power_of_two().max(DELTA_BLOCK_BYTES_MIN))
        .ok_or_else(|| "bytes up to 256K are a block".to_owned())
}

fn durability(name: String) -> Durability {
    match name.as_str() {
        "session" => Durability::Session,
        "file" => Durability::File,
        _ => Durability::None,
    }
}

/// Flags of rsync's that are typed most and that sy does not have.
const RSYNC_FLAGS: [(&str, &str); 20] = [
    ("-z", "leave it out; over ssh, -e 'ssh -C' compresses"),
    (
        "--compress",
        "leave it out; over ssh, -e 'ssh -C' compresses",
    ),
    ("--exclude", NO_FILTERS),
    ("--exclude-from", NO_FILTERS),
    ("--include", NO_FILTERS),
    ("--filter", NO_FILTERS),
    ("-f", NO_FILTERS),
    ("-F", NO_FILTERS),
    ("--files-from", NO_FILTERS),
    ("-H", "leave it out: each name becomes a file of its own"),
    (
        "--hard-links",
        "leave it out: each name becomes a file of its own",
    ),
    ("-A", "leave it out: ACLs stay behind"),
    ("--acls", "leave it out: ACLs stay behind"),
    ("-X", "leave it out: extended attributes stay behind"),
    ("--xattrs", "leave it out: extended attributes stay behind"),
    ("-S", "leave it out: large holes of a file stay holes"),
    ("--sparse", "leave it out: large holes of a file stay holes"),
    ("-r", ALWAYS_ON),
    ("-t", ALWAYS_ON),
    ("-l", ALWAYS_ON),
];

const NO_FILTERS: &str = "name as SRC only what is to be pushed";
const ALWAYS_ON: &str = "leave it out: it is always on, as all that -a means";

/// What to say of a flag that rsync has and sy does not, where that is what is wrong.
pub fn rsync_flag(error: &clap::Error) -> Option<String> {
    use clap::error::{ContextKind, ContextValue};
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let flag = typed.split('=').next()?;
    let known = |(name, _): &&(&str, &str)| *name == flag;
    let (name, hint) = RSYNC_FLAGS.iter().find(known)?;
    Some(match *hint {
        ALWAYS_ON => format!("sy: {name}: no flag of sy's\n  try: {hint}"),
        hint => format!("sy: {name}: rsync has it, sy does not have it yet\n  try: {hint}"),
    })
}

/// The exit code of an answer that clap gives itself: help and version are successes.
pub fn exit_of(error: &clap::Error) -> Exit {
    if error.use_stderr() {
        Exit::Usage
    } else {
        Exit::Ok
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::ffi::OsStringExt;

    use clap::CommandFactory;

    use super::*;

    pub(crate) fn push(args: &[&str]) -> PushArgs {
        let Command::Push(push) = parse(args).unwrap().command;
        push
    }

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(["sy", "push"].iter().chain(args))
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_option_is_read() {
        let args = push(&[
            "-anvqi",
            "--delete",
            "--max-delete=7",
            "--allow-empty-source",
            "--stats",
            "--json",
            "--durability=file",
            "--timeout=5",
            "--numeric-ids",
            "--partial",
            "--socket=/s",
            "-e",
            "ssh -p 1",
            "--sy-path=/opt/sy-server",
            "a",
            "b",
            "c",
        ]);
        assert!(args.archive && args.dry_run && args.verbose && args.quiet);
        assert!(args.itemize_changes && args.delete && args.allow_empty_source);
        assert!(args.stats && args.json && args.numeric_ids && args.partial);
        assert_eq!(args.max_delete, Some(7));
        assert_eq!(args.durability, Durability::File);
        assert_eq!(args.timeout, Some(5));
        assert_eq!(args.rsh.as_deref(), Some("ssh -p 1".as_ref()));
        assert_eq!(args.sy_path.as_deref(), Some("/opt/sy-server".as_ref()));
        assert_eq!(args.paths.len(), 3);
    }

    #[test]
    fn content_decides_before_size_and_time_do() {
        let sameness = |flags: &[&str]| push(&[flags, &["a", "b"]].concat()).sameness();
        assert_eq!(sameness(&[]), Sameness::SizeAndTime);
        assert_eq!(sameness(&["-I"]), Sameness::Never);
        assert_eq!(sameness(&["--size-only"]), Sameness::Size);
        for flags in [
            &["-c"][..],
            &["-Ic"],
            &["--checksum", "--size-only"],
            &["-I", "-c"],
        ] {
            assert_eq!(sameness(flags), Sameness::Content, "{flags:?}");
        }
    }

    #[test]
    fn the_later_of_progress_and_no_progress_wins_and_flags_may_repeat() {
        let args = push(&["-v", "-v", "--progress", "--no-progress", "a", "b"]);
        assert!(args.verbose && !args.progress && args.no_progress);
    }

    #[test]
    fn unknown_flags_and_bad_values_are_usage_errors() {
        for args in [
            &["-z", "a", "b"][..],
            &["--compress", "a", "b"],
            &["--durability=most", "a", "b"],
            &["--engine=epoll", "a", "b"],
            &["--timeout=soon", "a", "b"],
            &["--max-delete=-1", "a", "b"],
            &[],
        ] {
            let error = parse(args).unwrap_err();
            assert_eq!(exit_of(&error), Exit::Usage, "{args:?}");
        }
    }

    #[test]
    fn what_rsync_has_and_sy_has_not_is_told() {
        let said = |args: &[&str]| rsync_flag(&parse(args).unwrap_err());
        for args in [
            &["-z", "a", "b"][..],
            &["-avz", "a", "b"],
            &["a", "b", "-vz"],
        ] {
            let said = said(args).unwrap();
            assert!(said.starts_with("sy: -z: rsync has it"), "{said}");
        }
        for flag in ["--exclude=x", "--exclude"] {
            assert!(said(&[flag, "a", "b"]).unwrap().contains("sy: --exclude:"));
        }
        assert_eq!(said(&["--no-such-flag", "a", "b"]), None);
        assert_eq!(said(&["--durability=most", "a", "b"]), None);
        for (flag, _) in RSYNC_FLAGS {
            assert!(said(&[flag, "a", "b"]).is_some(), "{flag}");
        }
    }

    #[test]
    fn help_and_version_are_successes() {
        for args in [&["sy", "--version"][..], &["sy", "push", "--help"]] {
            assert_eq!(exit_of(&Cli::try_parse_from(args).unwrap_err()), Exit::Ok);
        }
    }

    #[test]
    fn paths_keep_bytes_that_are_not_utf8() {
        let odd = OsString::from_vec(b"\xff\xfe".to_vec());
        let args = ["sy".into(), "push".into(), odd.clone(), "d".into()];
        let Command::Push(push) = Cli::try_parse_from(args).unwrap().command;
        assert_eq!(push.paths[0], odd);
    }

    #[test]
    fn help_stays_under_79_columns() {
        let mut command = Cli::command();
        let push = command.find_subcommand_mut("push").unwrap();
        let (short, long) = (push.render_help(), push.render_long_help());
        for line in short.to_string().lines().chain(long.to_string().lines()) {
            assert!(line.chars().count() < 79, "{line}");
        }
        for option in push.get_opts().filter_map(|option| option.get_long()) {
            let is_whole =
                |line: &str| line.contains(&format!("--{option}")) && !line.ends_with(',');
            assert!(short.to_string().lines().any(is_whole), "{option}");
        }
        for code in ["23", "24", "25", "35"] {
            assert!(long.to_string().contains(&format!("\n  {code}  ")));
        }
    }
}
