//! How a session leaves the directories that it works in: dressed from the inside out, and as
//! closed as it found them where it comes to no end.

use std::sync::Arc;

use super::clock::SimClock;
use super::disk::SimDisk;
use super::fault::{CallKind, DiskOptions};
use super::tree::{Entry, Tree as Shown};
use crate::job::dest::Finish;
use crate::job::dir::{Dir, FdCache, keeping_time};
use crate::job::entry::ended;
use crate::job::prune::{Prune, opened_up};
use crate::job::tree::{Closing, Outcomes, Standing, Tree};
use crate::limits::PRUNE_BUDGET_ENTRIES;
use crate::model::entry::{Kind, Meta};
use crate::model::id::{DirId, SessionId};
use crate::model::name::Name;
use crate::model::policy::{Durability, Policy};
use crate::model::time::Mtime;
use crate::ops::op::Progress;
use crate::ops::{Disk, Errno};
use crate::wire::hello::Rights;

/// A session at a target whose DEST holds directories of these modes; a path before those below it.
fn session(dirs: &[(&str, u16)]) -> (SimDisk, Arc<Tree<SimDisk>>) {
    let disk = SimDisk::new(DiskOptions::default(), SimClock::default(), 1);
    disk.plant(b"/t", &Shown::empty()).unwrap();
    for (path, mode) in dirs {
        let path = format!("/t/{path}");
        disk.put(path.as_bytes(), &Entry::dir(*mode)).unwrap();
    }
    let root = Dir::root(b"", Arc::new(disk.open_operator_dir(b"/t").unwrap()));
    let policy = Policy {
        tell_deletes: false,
        dry_run: false,
        delete: true,
        delete_max: None,
        allow_empty_source: false,
        durability: Durability::None,
        numeric_ids: true,
        whole_files: true,
        ..Policy::default()
    };
    let fs = disk.fs_kind(&root.fd(&disk, &FdCache::new(1)).unwrap());
    let tree = Tree::new(
        SessionId(1),
        policy,
        Rights::default(),
        disk.identity(),
        fs.unwrap(),
        Arc::new(root),
        false,
        FdCache::new(8),
    );
    (disk, Arc::new(tree))
}

/// Declares the directories `1`, `2`, ... each in the one before it, as LIST does.
fn nest(tree: &Tree<SimDisk>, names: &[&str]) -> Vec<Arc<Dir<SimDisk>>> {
    let ids = (0..).map(DirId);
    let declare = |(name, parent): (&&str, DirId)| {
        let (id, name) = (DirId(parent.0 + 1), Name::new(name.as_bytes()).unwrap());
        let (dir, _) = tree.declare(id, parent, Some(name)).unwrap();
        tree.set_standing(id, Standing::Listed);
        dir
    };
    names.iter().zip(ids).map(declare).collect()
}

fn mode(disk: &SimDisk, path: &str) -> u16 {
    let stat = disk.stat_operator_path(path.as_bytes(), false);
    stat.unwrap().mode
}

fn dressed(mode: u16) -> Option<Meta> {
    Some(Meta {
        kind: Kind::Dir,
        mode,
        uid: 0,
        gid: 0,
        mtime: Mtime { sec: 1, nsec: 1 },
    })
}

/// Opens `dir` up for a change that fails even so.
fn open_up(disk: &SimDisk, tree: &Tree<SimDisk>, dir: &Dir<SimDisk>) {
    let fd = dir.fd(disk, &tree.cache).unwrap();
    let change = || Err::<(), _>(Errno::ACCESS);
    opened_up(disk, dir, &fd, change).unwrap_err();
}

#[test]
fn a_directory_waits_until_each_one_in_it_is_dressed() {
    let (disk, tree) = session(&[("d", 0o700), ("d/a", 0o700), ("d/b", 0o700)]);
    nest(&tree, &["d"]);
    let d = DirId(1);
    let [a, b] = [(2, b"a"), (3, b"b")].map(|(id, name)| {
        let name = Name::new(name).unwrap();
        tree.declare(DirId(id), d, Some(name)).unwrap();
        tree.set_listed(DirId(id));
        DirId(id)
    });
    tree.set_listed(d);
    for busy in [a, b] {
        tree.hold(busy);
        assert!(tree.close(busy, dressed(0o500)).unwrap().is_none());
    }
    assert!(tree.close(d, dressed(0o400)).unwrap().is_none());
    // Two jobs end in them, and the one that was first has not got to dressing yet.
    let first: Closing<_> = tree.ended(a).unwrap();
    let mut outcomes = Outcomes::default();
    ended(&disk, &tree, b, &mut outcomes);
    assert_eq!(mode(&disk, "/t/d/b"), 0o500);
    assert_eq!(mode(&disk, "/t/d"), 0o700, "the way to d/a is open");
    assert_eq!(first.above, Some(d));
    ended(&disk, &tree, d, &mut outcomes);
    assert_eq!(mode(&disk, "/t/d"), 0o400);
    assert!(outcomes.troubles.is_empty());
}

#[test]
fn what_a_session_opened_up_is_closed_again_when_it_breaks_off() {
    for is_abandoned in [true, false] {
        let (disk, tree) = session(&[("a", 0o500), ("a/b", 0o555), ("a/b/c", 0o700)]);
        let dirs = nest(&tree, &["a", "b", "c"]);
        dirs.iter().for_each(|dir| open_up(&disk, &tree, dir));
        let modes = || ["/t/a", "/t/a/b", "/t/a/b/c"].map(|path| mode(&disk, path));
        assert_eq!(modes(), [0o700, 0o755, 0o700]);
        let open: Vec<_> = tree.opened_up().iter().map(|dir| dir.depth()).collect();
        assert_eq!(open, [2, 1], "from the inside out");
        Finish::new(Arc::clone(&tree), is_abandoned).run(&disk);
        assert_eq!(modes(), [0o500, 0o555, 0o700]);
    }
}

#[test]
fn what_a_deletion_leaves_is_as_closed_as_it_was() {
    let dirs = [("d", 0o500), ("d/full", 0o555)];
    for is_broken_off in [false, true] {
        let (disk, tree) = session(&dirs);
        for number in 0..PRUNE_BUDGET_ENTRIES {
            let name = format!("x{number}");
            let path = format!("/t/d/full/{name}");
            disk.put(path.as_bytes(), &Entry::file(0o600, b"")).unwrap();
            disk.fail_name(name.as_bytes(), CallKind::Unlink, Errno::ACCESS);
        }
        let mut outcomes = Outcomes::default();
        let mut prune =
            Prune::begin(&disk, &tree, &tree.root, (b"d", None), &mut outcomes).unwrap();
        assert!(prune.run(&disk, &tree, &mut outcomes) == Progress::Again);
        assert_eq!(mode(&disk, "/t/d/full"), 0o755, "in its middle");
        if is_broken_off {
            let mut finish = Finish::new(Arc::clone(&tree), true);
            finish.prune = Some(prune);
            finish.run(&disk);
        } else {
            assert!(prune.run(&disk, &tree, &mut outcomes) == Progress::Done);
        }
        for (path, was) in dirs {
            assert_eq!(mode(&disk, &format!("/t/{path}")), was, "{path}");
        }
    }
}

#[test]
fn a_change_that_fails_half_done_leaves_a_directory_its_time() {
    let (disk, tree) = session(&[("d", 0o755)]);
    let time = || disk.stat_operator_path(b"/t/d", false).unwrap().mtime;
    let before = time();
    let dir = nest(&tree, &["d"])[0].fd(&disk, &tree.cache).unwrap();
    let failed = keeping_time(&disk, &dir, || {
        disk.create_file(&dir, b"made", 0o600)?;
        assert_ne!(time(), before);
        Err::<(), _>(Errno::NOSPC)
    });
    assert_eq!((failed, time()), (Err(Errno::NOSPC), before));
}
