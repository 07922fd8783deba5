//! FLOOR 5: `sy-server`, from the command line to the log.

pub mod acceptor;
pub mod args;
pub mod config;
pub mod log;
pub mod operator_file;
pub mod run;
pub mod stdio;
pub mod turned_away;

#[cfg(test)]
mod testing {
    use std::fs::{self, Permissions};
    use std::ops::Deref;
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A directory of one test, removed when it ends.
    pub(super) struct Dir(PathBuf);

    impl Dir {
        pub(super) fn new(name: &str) -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let own = format!("sy-test-{name}-{}-{count}", std::process::id());
            let path = std::env::temp_dir().join(own);
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        /// A file that only its owner may write, whatever the umask is: another test sets it.
        pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
            path
        }
    }

    impl Deref for Dir {
        type Target = Path;

        fn deref(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }
}
