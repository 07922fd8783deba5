//! A directory for one test of this floor, removed with its guard.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::disk::PosixDisk;
use crate::ops::Disk;

pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sy-{name}-{}", std::process::id()));
        // What an earlier run with this process id left behind, if it was killed.
        drop(std::fs::remove_dir_all(&path));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn open(&self) -> OwnedFd {
        PosixDisk
            .open_operator_dir(self.0.as_os_str().as_bytes())
            .unwrap()
    }

    pub fn path_bytes(&self, name: &[u8]) -> Vec<u8> {
        self.0
            .join(OsStr::from_bytes(name))
            .into_os_string()
            .into_encoded_bytes()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
