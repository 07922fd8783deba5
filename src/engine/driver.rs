//! `Driver`, a ring above a ring: it submits again what ended short or was interrupted and hands
//! up only ops that are finished. The loop pushes into it as into a `Ring`; it makes no system
//! call itself, so that the simulator's ring puts all of it to the test.
//!
//! What a finished op's result means:
//!
//! | op | `Ok(n)` | less than asked for |
//! |---|---|---|
//! | RecvHead | head bytes received by this op; `got` counts all that are there | the stream ended |
//! | Recv | bytes received | the stream ended |
//! | Read | bytes read | the file ended |
//! | Send, Write | the whole range | never |
//! | Job | 0 | |
//!
//! The op comes back with the range and offset it was pushed with. After an error part of the
//! range may have moved.

use std::collections::VecDeque;
use std::marker::PhantomData;

use slab::Slab;

use crate::limits::{FRAME_HEAD_BYTES, RESUBMITS_MAX};
use crate::model::time::Moment;
use crate::ops::op::{Completion, Job, Op, Ring, StreamId};
use crate::ops::{Disk, Errno};

pub struct Driver<D: Disk, J: Job<D>, R: Ring<D, J>> {
    ring: R,
    /// What was pushed and is not finished; the key is the tag the ring sees.
    unfinished: Slab<Unfinished>,
    /// Tags of receives and sends that moved some bytes and go on.
    moved: Vec<u64>,
    /// Finished without the ring.
    finished: VecDeque<Completion<D, J>>,
    world: PhantomData<D>,
}

struct Unfinished {
    tag: u64,
    done_bytes: usize,
    /// Submissions in a row that moved nothing.
    fruitless_count: u32,
}

enum Verdict {
    Again,
    Finished(Result<usize, Errno>),
}

impl<D: Disk, J: Job<D>, R: Ring<D, J>> Driver<D, J, R> {
    pub fn new(ring: R) -> Self {
        Self {
            ring,
            unfinished: Slab::new(),
            moved: Vec::new(),
            finished: VecDeque::new(),
            world: PhantomData,
        }
    }

    /// The tag of a receive or send that has got further and is not finished; each time is told.
    pub fn next_moved(&mut self) -> Option<u64> {
        self.moved.pop()
    }

    pub fn ring(&self) -> &R {
        &self.ring
    }

    pub fn ring_mut(&mut self) -> &mut R {
        &mut self.ring
    }

    /// Ops that were pushed and not yet reaped.
    pub fn in_flight_count(&self) -> usize {
        self.unfinished.len() + self.finished.len()
    }

    /// Takes the ring's answer; the completion, where the op is finished by it.
    fn hear(&mut self, completion: Completion<D, J>) -> Option<Completion<D, J>> {
        let Completion {
            tag: key,
            mut op,
            result,
        } = completion;
        let index = usize::try_from(key).expect("a key of ours");
        let unfinished = &mut self.unfinished[index];
        match judge(&mut op, unfinished, result) {
            Verdict::Again => {
                if op.stream().is_some() && result.is_ok() {
                    self.moved.push(unfinished.tag);
                }
                self.ring.push(key, op);
                None
            }
            Verdict::Finished(result) => {
                set_back(&mut op, unfinished.done_bytes);
                let Unfinished { tag, .. } = self.unfinished.remove(index);
                Some(Completion { tag, op, result })
            }
        }
    }
}

impl<D: Disk, J: Job<D>, R: Ring<D, J>> Ring<D, J> for Driver<D, J, R> {
    fn push(&mut self, tag: u64, op: Op<D, J>) {
        if bytes_left(&op) == Some(0) {
            // From the kernel, 0 would mean an end.
            let result = Ok(0);
            self.finished.push_back(Completion { tag, op, result });
            return;
        }
        let key = self.unfinished.insert(Unfinished {
            tag,
            done_bytes: 0,
            fruitless_count: 0,
        });
        self.ring.push(key as u64, op);
    }

    /// May return with nothing to reap: what ended short is submitted again by `reap`.
    fn submit_and_wait(&mut self, until: Option<Moment>) -> Result<(), Errno> {
        let until = if self.finished.is_empty() {
            until
        } else {
            Some(self.ring.now())
        };
        self.ring.submit_and_wait(until)
    }

    fn reap(&mut self) -> Option<Completion<D, J>> {
        if let Some(completion) = self.finished.pop_front() {
            return Some(completion);
        }
        loop {
            let completion = self.ring.reap()?;
            if let Some(finished) = self.hear(completion) {
                return Some(finished);
            }
        }
    }

    fn now(&self) -> Moment {
        self.ring.now()
    }

    fn nudge(&mut self, stream: StreamId) {
        self.ring.nudge(stream);
    }

    fn shut(&mut self, stream: StreamId) {
        self.ring.shut(stream);
    }

    fn release(&mut self, stream: StreamId) {
        self.ring.release(stream);
    }
}

fn judge<D: Disk, J>(
    op: &mut Op<D, J>,
    unfinished: &mut Unfinished,
    result: Result<usize, Errno>,
) -> Verdict {
    let Some(left) = bytes_left(op) else {
        return Verdict::Finished(result);
    };
    match result {
        Ok(0) => Verdict::Finished(match op {
            Op::RecvHead { .. } | Op::Recv { .. } | Op::Read { .. } => Ok(unfinished.done_bytes),
            // Neither happens on a stream socket or a file; again and again 0 would be a loop.
            Op::Send { .. } => Err(Errno::PIPE),
            Op::Write { .. } => Err(Errno::IO),
            Op::Job(_) => Ok(0),
        }),
        Ok(moved) => {
            assert!(moved <= left, "{moved} of {left} bytes");
            advance(op, moved);
            unfinished.done_bytes += moved;
            unfinished.fruitless_count = 0;
            if moved == left {
                Verdict::Finished(Ok(unfinished.done_bytes))
            } else {
                Verdict::Again
            }
        }
        Err(errno) if is_passing(op, errno) && unfinished.fruitless_count < RESUBMITS_MAX => {
            unfinished.fruitless_count += 1;
            Verdict::Again
        }
        Err(errno) => Verdict::Finished(Err(errno)),
    }
}

/// Whether the same op may succeed at once.
fn is_passing<D: Disk, J>(op: &Op<D, J>, errno: Errno) -> bool {
    match errno {
        Errno::INTR | Errno::AGAIN => true,
        // Buffered writes through the ring failed so without need before Linux 6.14
        // (commit 182db972c956, also in 6.13.9, 6.12.21 and 6.6.86).
        Errno::NOMEM => matches!(op, Op::Write { .. }),
        _ => false,
    }
}

/// Bytes that the op still has to move; `None` for a job.
fn bytes_left<D: Disk, J>(op: &Op<D, J>) -> Option<usize> {
    match op {
        Op::RecvHead { got, .. } => Some(FRAME_HEAD_BYTES - got),
        Op::Recv { range, .. }
        | Op::Send { range, .. }
        | Op::Read { range, .. }
        | Op::Write { range, .. } => Some(range.len()),
        Op::Job(_) => None,
    }
}

fn advance<D: Disk, J>(op: &mut Op<D, J>, bytes: usize) {
    match op {
        Op::RecvHead { got, .. } => *got += bytes,
        Op::Recv { range, .. } | Op::Send { range, .. } => range.start += bytes,
        Op::Read { range, offset, .. } | Op::Write { range, offset, .. } => {
            range.start += bytes;
            *offset += bytes as u64;
        }
        Op::Job(_) => {}
    }
}

/// Undoes `advance`, so that the op looks as it was pushed; a head's `got` stays true.
fn set_back<D: Disk, J>(op: &mut Op<D, J>, bytes: usize) {
    match op {
        Op::RecvHead { .. } | Op::Job(_) => {}
        Op::Recv { range, .. } | Op::Send { range, .. } => range.start -= bytes,
        Op::Read { range, offset, .. } | Op::Write { range, offset, .. } => {
            range.start -= bytes;
            *offset -= bytes as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::disk::PosixDisk;
    use crate::engine::testing::NoJob;
    use crate::ops::{BlockPool, Buf};

    type TestOp = Op<PosixDisk, NoJob>;

    /// Answers the pushes in their order with what was written down for it.
    #[derive(Default)]
    struct ScriptedRing {
        script: VecDeque<Result<usize, Errno>>,
        pushed: VecDeque<(u64, TestOp)>,
        /// Range and offset of each push.
        seen: Vec<(usize, usize, u64)>,
        sleeps: Vec<Option<Moment>>,
    }

    impl Ring<PosixDisk, NoJob> for ScriptedRing {
        fn push(&mut self, tag: u64, op: TestOp) {
            self.seen.push(match &op {
                Op::RecvHead { got, .. } => (*got, FRAME_HEAD_BYTES, 0),
                Op::Recv { range, .. } | Op::Send { range, .. } => (range.start, range.end, 0),
                Op::Read { range, offset, .. } | Op::Write { range, offset, .. } => {
                    (range.start, range.end, *offset)
                }
                Op::Job(_) => (0, 0, 0),
            });
            self.pushed.push_back((tag, op));
        }

        fn submit_and_wait(&mut self, until: Option<Moment>) -> Result<(), Errno> {
            self.sleeps.push(until);
            Ok(())
        }

        fn reap(&mut self) -> Option<Completion<PosixDisk, NoJob>> {
            let (tag, op) = self.pushed.pop_front()?;
            let result = self.script.pop_front().unwrap();
            Some(Completion { tag, op, result })
        }

        fn now(&self) -> Moment {
            Moment(42)
        }

        fn nudge(&mut self, _: StreamId) {}

        fn shut(&mut self, _: StreamId) {}

        fn release(&mut self, _: StreamId) {}
    }

    const STREAM: StreamId = StreamId(3);

    fn buf() -> Buf {
        let memory: &'static mut [u8] = vec![0; 100].leak();
        BlockPool::new(vec![memory]).take().unwrap()
    }

    fn file() -> Arc<std::os::fd::OwnedFd> {
        Arc::new(std::fs::File::open("/dev/null").unwrap().into())
    }

    fn recv() -> TestOp {
        Op::Recv {
            stream: STREAM,
            buf: buf(),
            range: 10..50,
        }
    }

    fn send() -> TestOp {
        Op::Send {
            stream: STREAM,
            buf: buf(),
            range: 10..50,
        }
    }

    fn read() -> TestOp {
        Op::Read {
            fd: file(),
            buf: buf(),
            range: 10..50,
            offset: 1000,
        }
    }

    fn write() -> TestOp {
        Op::Write {
            fd: file(),
            buf: buf(),
            range: 10..50,
            offset: 1000,
        }
    }

    struct Outcome {
        completion: Completion<PosixDisk, NoJob>,
        seen: Vec<(usize, usize, u64)>,
    }

    /// Runs one op to its end and checks that the whole script was needed for it.
    fn run(op: TestOp, script: &[Result<usize, Errno>]) -> Outcome {
        let mut driver = Driver::new(ScriptedRing {
            script: script.iter().copied().collect(),
            ..ScriptedRing::default()
        });
        driver.push(77, op);
        assert_eq!(driver.in_flight_count(), 1);
        let completion = driver.reap().unwrap();
        assert_eq!(completion.tag, 77);
        assert_eq!(driver.in_flight_count(), 0);
        assert!(driver.ring().script.is_empty());
        Outcome {
            completion,
            seen: driver.ring.seen,
        }
    }

    fn result(op: TestOp, script: &[Result<usize, Errno>]) -> Result<usize, Errno> {
        run(op, script).completion.result
    }

    #[test]
    fn a_short_write_is_finished_before_anyone_hears_of_it() {
        let outcome = run(write(), &[Ok(15), Err(Errno::INTR), Ok(1), Ok(24)]);
        let expected = [
            (10, 50, 1000),
            (25, 50, 1015),
            (25, 50, 1015),
            (26, 50, 1016),
        ];
        assert_eq!(outcome.seen, expected);
        assert_eq!(outcome.completion.result, Ok(40));
        let Op::Write { range, offset, .. } = outcome.completion.op else {
            panic!("another op came back")
        };
        assert_eq!((range, offset), (10..50, 1000));
    }

    #[test]
    fn a_short_send_and_a_short_receive_go_on_where_they_stopped() {
        for op in [send(), recv()] {
            let outcome = run(op, &[Ok(39), Ok(1)]);
            assert_eq!(outcome.seen, [(10, 50, 0), (49, 50, 0)]);
            assert_eq!(outcome.completion.result, Ok(40));
        }
    }

    #[test]
    fn a_head_counts_what_was_there_and_what_came() {
        let head = Op::RecvHead {
            stream: STREAM,
            head: [0; FRAME_HEAD_BYTES],
            got: 5,
        };
        let outcome = run(head, &[Ok(1), Ok(10)]);
        assert_eq!(outcome.seen, [(5, 16, 0), (6, 16, 0)]);
        assert_eq!(outcome.completion.result, Ok(11));
        assert!(matches!(
            outcome.completion.op,
            Op::RecvHead {
                got: FRAME_HEAD_BYTES,
                ..
            }
        ));
    }

    #[test]
    fn an_end_of_stream_or_file_tells_how_far_it_got() {
        assert_eq!(result(recv(), &[Ok(0)]), Ok(0));
        assert_eq!(result(recv(), &[Ok(7), Ok(0)]), Ok(7));
        assert_eq!(result(read(), &[Ok(30), Ok(0)]), Ok(30));
        let head = Op::RecvHead {
            stream: STREAM,
            head: [0; FRAME_HEAD_BYTES],
            got: 0,
        };
        assert_eq!(result(head, &[Ok(2), Ok(0)]), Ok(2));
    }

    #[test]
    fn sending_or_writing_nothing_is_an_error_not_a_loop() {
        assert_eq!(result(send(), &[Ok(0)]), Err(Errno::PIPE));
        assert_eq!(result(write(), &[Ok(3), Ok(0)]), Err(Errno::IO));
    }

    #[test]
    fn an_error_ends_an_op_even_after_progress() {
        let outcome = run(write(), &[Ok(8), Err(Errno::NOSPC)]);
        assert_eq!(outcome.completion.result, Err(Errno::NOSPC));
        assert!(matches!(
            outcome.completion.op,
            Op::Write { range, offset: 1000, .. } if range == (10..50)
        ));
        assert_eq!(result(recv(), &[Err(Errno::NOMEM)]), Err(Errno::NOMEM));
        assert_eq!(
            result(recv(), &[Ok(1), Err(Errno::CANCELED)]),
            Err(Errno::CANCELED)
        );
    }

    #[test]
    fn what_passes_is_tried_again_but_not_for_ever() {
        for errno in [Errno::INTR, Errno::AGAIN, Errno::NOMEM] {
            assert_eq!(result(write(), &[Err(errno), Ok(40)]), Ok(40));
            let script = vec![Err(errno); RESUBMITS_MAX as usize + 1];
            assert_eq!(result(write(), &script), Err(errno));
        }
        // Each bit of progress is a new start.
        let mut script = vec![Err(Errno::AGAIN); RESUBMITS_MAX as usize];
        script.push(Ok(1));
        script.extend(vec![Err(Errno::AGAIN); RESUBMITS_MAX as usize]);
        script.push(Ok(39));
        assert_eq!(result(write(), &script), Ok(40));
    }

    #[test]
    fn a_job_passes_with_its_result() {
        assert_eq!(result(Op::Job(NoJob), &[Ok(0)]), Ok(0));
        assert_eq!(
            result(Op::Job(NoJob), &[Err(Errno::NOTRECOVERABLE)]),
            Err(Errno::NOTRECOVERABLE)
        );
    }

    #[test]
    fn an_empty_range_is_done_at_once_and_not_slept_over() {
        let mut driver = Driver::new(ScriptedRing::default());
        let empty = Op::Recv {
            stream: STREAM,
            buf: buf(),
            range: 10..10,
        };
        driver.push(5, empty);
        driver.submit_and_wait(None).unwrap();
        assert_eq!(driver.ring().sleeps, [Some(Moment(42))]);
        let completion = driver.reap().unwrap();
        assert_eq!((completion.tag, completion.result), (5, Ok(0)));
        driver.submit_and_wait(None).unwrap();
        assert_eq!(driver.ring().sleeps[1], None);
        assert!(driver.reap().is_none());
    }

    #[test]
    fn several_ops_keep_their_tags_apart() {
        let mut driver = Driver::new(ScriptedRing {
            script: [Ok(10), Ok(40), Ok(40), Ok(30)].into(),
            ..ScriptedRing::default()
        });
        for tag in [1, 2, u64::MAX] {
            driver.push(tag, recv());
        }
        let tags: Vec<_> = std::iter::from_fn(|| driver.reap())
            .map(|completion| (completion.tag, completion.result))
            .collect();
        assert_eq!(tags, [(2, Ok(40)), (u64::MAX, Ok(40)), (1, Ok(40))]);
    }
}
