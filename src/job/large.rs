//! Large files: opened and checked at the source, given their name (or dropped) at the target.

use std::sync::Arc;
use std::time::Duration;

use super::basis::read_exact;
use super::dir::FdCache;
use super::entry::{Failed, dress_file, ended, errno, not_renamed};
use super::in_place::Place;
use super::owners::Met;
use super::partial;
use super::read_pack::{DirPlan, is_unchanged};
use super::tree::{Incoming, Outcomes, Tree};
use crate::limits::CHUNK_BYTES;
use crate::model::entry::{Kind, Stat};
use crate::model::id::FileId;
use crate::model::policy::Durability;
use crate::model::report::{Attempt, Why};
use crate::ops::disk::SharedFd;
use crate::ops::op::Progress;
use crate::ops::{Disk, Errno};
use crate::wire::head::{FileDigest, chunk_digest};
use crate::wire::sign::chunk_bytes_at;

/// Opens a large file of the source.
pub struct OpenLarge<D: Disk> {
    pub file: FileId,
    pub plan: Arc<DirPlan<D>>,
    pub index: usize,
    pub cache: Arc<FdCache<D>>,
    /// Where owners go by name.
    pub met: Option<Arc<Met>>,
    /// Its size when it was left alone for a rest.
    pub seen_bytes: Option<u64>,
    pub is_last_try: bool,
    /// Out.
    pub opened: Option<Opened<D>>,
}

/// What became of the opening.
pub enum Opened<D: Disk> {
    Ready(SharedFd<D>, Stat),
    /// It was written just now; to be opened again after a rest. And its size.
    Resting(Duration, u64),
    Failed(Why),
}

impl<D: Disk> OpenLarge<D> {
    pub fn run(&mut self, disk: &D) {
        self.opened = Some(self.open(disk).unwrap_or_else(Opened::Failed));
    }

    fn open(&self, disk: &D) -> Result<Opened<D>, Why> {
        let why = |errno| {
            if errno == Errno::NOENT {
                Why::Vanished
            } else {
                Why::Errno(errno)
            }
        };
        let entry = self.plan.listing.get(self.index);
        let dir = self
            .plan
            .origin(&entry)
            .fd(disk, &self.cache)
            .map_err(why)?;
        let fd = disk
            .open_file(&dir, self.plan.source_name(&entry))
            .map_err(why)?;
        let stat = disk.stat(&fd).map_err(why)?;
        if stat.kind != Kind::File {
            return Err(Why::Changing); // Swapped since the scan: never read.
        }
        if let Some(met) = &self.met {
            met.meet(disk, &[(stat.uid, stat.gid)]); // It may have another owner by now.
        }
        // Of a file that only grows the beginning is right, and the next push sees its size.
        let grows = self.seen_bytes.is_some_and(|seen| stat.size > seen);
        match stat.mtime.rest(disk.now()) {
            Some(_) if self.is_last_try && !grows => Err(Why::Changing),
            Some(rest) if !grows => Ok(Opened::Resting(rest, stat.size)),
            Some(_) | None => Ok(Opened::Ready(Arc::new(fd), stat)),
        }
    }
}

/// Looks once more at a large file of the source that was read to its end. Where it grew meanwhile, what was
/// there before may have been written over as well, which no stat tells: it is read again.
pub struct CheckLarge<D: Disk> {
    pub file: FileId,
    fd: SharedFd<D>,
    before: Stat,
    /// Of what was read.
    digest: FileDigest,
    /// The same of what is there now, up to this offset.
    now: FileDigest,
    at: u64,
    pub is_consistent: bool,
}

/// Chunks that are read again before the job goes back in line.
const CHECKED_CHUNKS_PER_RUN: usize = 32;

impl<D: Disk> CheckLarge<D> {
    pub fn new(file: FileId, fd: SharedFd<D>, before: Stat, digest: FileDigest) -> Self {
        Self {
            file,
            fd,
            before,
            digest,
            now: FileDigest::default(),
            at: 0,
            is_consistent: false,
        }
    }

    pub fn run(&mut self, disk: &D) -> Progress {
        if self.at == 0 {
            let Ok(after) = disk.stat(&self.fd) else {
                return Progress::Done;
            };
            self.is_consistent = is_unchanged(&self.before, &after);
            if self.is_consistent || after.size <= self.before.size {
                return Progress::Done;
            }
        }
        let mut chunk = vec![0; CHUNK_BYTES];
        for _ in 0..CHECKED_CHUNKS_PER_RUN {
            let Some(len) = chunk_bytes_at(self.at, self.before.size) else {
                self.is_consistent = self.now == self.digest;
                return Progress::Done;
            };
            let chunk = &mut chunk[..len];
            if !read_exact(disk, &self.fd, chunk, self.at) {
                return Progress::Done;
            }
            self.now.add(self.at, chunk_digest(chunk));
            self.at += len as u64;
        }
        Progress::Again
    }
}

/// What becomes of a large file at the target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Whole and right: it gets its name, or its time.
    Keep,
    /// The source gave up; it said so itself.
    Drop,
    /// It is named, and dropped.
    Fail(Attempt, Why),
}

/// Ends a large file at the target.
pub struct EndLarge<D: Disk> {
    tree: Arc<Tree<D>>,
    pub file: FileId,
    fate: Fate,
    size: u64,
    /// The last of them may be its end.
    has_holes: bool,
    /// The old version, kept open: whoever closes it last has to wait until its space is free again.
    old: Option<SharedFd<D>>,
    pub outcomes: Outcomes,
}

impl<D: Disk> EndLarge<D> {
    pub fn new(
        tree: Arc<Tree<D>>,
        file: FileId,
        fate: Fate,
        (size, has_holes): (u64, bool),
        old: Option<SharedFd<D>>,
    ) -> Self {
        Self {
            tree,
            file,
            fate,
            size,
            has_holes,
            old,
            outcomes: Outcomes::default(),
        }
    }

    /// Nothing is kept of it, and nothing was wrong at the target: it may come again.
    pub fn is_dropped(&self) -> bool {
        self.fate == Fate::Drop
    }

    pub fn run(&mut self, disk: &D) {
        let Some(incoming) = self.tree.take_incoming(self.file) else {
            return;
        };
        let kept = match self.fate {
            Fate::Keep => self.keep(disk, &incoming).map(|()| true),
            Fate::Drop => Ok(false),
            Fate::Fail(attempt, why) => Err((attempt, why)),
        };
        let Self { tree, outcomes, .. } = self;
        match kept {
            Ok(true) => tree.count(|counts| counts.files_made += 1),
            Ok(false) => abandon(disk, &incoming),
            Err((attempt, why)) => {
                abandon(disk, &incoming);
                outcomes.failed(
                    tree,
                    attempt,
                    why,
                    incoming.dir.path_below_root(&incoming.name),
                );
            }
        }
        ended(disk, tree, incoming.dir_id, outcomes);
    }

    fn keep(&self, disk: &D, incoming: &Incoming<D>) -> Result<(), Failed> {
        let Incoming {
            fd,
            dir,
            dir_fd,
            name,
            meta,
            ..
        } = incoming;
        let tree = &*self.tree;
        let temp = match &incoming.place {
            Place::Beside(temp) => temp,
            Place::InPlace(standing) => {
                partial::remove(disk, tree, dir, dir_fd, name);
                return standing.end(disk, tree, (dir_fd, name), meta, self.size);
            }
        };
        if self.has_holes {
            let grown = disk.set_size(fd, self.size);
            grown.map_err(errno(Attempt::Write))?;
        }
        dress_file(disk, tree, fd, meta, false).map_err(errno(Attempt::SetMeta))?;
        if tree.policy.durability == Durability::File {
            disk.sync_file(fd).map_err(errno(Attempt::Sync))?;
        }
        partial::remove(disk, tree, dir, dir_fd, name);
        let renamed = disk.rename(dir_fd, temp.bytes(), name);
        renamed.map_err(not_renamed)
    }
}

/// Leaves a file that does not get whole. One that was updated where it stands stays as it is by now: its time
/// says so.
pub fn abandon<D: Disk>(disk: &D, incoming: &Incoming<D>) {
    match &incoming.place {
        Place::Beside(temp) => drop_temp(disk, &incoming.dir_fd, temp.bytes()),
        Place::InPlace(_) => {}
    }
}

/// Lets go of an old version whose name is taken: freeing 1 GiB of tmpfs takes 0.15 s, and nothing has to
/// wait for it.
pub struct Release<D: Disk>(Option<SharedFd<D>>);

impl<D: Disk> Release<D> {
    /// Of the file that a job has replaced, if it did.
    pub fn of(job: EndLarge<D>) -> Option<Self> {
        job.old.map(|old| Self(Some(old)))
    }

    pub fn run(&mut self) {
        self.0 = None;
    }
}

/// Removes a temp file; one that can't be removed now is cleaned by a later push.
pub fn drop_temp<D: Disk>(disk: &D, dir: &D::Fd, temp: &[u8]) {
    let _ = disk.unlink(dir, temp);
}
