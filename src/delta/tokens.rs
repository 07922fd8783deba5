//! `RunWriter`: writes the runs that make up one chunk straight into the block that is sent.
//!
//! ```text
//!  0       1              9        13
//!  | 1     | basis offset | length |              copy
//!  | u8    | u64          | u32    |
//!  0       1        5
//!  | 2     | length | bytes ...                   literal
//!  | u8    | u32    |
//! ```
//!
//! A copy is a range of bytes and not of blocks: after a byte was put in front, every block straddles
//! two chunks of the new version somewhere, and is copied in two parts.

/// Tag of a run that is copied from the basis.
pub(super) const COPY: u8 = 1;
/// Tag of a run whose bytes follow.
pub(super) const LITERAL: u8 = 2;
/// Bytes of a copy.
pub const COPY_BYTES: usize = 1 + 8 + 4;
/// Bytes of a literal before its content.
pub const LITERAL_HEAD_BYTES: usize = 1 + 4;

#[derive(Debug)]
pub struct RunWriter<'a> {
    out: &'a mut [u8],
    at: usize,
    /// The copy that ends what was written, where more may be added to it.
    open: Option<OpenCopy>,
    copied_bytes: u64,
    literal_bytes: u64,
    /// Something did not fit, so nothing of this is of use.
    is_over: bool,
}

#[derive(Clone, Copy, Debug)]
struct OpenCopy {
    len_at: usize,
    len: u32,
    basis_end: u64,
}

impl<'a> RunWriter<'a> {
    /// Writes to the front of `out`.
    pub fn new(out: &'a mut [u8]) -> Self {
        Self {
            out,
            at: 0,
            open: None,
            copied_bytes: 0,
            literal_bytes: 0,
            is_over: false,
        }
    }

    /// Bytes that were written.
    pub fn written_bytes(&self) -> usize {
        self.at
    }

    /// Bytes of the new version that the runs copy.
    pub fn copied_bytes(&self) -> u64 {
        self.copied_bytes
    }

    /// Bytes of the new version that the runs carry.
    pub fn literal_bytes(&self) -> u64 {
        self.literal_bytes
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    pub(super) fn copy(&mut self, basis_offset: u64, len: usize) {
        self.copied_bytes += len as u64;
        let len = u32::try_from(len).expect("at most a chunk");
        if let Some(open) = &mut self.open
            && open.basis_end == basis_offset
            && let Some(longer) = open.len.checked_add(len)
        {
            open.len = longer;
            open.basis_end += u64::from(len);
            let len_at = open.len_at;
            self.out[len_at..len_at + 4].copy_from_slice(&longer.to_le_bytes());
            return;
        }
        let Some(run) = self.room(COPY_BYTES) else {
            return;
        };
        run[0] = COPY;
        run[1..9].copy_from_slice(&basis_offset.to_le_bytes());
        run[9..].copy_from_slice(&len.to_le_bytes());
        self.open = Some(OpenCopy {
            len_at: self.at - 4,
            len,
            basis_end: basis_offset + u64::from(len),
        });
    }

    pub(super) fn literal(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.literal_bytes += bytes.len() as u64;
        self.open = None;
        let Some(run) = self.room(LITERAL_HEAD_BYTES + bytes.len()) else {
            return;
        };
        run[0] = LITERAL;
        let len = u32::try_from(bytes.len()).expect("at most a chunk");
        run[1..5].copy_from_slice(&len.to_le_bytes());
        run[5..].copy_from_slice(bytes);
    }

    fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        let end = self.at + len;
        if self.is_over || end > self.out.len() {
            self.is_over = true;
            self.open = None;
            return None;
        }
        let room = &mut self.out[self.at..end];
        self.at = end;
        Some(room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_that_follow_on_are_one() {
        let mut out = [0; 100];
        let mut writer = RunWriter::new(&mut out);
        writer.copy(0, 10);
        writer.copy(10, 10);
        writer.copy(30, 10);
        writer.literal(b"");
        writer.copy(40, 1);
        writer.literal(b"x");
        writer.copy(41, 1);
        assert_eq!(
            writer.written_bytes(),
            3 * COPY_BYTES + LITERAL_HEAD_BYTES + 1
        );
        assert_eq!((writer.copied_bytes(), writer.literal_bytes()), (32, 1));
        assert_eq!(out[..14], [1, 0, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 1]);
    }

    #[test]
    fn what_does_not_fit_is_said_and_nothing_more_is_written() {
        let mut out = [0; 20];
        let mut writer = RunWriter::new(&mut out);
        writer.copy(0, 10);
        assert!(!writer.is_over());
        writer.literal(b"four");
        writer.literal(b"x");
        writer.copy(10, 10);
        assert!(writer.is_over());
        assert_eq!(writer.written_bytes(), COPY_BYTES);
    }
}
