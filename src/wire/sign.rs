//! SIGN and SIGNATURE: the sums of basis files, asked for and answered. TOKENS: a chunk in terms of
//! its basis.

use super::cursor::{Reader, Writer};
use super::data::{Codec, DATA_HEAD_BYTES, DataHead};
use super::error::WireError;
use crate::limits::{CHUNK_BYTES, SUM_BYTES};
use crate::model::id::FileId;

/// Bytes of one item of SIGN.
pub const SIGN_ITEM_BYTES: usize = 4 + 8 + 4;
/// Bytes of a section of SIGNATURE before its sums.
pub const SECTION_HEAD_BYTES: usize = 4 + 1 + 8 + 8 + 4;

/// Asks for the sums of some blocks of a begun file's basis.
///
/// ```text
///  0      4             12      16
///  | file | first block | count |
///  | u32  | u64         | u32   |
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    pub file: FileId,
    pub first: u64,
    /// At least one.
    pub count: u32,
}

impl Ask {
    pub fn encode(self, writer: &mut Writer<'_>) {
        writer.u32(self.file.0);
        writer.u64(self.first);
        writer.u32(self.count);
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let file = FileId(reader.u32()?);
        let first = reader.u64()?;
        let count = reader.u32()?;
        if count == 0 || first.checked_add(u64::from(count)).is_none() {
            return Err(WireError::Forbidden {
                what: "count of blocks",
                value: u64::from(count),
            });
        }
        Ok(Self { file, first, count })
    }
}

/// The answer to one `Ask`.
///
/// ```text
///  0      4        5             13            21      25
///  | file | status | basis bytes | first block | count | sums, 12 bytes each
///  | u32  | u8     | u64         | u64         | u32   |
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Section<'a> {
    pub file: FileId,
    pub first: u64,
    /// The size of the basis when it was opened, and the sums of all blocks that were asked for.
    /// `None`: there is no basis, or it could not be read.
    pub sums: Option<(u64, &'a [u8])>,
}

const NONE: u8 = 0;
const SUMS: u8 = 1;

impl<'a> Section<'a> {
    /// Writes all but the sums, which stand behind it.
    pub fn encode_head(writer: &mut Writer<'_>, ask: Ask, basis_bytes: Option<u64>) {
        writer.u32(ask.file.0);
        writer.u8(if basis_bytes.is_some() { SUMS } else { NONE });
        writer.u64(basis_bytes.unwrap_or(0));
        writer.u64(ask.first);
        writer.u32(if basis_bytes.is_some() { ask.count } else { 0 });
    }

    pub fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let file = FileId(reader.u32()?);
        let status = reader.u8()?;
        let basis_bytes = reader.u64()?;
        let first = reader.u64()?;
        let count = reader.u32()?;
        let sums = match (status, basis_bytes, count) {
            (NONE, 0, 0) => None,
            (SUMS, _, 1..) => {
                let bytes = usize::try_from(count)
                    .unwrap_or(usize::MAX)
                    .saturating_mul(SUM_BYTES);
                Some((basis_bytes, reader.bytes(bytes)?))
            }
            _ => {
                return Err(WireError::Forbidden {
                    what: "SIGNATURE status",
                    value: u64::from(status),
                });
            }
        };
        Ok(Self { file, first, sums })
    }
}

/// The head of a TOKENS payload, and the runs behind it. The head is a DATA's: of the chunk as it
/// will be.
pub fn decode_tokens(payload: &[u8]) -> Result<(DataHead, &[u8]), WireError> {
    let (head, runs) = payload
        .split_at_checked(DATA_HEAD_BYTES)
        .ok_or(WireError::CutShort {
            what: "TOKENS frame",
            at: payload.len(),
        })?;
    let head = DataHead::decode_fields(&mut Reader::new(head, "TOKENS frame"))?;
    if head.codec != Codec::Plain {
        return Err(WireError::Forbidden {
            what: "codec",
            value: head.codec as u64,
        });
    }
    Ok((head, runs))
}

/// Bytes of the chunk at `offset` of a file of `size` bytes; `None`: it has none there.
pub fn chunk_bytes_at(offset: u64, size: u64) -> Option<usize> {
    let rest = size.checked_sub(offset).filter(|rest| *rest > 0)?;
    Some(usize::try_from(rest).unwrap_or(usize::MAX).min(CHUNK_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask() -> Ask {
        Ask {
            file: FileId(7),
            first: 1 << 40,
            count: 2,
        }
    }

    #[test]
    fn asks_come_back_as_they_were_written_and_empty_ones_are_refused() {
        let mut bytes = [0; SIGN_ITEM_BYTES];
        ask().encode(&mut Writer::new(&mut bytes));
        assert_eq!(
            Ask::decode(&mut Reader::new(&bytes, "SIGN frame")),
            Ok(ask())
        );
        for (first, count) in [(0, 0), (u64::MAX, 1), (u64::MAX - 4, 6)] {
            let ask = Ask {
                first,
                count,
                ..ask()
            };
            ask.encode(&mut Writer::new(&mut bytes));
            assert!(Ask::decode(&mut Reader::new(&bytes, "SIGN frame")).is_err());
        }
        for cut in 0..bytes.len() {
            assert!(Ask::decode(&mut Reader::new(&bytes[..cut], "SIGN frame")).is_err());
        }
    }

    #[test]
    fn sections_come_back_and_any_other_status_is_refused() {
        let mut bytes = [9; SECTION_HEAD_BYTES + 2 * SUM_BYTES];
        Section::encode_head(&mut Writer::new(&mut bytes), ask(), Some(99));
        let section = Section::decode(&mut Reader::new(&bytes, "SIGNATURE frame")).unwrap();
        assert_eq!(section.sums, Some((99, &[9; 2 * SUM_BYTES][..])));
        for cut in 0..bytes.len() {
            assert!(Section::decode(&mut Reader::new(&bytes[..cut], "SIGNATURE frame")).is_err());
        }
        for (status, is_legal) in [(1, true), (0, false), (2, false), (4, false)] {
            bytes[4] = status;
            let decoded = Section::decode(&mut Reader::new(&bytes, "SIGNATURE frame"));
            assert_eq!(decoded.is_ok(), is_legal, "{status}");
        }
        Section::encode_head(&mut Writer::new(&mut bytes), ask(), None);
        let none = Section::decode(&mut Reader::new(&bytes, "SIGNATURE frame")).unwrap();
        assert_eq!(
            (none.file, none.first, none.sums),
            (FileId(7), 1 << 40, None)
        );
    }

    #[test]
    fn tokens_have_the_head_of_the_chunk() {
        let mut payload = [5; DATA_HEAD_BYTES + 13];
        let head = DataHead {
            file: FileId(3),
            offset: 2 * CHUNK_BYTES as u64,
            digest: 11,
            codec: Codec::Plain,
        };
        head.encode(&mut payload);
        assert_eq!(decode_tokens(&payload), Ok((head, &[5; 13][..])));
        for cut in 0..DATA_HEAD_BYTES {
            assert!(decode_tokens(&payload[..cut]).is_err());
        }
        payload[8] = 1;
        assert!(decode_tokens(&payload).is_err(), "an offset within a chunk");
        assert_eq!(chunk_bytes_at(0, 5), Some(5));
        assert_eq!(chunk_bytes_at(5, 5), None);
        assert_eq!(chunk_bytes_at(6, 5), None);
        assert_eq!(chunk_bytes_at(0, u64::MAX), Some(CHUNK_BYTES));
    }
}
