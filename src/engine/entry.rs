//! What a ring is asked for, in the kernel's own form: entries for sockets, pipes and files. The
//! slices must stay where they are until the completion; that is the ring's to see to.

use std::os::fd::{AsRawFd, RawFd};

use io_uring::types::{CancelBuilder, Fd};
use io_uring::{opcode, squeue};

use super::arena::Region;

/// Sends wait for room rather than end short, receives for the whole range, and a peer that went
/// away is EPIPE, not a signal.
pub(super) const STREAM_FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
/// The arena is the only registered buffer.
pub(super) const ARENA_INDEX: u16 = 0;
/// The offset that means "the descriptor's own position": pipes have no other.
const NO_OFFSET: u64 = u64::MAX;

pub(super) fn recv(fd: RawFd, is_socket: bool, start: *mut u8, bytes: usize) -> squeue::Entry {
    let bytes = entry_bytes(bytes);
    if is_socket {
        opcode::Recv::new(Fd(fd), start, bytes)
            .flags(STREAM_FLAGS)
            .build()
    } else {
        opcode::Read::new(Fd(fd), start, bytes)
            .offset(NO_OFFSET)
            .build()
    }
}

pub(super) fn send(fd: RawFd, is_socket: bool, from: &[u8]) -> squeue::Entry {
    let (start, bytes) = (from.as_ptr(), entry_bytes(from.len()));
    if is_socket {
        opcode::Send::new(Fd(fd), start, bytes)
            .flags(STREAM_FLAGS)
            .build()
    } else {
        opcode::Write::new(Fd(fd), start, bytes)
            .offset(NO_OFFSET)
            .build()
    }
}

pub(super) fn read(
    fd: &impl AsRawFd,
    into: &mut [u8],
    offset: u64,
    registered: Option<Region>,
) -> squeue::Entry {
    let (start, bytes) = (into.as_mut_ptr(), entry_bytes(into.len()));
    let fd = Fd(fd.as_raw_fd());
    if is_inside(registered, into) {
        opcode::ReadFixed::new(fd, start, bytes, ARENA_INDEX)
            .offset(offset)
            .build()
    } else {
        opcode::Read::new(fd, start, bytes).offset(offset).build()
    }
}

pub(super) fn write(
    fd: &impl AsRawFd,
    from: &[u8],
    offset: u64,
    registered: Option<Region>,
) -> squeue::Entry {
    let (start, bytes) = (from.as_ptr(), entry_bytes(from.len()));
    let fd = Fd(fd.as_raw_fd());
    if is_inside(registered, from) {
        opcode::WriteFixed::new(fd, start, bytes, ARENA_INDEX)
            .offset(offset)
            .build()
    } else {
        opcode::Write::new(fd, start, bytes).offset(offset).build()
    }
}

pub(super) fn cancel(of: CancelBuilder) -> squeue::Entry {
    opcode::AsyncCancel2::new(of).build()
}

pub(super) fn is_inside(registered: Option<Region>, bytes: &[u8]) -> bool {
    registered.is_some_and(|region| region.contains(bytes.as_ptr().addr(), bytes.len()))
}

fn entry_bytes(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a block is far below 4 GiB")
}
