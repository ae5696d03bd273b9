use super::*;
use crate::aws::{REPLACES, RETIRED};

/// An account with these certificates, each with tags, and these stages.
fn account(certificates: &[(&str, &[(&str, &str)])], stages: &[(&str, Presented)]) -> Account {
    let certificate = |(id, tags): &(&str, &[(&str, &str)])| {
        let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let certificate = ClientCertificate {
            id: (*id).to_owned(),
            description: None,
            pem: String::new(),
            created: None,
            expires: None,
            tags: Some(tags.collect()),
        };
        ((*id).to_owned(), certificate)
    };
    let stage =
        |(name, presented): &(&str, Presented)| (name.parse().unwrap(), Some(presented.clone()));
    Account {
        certificates: certificates.iter().map(certificate).collect(),
        stages: stages.iter().map(stage).collect(),
        not_found: BTreeSet::new(),
    }
}

fn presents(id: &str) -> Presented {
    Presented::Certificate(id.to_owned())
}

fn stage(name: &str) -> Selector {
    Selector::Stage(name.parse().unwrap())
}

fn ids(selection: &Selection) -> Vec<&str> {
    selection.selected.iter().map(|found| found.id.as_str()).collect()
}

#[test]
fn stage_selects_what_it_presents_its_successor_and_its_predecessor() {
    let certificates: &[(&str, &[(&str, &str)])] = &[
        ("a", &[]),
        ("b", &[(REPLACES, "a")]),
        ("c", &[(REPLACES, "b")]),
        ("other", &[("team", "x")]),
    ];
    for (presented, selected) in [("a", ["a", "b"].as_slice()), ("b", &["a", "b", "c"])] {
        let account = account(certificates, &[("api/prod", presents(presented))]);
        assert_eq!(ids(&account.select(&[stage("api/prod")])), selected, "{presented}");
    }
}

#[test]
fn retired_certificate_is_not_selected_unless_a_named_stage_presents_it() {
    let retired: &[(&str, &str)] = &[(RETIRED, "2026-11-26"), ("team", "x")];
    let certificates: &[(&str, &[(&str, &str)])] =
        &[("a", retired), ("b", &[(REPLACES, "a"), ("team", "x")])];
    let tag = Selector::Tag { key: "team".to_owned(), value: "x".to_owned() };
    let id = |id: &str| Selector::Id(id.to_owned());
    for selectors in
        [vec![stage("api/prod")], vec![tag], vec![Selector::All], vec![id("a"), id("b")]]
    {
        let account = account(certificates, &[("api/prod", presents("b"))]);
        let selection = account.select(&selectors);
        assert_eq!(ids(&selection), ["b"], "{selectors:?}");
        assert_eq!(selection.unselected_states["a"], UnselectedState::Retired);
    }
    let account = account(certificates, &[("api/prod", presents("a"))]);
    assert_eq!(ids(&account.select(&[stage("api/prod")])), ["a", "b"]);
}

#[test]
fn new_certificate_of_a_rotation_that_was_rolled_back_is_not_selected() {
    let certificates: &[(&str, &[(&str, &str)])] =
        &[("a", &[]), ("b", &[(REPLACES, "a"), (RETIRED, "2026-11-26")])];
    let account = account(certificates, &[("api/prod", presents("a"))]);
    assert_eq!(ids(&account.select(&[stage("api/prod")])), ["a"]);
}

#[test]
fn selector_that_selects_nothing_is_named_and_the_others_count() {
    let acm = Presented::Acm("arn:aws:acm:eu-west-1:1:certificate/x".to_owned());
    let stages = [("api/prod", presents("a")), ("api/acm", acm), ("api/none", Presented::Nothing)];
    for (selector, kind) in [
        (Selector::Id("gone".to_owned()), Kind::Unknown),
        (stage("api/gone"), Kind::Unknown),
        (stage("api/none"), Kind::Unknown),
        (stage("api/acm"), Kind::Acm),
    ] {
        let selection =
            account(&[("a", &[])], &stages).select(&[stage("api/prod"), selector.clone()]);
        assert_eq!(ids(&selection), ["a"]);
        let [failure] = selection.failures.as_slice() else { panic!("{selector}") };
        assert_eq!(failure.kind, kind);
        assert!(failure.to_string().contains(&selector.to_string()), "{failure}");
    }
}

#[test]
fn certificate_without_readable_tags_is_unclear() {
    let mut account = account(&[("a", &[]), ("b", &[])], &[("api/prod", presents("a"))]);
    account.certificates.get_mut("b").unwrap().tags = None;
    assert_eq!(
        account.select(&[stage("api/prod")]).unselected_states["b"],
        UnselectedState::Unclear
    );
}
