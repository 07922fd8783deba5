//! The source's part in large files: opened and begun, read in chunks that go as they are read, looked at
//! once more, and ended.

use super::Source;
use crate::job::Work;
use crate::job::large::{CheckLarge, OpenLarge, Opened};
use crate::job::read_pack::DirPlan;
use crate::limits::FRAME_HEAD_BYTES;
use crate::model::entry::Meta;
use crate::model::id::{DirId, FileId};
use crate::model::report::{Attempt, Side, Trouble, Why};
use crate::ops::{Buf, Disk, Errno};
use crate::stage::sender::{After, Large};
use crate::wire::FrameKind;
use crate::wire::data::{Codec, DATA_HEAD_BYTES, DataHead, End, is_zero};
use crate::wire::head::{chunk_digest, hole_digest};
use crate::wire::pack::PackOp;

impl<D: Disk> Source<D> {
    pub(super) fn opened(&mut self, job: OpenLarge<D>) {
        let (file, plan, index) = (job.file, job.plan, job.index);
        match job.opened.expect("it ran") {
            Opened::Ready(fd, stat) => {
                let block_bytes = self.sender.opened(file, fd, stat);
                let entry = plan.listing.get(index);
                let op = PackOp::Begin {
                    dir: plan.id,
                    name: entry.name,
                    file,
                    meta: Meta::from(&stat),
                    size: stat.size,
                    block_bytes,
                };
                self.packer.queue(&op);
            }
            Opened::Resting(rest, size) => self.sender.rest(file, rest, size),
            Opened::Failed(why) => {
                self.sender.finish(file, false);
                self.large_failed(&plan, index, Attempt::Open, why);
                self.large_ended(plan.id);
            }
        }
    }

    pub(super) fn chunk_read(
        &mut self,
        file: FileId,
        mut buf: Buf,
        offset: u64,
        result: Result<usize, Errno>,
    ) {
        let start = FRAME_HEAD_BYTES + DATA_HEAD_BYTES;
        let digest = match result {
            Ok(len) if len > 0 => {
                let content = &buf[start..start + len];
                let is_hole = self.sender.may_be_hole(file, offset, len) && is_zero(content);
                let (codec, content_bytes, digest) = if is_hole {
                    (Codec::Hole, 0, hole_digest(len))
                } else {
                    (Codec::Plain, len, chunk_digest(content))
                };
                DataHead {
                    file,
                    offset,
                    digest,
                    codec,
                }
                .encode(&mut buf[FRAME_HEAD_BYTES..]);
                self.totals.literal_bytes += len as u64;
                self.send(buf, FrameKind::Data, DATA_HEAD_BYTES + content_bytes);
                Some(digest)
            }
            Ok(_) | Err(_) => {
                self.blocks_held -= 1;
                None
            }
        };
        let after = self.sender.chunk_read(file, offset, digest);
        self.after_chunk(file, after);
    }

    pub(super) fn after_chunk(&mut self, file: FileId, after: After<D>) {
        match after {
            After::More => {}
            After::Check { fd, stat, digest } => self
                .jobs
                .push_back(Work::CheckLarge(CheckLarge::new(file, fd, stat, digest))),
            After::Abandon => self.finish_large(file, false, Why::Changing),
        }
    }

    pub(super) fn finish_large(&mut self, file: FileId, is_good: bool, why: Why) {
        let (large, digest) = self.sender.finish(file, is_good);
        self.ends.push_back(End { file, digest });
        let dir = large.plan.id;
        self.totals.files_sent += u64::from(digest.is_some());
        if digest.is_some() || large.was_stopped() {
            if self.sender.keep(file, large).is_some() {
                self.large_ended(dir);
            }
            return;
        }
        if let Some(Large { plan, index, .. }) = self.sender.retry(large) {
            self.large_failed(&plan, index, Attempt::Read, why);
            self.large_ended(dir);
        }
    }

    pub(super) fn large_ended(&mut self, dir: DirId) {
        self.scan.large_ended(dir);
        self.release(dir);
    }

    fn large_failed(&mut self, plan: &DirPlan<D>, index: usize, what: Attempt, why: Why) {
        let entry = plan.listing.get(index);
        let path = plan.origin(&entry).path(plan.source_name(&entry));
        self.trouble(Trouble {
            side: Side::Source,
            path,
            what,
            why,
        });
    }
}
