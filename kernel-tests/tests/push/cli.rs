//! The command lines, and what is said when something is wrong with what they name.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use kernel_tests::scene::slash;
use kernel_tests::{
    Need, Outcome, Push, Route, Scene, Server, Tree, Yard, content, guard, on_routes, plant, push,
    require, subject,
};

/// Runs the client with exactly these words.
fn sy(words: &[&str]) -> Outcome {
    let mut line = vec![subject::client().into()];
    line.extend(words.iter().map(Into::into));
    push::start(&line, None).wait()
}

#[test]
fn nonsense_is_exit_1_and_named() {
    require!(Need::Sy);
    let yard = Yard::new();
    plant::file(yard.join("src/file"), "text");
    let (src, dst) = (yard.join("src/"), yard.join("dst"));
    let (src, dst) = (src.to_str().expect("text"), dst.to_str().expect("text"));
    for (options, word) in [
        (&["--nonsense"][..], "--nonsense"),
        (&["-Q"], "-Q"),
        (&["--engine=epoll"], "epoll"),
        (&["--durability=eternal"], "eternal"),
        (&["--max-delete=many"], "many"),
        (&["--max-delete=-5"], "-5"),
        (&["--timeout=soon"], "soon"),
        (&["--delete=yes"], "--delete"),
        (&["--checksum-seed=1"], "--checksum-seed"),
    ] {
        let mut words = vec!["push"];
        words.extend(options);
        words.extend([src, dst]);
        sy(&words).exits(1).complains(&[word]);
        assert!(
            !yard.join("dst").exists(),
            "{options:?} fails before any work"
        );
    }
    for words in [
        &["push"][..],
        &["push", src],
        &["push", "-v"],
        &["push", src, ""],
        &["pull", src, dst],
        &[],
    ] {
        let outcome = sy(words);
        assert!(!outcome.stderr.is_empty(), "{outcome}");
        outcome.exits(1);
    }
}

#[test]
fn an_empty_source_name_is_not_the_working_directory() {
    require!(Need::Sy);
    let yard = Yard::new();
    plant::file(yard.join("dst/file"), "stays");
    let outcome = Push::new(yard.join("dst"))
        .from("")
        .option("--delete")
        .in_dir(yard.path())
        .run();
    assert_ne!(outcome.code, Some(0), "{outcome}");
    assert_eq!(Tree::read(yard.join("dst")).len(), 1);
}

#[test]
fn destinations_that_make_no_sense_are_exit_1_and_named() {
    require!(Need::Sy);
    let yard = Yard::new();
    plant::file(yard.join("src/file"), "text");
    for dest in [
        "sy://",
        "sy://127.0.0.1:99999/m/x",
        "sy://127.0.0.1:port/m/x",
        "sy://127.0.0.1:7000",
        "sy://127.0.0.1:7000/../x",
        "sy://127.0.0.1:7000/./x",
    ] {
        let push = Push::new(dest)
            .from(slash(yard.join("src")))
            .in_dir(yard.path());
        push.run().exits(1).complains(&[dest]);
    }
    assert_eq!(
        std::fs::read_dir(yard.path()).expect("it lists").count(),
        1,
        "and made no path"
    );
}

#[test]
fn help_and_version_are_said_and_are_no_error() {
    require!(Need::Sy);
    for words in [
        &["--help"][..],
        &["push", "--help"],
        &["push", "-h"],
        &["--version"],
    ] {
        let outcome = sy(words).ok();
        assert!(
            !outcome.stdout.is_empty() && outcome.stderr.is_empty(),
            "{outcome}"
        );
    }
    let short = sy(&["push", "-h"]).ok();
    let text = String::from_utf8(short.stdout).expect("help is text");
    for option in [
        "--dry-run",
        "--verbose",
        "--quiet",
        "--itemize-changes",
        "--delete",
        "--max-delete",
        "--stats",
        "--progress",
        "--json",
        "--durability",
        "--allow-empty-source",
        "--timeout",
        "--numeric-ids",
        "--socket",
    ] {
        assert!(text.contains(option), "{option} is explained:\n{text}");
    }
}

on_routes! { embedded, tcp, unix, ssh;
fn short_options_may_be_joined_and_names_may_start_with_a_dash(scene) {
    plant::file(scene.src().join("-dash"), "text");
    let before = Tree::read(scene.export());
    scene.push(&["-anvi"]).run().ok();
    before.assert_equals(&Tree::read(scene.export()), "dry run");
    scene.push_to("dst/").in_dir(scene.src()).option("-a").option("--").from("-dash").run().ok();
    assert!(scene.dst().join("-dash").is_file());
}
}

on_routes! { embedded, tcp, unix, ssh;
fn a_missing_source_is_exit_23_and_named(scene) {
    let missing = scene.path().join("missing");
    for source in [missing.clone().into_os_string(), slash(&missing)] {
        let outcome = scene.push_to("dst").from(source).run().exits(23);
        outcome.complains(&["missing", "No such file or directory"]);
    }
}
}

on_routes! { embedded, tcp, unix, ssh;
fn a_missing_source_does_not_hold_up_the_others(scene) {
    plant::file(scene.src().join("file"), "text");
    let push = scene.push_to("dst").from(scene.path().join("missing")).from(slash(scene.src()));
    push.run().exits(23).complains(&["missing", "No such file or directory"]);
    assert!(scene.dst().join("file").exists());
}
}

on_routes! { tcp, unix;
fn an_unknown_module_is_exit_5_and_named(scene) {
    plant::file(scene.src().join("file"), "text");
    for name in ["nowhere", "M", "m2"] {
        let outcome = to_module(scene, name, "dst").run();
        outcome.exits_one_of(if Need::Sy.met().is_err() { &[4, 5] } else { &[5] }).complains(&[name]);
    }
}
}

/// `src/` to a module by name.
fn to_module(scene: &mut Scene, module: &str, dest: &str) -> Push {
    let scheme = if subject::is_stand_in() {
        "rsync"
    } else {
        "sy"
    };
    let source = slash(scene.src());
    if scene.route == Route::Tcp {
        let port = scene.server().port();
        Push::new(format!("{scheme}://127.0.0.1:{port}/{module}/{dest}")).from(source)
    } else {
        let socket = scene.server().socket();
        Push::new(format!("sy:///{module}/{dest}"))
            .option("--socket")
            .option(socket)
            .from(source)
    }
}

on_routes! { tcp, unix;
fn a_read_only_module_is_exit_5_and_stays_as_it_is(scene) {
    require!(Need::Sy);
    let other = scene.path().join("other");
    plant::file(other.join("dst/file"), "stays");
    plant::file(scene.src().join("file"), "text");
    scene.serve(Server::new(scene.path()).read_only_module("fixed", &other));
    let before = Tree::read(&other);
    let outcome = to_module(scene, "fixed", "dst").option("--delete").run();
    outcome.exits(5).complains(&["fixed", "read-only"]);
    before.assert_untouched(&Tree::read(&other), "a read-only module");
}
}

on_routes! { tcp, unix;
fn a_module_whose_directory_is_gone_is_an_error_with_a_reason(scene) {
    require!(Need::Sy);
    let other = scene.path().join("other");
    plant::file(scene.src().join("file"), "text");
    plant::dir(&other);
    scene.serve(Server::new(scene.path()).module("gone", &other));
    plant::remove(&other);
    let outcome = to_module(scene, "gone", "dst").run();
    assert_ne!(outcome.code, Some(0), "{outcome}");
    assert!(!outcome.stderr.is_empty(), "{outcome}");
}
}

on_routes! { tcp, unix;
fn a_path_cannot_climb_out_of_its_module(scene) {
    require!(Need::Sy);
    plant::file(scene.src().join("file"), "text");
    for dest in ["../outside", "dst/../../outside", "..", "dst/..", "./../outside/dir"] {
        let outcome = scene.push_to(dest).from(slash(scene.src())).option("--delete").run();
        assert!(outcome.code.is_some(), "{outcome}");
        scene.assert_outside_untouched();
        if dest.contains("outside") {
            assert_ne!(outcome.code, Some(0), "{dest}: {outcome}");
        }
    }
}
}

#[test]
fn a_port_where_nobody_listens_is_exit_10_and_named() {
    require!(Need::Sy);
    let yard = Yard::new();
    plant::file(yard.join("src/file"), "text");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("it has an address").port();
    drop(listener);
    let outcome = Push::new(format!("sy://127.0.0.1:{port}/m/x"))
        .from(yard.join("src"))
        .run();
    outcome
        .exits(10)
        .complains(&[&format!("127.0.0.1:{port}"), "refused"]);
}

#[test]
fn a_socket_that_is_not_there_is_exit_10_and_named() {
    require!(Need::Sy);
    let yard = Yard::new();
    plant::file(yard.join("src/file"), "text");
    plant::file(yard.join("file"), "not a socket");
    for (name, why) in [("missing", "No such file"), ("file", "refused")] {
        let socket = yard.join(name);
        let push = Push::new("sy:///m/x").option("--socket").option(&socket);
        let outcome = push.from(yard.join("src")).run();
        outcome
            .exits(10)
            .complains(&[socket.to_str().expect("text"), why]);
    }
}

on_routes! { unix;
fn a_socket_is_for_its_user_alone(scene) {
    require!(Need::Sy);
    let meta = std::fs::symlink_metadata(scene.server().socket()).expect("it is there");
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    require!(Need::Nobody);
    plant::file(scene.src().join("file"), "text");
    let socket = scene.server().socket();
    let outcome = scene.push::<&str>(&[]).as_user(scene.nobody).run();
    outcome.exits(10).complains(&[socket.to_str().expect("text"), "Permission denied"]);
}
}

on_routes! { embedded, tcp, unix, ssh;
fn a_file_in_the_way_of_the_destination_is_named_and_kept(scene) {
    plant::file(scene.src().join("file"), "text");
    plant::file(scene.src().join("dir/file"), "text");
    plant::file(scene.dst(), "in the way");
    for dest in ["dst", "dst/", "dst/below", "dst/below/that"] {
        let outcome = scene.push_to(dest).from(slash(scene.src())).option("--delete").run();
        assert_ne!(outcome.code, Some(0), "{dest}: {outcome}");
        outcome.complains(&["dst", "directory"]);
        assert_eq!(std::fs::read(scene.dst()).expect("it is there"), b"in the way");
    }
}
}

on_routes! { embedded, tcp, unix, ssh;
fn a_file_in_the_way_of_a_directory_gives_way(scene) {
    plant::file(scene.src().join("dir/file"), "text");
    plant::file(scene.dst().join("dir"), "in the way");
    scene.assert_pushes::<&str>(&[]);
}
}

on_routes! { embedded, tcp, unix, ssh;
fn a_directory_in_the_way_of_a_file_is_told_and_counted_once(scene) {
    require!(Need::Sy);
    plant::file(scene.src().join("name"), "text");
    plant::file(scene.src().join("large"), content::noise(1, 300_000));
    for name in ["name", "large"] {
        plant::file(scene.dst().join(name).join("file"), "in the way");
    }
    let outcome = scene.push(&["--json"]).run().exits(23);
    assert_eq!(outcome.summary().errors, 2, "{outcome}");
    outcome.complains(&["name", "large", "not empty is in the way", "--delete"]);
    scene.push(&["--delete"]).run().ok();
    scene.assert_arrived();
}
}

on_routes! { tcp, unix;
fn a_symlink_on_the_way_to_dest_is_named(scene) {
    require!(Need::Sy);
    plant::file(scene.src().join("file"), "text");
    plant::dir(scene.export().join("real/sub"));
    plant::symlink("real", scene.export().join("link"));
    for dest in ["link", "link/sub", "link/new"] {
        let outcome = scene.push_to(dest).from(slash(scene.src())).run().exits(3);
        outcome.complains(&["link: it is a symlink", "push to what it names"]);
    }
}
}

#[test]
fn a_destination_without_permission_is_named() {
    require!(Need::Nobody);
    Scene::play(Route::Embedded, |scene| {
        plant::file(scene.src().join("file"), "text");
        plant::chmod(scene.export(), 0o755);
        let outcome = scene.push::<&str>(&[]).as_user(scene.nobody).run();
        assert_ne!(outcome.code, Some(0), "{outcome}");
        outcome.complains(&["dst", "Permission denied"]);
        plant::file(scene.dst().join("file"), "older");
        let outcome = scene.push::<&str>(&[]).as_user(scene.nobody).run();
        outcome.exits(23).complains(&["file", "Permission denied"]);
        plant::chmod(scene.export(), 0o700);
        let outcome = scene.push::<&str>(&[]).as_user(scene.nobody).run();
        assert_ne!(outcome.code, Some(0), "{outcome}");
        outcome.complains(&["dst", "Permission denied"]);
    });
}

/// Runs the server with exactly these words until it ends by itself.
fn sy_server(words: &[&str]) -> Outcome {
    let mut line = vec![subject::server().into()];
    line.extend(words.iter().map(Into::into));
    push::start(&line, None).wait()
}

#[test]
fn a_server_that_makes_no_sense_does_not_start() {
    require!(Need::Sy);
    let yard = Yard::new();
    plant::file(yard.join("file"), "not a directory");
    let path = |name: &str| yard.join(name).to_str().expect("text").to_owned();
    let (socket, missing, file) = (path("sock"), path("missing"), path("file"));
    let module = |path: &str| format!("m={path}");
    let here = path("");
    for (words, complaint) in [
        (vec!["--nonsense"], "--nonsense"),
        (vec!["--socket", &socket, "--module", "m"], "m"),
        (
            vec!["--socket", &socket, "--module", &module(&missing)],
            "missing",
        ),
        (
            vec!["--socket", &socket, "--module", &module(&file)],
            "file",
        ),
        (
            vec![
                "--socket",
                &socket,
                "--module",
                &module(&format!("{here},rx")),
            ],
            "rx",
        ),
        (
            vec!["--listen", "127.0.0.1:0", "--module", &module(&here)],
            "--no-auth",
        ),
        (
            vec![
                "--listen",
                "0.0.0.0:0",
                "--no-auth",
                "--module",
                &module(&here),
            ],
            "0.0.0.0",
        ),
        (
            vec![
                "--listen",
                "nowhere",
                "--no-auth",
                "--module",
                &module(&here),
            ],
            "nowhere",
        ),
        (
            vec!["--socket", "/nowhere/at/all", "--module", &module(&here)],
            "/nowhere/at/all",
        ),
    ] {
        let outcome = sy_server(&words);
        assert!(outcome.code.is_some_and(|code| code != 0), "{outcome}");
        outcome.complains(&[complaint]);
    }
}

on_routes! { tcp, unix;
fn a_second_server_does_not_take_the_place_of_the_first(scene) {
    require!(Need::Sy);
    let module = format!("m={}", scene.export().display());
    let socket = scene.server().socket().display().to_string();
    let listen = format!("127.0.0.1:{}", scene.server().port());
    let words = match scene.route {
        Route::Tcp => vec!["--listen", &listen, "--no-auth", "--module", &module],
        Route::Embedded | Route::Unix | Route::Ssh => vec!["--socket", &socket, "--module", &module],
    };
    let outcome = sy_server(&words);
    assert!(outcome.code.is_some_and(|code| code != 0), "{outcome}");
    outcome.complains(&[if scene.route == Route::Tcp { &listen } else { &socket }, "in use"]);
    scene.assert_serves();
}
}

on_routes! { unix;
fn what_is_no_socket_is_not_taken_over(scene) {
    require!(Need::Sy);
    let module = format!("m={}", scene.export().display());
    let precious = scene.path().join("precious");
    plant::file(&precious, "text");
    let link = scene.path().join("link");
    plant::symlink(&precious, &link);
    for path in [&precious, &link] {
        let outcome = sy_server(&["--socket", &path.display().to_string(), "--module", &module]);
        outcome.exits(10).complains(&["is no socket"]);
    }
    assert_eq!(std::fs::read(&link).expect("both are there"), b"text");
}
}

on_routes! { unix;
fn a_socket_left_by_a_killed_server_is_taken_over(scene) {
    require!(Need::Sy);
    scene.server().kill();
    let socket = scene.server().socket();
    assert!(socket.exists());
    let module = format!("m={},rw", scene.export().display());
    let mut child = Command::new(subject::server())
        .args(["--socket".as_ref(), socket.as_os_str(), "--module".as_ref(), module.as_ref()])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    plant::file(scene.src().join("file"), "text");
    let served = guard::comes_true(guard::hang(), || {
        scene.push::<&str>(&[]).run().code == Some(0)
            || child.try_wait().expect("a child can be waited for").is_some()
    });
    let ended = child.try_wait().expect("a child can be waited for");
    let _ = child.kill();
    let _ = child.wait();
    assert!(served && ended.is_none(), "the next server ended: {ended:?}");
    scene.assert_arrived();
    scene.server().start();
}
}

#[test]
fn what_is_above_something_that_is_not_there_is_no_destination() {
    Scene::play(Route::Embedded, |scene| {
        plant::file(scene.src().join("file"), "text");
        let dest = scene.export().join("missing/..");
        let outcome = Push::new(dest).from(slash(scene.src())).run();
        assert_ne!(outcome.code, Some(0), "{outcome}");
        assert_eq!(std::fs::read_dir(scene.export()).expect("it").count(), 0);
    });
}

#[test]
fn what_is_wrong_with_a_destination_of_this_host_is_said_of_it() {
    require!(Need::Sy, Need::Nobody);
    Scene::play(Route::Embedded, |scene| {
        plant::file(scene.src().join("file"), "text");
        plant::dir(scene.export().join("closed/a"));
        plant::chmod(scene.export().join("closed"), 0o700);
        for (dest, word) in [
            ("closed/a/b", "cannot be pushed to"),
            ("x/.sy.y", "belong to sy"),
        ] {
            let push = Push::new(scene.export().join(dest)).from(scene.src().join("file"));
            push.as_user(scene.nobody).run().exits(3).complains(&[word]);
        }
    });
}
