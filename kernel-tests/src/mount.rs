//! File systems that end with the test: small, or of another kind.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::Yard;

/// A mounted file system, unmounted when dropped.
pub struct Mount {
    at: PathBuf,
}

impl Mount {
    /// A tmpfs with options such as `size=4m` or `nr_inodes=100`.
    #[track_caller]
    pub fn tmpfs(at: &Path, options: &str) -> Self {
        crate::plant::dir(at);
        assert!(
            mounts(&["-t", "tmpfs", "-o", options, "tmpfs"], at),
            "mount a tmpfs"
        );
        Self { at: at.to_owned() }
    }

    /// A new ext4 of so many bytes, made with these options of mkfs.
    #[track_caller]
    pub fn ext4(at: &Path, image: &Path, bytes: u64, options: &[&str]) -> Self {
        Self::image(
            at,
            image,
            bytes,
            &[&["mkfs.ext4", "-q", "-F"], options].concat(),
        )
    }

    /// A new btrfs that counts what its trees hold, so that they can be limited.
    #[track_caller]
    pub fn btrfs_with_quotas(at: &Path, image: &Path, bytes: u64) -> Self {
        let mount = Self::image(at, image, bytes, &["mkfs.btrfs", "-q", "-f"]);
        mount.btrfs(&["quota", "enable"]);
        mount
    }

    #[track_caller]
    fn image(at: &Path, image: &Path, bytes: u64, mkfs: &[&str]) -> Self {
        crate::plant::dir(at);
        let file = std::fs::File::create(image).expect("an image can be made");
        file.set_len(bytes).expect("an image can be sparse");
        let made = quiet(Command::new(mkfs[0]).args(&mkfs[1..]).arg(image));
        assert!(made, "{mkfs:?}");
        let image = image.to_str().expect("a path of ours");
        assert!(
            mounts(&["-o", "loop", image], at),
            "mount what {} made",
            mkfs[0]
        );
        Self { at: at.to_owned() }
    }

    /// Limits what the tree may hold, such as `4M`; `none`: no more.
    #[track_caller]
    pub fn limit(&self, limit: &str) {
        self.btrfs(&["qgroup", "limit", limit]);
    }

    #[track_caller]
    fn btrfs(&self, words: &[&str]) {
        assert!(
            quiet(Command::new("btrfs").args(words).arg(&self.at)),
            "btrfs {words:?}"
        );
    }

    /// Changes its options.
    #[track_caller]
    pub fn remount(&self, options: &str) {
        assert!(
            mounts(&["-o", &format!("remount,{options}")], &self.at),
            "remount {options}"
        );
    }

    pub fn tmpfs_works() -> bool {
        static WORKS: OnceLock<bool> = OnceLock::new();
        *WORKS.get_or_init(|| {
            let yard = Yard::new();
            let works = mounts(&["-t", "tmpfs", "tmpfs"], yard.path());
            works && quiet(Command::new("umount").arg(yard.path()))
        })
    }

    pub fn loop_works() -> bool {
        static WORKS: OnceLock<bool> = OnceLock::new();
        *WORKS.get_or_init(|| {
            let yard = Yard::new();
            let (image, at) = (yard.join("image"), yard.join("at"));
            std::fs::create_dir(&at).expect("a directory can be made");
            let file = std::fs::File::create(&image).expect("an image can be made");
            file.set_len(4 << 20).expect("an image can be sparse");
            let works = quiet(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))
                && mounts(
                    &["-o", "loop", image.to_str().expect("a path of ours")],
                    &at,
                );
            works && quiet(Command::new("umount").arg(&at))
        })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a killed process may still be letting go of it.
        if !quiet(Command::new("umount").arg(&self.at)) {
            quiet(Command::new("umount").arg("-l").arg(&self.at));
        }
    }
}

fn mounts(words: &[&str], at: &Path) -> bool {
    quiet(Command::new("mount").args(words).arg(at))
}

fn quiet(command: &mut Command) -> bool {
    let command = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
