//! sy: a file transfer server and push client for storage hosts.

pub mod client;
pub mod limits;
pub mod model;
pub mod ops;
pub mod server;
