//! `Prng`, the only source of chance in a simulated run: the same seed gives the same run.

/// xoshiro256**, filled from the seed by splitmix64. Not for secrets.
#[derive(Clone, Debug)]
pub struct Prng {
    state: [u64; 4],
}

impl Prng {
    pub fn new(seed: u64) -> Self {
        let mut splitmix = seed;
        Self {
            state: std::array::from_fn(|_| {
                splitmix = splitmix.wrapping_add(0x9e37_79b9_7f4a_7c15);
                mix(splitmix)
            }),
        }
    }

    /// A generator of its own, so that one piece's draws don't shift another's.
    pub fn fork(&mut self) -> Self {
        Self::new(self.next_u64())
    }

    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        b.wrapping_mul(5).rotate_left(7).wrapping_mul(9)
    }

    /// One of `0..bound`.
    ///
    /// # Panics
    /// When `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing to draw from");
        let wide = (u128::from(self.next_u64()) * u128::from(bound)) >> 64;
        u64::try_from(wide).expect("a 64 bit number times a fraction")
    }

    /// One of `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + match (high - low).checked_add(1) {
            Some(bound) => self.below(bound),
            None => self.next_u64(),
        }
    }

    /// An index into something of `len` elements.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a usize")
    }

    /// 1..=`max`, each power of two as likely as the next: mostly small, now and then large.
    pub fn skewed(&mut self, max: u64) -> u64 {
        let bits = self.below(u64::from(u64::BITS - max.leading_zeros())) + 1;
        self.between(1, max.min(u64::MAX >> (u64::from(u64::BITS) - bits)))
    }

    pub fn chance(&mut self, per_mille: u32) -> bool {
        self.below(1000) < u64::from(per_mille)
    }

    /// # Panics
    /// When `from` is empty.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }

    pub fn fill(&mut self, into: &mut [u8]) {
        for eight in into.chunks_mut(8) {
            let word = self.next_u64().to_le_bytes();
            eight.copy_from_slice(&word[..eight.len()]);
        }
    }
}

/// The finish of splitmix64: spreads every bit of `word` over the result.
pub fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_published_numbers() {
        // From the reference code of splitmix64 and xoshiro256** (Blackman and Vigna).
        assert_eq!(Prng::new(0).state[0], 0xe220_a839_7b1d_cdaf);
        let mut prng = Prng {
            state: [1, 2, 3, 4],
        };
        assert_eq!(
            [(); 4].map(|()| prng.next_u64()),
            [11520, 0, 1_509_978_240, 1_215_971_899_390_074_240]
        );
    }

    #[test]
    fn draws_stay_in_their_bounds_and_reach_them() {
        let mut prng = Prng::new(1);
        let mut seen = [false; 7];
        for _ in 0..1000 {
            seen[prng.index(7)] = true;
            assert!((3..=5).contains(&prng.between(3, 5)));
            assert!((1..=100).contains(&prng.skewed(100)));
            assert_eq!(prng.skewed(1), 1);
        }
        assert_eq!(seen, [true; 7]);
        assert!(!(0..1000).any(|_| prng.chance(0)));
        assert!((0..1000).all(|_| prng.chance(1000)));
        prng.between(0, u64::MAX);
        prng.skewed(u64::MAX);
    }
}
