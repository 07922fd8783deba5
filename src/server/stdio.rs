//! `sy-server --stdio`: one session on stdin and stdout, for the user who started it by a remote
//! shell. It says nothing that the other end says as well, and ends when that end is gone.

use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Component;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::config::ServerConfig;
use super::log::Log;
use super::run::{StartError, open_doors};
use crate::engine::disk::PosixDisk;
use crate::engine::start;
use crate::limits::{IDLE_SECONDS_MAX, POOL_THREADS};
use crate::model::report::Exit;
use crate::ops::Disk;
use crate::session::target::{Doorkeeper, OwnRights};
use crate::session::{Session, SessionError, Target};
use crate::wire::WireError;

/// Serves one session; the exit code of the program.
pub(super) fn serve(config: &ServerConfig, log: &Log) -> Result<Exit, StartError> {
    let failed = |what: &str, why: String| StartError {
        what: what.to_owned(),
        why,
        hint: None,
        exit: Exit::Start,
    };
    if std::io::stdin().is_terminal() || std::io::stdout().is_terminal() {
        return Err(StartError {
            exit: Exit::Usage,
            ..failed(
                "--stdio",
                "stdin or stdout is a terminal: sy push starts this, by ssh without -t".to_owned(),
            )
        });
    }
    let (input, output) = take_stdio().map_err(|error| failed("stdin", error.to_string()))?;
    let doorkeeper: Arc<dyn Doorkeeper> = if config.modules.is_empty() {
        Arc::new(OwnRights {
            is_root: PosixDisk.identity().is_root,
            home: home().map_err(|error| failed("the home directory", error.to_string()))?,
        })
    } else {
        open_doors(&config.modules)?.own
    };
    let pool_threads = config.pool_threads.map_or(POOL_THREADS, usize::from);
    let shard = start::shard(config.engine, pool_threads);
    let mut shard = shard.map_err(|error| failed("engine", error.to_string()))?;
    if let Some(refused) = shard.ring_mut().refused() {
        log.portable(refused);
    }
    let [signal, question] = watch_signals();
    let stream = shard.ring_mut().add_stream_pair(input, output);
    let target = Session::Target(Box::new(Target::new(doorkeeper, false)));
    let key = shard.open(target, stream, Some(Duration::from_secs(IDLE_SECONDS_MAX)));
    loop {
        if let Err(errno) = shard.turn(None) {
            return Err(failed("the ring failed", errno.to_string()));
        }
        if question.swap(false, Ordering::Relaxed) {
            log.figures(shard.ring_mut().figures());
        }
        if signal.swap(false, Ordering::Relaxed) {
            shard.break_off(key, SessionError::ShuttingDown);
        }
        if let Some((_, Session::Target(target), _)) = shard.next_finished() {
            return Ok(ending(&target, log));
        }
    }
}

/// Only what the other end can't have been told is said here.
fn ending(target: &Target<PosixDisk>, log: &Log) -> Exit {
    if let Some(SessionError::Wire(WireError::NotSy(_))) = target.error() {
        log.say(
            format_args!("--stdio: what came on stdin is not from sy push"),
            None,
        );
    }
    target.exit()
}

/// Takes stdin and stdout away from everybody else here, so that nothing but the protocol can ever
/// be on them.
fn take_stdio() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let input = std::io::stdin().as_fd().try_clone_to_owned()?;
    let output = std::io::stdout().as_fd().try_clone_to_owned()?;
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok((input, output))
}

/// Where a remote shell starts a command, component by component.
fn home() -> std::io::Result<Vec<Vec<u8>>> {
    let here = std::env::current_dir()?;
    let components = here.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.as_bytes().to_vec()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => {
            None
        }
    });
    Ok(components.collect())
}

/// SIGINT, SIGTERM and SIGHUP are only noted, and the loop ends the session; so is SIGUSR1, at
/// which it tells its figures.
fn watch_signals() -> [Arc<AtomicBool>; 2] {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
    let [signal, question] = [const { AtomicBool::new(false) }; 2].map(Arc::new);
    let each = [SIGINT, SIGTERM, SIGHUP].map(|number| (number, &signal));
    for (number, flag) in each.into_iter().chain([(SIGUSR1, &question)]) {
        // Where it can't be caught it ends the program as it would have.
        let _ = signal_hook::flag::register(number, Arc::clone(flag));
    }
    [signal, question]
}
