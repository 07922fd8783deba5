//! Our own names in a target directory: `.sy.<session>.<counter>.tmp` for a file that is being
//! written, `.sy.<session>.unclean` for a session whose work is not synced yet.

use std::io::Write;

use crate::model::id::SessionId;
use crate::model::name::OWN_PREFIX;

/// What a `.sy.*` name is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OwnName {
    Temp(SessionId),
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
    let rest = name.strip_prefix(OWN_PREFIX)?;
    let (session, rest) = rest.split_at_checked(SESSION_DIGITS)?;
    let session = SessionId(u64::from_str_radix(str::from_utf8(session).ok()?, 16).ok()?);
    if rest == b".unclean" {
        return Some(OwnName::Marker(session));
    }
    let counter = rest.strip_prefix(b".")?.strip_suffix(b".tmp")?;
    let is_number = !counter.is_empty() && counter.iter().all(u8::is_ascii_digit);
    is_number.then_some(OwnName::Temp(session))
}

/// A temp name, built on the stack: never longer than 45 bytes, never from a peer's bytes.
pub struct TempName {
    bytes: [u8; 48],
    len: usize,
}

impl TempName {
    pub fn new(session: SessionId, counter: u64) -> Self {
        let mut bytes = [0; 48];
        let mut rest = &mut bytes[..];
        write!(rest, ".sy.{session}.{counter}.tmp").expect("48 bytes hold 4 + 16 + 1 + 20 + 4");
        let len = 48 - rest.len();
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
        for other in [
            &b".sy."[..],
            b".sy.x",
            b".sy.00000000000000ab.tmp",
            b".sy.00000000000000ab.1.tmpx",
            b".sy.00000000000000zz.1.tmp",
        ] {
            assert_eq!(parse(other), OwnName::Unknown);
        }
    }
}
