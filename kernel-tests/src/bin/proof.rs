//! `proof`: what takes whole machines. Each command prints what it counted in its last line.
//!
//! It needs root, qemu, cpio, mkfs and fsck of ext4, xfs and btrfs, kernels that `kernel-tests/kernels.sh` has
//! unpacked, and static binaries that `kernel-tests/static.sh` has built.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Parser, Subcommand};
use kernel_tests::invariant::assert_between;
use kernel_tests::machine::{Kernel, Machine, Said};
use kernel_tests::scene::slash;
use kernel_tests::writes::Writes;
use kernel_tests::{Chance, Push, Tree, Yard, versions};

/// A boot takes some seconds in software, and what follows is as slow.
const PATIENCE: Duration = Duration::from_secs(600);
/// The least that mkfs.xfs takes.
const DISK_BYTES: u64 = 304 << 20;
const KINDS: [&str; 3] = ["ext4", "xfs", "btrfs"];

#[derive(Parser)]
#[command(about = "What takes whole machines", max_term_width = 78)]
struct Args {
    /// Where kernels.sh has unpacked kernels
    #[arg(long, default_value = "target/kernels")]
    kernels: PathBuf,
    /// Where static.sh has built static binaries
    #[arg(long, default_value = "target/static/x86_64-unknown-linux-gnu/static")]
    binaries: PathBuf,
    #[command(subcommand)]
    command: Proof,
}

#[derive(Subcommand)]
enum Proof {
    /// Boot each kernel, say what it gives the engine, push by every way to ext4, xfs and btrfs
    Kernels,
    /// Push to a recorded disk, cut the power at COUNT moments, look at each
    PowerCuts {
        #[arg(default_value_t = 24)]
        count: u64,
        /// Of everything random; printed
        #[arg(long)]
        seed: Option<u64>,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let kernels = Kernel::all(&args.kernels);
    assert!(
        !kernels.is_empty(),
        "{}: no kernel: kernel-tests/kernels.sh",
        args.kernels.display()
    );
    match args.command {
        Proof::Kernels => try_kernels(&kernels, &args.binaries),
        Proof::PowerCuts { count, seed } => {
            let chance = seed.map_or_else(Chance::new, Chance::seeded);
            cut_power(
                kernels.last().expect("there is one"),
                &args.binaries,
                count,
                chance,
            );
        }
    }
    ExitCode::SUCCESS
}

#[expect(clippy::print_stdout, reason = "a program's own output")]
fn say(text: &str) {
    println!("{text}");
}

fn run(program: &str, words: &[&str]) -> bool {
    let command = Command::new(program).args(words).output();
    let output = command.unwrap_or_else(|why| panic!("{program}: {why}"));
    if !output.status.success() {
        let text = [&output.stdout[..], &output.stderr].concat();
        say(&format!(
            "{program} {}: {}",
            words.join(" "),
            String::from_utf8_lossy(&text)
        ));
    }
    output.status.success()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours")
}

/// An empty disk of this kind.
fn make_disk(kind: &str, image: &Path) {
    let file = File::create(image).expect("an image can be made");
    file.set_len(DISK_BYTES).expect("it can be sparse");
    let quiet: &[&str] = if kind == "ext4" {
        &["-q", "-F"]
    } else {
        &["-q", "-f"]
    };
    let words = [quiet, &[text(image)]].concat();
    assert!(run(&format!("mkfs.{kind}"), &words), "mkfs.{kind}");
}

/// A mounted image, until it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(image: &Path, at: &Path) -> Self {
        std::fs::create_dir_all(at).expect("a directory can be made");
        let did = run("mount", &["-o", "loop", text(image), text(at)]);
        assert!(did, "a disk after a power cut can be mounted");
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &[text(&self.0)]);
    }
}

fn is_sound(kind: &str, image: &Path) -> bool {
    let image = text(image);
    match kind {
        "ext4" => run("e2fsck", &["-f", "-n", image]),
        "xfs" => run("xfs_repair", &["-n", image]),
        _ => run("btrfs", &["check", "--readonly", image]),
    }
}

fn try_kernels(kernels: &[Kernel], binaries: &Path) {
    let mut pushes = 0;
    for kernel in kernels {
        let yard = Yard::new();
        let mut machine = Machine::new(kernel, binaries);
        for kind in KINDS {
            let image = yard.join(kind);
            make_disk(kind, &image);
            machine = machine.disk(&image);
        }
        let disks = format!("sy.disks={}", KINDS.join(","));
        let said = boot(&machine.word("sy.job=kernels").word(&disks));
        say(&format!("kernel {}", kernel.release));
        for word in said.words() {
            say(&format!("  {word}"));
        }
        said.assert_done();
        for kind in KINDS {
            let image = yard.join(kind);
            let at = yard.join("at");
            drop(Mounted::new(&image, &at));
            assert!(is_sound(kind, &image), "{kind} is damaged");
        }
        pushes += said.words().filter_map(pushes_in).sum::<u32>();
    }
    say(&format!(
        "kernels {} ok, {pushes} pushes equal",
        kernels.len()
    ));
}

fn pushes_in(word: &str) -> Option<u32> {
    let count = word.strip_prefix("pushes ")?.strip_suffix(" equal")?;
    count.rsplit(' ').next()?.parse().ok()
}

fn boot(machine: &Machine) -> Said {
    let machine = match find_busybox() {
        Some(path) => machine.clone().tool(&path, "bin/busybox"),
        None => panic!("no static busybox: apt-get install busybox-static"),
    };
    machine.run(PATIENCE)
}

fn find_busybox() -> Option<PathBuf> {
    let places = ["/bin/busybox", "/usr/bin/busybox"];
    places
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
}

/// One recorded push and what is known of it.
struct Recorded {
    kind: &'static str,
    options: &'static str,
    seed: u64,
    yard: Yard,
    writes: Writes,
    old: Tree,
    new: Tree,
}

/// The options of a push, comma between. In turn with the kinds of disks.
const OPTIONS: [&str; 4] = [
    "--delete,--durability=file",
    "--delete,--durability=session",
    "--delete",
    "--delete,--inplace,--no-whole-file,--durability=session",
];

fn cut_power(kernel: &Kernel, binaries: &Path, count: u64, mut chance: Chance) {
    // With twelve, every kind of disk meets every set of options.
    let pushes = count.div_ceil(8).clamp(1, 12);
    let mut cuts = 0;
    for number in 0..pushes {
        let which = usize::try_from(number).expect("a few");
        let kind = KINDS[which % KINDS.len()];
        let options = OPTIONS[which % OPTIONS.len()];
        let recorded = record(kernel, binaries, kind, options, chance.draw() % 1_000_000);
        let share = count / pushes + u64::from(number < count % pushes);
        let flushes = recorded.writes.flushes_count();
        for cut in 0..share {
            let end = match cut {
                // Success was reported, and then the power went.
                0 => recorded.writes.len(),
                // Right behind a flush, or anywhere.
                _ if cut % 2 == 0 => {
                    let flush = chance.below(flushes.max(1) as u64);
                    recorded
                        .writes
                        .behind_flush(usize::try_from(flush).expect("a few"))
                }
                _ => {
                    let end = chance.below(recorded.writes.len() as u64) + 1;
                    usize::try_from(end).expect("a few")
                }
            };
            look_at_cut(&recorded, end, &mut chance);
            cuts += 1;
        }
        say(&format!(
            "  {kind} {options} seed {}: {} writes, {flushes} flushes, {share} cuts",
            recorded.seed,
            recorded.writes.len()
        ));
    }
    say(&format!("power cuts {cuts} lost 0"));
}

fn record(
    kernel: &Kernel,
    binaries: &Path,
    kind: &'static str,
    options: &'static str,
    seed: u64,
) -> Recorded {
    let yard = Yard::new();
    let (disk, log, at) = (yard.join("disk"), yard.join("log"), yard.join("at"));
    make_disk(kind, &disk);
    let mounted = Mounted::new(&disk, &at);
    versions::plant_old(&at.join("dst"), seed);
    let old = Tree::read(at.join("dst"));
    drop(mounted);
    versions::plant_new(&yard.join("src"), seed);
    let new = Tree::read(yard.join("src"));
    let base = yard.join("base");
    copy(&disk, &base);
    File::create(&log).expect("a log can be made");
    let machine = Machine::new(kernel, binaries)
        .recorded_disk(&disk, &log)
        .word("sy.job=push")
        .word(&format!("sy.disks={kind}"))
        .word(&format!("sy.seed={seed}"))
        .word(&format!("sy.options={options}"));
    let said = boot(&machine);
    said.assert_done();
    let writes = Writes::read(&log).expect("qemu wrote a log");
    assert!(!writes.is_empty(), "the disk was written to");
    Recorded {
        kind,
        options,
        seed,
        yard,
        writes,
        old,
        new,
    }
}

/// Sparse ones stay sparse.
fn copy(from: &Path, to: &Path) {
    assert!(run("cp", &["--sparse=always", text(from), text(to)]), "cp");
}

fn look_at_cut(recorded: &Recorded, end: usize, chance: &mut Chance) {
    let Recorded {
        yard,
        kind,
        options,
        seed,
        writes,
        old,
        new,
    } = recorded;
    let (disk, at) = (yard.join("cut"), yard.join("at"));
    let what = format!(
        "{kind} {options} seed {seed}, cut behind request {end} of {}",
        writes.len()
    );
    copy(&yard.join("base"), &disk);
    let file = File::options()
        .read(true)
        .write(true)
        .open(&disk)
        .expect("a disk of ours");
    writes
        .cut(&file, end, chance)
        .expect("the log can be played");
    drop(file);
    let mounted = Mounted::new(&disk, &at);
    let dst = at.join("dst");
    let now = Tree::read(&dst);
    let is_over = end == writes.len();
    if options.contains("durability=file") {
        assert_between(old, new, &now, &what);
    }
    if is_over && options.contains("durability") {
        new.assert_equals(&now, &format!("{what}, after success"));
    }
    // Size and time decide, as ever: what they can't be believed of, the marker says.
    let dest = text(&dst).to_owned();
    let push = Push::new(dest)
        .from(slash(yard.join("src")))
        .option("--delete");
    push.run().ok();
    new.assert_equals(&Tree::read(&dst), &format!("{what}, pushed again"));
    drop(mounted);
    assert!(is_sound(kind, &disk), "{what}: {kind} is damaged");
}
