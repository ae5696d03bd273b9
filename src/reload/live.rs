//! The connections that were let in, each to be put out when its certificate is.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::clock::{self, Clock};
use crate::reload::generation::Generation;
use crate::reload::problem::Problem;
use crate::reload::state::{ReloadState, Removed};
use crate::trust::{
    ClientIdentity, ConnectionApi, Loaded, Nearest, Origin, Presented, TrustStore, VerifyError,
};
use rustls::pki_types::{CertificateDer, UnixTime};

/// The newest generation, and the connections that were let in by it and those before it.
#[derive(Debug)]
pub(crate) struct Current {
    newest: watch::Sender<Arc<Generation>>,
    /// Locked while the newest generation is replaced, so that no connection can be let in by an
    /// older one and be missed when that takes its certificate away.
    live: Mutex<HashMap<u64, Arc<State>>>,
    admitted: AtomicU64,
    /// When the first of the chains ends that were let in since session keys were last made, in
    /// seconds since 1970.
    first_chain_end: AtomicU64,
    scans: Mutex<ScanResults>,
    clock: Arc<dyn Clock>,
}

/// Later than any certificate ends.
const NEVER: u64 = u64::MAX;

/// What the looks at the files have come to.
#[derive(Debug, Default)]
struct ScanResults {
    problems: Vec<Problem>,
    state: ReloadState,
    removed: Removed,
}

#[derive(Debug)]
struct State {
    identity: ClientIdentity,
    api: ConnectionApi,
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
            first_chain_end: AtomicU64::new(NEVER),
            scans: Mutex::default(),
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
            let state = Arc::new(State {
                api: ConnectionApi::new(),
                until: AtomicU64::new(identity.validity().not_after.as_secs()),
                identity,
                is_out: AtomicBool::new(false),
                out: Notify::new(),
            });
            state.identity.counts().connected(now);
            live.insert(number, Arc::clone(&state));
            return Ok(Admission { number, state, current: Arc::clone(self) });
        }
    }

    /// Puts a generation in the place of the newest. Where `takes_away` says that it lets in fewer,
    /// the connections that it does not let in are put out before; returns how many.
    pub(super) fn publish(&self, generation: Generation, removes_any: bool) -> usize {
        let generation = Arc::new(generation);
        let now = clock::unix_now(self.clock.as_ref());
        let dropped = |state: &Arc<State>| state.close_unless_accepted(&generation.store, now);
        let (mut count, mut seen) = (0, 0);
        if removes_any {
            // Most are looked at while others can still come; those, and few they are, at the end.
            let live: Vec<_> = {
                let live = self.live();
                seen = self.admitted.load(Ordering::Relaxed);
                live.values().cloned().collect()
            };
            count = live.iter().filter(|state| dropped(state)).count();
        }
        let live = self.live();
        if removes_any {
            let since = live.iter().filter(|(number, _)| **number >= seen);
            count += since.filter(|(_, state)| dropped(state)).count();
        }
        if removes_any {
            // Those that stay are in the table, and count again.
            let chains = live.values().filter(|state| state.is_of_a_chain());
            let end = chains.map(|state| state.until.load(Ordering::Relaxed)).min();
            self.first_chain_end.store(end.unwrap_or(NEVER), Ordering::Relaxed);
        }
        self.newest.send_replace(Arc::clone(&generation));
        count
    }

    /// When the first of the chains ends whose sessions could be resumed.
    pub(super) fn first_chain_end(&self) -> Option<u64> {
        Some(self.first_chain_end.load(Ordering::Relaxed)).filter(|end| *end != NEVER)
    }

    /// How many connections are let in now.
    pub(crate) fn live_count(&self) -> usize {
        self.live().len()
    }

    /// What is wrong or odd with the files as they were last read.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        self.scans().problems.clone()
    }

    /// How keeping it current goes.
    pub(crate) fn reload_state(&self) -> ReloadState {
        self.scans().state
    }

    /// The trusted certificate, or the one that was, that is nearest to a refused one.
    pub(crate) fn nearest(&self, presented: &Presented) -> Option<Nearest> {
        let nearest = self.newest().store.nearest(presented);
        match nearest {
            Some(nearest) if Removed::is_exact(&nearest) => Some(nearest),
            nearest => self.scans().removed.find(presented).or(nearest),
        }
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    pub(super) fn set_problems(&self, problems: Vec<Problem>) {
        self.scans().problems = problems;
    }

    /// Takes in that the files were looked at. `counts` says that somebody should hear of it.
    pub(super) fn looked(&self, identity: [&Path; 2], counts: bool) {
        let ScanResults { problems, state, .. } = &mut *self.scans();
        state.looked(problems, identity, counts, self.clock.now());
    }

    pub(super) fn remember_removed(&self, removed: &[Loaded]) {
        self.scans().removed.remember(removed, self.clock.now());
    }

    fn scans(&self) -> MutexGuard<'_, ScanResults> {
        self.scans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> MutexGuard<'_, HashMap<u64, Arc<State>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether it came by a chain, and is still in.
    fn is_of_a_chain(&self) -> bool {
        self.identity.anchor().is_some() && !self.is_out.load(Ordering::Relaxed)
    }

    fn close_unless_accepted(&self, store: &TrustStore, now: UnixTime) -> bool {
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
                // Before the word: who has it looks at this first.
                let was_out = self.is_out.swap(true, Ordering::AcqRel);
                self.out.notify_waiters();
                // One that has been put out before, and still finishes, counts once.
                !was_out
            }
        }
    }
}

impl Admission {
    pub(crate) fn identity(&self) -> &ClientIdentity {
        &self.state.identity
    }

    /// Whether the certificate is still in.
    pub(crate) fn is_in(&self) -> bool {
        self.is_in_at(clock::unix_now(self.current.clock.as_ref()))
    }

    fn is_in_at(&self, now: UnixTime) -> bool {
        !self.is_removed() && now.as_secs() < self.state.until.load(Ordering::Relaxed)
    }

    /// The same for a request, which is counted if it is.
    pub(crate) fn admit_request(&self, api_id: Option<&[u8]>) -> bool {
        let now = clock::unix_now(self.current.clock.as_ref());
        let is_in = self.is_in_at(now);
        if is_in {
            let counts = self.state.identity.counts();
            counts.requested(now);
            if let Some(id) = api_id {
                counts.requested_by_api(id, &self.state.api, now);
            }
        }
        is_in
    }

    /// Whether the certificate was taken away. (It does not look at the clock.)
    pub(crate) fn is_removed(&self) -> bool {
        self.state.is_out.load(Ordering::Acquire)
    }

    /// Waits until the certificate is taken away. (It does not watch the clock.)
    pub(crate) async fn removed(&self) {
        let mut told = std::pin::pin!(self.state.out.notified());
        told.as_mut().enable();
        if !self.is_removed() {
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
        self.state.identity.counts().disconnected();
        self.current.live().remove(&self.number);
    }
}
