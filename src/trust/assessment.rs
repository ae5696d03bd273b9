//! What an operator should do about a certificate: its state, how urgent the next step is, and what
//! that step is. The log, the metrics, `/status` and the status page all show this one judgement.

use std::time::{Duration, SystemTime};

use super::certificate::Summary;
use super::loaded::{LoadedCertificate, Role};
use super::store::{LatestEnds, TrustStore};
use super::usage::Usage;
use super::validity::{Span, Validity, ValidityState, unix_time};

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long before its end a certificate needs a successor.
pub(crate) const SOON: Duration = Duration::from_secs(60 * DAY.as_secs());
/// How long before its end it needs one urgently.
const NOW: Duration = Duration::from_secs(30 * DAY.as_secs());
/// The same for the server certificate, or half and a tenth of its lifetime where that is less.
const RENEWAL: [Duration; 2] = [NOW, Duration::from_secs(3 * DAY.as_secs())];
/// A certificate without a request for this long, while another had one, is safe to remove.
const QUIET: Duration = Duration::from_secs(3 * DAY.as_secs());

/// Where a certificate stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// It had a request in the last hour. (For the server certificate: it is presented.)
    InUse,
    /// It had requests, and none in the last hour.
    Quiet,
    /// It has not had its first request.
    Waiting,
    /// It has had no request since the server started, less than a day ago.
    Unknown,
    /// It has been quiet for days, while another certificate had requests.
    SafeToRemove,
    /// Its validity period has not begun.
    NotYetValid,
    /// Its validity period is over.
    Expired,
}

impl State {
    /// Its stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InUse => "in_use",
            Self::Quiet => "quiet",
            Self::Waiting => "waiting",
            Self::Unknown => "unknown",
            Self::SafeToRemove => "safe_to_remove",
            Self::NotYetValid => "not_yet_valid",
            Self::Expired => "expired",
        }
    }
}

/// How soon an operator has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Not at all.
    None,
    /// Within weeks.
    Soon,
    /// Today: clients are, or will soon be, rejected.
    Now,
}

impl Urgency {
    /// Its stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Soon => "soon",
            Self::Now => "now",
        }
    }
}

/// A certificate's state, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Assessment {
    /// Where it stands in its life.
    pub state: State,
    /// How soon the next step is due.
    pub urgency: Urgency,
    /// What to do next, if anything.
    pub next_step: Option<&'static str>,
    /// All of this in one phrase.
    pub verdict: String,
}

/// A trusted certificate's usage and assessment, beside its place in the store.
#[derive(Clone, Debug)]
pub(crate) struct Assessed {
    pub(crate) usage: Usage,
    /// Whether another one of its role ends later.
    pub(crate) has_successor: bool,
    pub(crate) assessment: Assessment,
}

/// Assesses every certificate of a store, in its order. `since` is when the server started.
pub(crate) fn assess(store: &TrustStore, since: SystemTime, now: SystemTime) -> Vec<Assessed> {
    let usages: Vec<_> = store
        .certificates()
        .iter()
        .map(|loaded| {
            let summary = loaded.certificate.summary();
            (loaded.role, store.counts(loaded.role, summary.fingerprint).usage())
        })
        .collect();
    let period = |loaded: &LoadedCertificate| loaded.certificate.validity().at(unix_time(now));
    let latest = LatestEnds::of(store.certificates().iter());
    let begun =
        |loaded: &&LoadedCertificate| !matches!(period(loaded), ValidityState::NotYetValid(_));
    let latest_begun = LatestEnds::of(store.certificates().iter().filter(begun));
    let roles = [Role::Pin, Role::Anchor].map(|role| RoleFacts::new(role, &usages));
    let assessed =
        store.certificates().iter().zip(&usages).filter_map(|(loaded, (role, usage))| {
            let role = roles.iter().find(|facts| facts.role == *role)?;
            let summary = loaded.certificate.summary();
            let has_successor = latest.has_successor(loaded.role, summary.validity);
            let certificate = Trusted {
                role: role.role,
                usage: *usage,
                successor: match has_successor {
                    false => Successor::None,
                    true if latest_begun.has_successor(loaded.role, summary.validity) => {
                        Successor::Valid
                    }
                    true => Successor::NotYetValid,
                },
                other_requested: role.latest_request_beside(usage.last_request),
                since,
            };
            Some(Assessed {
                usage: *usage,
                has_successor,
                assessment: certificate.assess(period(loaded), now),
            })
        });
    assessed.collect()
}

/// Assesses the server certificate. One that the server itself orders needs an operator only when
/// its renewal, which begins with about a third of the lifetime left, has failed for a while.
pub(crate) fn assess_server(summary: &Summary, is_ordered: bool, now: SystemTime) -> Assessment {
    let Validity { not_before, not_after } = summary.validity;
    let lifetime = not_after.as_secs().saturating_sub(not_before.as_secs());
    let [soon, urgent] = [(RENEWAL[0], if is_ordered { 4 } else { 2 }), (RENEWAL[1], 10)]
        .map(|(most, part)| most.min(Duration::from_secs(lifetime / part)));
    let renew = match is_ordered {
        true => Some("see acme_order_failed in the log"),
        false => Some("renew it in place"),
    };
    match summary.validity.at(unix_time(now)) {
        ValidityState::Expired(ago) => Assessment {
            state: State::Expired,
            urgency: Urgency::Now,
            next_step: renew,
            verdict: format!("expired {} ago", Span(ago)),
        },
        ValidityState::NotYetValid(until) => Assessment {
            state: State::NotYetValid,
            urgency: Urgency::Now,
            next_step: Some("set this machine's clock, or install a certificate that is valid"),
            verdict: format!("not yet valid: begins in {}", Span(until)),
        },
        ValidityState::Valid(left) => {
            let urgency = urgency(left, soon, urgent);
            Assessment {
                state: State::InUse,
                urgency,
                next_step: renew.filter(|_| urgency > Urgency::None),
                verdict: match urgency {
                    Urgency::None => "in use".to_owned(),
                    _ => format!("in use; ends in {}", Span(left)),
                },
            }
        }
    }
}

/// The last requests with the certificates of one role.
struct RoleFacts {
    role: Role,
    /// The last request with any of them, and the last one with another of them.
    requested: [Option<SystemTime>; 2],
}

impl RoleFacts {
    fn new(role: Role, usages: &[(Role, Usage)]) -> Self {
        let mut requested = [None; 2];
        for (_, usage) in usages.iter().filter(|(of, _)| *of == role) {
            if usage.last_request > requested[0] {
                requested = [usage.last_request, requested[0]];
            } else {
                requested[1] = requested[1].max(usage.last_request);
            }
        }
        Self { role, requested }
    }

    fn latest_request_beside(&self, own: Option<SystemTime>) -> Option<SystemTime> {
        if own == self.requested[0] { self.requested[1] } else { self.requested[0] }
    }
}

/// Whether another certificate of the same role ends later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Successor {
    None,
    /// A client that presented it now would be rejected.
    NotYetValid,
    Valid,
}

/// The inputs of the assessment of one trusted certificate.
struct Trusted {
    role: Role,
    usage: Usage,
    successor: Successor,
    /// The last request of another one of its role.
    other_requested: Option<SystemTime>,
    since: SystemTime,
}

impl Trusted {
    fn assess(&self, period: ValidityState, now: SystemTime) -> Assessment {
        let left = match period {
            ValidityState::Expired(ago) => return self.assess_ended(ago),
            ValidityState::NotYetValid(until) => {
                return Assessment {
                    state: State::NotYetValid,
                    urgency: Urgency::None,
                    next_step: None,
                    verdict: format!("not yet valid: begins in {}", Span(until)),
                };
            }
            ValidityState::Valid(left) => left,
        };
        let (state, use_phrase) = self.state(now);
        let due = urgency(left, SOON, NOW);
        let (urgency, next_step) = match (state, due) {
            (State::SafeToRemove, _) => (Urgency::None, Some(remove(self.role))),
            (_, Urgency::None) => (Urgency::None, None),
            (_, due) if self.successor == Successor::None => (due, Some(add_successor(self.role))),
            (_, due) if self.successor == Successor::NotYetValid => {
                (due, Some(self.await_successor()))
            }
            (State::InUse, due) => (due, Some(self.switch())),
            (State::Waiting, _) => (Urgency::None, None),
            // A stage may still present it, but rarely.
            _ => (Urgency::Soon, Some(self.switch_if_presented())),
        };
        let successor = match self.successor {
            Successor::None => " and no successor is loaded",
            Successor::NotYetValid => "; its successor is loaded, and not yet valid",
            Successor::Valid => "; its successor is loaded",
        };
        let verdict = match urgency {
            Urgency::None => use_phrase,
            _ => format!("{use_phrase}; ends in {}{successor}", Span(left)),
        };
        Assessment { state, urgency, next_step, verdict }
    }

    fn assess_ended(&self, ago: Duration) -> Assessment {
        let (urgency, next_step) = match self.successor {
            Successor::Valid => (Urgency::None, remove(self.role)),
            Successor::NotYetValid => (Urgency::Now, self.await_successor()),
            Successor::None => (Urgency::Now, add_successor(self.role)),
        };
        Assessment {
            state: State::Expired,
            urgency,
            next_step: Some(next_step),
            verdict: format!("expired {} ago", Span(ago)),
        }
    }

    /// The state of a certificate that is valid, and that in a phrase.
    fn state(&self, now: SystemTime) -> (State, String) {
        // After the clock was set back, a request may lie in the future. It counts as just now.
        let ago = |time: SystemTime| now.duration_since(time).unwrap_or_default();
        let Some(last) = self.usage.last_request else {
            let up = ago(self.since);
            // A certificate that was added while the server runs cannot have been used before.
            return match self.usage.since_start {
                true if up < DAY => {
                    (State::Unknown, "no request since the restart, less than a day ago".to_owned())
                }
                true if self.successor != Successor::None && self.other_requested.is_some() => {
                    self.quiet(up, true)
                }
                _ => (State::Waiting, "waiting for its first use".to_owned()),
            };
        };
        match ago(last) {
            quiet if quiet < HOUR => (State::InUse, "in use".to_owned()),
            quiet => self.quiet(quiet, self.other_requested > Some(last)),
        }
    }

    fn quiet(&self, quiet: Duration, other_since: bool) -> (State, String) {
        let span = Span(quiet);
        match (quiet >= QUIET, other_since) {
            (true, true) => (State::SafeToRemove, format!("quiet for {span}: safe to remove")),
            (true, false) => {
                (State::Quiet, format!("quiet for {span}, and no other was used since: keep it"))
            }
            (false, _) => (State::Quiet, format!("quiet for {span}")),
        }
    }

    fn await_successor(&self) -> &'static str {
        match self.role {
            Role::Pin => {
                "wait until its successor is valid, then choose it for the stage and deploy the API"
            }
            Role::Anchor => "wait until the CA's next certificate is valid",
        }
    }

    fn switch(&self) -> &'static str {
        match self.role {
            Role::Pin => "choose its successor for the stage, then deploy the API",
            Role::Anchor => "have clients present a chain to its successor",
        }
    }

    fn switch_if_presented(&self) -> &'static str {
        match self.role {
            Role::Pin => {
                "if a stage still presents it, choose its successor for the stage, then deploy the \
                 API"
            }
            Role::Anchor => "if clients still present a chain to it, have them use its successor",
        }
    }
}

/// The next step with an expired certificate.
pub(crate) fn step_after_end(role: Role, has_successor: bool) -> &'static str {
    if has_successor { remove(role) } else { add_successor(role) }
}

fn remove(role: Role) -> &'static str {
    match role {
        Role::Pin => "remove its file from the trust path, then delete it in API Gateway",
        Role::Anchor => "remove its file from the trust path",
    }
}

fn add_successor(role: Role) -> &'static str {
    match role {
        Role::Pin => {
            "generate its successor in API Gateway, add that to the trust path, choose it for the \
             stage, then deploy the API"
        }
        Role::Anchor => "add the CA's next certificate to the trust path",
    }
}

fn urgency(left: Duration, soon: Duration, now: Duration) -> Urgency {
    match left {
        left if left <= now => Urgency::Now,
        left if left <= soon => Urgency::Soon,
        _ => Urgency::None,
    }
}

#[cfg(test)]
mod tests;
