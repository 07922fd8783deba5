//! The only place that words errors: facts become `sy: PATH: what: why`, and what to try.

use std::borrow::Cow;
use std::fmt;

use rustix::io::Errno;

use super::failure::Failure;
use super::plan::{PlanError, Wrong};
use super::rsh::ShellEnd;
use crate::engine::probe;
use crate::engine::setup::SetupError;
use crate::limits::{OPEN_FILES_MIN, SHELL_NOISE_BYTES_MAX};
use crate::model::escape;
use crate::model::report::{Attempt, Ending, Exit, Side, Trouble, Why};
use crate::wire::hello::Refusal;

/// One message for stderr. `Display` gives whole lines, the last one without its newline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// `PATH: what: why`, escaped.
    pub text: String,
    /// What to try.
    pub hint: Option<Cow<'static, str>>,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sy: {}", self.text)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  try: {hint}"),
            None => Ok(()),
        }
    }
}

fn message(text: String, hint: Option<&'static str>) -> Message {
    Message {
        text,
        hint: hint.map(Cow::Borrowed),
    }
}

/// The ring was left open, and there is none; the push goes on.
pub fn portable(refused: SetupError) -> Message {
    Message {
        text: probe::portable_line(refused),
        hint: probe::advice(refused).map(|advice| Cow::Owned(advice.to_string())),
    }
}

/// `place`: where the server is, from `Dest::place`.
pub fn failure(place: &str, failure: &Failure) -> Message {
    match failure {
        Failure::NameLookup { why } => message(
            format!(
                "{place}: cannot find the host: {}",
                escape::text(why.as_bytes())
            ),
            Some("check the spelling, or give the address itself"),
        ),
        Failure::Connect { errno } => message(
            format!("{place}: cannot connect: {}", errno_text(*errno)),
            connect_hint(*errno),
        ),
        Failure::ConnectTimeout { seconds } => message(
            format!("{place}: cannot connect: no answer within {seconds} s"),
            Some("check the host, and firewalls on the way"),
        ),
        Failure::Refused { refusal, text } => refused(place, *refusal, text),
        Failure::ModulesOnly => message(
            format!("{place}: refused: only modules can be pushed to there"),
            Some("sy push -e ssh SRC HOST::MODULE/path"),
        ),
        Failure::NotSy { first } => not_sy(place, first),
        Failure::Version { ours, theirs } => version(place, *ours, *theirs),
        Failure::Lost { errno } => message(
            match errno {
                Some(errno) => format!("{place}: connection lost: {}", errno_text(*errno)),
                None => format!("{place}: connection lost: the server closed it before its report"),
            },
            Some("run the same push again: files that are in place are not sent twice"),
        ),
        Failure::Silent { seconds } => message(
            format!("{place}: gave up: no sign of life for {seconds} s"),
            Some("run the same push again; --timeout SECONDS changes the patience, 0 is for ever"),
        ),
        Failure::Signal { name } => message(
            format!(
                "stopped by {name}: files that were finished are in place, and what was deleted is gone"
            ),
            None,
        ),
        Failure::Protocol { text } => message(
            format!("{place}: protocol error: {}", escape::text(text.as_bytes())),
            Some("run the same push again; if it comes back, look for bad memory or a bug in sy"),
        ),
        Failure::Disk { side, errno } => message(
            match side {
                Side::Source => format!("cannot go on: {}", errno_text(*errno)),
                Side::Target => format!("{place}: the target cannot go on: {}", errno_text(*errno)),
            },
            errno_hint(*errno, *side),
        ),
        Failure::Dest { path, errno } => message(
            format!(
                "{}: cannot be pushed to: {}",
                escape::name(path),
                errno_text(*errno)
            ),
            match *errno {
                Errno::INVAL => Some("names that begin with '.sy.' belong to sy itself"),
                Errno::ACCESS => Some("run as a user that may get there"),
                other => errno_hint(other, Side::Target),
            },
        ),
        Failure::Source { path, errno } => message(
            format!(
                "{}: cannot be pushed: {}",
                escape::name(path),
                errno_text(*errno)
            ),
            match *errno {
                Errno::NOTDIR if path.ends_with(b"/") => {
                    Some("leave out the trailing slash: SRC/ means the contents of a directory")
                }
                other => errno_hint(other, Side::Source),
            },
        ),
        Failure::EmptySource { path } => message(
            format!(
                "{}: cannot be pushed with --delete: it is empty, and so would DEST be",
                escape::name(path)
            ),
            Some("check that the disk is mounted; --allow-empty-source if you mean it"),
        ),
        Failure::OntoItself { path } => message(
            format!(
                "{}: cannot be pushed: it is DEST itself",
                escape::name(path)
            ),
            None,
        ),
        Failure::FewFiles { limit } => message(
            format!("only {limit} files may be open at once, and it takes {OPEN_FILES_MIN}"),
            Some("a higher limit of open files (ulimit -n)"),
        ),
        Failure::Engine { errno } => message(
            format!("io_uring is not available: {}", errno_text(*errno)),
            match *errno {
                Errno::MFILE | Errno::NFILE => Some("a higher limit of open files (ulimit -n)"),
                Errno::PERM | Errno::ACCESS => Some(
                    "sysctl kernel.io_uring_disabled=0; in a container, a seccomp profile that \
                     allows io_uring (docker run --security-opt seccomp=FILE)",
                ),
                Errno::NOSYS => Some("a kernel with io_uring (6.1 or later); or --engine auto"),
                Errno::NOMEM => Some("a higher limit of locked memory (ulimit -l)"),
                _ => None,
            },
        ),
        Failure::ShellStart { program, errno } => message(
            format!(
                "{}: cannot be started: {}",
                escape::name(program),
                errno_text(*errno)
            ),
            Some("install ssh, or name another remote shell with --rsh"),
        ),
        Failure::ShellEnded {
            end,
            was_greeted: false,
            sy_path,
        } => shell_failed(place, *end, sy_path),
        Failure::ShellEnded {
            end,
            was_greeted: true,
            ..
        } => message(
            format!("{place}: connection lost: {}", shell_end_text(*end)),
            Some("run the same push again: files that are in place are not sent twice"),
        ),
        Failure::ShellNoise { first } => message(
            format!(
                "{place}: cannot push: something else than sy-server speaks first: '{}'",
                escape::text(&first[..first.len().min(SHELL_NOISE_BYTES_MAX)])
            ),
            Some(
                "keep the shell's start-up files over there from printing where no terminal is, \
                 and ssh from making one (-t); `ssh HOST true` must print nothing",
            ),
        ),
    }
}

/// A remote shell that did not get as far as the server's first word.
fn shell_failed(place: &str, end: ShellEnd, sy_path: &[u8]) -> Message {
    let server = escape::name(sy_path);
    match end {
        ShellEnd::Code(127) => message(
            format!("{place}: cannot push: {server}: not found there (exit code 127)"),
            Some("install sy there; --sy-path PATH where the shell over there does not find it"),
        ),
        ShellEnd::Code(126) => message(
            format!("{place}: cannot push: {server}: cannot be run there (exit code 126)"),
            Some("check its mode, and that it was built for that host"),
        ),
        ShellEnd::Code(255) => message(
            format!("{place}: cannot connect: the remote shell failed (exit code 255)"),
            Some("its own words stand above; try it alone: ssh HOST true"),
        ),
        ShellEnd::Code(_) => message(
            format!(
                "{place}: cannot push: {} before {server} spoke",
                shell_end_text(end)
            ),
            Some("words above tell why; if there are none: ssh HOST sy-server --version"),
        ),
        ShellEnd::Signal(_) | ShellEnd::Lingered => message(
            format!(
                "{place}: connection lost: {} before {server} spoke",
                shell_end_text(end)
            ),
            None,
        ),
    }
}

fn shell_end_text(end: ShellEnd) -> String {
    match end {
        ShellEnd::Code(code) => format!("the remote shell ended (exit code {code})"),
        ShellEnd::Signal(signal) => format!("the remote shell was killed by signal {signal}"),
        ShellEnd::Lingered => "the remote shell closed the stream".to_owned(),
    }
}

fn connect_hint(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::CONNREFUSED => Some("start sy-server there, or check the port or socket"),
        Errno::NOENT => Some("start sy-server, or name its socket with --socket PATH"),
        Errno::ACCESS | Errno::PERM => {
            Some("run as the user of sy-server: its socket is for that user only")
        }
        Errno::HOSTUNREACH | Errno::NETUNREACH => {
            Some("check the network, and firewalls on the way")
        }
        _ => None,
    }
}

fn refused(place: &str, refusal: Refusal, text: &[u8]) -> Message {
    let (what, hint) = match refusal {
        Refusal::Version => (
            "the server speaks another protocol version",
            Some("the same version of sy at both ends"),
        ),
        Refusal::UnknownModule => (
            "unknown module",
            Some("check the name against the server's --module options and its config"),
        ),
        Refusal::ReadOnlyModule => (
            "the module is read-only",
            Some("on the server, --module NAME=PATH,rw allows writing"),
        ),
        Refusal::Dest => (
            "the target cannot open or make DEST",
            Some(
                "all above DEST must be there, directories and no links, and the server may write there",
            ),
        ),
        Refusal::DestNotDir => (
            "DEST is not a directory, and must be one",
            Some("another DEST, or leave out its trailing slash to replace one file"),
        ),
        Refusal::Protocol => (
            "the server understood something else than was sent",
            Some("the same version of sy at both ends"),
        ),
        Refusal::Timeout => (
            "the server waited too long for this side",
            Some("run the same push again: files that are in place are not sent twice"),
        ),
        Refusal::ShuttingDown => (
            "the server is shutting down",
            Some("run the same push again when it is back"),
        ),
        Refusal::Busy => (
            "the server has too many sessions",
            Some("run the same push again later"),
        ),
    };
    let text = match text {
        [] => format!("{place}: refused: {what}"),
        _ => format!("{place}: refused: {what}: {}", escape::text(text)),
    };
    message(text, hint)
}

fn not_sy(place: &str, first: &[u8]) -> Message {
    const SHOWN_BYTES: usize = 32;
    let shown = escape::text(&first[..first.len().min(SHOWN_BYTES)]);
    let (what, hint) = match first {
        [b'S', b'S', b'H', b'-', ..] => ("an ssh server", "the port of sy-server"),
        [b'@', b'R', b'S', b'Y', b'N', b'C', ..] => {
            ("an rsync daemon", "rsync, or the port of sy-server")
        }
        [b'H', b'T', b'T', b'P', b'/', ..] => ("a web server", "the port of sy-server"),
        _ => ("something that is not sy-server", "the port of sy-server"),
    };
    message(
        format!("{place}: cannot push: {what} answers there: it begins with '{shown}'"),
        Some(hint),
    )
}

fn version(place: &str, ours: u16, theirs: u16) -> Message {
    let older_end = if ours < theirs {
        "a newer sy here"
    } else {
        "a newer sy-server there"
    };
    message(
        format!("{place}: cannot push: protocol version {ours} here, {theirs} there"),
        Some(older_end),
    )
}

/// A failed entry. The same hint comes with each trouble of its kind; showing it once is enough.
pub fn trouble(trouble: &Trouble) -> Message {
    let path = match &trouble.path[..] {
        b"" => "DEST".to_owned(),
        path => escape::name(path).to_string(),
    };
    let who = match trouble.side {
        Side::Source => "cannot",
        Side::Target => "the target cannot",
    };
    let (why, hint): (Cow<'_, str>, _) = match trouble.why {
        Why::Errno(errno) => (errno_text(errno).into(), errno_hint(errno, trouble.side)),
        Why::Vanished => ("it vanished during the push".into(), None),
        Why::Changing if trouble.side == Side::Target => ("it was changed meanwhile".into(), None),
        Why::Changing => (
            "it changes while it is read".into(),
            Some("push again when it rests, or push a snapshot"),
        ),
        Why::OwnName => (
            "names that begin with '.sy.' belong to sy itself".into(),
            Some("another name"),
        ),
        Why::DirInTheWay => (
            "a directory that is not empty is in the way".into(),
            Some("--delete, or remove that directory"),
        ),
        Why::Digest => (
            "its digest did not agree on arrival".into(),
            Some("push again; if it comes back, look for bad memory or a bad disk"),
        ),
        Why::NoDirectory => ("its directory could not be made".into(), None),
    };
    message(
        format!("{path}: {who} {}: {why}", attempt_text(trouble.what)),
        hint,
    )
}

fn attempt_text(attempt: Attempt) -> &'static str {
    match attempt {
        Attempt::List => "list the directory",
        Attempt::Open => "open",
        Attempt::Read => "read",
        Attempt::ReadLink => "read the symlink",
        Attempt::Create => "create",
        Attempt::Write => "write",
        Attempt::MakeDir => "make the directory",
        Attempt::MakeLink => "make the symlink",
        Attempt::MakeNode => "make the special file",
        Attempt::SetMeta => "set owner, mode or times",
        Attempt::Rename => "rename into place",
        Attempt::Delete => "delete",
        Attempt::Sync => "sync",
        Attempt::Stat => "stat",
    }
}

/// Short names of what was tried and why it failed, for scripts.
pub fn attempt_name(attempt: Attempt) -> &'static str {
    match attempt {
        Attempt::List => "list",
        Attempt::Open => "open",
        Attempt::Read => "read",
        Attempt::ReadLink => "readlink",
        Attempt::Create => "create",
        Attempt::Write => "write",
        Attempt::MakeDir => "mkdir",
        Attempt::MakeLink => "symlink",
        Attempt::MakeNode => "mknod",
        Attempt::SetMeta => "set_meta",
        Attempt::Rename => "rename",
        Attempt::Delete => "delete",
        Attempt::Sync => "sync",
        Attempt::Stat => "stat",
    }
}

/// As `attempt_name`: an errno's name, or a word of our own in lowercase.
pub fn why_name(why: Why) -> Cow<'static, str> {
    match why {
        Why::Errno(errno) => match errno_name(errno) {
            Some(name) => name.into(),
            None => format!("errno {}", errno.raw_os_error()).into(),
        },
        Why::Vanished => "vanished".into(),
        Why::Changing => "changing".into(),
        Why::OwnName => "own_name".into(),
        Why::DirInTheWay => "dir_in_the_way".into(),
        Why::Digest => "digest".into(),
        Why::NoDirectory => "no_directory".into(),
    }
}

/// `No space left on device (ENOSPC)`.
pub fn errno_text(errno: Errno) -> String {
    let said = std::io::Error::from(errno).to_string();
    let number = format!(" (os error {})", errno.raw_os_error());
    match (said.strip_suffix(&number), errno_name(errno)) {
        (Some(words), Some(name)) => format!("{words} ({name})"),
        (Some(_) | None, _) => said,
    }
}

fn errno_name(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::PERM => "EPERM",
        Errno::NOENT => "ENOENT",
        Errno::IO => "EIO",
        Errno::NOMEM => "ENOMEM",
        Errno::ACCESS => "EACCES",
        Errno::BUSY => "EBUSY",
        Errno::EXIST => "EEXIST",
        Errno::XDEV => "EXDEV",
        Errno::NODEV => "ENODEV",
        Errno::NOTDIR => "ENOTDIR",
        Errno::ISDIR => "EISDIR",
        Errno::INVAL => "EINVAL",
        Errno::NFILE => "ENFILE",
        Errno::MFILE => "EMFILE",
        Errno::TXTBSY => "ETXTBSY",
        Errno::FBIG => "EFBIG",
        Errno::NOSPC => "ENOSPC",
        Errno::ROFS => "EROFS",
        Errno::MLINK => "EMLINK",
        Errno::PIPE => "EPIPE",
        Errno::NAMETOOLONG => "ENAMETOOLONG",
        Errno::NOSYS => "ENOSYS",
        Errno::NOTEMPTY => "ENOTEMPTY",
        Errno::LOOP => "ELOOP",
        Errno::OPNOTSUPP => "EOPNOTSUPP",
        Errno::NETUNREACH => "ENETUNREACH",
        Errno::CONNRESET => "ECONNRESET",
        Errno::TIMEDOUT => "ETIMEDOUT",
        Errno::CONNREFUSED => "ECONNREFUSED",
        Errno::HOSTUNREACH => "EHOSTUNREACH",
        Errno::STALE => "ESTALE",
        Errno::DQUOT => "EDQUOT",
        _ => return None,
    })
}

fn errno_hint(errno: Errno, side: Side) -> Option<&'static str> {
    match (errno, side) {
        (Errno::NOSPC, Side::Target) => {
            Some("free some space on the target (df, df -i); the next push goes on from here")
        }
        (Errno::DQUOT, Side::Target) => Some("a larger quota for the server's user"),
        (Errno::ROFS, Side::Target) => {
            Some("remount the target's file system read-write; dmesg tells if it failed")
        }
        (Errno::ACCESS | Errno::PERM, Side::Source) => {
            Some("run as a user that may read it, or leave it out of SRC")
        }
        (Errno::ACCESS | Errno::PERM, Side::Target) => {
            Some("check the owner and mode of its directory, and the user of the server")
        }
        (Errno::IO, Side::Source | Side::Target) => {
            Some("look into dmesg on that host: the disk may be failing")
        }
        (Errno::MFILE | Errno::NFILE, Side::Source | Side::Target) => {
            Some("a higher limit of open files (ulimit -n)")
        }
        _ => None,
    }
}

pub fn plan_error(error: &PlanError) -> Message {
    let hint = match &error.wrong {
        Wrong::NoDest => Some("sy push SRC... DEST".into()),
        Wrong::Empty => Some("'.' for the current directory".into()),
        Wrong::RemoteSource => {
            Some("./HOST:PATH for a local name, or run sy push over there".into())
        }
        Wrong::Scheme | Wrong::NoModule | Wrong::Port => {
            Some("sy://host[:port]/module/path".into())
        }
        Wrong::User => Some("leave out 'user@'".into()),
        Wrong::Host => {
            let local = escape::name(&error.arg);
            let all = "an IPv6 address stands in brackets: [::1]:path or sy://[::1]/module";
            Some(format!("{all}; ./{local} for a local name").into())
        }
        Wrong::Dash => {
            let local = escape::name(&error.arg);
            Some(format!("./{local} for a local name").into())
        }
        Wrong::Tilde => Some("the path in full, or from your home down".into()),
        Wrong::DotDotThere => Some("the path in full, or from your home down".into()),
        Wrong::RshEmpty | Wrong::RshQuote(_) => Some("--rsh 'ssh -p 2222'".into()),
        Wrong::ShellUnused => Some("leave it out, or push to host:path".into()),
        Wrong::DotDot => Some("the path from the module's root down".into()),
        Wrong::SocketUnused => Some("leave out --socket, or push to sy:///module/path".into()),
        Wrong::Module(_)
        | Wrong::DestName(_)
        | Wrong::TooDeep
        | Wrong::SourceName(_)
        | Wrong::SocketLong => None,
    };
    Message {
        text: error.to_string(),
        hint,
    }
}

/// The last word on stderr about a push that is not in order; `None` where all is in place.
pub fn ending(ending: &Ending) -> Option<Message> {
    let totals = &ending.totals;
    let others = totals.errors.saturating_sub(totals.vanished);
    let (text, hint) = match ending.exit {
        Exit::Ok => return None,
        Exit::Partial => (
            format!(
                "{} could not be transferred",
                count(others, "entry", "entries")
            ),
            totals.deletes_stopped.then_some(
                "mend that, and run the same push again: --delete removed nothing more once a part of SRC could not be listed",
            ),
        ),
        Exit::Vanished => (
            format!(
                "{} vanished before they could be sent",
                count(totals.vanished, "source file", "source files")
            ),
            None,
        ),
        Exit::DeleteLimit => (
            format!(
                "--max-delete stopped deletions: at least {} stayed",
                count(totals.deletes_skipped, "entry", "entries")
            ),
            Some("a higher --max-delete, after a look at what -n --delete would remove"),
        ),
        Exit::FileIo => (
            "the push did not finish: the target's disk takes no more".to_owned(),
            Some(
                "see to that (df, df -i, its quota, a read-only mount), and run the same push again: it goes on from here",
            ),
        ),
        Exit::Selection => (
            "the push did not finish: DEST may not be written to".to_owned(),
            Some("see as whom the target runs (its server, or you), and to whom DEST belongs"),
        ),
        Exit::Usage
        | Exit::Ipc
        | Exit::RemoteRun
        | Exit::RemoteMissing
        | Exit::Incompatible
        | Exit::Start
        | Exit::Socket
        | Exit::Stream
        | Exit::Signal
        | Exit::Timeout
        | Exit::ConnectTimeout => ("the push did not finish".to_owned(), None),
    };
    let why = match &ending.why {
        Some(why) => format!("{text}: {}", escape::text(why.as_bytes())),
        None => text,
    };
    let code = ending.exit as u8;
    Some(message(format!("{why} (exit code {code})"), hint))
}

/// A SRC that holds DEST: it is pushed without it.
pub fn target_inside_source(path: &[u8]) -> Message {
    let path = escape::name(path);
    message(format!("{path}: skipped: it is DEST itself"), None)
}

/// A file that goes twice.
pub fn sent_again(path: &[u8]) -> Message {
    let path = escape::name(path);
    let text = format!("{path}: changed at the target meanwhile: sent again, whole");
    message(text, None)
}

/// Specials that the session may not make, counted.
pub fn specials_skipped(skipped: u64) -> Message {
    message(
        format!(
            "skipped {}: this session may not make them",
            count(
                skipped,
                "fifo, socket or device",
                "fifos, sockets and devices"
            )
        ),
        None,
    )
}

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::super::args::tests::push;
    use super::super::plan::Plan;
    use super::*;
    use crate::model::report::Totals;

    #[test]
    fn a_trouble_reads_path_what_why_and_what_to_try() {
        let full = Trouble {
            side: Side::Target,
            path: b"a/b\n".to_vec(),
            what: Attempt::Write,
            why: Why::Errno(Errno::NOSPC),
        };
        let said = trouble(&full).to_string();
        let (line, hint) = said.split_once('\n').unwrap();
        assert_eq!(
            line,
            r"sy: a/b\x0a: the target cannot write: No space left on device (ENOSPC)"
        );
        assert!(hint.starts_with("  try: free some space"));
        let gone = Trouble {
            side: Side::Source,
            path: b"src/x".to_vec(),
            what: Attempt::Open,
            why: Why::Vanished,
        };
        assert_eq!(
            trouble(&gone).to_string(),
            "sy: src/x: cannot open: it vanished during the push"
        );
    }

    #[test]
    fn a_host_that_looks_like_an_option_is_refused_with_a_way_out() {
        let error = Plan::new(push(&["--", "a", "-oProxyCommand=x:path"])).unwrap_err();
        assert_eq!(error.wrong, Wrong::Host);
        let error = Plan::new(push(&["--", "a", "-host:path"])).unwrap_err();
        assert_eq!(
            plan_error(&error).to_string(),
            "sy: -host:path: cannot be DEST: a host or user does not begin with '-'\n  \
             try: ./-host:path for a local name"
        );
    }

    #[test]
    fn the_end_of_a_remote_shell_has_its_exit_code_and_one_line() {
        let ended = |end, was_greeted| Failure::ShellEnded {
            end,
            was_greeted,
            sy_path: b"sy-server".to_vec(),
        };
        for (end, was_greeted, exit, words) in [
            (
                ShellEnd::Code(127),
                false,
                127,
                "sy-server: not found there",
            ),
            (ShellEnd::Code(126), false, 126, "cannot be run there"),
            (ShellEnd::Code(255), false, 10, "cannot connect"),
            (ShellEnd::Code(1), false, 12, "(exit code 1) before"),
            (ShellEnd::Code(0), false, 12, "(exit code 0) before"),
            (ShellEnd::Signal(9), false, 10, "killed by signal 9"),
            (ShellEnd::Lingered, false, 10, "closed the stream"),
            (ShellEnd::Code(127), true, 10, "connection lost"),
            (ShellEnd::Code(255), true, 10, "connection lost"),
            (ShellEnd::Signal(15), true, 10, "killed by signal 15"),
        ] {
            let ended = ended(end, was_greeted);
            let said = failure("nas", &ended);
            assert_eq!(ended.exit() as u8, exit, "{said}");
            assert!(
                said.text.starts_with("nas: ") && said.text.contains(words),
                "{said}"
            );
            assert!(!said.text.contains('\n'));
        }
    }

    #[test]
    fn noise_of_a_remote_shell_is_shown_escaped_and_cut() {
        let noise = Failure::ShellNoise {
            first: [&b"\x1b[2JWelcome\n"[..], &[b'x'; 200]].concat(),
        };
        let said = failure("nas", &noise);
        assert!(
            said.text.contains(r"first: '\x1b[2JWelcome\x0axxx"),
            "{said}"
        );
        assert!(said.text.len() < 250 && said.hint.is_some());
        assert_eq!(noise.exit() as u8, 2);
    }

    #[test]
    fn failures_have_rsyncs_exit_codes() {
        let refused = |refusal| Failure::Refused {
            refusal,
            text: Vec::new(),
        };
        for (failure, exit) in [
            (
                Failure::Connect {
                    errno: Errno::CONNREFUSED,
                },
                10,
            ),
            (Failure::ConnectTimeout { seconds: 10 }, 35),
            (refused(Refusal::UnknownModule), 5),
            (refused(Refusal::ReadOnlyModule), 5),
            (refused(Refusal::DestNotDir), 3),
            (refused(Refusal::Version), 2),
            (Failure::NotSy { first: Vec::new() }, 2),
            (Failure::Lost { errno: None }, 10),
            (Failure::Silent { seconds: 60 }, 30),
            (Failure::Signal { name: "SIGINT" }, 20),
            (
                Failure::Protocol {
                    text: String::new(),
                },
                12,
            ),
            (
                Failure::Disk {
                    side: Side::Target,
                    errno: Errno::NOSPC,
                },
                11,
            ),
            (Failure::EmptySource { path: Vec::new() }, 3),
        ] {
            assert_eq!(failure.exit() as u8, exit, "{failure:?}");
        }
    }

    #[test]
    fn what_a_peer_says_is_escaped() {
        let said = failure(
            "sy://h:7873",
            &Failure::Refused {
                refusal: Refusal::UnknownModule,
                text: b"m\x1b[2J".to_vec(),
            },
        );
        assert_eq!(said.text, r"sy://h:7873: refused: unknown module: m\x1b[2J");
        let banner = Failure::NotSy {
            first: b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(),
        };
        let said = failure("sy://h:22", &banner).to_string();
        assert!(
            said.contains(r"an ssh server answers there: it begins with 'SSH-2.0-OpenSSH_9.9\x0d")
        );
    }

    #[test]
    fn a_good_ending_needs_no_message_and_a_bad_one_tells_its_code() {
        let mut end = Ending {
            exit: Exit::Ok,
            why: None,
            totals: Totals {
                errors: 3,
                vanished: 2,
                ..Totals::default()
            },
            durability: None,
        };
        assert_eq!(ending(&end), None);
        end.exit = Exit::Partial;
        let said = ending(&end).unwrap().to_string();
        assert_eq!(said, "sy: 1 entry could not be transferred (exit code 23)");
        end.exit = Exit::FileIo;
        end.why = Some("full".into());
        let said = ending(&end).unwrap().to_string();
        assert_eq!(
            said,
            "sy: the push did not finish: the target's disk takes no more: full (exit code 11)\n  \
             try: see to that (df, df -i, its quota, a read-only mount), and run the same push again: it goes on from here"
        );
    }

    #[test]
    fn an_errno_without_a_name_here_keeps_its_number() {
        assert!(errno_text(Errno::DEADLK).ends_with("(os error 35)"));
        assert_eq!(errno_text(Errno::ACCESS), "Permission denied (EACCES)");
    }
}
