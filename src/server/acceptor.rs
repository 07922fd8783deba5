//! The acceptor: one thread waits at all listeners and gives each connection to the shard that
//! has the fewest. Never hot, so it blocks like any other program.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;

use super::config::Listen;
use super::turned_away::TurnedAway;
use crate::engine::start::{self, tune_tcp};
use crate::limits::ACCEPTS_PER_ROUND_MAX;

/// A bound listener.
pub enum Listener {
    Unix {
        listener: UnixListener,
        path: PathBuf,
        /// (dev, ino) of the socket file.
        file: (u64, u64),
    },
    Tcp(TcpListener),
}

/// Where a connection came from; it decides what its session may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The UNIX socket: its mode admits the server's own user only.
    Own,
    /// TCP without an identity.
    Anyone,
}

/// A connection for a shard.
pub struct Arrival {
    pub stream: OwnedFd,
    pub origin: Origin,
    /// For the log.
    pub peer: String,
}

impl Listener {
    /// Binds. `made` hears of a directory that was made for a socket.
    pub fn bind(listen: &Listen, made: impl FnOnce(&Path)) -> io::Result<Self> {
        match listen {
            Listen::Tcp { address } => {
                let listener = TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Tcp(listener))
            }
            Listen::Unix { socket } => {
                let listener = bind_unix(socket, made)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Unix {
                    listener,
                    path: socket.clone(),
                    file: identity(socket)?,
                })
            }
        }
    }

    pub fn place(&self) -> String {
        match self {
            Self::Tcp(listener) => listener
                .local_addr()
                .map_or_else(|_| "tcp".to_owned(), |address| address.to_string()),
            Self::Unix { path, .. } => path.display().to_string(),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix { listener, .. } => listener.as_fd(),
        }
    }

    fn accept(&self) -> io::Result<Arrival> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept()?;
                tune_tcp(&stream);
                Ok(Arrival {
                    stream: stream.into(),
                    origin: Origin::Anyone,
                    peer: address.to_string(),
                })
            }
            Self::Unix { listener, .. } => {
                let (stream, _) = listener.accept()?;
                // Of a peer in another pid namespace the pid is 0, which rustix's type can't hold.
                let peer = match getsockopt(&stream, PeerCredentials) {
                    Ok(cred) => format!("unix:uid={},pid={}", cred.uid(), cred.pid()),
                    Err(_) => "unix".to_owned(),
                };
                Ok(Arrival {
                    stream: stream.into(),
                    origin: Origin::Own,
                    peer,
                })
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A socket file that stays is taken over at the next start. Another may have taken its place.
        if let Self::Unix { path, file, .. } = self
            && identity(path).is_ok_and(|found| found == *file)
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// Binds with mode 0600; takes over the socket of a server that is gone, and nothing else.
fn bind_unix(path: &Path, made: impl FnOnce(&Path)) -> io::Result<UnixListener> {
    if let Some(above) = path.parent()
        && !above.as_os_str().is_empty()
        && !above.exists()
    {
        // The umask is 0, and who gets in before the mode is set could bind in our place.
        std::fs::DirBuilder::new().mode(0o755).create(above)?;
        made(above);
    }
    let bind = || {
        // The mode has to be right from the first instant; no other thread runs yet.
        let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let bound = UnixListener::bind(path);
        rustix::process::umask(before);
        bound
    };
    match bind() {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let is_dead = UnixStream::connect(path)
                .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
            let is_socket =
                std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
            if !is_socket {
                return Err(io::Error::other("it exists and is no socket"));
            }
            if !is_dead {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            bind()
        }
        bound => bound,
    }
}

/// Without accepting, after an accept failed: out of descriptors, the next one would fail at once.
const PAUSE_AT_LIMIT: Duration = Duration::from_millis(200);

/// Streams that become readable at signals.
pub struct Signals {
    pub stop: UnixStream,
    /// The operator wants to see figures.
    pub ask: UnixStream,
}

/// Accepts until it is to stop. `give` takes each connection, or gives it back where there are
/// `connections_max` already; `asked` is for the operator's questions.
pub fn accept_until(
    listeners: &[Listener],
    signals: &Signals,
    connections_max: usize,
    mut give: impl FnMut(Arrival) -> Result<(), Arrival>,
    mut complain: impl FnMut(&io::Error),
    mut asked: impl FnMut(),
) {
    let mut turned_away = TurnedAway::default();
    let mut is_at_limit = false;
    loop {
        let mut waits = vec![
            PollFd::new(&signals.stop, PollFlags::IN),
            PollFd::new(&signals.ask, PollFlags::IN),
        ];
        waits.extend(turned_away.polls());
        let away_end = waits.len();
        if !is_at_limit {
            waits.extend(
                listeners
                    .iter()
                    .map(|listener| PollFd::from_borrowed_fd(listener.fd(), PollFlags::IN)),
            );
        }
        let pause = is_at_limit.then_some(PAUSE_AT_LIMIT);
        let pause = [pause, turned_away.patience(start::now())];
        let pause = pause.into_iter().flatten().min();
        let pause = pause.map(|pause| Timespec::try_from(pause).expect("some seconds"));
        match poll(&mut waits, pause.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return complain(&errno.into()),
        }
        if !waits[0].revents().is_empty() {
            return;
        }
        if !waits[1].revents().is_empty() {
            // Several signals are one question.
            let _ = io::Read::read(&mut &signals.ask, &mut [0; 64]);
            asked();
        }
        let hung_up: Vec<bool> = waits[2..away_end]
            .iter()
            .map(|wait| !wait.revents().is_empty())
            .collect();
        turned_away.close(&hung_up, start::now());
        is_at_limit = false;
        for listener in listeners {
            // However many come, the next look at `stop` is not far. Who waits is still there then.
            for _ in 0..ACCEPTS_PER_ROUND_MAX {
                match listener.accept() {
                    Ok(arrival) => {
                        if let Err(Arrival { stream, .. }) = give(arrival) {
                            turned_away.take(stream, connections_max, start::now());
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // The peer was gone before it was served.
                    Err(error)
                        if matches!(
                            error.kind(),
                            io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
                        ) => {}
                    Err(error) => {
                        complain(&error);
                        is_at_limit = true;
                        break;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::testing::Dir;
    use super::*;

    /// Not by `bind_unix`: its umask is that of every test that runs beside this one.
    fn listen(dir: &Dir) -> Listener {
        let path = dir.join("s");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let file = identity(&path).unwrap();
        Listener::Unix {
            listener,
            path,
            file,
        }
    }

    #[test]
    fn a_flood_of_connections_does_not_keep_a_server_from_ending() {
        let dir = Dir::new("flood");
        let listener = listen(&dir);
        let (stop, signal) = UnixStream::pair().unwrap();
        let (ask, _nobody) = UnixStream::pair().unwrap();
        let signals = Signals { stop, ask };
        let knock = || UnixStream::connect(dir.join("s")).unwrap();
        let mut waiting: Vec<UnixStream> = (0..100).map(|_| knock()).collect();
        let mut given = 0;
        let give = |_: Arrival| {
            given += 1;
            (&signal).write_all(b"!").unwrap();
            waiting.push(knock()); // For each that gets in another one comes.
            assert!(given < 10_000, "it goes on for ever");
            Ok(())
        };
        let complain = |error: &io::Error| panic!("{error}");
        accept_until(&[listener], &signals, 1000, give, complain, || {});
        assert!((1..=ACCEPTS_PER_ROUND_MAX).contains(&given), "{given}");
    }
}
