//! The first process of a machine that `kernel_tests::machine` starts: mounts what a system has, loads the
//! modules, and does what the kernel's command line asks for. Then it takes the power away, without a sync.
//!
//! - `sy.job=kernels sy.disks=ext4,xfs,btrfs`: what the kernel gives the engine, which operations it hands to threads
//!   of its own, and pushes by every way on each disk;
//! - `sy.job=push sy.disks=ext4 sy.seed=7 sy.options=--delete,--durability=file`: one push onto an old version,
//!   while the host writes down what becomes of the disk.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use kernel_tests::machine::{DONE, WORD};
use kernel_tests::scene::slash;
use kernel_tests::{Push, Server, Tree, content, plant, variety, versions};
use rustix::mount::MountFlags;
use rustix::system::RebootCommand;

#[expect(clippy::print_stdout, reason = "a line for whoever started it")]
fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    match words.get(1).map(String::as_str) {
        None => be_first(),
        Some("job") => do_job(),
        Some("read" | "grow" | "reserved") => println!("{}", is_punted(&words[1], &words[2])),
        Some(other) => println!("{other}: no work of mine"),
    }
    ExitCode::SUCCESS
}

/// The first process: whatever happens, the machine ends.
fn be_first() {
    let ended = prepare().and_then(|()| {
        Command::new("/init")
            .arg("job")
            .env("PATH", "/bin")
            .env("SY_BIN_DIR", "/bin")
            .env("SY_TESTS_DIR", "/tmp")
            .env("SY_TESTS_HANG_SECONDS", "240")
            .status()
    });
    match ended {
        Ok(status) if status.success() => say(DONE.trim_start_matches(WORD)),
        other => say(&format!("failed: {other:?}")),
    }
    let gone = rustix::system::reboot(RebootCommand::Restart);
    say(&format!("no end: {gone:?}"));
}

fn prepare() -> std::io::Result<()> {
    for (kind, at) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/tmp"),
    ] {
        rustix::mount::mount(kind, at, kind, MountFlags::empty(), None)?;
    }
    let mut modules: Vec<PathBuf> = std::fs::read_dir("/modules")?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    modules.sort();
    for path in modules {
        if let Err(why) = rustix::system::finit_module(File::open(&path)?, c"", 0) {
            say(&format!("{}: {why}", path.display()));
        }
    }
    let up = Command::new("/bin/busybox")
        .args(["ip", "link", "set", "lo", "up"])
        .status();
    up.map(drop)
}

#[expect(clippy::print_stdout, reason = "the serial line is its only way out")]
fn say(text: &str) {
    println!("{WORD}{text}");
}

/// A word of the kernel's command line.
fn asked(name: &str) -> Option<String> {
    let line = std::fs::read_to_string("/proc/cmdline").expect("proc is mounted");
    let found = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    found.map(str::to_owned)
}

fn do_job() {
    let kinds = asked("sy.disks").unwrap_or_default();
    let mut disks = Vec::new();
    for (kind, letter) in kinds.split(',').zip('a'..) {
        let at = PathBuf::from(format!("/mnt/{kind}"));
        plant::dir(&at);
        let device = format!("/dev/vd{letter}");
        rustix::mount::mount(&device, &at, kind, MountFlags::empty(), None)
            .unwrap_or_else(|why| panic!("mount {device} as {kind}: {why}"));
        disks.push((kind.to_owned(), at));
    }
    match asked("sy.job").as_deref() {
        Some("kernels") => look_at_kernel(&disks),
        Some("push") => push_once(&disks[0].1),
        other => panic!("no job: {other:?}"),
    }
}

fn look_at_kernel(disks: &[(String, PathBuf)]) {
    let doctor = Command::new("/bin/sy-server")
        .arg("doctor")
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&doctor.stdout).into_owned();
    for line in text
        .lines()
        .filter(|line| line.starts_with("engine") || line.starts_with("arena"))
    {
        say(line);
    }
    for (kind, at) in disks {
        let punts = ["read", "grow", "reserved"].map(|what| {
            let path = at.join(format!("punt-{what}"));
            let path = path.to_str().expect("a path of ours");
            let told = Command::new("/init")
                .args([what, path])
                .output()
                .expect("it runs");
            String::from_utf8_lossy(&told.stdout).trim().to_owned()
        });
        let [read, grow, reserved] = punts;
        say(&format!(
            "punts {kind}: read {read}, write that grows {grow}, into reserved space {reserved}"
        ));
        for engine in ["uring", "portable"] {
            let count = push_every_way(&at.join(engine), engine);
            say(&format!("pushes {kind} {engine}: {count} equal"));
        }
    }
    if Path::new(DISABLED).exists() {
        std::fs::write(DISABLED, "2").expect("it is ours");
        let count = push_every_way(&disks[0].1.join("auto"), "auto");
        std::fs::write(DISABLED, "0").expect("it is ours");
        say(&format!("pushes with io_uring_disabled=2: {count} equal"));
    }
}

const DISABLED: &str = "/proc/sys/kernel/io_uring_disabled";

/// Fills, changes and empties a place of this disk by each way; how many pushes there were.
fn push_every_way(home: &Path, engine: &str) -> u32 {
    let mut count = 0;
    let option = format!("--engine={engine}");
    for way in ["path", "unix", "tcp"] {
        let (src, home) = (PathBuf::from("/tmp/src"), home.join(way));
        plant::dir(&home);
        variety::plant_variety(&src);
        plant::file(src.join("large"), content::noise(1, 3 << 20));
        let server = (way != "path").then(|| {
            Server::new(&PathBuf::from("/tmp"))
                .module("m", &home)
                .option(&option)
                .started()
        });
        let dest = match (&server, way) {
            (Some(server), "unix") => {
                let socket = server.socket();
                (
                    "sy:///m/dst".to_owned(),
                    vec!["--socket".to_owned(), socket.display().to_string()],
                )
            }
            (Some(server), _) => (
                format!("sy://127.0.0.1:{}/m/dst", server.port()),
                Vec::new(),
            ),
            (None, _) => (home.join("dst").display().to_string(), Vec::new()),
        };
        let push = Push::new(dest.0)
            .from(slash(&src))
            .options(&dest.1)
            .option(&option)
            .option("--delete");
        for round in 0..4 {
            match round {
                1 => {
                    plant::file(
                        src.join("large"),
                        [&b"more"[..], &content::noise(1, 3 << 20)].concat(),
                    );
                    plant::file(src.join("new/file"), "text");
                    plant::remove(src.join("text"));
                }
                // As each durability leaves it.
                2 => plant::file(src.join("new/file"), "other text"),
                _ => {}
            }
            let push = if round == 2 {
                push.clone().option("--durability=file")
            } else {
                push.clone()
            };
            let outcome = push.option("--json").run().ok();
            if engine == "auto" {
                assert!(
                    String::from_utf8_lossy(&outcome.stderr).contains("engine: portable"),
                    "{outcome}"
                );
            }
            if round == 3 {
                assert_eq!(outcome.summary().files_sent, 0, "{outcome}");
            }
            // By TCP there are no identities: no owners, no nodes, no set-id bits.
            if way != "tcp" {
                Tree::read(&src).assert_equals(&Tree::read(home.join("dst")), way);
            }
            count += 1;
        }
        drop(server);
        plant::remove(&src);
        plant::remove(&home);
    }
    count
}

/// Whether the kernel hands such an operation to a thread of its own: such threads are tasks of this process.
fn is_punted(what: &str, path: &str) -> &'static str {
    const BYTES: usize = 256 * 1024;
    std::fs::write(
        path,
        if what == "read" {
            vec![1; BYTES]
        } else {
            Vec::new()
        },
    )
    .expect("a file");
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("it was just made");
    if what == "reserved" {
        let keep = rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, keep, 0, BYTES as u64).expect("it can be reserved");
    }
    let moved = tokio_uring::start(async {
        let file = tokio_uring::fs::File::from_std(file);
        if what == "read" {
            file.read_at(vec![0; BYTES], 0).await.0
        } else {
            file.write_at(vec![2; BYTES], 0).submit().await.0
        }
    });
    assert_eq!(moved.ok(), Some(BYTES));
    let is_worker = |task: std::io::Result<std::fs::DirEntry>| {
        let comm = task.map(|task| std::fs::read_to_string(task.path().join("comm")));
        matches!(comm, Ok(Ok(comm)) if comm.starts_with("iou-wrk"))
    };
    let mut tasks = std::fs::read_dir("/proc/self/task").expect("proc is mounted");
    if tasks.any(is_worker) {
        "punted"
    } else {
        "inline"
    }
}

fn push_once(disk: &Path) {
    let seed = asked("sy.seed")
        .and_then(|seed| seed.parse().ok())
        .expect("a seed");
    let options = asked("sy.options").unwrap_or_default();
    let options: Vec<&str> = options
        .split(',')
        .filter(|option| !option.is_empty())
        .collect();
    let src = PathBuf::from("/tmp/src");
    versions::plant_new(&src, seed);
    let push = Push::new(disk.join("dst"))
        .from(slash(&src))
        .options(&options);
    say("push begins");
    push.run().ok();
    say("push ended");
}
