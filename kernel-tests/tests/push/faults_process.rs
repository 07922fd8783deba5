//! Clients and servers that are killed, stopped, or told to end.

use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use kernel_tests::held::Held;
use kernel_tests::invariant::assert_between;
use kernel_tests::scene::slash;
use kernel_tests::{
    Chance, Need, Push, Route, Scene, Tree, Yard, content, guard, on_routes, plant, require,
};

/// Kills by each test and way: `SY_TESTS_KILLS`, else so many.
const KILLS: u64 = 15;

fn kills() -> u64 {
    let asked = std::env::var("SY_TESTS_KILLS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(KILLS)
}

/// Each was looked at, or the test would have failed.
fn tell_kills(scene: &Scene, who: &str) {
    println!(
        "kill points {} of the {who} ({:?}) lost 0",
        kills(),
        scene.route
    );
}

/// An old tree at the target and a new one in the source: files that stay, change, come and go.
fn plant_two_versions(scene: &Scene) {
    let old = scene.path().join("old");
    for number in 0..300_u64 {
        let path = format!("dir-{}/sub-{}/file-{number}", number % 7, number % 3);
        let bytes = content::noise(number, 500 + 100 * (number % 50) as usize);
        match number % 5 {
            0 => plant::file(old.join(path), bytes),
            1 => plant::file(scene.src().join(path), bytes),
            2 => {
                plant::file(old.join(&path), bytes);
                plant::file(scene.src().join(path), content::noise(number + 1000, 3000));
            }
            _ => {
                plant::file(old.join(&path), &bytes);
                plant::file(scene.src().join(&path), &bytes);
                for path in [old.join(&path), scene.src().join(&path)] {
                    plant::mtime(path, 1_400_000_000, 0);
                }
            }
        }
    }
    for number in 0..3 {
        let name = format!("large-{number}");
        plant::file(old.join(&name), content::noise(number, 2 << 20));
        plant::file(
            scene.src().join(&name),
            content::noise(number + 10, 8 << 20),
        );
    }
}

/// Puts the old tree back at the target.
fn restore(scene: &Scene) -> Tree {
    if scene.dst().exists() {
        plant::remove(scene.dst());
    }
    plant::copy(&scene.path().join("old"), &scene.dst());
    Tree::read(scene.dst())
}

/// How long the whole push takes here and now, to choose moments within it.
fn duration(scene: &Scene) -> Duration {
    restore(scene);
    let start = Instant::now();
    scene.push(&["--delete"]).run().ok();
    start.elapsed()
}

fn moment(chance: &mut Chance, whole: Duration) -> Duration {
    let nanos = u64::try_from(whole.as_nanos()).expect("not for centuries");
    Duration::from_nanos(chance.below(nanos + nanos / 8))
}

/// The next push repairs everything and leaves no temporary file.
fn assert_converges(scene: &Scene) {
    scene.push(&["--delete"]).run().ok();
    // The killed push's session may take a moment to notice.
    guard::wait_until("temporary files to go", || {
        Tree::read(scene.export()).litter().is_empty()
    });
    scene.push(&["--delete"]).run().ok();
    scene.assert_arrived();
}

on_routes! { embedded, tcp, unix, ssh;
fn a_client_killed_at_any_moment_leaves_whole_files_and_the_next_push_repairs(scene) {
    plant_two_versions(scene);
    let whole = duration(scene);
    let new = Tree::read(scene.src());
    let mut chance = Chance::new();
    let mut fds = 0;
    for round in 0..kills() {
        let old = restore(scene);
        let running = scene.push(&["--delete"]).start();
        std::thread::sleep(moment(&mut chance, whole));
        running.kill();
        let outcome = running.wait();
        assert_between(&old, &new, &Tree::read(scene.dst()), &format!("round {round}: {outcome}"));
        scene.assert_outside_untouched();
        assert_converges(scene);
        if scene.route.has_server() {
            let server = scene.server();
            if round == 0 {
                fds = server.fd_count() + 2;
            }
            guard::wait_until("descriptors to be closed", || server.fd_count() <= fds);
        }
    }
    tell_kills(scene, "client");
}
}

on_routes! { tcp, unix;
fn a_server_killed_at_any_moment_leaves_whole_files_and_the_next_push_repairs(scene) {
    plant_two_versions(scene);
    let whole = duration(scene);
    let new = Tree::read(scene.src());
    let mut chance = Chance::new();
    for round in 0..kills() {
        let old = restore(scene);
        let running = scene.push(&["--delete"]).start();
        std::thread::sleep(moment(&mut chance, whole));
        scene.server().kill();
        let outcome = running.wait();
        let now = Tree::read(scene.dst());
        assert_between(&old, &new, &now, &format!("round {round}: {outcome}"));
        if outcome.code == Some(0) {
            scene.assert_arrived();
        } else {
            assert!(!outcome.stderr.is_empty(), "it says why: {outcome}");
            if Need::Sy.met().is_ok() {
                outcome.exits(10);
            }
        }
        scene.assert_outside_untouched();
        scene.server().start();
        assert_converges(scene);
    }
    tell_kills(scene, "server");
}
}

on_routes! { embedded, tcp, unix, ssh;
fn a_client_told_to_end_ends_cleanly(scene) {
    require!(Need::Sy);
    plant_two_versions(scene);
    let whole = duration(scene);
    let new = Tree::read(scene.src());
    let mut chance = Chance::new();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP].into_iter().cycle().take(9) {
        let old = restore(scene);
        let running = scene.push(&["--delete"]).start();
        std::thread::sleep(moment(&mut chance, whole));
        running.signal(signal);
        let outcome = running.wait();
        // Before its handlers stand, the signal itself ends it.
        let fits = outcome.signal.is_some() || matches!(outcome.code, Some(0 | 20));
        assert!(fits, "{signal:?}: {outcome}");
        assert_between(&old, &new, &Tree::read(scene.dst()), &format!("{signal:?}: {outcome}"));
        if outcome.code == Some(0) {
            scene.assert_arrived();
        }
        if outcome.code == Some(20) {
            guard::wait_until("temporary files to go", || {
                Tree::read(scene.export()).litter().is_empty()
            });
        }
        assert_converges(scene);
    }
}
}

on_routes! { embedded, tcp, unix, ssh;
fn a_client_stopped_for_a_second_goes_on(scene) {
    plant_two_versions(scene);
    let whole = duration(scene);
    let mut chance = Chance::new();
    restore(scene);
    let running = scene.push(&["--delete"]).start();
    std::thread::sleep(moment(&mut chance, whole));
    running.pause();
    std::thread::sleep(Duration::from_secs(1));
    running.resume();
    running.wait().ok();
    scene.assert_arrived();
}
}

on_routes! { tcp, unix;
fn a_server_stopped_for_a_second_goes_on(scene) {
    plant_two_versions(scene);
    let whole = duration(scene);
    let mut chance = Chance::new();
    restore(scene);
    let running = scene.push(&["--delete"]).start();
    std::thread::sleep(moment(&mut chance, whole));
    scene.server().signal(Signal::STOP);
    std::thread::sleep(Duration::from_secs(1));
    scene.server().signal(Signal::CONT);
    running.wait().ok();
    scene.assert_arrived();
}
}

on_routes! { tcp, unix;
fn both_ends_stopped_for_longer_than_their_patience_go_on(scene) {
    require!(Need::Sy);
    plant_two_versions(scene);
    let whole = duration(scene);
    let mut chance = Chance::new();
    restore(scene);
    let running = scene.push(&["--delete", "--timeout=1"]).start();
    std::thread::sleep(moment(&mut chance, whole));
    running.pause();
    scene.server().signal(Signal::STOP);
    std::thread::sleep(Duration::from_secs(4));
    scene.server().signal(Signal::CONT);
    running.resume();
    running.wait().ok();
    scene.assert_arrived();
}
}

on_routes! { tcp;
fn a_server_that_stays_silent_is_given_up(scene) {
    require!(Need::Sy);
    plant_two_versions(scene);
    let old = restore(scene);
    let held = Held::start(scene, &["--delete", "--timeout=2"], 1 << 20);
    scene.server().signal(Signal::STOP);
    let outcome = held.finish().exits(30);
    scene.server().signal(Signal::CONT);
    assert!(!outcome.stderr.is_empty(), "it says why: {outcome}");
    let now = Tree::read(scene.dst());
    assert_between(&old, &Tree::read(scene.src()), &now, "given up");
    assert_converges(scene);
}
}

on_routes! { tcp, unix;
fn a_quiet_server_told_to_end_ends_well(scene) {
    require!(Need::Sy);
    for signal in [Signal::TERM, Signal::INT] {
        scene.server().signal(signal);
        let status = scene.server().wait();
        assert!(status.success(), "{signal:?}: {status}\n{}", scene.server().log());
        assert!(!scene.server().socket().exists(), "it removes its socket");
        scene.server().start();
    }
}
}

on_routes! { tcp, unix;
fn a_busy_server_told_to_end_drains(scene) {
    require!(Need::Sy);
    plant_two_versions(scene);
    let whole = duration(scene);
    let new = Tree::read(scene.src());
    let mut chance = Chance::new();
    for round in 0..5 {
        let old = restore(scene);
        let running = scene.push(&["--delete"]).start();
        std::thread::sleep(moment(&mut chance, whole));
        scene.server().signal(Signal::TERM);
        let status = scene.server().wait();
        let outcome = running.wait();
        assert!(status.success(), "round {round}: {status}\n{}", scene.server().log());
        assert_between(&old, &new, &Tree::read(scene.dst()), &format!("round {round}: {outcome}"));
        if outcome.code == Some(0) {
            scene.assert_arrived();
        } else {
            assert!(!outcome.stderr.is_empty(), "it says why: {outcome}");
        }
        scene.assert_no_litter();
        scene.server().start();
        assert_converges(scene);
    }
}
}

on_routes! { tcp;
fn a_server_told_to_end_takes_nobody_new_and_waits_for_nobody_for_ever(scene) {
    require!(Need::Sy);
    plant_two_versions(scene);
    let old = restore(scene);
    let held = Held::start(scene, &["--delete"], 1 << 20);
    scene.server().signal(Signal::TERM);
    let port = scene.server().port();
    guard::wait_until("new connections to be refused", || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err()
    });
    let status = scene.server().wait();
    assert!(status.code().is_some(), "{status}");
    let outcome = held.finish();
    assert_ne!(outcome.code, Some(0), "{outcome}");
    let now = Tree::read(scene.dst());
    assert_between(&old, &Tree::read(scene.src()), &now, &format!("{outcome}"));
    scene.server().start();
    assert_converges(scene);
}
}

on_routes! { embedded, tcp;
fn what_was_in_doubt_above_a_destination_is_in_doubt_there_too(scene) {
    require!(Need::Sy);
    let file = scene.dst().join("file");
    plant::file(scene.src().join("file"), "whole");
    // What a session leaves that did not get further: nobody can tell what it had changed.
    plant::file(scene.path().join(".sy.0123456789abcdef.unclean"), "");
    scene.push::<&str>(&[]).run().ok();
    let (seconds, nanos) = Tree::read(&file).entries().next().expect("a file").1.mtime;
    let damage = || {
        plant::file(&file, "other");
        plant::mtime(&file, seconds, u32::try_from(nanos).expect("below a second"));
    };
    let is_mended = || std::fs::read(&file).expect("it is there") == b"whole";
    damage();
    scene.push::<&str>(&[]).run().ok();
    assert!(is_mended(), "by the way it is");
    if scene.route == Route::Embedded {
        damage();
        // In a directory that has no such marker above it.
        let elsewhere = Yard::new();
        let link = elsewhere.join("link");
        plant::symlink(scene.dst(), &link);
        Push::new(link).from(slash(scene.src())).run().ok();
        assert!(is_mended(), "by a link to it");
    }
    plant::remove(scene.path().join(".sy.0123456789abcdef.unclean"));
}
}
