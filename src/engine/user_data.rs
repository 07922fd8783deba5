//! `UserData`, the 64 bits that travel through the kernel with an operation and come back in its
//! completion: what kind it was, which slot of the operation table holds it, and the slot's
//! generation, by which a completion for an earlier user of the slot is recognized.

/// Bits of a slot's generation; it wraps, and 16 million reuses of one slot lie between.
const GENERATION_BITS: u32 = 24;
const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;

/// What a completion is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum About {
    /// An operation of the table.
    Op(Slot),
    /// The ring's own read of its bell.
    Bell,
    /// A send without a copy, by its place among the lent blocks.
    ZeroCopy(Slot),
    /// A cancellation; the cancelled operations answer for themselves.
    Cancel,
}

/// A slot of the operation table at one time of its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Slot {
    pub(super) key: u32,
    /// Below 2^24.
    pub(super) generation: u32,
}

impl Slot {
    /// The generation of the next user of a slot.
    pub(super) fn generation_after(generation: u32) -> u32 {
        generation.wrapping_add(1) & GENERATION_MASK
    }
}

const KIND_OP: u64 = 1;
const KIND_BELL: u64 = 2;
const KIND_CANCEL: u64 = 3;
const KIND_ZERO_COPY: u64 = 4;

impl About {
    /// `[kind:8][generation:24][key:32]`
    pub(super) fn pack(self) -> u64 {
        let (kind, generation, key) = match self {
            Self::Op(slot) => (KIND_OP, slot.generation & GENERATION_MASK, slot.key),
            Self::ZeroCopy(slot) => (KIND_ZERO_COPY, slot.generation & GENERATION_MASK, slot.key),
            Self::Bell => (KIND_BELL, 0, 0),
            Self::Cancel => (KIND_CANCEL, 0, 0),
        };
        kind << 56 | u64::from(generation) << 32 | u64::from(key)
    }

    /// `None` for a word that `pack` never made.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "each field is cut to its width"
    )]
    pub(super) fn unpack(word: u64) -> Option<Self> {
        let slot = Slot {
            key: word as u32,
            generation: (word >> 32) as u32 & GENERATION_MASK,
        };
        match word >> 56 {
            KIND_OP => Some(Self::Op(slot)),
            KIND_ZERO_COPY => Some(Self::ZeroCopy(slot)),
            KIND_BELL => Some(Self::Bell),
            KIND_CANCEL => Some(Self::Cancel),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        for key in [0, 1, 4031, u32::MAX] {
            for generation in [0, 1, GENERATION_MASK] {
                let slot = Slot { key, generation };
                for about in [About::Op(slot), About::ZeroCopy(slot)] {
                    assert_eq!(About::unpack(about.pack()), Some(about));
                }
            }
        }
        for about in [About::Bell, About::Cancel] {
            assert_eq!(About::unpack(about.pack()), Some(about));
        }
    }

    #[test]
    fn a_word_of_another_origin_is_not_taken_for_ours() {
        assert_eq!(About::unpack(0), None);
        assert_eq!(About::unpack(u64::MAX), None);
    }

    #[test]
    fn a_generation_wraps_within_its_bits() {
        assert_eq!(Slot::generation_after(0), 1);
        assert_eq!(Slot::generation_after(GENERATION_MASK), 0);
    }
}
