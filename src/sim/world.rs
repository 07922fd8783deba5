//! `World`, a push in one thread: source and target, each a shard with its disk and its blocks,
//! over one simulated stream (or both in one shard), through the weather that a seed draws and
//! then in the calm, in which it has to succeed.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use super::disk::SimDisk;
use super::fault::Crash;
use super::oracle::{self, Expected, Facts, History, Past, Pushed, Safety, Wanted};
use super::prng::Prng;
use super::ring::SimWorld;
use super::scenario::{
    ABOVE_DEST, DEST, DEST_NAME, SINGLE_FILE, SOURCE, SOURCE_ROOT, Scenario, TARGET, link_path,
};
use super::tree::Tree;
use super::user::{User, locked};
use super::weather::{Rival, Weather};
use crate::client::plan::Source;
use crate::model::entry::Kind;
use crate::model::policy::{Durability, Policy, Sameness};
use crate::model::report::Exit;
use crate::session::SessionError;

mod push;

use push::End;

/// Pushes in the calm until one succeeds: the first may find what the weather left.
const CALM_PUSHES_MAX: usize = 3;

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
    /// Pushes of two clients at once that both have succeeded.
    pub rivals: u64,
    /// Frames that a hostile end said.
    pub lies: u64,
}

pub struct World {
    scenario: Scenario,
    prng: Prng,
    rival_prng: Prng,
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
    /// Second clients so far that change something, and whether they may delete.
    rivals: Vec<(Rival, bool)>,
    summary: Summary,
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
            rival_prng: Prng::new(scenario.seed ^ 0x7269_7661),
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
            rivals: Vec::new(),
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
        self.summary.lies = self.shared.borrow().net.lies_count();
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
        let lies_before = self.shared.borrow().net.lies_count();
        let end = self.push(policy, Some(weather))?;
        let has_lied = self.shared.borrow().net.lies_count() > lies_before;
        let has_lied = |side: usize| has_lied && weather.lies[side].is_some();
        let was_touched = weather.changes_per_mille != [0, 0];
        for disk in &self.disks {
            disk.calm();
        }
        self.disks[TARGET].set_capacity(u64::MAX / 2, u64::MAX);
        let is_dry = weather.policies().all(|policy| policy.dry_run);
        if is_dry && weather.changes_per_mille[TARGET] == 0 && end.died.is_none() {
            let after = self.above_dest()?;
            all_good("a dry run changed the target", before.diff(&after))?;
        }
        let kept = oracle::partials(&self.dest_tree());
        self.summary.kept += kept.len() as u64;
        let has_user = weather.changes_per_mille[TARGET] > 0;
        for policy in weather.policies().filter(|policy| !policy.dry_run) {
            self.was_unsynced |= policy.durability != Durability::File || policy.in_place;
            self.may_be_mixed |= policy.in_place;
            self.is_shared |= policy.in_place && has_user;
            self.is_redated |= policy.sameness == Sameness::Content && has_user;
        }
        self.may_delete |= policy.delete && !policy.dry_run;
        if let Some(rival) = weather.rival {
            let wishes = rival.policy(policy);
            let changes = (!wishes.dry_run).then_some((rival, wishes.delete));
            self.rivals.extend(changes);
        }
        self.bury(&end);
        if has_lied(SOURCE) {
            // What a source may do in DEST a hostile one may do to any of it, but nowhere else. What it
            // leaves is what the next push finds, as if it had been planted.
            self.check_outside()?;
            self.disks[TARGET].settle();
            self.original = self.dest_tree().without_ours();
            (self.was_unsynced, self.may_be_torn) = (false, false);
        } else {
            self.check_safety()?;
        }
        let is_success = matches!(end.outcome, Some(Ok((Exit::Ok, _))));
        // Without a sync, a power cut right after the report may take what it reported.
        let is_promised = policy.durability != Durability::None || end.died.is_none();
        // A second client may have wanted what this one did not.
        let is_disturbed = weather.rival.is_some_and(|rival| {
            rival.wishes.is_some() || end.rival.as_ref().is_some_and(|it| *it != Ok(Exit::Ok))
        });
        self.summary.rivals += u64::from(is_success && end.rival == Some(Ok(Exit::Ok)));
        let is_alone = !was_touched && !is_disturbed && !has_lied(SOURCE) && !has_lied(TARGET);
        if is_success && is_promised && !policy.dry_run && is_alone {
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
            && !has_lied(TARGET)
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
        let none_wanted = weathers
            .iter()
            .all(|weather| weather.policies().all(|policy| !policy.partial));
        if none_wanted && !kept.is_empty() {
            return Err(format!("parts that nobody wanted were kept: {kept:?}"));
        }
        // Between removing the part and the rename, or unable to remove it; or a push that looked at the content broke
        // off in a file for which this one sends nothing, since it saw a difference that size and time do not tell, or
        // could not look; or the one client broke off in a file that the other had finished.
        let may_stay = weathers.iter().any(|weather| {
            let has_crashed = weather
                .crash
                .is_some_and(|planned| *is_pair || planned.side == TARGET);
            let looked_otherwise = weather.policy.sameness == Sameness::Content
                && (policy.sameness != Sameness::Content || weather.hinders(SOURCE));
            let is_mixed_up = weather.rival.is_some() || weather.lies != [None, None];
            has_crashed || weather.hinders(TARGET) || looked_otherwise || is_mixed_up
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
        let all = (&self.scenario.sources[..], self.may_delete);
        let rivals = self.rivals.iter();
        let rivals = rivals.map(|(rival, may_delete)| (rival.sources(all.0), *may_delete));
        let pushes: Vec<_> = [all]
            .into_iter()
            .chain(rivals)
            .map(|(sources, may_delete)| Pushed {
                wanted: self.wanted_of(sources),
                may_delete,
            })
            .collect();
        let safety = Safety {
            past: self.past(&source, &target),
            pushes: &pushes,
            may_be_torn: self.may_be_torn,
            may_be_mixed: self.may_be_mixed,
        };
        all_good("unsafe", safety.check(&self.dest_tree()))?;
        drop((source, target));
        self.check_outside()
    }

    fn check_outside(&self) -> Result<(), String> {
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
        self.wanted_of(&self.scenario.sources)
    }

    fn wanted_of(&self, sources: &[Source]) -> Wanted {
        Wanted::of(sources, &self.source_snapshot(), self.rename())
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
}

fn all_good(what: &str, lines: Vec<String>) -> Result<(), String> {
    if lines.is_empty() {
        Ok(())
    } else {
        Err(format!("{what}:\n  {}", lines.join("\n  ")))
    }
}
