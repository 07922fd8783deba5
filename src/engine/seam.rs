//! What both engines promise at the seam, on a real kernel.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use super::arena;
use super::disk::PosixDisk;
use super::lanes::{FileLanes, Lane, LaneTable};
use super::pool::Pool;
use super::posix::{EngineChoice, PosixRing};
use super::testing::{TempDir, filled, next, recv_head};
use crate::limits::{BLOCK_BYTES, FRAME_HEAD_BYTES};
use crate::model::time::Moment;
use crate::ops::op::{Completion, Job, Op, Progress, Ring, StreamId};
use crate::ops::{BlockPool, Buf, Disk, Errno};

struct ThreeTurns(u32);

impl Job<PosixDisk> for ThreeTurns {
    fn run(&mut self, _: &PosixDisk) -> Progress {
        self.0 += 1;
        if self.0 < 3 {
            Progress::Again
        } else {
            Progress::Done
        }
    }
}

type TestRing = PosixRing<PosixDisk, ThreeTurns>;

fn engine(choice: EngineChoice, table: LaneTable) -> (TestRing, BlockPool) {
    let (blocks, region) = arena::map(4 * BLOCK_BYTES).unwrap();
    let pool = Pool::start(&PosixDisk, 1, None).unwrap();
    let ring = PosixRing::new(choice, PosixDisk, pool, region, table).unwrap();
    (ring, blocks)
}

fn both() -> [(TestRing, BlockPool); 2] {
    [EngineChoice::Uring, EngineChoice::Portable].map(|choice| engine(choice, LaneTable::default()))
}

fn has_nothing(ring: &mut TestRing) {
    ring.submit_and_wait(Some(ring.now())).unwrap();
    assert!(ring.reap().is_none());
}

/// Pushes what is left again, as the driver does.
fn receive_whole(ring: &mut TestRing, stream: StreamId, mut buf: Buf, end: usize) -> Buf {
    let mut at = 100;
    while at < end {
        let range = at..end;
        ring.push(2, Op::Recv { stream, buf, range });
        let completion = next(ring);
        at += completion.result.unwrap();
        let Op::Recv { buf: back, .. } = completion.op else {
            panic!("another op came back")
        };
        buf = back;
    }
    buf
}

#[test]
fn a_head_is_received_behind_what_was_there_and_a_payload_behind_it() {
    for (mut ring, blocks) in both() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let stream = ring.add_stream(ours.into());
        ring.push(1, recv_head(stream, 3));
        has_nothing(&mut ring);
        theirs.write_all(b"0123456789abc").unwrap();
        let completion = next(&mut ring);
        assert_eq!((completion.tag, completion.result), (1, Ok(13)));
        let Op::RecvHead { head, got, .. } = completion.op else {
            panic!("another op came back")
        };
        assert_eq!((&head, got), (b"\xee\xee\xee0123456789abc", 3));

        let peer = std::thread::spawn(move || {
            theirs.write_all(&vec![7; 100_000]).unwrap();
            theirs.write_all(&vec![8; 100_000]).unwrap();
            theirs
        });
        let buf = receive_whole(&mut ring, stream, filled(&blocks, 1), 200_100);
        let edges = (buf[99], buf[100], buf[200_099], buf[200_100]);
        assert_eq!(edges, (1, 7, 8, 1));

        drop(peer.join().unwrap());
        ring.push(3, recv_head(stream, 0));
        assert_eq!(next(&mut ring).result, Ok(0));
        ring.shut(stream);
        ring.release(stream);
        ring.push(4, recv_head(stream, 0));
        assert_eq!(next(&mut ring).result, Err(Errno::BADF));
    }
}

#[test]
fn bytes_and_the_end_behind_them_are_both_heard_of() {
    for (mut ring, _) in both() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let stream = ring.add_stream(ours.into());
        theirs.write_all(&[1; 20]).unwrap();
        drop(theirs);
        for (asked, came) in [(16, 16), (16, 4), (12, 0)] {
            ring.push(1, recv_head(stream, FRAME_HEAD_BYTES - asked));
            assert_eq!(next(&mut ring).result, Ok(came));
        }
    }
}

#[test]
fn a_send_waits_for_a_slow_reader_and_ends_whole() {
    for (mut ring, blocks) in both() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        // Of a non-blocking one the ring would answer EAGAIN.
        ours.set_nonblocking(true).unwrap();
        let stream = ring.add_stream(ours.into());
        let mut buf = filled(&blocks, 9);
        // More than fits into the socket.
        let filling = 2 * BLOCK_BYTES;
        let peer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            let mut bytes = vec![0; filling];
            theirs.read_exact(&mut bytes).unwrap();
            bytes.iter().all(|&byte| byte == 9)
        });
        let mut left = filling;
        while left > 0 {
            let range = 0..left.min(BLOCK_BYTES);
            ring.push(1, Op::Send { stream, buf, range });
            let completion = next(&mut ring);
            left -= completion.result.unwrap();
            let Op::Send { buf: back, .. } = completion.op else {
                panic!("another op came back")
            };
            buf = back;
        }
        assert!(peer.join().unwrap());
        let range = 0..1;
        ring.push(2, Op::Send { stream, buf, range });
        assert_eq!(next(&mut ring).result, Err(Errno::PIPE));
    }
}

#[test]
fn shutting_a_socket_ends_what_is_in_flight_on_it_and_the_peer_hears_of_it() {
    for (mut ring, _) in both() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let stream = ring.add_stream(ours.into());
        ring.push(1, recv_head(stream, 0));
        has_nothing(&mut ring);
        ring.shut(stream);
        let result = next(&mut ring).result;
        assert!(matches!(result, Ok(0) | Err(Errno::CANCELED)), "{result:?}");
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
        ring.release(stream);
    }
}

#[test]
fn a_pair_of_pipes_is_a_stream_and_shutting_it_cancels() {
    for (mut ring, blocks) in both() {
        let (input, mut to_input) = io::pipe().unwrap();
        let (mut from_output, output) = io::pipe().unwrap();
        let stream = ring.add_stream_pair(input.into(), output.into());
        to_input.write_all(&[5; FRAME_HEAD_BYTES]).unwrap();
        ring.push(1, recv_head(stream, 0));
        assert_eq!(next(&mut ring).result, Ok(FRAME_HEAD_BYTES));
        let (buf, range) = (filled(&blocks, 6), 4..8);
        ring.push(2, Op::Send { stream, buf, range });
        assert_eq!(next(&mut ring).result, Ok(4));
        let mut bytes = [0; 4];
        from_output.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, [6; 4]);

        ring.push(3, recv_head(stream, 0));
        has_nothing(&mut ring);
        ring.shut(stream);
        ring.push(4, recv_head(stream, 0));
        // Released too early on purpose: it is closed when the cancelled one has ended.
        ring.release(stream);
        let results = [next(&mut ring), next(&mut ring)].map(|c| (c.tag, c.result));
        assert!(results.contains(&(3, Err(Errno::CANCELED))));
        assert!(results.contains(&(4, Err(Errno::CANCELED))));
        let error = to_input.write(b"x").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
    }
}

#[test]
fn a_pipe_that_is_full_is_written_on_when_there_is_room() {
    for (mut ring, blocks) in both() {
        let (input, _to_input) = io::pipe().unwrap();
        let (mut from_output, output) = io::pipe().unwrap();
        let stream = ring.add_stream_pair(input.into(), output.into());
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            from_output.read_to_end(&mut bytes).unwrap();
            bytes.len()
        });
        let mut sent = 0;
        let mut buf = filled(&blocks, 1);
        while sent < 20 * BLOCK_BYTES {
            let range = 0..BLOCK_BYTES;
            ring.push(1, Op::Send { stream, buf, range });
            let completion = next(&mut ring);
            sent += completion.result.unwrap();
            let Op::Send { buf: back, .. } = completion.op else {
                panic!("another op came back")
            };
            buf = back;
        }
        ring.shut(stream);
        ring.release(stream);
        assert_eq!(reader.join().unwrap(), sent);
    }
}

#[test]
fn a_file_as_stdin_and_a_null_as_stdout_are_a_stream() {
    for (mut ring, blocks) in both() {
        let temp = TempDir::new("seam-stdin");
        let made = PosixDisk.create_file(&temp.open(), b"f", 0o600).unwrap();
        PosixDisk.write(&made, b"0123456789", 0).unwrap();
        let fd = PosixDisk.open_file(&temp.open(), b"f").unwrap();
        let null = std::fs::File::options().write(true).open("/dev/null");
        let stream = ring.add_stream_pair(fd, null.unwrap().into());
        for came in [10, 0] {
            ring.push(1, recv_head(stream, 0));
            assert_eq!(next(&mut ring).result, Ok(came));
        }
        let (buf, range) = (filled(&blocks, 6), 0..10);
        ring.push(2, Op::Send { stream, buf, range });
        assert_eq!(next(&mut ring).result, Ok(10));
    }
}

#[test]
fn a_file_goes_the_same_by_each_lane() {
    let (temp, disk) = (TempDir::new("seam-file"), PosixDisk);
    let dir = temp.open();
    for choice in [EngineChoice::Uring, EngineChoice::Portable] {
        for lane in [Lane::Ring, Lane::Inline, Lane::Pool] {
            let (mut ring, blocks) = engine(choice, LaneTable::all(FileLanes::new(lane, lane)));
            let name = format!("{choice:?}-{lane:?}");
            let fd = Arc::new(disk.create_file(&dir, name.as_bytes(), 0o600).unwrap());
            let write = Op::Write {
                fd,
                buf: filled(&blocks, 3),
                range: 16..16 + 256 * 1024,
                offset: 1000,
            };
            ring.push(1, write);
            assert_eq!(next(&mut ring).result, Ok(256 * 1024));
            let fd = Arc::new(disk.open_file(&dir, name.as_bytes()).unwrap());
            let read = Op::Read {
                fd,
                buf: filled(&blocks, 1),
                range: 10..BLOCK_BYTES,
                offset: 1000,
            };
            ring.push(2, read);
            let completion = next(&mut ring);
            assert_eq!(completion.result, Ok(256 * 1024));
            let Op::Read { buf, .. } = completion.op else {
                panic!("another op came back")
            };
            let end = 10 + 256 * 1024;
            assert_eq!((buf[9], buf[10], buf[end - 1], buf[end]), (1, 3, 3, 1));
        }
    }
}

#[test]
fn a_write_beside_a_job_and_right_behind_it_may_have_another_lane_than_one_alone() {
    let (temp, disk) = (TempDir::new("seam-beside"), PosixDisk);
    let dir = temp.open();
    for choice in [EngineChoice::Uring, EngineChoice::Portable] {
        let lanes = FileLanes {
            write_beside_job: Lane::Inline,
            ..FileLanes::new(Lane::Pool, Lane::Pool)
        };
        let (mut ring, blocks) = engine(choice, LaneTable::all(lanes));
        let name = format!("{choice:?}");
        let fd = Arc::new(disk.create_file(&dir, name.as_bytes(), 0o600).unwrap());
        let write = || Op::Write {
            fd: Arc::clone(&fd),
            buf: filled(&blocks, 3),
            range: 0..10,
            offset: 0,
        };
        ring.push(1, Op::Job(ThreeTurns(0)));
        ring.push(2, write());
        assert_eq!(next(&mut ring).tag, 2, "it did not wait for the job");
        assert_eq!(next(&mut ring).tag, 1);
        ring.push(3, write());
        assert_eq!(ring.reap().map(|completion| completion.tag), Some(3));
        has_nothing(&mut ring);
        ring.push(4, write());
        assert!(ring.reap().is_none(), "the pool has it");
        assert_eq!(next(&mut ring).tag, 4);
    }
}

#[test]
fn a_job_runs_until_it_is_done() {
    for (mut ring, _) in both() {
        ring.push(5, Op::Job(ThreeTurns(0)));
        let completion = next(&mut ring);
        assert_eq!((completion.tag, completion.result), (5, Ok(0)));
        assert!(matches!(completion.op, Op::Job(ThreeTurns(3))));
    }
}

#[test]
fn a_wake_ends_a_sleep_that_has_no_deadline() {
    for (mut ring, _) in both() {
        let waker = ring.waker();
        waker.wake();
        ring.submit_and_wait(None).unwrap();
        for _ in 0..100 {
            let other = waker.clone();
            let thread = std::thread::spawn(move || other.wake());
            ring.submit_and_wait(None).unwrap();
            thread.join().unwrap();
            assert!(ring.reap().is_none());
        }
    }
}

#[test]
fn a_deadline_ends_a_sleep() {
    for (mut ring, _) in both() {
        let until = ring.now().plus(Duration::from_millis(2));
        while ring.now() < until {
            ring.submit_and_wait(Some(until)).unwrap();
        }
        ring.submit_and_wait(Some(Moment(0))).unwrap();
        assert!(ring.reap().is_none());
    }
}

#[test]
fn many_streams_are_heard_each_with_its_own_bytes() {
    for (mut ring, _) in both() {
        let pairs: Vec<_> = (0..1000).map(|_| UnixStream::pair().unwrap()).collect();
        let mut theirs = Vec::new();
        for (tag, (ours, other)) in pairs.into_iter().enumerate() {
            let stream = ring.add_stream(ours.into());
            ring.push(tag as u64, recv_head(stream, 0));
            theirs.push(other);
        }
        has_nothing(&mut ring);
        for (number, other) in theirs.iter_mut().enumerate() {
            let word = number.to_le_bytes();
            other.write_all(&[word, word].concat()).unwrap();
        }
        let mut tags: Vec<u64> = (0..theirs.len())
            .map(|_| {
                let Completion { tag, op, result } = next(&mut ring);
                assert_eq!(result, Ok(FRAME_HEAD_BYTES));
                let Op::RecvHead { head, .. } = op else {
                    panic!("another op came back")
                };
                assert_eq!(head[..8], tag.to_le_bytes());
                tag
            })
            .collect();
        tags.sort_unstable();
        assert!(tags.into_iter().eq(0..1000));
    }
}
