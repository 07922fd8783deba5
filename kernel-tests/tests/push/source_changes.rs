//! Sources that change, vanish, or can't be read while they are pushed.

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use kernel_tests::flipper::Flipper;
use kernel_tests::held::Held;
use kernel_tests::scene::slash;
use kernel_tests::tree::escaped;
use kernel_tests::{
    Chance, Need, Outcome, Push, Route, Scene, Tree, content, guard, on_routes, plant, require,
};

const LARGE_BYTES: usize = 48 << 20;
/// Far enough for the large file to be under way, near enough for it not to be through.
const HELD_AFTER_BYTES: u64 = 6 << 20;

/// A large file that is first in every order, and others that are read after it.
fn plant_source(scene: &Scene) {
    plant::file(scene.src().join("a-large"), content::noise(1, LARGE_BYTES));
    for number in 0..100 {
        let path = scene
            .src()
            .join(format!("dir-{}/file-{number}", number % 5));
        plant::file(path, content::noise(number, 20_000));
    }
    plant::file(scene.src().join("victim"), content::noise(7, 700_000));
    for path in ["a-large", "victim"] {
        plant::mtime(scene.src().join(path), 1_500_000_000, 0);
    }
}

/// Pushes, changes two files in the middle of it (the large one, which is being read, and one
/// that is still to come), and looks at what arrived: whole versions or nothing.
fn change_while_pushing(scene: &mut Scene, change: impl Fn(&Path)) {
    plant_source(scene);
    let before = Tree::read(scene.src());
    let held = Held::start(scene, &[], HELD_AFTER_BYTES);
    for name in ["a-large", "victim"] {
        change(&scene.src().join(name));
    }
    let outcome = held.finish().exits_one_of(&[0, 23, 24]);
    let after = Tree::read(scene.src());
    let there = Tree::read(scene.dst());
    for (path, node) in before.entries() {
        let name = escaped(&path);
        let Some(arrived) = there.find(&path) else {
            assert!(
                !path.is_empty()
                    && after
                        .find(&path)
                        .is_none_or(|now| { now.digest != node.digest || now.kind != node.kind }),
                "{name} did not change and is missing: {outcome}"
            );
            assert_ne!(
                outcome.code,
                Some(0),
                "{name} is missing, and nobody said so: {outcome}"
            );
            continue;
        };
        let versions = [Some(node), after.find(&path)];
        let whole = versions.into_iter().flatten().any(|version| {
            (version.kind, version.size, version.digest)
                == (arrived.kind, arrived.size, arrived.digest)
        });
        if Need::Sy.met().is_ok() {
            assert!(
                whole,
                "{name} is a mixture of versions ({} bytes): {outcome}",
                arrived.size
            );
        }
    }
    assert!(there.litter().is_empty(), "{:?}", there.litter());
    scene.push(&["--delete"]).run().ok();
    scene.assert_arrived();
}

on_routes! { embedded, tcp, ssh;
fn files_that_grow_while_they_are_sent_arrive_as_one_version(scene) {
    change_while_pushing(scene, |path| {
        let mut file = std::fs::File::options().append(true).open(path).expect("it opens");
        file.write_all(&content::noise(99, 300_000)).expect("it grows");
    });
}
}

on_routes! { embedded, tcp, ssh;
fn files_that_are_truncated_while_they_are_sent_arrive_as_one_version(scene) {
    change_while_pushing(scene, |path| {
        let file = std::fs::File::options().write(true).open(path).expect("it opens");
        file.set_len(100_000).expect("it shrinks");
    });
}
}

on_routes! { embedded, tcp, ssh;
fn files_that_are_emptied_while_they_are_sent_arrive_as_one_version(scene) {
    change_while_pushing(scene, |path| {
        let file = std::fs::File::options().write(true).open(path).expect("it opens");
        file.set_len(0).expect("it shrinks");
    });
}
}

on_routes! { embedded, tcp, ssh;
fn files_that_are_deleted_while_they_are_sent_arrive_whole_or_are_named(scene) {
    change_while_pushing(scene, |path| plant::remove(path));
}
}

on_routes! { embedded, tcp, ssh;
fn files_that_are_replaced_while_they_are_sent_arrive_as_one_version(scene) {
    change_while_pushing(scene, |path| {
        let new = path.with_extension("new");
        plant::file(&new, content::noise(55, 400_000));
        std::fs::rename(new, path).expect("it is replaced");
    });
}
}

on_routes! { embedded, tcp, ssh;
fn files_that_are_rewritten_in_place_never_arrive_as_a_mixture(scene) {
    change_while_pushing(scene, |path| {
        let mut file = std::fs::File::options().write(true).open(path).expect("it opens");
        let len = file.metadata().expect("it has a size").len();
        for offset in [0, len / 2, len - 1000] {
            file.seek(SeekFrom::Start(offset)).expect("it seeks");
            file.write_all(&[b'#'; 1000]).expect("it is written");
        }
    });
}
}

on_routes! { embedded, tcp, ssh;
fn files_that_become_symlinks_while_they_are_sent_are_not_followed(scene) {
    change_while_pushing(scene, |path| {
        let new = path.with_extension("new");
        plant::symlink("/etc/hostname", &new);
        std::fs::rename(new, path).expect("it is replaced");
    });
}
}

on_routes! { embedded, tcp, ssh;
fn files_that_become_fifos_while_they_are_sent_hang_nobody(scene) {
    // rsync opens the fifo and waits for ever.
    require!(Need::Root, Need::Sy);
    if !scene.route.has_all_rights() {
        // A session that may not make the fifo leaves the file as it was.
        plant_source(scene);
        let held = Held::start(scene, &[], HELD_AFTER_BYTES);
        for name in ["a-large", "victim"] {
            plant::remove(scene.src().join(name));
            plant::fifo(scene.src().join(name));
        }
        held.finish().exits_one_of(&[0, 23, 24]);
        scene.push(&["--delete"]).run().ok();
        return;
    }
    change_while_pushing(scene, |path| {
        plant::remove(path);
        plant::fifo(path);
    });
}
}

on_routes! { embedded, tcp, ssh;
fn files_whose_mode_changes_while_they_are_sent_follow_in_the_next_push(scene) {
    change_while_pushing(scene, |path| plant::chmod(path, 0o600));
}
}

on_routes! { embedded, tcp, ssh;
fn a_directory_that_vanishes_while_it_is_pushed_is_named(scene) {
    plant_source(scene);
    let held = Held::start(scene, &[], HELD_AFTER_BYTES);
    plant::remove(scene.src().join("dir-3"));
    plant::remove(scene.src().join("dir-4"));
    held.finish().exits_one_of(&[0, 23, 24]);
    for number in (0..100).filter(|number| number % 5 < 3) {
        let path = scene.dst().join(format!("dir-{}/file-{number}", number % 5));
        assert!(path.exists(), "{} arrives all the same", path.display());
    }
    scene.push(&["--delete"]).run().ok();
    scene.assert_arrived();
}
}

on_routes! { tcp;
fn a_vanished_file_is_exit_24_and_named(scene) {
    require!(Need::Sy);
    plant_source(scene);
    let held = Held::start(scene, &[], HELD_AFTER_BYTES);
    plant::remove(scene.src().join("victim"));
    let outcome = held.finish();
    if !scene.dst().join("victim").exists() {
        outcome.exits(24).complains(&["victim"]);
    }
}
}

on_routes! { embedded, tcp, ssh;
fn files_with_holes_that_are_truncated_without_pause_end_no_push(scene) {
    require!(Need::Sy);
    let (path, long) = (scene.src().join("holes"), 3_000_000);
    plant::file(&path, b"");
    {
        let file = std::fs::File::options().write(true).open(&path).expect("it opens");
        let _flipper = Flipper::repeating(move |_| {
            for len in [100_000, long] {
                file.set_len(len).expect("it has another size");
            }
        });
        for _ in 0..40 {
            scene.push::<&str>(&[]).run().exits_one_of(&[0, 23]);
        }
    }
    scene.push::<&str>(&[]).run().ok();
    scene.assert_arrived();
}
}

on_routes! { embedded, tcp, ssh;
fn a_source_that_never_rests_is_pushed_without_a_wrong_byte(scene) {
    require!(Need::Sy);
    for number in 0..20 {
        plant::file(scene.src().join(format!("calm-{number}")), content::noise(number, 5000));
    }
    let busy = scene.src().join("busy");
    plant::file(&busy, vec![b'a'; 3 << 20]);
    {
        let path = busy.clone();
        // Whole versions of one byte each, made in place: a mixture shows.
        let _writer = Flipper::repeating(move |count| {
            let letter = b'a' + u8::try_from(count % 26).expect("a letter");
            let mut file = std::fs::File::options().write(true).open(&path).expect("it opens");
            file.write_all(&vec![letter; 3 << 20]).expect("it is written");
        });
        for _ in 0..10 {
            scene.push::<&str>(&[]).run().exits_one_of(&[0, 23, 24]);
            for number in 0..20 {
                assert!(scene.dst().join(format!("calm-{number}")).exists());
            }
        }
    }
    // Its last write may have been under way while it was looked at: no time changes after it.
    scene.push::<&str>(&[]).run().ok();
    scene.assert_arrived();
}
}

on_routes! { embedded, tcp;
fn a_log_that_grows_all_the_time_arrives_as_far_as_it_got(scene) {
    require!(Need::Sy);
    let log = scene.src().join("log");
    plant::file(&log, b"");
    let line = content::noise(7, 100);
    {
        let (path, line) = (log.clone(), line.clone());
        let writer = Flipper::repeating(move |_| {
            let mut file = std::fs::File::options().append(true).open(&path).expect("it opens");
            file.write_all(&line).expect("it grows");
            std::thread::sleep(std::time::Duration::from_millis(1));
        });
        guard::wait_until("some lines", || writer.count() > 10);
        scene.push::<&str>(&[]).run().ok();
        let arrived = std::fs::read(scene.dst().join("log")).expect("it arrived");
        assert!(!arrived.is_empty());
        let whole = std::fs::read(&log).expect("it is there");
        assert_eq!(whole[..arrived.len()], arrived);
    }
    scene.push::<&str>(&[]).run().ok();
    scene.assert_arrived();
}
}

on_routes! { embedded, tcp;
fn a_file_that_never_rests_is_named_and_keeps_its_old_version_there(scene) {
    require!(Need::Sy);
    let (busy, there) = (scene.src().join("busy"), scene.dst().join("busy"));
    plant::file(&busy, [b'a'; 5000]);
    scene.push::<&str>(&[]).run().ok();
    {
        let path = busy.clone();
        let writer = Flipper::repeating(move |count| {
            let letter = b'b' + u8::try_from(count % 20).expect("a letter");
            let mut file = std::fs::File::options().write(true).open(&path).expect("it opens");
            file.write_all(&[letter; 5000]).expect("it is written");
        });
        guard::wait_until("some writes", || writer.count() > 10);
        // On a busy machine the writer may have to rest itself, and then so does the file.
        let outcome = (0..20).find_map(|_| {
            let before = std::fs::read(&there).expect("it is there");
            let outcome = scene.push::<&str>(&[]).run().exits_one_of(&[0, 23]);
            let after = std::fs::read(&there).expect("it is there");
            assert_eq!(after, [after[0]; 5000], "one version");
            let is_named = outcome.code == Some(23);
            assert!(!is_named || after == before, "it keeps the version that it had");
            is_named.then_some(outcome)
        });
        outcome.expect("some push finds it changing").complains(&["busy", "changes while it is read"]);
    }
    scene.push::<&str>(&[]).run().ok();
    scene.assert_arrived();
}
}

on_routes! { embedded, tcp, ssh;
fn a_file_rewritten_again_and_again_converges_when_it_rests(scene) {
    require!(Need::Sy);
    let path = scene.src().join("busy");
    plant::file(&path, [b'a'; 5000]);
    for _ in 0..10 {
        {
            let path = path.clone();
            let writer = Flipper::repeating(move |count| {
                let letter = b'a' + u8::try_from(count % 26).expect("a letter");
                plant::file(&path, [letter; 5000]);
                std::thread::sleep(std::time::Duration::from_millis(1));
            });
            scene.push::<&str>(&[]).run().exits_one_of(&[0, 23, 24]);
            guard::wait_until("one more write", || writer.count() > 3);
        }
        // Its last write may bear the time of the one before it, and has its size.
        scene.push::<&str>(&[]).run().ok();
        scene.assert_arrived();
    }
}
}

on_routes! { embedded, tcp, ssh;
fn a_source_whose_directories_wander_ends_and_converges(scene) {
    for dir in 0..20 {
        for file in 0..30 {
            plant::file(scene.src().join(format!("d{dir}/s/f{file}")), content::noise(file, 2000));
        }
    }
    let seed = Chance::new().draw();
    {
        let src = scene.src();
        let mut chance = Chance::seeded(seed);
        let mover = Flipper::repeating(move |_| {
            let mut pick = || src.join(format!("d{}", chance.below(20)));
            let (one, other) = (pick(), pick());
            let _ = std::fs::rename(&one, other.join("moved"));
            let _ = std::fs::rename(other.join("moved"), &one);
            let _ = plant::exchange(&one, &other);
        });
        for _ in 0..8 {
            scene.push::<&str>(&[]).run().exits_one_of(&[0, 23, 24]);
        }
        guard::wait_until("the mover to have moved", || mover.count() > 100);
    }
    scene.push(&["--delete"]).run().ok();
    scene.assert_arrived();
}
}

on_routes! { embedded, tcp, ssh;
fn nothing_that_is_in_the_source_all_the_time_is_ever_deleted(scene) {
    for number in 0..300 {
        plant::file(scene.src().join(format!("steady/{number}")), content::noise(number, 1000));
        plant::file(scene.src().join(format!("wild/{number}")), content::noise(number, 1000));
    }
    scene.push::<&str>(&[]).run().ok();
    {
        let src = scene.src();
        let _mover = Flipper::repeating(move |count| {
            let (one, other) = (src.join("wild"), src.join("wilder"));
            let _ = std::fs::rename(&one, &other);
            let _ = std::fs::rename(&other, &one);
            plant::file(src.join("new"), count.to_le_bytes());
        });
        for _ in 0..8 {
            scene.push(&["--delete"]).run().exits_one_of(&[0, 23, 24]);
            assert_eq!(Tree::read(scene.dst().join("steady")).len(), 300);
        }
    }
    scene.push(&["--delete"]).run().ok();
    scene.assert_arrived();
}
}

on_routes! { embedded, tcp, ssh;
fn a_fifo_that_trades_places_with_a_file_hangs_nobody(scene) {
    // rsync opens the fifo and waits for ever.
    require!(Need::Root, Need::Sy);
    for number in 0..50 {
        plant::file(scene.src().join(format!("file-{number}")), content::noise(number, 4000));
    }
    plant::fifo(scene.path().join("fifo"));
    plant::file(scene.src().join("victim"), content::noise(5, 300_000));
    {
        let _flipper =
            Flipper::exchanging(&scene.path().join("fifo"), &scene.src().join("victim"));
        for round in 0..15 {
            plant::dir(scene.dst());
            plant::remove(scene.dst());
            scene.push::<&str>(&[]).run().exits_one_of(&[0, 23, 24]);
            let arrived = Tree::read(scene.dst());
            assert!(arrived.len() >= 50, "round {round}");
        }
    }
    scene.push(&["--delete"]).run().ok();
}
}

#[test]
fn a_kernels_own_tree_can_be_a_source() {
    Scene::play(Route::Embedded, |scene| {
        // Files of size 0 that have content, files that may only be written, files that fail.
        let push = |source: &str| -> Outcome {
            Push::new(scene.dst())
                .from(source)
                .run()
                .exits_one_of(&[0, 23, 24])
        };
        push("/proc/sys/net/ipv4/");
        assert!(!Tree::read(scene.dst()).is_empty());
        push("/sys/kernel/mm/");
    });
}

// Not by ssh, which refuses a user without a name.
on_routes! { embedded, tcp;
fn what_cannot_be_read_is_named_and_the_rest_arrives(scene) {
    require!(Need::Nobody);
    for name in ["a", "b", "c"] {
        plant::file(scene.src().join(name).join("file"), name);
        plant::file(scene.src().join(format!("{name}-file")), name);
    }
    plant::chmod(scene.src().join("b"), 0o000);
    plant::chmod(scene.src().join("b-file"), 0o000);
    plant::chmod(scene.export(), 0o777);
    let outcome = scene.push::<&str>(&[]).as_user(scene.nobody).run();
    outcome.exits(23).complains(&["src/b:", "src/b-file:", "Permission denied"]);
    for path in ["a/file", "c/file", "a-file", "c-file"] {
        assert!(scene.dst().join(path).exists(), "{path}");
    }
    assert!(!scene.dst().join("b-file").exists());
    plant::chmod(scene.src().join("b"), 0o755);
    plant::chmod(scene.src().join("b-file"), 0o644);
    scene.push_to("dst").from(slash(scene.src())).run().ok();
    scene.assert_arrived();
}
}

on_routes! { embedded, tcp, unix, ssh;
fn symlink_loops_in_the_source_end(scene) {
    plant::symlink("..", scene.src().join("dir/up"));
    plant::symlink(".", scene.src().join("dir/here"));
    plant::symlink(scene.src(), scene.src().join("dir/root"));
    scene.assert_pushes::<&str>(&[]);
}
}
