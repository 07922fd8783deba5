//! HELLO, WELCOME and REFUSED: how a session begins, or does not.

use std::num::NonZeroU32;

use super::VERSION;
use super::cursor::{Reader, Writer};
use super::error::WireError;
use crate::limits::{DEST_COMPONENTS_MAX, MODULE_NAME_BYTES_MAX, PEER_TEXT_BYTES_MAX};
use crate::model::entry::Meta;
use crate::model::id::SessionId;
use crate::model::policy::{Durability, Policy};
use crate::model::report::Exit;

/// What a HELLO begins with in every version.
pub const MAGIC: [u8; 8] = *b"sy-push\n";

/// What the source asks for.
///
/// ```text
///  0          8         10        18             20         28      32           40           41
///  | magic    | version | session | stream index | features | flags | delete max | durability | ...
///  | 8 bytes  | u16     | u64     | u16 0        | u64 0    | u32   | u64        | u8         |
///
///  41         45         61         93
///  | patience | boot id  | sum key  | module     | components | DEST
///  | u32      | 16 bytes | 32 bytes | text ≤ 255 | u16 ≤ 4096 | a name each
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    pub session: SessionId,
    pub policy: Policy,
    /// Seconds of the target's silence after which the source gives up; `None`: never.
    pub patience: Option<NonZeroU32>,
    /// Identifies the source's host and boot, to notice a tree pushed into itself.
    pub boot_id: [u8; 16],
    /// Random: the key of the sums that tell which blocks two versions of a file share.
    pub sum_key: [u8; 32],
    /// The exported name; empty: the session's own file system, where it has its user's rights.
    pub module: Vec<u8>,
    /// DEST below the module, component by component.
    pub dest: Vec<Vec<u8>>,
    /// Without a module: DEST begins at the target's own directory, not at the root.
    pub dest_is_relative: bool,
    /// DEST must be a directory (it ended in a slash, or several sources go there).
    pub dest_is_dir: bool,
    /// One file is pushed: where DEST is not a directory, its last component names that file.
    pub single_file: bool,
}

const FLAG_DRY_RUN: u32 = 1;
const FLAG_DELETE: u32 = 1 << 1;
const FLAG_DELETE_MAX: u32 = 1 << 2;
const FLAG_NUMERIC_IDS: u32 = 1 << 3;
const FLAG_DEST_IS_DIR: u32 = 1 << 4;
const FLAG_SINGLE_FILE: u32 = 1 << 5;
const FLAG_TELL_DELETES: u32 = 1 << 6;
const FLAG_DEST_IS_RELATIVE: u32 = 1 << 7;
const FLAG_IN_PLACE: u32 = 1 << 8;
const FLAG_PARTIAL: u32 = 1 << 9;
const FLAGS_KNOWN: u32 = (1 << 10) - 1;

impl Hello {
    pub fn encode(&self, writer: &mut Writer<'_>) {
        let flag = |set: bool, bit: u32| if set { bit } else { 0 };
        writer.bytes(&MAGIC);
        writer.u16(VERSION);
        writer.u64(self.session.0);
        writer.u16(0); // stream index
        writer.u64(0); // features
        writer.u32(
            flag(self.policy.dry_run, FLAG_DRY_RUN)
                | flag(self.policy.delete, FLAG_DELETE)
                | flag(self.policy.delete_max.is_some(), FLAG_DELETE_MAX)
                | flag(self.policy.numeric_ids, FLAG_NUMERIC_IDS)
                | flag(self.dest_is_dir, FLAG_DEST_IS_DIR)
                | flag(self.single_file, FLAG_SINGLE_FILE)
                | flag(self.policy.tell_deletes, FLAG_TELL_DELETES)
                | flag(self.dest_is_relative, FLAG_DEST_IS_RELATIVE)
                | flag(self.policy.in_place, FLAG_IN_PLACE)
                | flag(self.policy.partial, FLAG_PARTIAL),
        );
        writer.u64(self.policy.delete_max.unwrap_or(0));
        writer.u8(encode_durability(self.policy.durability));
        writer.u32(self.patience.map_or(0, NonZeroU32::get));
        writer.bytes(&self.boot_id);
        writer.bytes(&self.sum_key);
        writer.text(&self.module, MODULE_NAME_BYTES_MAX);
        writer.u16(u16::try_from(self.dest.len()).expect("bounded by the client's plan"));
        for component in &self.dest {
            writer.name(component);
        }
    }

    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload, "HELLO frame");
        let magic = reader.bytes(MAGIC.len())?;
        if magic != MAGIC {
            return Err(WireError::Forbidden {
                what: "magic",
                value: 0,
            });
        }
        let theirs = reader.u16()?;
        if theirs != VERSION {
            return Err(WireError::Version {
                ours: VERSION,
                theirs,
            });
        }
        let session = SessionId(reader.u64()?);
        let stream_index = reader.u16()?;
        if stream_index != 0 {
            return Err(WireError::Forbidden {
                what: "stream index",
                value: u64::from(stream_index),
            });
        }
        reader.u64()?; // Features of the peer that we do not know change nothing.
        let flags = reader.u32()?;
        if flags & !FLAGS_KNOWN != 0 {
            return Err(WireError::Forbidden {
                what: "HELLO flags",
                value: u64::from(flags),
            });
        }
        let is = |bit: u32| flags & bit != 0;
        let delete_max = reader.u64()?;
        let durability = decode_durability(reader.u8()?)?;
        let patience = NonZeroU32::new(reader.u32()?);
        let boot_id = reader.id16()?;
        let sum_key = reader.key32()?;
        let module = reader.text(MODULE_NAME_BYTES_MAX)?.to_vec();
        if is(FLAG_DEST_IS_RELATIVE) && !module.is_empty() {
            return Err(WireError::Forbidden {
                what: "HELLO flags",
                value: u64::from(flags),
            });
        }
        let components = usize::from(reader.u16()?);
        if components > DEST_COMPONENTS_MAX {
            return Err(WireError::TooMany {
                what: "components of DEST",
                max: DEST_COMPONENTS_MAX,
            });
        }
        let mut dest = Vec::with_capacity(components);
        for _ in 0..components {
            dest.push(reader.name()?.bytes().to_vec());
        }
        reader.finish()?;
        let policy = Policy {
            dry_run: is(FLAG_DRY_RUN),
            delete: is(FLAG_DELETE),
            delete_max: is(FLAG_DELETE_MAX).then_some(delete_max),
            tell_deletes: is(FLAG_TELL_DELETES),
            allow_empty_source: false, // The source's own affair.
            durability,
            numeric_ids: is(FLAG_NUMERIC_IDS),
            whole_files: false, // As well.
            partial: is(FLAG_PARTIAL),
            in_place: is(FLAG_IN_PLACE),
            ..Policy::default()
        };
        Ok(Self {
            session,
            policy,
            patience,
            boot_id,
            sum_key,
            module,
            dest,
            dest_is_relative: is(FLAG_DEST_IS_RELATIVE),
            dest_is_dir: is(FLAG_DEST_IS_DIR),
            single_file: is(FLAG_SINGLE_FILE),
        })
    }
}

pub(super) fn encode_durability(durability: Durability) -> u8 {
    match durability {
        Durability::None => 0,
        Durability::Session => 1,
        Durability::File => 2,
    }
}

pub(super) fn decode_durability(value: u8) -> Result<Durability, WireError> {
    match value {
        0 => Ok(Durability::None),
        1 => Ok(Durability::Session),
        2 => Ok(Durability::File),
        other => Err(WireError::Forbidden {
            what: "durability",
            value: u64::from(other),
        }),
    }
}

/// What this session may do at the target.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rights {
    /// Owner and group are kept; otherwise everything belongs to the server's user.
    pub owners: bool,
    /// Set-user-id and set-group-id bits are kept.
    pub setid: bool,
    /// Fifos, sockets and devices are made.
    pub nodes: bool,
}

/// The target's yes.
///
/// ```text
///  0         2          10      11     33         41         49         65
///  | version | features | flags | root | root dev | root ino | boot id  |
///  | u16     | u64 0    | u8    | meta | u64      | u64      | 16 bytes |
///
///  flags: 1 owners, 2 set-id, 4 nodes, 8 file named by DEST, 16 root is absent
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Welcome {
    pub rights: Rights,
    /// DEST is not a directory: the one file that is pushed gets DEST's last component as its
    /// name, and ROOT is the directory above.
    pub file_named_by_dest: bool,
    /// ROOT as it stands.
    pub root: Meta,
    /// ROOT does not exist (only in a dry run).
    pub root_is_absent: bool,
    pub root_dev: u64,
    pub root_ino: u64,
    pub boot_id: [u8; 16],
}

impl Welcome {
    pub fn encode(&self, writer: &mut Writer<'_>) {
        writer.u16(VERSION);
        writer.u64(0); // features
        let flags = [
            self.rights.owners,
            self.rights.setid,
            self.rights.nodes,
            self.file_named_by_dest,
            self.root_is_absent,
        ];
        writer.u8(flags
            .iter()
            .rev()
            .fold(0, |bits, flag| bits << 1 | u8::from(*flag)));
        writer.meta(&self.root);
        writer.u64(self.root_dev);
        writer.u64(self.root_ino);
        writer.bytes(&self.boot_id);
    }

    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload, "WELCOME frame");
        let theirs = reader.u16()?;
        if theirs != VERSION {
            return Err(WireError::Version {
                ours: VERSION,
                theirs,
            });
        }
        reader.u64()?;
        let flags = reader.u8()?;
        if flags >= 1 << 5 {
            return Err(WireError::Forbidden {
                what: "WELCOME flags",
                value: u64::from(flags),
            });
        }
        let is = |bit: u8| flags & (1 << bit) != 0;
        let welcome = Self {
            rights: Rights {
                owners: is(0),
                setid: is(1),
                nodes: is(2),
            },
            file_named_by_dest: is(3),
            root_is_absent: is(4),
            root: reader.meta()?,
            root_dev: reader.u64()?,
            root_ino: reader.u64()?,
            boot_id: reader.id16()?,
        };
        reader.finish()?;
        Ok(welcome)
    }
}

/// Why a session is refused or ended by the target. The discriminants travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Refusal {
    Version = 1,
    UnknownModule = 2,
    ReadOnlyModule = 3,
    /// DEST can't be opened or made.
    Dest = 4,
    /// DEST is a file and must be a directory.
    DestNotDir = 5,
    /// The peer broke the protocol.
    Protocol = 6,
    /// The target was silent or was left waiting for too long.
    Timeout = 7,
    ShuttingDown = 8,
    Busy = 9,
}

impl Refusal {
    pub fn exit(self) -> Exit {
        match self {
            Self::Version => Exit::Incompatible,
            Self::UnknownModule | Self::ReadOnlyModule | Self::ShuttingDown | Self::Busy => {
                Exit::Start
            }
            Self::Dest | Self::DestNotDir => Exit::Selection,
            Self::Protocol => Exit::Stream,
            Self::Timeout => Exit::Timeout,
        }
    }
}

/// The target's no, at any time; the session is over.
///
/// ```text
///  0         1
///  | refusal | text        |
///  | u8      | text ≤ 4096 |
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    pub refusal: Refusal,
    /// For a person; from the peer: escape it.
    pub text: Vec<u8>,
}

impl Refused {
    pub fn encode(&self, writer: &mut Writer<'_>) {
        writer.u8(self.refusal as u8);
        writer.text(&self.text, PEER_TEXT_BYTES_MAX);
    }

    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload, "REFUSED frame");
        let refusal = match reader.u8()? {
            1 => Refusal::Version,
            2 => Refusal::UnknownModule,
            3 => Refusal::ReadOnlyModule,
            4 => Refusal::Dest,
            5 => Refusal::DestNotDir,
            6 => Refusal::Protocol,
            7 => Refusal::Timeout,
            8 => Refusal::ShuttingDown,
            9 => Refusal::Busy,
            other => {
                return Err(WireError::Forbidden {
                    what: "refusal",
                    value: u64::from(other),
                });
            }
        };
        let text = reader.text(PEER_TEXT_BYTES_MAX)?.to_vec();
        reader.finish()?;
        Ok(Self { refusal, text })
    }
}
