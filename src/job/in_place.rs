//! Files that are updated where they stand: the inode stays, and what stays in them is not written.
//!
//! From the first byte that changes to the last such a file is a mixture, and whatever ends the push there leaves
//! it so. Nobody may take it for the source's later, by its size and time:
//!
//! - The time is set last. Before the first byte the file is touched, since it may bear the source's time already.
//! - Until it is whole it is longer by a byte than either version: for a push that goes by size alone, and where
//!   the clock comes to stamp the source's very time on it.
//! - The touch is synced. A power cut can leave new content in an inode that was not written, and a marker tells
//!   what it has in doubt by when the inode changed.

use super::entry::{Failed, Here, dress_file, errno, final_mode, write_all};
use super::own_name::TempName;
use super::partial;
use super::tree::Tree;
use crate::model::entry::{Kind, Meta, Stat};
use crate::model::id::FileId;
use crate::model::name::Name;
use crate::model::policy::Durability;
use crate::model::report::{Attempt, Why};
use crate::ops::disk::{Lock, SharedFd};
use crate::ops::{Buf, Disk, Errno};

/// A file that stands at the target, open to be written.
pub struct InPlaceFile<D: Disk> {
    pub fd: SharedFd<D>,
    /// As it was found.
    pub stat: Stat,
}

impl<D: Disk> InPlaceFile<D> {
    /// What is called `name` in `dir`; `None` where it has to be replaced: it is no regular file, it has other
    /// names, which would change with it, it is another user's, who alone may set its time, it can't be
    /// written to, or somebody has locked it, as another push may have.
    pub fn open(disk: &D, tree: &Tree<D>, dir: &D::Fd, name: &[u8]) -> Option<Self> {
        let is_fit = |stat: &Stat| {
            let is_ours = tree.identity.is_root || stat.uid == tree.identity.uid;
            stat.kind == Kind::File && stat.nlink == 1 && is_ours
        };
        if !tree.policy.in_place {
            return None;
        }
        disk.stat_at(dir, name).ok().filter(is_fit)?; // Opening a device can do something to it.
        let fd = disk.open_to_write(dir, name).ok()?;
        // Where there are no locks, two pushes at once are the user's affair.
        if disk.try_lock(&fd, Lock::Exclusive) == Ok(false) {
            return None;
        }
        let stat = disk.stat(&fd).ok().filter(is_fit)?;
        let fd = SharedFd::<D>::new(fd);
        Some(Self { fd, stat })
    }

    /// Before its first byte changes. It is to have `size` bytes and this `meta`.
    pub fn begin(&self, disk: &D, tree: &Tree<D>, meta: &Meta, size: u64) -> Result<(), Failed> {
        let mode = self.mode_meanwhile(tree, meta);
        if mode != self.stat.mode {
            let set = disk.set_mode(&self.fd, mode);
            set.map_err(errno(Attempt::SetMeta))?;
        }
        let now = disk.now();
        let touched = disk.set_mtime(&self.fd, now);
        touched.map_err(errno(Attempt::SetMeta))?;
        let longest = self.stat.size.max(size);
        let lengthened = disk.set_size(&self.fd, longest + 1);
        lengthened.map_err(errno(Attempt::Write))?;
        tree.sync(disk, &self.fd).map_err(errno(Attempt::Sync))
    }

    /// Its mode while it is a mixture: nobody reads new content who may not read it in the end, and nobody
    /// runs it as another.
    fn mode_meanwhile(&self, tree: &Tree<D>, meta: &Meta) -> u16 {
        let Stat { mode, uid, gid, .. } = self.stat;
        let stays_owned = !tree.rights.owners || (uid, gid) == (meta.uid, meta.gid);
        if !stays_owned {
            return 0; // Only root gives files away, and it gets in.
        }
        match mode & final_mode(tree, meta) & 0o777 {
            both if both == mode => mode,
            both => both | mode & 0o600, // The next push has to get in.
        }
    }

    /// After its last byte. The time comes last.
    pub fn end(
        &self,
        disk: &D,
        tree: &Tree<D>,
        (dir, name): (&D::Fd, &[u8]),
        meta: &Meta,
        size: u64,
    ) -> Result<(), Failed> {
        let cut = disk.set_size(&self.fd, size);
        cut.map_err(errno(Attempt::Write))?;
        if tree.policy.durability == Durability::File {
            let synced = tree.sync(disk, &self.fd);
            synced.map_err(errno(Attempt::Sync))?;
        }
        let named = disk.stat_at(dir, name).map_err(errno(Attempt::Stat))?;
        if (named.dev, named.ino) != (self.stat.dev, self.stat.ino) {
            return Err((Attempt::Write, Why::Changing)); // What was written has another name, or none.
        }
        dress_file(disk, tree, &self.fd, meta, false).map_err(errno(Attempt::SetMeta))
    }

    /// A small file, whole.
    pub fn update(
        &self,
        disk: &D,
        tree: &Tree<D>,
        here: &Here<D>,
        (name, meta): (Name<'_>, &Meta),
        content: &[u8],
    ) -> Result<(), Failed> {
        let size = content.len() as u64;
        self.begin(disk, tree, meta, size)?;
        partial::remove(disk, tree, &here.dir, &here.fd, name.bytes());
        write_all(disk, &self.fd, content, 0).map_err(errno(Attempt::Write))?;
        self.end(disk, tree, (&here.fd, name.bytes()), meta, size)?;
        tree.count(|counts| {
            counts.files_made += 1;
            counts.literal_bytes += size;
        });
        Ok(())
    }
}

/// Makes a hole where a file has content.
pub struct Punch<D: Disk> {
    pub file: FileId,
    fd: SharedFd<D>,
    /// The frame that asked for it, which counts as received until then.
    buf: Buf,
    offset: u64,
    /// Bytes, a chunk's at most.
    len: usize,
    /// Out.
    pub result: Result<(), Errno>,
}

impl<D: Disk> Punch<D> {
    pub fn new(file: FileId, fd: SharedFd<D>, buf: Buf, offset: u64, len: usize) -> Self {
        Self {
            file,
            fd,
            buf,
            offset,
            len,
            result: Err(Errno::IO),
        }
    }

    pub fn run(&mut self, disk: &D) {
        self.result = match disk.punch_hole(&self.fd, self.offset, self.len as u64) {
            Err(Errno::OPNOTSUPP) => {
                let zeros = &mut self.buf[..self.len];
                zeros.fill(0);
                write_all(disk, &self.fd, zeros, self.offset)
            }
            done => done,
        };
    }
}

/// Where the content of a large file goes until its end.
pub enum Place<D: Disk> {
    /// A file of its own beside the name.
    Beside(TempName),
    InPlace(InPlaceFile<D>),
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::job::dir::{Dir, FdCache};
    use crate::model::id::SessionId;
    use crate::model::policy::Policy;
    use crate::model::time::Mtime;
    use crate::sim::tree::{Entry, Tree as Shown};
    use crate::sim::{Crash, DiskOptions, SimClock, SimDisk};
    use crate::wire::hello::Rights;

    /// A session in place whose DEST has the file `f` of 8 bytes. Its clock stamps whole seconds.
    fn session() -> (SimDisk, Tree<SimDisk>) {
        session_on(&SimClock::default(), 1)
    }

    fn session_on(clock: &SimClock, seed: u64) -> (SimDisk, Tree<SimDisk>) {
        let second_ns = 1_000_000_000;
        let options = DiskOptions {
            tick_ns: second_ns,
            mtime_granule_ns: second_ns,
            ..DiskOptions::default()
        };
        let disk = SimDisk::new(options, clock.clone(), seed);
        let entry = Entry::file(0o6754, b"old text");
        let shown = Shown::empty().with(b"f", entry);
        disk.plant(b"/t", &shown).unwrap();
        disk.settle();
        let tree = tree(&disk);
        (disk, tree)
    }

    fn tree(disk: &SimDisk) -> Tree<SimDisk> {
        let root = Dir::root(b"", Arc::new(disk.open_operator_dir(b"/t").unwrap()));
        let fs = disk.fs_kind(&root.fd(disk, &FdCache::new(1)).unwrap());
        let policy = Policy {
            in_place: true,
            ..Policy::default()
        };
        Tree::new(
            SessionId(1),
            policy,
            Rights::default(),
            disk.identity(),
            fs.unwrap(),
            Arc::new(root),
            false,
            FdCache::new(8),
        )
    }

    fn meta(mtime: Mtime) -> Meta {
        Meta {
            kind: Kind::File,
            mode: 0o640,
            uid: 0,
            gid: 0,
            mtime,
        }
    }

    fn opened(disk: &SimDisk, tree: &Tree<SimDisk>) -> Option<InPlaceFile<SimDisk>> {
        let dir = disk.open_operator_dir(b"/t").unwrap();
        InPlaceFile::open(disk, tree, &dir, b"f")
    }

    fn stat(disk: &SimDisk) -> Stat {
        disk.stat_operator_path(b"/t/f", false).unwrap()
    }

    #[test]
    fn until_its_end_nothing_passes_for_the_source_whatever_its_time_was() {
        for ago in [-1000, -1, 0, 1, 2, 3, 1000] {
            for was_equal in [true, false] {
                let (disk, tree) = session();
                let mut mtime = disk.now();
                mtime.sec -= ago;
                mtime.nsec = 7; // The disk keeps none.
                if was_equal {
                    disk.touch(b"/t/f", Mtime { nsec: 0, ..mtime }).unwrap();
                }
                let passes = || {
                    let stat = stat(&disk);
                    stat.size == 8 && stat.mtime.satisfies(mtime)
                };
                assert_eq!(passes(), was_equal);
                let file = opened(&disk, &tree).unwrap();
                file.begin(&disk, &tree, &meta(mtime), 8).unwrap();
                assert!(!passes(), "begun, {ago} s ago");
                write_all(&disk, &file.fd, b"new", 0).unwrap();
                assert!(!passes(), "a mixture, {ago} s ago");
                assert_ne!(stat(&disk).size, 8, "by its size, {ago} s ago");
                write_all(&disk, &file.fd, b" text", 3).unwrap();
                let dir = disk.open_operator_dir(b"/t").unwrap();
                file.end(&disk, &tree, (&dir, b"f"), &meta(mtime), 8)
                    .unwrap();
                assert!(passes(), "whole, {ago} s ago");
            }
        }
    }

    #[test]
    fn a_power_cut_leaves_no_new_content_in_an_inode_that_looks_untouched() {
        for seed in 0..40 {
            let clock = SimClock::default();
            let (disk, tree) = session_on(&clock, seed);
            let before = stat(&disk);
            clock.advance_to(clock.now().plus(Duration::from_secs(5)));
            let file = opened(&disk, &tree).unwrap();
            file.begin(&disk, &tree, &meta(before.mtime), 8).unwrap();
            write_all(&disk, &file.fd, b"new", 0).unwrap();
            let disk = disk.restart(Crash::PowerCut);
            assert!(stat(&disk).ctime > before.ctime, "seed {seed}");
        }
    }

    #[test]
    fn a_mixture_has_no_rights_but_those_that_both_versions_have() {
        let (disk, tree) = session();
        let file = opened(&disk, &tree).unwrap();
        file.begin(&disk, &tree, &meta(Mtime::default()), 8)
            .unwrap();
        assert_eq!(stat(&disk).mode, 0o640);
        drop(file);
        disk.set_mode_at(&disk.open_operator_dir(b"/t").unwrap(), b"f", 0o604)
            .unwrap();
        let file = opened(&disk, &tree).unwrap();
        file.begin(&disk, &tree, &meta(Mtime::default()), 8)
            .unwrap();
        assert_eq!(stat(&disk).mode, 0o600);
        drop(file);
        // Its old owner is not to read what is another's.
        let (disk, mut tree) = session();
        tree.rights.owners = true;
        let file = opened(&disk, &tree).unwrap();
        let theirs = Meta {
            uid: 77,
            ..meta(Mtime::default())
        };
        file.begin(&disk, &tree, &theirs, 8).unwrap();
        assert_eq!(stat(&disk).mode, 0);
    }

    #[test]
    fn what_can_not_be_updated_in_place_is_not() {
        let (disk, ours) = session();
        let other = disk.spawn();
        let theirs = tree(&other);
        let held = opened(&disk, &ours);
        assert!(held.is_some());
        assert!(opened(&other, &theirs).is_none(), "another push has it");
        drop(held);
        assert!(opened(&other, &theirs).is_some());
        disk.hard_link(b"/t/f", b"/t/g").unwrap();
        assert!(opened(&disk, &ours).is_none(), "it has another name");
        disk.remove(b"/t/f").unwrap();
        assert!(opened(&disk, &ours).is_none(), "it is gone");
        disk.put(b"/t/f", &Entry::symlink(b"g")).unwrap();
        assert!(opened(&disk, &ours).is_none(), "it is a symlink");
        disk.put(b"/t/f", &Entry::dir(0o755)).unwrap();
        assert!(opened(&disk, &ours).is_none(), "it is a directory");
    }

    #[test]
    fn a_file_that_lost_its_name_does_not_get_its_time() {
        let (disk, tree) = session();
        let file = opened(&disk, &tree).unwrap();
        file.begin(&disk, &tree, &meta(Mtime::default()), 8)
            .unwrap();
        disk.move_to(b"/t/f", b"/t/moved").unwrap();
        disk.put(b"/t/f", &Entry::file(0o644, b"somebody's"))
            .unwrap();
        let dir = disk.open_operator_dir(b"/t").unwrap();
        let ended = file.end(&disk, &tree, (&dir, b"f"), &meta(Mtime::default()), 8);
        assert_eq!(ended, Err((Attempt::Write, Why::Changing)));
        let moved = disk.stat_operator_path(b"/t/moved", false).unwrap();
        assert_ne!(moved.mtime, Mtime::default());
    }
}
