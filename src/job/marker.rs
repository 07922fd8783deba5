//! The unclean-session marker: `.sy.<session>.unclean` in DEST, written before the first change
//! and synced, removed after the last sync. A crash in between leaves it, and the next push then
//! doubts what changed since: after a power cut a file may have the right size and time and the
//! wrong bytes.

use super::own_name::marker_name;
use super::tree::Tree;
use crate::model::time::Mtime;
use crate::ops::disk::Lock;
use crate::ops::{Disk, Errno};

/// Seconds before the marker's own time that are doubted too: coarse clocks, and writes that
/// were under way.
const SLACK_SECONDS: i64 = 2;

/// Writes and syncs this session's marker into ROOT; the descriptor holds the lock that says the
/// session lives. ROOT's own time is left as it was.
pub fn write<D: Disk>(disk: &D, tree: &Tree<D>) -> Result<(), Errno> {
    let root = tree.root.fd(disk, &tree.cache)?;
    let before = disk.stat(&root)?.mtime;
    let fd = disk.create_file(&root, &marker_name(tree.session), 0o600)?;
    let boot = disk.boot_id();
    let mut written = 0;
    while written < boot.len() {
        written += disk.write(&fd, &boot[written..], written as u64)?;
    }
    disk.sync_file(&fd)?;
    disk.set_mtime(&root, before)?;
    disk.sync_file(&root)
}

/// Syncs the file system and removes the markers that this vouches for: this session's own.
pub fn retire<D: Disk>(disk: &D, tree: &Tree<D>) -> Result<(), Errno> {
    let root = tree.root.fd(disk, &tree.cache)?;
    disk.sync_fs(&root)?;
    remove(disk, &root, &marker_name(tree.session))
}

fn remove<D: Disk>(disk: &D, root: &D::Fd, name: &[u8]) -> Result<(), Errno> {
    let before = disk.stat(root)?.mtime;
    match disk.unlink(root, name) {
        Ok(()) => disk.set_mtime(root, before),
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// The time since which the directory's entries are doubtful, if the marker is from before a
/// crash of the host.
pub fn suspect_since<D: Disk>(disk: &D, tree: &Tree<D>, dir: &D::Fd, name: &[u8]) -> Option<Mtime> {
    if name == marker_name(tree.session) {
        return None;
    }
    let fd = disk.open_file(dir, name).ok()?;
    let stat = disk.stat(&fd).ok()?;
    let mut boot = [0; 16];
    let same_boot = matches!(disk.read(&fd, &mut boot, 0), Ok(16)) && boot == disk.boot_id();
    if same_boot {
        return None; // Only processes died; the page cache has every byte.
    }
    Some(Mtime {
        sec: stat.ctime.sec.saturating_sub(SLACK_SECONDS),
        nsec: 0,
    })
}

/// Removes markers of sessions that are gone, once their work is synced. `names` were listed in
/// ROOT.
pub fn retire_others<D: Disk>(disk: &D, root: &D::Fd, names: &[Box<[u8]>]) {
    for name in names {
        let Ok(fd) = disk.open_file(root, name) else {
            continue;
        };
        if matches!(disk.try_lock(&fd, Lock::Exclusive), Ok(true)) {
            // Failing to tidy up is no failure of the push; the next one tries again.
            let _ = remove(disk, root, name);
        }
    }
}
