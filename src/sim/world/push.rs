//! A push of the simulator: its client and its server, each a shard with its disk and its blocks, over a simulated
//! stream, or both in one shard; at times with a second client at the same work.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::num::NonZeroU32;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use super::{World, all_good};
use crate::client::sources;
use crate::engine::shard::{PortKey, Shard};
use crate::job::Work;
use crate::limits::BLOCK_BYTES;
use crate::model::id::SessionId;
use crate::model::module::{Module, ModuleName, ModuleTable};
use crate::model::policy::{Durability, Policy};
use crate::model::report::{Exit, Tell, Totals};
use crate::model::time::Moment;
use crate::ops::op::StreamId;
use crate::ops::{BlockPool, Disk};
use crate::session::source::Sources;
use crate::session::target::{Doorkeeper, Exports, OwnRights};
use crate::session::{Session, SessionError, Source, Target};
use crate::sim::disk::SimDisk;
use crate::sim::fault::Crash;
use crate::sim::net::NetOptions;
use crate::sim::oracle;
use crate::sim::prng::Prng;
use crate::sim::ring::SimRing;
use crate::sim::scenario::{ABOVE_DEST, DEST, DEST_NAME, SOURCE, Scenario, TARGET};
use crate::sim::weather::{Rival, Weather};
use crate::wire::hello::Hello;

type SimShard = Shard<SimDisk, SimRing<Work<SimDisk>>>;

/// Virtual time without a disk call or traffic worth the name after which the sides are taken
/// to wait for each other: more than twice as long as a session is patient.
const STUCK_SECONDS: u64 = 400;
/// Bytes that signs of life may come to in that time.
const STUCK_BYTES: u64 = 4096;
/// Silence of the peer after which a session gives up.
const PATIENCE: Duration = Duration::from_secs(60);

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

/// How one push ended.
pub(super) struct End {
    /// `None`: the source died, or had nothing to start with.
    pub outcome: Option<Result<(Exit, Option<Durability>), SessionError>>,
    pub totals: Totals,
    pub tells: Vec<Tell>,
    pub died: Option<(usize, Crash)>,
    /// Frames that targets which are over still count as theirs.
    frames_kept: usize,
    /// How the second client ended, where there was one.
    pub rival: Option<Result<Exit, SessionError>>,
}

/// One process with its shard.
struct Side {
    /// SOURCE or TARGET; a pair is the source.
    which: usize,
    shard: SimShard,
    disk: SimDisk,
    /// A pair has none, a server one of each client.
    streams: Vec<StreamId>,
    sessions_left: usize,
    /// The source whose words are heard; of a second client nobody hears but how it ended.
    heard: Option<PortKey>,
}

impl World {
    pub(super) fn push(
        &mut self,
        policy: Policy,
        weather: Option<&Weather>,
    ) -> Result<End, String> {
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
            rival: None,
        };
        let died = |side: usize| crash.map(|planned| (side, planned.crash));
        let disk = self.disks[SOURCE].clone();
        let sources = sources::open(&disk, &self.scenario.sources);
        if disk.is_crashed() {
            end.died = died(SOURCE);
            return Ok(end);
        }
        if sources.origins.is_empty() {
            return Ok(end);
        }
        let doorkeeper = self.doorkeeper();
        let source = source(&self.scenario, &mut self.prng, &disk, policy, sources);
        let target = Session::Target(Box::new(Target::new(
            doorkeeper.clone(),
            self.scenario.stays,
        )));
        let mut pools = Vec::new();
        let mut sides = self.open(source, target, weather, &mut pools);
        if let Some((weather, rival)) = weather.and_then(|it| Some((it, it.rival?))) {
            self.join(&mut sides, &doorkeeper, rival, weather, &mut pools);
        }
        drop(doorkeeper);
        let disks: Vec<_> = sides
            .iter()
            .map(|side| (side.which, side.disk.clone()))
            .collect();
        self.drive(sides, weather, &mut end)?;
        self.summary.files_sent += end.totals.files_sent;
        self.summary.matched_bytes += end.totals.matched_bytes;
        self.summary.disk_calls += self.disks[TARGET].calls_count() - calls_at_start;
        self.check_returned(pools, &disks, &end)?;
        if weather.is_none() && end.totals.files_resent > 0 {
            let count = end.totals.files_resent;
            return Err(format!("sent again, with nobody at a basis: {count} files"));
        }
        let target_lives = end
            .died
            .is_none_or(|(side, _)| side == SOURCE && !self.scenario.is_pair);
        let can_tidy_up =
            |weather: &Weather| !weather.hinders(TARGET) && weather.changes_per_mille[TARGET] == 0;
        if target_lives && weather.is_none_or(can_tidy_up) {
            let mut temps = oracle::temps(&self.dest_tree());
            temps.retain(|temp| !temps_before.contains(temp));
            all_good("a target that is through has left temp files", temps)?;
        }
        Ok(end)
    }

    /// Both ends at their shards.
    fn open(
        &mut self,
        source: Session<SimDisk>,
        target: Session<SimDisk>,
        weather: Option<&Weather>,
        pools: &mut Vec<BlockPool>,
    ) -> Vec<Side> {
        let mut shard = |which: usize| self.shard(which, &self.disks[which], weather, pools);
        let mut here = shard(SOURCE);
        if self.scenario.is_pair {
            let (key, _) = here.open_pair(source, target);
            let side = Side {
                which: SOURCE,
                shard: here,
                disk: self.disks[SOURCE].clone(),
                streams: Vec::new(),
                sessions_left: 2,
                heard: Some(key),
            };
            return vec![side];
        }
        let mut there = shard(TARGET);
        let options = NetOptions {
            reset_after_bytes: weather.map_or([None; 2], |weather| weather.reset_after_bytes),
            flip_at_bytes: weather.map_or([None; 2], |weather| weather.flip_at_bytes),
            lies: weather.map_or([None; 2], |weather| weather.lies),
            ..self.scenario.net.clone()
        };
        let (one, other) = self.shared.borrow_mut().connect(&options);
        let key = here.open(source, one, Some(PATIENCE));
        there.open(target, other, Some(PATIENCE));
        let side = |which: usize, shard, stream, heard| Side {
            which,
            shard,
            disk: self.disks[which].clone(),
            streams: vec![stream],
            sessions_left: 1,
            heard,
        };
        vec![
            side(SOURCE, here, one, Some(key)),
            side(TARGET, there, other, None),
        ]
    }

    fn shard(
        &self,
        which: usize,
        disk: &SimDisk,
        weather: Option<&Weather>,
        pools: &mut Vec<BlockPool>,
    ) -> SimShard {
        let rings = weather.map_or(self.scenario.calm_rings, |weather| weather.rings);
        let pool = take_pool(self.scenario.blocks_counts[which]);
        pools.push(pool.clone());
        let ring = SimRing::new(&self.shared, disk.clone(), rings[which]);
        Shard::new(ring, pool)
    }

    /// A second client pushes to the same place.
    fn join(
        &mut self,
        sides: &mut Vec<Side>,
        doorkeeper: &Arc<dyn Doorkeeper>,
        rival: Rival,
        weather: &Weather,
        pools: &mut Vec<BlockPool>,
    ) {
        let disk = self.disks[SOURCE].spawn();
        let sources = sources::open(&disk, rival.sources(&self.scenario.sources));
        if sources.origins.is_empty() {
            return;
        }
        let prng = &mut self.rival_prng;
        let policy = rival.policy(weather.policy);
        let source = source(&self.scenario, prng, &disk, policy, sources);
        let target = Session::Target(Box::new(Target::new(
            doorkeeper.clone(),
            self.scenario.stays,
        )));
        let mut shard = self.shard(SOURCE, &disk, Some(weather), pools);
        let (one, other) = self.shared.borrow_mut().connect(&self.scenario.net);
        shard.open(source, one, Some(PATIENCE));
        let there = sides
            .last_mut()
            .expect("the server, and no pair has a rival");
        there.shard.open(target, other, Some(PATIENCE));
        there.streams.push(other);
        there.sessions_left += 1;
        sides.push(Side {
            which: SOURCE,
            shard,
            disk,
            streams: vec![one],
            sessions_left: 1,
            heard: None,
        });
    }

    fn doorkeeper(&self) -> Arc<dyn Doorkeeper> {
        let disk = &self.disks[TARGET];
        let Some(rights) = self.scenario.module else {
            return Arc::new(OwnRights {
                is_root: disk.identity().is_root,
                home: Vec::new(),
            });
        };
        let name = ModuleName::new(b"m").expect("a plain name");
        let module = Module {
            name,
            root: OsStr::from_bytes(ABOVE_DEST).into(),
            read_only: false,
        };
        let mut modules = ModuleTable::default();
        modules.insert(module).expect("the only one");
        Arc::new(Exports { modules, rights })
    }

    /// Gives the sides turns and moves the clock until every session is over.
    fn drive(
        &mut self,
        mut sides: Vec<Side>,
        weather: Option<&Weather>,
        end: &mut End,
    ) -> Result<(), String> {
        let mut stall = weather.and_then(|weather| weather.stall);
        let crash = weather.and_then(|weather| weather.crash);
        // Who shows life and does not do what is up to it keeps the other until it goes.
        let lies_before = self.shared.borrow().net.lies_count();
        let mut may_wait_in_vain = true;
        let clock = self.shared.borrow().clock.clone();
        let calls_at_start = self.disks[TARGET].calls_count();
        let mut last_progress = (clock.now(), 0, 0);
        loop {
            let mut index = 0;
            while index < sides.len() {
                let is_dead = turn_until_quiet(&mut sides[index], end, clock.now());
                if is_dead {
                    let Side { which, streams, .. } = sides.remove(index);
                    let crash = crash.expect("nobody dies unplanned").crash;
                    end.died = Some((which, crash));
                    if crash == Crash::ProcessDeath {
                        let net = &mut self.shared.borrow_mut().net;
                        streams
                            .iter()
                            .for_each(|stream| net.close(*stream, clock.now()));
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
                    .and_then(|side| side.streams.first().copied())
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
            let calls: u64 = sides.iter().map(|side| side.disk.calls_count()).sum();
            let streams = sides.iter().flat_map(|side| &side.streams);
            let traffic = streams.map(|stream| {
                let (sent, received) = self.shared.borrow().net.traffic(*stream);
                sent + received
            });
            let traffic: u64 = traffic.sum();
            let (moment, calls_then, traffic_then) = last_progress;
            if calls != calls_then || traffic.abs_diff(traffic_then) > STUCK_BYTES {
                last_progress = (clock.now(), calls, traffic);
            } else if clock.now().since(moment) > Duration::from_secs(STUCK_SECONDS) {
                let has_lied = self.shared.borrow().net.lies_count() > lies_before;
                if has_lied && std::mem::take(&mut may_wait_in_vain) {
                    let lied_to = sides[0].streams[0];
                    self.shared.borrow_mut().net.reset(lied_to, clock.now());
                    last_progress.0 = clock.now();
                    continue;
                }
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
    fn check_returned(
        &mut self,
        pools: Vec<BlockPool>,
        disks: &[(usize, SimDisk)],
        end: &End,
    ) -> Result<(), String> {
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
        for (which, disk) in disks {
            let is_dead = end
                .died
                .is_some_and(|(side, _)| side == *which || self.scenario.is_pair);
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
fn turn_until_quiet(side: &mut Side, end: &mut End, now: Moment) -> bool {
    loop {
        side.shard
            .turn(None)
            .expect("a simulated ring does not fail");
        if side.disk.is_crashed() {
            return true;
        }
        if let Some(session) = side.heard.and_then(|key| side.shard.find(key)) {
            while let Some(tell) = session.next_tell() {
                end.tells.push(tell);
            }
        }
        while let Some((key, mut session, _)) = side.shard.next_finished() {
            side.sessions_left -= 1;
            while side.heard.is_some()
                && let Some(tell) = session.next_tell()
            {
                end.tells.push(tell);
            }
            match session {
                Session::Source(source) if side.heard != Some(key) => {
                    let outcome = source.outcome().map(|(exit, _)| exit);
                    end.rival = Some(outcome.map_err(Clone::clone));
                }
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

/// A client's session, with what it greets the server with.
fn source(
    scenario: &Scenario,
    prng: &mut Prng,
    disk: &SimDisk,
    policy: Policy,
    mut sources: Sources<SimDisk>,
) -> Session<SimDisk> {
    sources.dest_name = Some(DEST_NAME.into());
    let (module, dest) = match scenario.module {
        Some(_) => (b"m".to_vec(), &DEST[ABOVE_DEST.len()..]),
        None => (Vec::new(), DEST),
    };
    let components = dest
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty());
    let hello = Hello {
        session: SessionId(prng.next_u64()),
        policy,
        patience: NonZeroU32::new(60),
        boot_id: disk.boot_id(),
        sum_key: std::array::from_fn(|_| prng.next_u64().to_le_bytes()[0]),
        module,
        dest: components.map(<[u8]>::to_vec).collect(),
        dest_is_relative: false,
        dest_is_dir: scenario.dest_is_dir,
        single_file: sources.single_file.is_some(),
    };
    let mut source = Source::new(hello, policy.allow_empty_source, true, sources);
    source.look_ahead(scenario.look_ahead);
    source.bound_checks(scenario.check_bounds);
    if let Some(rules) = scenario.deltas {
        source.send_deltas(rules);
    }
    Session::Source(Box::new(source))
}
