//! Nouns that are valid once built: names, entries, listings, identifiers, what the user wants.

pub mod entry;
pub mod escape;
pub mod id;
pub mod listing;
pub mod module;
pub mod name;
pub mod owner;
pub mod partial;
pub mod policy;
pub mod report;
pub mod time;
