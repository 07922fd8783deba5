//! The generator: merges a directory of the source with the target's LISTING of it, entry by
//! entry as the LISTING arrives, and gives every name its verdict. It keeps one byte per entry
//! of the source, the names to delete, and some partial files; the target's entries are never stored.

use crate::job::read_pack::Verdict;
use crate::limits::{PACK_FILE_BYTES_MAX, PARTIAL_BYTES_MIN, PARTIALS_PER_DIR_MAX};
use crate::model::entry::{Kind, Meta};
use crate::model::listing::{Entry, Listing};
use crate::model::owner::OwnerMap;
use crate::model::partial::{NameHash, PartialName};
use crate::model::policy::Sameness;
use crate::model::report::{Change, What};
use crate::wire::WireError;
use crate::wire::hello::Rights;
use crate::wire::pack::Room;

/// A merge under way.
pub struct Merge {
    /// The first entry of the source that is not behind the target's names yet.
    next: usize,
    last_name: Vec<u8>,
    verdicts: Vec<Verdict>,
    deletes: Deletes,
    /// Subdirectories on both sides whose own metadata differs, by index.
    dirs_differ: Vec<u32>,
    /// Subdirectories whose names the target does not have, by index.
    dirs_absent: Vec<u32>,
    /// Files that may go as deltas, by index, and the sizes of the target's.
    bases: Vec<(u32, u64)>,
    /// Files whose content decides.
    unsure: Vec<Unsure>,
    /// What arrived of files when a push broke off, ascending, and how many bytes.
    partials: Vec<(NameHash, u64)>,
    /// Fifos, sockets and devices that the session may not make.
    pub specials_skipped: u64,
}

/// A file that both sides have in the same size, where the content decides. Until it has, its verdict is
/// the one for the same content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unsure {
    /// In the source's listing.
    pub index: u32,
    /// What it is if the content differs.
    change: Change,
    /// The size of what it may go as a delta of.
    basis_bytes: Option<u64>,
    is_same: bool,
}

impl Unsure {
    /// It has been found out whether the contents are the same.
    pub fn settle(&mut self, is_same: bool) {
        self.is_same = is_same;
    }

    /// What has to be done: the verdict, the change, and the size of its basis.
    pub fn decide(&self) -> (Verdict, Option<Change>, Option<u64>) {
        let change = self.change;
        let is_any_meta = change.mtime_differs
            || change.mode_differs
            || change.owner_differs
            || change.group_differs;
        match (self.is_same, is_any_meta) {
            (false, _) => (Verdict::Send, Some(change), self.basis_bytes),
            (true, false) => (Verdict::Skip, None, None),
            (true, true) => {
                let change = Change {
                    what: What::Meta,
                    content_differs: false,
                    ..change
                };
                let sets_time = change.mtime_differs;
                (Verdict::FixMeta { sets_time }, Some(change), None)
            }
        }
    }
}

/// What a finished merge leaves.
pub struct Merged {
    pub verdicts: Vec<Verdict>,
    pub deletes: Deletes,
    pub dirs_differ: Vec<u32>,
    pub dirs_absent: Vec<u32>,
    pub bases: Vec<(u32, u64)>,
    pub unsure: Vec<Unsure>,
    pub specials_skipped: u64,
}

/// Names to delete, in order, in one arena: a length byte, the code of the room, the name.
#[derive(Default, Debug)]
pub struct Deletes {
    bytes: Vec<u8>,
    at: usize,
}

impl Deletes {
    fn push(&mut self, name: &[u8], room: Option<Room>) {
        self.bytes
            .push(u8::try_from(name.len()).expect("a name has at most 255 bytes"));
        self.bytes.push(Room::code(room));
        self.bytes.extend_from_slice(name);
    }

    /// The next name, and what it makes room for.
    pub fn peek(&self) -> Option<(&[u8], Option<Room>)> {
        let len = usize::from(*self.bytes.get(self.at)?);
        let name = &self.bytes[self.at + 2..self.at + 2 + len];
        let room = Room::from_code(self.bytes[self.at + 1]).expect("its own");
        Some((name, room))
    }

    pub fn advance(&mut self) {
        if let Some(len) = self.bytes.get(self.at) {
            self.at += 2 + usize::from(*len);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }
}

/// What decides besides the entries themselves.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    pub rights: Rights,
    /// The target's numbers of the source's owners.
    pub owners: &'a OwnerMap,
    /// What only the target has goes.
    pub delete: bool,
    pub sameness: Sameness,
    /// Bytes of both versions from which a file may go as a delta; `None`: all go whole.
    pub delta_bytes_min: Option<u64>,
    /// Files of which a part arrived before go as deltas of that.
    pub resume: bool,
    /// A file that is there is its own basis, whatever arrived before.
    pub in_place: bool,
}

impl Merge {
    pub fn new(listing: &Listing) -> Self {
        Self {
            next: 0,
            last_name: Vec::new(),
            verdicts: Vec::with_capacity(listing.len()),
            deletes: Deletes::default(),
            dirs_differ: Vec::new(),
            dirs_absent: Vec::new(),
            bases: Vec::new(),
            unsure: Vec::new(),
            partials: Vec::new(),
            specials_skipped: 0,
        }
    }

    /// Takes in the target's next entry. `each` hears of every entry that changes.
    pub fn take(
        &mut self,
        listing: &Listing,
        target: &Entry<'_>,
        rules: Rules<'_>,
        each: &mut impl FnMut(usize, Change),
    ) -> Result<(), WireError> {
        let name = target.name.bytes();
        if !self.last_name.is_empty() && name <= self.last_name.as_slice() {
            return Err(WireError::NotAscending);
        }
        self.last_name.clear();
        self.last_name.extend_from_slice(name);
        if target.name.is_ours() {
            self.take_partial(target);
            return Ok(()); // Never to be deleted, and of no name that the source could have.
        }
        while self.next < listing.len() && listing.name(self.next) < name {
            self.only_source(listing, rules, each);
        }
        if self.next < listing.len() && listing.name(self.next) == name {
            let index = self.next;
            self.next += 1;
            let verdict = self.both(index, &listing.get(index), target, rules, each);
            self.verdicts.push(verdict);
        } else if rules.delete {
            self.deletes.push(name, None);
        }
        Ok(())
    }

    /// The LISTING has ended. Only if it was complete, deletes stand, and what it lacks is absent.
    pub fn finish(
        mut self,
        listing: &Listing,
        rules: Rules<'_>,
        is_complete: bool,
        each: &mut impl FnMut(usize, Change),
    ) -> Merged {
        while self.next < listing.len() {
            self.only_source(listing, rules, each);
        }
        if rules.resume && !self.partials.is_empty() {
            self.go_on_from_partials(listing, rules.in_place);
        }
        if !is_complete {
            self.deletes = Deletes::default();
            self.dirs_absent = Vec::new();
        }
        let Self {
            verdicts,
            deletes,
            dirs_differ,
            dirs_absent,
            bases,
            unsure,
            specials_skipped,
            ..
        } = self;
        Merged {
            verdicts,
            deletes,
            dirs_differ,
            dirs_absent,
            bases,
            unsure,
            specials_skipped,
        }
    }

    /// Notes a partial file. A target that lists no end of them has the others ignored.
    fn take_partial(&mut self, target: &Entry<'_>) {
        if self.partials.len() < PARTIALS_PER_DIR_MAX
            && target.size >= PARTIAL_BYTES_MIN
            && let Some(file) = PartialName::file_of(target.name.bytes())
        {
            self.partials.push((file, target.size));
        }
    }

    /// Files that are to be sent get what arrived of them before for a basis, rather than an old version, unless
    /// that is updated where it stands.
    fn go_on_from_partials(&mut self, listing: &Listing, in_place: bool) {
        let partials = std::mem::take(&mut self.partials);
        let part_of = |index: usize| {
            let is_large = listing.kind(index) == Kind::File
                && listing.size(index) > PACK_FILE_BYTES_MAX as u64;
            let file = is_large.then(|| NameHash::of(listing.name(index)))?;
            let at = partials.binary_search_by_key(&file, |(file, _)| *file);
            Some(partials[at.ok()?].1)
        };
        for file in self.unsure.iter_mut().filter(|_| !in_place) {
            file.basis_bytes = part_of(file.index as usize).or(file.basis_bytes);
        }
        let sent = self.verdicts.iter().enumerate();
        let sent = sent.filter(|(_, verdict)| **verdict == Verdict::Send);
        let parts = sent.filter_map(|(index, _)| Some((place(index), part_of(index)?)));
        let parts: Vec<_> = parts.collect();
        let old = std::mem::take(&mut self.bases);
        let (first, second) = if in_place { (old, parts) } else { (parts, old) };
        self.bases = [first, second].concat();
        self.bases.sort_by_key(|(index, _)| *index); // Stable: of two the first stays the first.
        self.bases.dedup_by_key(|(index, _)| *index);
    }

    fn only_source(
        &mut self,
        listing: &Listing,
        rules: Rules<'_>,
        each: &mut impl FnMut(usize, Change),
    ) {
        let index = self.next;
        self.next += 1;
        let kind = listing.kind(index);
        if kind == Kind::Dir {
            self.dirs_absent.push(place(index));
        }
        let verdict = self.send(kind, rules);
        if verdict == Verdict::Send {
            each(index, change(kind, What::Make));
        }
        self.verdicts.push(verdict);
    }

    fn send(&mut self, kind: Kind, rules: Rules<'_>) -> Verdict {
        if kind == Kind::Dir {
            return Verdict::Leave;
        }
        if kind.is_special() && !rules.rights.nodes {
            self.specials_skipped += 1;
            return Verdict::Leave;
        }
        Verdict::Send
    }

    fn both(
        &mut self,
        index: usize,
        source: &Entry<'_>,
        target: &Entry<'_>,
        rules: Rules<'_>,
        each: &mut impl FnMut(usize, Change),
    ) -> Verdict {
        let (kind, was) = (source.meta.kind, target.meta.kind);
        if kind != was {
            let verdict = self.send(kind, rules);
            if verdict == Verdict::Leave && kind != Kind::Dir {
                return verdict; // A special that is not made takes no room either.
            }
            let room = match (kind, was) {
                (Kind::Dir, _) => Some(Room::ForDir),
                (_, Kind::Dir) => Some(Room::ForOther),
                _ => None,
            };
            if room.is_some() {
                self.deletes.push(source.name.bytes(), room);
            }
            if verdict == Verdict::Send {
                each(index, change(kind, What::Make));
            }
            return verdict;
        }
        if kind.is_special() && !rules.rights.nodes {
            self.specials_skipped += 1;
            return Verdict::Leave;
        }
        let differs = compare(source, target, rules);
        if kind == Kind::Dir {
            if differs.is_any_meta() {
                each(index, differs.change(kind, What::Meta));
                self.dirs_differ.push(place(index));
            }
            return Verdict::Leave;
        }
        let smaller = source.size.min(target.size);
        let may_be_delta = kind == Kind::File
            && !target.is_suspect
            && rules.delta_bytes_min.is_some_and(|min| smaller >= min);
        if differs.is_unsure {
            self.unsure.push(Unsure {
                index: place(index),
                change: differs.change(kind, What::Update),
                basis_bytes: may_be_delta.then_some(target.size),
                is_same: false,
            });
        }
        if differs.content {
            if may_be_delta {
                self.bases.push((place(index), target.size));
            }
            each(index, differs.change(kind, What::Update));
            return Verdict::Send;
        }
        if differs.is_any_meta() {
            if !differs.is_unsure {
                each(index, differs.change(kind, What::Meta));
            }
            return Verdict::FixMeta {
                sets_time: differs.mtime,
            };
        }
        Verdict::Skip
    }
}

fn change(kind: Kind, what: What) -> Change {
    Change::new(kind, what)
}

/// How the target's entry differs from the source's of the same kind.
#[derive(Clone, Copy, Default, Debug)]
pub struct Differs {
    /// It has to be sent again.
    content: bool,
    /// It has to be if its content differs, which is still to be found out.
    is_unsure: bool,
    /// The push goes by content, and this is a file.
    is_by_content: bool,
    size: bool,
    mtime: bool,
    mode: bool,
    owner: bool,
    group: bool,
}

impl Differs {
    fn is_any_meta(self) -> bool {
        self.mtime || self.mode || self.owner || self.group
    }

    fn change(self, kind: Kind, what: What) -> Change {
        Change {
            kind,
            what,
            content_differs: self.is_by_content && what == What::Update,
            size_differs: self.size,
            mtime_differs: self.mtime,
            mode_differs: self.mode,
            owner_differs: self.owner,
            group_differs: self.group,
        }
    }
}

/// Size and time decide whether content is the same, as in rsync, or size and the content itself; a link's
/// length and time stand for its target. Suspect content is sent again whatever they say.
fn compare(source: &Entry<'_>, target: &Entry<'_>, rules: Rules<'_>) -> Differs {
    let kind = source.meta.kind;
    let meta = meta_differs(&source.meta, &target.meta, rules);
    let size = source.size != target.size && kind != Kind::Dir;
    let is_stale = match rules.sameness {
        Sameness::SizeAndTime => meta.mtime,
        Sameness::Size | Sameness::Content => false,
        Sameness::Never => true,
    };
    let is_by_content = kind == Kind::File && rules.sameness == Sameness::Content;
    let content = match kind {
        Kind::File => size || target.is_suspect || is_stale,
        // A length alone says nothing of a link.
        Kind::Symlink => size || meta.mtime || rules.sameness == Sameness::Never,
        Kind::CharDevice | Kind::BlockDevice => size,
        Kind::Dir | Kind::Fifo | Kind::Socket => false,
    };
    Differs {
        content,
        is_unsure: is_by_content && !content && source.size > 0,
        is_by_content,
        size,
        ..meta
    }
}

/// How two directories' (or files') own metadata differ, as far as the session keeps it.
pub fn meta_differs(source: &Meta, target: &Meta, rules: Rules<'_>) -> Differs {
    let Rules { rights, owners, .. } = rules;
    let wanted_mode = if rights.setid {
        source.mode
    } else {
        source.mode & !0o6000
    };
    Differs {
        content: false,
        is_unsure: false,
        is_by_content: false,
        size: false,
        mtime: !target.mtime.satisfies(source.mtime),
        mode: source.kind != Kind::Symlink && wanted_mode != target.mode,
        owner: rights.owners && owners.uid(source.uid) != target.uid,
        group: rights.owners && owners.gid(source.gid) != target.gid,
    }
}

/// Whether a directory's own metadata has to be set.
pub fn dir_differs(source: &Meta, target: &Meta, rules: Rules<'_>) -> bool {
    meta_differs(source, target, rules).is_any_meta()
}

fn place(index: usize) -> u32 {
    u32::try_from(index).expect("limits bound a directory's entries")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::Name;
    use crate::model::time::Mtime;

    fn entry(name: &'static str, kind: Kind, size: u64, sec: i64) -> Entry<'static> {
        let mtime = Mtime { sec, nsec: 1 };
        let meta = Meta {
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime,
        };
        Entry {
            name: Name::any(name.as_bytes()).unwrap(),
            meta,
            size,
            ino_low: 0,
            origin: 0,
            is_suspect: false,
        }
    }

    fn merge(
        source: &[Entry<'_>],
        target: &[Entry<'_>],
        delete: bool,
    ) -> (Vec<Verdict>, Vec<(String, Option<Room>)>) {
        let rules = Rules {
            rights: Rights {
                owners: true,
                setid: true,
                nodes: true,
            },
            owners: &OwnerMap::default(),
            delete,
            sameness: Sameness::SizeAndTime,
            delta_bytes_min: Some(2),
            resume: false,
            in_place: false,
        };
        let mut listing = Listing::default();
        source.iter().for_each(|entry| listing.push_entry(*entry));
        let mut merge = Merge::new(&listing);
        let mut ignore = |_: usize, _: Change| {};
        for entry in target {
            merge.take(&listing, entry, rules, &mut ignore).unwrap();
        }
        let mut merged = merge.finish(&listing, rules, true, &mut ignore);
        let mut deletes = Vec::new();
        while let Some((name, room)) = merged.deletes.peek() {
            deletes.push((String::from_utf8(name.to_vec()).unwrap(), room));
            merged.deletes.advance();
        }
        (merged.verdicts, deletes)
    }

    #[test]
    fn same_size_and_time_is_skipped_and_anything_else_is_sent() {
        let source = [
            entry("a", Kind::File, 1, 1),
            entry("b", Kind::File, 2, 1),
            entry("c", Kind::File, 1, 1),
            entry("d", Kind::File, 1, 1),
        ];
        let target = [
            entry("a", Kind::File, 1, 1),
            entry("b", Kind::File, 1, 1),
            entry("c", Kind::File, 1, 2),
        ];
        let (verdicts, deletes) = merge(&source, &target, false);
        assert_eq!(
            verdicts,
            [Verdict::Skip, Verdict::Send, Verdict::Send, Verdict::Send]
        );
        assert_eq!(deletes, []);
    }

    #[test]
    fn a_directory_is_absent_where_a_complete_listing_lacks_its_name() {
        let of_kind = |names: &[(&'static str, Kind)]| {
            let mut listing = Listing::default();
            for (name, kind) in names {
                listing.push_entry(entry(name, *kind, 0, 1));
            }
            listing
        };
        let source = of_kind(&[("a", Kind::Dir), ("b", Kind::Dir), ("c", Kind::Dir)]);
        // What stands in its way has to be looked at.
        let target = of_kind(&[("a", Kind::Dir), ("b", Kind::File)]);
        for (is_complete, absent) in [(true, &[2][..]), (false, &[])] {
            let (owners, mut ignore) = (OwnerMap::default(), |_: usize, _: Change| {});
            let rules = Rules {
                rights: Rights::default(),
                owners: &owners,
                delete: false,
                sameness: Sameness::SizeAndTime,
                delta_bytes_min: None,
                resume: false,
                in_place: false,
            };
            let mut merge = Merge::new(&source);
            for entry in target.iter() {
                merge.take(&source, &entry, rules, &mut ignore).unwrap();
            }
            let merged = merge.finish(&source, rules, is_complete, &mut ignore);
            assert_eq!(merged.dirs_absent, absent);
        }
    }

    /// The bases of three large files, of which the target has the second in another version and the third
    /// as it is, beside these partial files.
    fn bases_beside(partials: &[(String, u64)], resume: bool) -> (Vec<(u32, u64)>, Deletes) {
        const LARGE: u64 = 1 << 20;
        let mut source = Listing::default();
        for name in ["new", "old", "same"] {
            source.push_entry(entry(name, Kind::File, LARGE, 1));
        }
        let mut target = Listing::default();
        for (name, size) in partials {
            let named = entry("x", Kind::File, *size, 1);
            let name = Name::any(name.as_bytes()).unwrap();
            target.push_entry(Entry { name, ..named });
        }
        target.sort();
        target.push_entry(entry("old", Kind::File, LARGE - 1, 1));
        target.push_entry(entry("same", Kind::File, LARGE, 1));
        let (owners, mut ignore) = (OwnerMap::default(), |_: usize, _: Change| {});
        let rules = Rules {
            rights: Rights::default(),
            owners: &owners,
            delete: true,
            sameness: Sameness::SizeAndTime,
            delta_bytes_min: Some(2),
            resume,
            in_place: false,
        };
        let mut merge = Merge::new(&source);
        for entry in target.iter() {
            merge.take(&source, &entry, rules, &mut ignore).unwrap();
        }
        assert!(merge.partials.len() <= PARTIALS_PER_DIR_MAX);
        let merged = merge.finish(&source, rules, true, &mut ignore);
        (merged.bases, merged.deletes)
    }

    fn partial_of(name: &str) -> String {
        let name = PartialName::new(NameHash::of(name.as_bytes()));
        String::from_utf8(name.bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_file_goes_as_a_delta_of_what_arrived_of_it_before() {
        let old = (1, (1 << 20) - 1);
        let part = PARTIAL_BYTES_MIN;
        let partials = ["new", "old", "same", "other"].map(|name| (partial_of(name), part));
        let (bases, deletes) = bases_beside(&partials, true);
        assert_eq!(bases, [(0, part), (1, part)]);
        assert!(deletes.is_empty());
        assert_eq!(bases_beside(&partials, false).0, [old]);
        let too_small = [(partial_of("new"), part - 1)];
        assert_eq!(bases_beside(&too_small, true).0, [old]);
    }

    #[test]
    fn of_partial_files_without_end_some_are_kept_in_mind() {
        let many = (0..2 * PARTIALS_PER_DIR_MAX).map(|number| partial_of(&number.to_string()));
        let many: Vec<_> = many.map(|name| (name, PARTIAL_BYTES_MIN)).collect();
        assert_eq!(bases_beside(&many, true).0, [(1, (1 << 20) - 1)]);
    }

    #[test]
    fn only_what_the_source_lacks_is_deleted_and_only_when_asked() {
        let source = [entry("b", Kind::File, 1, 1)];
        let target = [
            entry("a", Kind::File, 1, 1),
            entry("b", Kind::File, 1, 1),
            entry("c", Kind::Dir, 0, 1),
        ];
        assert_eq!(
            merge(&source, &target, true).1,
            [("a".to_string(), None), ("c".to_string(), None)]
        );
        assert_eq!(merge(&source, &target, false).1, []);
    }

    #[test]
    fn a_directory_in_the_way_is_removed_first_and_a_file_in_the_way_of_one_too() {
        let source = [
            entry("a", Kind::File, 1, 1),
            entry("b", Kind::Dir, 0, 1),
            entry("c", Kind::Symlink, 1, 1),
        ];
        let target = [
            entry("a", Kind::Dir, 0, 1),
            entry("b", Kind::File, 0, 1),
            entry("c", Kind::File, 1, 1),
        ];
        let (verdicts, deletes) = merge(&source, &target, false);
        assert_eq!(verdicts, [Verdict::Send, Verdict::Leave, Verdict::Send]);
        let rooms = [Some(Room::ForOther), Some(Room::ForDir)];
        assert_eq!(
            deletes,
            [("a".to_string(), rooms[0]), ("b".to_string(), rooms[1])]
        );
    }

    #[test]
    fn listings_that_go_back_are_refused_across_frames_too() {
        let listing = Listing::default();
        let rules = Rules {
            rights: Rights::default(),
            owners: &OwnerMap::default(),
            delete: false,
            sameness: Sameness::SizeAndTime,
            delta_bytes_min: None,
            resume: false,
            in_place: false,
        };
        let mut merge = Merge::new(&listing);
        let mut ignore = |_: usize, _: Change| {};
        merge
            .take(&listing, &entry("b", Kind::File, 1, 1), rules, &mut ignore)
            .unwrap();
        let back = merge.take(&listing, &entry("a", Kind::File, 1, 1), rules, &mut ignore);
        assert_eq!(back, Err(WireError::NotAscending));
    }
}
