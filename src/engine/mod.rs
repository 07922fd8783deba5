//! The engine: the only floor that meets the kernel. It implements what the floors above ask for
//! in the words of `ops`, and knows nothing of frames, sessions or trees.
//!
//! - `disk`: the file-system calls that job bodies make, for real;
//! - `arena`: the memory of the blocks; `uring` and it are the only files with `unsafe`;
//! - `pool`: threads for work that may block, and `bell`, by which a thread wakes a ring;
//! - `lanes`: on which way a file read or write goes: ring, inline or pool;
//! - `setup`: how a ring is set up on this kernel, under these limits;
//! - `end`: a descriptor of a stream, in the mode that its ring needs;
//! - `entry`: what a ring is asked for, in the kernel's form;
//! - `uring`: the ring, the product's implementation of the seam;
//! - `portable`: another one, over epoll, for hosts that refuse the ring;
//! - `posix`: the one of the two that runs here;
//! - `off_ring`: what both do elsewhere: the other lanes, and the figures;
//! - `zero_copy`: sends for which the kernel reads our memory itself;
//! - `driver`: finishes short and interrupted operations, above any implementation of the seam;
//! - `figures`: how long all that took;
//! - `probe`: what this host offers the engine, for `doctor`.

pub mod arena;
pub mod bell;
mod clock;
pub mod disk;
pub mod driver;
mod end;
mod entry;
pub mod figures;
pub mod lanes;
#[cfg(test)]
mod nudge;
mod off_ring;
pub mod pool;
pub mod portable;
pub mod posix;
pub mod probe;
#[cfg(test)]
mod seam;
pub mod setup;
pub mod shard;
pub mod start;
#[cfg(test)]
mod testing;
pub mod uring;
mod user_data;
mod zero_copy;
