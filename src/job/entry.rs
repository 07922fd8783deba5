//! Makes one entry of a directory: under a temp name, whole and dressed, and then under its own. Files
//! that are there may be updated where they stand instead.

use std::sync::Arc;

use super::dir::{Dir, Stood};
use super::in_place::InPlaceFile;
use super::large::drop_temp;
use super::own_name::TempName;
use super::partial;
use super::prune::opened_up;
use super::tree::{Closing, Outcomes, Tree};
use crate::model::entry::{Kind, Meta};
use crate::model::id::DirId;
use crate::model::name::Name;
use crate::model::policy::Durability;
use crate::model::report::{Attempt, Why};
use crate::ops::disk::{Lock, SharedFd};
use crate::ops::{Disk, Errno};
use crate::wire::WireError;
use crate::wire::pack::PackOp;

/// A directory that entries are made in, open, with this session's shared lock on it.
pub struct Here<D: Disk> {
    pub id: DirId,
    pub dir: Arc<Dir<D>>,
    pub fd: SharedFd<D>,
}

/// What was tried in vain, and why it failed.
pub type Failed = (Attempt, Why);

pub fn errno(attempt: Attempt) -> impl Fn(Errno) -> Failed {
    move |errno| (attempt, Why::Errno(errno))
}

/// The name of the entry that an operation makes or changes, if it leaves all others alone.
pub fn entry_name<'a>(op: &PackOp<'a>) -> Option<Name<'a>> {
    match *op {
        PackOp::File { name, .. }
        | PackOp::Symlink { name, .. }
        | PackOp::Node { name, .. }
        | PackOp::Meta { name, .. } => Some(name),
        PackOp::Delete { .. }
        | PackOp::MakeDir { .. }
        | PackOp::Begin { .. }
        | PackOp::Close { .. } => None,
    }
}

/// Whether the session may do to an entry what `op` says.
pub fn check_entry<D: Disk>(tree: &Tree<D>, op: &PackOp<'_>) -> Result<(), WireError> {
    match op {
        PackOp::File { meta, .. } | PackOp::Begin { meta, .. } => check_kind(meta, &[Kind::File]),
        PackOp::Symlink { meta, .. } => check_kind(meta, &[Kind::Symlink]),
        PackOp::Node { meta, .. } => {
            let kinds = [
                Kind::Fifo,
                Kind::Socket,
                Kind::CharDevice,
                Kind::BlockDevice,
            ];
            check_kind(meta, &kinds)?;
            if tree.rights.nodes {
                Ok(())
            } else {
                Err(WireError::OutOfOrder {
                    frame: "PACK with a device, which this session may not make,",
                })
            }
        }
        PackOp::Meta { meta, .. } => check_kind(
            meta,
            &[
                Kind::File,
                Kind::Symlink,
                Kind::Fifo,
                Kind::Socket,
                Kind::CharDevice,
                Kind::BlockDevice,
            ],
        ),
        PackOp::Close {
            meta: Some(meta), ..
        } => check_kind(meta, &[Kind::Dir]),
        PackOp::Close { meta: None, .. } | PackOp::Delete { .. } | PackOp::MakeDir { .. } => Ok(()),
    }
}

/// Carries out an operation for which `entry_name` is not `None`.
pub fn make_entry<D: Disk>(
    disk: &D,
    tree: &Tree<D>,
    here: &Here<D>,
    op: &PackOp<'_>,
) -> Result<(), Failed> {
    match *op {
        PackOp::File {
            name,
            meta,
            content,
            ..
        } => file(disk, tree, here, name, &meta, content),
        PackOp::Symlink {
            name, meta, target, ..
        } => {
            let make = |temp: &[u8]| disk.make_symlink(&here.fd, temp, target);
            by_name(disk, tree, here, name, &meta, Attempt::MakeLink, make)
        }
        PackOp::Node {
            name, meta, rdev, ..
        } => {
            let make = |temp: &[u8]| disk.make_node(&here.fd, temp, meta.kind, 0o600, rdev);
            by_name(disk, tree, here, name, &meta, Attempt::MakeNode, make)
        }
        PackOp::Meta {
            name,
            meta,
            sets_time,
            ..
        } => fix_meta(disk, tree, here, name, &meta, sets_time),
        PackOp::Delete { .. }
        | PackOp::MakeDir { .. }
        | PackOp::Begin { .. }
        | PackOp::Close { .. } => unreachable!("no entry of its own"),
    }
}

fn check_kind(meta: &Meta, allowed: &[Kind]) -> Result<(), WireError> {
    if allowed.contains(&meta.kind) {
        Ok(())
    } else {
        Err(WireError::Forbidden {
            what: "kind of an entry",
            value: u64::from(meta.kind.mode_bits()),
        })
    }
}

/// Opens `dir` and takes this session's shared lock, which keeps others from cleaning our temps.
pub fn open_for_change<D: Disk>(
    disk: &D,
    tree: &Tree<D>,
    dir: &Dir<D>,
) -> Result<SharedFd<D>, Errno> {
    let fd = dir.fd(disk, &tree.cache)?;
    let facts = dir.facts();
    if !facts.is_locked || facts.has_default_acl.is_none() {
        // A cleaner holds its lock for a moment only: the next that comes here asks again.
        let is_locked = tree.policy.dry_run || disk.try_lock(&fd, Lock::Shared) != Ok(false);
        let has_default_acl = facts
            .has_default_acl
            .unwrap_or_else(|| disk.has_default_acl(&fd));
        dir.learn(|facts| {
            facts.is_locked = is_locked;
            facts.has_default_acl = Some(has_default_acl);
        });
    }
    Ok(fd)
}

/// The mode that an entry ends with.
pub fn final_mode<D: Disk>(tree: &Tree<D>, meta: &Meta) -> u16 {
    if tree.rights.setid {
        meta.mode
    } else {
        meta.mode & !0o6000
    }
}

/// Whether a new file can be made with its final mode: nothing has to be mended afterwards that
/// would show its content to others meanwhile.
fn is_plain<D: Disk>(tree: &Tree<D>, dir: &Dir<D>, meta: &Meta) -> bool {
    let facts = dir.facts();
    let group = || tree.group_of_new(facts.stood?, dir.identity()?.0);
    let has_owner = || meta.uid == tree.identity.uid && group() == Some(meta.gid);
    (!tree.rights.owners || has_owner())
        && facts.has_default_acl == Some(false)
        && final_mode(tree, meta) & 0o7000 == 0
}

/// Owner, mode and, last, time of a file that is written. `is_plain`: it was made with its mode
/// and has its owner.
pub fn dress_file<D: Disk>(
    disk: &D,
    tree: &Tree<D>,
    fd: &D::Fd,
    meta: &Meta,
    is_plain: bool,
) -> Result<(), Errno> {
    if !is_plain {
        if tree.rights.owners {
            disk.set_owner(fd, meta.uid, meta.gid)?;
        }
        disk.set_mode(fd, final_mode(tree, meta))?; // After the owner: chown clears set-id bits.
    }
    disk.set_mtime(fd, meta.mtime)
}

/// An empty file under a temp name, with its final mode where that is all it needs; and whether it is.
pub fn create_temp<D: Disk>(
    disk: &D,
    tree: &Tree<D>,
    here: &Here<D>,
    temp: &TempName,
    meta: &Meta,
) -> Result<(D::Fd, bool), Failed> {
    let is_plain = is_plain(tree, &here.dir, meta);
    let mode = if is_plain {
        final_mode(tree, meta)
    } else {
        0o600
    };
    let create = || disk.create_file(&here.fd, temp.bytes(), mode);
    let created = opened_up(disk, &here.dir, &here.fd, create);
    let fd = created.map_err(errno(Attempt::Create))?;
    if let Some(stood) = here.dir.facts().stood
        && tree.wants_to_learn_of_groups(stood)
        && let Ok(new) = disk.stat(&fd)
        && let Ok(dir) = disk.stat(&here.fd)
        && Stood::of(&dir) == stood
    {
        tree.learn_of_groups(&new, &dir);
    }
    Ok((fd, is_plain))
}

/// A whole small file: temp name, content, metadata, rename; or where it stands.
fn file<D: Disk>(
    disk: &D,
    tree: &Tree<D>,
    here: &Here<D>,
    name: Name<'_>,
    meta: &Meta,
    content: &[u8],
) -> Result<(), Failed> {
    if let Some(standing) = InPlaceFile::open(disk, tree, &here.fd, name.bytes()) {
        return standing.update(disk, tree, here, (name, meta), content);
    }
    let temp = tree.temp_name();
    let (fd, is_plain) = create_temp(disk, tree, here, &temp, meta)?;
    if is_plain {
        here.dir.count_on_its_group();
    }
    let written = write_all(disk, &fd, content, 0)
        .map_err(errno(Attempt::Write))
        .and_then(|()| dress_file(disk, tree, &fd, meta, is_plain).map_err(errno(Attempt::SetMeta)))
        .and_then(|()| match tree.policy.durability {
            Durability::File => disk.sync_file(&fd).map_err(errno(Attempt::Sync)),
            Durability::None | Durability::Session => Ok(()),
        });
    name_or_drop(disk, tree, here, &temp, name, content.len(), written)
}

/// Gives what stands under `temp` its name if all before went well, and else removes it.
fn name_or_drop<D: Disk>(
    disk: &D,
    tree: &Tree<D>,
    here: &Here<D>,
    temp: &TempName,
    name: Name<'_>,
    content_bytes: usize,
    before: Result<(), Failed>,
) -> Result<(), Failed> {
    let named = before.and_then(|()| {
        partial::remove(disk, tree, &here.dir, &here.fd, name.bytes());
        disk.rename(&here.fd, temp.bytes(), name.bytes())
            .map_err(not_renamed)
    });
    match named {
        Ok(()) => tree.count(|counts| {
            counts.files_made += 1;
            counts.literal_bytes += content_bytes as u64;
        }),
        Err(_) => drop_temp(disk, &here.fd, temp.bytes()),
    }
    named
}

/// Why an entry did not get its name. A directory that DELETE could not take away is told here,
/// where it is known what it is in the way of.
pub fn not_renamed(code: Errno) -> Failed {
    match code {
        Errno::ISDIR => (Attempt::Rename, Why::DirInTheWay),
        code => (Attempt::Rename, Why::Errno(code)),
    }
}

pub fn write_all<D: Disk>(disk: &D, fd: &D::Fd, content: &[u8], offset: u64) -> Result<(), Errno> {
    let mut written = 0;
    while written < content.len() {
        match disk.write(fd, &content[written..], offset + written as u64)? {
            0 => return Err(Errno::IO),
            bytes => written += bytes,
        }
    }
    Ok(())
}

/// A symlink or node: made under a temp name, dressed by name, renamed.
fn by_name<D: Disk>(
    disk: &D,
    tree: &Tree<D>,
    here: &Here<D>,
    name: Name<'_>,
    meta: &Meta,
    attempt: Attempt,
    make: impl Fn(&[u8]) -> Result<(), Errno>,
) -> Result<(), Failed> {
    let temp: TempName = tree.temp_name();
    opened_up(disk, &here.dir, &here.fd, || make(temp.bytes())).map_err(errno(attempt))?;
    let made = dress_by_name(disk, tree, here, temp.bytes(), meta).map_err(errno(Attempt::SetMeta));
    name_or_drop(disk, tree, here, &temp, name, 0, made)
}

/// Owner, mode and, last, time of an entry that can't be opened.
fn dress_by_name<D: Disk>(
    disk: &D,
    tree: &Tree<D>,
    here: &Here<D>,
    name: &[u8],
    meta: &Meta,
) -> Result<(), Errno> {
    own_by_name(disk, tree, here, name, meta)?;
    disk.set_mtime_at(&here.fd, name, meta.mtime)
}

/// Owner and mode of an entry that can't be opened.
fn own_by_name<D: Disk>(
    disk: &D,
    tree: &Tree<D>,
    here: &Here<D>,
    name: &[u8],
    meta: &Meta,
) -> Result<(), Errno> {
    if tree.rights.owners {
        disk.set_owner_at(&here.fd, name, meta.uid, meta.gid)?;
    }
    if meta.kind != Kind::Symlink {
        disk.set_mode_at(&here.fd, name, final_mode(tree, meta))?;
    }
    Ok(())
}

fn fix_meta<D: Disk>(
    disk: &D,
    tree: &Tree<D>,
    here: &Here<D>,
    name: Name<'_>,
    meta: &Meta,
    sets_time: bool,
) -> Result<(), Failed> {
    let stat = disk
        .stat_at(&here.fd, name.bytes())
        .map_err(errno(Attempt::Stat))?;
    if stat.kind != meta.kind {
        // It changed hands since it was listed; the next push sees what it is now.
        return Err((Attempt::SetMeta, Why::Changing));
    }
    own_by_name(disk, tree, here, name.bytes(), meta).map_err(errno(Attempt::SetMeta))?;
    if sets_time {
        let timed = disk.set_mtime_at(&here.fd, name.bytes(), meta.mtime);
        timed.map_err(errno(Attempt::SetMeta))?;
    }
    if meta.kind == Kind::File {
        partial::forget(disk, tree, &here.dir, &here.fd, name.bytes());
    }
    tree.count(|counts| counts.meta_fixed += 1);
    Ok(())
}

/// Something that was under way in `id` has ended: closes it and what is above it, from the inside
/// out, as far as nothing else is waited for.
pub fn ended<D: Disk>(disk: &D, tree: &Tree<D>, id: DirId, outcomes: &mut Outcomes) {
    if let Some(closing) = tree.ended(id) {
        close_dirs(disk, tree, closing, outcomes);
    }
}

/// Dresses a directory, and those above that waited for it alone.
pub fn close_dirs<D: Disk>(disk: &D, tree: &Tree<D>, first: Closing<D>, outcomes: &mut Outcomes) {
    let mut next = Some(first);
    while let Some(closing) = next {
        close_dir(disk, tree, &closing, outcomes);
        next = closing.above.and_then(|above| tree.ended(above));
    }
}

/// Whether a directory gives new entries another group than when files were made that were to have it; the next push
/// sees which have.
fn gives_another_group<D: Disk>(disk: &D, tree: &Tree<D>, dir: &Dir<D>) -> bool {
    let facts = dir.facts();
    let Some(stood) = facts
        .stood
        .filter(|_| facts.is_counted_on && tree.rights.owners)
    else {
        return false;
    };
    let Ok(stat) = dir.fd(disk, &tree.cache).and_then(|fd| disk.stat(&fd)) else {
        return true;
    };
    let then = tree.group_of_new(stood, stat.dev);
    // Of a directory that has got another group nobody knows whether it gives that: few do.
    let now = tree.group_of_new(Stood::of(&stat), stat.dev);
    then != now.or(Some(tree.identity.gid))
}

/// The last thing that happens in a directory: owner, mode and, last, time.
fn close_dir<D: Disk>(disk: &D, tree: &Tree<D>, closing: &Closing<D>, outcomes: &mut Outcomes) {
    if tree.policy.dry_run {
        return;
    }
    if gives_another_group(disk, tree, &closing.dir) {
        let path = closing.dir.path_below_root(b"");
        outcomes.failed(tree, Attempt::SetMeta, Why::Changing, path);
    }
    let Some(meta) = &closing.meta else {
        return closing.dir.close_up(disk, &tree.cache);
    };
    let dressed = closing.dir.fd(disk, &tree.cache).and_then(|fd| {
        if tree.rights.owners {
            disk.set_owner(&fd, meta.uid, meta.gid)?;
        }
        disk.set_mode(&fd, final_mode(tree, meta))?;
        closing.dir.learn(|facts| facts.opened_up_from = None);
        disk.set_mtime(&fd, meta.mtime)?;
        match tree.policy.durability {
            Durability::File => tree.sync(disk, &fd),
            Durability::None | Durability::Session => Ok(()),
        }
    });
    if let Err(code) = dressed {
        outcomes.failed(
            tree,
            Attempt::SetMeta,
            Why::Errno(code),
            closing.dir.path_below_root(b""),
        );
    }
}
