//! All raw runs as one JSON file, to be kept or looked into.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value, json};

use super::failure::{Doing, Result};
use super::figures::{self, Run};
use super::ground::Ground;
use super::latencies::Latencies;
use super::options::Streaming;
use super::procfs::{self, Usage};
use super::race::{Outcome, Ran};
use super::row::{Goal, Row, Scale};
use super::tool::Tool;

pub struct Record {
    head: Value,
    rows: Vec<Value>,
}

impl Record {
    pub fn new(
        options: &Streaming,
        ground: &Ground,
        tools: Vec<(Tool, String)>,
        now: SystemTime,
    ) -> Self {
        let started = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let versions: serde_json::Map<String, Value> = tools
            .into_iter()
            .map(|(tool, version)| (tool.name().into(), version.into()))
            .collect();
        let head = json!({
            "schema": 1,
            "bench": "scale_bench",
            "mode": "streaming",
            "started_unix_s": started.as_secs(),
            "quick": options.quick,
            "rounds": options.rounds(),
            "subject": options.subject.name(),
            // Nothing here asks for more than rsync gives.
            "durability": "none",
            "machine": {
                "kernel": procfs::kernel(),
                "cpu": procfs::cpu_model(),
                "cores": std::thread::available_parallelism().map_or(0, usize::from),
                "memory_bytes": procfs::memory_bytes().unwrap_or(0),
                "trees_on": ground.file_system,
            },
            "tools": versions,
        });
        Self {
            head,
            rows: Vec::new(),
        }
    }

    pub fn machine_line(&self) -> String {
        let machine = &self.head["machine"];
        format!(
            "{} cores of {}, {} MiB, Linux {}; trees on {}; durability {}; {} rounds",
            machine["cores"],
            text(&machine["cpu"]),
            machine["memory_bytes"].as_u64().unwrap_or(0) >> 20,
            text(&machine["kernel"]),
            text(&machine["trees_on"]),
            text(&self.head["durability"]),
            self.head["rounds"],
        )
    }

    pub fn tool_lines(&self) -> Vec<String> {
        let tools = self.head["tools"].as_object().into_iter().flatten();
        tools
            .map(|(name, version)| format!("{name}: {}", text(version)))
            .collect()
    }

    pub fn add(&mut self, row: &Row, outcome: &Outcome) {
        let mut value = json!({
            "name": row.name,
            "what": row.what,
            "scene": row.scene.name(),
            "way": row.way.name(),
        });
        match outcome {
            Outcome::Ran(ran) => {
                value["source"] = json!({
                    "files": ran.source.files,
                    "dirs": ran.source.dirs,
                    "bytes": ran.source.bytes,
                });
                value["contenders"] = json!(ran.names);
                value["runs"] = ran.runs.iter().map(|run| run_value(run, ran)).collect();
                value["targets"] = ran.goals.iter().map(|goal| goal_value(goal, ran)).collect();
            }
            Outcome::Skipped(why) => value["skipped"] = json!(why),
            Outcome::Failed(why) => value["failed"] = json!(why),
        }
        self.rows.push(value);
    }

    pub fn add_value(&mut self, row: Value) {
        self.rows.push(row);
    }

    /// Returns where it went.
    pub fn write(mut self, path: &Path) -> Result<PathBuf> {
        self.head["rows"] = self.rows.into();
        let doing = || path.display().to_string();
        let mut text =
            serde_json::to_string_pretty(&self.head).expect("a value has no keys but strings");
        text.push('\n');
        fs::write(path, text).doing(doing)?;
        Ok(path.into())
    }
}

fn run_value(run: &Run, ran: &Ran) -> Value {
    json!({
        "contender": ran.names[run.contender],
        "round": run.round,
        "scene": run.scene,
        "elapsed_s": run.elapsed.as_secs_f64(),
        "slowest_s": run.slowest.map(|slowest| slowest.as_secs_f64()),
        "line": run.line.as_ref().map(line_value),
        "huge_s": run.huge.map(|huge| huge.as_secs_f64()),
        "round_trip_s": run.round_trip.map(|round_trip| round_trip.as_secs_f64()),
        "client": usage_value(&run.client),
        "server": run.server.as_ref().map(usage_value),
        "others_cpu_s": run.others_cpu.as_secs_f64(),
        "summary": run.summary,
    })
}

fn line_value(line: &Latencies) -> Value {
    json!({
        "pushes": line.count(),
        "p50_s": line.at(0.5).as_secs_f64(),
        "p90_s": line.at(0.9).as_secs_f64(),
        "p99_s": line.at(0.99).as_secs_f64(),
    })
}

fn usage_value(usage: &Usage) -> Value {
    json!({
        "cpu_s": usage.cpu.as_secs_f64(),
        "voluntary_switches": usage.voluntary,
        "involuntary_switches": usage.involuntary,
        "peak_rss_bytes": usage.peak_rss_bytes,
    })
}

fn goal_value(goal: &Goal, ran: &Ran) -> Value {
    json!({
        "measure": goal.measure.name(),
        "relative_to": match goal.scale {
            Scale::Of(tool) => Some(tool.name()),
            Scale::Absolute => None,
        },
        "measured": figures::judged(&ran.runs, goal, &ran.tools),
        "reach": goal.reach,
        "record": goal.record,
    })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("unknown")
}
