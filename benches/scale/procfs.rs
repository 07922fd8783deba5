//! What the kernel says of processes and of the machine.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use super::failure::{Doing, Failure, Result};

/// CPU time, switches and memory of one end of a run.
#[derive(Clone, Copy, Default, Debug)]
pub struct Usage {
    pub cpu: Duration,
    pub voluntary: u64,
    pub involuntary: u64,
    /// Of the largest process, not their sum: what each process needs.
    pub peak_rss_bytes: u64,
}

/// The parent's list of children exists only with CONFIG_PROC_CHILDREN; without it a forking daemon
/// can't be followed.
pub fn is_enough() -> Result<()> {
    let pid = std::process::id();
    let path = format!("/proc/{pid}/task/{pid}/children");
    fs::read(&path).map(drop).map_err(|error| {
        Failure::Unfit(format!(
            "{path}: {error}: the bench needs a kernel with CONFIG_PROC_CHILDREN"
        ))
    })
}

/// Does anybody listen on this IPv4 port? Asks nobody: a connection that is only tried is work, and
/// to some servers an offence.
pub fn listens(port: u16) -> Result<bool> {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    let sockets = read("/proc/net/tcp")?;
    Ok(sockets.lines().any(|line| {
        // sl local_address rem_address st ...
        let mut fields = line.split_ascii_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&port)) && fields.nth(1) == Some(LISTEN)
    }))
}

/// CPU time of a process and of the children it has reaped, in the kernel's ticks of 10 ms.
pub fn cpu_with_reaped(pid: u32) -> Result<Duration> {
    let stat = read(&format!("/proc/{pid}/stat"))?;
    // The name may hold spaces and brackets; what follows the last one is numbers. Fields 14 to 17
    // of proc(5), utime stime cutime cstime, are then the 12th to the 15th.
    let (_, fields) = stat.rsplit_once(')').unwrap_or_default();
    let ticks: u64 = fields
        .split_ascii_whitespace()
        .skip(11)
        .take(4)
        .map(number)
        .sum();
    Ok(from_ticks(ticks))
}

/// CPU time spent by everybody on the machine since boot, stolen time included.
pub fn machine_cpu() -> Result<Duration> {
    let stat = read("/proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    // user nice system idle iowait irq softirq steal; guest time is already in user.
    let ticks = line
        .split_ascii_whitespace()
        .skip(1)
        .take(8)
        .enumerate()
        .filter(|(index, _)| !matches!(index, 3 | 4))
        .map(|(_, field)| number(field))
        .sum();
    Ok(from_ticks(ticks))
}

/// Switches of all threads of a process that are alive.
pub fn switches(pid: u32) -> Result<(u64, u64)> {
    let path = format!("/proc/{pid}/task");
    let mut sum = (0, 0);
    for task in fs::read_dir(&path).doing(|| path.clone())? {
        let task = task.doing(|| path.clone())?;
        // A thread may have ended since the listing.
        if let Some(seen) = Seen::read(&task.path().join("status").to_string_lossy()) {
            sum.0 += seen.voluntary;
            sum.1 += seen.involuntary;
        }
    }
    Ok(sum)
}

/// Sets a process's peak back to what it holds now, so that a resident server has one peak per run.
pub fn forget_peak(pid: u32) -> Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").doing(|| path.clone())
}

/// Bytes that wait to be written to disk or are on their way, on the whole machine.
pub fn dirty_bytes() -> Result<u64> {
    let text = read("/proc/meminfo")?;
    Ok(kib_field(&text, "Dirty:") + kib_field(&text, "Writeback:"))
}

pub fn memory_available_bytes() -> Result<u64> {
    Ok(kib_field(&read("/proc/meminfo")?, "MemAvailable:"))
}

pub fn memory_bytes() -> Result<u64> {
    Ok(kib_field(&read("/proc/meminfo")?, "MemTotal:"))
}

pub fn cpu_model() -> String {
    let text = read("/proc/cpuinfo").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or_else(|| "unknown".into(), |(_, name)| name.trim().into())
}

pub fn kernel() -> String {
    read("/proc/sys/kernel/osrelease").map_or_else(|_| "unknown".into(), |text| text.trim().into())
}

/// What was last seen of one process.
#[derive(Clone, Copy, Debug)]
struct Seen {
    peak_rss_bytes: u64,
    voluntary: u64,
    involuntary: u64,
}

impl Seen {
    fn read(path: &str) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let count = |name| field(&text, name).map_or(0, number);
        Some(Self {
            peak_rss_bytes: kib_field(&text, "VmHWM:"),
            voluntary: count("voluntary_ctxt_switches:"),
            involuntary: count("nonvoluntary_ctxt_switches:"),
        })
    }
}

/// A process and its descendants, looked at again and again while they run. A peak is a high-water
/// mark that the kernel keeps, so a look misses only what grew after it.
pub struct Family {
    root: u32,
    seen: BTreeMap<u32, Seen>,
}

impl Family {
    pub fn of(root: u32) -> Self {
        Self {
            root,
            seen: BTreeMap::new(),
        }
    }

    /// Returns how many descendants are alive, zombies included.
    pub fn look(&mut self) -> usize {
        let mut alive = vec![self.root];
        let mut next = 0;
        while let Some(&pid) = alive.get(next) {
            next += 1;
            // A zombie has a status but no memory any more: keep what was seen while it lived.
            match Seen::read(&format!("/proc/{pid}/status")) {
                Some(seen) if seen.peak_rss_bytes > 0 => {
                    self.seen.insert(pid, seen);
                }
                _ => {}
            }
            let children = format!("/proc/{pid}/task/{pid}/children");
            let children = fs::read_to_string(children).unwrap_or_default();
            alive.extend(
                children
                    .split_ascii_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
        alive.len() - 1
    }

    pub fn peak_rss_bytes(&self) -> u64 {
        self.seen
            .values()
            .map(|seen| seen.peak_rss_bytes)
            .max()
            .unwrap_or(0)
    }

    /// Switches of the descendants, each as last seen: a lower bound.
    pub fn descendants_switches(&self) -> (u64, u64) {
        self.seen
            .iter()
            .filter(|(pid, _)| **pid != self.root)
            .fold((0, 0), |sum, (_, seen)| {
                (sum.0 + seen.voluntary, sum.1 + seen.involuntary)
            })
    }
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).doing(|| path.into())
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_ascii_whitespace().next())
}

fn kib_field(text: &str, name: &str) -> u64 {
    field(text, name).map_or(0, number) * 1024
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

fn from_ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}
