//! Processes that start with many descriptors or may have few.

use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use kernel_tests::scene::slash;
use kernel_tests::{Need, Outcome, Route, Scene, Server, deep, guard, on_routes, plant, require};

/// More directories than a small process has descriptors, side by side and below each other.
fn plant_many_directories(scene: &Scene) {
    for dir in 0..120 {
        for file in 0..3 {
            plant::file(
                scene.src().join(format!("d{dir}/s{dir}/f{file}")),
                format!("{file}"),
            );
        }
    }
    plant::dir(scene.src().join("deep"));
    deep::plant(&scene.src().join("deep"), 150, 10);
    plant::file(scene.src().join("large"), vec![7; 3 << 20]);
}

const CROWDED: [&str; 4] = [
    "bash",
    "-c",
    "ulimit -n 4096; for ((i = 3; i < 1103; i++)); do eval \"exec $i</dev/null\"; done; exec \"$@\"",
    "bash",
];
const POOR: [&str; 2] = ["prlimit", "--nofile=64:64"];

/// It works, or it fails with a reason and without a lie.
fn works_or_says_why(scene: &Scene, outcome: Outcome) {
    if outcome.code == Some(0) {
        scene.assert_arrived();
    } else {
        assert!(
            outcome.code.is_some() && !outcome.stderr.is_empty(),
            "{outcome}"
        );
        scene.assert_no_litter();
    }
}

on_routes! { embedded, tcp, unix, ssh;
fn a_client_that_starts_with_1100_descriptors_works(scene) {
    require!(Need::Tool("bash"));
    plant_many_directories(scene);
    scene.push::<&str>(&[]).through(&CROWDED).run().ok();
    scene.assert_arrived();
    scene.assert_idle::<&str>(&[]);
}
}

on_routes! { tcp, unix;
fn a_server_that_starts_with_1100_descriptors_works(scene) {
    require!(Need::Tool("bash"));
    scene.serve(Server::new(scene.path()).through(&CROWDED));
    plant_many_directories(scene);
    scene.assert_pushes::<&str>(&[]);
}
}

on_routes! { embedded, tcp, unix, ssh;
fn a_client_with_64_descriptors_works_or_says_why(scene) {
    require!(Need::Tool("prlimit"));
    plant_many_directories(scene);
    let outcome = scene.push::<&str>(&[]).through(&POOR).run();
    works_or_says_why(scene, outcome);
}
}

on_routes! { tcp, unix;
fn a_server_with_64_descriptors_works_or_says_why(scene) {
    require!(Need::Tool("prlimit"));
    scene.serve(Server::new(scene.path()).through(&POOR));
    plant_many_directories(scene);
    let outcome = scene.push::<&str>(&[]).run();
    works_or_says_why(scene, outcome);
}
}

#[test]
fn a_server_out_of_descriptors_waits_calmly_and_recovers() {
    require!(Need::Tool("prlimit"), Need::Sy);
    Scene::play(Route::Tcp, |scene| {
        scene.serve(Server::new(scene.path()).through(&POOR));
        plant::file(scene.src().join("file"), "text");
        let port = scene.server().port();
        let idle: Vec<TcpStream> = (0..200)
            .filter_map(|_| {
                let address = (Ipv4Addr::LOCALHOST, port).into();
                TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok()
            })
            .collect();
        std::thread::sleep(Duration::from_millis(300));
        let before = scene.server().cpu_ticks();
        std::thread::sleep(Duration::from_secs(2));
        let spent = scene.server().cpu_ticks() - before;
        // A loop that spins on accept would burn the whole two seconds, which are 200 ticks.
        assert!(
            spent < 100,
            "{spent} ticks of CPU to do nothing\n{}",
            scene.server().log()
        );
        assert!(
            scene.server().log().len() < 200_000,
            "it does not flood its log"
        );
        drop(idle);
        guard::wait_until("a push to succeed again", || {
            let push = scene
                .push_to("again")
                .from(slash(scene.src()))
                .option("--timeout=5");
            push.run().code == Some(0)
        });
    });
}
