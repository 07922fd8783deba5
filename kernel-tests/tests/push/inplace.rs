//! Files that are updated where they stand.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use kernel_tests::evil::{self, Evil, Hello, Last, ROOT};
use kernel_tests::held::Held;
use kernel_tests::mount::Mount;
use kernel_tests::scene::slash;
use kernel_tests::{
    Chance, Need, Route, Scene, Tree, content, guard, on_routes, plant, require, twin,
};

const MIB: usize = 1 << 20;
/// HELLO's flag.
const IN_PLACE: u32 = 1 << 8;

fn inode(path: impl AsRef<Path>) -> u64 {
    std::fs::symlink_metadata(path).expect("it is there").ino()
}

fn plant_old(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    plant::file(path.as_ref(), bytes);
    plant::mtime(path, 1_000_000, 5);
}

/// Names, old versions, and new ones.
fn versions() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let large = content::noise(90, 3 * MIB + 77);
    let mut changed = large.clone();
    for at in [5, 300_000, 300_001, 2 * MIB, 3 * MIB + 76] {
        changed[at] ^= 0xff;
    }
    let inserted = [&large[..MIB], b"between", &large[MIB..]].concat();
    vec![
        ("small", b"old".to_vec(), b"new and longer".to_vec()),
        ("small-shrunk", vec![b'x'; 9000], b"short".to_vec()),
        ("small-emptied", b"old".to_vec(), Vec::new()),
        ("small-filled", Vec::new(), b"new".to_vec()),
        ("grew-large", b"old".to_vec(), content::noise(91, MIB)),
        ("shrank-small", content::noise(92, MIB), b"new".to_vec()),
        ("large-changed", large.clone(), changed),
        (
            "large-grown",
            large.clone(),
            [&large[..], b"and more"].concat(),
        ),
        ("large-shrunk", large.clone(), large[..MIB + 5].to_vec()),
        ("large-inserted", large.clone(), inserted),
        ("large-other", large, content::noise(93, 2 * MIB)),
    ]
}

/// Of these.
fn inodes(dir: &Path) -> Vec<u64> {
    versions()
        .iter()
        .map(|(name, ..)| inode(dir.join(name)))
        .collect()
}

on_routes! { embedded, tcp, unix, ssh;
fn a_file_keeps_its_inode_and_a_hard_linked_one_is_broken_apart(scene) {
    for (name, old, new) in versions() {
        plant::file(scene.src().join(name), &new);
        plant_old(scene.dst().join(name), &old);
        plant::file(scene.src().join("linked").join(name), &new);
        plant_old(scene.dst().join("linked").join(name), &old);
        plant::dir(scene.export().join("other"));
        let other = scene.export().join("other").join(name);
        std::fs::hard_link(scene.dst().join("linked").join(name), other).expect("a second name");
    }
    let before = inodes(&scene.dst());
    let linked = inodes(&scene.dst().join("linked"));
    scene.push(&["--inplace"]).run().ok();
    scene.assert_arrived();
    assert_eq!(inodes(&scene.dst()), before, "they stayed");
    let now = inodes(&scene.dst().join("linked"));
    assert!(now.iter().zip(&linked).all(|(now, was)| now != was), "they were replaced");
    for (name, old, _) in versions() {
        let other = std::fs::read(scene.export().join("other").join(name)).expect("it is there");
        assert!(other == old, "{name} was written through its other name");
    }
    scene.assert_idle(&["--inplace"]);
    // Without it they are replaced.
    for (name, ..) in versions() {
        plant_old(scene.dst().join(name), "older still");
    }
    scene.push::<&str>(&[]).run().ok();
    let now = inodes(&scene.dst());
    assert!(now.iter().zip(&before).all(|(now, was)| now != was), "the default replaces");
    scene.assert_arrived();
}
}

on_routes! { embedded, tcp;
fn trees_become_what_rsync_makes_of_them_in_place(scene) {
    require!(Need::Tool("rsync"));
    for (name, old, new) in versions() {
        for (dir, mode, was) in [("a", 0o644, 0o644), ("b", 0o4755, 0o600), ("c", 0o400, 0o444), ("d", 0o640, 0o6777)] {
            let at = |place: std::path::PathBuf| place.join(dir).join(name);
            plant::file(at(scene.src()), &new);
            plant::chmod(at(scene.src()), mode);
            for place in [scene.dst(), scene.twin()] {
                plant_old(at(place.clone()), &old);
                plant::chmod(at(place), was);
            }
        }
    }
    for place in [scene.dst(), scene.twin()] {
        plant::symlink("a", place.join("kind"));
    }
    plant::file(scene.src().join("kind"), "a file now");
    plant::file(scene.src().join("new"), "a new file");
    for options in [&["--inplace"][..], &["--inplace", "--no-whole-file", "-I"]] {
        scene.push(options).run().ok();
        scene.assert_arrived();
        let rights = [options, scene.twin_rights()].concat();
        assert_eq!(twin::rsync(&rights, &[slash(scene.src())], scene.twin()), 0);
        Tree::read(scene.twin()).assert_equals(&Tree::read(scene.dst()), "beside rsync's");
    }
}
}

// Of what stays in its place nothing travels and nothing is written: the reader that has the file open sees the new
// version, and the pages of a hole that is not touched take no space.
on_routes! { embedded, tcp, ssh;
fn only_what_differs_travels_and_is_written(scene) {
    let old = content::noise(94, 8 * MIB);
    let mut new = old.clone();
    for block in [3, 70, 71, 1500] {
        new[block * 4096 + 5..][..100].fill(b'x');
    }
    plant::file(scene.src().join("f"), &new);
    plant_old(scene.dst().join("f"), &old);
    let options = ["--inplace", "--no-whole-file", "--json"];
    let reader = File::open(scene.dst().join("f")).expect("it is there");
    let summary = scene.push(&options).run().ok().summary();
    assert_eq!((summary.literal_bytes, summary.matched_bytes), (4 * 4096, 8 * MIB as u64 - 4 * 4096));
    scene.assert_arrived();
    let mut seen = vec![0; new.len()];
    reader.read_exact_at(&mut seen, 0).expect("as long");
    assert!(seen == new, "who has it open sees the new version");
    scene.assert_idle(&options);

    // What moved is not found: it would be overwritten before it is copied.
    plant::file(scene.src().join("f"), [b"x", &new[..]].concat());
    let summary = scene.push(&options).run().ok().summary();
    assert_eq!(summary.matched_bytes, 0, "{summary:?}");
    scene.assert_arrived();
}
}

on_routes! { embedded, tcp;
fn a_sparse_file_stays_sparse_where_nothing_changes_and_gets_the_holes_of_the_source(scene) {
    const GIB: u64 = 1 << 30;
    let write = |path: &Path, pages: &[(u64, u8)]| {
        plant::sparse(path, GIB + 17);
        let file = File::options().write(true).open(path).expect("it was planted");
        for (at, byte) in pages {
            file.write_all_at(&[*byte; 600_000], *at).expect("it can be written");
        }
    };
    write(&scene.src().join("f"), &[(0, 1), (GIB / 2, 2)]);
    for delta in ["--whole-file", "--no-whole-file"] {
        // What the source has as a hole is content here: it must not stay, and takes no space afterwards.
        write(&scene.dst().join("f"), &[(0, 1), (GIB / 4, 9), (GIB / 2 + 4096, 3), (GIB - 600_000, 4)]);
        plant::mtime(scene.dst().join("f"), 1_000_000, 0);
        let was = inode(scene.dst().join("f"));
        scene.push(&["--inplace", delta]).run().ok();
        scene.assert_arrived();
        assert_eq!(inode(scene.dst().join("f")), was);
        let there = std::fs::metadata(scene.dst().join("f")).expect("it is there");
        assert!(there.blocks() * 512 < 3 * MIB as u64, "{} blocks", there.blocks());
    }
}
}

/// Nothing in `dst` passes for the source's that isn't.
#[track_caller]
fn assert_nothing_is_believed(scene: &Scene, what: &str) {
    let new = Tree::read(scene.src());
    for (path, node) in Tree::read(scene.dst()).entries() {
        let Some(wanted) = new.find(&path).filter(|wanted| wanted.kind == node.kind) else {
            continue;
        };
        let passes = (wanted.size, wanted.mtime) == (node.size, node.mtime);
        assert!(
            !passes || wanted.digest == node.digest,
            "{what}: a wrong {} is believed",
            path.escape_ascii()
        );
    }
}

/// Large and small files, of the size and, every other one, the time that they have in the source.
fn plant_mixable(scene: &Scene) {
    for number in 0..40_u64 {
        let bytes = if number % 4 == 0 { 2 * MIB } else { 40_000 };
        let name = format!("f{number}");
        plant::file(scene.src().join(&name), content::noise(number, bytes));
        plant::mtime(scene.src().join(&name), 1_500_000_000, 7);
        plant::file(scene.dst().join(&name), content::noise(number + 100, bytes));
        let seconds = if number % 2 == 0 {
            1_500_000_000
        } else {
            1_400_000_000
        };
        plant::mtime(scene.dst().join(&name), seconds, 7);
    }
}

on_routes! { embedded, tcp, ssh;
fn a_push_that_is_killed_leaves_nothing_that_is_believed_and_the_next_one_heals_it(scene) {
    plant_mixable(scene);
    let start = std::time::Instant::now();
    scene.push(&["--inplace", "-I"]).run().ok();
    let whole = start.elapsed();
    let mut chance = Chance::new();
    for round in 0..6 {
        plant_mixable(scene);
        let inodes: Vec<u64> = (0..40).map(|number| inode(scene.dst().join(format!("f{number}")))).collect();
        let running = scene.push(&["--inplace", "-I"]).start();
        let micros = chance.below(u64::try_from(whole.as_micros()).expect("not for centuries") + 1);
        std::thread::sleep(std::time::Duration::from_micros(micros));
        running.kill();
        let outcome = running.wait();
        // Files that it did not get to look as they did: size and time say that they are the source's.
        let is_old = |number: u64| {
            let now = std::fs::read(scene.dst().join(format!("f{number}"))).expect("nothing unlinks it");
            now == content::noise(number + 100, now.len())
        };
        for number in (0..40).filter(|number| is_old(*number)) {
            plant::mtime(scene.dst().join(format!("f{number}")), 1_400_000_000, 7);
        }
        assert_nothing_is_believed(scene, &format!("round {round}: {outcome}"));
        // The killed push's session at a server may go on for a moment.
        guard::wait_until("it to be healed", || {
            scene.push(&["--inplace"]).run().ok();
            scene.expected(scene.src()).differences(&Tree::read(scene.dst())).is_empty()
        });
        if scene.route == Route::Embedded {
            let now: Vec<u64> = (0..40).map(|number| inode(scene.dst().join(format!("f{number}")))).collect();
            assert_eq!(now, inodes, "round {round}");
        }
    }
}
}

on_routes! { embedded, tcp;
fn a_disk_that_fills_up_leaves_nothing_that_is_believed(scene) {
    require!(Need::Mounts, Need::Sy);
    let at = scene.export().join("fs");
    scene.aim_at("fs/dst");
    let mount = Mount::tmpfs(&at, "size=6m");
    plant::file(scene.src().join("large"), content::noise(5, 12 * MIB));
    plant::file(scene.src().join("small"), content::noise(6, 200_000));
    plant_old(scene.dst().join("large"), content::noise(7, MIB));
    plant_old(scene.dst().join("small"), "old");
    let was = inode(scene.dst().join("large"));
    scene.push(&["--inplace"]).run().exits(11).complains(&["No space left"]);
    assert_nothing_is_believed(scene, "a full disk");
    assert_eq!(inode(scene.dst().join("large")), was, "it was not removed");
    mount.remount("size=64m");
    scene.push(&["--inplace"]).run().ok();
    scene.assert_arrived();
}
}

// There is room for one copy and the little that grows, and not for two.
on_routes! { embedded, tcp;
fn there_has_to_be_room_for_one_copy_only(scene) {
    require!(Need::Mounts, Need::Sy);
    let at = scene.export().join("fs");
    scene.aim_at("fs/dst");
    let _mount = Mount::tmpfs(&at, "size=6m");
    plant::file(scene.src().join("large"), content::noise(8, 4 * MIB + 5));
    plant_old(scene.dst().join("large"), content::noise(9, 4 * MIB));
    scene.push::<&str>(&[]).run().exits(11);
    scene.push(&["--inplace"]).run().ok();
    scene.assert_arrived();
}
}

on_routes! { embedded, tcp;
fn what_is_no_file_or_moves_meanwhile_is_never_followed(scene) {
    plant::file(scene.src().join("large"), content::noise(10, 24 * MIB));
    plant::file(scene.src().join("link"), "a file");
    plant_old(scene.dst().join("large"), content::noise(11, 24 * MIB));
    plant::symlink(scene.outside().join("file"), scene.dst().join("link"));
    let held = Held::start(scene, &["--inplace"], 6 * MIB as u64);
    plant::remove(scene.dst().join("large"));
    plant::symlink(scene.outside().join("file"), scene.dst().join("large"));
    let outcome = held.finish();
    scene.assert_outside_untouched();
    // Embedded it may have ended before it was held.
    if outcome.code != Some(0) {
        outcome.exits(23).complains(&["large: the target cannot write: it was changed meanwhile"]);
    }
    scene.push(&["--inplace"]).run().ok();
    scene.assert_arrived();
    assert_eq!(std::fs::read(scene.dst().join("link")).expect("it is there"), b"a file");
}
}

on_routes! { embedded;
fn what_can_not_be_updated_in_place_is_replaced(scene) {
    require!(Need::Root);
    plant::file(scene.src().join("read-only"), "new");
    plant::file(scene.src().join("locked"), "new");
    plant::file(scene.src().join("writable"), "new");
    for name in ["read-only", "locked", "writable"] {
        plant_old(scene.dst().join(name), "old");
        plant::chown(scene.dst().join(name), scene.nobody, scene.nobody);
    }
    plant::chmod(scene.dst().join("read-only"), 0o444);
    for dir in [scene.path().to_owned(), scene.export(), scene.dst()] {
        plant::chmod(dir, 0o777);
    }
    plant::chown(scene.dst(), scene.nobody, scene.nobody);
    let locked = File::options().write(true).open(scene.dst().join("locked")).expect("root may");
    locked.try_lock().expect("nobody else has it");
    let was = ["read-only", "locked", "writable"].map(|name| inode(scene.dst().join(name)));
    scene.push(&["--inplace"]).as_user(scene.nobody).run().ok();
    let now = ["read-only", "locked", "writable"].map(|name| inode(scene.dst().join(name)));
    assert_eq!([0, 1, 2].map(|at| was[at] == now[at]), [false, false, true]);
    for name in ["read-only", "locked", "writable"] {
        assert_eq!(std::fs::read(scene.dst().join(name)).expect("it is there"), b"new");
    }
}
}

on_routes! { tcp;
fn a_dry_run_and_items_say_what_they_always_say(scene) {
    for (name, old, new) in versions() {
        plant::file(scene.src().join(name), &new);
        plant_old(scene.dst().join(name), &old);
    }
    let before = Tree::read(scene.dst());
    let usual = scene.push(&["-n", "-i"]).run().ok().itemized();
    let dry = scene.push(&["-n", "-i", "--inplace"]).run().ok().itemized();
    assert_eq!(dry, usual);
    before.assert_untouched(&Tree::read(scene.dst()), "a dry run");
    assert_eq!(scene.push(&["-i", "--inplace"]).run().ok().itemized(), usual);
}
}

on_routes! { embedded, tcp;
fn with_each_durability_files_arrive_in_their_inodes(scene) {
    for level in ["session", "file"] {
        for (name, old, new) in versions() {
            plant::file(scene.src().join(name), &new);
            plant_old(scene.dst().join(name), &old);
        }
        let was = inodes(&scene.dst());
        scene.push(&["--inplace", "--durability", level]).run().ok();
        assert_eq!(inodes(&scene.dst()), was);
        scene.assert_arrived();
    }
}
}

// A source that copies to another place would read what it has overwritten.
on_routes! { tcp;
fn copies_to_another_place_are_refused_before_anything_is_written(scene) {
    require!(Need::Sy);
    const CHUNK: u32 = evil::CHUNK as u32;
    let old = content::noise(40, 600_000);
    plant::file(scene.dst().join("large"), &old);
    let moved = [evil::literal(b"x"), evil::copy(0, CHUNK - 1)];
    let second = [evil::copy(0, CHUNK)];
    for (offset, runs) in [(0, &moved[..]), (evil::CHUNK as u64, &second[..])] {
        let mut evil = Evil::connect(scene.server().port());
        evil.send(&Hello::to("m", "dst").flags(IN_PLACE).frame());
        let op = evil::op_begin_on(ROOT, b"large", 1, evil::meta(evil::FILE), 600_000, 4096);
        evil.send(&evil::pack(&[op]));
        evil.send(&evil::tokens(1, offset, 0, runs));
        let last = evil.last();
        let is_refused = matches!(&last, Last::Refused(evil::PROTOCOL, text) if text.contains("updated in place"));
        assert!(is_refused, "{last:?}");
    }
    // A digest that does not agree is found out before, too: it is wanted again, whole.
    let mut evil = Evil::connect(scene.server().port());
    evil.send(&Hello::to("m", "dst").flags(IN_PLACE).frame());
    let op = evil::op_begin_on(ROOT, b"large", 1, evil::meta(evil::FILE), 600_000, 4096);
    evil.send(&evil::pack(&[op]));
    evil.send(&evil::tokens(1, 0, 7, &[evil::literal(b"x"), evil::copy(1, CHUNK - 1)]));
    let stop = evil.next_of(evil::STOP);
    assert_eq!(stop.payload[0], 3);
    let now = std::fs::read(scene.dst().join("large")).expect("it is there");
    assert!(now.starts_with(&old), "something was written");
    evil.finish();
    assert!(evil.is_closed(), "its temporary file has gone by then");
}
}

// Somebody writes to the file that is updated: what was matched in vain is sent again, whole, and in place.
on_routes! { tcp;
fn a_file_that_somebody_else_writes_to_comes_again_in_place(scene) {
    let old = content::noise(82, 16 * MIB);
    let mut new = old.clone();
    new[9 * MIB] ^= 1;
    plant::file(scene.src().join("f"), &new);
    let (mut resent, mut rounds) = (0, 0);
    while resent == 0 && rounds < 20 {
        rounds += 1;
        plant_old(scene.dst().join("f"), &old);
        let was = inode(scene.dst().join("f"));
        let there = File::options().write(true).open(scene.dst().join("f")).expect("it is there");
        let flipper = kernel_tests::flipper::Flipper::repeating(move |count| {
            let at = count.wrapping_mul(7_919_777) % (16 * MIB as u64 - 8);
            there.write_all_at(&count.to_le_bytes(), at).expect("it can be written");
        });
        let outcome = scene.push(&["--inplace", "--json"]).run().ok();
        drop(flipper);
        resent += outcome.summary().files_resent;
        assert_eq!(inode(scene.dst().join("f")), was, "round {rounds}");
        // Somebody wrote to the very file until the end: it is his who writes last.
        plant_old(scene.dst().join("f"), &old);
        scene.push(&["--inplace"]).run().ok();
        scene.assert_arrived();
    }
    assert!(resent > 0, "in {rounds} rounds no change was met");
}
}
