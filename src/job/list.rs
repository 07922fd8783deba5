//! Listing directories: read the names, look at each entry, sort. The same walk serves the
//! source (merged over several sources) and the target (written into LISTING frames).

use std::ops::ControlFlow;
use std::sync::Arc;

use super::dir::{Dir, FdCache, keeping_time};
use super::marker;
use super::own_name::{self, OwnName};
use super::owners::Met;
use super::partial;
use super::tree::Tree;
use super::walk::Walk;
use crate::limits::{DIR_ENTRIES_MAX, FRAME_HEAD_BYTES, LIST_BUDGET_ENTRIES, PARTIALS_PER_DIR_MAX};
use crate::model::entry::Stat;
use crate::model::id::DirId;
use crate::model::listing::Listing;
use crate::model::name::Name;
use crate::model::partial::{NameHash, PartialName};
use crate::model::report::{Attempt, Side, Trouble, Why};
use crate::model::time::Mtime;
use crate::ops::disk::{Lock, SharedFd};
use crate::ops::op::Progress;
use crate::ops::{Buf, Disk, Errno};
use crate::wire::cursor::Writer;
use crate::wire::list::{SectionWriter, Status};

/// Reads one directory into a listing, some thousand entries at a time.
struct Lister<D: Disk> {
    fd: SharedFd<D>,
    /// Names read and not yet looked at: a length byte before each.
    names: Vec<u8>,
    names_at: usize,
    scratch: Vec<u8>,
    at_end: bool,
}

/// What a lister meets besides entries.
trait Meets {
    fn failed(&mut self, name: &[u8], attempt: Attempt, why: Why);
    fn own(&mut self, name: &[u8], own: OwnName);
}

impl<D: Disk> Lister<D> {
    fn new(disk: &D, fd: SharedFd<D>, scratch: Vec<u8>) -> Result<Self, Errno> {
        disk.rewind_dir(&fd)?;
        Ok(Self {
            fd,
            names: Vec::new(),
            names_at: 0,
            scratch,
            at_end: false,
        })
    }

    /// Adds entries to `listing` until the directory or `budget` ends.
    fn run(
        &mut self,
        disk: &D,
        listing: &mut Listing,
        budget: &mut usize,
        meets: &mut dyn Meets,
    ) -> Result<Progress, Errno> {
        loop {
            while self.names_at < self.names.len() {
                if *budget == 0 {
                    return Ok(Progress::Again);
                }
                *budget -= 1;
                let start = self.names_at + 1;
                let end = start + usize::from(self.names[self.names_at]);
                self.names_at = end;
                self.look_at(disk, start..end, listing, meets);
            }
            if self.at_end {
                return Ok(Progress::Done);
            }
            self.names.clear();
            self.names_at = 0;
            let names = &mut self.names;
            let more = disk.read_dir(&self.fd, &mut self.scratch, &mut |name| {
                names.push(u8::try_from(name.len()).expect("Linux names have at most 255 bytes"));
                names.extend_from_slice(name);
            })?;
            self.at_end = !more;
            if listing.len() > DIR_ENTRIES_MAX {
                return Err(Errno::TOOBIG);
            }
        }
    }

    fn look_at(
        &self,
        disk: &D,
        range: std::ops::Range<usize>,
        listing: &mut Listing,
        meets: &mut dyn Meets,
    ) {
        let bytes = &self.names[range];
        let Ok(name) = Name::new(bytes) else {
            return meets.own(bytes, own_name::parse(bytes));
        };
        match disk.stat_at(&self.fd, bytes) {
            Ok(stat) => listing.push(name, &stat),
            Err(Errno::NOENT) => meets.failed(bytes, Attempt::Stat, Why::Vanished),
            Err(errno) => meets.failed(bytes, Attempt::Stat, Why::Errno(errno)),
        }
    }
}

/// A directory of the source, as it goes into a list job and comes out.
pub struct SourceDir<D: Disk> {
    pub id: DirId,
    /// The directories that are merged, the first wins; usually one.
    pub origins: Vec<Origin<D>>,
    /// Entries named on the command line (ROOT only).
    pub given: Listing,
    /// Out: further origins of its subdirectories, by name, where several directories merge.
    pub merged: Vec<(Box<[u8]>, u16)>,
    /// Out: what it holds, strictly sorted.
    pub listing: Listing,
    /// Out: (dev, ino) and metadata of the first origin.
    pub stat: Option<Stat>,
    /// Out: the same of further origins that were listed, each with its number.
    pub others: Vec<(u16, Stat)>,
    /// Out: something could not be read; deletions must stop.
    pub has_errors: bool,
    reading: Option<(usize, Lister<D>)>,
}

/// One of the directories that a directory of the source is made of.
pub struct Origin<D: Disk> {
    pub dir: Arc<Dir<D>>,
    /// Its entries belong to the push; otherwise only those named on the command line.
    pub is_listed: bool,
}

impl<D: Disk> Clone for Origin<D> {
    fn clone(&self) -> Self {
        Self {
            dir: Arc::clone(&self.dir),
            is_listed: self.is_listed,
        }
    }
}

impl<D: Disk> SourceDir<D> {
    pub fn new(id: DirId, origins: Vec<Origin<D>>, given: Listing) -> Self {
        Self {
            id,
            origins,
            given,
            merged: Vec::new(),
            listing: Listing::default(),
            stat: None,
            others: Vec::new(),
            has_errors: false,
            reading: None,
        }
    }
}

impl<D: Disk> SourceDir<D> {
    /// Leaves out what came from a further origin that is not to be sent; whether one was.
    pub fn leave_out(&mut self, is_out: impl Fn(&Stat) -> bool) -> bool {
        let Some(&(out, _)) = self.others.iter().find(|(_, stat)| is_out(stat)) else {
            return false;
        };
        self.listing = self.listing.without_origin(out);
        self.merged.retain(|(_, of)| *of != out);
        true
    }
}

/// Lists directories of the source.
pub struct ListSource<D: Disk> {
    pub dirs: Vec<SourceDir<D>>,
    /// Directories at the front that are finished.
    done: usize,
    pub troubles: Vec<Trouble>,
    cache: Arc<FdCache<D>>,
    /// Where owners go by name.
    met: Option<Arc<Met>>,
}

impl<D: Disk> ListSource<D> {
    pub fn new(dirs: Vec<SourceDir<D>>, cache: Arc<FdCache<D>>, met: Option<Arc<Met>>) -> Self {
        Self {
            dirs,
            done: 0,
            troubles: Vec::new(),
            cache,
            met,
        }
    }

    pub fn run(&mut self, disk: &D) -> Progress {
        let mut budget = LIST_BUDGET_ENTRIES;
        while let Some(dir) = self.dirs.get_mut(self.done) {
            if dir.run(disk, &self.cache, &mut budget, &mut self.troubles) == Progress::Again {
                return Progress::Again;
            }
            if let Some(met) = &self.met {
                met.meet(disk, dir.listing.owners());
                dir.stat
                    .inspect(|stat| met.meet(disk, &[(stat.uid, stat.gid)]));
            }
            self.done += 1;
        }
        Progress::Done
    }
}

/// Troubles of a source directory, with the path people know it by.
struct SourceMeets<'a, D: Disk> {
    dir: &'a Dir<D>,
    troubles: &'a mut Vec<Trouble>,
    has_errors: &'a mut bool,
}

impl<D: Disk> Meets for SourceMeets<'_, D> {
    fn failed(&mut self, name: &[u8], what: Attempt, why: Why) {
        *self.has_errors |= why != Why::Vanished;
        self.troubles.push(Trouble {
            side: Side::Source,
            path: self.dir.path(name),
            what,
            why,
        });
    }

    fn own(&mut self, name: &[u8], own: OwnName) {
        // A temp file or marker of ours is no data; a user's own `.sy.x` is, and is named.
        if own == OwnName::Unknown {
            self.failed(name, Attempt::Open, Why::OwnName);
        }
    }
}

fn number(origin: usize) -> u16 {
    u16::try_from(origin).unwrap_or(u16::MAX)
}

impl<D: Disk> SourceDir<D> {
    fn run(
        &mut self,
        disk: &D,
        cache: &FdCache<D>,
        budget: &mut usize,
        troubles: &mut Vec<Trouble>,
    ) -> Progress {
        let (mut origin, mut lister) = match self.reading.take() {
            Some((origin, lister)) => (origin, Some(lister)),
            None => (0, None),
        };
        while let Some(Origin { dir, is_listed }) = self.origins.get(origin).cloned() {
            if !is_listed {
                origin += 1;
                continue;
            }
            let mut meets = SourceMeets {
                dir: &dir,
                troubles,
                has_errors: &mut self.has_errors,
            };
            let outcome = match lister.take() {
                Some(lister) => Ok(lister),
                None => dir.fd(disk, cache).and_then(|fd| {
                    let stat = disk.stat(&fd)?;
                    match self.stat {
                        None => self.stat = Some(stat),
                        Some(_) => self.others.push((number(origin), stat)),
                    }
                    Lister::new(disk, fd, Vec::new())
                }),
            }
            .and_then(|mut lister| {
                let before = self.listing.len();
                let progress = lister.run(disk, &mut self.listing, budget, &mut meets)?;
                self.listing.set_origin(before, number(origin));
                Ok((progress, lister))
            });
            match outcome {
                Ok((Progress::Again, lister)) => {
                    self.reading = Some((origin, lister));
                    return Progress::Again;
                }
                Ok((Progress::Done, _)) => {}
                Err(Errno::NOENT) => meets.failed(b"", Attempt::List, Why::Vanished),
                Err(errno) => meets.failed(b"", Attempt::List, Why::Errno(errno)),
            }
            origin += 1;
        }
        if !self.given.is_empty() {
            self.given
                .iter()
                .for_each(|entry| self.listing.push_entry(entry));
        }
        let merged = &mut self.merged;
        self.listing
            .sort_and_merge(|name, origin| merged.push((name.into(), origin)));
        Progress::Done
    }
}

/// A directory of the target that was asked for.
pub struct TargetDir<D: Disk> {
    pub id: DirId,
    pub dir: Arc<Dir<D>>,
    /// Known not to exist, because its parent does not.
    pub is_absent: bool,
}

/// Lists directories of the target into a LISTING frame; run again with an empty block while
/// `is_finished` is false.
pub struct ListTarget<D: Disk> {
    tree: Arc<Tree<D>>,
    requests: Vec<TargetDir<D>>,
    at: usize,
    state: TargetState<D>,
    listing: Listing,
    scratch: Vec<u8>,
    /// The frame under way: bytes of its payload that are written.
    pub buf: Option<Buf>,
    pub payload_bytes: usize,
    /// Troubles by path below the root.
    pub troubles: Vec<Trouble>,
}

enum TargetState<D: Disk> {
    /// Next: Reading, or the next request.
    Opening,
    /// Next: Doubting, or Writing.
    Reading { lister: Lister<D>, seen: Seen },
    /// A marker stands in it that nobody has set an end to. Next: Writing.
    Doubting {
        fd: SharedFd<D>,
        seen: Seen,
        walk: Walk<D>,
        youngest: Mtime,
    },
    /// The listing is there; `next` is the first entry not yet written. Next: Opening.
    Writing { next: usize, status: Status },
}

/// Before every file.
const LONG_AGO: Mtime = Mtime {
    sec: i64::MIN,
    nsec: 0,
};

/// What the walk of a target's directory met besides entries.
#[derive(Default)]
struct Seen {
    has_errors: bool,
    temps: Vec<Box<[u8]>>,
    /// `PARTIALS_PER_DIR_MAX` of them at most.
    partials: Vec<NameHash>,
    markers: Vec<Box<[u8]>>,
}

impl<D: Disk> ListTarget<D> {
    pub fn new(tree: Arc<Tree<D>>, requests: Vec<TargetDir<D>>, buf: Buf) -> Self {
        Self {
            tree,
            requests,
            at: 0,
            state: TargetState::Opening,
            listing: Listing::default(),
            scratch: Vec::new(),
            buf: Some(buf),
            payload_bytes: 0,
            troubles: Vec::new(),
        }
    }

    pub fn is_finished(&self) -> bool {
        self.at == self.requests.len()
    }

    pub fn run(&mut self, disk: &D) -> Progress {
        let mut budget = LIST_BUDGET_ENTRIES;
        let mut buf = self.buf.take().expect("a list job runs with a block");
        let progress = self.fill(disk, &mut buf, &mut budget);
        self.buf = Some(buf);
        progress
    }

    /// `Done` when the frame is full or nothing is left to say.
    fn fill(&mut self, disk: &D, buf: &mut Buf, budget: &mut usize) -> Progress {
        let mut writer = Writer::resume(&mut buf[FRAME_HEAD_BYTES..], self.payload_bytes);
        let progress = loop {
            let Some(request) = self.requests.get(self.at) else {
                break Progress::Done;
            };
            match std::mem::replace(&mut self.state, TargetState::Opening) {
                TargetState::Opening => {
                    if *budget == 0 {
                        break Progress::Again;
                    }
                    *budget -= 1;
                    self.state = open(disk, &self.tree, request, &mut self.scratch);
                    self.listing.clear();
                }
                TargetState::Reading {
                    mut lister,
                    mut seen,
                } => {
                    let dir = &request.dir;
                    let mut meets = TargetMeets {
                        dir,
                        seen: &mut seen,
                        troubles: &mut self.troubles,
                    };
                    match lister.run(disk, &mut self.listing, budget, &mut meets) {
                        Ok(Progress::Again) => {
                            self.state = TargetState::Reading { lister, seen };
                            break Progress::Again;
                        }
                        Ok(Progress::Done) => {
                            clean(disk, &self.tree, dir, &lister.fd, &mut seen);
                            if self.tree.policy.partial {
                                let partials = &seen.partials;
                                let listing = &mut self.listing;
                                partial::list(disk, &self.tree, &lister.fd, partials, listing);
                            }
                            self.listing.sort();
                            let mut markers = seen.markers.iter();
                            let has_open =
                                markers.any(|name| marker::is_open(disk, &lister.fd, name));
                            let (tree, fd) = (&self.tree, &lister.fd);
                            self.state = if !tree.policy.dry_run && has_open {
                                TargetState::Doubting {
                                    fd: Arc::clone(fd),
                                    seen,
                                    walk: Walk::new(dir),
                                    youngest: LONG_AGO,
                                }
                            } else {
                                heed_markers(disk, tree, dir, (fd, &seen), None, &mut self.listing)
                            };
                        }
                        Err(errno) => {
                            self.listing.clear();
                            self.state = TargetState::Writing {
                                next: 0,
                                status: Status::Failed(errno),
                            };
                        }
                    }
                    self.scratch = lister.scratch;
                }
                TargetState::Doubting {
                    fd,
                    seen,
                    mut walk,
                    mut youngest,
                } => {
                    let progress = walk.run(disk, budget, |ctime| {
                        youngest = youngest.max(ctime);
                        ControlFlow::Continue(())
                    });
                    if progress == Progress::Again {
                        self.state = TargetState::Doubting {
                            fd,
                            seen,
                            walk,
                            youngest,
                        };
                        break Progress::Again;
                    }
                    let (tree, dir, listing) = (&self.tree, &request.dir, &mut self.listing);
                    self.state =
                        heed_markers(disk, tree, dir, (&fd, &seen), Some(youngest), listing);
                }
                TargetState::Writing { next, status } => {
                    match write_section(&mut writer, request.id, &self.listing, next, status) {
                        Some(written) if written == self.listing.len() => {
                            if status == Status::Complete {
                                self.tree.set_listed(request.id);
                            }
                            self.at += 1;
                        }
                        Some(written) => {
                            self.state = TargetState::Writing {
                                next: written,
                                status,
                            };
                            break Progress::Done;
                        }
                        None => {
                            self.state = TargetState::Writing { next, status };
                            break Progress::Done;
                        }
                    }
                }
            }
        };
        self.payload_bytes = writer.at();
        progress
    }
}

fn open<D: Disk>(
    disk: &D,
    tree: &Tree<D>,
    request: &TargetDir<D>,
    scratch: &mut Vec<u8>,
) -> TargetState<D> {
    let over = |status| TargetState::Writing { next: 0, status };
    if request.is_absent {
        return over(Status::Absent);
    }
    // A peer may declare a long chain before its first link is looked at: it is not walked up
    // again for each.
    if tree.is_below_absent(request.id) {
        tree.set_absent(request.id);
        return over(Status::Absent);
    }
    let opened = request.dir.fd(disk, &tree.cache);
    match opened.and_then(|fd| Lister::new(disk, fd, std::mem::take(scratch))) {
        Ok(lister) => TargetState::Reading {
            lister,
            seen: Seen::default(),
        },
        // Something else of that name is in the way, which the parent's listing shows.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
            tree.set_absent(request.id);
            over(Status::Absent)
        }
        Err(errno) => over(Status::Failed(errno)),
    }
}

/// Writes entries from `next` on; how many are written then, or `None` where no section fits.
fn write_section(
    writer: &mut Writer<'_>,
    id: DirId,
    listing: &Listing,
    next: usize,
    status: Status,
) -> Option<usize> {
    let mut section = SectionWriter::begin(writer, id)?;
    let mut written = next;
    while written < listing.len() && section.push(&listing.get(written)) {
        written += 1;
    }
    section.end(if written == listing.len() {
        status
    } else {
        Status::Part
    });
    Some(written)
}

struct TargetMeets<'a, D: Disk> {
    dir: &'a Dir<D>,
    seen: &'a mut Seen,
    troubles: &'a mut Vec<Trouble>,
}

impl<D: Disk> Meets for TargetMeets<'_, D> {
    fn failed(&mut self, name: &[u8], what: Attempt, why: Why) {
        if why != Why::Vanished {
            self.seen.has_errors = true;
            self.troubles.push(Trouble {
                side: Side::Target,
                path: self.dir.path_below_root(name),
                what,
                why,
            });
        }
    }

    fn own(&mut self, name: &[u8], own: OwnName) {
        match own {
            OwnName::Temp(_) | OwnName::Keepable(..) => self.seen.temps.push(name.into()),
            OwnName::Partial(file) => self.seen.found_partial(file),
            OwnName::Marker(_) => self.seen.markers.push(name.into()),
            OwnName::Unknown => {}
        }
    }
}

impl Seen {
    fn found_partial(&mut self, file: NameHash) {
        if self.partials.len() < PARTIALS_PER_DIR_MAX {
            self.partials.push(file);
        }
    }
}

/// Removes temp files that dead sessions left, and partial files that are too old. A live session holds a
/// shared lock on every directory that has its temp files, so the exclusive one says that none is alive. A partial file
/// that a live session has for a basis it has open.
fn clean<D: Disk>(disk: &D, tree: &Tree<D>, dir: &Dir<D>, fd: &D::Fd, seen: &mut Seen) {
    let has_any = !seen.temps.is_empty() || !seen.partials.is_empty();
    if has_any && !tree.policy.dry_run {
        let expired = partial::expired(disk, tree, fd, &seen.partials);
        let are_dead =
            !seen.temps.is_empty() && matches!(disk.try_lock(fd, Lock::Exclusive), Ok(true));
        if are_dead || !expired.is_empty() {
            // Its time may have been compared already. Failing to tidy up is no failure of the push; the
            // next one tries again.
            let _ = keeping_time(disk, fd, || {
                for file in &expired {
                    let _ = disk.unlink(fd, PartialName::new(*file).bytes());
                }
                if are_dead {
                    clean_temps(disk, tree, fd, seen);
                }
                Ok(())
            });
        }
        if are_dead {
            let _ = disk.unlock(fd);
        }
    }
    if !seen.partials.is_empty() {
        seen.partials.sort_unstable();
        seen.partials.dedup();
        dir.learn(|facts| facts.has_partials = true);
    }
}

/// Removes the temp files, but for those of which the session wants to keep a part.
fn clean_temps<D: Disk>(disk: &D, tree: &Tree<D>, fd: &D::Fd, seen: &mut Seen) {
    for temp in std::mem::take(&mut seen.temps) {
        if tree.policy.partial
            && let OwnName::Keepable(_, file) = own_name::parse(&temp)
            && partial::salvage(disk, tree, fd, &temp, file)
        {
            seen.found_partial(file);
        } else {
            let _ = disk.unlink(fd, &temp);
        }
    }
}

/// Marks as suspect what may have been written by a session that a crash cut off; the listing is
/// ready then.
fn heed_markers<D: Disk>(
    disk: &D,
    tree: &Tree<D>,
    dir: &Arc<Dir<D>>,
    (fd, seen): (&D::Fd, &Seen),
    youngest: Option<Mtime>,
    listing: &mut Listing,
) -> TargetState<D> {
    let status = if seen.has_errors {
        Status::Incomplete
    } else {
        Status::Complete
    };
    let ready = TargetState::Writing { next: 0, status };
    // Not taken over when the directory was declared: that was before the one above was listed.
    let found = marker::heed(disk, tree, dir, fd, &seen.markers, youngest);
    let Some(doubt) = dir.doubt(found) else {
        return ready;
    };
    for index in 0..listing.len() {
        let is_suspect = match disk.stat_at(fd, listing.name(index)) {
            Ok(stat) => doubt.concerns(stat.ctime),
            Err(_) => true,
        };
        if is_suspect {
            listing.mark_suspect(index);
        }
    }
    ready
}
