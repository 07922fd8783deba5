//! `Weather`, one push in which something may go wrong, and what.

use super::fault::{CallKind, Crash, DiskFaults};
use super::liar::Lies;
use super::prng::Prng;
use super::ring::RingWeather;
use super::scenario::{SOURCE, TARGET, draw_policy, draw_sameness};
use crate::client::plan::Source;
use crate::model::policy::Policy;

/// One push in which something may go wrong.
#[derive(Clone, Debug)]
pub struct Weather {
    pub policy: Policy,
    pub rings: [RingWeather; 2],
    pub faults: [DiskFaults; 2],
    pub crash: Option<PlannedCrash>,
    pub reset_after_bytes: [Option<u64>; 2],
    /// After so many disk calls of the target what this end sends stands still for that long.
    pub stall: Option<Stall>,
    /// Calls of a thousand before which a local user changes something, on either side.
    pub changes_per_mille: [u32; 2],
    /// Room for content at the target beyond what is there.
    pub room_bytes: Option<u64>,
    /// Another client pushes to the same place at the same time.
    pub rival: Option<Rival>,
    /// A bit of the byte at this place is turned over on the way, as it may be of either end's.
    pub flip_at_bytes: [Option<u64>; 2],
    /// An end says what it should not.
    pub lies: [Option<Lies>; 2],
}

/// A second client, by a good line.
#[derive(Clone, Copy, Debug)]
pub struct Rival {
    /// `None`: those of the first.
    pub wishes: Option<Policy>,
    /// It pushes the one of the sources that stands there; `None`: all of them, as the first.
    pub source: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
pub struct PlannedCrash {
    pub side: usize,
    pub at_call: u64,
    /// Or before which call of a kind, if that comes first.
    pub aim: Option<(CallKind, u64)>,
    pub crash: Crash,
}

#[derive(Clone, Copy, Debug)]
pub struct Stall {
    pub side: usize,
    pub after_calls: u64,
    pub seconds: u64,
}

impl Weather {
    pub fn draw(prng: &mut Prng, is_pair: bool) -> Self {
        let faults = |prng: &mut Prng| {
            if !prng.chance(350) {
                return DiskFaults::default();
            }
            let mut rate = || u32::try_from(prng.skewed(30) - 1).expect("small");
            DiskFaults {
                short_per_mille: 20 * rate(),
                io_error_per_mille: rate() / 2,
                sync_error_per_mille: 0,
                no_space_per_mille: rate() / 8,
                no_fd_per_mille: rate() / 4,
            }
        };
        let crash = prng.chance(500).then(|| PlannedCrash {
            side: prng.index(2),
            at_call: prng.skewed(2000),
            aim: None,
            crash: *prng.pick(&[Crash::ProcessDeath, Crash::PowerCut]),
        });
        let is_rainy = !is_pair && prng.chance(250);
        let mut reset = || (is_rainy && prng.chance(500)).then(|| prng.skewed(2_000_000));
        let reset_after_bytes = [reset(), reset()];
        let stall = (!is_pair && prng.chance(150)).then(|| Stall {
            side: prng.index(2),
            after_calls: prng.skewed(300),
            seconds: prng.skewed(200),
        });
        let mut changes = || {
            let is_busy = prng.chance(150);
            let per_mille = u32::try_from(prng.skewed(100)).expect("small");
            if is_busy { per_mille } else { 0 }
        };
        let changes_per_mille = [changes(), changes()];
        Self {
            changes_per_mille,
            crash,
            reset_after_bytes,
            stall,
            faults: [faults(prng), faults(prng)],
            rings: [RingWeather::random(prng), RingWeather::random(prng)],
            policy: draw_policy(prng),
            room_bytes: prng.chance(50).then(|| prng.skewed(2_000_000)),
            rival: None,
            flip_at_bytes: [None, None],
            lies: [None, None],
        }
    }

    /// At times a second client is there as well, and at times the line spoils a byte.
    pub fn crowd(&mut self, prng: &mut Prng, rivals: &mut Prng, sources_count: usize) {
        let may_have_rival = prng.chance(200);
        // It is on the same host.
        let is_host_cut = self
            .crash
            .is_some_and(|planned| (planned.side, planned.crash) == (SOURCE, Crash::PowerCut));
        let rival = Rival::draw(rivals, sources_count);
        self.rival = (may_have_rival && !is_host_cut).then_some(rival);
        let is_spoiled = prng.chance(100);
        self.flip_at_bytes =
            [(); 2].map(|()| (is_spoiled && prng.chance(600)).then(|| prng.skewed(500_000)));
    }

    /// At times what goes wrong goes wrong where a promise hangs by one call.
    pub fn aim(&mut self, prng: &mut Prng, is_pair: bool) {
        let writes = |planned: &&mut PlannedCrash| is_pair || planned.side == TARGET;
        if let Some(planned) = self.crash.as_mut().filter(writes)
            && prng.chance(250)
        {
            let kinds = [
                CallKind::Rename,
                CallKind::Unlink,
                CallKind::SyncFile,
                CallKind::SyncFs,
            ];
            planned.aim = Some((*prng.pick(&kinds), prng.skewed(8)));
        }
        for faults in &mut self.faults {
            if prng.chance(100) {
                let rate = u32::try_from(prng.skewed(500));
                faults.sync_error_per_mille = rate.expect("below a thousand");
            }
        }
    }

    /// At times an end is hostile, one of these.
    pub fn corrupt(&mut self, prng: &mut Prng, liars: &[usize]) {
        let liar = prng.chance(150).then(|| *prng.pick(liars));
        let lies = Lies {
            per_mille: u32::try_from(prng.between(50, 600)).expect("small"),
            seed: prng.next_u64(),
        };
        self.lies = [SOURCE, TARGET].map(|side| (liar == Some(side)).then_some(lies));
    }

    /// The wishes of each client.
    pub fn policies(&self) -> impl Iterator<Item = Policy> {
        let rival = self.rival.map(|rival| rival.policy(self.policy));
        [self.policy].into_iter().chain(rival)
    }

    /// A side may fail to read what is there, or to remove what it has made.
    pub fn hinders(&self, side: usize) -> bool {
        let faults = self.faults[side];
        faults.io_error_per_mille > 0 || faults.no_fd_per_mille > 0
    }
}

impl Rival {
    /// Half of them want the same.
    fn draw(prng: &mut Prng, sources_count: usize) -> Self {
        let wishes = Policy {
            numeric_ids: prng.chance(250),
            sameness: draw_sameness(prng),
            partial: prng.chance(600),
            ..draw_policy(prng)
        };
        let is_like_the_first = prng.chance(500);
        let source = prng.index(sources_count);
        let is_one_of_them = prng.chance(500);
        let wishes = Policy {
            in_place: prng.chance(300),
            ..wishes
        };
        Self {
            wishes: (!is_like_the_first).then_some(wishes),
            source: (!is_like_the_first && is_one_of_them).then_some(source),
        }
    }

    pub fn policy(&self, first: Policy) -> Policy {
        self.wishes.unwrap_or(first)
    }

    pub fn sources<'a>(&self, all: &'a [Source]) -> &'a [Source] {
        self.source.map_or(all, |at| &all[at..=at])
    }
}
