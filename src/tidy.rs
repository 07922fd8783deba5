//! House rules, as tests: they read the source tree and name every line that breaks one. The map
//! they hold is the crate's own page.

use std::fs;
use std::path::{Path, PathBuf};

/// The floor of each room. A file uses rooms of its own floor and below.
const FLOORS: [(&str, u8); 13] = [
    ("limits", 0),
    ("model", 0),
    ("ops", 0),
    ("wire", 1),
    ("delta", 1),
    ("stage", 2),
    ("job", 2),
    ("session", 3),
    ("engine", 4),
    ("sim", 4),
    ("client", 5),
    ("server", 5),
    ("bin", 6),
];

/// Rooms of one floor that are strangers: the first does not use the second.
const STRANGERS: [(&str, &str); 6] = [
    ("wire", "delta"),
    ("delta", "wire"),
    ("job", "stage"),
    ("engine", "sim"),
    ("client", "server"),
    ("server", "client"),
];

/// Upward all the same, and why. A new line needs a reason as good.
const UPWARD: [(&str, &str, &str); 2] = [
    (
        "sim",
        "client::plan",
        "a simulated push begins with what somebody typed",
    ),
    (
        "sim",
        "client::sources",
        "and opens it as the client does, on a simulated disk",
    ),
];

/// The floors below this one know no kernel.
const ENGINE_FLOOR: u8 = 4;

/// What code below the engine may not name.
const WORLDLY_PATHS: [&str; 10] = [
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "std::os",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::io::stdout",
    "std::io::stderr",
    "std::io::stdin",
];

/// Crates that code below the engine may not name. `rustix` has an exception of its own.
const WORLDLY_CRATES: [&str; 5] = ["libc", "io_uring", "socket2", "tokio", "nix"];

const PRINTING: [&str; 5] = ["print!", "println!", "eprint!", "eprintln!", "dbg!"];

/// Where `unsafe` is, each block with its promise. The rolling checksum is there for one thing: it
/// calls the same function compiled for a wider CPU, having asked whether this is one.
const UNSAFE_FILES: [&str; 3] = ["delta/rolling.rs", "engine/arena.rs", "engine/uring.rs"];

/// Lines above which a file has probably become an attic.
const LINES_MAX: usize = 900;

/// Files that are longer, how long they may become, and why they are. To be shortened, not
/// lengthened: a new file does not belong here.
const LONG_FILES: [(&str, usize, &str); 4] = [
    (
        "sim/disk.rs",
        1400,
        "every call of `Disk`, and each one's tests",
    ),
    (
        "client/output.rs",
        1000,
        "more than half of it are tests of exact lines",
    ),
    (
        "session/source.rs",
        1220,
        "one machine whose arms share all of its state",
    ),
    (
        "session/target.rs",
        1100,
        "one machine whose arms share all of its state",
    ),
];

struct Source {
    /// Below `src`, with `/`.
    path: String,
    text: String,
    /// The text without comments and the contents of strings; as many lines.
    code: String,
}

impl Source {
    fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    fn floor(&self) -> Option<u8> {
        floor_of(self.room())
    }

    /// The code above the tests, which stand last and may do as they like.
    fn product(&self) -> &str {
        let end = self.code.find("#[cfg(test)]\nmod tests");
        &self.code[..end.unwrap_or(self.code.len())]
    }
}

fn floor_of(room: &str) -> Option<u8> {
    FLOORS
        .iter()
        .find(|(name, _)| *name == room)
        .map(|(_, floor)| *floor)
}

fn sources() -> Vec<Source> {
    sources_of("src")
}

/// Those of a directory of the repository.
fn sources_of(dir: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let mut found = Vec::new();
    collect(&root, &root, &mut found);
    assert!(found.len() > 20, "the source tree was not found");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(root: &Path, dir: &Path, found: &mut Vec<Source>) {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let below = path.strip_prefix(root).unwrap();
            found.push(Source {
                path: below.to_str().unwrap().to_owned(),
                code: strip(&text),
                text,
            });
        }
    }
}

/// Blanks out comments, strings and characters.
fn strip(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_word_before = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(len) = raw_string_len(rest).filter(|_| !is_word_before) {
            len
        } else if first == '"' {
            1 + quoted_len(&rest[1..], '"')
        } else if first == '\'' && is_char(rest) {
            1 + quoted_len(&rest[1..], '\'')
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        let (gone, left) = rest.split_at(skipped);
        code.push(' ');
        code.extend(gone.chars().filter(|c| *c == '\n'));
        rest = left;
    }
    code
}

/// Bytes up to and with the closing quote.
fn quoted_len(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices() {
        if c == quote && !is_escaped {
            return at + 1;
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    text.len()
}

fn raw_string_len(text: &str) -> Option<usize> {
    let after = text
        .strip_prefix("br")
        .or_else(|| text.strip_prefix("cr"))
        .or_else(|| text.strip_prefix('r'))?;
    let hashes = after.bytes().take_while(|byte| *byte == b'#').count();
    let content = after[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = content.find(&close)?;
    Some(text.len() - content.len() + end + close.len())
}

/// Whether a quote begins a character and not a lifetime.
fn is_char(text: &str) -> bool {
    let mut after = text.chars().skip(1);
    match after.next() {
        Some('\\') => true,
        Some(_) => after.next() == Some('\''),
        None => false,
    }
}

/// Every path that the code names (`a::b::c`), groups of a `use` written out, with its line.
fn paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut prefixes: Vec<String> = Vec::new();
    let mut at = String::new();
    for (number, line) in code.lines().enumerate() {
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            let is_open = c == '{' && at.ends_with("::");
            if c.is_alphanumeric() || c == '_' {
                at.push(c);
            } else if c == ':' && chars.peek() == Some(&':') && !at.is_empty() {
                chars.next();
                at.push_str("::");
            } else if c.is_whitespace() && at.ends_with("::") {
                // A name of the group follows.
            } else if is_open {
                prefixes.push(std::mem::take(&mut at));
                at.clone_from(prefixes.last().unwrap());
            } else {
                take_path(&mut at, number + 1, &mut found);
                match c {
                    '}' => {
                        prefixes.pop();
                    }
                    '{' if !prefixes.is_empty() => prefixes.push(String::new()),
                    ';' => prefixes.clear(),
                    _ => {}
                }
                if c == ',' || c == '{' {
                    at = prefixes.last().cloned().unwrap_or_default();
                }
            }
        }
        if !at.ends_with("::") {
            take_path(&mut at, number + 1, &mut found);
        }
    }
    found
}

fn take_path(at: &mut String, line: usize, found: &mut Vec<(usize, String)>) {
    let path = std::mem::take(at);
    let path = path.trim_end_matches("::");
    if path.contains("::") {
        found.push((line, path.to_owned()));
    }
}

fn begins_with(path: &str, start: &str) -> bool {
    path.strip_prefix(start)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Lines on which `word` stands by itself.
fn lines_with(code: &str, word: &str) -> Vec<usize> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.lines()
        .enumerate()
        .filter(|(_, line)| {
            line.match_indices(word).any(|(at, _)| {
                !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part)
            })
        })
        .map(|(number, _)| number + 1)
        .collect()
}

fn hold(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

#[test]
fn a_file_uses_its_own_floor_and_those_below() {
    let mut broken = Vec::new();
    for source in sources() {
        let Some(floor) = source.floor() else {
            if !["lib.rs", "tidy.rs"].contains(&&*source.path) {
                broken.push(format!("src/{}: has no floor", source.path));
            }
            continue;
        };
        for (line, path) in paths(source.product()) {
            let Some(below) = path
                .strip_prefix("crate::")
                .or_else(|| path.strip_prefix("sy::"))
            else {
                continue;
            };
            let room = below.split("::").next().unwrap();
            let is_upward = floor_of(room).is_none_or(|used| used > floor);
            let is_stranger = STRANGERS.contains(&(source.room(), room));
            let is_worlds_own = room != "sim" || source.room() == "sim" || is_sim_bin(&source);
            let is_excepted = UPWARD
                .iter()
                .any(|(by, used, _)| source.room() == *by && begins_with(below, used));
            if (is_upward && !is_excepted) || is_stranger || !is_worlds_own {
                broken.push(format!("src/{}:{line}: {path}", source.path));
            }
        }
    }
    hold("upward, or between strangers", &broken);
}

fn is_sim_bin(source: &Source) -> bool {
    source.path == "bin/sy-sim.rs"
}

#[test]
fn below_the_engine_there_is_no_kernel_clock_thread_or_terminal() {
    let mut broken = Vec::new();
    for source in sources() {
        if source.floor().is_none_or(|floor| floor >= ENGINE_FLOOR) {
            continue;
        }
        for (line, path) in paths(source.product()) {
            let is_errno = begins_with(&path, "rustix::io::Errno") && source.floor() == Some(0);
            let is_worldly = WORLDLY_PATHS.iter().any(|start| begins_with(&path, start))
                || WORLDLY_CRATES.iter().any(|name| begins_with(&path, name))
                || (begins_with(&path, "rustix") && !is_errno);
            if is_worldly {
                broken.push(format!("src/{}:{line}: {path}", source.path));
            }
        }
        let words = ["async", "await", "unsafe"];
        for word in words.iter().chain(&PRINTING) {
            if *word == "unsafe" && UNSAFE_FILES.contains(&&*source.path) {
                continue;
            }
            for line in lines_with(source.product(), word) {
                broken.push(format!("src/{}:{line}: {word}", source.path));
            }
        }
    }
    hold("not below the engine", &broken);
}

#[test]
fn unsafe_is_in_three_files() {
    let mut broken = Vec::new();
    for source in sources() {
        if UNSAFE_FILES.contains(&&*source.path) {
            continue;
        }
        for line in lines_with(&source.code, "unsafe") {
            broken.push(format!("src/{}:{line}", source.path));
        }
    }
    hold("`unsafe` elsewhere", &broken);
}

#[test]
fn every_limit_says_what_it_is() {
    let text = sources()
        .into_iter()
        .find(|source| source.path == "limits.rs")
        .unwrap()
        .text;
    let lines: Vec<&str> = text.lines().collect();
    let mut broken = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        if line.starts_with("pub const") && !lines[number - 1].starts_with("/// ") {
            broken.push(format!("src/limits.rs:{}: {line}", number + 1));
        }
    }
    hold("a limit without a doc comment", &broken);
}

#[test]
fn every_file_begins_by_saying_what_it_is() {
    let broken: Vec<String> = sources()
        .iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| format!("src/{}", source.path))
        .collect();
    hold("the first line is no `//!`", &broken);
}

#[test]
fn no_file_becomes_an_attic() {
    let mut broken = Vec::new();
    let mut met = 0;
    for source in sources() {
        let lines = source.text.lines().count();
        let exception = LONG_FILES.iter().find(|(path, ..)| *path == source.path);
        let max = exception.map_or(LINES_MAX, |(_, max, _)| *max);
        met += usize::from(exception.is_some());
        if lines > max {
            broken.push(format!("src/{}: {lines} lines of {max}", source.path));
        }
        if exception.is_some() && lines <= LINES_MAX {
            broken.push(format!("src/{}: needs no exception", source.path));
        }
    }
    assert_eq!(
        met,
        LONG_FILES.len(),
        "an exception for a file that is gone"
    );
    hold("too long", &broken);
}

/// The failures that the proof's page has a row for: a letter, how many, and what stands behind the number.
const FAILURES: [(&str, u32, &str); 6] = [
    ("N", 21, ""),
    ("S", 20, ""),
    ("C", 9, ""),
    ("H", 18, ""),
    ("R", 6, "s"),
    ("K", 8, ""),
];

#[test]
fn the_proofs_page_has_each_failure_and_names_tests_that_are_there() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernel-tests/README.md");
    let page = fs::read_to_string(page).unwrap();
    let texts = ["src", "kernel-tests/tests/push"].map(sources_of);
    let texts: Vec<String> = texts.into_iter().flatten().map(|file| file.text).collect();
    let mut broken = Vec::new();
    for (letter, count, behind) in FAILURES {
        for number in 1..=count {
            let row = format!("| {letter}{number}{behind} | ");
            if !page.lines().any(|line| line.starts_with(&row)) {
                broken.push(format!("no row {row}"));
            }
        }
    }
    let is_test = |word: &&str| {
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        word.chars().all(is_name) && word.matches('_').count() > 2
    };
    let named: Vec<&str> = page.split('`').filter(is_test).collect();
    assert!(
        named.len() > 100,
        "the page names its tests otherwise by now"
    );
    for name in named {
        let begins = format!("fn {name}(");
        if !texts.iter().any(|text| text.contains(&begins)) {
            broken.push(format!("no test {name}"));
        }
    }
    hold("kernel-tests/README.md", &broken);
}

#[test]
fn the_rules_can_be_broken() {
    let code = strip(concat!(
        "use crate::engine::{disk::Posix, ring::{A, B}};\n",
        "use std::{sync::Arc, fs, time::{Duration, Instant}};\n",
        "fn f<'a>(x: &'a str) { let _ = ('\"', \"unsafe // no\", r#\"std::net\"#); } // async\n",
        "fn g() { crate::wire::seal(); if x::Y == z { y::w() } }\n",
        "unsafe fn h() {}\n",
    ));
    let found: Vec<String> = paths(&code).into_iter().map(|(_, path)| path).collect();
    assert_eq!(
        found,
        [
            "crate::engine::disk::Posix",
            "crate::engine::ring::A",
            "crate::engine::ring::B",
            "std::sync::Arc",
            "std::fs",
            "std::time::Duration",
            "std::time::Instant",
            "crate::wire::seal",
            "x::Y",
            "y::w",
        ]
    );
    assert_eq!(lines_with(&code, "unsafe"), [5]);
    assert!(lines_with(&code, "async").is_empty());
    assert!(begins_with("std::fs::File", "std::fs") && !begins_with("std::fsx", "std::fs"));
}
