//! `Plan`: what the command line means, checked before any work. `client::run` carries it out.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use super::args::PushArgs;
use super::dest::{Dest, Shell, URL_PREFIX, dest, remote_parts};
use super::rsh::OpenQuote;
use crate::engine::posix::EngineChoice;
use crate::limits::{
    DEST_COMPONENTS_MAX, IDLE_SECONDS_MAX, SHELL_GREETING_SECONDS_MAX, SOCKET_PATH_BYTES_MAX,
};
use crate::model::escape;
use crate::model::module::ModuleNameError;
use crate::model::name::{Name, NameError};
use crate::model::policy::Policy;

/// One push, ready to be carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// At least one, in the order in which they win names.
    pub sources: Vec<Source>,
    pub dest: Dest,
    /// DEST must be a directory: it ends in a slash, is a module's root, or several entries go there.
    pub dest_is_dir: bool,
    pub policy: Policy,
    pub engine: EngineChoice,
    pub output: Show,
    /// How long the peer may be silent; `None`: for ever.
    pub timeout: Option<Duration>,
    /// The same until the greeting.
    pub greeting_timeout: Option<Duration>,
}

/// One SRC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// As typed. A trailing slash is kept: it makes the kernel follow a symlink, as rsync does.
    pub path: Vec<u8>,
    /// What is in the directory is pushed, not the directory itself.
    pub contents: bool,
}

/// What is shown while the push runs and when it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Show {
    pub lines: Lines,
    /// Whether each change is shown; never with `Lines::None`.
    pub items: bool,
    /// A sentence at the end.
    pub summary: bool,
    /// The table of totals at the end.
    pub stats: bool,
    pub progress: ShowProgress,
    /// Nothing is said on stderr but errors.
    pub quiet: bool,
    /// The words say "would".
    pub dry_run: bool,
    /// DEST is another process: rsync's `<` instead of `>`.
    pub is_remote: bool,
}

/// The language of stdout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lines {
    None,
    /// `-v`: names.
    Names,
    /// `-i`: rsync's `%i %n`.
    Itemized,
    /// `--json`.
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShowProgress {
    /// Where stderr is a terminal.
    Auto,
    On,
    Off,
}

/// An argument that can't be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}: {wrong}", escape::name(arg))]
pub struct PlanError {
    /// As typed.
    pub arg: Vec<u8>,
    pub wrong: Wrong,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Wrong {
    #[error("no DEST: this is the only path given")]
    NoDest,
    #[error("an empty argument is no path")]
    Empty,
    #[error("cannot be a SRC: pulling from another host is not part of this version")]
    RemoteSource,
    #[error("cannot be DEST: sy:// is the only scheme")]
    Scheme,
    #[error("cannot be DEST: servers do not know users in this version")]
    User,
    #[error("cannot be DEST: the host is missing or malformed")]
    Host,
    #[error("cannot be DEST: a host or user does not begin with '-'")]
    Dash,
    #[error("cannot be DEST: only '~' and '~/path' are known")]
    Tilde,
    #[error("cannot be DEST: '..' in a path on another host")]
    DotDotThere,
    #[error("cannot be a remote shell: there is no word in it")]
    RshEmpty,
    #[error("cannot be a remote shell: a {} is not closed", char::from(.0.0))]
    RshQuote(OpenQuote),
    #[error("has no use: DEST is not behind a remote shell")]
    ShellUnused,
    #[error("cannot be DEST: the port is not a number from 1 to 65535")]
    Port,
    #[error("cannot be DEST: it names no module")]
    NoModule,
    #[error("cannot be DEST: {0}")]
    Module(ModuleNameError),
    #[error("cannot be DEST: '..' does not lead out of a module's directories")]
    DotDot,
    #[error("cannot be DEST: {0}")]
    DestName(NameError),
    #[error("cannot be DEST: it has more than {DEST_COMPONENTS_MAX} components")]
    TooDeep,
    #[error("cannot be pushed: {0}")]
    SourceName(NameError),
    #[error("--socket has no use: DEST is not sy:///module/path")]
    SocketUnused,
    #[error("cannot be a socket: the path is longer than {SOCKET_PATH_BYTES_MAX} bytes")]
    SocketLong,
}

impl Plan {
    pub fn new(args: PushArgs) -> Result<Self, PlanError> {
        let sameness = args.sameness();
        let show = show(&args);
        let mut paths: Vec<Vec<u8>> = args.paths.into_iter().map(OsString::into_vec).collect();
        if let Some(empty) = paths.iter().find(|path| path.is_empty()) {
            return Err(wrong(empty, Wrong::Empty));
        }
        let typed = paths.pop().ok_or_else(|| wrong(b"DEST", Wrong::Empty))?;
        if paths.is_empty() {
            return Err(wrong(&typed, Wrong::NoDest));
        }
        let sources: Vec<Source> = paths.into_iter().map(source).collect::<Result<_, _>>()?;
        let has_rsh = args.rsh.is_some();
        let sy_path = args.sy_path.map(OsString::into_vec);
        let shell = Shell {
            asked: args.rsh.map(OsString::into_vec),
            usual: args.rsh_usual.map(OsString::into_vec),
            sy_path: sy_path.clone().unwrap_or_else(|| b"sy-server".to_vec()),
        };
        let (dest, ends_as_dir) = dest(typed, args.socket.map(OsString::into_vec), &shell)?;
        for (flag, is_given) in [(&b"--rsh"[..], has_rsh), (b"--sy-path", sy_path.is_some())] {
            if is_given && !matches!(dest, Dest::Shell { .. }) {
                return Err(wrong(flag, Wrong::ShellUnused));
            }
        }
        let first_seconds = match &dest {
            Dest::Shell { .. } => SHELL_GREETING_SECONDS_MAX,
            Dest::Local { .. } | Dest::Tcp { .. } | Dest::Unix { .. } => IDLE_SECONDS_MAX,
        };
        let patience = |usual: u64| match args.timeout.unwrap_or(usual) {
            0 => None,
            seconds => Some(Duration::from_secs(seconds)),
        };
        let partial = args.partial || args.partial_and_progress;
        Ok(Self {
            dest_is_dir: ends_as_dir || sources.len() > 1 || sources[0].contents,
            sources,
            policy: Policy {
                tell_deletes: args.verbose || args.itemize_changes || args.json || args.dry_run,
                dry_run: args.dry_run,
                delete: args.delete,
                delete_max: args.max_delete,
                allow_empty_source: args.allow_empty_source,
                durability: args.durability,
                numeric_ids: args.numeric_ids || dest.is_local(), // The names are the same here.
                whole_files: args.whole_file || (dest.is_local() && !args.no_whole_file),
                partial,
                resume: partial && !args.whole_file,
                in_place: args.inplace,
                sameness,
                block_bytes: args.block_size,
            },
            engine: args.engine.unwrap_or_default(),
            output: Show {
                is_remote: !dest.is_local(),
                ..show
            },
            dest,
            timeout: patience(IDLE_SECONDS_MAX),
            greeting_timeout: patience(first_seconds),
        })
    }
}

pub(super) fn wrong(arg: &[u8], wrong: Wrong) -> PlanError {
    PlanError {
        arg: arg.to_vec(),
        wrong,
    }
}

fn show(args: &PushArgs) -> Show {
    let lines = match () {
        () if args.json => Lines::Json,
        () if args.quiet => Lines::None,
        () if args.itemize_changes => Lines::Itemized,
        () if args.verbose => Lines::Names,
        // A plan that tells deletions from updates is what -n is for.
        () if args.dry_run => Lines::Itemized,
        () => Lines::None,
    };
    let speaks_to_people = !args.json && !args.quiet;
    Show {
        lines,
        items: lines != Lines::None && !args.quiet,
        summary: args.verbose && speaks_to_people,
        stats: args.stats && speaks_to_people,
        progress: match () {
            () if args.quiet || args.no_progress => ShowProgress::Off,
            () if args.progress || args.partial_and_progress => ShowProgress::On,
            () => ShowProgress::Auto,
        },
        quiet: args.quiet,
        dry_run: args.dry_run,
        is_remote: false,
    }
}

impl Source {
    /// What it is called below DEST; `None` where only its contents go there.
    pub fn name(&self) -> Option<&[u8]> {
        if self.contents {
            None
        } else {
            self.path.rsplit(|byte| *byte == b'/').next()
        }
    }
}

fn source(path: Vec<u8>) -> Result<Source, PlanError> {
    if path.starts_with(URL_PREFIX) || remote_parts(&path).is_some() {
        return Err(wrong(&path, Wrong::RemoteSource));
    }
    let last = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let contents = matches!(last, b"" | b"." | b"..");
    if !contents {
        Name::new(last).map_err(|why| wrong(&path, Wrong::SourceName(why)))?;
    }
    Ok(Source { path, contents })
}

#[cfg(test)]
mod tests {
    use super::super::args::tests::push;
    use super::*;
    use crate::limits::SOCKET_DEFAULT;
    use crate::model::module::ModuleName;

    fn plan(args: &[&str]) -> Result<Plan, Wrong> {
        Plan::new(push(args)).map_err(|error| error.wrong)
    }

    fn to(dest: &str) -> Result<Plan, Wrong> {
        plan(&["src", dest])
    }

    fn module(name: &str) -> ModuleName {
        ModuleName::new(name.as_bytes()).unwrap()
    }

    fn path(parts: &[&str]) -> Vec<Vec<u8>> {
        parts.iter().map(|part| part.as_bytes().to_vec()).collect()
    }

    #[test]
    fn a_trailing_slash_or_dots_mean_the_contents_of_a_source() {
        for (typed, contents, name) in [
            ("a", false, Some("a")),
            ("a/b", false, Some("b")),
            ("/a//b", false, Some("b")),
            ("a/", true, None),
            ("a//", true, None),
            ("a/.", true, None),
            ("a/..", true, None),
            (".", true, None),
            ("..", true, None),
            ("/", true, None),
            ("...", false, Some("...")),
            ("./x:y", false, Some("x:y")),
            ("/x:y", false, Some("x:y")),
        ] {
            let source = source(typed.as_bytes().to_vec()).unwrap();
            assert_eq!(source.contents, contents, "{typed}");
            assert_eq!(source.name(), name.map(str::as_bytes), "{typed}");
            assert_eq!(source.path, typed.as_bytes());
        }
        let ours = source(b"d/.sy.x".to_vec()).unwrap_err();
        assert_eq!(ours.wrong, Wrong::SourceName(NameError::Ours));
    }

    #[test]
    fn a_path_without_a_colon_before_its_first_slash_is_local() {
        for (typed, is_dir) in [
            ("/x", false),
            ("x/y", false),
            ("x/", true),
            (".", true),
            ("./a:b", false),
            ("/a:b", false),
            ("a/b:c", false),
            ("a/b::c", false),
            ("[x]y", false),
            ("a@b", false),
            ("sy/", true),
        ] {
            let plan = to(typed).unwrap();
            let path = typed.as_bytes().to_vec();
            assert_eq!(
                (plan.dest, plan.dest_is_dir),
                (Dest::Local { path }, is_dir)
            );
        }
    }

    #[test]
    fn a_server_is_found_in_a_url_and_in_rsyncs_spelling() {
        for (typed, host, port, parts, is_dir) in [
            ("sy://h/m/a/b", "h", 7873, &["a", "b"][..], false),
            ("sy://h:1/m/a/", "h", 1, &["a"], true),
            ("sy://h/m", "h", 7873, &[], true),
            ("sy://h/m//./a/.", "h", 7873, &["a"], true),
            ("sy://[::1]/m/a", "::1", 7873, &["a"], false),
            (
                "sy://[fe80::1%eth0]:65535/m/a",
                "fe80::1%eth0",
                65535,
                &["a"],
                false,
            ),
            ("h::m/a", "h", 7873, &["a"], false),
            ("127.0.0.1::m/a:b", "127.0.0.1", 7873, &["a:b"], false),
            ("[::1]::m", "::1", 7873, &[], true),
        ] {
            let plan = to(typed).unwrap();
            let dest = Dest::Tcp {
                host: host.to_owned(),
                port,
                module: module("m"),
                path: path(parts),
            };
            assert_eq!((plan.dest, plan.dest_is_dir), (dest, is_dir), "{typed}");
            assert!(plan.output.is_remote);
        }
    }

    #[test]
    fn a_url_without_a_host_is_the_unix_socket() {
        let unix = |socket: &str| Dest::Unix {
            socket: socket.as_bytes().to_vec(),
            module: module("m"),
            path: path(&["p"]),
        };
        assert_eq!(to("sy:///m/p").unwrap().dest, unix(SOCKET_DEFAULT));
        let named = plan(&["--socket=/s", "a", "sy:///m/p"]).unwrap();
        assert_eq!(named.dest, unix("/s"));
        assert_eq!(
            plan(&["--socket=/s", "a", "h::m"]),
            Err(Wrong::SocketUnused)
        );
        assert_eq!(plan(&["--socket=/s", "a", "b"]), Err(Wrong::SocketUnused));
        let long = format!("--socket=/{}", "x".repeat(SOCKET_PATH_BYTES_MAX));
        assert_eq!(plan(&[&long, "a", "sy:///m"]), Err(Wrong::SocketLong));
    }

    /// The command, the path as it begins, and whether DEST must be a directory.
    fn by_shell(args: &[&str]) -> (String, String, bool) {
        let plan = plan(args).unwrap();
        let Dest::Shell {
            command,
            module,
            path,
            is_relative,
            ..
        } = plan.dest
        else {
            panic!("another way: {:?}", plan.dest)
        };
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let command: Vec<_> = command.into_iter().map(text).collect();
        let start = match (module, is_relative) {
            (Some(module), _) => format!("{}:", text(module.bytes().to_vec())),
            (None, true) => "~/".to_owned(),
            (None, false) => "/".to_owned(),
        };
        assert!(plan.output.is_remote);
        let path = start + &text(path.join(&b'/'));
        (command.join("|"), path, plan.dest_is_dir)
    }

    #[test]
    fn a_path_on_another_host_goes_by_the_remote_shell() {
        for (typed, who, path, is_dir) in [
            ("host:path", "host", "~/path", false),
            ("host:", "host", "~/", true),
            ("host:.", "host", "~/", true),
            ("host:./a//b/.", "host", "~/a/b", true),
            ("host:~", "host", "~/", true),
            ("host:~/a", "host", "~/a", false),
            ("host:./~a", "host", "~/~a", false),
            ("host:a~", "host", "~/a~", false),
            ("host:/", "host", "/", true),
            ("host:/srv/a", "host", "/srv/a", false),
            ("host:a:b", "host", "~/a:b", false),
            ("host:$(x) 'y'", "host", "~/$(x) 'y'", false),
            ("user@host:a/", "-l|user|host", "~/a", true),
            ("a@b@host:a", "-l|a@b|host", "~/a", false),
            ("[::1]:/a", "::1", "/a", false),
            (
                "user@[fe80::1%eth0]:a",
                "-l|user|fe80::1%eth0",
                "~/a",
                false,
            ),
        ] {
            let (command, whole, must) = by_shell(&["src", typed]);
            assert_eq!(command, format!("ssh|{who}|sy-server|--stdio"), "{typed}");
            assert_eq!((whole.as_str(), must), (path, is_dir), "{typed}");
        }
    }

    #[test]
    fn the_remote_shell_and_the_server_it_runs_can_be_named() {
        let of = |args: &[&str]| by_shell(args).0;
        let quoted = ["-e", "ssh -o 'A B'", "--sy-path=sudo sy-server", "a", "h:b"];
        assert_eq!(of(&quoted), "ssh|-o|A B|h|sudo sy-server|--stdio");
        let mut args = push(&["a", "h:b"]);
        for (usual, first) in [("rsh -x", "rsh"), ("", "ssh")] {
            args.rsh_usual = Some(usual.into());
            let Dest::Shell { command, .. } = Plan::new(args.clone()).unwrap().dest else {
                panic!("another way")
            };
            assert_eq!(command[0], first.as_bytes());
        }
        args.rsh = Some("asked".into());
        args.rsh_usual = Some("'".into());
        assert!(Plan::new(args).is_ok());
        for (rsh, why) in [
            ("", Wrong::RshEmpty),
            ("  ", Wrong::RshEmpty),
            ("'' x", Wrong::RshEmpty),
            ("ssh 'x", Wrong::RshQuote(OpenQuote(b'\''))),
        ] {
            assert_eq!(plan(&["-e", rsh, "a", "h:b"]), Err(why), "{rsh}");
        }
    }

    #[test]
    fn a_module_goes_by_the_remote_shell_only_where_one_was_asked_for() {
        let (command, place, is_dir) = by_shell(&["-e", "ssh", "a", "u@h::m/x"]);
        assert_eq!(command, "ssh|-l|u|h|sy-server|--stdio");
        assert_eq!((place.as_str(), is_dir), ("m:x", false));
        let mut args = push(&["a", "h::m"]);
        args.rsh_usual = Some("ssh".into());
        assert!(matches!(Plan::new(args).unwrap().dest, Dest::Tcp { .. }));
        for url in ["sy://h/m", "sy:///m"] {
            assert_eq!(plan(&["-e", "ssh", "a", url]), Err(Wrong::ShellUnused));
        }
        assert_eq!(plan(&["-e", "ssh", "a", "b"]), Err(Wrong::ShellUnused));
        assert_eq!(plan(&["--sy-path=x", "a", "h::m"]), Err(Wrong::ShellUnused));
    }

    #[test]
    fn nonsense_is_refused_with_its_reason() {
        for (typed, why) in [
            ("@host:path", Wrong::Host),
            ("user@:path", Wrong::Host),
            ("ho st:path", Wrong::Host),
            ("h;reboot:path", Wrong::Host),
            ("$(x):path", Wrong::Host),
            ("u@-h:path", Wrong::Dash),
            ("host:~user/x", Wrong::Tilde),
            ("host:a/../b", Wrong::DotDotThere),
            ("host:..", Wrong::DotDotThere),
            ("host:a/.sy.b", Wrong::DestName(NameError::Ours)),
            ("rsync://h/m", Wrong::Scheme),
            ("u@h::m", Wrong::User),
            ("sy://u@h/m", Wrong::User),
            ("::m/p", Wrong::Host),
            ("sy://:80/m", Wrong::Host),
            ("sy://::1/m", Wrong::Host),
            ("sy://fe80::1/m", Wrong::Host),
            ("sy://[h]/m", Wrong::Host),
            ("sy://h\u{e9}/m", Wrong::Host),
            ("sy://h:0/m", Wrong::Port),
            ("sy://h:/m", Wrong::Port),
            ("sy://h:+1/m", Wrong::Port),
            ("sy://h:65536/m", Wrong::Port),
            ("sy://h", Wrong::NoModule),
            ("sy://h/", Wrong::NoModule),
            ("sy:///", Wrong::NoModule),
            ("h::", Wrong::NoModule),
            ("sy://h/../m", Wrong::Module(ModuleNameError::Dots)),
            ("sy://h/m/a/../b", Wrong::DotDot),
            ("sy://h/m/.sy.a", Wrong::DestName(NameError::Ours)),
            ("", Wrong::Empty),
        ] {
            assert_eq!(to(typed), Err(why), "{typed}");
        }
        assert_eq!(plan(&["a"]), Err(Wrong::NoDest));
        assert_eq!(plan(&["", "a"]), Err(Wrong::Empty));
        for remote in ["h:a", "h::m", "sy://h/m", "sy:///m", "u@h:"] {
            assert_eq!(plan(&[remote, "b"]), Err(Wrong::RemoteSource));
        }
        let deep = format!("h::m{}", "/x".repeat(DEST_COMPONENTS_MAX + 1));
        assert_eq!(to(&deep), Err(Wrong::TooDeep));
    }

    #[test]
    fn several_sources_or_contents_need_a_directory() {
        assert!(plan(&["a", "b", "c"]).unwrap().dest_is_dir);
        assert!(plan(&["a/", "c"]).unwrap().dest_is_dir);
        assert!(!plan(&["a", "c"]).unwrap().dest_is_dir);
    }

    #[test]
    fn the_policy_is_what_was_typed() {
        let plan = plan(&[
            "-n",
            "--delete",
            "--max-delete=3",
            "--numeric-ids",
            "a",
            "b",
        ])
        .unwrap();
        assert!(plan.policy.dry_run && plan.policy.delete && plan.policy.numeric_ids);
        assert_eq!(plan.policy.delete_max, Some(3));
        assert_eq!(plan.sources.len(), 1);
    }

    #[test]
    fn a_timeout_of_zero_waits_for_ever() {
        let seconds = |args: &[&str]| plan(args).unwrap().timeout.map(|wait| wait.as_secs());
        assert_eq!(seconds(&["a", "b"]), Some(IDLE_SECONDS_MAX));
        assert_eq!(seconds(&["--timeout=7", "a", "b"]), Some(7));
        assert_eq!(seconds(&["--timeout=0", "a", "b"]), None);
        let first = |args: &[&str]| {
            let patience = plan(args).unwrap().greeting_timeout;
            patience.map(|wait| wait.as_secs())
        };
        assert_eq!(first(&["a", "h::m"]), Some(IDLE_SECONDS_MAX));
        assert_eq!(first(&["a", "h:b"]), Some(SHELL_GREETING_SECONDS_MAX));
        assert_eq!(first(&["--timeout=7", "a", "h:b"]), Some(7));
        assert_eq!(first(&["--timeout=0", "a", "h:b"]), None);
    }

    #[test]
    fn the_most_telling_of_the_output_options_decides() {
        let show = |args: &[&str]| plan(&[args, &["a", "b"]].concat()).unwrap().output;
        assert_eq!(show(&[]).lines, Lines::None);
        assert_eq!(show(&["-v"]).lines, Lines::Names);
        assert_eq!(show(&["-vi"]).lines, Lines::Itemized);
        assert_eq!(show(&["-n"]).lines, Lines::Itemized);
        assert_eq!(show(&["-nv"]).lines, Lines::Names);
        assert_eq!(show(&["-qviv", "--stats"]).lines, Lines::None);
        assert!(!show(&["-q", "--stats"]).stats && show(&["--stats"]).stats);
        let json = show(&["--json", "-v"]);
        assert!(json.lines == Lines::Json && json.items && !json.summary);
        let quiet_json = show(&["--json", "-q"]);
        assert!(quiet_json.lines == Lines::Json && !quiet_json.items);
        assert_eq!(show(&["--progress", "-q"]).progress, ShowProgress::Off);
        assert_eq!(show(&["--progress"]).progress, ShowProgress::On);
        assert_eq!(show(&["-P"]).progress, ShowProgress::On);
        assert_eq!(show(&["-P", "--no-progress"]).progress, ShowProgress::Off);
    }

    #[test]
    fn an_error_escapes_what_was_typed() {
        let error = Plan::new(push(&["a", "h\x1b:x"])).unwrap_err();
        let said = error.to_string();
        assert_eq!(
            said,
            r"h\x1b:x: cannot be DEST: the host is missing or malformed"
        );
    }

    #[test]
    fn an_ipv6_place_is_shown_with_its_brackets() {
        assert_eq!(to("[::1]::m").unwrap().dest.place(), "sy://[::1]:7873");
        assert_eq!(to("sy:///m").unwrap().dest.place(), SOCKET_DEFAULT);
        assert_eq!(to("u@h:m").unwrap().dest.place(), "u@h");
    }
}
