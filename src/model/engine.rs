//! `EngineChoice`: which engine the user asked for.

/// What `--engine` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EngineChoice {
    /// The best engine that this kernel allows.
    #[default]
    Auto,
    /// io_uring, or nothing.
    Uring,
}

impl EngineChoice {
    /// Every value that `--engine` takes.
    pub const NAMES: [&'static str; 2] = ["auto", "uring"];

    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "auto" => Some(Self::Auto),
            "uring" => Some(Self::Uring),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engine_is_found_by_its_name() {
        for name in EngineChoice::NAMES {
            assert_eq!(EngineChoice::from_name(name).unwrap().name(), name);
        }
        assert_eq!(EngineChoice::from_name("Auto"), None);
    }
}
