//! `Log`: what a server tells its operator, one line each on stderr.
//!
//! A line is `sy-server: WHAT key=value ...`. Values are single words, escaped by `escape::word`,
//! so lines can be split at spaces and no peer can write a line of its own. Paths of users are not
//! logged, module names are.

use std::fmt;
use std::io::{self, Write};
use std::sync::Mutex;
use std::time::Duration;

use rustix::io::Errno;

use crate::engine::figures::Figures;
use crate::engine::probe;
use crate::engine::setup::SetupError;
use crate::limits::{LOG_REFUSED_BURST_COUNT, LOG_REFUSED_PAUSE_SECONDS};
use crate::model::escape;
use crate::model::id::SessionId;
use crate::model::policy::Durability;
use crate::model::report::{Exit, Totals};
use crate::model::time::Moment;

/// Shared by all shards; each line is one write.
pub struct Log {
    lines: Mutex<Lines>,
}

struct Lines {
    to: Box<dyn Write + Send>,
    refused: Patience,
    not_accepted: Patience,
}

/// A session that ended.
#[derive(Clone, Copy, Debug)]
pub struct SessionLine<'a> {
    /// The source's own number.
    pub session: SessionId,
    /// The number in the names of our files, where there can be some.
    pub files: Option<SessionId>,
    /// `127.0.0.1:1234`, or `unix:uid=0,pid=7`.
    pub peer: &'a str,
    pub module: &'a [u8],
    pub totals: &'a Totals,
    pub dry_run: bool,
    /// What was reached; `None` when the session did not get to its report.
    pub durability: Option<Durability>,
    pub exit: Exit,
    /// Why it ended badly.
    pub why: Option<&'a str>,
    pub elapsed: Duration,
}

impl Default for Log {
    fn default() -> Self {
        Self::new()
    }
}

impl Log {
    pub fn new() -> Self {
        Self::to(Box::new(io::stderr()))
    }

    pub fn to(to: Box<dyn Write + Send>) -> Self {
        Self {
            lines: Mutex::new(Lines {
                to,
                refused: Patience::default(),
                not_accepted: Patience::default(),
            }),
        }
    }

    pub fn session(&self, line: &SessionLine<'_>) {
        self.with(|lines| lines.write(format_args!("{line}")));
    }

    /// A connection that did not become a session; after a burst, some are only counted.
    pub fn refused(&self, peer: &str, why: &str, now: Moment) {
        self.with(|lines| {
            let Some(silent) = lines.refused.admit(now) else {
                return;
            };
            let (peer, why) = (escape::word(peer.as_bytes()), escape::word(why.as_bytes()));
            lines.write(format_args!(
                "refused peer={peer} why={why}{}",
                NotLogged(silent)
            ));
        });
    }

    /// A connection that the kernel did not hand over, with what to try; slows down as `refused`.
    pub fn not_accepted(&self, why: &io::Error, now: Moment) {
        let hint = match Errno::from_io_error(why) {
            Some(Errno::MFILE) => "\n  try: raise the limit of open files (LimitNOFILE=)",
            Some(Errno::NFILE) => "\n  try: raise the host's limit of open files (fs.file-max)",
            _ => "",
        };
        self.with(|lines| {
            if let Some(silent) = lines.not_accepted.admit(now) {
                let silent = NotLogged(silent);
                lines.write(format_args!("cannot accept: {why}{silent}{hint}"));
            }
        });
    }

    /// How long the operations of all shards took, one line per kind and lane; nothing where there
    /// were none.
    pub fn figures(&self, figures: &Figures) {
        self.with(|lines| {
            for row in figures.rows() {
                lines.write(format_args!(
                    "latency of={} lane={} count={} p50_us={} p90_us={} p99_us={} max_us={}",
                    row.what,
                    row.lane,
                    row.count,
                    row.p50.as_micros(),
                    row.p90.as_micros(),
                    row.p99.as_micros(),
                    row.max.as_micros(),
                ));
            }
        });
    }

    /// Something an operator should read, with what to try: `sy-server: WHAT: what: why`.
    pub fn say(&self, text: fmt::Arguments<'_>, hint: Option<&str>) {
        self.with(|lines| match hint {
            Some(hint) => lines.write(format_args!("{text}\n  try: {hint}")),
            None => lines.write(text),
        });
    }

    /// The ring was left open, and there is none.
    pub fn portable(&self, refused: SetupError) {
        let hint = probe::advice(refused).map(|advice| advice.to_string());
        let line = probe::portable_line(refused);
        self.say(format_args!("{line}"), hint.as_deref());
    }

    fn with(&self, act: impl FnOnce(&mut Lines)) {
        // A shard that panicked in here left whole lines behind.
        act(&mut self.lines.lock().unwrap_or_else(|held| held.into_inner()));
    }
}

impl Lines {
    fn write(&mut self, text: fmt::Arguments<'_>) {
        let line = format!("sy-server: {text}\n");
        // Nobody is left to be told that the log can't be written.
        drop(self.to.write_all(line.as_bytes()));
    }
}

impl fmt::Display for SessionLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let totals = self.totals;
        write!(
            f,
            "session {} peer={} module={} files={} deleted={} literal_bytes={} matched_bytes={} \
             received_bytes={} sent_bytes={} errors={} durability={} exit={} ms={}",
            self.session,
            escape::word(self.peer.as_bytes()),
            escape::word(self.module),
            totals.files_sent,
            totals.files_deleted,
            totals.literal_bytes,
            totals.matched_bytes,
            totals.wire_received_bytes,
            totals.wire_sent_bytes,
            totals.errors,
            self.durability.map_or("-", Durability::name),
            self.exit as u8,
            self.elapsed.as_millis(),
        )?;
        if let Some(files) = self.files {
            write!(f, " temp=.sy.{files}")?;
        }
        if self.dry_run {
            write!(f, " dry_run=yes")?;
        }
        match self.why {
            Some(why) => write!(f, " why={}", escape::word(why.as_bytes())),
            None => Ok(()),
        }
    }
}

/// The end of a line, where lines before it were not written.
struct NotLogged(u64);

impl fmt::Display for NotLogged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " more_not_logged={count}"),
        }
    }
}

/// Lets a burst through, then one line per pause.
#[derive(Default)]
struct Patience {
    /// Lines of the burst that were spent; each pause gives one back.
    spent: u64,
    since: Moment,
    silent: u64,
}

impl Patience {
    /// Whether to write, and how many were kept silent since the last line.
    fn admit(&mut self, now: Moment) -> Option<u64> {
        let pause = Duration::from_secs(LOG_REFUSED_PAUSE_SECONDS);
        if self.spent == 0 {
            self.since = now;
        }
        while self.spent > 0 && now.since(self.since) >= pause {
            self.spent -= 1;
            self.since = self.since.plus(pause);
        }
        if self.spent >= LOG_REFUSED_BURST_COUNT {
            self.silent += 1;
            return None;
        }
        self.spent += 1;
        Some(std::mem::take(&mut self.silent))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Paper {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log() -> (Log, Paper) {
        let paper = Paper::default();
        (Log::to(Box::new(paper.clone())), paper)
    }

    fn at(milliseconds: u64) -> Moment {
        Moment(milliseconds * 1_000_000)
    }

    #[test]
    fn a_session_is_one_line_of_words() {
        let (log, paper) = log();
        let totals = Totals {
            files_sent: 10,
            literal_bytes: 4096,
            ..Totals::default()
        };
        log.session(&SessionLine {
            session: SessionId(0x0123),
            files: Some(SessionId(0xabc)),
            peer: "127.0.0.1:1234",
            module: b"a b\nsy-server: forged",
            totals: &totals,
            dry_run: false,
            durability: Some(Durability::None),
            exit: Exit::Socket,
            why: Some("connection lost"),
            elapsed: Duration::from_millis(1234),
        });
        assert_eq!(
            paper.text(),
            "sy-server: session 0000000000000123 peer=127.0.0.1:1234 \
             module=a\\x20b\\x0asy-server:\\x20forged files=10 deleted=0 literal_bytes=4096 \
             matched_bytes=0 received_bytes=0 sent_bytes=0 errors=0 durability=none exit=10 \
             ms=1234 temp=.sy.0000000000000abc why=connection\\x20lost\n"
        );
    }

    #[test]
    fn refused_connections_slow_down_after_a_burst_and_none_is_forgotten() {
        let (log, paper) = log();
        for _ in 0..LOG_REFUSED_BURST_COUNT + 5 {
            log.refused("p", "busy", at(0));
        }
        let count = |paper: &Paper| paper.text().lines().count() as u64;
        assert_eq!(count(&paper), LOG_REFUSED_BURST_COUNT);
        log.refused("p", "busy", at(LOG_REFUSED_PAUSE_SECONDS * 1000 - 1));
        assert_eq!(count(&paper), LOG_REFUSED_BURST_COUNT);
        log.refused("p", "busy", at(LOG_REFUSED_PAUSE_SECONDS * 1000));
        assert!(paper.text().ends_with("why=busy more_not_logged=6\n"));
        let quiet_again = at(LOG_REFUSED_PAUSE_SECONDS * 1000 * 1000);
        for _ in 0..LOG_REFUSED_BURST_COUNT {
            log.refused("p", "busy", quiet_again);
        }
        assert_eq!(count(&paper), 2 * LOG_REFUSED_BURST_COUNT + 1);
    }

    #[test]
    fn a_server_out_of_descriptors_says_so_and_does_not_fill_its_log() {
        let (log, paper) = log();
        let full = io::Error::from(Errno::MFILE);
        // Refused connections have a patience of their own.
        log.refused("p", "busy", at(0));
        for _ in 0..10 * LOG_REFUSED_BURST_COUNT {
            log.not_accepted(&full, at(0));
        }
        let lines = paper.text().lines().count() as u64;
        assert_eq!(lines, 1 + 2 * LOG_REFUSED_BURST_COUNT);
        log.not_accepted(&full, at(LOG_REFUSED_PAUSE_SECONDS * 1000));
        let not_logged = 9 * LOG_REFUSED_BURST_COUNT;
        assert!(paper.text().ends_with(&format!(
            "more_not_logged={not_logged}\n  try: raise the limit of open files (LimitNOFILE=)\n"
        )));
        let aborted = io::Error::from(Errno::PERM);
        log.not_accepted(&aborted, at(LOG_REFUSED_PAUSE_SECONDS * 1000 * 1000));
        assert!(!paper.text().ends_with("(LimitNOFILE=)\n"));
    }

    #[test]
    fn a_hint_stands_below_its_line() {
        let (log, paper) = log();
        log.say(
            format_args!("/s: cannot listen: {}", "busy"),
            Some("another"),
        );
        assert_eq!(
            paper.text(),
            "sy-server: /s: cannot listen: busy\n  try: another\n"
        );
    }
}
