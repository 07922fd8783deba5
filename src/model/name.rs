//! `Name`: one component of a path, checked once where it enters the program.

use crate::limits::NAME_BYTES_MAX;

/// What every file of our own in a target directory begins with; never sent, never accepted.
pub const OWN_PREFIX: &[u8] = b".sy.";

/// 1 to 255 bytes that are one path component: no `/`, no NUL, not `.`, not `..`. Any other bytes
/// are legal; they need not be UTF-8.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Name<'a>(&'a [u8]);

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    #[error("a name is empty")]
    Empty,
    #[error("a name is longer than 255 bytes")]
    TooLong,
    #[error("a name holds a slash or a NUL byte")]
    Separator,
    #[error("a name is '.' or '..'")]
    Dots,
    #[error("names that begin with '.sy.' belong to sy itself")]
    Ours,
}

impl<'a> Name<'a> {
    /// Checks `bytes`, and refuses our own `.sy.*` names too: what peers and users may name.
    pub fn new(bytes: &'a [u8]) -> Result<Self, NameError> {
        let name = Self::any(bytes)?;
        if bytes.starts_with(OWN_PREFIX) {
            Err(NameError::Ours)
        } else {
            Ok(name)
        }
    }

    /// Checks `bytes` as one component; our own names pass.
    pub fn any(bytes: &'a [u8]) -> Result<Self, NameError> {
        match bytes {
            [] => Err(NameError::Empty),
            b"." | b".." => Err(NameError::Dots),
            _ if bytes.len() > NAME_BYTES_MAX => Err(NameError::TooLong),
            _ if bytes.iter().any(|b| matches!(b, b'/' | 0)) => Err(NameError::Separator),
            _ => Ok(Self(bytes)),
        }
    }

    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    pub fn is_ours(self) -> bool {
        self.0.starts_with(OWN_PREFIX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_component_of_any_bytes() {
        for good in [
            &b"a"[..],
            b"...",
            b"\xff\xfe",
            b"a\nb",
            b"-rf",
            b".s",
            b".syx",
            &[b'x'; 255],
        ] {
            assert_eq!(Name::new(good).unwrap().bytes(), good);
        }
        for (bad, why) in [
            (&b""[..], NameError::Empty),
            (b".", NameError::Dots),
            (b"..", NameError::Dots),
            (b"a/b", NameError::Separator),
            (b"/abs", NameError::Separator),
            (b"a\0b", NameError::Separator),
            (b".sy.x", NameError::Ours),
            (&[b'x'; 256], NameError::TooLong),
            (&[b'x'; 65536], NameError::TooLong),
        ] {
            assert_eq!(Name::new(bad), Err(why));
        }
    }
}
