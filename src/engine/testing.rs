//! What tests of this floor share: a ring without jobs, and a directory that goes with its guard.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::arena;
use super::disk::PosixDisk;
use super::lanes::LaneTable;
use super::pool::Pool;
use super::uring::Uring;
use crate::limits::BLOCK_BYTES;
use crate::ops::op::{Completion, Job, Progress, Ring};
use crate::ops::{BlockPool, Disk};

pub struct NoJob;

impl Job<PosixDisk> for NoJob {
    fn run(&mut self, _: &PosixDisk) -> Progress {
        Progress::Done
    }
}

pub type TestRing = Uring<PosixDisk, NoJob>;

/// A ring on the real kernel, and the blocks of its arena.
pub fn a_ring(blocks_count: usize) -> (TestRing, BlockPool) {
    let (blocks, region) = arena::map(blocks_count * BLOCK_BYTES).unwrap();
    let pool = Pool::start(&PosixDisk, 1, None).unwrap();
    let ring = Uring::new(PosixDisk, pool, Some(region), LaneTable::default()).unwrap();
    (ring, blocks)
}

/// Waits for the next completion.
pub fn next(ring: &mut TestRing) -> Completion<PosixDisk, NoJob> {
    loop {
        if let Some(completion) = ring.reap() {
            return completion;
        }
        ring.submit_and_wait(None).unwrap();
    }
}

pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sy-{name}-{}", std::process::id()));
        // What an earlier run with this process id left behind, if it was killed.
        drop(std::fs::remove_dir_all(&path));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn open(&self) -> OwnedFd {
        PosixDisk
            .open_operator_dir(self.0.as_os_str().as_bytes())
            .unwrap()
    }

    pub fn path_bytes(&self, name: &[u8]) -> Vec<u8> {
        self.0
            .join(OsStr::from_bytes(name))
            .into_os_string()
            .into_encoded_bytes()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
