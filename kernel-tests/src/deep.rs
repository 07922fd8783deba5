//! Trees deeper than any path can say: made from descriptor to descriptor.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

const DIR_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// `levels` directories below `root`, each with a name of `name_bytes` and a file beside the next.
#[track_caller]
pub fn plant(root: &Path, levels: usize, name_bytes: usize) {
    let mut here = rustix::fs::openat(CWD, root, DIR_FLAGS, Mode::empty()).expect("a root");
    for level in 0..levels {
        file(&here, &format!("level {level}\n"));
        let mut name = format!("{level}-");
        while name.len() < name_bytes {
            name.push('d');
        }
        let name = CString::new(name).expect("no NUL");
        rustix::fs::mkdirat(&here, &name, Mode::from_raw_mode(0o755)).expect("a directory");
        here = rustix::fs::openat(&here, &name, DIR_FLAGS, Mode::empty()).expect("it opens");
    }
    file(&here, "the bottom\n");
}

fn file(dir: &OwnedFd, text: &str) {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, c"file", flags, Mode::from_raw_mode(0o644));
    rustix::io::write(file.expect("a file"), text.as_bytes()).expect("it is written");
}
