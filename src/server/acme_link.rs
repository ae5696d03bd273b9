//! What the server and the ordering of its certificate share: the proofs for the handshake, and the
//! state for the operator.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::server::accept::acme::Challenges;

#[derive(Debug)]
pub(crate) struct AcmeLink {
    pub(crate) challenges: Arc<Challenges>,
    state: Mutex<AcmeState>,
}

impl AcmeLink {
    pub(crate) fn new(state: AcmeState) -> Self {
        Self { challenges: Arc::new(Challenges::new()), state: Mutex::new(state) }
    }

    pub(crate) fn set_state(&self, state: AcmeState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    pub(super) fn state(&self) -> AcmeState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How ordering the server's certificate goes.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct AcmeState {
    /// The names that it is for.
    pub domains: Vec<String>,
    /// The URL of the directory.
    pub directory: String,
    /// When the next order begins.
    pub next_attempt: Option<SystemTime>,
    /// When the last certificate was issued.
    pub last_issued: Option<SystemTime>,
    /// How many orders have failed since.
    pub failures: u32,
    /// The last order that failed since.
    pub last_failure: Option<AcmeFailure>,
}

/// An order that failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AcmeFailure {
    /// When.
    pub at: SystemTime,
    /// At which step.
    pub step: String,
    /// The directory's problem type, where it sent one.
    pub problem_type: Option<String>,
    /// What went wrong.
    pub detail: String,
}
