//! The engine: the only floor that meets the kernel. It implements what the floors above ask for
//! in the words of `ops`, and knows nothing of frames, sessions or trees.
//!
//! - `disk`: the file-system calls that job bodies make, for real;
//! - `arena`: the memory of the blocks; `uring` and it are the only files with `unsafe`.

pub mod arena;
pub mod disk;
#[cfg(test)]
mod testing;
