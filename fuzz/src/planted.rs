//! What stands on the simulated disks before a session begins.

use std::sync::{Arc, LazyLock};

use sy::limits::CHUNK_BYTES;
use sy::model::entry::Kind;
use sy::sim::prng::Prng;
use sy::sim::tree::{Content, Entry};
use sy::sim::{SimDisk, Tree};

/// The directory of DEST, and what the module leads to.
pub const ABOVE_DEST: &[u8] = b"/t";
pub const DEST: &[u8] = b"/t/dest";
/// What is pushed.
pub const SOURCE: &[u8] = b"/src";
/// Another name of a file below DEST.
pub const OTHER_NAME: &[u8] = b"/t/link";

/// A file of more than a chunk.
pub static BIG: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = vec![0; CHUNK_BYTES + 40_000];
    Prng::new(1).fill(&mut bytes);
    bytes
});

/// One of more than two, whole chunks of which are zeros.
static HOLLOW: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = vec![0; 2 * CHUNK_BYTES + 1];
    bytes[2 * CHUNK_BYTES] = 1;
    bytes
});

/// One that goes in a PACK, and as a delta where deltas are sent of small files.
static MIDDLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = vec![0; 9000];
    Prng::new(2).fill(&mut bytes);
    bytes
});

/// What a symlink below DEST or in the source leads to.
const SECRET: &[u8] = b"root::0:0";

static OUTSIDE: LazyLock<Tree> = LazyLock::new(|| {
    Tree::empty()
        .with(b"passwd", Entry::file(0o600, SECRET))
        .with(b"d", Entry::dir(0o700))
        .with(b"d/f", Entry::file(0o644, b"untouched"))
});

static AT_DEST: LazyLock<Tree> = LazyLock::new(|| {
    Tree::empty()
        .with(b"a", Entry::file(0o644, b"old a"))
        .with(b"b", Entry::dir(0o755))
        .with(b"b/f", Entry::file(0o600, b"old f"))
        .with(b"b/g", Entry::dir(0o500))
        .with(b"b/g/h", Entry::file(0o444, b""))
        .with(b"big", Entry::file(0o644, &BIG))
        .with(b"e", Entry::dir(0o755))
        .with(b"l", Entry::symlink(b"/outside/d"))
        .with(b"ln", Entry::file(0o644, &MIDDLE))
        .with(b"p", Entry::symlink(b"../../outside/passwd"))
        .with(b"s", Entry::new(Kind::Fifo, 0o644, Content::None))
});

static AT_SOURCE: LazyLock<Tree> = LazyLock::new(|| {
    let mut owned = Entry::file(0o4755, b"set-id");
    (owned.meta.uid, owned.meta.gid) = (1000, 1000);
    Tree::empty()
        .with(b"a", Entry::file(0o644, b"new a"))
        .with(b"b", Entry::dir(0o755))
        .with(b"b/f", owned)
        .with(b"b/g", Entry::dir(0o500))
        .with(b"b/g/h", Entry::file(0o444, b""))
        .with(b"big", Entry::file(0o644, &BIG))
        .with(b"c", Entry::dir(0o755))
        .with(b"c/big", Entry::file(0o600, &HOLLOW))
        .with(b"l", Entry::symlink(b"/outside/d"))
        .with(b"mid", Entry::file(0o644, &MIDDLE))
        .with(b"p", Entry::symlink(b"../outside/passwd"))
        .with(b"s", Entry::new(Kind::Fifo, 0o644, Content::None))
});

/// DEST, what it must not be left for, and what may be reached by another name.
pub fn target(disk: &SimDisk, has_dest: bool) {
    let planted = "an empty disk takes a tree";
    disk.plant(b"/outside", &OUTSIDE).expect(planted);
    disk.plant(b"/t/beside", &OUTSIDE).expect(planted);
    if has_dest {
        disk.plant(DEST, &AT_DEST).expect(planted);
        disk.hard_link(b"/t/dest/ln", OTHER_NAME).expect(planted);
    }
    disk.settle();
}

/// What is pushed, and what isn't.
pub fn source(disk: &SimDisk) {
    let planted = "an empty disk takes a tree";
    disk.plant(b"/outside", &OUTSIDE).expect(planted);
    disk.plant(SOURCE, &AT_SOURCE).expect(planted);
    disk.settle();
}

/// What is pushed, by paths below `SOURCE`.
pub fn pushed() -> &'static Tree {
    &AT_SOURCE
}

/// The content of every file that is pushed.
pub fn pushed_contents() -> impl Iterator<Item = &'static Arc<Vec<u8>>> {
    AT_SOURCE.entries.values().filter_map(bytes_of)
}

pub fn bytes_of(entry: &Entry) -> Option<&Arc<Vec<u8>>> {
    match &entry.content {
        Content::Bytes(bytes) => Some(bytes),
        Content::None | Content::Target(_) | Content::Device(_) => None,
    }
}
