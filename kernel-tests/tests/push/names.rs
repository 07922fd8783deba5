//! Names of any bytes, long ones, and trees deeper than a path can say.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kernel_tests::scene::slash;
use kernel_tests::{Need, Tree, deep, on_routes, plant, require, twin};

/// Names that have broken tools before.
fn awkward_names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        "A weird)name",
        " leading and trailing ",
        "'single' \"double\" `back`",
        "back\\slash",
        "new\nline",
        "tab\tand\rreturn",
        "*?[a-z]{b}",
        "-leading-dash",
        "--delete",
        "~",
        "~root",
        "$HOME;ls|&",
        "#comment",
        "%s%n%d",
        ":colon:",
        "host:path",
        "...",
        ".hidden",
        ".sy",
        "sy.tmp",
        "caf\u{e9}",
        "cafe\u{301}",
        "\u{1f980}\u{200d}\u{1f525}",
        "\u{202e}txt.exe",
        "CASE",
        "case",
    ]
    .map(|name| name.as_bytes().to_vec())
    .to_vec();
    for byte in (1..=0x1f).chain(0x7f..=0xff) {
        names.push(vec![b'x', byte]);
        names.push(vec![byte]);
    }
    names.push(vec![b'n'; 255]);
    names.push("\u{fc}".repeat(127).into_bytes());
    names
}

fn plant_awkward(dir: &Path) {
    for name in awkward_names() {
        plant::file(dir.join(OsStr::from_bytes(&name)), &name);
        let mut sub = b"d".to_vec();
        sub.extend_from_slice(&name);
        sub.truncate(255);
        plant::file(
            dir.join("dirs").join(OsStr::from_bytes(&sub)).join("child"),
            "x",
        );
        plant::symlink(
            OsStr::from_bytes(&name),
            dir.join("links").join(OsStr::from_bytes(&name)),
        );
    }
}

on_routes! { embedded, tcp, unix, ssh;
fn any_name_arrives_and_goes(scene) {
    plant_awkward(&scene.src());
    scene.assert_pushes::<&str>(&[]);
    plant::remove(scene.src());
    plant::file(scene.src().join("only"), "this is left");
    scene.assert_pushes(&["--delete"]);
}
}

on_routes! { embedded, tcp, ssh;
fn what_is_printed_about_awkward_names_is_harmless(scene) {
    require!(Need::Sy);
    plant_awkward(&scene.src());
    let lines = awkward_names().len();
    let listed = scene.push(&["-n", "-v"]).run().ok().is_printable();
    let said = String::from_utf8_lossy(&listed.stdout).lines().count();
    assert!(said >= 3 * lines, "a line for each name: {said}");
    let listed = scene.push(&["-i"]).run().ok().is_printable();
    assert!(listed.itemized().len() >= 3 * lines, "a line for each name");
    plant::remove(scene.src());
    plant::file(scene.src().join("only"), "this is left");
    scene.push(&["-v", "--delete"]).run().ok().is_printable();
}
}

on_routes! { embedded, tcp, ssh;
fn names_of_our_own_are_never_sent_and_never_deleted(scene) {
    require!(Need::Sy);
    plant::file(scene.src().join("file"), "text");
    plant::file(scene.src().join(".sy.mine"), "a name that belongs to sy");
    plant::file(scene.src().join("dir/.sy.0123456789abcdef.7.tmp"), "so does this");
    let outcome = scene.push::<&str>(&[]).run();
    outcome.exits_one_of(&[0, 23]).complains(&[".sy.mine"]);
    let expected =
        scene.expected(scene.src()).without(".sy.mine").without("dir/.sy.0123456789abcdef.7.tmp");
    expected.assert_equals(&Tree::read(scene.dst()), "all the rest");
}
}

on_routes! { embedded, tcp, unix, ssh;
fn paths_far_longer_than_the_ends_of_a_name_arrive(scene) {
    require!(Need::Tool("rsync"));
    let long = |letter: &str| letter.repeat(175);
    let dir = scene.src().join(long("a")).join(long("b")).join(long("c"));
    plant::file(dir.join("file"), "at the end");
    plant::dir(dir.join("deep"));
    deep::plant(&dir.join("deep"), 70, 3);
    scene.assert_pushes::<&str>(&[]);
    assert_eq!(twin::rsync(scene.twin_rights(), &[slash(scene.src())], scene.twin()), 0);
    Tree::read(scene.twin()).assert_equals(&Tree::read(scene.dst()), "beside rsync's");
}
}

on_routes! { embedded, tcp, unix, ssh;
fn a_tree_of_1100_levels_of_long_names_arrives_and_goes(scene) {
    // rsync itself stops at the longest path that the kernel takes.
    require!(Need::Sy);
    plant::dir(scene.src().join("top"));
    deep::plant(&scene.src().join("top"), 1100, 200);
    scene.assert_pushes::<&str>(&[]);
    plant::remove(scene.src().join("top"));
    plant::file(scene.src().join("left"), "over");
    scene.assert_pushes(&["--delete"]);
}
}

on_routes! { embedded, tcp, ssh;
fn names_are_ordered_as_bytes_on_both_sides(scene) {
    // Directories sort as if a slash ended their names in some tools; a merge that mixes the two
    // orders deletes or sends the wrong ones.
    for name in ["a", "a-b", "a.b", "a/x", "a0", "ab", "B", "b/x", "b-", "b.c/x", "b0/x"] {
        let path = if name == "a/x" { "a_/x" } else { name };
        plant::file(scene.src().join(path), name);
    }
    for name in ["a-", "a!", "a0a", "b!/x", "b-x", "b.", "c", "A", "a_a", "a^"] {
        plant::file(scene.dst().join(name), "extra");
    }
    scene.assert_pushes(&["--delete"]);
}
}
