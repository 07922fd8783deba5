//! `Dir`, a directory on the way from a root: its descriptor is opened when it is needed, one
//! component at a time from the nearest ancestor that is open, and kept while `FdCache` has room.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::marker::Doubt;
use crate::limits::FILE_SYSTEMS_MAX;
use crate::model::entry::Stat;
use crate::ops::disk::SharedFd;
use crate::ops::{Disk, Errno};
use crate::wire::report::NOTICE_PATH_BYTES_MAX;

/// A directory, by its parent and its name in it. Roots hold their descriptor for good.
pub struct Dir<D: Disk> {
    parent: Option<Arc<Self>>,
    /// Of a module's root, which is opened when it is needed first: there may be thousands of sessions
    /// that only wait.
    path: Option<Box<[u8]>>,
    /// One component; of a root, what people call it.
    name: Box<[u8]>,
    state: Mutex<State<D>>,
}

struct State<D: Disk> {
    fd: Weak<D::Fd>,
    /// Roots only, once they are open: what keeps `fd` alive.
    pinned: Option<SharedFd<D>>,
    /// (dev, ino) at the first opening; a later one must find the same.
    identity: Option<(u64, u64)>,
    facts: Facts,
}

/// What is learned of a directory once and asked for with every entry.
#[derive(Clone, Copy, Default)]
pub struct Facts {
    /// As it was opened first.
    pub stood: Option<Stood>,
    /// Files were made in it that have their group by themselves.
    pub is_counted_on: bool,
    /// New entries get their mode from a default ACL; `None`: not asked yet.
    pub has_default_acl: Option<bool>,
    /// Our shared lock is on this descriptor: other sessions leave our temp files alone.
    pub is_locked: bool,
    /// The mode it had before it was made writable for its owner; CLOSE sets that, or a new one,
    /// and the end of a session that breaks off before.
    pub opened_up_from: Option<u16>,
    /// Entries that changed then may hold wrong bytes: a session before a crash was not synced.
    pub doubt: Option<Doubt>,
    /// Partial files stood in it when it was listed.
    pub has_partials: bool,
}

/// What of a directory decides about the group of a new entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stood {
    pub is_setgid: bool,
    pub gid: u32,
}

impl Stood {
    pub fn of(stat: &Stat) -> Self {
        Self {
            is_setgid: stat.mode & 0o2000 != 0,
            gid: stat.gid,
        }
    }
}

impl<D: Disk> Dir<D> {
    /// A root: `fd` is open and stays so.
    pub fn root(name: &[u8], fd: SharedFd<D>) -> Self {
        let dir = Self::new(None, None, name);
        let mut state = dir.state();
        state.fd = Arc::downgrade(&fd);
        state.pinned = Some(fd);
        drop(state);
        dir
    }

    /// The root of a module, by its operator's path.
    pub fn module_root(path: &[u8]) -> Self {
        Self::new(None, Some(path.into()), b"")
    }

    /// What `stat` says of a root.
    pub fn learn_root(&self, stat: &Stat) {
        let mut state = self.state();
        state.identity = Some((stat.dev, stat.ino));
        state.facts.stood = Some(Stood::of(stat));
    }

    pub fn child(parent: &Arc<Self>, name: &[u8]) -> Self {
        Self::new(Some(Arc::clone(parent)), None, name)
    }

    fn new(parent: Option<Arc<Self>>, path: Option<Box<[u8]>>, name: &[u8]) -> Self {
        let state = State {
            fd: Weak::new(),
            pinned: None,
            identity: None,
            facts: Facts::default(),
        };
        Self {
            parent,
            path,
            name: name.into(),
            state: Mutex::new(state),
        }
    }

    pub fn name(&self) -> &[u8] {
        &self.name
    }

    pub fn facts(&self) -> Facts {
        self.state().facts
    }

    pub fn learn(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.state().facts);
    }

    pub fn count_on_its_group(&self) {
        self.state().facts.is_counted_on = true;
    }

    /// Whether the content of this entry of it may be in memory only.
    pub fn is_read_in_vain(&self, entry: &Stat) -> bool {
        let doubt = self.facts().doubt;
        doubt.is_some_and(|doubt| doubt.is_read_in_vain(entry.ctime))
    }

    /// Notes what is in doubt in it and below, and takes over what is in doubt in the directory
    /// above, which was listed before this one; both together.
    pub fn doubt(&self, found: Option<Doubt>) -> Option<Doubt> {
        let above = self.parent.as_deref();
        let above = above.and_then(|above| above.facts().doubt);
        let facts = &mut self.state().facts;
        let doubts = [facts.doubt, above, found].into_iter().flatten();
        facts.doubt = doubts.reduce(Doubt::and);
        facts.doubt
    }

    /// (dev, ino), once it was open.
    pub fn identity(&self) -> Option<(u64, u64)> {
        self.state().identity
    }

    fn state(&self) -> MutexGuard<'_, State<D>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live_fd(&self) -> Option<SharedFd<D>> {
        self.state().fd.upgrade()
    }

    /// The open directory. `STALE` where another directory has taken its place since.
    pub fn fd(&self, disk: &D, cache: &FdCache<D>) -> Result<SharedFd<D>, Errno> {
        if let Some(fd) = self.live_fd() {
            return Ok(fd);
        }
        let mut closed = Vec::new();
        let mut dir = self;
        let mut base = loop {
            if let Some(fd) = dir.live_fd() {
                break fd;
            }
            let Some(parent) = dir.parent.as_deref() else {
                break dir.open_root(disk)?;
            };
            closed.push(dir);
            dir = parent;
        };
        for dir in closed.into_iter().rev() {
            base = dir.open_below(&base, disk, cache)?;
        }
        Ok(base)
    }

    fn open_root(&self, disk: &D) -> Result<SharedFd<D>, Errno> {
        let path = self.path.as_ref().expect("other roots are always open");
        let fd = Arc::new(disk.open_module_dir(path)?);
        let stat = disk.stat(&fd)?;
        let mut state = self.state();
        if state
            .identity
            .is_some_and(|known| known != (stat.dev, stat.ino))
        {
            return Err(Errno::STALE);
        }
        if let Some(fd) = &state.pinned {
            return Ok(Arc::clone(fd)); // Another job was faster.
        }
        state.fd = Arc::downgrade(&fd);
        state.pinned = Some(Arc::clone(&fd));
        Ok(fd)
    }

    fn open_below(
        &self,
        parent: &D::Fd,
        disk: &D,
        cache: &FdCache<D>,
    ) -> Result<SharedFd<D>, Errno> {
        let fd = Arc::new(disk.open_dir(parent, &self.name)?);
        let stat = disk.stat(&fd)?;
        let identity = (stat.dev, stat.ino);
        let mut state = self.state();
        if *state.identity.get_or_insert(identity) != identity {
            return Err(Errno::STALE);
        }
        if let Some(fd) = state.fd.upgrade() {
            return Ok(fd); // Another job was faster; the lock is to be on one descriptor.
        }
        state.fd = Arc::downgrade(&fd);
        state.facts.stood.get_or_insert(Stood::of(&stat));
        state.facts.is_locked = false;
        drop(state);
        cache.keep(&fd, disk.dirs_open_max());
        cache.note(stat.dev, &fd);
        Ok(fd)
    }

    /// Gives the owner all rights on a directory that can't even be opened.
    pub fn open_up_by_name(&self, disk: &D, cache: &FdCache<D>) -> Result<(), Errno> {
        let parent = self
            .parent
            .as_deref()
            .ok_or(Errno::ACCESS)?
            .fd(disk, cache)?;
        let mode = disk.stat_at(&parent, &self.name)?.mode;
        disk.set_mode_at(&parent, &self.name, mode | 0o700)?;
        self.learn(|facts| facts.opened_up_from = Some(mode));
        Ok(())
    }

    /// Gives it back the mode that it had before it was opened up. It was ours to open up, so it
    /// is ours to close; if that fails, nobody is waiting for it.
    pub fn close_up(&self, disk: &D, cache: &FdCache<D>) {
        let Some(mode) = self.state().facts.opened_up_from.take() else {
            return;
        };
        let _ = self.fd(disk, cache).and_then(|fd| disk.set_mode(&fd, mode));
    }

    /// Directories above it.
    pub fn depth(&self) -> usize {
        std::iter::successors(self.parent.as_deref(), |dir| dir.parent.as_deref()).count()
    }

    /// The path from the root (whose own name is left out) to `name` in this directory; of one
    /// too long to be told, the end. A peer may nest directories at will and let each entry fail.
    pub fn path_below_root(&self, name: &[u8]) -> Vec<u8> {
        let mut path = self.end_of_path(name, NOTICE_PATH_BYTES_MAX);
        path.drain(..path.len().saturating_sub(NOTICE_PATH_BYTES_MAX));
        path
    }

    /// The last components of the path below the root, as many as give `bytes_min`.
    fn end_of_path(&self, name: &[u8], bytes_min: usize) -> Vec<u8> {
        let mut parts = vec![name];
        let mut bytes = name.len();
        let mut dir = self;
        while bytes < bytes_min
            && let Some(parent) = dir.parent.as_deref()
        {
            parts.push(&dir.name);
            bytes += dir.name.len() + 1;
            dir = parent;
        }
        parts.retain(|part| !part.is_empty());
        parts.reverse();
        parts.join(&b'/')
    }

    /// The same with the root's own name before it.
    pub fn path(&self, name: &[u8]) -> Vec<u8> {
        let mut root = self;
        while let Some(parent) = root.parent.as_deref() {
            root = parent;
        }
        let below = self.end_of_path(name, usize::MAX);
        let mut path = root.name.to_vec();
        if !path.is_empty() && !path.ends_with(b"/") && !below.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&below);
        path
    }
}

/// Changes names in `dir` and sets its time back, also where the change failed half done.
pub fn keeping_time<D: Disk, T>(
    disk: &D,
    dir: &D::Fd,
    change: impl FnOnce() -> Result<T, Errno>,
) -> Result<T, Errno> {
    let before = disk.stat(dir)?.mtime;
    let changed = change();
    let restored = match disk.set_mtime(dir, before) {
        Err(Errno::PERM) => Ok(()), // Somebody else's, who lets others make entries in it.
        restored => restored,
    };
    changed.and_then(|changed| restored.map(|()| changed))
}

/// A parent chain may be thousands long; dropping it must not recurse once per level.
impl<D: Disk> Drop for Dir<D> {
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(dir) = next {
            next = match Arc::try_unwrap(dir) {
                Ok(mut last_owned) => last_owned.parent.take(),
                Err(_) => None,
            };
        }
    }
}

/// The directory descriptors that one session keeps open, oldest out first.
pub struct FdCache<D: Disk> {
    kept: Mutex<VecDeque<SharedFd<D>>>,
    max: usize,
    /// The device of the root; `None`: nobody asks for others.
    home: Option<u64>,
    /// One directory of each other device; one more than `FILE_SYSTEMS_MAX` stands for all above.
    others: Mutex<Vec<(u64, SharedFd<D>)>>,
}

impl<D: Disk> FdCache<D> {
    pub fn new(max: usize) -> Self {
        Self {
            kept: Mutex::new(VecDeque::with_capacity(max)),
            max,
            home: None,
            others: Mutex::new(Vec::new()),
        }
    }

    /// One that also notes which other devices than `home` there are.
    pub fn beside(home: u64, max: usize) -> Self {
        Self {
            home: Some(home),
            ..Self::new(max)
        }
    }

    /// A directory of each other file system that was opened, and whether these are all.
    pub fn other_file_systems(&self) -> (Vec<SharedFd<D>>, bool) {
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let fds = others.iter().map(|(_, fd)| Arc::clone(fd)).collect();
        (fds, others.len() <= FILE_SYSTEMS_MAX)
    }

    fn note(&self, dev: u64, fd: &SharedFd<D>) {
        if self.home.is_none_or(|home| home == dev) {
            return;
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if others.len() <= FILE_SYSTEMS_MAX && others.iter().all(|(known, _)| *known != dev) {
            others.push((dev, Arc::clone(fd)));
        }
    }

    /// `process_max`: what the process's limit of open files leaves for them.
    fn keep(&self, fd: &SharedFd<D>, process_max: usize) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = if kept.len() >= self.max.min(process_max) {
            kept.pop_front()
        } else {
            None
        };
        kept.push_back(Arc::clone(fd));
        drop(kept);
        drop(oldest); // Closes it, outside the lock, unless a job still works with it.
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::disk::PosixDisk;

    #[test]
    fn each_file_system_below_the_root_is_known_by_one_directory() {
        let disk = PosixDisk;
        let fd = disk.open_operator_dir(b"/").unwrap();
        let cache = FdCache::beside(disk.stat(&fd).unwrap().dev, 1);
        let root = Arc::new(Dir::<PosixDisk>::root(b"", Arc::new(fd)));
        let open = |path: &[&str]| {
            let child = |dir: Arc<Dir<_>>, name: &&str| Arc::new(Dir::child(&dir, name.as_bytes()));
            let dir = path.iter().fold(Arc::clone(&root), child);
            dir.fd(&disk, &cache).unwrap();
            cache.other_file_systems().0.len()
        };
        assert_eq!(open(&["usr"]), 0);
        assert_eq!(open(&["proc"]), 1);
        assert_eq!(open(&["proc", "sys"]), 1);
        assert_eq!(open(&["dev"]), 2);
    }
}
