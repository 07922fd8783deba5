//! Which way file reads and writes of 256 KiB should take on the file system of a directory: the ring,
//! inline or the pool, each through the engine itself. `cargo bench --bench lanes -- --dir DIR`
//! prints the row for the table in `src/engine/lanes.rs`.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the row, or why there is none, is what the bench is run for"
)]

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{CommandFactory, Parser};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use rustix::fs::{FallocateFlags, fallocate};
use sy::engine::arena;
use sy::engine::disk::PosixDisk;
use sy::engine::lanes::{FileLanes, Lane, LaneTable, fs_name};
use sy::engine::pool::Pool;
use sy::engine::start::POOL_THREADS_CLIENT;
use sy::engine::uring::Uring;
use sy::limits::{ARENA_BYTES, CHUNK_BYTES, SEND_BLOCKS_PER_SESSION_MAX};
use sy::ops::op::{Job, Op, Progress, Ring};
use sy::ops::{BlockPool, Disk};

const LANES: [Lane; 3] = [Lane::Ring, Lane::Inline, Lane::Pool];
const FILE_BYTES: u64 = 64 << 20;
/// What one session has in flight.
const IN_FLIGHT_MAX: usize = SEND_BLOCKS_PER_SESSION_MAX;
const ROUNDS_MAX: usize = 15;
/// Shared by reads and writes; a round that has begun is finished.
const TIME_MAX: Duration = Duration::from_secs(6);

#[derive(Parser)]
#[command(
    name = "lanes",
    about = "Measures the row of the engine's lane table for the file system of a directory"
)]
struct Line {
    /// Where files of 64 MiB are made; they have no name and are gone when the bench ends
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Cargo adds this to every bench it starts
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let Some(dir) = Line::parse().dir else {
        // A bare `cargo bench` measures nothing. A closed stdout is not worth a word here.
        let _ = Line::command().print_help();
        return ExitCode::SUCCESS;
    };
    match measure(&dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lanes: {}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}

/// The engine with one lane for everything.
struct Engine {
    lane: Lane,
    ring: Uring<PosixDisk, NoJob>,
    blocks: BlockPool,
}

/// Blocks only.
enum NoJob {}

impl Job<PosixDisk> for NoJob {
    fn run(&mut self, _disk: &PosixDisk) -> Progress {
        match *self {}
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Read,
    Write,
}

fn measure(dir: &Path) -> io::Result<()> {
    let magic = PosixDisk
        .fs_kind(&OwnedFd::from(File::open(dir)?))
        .map_err(io::Error::from)?
        .magic;
    let mut engines = LANES
        .map(Engine::new)
        .into_iter()
        .collect::<io::Result<Vec<_>>>()?;
    let read = race(&mut engines, Way::Read, dir)?;
    let write = race(&mut engines, Way::Write, dir)?;

    let name = fs_name(magic);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!(
        "{}: blocks of 256 KiB, {IN_FLIGHT_MAX} in flight, page cache warm, writes into reserved space",
        name.unwrap_or("not in the table")
    );
    println!(
        "Linux {}, {} cores; MB/s, and CPU seconds per GB; medians",
        kernel.trim(),
        std::thread::available_parallelism().map_or(0, usize::from)
    );
    println!(
        "{:8}{:>10}{:>10}{:>10}   rounds   fastest",
        "", "ring", "inline", "pool"
    );
    for (way, raced) in [("read", &read), ("write", &write)] {
        let [ring, inline, pool] = raced.rates;
        println!(
            "{way:8}{ring:10.0}{inline:10.0}{pool:10.0}   {:6}   {:?}",
            raced.rounds,
            raced.fastest()
        );
        let [ring, inline, pool] = raced.costs;
        println!("{:8}{ring:10.3}{inline:10.3}{pool:10.3}", "  CPU");
    }
    let there = LaneTable::default().of(magic);
    let fastest = FileLanes::new(read.fastest(), write.fastest());
    println!("measured   {}", row(magic, fastest));
    println!("the table  {}", row(magic, there));
    Ok(())
}

/// As it stands in the table.
fn row(magic: u64, lanes: FileLanes) -> String {
    let name = fs_name(magic).map_or(format!("0x{magic:08x}"), |name| {
        format!("{}_MAGIC", name.to_uppercase())
    });
    let FileLanes {
        read,
        write,
        write_beside_job,
    } = lanes;
    let beside_job = match write_beside_job == write {
        true => String::new(),
        false => format!(" and beside a job Lane::{write_beside_job:?}"),
    };
    format!("({name}, FileLanes::new(Lane::{read:?}, Lane::{write:?})),{beside_job}")
}

/// Each in the order of `LANES`.
struct Raced {
    /// MB/s.
    rates: [f64; 3],
    /// Seconds of CPU for a GB, the ring's workers and the pool's threads included.
    costs: [f64; 3],
    rounds: usize,
}

impl Raced {
    fn fastest(&self) -> Lane {
        let [ring, inline, pool] = self.rates;
        match () {
            () if ring >= inline && ring >= pool => Lane::Ring,
            () if inline >= pool => Lane::Inline,
            () => Lane::Pool,
        }
    }
}

/// The lanes in turns; the first round warms up.
fn race(engines: &mut [Engine], way: Way, dir: &Path) -> io::Result<Raced> {
    let begin = Instant::now();
    let written = match way {
        Way::Read => Some(written_file(dir)?),
        Way::Write => None,
    };
    let mut rates = [const { Vec::new() }; 3];
    let mut costs = [const { Vec::new() }; 3];
    let mut rounds = 0;
    while rounds <= ROUNDS_MAX && (rounds < 2 || begin.elapsed() < TIME_MAX / 2) {
        for (index, engine) in engines.iter_mut().enumerate() {
            let file = match &written {
                Some(file) => Arc::clone(file),
                None => reserved_file(dir)?,
            };
            let (begin, cpu) = (Instant::now(), cpu()?);
            engine.pass(&file, way)?;
            if rounds > 0 {
                rates[index].push(FILE_BYTES as f64 / 1e6 / begin.elapsed().as_secs_f64());
                let cpu = self::cpu()?.saturating_sub(cpu);
                costs[index].push(cpu.as_secs_f64() / (FILE_BYTES as f64 / 1e9));
            }
        }
        rounds += 1;
    }
    Ok(Raced {
        rates: rates.map(median),
        costs: costs.map(median),
        rounds: rounds - 1,
    })
}

impl Engine {
    fn new(lane: Lane) -> io::Result<Self> {
        let pool = Pool::start(&PosixDisk, POOL_THREADS_CLIENT, None)?;
        let (blocks, region) = arena::map(ARENA_BYTES).map_err(io::Error::from)?;
        let table = LaneTable::all(FileLanes::new(lane, lane));
        let ring = Uring::new(PosixDisk, pool, Some(region), table).map_err(io::Error::other)?;
        Ok(Self { lane, ring, blocks })
    }

    /// Reads or writes the whole file once.
    fn pass(&mut self, file: &Arc<OwnedFd>, way: Way) -> io::Result<()> {
        let mut offsets = (0..FILE_BYTES).step_by(CHUNK_BYTES);
        let mut in_flight_count = 0;
        loop {
            while in_flight_count < IN_FLIGHT_MAX
                && let Some(offset) = offsets.next()
            {
                let buf = self
                    .blocks
                    .take()
                    .expect("an arena has more than are in flight");
                let (fd, range) = (Arc::clone(file), 0..CHUNK_BYTES);
                self.ring.push(
                    offset,
                    match way {
                        Way::Read => Op::Read {
                            fd,
                            buf,
                            range,
                            offset,
                        },
                        Way::Write => Op::Write {
                            fd,
                            buf,
                            range,
                            offset,
                        },
                    },
                );
                in_flight_count += 1;
            }
            if in_flight_count == 0 {
                return Ok(());
            }
            self.ring.submit_and_wait(None).map_err(io::Error::from)?;
            while let Some(completion) = self.ring.reap() {
                in_flight_count -= 1;
                let moved = completion.result.map_err(io::Error::from)?;
                if moved != CHUNK_BYTES {
                    let lane = self.lane;
                    let what = format!("{lane:?}: {moved} bytes of a block at {}", completion.tag);
                    return Err(io::Error::other(what));
                }
            }
        }
    }
}

/// A new file without a name, as large as it will be.
fn reserved_file(dir: &Path) -> io::Result<Arc<OwnedFd>> {
    let path = dir.join(format!(".sy-lanes.{}", std::process::id()));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    fs::remove_file(&path)?;
    // As a target does; where it can't be, it writes all the same.
    let _ = fallocate(&file, FallocateFlags::KEEP_SIZE, 0, FILE_BYTES);
    Ok(Arc::new(file.into()))
}

fn written_file(dir: &Path) -> io::Result<Arc<OwnedFd>> {
    let file = reserved_file(dir)?;
    let block = vec![0xA5; CHUNK_BYTES];
    for offset in (0..FILE_BYTES).step_by(CHUNK_BYTES) {
        let written = rustix::io::pwrite(&*file, &block, offset)?;
        if written != CHUNK_BYTES {
            return Err(io::ErrorKind::StorageFull.into());
        }
    }
    Ok(file)
}

/// Used by all threads of this process, the ring's workers among them.
fn cpu() -> io::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(u64::try_from(micros).unwrap_or(0)))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
