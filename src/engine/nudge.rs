//! Tests of `Ring::nudge` on a real kernel: how far a payload has got is heard before it is whole.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::disk::PosixDisk;
use super::testing::{NoJob, TestRing, a_ring, next};
use crate::limits::BLOCK_BYTES;
use crate::ops::BlockPool;
use crate::ops::op::{Completion, Op, Ring, StreamId};

fn ring() -> (TestRing, BlockPool, StreamId, UnixStream) {
    let (mut ring, blocks) = a_ring(2);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let stream = ring.add_stream(ours.into());
    (ring, blocks, stream, theirs)
}

/// Gives the kernel time for what was pushed, without an end to wait for.
fn settle(ring: &mut TestRing) {
    for _ in 0..5 {
        let soon = ring.now().plus(std::time::Duration::from_millis(5));
        ring.submit_and_wait(Some(soon)).unwrap();
    }
}

fn recv(blocks: &BlockPool, stream: StreamId) -> Op<PosixDisk, NoJob> {
    Op::Recv {
        stream,
        buf: blocks.take().unwrap(),
        range: 100..200,
    }
}

#[test]
fn a_nudged_receive_tells_what_has_come_and_loses_nothing() {
    let (mut ring, blocks, stream, mut theirs) = ring();
    ring.push(1, recv(&blocks, stream));
    settle(&mut ring);
    theirs.write_all(&[7; 30]).unwrap();
    settle(&mut ring);
    assert!(ring.reap().is_none(), "it waits for the whole range");
    ring.nudge(stream);
    let Completion { tag, op, result } = next(&mut ring);
    assert_eq!((tag, result), (1, Ok(30)));
    let Op::Recv { buf, .. } = op else {
        panic!("another op came back")
    };
    assert_eq!(buf[100..131], [&[7; 30][..], &[0]].concat());
}

#[test]
fn a_nudged_receive_to_which_nothing_came_goes_on_waiting() {
    let (mut ring, blocks, stream, mut theirs) = ring();
    ring.push(1, recv(&blocks, stream));
    for _ in 0..3 {
        settle(&mut ring);
        ring.nudge(stream);
        settle(&mut ring);
        assert!(ring.reap().is_none());
    }
    theirs.write_all(&[9; 100]).unwrap();
    assert_eq!(next(&mut ring).result, Ok(100));
    // The end of a stream is not held up by it.
    ring.push(2, recv(&blocks, stream));
    settle(&mut ring);
    ring.nudge(stream);
    ring.shut(stream);
    assert!(!matches!(next(&mut ring).result, Ok(1..)));
    ring.release(stream);
}

#[test]
fn a_nudged_send_tells_what_has_left() {
    let (mut ring, blocks, stream, mut theirs) = ring();
    let mut left = BLOCK_BYTES;
    let mut buf = blocks.take().unwrap();
    buf.fill(5);
    let mut heard = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    while left > 0 {
        let range = BLOCK_BYTES - left..BLOCK_BYTES;
        ring.push(1, Op::Send { stream, buf, range });
        settle(&mut ring);
        ring.nudge(stream);
        settle(&mut ring);
        // A full stream takes nothing more until much of it is read.
        let completion = loop {
            if let Some(completion) = ring.reap() {
                break completion;
            }
            let count = theirs.read(&mut chunk).unwrap();
            heard.extend_from_slice(&chunk[..count]);
            settle(&mut ring);
            ring.nudge(stream);
            settle(&mut ring);
        };
        let Completion { op, result, .. } = completion;
        let Op::Send { buf: back, .. } = op else {
            panic!("another op came back")
        };
        buf = back;
        left -= result.unwrap();
    }
    ring.shut(stream);
    theirs.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, vec![5; BLOCK_BYTES]);
}
