//! The second oracle: `rsync -a`, told to do the same to a twin of the destination.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

/// `rsync -a`, with times compared to the nanosecond instead of the second.
pub const AS_SY: [&str; 2] = ["-a", "--modify-window=-1"];

/// Runs rsync and returns its exit code.
#[track_caller]
pub fn rsync<S: AsRef<OsStr>>(options: &[&str], sources: &[S], dest: impl AsRef<OsStr>) -> i32 {
    let output = Command::new("rsync")
        .args(AS_SY)
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
