//! Section 9: NOTICE, STOP and REPORT.

use super::Failure;
use super::alphabet::{Kind, Payload};

const PATH_BYTES_MAX: usize = 8192;
const TEXT_BYTES_MAX: usize = 4096;

/// What the target told of an entry. Paths are relative to ROOT.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    Deleted {
        is_dir: bool,
        path: Vec<u8>,
    },
    Failed {
        attempt: u8,
        reason: u8,
        errno: u16,
        path: Vec<u8>,
    },
}

impl Notice {
    pub(super) fn read(payload: &mut Payload<'_>) -> Result<Self, Failure> {
        match payload.u8()? {
            1 => {
                let kind = payload.u16()?;
                let is_dir = match Kind::of(kind) {
                    Some(Kind::Directory) => true,
                    Some(Kind::File) => false,
                    _ => return Err(Failure::protocol("a deleted entry of no kind")),
                };
                let path = payload.text(PATH_BYTES_MAX)?.to_vec();
                Ok(Self::Deleted { is_dir, path })
            }
            2 => {
                let (attempt, reason, errno) = (payload.u8()?, payload.u8()?, payload.u16()?);
                let path = payload.text(PATH_BYTES_MAX)?.to_vec();
                let errno_fits = if reason == 0 {
                    (1..=4095).contains(&errno)
                } else {
                    errno == 0
                };
                if !(1..=14).contains(&attempt) || reason > 6 || !errno_fits {
                    return Err(Failure::protocol("a failure that can't be"));
                }
                Ok(Self::Failed {
                    attempt,
                    reason,
                    errno,
                    path,
                })
            }
            _ => Err(Failure::protocol("a notice that is not known")),
        }
    }
}

/// Where going on is pointless.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stop {
    Below(u32),
    File(u32),
}

impl Stop {
    pub(super) fn read(payload: &mut Payload<'_>) -> Result<Self, Failure> {
        match payload.u8()? {
            1 => Ok(Self::Below(payload.u32()?)),
            2 => Ok(Self::File(payload.u32()?)),
            _ => Err(Failure::protocol("a stop that is not known")),
        }
    }
}

/// The target's account of a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    pub exit: u8,
    pub durability: u8,
    pub files_made: u64,
    pub dirs_made: u64,
    pub metadata_mended: u64,
    pub deleted: u64,
    pub deletes_skipped: u64,
    pub errors: u64,
    pub peak_rss_bytes: u64,
    pub text: String,
}

/// Exits of a target that can't go on: DEST may not be written to, its disk failed.
const NOT_WRITABLE: u8 = 3;
const DISK_FAILED: u8 = 11;

/// Whether a REPORT with it may come before DONE.
pub(super) fn is_early(exit: u8) -> bool {
    [NOT_WRITABLE, DISK_FAILED].contains(&exit)
}

impl Report {
    pub(super) fn read(mut payload: Payload<'_>) -> Result<Self, Failure> {
        let report = Self {
            exit: payload.u8()?,
            durability: payload.u8()?,
            files_made: payload.u64()?,
            dirs_made: payload.u64()?,
            metadata_mended: payload.u64()?,
            deleted: payload.u64()?,
            deletes_skipped: payload.u64()?,
            errors: payload.u64()?,
            peak_rss_bytes: payload.u64()?,
            text: String::from_utf8_lossy(payload.text(TEXT_BYTES_MAX)?).into_owned(),
        };
        payload.end()?;
        if [0, NOT_WRITABLE, DISK_FAILED, 23, 25].contains(&report.exit) && report.durability <= 2 {
            Ok(report)
        } else {
            Err(Failure::protocol("a report that can't be"))
        }
    }
}
