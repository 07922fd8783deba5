//! Files that are larger than 32 bits count, made of holes: new versions of them, as deltas.
//!
//! The largest are on demand, for they take minutes: `SY_TESTS_HANG_SECONDS=600 cargo test --release -p
//! kernel-tests --test push sparse -- --ignored --test-threads=1`.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use kernel_tests::evil;
use kernel_tests::{Need, Route, Scene, content, holes, on_routes, plant, require};

const GIB: u64 = 1 << 30;
/// Where signed and unsigned numbers of 32 bits end.
const EDGES: [u64; 2] = [1 << 31, 1 << 32];
/// What either end may take for any push.
const PEAK_MAX: u64 = 32 << 20;
/// On either side of an edge.
const AROUND: usize = 1 << 20;
/// Of a frame that says that a chunk is a hole.
const HOLE_FRAME_BYTES: u64 = 48;

/// A file with noise at its start, around each edge that it reaches, and in its last bytes.
fn plant_old(path: &Path, size: u64) {
    plant_version(path, size, |_| {});
}

/// The same with bytes replaced right at the edges, and some inserted shortly before.
fn plant_new(path: &Path, size: u64) {
    plant_version(path, size, |noise| {
        noise.splice(5000..5000, *b"inserted here");
        for byte in &mut noise[AROUND - 2..AROUND + 2] {
            *byte = !*byte;
        }
    });
}

fn plant_version(path: &Path, size: u64, edit: impl Fn(&mut Vec<u8>)) {
    let mut pieces = vec![(0, content::noise(1, 3000))];
    for (seed, edge) in (2..).zip(EDGES) {
        let from = edge - AROUND as u64;
        let mut noise = content::noise(seed, 2 * AROUND);
        edit(&mut noise);
        noise.truncate(usize::try_from(size.saturating_sub(from)).unwrap_or(usize::MAX));
        pieces.push((from.min(size), noise));
    }
    pieces.push((size - 10, b"its end ..".to_vec()));
    let pieces: Vec<_> = pieces.iter().map(|(at, noise)| (*at, &noise[..])).collect();
    holes::plant(path, size, &pieces);
}

/// Pushes the file `f`, whose new version has `size` bytes, over the old one. Beside the sums and the
/// holes so many bytes travel at most: what was changed, and the blocks it was changed in.
#[track_caller]
fn push_new_version(scene: &Scene, size: u64, changed_bytes_max: u64, what: &str) {
    plant::mtime(scene.dst().join("f"), 1_000_000, 0);
    let options = ["--no-whole-file", "--json"];
    let summary = scene.push(&options).run().ok().summary();
    println!("{what}: {summary:?}");
    assert_eq!((summary.files_sent, summary.files_resent), (1, 0), "{what}");
    assert_eq!(
        summary.literal_bytes + summary.matched_bytes,
        size,
        "{what}"
    );
    let holes_bytes = size.div_ceil(evil::CHUNK as u64) * HOLE_FRAME_BYTES;
    let wire_max = summary.signature_bytes + holes_bytes + changed_bytes_max;
    assert!(
        summary.wire_bytes <= wire_max,
        "{what}: {summary:?}, at most {wire_max}"
    );
    for peak in summary.peak_rss_bytes {
        assert!(peak > 0 && peak <= PEAK_MAX, "{what}: {summary:?}");
    }
    holes::assert_same(scene.src().join("f"), scene.dst().join("f"), what);
}

/// Files of these sizes become files of those.
fn become_each_other(scene: &Scene, steps: &[(u64, u64)]) {
    require!(Need::Sy);
    for &(old, new) in steps {
        plant_old(&scene.dst().join("f"), old);
        plant_new(&scene.src().join("f"), new);
        // What the old one is too short for is new to it.
        let changed_bytes_max = if new > old + 2 { 4 << 20 } else { 400 << 10 };
        push_new_version(scene, new, changed_bytes_max, &format!("{old} to {new}"));
    }
    // What always holds is checked by reading all that is there.
    plant::remove(scene.dst().join("f"));
}

on_routes! { tcp;
fn sizes_around_2_to_the_31_become_each_other(scene) {
    let edge = EDGES[0];
    let steps = [(edge - 1, edge), (edge, edge + 1), (edge + 1, edge - 1)];
    become_each_other(scene, &steps);
}
}

on_routes! { tcp;
fn sizes_around_2_to_the_32_become_each_other(scene) {
    let edge = EDGES[1];
    become_each_other(scene, &[(edge - 1, edge + 1), (edge + 1, edge)]);
}
}

#[test]
#[ignore = "minutes"]
fn any_size_around_an_edge_becomes_any_other() {
    Scene::play(Route::Tcp, |scene| {
        let sizes: Vec<u64> = EDGES.iter().flat_map(|edge| edge - 1..=edge + 1).collect();
        let steps = sizes
            .iter()
            .flat_map(|&old| sizes.iter().map(move |&new| (old, new)));
        become_each_other(scene, &steps.collect::<Vec<_>>());
    });
}

#[test]
#[ignore = "a minute"]
fn a_file_of_20_gib_changes_in_bounded_memory() {
    Scene::play(Route::Tcp, |scene| {
        require!(Need::Sy);
        const SIZE: u64 = 20 * GIB + 12_345;
        // Content in each GiB, of which every third has another in the new version.
        let version = |is_new: bool| {
            let pieces: Vec<_> = (0..20)
                .map(|at| {
                    let other = if is_new && at % 3 == 0 { 100 } else { 0 };
                    (at * GIB + at * 777, content::noise(at + other, 100_000))
                })
                .collect();
            pieces
        };
        for (path, is_new) in [(scene.dst(), false), (scene.src(), true)] {
            let pieces = version(is_new);
            let pieces: Vec<_> = pieces.iter().map(|(at, noise)| (*at, &noise[..])).collect();
            holes::plant(path.join("f"), SIZE, &pieces);
        }
        push_new_version(scene, SIZE, 1400 << 10, "20 GiB");
        let there = std::fs::metadata(scene.dst().join("f")).expect("it is there");
        assert!(there.blocks() * 512 < 64 << 20, "{} blocks", there.blocks());
        plant::remove(scene.dst().join("f"));
    });
}
