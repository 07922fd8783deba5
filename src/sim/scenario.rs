//! `Scenario`, what one seed pushes, from where to where, and through which weather. Everything
//! is drawn before the first call, so that a run can say beforehand what it will be like.

use std::fmt;

use super::disk::SimDisk;
use super::fault::{Crash, DiskOptions};
use super::net::NetOptions;
use super::prng::Prng;
use super::ring::RingWeather;
use super::tree::{Content, Entry, Shape, Tree};
use super::weather::{PlannedCrash, Weather};
use crate::client::plan::Source;
use crate::limits::{
    CHUNK_BYTES, DELTA_FILE_BYTES_MIN, DIGEST_BUDGET_BYTES, DIGEST_OPEN_BYTES, LIST_BATCH_DIRS_MAX,
    PACK_FILE_BYTES_MAX,
};
use crate::model::entry::Kind;
use crate::model::owner::{Owner, OwnerKind, OwnerMap};
use crate::model::policy::{Durability, Policy, Sameness};
use crate::ops::disk::Identity;
use crate::stage::checks::CheckBounds;
use crate::stage::delta::DeltaRules;
use crate::stage::scan::LookAhead;
use crate::wire::hello::Rights;

/// The ends of a push; where there are two of a thing, its place in the array.
pub const SOURCE: usize = 0;
pub const TARGET: usize = 1;

/// Where the sources stand.
pub const SOURCE_ROOT: &[u8] = b"/src";
/// DEST, the directory above it, and its name there.
pub const DEST: &[u8] = b"/t/dest";
pub const ABOVE_DEST: &[u8] = b"/t";
pub const DEST_NAME: &[u8] = b"dest";
/// The source that is a single file.
pub const SINGLE_FILE: &[u8] = b"single";

/// Pushes that go wrong before the calm.
const WEATHERS_MAX: u64 = 3;

#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    /// Both sessions in one process, without a stream.
    pub is_pair: bool,
    /// Through a module with these rights; otherwise the embedded target's own.
    pub module: Option<Rights>,
    /// A server that stays: it syncs after the REPORT.
    pub stays: bool,
    /// Blocks of each side's pool; a pair has the first only.
    pub blocks_counts: [usize; 2],
    pub net: NetOptions,
    pub disks: [DiskOptions; 2],
    pub sources: Vec<Source>,
    /// What is planted at `SOURCE_ROOT`.
    pub source_tree: Tree,
    /// What is planted at DEST; nothing stands there otherwise.
    pub target_tree: Option<Tree>,
    /// Files below DEST that have another name outside.
    pub linked: Vec<Vec<u8>>,
    pub dest_is_dir: bool,
    pub weathers: Vec<Weather>,
    /// How operations fare in the calm.
    pub calm_rings: [RingWeather; 2],
    pub look_ahead: LookAhead,
    /// `None`: files go whole.
    pub deltas: Option<DeltaRules>,
    pub check_bounds: CheckBounds,
    /// The wishes of the pushes in the calm.
    pub policy: Policy,
}

impl Scenario {
    /// Without second clients, spoiled bytes and lies, which seeds from before them know nothing of.
    #[cfg(test)]
    pub fn uncrowded(mut self) -> Self {
        for weather in &mut self.weathers {
            weather.rival = None;
            weather.flip_at_bytes = [None, None];
            weather.lies = [None, None];
        }
        self
    }

    pub fn new(seed: u64) -> Self {
        let mut prng = Prng::new(seed);
        let is_pair = prng.chance(250);
        let net = draw_net(&mut prng);
        let shape = draw_shape(
            &mut prng,
            if is_pair {
                usize::MAX
            } else {
                net.capacity_bytes
            },
        );
        let (sources, mut source_tree) = draw_sources(&mut prng, &shape);
        let is_single = sources[0].path.ends_with(SINGLE_FILE);
        let mut target_tree = draw_target(&mut prng, &shape, &sources, &source_tree, is_single);
        let mut weathers: Vec<_> = (0..prng.below(WEATHERS_MAX + 1))
            .map(|_| Weather::draw(&mut prng, is_pair))
            .collect();
        let is_cut = |weather: &Weather| {
            let crash = weather.crash.map(|planned| (planned.side, planned.crash));
            crash.is_some_and(|(side, crash)| {
                crash == Crash::PowerCut && (is_pair || side == TARGET)
            })
        };
        // What a power cut leaves of a local user's own changes is no push's affair, and can have the
        // size and the time of what was pushed before.
        for side in [SOURCE, TARGET] {
            let is_host_cut = |weather: &Weather| {
                let planned = weather
                    .crash
                    .filter(|planned| planned.crash == Crash::PowerCut);
                planned.is_some_and(|planned| is_pair || planned.side == side)
            };
            if weathers.iter().any(is_host_cut) {
                for weather in &mut weathers {
                    weather.changes_per_mille[side] = 0;
                }
            }
        }
        let module = prng.chance(400).then(|| Rights {
            owners: prng.chance(300),
            setid: prng.chance(500),
            nodes: prng.chance(500),
        });
        let mut disks = [draw_disk(&mut prng), draw_disk(&mut prng)];
        // What is lost with the power takes DEST with it, and there is nothing left to say.
        disks[TARGET].is_volatile = prng.chance(100) && !weathers.iter().any(is_cut);
        disks[TARGET].gives_dir_group = Prng::new(seed ^ 0x6772_7069).chance(100); // Drawn apart.
        if is_pair {
            disks[SOURCE] = disks[TARGET].clone();
        }
        let module = module.filter(|_| !is_pair).map(|rights| Rights {
            owners: rights.owners && disks[TARGET].identity.is_root,
            nodes: rights.nodes && disks[TARGET].identity.is_root,
            ..rights
        });
        let mut blocks = || usize::try_from(2 + prng.skewed(15) - 1).expect("few");
        // Drawn apart, so that the seeds from before there were names still tell their stories.
        let mut named = Prng::new(seed ^ 0x6f77_6e65);
        [disks[SOURCE].owners, disks[TARGET].owners] = draw_owners(&mut named);
        if is_pair {
            disks[TARGET].owners = disks[SOURCE].owners.clone();
        }
        for weather in &mut weathers {
            weather.policy.numeric_ids = named.chance(250);
        }
        // Drawn apart, too.
        let mut varied = Prng::new(seed ^ 0x6465_6c74);
        let deltas = varied.chance(700).then(|| {
            draw_deltas(
                &mut varied,
                &shape,
                &sources,
                &mut source_tree,
                &mut target_tree,
            )
        });
        // Drawn apart, too.
        let mut compared = Prng::new(seed ^ 0x6368_6563);
        let mut placed = Prng::new(seed ^ 0x706c_6163);
        for weather in &mut weathers {
            weather.policy.sameness = draw_sameness(&mut compared);
            weather.policy.in_place = placed.chance(400);
        }
        let mut aimed = Prng::new(seed ^ 0x6169_6d65);
        weathers
            .iter_mut()
            .for_each(|it| it.aim(&mut aimed, is_pair));
        let mut crowded = Prng::new(seed ^ 0x6372_6f77);
        let mut rivals = Prng::new(seed ^ 0x7279_7661);
        let crowded = |it: &mut Weather| it.crowd(&mut crowded, &mut rivals, sources.len());
        if !is_pair {
            weathers.iter_mut().for_each(crowded);
            let mut corrupted = Prng::new(seed ^ 0x6c69_6172);
            // Of a single file ROOT is the directory above, where a hostile source may do what it likes.
            let liars = if is_single {
                &[TARGET][..]
            } else {
                &[SOURCE, TARGET]
            };
            let corrupt = |it: &mut Weather| it.corrupt(&mut corrupted, liars);
            weathers.iter_mut().for_each(corrupt);
        }
        let sameness = draw_sameness(&mut compared);
        let in_place = placed.chance(400);
        let is_left_alone = weathers.iter().all(|it| it.changes_per_mille[TARGET] == 0);
        let linked = target_tree.as_ref().filter(|_| is_left_alone);
        let linked = linked.map_or_else(Vec::new, |tree| draw_linked(&mut placed, tree));
        if compared.chance(500) {
            plant_lookalikes(&mut compared, &sources, &source_tree, &mut target_tree);
        }
        let mut scenario = Self {
            deltas,
            check_bounds: draw_check_bounds(&mut compared),
            linked,
            seed,
            is_pair,
            stays: module.is_some(),
            module,
            blocks_counts: [blocks(), blocks()],
            net,
            disks,
            dest_is_dir: !is_single && prng.chance(300),
            sources,
            source_tree,
            target_tree,
            policy: Policy {
                dry_run: false,
                delete_max: None,
                allow_empty_source: true,
                numeric_ids: named.chance(250),
                sameness,
                in_place,
                ..draw_policy(&mut prng)
            },
            weathers,
            calm_rings: draw_calm_rings(&mut Prng::new(seed ^ 0x6361_6c6d)), // Drawn apart, too.
            look_ahead: draw_look_ahead(&mut prng),
        };
        // And this.
        scenario.draw_partials(&mut Prng::new(seed ^ 0x7061_7274), &shape);
        scenario
    }

    /// Which pushes keep what arrived when they break off, and which go on from it; at times a file that the
    /// last push before the calm breaks off in.
    fn draw_partials(&mut self, prng: &mut Prng, shape: &Shape) {
        let weathers = self.weathers.iter_mut().map(|weather| &mut weather.policy);
        for policy in weathers.chain([&mut self.policy]) {
            policy.partial = prng.chance(600);
            policy.resume = policy.partial && prng.chance(850);
        }
        if let Some(rules) = &mut self.deltas {
            rules.only_partials = prng.chance(300);
        }
        let is_wide = shape.file_bytes_max > 3 * CHUNK_BYTES as u64;
        let Some(weather) = self.weathers.last_mut().filter(|_| is_wide) else {
            return;
        };
        let Some(dir) = first_dir(&self.sources, &self.source_tree) else {
            return;
        };
        if !prng.chance(250) {
            return;
        }
        let mut content = vec![0; (2 + prng.index(6)) * CHUNK_BYTES + prng.index(CHUNK_BYTES)];
        prng.fill(&mut content);
        let place = prng.below(content.len() as u64 + 1);
        self.source_tree.entries.insert(
            super::host::joined(dir, b"broken-off"),
            Entry::file(0o644, &content),
        );
        weather.policy.partial = true;
        weather.policy.dry_run = false;
        if self.is_pair {
            weather.crash = Some(PlannedCrash {
                side: TARGET,
                at_call: 1 + prng.below(400),
                aim: None,
                crash: Crash::ProcessDeath,
            });
        } else {
            weather.reset_after_bytes[SOURCE] = Some(CHUNK_BYTES as u64 + place);
        }
    }

    /// Brings to the disks what stands there before the first push.
    pub fn plant(&self, disks: &[SimDisk; 2]) {
        let planted = "an empty disk takes a tree";
        disks[SOURCE]
            .plant(SOURCE_ROOT, &self.source_tree)
            .expect(planted);
        let target = &disks[TARGET];
        let sentinel = Tree::empty()
            .with(b"passwd", Entry::file(0o600, b"root::0:0"))
            .with(b"d", Entry::dir(0o700))
            .with(b"d/f", Entry::file(0o644, b"untouched"));
        target.plant(b"/outside", &sentinel).expect(planted);
        target.plant(b"/etc", &sentinel).expect(planted);
        target.plant(b"/t/beside", &sentinel).expect(planted);
        if let Some(tree) = &self.target_tree {
            target.plant(DEST, tree).expect(planted);
        }
        for (number, path) in self.linked.iter().enumerate() {
            let linked = target.hard_link(&super::host::joined(DEST, path), &link_path(number));
            linked.expect(planted);
        }
        disks.iter().for_each(SimDisk::settle);
    }

    /// The target's numbers of the source's owners, in a push with these wishes.
    pub fn owner_map(&self, policy: Policy) -> OwnerMap {
        let mut map = OwnerMap::default();
        let names = names_of(&self.disks[SOURCE]).filter(|_| !policy.numeric_ids);
        for (owner, name) in names {
            let there = names_of(&self.disks[TARGET])
                .find(|(known, other)| known.kind == owner.kind && *other == name);
            if let Some((known, _)) = there {
                map.insert(owner, known.id);
            }
        }
        map
    }

    pub fn rights(&self) -> Rights {
        let is_root = self.disks[TARGET].identity.is_root;
        self.module.unwrap_or(Rights {
            owners: is_root,
            setid: true,
            nodes: is_root,
        })
    }
}

/// The other name of a file below DEST.
pub fn link_path(number: usize) -> Vec<u8> {
    format!("/t/link{number}").into_bytes()
}

fn names_of(disk: &DiskOptions) -> impl Iterator<Item = (Owner, &'static [u8])> {
    disk.owners.iter().copied()
}

/// Names of the owners in the trees, on both hosts: the same, others, one for two, or none.
fn draw_owners(prng: &mut Prng) -> [Vec<(Owner, &'static [u8])>; 2] {
    let mut owners = [Vec::new(), Vec::new()];
    for kind in [OwnerKind::User, OwnerKind::Group] {
        for (name, id) in [(&b"ann"[..], 1000), (b"bob", 65_534)] {
            if prng.chance(850) {
                owners[SOURCE].push((Owner { kind, id }, name));
            }
            if prng.chance(850) {
                let id = *prng.pick(&[id, 1000, 2000, 65_534, 0]);
                owners[TARGET].push((Owner { kind, id }, name));
            }
        }
    }
    owners
}

/// Often so little that it ends in the midst of a directory's subdirectories.
fn draw_look_ahead(prng: &mut Prng) -> LookAhead {
    LookAhead {
        bytes_max: usize::try_from(prng.skewed(1 << 16)).expect("small"),
        batch_dirs_max: 1 + prng.index(LIST_BATCH_DIRS_MAX),
    }
}

/// Often as in the weather: what ends short, late or interrupted has to be done all the same.
fn draw_calm_rings(prng: &mut Prng) -> [RingWeather; 2] {
    [(); 2].map(|()| {
        if prng.chance(250) {
            RingWeather::random(prng)
        } else {
            RingWeather::calm()
        }
    })
}

pub fn draw_sameness(prng: &mut Prng) -> Sameness {
    if prng.chance(300) {
        Sameness::Content
    } else {
        Sameness::SizeAndTime
    }
}

/// Often so little that a file is read in several jobs.
fn draw_check_bounds(prng: &mut Prng) -> CheckBounds {
    CheckBounds {
        files_max: usize::try_from(prng.skewed(30)).expect("small"),
        budget_bytes: DIGEST_OPEN_BYTES + prng.skewed(DIGEST_BUDGET_BYTES),
    }
}

/// Gives the target files that have size and time of the sources', and another content.
fn plant_lookalikes(
    prng: &mut Prng,
    sources: &[Source],
    source_tree: &Tree,
    target_tree: &mut Option<Tree>,
) {
    let wanted = super::oracle::Wanted::of(sources, source_tree, None).tree;
    let Some(tree) = target_tree else { return };
    for (path, entry) in &mut tree.entries {
        let Some(Entry {
            content: Content::Bytes(bytes),
            meta,
        }) = wanted.entries.get(path)
        else {
            continue;
        };
        if entry.meta.kind != Kind::File || bytes.is_empty() || !prng.chance(250) {
            continue;
        }
        let mut bytes = bytes.to_vec();
        let at = prng.index(bytes.len());
        bytes[at] ^= 1;
        entry.content = Content::Bytes(std::sync::Arc::new(bytes));
        entry.meta.mtime = meta.mtime;
    }
}

/// When files go as deltas, and some large ones that the target has in another version.
fn draw_deltas(
    prng: &mut Prng,
    shape: &Shape,
    sources: &[Source],
    source_tree: &mut Tree,
    target_tree: &mut Option<Tree>,
) -> DeltaRules {
    let rules = DeltaRules {
        bytes_min: *prng.pick(&[1, 4096, DELTA_FILE_BYTES_MIN]),
        window_blocks: usize::try_from(prng.skewed(300)).expect("small"),
        open_max: 1 + prng.index(12),
        block_bytes: prng.chance(200).then(|| 4096 << prng.below(6)),
        only_partials: false,
    };
    for name in [&b"delta0"[..], b"delta1", b"delta2"] {
        let bytes = PACK_FILE_BYTES_MAX + prng.index(2 * CHUNK_BYTES);
        if !prng.chance(500) || bytes as u64 > shape.file_bytes_max {
            continue;
        }
        let mut content = vec![0; bytes];
        prng.fill(&mut content);
        if prng.chance(200) {
            content.iter_mut().for_each(|byte| *byte %= 2);
        }
        if prng.chance(300) {
            // Whole chunks of zeros, as of a hole.
            let from = prng.index(bytes) / 2;
            content[from..].fill(0);
        }
        let Some(dir) = first_dir(sources, source_tree) else {
            continue;
        };
        let mut entry = Entry::file(0o644, &content);
        source_tree
            .entries
            .insert(super::host::joined(dir, name), entry.clone());
        vary(prng, &mut content);
        entry.content = Content::Bytes(std::sync::Arc::new(content));
        entry.meta.mtime.sec -= 1 + i64::try_from(prng.below(1000)).expect("small");
        let wanted = super::oracle::Wanted::of(sources, source_tree, None).tree;
        let path = wanted.entries.keys().find(|path| path.ends_with(name));
        if let (Some(tree), Some(path)) = (target_tree.as_mut(), path) {
            let above = path.strip_suffix(name).unwrap_or(b"");
            let above = above.strip_suffix(b"/").unwrap_or(above);
            if is_dir(tree, above) {
                tree.entries.insert(path.clone(), entry);
            }
        }
    }
    rules
}

/// The first of the sources, below `SOURCE_ROOT`, if it is a directory.
fn first_dir<'a>(sources: &'a [Source], tree: &Tree) -> Option<&'a [u8]> {
    let dir = sources[0].path.strip_prefix(SOURCE_ROOT).unwrap_or(b"");
    let dir = dir.strip_prefix(b"/").unwrap_or(dir);
    let dir = dir.strip_suffix(b"/").unwrap_or(dir);
    is_dir(tree, dir).then_some(dir)
}

fn is_dir(tree: &Tree, path: &[u8]) -> bool {
    let entry = tree.entries.get(path);
    entry.is_some_and(|entry| entry.meta.kind == Kind::Dir)
}

/// Files that are to have a second name.
fn draw_linked(prng: &mut Prng, tree: &Tree) -> Vec<Vec<u8>> {
    let entries = tree.entries.iter();
    let files = entries.filter(|(path, entry)| !path.is_empty() && entry.meta.kind == Kind::File);
    let drawn = files.filter(|_| prng.chance(150));
    drawn.map(|(path, _)| path.clone()).collect()
}

/// Replaces, inserts, deletes and moves.
fn vary(prng: &mut Prng, content: &mut Vec<u8>) {
    for _ in 0..prng.below(6) {
        let from = prng.index(content.len() + 1);
        let skewed = usize::try_from(prng.skewed(20_000)).expect("small");
        let to = content.len().min(from + skewed);
        match prng.below(4) {
            0 => prng.fill(&mut content[from..to]),
            1 => {
                let mut noise = vec![0; to - from];
                prng.fill(&mut noise);
                content.splice(from..from, noise);
            }
            2 => drop(content.drain(from..to)),
            _ => content.rotate_left(from),
        }
    }
}

pub fn draw_policy(prng: &mut Prng) -> Policy {
    Policy {
        dry_run: prng.chance(60),
        delete: prng.chance(500),
        delete_max: prng.chance(150).then(|| prng.skewed(20) - 1),
        tell_deletes: prng.chance(500),
        allow_empty_source: prng.chance(700),
        durability: *prng.pick(&[
            Durability::None,
            Durability::None,
            Durability::Session,
            Durability::File,
        ]),
        numeric_ids: true,
        whole_files: true, // The world says otherwise.
        ..Policy::default()
    }
}

fn draw_net(prng: &mut Prng) -> NetOptions {
    let mut net = NetOptions::random(prng);
    if prng.chance(100) {
        net.capacity_bytes = 1;
    }
    net
}

fn draw_shape(prng: &mut Prng, capacity_bytes: usize) -> Shape {
    // Through a narrow pipe little goes in the time that a seed may take.
    let room = u64::try_from(capacity_bytes.clamp(1, 1 << 20)).expect("small") * 2000;
    Shape {
        entries_max: usize::try_from(prng.skewed(60)).expect("small"),
        depth_max: 1 + prng.index(5),
        file_bytes_max: room.min(3 * CHUNK_BYTES as u64 + 7).max(64),
        owners: vec![0, 0, 1000, 65_534],
        ..Shape::default()
    }
}

fn draw_disk(prng: &mut Prng) -> DiskOptions {
    let identity = if prng.chance(700) {
        DiskOptions::default().identity
    } else {
        Identity {
            uid: 1000,
            gid: 1000,
            is_root: false,
        }
    };
    DiskOptions {
        has_default_acl: prng.chance(100),
        identity,
        skew_sec: i64::try_from(prng.skewed(100_000)).expect("small") - 50_000,
        mtime_granule_ns: if prng.chance(100) { 1_000_000_000 } else { 1 },
        ..DiskOptions::default()
    }
}

const SOURCE_NAMES: [&[u8]; 3] = [b"one", b"two", b"three"];

fn source(name: &[u8], contents: bool) -> Source {
    let mut path = [SOURCE_ROOT, b"/", name].concat();
    if contents {
        path.push(b'/');
    }
    Source { path, contents }
}

fn draw_sources(prng: &mut Prng, shape: &Shape) -> (Vec<Source>, Tree) {
    let mut all = Tree::empty();
    if prng.chance(80) {
        let entry = random_file(prng, shape);
        all.entries.insert(SINGLE_FILE.to_vec(), entry);
        return (vec![source(SINGLE_FILE, false)], all);
    }
    let count = if prng.chance(200) {
        2 + prng.index(2)
    } else {
        1
    };
    let mut sources = Vec::new();
    let mut tree = random_tree(prng, shape);
    for name in SOURCE_NAMES.iter().take(count) {
        graft(&mut all, name, &tree);
        sources.push(source(name, prng.chance(750)));
        if prng.chance(500) {
            tree.mutate(prng, shape, 8);
        } else {
            tree = random_tree(prng, shape);
        }
    }
    (sources, all)
}

fn random_tree(prng: &mut Prng, shape: &Shape) -> Tree {
    let mut tree = Tree::random(prng, shape);
    // The sizes at which a file changes its way through the program.
    let edges = [
        PACK_FILE_BYTES_MAX,
        PACK_FILE_BYTES_MAX + 1,
        2 * CHUNK_BYTES,
        3 * CHUNK_BYTES + 5,
    ];
    for (name, size) in [&b"edge0"[..], b"edge1", b"edge2", b"edge3"]
        .iter()
        .zip(edges)
    {
        if prng.chance(120) && size as u64 <= shape.file_bytes_max {
            let mut bytes = vec![0; size];
            prng.fill(&mut bytes);
            let mut entry = Entry::file(0o644, &bytes);
            // Two sources may have it: content that differs has to show in the time.
            let word = u32::from_le_bytes(*bytes.first_chunk().expect("larger"));
            entry.meta.mtime.nsec = word % 1_000_000_000;
            tree.entries.insert(name.to_vec(), entry);
        }
    }
    tree
}

fn random_file(prng: &mut Prng, shape: &Shape) -> Entry {
    let tree = Tree::random(
        prng,
        &Shape {
            entries_max: 8,
            ..shape.clone()
        },
    );
    let mut files = tree
        .entries
        .into_values()
        .filter(|e| e.meta.kind == Kind::File);
    files.next().unwrap_or_else(|| Entry::file(0o640, b"alone"))
}

fn graft(all: &mut Tree, name: &[u8], tree: &Tree) {
    for (path, entry) in &tree.entries {
        let path = super::host::joined(name, path);
        all.entries.insert(path, entry.clone());
    }
}

fn draw_target(
    prng: &mut Prng,
    shape: &Shape,
    sources: &[Source],
    source_tree: &Tree,
    is_single: bool,
) -> Option<Tree> {
    if prng.chance(150) {
        return None;
    }
    if is_single && prng.chance(600) {
        let mut entry = random_file(prng, shape);
        if prng.chance(200) {
            entry = Entry::symlink(b"nowhere");
        }
        return Some(Tree {
            entries: [(Vec::new(), entry)].into(),
        });
    }
    if prng.chance(150) {
        return Some(Tree::random(prng, shape));
    }
    let mut tree = super::oracle::Wanted::of(sources, source_tree, None).tree;
    let changes_max = if prng.chance(300) { 1 } else { 20 };
    let changes_count = prng.index(changes_max + 1);
    tree.mutate(prng, shape, changes_count);
    // A tree that lost its root is drawn with the others above.
    tree.entries
        .entry(Vec::new())
        .or_insert_with(|| Entry::dir(0o755));
    Some(tree)
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = |tree: &Tree| {
            let bytes = |entry: &Entry| match &entry.content {
                Content::Bytes(bytes) => bytes.len(),
                Content::None | Content::Target(_) | Content::Device(_) => 0,
            };
            let total: usize = tree.entries.values().map(bytes).sum();
            format!("{} entries, {total} bytes", tree.entries.len())
        };
        writeln!(f, "seed {}", self.seed)?;
        writeln!(
            f,
            "  {}",
            if self.is_pair {
                "one process"
            } else {
                "over a stream"
            }
        )?;
        for source in &self.sources {
            writeln!(f, "  source {}", source.path.escape_ascii())?;
        }
        writeln!(f, "  sources: {}", entries(&self.source_tree))?;
        match &self.target_tree {
            Some(tree) => writeln!(f, "  target: {}", entries(tree))?,
            None => writeln!(f, "  target: absent")?,
        }
        writeln!(
            f,
            "  module {:?}, blocks {:?}",
            self.module, self.blocks_counts
        )?;
        writeln!(f, "  {:?}", self.net)?;
        for disk in &self.disks {
            writeln!(f, "  {disk:?}")?;
        }
        for weather in &self.weathers {
            writeln!(f, "  weather {weather:?}")?;
        }
        writeln!(f, "  {} files have another name", self.linked.len())?;
        writeln!(f, "  {:?}, {:?}", self.look_ahead, self.deltas)?;
        writeln!(f, "  {:?}", self.check_bounds)?;
        write!(f, "  calm {:?}, {:?}", self.policy, self.calm_rings)
    }
}
