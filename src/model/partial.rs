//! `PartialName`: what a partial file is called. It holds what arrived of a large file when a push broke
//! off, beside where that file will be: `.sy.<XXH3-128 of the file's name, 32 digits>.partial`.

use std::fmt;
use std::io::Write;

use twox_hash::XxHash3_128;

use super::name::OWN_PREFIX;

const HASH_DIGITS: usize = 32;
const SUFFIX: &[u8] = b".partial";
const NAME_BYTES: usize = OWN_PREFIX.len() + HASH_DIGITS + SUFFIX.len();

/// A file's name, hashed: a name of 255 bytes leaves no room for anything beside it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct NameHash(u128);

impl NameHash {
    pub fn of(name: &[u8]) -> Self {
        Self(XxHash3_128::oneshot(name))
    }

    /// Reads it as it is written: 32 digits, none of them upper case.
    pub fn parse(digits: &[u8]) -> Option<Self> {
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if digits.len() != HASH_DIGITS || !digits.iter().all(is_digit) {
            return None;
        }
        let digits = str::from_utf8(digits).ok()?;
        u128::from_str_radix(digits, 16).ok().map(Self)
    }
}

impl fmt::Display for NameHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The name, built on the stack.
pub struct PartialName([u8; NAME_BYTES]);

impl PartialName {
    /// Of what arrived of the file with that name.
    pub fn new(file: NameHash) -> Self {
        let mut bytes = [0; NAME_BYTES];
        let mut rest = &mut bytes[..];
        write!(rest, ".sy.{file}.partial").expect("4 + 32 + 8 bytes");
        Self(bytes)
    }

    /// Whose it is, if `name` is one.
    pub fn file_of(name: &[u8]) -> Option<NameHash> {
        let digits = name.strip_prefix(OWN_PREFIX)?.strip_suffix(SUFFIX)?;
        NameHash::parse(digits)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_file_is_called_by_the_hash_of_its_files_name() {
        let file = NameHash::of(b"sea.jpg");
        let name = PartialName::new(file);
        assert_eq!(PartialName::file_of(name.bytes()), Some(file));
        assert_ne!(NameHash::of(b"sea.jpeg"), file);
        // XXH3-128 of nothing, from its own test vectors.
        let empty = PartialName::new(NameHash::of(b""));
        assert_eq!(
            empty.bytes(),
            b".sy.99aa06d3014798d86001c324468d497f.partial"
        );
    }

    #[test]
    fn any_other_spelling_is_no_partial_file() {
        for other in [
            &b".sy.99aa06d3014798d86001c324468d497.partial"[..],
            b".sy.99aa06d3014798d86001c324468d497f0.partial",
            b".sy.99AA06D3014798D86001C324468D497F.partial",
            b".sy.+9aa06d3014798d86001c324468d497f.partial",
            b".sy.99aa06d3014798d86001c324468d497f.partialx",
            b".sx.99aa06d3014798d86001c324468d497f.partial",
            b".sy..partial",
        ] {
            assert_eq!(PartialName::file_of(other), None);
        }
    }
}
