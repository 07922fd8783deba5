//! `SimRing`, the ring of one simulated process: it keeps each operation until its moment, and
//! ends it short, late, interrupted or out of order, as the seed wants.

use std::cell::RefCell;
use std::rc::Rc;

use super::clock::SimClock;
use super::disk::SimDisk;
use super::net::{Moved, NetOptions, SimNet};
use super::prng::Prng;
use crate::model::time::Moment;
use crate::ops::op::{Completion, Job, Op, Progress, Ring, StreamId};
use crate::ops::{Disk, Errno};

/// What the rings of one run share. Disks share its clock.
pub struct SimWorld {
    pub clock: SimClock,
    pub net: SimNet,
    pub prng: Prng,
}

impl SimWorld {
    pub fn new(seed: u64) -> Rc<RefCell<Self>> {
        let mut prng = Prng::new(seed);
        Rc::new(RefCell::new(Self {
            clock: SimClock::default(),
            net: SimNet::new(prng.fork()),
            prng,
        }))
    }

    /// A new connection; its two ends.
    pub fn connect(&mut self, options: &NetOptions) -> (StreamId, StreamId) {
        self.net.connect(options, self.clock.now())
    }
}

/// How the operations of one ring fare.
#[derive(Clone, Copy, Debug)]
pub struct RingWeather {
    /// Nanoseconds from the push to the end of an operation that could end at once, at most;
    /// most take far less.
    pub latency_ns_max: u64,
    /// How often an operation moves fewer bytes than it could, in a thousand.
    pub short_per_mille: u32,
    /// How often it moves none and says EINTR or EAGAIN.
    pub interrupted_per_mille: u32,
    /// How often a file's read or write fails with ENOMEM: the kernel had none for the request.
    pub no_memory_per_mille: u32,
}

impl RingWeather {
    /// Everything ends whole and almost at once.
    pub fn calm() -> Self {
        Self {
            latency_ns_max: 10_000,
            short_per_mille: 0,
            interrupted_per_mille: 0,
            no_memory_per_mille: 0,
        }
    }

    /// Everything drawn, without failures that end a transfer.
    pub fn random(prng: &mut Prng) -> Self {
        Self {
            latency_ns_max: prng.skewed(20_000_000),
            short_per_mille: u32::try_from(prng.below(600)).expect("below 600"),
            interrupted_per_mille: u32::try_from(prng.below(300)).expect("below 300"),
            no_memory_per_mille: 0,
        }
    }
}

/// The ring of one process. Dropping it drops its operations, and so gives their buffers back.
pub struct SimRing<J> {
    world: Rc<RefCell<SimWorld>>,
    clock: SimClock,
    disk: SimDisk,
    weather: RingWeather,
    prng: Prng,
    /// In the order in which they were pushed.
    in_flight: Vec<InFlight<J>>,
    /// In the order in which they will be reaped.
    done: Vec<Completion<SimDisk, J>>,
    /// When the last `submit_and_wait` wanted to be woken.
    wake_at: Option<Moment>,
}

struct InFlight<J> {
    tag: u64,
    op: Op<SimDisk, J>,
    /// Not before.
    due: Moment,
    /// Its stream was shut under it.
    is_cut: bool,
}

/// The direction of a stream: what moves in it ends in order.
type Lane = (StreamId, bool);

fn lane<J>(op: &Op<SimDisk, J>) -> Option<Lane> {
    match op {
        Op::RecvHead { stream, .. } | Op::Recv { stream, .. } => Some((*stream, false)),
        Op::Send { stream, .. } => Some((*stream, true)),
        Op::Read { .. } | Op::Write { .. } | Op::Job(_) => None,
    }
}

/// What an operation comes to when its moment is there.
enum Ending {
    Done(Result<usize, Errno>),
    /// Not yet: try again when there is something to do.
    Later,
}

impl<J: Job<SimDisk>> SimRing<J> {
    pub fn new(world: &Rc<RefCell<SimWorld>>, disk: SimDisk, weather: RingWeather) -> Self {
        let mut shared = world.borrow_mut();
        Self {
            clock: shared.clock.clone(),
            prng: shared.prng.fork(),
            world: Rc::clone(world),
            disk,
            weather,
            in_flight: Vec::new(),
            done: Vec::new(),
            wake_at: None,
        }
    }

    /// Changes how operations fare that end from now on.
    pub fn set_weather(&mut self, weather: RingWeather) {
        self.weather = weather;
    }

    /// Operations that were pushed and not reaped.
    pub fn in_flight_count(&self) -> usize {
        self.in_flight.len() + self.done.len()
    }

    /// When this side has something to do, as far as it is not up to another one: an operation
    /// that ends, a completion to reap, or the wake that was asked for. `None`: only another side
    /// can end its wait.
    pub fn next_due(&self) -> Option<Moment> {
        if !self.done.is_empty() {
            return Some(self.clock.now());
        }
        (0..self.in_flight.len())
            .filter_map(|index| self.ready_at(index))
            .chain(self.wake_at)
            .min()
    }

    /// When an operation can end; `None` while it waits for one before it or for another side.
    fn ready_at(&self, index: usize) -> Option<Moment> {
        let InFlight {
            op, due, is_cut, ..
        } = &self.in_flight[index];
        let Some((stream, is_send)) = lane(op) else {
            return Some(*due);
        };
        let own = Some((stream, is_send));
        if self.in_flight[..index].iter().any(|o| lane(&o.op) == own) {
            return None;
        }
        if *is_cut {
            return Some(*due);
        }
        let net = &self.world.borrow().net;
        let moves_at = if is_send {
            net.writable_at(stream)?
        } else {
            net.readable_at(stream)?
        };
        Some(moves_at.max(*due))
    }

    fn draw_due(&mut self) -> Moment {
        Moment(self.clock.now().0 + self.prng.skewed(self.weather.latency_ns_max.max(1)) - 1)
    }

    /// Ends what can end now, in an order that the seed draws.
    fn end_ready(&mut self) {
        let now = self.clock.now();
        loop {
            let ready: Vec<usize> = (0..self.in_flight.len())
                .filter(|index| self.ready_at(*index).is_some_and(|at| at <= now))
                .collect();
            if ready.is_empty() {
                return;
            }
            let index = *self.prng.pick(&ready);
            match self.end(index, now) {
                Ending::Done(result) => {
                    let InFlight { tag, op, .. } = self.in_flight.remove(index);
                    self.file(Completion { tag, op, result });
                }
                Ending::Later => {
                    // After now: the loop has an end.
                    let mut later = self.in_flight.remove(index);
                    later.due = self.draw_due().max(Moment(now.0 + 1));
                    self.in_flight.insert(index, later);
                }
            }
        }
    }

    /// Puts a completion anywhere among those that wait, behind the one before it in its lane.
    fn file(&mut self, completion: Completion<SimDisk, J>) {
        let own = lane(&completion.op);
        let first = match own {
            Some(_) => self
                .done
                .iter()
                .rposition(|other| lane(&other.op) == own)
                .map_or(0, |last| last + 1),
            None => 0,
        };
        let at = first + self.prng.index(self.done.len() - first + 1);
        self.done.insert(at, completion);
    }

    fn end(&mut self, index: usize, now: Moment) -> Ending {
        let InFlight { op, is_cut, .. } = &mut self.in_flight[index];
        let (weather, prng) = (self.weather, &mut self.prng);
        let is_interrupted = prng.chance(weather.interrupted_per_mille);
        let is_short = prng.chance(weather.short_per_mille);
        let is_out_of_memory = prng.chance(weather.no_memory_per_mille);
        let is_cancelled = *is_cut && prng.chance(500);
        let interruption = *prng.pick(&[Errno::INTR, Errno::AGAIN]);
        let mut some_of = |len: usize| {
            if is_short && len > 1 {
                1 + prng.index(len - 1)
            } else {
                len
            }
        };
        if let Op::Job(job) = op {
            return match job.run(&self.disk) {
                Progress::Done => Ending::Done(Ok(0)),
                Progress::Again => Ending::Later,
            };
        }
        if is_interrupted {
            return Ending::Done(Err(interruption));
        }
        match op {
            Op::RecvHead { .. } | Op::Recv { .. } | Op::Send { .. } if is_cancelled => {
                Ending::Done(Err(Errno::CANCELED))
            }
            Op::RecvHead { stream, head, got } => {
                let len = some_of(head.len() - *got);
                let net = &mut self.world.borrow_mut().net;
                moved(net.recv(*stream, &mut head[*got..][..len], now), *is_cut)
            }
            Op::Recv { stream, buf, range } => {
                let len = some_of(range.len());
                let net = &mut self.world.borrow_mut().net;
                moved(
                    net.recv(*stream, &mut buf[range.clone()][..len], now),
                    *is_cut,
                )
            }
            Op::Send { stream, buf, range } => {
                let len = some_of(range.len());
                let net = &mut self.world.borrow_mut().net;
                moved(net.send(*stream, &buf[range.clone()][..len], now), *is_cut)
            }
            Op::Read { .. } | Op::Write { .. } if is_out_of_memory => {
                Ending::Done(Err(Errno::NOMEM))
            }
            Op::Read {
                fd,
                buf,
                range,
                offset,
            } => {
                let len = some_of(range.len());
                Ending::Done(self.disk.read(fd, &mut buf[range.clone()][..len], *offset))
            }
            Op::Write {
                fd,
                buf,
                range,
                offset,
            } => {
                let len = some_of(range.len());
                Ending::Done(self.disk.write(fd, &buf[range.clone()][..len], *offset))
            }
            Op::Job(_) => unreachable!("ran above"),
        }
    }
}

/// A stream that was shut has nothing to wait for.
fn moved(moved: Moved, is_cut: bool) -> Ending {
    match moved {
        Moved::Bytes(len) => Ending::Done(Ok(len)),
        Moved::Failed(errno) => Ending::Done(Err(errno)),
        Moved::NotNow if is_cut => Ending::Done(Err(Errno::CANCELED)),
        Moved::NotNow => Ending::Later,
    }
}

impl<J: Job<SimDisk>> Ring<SimDisk, J> for SimRing<J> {
    fn push(&mut self, tag: u64, op: Op<SimDisk, J>) {
        let moves_bytes = match &op {
            Op::RecvHead { head, got, .. } => *got < head.len(),
            Op::Recv { buf, range, .. }
            | Op::Send { buf, range, .. }
            | Op::Read { buf, range, .. }
            | Op::Write { buf, range, .. } => {
                assert!(range.end <= buf.len(), "a range beyond its block");
                !range.is_empty()
            }
            Op::Job(_) => true,
        };
        // The kernel answers it with 0, which reads as the end of the stream or file.
        assert!(moves_bytes, "an operation on no bytes");
        let due = self.draw_due();
        let net = &self.world.borrow().net;
        let is_cut = lane(&op).is_some_and(|(stream, _)| net.is_shut(stream));
        self.in_flight.push(InFlight {
            tag,
            op,
            due,
            is_cut,
        });
    }

    /// Ends what is due and returns at once; the world moves the clock when every side is quiet.
    fn submit_and_wait(&mut self, until: Option<Moment>) -> Result<(), Errno> {
        self.wake_at = until;
        self.end_ready();
        Ok(())
    }

    fn reap(&mut self) -> Option<Completion<SimDisk, J>> {
        (!self.done.is_empty()).then(|| self.done.remove(0))
    }

    fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Here every byte that moves is told at once.
    fn nudge(&mut self, _: StreamId) {}

    fn shut(&mut self, stream: StreamId) {
        let now = self.clock.now();
        self.world.borrow_mut().net.shut(stream, now);
        for index in 0..self.in_flight.len() {
            if lane(&self.in_flight[index].op).is_some_and(|(own, _)| own == stream) {
                self.in_flight[index].is_cut = true;
                self.in_flight[index].due = self.draw_due();
            }
        }
    }

    fn release(&mut self, stream: StreamId) {
        let ops = self.in_flight.iter().map(|o| &o.op);
        let is_in_flight = ops
            .chain(self.done.iter().map(|completion| &completion.op))
            .any(|op| lane(op).is_some_and(|(own, _)| own == stream));
        assert!(!is_in_flight, "a stream released under its operations");
        let now = self.clock.now();
        let net = &mut self.world.borrow_mut().net;
        assert!(net.is_shut(stream), "a stream released before it was shut");
        net.close(stream, now);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::driver::Driver;
    use crate::limits::FRAME_HEAD_BYTES;
    use crate::ops::BlockPool;
    use crate::sim::tree::{Content, Entry};
    use crate::sim::{DiskOptions, Tree};

    /// Writes a file in steps, a call a run.
    struct Steps {
        name: &'static [u8],
        left: u32,
        outcome: Option<Errno>,
    }

    impl Job<SimDisk> for Steps {
        fn run(&mut self, disk: &SimDisk) -> Progress {
            if self.left > 0 {
                self.left -= 1;
                return Progress::Again;
            }
            let made = disk
                .open_operator_dir(b"/")
                .and_then(|root| disk.create_file(&root, self.name, 0o644));
            self.outcome = made.err();
            Progress::Done
        }
    }

    fn pool(blocks_count: usize) -> BlockPool {
        let block = || &mut *Box::leak(vec![0; 64].into_boxed_slice());
        BlockPool::new((0..blocks_count).map(|_| block()).collect())
    }

    fn disk_of(world: &Rc<RefCell<SimWorld>>, seed: u64) -> SimDisk {
        SimDisk::new(DiskOptions::default(), world.borrow().clock.clone(), seed)
    }

    /// Gives both sides turns until `is_over`, and moves the clock when both are quiet.
    fn drive<S>(
        rings: &mut [&mut SimRing<Steps>],
        state: &mut S,
        mut turn: impl FnMut(&mut S, usize, &mut SimRing<Steps>, Option<Completion<SimDisk, Steps>>),
        is_over: impl Fn(&S) -> bool,
    ) {
        while !is_over(state) {
            for (side, ring) in rings.iter_mut().enumerate() {
                ring.submit_and_wait(None).unwrap();
                turn(state, side, ring, None);
                while let Some(completion) = ring.reap() {
                    turn(state, side, ring, Some(completion));
                }
            }
            let due = rings.iter().filter_map(|ring| ring.next_due()).min();
            match due {
                Some(due) => rings[0].clock.advance_to(due),
                None if is_over(state) => {}
                None => panic!("both sides wait for each other"),
            }
        }
    }

    /// Sends `MESSAGE_BYTES` from one side to the other, with two sends and two receives in
    /// flight at a time; what arrived, and both pools' free blocks afterwards.
    fn transfer(seed: u64, options: &NetOptions) -> Vec<u8> {
        const MESSAGE_BYTES: usize = 700;
        struct State {
            sent: usize,
            received: Vec<u8>,
            in_flight: [u64; 2],
            is_ended: bool,
        }
        let world = SimWorld::new(seed);
        let disk = disk_of(&world, seed);
        let weather = RingWeather::random(&mut Prng::new(seed));
        let mut one = SimRing::new(&world, disk.clone(), weather);
        let mut two = SimRing::new(&world, disk, weather);
        let (a, b) = world.borrow_mut().connect(options);
        let pools = [pool(1), pool(2)];
        let mut state = State {
            sent: 0,
            received: Vec::new(),
            in_flight: [0; 2],
            is_ended: false,
        };
        let message: Vec<u8> = (0..=250).cycle().take(MESSAGE_BYTES).collect();
        drive(
            &mut [&mut one, &mut two],
            &mut state,
            |state, side, ring, completion| {
                if let Some(Completion { tag, op, result }) = completion {
                    state.in_flight[side] -= 1;
                    match (op, result) {
                        (Op::Send { .. }, Ok(len)) => state.sent += len,
                        (Op::Recv { .. }, Ok(0)) => state.is_ended = true,
                        (Op::Recv { buf, range, .. }, Ok(len)) => {
                            state.received.extend_from_slice(&buf[range][..len]);
                        }
                        (Op::Send { .. } | Op::Recv { .. }, Err(Errno::INTR | Errno::AGAIN)) => {}
                        (_, result) => panic!("op {tag} ended with {result:?}"),
                    }
                }
                if side == 0 {
                    if state.sent == MESSAGE_BYTES {
                        let now = ring.now();
                        world.borrow_mut().net.end_sending(a, now);
                    } else if let Some(mut buf) = pools[0].take() {
                        let len = 37.min(MESSAGE_BYTES - state.sent);
                        buf[5..5 + len].copy_from_slice(&message[state.sent..][..len]);
                        let range = 5..5 + len;
                        state.in_flight[0] += 1;
                        ring.push(
                            1,
                            Op::Send {
                                stream: a,
                                buf,
                                range,
                            },
                        );
                    }
                } else if !state.is_ended {
                    while let Some(buf) = pools[1].take() {
                        let range = 3..64;
                        state.in_flight[1] += 1;
                        ring.push(
                            2,
                            Op::Recv {
                                stream: b,
                                buf,
                                range,
                            },
                        );
                    }
                }
            },
            |state| state.is_ended && state.in_flight == [0; 2],
        );
        assert_eq!(state.received, message);
        for pool in &pools {
            assert_eq!(pool.free_count(), pool.blocks_count());
        }
        state.received
    }

    #[test]
    fn bytes_arrive_in_order_whatever_the_seed() {
        for seed in 0..200 {
            let mut options = NetOptions::random(&mut Prng::new(seed));
            if seed % 4 == 0 {
                options.capacity_bytes = 1;
            }
            transfer(seed, &options);
        }
    }

    #[test]
    fn a_seed_repeats_itself() {
        let mut ends = Vec::new();
        for _ in 0..2 {
            let world = SimWorld::new(9);
            let disk = disk_of(&world, 9);
            let mut ring = SimRing::new(&world, disk, RingWeather::random(&mut Prng::new(9)));
            for tag in 0..50 {
                let name = b"f";
                let left = u32::try_from(tag % 3).unwrap();
                let outcome = None;
                ring.push(
                    tag,
                    Op::Job(Steps {
                        name,
                        left,
                        outcome,
                    }),
                );
            }
            let mut order = Vec::new();
            drive(
                &mut [&mut ring],
                &mut order,
                |order, _, ring, done| order.extend(done.map(|done| (done.tag, ring.now()))),
                |order| order.len() == 50,
            );
            ends.push(order);
        }
        assert_eq!(ends[0], ends[1]);
        assert!(!ends[0].is_sorted(), "ends are out of order");
    }

    #[test]
    fn files_are_read_and_written_in_pieces_and_jobs_run_to_their_end() {
        for seed in 0..50 {
            let world = SimWorld::new(seed);
            let disk = disk_of(&world, seed);
            let root = disk.open_operator_dir(b"/").unwrap();
            let fd = Arc::new(disk.create_file(&root, b"out", 0o644).unwrap());
            let weather = RingWeather::random(&mut Prng::new(seed));
            let mut ring = SimRing::new(&world, disk.clone(), weather);
            let pool = pool(1);
            let mut buf = pool.take().unwrap();
            for (at, byte) in (0..).zip(buf.iter_mut()) {
                *byte = at;
            }
            let op = |buf, start: usize| Op::Write {
                fd: Arc::clone(&fd),
                buf,
                range: start..64,
                offset: start as u64,
            };
            ring.push(1, op(buf, 0));
            let steps = Steps {
                name: b"made",
                left: 3,
                outcome: Some(Errno::IO),
            };
            ring.push(2, Op::Job(steps));
            drive(
                &mut [&mut ring],
                &mut 0,
                |ended, _, ring, completion| match completion.map(|c| (c.op, c.result)) {
                    Some((Op::Write { buf, range, .. }, result)) => {
                        let start = range.start + result.unwrap_or(0);
                        if start < 64 {
                            ring.push(1, op(buf, start));
                        } else {
                            *ended += 1;
                        }
                    }
                    Some((Op::Job(steps), _)) => {
                        assert_eq!((steps.left, steps.outcome), (0, None));
                        *ended += 1;
                    }
                    _ => {}
                },
                |ended| *ended == 2,
            );
            let content: Vec<u8> = (0..64).collect();
            let again = disk.open_file(&root, b"out").unwrap();
            let mut found = [0; 100];
            assert_eq!(disk.read(&again, &mut found, 0), Ok(64));
            assert_eq!(found[..64], content);
            assert!(disk.stat_at(&root, b"made").is_ok());
            assert_eq!(pool.free_count(), 1);
        }
    }

    #[test]
    fn above_the_driver_operations_are_whole_whatever_the_seed() {
        const STEP_BYTES: usize = 48;
        for seed in 0..100 {
            let world = SimWorld::new(seed);
            let mut prng = Prng::new(seed);
            let content: Vec<u8> = (0..=255).cycle().take(prng.index(400)).collect();
            let (source, target) = (disk_of(&world, seed), disk_of(&world, seed + 1));
            source.put(b"/f", &Entry::file(0o644, &content)).unwrap();
            let [from_root, to_root] = [&source, &target].map(|d| d.open_operator_dir(b"/"));
            let from = Arc::new(source.open_file(&from_root.unwrap(), b"f").unwrap());
            let to = target.create_file(&to_root.unwrap(), b"f", 0o644);
            let to = Arc::new(to.unwrap());
            let (a, b) = world.borrow_mut().connect(&NetOptions::random(&mut prng));
            let mut sides = [source, target.clone()].map(|disk| {
                let ring: SimRing<Steps> =
                    SimRing::new(&world, disk, RingWeather::random(&mut prng));
                Driver::new(ring)
            });
            let pool = pool(2);
            let [first, second] = [(); 2].map(|()| pool.take().unwrap());
            let read = |buf, offset| Op::Read {
                fd: Arc::clone(&from),
                buf,
                range: 0..STEP_BYTES,
                offset,
            };
            let recv = |buf| Op::Recv {
                stream: b,
                buf,
                range: 1..1 + STEP_BYTES,
            };
            sides[0].push(0, read(first, 0));
            sides[1].push(0, recv(second));
            let mut written = 0;
            let mut is_over = false;
            while !is_over {
                for side in &mut sides {
                    side.submit_and_wait(None).unwrap();
                    while let Some(Completion { tag, op, result }) = side.reap() {
                        let len = result.unwrap();
                        match op {
                            Op::Read { .. } if len == 0 => {
                                world.borrow_mut().net.end_sending(a, side.now());
                            }
                            Op::Read { buf, offset, .. } => {
                                let (stream, range) = (a, 0..len);
                                // The tag remembers how far it is.
                                side.push(offset + len as u64, Op::Send { stream, buf, range });
                            }
                            Op::Recv { .. } if len == 0 => is_over = true,
                            Op::Recv { buf, .. } => {
                                let (fd, range, offset) = (Arc::clone(&to), 1..1 + len, written);
                                written += len as u64;
                                let op = Op::Write {
                                    fd,
                                    buf,
                                    range,
                                    offset,
                                };
                                side.push(0, op);
                            }
                            Op::Write { buf, .. } => side.push(0, recv(buf)),
                            Op::Send { buf, .. } => side.push(0, read(buf, tag)),
                            Op::RecvHead { .. } | Op::Job(_) => unreachable!(),
                        }
                    }
                }
                let due = sides.iter().filter_map(|side| side.ring().next_due()).min();
                world.borrow().clock.advance_to(due.unwrap_or_default());
            }
            let copied = target.snapshot(b"/f").unwrap();
            let wanted = Content::Bytes(Arc::new(content));
            assert_eq!(copied.entries[&b""[..]].content, wanted);
            assert_eq!(pool.free_count(), 2);
        }
    }

    #[test]
    fn a_stream_that_is_shut_gives_back_what_was_in_flight() {
        for seed in 0..50 {
            let world = SimWorld::new(seed);
            let disk = disk_of(&world, seed);
            disk.plant(b"/d", &Tree::empty()).unwrap();
            let options = NetOptions::random(&mut Prng::new(seed));
            let (a, b) = world.borrow_mut().connect(&options);
            let mut ring: SimRing<Steps> =
                SimRing::new(&world, disk, RingWeather::random(&mut Prng::new(seed)));
            let pool = pool(3);
            let head = [0; FRAME_HEAD_BYTES];
            ring.push(
                0,
                Op::RecvHead {
                    stream: a,
                    head,
                    got: 4,
                },
            );
            for tag in 1..3 {
                let (buf, range) = (pool.take().unwrap(), 0..64);
                ring.push(
                    tag,
                    Op::Send {
                        stream: a,
                        buf,
                        range,
                    },
                );
            }
            let (buf, range) = (pool.take().unwrap(), 0..64);
            ring.push(
                3,
                Op::Recv {
                    stream: a,
                    buf,
                    range,
                },
            );
            ring.shut(a);
            let mut tags = Vec::new();
            drive(
                &mut [&mut ring],
                &mut tags,
                |tags, _, _, done| tags.extend(done.map(|done| done.tag)),
                |tags| tags.len() == 4,
            );
            let place = |tag| tags.iter().position(|t| *t == tag).unwrap();
            assert!(place(1) < place(2) && place(0) < place(3));
            ring.release(a);
            assert_eq!((ring.in_flight_count(), pool.free_count()), (0, 3));
            assert!(world.borrow().net.readable_at(b).is_some());
        }
    }

    #[test]
    fn dropping_a_ring_gives_its_buffers_back() {
        let world = SimWorld::new(1);
        let disk = disk_of(&world, 1);
        let (a, _) = world
            .borrow_mut()
            .connect(&NetOptions::random(&mut Prng::new(1)));
        let mut ring: SimRing<Steps> = SimRing::new(&world, disk, RingWeather::calm());
        let pool = pool(1);
        let (buf, range) = (pool.take().unwrap(), 0..8);
        ring.push(
            1,
            Op::Recv {
                stream: a,
                buf,
                range,
            },
        );
        ring.submit_and_wait(Some(Moment(77))).unwrap();
        assert_eq!(ring.next_due(), Some(Moment(77)));
        assert_eq!(pool.free_count(), 0);
        drop(ring);
        assert_eq!(pool.free_count(), 1);
    }
}
