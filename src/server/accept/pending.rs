//! The connections that have not yet proved who they are: a bounded number, the oldest put out
//! first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// For so long one of a few is not put out for want of room: an honest handshake is over by then.
const UNDISTURBED: Duration = Duration::from_millis(500);

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
    /// Since when, and whom to tell, in the order of entering.
    taken: BTreeMap<u64, (Instant, Arc<Notify>)>,
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
        if places.taken.len() >= self.most
            && let Some((_, (_, oldest))) = places.taken.pop_first()
        {
            oldest.notify_one();
        }
        let number = places.entered;
        places.entered += 1;
        places.taken.insert(number, (Instant::now(), Arc::clone(&out)));
        drop(places);
        Place { pending: Arc::clone(self), number, out }
    }

    /// Puts out the oldest eighth, where the machine has no room for more; of a few, one that has
    /// had its time: whether anybody waits to come in cannot be told. Says whether it put out any.
    pub(in crate::server) fn drop_oldest(&self) -> bool {
        let mut places = self.places();
        let has_had_its_time = |(since, _): &(Instant, _)| since.elapsed() >= UNDISTURBED;
        let number = match places.taken.len() / 8 {
            0 => usize::from(places.taken.values().next().is_some_and(has_had_its_time)),
            eighth => eighth,
        };
        for _ in 0..number {
            if let Some((_, (_, oldest))) = places.taken.pop_first() {
                oldest.notify_one();
            }
        }
        number > 0
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until a later comer gets this place.
    pub(crate) async fn dropped(&self) {
        self.out.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pending.places().taken.remove(&self.number);
    }
}
