//! A server on another host, as far as a client's addresses tell: it runs in a network namespace of its own,
//! and what it reaches is a proxy at the far end of a cable.

use kernel_tests::cable::{ADDRESSES, Cable};
use kernel_tests::proxy::{Plan, Proxy};
use kernel_tests::scene::slash;
use kernel_tests::{Need, Push, Scene, content, on_routes, plant, require};

/// A push from one end of the cable, to the scene's server behind a proxy at the other.
fn far(scene: &Scene, cable: &Cable, proxy: &Proxy) -> Push {
    let dest = format!(
        "sy://{}:{}/m/{}",
        ADDRESSES[0],
        proxy.port(),
        scene.aimed_at()
    );
    Push::new(dest)
        .from(slash(scene.src()))
        .through(&cable.at(1))
}

// A kernel copies what it forwards to a veth, and says so: a push lends it some blocks and then sends
// as ever.
on_routes! { tcp;
fn blocks_are_lent_to_the_kernel_until_it_says_that_it_copies(scene) {
    require!(Need::Sy, Need::Namespaces);
    let cable = Cable::lay();
    let proxy = Proxy::behind(cable.listener(0), scene.server().port(), Plan::PASS);
    let large = content::noise(1, 24 << 20);
    plant::file(scene.src().join("large"), &large);
    for number in 0..50 {
        plant::file(scene.src().join(format!("f{number}")), content::noise(number, 5000));
    }
    // Only the ring can lend.
    let push = far(scene, &cable, &proxy).option("--engine=uring");
    let outcome = push.clone().option("--json").run().ok();
    let text = String::from_utf8(outcome.stdout).expect("it is text");
    let last = text.lines().last().expect("there is a summary");
    let summary: serde_json::Value = serde_json::from_str(last).expect("it is JSON");
    let sends = summary["latency"]["send"].as_object().expect("it has lanes");
    let count = |lane: &str| sends[lane]["count"].as_u64().expect("a lane has a count");
    let lent = count("zero_copy");
    assert!((1..=32).contains(&lent), "{last}");
    assert!(sends.keys().map(|lane| count(lane)).sum::<u64>() >= 24 * 4, "{last}");
    scene.assert_arrived();
    assert_eq!(push.option("--json").run().ok().summary().files_sent, 0);
}
}

// Each end of the cable drops a packet of 25. TCP mends that, and no deadline of ours may take it for silence.
on_routes! { tcp;
fn a_cable_that_loses_packets_ends_no_push(scene) {
    require!(Need::Sy, Need::Namespaces, Need::Tool("iptables"));
    let cable = Cable::lay();
    let proxy = Proxy::behind(cable.listener(0), scene.server().port(), Plan::PASS);
    cable.spoil(0.04, 576);
    plant::file(scene.src().join("large"), content::noise(1, 2 << 20));
    for number in 0..200 {
        plant::file(scene.src().join(format!("d{}/f{number}", number % 7)), content::noise(number, 5000));
    }
    let far = far(scene, &cable, &proxy);
    far.clone().run().ok();
    scene.assert_arrived();
    assert!(cable.lost_count(0) > 20, "{} packets were lost", cable.lost_count(0));
    assert_eq!(far.option("--json").run().ok().summary().files_sent, 0);
}
}

// On the same host a file of this size goes whole.
on_routes! { tcp;
fn a_file_of_100_kib_goes_as_a_delta_to_another_host(scene) {
    require!(Need::Sy, Need::Namespaces);
    let cable = Cable::lay();
    let proxy = Proxy::behind(cable.listener(0), scene.server().port(), Plan::PASS);
    let old = content::noise(2, 100 << 10);
    let new = [&old[..50_000], b"more", &old[50_000..]].concat();
    let far = far(scene, &cable, &proxy);
    for (push, is_delta) in [(far, true), (scene.push::<&str>(&[]), false)] {
        plant::file(scene.src().join("f"), &new);
        plant::mtime(scene.src().join("f"), 2_000_000, 0);
        plant::file(scene.dst().join("f"), &old);
        plant::mtime(scene.dst().join("f"), 1_000_000, 0);
        let summary = push.option("--json").run().ok().summary();
        assert_eq!(summary.matched_bytes > 0, is_delta, "{summary:?}");
        scene.assert_arrived();
    }
}
}
