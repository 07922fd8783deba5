//! One `sy-server`, or the stand-in's daemon, on a free loopback port and a UNIX socket.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::{guard, subject, usage};

const STARTS_MAX: usize = 5;
const START_PATIENCE: Duration = Duration::from_secs(30);

/// A server that runs. Dropping it kills it.
pub struct Server {
    child: Option<Child>,
    setup: Setup,
    port: u16,
}

/// What a server is started with.
#[derive(Clone, Debug)]
struct Setup {
    modules: Vec<Module>,
    before: Vec<String>,
    options: Vec<String>,
    home: PathBuf,
}

#[derive(Clone, Debug)]
struct Module {
    name: String,
    path: PathBuf,
    writable: bool,
}

impl Server {
    /// Describes a server whose socket and log are in `home`.
    pub fn new(home: &Path) -> Self {
        let setup = Setup {
            modules: Vec::new(),
            before: Vec::new(),
            options: Vec::new(),
            home: home.to_owned(),
        };
        Self {
            child: None,
            setup,
            port: 0,
        }
    }

    /// Exports a directory for writing.
    #[must_use]
    pub fn module(mut self, name: &str, path: &Path) -> Self {
        let (name, path) = (name.to_owned(), path.to_owned());
        self.setup.modules.push(Module {
            name,
            path,
            writable: true,
        });
        self
    }

    #[must_use]
    pub fn read_only_module(mut self, name: &str, path: &Path) -> Self {
        let (name, path) = (name.to_owned(), path.to_owned());
        self.setup.modules.push(Module {
            name,
            path,
            writable: false,
        });
        self
    }

    /// Starts it with one more option of its own.
    #[must_use]
    pub fn option(mut self, option: &str) -> Self {
        self.setup.options.push(option.to_owned());
        self
    }

    /// Runs through another program, which is given the whole command and must `exec` it.
    #[must_use]
    pub fn through<S: AsRef<str>>(mut self, words: &[S]) -> Self {
        let words = words.iter().map(|word| word.as_ref().to_owned());
        self.setup.before.extend(words);
        self
    }

    /// Starts it, or starts it again on the same port after it ended.
    #[track_caller]
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        for _ in 0..STARTS_MAX {
            if self.port == 0 {
                self.port = free_port();
            }
            let _ = std::fs::remove_file(self.socket());
            let mut child = self.spawn();
            let up = guard::comes_true(START_PATIENCE, || {
                child
                    .try_wait()
                    .expect("a child can be waited for")
                    .is_some()
                    || self.answers()
            });
            let ended = child.try_wait().expect("a child can be waited for");
            if up && ended.is_none() {
                self.child = Some(child);
                return;
            }
            // Somebody else may have been given the port in between: try another.
            let _ = child.kill();
            let _ = child.wait();
            self.port = 0;
        }
        panic!("the server does not start:\n{}", self.log());
    }

    #[must_use]
    pub fn started(mut self) -> Self {
        self.start();
        self
    }

    fn answers(&self) -> bool {
        // A stream to a port that nobody has taken yet may be given that port, and be connected to itself.
        let is_other = |stream: TcpStream| stream.local_addr().ok() != stream.peer_addr().ok();
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok_and(is_other);
        tcp && (subject::is_stand_in() || self.socket().exists())
    }

    fn spawn(&self) -> Child {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path());
        let log = log.expect("a log can be made");
        let mut words = self.setup.before.clone();
        words.push(subject::server().to_string_lossy().into_owned());
        words.extend(if subject::is_stand_in() {
            self.rsync_words()
        } else {
            self.sy_words()
        });
        Command::new(&words[0])
            .args(&words[1..])
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second descriptor"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|why| panic!("{words:?}: {why}"))
    }

    fn sy_words(&self) -> Vec<String> {
        let mut words = vec!["--socket".to_owned(), self.socket().display().to_string()];
        words.extend(["--listen".to_owned(), format!("127.0.0.1:{}", self.port)]);
        words.push("--no-auth".to_owned());
        words.extend(self.setup.options.iter().cloned());
        for module in &self.setup.modules {
            let rights = if module.writable { ",rw" } else { "" };
            let path = module.path.display();
            words.extend([
                "--module".to_owned(),
                format!("{}={path}{rights}", module.name),
            ]);
        }
        words
    }

    fn rsync_words(&self) -> Vec<String> {
        // Three settings make an rsync daemon do what a session without identity may do.
        let mut config = format!(
            "address = 127.0.0.1\nport = {}\nuse chroot = yes\nuid = root\ngid = root\n\
             munge symlinks = no\nincoming chmod = ug-s\n",
            self.port
        );
        for module in &self.setup.modules {
            let read_only = if module.writable { "no" } else { "yes" };
            let path = module.path.display();
            config += &format!(
                "[{}]\npath = {path}\nread only = {read_only}\n",
                module.name
            );
        }
        let path = self.setup.home.join("rsyncd.conf");
        std::fs::write(&path, config).expect("a configuration can be written");
        vec![
            "--daemon".to_owned(),
            "--no-detach".to_owned(),
            format!("--config={}", path.display()),
            "--log-file=/dev/stderr".to_owned(),
        ]
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn socket(&self) -> PathBuf {
        self.setup.home.join("sy.sock")
    }

    fn log_path(&self) -> PathBuf {
        self.setup.home.join("server.log")
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.log_bytes()).into_owned()
    }

    pub fn log_bytes(&self) -> Vec<u8> {
        std::fs::read(self.log_path()).unwrap_or_default()
    }

    fn child(&self) -> &Child {
        self.child.as_ref().expect("the server was started")
    }

    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    pub fn is_running(&mut self) -> bool {
        let child = self.child.as_mut();
        child.is_some_and(|child| {
            child
                .try_wait()
                .expect("a child can be waited for")
                .is_none()
        })
    }

    pub fn signal(&self, signal: Signal) {
        guard::signal(self.child(), signal);
    }

    /// Its end after a signal or by itself.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the server was started");
        let status = guard::end_of(&mut child);
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        status.unwrap_or_else(|| panic!("the server does not end:\n{}", self.log()))
    }

    /// Ends it with SIGKILL, as a crash would.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait();
    }

    /// Open descriptors.
    pub fn fd_count(&self) -> usize {
        let dir = format!("/proc/{}/fd", self.pid());
        std::fs::read_dir(dir).map_or(0, Iterator::count)
    }

    /// Resident bytes.
    pub fn rss_bytes(&self) -> u64 {
        self.status("VmRSS:") * 1024
    }

    /// CPU time used so far, in clock ticks.
    pub fn cpu_ticks(&self) -> u64 {
        usage::cpu_ticks(self.pid())
    }

    fn status(&self, label: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let text = text.unwrap_or_default();
        text.lines()
            .find_map(|line| {
                line.strip_prefix(label)?
                    .split_whitespace()
                    .next()?
                    .parse()
                    .ok()
            })
            .unwrap_or(0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            if std::thread::panicking() {
                println!("--- server log\n{}---", self.log());
            }
        }
    }
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
    listener.local_addr().expect("it has an address").port()
}
