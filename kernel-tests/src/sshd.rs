//! A real `sshd` on a free loopback port, with keys of its own, that lets its user in.

use std::ffi::OsString;
use std::io::Read;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{Push, guard, need, plant, server, subject};

const STARTS_MAX: usize = 5;

/// A server that runs. Dropping it kills it; sessions end with their connections.
pub struct Sshd {
    child: Option<Child>,
    port: u16,
    dir: PathBuf,
}

impl Sshd {
    /// Starts it with its files in `dir`. `restriction` stands before the key in its list of
    /// authorized ones: `command="..."`, or nothing.
    #[track_caller]
    pub fn start(dir: &Path, restriction: &str) -> Self {
        plant::dir(dir);
        plant::chmod(dir, 0o700);
        // The same key proves who the host is and who the user is.
        run(Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(dir.join("key")));
        let mut sshd = Self {
            child: None,
            port: 0,
            dir: dir.to_owned(),
        };
        sshd.restrict(restriction);
        // Where it keeps root out of what it does before it knows who is there.
        let _ = std::fs::create_dir("/run/sshd");
        for _ in 0..STARTS_MAX {
            sshd.port = server::free_port();
            let mut child = sshd.spawn();
            let up = guard::comes_true(guard::hang(), || {
                let ended = child.try_wait().expect("a child can be waited for");
                ended.is_some() || sshd.greets()
            });
            let ended = child.try_wait().expect("a child can be waited for");
            if up && ended.is_none() {
                sshd.child = Some(child);
                return sshd;
            }
            // Somebody else may have been given the port in between: try another.
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("sshd does not start:\n{}", sshd.log());
    }

    /// Does it say who it is? That somebody accepts is not enough: a stream to a port that nobody has
    /// taken yet may be given that port itself, and so be connected to itself.
    fn greets(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) else {
            return false;
        };
        let mut word = [0; 4];
        let patience = stream.set_read_timeout(Some(Duration::from_secs(5)));
        patience.is_ok() && stream.read_exact(&mut word).is_ok() && word == *b"SSH-"
    }

    fn spawn(&self) -> Child {
        let path = |name: &str| self.dir.join(name).display().to_string();
        let config = format!(
            "Port {}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             StrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n\
             MaxStartups 1000\nUseDNS no\nPrintMotd no\nLogLevel ERROR\n",
            self.port,
            path("key"),
            path("authorized_keys"),
        );
        plant::file(self.dir.join("sshd_config"), config);
        // It starts itself again for each connection, so it wants its path in full.
        Command::new(need::find("sshd").expect("the test asked for it"))
            .args(["-D", "-f", &path("sshd_config"), "-E", &path("log")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sshd can be run")
    }

    /// Puts something else before the key in the list of authorized ones.
    pub fn restrict(&self, restriction: &str) {
        let key = std::fs::read_to_string(self.dir.join("key.pub")).expect("a key was made");
        let line = format!(
            "{restriction}{}{key}",
            if restriction.is_empty() { "" } else { " " }
        );
        plant::file(self.dir.join("authorized_keys"), line);
    }

    /// What `--rsh` says to get in.
    pub fn rsh(&self) -> String {
        format!(
            "ssh -F /dev/null -p {} -i {} -o BatchMode=yes -o IdentitiesOnly=yes -o LogLevel=ERROR \
             -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
            self.port,
            self.dir.join("key").display()
        )
    }

    /// No source yet, to a path over there.
    pub fn push(&self, path: impl AsRef<Path>) -> Push {
        let mut dest = OsString::from("127.0.0.1:");
        dest.push(path.as_ref());
        self.push_to(dest)
            .option("--sy-path")
            .option(subject::server())
    }

    /// To any DEST, with the `sy-server` that the shell over there finds.
    pub fn push_to(&self, dest: impl Into<OsString>) -> Push {
        Push::new(dest).option("-e").option(self.rsh())
    }

    /// Has every session ended, and what it ran with it? A command outlives the connection for as
    /// long as it likes.
    pub fn is_quiet(&self) -> bool {
        let pid = self.child.as_ref().expect("it was started").id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        children.unwrap_or_default().is_empty() && !self.has_commands()
    }

    /// Does anything run that was started by a session? Its environment names our port.
    fn has_commands(&self) -> bool {
        let processes = std::fs::read_dir("/proc").expect("a kernel with /proc");
        let port = self.port.to_string();
        processes.flatten().any(|process| {
            let environ = std::fs::read(process.path().join("environ")).unwrap_or_default();
            environ.split(|&byte| byte == 0).any(|variable| {
                let variable = String::from_utf8_lossy(variable);
                variable.starts_with("SSH_CONNECTION=") && variable.ends_with(&format!(" {port}"))
            })
        })
    }

    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.dir.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            if std::thread::panicking() {
                println!("--- sshd log\n{}---", self.log());
            }
        }
    }
}

#[track_caller]
fn run(command: &mut Command) {
    let status = command.stdin(Stdio::null()).status();
    let status = status.unwrap_or_else(|why| panic!("{command:?}: {why}"));
    assert!(status.success(), "{command:?}: {status}");
}
