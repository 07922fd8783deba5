//! The oracle: what a directory tree is, read once, and how two of them differ.
//!
//! It walks by descriptors, so depth has no limit, and opens regular files only.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// One entry, with everything that a push has to bring.
#[derive(Clone, Debug)]
pub struct Node {
    pub kind: FileType,
    /// The low twelve bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes of a regular file; 0 for all else.
    pub size: u64,
    pub mtime: (i64, i64),
    pub ctime: (i64, i64),
    pub ino: u64,
    /// Of devices; 0 for all else.
    pub rdev: u64,
    pub link: Vec<u8>,
    /// Of a regular file's bytes; 0 for all else.
    pub digest: u128,
    below: BTreeMap<Vec<u8>, usize>,
    above: usize,
    name: Vec<u8>,
}

/// A tree as it was when it was read. Node 0 is the directory itself.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: Vec<Node>,
}

const DIR_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
const DIFFERENCES_SHOWN: usize = 30;

impl Tree {
    /// Reads the tree at `path`, which may be any kind of entry. What vanishes meanwhile was not
    /// there; a file that is replaced meanwhile is one of the two.
    #[track_caller]
    pub fn read(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let stat = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)
            .unwrap_or_else(|why| panic!("stat {}: {why}", path.display()));
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let dir = rustix::fs::openat(CWD, path, DIR_FLAGS, Mode::empty())
                .unwrap_or_else(|why| panic!("open {}: {why}", path.display()));
            return Self::read_from(dir);
        }
        let parent = path.parent().expect("a file has a parent");
        let parent = rustix::fs::openat(CWD, parent, DIR_FLAGS, Mode::empty()).expect("its parent");
        let name = path.file_name().expect("a file has a name");
        let name = CString::new(name.as_encoded_bytes()).expect("a name has no NUL");
        let node = read_node(parent.as_fd(), &name).expect("it can be read");
        Self { nodes: vec![node] }
    }

    /// Reads the tree below an open directory.
    pub fn read_from(dir: OwnedFd) -> Self {
        let root = read_node(dir.as_fd(), c".").expect("an open directory can be read");
        let mut tree = Self { nodes: vec![root] };
        let mut here = dir;
        let mut at = 0;
        // For each directory on the way down, its subdirectories that are still to be read.
        let mut waiting = vec![tree.list(here.as_fd(), at)];
        while let Some(subdirs) = waiting.last_mut() {
            if let Some((name, index)) = subdirs.pop() {
                match rustix::fs::openat(&here, &name, DIR_FLAGS, Mode::empty()) {
                    Ok(below) => here = below,
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                    Err(why) => panic!("open {}: {why}", tree.path(index)),
                }
                at = index;
                waiting.push(tree.list(here.as_fd(), at));
            } else {
                waiting.pop();
                if !waiting.is_empty() {
                    here = rustix::fs::openat(&here, "..", DIR_FLAGS, Mode::empty())
                        .expect("a directory has a parent");
                    at = tree.nodes[at].above;
                }
            }
        }
        tree
    }

    /// Adds what is in one directory; returns its subdirectories.
    fn list(&mut self, dir: BorrowedFd<'_>, at: usize) -> Vec<(CString, usize)> {
        let mut names: Vec<CString> = Dir::read_from(dir)
            .expect("an open directory can be listed")
            .map(|entry| entry.expect("an entry").file_name().to_owned())
            .filter(|name| name.as_c_str() != c"." && name.as_c_str() != c"..")
            .collect();
        names.sort();
        let mut subdirs = Vec::new();
        for name in names {
            let mut node = match read_node(dir, &name) {
                Ok(node) => node,
                Err(Errno::NOENT) => continue,
                Err(why) => panic!("{}/{name:?}: {why}", self.path(at)),
            };
            let index = self.nodes.len();
            node.above = at;
            node.name = name.as_bytes().to_vec();
            let kind = node.kind;
            self.nodes.push(node);
            self.nodes[at].below.insert(name.as_bytes().to_vec(), index);
            if kind == FileType::Directory {
                subdirs.push((name, index));
            }
        }
        subdirs.reverse();
        subdirs
    }

    /// All entries with their paths, the root as the empty path first.
    pub fn entries(&self) -> impl Iterator<Item = (Vec<u8>, &Node)> {
        let mut stack = vec![(Vec::new(), 0_usize)];
        std::iter::from_fn(move || {
            let (path, index) = stack.pop()?;
            let node = &self.nodes[index];
            for (name, &below) in node.below.iter().rev() {
                let mut path = path.clone();
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(name);
                stack.push((path, below));
            }
            Some((path, node))
        })
    }

    /// The entry at a path, with `/` between names.
    pub fn find(&self, path: impl AsRef<[u8]>) -> Option<&Node> {
        let mut index = 0;
        for name in path
            .as_ref()
            .split(|&byte| byte == b'/')
            .filter(|name| !name.is_empty())
        {
            index = *self.nodes[index].below.get(name)?;
        }
        Some(&self.nodes[index])
    }

    /// How many entries there are, without the root.
    pub fn len(&self) -> usize {
        self.entries().count() - 1
    }

    pub fn is_empty(&self) -> bool {
        self.nodes[0].below.is_empty()
    }

    /// The tree as it should arrive where rules change it: `rule` edits a node, or drops it with
    /// all below by returning `false`.
    #[must_use]
    pub fn mapped(mut self, mut rule: impl FnMut(&mut Node) -> bool) -> Self {
        rule(&mut self.nodes[0]);
        for index in 1..self.nodes.len() {
            if !rule(&mut self.nodes[index]) {
                let Node { above, name, .. } = &self.nodes[index];
                let (above, name) = (*above, name.clone());
                self.nodes[above].below.remove(&name);
            }
        }
        self
    }

    /// For a directory whose own time nobody promised.
    pub fn forget_root_mtime(&mut self) {
        self.nodes[0].mtime = (0, 0);
    }

    /// The tree without one of its entries and what is below that.
    #[must_use]
    pub fn without(mut self, path: impl AsRef<[u8]>) -> Self {
        let path = path.as_ref();
        let (parent, name) = match path.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], path),
        };
        let mut index = 0;
        for name in parent
            .split(|&byte| byte == b'/')
            .filter(|name| !name.is_empty())
        {
            match self.nodes[index].below.get(name) {
                Some(&below) => index = below,
                None => return self,
            }
        }
        self.nodes[index].below.remove(name);
        self
    }

    /// What differs: a line for each entry and property. A marker of an unfinished durability in
    /// the root is sy's business and no difference; its temporary files are.
    pub fn differences(&self, actual: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut pairs = vec![(0_usize, 0_usize)];
        while let Some((ours, theirs)) = pairs.pop() {
            let (expected, seen) = (&self.nodes[ours], &actual.nodes[theirs]);
            for property in expected.properties_that_differ(seen) {
                found.push(format!("{}: {property}", self.path(ours)));
            }
            for (name, &below) in expected.below.iter().rev() {
                match seen.below.get(name) {
                    Some(&other) => pairs.push((below, other)),
                    None if ours == 0 && is_marker(name) => {}
                    None => found.push(format!("{}: missing", self.path(below))),
                }
            }
            for (name, &below) in &seen.below {
                let marker = theirs == 0 && is_marker(name);
                if !marker && !expected.below.contains_key(name) {
                    found.push(format!("{}: should not be there", actual.path(below)));
                }
            }
        }
        found
    }

    /// Fails, with the differences, unless `actual` is this tree.
    #[track_caller]
    pub fn assert_equals(&self, actual: &Self, what: &str) {
        let found = self.differences(actual);
        assert!(found.is_empty(), "{what}: {}", shown(&found));
    }

    /// Fails unless nothing at all happened: also the same inodes, and files untouched.
    #[track_caller]
    pub fn assert_untouched(&self, actual: &Self, what: &str) {
        self.assert_equals(actual, what);
        for (path, before) in self.entries() {
            // It equals, so only a marker can be missing.
            let Some(after) = actual.find(&path) else {
                continue;
            };
            let path = escaped(&path);
            assert_eq!(before.ino, after.ino, "{what}: {path} became another inode");
            if before.kind != FileType::Directory {
                assert_eq!(before.ctime, after.ctime, "{what}: {path} was touched");
            }
        }
    }

    /// The names of sy's own that no ended push may leave: all but the marker.
    pub fn litter(&self) -> Vec<String> {
        let own = |node: &&Node| node.name.starts_with(b".sy.") && !is_marker(&node.name);
        self.nodes
            .iter()
            .filter(own)
            .map(|node| escaped(&node.name))
            .collect()
    }

    fn path(&self, mut index: usize) -> String {
        let mut names = Vec::new();
        while index != 0 {
            names.push(escaped(&self.nodes[index].name));
            index = self.nodes[index].above;
        }
        names.reverse();
        let mut path = format!("./{}", names.join("/"));
        if path.chars().count() > 300 {
            let tail: String = path.chars().skip(path.chars().count() - 200).collect();
            path = format!("({} levels) ...{tail}", names.len());
        }
        path
    }
}

impl Node {
    fn properties_that_differ(&self, seen: &Self) -> Vec<String> {
        let mut found = Vec::new();
        if self.kind != seen.kind {
            return vec![format!("is {:?}, should be {:?}", seen.kind, self.kind)];
        }
        if self.mode != seen.mode && self.kind != FileType::Symlink {
            found.push(format!(
                "mode {:04o}, should be {:04o}",
                seen.mode, self.mode
            ));
        }
        if (self.uid, self.gid) != (seen.uid, seen.gid) {
            let (uid, gid) = (self.uid, self.gid);
            found.push(format!(
                "owner {}:{}, should be {uid}:{gid}",
                seen.uid, seen.gid
            ));
        }
        if self.size != seen.size {
            found.push(format!("{} bytes, should be {}", seen.size, self.size));
        } else if self.digest != seen.digest {
            found.push("other content".to_owned());
        }
        if self.mtime != seen.mtime {
            found.push(format!(
                "mtime {:?}, should be {:?}",
                seen.mtime, self.mtime
            ));
        }
        if self.link != seen.link {
            let (is, should) = (escaped(&seen.link), escaped(&self.link));
            found.push(format!("points to {is}, should point to {should}"));
        }
        if self.rdev != seen.rdev {
            found.push(format!("device {:x}, should be {:x}", seen.rdev, self.rdev));
        }
        found
    }
}

/// One entry. Of a regular file, all is read from one descriptor, so that it fits together.
fn read_node(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Node> {
    loop {
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
                    Err(Errno::LOOP) => continue,
                    file => file?,
                };
                let stat = rustix::fs::fstat(&file)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    continue;
                }
                let mut node = node(&stat);
                node.size = u64::try_from(stat.st_size).expect("a size is not negative");
                node.digest = digest_of(File::from(file));
                return Ok(node);
            }
            FileType::Symlink => {
                let link = match rustix::fs::readlinkat(dir, name, Vec::new()) {
                    Err(Errno::INVAL) => continue,
                    link => link?,
                };
                let mut node = node(&stat);
                node.link = link.into_bytes();
                return Ok(node);
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                let mut node = node(&stat);
                node.rdev = stat.st_rdev;
                return Ok(node);
            }
            FileType::Directory | FileType::Fifo | FileType::Socket | FileType::Unknown => {
                return Ok(node(&stat));
            }
        }
    }
}

fn node(stat: &Stat) -> Node {
    Node {
        kind: FileType::from_raw_mode(stat.st_mode),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: 0,
        mtime: (
            stat.st_mtime,
            i64::try_from(stat.st_mtime_nsec).expect("below 10^9"),
        ),
        ctime: (
            stat.st_ctime,
            i64::try_from(stat.st_ctime_nsec).expect("below 10^9"),
        ),
        ino: stat.st_ino,
        rdev: 0,
        link: Vec::new(),
        digest: 0,
        below: BTreeMap::new(),
        above: 0,
        name: Vec::new(),
    }
}

fn digest_of(mut file: File) -> u128 {
    let mut hasher = twox_hash::xxhash3_128::Hasher::new();
    let mut block = vec![0; 256 * 1024];
    loop {
        match file.read(&mut block).expect("a file can be read") {
            0 => return hasher.finish_128(),
            len => hasher.write(&block[..len]),
        }
    }
}

/// `.sy.<16 hex>.unclean`
fn is_marker(name: &[u8]) -> bool {
    name.strip_prefix(b".sy.")
        .and_then(|rest| rest.strip_suffix(b".unclean"))
        .is_some_and(|id| id.len() == 16 && id.iter().all(u8::is_ascii_hexdigit))
}

/// A name that is safe to print.
pub fn escaped(name: &[u8]) -> String {
    name.escape_ascii().to_string()
}

fn shown(found: &[String]) -> String {
    let mut text = format!("{} differences", found.len());
    for line in found.iter().take(DIFFERENCES_SHOWN) {
        let _ = write!(text, "\n  {line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Yard, plant};

    #[test]
    fn each_property_is_seen_when_it_differs() {
        let yard = Yard::new();
        let (one, other) = (yard.join("one"), yard.join("other"));
        plant::file(one.join("dir/file"), "text");
        plant::symlink("there", one.join("link"));
        plant::fifo(one.join("fifo"));
        plant::copy(&one, &other);
        let expected = Tree::read(&one);
        expected.assert_equals(&Tree::read(&other), "a copy");

        type Change<'a> = (&'a str, &'a dyn Fn(&Path));
        let changes: [Change<'_>; 7] = [
            ("mode", &|path| plant::chmod(path.join("dir"), 0o700)),
            ("other content", &|path| {
                plant::file(path.join("dir/file"), "texT");
                let old = expected.find("dir/file").expect("it is there").mtime;
                plant::mtime(
                    path.join("dir/file"),
                    old.0,
                    u32::try_from(old.1).expect("ns"),
                );
            }),
            ("bytes, should be 4", &|path| {
                plant::file(path.join("dir/file"), "longer")
            }),
            ("mtime", &|path| {
                plant::mtime(path.join("fifo"), 1, 999_999_999)
            }),
            ("points to", &|path| {
                plant::remove(path.join("link"));
                plant::symlink("elsewhere", path.join("link"));
            }),
            ("missing", &|path| plant::remove(path.join("fifo"))),
            ("should not be there", &|path| {
                plant::file(path.join("dir/.sy.0123456789abcdef.1.tmp"), "");
            }),
        ];
        for (word, change) in changes {
            plant::remove(&other);
            plant::copy(&one, &other);
            change(&other);
            let found = expected.differences(&Tree::read(&other));
            assert!(
                found.iter().any(|line| line.contains(word)),
                "{word}: {found:?}"
            );
        }
    }

    #[test]
    fn only_the_marker_in_the_root_is_no_difference() {
        let yard = Yard::new();
        let empty = Tree::read(yard.path());
        let mtime = empty.nodes[0].mtime;
        let read = || {
            Tree::read(yard.path()).mapped(|node| {
                node.mtime = mtime;
                true
            })
        };
        plant::file(yard.join(".sy.0123456789abcdef.unclean"), "");
        assert!(empty.differences(&read()).is_empty());
        assert!(read().litter().is_empty());
        plant::file(yard.join(".sy.0123456789abcdef.0.tmp"), "");
        assert_eq!(empty.differences(&read()).len(), 1);
        assert_eq!(read().litter().len(), 1);
    }
}
