//! `Buf`, an owned block, and `BlockPool`, where blocks wait. A block is in one hand at a time:
//! giving a `Buf` to an operation gives the memory to the kernel until the completion returns it.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One block of an arena; not `Clone`. Dropping it gives the block back to its pool.
pub struct Buf {
    memory: Option<&'static mut [u8]>,
    home: Arc<Mutex<Vec<&'static mut [u8]>>>,
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.memory.as_deref().expect("taken only by drop")
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.memory.as_deref_mut().expect("taken only by drop")
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            locked(&self.home).push(memory);
        }
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} bytes)", self.len())
    }
}

/// The free blocks of one shard.
#[derive(Clone)]
pub struct BlockPool {
    free: Arc<Mutex<Vec<&'static mut [u8]>>>,
    blocks_count: usize,
}

impl BlockPool {
    /// A pool of the given blocks, all of one size.
    pub fn new(blocks: Vec<&'static mut [u8]>) -> Self {
        let blocks_count = blocks.len();
        Self {
            free: Arc::new(Mutex::new(blocks)),
            blocks_count,
        }
    }

    /// A free block, or `None` until one comes back.
    pub fn take(&self) -> Option<Buf> {
        let memory = locked(&self.free).pop()?;
        Some(Buf {
            memory: Some(memory),
            home: Arc::clone(&self.free),
        })
    }

    pub fn free_count(&self) -> usize {
        locked(&self.free).len()
    }

    pub fn blocks_count(&self) -> usize {
        self.blocks_count
    }
}

/// A panic elsewhere can't leave a list of free blocks half changed.
fn locked<'a>(free: &'a Mutex<Vec<&'static mut [u8]>>) -> MutexGuard<'a, Vec<&'static mut [u8]>> {
    free.lock().unwrap_or_else(PoisonError::into_inner)
}
