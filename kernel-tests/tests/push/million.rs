//! A million files, in two shapes. On demand, for they take minutes, 2.1 million inodes and 9 GiB
//! of tmpfs: `cargo test --release -p kernel-tests --test push million -- --ignored --test-threads=1`.
//! What it costs is in the bench's rows `many-ssh`, `many-same` and `one-dir-same`.

use kernel_tests::{Route, Scene, plant};

const FILES: u64 = 1_000_000;

/// Push, push again, and again when one file of a hundred has gone.
fn a_million_files(route: Route, dirs: u64) {
    Scene::play(route, |scene| {
        let path = |number: u64| scene.src().join(format!("d{}/f{number:06}", number % dirs));
        for dir in 0..dirs {
            plant::dir(scene.src().join(format!("d{dir}")));
        }
        for number in 0..FILES {
            std::fs::write(path(number), number.to_string()).expect("a file can be made");
        }
        let summary = scene.push(&["--json"]).run().ok().summary();
        assert_eq!(summary.files_sent, FILES);
        scene.assert_arrived();
        scene.assert_idle::<&str>(&[]);

        for number in (0..FILES).step_by(100) {
            plant::remove(path(number));
        }
        let summary = scene.push(&["--delete", "--json"]).run().ok().summary();
        assert_eq!(
            (summary.files_sent, summary.files_deleted),
            (0, FILES / 100)
        );
        scene.assert_arrived();
    });
}

#[test]
#[ignore = "minutes and 2.1 million inodes"]
fn a_million_files_in_ten_directories_arrive_stay_and_go_by_ssh() {
    a_million_files(Route::Ssh, 10);
}

#[test]
#[ignore = "minutes and 2.1 million inodes"]
fn a_million_files_in_ten_directories_arrive_stay_and_go_by_tcp() {
    a_million_files(Route::Tcp, 10);
}

#[test]
#[ignore = "minutes and 2.1 million inodes"]
fn a_million_files_in_one_directory_arrive_stay_and_go_by_ssh() {
    a_million_files(Route::Ssh, 1);
}
