//! What a target does with the file that it has already, or with a part of the new one that came before: sums
//! its blocks, and puts chunks of the new one together.

use super::entry::{Here, write_all};
use super::partial;
use super::tree::Tree;
use crate::delta::apply::{self, Step};
use crate::delta::block_size::{BlockSize, Layout};
use crate::delta::signature::{self, Builder};
use crate::delta::strong::Key;
use crate::limits::{CHUNK_BYTES, FRAME_HEAD_BYTES, SUM_BYTES};
use crate::model::entry::{Kind, Stat};
use crate::model::id::FileId;
use crate::model::partial::{NameHash, PartialName};
use crate::ops::disk::SharedFd;
use crate::ops::{Buf, Disk, Errno};
use crate::wire::WireError;
use crate::wire::cursor::Writer;
use crate::wire::data::DATA_HEAD_BYTES;
use crate::wire::head::chunk_digest;
use crate::wire::sign::{Ask, Section, decode_tokens};

/// Bytes of an old version from which a job of its own lets go of it: some milliseconds.
const RELEASED_BYTES_MIN: u64 = 32 * 1024 * 1024;

const _: () = assert!(SUM_BYTES == signature::SUM_BYTES);

/// The old version of a large file, or a part of the new one that came before, open while the new one comes.
pub struct Basis<D: Disk> {
    fd: SharedFd<D>,
    /// It is what a push that broke off has left.
    pub is_partial: bool,
    /// Of its size when it was opened.
    pub layout: Layout,
    pub block: BlockSize,
    pub bytes: u64,
    /// Its device and inode.
    identity: (u64, u64),
}

impl<D: Disk> Clone for Basis<D> {
    fn clone(&self) -> Self {
        Self {
            fd: SharedFd::<D>::clone(&self.fd),
            ..*self
        }
    }
}

impl<D: Disk> Basis<D> {
    /// Of the file `name` in `here`: its partial file, if this session looks for those, else the regular
    /// file of that name. `None` where there is none that can be read, or where it is too large for blocks of
    /// `block_bytes`: the file goes whole.
    pub fn of(
        disk: &D,
        tree: &Tree<D>,
        here: &Here<D>,
        name: &[u8],
        block_bytes: u32,
    ) -> Option<Self> {
        let may_have_partial = tree.policy.partial && here.dir.facts().has_partials;
        let partial = may_have_partial.then(|| PartialName::new(NameHash::of(name)));
        partial
            .and_then(|partial| {
                let is_fit = |stat: &Stat| partial::is_fit(tree, stat);
                Self::open(disk, &here.fd, partial.bytes(), block_bytes, is_fit)
            })
            .map(|basis| Self {
                is_partial: true,
                ..basis
            })
            .or_else(|| Self::open(disk, &here.fd, name, block_bytes, is_file))
    }

    /// Of the file of that name, which is to be updated where it stands; `None` as above, and where it is
    /// another one by now.
    pub fn standing(
        disk: &D,
        here: &Here<D>,
        (name, stat): (&[u8], &Stat),
        block_bytes: u32,
    ) -> Option<Self> {
        if here.dir.is_read_in_vain(stat) {
            return None; // What it keeps is not written.
        }
        let basis = Self::open(disk, &here.fd, name, block_bytes, is_file);
        basis.filter(|basis| (basis.identity, basis.bytes) == ((stat.dev, stat.ino), stat.size))
    }

    fn open(
        disk: &D,
        dir: &D::Fd,
        name: &[u8],
        block_bytes: u32,
        is_fit: impl Fn(&Stat) -> bool,
    ) -> Option<Self> {
        // Opening a device can do something to it.
        disk.stat_at(dir, name).ok().filter(&is_fit)?;
        let fd = disk.open_file(dir, name).ok()?;
        let stat = disk.stat(&fd).ok().filter(&is_fit)?;
        let block = BlockSize::of_peer(block_bytes, stat.size)?;
        Some(Self {
            fd: SharedFd::<D>::new(fd),
            is_partial: false,
            layout: Layout::new(stat.size, block),
            block,
            bytes: stat.size,
            identity: (stat.dev, stat.ino),
        })
    }
}

impl<D: Disk> Basis<D> {
    /// What has to be let go of with care.
    pub fn if_slow_to_free(self) -> Option<SharedFd<D>> {
        (self.bytes >= RELEASED_BYTES_MIN).then_some(self.fd)
    }
}

fn is_file(stat: &Stat) -> bool {
    stat.kind == Kind::File
}

/// Sums blocks of basis files into a SIGNATURE.
pub struct Sign<D: Disk> {
    /// Its place in the line.
    pub number: u64,
    /// With the basis of each, if it has one. Their sums fit into one payload.
    asks: Vec<(Ask, Option<Basis<D>>)>,
    key: Key,
    pub buf: Buf,
    pub scratch: Box<[u8]>,
    /// Out.
    pub payload_bytes: usize,
}

impl<D: Disk> Sign<D> {
    pub fn new(
        number: u64,
        asks: Vec<(Ask, Option<Basis<D>>)>,
        key: Key,
        buf: Buf,
        scratch: Box<[u8]>,
    ) -> Self {
        Self {
            number,
            asks,
            key,
            buf,
            scratch,
            payload_bytes: 0,
        }
    }

    pub fn run(&mut self, disk: &D) {
        let Self {
            asks,
            key,
            buf,
            scratch,
            payload_bytes,
            number: _,
        } = self;
        let mut writer = Writer::new(&mut buf[FRAME_HEAD_BYTES..]);
        for (ask, basis) in asks {
            let at = writer.at();
            let is_summed = basis.as_ref().is_some_and(|basis| {
                Section::encode_head(&mut writer, *ask, Some(basis.bytes));
                let sums_bytes = ask.count as usize * SUM_BYTES;
                let sums = &mut writer.rest()[..sums_bytes];
                let is_summed = sum(disk, basis, *ask, key, sums, &mut scratch[..CHUNK_BYTES]);
                writer.advance(sums_bytes);
                is_summed
            });
            if !is_summed {
                writer.rewind(at);
                Section::encode_head(&mut writer, *ask, None);
            }
        }
        *payload_bytes = writer.at();
    }
}

/// Whether all blocks that are asked for are there and could be read.
fn sum<D: Disk>(
    disk: &D,
    basis: &Basis<D>,
    ask: Ask,
    key: &Key,
    sums: &mut [u8],
    scratch: &mut [u8],
) -> bool {
    let last = ask.first + u64::from(ask.count) - 1;
    if last >= basis.layout.blocks_count() {
        return false;
    }
    let mut at = basis.layout.span(ask.first).start;
    let end = basis.layout.span(last).end;
    let mut builder = Builder::new(basis.layout, key, ask.first);
    let mut written = 0;
    while at < end {
        let room = usize::try_from(end - at)
            .unwrap_or(usize::MAX)
            .min(scratch.len());
        let Ok(bytes @ 1..) = disk.read(&basis.fd, &mut scratch[..room], at) else {
            return false;
        };
        written += builder
            .build(&scratch[..bytes], &mut sums[written..])
            .written_bytes;
        at += bytes as u64;
    }
    written == sums.len()
}

/// Puts one chunk together of copies and literals, in the place that a DATA's content has in its block. Where the
/// file is updated in place, copies stand where they belong, and the literals are written.
///
/// Copies are read and written again, also where the file system could share their extents. What gets a name is
/// what was checked, and a basis may be changed between a look at it and a clone of it: the clone would have
/// to be read back, and that comes from the disk while the basis is in the page cache. 256 MiB, in chunks of 256
/// KiB, each figure the middle one of three: xfs 1.9 s written and 0.6 to sync, 10.0 s cloned and read back (0.6 s without
/// the look); btrfs 3.9 s written and 2.4 to sync, 3.5 s cloned. copy_file_range on ext4, which has no clones: 2.0 s beside 2.2.
pub struct Weave<D: Disk> {
    pub file: FileId,
    basis: Basis<D>,
    onto: Onto<D>,
    /// In: TOKENS. Out, if all went well: what is to be written.
    pub buf: Buf,
    payload_bytes: usize,
    chunk_bytes: usize,
    /// As long as a payload.
    pub scratch: Box<[u8]>,
    /// Out.
    pub woven: Option<Woven>,
}

/// Where a chunk belongs.
pub enum Onto<D: Disk> {
    /// A file of its own; the caller writes it. Where `copies_stay` they may not move, since others in the
    /// session are updated in place.
    Another { copies_stay: bool },
    /// The basis itself.
    Itself(SharedFd<D>),
}

/// What became of a chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Woven {
    /// It stands in the block.
    Whole {
        offset: u64,
        len: usize,
        /// Of these, what the basis had.
        copied_bytes: u64,
    },
    /// What differs in it is written, or could not be.
    Written {
        len: usize,
        copied_bytes: u64,
        result: Result<(), Errno>,
    },
    /// The basis does not hold what its sums said, or can't be read.
    Wrong,
    /// The runs are not what a source may send.
    Forbidden(WireError),
}

impl<D: Disk> Weave<D> {
    pub fn new(
        file: FileId,
        (basis, onto): (Basis<D>, Onto<D>),
        buf: Buf,
        payload_bytes: usize,
        chunk_bytes: usize,
    ) -> Self {
        Self {
            file,
            basis,
            onto,
            buf,
            payload_bytes,
            chunk_bytes,
            scratch: Box::default(),
            woven: None,
        }
    }

    pub fn run(&mut self, disk: &D) {
        self.woven = Some(self.weave(disk).unwrap_or_else(|woven| woven));
    }

    fn weave(&mut self, disk: &D) -> Result<Woven, Woven> {
        let payload = &mut self.buf[FRAME_HEAD_BYTES..];
        let (head, runs) =
            decode_tokens(&payload[..self.payload_bytes]).map_err(Woven::Forbidden)?;
        // The chunk takes the place of its runs. They are few bytes, but where all are literals.
        let kept = &mut self.scratch[..runs.len()];
        kept.copy_from_slice(runs);
        let runs = &*kept;
        let must_stay = !matches!(self.onto, Onto::Another { copies_stay: false });
        let place = must_stay.then_some(head.offset);
        let checked = apply::check(runs, self.chunk_bytes, self.basis.bytes, place);
        let checked = checked.map_err(|error| {
            Woven::Forbidden(WireError::Tokens {
                file: self.file.0,
                why: error.to_string(),
            })
        })?;
        let chunk = &mut payload[DATA_HEAD_BYTES..][..self.chunk_bytes];
        let (mut at, mut copied_bytes) = (0, 0);
        for step in checked.steps() {
            let place = &mut chunk[at..at + step.len()];
            at += step.len();
            match step {
                Step::Copy { basis_offset, len } => {
                    copied_bytes += len as u64;
                    if !read_exact(disk, &self.basis.fd, place, basis_offset) {
                        return Err(Woven::Wrong);
                    }
                }
                Step::Literal(range) => place.copy_from_slice(&runs[range]),
            }
        }
        // A basis may have been changed since it was summed.
        if chunk_digest(chunk) != head.digest {
            return Err(Woven::Wrong);
        }
        Ok(match &self.onto {
            Onto::Another { .. } => Woven::Whole {
                offset: head.offset,
                len: self.chunk_bytes,
                copied_bytes,
            },
            Onto::Itself(fd) => Woven::Written {
                len: self.chunk_bytes,
                copied_bytes,
                result: write_literals(disk, fd, &checked, runs, head.offset),
            },
        })
    }
}

fn write_literals<D: Disk>(
    disk: &D,
    fd: &D::Fd,
    checked: &apply::Runs<'_>,
    runs: &[u8],
    offset: u64,
) -> Result<(), Errno> {
    let mut at = offset;
    for step in checked.steps() {
        let len = step.len() as u64;
        if let Step::Literal(range) = step {
            write_all(disk, fd, &runs[range], at)?;
        }
        at += len;
    }
    Ok(())
}

/// Whether all of `into` could be read.
pub fn read_exact<D: Disk>(disk: &D, fd: &D::Fd, into: &mut [u8], offset: u64) -> bool {
    let mut done = 0;
    while done < into.len() {
        match disk.read(fd, &mut into[done..], offset + done as u64) {
            Ok(bytes @ 1..) => done += bytes,
            Ok(0) | Err(_) => return false,
        }
    }
    true
}
