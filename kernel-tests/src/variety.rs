//! One tree with everything a push has to bring, the same each time it is made.

use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::{content, plant};

const LEVELS: u32 = 8;
const MODES: [u32; 8] = [0o644, 0o600, 0o755, 0o444, 0o400, 0o4755, 0o2775, 0o000];

/// Fills `root` with eight levels; at each one entry of every kind, with modes, owners, times and
/// names that change from level to level. Devices, sockets and owners need root.
#[track_caller]
pub fn plant_variety(root: &Path) {
    let mut dirs: Vec<PathBuf> = vec![root.to_owned()];
    for level in 0..LEVELS {
        let dir = dirs[level as usize].clone();
        plant_level(&dir, level);
        let name = match level % 4 {
            0 => format!("dir{level}"),
            1 => format!("dir with blanks {level}"),
            2 => format!("d\u{efc}r-\u{1f40c}-{level}"),
            _ => format!("-dir*?[{level}]"),
        };
        dirs.push(dir.join(name));
        plant::dir(&dirs[level as usize + 1]);
    }
    for (dir, level) in dirs
        .iter()
        .zip(0_u32..)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
    {
        let mode = [0o755, 0o700, 0o1777, 0o2755, 0o555, 0o500, 0o311, 0o6770][level as usize % 8];
        plant::chown(dir, level % 3, (level + 1) % 3);
        plant::chmod(dir, mode);
        plant::mtime(
            dir,
            900_000_000 + i64::from(level),
            111_111_111 * (level % 9),
        );
    }
}

fn plant_level(dir: &Path, level: u32) {
    let mode = |step: u32| MODES[((level + step) % 8) as usize];
    let regular = [
        ("empty", Vec::new()),
        ("no-newline", b"text without an end of line".to_vec()),
        ("text", content::text(1 + 7_000 * level as usize)),
        (
            "noise",
            content::noise(level.into(), 300_000 + 4096 * level as usize),
        ),
        (
            "name with 'quotes\" and \\",
            format!("{level}").into_bytes(),
        ),
    ];
    for (step, (name, bytes)) in (0..).zip(regular) {
        let path = dir.join(name);
        plant::file(&path, bytes);
        plant::chown(&path, (level + step) % 3, step % 3);
        plant::chmod(&path, mode(step));
    }
    plant::symlink("text", dir.join("link"));
    plant::symlink("../..", dir.join("link-up"));
    plant::symlink("/etc/passwd", dir.join("link-absolute"));
    plant::symlink(format!("nowhere-{level}"), dir.join("link-dangling"));
    plant::chown(dir.join("link"), level % 3, level % 2);
    plant::fifo(dir.join("fifo"));
    plant::node(dir.join("socket"), FileType::Socket, (0, 0));
    plant::node(dir.join("char"), FileType::CharacterDevice, (1, 3 + level));
    plant::node(dir.join("block"), FileType::BlockDevice, (7, level));
    plant::chmod(dir.join("fifo"), 0o640);
    plant::chown(dir.join("char"), 1, 2);
    for entry in std::fs::read_dir(dir).expect("a directory of ours") {
        let entry = entry.expect("an entry");
        let name = entry.file_name();
        let stamp: u32 = name
            .as_encoded_bytes()
            .iter()
            .map(|&byte| u32::from(byte))
            .sum();
        let seconds = [1_234_567_890, 1, -86_400, 4_294_967_296, 2_147_483_648][level as usize % 5];
        plant::mtime(
            entry.path(),
            seconds,
            (stamp * 77_777 + level * 999) % 1_000_000_000,
        );
    }
}
