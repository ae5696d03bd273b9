//! How the control plane fails.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::account::TakesEffect;
use super::nodes::Traffic;

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 429 with this many seconds in `Retry-After`; no effect.
    Throttled(Option<u64>),
    /// This status, with `Retry-After`; no effect.
    Error(u16, Option<u64>),
    /// The connection closes before the call takes effect.
    CutBefore,
    /// The call takes effect; the connection closes without a response.
    CutAfter,
    /// The call takes effect; half of the response's body arrives.
    CutBody,
    /// UpdateStage: the response shows the change, which does not happen.
    LostUpdate,
    /// GetClientCertificate and GetStage: as if it did not exist yet.
    NotFound,
    /// The list ends early: a page without `position`, though more follow.
    MissingPage,
    /// An empty list.
    EmptyList,
}

/// How the control plane behaves until it is changed.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Every other read shows the account as it was this long ago.
    pub read_lag: Duration,
    /// The last node presents a change this late; the others are spread before it.
    pub node_lag: Duration,
    pub takes_effect: TakesEffect,
    /// Lists carry no tags: GetTags has them.
    pub lists_without_tags: bool,
    /// The largest page, whatever `limit` says.
    pub page: Option<usize>,
    /// Operations that IAM denies.
    pub denied: BTreeSet<&'static str>,
    /// A delete of a certificate in use is 400, not 409.
    pub in_use_is_bad_request: bool,
    /// Where TestInvokeMethod goes.
    pub backend: Option<Traffic>,
}

#[derive(Debug, Default)]
pub struct Faults(VecDeque<(&'static str, Fault)>);

impl Faults {
    pub fn push(&mut self, action: &'static str, fault: Fault) {
        self.0.push_back((action, fault));
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The first one that waits for this operation.
    pub fn take(&mut self, action: &str) -> Option<Fault> {
        let is_for = |(of, _): &(&str, Fault)| *of == "*" || *of == action;
        let at = self.0.iter().position(is_for)?;
        self.0.remove(at).map(|(_, fault)| fault)
    }
}
