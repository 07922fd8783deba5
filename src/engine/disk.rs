//! `PosixDisk`, the `Disk` that is real: each call is one system call (two where Linux has no
//! single one), on a held directory and one component, without an allocation.
//!
//! **Modes are exact only under `umask(0)`.** The binaries set it before the first thread starts;
//! with it the mode argument of open, mkdir and mknod is what the object gets. Two exceptions
//! remain, both the kernel's: a directory with a default ACL gives its children their mode
//! (`has_default_acl` tells), and mkdir drops the set-id bits and passes on the parent's set-gid.
//!
//! EINTR is retried everywhere: network and FUSE file systems return it from calls that local
//! ones never interrupt.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, FlockOperation, Gid, Mode, OFlags, RawDir,
    ResolveFlags, SeekFrom, Timespec, Timestamps, UTIME_OMIT, Uid,
};
use rustix::io::retry_on_intr;

use crate::limits::{DIR_FDS_OPEN_MAX, DIR_FDS_SHARE};
use crate::model::entry::{Kind, Stat};
use crate::model::owner::{Owner, OwnerKind};
use crate::model::time::Mtime;
use crate::ops::disk::{FsKind, Identity, Lock};
use crate::ops::{Disk, Errno};

/// Bytes of directory entries that one getdents call may return: some 1000 entries with short
/// names. glibc and rsync use the same.
const DIR_SCRATCH_BYTES: usize = 32 * 1024;

const DIR_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// Without O_NONBLOCK the open of a fifo waits for a writer; without O_NOCTTY that of a terminal
/// could make it ours.
const READ_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// As for reading; a lease of somebody else's is waited for without it, too.
const WRITE_FLAGS: OFlags = OFlags::WRONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
const CREATE_FLAGS: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// `statfs` `f_type` of the file systems that live in memory (linux/magic.h).
pub const TMPFS_MAGIC: u64 = 0x0102_1994;
pub const RAMFS_MAGIC: u64 = 0x8584_58f6;

/// The file systems of this host.
#[derive(Clone, Copy, Debug, Default)]
pub struct PosixDisk;

impl Disk for PosixDisk {
    type Fd = OwnedFd;

    fn open_operator_dir(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let flags = DIR_FLAGS.difference(OFlags::NOFOLLOW);
        retry_on_intr(|| rustix::fs::openat(CWD, path, flags, Mode::empty()))
    }

    fn open_module_dir(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let without_links = ResolveFlags::NO_SYMLINKS;
        let open = || rustix::fs::openat2(CWD, path, DIR_FLAGS, Mode::empty(), without_links);
        match retry_on_intr(open) {
            // A container's filter does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => self.open_operator_dir(path),
            opened => opened,
        }
    }

    fn stat_operator_path(&self, path: &[u8], follow: bool) -> Result<Stat, Errno> {
        let flags = if follow {
            AtFlags::empty()
        } else {
            AtFlags::SYMLINK_NOFOLLOW
        };
        stat_from(&retry_on_intr(|| rustix::fs::statat(CWD, path, flags))?)
    }

    fn open_dir(&self, dir: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
        retry_on_intr(|| rustix::fs::openat(dir, name, DIR_FLAGS, Mode::empty()))
    }

    fn reopen_dir(&self, dir: &OwnedFd) -> Result<OwnedFd, Errno> {
        self.open_dir(dir, b".")
    }

    fn open_above(&self, dir: &OwnedFd, levels: usize) -> Result<OwnedFd, Errno> {
        self.open_dir(dir, &vec![&b".."[..]; levels].join(&b'/'))
    }

    fn open_file(&self, dir: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
        retry_on_intr(|| rustix::fs::openat(dir, name, READ_FLAGS, Mode::empty()))
    }

    fn create_file(&self, dir: &OwnedFd, name: &[u8], mode: u16) -> Result<OwnedFd, Errno> {
        retry_on_intr(|| rustix::fs::openat(dir, name, CREATE_FLAGS, mode_of(mode)))
    }

    fn open_to_write(&self, dir: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
        let fd = retry_on_intr(|| rustix::fs::openat(dir, name, WRITE_FLAGS, Mode::empty()))?;
        // The ring takes it for a wish never to wait, and fails where a block device would.
        rustix::fs::fcntl_setfl(&fd, OFlags::empty())?;
        Ok(fd)
    }

    // fstat and newfstatat rather than statx: the fields are these, and statx copies twice the
    // bytes out of the kernel for the same lookup.
    fn stat(&self, fd: &OwnedFd) -> Result<Stat, Errno> {
        stat_from(&retry_on_intr(|| rustix::fs::fstat(fd))?)
    }

    fn stat_at(&self, dir: &OwnedFd, name: &[u8]) -> Result<Stat, Errno> {
        stat_from(&retry_on_intr(|| {
            rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
        })?)
    }

    fn read_dir(
        &self,
        dir: &OwnedFd,
        scratch: &mut Vec<u8>,
        each: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, Errno> {
        scratch.clear();
        scratch.reserve_exact(DIR_SCRATCH_BYTES);
        let mut entries = RawDir::new(dir, scratch.spare_capacity_mut());
        loop {
            match entries.next() {
                None => return Ok(false),
                Some(Err(Errno::INTR)) => {}
                Some(Err(errno)) => return Err(errno),
                Some(Ok(entry)) => {
                    let name = entry.file_name().to_bytes();
                    if name != b"." && name != b".." {
                        each(name);
                    }
                    // The next one would cost another getdents: that is the next call's.
                    if entries.is_buffer_empty() {
                        return Ok(true);
                    }
                }
            }
        }
    }

    fn rewind_dir(&self, dir: &OwnedFd) -> Result<(), Errno> {
        rustix::fs::seek(dir, SeekFrom::Start(0)).map(drop)
    }

    fn read_link(&self, dir: &OwnedFd, name: &[u8], target: &mut [u8]) -> Result<usize, Errno> {
        retry_on_intr(|| rustix::fs::readlinkat_raw(dir, name, &mut *target))
    }

    fn read(&self, fd: &OwnedFd, into: &mut [u8], offset: u64) -> Result<usize, Errno> {
        retry_on_intr(|| rustix::io::pread(fd, &mut *into, offset))
    }

    fn write(&self, fd: &OwnedFd, from: &[u8], offset: u64) -> Result<usize, Errno> {
        retry_on_intr(|| rustix::io::pwrite(fd, from, offset))
    }

    fn set_size(&self, fd: &OwnedFd, bytes: u64) -> Result<(), Errno> {
        retry_on_intr(|| rustix::fs::ftruncate(fd, bytes))
    }

    fn punch_hole(&self, fd: &OwnedFd, offset: u64, bytes: u64) -> Result<(), Errno> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        retry_on_intr(|| rustix::fs::fallocate(fd, flags, offset, bytes))
    }

    fn sync_file(&self, fd: &OwnedFd) -> Result<(), Errno> {
        // Not fdatasync: owner, mode and times were set just before and must survive too.
        retry_on_intr(|| rustix::fs::fsync(fd))
    }

    fn sync_fs(&self, fd: &OwnedFd) -> Result<(), Errno> {
        retry_on_intr(|| rustix::fs::syncfs(fd))
    }

    fn set_mode(&self, fd: &OwnedFd, mode: u16) -> Result<(), Errno> {
        retry_on_intr(|| rustix::fs::fchmod(fd, mode_of(mode)))
    }

    fn set_owner(&self, fd: &OwnedFd, uid: u32, gid: u32) -> Result<(), Errno> {
        retry_on_intr(|| rustix::fs::fchown(fd, uid_of(uid), gid_of(gid)))
    }

    fn set_mtime(&self, fd: &OwnedFd, mtime: Mtime) -> Result<(), Errno> {
        let times = times_of(mtime);
        retry_on_intr(|| rustix::fs::futimens(fd, &times))
    }

    fn set_mode_at(&self, dir: &OwnedFd, name: &[u8], mode: u16) -> Result<(), Errno> {
        // fchmodat follows symlinks and fchmodat2 came with 6.6. This way works on every kernel
        // with /proc: a descriptor that can't be swapped under us, looked at, then changed
        // through its magic link.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| rustix::fs::openat(dir, name, flags, Mode::empty()))?;
        if self.stat(&fd)?.kind == Kind::Symlink {
            return Err(Errno::OPNOTSUPP);
        }
        let link = ProcFdPath::of(&fd);
        retry_on_intr(|| rustix::fs::chmod(link.as_bytes(), mode_of(mode)))
    }

    fn set_owner_at(&self, dir: &OwnedFd, name: &[u8], uid: u32, gid: u32) -> Result<(), Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        retry_on_intr(|| rustix::fs::chownat(dir, name, uid_of(uid), gid_of(gid), flags))
    }

    fn set_mtime_at(&self, dir: &OwnedFd, name: &[u8], mtime: Mtime) -> Result<(), Errno> {
        let times = times_of(mtime);
        retry_on_intr(|| rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW))
    }

    fn make_dir(&self, dir: &OwnedFd, name: &[u8], mode: u16) -> Result<(), Errno> {
        retry_on_intr(|| rustix::fs::mkdirat(dir, name, mode_of(mode)))
    }

    fn make_symlink(&self, dir: &OwnedFd, name: &[u8], target: &[u8]) -> Result<(), Errno> {
        retry_on_intr(|| rustix::fs::symlinkat(target, dir, name))
    }

    fn make_node(
        &self,
        dir: &OwnedFd,
        name: &[u8],
        kind: Kind,
        mode: u16,
        rdev: u64,
    ) -> Result<(), Errno> {
        let file_type = match kind {
            Kind::Fifo => FileType::Fifo,
            Kind::Socket => FileType::Socket,
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            Kind::File | Kind::Dir | Kind::Symlink => return Err(Errno::INVAL),
        };
        let rdev = if kind.is_device() { rdev } else { 0 };
        retry_on_intr(|| rustix::fs::mknodat(dir, name, file_type, mode_of(mode), rdev))
    }

    fn rename(&self, dir: &OwnedFd, from: &[u8], to: &[u8]) -> Result<(), Errno> {
        retry_on_intr(|| rustix::fs::renameat(dir, from, dir, to))
    }

    fn unlink(&self, dir: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        retry_on_intr(|| rustix::fs::unlinkat(dir, name, AtFlags::empty()))
    }

    fn remove_dir(&self, dir: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        retry_on_intr(|| rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR))
    }

    fn try_lock(&self, fd: &OwnedFd, lock: Lock) -> Result<bool, Errno> {
        let operation = match lock {
            Lock::Shared => FlockOperation::NonBlockingLockShared,
            Lock::Exclusive => FlockOperation::NonBlockingLockExclusive,
        };
        match retry_on_intr(|| rustix::fs::flock(fd, operation)) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    fn unlock(&self, fd: &OwnedFd) -> Result<(), Errno> {
        retry_on_intr(|| rustix::fs::flock(fd, FlockOperation::Unlock))
    }

    fn fs_kind(&self, fd: &OwnedFd) -> Result<FsKind, Errno> {
        let magic = retry_on_intr(|| rustix::fs::fstatfs(fd))?
            .f_type
            .cast_unsigned();
        Ok(FsKind {
            magic,
            is_volatile: magic == TMPFS_MAGIC || magic == RAMFS_MAGIC,
        })
    }

    fn has_default_acl(&self, dir: &OwnedFd) -> bool {
        rustix::fs::fgetxattr_query(dir, c"system.posix_acl_default")
            .is_ok_and(|acl_bytes| acl_bytes > 0)
    }

    fn now(&self) -> Mtime {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        Mtime {
            sec: now.tv_sec,
            nsec: u32::try_from(now.tv_nsec).expect("below a second"),
        }
    }

    fn booted(&self) -> Mtime {
        let clock = |id| Duration::try_from(rustix::time::clock_gettime(id)).unwrap_or_default();
        let up = clock(rustix::time::ClockId::Boottime);
        let began = clock(rustix::time::ClockId::Realtime).saturating_sub(up);
        Mtime {
            sec: i64::try_from(began.as_secs()).unwrap_or(i64::MAX),
            nsec: began.subsec_nanos(),
        }
    }

    fn boot_id(&self) -> [u8; 16] {
        // Without /proc nobody tells which boot this is, and each process takes itself for one: too much is in
        // doubt to the next one then, and never too little.
        static BOOT_ID: OnceLock<[u8; 16]> = OnceLock::new();
        *BOOT_ID.get_or_init(|| {
            let told = std::fs::read("/proc/sys/kernel/random/boot_id").ok();
            told.and_then(|text| parse_uuid(&text)).unwrap_or_else(|| {
                let [high, low] = [(); 2].map(|()| u128::from(self.random_u64()));
                (high << 64 | low).to_le_bytes()
            })
        })
    }

    fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        assert_eq!(filled, Ok(8), "getrandom gives up to 256 bytes whole");
        u64::from_ne_bytes(bytes)
    }

    fn dirs_open_max(&self) -> usize {
        // Asked with every directory, and raised before the first.
        static MAX: OnceLock<usize> = OnceLock::new();
        *MAX.get_or_init(|| {
            let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
            let share = limit.map_or(u64::MAX, |count| count / DIR_FDS_SHARE);
            usize::try_from(share)
                .unwrap_or(usize::MAX)
                .clamp(1, DIR_FDS_OPEN_MAX)
        })
    }

    fn peak_rss_bytes(&self) -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    }

    fn identity(&self) -> Identity {
        let uid = rustix::process::geteuid();
        Identity {
            uid: uid.as_raw(),
            gid: rustix::process::getegid().as_raw(),
            is_root: uid.is_root() && may_set_owners(),
        }
    }

    fn owner_name(&self, owner: Owner) -> Option<Vec<u8>> {
        let name = match owner.kind {
            OwnerKind::User => nix::unistd::User::from_uid(owner.id.into()).ok()??.name,
            OwnerKind::Group => nix::unistd::Group::from_gid(owner.id.into()).ok()??.name,
        };
        // A name that is not UTF-8 comes with replacement characters: it would not be found again.
        (!name.contains(char::REPLACEMENT_CHARACTER)).then(|| name.into_bytes())
    }

    fn owner_id(&self, kind: OwnerKind, name: &[u8]) -> Option<u32> {
        let name = std::str::from_utf8(name).ok()?;
        Some(match kind {
            OwnerKind::User => nix::unistd::User::from_name(name).ok()??.uid.as_raw(),
            OwnerKind::Group => nix::unistd::Group::from_name(name).ok()??.gid.as_raw(),
        })
    }
}

fn mode_of(mode: u16) -> Mode {
    Mode::from_raw_mode(u32::from(mode & 0o7777))
}

/// `None`, which means "leave it", for the one value that chown reserves for that.
fn uid_of(uid: u32) -> Option<Uid> {
    (uid != u32::MAX).then(|| Uid::from_raw(uid))
}

fn gid_of(gid: u32) -> Option<Gid> {
    (gid != u32::MAX).then(|| Gid::from_raw(gid))
}

fn times_of(mtime: Mtime) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime.sec,
            tv_nsec: i64::from(mtime.nsec),
        },
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::unnecessary_cast,
    clippy::useless_conversion,
    reason = "the widths of `struct stat` differ between architectures; the values don't"
)]
fn stat_from(stat: &rustix::fs::Stat) -> Result<Stat, Errno> {
    let st_mode = (stat.st_mode & 0o177_777) as u16;
    let kind = Kind::from_mode(st_mode).ok_or(Errno::IO)?;
    let size = if kind.is_device() {
        stat.st_rdev.into()
    } else {
        // A FUSE server may say anything.
        u64::try_from(stat.st_size as i64).map_err(|_| Errno::OVERFLOW)?
    };
    Ok(Stat {
        kind,
        mode: st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size,
        // In blocks of 512 bytes, whatever those of the file system are.
        is_sparse: (stat.st_blocks as u64).saturating_mul(512) < size,
        // The kernel keeps nanoseconds below 10^9, also before 1970.
        mtime: Mtime {
            sec: stat.st_mtime as i64,
            nsec: stat.st_mtime_nsec as u32,
        },
        ctime: Mtime {
            sec: stat.st_ctime as i64,
            nsec: stat.st_ctime_nsec as u32,
        },
        dev: stat.st_dev.into(),
        ino: stat.st_ino.into(),
        nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
    })
}

/// In a container root may be nothing but a name.
fn may_set_owners() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::CHOWN))
}

/// `/proc/self/fd/N` without an allocation.
struct ProcFdPath {
    bytes: [u8; 32],
    len: usize,
}

impl ProcFdPath {
    fn of(fd: &OwnedFd) -> Self {
        const PREFIX: &[u8] = b"/proc/self/fd/";
        let number = rustix::path::DecInt::new(fd.as_raw_fd());
        let digits = number.as_bytes();
        let len = PREFIX.len() + digits.len();
        let mut bytes = [0; 32];
        bytes[..PREFIX.len()].copy_from_slice(PREFIX);
        bytes[PREFIX.len()..len].copy_from_slice(digits);
        Self { bytes, len }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The 16 bytes of `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`.
fn parse_uuid(text: &[u8]) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    let mut digits_count = 0;
    for &byte in text.trim_ascii() {
        if byte == b'-' {
            continue;
        }
        let digit = u8::try_from(char::from(byte).to_digit(16)?).ok()?;
        let place: &mut u8 = bytes.get_mut(digits_count / 2)?;
        *place = *place << 4 | digit;
        digits_count += 1;
    }
    (digits_count == 32).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::TempDir;

    fn names(disk: PosixDisk, dir: &OwnedFd) -> Vec<Vec<u8>> {
        let mut scratch = Vec::new();
        let mut found = Vec::new();
        while disk
            .read_dir(dir, &mut scratch, &mut |name| found.push(name.to_vec()))
            .unwrap()
        {}
        found.sort();
        found
    }

    #[test]
    fn a_made_file_is_stated_with_what_was_set() {
        let (temp, disk) = (TempDir::new("disk-stat"), PosixDisk);
        let dir = temp.open();
        let fd = disk.create_file(&dir, b"f", 0o600).unwrap();
        assert_eq!(disk.write(&fd, b"hello", 3).unwrap(), 5);
        disk.set_mode(&fd, 0o4751).unwrap();
        let before_1970 = Mtime::new(-2, 999_999_999).unwrap();
        disk.set_mtime(&fd, before_1970).unwrap();

        let stat = disk.stat_at(&dir, b"f").unwrap();
        assert_eq!(stat, disk.stat(&fd).unwrap());
        assert_eq!((stat.kind, stat.mode, stat.size), (Kind::File, 0o4751, 8));
        assert_eq!(stat.mtime, before_1970);
        let me = disk.identity();
        assert_eq!((stat.uid, stat.nlink), (me.uid, 1));
        assert_eq!(me.is_root, me.uid == 0 && may_set_owners());

        let again = disk.open_file(&dir, b"f").unwrap();
        let mut bytes = [0xff; 16];
        assert_eq!(disk.read(&again, &mut bytes, 2).unwrap(), 6);
        assert_eq!(&bytes[..6], b"\0hello");
        assert_eq!(
            disk.create_file(&dir, b"f", 0o600).unwrap_err(),
            Errno::EXIST
        );
    }

    #[test]
    fn no_call_follows_a_symlink() {
        let (temp, disk) = (TempDir::new("disk-link"), PosixDisk);
        let dir = temp.open();
        disk.make_dir(&dir, b"real", 0o755).unwrap();
        disk.make_symlink(&dir, b"link", b"real").unwrap();
        assert_eq!(disk.open_file(&dir, b"link").unwrap_err(), Errno::LOOP);
        assert!(disk.open_dir(&dir, b"link").is_err());
        assert!(disk.create_file(&dir, b"link", 0o600).is_err());
        assert_eq!(
            disk.set_mode_at(&dir, b"link", 0o700).unwrap_err(),
            Errno::OPNOTSUPP
        );
        let mtime = Mtime::new(5, 6).unwrap();
        disk.set_mtime_at(&dir, b"link", mtime).unwrap();
        let link = disk.stat_at(&dir, b"link").unwrap();
        assert_eq!((link.kind, link.mtime), (Kind::Symlink, mtime));
        assert_ne!(disk.stat_at(&dir, b"real").unwrap().mtime, mtime);

        let mut target = [0; 16];
        assert_eq!(disk.read_link(&dir, b"link", &mut target).unwrap(), 4);
        assert_eq!(disk.read_link(&dir, b"link", &mut target[..2]).unwrap(), 2);

        // An operator's own path is followed.
        let path = temp.path_bytes(b"link");
        assert!(disk.open_operator_dir(&path).is_ok());
        let followed = disk.stat_operator_path(&path, true).unwrap();
        assert_eq!(followed.kind, Kind::Dir);
        assert_eq!(
            disk.stat_operator_path(&path, false).unwrap().kind,
            Kind::Symlink
        );
    }

    #[test]
    fn a_listing_comes_in_parts_without_dot_and_dot_dot_and_can_start_again() {
        let (temp, disk) = (TempDir::new("disk-list"), PosixDisk);
        let dir = temp.open();
        for number in 0..1500 {
            let name = format!("a-name-of-some-length-{number:05}");
            drop(disk.create_file(&dir, name.as_bytes(), 0o600).unwrap());
        }
        let mut calls_count = 0;
        let mut scratch = Vec::new();
        let mut entries_count = 0;
        while disk
            .read_dir(&dir, &mut scratch, &mut |_| entries_count += 1)
            .unwrap()
        {
            calls_count += 1;
        }
        assert_eq!(entries_count, 1500);
        assert!(calls_count > 1);
        assert_eq!(scratch.capacity(), DIR_SCRATCH_BYTES);
        disk.rewind_dir(&dir).unwrap();
        let all = names(disk, &dir);
        assert_eq!(all.len(), 1500);
        assert_eq!(all[7], b"a-name-of-some-length-00007");
    }

    #[test]
    fn entries_are_renamed_over_and_removed() {
        let (temp, disk) = (TempDir::new("disk-rename"), PosixDisk);
        let dir = temp.open();
        drop(disk.create_file(&dir, b"a", 0o644).unwrap());
        drop(disk.create_file(&dir, b"b", 0o600).unwrap());
        disk.rename(&dir, b"a", b"b").unwrap();
        disk.set_mode_at(&dir, b"b", 0o640).unwrap();
        assert_eq!(disk.stat_at(&dir, b"b").unwrap().mode, 0o640);
        disk.make_dir(&dir, b"d", 0o700).unwrap();
        assert_eq!(disk.unlink(&dir, b"d").unwrap_err(), Errno::ISDIR);
        assert_eq!(disk.remove_dir(&dir, b"b").unwrap_err(), Errno::NOTDIR);
        assert_eq!(names(disk, &dir), [b"b".to_vec(), b"d".to_vec()]);
        disk.unlink(&dir, b"b").unwrap();
        disk.remove_dir(&dir, b"d").unwrap();
        assert!(names(disk, &dir).is_empty());
    }

    #[test]
    fn a_fifo_is_made_and_opened_without_waiting_for_a_writer() {
        let (temp, disk) = (TempDir::new("disk-fifo"), PosixDisk);
        let dir = temp.open();
        disk.make_node(&dir, b"p", Kind::Fifo, 0o600, 7).unwrap();
        let stat = disk.stat_at(&dir, b"p").unwrap();
        assert_eq!((stat.kind, stat.size), (Kind::Fifo, 0));
        assert!(disk.open_file(&dir, b"p").is_ok());
        assert_eq!(
            disk.make_node(&dir, b"q", Kind::Dir, 0o600, 0).unwrap_err(),
            Errno::INVAL
        );
    }

    #[test]
    fn a_device_shows_its_number_where_a_file_shows_its_size() {
        let disk = PosixDisk;
        let null = disk.stat_operator_path(b"/dev/null", true).unwrap();
        assert_eq!(null.kind, Kind::CharDevice);
        assert_eq!(null.size, rustix::fs::makedev(1, 3));
    }

    #[test]
    fn an_exclusive_lock_excludes_and_is_given_back() {
        let (temp, disk) = (TempDir::new("disk-lock"), PosixDisk);
        let (one, other) = (temp.open(), temp.open());
        assert!(disk.try_lock(&one, Lock::Shared).unwrap());
        assert!(disk.try_lock(&other, Lock::Shared).unwrap());
        assert!(!disk.try_lock(&one, Lock::Exclusive).unwrap());
        disk.unlock(&other).unwrap();
        assert!(disk.try_lock(&one, Lock::Exclusive).unwrap());
        assert!(!disk.try_lock(&other, Lock::Shared).unwrap());
    }

    #[test]
    fn a_file_has_the_size_that_it_is_given() {
        let (temp, disk) = (TempDir::new("disk-size"), PosixDisk);
        let dir = temp.open();
        let fd = disk.create_file(&dir, b"f", 0o600).unwrap();
        assert_eq!(disk.stat(&fd).unwrap().size, 0);
        disk.set_size(&fd, 4097).unwrap();
        assert_eq!(disk.stat(&fd).unwrap().size, 4097);
        disk.sync_file(&fd).unwrap();
    }

    #[test]
    fn what_is_there_is_opened_to_be_written_and_nothing_else() {
        let (temp, disk) = (TempDir::new("disk-write"), PosixDisk);
        let dir = temp.open();
        let made = disk.create_file(&dir, b"f", 0o600).unwrap();
        disk.write(&made, b"old text", 0).unwrap();
        disk.make_symlink(&dir, b"link", b"f").unwrap();
        disk.make_node(&dir, b"p", Kind::Fifo, 0o600, 0).unwrap();
        let refused = |name| disk.open_to_write(&dir, name).unwrap_err();
        assert_eq!(refused(b"none"), Errno::NOENT);
        assert_eq!(refused(b"link"), Errno::LOOP);
        assert_eq!(
            refused(b"p"),
            Errno::NXIO,
            "nobody reads, and it is not waited for"
        );
        let fd = disk.open_to_write(&dir, b"f").unwrap();
        assert_eq!(disk.write(&fd, b"new", 0), Ok(3));
        let mut bytes = [0; 16];
        let again = disk.open_file(&dir, b"f").unwrap();
        assert_eq!(disk.read(&again, &mut bytes, 0), Ok(8));
        assert_eq!(&bytes[..8], b"new text");
    }

    #[test]
    fn a_hole_reads_as_zeros_and_the_size_stays() {
        let (temp, disk) = (TempDir::new("disk-hole"), PosixDisk);
        let dir = temp.open();
        let fd = disk.create_file(&dir, b"f", 0o600).unwrap();
        disk.write(&fd, &[7; 20_000], 0).unwrap();
        match disk.punch_hole(&fd, 4096, 100_000) {
            Err(Errno::OPNOTSUPP) => return, // Not on this file system.
            done => done.unwrap(),
        }
        assert_eq!(disk.stat(&fd).unwrap().size, 20_000);
        let mut bytes = [1; 20_000];
        let again = disk.open_file(&dir, b"f").unwrap();
        assert_eq!(disk.read(&again, &mut bytes, 0), Ok(20_000));
        assert!(bytes[..4096].iter().all(|byte| *byte == 7));
        assert!(bytes[4096..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn this_host_is_identified() {
        let disk = PosixDisk;
        assert_eq!(disk.boot_id(), disk.boot_id());
        let temp = TempDir::new("disk-host");
        let dir = temp.open();
        assert_ne!(disk.fs_kind(&dir).unwrap().magic, 0);
        assert!(!disk.has_default_acl(&dir));
        if let Ok(shm) = disk.open_operator_dir(b"/dev/shm") {
            let kind = disk.fs_kind(&shm).unwrap();
            assert_eq!(kind.is_volatile, kind.magic == TMPFS_MAGIC);
        }
    }

    #[test]
    fn a_boot_id_is_read_as_sixteen_bytes_or_not_at_all() {
        let text = b"01234567-89ab-cdef-0123-456789abcdef\n";
        let expected = [1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];
        assert_eq!(parse_uuid(text).unwrap()[..8], expected);
        assert_eq!(parse_uuid(&text[..20]), None);
        assert_eq!(parse_uuid(b"01234567-89ab-cdef-0123-456789abcdef00"), None);
        assert_eq!(parse_uuid(b"zz"), None);
    }
}
