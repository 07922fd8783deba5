//! What a push says while it runs (`Tell`) and when it ends (`Ending`): facts, not sentences. The
//! client turns them into lines for people or for scripts.

use rustix::io::Errno;

use super::entry::Kind;
use super::policy::Durability;

/// Exit codes of `sy push`, rsync's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    /// Nonsense on the command line.
    Usage = 1,
    /// The two ends do not speak the same protocol version.
    Incompatible = 2,
    /// A source or DEST that can't be used.
    Selection = 3,
    /// The session did not start: unknown or read-only module, refused.
    Start = 5,
    /// Connection refused or lost.
    Socket = 10,
    /// A fatal error of the target's disk (full, read-only).
    FileIo = 11,
    /// The peer broke the protocol, or bits flipped on the way.
    Stream = 12,
    /// The remote shell could not be started here.
    Ipc = 14,
    /// SIGINT, SIGTERM or SIGHUP.
    Signal = 20,
    /// Some entries failed; each was named.
    Partial = 23,
    /// Some source files vanished during the push; each was named.
    Vanished = 24,
    /// `--max-delete` stopped deletions.
    DeleteLimit = 25,
    /// The peer was silent for too long.
    Timeout = 30,
    /// The server did not accept the connection in time.
    ConnectTimeout = 35,
    /// The remote shell could not run the server there.
    RemoteRun = 126,
    /// The remote shell did not find the server there.
    RemoteMissing = 127,
}

/// What happens to one entry of the target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    pub kind: Kind,
    pub what: What,
    /// For `What::Update` and `What::Meta`: which properties differ.
    ///
    /// Of a regular file, where the push goes by content; without it content is not looked at.
    pub content_differs: bool,
    pub size_differs: bool,
    pub mtime_differs: bool,
    pub mode_differs: bool,
    pub owner_differs: bool,
    pub group_differs: bool,
}

impl Change {
    /// One of which nothing is said to differ.
    pub fn new(kind: Kind, what: What) -> Self {
        Self {
            kind,
            what,
            content_differs: false,
            size_differs: false,
            mtime_differs: false,
            mode_differs: false,
            owner_differs: false,
            group_differs: false,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// It did not exist (or was of another kind).
    Make,
    /// Content, link target or device number is sent again.
    Update,
    /// Only metadata changes.
    Meta,
}

/// Something to say while the push runs. Paths are relative to DEST, raw bytes: escape them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tell {
    /// An entry is made, updated or touched (said only when somebody listens: -v, -i, -n, --json).
    Item { change: Change, path: Vec<u8> },
    /// An entry was deleted at the target, or would be.
    Deleted { kind: Kind, path: Vec<u8> },
    /// A directory of the source is DEST itself: it is not sent into itself.
    IsTarget { path: Vec<u8> },
    /// The target's file was changed while its new version came as a delta: it is sent again, whole.
    Resent { path: Vec<u8> },
    /// An entry failed; the push goes on.
    Trouble(Trouble),
}

/// One failure: where, what was tried, why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    pub side: Side,
    /// Relative to DEST; for the source's troubles the source's own path.
    pub path: Vec<u8>,
    pub what: Attempt,
    pub why: Why,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Source,
    Target,
}

/// What was tried when it failed. The discriminants travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Attempt {
    List = 1,
    Open = 2,
    Read = 3,
    ReadLink = 4,
    Create = 5,
    Write = 6,
    MakeDir = 7,
    MakeLink = 8,
    MakeNode = 9,
    SetMeta = 10,
    Rename = 11,
    Delete = 12,
    Sync = 13,
    Stat = 14,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    Errno(Errno),
    /// Gone between the scan and the read: exit 24, not 23.
    Vanished,
    /// Kept changing while it was read, so it was not sent; or was changed while it was written.
    Changing,
    /// The name is one of our own (`.sy.*`): never sent.
    OwnName,
    /// A directory that is not empty stands where a file belongs, and nothing allows deleting it.
    DirInTheWay,
    /// Its digest did not agree on arrival.
    Digest,
    /// The directory it belongs into could not be made.
    NoDirectory,
}

/// Counters of one push; the target's part comes with its REPORT.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Entries that are not directories, seen in the sources.
    pub files_scanned: u64,
    pub dirs_scanned: u64,
    /// Bytes of the regular files scanned.
    pub bytes_scanned: u64,
    /// Of these, bytes of the files that were found to need sending; the goal of the progress line.
    pub bytes_to_send: u64,
    /// Files, links and nodes that were made or replaced.
    pub files_sent: u64,
    pub dirs_made: u64,
    /// Entries whose metadata alone was mended.
    pub meta_fixed: u64,
    pub files_deleted: u64,
    /// Deletions that `--max-delete` forbade; what is below a directory that stayed is not counted.
    pub deletes_skipped: u64,
    /// `--delete` went no further, since a part of the sources could not be listed.
    pub deletes_stopped: bool,
    /// Fifos, sockets and devices that this session may not make.
    pub specials_skipped: u64,
    /// Content that travelled.
    pub literal_bytes: u64,
    /// Content that the target had already, in files that were sent as deltas.
    pub matched_bytes: u64,
    /// Sums of the target's blocks that came for it.
    pub signature_bytes: u64,
    /// Files that were sent again, whole, since the target's was changed meanwhile.
    pub files_resent: u64,
    pub wire_sent_bytes: u64,
    pub wire_received_bytes: u64,
    /// Entries that failed, on either side.
    pub errors: u64,
    /// Of these, sources that vanished.
    pub vanished: u64,
    /// Peak RSS of the target's process.
    pub target_peak_rss_bytes: u64,
}

impl Totals {
    /// Counts a change that is to come. In a dry run it is all that there is to count.
    pub fn plan(&mut self, change: &Change, size: u64, is_dry: bool) {
        if change.kind == Kind::File && change.what != What::Meta {
            self.bytes_to_send = self.bytes_to_send.saturating_add(size);
        }
        if is_dry && change.kind != Kind::Dir {
            match change.what {
                What::Make | What::Update => self.files_sent += 1,
                What::Meta => self.meta_fixed += 1,
            }
        }
    }
}

/// How a push ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ending {
    pub exit: Exit,
    /// The reason, where `exit` is not explained by the troubles told before.
    pub why: Option<String>,
    pub totals: Totals,
    /// What the target reached; `None` when the push did not get to its REPORT.
    pub durability: Option<Durability>,
}

/// Who hears what a push has to say. The loop calls it between two turns, so it must not wait.
pub trait Listener {
    /// Whether `Tell::Item` is worth making; asked once, before the push.
    fn wants_items(&self) -> bool;
    fn tell(&mut self, tell: Tell);
    /// A snapshot, as often as the loop likes. `scan_done`: no more files will be found to send.
    fn progress(&mut self, totals: &Totals, scan_done: bool);
}
