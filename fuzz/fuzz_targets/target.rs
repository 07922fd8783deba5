//! A whole session of the target, fed by a hostile source, on a simulated disk. Whatever is said:
//!
//! - nothing panics, and the session is over at the latest when its patience is;
//! - each frame that it answers is in order by the protocol;
//! - then no block, descriptor, lock or temp file is left of it;
//! - nothing outside of DEST has changed, no file that has another name outside was written through that, and
//!   in a dry run nothing at all has changed;
//! - each file that has a final name is as it was, or was said to its end (but for updates in place);
//! - without the rights to it there are no owners, no set-id bits and no nodes that were not there.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use sy::model::module::{Module, ModuleName, ModuleTable};
use sy::model::owner::Owner;
use sy::ops::disk::Identity;
use sy::session::target::{Doorkeeper, Exports, OwnRights};
use sy::session::{Session, Target};
use sy::sim::tree::Entry;
use sy::sim::{DiskOptions, Tree, oracle};
use sy::wire::hello::{Hello, Rights};
use sy_fuzz::as_source::AsSource;
use sy_fuzz::choices::Choices;
use sy_fuzz::planted::{self, bytes_of};
use sy_fuzz::rig::{Leave, Rig};
use sy_fuzz::said::Said;

/// What a source says in one input at most.
const STEPS_MAX: usize = 64;

fuzz_target!(|input: &[u8]| run(&mut Choices::new(input)));

fn run(choices: &mut Choices<'_>) {
    let flags = choices.word();
    let is = |bit: u32| flags & (1 << bit) != 0;
    let is_root = !is(0);
    let has_dest = !is(1);
    let is_module = !is(2);
    let mut options = DiskOptions {
        owners: vec![
            (Owner::user(1000), &b"ann"[..]),
            (Owner::group(1234), b"bob"),
        ],
        ..DiskOptions::default()
    };
    options.is_volatile = is(3);
    if !is_root {
        options.identity = Identity {
            uid: 1000,
            gid: 1000,
            is_root,
        };
    }
    let mut rig = Rig::new(choices, options);
    planted::target(&rig.disk, has_dest);
    if is(4) {
        rig.disk.set_capacity(rig.disk.used_bytes() + 100_000, 60);
    }
    let before = rig.disk.snapshot(b"/").expect("a root");
    let rights = Rights {
        owners: is_root && (!is_module || is(5)),
        setid: !is_module || is(6),
        nodes: is_root && (!is_module || is(7)),
    };
    let doorkeeper: Arc<dyn Doorkeeper> = if is_module {
        Arc::new(exports(rights))
    } else {
        Arc::new(OwnRights {
            is_root,
            home: vec![b"t".to_vec()],
        })
    };
    let target = Target::new(doorkeeper, is(8));
    rig.open(Session::Target(Box::new(target)));
    let mut source = AsSource::default();
    if !is(9) {
        source.hello(choices, is_module, &mut rig);
    }
    for _ in 0..STEPS_MAX {
        if choices.is_over() || rig.is_over() {
            break;
        }
        source.step(choices, &mut rig);
    }
    let leaves = [Leave::Close, Leave::EndSending, Leave::Reset, Leave::Stay];
    let session = rig.leave(leaves[usize::from(flags >> 14)]);
    let Session::Target(target) = &session else {
        unreachable!("a target was opened")
    };
    assert_eq!(target.frames_held_count(), 0, "frames are still counted");
    source.take(&mut rig);
    drop(session);
    rig.check_returned();
    let after = rig.disk.snapshot(b"/").expect("a root");
    let place = Place {
        is_module,
        has_dest,
        rights,
        own_uid: if is_root { 0 } else { 1000 },
    };
    place.check(&source.said, &before, &after);
}

fn exports(rights: Rights) -> Exports {
    let name = ModuleName::new(b"m").expect("a plain name");
    let mut modules = ModuleTable::default();
    let module = Module {
        name,
        root: OsStr::from_bytes(planted::ABOVE_DEST).into(),
        read_only: false,
    };
    modules.insert(module).expect("the only one");
    Exports { modules, rights }
}

struct Place {
    is_module: bool,
    has_dest: bool,
    rights: Rights,
    own_uid: u32,
}

impl Place {
    /// Paths are without the slash of the root.
    fn check(&self, said: &Said, before: &Tree, after: &Tree) {
        let hello = said.hello.as_ref();
        let may_change = hello.filter(|hello| !hello.policy.dry_run);
        let Some(hello) = may_change else {
            assert_good("changed without a reason", before.diff(after));
            return;
        };
        let Some(root) = self.root(hello) else {
            return; // Its user may go anywhere, and wanted to.
        };
        let is_inside = |path: &[u8]| {
            let below = path.strip_prefix(root);
            below.is_some_and(|below| below.is_empty() || below.starts_with(b"/"))
        };
        let other_name = &planted::OTHER_NAME[1..];
        let outside = |tree: &Tree| {
            let mut tree = tree.clone();
            let is_other = |path: &[u8]| path == other_name;
            tree.entries
                .retain(|path, _| !is_inside(path) && !is_other(path));
            tree
        };
        assert_good("outside of DEST", outside(before).diff(&outside(after)));
        let content = |tree: &Tree| tree.entries.get(other_name).map(|it| it.content.clone());
        assert_eq!(content(before), content(after), "through another name");
        assert_good("temp files stay", oracle::temps(after));
        for (path, entry) in &after.entries {
            if is_inside(path) && !oracle::is_ours(path) {
                self.check_entry(path, entry, before.entries.get(path), (hello, said));
            }
        }
    }

    fn check_entry(
        &self,
        path: &[u8],
        entry: &Entry,
        old: Option<&Entry>,
        (hello, said): (&Hello, &Said),
    ) {
        let shown = path.escape_ascii();
        if let Some(content) = bytes_of(entry)
            && !hello.policy.in_place
            && old.and_then(bytes_of) != Some(content)
        {
            assert!(said.is_whole(content), "{shown}: half a file");
        }
        let meta = entry.meta;
        if !self.rights.setid {
            assert_eq!(meta.mode & 0o6000, 0, "{shown}: set-id bits");
        }
        if !self.rights.owners && old.map(|old| old.meta.uid) != Some(meta.uid) {
            assert_eq!(meta.uid, self.own_uid, "{shown}: an owner");
        }
        if !self.rights.nodes && meta.kind.is_special() {
            let was = old.map(|old| old.meta.kind);
            assert_eq!(was, Some(meta.kind), "{shown}: a node");
        }
    }

    /// Where everything has to stay; `None`: no matter where.
    fn root(&self, hello: &Hello) -> Option<&'static [u8]> {
        let mut dest: Vec<&[u8]> = hello.dest.iter().map(|name| &**name).collect();
        if self.is_module || hello.dest_is_relative {
            dest.insert(0, b"t");
        }
        match &*dest {
            [b"t", b"dest", below @ ..] if self.has_dest => {
                let follows_link = !self.is_module && below.iter().any(|name| **name == *b"l");
                (!follows_link).then_some(b"t/dest")
            }
            _ if self.is_module => Some(b"t"),
            [b"t", b"dest"] => Some(b"t"),
            _ => None,
        }
    }
}

fn assert_good(what: &str, lines: Vec<String>) {
    assert!(lines.is_empty(), "{what}:\n  {}", lines.join("\n  "));
}
