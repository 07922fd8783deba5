//! Applies a PACK to the target's tree, operation by operation, in stream order.

use std::sync::Arc;

use super::dir::Dir;
use super::large::drop_temp;
use super::marker;
use super::own_name::TempName;
use super::prune::{Prune, opened_up};
use super::tree::{Closing, Fatal, Incoming, Outcomes, Standing, Tree};
use crate::limits::FRAME_HEAD_BYTES;
use crate::model::entry::{Kind, Meta};
use crate::model::id::{DirId, FileId};
use crate::model::name::Name;
use crate::model::policy::Durability;
use crate::model::report::{Attempt, Why};
use crate::ops::disk::{Lock, SharedFd};
use crate::ops::op::Progress;
use crate::ops::{Buf, Disk, Errno};
use crate::wire::WireError;
use crate::wire::cursor::Reader;
use crate::wire::pack::PackOp;

pub struct ApplyPack<D: Disk> {
    tree: Arc<Tree<D>>,
    pub buf: Buf,
    payload_bytes: usize,
    /// Where the next operation stands in the payload.
    at: usize,
    prune: Option<Prune<D>>,
    here: Option<Here<D>>,
    pub outcomes: Outcomes,
    /// Large files that began: what DATA is written to, or `None` where it is to be dropped.
    pub begun: Vec<(FileId, u64, Option<SharedFd<D>>)>,
}

/// The directory of the last operation; most have the same.
struct Here<D: Disk> {
    id: DirId,
    dir: Arc<Dir<D>>,
    fd: SharedFd<D>,
}

impl<D: Disk> ApplyPack<D> {
    pub fn new(tree: Arc<Tree<D>>, buf: Buf, payload_bytes: usize) -> Self {
        Self {
            tree,
            buf,
            payload_bytes,
            at: 0,
            prune: None,
            here: None,
            outcomes: Outcomes::default(),
            begun: Vec::new(),
        }
    }

    /// Whether nothing is left to apply; otherwise it is to be run again once its outcomes are
    /// taken.
    pub fn is_finished(&self) -> bool {
        self.prune.is_none() && self.at == self.payload_bytes
    }

    pub fn run(&mut self, disk: &D) -> Progress {
        let Self {
            tree,
            buf,
            payload_bytes,
            at,
            prune,
            here,
            outcomes,
            begun,
        } = self;
        let mut applying = Applying {
            disk,
            tree,
            here,
            prune,
            outcomes,
            begun,
        };
        loop {
            let outcomes = &*applying.outcomes;
            if outcomes.error.is_some() || outcomes.fatal.is_some() || outcomes.is_full() {
                return Progress::Done;
            }
            if let Some(prune) = applying.prune.as_mut() {
                if prune.run(disk, tree, applying.outcomes) == Progress::Again {
                    return Progress::Again;
                }
                *applying.prune = None;
                continue;
            }
            let payload = &buf[FRAME_HEAD_BYTES + *at..FRAME_HEAD_BYTES + *payload_bytes];
            let mut reader = Reader::new(payload, "PACK frame");
            if reader.is_at_end() {
                return Progress::Done;
            }
            let applied = PackOp::decode(&mut reader).and_then(|op| applying.apply(&op));
            *at += reader.at();
            if let Err(error) = applied {
                applying.outcomes.error = Some(error);
            }
        }
    }
}

struct Applying<'a, D: Disk> {
    disk: &'a D,
    tree: &'a Arc<Tree<D>>,
    here: &'a mut Option<Here<D>>,
    prune: &'a mut Option<Prune<D>>,
    outcomes: &'a mut Outcomes,
    begun: &'a mut Vec<(FileId, u64, Option<SharedFd<D>>)>,
}

/// A failed operation: what was tried, and why it failed.
type Failed = (Attempt, Why);

fn errno(attempt: Attempt) -> impl Fn(Errno) -> Failed {
    move |errno| (attempt, Why::Errno(errno))
}

impl<D: Disk> Applying<'_, D> {
    /// Before the first change of a session.
    fn mark(&mut self) {
        if !self.tree.must_mark() {
            return;
        }
        match marker::write(self.disk, self.tree) {
            Ok(own) => self.tree.marked(own),
            Err(errno) => {
                let path = self.tree.root.path_below_root(b"");
                self.outcomes.fatal = Some(Fatal {
                    path,
                    attempt: Attempt::Create,
                    errno,
                });
            }
        }
    }

    fn apply(&mut self, op: &PackOp<'_>) -> Result<(), WireError> {
        let (disk, tree) = (self.disk, Arc::clone(self.tree));
        if tree.policy.dry_run && !matches!(op, PackOp::Delete { .. } | PackOp::Close { .. }) {
            return Err(WireError::OutOfOrder {
                frame: "changing PACK in a dry run",
            });
        }
        if !matches!(op, PackOp::Close { meta: None, .. }) {
            self.mark();
            if self.outcomes.fatal.is_some() {
                return Ok(());
            }
        }
        let (dir, name, outcome) = match *op {
            PackOp::Close { dir, meta } => return self.close(dir, meta),
            PackOp::MakeDir {
                parent,
                name,
                id,
                mode,
            } => return self.make_dir(parent, name, id, mode),
            PackOp::Delete {
                dir,
                name,
                makes_room,
            } => return self.delete(dir, name, makes_room),
            PackOp::Begin {
                dir,
                name,
                file,
                meta,
                size,
            } => {
                check_kind(&meta, &[Kind::File])?;
                (dir, name, self.begin(dir, name, file, &meta, size)?)
            }
            PackOp::File {
                dir,
                name,
                meta,
                content,
            } => {
                check_kind(&meta, &[Kind::File])?;
                (
                    dir,
                    name,
                    self.in_dir(dir)?
                        .and_then(|here| file(disk, &tree, here, name, &meta, content)),
                )
            }
            PackOp::Symlink {
                dir,
                name,
                meta,
                target,
            } => {
                check_kind(&meta, &[Kind::Symlink])?;
                let make = |disk: &D, fd: &D::Fd, temp: &[u8]| disk.make_symlink(fd, temp, target);
                (
                    dir,
                    name,
                    self.in_dir(dir)?.and_then(|here| {
                        by_name(disk, &tree, here, name, &meta, Attempt::MakeLink, make)
                    }),
                )
            }
            PackOp::Node {
                dir,
                name,
                meta,
                rdev,
            } => {
                check_kind(
                    &meta,
                    &[
                        Kind::Fifo,
                        Kind::Socket,
                        Kind::CharDevice,
                        Kind::BlockDevice,
                    ],
                )?;
                if !tree.rights.nodes {
                    return Err(WireError::OutOfOrder {
                        frame: "PACK with a device, which this session may not make,",
                    });
                }
                let make = |disk: &D, fd: &D::Fd, temp: &[u8]| {
                    disk.make_node(fd, temp, meta.kind, 0o600, rdev)
                };
                (
                    dir,
                    name,
                    self.in_dir(dir)?.and_then(|here| {
                        by_name(disk, &tree, here, name, &meta, Attempt::MakeNode, make)
                    }),
                )
            }
            PackOp::Meta { dir, name, meta } => {
                check_kind(
                    &meta,
                    &[
                        Kind::File,
                        Kind::Symlink,
                        Kind::Fifo,
                        Kind::Socket,
                        Kind::CharDevice,
                        Kind::BlockDevice,
                    ],
                )?;
                (
                    dir,
                    name,
                    self.in_dir(dir)?
                        .and_then(|here| fix_meta(disk, &tree, here, name, &meta)),
                )
            }
        };
        if let Err((attempt, why)) = outcome {
            let path = tree
                .find(dir)
                .map(|(dir, _)| dir.path_below_root(name.bytes()))
                .unwrap_or_default();
            self.outcomes.failed(&tree, attempt, why, path);
        }
        Ok(())
    }

    /// The directory `id`, open, with our shared lock on it.
    fn in_dir(&mut self, id: DirId) -> Result<Result<&Here<D>, Failed>, WireError> {
        if self.here.as_ref().is_none_or(|here| here.id != id) {
            *self.here = None;
            let (dir, standing) = self.tree.find(id)?;
            match standing {
                Standing::Listed | Standing::Made | Standing::Declared => {}
                Standing::Lost | Standing::Absent => {
                    return Ok(Err((Attempt::Create, Why::NoDirectory)));
                }
            }
            match open_for_change(self.disk, self.tree, &dir) {
                Ok(fd) => *self.here = Some(Here { id, dir, fd }),
                Err(code) => return Ok(Err((Attempt::Open, Why::Errno(code)))),
            }
        }
        Ok(Ok(self.here.as_ref().expect("set above")))
    }

    fn make_dir(
        &mut self,
        parent: DirId,
        name: Name<'_>,
        id: DirId,
        mode: u16,
    ) -> Result<(), WireError> {
        let dir = self.tree.declare_made(id, parent, name)?;
        let disk = self.disk;
        let outcome = self.in_dir(parent)?.and_then(|here| {
            let make = || disk.make_dir(&here.fd, name.bytes(), mode & 0o777 | 0o700);
            match opened_up(disk, &here.dir, &here.fd, make) {
                Ok(()) => Ok(true),
                // Another push was faster, or the listing was older than this: it is ours to fill.
                Err(Errno::EXIST)
                    if disk
                        .stat_at(&here.fd, name.bytes())
                        .is_ok_and(|stat| stat.kind == Kind::Dir) =>
                {
                    Ok(false)
                }
                Err(code) => Err((Attempt::MakeDir, Why::Errno(code))),
            }
        });
        match outcome {
            Ok(is_new) => {
                self.tree.set_standing(id, Standing::Made);
                self.tree
                    .count(|counts| counts.dirs_made += u64::from(is_new));
            }
            Err((attempt, why)) => {
                self.tree.set_standing(id, Standing::Lost);
                self.outcomes.stopped_dirs.push(id);
                self.outcomes
                    .failed(self.tree, attempt, why, dir.path_below_root(b""));
            }
        }
        Ok(())
    }

    fn delete(&mut self, id: DirId, name: Name<'_>, makes_room: bool) -> Result<(), WireError> {
        let (dir, standing) = self.tree.find(id)?;
        if standing != Standing::Listed {
            return Err(WireError::DeleteUnlisted(id.0));
        }
        if self.tree.policy.delete {
            *self.prune = Prune::begin(self.disk, self.tree, &dir, name.bytes(), self.outcomes);
            return Ok(());
        }
        if !makes_room {
            return Err(WireError::DeleteNotAllowed);
        }
        if self.tree.policy.dry_run {
            return Ok(());
        }
        let disk = self.disk;
        let cleared = self.in_dir(id)?.and_then(|here| {
            let remove = || match disk.unlink(&here.fd, name.bytes()) {
                Err(Errno::ISDIR | Errno::PERM) => disk.remove_dir(&here.fd, name.bytes()),
                outcome => outcome,
            };
            match opened_up(disk, &here.dir, &here.fd, remove) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(Errno::NOTEMPTY) => Err((Attempt::Delete, Why::DirInTheWay)),
                Err(code) => Err((Attempt::Delete, Why::Errno(code))),
            }
        });
        if let Err((attempt, why)) = cleared {
            self.outcomes
                .failed(self.tree, attempt, why, dir.path_below_root(name.bytes()));
        }
        Ok(())
    }

    fn begin(
        &mut self,
        dir: DirId,
        name: Name<'_>,
        file: FileId,
        meta: &Meta,
        size: u64,
    ) -> Result<Result<(), Failed>, WireError> {
        let (disk, tree) = (self.disk, Arc::clone(self.tree));
        tree.may_begin(file)?;
        let made = self.in_dir(dir)?.and_then(|here| {
            let temp = tree.temp_name();
            let mode = if is_plain(&tree, &here.dir, meta) {
                final_mode(&tree, meta)
            } else {
                0o600
            };
            let create = || disk.create_file(&here.fd, temp.bytes(), mode);
            let fd =
                opened_up(disk, &here.dir, &here.fd, create).map_err(errno(Attempt::Create))?;
            Ok(Incoming {
                fd: Arc::new(fd),
                dir_fd: Arc::clone(&here.fd),
                dir: Arc::clone(&here.dir),
                dir_id: dir,
                temp,
                name: name.bytes().into(),
                meta: *meta,
            })
        });
        match made {
            Ok(incoming) => {
                let fd = Arc::clone(&incoming.fd);
                tree.begin(file, incoming)?;
                self.begun.push((file, size, Some(fd)));
                Ok(Ok(()))
            }
            Err(failed) => {
                self.begun.push((file, size, None));
                Ok(Err(failed))
            }
        }
    }

    fn close(&mut self, id: DirId, meta: Option<Meta>) -> Result<(), WireError> {
        if let Some(meta) = &meta {
            check_kind(meta, &[Kind::Dir])?;
        }
        *self.here = None;
        if let Some(closing) = self.tree.close(id, meta)? {
            close_dir(self.disk, self.tree, &closing, self.outcomes);
        }
        Ok(())
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
fn open_for_change<D: Disk>(disk: &D, tree: &Tree<D>, dir: &Dir<D>) -> Result<SharedFd<D>, Errno> {
    let fd = dir.fd(disk, &tree.cache)?;
    let facts = dir.facts();
    if !facts.is_locked || facts.has_default_acl.is_none() {
        if !tree.policy.dry_run {
            // A cleaner holds its lock for a moment only; without ours the worst is a retry.
            let _ = disk.try_lock(&fd, Lock::Shared);
        }
        let has_default_acl = facts
            .has_default_acl
            .unwrap_or_else(|| disk.has_default_acl(&fd));
        dir.learn(|facts| {
            facts.is_locked = true;
            facts.has_default_acl = Some(has_default_acl);
        });
    }
    Ok(fd)
}

/// The owner that an entry should get, where it is not what a new entry has by itself.
fn owner_to_set<D: Disk>(tree: &Tree<D>, dir: &Dir<D>, meta: &Meta) -> Option<(u32, u32)> {
    let has_by_itself = (tree.identity.uid, tree.identity.gid);
    let is_right = (meta.uid, meta.gid) == has_by_itself && !dir.facts().is_setgid;
    (tree.rights.owners && !is_right).then_some((meta.uid, meta.gid))
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
    owner_to_set(tree, dir, meta).is_none()
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

/// A whole small file: temp name, content, metadata, rename.
fn file<D: Disk>(
    disk: &D,
    tree: &Tree<D>,
    here: &Here<D>,
    name: Name<'_>,
    meta: &Meta,
    content: &[u8],
) -> Result<(), Failed> {
    let temp = tree.temp_name();
    let plain = is_plain(tree, &here.dir, meta);
    let mode = if plain { final_mode(tree, meta) } else { 0o600 };
    let create = || disk.create_file(&here.fd, temp.bytes(), mode);
    let fd = opened_up(disk, &here.dir, &here.fd, create).map_err(errno(Attempt::Create))?;
    let written = write_all(disk, &fd, content)
        .map_err(errno(Attempt::Write))
        .and_then(|()| dress_file(disk, tree, &fd, meta, plain).map_err(errno(Attempt::SetMeta)))
        .and_then(|()| match tree.policy.durability {
            Durability::File => disk.sync_file(&fd).map_err(errno(Attempt::Sync)),
            Durability::None | Durability::Session => Ok(()),
        });
    name_or_drop(disk, tree, here, &temp, name, written)
}

/// Gives what stands under `temp` its name if all before went well, and else removes it.
fn name_or_drop<D: Disk>(
    disk: &D,
    tree: &Tree<D>,
    here: &Here<D>,
    temp: &TempName,
    name: Name<'_>,
    before: Result<(), Failed>,
) -> Result<(), Failed> {
    let named = before.and_then(|()| {
        disk.rename(&here.fd, temp.bytes(), name.bytes())
            .map_err(errno(Attempt::Rename))
    });
    match named {
        Ok(()) => tree.count(|counts| counts.files_made += 1),
        Err(_) => drop_temp(disk, &here.fd, temp.bytes()),
    }
    named
}

fn write_all<D: Disk>(disk: &D, fd: &D::Fd, content: &[u8]) -> Result<(), Errno> {
    let mut written = 0;
    while written < content.len() {
        match disk.write(fd, &content[written..], written as u64)? {
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
    make: impl Fn(&D, &D::Fd, &[u8]) -> Result<(), Errno>,
) -> Result<(), Failed> {
    let temp: TempName = tree.temp_name();
    opened_up(disk, &here.dir, &here.fd, || {
        make(disk, &here.fd, temp.bytes())
    })
    .map_err(errno(attempt))?;
    let made = dress_by_name(disk, tree, here, temp.bytes(), meta).map_err(errno(Attempt::SetMeta));
    name_or_drop(disk, tree, here, &temp, name, made)
}

/// Owner, mode and, last, time of an entry that can't be opened.
fn dress_by_name<D: Disk>(
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
    disk.set_mtime_at(&here.fd, name, meta.mtime)
}

fn fix_meta<D: Disk>(
    disk: &D,
    tree: &Tree<D>,
    here: &Here<D>,
    name: Name<'_>,
    meta: &Meta,
) -> Result<(), Failed> {
    let stat = disk
        .stat_at(&here.fd, name.bytes())
        .map_err(errno(Attempt::Stat))?;
    if stat.kind != meta.kind {
        // It changed hands since it was listed; the next push sees what it is now.
        return Err((Attempt::SetMeta, Why::Changing));
    }
    dress_by_name(disk, tree, here, name.bytes(), meta).map_err(errno(Attempt::SetMeta))?;
    tree.count(|counts| counts.meta_fixed += 1);
    Ok(())
}

/// The last thing that happens in a directory: owner, mode and, last, time.
pub fn close_dir<D: Disk>(disk: &D, tree: &Tree<D>, closing: &Closing<D>, outcomes: &mut Outcomes) {
    let Some(meta) = &closing.meta else { return };
    if tree.policy.dry_run {
        return;
    }
    let dressed = closing.dir.fd(disk, &tree.cache).and_then(|fd| {
        if tree.rights.owners {
            disk.set_owner(&fd, meta.uid, meta.gid)?;
        }
        disk.set_mode(&fd, final_mode(tree, meta))?;
        disk.set_mtime(&fd, meta.mtime)?;
        match tree.policy.durability {
            Durability::File => disk.sync_file(&fd),
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
