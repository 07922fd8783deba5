//! `Rolling`, the weak sum: cheap to move on by one byte, so that it can be taken at every position
//! of a file.
//!
//! A polynomial over the bytes of the window modulo 2^64, with an odd multiplier out of the
//! session's key; the upper half is the weak sum. One multiplication per byte, as cheap here as rsync's two
//! 16-bit sums, whose first has some 14 bits to tell random blocks of 4 KiB apart and far fewer for text. The lower half,
//! whose bits mix less, stays at home. Sums that are made to collide exist (for any multiplier);
//! they cost their maker matches, and nobody time: see [`super::matcher`].
//!
//! The sum of a whole block is 64 sums, of every 64th byte each, side by side. The same function is
//! compiled for three widths of vectors and picked at run time. Measured on one core (Zen 4), GB/s, in
//! blocks of 4 KiB: AVX-512 13.1, AVX2 5.3, plain 2.8.
#![expect(
    unsafe_code,
    reason = "calls what was compiled for a CPU, after asking whether this is one"
)]

use super::block_size::BlockSize;
use super::strong::Key;

/// Sums side by side within one block.
const LANES: usize = 64;
/// Sums that are made before any of them is looked for: enough to have as many reads of the
/// filter under way, few enough to stay in registers and the first cache.
const BATCH: usize = 32;

/// What travels of a sum.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Weak(pub u32);

/// A sum under way: of a window, or of the beginning of a block.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct State(u64);

impl State {
    #[inline(always)]
    pub fn weak(self) -> Weak {
        Weak((self.0 >> 32) as u32)
    }
}

/// The constants of one key and one block size; 2 KiB.
#[derive(Clone, Debug)]
pub struct Rolling {
    /// Powers of the multiplier: the first, the second, and that of `LANES`.
    power_1: u64,
    power_2: u64,
    power_lanes: u64,
    /// What a byte weighs that leaves a window of one block.
    leaving: Box<[u64; 256]>,
}

impl Rolling {
    pub fn new(key: &Key, block: BlockSize) -> Self {
        // 5 modulo 8 takes longest to come round.
        let multiplier = (key.derive(b"weak sum") & !7) | 5;
        let gone = power(multiplier, u64::from(block.bytes()));
        let mut leaving = Box::new([0_u64; 256]);
        for byte in 1..256 {
            leaving[byte] = leaving[byte - 1].wrapping_add(gone);
        }
        Self {
            power_1: multiplier,
            power_2: power(multiplier, 2),
            power_lanes: power(multiplier, LANES as u64),
            leaving,
        }
    }

    /// The sum of `bytes`.
    pub fn sum(&self, bytes: &[u8]) -> State {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512dq") && is_x86_feature_detected!("avx512f") {
                // SAFETY: the CPU has just been asked for both features the function is compiled with.
                return State(unsafe { sum_avx512(bytes, self.power_1, self.power_lanes) });
            }
            if is_x86_feature_detected!("avx2") {
                // SAFETY: the CPU has just been asked for the feature the function is compiled with.
                return State(unsafe { sum_avx2(bytes, self.power_1, self.power_lanes) });
            }
        }
        State(sum_lanes(bytes, self.power_1, self.power_lanes))
    }

    /// The sum of what `state` has summed and of `bytes` behind it.
    pub fn append(&self, state: State, bytes: &[u8]) -> State {
        let before = match state.0 {
            0 => 0,
            sum => sum.wrapping_mul(power(self.power_1, bytes.len() as u64)),
        };
        State(before.wrapping_add(self.sum(bytes).0))
    }

    /// Moves a window on, byte by byte, until its weak sum is one of those looked for: `outs` leave
    /// it in front and `ins` come in behind. Returns the bytes it was moved by and whether it ended so.
    ///
    /// `may_be` is cheap and asked of every sum, `is` of those it lets pass. Sums are made
    /// `BATCH` at once and in pairs, the second of what was before both, so that neither multiplications
    /// nor what `may_be` reads wait for each other. The sums alone make 0.9 GB/s; with the filter of
    /// 1 GiB, 0.3: what is left is waiting for the filter's words.
    #[inline(always)]
    pub fn roll(
        &self,
        state: &mut State,
        outs: &[u8],
        ins: &[u8],
        may_be: impl Fn(Weak) -> bool,
        is: impl Fn(Weak) -> bool,
    ) -> (usize, bool) {
        assert_eq!(outs.len(), ins.len());
        let (out_batches, outs_rest) = outs.as_chunks::<BATCH>();
        let (in_batches, ins_rest) = ins.as_chunks::<BATCH>();
        let mut sums = [State::default(); BATCH];
        for (at, (outs, ins)) in out_batches.iter().zip(in_batches).enumerate() {
            let mut sum = state.0;
            for pair in 0..BATCH / 2 {
                let (one, two) = (2 * pair, 2 * pair + 1);
                let delta_1 = self.delta(outs[one], ins[one]);
                let delta_2 = self.delta(outs[two], ins[two]);
                let delta = delta_1.wrapping_mul(self.power_1).wrapping_add(delta_2);
                sums[one] = State(sum.wrapping_mul(self.power_1).wrapping_add(delta_1));
                sum = sum.wrapping_mul(self.power_2).wrapping_add(delta);
                sums[two] = State(sum);
            }
            let mut may = [false; BATCH];
            for (may, sum) in may.iter_mut().zip(&sums) {
                *may = may_be(sum.weak());
            }
            if may == [false; BATCH] {
                state.0 = sum;
                continue;
            }
            for (bit, sum) in sums.iter().enumerate() {
                if may[bit] && is(sum.weak()) {
                    *state = *sum;
                    return (BATCH * at + bit + 1, true);
                }
            }
            state.0 = sum;
        }
        let batched = BATCH * out_batches.len();
        for (at, (out, into)) in outs_rest.iter().zip(ins_rest).enumerate() {
            let moved = state.0.wrapping_mul(self.power_1);
            state.0 = moved.wrapping_add(self.delta(*out, *into));
            if may_be(state.weak()) && is(state.weak()) {
                return (batched + at + 1, true);
            }
        }
        (outs.len(), false)
    }

    #[inline(always)]
    fn delta(&self, out: u8, into: u8) -> u64 {
        u64::from(into).wrapping_sub(self.leaving[usize::from(out)])
    }
}

fn power(base: u64, exponent: u64) -> u64 {
    let (mut power, mut square, mut left) = (1_u64, base, exponent);
    while left > 0 {
        if left & 1 == 1 {
            power = power.wrapping_mul(square);
        }
        square = square.wrapping_mul(square);
        left >>= 1;
    }
    power
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq")]
fn sum_avx512(bytes: &[u8], power_1: u64, power_lanes: u64) -> u64 {
    sum_lanes(bytes, power_1, power_lanes)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(bytes: &[u8], power_1: u64, power_lanes: u64) -> u64 {
    sum_lanes(bytes, power_1, power_lanes)
}

/// Written so that the compiler makes vectors of it.
#[inline(always)]
fn sum_lanes(bytes: &[u8], power_1: u64, power_lanes: u64) -> u64 {
    let mut lanes = [0_u64; LANES];
    let (rows, rest) = bytes.as_chunks::<LANES>();
    for row in rows {
        for (lane, byte) in lanes.iter_mut().zip(row) {
            *lane = lane
                .wrapping_mul(power_lanes)
                .wrapping_add(u64::from(*byte));
        }
    }
    let next = |sum: u64, term: u64| sum.wrapping_mul(power_1).wrapping_add(term);
    let sum = if rows.is_empty() {
        0
    } else {
        lanes.into_iter().fold(0, next)
    };
    rest.iter()
        .fold(sum, |sum, byte| next(sum, u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::cast_possible_truncation, reason = "a test's small numbers")]

    use super::*;
    use crate::sim::prng::Prng;

    /// The definition, byte by byte.
    fn twin(rolling: &Rolling, bytes: &[u8]) -> u64 {
        bytes.iter().fold(0, |sum: u64, byte| {
            sum.wrapping_mul(rolling.power_1)
                .wrapping_add(u64::from(*byte))
        })
    }

    fn random(prng: &mut Prng, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        prng.fill(&mut bytes);
        bytes
    }

    #[test]
    fn every_width_gives_the_sum_of_the_definition() {
        let mut prng = Prng::new(1);
        for round in 0..400 {
            let len = prng.index(700) + round % 3 * 4000;
            let bytes = random(&mut prng, len);
            let rolling = Rolling::new(&Key::new(&[round as u8; 32]), BlockSize::any(64));
            let sum = twin(&rolling, &bytes);
            assert_eq!(rolling.sum(&bytes), State(sum));
            let (one, lanes) = (rolling.power_1, rolling.power_lanes);
            assert_eq!(sum_lanes(&bytes, one, lanes), sum);
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") {
                // SAFETY: it was asked for.
                assert_eq!(unsafe { sum_avx2(&bytes, one, lanes) }, sum);
            }
            let cut = prng.index(len + 1);
            let head = rolling.sum(&bytes[..cut]);
            assert_eq!(rolling.append(head, &bytes[cut..]), State(sum));
        }
    }

    #[test]
    fn a_rolled_window_has_the_sum_of_its_bytes() {
        let mut prng = Prng::new(2);
        for _ in 0..100 {
            let block = prng.index(300) + 1;
            let rolling = Rolling::new(
                &Key::new(&[9; 32]),
                BlockSize::any(u32::try_from(block).unwrap()),
            );
            let bytes = random(&mut prng, block + 200);
            let mut at = 0;
            let mut state = rolling.sum(&bytes[..block]);
            while at < 200 {
                let moves = prng.index(200 - at) + 1;
                let hit_one_in = prng.below(50) as u32 + 1;
                let (moved, was_hit) = rolling.roll(
                    &mut state,
                    &bytes[at..at + moves],
                    &bytes[at + block..at + block + moves],
                    |weak| weak.0.is_multiple_of(2),
                    |weak| weak.0.is_multiple_of(2 * hit_one_in),
                );
                assert_eq!(was_hit, state.weak().0.is_multiple_of(2 * hit_one_in));
                assert!(moved == moves || was_hit);
                for passed in 1..moved {
                    let weak = rolling.sum(&bytes[at + passed..at + passed + block]).weak();
                    assert!(
                        !weak.0.is_multiple_of(2 * hit_one_in),
                        "a hit was passed over"
                    );
                }
                at += moved;
                assert_eq!(state, rolling.sum(&bytes[at..at + block]));
            }
        }
    }

    #[test]
    fn weak_sums_of_text_and_of_noise_spread_alike() {
        let mut prng = Prng::new(3);
        let rolling = Rolling::new(&Key::new(&[1; 32]), BlockSize::any(512));
        let mut top_bits = [[0_u32; 64]; 2];
        for at in 0..6400_usize {
            let noise = random(&mut prng, 512);
            let text = format!("{at:06} INFO nothing happened;\n").repeat(15);
            let text = text.as_bytes()[..450].to_vec();
            for (kind, bytes) in [noise, text].iter().enumerate() {
                top_bits[kind][(rolling.sum(bytes).weak().0 >> 26) as usize] += 1;
            }
        }
        // 100 each, with a deviation of 10.
        for count in top_bits.as_flattened() {
            assert!((50..170).contains(count), "{count}");
        }
    }
}
