//! `SimNet`, byte streams between two ends that behave like TCP connections: in order, late, in
//! pieces, and broken at any byte.

use std::collections::VecDeque;
use std::io::Read as _;

use super::liar::{Liar, Lies};
use super::prng::Prng;
use crate::model::time::Moment;
use crate::ops::Errno;
use crate::ops::op::StreamId;

/// How one connection is.
#[derive(Clone, Debug)]
pub struct NetOptions {
    /// Bytes of a direction that are sent and not yet received, at most; at least 1.
    pub capacity_bytes: usize,
    /// Bytes that arrive together, at most; at least 1.
    pub segment_bytes_max: usize,
    /// Nanoseconds that a segment travels, at most.
    pub delay_ns_max: u64,
    /// How often a receive or a send moves less than it could, in a thousand.
    pub short_per_mille: u32,
    /// Resets the connection when that many bytes have arrived: from the end that `connect`
    /// names first, and from the other.
    pub reset_after_bytes: [Option<u64>; 2],
    /// Turns over a bit of the byte at this place of what either end sends.
    pub flip_at_bytes: [Option<u64>; 2],
    /// How either end lies.
    pub lies: [Option<Lies>; 2],
}

impl NetOptions {
    /// Everything arrives whole and almost at once.
    pub fn calm(capacity_bytes: usize) -> Self {
        Self {
            capacity_bytes,
            segment_bytes_max: 64 * 1024,
            delay_ns_max: 1000,
            short_per_mille: 0,
            reset_after_bytes: [None, None],
            flip_at_bytes: [None, None],
            lies: [None, None],
        }
    }

    /// Everything drawn, from one byte at a time to a fast network; no reset.
    pub fn random(prng: &mut Prng) -> Self {
        let capacity_bytes = small_usize(prng, 64 * 1024);
        Self {
            segment_bytes_max: small_usize(prng, 64 * 1024),
            delay_ns_max: prng.skewed(50_000_000),
            short_per_mille: u32::try_from(prng.below(500)).expect("below 500"),
            ..Self::calm(capacity_bytes)
        }
    }
}

fn small_usize(prng: &mut Prng, max: u64) -> usize {
    usize::try_from(prng.skewed(max)).expect("small")
}

/// What a receive or send comes to at this instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moved {
    /// That many bytes; received 0: the other end sends no more.
    Bytes(usize),
    /// Nothing is there, or there is no room.
    NotNow,
    Failed(Errno),
}

#[derive(Debug)]
pub struct SimNet {
    prng: Prng,
    ends: Vec<End>,
}

/// One end, with the direction that it sends into. The ends of a connection are neighbours.
#[derive(Debug)]
struct End {
    options: NetOptions,
    reset_after_bytes: Option<u64>,
    flip_at_bytes: Option<u64>,
    liar: Option<Liar>,
    /// Sent and not yet there, with the moments at which they will be.
    on_the_way: VecDeque<(Moment, Vec<u8>)>,
    /// There and not yet received.
    arrived: VecDeque<u8>,
    last_arrival: Moment,
    sent_bytes: u64,
    received_bytes: u64,
    is_send_shut: bool,
    is_recv_shut: bool,
    is_closed: bool,
    /// When this end notices that the connection is broken.
    breaks_at: Option<Moment>,
    is_break_told: bool,
}

impl End {
    /// The end that `connect` names at place `which`.
    fn new(options: &NetOptions, which: usize, now: Moment) -> Self {
        assert!(options.capacity_bytes > 0 && options.segment_bytes_max > 0);
        let reset_after_bytes = options.reset_after_bytes[which];
        Self {
            options: options.clone(),
            reset_after_bytes,
            flip_at_bytes: options.flip_at_bytes[which],
            liar: options.lies[which].map(Liar::new),
            on_the_way: VecDeque::new(),
            arrived: VecDeque::new(),
            last_arrival: now,
            sent_bytes: 0,
            received_bytes: 0,
            is_send_shut: false,
            is_recv_shut: false,
            is_closed: false,
            breaks_at: (reset_after_bytes == Some(0)).then_some(now),
            is_break_told: false,
        }
    }

    fn room_bytes(&self) -> usize {
        let on_the_way: usize = self.on_the_way.iter().map(|(_, bytes)| bytes.len()).sum();
        let taken = on_the_way + self.arrived.len();
        // A liar says whole frames.
        self.options.capacity_bytes.saturating_sub(taken)
    }

    /// Sends it in segments; whether the connection breaks with it.
    fn put_on_the_way(&mut self, bytes: &[u8], prng: &mut Prng, now: Moment) -> bool {
        let before_reset = self
            .reset_after_bytes
            .map(|after| after.saturating_sub(self.sent_bytes));
        // What comes after the byte that breaks the connection is lost on the way.
        let len = bytes.len();
        let kept = before_reset.map_or(len, |left| len.min(usize::try_from(left).unwrap_or(len)));
        let mut rest = &bytes[..kept];
        while !rest.is_empty() {
            let cut = 1 + prng.index(rest.len().min(self.options.segment_bytes_max));
            let delay_ns = prng.below(self.options.delay_ns_max + 1);
            self.last_arrival = self.last_arrival.max(Moment(now.0 + delay_ns));
            let mut segment = rest[..cut].to_vec();
            let at = self.sent_bytes + (kept - rest.len()) as u64;
            let flipped = self
                .flip_at_bytes
                .and_then(|flip_at| flip_at.checked_sub(at));
            if let Some(byte) = flipped.and_then(|at| segment.get_mut(usize::try_from(at).ok()?)) {
                *byte ^= 1 << (at % 8);
            }
            self.on_the_way.push_back((self.last_arrival, segment));
            rest = &rest[cut..];
        }
        self.sent_bytes += len as u64;
        before_reset.is_some_and(|left| len as u64 >= left)
    }

    fn break_at(&mut self, moment: Moment) {
        self.breaks_at = Some(self.breaks_at.map_or(moment, |at| at.min(moment)));
    }

    fn is_broken(&self, now: Moment) -> bool {
        self.breaks_at.is_some_and(|at| at <= now)
    }

    /// The error of a broken connection comes once; then sends and receives find it ended.
    fn broken(&mut self, then: Moved) -> Moved {
        if self.is_break_told {
            then
        } else {
            self.is_break_told = true;
            Moved::Failed(Errno::CONNRESET)
        }
    }
}

fn index(stream: StreamId) -> usize {
    stream.0 as usize
}

fn peer(stream: StreamId) -> StreamId {
    StreamId(stream.0 ^ 1)
}

impl SimNet {
    pub fn new(prng: Prng) -> Self {
        Self {
            prng,
            ends: Vec::new(),
        }
    }

    /// A new connection; its two ends.
    pub fn connect(&mut self, options: &NetOptions, now: Moment) -> (StreamId, StreamId) {
        let id = u32::try_from(self.ends.len()).expect("few streams");
        self.ends.push(End::new(options, 0, now));
        self.ends.push(End::new(options, 1, now));
        if options.reset_after_bytes.contains(&Some(0)) {
            self.reset(StreamId(id), now);
        }
        (StreamId(id), StreamId(id + 1))
    }

    /// Sends from `stream` what there is room for.
    pub fn send(&mut self, stream: StreamId, from: &[u8], now: Moment) -> Moved {
        let is_peer_closed = self.ends[index(peer(stream))].is_closed;
        let end = &mut self.ends[index(stream)];
        if end.is_send_shut {
            return Moved::Failed(Errno::PIPE);
        }
        if end.is_broken(now) {
            return end.broken(Moved::Failed(Errno::PIPE));
        }
        let room = end.room_bytes().min(from.len());
        if room == 0 {
            return Moved::NotNow;
        }
        let mut len = room;
        if len > 1 && self.prng.chance(end.options.short_per_mille) {
            len = 1 + self.prng.index(len - 1);
        }
        let lie = end.liar.as_mut().map(|liar| liar.say(&from[..len]));
        let said = lie.as_deref().unwrap_or(&from[..len]);
        let is_last = end.put_on_the_way(said, &mut self.prng, now);
        let arrival = end.last_arrival;
        if is_last {
            self.reset(stream, arrival);
        } else if is_peer_closed {
            // The answer to bytes that nobody reads any more is a reset.
            self.ends[index(stream)].break_at(arrival);
        }
        Moved::Bytes(len)
    }

    /// Receives at `stream` what has arrived.
    pub fn recv(&mut self, stream: StreamId, into: &mut [u8], now: Moment) -> Moved {
        self.arrive(peer(stream), now);
        let from = &mut self.ends[index(peer(stream))];
        let there = from.arrived.len().min(into.len());
        if there > 0 {
            let mut len = there;
            if len > 1 && self.prng.chance(from.options.short_per_mille) {
                len = 1 + self.prng.index(len - 1);
            }
            let taken = from.arrived.read_exact(&mut into[..len]);
            taken.expect("as many are there");
            from.received_bytes += len as u64;
            return Moved::Bytes(len);
        }
        let is_ended = from.is_send_shut && from.on_the_way.is_empty() && from.last_arrival <= now;
        let end = &mut self.ends[index(stream)];
        if end.is_broken(now) {
            end.broken(Moved::Bytes(0))
        } else if is_ended || end.is_recv_shut {
            Moved::Bytes(0)
        } else {
            Moved::NotNow
        }
    }

    /// When a receive at `stream` will come to something; `None` while that is up to the other
    /// end.
    pub fn readable_at(&self, stream: StreamId) -> Option<Moment> {
        let from = &self.ends[index(peer(stream))];
        let end = &self.ends[index(stream)];
        if !from.arrived.is_empty() || end.is_recv_shut {
            return Some(Moment(0));
        }
        let next = from.on_the_way.front().map(|(at, _)| *at);
        let fin = from.is_send_shut.then_some(from.last_arrival);
        [next.or(fin), end.breaks_at].into_iter().flatten().min()
    }

    /// When a send from `stream` will come to something; `None` while that is up to the other end.
    pub fn writable_at(&self, stream: StreamId) -> Option<Moment> {
        let end = &self.ends[index(stream)];
        if end.is_send_shut || end.room_bytes() > 0 {
            Some(Moment(0))
        } else {
            end.breaks_at
        }
    }

    /// Sends no more from `stream`: the other end receives what is on the way, then the end.
    pub fn end_sending(&mut self, stream: StreamId, now: Moment) {
        let end = &mut self.ends[index(stream)];
        if !end.is_send_shut {
            if let Some(rest) = end.liar.as_mut().map(Liar::rest) {
                end.put_on_the_way(&rest, &mut self.prng, now);
            }
            let delay_ns = self.prng.below(end.options.delay_ns_max + 1);
            end.is_send_shut = true;
            end.last_arrival = end.last_arrival.max(Moment(now.0 + delay_ns));
        }
    }

    /// Ends both directions at `stream`, and keeps it open.
    pub fn shut(&mut self, stream: StreamId, now: Moment) {
        self.end_sending(stream, now);
        self.ends[index(stream)].is_recv_shut = true;
    }

    /// Closes `stream`, as the kernel does for a dead process too. Where something was not
    /// received, the other end is reset, and loses some of what it had not received itself.
    pub fn close(&mut self, stream: StreamId, now: Moment) {
        self.shut(stream, now);
        self.ends[index(stream)].is_closed = true;
        self.arrive(peer(stream), now);
        let from = &self.ends[index(peer(stream))];
        let arrival = from.on_the_way.front().map(|(at, _)| *at);
        let noticed = if from.arrived.is_empty() {
            arrival
        } else {
            Some(now)
        };
        if let Some(noticed) = noticed {
            let delay_ns = self.prng.below(from.options.delay_ns_max + 1);
            let breaks_at = Moment(noticed.0 + delay_ns);
            self.ends[index(peer(stream))].break_at(breaks_at);
            let end = &mut self.ends[index(stream)];
            let kept = self.prng.index(end.on_the_way.len() + 1);
            end.on_the_way.truncate(kept);
        }
    }

    /// Breaks the connection for both ends at `moment`; what arrives before it can be received.
    pub fn reset(&mut self, stream: StreamId, moment: Moment) {
        for stream in [stream, peer(stream)] {
            let end = &mut self.ends[index(stream)];
            end.break_at(moment);
            end.on_the_way.retain(|(at, _)| *at <= moment);
        }
    }

    /// Lets nothing that is sent from `stream` from now on arrive before `moment`.
    pub fn stall(&mut self, stream: StreamId, moment: Moment) {
        let end = &mut self.ends[index(stream)];
        end.last_arrival = end.last_arrival.max(moment);
    }

    /// Bytes that `stream` has sent, and those of them that the other end has received.
    pub fn traffic(&self, stream: StreamId) -> (u64, u64) {
        let end = &self.ends[index(stream)];
        (end.sent_bytes, end.received_bytes)
    }

    /// Lies that were told so far.
    pub fn lies_count(&self) -> u64 {
        let liars = self.ends.iter().filter_map(|end| end.liar.as_ref());
        liars.map(Liar::lies_count).sum()
    }

    /// Whether both directions were ended at `stream`.
    pub fn is_shut(&self, stream: StreamId) -> bool {
        self.ends[index(stream)].is_recv_shut
    }

    pub fn is_closed(&self, stream: StreamId) -> bool {
        self.ends[index(stream)].is_closed
    }

    /// Moves what has come by `now` from the way to the receiver.
    fn arrive(&mut self, from: StreamId, now: Moment) {
        let end = &mut self.ends[index(from)];
        while let Some((_, bytes)) = end.on_the_way.pop_front_if(|(at, _)| *at <= now) {
            end.arrived.extend(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(capacity_bytes: usize) -> NetOptions {
        NetOptions {
            segment_bytes_max: 3,
            delay_ns_max: 10,
            short_per_mille: 300,
            ..NetOptions::calm(capacity_bytes)
        }
    }

    /// Receives until nothing more comes; the bytes, and what came instead of more.
    fn drain(net: &mut SimNet, stream: StreamId, now: Moment) -> (Vec<u8>, Moved) {
        let mut bytes = Vec::new();
        loop {
            let mut block = [0; 16];
            let moved = net.recv(stream, &mut block, now);
            let Moved::Bytes(len @ 1..) = moved else {
                return (bytes, moved);
            };
            bytes.extend_from_slice(&block[..len]);
        }
    }

    #[test]
    fn a_full_pipe_takes_no_more_until_somebody_receives() {
        let mut net = SimNet::new(Prng::new(1));
        let (a, b) = net.connect(&plain(1), Moment(0));
        assert_eq!(net.send(a, b"xy", Moment(0)), Moved::Bytes(1));
        assert_eq!(net.send(a, b"y", Moment(0)), Moved::NotNow);
        assert_eq!(net.writable_at(a), None);
        let at = net.readable_at(b).unwrap();
        assert!(at <= Moment(10));
        assert_eq!(drain(&mut net, b, at), (b"x".to_vec(), Moved::NotNow));
        assert_eq!(net.send(a, b"y", at), Moved::Bytes(1));
        assert_eq!(net.traffic(a), (2, 1));
    }

    #[test]
    fn one_bit_of_one_byte_is_turned_over_on_the_way() {
        for seed in 0..50 {
            let mut net = SimNet::new(Prng::new(seed));
            let flip_at = seed % 10;
            let options = NetOptions {
                flip_at_bytes: [Some(flip_at), None],
                ..plain(64)
            };
            let (a, b) = net.connect(&options, Moment(0));
            let mut sent = 0;
            while sent < 10 {
                let Moved::Bytes(bytes) = net.send(a, &[0; 10][sent..], Moment(0)) else {
                    panic!("there is room");
                };
                sent += bytes;
            }
            let (received, _) = drain(&mut net, b, Moment(10_000));
            let spoiled: Vec<usize> = (0..10).filter(|at| received[*at] != 0).collect();
            assert_eq!(
                (received.len(), spoiled),
                (10, vec![usize::try_from(flip_at).unwrap()])
            );
            assert_eq!(
                received.iter().map(|byte| byte.count_ones()).sum::<u32>(),
                1
            );
        }
    }

    #[test]
    fn an_end_comes_after_the_bytes_before_it() {
        for seed in 0..50 {
            let mut net = SimNet::new(Prng::new(seed));
            let (a, b) = net.connect(&plain(64), Moment(0));
            let Moved::Bytes(sent) = net.send(a, b"0123456789", Moment(0)) else {
                panic!("there is room");
            };
            net.end_sending(a, Moment(0));
            assert_eq!(net.send(a, b"x", Moment(0)), Moved::Failed(Errno::PIPE));
            let mut all = Vec::new();
            loop {
                let at = net.readable_at(b).unwrap();
                let (bytes, then) = drain(&mut net, b, at);
                all.extend(bytes);
                if then == Moved::Bytes(0) {
                    break;
                }
            }
            assert_eq!(all, b"0123456789"[..sent]);
            // The other direction still works.
            assert!(matches!(net.send(b, b"ok", Moment(9)), Moved::Bytes(_)));
        }
    }

    #[test]
    fn a_connection_breaks_at_the_byte_it_was_told_to() {
        for after in 0..12 {
            let mut net = SimNet::new(Prng::new(after));
            let options = NetOptions {
                reset_after_bytes: [Some(after), None],
                ..plain(64)
            };
            let (a, b) = net.connect(&options, Moment(0));
            let mut sent = 0;
            while sent < 12 {
                match net.send(a, &b"0123456789ab"[sent..], Moment(0)) {
                    Moved::Bytes(len) => sent += len,
                    Moved::NotNow | Moved::Failed(_) => break,
                }
            }
            let (bytes, then) = drain(&mut net, b, Moment(100));
            assert_eq!(bytes, b"0123456789ab"[..usize::try_from(after).unwrap()]);
            assert_eq!(then, Moved::Failed(Errno::CONNRESET));
            assert_eq!(drain(&mut net, b, Moment(100)), (vec![], Moved::Bytes(0)));
            let told = net.send(a, b"x", Moment(100));
            assert!(matches!(told, Moved::Failed(_)));
        }
    }

    #[test]
    fn closing_with_bytes_unread_resets_the_other_end() {
        let mut net = SimNet::new(Prng::new(3));
        let (a, b) = net.connect(&plain(64), Moment(0));
        assert!(matches!(net.send(a, b"unread", Moment(0)), Moved::Bytes(_)));
        net.close(b, Moment(20));
        let at = net.readable_at(a).unwrap();
        let (_, then) = drain(&mut net, a, at.plus(std::time::Duration::from_nanos(20)));
        assert_eq!(then, Moved::Failed(Errno::CONNRESET));
    }
}
