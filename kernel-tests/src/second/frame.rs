//! Section 3: frames and their checks.

use twox_hash::XxHash3_64;

use super::Failure;
use super::alphabet::Put;

pub(super) const HEAD_BYTES: usize = 16;
pub(super) const PAYLOAD_BYTES_MAX: usize = 266_224;
/// What the body check of a DATA covers.
const DATA_FRONT_BYTES: usize = 32;

pub(super) const HELLO: u8 = 0x01;
pub(super) const LIST: u8 = 0x02;
pub(super) const PACK: u8 = 0x03;
pub(super) const DATA: u8 = 0x04;
pub(super) const END: u8 = 0x05;
pub(super) const DONE: u8 = 0x06;
pub(super) const SIGN_OF_LIFE: u8 = 0x70;
pub(super) const IGNORABLE_LAST: u8 = 0x7f;
pub(super) const WELCOME: u8 = 0x81;
pub(super) const LISTING: u8 = 0x82;
pub(super) const NOTICE: u8 = 0x83;
pub(super) const STOP: u8 = 0x84;
pub(super) const REPORT: u8 = 0x85;
pub(super) const REFUSED: u8 = 0x86;

/// A frame under construction: room for its head, then the payload.
#[derive(Debug)]
pub(super) struct Frame {
    bytes: Vec<u8>,
}

impl Frame {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; HEAD_BYTES],
        }
    }

    pub(super) fn payload_bytes(&self) -> usize {
        self.bytes.len() - HEAD_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.payload_bytes() == 0
    }

    /// The whole frame, its head filled in.
    pub(super) fn seal(mut self, kind: u8) -> Vec<u8> {
        let len = self.payload_bytes();
        assert!(len <= PAYLOAD_BYTES_MAX, "a payload of {len} bytes");
        let len = u32::try_from(len).expect("less than the longest payload");
        self.bytes[0..4].copy_from_slice(&len.to_le_bytes());
        self.bytes[4] = kind;
        let check = body_check(kind, &self.bytes[HEAD_BYTES..]);
        self.bytes[8..16].copy_from_slice(&check.to_le_bytes());
        let head: &[u8; HEAD_BYTES] = self.bytes.first_chunk().expect("it has a head");
        let check = head_check(head);
        self.bytes[6..8].copy_from_slice(&check);
        self.bytes
    }
}

impl Put for Frame {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

/// What a head that was received says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) kind: u8,
    pub(super) payload_bytes: usize,
    body_check: u64,
}

impl Head {
    /// The check comes before anything is believed.
    pub(super) fn read(bytes: &[u8; HEAD_BYTES]) -> Result<Self, Failure> {
        if bytes[6..8] != head_check(bytes) {
            return Err(Failure::protocol("a head does not agree with its check"));
        }
        let len = u32::from_le_bytes(*bytes.first_chunk().expect("a head is longer"));
        let payload_bytes = usize::try_from(len).unwrap_or(usize::MAX);
        if payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(Failure::protocol("a payload is too long"));
        }
        if bytes[5] != 0 {
            return Err(Failure::protocol("a frame has flags"));
        }
        Ok(Self {
            kind: bytes[4],
            payload_bytes,
            body_check: u64::from_le_bytes(*bytes.last_chunk().expect("a head is longer")),
        })
    }

    pub(super) fn check(&self, payload: &[u8]) -> Result<(), Failure> {
        if body_check(self.kind, payload) == self.body_check {
            Ok(())
        } else {
            Err(Failure::protocol("a payload does not agree with its check"))
        }
    }

    pub(super) fn is_ignorable(&self) -> bool {
        (SIGN_OF_LIFE..=IGNORABLE_LAST).contains(&self.kind)
    }
}

/// Of the 14 bytes around the check itself.
fn head_check(head: &[u8; HEAD_BYTES]) -> [u8; 2] {
    let mut covered = [0; HEAD_BYTES - 2];
    covered[..6].copy_from_slice(&head[..6]);
    covered[6..].copy_from_slice(&head[8..]);
    let [low, next, ..] = XxHash3_64::oneshot(&covered).to_le_bytes();
    [low, next]
}

fn body_check(kind: u8, payload: &[u8]) -> u64 {
    let covered = if kind == DATA {
        payload.len().min(DATA_FRONT_BYTES)
    } else {
        payload.len()
    };
    XxHash3_64::oneshot(&payload[..covered])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evil;

    #[test]
    fn a_frame_is_what_the_hand_written_peer_would_send() {
        for kind in [HELLO, DATA, DONE, SIGN_OF_LIFE] {
            for len in [0, 1, 31, 32, 33, 4096] {
                let payload = crate::content::noise(1, len);
                let mut frame = Frame::new();
                frame.put(&payload);
                assert_eq!(frame.seal(kind), evil::frame(kind, &payload));
            }
        }
    }

    #[test]
    fn a_flipped_bit_in_a_head_is_found_wherever_it_is() {
        let mut frame = Frame::new();
        frame.put(b"payload");
        let sealed = frame.seal(PACK);
        for bit in 0..HEAD_BYTES * 8 {
            let mut head = *sealed.first_chunk::<HEAD_BYTES>().expect("it has a head");
            head[bit / 8] ^= 1 << (bit % 8);
            assert!(Head::read(&head).is_err(), "bit {bit}");
        }
    }
}
