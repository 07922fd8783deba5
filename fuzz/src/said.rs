//! `Said`: what a source has told a target so far, read off its frames. Whatever has a final name at the target must be
//! something that it said to the end.

use std::collections::{BTreeMap, HashSet};

use sy::limits::CHUNK_BYTES;
use sy::wire::FrameKind;
use sy::wire::cursor::Reader;
use sy::wire::data::{Codec, DataHead, End};
use sy::wire::head::{FileDigest, chunk_digest};
use sy::wire::hello::Hello;
use sy::wire::pack::PackOp;
use sy::wire::sign::{chunk_bytes_at, decode_tokens};

/// Bytes of a simulated file, which is memory, at most.
const FILE_BYTES_BEARABLE: u64 = 8 << 20;
/// A file larger than that is refused by the simulated disk, and costs nothing.
const FILE_BYTES_REFUSED: u64 = 1 << 30;

#[derive(Default)]
pub struct Said {
    /// The first, if the first frame was one.
    pub hello: Option<Hello>,
    has_begun: bool,
    contents: HashSet<Vec<u8>>,
    larges: BTreeMap<u32, Large>,
}

#[derive(Default)]
struct Large {
    size: u64,
    /// Bytes of each chunk, by its offset.
    chunks: BTreeMap<u64, usize>,
    /// Of what was sent. `None`: a chunk was short or came twice, so the whole has another.
    digest: Option<FileDigest>,
    end: Option<FileDigest>,
}

impl Said {
    /// Whether a simulated disk has the memory for what a frame announces.
    pub fn is_bearable(kind: FrameKind, payload: &[u8]) -> bool {
        let mut reader = Reader::new(payload, "PACK frame");
        while kind == FrameKind::Pack
            && let Ok(op) = PackOp::decode(&mut reader)
        {
            if let PackOp::Begin { size, .. } = op
                && (FILE_BYTES_BEARABLE..=FILE_BYTES_REFUSED).contains(&size)
            {
                return false;
            }
        }
        true
    }

    pub fn note(&mut self, kind: FrameKind, payload: &[u8]) {
        if !self.has_begun && kind != FrameKind::Ignorable {
            self.has_begun = true;
            self.hello = Some(payload)
                .filter(|_| kind == FrameKind::Hello)
                .and_then(|payload| Hello::decode(payload).ok());
        }
        match kind {
            FrameKind::Pack => self.note_pack(payload),
            FrameKind::Data => {
                if let Ok((head, content)) = DataHead::decode(payload) {
                    self.note_chunk(&head, content.len());
                }
            }
            FrameKind::Tokens => {
                if let Ok((head, _)) = decode_tokens(payload) {
                    self.note_chunk(&head, 0);
                }
            }
            FrameKind::End => {
                if let Ok(End { file, digest }) = End::decode(payload)
                    && let Some(large) = self.larges.get_mut(&file.0)
                    && large.end.is_none()
                {
                    large.end = digest;
                }
            }
            FrameKind::Hello
            | FrameKind::List
            | FrameKind::Done
            | FrameKind::Sign
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
            | FrameKind::Digests => {}
        }
    }

    fn note_pack(&mut self, payload: &[u8]) {
        let mut reader = Reader::new(payload, "PACK frame");
        while let Ok(op) = PackOp::decode(&mut reader) {
            if let PackOp::File { content, .. } = op {
                self.contents.insert(content.to_vec());
            } else if let PackOp::Begin { file, size, .. } = op {
                self.larges.entry(file.0).or_insert_with(|| Large {
                    size,
                    digest: Some(FileDigest::default()),
                    ..Large::default()
                });
            }
        }
    }

    fn note_chunk(&mut self, head: &DataHead, content_bytes: usize) {
        let Some(large) = self.larges.get_mut(&head.file.0) else {
            return;
        };
        let whole = chunk_bytes_at(head.offset, large.size).unwrap_or(0);
        let is_given = head.codec == Codec::Plain && content_bytes > 0;
        let bytes = if is_given { content_bytes } else { whole };
        let is_new = large.chunks.insert(head.offset, bytes).is_none();
        if !is_new || bytes != whole {
            large.digest = None;
        }
        if let Some(digest) = &mut large.digest {
            digest.add(head.offset, head.digest);
        }
    }

    /// The size of a large file that has begun and not ended.
    pub fn size_of(&self, file: u32) -> Option<u64> {
        let large = self.larges.get(&file)?;
        large.end.is_none().then_some(large.size)
    }

    /// Chunks of a large file that came.
    pub fn chunks_count(&self, file: u32) -> usize {
        self.larges.get(&file).map_or(0, |large| large.chunks.len())
    }

    /// The digest that its END would have.
    pub fn digest_of(&self, file: u32) -> FileDigest {
        let large = self.larges.get(&file);
        large.and_then(|large| large.digest).unwrap_or_default()
    }

    /// Whether a file of that content was said as a whole. Of one whose chunks overlap or leave gaps, which a source may
    /// make up a digest for, only that it ended, with its size.
    pub fn is_whole(&self, content: &[u8]) -> bool {
        let ends_so = |large: &Large| {
            large.size == content.len() as u64
                && large
                    .end
                    .is_some_and(|end| large.digest.is_none() || end == digest_of_content(content))
        };
        self.contents.contains(content) || self.larges.values().any(ends_so)
    }
}

fn digest_of_content(content: &[u8]) -> FileDigest {
    let mut digest = FileDigest::default();
    let offsets = (0..).step_by(CHUNK_BYTES);
    for (offset, chunk) in offsets.zip(content.chunks(CHUNK_BYTES)) {
        digest.add(offset, chunk_digest(chunk));
    }
    digest
}
