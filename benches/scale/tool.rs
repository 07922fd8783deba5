//! The programs that are raced, and their command lines.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{getegid, geteuid};
use serde_json::Value;

use super::child;
use super::failure::{Doing, Failure, Result};
use super::ground::Ground;
use super::ssh::Ssh;
use super::stop::Stop;

/// The name under which servers export the ground's target.
pub const MODULE: &str = "m";

const VERSION_MAX: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Tool {
    Sy,
    /// The same without the ring.
    Portable,
    Rsync,
    #[value(skip)]
    Cp,
    /// Written by hand, see `floor`.
    #[value(skip)]
    Floor,
    /// On tokio-uring, see `naive`.
    #[value(skip)]
    Naive,
}

/// What a client is asked to say beside doing its work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Talk {
    /// As most people call it; every measured run.
    Nothing,
    /// A summary at the end, for the runs that are not measured.
    Summary,
}

/// Where a client pushes to.
pub enum Dest<'a> {
    Server(SocketAddr, &'a str),
    Shell(&'a Ssh, &'a Path),
    Local(&'a Path),
}

impl Tool {
    pub fn name(self) -> &'static str {
        match self {
            Self::Sy => "sy",
            Self::Portable => "sy-portable",
            Self::Rsync => "rsync",
            Self::Cp => "cp",
            Self::Floor => "floor",
            Self::Naive => "tokio-uring",
        }
    }
}

/// Each insists on its own, so that no run is taken for another's.
fn engine(tool: Tool) -> &'static str {
    if tool == Tool::Portable {
        "--engine=portable"
    } else {
        "--engine=uring"
    }
}

/// The command line of a client that pushes the contents of `source`.
pub fn client(tool: Tool, source: &Path, dest: &Dest<'_>, talk: Talk) -> Result<Command> {
    let mut command;
    match tool {
        Tool::Sy | Tool::Portable => {
            command = Command::new(env!("CARGO_BIN_EXE_sy"));
            command.args(["push", engine(tool)]);
            if talk == Talk::Summary {
                command.arg("--json");
            }
        }
        Tool::Rsync => {
            command = Command::new("rsync");
            command.arg("-a");
            if talk == Talk::Summary {
                command.arg("--stats");
            }
        }
        Tool::Cp => {
            command = Command::new("cp");
            command.arg("-a");
        }
        Tool::Floor => {
            command = myself("floor-push")?;
            if let Dest::Server(address, _) = dest {
                command.arg(address.to_string());
            }
        }
        Tool::Naive => command = myself("naive-copy")?,
    }
    if let Dest::Shell(ssh, _) = dest {
        command.args(["-e", &ssh.rsh]);
        match tool {
            Tool::Sy | Tool::Portable => {
                let server = format!("{} {}", env!("CARGO_BIN_EXE_sy-server"), engine(tool));
                command.args(["--sy-path", &server])
            }
            Tool::Rsync => command.arg("--rsync-path").arg(&ssh.rsync),
            Tool::Cp | Tool::Floor | Tool::Naive => {
                return Err(Failure::Unfit(format!("{} knows no ssh", tool.name())));
            }
        };
    }
    // To cp a trailing slash means nothing: it makes the target, which does not exist, a copy.
    command.arg(match tool {
        Tool::Cp | Tool::Floor | Tool::Naive => source.into(),
        Tool::Sy | Tool::Portable | Tool::Rsync => with_slash(source),
    });
    command.arg(match (tool, dest) {
        (Tool::Floor, Dest::Server(_, path)) => path.into(),
        (Tool::Sy | Tool::Portable, Dest::Server(address, path)) => {
            format!("sy://{address}/{MODULE}/{path}").into()
        }
        (_, Dest::Server(address, path)) => format!("rsync://{address}/{MODULE}/{path}/").into(),
        (_, Dest::Shell(_, path)) => {
            let mut dest = OsString::from("127.0.0.1:");
            dest.push(with_slash(path));
            dest
        }
        (Tool::Cp | Tool::Naive, Dest::Local(path)) => path.into(),
        (_, Dest::Local(path)) => with_slash(path),
    });
    Ok(command)
}

/// The command line of a server whose `MODULE` is the ground's target.
pub fn server(tool: Tool, address: SocketAddr, name: &str, ground: &Ground) -> Result<Command> {
    let mut command;
    match tool {
        Tool::Sy | Tool::Portable => {
            command = Command::new(env!("CARGO_BIN_EXE_sy-server"));
            command.arg(engine(tool));
            let mut module = OsString::from(format!("{MODULE}="));
            module.push(ground.target());
            module.push(",rw");
            command
                .args(["--listen", &address.to_string(), "--no-auth", "--module"])
                .arg(module);
        }
        Tool::Rsync => {
            let config = ground.said().join(format!("{name}.conf"));
            fs::write(&config, rsync_config(ground)).doing(|| config.display().to_string())?;
            command = Command::new("rsync");
            command
                .args([
                    "--daemon",
                    "--no-detach",
                    "--address",
                    &address.ip().to_string(),
                ])
                .args(["--port", &address.port().to_string(), "--config"])
                .arg(config);
        }
        Tool::Floor => {
            command = myself("floor-serve")?;
            command.arg(address.to_string()).arg(ground.target());
        }
        Tool::Cp | Tool::Naive => {
            return Err(Failure::Unfit(format!("{} has no server", tool.name())));
        }
    }
    Ok(command)
}

/// Root's daemon would else become nobody; a name look-up would only be added to rsync's time,
/// and of a crowd all but five would wait a second for their second SYN.
fn rsync_config(ground: &Ground) -> String {
    let user = match geteuid().is_root() {
        true => format!("uid = {}\ngid = {}\n", geteuid(), getegid()),
        false => String::new(),
    };
    format!(
        "{user}use chroot = no\nnumeric ids = yes\nreverse lookup = no\nlisten backlog = 128\n\
         log file = {log}\n\
         [{MODULE}]\npath = {path}\nread only = no\n",
        log = ground.said().join("rsyncd.log").display(),
        path = ground.target().display(),
    )
}

/// Sends a process's words to files: nobody reads pipes while it is timed.
pub fn say_into(command: &mut Command, ground: &Ground, name: &str, end: &str) -> Result<()> {
    let file = |stream: &str| {
        let path = ground.said().join(format!("{name}.{end}.{stream}"));
        File::create(&path).doing(|| path.display().to_string())
    };
    command
        .stdin(Stdio::null())
        .stdout(file("out")?)
        .stderr(file("err")?);
    Ok(())
}

/// The last words of a process on stderr, to put behind a complaint.
pub fn said(ground: &Ground, name: &str, end: &str) -> String {
    let path = ground.said().join(format!("{name}.{end}.err"));
    let words = fs::read(path).unwrap_or_default();
    let words = String::from_utf8_lossy(&words);
    match words.lines().last() {
        Some(line) => format!(": {line}"),
        None => String::new(),
    }
}

/// What a client that was asked to talk said at its end.
#[derive(Default)]
pub struct Summary {
    pub files_sent: Option<u64>,
    /// In both directions.
    pub wire_bytes: Option<u64>,
    /// sy's own summary line.
    pub line: Option<Value>,
}

pub fn summary(tool: Tool, ground: &Ground, name: &str) -> Result<Summary> {
    let path = ground.said().join(format!("{name}.client.out"));
    let words = fs::read_to_string(&path).doing(|| path.display().to_string())?;
    match tool {
        Tool::Sy | Tool::Portable => {
            let line: Option<Value> = words
                .lines()
                .last()
                .and_then(|line| serde_json::from_str(line).ok());
            let line = line.filter(|line| line["event"] == "summary" && line["schema"] == 1);
            let Some(line) = line else {
                return Err(Failure::Tool(
                    "sy push --json ended without a summary line".into(),
                ));
            };
            let wire = |way: &str| line[format!("wire_{way}_bytes")].as_u64();
            Ok(Summary {
                files_sent: line["files_sent"].as_u64(),
                wire_bytes: wire("sent")
                    .zip(wire("received"))
                    .map(|(sent, received)| sent + received),
                line: Some(line),
            })
        }
        Tool::Rsync => {
            let count = |label: &str| {
                let count = words.lines().find_map(|line| line.strip_prefix(label))?;
                count.replace(',', "").parse::<u64>().ok()
            };
            let (sent, received) = ("Total bytes sent: ", "Total bytes received: ");
            Ok(Summary {
                files_sent: count("Number of regular files transferred: "),
                wire_bytes: count(sent)
                    .zip(count(received))
                    .map(|(sent, received)| sent + received),
                line: None,
            })
        }
        Tool::Cp | Tool::Floor | Tool::Naive => Ok(Summary::default()),
    }
}

/// The first line each program says of its version.
pub fn versions(ground: &Ground, stop: &Stop) -> Result<Vec<(Tool, String)>> {
    let mut versions = Vec::new();
    for tool in [Tool::Sy, Tool::Rsync, Tool::Cp] {
        let mut command = Command::new(match tool {
            Tool::Sy => env!("CARGO_BIN_EXE_sy"),
            Tool::Portable | Tool::Rsync | Tool::Cp | Tool::Floor | Tool::Naive => tool.name(),
        });
        say_into(command.arg("--version"), ground, tool.name(), "version")?;
        child::run(&mut command, None, None, VERSION_MAX, stop)?;
        let words = fs::read_to_string(ground.said().join(format!("{}.version.out", tool.name())));
        let words = words.unwrap_or_default();
        versions.push((
            tool,
            words.lines().next().unwrap_or("unknown").trim().into(),
        ));
    }
    versions.push((Tool::Portable, "sy with --engine=portable".into()));
    versions.push((
        Tool::Floor,
        "read and send, receive and write, in this bench".into(),
    ));
    versions.push((
        Tool::Naive,
        "tokio-uring 0.5, a task per file, in this bench".into(),
    ));
    Ok(versions)
}

/// This binary in another of its modes.
fn myself(mode: &str) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().doing(|| "finding this binary".into())?);
    command.arg(mode);
    Ok(command)
}

fn with_slash(path: &Path) -> OsString {
    let mut path = OsString::from(path);
    path.push("/");
    path
}
