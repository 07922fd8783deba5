//! A place of its own for one test: made empty, removed at the end.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// A directory that is removed, with all that is below, when the test ends.
pub struct Yard {
    root: PathBuf,
}

impl Yard {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = place().join(format!("sy-yard.{}.{count}", std::process::id()));
        std::fs::create_dir_all(&root).expect("a yard can be made");
        crate::plant::chmod(&root, 0o755);
        Self { root }
    }

    pub fn path(&self) -> &Path {
        &self.root
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }
}

impl Default for Yard {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("SY_TESTS_KEEP").is_some() {
            println!("kept: {}", self.root.display());
            return;
        }
        clear(&self.root);
        let _ = std::fs::remove_dir(&self.root);
    }
}

fn place() -> PathBuf {
    if let Some(dir) = std::env::var_os("SY_TESTS_DIR") {
        return PathBuf::from(dir);
    }
    let shm = Path::new("/dev/shm");
    // A container often has 64 MiB there, which is less than one test needs.
    let roomy = rustix::fs::statvfs(shm).is_ok_and(|fs| fs.f_bavail * fs.f_frsize > 2 << 30);
    if roomy {
        shm.to_owned()
    } else {
        std::env::temp_dir()
    }
}

/// Removes what is in `dir`, however deep, with two descriptors at a time.
pub fn clear(dir: &Path) {
    const FLAGS: OFlags = OFlags::RDONLY
        .union(OFlags::DIRECTORY)
        .union(OFlags::NOFOLLOW)
        .union(OFlags::CLOEXEC);
    let Ok(mut here) = rustix::fs::openat(CWD, dir, FLAGS, Mode::empty()) else {
        return;
    };
    let mut trail: Vec<std::ffi::CString> = Vec::new();
    loop {
        match first_subdir_after_removing_files(&here) {
            Some(name) => {
                let _ = rustix::fs::chmodat(&here, &name, Mode::RWXU, AtFlags::empty());
                match rustix::fs::openat(&here, &name, FLAGS, Mode::empty()) {
                    Ok(below) => {
                        trail.push(name);
                        here = below;
                    }
                    Err(_) => return,
                }
            }
            None => {
                let Some(name) = trail.pop() else { return };
                let Ok(above) = rustix::fs::openat(&here, "..", FLAGS, Mode::empty()) else {
                    return;
                };
                here = above;
                if rustix::fs::unlinkat(&here, &name, AtFlags::REMOVEDIR).is_err() {
                    return;
                }
            }
        }
    }
}

/// Removes all but directories; names a directory that is left.
fn first_subdir_after_removing_files(dir: &OwnedFd) -> Option<std::ffi::CString> {
    let mut subdir = None;
    for entry in Dir::read_from(dir).ok()? {
        let Ok(entry) = entry else { break };
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if entry.file_type() == FileType::Directory {
            // Empty ones go at once, so that a wide directory is not read again for each.
            match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
                Ok(()) => {}
                Err(_) => subdir = Some(name.to_owned()),
            }
        } else if rustix::fs::unlinkat(dir, name, AtFlags::empty()) == Err(Errno::ACCESS) {
            return None;
        }
    }
    subdir
}
