//! Which programs are under test. `rsync` may stand in for both, to show that the tests can pass
//! and that their oracle agrees with a tool that is known to work.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Is `rsync` in sy's place?
pub fn is_stand_in() -> bool {
    std::env::var_os("SY_TESTS_SUBJECT").is_some_and(|value| value == "rsync")
}

/// The push client.
pub fn client() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| binary("sy"))
}

/// The server.
pub fn server() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| binary("sy-server"))
}

fn binary(name: &str) -> PathBuf {
    if is_stand_in() {
        return PathBuf::from("/usr/bin/rsync");
    }
    let mut dirs = Vec::new();
    if let Some(dir) = std::env::var_os("SY_BIN_DIR") {
        dirs.push(PathBuf::from(dir));
    } else {
        // The test binary is in target/PROFILE/deps.
        let test = std::env::current_exe().expect("a running program has a path");
        dirs.extend(test.ancestors().skip(2).take(1).map(Path::to_owned));
        dirs.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release"));
    }
    dirs.iter()
        .map(|dir| dir.join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| {
            panic!("no `{name}` in {dirs:?}: build it (cargo build --release), or set SY_BIN_DIR")
        })
}
