//! DATA and END: the content of a large file, chunk by chunk, and its end.

use super::cursor::{Reader, Writer};
use super::error::WireError;
use super::head::FileDigest;
use crate::limits::CHUNK_BYTES;
use crate::model::id::FileId;

/// Bytes of a DATA payload before the content.
pub const DATA_HEAD_BYTES: usize = 4 + 4 + 8 + 16;

/// The head of a DATA payload; the content follows to the end of the frame.
///
/// ```text
///  0      4       8        16           32
///  | file | codec | offset | digest     | content
///  | u32  | u32   | u64    | u128       | 1 to 256 KiB; none of a hole
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataHead {
    pub file: FileId,
    /// Where the content belongs, a multiple of `CHUNK_BYTES`.
    pub offset: u64,
    /// `head::chunk_digest` of the content.
    pub digest: u128,
    pub codec: Codec,
}

/// How a chunk stands in its frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Codec {
    Plain = 0,
    /// It is all zeros, and not there: as long as its place in the file.
    Hole = 1,
}

/// Whether nothing but zeros is there. Of other content the first bytes say so.
pub fn is_zero(content: &[u8]) -> bool {
    let (words, rest) = content.as_chunks::<64>();
    words.iter().all(|word| *word == [0; 64]) && rest.iter().all(|byte| *byte == 0)
}

impl DataHead {
    pub fn encode(&self, payload: &mut [u8]) {
        let mut writer = Writer::new(payload);
        writer.u32(self.file.0);
        writer.u32(self.codec as u32);
        writer.u64(self.offset);
        writer.u128(self.digest);
    }

    /// Reads the head of a whole payload and gives the content too.
    pub fn decode(payload: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let mut reader = Reader::new(payload, "DATA frame");
        let head = Self::decode_fields(&mut reader)?;
        let content = &payload[reader.at()..];
        let is_fit = match head.codec {
            Codec::Plain => (1..=CHUNK_BYTES).contains(&content.len()),
            Codec::Hole => content.is_empty(),
        };
        if !is_fit {
            return Err(WireError::Forbidden {
                what: "chunk length",
                value: content.len() as u64,
            });
        }
        Ok((head, content))
    }

    pub(super) fn decode_fields(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let file = FileId(reader.u32()?);
        let codec = match reader.u32()? {
            0 => Codec::Plain,
            1 => Codec::Hole,
            other => {
                return Err(WireError::Forbidden {
                    what: "codec",
                    value: u64::from(other),
                });
            }
        };
        let offset = reader.u64()?;
        if !offset.is_multiple_of(CHUNK_BYTES as u64) {
            return Err(WireError::Forbidden {
                what: "chunk offset",
                value: offset,
            });
        }
        let digest = reader.u128()?;
        Ok(Self {
            file,
            offset,
            digest,
            codec,
        })
    }
}

/// How the source finished with a large file.
///
/// ```text
///  0      4          5        21
///  | file | gives up | digest |
///  | u32  | flag     | u128   |
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    pub file: FileId,
    /// The digest of the whole; `None`: the source gives up on this file, drop it.
    pub digest: Option<FileDigest>,
}

impl End {
    pub fn encode(&self, writer: &mut Writer<'_>) {
        writer.u32(self.file.0);
        writer.u8(u8::from(self.digest.is_none()));
        writer.u128(self.digest.unwrap_or_default().0);
    }

    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload, "END frame");
        let file = FileId(reader.u32()?);
        let given_up = reader.u8()?;
        let digest = FileDigest(reader.u128()?);
        reader.finish()?;
        match (given_up, digest.0) {
            (0, _) => Ok(Self {
                file,
                digest: Some(digest),
            }),
            (1, 0) => Ok(Self { file, digest: None }),
            (other, _) => Err(WireError::Forbidden {
                what: "END status",
                value: u64::from(other),
            }),
        }
    }
}
