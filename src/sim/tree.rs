//! `Tree`, a directory tree as a value: built from a seed, put on a simulated disk, taken from
//! one, compared. The oracle of a simulated push speaks in these.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::clock::WALL_START_SEC;
use super::prng::Prng;
use crate::limits::LINK_TARGET_BYTES_MAX;
use crate::model::entry::{Kind, Meta};
use crate::model::name::OWN_PREFIX;
use crate::model::time::Mtime;
use crate::ops::{Disk, Errno};

/// Paths below the tree's root, which is the empty path, and what stands there. The order puts a
/// directory before what is in it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tree {
    pub entries: BTreeMap<Vec<u8>, Entry>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub meta: Meta,
    pub content: Content,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// Of a directory, a fifo or a socket.
    None,
    Bytes(Arc<Vec<u8>>),
    /// Of a symlink.
    Target(Vec<u8>),
    /// The number of a device.
    Device(u64),
}

impl Entry {
    pub fn dir(mode: u16) -> Self {
        Self::new(Kind::Dir, mode, Content::None)
    }

    pub fn file(mode: u16, bytes: &[u8]) -> Self {
        Self::new(Kind::File, mode, Content::Bytes(Arc::new(bytes.to_vec())))
    }

    pub fn symlink(target: &[u8]) -> Self {
        Self::new(Kind::Symlink, 0o777, Content::Target(target.to_vec()))
    }

    /// A file's content.
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.content {
            Content::Bytes(bytes) => Some(bytes),
            Content::None | Content::Target(_) | Content::Device(_) => None,
        }
    }

    /// Owned by root, last changed a day before the world began.
    pub fn new(kind: Kind, mode: u16, content: Content) -> Self {
        Self {
            meta: Meta {
                kind,
                mode,
                uid: 0,
                gid: 0,
                mtime: Mtime {
                    sec: WALL_START_SEC - 86_400,
                    nsec: 0,
                },
            },
            content,
        }
    }
}

/// How large and how strange a tree from a seed becomes.
#[derive(Clone, Debug)]
pub struct Shape {
    pub entries_max: usize,
    /// Directories on the way to the deepest entry.
    pub depth_max: usize,
    pub file_bytes_max: u64,
    pub has_symlinks: bool,
    /// Fifos, sockets and devices.
    pub has_specials: bool,
    /// Names with newlines, bytes that are not UTF-8, 255 bytes, and neighbours in sorting.
    pub has_strange_names: bool,
    /// Users and groups are drawn from these.
    pub owners: Vec<u32>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            entries_max: 40,
            depth_max: 4,
            file_bytes_max: 600_000,
            has_symlinks: true,
            has_specials: true,
            has_strange_names: true,
            owners: vec![0, 0, 1000, 65_534],
        }
    }
}

/// Sizes at which something changes: pages, packs, chunks.
const EDGE_BYTES: [u64; 13] = [
    0, 1, 511, 4095, 4096, 4097, 65_536, 131_071, 131_072, 131_073, 262_143, 262_144, 262_145,
];

const STRANGE_NAMES: [&[u8]; 16] = [
    b"-rf",
    b" ",
    b"a\nb",
    b"\xff\xfe",
    b"\xc3\x28",
    b"...",
    b"..a",
    b".s",
    b"a.b",
    b"a-",
    b"a0",
    b"a\x01",
    b"*",
    b"\\",
    b"\x7f",
    b"\xe2\x80\xae",
];

impl Tree {
    /// A tree with nothing but its root.
    pub fn empty() -> Self {
        Self {
            entries: BTreeMap::from([(Vec::new(), Entry::dir(0o755))]),
        }
    }

    pub fn with(mut self, path: &[u8], entry: Entry) -> Self {
        self.entries.insert(path.to_vec(), entry);
        self
    }

    pub fn random(prng: &mut Prng, shape: &Shape) -> Self {
        let mut tree = Self::empty();
        tree.entries
            .insert(Vec::new(), random_entry(prng, shape, Kind::Dir));
        for _ in 0..prng.index(shape.entries_max + 1) {
            tree.add(prng, shape);
        }
        tree
    }

    /// Changes the tree here and there, as its owner would between two pushes: content, size,
    /// metadata and kind of entries, some added, some gone.
    pub fn mutate(&mut self, prng: &mut Prng, shape: &Shape, changes_count: usize) {
        for _ in 0..changes_count {
            let paths: Vec<Vec<u8>> = self.entries.keys().skip(1).cloned().collect();
            if paths.is_empty() || prng.chance(250) {
                self.add(prng, shape);
                continue;
            }
            let path = prng.pick(&paths).clone();
            let kind = self.entries[&path].meta.kind;
            match prng.below(4) {
                0 => self.remove(&path),
                // Another kind under the old name.
                1 => {
                    self.remove(&path);
                    let kind = random_kind(prng, shape);
                    self.entries.insert(path, random_entry(prng, shape, kind));
                }
                2 => {
                    let meta = random_entry(prng, shape, kind).meta;
                    if let Some(entry) = self.entries.get_mut(&path) {
                        entry.meta = meta;
                    }
                }
                _ => {
                    let is_edited = self.entries.get_mut(&path).is_some_and(|e| edit(e, prng));
                    if !is_edited && kind != Kind::Dir {
                        self.entries.insert(path, random_entry(prng, shape, kind));
                    }
                }
            }
        }
    }

    /// What stands below `dir` on any disk, the real one too.
    pub fn read_from<D: Disk>(disk: &D, dir: &D::Fd) -> Result<Self, Errno> {
        let mut tree = Self::default();
        tree.entries.insert(
            Vec::new(),
            Entry {
                meta: Meta::from(&disk.stat(dir)?),
                content: Content::None,
            },
        );
        tree.read_below(disk, dir, b"")?;
        Ok(tree)
    }

    fn read_below<D: Disk>(&mut self, disk: &D, dir: &D::Fd, prefix: &[u8]) -> Result<(), Errno> {
        let mut names = Vec::new();
        let mut scratch = Vec::new();
        disk.rewind_dir(dir)?;
        while disk.read_dir(dir, &mut scratch, &mut |name| names.push(name.to_vec()))? {}
        for name in names {
            let path = [prefix, &name].concat();
            let stat = disk.stat_at(dir, &name)?;
            let content = match stat.kind {
                Kind::File => Content::Bytes(Arc::new(read_file(disk, dir, &name)?)),
                Kind::Symlink => {
                    let mut target = vec![0; LINK_TARGET_BYTES_MAX + 1];
                    let len = disk.read_link(dir, &name, &mut target)?;
                    Content::Target(target[..len].to_vec())
                }
                Kind::CharDevice | Kind::BlockDevice => Content::Device(stat.size),
                Kind::Dir | Kind::Fifo | Kind::Socket => Content::None,
            };
            if stat.kind == Kind::Dir {
                let below = disk.open_dir(dir, &name)?;
                self.read_below(disk, &below, &[&path[..], b"/"].concat())?;
            }
            let meta = Meta::from(&stat);
            self.entries.insert(path, Entry { meta, content });
        }
        Ok(())
    }

    /// Removes an entry and what is below it.
    pub fn remove(&mut self, path: &[u8]) {
        let below = [path, b"/"].concat();
        self.entries
            .retain(|other, _| other != path && !other.starts_with(&below));
    }

    /// Without the files that belong to `sy` itself, and what is below such directories.
    pub fn without_ours(mut self) -> Self {
        self.entries.retain(|path, _| {
            !path
                .split(|byte| *byte == b'/')
                .any(|component| component.starts_with(OWN_PREFIX))
        });
        self
    }

    fn add(&mut self, prng: &mut Prng, shape: &Shape) {
        let is_dir_with_room = |(path, entry): &(&Vec<u8>, &Entry)| {
            let depth =
                path.iter().filter(|byte| **byte == b'/').count() + usize::from(!path.is_empty());
            entry.meta.kind == Kind::Dir && depth < shape.depth_max
        };
        let dirs: Vec<Vec<u8>> = self
            .entries
            .iter()
            .filter(is_dir_with_room)
            .map(|(path, _)| path.clone())
            .collect();
        if dirs.is_empty() {
            return;
        }
        let mut path = prng.pick(&dirs).clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend(random_name(prng, shape));
        self.entries.entry(path).or_insert_with(|| {
            let kind = random_kind(prng, shape);
            random_entry(prng, shape, kind)
        });
    }

    /// How `found` differs from `self`, a line for each path; empty when it does not.
    pub fn diff(&self, found: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (path, entry) in &self.entries {
            match found.entries.get(path) {
                None => lines.push(format!("{}: missing", shown(path))),
                Some(other) if other != entry => {
                    lines.push(format!("{}:{}", shown(path), entry_diff(entry, other)));
                }
                Some(_) => {}
            }
        }
        for (path, entry) in &found.entries {
            if !self.entries.contains_key(path) {
                lines.push(format!("{}: unexpected {:?}", shown(path), entry.meta.kind));
            }
        }
        lines
    }
}

fn read_file<D: Disk>(disk: &D, dir: &D::Fd, name: &[u8]) -> Result<Vec<u8>, Errno> {
    let fd = disk.open_file(dir, name)?;
    let mut bytes = Vec::new();
    let mut block = [0; 4096];
    loop {
        match disk.read(&fd, &mut block, bytes.len() as u64)? {
            0 => return Ok(bytes),
            len => bytes.extend_from_slice(&block[..len]),
        }
    }
}

fn shown(path: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 120;
    match path {
        b"" => ".".to_owned(),
        _ => path[..path.len().min(SHOWN_BYTES_MAX)]
            .escape_ascii()
            .to_string(),
    }
}

fn entry_diff(wanted: &Entry, found: &Entry) -> String {
    let mut text = String::new();
    let (a, b) = (wanted.meta, found.meta);
    let mut say = |what: &str, wanted: String, found: String| {
        if wanted != found {
            write!(text, " {what} {found} instead of {wanted};").expect("a string takes it");
        }
    };
    say("kind", format!("{:?}", a.kind), format!("{:?}", b.kind));
    say("mode", format!("{:o}", a.mode), format!("{:o}", b.mode));
    say("user", a.uid.to_string(), b.uid.to_string());
    say("group", a.gid.to_string(), b.gid.to_string());
    let time = |time: Mtime| format!("{}.{:09}", time.sec, time.nsec);
    say("mtime", time(a.mtime), time(b.mtime));
    match (&wanted.content, &found.content) {
        (Content::Bytes(wanted), Content::Bytes(found)) => {
            say("size", wanted.len().to_string(), found.len().to_string());
            let differing = wanted.iter().zip(found.iter()).position(|(a, b)| a != b);
            if let Some(offset) = differing {
                write!(text, " content differs from byte {offset};").expect("a string takes it");
            }
        }
        (Content::Target(wanted), Content::Target(found)) => {
            say("target", shown(wanted), shown(found));
        }
        (Content::Device(wanted), Content::Device(found)) => {
            say("device", wanted.to_string(), found.to_string());
        }
        (Content::None | Content::Bytes(_) | Content::Target(_) | Content::Device(_), _) => {}
    }
    text.trim_end_matches(';').to_owned()
}

fn random_name(prng: &mut Prng, shape: &Shape) -> Vec<u8> {
    if shape.has_strange_names && prng.chance(300) {
        if prng.chance(100) {
            return vec![b'x'; 255];
        }
        return prng.pick(&STRANGE_NAMES).to_vec();
    }
    // Few letters, so that names of the source meet names of the target.
    (0..1 + prng.index(3))
        .map(|_| *prng.pick(b"abAB"))
        .collect()
}

fn random_kind(prng: &mut Prng, shape: &Shape) -> Kind {
    match prng.below(20) {
        0..5 => Kind::Dir,
        5..8 if shape.has_symlinks => Kind::Symlink,
        8 if shape.has_specials => *prng.pick(&[
            Kind::Fifo,
            Kind::Socket,
            Kind::CharDevice,
            Kind::BlockDevice,
        ]),
        _ => Kind::File,
    }
}

fn random_entry(prng: &mut Prng, shape: &Shape, kind: Kind) -> Entry {
    let content = match kind {
        Kind::File => Content::Bytes(Arc::new(random_bytes(prng, shape.file_bytes_max))),
        Kind::Dir | Kind::Fifo | Kind::Socket => Content::None,
        Kind::Symlink => {
            let long = vec![b'l'; LINK_TARGET_BYTES_MAX];
            let targets: [&[u8]; 6] = [b"a", b"..", b"../../b", b"/etc/passwd", b"\xff", &long];
            Content::Target(prng.pick(&targets).to_vec())
        }
        // 1:3 and friends: small numbers, as Linux encodes them.
        Kind::CharDevice | Kind::BlockDevice => Content::Device(prng.between(0x100, 0x1ff)),
    };
    let mode = if kind == Kind::Symlink {
        0o777
    } else {
        *prng.pick(&[
            0o644, 0o600, 0o755, 0o444, 0o000, 0o1777, 0o2755, 0o4711, 0o7777,
        ])
    };
    let mut entry = Entry::new(kind, mode, content);
    entry.meta.uid = *prng.pick(&shape.owners);
    entry.meta.gid = *prng.pick(&shape.owners);
    entry.meta.mtime = Mtime {
        sec: match prng.below(8) {
            0 => *prng.pick(&[0, -1, 1, -2_000_000_000, 0x7fff_ffff, 0x8000_0000]),
            _ => WALL_START_SEC - i64::try_from(prng.skewed(1 << 30)).expect("2^30"),
        },
        nsec: match prng.below(3) {
            0 => 0,
            1 => 999_999_999,
            _ => u32::try_from(prng.below(1_000_000_000)).expect("below a second"),
        },
    };
    entry
}

fn random_bytes(prng: &mut Prng, bytes_max: u64) -> Vec<u8> {
    let len = if prng.chance(500) {
        (*prng.pick(&EDGE_BYTES)).min(bytes_max)
    } else {
        prng.skewed(bytes_max + 1) - 1
    };
    let mut bytes = vec![0; usize::try_from(len).expect("small files")];
    // Zeros stay in one file of four: what a power cut leaves must not pass for content.
    if prng.chance(750) {
        prng.fill(&mut bytes);
    }
    bytes
}

/// Changes content a little and keeps the time or not: the quick check can't see a change that
/// keeps size and time, and must not be asked to. Whether there was something to edit.
fn edit(entry: &mut Entry, prng: &mut Prng) -> bool {
    let Content::Bytes(bytes) = &mut entry.content else {
        return false;
    };
    let bytes = Arc::make_mut(bytes);
    if bytes.is_empty() || prng.chance(300) {
        bytes.extend_from_slice(b"more");
    } else if prng.chance(300) {
        bytes.truncate(prng.index(bytes.len()));
    } else {
        let at = prng.index(bytes.len());
        bytes[at] ^= 0xff;
        entry.meta.mtime.sec += 1;
    }
    if prng.chance(800) {
        entry.meta.mtime.sec += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{DiskOptions, SimClock, SimDisk};

    #[test]
    fn a_tree_that_is_planted_is_found_again() {
        for seed in 0..50 {
            let mut prng = Prng::new(seed);
            let shape = Shape::default();
            let disk = SimDisk::new(DiskOptions::default(), SimClock::default(), seed);
            let mut tree = Tree::random(&mut prng, &shape);
            disk.plant(b"/x/dest", &tree).unwrap();
            assert_eq!(tree.diff(&disk.snapshot(b"/x/dest").unwrap()), [""; 0]);
            disk.remove(b"/x/dest").unwrap();
            tree.mutate(&mut prng, &shape, 10);
            disk.plant(b"/x/dest", &tree).unwrap();
            assert_eq!(tree.diff(&disk.snapshot(b"/x/dest").unwrap()), [""; 0]);
            disk.remove(b"/x").unwrap();
            assert_eq!((disk.inodes_count(), disk.used_bytes()), (1, 0));
        }
    }

    #[test]
    fn a_diff_names_what_differs() {
        let wanted = Tree::empty()
            .with(b"f", Entry::file(0o644, b"abc"))
            .with(b"gone", Entry::dir(0o755))
            .with(b"l", Entry::symlink(b"there"));
        let mut found = wanted.clone().with(b"f", Entry::file(0o600, b"abXY"));
        found.remove(b"gone");
        let found = found
            .with(b"l", Entry::symlink(b"here"))
            .with(b"n\n", Entry::dir(0o755));
        assert_eq!(
            wanted.diff(&found),
            [
                "f: mode 600 instead of 644; size 4 instead of 3; content differs from byte 2",
                "gone: missing",
                "l: target here instead of there",
                "n\\n: unexpected Dir",
            ]
        );
    }

    #[test]
    fn our_own_files_can_be_left_out() {
        let tree = Tree::empty()
            .with(b".sy.1", Entry::dir(0o700))
            .with(b".sy.1/f", Entry::file(0o600, b""))
            .with(b"d.sy.", Entry::dir(0o755));
        let paths: Vec<_> = tree.without_ours().entries.into_keys().collect();
        assert_eq!(paths, [b"".to_vec(), b"d.sy.".to_vec()]);
    }
}
