//! `Liar`, an end that says something else than it should: it takes the frames that a session sends, and says
//! others for some of them, each with the checks that belong to it. So the other end hears what no line makes of
//! an honest word and a hostile peer may well say, and at the places of a push that a seed leads to.

use std::ops::Range;

use super::prng::Prng;
use crate::limits::{FRAME_HEAD_BYTES, PAYLOAD_BYTES_MAX};
use crate::wire::cursor::Reader;
use crate::wire::head::{Head, seal};
use crate::wire::pack::PackOp;
use crate::wire::{FrameKind, WireError};

/// How an end lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lies {
    /// Frames in a thousand that are not said as they are; the first one always is.
    pub per_mille: u32,
    pub seed: u64,
}

/// Frames that are kept to be said once more, at most.
const KEPT_MAX: usize = 8;
/// Names that nobody may use, and some that everybody does.
const NAMES: [&[u8]; 10] = [
    b"..",
    b".",
    b"",
    b"/",
    b"a/b",
    b"../outside/passwd",
    b".sy.0000000000000001.unclean",
    b"a",
    b"b",
    b"nul\0",
];
/// Kinds that a frame may be given out for.
const KINDS: [FrameKind; 14] = [
    FrameKind::Pack,
    FrameKind::Data,
    FrameKind::End,
    FrameKind::Done,
    FrameKind::Listing,
    FrameKind::Signature,
    FrameKind::Report,
    FrameKind::Ignorable,
    FrameKind::List,
    FrameKind::Sign,
    FrameKind::Tokens,
    FrameKind::Check,
    FrameKind::Stop,
    FrameKind::Notice,
];

#[derive(Debug)]
pub struct Liar {
    prng: Prng,
    per_mille: u32,
    /// The beginning of the frame that is not whole yet.
    unread: Vec<u8>,
    /// A frame that is said behind the next one.
    held: Option<(FrameKind, Vec<u8>)>,
    kept: Vec<(FrameKind, Vec<u8>)>,
    is_first_said: bool,
    lies_count: u64,
}

impl Liar {
    pub fn new(lies: Lies) -> Self {
        Self {
            prng: Prng::new(lies.seed),
            per_mille: lies.per_mille,
            unread: Vec::new(),
            held: None,
            kept: Vec::new(),
            is_first_said: false,
            lies_count: 0,
        }
    }

    /// What is said for these bytes of a session: whole frames.
    pub fn say(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.unread.extend_from_slice(bytes);
        let mut said = Vec::new();
        while let Some((kind, payload)) = self.next() {
            if std::mem::replace(&mut self.is_first_said, true) && self.prng.chance(self.per_mille)
            {
                self.lies_count += 1;
                self.lie(kind, payload, &mut said);
                continue;
            }
            say(kind, &payload, &mut said);
            if let Some((kind, payload)) = self.held.take() {
                say(kind, &payload, &mut said);
            }
            self.keep(kind, payload);
        }
        said
    }

    pub fn lies_count(&self) -> u64 {
        self.lies_count
    }

    /// What is left when the session sends no more.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut said = Vec::new();
        if let Some((kind, payload)) = self.held.take() {
            say(kind, &payload, &mut said);
        }
        said.append(&mut self.unread);
        said
    }

    fn next(&mut self) -> Option<(FrameKind, Vec<u8>)> {
        let head = Head::decode(self.unread.first_chunk()?).expect("a session's own head");
        let end = FRAME_HEAD_BYTES + head.payload_bytes;
        let payload = self.unread.get(FRAME_HEAD_BYTES..end)?.to_vec();
        self.unread.drain(..end);
        Some((head.kind, payload))
    }

    fn keep(&mut self, kind: FrameKind, payload: Vec<u8>) {
        if self.kept.len() < KEPT_MAX {
            self.kept.push((kind, payload));
        } else {
            let at = self.prng.index(KEPT_MAX * 4);
            if let Some(place) = self.kept.get_mut(at) {
                *place = (kind, payload);
            }
        }
    }

    fn lie(&mut self, kind: FrameKind, mut payload: Vec<u8>, said: &mut Vec<u8>) {
        match self.prng.below(16) {
            0 => {} // It is not said at all.
            1 => {
                say(kind, &payload, said);
                say(kind, &payload, said);
            }
            2 => self.held = Some((kind, payload)),
            3 => {
                say(kind, &payload, said);
                if !self.kept.is_empty() {
                    let (kind, payload) = self.prng.pick(&self.kept);
                    say(*kind, payload, said);
                }
            }
            4 => say(*self.prng.pick(&KINDS), &payload, said),
            5 => {
                payload.truncate(self.prng.index(payload.len() + 1));
                say(kind, &payload, said);
            }
            6 => {
                let more = payload[self.prng.index(payload.len() + 1)..].to_vec();
                payload.extend_from_slice(&more);
                say(kind, &payload, said);
            }
            7..=11 if kind == FrameKind::Pack => {
                let payload = self.other_operations(&payload).unwrap_or(payload);
                say(kind, &payload, said);
            }
            _ => {
                for _ in 0..self.prng.skewed(4) {
                    self.spoil(&mut payload);
                }
                say(kind, &payload, said);
            }
        }
    }

    /// Another value somewhere in a payload, as often as not one that stands in it already.
    fn spoil(&mut self, payload: &mut [u8]) {
        if payload.is_empty() {
            return;
        }
        // Numbers and names stand at the beginning, content behind.
        let len = payload.len() as u64;
        let at = usize::try_from(self.prng.skewed(len) - 1).expect("within");
        match self.prng.below(4) {
            0 => payload[at] = payload[at].wrapping_add(*self.prng.pick(&[1, 255])),
            1 => payload[at] = *self.prng.pick(&[0, 1, 2, 0x7f, 0xff]),
            2 => self.prng.fill(&mut payload[at..=at]),
            _ => {
                let width = (1 + self.prng.index(8)).min(payload.len() - at);
                let from = self.prng.index(payload.len() - width + 1);
                payload.copy_within(from..from + width, at);
            }
        }
    }

    /// Operations of a PACK in another order, left out, said twice, or of another place.
    fn other_operations(&mut self, payload: &[u8]) -> Result<Vec<u8>, WireError> {
        let mut ranges = ranges_of_operations(payload)?;
        if ranges.is_empty() {
            return Ok(payload.to_vec());
        }
        let at = self.prng.index(ranges.len());
        let other = self.prng.index(ranges.len());
        let mut changed = None;
        match self.prng.below(5) {
            0 => ranges.swap(at, other),
            1 => drop(ranges.remove(at)),
            2 => ranges.push(ranges[at].clone()),
            _ => changed = Some((at, self.misplaced(&payload[ranges[at].clone()]))),
        }
        let mut operations = Vec::new();
        for (number, range) in ranges.into_iter().enumerate() {
            match &changed {
                Some((at, operation)) if *at == number => operations.extend_from_slice(operation),
                _ => operations.extend_from_slice(&payload[range]),
            }
        }
        Ok(operations)
    }

    /// An operation with another directory, or with another name: behind its tag stand the directory's number
    /// and, of most, a counted name.
    fn misplaced(&mut self, operation: &[u8]) -> Vec<u8> {
        const NAME_AT: usize = 1 + 4;
        let mut operation = operation.to_vec();
        let has_name = operation[0] != 8; // CLOSE
        if has_name && self.prng.chance(600) {
            let end = NAME_AT + 1 + usize::from(operation[NAME_AT]);
            let name = *self.prng.pick(&NAMES);
            let len = u8::try_from(name.len()).expect("short");
            let counted = [len].into_iter().chain(name.iter().copied());
            operation.splice(NAME_AT..end, counted);
        } else {
            let dir = u32::try_from(self.prng.skewed(20) - 1).expect("small");
            operation[1..NAME_AT].copy_from_slice(&dir.to_le_bytes());
        }
        operation
    }
}

fn ranges_of_operations(payload: &[u8]) -> Result<Vec<Range<usize>>, WireError> {
    let mut reader = Reader::new(payload, "PACK");
    let mut ranges = Vec::new();
    while !reader.is_at_end() {
        let start = reader.at();
        PackOp::decode(&mut reader)?;
        ranges.push(start..reader.at());
    }
    Ok(ranges)
}

/// A frame in order.
fn say(kind: FrameKind, payload: &[u8], said: &mut Vec<u8>) {
    let payload = &payload[..payload.len().min(PAYLOAD_BYTES_MAX)];
    let at = said.len();
    said.resize(at + FRAME_HEAD_BYTES, 0);
    said.extend_from_slice(payload);
    seal(&mut said[at..], kind, payload.len());
}
