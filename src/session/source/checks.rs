//! The source's part in a push that goes by content: asks for digests, has its own files read, and
//! gives them their verdicts.

use super::{Action, SessionError, Source};
use crate::job::Work;
use crate::job::digest::DigestFiles;
use crate::limits::FRAME_HEAD_BYTES;
use crate::model::id::DirId;
use crate::model::time::Moment;
use crate::ops::{BlockPool, Disk};
use crate::stage::scan::Progress;
use crate::wire::FrameKind;
use crate::wire::cursor::Writer;

impl<D: Disk> Source<D> {
    pub(super) fn poll_checks(&mut self, blocks: &BlockPool) -> Option<Action<D>> {
        if let Some(job) = self.checks.next_job() {
            return Some(Action::Job(Work::Digest(job)));
        }
        if !self.checks.can_ask() {
            return None;
        }
        let mut buf = self.take_block(blocks)?;
        let mut writer = Writer::new(&mut buf[FRAME_HEAD_BYTES..]);
        self.checks.ask(&mut self.scan, &self.cache, &mut writer);
        let payload_bytes = writer.at();
        self.send(buf, FrameKind::Check, payload_bytes);
        self.send_next(Moment::default())
            .or_else(|| self.checks.next_job().map(Work::Digest).map(Action::Job))
    }

    pub(super) fn digested(&mut self, job: Box<DigestFiles<D>>) {
        if let Some(number) = self.checks.came_back(job) {
            self.compared(number);
        }
    }

    pub(super) fn digests(&mut self, payload: &[u8]) -> Result<(), SessionError> {
        let number = self.checks.answered(payload)?;
        self.compared(number);
        Ok(())
    }

    fn compared(&mut self, number: u32) {
        let Some(files) = self.checks.take_compared(number) else {
            return;
        };
        for (dir, index, is_same) in files {
            let node = self.scan.node(dir).expect("open while it is checked");
            let Progress::Checking(checking) = &mut node.progress else {
                unreachable!("checked until all is settled")
            };
            checking.settle(index, is_same);
            if checking.is_settled() {
                self.all_compared(dir);
            }
        }
    }

    /// Every file of the directory has its verdict.
    fn all_compared(&mut self, dir: DirId) {
        let node = self.scan.node(dir).expect("looked up by the caller");
        let checked = std::mem::replace(&mut node.progress, Progress::Listing);
        let Progress::Checking(checking) = checked else {
            unreachable!("matched by the caller")
        };
        let mut items = Vec::new();
        let (totals, wants_items) = (&mut self.totals, self.wants_items);
        let is_dry = self.hello.policy.dry_run;
        node.progress = checking.ready(&mut |listing, index, change| {
            totals.plan(&change, listing.size(index), is_dry);
            if wants_items {
                items.push((listing.name(index).into(), change));
            }
        });
        self.tell_items(dir, items);
    }
}
