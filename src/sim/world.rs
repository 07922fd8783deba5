//! `World`, a push in one thread: source and target, each a shard with its disk and its blocks,
//! over one simulated stream (or both in one shard), through the weather that a seed draws and
//! then in the calm, in which it has to succeed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::disk::SimDisk;
use super::fault::Crash;
use super::net::NetOptions;
use super::oracle::{self, Expected, Facts, History, Past, Safety, Wanted};
use super::prng::Prng;
use super::ring::{SimRing, SimWorld};
use super::scenario::{
    ABOVE_DEST, DEST, DEST_NAME, SINGLE_FILE, SOURCE, SOURCE_ROOT, Scenario, Stall, TARGET,
    Weather, link_path,
};
use super::tree::Tree;
use super::user::{User, locked};
use crate::client::sources;
use crate::engine::shard::{PortKey, Shard};
use crate::job::Work;
use crate::limits::BLOCK_BYTES;
use crate::model::entry::Kind;
use crate::model::id::SessionId;
use crate::model::module::{Module, ModuleName, ModuleTable};
use crate::model::policy::{Durability, Policy, Sameness};
use crate::model::report::{Exit, Tell, Totals};
use crate::model::time::Moment;
use crate::ops::op::StreamId;
use crate::ops::{BlockPool, Disk};
use crate::session::target::{Doorkeeper, Exports, OwnRights};
use crate::session::{Session, SessionError, Source, Target};
use crate::wire::hello::Hello;

type SimShard = Shard<SimDisk, SimRing<Work<SimDisk>>>;

/// Virtual time without a disk call or traffic worth the name after which the sides are taken
/// to wait for each other: more than twice as long as a session is patient.
const STUCK_SECONDS: u64 = 400;
/// Bytes that signs of life may come to in that time.
const STUCK_BYTES: u64 = 4096;
/// Silence of the peer after which a session gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pushes in the calm until one succeeds: the first may find what the weather left.
const CALM_PUSHES_MAX: usize = 3;

thread_local! {
    /// Blocks are leaked, as an arena's are; those of a world that is over serve the next.
    static POOLS: RefCell<HashMap<usize, Vec<BlockPool>>> = RefCell::default();
}

fn take_pool(blocks_count: usize) -> BlockPool {
    let known = POOLS.with_borrow_mut(|pools| pools.get_mut(&blocks_count)?.pop());
    known.unwrap_or_else(|| {
        let block = || &mut *Box::leak(vec![0; BLOCK_BYTES].into_boxed_slice());
        BlockPool::new((0..blocks_count).map(|_| block()).collect())
    })
}

/// What a seed came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    pub pushes: u64,
    pub crashes: u64,
    pub files_sent: u64,
    pub disk_calls: u64,
    /// Content that did not travel.
    pub matched_bytes: u64,
    /// Files with the right size, the right time and another content that a push has found out.
    pub lookalikes: u64,
    /// Partial files that a push left, and those that one which succeeded has gone on from.
    pub kept: u64,
    pub resumed: u64,
}

pub struct World {
    scenario: Scenario,
    prng: Prng,
    shared: Rc<RefCell<SimWorld>>,
    /// The processes that run now; a pair's are the same.
    disks: [SimDisk; 2],
    /// DEST, or the directory above it, as the first push found it.
    original: Tree,
    /// What stands beside DEST.
    sentinels: Tree,
    source_history: Arc<Mutex<History>>,
    target_history: Arc<Mutex<History>>,
    /// A push so far was allowed to delete.
    may_delete: bool,
    /// Some push so far could leave unsynced content behind.
    was_unsynced: bool,
    may_be_torn: bool,
    /// Some push so far was in place.
    may_be_mixed: bool,
    /// And so while a local user of the target may have worked in the same file.
    is_shared: bool,
    /// Some push so far went by content, and so.
    is_redated: bool,
    summary: Summary,
}

/// How one push ended.
struct End {
    /// `None`: the source died, or had nothing to start with.
    outcome: Option<Result<(Exit, Option<Durability>), SessionError>>,
    totals: Totals,
    tells: Vec<Tell>,
    died: Option<(usize, Crash)>,
    /// Frames that targets which are over still count as theirs.
    frames_kept: usize,
}

/// One process with its shard.
struct Side {
    /// SOURCE or TARGET; a pair is the source.
    which: usize,
    shard: SimShard,
    disk: SimDisk,
    stream: Option<StreamId>,
    sessions_left: usize,
}

/// Runs one seed; what is wrong, in words, where something is.
pub fn run(seed: u64) -> Result<Summary, String> {
    World::new(Scenario::new(seed)).run()
}

impl World {
    pub fn new(scenario: Scenario) -> Self {
        let mut prng = Prng::new(scenario.seed ^ 0x5179);
        let shared = SimWorld::new(prng.next_u64());
        let clock = shared.borrow().clock.clone();
        let mut disk = |which: usize| {
            SimDisk::new(
                scenario.disks[which].clone(),
                clock.clone(),
                prng.next_u64(),
            )
        };
        let source = disk(SOURCE);
        let target = if scenario.is_pair {
            source.clone()
        } else {
            disk(TARGET)
        };
        let disks = [source, target];
        scenario.plant(&disks);
        let mut world = Self {
            prng,
            shared,
            original: Tree::default(),
            sentinels: Tree::default(),
            source_history: Arc::default(),
            target_history: Arc::default(),
            may_delete: false,
            was_unsynced: false,
            may_be_torn: false,
            may_be_mixed: false,
            is_shared: false,
            is_redated: false,
            summary: Summary::default(),
            scenario,
            disks,
        };
        world.original = world.dest_tree();
        world.sentinels = world.outside();
        let sources = world.source_snapshot();
        locked(&world.source_history).note(&sources);
        world
    }

    /// The weather, then the calm.
    pub fn run(mut self) -> Result<Summary, String> {
        for index in 0..self.scenario.weathers.len() {
            let weather = self.scenario.weathers[index].clone();
            self.weather(&weather)
                .map_err(|what| format!("weather {index}: {what}"))?;
        }
        self.calm().map_err(|what| format!("calm: {what}"))?;
        Ok(self.summary)
    }

    fn weather(&mut self, weather: &Weather) -> Result<(), String> {
        let policy = weather.policy;
        for (disk, faults) in self.disks.iter().zip(weather.faults) {
            disk.set_faults(faults);
        }
        if let Some(bytes) = weather.room_bytes {
            let disk = &self.disks[TARGET];
            disk.set_capacity(disk.used_bytes() + bytes, u64::MAX);
        }
        self.let_users_in(weather.changes_per_mille);
        let before = self.above_dest()?;
        self.may_delete |= policy.delete && !policy.dry_run;
        let end = self.push(policy, Some(weather))?;
        let was_touched = weather.changes_per_mille != [0, 0];
        for disk in &self.disks {
            disk.calm();
        }
        self.disks[TARGET].set_capacity(u64::MAX / 2, u64::MAX);
        if policy.dry_run && weather.changes_per_mille[TARGET] == 0 && end.died.is_none() {
            let after = self.above_dest()?;
            all_good("a dry run changed the target", before.diff(&after))?;
        }
        let kept = oracle::partials(&self.dest_tree());
        self.summary.kept += kept.len() as u64;
        let may_tear = policy.durability != Durability::File || policy.in_place;
        self.was_unsynced |= may_tear && !policy.dry_run;
        let is_in_place = policy.in_place && !policy.dry_run;
        self.may_be_mixed |= is_in_place;
        let has_user = weather.changes_per_mille[TARGET] > 0;
        self.is_shared |= is_in_place && has_user;
        self.is_redated |= policy.sameness == Sameness::Content && has_user;
        self.bury(&end);
        self.check_safety()?;
        let is_success = matches!(end.outcome, Some(Ok((Exit::Ok, _))));
        // Without a sync, a power cut right after the report may take what it reported.
        let is_promised = policy.durability != Durability::None || end.died.is_none();
        if is_success && is_promised && !policy.dry_run && !was_touched {
            let wanted = self.wanted();
            let before = match self.rename() {
                Some(_) => before,
                None => oracle::below(&before, DEST_NAME),
            };
            let expected = oracle::expected(&wanted, &before, policy, &self.scenario);
            let may_touch_root =
                end.died.is_some() || weather.faults[TARGET].io_error_per_mille > 0;
            self.check_equal(&wanted, &expected, policy, may_touch_root)
                .map_err(|what| format!("exit 0, but {what}"))?;
        }
        if let Some(max) = policy.delete_max
            && end.totals.files_deleted > max
        {
            return Err(format!(
                "{} deletions, {max} allowed",
                end.totals.files_deleted
            ));
        }
        Ok(())
    }

    /// Faults are over: a plain push must succeed, and leave what is wanted. Operations may still end short,
    /// late or interrupted.
    fn calm(&mut self) -> Result<(), String> {
        self.rejoin();
        let policy = self.scenario.policy;
        let wanted = self.wanted();
        let before = self.dest_tree();
        let expected = oracle::expected(&wanted, &before, policy, &self.scenario);
        let exit = if expected.blocked.is_empty() {
            Exit::Ok
        } else {
            Exit::Partial
        };
        if self.is_refused() {
            let end = self.push(policy, None)?;
            let is_refused = matches!(end.outcome, Some(Err(SessionError::Refused(_))));
            let not_refused = || format!("not refused: {:?}", end.outcome);
            return is_refused.then_some(()).ok_or_else(not_refused);
        }
        let mut outcomes = Vec::new();
        let partials_before = oracle::partials(&before);
        let matched_before = self.summary.matched_bytes;
        self.may_delete |= policy.delete;
        for _ in 0..CALM_PUSHES_MAX {
            let end = self.push(policy, None)?;
            let is_good = matches!(&end.outcome, Some(Ok((reached, _))) if *reached == exit);
            if is_good {
                outcomes.clear();
                break;
            }
            outcomes.push(format!("{:?} {:?}", end.outcome, end.tells));
        }
        if !outcomes.is_empty() {
            return Err(format!("no push ended with {exit:?}: {outcomes:#?}"));
        }
        self.check_equal(&wanted, &expected, policy, false)?;
        if policy.sameness == Sameness::Content {
            self.summary.lookalikes += oracle::lookalikes(&expected, &before);
        }
        let after = self.above_dest()?;
        let was_changed = |history: &Mutex<History>| !locked(history).touched.is_empty();
        let may_hide = was_changed(&self.source_history) || was_changed(&self.target_history);
        if exit == Exit::Ok && !may_hide {
            all_good("temp files stay", oracle::temps(&after))?;
            let has_matched = self.summary.matched_bytes > matched_before;
            self.check_partials(&partials_before, &after, has_matched)?;
        }
        self.check_idle(policy)?;
        if policy.durability != Durability::None
            && exit == Exit::Ok
            && !self.scenario.disks[TARGET].is_volatile
        {
            let before = expected.in_charge_of(self.dest_tree());
            self.restart(TARGET, Crash::PowerCut);
            let lines = before.diff(&expected.in_charge_of(self.dest_tree()));
            all_good("a power cut took what was reported as durable", lines)?;
        }
        Ok(())
    }

    /// After a success no part is left of a file that has its name.
    fn check_partials(
        &mut self,
        before: &[(String, bool)],
        after: &Tree,
        has_matched: bool,
    ) -> Result<(), String> {
        let Scenario {
            weathers,
            policy,
            deltas,
            is_pair,
            ..
        } = &self.scenario;
        let kept = oracle::partials(after);
        let none_wanted = weathers.iter().all(|weather| !weather.policy.partial);
        if none_wanted && !kept.is_empty() {
            return Err(format!("parts that nobody wanted were kept: {kept:?}"));
        }
        // Between removing the part and the rename, or unable to remove it; or a look at the content found a
        // difference that size and time do not tell, so that nothing is sent.
        let may_stay = weathers.iter().any(|weather| {
            let has_crashed = weather
                .crash
                .is_some_and(|planned| *is_pair || planned.side == TARGET);
            let looked_closer = weather.policy.sameness == Sameness::Content
                && policy.sameness != Sameness::Content;
            has_crashed || weather.hinders_removal() || looked_closer
        });
        let of_whole_files = kept.iter().filter(|(_, is_whole)| *is_whole);
        let lines = of_whole_files.map(|(path, _)| path.clone());
        if !may_stay {
            all_good("parts of whole files stay", lines.collect())?;
        }
        let is_resumed = policy.resume && deltas.is_some_and(|rules| rules.only_partials);
        if is_resumed && has_matched {
            let gone = before.len().saturating_sub(kept.len());
            self.summary.resumed += gone as u64;
        }
        Ok(())
    }

    /// A push after a success has nothing to do.
    fn check_idle(&mut self, policy: Policy) -> Result<(), String> {
        let end = self.push(policy, None)?;
        let totals = end.totals;
        let done = (
            totals.files_sent,
            totals.dirs_made,
            totals.meta_fixed,
            totals.files_deleted,
        );
        if done != (0, 0, 0, 0)
            && end
                .outcome
                .as_ref()
                .is_some_and(|outcome| matches!(outcome, Ok((Exit::Ok, _))))
        {
            return Err(format!(
                "the push after a success still did {done:?}: made, dirs, mended, deleted"
            ));
        }
        Ok(())
    }

    /// Whether DEST can't be what this push needs: a file where a directory must be.
    fn is_refused(&self) -> bool {
        let at_dest = self.disks[TARGET].snapshot(DEST).ok();
        let kind = at_dest.map(|tree| tree.entries[&b""[..]].meta.kind);
        let is_single = self.scenario.sources[0].path.ends_with(SINGLE_FILE);
        !is_single && kind.is_some_and(|kind| kind != Kind::Dir)
    }

    /// `may_touch_root`: a target that dies or fails while it takes a marker away, the last thing
    /// it does, does not set ROOT's time right.
    fn check_equal(
        &self,
        wanted: &Wanted,
        expected: &Expected,
        policy: Policy,
        may_touch_root: bool,
    ) -> Result<(), String> {
        let (source, target) = (locked(&self.source_history), locked(&self.target_history));
        let facts = Facts {
            past: self.past(&source, &target),
            rights: self.scenario.rights(),
            root_is_listed: wanted.root_is_listed,
            may_touch_root,
            is_shared: self.is_shared,
            is_redated: self.is_redated,
            is_by_content: policy.sameness == Sameness::Content,
        };
        let lines = oracle::check_equal(expected, &self.dest_tree(), &facts);
        all_good("the target is not what was pushed", lines)
    }

    fn check_safety(&mut self) -> Result<(), String> {
        let (source, target) = (locked(&self.source_history), locked(&self.target_history));
        let wanted = self.wanted();
        let safety = Safety {
            past: self.past(&source, &target),
            wanted: &wanted,
            may_delete: self.may_delete,
            may_be_torn: self.may_be_torn,
            may_be_mixed: self.may_be_mixed,
        };
        all_good("unsafe", safety.check(&self.dest_tree()))?;
        all_good("written through another name", self.changed_links())?;
        all_good("outside of DEST", self.sentinels.diff(&self.outside()))
    }

    fn past<'a>(&'a self, source: &'a History, target: &'a History) -> Past<'a> {
        Past {
            scenario: &self.scenario,
            original: &self.original,
            rename: self.rename(),
            source_history: source,
            target_history: target,
        }
    }

    /// Other names of files below DEST whose content is not what it was.
    fn changed_links(&self) -> Vec<String> {
        let planted = self.scenario.target_tree.as_ref();
        let linked = self.scenario.linked.iter().enumerate();
        let changed = linked.filter(|(number, path)| {
            let tree = self.disks[TARGET].snapshot(&link_path(*number));
            let now = tree.expect("nobody removes it").entries.remove(&b""[..]);
            now.expect("a file").content != planted.expect("they are in it").entries[*path].content
        });
        let paths = changed.map(|(_, path)| path.escape_ascii().to_string());
        paths.collect()
    }

    // ---- what stands where

    fn source_snapshot(&self) -> Tree {
        self.disks[SOURCE]
            .snapshot(SOURCE_ROOT)
            .expect("nobody removes it")
    }

    /// A single file may get DEST's name: then ROOT is the directory above.
    fn rename(&self) -> Option<&'static [u8]> {
        let is_single = self.scenario.sources[0].path.ends_with(SINGLE_FILE);
        let is_dir = matches!(&self.scenario.target_tree, Some(tree) if tree.entries[&b""[..]].meta.kind == Kind::Dir);
        (is_single && !is_dir).then_some(DEST_NAME)
    }

    fn wanted(&self) -> Wanted {
        Wanted::of(
            &self.scenario.sources,
            &self.source_snapshot(),
            self.rename(),
        )
    }

    /// ROOT of the target as it is now; where it is absent, an empty tree.
    fn dest_tree(&self) -> Tree {
        let path = if self.rename().is_some() {
            ABOVE_DEST
        } else {
            DEST
        };
        self.disks[TARGET].snapshot(path).unwrap_or_default()
    }

    fn above_dest(&self) -> Result<Tree, String> {
        let tree = self.disks[TARGET].snapshot(ABOVE_DEST);
        tree.map_err(|error| error.to_string())
    }

    /// Everything of the target's host that no push may touch, but for the times of what is
    /// directly above DEST.
    fn outside(&self) -> Tree {
        let mut tree = self.disks[TARGET].snapshot(b"/").expect("a root");
        tree.entries.retain(|path, _| {
            let is_of_dest = *path == b"t/dest" || path.starts_with(b"t/dest/");
            let is_of_source = *path == b"src" || path.starts_with(b"src/");
            let is_own = path.strip_prefix(b"t/").is_some_and(oracle::is_ours);
            let is_link = path.starts_with(b"t/link"); // Metadata may change by the other name.
            !is_link && !is_of_dest && !is_of_source && !is_own && *path != b"t" && !path.is_empty()
        });
        tree
    }

    // ---- crashes and local users

    /// Buries who died in a push, and starts who takes the place.
    fn bury(&mut self, end: &End) {
        if let Some((side, crash)) = end.died {
            self.summary.crashes += 1;
            self.restart(side, crash);
        }
    }

    fn restart(&mut self, side: usize, crash: Crash) {
        let sources = self.source_snapshot();
        let disk = self.disks[side].restart(crash);
        // What users changed and did not sync comes back as the power cut left it.
        let survivors = self.source_snapshot();
        let is_same = |path: &Vec<u8>| sources.entries.get(path) == survivors.entries.get(path);
        let paths = sources.entries.keys().chain(survivors.entries.keys());
        let changed: Vec<_> = paths.filter(|path| !is_same(path)).cloned().collect();
        let mut history = locked(&self.source_history);
        history.note(&survivors);
        history.touched.extend(changed);
        drop(history);
        let is_target = side == TARGET || self.scenario.is_pair;
        if self.scenario.is_pair {
            self.disks = [disk.clone(), disk];
        } else {
            self.disks[side] = disk;
        }
        if is_target && crash == Crash::PowerCut {
            self.may_be_torn |= self.was_unsynced;
        }
    }

    /// Every push has a client of its own; a server stays, unless it was killed.
    fn rejoin(&mut self) {
        if !self.scenario.is_pair {
            self.disks[SOURCE] = self.disks[SOURCE].spawn();
        }
    }

    fn let_users_in(&mut self, per_mille: [u32; 2]) {
        let mut users = Vec::new();
        let names = [SOURCE_ROOT, DEST];
        let histories = [&self.source_history, &self.target_history];
        for which in [SOURCE, TARGET] {
            if per_mille[which] > 0 {
                let prng = self.prng.fork();
                let user = User::new(prng, names[which], per_mille[which], histories[which]);
                users.push((which, user));
            }
        }
        if self.scenario.is_pair {
            let mut users: Vec<User> = users.into_iter().map(|(_, user)| user).collect();
            if !users.is_empty() {
                let act = move |disk: &SimDisk, _: &super::Call| {
                    users.iter_mut().for_each(|user| user.act(disk));
                };
                self.disks[SOURCE].before_each_call(act);
            }
            return;
        }
        for (which, mut user) in users {
            self.disks[which].before_each_call(move |disk, _| user.act(disk));
        }
    }

    // ---- a push

    fn push(&mut self, policy: Policy, weather: Option<&Weather>) -> Result<End, String> {
        self.summary.pushes += 1;
        let temps_before = oracle::temps(&self.dest_tree());
        // Nobody starts a server or a push in the very tick in which the last one ended.
        let clock = self.shared.borrow().clock.clone();
        let pause = Duration::from_millis(self.prng.between(100, 20_000));
        clock.advance_to(clock.now().plus(pause));
        self.rejoin();
        let crash = weather.and_then(|weather| weather.crash);
        let calls_at_start = self.disks[TARGET].calls_count();
        if let Some(planned) = crash {
            let disk = &self.disks[planned.side];
            disk.crash_at_call(disk.calls_count() + planned.at_call);
            if let Some((kind, number)) = planned.aim {
                disk.crash_before(kind, number);
            }
        }
        let mut end = End {
            outcome: None,
            totals: Totals::default(),
            tells: Vec::new(),
            died: None,
            frames_kept: 0,
        };
        let died = |side: usize| crash.map(|planned| (side, planned.crash));
        let disk = self.disks[SOURCE].clone();
        let mut sources = sources::open(&disk, &self.scenario.sources);
        if disk.is_crashed() {
            end.died = died(SOURCE);
            return Ok(end);
        }
        if sources.origins.is_empty() {
            return Ok(end);
        }
        let Some(doorkeeper) = self.doorkeeper() else {
            end.died = died(TARGET);
            return Ok(end);
        };
        sources.dest_name = Some(DEST_NAME.into());
        let module = if self.scenario.module.is_some() {
            b"m".to_vec()
        } else {
            Vec::new()
        };
        let dest = if module.is_empty() {
            DEST
        } else {
            &DEST[ABOVE_DEST.len()..]
        };
        let components = dest
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty());
        let hello = Hello {
            session: SessionId(self.prng.next_u64()),
            policy,
            patience: NonZeroU32::new(60),
            boot_id: disk.boot_id(),
            sum_key: std::array::from_fn(|_| self.prng.next_u64().to_le_bytes()[0]),
            module,
            dest: components.map(<[u8]>::to_vec).collect(),
            dest_is_relative: false,
            dest_is_dir: self.scenario.dest_is_dir,
            single_file: sources.single_file.is_some(),
        };
        let mut source = Source::new(hello, policy.allow_empty_source, true, sources);
        source.look_ahead(self.scenario.look_ahead);
        source.bound_checks(self.scenario.check_bounds);
        if let Some(rules) = self.scenario.deltas {
            source.send_deltas(rules);
        }
        let source = Session::Source(Box::new(source));
        let target = Session::Target(Box::new(Target::new(doorkeeper, self.scenario.stays)));
        let mut pools = Vec::new();
        let (sides, key) = self.open(source, target, weather, &mut pools);
        let stall = weather.and_then(|weather| weather.stall);
        self.drive(
            sides,
            key,
            stall,
            crash.map(|planned| planned.crash),
            &mut end,
        )?;
        self.summary.files_sent += end.totals.files_sent;
        self.summary.matched_bytes += end.totals.matched_bytes;
        self.summary.disk_calls += self.disks[TARGET].calls_count() - calls_at_start;
        self.check_returned(pools, &end)?;
        if weather.is_none() && end.totals.files_resent > 0 {
            let count = end.totals.files_resent;
            return Err(format!("sent again, with nobody at a basis: {count} files"));
        }
        let target_lives = end
            .died
            .is_none_or(|(side, _)| side == SOURCE && !self.scenario.is_pair);
        let can_tidy_up = |weather: &Weather| {
            !weather.hinders_removal() && weather.changes_per_mille[TARGET] == 0
        };
        if target_lives && weather.is_none_or(can_tidy_up) {
            let mut temps = oracle::temps(&self.dest_tree());
            temps.retain(|temp| !temps_before.contains(temp));
            all_good("a target that is through has left temp files", temps)?;
        }
        Ok(end)
    }

    /// Both ends at their shards, and the source's key.
    fn open(
        &mut self,
        source: Session<SimDisk>,
        target: Session<SimDisk>,
        weather: Option<&Weather>,
        pools: &mut Vec<BlockPool>,
    ) -> (Vec<Side>, PortKey) {
        let rings = weather.map_or(self.scenario.calm_rings, |weather| weather.rings);
        let mut shard = |which: usize| {
            let pool = take_pool(self.scenario.blocks_counts[which]);
            pools.push(pool.clone());
            let ring = SimRing::new(&self.shared, self.disks[which].clone(), rings[which]);
            Shard::new(ring, pool)
        };
        let mut here = shard(SOURCE);
        if self.scenario.is_pair {
            let (key, _) = here.open_pair(source, target);
            let side = Side {
                which: SOURCE,
                shard: here,
                disk: self.disks[SOURCE].clone(),
                stream: None,
                sessions_left: 2,
            };
            return (vec![side], key);
        }
        let mut there = shard(TARGET);
        let options = NetOptions {
            reset_after_bytes: weather.map_or([None; 2], |weather| weather.reset_after_bytes),
            ..self.scenario.net.clone()
        };
        let (one, other) = self.shared.borrow_mut().connect(&options);
        let key = here.open(source, one, Some(PATIENCE));
        there.open(target, other, Some(PATIENCE));
        let side = |which: usize, shard, stream| Side {
            which,
            shard,
            disk: self.disks[which].clone(),
            stream: Some(stream),
            sessions_left: 1,
        };
        (
            vec![side(SOURCE, here, one), side(TARGET, there, other)],
            key,
        )
    }

    fn doorkeeper(&self) -> Option<Arc<dyn Doorkeeper<SimDisk>>> {
        let disk = &self.disks[TARGET];
        let Some(rights) = self.scenario.module else {
            return Some(Arc::new(OwnRights {
                is_root: disk.identity().is_root,
                home: Vec::new(),
            }));
        };
        let name = ModuleName::new(b"m").expect("a plain name");
        let module = Module {
            name,
            root: "/t".into(),
            read_only: false,
        };
        let mut modules = ModuleTable::default();
        modules.insert(module).expect("the only one");
        // The server opened it in better times.
        let root = (0..10_000).find_map(|_| disk.open_operator_dir(ABOVE_DEST).ok())?;
        let roots = HashMap::from([(b"m".to_vec(), Arc::new(root))]);
        Some(Arc::new(Exports {
            modules,
            roots,
            rights,
        }))
    }

    /// Gives the sides turns and moves the clock until every session is over.
    fn drive(
        &mut self,
        mut sides: Vec<Side>,
        key: PortKey,
        mut stall: Option<Stall>,
        crash: Option<Crash>,
        end: &mut End,
    ) -> Result<(), String> {
        let clock = self.shared.borrow().clock.clone();
        let calls_at_start = self.disks[TARGET].calls_count();
        let mut last_progress = (clock.now(), 0, 0);
        loop {
            let mut index = 0;
            while index < sides.len() {
                let is_dead = turn_until_quiet(&mut sides[index], key, end, clock.now());
                if is_dead {
                    let side = sides.remove(index);
                    let crash = crash.expect("nobody dies unplanned");
                    end.died = Some((side.which, crash));
                    let (stream, now) = (side.stream, clock.now());
                    drop(side);
                    if crash == Crash::ProcessDeath
                        && let Some(stream) = stream
                    {
                        self.shared.borrow_mut().net.close(stream, now);
                    }
                    continue;
                }
                if sides[index].sessions_left == 0 {
                    sides.remove(index);
                    continue;
                }
                index += 1;
            }
            if sides.is_empty() {
                return Ok(());
            }
            if let Some(planned) = stall
                && self.disks[TARGET].calls_count() - calls_at_start > planned.after_calls
                && let Some(stream) = sides
                    .iter()
                    .find(|side| side.which == planned.side)
                    .and_then(|side| side.stream)
            {
                let until = clock.now().plus(Duration::from_secs(planned.seconds));
                self.shared.borrow_mut().net.stall(stream, until);
                stall = None;
            }
            let due = sides
                .iter_mut()
                .filter_map(|side| side.shard.ring_mut().next_due())
                .min();
            let Some(due) = due else {
                return Err(format!("all wait for ever: {}", self.shown(&mut sides)));
            };
            clock.advance_to(due);
            let calls: u64 = self.disks.iter().map(SimDisk::calls_count).sum();
            let streams = sides.iter().filter_map(|side| side.stream);
            let traffic = streams.map(|stream| {
                let (sent, received) = self.shared.borrow().net.traffic(stream);
                sent + received
            });
            let traffic: u64 = traffic.sum();
            let (moment, calls_then, traffic_then) = last_progress;
            if calls != calls_then || traffic.abs_diff(traffic_then) > STUCK_BYTES {
                last_progress = (clock.now(), calls, traffic);
            } else if clock.now().since(moment) > Duration::from_secs(STUCK_SECONDS) {
                return Err(format!("stuck: {}", self.shown(&mut sides)));
            }
        }
    }

    fn shown(&self, sides: &mut [Side]) -> String {
        let side = |side: &mut Side| {
            let keys = side.shard.keys();
            let in_flight = side.shard.ring_mut().in_flight_count();
            format!(
                "side {} with {} sessions, {in_flight} ops in flight",
                side.which,
                keys.len()
            )
        };
        sides.iter_mut().map(side).collect::<Vec<_>>().join("; ")
    }

    /// Blocks, descriptors and locks are back when the sessions are gone.
    fn check_returned(&mut self, pools: Vec<BlockPool>, end: &End) -> Result<(), String> {
        if end.frames_kept > 0 {
            return Err(format!("{} frames are still counted", end.frames_kept));
        }
        for pool in pools {
            let missing = pool.blocks_count() - pool.free_count();
            if missing > 0 {
                return Err(format!("{missing} blocks did not come back"));
            }
            POOLS.with_borrow_mut(|pools| pools.entry(pool.blocks_count()).or_default().push(pool));
        }
        for (which, disk) in self.disks.iter().enumerate() {
            let is_dead = end
                .died
                .is_some_and(|(side, _)| side == which || self.scenario.is_pair);
            let (fds, locks) = (disk.open_fds_count(), disk.locks_count());
            if !is_dead && (fds, locks) != (0, 0) {
                return Err(format!(
                    "side {which} still holds {fds} descriptors and {locks} locks"
                ));
            }
        }
        Ok(())
    }
}

/// Gives a side turns until it waits for others or for time; whether its process has died.
fn turn_until_quiet(side: &mut Side, key: PortKey, end: &mut End, now: Moment) -> bool {
    loop {
        side.shard
            .turn(None)
            .expect("a simulated ring does not fail");
        if side.disk.is_crashed() {
            return true;
        }
        if side.which == SOURCE
            && let Some(session) = side.shard.find(key)
        {
            while let Some(tell) = session.next_tell() {
                end.tells.push(tell);
            }
        }
        while let Some((_, mut session, _)) = side.shard.next_finished() {
            side.sessions_left -= 1;
            while let Some(tell) = session.next_tell() {
                end.tells.push(tell);
            }
            match session {
                Session::Source(source) => {
                    end.totals = source.totals();
                    end.outcome = Some(source.outcome().map_err(Clone::clone));
                }
                Session::Target(target) => end.frames_kept += target.frames_held_count(),
            }
        }
        let is_due = side
            .shard
            .ring_mut()
            .next_due()
            .is_some_and(|due| due <= now);
        if side.sessions_left == 0 || (side.shard.is_quiet() && !is_due) {
            return false;
        }
    }
}

fn all_good(what: &str, lines: Vec<String>) -> Result<(), String> {
    if lines.is_empty() {
        Ok(())
    } else {
        Err(format!("{what}:\n  {}", lines.join("\n  ")))
    }
}
