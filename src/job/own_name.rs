//! Our own names in a target directory: `.sy.<session>.<counter>.tmp` for a file that is being
//! written, `.sy.<session>.<counter>.<hash of its name>.tmp` for one of which a part is to be kept,
//! `.sy.<hash>.partial` for what was kept, `.sy.<session>.unclean` for a session whose work is not synced yet.

use std::fmt;
use std::io::Write;

use crate::model::id::SessionId;
use crate::model::name::OWN_PREFIX;
use crate::model::partial::{NameHash, PartialName};

/// What a `.sy.*` name is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OwnName {
    Temp(SessionId),
    /// A temp file that becomes a partial file if its session dies.
    Keepable(SessionId, NameHash),
    Partial(NameHash),
    Marker(SessionId),
    /// Of no pattern of ours.
    Unknown,
}

const SESSION_DIGITS: usize = 16;

/// Reads a name that begins with `.sy.`.
pub fn parse(name: &[u8]) -> OwnName {
    try_parse(name).unwrap_or(OwnName::Unknown)
}

fn try_parse(name: &[u8]) -> Option<OwnName> {
    if let Some(file) = PartialName::file_of(name) {
        return Some(OwnName::Partial(file));
    }
    let rest = name.strip_prefix(OWN_PREFIX)?;
    let (session, rest) = rest.split_at_checked(SESSION_DIGITS)?;
    let session = SessionId(u64::from_str_radix(str::from_utf8(session).ok()?, 16).ok()?);
    if rest == b".unclean" {
        return Some(OwnName::Marker(session));
    }
    let rest = rest.strip_prefix(b".")?.strip_suffix(b".tmp")?;
    let mut words = rest.splitn(2, |byte| *byte == b'.');
    let counter = words.next()?;
    let is_number = !counter.is_empty() && counter.iter().all(u8::is_ascii_digit);
    let own = match words.next() {
        None => OwnName::Temp(session),
        Some(hash) => OwnName::Keepable(session, NameHash::parse(hash)?),
    };
    is_number.then_some(own)
}

/// A temp name, built on the stack: never longer than 78 bytes, of a peer's bytes a hash at most.
pub struct TempName {
    bytes: [u8; TEMP_NAME_BYTES_MAX],
    len: usize,
}

const TEMP_NAME_BYTES_MAX: usize = 4 + SESSION_DIGITS + 1 + 20 + 1 + 32 + 4;

impl TempName {
    pub fn new(session: SessionId, counter: u64) -> Self {
        Self::spell(format_args!(".sy.{session}.{counter}.tmp"))
    }

    /// Of a file of which a part is to be kept.
    pub fn keepable(session: SessionId, counter: u64, file: NameHash) -> Self {
        Self::spell(format_args!(".sy.{session}.{counter}.{file}.tmp"))
    }

    fn spell(name: fmt::Arguments<'_>) -> Self {
        let mut bytes = [0; TEMP_NAME_BYTES_MAX];
        let mut rest = &mut bytes[..];
        rest.write_fmt(name).expect("the longest fits");
        let len = TEMP_NAME_BYTES_MAX - rest.len();
        Self { bytes, len }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

pub fn marker_name(session: SessionId) -> Vec<u8> {
    format!(".sy.{session}.unclean").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_names_are_told_from_names_that_look_like_them() {
        let session = SessionId(0xab);
        assert_eq!(
            parse(TempName::new(session, u64::MAX).bytes()),
            OwnName::Temp(session)
        );
        assert_eq!(parse(&marker_name(session)), OwnName::Marker(session));
        let file = NameHash::of(b"f");
        assert_eq!(
            parse(TempName::keepable(session, u64::MAX, file).bytes()),
            OwnName::Keepable(session, file)
        );
        assert_eq!(
            parse(PartialName::new(file).bytes()),
            OwnName::Partial(file)
        );
        for other in [
            &b".sy."[..],
            b".sy.x",
            b".sy.00000000000000ab.tmp",
            b".sy.00000000000000ab.1.tmpx",
            b".sy.00000000000000zz.1.tmp",
            b".sy.00000000000000ab.1.0123.tmp",
            b".sy.00000000000000ab..99aa06d3014798d86001c324468d497f.tmp",
            b".sy.99aa06d3014798d86001c324468d497f.tmp",
        ] {
            assert_eq!(parse(other), OwnName::Unknown);
        }
    }
}
