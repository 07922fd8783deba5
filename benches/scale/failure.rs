//! Why a row, or the whole bench, could not go on.

use std::io;

pub type Result<T> = std::result::Result<T, Failure>;

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("interrupted")]
    Interrupted,
    #[error("{doing}: {source}")]
    Io {
        doing: String,
        #[source]
        source: io::Error,
    },
    /// A process under test did something else than what was asked.
    #[error("{0}")]
    Tool(String),
    /// The machine or the command line lacks something.
    #[error("{0}")]
    Unfit(String),
}

/// Says what was being done when a call failed.
pub trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Failure::Io {
            doing: what(),
            source: error.into(),
        })
    }
}
