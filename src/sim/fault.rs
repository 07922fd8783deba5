//! What a simulated disk is like and what goes wrong with it: options, faults, and the calls that
//! hooks and faults are aimed at.

use crate::model::owner::Owner;
use crate::ops::disk::Identity;

/// How a simulated disk is, as long as it lives.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// Bytes of content that fit, in 4 KiB blocks a file. Holes count; names do not.
    pub capacity_bytes: u64,
    pub inodes_max: u64,
    /// Descriptors of one process; above it opening fails with EMFILE.
    pub fds_max: usize,
    /// Lost with the power altogether, as tmpfs.
    pub is_volatile: bool,
    pub has_default_acl: bool,
    /// New entries get their directory's group, set-group-id or not: the mount option `grpid`.
    pub gives_dir_group: bool,
    pub identity: Identity,
    /// Users and groups that have names on this host.
    pub owners: Vec<(Owner, &'static [u8])>,
    /// Seconds by which this host's clock is ahead of the world.
    pub skew_sec: i64,
    /// Nanoseconds between two times that the file system's own clock can tell apart.
    pub tick_ns: u64,
    /// Nanoseconds that `set_mtime` is cut to: 1, or 1e9 on old file systems.
    pub mtime_granule_ns: u64,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            capacity_bytes: 1 << 40,
            inodes_max: 1 << 32,
            fds_max: 1 << 20,
            is_volatile: false,
            has_default_acl: false,
            gives_dir_group: false,
            identity: Identity {
                uid: 0,
                gid: 0,
                is_root: true,
            },
            owners: Vec::new(),
            skew_sec: 0,
            // CONFIG_HZ=250, the usual kernel: the clock that stamps inodes moves with the jiffy.
            tick_ns: 4_000_000,
            mtime_granule_ns: 1,
        }
    }
}

/// How often what goes wrong, in calls of a thousand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DiskFaults {
    /// Reads and writes that move fewer bytes than they could.
    pub short_per_mille: u32,
    /// EIO from any call that can touch the device.
    pub io_error_per_mille: u32,
    /// The same from a sync alone: writeback is where a failing device shows first.
    pub sync_error_per_mille: u32,
    /// ENOSPC from a call that makes something or writes, though there is room.
    pub no_space_per_mille: u32,
    /// EMFILE from a call that opens.
    pub no_fd_per_mille: u32,
}

/// The calls of `ops::Disk` that can fail.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CallKind {
    OpenOperatorDir,
    StatOperatorPath,
    OpenDir,
    OpenFile,
    CreateFile,
    OpenToWrite,
    Stat,
    StatAt,
    ReadDir,
    RewindDir,
    ReadLink,
    Read,
    Write,
    SetSize,
    PunchHole,
    SyncFile,
    SyncFs,
    SetMode,
    SetOwner,
    SetMtime,
    SetModeAt,
    SetOwnerAt,
    SetMtimeAt,
    MakeDir,
    MakeSymlink,
    MakeNode,
    Rename,
    Unlink,
    RemoveDir,
    TryLock,
    Unlock,
    FsKind,
}

impl CallKind {
    /// Gives a descriptor.
    pub fn opens(self) -> bool {
        matches!(
            self,
            Self::OpenOperatorDir
                | Self::OpenDir
                | Self::OpenFile
                | Self::OpenToWrite
                | Self::CreateFile
        )
    }

    /// Needs room on the device.
    pub fn needs_space(self) -> bool {
        matches!(
            self,
            Self::CreateFile
                | Self::Write
                | Self::MakeDir
                | Self::MakeSymlink
                | Self::MakeNode
                | Self::Rename
        )
    }

    /// Brings to the device what was written.
    pub fn syncs(self) -> bool {
        matches!(self, Self::SyncFile | Self::SyncFs)
    }

    /// Stays in memory whatever the device does.
    pub fn is_in_memory(self) -> bool {
        matches!(
            self,
            Self::Stat | Self::RewindDir | Self::TryLock | Self::Unlock | Self::FsKind
        )
    }
}

/// A call that is about to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// Counts the calls of one process, from 1.
    pub number: u64,
    pub kind: CallKind,
    /// The component it names (of a rename the old one); an operator's path; empty by descriptor.
    pub name: Vec<u8>,
}

/// What ended the process. Files stay in either case, descriptors and locks go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// The process alone: everything it wrote is in the page cache and stays.
    ProcessDeath,
    /// The whole host, and with it every process on the disk. What was not synced survives in
    /// part, as the seed wants; the boot id changes.
    PowerCut,
}
