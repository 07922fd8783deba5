//! Whole machines with another kernel: qemu in software, an initramfs of static binaries, and disks that are
//! images of ours. What they say on their serial line is what they did.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::{Yard, guard};

/// What a machine says for its host to read begins so.
pub const WORD: &str = "SY: ";
/// The last word of a machine that did what it was asked to.
pub const DONE: &str = "SY: done";

/// Modules that file systems ask for by name once they run, so no list of dependencies has them, before
/// those that are asked for here.
const MODULES: [&str; 12] = [
    "crc32c_generic",
    "crc32c_cryptoapi",
    "xxhash_generic",
    "sha256_generic",
    "blake2b_generic",
    "virtio_pci",
    "virtio_blk",
    "loop",
    "ext4",
    "xfs",
    "btrfs",
    "sch_netem",
];

/// A kernel of another version, with its modules, as a Debian package unpacks.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub release: String,
    root: PathBuf,
}

impl Kernel {
    /// Those that `kernel-tests/kernels.sh` has unpacked below `dir`, oldest first.
    pub fn all(dir: &Path) -> Vec<Self> {
        let mut found = Vec::new();
        for package in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            for image in std::fs::read_dir(package.path().join("boot"))
                .into_iter()
                .flatten()
            {
                let name = image.expect("an entry").file_name();
                if let Some(release) = name.to_string_lossy().strip_prefix("vmlinuz-") {
                    found.push(Self {
                        release: release.to_owned(),
                        root: package.path(),
                    });
                }
            }
        }
        found.sort_by_key(|kernel| version_of(&kernel.release));
        found
    }

    fn image(&self) -> PathBuf {
        self.root
            .join("boot")
            .join(format!("vmlinuz-{}", self.release))
    }

    fn modules_dir(&self) -> PathBuf {
        let merged = self.root.join("usr/lib/modules").join(&self.release);
        if merged.exists() {
            return merged;
        }
        self.root.join("lib/modules").join(&self.release)
    }

    /// Paths below `modules_dir`, each behind those it needs. What is built in, or unknown to
    /// this version, is not among them.
    fn modules(&self) -> Vec<String> {
        let list = std::fs::read_to_string(self.modules_dir().join("modules.dep"));
        let list = list.expect("kernels.sh runs depmod");
        let mut needs = BTreeMap::new();
        for line in list.lines() {
            let (path, needed) = line.split_once(':').expect("a path and what it needs");
            let needed: Vec<&str> = needed.split_whitespace().collect();
            needs.insert(module_name(path), (path, needed));
        }
        let mut order: Vec<String> = Vec::new();
        for name in MODULES {
            let Some((path, needed)) = needs.get(name) else {
                continue;
            };
            for path in needed.iter().rev().chain([path]) {
                if !order.iter().any(|known| known == path) {
                    order.push((*path).to_owned());
                }
            }
        }
        order
    }
}

fn version_of(release: &str) -> Vec<u32> {
    let numbers = release.split(|c: char| !c.is_ascii_digit());
    numbers.filter_map(|digits| digits.parse().ok()).collect()
}

/// As `modprobe` takes it.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().expect("a last component");
    let stem = file.split(".ko").next().expect("a first part");
    stem.replace('-', "_")
}

/// A machine that has not been started.
#[derive(Clone)]
pub struct Machine {
    kernel: Kernel,
    disks: Vec<Vec<String>>,
    words: Vec<String>,
    files: Vec<(PathBuf, &'static str)>,
}

impl Machine {
    /// With static binaries of `dir`: `sy-guest`, which is its first process, `sy`, and `sy-server`.
    pub fn new(kernel: &Kernel, dir: &Path) -> Self {
        let files = [
            ("sy-guest", "init"),
            ("sy", "bin/sy"),
            ("sy-server", "bin/sy-server"),
        ];
        Self {
            kernel: kernel.clone(),
            disks: Vec::new(),
            words: Vec::new(),
            files: files.map(|(from, to)| (dir.join(from), to)).to_vec(),
        }
    }

    /// Puts a tool of this host into its `/bin`, which must be static.
    #[must_use]
    pub fn tool(mut self, from: &Path, to: &'static str) -> Self {
        self.files.push((from.to_owned(), to));
        self
    }

    /// One more disk: `/dev/vda`, then `/dev/vdb`.
    #[must_use]
    pub fn disk(self, image: &Path) -> Self {
        let drive = format!("file={},format=raw,if=none,cache=unsafe", image.display());
        self.drive(vec!["-drive".to_owned(), drive])
    }

    /// One more disk, of which every write and every flush is written down in `log`, in the form of
    /// dm-log-writes.
    #[must_use]
    pub fn recorded_disk(self, image: &Path, log: &Path) -> Self {
        let node = format!(
            "driver=blklogwrites,log-sector-size=512,\
             file.driver=file,file.filename={},log.driver=file,log.filename={}",
            image.display(),
            log.display()
        );
        self.drive(vec!["-blockdev".to_owned(), node])
    }

    fn drive(mut self, mut words: Vec<String>) -> Self {
        let id = format!("d{}", self.disks.len());
        let named = if words[0] == "-drive" {
            "id"
        } else {
            "node-name"
        };
        write!(words[1], ",{named}={id}").expect("memory takes it");
        words.extend(["-device".to_owned(), format!("virtio-blk-pci,drive={id}")]);
        self.disks.push(words);
        self
    }

    /// What its first process is to do: words of the kernel's command line.
    #[must_use]
    pub fn word(mut self, word: &str) -> Self {
        self.words.push(word.to_owned());
        self
    }

    /// Runs it to its end, or until it has had its time; all that it said.
    #[track_caller]
    pub fn run(&self, patience: Duration) -> Said {
        let yard = Yard::new();
        let initramfs = self.build(&yard);
        let console = yard.join("console");
        let out = File::create(&console).expect("a file can be made");
        let line = format!(
            "console=ttyS0 quiet panic=-1 rdinit=/init mitigations=off no_timer_check {}",
            self.words.join(" ")
        );
        let mut qemu = Command::new("qemu-system-x86_64");
        // Both processors in one thread: a kernel that patches its own code while it boots is run
        // wrongly by two now and then ("Oops: int3", one boot of 12 with qemu stopped and continued
        // as it booted; none of 40 so). Nor is a clock to be judged by how fast this host goes.
        qemu.args(["-accel", "tcg,thread=single", "-cpu", "max", "-m", "1024"])
            .args(["-smp", "2"])
            .args([
                "-nodefaults",
                "-display",
                "none",
                "-no-reboot",
                "-serial",
                "stdio",
            ])
            .arg("-kernel")
            .arg(self.kernel.image())
            .arg("-initrd")
            .arg(&initramfs)
            .args(["-append", &line])
            .args(self.disks.iter().flatten())
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("a second descriptor"))
            .stderr(out);
        let mut child = qemu.spawn().expect("qemu-system-x86_64 can be started");
        let ended = guard::comes_true(patience, || {
            child
                .try_wait()
                .expect("a child can be waited for")
                .is_some()
        });
        if !ended {
            let _ = child.kill();
            let _ = child.wait();
        }
        let bytes = std::fs::read(&console).expect("what it said");
        Said {
            kernel: self.kernel.release.clone(),
            text: String::from_utf8_lossy(&bytes).replace('\r', ""),
        }
    }

    /// The initramfs, as the kernel unpacks it.
    fn build(&self, yard: &Yard) -> PathBuf {
        let root = yard.join("root");
        for dir in ["bin", "dev", "mnt", "modules", "proc", "sys", "tmp"] {
            std::fs::create_dir_all(root.join(dir)).expect("a directory can be made");
        }
        for (from, to) in &self.files {
            std::fs::copy(from, root.join(to))
                .unwrap_or_else(|why| panic!("{}: {why}", from.display()));
        }
        for (number, path) in self.kernel.modules().iter().enumerate() {
            let from = self.kernel.modules_dir().join(path);
            let to = root.join(format!("modules/{number:02}-{}", module_name(path)));
            unpack(&from, &to);
        }
        let archive = yard.join("initramfs");
        let out = File::create(&archive).expect("a file can be made");
        let mut cpio = Command::new("cpio")
            .args(["-o", "-H", "newc", "--quiet"])
            .current_dir(&root)
            .stdin(Stdio::piped())
            .stdout(out)
            .spawn()
            .expect("cpio can be started");
        let mut names = cpio.stdin.take().expect("it is piped");
        for path in paths_below(&root, Path::new("")) {
            writeln!(names, "{}", path.display()).expect("cpio reads");
        }
        drop(names);
        assert!(cpio.wait().expect("it ends").success(), "cpio");
        archive
    }
}

/// Each directory before what is in it.
fn paths_below(root: &Path, dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root.join(dir)).expect("a directory of ours") {
        let entry = entry.expect("an entry");
        let path = dir.join(entry.file_name());
        found.push(path.clone());
        if entry.file_type().expect("it has one").is_dir() {
            found.extend(paths_below(root, &path));
        }
    }
    found
}

/// Copies a module, out of its compression where it has one.
fn unpack(from: &Path, to: &Path) {
    let mut magic = [0; 4];
    let mut file = File::open(from).unwrap_or_else(|why| panic!("{}: {why}", from.display()));
    file.read_exact(&mut magic).expect("a module has bytes");
    file.rewind().expect("a file can be read again");
    let tool = match magic {
        [0xfd, b'7', b'z', b'X'] => "xz",
        [0x28, 0xb5, 0x2f, 0xfd] => "zstd",
        [0x1f, 0x8b, ..] => "gzip",
        _ => "cat",
    };
    let mut command = Command::new(tool);
    if tool != "cat" {
        command.arg("-dc");
    }
    let out = File::create(to).expect("a file can be made");
    let done = command.stdin(file).stdout(out).status();
    assert!(
        done.is_ok_and(|status| status.success()),
        "{tool} {}",
        from.display()
    );
}

/// What a machine said on its serial line.
#[derive(Clone, Debug)]
pub struct Said {
    pub kernel: String,
    pub text: String,
}

impl Said {
    /// What it said for us, without the mark in front.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.text.lines().filter_map(|line| {
            let at = line.find(WORD)?;
            Some(&line[at + WORD.len()..])
        })
    }

    /// Fails unless it did all that it was asked to.
    #[track_caller]
    pub fn assert_done(&self) {
        let done = self.text.lines().any(|line| line.contains(DONE));
        assert!(done, "kernel {}: not done:\n{}", self.kernel, self.text);
    }
}
