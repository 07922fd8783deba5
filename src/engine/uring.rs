//! `Uring`, the seam over io_uring: it turns ops into submission queue entries and completions
//! back into ops, and does nothing clever. Short and interrupted ones are `driver`'s.
//!
//! **Who owns what.** An op that the kernel has lives in `ops`, with its buffer and its file, from
//! `push` until its completion is copied out; nothing touches the buffer in between. `user_data`
//! names the slot and its generation, so a completion can't be taken for a later op's. Heads of
//! frames are received into `heads`, one place per slot, whose addresses never change. When a
//! ring is dropped it first gets everything back; what the kernel won't give back is leaked.
//!
//! **One thread.** The kernel binds the ring to the thread that makes it (SINGLE_ISSUER), so a
//! `Uring` is not `Send`. Other threads reach it by a `Waker` or by the pool's inbox.
#![expect(
    unsafe_code,
    reason = "hands addresses to the kernel and enters it without a wait"
)]

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};
use rustix::net::Shutdown;
use slab::Slab;

use super::arena::Region;
use super::bell::Waker;
use super::clock::monotonic_now;
use super::end::{End, Mode};
use super::entry;
use super::figures::Figures;
use super::lanes::{Lane, LaneTable};
use super::off_ring::OffRing;
use super::pool::Pool;
use super::setup::{Registration, Setup, SetupError, errno_of, register, set_up};
use super::user_data::{About, Slot};
use super::zero_copy::{self, Lendings, Word};
use crate::limits::{
    FRAME_HEAD_BYTES, RING_OPS_MAX, RING_REAP_FULL, RING_SUBMIT_EARLY, SEND_ZERO_COPY_BYTES_MIN,
};
use crate::model::time::Moment;
use crate::ops::op::{Completion, Job, Op, Ring, StreamId};
use crate::ops::{Disk, Errno};

/// How long a dropped ring waits for what it cancelled.
const DROP_WAIT: Duration = Duration::from_secs(2);

/// Counts since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Calls of io_uring_enter.
    pub enters: u64,
    /// Entries submitted.
    pub sqes: u64,
    /// Times another thread had to write to get this one out of its sleep.
    pub wakes: u64,
    /// File ops as plain calls in the loop.
    pub inline_ops: u64,
    /// Ops handed to the pool, jobs among them.
    pub pool_ops: u64,
    /// Sends for which the kernel was to read our memory.
    pub zero_copy_sends: u64,
    /// Of these, those for which it made a copy after all.
    pub zero_copy_copied: u64,
    /// Completions for an op that is not there any more; each is a bug.
    pub stale_completions: u64,
}

type Head = [u8; FRAME_HEAD_BYTES];

pub struct Uring<D: Disk, J: Job<D>> {
    ring: IoUring,
    setup: Setup,
    arena: Option<Region>,
    off_ring: OffRing<D, J>,
    streams: Slab<Stream>,

    /// What the kernel has.
    ops: Slab<InFlight<D, J>>,
    /// The generation of the present or next user of each slot of `ops`.
    generations: Vec<u32>,
    lendings: Lendings,
    /// Where RecvHead of the same slot receives. Cells, because the kernel writes while we hold
    /// a reference to the slice.
    heads: Box<[UnsafeCell<Head>]>,
    /// Where the read of the bell's eventfd goes.
    bell_word: Box<UnsafeCell<[u8; 8]>>,
    is_bell_armed: bool,

    /// Pushed, not yet with the kernel, for want of room.
    backlog: VecDeque<Waiting<D, J>>,
    /// `user_data` of ops to cancel. Not descriptors: those could be another's by then.
    cancels_to_submit: VecDeque<u64>,
    /// Entries in the submission queue.
    unsubmitted_count: usize,
    ready: VecDeque<Completion<D, J>>,
    stats: Stats,
    /// Not `Send`.
    thread: PhantomData<*mut ()>,
}

struct Waiting<D: Disk, J> {
    tag: u64,
    op: Op<D, J>,
    pushed: Moment,
}

struct InFlight<D: Disk, J> {
    tag: u64,
    op: Op<D, J>,
    pushed: Moment,
    /// Its place among the lent blocks, for a send without a copy.
    lending: Option<Slot>,
    /// A cancellation was asked for to hear how far it is.
    is_nudged: bool,
}

/// Both directions of one byte stream.
struct Stream {
    input: End,
    /// Where it is not the input's descriptor: a pair of pipes.
    output: Option<End>,
    /// Pushed and not yet among the ready.
    in_flight_count: u32,
    /// Large sends go without a copy.
    is_zero_copy: bool,
    is_shut: bool,
    is_released: bool,
}

impl Stream {
    fn output(&self) -> &End {
        self.output.as_ref().unwrap_or(&self.input)
    }
}

impl<D, J> Uring<D, J>
where
    D: Disk<Fd: AsFd + AsRawFd>,
    J: Job<D>,
{
    /// Sets a ring up for the calling thread. `arena` is registered when something needs it.
    pub fn new(
        disk: D,
        pool: Pool<D, J>,
        arena: Option<Region>,
        lanes: LaneTable,
    ) -> Result<Self, SetupError> {
        let (ring, setup) = set_up()?;
        Ok(Self {
            ring,
            setup,
            arena,
            off_ring: OffRing::new(disk, pool, lanes).map_err(SetupError::Other)?,
            streams: Slab::new(),
            ops: Slab::with_capacity(RING_OPS_MAX),
            generations: vec![0; RING_OPS_MAX],
            lendings: Lendings::default(),
            heads: (0..RING_OPS_MAX)
                .map(|_| UnsafeCell::new([0; FRAME_HEAD_BYTES]))
                .collect(),
            bell_word: Box::new(UnsafeCell::new([0; 8])),
            is_bell_armed: false,
            backlog: VecDeque::new(),
            cancels_to_submit: VecDeque::new(),
            unsubmitted_count: 0,
            ready: VecDeque::new(),
            stats: Stats::default(),
            thread: PhantomData,
        })
    }

    pub fn setup(&self) -> Setup {
        self.setup
    }

    pub fn stats(&self) -> Stats {
        Stats {
            wakes: self.off_ring.bell().writes_count(),
            inline_ops: self.off_ring.inline_count(),
            pool_ops: self.off_ring.pool_count(),
            ..self.stats
        }
    }

    /// How long its operations took so far.
    pub fn figures(&self) -> &Figures {
        self.off_ring.figures()
    }

    /// Wakes this ring's thread from any other.
    pub fn waker(&self) -> Waker {
        self.off_ring.waker()
    }

    /// Takes over a connected stream socket, or one descriptor that is read and written.
    pub fn add_stream(&mut self, fd: OwnedFd) -> StreamId {
        self.add(End::new(fd, Mode::Blocking), None)
    }

    /// Takes over a stream of two descriptors: an inherited stdin and stdout.
    pub fn add_stream_pair(&mut self, input: OwnedFd, output: OwnedFd) -> StreamId {
        let [input, output] = [input, output].map(|fd| End::new(fd, Mode::Blocking));
        self.add(input, Some(output))
    }

    fn add(&mut self, input: End, output: Option<End>) -> StreamId {
        let is_zero_copy = self.arena.is_some() && output.is_none() && zero_copy::is_remote(&input);
        let key = self.streams.insert(Stream {
            input,
            output,
            in_flight_count: 0,
            is_zero_copy,
            is_shut: false,
            is_released: false,
        });
        StreamId(u32::try_from(key).expect("descriptors are fewer than 2^31"))
    }

    /// As if the peer were on another host.
    #[cfg(test)]
    pub(super) fn take_for_remote(&mut self, stream: StreamId) {
        self.streams[stream.0 as usize].is_zero_copy = true;
    }

    /// Puts an op into the kernel's queue; gives it back where there is no room.
    fn issue(&mut self, waiting: Waiting<D, J>) -> Result<(), Waiting<D, J>> {
        if self.ops.len() >= RING_OPS_MAX || !self.has_room() {
            return Err(waiting);
        }
        let Waiting { tag, op, pushed } = waiting;
        let key = self.ops.insert(InFlight {
            tag,
            op,
            pushed,
            lending: None,
            is_nudged: false,
        });
        match self.entry_of(key) {
            Ok(entry) => self.submit_entry(&entry),
            Err(errno) => self.end(key, Err(errno), pushed),
        }
        Ok(())
    }

    /// The arena as a fixed buffer, for an op that can use one. It is registered for the first of
    /// them: that pins all of it, 3 ms for 8 MiB, of the 5.6 ms of CPU that a whole push of three
    /// small files takes otherwise, and most pushes have no such op.
    fn registered_for(&mut self, key: usize) -> Option<Region> {
        let can_use = match &self.ops[key].op {
            Op::Send { stream, .. } => {
                let stream = self.streams.get(stream.0 as usize);
                stream.is_some_and(|stream| stream.is_zero_copy)
            }
            Op::Read { .. } | Op::Write { .. } => true,
            Op::RecvHead { .. } | Op::Recv { .. } | Op::Job(_) => false,
        };
        let arena = self.arena.filter(|_| can_use)?;
        if self.setup.arena == Registration::NotAsked {
            self.setup.arena = register(&self.ring, arena);
        }
        (self.setup.arena == Registration::Registered).then_some(arena)
    }

    /// The entry for the op in slot `key`. Its addresses stay good until the slot is emptied.
    fn entry_of(&mut self, key: usize) -> Result<squeue::Entry, Errno> {
        let slot = slot_of(key, &self.generations);
        let registered = self.registered_for(key);
        let InFlight { op, lending, .. } = &mut self.ops[key];
        let entry = match op {
            Op::RecvHead { stream, got, .. } => {
                let end = &usable(&self.streams, *stream)?.input;
                let at = *got;
                let room = FRAME_HEAD_BYTES - at;
                // In bounds, or the line above would have panicked.
                let start = self.heads[key].get().cast::<u8>().wrapping_add(at);
                entry::recv(end.as_fd().as_raw_fd(), end.is_socket, start, room)
            }
            Op::Recv { stream, buf, range } => {
                let end = &usable(&self.streams, *stream)?.input;
                let into = &mut buf[range.clone()];
                entry::recv(
                    end.as_fd().as_raw_fd(),
                    end.is_socket,
                    into.as_mut_ptr(),
                    into.len(),
                )
            }
            Op::Send { stream, buf, range } => {
                let id = *stream;
                let stream = usable(&self.streams, id)?;
                let end = stream.output();
                if stream.is_zero_copy
                    && range.len() >= SEND_ZERO_COPY_BYTES_MIN
                    && entry::is_inside(registered, &buf[range.clone()])
                    && self.lendings.has_room()
                {
                    let known_by = self.lendings.keep(buf.lend(), id, slot);
                    *lending = Some(known_by);
                    self.stats.zero_copy_sends += 1;
                    let from = &buf[range.clone()];
                    let entry = zero_copy::entry(Fd(end.as_fd().as_raw_fd()), from);
                    return Ok(entry.user_data(About::ZeroCopy(known_by).pack()));
                }
                entry::send(end.as_fd().as_raw_fd(), end.is_socket, &buf[range.clone()])
            }
            Op::Read {
                fd,
                buf,
                range,
                offset,
            } => entry::read(&**fd, &mut buf[range.clone()], *offset, registered),
            Op::Write {
                fd,
                buf,
                range,
                offset,
            } => entry::write(&**fd, &buf[range.clone()], *offset, registered),
            Op::Job(_) => return Err(Errno::INVAL),
        };
        Ok(entry.user_data(About::Op(slot).pack()))
    }

    /// Room for one more entry in the kernel's queue, made by submitting where there is none.
    fn has_room(&mut self) -> bool {
        if self.ring.submission().is_full() {
            // Its error comes again where it can be returned.
            let _ = self.enter_without_wait();
        }
        !self.ring.submission().is_full()
    }

    /// The caller saw that there is room.
    fn submit_entry(&mut self, entry: &squeue::Entry) {
        // SAFETY: the addresses in `entry` lie (1) in a block of an arena, which is never
        // unmapped and whose only handle, the `Buf`, rests in `ops` until the completion (where
        // it is read for longer, its loan in `lendings` keeps it from being written till then);
        // (2) in `heads` or `bell_word`, heap memory that stays where it is and lives as long
        // as the ring; `drop` sees to both when the ring goes first. The descriptors are held
        // by the op's `Arc` or by `streams`, which keeps them while anything is in flight; the
        // kernel takes its own reference when it is submitted.
        let pushed = unsafe { self.ring.submission().push(entry) };
        debug_assert!(pushed.is_ok(), "the caller saw that there is room");
        self.unsubmitted_count += 1;
        self.stats.sqes += 1;
    }

    /// Hands the kernel what had to wait: our own entries first, then ops in their order.
    fn refill(&mut self) {
        if !self.is_bell_armed && self.has_room() {
            let word = self.bell_word.get().cast::<u8>();
            let entry = opcode::Read::new(Fd(self.off_ring.bell().fd().as_raw_fd()), word, 8)
                .build()
                .user_data(About::Bell.pack());
            self.submit_entry(&entry);
            self.is_bell_armed = true;
        }
        while !self.cancels_to_submit.is_empty() && self.has_room() {
            if let Some(user_data) = self.cancels_to_submit.pop_front() {
                let cancel = entry::cancel(CancelBuilder::user_data(user_data));
                self.submit_entry(&cancel.user_data(About::Cancel.pack()));
            }
        }
        while let Some(waiting) = self.backlog.pop_front() {
            if let Err(waiting) = self.issue(waiting) {
                self.backlog.push_front(waiting);
                break;
            }
        }
    }

    /// Submits, and lets the kernel do the completions it had put off; never sleeps.
    fn enter_without_wait(&mut self) -> Result<(), Errno> {
        let to_submit = u32::try_from(self.ring.submission().len()).expect("at most the queue");
        self.stats.enters += 1;
        // Always with GETEVENTS: what the kernel left over from its last batch of 20 is not
        // announced by the flag that `Submitter::submit` looks at.
        // SAFETY: no argument is passed, and what is submitted was pushed by `submit_entry`.
        let entered = unsafe {
            self.ring.submitter().enter::<libc::sigset_t>(
                to_submit,
                0,
                EnterFlags::GETEVENTS.bits(),
                None,
            )
        };
        self.entered(entered)
    }

    /// Submits and sleeps until a completion, `until`, or a signal.
    fn enter_and_wait(&mut self, until: Option<Moment>) -> Result<(), Errno> {
        self.stats.enters += 1;
        let entered = match until {
            Some(until) => {
                let timespec = Timespec::from(until.since(self.now()));
                let args = SubmitArgs::new().timespec(&timespec);
                self.ring.submitter().submit_with_args(1, &args)
            }
            None => self.ring.submitter().submit_and_wait(1),
        };
        self.entered(entered)
    }

    fn entered(&mut self, entered: io::Result<usize>) -> Result<(), Errno> {
        self.unsubmitted_count = self.ring.submission().len();
        match entered.map_err(|error| errno_of(&error)) {
            Ok(_) => Ok(()),
            // Signal and deadline end a sleep rightly. BUSY: completions must be reaped first;
            // AGAIN: no memory for a request now. The entries stay in the queue for both.
            Err(Errno::INTR | Errno::TIME | Errno::BUSY | Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Copies out every completion that is there; their number.
    fn collect(&mut self) -> usize {
        let mut count = 0;
        loop {
            let mut room = [const { std::mem::MaybeUninit::<cqueue::Entry>::uninit() }; 64];
            let batch = self.ring.completion().fill(&mut room);
            if batch.is_empty() {
                return count;
            }
            count += batch.len();
            let now = monotonic_now();
            for cqe in batch {
                self.hear(cqe.user_data(), cqe.result(), cqe.flags(), now);
            }
        }
    }

    fn hear(&mut self, user_data: u64, result: i32, flags: u32, now: Moment) {
        let mut about = About::unpack(user_data);
        if let Some(About::ZeroCopy(slot)) = about {
            match self.lendings.hear(slot, result, cqueue::more(flags)) {
                Word::Result(op) => about = Some(About::Op(op)),
                Word::LetGo { stream, was_copied } => {
                    self.stats.zero_copy_copied += u64::from(was_copied);
                    return self.keep_to_plain_sends(stream, was_copied);
                }
                Word::Stale => {}
            }
        }
        match about {
            Some(About::Bell) => self.is_bell_armed = false,
            Some(About::Cancel) => {}
            Some(About::Op(slot)) if self.is_current(slot) => {
                let result = usize::try_from(result)
                    .map_err(|_| Errno::from_raw_os_error(result.saturating_neg()));
                let key = slot.key as usize;
                let is_refused =
                    self.ops[key].lending.is_some() && result.is_err_and(zero_copy::is_refusal);
                if is_refused {
                    let stream = self.ops[key].op.stream();
                    self.keep_to_plain_sends(stream.expect("it is a send"), true);
                }
                if is_refused || result == Err(Errno::CANCELED) && self.was_nudged(key) {
                    self.issue_again(key);
                } else {
                    self.end(key, result, now);
                }
            }
            Some(About::Op(_) | About::ZeroCopy(_)) | None => {
                self.stats.stale_completions += 1;
                debug_assert!(false, "stale completion {user_data:#x}");
            }
        }
    }

    fn is_current(&self, slot: Slot) -> bool {
        let key = slot.key as usize;
        self.ops.contains(key) && self.generations[key] == slot.generation
    }

    /// Empties a slot whose op the kernel does not have any more.
    fn end(&mut self, key: usize, result: Result<usize, Errno>, now: Moment) {
        let InFlight {
            tag,
            mut op,
            pushed,
            lending,
            ..
        } = self.ops.remove(key);
        self.generations[key] = Slot::generation_after(self.generations[key]);
        if let Op::RecvHead { head, got, .. } = &mut op
            && let Ok(received) = result
        {
            // SAFETY: the kernel wrote the last time before it posted the completion, and the
            // place is used by the op of this slot alone; no other reference to it exists.
            let place = unsafe { &*self.heads[key].get() };
            let span = *got..*got + received;
            head[span.clone()].copy_from_slice(&place[span]);
        }
        let took = now.since(pushed);
        if lending.is_none() {
            self.off_ring.record(&op, Lane::Ring, result, took);
        } else if result.is_ok() {
            self.off_ring.record_zero_copy(took);
        }
        self.leave_stream(&op);
        self.ready.push_back(Completion { tag, op, result });
    }

    /// Whether an op was cancelled for nothing but its progress.
    fn was_nudged(&self, key: usize) -> bool {
        let InFlight { op, is_nudged, .. } = &self.ops[key];
        *is_nudged
            && op
                .stream()
                .is_some_and(|id| usable(&self.streams, id).is_ok())
    }

    /// Puts an op that moved nothing back in line, the first.
    fn issue_again(&mut self, key: usize) {
        let InFlight {
            tag, op, pushed, ..
        } = self.ops.remove(key);
        self.generations[key] = Slot::generation_after(self.generations[key]);
        self.backlog.push_front(Waiting { tag, op, pushed });
    }

    /// The stream may be another by now, which then sends plainly for nothing.
    fn keep_to_plain_sends(&mut self, stream: StreamId, has_reason: bool) {
        if has_reason && let Some(stream) = self.streams.get_mut(stream.0 as usize) {
            stream.is_zero_copy = false;
        }
    }

    fn leave_stream(&mut self, op: &Op<D, J>) {
        let Some(id) = op.stream() else { return };
        let key = id.0 as usize;
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        stream.in_flight_count = stream.in_flight_count.saturating_sub(1);
        if stream.is_released && stream.in_flight_count == 0 {
            self.streams.remove(key);
        }
    }
}

impl<D, J> Ring<D, J> for Uring<D, J>
where
    D: Disk<Fd: AsFd + AsRawFd>,
    J: Job<D>,
{
    fn push(&mut self, tag: u64, op: Op<D, J>) {
        match self.off_ring.lane_of(&op) {
            Lane::Pool => self.off_ring.offload(tag, op),
            Lane::Inline => {
                let completion = self.off_ring.run_here(tag, op);
                self.ready.push_back(completion);
            }
            Lane::Ring => {
                let stream = op.stream().map(|id| id.0 as usize);
                if let Some(stream) = stream.and_then(|key| self.streams.get_mut(key)) {
                    stream.in_flight_count += 1;
                }
                let pushed = monotonic_now();
                let waiting = Waiting { tag, op, pushed };
                let left = if self.backlog.is_empty() {
                    self.issue(waiting).err()
                } else {
                    Some(waiting)
                };
                self.backlog.extend(left);
            }
        }
        if self.unsubmitted_count >= RING_SUBMIT_EARLY {
            // Its error comes again where it can be returned.
            let _ = self.enter_without_wait();
        }
    }

    /// Also ends when a signal arrives: the caller may have a flag to look at.
    fn submit_and_wait(&mut self, until: Option<Moment>) -> Result<(), Errno> {
        let has_more = self.collect() >= RING_REAP_FULL;
        self.refill();
        // Without the bell nobody could end the sleep.
        let may_sleep = self.is_bell_armed
            && self.ready.is_empty()
            && until.is_none_or(|until| until > self.now());
        // News that comes from here on ends the sleep; news from before prevents it. It is
        // taken only below, so that the caller looks into its mailbox after each ring.
        if may_sleep && self.off_ring.bell().lie_down() {
            let slept = self.enter_and_wait(until);
            self.off_ring.bell().get_up();
            slept?;
        } else if has_more || self.unsubmitted_count > 0 || self.ring.submission().taskrun() {
            self.enter_without_wait()?;
        }
        while self.collect() >= RING_REAP_FULL {
            self.enter_without_wait()?;
        }
        self.off_ring.empty_inbox(&mut self.ready);
        Ok(())
    }

    fn reap(&mut self) -> Option<Completion<D, J>> {
        self.ready.pop_front()
    }

    fn now(&self) -> Moment {
        monotonic_now()
    }

    /// Cancelling gives back what MSG_WAITALL had moved so far (since 6.1, commit 7e6b638ed501).
    fn nudge(&mut self, stream: StreamId) {
        for (key, in_flight) in &mut self.ops {
            let is_payload = matches!(in_flight.op, Op::Recv { .. } | Op::Send { .. });
            if is_payload && in_flight.op.stream() == Some(stream) {
                in_flight.is_nudged = true;
                let by_lending = in_flight.lending.map(About::ZeroCopy);
                let about = by_lending.unwrap_or(About::Op(slot_of(key, &self.generations)));
                self.cancels_to_submit.push_back(about.pack());
            }
        }
    }

    fn shut(&mut self, stream: StreamId) {
        let id = stream;
        let Some(stream) = self.streams.get_mut(id.0 as usize) else {
            return;
        };
        stream.is_shut = true;
        let mut needs_cancel = false;
        for end in [Some(&stream.input), stream.output.as_ref()]
            .into_iter()
            .flatten()
        {
            if end.is_socket {
                // ENOTCONN: the peer was faster.
                let _ = rustix::net::shutdown(end, Shutdown::Both);
            } else {
                needs_cancel = true;
            }
        }
        if needs_cancel {
            for (key, in_flight) in &self.ops {
                if in_flight.op.stream() == Some(id) {
                    self.cancels_to_submit
                        .push_back(About::Op(slot_of(key, &self.generations)).pack());
                }
            }
        }
        // What waits for room must not wait for it any longer: room may come only from here.
        for _ in 0..self.backlog.len() {
            if let Some(waiting) = self.backlog.pop_front() {
                let id = waiting.op.stream();
                match id.map(|id| usable(&self.streams, id).map(drop)) {
                    Some(Err(errno)) => {
                        let Waiting { tag, op, .. } = waiting;
                        self.leave_stream(&op);
                        let result = Err(errno);
                        self.ready.push_back(Completion { tag, op, result });
                    }
                    Some(Ok(())) | None => self.backlog.push_back(waiting),
                }
            }
        }
    }

    /// Where something is in flight after all, the stream is closed when that has ended.
    fn release(&mut self, stream: StreamId) {
        let key = stream.0 as usize;
        if let Some(stream) = self.streams.get_mut(key) {
            stream.is_released = true;
            if stream.in_flight_count == 0 {
                self.streams.remove(key);
            }
        }
    }
}

impl<D: Disk, J: Job<D>> Drop for Uring<D, J> {
    /// Gets back what the kernel has; a ring is closed asynchronously, and the kernel would go
    /// on writing into blocks that their pool has given to another.
    fn drop(&mut self) {
        let cancel = entry::cancel(CancelBuilder::any()).user_data(About::Cancel.pack());
        let deadline = monotonic_now().plus(DROP_WAIT);
        loop {
            let mut left_count = self.ops.len() + usize::from(self.is_bell_armed);
            for cqe in self.ring.completion() {
                let mut about = About::unpack(cqe.user_data());
                if let Some(About::ZeroCopy(slot)) = about {
                    let more = cqueue::more(cqe.flags());
                    if let Word::Result(op) = self.lendings.hear(slot, cqe.result(), more) {
                        about = Some(About::Op(op));
                    }
                }
                match about {
                    Some(About::Op(slot)) => {
                        let key = slot.key as usize;
                        if self.ops.contains(key) && self.generations[key] == slot.generation {
                            drop(self.ops.remove(key));
                            left_count -= 1;
                        }
                    }
                    Some(About::Bell) => {
                        self.is_bell_armed = false;
                        left_count -= 1;
                    }
                    Some(About::Cancel | About::ZeroCopy(_)) | None => {}
                }
            }
            if left_count == 0 {
                // A peer may take its time with what it was sent; the process need not wait.
                std::mem::forget(std::mem::take(&mut self.lendings));
                return;
            }
            if monotonic_now() >= deadline {
                break;
            }
            // SAFETY: a cancellation carries no address. Where the queue is full it is
            // submitted below and the next round's finds room.
            let _ = unsafe { self.ring.submission().push(&cancel) };
            let timespec = Timespec::from(Duration::from_millis(20));
            let args = SubmitArgs::new().timespec(&timespec);
            let _ = self.ring.submitter().submit_with_args(2, &args);
        }
        // A call that hangs in a file system: what it may still touch is never used again.
        std::mem::forget(std::mem::take(&mut self.ops));
        std::mem::forget(std::mem::take(&mut self.lendings));
        std::mem::forget(std::mem::take(&mut self.heads));
        std::mem::forget(std::mem::take(&mut self.bell_word));
    }
}

fn slot_of(key: usize, generations: &[u32]) -> Slot {
    Slot {
        key: u32::try_from(key).expect("below RING_OPS_MAX"),
        generation: generations[key],
    }
}

/// The stream, unless it is gone or shut.
fn usable(streams: &Slab<Stream>, id: StreamId) -> Result<&Stream, Errno> {
    let stream = streams.get(id.0 as usize).ok_or(Errno::BADF)?;
    if stream.is_shut {
        return Err(Errno::CANCELED);
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use std::io::Write as _;
    use std::sync::Arc;

    use super::*;
    use crate::engine::arena;
    use crate::engine::disk::PosixDisk;
    use crate::engine::lanes::FileLanes;
    use crate::engine::testing::{TempDir, TestRing, a_ring, a_ring_with, filled, next, recv_head};
    use crate::limits::BLOCK_BYTES;
    use crate::ops::BlockPool;

    const BLOCKS: usize = 4;

    fn ring() -> (TestRing, BlockPool) {
        a_ring(BLOCKS)
    }

    #[test]
    fn shutting_a_socket_ends_what_is_in_flight_on_it() {
        let (mut ring, _) = ring();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let stream = ring.add_stream(ours.into());
        ring.push(1, recv_head(stream, 0));
        ring.submit_and_wait(Some(ring.now())).unwrap();
        ring.shut(stream);
        assert_eq!(next(&mut ring).result, Ok(0));
        ring.release(stream);
        assert!(ring.streams.is_empty());
    }

    #[test]
    fn memory_outside_the_registered_arena_is_used_plainly() {
        let (temp, disk) = (TempDir::new("uring-other"), PosixDisk);
        let dir = temp.open();
        let lanes = LaneTable::all(FileLanes::new(Lane::Ring, Lane::Ring));
        let (mut ring, _) = a_ring_with(BLOCKS, lanes);
        let (others, _) = arena::map(BLOCK_BYTES).unwrap();
        let fd = Arc::new(disk.create_file(&dir, b"f", 0o600).unwrap());
        let buf = filled(&others, 3);
        ring.push(
            1,
            Op::Write {
                fd,
                buf,
                range: 0..7,
                offset: 0,
            },
        );
        assert_eq!(next(&mut ring).result, Ok(7));
        assert_eq!(disk.stat_at(&dir, b"f").unwrap().size, 7);
    }

    #[test]
    fn what_exceeds_the_table_waits_its_turn() {
        let (mut ring, _) = ring();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let stream = ring.add_stream(ours.into());
        let count = RING_OPS_MAX + 100;
        for tag in 0..count as u64 {
            ring.push(tag, recv_head(stream, 0));
        }
        assert_eq!(ring.ops.len(), RING_OPS_MAX);
        assert_eq!(ring.backlog.len(), 100);
        let writer = std::thread::spawn(move || {
            theirs
                .write_all(&vec![1; count * FRAME_HEAD_BYTES])
                .unwrap();
        });
        let mut tags: Vec<_> = (0..count).map(|_| next(&mut ring).tag).collect();
        tags.sort_unstable();
        tags.dedup();
        assert_eq!(tags.len(), count);
        assert_eq!(ring.ops.capacity(), ring.generations.len());
        writer.join().unwrap();
    }

    #[test]
    fn shutting_a_stream_ends_what_waits_for_room_too() {
        let (mut ring, _) = ring();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let stream = ring.add_stream(ours.into());
        let count = RING_OPS_MAX + 10;
        for tag in 0..count as u64 {
            ring.push(tag, recv_head(stream, 0));
        }
        ring.shut(stream);
        ring.release(stream);
        for _ in 0..count {
            next(&mut ring);
        }
        assert!(ring.streams.is_empty());
    }

    #[test]
    fn many_pushes_are_submitted_before_the_turn_ends() {
        let (mut ring, _) = ring();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let stream = ring.add_stream(ours.into());
        for tag in 0..RING_SUBMIT_EARLY as u64 {
            assert_eq!(ring.stats().enters, 0);
            ring.push(tag, recv_head(stream, 0));
        }
        assert_eq!(ring.stats().enters, 1);
        assert_eq!(ring.unsubmitted_count, 0);
    }

    #[test]
    fn a_dropped_ring_gives_its_blocks_back_once_the_kernel_has_let_go() {
        let (mut ring, blocks) = ring();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let stream = ring.add_stream(ours.into());
        for tag in 0..3 {
            let buf = blocks.take().unwrap();
            ring.push(
                tag,
                Op::Recv {
                    stream,
                    buf,
                    range: 0..10,
                },
            );
        }
        ring.submit_and_wait(Some(ring.now())).unwrap();
        drop(ring);
        assert_eq!(blocks.free_count(), BLOCKS);
        assert!(theirs.write_all(b"0123456789").is_err());
    }

    #[test]
    #[cfg_attr(debug_assertions, should_panic(expected = "stale completion"))]
    fn a_completion_for_an_earlier_op_of_a_slot_is_noticed() {
        let (mut ring, _) = ring();
        ring.hear(
            About::Op(Slot {
                key: 0,
                generation: 5,
            })
            .pack(),
            0,
            0,
            Moment(0),
        );
        assert_eq!(
            ring.stats().stale_completions,
            1,
            "counted where it does not panic"
        );
    }
}
