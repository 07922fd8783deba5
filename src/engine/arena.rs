//! The arena: one mapping of memory that becomes the blocks of a `BlockPool`, and `Region`, which
//! tells the ring where it lies so that it can register it.
//!
//! The mapping is never undone. A block that the kernel still writes into can therefore never be
//! memory of something else, whatever is dropped, leaked or panics above; a process maps one arena
//! per shard when it starts and none later, so nothing is lost by it.
#![expect(
    unsafe_code,
    reason = "maps memory and hands it out as slices for the life of the process"
)]

use std::io;
use std::ptr;

use io_uring::IoUring;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

use crate::limits::BLOCK_BYTES;
use crate::ops::{BlockPool, Errno};

/// Where an arena lies. Only `map` makes one, so its memory is mapped, readable and writable for
/// as long as the process lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    start: usize,
    bytes: usize,
}

impl Region {
    pub fn bytes(self) -> usize {
        self.bytes
    }

    /// Whether all of the `bytes` at `address` lie inside.
    pub fn contains(self, address: usize, bytes: usize) -> bool {
        address
            .checked_sub(self.start)
            .and_then(|offset| offset.checked_add(bytes))
            .is_some_and(|end| end <= self.bytes)
    }

    /// Makes the arena the ring's only fixed buffer. ENOMEM: RLIMIT_MEMLOCK is too low.
    pub(super) fn register(self, ring: &IoUring) -> io::Result<()> {
        let iovec = libc::iovec {
            iov_base: ptr::with_exposed_provenance_mut(self.start),
            iov_len: self.bytes,
        };
        // SAFETY: a `Region` is mapped for the life of the process.
        unsafe { ring.submitter().register_buffers(&[iovec]) }
    }
}

/// Maps as many whole blocks as fit into `arena_bytes` (at least one) and makes them a pool.
///
/// Plain pages: a block that was never used costs no memory, unless a ring registers the region,
/// which pins all of it at once. Fails with the errno of mmap (ENOMEM under a tight RLIMIT_AS).
pub fn map(arena_bytes: usize) -> Result<(BlockPool, Region), Errno> {
    let bytes = (arena_bytes / BLOCK_BYTES).max(1) * BLOCK_BYTES;
    // SAFETY: a new private mapping at an address of the kernel's choice aliases nothing.
    let start = unsafe {
        mmap_anonymous(
            ptr::null_mut(),
            bytes,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )?
    };
    // Where transparent huge pages are always on, the first byte of a block would cost 2 MiB. A
    // kernel without them answers EINVAL, which changes nothing for us.
    // SAFETY: advice on a mapping of ours, which keeps its content.
    let _ = unsafe { madvise(start, bytes, Advice::LinuxNoHugepage) };
    // SAFETY: `start` is page-aligned and not null; the `bytes` behind it are mapped readable and
    // writable, zeroed, used by nobody else (nothing but this slice is made from `start`) and
    // never unmapped, so 'static is true.
    let memory: &'static mut [u8] =
        unsafe { std::slice::from_raw_parts_mut(start.cast::<u8>(), bytes) };
    let region = Region {
        start: start.expose_provenance(),
        bytes,
    };
    let blocks = memory.chunks_exact_mut(BLOCK_BYTES).collect();
    Ok((BlockPool::new(blocks), region))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arena_becomes_whole_blocks_that_all_lie_inside() {
        let (pool, region) = map(3 * BLOCK_BYTES + 100).unwrap();
        assert_eq!(pool.blocks_count(), 3);
        assert_eq!(region.bytes(), 3 * BLOCK_BYTES);
        let mut bufs: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        for buf in &mut bufs {
            assert_eq!(buf.len(), BLOCK_BYTES);
            assert!(buf.as_ptr().addr().is_multiple_of(4096));
            assert!(region.contains(buf.as_ptr().addr(), buf.len()));
            buf.fill(0xa5);
        }
        drop(bufs);
        assert_eq!(pool.free_count(), 3);
    }

    #[test]
    fn even_the_smallest_arena_has_a_block() {
        assert_eq!(map(0).unwrap().0.blocks_count(), 1);
    }

    #[test]
    fn a_region_knows_its_ends() {
        let region = Region {
            start: 4096,
            bytes: 100,
        };
        assert!(region.contains(4096, 100));
        assert!(region.contains(4196, 0));
        assert!(!region.contains(4097, 100));
        assert!(!region.contains(4095, 1));
        assert!(!region.contains(4100, usize::MAX));
    }
}
