//! The second oracle: `rsync -a`, told to do the same to a twin of the destination.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

/// Runs rsync and returns its exit code.
#[track_caller]
pub fn rsync<S: AsRef<OsStr>>(options: &[&str], sources: &[S], dest: impl AsRef<OsStr>) -> i32 {
    let output = Command::new("rsync")
        .arg("-a")
        .args(options)
        .args(sources)
        .arg(dest)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .expect("rsync runs");
    println!("twin: {}", String::from_utf8_lossy(&output.stderr));
    output.status.code().expect("rsync exits")
}
