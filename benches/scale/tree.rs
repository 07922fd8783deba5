//! A source tree: how many files, how large, in which directories. The same shape has the same bytes
//! on every machine, and they don't compress.

use std::fs::{self, File, FileTimes};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::failure::{Doing, Failure, Result};
use super::stop::Stop;

const CHUNK_BYTES: usize = 1 << 20;
/// How many bytes of how many files are compared with their source, once per row.
const COMPARED_FILES: u64 = 200;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    pub name: &'static str,
    pub files: u64,
    /// 0 puts the files into the root.
    pub dirs: u64,
    pub size_min: u64,
    pub size_max: u64,
    /// Directories inside directories, up to three in each, instead of all in the root.
    pub nested: bool,
}

pub const SMALL: Shape = Shape {
    name: "small",
    files: 100_000,
    dirs: 1_000,
    size_min: 2 << 10,
    size_max: 6 << 10,
    nested: false,
};
pub const NESTED: Shape = Shape {
    name: "nested",
    dirs: 20_000,
    nested: true,
    ..SMALL
};
pub const MANY: Shape = Shape {
    name: "many",
    files: 1_000_000,
    dirs: 5_000,
    size_min: 150,
    size_max: 250,
    nested: false,
};
/// A tenth of `MANY`, and ten times as much.
pub const MANY_TENTH: Shape = Shape {
    name: "many-tenth",
    files: MANY.files / 10,
    dirs: MANY.dirs / 10,
    ..MANY
};
pub const MANY_TENFOLD: Shape = Shape {
    name: "many-tenfold",
    files: MANY.files * 10,
    dirs: MANY.dirs * 10,
    ..MANY
};
pub const ONE_DIR: Shape = Shape {
    name: "one-dir",
    dirs: 1,
    ..MANY
};
pub const BIG: Shape = Shape {
    name: "big",
    files: 1,
    dirs: 0,
    size_min: 1 << 30,
    size_max: 1 << 30,
    nested: false,
};
pub const FOUR: Shape = Shape {
    name: "four",
    files: 4,
    ..BIG
};

pub const QUARTER: Shape = Shape {
    name: "quarter",
    size_min: 256 << 20,
    size_max: 256 << 20,
    ..BIG
};
/// A push of it is mostly its beginning and its end.
pub const FEW: Shape = Shape {
    name: "few",
    files: 1_000,
    dirs: 10,
    size_min: 4 << 10,
    size_max: 4 << 10,
    nested: false,
};

/// Files of which a push of a new version could send whole ones as well.
pub const MIDDLING: Shape = Shape {
    name: "middling",
    files: 10_000,
    dirs: 0,
    size_min: 200 << 10,
    size_max: 200 << 10,
    nested: false,
};

/// What people send in passing.
pub const HANDFUL: Shape = Shape {
    files: 20,
    dirs: 0,
    name: "handful",
    ..FEW
};
/// Takes long enough for dozens of handfuls beside it.
pub const HUGE: Shape = Shape {
    name: "huge",
    size_min: 4 << 30,
    size_max: 4 << 30,
    ..BIG
};

/// What a walk finds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Count {
    pub files: u64,
    pub dirs: u64,
    pub bytes: u64,
}

impl Shape {
    /// A hundredth of the files, and big files of 16 MiB.
    pub fn quick(self) -> Self {
        Self {
            files: self.files.div_ceil(100).max(self.files.min(4)),
            dirs: self.dirs.div_ceil(100),
            size_min: self.size_min.min(16 << 20),
            size_max: self.size_max.min(16 << 20),
            ..self
        }
    }

    pub fn inodes(&self) -> u64 {
        self.files + self.dirs + 1
    }

    /// Whole pages, and what the kernel keeps for an inode and its name.
    pub fn bytes_max(&self) -> u64 {
        self.files * self.size_max.next_multiple_of(4096) + self.inodes() * 1024
    }

    /// Makes the tree at `root`, which doesn't exist yet.
    pub fn make(&self, root: &Path, stop: &Stop) -> Result<Count> {
        let mut dirs = vec![root.to_path_buf()];
        for index in 0..self.dirs {
            let parent = match (self.nested, index) {
                (true, 1..) => usize::try_from((index - 1) / 3).expect("fits") + 1,
                _ => 0,
            };
            dirs.push(dirs[parent].join(format!("d{index:05}")));
        }
        for dir in &dirs {
            fs::create_dir(dir).doing(|| dir.display().to_string())?;
        }

        let mut buffer = vec![0; CHUNK_BYTES];
        let mut bytes = 0;
        for index in 0..self.files {
            if index % 1024 == 0 {
                stop.check()?;
            }
            let dir = match self.dirs {
                0 => root,
                count => &dirs[usize::try_from(index * count / self.files).expect("fits") + 1],
            };
            let path = dir.join(format!("f{index:07}"));
            bytes += self
                .make_file(&path, index, &mut buffer, stop)
                .doing(|| path.display().to_string())?;
        }
        // Names made in them have touched the directories: their times come last.
        for (index, dir) in dirs.iter().enumerate() {
            File::open(dir)
                .and_then(|file| file.set_times(times(index as u64)))
                .doing(|| dir.display().to_string())?;
        }
        Ok(Count {
            files: self.files,
            dirs: self.dirs,
            bytes,
        })
    }

    fn make_file(
        &self,
        path: &Path,
        index: u64,
        buffer: &mut [u8],
        stop: &Stop,
    ) -> std::io::Result<u64> {
        let mut random = Random::new(index);
        let size = self.size_min + random.next() % (self.size_max - self.size_min + 1);
        let mut file = File::create_new(path)?;
        let mut left = size;
        while left > 0 {
            let chunk = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            random.fill(&mut buffer[..chunk]);
            file.write_all(&buffer[..chunk])?;
            left -= chunk as u64;
            if stop.check().is_err() {
                break; // the next look at the flag ends the bench
            }
        }
        file.set_times(times(index))?;
        Ok(size)
    }
}

/// Counts what is under `root`, without names of the form `.sy.*`, which sy reserves for itself.
pub fn count(root: &Path) -> Result<Count> {
    let mut count = Count::default();
    walk(root, &mut |entry, is_dir, bytes| {
        if entry
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b".sy."))
        {
            return;
        }
        if is_dir {
            count.dirs += 1;
        } else {
            count.files += 1;
            count.bytes += bytes;
        }
    })?;
    Ok(count)
}

/// Compares the content of a few files, spread over the whole tree, with their source's.
pub fn compare_some(source: &Path, target: &Path, shape: &Shape) -> Result<()> {
    let step = (shape.files / COMPARED_FILES).max(1);
    let mut index = 0;
    let mut chosen: Vec<PathBuf> = Vec::new();
    walk(source, &mut |path, is_dir, _| {
        if is_dir {
            return;
        }
        if index % step == 0 {
            chosen.push(path.into());
        }
        index += 1;
    })?;
    for path in chosen {
        let twin = target.join(path.strip_prefix(source).expect("the walk began there"));
        if !same_content(&path, &twin).doing(|| twin.display().to_string())? {
            return Err(Failure::Tool(format!(
                "{} is not what was sent",
                twin.display()
            )));
        }
    }
    Ok(())
}

fn same_content(left: &Path, right: &Path) -> std::io::Result<bool> {
    let (mut left, mut right) = (File::open(left)?, File::open(right)?);
    let mut left_bytes = left.metadata()?.len();
    if left_bytes != right.metadata()?.len() {
        return Ok(false);
    }
    let (mut left_buffer, mut right_buffer) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    while left_bytes > 0 {
        let chunk = usize::try_from(left_bytes)
            .unwrap_or(usize::MAX)
            .min(CHUNK_BYTES);
        left.read_exact(&mut left_buffer[..chunk])?;
        right.read_exact(&mut right_buffer[..chunk])?;
        if left_buffer[..chunk] != right_buffer[..chunk] {
            return Ok(false);
        }
        left_bytes -= chunk as u64;
    }
    Ok(true)
}

fn walk(dir: &Path, visit: &mut dyn FnMut(&Path, bool, u64)) -> Result<()> {
    let doing = || dir.display().to_string();
    for entry in fs::read_dir(dir).doing(doing)? {
        let entry = entry.doing(doing)?;
        let path = entry.path();
        let is_dir = entry.file_type().doing(doing)?.is_dir();
        let bytes = match is_dir {
            true => 0,
            false => entry.metadata().doing(doing)?.len(),
        };
        visit(&path, is_dir, bytes);
        if is_dir {
            walk(&path, visit)?;
        }
    }
    Ok(())
}

/// A time long past: nothing under test may take the files for just changed. The nanoseconds are odd
/// on purpose.
pub fn times(index: u64) -> FileTimes {
    let age = Duration::new(1_600_000_000 + index, 123_456_789);
    FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + age)
}

/// Marsaglia's xorshift of 64 bits.
pub struct Random(u64);

impl Random {
    pub fn new(index: u64) -> Self {
        // An odd multiplier spreads neighbours apart and `| 1` keeps the state from being zero,
        // where it would stay for ever.
        let mut random = Self((index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}
