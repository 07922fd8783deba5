//! `Listing`, one directory's entries in a single arena: sorted by name, no allocation per entry.

use std::cmp::Ordering;

use super::entry::{Kind, Meta, Stat};
use super::name::Name;
use super::time::Mtime;

/// The fixed part of an entry: 40 bytes, because a directory may hold a million of them.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Bytes of a file or link target; device number of a device.
    size: u64,
    mtime_sec: i64,
    mtime_nsec: u32,
    /// Low half of the inode number: tells a swapped file from the scanned one.
    ino_low: u32,
    /// Index into `owners`.
    owner_index: u32,
    name_start: u32,
    /// Type and permission bits.
    st_mode: u16,
    /// Which of several merged sources it came from.
    origin: u16,
    name_len: u8,
    /// A marker of an interrupted session makes its content doubtful.
    is_suspect: bool,
}

const _: () = assert!(size_of::<Slot>() == 40);

/// One entry, as it is handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    pub name: Name<'a>,
    pub meta: Meta,
    pub size: u64,
    pub ino_low: u32,
    pub origin: u16,
    pub is_suspect: bool,
}

/// The entries of one directory.
#[derive(Default, Debug)]
pub struct Listing {
    names: Vec<u8>,
    slots: Vec<Slot>,
    owners: Vec<(u32, u32)>,
}

impl Listing {
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// User and group of its entries, each pair at least once.
    pub fn owners(&self) -> &[(u32, u32)] {
        &self.owners
    }

    /// Bytes of memory it stands for, for budgets.
    pub fn footprint_bytes(&self) -> usize {
        self.names.len() + self.slots.len() * size_of::<Slot>()
    }

    /// Keeps the memory for the next directory, unless it was a giant.
    pub fn clear(&mut self) {
        const KEEP_ENTRIES_MAX: usize = 16 * 1024;
        if self.slots.capacity() > KEEP_ENTRIES_MAX {
            *self = Self::default();
        }
        self.names.clear();
        self.slots.clear();
        self.owners.clear();
    }

    /// Appends an entry; `sort` brings the order.
    ///
    /// # Panics
    /// When the names of one directory pass 4 GiB, which `limits::DIR_ENTRIES_MAX` rules out.
    /// The same without what came from one of its origins.
    pub fn without_origin(&self, origin: u16) -> Self {
        let mut rest = Self::default();
        let others = self.iter().filter(|entry| entry.origin != origin);
        others.for_each(|entry| rest.push_entry(entry));
        rest
    }

    pub fn push(&mut self, name: Name<'_>, stat: &Stat) {
        let meta = Meta::from(stat);
        let low = u32::try_from(stat.ino & u64::from(u32::MAX)).expect("masked to 32 bits");
        self.push_entry(Entry {
            name,
            meta,
            size: stat.size,
            ino_low: low,
            origin: 0,
            is_suspect: false,
        });
    }

    /// Appends an entry as it stands in another listing.
    ///
    /// # Panics
    /// As `push`.
    pub fn push_entry(&mut self, entry: Entry<'_>) {
        let bytes = entry.name.bytes();
        let owner = (entry.meta.uid, entry.meta.gid);
        let slot = Slot {
            size: entry.size,
            mtime_sec: entry.meta.mtime.sec,
            mtime_nsec: entry.meta.mtime.nsec,
            ino_low: entry.ino_low,
            owner_index: self.owner_index(owner),
            name_start: u32::try_from(self.names.len())
                .expect("limits bound the names of a directory"),
            st_mode: entry.meta.kind.mode_bits() | entry.meta.mode,
            origin: entry.origin,
            name_len: u8::try_from(bytes.len()).expect("a Name has at most 255 bytes"),
            is_suspect: entry.is_suspect,
        };
        self.names.extend_from_slice(bytes);
        self.slots.push(slot);
    }

    fn owner_index(&mut self, owner: (u32, u32)) -> u32 {
        // Almost every directory has one owner; a handful at most is looked through from the end.
        const LOOK_BACK: usize = 16;
        let found = self
            .owners
            .iter()
            .rev()
            .take(LOOK_BACK)
            .position(|known| *known == owner);
        let index = match found {
            Some(back) => self.owners.len() - 1 - back,
            None => {
                self.owners.push(owner);
                self.owners.len() - 1
            }
        };
        u32::try_from(index).expect("no more owners than entries")
    }

    pub fn get(&self, index: usize) -> Entry<'_> {
        let slot = &self.slots[index];
        let (uid, gid) = self.owners[slot.owner_index as usize];
        Entry {
            name: Name::any(self.name_bytes(slot)).expect("was a Name when it was pushed"),
            meta: Meta {
                kind: Kind::from_mode(slot.st_mode).expect("was a Kind when it was pushed"),
                mode: slot.st_mode & 0o7777,
                uid,
                gid,
                mtime: Mtime {
                    sec: slot.mtime_sec,
                    nsec: slot.mtime_nsec,
                },
            },
            size: slot.size,
            ino_low: slot.ino_low,
            origin: slot.origin,
            is_suspect: slot.is_suspect,
        }
    }

    pub fn name(&self, index: usize) -> &[u8] {
        self.name_bytes(&self.slots[index])
    }

    pub fn kind(&self, index: usize) -> Kind {
        Kind::from_mode(self.slots[index].st_mode).expect("was a Kind when it was pushed")
    }

    pub fn size(&self, index: usize) -> u64 {
        self.slots[index].size
    }

    pub fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        (0..self.len()).map(|index| self.get(index))
    }

    fn name_bytes(&self, slot: &Slot) -> &[u8] {
        let start = slot.name_start as usize;
        &self.names[start..start + slot.name_len as usize]
    }

    /// Brings the entries into byte order of their names.
    pub fn sort(&mut self) {
        let names = &self.names;
        let name = |slot: &Slot| &names[slot.name_start as usize..][..slot.name_len as usize];
        if !self.slots.is_sorted_by(|a, b| name(a) < name(b)) {
            self.slots.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        }
    }

    /// Brings the entries of several merged directories into order: of entries with one name a
    /// directory wins, then the lowest origin. Hands the directories that a directory of the same
    /// name hides to `also`, by name and origin.
    pub fn sort_and_merge(&mut self, mut also: impl FnMut(&[u8], u16)) {
        let names = &self.names;
        let name = |slot: &Slot| &names[slot.name_start as usize..][..slot.name_len as usize];
        if self.slots.is_sorted_by(|a, b| name(a) < name(b)) {
            return;
        }
        let is_dir = |slot: &Slot| Kind::from_mode(slot.st_mode) == Some(Kind::Dir);
        let rank = |slot: &Slot| (!is_dir(slot), slot.origin);
        self.slots
            .sort_unstable_by(|a, b| name(a).cmp(name(b)).then_with(|| rank(a).cmp(&rank(b))));
        self.slots.dedup_by(|next, kept| {
            let is_same = name(next) == name(kept);
            if is_same && is_dir(next) {
                also(name(next), next.origin);
            }
            is_same
        });
    }

    /// Says from which of several sources the entries from `start` on came.
    pub fn set_origin(&mut self, start: usize, origin: u16) {
        for slot in &mut self.slots[start..] {
            slot.origin = origin;
        }
    }

    /// Whether the names strictly ascend, as a merge needs them.
    pub fn is_strictly_sorted(&self) -> bool {
        self.slots
            .is_sorted_by(|a, b| self.name_bytes(a).cmp(self.name_bytes(b)) == Ordering::Less)
    }

    /// Drops the entries that `keep` refuses; the order stays.
    pub fn retain(&mut self, mut keep: impl FnMut(Entry<'_>) -> bool) {
        let mut kept = 0;
        for index in 0..self.slots.len() {
            if keep(self.get(index)) {
                self.slots.swap(kept, index);
                kept += 1;
            }
        }
        self.slots.truncate(kept);
    }

    /// Marks the entry at `index`.
    pub fn mark_suspect(&mut self, index: usize) {
        self.slots[index].is_suspect = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(uid: u32, size: u64) -> Stat {
        let mtime = Mtime { sec: -5, nsec: 7 };
        Stat {
            kind: Kind::File,
            mode: 0o6755,
            uid,
            gid: 9,
            size,
            is_sparse: false,
            mtime,
            ctime: mtime,
            dev: 1,
            ino: 1 << 33 | 5,
            nlink: 1,
        }
    }

    #[test]
    fn entries_come_back_as_they_were_pushed_in_byte_order() {
        let mut listing = Listing::default();
        for (name, uid) in [(&b"b"[..], 1), (b"a\xff", 2), (b"a", 1), (b"B", 3)] {
            listing.push(Name::new(name).unwrap(), &stat(uid, u64::from(uid)));
        }
        listing.sort();
        assert!(listing.is_strictly_sorted());
        let names: Vec<_> = listing.iter().map(|e| e.name.bytes().to_vec()).collect();
        assert_eq!(names, [&b"B"[..], b"a", b"a\xff", b"b"]);
        let entry = listing.get(2);
        assert_eq!(
            (entry.meta.uid, entry.meta.gid, entry.size, entry.ino_low),
            (2, 9, 2, 5)
        );
        assert_eq!(
            (entry.meta.mode, entry.meta.mtime.sec, entry.meta.mtime.nsec),
            (0o6755, -5, 7)
        );
    }

    #[test]
    fn the_same_name_twice_is_not_strictly_sorted() {
        let mut listing = Listing::default();
        for _ in 0..2 {
            listing.push(Name::new(b"x").unwrap(), &stat(0, 0));
        }
        listing.sort();
        assert!(!listing.is_strictly_sorted());
    }
}
