//! A connection, by TCP or through a UNIX socket.

use std::io;
use std::net::Shutdown;

use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::{TcpStream, UnixStream};

use super::Address;

pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    pub(super) async fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(*address).await?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            Address::Unix(path) => Ok(Self::Unix(UnixStream::connect(path).await?)),
        }
    }

    /// Exactly `len` bytes; fewer where the stream ends before.
    pub(super) async fn read(&self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let room = bytes.len()..len;
            let (result, slice) = match self {
                Self::Tcp(stream) => stream.read(bytes.slice(room)).await,
                Self::Unix(stream) => stream.read(bytes.slice(room)).await,
            };
            bytes = slice.into_inner();
            if result? == 0 {
                break;
            }
        }
        Ok(bytes)
    }

    pub(super) async fn write_all(&self, bytes: Vec<u8>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes).await.0,
            Self::Unix(stream) => stream.write_all(bytes).await.0,
        }
    }

    /// Ends reads and writes that are under way: the runtime can't cancel them, and does not end
    /// while one is left.
    pub(super) fn hang_up(&self) {
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}
