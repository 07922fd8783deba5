//! `Host`, what the processes on one simulated disk share: its objects, open files, faults and
//! the way a path is walked. `SimDisk` makes the calls of one process on it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::clock::SimClock;
use super::disk::SimDisk;
use super::fault::{Call, CallKind, DiskFaults, DiskOptions};
use super::inode::{Attrs, BLOCK, Body, Ino, Inodes, NameChange, Place, ROOT};
use super::prng::Prng;
use super::tree::{Content, Entry, Tree};
use crate::limits::NAME_BYTES_MAX;
use crate::model::entry::{Kind, Meta, Stat};
use crate::model::time::Mtime;
use crate::ops::Errno;
use crate::ops::disk::Lock;

/// Symlinks followed on the way through an operator's path (Linux `MAXSYMLINKS`).
const SYMLINKS_FOLLOWED_MAX: u32 = 40;
/// The process that stands for everybody else on the host.
pub(super) const BYSTANDER: u32 = 0;
pub(super) type Hook = Box<dyn FnMut(&SimDisk, &Call) + Send>;

pub(super) struct Host {
    pub(super) options: DiskOptions,
    pub(super) clock: SimClock,
    pub(super) prng: Prng,
    pub(super) inodes: Inodes,
    pub(super) dev: u64,
    pub(super) boot_id: [u8; 16],
    pub(super) booted: Mtime,
    pub(super) processes: Vec<Process>,
    pub(super) open: BTreeMap<u64, OpenFile>,
    pub(super) next_fd: u64,
    pub(super) names_drawn: u64,
    pub(super) faults: DiskFaults,
    /// Calls that fail by the name they are given.
    pub(super) named_faults: Vec<(Vec<u8>, CallKind, Errno)>,
    pub(super) hook: Option<Hook>,
}

#[derive(Default)]
pub(super) struct Process {
    pub(super) is_dead: bool,
    pub(super) calls_count: u64,
    pub(super) crash_at_call: Option<u64>,
    /// And before which call of a kind.
    pub(super) crash_before: Option<(CallKind, u64)>,
    pub(super) scheduled_faults: BTreeMap<u64, Errno>,
    pub(super) last_calls: VecDeque<Call>,
}

pub(super) struct OpenFile {
    pub(super) ino: Ino,
    pub(super) process: u32,
    pub(super) is_writable: bool,
    /// How far a listing has come.
    pub(super) last: Option<Place>,
    pub(super) lock: Option<Lock>,
}

/// A test that failed inside a call may still want to look at the disk.
pub(super) fn locked(host: &Mutex<Host>) -> MutexGuard<'_, Host> {
    host.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Host {
    pub(super) fn process(&mut self, process: u32) -> &mut Process {
        &mut self.processes[process as usize]
    }

    pub(super) fn check_fd_room(&self, process: u32) -> Result<(), Errno> {
        let held = self.open.values().filter(|file| file.process == process);
        if held.count() < self.options.fds_max {
            Ok(())
        } else {
            Err(Errno::MFILE)
        }
    }

    /// Changes the content of a file that is open for writing: with its times, and without set-id bits
    /// where it isn't root who writes.
    pub(super) fn rewrite(&mut self, ino: Ino, change: impl FnOnce(&mut Vec<u8>)) {
        let now = self.wall();
        let is_root = self.options.identity.is_root;
        self.inodes.change_content(ino, |node| {
            let Body::File(content) = &mut node.body else {
                unreachable!("only files are opened for writing");
            };
            change(Arc::make_mut(content));
            node.is_content_dirty = true;
            node.attrs.mtime = now;
            node.attrs.ctime = now;
            if !is_root {
                drop_set_id_bits(&mut node.attrs);
            }
        });
    }

    pub(super) fn wall(&self) -> Mtime {
        self.clock.wall(self.options.skew_sec, self.options.tick_ns)
    }

    pub(super) fn kind(&self, ino: Ino) -> Kind {
        self.inodes.node(ino).body.kind()
    }

    pub(super) fn find(&self, dir: Ino, name: &[u8]) -> Option<Ino> {
        self.inodes.node(dir).names()?.find(name)
    }

    /// Of a new object of this process, before the directory has its say.
    pub(super) fn attrs(&self, mode: u16) -> Attrs {
        let now = self.wall();
        Attrs {
            mode,
            uid: self.options.identity.uid,
            gid: self.options.identity.gid,
            mtime: now,
            ctime: now,
        }
    }

    /// Of a new object in `dir`: a set-group-id directory gives its group on, and to directories
    /// the bit too; a default ACL takes from the mode.
    pub(super) fn attrs_in(&self, dir: Ino, kind: Kind, mode: u16) -> Attrs {
        const SET_GROUP_ID: u16 = 0o2000;
        let parent = self.inodes.node(dir).attrs;
        let mut attrs = self.attrs(mode);
        let is_setgid = parent.mode & SET_GROUP_ID != 0;
        if is_setgid || self.options.gives_dir_group {
            attrs.gid = parent.gid;
        }
        if is_setgid && kind == Kind::Dir {
            attrs.mode |= SET_GROUP_ID;
        }
        if self.options.has_default_acl && kind != Kind::Symlink {
            attrs.mode &= !0o027;
        }
        attrs
    }

    pub(super) fn stat(&self, ino: Ino) -> Stat {
        let node = self.inodes.node(ino);
        let (size, nlink) = match &node.body {
            Body::File(content) => (content.len() as u64, node.links),
            Body::Symlink(target) => (target.len() as u64, node.links),
            Body::Special { rdev, .. } => (*rdev, node.links),
            Body::Dir(names) => {
                let is_dir = |(_, ino): &(_, Ino)| self.kind(*ino) == Kind::Dir;
                let subdirs = names.iter().filter(is_dir).count();
                let subdirs = u32::try_from(subdirs).expect("a tree in memory");
                // A removed directory has no link left, and one that lives has also its own ".".
                (BLOCK, if node.links == 0 { 0 } else { 2 + subdirs })
            }
        };
        let attrs = node.attrs;
        Stat {
            kind: node.body.kind(),
            mode: attrs.mode,
            uid: attrs.uid,
            gid: attrs.gid,
            size,
            is_sparse: ino.is_multiple_of(2), // What a file takes is nothing that counts here.
            mtime: attrs.mtime,
            ctime: attrs.ctime,
            dev: self.dev,
            ino,
            nlink,
        }
    }

    pub(super) fn fault(&mut self, process: u32, call: &Call) -> Option<Errno> {
        let scheduled = self.process(process).scheduled_faults.remove(&call.number);
        let named = self
            .named_faults
            .iter()
            .find(|(name, kind, _)| *kind == call.kind && *name == call.name)
            .map(|(_, _, errno)| *errno);
        let (faults, kind) = (self.faults, call.kind);
        let io_error = self.prng.chance(faults.io_error_per_mille) && !kind.is_in_memory();
        let sync_error = kind.syncs()
            && faults.sync_error_per_mille > 0
            && self.prng.chance(faults.sync_error_per_mille);
        let no_space = self.prng.chance(faults.no_space_per_mille) && kind.needs_space();
        let no_fd = self.prng.chance(faults.no_fd_per_mille) && kind.opens();
        scheduled
            .or(named)
            .or((io_error || sync_error).then_some(Errno::IO))
            .or(no_space.then_some(Errno::NOSPC))
            .or(no_fd.then_some(Errno::MFILE))
    }

    /// How much of `len` a read or write moves this time: never nothing.
    pub(super) fn some_of(&mut self, len: usize) -> usize {
        if len > 1 && self.prng.chance(self.faults.short_per_mille) {
            1 + self.prng.index(len - 1)
        } else {
            len
        }
    }

    pub(super) fn kill(&mut self, process: u32) {
        // Whoever else is on the host logs in again after a power cut.
        self.process(process).is_dead = process != BYSTANDER;
        let held = self.open.extract_if(.., |_, file| file.process == process);
        for (_, file) in held.collect::<Vec<_>>() {
            self.inodes.close(file.ino);
        }
    }

    pub(super) fn cut_power(&mut self) {
        for process in 0..self.processes.len() {
            self.kill(u32::try_from(process).expect("few processes"));
        }
        if self.options.is_volatile {
            self.inodes = Inodes::new(self.prng.fork(), self.wall());
        } else {
            let is_ordered = self.prng.chance(500);
            // Everything and nothing are the cases that reason alone forgets least, and tests most.
            let keep_per_mille = match self.prng.below(4) {
                0 => 0,
                1 => 1000,
                _ => u32::try_from(self.prng.between(1, 999)).expect("below a thousand"),
            };
            self.inodes
                .cut_power(is_ordered, keep_per_mille, &mut self.prng);
        }
        self.prng.fill(&mut self.boot_id);
        self.booted = self.wall();
    }

    /// Where a path leads: the directory of its last component, that component, and the object,
    /// if there is one. Of the root the component is empty.
    pub(super) fn resolve(
        &self,
        path: &[u8],
        follow: bool,
    ) -> Result<(Ino, Vec<u8>, Option<Ino>), Errno> {
        let mut links_left = SYMLINKS_FOLLOWED_MAX;
        self.resolve_from(ROOT, path, follow, &mut links_left)
    }

    pub(super) fn resolve_from(
        &self,
        base: Ino,
        path: &[u8],
        follow: bool,
        links_left: &mut u32,
    ) -> Result<(Ino, Vec<u8>, Option<Ino>), Errno> {
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        let is_dir_wanted = path.ends_with(b"/") || path.ends_with(b"/.") || path == b".";
        let start = if path.starts_with(b"/") { ROOT } else { base };
        let mut at = (start, Vec::new(), Some(start));
        let mut components = path
            .split(|byte| *byte == b'/')
            .filter(|component| !matches!(*component, b"" | b"."))
            .peekable();
        while let Some(component) = components.next() {
            let dir = at.2.ok_or(Errno::NOENT)?;
            if self.kind(dir) != Kind::Dir {
                return Err(Errno::NOTDIR);
            }
            if component == b".." {
                let above = self.inodes.node(dir).parent;
                at = (above, Vec::new(), Some(above));
                continue;
            }
            if component.len() > NAME_BYTES_MAX {
                return Err(Errno::NAMETOOLONG);
            }
            let found = self.find(dir, component);
            at = (dir, component.to_vec(), found);
            let is_last = components.peek().is_none();
            if let Some(ino) = found
                && let Body::Symlink(target) = &self.inodes.node(ino).body
                && (!is_last || follow || is_dir_wanted)
            {
                *links_left = links_left.checked_sub(1).ok_or(Errno::LOOP)?;
                at = self.resolve_from(dir, target, true, links_left)?;
            }
        }
        if is_dir_wanted && at.2.is_some_and(|ino| self.kind(ino) != Kind::Dir) {
            return Err(Errno::NOTDIR);
        }
        Ok(at)
    }

    pub(super) fn collect(&self, ino: Ino, path: Vec<u8>, tree: &mut Tree) {
        let node = self.inodes.node(ino);
        let content = match &node.body {
            Body::File(content) => Content::Bytes(Arc::clone(content)),
            Body::Symlink(target) => Content::Target(target.to_vec()),
            Body::Special { kind, rdev } if kind.is_device() => Content::Device(*rdev),
            Body::Special { .. } | Body::Dir(_) => Content::None,
        };
        if let Some(names) = node.names() {
            for (name, child) in names.iter() {
                self.collect(child, joined(&path, name), tree);
            }
        }
        let meta = Meta::from(&self.stat(ino));
        tree.entries.insert(path, Entry { meta, content });
    }

    pub(super) fn remove_all(&mut self, dir: Ino, name: &[u8], ino: Ino) {
        let below: Vec<(Vec<u8>, Ino)> = match self.inodes.node(ino).names() {
            Some(names) => names.iter().map(|(n, i)| (n.to_vec(), i)).collect(),
            None => Vec::new(),
        };
        for (name, child) in below {
            self.remove_all(ino, &name, child);
        }
        self.unlink(dir, name);
    }

    pub(super) fn unlink(&mut self, dir: Ino, name: &[u8]) {
        let now = self.wall();
        self.inodes.change_names(
            vec![NameChange {
                dir,
                name: name.to_vec(),
                child: None,
            }],
            now,
        );
    }

    pub(super) fn set_mode(&mut self, ino: Ino, mode: u16) {
        let now = self.wall();
        let attrs = &mut self.inodes.node_mut(ino).attrs;
        attrs.mode = mode & 0o7777;
        attrs.ctime = now;
    }

    pub(super) fn set_owner(&mut self, ino: Ino, uid: u32, gid: u32) -> Result<(), Errno> {
        let identity = self.options.identity;
        let now = self.wall();
        let node = self.inodes.node_mut(ino);
        // chown(2): minus one leaves it.
        let kept = |id: u32, old| if id == u32::MAX { old } else { id };
        let (uid, gid) = (kept(uid, node.attrs.uid), kept(gid, node.attrs.gid));
        let is_given_away = uid != node.attrs.uid || gid != node.attrs.gid;
        if is_given_away && !identity.is_root {
            return Err(Errno::PERM);
        }
        node.attrs.uid = uid;
        node.attrs.gid = gid;
        node.attrs.ctime = now;
        if node.body.kind() != Kind::Dir {
            drop_set_id_bits(&mut node.attrs);
        }
        Ok(())
    }

    pub(super) fn set_mtime(&mut self, ino: Ino, mtime: Mtime) {
        let granule_ns = self.options.mtime_granule_ns.max(1);
        let nsec = u64::from(mtime.nsec) / granule_ns * granule_ns;
        let now = self.wall();
        let attrs = &mut self.inodes.node_mut(ino).attrs;
        attrs.mtime = Mtime {
            sec: mtime.sec,
            nsec: u32::try_from(nsec).expect("only made smaller"),
        };
        attrs.ctime = now;
    }
}

/// What a change of owner or content by somebody without privileges does to a file: it can't keep
/// running as another user. Group execution makes the difference between set-group-id and the
/// old mark for mandatory locks.
fn drop_set_id_bits(attrs: &mut Attrs) {
    attrs.mode &= !0o4000;
    if attrs.mode & 0o010 != 0 {
        attrs.mode &= !0o2000;
    }
}

pub(super) fn joined(path: &[u8], below: &[u8]) -> Vec<u8> {
    match (path, below) {
        (_, b"") => path.to_vec(),
        (b"", _) => below.to_vec(),
        _ => [path, b"/", below].concat(),
    }
}
