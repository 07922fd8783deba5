//! What `--delete` removes, and above all what it does not.

use kernel_tests::scene::slash;
use kernel_tests::{Need, Push, Route, Scene, Tree, on_routes, plant, require};

on_routes! { embedded, tcp, unix, ssh;
fn a_deep_extra_file_and_an_extra_subtree_go(scene) {
    plant::file(scene.src().join("a/b/c/d/keep"), "stays");
    plant::file(scene.src().join("keep"), "stays");
    scene.push::<&str>(&[]).run().ok();
    plant::file(scene.dst().join("a/b/c/d/extra"), "goes");
    plant::file(scene.dst().join("a/b/x/y/z/extra"), "goes with its directories");
    plant::symlink("/", scene.dst().join("a/b/x/link-to-root"));
    plant::symlink(scene.outside(), scene.dst().join("link-outside"));
    plant::fifo(scene.dst().join("a/fifo"));
    let outcome = scene.push(&["--delete", "--json"]).run().ok();
    assert!(outcome.summary().files_deleted >= 5, "{outcome}");
    scene.assert_arrived();
    scene.assert_idle(&["--delete"]);
}
}

fn plant_five_extras(scene: &Scene) {
    plant::file(scene.src().join("keep"), "stays");
    scene.push::<&str>(&[]).run().ok();
    for number in 0..5 {
        plant::file(
            scene.dst().join(format!("extra-{number}")),
            "goes, if allowed",
        );
    }
}

fn extras_left(scene: &Scene) -> usize {
    Tree::read(scene.dst())
        .entries()
        .filter(|(path, _)| path.starts_with(b"extra-"))
        .count()
}

on_routes! { embedded, tcp, unix, ssh;
fn no_more_is_deleted_than_allowed(scene) {
    plant_five_extras(scene);
    plant::file(scene.src().join("new"), "arrives all the same");
    scene.push(&["--delete", "--max-delete=2"]).run().hits_the_limit();
    assert_eq!(extras_left(scene), 3);
    assert!(scene.dst().join("new").exists());
    scene.push(&["--delete", "--max-delete", "3"]).run().ok();
    scene.assert_arrived();
}
}

on_routes! { embedded, tcp, unix, ssh;
fn a_limit_of_zero_deletes_nothing(scene) {
    plant_five_extras(scene);
    scene.push(&["--delete", "--max-delete=0"]).run().hits_the_limit();
    assert_eq!(extras_left(scene), 5);
}
}

on_routes! { embedded, tcp, ssh;
fn a_limit_counts_what_is_inside_an_extra_directory(scene) {
    plant::file(scene.src().join("keep"), "stays");
    scene.push::<&str>(&[]).run().ok();
    for number in 0..10 {
        plant::file(scene.dst().join(format!("extra/{number}")), "one of ten");
    }
    scene.push(&["--delete", "--max-delete=4"]).run().hits_the_limit();
    let left = Tree::read(scene.dst().join("extra")).len();
    assert_eq!(left, 6, "four of ten went");
}
}

on_routes! { embedded, tcp, unix, ssh;
fn a_dry_run_lists_the_deletions_that_the_push_then_does(scene) {
    plant::file(scene.src().join("keep/file"), "stays");
    scene.push::<&str>(&[]).run().ok();
    for number in 0..20 {
        plant::file(scene.dst().join(format!("keep/extra-{number}")), "goes");
        plant::file(scene.dst().join(format!("extra/{}/{number}", number % 3)), "goes");
    }
    plant::symlink("nowhere", scene.dst().join("extra/link"));
    let before = Tree::read(scene.dst());
    let dry = scene.push(&["-n", "-i", "--delete"]).run().ok();
    before.assert_untouched(&Tree::read(scene.dst()), "dry run");
    let wet = scene.push(&["-i", "--delete"]).run().ok();
    let deleted = |lines: &[String]| -> Vec<String> {
        lines.iter().filter(|line| line.starts_with("*deleting")).cloned().collect()
    };
    assert_eq!(deleted(&dry.itemized()), deleted(&wet.itemized()));
    assert_eq!(deleted(&wet.itemized()).len(), 20 + 20 + 3 + 1 + 1, "{wet}");
    scene.assert_arrived();
}
}

on_routes! { embedded, tcp, ssh;
fn a_dry_run_knows_the_limit_of_deletions(scene) {
    plant_five_extras(scene);
    let before = Tree::read(scene.dst());
    scene.push(&["-n", "--delete", "--max-delete=2"]).run().hits_the_limit();
    before.assert_untouched(&Tree::read(scene.dst()), "dry run");
}
}

on_routes! { embedded, tcp, unix, ssh;
fn extra_files_and_directories_that_are_read_only_go(scene) {
    plant::file(scene.src().join("keep"), "stays");
    scene.push::<&str>(&[]).run().ok();
    plant::file(scene.dst().join("locked/inner/file"), "read-only, in read-only directories");
    plant::file(scene.dst().join("file"), "read-only");
    for (path, mode) in [("locked/inner/file", 0o400), ("file", 0o000), ("locked/inner", 0o555)] {
        plant::chmod(scene.dst().join(path), mode);
    }
    plant::chmod(scene.dst().join("locked"), 0o500);
    scene.push(&["--delete"]).run().ok();
    scene.assert_arrived();
}
}

#[test]
fn an_ordinary_user_deletes_read_only_extras_as_with_rsync() {
    require!(Need::Nobody, Need::Tool("rsync"));
    Scene::play(Route::Embedded, |scene| {
        plant::file(scene.src().join("keep"), "stays");
        plant::file(scene.dst().join("keep"), "older");
        plant::file(scene.dst().join("file"), "read-only");
        plant::file(
            scene.dst().join("locked/inner/file"),
            "in read-only directories",
        );
        plant::chmod(scene.dst().join("file"), 0o400);
        plant::chmod(scene.dst().join("locked/inner"), 0o555);
        plant::chmod(scene.dst().join("locked"), 0o500);
        for path in [
            "",
            "keep",
            "file",
            "locked",
            "locked/inner",
            "locked/inner/file",
        ] {
            plant::chown(scene.dst().join(path), scene.nobody, scene.nobody);
        }
        plant::chmod(scene.export(), 0o777);
        let parent = scene.path().join("twins");
        plant::copy(&scene.export(), &parent);
        let mut words: Vec<std::ffi::OsString> = kernel_tests::push::as_user(scene.nobody)
            .map(Into::into)
            .into();
        words.push("rsync".into());
        words.extend(kernel_tests::twin::AS_SY.map(Into::into));
        words.push("--delete".into());
        words.extend([slash(scene.src()), parent.join("dst").into()]);
        let twin = kernel_tests::push::start(&words, None).wait();
        let outcome = scene.push(&["--delete"]).as_user(scene.nobody).run();
        Tree::read(parent.join("dst")).assert_equals(&Tree::read(scene.dst()), "beside rsync's");
        outcome.exits(twin.code.expect("rsync exits"));
    });
}

on_routes! { embedded, tcp, unix, ssh;
fn thousands_of_extra_files_go(scene) {
    plant::file(scene.src().join("keep"), "stays");
    scene.push::<&str>(&[]).run().ok();
    for number in 0..6000 {
        let path = scene.dst().join(format!("extra/{}/{}/{number}", number % 11, number % 13));
        plant::file(path, "");
    }
    for number in 0..3000 {
        plant::file(scene.dst().join(format!("extra-{number}")), "");
    }
    let summary = scene.push(&["--delete", "--json"]).run().ok().summary();
    assert_eq!(summary.files_deleted, 6000 + 3000 + 1 + 11 + 143, "files and directories");
    scene.assert_arrived();
}
}

on_routes! { embedded, tcp, unix, ssh;
fn an_empty_source_empties_nothing_unless_told_so(scene) {
    require!(Need::Sy);
    plant::file(scene.dst().join("precious/file"), "all there is");
    let before = Tree::read(scene.dst());
    let outcome = scene.push(&["--delete"]).run();
    assert_ne!(outcome.code, Some(0), "{outcome}");
    outcome.complains(&["--allow-empty-source", "src"]);
    before.assert_equals(&Tree::read(scene.dst()), "after the refusal");
    scene.push(&["--delete", "--allow-empty-source"]).run().ok();
    scene.assert_arrived();
}
}

on_routes! { embedded, tcp, ssh;
fn a_missing_source_deletes_nothing(scene) {
    plant::file(scene.dst().join("precious/file"), "all there is");
    let before = Tree::read(scene.dst());
    plant::remove(scene.src());
    let outcome = scene.push(&["--delete"]).run();
    assert_ne!(outcome.code, Some(0), "{outcome}");
    outcome.complains(&["src", "No such file"]);
    before.assert_equals(&Tree::read(scene.dst()), "after the failure");
    plant::dir(scene.src());
}
}

on_routes! { embedded, tcp, ssh;
fn one_missing_source_of_two_deletes_nothing(scene) {
    plant::file(scene.src().join("file"), "text");
    plant::file(scene.dst().join("precious/file"), "perhaps the missing source has it");
    let missing = scene.path().join("missing");
    let push = scene.push(&["--delete"]).from(slash(&missing));
    push.run().exits(23).complains(&["missing", "No such file"]);
    assert!(scene.dst().join("precious/file").exists());
    assert!(scene.dst().join("file").exists(), "the other source arrives");
}
}

// Not by ssh, which refuses a user without a name.
on_routes! { embedded, tcp;
fn nothing_is_deleted_below_or_after_a_directory_that_cannot_be_read(scene) {
    require!(Need::Nobody);
    for dir in ["aaa", "mmm", "zzz"] {
        plant::file(scene.src().join(dir).join("file"), "text");
        plant::file(scene.dst().join(dir).join("file"), "text");
        plant::file(scene.dst().join(dir).join("extra"), "is it?");
        plant::file(scene.dst().join(dir).join("sub/extra"), "is it?");
    }
    plant::chmod(scene.src().join("aaa"), 0o000);
    for path in [scene.export(), scene.dst()] {
        plant::chmod(path, 0o777);
    }
    if scene.route == Route::Embedded {
        let tree = Tree::read(scene.dst());
        for (path, _) in tree.entries() {
            use std::os::unix::ffi::OsStrExt;
            plant::chown(scene.dst().join(std::ffi::OsStr::from_bytes(&path)), scene.nobody, scene.nobody);
        }
    }
    let outcome = scene.push(&["--delete"]).as_user(scene.nobody).run();
    outcome.exits(23).complains(&["aaa", "Permission denied", "--delete removed nothing more"]);
    for dir in ["aaa", "mmm", "zzz"] {
        for path in ["extra", "sub/extra"] {
            let path = scene.dst().join(dir).join(path);
            assert!(path.exists(), "deleted after the error: {}", path.display());
        }
    }
    assert!(scene.dst().join("aaa/file").exists());
}
}

on_routes! { embedded, tcp, unix, ssh;
fn deletion_sees_all_sources_together(scene) {
    let (one, two) = (scene.path().join("one"), scene.path().join("two"));
    plant::file(one.join("from-one"), "1");
    plant::file(one.join("shared/one"), "1");
    plant::file(two.join("from-two"), "2");
    plant::file(two.join("shared/two"), "2");
    plant::file(scene.dst().join("shared/extra"), "goes");
    plant::file(scene.dst().join("extra"), "goes");
    scene.push_to("dst").from(slash(&one)).from(slash(&two)).option("--delete").run().ok();
    let names: Vec<_> = Tree::read(scene.dst())
        .entries()
        .map(|(path, _)| String::from_utf8(path).expect("names of ours"))
        .collect();
    assert_eq!(names, ["", "from-one", "from-two", "shared", "shared/one", "shared/two"]);
}
}

on_routes! { embedded, tcp, unix, ssh;
fn what_lies_beside_a_pushed_directory_stays(scene) {
    plant::file(scene.src().join("file"), "text");
    plant::file(scene.dst().join("beside"), "is not in what is pushed");
    plant::file(scene.dst().join("src/extra"), "goes");
    // Without a slash the source is a directory in the destination, and only that is compared.
    scene.push_to("dst").from(scene.src()).option("--delete").run().ok();
    assert!(scene.dst().join("beside").exists());
    scene.expected(scene.src()).assert_equals(&Tree::read(scene.dst().join("src")), "dst/src");
}
}

#[test]
fn a_mount_point_in_the_way_of_deletion_is_kept() {
    require!(Need::Mounts);
    Scene::play(Route::Embedded, |scene| {
        plant::file(scene.src().join("keep"), "stays");
        let at = scene.dst().join("extra/mounted");
        plant::dir(&at);
        let mount = kernel_tests::mount::Mount::tmpfs(&at, "size=1m");
        scene.push(&["--delete"]).run().exits_one_of(&[23, 0]);
        assert!(at.exists(), "a mount point can't be removed");
        drop(mount);
        Push::new(scene.dst())
            .from(slash(scene.src()))
            .option("--delete")
            .run()
            .ok();
        scene.assert_arrived();
    });
}
