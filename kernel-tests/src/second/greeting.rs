//! Section 4: HELLO, WELCOME and REFUSED.

use super::alphabet::{Kind, Meta, Payload, Put};
use super::frame::{self, Frame};
use super::{Aim, Failure, Wishes};

pub(super) const VERSION: u16 = 1;
/// A bit that nobody knows: it changes nothing. Bit 0 would promise deltas.
const FEATURES: u64 = 1 << 63;

const DRY_RUN: u32 = 1;
const DELETE: u32 = 1 << 1;
const DELETE_MAX: u32 = 1 << 2;
const DEST_IS_DIRECTORY: u32 = 1 << 4;
const SINGLE_FILE: u32 = 1 << 5;
const TELL_DELETES: u32 = 1 << 6;

pub(super) fn hello(aim: &Aim, wishes: &Wishes, single_file: bool) -> Vec<u8> {
    let mut flags = if single_file {
        SINGLE_FILE
    } else {
        DEST_IS_DIRECTORY
    };
    for (wished, flag) in [
        (wishes.dry_run, DRY_RUN),
        (wishes.delete, DELETE),
        (wishes.delete_max.is_some(), DELETE_MAX),
        (wishes.delete, TELL_DELETES),
    ] {
        if wished {
            flags |= flag;
        }
    }
    let components = u16::try_from(aim.dest.len()).expect("tests name short paths");
    let mut frame = Frame::new();
    frame.put(b"sy-push\n");
    frame.put(&VERSION.to_le_bytes());
    frame.put(&session_number().to_le_bytes());
    frame.put(&0_u16.to_le_bytes()); // the only stream of its session
    frame.put(&FEATURES.to_le_bytes());
    frame.put(&flags.to_le_bytes());
    frame.put(&wishes.delete_max.unwrap_or(0).to_le_bytes());
    frame.put(&[wishes.durability]);
    let patience = u32::try_from(wishes.patience.as_secs()).unwrap_or(0); // 0 is for ever
    frame.put(&patience.to_le_bytes());
    frame.put(&boot_id());
    frame.put(&[0; 32]); // the key of sums: it asks for none
    frame.put_text(aim.module.as_bytes());
    frame.put(&components.to_le_bytes());
    for name in &aim.dest {
        frame.put_name(name);
    }
    frame.seal(frame::HELLO)
}

/// Random, as every hash map's keys are.
fn session_number() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

pub(super) fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or(0).to_be_bytes()
}

/// What the target may do, and what ROOT is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Welcome {
    pub(super) owners: bool,
    pub(super) setid: bool,
    pub(super) nodes: bool,
    pub(super) file_named_by_dest: bool,
    pub(super) root_is_absent: bool,
    pub(super) root: Meta,
    pub(super) root_dev: u64,
    pub(super) root_ino: u64,
    pub(super) boot_id: [u8; 16],
}

impl Welcome {
    pub(super) fn read(
        mut payload: Payload<'_>,
        single_file: bool,
        dry_run: bool,
    ) -> Result<Self, Failure> {
        payload.u16()?; // the version: it was looked at before
        payload.u64()?; // features: none is asked for
        let flags = payload.u8()?;
        let is_set = |bit: u8| flags & (1 << bit) != 0;
        let welcome = Self {
            owners: is_set(0),
            setid: is_set(1),
            nodes: is_set(2),
            file_named_by_dest: is_set(3),
            root_is_absent: is_set(4),
            root: payload.meta()?,
            root_dev: payload.u64()?,
            root_ino: payload.u64()?,
            boot_id: payload.id16()?,
        };
        payload.end()?;
        let unasked =
            welcome.file_named_by_dest && !single_file || welcome.root_is_absent && !dry_run;
        if flags >> 5 != 0 || unasked {
            return Err(Failure::protocol("flags of WELCOME that can't be"));
        }
        if welcome.root.kind() != Some(Kind::Directory) {
            return Err(Failure::protocol("ROOT is no directory"));
        }
        Ok(welcome)
    }
}

pub(super) fn read_refused(mut payload: Payload<'_>) -> Result<Failure, Failure> {
    let refusal = payload.u8()?;
    let text = String::from_utf8_lossy(payload.text(4096)?).into_owned();
    payload.end()?;
    if (1..=9).contains(&refusal) {
        Ok(Failure::Refused { refusal, text })
    } else {
        Err(Failure::protocol("a refusal that is not known"))
    }
}
