//! Seeded randomness, so that a failure can be played again.

use std::time::{SystemTime, UNIX_EPOCH};

/// A small generator (splitmix64). Its seed is printed when it is made.
pub struct Chance {
    state: u64,
}

impl Chance {
    /// From `SY_TESTS_SEED`, else from the clock.
    pub fn new() -> Self {
        let seed = std::env::var("SY_TESTS_SEED")
            .ok()
            .and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or_else(|| {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .expect("a clock after 1970");
            u64::from(now.subsec_nanos()) ^ (now.as_secs() << 30)
        });
        println!("SY_TESTS_SEED={seed}");
        Self::seeded(seed)
    }

    pub fn seeded(seed: u64) -> Self {
        Self { state: seed }
    }

    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `end`, which is not zero.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }
}

impl Default for Chance {
    fn default() -> Self {
        Self::new()
    }
}
