//! The files that go as deltas: whose sums to ask for, and which chunk to match next.

use std::collections::{HashMap, VecDeque};

use crate::delta::block_size::{BlockSize, Layout};
use crate::delta::signature::Sums;
use crate::delta::strong::Key;
use crate::job::matching::{MatchChunk, Matching};
use crate::limits::{
    DELTA_FILE_BYTES_MIN, DELTA_FILE_BYTES_MIN_FAR, DELTA_FILES_OPEN_MAX, DELTA_FILES_SHARE,
    DELTA_JOBS_MAX, DELTA_WINDOW_BLOCKS, LARGE_FILES_OPEN_MAX, SIGN_BYTES_MAX, SIGNS_WAITING_MAX,
};
use crate::model::entry::Stat;
use crate::model::id::FileId;
use crate::model::policy::Policy;
use crate::ops::Buf;
use crate::ops::Disk;
use crate::ops::disk::SharedFd;
use crate::wire::WireError;
use crate::wire::cursor::Writer;
use crate::wire::sign::{Ask, SIGN_ITEM_BYTES, Section};

/// Bytes of an index for each block that it holds.
const INDEX_BYTES_PER_BLOCK: usize = 32;

/// When files go as deltas, and how. The simulator draws smaller ones.
#[derive(Clone, Copy, Debug)]
pub struct DeltaRules {
    /// Bytes of both versions from which a file goes as a delta.
    pub bytes_min: u64,
    /// Blocks whose sums are held at once, of one file.
    pub window_blocks: usize,
    /// Bytes of a block, where the file's size doesn't ask for larger ones.
    pub block_bytes: Option<u32>,
    /// Files that are open at once, most of them waiting for their sums.
    pub open_max: usize,
    /// Of old versions no use is made, but of what arrived when a push broke off.
    pub only_partials: bool,
}

impl Default for DeltaRules {
    fn default() -> Self {
        Self {
            bytes_min: DELTA_FILE_BYTES_MIN,
            window_blocks: DELTA_WINDOW_BLOCKS,
            block_bytes: None,
            open_max: DELTA_FILES_OPEN_MAX,
            only_partials: false,
        }
    }
}

impl DeltaRules {
    /// For a process that may have so many open files; `is_far`: the target is on another host.
    pub fn of(policy: Policy, is_far: bool, open_files_max: Option<u64>) -> Self {
        let share = open_files_max.map_or(u64::MAX, |count| count / DELTA_FILES_SHARE);
        let share = usize::try_from(share).unwrap_or(usize::MAX);
        Self {
            bytes_min: if is_far {
                DELTA_FILE_BYTES_MIN_FAR
            } else {
                DELTA_FILE_BYTES_MIN
            },
            block_bytes: policy.block_bytes,
            open_max: share.clamp(LARGE_FILES_OPEN_MAX, DELTA_FILES_OPEN_MAX),
            only_partials: policy.whole_files,
            ..Self::default()
        }
    }
}

/// A file that is matched with its basis.
struct Open<D: Disk> {
    fd: SharedFd<D>,
    stat: Stat,
    basis_bytes: u64,
    /// The block whose sums are asked for next.
    next_ask: u64,
    /// `None`: a job has it.
    matching: Option<Box<Matching>>,
}

pub struct Deltas<D: Disk> {
    key: Key,
    rules: DeltaRules,
    /// New versions are written over their bases.
    in_place: bool,
    open: HashMap<FileId, Open<D>>,
    /// Files whose sums are to be asked for.
    wanting: VecDeque<FileId>,
    /// What was asked and not answered, of files that may have ended.
    asked: VecDeque<Ask>,
    /// Files of which a chunk can be matched, in turn.
    ready: VecDeque<FileId>,
    running: usize,
    /// Memory of jobs that ended, for the next ones.
    scratches: Vec<Vec<u8>>,
}

/// What an answer of the target means for its file.
pub enum Answered {
    /// Nothing yet, or nothing any more.
    Fine,
    /// The file has no basis after all.
    Whole(FileId),
}

impl<D: Disk> Deltas<D> {
    pub fn new(key: &[u8; 32], rules: DeltaRules, in_place: bool) -> Self {
        Self {
            key: Key::new(key),
            rules,
            in_place,
            open: HashMap::new(),
            wanting: VecDeque::new(),
            asked: VecDeque::new(),
            ready: VecDeque::new(),
            running: 0,
            scratches: Vec::new(),
        }
    }

    pub fn open_max(&self) -> usize {
        self.rules.open_max
    }

    pub fn bytes_min(&self) -> u64 {
        self.rules.bytes_min
    }

    /// The same for old versions; `None`: no use is made of them.
    pub fn old_bytes_min(&self) -> Option<u64> {
        (!self.rules.only_partials).then_some(self.rules.bytes_min)
    }

    /// How a basis of that size is cut.
    pub fn layout(&self, basis_bytes: u64) -> Layout {
        let wanted = self.rules.block_bytes;
        let wanted = wanted.and_then(|bytes| BlockSize::of_peer(bytes, basis_bytes));
        let block = wanted.unwrap_or_else(|| BlockSize::of_basis(basis_bytes));
        Layout::new(basis_bytes, block)
    }

    /// Bytes of memory for the sums of a basis, nearly.
    pub fn sums_bytes(&self, basis_bytes: u64) -> usize {
        let blocks = usize::try_from(self.layout(basis_bytes).blocks_count()).unwrap_or(usize::MAX);
        blocks.min(self.rules.window_blocks) * INDEX_BYTES_PER_BLOCK
    }

    /// BEGIN is on its way.
    pub fn begun(&mut self, file: FileId, fd: SharedFd<D>, stat: Stat, basis_bytes: u64) {
        let layout = self.layout(basis_bytes);
        let window_blocks = self.rules.window_blocks;
        let matching = Matching::new(layout, window_blocks, &self.key, self.in_place);
        let open = Open {
            fd,
            stat,
            basis_bytes,
            next_ask: 0,
            matching: Some(Box::new(matching)),
        };
        self.open.insert(file, open);
        self.wanting.push_back(file);
    }

    /// It goes whole from here on, or has ended.
    pub fn drop_file(&mut self, file: FileId) {
        self.open.remove(&file);
    }

    pub fn has_asks(&self) -> bool {
        self.asked.len() < SIGNS_WAITING_MAX
            && self.wanting.iter().any(|file| self.open.contains_key(file))
    }

    /// Asks for sums, as many as may wait for their answers.
    pub fn ask(&mut self, writer: &mut Writer<'_>) {
        while self.asked.len() < SIGNS_WAITING_MAX
            && writer.room() >= SIGN_ITEM_BYTES
            && let Some(file) = self.wanting.pop_front()
        {
            let Some(open) = self.open.get_mut(&file) else {
                continue;
            };
            let Some(matching) = &open.matching else {
                continue; // A chunk of it is matched: it wants nothing.
            };
            let index = &matching.index;
            let end = index.wanted().end;
            let count_max = SIGN_BYTES_MAX / u64::from(index.layout().block().bytes());
            let count = (end - open.next_ask).min(count_max);
            let ask = Ask {
                file,
                first: open.next_ask,
                count: u32::try_from(count).expect("at most 2048 blocks"),
            };
            ask.encode(writer);
            self.asked.push_back(ask);
            open.next_ask += count;
            if open.next_ask < end {
                self.wanting.push_back(file);
            }
        }
    }

    /// Takes in the target's next answer.
    pub fn answered(&mut self, section: &Section<'_>) -> Result<Answered, WireError> {
        let unknown = WireError::UnknownSignature(section.file.0);
        let ask = self.asked.pop_front().ok_or(unknown.clone())?;
        if (ask.file, ask.first) != (section.file, section.first) {
            return Err(unknown);
        }
        let Some(open) = self.open.get_mut(&ask.file) else {
            return Ok(Answered::Fine); // It has ended, or goes whole.
        };
        let matching = open.matching.as_mut();
        let matching = matching.expect("nothing is matched while sums are wanted");
        let index = &mut matching.index;
        let Some((basis_bytes, sums)) = section.sums else {
            return Ok(Answered::Whole(ask.file));
        };
        if basis_bytes != open.basis_bytes {
            return Ok(Answered::Whole(ask.file)); // It was changed since it was listed.
        }
        let sums = Sums::decode(sums, ask.first, index.layout())
            .ok()
            .filter(|sums| sums.range().end - sums.range().start == u64::from(ask.count))
            .ok_or(unknown)?;
        index.push(&sums);
        if index.wanted().is_empty() {
            self.ready.push_back(ask.file);
        }
        Ok(Answered::Fine)
    }

    pub fn has_chunk(&self) -> bool {
        self.running < DELTA_JOBS_MAX && self.ready.iter().any(|file| self.open.contains_key(file))
    }

    /// The next file of which a chunk is to be matched.
    pub fn next_file(&mut self) -> Option<FileId> {
        loop {
            let file = self.ready.pop_front()?;
            if self.open.contains_key(&file) {
                return Some(file);
            }
        }
    }

    /// Matches the chunk at `offset` of a file that `next_file` gave.
    pub fn job(&mut self, file: FileId, offset: u64, buf: Buf) -> MatchChunk<D> {
        let open = self.open.get_mut(&file).expect("next_file gave it");
        let matching = open.matching.take().expect("it was ready");
        self.running += 1;
        MatchChunk::new(
            (file, SharedFd::<D>::clone(&open.fd)),
            (offset, open.stat),
            matching,
            buf,
            self.scratches.pop().unwrap_or_default(),
        )
    }

    /// A chunk was matched, or could not be read.
    pub fn matched(&mut self, file: FileId, matching: Box<Matching>, scratch: Vec<u8>) {
        self.running -= 1;
        self.scratches.push(scratch);
        let Some(open) = self.open.get_mut(&file) else {
            return;
        };
        if matching.index.wanted().is_empty() {
            self.ready.push_back(file);
        } else {
            self.wanting.push_back(file);
        }
        open.matching = Some(matching);
    }
}
