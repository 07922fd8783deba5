//! The chunks of large files: checked, written, and counted until the file is whole.

use std::sync::Arc;

use super::{Held, Incoming, Target};
use crate::job::Work;
use crate::job::basis::Basis;
use crate::job::in_place::Punch;
use crate::job::large::{EndLarge, Fate};
use crate::job::partial::Keep;
use crate::job::tree::{Fatal, is_fatal};
use crate::limits::{FRAME_HEAD_BYTES, PARTIAL_BYTES_MIN};
use crate::model::id::FileId;
use crate::model::report::{Attempt, Why};
use crate::ops::disk::SharedFd;
use crate::ops::{Buf, Disk, Errno};
use crate::session::SessionError;
use crate::wire::data::{Codec, DataHead, End};
use crate::wire::head::{chunk_digest, hole_digest};
use crate::wire::report::Stop;
use crate::wire::sign::chunk_bytes_at;
use crate::wire::{FrameKind, Head, WireError};

/// What is done with a chunk: where, how many bytes, and at which offset.
enum Taken<D: Disk> {
    Write(SharedFd<D>, usize, u64),
    Punch(SharedFd<D>, usize, u64),
    Dropped,
}

impl<D: Disk> Target<D> {
    pub(super) fn file_frame(&mut self, head: Head, buf: Buf) -> Result<(), SessionError> {
        let held = Held { head, buf };
        let file = held.file();
        if !self.incoming.contains_key(&file) {
            if self.is_applying || !self.packs.is_empty() {
                self.held = Some(held); // Its BEGIN is in a PACK that is not applied yet.
                return Ok(());
            }
            self.recv_held -= 1;
            return Err(WireError::UnknownFile(file.0).into());
        }
        let Held { head, buf } = held;
        if head.kind == FrameKind::End {
            self.recv_held -= 1;
            let end = End::decode(&buf[FRAME_HEAD_BYTES..][..head.payload_bytes])?;
            let incoming = self.incoming.get_mut(&end.file).expect("looked up above");
            if incoming.end.replace(end).is_some() {
                return Err(WireError::UnknownFile(end.file.0).into());
            }
            self.end_if_ready(end.file);
            return Ok(());
        }
        if head.kind == FrameKind::Tokens {
            return self.tokens(&head, buf);
        }
        let taken = self.data(&head, &buf);
        match taken {
            Ok(Taken::Write(fd, len, offset)) => {
                self.writes.push_back((file, fd, buf, len, offset));
                Ok(())
            }
            Ok(Taken::Punch(fd, len, offset)) => {
                self.punch(file, fd, buf, (offset, len));
                Ok(())
            }
            Ok(Taken::Dropped) => {
                self.recv_held -= 1;
                Ok(())
            }
            Err(error) => {
                self.recv_held -= 1;
                Err(error)
            }
        }
    }

    /// A hole in a file that has content there.
    fn punch(&mut self, file: FileId, fd: SharedFd<D>, buf: Buf, (offset, len): (u64, usize)) {
        let incoming = self.incoming.get_mut(&file);
        incoming.expect("looked up by the caller").writes_in_flight += 1;
        self.writes_running += 1;
        let job = Punch::new(file, fd, buf, offset, len);
        self.jobs.push_back(Work::Punch(job));
    }

    pub(super) fn punched(&mut self, job: Punch<D>) {
        self.recv_held -= 1;
        self.writes_running -= 1;
        self.written(job.file, job.result);
    }

    /// Some file that is updated in place was given up, and is still being written to. It may begin
    /// again in the next PACK, and what is under way must not come after what is new.
    pub(super) fn is_letting_go(&self) -> bool {
        let is_going = |incoming: &Incoming<D>| {
            let is_given_up = |end: End| end.digest.is_none() || incoming.is_wrong;
            incoming.standing_bytes.is_some() && incoming.end.is_some_and(is_given_up)
        };
        self.tree().policy.in_place
            && (self.drops_running > 0 || self.incoming.values().any(is_going))
    }

    /// Checks a chunk and enters it.
    fn data(&mut self, head: &Head, buf: &Buf) -> Result<Taken<D>, SessionError> {
        let (head, content) = DataHead::decode(&buf[FRAME_HEAD_BYTES..][..head.payload_bytes])?;
        let DataHead { file, offset, .. } = head;
        let incoming = self
            .incoming
            .get_mut(&file)
            .expect("looked up by the caller");
        let (len, digest) = match head.codec {
            Codec::Plain => (content.len(), chunk_digest(content)),
            Codec::Hole => {
                let len = chunk_bytes_at(offset, incoming.size).unwrap_or(0);
                (len, hole_digest(len))
            }
        };
        incoming.enter(file, &head, len as u64)?;
        if digest != head.digest {
            return Err(WireError::BodyDamaged {
                kind: FrameKind::Data as u8,
            }
            .into());
        }
        self.totals.literal_bytes += len as u64;
        let fd = incoming.fd.as_ref().filter(|_| incoming.failed.is_none());
        let fd = fd.map(Arc::clone);
        if head.codec == Codec::Hole {
            incoming.has_holes = true; // It grows over them at its end.
            let has_content = incoming.standing_bytes.is_some_and(|old| offset < old);
            let fd = fd.filter(|_| has_content);
            return Ok(fd.map_or(Taken::Dropped, |fd| Taken::Punch(fd, len, offset)));
        }
        let Some(fd) = fd else {
            return Ok(Taken::Dropped);
        };
        incoming.writes_in_flight += 1;
        Ok(Taken::Write(fd, len, offset))
    }

    /// Files under way of which what arrived is worth keeping, when the session breaks off. What a basis gave is there to
    /// give it again: of a file that is an old version for the most part the rest would not go as a delta of that any more.
    /// A disk that is full gets its space back. A part that this one was made of gives way to it where it has
    /// turned out to be of little use, or has no more.
    pub(super) fn worth_keeping(&self) -> Vec<(FileId, Keep)> {
        if !self.tree().policy.partial || self.fatal.is_some() {
            return Vec::new();
        }
        let kept_as = |incoming: &Incoming<D>| {
            let literal = incoming.received.saturating_sub(incoming.copied);
            let is_new = literal >= PARTIAL_BYTES_MIN && literal >= incoming.copied;
            let partial = incoming.basis.as_ref().filter(|basis| basis.is_partial);
            let is_good = incoming.failed.is_none() && !incoming.is_wrong;
            let (is_worth_it, keep) = match partial.map(|partial| partial.bytes) {
                None => (is_new, Keep::IfLarger),
                Some(bytes) => {
                    let is_more = incoming.received >= bytes;
                    let is_better = is_new && incoming.received >= bytes / 2;
                    (is_more || is_better, Keep::Instead)
                }
            };
            (is_good && is_worth_it).then_some(keep)
        };
        let files = self.incoming.iter();
        let files = files.filter_map(|(file, incoming)| Some((*file, kept_as(incoming)?)));
        files.collect()
    }

    pub(super) fn written(&mut self, file: FileId, result: Result<(), Errno>) {
        let Some(incoming) = self.incoming.get_mut(&file) else {
            return;
        };
        incoming.writes_in_flight -= 1;
        if let Err(errno) = result
            && incoming.failed.is_none()
        {
            // What comes again anyway must not be given up.
            if !incoming.is_wrong {
                incoming.failed = Some(errno);
                self.stops.push_back(Stop::File(file));
            }
            if is_fatal(errno) && self.fatal.is_none() {
                self.fatal = Some(Fatal {
                    path: self.tree().incoming_path(file),
                    attempt: Attempt::Write,
                    errno,
                });
            }
        }
        self.end_if_ready(file);
    }

    /// Ends a large file once its END came and its last write is back.
    fn end_if_ready(&mut self, file: FileId) {
        let Some(incoming) = self.incoming.get(&file) else {
            return;
        };
        let Some(end) = incoming.end.filter(|_| incoming.writes_in_flight == 0) else {
            return;
        };
        let incoming = self.incoming.remove(&file).expect("looked up above");
        self.weaving.ended(file);
        let was_stopped = incoming.is_wrong || incoming.failed.is_some() || incoming.fd.is_none();
        if incoming.is_delta && !was_stopped && end.digest.is_some() {
            self.stops.push_back(Stop::Settled(file));
        }
        if self.incoming.is_empty() {
            self.weaving.rest();
        }
        if incoming.fd.is_none() {
            return;
        }
        let is_whole = incoming.received == incoming.size;
        let fate = match (incoming.failed, end.digest) {
            _ if incoming.is_wrong => Fate::Drop,
            (Some(errno), _) => Fate::Fail(Attempt::Write, Why::Errno(errno)),
            (None, None) => Fate::Drop,
            (None, Some(digest)) if is_whole && digest == incoming.digest => Fate::Keep,
            (None, Some(_)) => Fate::Fail(Attempt::Write, Why::Digest),
        };
        self.ends_running += 1;
        self.drops_running += usize::from(fate == Fate::Drop);
        self.jobs.push_back(Work::EndLarge(EndLarge::new(
            self.tree(),
            file,
            fate,
            (incoming.size, incoming.has_holes),
            incoming.basis.and_then(Basis::if_slow_to_free),
        )));
    }
}
