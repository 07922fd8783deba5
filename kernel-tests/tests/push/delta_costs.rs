//! Versions that make a search for blocks quadratic, where it looks at each place for each block of
//! the same weak sum: what they cost here is a multiple of a plain push of the same size.

use kernel_tests::scene::slash;
use kernel_tests::{Chance, Need, Scene, content, on_routes, plant, require};

const MIB: usize = 1 << 20;
const BLOCK: usize = 4096;
const BYTES: usize = 64 * MIB;
/// CPU of a delta, relative to a plain push. Rolling and hashing a byte costs some times what sending it
/// does; hashing a block for each byte would cost a thousand times as much.
const MULTIPLE_MAX: u64 = 12;
/// Clock ticks, for what a push takes however little there is, and for a coarse clock.
const SLACK_TICKS: u64 = 30;

/// CPU of both ends, in clock ticks, and literal bytes.
#[track_caller]
fn cost(scene: &mut Scene, option: &str, old: &[u8]) -> (u64, u64) {
    plant::file(scene.dst().join("f"), old);
    plant::mtime(scene.dst().join("f"), 1_000_000, 0);
    let before = scene.server().cpu_ticks();
    let push = scene.push_to("dst").from(slash(scene.src()));
    let push = push.options(&[option, "--json"]);
    let (outcome, client) = push.start().wait_with_cpu_ticks();
    let summary = outcome.ok().summary();
    let ticks = client + scene.server().cpu_ticks() - before;
    assert_eq!(summary.files_sent, 1);
    (ticks, summary.literal_bytes)
}

/// A delta from `old` to `new` brings the file, with so many literal bytes at most.
#[track_caller]
fn assert_costs_little(scene: &mut Scene, name: &str, old: &[u8], new: &[u8], literal_max: usize) {
    plant::file(scene.src().join("f"), new);
    let (plain, _) = cost(scene, "-W", old);
    let (delta, literal) = cost(scene, "--no-whole-file", old);
    println!("{name}: {delta} ticks as a delta, {plain} plain, {literal} literal bytes");
    let arrived = std::fs::read(scene.dst().join("f")).expect("it is there");
    assert!(arrived == new, "{name}: another file");
    assert!(
        literal <= literal_max as u64,
        "{name}: {literal} literal bytes, at most {literal_max}"
    );
    let max = MULTIPLE_MAX * plain + SLACK_TICKS;
    assert!(delta <= max, "{name}: {delta} ticks, at most {max}");
}

/// Every byte is another's neighbour: `unit` again and again.
fn periodic(unit: &[u8]) -> Vec<u8> {
    let mut bytes = unit.repeat(BYTES / unit.len() + 1);
    bytes.truncate(BYTES);
    bytes
}

on_routes! { tcp;
fn one_byte_alone_and_periods_cost_no_more_than_their_bytes(scene) {
    require!(Need::Sy);
    let alone = vec![b'a'; BYTES];
    let mut interrupted = alone.clone();
    interrupted.iter_mut().step_by(5000).for_each(|byte| *byte = b'b');
    let blocks = 2 * BLOCK;
    for (name, old, new, literal_max) in [
        ("one byte, one more of it", &alone, &vec![b'a'; BYTES + 1], blocks),
        ("one byte, interrupted in every block", &alone, &interrupted, BYTES),
        ("interrupted, one byte", &interrupted, &alone, BYTES),
        ("a period, shifted", &periodic(b"abcdefg"), &periodic(b"defgabc"), blocks),
        ("a period, another", &periodic(b"abcdefg"), &periodic(b"abcdefgh"), BYTES),
    ] {
        assert_costs_little(scene, name, old, new, literal_max);
    }
}
}

on_routes! { tcp;
fn blocks_that_moved_cost_no_more_than_their_bytes(scene) {
    require!(Need::Sy);
    let old = content::noise(91, BYTES);
    let (front, back) = old.split_at(BYTES / 2 + 777);
    assert_costs_little(scene, "halves swapped", &old, &[back, front].concat(), 4 * BLOCK);
    let mut blocks: Vec<&[u8]> = old.chunks(BLOCK).collect();
    let mut chance = Chance::seeded(92);
    for at in (1..blocks.len()).rev() {
        blocks.swap(at, chance.below(at as u64 + 1) as usize);
    }
    assert_costs_little(scene, "blocks shuffled", &old, &blocks.concat(), 4 * BLOCK);
    assert_costs_little(scene, "other noise", &old, &content::noise(93, BYTES), BYTES);
}
}
