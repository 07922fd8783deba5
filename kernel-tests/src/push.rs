//! One run of `sy push`: built, started, waited for with an end, and asked what it said.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::fs::MemfdFlags;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::{guard, subject, twin, usage};

/// A push that has not started.
#[derive(Clone, Debug)]
pub struct Push {
    before: Vec<OsString>,
    options: Vec<OsString>,
    sources: Vec<OsString>,
    dest: OsString,
    dir: Option<PathBuf>,
}

impl Push {
    pub fn new(dest: impl Into<OsString>) -> Self {
        Self {
            before: Vec::new(),
            options: Vec::new(),
            sources: Vec::new(),
            dest: dest.into(),
            dir: None,
        }
    }

    /// Adds one source, as typed.
    #[must_use]
    pub fn from(mut self, source: impl Into<OsString>) -> Self {
        self.sources.push(source.into());
        self
    }

    #[must_use]
    pub fn option(mut self, option: impl Into<OsString>) -> Self {
        self.options.push(option.into());
        self
    }

    #[must_use]
    pub fn options<S: AsRef<OsStr>>(mut self, options: &[S]) -> Self {
        self.options
            .extend(options.iter().map(|option| option.as_ref().to_owned()));
        self
    }

    /// Runs in this working directory.
    #[must_use]
    pub fn in_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Runs through another program, which is given the whole command.
    #[must_use]
    pub fn through<S: AsRef<OsStr>>(mut self, program: &[S]) -> Self {
        self.before
            .extend(program.iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// Runs as an ordinary user with this uid and gid.
    #[must_use]
    pub fn as_user(self, id: u32) -> Self {
        self.through(&as_user(id))
    }

    /// Starts it.
    #[track_caller]
    pub fn start(&self) -> Running {
        let mut words = self.before.clone();
        words.push(subject::client().into());
        if subject::is_stand_in() {
            words.extend(twin::AS_SY.map(Into::into));
            words.extend(self.options.iter().filter_map(as_rsync));
        } else {
            words.push("push".into());
            words.extend(self.options.iter().cloned());
        }
        words.extend(self.sources.iter().cloned());
        words.push(self.dest.clone());
        start(&words, self.dir.as_ref())
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(&self) -> Outcome {
        self.start().wait()
    }
}

/// The words that run the rest of a command as this uid and gid.
pub fn as_user(id: u32) -> [String; 6] {
    let id = id.to_string();
    ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"].map(str::to_owned)
}

/// Starts any command the way pushes are started.
#[track_caller]
pub fn start(words: &[OsString], dir: Option<&PathBuf>) -> Running {
    let memory = || {
        let fd = rustix::fs::memfd_create("output", MemfdFlags::CLOEXEC).expect("a memfd");
        File::from(fd)
    };
    let (stdout, stderr) = (memory(), memory());
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(stdout.try_clone().expect("a second descriptor"))
        .stderr(stderr.try_clone().expect("a second descriptor"));
    if let Some(dir) = dir {
        command.current_dir(dir);
    }
    let child = command
        .spawn()
        .unwrap_or_else(|why| panic!("{words:?}: {why}"));
    let line: Vec<_> = words
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    Running {
        child: Some(child),
        line: line.join(" "),
        stdout,
        stderr,
    }
}

/// The stand-in's spelling of an option, or `None` where it has none.
fn as_rsync(option: &OsString) -> Option<OsString> {
    let text = option.to_string_lossy();
    match text.as_ref() {
        "--json" => Some("--stats".into()),
        "--progress" => Some("--info=progress2".into()),
        "--allow-empty-source" => None,
        "--sy-path" => Some("--rsync-path".into()),
        text if text.starts_with("--durability") => None,
        _ => Some(option.clone()),
    }
}

/// A push that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Option<Child>,
    line: String,
    stdout: File,
    stderr: File,
}

impl Running {
    fn child(&self) -> &Child {
        self.child.as_ref().expect("it was not waited for")
    }

    pub fn signal(&self, signal: Signal) {
        guard::signal(self.child(), signal);
    }

    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    pub fn has_ended(&mut self) -> bool {
        let child = self.child.as_mut().expect("it was not waited for");
        child
            .try_wait()
            .expect("a child can be waited for")
            .is_some()
    }

    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    /// Its end, and the CPU time it used, in clock ticks.
    #[track_caller]
    pub fn wait_with_cpu_ticks(self) -> (Outcome, u64) {
        let pid = self.pid();
        let id = Pid::from_raw(i32::try_from(pid).expect("a pid fits")).expect("a pid is not zero");
        // Ended and not reaped yet: what it used can still be read. A hang is found by `wait`.
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        guard::comes_true(guard::hang(), || {
            let state = rustix::process::waitid(WaitId::Pid(id), ended);
            state.expect("a child can be waited for").is_some()
        });
        let ticks = usage::cpu_ticks(pid);
        (self.wait(), ticks)
    }

    /// Its end; a hang fails the test.
    #[track_caller]
    pub fn wait(mut self) -> Outcome {
        let mut child = self.child.take().expect("it was not waited for");
        let status = guard::end_of(&mut child);
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let outcome = Outcome {
            line: std::mem::take(&mut self.line),
            code: status.and_then(|status| status.code()),
            signal: status.and_then(|status| status.signal()),
            stdout: all_of(&mut self.stdout),
            stderr: all_of(&mut self.stderr),
        };
        assert!(status.is_some(), "hung: {outcome}");
        outcome
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn all_of(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))
        .expect("memory can be rewound");
    file.read_to_end(&mut bytes).expect("memory can be read");
    bytes
}

/// How a push ended and what it said.
#[derive(Clone, Debug)]
pub struct Outcome {
    line: String,
    /// The exit code, unless a signal ended it.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tail = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let skipped = text.chars().count().saturating_sub(4000);
            text.chars().skip(skipped).collect::<String>()
        };
        write!(
            out,
            "`{}` ended with code {:?}, signal {:?}\n--- stdout\n{}\n--- stderr\n{}\n---",
            self.line,
            self.code,
            self.signal,
            tail(&self.stdout),
            tail(&self.stderr)
        )
    }
}

impl Outcome {
    /// Fails unless it succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert!(self.code == Some(code), "should exit {code}: {self}");
        self
    }

    /// Fails unless it exited with one of these codes.
    #[track_caller]
    pub fn exits_one_of(self, codes: &[i32]) -> Self {
        let fits = self.code.is_some_and(|code| codes.contains(&code));
        assert!(fits, "should exit with one of {codes:?}: {self}");
        self
    }

    /// Fails unless `--max-delete` stopped it. rsync forgets to say so when a daemon deletes.
    #[track_caller]
    pub fn hits_the_limit(self) -> Self {
        self.exits_one_of(if subject::is_stand_in() {
            &[0, 25]
        } else {
            &[25]
        })
    }

    /// Fails unless each of these words is on stderr, in any case. The stand-in has its own.
    #[track_caller]
    pub fn complains(self, words: &[&str]) -> Self {
        if subject::is_stand_in() {
            return self;
        }
        let text = String::from_utf8_lossy(&self.stderr).to_lowercase();
        for word in words {
            assert!(
                text.contains(&word.to_lowercase()),
                "stderr should say {word:?}: {self}"
            );
        }
        self
    }

    /// Fails if stdout or stderr hold anything a terminal would obey.
    #[track_caller]
    pub fn is_printable(self) -> Self {
        for stream in [&self.stdout, &self.stderr] {
            let raw = stream
                .iter()
                .find(|&&byte| (byte < b' ' && byte != b'\n') || byte == 0x7f);
            assert!(raw.is_none(), "raw byte {raw:?} in the output: {self}");
            assert!(
                std::str::from_utf8(stream).is_ok(),
                "output is not UTF-8: {self}"
            );
        }
        self
    }

    /// The lines of stdout that tell of one entry, in order of path.
    pub fn itemized(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.stdout);
        let mut lines: Vec<String> = text
            .lines()
            .filter(|line| {
                let bytes = line.as_bytes();
                bytes.len() > 12 && b"<>ch.*".contains(&bytes[0]) && bytes[11] == b' '
            })
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    }

    /// The last line of a `--json` push.
    #[track_caller]
    pub fn summary(&self) -> Summary {
        if subject::is_stand_in() {
            return Summary::of_rsync(&String::from_utf8_lossy(&self.stdout));
        }
        let text = std::str::from_utf8(&self.stdout)
            .unwrap_or_else(|why| panic!("--json is not UTF-8: {why}: {self}"));
        let mut last = None;
        for line in text.lines() {
            let parsed: Result<serde_json::Value, _> = serde_json::from_str(line);
            let value = parsed.unwrap_or_else(|why| panic!("not JSON: {line}: {why}: {self}"));
            last = Some(value);
        }
        let value = last.unwrap_or_else(|| panic!("--json said nothing: {self}"));
        assert_eq!(
            value["event"], "summary",
            "the last line is the summary: {self}"
        );
        assert_eq!(value["schema"], 1, "{self}");
        let count = |key: &str| {
            value[key]
                .as_u64()
                .unwrap_or_else(|| panic!("summary without {key}: {self}"))
        };
        Summary {
            files_scanned: count("files_scanned"),
            files_sent: count("files_sent"),
            files_deleted: count("files_deleted"),
            literal_bytes: count("literal_bytes"),
            matched_bytes: count("matched_bytes"),
            signature_bytes: count("signature_bytes"),
            files_resent: count("files_resent"),
            wire_bytes: count("wire_sent_bytes") + count("wire_received_bytes"),
            errors: count("errors"),
            peak_rss_bytes: [count("peak_rss_bytes"), count("target_peak_rss_bytes")],
        }
    }
}

/// The figures of a push that tests look at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    pub files_scanned: u64,
    pub files_sent: u64,
    pub files_deleted: u64,
    pub literal_bytes: u64,
    pub matched_bytes: u64,
    pub signature_bytes: u64,
    pub files_resent: u64,
    /// In both directions.
    pub wire_bytes: u64,
    pub errors: u64,
    /// Of the process that sends, and of the one that receives.
    pub peak_rss_bytes: [u64; 2],
}

impl Summary {
    fn of_rsync(text: &str) -> Self {
        let number = |line: &str, label: &str| {
            let rest = line.split_once(label)?.1;
            let digits: String = rest
                .chars()
                .take_while(|c| c.is_ascii_digit() || *c == ',')
                .collect();
            digits.replace(',', "").parse::<u64>().ok()
        };
        let of = |head: &str, label: &str| {
            let line = text
                .lines()
                .find(|line| line.starts_with(head))
                .unwrap_or_default();
            number(line, label).unwrap_or(0)
        };
        let nodes = ["link: ", "dev: ", "special: "];
        let made: u64 = nodes
            .iter()
            .map(|kind| of("Number of created files", kind))
            .sum();
        let dirs = of("Number of files", "dir: ");
        Self {
            files_scanned: of("Number of files", "files: ") - dirs,
            files_sent: of("Number of regular files transferred", "transferred: ") + made,
            files_deleted: of("Number of deleted files", "files: "),
            literal_bytes: of("Literal data", "data: "),
            matched_bytes: of("Matched data", "data: "),
            signature_bytes: 0,
            files_resent: 0,
            wire_bytes: of("Total bytes sent", "sent: ") + of("Total bytes received", "received: "),
            errors: 0,
            peak_rss_bytes: [0; 2],
        }
    }
}
