//! Files of the target that a source wants the digests of: read in jobs, some at once, and answered as each
//! CHECK is done. A large file goes to the back of the line after each job, and holds neither a block nor a
//! descriptor there.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::delta::strong::Key;
use crate::job::digest::{Cache, DigestFiles};
use crate::job::tree::Tree;
use crate::limits::{CHECKS_WAITING_MAX, DIGEST_BUDGET_BYTES, DIGEST_JOBS_MAX};
use crate::ops::Disk;
use crate::wire::WireError;
use crate::wire::check::{decode_check, encode_digest};
use crate::wire::cursor::Writer;

pub(super) struct Digesting<D: Disk> {
    key: Key,
    waiting: VecDeque<Box<DigestFiles<D>>>,
    running: usize,
    /// Those that are finished and not answered.
    finished: VecDeque<Box<DigestFiles<D>>>,
}

impl<D: Disk> Default for Digesting<D> {
    fn default() -> Self {
        Self {
            key: Key::new(&[0; 32]),
            waiting: VecDeque::new(),
            running: 0,
            finished: VecDeque::new(),
        }
    }
}

impl<D: Disk> Digesting<D> {
    pub(super) fn set_key(&mut self, key: &[u8; 32]) {
        self.key = Key::new(key);
    }

    /// Takes in a CHECK.
    pub(super) fn asked(&mut self, payload: &[u8], tree: &Arc<Tree<D>>) -> Result<(), WireError> {
        if self.waiting.len() + self.running + self.finished.len() >= CHECKS_WAITING_MAX {
            return Err(WireError::TooMany {
                what: "asks for digests that wait",
                max: CHECKS_WAITING_MAX,
            });
        }
        let mut job = DigestFiles::new(
            0,
            Cache::Target(Arc::clone(tree)),
            self.key,
            DIGEST_BUDGET_BYTES,
        );
        let mut last = None;
        job.number = decode_check(payload, |item| {
            let dir = match last.take() {
                Some((id, dir)) if id == item.dir => dir,
                Some(_) | None => tree.find(item.dir)?.0,
            };
            job.push(&dir, item.name.bytes(), item.size, None);
            last = Some((item.dir, dir));
            Ok(())
        })?;
        self.waiting.push_back(Box::new(job));
        Ok(())
    }

    pub(super) fn next_job(&mut self) -> Option<Box<DigestFiles<D>>> {
        if self.running >= DIGEST_JOBS_MAX {
            return None;
        }
        let job = self.waiting.pop_front()?;
        self.running += 1;
        Some(job)
    }

    pub(super) fn came_back(&mut self, job: Box<DigestFiles<D>>) {
        self.running -= 1;
        if job.is_finished() {
            self.finished.push_back(job);
        } else {
            self.waiting.push_back(job);
        }
    }

    pub(super) fn has_answer(&self) -> bool {
        !self.finished.is_empty()
    }

    /// Writes the next DIGESTS.
    pub(super) fn answer(&mut self, writer: &mut Writer<'_>) {
        let Some(job) = self.finished.pop_front() else {
            return;
        };
        writer.u32(job.number);
        for digest in &job.digests {
            encode_digest(writer, digest.as_ref().map(|digest| &digest.0));
        }
    }

    /// Nothing waits and nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running == 0 && self.finished.is_empty()
    }

    /// The session ends: jobs that run come back, the rest is dropped.
    pub(super) fn drop_waiting(&mut self) {
        self.waiting.clear();
        self.finished.clear();
    }
}
