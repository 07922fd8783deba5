//! Bytes to fill files with.

use std::io::Write;

use twox_hash::XxHash3_128;

use crate::chance::Chance;

/// `len` bytes that no compressor shrinks, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut chance = Chance::seeded(seed.wrapping_mul(0x9e37_79b9).wrapping_add(1));
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&chance.draw().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// `len` bytes of readable lines.
pub fn text(len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 64);
    let mut line = 0_u64;
    while bytes.len() < len {
        writeln!(bytes, "line {line} of a file that has many of them").expect("memory takes it");
        line += 1;
    }
    bytes.truncate(len);
    bytes
}

/// What [`Tree`](crate::Tree) keeps of a file's bytes.
pub fn digest(bytes: &[u8]) -> u128 {
    XxHash3_128::oneshot(bytes)
}
