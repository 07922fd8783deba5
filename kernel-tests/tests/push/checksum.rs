//! Pushes that go by content: what is the same stays, whatever its time, and what is not is sent, whatever
//! its time.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use kernel_tests::evil::{self, Bytes, Evil, EvilServer, Hello, Last, ROOT};
use kernel_tests::push;
use kernel_tests::scene::slash;
use kernel_tests::{Need, Scene, Tree, content, on_routes, plant, require, twin};

const MIB: usize = 1 << 20;
/// Long ago: files that were written just now are not compared, they are sent.
const THEN: i64 = 1_000_000_000;

fn plant_old(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    plant::file(path.as_ref(), bytes);
    plant::mtime(path, THEN, 5);
}

/// A file of `src`, and what stands in its place in the destination and in the twin.
fn plant_pair(scene: &Scene, name: &str, new: impl AsRef<[u8]>, old: impl AsRef<[u8]>) {
    plant_old(scene.src().join(name), new);
    for place in [scene.dst(), scene.twin()] {
        plant_old(place.join(name), old.as_ref());
    }
}

/// One file of every kind of difference.
fn plant_differences(scene: &Scene) {
    plant_pair(scene, "empty", "", "");
    plant_pair(scene, "lookalike", "what is new", "what is old");
    plant_pair(scene, "moded", "the same", "the same");
    plant_pair(scene, "other-size", "longer than", "it was");
    plant_pair(scene, "same", "the same", "the same");
    plant_pair(scene, "dir/touched", "the same", "the same");
    plant_pair(scene, "dir/touched-and-other", "what is new", "what is old");
    plant_old(scene.src().join("unknown"), "new");
    plant::mtime(scene.src().join("dir"), THEN, 0);
    plant::mtime(scene.src(), THEN, 0);
    for place in [scene.dst(), scene.twin()] {
        plant::chmod(place.join("moded"), 0o600);
        for name in ["empty", "dir/touched", "dir/touched-and-other"] {
            plant::mtime(place.join(name), THEN + 7, 0);
        }
        plant::mtime(place.join("dir"), THEN, 0);
        plant::mtime(place, THEN, 0);
    }
}

/// What rsync says of the same push to the twin.
fn rsync_itemized(scene: &Scene, options: &[&str]) -> Vec<String> {
    let mut words = vec![OsString::from("rsync")];
    words.extend(twin::AS_SY.iter().map(OsString::from));
    words.extend(scene.twin_rights().iter().map(OsString::from));
    words.extend(options.iter().map(OsString::from));
    words.extend([slash(scene.src()), scene.twin().into()]);
    push::start(&words, None).wait().ok().itemized()
}

on_routes! { embedded, tcp, unix, ssh;
fn content_decides_and_metadata_is_mended_as_with_rsync(scene) {
    require!(Need::Tool("rsync"));
    plant_differences(scene);
    let summary = scene.push(&["-c", "--json"]).run().ok().summary();
    let sent = ["what is new", "what is new", "longer than", "new"];
    assert_eq!(summary.files_sent, sent.len() as u64, "{summary:?}");
    assert_eq!(summary.literal_bytes, sent.concat().len() as u64, "{summary:?}");
    scene.assert_arrived();
    let options = [scene.twin_rights(), &["-c"]].concat();
    assert_eq!(twin::rsync(&options, &[slash(scene.src())], scene.twin()), 0);
    Tree::read(scene.twin()).assert_equals(&Tree::read(scene.dst()), "beside rsync's");
    scene.assert_idle(&["-c"]);
    scene.assert_idle::<&str>(&[]);
}
}

on_routes! { embedded;
fn a_lookalike_stays_where_size_and_time_decide(scene) {
    plant_pair(scene, "lookalike", "what is new", "what is old");
    for options in [&[][..], &["--size-only"]] {
        scene.push(options).run().ok();
        assert_eq!(std::fs::read(scene.dst().join("lookalike")).expect("it stays"), b"what is old");
    }
    scene.push(&["--checksum"]).run().ok();
    scene.assert_arrived();
}
}

on_routes! { embedded;
fn what_is_said_is_what_rsync_says_dry_or_not(scene) {
    require!(Need::Tool("rsync"));
    for options in [&["-c"][..], &["-c", "-I"], &["-c", "--size-only"]] {
        plant::remove(scene.src());
        plant_differences(scene);
        plant::chmod(scene.src().join("same"), 0o664);
        let dry = [options, &["-n", "-i"]].concat();
        let before = Tree::read(scene.dst());
        let told = scene.push(&dry).run().ok().itemized();
        before.assert_untouched(&Tree::read(scene.dst()), "a dry run");
        assert_eq!(told, rsync_itemized(scene, &dry), "{options:?}");
        assert!(told.contains(&">fc........ lookalike".to_owned()), "{told:?}");
        let wet = [options, &["-i"]].concat();
        assert_eq!(scene.push(&wet).run().ok().itemized(), told, "{options:?}");
        assert_eq!(rsync_itemized(scene, &wet), told, "{options:?}");
        scene.assert_arrived();
        plant::remove(scene.dst());
        plant::remove(scene.twin());
    }
}
}

on_routes! { tcp, ssh;
fn many_small_files_are_told_from_their_lookalikes(scene) {
    for number in 0..3000 {
        let name = format!("d{}/f{number}", number % 40);
        let new = format!("content of {number:05}");
        let old = if number % 10 == 3 { new.replace("of", "fo") } else { new.clone() };
        plant_old(scene.src().join(&name), new);
        plant_old(scene.dst().join(&name), old);
        if number % 10 == 4 {
            plant::mtime(scene.dst().join(&name), 77, 0);
        }
    }
    let summary = scene.push(&["-c", "--json"]).run().ok().summary();
    assert_eq!(summary.files_sent, 300, "{summary:?}");
    assert_eq!(summary.literal_bytes, 300 * "content of 00000".len() as u64);
    scene.assert_arrived();
    scene.assert_idle(&["-c"]);
}
}

// Larger than what one job reads.
on_routes! { embedded, tcp;
fn large_files_are_compared_and_go_as_deltas(scene) {
    let old = content::noise(91, 20 * MIB);
    let mut new = old.clone();
    new[19 * MIB] ^= 1;
    plant_pair(scene, "large", &new, &old);
    plant_pair(scene, "large-and-touched", &old, &old);
    plant::mtime(scene.dst().join("large-and-touched"), 77, 0);
    let options = ["-c", "--no-whole-file", "--json"];
    let summary = scene.push(&options).run().ok().summary();
    assert_eq!(summary.files_sent, 1, "{summary:?}");
    assert!(summary.literal_bytes <= 3 * 4096, "{summary:?}");
    scene.assert_arrived();
    scene.assert_idle(&["-c"]);
}
}

on_routes! { embedded;
fn only_files_of_one_size_are_read(scene) {
    require!(Need::Sy);
    let was_read = |scene: &Scene| {
        let outcome = scene.push(&["-c", "--json"]).run().ok();
        let text = String::from_utf8(outcome.stdout).expect("it is text");
        let last = text.lines().last().expect("there is a summary");
        let summary: serde_json::Value = serde_json::from_str(last).expect("it is JSON");
        summary["latency"]["digest"].is_object()
    };
    plant_pair(scene, "other-size", "longer than", "it was");
    plant_pair(scene, "empty", "", "");
    plant_old(scene.src().join("new"), "new");
    plant_old(scene.dst().join("theirs"), "of nobody else");
    assert!(!was_read(scene));
    assert!(was_read(scene), "now they are of one size");
}
}

on_routes! { embedded, tcp;
fn what_the_source_can_not_read_is_named_and_what_the_target_can_not_is_sent(scene) {
    require!(Need::Nobody);
    plant_pair(scene, "closed", "what is new", "what is old");
    plant_pair(scene, "closed-and-same", "the same", "the same");
    plant_pair(scene, "other", "what is new", "what is old");
    for dir in [scene.src(), scene.export(), scene.dst()] {
        plant::chown(&dir, scene.nobody, scene.nobody);
    }
    for name in ["closed", "closed-and-same"] {
        plant::chmod(scene.src().join(name), 0);
    }
    let outcome = scene.push(&["-c"]).as_user(scene.nobody).run();
    outcome.exits(23).complains(&["closed", "closed-and-same", "denied"]);
    let at = |name: &str| std::fs::read(scene.dst().join(name)).expect("it is there");
    assert_eq!(at("other"), b"what is new");
    assert_eq!(at("closed"), b"what is old");
    // The embedded target is that user as well, a server is not.
    for name in ["closed", "closed-and-same"] {
        plant::chmod(scene.src().join(name), 0o644);
        plant::chmod(scene.dst().join(name), 0);
    }
    scene.push(&["-c"]).as_user(scene.nobody).run().ok();
    assert_eq!(at("closed"), b"what is new");
    assert_eq!(at("closed-and-same"), b"the same");
}
}

on_routes! { tcp;
fn a_push_that_is_killed_over_a_huge_file_leaves_nobody_reading(scene) {
    for place in [scene.src(), scene.dst()] {
        plant::sparse(place.join("huge"), 1 << 40);
        plant::mtime(place.join("huge"), THEN, 5);
    }
    let mut running = scene.push(&["-c"]).start();
    std::thread::sleep(Duration::from_millis(500));
    assert!(!running.has_ended(), "a terabyte takes longer");
    running.kill();
    drop(running);
    scene.assert_serves();
    // What is checked after every scene would read it.
    plant::remove(scene.dst().join("huge"));
}
}

fn check(number: u32, files: &[(u32, u64, &[u8])]) -> Vec<u8> {
    let item =
        |(dir, size, name): &(u32, u64, &[u8])| Bytes::new().u32(*dir).u64(*size).name(name).0;
    let items: Vec<u8> = files.iter().flat_map(item).collect();
    evil::frame(evil::CHECK, &Bytes::new().u32(number).raw(&items).0)
}

on_routes! { tcp;
fn only_regular_files_of_that_size_have_a_digest(scene) {
    require!(Need::Sy, Need::Root);
    plant_old(scene.dst().join("file"), "text");
    plant_old(scene.dst().join("twin"), "text");
    plant_old(scene.dst().join("other"), "TEXT");
    plant::symlink("file", scene.dst().join("link"));
    plant::fifo(scene.dst().join("fifo"));
    plant::dir(scene.dst().join("dir"));
    let mut evil = Evil::connect(scene.server().port());
    evil.send(&Hello::to("m", "dst").frame());
    let names = [&b"file"[..], b"twin", b"other", b"link", b"fifo", b"dir", b"nothing"];
    let mut files: Vec<(u32, u64, &[u8])> = names.iter().map(|name| (ROOT, 4, *name)).collect();
    files.push((ROOT, 5, b"file"));
    evil.send(&check(7, &files));
    let answer = evil.next_of(evil::DIGESTS).payload;
    let (number, items) = answer.split_at(4);
    assert_eq!(number, 7_u32.to_le_bytes());
    let items: Vec<&[u8]> = items.chunks(17).collect();
    let statuses: Vec<u8> = items.iter().map(|item| item[0]).collect();
    assert_eq!(statuses, [1, 1, 1, 0, 0, 0, 0, 0]);
    assert_eq!(items[0], items[1]);
    assert_ne!(items[0], items[2]);
    assert!(items[3..].iter().all(|item| item.iter().all(|byte| *byte == 0)));
    evil.send(&check(8, &[]));
    assert_eq!(evil.next_of(evil::DIGESTS).payload, 8_u32.to_le_bytes());
    evil.send(&evil::done());
    assert_eq!(evil.last(), Last::Report(0, 0, 0));
}
}

on_routes! { tcp;
fn asks_that_no_source_sends_are_refused(scene) {
    require!(Need::Sy);
    plant::sparse(scene.dst().join("huge"), 1 << 40);
    let huge = check(1, &[(ROOT, 1 << 40, b"huge")]);
    let many = vec![(ROOT, 4, &b"file"[..]); 1025];
    for (attack, words) in [
        (check(1, &[(9, 4, b"file")]), "directory 9"),
        (check(1, &[(ROOT, 4, b"a/b")]), "slash"),
        (check(1, &[(ROOT, 4, b"..")]), ".."),
        (check(1, &many), "more than 1024"),
        (evil::frame(evil::CHECK, &[0; 3]), "ends in the middle"),
        (huge.repeat(9), "more than 8"),
    ] {
        let mut evil = Evil::connect(scene.server().port());
        evil.send(&Hello::to("m", "dst").frame());
        evil.send(&attack);
        let last = evil.last();
        let is_refused =
            matches!(&last, Last::Refused(evil::PROTOCOL, text) if text.contains(words));
        assert!(is_refused, "should be refused for {words:?}: {last:?}");
    }
    scene.assert_serves();
    plant::remove(scene.dst().join("huge"));
}
}

on_routes! { tcp;
fn digests_that_nobody_asked_for_end_a_push(scene) {
    require!(Need::Sy);
    plant_old(scene.src().join("file"), "text");
    let none = Bytes::new().u8(0).raw(&[0; 16]).0;
    let answers = [
        ("another number", Bytes::new().u32(u32::MAX).raw(&none).0),
        ("too few", Bytes::new().u32(0).0),
        ("too many", Bytes::new().u32(0).raw(&none).raw(&none).0),
        ("no status", Bytes::new().u32(0).u8(2).raw(&[0; 16]).0),
        ("cut short", Bytes::new().u32(0).u8(1).raw(&[0; 15]).0),
    ];
    for (what, answer) in answers {
        println!("{what}");
        let server = EvilServer::start(move |mut stream| {
            use std::io::Write;
            let entry = evil::entry(b"file", evil::FILE, 4);
            let listing = evil::section(ROOT, evil::COMPLETE, 1, &[entry]);
            let _ = stream.write_all(&evil::welcome(1));
            let _ = stream.write_all(&evil::frame(evil::LISTING, &listing));
            while let Some(frame) = evil::read_frame(&mut stream) {
                if frame.kind == evil::CHECK {
                    let _ = stream.write_all(&evil::frame(evil::DIGESTS, &answer));
                }
            }
        });
        let push = scene.push_to_port("dst", server.port()).from(slash(scene.src()));
        push.option("-c").run().exits(12).is_printable();
    }
}
}
