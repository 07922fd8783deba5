//! `Doctor`, what this host offers the engine and what would make it offer more. Both programs
//! print it; nothing decides by it.

use std::fmt;

use rustix::process::{Resource, getrlimit};

use super::arena;
use super::disk::PosixDisk;
use super::lanes::{FileLanes, Lane, LaneTable, fs_name};
use super::setup::{Registration, Setup, SetupError, Tier, try_setup};
use super::start::connections_max;
use crate::limits::ARENA_BYTES;
use crate::ops::{Disk, Errno};

/// Open files below which an operator should look: a session keeps up to some 300.
const OPEN_FILES_MIN: u64 = 4096;

/// What was found. Its `Display` is one line per finding, without a newline at the end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Doctor {
    /// As `uname -r`.
    pub kernel_release: String,
    pub engine: Result<Setup, SetupError>,
    /// Bytes of memory this process may lock; `None`: no limit.
    pub memlock_bytes_max: Option<u64>,
    /// The soft and the hard limit; `None`: no limit.
    pub open_files_max: (Option<u64>, Option<u64>),
    /// Connections that a server takes at once, with a shard for each core.
    pub connections_max: usize,
    /// Bytes of the arena that was tried.
    pub arena_bytes: usize,
    /// The directory that was asked about.
    pub disk: Option<Result<DiskFinding, Errno>>,
    pub advice: Vec<Advice>,
}

/// The file system below a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskFinding {
    /// `statfs` `f_type`.
    pub magic: u64,
    pub is_volatile: bool,
    pub lanes: FileLanes,
}

/// What an operator could change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advice {
    /// kernel.io_uring_disabled is 1 or 2.
    EnableBySysctl {
        value: u8,
    },
    /// The sysctl allows it, so a seccomp profile must be in the way.
    AllowBySeccomp,
    NewerKernel,
    RaiseMemlock,
    RaiseOpenFiles,
}

/// Looks at this host, and at the file system of `dir`, where one is given. Maps an arena and
/// sets a ring up on the calling thread; the ring is closed again.
pub fn doctor(dir: Option<&[u8]>, lanes: &LaneTable) -> Doctor {
    let region = arena::map(ARENA_BYTES).ok().map(|(_, region)| region);
    let engine = try_setup(region);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let open_files = getrlimit(Resource::Nofile);
    let open_files_max = (open_files.current, open_files.maximum);
    Doctor {
        kernel_release: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        engine,
        memlock_bytes_max: getrlimit(Resource::Memlock).current,
        open_files_max,
        // A server raises its own limit to the hard one.
        connections_max: connections_max(cores, open_files_max.1),
        arena_bytes: region.map_or(0, arena::Region::bytes),
        disk: dir.map(|dir| look_at(dir, lanes)),
        advice: advise(engine, sysctl_disabled(), open_files_max.0),
    }
}

fn look_at(dir: &[u8], lanes: &LaneTable) -> Result<DiskFinding, Errno> {
    let fd = PosixDisk.open_operator_dir(dir)?;
    let kind = PosixDisk.fs_kind(&fd)?;
    Ok(DiskFinding {
        magic: kind.magic,
        is_volatile: kind.is_volatile,
        lanes: lanes.of(kind.magic),
    })
}

/// The value of kernel.io_uring_disabled; 0 where the kernel doesn't know it (before 6.6).
fn sysctl_disabled() -> u8 {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

/// What is said where the ring was refused, and the other engine runs.
pub fn portable_line(refused: SetupError) -> String {
    format!("engine: portable (epoll and threads): {refused}")
}

/// What would lift a refusal of the ring, the first of several.
pub fn advice(refused: SetupError) -> Option<Advice> {
    let all = advise(Err(refused), sysctl_disabled(), None);
    all.into_iter().next()
}

fn advise(
    engine: Result<Setup, SetupError>,
    sysctl_disabled: u8,
    open_files_max: Option<u64>,
) -> Vec<Advice> {
    let mut advice = Vec::new();
    match engine {
        Ok(setup) => match setup.arena {
            Registration::Refused(Errno::NOMEM) => advice.push(Advice::RaiseMemlock),
            Registration::Refused(_) | Registration::Registered | Registration::NotAsked => {}
        },
        Err(SetupError::Refused) if sysctl_disabled > 0 => {
            advice.push(Advice::EnableBySysctl {
                value: sysctl_disabled,
            });
        }
        Err(SetupError::Refused) => advice.push(Advice::AllowBySeccomp),
        Err(SetupError::Missing) => {
            advice.extend([Advice::NewerKernel, Advice::AllowBySeccomp]);
        }
        Err(SetupError::TooOld) => advice.push(Advice::NewerKernel),
        Err(SetupError::Memlock) => advice.push(Advice::RaiseMemlock),
        Err(SetupError::Other(_)) => {}
    }
    if open_files_max.is_some_and(|count| count < OPEN_FILES_MIN) {
        advice.push(Advice::RaiseOpenFiles);
    }
    advice
}

impl fmt::Display for Doctor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kernel: Linux {}", self.kernel_release)?;
        match self.engine {
            Ok(setup) => {
                let flags = match setup.tier {
                    Tier::NoSqArray => "DEFER_TASKRUN, NO_SQARRAY (6.6 and later)",
                    Tier::DeferTaskrun => "DEFER_TASKRUN (6.1 and later)",
                };
                let size = if setup.is_small() { ", small" } else { "" };
                writeln!(f, "engine: io_uring with {flags}{size}")?;
                write!(f, "arena: {}, ", Bytes(Some(self.arena_bytes as u64)))?;
                match setup.arena {
                    Registration::Registered => writeln!(f, "registered with the ring")?,
                    Registration::Refused(Errno::NOMEM) => {
                        writeln!(f, "not registered: that needs more locked memory")?;
                    }
                    Registration::Refused(errno) => writeln!(f, "not registered: {errno}")?,
                    Registration::NotAsked => writeln!(f, "not registered: not mapped")?,
                }
            }
            Err(error) => writeln!(f, "{}", portable_line(error))?,
        }
        writeln!(
            f,
            "locked memory: at most {}",
            Bytes(self.memlock_bytes_max)
        )?;
        let (soft, hard) = self.open_files_max;
        write!(f, "open files: at most {}", Count(soft))?;
        if soft != hard {
            write!(f, " (may be raised to {})", Count(hard))?;
        }
        write!(
            f,
            "\nconnections: a server takes {} at once",
            self.connections_max
        )?;
        match &self.disk {
            None => {}
            Some(Ok(disk)) => write!(f, "\nfile system: {disk}")?,
            Some(Err(errno)) => write!(f, "\nfile system: can't be looked at: {errno}")?,
        }
        for advice in &self.advice {
            write!(f, "\ntry: {advice}")?;
        }
        Ok(())
    }
}

impl fmt::Display for DiskFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match fs_name(self.magic) {
            Some(name) => f.write_str(name)?,
            None => write!(f, "type {:#x}", self.magic)?,
        }
        if self.is_volatile {
            f.write_str(" (in memory)")?;
        }
        let way = |lane| match lane {
            Lane::Ring => "on the ring",
            Lane::Inline => "as plain calls in the loop",
            Lane::Pool => "on the pool",
        };
        write!(
            f,
            ", reads {}, writes {}",
            way(self.lanes.read),
            way(self.lanes.write)
        )?;
        if self.lanes.write_beside_job == self.lanes.write {
            return Ok(());
        }
        write!(f, " (beside jobs {})", way(self.lanes.write_beside_job))
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EnableBySysctl { value } => write!(
                f,
                "sysctl kernel.io_uring_disabled=0 (it is {value}{})",
                if *value == 1 {
                    "; or join kernel.io_uring_group"
                } else {
                    ""
                }
            ),
            Self::AllowBySeccomp => f.write_str(
                "a seccomp profile that allows io_uring_setup, io_uring_enter and \
                 io_uring_register (containers: docker run --security-opt seccomp=PROFILE)",
            ),
            Self::NewerKernel => f.write_str("Linux 6.1 or later, built with CONFIG_IO_URING"),
            Self::RaiseMemlock => f.write_str(
                "more locked memory, for rings of full size and registered arenas: \
                 LimitMEMLOCK=infinity in the unit, docker run --ulimit memlock=-1, or CAP_IPC_LOCK",
            ),
            Self::RaiseOpenFiles => {
                f.write_str("more open files: LimitNOFILE=65536 in the unit, or ulimit -n 65536")
            }
        }
    }
}

/// A number of bytes for people; `None`: no limit.
struct Bytes(Option<u64>);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const KIB: u64 = 1024;
        const MIB: u64 = 1024 * KIB;
        match self.0 {
            None => f.write_str("unlimited"),
            Some(bytes) if bytes >= MIB => {
                write!(f, "{}.{} MiB", bytes / MIB, bytes % MIB * 10 / MIB)
            }
            Some(bytes) => write!(f, "{} KiB", bytes / KIB),
        }
    }
}

struct Count(Option<u64>);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("unlimited"),
            Some(count) => count.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::disk::TMPFS_MAGIC;
    use crate::limits::RING_COMPLETIONS_SMALL;

    #[test]
    fn this_host_is_described_line_by_line() {
        let found = doctor(Some(b"/"), &LaneTable::default());
        let text = found.to_string();
        assert!(text.starts_with("kernel: Linux "));
        assert!(!text.ends_with('\n'));
        for line in [
            "\nengine: ",
            "\nlocked memory: ",
            "\nopen files: ",
            "\nconnections: ",
            "\nfile system: ",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(found.disk.unwrap().is_ok());
        let missing = doctor(Some(b"/no/such/place"), &LaneTable::default());
        assert_eq!(missing.disk, Some(Err(Errno::NOENT)));
    }

    #[test]
    fn each_refusal_gets_the_advice_that_lifts_it() {
        let of = |error, disabled| advise(Err(error), disabled, None);
        assert_eq!(
            of(SetupError::Refused, 2),
            [Advice::EnableBySysctl { value: 2 }]
        );
        assert_eq!(of(SetupError::Refused, 0), [Advice::AllowBySeccomp]);
        assert_eq!(of(SetupError::TooOld, 0), [Advice::NewerKernel]);
        let unregistered = Ok(Setup {
            tier: Tier::NoSqArray,
            arena: Registration::Refused(Errno::NOMEM),
            completions: 4096,
        });
        assert_eq!(
            advise(unregistered, 0, Some(1024)),
            [Advice::RaiseMemlock, Advice::RaiseOpenFiles]
        );
        let good = Ok(Setup {
            tier: Tier::NoSqArray,
            arena: Registration::Registered,
            completions: 4096,
        });
        assert_eq!(advise(good, 0, Some(20_000)), []);
    }

    #[test]
    fn what_was_found_is_said_in_words() {
        let found = Doctor {
            kernel_release: "6.8.0".to_owned(),
            engine: Err(SetupError::Refused),
            memlock_bytes_max: Some(65536),
            open_files_max: (Some(1024), None),
            connections_max: 512,
            arena_bytes: 0,
            disk: Some(Ok(DiskFinding {
                magic: TMPFS_MAGIC,
                is_volatile: true,
                lanes: LaneTable::default().of(TMPFS_MAGIC),
            })),
            advice: vec![Advice::EnableBySysctl { value: 1 }],
        };
        let expected = "\
kernel: Linux 6.8.0
engine: portable (epoll and threads): io_uring is refused (EPERM): by a seccomp profile, or by kernel.io_uring_disabled
locked memory: at most 64 KiB
open files: at most 1024 (may be raised to unlimited)
connections: a server takes 512 at once
file system: tmpfs (in memory), reads as plain calls in the loop, writes on the pool (beside jobs as plain calls in the loop)
try: sysctl kernel.io_uring_disabled=0 (it is 1; or join kernel.io_uring_group)";
        assert_eq!(found.to_string(), expected);
        assert_eq!(Bytes(Some(8 << 20)).to_string(), "8.0 MiB");
    }

    #[test]
    fn what_little_locked_memory_takes_away_is_said() {
        let found = Doctor {
            engine: Ok(Setup {
                tier: Tier::NoSqArray,
                arena: Registration::Refused(Errno::NOMEM),
                completions: RING_COMPLETIONS_SMALL,
            }),
            ..doctor(None, &LaneTable::default())
        };
        let text = found.to_string();
        assert!(text.contains("(6.6 and later), small\n"), "{text}");
        assert!(text.contains("not registered: that needs more locked memory\n"));
    }
}
