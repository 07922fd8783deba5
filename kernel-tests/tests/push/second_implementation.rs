//! Pushes by the second implementation of the protocol, which knows nothing but the page: the
//! server must take it for what it is, and the two sources must agree on what is in place.

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use kernel_tests::evil::{self, EvilServer};
use kernel_tests::second::load::{self, Load};
use kernel_tests::second::{self, Address, Aim, Failure, Notice, Pushed, Wishes};
use kernel_tests::server::Server;
use kernel_tests::variety::plant_variety;
use kernel_tests::{Need, Route, Scene, Tree, content, guard, on_routes, plant, require};

const MODULE: &str = "m";
const CHUNK: usize = 256 << 10;

fn address(scene: &mut Scene) -> Address {
    let port = scene.server().port();
    match scene.route {
        Route::Tcp => at(port),
        Route::Unix => Address::Unix(scene.server().socket()),
        Route::Embedded | Route::Ssh => panic!("nothing listens there"),
    }
}

fn at(port: u16) -> Address {
    Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

fn deleting() -> Wishes {
    Wishes {
        delete: true,
        ..Wishes::default()
    }
}

/// `src` to the scene's destination; whatever comes of it.
fn attempt(scene: &mut Scene, module: &str, wishes: &Wishes) -> Result<Pushed, Failure> {
    let aim = Aim::new(address(scene), module, scene.aimed_at());
    second::push_now(&scene.src(), &aim, wishes)
}

#[track_caller]
fn push(scene: &mut Scene, wishes: &Wishes) -> Pushed {
    let pushed = attempt(scene, MODULE, wishes)
        .unwrap_or_else(|failure| panic!("{failure}\n{}", scene.server().log()));
    assert_eq!(pushed.exit(), 0, "{pushed:?}");
    pushed
}

/// Pushing again, by either implementation, finds nothing to do.
#[track_caller]
fn assert_idle(scene: &mut Scene, wishes: &Wishes) {
    let before = Tree::read(scene.dst());
    let again = push(scene, wishes);
    assert!(again.changed_nothing(), "{again:?}");
    before.assert_untouched(&Tree::read(scene.dst()), "a second push");
    scene.assert_idle(if wishes.delete { &["--delete"] } else { &[] });
}

fn plant_sizes(root: &Path) {
    let large = [
        0,
        1,
        CHUNK - 1,
        CHUNK,
        CHUNK + 1,
        2 * CHUNK,
        5 * CHUNK + 77,
        9 << 20,
    ];
    for (number, len) in (0..).zip(large) {
        plant::file(
            root.join(format!("large/{len}")),
            content::noise(number, len),
        );
    }
    for number in 0..100 {
        let bytes = content::noise(number, 37 * number as usize);
        plant::file(root.join(format!("small/{}/{number}", number % 5)), bytes);
    }
}

/// Three levels with files of a few bytes.
fn plant_bush(root: &Path, version: u64) {
    for dir in 0..8 {
        for file in 0..12 {
            let path = root.join(format!("d{dir}/s{}/f{file}", file % 3));
            plant::file(path, content::noise(version + file, 90 * file as usize));
        }
    }
}

on_routes! { tcp, unix;
fn a_tree_of_everything_arrives_and_then_neither_implementation_finds_work(scene) {
    require!(Need::Sy, Need::Root);
    plant_variety(&scene.src());
    plant_sizes(&scene.src());
    push(scene, &Wishes::default());
    scene.assert_arrived();
    assert_idle(scene, &Wishes::default());
}
}

on_routes! { tcp, unix;
fn the_product_pushes_first_and_the_second_implementation_finds_no_work(scene) {
    require!(Need::Sy, Need::Root);
    plant_variety(&scene.src());
    plant_sizes(&scene.src());
    scene.push::<&str>(&[]).run().ok();
    scene.assert_arrived();
    assert_idle(scene, &Wishes::default());
}
}

on_routes! { tcp, unix;
fn changes_and_extra_entries_are_brought_in_line(scene) {
    require!(Need::Sy);
    plant_bush(&scene.src(), 1);
    push(scene, &Wishes::default());
    // A file grows, one changes its mode only, kinds trade places, and there is more than there
    // should be.
    plant::file(scene.src().join("d1/s1/f1"), content::noise(7, 3 * CHUNK));
    plant::chmod(scene.src().join("d1/s2/f2"), 0o600);
    plant::remove(scene.src().join("d2"));
    plant::file(scene.src().join("d2"), "was a directory");
    plant::remove(scene.src().join("d3/s0/f0"));
    plant::file(scene.src().join("d3/s0/f0/below"), "was a file");
    plant::symlink("d1", scene.src().join("d4/link"));
    plant::remove(scene.src().join("d5"));
    plant::file(scene.dst().join("d6/extra/deep/file"), "goes");
    plant::symlink("/etc", scene.dst().join("d6/s0/extra-link"));
    let pushed = push(scene, &deleting());
    scene.assert_arrived();
    assert_eq!(pushed.counts.mended, 1, "{pushed:?}");
    let told: Vec<&[u8]> = pushed.notices.iter().filter_map(|notice| match notice {
        Notice::Deleted { path, .. } => Some(path.as_slice()),
        Notice::Failed { .. } => None,
    }).collect();
    assert!(told.contains(&b"d6/extra/deep/file".as_slice()), "{pushed:?}");
    assert_eq!(told.len() as u64, pushed.report.deleted, "{pushed:?}");
    assert_idle(scene, &deleting());
}
}

on_routes! { tcp, unix;
fn a_directory_in_the_way_is_told_and_the_rest_arrives(scene) {
    require!(Need::Sy);
    plant_bush(&scene.src(), 1);
    plant::file(scene.dst().join("d1/s1/f1/inside"), "keeps it from going");
    let pushed = attempt(scene, MODULE, &Wishes::default()).expect("it is reported");
    assert_eq!(pushed.exit(), 23, "{pushed:?}");
    let in_the_way = pushed.notices.iter().any(|notice| {
        matches!(notice, Notice::Failed { reason: 4, path, .. } if path == b"d1/s1/f1")
    });
    assert!(in_the_way, "{pushed:?}");
    plant::remove(scene.dst().join("d1/s1/f1"));
    push(scene, &Wishes::default());
    scene.assert_arrived();
}
}

on_routes! { tcp, unix;
fn a_limit_of_deletions_is_kept_and_reported(scene) {
    require!(Need::Sy);
    plant_bush(&scene.src(), 1);
    push(scene, &Wishes::default());
    for number in 0..9 {
        plant::file(scene.dst().join(format!("extra{number}")), "one too many");
    }
    let wishes = Wishes { delete_max: Some(4), ..deleting() };
    let pushed = attempt(scene, MODULE, &wishes).expect("it is reported");
    assert_eq!((pushed.exit(), pushed.report.deleted, pushed.report.deletes_skipped), (25, 4, 5), "{pushed:?}");
}
}

on_routes! { tcp, unix;
fn a_dry_run_changes_nothing_and_says_what_would_be_deleted(scene) {
    require!(Need::Sy);
    plant_bush(&scene.src(), 1);
    let wishes = Wishes { dry_run: true, ..deleting() };
    let pushed = push(scene, &wishes);
    assert!(!scene.dst().exists(), "{pushed:?}");
    push(scene, &Wishes::default());
    plant::file(scene.dst().join("extra/file"), "stays");
    plant::file(scene.src().join("d1/new"), "would come");
    let before = Tree::read(scene.dst());
    let pushed = push(scene, &wishes);
    before.assert_untouched(&Tree::read(scene.dst()), "a dry run");
    assert_eq!((pushed.report.deleted, pushed.counts.files_sent), (2, 1), "{pushed:?}");
}
}

on_routes! { tcp, unix;
fn odd_names_long_ones_and_wide_directories_arrive(scene) {
    require!(Need::Sy);
    use std::os::unix::ffi::OsStrExt;
    let src = scene.src();
    let longest = "n".repeat(255);
    for name in ["-", "--delete", " ", "a\nb", "\u{1b}[2J", "...", ".sy", ".syx", "\\", &longest] {
        plant::file(src.join("names").join(name), name);
        plant::file(src.join("dirs").join(name).join("below"), name);
        plant::symlink(name, src.join("links").join(name));
    }
    plant::file(src.join(std::ffi::OsStr::from_bytes(b"\xff\xfe not UTF-8 \x80")), "bytes");
    for byte in (1..=255_u8).filter(|byte| ![b'/', b'.'].contains(byte)) {
        plant::file(src.join("bytes").join(std::ffi::OsStr::from_bytes(&[byte])), [byte]);
    }
    // More than one section of a listing.
    for number in 0..9000 {
        plant::file(src.join(format!("wide/entry-{number}-{}", "x".repeat(40))), "");
    }
    push(scene, &Wishes::default());
    scene.assert_arrived();
    assert_idle(scene, &deleting());
}
}

on_routes! { tcp, unix;
fn one_file_arrives_under_its_own_name_or_under_that_of_dest(scene) {
    require!(Need::Sy);
    let file = scene.src().join("file");
    plant::file(&file, content::noise(1, 2 * CHUNK + 1));
    plant::dir(scene.dst());
    for (dest, arrives) in [("dst", "dst/file"), ("dst/other", "dst/other")] {
        let aim = Aim::new(address(scene), MODULE, dest);
        for sends in [1, 0] {
            let pushed = second::push_now(&file, &aim, &Wishes::default()).expect("it is pushed");
            assert_eq!((pushed.exit(), pushed.counts.files_sent), (0, sends), "{pushed:?}");
        }
        scene.expected(&file).assert_equals(&Tree::read(scene.export().join(arrives)), dest);
    }
}
}

on_routes! { tcp, unix;
fn a_target_inside_of_the_source_is_not_sent_into_itself(scene) {
    require!(Need::Sy);
    plant_bush(&scene.src(), 1);
    let inside = scene.src().join("inside");
    plant::dir(&inside);
    let server = Server::new(scene.path()).module("inner", &inside);
    scene.serve(server);
    let aim = Aim::new(address(scene), "inner", "");
    let pushed = second::push_now(&scene.src(), &aim, &Wishes::default()).expect("it is pushed");
    assert_eq!(pushed.exit(), 0, "{pushed:?}");
    assert!(inside.join("d1").exists() && !inside.join("inside").exists());
}
}

on_routes! { tcp, unix;
fn what_a_server_refuses_is_understood(scene) {
    require!(Need::Sy);
    plant_bush(&scene.src(), 1);
    let below_a_file = scene.export().join("file");
    plant::file(&below_a_file, "no directory");
    let server = Server::new(scene.path()).read_only_module("ro", &scene.export());
    scene.serve(server);
    for (module, dest, refusal, exit) in [
        ("nobody-exports-this", "dst", 2, 5),
        ("ro", "dst", 3, 5),
        (MODULE, "absent/dst", 4, 3),
        (MODULE, "file", 5, 3),
        ("", "dst", 2, 5),
    ] {
        let aim = Aim::new(address(scene), module, dest);
        let failure = second::push_now(&scene.src(), &aim, &Wishes::default()).expect_err(module);
        let fits = matches!(&failure, Failure::Refused { refusal: told, .. } if *told == refusal);
        assert!(fits && failure.exit() == exit, "{module}/{dest}: {failure:?}");
    }
}
}

on_routes! { tcp, unix;
fn sixty_four_clients_at_once_all_arrive(scene) {
    require!(Need::Sy);
    plant_bush(&scene.src(), 1);
    plant::file(scene.src().join("large"), content::noise(9, 3 * CHUNK + 5));
    plant::dir(scene.export().join("of"));
    let load = load_of(scene, 64, 0);
    for changes_nothing in [false, true] {
        let loaded = load::run(&load);
        assert_eq!(loaded.pushes.len(), 64);
        for timed in &loaded.pushes {
            let pushed = timed.result.as_ref().expect("it is reported");
            assert_eq!(pushed.exit(), 0, "{pushed:?}");
            assert_eq!(pushed.changed_nothing(), changes_nothing, "{pushed:?}");
        }
    }
    let expected = scene.expected(scene.src());
    for client in 0..64 {
        let there = Tree::read(scene.export().join(format!("of/{client}")));
        expected.assert_equals(&there, "one of many");
    }
}
}

fn load_of(scene: &mut Scene, clients: usize, idle: usize) -> Load {
    Load {
        server: address(scene),
        module: MODULE.to_owned(),
        source: scene.src(),
        dest_prefix: "of/".to_owned(),
        clients,
        idle,
        wishes: Wishes::default(),
        time_max: guard::hang(),
    }
}

on_routes! { tcp;
fn a_thousand_connections_that_do_nothing_hinder_nobody(scene) {
    require!(Need::Sy);
    plant_bush(&scene.src(), 1);
    plant::dir(scene.export().join("of"));
    // Half of them never say HELLO.
    let port = scene.server().port();
    let mut silent: Vec<TcpStream> = (0..500)
        .map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the server accepts"))
        .collect();
    let loaded = load::run(&load_of(scene, 4, 500));
    for timed in &loaded.pushes {
        let pushed = timed.result.as_ref().expect("it is reported");
        assert_eq!(pushed.exit(), 0, "{pushed:?}");
    }
    assert_eq!(loaded.idle_ended_well, 500, "the greeted ones end in order");
    for stream in &mut silent {
        stream.set_read_timeout(Some(guard::hang())).expect("a socket has a patience");
        let refused = evil::read_frame(stream).expect("the server says why it closes");
        assert_eq!((refused.kind, refused.payload[0]), (evil::REFUSED, 7));
    }
}
}

on_routes! { tcp;
fn ten_thousand_sessions_that_do_nothing_hinder_nobody(scene) {
    require!(Need::Sy, Need::OpenFiles(11_000));
    let server = Server::new(scene.path()).option("--shards=3");
    scene.serve(server.option("--max-connections=10100"));
    plant_bush(&scene.src(), 1);
    plant::dir(scene.export().join("of"));
    let loaded = load::run(&load_of(scene, 4, 10_000));
    for timed in &loaded.pushes {
        let pushed = timed.result.as_ref().expect("it is reported");
        assert_eq!(pushed.exit(), 0, "{pushed:?}");
    }
    assert_eq!(loaded.idle_ended_well, 10_000);
}
}

/// A push of a small tree to a server that does this.
fn push_to(
    scene: &mut Scene,
    wishes: &Wishes,
    play: impl FnOnce(TcpStream) + Send + 'static,
) -> Result<Pushed, Failure> {
    plant::file(scene.src().join("file"), "text");
    let server = EvilServer::start(play);
    let aim = Aim::new(at(server.port()), MODULE, "dst");
    second::push_now(&scene.src(), &aim, wishes)
}

/// Reads until the client hangs up.
fn listen(mut stream: TcpStream) {
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}

on_routes! { tcp;
fn a_server_that_lies_is_found_out(scene) {
    require!(Need::Sy);
    let root = |status, count, entries: &[Vec<u8>]| {
        let section = evil::section(evil::ROOT, status, count, entries);
        [evil::welcome(1), evil::frame(evil::LISTING, &section)].concat()
    };
    let file = |name: &[u8]| evil::entry(name, evil::FILE, 4);
    let mut damaged = evil::welcome(1);
    damaged[40] ^= 1;
    for (what, bytes, exit) in [
        ("no frame", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), 2),
        ("another version", evil::welcome(2), 2),
        ("a report at once", evil::report(0), 12),
        ("a report before DONE", [evil::welcome(1), evil::report(0)].concat(), 12),
        ("two greetings", [evil::welcome(1), evil::welcome(1)].concat(), 12),
        ("a flipped bit", damaged, 12),
        ("names that descend", root(evil::COMPLETE, 2, &[file(b"b"), file(b"a")]), 12),
        ("a name that is a path", root(evil::COMPLETE, 1, &[file(b"../x")]), 12),
        ("a name of its own", root(evil::COMPLETE, 1, &[file(b".sy.x")]), 12),
        ("fewer entries than said", root(evil::COMPLETE, 2, &[file(b"a")]), 12),
        ("an absent directory with entries", root(evil::ABSENT, 1, &[file(b"a")]), 12),
        ("a full disk", [evil::welcome(1), evil::report(11)].concat(), 11),
    ] {
        let ended = push_to(scene, &Wishes::default(), move |mut stream| {
            let _ = stream.write_all(&bytes);
            listen(stream);
        });
        let code = ended.as_ref().map_or_else(Failure::exit, Pushed::exit);
        assert_eq!(code, exit, "{what}: {ended:?}");
    }
    let lost = push_to(scene, &Wishes::default(), |stream| {
        let _ = stream.shutdown(Shutdown::Write);
        listen(stream);
    });
    assert_eq!(lost.expect_err("nothing was said").exit(), 10);
    let wishes = Wishes { patience: Duration::from_millis(300), ..Wishes::default() };
    let silent = push_to(scene, &wishes, listen);
    assert_eq!(silent.expect_err("nothing was said").exit(), 30);
}
}

on_routes! { tcp;
fn it_reads_while_it_can_not_send(scene) {
    require!(Need::Sy);
    // The server says more than any socket holds, and reads nothing before it has said all of it.
    for number in 0..64 {
        plant::file(scene.src().join(format!("large{number}")), content::noise(number, CHUNK));
    }
    let pushed = push_to(scene, &Wishes::default(), |mut stream| {
        let section = evil::section(evil::ROOT, evil::COMPLETE, 0, &[]);
        stream.write_all(&evil::welcome(1)).expect("it is taken");
        stream.write_all(&evil::frame(evil::LISTING, &section)).expect("it is taken");
        let notice = evil::frame(evil::NOTICE, &evil::notice(&[b'x'; 8000]).repeat(30));
        for _ in 0..256 {
            stream.write_all(&notice).expect("a client that reads takes it");
        }
        while let Some(frame) = evil::read_frame(&mut stream) {
            if frame.kind == evil::DONE {
                break;
            }
        }
        stream.write_all(&evil::report(0)).expect("it is taken");
        listen(stream);
    });
    assert_eq!(pushed.expect("it is reported").exit(), 0);
}
}

on_routes! { tcp;
fn both_implementations_leave_the_same_things_alone(scene) {
    require!(Need::Sy);
    plant_bush(&scene.src(), 1);
    push(scene, &Wishes::default());
    // A fifo that this target can't have, where it has a directory; a time without nanoseconds.
    plant::fifo(scene.src().join("d1/node"));
    plant::file(scene.dst().join("d1/node/inside"), "stays");
    plant::mtime(scene.src().join("d2/s2/f2"), 1_700_000_000, 123);
    plant::mtime(scene.dst().join("d2/s2/f2"), 1_700_000_000, 0);
    for dir in ["d1", "d2/s2"] {
        plant::mtime(scene.src().join(dir), 1_600_000_000, 5);
        plant::mtime(scene.dst().join(dir), 1_600_000_000, 5);
    }
    let before = Tree::read(scene.dst());
    let pushed = push(scene, &deleting());
    assert!(pushed.changed_nothing(), "{pushed:?}");
    assert_eq!(pushed.counts.skipped, 1, "{pushed:?}");
    before.assert_untouched(&Tree::read(scene.dst()), "a push with nothing to do");
    scene.assert_idle(&["--delete"]);
}
}
