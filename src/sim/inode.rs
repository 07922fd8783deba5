//! `Inodes`, the tree of a simulated disk as its processes see it, and what of it is safe from a
//! power cut. `SimDisk` keeps the rules of the calls; here are objects, names and links.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::prng::{Prng, mix};
use crate::model::entry::Kind;
use crate::model::time::Mtime;

pub(super) type Ino = u64;

pub(super) const ROOT: Ino = 1;
pub(super) const BLOCK: u64 = 4096;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Attrs {
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Mtime,
    pub(super) ctime: Mtime,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    /// Shared with the stable copy until it is written.
    File(Arc<Vec<u8>>),
    Dir(Names),
    Symlink(Arc<Vec<u8>>),
    Special {
        kind: Kind,
        rdev: u64,
    },
}

impl Body {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::File(_) => Kind::File,
            Self::Dir(_) => Kind::Dir,
            Self::Symlink(_) => Kind::Symlink,
            Self::Special { kind, .. } => *kind,
        }
    }

    /// As it is when just made.
    fn newborn(&self) -> Self {
        match self {
            Self::File(_) => Self::File(Arc::default()),
            Self::Dir(names) => Self::Dir(Names::new(names.salt)),
            Self::Symlink(_) | Self::Special { .. } => self.clone(),
        }
    }
}

/// The names of one directory, in the order in which the directory lists them: by a salted hash,
/// as ext4 does, so that nobody can lean on a sorted listing.
#[derive(Clone, Debug)]
pub(super) struct Names {
    salt: u64,
    by_place: BTreeMap<Place, Ino>,
}

/// Where a name stands in its directory's listing.
pub(super) type Place = (u64, Vec<u8>);

impl Names {
    pub(super) fn new(salt: u64) -> Self {
        Self {
            salt,
            by_place: BTreeMap::new(),
        }
    }

    fn place(&self, name: &[u8]) -> Place {
        let hash = name
            .iter()
            .fold(self.salt, |hash, byte| mix(hash ^ u64::from(*byte)));
        (hash, name.to_vec())
    }

    pub(super) fn find(&self, name: &[u8]) -> Option<Ino> {
        self.by_place.get(&self.place(name)).copied()
    }

    /// Points `name` at `child`, or at nothing; what it pointed at before.
    fn set(&mut self, name: &[u8], child: Option<Ino>) -> Option<Ino> {
        let place = self.place(name);
        match child {
            Some(ino) => self.by_place.insert(place, ino),
            None => self.by_place.remove(&place),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_place.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], Ino)> {
        self.by_place
            .iter()
            .map(|((_, name), ino)| (&name[..], *ino))
    }

    /// The places behind `last`, from the start without one.
    pub(super) fn after(&self, last: Option<&Place>) -> impl Iterator<Item = &Place> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = last.map_or(Unbounded, Excluded);
        self.by_place.range((from, Unbounded)).map(|(key, _)| key)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) attrs: Attrs,
    pub(super) body: Body,
    /// Names that lead here; of a directory 0 or 1.
    pub(super) links: u32,
    pub(super) open_count: u32,
    /// Where `..` leads; of directories only.
    pub(super) parent: Ino,
    /// Content that the next sync has to bring out. A failed sync clears it too: the kernel marks
    /// pages clean that it could not write, and the next fsync finds nothing to complain about.
    pub(super) is_content_dirty: bool,
}

impl Node {
    pub(super) fn names(&self) -> Option<&Names> {
        match &self.body {
            Body::Dir(names) => Some(names),
            Body::File(_) | Body::Symlink(_) | Body::Special { .. } => None,
        }
    }

    /// Bytes it takes on the device.
    pub(super) fn charge(&self) -> u64 {
        match &self.body {
            Body::File(content) => (content.len() as u64).next_multiple_of(BLOCK),
            Body::Dir(_) | Body::Symlink(_) | Body::Special { .. } => 0,
        }
    }
}

/// One name of one directory that changes.
#[derive(Clone, Debug)]
pub(super) struct NameChange {
    pub(super) dir: Ino,
    pub(super) name: Vec<u8>,
    pub(super) child: Option<Ino>,
}

/// One call's changes of names: all survive a power cut, or none.
#[derive(Debug)]
struct NameOp {
    changes: Vec<NameChange>,
    /// Objects it links or unlinks.
    children: Vec<Ino>,
    /// An fsync came after it, which takes it along on a journalling file system.
    is_before_sync: bool,
}

impl NameOp {
    /// What a later op has in common with an earlier one that it can't survive without.
    fn keys(&self) -> impl Iterator<Item = Key<'_>> {
        let names = self
            .changes
            .iter()
            .map(|change| Key::Name(change.dir, &change.name));
        names.chain(self.children.iter().map(|ino| Key::Object(*ino)))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key<'a> {
    Name(Ino, &'a [u8]),
    Object(Ino),
}

#[derive(Clone, Debug)]
struct StableNode {
    attrs: Attrs,
    body: Body,
}

#[derive(Debug)]
pub(super) struct Inodes {
    nodes: BTreeMap<Ino, Node>,
    next_ino: Ino,
    used_bytes: u64,
    salt: Prng,
    /// What a power cut leaves for certain.
    stable: BTreeMap<Ino, StableNode>,
    /// What happened to names since, in order.
    log: Vec<NameOp>,
    /// Objects without a name or descriptor that a lost unlink brings back.
    ghosts: BTreeMap<Ino, Node>,
}

impl Inodes {
    pub(super) fn new(mut salt: Prng, now: Mtime) -> Self {
        let root = Node {
            attrs: Attrs {
                mode: 0o755,
                uid: 0,
                gid: 0,
                mtime: now,
                ctime: now,
            },
            body: Body::Dir(Names::new(salt.next_u64())),
            links: 1,
            open_count: 0,
            parent: ROOT,
            is_content_dirty: false,
        };
        let mut inodes = Self {
            nodes: BTreeMap::from([(ROOT, root)]),
            next_ino: ROOT + 1,
            used_bytes: 0,
            salt,
            stable: BTreeMap::new(),
            log: Vec::new(),
            ghosts: BTreeMap::new(),
        };
        inodes.sync_all();
        inodes
    }

    pub(super) fn count(&self) -> u64 {
        self.nodes.len() as u64
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// # Panics
    /// When nothing keeps the object alive; whoever holds its number holds a name or a descriptor.
    pub(super) fn node(&self, ino: Ino) -> &Node {
        self.nodes.get(&ino).expect("a held object lives")
    }

    /// For changes of metadata and reservations; content goes through [`Self::change_content`].
    pub(super) fn node_mut(&mut self, ino: Ino) -> &mut Node {
        self.nodes.get_mut(&ino).expect("a held object lives")
    }

    /// Lets `change` work on an object and keeps the account of bytes.
    pub(super) fn change_content<T>(&mut self, ino: Ino, change: impl FnOnce(&mut Node) -> T) -> T {
        let node = self.nodes.get_mut(&ino).expect("a held object lives");
        self.used_bytes -= node.charge();
        let result = change(node);
        self.used_bytes += node.charge();
        result
    }

    pub(super) fn empty_names(&mut self) -> Names {
        Names::new(self.salt.next_u64())
    }

    /// Makes an object and its first name.
    pub(super) fn make(&mut self, dir: Ino, name: &[u8], body: Body, attrs: Attrs) -> Ino {
        let ino = self.next_ino;
        self.next_ino += 1;
        self.stable.insert(
            ino,
            StableNode {
                attrs,
                body: body.newborn(),
            },
        );
        let node = Node {
            attrs,
            body,
            links: 0,
            open_count: 0,
            parent: dir,
            is_content_dirty: true,
        };
        self.used_bytes += node.charge();
        self.nodes.insert(ino, node);
        self.change_names(
            vec![NameChange {
                dir,
                name: name.to_vec(),
                child: Some(ino),
            }],
            attrs.ctime,
        );
        ino
    }

    /// Carries out one call's changes of names at once. Times of the directories and of the
    /// objects follow; an object that nothing holds any more goes.
    pub(super) fn change_names(&mut self, changes: Vec<NameChange>, now: Mtime) {
        let mut children = Vec::new();
        for change in &changes {
            let node = self.node_mut(change.dir);
            node.attrs.mtime = now;
            node.attrs.ctime = now;
            let Body::Dir(names) = &mut node.body else {
                unreachable!("names change in directories");
            };
            let old = names.set(&change.name, change.child);
            if let Some(old) = old {
                let node = self.node_mut(old);
                node.links -= 1;
                node.attrs.ctime = now;
                children.push(old);
            }
            if let Some(new) = change.child {
                let node = self.node_mut(new);
                node.links += 1;
                node.attrs.ctime = now;
                node.parent = change.dir;
                children.push(new);
            }
        }
        for ino in &children {
            self.release_if_gone(*ino);
        }
        self.log.push(NameOp {
            changes,
            children,
            is_before_sync: false,
        });
    }

    pub(super) fn open(&mut self, ino: Ino) {
        self.node_mut(ino).open_count += 1;
    }

    pub(super) fn close(&mut self, ino: Ino) {
        self.node_mut(ino).open_count -= 1;
        self.release_if_gone(ino);
    }

    fn release_if_gone(&mut self, ino: Ino) {
        let is_gone = self
            .nodes
            .get(&ino)
            .is_some_and(|node| node.links == 0 && node.open_count == 0);
        if is_gone && let Some(node) = self.nodes.remove(&ino) {
            self.used_bytes -= node.charge();
            self.ghosts.insert(ino, node);
        }
    }

    /// fsync: content and metadata of one object, of a directory its names too. Its own name is
    /// another directory's business, as POSIX has it.
    pub(super) fn sync(&mut self, ino: Ino) {
        let node = self.nodes.get_mut(&ino).expect("a held object lives");
        if let Some(stable) = self.stable.get_mut(&ino) {
            stable.attrs = node.attrs;
            if let Body::File(content) = &node.body
                && node.is_content_dirty
            {
                stable.body = Body::File(Arc::clone(content));
            }
        }
        node.is_content_dirty = false;
        if node.body.kind() == Kind::Dir {
            self.sync_names(ino);
        }
        for op in &mut self.log {
            op.is_before_sync = true;
        }
    }

    /// Makes the changes of one directory's names stable, and what they build on.
    fn sync_names(&mut self, dir: Ino) {
        let log = std::mem::take(&mut self.log);
        let mut needed: Vec<Key<'_>> = Vec::new();
        let mut is_synced = vec![false; log.len()];
        for (index, op) in log.iter().enumerate().rev() {
            let is_of_dir = op.changes.iter().any(|change| change.dir == dir);
            if is_of_dir || op.keys().any(|key| needed.contains(&key)) {
                is_synced[index] = true;
                needed.extend(op.keys());
            }
        }
        for (op, is_synced) in log.into_iter().zip(is_synced) {
            if is_synced {
                apply_to_stable(&mut self.stable, &op);
            } else {
                self.log.push(op);
            }
        }
    }

    /// Says that a sync of `ino` failed: its content counts as clean and is not stable.
    pub(super) fn fail_sync(&mut self, ino: Ino) {
        self.node_mut(ino).is_content_dirty = false;
    }

    pub(super) fn fail_sync_all(&mut self) {
        for node in self.nodes.values_mut() {
            node.is_content_dirty = false;
        }
    }

    /// syncfs. Content whose write-back failed before stays as the device has it.
    pub(super) fn sync_all(&mut self) {
        let old = std::mem::take(&mut self.stable);
        self.log.clear();
        self.ghosts.clear();
        for (ino, node) in &mut self.nodes {
            let body = match (&node.body, old.get(ino)) {
                (Body::File(_), Some(stable)) if !node.is_content_dirty => stable.body.clone(),
                _ => node.body.clone(),
            };
            node.is_content_dirty = false;
            self.stable.insert(
                *ino,
                StableNode {
                    attrs: node.attrs,
                    body,
                },
            );
        }
    }

    /// What the disk holds when the power is back. Each op on names, each object's metadata and
    /// each 4 KiB of content that was not synced survives or not by itself, except that nothing
    /// survives without what it builds on. With `is_ordered` names survive as a journal keeps
    /// them: up to some instant, which is not before the last sync.
    pub(super) fn cut_power(&mut self, is_ordered: bool, keep_per_mille: u32, prng: &mut Prng) {
        let log = std::mem::take(&mut self.log);
        let certain = log.iter().filter(|op| op.is_before_sync).count();
        let ordered_end = certain + prng.index(log.len() - certain + 1);
        let mut lost: Vec<Key<'_>> = Vec::new();
        for (index, op) in log.iter().enumerate() {
            let is_kept = if is_ordered {
                index < ordered_end
            } else {
                prng.chance(keep_per_mille) && !op.keys().any(|key| lost.contains(&key))
            };
            if is_kept {
                apply_to_stable(&mut self.stable, op);
            } else {
                lost.extend(op.keys());
            }
        }

        let before = std::mem::take(&mut self.nodes);
        let ghosts = std::mem::take(&mut self.ghosts);
        let mut unvisited = vec![(ROOT, ROOT)];
        while let Some((ino, parent)) = unvisited.pop() {
            if let Some(node) = self.nodes.get_mut(&ino) {
                node.links += 1;
                continue;
            }
            let stable = self.stable.get(&ino).expect("stable from its making");
            let mut node = Node {
                attrs: stable.attrs,
                body: stable.body.clone(),
                links: 1,
                open_count: 0,
                parent,
                is_content_dirty: false,
            };
            if let Some(last) = before.get(&ino).or_else(|| ghosts.get(&ino)) {
                if prng.chance(keep_per_mille) {
                    node.attrs = last.attrs;
                }
                if let (Body::File(old), Body::File(new)) = (&node.body, &last.body)
                    && !Arc::ptr_eq(old, new)
                {
                    node.body = Body::File(Arc::new(survivor(old, new, keep_per_mille, prng)));
                }
            }
            if let Body::Dir(names) = &node.body {
                unvisited.extend(names.iter().map(|(_, child)| (child, ino)));
            }
            self.nodes.insert(ino, node);
        }
        self.used_bytes = self.nodes.values().map(Node::charge).sum();
        for node in self.nodes.values_mut() {
            // What came through is on the device.
            node.is_content_dirty = true;
        }
        self.sync_all();
    }
}

fn apply_to_stable(stable: &mut BTreeMap<Ino, StableNode>, op: &NameOp) {
    for change in &op.changes {
        if let Some(StableNode {
            body: Body::Dir(names),
            ..
        }) = stable.get_mut(&change.dir)
        {
            names.set(&change.name, change.child);
        }
    }
}

/// What is left of a file that was `old` on the device and `new` in memory.
fn survivor(old: &[u8], new: &[u8], keep_per_mille: u32, prng: &mut Prng) -> Vec<u8> {
    let page = usize::try_from(BLOCK).expect("4096");
    // The size goes out by itself, or with the pages, or not at all.
    let torn_at = prng.index(new.len().div_ceil(page) + 1) * page;
    let len = if prng.chance(keep_per_mille) {
        new.len()
    } else if prng.chance(500) {
        torn_at.min(new.len())
    } else {
        old.len()
    };
    // A page that was never written reads as zeros.
    let mut content = old.to_vec();
    content.resize(len, 0);
    let pages = len.min(new.len()).div_ceil(page);
    // Write-back goes through a file in order, until it doesn't.
    let is_in_order = prng.chance(500);
    let written_pages = prng.index(pages + 1);
    for index in 0..pages {
        let is_kept = if is_in_order {
            index < written_pages
        } else {
            prng.chance(keep_per_mille)
        };
        if is_kept {
            let range = index * page..((index + 1) * page).min(len).min(new.len());
            content[range.clone()].copy_from_slice(&new[range]);
        }
    }
    content
}
