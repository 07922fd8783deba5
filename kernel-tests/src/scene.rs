//! What a test plays in: a source, a destination, perhaps a server, a sentinel that nobody may
//! touch; and after the play the checks that always hold.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::FileType;

use crate::server::Server;
use crate::tree::Tree;
use crate::{Need, Push, Sshd, Yard, guard, need, plant, subject};

/// How a push reaches its destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// A path: the server is in the same process.
    Embedded,
    /// A server without identities, over loopback.
    Tcp,
    /// A server's UNIX socket.
    Unix,
    /// A server that each push starts by ssh.
    Ssh,
}

impl Route {
    pub fn embedded() -> Self {
        Self::Embedded
    }

    pub fn tcp() -> Self {
        Self::Tcp
    }

    pub fn unix() -> Self {
        Self::Unix
    }

    pub fn ssh() -> Self {
        Self::Ssh
    }

    /// Does one server stay for all pushes?
    pub fn has_server(self) -> bool {
        match self {
            Self::Tcp | Self::Unix => true,
            Self::Embedded | Self::Ssh => false,
        }
    }

    /// May such a session of root set owners and set-id bits and make devices?
    pub fn has_all_rights(self) -> bool {
        match self {
            Self::Embedded | Self::Unix | Self::Ssh => true,
            Self::Tcp => false,
        }
    }
}

/// Descriptors a quiet server may hold beyond those it had at its start: whatever it keeps for
/// good after its first session.
const FD_SLACK: usize = 12;
const MODULE: &str = "m";

/// `src`, `export/dst`, `outside` and `twin` in a yard of their own.
pub struct Scene {
    pub route: Route,
    /// An ordinary user whom no other scene has: the kernel counts locked memory by user, and gives
    /// it back some time after a process ended.
    pub nobody: u32,
    server: Option<Server>,
    sshd: Option<Sshd>,
    fds_at_start: usize,
    outside: Tree,
    aim: String,
    // Last, so that the server ends before its ground goes.
    yard: Yard,
}

impl Scene {
    /// Plays a scenario and checks what holds after every one.
    #[track_caller]
    pub fn play(route: Route, scenario: impl FnOnce(&mut Self)) {
        if route == Route::Unix && subject::is_stand_in() {
            println!("skipped: the stand-in has no UNIX socket");
            return;
        }
        if route == Route::Ssh
            && let Err(what) = Need::Ssh.met()
        {
            return need::missing(&what);
        }
        let mut scene = Self::new(route);
        scenario(&mut scene);
        scene.check();
    }

    fn new(route: Route) -> Self {
        let yard = Yard::new();
        for dir in ["src", "export", "outside"] {
            plant::dir(yard.join(dir));
        }
        plant_sentinel(&yard.join("outside"));
        let outside = Tree::read(yard.join("outside"));
        let mut scene = Self {
            route,
            nobody: ordinary_user(),
            server: None,
            sshd: None,
            fds_at_start: 0,
            outside,
            aim: "dst".to_owned(),
            yard,
        };
        if route.has_server() {
            scene.serve(Server::new(scene.yard.path()));
        }
        if route == Route::Ssh {
            scene.sshd = Some(Sshd::start(&scene.yard.join("sshd"), ""));
        }
        scene
    }

    /// Starts this server with the scene's module in place of the one that ran, if any.
    pub fn serve(&mut self, server: Server) {
        self.server = None;
        let server = server.module(MODULE, &self.export()).started();
        self.fds_at_start = server.fd_count();
        self.server = Some(server);
    }

    #[track_caller]
    pub fn server(&mut self) -> &mut Server {
        self.server.as_mut().expect("this route has a server")
    }

    #[track_caller]
    pub fn sshd(&self) -> &Sshd {
        self.sshd.as_ref().expect("this route has an sshd")
    }

    pub fn path(&self) -> &Path {
        self.yard.path()
    }

    pub fn src(&self) -> PathBuf {
        self.yard.join("src")
    }

    /// The directory that is exported.
    pub fn export(&self) -> PathBuf {
        self.yard.join("export")
    }

    /// The destination of [`push`](Self::push).
    pub fn dst(&self) -> PathBuf {
        self.export().join(&self.aim)
    }

    /// The same below `export`, as it is named to a server.
    pub fn aimed_at(&self) -> &str {
        &self.aim
    }

    /// Takes another destination below `export`.
    pub fn aim_at(&mut self, dest: &str) {
        dest.clone_into(&mut self.aim);
    }

    pub fn outside(&self) -> PathBuf {
        self.yard.join("outside")
    }

    pub fn twin(&self) -> PathBuf {
        self.yard.join("twin")
    }

    /// `src/` to `export/dst`, by this scene's route.
    pub fn push<S: AsRef<std::ffi::OsStr>>(&self, options: &[S]) -> Push {
        self.push_to(&self.aim)
            .from(slash(self.src()))
            .options(options)
    }

    /// No source yet, to a path below `export`.
    pub fn push_to(&self, dest: &str) -> Push {
        self.push_to_port(dest, self.server.as_ref().map_or(0, Server::port))
    }

    /// The same, to another port, where a proxy may listen.
    pub fn push_to_port(&self, dest: &str, port: u16) -> Push {
        let scheme = if subject::is_stand_in() {
            "rsync"
        } else {
            "sy"
        };
        let push = match self.route {
            Route::Embedded => Push::new(self.export().join(dest)),
            Route::Tcp => Push::new(format!("{scheme}://127.0.0.1:{port}/{MODULE}/{dest}")),
            Route::Unix => {
                let socket = self
                    .server
                    .as_ref()
                    .expect("this route has a server")
                    .socket();
                Push::new(format!("sy:///{MODULE}/{dest}"))
                    .option("--socket")
                    .option(socket)
            }
            Route::Ssh => self.sshd().push(self.export().join(dest)),
        };
        push.options(self.rsync_rights())
    }

    /// What makes rsync do as a session of this route may.
    pub fn rsync_rights(&self) -> &'static [&'static str] {
        if self.route.has_all_rights() || !subject::is_stand_in() {
            &[]
        } else {
            LIMITED_RIGHTS
        }
    }

    /// The options with which the twin does as a session of this route may.
    pub fn twin_rights(&self) -> &'static [&'static str] {
        if self.route.has_all_rights() {
            &["--numeric-ids"]
        } else {
            LIMITED_TWIN
        }
    }

    /// The tree at `path` as it should arrive by this route.
    #[track_caller]
    pub fn expected(&self, path: impl AsRef<Path>) -> Tree {
        let tree = Tree::read(path);
        if self.route.has_all_rights() {
            return tree;
        }
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        tree.mapped(|node| {
            node.uid = uid.as_raw();
            node.gid = gid.as_raw();
            node.mode &= 0o1777;
            matches!(
                node.kind,
                FileType::RegularFile | FileType::Directory | FileType::Symlink
            )
        })
    }

    /// `src` is in `dst`, in every property that this route can bring.
    #[track_caller]
    pub fn assert_arrived(&self) {
        self.expected(self.src())
            .assert_equals(&Tree::read(self.dst()), "target");
    }

    /// The same push again sends nothing and touches nothing.
    #[track_caller]
    pub fn assert_idle<S: AsRef<std::ffi::OsStr>>(&self, options: &[S]) {
        let before = Tree::read(self.dst());
        let summary = self.push(options).option("--json").run().ok().summary();
        assert_eq!(summary.files_sent, 0, "a second push sends nothing");
        assert_eq!(summary.files_deleted, 0, "a second push deletes nothing");
        assert_eq!(summary.literal_bytes, 0, "a second push sends no content");
        before.assert_untouched(&Tree::read(self.dst()), "second push");
    }

    /// Push, arrived, idle: the whole of an ordinary case.
    #[track_caller]
    pub fn assert_pushes<S: AsRef<std::ffi::OsStr>>(&self, options: &[S]) {
        self.push(options).run().ok();
        self.assert_arrived();
        self.assert_idle(options);
    }

    #[track_caller]
    pub fn assert_outside_untouched(&self) {
        let now = Tree::read(self.outside());
        self.outside
            .assert_untouched(&now, "the tree outside the export");
    }

    /// No temporary file of sy's is left in the export.
    #[track_caller]
    pub fn assert_no_litter(&self) {
        let litter = Tree::read(self.export()).litter();
        assert!(litter.is_empty(), "left behind: {litter:?}");
    }

    /// The server serves, and has let go of what its sessions held.
    #[track_caller]
    pub fn assert_serves(&mut self) {
        let most = self.fds_at_start + FD_SLACK;
        let Some(server) = &mut self.server else {
            return;
        };
        assert!(server.is_running(), "the server ended:\n{}", server.log());
        guard::wait_until("the server to close its descriptors", || {
            server.fd_count() <= most
        });
        let probe = self.yard.join("probe");
        plant::file(probe.join("file"), "probe");
        self.push_to("probe").from(slash(&probe)).run().ok();
        plant::remove(self.export().join("probe"));
        plant::remove(probe);
    }

    #[track_caller]
    fn check(&mut self) {
        self.assert_outside_untouched();
        if let Some(sshd) = &self.sshd {
            guard::wait_until("sessions to end", || sshd.is_quiet());
        }
        self.assert_no_litter();
        self.assert_serves();
    }
}

const LIMITED_RIGHTS: &[&str] = &["--no-owner", "--no-group", "--no-devices", "--no-specials"];
const LIMITED_TWIN: &[&str] = &[
    "--no-owner",
    "--no-group",
    "--no-devices",
    "--no-specials",
    "--chmod=ug-s",
];

fn ordinary_user() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    20_000 + (std::process::id() * 512 + count) % 40_000
}

/// A path with a slash behind it: its contents, not the directory itself.
pub fn slash(path: impl AsRef<Path>) -> OsString {
    let mut word = path.as_ref().as_os_str().to_owned();
    word.push("/");
    word
}

fn plant_sentinel(dir: &Path) {
    plant::file(dir.join("file"), "nobody may touch this");
    plant::file(dir.join("dir/below"), "nor this");
    for number in 0..10 {
        plant::file(dir.join(format!("dir/f{number}")), "bait");
        plant::file(dir.join(format!("dir/sub/f{number}")), "bait");
    }
    plant::symlink("dir/below", dir.join("link"));
    plant::chmod(dir.join("file"), 0o640);
    for path in ["file", "dir/below", "link", "dir/sub", "dir", "."] {
        plant::mtime(dir.join(path), 1_000_000_000, 123_456_789);
    }
}
