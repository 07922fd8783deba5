//! A file that is updated where it stands, and a source made by hand.

use super::by_hand::{Server, done, frames, hello, large_file};
use super::net::NetOptions;
use super::ring::RingWeather;
use super::tree::{Content, Entry, Tree};
use crate::limits::CHUNK_BYTES;
use crate::model::id::FileId;
use crate::model::policy::Policy;
use crate::model::report::Exit;
use crate::ops::Disk as _;
use crate::wire::FrameKind;
use crate::wire::report::Report;

/// Chunks of the file.
const CHUNKS: u64 = 3;

#[test]
fn what_is_still_being_written_of_a_file_that_was_given_up_does_not_come_after_what_is_new() {
    let policy = Policy {
        in_place: true,
        ..Policy::default()
    };
    let weather = RingWeather {
        latency_ns_max: 50_000_000,
        ..RingWeather::calm()
    };
    for seed in 0..50 {
        let mut server = Server::weathered(16, weather, seed);
        let old = Entry::file(0o644, &vec![1; 3 * CHUNK_BYTES]);
        let planted = Tree::empty().with(b"large", old);
        server.disk.plant(b"/t", &planted).unwrap();
        let inode = |server: &Server| {
            let dir = server.disk.open_operator_dir(b"/t").unwrap();
            server.disk.stat_at(&dir, b"large").unwrap().ino
        };
        let before = inode(&server);
        let mut peer = server.greeted_by(&NetOptions::calm(1 << 22), &hello(0, policy));
        for said in [
            large_file(FileId(1), CHUNKS, 2, false),
            large_file(FileId(2), CHUNKS, 3, true),
            done(),
        ] {
            server.say(&peer, &said);
        }
        server.wait(10_000);
        server.hear(&mut peer, 1 << 20);
        let frames = frames(&peer.heard);
        let (kind, payload) = frames.last().unwrap();
        assert_eq!(*kind, FrameKind::Report);
        assert_eq!(Report::decode(payload).unwrap().exit, Exit::Ok);
        let found = server.disk.snapshot(b"/t/large").unwrap();
        let Content::Bytes(bytes) = &found.entries[&b""[..]].content else {
            panic!("it was a file")
        };
        assert!(bytes.iter().all(|byte| *byte == 3), "seed {seed}");
        assert_eq!(inode(&server), before, "seed {seed}: replaced");
    }
}
