use std::time::UNIX_EPOCH;

use super::*;
use crate::trust::Fingerprint;

const YEAR: Duration = Duration::from_secs(365 * DAY.as_secs());

fn now() -> SystemTime {
    UNIX_EPOCH + YEAR * 10
}

fn days(count: u32) -> Duration {
    DAY * count
}

/// A certificate that was there at a start a month ago.
fn trusted(last_request_ago: Option<Duration>, has_successor: bool) -> Trusted {
    let last_request = last_request_ago.map(|ago| now() - ago);
    let usage = Usage { since_start: true, last_request, ..Usage::default() };
    Trusted {
        role: Role::Pin,
        usage,
        successor: if has_successor { Successor::Valid } else { Successor::None },
        other_requested: None,
        since: now() - days(30),
    }
}

fn assess(trusted: &Trusted, left: Duration) -> (&'static str, &'static str, String) {
    let Assessment { state, urgency, verdict, next_step } =
        trusted.assess(ValidityState::Valid(left), now());
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
    let step = followed.assess(ValidityState::Valid(days(9)), now()).next_step;
    assert_eq!(step, Some("choose its successor for the stage, then deploy the API"));
}

#[test]
fn successor_that_is_not_yet_valid_is_waited_for() {
    let mut followed = trusted(Some(Duration::from_secs(60)), true);
    followed.successor = Successor::NotYetValid;
    let text = "in use; ends in 9 days; its successor is loaded, and not yet valid";
    assert_eq!(assess(&followed, days(9)), ("in_use", "now", text.to_owned()));
    for period in [ValidityState::Valid(days(9)), ValidityState::Expired(days(1))] {
        let assessment = followed.assess(period, now());
        assert_eq!(assessment.urgency, Urgency::Now);
        assert!(assessment.next_step.unwrap().starts_with("wait until its successor is valid"));
    }
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
    unseen.successor = Successor::None;
    assert_eq!(assess(&unseen, YEAR).0, "waiting");
    // One that was added while the server runs has no use that could be unknown.
    let mut added = trusted(None, false);
    (added.since, added.usage.since_start) = (now() - HOUR, false);
    assert_eq!(assess(&added, YEAR).0, "waiting");
}

#[test]
fn an_expired_certificate_is_urgent_only_without_a_successor() {
    for (has_successor, urgency) in [(true, Urgency::None), (false, Urgency::Now)] {
        let ended = trusted(None, has_successor).assess(ValidityState::Expired(days(2)), now());
        assert_eq!((ended.state, ended.urgency), (State::Expired, urgency));
        assert_eq!(ended.verdict, "expired 2 days ago");
    }
}

#[test]
fn renewal_of_an_ordered_certificate_is_no_news_and_its_failure_is() {
    // Of 90 days, 26 are left: other servers' operators should have renewed it.
    let validity = Validity {
        not_before: unix_time(now() - days(64)),
        not_after: unix_time(now() + days(26)),
    };
    let summary = Summary {
        fingerprint: Fingerprint::of(b"certificate"),
        subject: String::new(),
        serial: String::new(),
        key_fingerprint: Fingerprint::of(b"key"),
        validity,
    };
    let urgency = |is_ordered, later| {
        let assessment = assess_server(&summary, is_ordered, now() + days(later));
        (assessment.urgency, assessment.next_step)
    };
    assert_eq!(urgency(true, 0), (Urgency::None, None));
    assert_eq!(urgency(false, 0), (Urgency::Soon, Some("renew it in place")));
    let see = Some("see acme_order_failed in the log");
    assert_eq!(urgency(true, 5), (Urgency::Soon, see));
    assert_eq!(urgency(true, 24), (Urgency::Now, see));
}
