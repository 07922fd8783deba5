//! `Portable`, the seam over epoll and plain calls, for hosts that refuse the ring: containers under
//! Docker's own seccomp profile, `kernel.io_uring_disabled`, kernels before 6.1.
//!
//! **Streams.** A descriptor is watched, edge-triggered, from the moment it is added, so a turn costs one
//! epoll_wait and no call ever changes what is watched. Its operations are tried in their order for as
//! long as it is taken for ready; at EAGAIN the first of them waits for the next edge. A short receive isn't
//! taken for the last one, though that would spare a call: the end of the stream may stand right behind
//! it, and that edge has been.
//!
//! **Files and jobs** are `off_ring`'s, and the pool takes what would go by the ring.
//!
//! The kernel never has a buffer of ours between two calls, so that there is nothing to wait for when a
//! stream is shut, or the engine dropped.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{Timespec, epoll};
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use slab::Slab;

use super::bell::Waker;
use super::clock::monotonic_now;
use super::end::{End, Mode};
use super::figures::Figures;
use super::lanes::{Lane, LaneTable};
use super::off_ring::OffRing;
use super::pool::Pool;
use crate::model::time::Moment;
use crate::ops::op::{Completion, Job, Op, Ring, StreamId};
use crate::ops::{Disk, Errno};

/// What the bell's readiness is known by; no stream's key comes near.
const BELL: u64 = u64::MAX;

/// Descriptors that one epoll_wait tells of; the others are told by the next.
const EVENTS_MAX: usize = 256;

pub struct Portable<D: Disk, J: Job<D>> {
    epoll: OwnedFd,
    off_ring: OffRing<D, J>,
    streams: Slab<Stream<D, J>>,
    /// Where something waits and may move.
    to_try: VecDeque<(StreamId, Way)>,
    ready: VecDeque<Completion<D, J>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    In,
    Out,
}

/// Both directions of one byte stream.
struct Stream<D: Disk, J> {
    input: End,
    /// Where it is not the input's descriptor: a pair of pipes.
    output: Option<End>,
    receives: Line<D, J>,
    sends: Line<D, J>,
    is_shut: bool,
}

/// Operations in one direction, in their order.
struct Line<D: Disk, J> {
    waiting: VecDeque<Waiting<D, J>>,
    /// The last call didn't say EAGAIN, or there was an edge since.
    may_move: bool,
}

struct Waiting<D: Disk, J> {
    tag: u64,
    op: Op<D, J>,
    pushed: Moment,
}

impl<D: Disk, J> Default for Line<D, J> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            may_move: true,
        }
    }
}

impl<D: Disk, J> Stream<D, J> {
    fn line(&mut self, way: Way) -> &mut Line<D, J> {
        match way {
            Way::In => &mut self.receives,
            Way::Out => &mut self.sends,
        }
    }

    fn output(&self) -> &End {
        self.output.as_ref().unwrap_or(&self.input)
    }

    /// Moves what can be moved now; EAGAIN: nothing.
    fn try_now(&self, op: &mut Op<D, J>) -> Result<usize, Errno> {
        match op {
            Op::RecvHead { head, got, .. } => receive(&self.input, &mut head[*got..]),
            Op::Recv { buf, range, .. } => receive(&self.input, &mut buf[range.clone()]),
            Op::Send { buf, range, .. } => send(self.output(), &buf[range.clone()]),
            Op::Read { .. } | Op::Write { .. } | Op::Job(_) => Err(Errno::INVAL),
        }
    }

    /// Takes out all that waits.
    fn drain(&mut self) -> impl Iterator<Item = Waiting<D, J>> {
        let Self {
            receives, sends, ..
        } = self;
        receives.waiting.drain(..).chain(sends.waiting.drain(..))
    }
}

fn receive(end: &End, into: &mut [u8]) -> Result<usize, Errno> {
    if end.is_socket {
        let (bytes, _) = rustix::net::recv(end, into, RecvFlags::DONTWAIT)?;
        Ok(bytes)
    } else {
        rustix::io::read(end, into)
    }
}

fn send(end: &End, from: &[u8]) -> Result<usize, Errno> {
    if end.is_socket {
        rustix::net::send(end, from, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
    } else {
        rustix::io::write(end, from)
    }
}

impl<D, J> Portable<D, J>
where
    D: Disk<Fd: AsFd>,
    J: Job<D>,
{
    pub fn new(disk: D, pool: Pool<D, J>, lanes: LaneTable) -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let off_ring = OffRing::new(disk, pool, lanes)?;
        let bell = epoll::EventData::new_u64(BELL);
        epoll::add(&epoll, off_ring.bell().fd(), bell, epoll::EventFlags::IN)?;
        Ok(Self {
            epoll,
            off_ring,
            streams: Slab::new(),
            to_try: VecDeque::new(),
            ready: VecDeque::new(),
        })
    }

    /// How long its operations took so far.
    pub fn figures(&self) -> &Figures {
        self.off_ring.figures()
    }

    /// Wakes this engine's thread from any other.
    pub fn waker(&self) -> Waker {
        self.off_ring.waker()
    }

    /// Takes over a connected stream socket, or one descriptor that is read and written.
    pub fn add_stream(&mut self, fd: OwnedFd) -> StreamId {
        self.add(fd, None)
    }

    /// Takes over a stream of two descriptors: an inherited stdin and stdout.
    pub fn add_stream_pair(&mut self, input: OwnedFd, output: OwnedFd) -> StreamId {
        self.add(input, Some(output))
    }

    fn add(&mut self, input: OwnedFd, output: Option<OwnedFd>) -> StreamId {
        use epoll::EventFlags;
        let entry = self.streams.vacant_entry();
        let stream = Stream {
            input: End::new(input, Mode::NonBlocking),
            output: output.map(|output| End::new(output, Mode::NonBlocking)),
            receives: Line::default(),
            sends: Line::default(),
            is_shut: false,
        };
        let (inward, outward) = (EventFlags::IN | EventFlags::RDHUP, EventFlags::OUT);
        let data = epoll::EventData::new_u64(entry.key() as u64);
        let ends = match &stream.output {
            None => [Some((&stream.input, inward | outward)), None],
            Some(output) => [Some((&stream.input, inward)), Some((output, outward))],
        };
        let mut is_heard_of = true;
        for (end, flags) in ends.into_iter().flatten() {
            let watched = epoll::add(&self.epoll, end, data, flags | EventFlags::ET);
            // What can't be watched (EPERM), such as a file, is always ready. Where there is no memory to watch
            // one more, the stream would stand still for ever.
            is_heard_of &= matches!(watched, Ok(()) | Err(Errno::PERM));
        }
        let id = StreamId(u32::try_from(entry.key()).expect("descriptors are fewer than 2^31"));
        entry.insert(stream).is_shut = !is_heard_of;
        id
    }

    /// Tries all that may move.
    fn try_all(&mut self) {
        while let Some((id, way)) = self.to_try.pop_front() {
            self.try_line(id, way);
        }
    }

    fn try_line(&mut self, id: StreamId, way: Way) {
        // It may have gone since.
        let Some(stream) = self.streams.get_mut(id.0 as usize) else {
            return;
        };
        while stream.line(way).may_move
            && let Some(mut waiting) = stream.line(way).waiting.pop_front()
        {
            match stream.try_now(&mut waiting.op) {
                Err(Errno::AGAIN) => {
                    let line = stream.line(way);
                    line.may_move = false;
                    line.waiting.push_front(waiting);
                }
                result => {
                    let Waiting { tag, op, pushed } = waiting;
                    let took = monotonic_now().since(pushed);
                    self.off_ring.record(&op, Lane::Ring, result, took);
                    self.ready.push_back(Completion { tag, op, result });
                }
            }
        }
    }

    /// Sleeps until a descriptor is ready, the bell rings, a signal, or `timeout`; hears of what is ready.
    fn wait(&mut self, timeout: Option<&Timespec>) -> Result<(), Errno> {
        let mut room = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS_MAX];
        let events = match epoll::wait(&self.epoll, &mut room, timeout) {
            Ok((events, _)) => events,
            // The caller may have a flag to look at.
            Err(Errno::INTR) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        for event in events {
            let (key, flags) = (event.data.u64(), event.flags);
            if key == BELL {
                let mut word = [0; 8];
                // It is readable, and nobody else reads it.
                rustix::io::read(self.off_ring.bell().fd(), &mut word)?;
                continue;
            }
            let id = StreamId(u32::try_from(key).expect("a key of ours"));
            let is_broken = flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR);
            let inward = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
            for (way, of_way) in [(Way::In, inward), (Way::Out, epoll::EventFlags::OUT)] {
                if (is_broken || flags.intersects(of_way))
                    && let Some(stream) = self.streams.get_mut(id.0 as usize)
                {
                    stream.line(way).may_move = true;
                    self.to_try.push_back((id, way));
                }
            }
        }
        Ok(())
    }
}

impl<D, J> Ring<D, J> for Portable<D, J>
where
    D: Disk<Fd: AsFd>,
    J: Job<D>,
{
    fn push(&mut self, tag: u64, op: Op<D, J>) {
        let Some(id) = op.stream() else {
            match self.off_ring.lane_of(&op) {
                Lane::Inline => {
                    let completion = self.off_ring.run_here(tag, op);
                    self.ready.push_back(completion);
                }
                Lane::Ring | Lane::Pool => self.off_ring.offload(tag, op),
            }
            return;
        };
        let usable = match self.streams.get_mut(id.0 as usize) {
            None => Err(Errno::BADF),
            Some(stream) if stream.is_shut => Err(Errno::CANCELED),
            Some(stream) => Ok(stream),
        };
        match usable {
            Ok(stream) => {
                let is_send = matches!(op, Op::Send { .. });
                let way = if is_send { Way::Out } else { Way::In };
                let pushed = monotonic_now();
                let line = stream.line(way);
                line.waiting.push_back(Waiting { tag, op, pushed });
                if line.may_move {
                    self.to_try.push_back((id, way));
                }
            }
            Err(errno) => self.ready.push_back(Completion {
                tag,
                op,
                result: Err(errno),
            }),
        }
    }

    /// Also ends when a signal arrives: the caller may have a flag to look at.
    fn submit_and_wait(&mut self, until: Option<Moment>) -> Result<(), Errno> {
        self.try_all();
        let now = monotonic_now();
        let may_sleep = self.ready.is_empty() && until.is_none_or(|until| until > now);
        // News that comes from here on ends the sleep; news from before prevents it.
        if may_sleep && self.off_ring.bell().lie_down() {
            let timeout = until.map(|until| timespec(until, now));
            let slept = self.wait(timeout.as_ref());
            self.off_ring.bell().get_up();
            slept?;
        } else {
            self.wait(Some(&Timespec::default()))?;
        }
        self.try_all();
        self.off_ring.empty_inbox(&mut self.ready);
        Ok(())
    }

    fn reap(&mut self) -> Option<Completion<D, J>> {
        self.ready.pop_front()
    }

    fn now(&self) -> Moment {
        monotonic_now()
    }

    /// What has moved is told at once anyway.
    fn nudge(&mut self, _: StreamId) {}

    fn shut(&mut self, stream: StreamId) {
        let Some(stream) = self.streams.get_mut(stream.0 as usize) else {
            return;
        };
        stream.is_shut = true;
        let ends = [Some(&stream.input), stream.output.as_ref()];
        for end in ends.into_iter().flatten().filter(|end| end.is_socket) {
            // ENOTCONN: the peer was faster.
            let _ = rustix::net::shutdown(end, Shutdown::Both);
        }
        self.ready.extend(stream.drain().map(cancelled));
    }

    fn release(&mut self, stream: StreamId) {
        let Some(mut stream) = self.streams.try_remove(stream.0 as usize) else {
            return;
        };
        self.ready.extend(stream.drain().map(cancelled));
        for end in [Some(&stream.input), stream.output.as_ref()]
            .into_iter()
            .flatten()
        {
            // Closing is not enough where others have the same open file description. ENOENT: it was
            // never watched.
            let _ = epoll::delete(&self.epoll, end);
        }
    }
}

fn cancelled<D: Disk, J>(waiting: Waiting<D, J>) -> Completion<D, J> {
    let Waiting { tag, op, .. } = waiting;
    Completion {
        tag,
        op,
        result: Err(Errno::CANCELED),
    }
}

/// How long it is until then.
fn timespec(until: Moment, now: Moment) -> Timespec {
    let left = until.since(now);
    Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    }
}
