//! Peers and names that mean harm. Frames that are malformed on purpose belong here too.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};

use kernel_tests::scene::slash;
use kernel_tests::{Chance, Need, Push, Tree, content, guard, on_routes, plant, require};

/// Lines that a name could forge if it were written as it is.
const FORGED: &str = "x\n2030-01-01 INFO forged: all is well\r\x1b[2J\x1b]0;owned\x07";

on_routes! { tcp, unix;
fn names_forge_no_lines_in_the_servers_log(scene) {
    require!(Need::Sy);
    plant::file(scene.src().join(FORGED), "a file that can't be made");
    plant::file(scene.src().join(format!("{FORGED}dir/file")), "below");
    // It fails at the target, so both sides have a reason to name it.
    plant::file(scene.dst().join(FORGED).join("child"), "in the way");
    let outcome = scene.push(&["-v"]).run().exits(23).is_printable();
    assert!(!String::from_utf8_lossy(&outcome.stderr).contains("\n2030"), "{outcome}");
    for dest in [format!("{FORGED}/dst"), format!("dst/{FORGED}/x")] {
        scene.push_to(&dest).from(slash(scene.src())).run().is_printable();
    }
    let module = match scene.route {
        kernel_tests::Route::Tcp => {
            format!("sy://127.0.0.1:{}/{}/dst", scene.server().port(), FORGED.replace('/', ""))
        }
        kernel_tests::Route::Embedded | kernel_tests::Route::Unix | kernel_tests::Route::Ssh => format!("sy:///{}/dst", FORGED.replace('/', "")),
    };
    let mut push = Push::new(module).from(slash(scene.src()));
    if scene.route == kernel_tests::Route::Unix {
        push = push.option("--socket").option(scene.server().socket());
    }
    let outcome = push.run().is_printable();
    assert_ne!(outcome.code, Some(0), "{outcome}");
    let log = scene.server().log_bytes();
    let raw = log.iter().find(|&&byte| (byte < b' ' && byte != b'\n' && byte != b'\t') || byte == 0x7f);
    assert!(raw.is_none(), "raw byte {raw:?} in the log");
    let text = String::from_utf8_lossy(&log).into_owned();
    assert!(!text.lines().any(|line| line.starts_with("2030")), "a forged line:\n{text}");
    kernel_tests::yard::clear(&scene.export());
}
}

on_routes! { embedded, tcp, ssh;
fn troubles_with_long_names_stay_short_and_whole(scene) {
    require!(Need::Sy);
    let long = "n".repeat(255);
    let deep = format!("{long}/{long}/{long}");
    plant::file(scene.src().join(&deep).join("file"), "text");
    plant::file(scene.dst().join(&deep).join("file/child"), "in the way");
    let outcome = scene.push::<&str>(&[]).run().exits(23).is_printable();
    assert!(outcome.stderr.len() < 16 << 10, "{} bytes of errors", outcome.stderr.len());
}
}

on_routes! { tcp;
fn noise_on_the_port_changes_nothing_and_ends_nothing(scene) {
    require!(Need::Sy);
    plant::file(scene.dst().join("file"), "stays");
    let before = Tree::read(scene.export());
    let mut chance = Chance::new();
    for _ in 0..150 {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, scene.server().port()))
            .expect("it accepts");
        let len = chance.below(3000) as usize;
        let _ = stream.write_all(&content::noise(chance.draw() >> 32, len));
        let _ = stream.shutdown(Shutdown::Write);
        guard::read_to_end(&mut stream);
    }
    before.assert_untouched(&Tree::read(scene.export()), "after noise");
}
}

on_routes! { tcp;
fn a_session_that_was_recorded_and_changed_harms_nothing(scene) {
    require!(Need::Sy);
    // The client's own bytes, each time with some of them changed: most get past the greeting.
    plant::file(scene.src().join("file"), content::noise(1, 3000));
    plant::file(scene.src().join("dir/file"), content::noise(2, 3000));
    let recorded = record(scene);
    let mut chance = Chance::new();
    for _ in 0..150 {
        let mut bytes = recorded.clone();
        for _ in 0..=chance.below(3) {
            let at = chance.below(bytes.len() as u64) as usize;
            bytes[at] = chance.draw().to_le_bytes()[0];
        }
        if chance.below(4) == 0 {
            bytes.truncate(chance.below(bytes.len() as u64) as usize);
        }
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, scene.server().port()))
            .expect("it accepts");
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        guard::read_to_end(&mut stream);
        scene.assert_outside_untouched();
    }
}
}

/// What a client says in one push, taken down by a listener that passes it on.
fn record(scene: &mut kernel_tests::Scene) -> Vec<u8> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("it has an address").port();
    let upstream = scene.server().port();
    let recorder = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("the client comes");
        let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).expect("it accepts");
        let (mut from, mut to) = (
            server.try_clone().expect("a copy"),
            client.try_clone().expect("a copy"),
        );
        let back = std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
        let (mut recorded, mut block) = (Vec::new(), [0; 65536]);
        while let Ok(len @ 1..) = client.read(&mut block) {
            recorded.extend_from_slice(&block[..len]);
            if server.write_all(&block[..len]).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Write);
        back.join().expect("the way back ends");
        recorded
    });
    scene
        .push_to_port("dst", port)
        .from(slash(scene.src()))
        .run()
        .ok();
    recorder.join().expect("the recorder ends")
}
