//! Matches without a search: of each block of the basis only whether it stands in its own place in the new version.
//! For a basis that is overwritten by the new version as it comes: from there nothing can be copied to another place.

use super::index::Index;
use super::matcher::Turn;
use super::strong::{Key, Strong};
use super::tokens::RunWriter;

/// Matches `chunk`, which stands at `offset` of the new version, with the blocks that the index holds.
///
/// # Panics
/// When no block begins at `offset`.
pub fn match_chunk(
    index: &Index,
    key: &Key,
    offset: u64,
    chunk: &[u8],
    out: &mut RunWriter<'_>,
) -> Turn {
    let layout = index.layout();
    let block_bytes = u64::from(layout.block().bytes());
    assert!(
        offset.is_multiple_of(block_bytes),
        "a chunk is whole blocks"
    );
    let end = offset + chunk.len() as u64;
    let within = |at: u64| usize::try_from(at - offset).expect("within the chunk");
    let mut literal_from = 0;
    let blocks = offset / block_bytes..layout.blocks_count().min(end.div_ceil(block_bytes));
    for block in blocks {
        let span = layout.span(block);
        // The basis may go on where the new version has ended.
        let Some(strong) = index.strong(block).filter(|_| span.end <= end) else {
            continue;
        };
        let (from, to) = (within(span.start), within(span.end));
        if Strong::of(key, &chunk[from..to]) == strong {
            out.literal(&chunk[literal_from..from]);
            out.copy(span.start, to - from);
            literal_from = to;
        }
    }
    if out.copied_bytes() == 0 {
        return Turn::Plain;
    }
    out.literal(&chunk[literal_from..]);
    if out.is_over() {
        Turn::Plain
    } else {
        Turn::Runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::apply::{self, Step};
    use crate::delta::block_size::{BlockSize, Layout};
    use crate::delta::signature::{Builder, SUM_BYTES, Sums};
    use crate::sim::prng::Prng;

    const CHUNK: usize = 4096;

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        Prng::new(seed).fill(&mut bytes);
        bytes
    }

    /// The new version made out of the old one in its place, chunks in any order; and the literal bytes.
    fn overwrite(basis: &[u8], new: &[u8], block_bytes: u32, prng: &mut Prng) -> usize {
        let layout = Layout::new(basis.len() as u64, BlockSize::any(block_bytes));
        let key = Key::new(&[7; 32]);
        let mut index = Index::new(layout);
        let mut sums = vec![0; basis.len().div_ceil(block_bytes as usize) * SUM_BYTES];
        Builder::new(layout, &key, 0).build(basis, &mut sums);
        if !sums.is_empty() {
            index.push(&Sums::decode(&sums, 0, &layout).unwrap());
        }
        let mut place = basis.to_vec();
        place.resize(basis.len().max(new.len()), 0);
        let mut chunks: Vec<usize> = (0..new.len()).step_by(CHUNK).collect();
        for at in (1..chunks.len()).rev() {
            chunks.swap(at, prng.index(at + 1));
        }
        let mut literal_bytes = 0;
        for at in chunks {
            let chunk = &new[at..new.len().min(at + CHUNK)];
            let mut out = [0; CHUNK + 2000];
            let mut writer = RunWriter::new(&mut out);
            if match_chunk(&index, &key, at as u64, chunk, &mut writer) != Turn::Runs {
                place[at..at + chunk.len()].copy_from_slice(chunk);
                literal_bytes += chunk.len();
                continue;
            }
            let runs_bytes = writer.written_bytes();
            let runs = &out[..runs_bytes];
            let stays = Some(at as u64);
            let runs_checked = apply::check(runs, chunk.len(), basis.len() as u64, stays).unwrap();
            let mut to = at;
            for step in runs_checked.steps() {
                if let Step::Literal(range) = &step {
                    place[to..to + range.len()].copy_from_slice(&runs[range.clone()]);
                    literal_bytes += range.len();
                }
                to += step.len();
            }
        }
        place.truncate(new.len());
        assert!(place == new, "something else was made");
        literal_bytes
    }

    #[test]
    fn any_version_comes_out_of_any_other_in_its_place() {
        let mut prng = Prng::new(1);
        for _ in 0..500 {
            let basis = noise(prng.next_u64(), prng.index(30_000));
            let mut new = basis.clone();
            for _ in 0..prng.below(5) {
                let from = prng.index(new.len() + 1);
                let to = new.len().min(from + prng.index(3000));
                match prng.below(3) {
                    0 => prng.fill(&mut new[from..to]),
                    1 => drop(new.drain(from..to)),
                    _ => new.extend_from_within(from..to),
                }
            }
            let block_bytes = 256 << prng.below(5);
            overwrite(&basis, &new, block_bytes, &mut prng);
        }
    }

    #[test]
    fn what_stayed_in_its_place_is_no_literal_and_what_moved_is() {
        let mut prng = Prng::new(2);
        let basis = noise(3, 5 * CHUNK + 700);
        let mut changed = basis.clone();
        changed[CHUNK + 300] ^= 1;
        changed[3 * CHUNK] ^= 1;
        let appended = [&basis[..], b"and more"].concat();
        let moved = [b"x", &basis[..]].concat();
        let mut literals = |new: &[u8]| overwrite(&basis, new, 1024, &mut prng);
        assert_eq!(literals(&basis), 0);
        assert_eq!(literals(&changed), 2 * 1024);
        assert_eq!(
            literals(&appended),
            8,
            "the short last block stands where it stood"
        );
        assert_eq!(literals(&basis[..2 * CHUNK + 5]), 5);
        assert_eq!(literals(&moved), moved.len());
    }
}
