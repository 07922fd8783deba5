//! The source's own tree: directories listed, files opened and looked at again.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::alphabet::{Kind, Meta, OWN_PREFIX, Time};

/// An entry of the source's.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) meta: Meta,
    pub(super) kind: Kind,
    /// As in a listing.
    pub(super) size: u64,
    pub(super) dev: u64,
    pub(super) ino: u64,
}

impl Entry {
    pub(super) fn read(path: &Path, name: &[u8]) -> io::Result<Self> {
        let stat = std::fs::symlink_metadata(path)?;
        let meta = meta_of(&stat)?;
        let kind = meta.kind().ok_or(io::ErrorKind::Unsupported)?;
        let size = match kind {
            Kind::File | Kind::Symlink => stat.size(),
            Kind::CharacterDevice | Kind::BlockDevice => stat.rdev(),
            Kind::Fifo | Kind::Directory | Kind::Socket => 0,
        };
        Ok(Self {
            name: name.to_vec(),
            meta,
            kind,
            size,
            dev: stat.dev(),
            ino: stat.ino(),
        })
    }
}

pub(super) fn meta_of(stat: &Metadata) -> io::Result<Meta> {
    let out_of_range = |_| io::Error::from(io::ErrorKind::InvalidData);
    Ok(Meta {
        st_mode: u16::try_from(stat.mode()).map_err(out_of_range)?,
        uid: stat.uid(),
        gid: stat.gid(),
        mtime: Time {
            seconds: stat.mtime(),
            nanos: u32::try_from(stat.mtime_nsec()).map_err(out_of_range)?,
        },
    })
}

/// What is in a directory, in byte order of the names, and how many entries can't be sent: those
/// with names of sy's own, and those that could not be looked at.
pub(super) struct List {
    pub(super) entries: Vec<Entry>,
    pub(super) unsendable: u64,
}

pub(super) fn list(dir: &Path) -> io::Result<List> {
    let (mut entries, mut unsendable) = (Vec::new(), 0);
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        if name.as_bytes().starts_with(OWN_PREFIX) {
            continue;
        }
        match Entry::read(&dir.join(&name), name.as_bytes()) {
            Ok(entry) => entries.push(entry),
            Err(why) if why.kind() == io::ErrorKind::NotFound => {}
            Err(_) => unsendable += 1,
        }
    }
    entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(List {
        entries,
        unsendable,
    })
}

/// A file that is being read, and how it looked at the start.
pub(super) struct Opened {
    pub(super) content: tokio_uring::fs::File,
    pub(super) meta: Meta,
    pub(super) size: u64,
    watch: File,
    changed: (i64, i64),
}

impl Opened {
    /// Follows no link, and does not wait for a fifo's other end.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let watch = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        let stat = watch.metadata()?;
        if !stat.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self {
            content: tokio_uring::fs::File::from_std(watch.try_clone()?),
            meta: meta_of(&stat)?,
            size: stat.size(),
            changed: (stat.ctime(), stat.ctime_nsec()),
            watch,
        })
    }

    /// Is it still as it was when it was opened?
    pub(super) fn is_unchanged(&self) -> bool {
        self.watch.metadata().is_ok_and(|stat| {
            meta_of(&stat).is_ok_and(|meta| meta == self.meta)
                && stat.size() == self.size
                && (stat.ctime(), stat.ctime_nsec()) == self.changed
        })
    }

    /// Up to `len` bytes; fewer where the file ends.
    pub(super) async fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        use tokio_uring::buf::BoundedBuf;
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let room = bytes.len()..len;
            let at = offset + bytes.len() as u64;
            let (result, slice) = self.content.read_at(bytes.slice(room), at).await;
            bytes = slice.into_inner();
            if result? == 0 {
                break;
            }
        }
        Ok(bytes)
    }
}
