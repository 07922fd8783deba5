//! What a program does once before its first session: the process's own settings, the arena, the
//! pool and the ring.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::arena;
use super::clock::monotonic_now;
use super::disk::PosixDisk;
use super::lanes::LaneTable;
use super::pool::Pool;
use super::posix::{EngineChoice, PosixRing};
use super::setup::SetupError;
use super::shard::Shard;
use super::zero_copy;
use crate::job::Work;
use crate::limits::{ARENA_BYTES, CONNECTIONS_PER_SHARD_MAX};
use crate::model::time::Moment;
use crate::ops::Errno;

pub type PosixShard = Shard<PosixDisk, PosixRing<PosixDisk, Work<PosixDisk>>>;

/// Threads of a client's pool: one reads a PACK while the other lists.
pub const POOL_THREADS_CLIENT: usize = 2;

/// What `prepare_process` has changed, as it was.
pub struct AsFound {
    umask: rustix::fs::Mode,
    open_files: rustix::process::Rlimit,
}

/// Modes are exact, so there is no umask; a tree may need many descriptors.
pub fn prepare_process() -> AsFound {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let umask = rustix::process::umask(rustix::fs::Mode::empty());
    let open_files = getrlimit(Resource::Nofile);
    // Where it is refused, the soft limit is what there is.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: open_files.maximum,
            maximum: open_files.maximum,
        },
    );
    AsFound { umask, open_files }
}

impl AsFound {
    /// Starts a program that is to have what we were started with. Not while files are made.
    pub fn lend<T>(&self, start: impl FnOnce() -> T) -> T {
        use rustix::process::{Resource, Rlimit, setrlimit, umask};
        let Rlimit { current, maximum } = self.open_files;
        umask(self.umask);
        let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum });
        let started = start();
        prepare_process();
        started
    }
}

/// Connections that a server with so many shards takes: what the rings carry, and half of the open
/// files that the process may have; the other half is for what the sessions open.
pub fn connections_max(shards_count: usize, open_files_max: Option<u64>) -> usize {
    let by_files = open_files_max.map_or(usize::MAX, |count| {
        usize::try_from(count / 2).unwrap_or(usize::MAX)
    });
    by_files
        .min(shards_count * CONNECTIONS_PER_SHARD_MAX)
        .max(1)
}

/// The soft limit of open files of this process; `None`: no limit.
pub fn open_files_max() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// Whether a stream leads to another host, as far as its addresses tell.
pub fn leads_elsewhere(stream: &OwnedFd) -> bool {
    zero_copy::is_remote(stream)
}

/// A shard of its own: arena, ring and pool. For the thread that calls.
pub fn shard(engine: EngineChoice, pool_threads: usize) -> Result<PosixShard, SetupError> {
    let pool = Pool::start(&PosixDisk, pool_threads, Some(is_slow)).map_err(setup_error)?;
    let (blocks, region) = arena::map(ARENA_BYTES).map_err(SetupError::Other)?;
    let ring = PosixRing::new(engine, PosixDisk, pool, region, LaneTable::default())?;
    Ok(Shard::new(ring, blocks))
}

fn setup_error(error: io::Error) -> SetupError {
    SetupError::Other(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Jobs that may take seconds, so that none waits behind them: those that sync a file system.
fn is_slow(work: &Work<PosixDisk>) -> bool {
    matches!(work, Work::Finish(_) | Work::Retire(_))
}

/// A connection that notices a dead peer, and does not wait to fill packets. No TCP_USER_TIMEOUT: it
/// also ends a connection whose peer is alive and has its window closed, as a target does that is
/// busy deleting.
pub fn tune_tcp(stream: &impl std::os::fd::AsFd) {
    let socket = socket2::SockRef::from(stream);
    let alive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    // Each is a help, none is needed.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&alive);
}

/// Peak resident memory of this process.
pub fn peak_rss_bytes() -> u64 {
    use crate::ops::Disk;
    PosixDisk.peak_rss_bytes()
}

/// The clock of every ring, for a thread without one.
pub fn now() -> Moment {
    monotonic_now()
}

/// Random bits from the kernel.
pub fn random_u64() -> u64 {
    use crate::ops::Disk;
    PosixDisk.random_u64()
}
