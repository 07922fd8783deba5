//! Both ends of the protocol, made by hand and free to lie: every frame is written byte by byte
//! from the layout of the frames, with nothing of sy's own encoder, so that a test can send what
//! sy never would and a fault of the encoder can't hide one of the decoder.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread::JoinHandle;

use twox_hash::{XxHash3_64, XxHash3_128};

use crate::guard;

pub const HELLO: u8 = 0x01;
pub const LIST: u8 = 0x02;
pub const PACK: u8 = 0x03;
pub const DATA: u8 = 0x04;
pub const END: u8 = 0x05;
pub const DONE: u8 = 0x06;
pub const SIGN: u8 = 0x07;
pub const TOKENS: u8 = 0x08;
pub const OWNERS: u8 = 0x09;
pub const CHECK: u8 = 0x0a;
/// The first of the kinds that a peer reads over.
pub const IGNORABLE: u8 = 0x70;
pub const WELCOME: u8 = 0x81;
pub const LISTING: u8 = 0x82;
pub const NOTICE: u8 = 0x83;
pub const STOP: u8 = 0x84;
pub const REPORT: u8 = 0x85;
pub const REFUSED: u8 = 0x86;
pub const SIGNATURE: u8 = 0x87;
pub const MAPPED: u8 = 0x88;
pub const DIGESTS: u8 = 0x89;

pub const VERSION: u16 = 1;
pub const HEAD_BYTES: usize = 16;
/// Bytes of the longest payload.
pub const PAYLOAD_MAX: usize = 256 * 1024 + 4096 - HEAD_BYTES;
/// Bytes of a chunk of a large file.
pub const CHUNK: usize = 256 * 1024;

/// Flags of a HELLO.
pub const DRY_RUN: u32 = 1;
pub const DELETE: u32 = 2;

/// The refusal that says "the peer broke the protocol".
pub const PROTOCOL: u8 = 6;
/// The refusal that says "no more connections".
pub const BUSY: u8 = 9;

pub const ROOT: u32 = 0;

/// Bytes under construction; numbers are little-endian.
#[derive(Clone, Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    #[must_use]
    pub fn u8(self, value: u8) -> Self {
        self.raw(&[value])
    }

    #[must_use]
    pub fn u16(self, value: u16) -> Self {
        self.raw(&value.to_le_bytes())
    }

    #[must_use]
    pub fn u32(self, value: u32) -> Self {
        self.raw(&value.to_le_bytes())
    }

    #[must_use]
    pub fn u64(self, value: u64) -> Self {
        self.raw(&value.to_le_bytes())
    }

    #[must_use]
    pub fn u128(self, value: u128) -> Self {
        self.raw(&value.to_le_bytes())
    }

    /// One byte of length and the name, whatever it is.
    #[must_use]
    pub fn name(self, name: &[u8]) -> Self {
        let len = u8::try_from(name.len()).expect("the length of a name is one byte");
        self.u8(len).raw(name)
    }

    /// Two bytes of length and the text.
    #[must_use]
    pub fn text(self, text: &[u8]) -> Self {
        let len = u16::try_from(text.len()).expect("the length of a text is two bytes");
        self.u16(len).raw(text)
    }

    #[must_use]
    pub fn meta(self, meta: Meta) -> Self {
        self.u16(meta.st_mode)
            .u32(meta.uid)
            .u32(meta.gid)
            .u64(meta.sec.cast_unsigned())
            .u32(meta.nsec)
    }
}

/// The metadata of an entry, each field free.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    pub st_mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub sec: i64,
    pub nsec: u32,
}

/// Plain metadata of a file type and permission bits.
pub fn meta(st_mode: u16) -> Meta {
    Meta {
        st_mode,
        uid: 0,
        gid: 0,
        sec: 1_700_000_000,
        nsec: 1,
    }
}

pub const FILE: u16 = 0o100_644;
pub const DIR: u16 = 0o040_755;
pub const LINK: u16 = 0o120_777;
pub const FIFO: u16 = 0o010_644;
pub const SOCKET: u16 = 0o140_644;
pub const CHAR: u16 = 0o020_644;
pub const BLOCK: u16 = 0o060_644;

/// A frame's head as it should be for these fields, possible or not.
pub fn head(kind: u8, payload_bytes: u32, flags: u8, body_check: u64) -> Vec<u8> {
    let front = Bytes::new().u32(payload_bytes).u8(kind).u8(flags).0;
    let checked = Bytes::new().raw(&front).u64(body_check).0;
    let check = XxHash3_64::oneshot(&checked).to_le_bytes();
    Bytes::new().raw(&front).raw(&check[..2]).u64(body_check).0
}

/// The check over a payload; of DATA only what stands before the content is covered.
pub fn body_check(kind: u8, payload: &[u8]) -> u64 {
    let covered = if kind == DATA {
        payload.len().min(32)
    } else {
        payload.len()
    };
    XxHash3_64::oneshot(&payload[..covered])
}

/// A whole frame with right checks around any payload.
pub fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("tests stay below 4 GiB");
    Bytes::new()
        .raw(&head(kind, len, 0, body_check(kind, payload)))
        .raw(payload)
        .0
}

/// What a HELLO says.
#[derive(Clone, Debug)]
pub struct Hello {
    pub version: u16,
    pub session: u64,
    pub stream: u16,
    pub features: u64,
    pub flags: u32,
    pub durability: u8,
    /// Seconds.
    pub patience: u32,
    pub module: Vec<u8>,
    pub dest: Vec<Vec<u8>>,
}

impl Hello {
    /// An honest one, to a directory of a module.
    pub fn to(module: &str, dest: &str) -> Self {
        static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Self {
            version: VERSION,
            session: u64::from(std::process::id()) << 32 | count,
            stream: 0,
            features: 0,
            flags: 0,
            durability: 0,
            patience: 0,
            module: module.into(),
            dest: dest
                .split('/')
                .filter(|name| !name.is_empty())
                .map(Into::into)
                .collect(),
        }
    }

    #[must_use]
    pub fn flags(mut self, flags: u32) -> Self {
        self.flags = flags;
        self
    }

    pub fn payload(&self) -> Vec<u8> {
        let count = u16::try_from(self.dest.len()).expect("the count is two bytes");
        let mut bytes = Bytes::new()
            .raw(b"sy-push\n")
            .u16(self.version)
            .u64(self.session)
            .u16(self.stream)
            .u64(self.features)
            .u32(self.flags)
            .u64(0) // the most that may be deleted, without its flag
            .u8(self.durability)
            .u32(self.patience)
            .raw(&[0; 16]) // boot id
            .raw(&[0; 32]) // key of sums
            .text(&self.module)
            .u16(count);
        for name in &self.dest {
            bytes = bytes.name(name);
        }
        bytes.0
    }

    pub fn frame(&self) -> Vec<u8> {
        frame(HELLO, &self.payload())
    }
}

/// A LIST frame of one request; `None` as name asks for ROOT.
pub fn list(id: u32, parent: u32, name: Option<&[u8]>) -> Vec<u8> {
    frame(LIST, &request(id, parent, name))
}

pub fn request(id: u32, parent: u32, name: Option<&[u8]>) -> Vec<u8> {
    Bytes::new()
        .u32(id)
        .u32(parent)
        .name(name.unwrap_or_default())
        .0
}

/// An item of an OWNERS frame: 1 is a user, 2 a group.
pub fn owner(kind: u8, id: u32, name: &[u8]) -> Vec<u8> {
    Bytes::new().u8(kind).u32(id).name(name).0
}

/// A PACK frame of these operations.
pub fn pack(ops: &[Vec<u8>]) -> Vec<u8> {
    frame(PACK, &ops.concat())
}

fn placed(tag: u8, dir: u32, name: &[u8]) -> Bytes {
    Bytes::new().u8(tag).u32(dir).name(name)
}

pub fn op_delete(dir: u32, name: &[u8], room: u8) -> Vec<u8> {
    placed(1, dir, name).u8(room).0
}

pub fn op_mkdir(parent: u32, name: &[u8], id: u32, mode: u16) -> Vec<u8> {
    placed(2, parent, name).u32(id).u16(mode).0
}

pub fn op_file(dir: u32, name: &[u8], meta: Meta, content: &[u8]) -> Vec<u8> {
    let len = u32::try_from(content.len()).expect("the length is four bytes");
    op_file_of(dir, name, meta, len, content)
}

/// A FILE whose length need not be that of its content.
pub fn op_file_of(dir: u32, name: &[u8], meta: Meta, len: u32, content: &[u8]) -> Vec<u8> {
    placed(3, dir, name).meta(meta).u32(len).raw(content).0
}

pub fn op_symlink(dir: u32, name: &[u8], target: &[u8]) -> Vec<u8> {
    placed(4, dir, name).meta(meta(LINK)).text(target).0
}

pub fn op_node(dir: u32, name: &[u8], meta: Meta, rdev: u64) -> Vec<u8> {
    placed(5, dir, name).meta(meta).u64(rdev).0
}

pub fn op_meta(dir: u32, name: &[u8], meta: Meta) -> Vec<u8> {
    placed(6, dir, name).meta(meta).u8(1).0
}

pub fn op_begin(dir: u32, name: &[u8], file: u32, meta: Meta, size: u64) -> Vec<u8> {
    op_begin_on(dir, name, file, meta, size, 0)
}

/// A BEGIN of a file whose basis is the entry of that name, in blocks of so many bytes.
pub fn op_begin_on(
    dir: u32,
    name: &[u8],
    file: u32,
    meta: Meta,
    size: u64,
    block_bytes: u32,
) -> Vec<u8> {
    let begun = placed(7, dir, name).u32(file).meta(meta);
    begun.u64(size).u32(block_bytes).0
}

pub fn op_close(dir: u32, meta: Option<Meta>) -> Vec<u8> {
    let bytes = Bytes::new().u8(8).u32(dir).u8(u8::from(meta.is_some()));
    meta.map_or(bytes.clone(), |meta| bytes.meta(meta)).0
}

pub fn digest(content: &[u8]) -> u128 {
    XxHash3_128::oneshot(content)
}

/// The digest of a large file of these chunks: the sum over each chunk's digest placed at its
/// offset.
pub fn file_digest(chunks: &[(u64, &[u8])]) -> u128 {
    chunks.iter().fold(0, |sum, (offset, content)| {
        let placed = Bytes::new().u64(*offset).u128(digest(content)).0;
        u128::wrapping_add(sum, XxHash3_128::oneshot(&placed))
    })
}

pub fn data(file: u32, offset: u64, content: &[u8]) -> Vec<u8> {
    data_of(file, 0, offset, digest(content), content)
}

pub fn data_of(file: u32, codec: u32, offset: u64, digest: u128, content: &[u8]) -> Vec<u8> {
    let bytes = Bytes::new().u32(file).u32(codec).u64(offset).u128(digest);
    frame(DATA, &bytes.raw(content).0)
}

/// An item of a SIGN frame: a file, its first block, and how many.
pub fn ask(file: u32, first: u64, count: u32) -> Vec<u8> {
    Bytes::new().u32(file).u64(first).u32(count).0
}

/// A run that is copied from the basis.
pub fn copy(basis_offset: u64, len: u32) -> Vec<u8> {
    Bytes::new().u8(1).u64(basis_offset).u32(len).0
}

pub fn literal(bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).expect("the length is four bytes");
    Bytes::new().u8(2).u32(len).raw(bytes).0
}

/// A chunk of these runs, that will be what the digest says.
pub fn tokens(file: u32, offset: u64, digest: u128, runs: &[Vec<u8>]) -> Vec<u8> {
    let bytes = Bytes::new().u32(file).u32(0).u64(offset).u128(digest);
    frame(TOKENS, &bytes.raw(&runs.concat()).0)
}

pub fn end(file: u32, given_up: u8, digest: u128) -> Vec<u8> {
    frame(END, &Bytes::new().u32(file).u8(given_up).u128(digest).0)
}

pub fn done() -> Vec<u8> {
    frame(DONE, &Bytes::new().u64(0).0)
}

/// A frame that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    pub kind: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The bytes of a whole number at this place.
    fn number(&self, at: usize) -> u64 {
        let bytes = self.payload[at..at + 8].try_into().expect("eight bytes");
        u64::from_le_bytes(bytes)
    }
}

/// The last words of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Last {
    /// Exit code, files made, errors.
    Report(u8, u64, u64),
    /// Code and text.
    Refused(u8, String),
    /// It closed without a word.
    Silence,
}

/// A connection to a server that says whatever a test wants.
pub struct Evil {
    pub stream: TcpStream,
    /// What was read but for the last word.
    pub heard: Vec<Frame>,
}

impl Evil {
    #[track_caller]
    pub fn connect(port: u16) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the server accepts");
        for patience in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
            patience(&stream, Some(guard::hang())).expect("a socket has a patience");
        }
        Self {
            stream,
            heard: Vec::new(),
        }
    }

    /// Sends; `false` once the server has closed.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// The next frame, or `None` where the stream ends.
    pub fn next_frame(&mut self) -> Option<Frame> {
        read_frame(&mut self.stream)
    }

    /// The next frame of this kind; those before it are kept in `heard`.
    #[track_caller]
    pub fn next_of(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.next_frame();
            let frame = frame.unwrap_or_else(|| panic!("no {kind:#x}; heard {:?}", self.heard));
            if frame.kind == kind {
                return frame;
            }
            self.heard.push(frame);
        }
    }

    /// The server's last word, whether or not it waits for us to hang up after it.
    pub fn last(&mut self) -> Last {
        while let Some(frame) = self.next_frame() {
            match frame.kind {
                REPORT => {
                    return Last::Report(frame.payload[0], frame.number(2), frame.number(42));
                }
                REFUSED => {
                    let text = String::from_utf8_lossy(&frame.payload[3..]).into_owned();
                    return Last::Refused(frame.payload[0], text);
                }
                _ => self.heard.push(frame),
            }
        }
        Last::Silence
    }

    /// No more will come from us.
    pub fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Waits until the server has closed; whether it did.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = [0; 4096];
        loop {
            match guard::read(&mut self.stream, &mut rest) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }
}

/// Reads a frame and checks that it is sound.
pub fn read_frame(stream: &mut TcpStream) -> Option<Frame> {
    let mut bytes = [0; HEAD_BYTES];
    stream.read_exact(&mut bytes).ok()?;
    let len = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"));
    let kind = bytes[4];
    let mut payload = vec![0; usize::try_from(len).expect("a length fits")];
    assert!(payload.len() <= PAYLOAD_MAX, "a frame of {len} bytes");
    stream.read_exact(&mut payload).ok()?;
    assert_eq!(
        bytes[..],
        head(kind, len, 0, body_check(kind, &payload)),
        "an unsound head"
    );
    Some(Frame { kind, payload })
}

/// A server of our own: it accepts one connection and does to it what it is told.
pub struct EvilServer {
    port: u16,
    thread: Option<JoinHandle<()>>,
}

impl EvilServer {
    pub fn start(play: impl FnOnce(TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
        let port = listener.local_addr().expect("it has an address").port();
        let thread = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("the client comes");
            stream
                .set_read_timeout(Some(guard::hang()))
                .expect("a socket has a patience");
            stream
                .set_write_timeout(Some(guard::hang()))
                .expect("a socket has a patience");
            play(stream);
        });
        Self {
            port,
            thread: Some(thread),
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for EvilServer {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A client that never came leaves the listener waiting: knock.
            let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
            let played = thread.join();
            assert!(
                played.is_ok() || std::thread::panicking(),
                "the evil server failed"
            );
        }
    }
}

/// A WELCOME to a directory that is there, without special rights.
pub fn welcome(version: u16) -> Vec<u8> {
    let bytes = Bytes::new().u16(version).u64(0).u8(0).meta(meta(DIR));
    frame(WELCOME, &bytes.u64(1).u64(2).raw(&[7; 16]).0)
}

/// A section of a LISTING: an id, a status, a count of our choice, and entries.
pub fn section(id: u32, status: u8, count: u32, entries: &[Vec<u8>]) -> Vec<u8> {
    Bytes::new()
        .u32(id)
        .u8(status)
        .u16(0)
        .u32(count)
        .raw(&entries.concat())
        .0
}

/// An entry of a listing that shares nothing with the one before it.
pub fn entry(name: &[u8], st_mode: u16, size: u64) -> Vec<u8> {
    let bytes = Bytes::new().u8(0).name(name).u16(st_mode).u64(size);
    bytes.u64(1_700_000_000).u32(0).u32(0).u32(0).0
}

/// A NOTICE item: some entry could not be made.
pub fn notice(path: &[u8]) -> Vec<u8> {
    Bytes::new().u8(2).u8(5).u8(0).u16(13).text(path).0
}

/// A REPORT of success, or of another exit code.
pub fn report(exit: u8) -> Vec<u8> {
    frame(
        REPORT,
        &Bytes::new().u8(exit).u8(0).raw(&[0; 56]).text(b"").0,
    )
}

pub const COMPLETE: u8 = 2;
pub const ABSENT: u8 = 0;
