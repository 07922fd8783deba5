//! CHECK and DIGESTS: the source asks for the digests of files, the target answers.

use super::cursor::{Reader, Writer};
use super::error::WireError;
use crate::limits::CHECK_FILES_MAX;
use crate::model::id::DirId;
use crate::model::name::Name;

/// Bytes of a digest.
pub const DIGEST_BYTES: usize = 16;
/// A digest as it travels.
pub type DigestBytes = [u8; DIGEST_BYTES];
/// Bytes before the items of a CHECK or of DIGESTS: the number.
pub const NUMBER_BYTES: usize = 4;
/// Bytes of the longest item of CHECK.
pub const CHECK_ITEM_BYTES_MAX: usize = 4 + 8 + 1 + 255;
/// Bytes of an item of DIGESTS.
pub const DIGEST_ITEM_BYTES: usize = 1 + DIGEST_BYTES;

/// Asks for the digest of one file. CHECK is a number and items to its end.
///
/// ```text
///  0     4      12
///  | dir | size | name |
///  | u32 | u64  | name |
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckItem<'a> {
    pub dir: DirId,
    /// Of another size the digest is not wanted.
    pub size: u64,
    pub name: Name<'a>,
}

impl<'a> CheckItem<'a> {
    pub fn encode(&self, writer: &mut Writer<'_>) {
        writer.u32(self.dir.0);
        writer.u64(self.size);
        writer.name(self.name.bytes());
    }

    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        Ok(Self {
            dir: DirId(reader.u32()?),
            size: reader.u64()?,
            name: reader.name()?,
        })
    }
}

/// Reads a CHECK: its number. `each` gets its items.
pub fn decode_check(
    payload: &[u8],
    mut each: impl FnMut(CheckItem<'_>) -> Result<(), WireError>,
) -> Result<u32, WireError> {
    let mut reader = Reader::new(payload, "CHECK frame");
    let number = reader.u32()?;
    let mut count = 0;
    while !reader.is_at_end() {
        count += 1;
        if count > CHECK_FILES_MAX {
            return Err(too_many());
        }
        each(CheckItem::decode(&mut reader)?)?;
    }
    Ok(number)
}

/// Writes the answer for one file; its number stands before all of them.
///
/// ```text
///  0        1
///  | status | digest   |
///  | u8     | 16 bytes | status 0: there is none, the digest is 0; 1: it is there
/// ```
pub fn encode_digest(writer: &mut Writer<'_>, digest: Option<&DigestBytes>) {
    writer.u8(u8::from(digest.is_some()));
    writer.bytes(digest.unwrap_or(&[0; DIGEST_BYTES]));
}

/// Reads DIGESTS: their number, and what there is of each file, in the order of the items.
pub fn decode_digests(payload: &[u8]) -> Result<(u32, Vec<Option<DigestBytes>>), WireError> {
    let mut reader = Reader::new(payload, "DIGESTS frame");
    let number = reader.u32()?;
    let mut digests = Vec::with_capacity(payload.len() / DIGEST_ITEM_BYTES);
    while !reader.is_at_end() {
        let status = reader.u8()?;
        let digest = reader.id16()?;
        digests.push(match status {
            0 if digest == [0; DIGEST_BYTES] => None,
            1 => Some(digest),
            status => {
                return Err(WireError::Forbidden {
                    what: "status of a digest",
                    value: u64::from(status),
                });
            }
        });
        if digests.len() > CHECK_FILES_MAX {
            return Err(too_many());
        }
    }
    Ok((number, digests))
}

fn too_many() -> WireError {
    WireError::TooMany {
        what: "files whose digests are asked for at once",
        max: CHECK_FILES_MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &[u8]) -> CheckItem<'_> {
        CheckItem {
            dir: DirId(7),
            size: 1 << 40,
            name: Name::new(name).unwrap(),
        }
    }

    #[test]
    fn items_come_back_as_they_were_written_and_none_is_cut() {
        let mut payload = [0; 200];
        let mut writer = Writer::new(&mut payload);
        writer.u32(9);
        let mut ends = vec![writer.at()];
        for name in [&b"a"[..], b"bc"] {
            item(name).encode(&mut writer);
            ends.push(writer.at());
        }
        for cut in 0..=*ends.last().unwrap() {
            let mut items = 0;
            let read = decode_check(&payload[..cut], |read| {
                assert_eq!(read, item([&b"a"[..], b"bc"][items]));
                items += 1;
                Ok(())
            });
            let is_whole = ends.contains(&cut);
            assert_eq!(read, if is_whole { Ok(9) } else { read.clone() });
            assert_eq!(read.is_ok(), is_whole, "{cut}");
        }
    }

    #[test]
    fn more_files_than_one_ask_may_have_are_refused_on_either_side() {
        for (count, is_legal) in [(CHECK_FILES_MAX, true), (CHECK_FILES_MAX + 1, false)] {
            let mut payload = vec![0; NUMBER_BYTES + count * CHECK_ITEM_BYTES_MAX];
            let mut writer = Writer::new(&mut payload);
            writer.u32(1);
            (0..count).for_each(|_| item(b"x").encode(&mut writer));
            let len = writer.at();
            let read = decode_check(&payload[..len], |_| Ok(()));
            assert_eq!(read.is_ok(), is_legal);
            let mut writer = Writer::new(&mut payload);
            writer.u32(1);
            (0..count).for_each(|_| encode_digest(&mut writer, None));
            let len = writer.at();
            assert_eq!(decode_digests(&payload[..len]).is_ok(), is_legal);
        }
    }

    #[test]
    fn a_digest_is_there_or_it_is_zero() {
        let mut payload = [0; NUMBER_BYTES + 2 * DIGEST_ITEM_BYTES];
        let mut writer = Writer::new(&mut payload);
        writer.u32(3);
        encode_digest(&mut writer, Some(&[0; 16]));
        encode_digest(&mut writer, None);
        assert_eq!(decode_digests(&payload), Ok((3, vec![Some([0; 16]), None])));
        for cut in [0, 3, 5, 20, 37] {
            assert!(decode_digests(&payload[..cut]).is_err(), "{cut}");
        }
        for (at, byte) in [(4, 2), (37, 1)] {
            let mut hurt = payload;
            hurt[at] = byte;
            assert!(decode_digests(&hurt).is_err(), "{at}");
        }
    }
}
