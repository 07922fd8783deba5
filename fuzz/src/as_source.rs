//! `AsSource`: a hostile source. Each choice makes a frame that a target might take, or one that it must not.

use std::num::NonZeroU32;
use std::time::Duration;

use sy::limits::{CHUNK_BYTES, PACK_FILE_BYTES_MAX};
use sy::model::entry::{Kind, Meta};
use sy::model::id::{DirId, FileId, ROOT, SessionId};
use sy::model::name::Name;
use sy::model::owner::{Owner, OwnerKind};
use sy::model::policy::{Durability, Policy};
use sy::model::time::Mtime;
use sy::wire::check::{CheckItem, decode_digests};
use sy::wire::cursor::{Reader, Writer};
use sy::wire::data::{Codec, DATA_HEAD_BYTES, DataHead, End};
use sy::wire::head::{FileDigest, chunk_digest, hole_digest};
use sy::wire::hello::{Hello, Refused, Welcome};
use sy::wire::list::{ListingReader, Request};
use sy::wire::owners::{Declared, Mapped};
use sy::wire::pack::{OP_BYTES_MAX, PackOp, Room};
use sy::wire::report::{Done, Notice, Report, Stop};
use sy::wire::sign::{Ask, Section, chunk_bytes_at};
use sy::wire::{FrameKind, WireError};

use crate::choices::Choices;
use crate::frame;
use crate::planted::BIG;
use crate::rig::Rig;
use crate::said::Said;

/// Names in the directories at the target, and some that are in none.
const NAMES: [&[u8]; 16] = [
    b"a", b"b", b"big", b"e", b"f", b"g", b"h", b"l", b"ln", b"p", b"s", b"new", b"x\n\xff", b"-",
    b"y", b"z",
];
/// Sizes around which a large file is another case.
const SIZES: [u64; 10] = [
    0,
    1,
    5000,
    CHUNK_BYTES as u64 - 1,
    CHUNK_BYTES as u64,
    CHUNK_BYTES as u64 + 1,
    CHUNK_BYTES as u64 + 40_000,
    2 * CHUNK_BYTES as u64 + 1,
    1 << 40,
    (1 << 63) - 1,
];
const MODES: [u16; 8] = [0o644, 0o755, 0o600, 0o444, 0, 0o4755, 0o2775, 0o7777];
const BLOCK_BYTES: [u32; 4] = [0, 4096, 8192, 262_144];
/// The key of all sums, on either side.
pub const SUM_KEY: [u8; 32] = [5; 32];
/// Operations of one PACK and items of one other frame, at most.
const ITEMS_MAX: usize = 8;

#[derive(Default)]
pub struct AsSource {
    pub said: Said,
    next_dir: u32,
    next_file: u32,
    next_check: u32,
    /// The target has said something.
    is_answered: bool,
    /// It has said its last word.
    is_dismissed: bool,
}

impl AsSource {
    /// Says what the next choices come to, or lets time pass.
    pub fn step(&mut self, choices: &mut Choices<'_>, rig: &mut Rig) {
        rig.hear();
        self.take(rig);
        match choices.below(16) {
            0 | 1 => self.pack(choices, rig),
            2 => self.list(choices, rig),
            3 | 4 => self.data(choices, rig),
            5 => self.tokens(choices, rig),
            6 => self.end(choices, rig),
            7 => self.sign(choices, rig),
            8 => self.check(choices, rig),
            9 => self.owners(choices, rig),
            10 => {
                let errors = u64::from(choices.byte());
                let done = frame::payload(|writer| Done { errors }.encode(writer));
                self.say(FrameKind::Done, &done, rig);
            }
            11 | 12 => rig.pass(Duration::from_millis(choices.pick(&[1, 20, 500, 16_000]))),
            13 => {
                let kind = choices.pick(&frame::KINDS);
                let payload = choices.counted();
                if Said::is_bearable(kind, payload) {
                    self.say(kind, payload, rig);
                }
            }
            14 => {
                let whole = frame::sealed(choices.pick(&frame::KINDS), choices.counted());
                let mut hurt = whole;
                let at = choices.below(hurt.len().min(256));
                hurt[at] ^= choices.byte();
                let kept = hurt.len() - choices.below(hurt.len().min(256));
                rig.say(&hurt[..kept]);
            }
            _ => self.say(FrameKind::Ignorable, choices.counted(), rig),
        }
        self.take(rig);
    }

    /// Takes in what the target has said: in order by the protocol, whatever it heard.
    pub fn take(&mut self, rig: &mut Rig) {
        while let Some((kind, payload)) = frame::next(&mut rig.heard) {
            if kind == FrameKind::Ignorable {
                continue;
            }
            let is_first = !std::mem::replace(&mut self.is_answered, true);
            let may_be_first = matches!(kind, FrameKind::Welcome | FrameKind::Refused);
            assert!(may_be_first || !is_first, "{} first", kind.name());
            assert!(kind != FrameKind::Welcome || is_first, "a second WELCOME");
            assert!(!self.is_dismissed, "{} after the last word", kind.name());
            self.is_dismissed = matches!(kind, FrameKind::Report | FrameKind::Refused);
            let read = read_answer(kind, &payload, self.said.hello.as_ref());
            read.expect("what our target says is in order");
        }
    }

    fn say(&mut self, kind: FrameKind, payload: &[u8], rig: &mut Rig) {
        self.said.note(kind, payload);
        rig.say(&frame::sealed(kind, payload));
    }

    /// A HELLO that may well be welcome: DEST is at or in the tree that is planted.
    pub fn hello(&mut self, choices: &mut Choices<'_>, is_module: bool, rig: &mut Rig) {
        let flags = choices.word();
        let is = |bit: u32| flags & (1 << bit) != 0;
        let policy = Policy {
            dry_run: is(0) && is(1),
            delete: is(2),
            delete_max: is(3).then(|| u64::from(choices.byte() % 4)),
            tell_deletes: is(4),
            durability: choices.pick(&[Durability::None, Durability::Session, Durability::File]),
            numeric_ids: is(5),
            partial: is(6),
            in_place: is(7),
            ..Policy::default()
        };
        let below = choices.pick::<&[&[u8]]>(&[
            &[b"dest"],
            &[b"dest"],
            &[b"dest", b"b"],
            &[b"dest", b"a"],
            &[b"dest", b"new"],
            &[b"dest", b"l"],
            &[b"dest", b"gap", b"x"],
            &[],
        ]);
        let is_relative = !is_module && is(10);
        let above: &[&[u8]] = if is_module || is_relative {
            &[]
        } else {
            &[b"t"]
        };
        let hello = Hello {
            session: SessionId(7),
            policy,
            patience: NonZeroU32::new(u32::from(choices.byte())),
            boot_id: [0; 16],
            sum_key: SUM_KEY,
            module: if is_module { b"m".to_vec() } else { Vec::new() },
            dest: above
                .iter()
                .chain(below)
                .map(|name| name.to_vec())
                .collect(),
            dest_is_relative: is_relative,
            dest_is_dir: is(8),
            single_file: is(9),
        };
        let payload = frame::payload(|writer| hello.encode(writer));
        self.say(FrameKind::Hello, &payload, rig);
    }

    /// A directory that was declared; mostly one of the last, sometimes one that never was.
    fn dir(&self, choices: &mut Choices<'_>) -> DirId {
        match u32::from(choices.byte()) {
            255 => DirId(u32::MAX),
            back => DirId(back % (self.next_dir + 2)),
        }
    }

    fn new_dir(&mut self, choices: &mut Choices<'_>) -> DirId {
        if choices.byte() >= 240 {
            return self.dir(choices);
        }
        self.next_dir += 1;
        DirId(self.next_dir)
    }

    /// A large file: mostly the last one.
    fn file(&self, choices: &mut Choices<'_>) -> FileId {
        let back = u32::from(choices.byte() / 64);
        FileId(self.next_file.saturating_sub(back))
    }

    fn list(&mut self, choices: &mut Choices<'_>, rig: &mut Rig) {
        let count = 1 + choices.below(ITEMS_MAX);
        let payload = frame::payload(|writer| {
            for _ in 0..count {
                let is_root = choices.byte() < 64;
                let request = if is_root {
                    Request {
                        dir: ROOT,
                        parent: ROOT,
                        name: None,
                    }
                } else {
                    Request {
                        parent: self.dir(choices),
                        name: Some(name(choices)),
                        dir: self.new_dir(choices),
                    }
                };
                request.encode(writer);
            }
        });
        self.say(FrameKind::List, &payload, rig);
    }

    fn pack(&mut self, choices: &mut Choices<'_>, rig: &mut Rig) {
        let count = 1 + choices.below(ITEMS_MAX);
        let mut payload = frame::payload(|writer| {
            for _ in 0..count {
                self.op(choices, writer);
            }
        });
        if choices.byte() == 255 {
            let op = PackOp::File {
                dir: ROOT,
                name: name(choices),
                meta: meta(choices, Kind::File),
                content: &vec![choices.byte(); PACK_FILE_BYTES_MAX],
            };
            payload = frame::written(OP_BYTES_MAX + PACK_FILE_BYTES_MAX, |writer| {
                op.encode(writer);
            });
        }
        self.say(FrameKind::Pack, &payload, rig);
    }

    fn op(&mut self, choices: &mut Choices<'_>, writer: &mut Writer<'_>) {
        let tag = choices.below(9);
        let dir = self.dir(choices);
        let name = name(choices);
        let op = match tag {
            0 => PackOp::Delete {
                dir,
                name,
                room: choices.pick(&[None, Some(Room::ForDir), Some(Room::ForOther)]),
            },
            1 | 2 => PackOp::MakeDir {
                parent: dir,
                name,
                id: self.new_dir(choices),
                mode: choices.pick(&MODES),
            },
            3 => {
                let meta = meta(choices, Kind::File);
                let count = choices.byte();
                PackOp::File {
                    dir,
                    name,
                    meta,
                    content: choices.bytes(usize::from(count)),
                }
            }
            4 => PackOp::Symlink {
                dir,
                name,
                meta: meta(choices, Kind::Symlink),
                target: choices.pick::<&[u8]>(&[
                    b"../../outside/d",
                    b"/outside/passwd",
                    b"b",
                    b"new",
                ]),
            },
            5 => {
                let kinds = [
                    Kind::Fifo,
                    Kind::Socket,
                    Kind::CharDevice,
                    Kind::BlockDevice,
                ];
                let kind = choices.pick(&kinds);
                PackOp::Node {
                    dir,
                    name,
                    meta: meta(choices, kind),
                    rdev: u64::from(choices.word()),
                }
            }
            6 => {
                let kinds = [Kind::File, Kind::Symlink, Kind::Fifo, Kind::Dir];
                let kind = choices.pick(&kinds);
                PackOp::Meta {
                    dir,
                    name,
                    meta: meta(choices, kind),
                    sets_time: choices.flag(),
                }
            }
            7 => {
                if choices.byte() < 240 {
                    self.next_file += 1;
                }
                PackOp::Begin {
                    dir,
                    name,
                    file: FileId(self.next_file),
                    meta: meta(choices, Kind::File),
                    size: choices.pick(&SIZES),
                    block_bytes: choices.pick(&BLOCK_BYTES),
                }
            }
            _ => PackOp::Close {
                dir,
                meta: choices.flag().then(|| meta(choices, Kind::Dir)),
            },
        };
        op.encode(writer);
    }

    /// A chunk: mostly the next one of a file, whole and with its digest.
    fn data(&mut self, choices: &mut Choices<'_>, rig: &mut Rig) {
        let file = self.file(choices);
        let offset = self.offset(file, choices);
        let whole = self.chunk_bytes(file, offset);
        let how = choices.byte();
        let fill = choices.byte();
        let (codec, bytes) = match how {
            0..192 => (Codec::Plain, whole),
            192..224 => (Codec::Hole, 0),
            _ => (Codec::Plain, usize::from(how).min(whole)),
        };
        let content = if fill == 255 {
            BIG.iter()
                .copied()
                .skip(usize::try_from(offset).unwrap_or(0))
                .take(bytes)
                .collect()
        } else {
            vec![fill; bytes]
        };
        let digest = match codec {
            Codec::Plain => chunk_digest(&content),
            Codec::Hole => hole_digest(whole),
        };
        let mut payload = vec![0; DATA_HEAD_BYTES];
        DataHead {
            file,
            offset,
            digest,
            codec,
        }
        .encode(&mut payload);
        payload.extend_from_slice(&content);
        self.say(FrameKind::Data, &payload, rig);
    }

    fn offset(&self, file: FileId, choices: &mut Choices<'_>) -> u64 {
        let index = match choices.byte() {
            0..224 => self.said.chunks_count(file.0) as u64,
            255 => 1 << 40,
            other => u64::from(other - 224) % 4,
        };
        index * CHUNK_BYTES as u64
    }

    fn chunk_bytes(&self, file: FileId, offset: u64) -> usize {
        let size = self.said.size_of(file.0).unwrap_or(7);
        chunk_bytes_at(offset, size).unwrap_or(7)
    }

    /// A chunk in terms of its basis, with the digest that it has if that is the file of more than a chunk.
    fn tokens(&mut self, choices: &mut Choices<'_>, rig: &mut Rig) {
        let file = self.file(choices);
        let offset = self.offset(file, choices);
        let mut left = self.chunk_bytes(file, offset);
        let mut chunk = Vec::new();
        let mut runs = Vec::new();
        for _ in 0..=choices.below(ITEMS_MAX) {
            let how = choices.byte();
            let len = match how / 64 {
                0 => usize::from(choices.byte()),
                1 => usize::from(choices.word()),
                _ => left,
            };
            if how & 1 == 0 {
                let from = match how & 6 {
                    0 => offset + chunk.len() as u64,
                    2 => u64::from(choices.word()),
                    4 => u64::from(choices.word()) * 8,
                    _ => u64::MAX - u64::from(choices.byte()),
                };
                runs.push(1);
                runs.extend_from_slice(&from.to_le_bytes());
                runs.extend_from_slice(&u32::try_from(len).unwrap_or(0).to_le_bytes());
                let from = usize::try_from(from).unwrap_or(usize::MAX);
                let copied = BIG.get(from..).unwrap_or_default();
                chunk.extend_from_slice(&copied[..len.min(copied.len())]);
            } else {
                runs.push(2);
                runs.extend_from_slice(&u32::try_from(len).unwrap_or(0).to_le_bytes());
                runs.resize(runs.len() + len, how);
                chunk.resize(chunk.len() + len, how);
            }
            left = left.saturating_sub(len);
        }
        let mut payload = vec![0; DATA_HEAD_BYTES];
        DataHead {
            file,
            offset,
            digest: chunk_digest(&chunk),
            codec: Codec::Plain,
        }
        .encode(&mut payload);
        payload.extend_from_slice(&runs);
        self.say(FrameKind::Tokens, &payload, rig);
    }

    fn end(&mut self, choices: &mut Choices<'_>, rig: &mut Rig) {
        let file = self.file(choices);
        let mut digest = Some(self.said.digest_of(file.0));
        match choices.byte() {
            0..192 => {}
            192..224 => digest = None,
            wrong => digest = digest.map(|it| FileDigest(it.0 ^ u128::from(wrong))),
        }
        let payload = frame::payload(|writer| End { file, digest }.encode(writer));
        self.say(FrameKind::End, &payload, rig);
    }

    fn sign(&mut self, choices: &mut Choices<'_>, rig: &mut Rig) {
        let count = 1 + choices.below(ITEMS_MAX);
        let payload = frame::payload(|writer| {
            for _ in 0..count {
                let ask = Ask {
                    file: self.file(choices),
                    first: choices.pick(&[0, 1, 2, 64, 75, 1 << 20, u64::MAX - 1]),
                    count: choices.pick(&[1, 2, 3, 64, 75, 76, 2048, 2049]),
                };
                ask.encode(writer);
            }
        });
        self.say(FrameKind::Sign, &payload, rig);
    }

    fn check(&mut self, choices: &mut Choices<'_>, rig: &mut Rig) {
        let count = choices.below(ITEMS_MAX);
        self.next_check += 1;
        let payload = frame::payload(|writer| {
            writer.u32(self.next_check);
            for _ in 0..count {
                let item = CheckItem {
                    dir: self.dir(choices),
                    size: choices.pick(&[0, 5, 9000, BIG.len() as u64, 1 << 40]),
                    name: name(choices),
                };
                item.encode(writer);
            }
        });
        self.say(FrameKind::Check, &payload, rig);
    }

    fn owners(&mut self, choices: &mut Choices<'_>, rig: &mut Rig) {
        let count = 1 + choices.below(ITEMS_MAX);
        let payload = frame::payload(|writer| {
            for _ in 0..count {
                let declared = Declared {
                    owner: Owner {
                        kind: choices.pick(&[OwnerKind::User, OwnerKind::Group]),
                        id: 998 + u32::from(choices.byte() % 16),
                    },
                    name: choices.pick::<&[u8]>(&[b"ann", b"bob", b"root", b"nobody\x1b"]),
                };
                declared.encode(writer);
            }
        });
        self.say(FrameKind::Owners, &payload, rig);
    }
}

/// Reads a frame of a target to its end.
fn read_answer(kind: FrameKind, payload: &[u8], hello: Option<&Hello>) -> Result<(), WireError> {
    match kind {
        FrameKind::Welcome => Welcome::decode(payload).map(drop),
        FrameKind::Refused => Refused::decode(payload).map(drop),
        FrameKind::Report => Report::decode(payload).map(drop),
        FrameKind::Digests => decode_digests(payload).map(drop),
        FrameKind::Listing => {
            let has_partials = hello.is_some_and(|hello| hello.policy.partial);
            let mut reader = ListingReader::new(payload).with_partials(has_partials);
            while reader.section()?.is_some() {
                while reader.entry()?.is_some() {}
            }
            Ok(())
        }
        FrameKind::Notice => items(payload, Notice::decode),
        FrameKind::Stop => items(payload, Stop::decode),
        FrameKind::Signature => items(payload, Section::decode),
        FrameKind::Mapped => items(payload, Mapped::decode),
        FrameKind::Hello
        | FrameKind::List
        | FrameKind::Pack
        | FrameKind::Data
        | FrameKind::End
        | FrameKind::Done
        | FrameKind::Sign
        | FrameKind::Tokens
        | FrameKind::Owners
        | FrameKind::Check
        | FrameKind::Ignorable => Err(WireError::OutOfOrder { frame: kind.name() }),
    }
}

fn items<'a, T>(
    payload: &'a [u8],
    decode: impl Fn(&mut Reader<'a>) -> Result<T, WireError>,
) -> Result<(), WireError> {
    let mut reader = Reader::new(payload, "answer");
    while !reader.is_at_end() {
        decode(&mut reader)?;
    }
    Ok(())
}

fn name(choices: &mut Choices<'_>) -> Name<'static> {
    Name::new(choices.pick(&NAMES)).expect("each of them is one")
}

/// Mostly of the kind that is right.
fn meta(choices: &mut Choices<'_>, kind: Kind) -> Meta {
    let flags = choices.byte();
    Meta {
        kind: if flags == 255 { Kind::Socket } else { kind },
        mode: MODES[usize::from(flags % 8)],
        uid: if flags & 8 == 0 { 0 } else { 1000 },
        gid: if flags & 16 == 0 { 0 } else { 1000 },
        mtime: match flags & 0x60 {
            0 => Mtime { sec: 1, nsec: 1 },
            0x20 => Mtime {
                sec: i64::MIN,
                nsec: 999_999_999,
            },
            0x40 => Mtime {
                sec: i64::MAX,
                nsec: 0,
            },
            _ => Mtime { sec: -1, nsec: 0 },
        },
    }
}
