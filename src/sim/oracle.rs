//! The oracle: what a push has to leave behind, said again without a look at how it is done.
//! `Wanted` is what the sources come to, `expected` what the target must be after a success, and
//! the `check_*` functions are what must hold at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::host::joined;
use super::scenario::{SOURCE_ROOT, Scenario};
use super::tree::{Content, Entry, Tree};
use crate::client::plan::Source;
use crate::model::entry::Kind;
use crate::model::name::OWN_PREFIX;
use crate::model::partial::{NameHash, PartialName};
use crate::model::policy::Policy;
use crate::wire::hello::Rights;

/// What the sources come to: the tree that DEST is to become.
pub struct Wanted {
    pub tree: Tree,
    /// Some source gives its contents: ROOT itself has metadata, and names to be deleted.
    pub root_is_listed: bool,
}

impl Wanted {
    /// `sources` of what stands at `SOURCE_ROOT`. `rename`: DEST's name for a single file.
    pub fn of(sources: &[Source], all: &Tree, rename: Option<&[u8]>) -> Self {
        let given: Vec<(Vec<u8>, Tree, bool)> = sources
            .iter()
            .map(|source| {
                let name = name_of(source);
                let prefix = match rename {
                    Some(name) => name.to_vec(),
                    None if source.contents => Vec::new(),
                    None => name.to_vec(),
                };
                (prefix, below(all, name), source.contents)
            })
            .collect();
        let mut tree = Tree::empty();
        let root_is_listed = given.iter().any(|(_, _, contents)| *contents);
        // A directory wins a name, then the first; directories of one name are merged.
        for wants_dirs in [true, false] {
            let mut taken: BTreeMap<Vec<u8>, Entry> = BTreeMap::new();
            for (prefix, below, _) in &given {
                for (path, entry) in &below.entries {
                    let path = joined(prefix, path);
                    if (entry.meta.kind == Kind::Dir) == wants_dirs {
                        taken.entry(path).or_insert_with(|| entry.clone());
                    }
                }
            }
            for (path, entry) in taken {
                let is_root = path.is_empty();
                if is_root || !tree.entries.contains_key(&path) {
                    tree.entries.insert(path, entry);
                }
            }
        }
        Self {
            tree,
            root_is_listed,
        }
    }
}

fn name_of(source: &Source) -> &[u8] {
    let path = source.path.strip_prefix(SOURCE_ROOT).expect("drawn there");
    path.trim_ascii_start()
        .strip_prefix(b"/")
        .map(|name| name.strip_suffix(b"/").unwrap_or(name))
        .expect("drawn there")
}

/// What is at and below `path`.
pub fn below(tree: &Tree, path: &[u8]) -> Tree {
    let prefix = [path, b"/"].concat();
    let inside = tree.entries.iter().filter_map(|(other, entry)| {
        if other == path {
            return Some((Vec::new(), entry.clone()));
        }
        let rest = other.strip_prefix(&prefix[..])?;
        Some((rest.to_vec(), entry.clone()))
    });
    Tree {
        entries: inside.collect(),
    }
}

fn parent(path: &[u8]) -> &[u8] {
    let cut = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    &path[..cut]
}

/// `path` and the directories above it, without the root.
pub fn prefixes(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    (1..=path.len())
        .filter(|end| *end == path.len() || path[*end] == b'/')
        .map(|end| &path[..end])
}

pub fn is_ours(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/')
        .any(|name| name.starts_with(OWN_PREFIX))
}

/// Our own temp files in a tree.
pub fn temps(tree: &Tree) -> Vec<String> {
    let is_temp = |path: &&Vec<u8>| is_ours(path) && path.ends_with(b".tmp");
    let temps = tree.entries.keys().filter(is_temp);
    temps.map(|path| path.escape_ascii().to_string()).collect()
}

/// Our own partial files in a tree, each with whether the file that it is a part of stands beside it.
pub fn partials(tree: &Tree) -> Vec<(String, bool)> {
    let found = tree.entries.keys().filter_map(|path| {
        let file = PartialName::file_of(last_of(path))?;
        let is_whole = tree.entries.iter().any(|(other, entry)| {
            let is_beside = entry.meta.kind == Kind::File && parent(other) == parent(path);
            is_beside && NameHash::of(last_of(other)) == file
        });
        Some((path.escape_ascii().to_string(), is_whole))
    });
    found.collect()
}

fn last_of(path: &[u8]) -> &[u8] {
    let cut = path.iter().rposition(|byte| *byte == b'/');
    cut.map_or(path, |cut| &path[cut + 1..])
}

/// What the target has to be after a push without failures, and the paths where something stands
/// in the way that nothing allows to delete.
pub struct Expected {
    pub tree: Tree,
    pub blocked: BTreeSet<Vec<u8>>,
    /// Paths of `tree` that the push has to bring about; the others are left alone.
    pub pushed: BTreeSet<Vec<u8>>,
}

impl Expected {
    /// Without what the push leaves alone, and without what is ours.
    pub fn in_charge_of(&self, tree: Tree) -> Tree {
        let mut tree = tree.without_ours();
        let is_left =
            |path: &[u8]| self.tree.entries.contains_key(path) && !self.pushed.contains(path);
        tree.entries.retain(|path, _| !is_left(path));
        tree
    }
}

pub fn expected(wanted: &Wanted, before: &Tree, policy: Policy, scenario: &Scenario) -> Expected {
    let (delete, rights) = (policy.delete, scenario.rights());
    let owners = scenario.owner_map(policy);
    let mut tree = Tree::default();
    // Subtrees of the target that stay as they are: in the way, or of a kind that is not sent.
    let mut left: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut blocked = BTreeSet::new();
    let is_under = |left: &BTreeSet<Vec<u8>>, path: &[u8]| prefixes(path).any(|p| left.contains(p));
    for (path, entry) in &wanted.tree.entries {
        let kind = entry.meta.kind;
        if kind.is_special() && !rights.nodes {
            left.insert(path.clone());
            continue;
        }
        let stands = before.entries.get(path).map(|entry| entry.meta.kind);
        let is_full_dir = stands == Some(Kind::Dir)
            && before
                .entries
                .keys()
                .any(|other| parent(other) == &path[..] && other != path);
        if kind != Kind::Dir && is_full_dir && !delete {
            blocked.insert(path.clone());
            left.insert(path.clone());
            continue;
        }
        let mut entry = entry.clone();
        owners.translate(&mut entry.meta);
        tree.entries.insert(path.clone(), entry);
    }
    let pushed = tree.entries.keys().cloned().collect();
    for (path, entry) in &before.entries {
        if is_ours(path) || tree.entries.contains_key(path) {
            continue;
        }
        let is_wanted = |path: &[u8]| wanted.tree.entries.contains_key(path);
        // The topmost of the directories above that the sources do not have.
        let top = prefixes(path)
            .find(|prefix| !is_wanted(prefix))
            .unwrap_or(path);
        let above = parent(top);
        let stands_in_dir = wanted
            .tree
            .entries
            .get(above)
            .is_some_and(|e| e.meta.kind == Kind::Dir);
        let is_deletable = delete && (!above.is_empty() || wanted.root_is_listed);
        if is_under(&left, path) || (stands_in_dir && !is_deletable) {
            tree.entries.insert(path.clone(), entry.clone());
        }
    }
    Expected {
        tree,
        blocked,
        pushed,
    }
}

/// A run so far.
pub struct Past<'a> {
    pub scenario: &'a Scenario,
    /// DEST before the first push.
    pub original: &'a Tree,
    pub rename: Option<&'a [u8]>,
    pub source_history: &'a History,
    pub target_history: &'a History,
}

impl Past<'_> {
    /// Paths of the sources that may be what stands at `path` of the target.
    fn origins_of(&self, path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        self.scenario.sources.iter().filter_map(move |source| {
            let name = name_of(source);
            if source.contents {
                return Some(joined(name, path));
            }
            let prefix = self.rename.unwrap_or(name);
            if path == prefix {
                return Some(name.to_vec());
            }
            let rest = path.strip_prefix(prefix)?.strip_prefix(b"/")?;
            Some(joined(name, rest))
        })
    }

    /// Content that a source has had for `path`.
    fn sent(&self, path: &[u8]) -> Vec<&[u8]> {
        let versions = self
            .origins_of(path)
            .filter_map(|origin| self.source_history.versions.get(&origin));
        versions.flatten().map(|version| &***version).collect()
    }

    /// What the target had there before the first push.
    fn original_bytes(&self, path: &[u8]) -> Option<&[u8]> {
        self.original.entries.get(path).and_then(Entry::bytes)
    }

    fn is_touched_at_source(&self, path: &[u8]) -> bool {
        let mut origins = self.origins_of(path);
        origins.any(|origin| self.source_history.concerns(&origin))
    }

    /// What somebody wrote there at the target.
    fn theirs(&self, path: &[u8]) -> Vec<&[u8]> {
        let versions = self.target_history.versions.get(path);
        let all = versions.into_iter().flatten().map(|version| &***version);
        all.collect()
    }
}

/// What the checks of a success have to know besides the trees.
pub struct Facts<'a> {
    pub past: Past<'a>,
    pub rights: Rights,
    pub root_is_listed: bool,
    /// ROOT's time may not be right.
    pub may_touch_root: bool,
    /// The push looks at the content of files.
    pub is_by_content: bool,
    /// A push so far was in place while a local user of the target may have worked in the same file.
    pub is_shared: bool,
    /// A push so far found content to be the same and gave it the source's time, while a local user may have
    /// written another.
    pub is_redated: bool,
}

impl Facts<'_> {
    /// Whether a file that has the source's size and time, so that nobody notices, has another content all the same
    /// for one of the reasons that are known, and stated.
    fn is_unnoticed(&self, path: &[u8], found: &Entry, wanted: &Entry) -> bool {
        let Some(bytes) = found.bytes() else {
            return false;
        };
        let past = &self.past;
        let theirs = past.theirs(path);
        let is_touched = past.target_history.concerns(path);
        let parts = || {
            [
                &past.sent(path)[..],
                &theirs,
                past.original_bytes(path).as_slice(),
            ]
            .concat()
        };
        let is_overwritten = self.is_shared && is_touched && is_mixture(bytes, &parts());
        let is_redated = self.is_redated && is_touched && theirs.contains(&bytes);
        // The target's file system counts in seconds, and the source's file was written twice within one.
        let is_coarse = found.meta.mtime != wanted.meta.mtime && past.sent(path).contains(&bytes);
        // Both files were written within one tick of the clock.
        let is_of_one_tick = past.is_touched_at_source(path) && theirs.contains(&bytes);
        passes_for(found, wanted) && (is_overwritten || is_redated || is_coarse || is_of_one_tick)
    }
}

/// How `found` differs from what is expected; empty when it does not, as far as a push keeps it.
pub fn check_equal(expected: &Expected, found: &Tree, facts: &Facts<'_>) -> Vec<String> {
    let mut as_found = found.clone().without_ours();
    let mut as_expected = expected.tree.clone();
    for (path, entry) in &mut as_expected.entries {
        let Some(other) = as_found.entries.get_mut(path) else {
            continue;
        };
        if !expected.pushed.contains(path) {
            continue; // Exactly as it was.
        }
        let is_unnoticed = facts.is_unnoticed(path, other, entry);
        level(entry, other, facts.rights);
        if path.is_empty() && !facts.root_is_listed {
            other.meta = entry.meta;
        }
        if path.is_empty() && facts.may_touch_root {
            other.meta.mtime = entry.meta.mtime;
        }
        let is_looked_at = facts.is_by_content && entry.meta.kind == Kind::File;
        let original = facts.past.original.entries.get(path);
        let is_original = original.is_some_and(|original| {
            passes_for(original, entry) && original.content == other.content
        });
        if !is_looked_at && (is_original || is_unnoticed) {
            other.content = entry.content.clone();
        }
    }
    as_expected.diff(&as_found)
}

/// Makes equal what a session with these rights does not keep, and times that are near enough.
fn level(wanted: &mut Entry, found: &mut Entry, rights: Rights) {
    if !rights.setid {
        wanted.meta.mode &= !0o6000;
    }
    if !rights.owners {
        wanted.meta.uid = found.meta.uid;
        wanted.meta.gid = found.meta.gid;
    }
    if wanted.meta.kind == Kind::Symlink {
        found.meta.mode = wanted.meta.mode;
    }
    if found.meta.mtime.satisfies(wanted.meta.mtime) {
        found.meta.mtime = wanted.meta.mtime;
    }
}

/// Whether each byte is in its place one of these versions', or of a hole.
fn is_mixture(bytes: &[u8], versions: &[&[u8]]) -> bool {
    let mut all = bytes.iter().enumerate();
    all.all(|(at, byte)| {
        let is_of = |version: &&[u8]| version.get(at) == Some(byte);
        *byte == 0 || versions.iter().any(is_of)
    })
}

/// Whether size and time of `original` are those of `wanted`: then its content is not looked at.
fn passes_for(original: &Entry, wanted: &Entry) -> bool {
    let len = |content: &Content| match content {
        Content::Bytes(bytes) => Some(bytes.len()),
        Content::Target(target) => Some(target.len()),
        Content::None | Content::Device(_) => None,
    };
    original.meta.kind == wanted.meta.kind
        && len(&original.content) == len(&wanted.content)
        && original.meta.mtime.satisfies(wanted.meta.mtime)
}

/// Files of `before` that have size and time of what is expected, and another content.
pub fn lookalikes(expected: &Expected, before: &Tree) -> u64 {
    let wanted = expected.tree.entries.iter();
    let looks_alike = |(path, wanted): &(&Vec<u8>, &Entry)| {
        let was = before.entries.get(*path);
        wanted.meta.kind == Kind::File
            && was.is_some_and(|was| passes_for(was, wanted) && was.content != wanted.content)
    };
    wanted.filter(looks_alike).count() as u64
}

/// Every version of content that stood at a path of the sources, and the paths that a local user
/// touched there.
#[derive(Default, Debug)]
pub struct History {
    pub versions: BTreeMap<Vec<u8>, Vec<Arc<Vec<u8>>>>,
    pub touched: BTreeSet<Vec<u8>>,
}

impl History {
    pub fn note(&mut self, tree: &Tree) {
        for (path, entry) in &tree.entries {
            self.note_entry(path, entry);
        }
    }

    pub fn note_entry(&mut self, path: &[u8], entry: &Entry) {
        if let Content::Bytes(bytes) = &entry.content {
            let versions = self.versions.entry(path.to_vec()).or_default();
            versions.push(Arc::clone(bytes));
        }
    }

    /// Whether something at, above or below `path` was touched.
    fn concerns(&self, path: &[u8]) -> bool {
        let below = [path, b"/"].concat();
        prefixes(path).any(|prefix| self.touched.contains(prefix))
            || self.touched.iter().any(|other| other.starts_with(&below))
    }
}

/// What some pushes wanted.
pub struct Pushed {
    pub wanted: Wanted,
    /// One of them may delete.
    pub may_delete: bool,
}

/// What must hold after any push, however it ended: whole files only, nothing of nobody's, and
/// nothing gone that may not go.
pub struct Safety<'a> {
    pub past: Past<'a>,
    /// The pushes so far; first what all the sources come to.
    pub pushes: &'a [Pushed],
    /// A power cut may have left anything in files that were under way.
    pub may_be_torn: bool,
    /// A push that updated files where they stand may have broken off.
    pub may_be_mixed: bool,
}

impl Safety<'_> {
    pub fn check(&self, found: &Tree) -> Vec<String> {
        let mut lines = Vec::new();
        for (path, entry) in &found.entries {
            if !is_ours(path) && !self.past.target_history.concerns(path) {
                self.check_entry(path, entry, &mut lines);
            }
        }
        for (path, entry) in &self.past.original.entries {
            let is_gone = !found.entries.contains_key(path);
            if is_gone && !self.may_go(path, entry) {
                lines.push(format!("{}: gone", path.escape_ascii()));
            }
        }
        lines
    }

    fn check_entry(&self, path: &[u8], entry: &Entry, lines: &mut Vec<String>) {
        let is_touched = self.past.is_touched_at_source(path);
        let is_known = self.past.original.entries.contains_key(path)
            || self.pushes[0].wanted.tree.entries.contains_key(path);
        if !is_known && !is_touched {
            lines.push(format!("{}: came from nowhere", path.escape_ascii()));
            return;
        }
        let Some(bytes) = entry.bytes() else {
            return;
        };
        let sent = self.past.sent(path);
        let before = self.past.original_bytes(path);
        // One that grew while it was open is sent as long as it was at the opening.
        let is_beginning = || {
            let was_so_long = sent.iter().any(|version| version.len() == bytes.len());
            was_so_long && sent.iter().any(|version| version.starts_with(bytes))
        };
        let is_whole = before == Some(bytes) || sent.contains(&bytes);
        if is_whole || (is_touched && is_beginning()) || self.may_be_torn {
            return;
        }
        let parts = [&sent[..], before.as_slice()].concat();
        let wanted = self.pushes[0].wanted.tree.entries.get(path);
        let is_believed = wanted.is_some_and(|wanted| passes_for(entry, wanted));
        if self.may_be_mixed && is_mixture(bytes, &parts) {
            if is_believed {
                let path = path.escape_ascii();
                lines.push(format!("{path}: a mixture that passes for the source's"));
            }
        } else {
            lines.push(format!(
                "{}: neither old nor new, {} bytes",
                path.escape_ascii(),
                bytes.len()
            ));
        }
    }

    /// Whether an entry of the target may be gone.
    fn may_go(&self, path: &[u8], entry: &Entry) -> bool {
        let is_touched =
            self.past.target_history.concerns(path) || self.past.is_touched_at_source(path);
        let mut pushes = self.pushes.iter();
        is_touched || pushes.any(|push| self.may_go_for(push, path, entry))
    }

    fn may_go_for(&self, push: &Pushed, path: &[u8], entry: &Entry) -> bool {
        let Pushed { wanted, may_delete } = push;
        for prefix in prefixes(path) {
            let Some(there) = wanted.tree.entries.get(prefix) else {
                let above_root = parent(prefix).is_empty() && !wanted.root_is_listed;
                return *may_delete && !above_root;
            };
            let was = if prefix == path {
                entry
            } else {
                &self.past.original.entries[prefix]
            };
            let is_conflict = (was.meta.kind == Kind::Dir) != (there.meta.kind == Kind::Dir);
            let is_full = prefix != path;
            if is_conflict {
                return *may_delete || !is_full;
            }
        }
        false
    }
}
