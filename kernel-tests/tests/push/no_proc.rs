//! Hosts, or chroots, without /proc.

use std::ffi::OsString;

use kernel_tests::mount::Mount;
use kernel_tests::scene::slash;
use kernel_tests::{Need, Push, Route, Scene, Tree, plant, require};

/// The words that run the rest of a command where there is no /proc.
const WITHOUT_PROC: [&str; 5] = [
    "unshare",
    "--mount",
    "sh",
    "-c",
    "umount -l /proc && exec \"$0\" \"$@\"",
];

// A marker tells one boot from the next by a number that stands in /proc.
#[test]
fn what_an_earlier_process_left_is_not_believed_where_nobody_tells_the_boot() {
    require!(Need::Sy, Need::LoopMounts, Need::Tool("unshare"));
    Scene::play(Route::Embedded, |scene| {
        let at = scene.path().join("disk");
        let _disk = Mount::ext4(&at, &scene.path().join("image"), 64 << 20, &[]);
        for number in 0..20 {
            plant::file(
                scene.src().join(format!("f{number}")),
                format!("content {number}"),
            );
        }
        let dest: OsString = at.join("dst").into();
        let push = Push::new(dest).from(slash(scene.src()));
        let damage = || {
            let path = at.join("dst/f7");
            let node = Tree::read(&path);
            let (_, node) = node.entries().next().expect("a file");
            plant::file(&path, "damaged 7");
            let (seconds, nanos) = node.mtime;
            plant::mtime(
                &path,
                seconds,
                u32::try_from(nanos).expect("below a second"),
            );
        };
        let is_mended = || {
            let now = std::fs::read(at.join("dst/f7")).expect("it is there");
            now == b"content 7"
        };
        push.run().ok();
        damage();
        push.run().ok();
        assert!(!is_mended(), "no crash, and its size and time agree");
        push.clone().through(&WITHOUT_PROC).run().ok();
        assert!(is_mended(), "whose marker that is, nobody knows");
        damage();
        push.clone().through(&WITHOUT_PROC).run().ok();
        assert!(is_mended(), "nor whose this is");
        let expected = Tree::read(scene.src());
        expected.assert_equals(&Tree::read(at.join("dst")), "without /proc");
    });
}
