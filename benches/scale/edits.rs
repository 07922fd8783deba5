//! Another version of a tree: the same files, each with changes in it.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::failure::{Doing, Result};
use super::stop::Stop;
use super::tree::{self, Random};

/// What is done to each file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Edits {
    /// Noise of 4 KiB over what is there, at any offset.
    pub patches: u32,
    /// Noise that is put in between, and where: in hundredths of the file.
    pub inserted_bytes: u64,
    pub inserted_at: u64,
    /// Nothing is left of it.
    pub is_other: bool,
}

/// A file whose time alone differs.
pub const TOUCHED: Edits = Edits {
    patches: 0,
    inserted_bytes: 0,
    inserted_at: 0,
    is_other: false,
};

const PATCH_BYTES: usize = 4096;
/// Far from the indices of a tree's own files: other noise.
const SEED: u64 = 1 << 40;

impl Edits {
    /// Makes the new version of the tree at `old`, which has its files in the root.
    pub fn make(self, old: &Path, new: &Path, stop: &Stop) -> Result<()> {
        fs::create_dir(new).doing(|| new.display().to_string())?;
        let mut entries = fs::read_dir(old)
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .doing(|| old.display().to_string())?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for (index, entry) in (0..).zip(&entries) {
            stop.check()?;
            let to = new.join(entry.file_name());
            self.make_file(&entry.path(), &to, index)
                .doing(|| to.display().to_string())?;
        }
        Ok(())
    }

    fn make_file(self, old: &Path, new: &Path, index: u64) -> io::Result<()> {
        let mut random = Random::new(SEED + index);
        let mut from = File::open(old)?;
        let to = File::create_new(new)?;
        let old_bytes = from.metadata()?.len();
        let at = old_bytes * self.inserted_at / 100;
        copy(&mut from, &to, at)?;
        write_noise(&to, self.inserted_bytes, &mut random)?;
        copy(&mut from, &to, old_bytes - at)?;
        let bytes = old_bytes + self.inserted_bytes;
        if self.is_other {
            (&to).seek(SeekFrom::Start(0))?;
            write_noise(&to, bytes, &mut random)?;
        }
        let mut patch = [0; PATCH_BYTES];
        for _ in 0..self.patches {
            random.fill(&mut patch);
            to.write_all_at(&patch, random.next() % (bytes - PATCH_BYTES as u64))?;
        }
        to.set_times(tree::times(10_000_000 + index))
    }
}

fn copy(from: &mut File, mut to: &File, bytes: u64) -> io::Result<()> {
    let copied = io::copy(&mut from.take(bytes), &mut to)?;
    if copied < bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

fn write_noise(mut to: &File, bytes: u64, random: &mut Random) -> io::Result<()> {
    let mut chunk = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        random.fill(&mut chunk[..len]);
        to.write_all(&chunk[..len])?;
        left -= len as u64;
    }
    Ok(())
}
