//! Ordinary pushes of ordinary trees, and what is said about them.

use std::path::Path;

use kernel_tests::variety::plant_variety;
use kernel_tests::{Need, Push, Scene, Tree, content, on_routes, plant, require, twin};

/// A little of each ordinary thing.
fn plant_hands(src: &Path) {
    plant::file(src.join("empty"), "");
    plant::dir(src.join("emptydir"));
    plant::file(src.join("filelist"), "one\ntwo\nno end of line");
    plant::symlink("filelist", src.join("nolf-symlink"));
    plant::file(src.join("text"), content::text(2 << 20));
    plant::file(
        src.join("dir/subdir/subsubdir/etc-ltr-list"),
        content::text(3000),
    );
    plant::file(
        src.join("dir/subdir/subsubdir2/bin-lt-list"),
        content::text(9000),
    );
    plant::file(src.join("dir/subdir/foobar.baz"), "foobar");
}

on_routes! { embedded, tcp, unix, ssh;
fn a_tree_arrives_and_then_follows_its_source(scene) {
    plant_hands(&scene.src());
    scene.assert_pushes::<&str>(&[]);

    plant::remove(scene.dst().join("dir/subdir/foobar.baz"));
    let summary = scene.push(&["--json"]).run().ok().summary();
    assert_eq!(summary.files_sent, 1, "only what was missing is sent");
    scene.assert_arrived();

    let mut longer = content::text(9000);
    longer.extend_from_slice(b"and a line more\n");
    plant::file(scene.dst().join("dir/subdir/subsubdir2/bin-lt-list"), longer);
    let summary = scene.push(&["--json"]).run().ok().summary();
    assert_eq!(summary.files_sent, 1, "only what had changed is sent");
    scene.assert_arrived();

    plant::file(scene.dst().join("ThisShouldGo"), "it is not in the source");
    scene.push::<&str>(&[]).run().ok();
    assert!(scene.dst().join("ThisShouldGo").exists(), "nothing is deleted unasked");
    let summary = scene.push(&["--delete", "--json"]).run().ok().summary();
    assert_eq!(summary.files_deleted, 1);
    scene.assert_pushes(&["--delete"]);
}
}

on_routes! { embedded, tcp, unix, ssh;
fn a_large_file_arrives_beside_small_ones(scene) {
    plant::file(scene.src().join("large"), content::noise(1, 40 << 20));
    plant::file(scene.src().join("zeros"), vec![0; 3 << 20]);
    for (number, len) in [0, 1, 4095, 4096, 131_071, 131_072, 131_073, 262_143, 262_144, 262_145]
        .into_iter()
        .enumerate()
    {
        plant::file(scene.src().join(format!("edge-{len}")), content::noise(number as u64, len));
    }
    scene.assert_pushes::<&str>(&[]);
}
}

on_routes! { embedded, tcp, unix, ssh;
fn many_files_in_many_directories_arrive(scene) {
    for dir in 0..60 {
        for file in 0..50 {
            let path = scene.src().join(format!("d{}/d{dir}/f{file}", dir % 7));
            plant::file(path, content::noise(dir * 100 + file, (dir * file * 7) as usize));
        }
    }
    scene.assert_pushes::<&str>(&[]);
}
}

on_routes! { embedded, tcp, ssh;
fn ten_thousand_entries_of_one_directory_arrive_and_go(scene) {
    for number in 0..10_000 {
        plant::file(scene.src().join(format!("file-{number}")), format!("{number}"));
    }
    scene.assert_pushes::<&str>(&[]);
    for number in (0..10_000).filter(|number| number % 3 != 0) {
        plant::remove(scene.src().join(format!("file-{number}")));
    }
    let summary = scene.push(&["--delete", "--json"]).run().ok().summary();
    assert_eq!(summary.files_deleted, 6666);
    scene.assert_arrived();
}
}

on_routes! { embedded, tcp, unix, ssh;
fn a_changed_middle_of_a_large_file_arrives(scene) {
    let mut bytes = content::noise(3, 20 << 20);
    plant::file(scene.src().join("large"), &bytes);
    scene.assert_pushes::<&str>(&[]);
    bytes[9_000_000..9_100_000].fill(b'x');
    bytes.splice(1_000_000..1_000_000, *b"shifted by a few bytes");
    plant::file(scene.src().join("large"), &bytes);
    scene.assert_pushes::<&str>(&[]);
}
}

on_routes! { embedded, tcp, unix, ssh;
fn an_empty_source_makes_an_empty_destination(scene) {
    plant::mtime(scene.src(), 1_000_000, 5);
    scene.assert_pushes::<&str>(&[]);
}
}

on_routes! { embedded, tcp, unix, ssh;
fn a_tree_with_everything_arrives_as_with_rsync(scene) {
    require!(Need::Root, Need::Tool("rsync"));
    plant_variety(&scene.src());
    scene.assert_pushes(&["--numeric-ids"]);
    let code = twin::rsync(scene.twin_rights(), &[slash(scene.src())], scene.twin());
    assert_eq!(code, 0);
    Tree::read(scene.twin()).assert_equals(&Tree::read(scene.dst()), "beside rsync's");
}
}

on_routes! { embedded, tcp, unix, ssh;
fn a_changed_tree_with_everything_is_mended_as_with_rsync(scene) {
    require!(Need::Root, Need::Tool("rsync"));
    plant_variety(&scene.src());
    scene.push(&["--numeric-ids"]).run().ok();
    let dst = scene.dst();
    for level in ["", "dir0", "dir0/dir with blanks 1"] {
        let dir = dst.join(level);
        plant::chmod(dir.join("text"), 0o777);
        plant::mtime(dir.join("noise"), 1, 1);
        plant::file(dir.join("empty"), "no longer");
        plant::remove(dir.join("link"));
        plant::symlink("elsewhere", dir.join("link"));
        plant::file(dir.join("extra/below"), "not in the source");
        if scene.route.has_all_rights() {
            plant::chown(dir.join("no-newline"), 7, 8);
        }
        plant::chmod(&dir, 0o751);
    }
    plant::copy(&dst, &scene.twin());
    scene.assert_pushes(&["--numeric-ids", "--delete"]);
    let mut options = vec!["--delete"];
    options.extend(scene.twin_rights());
    assert_eq!(twin::rsync(&options, &[slash(scene.src())], scene.twin()), 0);
    Tree::read(scene.twin()).assert_equals(&Tree::read(&dst), "beside rsync's");
}
}

on_routes! { embedded, tcp, unix, ssh;
fn a_dry_run_changes_nothing_and_lists_what_the_push_then_does(scene) {
    plant_hands(&scene.src());
    plant::file(scene.dst().join("filelist"), "older");
    plant::file(scene.dst().join("text"), content::text(2 << 20));
    plant::file(scene.dst().join("extra/deep/er"), "not in the source");
    plant::symlink("elsewhere", scene.dst().join("nolf-symlink"));
    plant::chmod(scene.dst(), 0o700);
    let before = Tree::read(scene.export());
    let dry = scene.push(&["-n", "-i", "--delete"]).run().ok();
    before.assert_untouched(&Tree::read(scene.export()), "dry run");
    let wet = scene.push(&["-i", "--delete"]).run().ok();
    assert!(!wet.itemized().is_empty(), "a push lists what it does: {wet}");
    assert_eq!(dry.itemized(), wet.itemized(), "listed: {dry}");
    scene.assert_arrived();
    let again = scene.push(&["-n", "-i", "--delete"]).run().ok();
    assert!(again.itemized().is_empty(), "nothing is left to do: {again}");
}
}

on_routes! { embedded, tcp, ssh;
fn a_dry_run_into_nothing_makes_nothing(scene) {
    plant_hands(&scene.src());
    let before = Tree::read(scene.export());
    scene.push(&["--dry-run", "--delete"]).run().ok();
    before.assert_untouched(&Tree::read(scene.export()), "dry run");
}
}

on_routes! { embedded, tcp, unix, ssh;
fn each_durability_brings_the_same_tree(scene) {
    plant_hands(&scene.src());
    for level in ["none", "session", "file"] {
        if scene.dst().exists() {
            plant::remove(scene.dst());
        }
        scene.assert_pushes(&[format!("--durability={level}")]);
    }
}
}

on_routes! { embedded, tcp, unix, ssh;
fn the_summary_counts_what_happened(scene) {
    plant::file(scene.src().join("one"), content::noise(1, 1000));
    plant::file(scene.src().join("dir/two"), content::noise(2, 500_000));
    plant::symlink("one", scene.src().join("link"));
    plant::file(scene.dst().join("extra"), "goes");
    let summary = scene.push(&["--json", "--delete"]).run().ok().summary();
    assert_eq!(summary.files_scanned, 3);
    assert_eq!(summary.files_sent, 3);
    assert_eq!(summary.files_deleted, 1);
    assert_eq!(summary.literal_bytes, 501_000);
    assert_eq!(summary.errors, 0);
}
}

on_routes! { embedded, tcp, ssh;
fn a_dry_run_counts_what_the_push_then_does(scene) {
    plant_hands(&scene.src());
    plant::file(scene.dst().join("text"), "older");
    let dry = scene.push(&["-n", "--json"]).run().ok().summary();
    let wet = scene.push(&["--json"]).run().ok().summary();
    assert!(dry.files_sent > 0);
    assert_eq!(dry.files_sent, wet.files_sent);
}
}

on_routes! { embedded, tcp, ssh;
fn a_directory_of_other_metadata_is_itemized(scene) {
    plant::file(scene.src().join("dir/file"), "text");
    scene.assert_pushes::<&str>(&[]);
    plant::chmod(scene.src().join("dir"), 0o700);
    let dry = scene.push(&["-n", "-i"]).run().ok();
    let wet = scene.push(&["-i"]).run().ok();
    assert_eq!(wet.itemized(), [".d...p..... dir/"], "{wet}");
    assert_eq!(dry.itemized(), wet.itemized(), "{dry}");
    scene.assert_arrived();
}
}

on_routes! { embedded, tcp, unix, ssh;
fn a_quiet_push_says_nothing_and_a_verbose_one_names_each_file(scene) {
    plant_hands(&scene.src());
    let quiet = scene.push(&["-q"]).run().ok();
    assert!(quiet.stdout.is_empty() && quiet.stderr.is_empty(), "{quiet}");
    plant::remove(scene.dst());
    let verbose = scene.push(&["-v"]).run().ok();
    let said = String::from_utf8_lossy(&verbose.stdout).into_owned();
    for name in ["empty", "dir/subdir/foobar.baz", "nolf-symlink"] {
        assert!(said.lines().any(|line| line.contains(name)), "{name} is named: {verbose}");
    }
    plant::remove(scene.dst());
    let stats = scene.push(&["--stats"]).run().ok();
    assert!(!stats.stdout.is_empty(), "--stats says something: {stats}");
}
}

on_routes! { embedded, tcp, ssh;
fn progress_goes_to_stderr_and_results_to_stdout(scene) {
    require!(Need::Sy);
    plant_hands(&scene.src());
    let silent = scene.push::<&str>(&[]).run().ok();
    assert!(silent.stderr.is_empty(), "no progress unless it is a terminal: {silent}");
    plant::remove(scene.dst());
    let told = scene.push(&["--progress", "--json"]).run().ok();
    let _ = told.summary();
}
}

on_routes! { embedded, tcp, ssh;
fn every_line_of_json_parses_whatever_the_names(scene) {
    require!(Need::Sy);
    use std::os::unix::ffi::OsStrExt;
    for name in [&b"new\nline"[..], b"quote\"", b"back\\slash", b"not utf8 \xff\xfe", b"\x1b[31m"] {
        plant::file(scene.src().join(std::ffi::OsStr::from_bytes(name)), "x");
    }
    plant::file(scene.dst().join("extra\n\"quoted\""), "x");
    let outcome = scene.push(&["--json", "--delete"]).run().ok().is_printable();
    let summary = outcome.summary();
    assert_eq!((summary.files_sent, summary.files_deleted), (5, 1));
}
}

on_routes! { embedded, tcp, unix, ssh;
fn a_missing_destination_is_made(scene) {
    plant::file(scene.src().join("file"), "text");
    scene.push_to("new").from(slash(scene.src())).run().ok();
    scene.expected(scene.src()).assert_equals(&Tree::read(scene.export().join("new")), "new");
}
}

on_routes! { embedded, tcp, ssh;
fn a_destination_below_missing_parents_is_made_whole_or_not_at_all(scene) {
    plant::file(scene.src().join("file"), "text");
    let outcome = scene.push_to("a/b/c").from(slash(scene.src())).run();
    let made = scene.export().join("a/b/c/file").exists();
    assert_eq!(made, outcome.code == Some(0), "{outcome}");
    assert!(made || !scene.export().join("a").exists(), "half a destination: {outcome}");
}
}

on_routes! { embedded, unix;
fn a_destination_may_be_the_users_own_symlink_to_a_directory(scene) {
    if scene.route == Route::Unix {
        // Inside a module nothing is followed, whoever made it.
        return a_symlink_in_a_module_is_not_followed(scene);
    }
    plant::file(scene.src().join("file"), "text");
    plant::dir(scene.export().join("real"));
    plant::symlink("real", scene.dst());
    scene.push::<&str>(&[]).run().ok();
    assert!(scene.dst().is_symlink(), "the link stays");
    scene.expected(scene.src())
        .assert_equals(&Tree::read(scene.export().join("real")), "behind the link");
}
}

on_routes! { tcp;
fn a_destination_that_is_a_symlink_in_a_module_is_not_followed(scene) {
    a_symlink_in_a_module_is_not_followed(scene);
}
}

/// A module's user must not leave it: the link is refused or replaced, what it points to is safe.
fn a_symlink_in_a_module_is_not_followed(scene: &mut Scene) {
    require!(Need::Sy);
    plant::file(scene.src().join("file"), "text");
    plant::symlink(scene.outside(), scene.dst());
    let outcome = scene.push(&["--delete"]).run();
    scene.assert_outside_untouched();
    if scene.dst().is_symlink() {
        assert_ne!(
            outcome.code,
            Some(0),
            "a refusal is not a success: {outcome}"
        );
        outcome.complains(&["dst"]);
    } else {
        scene.assert_arrived();
    }
    for below in ["dst/dir", "dst/dir/new"] {
        plant::dir(scene.export());
        let _ = std::fs::remove_dir_all(scene.dst());
        let _ = std::fs::remove_file(scene.dst());
        plant::symlink(scene.outside(), scene.dst());
        let outcome = scene.push_to(below).from(slash(scene.src())).run();
        assert_ne!(
            outcome.code,
            Some(0),
            "a path through a link is refused: {outcome}"
        );
        scene.assert_outside_untouched();
    }
}

#[test]
fn a_destination_that_is_somebody_elses_symlink_is_refused() {
    require!(Need::Root, Need::Sy);
    Scene::play(Route::Embedded, |scene| {
        plant::file(scene.src().join("file"), "text");
        plant::chmod(scene.export(), 0o1777);
        plant::symlink(scene.outside(), scene.dst());
        plant::chown(scene.dst(), 65534, 65534);
        let outcome = scene.push(&["--delete"]).run();
        assert_ne!(outcome.code, Some(0), "{outcome}");
        outcome.complains(&["dst"]);
    });
}

on_routes! { embedded, tcp, unix, ssh;
fn the_module_itself_can_be_the_destination(scene) {
    plant_hands(&scene.src());
    scene.push_to("").from(slash(scene.src())).options(&["--delete"]).run().ok();
    scene.expected(scene.src()).assert_equals(&Tree::read(scene.export()), "the module");
}
}

#[test]
fn a_relative_destination_is_taken_from_the_working_directory() {
    Scene::play(Route::Embedded, |scene| {
        plant::file(scene.src().join("file"), "text");
        Push::new("dst")
            .from("../src/")
            .in_dir(scene.export())
            .run()
            .ok();
        scene.assert_arrived();
    });
}

on_routes! { tcp, unix;
fn a_server_does_not_grow_with_the_pushes_it_served(scene) {
    plant_hands(&scene.src());
    for _ in 0..5 {
        scene.push::<&str>(&[]).run().ok();
    }
    let (fds, rss) = (scene.server().fd_count(), scene.server().rss_bytes());
    for _ in 0..40 {
        scene.push::<&str>(&[]).run().ok();
    }
    kernel_tests::guard::wait_until("descriptors to be closed", || scene.server().fd_count() <= fds);
    let grown = scene.server().rss_bytes().saturating_sub(rss);
    assert!(grown < 8 << 20, "the server grew by {grown} bytes in 40 idle pushes");
}
}

use kernel_tests::Route;
use kernel_tests::scene::slash;

on_routes! { tcp, unix;
fn a_module_is_what_stands_at_its_path_now(scene) {
    require!(Need::Sy);
    plant::file(scene.src().join("file"), "text");
    let old = scene.path().join("old");
    std::fs::rename(scene.export(), &old).expect("nobody else is there");
    plant::dir(scene.export());
    scene.push_to("").from(slash(scene.src())).run().ok();
    assert!(scene.export().join("file").exists(), "where it is now");
    assert!(!old.join("file").exists(), "not where it was at the start");
    plant::remove(scene.export());
    let push = scene.push_to("").from(slash(scene.src()));
    push.run().exits(3).complains(&["No such file"]);
    plant::symlink(&old, scene.export());
    push.run().exits(3);
    assert!(!old.join("file").exists(), "a link that came later is not followed");
    std::fs::remove_file(scene.export()).expect("it is a link");
    plant::dir(scene.export());
}
}
