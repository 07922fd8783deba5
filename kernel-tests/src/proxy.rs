//! A TCP proxy that does to a connection what networks do: cut it, reset it, hold it, flip a bit.

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::guard;

/// What happens after so many bytes went one way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// Both sides see the connection end, as if the other had closed it.
    Finish,
    /// Both sides see a reset.
    Reset,
    /// Nothing goes that way any more until [`Proxy::release`]; the rest waits in the sockets.
    Hold,
    /// The next byte has one bit changed.
    Flip(u8),
    /// Nothing.
    Pass,
}

/// Which way the counted bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    ToServer,
    ToClient,
}

/// A plan for every connection that comes.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub way: Way,
    pub after_bytes: u64,
    pub deed: Deed,
}

impl Plan {
    pub const PASS: Self = Self {
        way: Way::ToServer,
        after_bytes: 0,
        deed: Deed::Pass,
    };
}

/// A proxy in front of a loopback port. It ends when it is dropped.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    plan: Plan,
    /// Bytes that a server gets of each connection in a second; `None`: what comes.
    pace: Option<NonZeroU32>,
    upstream: u16,
    done: AtomicBool,
    held: AtomicBool,
    released: AtomicBool,
    to_server: AtomicU64,
    to_client: AtomicU64,
    pairs: Mutex<Vec<Weak<Pair>>>,
}

const TURN: Duration = Duration::from_millis(2);

impl Proxy {
    pub fn start(upstream: u16, plan: Plan) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
        Self::behind(listener, upstream, plan)
    }

    /// One that takes its connections from there.
    pub fn behind(listener: TcpListener, upstream: u16, plan: Plan) -> Self {
        Self::with(listener, upstream, plan, None)
    }

    /// One that only slows down: the server gets so many bytes of each connection in a second.
    pub fn paced(listener: TcpListener, upstream: u16, pace: NonZeroU32) -> Self {
        Self::with(listener, upstream, Plan::PASS, Some(pace))
    }

    fn with(listener: TcpListener, upstream: u16, plan: Plan, pace: Option<NonZeroU32>) -> Self {
        let port = listener.local_addr().expect("it has an address").port();
        listener.set_nonblocking(true).expect("a listener may poll");
        let shared = Arc::new(Shared {
            plan,
            pace,
            upstream,
            done: AtomicBool::new(false),
            held: AtomicBool::new(false),
            released: AtomicBool::new(false),
            to_server: AtomicU64::new(0),
            to_client: AtomicU64::new(0),
            pairs: Mutex::new(Vec::new()),
        });
        let mine = Arc::clone(&shared);
        let acceptor = Some(std::thread::spawn(move || accept(&listener, &mine)));
        Self {
            port,
            shared,
            acceptor,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Is a connection being held?
    pub fn is_holding(&self) -> bool {
        self.shared.held.load(Ordering::Acquire)
    }

    pub fn release(&self) {
        self.shared.released.store(true, Ordering::Release);
    }

    /// Bytes that went a way so far, over all connections.
    pub fn bytes(&self, way: Way) -> u64 {
        self.shared.count(way).load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.done.store(true, Ordering::Release);
        for pair in self
            .shared
            .pairs
            .lock()
            .expect("no thread panics with it")
            .drain(..)
        {
            if let Some(pair) = pair.upgrade() {
                pair.finish();
            }
        }
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn count(&self, way: Way) -> &AtomicU64 {
        match way {
            Way::ToServer => &self.to_server,
            Way::ToClient => &self.to_client,
        }
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
}

/// Both ends of one proxied connection.
struct Pair {
    client: TcpStream,
    server: TcpStream,
    reset: AtomicBool,
}

impl Pair {
    fn ends(&self, way: Way) -> (&TcpStream, &TcpStream) {
        match way {
            Way::ToServer => (&self.client, &self.server),
            Way::ToClient => (&self.server, &self.client),
        }
    }

    /// An orderly end on both sides.
    fn finish(&self) {
        for stream in [&self.client, &self.server] {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// A close with nothing to linger for sends a reset; it happens when both pumps have let go,
    /// which they do once their reads end. Shutting the reading side down says nothing to the peer.
    fn reset(&self) {
        self.reset.store(true, Ordering::Release);
        for stream in [&self.client, &self.server] {
            let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
            let _ = stream.shutdown(Shutdown::Read);
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut pumps = Vec::new();
    while !shared.is_done() {
        let Ok((client, _)) = listener.accept() else {
            std::thread::sleep(TURN);
            continue;
        };
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.upstream)) else {
            continue;
        };
        client.set_nonblocking(false).expect("a stream may block");
        for stream in [&client, &server] {
            let _ = stream.set_nodelay(true);
        }
        let pair = Arc::new(Pair {
            client,
            server,
            reset: AtomicBool::new(false),
        });
        shared
            .pairs
            .lock()
            .expect("no thread panics with it")
            .push(Arc::downgrade(&pair));
        for way in [Way::ToServer, Way::ToClient] {
            let (pair, shared) = (Arc::clone(&pair), Arc::clone(shared));
            pumps.push(std::thread::spawn(move || pump(way, &pair, &shared)));
        }
    }
    for pump in pumps {
        let _ = pump.join();
    }
}

fn pump(way: Way, pair: &Pair, shared: &Shared) {
    let (mut from, mut to) = pair.ends(way);
    let mut block = vec![0; 64 * 1024];
    let mut passed = 0;
    let Plan {
        after_bytes,
        deed,
        way: planned,
    } = shared.plan;
    let mut armed = way == planned && deed != Deed::Pass;
    loop {
        if armed && passed == after_bytes {
            match deed {
                Deed::Finish => return pair.finish(),
                Deed::Reset => return pair.reset(),
                Deed::Hold => {
                    shared.held.store(true, Ordering::Release);
                    while !shared.released.load(Ordering::Acquire) && !shared.is_done() {
                        std::thread::sleep(TURN);
                    }
                    armed = false;
                }
                Deed::Flip(_) | Deed::Pass => {}
            }
        }
        let room = if armed && passed < after_bytes {
            usize::try_from(after_bytes - passed)
                .unwrap_or(usize::MAX)
                .min(block.len())
        } else {
            block.len()
        };
        let len = guard::read(&mut from, &mut block[..room]);
        if pair.reset.load(Ordering::Acquire) {
            return;
        }
        let len = match len {
            Ok(0) => {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            Ok(len) => len,
            Err(_) => return pair.reset(),
        };
        if let Deed::Flip(bit) = deed
            && armed
            && passed == after_bytes
        {
            block[0] ^= 1 << (bit % 8);
            armed = false;
        }
        if let Some(pace) = shared.pace
            && way == Way::ToServer
        {
            let seconds = len as f64 / f64::from(pace.get());
            std::thread::sleep(Duration::from_secs_f64(seconds));
        }
        passed += len as u64;
        shared.count(way).fetch_add(len as u64, Ordering::Relaxed);
        if to.write_all(&block[..len]).is_err() {
            return pair.reset();
        }
    }
}
