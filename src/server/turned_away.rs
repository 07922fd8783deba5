//! `TurnedAway`, connections beyond the server's limit: each got a REFUSED and waits until its peer
//! has read that and hung up. To close with its HELLO unread could cut the word off.
//!
//! They are the acceptor's: a refusal needs no shard, no block and no ring, so it comes at once
//! however busy those are.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::net::{SendFlags, send, shutdown};

use crate::limits::{DRAINING_SECONDS_MAX, FRAME_HEAD_BYTES, TURNED_AWAY_MAX};
use crate::model::time::Moment;
use crate::wire::cursor::Writer;
use crate::wire::hello::{Refusal, Refused};
use crate::wire::{FrameKind, seal};

#[derive(Default)]
pub struct TurnedAway {
    /// With the moment at which each has had time enough; the earliest first.
    streams: VecDeque<(OwnedFd, Moment)>,
}

impl TurnedAway {
    /// Says that the server takes no more than `connections_max`, and no more after that.
    pub fn take(&mut self, stream: OwnedFd, connections_max: usize, now: Moment) {
        let mut frame = [0; FRAME_HEAD_BYTES + 100];
        let mut writer = Writer::new(&mut frame[FRAME_HEAD_BYTES..]);
        Refused {
            refusal: Refusal::Busy,
            text: format!("it takes {connections_max} at once").into_bytes(),
        }
        .encode(&mut writer);
        let payload_bytes = writer.at();
        let len = seal(&mut frame, FrameKind::Refused, payload_bytes);
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        // A new stream has room for so little; who is gone already needs no word.
        if send(&stream, &frame[..len], flags) != Ok(len) {
            return;
        }
        let _ = shutdown(&stream, rustix::net::Shutdown::Write);
        if self.streams.len() >= TURNED_AWAY_MAX {
            self.streams.pop_front();
        }
        let patience = Duration::from_secs(DRAINING_SECONDS_MAX);
        self.streams.push_back((stream, now.plus(patience)));
    }

    /// What to wait for: that peers hang up.
    pub fn polls(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.streams
            .iter()
            .map(|(stream, _)| PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::RDHUP))
    }

    /// How long to wait at most.
    pub fn patience(&self, now: Moment) -> Option<Duration> {
        self.streams.front().map(|(_, until)| until.since(now))
    }

    /// Closes those of which `has_hung_up`, in the order of `polls`, or the time says so.
    pub fn close(&mut self, has_hung_up: &[bool], now: Moment) {
        let mut hung_up = has_hung_up.iter();
        self.streams
            .retain(|(_, until)| !hung_up.next().is_some_and(|is| *is) && *until > now);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::wire::Head;

    #[test]
    fn who_is_turned_away_hears_why_though_nobody_read_its_greeting() {
        let mut away = TurnedAway::default();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"a greeting that nobody reads").unwrap();
        away.take(ours.into(), 3, Moment(0));
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).unwrap();
        let head = Head::decode(heard.first_chunk().unwrap()).unwrap();
        assert_eq!(head.kind, FrameKind::Refused);
        let refused = Refused::decode(&heard[FRAME_HEAD_BYTES..]).unwrap();
        assert_eq!(refused.refusal, Refusal::Busy);
        assert_eq!(refused.text, b"it takes 3 at once");
    }

    #[test]
    fn they_go_when_they_hang_up_when_their_time_is_up_and_when_they_are_too_many() {
        let mut away = TurnedAway::default();
        let mut theirs = Vec::new();
        for number in 0..TURNED_AWAY_MAX + 5 {
            let (ours, other) = UnixStream::pair().unwrap();
            away.take(ours.into(), 3, Moment(number as u64));
            theirs.push(other);
        }
        assert_eq!(away.polls().count(), TURNED_AWAY_MAX);
        away.close(&[true, false, true], Moment(0));
        assert_eq!(away.polls().count(), TURNED_AWAY_MAX - 2);
        let patience = away.patience(Moment(6)).unwrap();
        assert_eq!(patience, Duration::from_secs(DRAINING_SECONDS_MAX));
        away.close(&[], Moment(6).plus(patience));
        assert_eq!(away.polls().count(), TURNED_AWAY_MAX - 3);
        away.close(&[], Moment(u64::MAX));
        assert_eq!((away.polls().count(), away.patience(Moment(0))), (0, None));
        // One that is gone is not kept.
        let (ours, other) = UnixStream::pair().unwrap();
        drop(other);
        away.take(ours.into(), 3, Moment(0));
        assert_eq!(away.polls().count(), 0);
    }
}
