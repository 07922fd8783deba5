//! `Tree`, what the jobs of one session share at the target: the declared directories, the files
//! that are under way, and the counts.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::dir::{Dir, FdCache, Stood};
use super::in_place::Place;
use super::marker;
use super::own_name::TempName;
use super::owners::Owners;
use super::used::{Refused, UsedIds};
use crate::limits::{
    CLOSED_UP_DIRS_MAX, DIRS_DECLARED_MAX, INCOMING_FILES_MAX, NOTICES_PER_JOB_MAX, USED_RANGES_MAX,
};
use crate::model::entry::{Meta, Stat};
use crate::model::id::{DirId, FileId, ROOT, SessionId};
use crate::model::name::Name;
use crate::model::partial::NameHash;
use crate::model::policy::Policy;
use crate::model::report::{Attempt, Exit, Why};
use crate::model::time::Mtime;
use crate::ops::disk::{FsKind, Identity, SharedFd};
use crate::ops::{Disk, Errno};
use crate::wire::WireError;
use crate::wire::hello::Rights;

pub struct Tree<D: Disk> {
    /// Drawn here. By the source's, which a peer can choose, the names of two live sessions could
    /// meet.
    pub session: SessionId,
    pub policy: Policy,
    pub rights: Rights,
    pub identity: Identity,
    pub fs: FsKind,
    pub root: Arc<Dir<D>>,
    pub cache: FdCache<D>,
    pub owners: Owners,
    /// Of the file system with that number, whether a new entry gets its directory's group, as with `-o grpid`.
    gives_dir_group: OnceLock<(u64, bool)>,
    temp_counter: AtomicU64,
    state: Mutex<State<D>>,
}

struct State<D: Disk> {
    dirs: HashMap<DirId, Node<D>>,
    incoming: HashMap<FileId, Incoming<D>>,
    /// Every number that was declared or begun, retired ones too.
    used_dirs: UsedIds,
    used_files: UsedIds,
    counts: Counts,
    /// The marker of this session was to be written.
    is_marked: bool,
    /// It stands in ROOT.
    own_marker: Option<marker::Own<D>>,
    /// A sync has failed, and what it was for is in its place all the same.
    has_failed_sync: bool,
    /// Markers of other sessions that were met.
    met: Vec<marker::Met<D>>,
    /// The LIST of ROOT came; it comes once.
    root_is_asked_for: bool,
}

/// What the target has done so far.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    pub files_made: u64,
    /// Of the files that came in PACKs.
    pub literal_bytes: u64,
    pub dirs_made: u64,
    pub meta_fixed: u64,
    pub deleted: u64,
    pub deletes_skipped: u64,
    pub errors: u64,
}

/// How a declared directory stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Asked for by LIST, not looked at yet.
    Declared,
    /// It does not exist (yet).
    Absent,
    /// Its complete listing was sent: deletes are legal in it.
    Listed,
    /// It was made, or adopted, by this session.
    Made,
    /// It could not be made: everything below is lost.
    Lost,
}

impl Standing {
    /// Whether entries can be made in it.
    pub fn takes_entries(self) -> bool {
        match self {
            Self::Listed | Self::Made | Self::Declared => true,
            Self::Lost | Self::Absent => false,
        }
    }
}

struct Node<D: Disk> {
    dir: Arc<Dir<D>>,
    parent: DirId,
    standing: Standing,
    /// Large files under way in it, runs of entries that are still to be made, and child
    /// directories whose CLOSE waits.
    busy: u32,
    /// Directories declared in it whose CLOSE has not come.
    open_below: u32,
    /// CLOSE came while it was busy.
    close: Option<Option<Meta>>,
}

/// A large file under way.
pub struct Incoming<D: Disk> {
    pub fd: SharedFd<D>,
    /// Held, with its lock, until the file has its name.
    pub dir_fd: SharedFd<D>,
    pub dir: Arc<Dir<D>>,
    pub dir_id: DirId,
    pub place: Place<D>,
    pub name: Box<[u8]>,
    pub meta: Meta,
}

/// A directory whose last operation is done. The one above it waits until it is dressed.
pub struct Closing<D: Disk> {
    pub dir: Arc<Dir<D>>,
    pub meta: Option<Meta>,
    /// What `ended` is to be told once it is; ROOT has none.
    pub above: Option<DirId>,
}

impl<D: Disk> Node<D> {
    fn new(dir: &Arc<Dir<D>>, parent: DirId, standing: Standing) -> Self {
        Self {
            dir: Arc::clone(dir),
            parent,
            standing,
            busy: 0,
            open_below: 0,
            close: None,
        }
    }
}

impl<D: Disk> Tree<D> {
    #[expect(
        clippy::too_many_arguments,
        reason = "called once; each is a plain fact of the session"
    )]
    pub fn new(
        session: SessionId,
        policy: Policy,
        rights: Rights,
        identity: Identity,
        fs: FsKind,
        root: Arc<Dir<D>>,
        root_is_absent: bool,
        cache: FdCache<D>,
    ) -> Self {
        let standing = if root_is_absent {
            Standing::Absent
        } else {
            Standing::Declared
        };
        let node = Node::new(&root, ROOT, standing);
        let mut used_dirs = UsedIds::default();
        used_dirs.take(ROOT.0).expect("the first of all");
        let state = State {
            dirs: HashMap::from([(ROOT, node)]),
            incoming: HashMap::new(),
            used_dirs,
            used_files: UsedIds::default(),
            counts: Counts::default(),
            is_marked: false,
            own_marker: None,
            has_failed_sync: false,
            met: Vec::new(),
            root_is_asked_for: false,
        };
        let temp_counter = AtomicU64::new(0);
        Self {
            session,
            policy,
            rights,
            identity,
            fs,
            root,
            cache,
            owners: Owners::default(),
            gives_dir_group: OnceLock::new(),
            temp_counter,
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<D>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group that a new entry has by itself in a directory of this file system that stands so; `None` while nobody
    /// knows.
    pub fn group_of_new(&self, stood: Stood, dev: u64) -> Option<u32> {
        let own = self.identity.gid;
        if stood.is_setgid || stood.gid == own {
            return Some(stood.gid);
        }
        let (known, gives_dir_group) = *self.gives_dir_group.get()?;
        (known == dev).then_some(if gives_dir_group { stood.gid } else { own })
    }

    /// Whether a new entry of such a directory has to be looked at.
    pub fn wants_to_learn_of_groups(&self, stood: Stood) -> bool {
        let can_tell = !stood.is_setgid && stood.gid != self.identity.gid;
        can_tell && self.rights.owners && self.gives_dir_group.get().is_none()
    }

    /// Looks at a new entry of a directory: no call tells of it.
    pub fn learn_of_groups(&self, new: &Stat, dir: &Stat) {
        let gives_dir_group = new.gid == dir.gid;
        self.gives_dir_group
            .get_or_init(|| (dir.dev, gives_dir_group));
    }

    pub fn temp_name(&self) -> TempName {
        TempName::new(
            self.session,
            self.temp_counter.fetch_add(1, Ordering::Relaxed),
        )
    }

    /// For a file of which a part is to be kept, should this process die.
    pub fn keepable_temp_name(&self, name: &[u8]) -> TempName {
        let counter = self.temp_counter.fetch_add(1, Ordering::Relaxed);
        TempName::keepable(self.session, counter, NameHash::of(name))
    }

    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    pub fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.state().counts);
    }

    /// Whether one more deletion is allowed; counts it either way.
    pub fn count_delete(&self) -> bool {
        let counts = &mut self.state().counts;
        let is_allowed = self
            .policy
            .delete_max
            .is_none_or(|max| counts.deleted < max);
        if is_allowed {
            counts.deleted += 1;
        } else {
            counts.deletes_skipped += 1;
        }
        is_allowed
    }

    /// A counted deletion that failed after all.
    pub fn uncount_delete(&self) {
        self.state().counts.deleted -= 1;
    }

    /// Whether the marker has to be written now; the caller does it.
    pub fn must_mark(&self) -> bool {
        let wants = !self.fs.is_volatile && !self.policy.dry_run;
        wants && !std::mem::replace(&mut self.state().is_marked, true)
    }

    /// The marker stands.
    pub fn marked(&self, own: marker::Own<D>) {
        self.state().own_marker = Some(own);
    }

    /// From when on the marker that stands has changes in doubt.
    pub fn marked_since(&self) -> Option<Mtime> {
        self.state().own_marker.as_ref().map(marker::Own::since)
    }

    /// Takes the marker, to remove or replace it.
    pub fn take_own_marker(&self) -> Option<marker::Own<D>> {
        self.state().own_marker.take()
    }

    /// Syncs what stays where it is should that fail.
    pub fn sync(&self, disk: &D, fd: &D::Fd) -> Result<(), Errno> {
        let synced = disk.sync_file(fd);
        if synced.is_err() {
            marker::spoil_own(disk, self);
        }
        synced
    }

    pub fn note_failed_sync(&self) {
        self.state().has_failed_sync = true;
    }

    pub fn has_failed_sync(&self) -> bool {
        self.state().has_failed_sync
    }

    /// Notes another session's marker for the end of this one.
    pub fn met(&self, met: marker::Met<D>) {
        self.state().met.push(met);
    }

    /// Takes the markers of others for which `wants` holds.
    pub fn take_met(&self, wants: impl Fn(&marker::Met<D>) -> bool) -> Vec<marker::Met<D>> {
        self.state().met.extract_if(.., |met| wants(met)).collect()
    }

    /// Declares `dir` as `name` of `parent`, for a LIST. Also whether it is known to be absent.
    pub fn declare(
        &self,
        dir: DirId,
        parent: DirId,
        name: Option<Name<'_>>,
    ) -> Result<(Arc<Dir<D>>, bool), WireError> {
        let mut state = self.state();
        let Some(name) = name else {
            if std::mem::replace(&mut state.root_is_asked_for, true) {
                return Err(WireError::DirTwice(ROOT.0));
            }
            let root = state.dirs.get(&ROOT).ok_or(WireError::UnknownDir(ROOT.0))?;
            return Ok((Arc::clone(&root.dir), root.standing == Standing::Absent));
        };
        let above = state
            .dirs
            .get(&parent)
            .filter(|above| above.close.is_none())
            .ok_or(WireError::UnknownDir(parent.0))?;
        let is_absent = matches!(above.standing, Standing::Absent | Standing::Lost);
        let child = Arc::new(Dir::child(&above.dir, name.bytes()));
        let standing = if is_absent {
            Standing::Absent
        } else {
            Standing::Declared
        };
        state.insert(dir, Node::new(&child, parent, standing))?;
        Ok((child, is_absent))
    }

    /// Declares (or finds declared by a LIST) the directory that a MKDIR names.
    pub fn declare_made(
        &self,
        id: DirId,
        parent: DirId,
        name: Name<'_>,
    ) -> Result<Arc<Dir<D>>, WireError> {
        let mut state = self.state();
        if let Some(node) = state.dirs.get(&id) {
            let is_the_one = node.parent == parent && node.dir.name() == name.bytes();
            let may_be_made = is_the_one && node.standing == Standing::Absent && id != ROOT;
            return if may_be_made {
                Ok(Arc::clone(&node.dir))
            } else {
                Err(WireError::DirTwice(id.0))
            };
        }
        let above = state
            .dirs
            .get(&parent)
            .filter(|above| above.close.is_none())
            .ok_or(WireError::UnknownDir(parent.0))?;
        let child = Arc::new(Dir::child(&above.dir, name.bytes()));
        state.insert(id, Node::new(&child, parent, Standing::Absent))?;
        Ok(child)
    }

    pub fn set_standing(&self, id: DirId, standing: Standing) {
        if let Some(node) = self.state().dirs.get_mut(&id) {
            node.standing = standing;
        }
    }

    pub fn set_listed(&self, id: DirId) {
        self.set_standing(id, Standing::Listed);
    }

    pub fn set_absent(&self, id: DirId) {
        self.set_standing(id, Standing::Absent);
    }

    /// Whether the directory above `id` is known not to exist.
    pub fn is_below_absent(&self, id: DirId) -> bool {
        let state = self.state();
        let above = state.dirs.get(&id).filter(|_| id != ROOT);
        above
            .and_then(|node| state.dirs.get(&node.parent))
            .is_some_and(|above| matches!(above.standing, Standing::Absent | Standing::Lost))
    }

    pub fn find(&self, id: DirId) -> Result<(Arc<Dir<D>>, Standing), WireError> {
        let state = self.state();
        let node = state.dirs.get(&id).ok_or(WireError::UnknownDir(id.0))?;
        if node.close.is_some() {
            return Err(WireError::UnknownDir(id.0));
        }
        Ok((Arc::clone(&node.dir), node.standing))
    }

    /// Whether a large file may begin under this id; asked once, before anything is made for it.
    pub fn may_begin(&self, file: FileId) -> Result<(), WireError> {
        let mut state = self.state();
        let taken = state.used_files.take(file.0);
        taken.map_err(|why| unusable(why, WireError::FileTwice(file.0)))?;
        if state.incoming.len() >= INCOMING_FILES_MAX {
            return Err(WireError::TooMany {
                what: "large files under way",
                max: INCOMING_FILES_MAX,
            });
        }
        Ok(())
    }

    /// A large file begins in its directory.
    pub fn begin(&self, file: FileId, incoming: Incoming<D>) -> Result<(), WireError> {
        let mut state = self.state();
        let dir_id = incoming.dir_id;
        if state.incoming.contains_key(&file) {
            return Err(WireError::FileTwice(file.0));
        }
        state
            .dirs
            .get_mut(&dir_id)
            .ok_or(WireError::UnknownDir(dir_id.0))?
            .busy += 1;
        state.incoming.insert(file, incoming);
        Ok(())
    }

    /// The path of a large file under way, as a trouble has it.
    pub fn incoming_path(&self, file: FileId) -> Vec<u8> {
        let state = self.state();
        let incoming = state.incoming.get(&file);
        incoming.map_or_else(Vec::new, |it| it.dir.path_below_root(&it.name))
    }

    /// Takes a large file out, to be committed or dropped; `ended` follows.
    pub fn take_incoming(&self, file: FileId) -> Option<Incoming<D>> {
        self.state().incoming.remove(&file)
    }

    /// All large files that are under way, when a session breaks off.
    pub fn take_all_incoming(&self) -> Vec<(FileId, Incoming<D>)> {
        self.state().incoming.drain().collect()
    }

    /// Directories that were opened up and not closed since, the deepest first: who loses the
    /// right to pass a directory can't reach those below it any more.
    pub fn opened_up(&self) -> Vec<Arc<Dir<D>>> {
        let state = self.state();
        let is_open = |(_, node): &(_, &Node<D>)| node.dir.facts().opened_up_from.is_some();
        let open = state.dirs.iter().filter(is_open);
        let mut open: Vec<_> = open
            .map(|(id, node)| (*id, Arc::clone(&node.dir)))
            .collect();
        drop(state);
        open.sort_unstable_by_key(|(id, _)| *id);
        open.truncate(CLOSED_UP_DIRS_MAX);
        open.sort_by_cached_key(|(_, dir)| Reverse(dir.depth()));
        open.into_iter().map(|(_, dir)| dir).collect()
    }

    /// Something in `id` is under way until `ended`: it is not closed before.
    pub fn hold(&self, id: DirId) {
        let mut state = self.state();
        let node = state.dirs.get_mut(&id);
        node.expect("the caller has found it").busy += 1;
    }

    /// CLOSE came: the directory to dress now, if nothing in it is under way.
    pub fn close(&self, id: DirId, meta: Option<Meta>) -> Result<Option<Closing<D>>, WireError> {
        let mut state = self.state();
        let node = state.dirs.get_mut(&id).ok_or(WireError::UnknownDir(id.0))?;
        if node.close.is_some() {
            return Err(WireError::UnknownDir(id.0));
        }
        if node.open_below > 0 {
            return Err(WireError::OpenBelow(id.0));
        }
        let (parent, is_busy) = (node.parent, node.busy > 0);
        if is_busy {
            node.close = Some(meta);
        }
        if id != ROOT {
            let above = state.dirs.get_mut(&parent);
            let above = above.expect("a parent outlives its children");
            above.open_below -= 1;
            above.busy += 1;
        }
        Ok((!is_busy).then(|| state.retire(id, meta)))
    }

    /// Something that was under way in `id` has ended, or a directory in it is dressed: the
    /// directory itself, if it waited for no more than that.
    ///
    /// One at a time: whose mode no longer lets its owner in may only get it when nobody works
    /// below it any more, and another job may be the one that still does.
    pub fn ended(&self, id: DirId) -> Option<Closing<D>> {
        let mut state = self.state();
        let node = state.dirs.get_mut(&id);
        let node = node.expect("a busy directory is not retired");
        node.busy -= 1;
        if node.busy > 0 {
            return None;
        }
        let meta = node.close.take()?;
        Some(state.retire(id, meta))
    }
}

impl<D: Disk> State<D> {
    fn insert(&mut self, id: DirId, node: Node<D>) -> Result<(), WireError> {
        if self.dirs.len() >= DIRS_DECLARED_MAX {
            return Err(WireError::TooMany {
                what: "open directories",
                max: DIRS_DECLARED_MAX,
            });
        }
        let taken = self.used_dirs.take(id.0);
        taken.map_err(|why| unusable(why, WireError::DirTwice(id.0)))?;
        let above = self.dirs.get_mut(&node.parent);
        above
            .ok_or(WireError::UnknownDir(node.parent.0))?
            .open_below += 1;
        self.dirs.insert(id, node);
        Ok(())
    }

    fn retire(&mut self, id: DirId, meta: Option<Meta>) -> Closing<D> {
        let node = self.dirs.remove(&id).expect("the caller looked it up");
        let may_close = matches!(
            node.standing,
            Standing::Made | Standing::Listed | Standing::Declared
        );
        Closing {
            dir: node.dir,
            meta: meta.filter(|_| may_close),
            above: (id != ROOT).then_some(node.parent),
        }
    }
}

fn unusable(why: Refused, twice: WireError) -> WireError {
    match why {
        Refused::Twice => twice,
        Refused::TooMany => WireError::TooMany {
            what: "gaps between numbers",
            max: USED_RANGES_MAX,
        },
    }
}

/// A failure that no further file can escape: the session ends with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fatal {
    pub path: Vec<u8>,
    pub attempt: Attempt,
    pub errno: Errno,
}

impl Fatal {
    /// A DEST that may not be written to is one that can't be used; anything else is its disk's.
    pub fn exit(&self) -> Exit {
        match self.errno {
            Errno::ACCESS | Errno::PERM => Exit::Selection,
            _ => Exit::FileIo,
        }
    }
}

/// Whether `errno` of a write makes all later ones pointless: full, over quota, read-only.
pub fn is_fatal(errno: Errno) -> bool {
    matches!(errno, Errno::NOSPC | Errno::DQUOT | Errno::ROFS)
}

/// Outcomes that jobs of the target hand up: what NOTICE and STOP frames are made of.
#[derive(Default, Debug)]
pub struct Outcomes {
    pub troubles: Vec<(Attempt, Why, Vec<u8>)>,
    /// (is a directory, path), said when the policy asks for it.
    pub deleted: Vec<(bool, Vec<u8>)>,
    pub stopped_dirs: Vec<DirId>,
    pub fatal: Option<Fatal>,
    /// The peer's fault.
    pub error: Option<WireError>,
}

impl Outcomes {
    /// So much is to be told that the job should hand it over first.
    pub fn is_full(&self) -> bool {
        self.troubles.len() + self.deleted.len() + self.stopped_dirs.len() >= NOTICES_PER_JOB_MAX
    }

    /// Notes a failure of the disk, fatal or not.
    pub fn failed<D: Disk>(&mut self, tree: &Tree<D>, attempt: Attempt, why: Why, path: Vec<u8>) {
        tree.count(|counts| counts.errors += 1);
        if let Why::Errno(errno) = why
            && is_fatal(errno)
            && self.fatal.is_none()
        {
            self.fatal = Some(Fatal {
                path: path.clone(),
                attempt,
                errno,
            });
        }
        self.troubles.push((attempt, why, path));
    }
}
