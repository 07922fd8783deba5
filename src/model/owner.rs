//! `Owner`, a user or group by its number on one host, and `OwnerMap`, the numbers that the owners
//! of another host have on this one.

use std::collections::HashMap;

use super::entry::Meta;
use crate::limits::OWNER_NAME_BYTES_MAX;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OwnerKind {
    User,
    Group,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Owner {
    pub kind: OwnerKind,
    pub id: u32,
}

impl Owner {
    pub fn user(id: u32) -> Self {
        let kind = OwnerKind::User;
        Self { kind, id }
    }

    pub fn group(id: u32) -> Self {
        let kind = OwnerKind::Group;
        Self { kind, id }
    }

    /// Whether it is translated at all: root is root everywhere, and all ones is nobody.
    pub fn has_name(self) -> bool {
        self.id != 0 && self.id != u32::MAX
    }
}

/// Whether a user or group can be called so: 1 to 255 bytes that fit into a line of `/etc/passwd`.
pub fn is_owner_name(name: &[u8]) -> bool {
    let fits = !name.is_empty() && name.len() <= OWNER_NAME_BYTES_MAX;
    fits && !name.iter().any(|byte| matches!(byte, 0 | b':' | b'\n'))
}

/// The target's numbers of the source's owners, where they are others.
#[derive(Clone, Default, Debug)]
pub struct OwnerMap {
    users: HashMap<u32, u32>,
    groups: HashMap<u32, u32>,
}

impl OwnerMap {
    pub fn insert(&mut self, owner: Owner, id: u32) {
        let ids = match owner.kind {
            OwnerKind::User => &mut self.users,
            OwnerKind::Group => &mut self.groups,
        };
        ids.insert(owner.id, id);
    }

    pub fn len(&self) -> usize {
        self.users.len() + self.groups.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn uid(&self, uid: u32) -> u32 {
        self.users.get(&uid).copied().unwrap_or(uid)
    }

    pub fn gid(&self, gid: u32) -> u32 {
        self.groups.get(&gid).copied().unwrap_or(gid)
    }

    /// Gives `meta` the target's numbers.
    pub fn translate(&self, meta: &mut Meta) {
        (meta.uid, meta.gid) = (self.uid(meta.uid), self.gid(meta.gid));
    }
}
