//! Markers of two sessions at once, and a sync that fails.

use super::by_hand::{META, Peer, Server, done, frame, hello};
use super::fault::{CallKind, DiskFaults};
use super::net::NetOptions;
use crate::model::id::ROOT;
use crate::model::name::Name;
use crate::model::policy::{Durability, Policy};
use crate::ops::Disk;
use crate::ops::disk::Lock;
use crate::wire::FrameKind;
use crate::wire::list::Request;
use crate::wire::pack::PackOp;

fn greeted(server: &mut Server, durability: Durability) -> Peer {
    let policy = Policy {
        durability,
        ..Policy::default()
    };
    server.greeted_by(&NetOptions::calm(1 << 20), &hello(0, policy))
}

fn list_root(server: &mut Server, peer: &Peer) {
    let request = Request {
        dir: ROOT,
        parent: ROOT,
        name: None,
    };
    let said = frame(FrameKind::List, |writer| request.encode(writer));
    server.say(peer, &said);
    server.wait(100);
}

fn make(server: &mut Server, peer: &Peer, name: &[u8]) {
    let file = PackOp::File {
        dir: ROOT,
        name: Name::new(name).unwrap(),
        meta: META,
        content: b"text",
    };
    let said = frame(FrameKind::Pack, |writer| file.encode(writer));
    server.say(peer, &said);
    server.wait(100);
}

fn end(server: &mut Server, peer: &Peer, sync_error_per_mille: u32) {
    server.disk.set_faults(DiskFaults {
        sync_error_per_mille,
        ..DiskFaults::default()
    });
    server.say(peer, &done());
    server.wait(100);
    let now = server.shard.now();
    server.world.borrow_mut().net.close(peer.stream, now);
    server.wait(100);
    server.disk.calm();
}

/// How many markers there are, and how many of them put in doubt what they stand for.
fn markers(server: &Server) -> (usize, usize) {
    let tree = server.disk.snapshot(b"/t").unwrap();
    let markers = tree.entries.iter();
    let markers = markers.filter(|(name, _)| name.ends_with(b".unclean"));
    let bytes: Vec<_> = markers.filter_map(|(_, entry)| entry.bytes()).collect();
    let spoiled = bytes.iter().filter(|bytes| bytes.starts_with(&[0; 16]));
    (bytes.len(), spoiled.count())
}

#[test]
fn a_marker_that_was_spoiled_after_another_session_had_met_it_is_not_taken_over() {
    let mut server = Server::new(16);
    let one = greeted(&mut server, Durability::Session);
    make(&mut server, &one, b"one");
    let other = greeted(&mut server, Durability::None);
    list_root(&mut server, &other);
    end(&mut server, &one, 1000);
    assert_eq!(markers(&server), (1, 1));
    make(&mut server, &other, b"other");
    assert_eq!(markers(&server), (2, 1));
    end(&mut server, &other, 0);
    assert_eq!(markers(&server).1, 1);
}

#[test]
fn a_sync_that_fails_spoils_the_markers_of_sessions_that_live_too() {
    // The one is met before the other has a marker, or comes after it has listed.
    for is_met in [true, false] {
        let mut server = Server::new(16);
        let other = greeted(&mut server, Durability::Session);
        if !is_met {
            list_root(&mut server, &other);
        }
        let one = greeted(&mut server, Durability::None);
        make(&mut server, &one, b"one");
        if is_met {
            list_root(&mut server, &other);
        }
        make(&mut server, &other, b"other");
        end(&mut server, &other, 1000);
        assert_eq!(markers(&server), (2, 2), "{is_met}");
        end(&mut server, &one, 0);
        assert_eq!(markers(&server).1, 2, "{is_met}");
    }
}

#[test]
fn a_marker_of_a_session_that_ended_without_a_sync_is_taken_over_and_goes_with_the_next_sync() {
    let mut server = Server::new(16);
    let one = greeted(&mut server, Durability::None);
    make(&mut server, &one, b"one");
    end(&mut server, &one, 0);
    assert_eq!(markers(&server), (1, 0));
    let other = greeted(&mut server, Durability::Session);
    list_root(&mut server, &other);
    make(&mut server, &other, b"other");
    assert_eq!(markers(&server), (1, 0));
    end(&mut server, &other, 0);
    assert_eq!(markers(&server), (0, 0));
}

#[test]
fn a_session_that_ends_while_another_syncs_keeps_its_marker() {
    let mut server = Server::new(16);
    // Another process's, which goes on until the sync is under way.
    let writer = server.disk.spawn();
    let dir = writer.open_operator_dir(b"/t").unwrap();
    let name = b".sy.0123456789abcdef.unclean";
    let marker = writer.create_file(&dir, name, 0o644).unwrap();
    let bytes = [&writer.boot_id()[..], &[0; 24]].concat();
    writer.write(&marker, &bytes, 0).unwrap();
    assert_eq!(writer.try_lock(&marker, Lock::Exclusive), Ok(true));
    let one = greeted(&mut server, Durability::Session);
    list_root(&mut server, &one);
    make(&mut server, &one, b"one");
    let mut marker = Some(marker);
    server.disk.before_each_call(move |_, call| {
        if call.kind == CallKind::SyncFs {
            drop(marker.take());
        }
    });
    end(&mut server, &one, 0);
    assert_eq!(markers(&server), (1, 0));
}

#[test]
fn doubt_ends_with_the_next_session_where_all_that_it_met_is_older() {
    // A clock that was set back makes what a crash may have damaged younger than the session after it.
    for is_known in [true, false] {
        let mut server = Server::new(16);
        let before = server.disk.spawn();
        let dir = before.open_operator_dir(b"/t").unwrap();
        let name = b".sy.0123456789abcdef.unclean";
        let marker = before.create_file(&dir, name, 0o644).unwrap();
        let bytes = [&[9; 16][..], &[0; 24]].concat();
        before.write(&marker, &bytes, 0).unwrap();
        drop(marker);
        let one = greeted(&mut server, Durability::None);
        if is_known {
            list_root(&mut server, &one);
        }
        make(&mut server, &one, b"one");
        before.create_file(&dir, b"theirs", 0o644).unwrap();
        if !is_known {
            list_root(&mut server, &one);
        }
        end(&mut server, &one, 0);
        let marker = before.open_file(&dir, name).unwrap();
        let mut until = [0; 12];
        assert_eq!(before.read(&marker, &mut until, 28), Ok(12));
        assert_eq!(until != [0; 12], is_known);
    }
}
