//! `Strong`, the keyed hash that decides whether two blocks are the same, and `Key`.

use std::fmt;

use highway::{HighwayHash, HighwayHasher};

/// Bytes of a strong hash. A type's size and never a field of a frame: no peer can ask for less.
///
/// Eight are enough because a wrong agreement costs one chunk sent again and never a wrong file. Of
/// 1 GiB of random bytes against a basis of 1 GiB in blocks of 4 KiB, 2^30 positions meet 2^18 weak
/// sums of 32 bits, so 2^16 strong hashes are compared with another block's: one agrees by accident
/// with probability 2^-48. Somebody who made both files and gets all the comparisons there are, one
/// for each byte, has 2^-34, and then needs the chunk's digest to agree, too. Eight more bytes would be 2 MiB
/// of signature for that file, a quarter of all that travels where 1,000 pages changed.
pub const STRONG_BYTES: usize = 8;

/// The key of one session, for strong and weak sums: 32 random bytes chosen by the source, which
/// has no influence on the basis that the target hashes with them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key([u64; 4]);

impl Key {
    pub fn new(bytes: &[u8; 32]) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        Self(std::array::from_fn(|at| u64::from_le_bytes(words[at])))
    }

    /// A number for another use of the key.
    pub(super) fn derive(&self, label: &[u8]) -> u64 {
        let Self([a, b, c, d]) = *self;
        // Not the key of any block's hash.
        HighwayHasher::new(highway::Key([!a, b, c, !d])).hash64(label)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// HighwayHash-64 of a block.
///
/// Measured on one core of an AMD EPYC (Zen 4), GB/s in blocks of 4 KiB (32 KiB), warm in L2:
///
/// | hash | | |
/// |---|---|---|
/// | XXH3-128, secret of its own | 36.6 (57.7) | a key it was not made for: two words that differ together agree for one key in 2^32 |
/// | **HighwayHash-64** | 11.3 (12.4) | made to be keyed; no attack on the whole of it is known |
/// | POLYVAL | 5.5 (6.4) | a bound that is proved, at half the speed |
/// | BLAKE3, keyed | 2.9 (6.4) | what nobody would have to explain, at a quarter |
///
/// Reading a file from the page cache does about 10 GB/s, so what is left to gain above
/// HighwayHash is less than what it takes to find the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Strong(pub [u8; STRONG_BYTES]);

impl Strong {
    pub fn of(key: &Key, block: &[u8]) -> Self {
        Self(hasher(key).hash64(block).to_le_bytes())
    }

    /// Of a block that lies in two pieces.
    pub fn of_two(key: &Key, first: &[u8], rest: &[u8]) -> Self {
        let mut strong = StrongHasher::new(key);
        strong.append(first);
        strong.append(rest);
        strong.finish()
    }
}

/// The strong hash of a block that comes in pieces.
#[derive(Clone, Debug)]
pub struct StrongHasher(HighwayHasher);

impl StrongHasher {
    pub fn new(key: &Key) -> Self {
        Self(hasher(key))
    }

    pub fn append(&mut self, piece: &[u8]) {
        self.0.append(piece);
    }

    pub fn finish(self) -> Strong {
        Strong(self.0.finalize64().to_le_bytes())
    }
}

/// Bytes of the digest of a file's content.
pub const DIGEST_BYTES: usize = 16;

/// HighwayHash-128 of a file's content: what decides that two files are the same without either of
/// them travelling. Nobody looks at the bytes again where it agrees, hence twice the length of a
/// block's, and hence the key: who may write to one of the two files can't make another content that agrees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContentDigest(pub [u8; DIGEST_BYTES]);

/// The digest of a file that comes in pieces.
#[derive(Clone, Debug)]
pub struct ContentHasher(HighwayHasher);

impl ContentHasher {
    pub fn new(key: &Key) -> Self {
        Self(hasher(key))
    }

    pub fn append(&mut self, piece: &[u8]) {
        self.0.append(piece);
    }

    pub fn finish(self) -> ContentDigest {
        let [low, high] = self.0.finalize128().map(u64::to_le_bytes);
        ContentDigest(std::array::from_fn(|at| match at {
            0..8 => low[at],
            _ => high[at - 8],
        }))
    }
}

fn hasher(key: &Key) -> HighwayHasher {
    HighwayHasher::new(highway::Key(key.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vectors_of_highwayhash() {
        // From the reference code: key 0..32, inputs that count up from 0.
        let key = Key::new(&std::array::from_fn(|at| u8::try_from(at).unwrap()));
        for (len, hash) in [(0, 0x907A_56DE_22C2_6E53_u64), (1, 0x7EAB_43AA_C7CD_DD78)] {
            let input: Vec<u8> = (0..len).collect();
            assert_eq!(Strong::of(&key, &input), Strong(hash.to_le_bytes()));
        }
    }

    #[test]
    fn the_published_vectors_of_its_long_form_in_pieces_too() {
        let key = Key::new(&std::array::from_fn(|at| u8::try_from(at).unwrap()));
        for (len, words) in [
            (0, [0x0FED_268F_9D8F_FEC7_u64, 0x3356_5E76_7F09_3E6F]),
            (1, [0xD6B0_A889_3681_E7A8, 0xDC29_1DF9_EB9C_DCB4]),
        ] {
            let mut hasher = ContentHasher::new(&key);
            (0..len).for_each(|byte| hasher.append(&[byte]));
            assert_eq!(
                hasher.finish().0[..],
                words.map(u64::to_le_bytes).concat()[..]
            );
        }
        let content: Vec<u8> = (0..5000_u32).map(|at| (at * 7 % 251) as u8).collect();
        let of = |key: &Key, pieces: &[&[u8]]| {
            let mut hasher = ContentHasher::new(key);
            pieces.iter().for_each(|piece| hasher.append(piece));
            hasher.finish()
        };
        for cut in [0, 1, 31, 32, 33, 4096, 5000] {
            let (first, rest) = content.split_at(cut);
            assert_eq!(of(&key, &[first, rest]), of(&key, &[&content]));
        }
        assert_ne!(of(&Key::new(&[4; 32]), &[&content]), of(&key, &[&content]));
    }

    #[test]
    fn pieces_hash_like_the_whole_and_keys_differ() {
        let block: Vec<u8> = (0..5000_u32).map(|at| (at * 7 % 251) as u8).collect();
        let key = Key::new(&[3; 32]);
        let whole = Strong::of(&key, &block);
        for cut in [0, 1, 31, 32, 33, 4096, 5000] {
            assert_eq!(Strong::of_two(&key, &block[..cut], &block[cut..]), whole);
        }
        assert_ne!(Strong::of(&Key::new(&[4; 32]), &block), whole);
    }

    #[test]
    fn a_key_is_not_printed() {
        assert_eq!(format!("{:?}", Key::new(&[42; 32])), "Key(..)");
    }
}
