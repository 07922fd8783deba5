//! `User`, who works in a tree while it is pushed.

use std::sync::{Arc, Mutex, PoisonError};

use super::disk::SimDisk;
use super::host::joined;
use super::oracle::{self, History};
use super::prng::Prng;
use super::scenario::SOURCE_ROOT;
use super::tree::{Content, Entry};
use crate::model::entry::Kind;

/// Somebody who works in a tree while it is pushed.
pub(super) struct User {
    prng: Prng,
    root: &'static [u8],
    per_mille: u32,
    changes_left: u64,
    history: Arc<Mutex<History>>,
    /// The file that is being worked at: written again and again, in place and at its size, so that
    /// within a tick of the clock nothing but its content shows it.
    hot: Option<Vec<u8>>,
    /// Drawn apart, so that the seeds from before tell their stories.
    hot_prng: Prng,
    rewrites_left: u64,
}

impl User {
    pub(super) fn new(
        mut prng: Prng,
        root: &'static [u8],
        per_mille: u32,
        history: &Arc<Mutex<History>>,
    ) -> Self {
        let mut hot_prng = Prng::new(prng.clone().next_u64() ^ 0x686f_7421);
        let changes_left = prng.below(12);
        Self {
            hot: None,
            rewrites_left: hot_prng.below(40),
            hot_prng,
            prng,
            root,
            per_mille,
            changes_left,
            history: Arc::clone(history),
        }
    }

    /// Before a call of somebody else.
    pub(super) fn act(&mut self, disk: &SimDisk) {
        self.work_on(disk);
        if self.changes_left == 0 || !self.prng.chance(self.per_mille) {
            return;
        }
        self.changes_left -= 1;
        let Ok(tree) = disk.snapshot(self.root) else {
            return;
        };
        let is_theirs = |path: &&Vec<u8>| !path.is_empty() && !oracle::is_ours(path);
        let paths: Vec<Vec<u8>> = tree.entries.keys().filter(is_theirs).cloned().collect();
        if paths.is_empty() {
            return;
        }
        let mut path = self.prng.pick(&paths).clone();
        // What the command line names stays: its loss is another story than a change below it.
        if self.root == SOURCE_ROOT && !path.contains(&b'/') {
            return;
        }
        let entry = &tree.entries[&path];
        let mut bytes = vec![0; usize::try_from(self.prng.skewed(9000) - 1).expect("small")];
        self.prng.fill(&mut bytes);
        let mut made = Entry::file(0o640, &bytes);
        made.meta.mtime.sec -= i64::try_from(self.prng.below(1 << 30)).expect("2^30");
        made.meta.mtime.nsec = 1 + u32::try_from(self.prng.below(999_999_998)).expect("below 1e9");
        let full = |path: &[u8]| joined(self.root, path);
        // The path may lead through what has just gone; then nothing happens.
        let content = match &entry.content {
            Content::Bytes(content) => Some(Vec::clone(content)),
            Content::None | Content::Target(_) | Content::Device(_) => None,
        };
        let choice = self.prng.below(8);
        let done = match (choice, content) {
            (0..=2, Some(mut content)) => {
                match choice {
                    0 => content.extend_from_slice(&bytes[..bytes.len().min(700)]),
                    1 => content.truncate(content.len() / 2),
                    _ => content.iter_mut().for_each(|byte| *byte ^= 0x55),
                }
                self.hot = Some(path.clone());
                disk.overwrite(&full(&path), &content)
            }
            (3, _) => disk.remove(&full(&path)),
            (4, _) => disk.put(&full(&path), &made),
            (5, _) => {
                let mut link = Entry::symlink(b"/outside/d");
                link.meta.mtime = made.meta.mtime;
                disk.put(&full(&path), &link)
            }
            (6, _) => {
                made.content = Content::None;
                made.meta.kind = Kind::Dir;
                disk.put(&full(&path), &made)
            }
            _ => {
                path.extend_from_slice(b"+");
                if path
                    .rsplit(|byte| *byte == b'/')
                    .next()
                    .is_some_and(|name| name.len() > 255)
                {
                    return;
                }
                disk.put(&full(&path), &made)
            }
        };
        if done.is_err() {
            return;
        }
        let mut history = locked(&self.history);
        if let Ok(tree) = disk.snapshot(&full(&path)) {
            for (below, entry) in &tree.entries {
                history.note_entry(&joined(&path, below), entry);
            }
        }
        history.touched.insert(path);
    }
}

impl User {
    fn work_on(&mut self, disk: &SimDisk) {
        let Some(path) = &self.hot else {
            return;
        };
        if self.rewrites_left == 0 || !self.hot_prng.chance(150) {
            return;
        }
        self.rewrites_left -= 1;
        let full = joined(self.root, path);
        let Ok(tree) = disk.snapshot(&full) else {
            return;
        };
        // It may have become something else by now.
        if let Some(Content::Bytes(content)) = tree.entries.get(&b""[..]).map(|it| &it.content) {
            let mut content = Vec::clone(content);
            self.hot_prng.fill(&mut content);
            if disk.overwrite(&full, &content).is_ok()
                && let Ok(tree) = disk.snapshot(&full)
            {
                let mut history = locked(&self.history);
                history.note_entry(path, &tree.entries[&b""[..]]);
            }
        }
    }
}

pub(super) fn locked(history: &Mutex<History>) -> std::sync::MutexGuard<'_, History> {
    history.lock().unwrap_or_else(PoisonError::into_inner)
}
