//! What there is to measure, and which figure each row is to reach.

use std::time::Duration;

use super::edits::{Edits, TOUCHED};
use super::failure::{Failure, Result};
use super::figures::Measure;
use super::options::Streaming;
use super::ssh;
use super::tool::Tool;
use super::tree::{self, Shape};

#[derive(Clone)]
pub struct Row {
    pub name: &'static str,
    pub what: &'static str,
    pub shape: Shape,
    pub scene: Scene,
    pub way: Way,
    /// Too long or too large for every day: runs only where it is named.
    pub on_demand: bool,
    /// Raced against in the order given; the subject goes before them in each round.
    pub peers: &'static [Tool],
    /// For trees on tmpfs.
    pub goals: Vec<Goal>,
    /// For trees on a disk.
    pub disk_goals: Vec<Goal>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scene {
    /// Into a target that does not exist; the removal in between isn't timed.
    FirstPush,
    /// Into a target that has everything.
    NothingChanged,
    /// Into a target that has the tree as it was before these edits; made again for each run, untimed.
    Changed(Edits),
    /// As the first push, stopped when the first file is there.
    FirstFile,
    /// So many first pushes of the tree at once, each into a target of its own.
    Crowd(u32),
    /// First pushes one after the other, each into a target of its own, as long as one push of
    /// `huge` takes beside them, a first one or of what these edits make of it; and so many with
    /// nothing beside them.
    Beside {
        huge: Shape,
        edits: Option<Edits>,
        alone: u32,
    },
    /// As the first push, beside so many sessions that do nothing; and without them.
    Idle(u32),
}

impl Scene {
    pub fn name(self) -> &'static str {
        match self {
            Self::FirstPush => "first push",
            Self::NothingChanged => "nothing changed",
            Self::Changed(_) => "new version",
            Self::FirstFile => "first file",
            Self::Crowd(_) => "first pushes at once",
            Self::Beside { .. } => "first pushes in a line beside a huge one",
            Self::Idle(_) => "first push beside idle sessions",
        }
    }

    /// Does a contender take part twice, the second time without what is beside its pushes?
    pub fn has_company(self) -> bool {
        match self {
            Self::FirstPush
            | Self::NothingChanged
            | Self::Changed(_)
            | Self::FirstFile
            | Self::Crowd(_) => false,
            Self::Beside { .. } | Self::Idle(_) => true,
        }
    }

    /// What is pushed beside the row's own tree, and how many copies of it there are at once: of a new
    /// version the target has the old one, too, and puts it together beside that.
    pub fn beside(self) -> Option<(Shape, u64)> {
        match self {
            Self::Beside { huge, edits, .. } => Some((huge, 2 + u64::from(edits.is_some()))),
            Self::FirstPush
            | Self::NothingChanged
            | Self::Changed(_)
            | Self::FirstFile
            | Self::Crowd(_)
            | Self::Idle(_) => None,
        }
    }

    /// Of the tree, on the target.
    pub fn copies(self) -> u64 {
        match self {
            Self::FirstPush | Self::NothingChanged | Self::FirstFile | Self::Idle(_) => 1,
            // One is the source.
            Self::Changed(_) => 2,
            Self::Crowd(clients) => clients.into(),
            Self::Beside { .. } => LINE_MAX.into(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// To a resident server over loopback.
    Tcp,
    /// The same through a proxy that makes a round trip take this long.
    Far(Duration),
    /// To what an sshd starts.
    Ssh,
    /// Without a server of its own.
    Local,
}

impl Way {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Far(_) => "TCP from far away",
            Self::Ssh => "ssh",
            Self::Local => "local",
        }
    }

    pub fn round_trip(self) -> Option<Duration> {
        match self {
            Self::Far(round_trip) => Some(round_trip),
            Self::Tcp | Self::Ssh | Self::Local => None,
        }
    }

    /// What this machine can't, if there is something.
    pub fn lacks(self) -> Option<String> {
        match self {
            Self::Ssh => ssh::lacks(),
            Self::Tcp | Self::Far(_) | Self::Local => None,
        }
    }
}

/// A figure the subject must not exceed to pass, and one to chase.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    pub measure: Measure,
    pub scale: Scale,
    pub reach: Option<f64>,
    pub record: Option<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scale {
    /// Relative to this peer.
    Of(Tool),
    /// In the measure's own unit: seconds or bytes.
    Absolute,
}

/// Pushes in a line beside a huge push, however long that takes: ten a second for 100 s.
pub const LINE_MAX: u32 = 1_000;
/// Clients of a crowd, and of a line with nothing beside it, that only shows that it runs.
const QUICK_CROWD: u32 = 8;
const DELTA: Edits = Edits {
    patches: 1_000,
    inserted_bytes: 1 << 20,
    inserted_at: 50,
    is_other: false,
};
const MIB: f64 = 1024.0 * 1024.0;

fn ratio(measure: Measure, reach: f64, record: f64) -> Goal {
    Goal {
        measure,
        scale: Scale::Of(Tool::Rsync),
        reach: Some(reach),
        record: Some(record),
    }
}

fn first_push(reach: f64, record: f64) -> Vec<Goal> {
    vec![
        ratio(Measure::Elapsed, reach, record),
        ratio(Measure::Cpu, 0.8, 0.5),
    ]
}

fn nothing_changed(reach: f64, record: f64) -> Vec<Goal> {
    vec![
        ratio(Measure::Elapsed, reach, record),
        ratio(Measure::Cpu, 1.0, 0.5),
    ]
}

/// Against rsync's daemon, and against what can be written by hand.
fn large() -> Vec<Goal> {
    let floor = Goal {
        scale: Scale::Of(Tool::Floor),
        ..ratio(Measure::Elapsed, 1.15, 1.00)
    };
    [first_push(0.70, 0.50), vec![floor]].concat()
}

fn peak(reach_mib: f64, record_mib: f64) -> Vec<Goal> {
    [Measure::ClientPeak, Measure::ServerPeak]
        .map(|measure| Goal {
            measure,
            scale: Scale::Absolute,
            reach: Some(reach_mib * MIB),
            record: Some(record_mib * MIB),
        })
        .into()
}

fn local(reach: f64) -> Vec<Goal> {
    let against_rsync = Goal {
        record: None,
        ..ratio(Measure::Elapsed, reach, 0.0)
    };
    let against_cp = Goal {
        scale: Scale::Of(Tool::Cp),
        reach: None,
        ..ratio(Measure::Elapsed, 0.0, 1.0)
    };
    vec![against_rsync, against_cp, ratio(Measure::Cpu, 0.8, 0.5)]
}

/// A new version is never slower to send than by rsync, whatever has changed.
fn new_version(reach: f64, record: f64) -> Vec<Goal> {
    vec![
        ratio(Measure::Elapsed, reach, record),
        ratio(Measure::Cpu, 0.8, 0.5),
    ]
}

/// In an order that makes each tree once.
fn all() -> Vec<Row> {
    let tcp = |name, what, shape, scene, goals| Row {
        name,
        what,
        shape,
        scene,
        way: Way::Tcp,
        on_demand: false,
        peers: &[Tool::Rsync],
        goals,
        disk_goals: Vec::new(),
    };
    let shell = |name, what, shape, scene, goals| Row {
        way: Way::Ssh,
        ..tcp(name, what, shape, scene, goals)
    };
    let embedded = |name, what, shape, goals| Row {
        way: Way::Local,
        peers: &[Tool::Rsync, Tool::Cp, Tool::Naive],
        ..tcp(name, what, shape, Scene::FirstPush, goals)
    };
    let without_ring = |name, what, shape, scene| Row {
        on_demand: true,
        peers: &[Tool::Portable],
        ..tcp(name, what, shape, scene, Vec::new())
    };
    vec![
        Row {
            disk_goals: first_push(0.75, 0.45),
            ..tcp(
                "small",
                "100,000 files of 2-6 KiB in 1,000 directories",
                tree::SMALL,
                Scene::FirstPush,
                first_push(0.50, 0.35),
            )
        },
        tcp(
            "small-same",
            "100,000 files of 2-6 KiB in 1,000 directories",
            tree::SMALL,
            Scene::NothingChanged,
            nothing_changed(0.55, 0.35),
        ),
        shell(
            "small-ssh",
            "100,000 files of 2-6 KiB in 1,000 directories",
            tree::SMALL,
            Scene::FirstPush,
            first_push(0.65, 0.50),
        ),
        shell(
            "small-same-ssh",
            "100,000 files of 2-6 KiB in 1,000 directories",
            tree::SMALL,
            Scene::NothingChanged,
            Vec::new(),
        ),
        embedded(
            "embedded-small",
            "100,000 files of 2-6 KiB in 1,000 directories",
            tree::SMALL,
            local(0.50),
        ),
        without_ring(
            "engines-small",
            "100,000 files of 2-6 KiB in 1,000 directories",
            tree::SMALL,
            Scene::FirstPush,
        ),
        without_ring(
            "engines-same",
            "100,000 files of 2-6 KiB in 1,000 directories",
            tree::SMALL,
            Scene::NothingChanged,
        ),
        tcp(
            "nested",
            "100,000 files of 2-6 KiB in 20,000 nested directories",
            tree::NESTED,
            Scene::FirstPush,
            first_push(0.65, 0.45),
        ),
        tcp(
            "nested-same",
            "100,000 files of 2-6 KiB in 20,000 nested directories",
            tree::NESTED,
            Scene::NothingChanged,
            nothing_changed(0.65, 0.45),
        ),
        Row {
            peers: &[Tool::Rsync, Tool::Floor],
            ..tcp(
                "big",
                "one file of 1 GiB",
                tree::BIG,
                Scene::FirstPush,
                large(),
            )
        },
        without_ring(
            "engines-big",
            "one file of 1 GiB",
            tree::BIG,
            Scene::FirstPush,
        ),
        without_ring(
            "engines-delta",
            "one file of 1 GiB, 1,000 changes of 4 KiB and 1 MiB inserted in the middle",
            tree::BIG,
            Scene::Changed(DELTA),
        ),
        shell(
            "big-ssh",
            "one file of 1 GiB",
            tree::BIG,
            Scene::FirstPush,
            Vec::new(),
        ),
        tcp(
            "delta",
            "one file of 1 GiB, 1,000 changes of 4 KiB and 1 MiB inserted in the middle",
            tree::BIG,
            Scene::Changed(DELTA),
            [
                new_version(0.60, 0.35),
                vec![ratio(Measure::Wire, 0.40, 0.25)],
                peak(32.0, 16.0),
            ]
            .concat(),
        ),
        Row {
            on_demand: true,
            ..tcp(
                "delta-touched",
                "one file of 1 GiB, nothing but its time changed",
                tree::BIG,
                Scene::Changed(TOUCHED),
                new_version(1.0, 0.5),
            )
        },
        Row {
            on_demand: true,
            ..tcp(
                "delta-front",
                "one file of 1 GiB, a byte inserted in front",
                tree::BIG,
                Scene::Changed(Edits {
                    inserted_bytes: 1,
                    ..TOUCHED
                }),
                new_version(1.0, 0.5),
            )
        },
        Row {
            on_demand: true,
            ..tcp(
                "delta-other",
                "one file of 1 GiB, another altogether",
                tree::BIG,
                Scene::Changed(Edits {
                    is_other: true,
                    ..TOUCHED
                }),
                new_version(1.0, 0.5),
            )
        },
        embedded("embedded-big", "one file of 1 GiB", tree::BIG, local(0.35)),
        Row {
            peers: &[Tool::Rsync, Tool::Floor],
            ..tcp(
                "four",
                "4 files of 1 GiB",
                tree::FOUR,
                Scene::FirstPush,
                large(),
            )
        },
        tcp(
            "delta-many",
            "10,000 files of 200 KiB, 4 KiB changed in each",
            tree::MIDDLING,
            Scene::Changed(Edits {
                patches: 1,
                ..TOUCHED
            }),
            new_version(1.0, 0.5),
        ),
        Row {
            way: Way::Far(Duration::from_millis(100)),
            ..tcp(
                "big-rtt",
                "one file of 256 MiB, round trips of 100 ms",
                tree::QUARTER,
                Scene::FirstPush,
                first_push(1.0, 0.8),
            )
        },
        Row {
            way: Way::Far(Duration::from_millis(200)),
            ..tcp(
                "rtt",
                "1,000 files of 4 KiB in 10 directories, round trips of 200 ms",
                tree::FEW,
                Scene::FirstPush,
                vec![Goal {
                    measure: Measure::RoundTrips,
                    scale: Scale::Absolute,
                    reach: Some(4.0),
                    record: Some(3.0),
                }],
            )
        },
        tcp(
            "crowd",
            "64 times 1,000 files of 4 KiB in 10 directories",
            tree::FEW,
            Scene::Crowd(64),
            vec![
                ratio(Measure::Elapsed, 0.50, 0.30),
                ratio(Measure::Slowest, 0.60, 0.30),
                ratio(Measure::Cpu, 0.8, 0.5),
            ],
        ),
        tcp(
            "beside",
            "20 files of 4 KiB, again and again, beside one file of 4 GiB",
            tree::HANDFUL,
            Scene::Beside {
                huge: tree::HUGE,
                edits: None,
                alone: 100,
            },
            [Measure::P50, Measure::P99]
                .map(|measure| ratio(measure, 1.00, 0.50))
                .into(),
        ),
        Row {
            on_demand: true,
            ..tcp(
                "beside-delta",
                "20 files of 4 KiB, again and again, beside a new version of one file of 4 GiB",
                tree::HANDFUL,
                Scene::Beside {
                    huge: tree::HUGE,
                    edits: Some(DELTA),
                    alone: 100,
                },
                [Measure::P50, Measure::P99]
                    .map(|measure| ratio(measure, 1.00, 0.50))
                    .into(),
            )
        },
        Row {
            peers: &[],
            ..tcp(
                "idle",
                "100,000 files of 2-6 KiB in 1,000 directories, beside 1,000 idle sessions",
                tree::SMALL,
                Scene::Idle(1_000),
                vec![Goal {
                    scale: Scale::Of(Tool::Sy),
                    ..ratio(Measure::Elapsed, 1.25, 1.05)
                }],
            )
        },
        tcp(
            "many-same-100k",
            "100,000 files of 150-250 B in 500 directories",
            tree::MANY_TENTH,
            Scene::NothingChanged,
            peak(32.0, 16.0),
        ),
        tcp(
            "many-same",
            "1,000,000 files of 150-250 B in 5,000 directories",
            tree::MANY,
            Scene::NothingChanged,
            [nothing_changed(0.55, 0.35), peak(32.0, 16.0)].concat(),
        ),
        Row {
            on_demand: true,
            ..shell(
                "many-ssh",
                "1,000,000 files of 150-250 B in 5,000 directories",
                tree::MANY,
                Scene::FirstPush,
                [first_push(0.65, 0.50), peak(32.0, 16.0)].concat(),
            )
        },
        Row {
            on_demand: true,
            ..shell(
                "many-same-ssh",
                "1,000,000 files of 150-250 B in 5,000 directories",
                tree::MANY,
                Scene::NothingChanged,
                peak(32.0, 16.0),
            )
        },
        tcp(
            "first-file",
            "1,000,000 files of 150-250 B in 5,000 directories",
            tree::MANY,
            Scene::FirstFile,
            vec![Goal {
                measure: Measure::Elapsed,
                scale: Scale::Absolute,
                reach: Some(0.050),
                record: Some(0.015),
            }],
        ),
        tcp(
            "one-dir-same",
            "1,000,000 files of 150-250 B in one directory",
            tree::ONE_DIR,
            Scene::NothingChanged,
            peak(96.0, 64.0),
        ),
        Row {
            on_demand: true,
            ..tcp(
                "many-same-10m",
                "10,000,000 files of 150-250 B in 50,000 directories",
                tree::MANY_TENFOLD,
                Scene::NothingChanged,
                peak(32.0, 16.0),
            )
        },
    ]
}

/// The rows the command line names, or all but those on demand, with the trees it wants.
pub fn chosen(options: &Streaming) -> Result<Vec<Row>> {
    let rows = all();
    for name in &options.rows {
        if !rows.iter().any(|row| row.name == name) {
            return Err(Failure::Unfit(format!(
                "no row is called {name}: --list names them"
            )));
        }
    }
    let mut rows: Vec<Row> = rows
        .into_iter()
        .filter(|row| match options.rows.as_slice() {
            [] => options.list || !row.on_demand,
            names => names.iter().any(|name| name == row.name),
        })
        .collect();
    if options.quick {
        for row in &mut rows {
            row.shape = row.shape.quick();
            match &mut row.scene {
                Scene::Crowd(clients) => *clients = (*clients).min(QUICK_CROWD),
                Scene::Beside { huge, alone, .. } => {
                    *huge = huge.quick();
                    *alone = (*alone).min(QUICK_CROWD);
                }
                Scene::FirstPush
                | Scene::NothingChanged
                | Scene::Changed(_)
                | Scene::FirstFile
                | Scene::Idle(_) => {}
            }
        }
    }
    Ok(rows)
}
