//! The stages of a push as sans-I/O machines: they are told what happened and asked what to do,
//! in any interleaving, and touch no disk, socket, clock or thread.

pub mod checks;
pub mod delta;
pub mod generator;
pub mod packer;
pub mod scan;
pub mod sender;
