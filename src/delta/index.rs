//! `Index`: the sums of the basis that a source holds, and which blocks a weak sum may be.
//!
//! Flat arrays, 32 bytes a block at most, made once for a file and filled as the signature comes:
//!
//! ```text
//!   filter    4 bytes a block    "certainly not" for all but two of 1,000 weak sums; 1 MiB at most
//!   slots     16 bytes a block   weak sum → block, open addressing, half full
//!   weaks     4 bytes a block    by block, to fill the slots again when the window moves
//!   strongs   8 bytes a block    by block
//! ```
//!
//! # Windows
//!
//! Of a large basis it holds a window of [`DELTA_WINDOW_BLOCKS`] that goes along with the position
//! in the new version: at three quarters of it the first half is dropped, and as many blocks are to be
//! asked for behind ([`Index::wanted`]). Files up to 2 GiB fit whole. In larger ones content that moved
//! farther than the window reaches, at least a quarter of it to either side, travels again: 512 MiB for a
//! file of 4 GiB, 8 GiB for 1 TiB.
//!
//! # What a forger gets
//!
//! Blocks of one weak sum beyond `CANDIDATES_MAX`, and those that find no slot among
//! `PROBES_MAX`, are left out: they can only be matched where they follow on the block before.
//! Equal blocks are there once.

use std::ops::Range;

use super::block_size::Layout;
use super::rolling::Weak;
use super::signature::Sums;
use super::strong::{STRONG_BYTES, Strong};
use crate::limits::DELTA_WINDOW_BLOCKS;

/// Blocks with the same weak sum and different strong hashes that are looked at. Of 2^18 blocks by
/// chance two share one eight times in a file, and three hardly ever.
pub const CANDIDATES_MAX: usize = 4;
/// Slots that are looked at for one weak sum. At half full the longest row of 2^18 honest blocks
/// is about 65.
pub const PROBES_MAX: usize = 128;

/// Slots for each block of the window.
const SLOTS_PER_BLOCK: usize = 2;
/// Blocks whose bits share a word of the filter: 32 bits each, three of them set. With half as many
/// bits five times as many sums pass, each of which may miss the caches in the slots: 1 GiB of noise
/// was matched at 0.25 GB/s with 16 bits and at 0.27 with 32.
const BLOCKS_PER_WORD: usize = 2;

#[derive(Clone, Copy, Debug)]
struct Slot {
    weak: u32,
    /// Within the window, plus one; 0: free.
    block: u32,
}

const FREE: Slot = Slot { weak: 0, block: 0 };

#[derive(Debug)]
pub struct Index {
    layout: Layout,
    /// The first block of the window.
    first: u64,
    weaks: Vec<u32>,
    strongs: Vec<[u8; STRONG_BYTES]>,
    slots: Vec<Slot>,
    filter: Vec<u64>,
    /// Bits to shift a weak sum by for its word of the filter.
    word_shift: u32,
    window_blocks: usize,
}

impl Index {
    pub fn new(layout: Layout) -> Self {
        Self::with_window(layout, DELTA_WINDOW_BLOCKS)
    }

    /// An index with a smaller window.
    pub fn with_window(layout: Layout, window_max: usize) -> Self {
        let window_blocks = usize::try_from(layout.blocks_count())
            .unwrap_or(usize::MAX)
            .min(window_max);
        let words = window_blocks.div_ceil(BLOCKS_PER_WORD).next_power_of_two();
        Self {
            layout,
            first: 0,
            weaks: Vec::with_capacity(window_blocks),
            strongs: Vec::with_capacity(window_blocks),
            slots: vec![FREE; window_blocks * SLOTS_PER_BLOCK + 1 + PROBES_MAX],
            filter: vec![0; words.max(2)],
            word_shift: 32 - words.max(2).trailing_zeros(),
            window_blocks,
        }
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Bytes of memory it holds, all of them from the beginning.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.slots)
            + size_of_val(&*self.filter)
            + self.weaks.capacity() * size_of::<u32>()
            + self.strongs.capacity() * STRONG_BYTES
    }

    /// The blocks it holds.
    pub fn held(&self) -> Range<u64> {
        self.first..self.first + self.weaks.len() as u64
    }

    /// The blocks that may come next; empty: it needs none for now.
    pub fn wanted(&self) -> Range<u64> {
        let end = self.first + self.window_blocks as u64;
        self.held().end..end.min(self.layout.blocks_count())
    }

    /// Takes in the next blocks.
    ///
    /// # Panics
    /// When they are not the first of those wanted.
    pub fn push(&mut self, sums: &Sums<'_>) {
        let (wanted, range) = (self.wanted(), sums.range());
        assert!(range.start == wanted.start && range.end <= wanted.end);
        for (weak, strong) in sums.iter() {
            self.weaks.push(weak.0);
            self.strongs.push(strong.0);
            self.put(self.weaks.len() - 1);
        }
    }

    /// Goes along with the new version, of which `source_offset` comes next. True: the window has
    /// moved, and blocks are wanted.
    pub fn follow(&mut self, source_offset: u64) -> bool {
        let block = source_offset / u64::from(self.layout.block().bytes());
        let half = self.window_blocks / 2;
        let is_due = block >= self.first + (half + half / 2) as u64;
        let is_full = self.weaks.len() == self.window_blocks;
        if !(is_due && is_full && half > 0 && self.held().end < self.layout.blocks_count()) {
            return false;
        }
        self.weaks.drain(..half);
        self.strongs.drain(..half);
        self.first += half as u64;
        self.slots.fill(FREE);
        self.filter.fill(0);
        for at in 0..self.weaks.len() {
            self.put(at);
        }
        true
    }

    pub fn is_empty(&self) -> bool {
        self.weaks.is_empty()
    }

    /// The strong hash of a block, if it is held.
    pub fn strong(&self, block: u64) -> Option<Strong> {
        let at = usize::try_from(block.checked_sub(self.first)?).ok()?;
        self.strongs.get(at).map(|strong| Strong(*strong))
    }

    /// What says quickly that no block has a weak sum.
    pub fn filter(&self) -> Filter<'_> {
        Filter {
            words: &self.filter,
            word_shift: self.word_shift,
        }
    }

    /// Whether a full block has this weak sum.
    pub fn holds(&self, weak: Weak) -> bool {
        for slot in self.row(weak) {
            if slot.weak == weak.0 && slot.block != 0 {
                return true;
            }
            if slot.block == 0 {
                return false;
            }
        }
        false
    }

    /// Full blocks of this weak sum, each with another strong hash.
    pub fn candidates(&self, weak: Weak) -> impl Iterator<Item = u64> {
        self.row(weak)
            .iter()
            .take_while(|slot| slot.block != 0)
            .filter(move |slot| slot.weak == weak.0)
            .map(|slot| self.first + u64::from(slot.block) - 1)
    }

    fn put(&mut self, at: usize) {
        if self.first + at as u64 >= self.layout.full_blocks_count() {
            return; // The remainder is found by where it stands, at the end.
        }
        let weak = self.weaks[at];
        let mut alike = 0;
        let start = self.start(Weak(weak));
        for place in start..start + PROBES_MAX {
            let slot = self.slots[place];
            if slot.block == 0 {
                let block = u32::try_from(at + 1).expect("a window has few blocks");
                self.slots[place] = Slot { weak, block };
                self.filter[(weak >> self.word_shift) as usize] |= mask(Weak(weak));
                return;
            }
            if slot.weak == weak {
                alike += 1;
                if alike == CANDIDATES_MAX
                    || self.strongs[slot.block as usize - 1] == self.strongs[at]
                {
                    return;
                }
            }
        }
    }

    /// Where blocks of a weak sum may stand.
    fn row(&self, weak: Weak) -> &[Slot] {
        let start = self.start(weak);
        &self.slots[start..start + PROBES_MAX]
    }

    fn start(&self, weak: Weak) -> usize {
        let starts = (self.slots.len() - PROBES_MAX) as u64;
        usize::try_from((u64::from(weak.0) * starts) >> 32).expect("below the count of slots")
    }
}

/// Of each block three bits of one word: the word by the upper bits of its weak sum, the bits by
/// the lower.
#[derive(Clone, Copy, Debug)]
pub struct Filter<'a> {
    words: &'a [u64],
    word_shift: u32,
}

impl Filter<'_> {
    /// Whether any full block may have this weak sum.
    #[inline(always)]
    pub fn may_hold(self, weak: Weak) -> bool {
        // The mask changes nothing, but spares the check for the bounds.
        let word = (weak.0.wrapping_shr(self.word_shift) as usize) & (self.words.len() - 1);
        let mask = mask(weak);
        self.words[word] & mask == mask
    }
}

#[inline(always)]
fn mask(weak: Weak) -> u64 {
    MASKS[weak.0 as usize % MASKS.len()]
}

/// Masks of three bits, without order. To look one up takes a third of the instructions that
/// making one would; 8 KiB.
static MASKS: [u64; 1024] = {
    let mut masks = [0; 1024];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut at = 0;
    while at < masks.len() {
        let mut mask = 0_u64;
        while mask.count_ones() < 3 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            mask |= 1 << (state >> 58);
        }
        masks[at] = mask;
        at += 1;
    }
    masks
};

const _: () = assert!(DELTA_WINDOW_BLOCKS <= 1 << 30);

#[cfg(test)]
mod tests {
    #![expect(clippy::cast_possible_truncation, reason = "a test's small numbers")]

    use super::*;
    use crate::delta::block_size::BlockSize;
    use crate::delta::signature::SUM_BYTES;
    use crate::sim::prng::Prng;

    fn layout(blocks: u64) -> Layout {
        Layout::new(blocks * 4096, BlockSize::any(4096))
    }

    fn push(index: &mut Index, sums: &[(u32, u64)]) {
        let mut bytes = Vec::new();
        for (weak, strong) in sums {
            bytes.extend(weak.to_le_bytes());
            bytes.extend(strong.to_le_bytes());
        }
        let layout = *index.layout();
        let first = index.wanted().start;
        index.push(&Sums::decode(&bytes, first, &layout).unwrap());
    }

    #[test]
    fn every_honest_block_is_found_and_few_strangers_pass_the_filter() {
        let mut prng = Prng::new(5);
        let count = 1 << 16;
        let mut index = Index::new(layout(count));
        let sums: Vec<(u32, u64)> = (0..count).map(|at| (prng.next_u64() as u32, at)).collect();
        push(&mut index, &sums);
        for (weak, block) in &sums {
            assert!(index.filter().may_hold(Weak(*weak)));
            assert!(index.candidates(Weak(*weak)).any(|found| found == *block));
        }
        let passed = (0..100_000)
            .filter(|_| index.filter().may_hold(Weak(prng.next_u64() as u32)))
            .count();
        assert!(passed < 500, "{passed} of 100,000 strangers");
    }

    #[test]
    fn equal_blocks_are_there_once_and_forged_ones_a_few_times() {
        let mut index = Index::new(layout(3000));
        push(&mut index, &vec![(7, 7); 1000]);
        assert_eq!(index.candidates(Weak(7)).count(), 1);
        let forged: Vec<(u32, u64)> = (0..1000).map(|strong| (8, strong)).collect();
        push(&mut index, &forged);
        assert_eq!(index.candidates(Weak(8)).count(), CANDIDATES_MAX);
        // Different sums that want the same slot.
        let crowd: Vec<(u32, u64)> = (0..1000).map(|at| (1 << 31 | at, u64::from(at))).collect();
        push(&mut index, &crowd);
        let found = (0..1000)
            .filter(|at| index.candidates(Weak(1 << 31 | at)).count() > 0)
            .count();
        assert!(found <= PROBES_MAX);
    }

    #[test]
    fn the_window_follows_and_forgets() {
        let mut index = Index::with_window(layout(100), 16);
        assert_eq!(index.wanted(), 0..16);
        let sums = |range: Range<u32>| {
            range
                .map(|at| (at * 1000, u64::from(at)))
                .collect::<Vec<_>>()
        };
        push(&mut index, &sums(0..16));
        assert_eq!(index.wanted(), 16..16);
        assert!(!index.follow(11 * 4096 + 4095));
        assert!(index.follow(12 * 4096));
        assert_eq!((index.held(), index.wanted()), (8..16, 16..24));
        assert!(!index.follow(90 * 4096), "what is wanted comes first");
        push(&mut index, &sums(16..24));
        assert_eq!(index.candidates(Weak(7000)).count(), 0);
        assert_eq!(index.strong(7), None);
        assert_eq!(index.candidates(Weak(20_000)).collect::<Vec<_>>(), [20]);
        assert_eq!(index.strong(20), Some(Strong(20_u64.to_le_bytes())));
    }

    #[test]
    fn a_window_at_the_end_of_the_file_stays() {
        let mut index = Index::with_window(layout(20), 16);
        push(&mut index, &[(1, 1); 16]);
        assert!(index.follow(u64::MAX));
        push(&mut index, &[(1, 1); 4]);
        assert!(!index.follow(u64::MAX));
        assert_eq!(index.held(), 8..20);
    }

    #[test]
    fn memory_is_what_the_limit_says() {
        let index = Index::new(layout(1 << 40));
        assert!(index.memory_bytes() <= 32 * DELTA_WINDOW_BLOCKS + 2048);
        assert!(Index::new(layout(0)).memory_bytes() < 2048);
        assert_eq!(SUM_BYTES, 12);
    }
}
