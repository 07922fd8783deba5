//! `Progress`: the progress line on stderr. It draws nothing of its own accord: no thread, no timer.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::plan::ShowProgress;
use crate::limits::{PROGRESS_LINE_PAUSE_MS, PROGRESS_PAUSE_MS};
use crate::model::report::Totals;

/// Draws at most every `limits::PROGRESS_PAUSE_MS`; a call in between reads the clock and returns.
#[derive(Debug)]
pub struct Progress {
    face: Face,
    drawn: Option<Instant>,
    speed: Speed,
}

#[derive(Debug)]
enum Face {
    Off,
    /// One line, drawn over and over.
    Bar(ProgressBar),
    /// A line each time, for a stderr that is no terminal.
    Lines,
}

impl Progress {
    pub fn new(wish: ShowProgress) -> Self {
        let is_terminal = io::stderr().is_terminal();
        Self::with(match (wish, is_terminal) {
            (ShowProgress::Off, _) | (ShowProgress::Auto, false) => Face::Off,
            (ShowProgress::On, false) => Face::Lines,
            (ShowProgress::On | ShowProgress::Auto, true) => {
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
                let style = ProgressStyle::with_template("{wide_msg}");
                bar.set_style(style.expect("the template is a constant"));
                Face::Bar(bar)
            }
        })
    }

    pub fn off() -> Self {
        Self::with(Face::Off)
    }

    fn with(face: Face) -> Self {
        Self {
            face,
            drawn: None,
            speed: Speed::default(),
        }
    }

    /// Whether it has a line on the screen that others must not write into.
    pub fn is_on_screen(&self) -> bool {
        matches!(self.face, Face::Bar(_)) && self.drawn.is_some()
    }

    /// Whether enough time has gone by for `show` to draw.
    pub fn is_due(&self, now: Instant) -> bool {
        let pause = match self.face {
            Face::Off => return false,
            Face::Bar(_) => PROGRESS_PAUSE_MS,
            Face::Lines => PROGRESS_LINE_PAUSE_MS,
        };
        self.drawn
            .is_none_or(|drawn| now.duration_since(drawn) >= Duration::from_millis(pause))
    }

    /// Draws, if it is due. `stderr` takes the lines where there is no terminal.
    pub fn show(&mut self, totals: &Totals, scan_done: bool, now: Instant, stderr: &mut dyn Write) {
        if !self.is_due(now) {
            return;
        }
        self.drawn = Some(now);
        let done = totals.literal_bytes + totals.matched_bytes;
        let rate = self.speed.feed(done, now);
        let line = line(totals, scan_done, rate);
        match &self.face {
            Face::Off => {}
            Face::Bar(bar) => bar.set_message(line),
            // Progress is a courtesy: a closed stderr is no reason to stop.
            Face::Lines => drop(writeln!(stderr, "{line}")),
        }
    }

    /// Runs `write` while the line is out of the way.
    pub fn aside<R>(&self, write: impl FnOnce() -> R) -> R {
        match &self.face {
            Face::Bar(bar) if self.drawn.is_some() => bar.suspend(write),
            Face::Bar(_) | Face::Off | Face::Lines => write(),
        }
    }

    /// Takes the line from the screen for good; where there is no screen, says how it ended, if it
    /// said anything before.
    pub fn finish(&mut self, totals: &Totals, now: Instant, stderr: &mut dyn Write) {
        match &self.face {
            Face::Off => {}
            Face::Bar(bar) => bar.finish_and_clear(),
            Face::Lines if self.drawn.is_none() => {}
            Face::Lines => {
                self.drawn = None;
                self.show(totals, true, now, stderr);
            }
        }
        self.face = Face::Off;
    }
}

fn line(totals: &Totals, scan_done: bool, rate: u64) -> String {
    let done = totals.literal_bytes + totals.matched_bytes;
    let goal = totals.bytes_to_send.max(done);
    let mut line = format!("{}", BinaryBytes(done));
    if scan_done && goal > 0 {
        let percent = u128::from(done) * 100 / u128::from(goal);
        line += &format!(" of {} ({percent}%)", BinaryBytes(goal));
    }
    let more = if scan_done { "" } else { "+" };
    line += &format!(
        ", {} sent of {}{more} files, {}/s",
        totals.files_sent,
        totals.files_scanned,
        BinaryBytes(rate)
    );
    if scan_done && goal > done && rate > 0 {
        let left = Duration::from_secs((goal - done).div_ceil(rate));
        line += &format!(", {:#} left", HumanDuration(left));
    }
    if totals.errors > 0 {
        line += &format!(", {} failed", totals.errors);
    }
    line
}

/// Bytes per second, over the last few seconds.
#[derive(Debug, Default)]
struct Speed {
    /// When it was fed last, and the bytes then.
    last: Option<(Instant, u64)>,
    bytes_per_second: f64,
}

/// Seconds after which an older speed counts for about a third.
const SPEED_MEMORY_SECONDS: f64 = 3.0;

impl Speed {
    fn feed(&mut self, bytes: u64, now: Instant) -> u64 {
        if let Some((then, before)) = self.last {
            let seconds = now.duration_since(then).as_secs_f64();
            if seconds > 0.0 {
                let fresh = bytes.saturating_sub(before) as f64 / seconds;
                let keep = (-seconds / SPEED_MEMORY_SECONDS).exp();
                self.bytes_per_second = match self.bytes_per_second {
                    0.0 => fresh,
                    old => old * keep + fresh * (1.0 - keep),
                };
            }
        }
        self.last = Some((now, bytes));
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a float's cast to u64 saturates"
        )]
        #[expect(clippy::cast_sign_loss, reason = "sums of what is not negative")]
        let rate = self.bytes_per_second as u64;
        rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals() -> Totals {
        Totals {
            files_scanned: 10,
            files_sent: 4,
            bytes_to_send: 4096,
            literal_bytes: 512,
            matched_bytes: 512,
            ..Totals::default()
        }
    }

    #[test]
    fn the_time_left_is_told_only_when_the_scan_is_done() {
        assert_eq!(
            line(&totals(), false, 1024),
            "1.00 KiB, 4 sent of 10+ files, 1.00 KiB/s"
        );
        assert_eq!(
            line(&totals(), true, 1024),
            "1.00 KiB of 4.00 KiB (25%), 4 sent of 10 files, 1.00 KiB/s, 3s left"
        );
    }

    #[test]
    fn a_goal_that_nobody_counted_gives_no_nonsense() {
        let mut totals = totals();
        totals.bytes_to_send = 0;
        totals.errors = 2;
        assert_eq!(
            line(&totals, true, 1),
            "1.00 KiB of 1.00 KiB (100%), 4 sent of 10 files, 1 B/s, 2 failed"
        );
        assert_eq!(
            line(&Totals::default(), true, 0),
            "0 B, 0 sent of 0 files, 0 B/s"
        );
    }

    #[test]
    fn lines_come_at_most_once_a_pause() {
        let mut progress = Progress::with(Face::Lines);
        let mut stderr = Vec::new();
        let start = Instant::now();
        for step in 0..20 {
            let now = start + Duration::from_millis(step * PROGRESS_LINE_PAUSE_MS / 10);
            progress.show(&totals(), false, now, &mut stderr);
        }
        assert_eq!(stderr.split(|byte| *byte == b'\n').count() - 1, 2);
        let mut last = Vec::new();
        let mut totals = totals();
        totals.literal_bytes = 3584;
        progress.finish(&totals, start, &mut last);
        let last = String::from_utf8(last).unwrap();
        assert!(last.starts_with("4.00 KiB of 4.00 KiB (100%)"), "{last}");
    }

    #[test]
    fn progress_that_is_off_is_never_due() {
        assert!(!Progress::off().is_due(Instant::now()));
        assert!(!Progress::off().is_on_screen());
    }

    #[test]
    fn the_speed_follows_the_bytes() {
        let mut speed = Speed::default();
        let start = Instant::now();
        assert_eq!(speed.feed(0, start), 0);
        let mut rate = 0;
        for second in 1..30 {
            rate = speed.feed(second * 1000, start + Duration::from_secs(second));
        }
        assert!((999..=1001).contains(&rate), "{rate}");
        for second in 30..60 {
            rate = speed.feed(29_000, start + Duration::from_secs(second));
        }
        assert!(rate < 10, "{rate}");
    }
}
