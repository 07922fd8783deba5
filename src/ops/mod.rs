//! The words in which work is asked for and answered: buffers, the disk's calls, errno.

pub mod buf;
pub mod disk;
pub mod op;

pub use buf::{BlockPool, Buf};
pub use disk::Disk;
/// A kernel error number; every floor speaks of failures in these.
pub use rustix::io::Errno;
