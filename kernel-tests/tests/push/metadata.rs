//! Modes, owners and times.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use kernel_tests::mount::Mount;
use kernel_tests::scene::slash;
use kernel_tests::{Need, Push, Route, Scene, Tree, content, on_routes, plant, require, twin};

const MODES: [u32; 11] = [
    0o000, 0o400, 0o440, 0o500, 0o600, 0o644, 0o755, 0o1777, 0o2775, 0o4755, 0o6450,
];

/// A file and a directory with a child for each mode; `turn` shifts which gets which.
fn set_modes(src: &Path, turn: usize) {
    for index in 0..MODES.len() {
        let mode = MODES[(index + turn) % MODES.len()];
        let (file, dir) = (
            src.join(format!("file-{index}")),
            src.join(format!("dir-{index}")),
        );
        if !file.exists() {
            plant::file(&file, content::noise(index as u64, 5000));
            plant::file(dir.join("child"), "in a directory of this mode");
        }
        plant::chmod(file, mode);
        plant::chmod(dir, mode);
    }
}

on_routes! { embedded, tcp, unix, ssh;
fn every_mode_arrives_and_follows_changes_without_content(scene) {
    require!(Need::Root);
    set_modes(&scene.src(), 0);
    scene.assert_pushes::<&str>(&[]);
    set_modes(&scene.src(), 1);
    let summary = scene.push(&["--json"]).run().ok().summary();
    assert_eq!(summary.literal_bytes, 0, "a change of mode sends no content");
    scene.assert_arrived();
    scene.assert_idle::<&str>(&[]);
}
}

on_routes! { embedded, tcp, unix;
fn a_mode_is_exact_also_below_a_default_acl_that_takes_from_it(scene) {
    require!(Need::Root);
    set_modes(&scene.src(), 0);
    plant::file(scene.src().join("large"), content::noise(9, 1 << 20));
    plant::dir(scene.dst());
    plant::default_acl(scene.dst(), 0o710);
    scene.assert_pushes::<&str>(&[]);
    plant::file(scene.dst().join("found"), "by the ACL");
    let found = std::fs::metadata(scene.dst().join("found")).expect("it was just made");
    assert_eq!(found.mode() & 0o777, 0o600, "the ACL takes what it is to take");
}
}

on_routes! { embedded, unix, ssh;
fn a_file_has_its_group_also_where_new_ones_get_that_of_their_directory(scene) {
    require!(Need::Root, Need::LoopMounts);
    scene.aim_at("fs/dst");
    let mount = Mount::ext4(&scene.export().join("fs"), &scene.path().join("image"), 32 << 20, &[]);
    mount.remount("grpid");
    let groups = [0, 1234, 5678];
    for (index, dir) in ["", "own", "other", "other/below"].iter().enumerate() {
        for (file, gid) in ["a", "b", "c"].iter().zip(groups) {
            let file = scene.src().join(dir).join(file);
            plant::file(&file, "text");
            plant::chown(file, 0, gid);
        }
        plant::chown(scene.src().join(dir), 0, groups[index % groups.len()]);
    }
    plant::dir(scene.dst());
    plant::chown(scene.dst(), 0, 5678);
    plant::file(scene.dst().join("found"), "");
    let found = std::fs::metadata(scene.dst().join("found")).expect("it was just made");
    assert_eq!(found.gid(), 5678, "the directory gives what it is to give");
    scene.assert_pushes(&["--delete"]);
    scene.assert_idle(&["--delete"]);
}
}

on_routes! { embedded, tcp, unix, ssh;
fn a_mode_is_exact_also_where_the_content_changes(scene) {
    require!(Need::Root);
    set_modes(&scene.src(), 0);
    scene.push::<&str>(&[]).run().ok();
    for index in 0..MODES.len() {
        plant::file(scene.src().join(format!("file-{index}")), content::noise(50, 6000 + index));
    }
    set_modes(&scene.src(), 3);
    scene.assert_pushes::<&str>(&[]);
}
}

#[test]
fn a_destination_that_is_opened_up_for_one_file_is_closed_again() {
    require!(Need::Nobody, Need::Sy);
    Scene::play(Route::Embedded, |scene| {
        plant::file(scene.src().join("file"), "one");
        plant::dir(scene.dst());
        plant::chown(scene.dst(), scene.nobody, scene.nobody);
        plant::chmod(scene.dst(), 0o555);
        let push = Push::new(scene.dst().join("")).from(scene.src().join("file"));
        push.as_user(scene.nobody).run().ok();
        assert!(scene.dst().join("file").exists());
        let mode = scene.dst().metadata().expect("it is there").mode();
        assert_eq!(mode & 0o7777, 0o555);
    });
}

#[test]
fn a_directory_that_the_target_may_not_read_is_told_once_and_left_as_it_is() {
    require!(Need::Nobody, Need::Sy);
    Scene::play(Route::Embedded, |scene| {
        for number in 0..5 {
            plant::file(
                scene.src().join(format!("dir/{number}")),
                "newer and longer",
            );
            plant::file(scene.dst().join(format!("dir/{number}")), "older");
            let path = scene.dst().join(format!("dir/{number}"));
            plant::chown(path, scene.nobody, scene.nobody);
        }
        for path in [scene.dst(), scene.dst().join("dir")] {
            plant::chown(path, scene.nobody, scene.nobody);
        }
        plant::chmod(scene.src(), 0o755);
        plant::chmod(scene.dst().join("dir"), 0o333);
        let push = scene.push(&["--delete", "--json"]).as_user(scene.nobody);
        assert_eq!(push.run().exits(23).summary().errors, 1);
        let mode = scene
            .dst()
            .join("dir")
            .metadata()
            .expect("it is there")
            .mode();
        assert_eq!(mode & 0o7777, 0o333);
        let text = std::fs::read_to_string(scene.dst().join("dir/3"));
        assert_eq!(text.expect("root may read it"), "older");
    });
}

#[test]
fn an_ordinary_user_fills_directories_that_may_not_be_written() {
    require!(Need::Nobody);
    Scene::play(Route::Embedded, |scene| {
        let src = scene.src();
        plant::file(
            src.join("locked/inner/file"),
            "below two locked directories",
        );
        plant::file(src.join("locked/file"), "below one");
        plant::chmod(src.join("locked/inner"), 0o500);
        plant::chmod(src.join("locked"), 0o555);
        plant::chown(src.join("locked/inner"), scene.nobody, scene.nobody);
        plant::chmod(scene.export(), 0o777);
        scene.push::<&str>(&[]).as_user(scene.nobody).run().ok();
        let expected = Tree::read(&src).mapped(|node| {
            (node.uid, node.gid) = (scene.nobody, scene.nobody);
            true
        });
        expected.assert_equals(&Tree::read(scene.dst()), "as an ordinary user");

        // And again into the locked ones that are there now.
        plant::file(src.join("locked/inner/another"), "later");
        let outcome = scene.push::<&str>(&[]).as_user(scene.nobody).run();
        if scene.dst().join("locked/inner/another").exists() {
            outcome.ok();
        } else {
            outcome.exits(23).complains(&["another"]);
        }
    });
}

#[test]
fn an_ordinary_user_pushes_without_changing_owners() {
    require!(Need::Nobody);
    Scene::play(Route::Embedded, |scene| {
        let src = scene.src();
        for (name, uid, gid) in [
            ("root", 0, 0),
            ("one", 1, 1),
            ("own", scene.nobody, scene.nobody),
        ] {
            plant::file(src.join(name), name);
            plant::chown(src.join(name), uid, gid);
            plant::symlink(name, src.join(format!("{name}-link")));
        }
        plant::chmod(scene.export(), 0o777);
        let outcome = scene.push(&["--json"]).as_user(scene.nobody).run().ok();
        assert_eq!(outcome.summary().errors, 0);
        let expected = Tree::read(&src).mapped(|node| {
            (node.uid, node.gid) = (scene.nobody, scene.nobody);
            true
        });
        expected.assert_equals(&Tree::read(scene.dst()), "as an ordinary user");
        let again = scene.push(&["--json"]).as_user(scene.nobody).run().ok();
        assert_eq!(
            again.summary().files_sent,
            0,
            "owners it can't set are no reason to send"
        );
    });
}

on_routes! { embedded, tcp, unix, ssh;
fn owners_arrive_and_follow_changes_without_content(scene) {
    require!(Need::Root);
    let src = scene.src();
    for number in 0..9_u32 {
        let (file, link) = (src.join(format!("file-{number}")), src.join(format!("link-{number}")));
        let dir = src.join(format!("dir-{number}"));
        plant::file(&file, content::noise(number.into(), 3000));
        plant::symlink("anything", &link);
        plant::dir(&dir);
        for path in [&file, &link, &dir] {
            plant::chown(path, number % 3, number / 3);
        }
    }
    scene.assert_pushes(&["--numeric-ids"]);
    scene.assert_idle::<&str>(&[]);
    for number in 0..9_u32 {
        plant::chown(src.join(format!("file-{number}")), 40_000 + number, number % 2);
        plant::chown(src.join(format!("link-{number}")), number % 2, 50_000);
    }
    let summary = scene.push(&["--json"]).run().ok().summary();
    assert_eq!(summary.literal_bytes, 0, "a change of owner sends no content");
    scene.assert_arrived();
    scene.assert_idle::<&str>(&[]);
}
}

on_routes! { embedded, tcp, unix, ssh;
fn set_id_bits_never_outlive_a_change_of_owner_or_content(scene) {
    require!(Need::Root);
    let tool = scene.src().join("tool");
    plant::file(&tool, "first");
    plant::chmod(&tool, 0o4755);
    scene.assert_pushes::<&str>(&[]);
    plant::file(&tool, "second, and longer");
    plant::chown(&tool, 1, 1);
    plant::chmod(&tool, 0o755);
    scene.assert_pushes::<&str>(&[]);
}
}

on_routes! { embedded, tcp, unix, ssh;
fn times_arrive_to_the_nanosecond_and_directories_keep_theirs(scene) {
    let src = scene.src();
    let times = [
        ("ns", 1_600_000_000, 123_456_789),
        ("one-ns", 1_600_000_000, 1),
        ("last-ns", 1_600_000_000, 999_999_999),
        ("before-1970", -1_000, 250_000_000),
        ("1901", -2_147_483_648, 0),
        ("epoch", 0, 0),
        ("2038", 2_147_483_648, 7),
        ("2106", 4_294_967_296, 0),
        ("far", 9_000_000_000, 42),
    ];
    for (name, seconds, nanos) in times {
        plant::file(src.join(format!("{name}/child")), name);
        plant::symlink(name, src.join(format!("link-{name}")));
        plant::file(src.join(format!("file-{name}")), name);
        for path in [format!("{name}/child"), format!("link-{name}"), format!("file-{name}")] {
            plant::mtime(src.join(path), seconds, nanos);
        }
        plant::mtime(src.join(name), seconds, nanos);
    }
    plant::mtime(&src, 1_234_567_890, 987_654_321);
    scene.assert_pushes::<&str>(&[]);

    plant::mtime(src.join("far"), 1, 1);
    plant::mtime(src.join("far/child"), 2, 2);
    scene.push::<&str>(&[]).run().ok();
    scene.assert_arrived();
}
}

on_routes! { embedded, tcp, unix, ssh;
fn a_touched_file_of_the_same_size_is_sent_again(scene) {
    let file = scene.src().join("file");
    plant::file(&file, "one version");
    plant::mtime(&file, 1_000_000, 0);
    scene.push::<&str>(&[]).run().ok();
    plant::file(&file, "two version");
    plant::mtime(&file, 1_000_001, 0);
    scene.assert_pushes::<&str>(&[]);
}
}

on_routes! { embedded, tcp, unix, ssh;
fn a_file_of_the_same_size_and_time_is_taken_as_the_same(scene) {
    let (file, there) = (scene.src().join("file"), scene.dst().join("file"));
    plant::file(&file, "one version");
    plant::file(&there, "two version");
    for path in [&file, &there] {
        plant::mtime(path, 1_000_000, 5);
    }
    let summary = scene.push(&["--json"]).run().ok().summary();
    assert_eq!(summary.files_sent, 0);
    assert_eq!(std::fs::read(there).expect("it is there"), b"two version");
}
}

on_routes! { embedded, tcp, ssh;
fn a_file_system_with_coarse_times_is_not_sent_the_same_again(scene) {
    require!(Need::Sy, Need::LoopMounts);
    let (at, image) = (scene.export().join("fs"), scene.path().join("image"));
    let _mount = Mount::ext4(&at, &image, 16 << 20, &["-I", "128"]);
    scene.aim_at("fs/dst");
    for (name, nanos) in [("half", 500_000_000), ("whole", 0), ("almost", 999_999_999)] {
        plant::file(scene.src().join(name), content::text(1000));
        plant::mtime(scene.src().join(name), 1_500_000_000, nanos);
    }
    scene.push::<&str>(&[]).run().ok();
    let expected = scene.expected(scene.src()).mapped(|node| {
        node.mtime.1 = 0;
        true
    });
    expected.assert_equals(&Tree::read(scene.dst()), "to the second");
    let summary = scene.push(&["--json"]).run().ok().summary();
    assert_eq!(summary.literal_bytes, 0, "times that can't be kept are no reason to send");
    assert_eq!(summary.files_sent, 0, "times that can't be kept are no reason to send");
}
}

on_routes! { embedded, tcp, unix, ssh;
fn modes_do_not_depend_on_the_umask(scene) {
    require!(Need::Root);
    set_modes(&scene.src(), 0);
    let masked = ["sh", "-c", "umask 077; exec \"$@\"", "sh"];
    scene.push::<&str>(&[]).through(&masked).run().ok();
    scene.assert_arrived();
}
}

#[test]
fn names_of_owners_and_numbers_lead_to_the_same_on_one_machine() {
    require!(Need::Root, Need::Tool("rsync"));
    Scene::play(Route::Embedded, |scene| {
        for (name, id) in [("known", 1), ("unknown", 54_321)] {
            plant::file(scene.src().join(name), name);
            plant::chown(scene.src().join(name), id, id);
        }
        scene.assert_pushes::<&str>(&[]);
        assert_eq!(twin::rsync(&[], &[slash(scene.src())], scene.twin()), 0);
        Tree::read(scene.twin()).assert_equals(&Tree::read(scene.dst()), "beside rsync's");
    });
}

#[test]
fn a_push_to_another_file_system_keeps_what_it_can_hold() {
    require!(Need::Root, Need::LoopMounts);
    Scene::play(Route::Embedded, |scene| {
        let (at, image) = (scene.export().join("fs"), scene.path().join("image"));
        let mount = Mount::ext4(&at, &image, 32 << 20, &[]);
        scene.aim_at("fs/dst");
        set_modes(&scene.src(), 0);
        plant::file(scene.src().join("large"), content::noise(9, 5 << 20));
        plant::symlink("file-0", scene.src().join("link"));
        scene.push::<&str>(&[]).run().ok();
        scene.assert_arrived();
        scene.assert_idle::<&str>(&[]);
        Push::new(scene.dst())
            .from(slash(scene.src()))
            .option("--delete")
            .run()
            .ok();
        scene.assert_arrived();
        drop(mount);
        assert!(
            Tree::read(at).is_empty(),
            "it all went to the other file system"
        );
    });
}

fn names_in(dir: &Path) -> Vec<OsString> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    entries
        .map(|entry| entry.expect("an entry").file_name())
        .collect()
}

#[test]
fn a_file_arrives_in_a_directory_of_somebody_else_who_lets_others_write() {
    require!(Need::Nobody, Need::LoopMounts, Need::Sy);
    Scene::play(Route::Embedded, |scene| {
        let at = scene.export().join("fs");
        let _mount = Mount::ext4(&at, &scene.path().join("image"), 32 << 20, &[]);
        let shared = at.join("shared");
        plant::dir(&shared);
        plant::chmod(&shared, 0o777);
        plant::file(scene.src().join("file"), "text");
        for durability in ["none", "session"] {
            let push = Push::new(shared.join("file")).from(scene.src().join("file"));
            let push = push.options(&["-I", "--durability", durability]);
            push.as_user(scene.nobody).run().ok();
        }
        assert_eq!(names_in(&shared), ["file"], "and nothing else stays");
    });
}

#[test]
fn a_directory_that_nobody_may_write_to_is_synced_and_left_so() {
    require!(Need::Nobody, Need::LoopMounts, Need::Sy);
    Scene::play(Route::Embedded, |scene| {
        let at = scene.export().join("fs");
        let _mount = Mount::ext4(&at, &scene.path().join("image"), 32 << 20, &[]);
        plant::dir(at.join("theirs"));
        plant::chown(at.join("theirs"), scene.nobody, scene.nobody);
        plant::file(scene.src().join("file"), "text");
        plant::chmod(scene.src(), 0o555);
        let dest = at.join("theirs/dst");
        for number in 0..2 {
            plant::file(scene.src().join("file"), format!("text {number}"));
            let push = Push::new(&dest).from(slash(scene.src()));
            let push = push.option("--durability=session");
            push.as_user(scene.nobody).run().ok();
            assert_eq!(names_in(&dest), ["file"], "no marker stays");
            let mode = std::fs::metadata(&dest).expect("it is there").mode();
            assert_eq!(mode & 0o777, 0o555);
        }
        plant::chmod(scene.src(), 0o755);
    });
}

#[test]
fn doubt_ends_also_where_a_directory_can_not_be_looked_into() {
    require!(Need::Nobody, Need::LoopMounts, Need::Sy);
    Scene::play(Route::Embedded, |scene| {
        let at = scene.export().join("fs");
        let _mount = Mount::ext4(&at, &scene.path().join("image"), 32 << 20, &[]);
        let (dest, name) = (at.join("theirs"), ".sy.0123456789abcdef.unclean");
        plant::dir(dest.join("closed"));
        plant::chmod(dest.join("closed"), 0o644);
        // What a session leaves that did not get further.
        plant::file(dest.join(name), "");
        for path in [dest.clone(), dest.join(name)] {
            plant::chown(path, scene.nobody, scene.nobody);
        }
        plant::file(scene.src().join("file"), "text");
        let push = Push::new(&dest).from(slash(scene.src())).option("--json");
        let push = push.as_user(scene.nobody);
        for files_sent in [1, 0] {
            let summary = push.run().ok().summary();
            assert_eq!(summary.files_sent, files_sent);
        }
        assert!(
            dest.join(name).exists(),
            "what can't be seen may be in doubt"
        );
    });
}
