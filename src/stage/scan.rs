//! The scan: which directories of the source there are, which to list next, and how far each has
//! got. After a merge only the names of a directory's subdirectories stay, until they are closed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::checks::Checking;
use super::generator::{Deletes, Merge};
use crate::job::dir::Dir;
use crate::job::list::{Origin, SourceDir};
use crate::job::read_pack::DirPlan;
use crate::limits::{LIST_BATCH_DIRS_MAX, LOOKAHEAD_BYTES_MAX};
use crate::model::entry::{Kind, Meta};
use crate::model::id::{DirId, ROOT};
use crate::model::listing::Listing;
use crate::ops::Disk;

/// Bytes that a directory under way costs besides its listing, for the look-ahead's budget.
const NODE_BYTES: usize = 1024;

/// How far the scan runs ahead of the merge. The simulator draws smaller ones.
#[derive(Clone, Copy, Debug)]
pub struct LookAhead {
    /// Bytes of listings and nodes at which nothing more is listed.
    pub bytes_max: usize,
    /// Directories in one list job.
    pub batch_dirs_max: usize,
}

impl Default for LookAhead {
    fn default() -> Self {
        Self {
            bytes_max: LOOKAHEAD_BYTES_MAX,
            batch_dirs_max: LIST_BATCH_DIRS_MAX,
        }
    }
}

/// What a directory's merge says of a subdirectory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    Nothing,
    /// The target's own metadata of it differs.
    Differs,
    /// The target has nothing by its name.
    Absent,
}

/// A directory of the source, from its discovery to its CLOSE.
pub struct Node<D: Disk> {
    pub parent: DirId,
    pub name: Box<[u8]>,
    pub origins: Vec<Origin<D>>,
    /// Its own metadata, as the directory above lists it.
    pub meta: Option<Meta>,
    /// The target does not have it: everything below is new, too.
    pub is_new: bool,
    /// The target's own metadata of it differs.
    pub differs: bool,
    /// An operation in it changed its mtime at the target.
    pub is_touched: bool,
    /// The target can't make it: nothing below is sent.
    pub is_lost: bool,
    /// Something in the source's directory could not be read: nothing is deleted in it.
    pub has_errors: bool,
    pub progress: Progress<D>,
    subdirs: Subdirs,
    /// The target knows its id.
    pub is_declared: bool,
    /// What keeps it open: itself until it is packed, children, packs and large files under way.
    pub open_count: u32,
    /// Large files that wait or are under way: its listing stays for them.
    larges_count: u32,
    footprint_bytes: usize,
}

impl<D: Disk> Node<D> {
    fn know(&mut self, known: Known) {
        match known {
            Known::Nothing => {}
            Known::Differs => self.differs = true,
            // One that was asked for waits for its answer.
            Known::Absent => self.is_new |= !matches!(self.progress, Progress::Asked { .. }),
        }
    }

    fn new(parent: DirId, name: &[u8], origins: Vec<Origin<D>>) -> Self {
        Self {
            parent,
            name: name.into(),
            origins,
            meta: None,
            is_new: false,
            differs: false,
            is_touched: false,
            is_lost: false,
            has_errors: false,
            progress: Progress::Listing,
            subdirs: Subdirs::default(),
            is_declared: false,
            open_count: 1,
            larges_count: 0,
            footprint_bytes: NODE_BYTES,
        }
    }

    /// More large files wait to be sent; they keep their directory open, and the listing here.
    pub fn larges_wait(&mut self, count: u32) {
        self.open_count += count;
        self.larges_count += count;
    }
}

/// How far a directory has got.
pub enum Progress<D: Disk> {
    /// Next: Listed.
    Listing,
    /// It is known what the source has. Next: Asked, or Ready where the target has nothing.
    Listed { listing: Listing },
    /// LIST is under way; the answer is merged as it arrives. Next: Checking, Ready.
    Asked { listing: Listing, merge: Box<Merge> },
    /// The content of some files is still to be compared. Next: Ready.
    Checking(Box<Checking<D>>),
    /// Every entry has its verdict. Next: Packed.
    Ready {
        plan: Arc<DirPlan<D>>,
        deletes: Deletes,
        next: usize,
    },
    /// All its operations are handed out; CLOSE waits for `open_count`.
    Packed,
}

/// The subdirectories of a listed directory: what stays of it after the merge.
#[derive(Default)]
struct Subdirs {
    listing: Listing,
    /// Index in the full listing, by place here.
    indices: Vec<u32>,
    /// Further origins of some, sorted by name, as the list job's merge found them.
    merged: Vec<(Box<[u8]>, u16)>,
    /// Those that were given to a list job.
    taken: usize,
    /// Nodes of those that were taken.
    nodes: Vec<DirId>,
    /// What the merge found out about them before they were taken.
    known: Vec<Known>,
}

pub struct Scan<D: Disk> {
    nodes: HashMap<DirId, Node<D>>,
    /// Directories with subdirectories that were not taken; the deepest last.
    frontier: Vec<DirId>,
    /// Listed directories in the order in which they are packed: a parent before its children.
    pub order: VecDeque<DirId>,
    next_id: u32,
    look_ahead: LookAhead,
    ahead_bytes: usize,
    /// Directories in the next list job: one in the first, twice as many in each that follows, since what a job
    /// has listed comes back all at once and the first file waits for it.
    batch_dirs: usize,
}

impl<D: Disk> Scan<D> {
    /// A scan that begins with ROOT, of the given origins.
    pub fn new(origins: Vec<Origin<D>>) -> Self {
        Self {
            nodes: HashMap::from([(ROOT, Node::new(ROOT, b"", origins))]),
            frontier: Vec::new(),
            order: VecDeque::new(),
            next_id: 1,
            look_ahead: LookAhead::default(),
            ahead_bytes: NODE_BYTES,
            batch_dirs: 1,
        }
    }

    pub fn look_ahead(&mut self, look_ahead: LookAhead) {
        self.look_ahead = look_ahead;
    }

    pub fn node(&mut self, id: DirId) -> Option<&mut Node<D>> {
        self.nodes.get_mut(&id)
    }

    pub fn peek(&self, id: DirId) -> Option<&Node<D>> {
        self.nodes.get(&id)
    }

    /// Everything is closed.
    pub fn is_done(&self) -> bool {
        self.nodes.is_empty()
    }

    /// No directory is left to be listed.
    pub fn is_listed(&self) -> bool {
        self.frontier.is_empty()
    }

    /// The path of a directory below DEST.
    pub fn path(&self, id: DirId) -> Vec<u8> {
        let mut parts = Vec::new();
        let mut at = id;
        while at != ROOT {
            let Some(node) = self.nodes.get(&at) else {
                break;
            };
            parts.push(&*node.name);
            at = node.parent;
        }
        parts.reverse();
        parts.join(&b'/')
    }

    /// Takes in what a list job found of `id`; its subdirectories become takeable.
    pub fn listed(&mut self, id: DirId, listing: Listing, merged: Vec<(Box<[u8]>, u16)>) {
        let node = self
            .nodes
            .get_mut(&id)
            .expect("listed directories are under way");
        for (index, entry) in listing.iter().enumerate() {
            if entry.meta.kind == Kind::Dir {
                node.subdirs.listing.push_entry(entry);
                node.subdirs
                    .indices
                    .push(u32::try_from(index).expect("limits bound a directory's entries"));
            }
        }
        node.subdirs.merged = merged;
        node.subdirs.known = vec![Known::Nothing; node.subdirs.indices.len()];
        node.footprint_bytes += listing.footprint_bytes();
        self.ahead_bytes += listing.footprint_bytes();
        node.progress = Progress::Listed { listing };
        node.open_count += u32::try_from(node.subdirs.indices.len()).expect("fewer than entries");
        if !node.subdirs.indices.is_empty() {
            self.frontier.push(id);
        }
        self.order.push_back(id);
    }

    /// The merge found that these subdirectories (by index in the full listing) differ in their
    /// own metadata, or are not there at all.
    pub fn subdirs_are(&mut self, id: DirId, indices: &[u32], known: Known) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        let subdirs = &mut node.subdirs;
        let mut children = Vec::new();
        for index in indices {
            let Ok(place) = subdirs.indices.binary_search(index) else {
                continue;
            };
            subdirs.known[place] = known;
            children.extend(subdirs.nodes.get(place).copied());
        }
        for child in children {
            if let Some(child) = self.nodes.get_mut(&child) {
                child.know(known);
            }
        }
    }

    /// Directories to list next: some siblings at once, none while the look-ahead is full.
    pub fn take_batch(&mut self) -> Vec<SourceDir<D>> {
        let mut batch = Vec::new();
        let LookAhead {
            bytes_max,
            batch_dirs_max,
        } = self.look_ahead;
        let dirs_max = self.batch_dirs.min(batch_dirs_max);
        while batch.len() < dirs_max && self.ahead_bytes < bytes_max {
            let Some(parent) = self.frontier.last().copied() else {
                break;
            };
            match self.take_child(parent) {
                Some(dir) => batch.push(dir),
                None => {
                    self.frontier.pop();
                }
            }
        }
        if !batch.is_empty() {
            self.batch_dirs = dirs_max * 2;
        }
        batch
    }

    /// `None` when all of the parent's are taken; it may then be closed already, and gone.
    fn take_child(&mut self, parent: DirId) -> Option<SourceDir<D>> {
        let node = self.nodes.get_mut(&parent)?;
        let subdirs = &mut node.subdirs;
        let place = subdirs.taken;
        if place == subdirs.listing.len() {
            return None;
        }
        subdirs.taken += 1;
        let id = DirId(self.next_id);
        self.next_id += 1;
        subdirs.nodes.push(id);
        let entry = subdirs.listing.get(place);
        let name = entry.name.bytes();
        let merged = &subdirs.merged;
        let first = merged.partition_point(|(merged, _)| **merged < *name);
        let also = merged[first..]
            .iter()
            .take_while(|(merged, _)| **merged == *name)
            .map(|(_, origin)| *origin);
        let below = |origin: u16| Origin {
            dir: Arc::new(Dir::child(&node.origins[usize::from(origin)].dir, name)),
            is_listed: true,
        };
        let origins: Vec<_> = std::iter::once(entry.origin)
            .chain(also)
            .map(below)
            .collect();
        let mut child = Node {
            meta: Some(entry.meta),
            ..Node::new(parent, name, origins.clone())
        };
        child.know(subdirs.known[place]);
        self.nodes.insert(id, child);
        self.ahead_bytes += NODE_BYTES;
        Some(SourceDir::new(id, origins, Listing::default()))
    }

    /// Leaves a directory out with all below it: nothing of it is listed or sent.
    pub fn leave_out(&mut self, id: DirId) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        let left = node.subdirs.listing.len() - node.subdirs.taken;
        node.open_count -= u32::try_from(left).expect("fewer than entries");
        node.subdirs.taken = node.subdirs.listing.len();
    }

    /// All of a directory's entries are handed out. `release` follows.
    pub fn packed(&mut self, id: DirId) {
        let node = self
            .nodes
            .get_mut(&id)
            .expect("a directory that is packed is open");
        node.progress = Progress::Packed;
        node.subdirs.indices = Vec::new();
        self.give_back(id);
    }

    /// A large file of `id` is sent, or given up. `release` follows.
    pub fn large_ended(&mut self, id: DirId) {
        let node = self
            .nodes
            .get_mut(&id)
            .expect("its directory is open for it");
        node.larges_count -= 1;
        self.give_back(id);
    }

    /// Lets the scan go on by what a listing took that nobody needs any more. Were the listings not
    /// counted that large files wait in, a tree of nothing else would all be listed.
    fn give_back(&mut self, id: DirId) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        if node.larges_count == 0 && matches!(node.progress, Progress::Packed) {
            self.ahead_bytes -= std::mem::take(&mut node.footprint_bytes);
        }
    }

    /// One thing less keeps `id` open. The directories that are to be closed now, innermost
    /// first, go to `close`.
    pub fn release(&mut self, id: DirId, mut close: impl FnMut(DirId, Node<D>)) {
        let mut at = id;
        loop {
            let node = self.nodes.get_mut(&at).expect("an open directory is known");
            node.open_count -= 1;
            if node.open_count > 0 || !matches!(node.progress, Progress::Packed) {
                return;
            }
            let node = self.nodes.remove(&at).expect("looked up above");
            let parent = node.parent;
            if let Some(above) = self.nodes.get_mut(&parent) {
                above.is_touched |= node.is_new && !node.is_lost;
            }
            close(at, node);
            if at == ROOT {
                return;
            }
            at = parent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::Name;
    use crate::sim::{DiskOptions, SimClock, SimDisk};

    #[test]
    fn the_first_list_jobs_are_small_since_the_first_file_waits_for_them() {
        let disk = SimDisk::new(DiskOptions::default(), SimClock::default(), 1);
        let dir = disk.open_operator_dir(b"/").unwrap();
        let stat = disk.stat(&dir).unwrap();
        let origin = Origin {
            dir: Arc::new(Dir::root(b"", Arc::new(dir))),
            is_listed: true,
        };
        let mut scan: Scan<SimDisk> = Scan::new(vec![origin]);
        let mut listing = Listing::default();
        for number in 100..200 {
            listing.push(Name::new(number.to_string().as_bytes()).unwrap(), &stat);
        }
        scan.listed(ROOT, listing, Vec::new());
        let sizes: Vec<_> = std::iter::from_fn(|| Some(scan.take_batch().len()))
            .take(8)
            .collect();
        assert_eq!(sizes, [1, 2, 4, 8, 16, 32, 32, 5]);
    }
}
