//! A bounded number of connections, of which those that keep silent give way to those that come. It exists so that a
//! thousand clients that open a connection and say nothing keep nobody out.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// Connections at once.
pub(super) const SEATS: usize = 32;

/// The seats of an endpoint.
#[derive(Clone, Default)]
pub(super) struct Seats(Arc<Mutex<VecDeque<Arc<Place>>>>);

#[derive(Default)]
struct Place {
    leave: CancellationToken,
    /// Requests that are being answered.
    busy: AtomicU32,
}

/// A seat, until it is dropped.
pub(super) struct Seat {
    place: Arc<Place>,
    seats: Seats,
}

/// A request that is being answered, until it is dropped.
pub(super) struct Work(Arc<Place>);

impl Seats {
    /// A seat; where none is free, that of whoever has kept silent longest. `None` where all are being answered.
    pub(super) fn take(&self) -> Option<Seat> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.len() >= SEATS {
            let silent = taken.iter().position(|place| place.busy.load(Ordering::Relaxed) == 0)?;
            taken.remove(silent).iter().for_each(|place| place.leave.cancel());
        }
        let place = Arc::new(Place::default());
        taken.push_back(place.clone());
        Some(Seat { place, seats: self.clone() })
    }
}

impl Seat {
    /// Cancelled when the seat is needed for another.
    pub(super) fn sent_away(&self) -> CancellationToken {
        self.place.leave.clone()
    }

    /// Keeps the seat while a request is answered. Whoever has asked something is the last to be sent away.
    pub(super) fn at_work(&self) -> Work {
        self.place.busy.fetch_add(1, Ordering::Relaxed);
        let mut taken = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = taken.iter().position(|place| Arc::ptr_eq(place, &self.place)) {
            let place = taken.remove(at);
            taken.extend(place);
        }
        Work(self.place.clone())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|place| !Arc::ptr_eq(place, &self.place));
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silence_gives_way_and_work_does_not() {
        let seats = Seats::default();
        let mut all: Vec<Seat> = (0..SEATS).map(|_| seats.take().unwrap()).collect();
        let work = all[0].at_work();
        let late = seats.take().unwrap();
        let gone = |seats: &[Seat]| seats.iter().map(|seat| seat.sent_away().is_cancelled()).collect::<Vec<_>>();
        assert_eq!(gone(&all)[..3], [false, true, false]);
        drop(work);
        // It has asked something just now.
        drop(seats.take().unwrap());
        assert_eq!(gone(&all)[..3], [false, true, true]);
        drop(late);
        all.truncate(1);
        let _all: Vec<Work> = all.iter().map(Seat::at_work).collect();
        let busy: Vec<Seat> = (1..SEATS).map(|_| seats.take().unwrap()).collect();
        let _work: Vec<Work> = busy.iter().map(Seat::at_work).collect();
        assert!(seats.take().is_none());
    }
}
