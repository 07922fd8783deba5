//! A TCP proxy that puts a server far away: everything arrives half a round trip later, and a
//! connection takes a whole one. Bandwidth has no end: what comes is taken, and waits in memory.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::failure::{Doing, Result};

const READ_BYTES: usize = 256 << 10;

/// Ends when it is dropped; its connections, when both of their ends have.
pub struct Distance {
    pub address: SocketAddr,
    pub round_trip: Duration,
    done: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

/// Some bytes, and when they are there. None of them: the end of the stream.
struct Parcel {
    due: Instant,
    bytes: Vec<u8>,
}

impl Distance {
    pub fn to(server: SocketAddr, round_trip: Duration) -> Result<Self> {
        let doing = || "a proxy on a loopback port".into();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).doing(doing)?;
        let address = listener.local_addr().doing(doing)?;
        let done = Arc::new(AtomicBool::new(false));
        let is_done = Arc::clone(&done);
        let acceptor = thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if is_done.load(Ordering::Acquire) {
                    return;
                }
                thread::spawn(move || connect(&client, server, round_trip));
            }
        });
        Ok(Self {
            address,
            round_trip,
            done,
            acceptor: Some(acceptor),
        })
    }
}

impl Drop for Distance {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Release);
        // Only a connection ends its wait for one.
        if TcpStream::connect(self.address).is_ok()
            && let Some(acceptor) = self.acceptor.take()
        {
            let _ = acceptor.join();
        }
    }
}

/// The kernel has let the client in at once. Far away it would have learned so after a round trip,
/// and sent its first bytes then; the server would have heard of it half a round trip later still.
fn connect(client: &TcpStream, server: SocketAddr, round_trip: Duration) {
    thread::sleep(round_trip);
    let far = || -> io::Result<()> {
        let from_client = take_in(client.try_clone()?, round_trip / 2);
        thread::sleep(round_trip / 2);
        let server = TcpStream::connect(server)?;
        for end in [client, &server] {
            end.set_nodelay(true)?;
        }
        let to_client = client.try_clone()?;
        let from_server = take_in(server.try_clone()?, round_trip / 2);
        let back = thread::spawn(move || deliver(&from_server, to_client));
        deliver(&from_client, server);
        let _ = back.join();
        Ok(())
    };
    if far().is_err() {
        // The client says so, and the row fails there.
        let _ = client.shutdown(Shutdown::Both);
    }
}

fn take_in(mut from: TcpStream, delay: Duration) -> Receiver<Parcel> {
    let (parcels, arrivals): (Sender<Parcel>, _) = mpsc::channel();
    thread::spawn(move || {
        let mut block = vec![0; READ_BYTES];
        loop {
            let len = from.read(&mut block).unwrap_or(0);
            let parcel = Parcel {
                due: Instant::now() + delay,
                bytes: block[..len].to_vec(),
            };
            if parcels.send(parcel).is_err() || len == 0 {
                return;
            }
        }
    });
    arrivals
}

fn deliver(arrivals: &Receiver<Parcel>, mut to: TcpStream) {
    while let Ok(Parcel { due, bytes }) = arrivals.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if bytes.is_empty() {
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
        if to.write_all(&bytes).is_err() {
            // Whoever still sends this way learns that nobody reads.
            let _ = to.shutdown(Shutdown::Both);
            return;
        }
    }
}
