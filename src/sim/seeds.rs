//! Seeds that `cargo test` runs: some thousand that nobody looked at, and those that found
//! something once, each with its story. `sy-sim` runs any other.

use super::scenario::Scenario;
use super::world::{self, World};

/// Seeds of each half; both halves run side by side.
const SEEDS_COUNT: u64 = 3000;

/// Seeds that failed once, and what they found. A draw added to the scenario shifts them, so the
/// story says what to look for when one of them is drawn anew.
const FOUND: &[(u64, &str)] = &[
    (
        31,
        "a session that broke off never ran its last job, and stayed",
    ),
    (
        312,
        "a sign of life that nobody reads kept a target from ending",
    ),
    (72, "a REFUSED that nobody reads kept a target from ending"),
    (
        13,
        "a large file found by the last look at the tree was never opened",
    ),
    (
        328,
        "a DATA frame that waited for its PACK was never written",
    ),
    (
        3106,
        "a subdirectory declared before ROOT was listed did not hear of a power cut",
    ),
    (
        24,
        "every push after a crash sent again what the one before it had sent",
    ),
    (
        4344,
        "a sync succeeded over content that a failed one before it had lost",
    ),
    (
        18_498,
        "cleaning temp files moved the time of a directory that was found equal before",
    ),
    (
        25_047,
        "a disk that had failed a sync failed the word about it, too",
    ),
    (
        5962,
        "the scan stood still when its look-ahead was freed by what was packed after it had looked",
    ),
    (
        3000,
        "a directory was closed while the scan still held it for more subdirectories",
    ),
    (
        1_000_643,
        "a directory went for a file, though a source that has it could not be read",
    ),
    (
        755,
        "a file was read within the tick of the clock in which it was written once more",
    ),
    (
        5663,
        "a large file was read within the tick of the clock in which it was written once more",
    ),
    (
        1_002_201,
        "a large file that grew and was written over meanwhile was sent as two halves",
    ),
    (
        5465,
        "a part stayed beside a file that had its content by then and only got its time",
    ),
    (
        2_023_705,
        "a META for an owner gave the source's time to what somebody had just written at the target",
    ),
    (
        7485,
        "a push that made room for a directory deleted the one that another push had made meanwhile",
    ),
    (
        3_002_896,
        "a marker was not told of a failed sync, since the disk that had failed it took no new file",
    ),
    (
        4_007_146,
        "a file in place whose sync had failed was found right, and its loss reported as durable",
    ),
    (
        5_057_387,
        "a file got the group of its directory, which another push had made set-group-id meanwhile",
    ),
    (
        623,
        "a file got the group of its directory, as it is with grpid, and kept it",
    ),
    (
        7_029_626,
        "a sync that failed did not reach the marker of another session, which forgot it",
    ),
];

fn run_all(seeds: impl Iterator<Item = u64>) {
    let mut count = 0;
    let mut failures = Vec::new();
    let (mut matched_bytes, mut lookalikes, mut resumed, mut rivals, mut lies) = (0, 0, 0, 0, 0);
    for seed in seeds {
        count += 1;
        match world::run(seed) {
            Ok(summary) => {
                matched_bytes += summary.matched_bytes;
                lookalikes += summary.lookalikes;
                resumed += summary.resumed;
                rivals += summary.rivals;
                lies += summary.lies;
            }
            Err(what) => failures.push(format!("seed {seed}: {what}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(matched_bytes > 0, "no seed has sent a delta");
    assert!(lookalikes > 0, "no seed has compared contents");
    assert!(rivals > 0, "no seed has had two clients");
    assert!(lies > 0, "no seed has had a hostile end");
    assert!(resumed > 0, "no seed has gone on from what was kept");
    report(count);
}

fn report(count: u64) {
    println!("seeds {count} ok");
}

#[test]
fn pushes_from_many_seeds_are_safe_in_the_weather_and_succeed_in_the_calm() {
    run_all(0..SEEDS_COUNT);
}

#[test]
fn pushes_from_as_many_other_seeds_do_so_too() {
    run_all(1_000_000..1_000_000 + SEEDS_COUNT);
}

#[test]
fn seeds_that_found_something_once_find_nothing_any_more() {
    for (seed, story) in FOUND {
        let as_it_was = World::new(Scenario::new(*seed).uncrowded()).run();
        for outcome in [as_it_was, world::run(*seed)] {
            if let Err(what) = outcome {
                panic!("seed {seed}, which found that {story}: {what}");
            }
        }
    }
}

#[test]
fn a_seed_repeats_itself() {
    for seed in 0..20 {
        let [one, other] = [(); 2].map(|()| world::run(seed).map(|summary| format!("{summary:?}")));
        assert_eq!(one, other);
    }
}
