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
use crate::limits::{BLOCK_BYTES, FRAME_HEAD_BYTES};
use crate::ops::op::{Completion, Job, Op, Progress, Ring, StreamId};
use crate::ops::{BlockPool, Buf, Disk};

pub struct NoJob;

impl Job<PosixDisk> for NoJob {
    fn run(&mut self, _: &PosixDisk) -> Progress {
        Progress::Done
    }
}

pub type TestRing = Uring<PosixDisk, NoJob>;

/// A ring on the real kernel, and the blocks of its arena.
pub fn a_ring(blocks_count: usize) -> (TestRing, BlockPool) {
    a_ring_with(blocks_count, LaneTable::default())
}

pub fn a_ring_with(blocks_count: usize, lanes: LaneTable) -> (TestRing, BlockPool) {
    let (blocks, region) = arena::map(blocks_count * BLOCK_BYTES).unwrap();
    let pool = Pool::start(&PosixDisk, 1, None).unwrap();
    let ring = Uring::new(PosixDisk, pool, Some(region), lanes).unwrap();
    (ring, blocks)
}

/// Receives a head of which `got` bytes are there.
pub fn recv_head<J>(stream: StreamId, got: usize) -> Op<PosixDisk, J> {
    Op::RecvHead {
        stream,
        head: [0xee; FRAME_HEAD_BYTES],
        got,
    }
}

pub fn filled(blocks: &BlockPool, byte: u8) -> Buf {
    let mut buf = blocks.take().unwrap();
    buf.fill(byte);
    buf
}

/// Waits for the next completion.
pub fn next<J, R>(ring: &mut R) -> Completion<PosixDisk, J>
where
    J: Job<PosixDisk>,
    R: Ring<PosixDisk, J>,
{
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
