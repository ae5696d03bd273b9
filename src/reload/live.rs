//! The connections that were let in, each to be put out when its certificate is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::clock::{self, Clock};
use crate::reload::finding::Finding;
use crate::reload::generation::Generation;
use crate::trust::{ClientIdentity, Origin, Refusal, TrustStore};
use rustls::pki_types::{CertificateDer, UnixTime};

/// The newest generation, and the connections that were let in by it and those before it.
#[derive(Debug)]
pub(crate) struct Current {
    newest: watch::Sender<Arc<Generation>>,
    /// Locked while the newest generation is replaced, so that no connection can be let in by an
    /// older one and be missed when that takes its certificate away.
    live: Mutex<HashMap<u64, Arc<State>>>,
    admitted: AtomicU64,
    findings: Mutex<Vec<Finding>>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct State {
    identity: ClientIdentity,
    /// When its certificate is out, in seconds since 1970.
    until: AtomicU64,
    is_out: AtomicBool,
    out: Notify,
}

/// That a connection was let in. While it is held, the connection is put out when its certificate
/// is.
#[derive(Debug)]
pub(crate) struct Admission {
    number: u64,
    state: Arc<State>,
    current: Arc<Current>,
}

impl Current {
    pub(super) fn new(first: Generation, clock: Arc<dyn Clock>) -> Self {
        Self {
            newest: watch::Sender::new(Arc::new(first)),
            live: Mutex::default(),
            admitted: AtomicU64::new(0),
            findings: Mutex::default(),
            clock,
        }
    }

    pub(crate) fn newest(&self) -> Arc<Generation> {
        Arc::clone(&self.newest.borrow())
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Generation>> {
        self.newest.subscribe()
    }

    /// Lets a connection in whose handshake is done, if the newest generation still does: it may
    /// be newer than the one of the handshake, and a resumed session asked no verifier at all.
    pub(crate) fn admit(
        self: &Arc<Self>,
        presented: &[CertificateDer<'_>],
    ) -> Result<Admission, Refusal> {
        let (end_entity, intermediates) = presented.split_first().ok_or(Refusal::UNKNOWN)?;
        loop {
            let generation = self.newest();
            let now = clock::unix_time(self.clock.as_ref());
            let identity = generation.store.admit(end_entity, intermediates, now)?;
            let mut live = self.live();
            if !Arc::ptr_eq(&generation, &self.newest.borrow()) {
                continue;
            }
            let number = self.admitted.fetch_add(1, Ordering::Relaxed);
            let state = Arc::new(State {
                until: AtomicU64::new(identity.validity().not_after.as_secs()),
                identity,
                is_out: AtomicBool::new(false),
                out: Notify::new(),
            });
            live.insert(number, Arc::clone(&state));
            return Ok(Admission { number, state, current: Arc::clone(self) });
        }
    }

    /// Puts a generation in the place of the newest. Where `takes_away` says that it lets in fewer,
    /// the connections that it does not let in are put out before; returns how many.
    pub(super) fn publish(&self, generation: Generation, takes_away: bool) -> usize {
        let generation = Arc::new(generation);
        let now = clock::unix_time(self.clock.as_ref());
        let put_out = |state: &Arc<State>| state.put_out_unless_in(&generation.store, now);
        let (mut count, mut seen) = (0, 0);
        if takes_away {
            // Most are looked at while others can still come; those, and few they are, at the end.
            let live: Vec<_> = {
                let live = self.live();
                seen = self.admitted.load(Ordering::Relaxed);
                live.values().cloned().collect()
            };
            count = live.iter().filter(|state| put_out(state)).count();
        }
        let live = self.live();
        if takes_away {
            let since = live.iter().filter(|(number, _)| **number >= seen);
            count += since.filter(|(_, state)| put_out(state)).count();
        }
        self.newest.send_replace(Arc::clone(&generation));
        count
    }

    /// How many connections are let in now.
    pub(crate) fn live_count(&self) -> usize {
        self.live().len()
    }

    /// What is wrong or odd with the files as they were last read.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_findings(&self, findings: Vec<Finding>) {
        *self.findings.lock().unwrap_or_else(PoisonError::into_inner) = findings;
    }

    fn live(&self) -> MutexGuard<'_, HashMap<u64, Arc<State>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn put_out_unless_in(&self, store: &TrustStore, now: UnixTime) -> bool {
        let intermediates = match self.identity.origin() {
            Origin::Pin => &[],
            Origin::Chain { intermediates, .. } => intermediates.as_ref(),
        };
        match store.admit(self.identity.certificate().der(), intermediates, now) {
            Ok(identity) => {
                self.until.store(identity.validity().not_after.as_secs(), Ordering::Relaxed);
                false
            }
            Err(_) => {
                self.is_out.store(true, Ordering::Release);
                self.out.notify_waiters();
                true
            }
        }
    }
}

impl Admission {
    pub(crate) fn identity(&self) -> &ClientIdentity {
        &self.state.identity
    }

    /// Whether the certificate is still in: asked for each request.
    pub(crate) fn is_in(&self) -> bool {
        let now = clock::unix_time(self.current.clock.as_ref()).as_secs();
        !self.state.is_out.load(Ordering::Acquire) && now < self.state.until.load(Ordering::Relaxed)
    }

    /// Waits until the certificate is taken away. (It does not watch the clock.)
    pub(crate) async fn taken_away(&self) {
        let mut told = std::pin::pin!(self.state.out.notified());
        told.as_mut().enable();
        if !self.state.is_out.load(Ordering::Acquire) {
            told.await;
        }
    }

    /// How long the certificate is still valid by the clock; `None` past its end.
    pub(crate) fn time_left(&self) -> Option<std::time::Duration> {
        let until = std::time::UNIX_EPOCH
            + std::time::Duration::from_secs(self.state.until.load(Ordering::Relaxed));
        until.duration_since(self.current.clock.now()).ok().filter(|left| !left.is_zero())
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.current.live().remove(&self.number);
    }
}
