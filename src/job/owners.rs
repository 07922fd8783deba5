//! Owners by name. At the source the names of those that jobs meet are looked up, each once, and
//! wait to be declared; at the target a job finds the numbers that the declared names have there.
//! A lookup may ask a directory service and take its time, so it is made in jobs only.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::tree::Tree;
use crate::limits::OWNERS_DECLARED_MAX;
use crate::model::entry::Meta;
use crate::model::owner::{Owner, OwnerMap, is_owner_name};
use crate::ops::Disk;
use crate::wire::cursor::Writer;
use crate::wire::owners::{DECLARED_BYTES_MAX, Declared, Mapped};

/// The name of an owner, as the source has it.
pub type Named = (Owner, Box<[u8]>);

/// The owners that a source has met. What a job met is declared before a frame that was begun
/// after the job came back.
#[derive(Default)]
pub struct Met {
    /// Held during a lookup: a job that meets the same owner comes back with it declared, too.
    seen: Mutex<HashSet<Owner>>,
    /// Held for moments only: the session looks in here.
    found: Mutex<Vec<Named>>,
}

impl Met {
    /// Looks up those of `owners`, pairs of user and group, that were never met. Beyond the limit
    /// they stay numbers.
    pub fn meet<D: Disk>(&self, disk: &D, owners: &[(u32, u32)]) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (uid, gid) in owners {
            for owner in [Owner::user(*uid), Owner::group(*gid)] {
                if !owner.has_name() || seen.len() == OWNERS_DECLARED_MAX || !seen.insert(owner) {
                    continue;
                }
                if let Some(name) = disk.owner_name(owner).filter(|name| is_owner_name(name)) {
                    let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
                    found.push((owner, name.into()));
                }
            }
        }
    }

    /// Whether some are to be declared.
    pub fn has_found(&self) -> bool {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        !found.is_empty()
    }

    /// Declares as many as there is room for.
    pub fn declare(&self, writer: &mut Writer<'_>) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        while writer.room() >= DECLARED_BYTES_MAX
            && let Some((owner, name)) = found.pop()
        {
            Declared { owner, name: &name }.encode(writer);
        }
    }
}

/// What the jobs of a target know of the source's owners.
#[derive(Default)]
pub struct Owners {
    /// Almost every session's map is empty, and is asked for with every entry.
    has_any: AtomicBool,
    map: RwLock<OwnerMap>,
}

impl Owners {
    fn insert(&self, mapped: Mapped) {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        map.insert(mapped.owner, mapped.number);
        self.has_any.store(true, Ordering::Release);
    }

    /// Gives `meta`, which came from the source, the numbers of this host.
    pub fn translate(&self, meta: &mut Meta) {
        if self.has_any.load(Ordering::Acquire) {
            let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
            map.translate(meta);
        }
    }
}

/// Finds the numbers of owners that the source declared.
pub struct ResolveOwners<D: Disk> {
    tree: Arc<Tree<D>>,
    declared: Vec<Named>,
    /// Out: those that have another number here.
    pub mapped: Vec<Mapped>,
}

impl<D: Disk> ResolveOwners<D> {
    pub fn new(tree: Arc<Tree<D>>, declared: Vec<Named>) -> Self {
        Self {
            tree,
            declared,
            mapped: Vec::new(),
        }
    }

    pub fn run(&mut self, disk: &D) {
        for (owner, name) in self.declared.drain(..) {
            let known = disk.owner_id(owner.kind, &name);
            // All ones would mean "leave it" to chown.
            let Some(number) = known.filter(|id| *id != owner.id && *id != u32::MAX) else {
                continue;
            };
            let mapped = Mapped { owner, number };
            self.tree.owners.insert(mapped);
            self.mapped.push(mapped);
        }
    }
}
