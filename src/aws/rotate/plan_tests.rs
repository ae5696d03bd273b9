use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use super::Stop;
use super::plan::{Plan, PlanOptions, Rotation, plan, unnamed, winner};
use crate::aws::control_plane::{ClientCertificate, Stage};
use crate::aws::{REPLACES, RETIRED, ROLLED_BACK};

const DAY: u64 = 24 * 60 * 60;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * DAY)
}

/// A certificate that was generated so many days ago.
fn certificate(id: &str, age: u64, tags: &[(&str, &str)]) -> ClientCertificate {
    let created = now() - Duration::from_secs(age * DAY);
    let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    ClientCertificate {
        id: id.to_owned(),
        description: None,
        pem: String::new(),
        created: Some(created),
        expires: Some(created + Duration::from_secs(365 * DAY)),
        tags: Some(tags),
    }
}

fn stage(name: &str, id: Option<&str>) -> Stage {
    Stage {
        name: name.parse().unwrap(),
        client_certificate: id.map(str::to_owned),
        deployment: None,
    }
}

fn decide(
    stages: &[Stage],
    certificates: &[ClientCertificate],
    roll_back: bool,
) -> Result<Plan, Stop> {
    let presented: BTreeSet<_> =
        stages.iter().filter_map(|stage| stage.client_certificate.clone()).collect();
    let renew_before = Duration::from_secs(60 * DAY);
    plan(stages, certificates, &presented, &PlanOptions { renew_before, roll_back, now: now() })
}

fn ids(plan: Result<Plan, Stop>) -> (String, Option<String>, bool, Vec<String>) {
    match plan {
        Ok(Plan::Rotate(Rotation { from, to, is_roll_back, surplus })) => (
            from.id,
            to.map(|to| to.id),
            is_roll_back,
            surplus.into_iter().map(|one| one.id).collect(),
        ),
        other => panic!("{other:?}"),
    }
}

fn text(text: &str) -> String {
    text.to_owned()
}

#[test]
fn good_certificate_is_left_alone_and_one_that_ends_soon_is_replaced() {
    let stages = [stage("a/prod", Some("old"))];
    let fresh = certificate("old", 300, &[]);
    assert_eq!(
        decide(&stages, std::slice::from_ref(&fresh), false),
        Ok(Plan::NothingToDo { presented: fresh })
    );
    let ending = [certificate("old", 310, &[]), certificate("other", 10, &[])];
    assert_eq!(ids(decide(&stages, &ending, false)), (text("old"), None, false, vec![]));
    let expired = [certificate("old", 400, &[])];
    assert_eq!(ids(decide(&stages, &expired, false)).0, "old");
}

#[test]
fn unfinished_rotation_is_continued_whatever_the_dates() {
    let both = [certificate("old", 10, &[]), certificate("new", 1, &[(REPLACES, "old")])];
    let expected = (text("old"), Some(text("new")), false, vec![]);
    for presented in [["old", "old"], ["old", "new"], ["new", "old"], ["new", "new"]] {
        let stages = [stage("a/prod", Some(presented[0])), stage("b/prod", Some(presented[1]))];
        assert_eq!(ids(decide(&stages, &both, false)), expected, "{presented:?}");
    }
    let stages = [stage("a/prod", Some("new"))];
    let retired = [certificate("old", 10, &[(RETIRED, "1")]), both[1].clone()];
    assert_eq!(ids(decide(&stages, &retired, false)), expected);
    let finished = [both[1].clone()];
    assert!(matches!(decide(&stages, &finished, false), Ok(Plan::NothingToDo { .. })));
}

#[test]
fn earliest_successor_wins_then_the_smallest_id_and_the_others_are_surplus() {
    let successor = |id, age| certificate(id, age, &[(REPLACES, "old")]);
    let all =
        [certificate("old", 340, &[]), successor("b", 1), successor("c", 2), successor("a", 1)];
    let stages = [stage("x/prod", Some("old"))];
    let (_, to, _, surplus) = ids(decide(&stages, &all, false));
    assert_eq!((to.as_deref(), surplus), (Some("c"), vec![text("b"), text("a")]));
    let tied = [successor("b", 1), successor("a", 1)];
    assert_eq!(winner(&tied, &BTreeSet::new()).unwrap().id, "a");
    // What a stage presents has won.
    assert_eq!(winner(&tied, &[text("b")].into()).unwrap().id, "b");
    let stages = [stage("x/prod", Some("old")), stage("y/prod", Some("b"))];
    let (_, to, _, surplus) = ids(decide(&stages, &all, false));
    assert_eq!((to.as_deref(), surplus), (Some("b"), vec![text("c"), text("a")]));
}

#[test]
fn retired_or_shorter_lived_successor_is_not_reused() {
    let stages = [stage("x/prod", Some("old"))];
    let old = certificate("old", 340, &[]);
    for left_over in [
        certificate("new", 1, &[(REPLACES, "old"), (RETIRED, "1")]),
        certificate("new", 350, &[(REPLACES, "old")]),
    ] {
        let (from, to, ..) = ids(decide(&stages, &[old.clone(), left_over], false));
        assert_eq!((from.as_str(), to), ("old", None));
    }
}

#[test]
fn roll_back_swaps_the_two_and_is_remembered() {
    let new = certificate("new", 1, &[(REPLACES, "old")]);
    let old = certificate("old", 340, &[]);
    let expected = (text("new"), Some(text("old")), true, vec![]);
    for presented in ["old", "new"] {
        let stages = [stage("x/prod", Some(presented))];
        assert_eq!(ids(decide(&stages, &[old.clone(), new.clone()], true)), expected);
        let begun = certificate("new", 1, &[(REPLACES, "old"), (ROLLED_BACK, "old")]);
        assert_eq!(ids(decide(&stages, &[old.clone(), begun], false)), expected);
    }
    let stages = [stage("x/prod", Some("old"))];
    let retired = certificate("new", 1, &[(REPLACES, "old"), (ROLLED_BACK, "old"), (RETIRED, "1")]);
    assert_eq!(ids(decide(&stages, &[old.clone(), retired], false)), expected);
    assert_eq!(decide(&stages, &[old], true), Ok(Plan::NothingToRollBack));
    let gone = decide(&[stage("x/prod", Some("new"))], &[new], true).unwrap_err();
    assert!(gone.reason.contains("deleted") && !gone.is_usage, "{gone:?}");
}

#[test]
fn stages_that_cannot_be_rotated_together_are_a_usage_error() {
    let all = [certificate("one", 340, &[]), certificate("two", 340, &[])];
    let arn = "arn:aws:acm:eu-west-1:123456789012:certificate/x";
    for (stages, part) in [
        (vec![stage("a/prod", Some("one")), stage("b/prod", Some("two"))], "unrelated"),
        (vec![stage("a/prod", None)], "no client certificate"),
        (vec![stage("a/prod", Some(arn))], "ACM renews it; trust its CA with --trust-ca"),
    ] {
        let stop = decide(&stages, &all, false).unwrap_err();
        assert!(stop.is_usage && stop.reason.contains(part), "{stop:?}");
    }
}

#[test]
fn unnamed_stages_are_those_that_present_it_and_were_not_named() {
    let all =
        [stage("a/prod", Some("old")), stage("b/prod", Some("old")), stage("c/prod", Some("x"))];
    let named = ["a/prod".parse().unwrap()];
    let found: Vec<_> = unnamed(&all, &named, "old").into_iter().map(ToString::to_string).collect();
    assert_eq!(found, ["b/prod"]);
}
