//! Two versions of one tree, the same for the same seed wherever they are made: files that stay, change, come
//! and go, small ones and large ones.

use std::path::Path;

use crate::{Chance, content, plant};

const FILES: u64 = 160;

/// What is at the target.
#[track_caller]
pub fn plant_old(root: &Path, seed: u64) {
    plant(root, seed, Version::Old);
}

/// What is pushed over it.
#[track_caller]
pub fn plant_new(root: &Path, seed: u64) {
    plant(root, seed, Version::New);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Old,
    New,
}

fn plant(root: &Path, seed: u64, version: Version) {
    let mut chance = Chance::seeded(seed);
    plant::dir(root);
    for number in 0..FILES {
        let path = root.join(format!(
            "dir-{}/sub-{}/file-{number}",
            number % 7,
            number % 3
        ));
        let bytes = match chance.below(40) {
            0 => 300_000 + chance.below(3 << 20),
            1..6 => chance.below(100_000),
            _ => chance.below(6_000),
        };
        let bytes = usize::try_from(bytes).expect("some MiB");
        let kind = chance.below(5);
        let (old, new) = (
            content::noise(2 * number, bytes),
            content::noise(2 * number + 1, bytes),
        );
        let content = match (kind, version) {
            (0, Version::New) | (1, Version::Old) => continue,
            (0 | 2, Version::Old) => old,
            (1, Version::New) => new,
            // Of one size in both, and large ones for the most part the same.
            (2, Version::New) => {
                let cut = old.len() / 3;
                [&old[..cut], &new[cut..cut + cut / 4], &old[cut + cut / 4..]].concat()
            }
            _ => old,
        };
        plant::file(&path, content);
        let is_touched = kind == 2 && version == Version::New || kind == 1;
        let seconds = 1_400_000_000 + i64::from(is_touched);
        plant::mtime(&path, seconds, 5_000);
    }
    let mut dirs = Vec::new();
    for number in 0..7 {
        let dir = root.join(format!("dir-{number}"));
        dirs.extend((0..3).map(|sub| dir.join(format!("sub-{sub}"))));
        dirs.push(dir);
    }
    dirs.push(root.to_owned());
    for dir in dirs.iter().filter(|dir| dir.exists()) {
        plant::mtime(dir, 1_300_000_000, 0);
    }
}
