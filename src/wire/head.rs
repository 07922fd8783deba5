//! `Head`, the 16 bytes before every payload, and the checks over both.

use std::sync::LazyLock;

use twox_hash::{XxHash3_64, XxHash3_128};

use super::data::DATA_HEAD_BYTES;
use super::error::WireError;
use crate::limits::{CHUNK_BYTES, FRAME_HEAD_BYTES, PAYLOAD_BYTES_MAX};

/// The kinds of frames. 0x70 to 0x7f are ignorable by definition: a peer that does not know them
/// reads over them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FrameKind {
    Hello = 0x01,
    List = 0x02,
    Pack = 0x03,
    Data = 0x04,
    End = 0x05,
    Done = 0x06,
    Sign = 0x07,
    Tokens = 0x08,
    Owners = 0x09,
    Check = 0x0a,
    Ignorable = 0x70,
    Welcome = 0x81,
    Listing = 0x82,
    Notice = 0x83,
    Stop = 0x84,
    Report = 0x85,
    Refused = 0x86,
    Signature = 0x87,
    Mapped = 0x88,
    Digests = 0x89,
}

impl FrameKind {
    fn decode(kind: u8) -> Result<Self, WireError> {
        Ok(match kind {
            0x01 => Self::Hello,
            0x02 => Self::List,
            0x03 => Self::Pack,
            0x04 => Self::Data,
            0x05 => Self::End,
            0x06 => Self::Done,
            0x07 => Self::Sign,
            0x08 => Self::Tokens,
            0x09 => Self::Owners,
            0x0a => Self::Check,
            0x70..=0x7f => Self::Ignorable,
            0x81 => Self::Welcome,
            0x82 => Self::Listing,
            0x83 => Self::Notice,
            0x84 => Self::Stop,
            0x85 => Self::Report,
            0x86 => Self::Refused,
            0x87 => Self::Signature,
            0x88 => Self::Mapped,
            0x89 => Self::Digests,
            other => return Err(WireError::UnknownKind(other)),
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Hello => "HELLO",
            Self::List => "LIST",
            Self::Pack => "PACK",
            Self::Data => "DATA",
            Self::End => "END",
            Self::Done => "DONE",
            Self::Sign => "SIGN",
            Self::Tokens => "TOKENS",
            Self::Owners => "OWNERS",
            Self::Check => "CHECK",
            Self::Ignorable => "ignorable",
            Self::Welcome => "WELCOME",
            Self::Listing => "LISTING",
            Self::Notice => "NOTICE",
            Self::Stop => "STOP",
            Self::Report => "REPORT",
            Self::Refused => "REFUSED",
            Self::Signature => "SIGNATURE",
            Self::Mapped => "MAPPED",
            Self::Digests => "DIGESTS",
        }
    }
}

/// A decoded head.
///
/// ```text
///  0        4      5       6            8             16
///  | length | kind | flags | head check | body check  | payload ...
///  | u32    | u8   | u8 0  | u16        | u64         | length bytes
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    pub kind: FrameKind,
    /// Bytes of payload that follow, at most `PAYLOAD_BYTES_MAX`.
    pub payload_bytes: usize,
    body_check: u64,
}

impl Head {
    /// Reads a head; a wrong check or an impossible length never gets further than this.
    pub fn decode(bytes: &[u8; FRAME_HEAD_BYTES]) -> Result<Self, WireError> {
        let (fields, check) = head_parts(bytes);
        if head_check(&fields) != check {
            return Err(WireError::HeadDamaged);
        }
        let payload_bytes = u32::from_le_bytes([fields[0], fields[1], fields[2], fields[3]]);
        let too_long = WireError::TooLong {
            bytes: payload_bytes,
        };
        let payload_bytes = usize::try_from(payload_bytes).map_err(|_| too_long.clone())?;
        if payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(too_long);
        }
        if fields[5] != 0 {
            return Err(WireError::Forbidden {
                what: "frame flags",
                value: u64::from(fields[5]),
            });
        }
        let body_check =
            u64::from_le_bytes(fields[6..14].try_into().expect("eight bytes of fourteen"));
        Ok(Self {
            kind: FrameKind::decode(fields[4])?,
            payload_bytes,
            body_check,
        })
    }

    /// Whether the first bytes of a stream that was cut off may be those of a head.
    pub fn may_begin(bytes: &[u8]) -> bool {
        let kind = bytes.get(4);
        kind.is_none_or(|kind| FrameKind::decode(*kind).is_ok())
            && bytes.get(3).is_none_or(|high| *high == 0)
    }

    /// Whether `payload` arrived as it was sent. The content of a DATA frame has a digest of its
    /// own, which whoever takes the content checks.
    pub fn verify(&self, payload: &[u8]) -> Result<(), WireError> {
        if body_check(self.kind, payload) == self.body_check {
            Ok(())
        } else {
            Err(WireError::BodyDamaged {
                kind: self.kind as u8,
            })
        }
    }
}

/// Writes the head of a frame whose payload stands in `block` behind the head's place.
/// Returns the frame's length in bytes.
pub fn seal(block: &mut [u8], kind: FrameKind, payload_bytes: usize) -> usize {
    assert!(payload_bytes <= PAYLOAD_BYTES_MAX);
    let end = FRAME_HEAD_BYTES + payload_bytes;
    let (head, payload) = block[..end].split_at_mut(FRAME_HEAD_BYTES);
    let mut fields = [0; 14];
    fields[..4].copy_from_slice(
        &u32::try_from(payload_bytes)
            .expect("bounded above")
            .to_le_bytes(),
    );
    fields[4] = kind as u8;
    fields[6..].copy_from_slice(&body_check(kind, payload).to_le_bytes());
    head[..6].copy_from_slice(&fields[..6]);
    head[6..8].copy_from_slice(&head_check(&fields).to_le_bytes());
    head[8..].copy_from_slice(&fields[6..]);
    end
}

/// A head without its check: length, kind, flags, body check.
fn head_parts(bytes: &[u8; FRAME_HEAD_BYTES]) -> ([u8; 14], u16) {
    let mut fields = [0; 14];
    fields[..6].copy_from_slice(&bytes[..6]);
    fields[6..].copy_from_slice(&bytes[8..]);
    (fields, u16::from_le_bytes([bytes[6], bytes[7]]))
}

fn head_check(fields: &[u8; 14]) -> u16 {
    let [low, high, ..] = XxHash3_64::oneshot(fields).to_le_bytes();
    u16::from_le_bytes([low, high])
}

fn body_check(kind: FrameKind, payload: &[u8]) -> u64 {
    let checked = match kind {
        FrameKind::Data => &payload[..payload.len().min(DATA_HEAD_BYTES)],
        FrameKind::Hello
        | FrameKind::List
        | FrameKind::Pack
        | FrameKind::End
        | FrameKind::Done
        | FrameKind::Sign
        | FrameKind::Tokens
        | FrameKind::Owners
        | FrameKind::Check
        | FrameKind::Ignorable
        | FrameKind::Welcome
        | FrameKind::Listing
        | FrameKind::Notice
        | FrameKind::Stop
        | FrameKind::Report
        | FrameKind::Refused
        | FrameKind::Signature
        | FrameKind::Mapped
        | FrameKind::Digests => payload,
    };
    XxHash3_64::oneshot(checked)
}

/// The digest of one chunk of a large file.
pub fn chunk_digest(content: &[u8]) -> u128 {
    XxHash3_128::oneshot(content)
}

/// The digest of a large file, from the digests of its chunks in any order: the sum of each chunk
/// digest hashed together with its offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FileDigest(pub u128);

impl FileDigest {
    /// Takes in the chunk that stands at `offset`.
    pub fn add(&mut self, offset: u64, chunk: u128) {
        let mut placed = [0; 24];
        placed[..8].copy_from_slice(&offset.to_le_bytes());
        placed[8..].copy_from_slice(&chunk.to_le_bytes());
        self.0 = self.0.wrapping_add(XxHash3_128::oneshot(&placed));
    }
}

/// `chunk_digest` of so many zeros; of a whole chunk it is worked out once.
pub fn hole_digest(len: usize) -> u128 {
    static ZEROS: [u8; CHUNK_BYTES] = [0; CHUNK_BYTES];
    static WHOLE: LazyLock<u128> = LazyLock::new(|| chunk_digest(&ZEROS));
    if len == CHUNK_BYTES {
        *WHOLE
    } else {
        chunk_digest(&ZEROS[..len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: FrameKind, payload: &[u8]) -> Vec<u8> {
        let mut block = vec![0; FRAME_HEAD_BYTES];
        block.extend_from_slice(payload);
        seal(&mut block, kind, payload.len());
        block
    }

    #[test]
    fn any_flipped_bit_of_a_frame_is_noticed() {
        let whole = frame(FrameKind::Pack, b"some payload of a pack");
        for bit in 0..whole.len() * 8 {
            let mut hurt = whole.clone();
            hurt[bit / 8] ^= 1 << (bit % 8);
            let (head, payload) = hurt.split_first_chunk().unwrap();
            let arrived = Head::decode(head).and_then(|head| head.verify(payload));
            assert!(arrived.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn lengths_at_and_beyond_the_limit() {
        for (bytes, fits) in [(0, true), (PAYLOAD_BYTES_MAX, true)] {
            let whole = frame(FrameKind::Pack, &vec![7; bytes]);
            assert_eq!(Head::decode(whole.first_chunk().unwrap()).is_ok(), fits);
        }
        let over = u32::try_from(PAYLOAD_BYTES_MAX).unwrap() + 1;
        for bytes in [over, 1 << 31, u32::MAX] {
            let mut fields = [0; 14];
            fields[..4].copy_from_slice(&bytes.to_le_bytes());
            fields[4] = FrameKind::Pack as u8;
            let mut head = [0; FRAME_HEAD_BYTES];
            head[..6].copy_from_slice(&fields[..6]);
            head[6..8].copy_from_slice(&head_check(&fields).to_le_bytes());
            assert_eq!(Head::decode(&head), Err(WireError::TooLong { bytes }));
        }
    }

    #[test]
    fn a_file_digest_does_not_depend_on_the_order_of_its_chunks() {
        let chunks = [
            (0, chunk_digest(b"a")),
            (262_144, chunk_digest(b"b")),
            (524_288, chunk_digest(b"a")),
        ];
        let (mut forth, mut back, mut swapped) = (
            FileDigest::default(),
            FileDigest::default(),
            FileDigest::default(),
        );
        chunks
            .iter()
            .for_each(|(offset, digest)| forth.add(*offset, *digest));
        chunks
            .iter()
            .rev()
            .for_each(|(offset, digest)| back.add(*offset, *digest));
        assert_eq!(forth, back);
        for (offset, digest) in [
            (0, chunks[1].1),
            (262_144, chunks[0].1),
            (524_288, chunks[2].1),
        ] {
            swapped.add(offset, digest);
        }
        assert_ne!(forth, swapped);
    }
}
