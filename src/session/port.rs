//! `Port`, the byte side of a session: cuts what arrives into frames, whatever its segments, and
//! turns the session's requests into ops. An idle stream holds no block: heads arrive in the
//! ring's own memory, and a block is taken when the length of the payload is known.

use std::time::Duration;

use super::{Action, Env, Event, Session, SessionError};
use crate::job::Work;
use crate::limits::{FRAME_HEAD_BYTES, SEND_RESERVE_BLOCKS};
use crate::model::id::FileId;
use crate::model::time::Moment;
use crate::ops::op::{Completion, Op, StreamId};
use crate::ops::{BlockPool, Buf, Disk, Errno};
use crate::wire::{FrameKind, Head, WireError, seal};

/// How far the next frame has got.
enum Receiving {
    /// Nothing is asked for. Next: Head.
    Idle,
    /// A head is under way. Next: WantsBlock.
    Head,
    /// The head is there, the payload needs a block. Next: Body.
    WantsBlock(Head, [u8; FRAME_HEAD_BYTES]),
    /// The payload is under way. Next: Idle.
    Body(Head),
    /// Frames can't be told any more; what comes is read and dropped, so that the peer reads our
    /// last word before it finds the stream closed. Next: Ended.
    Draining,
    /// The peer has ended its direction where it may: what we send it still reads. Next: Ended.
    HeardAll,
    /// The stream has ended.
    Ended,
}

pub struct Port<D: Disk> {
    pub session: Session<D>,
    link: Link,
    receiving: Receiving,
    /// Ops of this session that are not back.
    in_flight: u32,
    is_ending: bool,
    is_sending: bool,
    /// A sign of life that we sent for the session, not a frame of its own.
    is_heartbeat: bool,
    /// The session's frame that waits until the sign of life is out.
    waiting: Option<(Buf, usize)>,
    has_received: bool,
    /// An op that only drains is in flight.
    is_draining: bool,
    /// When the head under way was asked for.
    asked: Moment,
    /// When a byte was last heard to have come, or to have left.
    pub last_received: Moment,
    pub last_sent: Moment,
    /// The same for the frame under way, without what nobody was awake for.
    send_moved: Moment,
    /// When the payload under way was asked for, or the draining began.
    receiving_since: Option<Moment>,
    /// When the frame under way was given to the stream.
    sending_since: Option<Moment>,
}

/// What a session talks through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    Stream(StreamId),
    /// The other session is in this process, too: blocks change hands, nothing is copied.
    Pair,
}

/// What the loop does with a port after it was polled.
pub enum Wish<D: Disk> {
    Op(Op<D, Work<D>>, Token),
    /// Hand the frame to the other end of a pair, once that wants one; then `handed` is called.
    Hand(Buf),
    /// Shut the stream; everything in flight comes back.
    Shut,
}

/// What a port wants to hear with a completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Token {
    None,
    /// Bytes of the peer.
    Receive,
    /// Bytes for the peer.
    Send,
    File(FileId),
}

impl<D: Disk> Port<D> {
    pub fn new(session: Session<D>, link: Link, now: Moment) -> Self {
        Self {
            session,
            link,
            receiving: Receiving::Idle,
            in_flight: 0,
            is_ending: false,
            is_sending: false,
            is_heartbeat: false,
            waiting: None,
            has_received: false,
            is_draining: false,
            asked: now,
            last_received: now,
            last_sent: now,
            send_moved: now,
            receiving_since: None,
            sending_since: None,
        }
    }

    /// The session is over and nothing of it is in flight.
    pub fn is_finished(&self) -> bool {
        self.is_ending && self.in_flight == 0
    }

    pub fn is_ending(&self) -> bool {
        self.is_ending
    }

    /// Since when a block of this side's waits for the peer: for the rest of a payload, or to be
    /// read by it.
    pub fn holds_block_since(&self) -> Option<Moment> {
        self.receiving_since
            .into_iter()
            .chain(self.sending_since)
            .min()
    }

    /// Since when a block of this side's waits without a byte having moved.
    pub fn stands_since(&self) -> Option<Moment> {
        let receiving = self
            .receiving_since
            .map(|since| since.max(self.last_received));
        let sending = self.sending_since.map(|since| since.max(self.send_moved));
        receiving.into_iter().chain(sending).min()
    }

    /// Since when the peer could have been heard and was not; `None` while nothing is to come, or
    /// nobody listens: what it said meanwhile is still to be read.
    pub fn awaits_peer_since(&self) -> Option<Moment> {
        let listens = match self.receiving {
            Receiving::Idle | Receiving::HeardAll => false,
            // It waits for us.
            Receiving::WantsBlock(..) => false,
            Receiving::Head | Receiving::Body(_) | Receiving::Draining | Receiving::Ended => {
                self.session.awaits_peer()
            }
        };
        listens.then(|| self.last_received.max(self.asked))
    }

    /// Of the time that the peer took, this much was ours: nobody listened.
    pub fn excuse(&mut self, slept: Duration, now: Moment) {
        let since = [
            Some(&mut self.last_received),
            Some(&mut self.send_moved),
            Some(&mut self.asked),
            self.receiving_since.as_mut(),
            self.sending_since.as_mut(),
        ];
        for since in since.into_iter().flatten() {
            *since = since.plus(slept).min(now);
        }
    }

    /// Some of what is under way has moved; the rest goes on.
    pub fn moved(&mut self, token: Token, now: Moment) {
        match token {
            Token::Receive => self.last_received = now,
            Token::Send => {
                self.last_sent = now;
                self.send_moved = now;
            }
            Token::None | Token::File(_) => {}
        }
    }

    /// Since when the stream is only drained.
    pub fn drains_since(&self) -> Option<Moment> {
        self.receiving_since
            .filter(|_| matches!(self.receiving, Receiving::Draining))
    }

    /// Takes in a completion of one of its ops.
    pub fn hear(&mut self, completion: Completion<D, Work<D>>, token: Token, now: Moment) {
        self.in_flight -= 1;
        let Completion { op, result, .. } = completion;
        match op {
            Op::RecvHead { head, got, .. } => self.head_received(&head, got, result, now),
            Op::Recv { buf, range, .. } => self.body_received(buf, range.len(), result, now),
            Op::Send { buf, .. } => {
                drop(buf);
                self.is_sending = false;
                self.sending_since = None;
                self.last_sent = now;
                let was_heartbeat = std::mem::take(&mut self.is_heartbeat);
                if let Err(errno) = result {
                    self.broken(SessionError::Lost(Some(errno)));
                }
                if !was_heartbeat {
                    self.session.handle(Event::Sent);
                }
            }
            Op::Read { buf, offset, .. } => {
                self.session.handle(Event::Read {
                    file: file_of(token),
                    buf,
                    offset,
                    result,
                });
            }
            Op::Write { buf, .. } => {
                drop(buf);
                self.session.handle(Event::Written {
                    file: file_of(token),
                    result: result.map(|_| ()),
                });
            }
            Op::Job(work) => self.session.handle(Event::JobDone(work, result.is_ok())),
        }
    }

    fn head_received(
        &mut self,
        head: &[u8; FRAME_HEAD_BYTES],
        got: usize,
        result: Result<usize, Errno>,
        now: Moment,
    ) {
        match result {
            Err(errno) => return self.broken(SessionError::Lost(Some(errno))),
            Ok(_) if got == 0 && self.session.heard_end() => {
                return self.receiving = Receiving::HeardAll;
            }
            Ok(_) if got == 0 => return self.broken(SessionError::Lost(None)),
            Ok(_) if got < FRAME_HEAD_BYTES => {
                let mut first = [0; FRAME_HEAD_BYTES];
                first[..got].copy_from_slice(&head[..got]);
                let may_be_sy = self.has_received || Head::may_begin(&head[..got]);
                return self.broken(if may_be_sy {
                    SessionError::Lost(None)
                } else {
                    WireError::NotSy(first).into()
                });
            }
            Ok(_) => {}
        }
        self.last_received = now;
        match Head::decode(head) {
            Ok(decoded) => self.receiving = Receiving::WantsBlock(decoded, *head),
            // The first bytes of all tell whether the peer speaks our language at all.
            Err(_) if !self.has_received => self.broken(WireError::NotSy(*head).into()),
            Err(error) => self.broken(error.into()),
        }
        self.has_received = true;
    }

    fn body_received(&mut self, buf: Buf, asked: usize, result: Result<usize, Errno>, now: Moment) {
        let head = match std::mem::replace(&mut self.receiving, Receiving::Idle) {
            Receiving::Body(head) => {
                self.receiving_since = None;
                head
            }
            Receiving::Idle
            | Receiving::Head
            | Receiving::WantsBlock(..)
            | Receiving::Draining
            | Receiving::HeardAll
            | Receiving::Ended => {
                self.is_draining = false;
                return match result {
                    Ok(got) if got == asked => self.receiving = Receiving::Draining,
                    Ok(_) | Err(_) => self.broken(SessionError::Lost(None)),
                };
            }
        };
        match result {
            Ok(got) if got == asked => {}
            Ok(_) => return self.broken(SessionError::Lost(None)),
            Err(errno) => return self.broken(SessionError::Lost(Some(errno))),
        }
        self.last_received = now;
        self.frame(head, buf);
    }

    fn frame(&mut self, head: Head, buf: Buf) {
        match head.verify(&buf[FRAME_HEAD_BYTES..][..head.payload_bytes]) {
            Ok(()) => self.session.handle(Event::Frame { head, buf }),
            Err(error) => self.broken(error.into()),
        }
    }

    /// Ends the session for a reason of this side. A target still tells its source why.
    pub fn stop(&mut self, error: SessionError) {
        if matches!(self.session, Session::Source(_)) {
            self.receiving = Receiving::Ended;
        }
        self.session.handle(Event::Stopped(error));
    }

    /// Whether the other end of a pair may hand over a frame.
    pub fn wants_hand(&self) -> bool {
        self.is_ending || self.session.wants_frame()
    }

    /// Takes a frame from the other end of a pair.
    pub fn take_hand(&mut self, buf: Buf) {
        if self.is_ending {
            return;
        }
        let head = buf.first_chunk().expect("a block is longer than a head");
        let head = Head::decode(head).expect("sealed in this process");
        self.session.handle(Event::Frame { head, buf });
    }

    /// The frame that was to be handed over is.
    pub fn handed(&mut self) {
        self.session.handle(Event::Sent);
    }

    pub fn link(&self) -> Link {
        self.link
    }

    /// The stream is of no use any more, because of `error`.
    pub fn broken(&mut self, error: SessionError) {
        let is_told = matches!(
            (&self.session, &error),
            (Session::Target(_), SessionError::Wire(_))
        );
        self.receiving = if is_told {
            Receiving::Draining
        } else {
            Receiving::Ended
        };
        self.session.handle(Event::Broken(error));
    }

    /// The next thing to do, or `None` until another event.
    pub fn poll(&mut self, env: &Env<'_>) -> Option<Wish<D>> {
        if self.is_ending {
            return None;
        }
        if let Some(wish) = self.poll_stream(env) {
            return Some(wish);
        }
        loop {
            let action = match self.waiting.take_if(|_| !self.is_heartbeat) {
                Some((buf, len)) => Action::Send { buf, len },
                None => match self.session.poll_action(env) {
                    Some(action) => action,
                    None => return self.poll_stream(env),
                },
            };
            let (op, token) = match action {
                Action::Send { buf, len } => {
                    if self.is_heartbeat {
                        // A peer that does not read must not keep the session from its jobs.
                        self.waiting = Some((buf, len));
                        continue;
                    }
                    if self.is_sending {
                        unreachable!(
                            "a session sends one frame at a time, and a heartbeat only in between"
                        );
                    }
                    if matches!(self.receiving, Receiving::Ended) {
                        drop(buf); // Nobody is there to read it.
                        self.session.handle(Event::Sent);
                        continue;
                    }
                    match self.link {
                        Link::Stream(stream) => {
                            self.is_sending = true;
                            self.sending_since = Some(env.now);
                            (
                                Op::Send {
                                    stream,
                                    buf,
                                    range: 0..len,
                                },
                                Token::Send,
                            )
                        }
                        Link::Pair => return Some(Wish::Hand(buf)),
                    }
                }
                Action::Job(work) => (Op::Job(work), Token::None),
                Action::Read {
                    file,
                    fd,
                    buf,
                    at,
                    len,
                    offset,
                } => (
                    Op::Read {
                        fd,
                        buf,
                        range: at..at + len,
                        offset,
                    },
                    Token::File(file),
                ),
                Action::Write {
                    file,
                    fd,
                    buf,
                    at,
                    len,
                    offset,
                } => (
                    Op::Write {
                        fd,
                        buf,
                        range: at..at + len,
                        offset,
                    },
                    Token::File(file),
                ),
                Action::End => {
                    self.is_ending = true;
                    self.waiting = None;
                    return Some(Wish::Shut);
                }
            };
            return Some(self.op(op, token));
        }
    }

    /// What is to be received. Asked twice: a session that has nothing to do may have taken in a frame that it
    /// held, and so want the next.
    fn poll_stream(&mut self, env: &Env<'_>) -> Option<Wish<D>> {
        let Link::Stream(stream) = self.link else {
            return None; // The shard looks whether there is one to hand over.
        };
        let op = self.poll_receive(stream, env)?;
        Some(self.op(op, Token::Receive))
    }

    fn op(&mut self, op: Op<D, Work<D>>, token: Token) -> Wish<D> {
        self.in_flight += 1;
        Wish::Op(op, token)
    }

    fn poll_receive(&mut self, stream: StreamId, env: &Env<'_>) -> Option<Op<D, Work<D>>> {
        let blocks = env.blocks;
        match std::mem::replace(&mut self.receiving, Receiving::Idle) {
            Receiving::Idle if self.session.wants_frame() => {
                self.receiving = Receiving::Head;
                self.asked = env.now;
                Some(Op::RecvHead {
                    stream,
                    head: [0; FRAME_HEAD_BYTES],
                    got: 0,
                })
            }
            Receiving::WantsBlock(head, bytes) => {
                let reserve = if matches!(self.session, Session::Target(_)) {
                    SEND_RESERVE_BLOCKS
                } else {
                    0
                };
                let block = if blocks.free_count() > reserve {
                    blocks.take()
                } else {
                    None
                };
                let Some(mut buf) = block else {
                    self.receiving = Receiving::WantsBlock(head, bytes);
                    return None;
                };
                if head.payload_bytes == 0 {
                    self.frame(head, buf);
                    return self.poll_receive(stream, env);
                }
                buf[..FRAME_HEAD_BYTES].copy_from_slice(&bytes);
                self.receiving = Receiving::Body(head);
                self.asked = env.now;
                self.receiving_since = Some(env.now);
                Some(Op::Recv {
                    stream,
                    buf,
                    range: FRAME_HEAD_BYTES..FRAME_HEAD_BYTES + head.payload_bytes,
                })
            }
            Receiving::Draining if !self.is_draining => {
                self.receiving = Receiving::Draining;
                self.receiving_since.get_or_insert(env.now);
                if blocks.free_count() <= SEND_RESERVE_BLOCKS {
                    return None;
                }
                let buf = blocks.take()?;
                self.is_draining = true;
                Some(Op::Recv {
                    stream,
                    range: 0..buf.len(),
                    buf,
                })
            }
            other @ (Receiving::Idle
            | Receiving::Head
            | Receiving::Body(_)
            | Receiving::Draining
            | Receiving::HeardAll
            | Receiving::Ended) => {
                self.receiving = other;
                None
            }
        }
    }

    /// Shows that this side is alive, when it has been silent for long.
    pub fn heartbeat(&mut self, blocks: &BlockPool) -> Option<Wish<D>> {
        let Link::Stream(stream) = self.link else {
            return None;
        };
        if self.is_sending
            || self.is_ending
            || !self.session.is_greeted()
            || matches!(self.receiving, Receiving::Ended)
        {
            return None;
        }
        let mut buf = blocks.take()?;
        let len = seal(&mut buf, FrameKind::Ignorable, 0);
        self.is_sending = true;
        self.is_heartbeat = true;
        Some(self.op(
            Op::Send {
                stream,
                buf,
                range: 0..len,
            },
            Token::Send,
        ))
    }
}

fn file_of(token: Token) -> FileId {
    match token {
        Token::File(file) => file,
        Token::None | Token::Receive | Token::Send => {
            unreachable!("reads and writes are of a file")
        }
    }
}
