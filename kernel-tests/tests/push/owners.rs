//! Owners by name: two hosts with other numbers for the same people, as two mount namespaces with a
//! `/etc/passwd` and `/etc/group` of their own, and rsync beside sy.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kernel_tests::scene::slash;
use kernel_tests::{
    Need, Push, Route, Scene, Server, Sshd, Tree, Yard, content, plant, require, subject, twin,
};

/// Users and groups, by name and number, here and over there. `ann` over there has another number,
/// `bob` has the one that is ann's here, `only` is not known, and 70004 has no name here.
const HERE: [(&str, u32); 6] = [
    ("root", 0),
    ("ann", 70_001),
    ("bob", 70_002),
    ("only", 70_003),
    ("cat", 70_005),
    ("toor", 70_006),
];
const THERE: [(&str, u32); 5] = [
    ("root", 0),
    ("ann", 80_001),
    ("bob", 70_001),
    ("cat", 70_004),
    ("toor", 0),
];
/// What stands here, and what it becomes over there.
const BECOMES: [(u32, u32); 7] = [
    (0, 0),
    (70_001, 80_001),
    (70_002, 70_001),
    (70_003, 70_003),
    (70_004, 70_004),
    (70_005, 70_004),
    (70_006, 0),
];

struct Hosts {
    sshd: Sshd,
    yard: Yard,
}

impl Hosts {
    fn new() -> Self {
        let yard = Yard::new();
        for (host, people) in [("here", &HERE[..]), ("there", &THERE[..])] {
            let users = people
                .iter()
                .map(|(name, id)| format!("{name}:x:{id}:{id}::/root:/bin/sh\n"));
            plant::file(
                yard.join(format!("{host}/passwd")),
                users.collect::<String>(),
            );
            let groups = people.iter().map(|(name, id)| format!("{name}:x:{id}:\n"));
            plant::file(
                yard.join(format!("{host}/group")),
                groups.collect::<String>(),
            );
        }
        let hosts = Self {
            sshd: Sshd::start(&yard.join("sshd"), ""),
            yard,
        };
        hosts.script("here/run", "here", "\"$@\"");
        let server = format!("'{}' \"$@\"", subject::server().display());
        hosts.script("there/sy", "there", &server);
        hosts.script("there/rsync", "there", "rsync \"$@\"");
        let src = hosts.path("src");
        for (number, (id, _)) in BECOMES.into_iter().enumerate() {
            // The groups go another way round than the users.
            let group = BECOMES[(number + 3) % BECOMES.len()].0;
            let (dir, large) = (
                src.join(format!("d{number}")),
                src.join(format!("l{number}")),
            );
            plant::file(dir.join("small"), format!("of {id}"));
            plant::file(&large, content::noise(number as u64, 300_000));
            plant::symlink("anything", dir.join("link"));
            plant::fifo(dir.join("fifo"));
            let below = ["small", "link", "fifo"].map(|name| dir.join(name));
            for path in [&dir, &large].into_iter().chain(&below) {
                plant::chown(path, id, group);
            }
        }
        plant::chown(&src, 70_001, 70_002);
        hosts
    }

    fn path(&self, name: &str) -> PathBuf {
        self.yard.join(name)
    }

    /// A script that runs a command with the users and groups of that host.
    fn script(&self, name: &str, host: &str, command: &str) {
        let host = self.path(host).display().to_string();
        let script = format!(
            "#!/bin/sh\n[ \"$NAMES\" = {host} ] || NAMES={host} exec unshare -m \"$0\" \"$@\"\n\
             mount --bind {host}/passwd /etc/passwd || exit 99\n\
             mount --bind {host}/group /etc/group || exit 99\nexec {command}\n"
        );
        plant::file(self.path(name), script);
        plant::chmod(self.path(name), 0o755);
    }

    fn push(&self, dest: &str) -> Push {
        let mut to = std::ffi::OsString::from("127.0.0.1:");
        to.push(self.path(dest));
        let push = self.sshd.push_to(to).option("--sy-path");
        push.option(self.path("there/sy"))
            .through(&[self.path("here/run")])
            .from(slash(self.path("src")))
    }

    #[track_caller]
    fn rsync(&self, options: &[&str], dest: &str) {
        let status = Command::new(self.path("here/run"))
            .arg("rsync")
            .args(twin::AS_SY)
            .args(options)
            .args(["-e", &self.sshd.rsh(), "--rsync-path"])
            .arg(self.path("there/rsync"))
            .arg(slash(self.path("src")))
            .arg(format!("127.0.0.1:{}", self.path(dest).display()))
            .stdin(Stdio::null())
            .status();
        assert!(status.expect("rsync runs").success());
    }

    /// The source as it should be over there.
    fn expected(&self) -> Tree {
        let becomes = |id: u32| BECOMES.iter().find(|(here, _)| *here == id).expect("one").1;
        Tree::read(self.path("src")).mapped(|node| {
            (node.uid, node.gid) = (becomes(node.uid), becomes(node.gid));
            true
        })
    }

    /// Another push does nothing at all, not even to metadata.
    #[track_caller]
    fn assert_idle(&self, dest: &str, options: &[&str]) {
        let before = Tree::read(self.path(dest));
        let outcome = self.push(dest).options(options).option("-i").run().ok();
        assert!(outcome.stdout.is_empty(), "nothing to do: {outcome}");
        before.assert_untouched(&Tree::read(self.path(dest)), "second push");
    }
}

fn read(path: &Path) -> Tree {
    Tree::read(path)
}

#[test]
fn owners_arrive_by_name_as_rsync_brings_them() {
    require!(Need::Sy, Need::Ssh, Need::Mounts, Need::Tool("rsync"));
    let hosts = Hosts::new();
    hosts.push("dst").run().ok();
    hosts.rsync(&[], "twin");
    let dst = read(&hosts.path("dst"));
    hosts.expected().assert_equals(&dst, "by name");
    read(&hosts.path("twin")).assert_equals(&dst, "beside rsync's");
    hosts.assert_idle("dst", &[]);
    // What rsync has brought is right for sy, too.
    hosts.assert_idle("twin", &[]);
}

#[test]
fn numeric_ids_are_numbers_as_rsync_brings_them() {
    require!(Need::Sy, Need::Ssh, Need::Mounts, Need::Tool("rsync"));
    let hosts = Hosts::new();
    hosts.push("dst").option("--numeric-ids").run().ok();
    hosts.rsync(&["--numeric-ids"], "twin");
    let dst = read(&hosts.path("dst"));
    read(&hosts.path("src")).assert_equals(&dst, "by number");
    read(&hosts.path("twin")).assert_equals(&dst, "beside rsync's");
    hosts.assert_idle("dst", &["--numeric-ids"]);
    // And from numbers to names, by metadata alone.
    let summary = hosts.push("dst").option("--json").run().ok().summary();
    assert_eq!(summary.literal_bytes, 0, "owners send no content");
    let dst = read(&hosts.path("dst"));
    hosts.expected().assert_equals(&dst, "by name after all");
    hosts.assert_idle("dst", &[]);
}

#[test]
fn a_change_of_owner_is_followed_by_name_and_a_dry_run_tells_it() {
    require!(Need::Sy, Need::Ssh, Need::Mounts);
    let hosts = Hosts::new();
    hosts.push("dst").run().ok();
    plant::chown(hosts.path("src/d0/small"), 70_001, 70_002);
    plant::chown(hosts.path("src/l0"), 70_002, 0);
    plant::chown(hosts.path("src/d0"), 70_005, 70_005);
    let before = read(&hosts.path("dst"));
    let dry = hosts.push("dst").option("-n").run().ok();
    let said = String::from_utf8_lossy(&dry.stdout).into_owned();
    assert!(said.contains("d0/small") && said.contains("l0"), "{dry}");
    assert!(!said.contains("l1"), "{dry}");
    before.assert_untouched(&read(&hosts.path("dst")), "dry run");
    hosts.push("dst").run().ok();
    let dst = read(&hosts.path("dst"));
    hosts.expected().assert_equals(&dst, "after the change");
    hosts.assert_idle("dst", &[]);
}

#[test]
fn a_root_that_may_not_give_files_away_brings_them_as_its_own() {
    require!(Need::Sy, Need::Nobody);
    for route in [Route::Embedded, Route::Unix] {
        Scene::play(route, |scene| {
            let words = ["setpriv", "--bounding-set=-chown", "--inh-caps=-chown"];
            if route.has_server() {
                scene.serve(Server::new(scene.path()).through(&words));
            }
            for number in 0..20 {
                let path = scene.src().join(format!("d/f{number}"));
                plant::file(&path, "text");
                plant::chown(&path, 1000, 1000);
            }
            scene.push::<&str>(&[]).through(&words).run().ok();
            let expected = Tree::read(scene.src()).mapped(|node| {
                (node.uid, node.gid) = (0, 0);
                true
            });
            expected.assert_equals(&Tree::read(scene.dst()), "without CAP_CHOWN");
        });
    }
}
