//! One row from its empty target to its runs: a checked warm-up of every contender, then round by
//! round the subject and its peers in turns.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use super::child::{self, InLine};
use super::daemon::Daemon;
use super::distance::Distance;
use super::edits::Edits;
use super::failure::{Doing, Failure, Result};
use super::figures::{Measure, Run};
use super::first_file::FirstFile;
use super::ground::Ground;
use super::idlers::Idlers;
use super::options::Streaming;
use super::procfs;
use super::row::{self, Goal, Row, Scene, Way};
use super::stop::Stop;
use super::table;
use super::tool::{self, Dest, Summary, Talk, Tool};
use super::tree::{self, Count, Shape};

/// Far beyond every tree here, with so much more for each file: what takes this long is stuck.
const RUN_MAX: Duration = Duration::from_secs(300);
const RUN_MAX_PER_FILE: Duration = Duration::from_micros(200);

pub enum Outcome {
    Ran(Ran),
    /// The machine has no room for it.
    Skipped(String),
    Failed(String),
}

pub struct Ran {
    pub names: Vec<String>,
    pub tools: Vec<Tool>,
    pub source: Count,
    pub runs: Vec<Run>,
    /// Those that hold for the file system at hand.
    pub goals: Vec<Goal>,
}

pub struct Race<'a> {
    ground: &'a Ground,
    stop: &'a Stop,
    subject: Tool,
    rounds: u32,
    source: Option<(Shape, Count)>,
}

/// What is pushed beside a line of handfuls.
struct Huge {
    from: PathBuf,
    shape: Shape,
    /// The target has `shape` as it was, made again for each run, untimed.
    is_new_version: bool,
    /// Of what is at `from`.
    count: Count,
}

/// One who takes part in a row.
struct Contender {
    tool: Tool,
    name: String,
    /// What the row has beside the pushes isn't there.
    is_alone: bool,
    /// Before the daemon, where there is one.
    distance: Option<Distance>,
    daemon: Option<Daemon>,
}

impl Contender {
    fn round_trip(&self) -> Option<Duration> {
        self.distance.as_ref().map(|distance| distance.round_trip)
    }

    /// The sessions that this row has beside its push, greeted.
    fn idlers(&mut self, scene: Scene, stop: &Stop) -> Result<Option<Idlers>> {
        match (scene, &mut self.daemon) {
            (Scene::Idle(count), Some(daemon)) if !self.is_alone => {
                let idlers = Idlers::greet(daemon.address, count)?;
                daemon.wait_until_quiet(stop)?;
                Ok(Some(idlers))
            }
            _ => Ok(None),
        }
    }

    /// `target` and `path` are the same place, below the module and in full.
    fn dest<'a>(&'a self, target: &'a str, path: &'a Path) -> Dest<'a> {
        match (&self.daemon, &self.distance) {
            (_, Some(distance)) => Dest::Server(distance.address, target),
            (Some(daemon), None) => match &daemon.ssh {
                Some(ssh) => Dest::Shell(ssh, path),
                None => Dest::Server(daemon.address, target),
            },
            (None, None) => Dest::Local(path),
        }
    }
}

impl<'a> Race<'a> {
    pub fn new(options: &Streaming, ground: &'a Ground, stop: &'a Stop) -> Self {
        Self {
            ground,
            stop,
            subject: options.subject,
            rounds: options.rounds(),
            source: None,
        }
    }

    pub fn run(&mut self, row: &Row) -> Result<Outcome> {
        if let Some(lack) = row.way.lacks() {
            return Ok(Outcome::Skipped(lack));
        }
        if matches!(row.scene, Scene::Idle(_)) && self.subject != Tool::Sy {
            let lack = format!("its idle sessions are sy's, not {}'s", self.subject.name());
            return Ok(Outcome::Skipped(lack));
        }
        let target = self.ground.target();
        for rest in [&target, &self.ground.huge(), &self.ground.changed()] {
            self.ground.clear(rest)?;
        }
        fs::create_dir(&target).doing(|| target.display().to_string())?;
        let source = match self.source(row)? {
            Ok(source) => source,
            Err(lack) => return Ok(Outcome::Skipped(lack)),
        };
        let mut contenders = self.contenders(row)?;
        let runs = match row.scene {
            Scene::FirstPush | Scene::FirstFile | Scene::Idle(_) => {
                self.first_pushes(row, &mut contenders, source)?
            }
            Scene::NothingChanged => self.nothing_changed(row, &mut contenders, source)?,
            Scene::Changed(edits) => self.new_versions(row, &mut contenders, edits)?,
            Scene::Crowd(clients) => self.crowds(row, &mut contenders, source, clients)?,
            Scene::Beside { huge, edits, alone } => {
                let from = self.huge(huge, edits)?;
                self.lines(row, &mut contenders, source, &from, alone)?
            }
        };
        let goals = match self.ground.is_tmpfs() {
            true => row.goals.clone(),
            false => row.disk_goals.clone(),
        };
        Ok(Outcome::Ran(Ran {
            tools: contenders.iter().map(|contender| contender.tool).collect(),
            names: contenders
                .into_iter()
                .map(|contender| contender.name)
                .collect(),
            source,
            runs,
            goals,
        }))
    }

    /// The row's tree, made unless the row before had it, or what is lacking for it and its copies.
    fn source(&mut self, row: &Row) -> Result<std::result::Result<Count, String>> {
        let shape = &row.shape;
        let copies = match self.source {
            Some((there, _)) if there == *shape => row.scene.copies(),
            _ => {
                self.source = None;
                self.ground.clear(&self.ground.source())?;
                1 + row.scene.copies()
            }
        };
        let (mut inodes, mut bytes) = (copies * shape.inodes(), copies * shape.bytes_max());
        if let Some((huge, versions)) = row.scene.beside() {
            inodes += versions * huge.inodes();
            bytes += versions * huge.bytes_max();
        }
        if let Some(lack) = self.ground.lacks(inodes, bytes)? {
            return Ok(Err(lack));
        }
        if let Some((_, count)) = self.source {
            return Ok(Ok(count));
        }
        table::say(&format!("making the tree {}", shape.name));
        let count = shape.make(&self.ground.source(), self.stop)?;
        self.source = Some((*shape, count));
        Ok(Ok(count))
    }

    fn contenders(&self, row: &Row) -> Result<Vec<Contender>> {
        let tools: Vec<Tool> = [self.subject]
            .into_iter()
            .chain(row.peers.iter().copied())
            .collect();
        let turns = match row.scene.has_company() {
            true => vec![false, true],
            false => vec![false],
        };
        let turns = turns.into_iter().flat_map(|is_alone| {
            let tools = tools.iter().enumerate();
            tools.map(move |(index, tool)| (index, *tool, is_alone))
        });
        let mut contenders = Vec::new();
        for (index, tool, is_alone) in turns {
            // A tool that races itself is told apart by its place.
            let mut name = match tools.iter().filter(|other| **other == tool).count() {
                1 => tool.name().to_owned(),
                _ => format!("{}-{}", tool.name(), index + 1),
            };
            if is_alone {
                name.push_str("-alone");
            }
            let daemon = match row.way {
                Way::Tcp | Way::Far(_) => Some(Daemon::of(tool, &name, self.ground, self.stop)?),
                Way::Ssh => Some(Daemon::sshd(&name, self.ground, self.stop)?),
                Way::Local => None,
            };
            let distance = match (row.way.round_trip(), &daemon) {
                (Some(round_trip), Some(daemon)) => Some(Distance::to(daemon.address, round_trip)?),
                _ => None,
            };
            contenders.push(Contender {
                tool,
                name,
                is_alone,
                distance,
                daemon,
            });
        }
        Ok(contenders)
    }

    fn first_pushes(
        &self,
        row: &Row,
        contenders: &mut [Contender],
        source: Count,
    ) -> Result<Vec<Run>> {
        let mut runs = Vec::new();
        for round in self.rounds_with_warm_up() {
            for (index, contender) in contenders.iter_mut().enumerate() {
                let target = self.ground.target().join(&contender.name);
                let (talk, scene) = match round {
                    None => (Talk::Summary, Scene::FirstPush),
                    Some(_) => (Talk::Nothing, row.scene),
                };
                let name = contender.name.clone();
                let idlers = contender.idlers(row.scene, self.stop)?;
                let (run, _) = self.run_once(contender, index, round, &name, talk, scene)?;
                runs.push(run);
                if let (Some(mut idlers), Some(daemon)) = (idlers, &mut contender.daemon) {
                    idlers.check()?;
                    drop(idlers);
                    daemon.wait_until_quiet(self.stop)?;
                }
                if round.is_none() {
                    self.check(row, contender, &name, source)?;
                }
                self.ground.clear(&target)?;
            }
        }
        Ok(runs)
    }

    /// All contenders find the same target with everything in it: whoever is slower isn't so because
    /// of how its files came to lie.
    fn nothing_changed(
        &self,
        row: &Row,
        contenders: &mut [Contender],
        source: Count,
    ) -> Result<Vec<Run>> {
        const TARGET: &str = "same";
        let mut runs = Vec::new();
        let (run, _) = self.run_once(
            &mut contenders[0],
            0,
            None,
            TARGET,
            Talk::Summary,
            Scene::FirstPush,
        )?;
        runs.push(run);
        self.check(row, &contenders[0], TARGET, source)?;
        for round in self.rounds_with_warm_up() {
            let talk = if round.is_none() {
                Talk::Summary
            } else {
                Talk::Nothing
            };
            for (index, contender) in contenders.iter_mut().enumerate() {
                let (run, summary) =
                    self.run_once(contender, index, round, TARGET, talk, row.scene)?;
                runs.push(run);
                if talk == Talk::Summary && summary.files_sent != Some(0) {
                    return Err(Failure::Tool(format!(
                        "{} sent {:?} files where nothing had changed",
                        contender.name, summary.files_sent
                    )));
                }
            }
        }
        Ok(runs)
    }

    /// Each contender finds the old version, made anew for each run.
    fn new_versions(
        &self,
        row: &Row,
        contenders: &mut [Contender],
        edits: Edits,
    ) -> Result<Vec<Run>> {
        table::say("making the new version of it");
        let changed = self.ground.changed();
        edits.make(&self.ground.source(), &changed, self.stop)?;
        let count = tree::count(&changed)?;
        let mut runs = Vec::new();
        for round in self.rounds_with_warm_up() {
            for (index, contender) in contenders.iter_mut().enumerate() {
                let name = contender.name.clone();
                let target = self.ground.target().join(&name);
                row.shape.make(&target, self.stop)?;
                let (run, _) =
                    self.run_once(contender, index, round, &name, Talk::Summary, row.scene)?;
                runs.push(run);
                if round.is_none() {
                    check_tree(&name, &changed, &target, &row.shape, count)?;
                }
                self.ground.clear(&target)?;
            }
        }
        Ok(runs)
    }

    fn crowds(
        &self,
        row: &Row,
        contenders: &mut [Contender],
        source: Count,
        clients: u32,
    ) -> Result<Vec<Run>> {
        let mut runs = Vec::new();
        for round in self.rounds_with_warm_up() {
            for (index, contender) in contenders.iter_mut().enumerate() {
                let parent = self.ground.target().join(&contender.name);
                fs::create_dir(&parent).doing(|| parent.display().to_string())?;
                let targets: Vec<String> = (0..clients)
                    .map(|client| format!("{}/{client:03}", contender.name))
                    .collect();
                runs.push(self.run_crowd(contender, index, round, &targets, row.scene)?);
                if round.is_none() {
                    for target in &targets {
                        self.check(row, contender, target, source)?;
                    }
                }
                self.ground.clear(&parent)?;
            }
        }
        Ok(runs)
    }

    fn run_crowd(
        &self,
        contender: &mut Contender,
        index: usize,
        round: Option<u32>,
        targets: &[String],
        scene: Scene,
    ) -> Result<Run> {
        let mut commands = Vec::new();
        for (client, target) in targets.iter().enumerate() {
            let path = self.ground.target().join(target);
            let dest = contender.dest(target, &path);
            let mut command =
                tool::client(contender.tool, &self.ground.source(), &dest, Talk::Nothing)?;
            let name = format!("{}-{client:03}", contender.name);
            tool::say_into(&mut command, self.ground, &name, "client")?;
            commands.push(command);
        }
        self.ground.settle(self.stop)?;
        if let Some(daemon) = &mut contender.daemon {
            daemon.before_run()?;
        }
        let machine = procfs::machine_cpu()?;
        let ended = child::run_all(&mut commands, RUN_MAX, self.stop)?;
        let machine = procfs::machine_cpu()?.saturating_sub(machine);
        if let Some((client, status)) = ended.failed {
            let name = format!("{}-{client:03}", contender.name);
            return Err(self.ended_badly(contender, &name, status));
        }
        let run = Run {
            round,
            contender: index,
            scene: scene.name(),
            elapsed: ended.elapsed,
            slowest: Some(ended.slowest),
            line: None,
            huge: None,
            round_trip: contender.round_trip(),
            client: ended.usage,
            server: None,
            others_cpu: machine.saturating_sub(ended.usage.cpu),
            wire_bytes: None,
            summary: None,
        };
        self.with_server(contender, run)
    }

    /// What is pushed beside a line of handfuls, made.
    fn huge(&self, shape: Shape, edits: Option<Edits>) -> Result<Huge> {
        table::say(&format!("making the tree {}", shape.name));
        let mut from = self.ground.huge();
        shape.make(&from, self.stop)?;
        if let Some(edits) = edits {
            table::say("making the new version of it");
            let old = std::mem::replace(&mut from, self.ground.changed());
            edits.make(&old, &from, self.stop)?;
            self.ground.clear(&old)?;
        }
        let count = tree::count(&from)?;
        Ok(Huge {
            from,
            shape,
            is_new_version: edits.is_some(),
            count,
        })
    }

    /// Each contender's line of handfuls with the huge push beside it, or without.
    fn lines(
        &self,
        row: &Row,
        contenders: &mut [Contender],
        source: Count,
        huge: &Huge,
        alone: u32,
    ) -> Result<Vec<Run>> {
        let mut runs = Vec::new();
        for round in self.rounds_with_warm_up() {
            for (index, contender) in contenders.iter_mut().enumerate() {
                let parent = self.ground.target().join(&contender.name);
                fs::create_dir(&parent).doing(|| parent.display().to_string())?;
                let target = self.ground.target().join(huge_target(contender));
                if huge.is_new_version && !contender.is_alone {
                    huge.shape.make(&target, self.stop)?;
                }
                runs.push(self.run_line(contender, index, round, row.scene, huge, alone)?);
                if round.is_none() {
                    self.check(row, contender, &line_target(contender, 0), source)?;
                    if !contender.is_alone {
                        let Huge { from, shape, .. } = huge;
                        check_tree(&contender.name, from, &target, shape, huge.count)?;
                    }
                }
                self.ground.clear(&parent)?;
            }
        }
        Ok(runs)
    }

    fn run_line(
        &self,
        contender: &mut Contender,
        index: usize,
        round: Option<u32>,
        scene: Scene,
        beside: &Huge,
        alone: u32,
    ) -> Result<Run> {
        if !contender.is_alone {
            self.ground.warm(beside.shape.bytes_max(), self.stop)?;
        }
        self.ground.settle(self.stop)?;
        if let Some(daemon) = &mut contender.daemon {
            daemon.before_run()?;
        }
        let command = |source: &Path, target: &str, name: &str| {
            let path = self.ground.target().join(target);
            let dest = contender.dest(target, &path);
            let mut command = tool::client(contender.tool, source, &dest, Talk::Nothing)?;
            tool::say_into(&mut command, self.ground, name, "client")?;
            Ok(command)
        };
        let huge_name = format!("{}-huge", contender.name);
        let mut huge = match contender.is_alone {
            true => None,
            false => Some(command(&beside.from, &huge_target(contender), &huge_name)?),
        };
        let len = match contender.is_alone {
            true => alone,
            false => row::LINE_MAX,
        };
        let source = self.ground.source();
        let next = |number: u32| command(&source, &line_target(contender, number), &contender.name);

        let machine = procfs::machine_cpu()?;
        let ended = child::run_line(next, len, huge.as_mut(), RUN_MAX, self.stop)?;
        let machine = procfs::machine_cpu()?.saturating_sub(machine);
        match ended.failed {
            Some((InLine::Huge, status)) => {
                return Err(self.ended_badly(contender, &huge_name, status));
            }
            Some((InLine::OneOfMany, status)) => {
                return Err(self.ended_badly(contender, &contender.name, status));
            }
            None => {}
        }
        let run = Run {
            round,
            contender: index,
            scene: scene.name(),
            elapsed: ended.elapsed,
            slowest: Some(ended.latencies.longest()),
            line: Some(ended.latencies),
            huge: ended.huge,
            round_trip: contender.round_trip(),
            client: ended.usage,
            server: None,
            others_cpu: machine.saturating_sub(ended.usage.cpu),
            wire_bytes: None,
            summary: None,
        };
        self.with_server(contender, run)
    }

    /// Adds what the server used to a run of many clients, which is then told.
    fn with_server(&self, contender: &mut Contender, mut run: Run) -> Result<Run> {
        if let Some(daemon) = &mut contender.daemon {
            let server = daemon.after_run(self.stop)?;
            run.others_cpu = run.others_cpu.saturating_sub(server.cpu);
            run.server = Some(server);
        }
        self.tell(contender, &run);
        Ok(run)
    }

    fn ended_badly(&self, contender: &Contender, name: &str, status: ExitStatus) -> Failure {
        Failure::Tool(format!(
            "{name} ended with {status}{}{}",
            tool::said(self.ground, name, "client"),
            tool::said(self.ground, &contender.name, "server"),
        ))
    }

    fn tell(&self, contender: &Contender, run: &Run) {
        let place = run.round.map_or("warm-up".into(), |round| {
            format!("round {round} of {}", self.rounds)
        });
        let time = table::value(Measure::Elapsed, run.elapsed.as_secs_f64());
        table::say(&format!(
            "{place}: {} {}: {time}",
            contender.name, run.scene
        ));
    }

    fn run_max(&self) -> Duration {
        let files = self.source.map_or(0, |(_, count)| count.files);
        RUN_MAX + RUN_MAX_PER_FILE * u32::try_from(files).unwrap_or(u32::MAX)
    }

    fn rounds_with_warm_up(&self) -> impl Iterator<Item = Option<u32>> {
        [None].into_iter().chain((1..=self.rounds).map(Some))
    }

    fn run_once(
        &self,
        contender: &mut Contender,
        index: usize,
        round: Option<u32>,
        target: &str,
        talk: Talk,
        scene: Scene,
    ) -> Result<(Run, Summary)> {
        let path = self.ground.target().join(target);
        let dest = contender.dest(target, &path);
        let source = match scene {
            Scene::Changed(_) => self.ground.changed(),
            Scene::FirstPush
            | Scene::NothingChanged
            | Scene::FirstFile
            | Scene::Crowd(_)
            | Scene::Beside { .. }
            | Scene::Idle(_) => self.ground.source(),
        };
        let mut command = tool::client(contender.tool, &source, &dest, talk)?;
        tool::say_into(&mut command, self.ground, &contender.name, "client")?;
        let first = (scene == Scene::FirstFile).then(|| FirstFile::under(&path));
        if matches!(scene, Scene::FirstPush | Scene::Changed(_)) {
            let bytes = self.source.map_or(0, |(_, count)| count.bytes);
            self.ground.warm(bytes, self.stop)?;
        }

        self.ground.settle(self.stop)?;
        if let Some(daemon) = &mut contender.daemon {
            daemon.before_run()?;
        }
        let machine = procfs::machine_cpu()?;
        let ended = child::run(
            &mut command,
            contender.daemon.as_mut(),
            first,
            self.run_max(),
            self.stop,
        )?;
        let machine = procfs::machine_cpu()?.saturating_sub(machine);
        if let Some(status) = ended.status.filter(|status| !status.success()) {
            return Err(self.ended_badly(contender, &contender.name, status));
        }
        let server = match &mut contender.daemon {
            Some(daemon) => Some(daemon.after_run(self.stop)?),
            None => None,
        };
        let summary = match talk {
            Talk::Summary => tool::summary(contender.tool, self.ground, &contender.name)?,
            Talk::Nothing => Summary::default(),
        };
        let run = Run {
            round,
            contender: index,
            scene: scene.name(),
            elapsed: ended.elapsed,
            slowest: None,
            line: None,
            huge: None,
            round_trip: contender.round_trip(),
            client: ended.usage,
            server,
            others_cpu: machine
                .saturating_sub(ended.usage.cpu)
                .saturating_sub(server.unwrap_or_default().cpu),
            wire_bytes: summary.wire_bytes,
            summary: summary.line.clone(),
        };
        self.tell(contender, &run);
        Ok((run, summary))
    }

    fn check(&self, row: &Row, contender: &Contender, target: &str, source: Count) -> Result<()> {
        let target = self.ground.target().join(target);
        let from = self.ground.source();
        check_tree(&contender.name, &from, &target, &row.shape, source)
    }
}

/// Everything is there, and of some files every byte.
fn check_tree(name: &str, source: &Path, target: &Path, shape: &Shape, count: Count) -> Result<()> {
    let there = tree::count(target)?;
    if there != count {
        return Err(Failure::Tool(format!("{name} made {there:?} of {count:?}")));
    }
    tree::compare_some(source, target, shape)
}

/// Where one of a contender's line goes, below the module.
fn line_target(contender: &Contender, number: u32) -> String {
    format!("{}/{number:04}", contender.name)
}

/// Where what is beside the line goes.
fn huge_target(contender: &Contender) -> String {
    format!("{}/huge", contender.name)
}
