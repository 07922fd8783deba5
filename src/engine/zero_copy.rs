//! Sends that are not copied: the kernel reads a block of the registered arena when it makes
//! packets of it, up to the moment when the peer has acknowledged the last one. A send then ends twice,
//! with its result and with a notification; the block is lent from the first submission to the second end.
//! Nobody waits for the notification: sends that did took 5.8 times as long over loopback.
//!
//! Only where it may pay: blocks from 32 KiB to a TCP peer on another host, with a registered arena.
//! On 400 Gbit/s it moved 64 KiB at 19.1 GB/s beside 7.1, on slower cards some lost by it. To a peer on the same
//! host, or behind a veth, the kernel copies after all; nothing is gained there, and on the machine
//! this was written on there is nothing else, so no gain was measured. Hence the kernel is asked to
//! tell: at the first notification that says "copied" the stream goes back to plain sends for good. The first send is
//! also the probe: a kernel before 6.2, or a socket that can't (kTLS), refuses it, and it is sent plainly.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use io_uring::types::Fd;
use io_uring::{opcode, squeue};
use slab::Slab;

use super::entry::{ARENA_INDEX, STREAM_FLAGS};
use super::user_data::Slot;
use crate::limits::SEND_ZERO_COPY_BLOCKS_MAX;
use crate::ops::Errno;
use crate::ops::buf::Loan;
use crate::ops::op::StreamId;

/// `IORING_SEND_ZC_REPORT_USAGE` and `IORING_NOTIF_USAGE_ZC_COPIED` (linux/io_uring.h).
const REPORT_USAGE: u16 = 1 << 3;
const USAGE_COPIED: u32 = 1 << 31;

/// The blocks that the kernel may still read, each with the send that it was lent for.
#[derive(Default)]
pub(super) struct Lendings {
    lendings: Slab<Lending>,
    generation: u32,
}

struct Lending {
    /// Held for its drop.
    _loan: Loan,
    generation: u32,
    stream: StreamId,
    /// Slot of the op, until its result.
    op: Option<Slot>,
}

/// What a completion of such a send says.
pub(super) enum Word {
    /// The op has ended.
    Result(Slot),
    /// Its block is not read any more; whether it had been copied anyway.
    LetGo { stream: StreamId, was_copied: bool },
    /// Not of a send that is there.
    Stale,
}

impl Lendings {
    pub(super) fn has_room(&self) -> bool {
        self.lendings.len() < SEND_ZERO_COPY_BLOCKS_MAX
    }

    /// Keeps a loan for the op in that slot; what its completions are to be known by.
    pub(super) fn keep(&mut self, loan: Loan, stream: StreamId, op: Slot) -> Slot {
        self.generation = Slot::generation_after(self.generation);
        let key = self.lendings.insert(Lending {
            _loan: loan,
            generation: self.generation,
            stream,
            op: Some(op),
        });
        Slot {
            key: u32::try_from(key).expect("there are few"),
            generation: self.generation,
        }
    }

    /// Takes in a completion; `has_more`: another one follows.
    pub(super) fn hear(&mut self, slot: Slot, result: i32, has_more: bool) -> Word {
        let key = slot.key as usize;
        let found = self.lendings.get_mut(key);
        let Some(lending) = found.filter(|lending| lending.generation == slot.generation) else {
            return Word::Stale;
        };
        let word = match lending.op.take() {
            Some(op) => Word::Result(op),
            None => Word::LetGo {
                stream: lending.stream,
                was_copied: result.cast_unsigned() & USAGE_COPIED != 0,
            },
        };
        if !has_more {
            self.lendings.remove(key);
        }
        word
    }
}

/// The bytes lie in the registered arena.
pub(super) fn entry(fd: Fd, from: &[u8]) -> squeue::Entry {
    let bytes = u32::try_from(from.len()).expect("a block is far below 4 GiB");
    opcode::SendZc::new(fd, from.as_ptr(), bytes)
        .buf_index(Some(ARENA_INDEX))
        .flags(STREAM_FLAGS)
        .zc_flags(REPORT_USAGE)
        .build()
}

/// Whether a plain send may succeed where this one failed so.
pub(super) fn is_refusal(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::INVAL | Errno::OPNOTSUPP | Errno::NOMEM | Errno::NOBUFS
    )
}

/// Whether a stream leads to another host, as far as its addresses tell.
pub(super) fn is_remote(fd: &impl AsFd) -> bool {
    let socket = socket2::SockRef::from(fd);
    let address = |address: std::io::Result<socket2::SockAddr>| address.ok()?.as_socket();
    match (address(socket.local_addr()), address(socket.peer_addr())) {
        (Some(ours), Some(theirs)) => is_elsewhere(ours, theirs),
        _ => false,
    }
}

fn is_elsewhere(ours: SocketAddr, theirs: SocketAddr) -> bool {
    let ip = |address: SocketAddr| -> IpAddr { address.ip().to_canonical() };
    !ip(theirs).is_loopback() && ip(ours) != ip(theirs)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::engine::testing::{TestRing, a_ring, next};
    use crate::ops::op::{Op, Ring};
    use crate::ops::{BlockPool, Buf};

    const BLOCKS: usize = 4;

    /// A ring that takes the peer for a remote one, which reads only when it is told to, while ours
    /// has room for a whole block: what was sent stays with the kernel.
    fn ring() -> (TestRing, BlockPool, StreamId, TcpStream) {
        let (mut ring, blocks) = a_ring(BLOCKS);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        socket2::SockRef::from(&listener)
            .set_recv_buffer_size(4096)
            .unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        socket2::SockRef::from(&ours)
            .set_send_buffer_size(1 << 20)
            .unwrap();
        let (theirs, _) = listener.accept().unwrap();
        assert!(!is_remote(&ours));
        let stream = ring.add_stream(ours.into());
        ring.take_for_remote(stream);
        (ring, blocks, stream, theirs)
    }

    fn send(ring: &mut TestRing, stream: StreamId, mut buf: Buf, byte: u8, bytes: usize) {
        buf[..bytes].fill(byte);
        let range = 0..bytes;
        ring.push(1, Op::Send { stream, buf, range });
        assert_eq!(next(ring).result, Ok(bytes));
    }

    #[test]
    fn a_block_that_was_sent_is_nobody_elses_until_the_kernel_has_let_go() {
        let (mut ring, blocks, stream, mut theirs) = ring();
        let bytes = 256 * 1024;
        // The completion, and with it the `Buf`, is dropped in there.
        send(&mut ring, stream, blocks.take().unwrap(), 7, bytes);
        assert_eq!(ring.stats().zero_copy_sends, 1);
        assert_eq!(blocks.free_count(), BLOCKS - 1, "the kernel reads it still");
        // Whoever wants blocks now gets others.
        let mut others: Vec<Buf> = std::iter::from_fn(|| blocks.take()).collect();
        others.iter_mut().for_each(|buf| buf.fill(0xee));
        let mut heard = vec![0; bytes];
        theirs.read_exact(&mut heard).unwrap();
        assert!(heard.iter().all(|byte| *byte == 7));
        while blocks.free_count() == 0 {
            ring.submit_and_wait(None).unwrap();
        }
        assert_eq!(ring.stats().stale_completions, 0);
    }

    #[test]
    fn a_stream_on_which_the_kernel_copied_goes_back_to_plain_sends() {
        let (mut ring, blocks, stream, mut theirs) = ring();
        let reader = std::thread::spawn(move || {
            let mut heard = Vec::new();
            theirs.read_to_end(&mut heard).unwrap();
            heard
        });
        let bytes = 128 * 1024;
        send(&mut ring, stream, blocks.take().unwrap(), 1, bytes);
        while blocks.free_count() < BLOCKS {
            ring.submit_and_wait(None).unwrap();
        }
        assert_eq!(ring.stats().zero_copy_copied, 1, "loopback always copies");
        for byte in 2..6 {
            send(&mut ring, stream, blocks.take().unwrap(), byte, bytes);
            assert_eq!(blocks.free_count(), BLOCKS);
        }
        assert_eq!(ring.stats().zero_copy_sends, 1);
        ring.shut(stream);
        let heard = reader.join().unwrap();
        let sent: Vec<u8> = (1..6).flat_map(|byte| vec![byte; bytes]).collect();
        assert!(heard == sent);
    }

    #[test]
    fn a_small_send_and_a_socket_that_can_not_are_sent_plainly() {
        let (mut ring, blocks, stream, mut theirs) = ring();
        send(&mut ring, stream, blocks.take().unwrap(), 3, 1000);
        assert_eq!(ring.stats().zero_copy_sends, 0);
        let mut heard = [0; 1000];
        theirs.read_exact(&mut heard).unwrap();
        assert_eq!(heard, [3; 1000]);

        // A UNIX socket refuses, and nobody above hears of it.
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(!is_remote(&ours));
        let stream = ring.add_stream(ours.into());
        ring.take_for_remote(stream);
        let bytes = 64 * 1024;
        for byte in 4..6 {
            send(&mut ring, stream, blocks.take().unwrap(), byte, bytes);
            let mut heard = vec![0; bytes];
            theirs.read_exact(&mut heard).unwrap();
            assert!(heard.iter().all(|is| *is == byte));
        }
        assert_eq!(ring.stats().zero_copy_sends, 1, "one try");
        assert_eq!(blocks.free_count(), BLOCKS);
    }

    #[test]
    fn a_ring_that_goes_leaks_what_the_kernel_still_reads() {
        let (mut ring, blocks, stream, mut theirs) = ring();
        let bytes = 256 * 1024;
        send(&mut ring, stream, blocks.take().unwrap(), 7, bytes);
        drop(ring);
        let mut others: Vec<Buf> = std::iter::from_fn(|| blocks.take()).collect();
        assert_eq!(others.len(), BLOCKS - 1);
        others.iter_mut().for_each(|buf| buf.fill(0xee));
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).unwrap();
        assert!(heard == vec![7; bytes]);
    }

    #[test]
    fn a_peer_is_elsewhere_if_its_address_is_neither_loopback_nor_our_own() {
        let is =
            |ours: &str, theirs: &str| is_elsewhere(ours.parse().unwrap(), theirs.parse().unwrap());
        assert!(is("10.0.0.1:1", "10.0.0.2:1") && is("[fd00::1]:1", "[fd00::2]:1"));
        assert!(!is("127.0.0.1:1", "127.0.0.1:2") && !is("[::1]:1", "[::1]:2"));
        assert!(!is("10.0.0.1:1", "10.0.0.1:2"));
        assert!(!is("[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:2"));
    }
}
