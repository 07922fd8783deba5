//! `BlockSize` and `Layout`: how a basis file is cut into blocks.

use std::ops::Range;

use crate::limits::{DELTA_BLOCK_BYTES_MAX, DELTA_BLOCK_BYTES_MIN};

/// Bytes of a block: a power of two, so that blocks and chunks, pages and blocks share their edges.
///
/// What travels is the signature, `s` bytes for each block, and about one block beside each change:
/// `N/B * s + k * (e + B)` for `k` changes of `e` bytes in a file of `N`. That is least at
/// `B = sqrt(N * s / k)`. Here `s` is 12; `k` nobody knows beforehand.
///
/// A plain square root (rsync's, up to 128 KiB) bets on 12 changes whatever the size: with 1,000
/// changed pages in 1 GiB its blocks of 32 KiB make 36 MB of literals beside a signature of less than one. This
/// is the bet of one change for 1.3 MiB up to 1 GiB, and of 768 changes above: `B = sqrt(N) / 8`, rounded
/// up, not below a page. Where nothing changed it loses the signature, `96 * sqrt(N)` bytes: 3 MiB for 1 GiB, 12
/// for 16 GiB, 96 for 1 TiB.
///
/// | 1 GiB, 1,000 changes of 4 KiB, 1 MiB inserted | signature | literals, pages | literals, anywhere |
/// |---|---|---|---|
/// | B = 2 KiB | 6.3 MB | 5.1 MB | 7.2 MB |
/// | **4 KiB** | 3.1 MB | 5.1 MB | 9.2 MB |
/// | 8 KiB | 1.6 MB | 9.2 MB | 13.3 MB |
/// | 32 KiB (rsync's) | 0.4 MB | 33.8 MB | 37.9 MB |
///
/// "Pages": each change is one page of the file, as a database makes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct BlockSize(u32);

impl BlockSize {
    /// The size for a basis file, whoever chooses.
    pub fn of_basis(basis_bytes: u64) -> Self {
        let mut bytes = DELTA_BLOCK_BYTES_MIN;
        while bytes < DELTA_BLOCK_BYTES_MAX && u64::from(bytes).pow(2) < basis_bytes.div_ceil(64) {
            bytes *= 2;
        }
        Self(bytes)
    }

    /// What a peer wants or says; `None` where it may not. Smaller than `of_basis` is refused: the
    /// work and the memory of the other side grow with the number of blocks.
    pub fn of_peer(bytes: u32, basis_bytes: u64) -> Option<Self> {
        let least = Self::of_basis(basis_bytes);
        let is_legal =
            bytes.is_power_of_two() && (least.0..=DELTA_BLOCK_BYTES_MAX).contains(&bytes);
        is_legal.then_some(Self(bytes))
    }

    /// Any size, for tests of what does not depend on it.
    #[cfg(test)]
    pub(super) fn any(bytes: u32) -> Self {
        Self(bytes)
    }

    pub fn bytes(self) -> u32 {
        self.0
    }

    /// The same, of slices.
    pub fn byte_len(self) -> usize {
        self.0 as usize
    }
}

/// A basis file as blocks: all of one size, but the last, the *remainder*, may be shorter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    basis_bytes: u64,
    block: BlockSize,
}

impl Layout {
    pub fn new(basis_bytes: u64, block: BlockSize) -> Self {
        Self { basis_bytes, block }
    }

    pub fn basis_bytes(&self) -> u64 {
        self.basis_bytes
    }

    pub fn block(&self) -> BlockSize {
        self.block
    }

    /// All blocks, the remainder included.
    pub fn blocks_count(&self) -> u64 {
        self.basis_bytes.div_ceil(u64::from(self.block.0))
    }

    /// Blocks of the full size.
    pub fn full_blocks_count(&self) -> u64 {
        self.basis_bytes / u64::from(self.block.0)
    }

    /// Bytes of the remainder; 0: the last block is a full one.
    pub fn remainder_bytes(&self) -> usize {
        usize::try_from(self.basis_bytes % u64::from(self.block.0)).expect("less than a block")
    }

    /// Where a block stands in the basis.
    ///
    /// # Panics
    /// When there is no such block.
    pub fn span(&self, block: u64) -> Range<u64> {
        assert!(block < self.blocks_count(), "no such block");
        let start = block * u64::from(self.block.0);
        start..(start + u64::from(self.block.0)).min(self.basis_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{CHUNK_BYTES, DELTA_WINDOW_BLOCKS};

    #[test]
    fn blocks_grow_with_the_root_of_the_file() {
        for (basis, block) in [
            (0, 4096),
            (1, 4096),
            (1 << 30, 4096),
            ((1 << 30) + 1, 8192),
            (4 << 30, 8192),
            (1 << 40, 131_072),
            (u64::MAX, 262_144),
        ] {
            assert_eq!(BlockSize::of_basis(basis).bytes(), block, "{basis}");
        }
    }

    #[test]
    fn two_gib_fit_into_one_window() {
        for basis in [1, 1 << 30, (1 << 30) + 1, (2 << 30) - 1, 2 << 30] {
            let layout = Layout::new(basis, BlockSize::of_basis(basis));
            assert!(layout.blocks_count() <= DELTA_WINDOW_BLOCKS as u64);
        }
    }

    #[test]
    fn a_peer_gets_no_smaller_blocks_than_the_file_deserves() {
        assert_eq!(BlockSize::of_peer(4096, 1 << 40), None);
        for odd in [0, 1, 512, 2048, 4095, 5000, 1 << 19, 1 << 31] {
            assert_eq!(BlockSize::of_peer(odd, 1 << 20), None, "{odd}");
        }
        assert_eq!(BlockSize::of_peer(8192, 1), Some(BlockSize(8192)));
        assert!(CHUNK_BYTES.is_multiple_of(BlockSize::of_peer(8192, 1).unwrap().byte_len()));
    }

    #[test]
    fn spans_cover_the_basis_once() {
        for basis in [0, 1, 4095, 4096, 4097, 12_288, 12_289] {
            let layout = Layout::new(basis, BlockSize(4096));
            let mut at = 0;
            for block in 0..layout.blocks_count() {
                assert_eq!(layout.span(block).start, at);
                at = layout.span(block).end;
            }
            assert_eq!(at, basis);
        }
        assert_eq!(Layout::new(4097, BlockSize(4096)).remainder_bytes(), 1);
        assert_eq!(Layout::new(8192, BlockSize(4096)).remainder_bytes(), 0);
    }
}
