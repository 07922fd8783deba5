//! How sources may be named, and what several of them make together.

use std::ffi::OsString;
use std::path::Path;

use kernel_tests::scene::slash;
use kernel_tests::{Need, Push, Scene, Tree, on_routes, plant, require, twin};

/// Pushes these sources and lets rsync do the same to a twin.
#[track_caller]
fn as_rsync_does(scene: &Scene, options: &[&str], sources: &[OsString]) {
    if Need::Tool("rsync").met().is_err() {
        return kernel_tests::need::missing("rsync");
    }
    if scene.dst().exists() && !scene.twin().exists() {
        plant::copy(&scene.dst(), &scene.twin());
    }
    let mut push: Push = scene.push_to("dst").options(options);
    for source in sources {
        push = push.from(source);
    }
    let outcome = push.run();
    let mut twin_options = options.to_vec();
    twin_options.extend(scene.twin_rights());
    let code = twin::rsync(&twin_options, sources, scene.twin());
    // A destination that is not itself pushed has the time at which its entries came.
    let pushed = sources.iter().any(|source| {
        let bytes = source.as_encoded_bytes();
        bytes.ends_with(b"/") || bytes.ends_with(b"/.")
    });
    let read = |path: &Path| {
        let mut tree = Tree::read(path);
        if !pushed && path.is_dir() {
            tree.forget_root_mtime();
        }
        tree
    };
    let (twin, dst) = (read(&scene.twin()), read(&scene.dst()));
    twin.assert_equals(&dst, &format!("beside rsync's: {outcome}"));
    outcome.exits(code);
}

fn plant_source(scene: &Scene) {
    plant::file(scene.src().join("dir/file"), "text");
    plant::file(scene.src().join("top"), "text");
    plant::symlink("dir", scene.src().join("link"));
    plant::mtime(scene.src(), 1_111_111_111, 1);
}

on_routes! { embedded, tcp, unix, ssh;
fn without_a_slash_the_directory_itself_arrives(scene) {
    plant_source(scene);
    as_rsync_does(scene, &[], &[scene.src().into()]);
    assert!(scene.dst().join("src/top").exists());
}
}

on_routes! { embedded, tcp, unix, ssh;
fn with_a_slash_its_contents_arrive(scene) {
    plant_source(scene);
    as_rsync_does(scene, &[], &[slash(scene.src())]);
    assert!(scene.dst().join("top").exists());
}
}

on_routes! { embedded, tcp, ssh;
fn a_dot_and_doubled_slashes_mean_contents(scene) {
    plant_source(scene);
    let mut dotted = slash(scene.src());
    dotted.push(".");
    as_rsync_does(scene, &[], &[dotted]);
    plant::remove(scene.dst());
    plant::remove(scene.twin());
    let mut doubled = slash(scene.src());
    doubled.push("//");
    as_rsync_does(scene, &[], &[doubled]);
}
}

on_routes! { embedded, tcp, ssh;
fn the_working_directory_can_be_the_source(scene) {
    plant_source(scene);
    for source in [".", "./"] {
        scene.push_to("dst").from(source).in_dir(scene.src()).run().ok();
        scene.assert_arrived();
        plant::remove(scene.dst());
    }
    scene.push_to("dst").from("dir/..").from("dir/").in_dir(scene.src()).run().exits_one_of(&[0, 23]);
    plant::remove(scene.dst());
}
}

on_routes! { embedded, tcp, ssh;
fn symlinked_components_of_a_source_are_followed(scene) {
    plant_source(scene);
    plant::symlink(scene.src(), scene.path().join("via"));
    as_rsync_does(scene, &[], &[slash(scene.path().join("via/dir"))]);
    plant::remove(scene.dst());
    plant::remove(scene.twin());
    // With a slash the link is what it points to; without it is itself.
    as_rsync_does(scene, &[], &[slash(scene.path().join("via"))]);
    plant::remove(scene.dst());
    plant::remove(scene.twin());
    as_rsync_does(scene, &[], &[scene.path().join("via").into()]);
}
}

on_routes! { embedded, tcp, ssh;
fn the_same_source_ten_times_is_one(scene) {
    plant_source(scene);
    as_rsync_does(scene, &[], &vec![slash(scene.src()); 10]);
    as_rsync_does(scene, &["--delete"], &vec![slash(scene.src()); 10]);
    let mut push = scene.push_to("dst").option("--json");
    for _ in 0..10 {
        push = push.from(slash(scene.src()));
    }
    assert_eq!(push.run().ok().summary().files_sent, 0);
}
}

on_routes! { embedded, tcp, unix, ssh;
fn of_two_sources_the_first_wins_a_name(scene) {
    let (one, two) = (scene.path().join("one"), scene.path().join("two"));
    plant::file(one.join("file"), "from one");
    plant::file(one.join("dir/file"), "from one");
    plant::file(one.join("dir/one"), "from one");
    plant::symlink("from-one", one.join("link"));
    plant::file(two.join("file"), "from two, and longer");
    plant::file(two.join("dir/file"), "from two, and longer");
    plant::file(two.join("dir/two"), "from two");
    plant::file(two.join("link"), "from two, as a file");
    plant::chmod(one.join("dir"), 0o700);
    plant::chmod(two.join("dir"), 0o755);
    for (path, seconds) in [(&one, 1_000), (&two, 2_000)] {
        plant::mtime(path.join("dir"), seconds, 0);
        plant::mtime(path, seconds, 0);
    }
    as_rsync_does(scene, &["--delete"], &[slash(&one), slash(&two)]);
    assert_eq!(std::fs::read(scene.dst().join("file")).expect("it is there"), b"from one");
    as_rsync_does(scene, &["--delete"], &[slash(&two), slash(&one)]);
    assert_eq!(std::fs::read(scene.dst().join("dir/file")).expect("it"), b"from two, and longer");
}
}

on_routes! { embedded, tcp, ssh;
fn a_file_and_a_directory_of_one_name_become_one_of_the_two(scene) {
    let (one, two) = (scene.path().join("one"), scene.path().join("two"));
    plant::file(one.join("name"), "a file");
    plant::file(two.join("name/child"), "in a directory");
    plant::file(two.join("other"), "arrives in any case");
    for order in [[&one, &two], [&two, &one]] {
        if scene.dst().exists() {
            plant::remove(scene.dst());
        }
        let push = || {
            scene.push_to("dst").from(slash(order[0])).from(slash(order[1])).option("--delete")
        };
        let outcome = push().run().exits_one_of(&[0, 23]);
        assert!(scene.dst().join("other").exists(), "{outcome}");
        let name = scene.dst().join("name");
        assert!(name.is_file() || name.join("child").is_file(), "{outcome}");
        let before = Tree::read(scene.dst());
        push().run().exits_one_of(&[0, 23]);
        before.assert_equals(&Tree::read(scene.dst()), "again");
    }
}
}

on_routes! { embedded, tcp, unix, ssh;
fn a_single_file_goes_to_a_name_or_into_a_directory(scene) {
    plant_source(scene);
    let file: OsString = scene.src().join("top").into();
    as_rsync_does(scene, &[], std::slice::from_ref(&file));
    assert!(scene.dst().is_file(), "a name that is not there becomes the file");
    plant::file(scene.src().join("top"), "changed");
    as_rsync_does(scene, &[], std::slice::from_ref(&file));
    assert!(scene.dst().is_file(), "a file there is replaced");

    plant::remove(scene.dst());
    plant::remove(scene.twin());
    plant::dir(scene.dst());
    as_rsync_does(scene, &[], std::slice::from_ref(&file));
    assert!(scene.dst().join("top").is_file(), "a directory there is filled");

    scene.push_to("new/").from(&file).run().ok();
    assert!(scene.export().join("new/top").is_file(), "a slash asks for a directory");
}
}

on_routes! { embedded, tcp, ssh;
fn a_single_file_leaves_its_siblings_at_the_target_alone(scene) {
    plant_source(scene);
    plant::file(scene.dst().join("sibling"), "stays, whatever is pushed beside it");
    scene.push_to("dst/").from(scene.src().join("top")).option("--delete").run().exits_one_of(&[0, 1]);
    assert!(scene.dst().join("sibling").exists());
}
}

on_routes! { embedded, tcp, unix, ssh;
fn several_files_and_directories_go_into_one_directory(scene) {
    plant_source(scene);
    plant::file(scene.path().join("single"), "on its own");
    let sources: [OsString; 3] = [
        scene.path().join("single").into(),
        scene.src().join("dir").into(),
        scene.src().join("link").into(),
    ];
    as_rsync_does(scene, &[], &sources);
    as_rsync_does(scene, &["--delete"], &sources);
}
}

on_routes! { embedded, tcp, ssh;
fn several_sources_never_go_into_a_file(scene) {
    plant_source(scene);
    plant::file(scene.dst(), "a file, not a directory");
    let push = scene.push_to("dst").from(scene.src().join("top")).from(scene.src().join("dir"));
    let outcome = push.run();
    assert_ne!(outcome.code, Some(0), "{outcome}");
    outcome.complains(&["dst"]);
    assert_eq!(std::fs::read(scene.dst()).expect("it is there"), b"a file, not a directory");
}
}

#[test]
fn a_tree_pushed_into_itself_skips_the_target() {
    require!(Need::Sy);
    Scene::play(kernel_tests::Route::Embedded, |scene| {
        plant_source(scene);
        let backup = scene.src().join("backup");
        plant::dir(&backup);
        for round in 0..3 {
            let push = Push::new(&backup)
                .from(slash(scene.src()))
                .option("--delete");
            push.run().exits_one_of(&[0, 23]);
            assert!(backup.join("top").exists(), "round {round}");
            assert!(
                !backup.join("backup/top").exists(),
                "round {round}: the target is not pushed"
            );
        }
        plant::remove(&backup);
        Push::new(&backup).from(slash(scene.src())).run().ok();
        assert!(
            !backup.join("backup/backup").exists(),
            "a target made by the push itself"
        );
    });
}

on_routes! { tcp, unix;
fn a_tree_pushed_into_itself_through_a_server_skips_the_target(scene) {
    require!(Need::Sy);
    plant::file(scene.export().join("file"), "text");
    plant::file(scene.export().join("dir/file"), "text");
    plant::dir(scene.dst());
    for _ in 0..2 {
        let push = scene.push_to("dst").from(slash(scene.export()));
        push.run().ok().complains(&["dst: skipped: it is DEST itself"]);
        assert!(scene.dst().join("dir/file").exists());
        assert!(!scene.dst().join("dst/file").exists(), "the target is not pushed into itself");
    }
}
}

on_routes! { embedded, tcp, ssh;
fn a_source_pushed_onto_itself_stays_as_it_is(scene) {
    require!(Need::Sy);
    plant::file(scene.dst().join("dir/file"), "the only copy");
    let before = Tree::read(scene.dst());
    // The source is listed while the greeting travels: whichever comes first, it is refused.
    for _ in 0..20 {
        for source in [slash(scene.dst()), scene.dst().into()] {
            let push = scene.push_to("dst").from(source).option("--delete");
            push.run().exits(3).complains(&["cannot be pushed: it is DEST itself"]);
        }
        before.assert_equals(&Tree::read(scene.dst()), "pushed onto itself");
    }
}
}

on_routes! { embedded, unix;
fn a_destination_in_any_of_the_sources_is_not_sent_into_itself(scene) {
    require!(Need::Sy);
    let (one, two) = (scene.src().join("one"), scene.export());
    plant::file(one.join("out/a"), "a");
    plant::file(two.join("out/b"), "b");
    scene.aim_at("out");
    let push = |options: &[&str]| {
        let push = scene.push_to("out").from(slash(&one)).from(slash(&two));
        push.options(options)
    };
    push(&[]).run().ok();
    let there = |path: &str| scene.dst().join(path).exists();
    assert!(there("out/a") && there("b") && !there("out/b") && !there("out/out"));
    let onto = scene.push_to("out").from(slash(&one)).from(slash(scene.dst()));
    onto.options(&["--delete"]).run().exits(3);
    assert!(there("b"));
}
}
