//! Matches a chunk of a source's file with the sums of its basis.

use super::basis::read_exact;
use super::read_pack::is_unchanged;
use crate::delta::aligned;
use crate::delta::block_size::Layout;
use crate::delta::index::Index;
use crate::delta::matcher::{Matcher, Piece, Turn};
use crate::delta::strong::Key;
use crate::delta::tokens::RunWriter;
use crate::limits::{CHUNK_BYTES, FRAME_HEAD_BYTES, PAYLOAD_BYTES_MAX};
use crate::model::entry::Stat;
use crate::model::id::FileId;
use crate::ops::disk::SharedFd;
use crate::ops::{Buf, Disk};
use crate::wire::FrameKind;
use crate::wire::data::{Codec, DATA_HEAD_BYTES, DataHead, is_zero};
use crate::wire::head::{chunk_digest, hole_digest};
use crate::wire::sign::chunk_bytes_at;

/// How blocks are looked for.
enum How {
    /// Anywhere.
    Anywhere(Box<Matcher>),
    /// Each in its own place only.
    InPlace(Key),
}

/// What goes from chunk to chunk of one file.
pub struct Matching {
    pub index: Index,
    how: How,
    /// Bytes behind the chunk that was matched last: they were read with it.
    carried: Vec<u8>,
}

impl Matching {
    /// `in_place`: the new version is written over its basis.
    pub fn new(layout: Layout, window_blocks: usize, key: &Key, in_place: bool) -> Self {
        Self {
            index: Index::with_window(layout, window_blocks),
            how: if in_place {
                How::InPlace(*key)
            } else {
                How::Anywhere(Box::new(Matcher::new(layout, key)))
            },
            carried: Vec::new(),
        }
    }
}

pub struct MatchChunk<D: Disk> {
    pub file: FileId,
    fd: SharedFd<D>,
    pub offset: u64,
    stat: Stat,
    pub matching: Box<Matching>,
    pub buf: Buf,
    /// A chunk and a block, made by the first job that has it.
    pub scratch: Vec<u8>,
    /// Out; `None`: the file is shorter than it was, or can't be read.
    pub matched: Option<Matched>,
    /// Out, with the last chunk: nobody has written to the file.
    pub is_unchanged: bool,
}

/// A frame that stands in the block.
pub struct Matched {
    /// DATA or TOKENS.
    pub kind: FrameKind,
    pub payload_bytes: usize,
    /// Of the chunk.
    pub digest: u128,
    pub literal_bytes: u64,
    pub copied_bytes: u64,
}

impl<D: Disk> MatchChunk<D> {
    pub fn new(
        (file, fd): (FileId, SharedFd<D>),
        (offset, stat): (u64, Stat),
        matching: Box<Matching>,
        buf: Buf,
        scratch: Vec<u8>,
    ) -> Self {
        Self {
            file,
            fd,
            offset,
            stat,
            matching,
            buf,
            scratch,
            matched: None,
            is_unchanged: false,
        }
    }

    pub fn run(&mut self, disk: &D) {
        self.matched = self.match_chunk(disk);
        let end = self.offset + CHUNK_BYTES as u64;
        self.is_unchanged = end >= self.stat.size
            && disk
                .stat(&self.fd)
                .is_ok_and(|after| is_unchanged(&self.stat, &after));
    }

    fn match_chunk(&mut self, disk: &D) -> Option<Matched> {
        let Matching {
            index,
            how,
            carried,
        } = &mut *self.matching;
        let here_bytes = chunk_bytes_at(self.offset, self.stat.size)?;
        let block_bytes = index.layout().block().byte_len();
        let rest = self.stat.size - self.offset;
        let ahead_bytes = match how {
            How::Anywhere(_) => block_bytes - 1,
            How::InPlace(_) => 0,
        };
        let seen_bytes = usize::try_from(rest)
            .unwrap_or(usize::MAX)
            .min(here_bytes + ahead_bytes);
        if self.scratch.len() < seen_bytes {
            self.scratch.resize(CHUNK_BYTES + block_bytes, 0);
        }
        let seen = &mut self.scratch[..seen_bytes];
        let (known, fresh) = seen.split_at_mut(carried.len());
        known.copy_from_slice(carried);
        let from = self.offset + carried.len() as u64;
        if !read_exact(disk, &self.fd, fresh, from) {
            return None;
        }
        let (here, ahead) = seen.split_at(here_bytes);
        carried.clear();
        carried.extend_from_slice(ahead);
        let is_hole = self.stat.is_sparse && is_zero(here);
        let digest = if is_hole {
            hole_digest(here_bytes)
        } else {
            chunk_digest(here)
        };
        let payload = &mut self.buf[FRAME_HEAD_BYTES..][..PAYLOAD_BYTES_MAX];
        DataHead {
            file: self.file,
            offset: self.offset,
            digest,
            codec: if is_hole { Codec::Hole } else { Codec::Plain },
        }
        .encode(payload);
        if is_hole {
            if let How::Anywhere(matcher) = how {
                matcher.pass(here_bytes);
            }
            index.follow(self.offset + here_bytes as u64);
            return Some(Matched {
                kind: FrameKind::Data,
                payload_bytes: DATA_HEAD_BYTES,
                digest,
                literal_bytes: here_bytes as u64,
                copied_bytes: 0,
            });
        }
        let content = &mut payload[DATA_HEAD_BYTES..];
        let mut writer = RunWriter::new(content);
        let turn = match how {
            How::Anywhere(matcher) => {
                let piece = Piece {
                    here,
                    ahead,
                    is_end: self.offset + seen_bytes as u64 == self.stat.size,
                };
                // At most 2 MiB of hashing: no need to go back in line.
                let mut budget_bytes = usize::MAX;
                matcher.step(index, &piece, &mut writer, &mut budget_bytes)
            }
            How::InPlace(key) => aligned::match_chunk(index, key, self.offset, here, &mut writer),
        };
        let (runs_bytes, literal_bytes, copied_bytes) = (
            writer.written_bytes(),
            writer.literal_bytes(),
            writer.copied_bytes(),
        );
        index.follow(self.offset + here_bytes as u64);
        Some(match turn {
            Turn::Runs => Matched {
                kind: FrameKind::Tokens,
                payload_bytes: DATA_HEAD_BYTES + runs_bytes,
                digest,
                literal_bytes,
                copied_bytes,
            },
            Turn::Plain | Turn::More => {
                content[..here_bytes].copy_from_slice(here);
                Matched {
                    kind: FrameKind::Data,
                    payload_bytes: DATA_HEAD_BYTES + here_bytes,
                    digest,
                    literal_bytes: here_bytes as u64,
                    copied_bytes: 0,
                }
            }
        })
    }
}
