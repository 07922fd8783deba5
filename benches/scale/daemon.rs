//! One server on a loopback port, resident for a whole row: `sy-server`, rsync's daemon, the floor, or an sshd that
//! starts what a client's remote shell asks for.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::child::Leash;
use super::failure::{Doing, Failure, Result};
use super::ground::Ground;
use super::procfs::{self, Family, Usage};
use super::ssh::{self, Ssh};
use super::stop::Stop;
use super::tool::{self, Tool};

const START_MAX: Duration = Duration::from_secs(10);
const QUIET_MAX: Duration = Duration::from_secs(20);
const QUIET_LOOK: Duration = Duration::from_millis(30);

pub struct Daemon {
    leash: Leash,
    pub address: SocketAddr,
    /// The way in, to an sshd.
    pub ssh: Option<Ssh>,
    /// Looked at by whoever watches the client.
    pub family: Family,
    before: Before,
}

/// What the server had used when a run began.
#[derive(Default)]
struct Before {
    cpu: Duration,
    switches: (u64, u64),
}

impl Daemon {
    /// A server of the tool's own.
    pub fn of(tool: Tool, name: &str, ground: &Ground, stop: &Stop) -> Result<Self> {
        let address = free_address()?;
        let command = tool::server(tool, address, name, ground)?;
        Self::start(command, address, None, name, ground, stop)
    }

    pub fn sshd(name: &str, ground: &Ground, stop: &Stop) -> Result<Self> {
        let address = free_address()?;
        let (command, ssh) = ssh::server(address, name, ground, stop)?;
        Self::start(command, address, Some(ssh), name, ground, stop)
    }

    fn start(
        mut command: Command,
        address: SocketAddr,
        ssh: Option<Ssh>,
        name: &str,
        ground: &Ground,
        stop: &Stop,
    ) -> Result<Self> {
        tool::say_into(&mut command, ground, name, "server")?;
        let leash = Leash::spawn(&mut command).doing(|| format!("{command:?}"))?;
        let mut daemon = Self {
            family: Family::of(leash.id()),
            leash,
            address,
            ssh,
            before: Before::default(),
        };
        let deadline = Instant::now() + START_MAX;
        while !procfs::listens(address.port())? {
            stop.check()?;
            let ended = daemon.leash.has_ended().doing(|| format!("{command:?}"))?;
            if ended || Instant::now() > deadline {
                let said = tool::said(ground, name, "server");
                return Err(Failure::Tool(format!(
                    "{command:?} does not listen on {address}{said}"
                )));
            }
            thread::sleep(Duration::from_millis(5));
        }
        daemon.wait_until_quiet(stop)?;
        Ok(daemon)
    }

    pub fn before_run(&mut self) -> Result<()> {
        let pid = self.leash.id();
        procfs::forget_peak(pid)?;
        self.family = Family::of(pid);
        self.before = Before {
            cpu: procfs::cpu_with_reaped(pid)?,
            switches: procfs::switches(pid)?,
        };
        Ok(())
    }

    /// What the run cost the server and the processes it forked for it, once it has nothing more to
    /// do: what it does after the client has left counts too.
    pub fn after_run(&mut self, stop: &Stop) -> Result<Usage> {
        self.wait_until_quiet(stop)?;
        let pid = self.leash.id();
        let forked = self.family.descendants_switches();
        let now = procfs::switches(pid)?;
        Ok(Usage {
            cpu: procfs::cpu_with_reaped(pid)?.saturating_sub(self.before.cpu),
            voluntary: now.0.saturating_sub(self.before.switches.0) + forked.0,
            involuntary: now.1.saturating_sub(self.before.switches.1) + forked.1,
            peak_rss_bytes: self.family.peak_rss_bytes(),
        })
    }

    /// Until it has no children and has used no CPU for a while.
    pub fn wait_until_quiet(&mut self, stop: &Stop) -> Result<()> {
        let deadline = Instant::now() + QUIET_MAX;
        let mut last = None;
        loop {
            let children = self.family.look();
            let cpu = procfs::cpu_with_reaped(self.leash.id())?;
            if children == 0 && last == Some(cpu) {
                return Ok(());
            }
            last = Some(cpu);
            stop.check()?;
            if Instant::now() > deadline {
                return Err(Failure::Tool(format!(
                    "the server is still busy {} s after its client left",
                    QUIET_MAX.as_secs()
                )));
            }
            thread::sleep(QUIET_LOOK);
        }
    }
}

/// A port that nobody listens on now. Somebody could take it first: then the server says so.
fn free_address() -> Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .doing(|| "binding a loopback port".into())
}
