//! A push that goes by content: which files are asked for and read next, and what the two digests of
//! each come to.
//!
//! Only files that have one name and one size on both sides are read, each side its own, and at the same
//! time. The target can't know by itself which those are: it would have to read all that it has, for the
//! digests to stand in its LISTING, where a large file would keep back the listings behind it as well. So the
//! source asks for them when it has merged a LISTING, and there is no flag in HELLO for it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::generator::{Deletes, Unsure};
use super::scan::{Progress, Scan};
use crate::delta::strong::{ContentDigest, Key};
use crate::job::digest::{Cache, DigestFiles};
use crate::job::dir::FdCache;
use crate::job::read_pack::DirPlan;
use crate::limits::{
    CHECK_FILES_MAX, CHECKS_WAITING_MAX, DIGEST_BUDGET_BYTES, DIGEST_JOBS_MAX, DIGEST_OPEN_BYTES,
};
use crate::model::id::DirId;
use crate::model::listing::Listing;
use crate::model::report::Change;
use crate::ops::Disk;
use crate::wire::WireError;
use crate::wire::check::{CHECK_ITEM_BYTES_MAX, CheckItem, decode_digests};
use crate::wire::cursor::Writer;

/// A merged directory, some of whose files wait for their verdicts.
pub struct Checking<D: Disk> {
    plan: DirPlan<D>,
    deletes: Deletes,
    /// Sorted by their indices.
    unsure: Vec<Unsure>,
    /// Of these, so many were asked for, from the front on.
    asked: usize,
    /// And of so many the verdict is still out.
    left: usize,
}

impl<D: Disk> Checking<D> {
    pub fn new(plan: DirPlan<D>, deletes: Deletes, unsure: Vec<Unsure>) -> Self {
        Self {
            plan,
            deletes,
            asked: 0,
            left: unsure.len(),
            unsure,
        }
    }

    pub fn is_settled(&self) -> bool {
        self.left == 0
    }

    /// The file at `index` was compared.
    pub fn settle(&mut self, index: u32, is_same: bool) {
        let at = self.unsure.binary_search_by_key(&index, |file| file.index);
        self.unsure[at.expect("it was asked for")].settle(is_same);
        self.left -= 1;
    }

    /// What comes after it, once all is settled. `each` hears of the files that change.
    pub fn ready(self, each: &mut impl FnMut(&Listing, usize, Change)) -> Progress<D> {
        assert!(self.is_settled());
        let Self {
            mut plan,
            deletes,
            unsure,
            ..
        } = self;
        let has_bases = plan.bases.len();
        for file in unsure {
            let (verdict, change, basis_bytes) = file.decide();
            let index = file.index as usize;
            plan.verdicts[index] = verdict;
            if let Some(bytes) = basis_bytes {
                plan.bases.push((file.index, bytes));
            }
            if let Some(change) = change {
                each(&plan.listing, index, change);
            }
        }
        if has_bases < plan.bases.len() {
            plan.bases.sort_unstable_by_key(|(index, _)| *index);
        }
        Progress::Ready {
            plan: Arc::new(plan),
            deletes,
            next: 0,
        }
    }
}

/// How much one CHECK asks for. The simulator draws less.
#[derive(Clone, Copy, Debug)]
pub struct CheckBounds {
    pub files_max: usize,
    /// Bytes of files at which it is full, and that a job reads before it goes back in line.
    pub budget_bytes: u64,
}

impl Default for CheckBounds {
    fn default() -> Self {
        Self {
            files_max: CHECK_FILES_MAX,
            budget_bytes: DIGEST_BUDGET_BYTES,
        }
    }
}

/// Files that one CHECK asks for.
struct Check {
    /// By directory and index, in the order of the items.
    files: Vec<(DirId, u32)>,
    ours: Option<Vec<Option<ContentDigest>>>,
    theirs: Option<Vec<Option<ContentDigest>>>,
}

pub struct Checks<D: Disk> {
    key: Key,
    pub bounds: CheckBounds,
    /// Directories with files that are still to be asked for.
    waiting: VecDeque<DirId>,
    /// By number.
    open: HashMap<u32, Check>,
    next_number: u32,
    /// What is to be read on this side, in turn.
    jobs: VecDeque<Box<DigestFiles<D>>>,
    running: usize,
}

impl<D: Disk> Checks<D> {
    pub fn new(key: &[u8; 32]) -> Self {
        Self {
            key: Key::new(key),
            bounds: CheckBounds::default(),
            waiting: VecDeque::new(),
            open: HashMap::new(),
            next_number: 0,
            jobs: VecDeque::new(),
            running: 0,
        }
    }

    /// A directory is in `Progress::Checking`.
    pub fn queue(&mut self, dir: DirId) {
        self.waiting.push_back(dir);
    }

    pub fn can_ask(&self) -> bool {
        !self.waiting.is_empty() && self.open.len() < CHECKS_WAITING_MAX
    }

    /// Writes the next CHECK. While none can be sent, more files wait for it: the slower the way, the
    /// fuller they are.
    pub fn ask(&mut self, scan: &mut Scan<D>, cache: &Arc<FdCache<D>>, writer: &mut Writer<'_>) {
        let number = self.next_number;
        self.next_number = number.wrapping_add(1);
        let bounds = self.bounds;
        let cache = Cache::Source(Arc::clone(cache));
        let mut job = DigestFiles::new(number, cache, self.key, bounds.budget_bytes);
        let (mut files, mut bytes) = (Vec::new(), 0);
        writer.u32(number);
        while let Some(&dir) = self.waiting.front() {
            let node = scan.node(dir).expect("open while it is checked");
            let Progress::Checking(checking) = &mut node.progress else {
                unreachable!("checked until all is settled")
            };
            let Checking {
                plan,
                unsure,
                asked,
                ..
            } = &mut **checking;
            while let Some(file) = unsure.get(*asked) {
                let is_full = files.len() == bounds.files_max
                    || bytes >= bounds.budget_bytes
                    || writer.room() < CHECK_ITEM_BYTES_MAX;
                if is_full {
                    break;
                }
                let entry = plan.listing.get(file.index as usize);
                let (name, size) = (entry.name, entry.size);
                CheckItem { dir, size, name }.encode(writer);
                let listed = Some(entry.meta.mtime);
                job.push(plan.origin(&entry), plan.source_name(&entry), size, listed);
                files.push((dir, file.index));
                bytes = size.saturating_add(bytes + DIGEST_OPEN_BYTES);
                *asked += 1;
            }
            if *asked < unsure.len() {
                break;
            }
            self.waiting.pop_front();
        }
        let check = Check {
            files,
            ours: None,
            theirs: None,
        };
        self.open.insert(number, check);
        self.jobs.push_back(Box::new(job));
    }

    /// The next files to read here.
    pub fn next_job(&mut self) -> Option<Box<DigestFiles<D>>> {
        if self.running >= DIGEST_JOBS_MAX {
            return None;
        }
        let job = self.jobs.pop_front()?;
        self.running += 1;
        Some(job)
    }

    /// A job is back. Others come before one that has to go on. The number of a CHECK that has ended by it.
    pub fn came_back(&mut self, mut job: Box<DigestFiles<D>>) -> Option<u32> {
        self.running -= 1;
        if !job.is_finished() {
            self.jobs.push_back(job);
            return None;
        }
        let check = self
            .open
            .get_mut(&job.number)
            .expect("open until both know");
        check.ours = Some(std::mem::take(&mut job.digests));
        Some(job.number)
    }

    /// Takes in what the target found: the number of its CHECK.
    pub fn answered(&mut self, payload: &[u8]) -> Result<u32, WireError> {
        let (number, digests) = decode_digests(payload)?;
        let check = self
            .open
            .get_mut(&number)
            .filter(|check| check.theirs.is_none() && check.files.len() == digests.len());
        let check = check.ok_or(WireError::UnknownCheck(number))?;
        let digests = digests.into_iter();
        check.theirs = Some(digests.map(|digest| digest.map(ContentDigest)).collect());
        Ok(number)
    }

    /// The files of a CHECK that both sides have read, and whether they are the same.
    pub fn take_compared(
        &mut self,
        number: u32,
    ) -> Option<impl Iterator<Item = (DirId, u32, bool)> + use<D>> {
        let check = self.open.get(&number)?;
        if check.ours.is_none() || check.theirs.is_none() {
            return None;
        }
        let Check {
            files,
            ours,
            theirs,
        } = self.open.remove(&number)?;
        let pairs = ours?.into_iter().zip(theirs?);
        let are_same = pairs.map(|(ours, theirs)| ours.is_some() && ours == theirs);
        let files = files.into_iter().zip(are_same);
        Some(files.map(|((dir, index), is_same)| (dir, index, is_same)))
    }
}
