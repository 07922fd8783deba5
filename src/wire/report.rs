//! NOTICE, STOP, DONE and REPORT: what the target says as it works, and how a push ends.

use super::cursor::{Reader, Writer};
use super::error::WireError;
use super::hello::{decode_durability, encode_durability};
use crate::limits::PEER_TEXT_BYTES_MAX;
use crate::model::entry::Kind;
use crate::model::id::{DirId, FileId};
use crate::model::policy::Durability;
use crate::model::report::{Attempt, Exit, Totals, Why};
use crate::ops::Errno;

/// Bytes of a path in a NOTICE at most; deeper paths lose their beginning.
pub const NOTICE_PATH_BYTES_MAX: usize = 8192;
/// Bytes of the longest NOTICE item.
pub const NOTICE_BYTES_MAX: usize = 8 + NOTICE_PATH_BYTES_MAX;

/// One thing that the target tells about an entry, by its path below DEST.
///
/// ```text
///  deleted   | u8 1 | kind: u16 | path: text ≤ 8192 |
///  failed    | u8 2 | attempt: u8 | reason: u8 | errno: u16 | path: text ≤ 8192 |
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice<'a> {
    Deleted {
        kind: Kind,
        path: &'a [u8],
    },
    Failed {
        attempt: Attempt,
        why: Why,
        path: &'a [u8],
    },
}

const DELETED: u8 = 1;
const FAILED: u8 = 2;

impl<'a> Notice<'a> {
    pub fn encode(&self, writer: &mut Writer<'_>) {
        match *self {
            Self::Deleted { kind, path } => {
                writer.u8(DELETED);
                writer.u16(kind.mode_bits());
                writer.text(path, NOTICE_PATH_BYTES_MAX);
            }
            Self::Failed { attempt, why, path } => {
                writer.u8(FAILED);
                writer.u8(attempt as u8);
                encode_why(writer, why);
                writer.text(path, NOTICE_PATH_BYTES_MAX);
            }
        }
    }

    pub fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        match reader.u8()? {
            DELETED => {
                let bits = reader.u16()?;
                let kind = Kind::from_mode(bits)
                    .filter(|kind| matches!(kind, Kind::Dir | Kind::File))
                    .filter(|kind| kind.mode_bits() == bits)
                    .ok_or(WireError::Forbidden {
                        what: "file type",
                        value: u64::from(bits),
                    })?;
                Ok(Self::Deleted {
                    kind,
                    path: reader.text(NOTICE_PATH_BYTES_MAX)?,
                })
            }
            FAILED => {
                let attempt = decode_attempt(reader.u8()?)?;
                let why = decode_why(reader)?;
                Ok(Self::Failed {
                    attempt,
                    why,
                    path: reader.text(NOTICE_PATH_BYTES_MAX)?,
                })
            }
            other => Err(WireError::Forbidden {
                what: "NOTICE kind",
                value: u64::from(other),
            }),
        }
    }
}

fn encode_why(writer: &mut Writer<'_>, why: Why) {
    let (code, errno) = match why {
        Why::Errno(errno) => (0, errno.raw_os_error()),
        Why::Vanished => (1, 0),
        Why::Changing => (2, 0),
        Why::OwnName => (3, 0),
        Why::DirInTheWay => (4, 0),
        Why::Digest => (5, 0),
        Why::NoDirectory => (6, 0),
    };
    writer.u8(code);
    writer.u16(u16::try_from(errno).unwrap_or(u16::MAX));
}

fn decode_why(reader: &mut Reader<'_>) -> Result<Why, WireError> {
    let code = reader.u8()?;
    let errno = i32::from(reader.u16()?);
    Ok(match (code, errno) {
        (0, 1..4096) => Why::Errno(Errno::from_raw_os_error(errno)),
        (1, 0) => Why::Vanished,
        (2, 0) => Why::Changing,
        (3, 0) => Why::OwnName,
        (4, 0) => Why::DirInTheWay,
        (5, 0) => Why::Digest,
        (6, 0) => Why::NoDirectory,
        _ => {
            return Err(WireError::Forbidden {
                what: "reason",
                value: u64::from(code),
            });
        }
    })
}

fn decode_attempt(value: u8) -> Result<Attempt, WireError> {
    Ok(match value {
        1 => Attempt::List,
        2 => Attempt::Open,
        3 => Attempt::Read,
        4 => Attempt::ReadLink,
        5 => Attempt::Create,
        6 => Attempt::Write,
        7 => Attempt::MakeDir,
        8 => Attempt::MakeLink,
        9 => Attempt::MakeNode,
        10 => Attempt::SetMeta,
        11 => Attempt::Rename,
        12 => Attempt::Delete,
        13 => Attempt::Sync,
        14 => Attempt::Stat,
        other => {
            return Err(WireError::Forbidden {
                what: "attempt",
                value: u64::from(other),
            });
        }
    })
}

/// What a source need not send any more, and what becomes of files that have a basis.
///
/// ```text
///  directory    | u8 1 | dir: u32  |
///  file         | u8 2 | file: u32 |
///  again, whole | u8 3 | file: u32 |
///  settled      | u8 4 | file: u32 |
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// Everything below the directory is lost.
    Dir(DirId),
    File(FileId),
    /// The basis did not hold what its sums said: the file is dropped, and wanted without one.
    Again(FileId),
    /// A file with a basis has ended, well or with a NOTICE: it is not wanted again.
    Settled(FileId),
}

impl Stop {
    pub fn encode(self, writer: &mut Writer<'_>) {
        let (code, id) = match self {
            Self::Dir(dir) => (1, dir.0),
            Self::File(file) => (2, file.0),
            Self::Again(file) => (3, file.0),
            Self::Settled(file) => (4, file.0),
        };
        writer.u8(code);
        writer.u32(id);
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let code = reader.u8()?;
        let id = reader.u32()?;
        match code {
            1 => Ok(Self::Dir(DirId(id))),
            2 => Ok(Self::File(FileId(id))),
            3 => Ok(Self::Again(FileId(id))),
            4 => Ok(Self::Settled(FileId(id))),
            other => Err(WireError::Forbidden {
                what: "STOP kind",
                value: u64::from(other),
            }),
        }
    }
}

/// The source has sent everything.
///
/// ```text
///  | errors: u64 |
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Done {
    /// Entries of the source that failed there; for the target's log.
    pub errors: u64,
}

impl Done {
    pub fn encode(self, writer: &mut Writer<'_>) {
        writer.u64(self.errors);
    }

    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload, "DONE frame");
        let errors = reader.u64()?;
        reader.finish()?;
        Ok(Self { errors })
    }
}

/// The target's last word. A stream that ends without it has failed.
///
/// ```text
///  0      1            2            10          18           26
///  | exit | durability | files made | dirs made | meta fixed | ...
///  | u8   | u8         | u64        | u64       | u64        |
///
///  26        34                42       50         58
///  | deleted | deletes skipped | errors | peak RSS | text        |
///  | u64     | u64             | u64    | u64      | text ≤ 4096 |
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// `Ok`, `Partial`, `DeleteLimit` or `FileIo`.
    pub exit: Exit,
    /// What was reached.
    pub durability: Durability,
    pub files_made: u64,
    pub dirs_made: u64,
    pub meta_fixed: u64,
    pub deleted: u64,
    pub deletes_skipped: u64,
    pub errors: u64,
    pub peak_rss_bytes: u64,
    /// The reason, with `FileIo`.
    pub text: Vec<u8>,
}

impl Report {
    pub fn encode(&self, writer: &mut Writer<'_>) {
        writer.u8(self.exit as u8);
        writer.u8(encode_durability(self.durability));
        for count in [
            self.files_made,
            self.dirs_made,
            self.meta_fixed,
            self.deleted,
            self.deletes_skipped,
            self.errors,
            self.peak_rss_bytes,
        ] {
            writer.u64(count);
        }
        writer.text(&self.text, PEER_TEXT_BYTES_MAX);
    }

    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload, "REPORT frame");
        let exit = match reader.u8()? {
            0 => Exit::Ok,
            3 => Exit::Selection,
            11 => Exit::FileIo,
            23 => Exit::Partial,
            25 => Exit::DeleteLimit,
            other => {
                return Err(WireError::Forbidden {
                    what: "exit",
                    value: u64::from(other),
                });
            }
        };
        let report = Self {
            exit,
            durability: decode_durability(reader.u8()?)?,
            files_made: reader.u64()?,
            dirs_made: reader.u64()?,
            meta_fixed: reader.u64()?,
            deleted: reader.u64()?,
            deletes_skipped: reader.u64()?,
            errors: reader.u64()?,
            peak_rss_bytes: reader.u64()?,
            text: reader.text(PEER_TEXT_BYTES_MAX)?.to_vec(),
        };
        reader.finish()?;
        Ok(report)
    }

    /// Enters the target's part into the totals of the push.
    pub fn add_to(&self, totals: &mut Totals) {
        totals.files_sent = self.files_made;
        totals.dirs_made = self.dirs_made;
        totals.meta_fixed = self.meta_fixed;
        totals.files_deleted = self.deleted;
        totals.deletes_skipped = self.deletes_skipped;
        totals.errors = totals.errors.saturating_add(self.errors);
        totals.target_peak_rss_bytes = self.peak_rss_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_deleted_is_a_directory_or_a_file_without_a_mode() {
        for (bits, kind) in [
            (0o040_000, Some(Kind::Dir)),
            (0o100_000, Some(Kind::File)),
            (0o040_755, None),
            (0o100_001, None),
            (0o120_000, None),
            (0, None),
        ] {
            let mut payload = [0; 6];
            let mut writer = Writer::new(&mut payload);
            writer.u8(DELETED);
            writer.u16(bits);
            writer.text(b"p", NOTICE_PATH_BYTES_MAX);
            let read = Notice::decode(&mut Reader::new(&payload, "NOTICE frame")).ok();
            let path = b"p";
            assert_eq!(read, kind.map(|kind| Notice::Deleted { kind, path }));
        }
    }
}
