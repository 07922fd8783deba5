//! Files that are mostly holes: made in milliseconds, and compared without reading what isn't there.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::plant;

/// A file of that size with these bytes at these offsets, and holes between.
#[track_caller]
pub fn plant(path: impl AsRef<Path>, size: u64, pieces: &[(u64, &[u8])]) {
    let path = path.as_ref();
    plant::sparse(path, size);
    let file = File::options().write(true).open(path);
    let file = file.expect("it was planted");
    for (at, bytes) in pieces {
        assert!(at + bytes.len() as u64 <= size, "beyond the end");
        file.write_all_at(bytes, *at).expect("it can be written");
    }
}

/// Fails unless both files have the same bytes. Where both have a hole, nothing is read.
#[track_caller]
pub fn assert_same(one: impl AsRef<Path>, other: impl AsRef<Path>, what: &str) {
    let open = |path: &Path| {
        let file = File::open(path);
        file.unwrap_or_else(|why| panic!("{what}: open {}: {why}", path.display()))
    };
    let (one, other) = (open(one.as_ref()), open(other.as_ref()));
    let size = |file: &File| file.metadata().expect("an open file").len();
    assert_eq!(size(&one), size(&other), "{what}: their sizes");
    for (has_data, beside) in [(&one, &other), (&other, &one)] {
        let mut at = 0;
        while let Some((from, to)) = next_data(has_data, at) {
            assert_same_between(has_data, beside, from, to, what);
            at = to;
        }
    }
}

/// The next range at or after `at` that is no hole.
fn next_data(file: &File, at: u64) -> Option<(u64, u64)> {
    let from = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(from) => from,
        Err(Errno::NXIO) => return None,
        Err(why) => panic!("SEEK_DATA: {why}"),
    };
    let to = rustix::fs::seek(file, SeekFrom::Hole(from)).expect("every file ends with a hole");
    Some((from, to))
}

#[track_caller]
fn assert_same_between(one: &File, other: &File, from: u64, to: u64, what: &str) {
    const PIECE: u64 = 1 << 20;
    let mut at = from;
    while at < to {
        let len = usize::try_from(PIECE.min(to - at)).expect("a MiB");
        let read = |file: &File| {
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, at)
                .expect("it has these bytes");
            bytes
        };
        let (ours, theirs) = (read(one), read(other));
        let differs = ours
            .iter()
            .zip(&theirs)
            .position(|(one, other)| one != other);
        if let Some(index) = differs {
            panic!("{what}: they differ at {}", at + index as u64);
        }
        at += len as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Yard;

    fn differ(one: &[(u64, &[u8])], other: &[(u64, &[u8])]) -> bool {
        let yard = Yard::new();
        plant(yard.join("one"), 5 << 20, one);
        plant(yard.join("other"), 5 << 20, other);
        let compared = std::panic::catch_unwind(|| {
            assert_same(yard.join("one"), yard.join("other"), "one and other");
        });
        compared.is_err()
    }

    #[test]
    fn a_byte_that_only_one_of_them_has_is_found() {
        let near_the_end = (5 << 20) - 3;
        assert!(!differ(&[(3 << 20, b"text")], &[(3 << 20, b"text")]));
        assert!(!differ(&[(3 << 20, &[0; 9000])], &[]));
        assert!(differ(&[(3 << 20, b"text")], &[]));
        assert!(differ(&[], &[(near_the_end, b"x")]));
        assert!(differ(&[(0, b"text")], &[(0, b"teXt")]));
    }
}
