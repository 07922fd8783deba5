//! What holds at any instant of a push, however it ended.

use rustix::fs::FileType;

use crate::Tree;
use crate::subject;
use crate::tree::escaped;

/// Between an old tree and a new one that is pushed over it: each file is one whole version, what
/// both have is there, and nothing else is but sy's own names.
#[track_caller]
pub fn assert_between(old: &Tree, new: &Tree, now: &Tree, what: &str) {
    for (path, node) in now.entries() {
        let own = path
            .split(|&byte| byte == b'/')
            .next_back()
            .expect("a last name");
        // Temporary names: sy's, and those of the stand-in.
        if own.starts_with(b".sy.") || (subject::is_stand_in() && own.starts_with(b".")) {
            continue;
        }
        let versions = [old.find(&path), new.find(&path)];
        let name = escaped(&path);
        assert!(
            versions.iter().any(Option::is_some),
            "{what}: {name} came from nowhere"
        );
        if node.kind == FileType::RegularFile {
            let whole = versions.iter().flatten().any(|version| {
                version.kind == FileType::RegularFile
                    && (version.size, version.digest) == (node.size, node.digest)
            });
            assert!(whole, "{what}: {name} is torn ({} bytes)", node.size);
        }
    }
    for (path, _) in old.entries() {
        if new.find(&path).is_some() {
            let name = escaped(&path);
            assert!(
                now.find(&path).is_some(),
                "{what}: {name} was in both and is missing"
            );
        }
    }
}
