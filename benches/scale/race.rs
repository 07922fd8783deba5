//! One row from its empty target to its runs: a checked warm-up of every contender, then round by
//! round the subject and its peers in turns.

use std::fs;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use super::child;
use super::daemon::Daemon;
use super::distance::Distance;
use super::failure::{Doing, Failure, Result};
use super::figures::{Measure, Run};
use super::first_file::FirstFile;
use super::ground::Ground;
use super::options::Streaming;
use super::procfs;
use super::row::{Goal, Row, Scene, Way};
use super::stop::Stop;
use super::table;
use super::tool::{self, Dest, Summary, Talk, Tool};
use super::tree::{self, Count, Shape};

/// Far beyond every tree here: what takes this long is stuck.
const RUN_MAX: Duration = Duration::from_secs(300);

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

/// One who takes part in a row.
struct Contender {
    tool: Tool,
    name: String,
    /// Before the daemon, where there is one.
    distance: Option<Distance>,
    daemon: Option<Daemon>,
}

impl Contender {
    fn round_trip(&self) -> Option<Duration> {
        self.distance.as_ref().map(|distance| distance.round_trip)
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
        let target = self.ground.target();
        self.ground.clear(&target)?;
        fs::create_dir(&target).doing(|| target.display().to_string())?;
        let source = match self.source(&row.shape, row.scene.copies())? {
            Ok(source) => source,
            Err(lack) => return Ok(Outcome::Skipped(lack)),
        };
        let mut contenders = self.contenders(row)?;
        let runs = match row.scene {
            Scene::FirstPush | Scene::FirstFile => {
                self.first_pushes(row, &mut contenders, source)?
            }
            Scene::NothingChanged => self.nothing_changed(row, &mut contenders, source)?,
            Scene::Crowd(clients) => self.crowds(row, &mut contenders, source, clients)?,
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
    fn source(&mut self, shape: &Shape, copies: u64) -> Result<std::result::Result<Count, String>> {
        let copies = match self.source {
            Some((there, _)) if there == *shape => copies,
            _ => {
                self.source = None;
                self.ground.clear(&self.ground.source())?;
                1 + copies
            }
        };
        if let Some(lack) = self
            .ground
            .lacks(copies * shape.inodes(), copies * shape.bytes_max())?
        {
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
        let mut contenders = Vec::new();
        for (index, &tool) in tools.iter().enumerate() {
            // A tool that races itself is told apart by its place.
            let name = match tools.iter().filter(|other| **other == tool).count() {
                1 => tool.name().to_owned(),
                _ => format!("{}-{}", tool.name(), index + 1),
            };
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
                let (run, _) = self.run_once(contender, index, round, &name, talk, scene)?;
                runs.push(run);
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
        let server = match &mut contender.daemon {
            Some(daemon) => Some(daemon.after_run(self.stop)?),
            None => None,
        };
        let run = Run {
            round,
            contender: index,
            scene: scene.name(),
            elapsed: ended.elapsed,
            slowest: Some(ended.slowest),
            round_trip: contender.round_trip(),
            client: ended.usage,
            server,
            others_cpu: machine
                .saturating_sub(ended.usage.cpu)
                .saturating_sub(server.unwrap_or_default().cpu),
            summary: None,
        };
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
        let mut command = tool::client(contender.tool, &self.ground.source(), &dest, talk)?;
        tool::say_into(&mut command, self.ground, &contender.name, "client")?;
        let first = (scene == Scene::FirstFile).then(|| FirstFile::under(&path));

        self.ground.settle(self.stop)?;
        if let Some(daemon) = &mut contender.daemon {
            daemon.before_run()?;
        }
        let machine = procfs::machine_cpu()?;
        let ended = child::run(
            &mut command,
            contender.daemon.as_mut(),
            first,
            RUN_MAX,
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
            round_trip: contender.round_trip(),
            client: ended.usage,
            server,
            others_cpu: machine
                .saturating_sub(ended.usage.cpu)
                .saturating_sub(server.unwrap_or_default().cpu),
            summary: summary.line.clone(),
        };
        self.tell(contender, &run);
        Ok((run, summary))
    }

    /// Everything is there, and of some files every byte.
    fn check(&self, row: &Row, contender: &Contender, target: &str, source: Count) -> Result<()> {
        let target = self.ground.target().join(target);
        let there = tree::count(&target)?;
        if there != source {
            return Err(Failure::Tool(format!(
                "{} made {there:?} of {source:?}",
                contender.name
            )));
        }
        tree::compare_some(&self.ground.source(), &target, &row.shape)
    }
}
