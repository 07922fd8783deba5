//! The sender of large files: several at once, each read in chunks that are sent as they come.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::job::dir::FdCache;
use crate::job::large::OpenLarge;
use crate::job::owners::Met;
use crate::job::read_pack::{DirPlan, READS_PER_FILE_MAX};
use crate::limits::{CHUNK_BYTES, LARGE_FILES_OPEN_MAX};
use crate::model::entry::Stat;
use crate::model::id::FileId;
use crate::model::time::Moment;
use crate::ops::Disk;
use crate::ops::disk::SharedFd;
use crate::wire::head::FileDigest;

/// Chunks of one file that are being read at the same time: enough to hide a disk's latency,
/// few enough that eight files share the blocks of a session.
const READS_PER_FILE_IN_FLIGHT_MAX: u32 = 4;

/// A large file that is on its way.
pub struct Large<D: Disk> {
    pub plan: Arc<DirPlan<D>>,
    pub index: usize,
    /// Attempts before this one.
    tries: u32,
    state: State<D>,
}

/// A large file that is still to be opened.
struct Waiting<D: Disk> {
    plan: Arc<DirPlan<D>>,
    index: usize,
    tries: u32,
    /// Its size when it was left alone for a rest.
    seen_bytes: Option<u64>,
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
    Check { fd: SharedFd<D>, stat: Stat },
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
        }
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
}

impl<D: Disk> Default for Sender<D> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            resting: BTreeMap::new(),
            tired: Vec::new(),
            rests_count: 0,
            open: HashMap::new(),
            turns: VecDeque::new(),
            next_id: 1,
        }
    }
}

impl<D: Disk> Sender<D> {
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
        self.tired.push((
            rest,
            Waiting {
                plan: large.plan,
                index: large.index,
                tries: large.tries + 1,
                seen_bytes: Some(size),
            },
        ));
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
        if self.open.len() >= LARGE_FILES_OPEN_MAX {
            return None;
        }
        let Waiting {
            plan,
            index,
            tries,
            seen_bytes,
        } = self.waiting.pop_front()?;
        let file = FileId(self.next_id);
        self.next_id += 1;
        self.open.insert(
            file,
            Large {
                plan: Arc::clone(&plan),
                index,
                tries,
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

    pub fn opened(&mut self, file: FileId, fd: SharedFd<D>, stat: Stat) {
        let large = self.open.get_mut(&file).expect("open_next gave the id");
        large.state = State::Begun { fd, stat };
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
            large.state = State::Checking {
                digest: FileDigest::default(),
            };
            return After::Check { fd, stat };
        }
        large.state = State::Reading {
            fd,
            stat,
            next: 0,
            in_flight: 0,
            digest: FileDigest::default(),
            has_failed: false,
        };
        self.turns.push_back(file);
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
        After::Check { fd, stat }
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
        let digest = match &large.state {
            State::Checking { digest } if is_good => Some(*digest),
            State::Checking { .. }
            | State::Reading { .. }
            | State::Opening
            | State::Begun { .. } => None,
        };
        (large, digest)
    }

    /// Sends a file that changed under the reading once more; gives it back when it keeps changing.
    pub fn retry(&mut self, large: Large<D>) -> Option<Large<D>> {
        if large.tries + 1 >= READS_PER_FILE_MAX {
            return Some(large);
        }
        self.waiting.push_back(Waiting {
            plan: large.plan,
            index: large.index,
            tries: large.tries + 1,
            seen_bytes: None,
        });
        None
    }
}

impl<D: Disk> Large<D> {
    /// The target gave it up; that was told already.
    pub fn was_stopped(&self) -> bool {
        self.tries >= READS_PER_FILE_MAX
    }
}
