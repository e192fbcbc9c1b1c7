//! Memory of segments that were dropped, for the next ones. It exists because a segment is large enough to come from the system and
//! go back to it each time: each of its pages is then cleared anew, which costs as much as unpacking into it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So much is kept: the segments of a batch of the file sink, which is small and soon followed by the next.
const BYTES_MAX: usize = 3 << 20;

/// The memory; whoever has a copy takes from the same.
#[derive(Clone, Default)]
pub(super) struct Spare(Arc<Mutex<Vec<Vec<u8>>>>);

impl Spare {
    /// Empty memory: what a segment had, or none yet.
    pub(super) fn take(&self) -> Vec<u8> {
        let mut memory = self.all().pop().unwrap_or_default();
        memory.clear();
        memory
    }

    /// Keeps `memory`, unless that would be too much.
    pub(super) fn keep(&self, memory: Vec<u8>) {
        let mut all = self.all();
        // One is kept whatever its size: where segments are larger, the next one is, too.
        if all.is_empty() || all.iter().chain([&memory]).map(Vec::capacity).sum::<usize>() <= BYTES_MAX {
            all.push(memory);
        }
    }

    /// Gives all but one segment's back: nothing is to be read for a while.
    pub(super) fn give_back(&self) {
        self.all().truncate(1);
    }

    fn all(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacities(spare: &Spare) -> Vec<usize> {
        spare.all().iter().map(Vec::capacity).collect()
    }

    #[test]
    fn what_is_given_back_is_taken_again_and_empty() {
        let spare = Spare::default();
        let mut memory = Vec::with_capacity(1_000);
        memory.extend_from_slice(b"somebody's address");
        let place = memory.as_ptr();
        spare.keep(memory);
        let again = spare.clone().take();
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        assert_eq!(spare.take().capacity(), 0);
    }

    #[test]
    fn no_more_is_kept_than_a_few_segments_need_or_one() {
        let spare = Spare::default();
        spare.keep(Vec::with_capacity(3 * BYTES_MAX));
        spare.keep(Vec::with_capacity(1));
        assert_eq!(capacities(&spare), [3 * BYTES_MAX]);
        let _ = spare.take();
        (0..5).for_each(|_| spare.keep(Vec::with_capacity(BYTES_MAX / 3)));
        assert_eq!(capacities(&spare), [BYTES_MAX / 3; 3]);
        spare.give_back();
        assert_eq!(capacities(&spare), [BYTES_MAX / 3]);
    }
}
