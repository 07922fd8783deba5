//! Job bodies: batches of plain disk calls over `ops::Disk`, run by the engine's pool or by the
//! simulator. A job is given everything by value, works until it is done or its budget is spent,
//! and comes back with its buffers and one outcome for each entry that deserves one.
//!
//! | job | side | what it does |
//! |---|---|---|
//! | `ListSource` | source | lists, stats and sorts directories |
//! | `PackJob` | source | reads small files into a PACK |
//! | `OpenLarge`, `CheckLarge` | source | before and after a large file's content |
//! | `MatchChunk` | source | matches a chunk with the sums of its basis |
//! | `DigestFiles` | both | reads files for the digests of their contents |
//! | `OpenDest` | target | finds or makes DEST |
//! | `ResolveOwners` | target | finds the numbers of declared owners |
//! | `ListTarget` | target | lists directories into LISTING frames |
//! | `ApplyPack` | target | applies a PACK, deletions included, in two passes |
//! | `Sign` | target | sums blocks of basis files |
//! | `Weave` | target | puts a chunk together of its basis and literals |
//! | `Punch` | target | makes a hole in a file that is updated in place |
//! | `EndLarge` | target | names a large file, or drops it |
//! | `Release` | target | lets go of an old version |
//! | `Finish`, `Retire` | target | syncs, and removes the unclean marker |

pub mod apply_pack;
pub mod basis;
pub mod dest;
pub mod digest;
pub mod dir;
pub mod entry;
pub mod in_place;
pub mod large;
pub mod list;
pub mod marker;
pub mod matching;
pub mod own_name;
pub mod owners;
pub mod partial;
pub mod prune;
pub mod read_pack;
pub mod tree;
pub mod used;
pub mod walk;

use crate::ops::Disk;
use crate::ops::op::{Job, JobKind, Progress};

/// Any job of a session.
pub enum Work<D: Disk> {
    ListSource(list::ListSource<D>),
    Pack(read_pack::PackJob<D>),
    OpenLarge(large::OpenLarge<D>),
    CheckLarge(large::CheckLarge<D>),
    Match(Box<matching::MatchChunk<D>>),
    Digest(Box<digest::DigestFiles<D>>),
    OpenDest(Box<dest::OpenDest<D>>),
    ResolveOwners(owners::ResolveOwners<D>),
    ListTarget(Box<list::ListTarget<D>>),
    Apply(Box<apply_pack::ApplyPack<D>>),
    Sign(Box<basis::Sign<D>>),
    Weave(Box<basis::Weave<D>>),
    Punch(in_place::Punch<D>),
    EndLarge(large::EndLarge<D>),
    Release(large::Release<D>),
    Finish(dest::Finish<D>),
    Retire(dest::Retire<D>),
}

impl<D: Disk> Job<D> for Work<D> {
    fn run(&mut self, disk: &D) -> Progress {
        match self {
            Self::ListSource(job) => return job.run(disk),
            Self::ListTarget(job) => return job.run(disk),
            Self::Apply(job) => return job.run(disk),
            Self::CheckLarge(job) => return job.run(disk),
            Self::Pack(job) => job.run(disk),
            Self::OpenLarge(job) => job.run(disk),
            Self::Match(job) => job.run(disk),
            Self::Digest(job) => job.run(disk),
            Self::OpenDest(job) => job.run(disk),
            Self::ResolveOwners(job) => job.run(disk),
            Self::Sign(job) => job.run(disk),
            Self::Weave(job) => job.run(disk),
            Self::Punch(job) => job.run(disk),
            Self::EndLarge(job) => job.run(disk),
            Self::Release(job) => job.run(),
            Self::Finish(job) => job.run(disk),
            Self::Retire(job) => job.run(disk),
        }
        Progress::Done
    }

    fn kind(&self) -> JobKind {
        match self {
            Self::ListSource(_) => JobKind::ListSource,
            Self::Pack(_) => JobKind::ReadPack,
            Self::ListTarget(_) => JobKind::ListTarget,
            Self::Apply(_) => JobKind::ApplyPack,
            Self::Match(_) => JobKind::Match,
            Self::Digest(_) => JobKind::Digest,
            Self::Sign(_) => JobKind::Sign,
            Self::Weave(_) => JobKind::Weave,
            Self::EndLarge(_) => JobKind::CommitLarge,
            Self::Finish(_) | Self::Retire(_) => JobKind::Sync,
            Self::OpenLarge(_)
            | Self::CheckLarge(_)
            | Self::OpenDest(_)
            | Self::ResolveOwners(_)
            | Self::Punch(_)
            | Self::Release(_) => JobKind::Other,
        }
    }

    fn entries_made(&self) -> u32 {
        match self {
            Self::Apply(job) => job.entries_made,
            Self::ListSource(_)
            | Self::Pack(_)
            | Self::OpenLarge(_)
            | Self::CheckLarge(_)
            | Self::Match(_)
            | Self::Digest(_)
            | Self::OpenDest(_)
            | Self::ResolveOwners(_)
            | Self::ListTarget(_)
            | Self::Sign(_)
            | Self::Weave(_)
            | Self::Punch(_)
            | Self::EndLarge(_)
            | Self::Release(_)
            | Self::Finish(_)
            | Self::Retire(_) => 0,
        }
    }
}
