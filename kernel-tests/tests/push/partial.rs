//! Large files whose push broke off: what arrived of them, and how the next push goes on.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use kernel_tests::held::Held;
use kernel_tests::{Need, Scene, Tree, content, guard, on_routes, plant, require};

const MIB: u64 = 1 << 20;
const FILE_BYTES: u64 = 12 * MIB;
/// Where a push is held, of the bytes that travel.
const HELD_BYTES: u64 = 7 * MIB;
/// What may arrive later than that: chunks on their way, at either end.
const SLACK_BYTES: u64 = 4 * MIB;
/// What may travel twice: the block at the end of what arrived, and chunks that came out of order.
const TWICE_BYTES: u64 = 2 * MIB + MIB / 4;

/// Where what arrived of a file is kept.
fn partial_of(file: &Path) -> PathBuf {
    let name = file
        .file_name()
        .expect("a file has a name")
        .as_encoded_bytes();
    file.with_file_name(format!(".sy.{:032x}.partial", content::digest(name)))
}

fn bytes_of(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

/// A file that is pushed in two attempts.
fn plant_large(scene: &Scene, name: &str, seed: u64) -> PathBuf {
    plant::file(
        scene.src().join(name),
        content::noise(seed, FILE_BYTES as usize),
    );
    scene.dst().join(name)
}

fn wait_for_partial(file: &Path) -> u64 {
    let partial = partial_of(file);
    guard::wait_until("what arrived to be kept", || partial.exists());
    let kept = bytes_of(&partial);
    assert!(
        (HELD_BYTES - SLACK_BYTES..FILE_BYTES).contains(&kept),
        "{kept} bytes were kept"
    );
    kept
}

/// The next push sends what is missing of a file, and nothing is left beside it.
#[track_caller]
fn assert_goes_on(scene: &Scene, kept: u64) {
    let summary = scene.push(&["--partial", "--json"]).run().ok().summary();
    assert!(
        summary.literal_bytes <= FILE_BYTES - kept + TWICE_BYTES,
        "{kept} kept, {summary:?}"
    );
    assert_eq!(
        summary.literal_bytes + summary.matched_bytes,
        FILE_BYTES,
        "{summary:?}"
    );
    scene.assert_arrived();
    scene.assert_no_litter();
}

on_routes! { tcp;
fn a_push_whose_client_is_ended_is_gone_on_from(scene) {
    require!(Need::Sy);
    for (signal, seed) in [(Signal::TERM, 1), (Signal::INT, 2), (Signal::KILL, 3)] {
        let file = plant_large(scene, "f", seed);
        let held = Held::start(scene, &["--partial"], HELD_BYTES);
        let outcome = held.signal(signal);
        assert_ne!(outcome.code, Some(0), "{signal:?}: {outcome}");
        let kept = wait_for_partial(&file);
        assert!(!file.exists(), "{signal:?}: half a file has the name");
        assert_goes_on(scene, kept);
        plant::remove(&file);
    }
}
}

on_routes! { tcp;
fn a_push_whose_server_is_ended_is_gone_on_from(scene) {
    require!(Need::Sy);
    for (signal, seed) in [(Signal::TERM, 4), (Signal::KILL, 5)] {
        let file = plant_large(scene, "f", seed);
        let held = Held::start(scene, &["--partial"], HELD_BYTES);
        scene.server().signal(signal);
        scene.server().wait();
        let outcome = held.finish();
        assert_ne!(outcome.code, Some(0), "{signal:?}: {outcome}");
        // Who was killed has kept nothing: its temp file is found by the next push.
        let kept = if signal == Signal::TERM {
            wait_for_partial(&file)
        } else {
            let litter = Tree::read(scene.dst()).litter();
            assert!(litter.len() == 1 && litter[0].ends_with(".tmp"), "{litter:?}");
            bytes_of(&scene.dst().join(&litter[0]))
        };
        assert!(kept >= HELD_BYTES - SLACK_BYTES, "{signal:?}: {kept} bytes");
        scene.server().start();
        assert_goes_on(scene, kept);
        plant::remove(&file);
    }
}
}

on_routes! { tcp;
fn without_the_option_nothing_is_kept_and_all_is_sent_again(scene) {
    require!(Need::Sy);
    let file = plant_large(scene, "f", 6);
    for by_server in [false, true] {
        let held = Held::start(scene, &[], HELD_BYTES);
        if by_server {
            scene.server().kill();
            held.finish().exits(10);
            scene.server().start();
        } else {
            held.signal(Signal::TERM).exits(20);
            guard::wait_until("temporary files to go", || Tree::read(scene.dst()).litter().is_empty());
        }
        let summary = scene.push(&["--json"]).run().ok().summary();
        assert_eq!((summary.literal_bytes, summary.matched_bytes), (FILE_BYTES, 0));
        scene.assert_arrived();
        scene.assert_no_litter();
        plant::remove(&file);
    }
}
}

// Several files are under way at once. One that was kept waits for its turn to be given up, too.
on_routes! { tcp;
fn files_that_broke_off_together_go_on_together(scene) {
    require!(Need::Sy);
    let files = [plant_large(scene, "one", 7), plant_large(scene, "other", 8)];
    Held::start(scene, &["--partial"], 2 * HELD_BYTES).signal(Signal::KILL);
    let partials = files.each_ref().map(|file| partial_of(file));
    guard::wait_until("both to be kept", || partials.iter().all(|partial| partial.exists()));
    let kept: u64 = partials.iter().map(|partial| bytes_of(partial)).sum();
    assert!(kept >= 2 * HELD_BYTES - 2 * SLACK_BYTES, "{kept} bytes were kept");
    let summary = scene.push(&["--partial", "--json"]).run().ok().summary();
    assert!(summary.literal_bytes <= 2 * (FILE_BYTES + TWICE_BYTES) - kept, "{kept} kept, {summary:?}");
    scene.assert_arrived();
    scene.assert_no_litter();
}
}

// Breaks off again and again: each attempt gets further, and none loses what the one before it had.
on_routes! { tcp;
fn a_push_that_breaks_off_again_keeps_the_more(scene) {
    require!(Need::Sy);
    let file = plant_large(scene, "f", 9);
    Held::start(scene, &["--partial"], HELD_BYTES).signal(Signal::KILL);
    let first = wait_for_partial(&file);
    // Copies take no room on the wire: it is held where the rest has begun.
    let outcome = Held::start(scene, &["--partial"], 2 * MIB).signal(Signal::KILL);
    assert_ne!(outcome.code, Some(0), "{outcome}");
    let partial = partial_of(&file);
    guard::wait_until("more to be kept", || bytes_of(&partial) > first);
    let second = bytes_of(&partial);
    // And before it: what was kept stays.
    Held::start(scene, &["--partial"], 1024).signal(Signal::KILL);
    guard::wait_until("temporary files to go", || Tree::read(scene.dst()).litter().len() == 1);
    assert_eq!(bytes_of(&partial), second);
    assert_goes_on(scene, second);
}
}

on_routes! { tcp, embedded;
fn a_source_that_changed_meanwhile_arrives_as_it_is_now(scene) {
    let file = plant_large(scene, "f", 10);
    let mut new = content::noise(10, FILE_BYTES as usize);
    plant::file(partial_of(&file), &new[..8 * MIB as usize]);
    new[3 * MIB as usize..][..5000].fill(b'x');
    new.splice(..0, *b"and more");
    plant::file(scene.src().join("f"), &new);
    let summary = scene.push(&["--partial", "--json"]).run().ok().summary();
    assert!(summary.matched_bytes >= 7 * MIB, "{summary:?}");
    scene.assert_arrived();
    scene.assert_no_litter();
}
}

// A path gets whole files, but not where a part of one is there; with -W there too.
on_routes! { embedded, tcp, unix, ssh;
fn a_part_is_used_by_any_way_unless_whole_files_are_asked_for(scene) {
    let file = plant_large(scene, "sub/f", 11);
    let part = content::noise(11, 8 * MIB as usize);
    for (options, is_used) in [
        (&["--partial", "--json"][..], true),
        (&["-P", "--json"], true),
        (&["--partial", "-W", "--json"], false),
        (&["--json"], false),
    ] {
        plant::file(partial_of(&file), &part);
        let summary = scene.push(options).run().ok().summary();
        assert_eq!(summary.matched_bytes > 7 * MIB, is_used, "{options:?}: {summary:?}");
        scene.assert_arrived();
        // Whoever brings the file, its part has no more use.
        scene.assert_no_litter();
        plant::remove(&file);
    }
}
}

on_routes! { tcp, embedded;
fn a_part_goes_before_an_old_version(scene) {
    let file = plant_large(scene, "f", 12);
    plant::file(&file, content::noise(13, 2 * MIB as usize));
    plant::file(partial_of(&file), content::noise(12, 8 * MIB as usize));
    assert_goes_on(scene, 8 * MIB);
}
}

// Of a file that is an old version for the most part the rest is there as well: no part is kept of it.
// As when a push goes by content: the verdict comes after the listing.
on_routes! { tcp, embedded;
fn a_part_is_used_where_content_decides(scene) {
    require!(Need::Sy);
    let file = plant_large(scene, "f", 30);
    let new = content::noise(30, FILE_BYTES as usize);
    plant::file(&file, content::noise(31, FILE_BYTES as usize));
    plant::file(partial_of(&file), &new[..8 * MIB as usize]);
    let summary = scene.push(&["-c", "--partial", "--json"]).run().ok().summary();
    assert!(summary.matched_bytes >= 8 * MIB - TWICE_BYTES, "{summary:?}");
    scene.assert_arrived();
    scene.assert_no_litter();
}
}

on_routes! { tcp;
fn a_longer_part_is_not_replaced_by_a_shorter_one_that_knew_nothing_of_it(scene) {
    require!(Need::Sy);
    let file = plant_large(scene, "f", 32);
    let partial = partial_of(&file);
    plant::file(&partial, &content::noise(32, FILE_BYTES as usize)[..11 * MIB as usize]);
    let held = Held::start(scene, &["--partial", "-W"], HELD_BYTES);
    held.signal(Signal::TERM).exits(20);
    guard::wait_until("the temporary file to go", || Tree::read(scene.dst()).litter().len() == 1);
    assert_eq!(bytes_of(&partial), 11 * MIB);
    assert_goes_on(scene, 11 * MIB);
}
}

on_routes! { tcp;
fn what_an_old_version_gave_is_not_kept(scene) {
    require!(Need::Sy);
    let old = content::noise(14, FILE_BYTES as usize);
    let mut new = old.clone();
    for at in (0..FILE_BYTES as usize).step_by(2 * MIB as usize) {
        new[at..at + MIB as usize / 2].copy_from_slice(&content::noise(at as u64, MIB as usize / 2));
    }
    let file = scene.dst().join("f");
    plant::file(scene.src().join("f"), &new);
    plant::file(&file, &old);
    plant::mtime(&file, 1_000_000, 0);
    Held::start(scene, &["--partial"], 2 * MIB).signal(Signal::KILL);
    guard::wait_until("temporary files to go", || Tree::read(scene.dst()).litter().is_empty());
    let summary = scene.push(&["--partial", "--json"]).run().ok().summary();
    assert!(summary.literal_bytes <= 3 * MIB + MIB / 2, "{summary:?}");
    scene.assert_arrived();
}
}

/// A file that nobody may touch, and that has the first bytes of the source's.
fn sentinel_of(scene: &Scene) -> PathBuf {
    scene.path().join("sentinel").join("f")
}

/// A part that is not what it should be.
struct Plant {
    what: &'static str,
    make: fn(&Scene, &Path),
    /// It is ours, and goes when the file is there.
    goes: bool,
}

const PLANTS: &[Plant] = &[
    Plant {
        what: "wrong bytes",
        make: |_, at| plant::file(at, content::noise(99, 8 * MIB as usize)),
        goes: true,
    },
    Plant {
        what: "zeros",
        make: |_, at| plant::sparse(at, 8 * MIB),
        goes: true,
    },
    Plant {
        what: "longer than the file",
        make: |_, at| plant::file(at, content::noise(15, 20 * MIB as usize)),
        goes: true,
    },
    Plant {
        what: "empty",
        make: |_, at| plant::file(at, ""),
        goes: true,
    },
    Plant {
        what: "a symlink",
        make: |scene, at| plant::symlink(sentinel_of(scene), at),
        goes: false,
    },
    Plant {
        what: "a symlink to nothing",
        make: |scene, at| plant::symlink(scene.path().join("absent"), at),
        goes: false,
    },
    Plant {
        what: "a directory",
        make: |_, at| plant::file(at.join("in it"), "stays"),
        goes: false,
    },
    Plant {
        what: "a fifo",
        make: |_, at| plant::fifo(at),
        goes: false,
    },
    Plant {
        what: "a second name",
        make: |scene, at| {
            std::fs::hard_link(sentinel_of(scene), at).expect("one file system");
        },
        goes: true,
    },
];

on_routes! { embedded, tcp, ssh;
fn what_is_planted_where_a_part_would_be_spoils_nothing(scene) {
    let file = plant_large(scene, "f", 15);
    let outside = sentinel_of(scene);
    for Plant { what, make, goes } in PLANTS {
        println!("{what}");
        // The very bytes of the source: only what it is speaks against it.
        plant::file(&outside, content::noise(15, 8 * MIB as usize));
        let before = Tree::read(outside.parent().expect("a directory"));
        let partial = partial_of(&file);
        plant::dir(scene.dst());
        make(scene, &partial);
        let summary = scene.push(&["--partial", "--json"]).run().ok().summary();
        if *what != "longer than the file" {
            assert_eq!(summary.matched_bytes, 0, "{what}: {summary:?}");
        }
        before.assert_equals(&Tree::read(outside.parent().expect("a directory")), what);
        assert_eq!(std::fs::symlink_metadata(&partial).is_err(), *goes, "{what}");
        if !goes {
            plant::remove(&partial);
            scene.push::<&str>(&[]).run().ok(); // The directory's time is ours to spoil, not sy's.
        }
        scene.assert_arrived();
        plant::remove(&file);
    }
}
}

on_routes! { embedded, tcp;
fn a_part_that_belongs_to_another_is_let_alone(scene) {
    require!(Need::Root);
    let file = plant_large(scene, "f", 16);
    let partial = partial_of(&file);
    plant::file(&partial, content::noise(16, 8 * MIB as usize));
    plant::chown(&partial, scene.nobody, scene.nobody);
    let summary = scene.push(&["--partial", "--json"]).run().ok().summary();
    assert_eq!(summary.matched_bytes, 0, "{summary:?}");
    assert_eq!(bytes_of(&partial), 8 * MIB, "it is not ours to remove");
    plant::remove(&partial);
    scene.push::<&str>(&[]).run().ok();
    scene.assert_arrived();
}
}

// What a dead session's temp file would be called leads to a file that is somebody's.
on_routes! { embedded, tcp;
fn a_link_planted_as_a_dead_sessions_temp_file_is_not_touched(scene) {
    require!(Need::Sy);
    plant::file(scene.src().join("small"), "small");
    let outside = scene.path().join("outside-file");
    plant::file(&outside, content::noise(33, MIB as usize));
    plant::mtime(&outside, 1_000_000, 5);
    plant::dir(scene.dst());
    let hash = content::digest(b"f");
    let temp = scene.dst().join(format!(".sy.00000000000000ab.1.{hash:032x}.tmp"));
    std::fs::hard_link(&outside, &temp).expect("it has another name");
    scene.push(&["--partial"]).run().ok();
    let meta = std::fs::metadata(&outside).expect("it is there");
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_000_000, 5));
    assert!(!temp.exists() && !partial_of(&scene.dst().join("f")).exists());
}
}

// Nobody goes on from it after a week; a push that has nothing to do removes it, too.
on_routes! { embedded, tcp;
fn a_part_expires_after_a_week(scene) {
    plant::file(scene.src().join("small"), "small");
    scene.push(&["--partial"]).run().ok();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("later").as_secs();
    let partial = partial_of(&scene.dst().join("gone"));
    for options in [&["--partial"][..], &[]] {
        for (days, is_there) in [(6, true), (8, false)] {
            let before = std::fs::metadata(scene.dst()).expect("it is there").mtime();
            plant::file(&partial, content::noise(17, MIB as usize));
            plant::mtime(&partial, now as i64 - days * 86_400, 0);
            plant::mtime(scene.dst(), before, 0);
            scene.push(options).run().ok();
            assert_eq!(partial.exists(), is_there, "{days} days, {options:?}");
        }
    }
}
}

// Names of sy's own are never deleted as extra, and never sent.
on_routes! { embedded, tcp;
fn parts_are_neither_deleted_nor_sent(scene) {
    plant::file(scene.src().join("f"), "f");
    plant::file(partial_of(&scene.src().join("f")), content::noise(18, MIB as usize));
    let partial = partial_of(&scene.dst().join("other"));
    plant::file(&partial, content::noise(19, MIB as usize));
    scene.push(&["--partial", "--delete"]).run().ok();
    assert_eq!(Tree::read(scene.dst()).litter().len(), 1, "the source's own stays behind");
    assert_eq!(bytes_of(&partial), MIB);
    plant::remove(&partial);
}
}

// The line ends in the middle: ssh itself is cut off from what it should send.
on_routes! { ssh;
fn a_push_by_ssh_that_breaks_off_is_gone_on_from(scene) {
    require!(Need::Sy);
    let file = plant_large(scene, "f", 20);
    let cut = scene.path().join("cut");
    // ssh makes what it has as stdout non-blocking, which dd's stdin would share.
    let dd = format!("dd bs=64K iflag=count_bytes count={HELD_BYTES} status=none");
    plant::file(&cut, format!("{dd} | {} \"$@\" | cat\n", scene.sshd().rsh()));
    let shell = format!("sh {}", cut.display());
    scene.push(&["--partial", "-e", &shell]).run().exits(10);
    let kept = wait_for_partial(&file);
    assert_goes_on(scene, kept);
}
}

// In one process: stopped in the middle of a file that is on its way, and killed or told to end there.
on_routes! { embedded;
fn a_push_to_a_path_is_gone_on_from(scene) {
    require!(Need::Sy);
    const LARGE_BYTES: u64 = 128 * MIB;
    let file = scene.dst().join("f");
    plant::file(scene.src().join("f"), content::noise(21, LARGE_BYTES as usize));
    for signal in [Signal::KILL, Signal::TERM] {
        let mut is_met = false;
        for _ in 0..20 {
            let mut running = scene.push(&["--partial"]).start();
            while arrived(scene) < 16 * MIB && !running.has_ended() {}
            running.pause();
            running.signal(signal);
            running.resume();
            let outcome = running.wait();
            if outcome.code != Some(0) {
                is_met = true;
                break;
            }
            plant::remove(&file);
        }
        assert!(is_met, "{signal:?}: it was never in the middle");
        let kept = arrived(scene);
        assert!(kept >= 8 * MIB, "{signal:?}: {kept} bytes");
        assert_eq!(partial_of(&file).exists(), signal != Signal::KILL, "{signal:?}");
        let summary = scene.push(&["--partial", "--json"]).run().ok().summary();
        assert!(summary.literal_bytes <= LARGE_BYTES - kept + TWICE_BYTES, "{kept} kept, {summary:?}");
        scene.assert_arrived();
        scene.assert_no_litter();
        plant::remove(&file);
    }
}
}

/// Bytes of what stands under a name of sy's own.
fn arrived(scene: &Scene) -> u64 {
    let Ok(entries) = std::fs::read_dir(scene.dst()) else {
        return 0;
    };
    let own = entries
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b".sy."));
    own.map(|entry| bytes_of(&entry.path())).max().unwrap_or(0)
}
