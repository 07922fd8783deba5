//! Looks for the first finished file on a target that is being filled.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// How many directories one look opens at the low and at the high end of the names, and between.
const LOOKED_AT: usize = 8;

/// Every tool names its temporary files with a leading dot, and the trees have no such name, so the
/// first regular file without one is finished. Knows trees of one level of directories.
pub struct FirstFile {
    root: PathBuf,
    dirs: BTreeSet<OsString>,
    turn: usize,
}

impl FirstFile {
    pub fn under(root: &Path) -> Self {
        Self {
            root: root.into(),
            dirs: BTreeSet::new(),
            turn: 0,
        }
    }

    /// True when there is one. A look opens some 24 directories, so that it stays short when
    /// thousands are made before the first file: the first and last by name every time, where a
    /// sorted push begins, and the others in turns.
    pub fn look(&mut self) -> bool {
        if self.list_root() {
            return true;
        }
        let middle = self.dirs.len().saturating_sub(2 * LOOKED_AT);
        let rotated = LOOKED_AT + if middle == 0 { 0 } else { self.turn % middle };
        self.turn += LOOKED_AT;
        let low = self.dirs.iter().take(LOOKED_AT);
        let high = self.dirs.iter().rev().take(LOOKED_AT);
        let between = self.dirs.iter().skip(rotated).take(LOOKED_AT);
        low.chain(high)
            .chain(between)
            .any(|dir| has_file(&self.root.join(dir)))
    }

    fn list_root(&mut self) -> bool {
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_file() => return true,
                Ok(kind) if kind.is_dir() => {
                    self.dirs.insert(name);
                }
                _ => {}
            }
        }
        false
    }
}

fn has_file(dir: &Path) -> bool {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| {
            !entry.file_name().as_encoded_bytes().starts_with(b".")
                && entry.file_type().is_ok_and(|kind| kind.is_file())
        })
}
