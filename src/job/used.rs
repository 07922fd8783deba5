//! `UsedIds`, the numbers that a source has used up: each may be given once in a session. Kept as
//! ranges, since a source counts: a million directories are a handful of them.

use std::collections::BTreeMap;

use crate::limits::USED_RANGES_MAX;

#[derive(Default, Debug)]
pub struct UsedIds {
    /// The last number of each range, by its first. Ranges do not touch.
    ranges: BTreeMap<u32, u32>,
}

/// Why a number can't be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    Twice,
    /// The numbers are strewn about so that they can't be remembered.
    TooMany,
}

impl UsedIds {
    /// Uses a number up.
    pub fn take(&mut self, id: u32) -> Result<(), Refused> {
        let below = self.ranges.range(..=id).next_back();
        let below = below.map(|(first, last)| (*first, *last));
        if below.is_some_and(|(_, last)| last >= id) {
            return Err(Refused::Twice);
        }
        let joins = below.filter(|(_, last)| last + 1 == id);
        let above = id.checked_add(1).and_then(|next| self.ranges.remove(&next));
        if joins.is_none() && above.is_none() && self.ranges.len() >= USED_RANGES_MAX {
            return Err(Refused::TooMany);
        }
        let first = joins.map_or(id, |(first, _)| first);
        self.ranges.insert(first, above.unwrap_or(id));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_taken_once_in_whatever_order_they_come() {
        let mut used = UsedIds::default();
        for id in [0, 1, 5, 3, 2, 4, 9, u32::MAX, 7, 8, u32::MAX - 1] {
            used.take(id).unwrap();
            assert_eq!(used.take(id), Err(Refused::Twice), "{id}");
        }
        assert_eq!(used.take(4), Err(Refused::Twice));
        let ranges: Vec<_> = used.ranges.into_iter().collect();
        assert_eq!(ranges, [(0, 5), (7, 9), (u32::MAX - 1, u32::MAX)]);
    }

    #[test]
    fn numbers_that_are_counted_up_cost_nothing_and_strewn_ones_have_a_limit() {
        let mut used = UsedIds::default();
        let gap = 2;
        let most = u32::try_from(USED_RANGES_MAX).unwrap();
        for number in 0..most {
            used.take(number * gap).unwrap();
        }
        assert_eq!(used.take(most * gap), Err(Refused::TooMany));
        used.take(1).unwrap();
        used.take(most * gap).unwrap();
        let mut counted = UsedIds::default();
        for number in 0..10_000 {
            counted.take(number).unwrap();
        }
        assert_eq!(counted.ranges.len(), 1);
    }
}
