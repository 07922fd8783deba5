//! The protocol.

pub mod cursor;
pub mod data;
pub mod error;
pub mod head;
pub mod hello;
pub mod list;
pub mod pack;
pub mod report;

pub use error::WireError;
pub use head::{FrameKind, Head, seal};

/// The version of the protocol that this is.
pub const VERSION: u16 = 1;
