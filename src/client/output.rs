//! `Output`: hears what a push tells and prints it, for people, for rsync's readers or as NDJSON.
//!
//! Plan and results go to stdout, errors and progress to stderr. A stdout that somebody closed is
//! no error: the push goes on without it.

use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::BinaryBytes;
use serde::Serialize;

use super::failure::Failure;
use super::latency;
use super::messages::{self, Message};
use super::plan::{Lines, PlanError, Show};
use super::progress::Progress;
use crate::engine::figures::Figures;
use crate::limits::PROGRESS_PAUSE_MS;
use crate::model::entry::Kind;
use crate::model::escape;
use crate::model::report::{Change, Ending, Exit, Listener, Side, Tell, Totals, What};

/// The version of the `--json` lines.
const JSON_SCHEMA: u32 = 1;
/// Bytes of stdout that are gathered before they are written.
const STDOUT_BYTES: usize = 64 * 1024;

/// The listener of a push. Call `finish` last: it writes what is still gathered.
pub struct Output {
    show: Show,
    /// `None` once a write failed.
    stdout: Option<BufWriter<Box<dyn Write + Send>>>,
    stderr: Box<dyn Write + Send>,
    /// Somebody watches, so each line goes out at once, unless the progress line keeps the beat.
    is_stdout_terminal: bool,
    flushed: Instant,
    progress: Progress,
    /// Hints that were given: each is given once.
    hints: Vec<String>,
    errors_told: u64,
}

impl Output {
    pub fn new(show: Show) -> Self {
        let stdout = io::stdout();
        let is_stdout_terminal = stdout.is_terminal();
        Self {
            is_stdout_terminal,
            progress: Progress::new(show.progress),
            ..Self::to(show, Box::new(stdout), Box::new(io::stderr()))
        }
    }

    /// To any writers, without a progress line.
    pub fn to(show: Show, stdout: Box<dyn Write + Send>, stderr: Box<dyn Write + Send>) -> Self {
        Self {
            show,
            stdout: Some(BufWriter::with_capacity(STDOUT_BYTES, stdout)),
            stderr,
            is_stdout_terminal: false,
            flushed: Instant::now(),
            progress: Progress::off(),
            hints: Vec::new(),
            errors_told: 0,
        }
    }

    /// Words a failure of the session and prints it; gives its exit code for the `Ending`.
    pub fn failure(&mut self, place: &str, failure: &Failure) -> Exit {
        let exit = failure.exit();
        self.errors_told += 1;
        let message = messages::failure(place, failure);
        if self.show.lines == Lines::Json {
            self.json(&ErrorLine {
                event: "error",
                side: None,
                path: None,
                path_hex: None,
                what: None,
                why: None,
                message: &message.text,
            });
        }
        self.say(message);
        exit
    }

    pub fn errors_told(&self) -> u64 {
        self.errors_told
    }

    /// Prints a message on stderr, each hint only once.
    pub fn say(&mut self, message: Message) {
        let mut message = message;
        if let Some(hint) = &message.hint {
            if self.hints.iter().any(|given| given == hint) {
                message.hint = None;
            } else {
                self.hints.push(hint.to_string());
            }
        }
        let lines = format!("{message}\n");
        // What was printed before the error stands above it.
        if self.is_stdout_terminal {
            self.flush();
        }
        let stderr = &mut self.stderr;
        // Nobody is left to be told that stderr is closed.
        self.progress
            .aside(|| drop(stderr.write_all(lines.as_bytes())));
    }

    /// Sums up and writes out. `first_payload` and `elapsed` count from the start of the push.
    pub fn finish(
        &mut self,
        ending: &Ending,
        elapsed: Duration,
        first_payload: Option<Duration>,
        peak_rss_bytes: u64,
        engine: &str,
        figures: &Figures,
    ) -> Exit {
        self.progress
            .finish(&ending.totals, Instant::now(), &mut *self.stderr);
        if self.show.stats {
            let table = stats(ending, elapsed, first_payload, peak_rss_bytes, engine);
            self.line(&(table + &latency::table(figures)));
        }
        if self.show.summary {
            let line = summary(ending, elapsed, self.show.dry_run);
            self.line(&line);
        }
        if ending.totals.specials_skipped > 0 && !self.show.quiet {
            self.say(messages::specials_skipped(ending.totals.specials_skipped));
        }
        let last = messages::ending(ending);
        // A sentence without news after a failure that was told already is left out.
        let is_told = self.errors_told == 0 || ending.why.is_some() || counts_entries(ending.exit);
        if let Some(last) = last
            && is_told
        {
            self.say(last);
        }
        if self.show.lines == Lines::Json {
            self.json(&SummaryLine::new(
                ending,
                elapsed,
                first_payload,
                peak_rss_bytes,
                engine,
                self.show.dry_run,
                figures,
            ));
        }
        self.flush();
        ending.exit
    }

    fn item(&mut self, change: Change, path: &[u8]) {
        match self.show.lines {
            Lines::None => {}
            Lines::Names if is_named(change) => {
                let shown = shown_path(change.kind, path);
                self.line(&shown);
            }
            Lines::Names => {}
            Lines::Itemized => {
                let line = format!(
                    "{} {}",
                    itemized(change, self.show.is_remote),
                    shown_path(change.kind, path)
                );
                self.line(&line);
            }
            Lines::Json => {
                let itemized = itemized(change, self.show.is_remote);
                self.json(&ItemLine {
                    event: "item",
                    change: Some(match change.what {
                        What::Make => "make",
                        What::Update => "update",
                        What::Meta => "meta",
                    }),
                    kind: kind_name(change.kind),
                    itemized: Some(&itemized),
                    path: &escape_json(path),
                    path_hex: path_hex(path),
                });
            }
        }
    }

    fn deleted(&mut self, kind: Kind, path: &[u8]) {
        match self.show.lines {
            Lines::None => {}
            Lines::Names => self.line(&format!("deleting {}", shown_path(kind, path))),
            Lines::Itemized => self.line(&format!("*deleting   {}", shown_path(kind, path))),
            Lines::Json => self.json(&ItemLine {
                event: "deleted",
                change: None,
                kind: kind_name(kind),
                itemized: None,
                path: &escape_json(path),
                path_hex: path_hex(path),
            }),
        }
    }

    fn json(&mut self, line: &impl Serialize) {
        let line = serde_json::to_string(line).expect("plain structs of texts and numbers");
        self.line(&escape::json(&line));
    }

    fn line(&mut self, line: &str) {
        let Some(stdout) = &mut self.stdout else {
            return;
        };
        let mut written = stdout
            .write_all(line.as_bytes())
            .and_then(|()| stdout.write_all(b"\n"));
        if written.is_ok() && self.is_stdout_terminal && !self.progress.is_on_screen() {
            written = stdout.flush();
        }
        self.check(written);
    }

    fn flush(&mut self) {
        if let Some(stdout) = &mut self.stdout
            && !stdout.buffer().is_empty()
        {
            let written = self.progress.aside(|| stdout.flush());
            self.check(written);
        }
    }

    fn check(&mut self, written: io::Result<()>) {
        let Err(error) = written else {
            return;
        };
        // What is still gathered has nowhere to go; dropping the writer would try again.
        if let Some(stdout) = self.stdout.take() {
            drop(stdout.into_parts());
        }
        if error.kind() != io::ErrorKind::BrokenPipe {
            self.say(Message {
                text: format!("stdout: cannot write: {error}: the push goes on without it"),
                hint: None,
            });
        }
    }
}

impl Listener for Output {
    fn wants_items(&self) -> bool {
        self.show.items
    }

    fn tell(&mut self, tell: Tell) {
        match tell {
            Tell::Item { change, path } if self.show.items => self.item(change, &path),
            Tell::Deleted { kind, path } if self.show.items => self.deleted(kind, &path),
            Tell::Item { .. } | Tell::Deleted { .. } => {}
            Tell::IsTarget { path } => self.say(messages::target_inside_source(&path)),
            Tell::Resent { path } => self.say(messages::sent_again(&path)),
            Tell::Trouble(trouble) => {
                self.errors_told += 1;
                let message = messages::trouble(&trouble);
                if self.show.lines == Lines::Json {
                    self.json(&ErrorLine {
                        event: "error",
                        side: Some(match trouble.side {
                            Side::Source => "source",
                            Side::Target => "target",
                        }),
                        path: Some(&escape_json(&trouble.path)),
                        path_hex: path_hex(&trouble.path),
                        what: Some(messages::attempt_name(trouble.what)),
                        why: Some(&messages::why_name(trouble.why)),
                        message: &message.text,
                    });
                }
                self.say(message);
            }
        }
    }

    fn progress(&mut self, totals: &Totals, scan_done: bool) {
        let now = Instant::now();
        // A reader of stdout hears of a change soon, and not by one write per line.
        if now.duration_since(self.flushed) >= Duration::from_millis(PROGRESS_PAUSE_MS) {
            self.flushed = now;
            self.flush();
        }
        if self.progress.is_due(now) {
            self.progress
                .show(totals, scan_done, now, &mut *self.stderr);
        }
    }
}

/// Prints why a command line can't be used.
pub fn plan_error(error: &PlanError) -> Exit {
    let lines = format!("{}\n", messages::plan_error(error));
    // Nobody is left to be told that stderr is closed.
    drop(io::stderr().write_all(lines.as_bytes()));
    Exit::Usage
}

fn counts_entries(exit: Exit) -> bool {
    matches!(exit, Exit::Partial | Exit::Vanished | Exit::DeleteLimit)
}

/// rsync names with -v what it makes and sends, and directories whose metadata it mends.
fn is_named(change: Change) -> bool {
    match change.what {
        What::Make | What::Update => true,
        What::Meta => change.kind == Kind::Dir,
    }
}

/// Below DEST, escaped, directories with a slash behind; DEST itself is `./`.
fn shown_path(kind: Kind, path: &[u8]) -> String {
    let mut shown = escape::name(path).to_string();
    if path.is_empty() {
        shown.push('.');
    }
    if kind == Kind::Dir {
        shown.push('/');
    }
    shown
}

/// rsync's `%i`: `YXcstpoguax`, see --itemize-changes in rsync(1).
fn itemized(change: Change, is_remote: bool) -> String {
    let update = match (change.what, change.kind) {
        (What::Meta, _) => '.',
        (What::Make | What::Update, Kind::File) if is_remote => '<',
        (What::Make | What::Update, Kind::File) => '>',
        (
            What::Make | What::Update,
            Kind::Dir
            | Kind::Symlink
            | Kind::Fifo
            | Kind::Socket
            | Kind::CharDevice
            | Kind::BlockDevice,
        ) => 'c',
    };
    let kind = match change.kind {
        Kind::File => 'f',
        Kind::Dir => 'd',
        Kind::Symlink => 'L',
        Kind::CharDevice | Kind::BlockDevice => 'D',
        Kind::Fifo | Kind::Socket => 'S',
    };
    let properties = match change.what {
        What::Make => "+".repeat(9),
        What::Update | What::Meta => {
            let letter = |differs: bool, letter: char| if differs { letter } else { '.' };
            // The value of a link or device; the content of a file with -c only.
            let is_value = change.what == What::Update
                && (change.kind != Kind::File || change.content_differs);
            let is_sized = change.size_differs && change.kind == Kind::File;
            [
                letter(is_value, 'c'),
                letter(is_sized, 's'),
                letter(change.mtime_differs, 't'),
                letter(change.mode_differs, 'p'),
                letter(change.owner_differs, 'o'),
                letter(change.group_differs, 'g'),
                '.',
                '.',
                '.',
            ]
            .into_iter()
            .collect()
        }
    };
    format!("{update}{kind}{properties}")
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Dir => "dir",
        Kind::Symlink => "symlink",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
        Kind::CharDevice => "char_device",
        Kind::BlockDevice => "block_device",
    }
}

/// Valid UTF-8 stays as it is (JSON has its own escapes); anything else is escaped as for a screen,
/// and `path_hex` has the bytes.
fn escape_json(path: &[u8]) -> String {
    match str::from_utf8(path) {
        Ok(path) => path.to_owned(),
        Err(_) => escape::name(path).to_string(),
    }
}

fn path_hex(path: &[u8]) -> Option<String> {
    str::from_utf8(path).is_err().then(|| {
        path.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a String takes everything");
            hex
        })
    })
}

/// Counts are of what is known here: of a push that did not finish, that is not what was deleted.
fn summary(ending: &Ending, elapsed: Duration, dry_run: bool) -> String {
    let totals = &ending.totals;
    let (sent, scanned) = (totals.files_sent, totals.files_scanned);
    let seconds = elapsed.as_secs_f64();
    if ending.exit != Exit::Ok && !counts_entries(ending.exit) {
        let code = ending.exit as u8;
        return format!(
            "not finished: {sent} of {scanned} files under way or sent in {seconds:.2} s (exit code {code})"
        );
    }
    let deleted = totals.files_deleted;
    let failures = match totals.errors {
        0 => "no failures".to_owned(),
        1 => "1 failure".to_owned(),
        errors => format!("{errors} failures"),
    };
    if dry_run {
        let most = BinaryBytes(totals.bytes_to_send);
        return format!(
            "{sent} of {scanned} files to send, {most} at most, {deleted} to delete, {failures} in {seconds:.2} s (dry run)"
        );
    }
    let (new, reused) = (
        BinaryBytes(totals.literal_bytes),
        BinaryBytes(totals.matched_bytes),
    );
    format!(
        "{sent} of {scanned} files sent, {deleted} deleted, {new} new, {reused} reused, {failures} in {seconds:.2} s"
    )
}

/// rsync's names where it has them; a table of `name: number`.
fn stats(
    ending: &Ending,
    elapsed: Duration,
    first_payload: Option<Duration>,
    peak_rss_bytes: u64,
    engine: &str,
) -> String {
    let totals = &ending.totals;
    let first = match first_payload {
        Some(first) => format!("{:.3} seconds", first.as_secs_f64()),
        None => "none was sent".to_owned(),
    };
    let durability = ending
        .durability
        .map_or("not reached", |level| level.name());
    let rows: [(&str, String); 21] = [
        (
            "Number of files",
            format!(
                "{} (files, links and specials: {}, dir: {})",
                totals.files_scanned + totals.dirs_scanned,
                totals.files_scanned,
                totals.dirs_scanned
            ),
        ),
        (
            "Number of created directories",
            totals.dirs_made.to_string(),
        ),
        ("Number of deleted files", totals.files_deleted.to_string()),
        (
            "Number of deletions skipped",
            totals.deletes_skipped.to_string(),
        ),
        ("Number of files transferred", totals.files_sent.to_string()),
        (
            "Number of files sent again",
            totals.files_resent.to_string(),
        ),
        (
            "Number of entries with metadata mended",
            totals.meta_fixed.to_string(),
        ),
        (
            "Number of specials skipped",
            totals.specials_skipped.to_string(),
        ),
        ("Number of failures", totals.errors.to_string()),
        ("Total file size", bytes(totals.bytes_scanned)),
        ("Total transferred file size", bytes(totals.bytes_to_send)),
        ("Literal data", bytes(totals.literal_bytes)),
        ("Matched data", bytes(totals.matched_bytes)),
        ("Signature data", bytes(totals.signature_bytes)),
        ("Total bytes sent", totals.wire_sent_bytes.to_string()),
        (
            "Total bytes received",
            totals.wire_received_bytes.to_string(),
        ),
        ("Time to first payload", first),
        (
            "Total time",
            format!("{:.3} seconds", elapsed.as_secs_f64()),
        ),
        (
            "Peak memory",
            format!(
                "{} here, {} at the target",
                BinaryBytes(peak_rss_bytes),
                BinaryBytes(totals.target_peak_rss_bytes)
            ),
        ),
        ("Engine", engine.to_owned()),
        ("Durability", durability.to_owned()),
    ];
    let mut table = String::new();
    for (name, value) in rows {
        write!(table, "\n{name}: {value}").expect("a String takes everything");
    }
    table
}

fn bytes(bytes: u64) -> String {
    format!("{bytes} bytes")
}

/// `item` and `deleted`.
#[derive(Serialize)]
struct ItemLine<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<&'static str>,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    itemized: Option<&'a str>,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
}

/// `error`: of an entry, or with a `message` only, of the whole push.
#[derive(Serialize)]
struct ErrorLine<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    side: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    what: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    message: &'a str,
}

/// `summary`, the last line. `null`: there was none.
#[derive(Serialize)]
struct SummaryLine<'a> {
    event: &'static str,
    schema: u32,
    dry_run: bool,
    files_scanned: u64,
    dirs_scanned: u64,
    bytes_scanned: u64,
    bytes_to_send: u64,
    files_sent: u64,
    files_resent: u64,
    dirs_made: u64,
    meta_fixed: u64,
    files_deleted: u64,
    deletes_skipped: u64,
    deletes_stopped: bool,
    specials_skipped: u64,
    literal_bytes: u64,
    matched_bytes: u64,
    signature_bytes: u64,
    wire_sent_bytes: u64,
    wire_received_bytes: u64,
    errors: u64,
    vanished: u64,
    elapsed_s: f64,
    first_payload_s: Option<f64>,
    peak_rss_bytes: u64,
    target_peak_rss_bytes: u64,
    engine: &'a str,
    durability: Option<&'static str>,
    why: Option<&'a str>,
    /// By kind of operation and lane.
    latency: latency::ByKind,
    exit: u8,
}

impl<'a> SummaryLine<'a> {
    fn new(
        ending: &'a Ending,
        elapsed: Duration,
        first_payload: Option<Duration>,
        peak_rss_bytes: u64,
        engine: &'a str,
        dry_run: bool,
        figures: &Figures,
    ) -> Self {
        let totals = &ending.totals;
        Self {
            event: "summary",
            schema: JSON_SCHEMA,
            dry_run,
            files_scanned: totals.files_scanned,
            dirs_scanned: totals.dirs_scanned,
            bytes_scanned: totals.bytes_scanned,
            bytes_to_send: totals.bytes_to_send,
            files_sent: totals.files_sent,
            files_resent: totals.files_resent,
            dirs_made: totals.dirs_made,
            meta_fixed: totals.meta_fixed,
            files_deleted: totals.files_deleted,
            deletes_skipped: totals.deletes_skipped,
            deletes_stopped: totals.deletes_stopped,
            specials_skipped: totals.specials_skipped,
            literal_bytes: totals.literal_bytes,
            matched_bytes: totals.matched_bytes,
            signature_bytes: totals.signature_bytes,
            wire_sent_bytes: totals.wire_sent_bytes,
            wire_received_bytes: totals.wire_received_bytes,
            errors: totals.errors,
            vanished: totals.vanished,
            elapsed_s: elapsed.as_secs_f64(),
            first_payload_s: first_payload.map(|first| first.as_secs_f64()),
            peak_rss_bytes,
            target_peak_rss_bytes: totals.target_peak_rss_bytes,
            engine,
            durability: ending.durability.map(|level| level.name()),
            why: ending.why.as_deref(),
            latency: latency::by_kind(figures),
            exit: ending.exit as u8,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use rustix::io::Errno;
    use serde_json::Value;

    use super::super::args::tests::push;
    use super::super::plan::Plan;
    use super::*;
    use crate::model::policy::Durability;
    use crate::model::report::{Attempt, Trouble, Why};

    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Screen {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn show(options: &[&str], dest: &str) -> Show {
        Plan::new(push(&[options, &["src", dest]].concat()))
            .unwrap()
            .output
    }

    fn output(options: &[&str]) -> (Output, Screen, Screen) {
        let (stdout, stderr) = (Screen::default(), Screen::default());
        let output = Output::to(
            show(options, "h::m"),
            Box::new(stdout.clone()),
            Box::new(stderr.clone()),
        );
        (output, stdout, stderr)
    }

    fn change(kind: Kind, what: What) -> Change {
        Change::new(kind, what)
    }

    fn item(kind: Kind, what: What, path: &[u8]) -> Tell {
        Tell::Item {
            change: change(kind, what),
            path: path.to_vec(),
        }
    }

    fn ending(exit: Exit) -> Ending {
        Ending {
            exit,
            why: None,
            totals: Totals {
                files_scanned: 10,
                files_sent: 4,
                literal_bytes: 2048,
                ..Totals::default()
            },
            durability: Some(Durability::None),
        }
    }

    fn finish(output: &mut Output, exit: Exit) -> Exit {
        let second = Duration::from_secs(1);
        let (first, figures) = (Some(second / 4), Figures::default());
        output.finish(&ending(exit), second, first, 5 << 20, "uring", &figures)
    }

    fn trouble(path: &[u8], errno: Errno) -> Tell {
        Tell::Trouble(Trouble {
            side: Side::Source,
            path: path.to_vec(),
            what: Attempt::Open,
            why: Why::Errno(errno),
        })
    }

    /// What two owners of the terminal see when one push tells this.
    fn tells() -> Vec<Tell> {
        vec![
            item(Kind::Dir, What::Meta, b""),
            item(Kind::File, What::Make, b"a\n"),
            item(Kind::Dir, What::Make, b"d"),
            item(Kind::Symlink, What::Make, b"d/l"),
            item(Kind::File, What::Meta, b"m"),
            Tell::Deleted {
                kind: Kind::File,
                path: b"old/x".to_vec(),
            },
            Tell::Deleted {
                kind: Kind::Dir,
                path: b"old".to_vec(),
            },
        ]
    }

    fn stdout_of(options: &[&str]) -> String {
        let (mut output, stdout, _) = output(options);
        tells().into_iter().for_each(|tell| output.tell(tell));
        output.flush();
        stdout.text()
    }

    #[test]
    fn itemized_lines_are_those_of_rsync() {
        assert_eq!(
            stdout_of(&["-i"]),
            ".d......... ./\n\
             <f+++++++++ a\\x0a\n\
             cd+++++++++ d/\n\
             cL+++++++++ d/l\n\
             .f......... m\n\
             *deleting   old/x\n\
             *deleting   old/\n"
        );
    }

    #[test]
    fn every_property_has_its_column() {
        let full = |kind, what| Change {
            size_differs: true,
            mtime_differs: true,
            mode_differs: true,
            owner_differs: true,
            group_differs: true,
            ..change(kind, what)
        };
        let by_content = Change {
            content_differs: true,
            ..full(Kind::File, What::Update)
        };
        for (change, is_remote, expected) in [
            (full(Kind::File, What::Update), true, "<f.stpog..."),
            (full(Kind::File, What::Update), false, ">f.stpog..."),
            (full(Kind::File, What::Make), false, ">f+++++++++"),
            (by_content, false, ">fcstpog..."),
            (full(Kind::Symlink, What::Update), true, "cLc.tpog..."),
            (full(Kind::BlockDevice, What::Make), true, "cD+++++++++"),
            (full(Kind::Fifo, What::Make), true, "cS+++++++++"),
            (full(Kind::Dir, What::Meta), true, ".d..tpog..."),
            (
                Change {
                    mode_differs: true,
                    ..change(Kind::File, What::Meta)
                },
                true,
                ".f...p.....",
            ),
        ] {
            assert_eq!(itemized(change, is_remote), expected);
        }
    }

    #[test]
    fn verbose_names_what_rsync_names() {
        assert_eq!(
            stdout_of(&["-v"]),
            "./\na\\x0a\nd/\nd/l\ndeleting old/x\ndeleting old/\n"
        );
        assert_eq!(stdout_of(&[]), "");
        assert_eq!(stdout_of(&["-q", "-v", "-i"]), "");
        assert_eq!(stdout_of(&["-n"]), stdout_of(&["-i"]));
    }

    #[test]
    fn items_are_wanted_only_where_they_are_shown() {
        for (options, wanted) in [
            (&[][..], false),
            (&["-v"], true),
            (&["-n"], true),
            (&["--json"], true),
            (&["--json", "-q"], false),
        ] {
            assert_eq!(output(options).0.wants_items(), wanted, "{options:?}");
        }
    }

    #[test]
    fn json_is_one_event_a_line_and_the_summary_comes_last() {
        let (mut output, stdout, stderr) = output(&["--json"]);
        output.tell(item(Kind::File, What::Make, b"a\xff"));
        output.tell(item(
            Kind::Dir,
            What::Make,
            "ä\n\u{9b}2J\u{202e}".as_bytes(),
        ));
        output.tell(Tell::Deleted {
            kind: Kind::File,
            path: b"x".to_vec(),
        });
        output.tell(trouble(b"s/y", Errno::ACCESS));
        assert_eq!(finish(&mut output, Exit::Partial), Exit::Partial);
        let text = stdout.text();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[0]["path"], "a\\xff");
        assert_eq!(lines[0]["path_hex"], "61ff");
        assert_eq!(lines[0]["itemized"], "<f+++++++++");
        assert_eq!(lines[1]["path"], "ä\n\u{9b}2J\u{202e}");
        assert!(
            !text.contains(['\u{9b}', '\u{202e}']),
            "nothing for a terminal to obey"
        );
        assert_eq!(lines[1].get("path_hex"), None);
        assert_eq!(lines[2]["event"], "deleted");
        assert_eq!(lines[3]["why"], "EACCES");
        let last = &lines[4];
        assert!(
            text.lines()
                .last()
                .unwrap()
                .starts_with(r#"{"event":"summary","schema":1,"#)
        );
        assert_eq!(last["files_sent"], 4);
        assert_eq!(last["first_payload_s"], 0.25);
        assert_eq!(last["durability"], "none");
        assert_eq!(last["exit"], 23);
        assert!(stderr.text().starts_with("sy: s/y: cannot open: "));
    }

    #[test]
    fn a_closed_stdout_stops_the_lines_and_not_the_push() {
        let stderr = Screen::default();
        let show = show(&["-v"], "h::m");
        let mut output = Output::to(show, Box::new(Closed), Box::new(stderr.clone()));
        for _ in 0..10_000 {
            output.tell(item(
                Kind::File,
                What::Make,
                b"a rather long name of a file",
            ));
        }
        assert_eq!(finish(&mut output, Exit::Ok), Exit::Ok);
        assert_eq!(stderr.text(), "");
    }

    #[test]
    fn a_hint_is_given_once_however_many_entries_fail() {
        let (mut output, _, stderr) = output(&["-q"]);
        for path in [b"a", b"b", b"c"] {
            output.tell(trouble(path, Errno::ACCESS));
        }
        finish(&mut output, Exit::Partial);
        let text = stderr.text();
        assert_eq!(text.matches("cannot open").count(), 3);
        assert_eq!(text.matches("  try:").count(), 1);
        assert!(text.ends_with("(exit code 23)\n"));
    }

    #[test]
    fn a_failure_is_told_once() {
        let (mut output, stdout, stderr) = output(&["-q"]);
        let errno = Errno::CONNREFUSED;
        let exit = output.failure("sy://h:1", &Failure::Connect { errno });
        output.finish(
            &ending(exit),
            Duration::ZERO,
            None,
            0,
            "uring",
            &Figures::default(),
        );
        let text = stderr.text();
        assert!(
            text.starts_with("sy: sy://h:1: cannot connect: Connection refused (ECONNREFUSED)\n")
        );
        assert_eq!(text.matches("sy: ").count(), 1, "{text}");
        assert_eq!(stdout.text(), "");
    }

    #[test]
    fn success_is_silent_unless_asked() {
        let (mut output, stdout, stderr) = output(&[]);
        finish(&mut output, Exit::Ok);
        assert_eq!(
            (stdout.text(), stderr.text()),
            (String::new(), String::new())
        );
    }

    #[test]
    fn verbose_sums_up_and_stats_shows_the_table() {
        let (mut output, stdout, _) = output(&["-v", "--stats"]);
        finish(&mut output, Exit::Ok);
        let text = stdout.text();
        assert!(text.contains("\nLiteral data: 2048 bytes\n"));
        assert!(text.contains("\nTime to first payload: 0.250 seconds\n"));
        assert!(text.ends_with(
            "\n4 of 10 files sent, 0 deleted, 2.00 KiB new, 0 B reused, no failures in 1.00 s\n"
        ));
    }

    #[test]
    fn what_was_deleted_is_not_told_of_a_push_that_did_not_finish() {
        let (mut output, stdout, _) = output(&["-v"]);
        finish(&mut output, Exit::Signal);
        assert_eq!(
            stdout.text(),
            "not finished: 4 of 10 files under way or sent in 1.00 s (exit code 20)\n"
        );
    }

    #[test]
    fn a_dry_run_tells_how_much_would_travel_at_most() {
        let (mut output, stdout, _) = output(&["-n", "-v"]);
        finish(&mut output, Exit::Ok);
        let text = stdout.text();
        assert!(text.contains("4 of 10 files to send, "), "{text}");
        assert!(
            text.contains(" at most, 0 to delete, no failures in 1.00 s (dry run)"),
            "{text}"
        );
    }
}
