//! Frames as they go over a stream, and back.

use sy::limits::{FRAME_HEAD_BYTES, PAYLOAD_BYTES_MAX};
use sy::wire::cursor::Writer;
use sy::wire::{FrameKind, Head, seal};

pub const KINDS: [FrameKind; 20] = [
    FrameKind::Hello,
    FrameKind::List,
    FrameKind::Pack,
    FrameKind::Data,
    FrameKind::End,
    FrameKind::Done,
    FrameKind::Sign,
    FrameKind::Tokens,
    FrameKind::Owners,
    FrameKind::Check,
    FrameKind::Ignorable,
    FrameKind::Welcome,
    FrameKind::Listing,
    FrameKind::Notice,
    FrameKind::Stop,
    FrameKind::Report,
    FrameKind::Refused,
    FrameKind::Signature,
    FrameKind::Mapped,
    FrameKind::Digests,
];

/// Bytes of a payload in which whatever is put together choice by choice has room.
const SMALL_BYTES: usize = 16 * 1024;

/// A payload of a few things.
pub fn payload(fill: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    written(SMALL_BYTES, fill)
}

/// What `fill` writes into at most so many bytes.
pub fn written(room: usize, fill: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = vec![0; room];
    let mut writer = Writer::new(&mut bytes);
    fill(&mut writer);
    let len = writer.at();
    bytes.truncate(len);
    bytes
}

/// The frame of a payload, its head with the right checks.
pub fn sealed(kind: FrameKind, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(PAYLOAD_BYTES_MAX)];
    let mut frame = vec![0; FRAME_HEAD_BYTES];
    frame.extend_from_slice(payload);
    seal(&mut frame, kind, payload.len());
    frame
}

/// Takes the next whole frame off what our own side has said; all of it must be in order.
pub fn next(heard: &mut Vec<u8>) -> Option<(FrameKind, Vec<u8>)> {
    let head = Head::decode(heard.first_chunk()?).expect("a head of ours is in order");
    let end = FRAME_HEAD_BYTES + head.payload_bytes;
    let payload = heard.get(FRAME_HEAD_BYTES..end)?.to_vec();
    head.verify(&payload).expect("a body of ours is in order");
    heard.drain(..end);
    Some((head.kind, payload))
}
