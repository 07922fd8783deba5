//! The engine: the only floor that meets the kernel. It implements what the floors above ask for
//! in the words of `ops`, and knows nothing of frames, sessions or trees.
//!
//! - `disk`: the file-system calls that job bodies make, for real;
//! - `arena`: the memory of the blocks; `uring` and it are the only files with `unsafe`;
//! - `pool`: threads for work that may block, and `bell`, by which a thread wakes a ring;
//! - `lanes`: on which way a file read or write goes: ring, inline or pool;
//! - `setup`: how a ring is set up on this kernel, under these limits;
//! - `entry`: what a ring is asked for, in the kernel's form;
//! - `uring`: the ring, the product's implementation of the seam;
//! - `zero_copy`: sends for which the kernel reads our memory itself;
//! - `driver`: finishes short and interrupted operations, above any implementation of the seam;
//! - `figures`: how long all that took;
//! - `probe`: what this host offers the engine, for `doctor`.

pub mod arena;
pub mod bell;
mod clock;
pub mod disk;
pub mod driver;
mod entry;
pub mod figures;
pub mod lanes;
#[cfg(test)]
mod nudge;
pub mod pool;
pub mod probe;
pub mod setup;
pub mod shard;
pub mod start;
#[cfg(test)]
mod testing;
pub mod uring;
mod user_data;
mod zero_copy;
