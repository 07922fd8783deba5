//! `without-ring ERRNO PROGRAM [ARGUMENT]...`: runs a program under a seccomp filter that answers the
//! three calls of io_uring with ERRNO, as Docker's own profile does with EPERM.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// io_uring_setup, io_uring_enter, io_uring_register, the same on every architecture.
const CALLS: [i64; 3] = [425, 426, 427];

const ERRNOS: [(&str, u32); 3] = [("EPERM", 1), ("ENOSYS", 38), ("ENOMEM", 12)];

#[expect(clippy::print_stderr, reason = "its only way to say why")]
fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let errno = words.next().and_then(|word| {
        let known = ERRNOS.iter().find(|(name, _)| word == *name);
        known.map(|(_, number)| *number)
    });
    let (Some(errno), Some(program)) = (errno, words.next()) else {
        eprintln!("usage: without-ring EPERM|ENOSYS|ENOMEM PROGRAM [ARGUMENT]...");
        return ExitCode::from(125);
    };
    let why = match refuse(errno) {
        Err(error) => error.to_string(),
        Ok(()) => Command::new(&program).args(words).exec().to_string(),
    };
    eprintln!("without-ring: {}: {why}", program.to_string_lossy());
    ExitCode::from(125)
}

/// For this process and whatever it becomes or starts.
fn refuse(errno: u32) -> Result<(), Box<dyn std::error::Error>> {
    let rules = CALLS.map(|call| (call, Vec::new()));
    let filter = SeccompFilter::new(
        rules.into_iter().collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno),
        TargetArch::try_from(std::env::consts::ARCH)?,
    )?;
    let program: BpfProgram = filter.try_into()?;
    Ok(seccompiler::apply_filter(&program)?)
}
