//! `Matcher`: finds, chunk by chunk, which bytes of the new version the basis has.
//!
//! What is unchanged is looked at first: behind a block that matched, the next one is expected, and
//! one strong hash says whether it is there. Where it isn't, the block after it is tried in its place
//! beyond the gap, since most changes replace; a file of which pages were changed is matched without rolling
//! a byte. Otherwise the weak sum is rolled on until the filter of the [`Index`] lets one pass.
//!
//! # Work
//!
//! Each byte is rolled over at most once. Hashed it is at most four times, where every block that matches is
//! followed by one that doesn't (it, the block expected next, the one after, the first weak sum), and
//! up to [`FAILED_BYTES_PER_BYTE`] times more by blocks of the same weak sum that turn out to be
//! others. Honest files don't come near the latter; made ones that would go beyond it lose matches
//! instead. So a chunk of 256 KiB costs at most 2 MiB of hashing, some 0.2 ms.

use super::block_size::Layout;
use super::index::Index;
use super::rolling::{Rolling, State};
use super::strong::{Key, Strong};
use super::tokens::RunWriter;

/// Bytes hashed in vain, for candidates of the same weak sum, for each byte of literals. By accident
/// it is `blocks * block bytes / 2^32`: 0.25 for 1 GiB, 4 for 256 GiB.
pub const FAILED_BYTES_PER_BYTE: u64 = 4;
/// The same beforehand, in blocks.
const FAILED_BLOCKS_AHEAD: u64 = 64;
/// Blocks in a row that are expected in their place after one that was not. Longer gaps end where
/// the weak sum says.
const GUESSES_MAX: u32 = 16;
/// Bytes that are rolled before the budget is looked at.
const ROLL_BYTES_MAX: usize = 16 * 1024;

/// A chunk of the new version and what follows on it.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// To be matched now, of any length.
    pub here: &'a [u8],
    /// The bytes that follow: as many as a block has, or those up to the end.
    pub ahead: &'a [u8],
    /// The new version ends with `ahead`.
    pub is_end: bool,
}

/// Where a step has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// The budget is used up: call again with the same piece and writer.
    More,
    /// The runs make up the piece; next comes the one that follows on it.
    Runs,
    /// Nothing of the piece matched, or the runs don't fit: send it as it is.
    Plain,
}

/// What it cost, to be compared with the bytes that were matched.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Work {
    pub rolled_bytes: u64,
    /// By weak sums of whole windows, and by strong hashes.
    pub hashed_bytes: u64,
}

#[derive(Debug)]
pub struct Matcher {
    layout: Layout,
    key: Key,
    rolling: Rolling,
    /// The next byte, in `here`.
    at: usize,
    /// Where the bytes begin that matched nothing so far, in `here`.
    literal_from: usize,
    /// The weak sum of the block at `at`, where it is known.
    window: Option<Window>,
    expected: Option<Expected>,
    /// The rest of a copy that ends in the next piece.
    carried: Option<Carried>,
    /// Bytes that may be hashed in vain.
    spare: u64,
    work: Work,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    state: State,
    /// The index has no block for it.
    is_strange: bool,
}

/// The block that stands at `at` if nothing was moved since the last match.
#[derive(Clone, Copy, Debug)]
struct Expected {
    /// From the beginning of `here`; may lie behind it.
    at: usize,
    block: u64,
    /// Blocks before it, since the last match, that were not there.
    missed: u32,
    /// It was looked at, and isn't there.
    is_refuted: bool,
}

#[derive(Clone, Copy, Debug)]
struct Carried {
    basis_offset: u64,
    len: usize,
}

impl<'a> Piece<'a> {
    fn len(&self) -> usize {
        self.here.len() + self.ahead.len()
    }

    /// The `len` bytes at `at`, which begin in `here`.
    fn strong(&self, key: &Key, at: usize, len: usize) -> Strong {
        match self.two(at, len) {
            (block, []) => Strong::of(key, block),
            (first, rest) => Strong::of_two(key, first, rest),
        }
    }

    fn two(&self, at: usize, len: usize) -> (&'a [u8], &'a [u8]) {
        let end = at + len;
        match end.checked_sub(self.here.len()) {
            None | Some(0) => (&self.here[at..end], &[]),
            Some(beyond) => (&self.here[at..], &self.ahead[..beyond]),
        }
    }
}

impl Matcher {
    /// Begins with the first byte of the new version.
    pub fn new(layout: Layout, key: &Key) -> Self {
        Self {
            layout,
            key: *key,
            rolling: Rolling::new(key, layout.block()),
            at: 0,
            literal_from: 0,
            window: None,
            expected: Some(Expected {
                at: 0,
                block: 0,
                missed: 0,
                is_refuted: false,
            }),
            carried: None,
            spare: FAILED_BLOCKS_AHEAD * u64::from(layout.block().bytes()),
            work: Work::default(),
        }
    }

    pub fn work(&self) -> Work {
        self.work
    }

    /// Matches `piece` with what the index holds, until it is done or `budget_bytes` are used up, by at
    /// most a block and `ROLL_BYTES_MAX` more. What was used is taken off.
    ///
    /// # Panics
    /// When `ahead` is too short.
    pub fn step(
        &mut self,
        index: &Index,
        piece: &Piece<'_>,
        out: &mut RunWriter<'_>,
        budget_bytes: &mut usize,
    ) -> Turn {
        assert!(
            piece.is_end || piece.ahead.len() + 1 >= self.layout.block().byte_len(),
            "blocks that begin here can't be seen whole"
        );
        self.copy_carried(piece, out);
        while self.at < piece.here.len() {
            if *budget_bytes == 0 {
                return Turn::More;
            }
            let before = self.work.rolled_bytes + self.work.hashed_bytes;
            self.advance(index, piece, out);
            let used = self.work.rolled_bytes + self.work.hashed_bytes - before;
            *budget_bytes =
                budget_bytes.saturating_sub(usize::try_from(used).unwrap_or(usize::MAX));
        }
        self.finish(piece, out)
    }

    /// Takes at most a block, or rolls a while.
    fn advance(&mut self, index: &Index, piece: &Piece<'_>, out: &mut RunWriter<'_>) {
        let block_len = self.layout.block().byte_len();
        if index.is_empty() {
            self.skip_to(piece.here.len());
            return;
        }
        if piece.len() - self.at < block_len {
            self.match_remainder(index, piece, out);
            return;
        }
        self.align_expected();
        let expected = self.expected.filter(|expected| expected.at == self.at);
        if let Some(expected) = expected
            && !expected.is_refuted
            && self.is_there(index, piece, self.at, expected.block)
        {
            self.take(piece, out, expected.block, block_len);
            return;
        }
        if let Some(block) = self.look_up(index, piece) {
            self.take(piece, out, block, block_len);
            return;
        }
        if let Some(expected) = expected {
            let next = expected.at + block_len;
            let is_seen = next < piece.here.len() && next + block_len <= piece.len();
            if is_seen && self.is_there(index, piece, next, expected.block + 1) {
                self.skip_to(next);
                self.take(piece, out, expected.block + 1, block_len);
                return;
            }
            self.expected = (expected.missed < GUESSES_MAX).then_some(Expected {
                at: next,
                block: expected.block + 1,
                missed: expected.missed + 1,
                is_refuted: is_seen,
            });
        }
        self.roll(index, piece);
    }

    /// Whether a block of the basis stands at `at`. One that is not held can't be.
    fn is_there(&mut self, index: &Index, piece: &Piece<'_>, at: usize, block: u64) -> bool {
        if block >= self.layout.full_blocks_count() {
            return false;
        }
        let Some(strong) = index.strong(block) else {
            return false;
        };
        let block_len = self.layout.block().byte_len();
        self.work.hashed_bytes += block_len as u64;
        piece.strong(&self.key, at, block_len) == strong
    }

    /// The block that stands at `at`, by its weak sum.
    fn look_up(&mut self, index: &Index, piece: &Piece<'_>) -> Option<u64> {
        let block_len = self.layout.block().byte_len();
        let window = match self.window {
            Some(window) => window,
            None => {
                let (first, rest) = piece.two(self.at, block_len);
                self.work.hashed_bytes += block_len as u64;
                Window {
                    state: self.rolling.append(self.rolling.sum(first), rest),
                    is_strange: false,
                }
            }
        };
        self.window = Some(Window {
            is_strange: true,
            ..window
        });
        let weak = window.state.weak();
        if window.is_strange || !index.holds(weak) {
            return None;
        }
        if self.spare < block_len as u64 {
            return None;
        }
        self.work.hashed_bytes += block_len as u64;
        let strong = Some(piece.strong(&self.key, self.at, block_len));
        let found = index
            .candidates(weak)
            .find(|block| index.strong(*block) == strong);
        if found.is_none() {
            self.spare -= block_len as u64;
        }
        found
    }

    /// Moves the window on, to where the filter lets it pass or a block is expected.
    fn roll(&mut self, index: &Index, piece: &Piece<'_>) {
        let block_len = self.layout.block().byte_len();
        let here_len = piece.here.len();
        let Some(window) = &mut self.window else {
            unreachable!("it was looked up")
        };
        let stop = self
            .expected
            .map_or(here_len, |expected| expected.at)
            .min(here_len)
            .min(piece.len() - block_len)
            .min(self.at + ROLL_BYTES_MAX);
        if stop == self.at {
            // The last block that can be seen.
            self.skip_to(self.at + 1);
            return;
        }
        let behind = self.at + block_len;
        let count = stop - self.at;
        let ins = if behind < here_len {
            &piece.here[behind..here_len.min(behind + count)]
        } else {
            &piece.ahead[behind - here_len..][..count]
        };
        let outs = &piece.here[self.at..self.at + ins.len()];
        let filter = index.filter();
        let (moved, is_hit) = self.rolling.roll(
            &mut window.state,
            outs,
            ins,
            |weak| filter.may_hold(weak),
            |weak| index.holds(weak),
        );
        window.is_strange = !is_hit;
        self.at += moved;
        self.work.rolled_bytes += moved as u64;
        let ahead = FAILED_BLOCKS_AHEAD * block_len as u64;
        self.spare = (self.spare + FAILED_BYTES_PER_BYTE * moved as u64).min(ahead);
    }

    /// The end of the new version is shorter than a block: only the remainder may stand there.
    fn match_remainder(&mut self, index: &Index, piece: &Piece<'_>, out: &mut RunWriter<'_>) {
        let remainder_len = self.layout.remainder_bytes();
        let start = piece.len().checked_sub(remainder_len);
        let Some(start) = start.filter(|start| remainder_len > 0 && *start >= self.at) else {
            self.skip_to(piece.here.len());
            return;
        };
        if start >= piece.here.len() {
            self.skip_to(piece.here.len()); // It is looked for where it begins.
            return;
        }
        self.skip_to(start);
        let block = self.layout.blocks_count() - 1;
        self.work.hashed_bytes += remainder_len as u64;
        if index.strong(block) == Some(piece.strong(&self.key, start, remainder_len)) {
            self.take(piece, out, block, remainder_len);
        } else {
            self.skip_to(piece.here.len());
        }
    }

    /// Goes on at `at`; what is skipped is literal.
    fn skip_to(&mut self, at: usize) {
        self.at = at;
        self.window = None;
    }

    /// Copies a block that stands at `at`.
    fn take(&mut self, piece: &Piece<'_>, out: &mut RunWriter<'_>, block: u64, len: usize) {
        out.literal(&piece.here[self.literal_from..self.at]);
        let basis_offset = self.layout.span(block).start;
        let here_len = len.min(piece.here.len() - self.at);
        out.copy(basis_offset, here_len);
        if here_len < len {
            self.carried = Some(Carried {
                basis_offset: basis_offset + here_len as u64,
                len: len - here_len,
            });
        }
        self.expected = Some(Expected {
            at: self.at + len,
            block: block + 1,
            missed: 0,
            is_refuted: false,
        });
        self.skip_to(self.at + here_len);
        self.literal_from = self.at;
    }

    fn copy_carried(&mut self, piece: &Piece<'_>, out: &mut RunWriter<'_>) {
        let Some(Carried { basis_offset, len }) = self.carried.take() else {
            return;
        };
        let here_len = len.min(piece.here.len());
        if here_len > 0 {
            out.copy(basis_offset, here_len);
        }
        if here_len < len {
            self.carried = Some(Carried {
                basis_offset: basis_offset + here_len as u64,
                len: len - here_len,
            });
        }
        self.at = here_len;
        self.literal_from = here_len;
    }

    /// Goes on behind a piece of so many bytes that needs no runs.
    pub fn pass(&mut self, here_len: usize) {
        if let Some(carried) = self.carried.take()
            && carried.len > here_len
        {
            self.carried = Some(Carried {
                basis_offset: carried.basis_offset + here_len as u64,
                len: carried.len - here_len,
            });
        }
        self.skip_to(here_len);
        self.begin_next(here_len);
    }

    fn finish(&mut self, piece: &Piece<'_>, out: &mut RunWriter<'_>) -> Turn {
        let is_plain = out.copied_bytes() == 0;
        if !is_plain {
            out.literal(&piece.here[self.literal_from..]);
        }
        self.begin_next(piece.here.len());
        if is_plain || out.is_over() {
            Turn::Plain
        } else {
            Turn::Runs
        }
    }

    /// The piece that follows on one of so many bytes is the next.
    fn begin_next(&mut self, here_len: usize) {
        self.align_expected();
        if let Some(expected) = &mut self.expected {
            expected.at -= here_len;
        }
        self.at = 0;
        self.literal_from = 0;
    }

    /// A block that was expected before `at` was passed; then one of those after it is.
    fn align_expected(&mut self) {
        let block = self.layout.block();
        if let Some(expected) = &mut self.expected
            && let Some(passed) = self.at.checked_sub(expected.at)
            && passed > 0
        {
            let blocks = passed.div_ceil(block.byte_len());
            expected.at += blocks * block.byte_len();
            expected.block += blocks as u64;
            expected.is_refuted = false;
        }
    }
}
