//! Hosts that refuse io_uring: epoll and threads take over, which is said in one line, and nothing else
//! is different.

use std::ffi::OsString;
use std::path::Path;

use kernel_tests::scene::slash;
use kernel_tests::{Need, Outcome, Push, Route, Scene, Server, plant, push, require, subject};

/// What the kernel, or a profile, may answer; and what is said of it.
const REFUSALS: [(&str, &str); 3] = [
    ("EPERM", "io_uring is refused (EPERM)"),
    ("ENOSYS", "this kernel has no io_uring (ENOSYS)"),
    ("ENOMEM", "no memory for the ring (ENOMEM)"),
];

/// The words that run the rest of a command on a host that answers so, and leaves the engine open.
fn without_ring(errno: &str) -> [String; 5] {
    let program = env!("CARGO_BIN_EXE_without-ring");
    ["env", "-u", "SY_ENGINE", program, errno].map(str::to_owned)
}

/// The lines that say which engine took over.
fn told(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().map(str::to_owned);
    lines
        .filter(|line| line.contains("engine: portable (epoll and threads): "))
        .collect()
}

#[track_caller]
fn assert_told_once(text: &[u8], said: &str) {
    let lines = told(text);
    let whole = String::from_utf8_lossy(text);
    assert!(lines.len() == 1 && lines[0].contains(said), "{whole}");
}

fn plant_source(scene: &Scene) {
    for number in 0..300 {
        let path = format!("d{}/f{number}", number % 7);
        plant::file(scene.src().join(path), format!("content {number}"));
    }
    plant::file(scene.src().join("large"), vec![7; 3 << 20]);
}

fn run(before: &[String], program: &Path, words: &[&str]) -> Outcome {
    let mut line: Vec<OsString> = before.iter().map(Into::into).collect();
    line.push(program.into());
    line.extend(words.iter().map(Into::into));
    push::start(&line, None).wait()
}

#[test]
fn a_host_that_refuses_the_ring_says_so_in_one_line_and_pushes() {
    require!(Need::Sy);
    for (errno, said) in REFUSALS {
        let words = without_ring(errno);
        for route in [Route::Embedded, Route::Tcp, Route::Unix] {
            Scene::play(route, |scene| {
                if route.has_server() {
                    scene.serve(Server::new(scene.path()).through(&words));
                }
                plant_source(scene);
                for sent in [301, 0] {
                    let push = scene.push(&["--stats"]).through(&words);
                    let outcome = push.run().ok().complains(&["\n  try: "]);
                    assert_told_once(&outcome.stderr, said);
                    let stats = String::from_utf8_lossy(&outcome.stdout);
                    assert!(stats.contains("Engine: portable\n"), "{stats}");
                    let count = format!("files transferred: {sent}\n");
                    assert!(stats.contains(&count), "{stats}");
                }
                scene.assert_arrived();
                if route.has_server() {
                    assert_told_once(&scene.server().log_bytes(), said);
                }
            });
        }
    }
}

#[test]
fn a_server_that_a_remote_shell_starts_says_so_too() {
    require!(Need::Sy);
    Scene::play(Route::Embedded, |scene| {
        plant_source(scene);
        let dest = format!("host:{}", scene.dst().display());
        let server = without_ring("EPERM").join(" ");
        let server = format!("{server} {}", subject::server().display());
        // Without a host and its sshd: the words behind the host's name are run here.
        let push = Push::new(dest).from(slash(scene.src()));
        let push = push.options(&["-e", "sh -c 'shift; eval \"$*\"' sh", "--sy-path", &server]);
        let outcome = push.run().ok();
        assert_eq!(told(&outcome.stderr).len(), 1, "{outcome}");
        scene.assert_arrived();
    });
}

#[test]
fn who_chooses_an_engine_hears_nothing_of_it() {
    require!(Need::Sy);
    for choice in ["portable", "uring"] {
        Scene::play(Route::Tcp, |scene| {
            let option = format!("--engine={choice}");
            scene.serve(Server::new(scene.path()).option(&option));
            plant_source(scene);
            let outcome = scene.push(&["--stats", &option]).run().ok();
            assert_eq!(outcome.stderr, b"", "{outcome}");
            let stats = String::from_utf8_lossy(&outcome.stdout);
            assert!(stats.contains(&format!("Engine: {choice}\n")), "{stats}");
            scene.assert_arrived();
            let log = scene.server().log();
            assert!(!log.contains("engine:"), "{log}");
        });
    }
}

#[test]
fn a_quiet_push_says_nothing_of_its_engine_and_the_environment_chooses_too() {
    require!(Need::Sy);
    Scene::play(Route::Embedded, |scene| {
        plant_source(scene);
        let words = without_ring("EPERM");
        let outcome = scene.push(&["-q"]).through(&words).run().ok();
        assert_eq!(outcome.stderr, b"", "{outcome}");
        let chosen = [&words[..], &["env".into(), "SY_ENGINE=portable".into()]].concat();
        let outcome = scene.push::<&str>(&[]).through(&chosen).run().ok();
        assert_eq!(outcome.stderr, b"", "{outcome}");
        let unknown = ["env", "SY_ENGINE=epoll"];
        let outcome = scene.push::<&str>(&[]).through(&unknown).run();
        outcome
            .exits(1)
            .complains(&["epoll", "auto, uring or portable"]);
    });
}

#[test]
fn a_ring_that_was_insisted_on_and_refused_is_exit_5_with_a_way_out() {
    require!(Need::Sy);
    Scene::play(Route::Embedded, |scene| {
        plant_source(scene);
        let words = without_ring("EPERM");
        let outcome = scene.push(&["--engine=uring"]).through(&words).run();
        outcome.exits(5).complains(&["io_uring", "\n  try: "]);
        assert!(!scene.dst().exists());
        let module = format!("--module=m={}", scene.export().display());
        let socket = format!("--socket={}/s", scene.path().display());
        let options = ["--engine=uring", module.as_str(), socket.as_str()];
        let outcome = run(&words, subject::server(), &options);
        outcome.exits(5).complains(&["io_uring", "\n  try: "]);
    });
}

#[test]
fn the_doctor_tells_which_engine_there_is_and_what_lifts_the_refusal() {
    require!(Need::Sy);
    for (errno, said) in REFUSALS {
        let outcome = run(&without_ring(errno), subject::server(), &["doctor"]).ok();
        assert_told_once(&outcome.stdout, said);
        let text = String::from_utf8_lossy(&outcome.stdout);
        assert!(text.contains("\ntry: "), "{text}");
    }
}
