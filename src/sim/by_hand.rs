//! A server's shard, and peers made by hand that say to it what they like.

use std::cell::RefCell;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::disk::SimDisk;
use super::fault::DiskOptions;
use super::net::{Moved, NetOptions};
use super::ring::{RingWeather, SimRing, SimWorld};
use super::tree::Tree;
use crate::engine::shard::Shard;
use crate::job::Work;
use crate::limits::{BLOCK_BYTES, CHUNK_BYTES, FRAME_HEAD_BYTES, IDLE_SECONDS_MAX};
use crate::model::entry::{Kind, Meta};
use crate::model::id::{FileId, ROOT, SessionId};
use crate::model::name::Name;
use crate::model::policy::Policy;
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
use crate::wire::report::Done;
use crate::wire::{FrameKind, Head, seal};

pub(super) struct Server {
    pub(super) disk: SimDisk,
    pub(super) world: Rc<RefCell<SimWorld>>,
    pub(super) shard: Shard<SimDisk, SimRing<Work<SimDisk>>>,
    pub(super) blocks: BlockPool,
}

/// The other end of a session's stream.
pub(super) struct Peer {
    pub(super) stream: StreamId,
    pub(super) heard: Vec<u8>,
}

impl Server {
    pub(super) fn new(blocks_count: usize) -> Self {
        Self::weathered(blocks_count, RingWeather::calm(), 1)
    }

    pub(super) fn weathered(blocks_count: usize, weather: RingWeather, seed: u64) -> Self {
        let world = SimWorld::new(seed);
        let disk = SimDisk::new(DiskOptions::default(), world.borrow().clock.clone(), seed);
        disk.plant(b"/t", &Tree::empty()).unwrap();
        let ring = SimRing::new(&world, disk.clone(), weather);
        let block = || &mut *Box::leak(vec![0; BLOCK_BYTES].into_boxed_slice());
        let blocks = BlockPool::new((0..blocks_count).map(|_| block()).collect());
        let shard = Shard::new(ring, blocks.clone());
        Self {
            disk,
            world,
            shard,
            blocks,
        }
    }

    /// A session whose HELLO has come.
    pub(super) fn greeted(&mut self, net: &NetOptions) -> Peer {
        self.greeted_by(net, &hello(0, Policy::default()))
    }

    pub(super) fn greeted_by(&mut self, net: &NetOptions, hello: &[u8]) -> Peer {
        let mut peer = self.connected(net);
        self.say(&peer, hello);
        self.wait(10);
        self.hear(&mut peer, 1);
        peer
    }

    /// A session that nobody has greeted yet.
    pub(super) fn connected(&mut self, net: &NetOptions) -> Peer {
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
        Peer {
            stream: theirs,
            heard: Vec::new(),
        }
    }

    pub(super) fn say(&mut self, peer: &Peer, mut bytes: &[u8]) {
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
    pub(super) fn hear(&mut self, peer: &mut Peer, most: usize) {
        let (now, mut into) = (self.shard.now(), vec![0; most]);
        let net = &mut self.world.borrow_mut().net;
        if let Moved::Bytes(len) = net.recv(peer.stream, &mut into, now) {
            peer.heard.extend_from_slice(&into[..len]);
        }
    }

    /// Lets time pass.
    pub(super) fn wait(&mut self, milliseconds: u64) {
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

    /// The whole machine stands still.
    pub(super) fn freeze(&mut self, seconds: u64) {
        let clock = self.world.borrow().clock.clone();
        clock.advance_to(clock.now().plus(Duration::from_secs(seconds)));
    }

    /// Waits and reads what came.
    pub(super) fn last_word(
        &mut self,
        peer: &mut Peer,
        milliseconds: u64,
    ) -> Option<(Refusal, String)> {
        self.wait(milliseconds);
        self.hear(peer, 1 << 20);
        let (kind, payload) = frames(&peer.heard).pop()?;
        let refused = (kind == FrameKind::Refused).then(|| Refused::decode(&payload).unwrap());
        refused.map(|it| (it.refusal, String::from_utf8(it.text).unwrap()))
    }
}

pub(super) fn frames(mut heard: &[u8]) -> Vec<(FrameKind, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = heard.split_first_chunk() {
        let head = Head::decode(head).unwrap();
        let (payload, rest) = rest.split_at(head.payload_bytes);
        frames.push((head.kind, payload.to_vec()));
        heard = rest;
    }
    frames
}

pub(super) fn frame(kind: FrameKind, fill: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut frame = vec![0; BLOCK_BYTES];
    let mut writer = Writer::new(&mut frame[FRAME_HEAD_BYTES..]);
    fill(&mut writer);
    let payload_bytes = writer.at();
    let len = seal(&mut frame, kind, payload_bytes);
    frame.truncate(len);
    frame
}

/// The HELLO of a source that goes silent after so many seconds.
pub(super) fn hello(seconds: u32, policy: Policy) -> Vec<u8> {
    let hello = Hello {
        session: SessionId(7),
        policy: Policy {
            numeric_ids: true,
            ..policy
        },
        patience: NonZeroU32::new(seconds),
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

pub(super) const META: Meta = Meta {
    kind: Kind::File,
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtime: Mtime { sec: 1, nsec: 1 },
};

pub(super) fn done() -> Vec<u8> {
    frame(FrameKind::Done, |writer| Done { errors: 0 }.encode(writer))
}

/// All that is said of a large file of whole chunks, each full of this byte, and of zeros nothing but holes; and
/// in the end that it is given up, where it is not `is_whole`.
pub(super) fn large_file(file: FileId, chunks: u64, byte: u8, is_whole: bool) -> Vec<u8> {
    let begin = PackOp::Begin {
        dir: ROOT,
        name: Name::new(b"large").unwrap(),
        file,
        meta: META,
        size: chunks * CHUNK_BYTES as u64,
        block_bytes: 0,
    };
    let mut said = frame(FrameKind::Pack, |writer| begin.encode(writer));
    let content = vec![byte; CHUNK_BYTES];
    let (digest, mut whole) = (chunk_digest(&content), FileDigest::default());
    let codec = if byte == 0 { Codec::Hole } else { Codec::Plain };
    for chunk in 0..chunks {
        let offset = chunk * CHUNK_BYTES as u64;
        whole.add(offset, digest);
        said.extend(frame(FrameKind::Data, |writer| {
            let mut head = [0; DATA_HEAD_BYTES];
            DataHead {
                file,
                offset,
                digest,
                codec,
            }
            .encode(&mut head);
            writer.bytes(&head);
            if codec == Codec::Plain {
                writer.bytes(&content);
            }
        }));
    }
    let digest = is_whole.then_some(whole);
    said.extend(frame(FrameKind::End, |writer| {
        End { file, digest }.encode(writer);
    }));
    said
}
