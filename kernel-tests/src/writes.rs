//! What a disk was told, in its order, as qemu's `blklogwrites` has written it down (the form of
//! dm-log-writes), and what the disk may hold if the power goes at some point of it.
//!
//! Before the last flush everything is there. Behind it each write may be there or not, in any combination,
//! and of one of them a part: a disk with a cache of its own promises no more. A write that was marked
//! FUA is there.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::Chance;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const SECTOR: u64 = 512;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// One request, and where its bytes are in the log.
#[derive(Clone, Copy, Debug)]
struct Entry {
    at: u64,
    bytes: u64,
    flags: u64,
    log_at: u64,
}

pub struct Writes {
    log: File,
    entries: Vec<Entry>,
}

impl Writes {
    pub fn read(path: &Path) -> io::Result<Self> {
        let log = File::open(path)?;
        let number = |at: u64| -> io::Result<u64> {
            let mut word = [0; 8];
            log.read_exact_at(&mut word, at)?;
            Ok(u64::from_le_bytes(word))
        };
        if number(0)? != MAGIC {
            return Err(io::Error::other("this is no log of writes"));
        }
        let count = number(16)?;
        let mut entries = Vec::new();
        let mut at = SECTOR;
        for _ in 0..count {
            let flags = number(at + 16)?;
            let has_data = flags & DISCARD == 0;
            let entry = Entry {
                at: number(at)? * SECTOR,
                bytes: number(at + 8)? * SECTOR,
                flags,
                log_at: at + SECTOR,
            };
            at += SECTOR + if has_data { entry.bytes } else { 0 };
            // What is discarded may as well stay.
            if has_data {
                entries.push(entry);
            }
        }
        Ok(Self { log, entries })
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn flushes_count(&self) -> usize {
        let flushes = self.entries.iter().filter(|entry| entry.flags & FLUSH != 0);
        flushes.count()
    }

    /// Behind the flush of that number, or behind the first request if there are fewer.
    pub fn behind_flush(&self, number: usize) -> usize {
        let mut flushes = self.entries.iter().zip(1..);
        let flush = flushes
            .by_ref()
            .filter(|(entry, _)| entry.flags & FLUSH != 0);
        flush.map(|(_, end)| end).nth(number).unwrap_or(1)
    }

    /// Makes of the disk's image as it was in the beginning what it may hold when the power went right behind the first
    /// `end` requests.
    pub fn cut(&self, disk: &File, end: usize, chance: &mut Chance) -> io::Result<()> {
        let flushed = self.entries[..end]
            .iter()
            .rposition(|entry| entry.flags & FLUSH != 0);
        let flushed = flushed.map_or(0, |at| at + 1);
        for entry in &self.entries[..flushed] {
            self.write(disk, *entry, entry.bytes)?;
        }
        for entry in &self.entries[flushed..end] {
            let sectors = entry.bytes / SECTOR;
            let kept = match chance.below(8) {
                _ if entry.flags & FUA != 0 => sectors,
                0..4 => sectors,
                4 => chance.below(sectors + 1),
                _ => 0,
            };
            self.write(disk, *entry, kept * SECTOR)?;
        }
        Ok(())
    }

    fn write(&self, disk: &File, entry: Entry, bytes: u64) -> io::Result<()> {
        let mut block = vec![0; usize::try_from(bytes).expect("a request fits into memory")];
        self.log.read_exact_at(&mut block, entry.log_at)?;
        disk.write_all_at(&block, entry.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Yard;

    /// A log of requests: sector, content, flags.
    fn log(yard: &Yard, requests: &[(u64, &[u8], u64)]) -> Writes {
        let path = yard.join("log");
        let file = File::create(&path).expect("a file can be made");
        let put = |at: u64, words: &[u64]| {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            file.write_all_at(&bytes, at).expect("it takes bytes");
        };
        put(0, &[MAGIC, 1, requests.len() as u64, SECTOR]);
        let mut at = SECTOR;
        for (sector, bytes, flags) in requests {
            let sectors = bytes.len() as u64 / SECTOR;
            put(at, &[*sector, sectors, *flags, 0]);
            file.write_all_at(bytes, at + SECTOR)
                .expect("it takes bytes");
            at += SECTOR + bytes.len() as u64;
        }
        file.set_len(at).expect("it has a length");
        Writes::read(&path).expect("it is a log")
    }

    fn cut(writes: &Writes, yard: &Yard, end: usize, seed: u64) -> [u8; 4] {
        let path = yard.join("disk");
        std::fs::write(&path, vec![0; 4 * 512]).expect("a disk can be made");
        let disk = File::options().read(true).write(true).open(&path);
        let disk = disk.expect("it can be opened");
        let mut chance = Chance::seeded(seed);
        writes.cut(&disk, end, &mut chance).expect("it can be cut");
        let mut first = [0; 4];
        for (place, at) in first.iter_mut().zip((0..).step_by(512)) {
            disk.read_exact_at(std::slice::from_mut(place), at)
                .expect("a byte");
        }
        first
    }

    #[test]
    fn what_was_flushed_is_there_and_what_was_not_may_be() {
        let yard = Yard::new();
        let requests: [(u64, &[u8], u64); 5] = [
            (0, &[1; 512], 0),
            (1, &[2; 512], 0),
            (0, &[], FLUSH),
            (1, &[3; 512], 0),
            (2, &[4; 512], FUA),
        ];
        let writes = log(&yard, &requests);
        assert_eq!((writes.len(), writes.flushes_count()), (5, 1));
        assert_eq!(writes.behind_flush(0), 3);
        assert_eq!(cut(&writes, &yard, 3, 1), [1, 2, 0, 0]);
        let ends: Vec<_> = (0..50).map(|seed| cut(&writes, &yard, 5, seed)).collect();
        assert!(ends.contains(&[1, 2, 4, 0]) && ends.contains(&[1, 3, 4, 0]));
        assert!(ends.iter().all(|end| end[0] == 1 && end[2] == 4));
        let early: Vec<_> = (0..50).map(|seed| cut(&writes, &yard, 2, seed)).collect();
        for expected in [[0, 0, 0, 0], [1, 0, 0, 0], [0, 2, 0, 0], [1, 2, 0, 0]] {
            assert!(early.contains(&expected));
        }
    }

    #[test]
    fn what_is_no_log_is_refused() {
        let yard = Yard::new();
        let path = yard.join("log");
        std::fs::write(&path, vec![7; 4096]).expect("a file can be made");
        assert!(Writes::read(&path).is_err());
    }
}
