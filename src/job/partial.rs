//! Partial files: what arrived of a large file when a push broke off, kept beside its place
//! (`model::partial`) until a push goes on from it.
//!
//! **A partial file is a basis**, and nothing of it is believed. The target sums its blocks under the
//! session's key, the source finds them in its file as it is now, the rest travels, and the digests of the
//! chunks and of the file are checked as always before a rename gives the file its name. So zeros after a power
//! cut, parts that never came, a source that changed meanwhile, and whatever somebody planted under that name
//! cost bytes, and never a wrong file.

use super::dir::{Dir, keeping_time};
use super::in_place::Place;
use super::tree::{Incoming, Tree};
use crate::limits::{PARTIAL_BYTES_MIN, PARTIAL_SECONDS_MAX};
use crate::model::entry::{Kind, Stat};
use crate::model::listing::Listing;
use crate::model::name::Name;
use crate::model::partial::{NameHash, PartialName};
use crate::model::time::Mtime;
use crate::ops::{Disk, Errno};

/// Whether it is a file of this user's, which may be removed or replaced. A link, a directory, another's
/// file were planted, or are none of our business: they stay as they are.
fn is_ours<D: Disk>(tree: &Tree<D>, stat: &Stat) -> bool {
    stat.kind == Kind::File && stat.uid == tree.identity.uid
}

/// Whether it may be a basis: ours, not under a second name that somebody could have made to have us read
/// what is not his to read, and worth it.
pub fn is_fit<D: Disk>(tree: &Tree<D>, stat: &Stat) -> bool {
    is_ours(tree, stat) && stat.nlink == 1 && stat.size >= PARTIAL_BYTES_MIN
}

fn is_expired(last_written: Mtime, now: Mtime) -> bool {
    now.sec.saturating_sub(last_written.sec) > PARTIAL_SECONDS_MAX
}

/// What becomes of an older partial file of the same name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// The new one was made of it, and takes its place.
    Instead,
    /// It was not looked at: the larger one stays.
    IfLarger,
}

/// Makes a temp file the partial file; `false` where it can't be one, or the older one stays.
fn keep<D: Disk>(
    disk: &D,
    tree: &Tree<D>,
    dir: &D::Fd,
    temp: &[u8],
    (file, how): (NameHash, Keep),
) -> bool {
    let name = PartialName::new(file);
    // It ends where its last byte was written: nothing sets aside room before, and holes take none.
    let Some(stat) = disk
        .stat_at(dir, temp)
        .ok()
        .filter(|stat| is_fit(tree, stat))
    else {
        return false;
    };
    let has_way = match disk.stat_at(dir, name.bytes()) {
        Ok(older) => {
            let is_surpassed = is_fit(tree, &older) && older.size > stat.size;
            is_ours(tree, &older) && (how == Keep::Instead || !is_surpassed)
        }
        Err(errno) => errno == Errno::NOENT,
    };
    has_way && disk.rename(dir, temp, name.bytes()).is_ok()
}

/// As `keep`, for a file under way. One that is updated where it stands has none.
pub fn keep_incoming<D: Disk>(disk: &D, tree: &Tree<D>, incoming: &Incoming<D>, how: Keep) -> bool {
    match &incoming.place {
        Place::Beside(temp) => {
            let file = NameHash::of(&incoming.name);
            keep(disk, tree, &incoming.dir_fd, temp.bytes(), (file, how))
        }
        Place::InPlace(_) => false,
    }
}

/// As `keep`, for a temp file whose session died. Nobody knows what it was made of.
pub fn salvage<D: Disk>(
    disk: &D,
    tree: &Tree<D>,
    dir: &D::Fd,
    temp: &[u8],
    file: NameHash,
) -> bool {
    let fd = disk.open_file(dir, temp).ok();
    let stat = fd.as_ref().and_then(|fd| disk.stat(fd).ok());
    // What somebody planted there is not touched.
    let (Some(fd), Some(stat)) = (fd, stat.filter(|stat| is_fit(tree, stat))) else {
        return false;
    };
    // One that was whole, but for its name, bears the time of its source already, and would expire by it.
    if is_expired(stat.ctime, disk.now()) {
        return false;
    }
    let _ = disk.set_mtime(&fd, stat.ctime);
    keep(disk, tree, dir, temp, (file, Keep::IfLarger))
}

/// Those of `partials` that nobody went on from for too long.
pub fn expired<D: Disk>(
    disk: &D,
    tree: &Tree<D>,
    dir: &D::Fd,
    partials: &[NameHash],
) -> Vec<NameHash> {
    let now = disk.now();
    let is_gone = |file: &&NameHash| {
        let stat = disk.stat_at(dir, PartialName::new(**file).bytes());
        stat.is_ok_and(|stat| is_ours(tree, &stat) && is_expired(stat.mtime, now))
    };
    partials.iter().filter(is_gone).copied().collect()
}

/// Adds those that may be a basis to the listing of their directory.
pub fn list<D: Disk>(
    disk: &D,
    tree: &Tree<D>,
    dir: &D::Fd,
    partials: &[NameHash],
    listing: &mut Listing,
) {
    for file in partials {
        let name = PartialName::new(*file);
        let stat = disk.stat_at(dir, name.bytes());
        if let Some(stat) = stat.ok().filter(|stat| is_fit(tree, stat)) {
            listing.push(Name::any(name.bytes()).expect("of digits and dots"), &stat);
        }
    }
}

/// The partial file of `name`, where there is one that may be removed.
fn of<D: Disk>(
    disk: &D,
    tree: &Tree<D>,
    dir: &Dir<D>,
    fd: &D::Fd,
    name: &[u8],
) -> Option<PartialName> {
    let partial = PartialName::new(NameHash::of(name));
    let stat = dir
        .facts()
        .has_partials
        .then(|| disk.stat_at(fd, partial.bytes()));
    stat?
        .is_ok_and(|stat| is_ours(tree, &stat))
        .then_some(partial)
}

/// Removes the partial file of `name`, which is about to get that name whole. A crash in between leaves a whole temp
/// file, and not a partial one that nobody needs.
pub fn remove<D: Disk>(disk: &D, tree: &Tree<D>, dir: &Dir<D>, fd: &D::Fd, name: &[u8]) {
    if let Some(partial) = of(disk, tree, dir, fd, name) {
        // One that stays expires.
        let _ = disk.unlink(fd, partial.bytes());
    }
}

/// The same for a file that turned out to have its content: nothing is renamed there, so the directory keeps its time.
pub fn forget<D: Disk>(disk: &D, tree: &Tree<D>, dir: &Dir<D>, fd: &D::Fd, name: &[u8]) {
    if let Some(partial) = of(disk, tree, dir, fd, name) {
        let _ = keeping_time(disk, fd, || disk.unlink(fd, partial.bytes()));
    }
}
