//! Disks that are full, entries that may not be changed, and a destination that moves.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use kernel_tests::flipper::Flipper;
use kernel_tests::invariant::assert_between;
use kernel_tests::mount::Mount;
use kernel_tests::scene::slash;
use kernel_tests::{
    Need, Route, Scene, Server, Tree, content, guard, on_routes, plant, push, require,
};

/// What is at the target already, and what comes.
fn plant_for_a_small_disk(scene: &Scene) -> Tree {
    plant::file(scene.dst().join("kept"), content::noise(1, 50_000));
    plant::file(scene.dst().join("large"), content::noise(2, 500_000));
    plant::file(scene.dst().join("small-7"), "older");
    plant::copy(&scene.dst().join("kept"), &scene.src().join("kept"));
    plant::file(scene.src().join("large"), content::noise(3, 6 << 20));
    for number in 0..200 {
        plant::file(
            scene.src().join(format!("small-{number}")),
            content::noise(number, 9000),
        );
        plant::file(
            scene.src().join(format!("z/{number}/file")),
            content::noise(number, 5000),
        );
    }
    plant::file(scene.src().join("z-large"), content::noise(4, 12 << 20));
    Tree::read(scene.dst())
}

/// A push into a file system too small for it, which is then made larger.
fn push_into_a_full_disk(scene: &mut Scene, options: &str, roomy: &str) {
    let at = scene.export().join("fs");
    let mount = Mount::tmpfs(&at, options);
    push_until_there_is_room(scene, &at, "No space left", options, || {
        mount.remount(roomy)
    });
}

/// A push to where there is no room for all of it, and another when there is.
fn push_until_there_is_room(
    scene: &mut Scene,
    at: &Path,
    complaint: &str,
    options: &str,
    make_room: impl FnOnce(),
) {
    scene.aim_at("fs/dst");
    let old = plant_for_a_small_disk(scene);
    let new = Tree::read(scene.src());
    let outcome = scene.push(&["--delete"]).run();
    println!("{options}: {outcome}");
    let now = Tree::read(scene.dst());
    assert_between(&old, &new, &now, &format!("{options}: {outcome}"));
    outcome.exits(11).complains(&[complaint]);
    guard::wait_until("temporary files to go", || {
        Tree::read(at).litter().is_empty()
    });
    // Others are served while that disk is full.
    scene
        .push_to("elsewhere")
        .from(slash(scene.src().join("z")))
        .run()
        .ok();
    make_room();
    scene.push(&["--delete"]).run().ok();
    scene.assert_arrived();
}

on_routes! { embedded, tcp, unix, ssh;
fn a_disk_that_fills_up_is_exit_11_and_keeps_what_it_has(scene) {
    require!(Need::Mounts, Need::Sy);
    for megabytes in [1, 2, 3, 5, 7, 12] {
        push_into_a_full_disk(scene, &format!("size={megabytes}m"), "size=64m");
        plant::remove(scene.src());
        plant::dir(scene.src());
    }
}
}

on_routes! { embedded, tcp, ssh;
fn a_disk_without_inodes_is_exit_11_and_keeps_what_it_has(scene) {
    require!(Need::Mounts, Need::Sy);
    for inodes in [8, 50, 150, 400] {
        push_into_a_full_disk(scene, &format!("size=64m,nr_inodes={inodes}"), "nr_inodes=10000");
        plant::remove(scene.src());
        plant::dir(scene.src());
    }
}
}

on_routes! { embedded, tcp, ssh;
fn a_quota_that_is_used_up_is_exit_11_and_keeps_what_it_has(scene) {
    require!(Need::LoopMounts, Need::Tool("mkfs.btrfs"));
    let (at, image) = (scene.export().join("fs"), scene.path().join("image"));
    let mount = Mount::btrfs_with_quotas(&at, &image, 256 << 20);
    mount.limit("5M");
    push_until_there_is_room(scene, &at, "quota", "quota exceeded", || mount.limit("none"));
}
}

on_routes! { embedded, tcp, ssh;
fn a_disk_that_cannot_be_written_is_named_and_nothing_changes(scene) {
    require!(Need::Mounts, Need::Sy);
    let at = scene.export().join("fs");
    scene.aim_at("fs/dst");
    let mount = Mount::tmpfs(&at, "size=4m");
    plant::file(scene.dst().join("file"), "older");
    plant::file(scene.dst().join("extra"), "would go");
    plant::file(scene.src().join("file"), "newer");
    plant::file(scene.src().join("dir/file"), "newer");
    let before = Tree::read(&at);
    mount.remount("ro");
    let outcome = scene.push(&["--delete"]).run();
    outcome.exits_one_of(&[11, 23]).complains(&["Read-only file system"]);
    before.assert_untouched(&Tree::read(&at), "read-only");
}
}

// Where a power cut can harm nothing, on tmpfs, there is no marker to be made first, and each entry is named.
on_routes! { embedded;
fn a_destination_that_may_not_be_written_to_is_exit_3(scene) {
    require!(Need::Nobody, Need::LoopMounts, Need::Sy);
    let at = scene.export().join("fs");
    scene.aim_at("fs/dst");
    let _mount = Mount::ext4(&at, &scene.path().join("image"), 16 << 20, &[]);
    plant::file(scene.src().join("file"), "text");
    plant::dir(scene.dst());
    plant::chmod(scene.dst(), 0o555);
    let outcome = scene.push::<&str>(&[]).as_user(scene.nobody).run().exits(3);
    let outcome = outcome.complains(&["DEST may not be written to", "Permission denied"]);
    assert!(!String::from_utf8_lossy(&outcome.stderr).contains("df"), "{outcome}");
}
}

on_routes! { embedded, tcp, ssh;
fn a_large_file_that_fills_the_disk_is_named_and_nothing_says_no_failures(scene) {
    require!(Need::Mounts, Need::Sy);
    scene.aim_at("fs/dst");
    let _mount = Mount::tmpfs(&scene.export().join("fs"), "size=4m");
    plant::file(scene.src().join("large"), content::noise(1, 8 << 20));
    let outcome = scene.push(&["-v"]).run().exits(11);
    let outcome = outcome.complains(&["large: No space left on device"]);
    assert!(outcome.stdout.starts_with(b"large\nnot finished: "), "{outcome}");
}
}

fn chattr(flag: &str, path: &Path) {
    let done = std::process::Command::new("chattr")
        .arg(flag)
        .arg(path)
        .status();
    assert!(
        done.is_ok_and(|status| status.success()),
        "chattr {flag} {}",
        path.display()
    );
}

on_routes! { embedded, tcp, ssh;
fn an_immutable_file_fails_alone(scene) {
    require!(Need::LoopMounts, Need::Tool("chattr"));
    let (at, image) = (scene.export().join("fs"), scene.path().join("image"));
    scene.aim_at("fs/dst");
    let _mount = Mount::ext4(&at, &image, 32 << 20, &[]);
    for name in ["before", "locked", "z-after", "dir/below", "large"] {
        plant::file(scene.src().join(name), content::noise(1, 3000));
        plant::file(scene.dst().join(name), "older");
    }
    plant::file(scene.src().join("large-locked"), content::noise(1, 2 << 20));
    plant::file(scene.dst().join("large-locked"), "older");
    plant::file(scene.dst().join("extra-locked"), "can't go");
    for name in ["locked", "large-locked", "extra-locked"] {
        chattr("+i", &scene.dst().join(name));
    }
    let outcome = scene.push(&["--delete"]).run().exits(23);
    outcome.complains(&["locked", "large-locked", "extra-locked", "Operation not permitted"]);
    for name in ["locked", "large-locked"] {
        assert_eq!(std::fs::read(scene.dst().join(name)).expect("it is there"), b"older");
    }
    for name in ["before", "z-after", "dir/below", "large"] {
        assert_eq!(Tree::read(scene.dst().join(name)).find("").expect("it").size, 3000, "{name}");
    }
    scene.assert_no_litter();
    for name in ["locked", "large-locked", "extra-locked"] {
        chattr("-i", &scene.dst().join(name));
    }
    scene.push(&["--delete"]).run().ok();
    scene.assert_arrived();
}
}

on_routes! { embedded, tcp, ssh;
fn directories_that_only_grow_or_never_change_fail_alone(scene) {
    require!(Need::LoopMounts, Need::Tool("chattr"));
    let (at, image) = (scene.export().join("fs"), scene.path().join("image"));
    scene.aim_at("fs/dst");
    let _mount = Mount::ext4(&at, &image, 32 << 20, &[]);
    for dir in ["appended", "free", "fixed"] {
        for name in ["same", "changed", "new"] {
            plant::file(scene.src().join(dir).join(name), name);
        }
        plant::file(scene.dst().join(dir).join("changed"), "older");
        plant::file(scene.dst().join(dir).join("extra"), "goes, if it can");
    }
    chattr("+a", &scene.dst().join("appended"));
    chattr("+i", &scene.dst().join("fixed"));
    scene.push(&["--delete"]).run().exits(23).complains(&["Operation not permitted", "fixed"]);
    let free = Tree::read(scene.dst().join("free"));
    scene.expected(scene.src().join("free")).assert_equals(&free, "the directory beside them");
    for dir in ["appended", "fixed"] {
        let read = |name: &str| std::fs::read(scene.dst().join(dir).join(name)).expect("it is");
        assert_eq!(read("changed"), b"older");
        assert_eq!(read("extra"), b"goes, if it can");
    }
    chattr("-a", &scene.dst().join("appended"));
    chattr("-i", &scene.dst().join("fixed"));
    scene.push(&["--delete"]).run().ok();
    scene.assert_arrived();
    scene.assert_no_litter();
}
}

/// Gives a tree to the scene's ordinary user.
fn give_to_nobody(scene: &Scene, root: &Path) {
    for (path, _) in Tree::read(root).entries() {
        plant::chown(
            root.join(std::ffi::OsStr::from_bytes(&path)),
            scene.nobody,
            scene.nobody,
        );
    }
}

/// Entries that an ordinary user at the target may not change, beside others.
fn push_without_permission(scene: &Scene, run: impl Fn(&[&str]) -> kernel_tests::Outcome) {
    for dir in ["closed", "foreign", "open"] {
        for name in ["changed", "new", "sub/new"] {
            plant::file(scene.src().join(dir).join(name), name);
        }
        plant::file(scene.dst().join(dir).join("changed"), "older");
        plant::file(scene.dst().join(dir).join("sub/extra"), "goes, if it can");
    }
    give_to_nobody(scene, &scene.dst());
    plant::chown(scene.dst().join("foreign"), 0, 0);
    plant::chown(scene.dst().join("foreign/changed"), 0, 0);
    plant::chown(scene.dst().join("closed"), 0, 0);
    plant::chmod(scene.dst().join("closed"), 0o700);
    let outcome = run(&["--delete"]).exits(23);
    outcome.complains(&["closed", "foreign", "Permission denied"]);
    let open = Tree::read(scene.dst().join("open"));
    assert!(
        open.find("new").is_some() && open.find("sub/new").is_some(),
        "the rest arrives"
    );
    let closed = Tree::read(scene.dst().join("closed"));
    assert!(
        closed.find("sub/extra").is_some(),
        "what could not be listed is not deleted"
    );
    let old = std::fs::read(scene.dst().join("foreign/changed")).expect("it is there");
    assert_eq!(old, b"older");
}

#[test]
fn what_an_ordinary_user_may_not_change_fails_alone() {
    require!(Need::Nobody);
    Scene::play(Route::Embedded, |scene| {
        push_without_permission(scene, |options| {
            scene.push(options).as_user(scene.nobody).run()
        });
    });
}

#[test]
fn what_a_server_of_an_ordinary_user_may_not_change_fails_alone() {
    require!(Need::Nobody, Need::Sy);
    Scene::play(Route::Tcp, |scene| {
        plant::chmod(scene.path(), 0o777);
        plant::chmod(scene.export(), 0o777);
        scene.serve(Server::new(scene.path()).through(&push::as_user(scene.nobody)));
        push_without_permission(scene, |options| scene.push(options).run());
    });
}

#[test]
fn a_server_of_an_ordinary_user_owns_what_arrives() {
    require!(Need::Nobody, Need::Sy);
    for route in [Route::Tcp, Route::Unix] {
        Scene::play(route, |scene| {
            plant::chmod(scene.path(), 0o777);
            plant::chmod(scene.export(), 0o777);
            scene.serve(Server::new(scene.path()).through(&push::as_user(scene.nobody)));
            plant::file(scene.src().join("dir/file"), "text");
            plant::symlink("file", scene.src().join("dir/link"));
            scene.push::<&str>(&[]).run().ok();
            let expected = Tree::read(scene.src()).mapped(|node| {
                (node.uid, node.gid) = (scene.nobody, scene.nobody);
                true
            });
            expected.assert_equals(&Tree::read(scene.dst()), "a server without rights");
        });
    }
}

const FLIPPING: Duration = Duration::from_secs(5);

/// A destination under attack may make entries fail or end the push, but with a known code.
fn fails_at_most_for_a_reason(outcome: kernel_tests::Outcome) {
    if Need::Sy.met().is_ok() {
        outcome.exits_one_of(&[0, 3, 5, 11, 23, 24]);
    }
}

/// Pushes changing content, again and again, while a local user swaps `inside` with `partner`.
fn push_while_swapping(scene: &mut Scene, inside: &str, partner: impl Fn(&Path, &Path)) {
    for name in ["d/below", "d/sub/deep/file"] {
        plant::file(scene.src().join(name), content::noise(1, 3000));
    }
    for number in 0..10 {
        plant::file(
            scene.src().join(format!("d/f{number}")),
            content::noise(number, 2000),
        );
        plant::file(
            scene.src().join(format!("d/sub/f{number}")),
            content::noise(number, 200_000),
        );
    }
    scene.push::<&str>(&[]).run().ok();
    let other = scene.export().join("partner");
    let inside = match inside {
        "" => scene.dst(),
        name => scene.dst().join(name),
    };
    partner(&other, &scene.outside());
    let end = Instant::now() + FLIPPING;
    let (mut pushes, mut seconds) = (0, 1_000_000);
    {
        let flipper = Flipper::exchanging(&inside, &other);
        while Instant::now() < end || pushes < 3 {
            // Everything looks new each time; and there is something to delete.
            for number in 0..10 {
                seconds += 1;
                plant::mtime(scene.src().join(format!("d/f{number}")), seconds, 0);
                plant::mtime(scene.src().join(format!("d/sub/f{number}")), seconds, 0);
            }
            plant::chmod(
                scene.src().join("d/sub"),
                if pushes % 2 == 0 { 0o700 } else { 0o755 },
            );
            fails_at_most_for_a_reason(scene.push(&["--delete"]).run());
            scene.assert_outside_untouched();
            pushes += 1;
        }
        println!("{pushes} pushes, {} swaps", flipper.count());
    }
    for path in [other, inside] {
        if path.symlink_metadata().is_ok() {
            plant::remove(path);
        }
    }
    scene.push(&["--delete"]).run().ok();
    scene.push(&["--delete"]).run().ok();
    scene.assert_arrived();
}

on_routes! { embedded, tcp, ssh;
fn a_directory_swapped_for_a_symlink_never_leads_outside(scene) {
    push_while_swapping(scene, "d", |other, outside| plant::symlink(outside.join("dir"), other));
}
}

on_routes! { embedded, tcp, ssh;
fn a_deeper_directory_swapped_for_a_symlink_never_leads_outside(scene) {
    push_while_swapping(scene, "d/sub", |other, outside| {
        plant::symlink(outside.join("dir/sub"), other);
    });
}
}

on_routes! { embedded, tcp, ssh;
fn a_file_swapped_for_a_symlink_is_never_written_through(scene) {
    push_while_swapping(scene, "d/f3", |other, outside| {
        plant::symlink(outside.join("dir/f3"), other);
    });
}
}

on_routes! { tcp;
fn a_destination_swapped_for_a_symlink_never_leads_outside(scene) {
    push_while_swapping(scene, "", |other, outside| plant::symlink(outside, other));
}
}

on_routes! { embedded, tcp, ssh;
fn a_destination_that_others_change_meanwhile_converges_when_they_stop(scene) {
    for dir in 0..5 {
        for file in 0..40 {
            plant::file(scene.src().join(format!("d{dir}/f{file}")), content::noise(file, 3000));
        }
    }
    scene.push::<&str>(&[]).run().ok();
    {
        let dst = scene.dst();
        let _meddler = Flipper::repeating(move |count| {
            let dir = dst.join(format!("d{}", count % 5));
            let file = dir.join(format!("f{}", count % 40));
            match count % 7 {
                0 => drop(std::fs::remove_file(&file)),
                1 => drop(std::fs::rename(&dir, dst.join("away"))),
                2 => drop(std::fs::rename(dst.join("away"), &dir)),
                3 => drop(std::fs::write(&file, "meddled")),
                4 => drop(std::fs::create_dir(&file)),
                5 => drop(std::fs::remove_dir_all(&dir)),
                _ => drop(std::fs::write(dst.join("extra"), "meddled")),
            }
        });
        for _ in 0..10 {
            fails_at_most_for_a_reason(scene.push(&["--delete"]).run());
        }
    }
    scene.push(&["--delete"]).run().ok();
    scene.push(&["--delete"]).run().ok();
    scene.assert_arrived();
}
}
