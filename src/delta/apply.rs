//! The target's side: what the runs of one chunk ask for, once they were found to be harmless.

use std::ops::Range;

use super::tokens::{COPY, COPY_BYTES, LITERAL, LITERAL_HEAD_BYTES};
use crate::limits::DELTA_RUNS_PER_CHUNK_MAX;

/// Why runs don't make up a chunk.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RunError {
    #[error("runs end in the middle of one")]
    CutShort,
    #[error("a run of the unknown kind {0}")]
    UnknownKind(u8),
    #[error("a run of no bytes")]
    Empty,
    #[error("a copy of {len} bytes at {offset} of a basis of {basis_bytes}")]
    BeyondBasis {
        offset: u64,
        len: u32,
        basis_bytes: u64,
    },
    #[error("a copy from {offset} to {place} of a file that is updated in place")]
    Moved { offset: u64, place: u64 },
    #[error("runs of more bytes than the chunk's {chunk_bytes}")]
    BeyondChunk { chunk_bytes: usize },
    #[error("runs of {bytes} bytes for a chunk of {chunk_bytes}")]
    TooFew { bytes: usize, chunk_bytes: usize },
    #[error("more than {max} runs for one chunk")]
    TooMany { max: usize },
}

/// What to do for the next bytes of the chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Copy these bytes of the basis.
    Copy { basis_offset: u64, len: usize },
    /// Take what stands at this range of the runs.
    Literal(Range<usize>),
}

impl Step {
    /// Bytes of the chunk that it makes.
    pub fn len(&self) -> usize {
        match self {
            Self::Copy { len, .. } => *len,
            Self::Literal(range) => range.len(),
        }
    }

    /// Never: `check` refuses such.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Runs that were checked.
#[derive(Clone, Copy, Debug)]
pub struct Runs<'a>(&'a [u8]);

/// Checks everything about the runs of a chunk of `chunk_bytes` before anything is done: that they
/// lie within a basis of `basis_bytes` and make up exactly the chunk. The source may pack at most
/// `DELTA_RUNS_PER_CHUNK_MAX` into one, so that a frame costs no more reads than a chunk has blocks.
/// With `chunk_offset`, where the chunk belongs, the basis is overwritten by the new version, and copies have to
/// stay in their place.
pub fn check(
    runs: &[u8],
    chunk_bytes: usize,
    basis_bytes: u64,
    chunk_offset: Option<u64>,
) -> Result<Runs<'_>, RunError> {
    let mut made: usize = 0;
    let mut at = 0;
    let mut count = 0;
    while at < runs.len() {
        let (step, next) = decode(runs, at)?;
        count += 1;
        if count > DELTA_RUNS_PER_CHUNK_MAX {
            return Err(RunError::TooMany {
                max: DELTA_RUNS_PER_CHUNK_MAX,
            });
        }
        if step.is_empty() {
            return Err(RunError::Empty);
        }
        if let Step::Copy { basis_offset, len } = step {
            let end = basis_offset.checked_add(len as u64);
            if end.is_none_or(|end| end > basis_bytes) {
                return Err(RunError::BeyondBasis {
                    offset: basis_offset,
                    len: u32::try_from(len).unwrap_or(u32::MAX),
                    basis_bytes,
                });
            }
            let place = chunk_offset.map(|offset| offset.saturating_add(made as u64));
            if let Some(place) = place.filter(|place| *place != basis_offset) {
                let offset = basis_offset;
                return Err(RunError::Moved { offset, place });
            }
        }
        made = made.saturating_add(step.len());
        if made > chunk_bytes {
            return Err(RunError::BeyondChunk { chunk_bytes });
        }
        at = next;
    }
    if made < chunk_bytes {
        return Err(RunError::TooFew {
            bytes: made,
            chunk_bytes,
        });
    }
    Ok(Runs(runs))
}

impl Runs<'_> {
    /// What to do, in the order of the chunk's bytes.
    pub fn steps(&self) -> impl Iterator<Item = Step> {
        let mut at = 0;
        std::iter::from_fn(move || {
            (at < self.0.len()).then(|| {
                let (step, next) = decode(self.0, at).expect("checked");
                at = next;
                step
            })
        })
    }
}

/// The run at `at`, and where the next one begins.
fn decode(runs: &[u8], at: usize) -> Result<(Step, usize), RunError> {
    let rest = &runs[at..];
    let kind = rest[0];
    match kind {
        COPY => {
            let run = rest.first_chunk::<COPY_BYTES>().ok_or(RunError::CutShort)?;
            let (offset, len) = run[1..].split_first_chunk().expect("twelve bytes");
            let step = Step::Copy {
                basis_offset: u64::from_le_bytes(*offset),
                len: number(len),
            };
            Ok((step, at + COPY_BYTES))
        }
        LITERAL => {
            let head = rest
                .first_chunk::<LITERAL_HEAD_BYTES>()
                .ok_or(RunError::CutShort)?;
            let start = at + LITERAL_HEAD_BYTES;
            let end = start
                .checked_add(number(&head[1..]))
                .filter(|end| *end <= runs.len())
                .ok_or(RunError::CutShort)?;
            Ok((Step::Literal(start..end), end))
        }
        other => Err(RunError::UnknownKind(other)),
    }
}

fn number(bytes: &[u8]) -> usize {
    u32::from_le_bytes(bytes.try_into().expect("four bytes")) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::prng::Prng;

    fn copy(offset: u64, len: u32) -> Vec<u8> {
        let mut run = vec![COPY];
        run.extend(offset.to_le_bytes());
        run.extend(len.to_le_bytes());
        run
    }

    fn literal(bytes: &[u8]) -> Vec<u8> {
        let mut run = vec![LITERAL];
        run.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
        run.extend(bytes);
        run
    }

    #[test]
    fn runs_become_steps_in_their_order() {
        let runs = [copy(5, 10), literal(b"abc"), copy(0, 1)].concat();
        let steps: Vec<Step> = check(&runs, 14, 15, None).unwrap().steps().collect();
        let copied = |basis_offset, len| Step::Copy { basis_offset, len };
        assert_eq!(steps, [copied(5, 10), Step::Literal(18..21), copied(0, 1)]);
        assert_eq!(&runs[18..21], b"abc");
    }

    #[test]
    fn what_must_not_be_is_refused_by_name() {
        let refused = |runs: &[u8], chunk, basis| check(runs, chunk, basis, None).unwrap_err();
        let beyond = |offset, len, basis_bytes| RunError::BeyondBasis {
            offset,
            len,
            basis_bytes,
        };
        assert_eq!(refused(&copy(6, 10), 10, 15), beyond(6, 10, 15));
        assert_eq!(
            refused(&copy(u64::MAX, 1), 1, u64::MAX),
            beyond(u64::MAX, 1, u64::MAX)
        );
        assert_eq!(
            refused(&copy(1 << 63, u32::MAX), 9, 15),
            beyond(1 << 63, u32::MAX, 15)
        );
        assert_eq!(refused(&copy(0, 1), 1, 0), beyond(0, 1, 0));
        assert_eq!(refused(&copy(0, 0), 0, 15), RunError::Empty);
        assert_eq!(refused(&literal(b""), 0, 15), RunError::Empty);
        let too_few = RunError::TooFew {
            bytes: 9,
            chunk_bytes: 10,
        };
        assert_eq!(refused(&copy(0, 9), 10, 15), too_few);
        let chunk_bytes = 10;
        assert_eq!(
            refused(&copy(0, 11), 10, 15),
            RunError::BeyondChunk { chunk_bytes }
        );
        assert_eq!(refused(&[3], 1, 15), RunError::UnknownKind(3));
        for cut in 1..13 {
            assert_eq!(refused(&copy(0, 1)[..cut], 1, 15), RunError::CutShort);
        }
        for cut in 1..8 {
            assert_eq!(refused(&literal(b"abc")[..cut], 3, 15), RunError::CutShort);
        }
        assert!(check(&[], 0, 0, None).is_ok());
    }

    #[test]
    fn in_place_a_copy_stays_where_it_is() {
        let runs = [literal(b"abc"), copy(103, 10), literal(b"x"), copy(114, 2)].concat();
        assert!(check(&runs, 16, 200, Some(100)).is_ok());
        let moved = |offset, place| Err(RunError::Moved { offset, place });
        assert_eq!(check(&runs, 16, 200, Some(99)).map(drop), moved(103, 102));
        let runs = [copy(100, 5), copy(100, 5)].concat();
        assert_eq!(check(&runs, 10, 200, Some(100)).map(drop), moved(100, 105));
        assert!(check(&runs, 10, 200, None).is_ok());
    }

    #[test]
    fn a_swarm_of_tiny_copies_is_refused() {
        let swarm = copy(0, 1).repeat(DELTA_RUNS_PER_CHUNK_MAX + 1);
        assert_eq!(
            check(&swarm, DELTA_RUNS_PER_CHUNK_MAX + 1, 1, None).unwrap_err(),
            RunError::TooMany {
                max: DELTA_RUNS_PER_CHUNK_MAX
            }
        );
    }

    #[test]
    fn no_bytes_whatever_lead_outside() {
        let mut prng = Prng::new(8);
        for _ in 0..20_000 {
            let mut runs = [copy(prng.skewed(50), 9), literal(b"12345678"), copy(3, 4)].concat();
            for _ in 0..prng.below(4) {
                let at = prng.index(runs.len());
                runs[at] ^= 1 << prng.below(8);
            }
            runs.truncate(prng.index(runs.len() + 1));
            let Ok(checked) = check(&runs, 21, 40, None) else {
                continue;
            };
            let mut made = 0;
            for step in checked.steps() {
                made += step.len();
                match step {
                    Step::Copy { basis_offset, len } => assert!(basis_offset + len as u64 <= 40),
                    Step::Literal(range) => assert!(range.end <= runs.len()),
                }
            }
            assert_eq!(made, 21);
        }
    }
}
