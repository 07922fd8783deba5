//! The packer: cuts what is to be done into PACKs of one block each and keeps them in order,
//! though the jobs that fill them run side by side.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::job::read_pack::{DirPlan, Step};
use crate::limits::PAYLOAD_BYTES_MAX;
use crate::model::id::{DirId, FileId};
use crate::ops::{Buf, Disk};
use crate::wire::cursor::Writer;
use crate::wire::pack::{OP_BYTES_MAX, PackOp};

/// A PACK that is being put together.
pub struct Building<D: Disk> {
    pub steps: Vec<Step<D>>,
    pub ready: Vec<u8>,
    /// Large files that begin in it: their DATA may follow.
    pub begins: Vec<FileId>,
    /// Directories that wait for it.
    pub dirs: Vec<DirId>,
    payload_bytes: usize,
    is_full: bool,
}

impl<D: Disk> Default for Building<D> {
    fn default() -> Self {
        Self {
            steps: Vec::new(),
            ready: Vec::new(),
            begins: Vec::new(),
            dirs: Vec::new(),
            payload_bytes: 0,
            is_full: false,
        }
    }
}

impl<D: Disk> Building<D> {
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether nothing has to be read for it.
    pub fn is_ready(&self) -> bool {
        self.steps.iter().all(|step| matches!(step, Step::Ready(_)))
    }

    /// Appends an operation; `false` when it does not fit any more.
    pub fn push_op(&mut self, op: &[u8]) -> bool {
        if !self.reserve(op.len()) {
            return false;
        }
        let start = self.ready.len();
        self.ready.extend_from_slice(op);
        match self.steps.last_mut() {
            Some(Step::Ready(range)) => range.end = self.ready.len(),
            Some(Step::Entries { .. }) | None => {
                self.steps.push(Step::Ready(start..self.ready.len()))
            }
        }
        true
    }

    /// Sets room aside; `false` when there is none.
    pub fn reserve(&mut self, bytes: usize) -> bool {
        self.is_full = self.payload_bytes + bytes > PAYLOAD_BYTES_MAX;
        if !self.is_full {
            self.payload_bytes += bytes;
        }
        !self.is_full
    }

    pub fn push_entries(&mut self, plan: &Arc<DirPlan<D>>, range: Range<usize>) {
        self.steps.push(Step::Entries {
            plan: Arc::clone(plan),
            range,
        });
    }
}

/// A PACK that left the packer, in its place in the order.
struct Slot {
    number: u64,
    filled: Option<(Buf, usize)>,
    begins: Vec<FileId>,
}

pub struct Packer<D: Disk> {
    pub building: Building<D>,
    /// Operations that wait for a PACK, encoded; their lengths and the files that begin.
    waiting: Vec<u8>,
    waiting_at: usize,
    waiting_ops: VecDeque<(usize, Option<FileId>)>,
    slots: VecDeque<Slot>,
    next_number: u64,
    running: usize,
}

impl<D: Disk> Default for Packer<D> {
    fn default() -> Self {
        Self {
            building: Building::default(),
            waiting: Vec::new(),
            waiting_at: 0,
            waiting_ops: VecDeque::new(),
            slots: VecDeque::new(),
            next_number: 0,
            running: 0,
        }
    }
}

impl<D: Disk> Packer<D> {
    /// Queues an operation that comes before all entries not yet handed out.
    pub fn queue(&mut self, op: &PackOp<'_>) {
        let file = match op {
            PackOp::Begin { file, .. } => Some(*file),
            PackOp::Delete { .. }
            | PackOp::MakeDir { .. }
            | PackOp::File { .. }
            | PackOp::Symlink { .. }
            | PackOp::Node { .. }
            | PackOp::Meta { .. }
            | PackOp::Close { .. } => None,
        };
        let mut bytes = [0; OP_BYTES_MAX];
        let mut writer = Writer::new(&mut bytes);
        op.encode(&mut writer);
        let len = writer.at();
        self.waiting.extend_from_slice(&bytes[..len]);
        self.waiting_ops.push_back((len, file));
    }

    /// Moves the queued operations into the PACK; `false` when it is full.
    pub fn take_waiting(&mut self) -> bool {
        while let Some((len, file)) = self.waiting_ops.front().copied() {
            let op = &self.waiting[self.waiting_at..self.waiting_at + len];
            if !self.building.push_op(op) {
                return false;
            }
            self.waiting_at += len;
            self.waiting_ops.pop_front();
            self.building.begins.extend(file);
        }
        self.waiting.clear();
        self.waiting_at = 0;
        true
    }

    pub fn is_full(&self) -> bool {
        self.building.is_full
    }

    /// PACKs that are being filled.
    pub fn running_count(&self) -> usize {
        self.running
    }

    /// Nothing is queued, building or under way.
    pub fn is_idle(&self) -> bool {
        self.waiting_ops.is_empty() && self.building.is_empty() && self.slots.is_empty()
    }

    /// Takes the PACK that was built; it keeps its place in the order under the number given.
    pub fn cut(&mut self) -> (u64, Building<D>) {
        let mut built = std::mem::take(&mut self.building);
        let number = self.next_number;
        self.next_number += 1;
        self.running += 1;
        self.slots.push_back(Slot {
            number,
            filled: None,
            begins: std::mem::take(&mut built.begins),
        });
        (number, built)
    }

    /// The PACK `number` is filled.
    pub fn filled(&mut self, number: u64, buf: Buf, payload_bytes: usize) {
        self.running -= 1;
        let slot = self
            .slots
            .iter_mut()
            .find(|slot| slot.number == number)
            .expect("cut gave the number");
        slot.filled = Some((buf, payload_bytes));
    }

    /// The next PACK in order, if it is filled: block, bytes, and the large files it begins.
    pub fn next_filled(&mut self) -> Option<(Buf, usize, Vec<FileId>)> {
        self.slots.front()?.filled.as_ref()?;
        let slot = self.slots.pop_front().expect("looked at above");
        let (buf, payload_bytes) = slot.filled.expect("looked at above");
        Some((buf, payload_bytes, slot.begins))
    }
}
