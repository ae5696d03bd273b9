use super::{Fleet, REPLACES, RETIRED};
use crate::support::{Portcullis, run};

/// The names and values of a certificate's text, whatever its line ends.
fn lines(pem: &str) -> Vec<&str> {
    pem.lines().collect()
}

#[test]
fn stage_has_its_certificate_the_next_one_and_the_one_before_until_it_is_retired() {
    for lists_without_tags in [false, true] {
        let (fleet, stage, old) = Fleet::with_stage();
        fleet.plane.set(|settings| settings.lists_without_tags = lists_without_tags);
        let other = fleet.plane.add_certificate(10, &[]);
        let args = ["--stage", stage.as_str()];
        fleet.fetch_well(&args);
        fleet.assert_ids([&old]);

        let new = fleet.plane.add_certificate(0, &[(REPLACES, &old)]);
        fleet.fetch_well(&args);
        fleet.assert_ids([&old, &new]);
        let written = std::fs::read_to_string(fleet.file(&new)).unwrap();
        assert_eq!(lines(&written), lines(&fleet.plane.certificate(&new).unwrap().pem));
        assert!(written.ends_with('\n'));

        fleet.switch(&stage, &new);
        fleet.fetch_well(&args);
        fleet.assert_ids([&old, &new]);

        fleet.plane.tag_certificate(&old, RETIRED, "yes");
        let finished = fleet.fetch_well(&args);
        assert!(finished.stderr.contains("certificate_removed"), "{finished}");
        fleet.assert_ids([&new]);
        assert!(fleet.plane.certificate(&other).is_some());
    }
}

#[test]
fn tag_id_and_all_select_and_the_directory_is_usable_by_serve() {
    let fleet = Fleet::new();
    let a = fleet.plane.add_certificate(1, &[("team", "x")]);
    let b = fleet.plane.add_certificate(1, &[("team", "y")]);
    let c = fleet.plane.add_certificate(1, &[]);
    for (args, expected) in [
        (vec!["--tag", "team=x"], vec![&a]),
        (vec!["--id", &b, "--tag", "team=x"], vec![&a, &b]),
        (vec!["--all"], vec![&a, &b, &c]),
    ] {
        std::fs::remove_dir_all(fleet.trust()).unwrap_or_default();
        fleet.fetch_well(&args);
        let mut expected: Vec<_> = expected.into_iter().cloned().collect();
        expected.sort();
        assert_eq!(fleet.ids(), expected, "{args:?}");
    }
    let inspected = run(Portcullis::command().arg("inspect").arg(fleet.trust()), "");
    assert_eq!(inspected.code, Some(0), "{inspected}");
    assert_eq!(inspected.stdout.lines().count(), 4, "{inspected}");
}

#[test]
fn unknown_id_is_named_and_nothing_is_removed() {
    let fleet = Fleet::new();
    let a = fleet.plane.add_certificate(1, &[]);
    let b = fleet.plane.add_certificate(1, &[]);
    fleet.fetch_well(&["--all"]);
    let keep_none = ["--keep-for", "0s"];
    fleet.fetch_badly(&[&["--id", &a, "--id", "nosuch1"], &keep_none[..]].concat(), &["nosuch1"]);
    fleet.assert_ids([&a, &b]);
    fleet.fetch_well(&[&["--id", &a], &keep_none[..]].concat());
    fleet.assert_ids([&a]);
}

#[test]
fn stage_that_cannot_be_followed_is_named_with_the_remedy() {
    let (fleet, stage, _) = Fleet::with_stage();
    let api = stage.split_once('/').unwrap().0;
    let gone = format!("{api}/gone");
    fleet.fetch_badly(&["--stage", &gone], &[&gone, "no such stage"]);
    fleet.plane.set_stage(api, "bare", None);
    fleet.fetch_badly(&["--stage", &format!("{api}/bare")], &["presents no client certificate"]);
    fleet.plane.set_stage(api, "acm", Some("arn:aws:acm:eu-west-1:123456789012:certificate/x"));
    let acm = format!("{api}/acm");
    fleet.fetch_badly(&["--stage", &acm], &[&acm, "ACM renews it", "--trust-ca"]);
    assert_eq!(fleet.ids(), [""; 0]);
}

#[test]
fn missing_permission_is_named() {
    let (fleet, stage, _) = Fleet::with_stage();
    fleet.plane.set(|settings| _ = settings.denied.insert("GetStage"));
    let resource =
        format!("apigateway:GET on arn:aws:apigateway:eu-west-1::/restapis/{}", &stage[..10]);
    fleet.fetch_badly(&["--stage", &stage], &["access_denied", &resource]);
    fleet.plane.set(|settings| settings.denied.clear());
    fleet.fetch_well(&["--stage", &stage]);
}

#[test]
fn usage_errors_exit_2() {
    let fleet = Fleet::new();
    for (args, named) in [
        (vec![], "--stage"),
        (vec!["--stage", "a1b2c3"], "API_ID/STAGE"),
        (vec!["--tag", "team"], "KEY=VALUE"),
        (vec!["--all", "--every", "0s"], "--every"),
        (vec!["--all", "--admin", "127.0.0.1:0"], "--every"),
    ] {
        let finished = fleet.fetch(&args);
        assert_eq!(finished.code, Some(2), "{args:?}: {finished}");
        assert!(finished.stderr.contains(named), "{args:?}: {finished}");
    }
    let no_region = run(
        fleet.command(&["--all"]).env_remove("AWS_REGION").env_remove("AWS_DEFAULT_REGION"),
        "",
    );
    assert_eq!(no_region.code, Some(2), "{no_region}");
    assert!(no_region.stderr.contains("--region"), "{no_region}");
    std::fs::write(fleet.trust(), "").unwrap();
    assert_eq!(fleet.fetch(&["--all"]).code, Some(2));
}

#[test]
fn help_names_region_profile_and_the_risk_of_a_switch_by_hand() {
    let help = run(Portcullis::command().args(["fetch", "--help"]), "");
    let text = help.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    for named in ["--region", "--profile", "loses requests until the next poll", "--tag or --all"] {
        assert!(text.contains(named), "{named} in {help}");
    }
}
