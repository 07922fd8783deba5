//! Section 6: LIST and LISTING.

use super::Failure;
use super::alphabet::{Kind, Meta, Payload, Put, Time, is_name};
use super::frame::Frame;

pub(super) const ROOT: u32 = 0;
/// Stands above an entry's nanoseconds.
const SUSPECT: u32 = 1 << 31;

/// Adds a request; ROOT's has no name.
pub(super) fn put_request(frame: &mut Frame, dir: u32, parent: u32, name: &[u8]) {
    frame.put(&dir.to_le_bytes());
    frame.put(&parent.to_le_bytes());
    frame.put_name(name);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Status {
    Absent,
    Part,
    Complete,
    Incomplete,
    Failed,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Section {
    pub(super) dir: u32,
    pub(super) status: Status,
    pub(super) entries: u32,
}

impl Section {
    pub(super) fn read(payload: &mut Payload<'_>) -> Result<Self, Failure> {
        let dir = payload.u32()?;
        let status = match payload.u8()? {
            0 => Status::Absent,
            1 => Status::Part,
            2 => Status::Complete,
            3 => Status::Incomplete,
            4 => Status::Failed,
            _ => return Err(Failure::protocol("a status that is not known")),
        };
        let (errno, entries) = (payload.u16()?, payload.u32()?);
        let errno_fits = match status {
            Status::Failed => (1..=4095).contains(&errno),
            Status::Absent | Status::Part | Status::Complete | Status::Incomplete => errno == 0,
        };
        let entries_fit = entries == 0 || !matches!(status, Status::Absent | Status::Failed);
        if errno_fits && entries_fit {
            Ok(Self {
                dir,
                status,
                entries,
            })
        } else {
            Err(Failure::protocol("a section that can't be"))
        }
    }
}

/// An entry of the target's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Theirs {
    pub(super) meta: Meta,
    pub(super) kind: Kind,
    /// Of a file or a link's target; `st_rdev` of a device.
    pub(super) size: u64,
    /// A crash may have cut off who wrote it.
    pub(super) suspect: bool,
}

impl Theirs {
    /// Reads the next entry; `name` is that of the one before and becomes this one's.
    pub(super) fn read(payload: &mut Payload<'_>, name: &mut Vec<u8>) -> Result<Self, Failure> {
        let shared = usize::from(payload.u8()?);
        let rest_bytes = usize::from(payload.u8()?);
        let rest = payload.bytes(rest_bytes)?;
        if shared > name.len() {
            return Err(Failure::protocol("a name shares more than there is"));
        }
        name.truncate(shared);
        name.extend_from_slice(rest);
        if !is_name(name) {
            return Err(Failure::protocol("a listing holds what is no name"));
        }
        let st_mode = payload.u16()?;
        let kind = Kind::of(st_mode).ok_or_else(|| Failure::protocol("an entry of no kind"))?;
        let size = payload.u64()?;
        let seconds = payload.i64()?;
        let nanos = payload.u32()?;
        let mtime = Time {
            seconds,
            nanos: nanos & !SUSPECT,
        };
        if mtime.nanos >= 1_000_000_000 {
            return Err(Failure::protocol("a time that can't be"));
        }
        let meta = Meta {
            st_mode,
            uid: payload.u32()?,
            gid: payload.u32()?,
            mtime,
        };
        Ok(Self {
            meta,
            kind,
            size,
            suspect: nanos & SUSPECT != 0,
        })
    }
}
