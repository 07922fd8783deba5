//! `AsTarget`: a hostile target. It hears what the source says, which has to be in order and about what is pushed
//! only, and answers as a target might, or as it must not.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use sy::delta::apply::{self, Step};
use sy::delta::block_size::{BlockSize, Layout};
use sy::delta::signature::Builder;
use sy::delta::strong::{ContentHasher, Key};
use sy::limits::SUM_BYTES;
use sy::model::entry::{Kind, Meta};
use sy::model::id::{DirId, FileId, ROOT};
use sy::model::listing;
use sy::model::name::Name;
use sy::model::owner::{Owner, OwnerKind};
use sy::model::partial::{NameHash, PartialName};
use sy::model::policy::Durability;
use sy::model::report::{Attempt, Exit, Why};
use sy::model::time::Mtime;
use sy::ops::Errno;
use sy::sim::tree::{Content, Entry};
use sy::wire::FrameKind;
use sy::wire::check::{DigestBytes, decode_check, encode_digest};
use sy::wire::cursor::Reader;
use sy::wire::data::{Codec, DataHead, End};
use sy::wire::hello::{Hello, Refusal, Refused, Rights, Welcome};
use sy::wire::list::{Request, SectionWriter, Status};
use sy::wire::owners::{Declared, Mapped};
use sy::wire::pack::PackOp;
use sy::wire::report::{Done, Notice, Report, Stop};
use sy::wire::sign::{Ask, Section, chunk_bytes_at, decode_tokens};

use crate::as_source::SUM_KEY;
use crate::choices::Choices;
use crate::frame;
use crate::planted;
use crate::rig::Rig;

/// Names that the source has nowhere.
const STRANGE_NAMES: [&[u8]; 3] = [b"!", b"m\n\xff", b"zz"];

/// A large file that has begun.
struct Large {
    path: Vec<u8>,
    size: u64,
    block_bytes: u32,
    /// What was said of its basis; the largest, where more than one thing was.
    basis_bytes: u64,
}

pub struct AsTarget {
    /// Where directories stand, below what is pushed.
    dirs: BTreeMap<u32, Vec<u8>>,
    lists: VecDeque<u32>,
    asks: VecDeque<Ask>,
    /// Numbers, and paths of the files whose digests are wanted.
    checks: VecDeque<(u32, Vec<Vec<u8>>)>,
    larges: BTreeMap<u32, Large>,
    hello: Option<Hello>,
    is_done: bool,
    /// Device, inode and boot of what is pushed: what a target has to say to be taken for it.
    own: (u64, u64, [u8; 16]),
}

impl AsTarget {
    pub fn new(own: (u64, u64, [u8; 16])) -> Self {
        Self {
            dirs: BTreeMap::new(),
            lists: VecDeque::new(),
            asks: VecDeque::new(),
            checks: VecDeque::new(),
            larges: BTreeMap::new(),
            hello: None,
            is_done: false,
            own,
        }
    }

    /// Says what the next choices come to, or lets time pass.
    pub fn step(&mut self, choices: &mut Choices<'_>, rig: &mut Rig) {
        match choices.below(16) {
            0 => self.welcome(choices, rig),
            1..=3 => self.listing(choices, rig),
            4 => self.signature(choices, rig),
            5 => self.digests(choices, rig),
            6 => self.stop(choices, rig),
            7 => self.notice(choices, rig),
            8 => self.mapped(choices, rig),
            9 => self.report(choices, rig),
            10 => {
                let refused = Refused {
                    refusal: choices.pick(&[
                        Refusal::Version,
                        Refusal::ReadOnlyModule,
                        Refusal::Protocol,
                        Refusal::Busy,
                    ]),
                    text: choices.counted().to_vec(),
                };
                let payload = frame::payload(|writer| refused.encode(writer));
                say(FrameKind::Refused, &payload, rig);
            }
            11 => rig.pass(Duration::from_millis(choices.pick(&[1, 20, 500, 16_000]))),
            12 => self.answer(choices, rig),
            13 => {
                let (kind, payload) = (choices.pick(&frame::KINDS), choices.counted());
                self.note_bases(kind, payload);
                say(kind, payload, rig);
            }
            14 => {
                let whole = frame::sealed(choices.pick(&frame::KINDS), choices.counted());
                let mut hurt = whole;
                let at = choices.below(hurt.len().min(256));
                hurt[at] ^= choices.byte();
                let kept = hurt.len() - choices.below(hurt.len().min(256));
                rig.say(&hurt[..kept]);
            }
            _ => say(FrameKind::Ignorable, choices.counted(), rig),
        }
        self.hear(rig);
    }

    /// Answers what was asked, the oldest first; which kind goes first is a choice.
    fn answer(&mut self, choices: &mut Choices<'_>, rig: &mut Rig) {
        for _ in 0..8 {
            self.hear(rig);
            if rig.is_over() {
                return;
            }
            match () {
                () if !self.lists.is_empty() => self.listing(choices, rig),
                () if !self.checks.is_empty() => self.digests(choices, rig),
                () if !self.asks.is_empty() => self.signature(choices, rig),
                () if self.is_done => self.report(choices, rig),
                () => rig.pass(Duration::from_millis(10)),
            }
        }
    }

    // ---- what the source says

    /// Takes in all that has come.
    pub fn hear(&mut self, rig: &mut Rig) {
        rig.hear();
        let mut heard = std::mem::take(&mut rig.heard);
        while let Some((kind, payload)) = frame::next(&mut heard) {
            self.take(kind, &payload);
        }
        rig.heard = heard;
    }

    fn take(&mut self, kind: FrameKind, payload: &[u8]) {
        let ours = "what our source says is in order";
        let mut reader = Reader::new(payload, "frame");
        assert!(!self.is_done || kind == FrameKind::Ignorable, "after DONE");
        match kind {
            FrameKind::Ignorable => {}
            FrameKind::Hello => {
                assert!(self.hello.is_none(), "a second HELLO");
                self.hello = Some(Hello::decode(payload).expect(ours));
            }
            FrameKind::List => {
                while !reader.is_at_end() {
                    let Request { dir, parent, name } = Request::decode(&mut reader).expect(ours);
                    self.declare(dir, parent, name);
                    self.lists.push_back(dir.0);
                }
            }
            FrameKind::Pack => {
                while !reader.is_at_end() {
                    self.operation(PackOp::decode(&mut reader).expect(ours));
                }
            }
            FrameKind::Data => {
                let (head, content) = DataHead::decode(payload).expect(ours);
                let large = self.larges.get(&head.file.0).expect(ours);
                let len = chunk_bytes_at(head.offset, large.size).expect(ours);
                let zeros;
                let content = if head.codec == Codec::Hole {
                    zeros = vec![0; len];
                    &zeros
                } else {
                    content
                };
                assert_eq!(content.len(), len, "part of a chunk");
                assert!(large.has(head.offset, content), "content of another file");
            }
            FrameKind::Tokens => self.tokens(payload),
            FrameKind::End => {
                let End { file, .. } = End::decode(payload).expect(ours);
                assert!(self.larges.contains_key(&file.0), "an END of nothing");
            }
            FrameKind::Done => {
                Done::decode(payload).expect(ours);
                self.is_done = true;
            }
            FrameKind::Sign => {
                while !reader.is_at_end() {
                    self.asks.push_back(Ask::decode(&mut reader).expect(ours));
                }
            }
            FrameKind::Owners => {
                while !reader.is_at_end() {
                    Declared::decode(&mut reader).expect(ours);
                }
            }
            FrameKind::Check => {
                let mut paths = Vec::new();
                let number = decode_check(payload, |item| {
                    paths.push(self.path(item.dir, item.name.bytes()));
                    Ok(())
                });
                self.checks.push_back((number.expect(ours), paths));
            }
            FrameKind::Welcome
            | FrameKind::Listing
            | FrameKind::Notice
            | FrameKind::Stop
            | FrameKind::Report
            | FrameKind::Refused
            | FrameKind::Signature
            | FrameKind::Mapped
            | FrameKind::Digests => panic!("a {} frame of a source", kind.name()),
        }
    }

    fn declare(&mut self, dir: DirId, parent: DirId, name: Option<Name<'_>>) {
        let path = match name {
            Some(name) => self.path(parent, name.bytes()),
            None => Vec::new(),
        };
        self.dirs.insert(dir.0, path);
    }

    fn path(&self, dir: DirId, name: &[u8]) -> Vec<u8> {
        // ROOT need not be asked for.
        let above = self.dirs.get(&dir.0);
        assert!(above.is_some() || dir == ROOT, "a directory of nobody's");
        joined(above.map_or(b"", |path| path), name)
    }

    fn operation(&mut self, op: PackOp<'_>) {
        let policy = self.hello.as_ref().expect("HELLO comes first").policy;
        let is_quiet = matches!(op, PackOp::Delete { .. } | PackOp::Close { meta: None, .. });
        assert!(is_quiet || !policy.dry_run, "changes in a dry run");
        match op {
            PackOp::Delete { dir, name, room } => {
                self.path(dir, name.bytes());
                assert!(policy.delete || room.is_some(), "a deletion");
            }
            PackOp::MakeDir {
                parent, name, id, ..
            } => self.declare(id, parent, Some(name)),
            PackOp::File {
                dir, name, content, ..
            } => {
                let path = self.path(dir, name.bytes());
                let is_pushed = planted::pushed_contents().any(|known| ***known == *content);
                assert!(is_pushed, "{}: of another file", path.escape_ascii());
            }
            PackOp::Symlink { dir, name, .. }
            | PackOp::Node { dir, name, .. }
            | PackOp::Meta { dir, name, .. } => {
                self.path(dir, name.bytes());
            }
            PackOp::Begin {
                dir,
                name,
                file,
                size,
                block_bytes,
                ..
            } => {
                let large = Large {
                    path: self.path(dir, name.bytes()),
                    size,
                    block_bytes,
                    basis_bytes: 0,
                };
                let before = self.larges.insert(file.0, large);
                assert!(before.is_none(), "a number that was used");
            }
            PackOp::Close { dir, .. } => {
                assert!(self.dirs.contains_key(&dir.0) || dir == ROOT);
            }
        }
    }

    fn tokens(&self, payload: &[u8]) {
        let ours = "what our source says is in order";
        let (head, runs) = decode_tokens(payload).expect(ours);
        let large = self.larges.get(&head.file.0).expect(ours);
        assert!(large.block_bytes > 0, "TOKENS without a basis");
        let chunk_bytes = chunk_bytes_at(head.offset, large.size).expect(ours);
        let in_place = self.hello.as_ref().is_some_and(|it| it.policy.in_place);
        let place = in_place.then_some(head.offset);
        let checked = apply::check(runs, chunk_bytes, large.basis_bytes, place).expect(ours);
        let mut at = head.offset;
        for step in checked.steps() {
            if let Step::Literal(range) = &step {
                let literal = &runs[range.clone()];
                assert!(large.has(at, literal), "content of another file");
            }
            at += step.len() as u64;
        }
    }

    // ---- what it is told

    pub fn welcome(&self, choices: &mut Choices<'_>, rig: &mut Rig) {
        let flags = choices.byte();
        let is = |bit: u32| flags & (1 << bit) != 0;
        let (dev, ino, boot_id) = self.own;
        let welcome = Welcome {
            rights: Rights {
                owners: !is(0),
                setid: !is(1),
                nodes: !is(2),
            },
            file_named_by_dest: is(3),
            root: Meta {
                mode: if is(4) { 0o755 } else { 0o700 },
                ..planted::pushed().entries[&b""[..]].meta
            },
            root_is_absent: is(5),
            root_dev: dev,
            root_ino: if is(6) { ino } else { ino + 1000 },
            boot_id: if is(7) { [0; 16] } else { boot_id },
        };
        let payload = frame::payload(|writer| welcome.encode(writer));
        say(FrameKind::Welcome, &payload, rig);
    }

    /// Mostly of the directory that waits, and of what the source has there, the same or otherwise.
    fn listing(&mut self, choices: &mut Choices<'_>, rig: &mut Rig) {
        let how = choices.byte();
        let dir = match (how, self.lists.front()) {
            (240.., _) | (_, None) => u32::from(how % 16),
            (_, Some(dir)) => *dir,
        };
        let status = match how % 8 {
            0 => Status::Absent,
            1 => Status::Part,
            2 => Status::Incomplete,
            3 => Status::Failed(Errno::ACCESS),
            _ => Status::Complete,
        };
        if status != Status::Part && self.lists.front() == Some(&dir) {
            self.lists.pop_front();
        }
        let names = self.names(dir, choices.flag());
        let above = self.dirs.get(&dir).cloned().unwrap_or_default();
        let payload = frame::payload(|writer| {
            let Some(mut section) = SectionWriter::begin(writer, DirId(dir)) else {
                return;
            };
            let has_entries = !matches!(status, Status::Absent | Status::Failed(_));
            for name in names.iter().filter(|_| has_entries) {
                let known = planted::pushed().entries.get(&joined(&above, name));
                let (meta, size) = known.map_or((ELSE, 7), |entry| (entry.meta, size_of(entry)));
                if let Some(entry) = varied(name, meta, size, choices) {
                    section.push(&entry);
                }
            }
            section.end(status);
        });
        say(FrameKind::Listing, &payload, rig);
    }

    /// Names that a directory at the target might have, in order.
    fn names(&self, dir: u32, has_partial: bool) -> Vec<Vec<u8>> {
        let above = self.dirs.get(&dir).cloned().unwrap_or_default();
        let mut names: Vec<Vec<u8>> = STRANGE_NAMES.map(<[u8]>::to_vec).into();
        for path in planted::pushed().entries.keys() {
            let below = match &*above {
                b"" => Some(&**path),
                above => path
                    .strip_prefix(above)
                    .and_then(|it| it.strip_prefix(b"/")),
            };
            names.extend(
                below
                    .filter(|name| !name.is_empty() && !name.contains(&b'/'))
                    .map(<[u8]>::to_vec),
            );
        }
        if has_partial {
            names.push(PartialName::new(NameHash::of(b"big")).bytes().to_vec());
        }
        names.sort();
        names
    }

    /// Mostly of what was asked for first: the sums of a version that differs a little, none, or noise.
    fn signature(&mut self, choices: &mut Choices<'_>, rig: &mut Rig) {
        let how = choices.byte();
        let mut ask = self.asks.pop_front().unwrap_or(Ask {
            file: FileId(1),
            first: 0,
            count: 1,
        });
        match how % 16 {
            0 => ask.first += 1,
            1 => ask.count += 1,
            2 => ask.file.0 += 1,
            _ => {}
        }
        let large = self.larges.get_mut(&ask.file.0);
        let content = large.as_ref().and_then(|large| large.content());
        let mut basis = content.map_or_else(Vec::new, |content| content.to_vec());
        if !basis.is_empty() {
            let at = usize::from(choices.word()) * 4 % basis.len();
            basis[at] ^= 1;
        }
        if how & 16 != 0 {
            basis.truncate(basis.len() / 2);
        }
        if how & 32 != 0 {
            let third = basis.len() / 3;
            basis.rotate_left(third);
        }
        let mut basis_bytes = basis.len() as u64;
        let mut sums = sums(&basis, ask, large.as_ref().map_or(0, |it| it.block_bytes));
        if how & 64 != 0 || sums.is_empty() {
            sums = vec![how; ask.count.min(1000) as usize * SUM_BYTES];
        }
        if how == 255 {
            basis_bytes = u64::MAX;
        }
        let is_none = how & 128 != 0 && how != 255;
        if let Some(large) = large
            && !is_none
        {
            large.basis_bytes = large.basis_bytes.max(basis_bytes);
        }
        let payload = frame::payload(|writer| {
            Section::encode_head(writer, ask, (!is_none).then_some(basis_bytes));
            if !is_none {
                let len = sums.len().min(writer.room());
                writer.bytes(&sums[..len]);
            }
        });
        say(FrameKind::Signature, &payload, rig);
    }

    /// What is said of bases choice by choice counts as well.
    fn note_bases(&mut self, kind: FrameKind, payload: &[u8]) {
        let mut reader = Reader::new(payload, "SIGNATURE frame");
        while kind == FrameKind::Signature
            && let Ok(section) = Section::decode(&mut reader)
        {
            if let Some((basis_bytes, _)) = section.sums
                && let Some(large) = self.larges.get_mut(&section.file.0)
            {
                large.basis_bytes = large.basis_bytes.max(basis_bytes);
            }
        }
    }

    fn digests(&mut self, choices: &mut Choices<'_>, rig: &mut Rig) {
        let how = choices.byte();
        let (number, paths) = self.checks.pop_front().unwrap_or_default();
        let key = Key::new(&SUM_KEY);
        let payload = frame::payload(|writer| {
            writer.u32(if how == 255 { 77 } else { number });
            for path in &paths {
                let content = planted::pushed().entries.get(path);
                let content = content.and_then(planted::bytes_of);
                let mut digest: Option<DigestBytes> = content.map(|content| {
                    let mut hasher = ContentHasher::new(&key);
                    hasher.append(content);
                    hasher.finish().0
                });
                match choices.below(4) {
                    0 => digest = None,
                    1 => digest = Some([how; 16]),
                    _ => {}
                }
                encode_digest(writer, digest.as_ref());
            }
            if how % 16 == 1 {
                encode_digest(writer, None);
            }
        });
        say(FrameKind::Digests, &payload, rig);
    }

    fn stop(&mut self, choices: &mut Choices<'_>, rig: &mut Rig) {
        let payload = frame::payload(|writer| {
            for _ in 0..=choices.below(4) {
                let kind = choices.below(4);
                let number = u32::from(choices.byte() % 16);
                let stop = match kind {
                    0 => Stop::Dir(DirId(number)),
                    1 => Stop::File(FileId(number)),
                    2 => Stop::Again(FileId(number)),
                    _ => Stop::Settled(FileId(number)),
                };
                stop.encode(writer);
            }
        });
        say(FrameKind::Stop, &payload, rig);
    }

    fn notice(&mut self, choices: &mut Choices<'_>, rig: &mut Rig) {
        let payload = frame::payload(|writer| {
            for _ in 0..=choices.below(4) {
                let why = choices.pick(&[
                    Why::Errno(Errno::NOSPC),
                    Why::Vanished,
                    Why::OwnName,
                    Why::Digest,
                ]);
                let count = choices.byte();
                let path = choices.bytes(usize::from(count));
                let notice = if choices.flag() {
                    Notice::Deleted {
                        kind: Kind::File,
                        path,
                    }
                } else {
                    Notice::Failed {
                        attempt: Attempt::Rename,
                        why,
                        path,
                    }
                };
                notice.encode(writer);
            }
        });
        say(FrameKind::Notice, &payload, rig);
    }

    fn mapped(&mut self, choices: &mut Choices<'_>, rig: &mut Rig) {
        let payload = frame::payload(|writer| {
            for _ in 0..=choices.below(4) {
                let mapped = Mapped {
                    owner: Owner {
                        kind: choices.pick(&[OwnerKind::User, OwnerKind::Group]),
                        id: choices.pick(&[1000, 1001, 1]),
                    },
                    number: u32::from(choices.word()),
                };
                mapped.encode(writer);
            }
        });
        say(FrameKind::Mapped, &payload, rig);
    }

    fn report(&mut self, choices: &mut Choices<'_>, rig: &mut Rig) {
        let count = u64::from(choices.byte());
        let report = Report {
            exit: choices.pick(&[Exit::Ok, Exit::FileIo, Exit::Partial, Exit::DeleteLimit]),
            durability: choices.pick(&[Durability::None, Durability::File]),
            files_made: count,
            dirs_made: count,
            meta_fixed: count,
            deleted: u64::MAX - count,
            deletes_skipped: count,
            errors: u64::MAX - count,
            peak_rss_bytes: count,
            text: b"DEST: no".to_vec(),
        };
        let payload = frame::payload(|writer| report.encode(writer));
        say(FrameKind::Report, &payload, rig);
    }
}

impl Large {
    fn content(&self) -> Option<&'static [u8]> {
        let entry = planted::pushed().entries.get(&self.path)?;
        planted::bytes_of(entry).map(|bytes| &***bytes)
    }

    /// Whether what is pushed has these bytes there. Under the name that DEST gives to a single file, whatever is pushed.
    fn has(&self, offset: u64, bytes: &[u8]) -> bool {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        planted::pushed_contents().any(|content| {
            let rest = content.get(offset..);
            content.len() as u64 == self.size && rest.is_some_and(|rest| rest.starts_with(bytes))
        })
    }
}

/// What stands under a name that the source does not have.
const ELSE: Meta = Meta {
    kind: Kind::File,
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtime: Mtime { sec: 9, nsec: 9 },
};

/// An entry as the source has it, or as it might have been; `None`: there is none.
fn varied<'a>(
    name: &'a [u8],
    meta: Meta,
    size: u64,
    choices: &mut Choices<'_>,
) -> Option<listing::Entry<'a>> {
    let how = choices.byte();
    let mut entry = listing::Entry {
        name: Name::any(name).expect("a name of ours"),
        meta,
        size,
        ino_low: 0,
        origin: 0,
        is_suspect: how & 128 != 0,
    };
    match how % 16 {
        0 => return None,
        1..=3 => {}
        4 => entry.size += 1,
        5 => entry.size /= 2,
        6..=8 => entry.meta.mtime.sec -= 1,
        9 => entry.meta.mode ^= 0o22,
        10 => entry.meta.uid ^= 1,
        11 => entry.meta.kind = Kind::Dir,
        12 => entry.meta.kind = Kind::File,
        13 => entry.meta.kind = Kind::Symlink,
        14 => entry.size = 1 << 62,
        _ => entry.meta.kind = Kind::Fifo,
    }
    Some(entry)
}

fn size_of(entry: &Entry) -> u64 {
    match &entry.content {
        Content::Bytes(bytes) => bytes.len() as u64,
        Content::Target(target) => target.len() as u64,
        Content::Device(rdev) => *rdev,
        Content::None => 0,
    }
}

/// The sums that were asked for, where the basis has those blocks.
fn sums(basis: &[u8], ask: Ask, block_bytes: u32) -> Vec<u8> {
    let Some(block) = BlockSize::of_peer(block_bytes, basis.len() as u64) else {
        return Vec::new();
    };
    let layout = Layout::new(basis.len() as u64, block);
    if ask.first + u64::from(ask.count) > layout.blocks_count() {
        return Vec::new();
    }
    let mut sums = vec![0; ask.count as usize * SUM_BYTES];
    let from = usize::try_from(layout.span(ask.first).start).expect("within the basis");
    let key = Key::new(&SUM_KEY);
    Builder::new(layout, &key, ask.first).build(&basis[from..], &mut sums);
    sums
}

fn joined(above: &[u8], name: &[u8]) -> Vec<u8> {
    match above {
        b"" => name.to_vec(),
        _ => [above, b"/", name].concat(),
    }
}

fn say(kind: FrameKind, payload: &[u8], rig: &mut Rig) {
    rig.say(&frame::sealed(kind, payload));
}
