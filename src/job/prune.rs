//! Removing an entry with all below it, some hundred entries at a time and without recursion.

use std::sync::Arc;

use super::dir::Dir;
use super::tree::{Outcomes, Tree};
use crate::limits::{DIR_ENTRIES_MAX, PRUNE_BUDGET_ENTRIES};
use crate::model::entry::Kind;
use crate::model::report::{Attempt, Why};
use crate::ops::op::Progress;
use crate::ops::{Disk, Errno};
use crate::wire::pack::Room;

/// A subtree on its way out: the directories from the entry down to where the work is.
pub struct Prune<D: Disk> {
    levels: Vec<Level<D>>,
}

/// One directory that is being emptied.
struct Level<D: Disk> {
    dir: Arc<Dir<D>>,
    parent: Arc<Dir<D>>,
    /// Names left, a length byte behind each (they are taken from the end); `None`: not read yet.
    names: Option<Vec<u8>>,
    /// Something in it stays, so it stays too.
    is_kept: bool,
}

impl<D: Disk> Prune<D> {
    /// Removes the entry `name` of `dir`, unless it is no longer what `room` wants away; a directory
    /// is only looked at here, and `Some` asks to be run until it is `Done`.
    pub fn begin(
        disk: &D,
        tree: &Tree<D>,
        dir: &Arc<Dir<D>>,
        (name, room): (&[u8], Option<Room>),
        outcomes: &mut Outcomes,
    ) -> Option<Self> {
        match remove(disk, tree, dir, (name, room), outcomes) {
            Removed::Level(level) => Some(Self {
                levels: vec![level],
            }),
            Removed::Gone | Removed::Kept => None,
        }
    }

    pub fn run(&mut self, disk: &D, tree: &Tree<D>, outcomes: &mut Outcomes) -> Progress {
        let mut budget = PRUNE_BUDGET_ENTRIES;
        while let Some(level) = self.levels.last_mut() {
            if budget == 0 {
                return Progress::Again;
            }
            budget -= 1;
            let names = match level.names.as_mut() {
                Some(names) => names,
                None => match read_names(disk, tree, &level.dir) {
                    Ok(names) => level.names.insert(names),
                    Err(Errno::NOENT) => level.names.insert(Vec::new()),
                    Err(errno) => {
                        fail(tree, &level.dir, b"", errno, outcomes);
                        level.is_kept = true;
                        level.names.insert(Vec::new())
                    }
                },
            };
            if let Some(name) = take_name(names) {
                let dir = Arc::clone(&level.dir);
                match remove(disk, tree, &dir, (&name, None), outcomes) {
                    Removed::Level(level) => self.levels.push(level),
                    Removed::Kept => level.is_kept = true,
                    Removed::Gone => {}
                }
                continue;
            }
            let level = self.levels.pop().expect("looked at above");
            let is_gone = !level.is_kept && remove_emptied(disk, tree, &level, outcomes);
            if !is_gone {
                level.dir.close_up(disk, &tree.cache);
                if let Some(above) = self.levels.last_mut() {
                    above.is_kept = true;
                }
            }
        }
        Progress::Done
    }

    /// Leaves what is left, as closed as it was.
    pub fn abandon(self, disk: &D, tree: &Tree<D>) {
        for level in self.levels.into_iter().rev() {
            level.dir.close_up(disk, &tree.cache);
        }
    }
}

/// What became of an entry that is to go.
enum Removed<D: Disk> {
    /// It is a directory, to be emptied first.
    Level(Level<D>),
    /// It is not there any more, whoever took it away.
    Gone,
    Kept,
}

/// Removes one entry, or opens the level below when it is a directory.
fn remove<D: Disk>(
    disk: &D,
    tree: &Tree<D>,
    dir: &Arc<Dir<D>>,
    (name, room): (&[u8], Option<Room>),
    outcomes: &mut Outcomes,
) -> Removed<D> {
    let fd = match dir.fd(disk, &tree.cache) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Removed::Gone,
        Err(errno) => {
            fail(tree, dir, name, errno, outcomes);
            return Removed::Kept;
        }
    };
    let stat = match disk.stat_at(&fd, name) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Removed::Gone, // Somebody else was faster.
        Err(errno) => {
            fail(tree, dir, name, errno, outcomes);
            return Removed::Kept;
        }
    };
    if room.is_some_and(|room| !room.is_taken_by(stat.kind)) {
        return Removed::Kept; // Somebody else has made it.
    }
    if stat.kind == Kind::Dir {
        if dir.identity().is_some_and(|(dev, _)| dev != stat.dev) {
            fail(tree, dir, name, Errno::BUSY, outcomes); // A mount point: never emptied.
            return Removed::Kept;
        }
        let child = Arc::new(Dir::child(dir, name));
        return Removed::Level(Level {
            dir: child,
            parent: Arc::clone(dir),
            names: None,
            is_kept: false,
        });
    }
    if !tree.count_delete() {
        return Removed::Kept;
    }
    let removed = if tree.policy.dry_run {
        Ok(())
    } else {
        opened_up(disk, dir, &fd, || disk.unlink(&fd, name))
    };
    if finish(tree, dir, name, false, removed, outcomes) {
        Removed::Gone
    } else {
        Removed::Kept
    }
}

/// Removes a directory that has been emptied; `false` when it stays.
fn remove_emptied<D: Disk>(
    disk: &D,
    tree: &Tree<D>,
    level: &Level<D>,
    outcomes: &mut Outcomes,
) -> bool {
    if !tree.count_delete() {
        return false;
    }
    let name = level.dir.name();
    let removed = if tree.policy.dry_run {
        Ok(())
    } else {
        level
            .parent
            .fd(disk, &tree.cache)
            .and_then(|fd| opened_up(disk, &level.parent, &fd, || disk.remove_dir(&fd, name)))
    };
    finish(tree, &level.parent, name, true, removed, outcomes)
}

/// Whether the entry is gone.
fn finish<D: Disk>(
    tree: &Tree<D>,
    dir: &Dir<D>,
    name: &[u8],
    is_dir: bool,
    removed: Result<(), Errno>,
    outcomes: &mut Outcomes,
) -> bool {
    match removed {
        Ok(()) => {
            if tree.policy.tell_deletes {
                outcomes.deleted.push((is_dir, dir.path_below_root(name)));
            }
            true
        }
        Err(errno) => {
            tree.uncount_delete();
            let is_gone = errno == Errno::NOENT;
            if !is_gone {
                fail(tree, dir, name, errno, outcomes);
            }
            is_gone
        }
    }
}

fn fail<D: Disk>(tree: &Tree<D>, dir: &Dir<D>, name: &[u8], errno: Errno, outcomes: &mut Outcomes) {
    outcomes.failed(
        tree,
        Attempt::Delete,
        Why::Errno(errno),
        dir.path_below_root(name),
    );
}

fn read_names<D: Disk>(disk: &D, tree: &Tree<D>, dir: &Dir<D>) -> Result<Vec<u8>, Errno> {
    let fd = match dir.fd(disk, &tree.cache) {
        Err(Errno::ACCESS) if !tree.policy.dry_run => {
            // Ours, but closed even to us: an owner may open it up, it is going anyway.
            dir.open_up_by_name(disk, &tree.cache)?;
            dir.fd(disk, &tree.cache)?
        }
        opened => opened?,
    };
    names_of(disk, &fd)
}

/// All names in a directory, a length byte behind each: they are taken from the end.
pub fn names_of<D: Disk>(disk: &D, fd: &D::Fd) -> Result<Vec<u8>, Errno> {
    disk.rewind_dir(fd)?;
    let (mut names, mut scratch) = (Vec::new(), Vec::new());
    let mut count = 0;
    while disk.read_dir(fd, &mut scratch, &mut |name| {
        names.extend_from_slice(name);
        names.push(u8::try_from(name.len()).expect("Linux names have at most 255 bytes"));
        count += 1;
    })? {
        if count > DIR_ENTRIES_MAX {
            return Err(Errno::TOOBIG);
        }
    }
    Ok(names)
}

/// The next of `names_of`.
pub fn take_name(names: &mut Vec<u8>) -> Option<Vec<u8>> {
    let len = names.pop()?;
    Some(names.split_off(names.len() - usize::from(len)))
}

/// Runs a change inside `dir`; where the directory's own mode forbids it, its owner may open it
/// up first, as rsync does.
pub fn opened_up<D: Disk, T>(
    disk: &D,
    dir: &Dir<D>,
    fd: &D::Fd,
    change: impl Fn() -> Result<T, Errno>,
) -> Result<T, Errno> {
    let is_opened_up = dir.facts().opened_up_from.is_some();
    match change() {
        Err(Errno::ACCESS) if !is_opened_up => {
            let mode = disk.stat(fd)?.mode;
            if mode & 0o300 != 0o300 {
                disk.set_mode(fd, mode | 0o700).map_err(|_| Errno::ACCESS)?;
                dir.learn(|facts| facts.opened_up_from = Some(mode));
            }
            change() // Once more in any case: another job may just have opened it up.
        }
        outcome => outcome,
    }
}
