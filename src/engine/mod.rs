//! The engine: the only floor that meets the kernel. It implements what the floors above ask for
//! in the words of `ops`, and knows nothing of frames, sessions or trees.
//!
//! - `disk`: the file-system calls that job bodies make, for real;
//! - `arena`: the memory of the blocks; `uring` and it are the only files with `unsafe`;
//! - `pool`: threads for work that may block, and `bell`, by which a thread wakes a ring.

pub mod arena;
pub mod bell;
pub mod disk;
pub mod pool;
#[cfg(test)]
mod testing;
mod user_data;
