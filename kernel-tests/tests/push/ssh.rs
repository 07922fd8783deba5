//! What is particular to remote shells: their command lines, what they print, how they end, and
//! what a key may do. Most of it by a script in ssh's place, the rest by a real sshd.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, test_kill_process};

use kernel_tests::invariant::assert_between;
use kernel_tests::scene::slash;
use kernel_tests::{
    Chance, Need, Outcome, Push, Running, Tree, Yard, content, evil, guard, on_routes, plant, push,
    require, subject,
};

/// Runs what it is told as an sshd would: by a shell, in the user's home.
const AS_SSHD: &str = "exec sh -c \"$*\"";
/// Runs it without a shell in between, so that the remote shell's process becomes the server.
const DIRECTLY: &str = "exec \"$@\"";

/// A source and a home over there, joined by a script in ssh's place.
struct Bench {
    yard: Yard,
}

impl Bench {
    /// `body` is what the script does with the command, once the host is taken off and home is
    /// the working directory. `$yard` is the bench's own directory.
    fn new(body: &str) -> Self {
        let yard = Yard::new();
        plant::file(yard.join("src/file"), "text");
        plant::file(yard.join("src/dir/below"), content::noise(1, 300_000));
        plant::dir(yard.join("home"));
        let bench = Self { yard };
        bench.shell(body);
        bench
    }

    fn shell(&self, body: &str) {
        let yard = self.yard.path().display();
        let script = format!(
            "#!/bin/sh\nyard={yard}\n\
             for word in \"$@\"; do printf '%s\\n' \"$word\" >>$yard/words; done\n\
             while [ \"$1\" != host ]; do shift; done\nshift\ncd $yard/home || exit 99\n{body}\n"
        );
        plant::file(self.path("rsh"), script);
        plant::chmod(self.path("rsh"), 0o755);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.yard.join(name)
    }

    fn rsh(&self) -> String {
        self.path("rsh").display().to_string()
    }

    /// `src/` to this DEST, with the words that say how.
    fn plain(&self, dest: &str) -> Push {
        let push = Push::new(dest).from(slash(self.path("src")));
        push.option("--sy-path").option(subject::server())
    }

    fn push(&self, dest: &str) -> Push {
        self.plain(dest).option("-e").option(self.rsh())
    }

    #[track_caller]
    fn assert_arrived(&self, below_home: &str) {
        let (src, dst) = (self.path("src"), self.path("home").join(below_home));
        Tree::read(src).assert_equals(&Tree::read(dst), "target");
    }

    #[track_caller]
    fn assert_home_is_empty(&self) {
        let tree = Tree::read(self.path("home"));
        assert_eq!(tree.len(), 0, "nothing was done over there");
    }

    /// The words that the remote shell was given the last time.
    fn words(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("words")).unwrap_or_default();
        drop(std::fs::remove_file(self.path("words")));
        text.lines().map(str::to_owned).collect()
    }

    /// The process that a script wrote into a file of the bench.
    #[track_caller]
    fn pid(&self, name: &str) -> Pid {
        let mut pid = None;
        guard::wait_until("the script to write its number", || {
            let text = std::fs::read_to_string(self.path(name)).unwrap_or_default();
            pid = text.strip_suffix('\n').and_then(|text| text.parse().ok());
            pid.is_some()
        });
        pid.and_then(Pid::from_raw).expect("a process")
    }
}

#[track_caller]
fn assert_ends(pid: Pid, what: &str) {
    guard::wait_until(what, || test_kill_process(pid).is_err());
}

/// One line that says what is wrong, and perhaps one that says what to try.
#[track_caller]
fn assert_one_word(outcome: &Outcome) {
    let text = String::from_utf8_lossy(&outcome.stderr).into_owned();
    let ours = text.lines().filter(|line| line.starts_with("sy: "));
    assert_eq!(ours.count(), 1, "one line: {outcome}");
}

#[test]
fn the_command_holds_host_and_server_and_nothing_of_the_path() {
    require!(Need::Sy);
    let bench = Bench::new(DIRECTLY);
    let rsh = format!("{} -o 'A  B'  \"it's\" 'it''s' \\ ''", bench.rsh());
    let name = "$(touch pwned); 'x' \"y";
    let push = bench.plain(&format!("me@host:{name}")).option("-e");
    push.option(rsh).run().ok();
    bench.assert_arrived(name);
    let server = subject::server().display().to_string();
    let expected = [
        "-o", "A  B", "it's", "it's", "\\", "", "-l", "me", "host", &server, "--stdio",
    ];
    assert_eq!(bench.words(), expected);
    assert_eq!(Tree::read(bench.path("home")).len(), 4, "and nothing else");
}

#[test]
fn the_environment_names_the_shell_and_the_command_line_goes_first() {
    require!(Need::Sy);
    let bench = Bench::new(AS_SSHD);
    let by = |rsh: &str| format!("SY_RSH={rsh}");
    let plain = bench.plain("host:a").through(&["env", &by(&bench.rsh())]);
    plain.run().ok();
    bench.assert_arrived("a");
    let both = bench.push("host:b").through(&["env", &by("/nonexistent")]);
    both.run().ok();
    bench.assert_arrived("b");
    let neither = bench.plain("host:c").through(&["env", &by("/nonexistent")]);
    neither
        .run()
        .exits(14)
        .complains(&["/nonexistent", "No such file"]);
    // Two colons go by TCP, whatever is in the environment.
    bench.words();
    let tcp = Push::new("host.invalid::m/x").from(slash(bench.path("src")));
    let outcome = tcp.through(&["env", &by(&bench.rsh())]).run();
    outcome.exits(10).complains(&["host.invalid"]);
    assert!(bench.words().is_empty());
}

#[test]
fn a_path_begins_at_home_or_at_the_root() {
    require!(Need::Sy);
    let bench = Bench::new(AS_SSHD);
    plant::dir(bench.path("home/there"));
    let whole = format!("host:{}/", bench.path("home/whole").display());
    for (dest, below) in [
        ("host:a", "a"),
        ("host:./b/", "b"),
        ("host:~/c", "c"),
        ("host:there/d", "there/d"),
        ("host:./~e", "~e"),
        (&whole, "whole"),
    ] {
        bench.push(dest).run().ok();
        bench.assert_arrived(below);
        plant::remove(bench.path("home").join(below));
    }
    plant::remove(bench.path("home/there"));
    for dest in ["host:", "host:.", "host:~"] {
        bench.push(dest).option("--delete").run().ok();
        bench.assert_arrived("");
        plant::file(bench.path("home/extra"), "goes");
    }
    let outcome = bench.push("host:missing/x").run().exits(3);
    let missing = bench.path("home/missing/x").display().to_string();
    outcome.complains(&["host: refused", &missing, "No such file"]);
    for dest in ["host:../x", "host:~other/x"] {
        bench.push(dest).run().exits(1).complains(&[dest]);
    }
}

#[test]
fn one_file_goes_to_the_name_that_dest_gives_it() {
    require!(Need::Sy);
    let bench = Bench::new(AS_SSHD);
    for (dest, below) in [("host:name", "name"), ("host:", "file"), ("host:~/n", "n")] {
        let push = Push::new(dest).from(bench.path("src/file"));
        let push = push.option("--sy-path").option(subject::server());
        push.option("-e").option(bench.rsh()).run().ok();
        assert_eq!(
            std::fs::read(bench.path("home").join(below)).expect("it is there"),
            b"text"
        );
    }
}

#[test]
fn a_host_that_looks_like_an_option_is_refused_before_anything_runs() {
    require!(Need::Sy);
    let bench = Bench::new(DIRECTLY);
    for dest in [
        "-oProxyCommand=x:y",
        "-host:y",
        "-l@host:y",
        "me@-host:y",
        "ho st:y",
        "$(x):y",
    ] {
        let push = Push::new(dest)
            .option("-e")
            .option(bench.rsh())
            .option("--");
        let outcome = push.from(slash(bench.path("src"))).run();
        outcome.exits(1).complains(&[dest]);
    }
    for dest in ["host:y", "me@host:y"] {
        let source = Push::new(bench.path("home"))
            .option("-e")
            .option(bench.rsh());
        source.from(dest).run().exits(1).complains(&[dest]);
    }
    assert!(bench.words().is_empty());
    bench.assert_home_is_empty();
}

#[test]
fn the_shell_has_the_umask_the_limits_and_the_stderr_of_who_pushes() {
    require!(Need::Sy);
    let bench = Bench::new(&format!(
        "(umask; ulimit -Sn) >$yard/found; echo from over there >&2; {DIRECTLY}"
    ));
    let outcome =
        bench
            .push("host:a")
            .through(&["sh", "-c", "umask 027; ulimit -Sn 700; exec \"$@\"", "sh"]);
    let outcome = outcome.run().ok();
    assert_eq!(
        std::fs::read(bench.path("found")).expect("it was written"),
        b"0027\n700\n"
    );
    assert_eq!(outcome.stderr, b"from over there\n", "{outcome}");
    assert!(outcome.stdout.is_empty(), "{outcome}");
}

#[test]
fn noise_before_the_server_speaks_is_shown_escaped_and_cut() {
    require!(Need::Sy);
    for (noise, shown) in [
        (
            "printf 'Welcome to this host\\n'",
            r"'Welcome to this host\x0a",
        ),
        ("printf 'Hi, all\\n'", r"'Hi, all\x0a"),
        (
            "printf '\\033[2J\\033]0;x\\007 and so on'",
            r"'\x1b[2J\x1b]0;x\x07 and",
        ),
        ("seq 100000", r"'1\x0a2\x0a3\x0a"),
        ("head -c 3000000 /dev/zero", r"'\x00\x00"),
    ] {
        let bench = Bench::new(&format!("{noise}; {AS_SSHD}"));
        let outcome = bench.push("host:a").run().exits(2).is_printable();
        assert_one_word(&outcome);
        let outcome = outcome.complains(&["host: cannot push", shown, "start-up files"]);
        let text = String::from_utf8_lossy(&outcome.stderr).into_owned();
        assert!(text.lines().all(|line| line.len() < 600), "cut: {outcome}");
        // The greeting was on its way before anybody knew, so DEST may have been made.
        assert!(!bench.path("home/a/file").exists());
    }
}

#[test]
fn a_flood_on_stderr_holds_nothing_up() {
    require!(Need::Sy);
    let bench = Bench::new(&format!("seq 200000 >&2; (seq 200000 >&2) & {AS_SSHD}"));
    plant::file(bench.path("src/large"), content::noise(2, 3 << 20));
    bench.push("host:a").run().ok();
    bench.assert_arrived("a");
}

#[test]
fn a_server_that_is_not_there_or_cannot_run_is_named_with_a_way_out() {
    require!(Need::Sy);
    let bench = Bench::new(AS_SSHD);
    plant::file(bench.path("plain"), "no program");
    let plain = bench.path("plain").display().to_string();
    for (server, code, words) in [
        ("no-such-server", 127, ["no-such-server", "--sy-path"]),
        (&plain, 126, [&plain, "its mode"]),
    ] {
        let push = Push::new("host:a").from(slash(bench.path("src")));
        let push = push
            .option("--rsh")
            .option(bench.rsh())
            .option("--sy-path")
            .option(server);
        let outcome = push.run().exits(code);
        assert_one_word(&outcome);
        outcome.complains(&words);
    }
    // It is looked for by the name that everybody knows.
    bench.words();
    let push = Push::new("host:a").from(slash(bench.path("src")));
    let push = push
        .option("-e")
        .option(bench.rsh())
        .through(&["env", "PATH=/usr/bin:/bin"]);
    push.run().exits(127).complains(&["sy-server: not found"]);
    assert_eq!(bench.words(), ["host", "sy-server", "--stdio"]);
    bench.assert_home_is_empty();
}

#[test]
fn a_shell_that_ends_without_a_word_is_told_with_its_end() {
    require!(Need::Sy);
    for (body, code, words) in [
        ("exit 255", 10, "cannot connect"),
        ("false", 12, "exit code 1"),
        ("true", 12, "exit code 0"),
        ("exit 3", 12, "exit code 3"),
        ("cat >/dev/null & exit 3", 12, "exit code 3"),
        ("kill -9 $$", 10, "killed by signal 9"),
        ("exec sleep 1000 >&- <&-", 10, "closed the stream"),
    ] {
        let bench = Bench::new(&format!("echo $$ >$yard/pid; {body}"));
        let outcome = bench
            .push("host:a")
            .run()
            .exits(code)
            .complains(&["host", words]);
        assert_one_word(&outcome);
        assert_ends(bench.pid("pid"), "the shell to be gone");
    }
    let bench = Bench::new("");
    let push = Push::new("host:a")
        .from(slash(bench.path("src")))
        .option("-e");
    push.clone()
        .option("/nonexistent/ssh")
        .run()
        .exits(14)
        .complains(&["/nonexistent/ssh"]);
    push.clone()
        .option("ssh 'x")
        .run()
        .exits(1)
        .complains(&["not closed"]);
    push.option(" ").run().exits(1).complains(&["no word"]);
}

#[test]
fn another_version_and_a_broken_frame_are_told_as_over_any_stream() {
    require!(Need::Sy);
    let bench = Bench::new("cat $yard/says; exec cat >/dev/null");
    let refusal = evil::Bytes::new().u8(1).u16(5).raw(b"older").0;
    let mut damaged = evil::welcome(1);
    *damaged.last_mut().expect("a frame has bytes") ^= 1;
    for (says, code, words) in [
        (evil::frame(0x86, &refusal), 2, "version"),
        (evil::welcome(2), 2, "version"),
        (damaged, 12, "damaged"),
        (evil::welcome(1)[..20].to_vec(), 12, "exit code 0"),
    ] {
        plant::file(bench.path("says"), says);
        if code == 12 && words.starts_with("exit") {
            bench.shell("cat $yard/says");
        }
        let outcome = bench
            .push("host:a")
            .run()
            .exits(code)
            .complains(&["host", words]);
        assert_one_word(&outcome);
    }
}

#[test]
fn a_shell_that_does_not_end_is_ended_and_the_push_is_a_success() {
    require!(Need::Sy);
    let bench = Bench::new("echo $$ >$yard/pid; \"$@\"; exec sleep 1000 <&- >&-");
    bench.push("host:a").run().ok();
    bench.assert_arrived("a");
    assert_ends(bench.pid("pid"), "the shell to be gone");
}

#[test]
fn a_shell_that_says_nothing_is_given_up_in_time() {
    require!(Need::Sy);
    let bench = Bench::new("echo $$ >$yard/pid; exec sleep 1000");
    let outcome = bench.push("host:a").option("--timeout=1").run();
    outcome.exits(30).complains(&["no sign of life for 1 s"]);
    assert_ends(bench.pid("pid"), "the shell to be gone");
}

/// Lets 3 MB through; what stands behind it in a script waits at the gate.
const GATE: &str = "dd bs=65536 count=3000000 iflag=count_bytes 2>/dev/null";

/// The other end of the gate, once somebody waits there; the gate opens when it is dropped.
#[track_caller]
fn at_gate(path: &Path) -> OwnedFd {
    let mut gate = None;
    guard::wait_until("somebody to wait at the gate", || {
        // Without a reader it is ENXIO.
        let flags = OFlags::WRONLY | OFlags::NONBLOCK;
        gate = rustix::fs::open(path, flags, Mode::empty()).ok();
        gate.is_some()
    });
    gate.expect("it was waited for")
}

/// A push that stands still in its middle: its bytes wait at a gate until the server is stopped,
/// and behind that is far more than fits in between.
fn held(bench: &Bench) -> (Running, Pid) {
    plant::fifo(bench.path("gate"));
    bench.shell(&format!(
        "{{ {GATE}; cat $yard/gate; cat; }} | \
         sh -c 'echo $$ >\"$0\"; exec \"$@\"' $yard/pid \"$@\""
    ));
    plant::file(bench.path("src/large"), content::noise(3, 30 << 20));
    let running = bench.push("host:a").option("--timeout=0").start();
    let server = bench.pid("pid");
    let gate = at_gate(&bench.path("gate"));
    send(server, Signal::STOP);
    drop(gate);
    (running, server)
}

fn send(pid: Pid, signal: Signal) {
    // It may have ended by itself in the meantime.
    let _ = rustix::process::kill_process(pid, signal);
}

/// A push that was held is over, and has left what was whole and nothing else.
#[track_caller]
fn assert_broken_off(bench: &Bench, server: Pid) {
    assert_ends(server, "the server to be gone");
    assert!(!bench.path("home/a/large").exists(), "it was in its middle");
    let litter = Tree::read(bench.path("home")).litter();
    assert!(litter.is_empty(), "left behind: {litter:?}");
}

#[test]
fn a_server_ends_with_the_client_that_started_it_and_leaves_no_temp_file() {
    require!(Need::Sy);
    let bench = Bench::new("");
    let (running, server) = held(&bench);
    running.kill();
    running.wait();
    send(server, Signal::CONT);
    assert_broken_off(&bench, server);
}

#[test]
fn a_signal_ends_the_push_and_the_shell() {
    require!(Need::Sy);
    for (signal, name) in [
        (Signal::INT, "SIGINT"),
        (Signal::TERM, "SIGTERM"),
        (Signal::HUP, "SIGHUP"),
    ] {
        let bench = Bench::new("");
        let (running, server) = held(&bench);
        running.signal(signal);
        // Or else it would wait for the end of a shell whose server is stopped.
        send(server, Signal::CONT);
        let outcome = running.wait().exits(20);
        assert_one_word(&outcome);
        outcome.complains(&["stopped by", name]);
        assert_broken_off(&bench, server);
    }
}

#[test]
fn a_signal_is_the_reason_though_the_shell_heard_it_first() {
    require!(Need::Sy);
    // The client sleeps while the shell ends and the signal comes: it finds both when it wakes.
    let bench = Bench::new(
        "sy=$PPID; (exec <&- >&-; sleep 0.3; kill -INT $sy; kill -CONT $sy) &\n\
         kill -STOP $sy; exit 255",
    );
    let outcome = bench.push("host:a").run().exits(20);
    assert_one_word(&outcome);
    outcome.complains(&["stopped by SIGINT"]);
}

#[test]
fn a_signal_to_the_server_ends_its_session_in_good_order() {
    require!(Need::Sy);
    for signal in [Signal::TERM, Signal::HUP] {
        let bench = Bench::new("");
        let (running, server) = held(&bench);
        send(server, signal);
        send(server, Signal::CONT);
        let outcome = running.wait().exits(5);
        assert_one_word(&outcome);
        assert_broken_off(&bench, server);
    }
}

#[test]
fn a_host_that_cannot_push_starts_no_shell() {
    require!(Need::Sy);
    let bench = Bench::new(AS_SSHD);
    let push = bench.push("host:a");
    let outcome = push.through(&["sh", "-c", "ulimit -n 20; exec \"$@\"", "sh"]);
    let outcome = outcome.run().exits(5);
    assert_one_word(&outcome);
    outcome.complains(&["only 20 files", "ulimit -n"]);
    assert!(bench.words().is_empty(), "nobody is asked for a password");
}

#[track_caller]
fn assert_one_word_or_success(outcome: Outcome, code: i32) {
    if outcome.code != Some(0) {
        let outcome = outcome.exits(code);
        assert_one_word(&outcome);
    }
}

#[test]
fn a_shell_killed_at_any_moment_leaves_whole_files_and_the_next_push_repairs() {
    require!(Need::Sy);
    let bench = Bench::new("");
    for number in 0..200_u64 {
        let path = format!("src/d{}/f{number}", number % 9);
        plant::file(bench.path(&path), content::noise(number, 3000));
    }
    let (src, dst) = (bench.path("src"), bench.path("home/a"));
    let new = Tree::read(&src);
    let mut chance = Chance::new();
    // The server itself, or what stands between it and the client.
    for (round, body) in (0..20).map(|round| (round, [DIRECTLY, "cat | \"$@\" | cat"][round % 2])) {
        bench.shell(&format!("echo $$ >$yard/pid; {body}"));
        drop(std::fs::remove_file(bench.path("pid")));
        plant::dir(&dst);
        let old = Tree::read(&dst);
        let running = bench.push("host:a").start();
        let shell = bench.pid("pid");
        std::thread::sleep(std::time::Duration::from_micros(chance.below(60_000)));
        send(shell, Signal::KILL);
        let outcome = running.wait();
        let what = format!("round {round}: {outcome}");
        assert_between(&old, &new, &Tree::read(&dst), &what);
        assert_one_word_or_success(outcome.exits_one_of(&[0, 10]), 10);
        guard::wait_until("temporary files to go", || {
            bench.push("host:a").run().ok();
            Tree::read(&dst).litter().is_empty()
        });
        bench.assert_arrived("a");
        plant::remove(&dst);
    }
}

#[test]
fn a_child_of_a_killed_shell_that_reads_on_holds_nothing_up() {
    require!(Need::Sy);
    // What is left where a shell dies before all of `cat | server` is there.
    let bench = Bench::new("exec 3<&0; cat <&3 >/dev/null 3<&- & sleep 0.05; kill -KILL $$");
    let outcome = bench.push("host:a").run().exits(10);
    assert_one_word(&outcome);
    outcome.complains(&["signal 9"]);
}

#[test]
fn pipes_and_sockets_serve_in_each_direction() {
    require!(Need::Sy);
    for body in [
        DIRECTLY,
        "cat | exec \"$@\"",
        "\"$@\" | cat",
        "cat | \"$@\" | cat",
    ] {
        let bench = Bench::new(body);
        plant::file(bench.path("src/large"), content::noise(4, 20 << 20));
        for number in 0..2000 {
            let path = format!("src/many/{}/f{number}", number % 50);
            plant::file(bench.path(&path), content::noise(number, 700));
        }
        bench.push("host:a").run().ok();
        bench.assert_arrived("a");
        let summary = bench.push("host:a").option("--json").run().ok().summary();
        assert_eq!((summary.files_sent, summary.errors), (0, 0), "{body}");
    }
}

/// `sy-server --stdio` as a shell starts it with these words behind it.
fn stdio(redirections: &str) -> Outcome {
    let server = subject::server().display();
    let line = format!("{server} --stdio {redirections}");
    push::start(&["sh", "-c", &line].map(OsString::from), None).wait()
}

#[test]
fn a_server_without_a_peer_ends_and_says_nothing_on_stdout() {
    require!(Need::Sy);
    let yard = Yard::new();
    plant::file(yard.join("file"), content::noise(5, 100_000));
    let file = yard.join("file").display().to_string();
    for (redirections, code) in [
        ("</dev/null", 10),
        ("<&-", 10),
        (">&- <&-", 10),
        (&format!("<{file}"), 2),
        ("</dev/zero", 2),
        (&format!("<{file} >{file}.out"), 2),
    ] {
        let outcome = stdio(redirections).exits(code);
        assert!(outcome.stdout.is_empty(), "{outcome}");
        let text = String::from_utf8_lossy(&outcome.stderr).into_owned();
        assert!(text.lines().count() <= 1, "a line at most: {outcome}");
    }
    let said = std::fs::read(yard.join("file.out")).expect("the shell made it");
    assert!(said.is_empty());
}

#[test]
fn a_terminal_is_no_place_for_the_protocol() {
    require!(Need::Sy, Need::Tool("script"));
    let line = format!("{} --stdio", subject::server().display());
    let words = ["script", "-qec", &line, "/dev/null"].map(OsString::from);
    let outcome = push::start(&words, None).wait().exits(1);
    assert!(
        String::from_utf8_lossy(&outcome.stdout).contains("terminal"),
        "{outcome}"
    );
}

#[test]
fn a_server_on_stdin_that_makes_no_sense_does_not_start() {
    require!(Need::Sy);
    for (words, complaint) in [
        ("--socket=/x", "--socket"),
        ("--listen=127.0.0.1:1", "--listen"),
        ("--shards=1", "--shards"),
        ("--module=m", "m"),
        ("--module=m=/nonexistent", "/nonexistent"),
    ] {
        let outcome = stdio(&format!("{words} </dev/null"));
        assert!(outcome.code.is_some_and(|code| code != 0), "{outcome}");
        let outcome = outcome.complains(&[complaint]);
        assert!(outcome.stdout.is_empty(), "{outcome}");
    }
}

on_routes! { ssh;
fn a_key_that_is_kept_to_a_module_gets_no_further(scene) {
    require!(Need::Sy);
    plant::file(scene.src().join("file"), "text");
    let other = scene.path().join("fixed");
    plant::file(other.join("stays"), "as it is");
    let before = Tree::read(&other);
    let command = format!(
        "restrict,command=\"{} --stdio --module m={},rw --module fixed={}\"",
        subject::server().display(),
        scene.export().display(),
        other.display()
    );
    scene.sshd().restrict(&command);
    let to = |dest: &str| {
        // What the client wants to run over there does not matter.
        let push = scene.sshd().push_to(dest).option("--sy-path").option("touch /sy-was-here;");
        push.from(slash(scene.src())).option("--delete").run()
    };
    to("127.0.0.1::m/dst").ok();
    scene.assert_arrived();
    let outside = format!("127.0.0.1:{}", scene.outside().display());
    for (dest, code, words) in [
        (&outside[..], 5, "only modules"),
        ("127.0.0.1:", 5, "only modules"),
        ("127.0.0.1::fixed/x", 5, "read-only"),
        ("127.0.0.1::other/x", 5, "unknown module"),
        ("127.0.0.1::m/../outside", 1, ".."),
    ] {
        let outcome = to(dest).exits(code).complains(&[words]);
        assert_one_word(&outcome);
    }
    plant::symlink(scene.outside(), scene.export().join("link"));
    let outcome = to("127.0.0.1::m/link");
    assert_ne!(outcome.code, Some(0), "{outcome}");
    plant::remove(scene.export().join("link"));
    scene.assert_outside_untouched();
    before.assert_untouched(&Tree::read(&other), "a read-only module");
    assert!(!Path::new("/sy-was-here").exists());
    scene.sshd().restrict("");
}
}

on_routes! { ssh;
fn a_server_without_modules_knows_none(scene) {
    require!(Need::Sy);
    plant::file(scene.src().join("file"), "text");
    let push = scene.sshd().push_to("127.0.0.1::m/dst").option("--sy-path").option(subject::server());
    push.from(slash(scene.src())).run().exits(5).complains(&["unknown module", "m"]);
}
}

on_routes! { ssh;
fn an_ssh_that_gets_no_further_says_why_itself(scene) {
    require!(Need::Sy);
    plant::file(scene.src().join("file"), "text");
    scene.sshd().restrict("from=\"192.0.2.1\"");
    let outcome = scene.push::<&str>(&[]).run().exits(10);
    assert_one_word(&outcome);
    outcome.complains(&["Permission denied", "cannot connect"]);
    scene.sshd().restrict("command=\"echo This account is kept for backups.\"");
    let outcome = scene.push::<&str>(&[]).run().exits(2);
    outcome.complains(&["'This account is kept"]);
    scene.sshd().restrict("command=\"no-such-server\"");
    scene.push::<&str>(&[]).run().exits(127).complains(&["--sy-path"]);
    scene.sshd().restrict("");
    let rsh = format!("{} -tt", scene.sshd().rsh());
    let outcome = scene.push::<&str>(&[]).option("-e").option(rsh).run();
    assert!(outcome.code.is_some_and(|code| code != 0), "{outcome}");
    outcome.is_printable();
    assert!(!scene.dst().exists());
}
}

on_routes! { ssh;
fn a_good_push_leaves_no_word_and_no_process(scene) {
    require!(Need::Sy);
    plant::file(scene.src().join("large"), content::noise(6, 40 << 20));
    plant::file(scene.src().join("file"), "text");
    let outcome = scene.push::<&str>(&[]).run().ok();
    assert!(outcome.stdout.is_empty() && outcome.stderr.is_empty(), "{outcome}");
    scene.assert_arrived();
}
}

on_routes! { ssh;
fn an_ssh_killed_in_the_middle_is_a_lost_connection(scene) {
    require!(Need::Sy);
    plant::file(scene.src().join("large"), content::noise(7, 60 << 20));
    let gate = scene.path().join("gate");
    plant::fifo(&gate);
    let server = scene.path().join("held-server");
    let (program, wait) = (subject::server().display(), gate.display());
    plant::file(&server, format!("#!/bin/sh\n{{ {GATE}; cat {wait}; cat; }} | {program} \"$@\"\n"));
    plant::chmod(&server, 0o755);
    let running = scene.push::<&str>(&[]).option("--sy-path").option(&server).start();
    let gate = at_gate(&gate);
    let children = format!("/proc/{0}/task/{0}/children", running.pid());
    let children = std::fs::read_to_string(children).expect("it runs");
    let ssh = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
    send(ssh.and_then(Pid::from_raw).expect("it has started ssh"), Signal::KILL);
    let outcome = running.wait().exits(10);
    assert_one_word(&outcome);
    outcome.complains(&["connection lost", "killed by signal 9"]);
    drop(gate);
    guard::wait_until("the session to end", || scene.sshd().is_quiet());
    scene.assert_no_litter();
    scene.push::<&str>(&[]).run().ok();
    scene.assert_arrived();
}
}
