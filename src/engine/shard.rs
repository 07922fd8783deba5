//! A shard: one thread, one ring, its sessions. `turn` is one pass of its loop: sleep at most
//! once, hear everything, then do bounded work for each session in turn.

use std::collections::VecDeque;
use std::time::Duration;

use slab::Slab;

use super::driver::Driver;
use crate::job::Work;
use crate::limits::{
    ACTIONS_PER_TURN_MAX, DRAINING_SECONDS_MAX, HANDSHAKE_SECONDS_MAX, HEARTBEAT_SECONDS,
    IDLE_SECONDS_MAX, STALL_SECONDS_SCARCE_MAX,
};
use crate::model::time::Moment;
use crate::ops::op::{Completion, Ring, StreamId};
use crate::ops::{BlockPool, Buf, Disk, Errno};
use crate::session::port::{Link, Port, Token, Wish};
use crate::session::{Env, Session, SessionError};

/// A session of a shard; used again after the session has gone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PortKey(usize);

struct Seat<D: Disk> {
    port: Port<D>,
    opened: Moment,
    /// How long the peer may be silent before the session gives up; `None`: for ever.
    patience: Option<Duration>,
    /// The same until the greeting.
    patience_at_first: Option<Duration>,
    /// How long of its time here nobody listened.
    slept: Duration,
    /// When it was asked last how far its payloads have got.
    nudged: Moment,
    /// When the session wants to be polled again, though nothing happens.
    alarm: Option<Moment>,
    is_runnable: bool,
    is_shut: bool,
    /// The other end of a pair, and the frame it is to take.
    peer: Option<PortKey>,
    hand: Option<Buf>,
}

impl<D: Disk> Seat<D> {
    /// A target takes its source's patience for its own where that is less: who hears of a loss
    /// soon shall not find the server still waiting, and is shown often enough that it lives.
    fn patience(&self) -> Option<Duration> {
        let own = self.patience?;
        let asked = self.port.session.patience_of_source();
        Some(asked.map_or(own, |asked| asked.min(own)))
    }
}

/// How often deadlines are looked at.
const CHECK_EVERY: Duration = Duration::from_millis(500);

pub struct Shard<D: Disk, R: Ring<D, Work<D>>> {
    driver: Driver<D, Work<D>, R>,
    blocks: BlockPool,
    seats: Slab<Seat<D>>,
    /// For each op in flight, whose it is and what it is about; the key is its tag.
    tokens: Slab<(PortKey, Token)>,
    runnable: VecDeque<PortKey>,
    /// Sessions that may have been refused a block.
    hungry: Vec<PortKey>,
    /// The fewest free blocks since they were woken last.
    fewest_free: usize,
    finished: VecDeque<PortKey>,
    next_check: Moment,
    /// The first of the seats' alarms.
    next_alarm: Option<Moment>,
}

impl<D: Disk, R: Ring<D, Work<D>>> Shard<D, R> {
    pub fn new(ring: R, blocks: BlockPool) -> Self {
        Self {
            driver: Driver::new(ring),
            blocks,
            seats: Slab::new(),
            tokens: Slab::new(),
            runnable: VecDeque::new(),
            hungry: Vec::new(),
            fewest_free: usize::MAX,
            finished: VecDeque::new(),
            next_check: Moment::default(),
            next_alarm: None,
        }
    }

    pub fn ring_mut(&mut self) -> &mut R {
        self.driver.ring_mut()
    }

    pub fn now(&self) -> Moment {
        self.driver.now()
    }

    pub fn sessions_count(&self) -> usize {
        self.seats.len()
    }

    /// Takes in a session that talks through `stream`.
    pub fn open(
        &mut self,
        session: Session<D>,
        stream: StreamId,
        patience: Option<Duration>,
    ) -> PortKey {
        self.seat(session, Link::Stream(stream), patience)
    }

    /// Gives the peer of a session another time for its greeting.
    pub fn await_greeting(&mut self, key: PortKey, patience: Option<Duration>) {
        self.seats[key.0].patience_at_first = patience;
    }

    /// Takes in both ends of a session; frames go from one to the other without a copy.
    pub fn open_pair(&mut self, one: Session<D>, other: Session<D>) -> (PortKey, PortKey) {
        let one = self.seat(one, Link::Pair, None);
        let other = self.seat(other, Link::Pair, None);
        self.seats[one.0].peer = Some(other);
        self.seats[other.0].peer = Some(one);
        (one, other)
    }

    fn seat(&mut self, session: Session<D>, link: Link, patience: Option<Duration>) -> PortKey {
        let now = self.now();
        if self.seats.is_empty() {
            self.next_check = now.plus(CHECK_EVERY);
        }
        let port = Port::new(session, link, now);
        let seat = Seat {
            port,
            opened: now,
            patience,
            patience_at_first: patience,
            slept: Duration::ZERO,
            nudged: now,
            alarm: None,
            is_runnable: false,
            is_shut: false,
            peer: None,
            hand: None,
        };
        let key = PortKey(self.seats.insert(seat));
        self.wake(key);
        key
    }

    pub fn session(&mut self, key: PortKey) -> &mut Session<D> {
        &mut self.seats[key.0].port.session
    }

    /// A session, while it is here.
    pub fn find(&mut self, key: PortKey) -> Option<&mut Session<D>> {
        Some(&mut self.seats.get_mut(key.0)?.port.session)
    }

    /// No session has anything to do until something happens.
    pub fn is_quiet(&self) -> bool {
        self.runnable.is_empty()
    }

    /// Ends a session for a reason of this side.
    pub fn break_off(&mut self, key: PortKey, error: SessionError) {
        if let Some(seat) = self.seats.get_mut(key.0) {
            seat.port.stop(error);
            self.wake(key);
        }
    }

    /// All sessions.
    pub fn keys(&self) -> Vec<PortKey> {
        self.seats.iter().map(|(key, _)| PortKey(key)).collect()
    }

    /// A session that is over, taken out, and when it was opened.
    pub fn next_finished(&mut self) -> Option<(PortKey, Session<D>, Moment)> {
        let key = self.finished.pop_front()?;
        let seat = self.seats.remove(key.0);
        if let Link::Stream(stream) = seat.port.link() {
            self.driver.release(stream);
        }
        Some((key, seat.port.session, seat.opened))
    }

    /// One pass of the loop; sleeps until `until` at most.
    pub fn turn(&mut self, until: Option<Moment>) -> Result<(), Errno> {
        let now = self.now();
        let check = (!self.seats.is_empty()).then_some(self.next_check);
        let deadline = if self.runnable.is_empty() {
            [until, check, self.next_alarm].into_iter().flatten().min()
        } else {
            Some(now)
        };
        self.driver.submit_and_wait(deadline)?;
        let now = self.now();
        while let Some(completion) = self.driver.reap() {
            self.hear(completion, now);
        }
        while let Some(tag) = self.driver.next_moved() {
            self.moved(tag, now);
        }
        self.feed_if_more();
        if now >= self.next_check {
            let slept = now.since(self.next_check);
            self.next_check = now.plus(CHECK_EVERY);
            self.check_patience(now, slept);
        }
        if self.next_alarm.is_some_and(|alarm| now >= alarm) {
            self.ring_alarms(now);
        }
        for _ in 0..ACTIONS_PER_TURN_MAX {
            let Some(key) = self.runnable.pop_front() else {
                break;
            };
            self.run(key, now);
        }
        Ok(())
    }

    fn hear(&mut self, completion: Completion<D, Work<D>>, now: Moment) {
        let tag = usize::try_from(completion.tag).expect("a tag of ours");
        let (key, token) = self.tokens.remove(tag);
        self.seats[key.0].port.hear(completion, token, now);
        self.wake(key);
    }

    /// Bytes came or left, though not all that are to: the peer lives.
    fn moved(&mut self, tag: u64, now: Moment) {
        let tag = usize::try_from(tag).expect("a tag of ours");
        // It may have been finished since.
        if let Some((key, token)) = self.tokens.get(tag) {
            self.seats[key.0].port.moved(*token, now);
        }
    }

    /// Wakes who waits for a block, if there are more than when it looked.
    fn feed_if_more(&mut self) {
        let free = self.blocks.free_count();
        if free <= self.fewest_free {
            self.fewest_free = free;
            return;
        }
        self.fewest_free = free;
        for key in std::mem::take(&mut self.hungry) {
            self.wake(key);
        }
    }

    /// Wakes the sessions that wanted to be woken by now.
    fn ring_alarms(&mut self, now: Moment) {
        for key in self.keys() {
            let alarm = &mut self.seats[key.0].alarm;
            if alarm.take_if(|alarm| now >= *alarm).is_some() {
                self.wake(key);
            }
        }
        self.next_alarm = self.seats.iter().filter_map(|(_, seat)| seat.alarm).min();
    }

    fn wake(&mut self, key: PortKey) {
        if let Some(seat) = self.seats.get_mut(key.0)
            && !std::mem::replace(&mut seat.is_runnable, true)
        {
            self.runnable.push_back(key);
        }
    }

    /// Lets a session ask for one thing; if it did, it goes to the back of the line.
    fn run(&mut self, key: PortKey, now: Moment) {
        let Some(seat) = self.seats.get_mut(key.0) else {
            return;
        };
        seat.is_runnable = false;
        self.pass_hands(key);
        let seat = &mut self.seats[key.0];
        let env = Env {
            now,
            blocks: &self.blocks,
        };
        match seat.port.poll(&env) {
            Some(wish) => {
                self.grant(key, wish);
                self.wake(key);
            }
            None if seat.port.is_finished() => {
                if !std::mem::replace(&mut seat.is_shut, true) || !self.finished.contains(&key) {
                    self.finish(key);
                }
            }
            None => {
                // It may have taken in a frame that it held, and so want the next one of its peer.
                self.pass_hands(key);
                let seat = &mut self.seats[key.0];
                seat.alarm = seat.port.session.wakes_at();
                self.next_alarm = self.next_alarm.into_iter().chain(seat.alarm).min();
                if self.blocks.free_count() <= HUNGRY_BELOW_BLOCKS && !self.hungry.contains(&key) {
                    self.hungry.push(key);
                }
            }
        }
        self.feed_if_more();
    }

    fn finish(&mut self, key: PortKey) {
        if self.finished.contains(&key) {
            return;
        }
        if let Some(peer) = self.seats[key.0].peer
            && let Some(other) = self.seats.get_mut(peer.0)
        {
            other.port.broken(SessionError::Lost(None));
            self.wake(peer);
        }
        self.finished.push_back(key);
    }

    fn grant(&mut self, key: PortKey, wish: Wish<D>) {
        match wish {
            Wish::Op(op, token) => {
                let tag = self.tokens.insert((key, token));
                self.driver.push(tag as u64, op);
            }
            Wish::Hand(buf) => {
                self.seats[key.0].hand = Some(buf);
                self.pass_hands(key);
            }
            Wish::Shut => {
                if let Link::Stream(stream) = self.seats[key.0].port.link() {
                    self.driver.shut(stream);
                }
            }
        }
    }

    /// Gives the other end of a pair the frames that are meant for it, both ways.
    fn pass_hands(&mut self, key: PortKey) {
        let Some(peer) = self.seats[key.0].peer else {
            return;
        };
        for (from, to) in [(key, peer), (peer, key)] {
            let wants = self
                .seats
                .get(to.0)
                .is_none_or(|seat| seat.port.wants_hand());
            if !wants {
                continue;
            }
            let Some(buf) = self.seats.get_mut(from.0).and_then(|seat| seat.hand.take()) else {
                continue;
            };
            if let Some(seat) = self.seats.get_mut(to.0) {
                seat.port.take_hand(buf);
            }
            self.seats[from.0].port.handed();
            self.wake(from);
            self.wake(to);
        }
    }

    /// Asks, some times within its patience, how far a payload is that seems to stand still.
    fn nudge_if_still(&mut self, key: PortKey, now: Moment) {
        let seat = &mut self.seats[key.0];
        let (Link::Stream(stream), Some(patience)) = (seat.port.link(), seat.patience()) else {
            return;
        };
        let stands = seat.port.stands_since().map(|since| since.max(seat.nudged));
        if stands.is_some_and(|since| now.since(since) >= patience / 4) && !seat.port.is_ending() {
            seat.nudged = now;
            self.driver.nudge(stream);
        }
    }

    /// `slept`: how much later than it wanted to this process came here. It was stopped, or the
    /// whole machine stood still: no peer is to blame for that.
    fn check_patience(&mut self, now: Moment, slept: Duration) {
        for key in self.keys() {
            // Another waits for a block, so this one may not sit on its own for long.
            let waits = |other: &PortKey| *other != key && self.seats.contains(other.0);
            let is_scarce = self.hungry.iter().any(waits);
            self.nudge_if_still(key, now);
            let seat = &mut self.seats[key.0];
            if seat.port.is_ending() {
                continue;
            }
            seat.slept += slept;
            seat.port.excuse(slept, now);
            let handshake = Duration::from_secs(HANDSHAKE_SECONDS_MAX);
            let is_late = matches!(seat.port.session, Session::Target(_))
                && seat.port.link() != Link::Pair
                && !seat.port.session.is_greeted()
                && now.since(seat.opened) > handshake + seat.slept;
            let patience = if seat.port.session.is_greeted() {
                seat.patience()
            } else {
                seat.patience_at_first
            };
            let silent_since = seat.port.awaits_peer_since();
            let silence =
                patience.filter(|most| silent_since.is_some_and(|since| now.since(since) > *most));
            let is_served =
                matches!(seat.port.session, Session::Target(_)) && seat.port.link() != Link::Pair;
            let stalled = stalled(&seat.port, is_scarce, now).filter(|_| is_served);
            if is_late {
                seat.port.stop(SessionError::Silent(HANDSHAKE_SECONDS_MAX));
            } else if let Some(error) = stalled {
                seat.port.stop(error);
            } else if let Some(patience) = silence {
                seat.port.stop(SessionError::Silent(patience.as_secs()));
            } else if now.since(seat.port.last_sent) > heartbeat_every(seat.patience()) {
                if let Some(wish) = seat.port.heartbeat(&self.blocks) {
                    self.grant(key, wish);
                }
                continue;
            } else {
                continue;
            }
            self.wake(key);
        }
    }
}

/// What ends a session whose peer has kept a block of ours for too long: where blocks are scarce in
/// all, else without a byte.
fn stalled<D: Disk>(port: &Port<D>, is_scarce: bool, now: Moment) -> Option<SessionError> {
    let is_over = |since: Option<Moment>, seconds: u64| {
        since.is_some_and(|since| now.since(since) > Duration::from_secs(seconds))
    };
    if is_scarce && is_over(port.holds_block_since(), STALL_SECONDS_SCARCE_MAX) {
        Some(SessionError::Slow(STALL_SECONDS_SCARCE_MAX))
    } else if !is_scarce && is_over(port.stands_since(), IDLE_SECONDS_MAX) {
        Some(SessionError::Silent(IDLE_SECONDS_MAX))
    } else if is_over(port.drains_since(), DRAINING_SECONDS_MAX) {
        Some(SessionError::Silent(DRAINING_SECONDS_MAX))
    } else {
        None
    }
}

/// A session that found no more free blocks than this may want one.
const HUNGRY_BELOW_BLOCKS: usize = 2;

fn heartbeat_every(patience: Option<Duration>) -> Duration {
    let usual = Duration::from_secs(HEARTBEAT_SECONDS);
    patience.map_or(usual, |patience| usual.min(patience / 4))
}
