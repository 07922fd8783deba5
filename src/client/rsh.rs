//! `RemoteShell`: `ssh`, or what `--rsh` names, with an end of a socket pair as its stdin and one of
//! another as its stdout. Its stderr is ours, so that it can be read, and ask for a password on its
//! terminal.
//! `client::plan` makes the command, `client::run` starts it and sees it to its end.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustix::net::RecvFlags;
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::limits::{SHELL_END_SECONDS_MAX, SHELL_KILL_SECONDS, SHELL_NOISE_BYTES_MAX};
use crate::ops::Errno;

/// A remote shell that runs. Dropping it kills it.
pub struct RemoteShell {
    child: Child,
    /// Our end of its stdout once more, for what nobody received.
    input: UnixStream,
}

/// Our ends of a remote shell's stdout and stdin. They are of two pairs: of one, a child of a dead
/// shell that reads its stdin would hold open what came from its stdout as well, and nobody would
/// ever learn of the death.
pub struct ShellStream {
    pub input: OwnedFd,
    pub output: OwnedFd,
}

/// How a remote shell ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShellEnd {
    Code(i32),
    /// Somebody's signal.
    Signal(i32),
    /// It did not end by itself, and was ended.
    Lingered,
}

impl RemoteShell {
    /// Starts it; the second is the stream to the server that it is to run.
    pub fn start(command: &[Vec<u8>]) -> Result<(Self, ShellStream), Errno> {
        let errno = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        let (input, stdout) = UnixStream::pair().map_err(errno)?;
        let (output, stdin) = UnixStream::pair().map_err(errno)?;
        let stream = ShellStream {
            input: input.try_clone().map_err(errno)?.into(),
            output: output.into(),
        };
        let mut words = command.iter().map(|word| OsStr::from_bytes(word));
        let child = Command::new(words.next().ok_or(Errno::NOENT)?)
            .args(words)
            .stdin(Stdio::from(OwnedFd::from(stdin)))
            .stdout(Stdio::from(OwnedFd::from(stdout)))
            .spawn()
            .map_err(errno)?;
        Ok((Self { child, input }, stream))
    }

    /// Waits for its end when the stream is shut, and ends it if that takes too long. A signal
    /// that arrives meanwhile is a person who does not want to wait.
    pub fn end(mut self) -> ShellEnd {
        let patience = Duration::from_secs(SHELL_END_SECONDS_MAX);
        let Some(status) = self.wait(patience) else {
            // One that has ended by now is a zombie until it is reaped: this hits no other.
            let _ = rustix::process::kill_process(self.pid(), Signal::TERM);
            self.wait(Duration::from_secs(SHELL_KILL_SECONDS));
            return ShellEnd::Lingered;
        };
        match (status.code(), status.signal()) {
            (Some(code), _) => ShellEnd::Code(code),
            (None, Some(signal)) => ShellEnd::Signal(signal),
            (None, None) => ShellEnd::Lingered,
        }
    }

    /// The next of what it printed and nobody received.
    pub fn unread(&self) -> Vec<u8> {
        let mut bytes = [0; SHELL_NOISE_BYTES_MAX];
        let received = rustix::net::recv(&self.input, &mut bytes[..], RecvFlags::DONTWAIT);
        bytes[..received.map_or(0, |(_, len)| len)].to_vec()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let patience = Timespec::try_from(patience).expect("a few seconds");
        if let Ok(end) = rustix::process::pidfd_open(self.pid(), PidfdFlags::empty()) {
            // Whatever it says, the next call tells whether there is an end.
            let _ = poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&patience));
        }
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for RemoteShell {
    fn drop(&mut self) {
        // Of one that was waited for, std knows that it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A quote of `--rsh` that is not closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenQuote(pub u8);

/// The words of `--rsh`, as rsync takes them: spaces separate, single and double quotes hold
/// together and may stand anywhere, a quote that is doubled inside its own kind is one of it,
/// and a backslash is a backslash.
pub fn words(command: &[u8]) -> Result<Vec<Vec<u8>>, OpenQuote> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    let mut bytes = command.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match (quote, byte) {
            (None, b' ') => words.extend(word.take()),
            (None, b'\'' | b'"') => {
                quote = Some(byte);
                word.get_or_insert_default();
            }
            (Some(open), _) if byte == open => {
                if bytes.next_if_eq(&open).is_some() {
                    word.get_or_insert_default().push(open);
                } else {
                    quote = None;
                }
            }
            (None | Some(_), _) => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    match quote {
        Some(open) => Err(OpenQuote(open)),
        None => Ok(words),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn split(command: &str) -> Result<Vec<String>, OpenQuote> {
        let words = words(command.as_bytes())?;
        let text = |word| String::from_utf8(word).unwrap();
        Ok(words.into_iter().map(text).collect())
    }

    #[test]
    fn words_are_split_and_quoted_as_rsync_does() {
        for (command, expected) in [
            ("ssh", &["ssh"][..]),
            ("  ssh  -p 22 ", &["ssh", "-p", "22"]),
            ("ssh -o 'A B'", &["ssh", "-o", "A B"]),
            ("ssh -o \"A 'B'\"", &["ssh", "-o", "A 'B'"]),
            ("a'b c'd", &["ab cd"]),
            ("'it''s'", &["it's"]),
            ("\"a\"\"b\"", &["a\"b"]),
            ("'a'\"b\"", &["ab"]),
            ("x '' y", &["x", "", "y"]),
            ("a\\ b\tc", &["a\\", "b\tc"]),
            ("", &[]),
            ("  ", &[]),
        ] {
            assert_eq!(split(command).unwrap(), expected, "{command}");
        }
        assert_eq!(split("ssh 'x"), Err(OpenQuote(b'\'')));
        assert_eq!(split("\"a''"), Err(OpenQuote(b'"')));
        assert_eq!(split("'a''"), Err(OpenQuote(b'\'')));
    }

    /// The shell that runs it, what comes from its stdout, and what goes to its stdin.
    fn shell(script: &str) -> (RemoteShell, UnixStream, UnixStream) {
        let command = ["sh", "-c", script].map(|word| word.as_bytes().to_vec());
        let (shell, stream) = RemoteShell::start(&command).unwrap();
        (shell, stream.input.into(), stream.output.into())
    }

    #[test]
    fn a_shell_talks_through_its_stream_and_its_end_is_known() {
        let (shell, mut input, mut output) = shell("read line; echo got $line; exit 7");
        output.write_all(b"this\n").unwrap();
        let mut said = [0; 4];
        input.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"got ");
        // Past the newline: all of it is there when the stream has ended.
        let mut left = Vec::new();
        input.read_to_end(&mut left).unwrap();
        assert_eq!(left, b"this\n");
        assert_eq!(shell.end(), ShellEnd::Code(7));
    }

    #[test]
    fn what_nobody_received_can_still_be_had_from_a_shut_stream() {
        let (shell, mut input, output) = shell("echo noise; exec cat");
        let mut first = [0; 2];
        input.read_exact(&mut first).unwrap();
        input.shutdown(std::net::Shutdown::Both).unwrap();
        drop(output);
        assert_eq!(shell.unread(), b"ise\n");
        assert!(matches!(
            shell.end(),
            ShellEnd::Code(0) | ShellEnd::Signal(13)
        ));
    }

    #[test]
    fn the_signal_that_ended_a_shell_is_told() {
        let (shell, ..) = shell("kill -9 $$");
        assert_eq!(shell.end(), ShellEnd::Signal(9));
    }

    #[test]
    fn a_dropped_shell_is_killed() {
        let (shell, mut input, _output) = shell("echo; exec sleep 1000");
        input.read_exact(&mut [0]).unwrap();
        drop(shell);
        assert_eq!(input.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_reader_of_stdin_that_outlives_its_shell_does_not_hide_its_end() {
        let (shell, mut input, output) = shell("exec 3<&0; cat <&3 >/dev/null 3<&- & kill -9 $$");
        assert_eq!(input.read(&mut [0]).unwrap(), 0);
        assert_eq!(shell.end(), ShellEnd::Signal(9));
        drop(output);
    }

    #[test]
    fn a_program_that_is_not_there_is_told_at_once() {
        let missing = [b"/nonexistent/ssh".to_vec()];
        assert_eq!(RemoteShell::start(&missing).err(), Some(Errno::NOENT));
        assert_eq!(RemoteShell::start(&[]).err(), Some(Errno::NOENT));
    }
}
