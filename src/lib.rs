//! sy: a file transfer server and push client for storage hosts.

pub mod limits;
pub mod model;
pub mod ops;

pub mod wire;

pub mod job;
pub mod stage;

pub mod session;

pub mod engine;
pub mod sim;

pub mod client;
pub mod server;
