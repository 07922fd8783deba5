//! FLOOR 5: `sy-server`, from the command line to the log.

pub mod args;
pub mod config;
pub mod log;
pub mod operator_file;
