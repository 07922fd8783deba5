//! `Rig`: one session on a shard of its own, over a simulated disk and a simulated stream, whose other end is in our hands.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use sy::engine::shard::Shard;
use sy::job::Work;
use sy::limits::{BLOCK_BYTES, IDLE_SECONDS_MAX};
use sy::ops::BlockPool;
use sy::ops::op::StreamId;
use sy::session::Session;
use sy::sim::net::Moved;
use sy::sim::prng::Prng;
use sy::sim::{
    DiskFaults, DiskOptions, NetOptions, RingWeather, SimClock, SimDisk, SimRing, SimWorld,
};

use crate::choices::Choices;

/// Simulated time in which every session has ended that nobody talks to, or has no right to wait any longer: more than
/// six times its patience.
const END_SECONDS_MAX: u64 = 400;

/// In a calm, what was said is heard and answered by then.
const HEARD: Duration = Duration::from_millis(1);

pub struct Rig {
    world: Rc<RefCell<SimWorld>>,
    clock: SimClock,
    pub disk: SimDisk,
    shard: Shard<SimDisk, SimRing<Work<SimDisk>>>,
    blocks: BlockPool,
    peer: StreamId,
    over: Option<Session<SimDisk>>,
    /// The other end says the next thing before anybody has heard the last.
    is_hasty: bool,
    /// What the session said and nobody has looked at.
    pub heard: Vec<u8>,
}

/// How the other end leaves.
#[derive(Clone, Copy)]
pub enum Leave {
    Close,
    EndSending,
    Reset,
    /// It stays, and is silent.
    Stay,
}

thread_local! {
    /// Blocks are leaked, as an arena's are; those of one input serve the next.
    static POOLS: RefCell<HashMap<usize, BlockPool>> = RefCell::default();
}

fn pool(blocks_count: usize) -> BlockPool {
    POOLS.with_borrow_mut(|pools| {
        let made = pools.entry(blocks_count).or_insert_with(|| {
            let block = || &mut *Box::leak(vec![0; BLOCK_BYTES].into_boxed_slice());
            BlockPool::new((0..blocks_count).map(|_| block()).collect())
        });
        made.clone()
    })
}

impl Rig {
    /// A disk, a stream and a shard without a session. Whether operations end late, short and out of order, and how
    /// many blocks there are, is a choice, too.
    pub fn new(choices: &mut Choices<'_>, options: DiskOptions) -> Self {
        let seed = u64::from(choices.byte());
        let is_calm = seed < 128;
        let world = SimWorld::new(seed);
        let clock = world.borrow().clock.clone();
        let disk = SimDisk::new(options, clock.clone(), seed);
        let mut weather = RingWeather::calm();
        let mut net = NetOptions::calm(1 << 20);
        if !is_calm {
            weather = RingWeather::random(&mut Prng::new(seed));
            net.capacity_bytes = 8192;
            net.segment_bytes_max = 5000;
            net.short_per_mille = 300;
            disk.set_faults(DiskFaults {
                short_per_mille: 300,
                ..DiskFaults::default()
            });
        }
        let (blocks_count, is_hasty) =
            choices.pick(&[(32, false), (32, false), (32, true), (2, false)]);
        let blocks = pool(blocks_count);
        let ring = SimRing::new(&world, disk.clone(), weather);
        let shard = Shard::new(ring, blocks.clone());
        let (peer, _) = world.borrow_mut().connect(&net);
        Self {
            world,
            clock,
            disk,
            shard,
            blocks,
            peer,
            over: None,
            is_hasty,
            heard: Vec::new(),
        }
    }

    pub fn open(&mut self, session: Session<SimDisk>) {
        let theirs = StreamId(self.peer.0 + 1);
        let patience = Some(Duration::from_secs(IDLE_SECONDS_MAX));
        self.shard.open(session, theirs, patience);
        self.pass(HEARD);
    }

    pub fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// Says all of it, and reads what is said meanwhile, as the protocol wants of both ends. A session that takes nothing
    /// more has to end.
    pub fn say(&mut self, mut bytes: &[u8]) {
        let mut wait = Duration::from_millis(1);
        let mut since = self.clock.now();
        while !bytes.is_empty() && !self.is_over() {
            let now = self.clock.now();
            let sent = self.world.borrow_mut().net.send(self.peer, bytes, now);
            match sent {
                Moved::Bytes(len) => {
                    bytes = &bytes[len..];
                    since = now;
                    wait = Duration::from_millis(1);
                    self.settle();
                }
                Moved::NotNow => {
                    let waited = now.since(since);
                    assert!(
                        waited < Duration::from_secs(END_SECONDS_MAX),
                        "the session neither reads nor ends"
                    );
                    self.hear();
                    self.pass(wait);
                    wait = (wait * 2).min(Duration::from_secs(5));
                }
                Moved::Failed(_) => return,
            }
        }
        self.settle();
        if !self.is_hasty {
            self.pass(HEARD);
        }
    }

    /// Reads what has come.
    pub fn hear(&mut self) {
        let mut into = [0; 16 * 1024];
        loop {
            let now = self.clock.now();
            let moved = self.world.borrow_mut().net.recv(self.peer, &mut into, now);
            match moved {
                Moved::Bytes(len @ 1..) => self.heard.extend_from_slice(&into[..len]),
                Moved::Bytes(0) | Moved::NotNow | Moved::Failed(_) => return,
            }
            self.settle();
        }
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        let until = self.clock.now().plus(time);
        while !self.is_over() {
            self.settle();
            match self.shard.ring_mut().next_due() {
                Some(due) if due < until => self.clock.advance_to(due),
                Some(_) | None => break,
            }
        }
        self.clock.advance_to(until);
        self.settle();
    }

    /// Leaves, and gives the session once it is over.
    pub fn leave(&mut self, how: Leave) -> Session<SimDisk> {
        let now = self.clock.now();
        {
            let net = &mut self.world.borrow_mut().net;
            match how {
                Leave::Close => net.close(self.peer, now),
                Leave::EndSending => net.end_sending(self.peer, now),
                Leave::Reset => net.reset(self.peer, now),
                Leave::Stay => {}
            }
        }
        loop {
            self.settle();
            if let Some(session) = self.over.take() {
                assert_eq!(self.shard.ring_mut().in_flight_count(), 0);
                return session;
            }
            if matches!(how, Leave::EndSending | Leave::Stay) {
                self.hear();
            }
            let due = self.shard.ring_mut().next_due();
            self.clock
                .advance_to(due.expect("the session waits for nothing"));
            let waited = self.clock.now().since(now);
            assert!(
                waited < Duration::from_secs(END_SECONDS_MAX),
                "the session does not end"
            );
        }
    }

    /// Once nothing is left of the session, it has nothing left either.
    pub fn check_returned(&self) {
        let missing = self.blocks.blocks_count() - self.blocks.free_count();
        assert_eq!(missing, 0, "blocks did not come back");
        let held = (self.disk.open_fds_count(), self.disk.locks_count());
        assert_eq!(held, (0, 0), "descriptors and locks are still held");
    }

    /// Gives the session turns until it waits for somebody else, or for time.
    fn settle(&mut self) {
        while !self.is_over() {
            self.shard
                .turn(None)
                .expect("a simulated ring does not fail");
            while let Some((_, session, _)) = self.shard.next_finished() {
                self.over = Some(session);
            }
            let due = self.shard.ring_mut().next_due();
            let is_due = due.is_some_and(|due| due <= self.clock.now());
            if self.shard.is_quiet() && !is_due {
                return;
            }
        }
    }
}
