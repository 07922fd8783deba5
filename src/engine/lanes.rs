//! `LaneTable`, the way that file reads and writes take on each kind of file system, and `Lanes`,
//! by which a ring finds the lane of a file without asking the kernel each time.
//!
//! What decides is whether the kernel carries an operation out in the submitting call or hands it
//! to a thread of its own ("punts" it, 10 us and a second thread), and whether a plain call may
//! block for long. All figures are for blocks of 256 KiB on Linux 6.18, two cores, page cache
//! warm; a run differs from the next by up to 30 %.

use std::sync::{Arc, Weak};

use rustix::io::retry_on_intr;

use super::disk::{RAMFS_MAGIC, TMPFS_MAGIC};

/// One way for a file read or write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// An entry of the ring.
    Ring,
    /// A plain call in the loop, complete before `push` returns.
    Inline,
    /// A plain call on the pool.
    Pool,
}

/// The lanes of one kind of file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileLanes {
    pub read: Lane,
    pub write: Lane,
    /// Of a write while the same ring has a job on the pool, or has taken one back in this turn.
    pub write_beside_job: Lane,
}

impl FileLanes {
    /// Whatever the pool is at.
    pub const fn new(read: Lane, write: Lane) -> Self {
        Self {
            read,
            write,
            write_beside_job: write,
        }
    }
}

/// Of file systems that are memory. Everything punts (64 KiB read: 17.6 us, by pread 2.3) and nothing
/// blocks. A write fills fresh pages, which the pool does while the loop receives: 4 x 1 GiB by TCP take
/// 0.76, 0.88, 0.86 of the time of plain calls in the loop, 1 GiB 0.91 to 0.97, for a tenth more CPU (each a
/// median of 5 to 15 pairs; two threads that write to one file spin on its lock). The ring's workers, and a
/// pool of one thread, write one after the other, and that thread has a third of two cores: 1.05 to 1.11.
/// Where jobs put the chunks of a delta together, the pool has its work already: 1.03 to 1.15 of the
/// time of plain calls.
const IN_MEMORY: FileLanes = FileLanes {
    write_beside_job: Lane::Inline,
    ..FileLanes::new(Lane::Inline, Lane::Pool)
};

/// `statfs` `f_type` (linux/magic.h); ext2 and ext3 share it.
pub const EXT4_MAGIC: u64 = 0xef53;
pub const XFS_MAGIC: u64 = 0x5846_5342;
pub const BTRFS_MAGIC: u64 = 0x9123_683e;
pub const OVERLAY_MAGIC: u64 = 0x794c_7630;

/// The lanes of each kind of file system; a bench overrides rows with `set`.
#[derive(Clone, Debug)]
pub struct LaneTable {
    rows: Vec<(u64, FileLanes)>,
    others: FileLanes,
}

impl Default for LaneTable {
    fn default() -> Self {
        Self {
            rows: vec![
                // Reads go inline through the ring, cached or not (5.7 us by pread, 7.9 by
                // READ_FIXED). Writes always punt, in every form up to 6.18: a single stream into
                // reserved space makes 2.6 GB/s by WRITE_FIXED, 4.8 by the pool, 5.5 by pwrite;
                // the pool leaves the loop free.
                (EXT4_MAGIC, FileLanes::new(Lane::Ring, Lane::Pool)),
                // Both inline; writes since 6.0. A stream by WRITE_FIXED makes 5.9 to 8 GB/s,
                // by pwrite 5.6, by the pool 6.7.
                (XFS_MAGIC, FileLanes::new(Lane::Ring, Lane::Ring)),
                // Reads inline. Writes only into reserved space, since 6.1; a file that grows, as
                // ours do, punts: 84 us by WRITE_FIXED, 55 by pwrite, and the pool leaves the loop
                // free.
                (BTRFS_MAGIC, FileLanes::new(Lane::Ring, Lane::Pool)),
                (TMPFS_MAGIC, IN_MEMORY),
                (RAMFS_MAGIC, IN_MEMORY),
                // Everything punts. A read is mostly in the page cache below; a write may wait
                // for whatever the upper layer stands on.
                (OVERLAY_MAGIC, FileLanes::new(Lane::Inline, Lane::Pool)),
            ],
            // Not measured, and the network may be behind it (NFS, FUSE, 9p).
            others: FileLanes::new(Lane::Pool, Lane::Pool),
        }
    }
}

impl LaneTable {
    /// The same lanes whatever the file system.
    pub fn all(lanes: FileLanes) -> Self {
        Self {
            rows: Vec::new(),
            others: lanes,
        }
    }

    pub fn of(&self, magic: u64) -> FileLanes {
        self.rows
            .iter()
            .find(|(row_magic, _)| *row_magic == magic)
            .map_or(self.others, |(_, lanes)| *lanes)
    }

    /// Replaces or adds the row of one kind of file system.
    pub fn set(&mut self, magic: u64, lanes: FileLanes) {
        self.rows.retain(|(row_magic, _)| *row_magic != magic);
        self.rows.push((magic, lanes));
    }
}

/// The name people know a kind of file system by.
pub fn fs_name(magic: u64) -> Option<&'static str> {
    Some(match magic {
        EXT4_MAGIC => "ext4",
        XFS_MAGIC => "xfs",
        BTRFS_MAGIC => "btrfs",
        TMPFS_MAGIC => "tmpfs",
        RAMFS_MAGIC => "ramfs",
        OVERLAY_MAGIC => "overlay",
        _ => return None,
    })
}

/// Files whose lanes a ring remembers: those it moves blocks of at the moment.
const REMEMBERED_MAX: usize = 16;

/// The lanes of the files in use. One fstatfs (300 ns; on a network file system a round trip)
/// per file rather than per block.
pub(super) struct Lanes<Fd> {
    table: LaneTable,
    /// A `Weak` keeps the address from being used again, so equal addresses are the same file.
    remembered: Vec<(Weak<Fd>, FileLanes)>,
    /// The next place to be forgotten.
    oldest_index: usize,
}

impl<Fd: std::os::fd::AsFd> Lanes<Fd> {
    pub(super) fn new(table: LaneTable) -> Self {
        Self {
            table,
            remembered: Vec::with_capacity(REMEMBERED_MAX),
            oldest_index: 0,
        }
    }

    pub(super) fn of(&mut self, fd: &Arc<Fd>) -> FileLanes {
        let found = self
            .remembered
            .iter()
            .find(|(known, _)| std::ptr::eq(known.as_ptr(), Arc::as_ptr(fd)));
        if let Some((_, lanes)) = found {
            return *lanes;
        }
        let lanes = match retry_on_intr(|| rustix::fs::fstatfs(&**fd)) {
            Ok(statfs) => self.table.of(statfs.f_type.cast_unsigned()),
            Err(_) => self.table.others,
        };
        let place = (Arc::downgrade(fd), lanes);
        if self.remembered.len() < REMEMBERED_MAX {
            self.remembered.push(place);
        } else {
            self.remembered[self.oldest_index] = place;
            self.oldest_index = (self.oldest_index + 1) % REMEMBERED_MAX;
        }
        lanes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::disk::PosixDisk;
    use crate::engine::testing::TempDir;
    use crate::ops::Disk;

    #[test]
    fn a_row_is_found_by_its_magic_and_can_be_replaced() {
        let mut table = LaneTable::default();
        assert_eq!(table.of(XFS_MAGIC), FileLanes::new(Lane::Ring, Lane::Ring));
        assert_eq!(table.of(0x6969), FileLanes::new(Lane::Pool, Lane::Pool));
        table.set(XFS_MAGIC, FileLanes::new(Lane::Pool, Lane::Inline));
        assert_eq!(
            table.of(XFS_MAGIC),
            FileLanes::new(Lane::Pool, Lane::Inline)
        );
        assert_eq!(table.of(EXT4_MAGIC), FileLanes::new(Lane::Ring, Lane::Pool));
    }

    #[test]
    fn a_file_is_asked_about_once_while_it_is_among_the_last_used() {
        let (temp, disk) = (TempDir::new("lanes"), PosixDisk);
        let open = || Arc::new(temp.open());
        let expected = LaneTable::default().of(disk.fs_kind(&open()).unwrap().magic);
        let mut lanes = Lanes::new(LaneTable::default());
        let first = open();
        assert_eq!(lanes.of(&first), expected);
        assert_eq!(lanes.of(&first), expected);
        assert_eq!(lanes.remembered.len(), 1);
        for _ in 0..2 * REMEMBERED_MAX {
            // Dropped at once: its address must not be taken for the next one's.
            assert_eq!(lanes.of(&open()), expected);
        }
        assert_eq!(lanes.remembered.len(), REMEMBERED_MAX);
        let addresses: std::collections::BTreeSet<_> = lanes
            .remembered
            .iter()
            .map(|(known, _)| known.as_ptr().addr())
            .collect();
        assert_eq!(addresses.len(), REMEMBERED_MAX);
    }
}
