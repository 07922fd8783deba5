//! Digests of files, for a push that goes by content: both sides read what has the same name and
//! size, each its own.

use std::sync::Arc;

use super::dir::{Dir, FdCache};
use super::read_pack::is_unchanged;
use super::tree::Tree;
use crate::delta::strong::{ContentDigest, ContentHasher, Key};
use crate::limits::{CHECK_FILES_MAX, CHUNK_BYTES, DIGEST_OPEN_BYTES};
use crate::model::entry::{Kind, Stat};
use crate::model::time::Mtime;
use crate::ops::Disk;

const _: () = assert!(crate::delta::strong::DIGEST_BYTES == crate::wire::check::DIGEST_BYTES);

/// The descriptors of directories that a side has.
pub enum Cache<D: Disk> {
    Source(Arc<FdCache<D>>),
    Target(Arc<Tree<D>>),
}

impl<D: Disk> Cache<D> {
    fn fds(&self) -> &FdCache<D> {
        match self {
            Self::Source(cache) => cache,
            Self::Target(tree) => &tree.cache,
        }
    }
}

/// One file to read.
struct File {
    /// Its directory, among those of the job.
    dir: u32,
    name_start: u32,
    name_bytes: u8,
    /// It has to be as large, or it is another version.
    size: u64,
    /// At the source: the time that it was listed with.
    listed: Option<Mtime>,
}

/// A file that is read in several runs of its job. It is closed between them: the next one has to find
/// the same version by its name.
struct Reading {
    before: Stat,
    at: u64,
    hasher: ContentHasher,
}

/// Reads files, one after the other, for their digests.
pub struct DigestFiles<D: Disk> {
    /// Of its CHECK.
    pub number: u32,
    cache: Cache<D>,
    key: Key,
    /// Of one run.
    budget_bytes: u64,
    dirs: Vec<Arc<Dir<D>>>,
    names: Vec<u8>,
    files: Vec<File>,
    reading: Option<Box<Reading>>,
    /// Out, of the files from the front on. `None`: it could not be read, or is not what it was.
    pub digests: Vec<Option<ContentDigest>>,
}

impl<D: Disk> DigestFiles<D> {
    pub fn new(number: u32, cache: Cache<D>, key: Key, budget_bytes: u64) -> Self {
        assert!(budget_bytes > DIGEST_OPEN_BYTES, "a run would not get on");
        Self {
            number,
            cache,
            key,
            budget_bytes,
            dirs: Vec::new(),
            names: Vec::new(),
            files: Vec::new(),
            reading: None,
            digests: Vec::new(),
        }
    }

    /// Adds the file `name` of `dir`. The names of one directory follow each other.
    pub fn push(&mut self, dir: &Arc<Dir<D>>, name: &[u8], size: u64, listed: Option<Mtime>) {
        let is_known = self.dirs.last().is_some_and(|last| Arc::ptr_eq(last, dir));
        if !is_known {
            self.dirs.push(Arc::clone(dir));
        }
        let few = |count: usize| u32::try_from(count).expect("limits bound the files of a CHECK");
        self.files.push(File {
            dir: few(self.dirs.len() - 1),
            name_start: few(self.names.len()),
            name_bytes: u8::try_from(name.len()).expect("a name has at most 255 bytes"),
            size,
            listed,
        });
        self.names.extend_from_slice(name);
        assert!(self.files.len() <= CHECK_FILES_MAX);
    }

    /// Whether all files have been read.
    pub fn is_finished(&self) -> bool {
        self.digests.len() == self.files.len()
    }

    /// Works until it is finished or its budget is spent; whoever has it runs it again.
    pub fn run(&mut self, disk: &D) {
        let mut budget = self.budget_bytes;
        let mut chunk = Vec::new();
        let now = disk.now();
        while budget > 0
            && let Some(file) = self.files.get(self.digests.len())
        {
            budget = budget.saturating_sub(DIGEST_OPEN_BYTES);
            match self.read(disk, file, now, &mut budget, &mut chunk) {
                Some(Turn::More(reading)) => self.reading = Some(reading),
                Some(Turn::Digest(digest)) => self.end_file(Some(digest)),
                None => self.end_file(None),
            }
        }
    }

    fn end_file(&mut self, digest: Option<ContentDigest>) {
        self.reading = None;
        self.digests.push(digest);
    }

    /// Reads on in a file; `None`: that can't be, or it is not what it was.
    fn read(
        &self,
        disk: &D,
        file: &File,
        now: Mtime,
        budget: &mut u64,
        chunk: &mut Vec<u8>,
    ) -> Option<Turn> {
        let start = file.name_start as usize;
        let name = &self.names[start..start + usize::from(file.name_bytes)];
        let above = &self.dirs[file.dir as usize];
        let dir = above.fd(disk, self.cache.fds()).ok()?;
        let is_file = |stat: &Stat| stat.kind == Kind::File;
        if file.listed.is_none() {
            // A peer named it, and opening a device can do something to it.
            disk.stat_at(&dir, name).ok().filter(is_file)?;
        }
        let fd = disk.open_file(&dir, name).ok()?;
        let before = disk.stat(&fd).ok().filter(is_file)?;
        if above.is_read_in_vain(&before) {
            return None;
        }
        let mut reading = match &self.reading {
            Some(reading) => reading.go_on(&before)?,
            None => Reading::begin(file, before, now, &self.key)?,
        };
        while reading.at < file.size {
            if *budget == 0 {
                return Some(Turn::More(Box::new(reading)));
            }
            let rest = usize::try_from(file.size - reading.at).unwrap_or(usize::MAX);
            let len = rest.min(CHUNK_BYTES);
            if chunk.len() < len {
                chunk.resize(len, 0);
            }
            let Ok(bytes @ 1..) = disk.read(&fd, &mut chunk[..len], reading.at) else {
                return None;
            };
            reading.hasher.append(&chunk[..bytes]);
            reading.at += bytes as u64;
            *budget = budget.saturating_sub(bytes as u64);
        }
        let after = disk.stat(&fd).ok()?;
        is_unchanged(&reading.before, &after).then(|| Turn::Digest(reading.hasher.finish()))
    }
}

/// How far a run got with a file.
enum Turn {
    More(Box<Reading>),
    Digest(ContentDigest),
}

impl Reading {
    /// `None`: it is another version than the one that was listed, or it may still become one under the
    /// same time, because it was written just now. A source sends it: who reads it then lets it rest.
    fn begin(file: &File, before: Stat, now: Mtime, key: &Key) -> Option<Self> {
        let is_listed = |listed: Mtime| before.mtime == listed && listed.rest(now).is_none();
        let is_it = before.size == file.size && file.listed.is_none_or(is_listed);
        is_it.then(|| Self {
            before,
            at: 0,
            hasher: ContentHasher::new(key),
        })
    }

    /// `None`: another version has its name since the last run.
    fn go_on(&self, now: &Stat) -> Option<Self> {
        let before = &self.before;
        let is_it = (now.dev, now.ino) == (before.dev, before.ino) && is_unchanged(before, now);
        is_it.then(|| Self {
            before: *before,
            at: self.at,
            hasher: self.hasher.clone(),
        })
    }
}
