//! `SimDisk` beside `PosixDisk`: what the simulator says a disk does is what this host's disk
//! does, call by call and errno by errno.

use std::fs::DirBuilder;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use super::prng::Prng;
use super::tree::{Entry, Tree};
use super::{DiskOptions, SimClock, SimDisk};
use crate::engine::disk::PosixDisk;
use crate::limits::LINK_TARGET_BYTES_MAX;
use crate::model::entry::{Kind, Stat};
use crate::model::time::Mtime;
use crate::ops::disk::Lock;
use crate::ops::{Disk, Errno};

const CALLS_COUNT: usize = 2000;
const SEEDS_COUNT: u64 = 8;
/// Times before it were set by a call; later ones are the disk's own and differ: 2020-09-13.
const NOW_SEC: i64 = 1_600_000_000;

/// A directory on the real disk, removed with its guard. What is pushed into it goes into a
/// second one, because a symlink to `..` at the top leads out of that.
struct Outer(PathBuf);

impl Outer {
    fn new(seed: u64) -> Self {
        let path = std::env::temp_dir().join(format!("sy-agree-{}-{seed}", std::process::id()));
        DirBuilder::new().mode(0o755).create(&path).unwrap();
        DirBuilder::new()
            .mode(0o755)
            .create(path.join("base"))
            .unwrap();
        Self(path)
    }
}

impl Drop for Outer {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One disk on which the calls of a seed are made, with the descriptors that they left open.
struct Player<D: Disk> {
    disk: D,
    base: Vec<u8>,
    prng: Prng,
    names: Vec<Vec<u8>>,
    /// The first one stays.
    dirs: Vec<D::Fd>,
    files: Vec<D::Fd>,
    /// Bits of every mode: who is not root must not lock himself out, which is not simulated.
    own_mode: u16,
    can_make_devices: bool,
    can_give_away: bool,
}

/// Descriptors of a kind that a player holds.
const HELD_MAX: usize = 6;

impl<D: Disk> Player<D> {
    fn new(disk: D, base: &[u8], seed: u64) -> Self {
        let mut names: Vec<Vec<u8>> = (b'a'..=b'k').map(|letter| vec![letter]).collect();
        names.extend([b"\xff\n".to_vec(), b".sy.x".to_vec(), vec![b'n'; 255]]);
        // Too long for the disk.
        names.push(vec![b'n'; 256]);
        Self {
            own_mode: if disk.identity().is_root { 0 } else { 0o700 },
            dirs: vec![disk.open_operator_dir(base).unwrap()],
            disk,
            base: base.to_vec(),
            prng: Prng::new(seed),
            names,
            files: Vec::new(),
            can_make_devices: false,
            can_give_away: false,
        }
    }

    fn keep(held: &mut Vec<D::Fd>, prng: &mut Prng, fd: D::Fd) {
        if held.len() < HELD_MAX {
            held.push(fd);
        } else {
            let at = 1 + prng.index(HELD_MAX - 1);
            held[at] = fd;
        }
    }

    /// Makes the next call; what it was and what came of it.
    fn step(&mut self) -> String {
        let number = self.prng.below(34);
        if (14..24).contains(&number) && !self.files.is_empty() {
            return self.step_on_file(number);
        }
        let (disk, prng) = (&self.disk, &mut self.prng);
        let dir_index = prng.index(self.dirs.len());
        let dir = &self.dirs[dir_index];
        let name = &prng.pick(&self.names)[..];
        let shown = format!("{dir_index}/{}", name[..1].escape_ascii());
        let mode = *prng.pick(&[
            0o644, 0o600, 0o755, 0o4755, 0o2711, 0o2644, 0o1777, 0o7777, 0,
        ]) | self.own_mode;
        match number {
            0..3 => {
                let made = disk.make_dir(dir, name, mode);
                format!("make_dir {shown} {mode:o}: {made:?}")
            }
            3..5 => match disk.open_dir(dir, name) {
                Ok(fd) => {
                    Self::keep(&mut self.dirs, prng, fd);
                    format!("open_dir {shown}")
                }
                Err(errno) => format!("open_dir {shown}: {errno:?}"),
            },
            5..7 => match disk.open_file(dir, name) {
                Ok(fd) => {
                    // Sometimes what is no directory stands where one should.
                    let held = if prng.chance(100) {
                        &mut self.dirs
                    } else {
                        &mut self.files
                    };
                    Self::keep(held, prng, fd);
                    format!("open_file {shown}")
                }
                Err(errno) => format!("open_file {shown}: {errno:?}"),
            },
            7..9 | 14..16 => match disk.create_file(dir, name, mode) {
                Ok(fd) => {
                    Self::keep(&mut self.files, prng, fd);
                    format!("create_file {shown} {mode:o}")
                }
                Err(errno) => format!("create_file {shown}: {errno:?}"),
            },
            9 => format!("stat {dir_index}: {}", outcome(disk.stat(dir))),
            10 | 16 => format!("stat_at {shown}: {}", outcome(disk.stat_at(dir, name))),
            11 => {
                let mut found = Vec::new();
                let mut each = |name: &[u8]| found.push(name[..1].escape_ascii().to_string());
                let rewound = disk.rewind_dir(dir);
                let last = loop {
                    match disk.read_dir(dir, &mut Vec::new(), &mut each) {
                        Ok(true) => {}
                        last => break last,
                    }
                };
                found.sort();
                format!("read_dir {dir_index}: {rewound:?} {found:?} {last:?}")
            }
            12 | 17 => {
                let mut target = [b'?'; 3];
                let read = disk.read_link(dir, name, &mut target);
                format!("read_link {shown}: {read:?} {}", target.escape_ascii())
            }
            13 | 18 => {
                let targets: [&[u8]; 8] = [
                    b"a",
                    b"b/c",
                    b"..",
                    b"./d/",
                    b"\xff\n",
                    b"",
                    &[b'l'; LINK_TARGET_BYTES_MAX],
                    &[b'l'; LINK_TARGET_BYTES_MAX + 1],
                ];
                let target = *prng.pick(&targets);
                let made = disk.make_symlink(dir, name, target);
                let target = target[..target.len().min(3)].escape_ascii();
                format!("make_symlink {shown} -> {target}: {made:?}")
            }
            19 => {
                let kind = *prng.pick(&[
                    Kind::Fifo,
                    Kind::Socket,
                    Kind::CharDevice,
                    Kind::BlockDevice,
                    Kind::File,
                ]);
                if kind.is_device() && !self.can_make_devices {
                    return "a device that nobody may make".to_owned();
                }
                // Major 60 is for local experiments: no driver answers.
                let made = disk.make_node(dir, name, kind, mode, 0x3c00 + prng.below(4));
                format!("make_node {shown} {kind:?} {mode:o}: {made:?}")
            }
            20..=24 => {
                // Which of two bad names is answered for depends on the kernel.
                let names = &self.names[..self.names.len() - 1];
                let (from, to) = (prng.pick(names), prng.pick(names));
                let renamed = disk.rename(dir, from, to);
                let [from, to] = [from, to].map(|name| name[..1].escape_ascii());
                format!("rename {dir_index} {from} -> {to}: {renamed:?}")
            }
            25 => format!("unlink {shown}: {:?}", disk.unlink(dir, name)),
            26 => format!("remove_dir {shown}: {:?}", disk.remove_dir(dir, name)),
            27 => {
                let set = disk.set_mode_at(dir, name, mode);
                format!("set_mode_at {shown} {mode:o}: {set:?}")
            }
            28 if self.can_give_away => {
                let (uid, gid) = owner(prng);
                let set = disk.set_owner_at(dir, name, uid, gid);
                format!("set_owner_at {shown} {uid} {gid}: {set:?}")
            }
            29 => {
                let mtime = old_time(prng);
                let set = disk.set_mtime_at(dir, name, mtime);
                format!("set_mtime_at {shown} {mtime:?}: {set:?}")
            }
            30 => {
                let lock = *prng.pick(&[Lock::Shared, Lock::Exclusive]);
                let locked = disk.try_lock(dir, lock);
                format!("try_lock dir {dir_index} {lock:?}: {locked:?}")
            }
            31 => {
                let mut path = self.base.clone();
                let mut text = String::new();
                for _ in 0..1 + prng.index(3) {
                    let name = prng.pick(&self.names);
                    path.push(b'/');
                    path.extend(name);
                    text += &format!("/{}", name[..1].escape_ascii());
                }
                if prng.chance(200) {
                    path.push(b'/');
                    text.push('/');
                }
                let follow = prng.chance(500);
                let stat = outcome(disk.stat_operator_path(&path, follow));
                let opened = disk.open_operator_dir(&path).map(|_| ());
                format!("path {text} follow {follow}: {stat}; opened {opened:?}")
            }
            32 if self.dirs.len() > 1 => {
                let at = 1 + prng.index(self.dirs.len() - 1);
                drop(self.dirs.remove(at));
                format!("close dir {at}")
            }
            33 if !self.files.is_empty() => {
                let at = prng.index(self.files.len());
                drop(self.files.remove(at));
                format!("close file {at}")
            }
            _ => "nothing".to_owned(),
        }
    }

    fn step_on_file(&mut self, number: u64) -> String {
        let (disk, prng) = (&self.disk, &mut self.prng);
        let index = prng.index(self.files.len());
        let fd = &self.files[index];
        match number {
            14 | 15 => {
                let mut bytes = vec![0; 1 + prng.index(6000)];
                prng.fill(&mut bytes);
                let offset = prng.below(10_000);
                let len = if prng.chance(100) { 0 } else { bytes.len() };
                let written = disk.write(fd, &bytes[..len], offset);
                format!("write {index} {len} at {offset}: {written:?}")
            }
            16 | 17 => {
                let mut bytes = vec![0; 1 + prng.index(6000)];
                let offset = prng.below(10_000);
                let read = disk.read(fd, &mut bytes, offset);
                let sum = bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
                format!("read {index} at {offset}: {read:?} {sum}")
            }
            18 | 19 => {
                let bytes = prng.below(20_000);
                let set = disk.set_size(fd, bytes);
                format!("set_size {index} {bytes}: {set:?}")
            }
            20 => {
                let mode = *prng.pick(&[0o644, 0o4755, 0o2644, 0o7777]) | self.own_mode;
                format!("set_mode {index}: {:?}", disk.set_mode(fd, mode))
            }
            21 => {
                let (mtime, (uid, gid)) = (old_time(prng), owner(prng));
                let set = disk.set_mtime(fd, mtime);
                let given = self.can_give_away.then(|| disk.set_owner(fd, uid, gid));
                format!("set_mtime, set_owner {index} {uid} {gid}: {set:?} {given:?}")
            }
            22 => {
                let lock = *prng.pick(&[Lock::Shared, Lock::Exclusive]);
                let result = if prng.chance(300) {
                    disk.unlock(fd).map(|()| true)
                } else {
                    disk.try_lock(fd, lock)
                };
                format!("lock file {index} {lock:?}: {result:?}")
            }
            _ if prng.chance(50) => format!("sync_file {index}: {:?}", disk.sync_file(fd)),
            _ => format!("stat file {index}: {}", outcome(disk.stat(fd))),
        }
    }
}

fn owner(prng: &mut Prng) -> (u32, u32) {
    let ids = [0, 7, 65_534, u32::MAX];
    (*prng.pick(&ids), *prng.pick(&ids))
}

fn old_time(prng: &mut Prng) -> Mtime {
    Mtime {
        sec: i64::try_from(prng.below(1_000_000_000)).unwrap(),
        nsec: u32::try_from(prng.below(1_000_000_000)).unwrap(),
    }
}

/// A stat without what differs between disks: numbers, the size and links of a directory, and
/// the moment at which the disk itself was touched.
fn outcome(stat: Result<Stat, Errno>) -> String {
    let stat = match stat {
        Ok(stat) => stat,
        Err(errno) => return format!("{errno:?}"),
    };
    let counts = if stat.kind == Kind::Dir {
        String::new()
    } else {
        format!("{} bytes, {} links", stat.size, stat.nlink)
    };
    let mtime = comparable(stat.mtime);
    let Stat {
        kind,
        mode,
        uid,
        gid,
        ..
    } = stat;
    format!("{kind:?} {mode:o} {uid}:{gid} {counts} {mtime:?}")
}

fn comparable(mtime: Mtime) -> Option<Mtime> {
    (mtime.sec < NOW_SEC).then_some(mtime)
}

fn without_new_times(mut tree: Tree) -> Tree {
    for entry in tree.entries.values_mut() {
        entry.meta.mtime = comparable(entry.meta.mtime).unwrap_or_default();
    }
    tree
}

#[test]
fn the_simulated_disk_agrees_with_the_real_one() {
    // `PosixDisk` counts on it for exact modes.
    rustix::process::umask(rustix::fs::Mode::empty());
    let mut errnos = std::collections::BTreeSet::new();
    for seed in 0..SEEDS_COUNT {
        let outer = Outer::new(seed);
        let real_base = outer.0.join("base").as_os_str().as_bytes().to_vec();
        let options = DiskOptions {
            identity: PosixDisk.identity(),
            ..DiskOptions::default()
        };
        let sim_disk = SimDisk::new(options.clone(), SimClock::default(), seed);
        let mut tree = Tree::empty().with(b"base", Entry::dir(0o755));
        for entry in tree.entries.values_mut() {
            (entry.meta.uid, entry.meta.gid) = (options.identity.uid, options.identity.gid);
            entry.meta.mtime.sec = NOW_SEC;
        }
        sim_disk.plant(b"/outer", &tree).unwrap();

        let mut real = Player::new(PosixDisk, &real_base, seed);
        let mut sim = Player::new(sim_disk, b"/outer/base", seed);
        probe(&mut real);
        sim.can_make_devices = real.can_make_devices;
        sim.can_give_away = real.can_give_away;
        let mut story = Vec::new();
        for number in 0..CALLS_COUNT {
            let (wanted, found) = (real.step(), sim.step());
            let tail = &story[story.len().saturating_sub(30)..];
            assert_eq!(
                wanted, found,
                "seed {seed}, call {number}: the real disk (left) after {tail:#?}"
            );
            let told = wanted.split("code: ").skip(1);
            errnos.extend(told.filter_map(|rest| Some(rest.split_once(',')?.0.to_owned())));
            story.push(wanted);
        }
        let real_tree = without_new_times(Tree::read_from(&PosixDisk, &real.dirs[0]).unwrap());
        let sim_tree = without_new_times(Tree::read_from(&sim.disk, &sim.dirs[0]).unwrap());
        assert_eq!(real_tree.diff(&sim_tree), [""; 0], "seed {seed}");
        let snapshot = without_new_times(sim.disk.snapshot(b"/outer/base").unwrap());
        assert_eq!(sim_tree.diff(&snapshot), [""; 0], "seed {seed}");
        assert!(real_tree.entries.len() > 10);
    }
    assert!(errnos.len() > 10, "the same errnos, but few: {errnos:?}");
    println!("both disks gave the errnos {errnos:?}");
}

/// Finds out what this host's disk lets this user do.
fn probe(real: &mut Player<PosixDisk>) {
    let dir = &real.dirs[0];
    let device = PosixDisk.make_node(dir, b"probe", Kind::CharDevice, 0o600, 0x3c00);
    real.can_make_devices = device.is_ok();
    let _ = PosixDisk.unlink(dir, b"probe");
    let file = PosixDisk.create_file(dir, b"probe", 0o600).unwrap();
    real.can_give_away = PosixDisk.set_owner(&file, 7, 7).is_ok();
    PosixDisk.unlink(dir, b"probe").unwrap();
}
