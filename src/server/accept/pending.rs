//! The connections in their handshake: a bounded number, of which the oldest is dropped first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// The age before which the last few are not dropped for want of descriptors: an honest handshake
/// is done by then.
const PROTECTED_AGE: Duration = Duration::from_millis(500);

/// A bounded number of places. When all are taken, a new connection gets the place of the oldest,
/// so that silent connections block no client.
#[derive(Debug)]
pub(crate) struct Pending {
    limit: usize,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    entered: u64,
    /// When each was taken and how to drop it, in the order of entering.
    taken: BTreeMap<u64, (Instant, Arc<Notify>)>,
}

/// A place, free again when this value is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    pending: Arc<Pending>,
    number: u64,
    drop_signal: Arc<Notify>,
}

impl Pending {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, places: Mutex::default() }
    }

    pub(crate) fn enter(self: &Arc<Self>) -> Place {
        let drop_signal = Arc::new(Notify::new());
        let mut places = self.places();
        if places.taken.len() >= self.limit
            && let Some((_, (_, oldest))) = places.taken.pop_first()
        {
            oldest.notify_one();
        }
        let number = places.entered;
        places.entered += 1;
        places.taken.insert(number, (Instant::now(), Arc::clone(&drop_signal)));
        drop(places);
        Place { pending: Arc::clone(self), number, drop_signal }
    }

    /// Drops the oldest eighth, where the machine has no descriptors for more; of a few, only one
    /// that is old enough, as it is unknown whether another client waits. True if it dropped any.
    pub(in crate::server) fn drop_oldest(&self) -> bool {
        let mut places = self.places();
        let is_old_enough = |(since, _): &(Instant, _)| since.elapsed() >= PROTECTED_AGE;
        let number = match places.taken.len() / 8 {
            0 => usize::from(places.taken.values().next().is_some_and(is_old_enough)),
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
    /// Waits until a later connection takes this place.
    pub(crate) async fn dropped(&self) {
        self.drop_signal.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pending.places().taken.remove(&self.number);
    }
}
