//! OWNERS and MAPPED: the source says what its owners are called, the target which number that is
//! where it stands.

use super::cursor::{Reader, Writer};
use super::error::WireError;
use crate::model::owner::{Owner, OwnerKind, is_owner_name};

/// Bytes of the longest item of an OWNERS frame.
pub const DECLARED_BYTES_MAX: usize = 1 + 4 + 1 + 255;
/// Bytes of an item of a MAPPED frame.
pub const MAPPED_BYTES: usize = 1 + 4 + 4;

/// What an owner of the source is called.
///
/// ```text
///  0      1    5
///  | kind | id  | name
///  | u8   | u32 | u8 and 1 to 255 bytes, no NUL, colon or newline
///
///  kind: 1 user, 2 group
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Declared<'a> {
    pub owner: Owner,
    pub name: &'a [u8],
}

impl<'a> Declared<'a> {
    pub fn encode(&self, writer: &mut Writer<'_>) {
        encode_owner(self.owner, writer);
        writer.name(self.name);
    }

    pub fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let owner = decode_owner(reader)?;
        let len = reader.u8()?;
        let name = reader.bytes(usize::from(len))?;
        if is_owner_name(name) {
            Ok(Self { owner, name })
        } else {
            Err(WireError::Forbidden {
                what: "name of an owner",
                value: u64::from(owner.id),
            })
        }
    }
}

/// The target's number of an owner of the source.
///
/// ```text
///  0      1     5
///  | kind | id  | number |
///  | u8   | u32 | u32    |
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapped {
    pub owner: Owner,
    pub number: u32,
}

impl Mapped {
    pub fn encode(&self, writer: &mut Writer<'_>) {
        encode_owner(self.owner, writer);
        writer.u32(self.number);
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let owner = decode_owner(reader)?;
        let number = reader.id("number of an owner")?;
        Ok(Self { owner, number })
    }
}

fn encode_owner(owner: Owner, writer: &mut Writer<'_>) {
    writer.u8(match owner.kind {
        OwnerKind::User => 1,
        OwnerKind::Group => 2,
    });
    writer.u32(owner.id);
}

fn decode_owner(reader: &mut Reader<'_>) -> Result<Owner, WireError> {
    let forbidden = |what, value| Err(WireError::Forbidden { what, value });
    let kind = match reader.u8()? {
        1 => OwnerKind::User,
        2 => OwnerKind::Group,
        other => return forbidden("kind of an owner", u64::from(other)),
    };
    let id = reader.u32()?;
    let owner = Owner { kind, id };
    if owner.has_name() {
        Ok(owner)
    } else {
        forbidden("owner that has no name", u64::from(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(kind: u8, id: u32, name: &[u8]) -> Vec<u8> {
        let mut payload = [0; DECLARED_BYTES_MAX];
        let mut writer = Writer::new(&mut payload);
        writer.u8(kind);
        writer.u32(id);
        writer.name(name);
        let len = writer.at();
        payload[..len].to_vec()
    }

    #[test]
    fn items_come_back_as_they_were_written() {
        let mut payload = [0; 1000];
        let mut writer = Writer::new(&mut payload);
        let longest = [b'n'; 255];
        let items = [
            (Owner::user(1000), &b"ann"[..]),
            (Owner::group(1000), b"DOMAIN\\some users"),
            (Owner::user(u32::MAX - 1), &longest),
        ]
        .map(|(owner, name)| Declared { owner, name });
        for item in &items {
            item.encode(&mut writer);
        }
        let mapped = Mapped {
            owner: Owner::group(1),
            number: 0,
        };
        mapped.encode(&mut writer);
        let len = writer.at();
        let mut reader = Reader::new(&payload[..len], "OWNERS frame");
        for item in items {
            assert_eq!(Declared::decode(&mut reader), Ok(item));
        }
        assert_eq!(Mapped::decode(&mut reader), Ok(mapped));
        reader.finish().unwrap();
        assert_eq!(
            declared(1, 1000, b"ann"),
            b"\x01\xe8\x03\x00\x00\x03ann",
            "the bytes of the specification"
        );
    }

    #[test]
    fn what_is_no_owner_or_no_name_is_refused() {
        let decode = |payload: &[u8]| {
            Declared::decode(&mut Reader::new(payload, "OWNERS frame")).map(|_| ())
        };
        assert_eq!(decode(&declared(2, 7, b"x")), Ok(()));
        for (kind, id, name) in [
            (0, 7, &b"x"[..]),
            (3, 7, b"x"),
            (1, 0, b"root"),
            (1, u32::MAX, b"x"),
            (1, 7, b""),
            (1, 7, b"a\0b"),
            (1, 7, b"a:b"),
            (2, 7, b"a\n"),
        ] {
            let refused = decode(&declared(kind, id, name));
            assert!(
                matches!(refused, Err(WireError::Forbidden { .. })),
                "{kind} {id} {name:?}: {refused:?}"
            );
        }
        let whole = declared(1, 7, b"name");
        for len in 0..whole.len() {
            let cut = decode(&whole[..len]);
            assert!(matches!(cut, Err(WireError::CutShort { .. })), "{len}");
        }
        let mut payload = [0; MAPPED_BYTES];
        let mut writer = Writer::new(&mut payload);
        writer.u8(1);
        writer.u32(7);
        writer.u32(u32::MAX);
        let refused = Mapped::decode(&mut Reader::new(&payload, "MAPPED frame"));
        assert!(matches!(refused, Err(WireError::Forbidden { .. })));
    }
}
