//! The first and the last job of a session at the target: DEST is found or made, and at the end
//! synced.

use std::sync::Arc;

use super::dir::{Dir, FdCache};
use super::large::abandon;
use super::marker;
use super::partial::{self, Keep};
use super::prune::Prune;
use super::tree::{Outcomes, Tree};
use crate::limits::DIR_FDS_OPEN_MAX;
use crate::model::entry::{Kind, Meta, Stat};
use crate::model::id::{FileId, SessionId};
use crate::model::policy::Durability;
use crate::model::report::{Attempt, Why};
use crate::ops::disk::{FsKind, SharedFd};
use crate::ops::{Disk, Errno};
use crate::wire::hello::{Hello, Refusal, Refused, Rights, Welcome};

/// Where a session may go.
pub enum Scope {
    /// Below a module's root, without following a symlink. The root is opened for each session: what
    /// is mounted there, or stands there, may be another than at the last.
    Module { root: Vec<u8> },
    /// Wherever its user may, by the user's own path.
    Own {
        /// Where a relative path begins, component by component.
        home: Vec<Vec<u8>>,
    },
}

const LINK_ON_THE_WAY: &[u8] = b": it is a symlink, and below a module none is followed: push to \
    what it names, or export that as a module of its own";

/// Finds DEST, makes it where only its last component is missing.
pub struct OpenDest<D: Disk> {
    pub hello: Hello,
    scope: Scope,
    rights: Rights,
    pub outcome: Option<Opened<D>>,
}

/// The tree of the session and what the source hears of it, or why there is none.
pub type Opened<D> = Result<(Arc<Tree<D>>, Welcome), Refused>;

/// ROOT as it was found.
struct Found<D: Disk> {
    dir: Dir<D>,
    stat: Stat,
    /// `None`: it is absent.
    fd: Option<SharedFd<D>>,
    file_named_by_dest: bool,
}

impl<D: Disk> OpenDest<D> {
    pub fn new(mut hello: Hello, scope: Scope, rights: Rights) -> Self {
        if let Scope::Own { home } = &scope
            && hello.dest_is_relative
        {
            hello.dest.splice(0..0, home.iter().cloned());
        }
        Self {
            hello,
            scope,
            rights,
            outcome: None,
        }
    }

    pub fn run(&mut self, disk: &D) {
        self.outcome = Some(self.open(disk));
    }

    fn open(&self, disk: &D) -> Opened<D> {
        let found = match &self.scope {
            Scope::Module { root } => self.below(disk, root),
            Scope::Own { .. } => self.by_path(disk),
        }?;
        let refuse = |errno: Errno| self.refused(Refusal::Dest, errno);
        let cache = FdCache::beside(found.stat.dev, DIR_FDS_OPEN_MAX);
        let root = Arc::new(found.dir);
        let identity = disk.identity();
        let fs = match &found.fd {
            Some(fd) => {
                root.doubt(marker::heed_above(disk, fd).map_err(refuse)?);
                disk.fs_kind(fd).map_err(refuse)?
            }
            None => FsKind {
                magic: 0,
                is_volatile: true,
            },
        };
        let welcome = Welcome {
            rights: self.rights,
            file_named_by_dest: found.file_named_by_dest,
            root: Meta::from(&found.stat),
            root_is_absent: found.fd.is_none(),
            root_dev: found.stat.dev,
            root_ino: found.stat.ino,
            boot_id: disk.boot_id(),
        };
        let tree = Tree::new(
            SessionId(disk.random_u64()),
            self.hello.policy,
            self.rights,
            identity,
            fs,
            root,
            found.fd.is_none(),
            cache,
        );
        Ok((Arc::new(tree), welcome))
    }

    fn refused(&self, refusal: Refusal, errno: Errno) -> Refused {
        let mut text = self.hello.dest.join(&b'/');
        if self.hello.module.is_empty() {
            text.insert(0, b'/');
        }
        text.extend_from_slice(b": ");
        text.extend_from_slice(std::io::Error::from(errno).to_string().as_bytes());
        Refused { refusal, text }
    }

    /// A component of DEST below a module that could not be opened. Who set up a link there knows
    /// that it is a directory, and would not understand that it is none.
    fn not_passed(
        &self,
        disk: &D,
        at: &D::Fd,
        index: usize,
        refusal: Refusal,
        errno: Errno,
    ) -> Refused {
        let components = &self.hello.dest;
        let stat = disk.stat_at(at, &components[index]);
        if !stat.is_ok_and(|stat| stat.kind == Kind::Symlink) {
            return self.refused(refusal, errno);
        }
        let mut text = components[..=index].join(&b'/');
        text.extend_from_slice(LINK_ON_THE_WAY);
        Refused {
            refusal: Refusal::Dest,
            text,
        }
    }

    fn below(&self, disk: &D, module: &[u8]) -> Result<Found<D>, Refused> {
        let root = disk.open_module_dir(module);
        let mut at = Arc::new(root.map_err(|errno| self.refused(Refusal::Dest, errno))?);
        let components = &self.hello.dest;
        for (index, name) in components.iter().enumerate() {
            let is_last = index + 1 == components.len();
            match disk.open_dir(&at, name) {
                Ok(fd) => at = Arc::new(fd),
                Err(errno) if is_last => return self.last(disk, &at, name, errno),
                Err(errno) => {
                    return Err(self.not_passed(disk, &at, index, Refusal::Dest, errno));
                }
            }
        }
        self.found(disk, at)
    }

    fn by_path(&self, disk: &D) -> Result<Found<D>, Refused> {
        let mut path = vec![b'/'];
        path.extend_from_slice(&self.hello.dest.join(&b'/'));
        if self.is_foreign_link(disk, &path) {
            return Err(self.refused(Refusal::Dest, Errno::LOOP));
        }
        match disk.open_operator_dir(&path) {
            Ok(fd) => self.found(disk, Arc::new(fd)),
            Err(errno) => {
                let Some((name, above)) = self.hello.dest.split_last() else {
                    return Err(self.refused(Refusal::Dest, errno));
                };
                let mut parent = vec![b'/'];
                parent.extend_from_slice(&above.join(&b'/'));
                let parent = disk
                    .open_operator_dir(&parent)
                    .map_err(|errno| self.refused(Refusal::Dest, errno))?;
                self.last(disk, &Arc::new(parent), name, errno)
            }
        }
    }

    /// A symlink at DEST that belongs to neither root nor this user may have been planted.
    fn is_foreign_link(&self, disk: &D, path: &[u8]) -> bool {
        let owner_is_trusted = |uid: u32| uid == 0 || uid == disk.identity().uid;
        disk.stat_operator_path(path, false)
            .is_ok_and(|stat| stat.kind == Kind::Symlink && !owner_is_trusted(stat.uid))
    }

    /// DEST's last component could not be opened as a directory, because of `errno`.
    fn last(
        &self,
        disk: &D,
        parent: &SharedFd<D>,
        name: &[u8],
        errno: Errno,
    ) -> Result<Found<D>, Refused> {
        let refuse = |errno| self.refused(Refusal::Dest, errno);
        let may_name_a_file = self.hello.single_file && !self.hello.dest_is_dir;
        let is_module = matches!(self.scope, Scope::Module { .. });
        match errno {
            Errno::NOENT if may_name_a_file => self.named_by_dest(disk, parent),
            Errno::NOENT if self.hello.policy.dry_run => {
                let stat = disk.stat(parent).map_err(refuse)?;
                let above = Arc::new(Dir::root(b"", Arc::clone(parent)));
                Ok(Found {
                    dir: Dir::child(&above, name),
                    stat,
                    fd: None,
                    file_named_by_dest: false,
                })
            }
            Errno::NOENT => {
                match disk.make_dir(parent, name, 0o755) {
                    // Another push was faster; EEXIST is as good.
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(refuse(errno)),
                }
                let fd = disk.open_dir(parent, name).map_err(refuse)?;
                self.found(disk, Arc::new(fd))
            }
            // A file, or a symlink that may not be followed.
            Errno::NOTDIR | Errno::LOOP if may_name_a_file => self.named_by_dest(disk, parent),
            Errno::NOTDIR if is_module => {
                let index = self.hello.dest.len() - 1;
                Err(self.not_passed(disk, parent, index, Refusal::DestNotDir, errno))
            }
            Errno::LOOP if is_module => {
                let index = self.hello.dest.len() - 1;
                Err(self.not_passed(disk, parent, index, Refusal::Dest, errno))
            }
            Errno::NOTDIR => Err(self.refused(Refusal::DestNotDir, errno)),
            errno => Err(refuse(errno)),
        }
    }

    fn named_by_dest(&self, disk: &D, parent: &SharedFd<D>) -> Result<Found<D>, Refused> {
        let found = self.found(disk, Arc::clone(parent))?;
        Ok(Found {
            file_named_by_dest: true,
            ..found
        })
    }

    fn found(&self, disk: &D, fd: SharedFd<D>) -> Result<Found<D>, Refused> {
        let stat = disk
            .stat(&fd)
            .map_err(|errno| self.refused(Refusal::Dest, errno))?;
        let dir = match &self.scope {
            Scope::Module { root } if self.hello.dest.is_empty() => Dir::module_root(root),
            Scope::Module { .. } | Scope::Own { .. } => Dir::root(b"", Arc::clone(&fd)),
        };
        dir.learn_root(&stat);
        Ok(Found {
            dir,
            stat,
            fd: Some(fd),
            file_named_by_dest: false,
        })
    }
}

/// After the last operation: what the durability asks for.
pub struct Finish<D: Disk> {
    tree: Arc<Tree<D>>,
    /// The session broke off: only tidy up.
    pub is_abandoned: bool,
    /// A deletion that it broke off in.
    pub prune: Option<Prune<D>>,
    /// Large files that it broke off in, of which a part is to be kept.
    pub kept: Vec<(FileId, Keep)>,
    pub outcomes: Outcomes,
    pub peak_rss_bytes: u64,
}

impl<D: Disk> Finish<D> {
    pub fn new(tree: Arc<Tree<D>>, is_abandoned: bool) -> Self {
        Self {
            tree,
            is_abandoned,
            prune: None,
            kept: Vec::new(),
            outcomes: Outcomes::default(),
            peak_rss_bytes: 0,
        }
    }

    pub fn run(&mut self, disk: &D) {
        self.peak_rss_bytes = disk.peak_rss_bytes();
        for (file, incoming) in self.tree.take_all_incoming() {
            let kept = self.kept.iter().find(|(kept, _)| *kept == file);
            let is_kept = kept.is_some_and(|(_, keep)| {
                partial::keep_incoming(disk, &self.tree, &incoming, *keep)
            });
            if !is_kept {
                abandon(disk, &incoming);
            }
        }
        if self.tree.policy.dry_run {
            return;
        }
        if let Some(prune) = self.prune.take() {
            prune.abandon(disk, &self.tree);
        }
        for dir in self.tree.opened_up() {
            dir.close_up(disk, &self.tree.cache);
        }
        let own_since = self.tree.marked_since();
        let wants_sync = self.tree.policy.durability != Durability::None;
        if wants_sync
            && !self.is_abandoned
            && let Err(errno) = marker::retire(disk, &self.tree)
        {
            let path = self.tree.root.path_below_root(b"");
            self.outcomes
                .failed(&self.tree, Attempt::Sync, Why::Errno(errno), path);
        }
        let is_good = !self.is_abandoned && self.tree.counts().errors == 0;
        marker::settle(disk, &self.tree, own_since, is_good);
    }
}

/// The last sync of a session that had durability `none`, after its REPORT where a server stays:
/// its marker goes.
pub struct Retire<D: Disk> {
    tree: Arc<Tree<D>>,
}

impl<D: Disk> Retire<D> {
    pub fn new(tree: Arc<Tree<D>>) -> Self {
        Self { tree }
    }

    pub fn run(&mut self, disk: &D) {
        if self.tree.marked_since().is_some() {
            // Where it fails the marker stays, and the next push doubts: the safe side.
            let _ = marker::retire(disk, &self.tree);
        }
    }
}
