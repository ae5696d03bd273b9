//! The newest generation and the live connections, each closed when its certificate is removed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::sync::{Notify, watch};

use crate::clock::{self, Clock};
use crate::reload::generation::Generation;
use crate::trust::{ClientIdentity, ConnectionApi, Origin, TrustStore, VerifyError};

/// The newest generation, and the live connections that it and its predecessors admitted.
#[derive(Debug)]
pub(crate) struct Current {
    newest: watch::Sender<Arc<Generation>>,
    /// Locked while the newest generation is replaced, so that no connection is admitted by the
    /// former one and missed when the new one removes its certificate.
    live: Mutex<HashMap<u64, Arc<ConnectionState>>>,
    admitted: AtomicU64,
    /// The earliest end of the chains that were admitted since the session keys were made, in
    /// seconds since 1970.
    first_chain_end: AtomicU64,
    clock: Arc<dyn Clock>,
}

/// Later than any certificate ends.
const NEVER: u64 = u64::MAX;

#[derive(Debug)]
struct ConnectionState {
    identity: ClientIdentity,
    api: ConnectionApi,
    /// When its certificate expires, in seconds since 1970.
    expires: AtomicU64,
    is_removed: AtomicBool,
    removed: Notify,
}

/// A connection's entry in the live table, which signals that its certificate is removed.
#[derive(Debug)]
pub(crate) struct Admission {
    number: u64,
    state: Arc<ConnectionState>,
    current: Arc<Current>,
}

impl Current {
    pub(super) fn new(first: Generation, clock: Arc<dyn Clock>) -> Self {
        Self {
            newest: watch::Sender::new(Arc::new(first)),
            live: Mutex::default(),
            admitted: AtomicU64::new(0),
            first_chain_end: AtomicU64::new(NEVER),
            clock,
        }
    }

    pub(crate) fn newest(&self) -> Arc<Generation> {
        Arc::clone(&self.newest.borrow())
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Generation>> {
        self.newest.subscribe()
    }

    /// Admits a connection after its handshake, if the newest generation accepts its client: that
    /// may be newer than the one of the handshake, and no verifier saw a resumed session.
    pub(crate) fn admit(
        self: &Arc<Self>,
        presented: &[CertificateDer<'_>],
    ) -> Result<Admission, VerifyError> {
        let (end_entity, intermediates) = presented.split_first().ok_or(VerifyError::UNKNOWN)?;
        loop {
            let generation = self.newest();
            let now = clock::unix_now(self.clock.as_ref());
            let identity = generation.store.admit(end_entity, intermediates, now)?;
            let mut live = self.live();
            if !Arc::ptr_eq(&generation, &self.newest.borrow()) {
                continue;
            }
            let number = self.admitted.fetch_add(1, Ordering::Relaxed);
            if identity.anchor().is_some() {
                let end = identity.validity().not_after.as_secs();
                self.first_chain_end.fetch_min(end, Ordering::Relaxed);
            }
            let state = Arc::new(ConnectionState {
                api: ConnectionApi::new(),
                expires: AtomicU64::new(identity.validity().not_after.as_secs()),
                identity,
                is_removed: AtomicBool::new(false),
                removed: Notify::new(),
            });
            state.identity.counts().connected(now);
            live.insert(number, Arc::clone(&state));
            return Ok(Admission { number, state, current: Arc::clone(self) });
        }
    }

    /// Publishes a generation. If it `removes_any` certificate, the connections that it does not
    /// accept are closed first; returns how many.
    pub(super) fn publish(&self, generation: Generation, removes_any: bool) -> usize {
        let generation = Arc::new(generation);
        let now = clock::unix_now(self.clock.as_ref());
        let closes =
            |state: &Arc<ConnectionState>| state.close_unless_accepted(&generation.store, now);
        let (mut count, mut seen) = (0, 0);
        if removes_any {
            // Most are checked without the lock, so that connections are still admitted. Those that
            // came meanwhile are checked under it.
            let live: Vec<_> = {
                let live = self.live();
                seen = self.admitted.load(Ordering::Relaxed);
                live.values().cloned().collect()
            };
            count = live.iter().filter(|state| closes(state)).count();
        }
        let live = self.live();
        if removes_any {
            let since = live.iter().filter(|(number, _)| **number >= seen);
            count += since.filter(|(_, state)| closes(state)).count();
        }
        if removes_any {
            // The chains that remain are in the table.
            let chains = live.values().filter(|state| state.is_live_chain());
            let end = chains.map(|state| state.expires.load(Ordering::Relaxed)).min();
            self.first_chain_end.store(end.unwrap_or(NEVER), Ordering::Relaxed);
        }
        self.newest.send_replace(Arc::clone(&generation));
        count
    }

    /// The earliest end of the chains whose sessions could be resumed.
    pub(super) fn first_chain_end(&self) -> Option<u64> {
        Some(self.first_chain_end.load(Ordering::Relaxed)).filter(|end| *end != NEVER)
    }

    /// The number of live connections.
    pub(crate) fn live_count(&self) -> usize {
        self.live().len()
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    fn live(&self) -> MutexGuard<'_, HashMap<u64, Arc<ConnectionState>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionState {
    /// True if its client presented a chain and is still accepted.
    fn is_live_chain(&self) -> bool {
        self.identity.anchor().is_some() && !self.is_removed.load(Ordering::Relaxed)
    }

    fn close_unless_accepted(&self, store: &TrustStore, now: UnixTime) -> bool {
        let intermediates = match self.identity.origin() {
            Origin::Pin => &[],
            Origin::Chain { intermediates, .. } => intermediates.as_ref(),
        };
        match store.admit(self.identity.certificate().der(), intermediates, now) {
            Ok(identity) => {
                self.expires.store(identity.validity().not_after.as_secs(), Ordering::Relaxed);
                false
            }
            Err(_) => {
                // Set before the notification: a task that is notified reads it.
                let was_removed = self.is_removed.swap(true, Ordering::AcqRel);
                self.removed.notify_waiters();
                // A connection that still finishes its requests counts once.
                !was_removed
            }
        }
    }
}

impl Admission {
    pub(crate) fn identity(&self) -> &ClientIdentity {
        &self.state.identity
    }

    /// True if the certificate is trusted and valid now.
    pub(crate) fn is_accepted(&self) -> bool {
        self.is_accepted_at(clock::unix_now(self.current.clock.as_ref()))
    }

    fn is_accepted_at(&self, now: UnixTime) -> bool {
        !self.is_removed() && now.as_secs() < self.state.expires.load(Ordering::Relaxed)
    }

    /// As [`Admission::is_accepted`], for a request, which is counted if it is accepted.
    pub(crate) fn admit_request(&self, api_id: Option<&[u8]>) -> bool {
        let now = clock::unix_now(self.current.clock.as_ref());
        let is_accepted = self.is_accepted_at(now);
        if is_accepted {
            let counts = self.state.identity.counts();
            counts.requested(now);
            if let Some(id) = api_id {
                counts.requested_by_api(id, &self.state.api, now);
            }
        }
        is_accepted
    }

    /// True if the certificate was removed; its expiry does not count.
    pub(crate) fn is_removed(&self) -> bool {
        self.state.is_removed.load(Ordering::Acquire)
    }

    /// Waits until the certificate is removed; its expiry does not count.
    pub(crate) async fn removed(&self) {
        let mut removed = std::pin::pin!(self.state.removed.notified());
        removed.as_mut().enable();
        if !self.is_removed() {
            removed.await;
        }
    }

    /// How long the certificate is still valid; `None` once it is expired.
    pub(crate) fn time_left(&self) -> Option<std::time::Duration> {
        let expires = std::time::UNIX_EPOCH
            + std::time::Duration::from_secs(self.state.expires.load(Ordering::Relaxed));
        expires.duration_since(self.current.clock.now()).ok().filter(|left| !left.is_zero())
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.state.identity.counts().disconnected();
        self.current.live().remove(&self.number);
    }
}
