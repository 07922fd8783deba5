//! `Buf`, an owned block, and `BlockPool`, where blocks wait. A block is in one hand at a time:
//! giving a `Buf` to an operation gives the memory to the kernel until the completion returns it.
//!
//! There is one exception. What is sent without a copy is read by the kernel after the completion, too:
//! such a block is lent, and its `Loan` stays with the ring. Whoever has the `Buf` may read and drop
//! it, not write it, and the block is free again when the last of both is gone.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Memory = &'static mut [u8];

/// One block of an arena; not `Clone`. Dropping it gives the block back to its pool.
pub struct Buf {
    memory: Option<Memory>,
    home: Arc<Mutex<Home>>,
    is_lent: bool,
}

#[derive(Default)]
struct Home {
    free: Vec<Memory>,
    lent: Vec<Lent>,
}

/// A block that somebody else still reads.
struct Lent {
    /// Its address.
    start: usize,
    loans_count: u32,
    /// The block, once its `Buf` was dropped.
    returned: Option<Memory>,
}

/// Keeps a block from being used for anything else.
pub struct Loan {
    start: usize,
    home: Arc<Mutex<Home>>,
}

impl Buf {
    /// Lets the kernel read this block for as long as the loan lives; it can't be written any more.
    pub fn lend(&mut self) -> Loan {
        self.is_lent = true;
        let start = self.as_ptr().addr();
        let mut home = locked(&self.home);
        match home.lent.iter_mut().find(|lent| lent.start == start) {
            Some(lent) => lent.loans_count += 1,
            None => home.lent.push(Lent {
                start,
                loans_count: 1,
                returned: None,
            }),
        }
        drop(home);
        Loan {
            start,
            home: Arc::clone(&self.home),
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let mut home = locked(&self.home);
        let found = home.lent.iter().position(|lent| lent.start == self.start);
        let index = found.expect("it stays until its last loan ends");
        home.lent[index].loans_count -= 1;
        if home.lent[index].loans_count == 0 {
            let returned = home.lent.swap_remove(index).returned;
            home.free.extend(returned);
        }
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.memory.as_deref().expect("taken only by drop")
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        assert!(!self.is_lent, "written while the kernel reads it");
        self.memory.as_deref_mut().expect("taken only by drop")
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        let Some(memory) = self.memory.take() else {
            return;
        };
        let start = memory.as_ptr().addr();
        let mut home = locked(&self.home);
        match home.lent.iter_mut().find(|lent| lent.start == start) {
            Some(lent) => lent.returned = Some(memory),
            None => home.free.push(memory),
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
    home: Arc<Mutex<Home>>,
    blocks_count: usize,
}

impl BlockPool {
    /// A pool of the given blocks, all of one size.
    pub fn new(blocks: Vec<Memory>) -> Self {
        let blocks_count = blocks.len();
        let home = Home {
            free: blocks,
            lent: Vec::new(),
        };
        Self {
            home: Arc::new(Mutex::new(home)),
            blocks_count,
        }
    }

    /// A free block, or `None` until one comes back.
    pub fn take(&self) -> Option<Buf> {
        let memory = locked(&self.home).free.pop()?;
        Some(Buf {
            memory: Some(memory),
            home: Arc::clone(&self.home),
            is_lent: false,
        })
    }

    pub fn free_count(&self) -> usize {
        locked(&self.home).free.len()
    }

    pub fn blocks_count(&self) -> usize {
        self.blocks_count
    }
}

/// A panic elsewhere can't leave the lists of a home half changed.
fn locked(home: &Mutex<Home>) -> MutexGuard<'_, Home> {
    home.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> BlockPool {
        BlockPool::new(vec![Box::leak(vec![0; 16].into_boxed_slice())])
    }

    #[test]
    fn a_lent_block_is_free_when_both_its_owner_and_every_loan_are_gone() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
            let pool = pool();
            let mut buf = pool.take().unwrap();
            let (one, other) = (buf.lend(), buf.lend());
            let (mut buf, mut loans) = (Some(buf), [Some(one), Some(other)]);
            for who in order {
                assert_eq!(pool.free_count(), 0);
                match who {
                    2 => drop(buf.take()),
                    loan => drop(loans[loan].take()),
                }
            }
            assert_eq!(pool.free_count(), 1);
            pool.take().unwrap().fill(1);
        }
    }

    #[test]
    #[should_panic(expected = "written while the kernel reads it")]
    fn a_lent_block_is_not_written() {
        let mut buf = pool().take().unwrap();
        let _loan = buf.lend();
        assert_eq!(buf[0], 0);
        buf[0] = 1;
    }
}
