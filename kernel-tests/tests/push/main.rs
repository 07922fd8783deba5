//! `sy push` and `sy-server` as black boxes. One binary, so that it is linked once; a file per
//! topic. Each scenario that can be is played embedded, over TCP, over a UNIX
//! socket and over ssh.

#![allow(clippy::print_stdout, reason = "what a failed test saw is printed")]
#![allow(
    clippy::cast_possible_truncation,
    reason = "counts of test files are small"
)]

mod acceptance;
mod checksum;
mod cli;
mod concurrent;
mod delete;
mod delta;
mod delta_costs;
mod delta_flips;
mod descriptors;
mod engines;
mod faults_network;
mod faults_process;
mod faults_storage;
mod figures;
mod hostile;
mod hostile_deltas;
mod hostile_floods;
mod hostile_frames;
mod hostile_server;
mod inplace;
mod locked_memory;
mod metadata;
mod million;
mod names;
mod no_proc;
mod other_host;
mod owners;
mod partial;
mod second_implementation;
mod source_changes;
mod sources;
mod sparse;
mod ssh;
mod types;
