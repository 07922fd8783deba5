//! Connections that break, stall or garble, and peers that speak something else.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use kernel_tests::invariant::assert_between;
use kernel_tests::proxy::{Deed, Plan, Proxy, Way};
use kernel_tests::scene::slash;
use kernel_tests::{Chance, Need, Push, Scene, Tree, content, guard, on_routes, plant, require};

fn plant_small_session(scene: &Scene) {
    let old = scene.path().join("old");
    for number in 0..12 {
        plant::file(
            scene.src().join(format!("d{}/f{number}", number % 3)),
            content::noise(number, 900),
        );
    }
    plant::file(scene.src().join("large"), content::noise(77, 600_000));
    plant::file(old.join("large"), content::noise(78, 300_000));
    plant::file(old.join("d1/f1"), "older");
    plant::file(old.join("extra"), "goes");
}

fn restore(scene: &Scene) -> Tree {
    if scene.dst().exists() {
        plant::remove(scene.dst());
    }
    plant::copy(&scene.path().join("old"), &scene.dst());
    Tree::read(scene.dst())
}

/// Pushes through a proxy with this plan.
fn push_through(
    scene: &mut Scene,
    plan: Plan,
    options: &[&str],
) -> (kernel_tests::Outcome, [u64; 2]) {
    let proxy = Proxy::start(scene.server().port(), plan);
    let push = scene.push_to_port(scene.aimed_at(), proxy.port());
    let outcome = push.from(slash(scene.src())).options(options).run();
    (
        outcome,
        [proxy.bytes(Way::ToServer), proxy.bytes(Way::ToClient)],
    )
}

/// Where to strike in a session of so many bytes: every byte near its start, some of the rest.
fn offsets(total: u64, chance: &mut Chance, near: u64, far: u64) -> Vec<u64> {
    let mut offsets: Vec<u64> = (0..near.min(total)).collect();
    offsets.extend((0..far).map(|_| chance.below(total)));
    offsets.extend(total.saturating_sub(20)..total);
    offsets.sort_unstable();
    offsets.dedup();
    offsets
}

/// One fault at many places of a small session, in both directions.
fn strike_everywhere(scene: &mut Scene, near: u64, far: u64, deed: impl Fn(&mut Chance) -> Deed) {
    plant_small_session(scene);
    let new = Tree::read(scene.src());
    restore(scene);
    let (outcome, totals) = push_through(scene, Plan::PASS, &["--delete"]);
    outcome.ok();
    scene.assert_arrived();
    let mut chance = Chance::new();
    for (way, total) in [(Way::ToServer, totals[0]), (Way::ToClient, totals[1])] {
        for after_bytes in offsets(total, &mut chance, near, far) {
            let old = restore(scene);
            let plan = Plan {
                way,
                after_bytes,
                deed: deed(&mut chance),
            };
            let (outcome, _) = push_through(scene, plan, &["--delete", "--timeout=2"]);
            let now = Tree::read(scene.dst());
            assert_between(&old, &new, &now, &format!("{plan:?}: {outcome}"));
            if outcome.code == Some(0) {
                let arrived = scene.expected(scene.src());
                arrived.assert_equals(&now, &format!("{plan:?} was a success: {outcome}"));
            } else if Need::Sy.met().is_ok() {
                assert!(outcome.code.is_some(), "{plan:?}: {outcome}");
                assert!(
                    !outcome.stderr.is_empty(),
                    "{plan:?}: it says why: {outcome}"
                );
                if matches!(plan.deed, Deed::Finish | Deed::Reset) {
                    outcome.exits_one_of(&[10, 12]);
                }
            }
        }
    }
    scene.push(&["--delete"]).run().ok();
    guard::wait_until("temporary files to go", || {
        Tree::read(scene.export()).litter().is_empty()
    });
    scene.push(&["--delete"]).run().ok();
    scene.assert_arrived();
}

on_routes! { tcp;
fn a_connection_reset_anywhere_commits_no_torn_file_and_is_no_success(scene) {
    strike_everywhere(scene, 60, 60, |_| Deed::Reset);
}
}

on_routes! { tcp;
fn a_connection_ended_anywhere_commits_no_torn_file_and_is_no_success(scene) {
    strike_everywhere(scene, 60, 60, |_| Deed::Finish);
}
}

on_routes! { tcp;
fn a_bit_flipped_anywhere_never_becomes_a_wrong_byte_at_the_target(scene) {
    // rsync's own stream is not checked: it trusts TCP's sum.
    require!(Need::Sy);
    strike_everywhere(scene, 12, 40, |chance| Deed::Flip(chance.draw().to_le_bytes()[0]));
}
}

on_routes! { tcp;
fn a_connection_that_stalls_for_a_while_goes_on(scene) {
    plant_small_session(scene);
    for (way, after_bytes) in [(Way::ToServer, 3000), (Way::ToClient, 50), (Way::ToServer, 0)] {
        restore(scene);
        let plan = Plan { way, after_bytes, deed: Deed::Hold };
        let proxy = Proxy::start(scene.server().port(), plan);
        let push = scene.push_to_port("dst", proxy.port()).from(slash(scene.src()));
        let running = push.option("--delete").start();
        guard::wait_until("the stall", || proxy.is_holding());
        std::thread::sleep(Duration::from_millis(300));
        proxy.release();
        running.wait().ok();
        scene.assert_arrived();
    }
}
}

on_routes! { tcp;
fn a_stalled_session_is_given_up_by_the_client_and_harms_no_other(scene) {
    require!(Need::Sy);
    plant_small_session(scene);
    plant::file(scene.src().join("huge"), content::noise(3, 30 << 20));
    restore(scene);
    let fds = scene.server().fd_count();
    for (way, after_bytes) in [(Way::ToClient, 40), (Way::ToServer, 1 << 20)] {
        let plan = Plan { way, after_bytes, deed: Deed::Hold };
        let proxy = Proxy::start(scene.server().port(), plan);
        let stalled = scene.push_to_port("dst", proxy.port()).from(slash(scene.src()));
        let stalled = stalled.option("--timeout=3").start();
        guard::wait_until("the stall", || proxy.is_holding());
        scene.push_to("other").from(slash(scene.src())).run().ok();
        stalled.wait().exits(30);
    }
    let most = fds + 4;
    guard::wait_until("the sessions to be let go", || scene.server().fd_count() <= most);
    scene.push(&["--delete"]).run().ok();
    scene.assert_arrived();
}
}

/// Greetings of other protocols, and noise.
fn strange_greetings() -> Vec<(&'static str, Vec<u8>)> {
    let mut tls = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    tls.extend(content::noise(1, 506));
    vec![
        (
            "http",
            b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n".to_vec(),
        ),
        (
            "ssh",
            b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n".to_vec(),
        ),
        (
            "rsync",
            b"@RSYNCD: 32.0 sha512 sha256 sha1 md5 md4\nmodule\n".to_vec(),
        ),
        ("tls", tls),
        ("zeros", vec![0; 1 << 20]),
        ("ones", vec![0xff; 100_000]),
        ("noise", content::noise(2, 300_000)),
    ]
}

on_routes! { tcp;
fn a_server_greeted_in_another_language_closes_and_serves_on(scene) {
    require!(Need::Sy);
    for (name, greeting) in strange_greetings() {
        let before = scene.server().log().len();
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, scene.server().port()))
            .expect("it accepts");
        let _ = stream.write_all(&greeting);
        guard::read_to_end(&mut stream);
        let server = scene.server();
        guard::wait_until("a line in the log", || server.log().len() > before);
        assert!(server.log().len() - before < 4096, "{name}: a short one:\n{}", server.log());
        assert!(server.is_running(), "{name}:\n{}", server.log());
    }
}
}

on_routes! { tcp;
fn a_server_outlives_connections_that_end_at_once(scene) {
    for round in 0..300 {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, scene.server().port()));
        let mut stream = stream.expect("it accepts");
        if round % 3 == 0 {
            let _ = stream.write_all(&[0; 5]);
        }
        if round % 2 == 0 {
            let _ = stream.shutdown(Shutdown::Write);
        }
    }
}
}

on_routes! { tcp;
fn a_connection_that_stays_silent_is_closed_and_its_place_freed(scene) {
    require!(Need::Sy);
    let port = scene.server().port();
    let streams: Vec<_> = [&b""[..], b"s", &[0; 7]]
        .into_iter()
        .map(|start| {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it accepts");
            stream.write_all(start).expect("a few bytes fit");
            stream
        })
        .collect();
    scene.push_to("other").from(slash(scene.src())).run().ok();
    for mut stream in streams {
        guard::read_to_end(&mut stream);
    }
}
}

/// A server of another kind: says its greeting and stays, or ends.
fn strange_server(greeting: Vec<u8>, stays: bool) -> (u16, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
    let port = listener.local_addr().expect("it has an address").port();
    let thread = std::thread::spawn(move || {
        let Ok((mut stream, _)) = listener.accept() else {
            return;
        };
        let _ = stream.write_all(&greeting);
        if stays {
            let _ = stream.set_read_timeout(Some(guard::hang()));
            let mut block = [0; 4096];
            while matches!(stream.read(&mut block), Ok(1..)) {}
        }
    });
    (port, thread)
}

#[test]
fn a_client_greeted_in_another_language_says_so_and_ends() {
    require!(Need::Sy);
    let yard = kernel_tests::Yard::new();
    plant::file(yard.join("src/file"), "text");
    plant::file(yard.join("src/large"), content::noise(1, 20 << 20));
    for (name, greeting) in strange_greetings() {
        for stays in [true, false] {
            let (port, thread) = strange_server(greeting.clone(), stays);
            let dest = format!("sy://127.0.0.1:{port}/m/dst");
            let outcome = Push::new(dest)
                .from(slash(yard.join("src")))
                .option("--timeout=5")
                .run();
            println!("{name}, stays: {stays}: {outcome}");
            let outcome = outcome.exits_one_of(&[2, 10, 12]).is_printable();
            assert!(!outcome.stderr.is_empty(), "{name}: {outcome}");
            thread.join().expect("the strange server ends");
        }
    }
}

#[test]
fn a_client_that_gets_no_answer_gives_up() {
    require!(Need::Sy);
    let yard = kernel_tests::Yard::new();
    plant::file(yard.join("src/file"), "text");
    let (port, thread) = strange_server(Vec::new(), true);
    let dest = format!("sy://127.0.0.1:{port}/m/dst");
    let outcome = Push::new(dest)
        .from(slash(yard.join("src")))
        .option("--timeout=2")
        .run();
    outcome.exits_one_of(&[30, 35]);
    thread.join().expect("the strange server ends");
}
