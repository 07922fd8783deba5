//! The signature: the sums of a basis, written by `Builder` at the target and read as `Sums` at
//! the source.
//!
//! ```text
//!  0      4        12
//!  | weak | strong | the next block ...
//!  | u32  | 8      |
//! ```

use std::ops::Range;

use super::block_size::Layout;
use super::rolling::{Rolling, State, Weak};
use super::strong::{Key, STRONG_BYTES, Strong, StrongHasher};

/// Bytes of one block's sums.
pub const SUM_BYTES: usize = 4 + STRONG_BYTES;

/// Why a signature is not one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SignatureError {
    #[error("a signature ends in the middle of a block's sums")]
    CutShort,
    #[error("a signature of blocks {first} to {end} of a basis that has {blocks_count}")]
    BeyondBasis {
        first: u64,
        end: u64,
        blocks_count: u64,
    },
}

/// Sums the blocks of a basis that is read from front to back, in slices of any cut.
#[derive(Debug)]
pub struct Builder {
    layout: Layout,
    key: Key,
    rolling: Rolling,
    /// The block whose bytes come next.
    block: u64,
    begun: Option<Begun>,
}

/// A block that came in pieces so far. Its bytes are summed and gone.
#[derive(Debug)]
struct Begun {
    len: usize,
    weak: State,
    strong: StrongHasher,
}

/// What a builder did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Built {
    /// Bytes of the basis that were summed.
    pub read_bytes: usize,
    /// Bytes of sums that were written.
    pub written_bytes: usize,
}

impl Builder {
    /// Begins with block `first`, so with the basis from `layout.span(first).start` on.
    pub fn new(layout: Layout, key: &Key, first: u64) -> Self {
        Self {
            layout,
            key: *key,
            rolling: Rolling::new(key, layout.block()),
            block: first,
            begun: None,
        }
    }

    /// The block whose sums are written next.
    pub fn next_block(&self) -> u64 {
        self.block
    }

    /// Sums what `basis` holds next and writes the sums of whole blocks to the front of `out`,
    /// until either is used up. Takes nothing beyond the end of the basis.
    pub fn build(&mut self, basis: &[u8], out: &mut [u8]) -> Built {
        let mut rest = basis;
        let mut written_bytes = 0;
        while !rest.is_empty() && self.block < self.layout.blocks_count() {
            let Some(sums) = out
                .get_mut(written_bytes..)
                .and_then(|room| room.first_chunk_mut::<SUM_BYTES>())
            else {
                break;
            };
            let span = self.layout.span(self.block);
            let block_bytes = usize::try_from(span.end - span.start).expect("at most a chunk");
            let begun_bytes = self.begun.as_ref().map_or(0, |begun| begun.len);
            let (piece, after) = rest.split_at(rest.len().min(block_bytes - begun_bytes));
            rest = after;
            let (weak, strong) = if piece.len() == block_bytes {
                (self.rolling.sum(piece).weak(), Strong::of(&self.key, piece))
            } else {
                let mut begun = self.begun.take().unwrap_or_else(|| Begun {
                    len: 0,
                    weak: State::default(),
                    strong: StrongHasher::new(&self.key),
                });
                begun.len += piece.len();
                begun.weak = self.rolling.append(begun.weak, piece);
                begun.strong.append(piece);
                if begun.len < block_bytes {
                    self.begun = Some(begun);
                    break;
                }
                (begun.weak.weak(), begun.strong.finish())
            };
            sums[..4].copy_from_slice(&weak.0.to_le_bytes());
            sums[4..].copy_from_slice(&strong.0);
            written_bytes += SUM_BYTES;
            self.block += 1;
        }
        Built {
            read_bytes: basis.len() - rest.len(),
            written_bytes,
        }
    }
}

/// The sums of consecutive blocks, as they came.
#[derive(Clone, Copy, Debug)]
pub struct Sums<'a> {
    first: u64,
    sums: &'a [[u8; SUM_BYTES]],
}

impl<'a> Sums<'a> {
    /// Reads the sums of the blocks from `first` on.
    pub fn decode(bytes: &'a [u8], first: u64, layout: &Layout) -> Result<Self, SignatureError> {
        let (sums, rest) = bytes.as_chunks::<SUM_BYTES>();
        if !rest.is_empty() {
            return Err(SignatureError::CutShort);
        }
        let end = first.saturating_add(sums.len() as u64);
        let blocks_count = layout.blocks_count();
        if end > blocks_count {
            return Err(SignatureError::BeyondBasis {
                first,
                end,
                blocks_count,
            });
        }
        Ok(Self { first, sums })
    }

    /// The blocks they are of.
    pub fn range(&self) -> Range<u64> {
        self.first..self.first + self.sums.len() as u64
    }

    pub fn iter(&self) -> impl Iterator<Item = (Weak, Strong)> + use<'a> {
        self.sums.iter().map(|sums| {
            let (weak, strong) = sums.split_first_chunk().expect("12 bytes");
            let strong = strong.first_chunk().expect("8 of them");
            (Weak(u32::from_le_bytes(*weak)), Strong(*strong))
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::cast_possible_truncation, reason = "a test's small numbers")]

    use super::*;
    use crate::delta::block_size::BlockSize;
    use crate::sim::prng::Prng;

    #[test]
    fn any_cut_of_the_basis_and_of_the_room_gives_the_same_sums() {
        let mut prng = Prng::new(11);
        for _ in 0..300 {
            let block = BlockSize::any(prng.skewed(600) as u32);
            let mut basis = vec![0; prng.index(4000)];
            prng.fill(&mut basis);
            let layout = Layout::new(basis.len() as u64, block);
            let key = Key::new(&[5; 32]);
            let mut whole = vec![0; SUM_BYTES * basis.len().div_ceil(block.byte_len())];
            let built = Builder::new(layout, &key, 0).build(&basis, &mut whole);
            assert_eq!(
                (built.read_bytes, built.written_bytes),
                (basis.len(), whole.len())
            );

            let mut builder = Builder::new(layout, &key, 0);
            let mut sums = Vec::new();
            let mut at = 0;
            while at < basis.len() {
                let end = at + prng.index((basis.len() - at).min(900)) + 1;
                let mut room = vec![0; SUM_BYTES + prng.index(50)];
                let built = builder.build(&basis[at..end], &mut room);
                sums.extend_from_slice(&room[..built.written_bytes]);
                at += built.read_bytes;
            }
            assert_eq!(sums, whole);
            assert_eq!(builder.next_block(), layout.blocks_count());
            assert_eq!(
                builder
                    .build(b"more than there is", &mut [0; 99])
                    .read_bytes,
                0
            );

            let sums = Sums::decode(&whole, 0, &layout).unwrap();
            for ((weak, strong), bytes) in sums.iter().zip(basis.chunks(block.byte_len())) {
                assert_eq!(weak, Rolling::new(&key, block).sum(bytes).weak());
                assert_eq!(strong, Strong::of(&key, bytes));
            }
        }
    }

    #[test]
    fn a_builder_may_begin_anywhere() {
        let layout = Layout::new(10_000, BlockSize::any(1000));
        let basis: Vec<u8> = (0..10_000_u32).map(|at| (at / 7) as u8).collect();
        let key = Key::new(&[6; 32]);
        let (mut all, mut some) = ([0; 120], [0; 36]);
        Builder::new(layout, &key, 0).build(&basis, &mut all);
        Builder::new(layout, &key, 4).build(&basis[4000..], &mut some);
        assert_eq!(all[48..84], some);
    }

    #[test]
    fn sums_of_blocks_that_are_not_there_are_refused() {
        let layout = Layout::new(10_000, BlockSize::any(4096));
        let sums = [0; 3 * SUM_BYTES];
        assert!(Sums::decode(&sums, 0, &layout).is_ok());
        assert!(Sums::decode(&sums, 1, &layout).is_err());
        assert!(Sums::decode(&sums, u64::MAX, &layout).is_err());
        assert!(Sums::decode(&[0; 4 * SUM_BYTES], 0, &layout).is_err());
        assert_eq!(
            Sums::decode(&sums[1..], 0, &layout).unwrap_err(),
            SignatureError::CutShort
        );
        assert_eq!(Sums::decode(&[], 3, &layout).unwrap().range(), 3..3);
    }
}
