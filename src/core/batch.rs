//! How batches are cut: by number, by bytes and by age. It exists so that the forwarder's cut is a pure rule, and the same
//! events under the same limits are always the same batch.

use super::time::Millis;

/// How large a batch may be, and how long events wait for others to go with them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Events, at least 1.
    pub events: usize,
    /// Bytes of the events as the API sent them, at least 1; a batch of one event may be larger.
    pub bytes: u64,
    /// How long after its capture an event may wait for more; 0 for not at all.
    pub age: Millis,
}

/// A batch being filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Filling {
    limits: Limits,
    events: usize,
    bytes: u64,
}

impl Filling {
    /// An empty batch under these limits.
    pub const fn new(limits: Limits) -> Self {
        Self { limits, events: 0, bytes: 0 }
    }

    /// Adds an event of so many bytes where there is room for it; the first one always finds room.
    pub const fn add(&mut self, bytes: u64) -> bool {
        let total = self.bytes.saturating_add(bytes);
        if self.events > 0 && (self.events >= self.limits.events || total > self.limits.bytes) {
            return false;
        }
        self.events += 1;
        self.bytes = total;
        true
    }

    /// Whether no other event can be added, whatever its size.
    pub const fn is_full(&self) -> bool {
        self.events >= self.limits.events || self.bytes >= self.limits.bytes
    }

    /// Whether it is full enough to end where the spool has a seam: a batch that begins with a segment and ends with it
    /// needs one segment in memory, not two.
    pub const fn may_end_at_seam(&self) -> bool {
        self.is_full() || self.bytes > self.limits.bytes / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_event_is_in_one_batch_and_no_batch_is_larger_than_it_may_be(
            sizes in proptest::collection::vec(1_u64..150, 1..60), events in 1_usize..6, bytes in 1_u64..300,
        ) {
            let limits = Limits { events, bytes, age: 0 };
            let (mut batches, mut filling) = (vec![Vec::new()], Filling::new(limits));
            for size in &sizes {
                if !filling.add(*size) {
                    filling = Filling::new(limits);
                    prop_assert!(filling.add(*size), "an empty batch has room for anything");
                    batches.push(Vec::new());
                }
                batches.last_mut().unwrap().push(*size);
            }
            prop_assert_eq!(batches.concat(), sizes);
            for batch in &batches {
                prop_assert!(batch.len() <= events && (batch.len() == 1 || batch.iter().sum::<u64>() <= bytes));
            }
        }
    }
}
