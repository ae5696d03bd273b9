//! What an operator should do about a certificate: its state, how urgent the next step is, and what
//! that step is. The log, the metrics, `/status` and the status page all show this one judgement.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::store::{Role, TrustStore};
use super::usage::Usage;
use super::{Summary, system_time};

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A certificate needs a successor from this long before its end,
const SOON: Duration = Duration::from_secs(60 * DAY.as_secs());
/// and urgently from this long before it.
const NOW: Duration = Duration::from_secs(30 * DAY.as_secs());
/// The same for the server certificate, or a third and a tenth of its lifetime where that is less:
/// short-lived certificates are renewed when a third is left.
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
    let roles = [Role::Pin, Role::Anchor].map(|role| RoleFacts::new(role, store, &usages));
    let assessed =
        store.certificates().iter().zip(&usages).filter_map(|(loaded, (role, usage))| {
            let role = roles.iter().find(|facts| facts.role == *role)?;
            let summary = loaded.certificate.summary();
            let has_successor = Some(summary.validity.not_after) < role.latest_end;
            let certificate = Trusted {
                role: role.role,
                usage: *usage,
                has_successor,
                other_requested: role.latest_request_beside(usage.last_request),
                since,
            };
            let validity = Period::of(summary, now);
            Some(Assessed {
                usage: *usage,
                has_successor,
                assessment: certificate.assess(validity, now),
            })
        });
    assessed.collect()
}

/// Assesses the server certificate.
pub(crate) fn assess_server(summary: &Summary, now: SystemTime) -> Assessment {
    let lifetime = summary.validity.not_after.as_secs() - summary.validity.not_before.as_secs();
    let [soon, urgent] = [(RENEWAL[0], 3), (RENEWAL[1], 10)]
        .map(|(most, part)| most.min(Duration::from_secs(lifetime / part)));
    let renew = Some("renew it in place");
    match Period::of(summary, now) {
        Period::Ended(ago) => Assessment {
            state: State::Expired,
            urgency: Urgency::Now,
            next_step: renew,
            verdict: format!("expired {} ago", Span(ago)),
        },
        Period::Begins(until) => Assessment {
            state: State::NotYetValid,
            urgency: Urgency::Now,
            next_step: Some("set this machine's clock, or install a certificate that is valid"),
            verdict: format!("not yet valid: begins in {}", Span(until)),
        },
        Period::Valid(left) => {
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

/// What holds for all certificates of one role.
struct RoleFacts {
    role: Role,
    latest_end: Option<rustls::pki_types::UnixTime>,
    /// The last request of any of them, and of any other than that one.
    requested: [Option<SystemTime>; 2],
}

impl RoleFacts {
    fn new(role: Role, store: &TrustStore, usages: &[(Role, Usage)]) -> Self {
        let mut requested = [None; 2];
        for (_, usage) in usages.iter().filter(|(of, _)| *of == role) {
            if usage.last_request > requested[0] {
                requested = [usage.last_request, requested[0]];
            } else {
                requested[1] = requested[1].max(usage.last_request);
            }
        }
        Self { role, latest_end: store.latest_end(role), requested }
    }

    fn latest_request_beside(&self, own: Option<SystemTime>) -> Option<SystemTime> {
        if own == self.requested[0] { self.requested[1] } else { self.requested[0] }
    }
}

/// A moment beside a validity period.
enum Period {
    Begins(Duration),
    Valid(Duration),
    Ended(Duration),
}

impl Period {
    fn of(summary: &Summary, now: SystemTime) -> Self {
        let [not_before, not_after] =
            [summary.validity.not_before, summary.validity.not_after].map(system_time);
        match (not_before.duration_since(now), not_after.duration_since(now)) {
            (_, Err(ago)) => Self::Ended(ago.duration()),
            (_, Ok(Duration::ZERO)) => Self::Ended(Duration::ZERO),
            (Ok(until), _) if !until.is_zero() => Self::Begins(until),
            (_, Ok(left)) => Self::Valid(left),
        }
    }
}

/// What the assessment of one trusted certificate rests on.
struct Trusted {
    role: Role,
    usage: Usage,
    has_successor: bool,
    /// The last request of another one of its role.
    other_requested: Option<SystemTime>,
    since: SystemTime,
}

impl Trusted {
    fn assess(&self, period: Period, now: SystemTime) -> Assessment {
        let left = match period {
            Period::Ended(ago) => return self.assess_ended(ago),
            Period::Begins(until) => {
                return Assessment {
                    state: State::NotYetValid,
                    urgency: Urgency::None,
                    next_step: None,
                    verdict: format!("not yet valid: begins in {}", Span(until)),
                };
            }
            Period::Valid(left) => left,
        };
        let (state, use_phrase) = self.state(now);
        let due = urgency(left, SOON, NOW);
        let (urgency, next_step) = match (state, due) {
            (State::SafeToRemove, _) => (Urgency::None, Some(self.remove())),
            (_, Urgency::None) => (Urgency::None, None),
            (_, due) if !self.has_successor => (due, Some(self.add_successor())),
            (State::InUse, due) => (due, Some(self.switch())),
            (State::Waiting, _) => (Urgency::None, None),
            // It may still be what a stage presents, only not often.
            _ => (Urgency::Soon, Some(self.switch_if_presented())),
        };
        let verdict = match (urgency, self.has_successor) {
            (Urgency::None, _) => use_phrase,
            (_, false) => {
                format!("{use_phrase}; ends in {} and no successor is loaded", Span(left))
            }
            (_, true) => format!("{use_phrase}; ends in {}; its successor is loaded", Span(left)),
        };
        Assessment { state, urgency, next_step, verdict }
    }

    fn assess_ended(&self, ago: Duration) -> Assessment {
        let (urgency, next_step) = match self.has_successor {
            true => (Urgency::None, self.remove()),
            false => (Urgency::Now, self.add_successor()),
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
        // A clock that was set back makes a request look like one of the future: just now.
        let ago = |time: SystemTime| now.duration_since(time).unwrap_or_default();
        let Some(last) = self.usage.last_request else {
            let up = ago(self.since);
            // What was added while the server runs cannot have been used before.
            return match self.usage.since_start {
                true if up < DAY => {
                    (State::Unknown, "no request since the restart, less than a day ago".to_owned())
                }
                true if self.has_successor && self.other_requested.is_some() => {
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

    fn remove(&self) -> &'static str {
        match self.role {
            Role::Pin => "remove its file from the trust path, then delete it in API Gateway",
            Role::Anchor => "remove its file from the trust path",
        }
    }

    fn add_successor(&self) -> &'static str {
        match self.role {
            Role::Pin => {
                "generate its successor in API Gateway, add that to the trust path, choose it for \
                 the stage, then deploy the API"
            }
            Role::Anchor => "add the CA's next certificate to the trust path",
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

fn urgency(left: Duration, soon: Duration, now: Duration) -> Urgency {
    match left {
        left if left <= now => Urgency::Now,
        left if left <= soon => Urgency::Soon,
        _ => Urgency::None,
    }
}

/// The days until a certificate ends, to the nearest; negative past its end.
pub(crate) fn days_left(not_after: SystemTime, now: SystemTime) -> i64 {
    let days = |span: Duration| {
        i64::try_from((span.as_secs() + DAY.as_secs() / 2) / DAY.as_secs()).unwrap_or(i64::MAX)
    };
    match not_after.duration_since(now) {
        Ok(left) => days(left),
        Err(past) => -days(past.duration()),
    }
}

/// A duration for people.
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // To the nearest: a certificate made for nine days has a little less left when it is shown.
        let round = |unit: Duration| (self.0.as_secs() + unit.as_secs() / 2) / unit.as_secs();
        let (count, unit) = match (round(DAY), round(HOUR)) {
            (_, 0) => return write!(f, "less than an hour"),
            (_, hours) if self.0 < DAY && hours < 24 => (hours, "hour"),
            (days, _) => (days.max(1), "day"),
        };
        write!(f, "{count} {unit}{}", if count == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * DAY.as_secs());

    fn now() -> SystemTime {
        UNIX_EPOCH + YEAR * 10
    }

    fn days(count: u32) -> Duration {
        DAY * count
    }

    /// A certificate that was there at a start a month ago.
    fn trusted(last_request_ago: Option<Duration>, has_successor: bool) -> Trusted {
        let mut usage = Usage::default();
        usage.since_start = true;
        usage.last_request = last_request_ago.map(|ago| now() - ago);
        Trusted {
            role: Role::Pin,
            usage,
            has_successor,
            other_requested: None,
            since: now() - days(30),
        }
    }

    fn assess(trusted: &Trusted, left: Duration) -> (&'static str, &'static str, String) {
        let Assessment { state, urgency, verdict, next_step } =
            trusted.assess(Period::Valid(left), now());
        assert_eq!(urgency > Urgency::None, urgency > Urgency::None && next_step.is_some());
        (state.as_str(), urgency.as_str(), verdict)
    }

    #[test]
    fn a_certificate_in_use_that_ends_stays_in_use_and_urgency_tells() {
        let minute = Some(Duration::from_secs(60));
        let alone = trusted(minute, false);
        let followed = trusted(minute, true);
        assert_eq!(assess(&alone, days(200)), ("in_use", "none", "in use".to_owned()));
        let text = "in use; ends in 45 days and no successor is loaded";
        assert_eq!(assess(&alone, days(45)), ("in_use", "soon", text.to_owned()));
        let text = "in use; ends in 9 days; its successor is loaded";
        assert_eq!(assess(&followed, days(9)), ("in_use", "now", text.to_owned()));
        let step = followed.assess(Period::Valid(days(9)), now()).next_step;
        assert_eq!(step, Some("choose its successor for the stage, then deploy the API"));
    }

    #[test]
    fn an_hour_without_a_request_ends_the_use() {
        assert_eq!(assess(&trusted(Some(HOUR - Duration::from_secs(1)), true), YEAR).0, "in_use");
        assert_eq!(assess(&trusted(Some(HOUR), true), YEAR).0, "quiet");
    }

    #[test]
    fn only_a_certificate_that_another_has_replaced_is_safe_to_remove() {
        let mut old = trusted(Some(days(4)), true);
        assert_eq!(assess(&old, YEAR).0, "quiet");
        old.other_requested = Some(now() - days(5));
        assert_eq!(assess(&old, YEAR).0, "quiet");
        old.other_requested = Some(now() - days(1));
        assert_eq!(assess(&old, YEAR).0, "safe_to_remove");
        old.usage.last_request = Some(now() - days(2));
        assert_eq!(assess(&old, YEAR).0, "quiet");
    }

    #[test]
    fn after_a_restart_an_unseen_certificate_is_unknown_for_a_day() {
        let mut unseen = trusted(None, true);
        unseen.since = now() - HOUR;
        assert_eq!(assess(&unseen, YEAR).0, "unknown");
        unseen.since = now() - days(1);
        assert_eq!(assess(&unseen, YEAR).0, "waiting");
        unseen.other_requested = Some(now());
        assert_eq!(assess(&unseen, YEAR).0, "quiet");
        unseen.since = now() - days(3);
        assert_eq!(assess(&unseen, YEAR).0, "safe_to_remove");
        // The newest one waits for its turn, however long.
        unseen.has_successor = false;
        assert_eq!(assess(&unseen, YEAR).0, "waiting");
        // One that was added while the server runs has no use that could be unknown.
        let mut added = trusted(None, false);
        (added.since, added.usage.since_start) = (now() - HOUR, false);
        assert_eq!(assess(&added, YEAR).0, "waiting");
    }

    #[test]
    fn an_expired_certificate_is_urgent_only_without_a_successor() {
        for (has_successor, urgency) in [(true, Urgency::None), (false, Urgency::Now)] {
            let ended = trusted(None, has_successor).assess(Period::Ended(days(2)), now());
            assert_eq!((ended.state, ended.urgency), (State::Expired, urgency));
            assert_eq!(ended.verdict, "expired 2 days ago");
        }
    }

    #[test]
    fn days_are_to_the_nearest_and_negative_past_the_end() {
        let later = |seconds: u64| now() + Duration::from_secs(seconds);
        assert_eq!(days_left(later(9 * DAY.as_secs() - 5), now()), 9);
        assert_eq!(days_left(now() - days(124), now()), -124);
    }
}
