//! What a test needs of the machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::subject;

/// One need of a test; `require!` checks it.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// A program in the path.
    Tool(&'static str),
    /// The tests run as root.
    Root,
    /// Root that may mount a tmpfs.
    Mounts,
    /// Root that may mount an ext4 image through a loop device.
    LoopMounts,
    /// OpenSSH, both ends, and root, whom its server needs.
    Ssh,
    /// Network namespaces, and veths between them.
    Namespaces,
    /// A process may have so many open files.
    OpenFiles(u64),
    /// Programs can be run as an ordinary user, and that user can reach the binaries.
    Nobody,
    /// The binaries are sy's own, not a stand-in.
    Sy,
}

impl Need {
    /// `Err` with the name of what is missing.
    pub fn met(self) -> Result<(), String> {
        let met = match self {
            Self::Tool(name) => in_path(name),
            Self::Root => rustix::process::geteuid().is_root(),
            Self::Mounts => crate::mount::Mount::tmpfs_works(),
            Self::LoopMounts => in_path("mkfs.ext4") && crate::mount::Mount::loop_works(),
            Self::Ssh => {
                rustix::process::geteuid().is_root()
                    && ["ssh", "sshd", "ssh-keygen"].into_iter().all(in_path)
            }
            Self::Namespaces => crate::cable::Cable::works(),
            Self::OpenFiles(count) => may_open(count),
            Self::Nobody => nobody_can_run(subject::client()),
            Self::Sy => !subject::is_stand_in(),
        };
        if met { Ok(()) } else { Err(self.name()) }
    }

    fn name(self) -> String {
        match self {
            Self::Tool(name) => name.to_owned(),
            Self::Root => "root".to_owned(),
            Self::Mounts => "the right to mount a tmpfs".to_owned(),
            Self::LoopMounts => "mkfs.ext4 and loop mounts".to_owned(),
            Self::Ssh => "root, openssh-client and openssh-server".to_owned(),
            Self::Namespaces => "iproute2, root and network namespaces".to_owned(),
            Self::OpenFiles(count) => format!("a limit of {count} open files"),
            Self::Nobody => "setpriv, root, and binaries that anyone may run".to_owned(),
            Self::Sy => "sy itself".to_owned(),
        }
    }
}

/// Says what is missing; fails the test where nothing may be missing.
pub fn missing(what: &str) {
    let required = std::env::var_os("SY_TESTS_REQUIRE").is_some_and(|value| value == "1");
    assert!(
        !required || subject::is_stand_in(),
        "needs {what}, and SY_TESTS_REQUIRE=1 forbids skipping"
    );
    println!("skipped: needs {what}");
}

fn in_path(name: &str) -> bool {
    find(name).is_some()
}

/// Where a program is.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&dirs)
        .chain([
            Path::new("/usr/sbin").to_owned(),
            Path::new("/sbin").to_owned(),
        ])
        .map(|dir| dir.join(name))
        .find(|path| path.exists())
}

/// Whether the limit allows that many, once it is raised to that for this process and what it starts later.
fn may_open(count: u64) -> bool {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let wanted = maximum.map(|maximum| maximum.max(count));
    let raised = Rlimit {
        current: wanted,
        maximum: wanted,
    };
    setrlimit(Resource::Nofile, raised).is_ok()
}

fn nobody_can_run(program: &Path) -> bool {
    rustix::process::geteuid().is_root()
        && in_path("setpriv")
        && Command::new("setpriv")
            .args([
                "--reuid",
                "65534",
                "--regid",
                "65534",
                "--clear-groups",
                "test",
                "-x",
            ])
            .arg(program)
            .stdin(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
}
