//! What one push may and should do: chosen by the user, sent in HELLO, enforced by the target.

/// How durable a push is when it reports success.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// In the page cache, as rsync; a marker makes a crash visible to the next push.
    #[default]
    None,
    /// One `syncfs` before the report.
    Session,
    /// Each file is synced before it gets its name, each directory before the report.
    File,
}

impl Durability {
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Session => "session",
            Self::File => "file",
        }
    }
}

/// What makes a file of the target count as the source's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sameness {
    /// The same size and time.
    #[default]
    SizeAndTime,
    /// The same size; a time that differs is mended.
    Size,
    /// Nothing: every file is sent again.
    Never,
    /// The same content, whatever its time; a time that differs is mended.
    Content,
}

/// The wishes of one push.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// Change nothing; say what would be done.
    pub dry_run: bool,
    /// Remove what the sources do not have.
    pub delete: bool,
    /// Entries that may be removed at most.
    pub delete_max: Option<u64>,
    /// Have every single deletion told, not only counted.
    pub tell_deletes: bool,
    /// Let an empty source empty the target.
    pub allow_empty_source: bool,
    pub durability: Durability,
    /// Owners keep their numbers, whatever their names.
    pub numeric_ids: bool,
    /// What changed is sent whole, and not as a delta of what the target has.
    pub whole_files: bool,
    /// What another push has kept of a large file is gone on from. The source's own affair, as `whole_files`,
    /// `sameness` and `block_bytes`.
    pub resume: bool,
    /// What arrived of a large file when the push breaks off is kept.
    pub partial: bool,
    /// Files that are there are updated where they stand, and not replaced.
    pub in_place: bool,
    pub sameness: Sameness,
    /// Bytes of a delta's blocks, a power of two; `None`: by the size of the file.
    pub block_bytes: Option<u32>,
}
