//! Sessions that do nothing: greeted, and from then on only signs of life.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sy::limits::{FRAME_HEAD_BYTES, HEARTBEAT_SECONDS};
use sy::model::id::SessionId;
use sy::model::policy::Policy;
use sy::wire::cursor::Writer;
use sy::wire::head::{FrameKind, Head, seal};
use sy::wire::hello::Hello;

use super::failure::{Doing, Failure, Result};
use super::tool::MODULE;

const HELLO_BYTES_MAX: usize = 256;
/// A server that has not said WELCOME by then does not let sessions in.
const WELCOME_MAX: Duration = Duration::from_secs(10);

/// They close without a word when this is dropped.
pub struct Idlers {
    streams: Vec<TcpStream>,
    /// Nothing is sent: its end ends the heart.
    leave: Option<Sender<()>>,
    heart: Option<JoinHandle<()>>,
}

impl Idlers {
    /// So many, each with its WELCOME, at the root of the server's module.
    pub fn greet(server: SocketAddr, count: u32) -> Result<Self> {
        let doing = || format!("{count} sessions that do nothing");
        let mut streams = Vec::new();
        for number in 0..count {
            streams.push(greeted(server, number).doing(doing)?);
        }
        let beating: io::Result<Vec<TcpStream>> =
            streams.iter().map(TcpStream::try_clone).collect();
        let beating = beating.doing(doing)?;
        let (leave, left) = mpsc::channel::<()>();
        let heart = thread::spawn(move || {
            let every = Duration::from_secs(HEARTBEAT_SECONDS);
            let sign = sign_of_life();
            while left.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                for mut stream in &beating {
                    // Who is gone is found in `check`.
                    let _ = stream.write_all(&sign);
                }
            }
        });
        Ok(Self {
            streams,
            leave: Some(leave),
            heart: Some(heart),
        })
    }

    /// Are all of them still there? A server that has sent some away was not beside so many.
    pub fn check(&mut self) -> Result<()> {
        let doing = || "a session that does nothing".into();
        let mut heard = [0; 256];
        let mut lost = 0;
        for stream in &mut self.streams {
            stream.set_nonblocking(true).doing(doing)?;
            let is_there = loop {
                match stream.read(&mut heard) {
                    Ok(0) => break false,
                    Ok(_) => {}
                    Err(error) => break error.kind() == ErrorKind::WouldBlock,
                }
            };
            stream.set_nonblocking(false).doing(doing)?;
            lost += u32::from(!is_there);
        }
        match lost {
            0 => Ok(()),
            _ => Err(Failure::Tool(format!(
                "the server closed {lost} of {} sessions that do nothing",
                self.streams.len()
            ))),
        }
    }
}

impl Drop for Idlers {
    fn drop(&mut self) {
        self.leave = None;
        if let Some(heart) = self.heart.take() {
            let _ = heart.join();
        }
    }
}

fn greeted(server: SocketAddr, number: u32) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(WELCOME_MAX))?;
    stream.write_all(&hello(number))?;
    let mut head = [0; FRAME_HEAD_BYTES];
    stream.read_exact(&mut head)?;
    let head = Head::decode(&head).map_err(io::Error::other)?;
    let mut payload = vec![0; head.payload_bytes];
    stream.read_exact(&mut payload)?;
    if head.kind != FrameKind::Welcome {
        let said = format!("{} instead of WELCOME", head.kind.name());
        return Err(io::Error::other(said));
    }
    Ok(stream)
}

fn hello(number: u32) -> Vec<u8> {
    let hello = Hello {
        session: SessionId(number.into()),
        policy: Policy::default(),
        patience: None,
        boot_id: [0; 16],
        sum_key: [0; 32],
        module: MODULE.into(),
        dest: Vec::new(),
        dest_is_relative: false,
        dest_is_dir: true,
        single_file: false,
    };
    let mut frame = vec![0; HELLO_BYTES_MAX];
    let mut writer = Writer::resume(&mut frame, FRAME_HEAD_BYTES);
    hello.encode(&mut writer);
    let payload_bytes = writer.at() - FRAME_HEAD_BYTES;
    let len = seal(&mut frame, FrameKind::Hello, payload_bytes);
    frame.truncate(len);
    frame
}

fn sign_of_life() -> [u8; FRAME_HEAD_BYTES] {
    let mut frame = [0; FRAME_HEAD_BYTES];
    seal(&mut frame, FrameKind::Ignorable, 0);
    frame
}
