//! The source's part in deltas: asks for sums, takes them in, and has chunks matched.

use super::{Action, SessionError, Source};
use crate::job::Work;
use crate::job::matching::MatchChunk;
use crate::limits::FRAME_HEAD_BYTES;
use crate::model::id::FileId;
use crate::model::report::{Tell, Why};
use crate::model::time::Moment;
use crate::ops::{BlockPool, Disk};
use crate::stage::sender::{After, Large};
use crate::wire::FrameKind;
use crate::wire::cursor::{Reader, Writer};
use crate::wire::report::Stop;
use crate::wire::sign::Section;

impl<D: Disk> Source<D> {
    pub(super) fn poll_delta(&mut self, blocks: &BlockPool) -> Option<Action<D>> {
        let deltas = self.sender.deltas.as_ref()?;
        let (has_asks, has_chunk) = (deltas.has_asks(), deltas.has_chunk());
        if !has_asks && !has_chunk {
            return None;
        }
        let mut buf = self.take_block(blocks)?;
        if !has_asks {
            return match self.sender.next_match(buf) {
                Ok(job) => Some(Action::Job(Work::Match(Box::new(job)))),
                Err(_) => {
                    self.blocks_held -= 1;
                    None
                }
            };
        }
        let mut writer = Writer::new(&mut buf[FRAME_HEAD_BYTES..]);
        self.sender.deltas.as_mut()?.ask(&mut writer);
        let payload_bytes = writer.at();
        self.send(buf, FrameKind::Sign, payload_bytes);
        self.send_next(Moment::default())
    }

    pub(super) fn signature(&mut self, payload: &[u8]) -> Result<(), SessionError> {
        let mut reader = Reader::new(payload, "SIGNATURE frame");
        while !reader.is_at_end() {
            let section = Section::decode(&mut reader)?;
            let sums_bytes = section.sums.map_or(0, |(_, sums)| sums.len());
            self.totals.signature_bytes += sums_bytes as u64;
            self.sender.signed(&section)?;
        }
        Ok(())
    }

    pub(super) fn matched(&mut self, job: MatchChunk<D>) {
        let (file, offset) = (job.file, job.offset);
        if let Some(deltas) = &mut self.sender.deltas {
            deltas.matched(file, job.matching, job.scratch);
        }
        let digest = job.matched.as_ref().map(|matched| matched.digest);
        match job.matched {
            Some(matched) => {
                self.totals.literal_bytes += matched.literal_bytes;
                self.totals.matched_bytes += matched.copied_bytes;
                self.send(job.buf, matched.kind, matched.payload_bytes);
            }
            None => self.blocks_held -= 1,
        }
        match self.sender.chunk_read(file, offset, digest) {
            After::Check { .. } if job.is_unchanged => {
                self.finish_large(file, true, Why::Changing);
            }
            after @ (After::More | After::Check { .. } | After::Abandon) => {
                self.after_chunk(file, after);
            }
        }
    }

    fn resends(&mut self, file: FileId) {
        let Some(Large { plan, index, .. }) = self.sender.delta_of(file) else {
            return;
        };
        let entry = plan.listing.get(*index);
        let dir = self.scan.path(plan.id);
        let path = match &*dir {
            [] => entry.name.bytes().to_vec(),
            dir => [dir, b"/", entry.name.bytes()].concat(),
        };
        self.totals.files_resent += 1;
        self.tells.push_back(Tell::Resent { path });
    }

    pub(super) fn stops(&mut self, payload: &[u8]) -> Result<(), SessionError> {
        let mut reader = Reader::new(payload, "STOP frame");
        while !reader.is_at_end() {
            match Stop::decode(&mut reader)? {
                Stop::Dir(dir) => {
                    if let Some(node) = self.scan.node(dir) {
                        node.is_lost = true;
                    }
                }
                Stop::File(file) | Stop::Settled(file)
                    if let Some(large) = self.sender.settled(file) =>
                {
                    self.large_ended(large.plan.id);
                }
                Stop::Settled(_) => {}
                Stop::Again(file) => {
                    self.resends(file);
                    let after = self.sender.wanted_again(file);
                    self.after_chunk(file, after);
                }
                Stop::File(file) => {
                    let after = self.sender.stop(file);
                    self.after_chunk(file, after);
                }
            }
        }
        Ok(())
    }
}
