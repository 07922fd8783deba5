//! `Pool`, a few threads for what may block: jobs, and file reads and writes whose lane it is. A
//! ring hands it ops and finds them, ended, in its `Inbox`. Several rings may share one pool.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::bell::Bell;
use super::clock::monotonic_now;
use crate::model::time::Moment;
use crate::ops::op::{Completion, Job, Op, Progress};
use crate::ops::{Disk, Errno};

/// The result of a job that panicked: its state can't be trusted, and its session must end. (The
/// disk's failures are inside a job and never its result, so no other error is one.)
pub const JOB_PANICKED: Errno = Errno::NOTRECOVERABLE;

/// Tells the jobs that may take seconds, such as a `syncfs`. They have a thread of their own.
pub type IsSlow<J> = fn(&J) -> bool;

/// A handle of the pool. When the last one is dropped, the threads finish what they are at and
/// end; ops that still wait in line are dropped.
pub struct Pool<D: Disk, J> {
    doors: Arc<Doors<D, J>>,
}

impl<D: Disk, J> Clone for Pool<D, J> {
    fn clone(&self) -> Self {
        Self {
            doors: Arc::clone(&self.doors),
        }
    }
}

impl<D: Disk, J: Job<D>> Pool<D, J> {
    /// Starts `threads_count` threads, and one more where some jobs are slow.
    pub fn start(
        disk: &D,
        threads_count: usize,
        is_slow: Option<IsSlow<J>>,
    ) -> Result<Self, io::Error> {
        let doors = Arc::new(Doors {
            common: Arc::new(Line::new()),
            slow: is_slow.map(|is_slow| SlowDoor {
                is_slow,
                line: Arc::new(Line::new()),
            }),
        });
        for number in 0..threads_count.max(1) {
            spawn(format!("sy-pool-{number}"), disk, &doors.common)?;
        }
        if let Some(slow) = &doors.slow {
            spawn("sy-pool-slow".to_owned(), disk, &slow.line)?;
        }
        Ok(Self { doors })
    }

    /// Takes a job, or a file read or write, until it lies in `inbox`.
    pub(super) fn push(&self, tag: u64, op: Op<D, J>, inbox: &Arc<Inbox<D, J>>) {
        let line = match (&op, &self.doors.slow) {
            (Op::Job(job), Some(slow)) if (slow.is_slow)(job) => &slow.line,
            _ => &self.doors.common,
        };
        line.push(Task {
            tag,
            op,
            inbox: Arc::clone(inbox),
            times: Times {
                pushed: monotonic_now(),
                worked: Duration::ZERO,
                entries_made: 0,
            },
        });
    }
}

/// How long an op of the pool took.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) pushed: Moment,
    /// Without the time in line.
    pub(super) worked: Duration,
    /// In that time.
    pub(super) entries_made: u32,
}

/// Where a ring finds what the pool ended for it.
pub(super) struct Inbox<D: Disk, J> {
    ended: Mutex<VecDeque<(Completion<D, J>, Times)>>,
    bell: Arc<Bell>,
}

impl<D: Disk, J> Inbox<D, J> {
    pub(super) fn new(bell: Arc<Bell>) -> Self {
        Self {
            ended: Mutex::new(VecDeque::new()),
            bell,
        }
    }

    /// Moves all that is there to the back of `arrived`.
    pub(super) fn take_into(&self, arrived: &mut VecDeque<(Completion<D, J>, Times)>) {
        arrived.append(&mut locked(&self.ended));
    }

    fn put(&self, completion: Completion<D, J>, times: Times) {
        locked(&self.ended).push_back((completion, times));
        self.bell.ring();
    }
}

/// The lines in front of the threads; dropping it closes them.
struct Doors<D: Disk, J> {
    common: Arc<Line<D, J>>,
    slow: Option<SlowDoor<D, J>>,
}

struct SlowDoor<D: Disk, J> {
    is_slow: IsSlow<J>,
    line: Arc<Line<D, J>>,
}

impl<D: Disk, J> Drop for Doors<D, J> {
    fn drop(&mut self) {
        self.common.close();
        if let Some(slow) = &self.slow {
            slow.line.close();
        }
    }
}

struct Task<D: Disk, J> {
    tag: u64,
    op: Op<D, J>,
    inbox: Arc<Inbox<D, J>>,
    times: Times,
}

struct Line<D: Disk, J> {
    state: Mutex<LineState<D, J>>,
    arrival: Condvar,
}

struct LineState<D: Disk, J> {
    tasks: VecDeque<Task<D, J>>,
    is_closed: bool,
}

impl<D: Disk, J> Line<D, J> {
    fn new() -> Self {
        Self {
            state: Mutex::new(LineState {
                tasks: VecDeque::new(),
                is_closed: false,
            }),
            arrival: Condvar::new(),
        }
    }

    fn push(&self, task: Task<D, J>) {
        let mut state = locked(&self.state);
        if !state.is_closed {
            state.tasks.push_back(task);
            drop(state);
            self.arrival.notify_one();
        }
    }

    /// The next task; sleeps for it. `None` when the line is closed.
    fn next(&self) -> Option<Task<D, J>> {
        let mut state = self
            .arrival
            .wait_while(locked(&self.state), |state| {
                state.tasks.is_empty() && !state.is_closed
            })
            .unwrap_or_else(PoisonError::into_inner);
        if state.is_closed {
            return None;
        }
        state.tasks.pop_front()
    }

    fn close(&self) {
        let mut state = locked(&self.state);
        state.is_closed = true;
        let abandoned = std::mem::take(&mut state.tasks);
        drop(state);
        self.arrival.notify_all();
        // Without the lock: dropping a task may close files.
        drop(abandoned);
    }
}

/// What is behind these locks is only moved in and out of queues, which a panic elsewhere can't
/// leave half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spawn<D: Disk, J: Job<D>>(
    name: String,
    disk: &D,
    line: &Arc<Line<D, J>>,
) -> Result<(), io::Error> {
    let (disk, line) = (disk.clone(), Arc::clone(line));
    std::thread::Builder::new()
        .name(name)
        .spawn(move || {
            while let Some(task) = line.next() {
                work(&disk, &line, task);
            }
        })
        .map(drop)
}

fn work<D: Disk, J: Job<D>>(disk: &D, line: &Line<D, J>, mut task: Task<D, J>) {
    // The op stays out here, so that a panic loses neither it nor its buffer. Nobody looks into
    // a job after `JOB_PANICKED`, so a state torn inside it is seen by its drop alone.
    let began = monotonic_now();
    let made_before = entries_made(&task.op);
    let ending = catch_unwind(AssertUnwindSafe(|| step(disk, &mut task.op)));
    task.times.worked += monotonic_now().since(began);
    task.times.entries_made += entries_made(&task.op).saturating_sub(made_before);
    let result = match ending {
        Ok(Step::Ended(result)) => result,
        Ok(Step::Again) => return line.push(task),
        Err(_told_by_the_panic_hook) => Err(JOB_PANICKED),
    };
    let Task {
        tag,
        op,
        inbox,
        times,
    } = task;
    inbox.put(Completion { tag, op, result }, times);
}

fn entries_made<D: Disk, J: Job<D>>(op: &Op<D, J>) -> u32 {
    match op {
        Op::Job(job) => job.entries_made(),
        Op::RecvHead { .. }
        | Op::Recv { .. }
        | Op::Send { .. }
        | Op::Read { .. }
        | Op::Write { .. } => 0,
    }
}

enum Step {
    Ended(Result<usize, Errno>),
    Again,
}

fn step<D: Disk, J: Job<D>>(disk: &D, op: &mut Op<D, J>) -> Step {
    match op {
        Op::Job(job) => match job.run(disk) {
            Progress::Done => Step::Ended(Ok(0)),
            Progress::Again => Step::Again,
        },
        Op::Read { .. } | Op::Write { .. } => Step::Ended(run_file_op(disk, op)),
        Op::RecvHead { .. } | Op::Recv { .. } | Op::Send { .. } => Step::Ended(Err(Errno::INVAL)),
    }
}

/// A file read or write as a plain call of this thread.
pub(super) fn run_file_op<D: Disk, J>(disk: &D, op: &mut Op<D, J>) -> Result<usize, Errno> {
    match op {
        Op::Read {
            fd,
            buf,
            range,
            offset,
        } => disk.read(fd, &mut buf[range.clone()], *offset),
        Op::Write {
            fd,
            buf,
            range,
            offset,
        } => disk.write(fd, &buf[range.clone()], *offset),
        Op::RecvHead { .. } | Op::Recv { .. } | Op::Send { .. } | Op::Job(_) => Err(Errno::INVAL),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::engine::arena;
    use crate::engine::disk::PosixDisk;
    use crate::engine::testing::TempDir;
    use crate::limits::BLOCK_BYTES;

    /// Counts its runs down, waits for leave where it has to, or panics.
    enum TestJob {
        Rounds(u32, mpsc::Sender<&'static str>, &'static str),
        Wait(mpsc::Receiver<()>),
        Panic,
    }

    impl Job<PosixDisk> for TestJob {
        fn run(&mut self, _: &PosixDisk) -> Progress {
            match self {
                Self::Rounds(rounds, said, name) => {
                    said.send(name).unwrap();
                    *rounds -= 1;
                    if *rounds == 0 {
                        Progress::Done
                    } else {
                        Progress::Again
                    }
                }
                Self::Wait(leave) => {
                    let _ = leave.recv();
                    Progress::Done
                }
                Self::Panic => panic!("a job of a test panics on purpose"),
            }
        }
    }

    type TestInbox = Arc<Inbox<PosixDisk, TestJob>>;

    fn inbox() -> (TestInbox, Arc<Bell>) {
        let bell = Arc::new(Bell::new().unwrap());
        (Arc::new(Inbox::new(Arc::clone(&bell))), bell)
    }

    /// Sleeps on the bell until `count` completions are there.
    fn wait_for(
        inbox: &TestInbox,
        bell: &Bell,
        count: usize,
    ) -> VecDeque<Completion<PosixDisk, TestJob>> {
        let mut arrived = VecDeque::new();
        loop {
            bell.take_rung();
            inbox.take_into(&mut arrived);
            if arrived.len() >= count {
                return arrived.into_iter().map(|(ended, _)| ended).collect();
            }
            if bell.lie_down() {
                let mut word = [0; 8];
                rustix::io::read(bell.fd(), &mut word).unwrap();
            }
            bell.get_up();
        }
    }

    #[test]
    fn a_job_that_spent_its_budget_goes_behind_the_others() {
        let pool = Pool::start(&PosixDisk, 1, None).unwrap();
        let (inbox, bell) = inbox();
        let (leave, gate) = mpsc::channel();
        let (said, heard) = mpsc::channel();
        pool.push(1, Op::Job(TestJob::Wait(gate)), &inbox);
        pool.push(2, Op::Job(TestJob::Rounds(3, said.clone(), "long")), &inbox);
        pool.push(3, Op::Job(TestJob::Rounds(1, said, "short")), &inbox);
        leave.send(()).unwrap();
        let ended = wait_for(&inbox, &bell, 3);
        let order: Vec<_> = heard.try_iter().collect();
        assert_eq!(order, ["long", "short", "long", "long"]);
        let tags: Vec<_> = ended.iter().map(|completion| completion.tag).collect();
        assert_eq!(tags, [1, 3, 2]);
        assert!(ended.iter().all(|completion| completion.result == Ok(0)));
    }

    #[test]
    fn a_job_that_panics_comes_back_marked_and_its_thread_works_on() {
        let pool = Pool::start(&PosixDisk, 1, None).unwrap();
        let (inbox, bell) = inbox();
        let (said, _heard) = mpsc::channel();
        pool.push(7, Op::Job(TestJob::Panic), &inbox);
        pool.push(8, Op::Job(TestJob::Rounds(1, said, "after")), &inbox);
        let ended = wait_for(&inbox, &bell, 2);
        assert_eq!((ended[0].tag, ended[0].result), (7, Err(JOB_PANICKED)));
        assert!(matches!(ended[0].op, Op::Job(TestJob::Panic)));
        assert_eq!((ended[1].tag, ended[1].result), (8, Ok(0)));
    }

    #[test]
    fn a_slow_job_holds_nobody_up() {
        let is_slow = |job: &TestJob| matches!(job, TestJob::Wait(_));
        let pool = Pool::start(&PosixDisk, 1, Some(is_slow)).unwrap();
        let (inbox, bell) = inbox();
        let (leave, gate) = mpsc::channel();
        let (said, _heard) = mpsc::channel();
        pool.push(1, Op::Job(TestJob::Wait(gate)), &inbox);
        pool.push(2, Op::Job(TestJob::Rounds(2, said, "quick")), &inbox);
        assert_eq!(wait_for(&inbox, &bell, 1)[0].tag, 2);
        leave.send(()).unwrap();
        assert_eq!(wait_for(&inbox, &bell, 1)[0].tag, 1);
    }

    #[test]
    fn a_file_is_written_and_read_with_the_callers_buffer() {
        let (temp, disk) = (TempDir::new("pool-file"), PosixDisk);
        let dir = temp.open();
        let (blocks, _) = arena::map(2 * BLOCK_BYTES).unwrap();
        let pool = Pool::start(&disk, 2, None).unwrap();
        let (inbox, bell) = inbox();
        let mut buf = blocks.take().unwrap();
        buf[10..15].copy_from_slice(b"hello");
        let fd = Arc::new(disk.create_file(&dir, b"f", 0o600).unwrap());
        let write = Op::Write {
            fd,
            buf,
            range: 10..15,
            offset: 2,
        };
        pool.push(1, write, &inbox);
        assert_eq!(wait_for(&inbox, &bell, 1)[0].result, Ok(5));
        let read = Op::Read {
            fd: Arc::new(disk.open_file(&dir, b"f").unwrap()),
            buf: blocks.take().unwrap(),
            range: 0..100,
            offset: 1,
        };
        pool.push(2, read, &inbox);
        let ended = wait_for(&inbox, &bell, 1);
        assert_eq!(ended[0].result, Ok(6));
        let Op::Read { buf, .. } = &ended[0].op else {
            panic!("another op came back")
        };
        assert_eq!(&buf[..6], b"\0hello");
    }

    #[test]
    fn what_waits_in_a_closed_line_is_dropped() {
        let pool = Pool::start(&PosixDisk, 1, None).unwrap();
        let (inbox, bell) = inbox();
        let (leave, gate) = mpsc::channel();
        let (said, heard) = mpsc::channel();
        pool.push(1, Op::Job(TestJob::Wait(gate)), &inbox);
        pool.push(2, Op::Job(TestJob::Rounds(1, said, "never")), &inbox);
        let other = pool.clone();
        drop(pool);
        drop(other);
        // Fails where even the first job was still in line.
        let _ = leave.send(());
        // The sender lives in the second job: no word, and then its end.
        assert_eq!(heard.recv(), Err(mpsc::RecvError));
        drop(wait_for(&inbox, &bell, 0));
    }
}
