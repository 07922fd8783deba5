//! The second implementation of the push protocol: a source on `tokio-uring`, for load and as a
//! proof that the specification is enough. It was written from the page in `src/wire/mod.rs`
//! alone and shares no code with the product.
//!
//! It takes liberties that the page allows and the product does not take: numbers that jump,
//! chunks from the last to the first, small files by BEGIN, ignorable frames with something in
//! them, a feature bit nobody knows.
//!
//! Of a session three tasks run on one thread: the reader ([`session`]) takes every frame as it
//! comes and waits for nothing else, the writer puts frames on the stream, and the planner
//! ([`planner`]) decides what is sent. The planner may wait for the writer, the writer for the
//! target; the reader waits for neither, so a target can always answer.

mod alphabet;
mod answers;
mod frame;
mod greeting;
mod listing;
pub mod load;
mod merge;
mod own;
mod pack;
mod planner;
mod session;
mod stream;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use answers::{Notice, Report};
pub use planner::Guest;

/// Where a server listens.
#[derive(Clone, Debug)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A place in a module.
#[derive(Clone, Debug)]
pub struct Aim {
    pub server: Address,
    pub module: String,
    pub dest: Vec<Vec<u8>>,
}

impl Aim {
    pub fn new(server: Address, module: &str, dest: &str) -> Self {
        let names = dest.split('/').filter(|name| !name.is_empty());
        Self {
            server,
            module: module.to_owned(),
            dest: names.map(Into::into).collect(),
        }
    }
}

/// How a push is meant.
#[derive(Clone, Debug)]
pub struct Wishes {
    pub dry_run: bool,
    pub delete: bool,
    pub delete_max: Option<u64>,
    pub allow_empty_source: bool,
    /// 0 none, 1 session, 2 file.
    pub durability: u8,
    /// Of the target's silence.
    pub patience: Duration,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            dry_run: false,
            delete: false,
            delete_max: None,
            allow_empty_source: false,
            durability: 0,
            patience: Duration::from_secs(60),
        }
    }
}

/// A push that came to its REPORT.
#[derive(Clone, Debug)]
pub struct Pushed {
    pub report: Report,
    /// What the target told, as far as it is kept.
    pub notices: Vec<Notice>,
    pub counts: Counts,
}

/// What the source did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    pub files_sent: u64,
    pub dirs_made: u64,
    pub mended: u64,
    pub deletes_asked: u64,
    pub bytes_sent: u64,
    /// Entries that this target can't have: fifos, sockets and devices.
    pub skipped: u64,
    pub vanished: u64,
    pub failed: u64,
}

impl Pushed {
    /// The exit of section 13.
    pub fn exit(&self) -> u8 {
        if answers::is_early(self.report.exit) {
            self.report.exit
        } else if self.counts.failed > 0 {
            23
        } else if self.counts.vanished > 0 {
            24
        } else {
            self.report.exit
        }
    }

    /// Did it find everything in place?
    pub fn changed_nothing(&self) -> bool {
        let (report, counts) = (&self.report, &self.counts);
        let told = [
            report.files_made,
            report.dirs_made,
            report.metadata_mended,
            report.deleted,
            counts.files_sent,
            counts.dirs_made,
            counts.mended,
            counts.deletes_asked,
        ];
        told.iter().all(|&count| count == 0)
    }
}

/// Why a push did not come to its REPORT.
#[derive(Clone, Debug)]
pub enum Failure {
    Connect(String),
    Refused {
        refusal: u8,
        text: String,
    },
    /// The first bytes are no frame.
    AnotherProtocol,
    AnotherVersion,
    Protocol(String),
    Lost(String),
    Silent,
    Source(String),
}

impl Failure {
    fn protocol(what: &str) -> Self {
        Self::Protocol(what.to_owned())
    }

    /// The exit of sections 4, 12 and 13.
    pub fn exit(&self) -> u8 {
        match self {
            Self::Connect(_) => 35,
            Self::Refused { refusal, .. } => match refusal {
                1 => 2,
                4 | 5 => 3,
                6 => 12,
                7 => 30,
                _ => 5,
            },
            Self::AnotherProtocol | Self::AnotherVersion => 2,
            Self::Protocol(_) => 12,
            Self::Lost(_) => 10,
            Self::Silent => 30,
            Self::Source(_) => 3,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect(why) => write!(out, "no connection: {why}"),
            Self::Refused { refusal, text } => write!(out, "refused ({refusal}): {text}"),
            Self::AnotherProtocol => write!(out, "the server does not speak this protocol"),
            Self::AnotherVersion => write!(out, "the server speaks another version"),
            Self::Protocol(what) => write!(out, "the server broke the protocol: {what}"),
            Self::Lost(why) => write!(out, "the connection was lost: {why}"),
            Self::Silent => write!(out, "the server was silent for too long"),
            Self::Source(why) => write!(out, "the source: {why}"),
        }
    }
}

/// Pushes one file, or the contents of a directory. To be run on a `tokio-uring` runtime.
pub async fn push(source: &Path, aim: &Aim, wishes: &Wishes) -> Result<Pushed, Failure> {
    planner::push(source, aim, wishes).await
}

/// Runs one push on a runtime of its own.
pub fn push_now(source: &Path, aim: &Aim, wishes: &Wishes) -> Result<Pushed, Failure> {
    tokio_uring::start(push(source, aim, wishes))
}
