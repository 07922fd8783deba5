//! Every decoder of `wire`, and what is made of the sums and runs of a delta. The first byte of an input picks one, the
//! rest is what it reads. None panics, and what is taken has one meaning: written again and read again it is the same,
//! to the byte where the protocol leaves no choice of the spelling.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sy::delta::apply::{self, Step};
use sy::delta::block_size::{BlockSize, Layout};
use sy::delta::index::Index;
use sy::delta::matcher::{Matcher, Piece, Turn};
use sy::delta::signature::Sums;
use sy::delta::strong::Key;
use sy::delta::tokens::RunWriter;
use sy::limits::{CHUNK_BYTES, FRAME_HEAD_BYTES, PAYLOAD_BYTES_MAX};
use sy::model::entry::Meta;
use sy::model::listing::Entry;
use sy::model::name::Name;
use sy::wire::check::{decode_check, decode_digests, encode_digest};
use sy::wire::cursor::{Reader, Writer};
use sy::wire::data::{DataHead, End};
use sy::wire::hello::{Hello, Refused, Welcome};
use sy::wire::list::{ListingReader, Request, Section, SectionWriter};
use sy::wire::owners::{Declared, Mapped};
use sy::wire::pack::PackOp;
use sy::wire::report::{Done, Notice, Report, Stop};
use sy::wire::sign::{self, Ask, decode_tokens};
use sy::wire::{FrameKind, Head, WireError, seal};
use sy_fuzz::choices::Choices;
use sy_fuzz::frame::{KINDS, sealed, written};
use sy_fuzz::printable::assert_lines;

fuzz_target!(|input: &[u8]| {
    let Some((pick, payload)) = input.split_first() else {
        return;
    };
    match pick % 22 {
        0 => head(payload),
        1 => flipped(payload),
        2 => whole(payload, Hello::decode, Hello::encode),
        3 => whole(payload, Welcome::decode, Welcome::encode),
        4 => whole(payload, Refused::decode, Refused::encode),
        5 => whole(payload, End::decode, End::encode),
        6 => whole(payload, Done::decode, |done, writer| done.encode(writer)),
        7 => whole(payload, Report::decode, Report::encode),
        8 => items(payload, Request::decode, Request::encode),
        9 => items(payload, PackOp::decode, PackOp::encode),
        10 => items(payload, Declared::decode, Declared::encode),
        11 => items(payload, Mapped::decode, Mapped::encode),
        12 => items(payload, Ask::decode, |ask, writer| ask.encode(writer)),
        13 => items(payload, Notice::decode, Notice::encode),
        14 => items(payload, Stop::decode, |stop, writer| stop.encode(writer)),
        15 => items(payload, sign::Section::decode, signature),
        16 => data(payload),
        17 => tokens(payload),
        18 => check(payload),
        19 => digests(payload),
        20 => listing(payload),
        _ => sums(payload),
    }
});

fn told<T>(read: Result<T, WireError>) -> Option<T> {
    if let Err(error) = &read {
        // It goes to the peer, and into the log of either side escaped.
        assert!(!error.to_string().is_empty());
    }
    read.ok()
}

/// The head of a frame: what is taken is what was sealed, with any payload that fits it.
fn head(bytes: &[u8]) {
    Head::may_begin(&bytes[..bytes.len().min(FRAME_HEAD_BYTES)]);
    let Some((first, payload)) = bytes.split_first_chunk::<FRAME_HEAD_BYTES>() else {
        return;
    };
    let Some(head) = told(Head::decode(first)) else {
        return;
    };
    assert!(Head::may_begin(first), "a head that can't begin a stream");
    assert!(head.payload_bytes <= PAYLOAD_BYTES_MAX);
    if payload.len() == head.payload_bytes && head.verify(payload).is_ok() {
        let mut again = sealed(head.kind, payload);
        again.truncate(FRAME_HEAD_BYTES);
        // Ignorable kinds are many.
        assert!(again == first || head.kind == FrameKind::Ignorable);
    }
}

/// A frame in which a bit of the payload or of its check is another is not taken for one.
fn flipped(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let kind = choices.pick(&KINDS);
    let at = usize::from(choices.word());
    let payload = choices.bytes(PAYLOAD_BYTES_MAX);
    let mut frame = vec![0; FRAME_HEAD_BYTES];
    frame.extend_from_slice(payload);
    let len = seal(&mut frame, kind, payload.len());
    let read = |frame: &[u8]| {
        let (head, payload) = frame.split_first_chunk().expect("longer than a head");
        Head::decode(head).and_then(|head| head.verify(payload).map(|()| head.kind))
    };
    assert_eq!(read(&frame), Ok(kind));
    let bit = at % (8 * len);
    frame[bit / 8] ^= 1 << (bit % 8);
    // The content of a chunk has a digest of its own. Of what the head's check alone covers, one flip in 65,536 is
    // not found; inputs that show it are soon made.
    let is_content = kind == FrameKind::Data && bit / 8 >= FRAME_HEAD_BYTES + 32;
    let is_of_head = bit / 8 < 8;
    assert!(
        is_content || is_of_head || read(&frame).is_err(),
        "bit {bit}"
    );
}

/// A payload that is one thing.
fn whole<T: PartialEq + std::fmt::Debug>(
    payload: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, WireError>,
    encode: impl Fn(&T, &mut Writer<'_>),
) {
    let Some(read) = told(decode(payload)) else {
        return;
    };
    let again = written(payload.len(), |writer| encode(&read, writer));
    assert_eq!(decode(&again), Ok(read));
}

/// A payload of items: each has one spelling only.
fn items<'a, T>(
    payload: &'a [u8],
    decode: impl Fn(&mut Reader<'a>) -> Result<T, WireError>,
    encode: impl Fn(&T, &mut Writer<'_>),
) {
    let mut reader = Reader::new(payload, "payload");
    while !reader.is_at_end() {
        let from = reader.at();
        let Some(item) = told(decode(&mut reader)) else {
            return;
        };
        let spelled = &payload[from..reader.at()];
        let again = written(spelled.len(), |writer| encode(&item, writer));
        assert_eq!(again, spelled);
    }
}

fn signature(section: &sign::Section<'_>, writer: &mut Writer<'_>) {
    let (file, first) = (section.file, section.first);
    let sums = section.sums.map_or(&b""[..], |(_, sums)| sums);
    let count = u32::try_from(sums.len() / sy::limits::SUM_BYTES).expect("in one payload");
    let basis_bytes = section.sums.map(|(basis_bytes, _)| basis_bytes);
    sign::Section::encode_head(writer, Ask { file, first, count }, basis_bytes);
    writer.bytes(sums);
}

fn data(payload: &[u8]) {
    let Some((head, content)) = told(DataHead::decode(payload)) else {
        return;
    };
    assert!(content.len() <= CHUNK_BYTES && head.offset.is_multiple_of(CHUNK_BYTES as u64));
    let mut again = payload.to_vec();
    head.encode(&mut again);
    assert_eq!(again, payload);
}

/// The runs of a chunk: they make it up, and copy from nowhere but the basis.
fn tokens(input: &[u8]) {
    let mut choices = Choices::new(input);
    let chunk_bytes = usize::from(choices.word());
    let basis_bytes = u64::from(choices.word());
    let place = choices.flag().then(|| u64::from(choices.word()));
    let payload = choices.bytes(PAYLOAD_BYTES_MAX);
    let Some((_, runs)) = told(decode_tokens(payload)) else {
        return;
    };
    let checked = match apply::check(runs, chunk_bytes, basis_bytes, place) {
        Ok(checked) => checked,
        Err(error) => return assert_lines(&error.to_string()),
    };
    let mut made = 0;
    for step in checked.steps() {
        match &step {
            Step::Copy { basis_offset, len } => {
                assert!(*len > 0 && basis_offset + *len as u64 <= basis_bytes);
                let here = place.map(|place| place + made as u64);
                assert!(here.is_none_or(|here| here == *basis_offset), "moved");
            }
            Step::Literal(range) => assert!(!range.is_empty() && range.end <= runs.len()),
        }
        made += step.len();
    }
    assert_eq!(made, chunk_bytes);
}

fn check(payload: &[u8]) {
    let mut read = Err(WireError::HeadDamaged);
    let again = written(payload.len(), |writer| {
        writer.bytes(&payload[..payload.len().min(4)]);
        read = decode_check(payload, |item| {
            item.encode(writer);
            Ok(())
        });
    });
    if let Some(number) = told(read) {
        assert_eq!(again, payload);
        assert_eq!(payload[..4], number.to_le_bytes());
    }
}

fn digests(payload: &[u8]) {
    let Some((number, digests)) = told(decode_digests(payload)) else {
        return;
    };
    let again = written(payload.len(), |writer| {
        writer.u32(number);
        for digest in &digests {
            encode_digest(writer, digest.as_ref());
        }
    });
    assert_eq!(again, payload);
}

/// An entry, and what it is called.
type Named = (Vec<u8>, Meta, u64, bool);

fn read_listing(
    payload: &[u8],
    has_partials: bool,
) -> Result<Vec<(Section, Vec<Named>)>, WireError> {
    let mut reader = ListingReader::new(payload).with_partials(has_partials);
    let mut sections = Vec::new();
    while let Some(section) = reader.section()? {
        let mut entries = Vec::new();
        while let Some(entry) = reader.entry()? {
            let name = entry.name.bytes().to_vec();
            assert!(has_partials || Name::new(&name).is_ok());
            entries.push((name, entry.meta, entry.size, entry.is_suspect));
        }
        assert!(entries.is_sorted_by(|(a, ..), (b, ..)| a < b));
        sections.push((section, entries));
    }
    Ok(sections)
}

/// What a name shares with the one before it may be said in several ways; it is written in the shortest.
fn listing(payload: &[u8]) {
    let has_partials = payload.len().is_multiple_of(2);
    let Some(sections) = told(read_listing(payload, has_partials)) else {
        return;
    };
    // A section begins only where the longest entry has room.
    let again = written(payload.len() + 512, |writer| {
        for (Section { dir, status, .. }, entries) in &sections {
            let mut section = SectionWriter::begin(writer, *dir).expect("there is room");
            for (name, meta, size, is_suspect) in entries {
                let entry = Entry {
                    name: Name::any(name).expect("it was read as one"),
                    meta: *meta,
                    size: *size,
                    ino_low: 0,
                    origin: 0,
                    is_suspect: *is_suspect,
                };
                assert!(section.push(&entry), "longer than it came");
            }
            section.end(*status);
        }
    });
    assert!(again.len() <= payload.len(), "longer than it came");
    assert_eq!(read_listing(&again, has_partials), Ok(sections));
}

/// Sums that a target made up, and a file that it does not know: whatever is matched, the runs are in order, and what
/// they carry is the file's.
fn sums(input: &[u8]) {
    let mut choices = Choices::new(input);
    let basis_bytes = u64::from(choices.word());
    let window_blocks = 1 + choices.below(20);
    let mut here = choices.counted();
    let sums = choices.bytes(PAYLOAD_BYTES_MAX);
    let layout = Layout::new(basis_bytes, BlockSize::of_basis(basis_bytes));
    let mut index = Index::with_window(layout, window_blocks);
    let Ok(sums) = Sums::decode(sums, 0, &layout) else {
        return;
    };
    if sums.range().end > index.wanted().end {
        return; // Whoever asks for them sees to that.
    }
    index.push(&sums);
    let key = Key::new(&[7; 32]);
    let mut matcher = Matcher::new(layout, &key);
    let mut at = 0;
    while !here.is_empty() {
        let (piece, rest) = here.split_at(here.len().min(5000));
        let ahead = &rest[..rest.len().min(layout.block().byte_len())];
        let mut out = vec![0; PAYLOAD_BYTES_MAX];
        let mut writer = RunWriter::new(&mut out);
        let piece = Piece {
            here: piece,
            ahead,
            is_end: ahead.len() == rest.len(),
        };
        let turn = loop {
            let mut budget = 3000;
            match matcher.step(&index, &piece, &mut writer, &mut budget) {
                Turn::More => {}
                turn @ (Turn::Runs | Turn::Plain) => break turn,
            }
        };
        if turn == Turn::Runs {
            let runs = writer.written_bytes();
            let runs = &out[..runs];
            let checked = apply::check(runs, piece.here.len(), basis_bytes, None);
            let mut made = 0;
            for step in checked.expect("they are ours").steps() {
                if let Step::Literal(range) = &step {
                    assert_eq!(runs[range.clone()], piece.here[made..made + range.len()]);
                }
                made += step.len();
            }
        }
        at += piece.here.len();
        index.follow(at as u64);
        here = rest;
    }
}
