//! Words that somebody typed, or that a stranger chose and somebody reads. The first byte of an input picks what they
//! are: a name to be shown, a remote shell, the command line of a push, a server's config file, its command line, a line of
//! its log. Nothing panics; what is taken is what it has to be; and every answer is printable.
#![no_main]

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use clap::Parser;
use libfuzzer_sys::fuzz_target;
use sy::client::args::{Cli, PushArgs};
use sy::client::dest::Dest;
use sy::client::messages;
use sy::client::plan::Plan;
use sy::client::rsh;
use sy::model::escape;
use sy::model::id::SessionId;
use sy::model::name::Name;
use sy::model::report::{Exit, Totals};
use sy::server::args::ServerArgs;
use sy::server::config::{ConfigError, Doors, Listen, ServerConfig};
use sy::server::log::SessionLine;
use sy_fuzz::choices::Choices;
use sy_fuzz::printable::{assert_lines, is_harmless};

fuzz_target!(|input: &[u8]| {
    let Some((pick, words)) = input.split_first() else {
        return;
    };
    match pick % 7 {
        0 => escaped(words),
        1 => remote_shell(words),
        2 => push(&mut Choices::new(words)),
        3 => command_line(words),
        4 => config_file(words),
        5 => server(&mut Choices::new(words)),
        _ => log_line(&mut Choices::new(words)),
    }
});

/// What is shown of a name is harmless, and says which bytes it was.
fn escaped(bytes: &[u8]) {
    let name = escape::name(bytes).to_string();
    assert!(name.chars().all(is_harmless), "{name:?}");
    assert_eq!(unescaped(&name), bytes);
    let text = escape::text(bytes).to_string();
    assert!(text.chars().all(is_harmless), "{text:?}");
    assert_word(&escape::word(bytes).to_string());
}

fn assert_word(word: &str) {
    let is_plain = |c: char| is_harmless(c) && !c.is_whitespace() && !matches!(c, '"' | '=');
    assert!(!word.is_empty() && word.chars().all(is_plain), "{word:?}");
}

fn unescaped(shown: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = shown.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let (kind, after) = rest.split_first().expect("a backslash does not end it");
        if *kind == b'\\' {
            bytes.push(b'\\');
            rest = after;
            continue;
        }
        assert_eq!(*kind, b'x');
        let (digits, after) = after.split_at(2);
        let digits = str::from_utf8(digits).expect("they are digits");
        bytes.push(u8::from_str_radix(digits, 16).expect("they are digits"));
        rest = after;
    }
    bytes
}

/// Words in quotes are the same words.
fn remote_shell(command: &[u8]) {
    let words = match rsh::words(command) {
        Ok(words) => words,
        Err(rsh::OpenQuote(quote)) => {
            assert!(matches!(quote, b'\'' | b'"') && command.contains(&quote));
            return;
        }
    };
    let quoted: Vec<Vec<u8>> = words
        .iter()
        .map(|word| {
            let doubled = word.split(|byte| *byte == b'\'');
            let doubled = doubled.collect::<Vec<_>>().join(&b"''"[..]);
            [b"'", &doubled[..], b"'"].concat()
        })
        .collect();
    assert_eq!(rsh::words(&quoted.join(&b' ')), Ok(words));
}

/// Words are separated by newlines.
fn lines(words: &[u8]) -> Vec<OsString> {
    let lines = words.split(|byte| *byte == b'\n');
    lines
        .filter(|line| !line.contains(&0))
        .map(|line| OsString::from_vec(line.to_vec()))
        .collect()
}

/// SRC and DEST, `--rsh`, `SY_RSH`, `--sy-path` and `--socket`.
fn push(choices: &mut Choices<'_>) {
    let flags = choices.byte();
    let mut words = lines(choices.bytes(usize::MAX)).into_iter();
    let mut next = |bit: u32| (flags & (1 << bit) != 0).then(|| words.next()).flatten();
    let args = PushArgs {
        rsh: next(0),
        rsh_usual: next(1),
        sy_path: next(2),
        socket: next(3),
        checksum: flags & 16 != 0,
        no_whole_file: flags & 32 != 0,
        paths: words.collect(),
        ..PushArgs::default()
    };
    plan(args);
}

fn plan(args: PushArgs) {
    let plan = match Plan::new(args) {
        Ok(plan) => plan,
        Err(error) => return assert_lines(&messages::plan_error(&error).to_string()),
    };
    assert!(!plan.sources.is_empty());
    for source in &plan.sources {
        assert!(!source.path.is_empty());
        assert!(source.name().is_none_or(|name| Name::new(name).is_ok()));
    }
    assert_lines(&plan.dest.place());
    match &plan.dest {
        Dest::Local { path } => assert!(!path.is_empty() && !path.starts_with(b"sy://")),
        Dest::Tcp {
            host, port, path, ..
        } => {
            assert!(!host.is_empty() && *port != 0);
            assert_components(path);
        }
        Dest::Unix { socket, path, .. } => {
            assert!((1..=107).contains(&socket.len()));
            assert_components(path);
        }
        Dest::Shell {
            command,
            host,
            path,
            ..
        } => {
            assert_components(path);
            let [.., name, _, last] = &**command else {
                panic!("no command")
            };
            // Whatever the shell over there is, it gets no option and no path that was made of DEST.
            assert!(!name.is_empty() && !name.starts_with(b"-"));
            assert!(name.iter().all(|byte| byte.is_ascii_graphic()));
            assert!(host.as_bytes().ends_with(name) && *last == b"--stdio");
            let user = command.iter().position(|word| *word == b"-l");
            let user = user.and_then(|at| command.get(at + 1));
            assert!(host.starts_with('-') == user.is_some_and(|it| it.starts_with(b"-")));
        }
    }
}

fn assert_components(path: &[Vec<u8>]) {
    assert!(path.iter().all(|name| Name::new(name).is_ok()));
}

/// A whole command line, as the shell gives it.
fn command_line(words: &[u8]) {
    let before = ["sy", "push"].map(OsString::from);
    if let Ok(Cli { command }) = Cli::try_parse_from(before.into_iter().chain(lines(words))) {
        let sy::client::args::Command::Push(args) = command;
        plan(args);
    }
}

/// Of this process.
static CONFIG: LazyLock<PathBuf> = LazyLock::new(|| {
    let name = format!("sy-fuzz-words-{}.toml", std::process::id());
    std::env::temp_dir().join(name)
});

fn config_file(text: &[u8]) {
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&*CONFIG);
    let written = file.and_then(|mut file| file.write_all(text));
    written.expect("the directory for temporary files takes one");
    let config = ServerConfig::new(ServerArgs {
        config: Some(CONFIG.clone().into_os_string()),
        ..ServerArgs::default()
    });
    check_config(&config);
}

/// Modules and addresses, as they are typed.
fn server(choices: &mut Choices<'_>) {
    let flags = choices.byte();
    let words = lines(choices.bytes(usize::MAX));
    let (listen, mut modules): (Vec<_>, Vec<_>) = words
        .into_iter()
        .enumerate()
        .partition(|(at, _)| flags & (1 << (at % 6)) != 0);
    modules.push((0, OsString::from("last=/")));
    let config = ServerConfig::new(ServerArgs {
        listen: listen
            .into_iter()
            .filter_map(|(_, word)| word.into_string().ok())
            .collect(),
        modules: modules.into_iter().map(|(_, word)| word).collect(),
        no_auth: flags & 64 == 0,
        stdio: flags & 128 != 0,
        ..ServerArgs::default()
    });
    check_config(&config);
}

fn check_config(config: &Result<ServerConfig, ConfigError>) {
    let config = match config {
        Ok(config) => config,
        Err(error) => return assert_lines(&error.to_string()),
    };
    assert!(!config.modules.is_empty());
    for module in config.modules.iter() {
        assert!(module.root.is_absolute());
        let found = config.modules.get(module.name.bytes());
        assert_eq!(found, Some(module));
    }
    if let Doors::Listen(doors) = &config.doors {
        assert!(!doors.is_empty());
        for door in doors {
            match door {
                Listen::Tcp { address } => {
                    assert!(address.ip().to_canonical().is_loopback());
                }
                Listen::Unix { socket } => {
                    assert!((1..=107).contains(&socket.as_os_str().len()));
                }
            }
        }
    }
    assert_ne!(config.shards, Some(0));
    assert_ne!(config.pool_threads, Some(0));
    assert_ne!(config.max_connections, Some(0));
}

/// A line of `key=value`, each one word, whatever the peer is called.
fn log_line(choices: &mut Choices<'_>) {
    let module = choices.counted();
    let peer = String::from_utf8_lossy(choices.counted());
    let why = String::from_utf8_lossy(choices.counted());
    let line = SessionLine {
        session: SessionId(1),
        files: Some(SessionId(2)),
        peer: &peer,
        module,
        totals: &Totals::default(),
        dry_run: true,
        durability: None,
        exit: Exit::Ok,
        why: Some(&why),
        elapsed: Duration::ZERO,
    };
    let line = line.to_string();
    for word in line.split(' ').skip(2) {
        let (key, value) = word.split_once('=').expect("a key and a value");
        assert_word(key);
        assert_word(value);
    }
}
