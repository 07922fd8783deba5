//! A whole session of the source, fed by a hostile target, on a simulated disk. Whatever is said:
//!
//! - nothing panics, and the session is over at the latest when its patience is;
//! - then no block, descriptor or lock is left of it, and its disk is as it was;
//! - each frame that it sends is in order by the protocol, and about directories that it declared;
//! - all content that it sends is that of files that are pushed, in their places; no symlink is followed to another;
//! - it deletes nothing that it may not, and changes nothing in a dry run;
//! - what it tells of the target's words is printable.
#![no_main]

use std::num::NonZeroU32;

use libfuzzer_sys::fuzz_target;
use sy::client::plan::Source as Typed;
use sy::client::{messages, sources};
use sy::limits::{DELTA_WINDOW_BLOCKS, DIGEST_OPEN_BYTES};
use sy::model::id::SessionId;
use sy::model::owner::Owner;
use sy::model::policy::{Durability, Policy, Sameness};
use sy::model::report::Tell;
use sy::ops::Disk;
use sy::session::{Session, Source};
use sy::sim::{DiskOptions, SimDisk};
use sy::stage::checks::CheckBounds;
use sy::stage::delta::DeltaRules;
use sy::stage::scan::LookAhead;
use sy::wire::hello::Hello;
use sy_fuzz::as_source::SUM_KEY;
use sy_fuzz::as_target::AsTarget;
use sy_fuzz::choices::Choices;
use sy_fuzz::planted;
use sy_fuzz::printable::assert_lines;
use sy_fuzz::rig::{Leave, Rig};

/// What a target says in one input at most.
const STEPS_MAX: usize = 64;

fuzz_target!(|input: &[u8]| run(&mut Choices::new(input)));

fn run(choices: &mut Choices<'_>) {
    let flags = choices.word();
    let options = DiskOptions {
        owners: vec![
            (Owner::user(1000), &b"ann"[..]),
            (Owner::group(1000), b"bob"),
        ],
        ..DiskOptions::default()
    };
    let mut rig = Rig::new(choices, options);
    planted::source(&rig.disk);
    let before = rig.disk.snapshot(b"/").expect("a root");
    let root = rig.disk.bystander();
    let stat = root.stat_operator_path(planted::SOURCE, false);
    let stat = stat.expect("it was planted");
    let source = source(choices, &rig.disk);
    rig.open(Session::Source(Box::new(source)));
    let mut target = AsTarget::new((stat.dev, stat.ino, root.boot_id()));
    target.hear(&mut rig);
    if flags & 1 == 0 {
        target.welcome(choices, &mut rig);
    }
    for _ in 0..STEPS_MAX {
        if choices.is_over() || rig.is_over() {
            break;
        }
        target.step(choices, &mut rig);
    }
    let leaves = [Leave::Close, Leave::EndSending, Leave::Reset, Leave::Stay];
    let session = rig.leave(leaves[usize::from(flags >> 14)]);
    target.hear(&mut rig);
    let Session::Source(mut source) = session else {
        unreachable!("a source was opened")
    };
    while let Some(tell) = source.next_tell() {
        if let Tell::Trouble(trouble) = &tell {
            assert_lines(&messages::trouble(trouble).to_string());
        }
    }
    assert!(source.outcome().is_err() || source.is_greeted());
    drop(source);
    rig.check_returned();
    let lines = before.diff(&rig.disk.snapshot(b"/").expect("a root"));
    assert!(lines.is_empty(), "the source changed: {lines:?}");
}

fn source(choices: &mut Choices<'_>, disk: &SimDisk) -> Source<SimDisk> {
    let flags = choices.word();
    let is = |bit: u32| flags & (1 << bit) != 0;
    let typed = choices.pick::<&[&[u8]]>(&[
        &[b"/src/"],
        &[b"/src/"],
        &[b"/src"],
        &[b"/src/big"],
        &[b"/src/b/", b"/src/c/", b"/src/gap"],
    ]);
    let typed: Vec<Typed> = typed
        .iter()
        .map(|path| Typed {
            path: path.to_vec(),
            contents: path.ends_with(b"/"),
        })
        .collect();
    let mut sources = sources::open(disk, &typed);
    sources.dest_name = Some(b"renamed".as_slice().into());
    let sameness = choices.pick(&[
        Sameness::SizeAndTime,
        Sameness::Content,
        Sameness::Size,
        Sameness::Never,
    ]);
    let policy = Policy {
        dry_run: is(0) && is(1),
        delete: is(2),
        tell_deletes: is(3),
        allow_empty_source: is(4),
        durability: Durability::None,
        numeric_ids: is(5),
        partial: is(6),
        resume: is(6) && is(7),
        in_place: is(8),
        sameness,
        ..Policy::default()
    };
    let hello = Hello {
        session: SessionId(7),
        policy,
        patience: NonZeroU32::new(60),
        boot_id: disk.boot_id(),
        sum_key: SUM_KEY,
        module: b"m".to_vec(),
        dest: vec![b"renamed".to_vec()],
        dest_is_relative: false,
        dest_is_dir: sources.single_file.is_none(),
        single_file: sources.single_file.is_some(),
    };
    let mut source = Source::new(hello, is(4), true, sources);
    if is(9) {
        source.look_ahead(LookAhead {
            bytes_max: 2000,
            batch_dirs_max: 1,
        });
        source.bound_checks(CheckBounds {
            files_max: 2,
            budget_bytes: DIGEST_OPEN_BYTES + 1000,
        });
    }
    if !is(10) {
        source.send_deltas(DeltaRules {
            bytes_min: choices.pick(&[4096, 1, 262_145]),
            window_blocks: choices.pick(&[DELTA_WINDOW_BLOCKS, 1, 3, 64]),
            block_bytes: choices.pick(&[None, Some(8192)]),
            open_max: choices.pick(&[12, 1, 2]),
            only_partials: is(11) && is(12),
        });
    }
    source
}
