//! Sections 7 and 8: operations, DATA and END.

use twox_hash::XxHash3_128;

use super::alphabet::{Meta, Put};
use super::frame::{self, Frame};

pub(super) const CHUNK_BYTES: usize = 262_144;
pub(super) const LINK_TARGET_BYTES_MAX: usize = 4095;

fn placed(operation: u8, dir: u32, name: &[u8]) -> Vec<u8> {
    let mut op = vec![operation];
    op.put(&dir.to_le_bytes());
    op.put_name(name);
    op
}

pub(super) fn delete(dir: u32, name: &[u8], room: u8) -> Vec<u8> {
    let mut op = placed(1, dir, name);
    op.put(&[room]);
    op
}

pub(super) fn mkdir(parent: u32, name: &[u8], id: u32, permissions: u16) -> Vec<u8> {
    let mut op = placed(2, parent, name);
    op.put(&id.to_le_bytes());
    op.put(&permissions.to_le_bytes());
    op
}

pub(super) fn file(dir: u32, name: &[u8], meta: Meta, content: &[u8]) -> Vec<u8> {
    let mut op = placed(3, dir, name);
    op.put_meta(meta);
    let len = u32::try_from(content.len()).expect("at most a chunk");
    op.put(&len.to_le_bytes());
    op.put(content);
    op
}

pub(super) fn symlink(dir: u32, name: &[u8], meta: Meta, target: &[u8]) -> Vec<u8> {
    let mut op = placed(4, dir, name);
    op.put_meta(meta);
    op.put_text(target);
    op
}

pub(super) fn node(dir: u32, name: &[u8], meta: Meta, rdev: u64) -> Vec<u8> {
    let mut op = placed(5, dir, name);
    op.put_meta(meta);
    op.put(&rdev.to_le_bytes());
    op
}

pub(super) fn meta(dir: u32, name: &[u8], meta: Meta, sets_time: bool) -> Vec<u8> {
    let mut op = placed(6, dir, name);
    op.put_meta(meta);
    op.put(&[u8::from(sets_time)]);
    op
}

pub(super) fn begin(dir: u32, name: &[u8], file: u32, meta: Meta, size: u64) -> Vec<u8> {
    let mut op = placed(7, dir, name);
    op.put(&file.to_le_bytes());
    op.put_meta(meta);
    op.put(&size.to_le_bytes());
    op.put(&0_u32.to_le_bytes()); // no basis
    op
}

pub(super) fn close(dir: u32, meta: Option<Meta>) -> Vec<u8> {
    let mut op = vec![8];
    op.put(&dir.to_le_bytes());
    op.put(&[u8::from(meta.is_some())]);
    if let Some(meta) = meta {
        op.put_meta(meta);
    }
    op
}

/// A chunk's frame, and what it adds to the file's digest.
pub(super) fn data(file: u32, offset: u64, content: &[u8]) -> (Vec<u8>, u128) {
    let digest = XxHash3_128::oneshot(content).to_le_bytes();
    let mut placed = Vec::with_capacity(24);
    placed.put(&offset.to_le_bytes());
    placed.put(&digest);
    let mut frame = Frame::new();
    frame.put(&file.to_le_bytes());
    frame.put(&0_u32.to_le_bytes()); // plain
    frame.put(&offset.to_le_bytes());
    frame.put(&digest);
    frame.put(content);
    (frame.seal(frame::DATA), XxHash3_128::oneshot(&placed))
}

/// The end of a file's content, or of the attempt.
pub(super) fn end(file: u32, digest: Option<u128>) -> Vec<u8> {
    let mut frame = Frame::new();
    frame.put(&file.to_le_bytes());
    frame.put(&[u8::from(digest.is_none())]);
    frame.put(&digest.unwrap_or(0).to_le_bytes());
    frame.seal(frame::END)
}
