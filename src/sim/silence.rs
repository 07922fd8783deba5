//! What silence is: a server's shard and peers made by hand, over minutes of simulated time.

use std::cell::RefCell;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::disk::SimDisk;
use super::fault::{CallKind, DiskOptions};
use super::net::{Moved, NetOptions};
use super::ring::{RingWeather, SimRing, SimWorld};
use super::tree::Tree;
use crate::engine::shard::Shard;
use crate::job::Work;
use crate::limits::{BLOCK_BYTES, CHUNK_BYTES, FRAME_HEAD_BYTES, IDLE_SECONDS_MAX};
use crate::model::entry::{Kind, Meta};
use crate::model::id::{FileId, ROOT, SessionId};
use crate::model::name::Name;
use crate::model::policy::{Durability, Policy};
use crate::model::report::Exit;
use crate::model::time::Mtime;
use crate::ops::BlockPool;
use crate::ops::op::StreamId;
use crate::session::target::OwnRights;
use crate::session::{Session, Target};
use crate::wire::cursor::Writer;
use crate::wire::data::{Codec, DATA_HEAD_BYTES, DataHead, End};
use crate::wire::head::{FileDigest, chunk_digest};
use crate::wire::hello::{Hello, Refusal, Refused};
use crate::wire::pack::PackOp;
use crate::wire::report::{Done, Report};
use crate::wire::{FrameKind, Head, seal};

struct Server {
    disk: SimDisk,
    world: Rc<RefCell<SimWorld>>,
    shard: Shard<SimDisk, SimRing<Work<SimDisk>>>,
}

/// The other end of a session's stream.
struct Peer {
    stream: StreamId,
    heard: Vec<u8>,
}

fn net(capacity_bytes: usize) -> NetOptions {
    NetOptions {
        capacity_bytes,
        segment_bytes_max: 64 * 1024,
        delay_ns_max: 1000,
        short_per_mille: 0,
        reset_after_bytes: [None, None],
        flip_at_bytes: [None, None],
    }
}

impl Server {
    fn new(blocks_count: usize) -> Self {
        let world = SimWorld::new(1);
        let disk = SimDisk::new(DiskOptions::default(), world.borrow().clock.clone(), 1);
        disk.plant(b"/t", &Tree::empty()).unwrap();
        let ring = SimRing::new(&world, disk.clone(), RingWeather::calm());
        let block = || &mut *Box::leak(vec![0; BLOCK_BYTES].into_boxed_slice());
        let blocks = BlockPool::new((0..blocks_count).map(|_| block()).collect());
        let shard = Shard::new(ring, blocks);
        Self { disk, world, shard }
    }

    /// A session whose HELLO has come.
    fn greeted(&mut self, net: &NetOptions) -> Peer {
        self.greeted_by(net, &hello(0, Durability::None))
    }

    fn greeted_by(&mut self, net: &NetOptions, hello: &[u8]) -> Peer {
        let (theirs, ours) = self.world.borrow_mut().connect(net);
        let target = Target::new(
            Arc::new(OwnRights {
                is_root: true,
                home: Vec::new(),
            }),
            false,
        );
        let patience = Some(Duration::from_secs(IDLE_SECONDS_MAX));
        let session = Session::Target(Box::new(target));
        self.shard.open(session, ours, patience);
        let mut peer = Peer {
            stream: theirs,
            heard: Vec::new(),
        };
        self.say(&peer, hello);
        self.wait(10);
        self.hear(&mut peer, 1);
        peer
    }

    fn say(&mut self, peer: &Peer, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let now = self.shard.now();
            let sent = self.world.borrow_mut().net.send(peer.stream, bytes, now);
            match sent {
                Moved::Bytes(len) => bytes = &bytes[len..],
                Moved::NotNow => self.wait(1),
                Moved::Failed(errno) => panic!("{errno}"),
            }
        }
    }

    /// Reads so many bytes at most.
    fn hear(&mut self, peer: &mut Peer, most: usize) {
        let (now, mut into) = (self.shard.now(), vec![0; most]);
        let net = &mut self.world.borrow_mut().net;
        if let Moved::Bytes(len) = net.recv(peer.stream, &mut into, now) {
            peer.heard.extend_from_slice(&into[..len]);
        }
    }

    /// Lets time pass.
    fn wait(&mut self, milliseconds: u64) {
        let clock = self.world.borrow().clock.clone();
        let until = clock.now().plus(Duration::from_millis(milliseconds));
        loop {
            loop {
                self.shard.turn(None).unwrap();
                let due = self.shard.ring_mut().next_due();
                if self.shard.is_quiet() && due.is_none_or(|due| due > clock.now()) {
                    break;
                }
            }
            while self.shard.next_finished().is_some() {}
            match self.shard.ring_mut().next_due() {
                Some(due) if due < until => clock.advance_to(due),
                Some(_) | None => return clock.advance_to(until),
            }
        }
    }

    /// Waits and reads what came.
    fn last_word(&mut self, peer: &mut Peer, milliseconds: u64) -> Option<(Refusal, String)> {
        self.wait(milliseconds);
        self.hear(peer, 1 << 20);
        let (kind, payload) = frames(&peer.heard).pop()?;
        let refused = (kind == FrameKind::Refused).then(|| Refused::decode(&payload).unwrap());
        refused.map(|it| (it.refusal, String::from_utf8(it.text).unwrap()))
    }
}

fn frames(mut heard: &[u8]) -> Vec<(FrameKind, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = heard.split_first_chunk() {
        let head = Head::decode(head).unwrap();
        let (payload, rest) = rest.split_at(head.payload_bytes);
        frames.push((head.kind, payload.to_vec()));
        heard = rest;
    }
    frames
}

fn frame(kind: FrameKind, fill: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut frame = vec![0; BLOCK_BYTES];
    let mut writer = Writer::new(&mut frame[FRAME_HEAD_BYTES..]);
    fill(&mut writer);
    let payload_bytes = writer.at();
    let len = seal(&mut frame, kind, payload_bytes);
    frame.truncate(len);
    frame
}

fn hello(seconds: u32, durability: Durability) -> Vec<u8> {
    let patience = NonZeroU32::new(seconds);
    let hello = Hello {
        session: SessionId(7),
        policy: Policy {
            dry_run: false,
            delete: false,
            delete_max: None,
            tell_deletes: false,
            allow_empty_source: false,
            durability,
            numeric_ids: true,
            whole_files: false,
            ..Policy::default()
        },
        patience,
        boot_id: [0; 16],
        sum_key: [0; 32],
        module: Vec::new(),
        dest: vec![b"t".to_vec()],
        dest_is_dir: true,
        dest_is_relative: false,
        single_file: false,
    };
    frame(FrameKind::Hello, |writer| hello.encode(writer))
}

/// The head of a PACK, whose payload is another matter.
fn announced() -> Vec<u8> {
    let mut pack = frame(FrameKind::Pack, |writer| writer.bytes(&[0; 200_000]));
    pack.truncate(FRAME_HEAD_BYTES);
    pack
}

const META: Meta = Meta {
    kind: Kind::File,
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtime: Mtime { sec: 1, nsec: 1 },
};

/// All that is said of a file that is nothing but so many chunks of zeros.
fn all_hole(chunks: u64) -> Vec<u8> {
    let file = FileId(1);
    let begin = PackOp::Begin {
        dir: ROOT,
        name: Name::new(b"hole").unwrap(),
        file,
        meta: META,
        size: chunks * CHUNK_BYTES as u64,
        block_bytes: 0,
    };
    let mut said = frame(FrameKind::Pack, |writer| begin.encode(writer));
    let (zeros, mut whole) = (chunk_digest(&vec![0; CHUNK_BYTES]), FileDigest::default());
    for chunk in 0..chunks {
        let offset = chunk * CHUNK_BYTES as u64;
        whole.add(offset, zeros);
        said.extend(frame(FrameKind::Data, |writer| {
            let mut head = [0; DATA_HEAD_BYTES];
            DataHead {
                file,
                offset,
                digest: zeros,
                codec: Codec::Hole,
            }
            .encode(&mut head);
            writer.bytes(&head);
        }));
    }
    let digest = Some(whole);
    said.extend(frame(FrameKind::End, |writer| {
        End { file, digest }.encode(writer);
    }));
    said
}

/// A PACK that mends so many entries of ROOT which are not there.
fn missing(count: usize) -> Vec<u8> {
    let op = PackOp::Meta {
        dir: ROOT,
        name: Name::new(&[b'n'; 200]).unwrap(),
        meta: META,
        sets_time: true,
    };
    frame(FrameKind::Pack, |writer| {
        (0..count).for_each(|_| op.encode(writer));
    })
}

fn done() -> Vec<u8> {
    frame(FrameKind::Done, |writer| Done { errors: 0 }.encode(writer))
}

const SECOND: u64 = 1000;

#[test]
fn a_payload_of_which_a_byte_comes_now_and_then_is_no_silence() {
    // One block for it and one to answer with, so the session could be hungry for its own.
    let mut server = Server::new(2);
    let mut peer = server.greeted(&net(1 << 20));
    server.say(&peer, &announced());
    for _ in 0..30 {
        assert_eq!(server.last_word(&mut peer, 20 * SECOND), None);
        server.say(&peer, b"x");
    }
    assert_eq!(server.last_word(&mut peer, 59 * SECOND), None);
    let (refusal, text) = server.last_word(&mut peer, 5 * SECOND).unwrap();
    assert_eq!(refusal, Refusal::Timeout);
    assert!(text.contains("for 60 s"), "{text}");
}

#[test]
fn a_frame_of_which_a_byte_is_read_now_and_then_is_no_silence() {
    let mut server = Server::new(4);
    let mut peer = server.greeted(&net(32));
    let alive = frame(FrameKind::Ignorable, |_| {});
    while peer.heard.len() < 60 {
        server.wait(20 * SECOND);
        server.say(&peer, &alive);
        server.hear(&mut peer, 1);
    }
    for _ in 0..4 {
        server.wait(SECOND);
        server.hear(&mut peer, 1000);
    }
    let kinds: Vec<_> = frames(&peer.heard).iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds[0], FrameKind::Welcome);
    assert!(!kinds.contains(&FrameKind::Refused), "{kinds:?}");
}

#[test]
fn a_byte_now_and_then_does_not_keep_a_block_from_others() {
    let mut server = Server::new(3);
    let options = net(1 << 20);
    let mut slow = server.greeted(&options);
    let second = server.greeted(&options);
    let mut third = server.greeted(&options);
    for peer in [&slow, &second, &third] {
        server.say(peer, &announced());
        server.wait(10);
    }
    let mut last = None;
    for _ in 0..7 {
        server.say(&third, b"x");
        last = last.or(server.last_word(&mut slow, SECOND));
        if last.is_none() {
            server.say(&slow, b"x");
        }
    }
    let (refusal, text) = last.unwrap();
    assert_eq!(refusal, Refusal::Timeout);
    assert!(text.contains("for 5 s"), "{text}");
    assert_eq!(server.last_word(&mut third, SECOND), None);
}

#[test]
fn a_source_in_a_hurry_is_shown_life_in_time_and_soon_given_up() {
    let mut server = Server::new(4);
    let options = net(1 << 20);
    let alive = frame(FrameKind::Ignorable, |_| {});
    for (patience, most) in [(1, 1), (6, 6), (0, 60), (1000, 60)] {
        let mut peer = server.greeted_by(&options, &hello(patience, Durability::None));
        let shorter = most * SECOND - SECOND / 4;
        // As long as it lives itself, something comes within its patience.
        for _ in 0..5 {
            let heard = peer.heard.len();
            assert_eq!(server.last_word(&mut peer, shorter), None);
            assert!(peer.heard.len() > heard, "{patience}");
            server.say(&peer, &alive);
        }
        let (refusal, text) = server.last_word(&mut peer, (most + 2) * SECOND).unwrap();
        assert_eq!(refusal, Refusal::Timeout);
        assert!(text.contains(&format!("for {most} s")), "{text}");
    }
}

#[test]
fn a_source_that_ends_its_direction_after_done_hears_all_up_to_the_report() {
    let mut server = Server::new(4);
    // Far less than there is to tell, so that its end is found before the REPORT is on its way.
    let mut peer = server.greeted(&net(4096));
    server.say(&peer, &missing(500));
    server.say(&peer, &done());
    let now = server.shard.now();
    server.world.borrow_mut().net.end_sending(peer.stream, now);
    server.wait(SECOND);
    for _ in 0..1000 {
        server.hear(&mut peer, 4096);
        server.wait(10);
    }
    let frames = frames(&peer.heard);
    let (kind, payload) = frames.last().unwrap();
    assert_eq!(*kind, FrameKind::Report);
    let report = Report::decode(payload).unwrap();
    assert_eq!((report.exit, report.errors), (Exit::Partial, 500));
    assert_eq!(server.shard.sessions_count(), 0, "and it is over");
}

#[test]
fn a_server_that_did_not_listen_does_not_take_that_for_silence() {
    let mut server = Server::new(4);
    let clock = server.world.borrow().clock.clone();
    // Its last job takes longer than anybody's patience, and ends when that is looked at.
    server.disk.before_each_call(move |_, call| {
        if call.kind == CallKind::SyncFs {
            clock.advance_to(clock.now().plus(Duration::from_secs(90)));
        }
    });
    let mut peer = server.greeted_by(&net(1 << 20), &hello(0, Durability::Session));
    server.say(&peer, &missing(1));
    server.say(&peer, &done());
    server.wait(100 * SECOND);
    server.hear(&mut peer, 1 << 20);
    let frames = frames(&peer.heard);
    let (kind, payload) = frames.last().unwrap();
    let why = || Refused::decode(payload).map(|it| it.text.escape_ascii().to_string());
    assert_eq!(*kind, FrameKind::Report, "{:?}", why());
}

#[test]
fn a_hole_that_waited_for_its_begin_does_not_stop_the_stream() {
    let mut server = Server::new(4);
    let mut peer = server.greeted(&net(1 << 20));
    server.say(&peer, &all_hole(20));
    server.say(&peer, &done());
    server.wait(SECOND); // Long before a sign of life would wake anybody.
    server.hear(&mut peer, 1 << 20);
    let frames = frames(&peer.heard);
    let (kind, payload) = frames.last().unwrap();
    assert_eq!(*kind, FrameKind::Report);
    assert_eq!(Report::decode(payload).unwrap().files_made, 1);
}

#[test]
fn a_frame_that_may_not_come_is_answered_and_not_counted_any_more() {
    let mut server = Server::new(4);
    let mut peer = server.greeted(&net(1 << 20));
    server.say(&peer, &hello(0, Durability::None));
    let (refusal, text) = server.last_word(&mut peer, SECOND).unwrap();
    assert_eq!(refusal, Refusal::Protocol);
    assert!(text.contains("HELLO"), "{text}");
    let key = server.shard.keys()[0];
    let Session::Target(target) = server.shard.session(key) else {
        panic!("a server has targets only")
    };
    assert_eq!(target.frames_held_count(), 0);
}
