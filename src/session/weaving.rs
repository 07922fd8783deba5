//! What a target has to do with the bases of files, in line: sums that were asked for, and chunks to be
//! put together; of either as many jobs at once as a pool has threads. Answers leave in the order of
//! the asks. The jobs don't write whole chunks: two threads that write to one file wait for its lock, by spinning,
//! which was a sixth of all CPU time. Of a file that is updated in place they write the few bytes that differ.

use std::collections::{HashMap, VecDeque};

use crate::delta::strong::Key;
use crate::job::basis::{Basis, Sign, Weave, Woven};
use crate::limits::{
    DELTA_BLOCK_BYTES_MIN, DELTA_JOBS_MAX, INCOMING_FILES_MAX, PAYLOAD_BYTES_MAX, SIGN_BYTES_MAX,
    SIGNS_WAITING_MAX, SUM_BYTES,
};
use crate::model::id::FileId;
use crate::ops::{Buf, Disk};
use crate::wire::WireError;
use crate::wire::cursor::Reader;
use crate::wire::sign::{Ask, SECTION_HEAD_BYTES};

/// A SIGNATURE: its block, and bytes of the payload in it.
type Answer = (Buf, usize);

pub struct Weaving<D: Disk> {
    key: Key,
    asks: VecDeque<Ask>,
    /// The block behind those that were asked for, by file: nothing is summed twice.
    asked_to: HashMap<FileId, u64>,
    /// Jobs that sum, in the order of their asks; `Some`: it has ended, and the answer waits for those
    /// before it. The number of the first.
    signing: VecDeque<Option<Answer>>,
    first_signing: u64,
    chunks: VecDeque<Box<Weave<D>>>,
    /// Chunks that are put together.
    running: usize,
    /// Memory of jobs that ended, for the next ones: a payload each.
    scratches: Vec<Box<[u8]>>,
}

impl<D: Disk> Default for Weaving<D> {
    fn default() -> Self {
        Self {
            key: Key::new(&[0; 32]),
            asks: VecDeque::new(),
            asked_to: HashMap::new(),
            signing: VecDeque::new(),
            first_signing: 0,
            chunks: VecDeque::new(),
            running: 0,
            scratches: Vec::new(),
        }
    }
}

impl<D: Disk> Weaving<D> {
    pub fn set_key(&mut self, key: &[u8; 32]) {
        self.key = Key::new(key);
    }

    /// Nothing waits and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.asks.is_empty()
            && self.signing.is_empty()
            && self.chunks.is_empty()
            && self.running == 0
    }

    /// Forgets what waits; the count of frames that were held for it.
    pub fn drop_waiting(&mut self) -> usize {
        self.asks.clear();
        self.chunks.drain(..).count()
    }

    /// Takes in a SIGN.
    pub fn asked(&mut self, payload: &[u8]) -> Result<(), WireError> {
        let mut reader = Reader::new(payload, "SIGN frame");
        while !reader.is_at_end() {
            if self.asks.len() >= SIGNS_WAITING_MAX {
                return Err(WireError::TooMany {
                    what: "asks for sums that wait",
                    max: SIGNS_WAITING_MAX,
                });
            }
            let ask = Ask::decode(&mut reader)?;
            let least = u64::from(ask.count) * u64::from(DELTA_BLOCK_BYTES_MIN);
            if least > SIGN_BYTES_MAX {
                return Err(WireError::TooMany {
                    what: "bytes of blocks to be summed at once",
                    max: usize::try_from(SIGN_BYTES_MAX).unwrap_or(usize::MAX),
                });
            }
            let known = self.asked_to.len();
            let next = self.asked_to.entry(ask.file).or_default();
            if ask.first < *next {
                return Err(WireError::Forbidden {
                    what: "first block of an ask behind the one before it",
                    value: ask.first,
                });
            }
            *next = ask.first + u64::from(ask.count);
            if known > INCOMING_FILES_MAX + SIGNS_WAITING_MAX {
                return Err(WireError::TooMany {
                    what: "files whose sums are asked for",
                    max: INCOMING_FILES_MAX + SIGNS_WAITING_MAX,
                });
            }
            self.asks.push_back(ask);
        }
        Ok(())
    }

    /// No file is under way: a session that idles keeps no memory for the next one.
    pub fn rest(&mut self) {
        self.scratches = Vec::new();
    }

    /// Nothing of this file is summed any more.
    pub fn ended(&mut self, file: FileId) {
        self.asked_to.remove(&file);
    }

    /// Whether sums can be made now. `basis_of` a file: none yet, and then the basis, if any.
    pub fn can_sign(&self, basis_of: impl Fn(FileId) -> Option<Option<Basis<D>>>) -> bool {
        let is_free = self.signing.len() < DELTA_JOBS_MAX;
        let first = self.asks.front().filter(|_| is_free);
        first.is_some_and(|ask| basis_of(ask.file).is_some())
    }

    /// The next asks, as many as one job may sum.
    pub fn next_sign(
        &mut self,
        buf: Buf,
        basis_of: impl Fn(FileId) -> Option<Option<Basis<D>>>,
    ) -> Box<Sign<D>> {
        let (mut read_bytes, mut payload_bytes) = (0, 0);
        let mut taken = Vec::new();
        while let Some(ask) = self.asks.front()
            && let Some(basis) = basis_of(ask.file)
        {
            if basis.is_none() {
                self.asked_to.remove(&ask.file);
            }
            // Of larger blocks than it may ask for of the smallest, it gets none.
            let basis = basis.filter(|basis| blocks_bytes(*ask, basis) <= SIGN_BYTES_MAX);
            read_bytes += basis.as_ref().map_or(0, |basis| blocks_bytes(*ask, basis));
            payload_bytes += SECTION_HEAD_BYTES + ask.count as usize * SUM_BYTES;
            let fits = read_bytes <= SIGN_BYTES_MAX && payload_bytes <= PAYLOAD_BYTES_MAX;
            if !fits && !taken.is_empty() {
                break;
            }
            taken.push((*ask, basis));
            self.asks.pop_front();
        }
        let number = self.first_signing + self.signing.len() as u64;
        self.signing.push_back(None);
        Box::new(Sign::new(number, taken, self.key, buf, self.scratch()))
    }

    fn scratch(&mut self) -> Box<[u8]> {
        let kept = self.scratches.pop();
        kept.unwrap_or_else(|| vec![0; PAYLOAD_BYTES_MAX].into())
    }

    /// Sums are made.
    pub fn signed(&mut self, job: Sign<D>) {
        self.scratches.push(job.scratch);
        let place = usize::try_from(job.number - self.first_signing).expect("a few at once");
        self.signing[place] = Some((job.buf, job.payload_bytes));
    }

    /// The next answer, when it is its turn.
    pub fn next_answer(&mut self) -> Option<Answer> {
        let answer = self.signing.front_mut()?.take()?;
        self.signing.pop_front();
        self.first_signing += 1;
        Some(answer)
    }

    pub fn weave(&mut self, job: Weave<D>) {
        self.chunks.push_back(Box::new(job));
    }

    pub fn next_weave(&mut self) -> Option<Box<Weave<D>>> {
        if self.running >= DELTA_JOBS_MAX {
            return None;
        }
        let mut job = self.chunks.pop_front()?;
        self.running += 1;
        job.scratch = self.scratch();
        Some(job)
    }

    /// What became of a chunk, and its block.
    pub fn woven(&mut self, job: Weave<D>) -> Option<(Woven, Buf)> {
        self.running -= 1;
        self.scratches.push(job.scratch);
        Some((job.woven?, job.buf))
    }
}

fn blocks_bytes<D: Disk>(ask: Ask, basis: &Basis<D>) -> u64 {
    u64::from(ask.count) * u64::from(basis.block.bytes())
}
