//! The simulator: disks, streams, a clock and a ring that exist only in memory, so that both ends
//! of a push run in one thread and everything that can go wrong does.
//!
//! What stands in for what:
//!
//! | outside | here | what it may do |
//! |---|---|---|
//! | `PosixDisk` | [`SimDisk`] | fail or crash before any call, lose what was not synced |
//! | TCP | [`SimNet`] | cut, delay, stall and reset a stream at any byte, turn over a bit |
//! | a hostile peer | [`liar::Liar`] | say other frames than the session behind it, in good order |
//! | the ring and the pool | [`SimRing`] | end operations short, late and in any order |
//! | the clocks | [`SimClock`] | stand still until somebody moves it |
//! | local users | [`SimDisk::before_each_call`] | change the tree between any two calls |
//!
//! **Replay.** A run is a function of its seed. Every piece owns a [`Prng`] that descends from
//! that seed; nothing else chooses: no thread, no real clock, no map whose order is drawn by the
//! process. The same seed with the same options therefore repeats a run call by call, and a
//! failure is reported as that one number. A new draw anywhere shifts what follows, so a seed is
//! kept together with the story of what it found.
//!
//! **Stepping.** [`SimRing::submit_and_wait`](crate::ops::op::Ring::submit_and_wait) ends what is
//! due and returns at once; it never moves the clock, because the other side may have work at the
//! same instant. Whoever drives the sides gives each a turn until all are quiet (no
//! [`SimRing::next_due`] has passed), then moves the [`SimClock`] to the earliest of them. When
//! no side names a moment, they wait for each other for ever, and that is a finding.

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod by_hand;
pub mod clock;
#[cfg(test)]
mod digests;
#[cfg(test)]
mod dirs;
pub mod disk;
pub mod fault;
mod host;
#[cfg(test)]
mod in_place;
mod inode;
pub mod liar;
#[cfg(test)]
mod markers;
pub mod net;
pub mod oracle;
pub mod prng;
pub mod ring;
pub mod scenario;
#[cfg(test)]
mod seeds;
#[cfg(test)]
mod silence;
pub mod tree;
mod user;
mod weather;
pub mod world;

pub use clock::SimClock;
pub use disk::{SimDisk, SimFd};
pub use fault::{Call, CallKind, Crash, DiskFaults, DiskOptions};
pub use net::{NetOptions, SimNet};
pub use prng::Prng;
pub use ring::{RingWeather, SimRing, SimWorld};
pub use tree::{Shape, Tree};
