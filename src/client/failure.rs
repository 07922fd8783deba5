//! `Failure`, why a push ended before its end, in facts. `messages` has the words.

use rustix::io::Errno;

use super::rsh::ShellEnd;
use crate::model::report::{Exit, Side};
use crate::wire::hello::Refusal;

/// Why a push did not begin, or ended before its end. `failure` words it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The host's name has no address; the resolver's own words.
    NameLookup {
        why: String,
    },
    /// The connection was not made.
    Connect {
        errno: Errno,
    },
    /// The server did not accept in time.
    ConnectTimeout {
        seconds: u64,
    },
    /// The server said no; its own words, unescaped.
    Refused {
        refusal: Refusal,
        text: Vec<u8>,
    },
    /// A server behind a remote shell that has no place outside its modules.
    ModulesOnly,
    /// Something else answers there; the first bytes that it sent.
    NotSy {
        first: Vec<u8>,
    },
    /// Protocol versions.
    Version {
        ours: u16,
        theirs: u16,
    },
    /// The connection ended before the report; `None`: it was closed.
    Lost {
        errno: Option<Errno>,
    },
    /// The peer showed no sign of life.
    Silent {
        seconds: u64,
    },
    Signal {
        name: &'static str,
    },
    /// The peer broke the protocol, or bits flipped on the way.
    Protocol {
        text: String,
    },
    /// The disk of one side can't go on.
    Disk {
        side: Side,
        errno: Errno,
    },
    /// A SRC, as typed, that can't be used.
    Source {
        path: Vec<u8>,
        errno: Errno,
    },
    /// A DEST of this host, as typed, that can't be used.
    Dest {
        path: Vec<u8>,
        errno: Errno,
    },
    /// `--delete` with a SRC, as typed, in which nothing is.
    EmptySource {
        path: Vec<u8>,
    },
    /// A SRC, as typed, that is DEST itself.
    OntoItself {
        path: Vec<u8>,
    },
    /// This process may not have as many open files as it takes.
    FewFiles {
        limit: u64,
    },
    /// No engine runs here.
    Engine {
        errno: Errno,
    },
    /// The remote shell can't be started.
    ShellStart {
        program: Vec<u8>,
        errno: Errno,
    },
    /// The remote shell ended the stream before the server's last word.
    ShellEnded {
        end: ShellEnd,
        was_greeted: bool,
        /// What it was to run.
        sy_path: Vec<u8>,
    },
    /// What a remote shell printed before the server's first word.
    ShellNoise {
        first: Vec<u8>,
    },
}

impl Failure {
    pub fn exit(&self) -> Exit {
        match self {
            Self::NameLookup { .. } | Self::Connect { .. } | Self::Lost { .. } => Exit::Socket,
            Self::ConnectTimeout { .. } => Exit::ConnectTimeout,
            Self::Refused { refusal, .. } => refusal.exit(),
            Self::NotSy { .. } | Self::ShellNoise { .. } | Self::Version { .. } => {
                Exit::Incompatible
            }
            Self::Silent { .. } => Exit::Timeout,
            Self::Signal { .. } => Exit::Signal,
            Self::Protocol { .. } => Exit::Stream,
            Self::Disk { .. } => Exit::FileIo,
            Self::Source { .. }
            | Self::Dest { .. }
            | Self::EmptySource { .. }
            | Self::OntoItself { .. } => Exit::Selection,
            Self::Engine { .. } | Self::FewFiles { .. } | Self::ModulesOnly => Exit::Start,
            Self::ShellStart { .. } => Exit::Ipc,
            Self::ShellEnded {
                end: ShellEnd::Code(code),
                was_greeted: false,
                ..
            } => match code {
                126 => Exit::RemoteRun,
                127 => Exit::RemoteMissing,
                255 => Exit::Socket,
                _ => Exit::Stream,
            },
            Self::ShellEnded { .. } => Exit::Socket,
        }
    }
}
