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
use super::procfs::{Family, Usage};
use super::stop::Stop;

/// Between two looks at the processes. A look takes some 40 us a process, up to 2 % of one core.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The same while the first file is waited for: the resolution of that figure.
const FIRST_FILE_EVERY: Duration = Duration::from_micros(500);
/// How often a signal is looked for while many clients run.
const ALL_LOOK_EVERY: Duration = Duration::from_millis(200);
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
    struct Running {
        index: usize,
        begin: Instant,
        leash: Leash,
        pidfd: OwnedFd,
    }
    let doing = format!("{} clients at once", commands.len());
    let before = Reaped::now()?;
    let begin = Instant::now();
    let mut running = Vec::with_capacity(commands.len());
    for (index, command) in commands.iter_mut().enumerate() {
        let begin = Instant::now();
        let leash = Leash::spawn(command).doing(|| doing.clone())?;
        let pidfd = pidfd_open(leash.pid(), PidfdFlags::empty()).doing(|| doing.clone())?;
        running.push(Running {
            index,
            begin,
            leash,
            pidfd,
        });
    }
    let every = Timespec::try_from(ALL_LOOK_EVERY).expect("a fraction of a second fits");
    let (mut elapsed, mut slowest, mut failed) = (Duration::ZERO, Duration::ZERO, None);
    while !running.is_empty() {
        let mut ends: Vec<_> = running
            .iter()
            .map(|one| PollFd::new(&one.pidfd, PollFlags::IN))
            .collect();
        match poll(&mut ends, Some(&every)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).doing(|| doing.clone()),
        }
        let now = Instant::now();
        let ended: Vec<bool> = ends.iter().map(|end| !end.revents().is_empty()).collect();
        // From behind: what takes a removed one's place has been looked at.
        for place in (0..ended.len()).rev().filter(|place| ended[*place]) {
            let mut one = running.swap_remove(place);
            elapsed = elapsed.max(now - begin);
            slowest = slowest.max(now - one.begin);
            let status = one.leash.reap().doing(|| doing.clone())?;
            if !status.success() {
                failed = Some((one.index, status));
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
