//! Reads a file that an operator names: along a way, and with an owner, that others can't forge.
//!
//! Each symlink on the way must belong to root or to our own user, as must the file, to which
//! nobody else may write. Directories on the way are not judged: who may write there can take the
//! file away, but not put one there that is ours.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, openat, readlinkat};
use rustix::io::Errno;

use crate::limits::SYMLINKS_FOLLOWED_MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OperatorFileError {
    #[error("cannot be read: {0}")]
    Errno(Errno),
    #[error("is not a regular file")]
    NotRegular,
    #[error("belongs to user {0}: it must belong to root or to the server's user")]
    Owner(u32),
    #[error("may be written by others (mode {0:04o})")]
    Writable(u32),
    #[error("a symlink on the way to it belongs to user {0}")]
    LinkOwner(u32),
    #[error("is larger than {0} bytes")]
    TooLarge(u64),
}

impl From<Errno> for OperatorFileError {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// The whole of `path`, if it is worthy of trust and holds at most `bytes_max`.
pub fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, OperatorFileError> {
    let file = open(path)?;
    judge(&fstat(&file)?)?;
    let mut content = Vec::new();
    // One byte more than allowed tells a file that is too large.
    File::from(file)
        .take(bytes_max + 1)
        .read_to_end(&mut content)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    if content.len() as u64 > bytes_max {
        Err(OperatorFileError::TooLarge(bytes_max))
    } else {
        Ok(content)
    }
}

fn open(path: &Path) -> Result<rustix::fd::OwnedFd, OperatorFileError> {
    let here = OFlags::PATH | OFlags::CLOEXEC;
    let mut followed = 0;
    // What is still to walk, the next component last.
    let mut todo = components(path);
    let start: &Path = Path::new(if path.is_absolute() { "/" } else { "." });
    let mut dir = rustix::fs::open(start, here | OFlags::DIRECTORY, Mode::empty())?;
    loop {
        let Some(component) = todo.pop() else {
            return Err(OperatorFileError::NotRegular);
        };
        let next = openat(&dir, &component, here | OFlags::NOFOLLOW, Mode::empty())?;
        let stat = fstat(&next)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            if !is_ours(stat.st_uid) {
                return Err(OperatorFileError::LinkOwner(stat.st_uid));
            }
            followed += 1;
            if followed > SYMLINKS_FOLLOWED_MAX {
                return Err(Errno::LOOP.into());
            }
            let target = path_of(readlinkat(&next, "", Vec::new())?);
            if target.is_absolute() {
                dir = rustix::fs::open("/", here | OFlags::DIRECTORY, Mode::empty())?;
            }
            todo.extend(components(&target));
        } else if todo.is_empty() {
            // A file that was put here since is judged by its own stat. NONBLOCK: it may be a fifo.
            let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            return Ok(openat(&dir, &component, read, Mode::empty())?);
        } else {
            dir = next;
        }
    }
}

fn judge(stat: &Stat) -> Result<(), OperatorFileError> {
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        Err(OperatorFileError::NotRegular)
    } else if !is_ours(stat.st_uid) {
        Err(OperatorFileError::Owner(stat.st_uid))
    } else if stat.st_mode & WRITABLE_BY_OTHERS != 0 {
        Err(OperatorFileError::Writable(stat.st_mode & 0o7777))
    } else {
        Ok(())
    }
}

fn is_ours(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// The components of `path`, last first; `..` stays, for the kernel to resolve.
fn components(path: &Path) -> Vec<PathBuf> {
    let parts = path.as_os_str().as_bytes().split(|byte| *byte == b'/');
    let mut parts: Vec<PathBuf> = parts
        .filter(|part| !matches!(*part, b"" | b"."))
        .map(|part| PathBuf::from(std::ffi::OsString::from_vec(part.to_vec())))
        .collect();
    parts.reverse();
    parts
}

fn path_of(target: CString) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(target.into_bytes()))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::testing::Dir;
    use super::*;

    #[test]
    fn a_file_of_ours_is_read_also_through_links_of_ours() {
        let dir = Dir::new("operator-file");
        fs::create_dir(dir.join("real")).unwrap();
        dir.write("real/file", "text");
        symlink("real", dir.join("way")).unwrap();
        symlink("./way/../way/file", dir.join("link")).unwrap();
        symlink(dir.join("link"), dir.join("again")).unwrap();
        for name in ["real/file", "way/file", "link", "again"] {
            assert_eq!(read(&dir.join(name), 4), Ok(b"text".to_vec()), "{name}");
        }
        let too_large = read(&dir.join("link"), 3);
        assert_eq!(too_large, Err(OperatorFileError::TooLarge(3)));
    }

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        let dir = Dir::new("operator-file-mode");
        let file = dir.write("file", "");
        fs::set_permissions(&file, Permissions::from_mode(0o664)).unwrap();
        assert_eq!(read(&file, 1), Err(OperatorFileError::Writable(0o664)));
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(read(&file, 1), Ok(Vec::new()));
    }

    #[test]
    fn what_belongs_to_somebody_else_is_refused() {
        if !rustix::process::geteuid().is_root() {
            return; // only root can give files away
        }
        let dir = Dir::new("operator-file-owner");
        let (file, link) = (dir.write("file", ""), dir.join("link"));
        symlink("file", &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(12345), None).unwrap();
        assert_eq!(read(&link, 1), Err(OperatorFileError::LinkOwner(12345)));
        std::os::unix::fs::chown(&file, Some(12345), None).unwrap();
        // The owner alone says nothing to root; to any other user a foreign file is foreign.
        assert_eq!(read(&file, 1), Err(OperatorFileError::Owner(12345)));
    }

    #[test]
    fn directories_loops_and_gaps_are_refused() {
        let dir = Dir::new("operator-file-odd");
        symlink("loop", dir.join("loop")).unwrap();
        let error = |path: &Path| read(path, 1).unwrap_err();
        assert_eq!(error(&dir.join("")), OperatorFileError::NotRegular);
        assert_eq!(error(&dir.join("loop")), Errno::LOOP.into());
        assert_eq!(error(&dir.join("gap")), Errno::NOENT.into());
        assert_eq!(error(Path::new("/")), OperatorFileError::NotRegular);
    }
}
