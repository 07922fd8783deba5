//! Entries that are not regular files, and entries that change their kind.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::FileType;

use kernel_tests::scene::slash;
use kernel_tests::{Need, Scene, Tree, on_routes, plant, require, twin};

on_routes! { embedded, tcp, unix, ssh;
fn symlinks_arrive_byte_for_byte(scene) {
    let src = scene.src();
    let mut not_utf8 = b"bytes \xff\xfe\n".to_vec();
    not_utf8.push(0x80);
    let longest = "t/".repeat(2047) + "e";
    plant::dir(src.join("dir"));
    for (name, target) in [
        ("relative", OsStr::new("dir/../file")),
        ("absolute", OsStr::new("/etc/hostname")),
        ("up", OsStr::new("../../../../../..")),
        ("dangling", OsStr::new("nowhere")),
        ("loop-a", OsStr::new("loop-b")),
        ("loop-b", OsStr::new("loop-a")),
        ("itself", OsStr::new("itself")),
        ("to-dir", OsStr::new("dir")),
        ("to-dir-slash", OsStr::new("dir/")),
        ("dot", OsStr::new(".")),
        ("newline", OsStr::new("one\ntwo")),
        ("not-utf8", OsStr::from_bytes(&not_utf8)),
        ("longest", OsStr::new(&longest)),
    ] {
        plant::symlink(target, src.join(name));
    }
    plant::symlink(scene.outside(), src.join("to-outside"));
    scene.assert_pushes::<&str>(&[]);

    plant::remove(src.join("relative"));
    plant::symlink("another/target", src.join("relative"));
    let summary = scene.push(&["--json"]).run().ok().summary();
    // rsync's figures know links that are new, but none that change.
    assert_eq!(summary.files_sent, u64::from(Need::Sy.met().is_ok()));
    scene.assert_arrived();
    scene.assert_idle::<&str>(&[]);
}
}

on_routes! { embedded, tcp, unix, ssh;
fn nodes_are_made_where_the_session_may_and_else_counted(scene) {
    require!(Need::Root);
    let src = scene.src();
    plant::file(src.join("file"), "beside them");
    plant::fifo(src.join("fifo"));
    plant::node(src.join("socket"), FileType::Socket, (0, 0));
    plant::node(src.join("null"), FileType::CharacterDevice, (1, 3));
    plant::node(src.join("high"), FileType::CharacterDevice, (300, 70_000));
    plant::node(src.join("loop"), FileType::BlockDevice, (7, 0));
    let outcome = scene.push::<&str>(&[]).run().ok();
    scene.assert_arrived();
    if Need::Sy.met().is_ok() && !scene.route.has_all_rights() {
        let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
        let lines: Vec<_> = said.lines().filter(|line| line.contains('5')).collect();
        assert_eq!(lines.len(), 1, "one line counts what was skipped: {outcome}");
    }
    scene.assert_idle::<&str>(&[]);

    plant::remove(src.join("null"));
    plant::node(src.join("null"), FileType::CharacterDevice, (1, 5));
    scene.push::<&str>(&[]).run().ok();
    scene.assert_arrived();
}
}

const KINDS: [&str; 9] = [
    "file",
    "empty-dir",
    "full-dir",
    "link-to-file",
    "link-to-dir",
    "dangling",
    "fifo",
    "socket",
    "device",
];

fn plant_kind(path: &Path, kind: &str, outside: &Path) {
    match kind {
        "file" => plant::file(path, "content"),
        "empty-dir" => plant::dir(path),
        "full-dir" => {
            plant::file(path.join("child"), "in a directory");
            plant::file(path.join("sub/child"), "deeper");
        }
        "link-to-file" => plant::symlink(outside.join("file"), path),
        "link-to-dir" => plant::symlink(outside.join("dir"), path),
        "dangling" => plant::symlink("nowhere", path),
        "fifo" => plant::fifo(path),
        "socket" => plant::node(path, FileType::Socket, (0, 0)),
        "device" => plant::node(path, FileType::CharacterDevice, (1, 3)),
        _ => unreachable!(),
    }
    plant::mtime(path, 1_000_000 + kind.len() as i64, 0);
}

/// Every kind meets every kind, and rsync decides what should come of it.
fn every_kind_meets_every_kind(scene: &mut Scene, options: &[&str]) {
    let (src, dst, outside) = (scene.src(), scene.dst(), scene.outside());
    plant::dir(&dst);
    for new in KINDS {
        for old in KINDS {
            let name = format!("{old}.becomes.{new}");
            plant_kind(&src.join(&name), new, &outside);
            plant_kind(&dst.join(&name), old, &outside);
        }
    }
    plant::mtime(&src, 1_500_000_000, 0);
    plant::mtime(&dst, 1_500_000_000, 0);
    plant::copy(&dst, &scene.twin());
    let mut twin_options = options.to_vec();
    twin_options.extend(scene.twin_rights());
    let code = twin::rsync(&twin_options, &[slash(&src)], scene.twin());
    let outcome = scene.push(options).run();
    scene.assert_outside_untouched();
    // A directory in which something could not be replaced: its time is nobody's promise.
    let twin = Tree::read(scene.twin());
    twin.assert_equals(&Tree::read(&dst), &format!("beside rsync's: {outcome}"));
    outcome.exits(code);
}

on_routes! { embedded, tcp, unix, ssh;
fn any_kind_replaces_any_kind_as_rsync_does_it(scene) {
    require!(Need::Root, Need::Tool("rsync"));
    every_kind_meets_every_kind(scene, &[]);
}
}

on_routes! { embedded, tcp, unix, ssh;
fn any_kind_replaces_any_kind_with_delete_as_rsync_does_it(scene) {
    require!(Need::Root, Need::Tool("rsync"));
    every_kind_meets_every_kind(scene, &["--delete"]);
}
}

on_routes! { embedded, tcp, unix, ssh;
fn a_full_directory_in_the_way_of_a_file_is_named_and_kept(scene) {
    plant::file(scene.src().join("name"), "a file");
    plant::file(scene.src().join("other"), "another");
    plant::file(scene.dst().join("name/child"), "keep me");
    scene.push::<&str>(&[]).run().exits(23).complains(&["name"]);
    assert!(scene.dst().join("name/child").exists(), "nothing is deleted unasked");
    assert!(scene.dst().join("other").exists(), "the rest arrives");
    scene.push(&["--delete"]).run().ok();
    scene.assert_arrived();
}
}

on_routes! { embedded, tcp, unix, ssh;
fn a_symlink_in_the_way_of_a_directory_is_replaced_not_followed(scene) {
    plant::file(scene.src().join("dir/below/file"), "goes into a real directory");
    plant::dir(scene.dst());
    plant::symlink(scene.outside(), scene.dst().join("dir"));
    scene.push(&["--delete"]).run().ok();
    scene.assert_outside_untouched();
    scene.assert_arrived();
}
}

on_routes! { embedded, tcp, ssh;
fn a_dry_run_tells_of_changes_of_kind_as_the_push_does_them(scene) {
    require!(Need::Root);
    for new in ["file", "full-dir", "dangling"] {
        for old in ["file", "empty-dir", "full-dir", "dangling"] {
            let name = format!("{old}.becomes.{new}");
            plant_kind(&scene.src().join(&name), new, &scene.outside());
            plant_kind(&scene.dst().join(&name), old, &scene.outside());
        }
    }
    let before = Tree::read(scene.dst());
    let dry = scene.push(&["-n", "-i", "--delete"]).run().ok();
    before.assert_untouched(&Tree::read(scene.dst()), "dry run");
    let wet = scene.push(&["-i", "--delete"]).run().ok();
    assert_eq!(dry.itemized(), wet.itemized(), "dry: {dry}\nwet: {wet}");
    scene.assert_arrived();
}
}
