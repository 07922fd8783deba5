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

/// What the checks have to know of a run besides the trees.
pub struct Facts<'a> {
    pub rights: Rights,
    pub root_is_listed: bool,
    /// ROOT's time may not be right.
    pub may_touch_root: bool,
    /// The target before the first push, which the quick check may take for what is wanted.
    pub original: &'a Tree,
    /// The push looks at the content of files.
    pub is_by_content: bool,
    /// A push so far was in place while a local user of the target may have worked in the same file.
    pub is_shared: bool,
    pub scenario: &'a Scenario,
    pub rename: Option<&'a [u8]>,
    pub source_history: &'a History,
    pub target_history: &'a History,
}

impl Facts<'_> {
    /// Whether what somebody wrote into a file that was updated in place is still in it, with the source's size
    /// and time: nobody notices.
    fn is_covered(&self, path: &[u8], found: &Entry, wanted: &Entry) -> bool {
        let Some(bytes) = found.bytes() else {
            return false;
        };
        let origins = origins_of(self.scenario, path, self.rename);
        let sent = origins.filter_map(|origin| self.source_history.versions.get(&origin));
        let stood = self.target_history.versions.get(path);
        let parts = sent.chain(stood).flatten().map(|version| &***version);
        let original = self.original.entries.get(path);
        let parts: Vec<&[u8]> = parts.chain(original.and_then(Entry::bytes)).collect();
        self.is_shared
            && self.target_history.concerns(path)
            && passes_for(found, wanted)
            && is_mixture(bytes, &parts)
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
        level(entry, other, facts.rights);
        if path.is_empty() && !facts.root_is_listed {
            other.meta = entry.meta;
        }
        if path.is_empty() && facts.may_touch_root {
            other.meta.mtime = entry.meta.mtime;
        }
        let is_looked_at = facts.is_by_content && entry.meta.kind == Kind::File;
        let original = facts.original.entries.get(path).filter(|_| !is_looked_at);
        let is_original = original.is_some_and(|original| {
            passes_for(original, entry) && original.content == other.content
        });
        if is_original || (!is_looked_at && facts.is_covered(path, other, entry)) {
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

/// Paths of the sources that may be what stands at `path` of the target.
fn origins_of<'a>(
    scenario: &'a Scenario,
    path: &'a [u8],
    rename: Option<&'a [u8]>,
) -> impl Iterator<Item = Vec<u8>> + 'a {
    scenario.sources.iter().filter_map(move |source| {
        let name = name_of(source);
        if source.contents {
            return Some(joined(name, path));
        }
        let prefix = rename.unwrap_or(name);
        if path == prefix {
            return Some(name.to_vec());
        }
        let rest = path.strip_prefix(prefix)?.strip_prefix(b"/")?;
        Some(joined(name, rest))
    })
}

/// What must hold after any push, however it ended: whole files only, nothing of nobody's, and
/// nothing gone that may not go.
pub struct Safety<'a> {
    pub scenario: &'a Scenario,
    /// DEST before the first push.
    pub original: &'a Tree,
    pub wanted: &'a Wanted,
    pub rename: Option<&'a [u8]>,
    pub source_history: &'a History,
    pub target_history: &'a History,
    /// Any push so far may delete.
    pub may_delete: bool,
    /// A power cut may have left anything in files that were under way.
    pub may_be_torn: bool,
    /// A push that updated files where they stand may have broken off.
    pub may_be_mixed: bool,
}

impl Safety<'_> {
    pub fn check(&self, found: &Tree) -> Vec<String> {
        let mut lines = Vec::new();
        for (path, entry) in &found.entries {
            if !is_ours(path) && !self.target_history.concerns(path) {
                self.check_entry(path, entry, &mut lines);
            }
        }
        for (path, entry) in &self.original.entries {
            let is_gone = !found.entries.contains_key(path);
            if is_gone && !self.may_go(path, entry) {
                lines.push(format!("{}: gone", path.escape_ascii()));
            }
        }
        lines
    }

    fn check_entry(&self, path: &[u8], entry: &Entry, lines: &mut Vec<String>) {
        let before = self.original.entries.get(path);
        let origins = || origins_of(self.scenario, path, self.rename);
        let is_known = before.is_some() || self.wanted.tree.entries.contains_key(path);
        if !is_known && !origins().any(|origin| self.source_history.concerns(&origin)) {
            lines.push(format!("{}: came from nowhere", path.escape_ascii()));
            return;
        }
        let Some(bytes) = entry.bytes() else {
            return;
        };
        let is_old = before.is_some_and(|before| before.content == entry.content);
        let is_version = origins().any(|origin| {
            let versions = self.source_history.versions.get(&origin);
            versions.is_some_and(|versions| versions.iter().any(|version| ***version == *bytes))
        });
        if is_old || is_version || self.may_be_torn {
            return;
        }
        let versions = origins().filter_map(|origin| self.source_history.versions.get(&origin));
        let parts = versions.flatten().map(|version| &***version);
        let parts: Vec<&[u8]> = parts.chain(before.and_then(Entry::bytes)).collect();
        let wanted = self.wanted.tree.entries.get(path);
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
        let origins = || origins_of(self.scenario, path, self.rename);
        if self.target_history.concerns(path) || origins().any(|o| self.source_history.concerns(&o))
        {
            return true;
        }
        for prefix in prefixes(path) {
            let Some(wanted) = self.wanted.tree.entries.get(prefix) else {
                let above_root = parent(prefix).is_empty() && !self.wanted.root_is_listed;
                return self.may_delete && !above_root;
            };
            let was = if prefix == path {
                entry
            } else {
                &self.original.entries[prefix]
            };
            let is_conflict = (was.meta.kind == Kind::Dir) != (wanted.meta.kind == Kind::Dir);
            let is_full = prefix != path;
            if is_conflict {
                return self.may_delete || !is_full;
            }
        }
        false
    }
}
