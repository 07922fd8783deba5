//! Waiting with an end: a hang is a failure with a name, never a stuck run. The bounds are far
//! beyond anything a loaded machine needs; no test measures speed with them.

use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// How long anything may take before it counts as hung: `SY_TESTS_HANG_SECONDS`, else two minutes.
pub fn hang() -> Duration {
    let seconds = std::env::var("SY_TESTS_HANG_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(120))
}

/// Waits until `done` says so.
#[track_caller]
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    assert!(comes_true(hang(), &mut done), "hung: {what}");
}

/// Does `done` come true within `patience`? A machine that stands still meanwhile (a snapshot, a
/// frozen container) costs none of it but a moment.
pub fn comes_true(patience: Duration, mut done: impl FnMut() -> bool) -> bool {
    let (mut waited, mut seen) = (Duration::ZERO, Instant::now());
    loop {
        if done() {
            return true;
        }
        if waited > patience {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
        waited += seen.elapsed().min(Duration::from_secs(1));
        seen = Instant::now();
    }
}

/// The end of a child, or `None` after [`hang`].
pub fn end_of(child: &mut Child) -> Option<ExitStatus> {
    let mut status = None;
    comes_true(hang(), || {
        status = child.try_wait().expect("a child can be waited for");
        status.is_some()
    });
    status
}

/// `read` that goes on: a socket with a timeout is interrupted where a process was stopped or frozen.
pub fn read(stream: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(block) {
            Err(why) if why.kind() == ErrorKind::Interrupted => {}
            got => return got,
        }
    }
}

/// Reads until the peer ends the connection, in whichever way; a peer that never does fails the
/// test.
#[track_caller]
pub fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    stream
        .set_read_timeout(Some(hang()))
        .expect("a timeout can be set");
    let (mut all, mut block) = (Vec::new(), [0; 4096]);
    loop {
        match read(stream, &mut block) {
            Ok(0) => return all,
            Ok(len) => all.extend_from_slice(&block[..len]),
            Err(why) if why.kind() == ErrorKind::WouldBlock => panic!("hung: never closed"),
            Err(_) => return all,
        }
    }
}

/// Sends a signal to a child that is ours and not yet reaped.
pub fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).expect("a pid fits");
    let pid = Pid::from_raw(pid).expect("a pid is not zero");
    // It may have ended by itself: then it is a zombie until reaped, and the signal does nothing.
    let _ = rustix::process::kill_process(pid, signal);
}
