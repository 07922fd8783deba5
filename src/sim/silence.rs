//! What silence is: a server's shard and peers made by hand, over minutes of simulated time.

use std::time::Duration;

use super::by_hand::{META, Server, done, frame, frames, hello, large_file};
use super::fault::CallKind;
use super::net::NetOptions;
use crate::limits::FRAME_HEAD_BYTES;
use crate::model::id::{FileId, ROOT};
use crate::model::name::Name;
use crate::model::policy::{Durability, Policy};
use crate::model::report::Exit;
use crate::session::Session;
use crate::wire::FrameKind;
use crate::wire::hello::{Refusal, Refused};
use crate::wire::pack::PackOp;
use crate::wire::report::Report;

/// The head of a PACK, whose payload is another matter.
fn announced() -> Vec<u8> {
    let mut pack = frame(FrameKind::Pack, |writer| writer.bytes(&[0; 200_000]));
    pack.truncate(FRAME_HEAD_BYTES);
    pack
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

const SECOND: u64 = 1000;

#[test]
fn a_payload_of_which_a_byte_comes_now_and_then_is_no_silence() {
    // One block for it and one to answer with, so the session could be hungry for its own.
    let mut server = Server::new(2);
    let mut peer = server.greeted(&NetOptions::calm(1 << 20));
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
    let mut peer = server.greeted(&NetOptions::calm(32));
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
    let options = NetOptions::calm(1 << 20);
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
    assert!(text.contains("more than 5 s"), "{text}");
    assert_eq!(server.last_word(&mut third, SECOND), None);
}

#[test]
fn what_a_machine_slept_through_is_no_silence() {
    let mut server = Server::new(4);
    let options = NetOptions::calm(1 << 20);
    let mut new = server.connected(&options);
    let mut quiet = server.greeted(&options);
    let mut midway = server.greeted(&options);
    server.say(&midway, &announced());
    server.wait(SECOND);
    server.freeze(600);
    assert_eq!(server.last_word(&mut new, 8 * SECOND), None);
    assert!(server.last_word(&mut new, 2 * SECOND).is_some());
    for peer in [&mut quiet, &mut midway] {
        assert_eq!(server.last_word(peer, 24 * SECOND), None);
    }
    server.freeze(600);
    server.wait(3 * SECOND);
    for peer in [&mut quiet, &mut midway] {
        let (refusal, text) = server.last_word(peer, SECOND).unwrap();
        assert_eq!(refusal, Refusal::Timeout);
        assert!(text.contains("for 60 s"), "{text}");
    }
}

#[test]
fn a_source_in_a_hurry_is_shown_life_in_time_and_soon_given_up() {
    let mut server = Server::new(4);
    let options = NetOptions::calm(1 << 20);
    let alive = frame(FrameKind::Ignorable, |_| {});
    for (patience, most) in [(1, 1), (6, 6), (0, 60), (1000, 60)] {
        let mut peer = server.greeted_by(&options, &hello(patience, Policy::default()));
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
    let mut peer = server.greeted(&NetOptions::calm(4096));
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
    let policy = Policy {
        durability: Durability::Session,
        ..Policy::default()
    };
    let mut peer = server.greeted_by(&NetOptions::calm(1 << 20), &hello(0, policy));
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
    let mut peer = server.greeted(&NetOptions::calm(1 << 20));
    server.say(&peer, &large_file(FileId(1), 20, 0, true));
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
    let mut peer = server.greeted(&NetOptions::calm(1 << 20));
    server.say(&peer, &hello(0, Policy::default()));
    let (refusal, text) = server.last_word(&mut peer, SECOND).unwrap();
    assert_eq!(refusal, Refusal::Protocol);
    assert!(text.contains("HELLO"), "{text}");
    let key = server.shard.keys()[0];
    let Session::Target(target) = server.shard.session(key) else {
        panic!("a server has targets only")
    };
    assert_eq!(target.frames_held_count(), 0);
}

#[test]
fn a_payload_that_waits_for_a_block_of_ours_is_no_silence() {
    let mut server = Server::new(4);
    let mut peer = server.greeted(&NetOptions::calm(1 << 20));
    let taken: Vec<_> = std::iter::from_fn(|| server.blocks.take()).collect();
    server.say(&peer, &missing(1));
    server.wait(100 * SECOND);
    drop(taken);
    assert_eq!(server.last_word(&mut peer, SECOND), None);
    server.say(&peer, &done());
    server.wait(SECOND);
    server.hear(&mut peer, 1 << 20);
    let (kind, payload) = frames(&peer.heard).pop().unwrap();
    assert_eq!(kind, FrameKind::Report);
    assert_eq!(Report::decode(&payload).unwrap().errors, 1);
}
