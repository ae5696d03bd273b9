//! The connections that have not yet proved who they are: a bounded number, the oldest put out
//! first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// A bounded number of places. Whoever comes when all are taken gets the place of the oldest, so
/// that those who never speak keep nobody out.
#[derive(Debug)]
pub(crate) struct Pending {
    most: usize,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    entered: u64,
    /// In the order of entering.
    taken: BTreeMap<u64, Arc<Notify>>,
}

/// A place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    pending: Arc<Pending>,
    number: u64,
    out: Arc<Notify>,
}

impl Pending {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, places: Mutex::default() }
    }

    pub(crate) fn enter(self: &Arc<Self>) -> Place {
        let out = Arc::new(Notify::new());
        let mut places = self.places();
        if places.taken.len() >= self.most {
            places.put_out_oldest();
        }
        let number = places.entered;
        places.entered += 1;
        places.taken.insert(number, Arc::clone(&out));
        drop(places);
        Place { pending: Arc::clone(self), number, out }
    }

    /// Puts out the oldest, up to so many.
    pub(super) fn put_out_oldest(&self, most: usize) {
        let mut places = self.places();
        for _ in 0..most {
            places.put_out_oldest();
        }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn put_out_oldest(&mut self) {
        if let Some((_, oldest)) = self.taken.pop_first() {
            oldest.notify_one();
        }
    }
}

impl Place {
    /// Waits until a later comer gets this place.
    pub(crate) async fn put_out(&self) {
        self.out.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pending.places().taken.remove(&self.number);
    }
}
