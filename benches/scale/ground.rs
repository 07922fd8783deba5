//! The directory everything happens in: `source`, `target` and what the processes said. It goes when
//! the bench ends.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FsWord, StatVfs, statfs, statvfs, sync};

use super::failure::{Doing, Failure, Result};
use super::procfs;
use super::stop::Stop;
use super::table;

const PREFIX: &str = "sy-scale-bench.";
/// From linux/magic.h and its neighbours.
const FILE_SYSTEMS: [(FsWord, &str); 4] = [
    (0x0102_1994, TMPFS),
    (0xEF53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683E, "btrfs"),
];
const TMPFS: &str = "tmpfs";
/// Low enough that the kernel writes nothing in the background.
const DIRTY_BYTES_MAX: u64 = 16 << 20;
const SETTLE_MAX: Duration = Duration::from_secs(120);
/// Trees from this size on find their memory warm; smaller ones take it from what was freed last.
const WARMED_BYTES_MIN: u64 = 128 << 20;
/// Left free for everybody else on the machine.
const SPARE_BYTES: u64 = 1 << 30;

pub struct Ground {
    root: PathBuf,
    pub file_system: &'static str,
}

impl Ground {
    pub fn new(dir: &Path) -> Result<Self> {
        let doing = || dir.display().to_string();
        let dir = dir.canonicalize().doing(doing)?;
        mention_leftovers(&dir);
        let kind = statfs(&dir).doing(doing)?.f_type;
        let root = dir.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&root).doing(|| root.display().to_string())?;
        let ground = Self {
            root,
            file_system: FILE_SYSTEMS
                .into_iter()
                .find(|(magic, _)| *magic == kind)
                .map_or("another file system", |(_, name)| name),
        };
        for part in [ground.target(), ground.said()] {
            fs::create_dir(&part).doing(|| part.display().to_string())?;
        }
        Ok(ground)
    }

    pub fn is_tmpfs(&self) -> bool {
        self.file_system == TMPFS
    }

    pub fn source(&self) -> PathBuf {
        self.root.join("source")
    }

    /// What is pushed beside the row's own tree.
    pub fn huge(&self) -> PathBuf {
        self.root.join("huge")
    }

    /// The new version of the row's tree, where the target has the old one.
    pub fn changed(&self) -> PathBuf {
        self.root.join("changed")
    }

    /// The root of the module that both servers export.
    pub fn target(&self) -> PathBuf {
        self.root.join("target")
    }

    /// Configuration and output of the processes.
    pub fn said(&self) -> PathBuf {
        self.root.join("said")
    }

    /// Why so many inodes and bytes would not fit, if they would not.
    pub fn lacks(&self, inodes: u64, bytes: u64) -> Result<Option<String>> {
        let free: StatVfs = statvfs(&self.root).doing(|| self.root.display().to_string())?;
        // A file system that makes inodes as it goes says it has none at all.
        if free.f_files > 0 && free.f_favail < inodes {
            return Ok(Some(format!(
                "needs {inodes} inodes, {} are free: give --dir one with more",
                free.f_favail
            )));
        }
        let mut free_bytes = free.f_bavail * free.f_frsize;
        if self.is_tmpfs() {
            free_bytes = free_bytes.min(procfs::memory_available_bytes()?);
        }
        if free_bytes < bytes + SPARE_BYTES {
            return Ok(Some(format!(
                "needs {} MiB and 1 GiB to spare, {} MiB are free",
                bytes >> 20,
                free_bytes >> 20
            )));
        }
        Ok(None)
    }

    /// Waits until the disk has nothing left to do from the run before. A tmpfs has no disk.
    pub fn settle(&self, stop: &Stop) -> Result<()> {
        if self.is_tmpfs() {
            return Ok(());
        }
        let deadline = Instant::now() + SETTLE_MAX;
        sync();
        while procfs::dirty_bytes()? > DIRTY_BYTES_MAX {
            stop.check()?;
            if Instant::now() > deadline {
                return Err(Failure::Unfit(format!(
                    "{} MiB are still dirty after {} s: somebody else is writing",
                    procfs::dirty_bytes()? >> 20,
                    SETTLE_MAX.as_secs()
                )));
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Sees to it that so many bytes of memory are at hand for a tree on a tmpfs. A virtual machine may give
    /// free pages back to its host and has to wait for others, page by page: here 4 GiB took from 2 to 8 s
    /// to write, and whoever came first after a pause paid for those after it.
    pub fn warm(&self, bytes: u64, stop: &Stop) -> Result<()> {
        if !self.is_tmpfs() || bytes < WARMED_BYTES_MIN {
            return Ok(());
        }
        let path = self.root.join("warm");
        let write = || -> io::Result<()> {
            let mut file = File::create(&path)?;
            let chunk = vec![1; 1 << 20];
            for _ in 0..bytes.div_ceil(chunk.len() as u64) {
                if stop.check().is_err() {
                    break; // the next look at the flag ends the bench
                }
                file.write_all(&chunk)?;
            }
            Ok(())
        };
        write().doing(|| path.display().to_string())?;
        fs::remove_file(&path).doing(|| path.display().to_string())
    }

    /// Removes a tree that may not exist.
    pub fn clear(&self, path: &Path) -> Result<()> {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).doing(|| path.display().to_string())
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.root) {
            table::say(&format!(
                "scale_bench: {}: {error}: please remove it",
                self.root.display()
            ));
        }
    }
}

/// A bench that was killed could not tidy up; somebody should know where the memory is.
fn mention_leftovers(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if let Some(pid) = pid
            && !Path::new("/proc").join(pid).exists()
        {
            table::say(&format!(
                "left over from a killed bench: {}",
                entry.path().display()
            ));
        }
    }
}
