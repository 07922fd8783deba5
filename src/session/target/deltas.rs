//! The target's part in deltas: sums bases for the source, and puts chunks together.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Incoming, Target};
use crate::job::Work;
use crate::job::basis::{Onto, Sign, Weave, Woven};
use crate::limits::{FRAME_HEAD_BYTES, NOTICES_WAITING_MAX};
use crate::model::id::FileId;
use crate::ops::{BlockPool, Buf, Disk};
use crate::session::{Action, SessionError};
use crate::wire::report::Stop;
use crate::wire::sign::{chunk_bytes_at, decode_tokens};
use crate::wire::{FrameKind, Head, WireError};

impl<D: Disk> Target<D> {
    pub(super) fn poll_weaving(&mut self, blocks: &BlockPool) -> Option<Action<D>> {
        if self.stops.len() < NOTICES_WAITING_MAX
            && let Some(job) = self.weaving.next_weave()
        {
            return Some(Action::Job(Work::Weave(job)));
        }
        // An ask follows the BEGIN of its file; what is not there then has ended.
        let is_applied = self.packs.is_empty() && !self.is_applying;
        let basis_in = |files: &HashMap<FileId, Incoming<D>>, file| match files.get(&file) {
            Some(incoming) => Some(incoming.basis.clone()),
            None if is_applied => Some(None),
            None => None,
        };
        let files = &self.incoming;
        if !self.weaving.can_sign(|file| basis_in(files, file)) {
            return None;
        }
        let buf = self.take_block(blocks)?;
        let files = &self.incoming;
        let job = self.weaving.next_sign(buf, |file| basis_in(files, file));
        Some(Action::Job(Work::Sign(job)))
    }

    pub(super) fn signed(&mut self, job: Sign<D>) {
        self.weaving.signed(job);
        while let Some((buf, payload_bytes)) = self.weaving.next_answer() {
            if self.error.is_none() && self.fatal.is_none() {
                self.send(buf, FrameKind::Signature, payload_bytes);
            } else {
                self.send_held -= 1;
            }
        }
    }

    /// Enters a chunk that is to be put together. Its file was looked up by the caller.
    pub(super) fn tokens(&mut self, head: &Head, buf: Buf) -> Result<(), SessionError> {
        let entered = self.enter(head, buf);
        if !matches!(entered, Ok(true)) {
            self.recv_held -= 1;
        }
        entered.map(drop)
    }

    /// `false`: the chunk is dropped.
    fn enter(&mut self, head: &Head, buf: Buf) -> Result<bool, SessionError> {
        let payload_bytes = head.payload_bytes;
        let (head, _) = decode_tokens(&buf[FRAME_HEAD_BYTES..][..payload_bytes])?;
        let file = head.file;
        let copies_stay = self.tree().policy.in_place;
        let incoming = self.incoming.get_mut(&file);
        let incoming = incoming.ok_or(WireError::UnknownFile(file.0))?;
        let chunk_bytes =
            chunk_bytes_at(head.offset, incoming.size).ok_or(WireError::BeyondSize(file.0))?;
        incoming.enter(file, &head, chunk_bytes as u64)?;
        if !incoming.is_delta {
            let why = "it has no basis".to_owned();
            return Err(WireError::Tokens { file: file.0, why }.into());
        }
        if incoming.fd.is_none() || incoming.failed.is_some() || incoming.is_wrong {
            return Ok(false);
        }
        let Some(basis) = &incoming.basis else {
            // Nothing was signed: no source has a reason to send it.
            let why = "it has no basis".to_owned();
            return Err(WireError::Tokens { file: file.0, why }.into());
        };
        incoming.writes_in_flight += 1;
        let basis = basis.clone();
        let fd = incoming.fd.as_ref().expect("looked at above");
        let onto = match incoming.standing_bytes {
            Some(_) => Onto::Itself(Arc::clone(fd)),
            None => Onto::Another { copies_stay },
        };
        let job = Weave::new(file, (basis, onto), buf, payload_bytes, chunk_bytes);
        self.weaving.weave(job);
        Ok(true)
    }

    pub(super) fn woven(&mut self, job: Weave<D>) -> Result<(), SessionError> {
        let file = job.file;
        let Some((woven, buf)) = self.weaving.woven(job) else {
            self.recv_held -= 1;
            return Ok(()); // It panicked; the caller says so.
        };
        let incoming = self.incoming.get_mut(&file);
        let incoming = incoming.expect("it does not end before its chunks are back");
        match woven {
            Woven::Whole {
                offset,
                len,
                copied_bytes,
            } => {
                self.totals.literal_bytes += len as u64 - copied_bytes;
                self.totals.matched_bytes += copied_bytes;
                incoming.copied += copied_bytes;
                let fd = incoming.fd.clone().expect("looked at when it was entered");
                self.writes.push_back((file, fd, buf, len, offset));
                Ok(())
            }
            Woven::Written {
                len,
                copied_bytes,
                result,
            } => {
                self.recv_held -= 1;
                self.totals.literal_bytes += len as u64 - copied_bytes;
                self.totals.matched_bytes += copied_bytes;
                self.written(file, result);
                Ok(())
            }
            Woven::Wrong => {
                self.recv_held -= 1;
                if !incoming.is_wrong && incoming.failed.is_none() {
                    self.stops.push_back(Stop::Again(file));
                    incoming.is_wrong = true;
                }
                self.written(file, Ok(()));
                Ok(())
            }
            Woven::Forbidden(error) => {
                self.recv_held -= 1;
                self.written(file, Ok(()));
                Err(error.into())
            }
        }
    }
}
