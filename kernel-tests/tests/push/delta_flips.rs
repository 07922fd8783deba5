//! One flipped bit in what a delta is made of, SIGNATURE and TOKENS, anywhere in their heads and
//! payloads: on the way, where the checks of the frame find it; and before the frame was sealed, as
//! bad memory does it, where the digests of chunk and file are all that is left.

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::{Arc, Mutex};

use kernel_tests::evil::{self, EvilServer, Frame};
use kernel_tests::proxy::Way;
use kernel_tests::scene::slash;
use kernel_tests::{Chance, Need, Outcome, Scene, content, guard, on_routes, plant, require};

const OLD_BYTES: usize = 600_000;
/// Of a SIGNATURE before the sums of its first section.
const SECTION_HEAD_BYTES: usize = 25;
/// Of TOKENS, with the first run.
const CHUNK_HEAD_BYTES: usize = 32 + 13;

/// Where the bit is flipped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum When {
    OnTheWay,
    BeforeItWasSealed,
}

/// A bit of the first frame of a kind.
#[derive(Clone, Copy, Debug)]
struct Strike {
    kind: u8,
    when: When,
    /// The byte, of the frame or of its payload.
    at: usize,
    bit: u8,
}

impl Strike {
    fn way(self) -> Way {
        match self.kind {
            evil::SIGNATURE => Way::ToClient,
            _ => Way::ToServer,
        }
    }

    /// The frame, damaged.
    fn damage(self, frame: &Frame) -> Vec<u8> {
        let mut payload = frame.payload.clone();
        if self.when == When::BeforeItWasSealed {
            let at = self.at % payload.len();
            payload[at] ^= 1 << self.bit;
            return evil::frame(frame.kind, &payload);
        }
        let mut bytes = evil::frame(frame.kind, &payload);
        let at = self.at % bytes.len();
        bytes[at] ^= 1 << self.bit;
        bytes
    }
}

/// Bytes of the payload of the frame that was struck, once there was one.
type Struck = Arc<Mutex<Option<usize>>>;

/// Between a client and the server at `port`: all passes but what `strike` damages.
fn relay(client: TcpStream, port: u16, strike: Strike, deed: bool, struck: &Struck) {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the server accepts");
    let twin = |stream: &TcpStream| stream.try_clone().expect("a second descriptor");
    let (mut from, mut to) = match strike.way() {
        Way::ToServer => (twin(&client), twin(&server)),
        Way::ToClient => (twin(&server), twin(&client)),
    };
    let (mut back_from, mut back_to) = (twin(&to), twin(&from));
    let back = std::thread::spawn(move || {
        let _ = std::io::copy(&mut back_from, &mut back_to);
        let _ = back_to.shutdown(Shutdown::Write);
    });
    while let Some(frame) = evil::read_frame(&mut from) {
        let mut struck = struck.lock().expect("no thread panics with it");
        let mut bytes = evil::frame(frame.kind, &frame.payload);
        if frame.kind == strike.kind && struck.is_none() {
            *struck = Some(frame.payload.len());
            if deed {
                bytes = strike.damage(&frame);
            }
        }
        drop(struck);
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = back.join();
}

/// Pushes through the relay; how it ended, and the bytes of the payload that was struck.
#[track_caller]
fn push_struck(scene: &mut Scene, strike: Strike, deed: bool) -> (Outcome, usize) {
    let struck = Struck::default();
    let (port, theirs) = (scene.server().port(), Arc::clone(&struck));
    let server = EvilServer::start(move |client| relay(client, port, strike, deed, &theirs));
    let push = scene.push_to_port("dst", server.port());
    let push = push
        .from(slash(scene.src()))
        .options(&["--json", "--timeout=2"]);
    let outcome = push.run();
    drop(server);
    let payload_bytes = struck.lock().expect("no thread panics with it").take();
    (outcome, payload_bytes.expect("there is such a frame"))
}

fn plant_old(scene: &Scene, old: &[u8]) {
    plant::file(scene.dst().join("f"), old);
    plant::mtime(scene.dst().join("f"), 1_000_000, 0);
}

/// A file that was changed, cut and shifted, whose new version goes as a delta in three chunks.
fn plant_versions(scene: &Scene) -> (Vec<u8>, Vec<u8>) {
    let old = content::noise(90, OLD_BYTES);
    let mut new = [b"in front", &old[..300_000], &old[310_000..]].concat();
    new[100_000..100_100].fill(b'x');
    new[500_000..500_100].fill(b'x');
    plant::file(scene.src().join("f"), &new);
    plant_old(scene, &old);
    (old, new)
}

/// Each byte of the first `near` ones, and so many of the rest.
fn places(chance: &mut Chance, near: usize, far: usize, bytes: usize) -> Vec<(usize, u8)> {
    assert!(near < bytes, "{near} of {bytes}");
    let far = (0..far).map(|_| near + chance.below((bytes - near) as u64) as usize);
    let places: Vec<usize> = (0..near).chain(far).collect();
    let bit = |chance: &mut Chance| chance.below(8) as u8;
    places.into_iter().map(|at| (at, bit(chance))).collect()
}

/// Strikes the frames of this kind; how each push ended.
fn strike(scene: &mut Scene, kind: u8, when: When, near: usize, far: usize) -> Vec<Outcome> {
    let (old, new) = plant_versions(scene);
    let mut chance = Chance::new();
    let (at, bit) = (0, 0);
    let none = Strike {
        kind,
        when,
        at,
        bit,
    };
    let (outcome, payload_bytes) = push_struck(scene, none, false);
    let summary = outcome.ok().summary();
    assert!(summary.matched_bytes > 500_000, "{summary:?}");
    scene.assert_arrived();

    let bytes = match when {
        When::OnTheWay => evil::HEAD_BYTES + payload_bytes,
        When::BeforeItWasSealed => payload_bytes,
    };
    let mut outcomes = Vec::new();
    for (at, bit) in places(&mut chance, near, far, bytes) {
        plant_old(scene, &old);
        let strike = Strike {
            kind,
            when,
            at,
            bit,
        };
        let (outcome, _) = push_struck(scene, strike, true);
        let now = std::fs::read(scene.dst().join("f")).expect("it is there");
        let is_new = now == new;
        assert!(
            is_new || now == old,
            "{strike:?} made a wrong file: {outcome}"
        );
        assert!(
            is_new || outcome.code != Some(0),
            "{strike:?} was a success: {outcome}"
        );
        outcomes.push(outcome);
    }
    guard::wait_until("temporary files to go", || {
        kernel_tests::Tree::read(scene.export()).litter().is_empty()
    });
    outcomes
}

on_routes! { tcp;
fn a_bit_of_a_signature_flipped_on_the_way_ends_the_push(scene) {
    require!(Need::Sy);
    let near = evil::HEAD_BYTES + SECTION_HEAD_BYTES;
    for outcome in strike(scene, evil::SIGNATURE, When::OnTheWay, near, 20) {
        outcome.exits(12);
    }
}
}

on_routes! { tcp;
fn a_bit_of_tokens_flipped_on_the_way_ends_the_push(scene) {
    require!(Need::Sy);
    let near = evil::HEAD_BYTES + CHUNK_HEAD_BYTES;
    for outcome in strike(scene, evil::TOKENS, When::OnTheWay, near, 20) {
        outcome.exits(12);
    }
}
}

// Sums that are wrong find less, or find what isn't there: the digest of the chunk says so.
on_routes! { tcp;
fn a_bit_of_a_signature_flipped_before_it_was_sealed_costs_matches(scene) {
    require!(Need::Sy);
    let outcomes = strike(scene, evil::SIGNATURE, When::BeforeItWasSealed, SECTION_HEAD_BYTES, 30);
    let (heads, sums) = outcomes.split_at(SECTION_HEAD_BYTES);
    // A section for another file, of other blocks or of another count, is none that was asked for.
    assert!(heads.iter().any(|outcome| outcome.code == Some(12)));
    for outcome in sums {
        outcome.clone().ok();
    }
}
}

on_routes! { tcp;
fn a_bit_of_tokens_flipped_before_they_were_sealed_makes_no_file(scene) {
    require!(Need::Sy);
    let outcomes = strike(scene, evil::TOKENS, When::BeforeItWasSealed, CHUNK_HEAD_BYTES, 40);
    let resent = outcomes.iter().filter(|outcome| {
        outcome.code == Some(0) && outcome.summary().files_resent == 1
    });
    // Where the runs are none that fit, it is refused; otherwise they make other bytes.
    assert!(resent.count() > 20);
    assert!(outcomes.iter().any(|outcome| outcome.code == Some(12)));
}
}
