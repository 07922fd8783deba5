//! `OffRing`, what a ring doesn't ask of its queue: file reads and writes as plain calls in the loop, and,
//! with the jobs, on the pool; and how long everything took. Each engine has one, and differs from
//! the other in its streams, and in where files go that belong on the ring's own lane.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use super::bell::{Bell, Waker};
use super::clock::monotonic_now;
use super::figures::{Figures, Timed};
use super::lanes::{Lane, LaneTable, Lanes};
use super::pool::{Inbox, Pool, Times, run_file_op};
use crate::ops::op::{Completion, Job, Op};
use crate::ops::{Disk, Errno};

pub(super) struct OffRing<D: Disk, J> {
    disk: D,
    pool: Pool<D, J>,
    inbox: Arc<Inbox<D, J>>,
    bell: Arc<Bell>,
    lanes: Lanes<D::Fd>,
    /// Empty between two looks into the inbox.
    arrived: VecDeque<(Completion<D, J>, Times)>,
    figures: Figures,
    /// File ops as plain calls in the loop.
    inline_count: u64,
    /// Ops handed to the pool, jobs among them.
    pool_count: u64,
    /// Jobs among them that are under way, or ended in this turn: what one is followed by is beside it.
    jobs_count: usize,
    /// Of these, those that ended.
    jobs_ended_count: usize,
}

impl<D: Disk<Fd: AsFd>, J: Job<D>> OffRing<D, J> {
    pub(super) fn new(disk: D, pool: Pool<D, J>, lanes: LaneTable) -> Result<Self, Errno> {
        let bell = Arc::new(Bell::new()?);
        Ok(Self {
            disk,
            pool,
            inbox: Arc::new(Inbox::new(Arc::clone(&bell))),
            bell,
            lanes: Lanes::new(lanes),
            arrived: VecDeque::new(),
            figures: Figures::default(),
            inline_count: 0,
            pool_count: 0,
            jobs_count: 0,
            jobs_ended_count: 0,
        })
    }

    pub(super) fn bell(&self) -> &Bell {
        &self.bell
    }

    pub(super) fn waker(&self) -> Waker {
        Waker {
            bell: Arc::clone(&self.bell),
        }
    }

    pub(super) fn figures(&self) -> &Figures {
        &self.figures
    }

    pub(super) fn inline_count(&self) -> u64 {
        self.inline_count
    }

    pub(super) fn pool_count(&self) -> u64 {
        self.pool_count
    }

    /// The way an op goes; streams are the ring's.
    pub(super) fn lane_of(&mut self, op: &Op<D, J>) -> Lane {
        match op {
            Op::Job(_) => Lane::Pool,
            Op::Read { fd, .. } => self.lanes.of(fd).read,
            Op::Write { fd, .. } if self.jobs_count > 0 => self.lanes.of(fd).write_beside_job,
            Op::Write { fd, .. } => self.lanes.of(fd).write,
            Op::RecvHead { .. } | Op::Recv { .. } | Op::Send { .. } => Lane::Ring,
        }
    }

    pub(super) fn run_here(&mut self, tag: u64, mut op: Op<D, J>) -> Completion<D, J> {
        self.inline_count += 1;
        let began = monotonic_now();
        let result = run_file_op(&self.disk, &mut op);
        let took = monotonic_now().since(began);
        self.record(&op, Lane::Inline, result, took);
        Completion { tag, op, result }
    }

    pub(super) fn offload(&mut self, tag: u64, op: Op<D, J>) {
        self.pool_count += 1;
        self.jobs_count += usize::from(matches!(op, Op::Job(_)));
        self.pool.push(tag, op, &self.inbox);
    }

    /// Takes in what the pool has ended, where it rang.
    pub(super) fn empty_inbox(&mut self, ready: &mut VecDeque<Completion<D, J>>) {
        self.jobs_count -= std::mem::take(&mut self.jobs_ended_count);
        if !self.bell.take_rung() {
            return;
        }
        let mut arrived = std::mem::take(&mut self.arrived);
        self.inbox.take_into(&mut arrived);
        let now = monotonic_now();
        for (completion, times) in arrived.drain(..) {
            let took = now.since(times.pushed);
            self.jobs_ended_count += usize::from(matches!(completion.op, Op::Job(_)));
            self.record(&completion.op, Lane::Pool, completion.result, took);
            if let Some(each) = times.worked.checked_div(times.entries_made) {
                self.figures
                    .record_each(Timed::Commit, each, times.entries_made);
            }
            ready.push_back(completion);
        }
        self.arrived = arrived;
    }

    pub(super) fn record(
        &mut self,
        op: &Op<D, J>,
        lane: Lane,
        result: Result<usize, Errno>,
        took: Duration,
    ) {
        if result.is_err() {
            return;
        }
        let timed = match op {
            Op::RecvHead { .. } => return,
            Op::Recv { .. } => Timed::Receive,
            Op::Send { .. } => Timed::Send,
            Op::Read { .. } => Timed::Read(lane),
            Op::Write { .. } => Timed::Write(lane),
            Op::Job(job) => Timed::Job(job.kind()),
        };
        self.figures.record(timed, took);
    }

    /// A send for which the kernel read our memory itself has ended.
    pub(super) fn record_zero_copy(&mut self, took: Duration) {
        self.figures.record(Timed::SendZeroCopy, took);
    }
}
