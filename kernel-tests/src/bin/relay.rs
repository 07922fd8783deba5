//! `relay LISTEN PORT [BYTES-PER-SECOND]`: takes connections at LISTEN and hands them on to PORT on loopback, where a
//! server without identities has to stay; slowly, if a pace is given. docker/run.sh makes a network lead to a server by it.

#![allow(clippy::print_stderr, reason = "what is wrong is printed")]

use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::process::ExitCode;

use kernel_tests::proxy::{Plan, Proxy};

struct Words {
    listen: SocketAddr,
    port: u16,
    pace: Option<NonZeroU32>,
}

fn main() -> ExitCode {
    let Some(words) = read(std::env::args().skip(1)) else {
        eprintln!("usage: relay ADDRESS:PORT PORT [BYTES-PER-SECOND]");
        return ExitCode::from(1);
    };
    let listener = match TcpListener::bind(words.listen) {
        Ok(listener) => listener,
        Err(why) => {
            eprintln!("relay: {}: cannot listen: {why}", words.listen);
            return ExitCode::from(10);
        }
    };
    let _proxy = match words.pace {
        Some(pace) => Proxy::paced(listener, words.port, pace),
        None => Proxy::behind(listener, words.port, Plan::PASS),
    };
    // Until somebody kills it.
    loop {
        std::thread::park();
    }
}

fn read(mut words: impl Iterator<Item = String>) -> Option<Words> {
    let listen = words.next()?.parse().ok()?;
    let port = words.next()?.parse().ok()?;
    let pace = match words.next() {
        Some(word) => Some(word.parse().ok()?),
        None => None,
    };
    words
        .next()
        .is_none()
        .then_some(Words { listen, port, pace })
}
