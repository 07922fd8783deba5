//! The delta: what a new version of a file shares with the old one, found without sending either.
//! Pure algorithms over slices: no disk, no frames, no clock, and no allocation per block.
//!
//! ```text
//!          target: has the basis                        source: has the new version
//!
//!   basis ──▶ signature::Builder ── sums of blocks ──▶ index::Index
//!                                                          │
//!                                                          ▼
//!   basis ──▶ apply::check ◀── runs of each chunk ─── matcher::Matcher ◀── chunks read
//!     └─────▶ copies and literals ──▶ the chunk, whose digest must agree
//! ```
//!
//! The basis is cut into blocks of one size ([`block_size`]). Of each the target sends a weak sum,
//! which can be rolled over the new version byte by byte ([`rolling`]), and a keyed strong hash
//! ([`strong`]), which decides. The source takes these into an [`index`], and the [`matcher`] says of
//! each chunk of the new version which bytes are copies and which have to be sent ([`tokens`]). Where
//! the new version overwrites its basis, only what stays in its place is a copy ([`aligned`]).
//!
//! # Rules
//!
//! - The **key** of both sums comes from the source, fresh for each session. Whoever made the files
//!   can't know it, so nobody prepares a basis and a new version whose blocks agree by design.
//! - A strong hash that agrees by accident is caught by the digest of the chunk; no hash here stands
//!   for a file. After that the chunk goes in full.
//! - Work is **linear whatever the bytes are**: each position has at most
//!   [`index::CANDIDATES_MAX`] candidates, each lookup at most [`index::PROBES_MAX`] slots, and
//!   candidates that fail have a budget ([`matcher::FAILED_BYTES_PER_BYTE`]).
//! - Memory is bounded by [`DELTA_WINDOW_BLOCKS`], whatever the size of the file.
//!
//! [`DELTA_WINDOW_BLOCKS`]: crate::limits::DELTA_WINDOW_BLOCKS

pub mod aligned;
pub mod apply;
pub mod block_size;
pub mod index;
pub mod matcher;
pub mod rolling;
pub mod signature;
pub mod strong;
pub mod tokens;

#[cfg(test)]
mod tests {
    #![expect(clippy::cast_possible_truncation, reason = "a test's small numbers")]

    use twox_hash::XxHash3_128;

    use super::apply::{self, Step};
    use super::block_size::{BlockSize, Layout};
    use super::index::Index;
    use super::matcher::{Matcher, Piece, Turn, Work};
    use super::signature::{Builder, SUM_BYTES, Sums};
    use super::strong::Key;
    use super::tokens::RunWriter;
    use crate::limits::{CHUNK_BYTES, DELTA_WINDOW_BLOCKS, PAYLOAD_BYTES_MAX};
    use crate::sim::prng::Prng;

    /// What came of a delta.
    #[derive(Default, Debug)]
    struct Outcome {
        literal_bytes: u64,
        copied_bytes: u64,
        runs_bytes: usize,
        work: Work,
    }

    /// How a delta is made.
    struct Way {
        block: BlockSize,
        window_blocks: usize,
        /// Bytes of the pieces: at most.
        piece_bytes: usize,
        /// Whether pieces, look-ahead and budgets are of random sizes.
        is_ragged: bool,
    }

    impl Way {
        fn usual(basis: &[u8]) -> Self {
            Self {
                block: BlockSize::of_basis(basis.len() as u64),
                window_blocks: DELTA_WINDOW_BLOCKS,
                piece_bytes: CHUNK_BYTES,
                is_ragged: false,
            }
        }

        fn blocks_of(block_bytes: u32) -> Self {
            Self {
                block: BlockSize::any(block_bytes),
                window_blocks: DELTA_WINDOW_BLOCKS,
                piece_bytes: 2 * block_bytes as usize,
                is_ragged: true,
            }
        }
    }

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        Prng::new(seed).fill(&mut bytes);
        bytes
    }

    /// Signature, match and apply; what is applied has to be `new`.
    fn carry(basis: &[u8], new: &[u8], way: &Way, prng: &mut Prng) -> Outcome {
        let layout = Layout::new(basis.len() as u64, way.block);
        let key = Key::new(&[7; 32]);
        let mut builder = Builder::new(layout, &key, 0);
        let mut index = Index::with_window(layout, way.window_blocks);
        let mut matcher = Matcher::new(layout, &key);
        let mut outcome = Outcome::default();
        let mut out = vec![0; way.piece_bytes + PAYLOAD_BYTES_MAX - CHUNK_BYTES];
        let mut built = Vec::new();
        let mut at = 0;
        loop {
            index.follow(at as u64);
            fill(&mut index, &mut builder, basis);
            if at == new.len() {
                break;
            }
            let (mut len, mut seen) = (way.piece_bytes, way.block.byte_len());
            if way.is_ragged {
                len = prng.index(len) + 1;
                seen = way.block.byte_len() - 1 + prng.index(2 * way.block.byte_len());
            }
            let end = new.len().min(at + len);
            let seen = new.len().min(end + seen);
            let piece = Piece {
                here: &new[at..end],
                ahead: &new[end..seen],
                is_end: seen == new.len(),
            };
            let mut writer = RunWriter::new(&mut out);
            let turn = loop {
                let mut budget = if way.is_ragged {
                    prng.index(3000) + 1
                } else {
                    usize::MAX
                };
                match matcher.step(&index, &piece, &mut writer, &mut budget) {
                    Turn::More => assert_eq!(budget, 0),
                    turn @ (Turn::Runs | Turn::Plain) => break turn,
                }
            };
            if turn == Turn::Runs {
                outcome.literal_bytes += writer.literal_bytes();
                outcome.copied_bytes += writer.copied_bytes();
                let runs = writer.written_bytes();
                outcome.runs_bytes += runs;
                assemble(basis, &out[..runs], piece.here.len(), &mut built);
            } else {
                outcome.literal_bytes += piece.here.len() as u64;
                built.extend_from_slice(piece.here);
            }
            at = end;
        }
        assert!(built == new, "something else was built");
        outcome.work = matcher.work();
        outcome
    }

    /// Signs as much as the index wants.
    fn fill(index: &mut Index, builder: &mut Builder, basis: &[u8]) {
        let layout = *index.layout();
        let mut out = [0; 64 * SUM_BYTES];
        while !index.wanted().is_empty() {
            let wanted = index.wanted();
            let room = out
                .len()
                .min((wanted.end - wanted.start) as usize * SUM_BYTES);
            let from = layout.span(wanted.start).start as usize;
            let built = builder.build(&basis[from..], &mut out[..room]);
            let sums = Sums::decode(&out[..built.written_bytes], wanted.start, &layout).unwrap();
            index.push(&sums);
        }
    }

    fn assemble(basis: &[u8], runs: &[u8], chunk_bytes: usize, built: &mut Vec<u8>) {
        let checked = apply::check(runs, chunk_bytes, basis.len() as u64, None);
        for step in checked.expect("an honest source").steps() {
            match step {
                Step::Copy { basis_offset, len } => {
                    let from = basis_offset as usize;
                    built.extend_from_slice(&basis[from..from + len]);
                }
                Step::Literal(range) => built.extend_from_slice(&runs[range]),
            }
        }
    }

    /// A new version: the basis with pieces replaced, inserted, deleted, moved and repeated.
    fn edited(basis: &[u8], prng: &mut Prng) -> Vec<u8> {
        let mut new = basis.to_vec();
        for _ in 0..prng.below(6) {
            let from = prng.index(new.len() + 1);
            let to = new.len().min(from + prng.skewed(2000) as usize);
            match prng.below(5) {
                0 => prng.fill(&mut new[from..to]),
                1 => drop(new.splice(from..from, noise(prng.next_u64(), to - from))),
                2 => drop(new.drain(from..to)),
                3 => {
                    let moved: Vec<u8> = new.drain(from..to).collect();
                    let at = prng.index(new.len() + 1);
                    new.splice(at..at, moved);
                }
                _ => new.extend_from_within(from..to),
            }
        }
        new
    }

    #[test]
    fn any_version_comes_out_of_any_basis_however_it_is_cut() {
        let mut prng = Prng::new(20);
        for _ in 0..3000 {
            let mut way = Way::blocks_of(prng.skewed(300) as u32);
            if prng.chance(300) {
                way.window_blocks = prng.index(40) + 1;
            }
            if prng.chance(300) {
                way.piece_bytes = 1 + prng.index(3);
            }
            let mut basis = noise(prng.next_u64(), prng.index(6000));
            if prng.chance(300) {
                let letters = prng.skewed(5) as u8; // Many blocks alike.
                basis.iter_mut().for_each(|byte| *byte %= letters);
            }
            let new = edited(&basis, &mut prng);
            carry(&basis, &new, &way, &mut prng);
        }
    }

    #[test]
    fn sizes_around_a_block() {
        let mut prng = Prng::new(21);
        let all = noise(22, 2000);
        let sizes = [0, 1, 255, 256, 257, 511, 512, 513, 767, 768, 769];
        for basis_bytes in sizes {
            for new_bytes in sizes {
                let (basis, new) = (&all[..basis_bytes], &all[..new_bytes]);
                let outcome = carry(basis, new, &Way::blocks_of(256), &mut prng);
                let shared = if new_bytes == basis_bytes {
                    new_bytes
                } else {
                    new_bytes.min(basis_bytes) / 256 * 256
                };
                assert_eq!(
                    outcome.copied_bytes, shared as u64,
                    "{basis_bytes}, {new_bytes}"
                );
            }
        }
    }

    /// Each shape sends no more than it must, some blocks apart, for work in proportion to its bytes.
    #[test]
    fn shapes_that_hurt_others_are_linear_here() {
        const MIB: usize = 1 << 20;
        const BLOCK: u64 = 4096;
        let basis = noise(30, 8 * MIB + 1234);
        let prepended = [b"x", &basis[..]].concat();
        let appended = [&basis[..], b"and more"].concat();
        let cut = [&basis[..3 * MIB + 7], &basis[4 * MIB..]].concat();
        let swapped = [&basis[4 * MIB..], &basis[..4 * MIB]].concat();
        let mut blocks: Vec<&[u8]> = basis.chunks(4096).collect();
        for at in (1..blocks.len()).rev() {
            blocks.swap(at, Prng::new(at as u64).index(at + 1));
        }
        let shuffled = blocks.concat();
        let inserted = [&basis[..4 * MIB], &noise(31, MIB), &basis[4 * MIB..]].concat();
        let zeros = vec![0; 64 * MIB];
        let fewer_zeros = vec![0; 5 * MIB + 5];
        let almost_zeros = {
            let mut bytes = zeros.clone();
            bytes.iter_mut().step_by(5000).for_each(|byte| *byte = 1);
            bytes
        };
        let other = noise(32, 64 * MIB);
        let periodic = b"abcdefg".repeat(MIB);
        let other_period = b"abcdefgh".repeat(MIB);
        let shapes: [(&str, &[u8], &[u8], u64); 16] = [
            ("nothing changed", &basis, &basis, 0),
            ("a byte in front", &basis, &prepended, 1),
            ("some appended", &basis, &appended, BLOCK + 8),
            ("the middle deleted", &basis, &cut, 2 * BLOCK),
            ("halves swapped", &basis, &swapped, 2 * BLOCK),
            ("blocks shuffled", &basis, &shuffled, 2 * BLOCK),
            ("a MiB inserted", &basis, &inserted, MIB as u64 + BLOCK),
            ("one byte alone", &zeros, &zeros, 0),
            ("less of one byte", &zeros, &fewer_zeros, BLOCK),
            ("more of one byte", &fewer_zeros, &zeros, BLOCK),
            (
                "one byte, often interrupted",
                &zeros,
                &almost_zeros,
                14 * 5 * MIB as u64,
            ),
            ("noise against zeros", &zeros, &other, u64::MAX),
            ("noise against noise", &basis, &other, u64::MAX),
            ("a period", &periodic, &periodic[3..], 2 * BLOCK),
            ("another period", &periodic, &other_period, u64::MAX),
            ("shorter", &basis, &basis[..MIB], 0),
        ];
        for (shape, basis, new, literal_bytes_max) in shapes {
            let outcome = carry(basis, new, &Way::usual(basis), &mut Prng::new(1));
            assert!(
                outcome.literal_bytes <= literal_bytes_max,
                "{shape}: {outcome:?}"
            );
            let bytes = new.len() as u64;
            assert!(outcome.work.rolled_bytes <= bytes, "{shape}: {outcome:?}");
            assert!(
                outcome.work.hashed_bytes <= 4 * bytes + 64 * BLOCK,
                "{shape}: {outcome:?}"
            );
        }
    }

    #[test]
    fn what_is_unchanged_is_hashed_once_and_never_rolled() {
        let basis = noise(40, 3 << 20);
        let outcome = carry(&basis, &basis, &Way::usual(&basis), &mut Prng::new(1));
        assert_eq!(outcome.work.rolled_bytes, 0);
        assert_eq!(outcome.work.hashed_bytes, 3 << 20);
        assert_eq!(outcome.runs_bytes, 12 * 13, "one copy for each chunk");
    }

    #[test]
    fn pages_that_were_replaced_are_passed_without_rolling() {
        let basis = noise(41, 3 << 20);
        let mut new = basis.clone();
        for page in [3, 100, 101, 700] {
            new[page * 4096..][..4096].fill(b'x');
        }
        let outcome = carry(&basis, &new, &Way::usual(&basis), &mut Prng::new(1));
        assert_eq!(outcome.literal_bytes, 4 * 4096);
        // Two in a row: the first is rolled over.
        assert!(outcome.work.rolled_bytes <= 4096, "{outcome:?}");
    }

    #[test]
    fn a_file_larger_than_its_window_keeps_what_stayed_in_place() {
        let mut prng = Prng::new(42);
        let basis = noise(43, 1 << 20);
        let way = Way {
            window_blocks: 32,
            ..Way::blocks_of(1024)
        };
        let same = carry(&basis, &basis, &way, &mut prng);
        assert_eq!(same.literal_bytes, 0);
        let new = [&noise(44, 2000), &basis[..500_000], &basis[503_000..]].concat();
        let near = carry(&basis, &new, &way, &mut prng);
        assert!(near.literal_bytes <= 2000 + 3 * 1024, "{near:?}");
        let swapped = [&basis[1 << 19..], &basis[..1 << 19]].concat();
        let far = carry(&basis, &swapped, &way, &mut prng);
        assert!(
            far.literal_bytes > 1 << 19,
            "farther than any window: {far:?}"
        );
    }

    /// The weak sums of every position of the new version, forged into a signature.
    #[test]
    fn weak_sums_that_agree_everywhere_cost_matches_and_not_time() {
        let new = noise(50, 1 << 20);
        let layout = Layout::new(1 << 28, BlockSize::any(4096));
        let key = Key::new(&[1; 32]);
        let rolling = super::rolling::Rolling::new(&key, layout.block());
        let mut state = rolling.sum(&new[..4096]);
        let mut sums = Vec::new();
        for at in 0..1 << 16 {
            sums.extend(state.weak().0.to_le_bytes());
            sums.extend([0; 8]);
            rolling.roll(
                &mut state,
                &new[at..=at],
                &new[at + 4096..=at + 4096],
                |_| false,
                |_| false,
            );
        }
        let mut index = Index::new(layout);
        index.push(&Sums::decode(&sums, 0, &layout).unwrap());
        let mut matcher = Matcher::new(layout, &key);
        let mut out = [0; 0];
        let piece = Piece {
            here: &new,
            ahead: &[],
            is_end: true,
        };
        let turn = matcher.step(
            &index,
            &piece,
            &mut RunWriter::new(&mut out),
            &mut usize::MAX.clone(),
        );
        assert_eq!(turn, Turn::Plain);
        let Work {
            rolled_bytes,
            hashed_bytes,
        } = matcher.work();
        assert!(rolled_bytes <= 1 << 20);
        assert!(hashed_bytes <= (4 + 4) << 20, "{hashed_bytes} for a MiB");
    }

    #[test]
    fn a_step_stops_near_its_budget() {
        let (basis, new) = (noise(60, 1 << 20), noise(61, 1 << 18));
        let layout = Layout::new(1 << 20, BlockSize::of_basis(1 << 20));
        let key = Key::new(&[1; 32]);
        let mut index = Index::new(layout);
        fill(&mut index, &mut Builder::new(layout, &key, 0), &basis);
        let mut matcher = Matcher::new(layout, &key);
        let mut out = [0; 0];
        let mut writer = RunWriter::new(&mut out);
        let piece = Piece {
            here: &new,
            ahead: &[],
            is_end: true,
        };
        let mut done = 0;
        while matcher.step(&index, &piece, &mut writer, &mut 10_000) == Turn::More {
            let work = matcher.work();
            let now = work.rolled_bytes + work.hashed_bytes;
            assert!(now - done <= 10_000 + 16 * 1024 + 4 * 4096);
            done = now;
        }
    }

    #[test]
    fn no_flipped_bit_of_the_runs_passes_the_digest() {
        let basis = noise(70, 5000);
        let mut new = basis.clone();
        new[1000..1100].fill(7);
        new.drain(3000..3010);
        let (layout, key) = (Layout::new(5000, BlockSize::any(256)), Key::new(&[1; 32]));
        let mut index = Index::new(layout);
        fill(&mut index, &mut Builder::new(layout, &key, 0), &basis);
        let mut out = [0; 2000];
        let mut writer = RunWriter::new(&mut out);
        let piece = Piece {
            here: &new,
            ahead: &[],
            is_end: true,
        };
        Matcher::new(layout, &key).step(&index, &piece, &mut writer, &mut usize::MAX.clone());
        let runs_bytes = writer.written_bytes();
        let digest = XxHash3_128::oneshot(&new);
        for bit in 0..runs_bytes * 8 {
            let mut hurt = out[..runs_bytes].to_vec();
            hurt[bit / 8] ^= 1 << (bit % 8);
            if apply::check(&hurt, new.len(), 5000, None).is_ok() {
                let mut built = Vec::new();
                assemble(&basis, &hurt, new.len(), &mut built);
                assert_ne!(XxHash3_128::oneshot(&built), digest, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_basis_that_changed_since_its_signature_is_noticed_by_the_digest() {
        let basis = noise(80, 10_000);
        let (layout, key) = (Layout::new(10_000, BlockSize::any(512)), Key::new(&[1; 32]));
        let mut index = Index::new(layout);
        fill(&mut index, &mut Builder::new(layout, &key, 0), &basis);
        let mut out = [0; 500];
        let mut writer = RunWriter::new(&mut out);
        let piece = Piece {
            here: &basis,
            ahead: &[],
            is_end: true,
        };
        Matcher::new(layout, &key).step(&index, &piece, &mut writer, &mut usize::MAX.clone());
        let runs_bytes = writer.written_bytes();
        let mut changed = basis.clone();
        changed[9999] ^= 1;
        let mut built = Vec::new();
        assemble(&changed, &out[..runs_bytes], 10_000, &mut built);
        assert_ne!(XxHash3_128::oneshot(&built), XxHash3_128::oneshot(&basis));
    }
}
