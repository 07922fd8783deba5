//! The sender of large files: several at once, each read in chunks that are sent as they come.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::delta::{Answered, Deltas};
use crate::job::dir::FdCache;
use crate::job::large::OpenLarge;
use crate::job::matching::MatchChunk;
use crate::job::owners::Met;
use crate::job::read_pack::{DirPlan, READS_PER_FILE_MAX};
use crate::limits::{
    CHUNK_BYTES, DELTA_ENDS_WAITING_MAX, DELTA_SUMS_BYTES_MAX, DELTA_SUMS_SHARE,
    LARGE_FILES_OPEN_MAX, SUM_BYTES,
};
use crate::model::entry::Stat;
use crate::model::id::FileId;
use crate::model::time::Moment;
use crate::ops::disk::SharedFd;
use crate::ops::{Buf, Disk};
use crate::wire::WireError;
use crate::wire::head::FileDigest;
use crate::wire::sign::{Section, chunk_bytes_at};

/// Chunks of one file that are being read at the same time: enough to hide a disk's latency,
/// few enough that eight files share the blocks of a session.
const READS_PER_FILE_IN_FLIGHT_MAX: u32 = 4;

/// A large file that is on its way.
pub struct Large<D: Disk> {
    pub plan: Arc<DirPlan<D>>,
    pub index: usize,
    /// Attempts before this one.
    tries: u32,
    /// Bytes of the target's file that it goes as a delta of.
    basis_bytes: Option<u64>,
    /// The target wants it again, whole.
    is_wrong: bool,
    state: State<D>,
}

/// A large file that is still to be opened.
struct Waiting<D: Disk> {
    plan: Arc<DirPlan<D>>,
    index: usize,
    tries: u32,
    /// Its size when it was left alone for a rest.
    seen_bytes: Option<u64>,
    /// It has no basis that could be trusted.
    is_whole: bool,
}

enum State<D: Disk> {
    /// A job opens it. Next: Begun.
    Opening,
    /// BEGIN waits for its place in the stream. Next: Reading.
    Begun { fd: SharedFd<D>, stat: Stat },
    Reading {
        fd: SharedFd<D>,
        stat: Stat,
        next: u64,
        in_flight: u32,
        digest: FileDigest,
        has_failed: bool,
    },
    /// A job looks at it once more.
    Checking { digest: FileDigest },
}

/// A chunk to read.
pub struct Chunk<D: Disk> {
    pub file: FileId,
    pub fd: SharedFd<D>,
    pub offset: u64,
    pub len: usize,
}

/// What comes after a chunk was read.
pub enum After<D: Disk> {
    /// Others are under way or to be read.
    More,
    /// All of it was read: look at it once more.
    Check {
        fd: SharedFd<D>,
        stat: Stat,
        digest: FileDigest,
    },
    /// It shrank, failed, or the target gave it up.
    Abandon,
}

impl<D: Disk> Waiting<D> {
    fn new(plan: &Arc<DirPlan<D>>, index: usize) -> Self {
        Self {
            plan: Arc::clone(plan),
            index,
            tries: 0,
            seen_bytes: None,
            is_whole: false,
        }
    }

    /// The next attempt at a file.
    fn again(large: Large<D>, tries: u32) -> Self {
        Self {
            plan: large.plan,
            index: large.index,
            tries,
            seen_bytes: None,
            is_whole: large.is_wrong,
        }
    }

    fn basis_bytes(&self) -> Option<u64> {
        self.plan.basis_bytes(self.index).filter(|_| !self.is_whole)
    }
}

pub struct Sender<D: Disk> {
    waiting: VecDeque<Waiting<D>>,
    /// Files that were written just now, by when they may be read; and those whose rest begins now.
    /// They are few: what is written within some milliseconds.
    resting: BTreeMap<(Moment, u32), Waiting<D>>,
    tired: Vec<(Duration, Waiting<D>)>,
    rests_count: u32,
    open: HashMap<FileId, Large<D>>,
    /// Files with chunks left to read, in turn.
    turns: VecDeque<FileId>,
    next_id: u32,
    /// `None`: all go whole.
    pub deltas: Option<Deltas<D>>,
    /// Files with a basis that were sent, until the target says that it is content with them.
    unsettled: HashMap<FileId, Large<D>>,
}

impl<D: Disk> Sender<D> {
    pub fn new(deltas: Option<Deltas<D>>) -> Self {
        Self {
            waiting: VecDeque::new(),
            resting: BTreeMap::new(),
            tired: Vec::new(),
            rests_count: 0,
            open: HashMap::new(),
            turns: VecDeque::new(),
            next_id: 1,
            deltas,
            unsettled: HashMap::new(),
        }
    }

    pub fn queue(&mut self, plan: &Arc<DirPlan<D>>, index: usize) {
        self.waiting.push_back(Waiting::new(plan, index));
    }

    /// As `queue`, for a file that is to be left alone for a while.
    pub fn queue_after(&mut self, plan: &Arc<DirPlan<D>>, index: usize, rest: Duration) {
        self.tired.push((rest, Waiting::new(plan, index)));
    }

    /// A file that was to be opened is left alone for a while.
    pub fn rest(&mut self, file: FileId, rest: Duration, size: u64) {
        let large = self.open.remove(&file).expect("open_next gave the id");
        let tries = large.tries + 1;
        let waiting = Waiting {
            seen_bytes: Some(size),
            ..Waiting::again(large, tries)
        };
        self.tired.push((rest, waiting));
    }

    /// When the next rest ends, as of the last `open_next`.
    pub fn wakes_at(&self) -> Option<Moment> {
        self.resting.keys().next().map(|(due, _)| *due)
    }

    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
            && self.resting.is_empty()
            && self.tired.is_empty()
            && self.open.is_empty()
            && self.unsettled.is_empty()
    }

    /// The next file to open, while few enough are.
    pub fn open_next(
        &mut self,
        now: Moment,
        cache: &Arc<FdCache<D>>,
        met: Option<&Arc<Met>>,
    ) -> Option<OpenLarge<D>> {
        for (rest, waiting) in self.tired.drain(..) {
            self.rests_count = self.rests_count.wrapping_add(1);
            let due = (now.plus(rest), self.rests_count);
            self.resting.insert(due, waiting);
        }
        while let Some(first) = self.resting.first_entry()
            && first.key().0 <= now
        {
            self.waiting.push_back(first.remove());
        }
        let is_full = self.unsettled.len() >= DELTA_ENDS_WAITING_MAX;
        if is_full || !self.has_room_for_next() || !self.has_room_for_sums() {
            return None;
        }
        let Waiting {
            plan,
            index,
            tries,
            seen_bytes,
            is_whole,
        } = self.waiting.pop_front()?;
        let basis_bytes = plan.basis_bytes(index).filter(|_| !is_whole);
        let file = FileId(self.next_id);
        self.next_id += 1;
        self.open.insert(
            file,
            Large {
                plan: Arc::clone(&plan),
                index,
                tries,
                basis_bytes,
                is_wrong: is_whole,
                state: State::Opening,
            },
        );
        Some(OpenLarge {
            file,
            plan,
            index,
            cache: Arc::clone(cache),
            met: met.cloned(),
            seen_bytes,
            is_last_try: tries + 1 >= READS_PER_FILE_MAX,
            opened: None,
        })
    }

    /// Whether the next file may be open beside those that are.
    fn has_room_for_next(&self) -> bool {
        let next_basis = self.waiting.front().and_then(Waiting::basis_bytes);
        let is_whole = |large: &&Large<D>| large.basis_bytes.is_none();
        match &self.deltas {
            Some(deltas) if self.open.len() >= deltas.open_max() => false,
            Some(_) if next_basis.is_some() => true,
            Some(_) => self.open.values().filter(is_whole).count() < LARGE_FILES_OPEN_MAX,
            None => self.open.len() < LARGE_FILES_OPEN_MAX,
        }
    }

    /// Whether the next file's sums fit beside those of the files that are open, or are the only ones.
    fn has_room_for_sums(&self) -> bool {
        let next_basis = self.waiting.front().and_then(Waiting::basis_bytes);
        let (Some(deltas), Some(next_bytes)) = (&self.deltas, next_basis) else {
            return true;
        };
        let open = self.open.values().filter_map(|large| large.basis_bytes);
        let held: usize = open.map(|bytes| deltas.sums_bytes(bytes)).sum();
        held == 0 || held + deltas.sums_bytes(next_bytes) <= DELTA_SUMS_BYTES_MAX
    }

    /// The size of the blocks of its basis; 0: it has none.
    pub fn opened(&mut self, file: FileId, fd: SharedFd<D>, stat: Stat) -> u32 {
        let large = self.open.get_mut(&file).expect("open_next gave the id");
        large.state = State::Begun { fd, stat };
        let deltas = self.deltas.as_ref();
        let deltas = deltas.filter(|deltas| stat.size >= deltas.bytes_min().max(1));
        large.basis_bytes = large
            .basis_bytes
            .zip(deltas)
            .map(|(bytes, deltas)| (bytes, deltas.layout(bytes).blocks_count()))
            .filter(|(_, blocks)| sums_are_small(*blocks, stat.size))
            .map(|(bytes, _)| bytes);
        large
            .basis_bytes
            .zip(deltas)
            .map_or(0, |(bytes, deltas)| deltas.layout(bytes).block().bytes())
    }

    /// BEGIN is on its way: DATA may follow. An empty file is to be checked at once.
    pub fn begun(&mut self, file: FileId) -> After<D> {
        let Some(large) = self.open.get_mut(&file) else {
            return After::More;
        };
        let State::Begun { fd, stat } = &large.state else {
            unreachable!("a file begins once")
        };
        let (fd, stat) = (Arc::clone(fd), *stat);
        if stat.size == 0 {
            let digest = FileDigest::default();
            large.state = State::Checking { digest };
            return After::Check { fd, stat, digest };
        }
        large.state = State::Reading {
            fd,
            stat,
            next: 0,
            in_flight: 0,
            digest: FileDigest::default(),
            has_failed: false,
        };
        match (large.basis_bytes, &mut self.deltas) {
            (Some(basis_bytes), Some(deltas)) => {
                let fd = large.state.fd().expect("it is read now");
                deltas.begun(file, fd, stat, basis_bytes);
            }
            _ => self.turns.push_back(file),
        }
        After::More
    }

    /// The next chunk to read, one file after the other.
    pub fn next_chunk(&mut self) -> Option<Chunk<D>> {
        for _ in 0..self.turns.len() {
            let file = self.turns.pop_front()?;
            let Some(Large {
                state:
                    State::Reading {
                        fd,
                        stat,
                        next,
                        in_flight,
                        has_failed,
                        ..
                    },
                ..
            }) = self.open.get_mut(&file)
            else {
                continue;
            };
            if *next >= stat.size || *has_failed {
                continue;
            }
            if *in_flight == READS_PER_FILE_IN_FLIGHT_MAX {
                self.turns.push_back(file);
                continue;
            }
            let offset = *next;
            let len = usize::try_from(stat.size - offset)
                .unwrap_or(usize::MAX)
                .min(CHUNK_BYTES);
            *next += len as u64;
            *in_flight += 1;
            let fd = Arc::clone(fd);
            self.turns.push_back(file);
            return Some(Chunk {
                file,
                fd,
                offset,
                len,
            });
        }
        None
    }

    /// The next chunk to match.
    pub fn next_match(&mut self, buf: Buf) -> Result<MatchChunk<D>, Buf> {
        let Some(deltas) = &mut self.deltas else {
            return Err(buf);
        };
        while let Some(file) = deltas.next_file() {
            let Some(Large {
                state:
                    State::Reading {
                        stat,
                        next,
                        in_flight,
                        has_failed: false,
                        ..
                    },
                ..
            }) = self.open.get_mut(&file)
            else {
                continue;
            };
            let Some(len) = chunk_bytes_at(*next, stat.size) else {
                continue;
            };
            let offset = *next;
            *next += len as u64;
            *in_flight += 1;
            return Ok(deltas.job(file, offset, buf));
        }
        Err(buf)
    }

    /// The target has answered for the sums of a file.
    pub fn signed(&mut self, section: &Section<'_>) -> Result<(), WireError> {
        let deltas = self.deltas.as_mut();
        let deltas = deltas.ok_or(WireError::UnknownSignature(section.file.0))?;
        if let Answered::Whole(file) = deltas.answered(section)? {
            deltas.drop_file(file);
            self.turns.push_back(file);
        }
        Ok(())
    }

    /// Whether some chunk could be read now.
    pub fn has_chunk(&self) -> bool {
        self.turns.iter().any(|file| {
            matches!(self.open.get(file), Some(Large { state: State::Reading { stat, next, in_flight, has_failed, .. }, .. })
                if *next < stat.size && *in_flight < READS_PER_FILE_IN_FLIGHT_MAX && !has_failed)
        })
    }

    /// A chunk was read: its digest, or `None` when it could not be read whole.
    pub fn chunk_read(
        &mut self,
        file: FileId,
        offset: u64,
        chunk_digest: Option<u128>,
    ) -> After<D> {
        let Some(large) = self.open.get_mut(&file) else {
            return After::More;
        };
        let State::Reading {
            fd,
            stat,
            next,
            in_flight,
            digest,
            has_failed,
        } = &mut large.state
        else {
            unreachable!("chunks are read while reading")
        };
        *in_flight -= 1;
        match chunk_digest {
            Some(chunk) => digest.add(offset, chunk),
            None => *has_failed = true,
        }
        if *in_flight > 0 {
            return After::More;
        }
        if *has_failed {
            return After::Abandon;
        }
        if *next < stat.size {
            return After::More;
        }
        let (fd, stat, digest) = (Arc::clone(fd), *stat, *digest);
        large.state = State::Checking { digest };
        After::Check { fd, stat, digest }
    }

    /// Whether so many zeros are a hole: all of the chunk that stands there, of a file that may have some.
    pub fn may_be_hole(&self, file: FileId, offset: u64, len: usize) -> bool {
        matches!(self.open.get(&file), Some(Large { state: State::Reading { stat, .. }, .. })
            if stat.is_sparse && chunk_bytes_at(offset, stat.size) == Some(len))
    }

    /// A file that goes as a delta, of which nobody has said yet that it is wrong.
    pub fn delta_of(&self, file: FileId) -> Option<&Large<D>> {
        let open = self.open.get(&file).filter(|large| large.is_good_delta());
        open.or_else(|| self.unsettled.get(&file))
    }

    /// The basis was not what its sums said: the file goes again, whole.
    pub fn wanted_again(&mut self, file: FileId) -> After<D> {
        if let Some(large) = self.unsettled.remove(&file) {
            self.send_whole(large);
            return After::More;
        }
        let open = self.open.get_mut(&file);
        let Some(large) = open.filter(|large| large.is_good_delta()) else {
            return After::More;
        };
        large.is_wrong = true;
        let State::Reading {
            in_flight,
            has_failed,
            ..
        } = &mut large.state
        else {
            return After::More; // Found out when it is looked at once more.
        };
        *has_failed = true;
        if *in_flight == 0 {
            After::Abandon
        } else {
            After::More
        }
    }

    fn send_whole(&mut self, large: Large<D>) {
        let tries = large.tries;
        self.waiting.push_back(Waiting {
            is_whole: true,
            ..Waiting::again(large, tries)
        });
    }

    /// Keeps a file that was sent as a delta until it is settled; gives back any other.
    pub fn keep(&mut self, file: FileId, large: Large<D>) -> Option<Large<D>> {
        if large.basis_bytes.is_none() || large.was_stopped() {
            return Some(large);
        }
        self.unsettled.insert(file, large);
        None
    }

    /// The target needs nothing more of a file that was sent as a delta.
    pub fn settled(&mut self, file: FileId) -> Option<Large<D>> {
        self.unsettled.remove(&file)
    }

    /// The target does not want the rest of it.
    pub fn stop(&mut self, file: FileId) -> After<D> {
        match self.open.get_mut(&file) {
            Some(Large {
                state:
                    State::Reading {
                        in_flight,
                        has_failed,
                        ..
                    },
                tries,
                ..
            }) => {
                *has_failed = true;
                *tries = READS_PER_FILE_MAX;
                if *in_flight == 0 {
                    After::Abandon
                } else {
                    After::More
                }
            }
            Some(Large { tries, .. }) => {
                *tries = READS_PER_FILE_MAX;
                After::More
            }
            None => After::More,
        }
    }

    /// Takes a file out. `is_good`: it was sent whole and did not change; then its digest.
    pub fn finish(&mut self, file: FileId, is_good: bool) -> (Large<D>, Option<FileDigest>) {
        let large = self.open.remove(&file).expect("finished once");
        if let Some(deltas) = &mut self.deltas {
            deltas.drop_file(file);
        }
        let is_wrong = large.is_wrong && large.basis_bytes.is_some();
        let digest = match &large.state {
            State::Checking { digest } if is_good && !is_wrong => Some(*digest),
            State::Checking { .. }
            | State::Reading { .. }
            | State::Opening
            | State::Begun { .. } => None,
        };
        (large, digest)
    }

    /// Sends a file that changed under the reading once more; gives it back when it keeps changing.
    pub fn retry(&mut self, large: Large<D>) -> Option<Large<D>> {
        if large.is_wrong && large.basis_bytes.is_some() {
            self.send_whole(large);
            return None;
        }
        if large.tries + 1 >= READS_PER_FILE_MAX {
            return Some(large);
        }
        let tries = large.tries + 1;
        self.waiting.push_back(Waiting::again(large, tries));
        None
    }
}

/// Whether the sums of so many blocks are worth having for a file of that size: nobody reads a basis of
/// a terabyte to spare some hundred kilobytes.
fn sums_are_small(blocks_count: u64, size: u64) -> bool {
    blocks_count.saturating_mul(SUM_BYTES as u64) <= size / DELTA_SUMS_SHARE
}

impl<D: Disk> State<D> {
    fn fd(&self) -> Option<SharedFd<D>> {
        match self {
            Self::Begun { fd, .. } | Self::Reading { fd, .. } => Some(Arc::clone(fd)),
            Self::Opening | Self::Checking { .. } => None,
        }
    }
}

impl<D: Disk> Large<D> {
    fn is_good_delta(&self) -> bool {
        self.basis_bytes.is_some() && !self.is_wrong
    }

    /// The target gave it up; that was told already.
    pub fn was_stopped(&self) -> bool {
        self.tries >= READS_PER_FILE_MAX
    }
}
