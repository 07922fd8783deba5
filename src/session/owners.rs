//! `Owners`, how far a target has got with the names that a source declares: looked up in jobs
//! before a later PACK is applied, and answered before a later LIST is.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::job::owners::{Named, ResolveOwners};
use crate::job::tree::Tree;
use crate::limits::{OWNERS_DECLARED_MAX, OWNERS_PER_JOB_MAX};
use crate::model::owner::Owner;
use crate::ops::Disk;
use crate::wire::WireError;
use crate::wire::cursor::{Reader, Writer};
use crate::wire::owners::{Declared, MAPPED_BYTES, Mapped};

#[derive(Default)]
pub(super) struct Owners {
    declared: HashSet<Owner>,
    /// To be looked up.
    waiting: VecDeque<Named>,
    is_resolving: bool,
    /// To be told.
    mapped: VecDeque<Mapped>,
}

impl Owners {
    /// Takes an OWNERS frame. Without `are_set` the session sets no owners: names are checked only.
    pub(super) fn take(&mut self, payload: &[u8], are_set: bool) -> Result<(), WireError> {
        let mut reader = Reader::new(payload, "OWNERS frame");
        while !reader.is_at_end() {
            let Declared { owner, name } = Declared::decode(&mut reader)?;
            if self.declared.len() == OWNERS_DECLARED_MAX {
                return Err(WireError::TooMany {
                    what: "owners",
                    max: OWNERS_DECLARED_MAX,
                });
            }
            if !self.declared.insert(owner) {
                return Err(WireError::OwnerTwice(owner.id));
            }
            if are_set {
                self.waiting.push_back((owner, name.into()));
            }
        }
        Ok(())
    }

    /// The next names to look up; one job at a time.
    pub(super) fn next_job<D: Disk>(&mut self, tree: &Arc<Tree<D>>) -> Option<ResolveOwners<D>> {
        if self.is_resolving || self.waiting.is_empty() {
            return None;
        }
        self.is_resolving = true;
        let count = self.waiting.len().min(OWNERS_PER_JOB_MAX);
        let names = self.waiting.drain(..count).collect();
        Some(ResolveOwners::new(Arc::clone(tree), names))
    }

    pub(super) fn resolved(&mut self, mapped: Vec<Mapped>) {
        self.is_resolving = false;
        self.mapped.extend(mapped);
    }

    /// Whether the numbers of all that were declared are known: PACKs may be applied.
    pub(super) fn are_known(&self) -> bool {
        self.waiting.is_empty() && !self.is_resolving
    }

    /// Whether the source has been told, too: directories may be listed for it.
    pub(super) fn are_told(&self) -> bool {
        self.are_known() && self.mapped.is_empty()
    }

    /// Whether there is something to tell.
    pub(super) fn has_news(&self) -> bool {
        !self.mapped.is_empty()
    }

    /// Tells as much as there is room for.
    pub(super) fn tell(&mut self, writer: &mut Writer<'_>) {
        while writer.room() >= MAPPED_BYTES
            && let Some(mapped) = self.mapped.pop_front()
        {
            mapped.encode(writer);
        }
    }

    /// The session ends: a job that runs comes back, the rest is dropped.
    pub(super) fn drop_waiting(&mut self) {
        self.waiting.clear();
        self.mapped.clear();
    }
}
