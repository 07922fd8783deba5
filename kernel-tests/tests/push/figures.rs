//! How long operations took, as a client and a server tell it.

use kernel_tests::{Need, Scene, guard, on_routes, plant, require};
use rustix::process::Signal;

const SMALL_COUNT: u64 = 40;

/// Files that rest: what was written just now may go another way.
fn plant_old(scene: &Scene, name: &str, content: impl AsRef<[u8]>) {
    plant::file(scene.src().join(name), content);
    plant::mtime(scene.src().join(name), 1_000_000_000, 5);
}

fn plant_source(scene: &Scene) {
    for number in 0..SMALL_COUNT {
        plant_old(scene, &format!("f{number}"), "text");
    }
    plant_old(scene, "large", vec![7; 1 << 20]);
}

/// The lines of a log that tell how long something took.
fn told(log: &str) -> Vec<&str> {
    log.lines()
        .filter(|line| line.starts_with("sy-server: latency of="))
        .collect()
}

on_routes! { embedded, tcp, unix, ssh;
fn stats_end_with_a_line_for_each_kind_of_operation(scene) {
    require!(Need::Sy);
    plant_source(scene);
    let outcome = scene.push(&["--stats"]).run().ok().is_printable();
    let text = String::from_utf8(outcome.stdout).expect("it is text");
    let (_, table) = text.split_once("\nLatency ").expect("there is a table");
    let (head, rows) = table.split_once('\n').expect("with rows");
    let words: Vec<&str> = head.split_whitespace().collect();
    assert_eq!(words, ["lane", "count", "p50", "p90", "p99", "max"]);
    let kinds: Vec<&str> = rows.lines().filter_map(|row| row.split(' ').next()).collect();
    let embedded = !scene.route.has_server() && scene.route != kernel_tests::Route::ssh();
    for (kind, is_expected) in [
        ("list_source", true),
        ("read_pack", true),
        ("read", true),
        ("send", !embedded),
        ("write", embedded),
        ("commit", embedded),
        ("commit_large", embedded),
    ] {
        assert_eq!(kinds.contains(&kind), is_expected, "{kind}: {text}");
    }
}
}

on_routes! { embedded;
fn json_has_the_same_as_an_object(scene) {
    require!(Need::Sy);
    plant_source(scene);
    let outcome = scene.push(&["--json"]).run().ok();
    let text = String::from_utf8(outcome.stdout).expect("it is text");
    let last = text.lines().last().expect("there is a summary");
    let summary: serde_json::Value = serde_json::from_str(last).expect("it is JSON");
    let commit = &summary["latency"]["commit"]["pool"];
    assert_eq!(commit["count"], SMALL_COUNT, "{last}");
    let at = |quantile: &str| commit[quantile].as_u64().expect("it is a number");
    assert!(at("p50_us") >= 1 && at("p50_us") <= at("p90_us"));
    assert!(at("p90_us") <= at("p99_us") && at("p99_us") <= at("max_us"));
    let lanes = summary["latency"]["write"].as_object().expect("it has lanes");
    let writes = lanes.values().filter_map(|lane| lane["count"].as_u64());
    assert_eq!(writes.sum::<u64>(), 4, "1 MiB in chunks of 256 KiB: {last}");
}
}

on_routes! { tcp, unix;
fn a_server_that_is_asked_tells_its_figures_and_goes_on(scene) {
    require!(Need::Sy);
    plant_source(scene);
    scene.push::<&str>(&[]).run().ok();
    let commits = |log: &str, count: u64| {
        told(log).iter().any(|line| line.contains(&format!("of=commit lane=pool count={count} ")))
    };
    assert!(told(&scene.server().log()).is_empty());
    scene.server().signal(Signal::USR1);
    let server = scene.server();
    guard::wait_until("the figures", || commits(&server.log(), SMALL_COUNT));

    // It serves on, and tells what came since as well.
    plant_old(scene, "another", "text");
    scene.push::<&str>(&[]).run().ok();
    let server = scene.server();
    server.signal(Signal::USR1);
    guard::wait_until("the figures", || commits(&server.log(), SMALL_COUNT + 1));
    assert!(server.is_running());
}
}

on_routes! { tcp;
fn a_server_that_ends_tells_its_figures(scene) {
    require!(Need::Sy);
    plant_source(scene);
    scene.push::<&str>(&[]).run().ok();
    let server = scene.server();
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    let log = server.log();
    let (_, end) = log.split_once("shutting down").expect("it says so");
    for kind in ["receive", "list_target", "apply_pack", "commit", "commit_large"] {
        let line = format!("sy-server: latency of={kind} lane=");
        let lines = end.lines().filter(|said| said.starts_with(&line));
        assert_eq!(lines.count(), 1, "{kind}: {log}");
    }
    server.start();
}
}
