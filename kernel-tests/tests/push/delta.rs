//! Large files that the target has in another version.

use std::os::unix::fs::{FileExt, MetadataExt};

use kernel_tests::flipper::Flipper;
use kernel_tests::{Need, Scene, Tree, content, on_routes, plant, require, twin};

const MIB: usize = 1 << 20;

/// A new version of a file: what it is called, the old one, the new one, and how many bytes have
/// to travel at most besides the sums of its blocks.
struct Shape {
    name: &'static str,
    old: Vec<u8>,
    new: Vec<u8>,
    bytes_max: usize,
}

fn shapes() -> Vec<Shape> {
    let old = content::noise(70, 4 * MIB + 1234);
    let mut scattered = old.clone();
    for page in [3, 99, 100, 700] {
        scattered[page * 4096..][..4096].fill(b'x');
    }
    let mut shuffled: Vec<&[u8]> = old.chunks(4096).collect();
    shuffled.rotate_left(300);
    shuffled.swap(17, 800);
    let middle = &old[2 * MIB..];
    let inserted = [&old[..2 * MIB], &content::noise(71, MIB / 4), middle].concat();
    let shape = |name, new: Vec<u8>, bytes_max| Shape {
        name,
        old: old.clone(),
        new,
        bytes_max,
    };
    let mut shapes = vec![
        shape("appended", [&old[..], b"and more"].concat(), 3 * 4096),
        shape("prepended", [b"x", &old[..]].concat(), 3 * 4096),
        shape("inserted", inserted, MIB / 4 + 3 * 4096),
        shape("scattered", scattered, 5 * 4096),
        shape("shuffled", shuffled.concat(), 8 * 4096),
        shape("swapped", [middle, &old[..2 * MIB]].concat(), 4 * 4096),
        shape("shorter", old[..MIB].to_vec(), 4096),
        shape("longer", [&old[..], &old[..]].concat(), 4 * 4096),
        shape("other", content::noise(72, 4 * MIB), 5 * MIB),
        shape("empty", Vec::new(), 0),
    ];
    shapes.push(Shape {
        name: "zeros",
        old: vec![0; 4 * MIB],
        new: vec![0; 7 * MIB + 5],
        bytes_max: 4 * 4096,
    });
    shapes.push(Shape {
        name: "from-nothing",
        old: Vec::new(),
        new: content::noise(73, MIB),
        bytes_max: MIB + 4096,
    });
    shapes
}

fn plant_old(scene: &Scene, name: &str, old: &[u8]) {
    plant::file(scene.dst().join(name), old);
    plant::mtime(scene.dst().join(name), 1_000_000, 0);
}

on_routes! { tcp, unix, ssh;
fn what_differs_travels_and_the_file_is_the_new_one(scene) {
    for Shape { name, old, new, bytes_max } in shapes() {
        println!("{name}");
        plant::file(scene.src().join(name), &new);
        plant_old(scene, name, &old);
        let summary = scene.push(&["--json"]).run().ok().summary();
        assert_eq!(summary.files_sent, 1, "{name}");
        let sums = old.len().div_ceil(4096) * 12;
        let bytes_max = (bytes_max + sums + 16 * 1024) as u64;
        assert!(summary.wire_bytes <= bytes_max, "{name}: {summary:?}, at most {bytes_max}");
        assert_eq!(summary.literal_bytes + summary.matched_bytes, new.len() as u64, "{name}");
        scene.assert_arrived();
    }
    scene.assert_idle::<&str>(&[]);
}
}

on_routes! { embedded, tcp;
fn what_is_sent_as_a_delta_arrives_as_with_rsync(scene) {
    require!(Need::Tool("rsync"));
    for Shape { name, old, new, .. } in shapes() {
        plant::file(scene.src().join(name), &new);
        plant_old(scene, name, &old);
        plant::file(scene.twin().join(name), &old);
        plant::mtime(scene.twin().join(name), 1_000_000, 0);
    }
    scene.push(&["--no-whole-file"]).run().ok();
    scene.assert_arrived();
    let source = kernel_tests::scene::slash(scene.src());
    assert_eq!(twin::rsync(scene.twin_rights(), &[source], scene.twin()), 0);
    Tree::read(scene.twin()).assert_equals(&Tree::read(scene.dst()), "beside rsync's");
}
}

on_routes! { tcp;
fn whole_files_where_that_is_asked_for(scene) {
    let new = content::noise(74, MIB);
    plant::file(scene.src().join("f"), &new);
    plant_old(scene, "f", &[&new[..], b"and more"].concat());
    let summary = scene.push(&["-W", "--json"]).run().ok().summary();
    assert_eq!((summary.literal_bytes, summary.matched_bytes), (MIB as u64, 0));
    scene.assert_arrived();
}
}

on_routes! { embedded;
fn a_local_dest_gets_whole_files_unless_deltas_are_asked_for(scene) {
    let new = content::noise(75, MIB);
    plant::file(scene.src().join("f"), &new);
    for (options, is_delta) in [(&["--json"][..], false), (&["--no-whole-file", "--json"], true)] {
        plant_old(scene, "f", &[&new[..], b"and more"].concat());
        let summary = scene.push(options).run().ok().summary();
        assert_eq!(summary.matched_bytes > 0, is_delta, "{options:?}");
        scene.assert_arrived();
    }
}
}

on_routes! { tcp;
fn a_basis_far_larger_than_its_file_is_not_read(scene) {
    require!(Need::Sy);
    plant::file(scene.src().join("f"), content::noise(76, MIB));
    plant::sparse(scene.dst().join("f"), 1 << 40);
    let summary = scene.push(&["--json"]).run().ok().summary();
    assert_eq!((summary.literal_bytes, summary.matched_bytes), (MIB as u64, 0));
    scene.assert_arrived();
}
}

on_routes! { tcp;
fn many_changed_files_arrive_side_by_side(scene) {
    for number in 0..300 {
        let old = content::noise(number, 270_000 + number as usize * 100);
        let mut new = old.clone();
        new[100_000..100_100].fill(b'x');
        plant::file(scene.src().join(format!("f{number}")), &new);
        plant_old(scene, &format!("f{number}"), &old);
    }
    let summary = scene.push(&["--json"]).run().ok().summary();
    assert_eq!(summary.files_sent, 300);
    assert!(summary.literal_bytes <= 300 * 3 * 4096, "{summary:?}");
    scene.assert_arrived();
}
}

// Around the edges of a block, of the least size of a delta, and of a chunk.
on_routes! { embedded, tcp;
fn versions_of_any_two_sizes_arrive(scene) {
    let sizes = [0, 1, 4095, 4096, 4097, 262_143, 262_144, 262_145, 266_240, 524_288, 524_289];
    let content = content::noise(80, 530_000);
    for old in sizes {
        for new in sizes {
            let name = format!("from-{old}-to-{new}");
            plant::file(scene.src().join(&name), &content[530_000 - new..]);
            plant_old(scene, &name, &content[530_000 - old..]);
        }
    }
    scene.push(&["--no-whole-file", "-I"]).run().ok();
    scene.assert_arrived();
}
}

on_routes! { tcp;
fn content_that_looks_like_frames_of_deltas_arrives(scene) {
    // What a push of this very file sends, or could: heads, tokens, signatures, and noise between.
    let mut old = content::noise(81, MIB);
    for at in (0..MIB - 64).step_by(10_007) {
        old[at..at + 16].copy_from_slice(b"\x20\0\0\0\x08\0\0\0\x01\0\0\0\0\0\0\0");
        old[at + 16..at + 29].copy_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0, 0]);
    }
    let mut new = [&old[5000..], &old[..5000]].concat();
    new[MIB / 2..][..29].fill(2);
    plant::file(scene.src().join("f"), &new);
    plant_old(scene, "f", &old);
    let summary = scene.push(&["--json"]).run().ok().summary();
    assert!(summary.literal_bytes <= 5 * 4096, "{summary:?}");
    scene.assert_arrived();
}
}

// The target's file is rewritten by somebody all the time: what arrives is the source's, and what was
// matched in vain is said and sent again.
on_routes! { tcp;
fn a_basis_that_changes_meanwhile_spoils_nothing(scene) {
    let old = content::noise(82, 16 * MIB);
    let new = [&old[..8 * MIB], b"x", &old[8 * MIB..]].concat();
    plant::file(scene.src().join("f"), &new);
    let (mut resent, mut rounds) = (0, 0);
    while resent == 0 && rounds < 20 {
        rounds += 1;
        plant_old(scene, "f", &old);
        let basis = std::fs::File::options().write(true).open(scene.dst().join("f"));
        let basis = basis.expect("it was planted");
        let flipper = Flipper::repeating(move |count| {
            let at = count.wrapping_mul(7_919_777) % (16 * MIB as u64 - 8);
            basis.write_all_at(&count.to_le_bytes(), at).expect("it can be written");
        });
        let outcome = scene.push(&["--json"]).run().ok();
        drop(flipper);
        resent += outcome.summary().files_resent;
        if resent > 0 {
            outcome.complains(&["f: changed at the target meanwhile"]);
        }
        scene.assert_arrived();
    }
    assert!(resent > 0, "in {rounds} rounds no change was met");
}
}

on_routes! { embedded, tcp;
fn other_names_of_the_old_version_keep_it(scene) {
    let old = content::noise(83, MIB);
    plant::file(scene.src().join("f"), [&old[..], b"more"].concat());
    plant_old(scene, "f", &old);
    let other = scene.export().join("other");
    std::fs::hard_link(scene.dst().join("f"), &other).expect("a second name");
    let inode = std::fs::metadata(&other).expect("it is there").ino();
    scene.push(&["--no-whole-file"]).run().ok();
    scene.assert_arrived();
    assert!(std::fs::read(&other).expect("it is there") == old, "the other name was written through");
    let now = std::fs::metadata(scene.dst().join("f")).expect("it is there").ino();
    assert_ne!(now, inode, "the new version is a file of its own");
}
}

// Blocks of the user's choice: larger ones make the sums fewer and what travels beside a change more.
on_routes! { tcp;
fn blocks_have_the_size_that_was_asked_for(scene) {
    let old = content::noise(84, 4 * MIB);
    let mut new = old.clone();
    new[2 * MIB] ^= 1;
    plant::file(scene.src().join("f"), &new);
    for (option, block) in [("-B65536", 65_536), ("--block-size=128K", 131_072), ("-B5000", 8192)] {
        plant_old(scene, "f", &old);
        let summary = scene.push(&[option, "--json"]).run().ok().summary();
        assert_eq!(summary.literal_bytes, block, "{option}");
        assert_eq!(summary.signature_bytes, 4 * MIB as u64 / block * 12, "{option}");
        scene.assert_arrived();
    }
    for wrong in ["-B0", "-B1M", "--block-size=x"] {
        scene.push(&[wrong]).run().exits(1).complains(&["256K"]);
    }
}
}

on_routes! { embedded, tcp;
fn every_file_or_only_those_of_another_size_as_rsync_does(scene) {
    require!(Need::Tool("rsync"));
    for (name, old, seconds) in [("same", "text", 1_000), ("time", "tEXT", 2_000), ("size", "text and", 1_000)] {
        for place in [scene.src(), scene.dst(), scene.twin()] {
            plant::file(place.join(name), if place == scene.src() { "text" } else { old });
            plant::mtime(place.join(name), if place == scene.src() { 1_000 } else { seconds }, 0);
        }
    }
    for place in [scene.src(), scene.dst(), scene.twin()] {
        plant::symlink(if place == scene.src() { "here" } else { "gone" }, place.join("link"));
        plant::mtime(&place, 5_000, 0);
    }
    let source = kernel_tests::scene::slash(scene.src());
    for option in ["--size-only", "-I"] {
        let lines = scene.push(&[option, "-i"]).run().ok().itemized();
        let twin = twin::rsync(scene.twin_rights(), &[option.into(), source.clone()], scene.twin());
        assert_eq!(twin, 0);
        println!("{option}: {lines:?}");
        // rsync reads what a link says; we go by its time and length.
        let but_links = |tree: Tree| tree.mapped(|node| node.kind != rustix::fs::FileType::Symlink);
        let ours = but_links(Tree::read(scene.dst()));
        but_links(Tree::read(scene.twin())).assert_equals(&ours, option);
    }
    scene.assert_arrived();
}
}

// Holes and a little content, in two versions that differ in a few pages.
on_routes! { embedded, tcp;
fn a_sparse_file_stays_sparse_and_takes_no_time_for_its_holes(scene) {
    const GIB: u64 = 1 << 30;
    let write = |path: &std::path::Path, pages: &[(u64, u8)]| {
        plant::sparse(path, 3 * GIB + 17);
        let file = std::fs::File::options().write(true).open(path).expect("it was planted");
        for (at, byte) in pages {
            file.write_all_at(&[*byte; 5000], *at).expect("it can be written");
        }
    };
    let pages = [(0, 1), (GIB - 3, 2), (2 * GIB + 12_345, 3)];
    write(&scene.src().join("f"), &pages);
    for is_first in [true, false] {
        if !is_first {
            write(&scene.dst().join("f"), &[pages[0], pages[1], (2 * GIB, 3), (3 * GIB, 4)]);
            plant::mtime(scene.dst().join("f"), 1_000_000, 0);
        }
        let summary = scene.push(&["--no-whole-file", "--json"]).run().ok().summary();
        assert_eq!(summary.files_sent, 1);
        assert!(summary.wire_bytes < 8 * MIB as u64, "{summary:?}");
        scene.assert_arrived();
        let there = std::fs::metadata(scene.dst().join("f")).expect("it is there");
        assert!(there.blocks() * 512 < 4 * MIB as u64, "{} blocks", there.blocks());
    }
}
}
