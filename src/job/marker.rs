//! The unclean-session marker: `.sy.<session>.unclean` in DEST, written before the first change
//! and synced, removed after the last sync. A crash in between leaves it, and the next push then
//! doubts what changed meanwhile: after a power cut a file may have the right size and time and
//! the wrong bytes.
//!
//! A marker holds the boot it was written in, the time from which on changes are in doubt, and,
//! once a session of a later boot has written its own marker, the time up to which they are: what
//! changed after the crash was not in it. It goes when its own session has synced, when any
//! session of the same boot has and its own was dead before, or when nothing is left to doubt.
//!
//! It stands for all below DEST, other file systems too: those that the session went through are synced
//! with DEST's. Who finds it is whoever comes below it, by whatever path or module.
//!
//! A sync that fails spoils markers: what they stand for is in doubt from now on though the host did
//! not crash, since the kernel may have dropped what it could not write. A file's or a directory's
//! sync spoils the session's own, that of the file system every one of this boot that stands in DEST or was met.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::dir::{Dir, keeping_time};
use super::own_name::{OwnName, marker_name, parse};
use super::prune::opened_up;
use super::tree::Tree;
use super::walk::Walk;
use crate::model::entry::{Kind, Stat};
use crate::model::time::Mtime;
use crate::ops::disk::Lock;
use crate::ops::op::Progress;
use crate::ops::{Disk, Errno};

/// Seconds before the marker's own time that are doubted too: coarse clocks, and writes that
/// were under way.
const SLACK_SECONDS: i64 = 2;
/// Directories above ROOT that are looked at; no tree is so deep.
const LEVELS_ABOVE_MAX: usize = 255;
const END_OF_TIME: Mtime = Mtime {
    sec: i64::MAX,
    nsec: 0,
};
/// Whoever pushes to this place has to know; there is nothing in it to hide.
const MARKER_MODE: u16 = 0o644;
/// Boot id, and twice seconds and nanoseconds.
const MARKER_BYTES: usize = 16 + 2 * TIME_BYTES;
const TIME_BYTES: usize = 12;
/// The boot of a marker that is in doubt in any boot: a sync failed, and what the kernel could not
/// write it may have dropped.
const NO_BOOT: [u8; 16] = [0; 16];

/// When an entry must have changed to be in doubt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Doubt {
    since: Mtime,
    until: Option<Mtime>,
    /// A sync has failed: what is read back may be in memory only, and has to be written again.
    after_failed_sync: bool,
}

impl Doubt {
    /// Nothing is known, so everything is in doubt.
    pub const ALWAYS: Self = Self {
        since: Mtime {
            sec: i64::MIN,
            nsec: 0,
        },
        until: None,
        after_failed_sync: true,
    };

    /// Whether even the right content proves nothing.
    pub fn is_read_in_vain(self, ctime: Mtime) -> bool {
        self.after_failed_sync && self.concerns(ctime)
    }

    pub fn concerns(&self, ctime: Mtime) -> bool {
        ctime >= self.since && self.until.is_none_or(|until| ctime < until)
    }

    /// What either has in doubt, and what is between them.
    pub fn and(self, other: Self) -> Self {
        Self {
            since: self.since.min(other.since),
            until: self.until.zip(other.until).map(|(a, b)| a.max(b)),
            after_failed_sync: self.after_failed_sync || other.after_failed_sync,
        }
    }
}

/// A marker, as it was read.
#[derive(Clone, Copy, Debug)]
struct Marker {
    boot: [u8; 16],
    since: Mtime,
    until: Option<Mtime>,
}

impl Marker {
    fn encode(&self) -> [u8; MARKER_BYTES] {
        let mut bytes = [0; MARKER_BYTES];
        let (boot, times) = bytes.split_at_mut(16);
        boot.copy_from_slice(&self.boot);
        for (bytes, time) in times
            .chunks_exact_mut(TIME_BYTES)
            .zip([self.since, self.until.unwrap_or_default()])
        {
            bytes[..8].copy_from_slice(&time.sec.to_le_bytes());
            bytes[8..].copy_from_slice(&time.nsec.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8; MARKER_BYTES]) -> Self {
        let (boot, times) = bytes.split_first_chunk().expect("16 of them");
        let time = |at: usize| {
            let (sec, rest) = times[at..].split_first_chunk().expect("8 of 12 bytes");
            let nsec = rest.first_chunk().expect("4 of 12 bytes");
            Mtime {
                sec: i64::from_le_bytes(*sec),
                nsec: u32::from_le_bytes(*nsec),
            }
        };
        let until = time(TIME_BYTES);
        Self {
            boot: *boot,
            since: time(0),
            until: (until != Mtime::default()).then_some(until),
        }
    }

    /// The same for a push to a place below. It can't set an end, so this boot's beginning is one: what
    /// changed since was in no crash before it. Unless the marker itself is younger: then it is another
    /// host's, or the clock was set back.
    fn doubt_below(&self, booted: Mtime, found: Option<Stat>) -> Doubt {
        let is_older = found.is_some_and(|stat| stat.ctime < booted);
        let doubt = self.doubt();
        Doubt {
            until: doubt.until.or(is_older.then_some(booted)),
            ..doubt
        }
    }

    fn doubt(&self) -> Doubt {
        Doubt {
            since: Mtime {
                sec: self.since.sec.saturating_sub(SLACK_SECONDS),
                nsec: 0,
            },
            until: self.until,
            after_failed_sync: self.boot == NO_BOOT,
        }
    }
}

/// A marker of another session that a listing met.
pub struct Met<D: Disk> {
    dir: Arc<Dir<D>>,
    name: Box<[u8]>,
    marker: Marker,
    /// When the youngest of the files below changed, as they were when it was met.
    youngest: Mtime,
}

/// This session's marker in ROOT: its own time, and the descriptor whose lock says that the
/// session lives.
pub struct Own<D: Disk> {
    since: Mtime,
    fd: D::Fd,
}

impl<D: Disk> Own<D> {
    pub fn since(&self) -> Mtime {
        self.since
    }
}

/// Writes and syncs this session's marker into ROOT, whose own time is left as it was.
pub fn write<D: Disk>(disk: &D, tree: &Tree<D>) -> Result<Own<D>, Errno> {
    let root = tree.root.fd(disk, &tree.cache)?;
    let name = marker_name(tree.session);
    // Pushes without a sync leave their marker; it is taken over, or they would pile up.
    let met =
        tree.take_met(|met| met.marker.boot == disk.boot_id() && Arc::ptr_eq(&met.dir, &tree.root));
    let (left, others): (Vec<_>, Vec<_>) = met
        .into_iter()
        .partition(|met| is_left_behind(disk, &root, &met.name));
    others.into_iter().for_each(|met| tree.met(met));
    let left_since = left.iter().map(|met| met.marker.since).min();
    let own = keeping_time(disk, &root, || {
        let create = || disk.create_file(&root, &name, MARKER_MODE);
        let fd = opened_up(disk, &tree.root, &root, create)?;
        let own = begin(disk, fd, left_since);
        if own.is_err() {
            let _ = disk.unlink(&root, &name); // Nothing was changed that it could vouch for.
        }
        own
    })?;
    if let Err(errno) = disk.sync_file(&root) {
        let _ = disk.unlink(&root, &name);
        return Err(errno);
    }
    for met in left {
        // One that stays, or comes back in a crash, doubts no more than ours does.
        if is_left_behind(disk, &root, &met.name) {
            let _ = keeping_time(disk, &root, || disk.unlink(&root, &met.name));
        } else {
            tree.met(met);
        }
    }
    Ok(own)
}

/// Whether the session of a marker is known to be over. A shared lock, since that can be had of a file that is open
/// for reading wherever there are locks; its session has the exclusive one.
fn is_over<D: Disk>(disk: &D, dir: &D::Fd, name: &[u8]) -> Result<bool, Errno> {
    let fd = disk.open_file(dir, name)?;
    disk.try_lock(&fd, Lock::Shared)
}

/// Whether it is the marker of a session of this boot that is over, and nobody has spoiled it since it was met.
fn is_left_behind<D: Disk>(disk: &D, dir: &D::Fd, name: &[u8]) -> bool {
    let is_of_this_boot = || read(disk, dir, name).is_ok_and(|it| it.boot == disk.boot_id());
    is_over(disk, dir, name) == Ok(true) && is_of_this_boot()
}

fn begin<D: Disk>(disk: &D, fd: D::Fd, left_since: Option<Mtime>) -> Result<Own<D>, Errno> {
    // Where the lock is refused, the marker only stays for longer.
    let _ = disk.try_lock(&fd, Lock::Exclusive);
    let since = disk.stat(&fd)?.ctime;
    let marker = Marker {
        boot: disk.boot_id(),
        // With what it takes over from sessions that ended without a sync.
        since: left_since.map_or(since, |left| left.min(since)),
        until: None,
    };
    fill(disk, &fd, &marker)?;
    Ok(Own { since, fd })
}

fn fill<D: Disk>(disk: &D, fd: &D::Fd, marker: &Marker) -> Result<(), Errno> {
    put(disk, fd, &marker.encode())?;
    disk.sync_file(fd)
}

fn put<D: Disk>(disk: &D, fd: &D::Fd, bytes: &[u8]) -> Result<(), Errno> {
    let mut written = 0;
    while written < bytes.len() {
        written += disk.write(fd, &bytes[written..], written as u64)?;
    }
    Ok(())
}

/// Reads the markers that a listing of `dir` met, notes them for the end of the session, and says
/// what they put in doubt. `youngest`: when the youngest file in `dir` and below changed, where that
/// was looked at because one of them `is_open`.
pub fn heed<D: Disk>(
    disk: &D,
    tree: &Tree<D>,
    dir: &Arc<Dir<D>>,
    fd: &D::Fd,
    names: &[Box<[u8]>],
    youngest: Option<Mtime>,
) -> Option<Doubt> {
    let mut doubt: Option<Doubt> = None;
    for name in names {
        if parse(name) == OwnName::Marker(tree.session) {
            continue;
        }
        let found = match read(disk, fd, name) {
            Ok(marker) => {
                tree.met(Met {
                    dir: Arc::clone(dir),
                    name: name.clone(),
                    marker,
                    youngest: youngest
                        .filter(|_| is_over(disk, fd, name) != Ok(false))
                        .unwrap_or(END_OF_TIME),
                });
                if marker.boot == disk.boot_id() {
                    continue; // Only processes died; the page cache has every byte.
                }
                marker.doubt()
            }
            Err(Errno::NOENT) => continue,
            Err(_) => Doubt::ALWAYS,
        };
        doubt = Some(doubt.map_or(found, |known| known.and(found)));
    }
    doubt
}

/// Whether it is the marker of a session before a crash, which nobody has set an end to.
pub fn is_open<D: Disk>(disk: &D, fd: &D::Fd, name: &[u8]) -> bool {
    let found = read(disk, fd, name);
    let is_open = found.is_ok_and(|it| it.boot != disk.boot_id() && it.until.is_none());
    is_open && is_over(disk, fd, name) != Ok(false)
}

/// What the markers in the directories above ROOT put in doubt: they cover what is below, too. By
/// where ROOT is, not by what DEST was called; above a module's root, too.
pub fn heed_above<D: Disk>(disk: &D, root: &D::Fd) -> Result<Option<Doubt>, Errno> {
    let mut doubts = Vec::new();
    let mut below = None;
    for levels in 1..=LEVELS_ABOVE_MAX {
        let found = disk.open_above(root, levels).and_then(|dir| {
            let stat = disk.stat(&dir)?;
            Ok((dir, (stat.dev, stat.ino)))
        });
        match found {
            Ok((_, identity)) if below == Some(identity) => break, // The topmost.
            Ok((dir, identity)) => {
                below = Some(identity);
                doubts.push(heed_one_above(disk, &dir));
            }
            // Who may not list it does not get to know.
            Err(Errno::ACCESS | Errno::PERM) => {}
            Err(Errno::NOENT) => break, // ROOT is in no directory any more.
            Err(errno @ (Errno::MFILE | Errno::NFILE)) => return Err(errno),
            Err(_) => return Ok(Some(Doubt::ALWAYS)),
        }
    }
    Ok(doubts.into_iter().flatten().reduce(Doubt::and))
}

fn heed_one_above<D: Disk>(disk: &D, dir: &D::Fd) -> Option<Doubt> {
    let Ok(names) = names_in(disk, dir) else {
        return Some(Doubt::ALWAYS);
    };
    let doubts = names.iter().filter_map(|name| match read(disk, dir, name) {
        Ok(marker) if marker.boot == disk.boot_id() => None,
        Ok(marker) => {
            let has_end = is_over(disk, dir, name) != Ok(false);
            let found = disk.stat_at(dir, name).ok().filter(|_| has_end);
            Some(marker.doubt_below(disk.booted(), found))
        }
        Err(Errno::NOENT) => None,
        Err(_) => Some(Doubt::ALWAYS),
    });
    doubts.reduce(Doubt::and)
}

/// All markers of a directory that nobody else lists by this descriptor at the same time.
fn names_in<D: Disk>(disk: &D, dir: &D::Fd) -> Result<Vec<Box<[u8]>>, Errno> {
    let (mut names, mut scratch) = (Vec::<Box<[u8]>>::new(), Vec::new());
    let mut each = |name: &[u8]| {
        if matches!(parse(name), OwnName::Marker(_)) {
            names.push(name.into());
        }
    };
    disk.rewind_dir(dir)?;
    while disk.read_dir(dir, &mut scratch, &mut each)? {}
    Ok(names)
}

fn read<D: Disk>(disk: &D, dir: &D::Fd, name: &[u8]) -> Result<Marker, Errno> {
    let fd = disk.open_file(dir, name)?;
    let mut bytes = [0; MARKER_BYTES];
    let mut got = 0;
    while got < bytes.len() {
        match disk.read(&fd, &mut bytes[got..], got as u64)? {
            0 => {
                // Its session did not get further than this.
                return Ok(Marker {
                    boot: NO_BOOT,
                    since: disk.stat(&fd)?.ctime,
                    until: None,
                });
            }
            more => got += more,
        }
    }
    Ok(Marker::decode(&bytes))
}

/// Syncs the file system, where no job of the session runs any more: the markers that this vouches for go, which are this
/// session's and those of dead ones of this boot.
pub fn retire<D: Disk>(disk: &D, tree: &Tree<D>) -> Result<(), Errno> {
    let root = tree.root.fd(disk, &tree.cache)?;
    // Dead before the sync: what one writes that ends meanwhile was not in it.
    let met = tree.take_met(|met| met.marker.boot == disk.boot_id());
    let (dead, others): (Vec<_>, Vec<_>) = met
        .into_iter()
        .partition(|met| is_dead(disk, tree, met) == Ok(true));
    others.into_iter().for_each(|met| tree.met(met));
    let (others, are_all) = tree.cache.other_file_systems();
    let synced = disk.sync_fs(&root);
    let synced = others
        .iter()
        .fold(synced, |synced, fd| synced.and(disk.sync_fs(fd)));
    if synced.is_ok() && !are_all {
        spoil_own(disk, tree);
        return Err(Errno::MFILE);
    }
    if let Err(errno) = synced {
        dead.into_iter().for_each(|met| tree.met(met));
        spoil_all(disk, tree, &root);
        return Err(errno);
    }
    for met in dead {
        // Failing to tidy up is no failure of the push; the next one tries again.
        let _ = remove_dead(disk, tree, &met);
    }
    if !tree.has_failed_sync() && tree.take_own_marker().is_some() {
        let _ = remove(disk, tree, &tree.root, &root, &marker_name(tree.session));
    }
    Ok(())
}

fn is_dead<D: Disk>(disk: &D, tree: &Tree<D>, met: &Met<D>) -> Result<bool, Errno> {
    let dir = met.dir.fd(disk, &tree.cache)?;
    Ok(is_left_behind(disk, &dir, &met.name))
}

/// Nobody may have spoiled it meanwhile.
fn remove_dead<D: Disk>(disk: &D, tree: &Tree<D>, met: &Met<D>) -> Result<(), Errno> {
    let dir = met.dir.fd(disk, &tree.cache)?;
    if is_left_behind(disk, &dir, &met.name) {
        remove(disk, tree, &met.dir, &dir, &met.name)?;
    }
    Ok(())
}

fn remove<D: Disk>(
    disk: &D,
    tree: &Tree<D>,
    dir: &Dir<D>,
    fd: &D::Fd,
    name: &[u8],
) -> Result<(), Errno> {
    match change_names(disk, tree, dir, fd, || disk.unlink(fd, name)) {
        Ok(()) => disk.sync_file(fd),
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Changes names in a directory that is dressed already, and leaves it as it was.
fn change_names<D: Disk>(
    disk: &D,
    tree: &Tree<D>,
    dir: &Dir<D>,
    fd: &D::Fd,
    change: impl Fn() -> Result<(), Errno>,
) -> Result<(), Errno> {
    let is_opened_up = dir.facts().opened_up_from.is_some();
    let changed = keeping_time(disk, fd, || opened_up(disk, dir, fd, &change));
    if !is_opened_up {
        dir.close_up(disk, &tree.cache);
    }
    changed
}

/// A sync of something that this session has changed has failed, and what was changed is in its place.
pub fn spoil_own<D: Disk>(disk: &D, tree: &Tree<D>) {
    tree.note_failed_sync();
    if let Some(own) = tree.take_own_marker() {
        // In its place, in the page cache: a disk that has just failed may take no new file and no
        // sync, and after a crash the boot is another anyway.
        let _ = put(disk, &own.fd, &NO_BOOT).or_else(|_| put(disk, &own.fd, &NO_BOOT));
        tree.marked(own); // It stays, and its lock says that this session lives.
    }
}

/// The sync of all has failed: nobody knows of which session's writes.
fn spoil_all<D: Disk>(disk: &D, tree: &Tree<D>, root: &D::Fd) {
    spoil_own(disk, tree);
    // A disk that fails in these has failed the push already, and said so.
    for name in names_in(disk, root).unwrap_or_default() {
        if parse(&name) != OwnName::Marker(tree.session) {
            let _ = spoil(disk, tree, &tree.root, root, &name);
        }
    }
    let (boot, in_root) = (disk.boot_id(), &tree.root);
    for met in tree.take_met(|met| met.marker.boot == boot && !Arc::ptr_eq(&met.dir, in_root)) {
        let fd = met.dir.fd(disk, &tree.cache);
        let _ = fd.and_then(|fd| spoil(disk, tree, &met.dir, &fd, &met.name));
    }
}

/// Another session's marker of this boot.
fn spoil<D: Disk>(
    disk: &D,
    tree: &Tree<D>,
    dir: &Dir<D>,
    fd: &D::Fd,
    name: &[u8],
) -> Result<(), Errno> {
    let marker = read(disk, fd, name)?;
    if marker.boot != disk.boot_id() {
        return Ok(());
    }
    let in_place = disk.open_to_write(fd, name).and_then(|file| {
        let stat = disk.stat(&file)?;
        // Anybody may give a file this name, or this name to a file.
        let is_ours = tree.identity.is_root || stat.uid == tree.identity.uid;
        let is_fit = stat.kind == Kind::File && stat.nlink == 1 && is_ours;
        if is_fit && stat.size == MARKER_BYTES as u64 {
            put(disk, &file, &NO_BOOT)
        } else {
            Err(Errno::PERM)
        }
    });
    if in_place.is_err() && is_over(disk, fd, name)? {
        let boot = NO_BOOT;
        return rewrite(disk, tree, dir, fd, name, &Marker { boot, ..marker });
    }
    in_place
}

/// At the end of a session: markers from before a crash go, if nothing is left to doubt, and else
/// learn from when on changes are none of theirs. `is_good`: the session did all it was to do.
pub fn settle<D: Disk>(disk: &D, tree: &Tree<D>, own_since: Option<Mtime>, is_good: bool) {
    for met in tree.take_met(|met| met.marker.boot != disk.boot_id()) {
        let Ok(dir) = met.dir.fd(disk, &tree.cache) else {
            continue;
        };
        // Its session lives, and what it changes from now on is in doubt, too; or it is gone.
        if matches!(
            is_over(disk, &dir, &met.name),
            Ok(false) | Err(Errno::NOENT)
        ) {
            continue;
        }
        if is_good && !has_doubtful(disk, &met.dir, met.marker.doubt()) {
            // Failing to tidy up is no failure of the push; the next one tries again.
            let _ = remove(disk, tree, &met.dir, &dir, &met.name);
            continue;
        }
        // A clock that was set back in the crash can't tell before from after.
        let until = own_since.filter(|own| {
            met.marker.until.is_none() && *own > met.marker.since && *own > met.youngest
        });
        if until.is_some() {
            let marker = Marker {
                until,
                ..met.marker
            };
            let _ = rewrite(disk, tree, &met.dir, &dir, &met.name, &marker);
        }
    }
}

/// Puts another marker in the place of one, whole or not at all.
fn rewrite<D: Disk>(
    disk: &D,
    tree: &Tree<D>,
    dir: &Dir<D>,
    fd: &D::Fd,
    name: &[u8],
    marker: &Marker,
) -> Result<(), Errno> {
    let temp = tree.temp_name();
    change_names(disk, tree, dir, fd, || {
        let file = disk.create_file(fd, temp.bytes(), MARKER_MODE)?;
        let done = fill(disk, &file, marker).and_then(|()| disk.rename(fd, temp.bytes(), name));
        if done.is_err() {
            let _ = disk.unlink(fd, temp.bytes());
        }
        done
    })?;
    disk.sync_file(fd)
}

/// Whether some file in `root` or below is in doubt, or may be.
fn has_doubtful<D: Disk>(disk: &D, root: &Arc<Dir<D>>, doubt: Doubt) -> bool {
    let (mut has_some, mut budget) = (false, usize::MAX);
    let mut walk = Walk::new(root);
    let looked = walk.run(disk, &mut budget, |ctime| {
        has_some = doubt.concerns(ctime);
        if has_some {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    debug_assert_eq!(looked, Progress::Done, "the budget is endless");
    has_some || !walk.has_seen_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_read_as_it_was_written() {
        let time = |sec| Mtime { sec, nsec: 5 };
        for until in [None, Some(time(7))] {
            let marker = Marker {
                boot: [9; 16],
                since: time(-3),
                until,
            };
            let read = Marker::decode(&marker.encode());
            assert_eq!(
                (read.boot, read.since, read.until),
                (marker.boot, marker.since, until)
            );
        }
    }

    #[test]
    fn doubt_has_a_beginning_and_may_have_an_end() {
        let time = |sec| Mtime { sec, nsec: 0 };
        let doubt = |since, until| Doubt {
            since: time(since),
            until,
            after_failed_sync: false,
        };
        let bounded = doubt(5, Some(time(9)));
        assert!([4, 9].iter().all(|sec| !bounded.concerns(time(*sec))));
        assert!(bounded.concerns(time(5)));
        assert_eq!(
            bounded.and(doubt(7, Some(time(12)))),
            doubt(5, Some(time(12)))
        );
        assert_eq!(bounded.and(doubt(2, None)), doubt(2, None));
    }
}
