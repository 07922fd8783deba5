//! `SimDisk`, a file system in memory behind the calls of `ops::Disk`. Job bodies run on it as
//! they run on the real one; a test decides before which call what goes wrong.
//!
//! It acts as Linux does on an ordinary local file system, down to the errno; permission bits
//! are kept and not enforced, except that a process that is not root can't give files away or
//! make devices. Devices have no drivers and sockets no peers: opening one is ENXIO.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use super::clock::SimClock;
use super::fault::{Call, CallKind, Crash, DiskFaults, DiskOptions};
use super::host::{BYSTANDER, Host, OpenFile, Process, joined, locked};
use super::inode::{Attrs, BLOCK, Body, Ino, Inodes, NameChange, Place, ROOT};
use super::prng::Prng;
use super::tree::{Content, Entry, Tree};
use crate::limits::{LINK_TARGET_BYTES_MAX, NAME_BYTES_MAX};
use crate::model::entry::{Kind, Stat};
use crate::model::owner::{Owner, OwnerKind};
use crate::model::time::Mtime;
use crate::ops::disk::{FsKind, Identity, Lock};
use crate::ops::{Disk, Errno};

/// What every call of a crashed process returns. No file system answers with it, so a test that
/// finds it in an outcome knows that somebody took a dead process for a failing disk.
pub const CRASHED: Errno = Errno::OWNERDEAD;

/// Bytes of a file above which a write is EFBIG: content is memory here.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Names that one `read_dir` hands out at most.
const READ_DIR_NAMES_MAX: u64 = 300;
/// Calls that [`SimDisk::last_calls`] remembers.
const LAST_CALLS_MAX: usize = 64;

/// `statfs` magics of what it passes for: ext4, and tmpfs where it is volatile.
const EXT4_MAGIC: u64 = 0xef53;
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// One process's view of a simulated disk. Clones are the same process.
#[derive(Clone)]
pub struct SimDisk {
    host: Arc<Mutex<Host>>,
    process: u32,
}

/// An open file or directory. Dropping it closes it, and with it goes its lock.
pub struct SimFd {
    host: Arc<Mutex<Host>>,
    id: u64,
}

impl Drop for SimFd {
    fn drop(&mut self) {
        let mut host = locked(&self.host);
        // A crash closes on its own.
        if let Some(file) = host.open.remove(&self.id) {
            host.inodes.close(file.ino);
        }
    }
}

impl fmt::Debug for SimFd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFd({})", self.id)
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimDisk(process {})", self.process)
    }
}

impl SimDisk {
    /// A disk with an empty root directory, and the first process on it.
    pub fn new(options: DiskOptions, clock: SimClock, seed: u64) -> Self {
        let mut prng = Prng::new(seed);
        let now = clock.wall(options.skew_sec, options.tick_ns);
        let mut boot_id = [0; 16];
        prng.fill(&mut boot_id);
        let host = Host {
            inodes: Inodes::new(prng.fork(), now),
            dev: 1 + prng.below(1 << 20),
            boot_id,
            booted: Mtime::default(),
            processes: vec![Process::default(), Process::default()],
            open: BTreeMap::new(),
            next_fd: 3,
            names_drawn: 0,
            faults: DiskFaults::default(),
            named_faults: Vec::new(),
            hook: None,
            options,
            clock,
            prng,
        };
        Self {
            host: Arc::new(Mutex::new(host)),
            process: BYSTANDER + 1,
        }
    }

    /// A local user on the same disk, to whom nothing happens and who is not counted.
    pub fn bystander(&self) -> Self {
        Self {
            host: Arc::clone(&self.host),
            process: BYSTANDER,
        }
    }

    /// Another process on the same disk: a second server, or a second push.
    pub fn spawn(&self) -> Self {
        let mut host = locked(&self.host);
        host.processes.push(Process::default());
        Self {
            host: Arc::clone(&self.host),
            process: u32::try_from(host.processes.len() - 1).expect("few processes"),
        }
    }

    // --- what goes wrong

    /// Draws faults from now on.
    pub fn set_faults(&self, faults: DiskFaults) {
        locked(&self.host).faults = faults;
    }

    /// Lets every call of `kind` on `name` fail with `errno`.
    pub fn fail_name(&self, name: &[u8], kind: CallKind, errno: Errno) {
        let fault = (name.to_vec(), kind, errno);
        locked(&self.host).named_faults.push(fault);
    }

    /// Lets this process's call of that number fail with `errno`.
    pub fn fail_at_call(&self, number: u64, errno: Errno) {
        let mut host = locked(&self.host);
        host.process(self.process)
            .scheduled_faults
            .insert(number, errno);
    }

    /// Ends this process just before its call of that number: from then on every call returns
    /// [`CRASHED`], until [`Self::restart`] gives another process.
    pub fn crash_at_call(&self, number: u64) {
        locked(&self.host).process(self.process).crash_at_call = Some(number);
    }

    /// As `crash_at_call`, before its call of that number among those of `kind` from now on.
    pub fn crash_before(&self, kind: CallKind, number: u64) {
        locked(&self.host).process(self.process).crash_before = Some((kind, number));
    }

    /// Ends all faults, failures and planned crashes, and takes the hook away: the calm in which
    /// a run has to succeed.
    pub fn calm(&self) {
        let mut host = locked(&self.host);
        host.faults = DiskFaults::default();
        host.named_faults.clear();
        host.hook = None;
        for process in &mut host.processes {
            process.crash_at_call = None;
            process.crash_before = None;
            process.scheduled_faults.clear();
        }
    }

    /// Lets `hook` act before each call of a process, as a bystander on the same disk.
    pub fn before_each_call(&self, hook: impl FnMut(&Self, &Call) + Send + 'static) {
        locked(&self.host).hook = Some(Box::new(hook));
    }

    /// Changes the room on the device from now on.
    pub fn set_capacity(&self, capacity_bytes: u64, inodes_max: u64) {
        let mut host = locked(&self.host);
        host.options.capacity_bytes = capacity_bytes;
        host.options.inodes_max = inodes_max;
    }

    /// Ends this process (with a power cut every process) where it isn't dead yet, and gives the
    /// one that starts after it. Its predecessors' clones and descriptors stay dead.
    pub fn restart(&self, crash: Crash) -> Self {
        let mut host = locked(&self.host);
        match crash {
            Crash::ProcessDeath => host.kill(self.process),
            Crash::PowerCut => host.cut_power(),
        }
        drop(host);
        self.spawn()
    }

    // --- what a test asks

    pub fn is_crashed(&self) -> bool {
        locked(&self.host).process(self.process).is_dead
    }

    /// Calls that this process has made.
    pub fn calls_count(&self) -> u64 {
        locked(&self.host).process(self.process).calls_count
    }

    /// The last calls of this process, oldest first.
    pub fn last_calls(&self) -> Vec<Call> {
        let mut host = locked(&self.host);
        let calls = &host.process(self.process).last_calls;
        calls.iter().cloned().collect()
    }

    /// Descriptors that this process holds: more at the end than at the start is a leak.
    pub fn open_fds_count(&self) -> usize {
        let host = locked(&self.host);
        let files = host.open.values();
        files.filter(|file| file.process == self.process).count()
    }

    /// Locks that this process holds.
    pub fn locks_count(&self) -> usize {
        let host = locked(&self.host);
        let files = host.open.values();
        files
            .filter(|file| file.process == self.process && file.lock.is_some())
            .count()
    }

    pub fn used_bytes(&self) -> u64 {
        locked(&self.host).inodes.used_bytes()
    }

    pub fn inodes_count(&self) -> u64 {
        locked(&self.host).inodes.count()
    }

    // --- what a local user does by path, uncounted and never failing by chance

    /// Everything below a directory, or one object, following no symlink.
    pub fn snapshot(&self, path: &[u8]) -> Result<Tree, Errno> {
        let host = locked(&self.host);
        let (_, _, found) = host.resolve(path, false)?;
        let mut tree = Tree::default();
        host.collect(found.ok_or(Errno::NOENT)?, Vec::new(), &mut tree);
        Ok(tree)
    }

    /// Makes a tree at `path`, and the directories that lead there; what is in the way goes.
    pub fn plant(&self, path: &[u8], tree: &Tree) -> Result<(), Errno> {
        let mut so_far = Vec::new();
        for component in path.split(|byte| *byte == b'/') {
            if !component.is_empty() {
                so_far.push(b'/');
                so_far.extend_from_slice(component);
                if so_far != path && locked(&self.host).resolve(&so_far, true)?.2.is_none() {
                    self.put(&so_far, &Entry::dir(0o755))?;
                }
            }
        }
        for (below, entry) in &tree.entries {
            self.put(&joined(path, below), entry)?;
        }
        // What was put inside has touched the directories.
        for (below, entry) in tree.entries.iter().rev() {
            self.touch(&joined(path, below), entry.meta.mtime)?;
        }
        Ok(())
    }

    /// Puts one object at `path`, as it is described. A directory that is there stays and takes
    /// the metadata; anything else is replaced.
    pub fn put(&self, path: &[u8], entry: &Entry) -> Result<(), Errno> {
        let mut host = locked(&self.host);
        let (dir, name, found) = host.resolve(path, false)?;
        let meta = entry.meta;
        let is_dir_already = found.is_some_and(|ino| host.kind(ino) == Kind::Dir);
        let ino = match found {
            Some(ino) if is_dir_already && meta.kind == Kind::Dir => ino,
            _ => {
                if let Some(ino) = found {
                    host.remove_all(dir, &name, ino);
                }
                let body = match (&entry.content, meta.kind) {
                    (Content::Bytes(bytes), _) => Body::File(Arc::clone(bytes)),
                    (Content::Target(target), _) => Body::Symlink(Arc::new(target.clone())),
                    (Content::Device(rdev), kind) => Body::Special { kind, rdev: *rdev },
                    (Content::None, Kind::Dir) => Body::Dir(host.inodes.empty_names()),
                    (Content::None, kind) => Body::Special { kind, rdev: 0 },
                };
                let attrs = host.attrs(meta.mode);
                host.inodes.make(dir, &name, body, attrs)
            }
        };
        let now = host.wall();
        host.inodes.node_mut(ino).attrs = Attrs {
            mode: meta.mode,
            uid: meta.uid,
            gid: meta.gid,
            mtime: meta.mtime,
            ctime: now,
        };
        Ok(())
    }

    /// Rewrites a file where it stands: its inode stays and its times move.
    pub fn overwrite(&self, path: &[u8], content: &[u8]) -> Result<(), Errno> {
        let mut host = locked(&self.host);
        let (_, _, found) = host.resolve(path, true)?;
        let ino = found.ok_or(Errno::NOENT)?;
        let now = host.wall();
        host.inodes.change_content(ino, |node| {
            let Body::File(old) = &mut node.body else {
                return Err(Errno::INVAL);
            };
            *old = Arc::new(content.to_vec());
            node.is_content_dirty = true;
            node.attrs.mtime = now;
            node.attrs.ctime = now;
            Ok(())
        })
    }

    /// Sets the modification time of the object itself.
    pub fn touch(&self, path: &[u8], mtime: Mtime) -> Result<(), Errno> {
        let mut host = locked(&self.host);
        let (_, _, found) = host.resolve(path, false)?;
        let now = host.wall();
        let attrs = &mut host.inodes.node_mut(found.ok_or(Errno::NOENT)?).attrs;
        attrs.mtime = mtime;
        attrs.ctime = now;
        Ok(())
    }

    /// Gives a file a second name.
    pub fn hard_link(&self, from: &[u8], to: &[u8]) -> Result<(), Errno> {
        let mut host = locked(&self.host);
        let (_, _, found) = host.resolve(from, false)?;
        let ino = found.ok_or(Errno::NOENT)?;
        if host.kind(ino) == Kind::Dir {
            return Err(Errno::PERM);
        }
        let (dir, name, other) = host.resolve(to, false)?;
        if other.is_some() {
            return Err(Errno::EXIST);
        }
        let now = host.wall();
        host.inodes.change_names(
            vec![NameChange {
                dir,
                name,
                child: Some(ino),
            }],
            now,
        );
        Ok(())
    }

    /// Removes an object, with everything below it.
    pub fn remove(&self, path: &[u8]) -> Result<(), Errno> {
        let mut host = locked(&self.host);
        let (dir, name, found) = host.resolve(path, false)?;
        host.remove_all(dir, &name, found.ok_or(Errno::NOENT)?);
        Ok(())
    }

    /// Moves an object to a path that is free.
    pub fn move_to(&self, from: &[u8], to: &[u8]) -> Result<(), Errno> {
        let mut host = locked(&self.host);
        let (from_dir, from_name, found) = host.resolve(from, false)?;
        let ino = found.ok_or(Errno::NOENT)?;
        let (to_dir, to_name, other) = host.resolve(to, false)?;
        if other.is_some() {
            return Err(Errno::EXIST);
        }
        let mut above = to_dir;
        while above != ROOT {
            if above == ino {
                return Err(Errno::INVAL);
            }
            above = host.inodes.node(above).parent;
        }
        let now = host.wall();
        host.inodes.change_names(
            vec![
                NameChange {
                    dir: from_dir,
                    name: from_name,
                    child: None,
                },
                NameChange {
                    dir: to_dir,
                    name: to_name,
                    child: Some(ino),
                },
            ],
            now,
        );
        Ok(())
    }

    /// Brings everything to the device, as after a long quiet while.
    pub fn settle(&self) {
        locked(&self.host).inodes.sync_all();
    }

    // --- the calls

    /// The door of every call: counts it, lets others act, and fails it where the test wants.
    fn enter(&self, kind: CallKind, name: &[u8]) -> Result<MutexGuard<'_, Host>, Errno> {
        let mut host = locked(&self.host);
        let process = host.process(self.process);
        if process.is_dead {
            return Err(CRASHED);
        }
        if self.process == BYSTANDER {
            return Ok(host);
        }
        process.calls_count += 1;
        let call = Call {
            number: process.calls_count,
            kind,
            name: name.to_vec(),
        };
        let is_there = process.crash_before.as_mut().is_some_and(|(aimed, left)| {
            *left -= u64::from(*aimed == kind);
            *left == 0
        });
        if is_there || process.crash_at_call.is_some_and(|at| at <= call.number) {
            host.kill(self.process);
            return Err(CRASHED);
        }
        if process.last_calls.len() == LAST_CALLS_MAX {
            process.last_calls.pop_front();
        }
        process.last_calls.push_back(call.clone());
        if let Some(mut hook) = host.hook.take() {
            drop(host);
            hook(&self.bystander(), &call);
            host = locked(&self.host);
            host.hook.get_or_insert(hook);
            if host.process(self.process).is_dead {
                return Err(CRASHED);
            }
        }
        match host.fault(self.process, &call) {
            Some(errno) => Err(errno),
            None => Ok(host),
        }
    }

    fn enter_fd(
        &self,
        kind: CallKind,
        fd: &SimFd,
    ) -> Result<(MutexGuard<'_, Host>, Ino, bool), Errno> {
        self.enter_at(kind, fd, b"")
    }

    /// As `enter`, for a call on `fd` that names `name`; also the object behind the descriptor,
    /// and whether it was opened for writing.
    fn enter_at(
        &self,
        kind: CallKind,
        fd: &SimFd,
        name: &[u8],
    ) -> Result<(MutexGuard<'_, Host>, Ino, bool), Errno> {
        assert!(
            Arc::ptr_eq(&self.host, &fd.host),
            "a descriptor of another disk"
        );
        let host = self.enter(kind, name)?;
        let file = host.open.get(&fd.id).ok_or(CRASHED)?;
        assert_eq!(file.process, self.process, "a descriptor crossed processes");
        let (ino, is_writable) = (file.ino, file.is_writable);
        Ok((host, ino, is_writable))
    }

    /// As `enter_at`, where `name` is one component and the directory was not removed.
    fn enter_name(
        &self,
        kind: CallKind,
        dir: &SimFd,
        name: &[u8],
    ) -> Result<(MutexGuard<'_, Host>, Ino), Errno> {
        assert_component(name);
        let (host, ino, _) = self.enter_at(kind, dir, name)?;
        if host.kind(ino) != Kind::Dir {
            return Err(Errno::NOTDIR);
        }
        if host.inodes.node(ino).links == 0 {
            return Err(Errno::NOENT);
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        Ok((host, ino))
    }

    /// As `enter_name`, for an entry that has to exist.
    fn enter_entry(
        &self,
        kind: CallKind,
        dir: &SimFd,
        name: &[u8],
    ) -> Result<(MutexGuard<'_, Host>, Ino, Ino), Errno> {
        let (host, dir) = self.enter_name(kind, dir, name)?;
        let found = host.find(dir, name).ok_or(Errno::NOENT)?;
        Ok((host, dir, found))
    }

    /// As `enter_name`, for a name that has to be free.
    fn enter_new(
        &self,
        kind: CallKind,
        dir: &SimFd,
        name: &[u8],
    ) -> Result<(MutexGuard<'_, Host>, Ino), Errno> {
        let (host, dir) = self.enter_name(kind, dir, name)?;
        if host.find(dir, name).is_some() {
            return Err(Errno::EXIST);
        }
        if host.inodes.count() >= host.options.inodes_max {
            return Err(Errno::NOSPC);
        }
        Ok((host, dir))
    }

    fn give_fd(
        &self,
        mut host: MutexGuard<'_, Host>,
        ino: Ino,
        is_writable: bool,
    ) -> Result<SimFd, Errno> {
        host.check_fd_room(self.process)?;
        host.inodes.open(ino);
        let id = host.next_fd;
        host.next_fd += 1;
        host.open.insert(
            id,
            OpenFile {
                ino,
                process: self.process,
                is_writable,
                last: None,
                lock: None,
            },
        );
        Ok(SimFd {
            host: Arc::clone(&self.host),
            id,
        })
    }
}

/// Names are checked where they enter the program; one that slipped through would leave the
/// directory on a real disk.
fn assert_component(name: &[u8]) {
    assert!(
        !matches!(name, b"" | b"." | b"..") && !name.iter().any(|byte| matches!(byte, b'/' | 0)),
        "what is not one component reached the disk: {}",
        name.escape_ascii()
    );
}

fn as_len(bytes: u64) -> usize {
    usize::try_from(bytes).expect("files are smaller than memory")
}

impl Disk for SimDisk {
    type Fd = SimFd;

    fn open_operator_dir(&self, path: &[u8]) -> Result<SimFd, Errno> {
        let host = self.enter(CallKind::OpenOperatorDir, path)?;
        let (_, _, found) = host.resolve(path, true)?;
        let ino = found.ok_or(Errno::NOENT)?;
        if host.kind(ino) != Kind::Dir {
            return Err(Errno::NOTDIR);
        }
        self.give_fd(host, ino, false)
    }

    fn open_module_dir(&self, path: &[u8]) -> Result<SimFd, Errno> {
        self.open_operator_dir(path)
    }

    fn stat_operator_path(&self, path: &[u8], follow: bool) -> Result<Stat, Errno> {
        let host = self.enter(CallKind::StatOperatorPath, path)?;
        let (_, _, found) = host.resolve(path, follow)?;
        Ok(host.stat(found.ok_or(Errno::NOENT)?))
    }

    fn open_dir(&self, dir: &SimFd, name: &[u8]) -> Result<SimFd, Errno> {
        let (host, _, found) = self.enter_entry(CallKind::OpenDir, dir, name)?;
        if host.kind(found) != Kind::Dir {
            // O_DIRECTORY is checked before O_NOFOLLOW: a symlink is ENOTDIR too.
            return Err(Errno::NOTDIR);
        }
        self.give_fd(host, found, false)
    }

    fn reopen_dir(&self, dir: &SimFd) -> Result<SimFd, Errno> {
        let (host, ino, _) = self.enter_fd(CallKind::OpenDir, dir)?;
        self.give_fd(host, ino, false)
    }

    fn open_above(&self, dir: &SimFd, levels: usize) -> Result<SimFd, Errno> {
        let (host, mut ino, _) = self.enter_fd(CallKind::OpenDir, dir)?;
        for _ in 0..levels {
            ino = host.inodes.node(ino).parent;
        }
        self.give_fd(host, ino, false)
    }

    fn open_file(&self, dir: &SimFd, name: &[u8]) -> Result<SimFd, Errno> {
        let (host, _, found) = self.enter_entry(CallKind::OpenFile, dir, name)?;
        match host.kind(found) {
            Kind::File | Kind::Dir | Kind::Fifo => self.give_fd(host, found, false),
            Kind::Symlink => Err(Errno::LOOP),
            Kind::Socket | Kind::CharDevice | Kind::BlockDevice => Err(Errno::NXIO),
        }
    }

    fn create_file(&self, dir: &SimFd, name: &[u8], mode: u16) -> Result<SimFd, Errno> {
        let (mut host, dir) = self.enter_new(CallKind::CreateFile, dir, name)?;
        host.check_fd_room(self.process)?;
        let attrs = host.attrs_in(dir, Kind::File, mode & 0o7777);
        let ino = host
            .inodes
            .make(dir, name, Body::File(Arc::default()), attrs);
        self.give_fd(host, ino, true)
    }

    fn open_to_write(&self, dir: &SimFd, name: &[u8]) -> Result<SimFd, Errno> {
        let (host, _, found) = self.enter_entry(CallKind::OpenToWrite, dir, name)?;
        match host.kind(found) {
            Kind::File => self.give_fd(host, found, true),
            Kind::Dir => Err(Errno::ISDIR),
            Kind::Symlink => Err(Errno::LOOP),
            // A fifo has no reader.
            Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice => Err(Errno::NXIO),
        }
    }

    fn stat(&self, fd: &SimFd) -> Result<Stat, Errno> {
        let (host, ino, _) = self.enter_fd(CallKind::Stat, fd)?;
        Ok(host.stat(ino))
    }

    fn stat_at(&self, dir: &SimFd, name: &[u8]) -> Result<Stat, Errno> {
        let (host, _, found) = self.enter_entry(CallKind::StatAt, dir, name)?;
        Ok(host.stat(found))
    }

    fn read_dir(
        &self,
        dir: &SimFd,
        _scratch: &mut Vec<u8>,
        each: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, Errno> {
        let (mut host, ino, _) = self.enter_fd(CallKind::ReadDir, dir)?;
        let room = as_len(host.prng.skewed(READ_DIR_NAMES_MAX));
        // The end may show with the last names or after them.
        let is_end_late = host.prng.chance(500);
        let node = host.inodes.node(ino);
        let names = node.names().ok_or(Errno::NOTDIR)?;
        if node.links == 0 {
            return Err(Errno::NOENT);
        }
        let last = host.open.get(&dir.id).and_then(|file| file.last.as_ref());
        let mut rest = names.after(last).cloned();
        let handed: Vec<Place> = rest.by_ref().take(room).collect();
        let is_more = rest.next().is_some() || (is_end_late && !handed.is_empty());
        drop(rest);
        if let (Some(file), Some(last)) = (host.open.get_mut(&dir.id), handed.last()) {
            file.last = Some(last.clone());
        }
        // `each` may make calls of its own.
        drop(host);
        for (_, name) in &handed {
            each(name);
        }
        Ok(is_more)
    }

    fn rewind_dir(&self, dir: &SimFd) -> Result<(), Errno> {
        let (mut host, ino, _) = self.enter_fd(CallKind::RewindDir, dir)?;
        if host.kind(ino).is_special() {
            return Err(Errno::SPIPE);
        }
        if let Some(file) = host.open.get_mut(&dir.id) {
            file.last = None;
        }
        Ok(())
    }

    fn read_link(&self, dir: &SimFd, name: &[u8], target: &mut [u8]) -> Result<usize, Errno> {
        let (host, _, found) = self.enter_entry(CallKind::ReadLink, dir, name)?;
        match &host.inodes.node(found).body {
            Body::Symlink(text) if !target.is_empty() => {
                let len = text.len().min(target.len());
                target[..len].copy_from_slice(&text[..len]);
                Ok(len)
            }
            Body::Symlink(_) | Body::File(_) | Body::Dir(_) | Body::Special { .. } => {
                Err(Errno::INVAL)
            }
        }
    }

    fn read(&self, fd: &SimFd, into: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let (mut host, ino, is_writable) = self.enter_fd(CallKind::Read, fd)?;
        if is_writable {
            return Err(Errno::BADF);
        }
        let content = match &host.inodes.node(ino).body {
            Body::File(content) => Arc::clone(content),
            Body::Dir(_) => return Err(Errno::ISDIR),
            Body::Symlink(_) | Body::Special { .. } => return Err(Errno::SPIPE),
        };
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| content.get(offset..))
            .unwrap_or_default();
        let len = host.some_of(rest.len().min(into.len()));
        into[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write(&self, fd: &SimFd, from: &[u8], offset: u64) -> Result<usize, Errno> {
        let (mut host, ino, is_writable) = self.enter_fd(CallKind::Write, fd)?;
        if host.kind(ino).is_special() {
            return Err(Errno::SPIPE);
        }
        if !is_writable {
            return Err(Errno::BADF);
        }
        if from.is_empty() {
            return Ok(0);
        }
        let wanted = host.some_of(from.len()) as u64;
        let mut end = offset.checked_add(wanted).ok_or(Errno::FBIG)?;
        if end > FILE_BYTES_MAX {
            return Err(Errno::FBIG);
        }
        let own_bytes = host.inodes.node(ino).charge();
        let others_bytes = host.inodes.used_bytes() - own_bytes;
        let room = host.options.capacity_bytes.saturating_sub(others_bytes) / BLOCK * BLOCK;
        end = end.min(room.max(own_bytes));
        if end <= offset {
            return Err(Errno::NOSPC);
        }
        let (start, end) = (as_len(offset), as_len(end));
        host.rewrite(ino, |content| {
            if content.len() < end {
                content.resize(end, 0);
            }
            content[start..end].copy_from_slice(&from[..end - start]);
        });
        Ok(end - start)
    }

    fn set_size(&self, fd: &SimFd, bytes: u64) -> Result<(), Errno> {
        let (mut host, ino, is_writable) = self.enter_fd(CallKind::SetSize, fd)?;
        if !is_writable {
            return Err(Errno::INVAL);
        }
        if bytes > FILE_BYTES_MAX {
            return Err(Errno::FBIG);
        }
        host.rewrite(ino, |content| {
            content.resize(as_len(bytes), 0);
        });
        Ok(())
    }

    fn punch_hole(&self, fd: &SimFd, offset: u64, bytes: u64) -> Result<(), Errno> {
        let (mut host, ino, is_writable) = self.enter_fd(CallKind::PunchHole, fd)?;
        if !is_writable {
            return Err(Errno::BADF);
        }
        host.rewrite(ino, |content| {
            let end = content.len().min(as_len(offset.saturating_add(bytes)));
            if let Some(range) = content.get_mut(as_len(offset)..end) {
                range.fill(0);
            }
        });
        Ok(())
    }

    fn sync_file(&self, fd: &SimFd) -> Result<(), Errno> {
        match self.enter_fd(CallKind::SyncFile, fd) {
            Ok((mut host, ino, _)) => {
                if host.kind(ino) == Kind::Fifo {
                    return Err(Errno::INVAL);
                }
                host.inodes.sync(ino);
                Ok(())
            }
            Err(errno) => {
                let mut host = locked(&self.host);
                if let Some(ino) = host.open.get(&fd.id).map(|file| file.ino) {
                    host.inodes.fail_sync(ino);
                }
                Err(errno)
            }
        }
    }

    fn sync_fs(&self, fd: &SimFd) -> Result<(), Errno> {
        match self.enter_fd(CallKind::SyncFs, fd) {
            Ok((mut host, _, _)) => {
                host.inodes.sync_all();
                Ok(())
            }
            Err(errno) => {
                if errno != CRASHED {
                    locked(&self.host).inodes.fail_sync_all();
                }
                Err(errno)
            }
        }
    }

    fn set_mode(&self, fd: &SimFd, mode: u16) -> Result<(), Errno> {
        let (mut host, ino, _) = self.enter_fd(CallKind::SetMode, fd)?;
        host.set_mode(ino, mode);
        Ok(())
    }

    fn set_owner(&self, fd: &SimFd, uid: u32, gid: u32) -> Result<(), Errno> {
        let (mut host, ino, _) = self.enter_fd(CallKind::SetOwner, fd)?;
        host.set_owner(ino, uid, gid)
    }

    fn set_mtime(&self, fd: &SimFd, mtime: Mtime) -> Result<(), Errno> {
        let (mut host, ino, _) = self.enter_fd(CallKind::SetMtime, fd)?;
        host.set_mtime(ino, mtime);
        Ok(())
    }

    fn set_mode_at(&self, dir: &SimFd, name: &[u8], mode: u16) -> Result<(), Errno> {
        let (mut host, _, found) = self.enter_entry(CallKind::SetModeAt, dir, name)?;
        if host.kind(found) == Kind::Symlink {
            return Err(Errno::OPNOTSUPP);
        }
        host.set_mode(found, mode);
        Ok(())
    }

    fn set_owner_at(&self, dir: &SimFd, name: &[u8], uid: u32, gid: u32) -> Result<(), Errno> {
        let (mut host, _, found) = self.enter_entry(CallKind::SetOwnerAt, dir, name)?;
        host.set_owner(found, uid, gid)
    }

    fn set_mtime_at(&self, dir: &SimFd, name: &[u8], mtime: Mtime) -> Result<(), Errno> {
        let (mut host, _, found) = self.enter_entry(CallKind::SetMtimeAt, dir, name)?;
        host.set_mtime(found, mtime);
        Ok(())
    }

    fn make_dir(&self, dir: &SimFd, name: &[u8], mode: u16) -> Result<(), Errno> {
        let (mut host, dir) = self.enter_new(CallKind::MakeDir, dir, name)?;
        // mkdir(2) takes the sticky bit and leaves the set-id bits.
        let attrs = host.attrs_in(dir, Kind::Dir, mode & 0o1777);
        let names = host.inodes.empty_names();
        host.inodes.make(dir, name, Body::Dir(names), attrs);
        Ok(())
    }

    fn make_symlink(&self, dir: &SimFd, name: &[u8], target: &[u8]) -> Result<(), Errno> {
        // Linux takes the target in before it looks at the name.
        let checked = match target.len() {
            0 => Err(Errno::NOENT),
            1..=LINK_TARGET_BYTES_MAX => Ok(()),
            _ => Err(Errno::NAMETOOLONG),
        };
        if checked.is_err() {
            drop(self.enter_at(CallKind::MakeSymlink, dir, name)?);
            return checked;
        }
        let (mut host, dir) = self.enter_new(CallKind::MakeSymlink, dir, name)?;
        let attrs = host.attrs_in(dir, Kind::Symlink, 0o777);
        let body = Body::Symlink(Arc::new(target.to_vec()));
        host.inodes.make(dir, name, body, attrs);
        Ok(())
    }

    fn make_node(
        &self,
        dir: &SimFd,
        name: &[u8],
        kind: Kind,
        mode: u16,
        rdev: u64,
    ) -> Result<(), Errno> {
        if !kind.is_special() {
            return Err(Errno::INVAL);
        }
        let (mut host, dir) = self.enter_new(CallKind::MakeNode, dir, name)?;
        if kind.is_device() && !host.options.identity.is_root {
            return Err(Errno::PERM);
        }
        let rdev = if kind.is_device() { rdev } else { 0 };
        let attrs = host.attrs_in(dir, kind, mode & 0o7777);
        host.inodes
            .make(dir, name, Body::Special { kind, rdev }, attrs);
        Ok(())
    }

    fn rename(&self, dir: &SimFd, from: &[u8], to: &[u8]) -> Result<(), Errno> {
        assert_component(to);
        let (mut host, dir, moved) = self.enter_entry(CallKind::Rename, dir, from)?;
        if to.len() > NAME_BYTES_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        if let Some(replaced) = host.find(dir, to) {
            if replaced == moved {
                return Ok(());
            }
            let is_dir = |ino| host.kind(ino) == Kind::Dir;
            match (is_dir(moved), is_dir(replaced)) {
                (true, false) => return Err(Errno::NOTDIR),
                (false, true) => return Err(Errno::ISDIR),
                (true, true) | (false, false) => {}
            }
            let names = host.inodes.node(replaced).names();
            if names.is_some_and(|names| !names.is_empty()) {
                return Err(Errno::NOTEMPTY);
            }
        }
        let now = host.wall();
        let changes = [(from, None), (to, Some(moved))].map(|(name, child)| NameChange {
            dir,
            name: name.to_vec(),
            child,
        });
        host.inodes.change_names(changes.to_vec(), now);
        Ok(())
    }

    fn unlink(&self, dir: &SimFd, name: &[u8]) -> Result<(), Errno> {
        let (mut host, dir, found) = self.enter_entry(CallKind::Unlink, dir, name)?;
        if host.kind(found) == Kind::Dir {
            return Err(Errno::ISDIR);
        }
        host.unlink(dir, name);
        Ok(())
    }

    fn remove_dir(&self, dir: &SimFd, name: &[u8]) -> Result<(), Errno> {
        let (mut host, dir, found) = self.enter_entry(CallKind::RemoveDir, dir, name)?;
        let names = host.inodes.node(found).names().ok_or(Errno::NOTDIR)?;
        if !names.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        host.unlink(dir, name);
        Ok(())
    }

    fn try_lock(&self, fd: &SimFd, lock: Lock) -> Result<bool, Errno> {
        let (mut host, ino, _) = self.enter_fd(CallKind::TryLock, fd)?;
        let own = host.open.get_mut(&fd.id).ok_or(CRASHED)?;
        if own.lock == Some(lock) {
            return Ok(true);
        }
        // flock(2) converts by giving the old lock up first, and does not get it back.
        own.lock = None;
        let is_refused = host.open.iter().any(|(id, other)| {
            let is_shared = (lock, other.lock) == (Lock::Shared, Some(Lock::Shared));
            *id != fd.id && other.ino == ino && other.lock.is_some() && !is_shared
        });
        if is_refused {
            return Ok(false);
        }
        host.open.get_mut(&fd.id).ok_or(CRASHED)?.lock = Some(lock);
        Ok(true)
    }

    fn unlock(&self, fd: &SimFd) -> Result<(), Errno> {
        let (mut host, _, _) = self.enter_fd(CallKind::Unlock, fd)?;
        host.open.get_mut(&fd.id).ok_or(CRASHED)?.lock = None;
        Ok(())
    }

    fn fs_kind(&self, fd: &SimFd) -> Result<FsKind, Errno> {
        let (host, _, _) = self.enter_fd(CallKind::FsKind, fd)?;
        let is_volatile = host.options.is_volatile;
        Ok(FsKind {
            magic: if is_volatile { TMPFS_MAGIC } else { EXT4_MAGIC },
            is_volatile,
        })
    }

    fn has_default_acl(&self, _dir: &SimFd) -> bool {
        locked(&self.host).options.has_default_acl
    }

    fn now(&self) -> Mtime {
        locked(&self.host).wall()
    }

    fn booted(&self) -> Mtime {
        locked(&self.host).booted
    }

    fn boot_id(&self) -> [u8; 16] {
        locked(&self.host).boot_id
    }

    /// Its own draw: a run goes on as it would have without it.
    fn random_u64(&self) -> u64 {
        let mut host = locked(&self.host);
        host.names_drawn += 1;
        Prng::new(host.names_drawn).next_u64()
    }

    fn identity(&self) -> Identity {
        locked(&self.host).options.identity
    }

    fn owner_name(&self, owner: Owner) -> Option<Vec<u8>> {
        let owners = &locked(&self.host).options.owners;
        let known = owners.iter().find(|(known, _)| *known == owner);
        known.map(|(_, name)| name.to_vec())
    }

    fn owner_id(&self, kind: OwnerKind, name: &[u8]) -> Option<u32> {
        let owners = &locked(&self.host).options.owners;
        let mut known = owners.iter().filter(|(owner, _)| owner.kind == kind);
        known
            .find(|(_, known)| *known == name)
            .map(|(owner, _)| owner.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_disk(seed: u64) -> SimDisk {
        SimDisk::new(DiskOptions::default(), SimClock::default(), seed)
    }

    fn root_of(disk: &SimDisk) -> SimFd {
        disk.open_operator_dir(b"/").unwrap()
    }

    fn names(disk: &SimDisk, dir: &SimFd) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let mut each = |name: &[u8]| found.push(name.to_vec());
        while disk.read_dir(dir, &mut Vec::new(), &mut each).unwrap() {}
        found
    }

    fn content(disk: &SimDisk, path: &[u8]) -> Option<Vec<u8>> {
        let tree = disk.snapshot(path).ok()?;
        match &tree.entries.get(&b""[..])?.content {
            Content::Bytes(bytes) => Some(bytes.to_vec()),
            Content::None | Content::Target(_) | Content::Device(_) => None,
        }
    }

    #[test]
    fn a_listing_is_not_sorted_and_shows_what_stays_exactly_once() {
        let mut shuffled = 0;
        for seed in 0..20 {
            let disk = new_disk(seed);
            let root = root_of(&disk);
            let wanted: Vec<Vec<u8>> = (0..700).map(|n| format!("{n:03}").into_bytes()).collect();
            for name in &wanted {
                drop(disk.create_file(&root, name, 0o644).unwrap());
            }
            let mut found = Vec::new();
            let mut removed = 0;
            let mut each = |name: &[u8]| found.push(name.to_vec());
            while disk.read_dir(&root, &mut Vec::new(), &mut each).unwrap() {
                // Entries that come and go meanwhile may show or not; the others must.
                let name = format!("new{removed}");
                drop(disk.create_file(&root, name.as_bytes(), 0o644));
                removed += 1;
            }
            found.retain(|name| !name.starts_with(b"new"));
            shuffled += usize::from(!found.is_sorted());
            found.sort();
            assert_eq!(found, wanted);
            assert_eq!(names(&disk, &root).len(), 0);
            disk.rewind_dir(&root).unwrap();
            assert!(names(&disk, &root).len() >= wanted.len());
        }
        assert_eq!(shuffled, 20);
    }

    #[test]
    fn an_unlinked_file_lives_as_long_as_it_is_open() {
        let disk = new_disk(1);
        let root = root_of(&disk);
        let made = disk.create_file(&root, b"f", 0o644).unwrap();
        disk.write(&made, b"still here", 0).unwrap();
        let held = disk.open_file(&root, b"f").unwrap();
        disk.unlink(&root, b"f").unwrap();
        assert_eq!(disk.stat(&held).unwrap().nlink, 0);
        let mut bytes = [0; 5];
        assert_eq!(disk.read(&held, &mut bytes, 0), Ok(5));
        assert_eq!(&bytes, b"still");
        assert_eq!((disk.inodes_count(), disk.used_bytes()), (2, 4096));
        drop((made, held));
        assert_eq!((disk.inodes_count(), disk.used_bytes()), (1, 0));
        assert_eq!(disk.open_fds_count(), 1);
    }

    #[test]
    fn locks_belong_to_descriptors_and_go_with_them() {
        let disk = new_disk(1);
        let (one, two) = (root_of(&disk), root_of(&disk));
        assert_eq!(disk.try_lock(&one, Lock::Shared), Ok(true));
        assert_eq!(disk.try_lock(&two, Lock::Shared), Ok(true));
        // The conversion fails, and the shared lock is gone with it.
        assert_eq!(disk.try_lock(&one, Lock::Exclusive), Ok(false));
        assert_eq!(disk.try_lock(&two, Lock::Exclusive), Ok(true));
        assert_eq!(disk.locks_count(), 1);
        drop(two);
        assert_eq!(disk.try_lock(&one, Lock::Exclusive), Ok(true));
        let next = disk.restart(Crash::ProcessDeath);
        let three = root_of(&next);
        assert_eq!(next.try_lock(&three, Lock::Exclusive), Ok(true));
        assert_eq!((disk.locks_count(), disk.open_fds_count()), (0, 0));
    }

    #[test]
    fn a_full_disk_takes_what_fits() {
        let options = DiskOptions {
            capacity_bytes: 3 * 4096,
            inodes_max: 3,
            ..DiskOptions::default()
        };
        let disk = SimDisk::new(options, SimClock::default(), 1);
        let root = root_of(&disk);
        let file = disk.create_file(&root, b"f", 0o644).unwrap();
        assert_eq!(disk.write(&file, &[1; 20_000], 100), Ok(3 * 4096 - 100));
        assert_eq!(disk.write(&file, b"x", 3 * 4096), Err(Errno::NOSPC));
        assert_eq!(disk.write(&file, b"x", 5), Ok(1));
        disk.set_size(&file, 4096).unwrap();
        assert_eq!(disk.used_bytes(), 4096);
        disk.make_dir(&root, b"d", 0o755).unwrap();
        assert_eq!(disk.make_dir(&root, b"e", 0o755), Err(Errno::NOSPC));
        disk.set_capacity(u64::MAX, u64::MAX);
        disk.make_dir(&root, b"e", 0o755).unwrap();
    }

    #[test]
    fn calls_fail_by_number_by_name_and_by_chance() {
        let disk = new_disk(1);
        let root = root_of(&disk);
        disk.fail_at_call(disk.calls_count() + 2, Errno::ROFS);
        disk.fail_name(b"secret", CallKind::OpenDir, Errno::ACCESS);
        disk.make_dir(&root, b"secret", 0o755).unwrap();
        assert_eq!(disk.make_dir(&root, b"d", 0o755), Err(Errno::ROFS));
        assert!(disk.open_dir(&root, b"secret").is_err());
        assert_eq!(disk.last_calls().len(), 4);
        assert!(disk.bystander().open_operator_dir(b"/secret").is_ok());
        disk.set_faults(DiskFaults {
            short_per_mille: 500,
            io_error_per_mille: 100,
            ..DiskFaults::default()
        });
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..500 {
            seen.insert(disk.stat_at(&root, b"secret").is_ok());
        }
        assert_eq!(seen.len(), 2);
        disk.calm();
        disk.open_dir(&root, b"secret").unwrap();
    }

    #[test]
    fn a_local_user_acts_before_any_call() {
        let disk = new_disk(1);
        disk.put(b"/f", &Entry::file(0o644, b"old")).unwrap();
        let root = root_of(&disk);
        disk.before_each_call(|bystander, call| {
            if call.kind == CallKind::OpenFile && call.name == b"f" {
                bystander.remove(b"/f").unwrap();
                bystander.put(b"/f", &Entry::symlink(b"/etc")).unwrap();
            }
        });
        assert_eq!(disk.stat_at(&root, b"f").unwrap().kind, Kind::File);
        assert_eq!(disk.open_file(&root, b"f").unwrap_err(), Errno::LOOP);
        disk.calm();
        assert_eq!(disk.stat_at(&root, b"f").unwrap().kind, Kind::Symlink);
    }

    #[test]
    fn after_a_crash_nothing_works_until_the_next_process() {
        let disk = new_disk(1);
        let root = root_of(&disk);
        disk.crash_at_call(disk.calls_count() + 2);
        disk.make_dir(&root, b"before", 0o755).unwrap();
        assert_eq!(disk.make_dir(&root, b"after", 0o755), Err(CRASHED));
        assert!(disk.is_crashed());
        let next = disk.restart(Crash::ProcessDeath);
        assert_eq!(disk.stat(&root), Err(CRASHED));
        let paths: Vec<_> = next.snapshot(b"/").unwrap().entries.into_keys().collect();
        assert_eq!(paths, [b"".to_vec(), b"before".to_vec()]);
        assert_eq!(next.boot_id(), disk.boot_id());
        assert_eq!(next.open_fds_count(), 0);
    }

    /// Writes over `f` through a temp name, then the power goes.
    fn replace_and_cut(seed: u64, sync: impl Fn(&SimDisk, &SimFd, &SimFd)) -> SimDisk {
        let disk = new_disk(seed);
        disk.put(b"/f", &Entry::file(0o600, &[b'o'; 9000])).unwrap();
        disk.settle();
        let root = root_of(&disk);
        let temp = disk.create_file(&root, b"t", 0o644).unwrap();
        disk.write(&temp, &[b'n'; 10_000], 0).unwrap();
        sync(&disk, &temp, &root);
        disk.rename(&root, b"t", b"f").unwrap();
        sync(&disk, &temp, &root);
        let next = disk.restart(Crash::PowerCut);
        assert_ne!(next.boot_id(), [0; 16]);
        next
    }

    #[test]
    fn what_was_synced_survives_a_power_cut() {
        for seed in 0..300 {
            let disk = replace_and_cut(seed, |disk, temp, root| {
                disk.sync_file(temp).unwrap();
                disk.sync_file(root).unwrap();
            });
            assert_eq!(content(&disk, b"/f").unwrap(), [b'n'; 10_000]);
            assert_eq!(content(&disk, b"/t"), None);
            let disk = replace_and_cut(seed, |disk, _, root| disk.sync_fs(root).unwrap());
            assert_eq!(content(&disk, b"/f").unwrap(), [b'n'; 10_000]);
        }
    }

    #[test]
    fn what_was_not_synced_survives_in_every_shape() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..2000 {
            let disk = replace_and_cut(seed, |_, _, _| ());
            let temp = content(&disk, b"/t");
            let file = content(&disk, b"/f").expect("a rename is atomic");
            let is_zeroed = |bytes: &[u8]| bytes.len() == 10_000 && bytes.iter().all(|b| *b == 0);
            seen.insert(match &file[..] {
                [b'o', ..] if temp.is_none() => "nothing happened",
                [b'o', ..] => "the rename is lost",
                [] => "renamed and empty",
                bytes if is_zeroed(bytes) => "renamed, full length, zeros",
                bytes if bytes.len() % 4096 == 0 => "renamed and torn",
                bytes if bytes.len() == 10_000 && bytes.contains(&0) => "renamed, with a hole",
                _ => "all there",
            });
            // Whatever it is, the disk works.
            disk.remove(b"/f").unwrap();
            let _ = disk.remove(b"/t");
            assert_eq!((disk.inodes_count(), disk.used_bytes()), (1, 0));
        }
        assert_eq!(seen.len(), 7, "{seen:?}");
    }

    #[test]
    fn a_sync_that_failed_once_does_not_mend_itself() {
        let mut lost = 0;
        for seed in 0..100 {
            let disk = new_disk(seed);
            let root = root_of(&disk);
            let file = disk.create_file(&root, b"f", 0o644).unwrap();
            disk.write(&file, b"data", 0).unwrap();
            disk.fail_at_call(disk.calls_count() + 1, Errno::IO);
            assert_eq!(disk.sync_file(&file), Err(Errno::IO));
            disk.sync_file(&file).unwrap();
            disk.sync_fs(&root).unwrap();
            let next = disk.restart(Crash::PowerCut);
            lost += usize::from(content(&next, b"/f").unwrap() != b"data");
        }
        assert!(lost > 0);
    }

    #[test]
    fn a_volatile_disk_is_empty_after_a_power_cut() {
        let options = DiskOptions {
            is_volatile: true,
            ..DiskOptions::default()
        };
        let disk = SimDisk::new(options, SimClock::default(), 1);
        disk.put(b"/f", &Entry::file(0o644, b"")).unwrap();
        let root = root_of(&disk);
        disk.sync_fs(&root).unwrap();
        assert!(disk.fs_kind(&root).unwrap().is_volatile);
        let next = disk.restart(Crash::PowerCut);
        assert_eq!(next.snapshot(b"/").unwrap().entries.len(), 1);
    }

    #[test]
    fn a_tree_at_work_is_whole_again_after_any_power_cut() {
        for seed in 0..200 {
            let mut prng = Prng::new(seed);
            let shape = crate::sim::Shape {
                file_bytes_max: 20_000,
                ..Default::default()
            };
            let disk = new_disk(seed);
            disk.plant(b"/d", &Tree::random(&mut prng, &shape)).unwrap();
            if prng.chance(500) {
                disk.settle();
            }
            let _ = disk.remove(b"/d");
            disk.plant(b"/d", &Tree::random(&mut prng, &shape)).unwrap();
            let _ = disk.move_to(b"/d/a", b"/moved");
            let disk = disk.restart(Crash::PowerCut);
            let kept = disk.snapshot(b"/").unwrap();
            assert_eq!(kept.entries.len() as u64, disk.inodes_count());
            // What came through a power cut is on the device, and the next cut takes none of it.
            let disk = disk.restart(Crash::PowerCut);
            assert_eq!(kept.diff(&disk.snapshot(b"/").unwrap()), [""; 0]);
        }
    }

    #[test]
    fn an_operators_path_is_followed_as_the_shell_would() {
        let disk = new_disk(1);
        let tree = Tree::empty()
            .with(b"d", Entry::dir(0o755))
            .with(b"d/f", Entry::file(0o644, b"1"))
            .with(b"l", Entry::symlink(b"d/../d/f"))
            .with(b"ld", Entry::symlink(b"/t/d"))
            .with(b"loop", Entry::symlink(b"loop"));
        disk.plant(b"/t", &tree).unwrap();
        let kind = |path: &[u8], follow| disk.stat_operator_path(path, follow).map(|s| s.kind);
        assert_eq!(kind(b"/t/l", true), Ok(Kind::File));
        assert_eq!(kind(b"t/l", false), Ok(Kind::Symlink));
        assert_eq!(kind(b"/t/ld/", false), Ok(Kind::Dir));
        assert_eq!(kind(b"/t/ld/f", false), Ok(Kind::File));
        assert_eq!(kind(b"/t/d/f/", true), Err(Errno::NOTDIR));
        assert_eq!(kind(b"/t/d/f/x", true), Err(Errno::NOTDIR));
        assert_eq!(kind(b"/t/loop", true), Err(Errno::LOOP));
        assert_eq!(kind(b"/t/no/x", true), Err(Errno::NOENT));
        assert_eq!(kind(b"", true), Err(Errno::NOENT));
        assert_eq!(kind(b"/..//./t/.", true), Ok(Kind::Dir));
        assert!(disk.open_operator_dir(b"/t/ld").is_ok());
        assert!(disk.open_operator_dir(b"/t/l").is_err());
    }
}
