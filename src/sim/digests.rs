//! Which files have a digest: those that are one version from the listing to the last byte.

use std::sync::Arc;

use super::clock::{SimClock, WALL_START_SEC};
use super::disk::SimDisk;
use super::fault::DiskOptions;
use super::tree::{Entry, Tree};
use crate::delta::strong::{ContentDigest, ContentHasher, Key};
use crate::job::digest::{Cache, DigestFiles};
use crate::job::dir::{Dir, FdCache};
use crate::job::marker::Doubt;
use crate::limits::{CHUNK_BYTES, DIGEST_BUDGET_BYTES, DIGEST_OPEN_BYTES};
use crate::model::time::{Moment, Mtime};
use crate::ops::Disk;

const KEY: [u8; 32] = [7; 32];
/// Read in three runs of the smallest budget.
const BYTES: usize = 2 * CHUNK_BYTES + 5;

/// A disk with `/t/f`, and when that was written: long ago.
fn disk() -> (SimDisk, SimClock, Mtime) {
    let clock = SimClock::default();
    let disk = SimDisk::new(DiskOptions::default(), clock.clone(), 1);
    disk.plant(b"/t", &Tree::empty()).unwrap();
    let entry = Entry::file(0o644, &content());
    disk.put(b"/t/f", &entry).unwrap();
    clock.advance_to(Moment(1_000_000_000));
    (disk, clock, entry.meta.mtime)
}

fn content() -> Vec<u8> {
    (0..=250).cycle().take(BYTES).collect()
}

/// A job of a source that reads `/t/f`; of a target without `listed`.
fn job(disk: &SimDisk, size: usize, listed: Option<Mtime>, budget: u64) -> DigestFiles<SimDisk> {
    let cache = Cache::Source(Arc::new(FdCache::new(8)));
    let mut job = DigestFiles::new(1, cache, Key::new(&KEY), budget);
    let dir = Dir::root(b"", Arc::new(disk.open_operator_dir(b"/t").unwrap()));
    job.push(&Arc::new(dir), b"f", size as u64, listed);
    job
}

/// What comes of it when this happens between its first run and the second.
fn read(
    disk: &SimDisk,
    mut job: DigestFiles<SimDisk>,
    between: impl FnOnce(&SimDisk),
) -> Option<ContentDigest> {
    job.run(disk);
    between(disk);
    for _ in 0..5 {
        if job.is_finished() {
            return job.digests[0];
        }
        assert!(job.digests.is_empty());
        job.run(disk);
    }
    panic!("it does not get on");
}

fn digest(content: &[u8]) -> ContentDigest {
    let mut hasher = ContentHasher::new(&Key::new(&KEY));
    hasher.append(content);
    hasher.finish()
}

#[test]
fn a_file_is_read_in_one_run_or_in_several_and_no_descriptor_stays_between_them() {
    for budget in [
        DIGEST_OPEN_BYTES + 1,
        CHUNK_BYTES as u64,
        DIGEST_BUDGET_BYTES,
    ] {
        for is_source in [true, false] {
            let (disk, _, mtime) = disk();
            let job = job(&disk, BYTES, is_source.then_some(mtime), budget);
            let open = disk.open_fds_count();
            let found = read(&disk, job, |disk| assert_eq!(disk.open_fds_count(), open));
            assert_eq!(found, Some(digest(&content())), "{budget}");
        }
    }
}

#[test]
fn a_file_that_is_changed_between_two_runs_has_no_digest() {
    let changes: [fn(&SimDisk); 5] = [
        |disk| disk.overwrite(b"/t/f", &[1; BYTES]).unwrap(),
        |disk| disk.overwrite(b"/t/f", b"short").unwrap(),
        |disk| disk.touch(b"/t/f", Mtime { sec: 5, nsec: 5 }).unwrap(),
        |disk| disk.remove(b"/t/f").unwrap(),
        // Another file of that name, with all that a listing shows of the first.
        |disk| {
            disk.put(b"/t/g", &Entry::file(0o644, &content())).unwrap();
            disk.remove(b"/t/f").unwrap();
            disk.move_to(b"/t/g", b"/t/f").unwrap();
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        for is_source in [true, false] {
            let (disk, clock, mtime) = disk();
            let listed = is_source.then_some(mtime);
            let job = job(&disk, BYTES, listed, DIGEST_OPEN_BYTES + 1);
            clock.advance_to(Moment(2_000_000_000));
            assert_eq!(read(&disk, job, change), None, "{number}");
        }
    }
}

#[test]
fn another_version_than_the_one_that_was_listed_has_none() {
    let (disk, _, mtime) = disk();
    let other = Mtime { nsec: 99, ..mtime };
    for (size, listed) in [
        (BYTES - 1, Some(mtime)),
        (BYTES + 1, None),
        (BYTES, Some(other)),
    ] {
        let job = job(&disk, size, listed, DIGEST_BUDGET_BYTES);
        assert_eq!(read(&disk, job, |_| {}), None, "{size}");
    }
}

// It may be written once more under that time, which no stat tells.
#[test]
fn a_source_lets_a_file_rest_that_was_written_just_now() {
    let (disk, clock, _) = disk();
    let just_now = Mtime {
        sec: WALL_START_SEC + 1,
        nsec: 1_000_000,
    };
    disk.touch(b"/t/f", just_now).unwrap();
    for (now, has_rested) in [(1_010_000_000, false), (1_030_000_000, true)] {
        clock.advance_to(Moment(now));
        let job = job(&disk, BYTES, Some(just_now), DIGEST_BUDGET_BYTES);
        assert_eq!(read(&disk, job, |_| {}).is_some(), has_rested, "{now}");
    }
}

// What is read there may be in memory only, and gone after a power cut.
#[test]
fn where_a_sync_has_failed_right_content_proves_nothing() {
    for (doubt, is_read) in [(None, true), (Some(Doubt::ALWAYS), false)] {
        let (disk, ..) = disk();
        let cache = Cache::Source(Arc::new(FdCache::new(8)));
        let mut job = DigestFiles::new(1, cache, Key::new(&KEY), DIGEST_BUDGET_BYTES);
        let dir = Dir::root(b"", Arc::new(disk.open_operator_dir(b"/t").unwrap()));
        dir.doubt(doubt);
        job.push(&Arc::new(dir), b"f", BYTES as u64, None);
        assert_eq!(read(&disk, job, |_| {}).is_some(), is_read);
    }
}
