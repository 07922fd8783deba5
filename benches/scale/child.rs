//! Clients: started, watched until they end, and never left behind.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::daemon::Daemon;
use super::failure::{Doing, Failure, Result};
use super::first_file::FirstFile;
use super::latencies::Latencies;
use super::procfs::{Family, Usage};
use super::stop::Stop;

/// Between two looks at the processes. A look takes some 40 us a process, up to 2 % of one core.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The same while the first file is waited for: the resolution of that figure.
const FIRST_FILE_EVERY: Duration = Duration::from_micros(500);
/// How often a signal is looked for while many clients run.
const ALL_LOOK_EVERY: Duration = Duration::from_millis(200);
/// From one start in a line to the next, unless the one before takes longer: the huge push has as many
/// beside it whoever makes them. rsync takes some 0.1 s for the smallest push.
const LINE_EVERY: Duration = Duration::from_millis(100);
const POLITE: Duration = Duration::from_secs(10);

pub struct Ended {
    /// Until the exit, or until the first file where that was waited for.
    pub elapsed: Duration,
    pub usage: Usage,
    /// None when it was stopped at the first file.
    pub status: Option<ExitStatus>,
}

/// Clients that were started together.
pub struct AllEnded {
    /// From before the first start until the last exit.
    pub elapsed: Duration,
    /// The longest from a client's own start to its own exit.
    pub slowest: Duration,
    /// Of all together; peaks are not looked at, so that nothing disturbs them.
    pub usage: Usage,
    /// Who did not end well.
    pub failed: Option<(usize, ExitStatus)>,
}

/// Clients that were started one after the other.
pub struct LineEnded {
    /// Until the last exit.
    pub elapsed: Duration,
    /// Of each client of the line, from its own start to its own exit.
    pub latencies: Latencies,
    /// Of the one beside them.
    pub huge: Option<Duration>,
    /// Of all together, without peaks.
    pub usage: Usage,
    /// Who ended it, and not well.
    pub failed: Option<(InLine, ExitStatus)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InLine {
    OneOfMany,
    Huge,
}

/// Runs `command` to its end, or to the first file on the target if `first` waits for one.
pub fn run(
    command: &mut Command,
    daemon: Option<&mut Daemon>,
    mut first: Option<FirstFile>,
    timeout: Duration,
    stop: &Stop,
) -> Result<Ended> {
    let doing = format!("{command:?}");
    let before = Reaped::now()?;
    let begin = Instant::now();
    let mut leash = Leash::spawn(command).doing(|| doing.clone())?;
    let pidfd = pidfd_open(leash.pid(), PidfdFlags::empty()).doing(|| doing.clone())?;
    let mut family = Family::of(leash.child.id());
    let mut server = daemon.map(|daemon| &mut daemon.family);
    let every = if first.is_some() {
        FIRST_FILE_EVERY
    } else {
        LOOK_EVERY
    };
    let every = Timespec::try_from(every).expect("a few milliseconds fit");

    let mut next_look = begin;
    let elapsed = loop {
        let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&every));
        let now = Instant::now();
        match ended {
            Ok(1..) => break now - begin,
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).doing(|| doing.clone()),
        }
        if first.as_mut().is_some_and(FirstFile::look) {
            break begin.elapsed();
        }
        if now >= next_look {
            next_look = now + LOOK_EVERY;
            family.look();
            if let Some(server) = &mut server {
                server.look();
            }
        }
        stop.check()?;
        if now - begin > timeout {
            return Err(Failure::Tool(format!(
                "{doing}: not done after {} s",
                timeout.as_secs()
            )));
        }
    };
    let status = match first {
        Some(_) if !leash.has_ended().doing(|| doing.clone())? => {
            leash.end().doing(|| doing.clone())?;
            None
        }
        _ => Some(leash.reap().doing(|| doing.clone())?),
    };
    let mut usage = Reaped::now()?.since(&before);
    usage.peak_rss_bytes = family.peak_rss_bytes();
    Ok(Ended {
        elapsed,
        usage,
        status,
    })
}

/// Runs all `commands` at once.
pub fn run_all(commands: &mut [Command], timeout: Duration, stop: &Stop) -> Result<AllEnded> {
    let doing = format!("{} clients at once", commands.len());
    let before = Reaped::now()?;
    let begin = Instant::now();
    let mut running = Vec::with_capacity(commands.len());
    for (index, command) in commands.iter_mut().enumerate() {
        running.push((index, Running::spawn(command)?));
    }
    let (mut elapsed, mut slowest, mut failed) = (Duration::ZERO, Duration::ZERO, None);
    while !running.is_empty() {
        let ended = Running::wait(running.iter().map(|(_, one)| one), ALL_LOOK_EVERY)?;
        let now = Instant::now();
        // From behind: what takes a removed one's place has been looked at.
        for place in (0..ended.len()).rev().filter(|place| ended[*place]) {
            let (index, mut one) = running.swap_remove(place);
            elapsed = elapsed.max(now - begin);
            slowest = slowest.max(now - one.begin);
            let status = one.leash.reap().doing(|| doing.clone())?;
            if !status.success() {
                failed = Some((index, status));
            }
        }
        stop.check()?;
        if now - begin > timeout {
            return Err(Failure::Tool(format!(
                "{doing}: not done after {} s",
                timeout.as_secs()
            )));
        }
    }
    Ok(AllEnded {
        elapsed,
        slowest,
        usage: Reaped::now()?.since(&before),
        failed,
    })
}

/// Runs up to `len` clients one after the other, `LINE_EVERY` apart, and a huge one beside them: with it
/// nobody is started after its end, and the last one may have been without it for a part of its time.
pub fn run_line(
    mut next: impl FnMut(u32) -> Result<Command>,
    len: u32,
    huge: Option<&mut Command>,
    timeout: Duration,
    stop: &Stop,
) -> Result<LineEnded> {
    let doing = || "clients one after the other".into();
    let before = Reaped::now()?;
    let begin = Instant::now();
    let is_beside = huge.is_some();
    let mut huge = huge.map(Running::spawn).transpose()?;
    let mut one: Option<Running> = None;
    let mut started = 0;
    let mut next_start = begin;
    let mut ended = LineEnded {
        elapsed: Duration::ZERO,
        latencies: Latencies::new(),
        huge: None,
        usage: Usage::default(),
        failed: None,
    };
    while ended.failed.is_none() {
        let goes_on = started < len && (huge.is_some() || !is_beside);
        if one.is_none() && goes_on && Instant::now() >= next_start {
            next_start = Instant::now() + LINE_EVERY;
            one = Some(Running::spawn(&mut next(started)?)?);
            started += 1;
        }
        if one.is_none() && huge.is_none() && !goes_on {
            break;
        }
        let patience = match one.is_none() && goes_on {
            true => next_start.saturating_duration_since(Instant::now()),
            false => ALL_LOOK_EVERY,
        };
        let waited = [&one, &huge].into_iter().flatten();
        let mut ends = Running::wait(waited, patience)?.into_iter();
        let now = Instant::now();
        for (who, slot) in [(InLine::OneOfMany, &mut one), (InLine::Huge, &mut huge)] {
            let has_ended = slot.is_some() && ends.next() == Some(true);
            let Some(mut running) = slot.take_if(|_| has_ended) else {
                continue;
            };
            let took = now - running.begin;
            match who {
                InLine::OneOfMany => ended.latencies.record(took),
                InLine::Huge => ended.huge = Some(took),
            }
            ended.elapsed = now - begin;
            let status = running.leash.reap().doing(doing)?;
            if !status.success() {
                ended.failed = Some((who, status));
            }
        }
        stop.check()?;
        if now - begin > timeout {
            return Err(Failure::Tool(format!(
                "{}: not done after {} s",
                doing(),
                timeout.as_secs()
            )));
        }
    }
    ended.usage = Reaped::now()?.since(&before);
    Ok(ended)
}

/// One of several clients under way.
struct Running {
    begin: Instant,
    leash: Leash,
    pidfd: OwnedFd,
}

impl Running {
    fn spawn(command: &mut Command) -> Result<Self> {
        let begin = Instant::now();
        let leash = Leash::spawn(command).doing(|| format!("{command:?}"))?;
        let pidfd =
            pidfd_open(leash.pid(), PidfdFlags::empty()).doing(|| format!("{command:?}"))?;
        Ok(Self {
            begin,
            leash,
            pidfd,
        })
    }

    /// Who of them has ended, once one has, or `patience` is over.
    fn wait<'a>(them: impl Iterator<Item = &'a Self>, patience: Duration) -> Result<Vec<bool>> {
        let patience = Timespec::try_from(patience).expect("a fraction of a second fits");
        let mut ends: Vec<_> = them
            .map(|one| PollFd::new(&one.pidfd, PollFlags::IN))
            .collect();
        match poll(&mut ends, Some(&patience)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).doing(|| "waiting for clients".into()),
        }
        Ok(ends.iter().map(|end| !end.revents().is_empty()).collect())
    }
}

/// What the kernel has added up for children that were waited for. The bench reaps those of one run
/// before it starts another, so a difference is one run's, its children's own children included.
struct Reaped {
    cpu: Duration,
    voluntary: u64,
    involuntary: u64,
}

impl Reaped {
    fn now() -> Result<Self> {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).doing(|| "getrusage".into())?;
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        let count = |count| u64::try_from(count).unwrap_or(0);
        Ok(Self {
            cpu: Duration::from_micros(u64::try_from(micros).unwrap_or(0)),
            voluntary: count(usage.voluntary_context_switches()),
            involuntary: count(usage.involuntary_context_switches()),
        })
    }

    fn since(&self, before: &Self) -> Usage {
        Usage {
            cpu: self.cpu.saturating_sub(before.cpu),
            voluntary: self.voluntary - before.voluntary,
            involuntary: self.involuntary - before.involuntary,
            peak_rss_bytes: 0,
        }
    }
}

/// A child in a process group of its own, which ends with this value. In a group of its own it does
/// not hear the terminal's ctrl-c: the bench does, and lets go of the leash.
pub struct Leash {
    child: Child,
    reaped: bool,
}

impl Leash {
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        use std::os::unix::process::CommandExt;
        Ok(Self {
            child: command.process_group(0).spawn()?,
            reaped: false,
        })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn has_ended(&mut self) -> io::Result<bool> {
        let ended = self.child.try_wait()?.is_some();
        self.reaped |= ended;
        Ok(ended)
    }

    /// Asks it to end, and makes it end if it doesn't.
    pub fn end(&mut self) -> io::Result<()> {
        if self.reaped {
            return Ok(());
        }
        let group = self.pid();
        let _ = kill_process_group(group, Signal::TERM);
        let deadline = Instant::now() + POLITE;
        while !self.has_ended()? {
            if Instant::now() > deadline {
                let _ = kill_process_group(group, Signal::KILL);
                return self.reap().map(drop);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn reap(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait()?;
        self.reaped = true;
        Ok(status)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
