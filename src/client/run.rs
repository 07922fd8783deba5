//! One push: one ring, one session (two, when DEST is local), one report.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Component, Path};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::dest::Dest;
use super::failure::Failure;
use super::messages;
use super::output::Output;
use super::plan::Plan;
use super::rsh::{RemoteShell, ShellEnd, ShellStream};
use super::sources;
use crate::engine::disk::PosixDisk;
use crate::engine::figures::Figures;
use crate::engine::setup::SetupError;
use crate::engine::start::{self, PosixShard};
use crate::limits::{CONNECT_SECONDS_MAX, OPEN_FILES_MIN};
use crate::model::id::SessionId;
use crate::model::name::{Name, NameError};
use crate::model::report::{Ending, Exit, Listener, Side, Totals};
use crate::ops::{Disk, Errno};
use crate::session::source::Sources;
use crate::session::target::OwnRights;
use crate::session::{Session, SessionError, Source, Target};
use crate::stage::delta::DeltaRules;
use crate::wire::WireError;
use crate::wire::hello::{Hello, Refusal};

/// Runs `plan` and says how it went; the exit code of the program.
pub fn push(plan: &Plan) -> Exit {
    let mut output = Output::new(plan.output);
    let place = plan.dest.place();
    match Push::start(plan, &mut output) {
        Ok(Some(push)) => push.run(plan, &mut output, &place),
        Ok(None) => before_it_began(&mut output, Exit::Partial),
        Err(failure) => {
            let exit = output.failure(&place, &failure);
            before_it_began(&mut output, exit)
        }
    }
}

/// The end of a push that came to nothing.
fn before_it_began(output: &mut Output, exit: Exit) -> Exit {
    let ending = Ending {
        exit,
        why: None,
        totals: Totals {
            errors: output.errors_told(),
            ..Totals::default()
        },
        durability: None,
    };
    let peak_rss_bytes = start::peak_rss_bytes();
    output.finish(
        &ending,
        Duration::ZERO,
        None,
        peak_rss_bytes,
        "none",
        &Figures::default(),
    )
}

struct Push {
    shard: PosixShard,
    shell: Option<RemoteShell>,
    source: crate::engine::shard::PortKey,
    sessions_count: usize,
    signal: Arc<AtomicUsize>,
    started: crate::model::time::Moment,
}

impl Push {
    /// `None` when no source can be used; each was named.
    fn start(plan: &Plan, output: &mut Output) -> Result<Option<Self>, Failure> {
        let disk = PosixDisk;
        let as_found = start::prepare_process();
        if let Some(limit) = start::open_files_max().filter(|limit| *limit < OPEN_FILES_MIN) {
            return Err(Failure::FewFiles { limit });
        }
        let mut sources = sources::open(&disk, &plan.sources);
        if sources.origins.is_empty() {
            for trouble in std::mem::take(&mut sources.troubles) {
                output.tell(crate::model::report::Tell::Trouble(trouble));
            }
            return Ok(None);
        }
        // Nobody is asked for a password by a host that can't push.
        let mut shard =
            start::shard(plan.engine, start::POOL_THREADS_CLIENT).map_err(engine_failure)?;
        if let Some(refused) = shard.ring_mut().refused()
            && !plan.output.quiet
        {
            output.say(messages::portable(refused));
        }
        let started = shard.now();
        let signal = watch_signals();
        // It connects while the rest is made ready.
        let (shell, shell_stream) = as_found.lend(|| start_shell(&plan.dest))?.unzip();
        let (module, dest) = destination(plan)?;
        sources.dest_name = dest.last().map(|name| name.as_slice().into());
        let hello = hello(plan, &disk, module, dest, &sources);
        let wants_items = output.wants_items();
        let mut source = Source::new(hello, plan.policy.allow_empty_source, wants_items, sources);
        let (stream, is_far) = match (shell_stream, connect(&plan.dest, plan.timeout)?) {
            (Some(ShellStream { input, output }), _) => {
                (Some(shard.ring_mut().add_stream_pair(input, output)), true)
            }
            (None, Some(fd)) => {
                let is_far = start::leads_elsewhere(&fd);
                (Some(shard.ring_mut().add_stream(fd)), is_far)
            }
            (None, None) => (None, false),
        };
        if !plan.policy.whole_files || plan.policy.resume {
            let open_files_max = start::open_files_max();
            source.send_deltas(DeltaRules::of(plan.policy, is_far, open_files_max));
        }
        let source = Session::Source(Box::new(source));
        let (source, sessions_count) = match stream {
            Some(stream) => {
                let key = shard.open(source, stream, plan.timeout);
                shard.await_greeting(key, plan.greeting_timeout);
                (key, 1)
            }
            None => {
                let rights = OwnRights {
                    is_root: disk.identity().is_root,
                    home: Vec::new(),
                };
                let target = Session::Target(Box::new(Target::new(Arc::new(rights), false)));
                (shard.open_pair(source, target).0, 2)
            }
        };
        Ok(Some(Self {
            shard,
            shell,
            source,
            sessions_count,
            signal,
            started,
        }))
    }

    fn run(mut self, plan: &Plan, output: &mut Output, place: &str) -> Exit {
        let mut source = None;
        let mut signal = None;
        while self.sessions_count > 0 {
            if let Err(errno) = self.shard.turn(None) {
                return output.failure(place, &Failure::Engine { errno });
            }
            if let Some(name) = self.take_signal() {
                signal = Some(name);
                self.shard
                    .break_off(self.source, SessionError::Signal(name));
            }
            if source.is_none() {
                tell(self.shard.session(self.source), output);
            }
            while let Some((key, mut session, _)) = self.shard.next_finished() {
                self.sessions_count -= 1;
                if key == self.source {
                    tell(&mut session, output);
                    source = Some(session);
                }
            }
        }
        let elapsed = self.shard.now().since(self.started);
        let Some(Session::Source(source)) = source else {
            unreachable!("the source is one of the sessions")
        };
        let first_payload = source
            .first_payload()
            .map(|moment| moment.since(self.started));
        let failure = source.outcome().err().map(|error| {
            // The remote shell gets the same signal, and its end may be seen first.
            match signal.or(self.take_signal()) {
                Some(name) => Failure::Signal { name },
                None => failure(error, plan),
            }
        });
        let failure = match self.shell.take() {
            Some(shell) => shell_failure(failure, shell, source.is_greeted(), plan),
            None => failure,
        };
        let ending = ending(&source, failure, output, place);
        output.finish(
            &ending,
            elapsed,
            first_payload,
            start::peak_rss_bytes(),
            self.shard.ring_mut().choice().name(),
            self.shard.ring_mut().figures(),
        )
    }
}

impl Push {
    /// The signal that came since this was asked last.
    fn take_signal(&self) -> Option<&'static str> {
        signal_name(self.signal.swap(0, Ordering::Relaxed))
    }
}

/// Passes on what a session has to say.
fn tell(session: &mut Session<PosixDisk>, output: &mut Output) {
    while let Some(tell) = session.next_tell() {
        output.tell(tell);
    }
    // Until then a remote shell may be asking for a password on the same terminal.
    if let Session::Source(source) = session
        && source.is_greeted()
    {
        output.progress(&source.totals(), source.is_scanned());
    }
}

fn ending(
    source: &Source<PosixDisk>,
    failure: Option<Failure>,
    output: &mut Output,
    place: &str,
) -> Ending {
    let totals = source.totals();
    match (source.outcome(), failure) {
        (Ok((exit, durability)), _) => {
            let why = source
                .report_text()
                .map(|text| String::from_utf8_lossy(text).into_owned());
            Ending {
                exit,
                why,
                totals,
                durability,
            }
        }
        (Err(error), failure) => {
            let exit = match failure {
                Some(failure) => output.failure(place, &failure),
                None => error.exit(),
            };
            Ending {
                exit,
                why: None,
                totals,
                durability: None,
            }
        }
    }
}

/// Sees the remote shell to its end. Where the stream had ended before the server's last word, its
/// end says more than the stream's.
fn shell_failure(
    failure: Option<Failure>,
    shell: RemoteShell,
    was_greeted: bool,
    plan: &Plan,
) -> Option<Failure> {
    let unread = shell.unread();
    let end = shell.end();
    let noise = match &failure {
        Some(Failure::NotSy { first }) if unread.is_empty() => {
            // The place of a head is filled up with zeros.
            let len = first
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |at| at + 1);
            first[..len].to_vec()
        }
        Some(Failure::NotSy { first }) => [&first[..], &unread].concat(),
        // It was gone before it read a word of ours, so that nobody looked at what it said. No frame
        // is without a zero.
        Some(Failure::Lost { .. }) if !was_greeted && !unread.contains(&0) => unread,
        Some(Failure::Lost { .. }) => Vec::new(),
        Some(_) | None => return failure,
    };
    let has_no_server = matches!(end, ShellEnd::Code(126 | 127));
    Some(if noise.is_empty() || has_no_server {
        Failure::ShellEnded {
            end,
            was_greeted,
            sy_path: sy_path(&plan.dest).to_vec(),
        }
    } else {
        Failure::ShellNoise { first: noise }
    })
}

fn failure(error: &SessionError, plan: &Plan) -> Failure {
    let first_source = || {
        plan.sources
            .first()
            .map(|source| source.path.clone())
            .unwrap_or_default()
    };
    match error {
        SessionError::Wire(WireError::NotSy(first)) => Failure::NotSy {
            first: first.to_vec(),
        },
        SessionError::Wire(WireError::Version { ours, theirs }) => Failure::Version {
            ours: *ours,
            theirs: *theirs,
        },
        SessionError::Wire(error) => Failure::Protocol {
            text: error.to_string(),
        },
        SessionError::Refused(refused)
            if refused.refusal == Refusal::UnknownModule
                && matches!(plan.dest, Dest::Shell { module: None, .. }) =>
        {
            Failure::ModulesOnly
        }
        SessionError::Refused(refused) => Failure::Refused {
            refusal: refused.refusal,
            text: refused.text.clone(),
        },
        SessionError::Lost(errno) => Failure::Lost { errno: *errno },
        SessionError::Silent(seconds) | SessionError::Slow(seconds) => {
            Failure::Silent { seconds: *seconds }
        }
        SessionError::Disk { errno, .. } => Failure::Disk {
            side: Side::Target,
            errno: *errno,
        },
        SessionError::EmptySource => Failure::EmptySource {
            path: first_source(),
        },
        SessionError::OntoItself => Failure::OntoItself {
            path: first_source(),
        },
        SessionError::Signal(name) => Failure::Signal { name },
        SessionError::ShuttingDown | SessionError::Internal => Failure::Protocol {
            text: error.to_string(),
        },
    }
}

fn engine_failure(error: SetupError) -> Failure {
    let errno = match error {
        SetupError::Refused => Errno::PERM,
        SetupError::Missing | SetupError::TooOld => Errno::NOSYS,
        SetupError::Memlock => Errno::NOMEM,
        SetupError::Other(errno) => errno,
    };
    Failure::Engine { errno }
}

fn hello(
    plan: &Plan,
    disk: &PosixDisk,
    module: Vec<u8>,
    dest: Vec<Vec<u8>>,
    sources: &Sources<PosixDisk>,
) -> Hello {
    Hello {
        session: SessionId(start::random_u64()),
        policy: plan.policy,
        patience: plan.timeout.and_then(|patience| {
            NonZeroU32::new(u32::try_from(patience.as_secs()).unwrap_or(u32::MAX))
        }),
        boot_id: disk.boot_id(),
        sum_key: random_key(),
        module,
        dest,
        dest_is_relative: matches!(
            plan.dest,
            Dest::Shell {
                is_relative: true,
                ..
            }
        ),
        dest_is_dir: plan.dest_is_dir,
        single_file: sources.single_file.is_some(),
    }
}

/// For the sums of this session alone.
fn random_key() -> [u8; 32] {
    let mut key = [0; 32];
    for word in key.as_chunks_mut::<8>().0 {
        *word = start::random_u64().to_le_bytes();
    }
    key
}

/// Module and path below it; a local DEST is an absolute path without a module.
fn destination(plan: &Plan) -> Result<(Vec<u8>, Vec<Vec<u8>>), Failure> {
    match &plan.dest {
        Dest::Tcp { module, path, .. } | Dest::Unix { module, path, .. } => {
            Ok((module.bytes().to_vec(), path.clone()))
        }
        Dest::Shell { module, path, .. } => Ok((
            module
                .as_ref()
                .map_or(Vec::new(), |module| module.bytes().to_vec()),
            path.clone(),
        )),
        Dest::Local { path } => {
            let cannot = |errno| Failure::Dest {
                path: path.clone(),
                errno,
            };
            let components = absolute(path)
                .map_err(|error| cannot(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
            for name in &components {
                Name::new(name).map_err(|wrong| match wrong {
                    NameError::TooLong => cannot(Errno::NAMETOOLONG),
                    NameError::Empty | NameError::Separator | NameError::Dots | NameError::Ours => {
                        cannot(Errno::INVAL)
                    }
                })?;
            }
            Ok((Vec::new(), components))
        }
    }
}

/// The components of `path` from the root, with the links of all but the last resolved, so that
/// `..` means what the shell's user sees.
fn absolute(path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    let resolved = match (path.parent(), path.file_name()) {
        (Some(above), Some(name)) => {
            let above = if above.as_os_str().is_empty() {
                Path::new(".")
            } else {
                above
            };
            std::fs::canonicalize(above).map(|above| above.join(name))
        }
        _ => std::fs::canonicalize(path),
    };
    // A directory above that is missing is named by the target, which looks for it next.
    let resolved = match resolved {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let resolved = std::path::absolute(path)?;
            if resolved.components().any(|it| it == Component::ParentDir) {
                return Err(error); // Nobody knows what is above something that is not there.
            }
            resolved
        }
        resolved => resolved?,
    };
    let components = resolved
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.as_bytes().to_vec()),
            Component::Prefix(_)
            | Component::RootDir
            | Component::CurDir
            | Component::ParentDir => None,
        });
    Ok(components.collect())
}

/// What a remote shell was to run there.
fn sy_path(dest: &Dest) -> &[u8] {
    match dest {
        // The word before `--stdio`.
        Dest::Shell { command, .. } => command.iter().rev().nth(1).map_or(b"", |word| word),
        Dest::Local { .. } | Dest::Tcp { .. } | Dest::Unix { .. } => b"",
    }
}

/// A remote shell and the stream through it, where DEST is behind one.
fn start_shell(dest: &Dest) -> Result<Option<(RemoteShell, ShellStream)>, Failure> {
    let Dest::Shell { command, .. } = dest else {
        return Ok(None);
    };
    let started = RemoteShell::start(command);
    started.map(Some).map_err(|errno| Failure::ShellStart {
        program: command.first().cloned().unwrap_or_default(),
        errno,
    })
}

/// A connected stream; `None` for a DEST in this process or behind a remote shell.
fn connect(dest: &Dest, timeout: Option<Duration>) -> Result<Option<OwnedFd>, Failure> {
    let patience = Duration::from_secs(CONNECT_SECONDS_MAX).min(timeout.unwrap_or(Duration::MAX));
    let failed = |error: &io::Error| {
        if matches!(
            error.kind(),
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
        ) {
            Failure::ConnectTimeout {
                seconds: patience.as_secs(),
            }
        } else {
            Failure::Connect {
                errno: Errno::from_io_error(error).unwrap_or(Errno::IO),
            }
        }
    };
    match dest {
        Dest::Local { .. } | Dest::Shell { .. } => Ok(None),
        Dest::Unix { socket, .. } => {
            let path = Path::new(std::ffi::OsStr::from_bytes(socket));
            let stream = UnixStream::connect(path).map_err(|error| failed(&error))?;
            Ok(Some(stream.into()))
        }
        Dest::Tcp { host, port, .. } => {
            let addresses = (host.as_str(), *port).to_socket_addrs();
            let addresses = addresses.map_err(|error| Failure::NameLookup {
                why: error.to_string(),
            })?;
            let mut last = Failure::NameLookup {
                why: "it has no address".to_owned(),
            };
            for address in addresses {
                match TcpStream::connect_timeout(&address, patience) {
                    Ok(stream) => {
                        start::tune_tcp(&stream);
                        return Ok(Some(stream.into()));
                    }
                    Err(error) => last = failed(&error),
                }
            }
            Err(last)
        }
    }
}

/// SIGINT, SIGTERM and SIGHUP are only noted; the loop ends the session.
fn watch_signals() -> Arc<AtomicUsize> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let signal = Arc::new(AtomicUsize::new(0));
    for number in [SIGINT, SIGTERM, SIGHUP] {
        let value = usize::try_from(number).expect("signal numbers are positive");
        // Where it can't be caught it ends the program as it would have.
        let _ = signal_hook::flag::register_usize(number, Arc::clone(&signal), value);
    }
    signal
}

fn signal_name(number: usize) -> Option<&'static str> {
    match number {
        1 => Some("SIGHUP"),
        2 => Some("SIGINT"),
        15 => Some("SIGTERM"),
        _ => None,
    }
}
