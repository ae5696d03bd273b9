//! A bounded number of connections in their handshake, in two groups (silent, begun). The oldest of
//! the larger group is dropped first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// The age from which one of the last few may be dropped for want of descriptors: an honest
/// handshake finishes sooner.
const PROTECTED_AGE: Duration = Duration::from_millis(500);

/// A bounded number of places. When all are taken, a new connection gets the place of the oldest of
/// the larger group, so that neither silent connections nor stalled handshakes block a client: a
/// flood of one group leaves half of the places to the other.
#[derive(Debug)]
pub(crate) struct Pending {
    limit: usize,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    entered: u64,
    silent: Group,
    /// Those whose client has sent the first byte of its handshake.
    begun: Group,
}

/// When each place was taken and how to drop it, in the order of entering.
type Group = BTreeMap<u64, (Instant, Arc<Notify>)>;

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
        if places.taken() >= self.limit {
            places.drop_oldest();
        }
        let number = places.entered;
        places.entered += 1;
        places.silent.insert(number, (Instant::now(), Arc::clone(&drop_signal)));
        drop(places);
        Place { pending: Arc::clone(self), number, drop_signal }
    }

    /// Drops the oldest eighth, if the machine has no free descriptors. Of fewer than eight, drops
    /// only one that is old enough, since it is unknown whether another client waits. True if it
    /// dropped any.
    pub(in crate::server) fn drop_oldest(&self) -> bool {
        let mut places = self.places();
        let is_old_enough = |(since, _): &(Instant, _)| since.elapsed() >= PROTECTED_AGE;
        let number = match places.taken() / 8 {
            0 => usize::from(places.larger().values().next().is_some_and(is_old_enough)),
            eighth => eighth,
        };
        for _ in 0..number {
            places.drop_oldest();
        }
        number > 0
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn taken(&self) -> usize {
        self.silent.len() + self.begun.len()
    }

    fn larger(&mut self) -> &mut Group {
        if self.begun.len() > self.silent.len() { &mut self.begun } else { &mut self.silent }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, (_, oldest))) = self.larger().pop_first() {
            oldest.notify_one();
        }
    }
}

impl Place {
    /// Moves this connection from the silent group to the begun one.
    pub(in crate::server) fn mark_begun(&self) {
        let mut places = self.pending.places();
        if let Some(place) = places.silent.remove(&self.number) {
            places.begun.insert(self.number, place);
        }
    }

    /// Waits until a later connection takes this place.
    pub(crate) async fn dropped(&self) {
        self.drop_signal.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.pending.places();
        if places.silent.remove(&self.number).is_none() {
            places.begun.remove(&self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn is_dropped(place: &Place) -> bool {
        pin!(place.dropped()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn silent_connections_do_not_drop_a_handshake() {
        let pending = Arc::new(Pending::new(4));
        let handshake = pending.enter();
        handshake.mark_begun();
        let silent: Vec<_> = (0..10).map(|_| pending.enter()).collect();
        assert!(!is_dropped(&handshake));
        // All but the last three of ten.
        assert_eq!(silent.iter().filter(|place| is_dropped(place)).count(), 7);
    }

    #[test]
    fn a_silent_connection_is_dropped_like_any_other() {
        let pending = Arc::new(Pending::new(4));
        let client = pending.enter();
        let _silent: Vec<_> = (0..10).map(|_| pending.enter()).collect();
        assert!(is_dropped(&client));
    }

    #[test]
    fn stalled_handshakes_do_not_drop_a_new_connection() {
        let pending = Arc::new(Pending::new(4));
        let enter = |_| {
            let place = pending.enter();
            place.mark_begun();
            place
        };
        let mut stalled: Vec<_> = (0..4).map(enter).collect();
        let client = pending.enter();
        stalled.extend((0..4).map(enter));
        assert!(!is_dropped(&client));
        assert_eq!(stalled.iter().filter(|place| is_dropped(place)).count(), 5);
    }

    #[test]
    fn a_place_is_free_once_its_handshake_is_over() {
        let pending = Arc::new(Pending::new(2));
        drop(pending.enter());
        let begun = pending.enter();
        begun.mark_begun();
        drop(begun);
        assert_eq!(pending.places().taken(), 0);
    }
}
