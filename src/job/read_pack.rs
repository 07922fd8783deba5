//! Fills a PACK: copies the operations that are ready, and reads the small files, links and
//! nodes of the entries it is told, straight into the block that will be sent.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::dir::{Dir, FdCache};
use super::list::Origin;
use crate::limits::{FRAME_HEAD_BYTES, LINK_TARGET_BYTES_MAX, PACK_FILE_BYTES_MAX};
use crate::model::entry::{Kind, Meta, Stat};
use crate::model::id::DirId;
use crate::model::listing::{Entry, Listing};
use crate::model::report::{Attempt, Side, Trouble, Why};
use crate::model::time::Mtime;
use crate::ops::disk::SharedFd;
use crate::ops::{Buf, Disk, Errno};
use crate::wire::cursor::Writer;
use crate::wire::pack::{OP_BYTES_MAX, PackOp, encode_file_head, finish_file};

/// What is to be done with an entry of the source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The target has it.
    Skip,
    /// Only metadata differs.
    FixMeta { sets_time: bool },
    /// Made or replaced, whole.
    Send,
    /// Not ours to send: a directory (it has its own plan), or a kind the session may not make.
    Leave,
}

/// A merged directory of the source, with what is to be done: shared by the jobs that do it.
pub struct DirPlan<D: Disk> {
    pub id: DirId,
    pub origins: Vec<Origin<D>>,
    pub listing: Listing,
    /// One per entry of the listing.
    pub verdicts: Vec<Verdict>,
    /// Of files that are to be sent and may go as a delta: index, and bytes of the target's.
    pub bases: Vec<(u32, u64)>,
    /// The name to read by, where DEST gave the one file that is pushed another one.
    pub read_as: Option<Box<[u8]>>,
}

impl<D: Disk> DirPlan<D> {
    pub fn origin(&self, entry: &Entry<'_>) -> &Arc<Dir<D>> {
        &self.origins[usize::from(entry.origin)].dir
    }

    /// The size of the target's file, where the entry may go as a delta of it.
    pub fn basis_bytes(&self, index: usize) -> Option<u64> {
        let index = u32::try_from(index).ok()?;
        let at = self.bases.binary_search_by_key(&index, |(at, _)| *at);
        Some(self.bases[at.ok()?].1)
    }

    /// Whether it has frames of its own, and no place in a PACK.
    pub fn goes_by_chunks(&self, index: usize, entry: &Entry<'_>) -> bool {
        entry.meta.kind == Kind::File
            && (entry.size > PACK_FILE_BYTES_MAX as u64 || self.basis_bytes(index).is_some())
    }

    /// The name of the entry in the source.
    pub fn source_name<'a>(&'a self, entry: &Entry<'a>) -> &'a [u8] {
        self.read_as.as_deref().unwrap_or(entry.name.bytes())
    }
}

/// A part of a PACK, in order.
pub enum Step<D: Disk> {
    /// Operations that are encoded already: a range of `PackJob::ready`.
    Ready(Range<usize>),
    /// Entries of a plan.
    Entries {
        plan: Arc<DirPlan<D>>,
        range: Range<usize>,
    },
}

pub struct PackJob<D: Disk> {
    /// Its place in the order of PACKs.
    pub number: u64,
    /// Directories that stay open until it is back.
    pub dirs: Vec<DirId>,
    pub steps: Vec<Step<D>>,
    pub ready: Vec<u8>,
    pub buf: Buf,
    cache: Arc<FdCache<D>>,
    /// Out: bytes of the payload.
    pub payload_bytes: usize,
    /// Out: bytes of file content.
    pub literal_bytes: u64,
    /// Out: files, links and nodes in it. Until the target's REPORT they count as sent.
    pub files_count: u64,
    pub troubles: Vec<Trouble>,
    /// Out: entries that go as large files, each after a rest.
    pub later: Vec<(Arc<DirPlan<D>>, usize, Duration)>,
}

impl<D: Disk> PackJob<D> {
    pub fn new(
        number: u64,
        dirs: Vec<DirId>,
        steps: Vec<Step<D>>,
        ready: Vec<u8>,
        buf: Buf,
        cache: Arc<FdCache<D>>,
    ) -> Self {
        Self {
            number,
            dirs,
            steps,
            ready,
            buf,
            cache,
            payload_bytes: 0,
            literal_bytes: 0,
            files_count: 0,
            troubles: Vec::new(),
            later: Vec::new(),
        }
    }

    pub fn run(&mut self, disk: &D) {
        let Self {
            steps,
            ready,
            buf,
            cache,
            troubles,
            later,
            ..
        } = self;
        let writer = Writer::new(&mut buf[FRAME_HEAD_BYTES..]);
        let mut filling = Filling {
            disk,
            cache,
            writer,
            troubles,
            literal_bytes: 0,
            files_count: 0,
            here: None,
            now: disk.now(),
        };
        for step in &*steps {
            match step {
                Step::Ready(range) => filling.writer.bytes(&ready[range.clone()]),
                Step::Entries { plan, range } => {
                    filling.here = None;
                    for index in range.clone() {
                        if let Some(rest) = filling.entry(plan, index) {
                            later.push((Arc::clone(plan), index, rest));
                        }
                    }
                }
            }
        }
        self.payload_bytes = filling.writer.at();
        self.literal_bytes = filling.literal_bytes;
        self.files_count = filling.files_count;
    }
}

/// Bytes that an entry takes in a PACK, as far as its listing tells.
pub fn entry_bytes(entry: &Entry<'_>, verdict: Verdict) -> usize {
    let fixed = OP_BYTES_MAX - 255 + entry.name.bytes().len();
    match verdict {
        Verdict::Skip | Verdict::Leave => 0,
        Verdict::FixMeta { .. } => fixed,
        Verdict::Send => match entry.meta.kind {
            Kind::File => {
                fixed
                    + usize::try_from(entry.size)
                        .unwrap_or(usize::MAX)
                        .min(PACK_FILE_BYTES_MAX)
            }
            Kind::Symlink => fixed + LINK_TARGET_BYTES_MAX,
            Kind::Dir | Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice => fixed,
        },
    }
}

struct Filling<'a, D: Disk> {
    disk: &'a D,
    cache: &'a FdCache<D>,
    writer: Writer<'a>,
    troubles: &'a mut Vec<Trouble>,
    literal_bytes: u64,
    files_count: u64,
    /// The origin whose descriptor was used last.
    here: Option<(u16, SharedFd<D>)>,
    /// When the job began.
    now: Mtime,
}

/// Why an entry did not get into the PACK.
enum Missed {
    Failed(Attempt, Why),
    /// It goes as a large file, after a rest: because it was written just now, because it outgrew
    /// the room that was set aside, or because its owner is to be declared first.
    Later(Duration),
}

impl<D: Disk> Filling<'_, D> {
    /// The rest after which the entry is to go as a large file, if it is.
    fn entry(&mut self, plan: &DirPlan<D>, index: usize) -> Option<Duration> {
        let entry = plan.listing.get(index);
        let outcome = match plan.verdicts[index] {
            Verdict::Skip | Verdict::Leave => Ok(()),
            Verdict::Send if plan.goes_by_chunks(index, &entry) => Ok(()),
            Verdict::FixMeta { sets_time } => {
                PackOp::Meta {
                    dir: plan.id,
                    name: entry.name,
                    meta: entry.meta,
                    sets_time,
                }
                .encode(&mut self.writer);
                Ok(())
            }
            Verdict::Send => {
                let start = self.writer.at();
                let sent = self.send(plan, &entry);
                match sent {
                    Ok(()) => self.files_count += 1,
                    Err(_) => self.writer.rewind(start),
                }
                sent
            }
        };
        match outcome {
            Ok(()) => None,
            Err(Missed::Later(rest)) => Some(rest),
            Err(Missed::Failed(what, why)) => {
                let why = if why == Why::Errno(Errno::NOENT) {
                    Why::Vanished
                } else {
                    why
                };
                let path = plan.origin(&entry).path(plan.source_name(&entry));
                self.troubles.push(Trouble {
                    side: Side::Source,
                    path,
                    what,
                    why,
                });
                None
            }
        }
    }

    fn send(&mut self, plan: &DirPlan<D>, entry: &Entry<'_>) -> Result<(), Missed> {
        let fail = |what| move |errno| Missed::Failed(what, Why::Errno(errno));
        let fd = self.fd(plan, entry).map_err(fail(Attempt::Open))?;
        let name = plan.source_name(entry);
        match entry.meta.kind {
            Kind::File => self.file(plan.id, entry, &fd, name),
            Kind::Symlink => {
                let mut target = [0; LINK_TARGET_BYTES_MAX + 1];
                let len = self
                    .disk
                    .read_link(&fd, name, &mut target)
                    .map_err(fail(Attempt::ReadLink))?;
                let target = target.get(..len).filter(|_| len <= LINK_TARGET_BYTES_MAX);
                let target = target.ok_or(Missed::Failed(
                    Attempt::ReadLink,
                    Why::Errno(Errno::NAMETOOLONG),
                ))?;
                PackOp::Symlink {
                    dir: plan.id,
                    name: entry.name,
                    meta: entry.meta,
                    target,
                }
                .encode(&mut self.writer);
                Ok(())
            }
            Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice => {
                let op = PackOp::Node {
                    dir: plan.id,
                    name: entry.name,
                    meta: entry.meta,
                    rdev: entry.size,
                };
                op.encode(&mut self.writer);
                Ok(())
            }
            Kind::Dir => unreachable!("a directory has a plan of its own"),
        }
    }

    fn fd(&mut self, plan: &DirPlan<D>, entry: &Entry<'_>) -> Result<SharedFd<D>, Errno> {
        if let Some((origin, fd)) = &self.here
            && *origin == entry.origin
        {
            return Ok(Arc::clone(fd));
        }
        let fd = plan.origin(entry).fd(self.disk, self.cache)?;
        self.here = Some((entry.origin, Arc::clone(&fd)));
        Ok(fd)
    }

    /// Reads one consistent version, or says why not.
    fn file(
        &mut self,
        dir: DirId,
        entry: &Entry<'_>,
        fd: &D::Fd,
        name: &[u8],
    ) -> Result<(), Missed> {
        let start = self.writer.at();
        for _ in 0..READS_PER_FILE_MAX {
            self.writer.rewind(start);
            if self.read_once(dir, entry, fd, name)? {
                return Ok(());
            }
        }
        Err(Missed::Failed(Attempt::Read, Why::Changing))
    }

    /// One attempt; `false` when the file changed under it.
    fn read_once(
        &mut self,
        dir: DirId,
        entry: &Entry<'_>,
        at: &D::Fd,
        name: &[u8],
    ) -> Result<bool, Missed> {
        let fail = |what| move |errno| Missed::Failed(what, Why::Errno(errno));
        let fd = self.disk.open_file(at, name).map_err(fail(Attempt::Open))?;
        let before = self.disk.stat(&fd).map_err(fail(Attempt::Open))?;
        if before.kind != Kind::File {
            // Swapped for a fifo, device or directory since the scan: never read.
            return Err(Missed::Failed(Attempt::Open, Why::Changing));
        }
        if let Some(rest) = before.mtime.rest(self.now) {
            return Err(Missed::Later(rest));
        }
        if (before.uid, before.gid) != (entry.meta.uid, entry.meta.gid) {
            return Err(Missed::Later(Duration::ZERO));
        }
        if before.size > entry.size {
            return Err(Missed::Later(Duration::ZERO)); // No room was set aside for so much.
        }
        let size = usize::try_from(before.size).unwrap_or(usize::MAX);
        let len_at = encode_file_head(&mut self.writer, dir, entry.name, &Meta::from(&before));
        let mut got = 0;
        while got < size {
            match self
                .disk
                .read(&fd, &mut self.writer.rest()[..size - got], got as u64)
            {
                Ok(0) => return Ok(false), // It shrank.
                Ok(bytes) => {
                    self.writer.advance(bytes);
                    got += bytes;
                }
                Err(errno) => return Err(Missed::Failed(Attempt::Read, Why::Errno(errno))),
            }
        }
        let after = self.disk.stat(&fd).map_err(fail(Attempt::Read))?;
        if !is_consistent(&before, &after) {
            return Ok(false);
        }
        finish_file(&mut self.writer, len_at, size);
        self.literal_bytes += size as u64;
        Ok(true)
    }
}

/// Attempts to read a file that keeps changing.
pub const READS_PER_FILE_MAX: u32 = 3;

/// Whether what one call has read between two looks at a file is one version of it. Of a file that grew it
/// is: its first bytes as of the opening, with the time of the opening, so that the next push
/// sees the difference.
fn is_consistent(before: &Stat, after: &Stat) -> bool {
    after.size > before.size || is_unchanged(before, after)
}

/// Whether nobody wrote to a file between two looks at it.
pub fn is_unchanged(before: &Stat, after: &Stat) -> bool {
    (after.mtime, after.ctime, after.size) == (before.mtime, before.ctime, before.size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::BLOCK_BYTES;
    use crate::model::id::ROOT;
    use crate::model::name::Name;
    use crate::ops::BlockPool;
    use crate::sim::clock::SimClock;
    use crate::sim::disk::SimDisk;
    use crate::sim::fault::DiskOptions;

    #[test]
    fn a_file_that_outgrew_its_room_goes_as_a_large_one() {
        let disk = SimDisk::new(DiskOptions::default(), SimClock::default(), 1);
        let dir = disk.open_operator_dir(b"/").unwrap();
        let mut listing = Listing::default();
        for (name, bytes_then, bytes_now) in [(b"a", 20, 100_000), (b"b", 20, 20)] {
            let file = disk.create_file(&dir, name, 0o644).unwrap();
            disk.write(&file, &vec![7; bytes_now], 0).unwrap();
            disk.set_mtime(&file, Mtime { sec: 1, nsec: 1 }).unwrap();
            let stat = Stat {
                size: bytes_then,
                ..disk.stat(&file).unwrap()
            };
            listing.push(Name::new(name).unwrap(), &stat);
        }
        let plan = Arc::new(DirPlan {
            id: ROOT,
            origins: vec![Origin {
                dir: Arc::new(Dir::root(b"", Arc::new(dir))),
                is_listed: true,
            }],
            listing,
            verdicts: vec![Verdict::Send; 2],
            bases: Vec::new(),
            read_as: None,
        });
        let pool = BlockPool::new(vec![Box::leak(vec![0; BLOCK_BYTES].into_boxed_slice())]);
        let range = 0..2;
        let steps = vec![Step::Entries { plan, range }];
        let cache = Arc::new(FdCache::new(8));
        let buf = pool.take().unwrap();
        let mut job = PackJob::new(0, vec![ROOT], steps, Vec::new(), buf, cache);
        job.run(&disk);
        assert_eq!((job.files_count, job.literal_bytes), (1, 20));
        assert_eq!(job.later.len(), 1);
        assert!(
            job.payload_bytes < 200,
            "what was set aside for two of 20 bytes"
        );
        assert!(job.troubles.is_empty());
    }
}
