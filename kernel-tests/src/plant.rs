//! Making and changing entries, each in one line. A failure here is the test machine's, so it
//! panics.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, RenameFlags, Timespec, Timestamps, Uid};

/// A regular file, with its parents.
#[track_caller]
pub fn file(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    let path = path.as_ref();
    if let Some(parent) = path.parent() {
        dir(parent);
    }
    std::fs::write(path, bytes).unwrap_or_else(|why| panic!("write {}: {why}", path.display()));
}

/// A file of nothing but a hole.
#[track_caller]
pub fn sparse(path: impl AsRef<Path>, bytes: u64) {
    file(path.as_ref(), "");
    let opened = std::fs::File::options().write(true).open(path);
    opened
        .and_then(|file| file.set_len(bytes))
        .expect("a hole takes no space");
}

/// A directory, with its parents; it may be there already.
#[track_caller]
pub fn dir(path: impl AsRef<Path>) {
    let path = path.as_ref();
    std::fs::create_dir_all(path).unwrap_or_else(|why| panic!("mkdir {}: {why}", path.display()));
}

#[track_caller]
pub fn symlink(target: impl AsRef<OsStr>, path: impl AsRef<Path>) {
    let path = path.as_ref();
    if let Some(parent) = path.parent() {
        dir(parent);
    }
    std::os::unix::fs::symlink(target.as_ref(), path)
        .unwrap_or_else(|why| panic!("symlink {}: {why}", path.display()));
}

/// A fifo, a socket, or with a number a device.
#[track_caller]
pub fn node(path: impl AsRef<Path>, kind: FileType, number: (u32, u32)) {
    let path = path.as_ref();
    let dev = rustix::fs::makedev(number.0, number.1);
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), dev)
        .unwrap_or_else(|why| panic!("mknod {}: {why}", path.display()));
}

#[track_caller]
pub fn fifo(path: impl AsRef<Path>) {
    node(path, FileType::Fifo, (0, 0));
}

#[track_caller]
pub fn chmod(path: impl AsRef<Path>, mode: u32) {
    let path = path.as_ref();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .unwrap_or_else(|why| panic!("chmod {}: {why}", path.display()));
}

/// Gives a directory a default ACL: what is made in it gets of its mode what these permissions of owner, mask and
/// others leave, and user 12345 may read it.
#[track_caller]
pub fn default_acl(dir: impl AsRef<Path>, mode: u16) {
    const VERSION: u32 = 2;
    const NOBODY_IN_PARTICULAR: u32 = u32::MAX;
    // Tags and permissions of `acl_ea_entry`, in the order that the kernel wants.
    let entries = [
        (0x01, mode >> 6, NOBODY_IN_PARTICULAR),
        (0x02, 4, 12_345),
        (0x04, mode >> 3, NOBODY_IN_PARTICULAR),
        (0x10, mode >> 3, NOBODY_IN_PARTICULAR),
        (0x20, mode, NOBODY_IN_PARTICULAR),
    ];
    let mut acl = VERSION.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        acl.extend(u16::to_le_bytes(tag));
        acl.extend(u16::to_le_bytes(permissions & 7));
        acl.extend(u32::to_le_bytes(id));
    }
    let dir = dir.as_ref();
    let name = "system.posix_acl_default";
    rustix::fs::setxattr(dir, name, &acl, rustix::fs::XattrFlags::empty())
        .unwrap_or_else(|why| panic!("a default ACL for {}: {why}", dir.display()));
}

/// Owner and group of the entry itself, links included.
#[track_caller]
pub fn chown(path: impl AsRef<Path>, uid: u32, gid: u32) {
    let path = path.as_ref();
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .unwrap_or_else(|why| panic!("chown {}: {why}", path.display()));
}

/// The mtime of the entry itself, links included.
#[track_caller]
pub fn mtime(path: impl AsRef<Path>, seconds: i64, nanos: u32) {
    let path = path.as_ref();
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanos.into(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .unwrap_or_else(|why| panic!("utimens {}: {why}", path.display()));
}

#[track_caller]
pub fn remove(path: impl AsRef<Path>) {
    let path = path.as_ref();
    let meta = std::fs::symlink_metadata(path)
        .unwrap_or_else(|why| panic!("stat {}: {why}", path.display()));
    if meta.is_dir() {
        crate::yard::clear(path);
        std::fs::remove_dir(path).expect("an empty directory can be removed");
    } else {
        std::fs::remove_file(path).expect("a file can be removed");
    }
}

/// Two names trade what they stand for, at one instant.
pub fn exchange(one: &Path, other: &Path) -> rustix::io::Result<()> {
    rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)
}

/// A faithful copy of a tree, by `cp -a`.
#[track_caller]
pub fn copy(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp")
        .arg("-aT")
        .arg(from)
        .arg(to)
        .status();
    assert!(
        done.is_ok_and(|status| status.success()),
        "cp -a {}",
        from.display()
    );
}
