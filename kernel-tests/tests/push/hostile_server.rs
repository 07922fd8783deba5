//! A server that means harm, against the real client: it ends with one clear line and the right
//! code, and shows nothing that a terminal would obey.

use std::io::{Read, Write};
use std::net::TcpStream;

use kernel_tests::evil::{self, Bytes, EvilServer, ROOT};
use kernel_tests::scene::slash;
use kernel_tests::{Need, Outcome, Scene, on_routes, plant, require};

/// A push to a server that does this.
#[track_caller]
fn push_to(
    scene: &mut Scene,
    options: &[&str],
    play: impl FnOnce(TcpStream) + Send + 'static,
) -> Outcome {
    plant::file(scene.src().join("dir/file"), "text");
    plant::file(scene.src().join("file"), "text");
    let server = EvilServer::start(play);
    let push = scene.push_to_port("dst", server.port());
    push.from(slash(scene.src()))
        .options(options)
        .run()
        .is_printable()
}

/// Reads until the client hangs up.
fn listen(mut stream: TcpStream) {
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}

/// Says this to whatever comes, then listens.
fn say(bytes: Vec<u8>) -> impl FnOnce(TcpStream) + Send + 'static {
    move |mut stream| {
        let _ = stream.write_all(&bytes);
        listen(stream);
    }
}

/// After the greeting, answers the first LIST with this.
fn answer(bytes: Vec<u8>) -> impl FnOnce(TcpStream) + Send + 'static {
    move |mut stream| {
        let _ = stream.write_all(&evil::welcome(1));
        while let Some(frame) = evil::read_frame(&mut stream) {
            if frame.kind == evil::LIST {
                break;
            }
        }
        let _ = stream.write_all(&bytes);
        listen(stream);
    }
}

fn listing(sections: &[Vec<u8>]) -> Vec<u8> {
    evil::frame(evil::LISTING, &sections.concat())
}

fn file(name: &[u8]) -> Vec<u8> {
    evil::entry(name, evil::FILE, 4)
}

on_routes! { tcp;
fn a_wrong_greeting_ends_a_push_with_one_line(scene) {
    require!(Need::Sy);
    for greeting in [
        &b"HTTP/1.1 400 Bad Request\r\nServer: \x1b[2Jx\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"@RSYNCD: 31.0 md5\n",
        &[0; 4096],
        &[0xff; 4096],
        &evil::frame(0x90, b""),
    ] {
        push_to(scene, &[], say(greeting.to_vec())).exits(2).complains(&["not"]);
    }
    for version in [0, 2, u16::MAX] {
        push_to(scene, &[], say(evil::welcome(version))).exits(2).complains(&["version"]);
    }
    for bytes in [
        evil::report(0),
        listing(&[evil::section(ROOT, evil::COMPLETE, 0, &[])]),
        evil::frame(evil::NOTICE, &evil::notice(b"x")),
        evil::frame(evil::STOP, &[1, 0, 0, 0, 0]),
        evil::frame(evil::HELLO, b""),
        evil::list(1, ROOT, Some(b"x")),
        evil::frame(evil::WELCOME, b""),
        [evil::welcome(1), evil::welcome(1)].concat(),
        [evil::welcome(1), evil::report(0)].concat(),
        [evil::welcome(1), evil::frame(evil::MAPPED, &Bytes::new().u8(1).u32(7).u32(8).0)].concat(),
        [evil::welcome(1), evil::report(99)].concat(),
    ] {
        push_to(scene, &[], say(bytes)).exits(12);
    }
}
}

on_routes! { tcp;
fn listings_that_lie_end_a_push(scene) {
    require!(Need::Sy);
    let root = |count, entries: &[Vec<u8>]| evil::section(ROOT, evil::COMPLETE, count, entries);
    let shares = Bytes::new().u8(9).raw(&file(b"b")[1..]).0;
    for (what, bytes) in [
        ("of what was never asked for", listing(&[evil::section(77, evil::COMPLETE, 0, &[])])),
        ("twice", listing(&[root(0, &[]), root(0, &[])])),
        ("names that descend", listing(&[root(2, &[file(b"b"), file(b"a")])])),
        ("a name twice", listing(&[root(2, &[file(b"a"), file(b"a")])])),
        ("more entries than there are", listing(&[root(u32::MAX, &[file(b"a")])])),
        ("fewer entries than there are", listing(&[root(1, &[file(b"a"), file(b"b")])])),
        ("a name that is a path", listing(&[root(1, &[file(b"../x")])])),
        ("a name of ours", listing(&[root(1, &[file(b".sy.x")])])),
        ("no name", listing(&[root(1, &[file(b"")])])),
        ("a name that shares too much", listing(&[root(2, &[file(b"a"), shares])])),
        ("a kind that is none", listing(&[root(1, &[evil::entry(b"a", 0o644, 0)])])),
        ("a status that is none", listing(&[evil::section(ROOT, 9, 0, &[])])),
        ("an error of a directory that is whole", listing(&[
            Bytes::new().u32(ROOT).u8(evil::COMPLETE).u16(13).u32(0).0,
        ])),
        ("a reason and an error", evil::frame(
            evil::NOTICE,
            &Bytes::new().u8(2).u8(5).u8(1).u16(13).text(b"x").0,
        )),
        ("a deleted entry that is neither file nor directory", evil::frame(
            evil::NOTICE,
            &Bytes::new().u8(1).u16(0o120_000).text(b"x").0,
        )),
        ("descending over two frames", [
            listing(&[evil::section(ROOT, 1, 1, &[file(b"b")])]),
            listing(&[root(1, &[file(b"a")])]),
        ].concat()),
    ] {
        println!("{what}");
        push_to(scene, &["--delete"], answer(bytes)).exits(12);
    }
}
}

on_routes! { tcp;
fn stops_of_anything_do_not_confuse_a_push(scene) {
    require!(Need::Sy);
    let mut stops = Vec::new();
    for id in (0..2000).chain([u32::MAX]) {
        stops.extend(Bytes::new().u8(2).u32(id).0);
        stops.extend(Bytes::new().u8(1).u32(id).0);
    }
    plant::file(scene.src().join("large"), vec![7; 3 << 20]);
    let stops = evil::frame(evil::STOP, &stops);
    let bytes = [stops.clone(), listing(&[evil::section(ROOT, evil::ABSENT, 0, &[])]), stops.clone(), stops].concat();
    let outcome = push_to(scene, &["--timeout", "2"], answer(bytes));
    // Whatever it makes of it, the server never reports.
    outcome.exits_one_of(&[10, 12, 30]);
}
}

on_routes! { tcp;
fn notices_without_end_are_escaped_and_do_not_fill_the_memory(scene) {
    require!(Need::Sy);
    let nasty = b"\x1b]0;owned\x07\x1b[2J\r\n\xff\xc2\x9b31mfake: all is well\n";
    let mut items = Vec::new();
    for _ in 0..500 {
        items.extend(evil::notice(nasty));
    }
    let notices = evil::frame(evil::NOTICE, &items);
    let outcome = push_to(scene, &[], move |mut stream| {
        let _ = stream.write_all(&evil::welcome(1));
        for _ in 0..100 {
            if stream.write_all(&notices).is_err() {
                return;
            }
        }
        let _ = stream.shutdown(std::net::Shutdown::Write);
        listen(stream);
    });
    let outcome = outcome.exits(10);
    assert!(!String::from_utf8_lossy(&outcome.stderr).lines().any(|line| line.starts_with("fake")));
    let text = Bytes::new().u8(6).text(nasty).0;
    push_to(scene, &[], say(evil::frame(evil::REFUSED, &text))).exits(12);
    let long = Bytes::new().u8(6).text(&[b'x'; 5000]).0;
    push_to(scene, &[], say(evil::frame(evil::REFUSED, &long))).exits(12);
}
}

on_routes! { tcp;
fn a_server_that_falls_silent_or_away_ends_a_push_with_its_code(scene) {
    require!(Need::Sy);
    push_to(scene, &["--timeout", "2"], listen).exits(30);
    push_to(scene, &["--timeout", "2"], answer(Vec::new())).exits(30);
    let whole = evil::welcome(1);
    for bytes in [0, 1, 15, 16, 17, whole.len() - 1] {
        let part = whole[..bytes].to_vec();
        let cut = move |mut stream: TcpStream| {
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(&part);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            listen(stream);
        };
        // A first word that is cut is not known to be sy's.
        let code: &[i32] = if (1..16).contains(&bytes) { &[2, 10] } else { &[10] };
        push_to(scene, &[], cut).exits_one_of(code);
    }
    for at in [16, 20, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        push_to(scene, &[], say(damaged)).exits(12);
    }
    for at in 0..16 {
        let mut damaged = [evil::welcome(1), evil::frame(evil::IGNORABLE, b"x")].concat();
        damaged[whole.len() + at] ^= 1;
        push_to(scene, &[], say(damaged)).exits(12);
    }
}
}
