//! Hosts on which a user may lock hardly any memory: rings get small, arenas stay unregistered, and
//! everything works.

use std::ffi::OsString;

use kernel_tests::scene::slash;
use kernel_tests::{
    Need, Outcome, Push, Route, Scene, Server, Tree, plant, push, require, subject,
};

/// What old hosts and many containers allow. The kernel counts it by user, all processes together.
/// What is tested is the ring.
const LITTLE: [&str; 5] = ["env", "-u", "SY_ENGINE", "prlimit", "--memlock=65536:65536"];

/// The words that run the rest of a command as this ordinary user, who may lock little memory.
fn limited(user: u32) -> Vec<String> {
    let user = push::as_user(user);
    let user = user.iter().map(String::as_str);
    let words = LITTLE.into_iter().chain(user);
    words
        .chain(["--inh-caps=-all", "--bounding-set=-all"])
        .map(str::to_owned)
        .collect()
}

fn doctor(user: u32) -> Outcome {
    let mut line: Vec<OsString> = limited(user).into_iter().map(Into::into).collect();
    line.extend([subject::server().into(), "doctor".into()]);
    push::start(&line, None).wait()
}

#[test]
fn a_push_works_where_neither_end_may_lock_more_than_64_kib() {
    require!(Need::Nobody, Need::Sy, Need::Tool("prlimit"));
    for route in [Route::Embedded, Route::Tcp, Route::Unix] {
        Scene::play(route, |scene| {
            plant::chmod(scene.path(), 0o777);
            plant::chmod(scene.export(), 0o777);
            let words = limited(scene.nobody);
            if route.has_server() {
                scene.serve(Server::new(scene.path()).through(&words));
            }
            for number in 0..300 {
                let path = format!("d{}/f{number}", number % 7);
                plant::file(scene.src().join(path), format!("content {number}"));
            }
            plant::file(scene.src().join("large"), vec![7; 3 << 20]);
            // Whoever comes next finds the memory of who has just gone still counted.
            for _ in 0..3 {
                scene.push::<&str>(&[]).through(&words).run().ok();
            }
            let expected = Tree::read(scene.src()).mapped(|node| {
                (node.uid, node.gid) = (scene.nobody, scene.nobody);
                true
            });
            expected.assert_equals(&Tree::read(scene.dst()), "with little locked memory");
        });
    }
}

#[test]
fn a_server_with_memory_for_a_few_rings_serves_with_those_and_says_so() {
    require!(Need::Nobody, Need::Sy, Need::Tool("prlimit"));
    Scene::play(Route::Embedded, |scene| {
        plant::chmod(scene.path(), 0o777);
        plant::chmod(scene.export(), 0o777);
        let server = Server::new(scene.path()).module("m", &scene.export());
        let server = server.option("--shards=64").through(&limited(scene.nobody));
        let server = server.started();
        plant::file(scene.src().join("file"), "text");
        let dest = format!("sy://127.0.0.1:{}/m/dst/", server.port());
        Push::new(dest).from(slash(scene.src())).run().ok();
        assert!(scene.dst().join("file").exists());
        let log = server.log();
        assert!(
            log.contains(" of 64 shards: no memory for the ring"),
            "{log}"
        );
        assert!(log.contains("LimitMEMLOCK="), "{log}");
    });
}

#[test]
fn the_doctor_tells_what_little_locked_memory_costs_and_what_lifts_it() {
    require!(Need::Nobody, Need::Sy, Need::Tool("prlimit"));
    Scene::play(Route::Embedded, |scene| {
        let outcome = doctor(scene.nobody).ok();
        let text = String::from_utf8(outcome.stdout).expect("it is text");
        assert!(text.contains("locked memory: at most 64 KiB"), "{text}");
        let tried = text.lines().filter(|line| {
            let words = [
                "try: ",
                "locked memory",
                "registered arena",
                "LimitMEMLOCK=",
            ];
            words.iter().all(|word| line.contains(word))
        });
        assert_eq!(tried.count(), 1, "{text}");
    });
}
