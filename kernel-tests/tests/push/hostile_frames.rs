//! Frames that no sy would send, one at a time: each is refused with a sentence, in the reply and
//! in one line of the log, and changes nothing that was not allowed.

use std::time::Duration;

use kernel_tests::evil::{self, Bytes, Evil, Frame, Hello, Last, Meta, ROOT, meta};
use kernel_tests::{Need, Scene, Tree, content, guard, on_routes, plant, require};

const MODULE: &str = "m";

fn evil(scene: &mut Scene) -> Evil {
    Evil::connect(scene.server().port())
}

/// Greets, sends this, and gives the last word of the server.
#[track_caller]
fn says(scene: &mut Scene, hello: &Hello, attack: &[Vec<u8>]) -> Said {
    let mut evil = evil(scene);
    let peer = format!(
        "peer={} ",
        evil.stream.local_addr().expect("it has an address")
    );
    evil.send(&hello.frame());
    for frame in attack {
        if !evil.send(frame) {
            break;
        }
    }
    let last = evil.last();
    let heard = std::mem::take(&mut evil.heard);
    drop(evil);
    let mut lines = Vec::new();
    guard::wait_until("the session's line in the log", || {
        let log = scene.server().log();
        lines = log
            .lines()
            .filter(|line| line.contains(&peer))
            .map(str::to_owned)
            .collect();
        !lines.is_empty() && log.ends_with('\n')
    });
    assert_eq!(lines.len(), 1, "one line: {lines:?}");
    let line = lines.remove(0);
    Said { last, heard, line }
}

/// How a server took a session: its last word, what it said before, its line in the log.
struct Said {
    last: Last,
    heard: Vec<Frame>,
    line: String,
}

/// After an honest greeting this is refused with these words, which stand in the log too.
#[track_caller]
fn refuses_after(scene: &mut Scene, hello: &Hello, attack: &[Vec<u8>], words: &str) {
    let Said { last, heard, line } = says(scene, hello, attack);
    let Last::Refused(evil::PROTOCOL, text) = &last else {
        panic!("should be refused for {words:?}: {last:?}")
    };
    let woken = heard.iter().any(|frame| frame.kind == evil::IGNORABLE);
    assert!(!woken, "the refusal {text:?} waited for a timer");
    assert!(text.contains(words), "{text:?} should hold {words:?}");
    assert!(
        line.contains(&words.replace(' ', "\\x20")),
        "{line:?} should hold {words:?}"
    );
    scene.assert_outside_untouched();
    scene.assert_no_litter();
}

#[track_caller]
fn refuses(scene: &mut Scene, attack: &[Vec<u8>], words: &str) {
    refuses_after(scene, &Hello::to(MODULE, "dst"), attack, words);
}

/// The session gets to its report: exit code, files made, errors.
#[track_caller]
fn reports(scene: &mut Scene, hello: &Hello, attack: &[Vec<u8>], exit: u8, files: u64) {
    let Said { last, .. } = says(scene, hello, attack);
    let Last::Report(code, made, errors) = last else {
        panic!("should report: {last:?}")
    };
    assert_eq!((code, made), (exit, files), "{errors} errors");
}

/// A session that may delete, up to where the listing of ROOT has come.
fn listed(scene: &mut Scene, flags: u32) -> Evil {
    let mut evil = evil(scene);
    evil.send(&Hello::to(MODULE, "dst").flags(flags).frame());
    evil.send(&evil::list(ROOT, ROOT, None));
    evil.next_of(evil::LISTING);
    evil
}

fn bait() -> Vec<u8> {
    evil::op_file(ROOT, b"bait", meta(evil::FILE), b"bait")
}

fn begin(size: u64) -> Vec<u8> {
    evil::op_begin(ROOT, b"large", 1, meta(evil::FILE), size)
}

/// The server neither works nor grows when nobody talks to it.
#[track_caller]
fn assert_is_calm(scene: &mut Scene) {
    let before = scene.server().cpu_ticks();
    std::thread::sleep(Duration::from_millis(300));
    let ticks = scene.server().cpu_ticks() - before;
    assert!(ticks <= 20, "{ticks} ticks of CPU in 0.3 s without a peer");
}

on_routes! { tcp;
fn a_hand_made_session_pushes_a_tree(scene) {
    require!(Need::Sy);
    let large = content::noise(7, evil::CHUNK + 5);
    let (one, two) = large.split_at(evil::CHUNK);
    let chunks = [(0, one), (evil::CHUNK as u64, two)];
    let mut evil = evil(scene);
    evil.send(&Hello::to(MODULE, "dst").frame());
    evil.send(&evil::list(ROOT, ROOT, None));
    let listing = evil.next_of(evil::LISTING);
    assert_eq!(listing.payload, evil::section(ROOT, evil::COMPLETE, 0, &[]));
    assert_eq!(evil.heard[0].kind, evil::WELCOME);
    evil.send(&evil::pack(&[
        evil::op_mkdir(ROOT, b"dir", 1, 0o755),
        evil::op_file(1, b"file", meta(0o100_640), b"by hand"),
        evil::op_symlink(1, b"link", b"file"),
        evil::op_begin(1, b"large", 1, meta(evil::FILE), large.len() as u64),
    ]));
    evil.send(&evil::data(1, evil::CHUNK as u64, two));
    evil.send(&evil::data(1, 0, one));
    evil.send(&evil::end(1, 0, evil::file_digest(&chunks)));
    evil.send(&evil::pack(&[
        evil::op_close(1, Some(meta(0o040_750))),
        evil::op_close(ROOT, Some(meta(evil::DIR))),
    ]));
    evil.send(&evil::done());
    assert_eq!(evil.last(), Last::Report(0, 3, 0));
    plant::file(scene.twin().join("dir/file"), "by hand");
    plant::chmod(scene.twin().join("dir/file"), 0o640);
    plant::symlink("file", scene.twin().join("dir/link"));
    plant::file(scene.twin().join("dir/large"), &large);
    plant::chmod(scene.twin().join("dir/large"), 0o644);
    plant::chmod(scene.twin().join("dir"), 0o750);
    plant::chmod(scene.twin(), 0o755);
    for path in ["dir/file", "dir/link", "dir/large", "dir", "."] {
        plant::mtime(scene.twin().join(path), 1_700_000_000, 1);
    }
    Tree::read(scene.twin()).assert_equals(&Tree::read(scene.dst()), "a tree made by hand");
}
}

/// One of each frame that carries a name.
fn carriers(name: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let file = meta(evil::FILE);
    vec![
        ("LIST", evil::list(9, ROOT, Some(name))),
        ("DELETE", evil::pack(&[evil::op_delete(ROOT, name, 1)])),
        ("MKDIR", evil::pack(&[evil::op_mkdir(ROOT, name, 9, 0o755)])),
        ("FILE", evil::pack(&[evil::op_file(ROOT, name, file, b"x")])),
        ("SYMLINK", evil::pack(&[evil::op_symlink(ROOT, name, b"t")])),
        (
            "NODE",
            evil::pack(&[evil::op_node(ROOT, name, meta(evil::FIFO), 0)]),
        ),
        ("META", evil::pack(&[evil::op_meta(ROOT, name, file)])),
        (
            "BEGIN",
            evil::pack(&[evil::op_begin(ROOT, name, 9, file, 1)]),
        ),
    ]
}

on_routes! { tcp;
fn names_that_are_paths_or_ours_are_refused_wherever_they_stand(scene) {
    require!(Need::Sy);
    for (name, words) in [
        (&b""[..], "a name is empty"),
        (b".", "'.' or '..'"),
        (b"..", "'.' or '..'"),
        (b"a/b", "a slash or a NUL"),
        (b"/abs", "a slash or a NUL"),
        (b"../outside/file", "a slash or a NUL"),
        (b"a\0b", "a slash or a NUL"),
        (b".sy.x", "belong to sy itself"),
        (b".sy.0000000000000001.unclean", "belong to sy itself"),
    ] {
        for (what, frame) in carriers(name) {
            println!("{what} {}", name.escape_ascii());
            refuses(scene, &[frame], words);
        }
        let mut hello = Hello::to(MODULE, "");
        hello.dest = vec![b"dst".to_vec(), name.to_vec()];
        refuses_after(scene, &hello, &[], words);
    }
    assert!(scene.dst().read_dir().is_ok_and(|mut dir| dir.next().is_none()), "nothing was made");
    assert_is_calm(scene);
}
}

on_routes! { tcp;
fn a_name_longer_than_its_frame_is_refused(scene) {
    require!(Need::Sy);
    for len in [2, 255] {
        let cut = Bytes::new().u8(3).u32(ROOT).u8(len).raw(b"x").0;
        refuses(scene, &[evil::frame(evil::PACK, &cut)], "a PACK frame ends in the middle");
        let cut = Bytes::new().u32(5).u32(ROOT).u8(len).raw(b"x").0;
        refuses(scene, &[evil::frame(evil::LIST, &cut)], "a LIST frame ends in the middle");
    }
    let named_root = Bytes::new().u32(ROOT).u32(ROOT).name(b"x").0;
    refuses(scene, &[evil::frame(evil::LIST, &named_root)], "ROOT's name length");
}
}

on_routes! { tcp;
fn names_of_any_other_bytes_are_legal(scene) {
    require!(Need::Sy);
    let names: [&[u8]; 8] =
        [b"\xff\xfe", b"a\nb", b"\x1b[2J", b"...", b"-rf", b" ", b".s", &[b'n'; 255]];
    let ops: Vec<_> = names
        .iter()
        .map(|name| evil::op_file(ROOT, name, meta(evil::FILE), name))
        .collect();
    reports(scene, &Hello::to(MODULE, "dst"), &[evil::pack(&ops), evil::done()], 0, 8);
    let tree = Tree::read(scene.dst());
    for name in names {
        let node = tree.find(name).unwrap_or_else(|| panic!("{} is there", name.escape_ascii()));
        assert_eq!(node.size, name.len() as u64);
    }
}
}

on_routes! { tcp;
fn a_link_that_was_just_made_is_not_written_through(scene) {
    require!(Need::Sy);
    let target = scene.outside();
    let to = target.as_os_str().as_encoded_bytes();
    let to_file = [to, b"/file"].concat();
    let links = [
        evil::op_symlink(ROOT, b"f", &to_file),
        evil::op_symlink(ROOT, b"large", &to_file),
        evil::op_symlink(ROOT, b"m", &to_file),
        evil::op_symlink(ROOT, b"d", to),
    ];
    reports(scene, &Hello::to(MODULE, "dst"), &[evil::pack(&links), evil::done()], 0, 4);
    // FILE and a large file at the place of a link replace the link.
    let chunk = [(0, &b"large"[..])];
    reports(scene, &Hello::to(MODULE, "dst"), &[
        evil::pack(&[evil::op_file(ROOT, b"f", meta(evil::FILE), b"mine"), begin(5)]),
        evil::data(1, 0, b"large"),
        evil::end(1, 0, evil::file_digest(&chunk)),
        evil::done(),
    ], 0, 2);
    assert!(scene.dst().join("f").symlink_metadata().expect("it is there").is_file());
    assert!(scene.dst().join("large").symlink_metadata().expect("it is there").is_file());
    // Metadata of a file is not given to what a link points to.
    let metas = [evil::op_meta(ROOT, b"m", meta(0o100_777)), evil::op_meta(ROOT, b"m", meta(evil::LINK))];
    reports(scene, &Hello::to(MODULE, "dst"), &[evil::pack(&metas), evil::done()], 23, 0);
    // A directory can't be made of a link, and what is below it is lost.
    reports(scene, &Hello::to(MODULE, "dst"), &[
        evil::pack(&[
            evil::op_mkdir(ROOT, b"d", 1, 0o777),
            evil::op_file(1, b"file", meta(evil::FILE), b"evil"),
            evil::op_mkdir(1, b"dir", 2, 0o777),
            evil::op_file(2, b"below", meta(evil::FILE), b"evil"),
            evil::op_begin(1, b"file", 1, meta(evil::FILE), 4),
        ]),
        evil::data(1, 0, b"evil"),
        evil::end(1, 0, evil::file_digest(&[(0, b"evil")])),
        evil::pack(&[evil::op_close(2, Some(meta(0o040_777))), evil::op_close(1, Some(meta(0o040_777)))]),
        evil::done(),
    ], 23, 0);
    // A link that the same push makes meanwhile changes nothing of that, whoever comes first.
    says(scene, &Hello::to(MODULE, "dst"), &[
        evil::pack(&[
            evil::op_symlink(ROOT, b"both", to),
            evil::op_mkdir(ROOT, b"both", 1, 0o777),
            evil::op_file(1, b"file", meta(evil::FILE), b"evil"),
            evil::op_symlink(ROOT, b"f", &to_file),
            evil::op_file(ROOT, b"f", meta(evil::FILE), b"evil"),
        ]),
        evil::done(),
    ]);
    scene.assert_outside_untouched();
}
}

on_routes! { tcp;
fn a_directory_that_becomes_a_link_is_not_followed(scene) {
    require!(Need::Sy);
    let target = scene.outside();
    let to = target.as_os_str().as_encoded_bytes();
    for (session, way) in ["in one session", "from another connection"].into_iter().enumerate() {
        println!("{way}");
        plant::file(scene.dst().join("dir/sub/keep"), "k");
        let mut evil = listed(scene, evil::DELETE);
        evil.send(&evil::list(1, ROOT, Some(b"dir")));
        evil.send(&evil::list(2, 1, Some(b"sub")));
        evil.next_of(evil::LISTING);
        // A file is under way in it when it goes.
        evil.send(&evil::pack(&[
            evil::op_begin(2, b"below", 1, meta(evil::FILE), 4),
            evil::op_file(1, b"there", meta(evil::FILE), b"x"),
        ]));
        guard::wait_until("the first pack", || scene.dst().join("dir/there").exists());
        let swap = evil::pack(&[
            evil::op_delete(ROOT, b"dir", 0),
            evil::op_symlink(ROOT, b"dir", to),
        ]);
        if session == 0 {
            evil.send(&swap);
        } else {
            let mut other = listed(scene, evil::DELETE);
            other.send(&swap);
            other.send(&evil::done());
            assert!(matches!(other.last(), Last::Report(0, 1, 0)));
        }
        evil.send(&evil::data(1, 0, b"evil"));
        evil.send(&evil::end(1, 0, evil::file_digest(&[(0, b"evil")])));
        evil.send(&evil::pack(&[
            evil::op_file(1, b"file", meta(evil::FILE), b"evil"),
            evil::op_file(2, b"below", meta(evil::FILE), b"evil"),
            evil::op_mkdir(1, b"dir", 3, 0o777),
            evil::op_file(3, b"below", meta(evil::FILE), b"evil"),
            evil::op_close(3, Some(meta(0o040_777))),
            evil::op_close(2, Some(meta(0o040_777))),
        ]));
        evil.send(&evil::list(4, ROOT, Some(b"dir")));
        evil.send(&evil::list(5, 4, Some(b"dir")));
        evil.send(&evil::done());
        assert!(matches!(evil.last(), Last::Report(23, ..)));
        for listing in evil.heard.iter().filter(|frame| frame.kind == evil::LISTING) {
            let sees = |name: &[u8]| listing.payload.windows(name.len()).any(|bytes| bytes == name);
            assert!(!sees(b"below"), "a listing of what a link points to");
        }
        scene.assert_outside_untouched();
        scene.assert_no_litter();
        plant::remove(scene.dst());
    }
}
}

on_routes! { tcp;
fn no_destination_is_found_through_a_link_of_the_module(scene) {
    require!(Need::Sy);
    plant::symlink(scene.outside(), scene.export().join("link"));
    plant::symlink("../../outside", scene.export().join("dir-link"));
    plant::dir(scene.export().join("d"));
    plant::symlink("..", scene.export().join("d/up"));
    for dest in ["link", "link/dir", "dir-link/x", "d/up", "d/up/d", "link/new"] {
        let Said { last, .. } = says(scene, &Hello::to(MODULE, dest), &[evil::pack(&[bait()]), evil::done()]);
        assert!(matches!(last, Last::Refused(4 | 5, _)), "{dest}: {last:?}");
        scene.assert_outside_untouched();
    }
    // A single file may replace the link itself, never what it points to.
    let hello = Hello::to(MODULE, "link").flags(1 << 5);
    reports(scene, &hello, &[evil::pack(&[evil::op_file(ROOT, b"link", meta(evil::FILE), b"x")]), evil::done()], 0, 1);
    scene.assert_outside_untouched();
}
}

on_routes! { tcp;
fn modules_that_are_not_there_or_read_only_are_refused(scene) {
    require!(Need::Sy);
    for module in ["", "x", "m/", "../m", "/"] {
        let mut hello = Hello::to(module, "dst");
        hello.dest = vec![b"dst".to_vec()];
        let Said { last, .. } = says(scene, &hello, &[evil::pack(&[bait()])]);
        assert!(matches!(last, Last::Refused(2, _)), "{module}: {last:?}");
    }
    let long = Hello { module: vec![b'm'; 256], ..Hello::to("", "") };
    refuses_after(scene, &long, &[], "HELLO frame: more than 255");
    // The longest text that a refusal could repeat.
    let mut deep = Hello::to(MODULE, "");
    deep.dest = vec![vec![b'd'; 255]; 1000];
    let Said { last, .. } = says(scene, &deep, &[]);
    assert!(matches!(&last, Last::Refused(4, text) if text.len() <= 4096), "{last:?}");
    deep.dest = vec![b"d".to_vec(); 5000];
    refuses_after(scene, &deep, &[], "components of DEST: more than 4096");
}
}

on_routes! { tcp;
fn lengths_that_lie_are_refused(scene) {
    require!(Need::Sy);
    for bytes in [evil::PAYLOAD_MAX as u32 + 1, 1 << 31, u32::MAX] {
        refuses(scene, &[evil::head(evil::PACK, bytes, 0, 0)], "longer than allowed");
    }
    let most = vec![0; evil::PAYLOAD_MAX];
    reports(scene, &Hello::to(MODULE, "dst"), &[evil::frame(evil::IGNORABLE, &most), evil::done()], 0, 0);
    for (kind, words) in [
        (evil::HELLO, "a HELLO frame where none may come"),
        (evil::DATA, "was not begun"),
        (evil::END, "was not begun"),
        (evil::DONE, "a DONE frame ends in the middle"),
    ] {
        refuses(scene, &[evil::frame(kind, b"")], words);
    }
    for len in [b"content".len() as u32 + 1, 256 * 1024, 256 * 1024 + 1, 1 << 31, u32::MAX] {
        let op = evil::op_file_of(ROOT, b"f", meta(evil::FILE), len, b"content");
        let words = if len > 256 * 1024 { "length of a packed file" } else { "ends in the middle" };
        refuses(scene, &[evil::pack(&[op])], words);
    }
    // A shorter length makes the rest of the content operations: content is never trusted.
    let op = evil::op_file_of(ROOT, b"f", meta(evil::FILE), 3, b"abc\xff\0\0\0\0\x01x");
    refuses(scene, &[evil::pack(&[op])], "PACK operation");
    for size in [1 << 63, u64::MAX] {
        refuses(scene, &[evil::pack(&[begin(size)])], "file size");
    }
    refuses(scene, &[evil::frame(evil::PACK, &vec![0; evil::PAYLOAD_MAX])], "is empty");
    let link = Bytes::new().u8(4).u32(ROOT).name(b"l").meta(meta(evil::LINK));
    refuses(scene, &[evil::frame(evil::PACK, &link.clone().u16(u16::MAX).0)], "more than 4095");
    refuses(scene, &[evil::frame(evil::PACK, &link.clone().text(b"").0)], "link target");
    refuses(scene, &[evil::frame(evil::PACK, &link.text(b"a\0b").0)], "link target");
    assert_is_calm(scene);
}
}

on_routes! { tcp;
fn every_frame_with_bytes_behind_it_or_cut_short_is_refused(scene) {
    require!(Need::Sy);
    let first = begin(4);
    for (kind, payload, what) in [
        (evil::LIST, evil::request(1, ROOT, Some(b"x")), "LIST"),
        (evil::PACK, bait(), "PACK"),
        (evil::END, Bytes::new().u32(1).u8(1).u128(0).0, "END"),
        (evil::DONE, Bytes::new().u64(0).0, "DONE"),
    ] {
        let before = if kind == evil::END { evil::pack(std::slice::from_ref(&first)) } else { Vec::new() };
        let longer = [payload.clone(), vec![0]].concat();
        let cut = &payload[..payload.len() - 1];
        refuses(scene, &[before.clone(), evil::frame(kind, &longer)], what);
        refuses(scene, &[before, evil::frame(kind, cut)], "ends in the middle");
    }
    let hello = Hello::to(MODULE, "dst");
    let longer = [hello.payload(), vec![0]].concat();
    let mut evil = evil(scene);
    evil.send(&evil::frame(evil::HELLO, &longer));
    assert!(matches!(evil.last(), Last::Refused(6, text) if text.contains("too many behind a HELLO")));
    for bytes in [evil::head(evil::DONE, 8, 1, evil::body_check(evil::DONE, &[0; 8])), vec![0x55; 16]] {
        let words = if bytes[0] == 8 { "frame flags" } else { "head was damaged" };
        refuses(scene, &[bytes, vec![0; 8]], words);
    }
    let wrong = [evil::head(evil::PACK, 3, 0, 1), b"abc".to_vec()].concat();
    refuses(scene, &[wrong], "was damaged on the way");
}
}

on_routes! { tcp;
fn chunks_out_of_place_are_refused(scene) {
    require!(Need::Sy);
    let begun = evil::pack(&[begin(10)]);
    for (frame, words) in [
        (evil::data(1, 0, b"eleven bytes"), "beyond the announced size"),
        (evil::data(1, evil::CHUNK as u64, b"x"), "beyond the announced size"),
        (evil::data(1, u64::MAX - (evil::CHUNK as u64 - 1), b"x"), "beyond the announced size"),
        (evil::data(1, 1, b"x"), "chunk offset"),
        (evil::data(1, u64::MAX, b"x"), "chunk offset"),
        (evil::data(1, 0, b""), "chunk length"),
        (evil::data(1, 0, &vec![0; evil::CHUNK + 1]), "chunk length"),
        (evil::data_of(1, 2, 0, evil::digest(b"x"), b"x"), "codec"),
        (evil::data_of(1, 1, 0, evil::digest(&[0; 10]), &[0; 10]), "chunk length"),
        (evil::data_of(1, 1, 0, 0, b""), "was damaged on the way"),
        (evil::data_of(1, 1, evil::CHUNK as u64, 0, b""), "beyond the announced size"),
        (evil::data_of(1, 0, 0, 0, b"x"), "was damaged on the way"),
        (evil::data(2, 0, b"x"), "file 2 was not begun"),
        (evil::end(2, 0, 0), "file 2 was not begun"),
        (evil::end(1, 2, 0), "END status"),
        (evil::end(1, 1, 7), "END status"),
    ] {
        refuses(scene, &[begun.clone(), frame], words);
    }
    for frames in [
        vec![evil::end(1, 1, 0), evil::end(1, 1, 0)],
        vec![evil::end(1, 1, 0), evil::data(1, 0, b"x")],
    ] {
        refuses(scene, &[vec![begun.clone()], frames].concat(), "file 1 was not begun, or has ended");
    }
    // Content without end in the place of a file that has one.
    let chunk = vec![7; evil::CHUNK];
    let begun = evil::pack(&[begin(2 * evil::CHUNK as u64)]);
    let one = evil::data(1, 0, &chunk);
    refuses(scene, &[begun, one.clone(), one.clone(), one], "beyond the announced size");
    assert!(!scene.dst().join("large").exists());
}
}

on_routes! { tcp;
fn a_large_file_that_is_not_whole_gets_no_name_and_is_named(scene) {
    require!(Need::Sy);
    let chunk = vec![7; evil::CHUNK];
    let size = 2 * evil::CHUNK as u64;
    let (one, two) = (evil::data(1, 0, &chunk), evil::data(1, evil::CHUNK as u64, &chunk));
    let right = evil::file_digest(&[(0, &chunk), (evil::CHUNK as u64, &chunk)]);
    for (what, frames, digest) in [
        ("nothing came", vec![], right),
        ("a chunk is missing", vec![one.clone()], right),
        ("a chunk came twice, one never", vec![one.clone(), one.clone()], right),
        ("the digest is wrong", vec![one.clone(), two.clone()], right ^ 1),
        ("a chunk is short", vec![one.clone(), evil::data(1, evil::CHUNK as u64, b"short")], right),
    ] {
        println!("{what}");
        let frames = [
            vec![evil::pack(&[begin(size)])],
            frames,
            vec![evil::end(1, 0, digest), evil::pack(&[evil::op_close(ROOT, None)]), evil::done()],
        ];
        let Said { last, heard, .. } = says(scene, &Hello::to(MODULE, "dst"), &frames.concat());
        assert_eq!(last, Last::Report(23, 0, 1), "{what}");
        let names = |frame: &Frame| frame.kind == evil::NOTICE && frame.payload.ends_with(b"large");
        assert!(heard.iter().any(names), "{what}: it is named");
        assert!(!scene.dst().join("large").exists(), "{what}");
        scene.assert_no_litter();
    }
    // Beyond what any file system takes.
    let far = 1u64 << 62;
    let Said { last, .. } = says(scene, &Hello::to(MODULE, "dst"), &[
        evil::pack(&[begin(i64::MAX.cast_unsigned())]),
        evil::data(1, far, b"x"),
        evil::end(1, 0, evil::file_digest(&[(far, b"x")])),
        evil::done(),
    ]);
    assert_eq!(last, Last::Report(23, 0, 1));
}
}

on_routes! { tcp;
fn a_session_that_ends_with_the_last_chunk_is_complete(scene) {
    require!(Need::Sy);
    // DONE comes while chunks may still be on their way to the disk.
    let chunk = vec![7; evil::CHUNK];
    let offsets: Vec<u64> = (0..6).map(|at| at * evil::CHUNK as u64).collect();
    let chunks: Vec<(u64, &[u8])> = offsets.iter().map(|&at| (at, &chunk[..])).collect();
    for _ in 0..10 {
        let mut frames = vec![evil::pack(&[begin(6 * evil::CHUNK as u64)])];
        frames.extend(offsets.iter().map(|&at| evil::data(1, at, &chunk)));
        frames.push(evil::end(1, 0, evil::file_digest(&chunks)));
        frames.push(evil::done());
        reports(scene, &Hello::to(MODULE, "dst"), &[frames.concat()], 0, 1);
    }
}
}

on_routes! { tcp;
fn frames_out_of_their_time_are_refused(scene) {
    require!(Need::Sy);
    plant::file(scene.dst().join("stays"), "stays");
    plant::file(scene.dst().join("dir/stays"), "stays");
    let mkdir = |id| evil::op_mkdir(ROOT, b"dir", id, 0o755);
    let close = |id| evil::op_close(id, None);
    for (frames, words) in [
        (vec![Hello::to(MODULE, "dst").frame()], "a HELLO frame where none may come"),
        (vec![evil::list(2, 1, Some(b"x"))], "directory 1 was not declared"),
        (vec![evil::list(1, ROOT, Some(b"x")), evil::list(1, ROOT, Some(b"y"))], "directory 1 is declared already"),
        (vec![evil::list(ROOT, ROOT, None), evil::list(ROOT, ROOT, None)], "directory 0 is declared already"),
        (vec![evil::list(ROOT, 1, Some(b"x"))], "directory 1 was not declared"),
        (vec![evil::pack(&[mkdir(1), evil::op_mkdir(ROOT, b"other", 1, 0o755)])], "directory 1 is declared already"),
        (vec![evil::pack(&[mkdir(ROOT)])], "directory 0 is declared already"),
        (vec![evil::pack(&[mkdir(1), close(1), mkdir(1)])], "directory 1 is declared already"),
        (vec![evil::pack(&[evil::op_mkdir(5, b"x", 6, 0o755)])], "directory 5 was not declared"),
        (vec![evil::pack(&[evil::op_file(5, b"x", meta(evil::FILE), b"")])], "directory 5 was not declared"),
        (vec![evil::pack(&[mkdir(1), close(1), close(1)])], "directory 1 was not declared, or is closed"),
        (vec![evil::pack(&[mkdir(1), close(1), evil::op_file(1, b"x", meta(evil::FILE), b"")])], "directory 1 was not declared, or is closed"),
        (vec![evil::pack(&[close(ROOT), bait()])], "directory 0 was not declared, or is closed"),
        (vec![evil::pack(&[mkdir(1), close(ROOT)])], "directories below it"),
        (vec![evil::pack(&[mkdir(1), evil::op_begin(1, b"large", 1, meta(evil::FILE), 4), close(ROOT), close(1)])], "directories below it"),
        (vec![evil::pack(&[begin(1), begin(1)])], "file 1 was begun already"),
        (vec![evil::pack(&[begin(1)]), evil::pack(&[begin(1)])], "file 1 was begun already"),
        (vec![evil::pack(&[begin(1)]), evil::end(1, 1, 0), evil::pack(&[begin(1)])], "file 1 was begun already"),
        (vec![evil::pack(&[evil::op_begin(7, b"x", 1, meta(evil::FILE), 1)])], "directory 7 was not declared"),
        (vec![evil::data(1, 0, b"x")], "file 1 was not begun"),
        (vec![evil::pack(&[begin(4)]), evil::done()], "file 1 was not begun, or has ended"),
        (vec![evil::pack(&[evil::op_delete(ROOT, b"stays", 0)])], "listing was not completed"),
        (vec![evil::pack(&[evil::op_delete(3, b"stays", 0)])], "directory 3 was not declared"),
        (vec![evil::frame(evil::OWNERS, &evil::owner(1, 7, b"ann").repeat(2))], "owner 7 is declared already"),
        (vec![evil::frame(evil::OWNERS, &evil::owner(1, 0, b"root"))], "owner that has no name"),
        (vec![evil::frame(evil::OWNERS, &evil::owner(3, 7, b"ann"))], "kind of an owner"),
        (vec![evil::frame(evil::OWNERS, &evil::owner(2, 7, b"a:b"))], "name of an owner"),
        (vec![evil::frame(evil::OWNERS, &evil::owner(2, 7, b""))], "name of an owner"),
        (vec![evil::frame(evil::OWNERS, &evil::owner(2, 7, b"ann")[..7])], "OWNERS frame ends in the middle"),
        (vec![evil::pack(&[vec![9, 0, 0, 0, 0, 1, b'x']])], "PACK operation"),
        (vec![evil::pack(&[evil::op_delete(ROOT, b"stays", 3)])], "room that DELETE makes"),
        (vec![evil::pack(&[Bytes::new().u8(8).u32(ROOT).u8(2).0])], "CLOSE flag"),
    ] {
        println!("{words}");
        refuses(scene, &[frames, vec![evil::done()]].concat(), words);
    }
    for kind in [evil::WELCOME, evil::LISTING, evil::NOTICE, evil::STOP, evil::REPORT, evil::REFUSED, 0x87, evil::MAPPED] {
        refuses(scene, &[evil::frame(kind, b"x")], "frame where none may come");
    }
    for kind in [0x00, 0x0b, 0x6f, 0x80, 0x8a, 0xff] {
        refuses(scene, &[evil::frame(kind, b"x")], "unknown frame kind");
    }
    let ignorable: Vec<_> = (0x70..=0x7f).map(|kind| evil::frame(kind, b"whatever")).collect();
    reports(scene, &Hello::to(MODULE, "dst"), &[ignorable.concat(), evil::done()], 0, 0);
    let text = |path: &str| std::fs::read_to_string(scene.dst().join(path)).expect("it stays");
    assert_eq!((text("stays").as_str(), text("dir/stays").as_str()), ("stays", "stays"));
    assert_is_calm(scene);
}
}

on_routes! { tcp;
fn nothing_comes_before_the_greeting(scene) {
    require!(Need::Sy);
    let version = Hello { version: 2, ..Hello::to(MODULE, "dst") };
    let stream = Hello { stream: 1, ..Hello::to(MODULE, "dst") };
    let durable = Hello { durability: 3, ..Hello::to(MODULE, "dst") };
    let flags = Hello::to(MODULE, "dst").flags(1 << 31);
    let relative = Hello::to(MODULE, "dst").flags(1 << 7);
    let first = [
        (evil::pack(&[bait()]), 6, "a PACK frame where none may come"),
        (evil::list(ROOT, ROOT, None), 6, "a LIST frame where none may come"),
        (evil::data(1, 0, b"x"), 6, "a DATA frame where none may come"),
        (evil::end(1, 0, 0), 6, "a END frame where none may come"),
        (evil::done(), 6, "a DONE frame where none may come"),
        (evil::welcome(1), 6, "a WELCOME frame where none may come"),
        (evil::frame(evil::HELLO, b""), 6, "a HELLO frame ends in the middle"),
        (evil::frame(evil::HELLO, b"sy-pull\nxxxx"), 6, "magic"),
        (version.frame(), 1, "version 2"),
        (stream.frame(), 6, "stream index"),
        (durable.frame(), 6, "durability"),
        (flags.frame(), 6, "HELLO flags"),
        (relative.frame(), 6, "HELLO flags"),
    ];
    for (frame, code, words) in first {
        let mut evil = evil(scene);
        evil.send(&frame);
        let last = evil.last();
        assert!(matches!(&last, Last::Refused(is, text) if *is == code && text.contains(words)), "{words}: {last:?}");
    }
    assert!(!scene.dst().exists(), "nothing was made");
}
}

on_routes! { tcp;
fn deletes_stay_within_what_the_session_may_delete(scene) {
    require!(Need::Sy);
    plant::file(scene.dst().join("stays"), "stays");
    plant::file(scene.dst().join("dir/stays"), "stays");
    plant::symlink(scene.outside(), scene.dst().join("link"));
    let refusal = |evil: &mut Evil, frame: &[u8], words: &str| {
        evil.send(frame);
        let last = evil.last();
        assert!(matches!(&last, Last::Refused(6, text) if text.contains(words)), "{words}: {last:?}");
    };
    let mut evil = listed(scene, 0);
    refusal(&mut evil, &evil::pack(&[evil::op_delete(ROOT, b"stays", 0)]), "this session does not allow");
    let mut evil = listed(scene, evil::DELETE);
    let unlisted = [evil::op_mkdir(ROOT, b"dir", 1, 0o755), evil::op_delete(1, b"stays", 0)];
    refusal(&mut evil, &evil::pack(&unlisted), "listing was not completed");
    let mut evil = listed(scene, evil::DRY_RUN);
    refusal(&mut evil, &evil::pack(&[bait()]), "dry run");
    // Neither a full directory without leave, nor anything in a dry run, nor what a link shows.
    let mut evil = listed(scene, 0);
    let file = evil::op_file(ROOT, b"dir", meta(evil::FILE), b"text");
    evil.send(&evil::pack(&[evil::op_delete(ROOT, b"dir", 2), file]));
    evil.send(&evil::done());
    assert_eq!(evil.last(), Last::Report(23, 0, 1), "the one failure is told once");
    let mut evil = listed(scene, evil::DELETE | evil::DRY_RUN);
    evil.send(&evil::pack(&[evil::op_delete(ROOT, b"dir", 2), evil::op_delete(ROOT, b"stays", 0)]));
    evil.send(&evil::done());
    assert_eq!(evil.last(), Last::Report(0, 0, 0));
    // Nor what is of the kind by now that is to come.
    for rights in [0, evil::DELETE] {
        let mut evil = listed(scene, rights);
        evil.send(&evil::pack(&[evil::op_delete(ROOT, b"dir", 1), evil::op_delete(ROOT, b"stays", 2)]));
        evil.send(&evil::done());
        assert_eq!(evil.last(), Last::Report(0, 0, 0));
    }
    let text = |path: &str| std::fs::read_to_string(scene.dst().join(path)).expect("it stays");
    assert_eq!((text("stays").as_str(), text("dir/stays").as_str()), ("stays", "stays"));
    let mut evil = listed(scene, evil::DELETE);
    evil.send(&evil::pack(&[evil::op_delete(ROOT, b"link", 0)]));
    evil.send(&evil::done());
    assert_eq!(evil.last(), Last::Report(0, 0, 0));
    scene.assert_outside_untouched();
}
}

on_routes! { tcp;
fn metadata_that_nobody_may_set_is_refused_or_left_out(scene) {
    require!(Need::Sy);
    let file = meta(evil::FILE);
    for (what, words) in [
        (Meta { nsec: 1_000_000_000, ..file }, "nanoseconds"),
        (Meta { nsec: u32::MAX, ..file }, "nanoseconds"),
        (Meta { nsec: (1 << 30) - 2, ..file }, "nanoseconds"), // UTIME_OMIT
        (Meta { uid: u32::MAX, ..file }, "user id"),
        (Meta { gid: u32::MAX, ..file }, "group id"),
        (meta(0o000_644), "file type"),
        (meta(0o170_644), "file type"),
        (meta(evil::DIR), "kind of an entry"),
        (meta(evil::LINK), "kind of an entry"),
        (meta(evil::CHAR), "kind of an entry"),
    ] {
        refuses(scene, &[evil::pack(&[evil::op_file(ROOT, b"f", what, b"x")])], words);
        refuses(scene, &[evil::pack(&[evil::op_begin(ROOT, b"f", 1, what, 1)])], words);
    }
    for mode in [0o10_000, 0o40_755, u16::MAX] {
        refuses(scene, &[evil::pack(&[evil::op_mkdir(ROOT, b"d", 1, mode)])], "mode");
    }
    for kind in [evil::FIFO, evil::SOCKET, evil::CHAR, evil::BLOCK] {
        refuses(scene, &[evil::pack(&[evil::op_node(ROOT, b"n", meta(kind), 0x0103)])], "may not make");
    }
    refuses(scene, &[evil::pack(&[evil::op_node(ROOT, b"n", file, 0)])], "kind of an entry");
    refuses(scene, &[evil::pack(&[evil::op_close(ROOT, Some(file))])], "kind of an entry");
    let owned = |st_mode| Meta { uid: 12345, gid: 54321, ..meta(st_mode) };
    reports(scene, &Hello::to(MODULE, "dst"), &[
        evil::pack(&[
            evil::op_file(ROOT, b"f", owned(0o106_755), b"x"),
            evil::op_file(ROOT, b"m", meta(0o100_600), b"x"),
            evil::op_meta(ROOT, b"m", owned(0o106_755)),
            evil::op_symlink(ROOT, b"l", b"t"),
            evil::op_mkdir(ROOT, b"d", 1, 0o6755),
            evil::op_close(1, Some(owned(0o046_755))),
            evil::op_begin(ROOT, b"large", 1, owned(0o106_755), 1),
        ]),
        evil::data(1, 0, b"x"),
        evil::end(1, 0, evil::file_digest(&[(0, b"x")])),
        evil::pack(&[evil::op_close(ROOT, Some(owned(0o046_755)))]),
        evil::done(),
    ], 0, 4);
    let me = rustix::process::geteuid().as_raw();
    let tree = Tree::read(scene.dst());
    for path in [&b"f"[..], b"m", b"l", b"d", b"large"] {
        let node = tree.find(path).expect("it is there");
        assert_eq!((node.uid, node.mode & 0o6000), (me, 0), "{}", path.escape_ascii());
    }
    use std::os::unix::fs::MetadataExt;
    let root = scene.dst().metadata().expect("it is there");
    assert_eq!((root.uid(), root.mode() & 0o6000), (me, 0));
    // Times of any second are legal.
    for sec in [i64::MIN, -1, i64::MAX] {
        let Said { last, .. } = says(scene, &Hello::to(MODULE, "dst"), &[
            evil::pack(&[evil::op_file(ROOT, b"t", Meta { sec, ..file }, b"x")]),
            evil::done(),
        ]);
        assert!(matches!(last, Last::Report(0 | 23, ..)), "{sec}: {last:?}");
    }
}
}
