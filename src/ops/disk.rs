//! `Disk`: every call that job bodies make on a file system. The engine's `PosixDisk` makes them
//! for real; the simulator's `SimDisk` may fail, crash or change the tree before any single one.
//!
//! Objects are named by a held directory descriptor and one component, never by a path, and no
//! call follows a symlink. `&[u8]` names are one component without NUL, checked by the caller
//! (`model::name`), and may be our own `.sy.*` names.

use std::sync::Arc;

use super::Errno;
use crate::limits::DIR_FDS_OPEN_MAX;
use crate::model::entry::{Kind, Stat};
use crate::model::owner::{Owner, OwnerKind};
use crate::model::time::Mtime;

/// What kind of file system a descriptor stands on, as far as it changes what we do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FsKind {
    /// `statfs` `f_type`.
    pub magic: u64,
    /// Lost with the host's power anyway (tmpfs, ramfs): needs no marker and no sync.
    pub is_volatile: bool,
}

/// An advisory lock on a directory's open descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lock {
    Shared,
    Exclusive,
}

pub trait Disk: Clone + Send + Sync + 'static {
    /// An open file or directory; closing is dropping.
    type Fd: Send + Sync + 'static;

    /// Opens an operator's own path (SRC, DEST or a module root), following its symlinks.
    fn open_operator_dir(&self, path: &[u8]) -> Result<Self::Fd, Errno>;
    /// Opens a module's root by its path without symlinks, as it was at the server's start: `LOOP` where
    /// one has come into it since, for peers may write to what is above.
    fn open_module_dir(&self, path: &[u8]) -> Result<Self::Fd, Errno>;
    /// `lstat`, or `stat` where `follow`, of an operator's own path.
    fn stat_operator_path(&self, path: &[u8], follow: bool) -> Result<Stat, Errno>;

    /// Opens a directory below `dir` for listing and for use as a base: O_RDONLY, no symlink.
    fn open_dir(&self, dir: &Self::Fd, name: &[u8]) -> Result<Self::Fd, Errno>;
    /// Opens an open directory once more: a listing position, a lock and errors of syncs of its own.
    fn reopen_dir(&self, dir: &Self::Fd) -> Result<Self::Fd, Errno>;
    /// Opens the directory so many levels above one, at most the topmost, to be listed.
    fn open_above(&self, dir: &Self::Fd, levels: usize) -> Result<Self::Fd, Errno>;
    /// Opens a file to be read: O_NONBLOCK, O_NOCTTY, no symlink; the caller checks what it got.
    fn open_file(&self, dir: &Self::Fd, name: &[u8]) -> Result<Self::Fd, Errno>;
    /// Makes a new file, write-only, that did not exist (O_EXCL). `mode` is exact: no umask.
    fn create_file(&self, dir: &Self::Fd, name: &[u8], mode: u16) -> Result<Self::Fd, Errno>;
    /// Opens a file that is there to be written: O_WRONLY, O_NONBLOCK, O_NOCTTY, no symlink, nothing made or
    /// cut off; the caller checks what it got.
    fn open_to_write(&self, dir: &Self::Fd, name: &[u8]) -> Result<Self::Fd, Errno>;
    fn stat(&self, fd: &Self::Fd) -> Result<Stat, Errno>;
    fn stat_at(&self, dir: &Self::Fd, name: &[u8]) -> Result<Stat, Errno>;
    /// Hands the next few hundred entries to `each`; `false` at the end of the directory. The
    /// position belongs to the descriptor. `scratch` is reused between calls.
    fn read_dir(
        &self,
        dir: &Self::Fd,
        scratch: &mut Vec<u8>,
        each: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, Errno>;
    /// Sets the listing position of `dir` back to the start.
    fn rewind_dir(&self, dir: &Self::Fd) -> Result<(), Errno>;
    /// The target of a symlink into `target`; its length, `target.len()` when it was cut.
    fn read_link(&self, dir: &Self::Fd, name: &[u8], target: &mut [u8]) -> Result<usize, Errno>;

    /// May be short; 0 is the end of the file. EINTR is retried below.
    fn read(&self, fd: &Self::Fd, into: &mut [u8], offset: u64) -> Result<usize, Errno>;
    /// May be short. EINTR is retried below.
    fn write(&self, fd: &Self::Fd, from: &[u8], offset: u64) -> Result<usize, Errno>;
    fn set_size(&self, fd: &Self::Fd, bytes: u64) -> Result<(), Errno>;
    /// Makes zeros of a range that take no space; the size stays. OPNOTSUPP where that can't be.
    fn punch_hole(&self, fd: &Self::Fd, offset: u64, bytes: u64) -> Result<(), Errno>;
    fn sync_file(&self, fd: &Self::Fd) -> Result<(), Errno>;
    /// `syncfs` of the file system that `fd` stands on.
    fn sync_fs(&self, fd: &Self::Fd) -> Result<(), Errno>;

    fn set_mode(&self, fd: &Self::Fd, mode: u16) -> Result<(), Errno>;
    fn set_owner(&self, fd: &Self::Fd, uid: u32, gid: u32) -> Result<(), Errno>;
    fn set_mtime(&self, fd: &Self::Fd, mtime: Mtime) -> Result<(), Errno>;
    /// Of an entry that is not a symlink (fchmodat2 with NOFOLLOW, or through /proc/self/fd).
    fn set_mode_at(&self, dir: &Self::Fd, name: &[u8], mode: u16) -> Result<(), Errno>;
    /// Of the entry itself, a symlink too.
    fn set_owner_at(&self, dir: &Self::Fd, name: &[u8], uid: u32, gid: u32) -> Result<(), Errno>;
    /// Of the entry itself, a symlink too.
    fn set_mtime_at(&self, dir: &Self::Fd, name: &[u8], mtime: Mtime) -> Result<(), Errno>;

    fn make_dir(&self, dir: &Self::Fd, name: &[u8], mode: u16) -> Result<(), Errno>;
    fn make_symlink(&self, dir: &Self::Fd, name: &[u8], target: &[u8]) -> Result<(), Errno>;
    /// Fifo, socket or device; `rdev` counts for devices only.
    fn make_node(
        &self,
        dir: &Self::Fd,
        name: &[u8],
        kind: Kind,
        mode: u16,
        rdev: u64,
    ) -> Result<(), Errno>;
    /// Renames within one directory, replacing what is there.
    fn rename(&self, dir: &Self::Fd, from: &[u8], to: &[u8]) -> Result<(), Errno>;
    /// Removes anything but a directory.
    fn unlink(&self, dir: &Self::Fd, name: &[u8]) -> Result<(), Errno>;
    /// Removes an empty directory.
    fn remove_dir(&self, dir: &Self::Fd, name: &[u8]) -> Result<(), Errno>;

    /// Tries to take an advisory lock on `fd` at once; `false` when another holds it.
    fn try_lock(&self, fd: &Self::Fd, lock: Lock) -> Result<bool, Errno>;
    fn unlock(&self, fd: &Self::Fd) -> Result<(), Errno>;
    fn fs_kind(&self, fd: &Self::Fd) -> Result<FsKind, Errno>;
    /// Whether new entries of this directory get their mode from a default ACL.
    fn has_default_acl(&self, dir: &Self::Fd) -> bool;
    /// The time of day, by the clock that stamps files which change now.
    fn now(&self) -> Mtime;
    /// When this boot of this host began, by the clock of `now`.
    fn booted(&self) -> Mtime;
    /// Identifies this boot of this host (`/proc/sys/kernel/random/boot_id`), 16 bytes.
    fn boot_id(&self) -> [u8; 16];
    /// 64 random bits, for names that must meet no other's.
    fn random_u64(&self) -> u64;
    /// The user and group this process acts as, and whether it may give files away (CAP_CHOWN).
    fn identity(&self) -> Identity;
    /// What a user or group is called here, if it has a name. May ask a directory service and wait
    /// for it; one that does not answer is as good as no name.
    fn owner_name(&self, owner: Owner) -> Option<Vec<u8>>;
    /// The user or group of that name. Waits as `owner_name`.
    fn owner_id(&self, kind: OwnerKind, name: &[u8]) -> Option<u32>;
    /// Directories that a session may keep open, where its process may have so many files.
    fn dirs_open_max(&self) -> usize {
        DIR_FDS_OPEN_MAX
    }
    /// Peak resident memory of this process.
    fn peak_rss_bytes(&self) -> u64 {
        0
    }
}

/// Who this process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Effective user 0, with the right to give files to others: sets owners, makes devices.
    pub is_root: bool,
}

/// A descriptor that several directories, jobs and operations share.
pub type SharedFd<D> = Arc<<D as Disk>::Fd>;
