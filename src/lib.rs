//! sy: `sy-server`, a file transfer server for storage hosts, and `sy push`, which sends it a tree.
//!
//! This page is the map: the floors, the way of the data, where memory ends, how an error travels,
//! and where to begin reading. What travels between the two ends is specified in [`wire`].
//!
//! # Floors
//!
//! ```text
//!  6  bin                        sy, sy-server, sy-sim
//!  5  client    server           words for people: command lines, modules, progress, log
//!  4  engine    sim              meets the kernel: ring, pool, disk, clock · pretends to be it
//!     ═══════ the seam: ops::op::Ring and ops::disk::Disk ═══════
//!  3  session                    one connection as one machine: Source, Target, and Port
//!  2  stage     job              decisions without a disk · batches of plain disk calls
//!  1  wire      delta            bytes ↔ frames · two versions of a file ↔ what they share
//!  0  model     ops     limits   nouns · requests to a kernel · every number
//! ```
//!
//! A file uses its own floor and those below. `tidy`, a unit test, holds that, and that floors 0
//! to 3 contain no system call, clock, thread, `async`, `unsafe` or printing.
//!
//! # The way of a push
//!
//! ```text
//!   sy push                                              sy-server
//!   ───────                                              ─────────
//!   jobs: list directories        read small files       jobs: list, apply PACKs, name files
//!            │                       ▲   │                      ▲        │
//!            ▼                       │   ▼                      │        ▼
//!   scan ──▶ generator ──▶ packer, sender                     target ──▶ frames back
//!               ▲                    │                          ▲
//!               │ LISTING            │ PACK, DATA               │ frames
//!   ┌───────────┴────────────────────▼─────┐          ┌─────────┴───────────┐
//!   │ port: frames ↔ ops                   │          │ port: frames ↔ ops  │
//!   └──────────────────┬───────────────────┘          └─────────┬───────────┘
//!                    driver                                  driver
//!                     ring ═══════════ byte stream ═══════════ ring
//! ```
//!
//! [`stage::scan`] says which directory to list next. [`stage::generator`] merges what a job found
//! there with the target's LISTING of it and gives each name a verdict; where the content of a file is to
//! decide, [`stage::checks`] has both sides read it first. [`stage::packer`] cuts what
//! is to be done into PACKs, which jobs fill with small files, straight into the block that is sent;
//! [`stage::sender`] reads large ones chunk by chunk. [`session::source`] joins the four.
//! [`session::target`] has PACKs applied in order, their entries side by side, writes chunks as they come, and reports.
//! Files get their names when they are whole; those that are updated in place ([`job::in_place`]) their times.
//!
//! Over ssh the stream is a socket pair to our own `ssh` ([`client::rsh`]) at one end, and what sshd
//! gave the server as stdin and stdout ([`server::stdio`]), mostly two pipes, at the other.
//!
//! A push to a local path is the same two sessions in one thread, [`session::port::Link::Pair`]:
//! blocks change hands instead of being sent. There is no second code path.
//!
//! # The seam
//!
//! Everything above the engine is a machine with two doors: `handle` takes what happened,
//! `poll_action` gives what to do next, in any interleaving, with the time as an argument. Nothing
//! blocks, nothing calls back. What a machine wants of the world is an [`ops::op::Op`] that moves,
//! with its buffer, through [`ops::op::Ring`] to the kernel, and comes back in a completion.
//!
//! **Jobs are above the seam, too.** Listing, temp names, metadata, renames and deletions are
//! batches of calls for which io_uring has no operation or no advantage. Their bodies, in [`job`], are
//! ordinary functions over the trait [`ops::disk::Disk`]; a thread pool runs them on
//! [`engine::disk::PosixDisk`]. They have a budget: a giant directory goes back in line like anybody else.
//!
//! So a whole push runs in memory, too. [`sim`] puts disks, streams, a clock and a ring in the
//! kernel's place, draws everything that goes wrong from one seed, and checks what is left:
//! `sy-sim SEED` is a complete bug report.
//!
//! # Lanes
//!
//! A file read or write goes down the way that is fastest on its file system: an entry of the ring,
//! a plain call in the loop, or a plain call on the pool. [`engine::lanes`] holds the table and
//! the measurements behind it; `sy-server doctor` shows it. Sockets are always the ring's, jobs
//! always the pool's, and what syncs a file system has a thread of its own.
//!
//! Where a host refuses io_uring, [`engine::portable`] stands behind the same seam: epoll for the sockets, and the pool
//! for what would be an entry of the ring. [`engine::posix`] is the one of the two that runs.
//!
//! # Where memory ends
//!
//! Every bound is in [`limits`], with its reason.
//!
//! | what | bounded by |
//! |---|---|
//! | blocks, for everything that is sent, received, read or written | the arena, mapped once per shard |
//! | of these, a session's | `SEND_BLOCKS_PER_SESSION_MAX`, `RECV_BLOCKS_PER_SESSION_MAX`; an idle one holds none |
//! | listings ahead of the merge | `LOOKAHEAD_BYTES_MAX`, bytes and not directories |
//! | after a merge | the names of subdirectories, until they are closed |
//! | the target's listings | merged as they arrive; only names to delete are kept |
//! | one directory | `DIR_ENTRIES_MAX`; it is held in memory once, in one arena |
//! | descriptors | `DIR_FDS_OPEN_MAX` directories a session; files: `LARGE_FILES_OPEN_MAX` at a source, `INCOMING_FILES_MAX` at a target |
//! | names of owners | `OWNERS_DECLARED_MAX`; a target keeps each until it is looked up, then numbers that differ |
//! | partial files | `PARTIALS_PER_DIR_MAX` of a directory, at either side; the others are let alone |
//! | sums of the blocks of old versions | `DELTA_SUMS_BYTES_MAX` at a source; a target sums what is asked for, and keeps none |
//! | files that are compared by content | `CHECK_FILES_MAX` a CHECK, `CHECKS_WAITING_MAX` CHECKs, their names and digests; besides, 16 bytes for each in a directory that waits for its verdicts |
//! | requests and notices that wait | `LISTS_WAITING_MAX`, `NOTICES_WAITING_MAX`; beyond them the target stops receiving |
//!
//! No side holds an index of the whole tree, with one exception: files above
//! `PACK_FILE_BYTES_MAX` that wait for their turn keep the plan of their directory alive, and nothing
//! bounds how many wait.
//!
//! # How an error travels
//!
//! | whose | where it begins | what happens | what people see |
//! |---|---|---|---|
//! | one entry of the source | a job's troubles | the push goes on | `sy: PATH: what: why`, exit 23 or 24 |
//! | one entry of the target | a job's outcomes → NOTICE | the push goes on | the same |
//! | the target's disk as a whole (full, read-only) | [`job::tree::Fatal`] → REPORT | the session ends | exit 11 |
//! | the peer | [`wire::WireError`] → [`session::SessionError`] → REFUSED | the session ends, others go on | exit 12, or 2 |
//! | the network | [`session::SessionError::Lost`], `Silent` | the session ends | exit 10, 30 |
//! | the remote shell | [`client::rsh::ShellEnd`], asked for where the stream is lost | the session ends | exit 10, 12, 126, 127; 2 for its noise |
//! | ours, in a job | an assertion, caught | that session ends | "internal error", exit 12 |
//! | ours, in the loop | an assertion, or a ring that fails | a server lets its other shards finish, and ends | one line in its log, exit 12 |
//!
//! An errno is never turned into text below floor 5, except into the target's last words. Advice
//! is added once, in [`client::messages`].
//!
//! # Reading
//!
//! 1. [`wire`]: what is said.
//! 2. [`ops::op`] and [`session`]: the words of the machines; then [`session::source`] and
//!    [`session::target`] from their `poll_action`.
//! 3. [`stage::generator`], [`job::apply_pack`], [`job::entry`], [`job::tree`]: what is decided, and how it is done.
//! 4. [`session::port`], [`engine::shard`], [`engine::driver`], [`engine::uring`]: down to the kernel;
//!    [`engine::portable`] is the short way there.
//! 5. [`client::run`] and [`server::run`]: how it is put together.

pub mod limits;
pub mod model;
pub mod ops;

pub mod delta;
pub mod wire;

pub mod job;
pub mod stage;

pub mod session;

pub mod engine;
pub mod sim;

pub mod client;
pub mod server;

#[cfg(test)]
mod tidy;
