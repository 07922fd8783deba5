//! Peers that send too much, too little, or nothing: what they cost is bounded, and a normal push
//! beside them arrives.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use kernel_tests::evil::{self, Evil, Hello, Last, ROOT, meta};
use kernel_tests::scene::slash;
use kernel_tests::{Need, Scene, Server, content, guard, on_routes, plant, require};

const MODULE: &str = "m";
const MIB: u64 = 1024 * 1024;

fn evil(scene: &mut Scene) -> Evil {
    Evil::connect(scene.server().port())
}

fn greeted(scene: &mut Scene) -> Evil {
    let mut evil = evil(scene);
    evil.send(&Hello::to(MODULE, "dst").frame());
    evil.next_of(evil::WELCOME);
    evil
}

/// A push of some files, small and large, to a place of its own.
#[track_caller]
fn push_beside(scene: &mut Scene) {
    plant::file(scene.src().join("dir/small"), content::noise(1, 1000));
    plant::file(scene.src().join("large"), content::noise(2, 3 << 20));
    // Without a sign of life for so long it gives up; who holds blocks is let go long before.
    let push = scene.push_to("beside").from(slash(scene.src()));
    push.options(&["--timeout", "20"]).run().ok();
    plant::remove(scene.export().join("beside"));
}

/// Resident memory, a moment later no more than this above what it was.
#[track_caller]
fn assert_grew_less(scene: &mut Scene, before: u64, most: u64) {
    let grown = scene.server().rss_bytes().saturating_sub(before);
    assert!(grown < most, "{} MiB more", grown / MIB);
}

#[track_caller]
fn assert_is_calm(scene: &mut Scene) {
    // Work that was asked for before may still be under way; it ends, a loop does not.
    let mut ticks = 0;
    let is_calm = guard::comes_true(Duration::from_secs(20), || {
        let before = scene.server().cpu_ticks();
        std::thread::sleep(Duration::from_millis(300));
        ticks = scene.server().cpu_ticks() - before;
        ticks <= 20
    });
    assert!(
        is_calm,
        "{ticks} ticks of CPU in 0.3 s that nobody asked for"
    );
}

/// Writes until the server takes no more for a while; whether all of it went.
fn write_what_goes(evil: &mut Evil, bytes: &[u8]) -> bool {
    let _ = evil.stream.set_write_timeout(Some(Duration::from_secs(1)));
    evil.send(bytes)
}

on_routes! { tcp;
fn directories_that_nobody_reads_the_answers_of_cost_little(scene) {
    require!(Need::Sy);
    // One directory again and again: each answer is some thousand times its question.
    for number in 0..200 {
        plant::file(scene.dst().join(format!("d/{number:0200}")), "");
    }
    let before = scene.server().rss_bytes();
    let mut evil = greeted(scene);
    let mut id = 1;
    let mut has_stopped = false;
    while id < 5_000_000 && !has_stopped {
        let mut requests = Vec::new();
        while requests.len() < evil::PAYLOAD_MAX - 30 {
            requests.extend(evil::request(id, ROOT, Some(b"d")));
            id += 1;
        }
        has_stopped = !write_what_goes(&mut evil, &evil::frame(evil::LIST, &requests));
    }
    assert!(has_stopped, "the server took all requests");
    assert_grew_less(scene, before, 64 * MIB);
    assert_is_calm(scene);
    push_beside(scene);
}
}

on_routes! { tcp;
fn directories_without_end_are_refused(scene) {
    require!(Need::Sy);
    let before = scene.server().rss_bytes();
    let mut evil = greeted(scene);
    let mut writer = evil.stream.try_clone().expect("a second descriptor");
    let sender = std::thread::spawn(move || {
        let mut id = 1;
        while id < 1_000_000 {
            let mut requests = Vec::new();
            while requests.len() < evil::PAYLOAD_MAX - 30 {
                requests.extend(evil::request(id, id - 1, Some(b"d")));
                id += 1;
            }
            if writer.write_all(&evil::frame(evil::LIST, &requests)).is_err() {
                return;
            }
        }
    });
    let last = evil.last();
    assert!(matches!(&last, Last::Refused(6, text) if text.contains("open directories: more than")), "{last:?}");
    drop(evil);
    sender.join().expect("the sender ends");
    assert_grew_less(scene, before, 250 * MIB);
    push_beside(scene);
}
}

on_routes! { tcp;
fn owners_without_end_are_refused(scene) {
    require!(Need::Sy);
    let before = scene.server().rss_bytes();
    let mut evil = greeted(scene);
    let mut id = 1;
    while id < 1_000_000 {
        let mut owners = Vec::new();
        while owners.len() < evil::PAYLOAD_MAX - 300 {
            owners.extend(evil::owner(1 + (id % 2) as u8, id, &[b'n'; 255]));
            id += 1;
        }
        if !evil.send(&evil::frame(evil::OWNERS, &owners)) {
            break;
        }
    }
    let last = evil.last();
    assert!(matches!(&last, Last::Refused(6, text) if text.contains("owners: more than 65536")), "{last:?}");
    assert_grew_less(scene, before, 32 * MIB);
    push_beside(scene);
}
}

on_routes! { tcp;
fn large_files_without_end_are_refused_before_descriptors_run_out(scene) {
    require!(Need::Sy);
    let before = scene.server().fd_count();
    let mut evil = greeted(scene);
    for pack in 0..100 {
        let begin = |at: u32| evil::op_begin(ROOT, b"f", pack * 1000 + at, meta(evil::FILE), 1);
        let ops: Vec<_> = (0..1000).map(begin).collect();
        if !evil.send(&evil::pack(&ops)) {
            break;
        }
        let fds = scene.server().fd_count();
        assert!(fds < before + 1000, "{fds} descriptors");
    }
    let last = evil.last();
    assert!(matches!(&last, Last::Refused(6, text) if text.contains("large files under way: more than")), "{last:?}");
    // The same where each fails at once: they hold no descriptor, and memory all the same.
    plant::file(scene.dst().join("in the way"), "x");
    let mut evil = greeted(scene);
    let mut ops = vec![evil::op_mkdir(ROOT, b"in the way", 1, 0o755)];
    ops.extend((0..2000).map(|at| evil::op_begin(1, b"f", at, meta(evil::FILE), 1)));
    evil.send(&evil::pack(&ops));
    let last = evil.last();
    assert!(matches!(&last, Last::Refused(6, text) if text.contains("large files under way: more than")), "{last:?}");
    scene.assert_no_litter();
    push_beside(scene);
}
}

on_routes! { tcp;
fn a_hundred_thousand_frames_without_meaning_cost_nothing(scene) {
    require!(Need::Sy);
    let before = scene.server().rss_bytes();
    let mut evil = greeted(scene);
    for _ in 0..100 {
        let mut frames = Vec::new();
        for at in 0..1000usize {
            frames.extend(evil::frame(evil::IGNORABLE, &[7; 3][..at % 4]));
        }
        assert!(evil.send(&frames));
    }
    // PACKs and LISTs without content are legal, too.
    assert!(evil.send(&[evil::frame(evil::PACK, b""), evil::frame(evil::LIST, b"")].concat().repeat(10_000)));
    evil.send(&evil::done());
    assert_eq!(evil.last(), Last::Report(0, 0, 0));
    assert_grew_less(scene, before, 32 * MIB);
    push_beside(scene);
    assert_is_calm(scene);
}
}

on_routes! { tcp;
fn failures_far_below_cost_no_more_than_failures_above(scene) {
    require!(Need::Sy);
    // Each of a thousand failures in one small frame has a path of a quarter of a megabyte.
    const DEPTH: u32 = 1000;
    let before = scene.server().rss_bytes();
    let mut evil = greeted(scene);
    let name = [b'd'; 255];
    let dirs: Vec<_> = (0..DEPTH).map(|above| evil::op_mkdir(above, &name, above + 1, 0o755)).collect();
    for some in dirs.chunks(500) {
        evil.send(&evil::pack(some));
    }
    let fail: Vec<_> = (0..7000).map(|_| evil::op_meta(DEPTH, b"x", meta(evil::FILE))).collect();
    let fail = evil::pack(&fail);
    for _ in 0..8 {
        if !write_what_goes(&mut evil, &fail) {
            break;
        }
    }
    let mut most = 0;
    for _ in 0..200 {
        most = most.max(scene.server().rss_bytes());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(most - before < 160 * MIB, "{} MiB more", (most - before) / MIB);
    // Who reads gets all of them.
    evil.send(&evil::done());
    let last = evil.last();
    assert!(matches!(last, Last::Report(23, 0, 56_000)), "{last:?}");
    drop(evil);
    push_beside(scene);
    plant::remove(scene.dst());
}
}

on_routes! { tcp;
fn half_heads_and_stalled_greetings_do_not_hold_up_a_push(scene) {
    require!(Need::Sy);
    let hello = Hello::to(MODULE, "dst").frame();
    let mut stalled: Vec<Evil> = (0..500)
        .map(|_| {
            let mut evil = evil(scene);
            evil.send(&hello[..8]);
            evil
        })
        .collect();
    push_beside(scene);
    assert_is_calm(scene);
    for evil in &mut stalled {
        assert!(evil.is_closed(), "closed at the deadline of the greeting");
    }
    assert!(scene.server().log().contains("sign\\x20of\\x20life"), "{}", scene.server().log());
}
}

on_routes! { tcp;
fn announced_payloads_that_never_come_do_not_starve_a_push(scene) {
    require!(Need::Sy);
    // More of them than all shards have blocks, before the greeting and after it.
    let large = evil::head(evil::PACK, evil::PAYLOAD_MAX as u32, 0, 0);
    for is_greeted in [false, true] {
        let stalled: Vec<Evil> = (0..40 * shards())
            .map(|_| {
                let mut evil = if is_greeted { greeted(scene) } else { evil(scene) };
                evil.send(&large);
                evil.send(b"some");
                evil
            })
            .collect();
        push_beside(scene);
        assert_is_calm(scene);
        drop(stalled);
    }
}
}

on_routes! { tcp;
fn answers_that_nobody_reads_do_not_starve_a_push(scene) {
    require!(Need::Sy);
    // A listing of many blocks for each of a few sessions, which together hold all of them.
    for number in 0..3000 {
        plant::file(scene.dst().join(format!("d/{number:0200}")), "");
    }
    let stalled: Vec<Evil> = (0..8 * shards())
        .map(|_| {
            let mut evil = greeted(scene);
            let fd = &evil.stream;
            let _ = rustix::net::sockopt::set_socket_recv_buffer_size(fd, 4096);
            let mut lists = Vec::new();
            for id in 1..60 {
                lists.extend(evil::list(id, ROOT, Some(b"d")));
            }
            evil.send(&lists);
            evil
        })
        .collect();
    // Until all of them wait to be read.
    assert_is_calm(scene);
    push_beside(scene);
    assert_is_calm(scene);
    drop(stalled);
    plant::remove(scene.dst());
}
}

on_routes! { tcp;
fn peers_that_stay_after_a_refusal_do_not_starve_a_push(scene) {
    require!(Need::Sy);
    let stalled: Vec<Evil> = (0..40 * shards())
        .map(|_| {
            let mut evil = greeted(scene);
            evil.send(&evil::frame(0x90, b""));
            assert!(matches!(evil.last(), Last::Refused(6, _)));
            evil
        })
        .collect();
    push_beside(scene);
    assert_is_calm(scene);
    drop(stalled);
}
}

on_routes! { tcp, unix;
fn a_server_with_enough_connections_says_so_and_takes_more_when_some_end(scene) {
    require!(Need::Sy);
    let server = Server::new(scene.path()).option("--max-connections=2");
    scene.serve(server);
    plant::file(scene.src().join("file"), "text");
    let mut idle = Vec::new();
    // The look that found the server started may count until it is seen to be over.
    guard::wait_until("two connections to be taken", || {
        idle.push(greeted_or_refused(scene.server().port()));
        idle.retain(|taken| taken.is_some());
        idle.len() == 2
    });
    for greeting in [&b""[..], &Hello::to(MODULE, "dst").frame()] {
        let mut evil = evil(scene);
        evil.send(greeting);
        assert_eq!(evil.last(), Last::Refused(evil::BUSY, "it takes 2 at once".to_owned()));
    }
    let push = scene.push_to("dst").from(slash(scene.src())).run();
    push.exits(5).complains(&["too many", "2 at once", "later"]);
    assert!(!scene.dst().join("file").exists());
    assert!(scene.server().log().contains("why=busy"), "{}", scene.server().log());
    drop(idle);
    guard::wait_until("a push to succeed again", || {
        scene.push_to("dst").from(slash(scene.src())).run().code == Some(0)
    });
}
}

/// A session that a server took, or `None` where it has no room for more.
fn greeted_or_refused(port: u16) -> Option<Evil> {
    let mut evil = Evil::connect(port);
    evil.send(&Hello::to(MODULE, "other").frame());
    let first = evil.next_frame().expect("an answer");
    (first.kind == evil::WELCOME).then_some(evil)
}

fn shards() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

on_routes! { tcp;
fn other_protocols_are_told_from_ours_in_one_line(scene) {
    require!(Need::Sy);
    let tls = [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &[0x5a; 502]].concat();
    for (what, greeting) in [
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("TLS", tls),
        ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()),
        ("rsync", b"@RSYNCD: 31.0 md5\n".to_vec()),
        ("zeros", vec![0; 1 << 20]),
        ("ones", vec![0xff; 1 << 20]),
    ] {
        let mut evil = evil(scene);
        let peer = format!("peer={} ", evil.stream.local_addr().expect("it has an address"));
        evil.send(&greeting);
        assert!(evil.is_closed(), "{what}");
        let mut log = String::new();
        guard::wait_until("the line in the log", || {
            log = scene.server().log();
            log.contains(&peer)
        });
        let lines: Vec<_> = log.lines().filter(|line| line.contains(&peer)).collect();
        assert!(lines.len() == 1 && lines[0].contains("this\\x20is\\x20not\\x20sy"), "{what}: {lines:?}");
    }
    // Too short to be told: told when the peer hangs up.
    let mut evil = evil(scene);
    evil.send(b"@RSYNCD: 31\n");
    evil.finish();
    assert!(evil.is_closed());
    assert_is_calm(scene);
}
}

on_routes! { tcp;
fn a_greeting_has_an_absolute_deadline(scene) {
    require!(Need::Sy);
    let silent = evil(scene);
    let slow = evil(scene);
    let mut held = evil(scene);
    let hello = Hello::to(MODULE, "dst").frame();
    held.send(&hello[..hello.len() - 1]);
    let dripping = slow.stream.try_clone().expect("a second descriptor");
    let drip = std::thread::spawn(move || drip(dripping, &hello));
    for mut evil in [silent, slow, held] {
        assert!(evil.is_closed());
    }
    assert!(!drip.join().expect("it ends"), "the whole greeting was waited for");
}
}

/// A byte a second; whether all were taken.
fn drip(mut stream: TcpStream, bytes: &[u8]) -> bool {
    for byte in bytes {
        if stream.write_all(&[*byte]).is_err() {
            return false;
        }
        let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
        match stream.read(&mut [0; 64]) {
            Ok(0) => return false,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return false,
            Ok(_) | Err(_) => {}
        }
    }
    true
}
