use super::{Fleet, REPLACES, RETIRED, command};
use crate::control_plane::{ControlPlane, Fault};
use crate::support::run;

/// A fleet whose next good poll would write one certificate and remove another.
fn about_to_change() -> (Fleet, String, String, String) {
    let (fleet, stage, old) = Fleet::with_stage();
    let new = fleet.plane.add_certificate(1, &[(REPLACES, &old)]);
    fleet.switch(&stage, &new);
    fleet.fetch_well(&["--stage", &stage]);
    fleet.plane.tag_certificate(&old, RETIRED, "yes");
    let next = fleet.plane.add_certificate(0, &[(REPLACES, &new)]);
    (fleet, stage, new, next)
}

#[test]
fn failed_poll_changes_nothing_and_the_next_good_one_everything() {
    let faults = [
        ("GetClientCertificates", Fault::EmptyList, 1, "empty_list"),
        ("GetClientCertificates", Fault::Error(503, Some(0)), 5, "server_error"),
        ("GetClientCertificates", Fault::Throttled(Some(0)), 5, "throttled"),
        ("GetStage", Fault::CutBefore, 5, "no_response"),
        ("GetStage", Fault::CutBody, 5, "no_response"),
        ("GetStage", Fault::NotFound, 1, "unknown"),
        ("GetStage", Fault::Error(400, None), 1, "bad_request"),
    ];
    let (fleet, stage, new, next) = about_to_change();
    let before = fleet.disk();
    for (action, fault, times, kind) in faults {
        for _ in 0..times {
            fleet.plane.fail(action, fault);
        }
        fleet.fetch_badly(&["--stage", &stage], &[kind, "remedy"]);
        assert_eq!(fleet.plane.faults_left(), 0, "{fault:?}");
        assert_eq!(fleet.disk(), before, "{fault:?}");
    }
    fleet.fetch_well(&["--stage", &stage]);
    fleet.assert_ids([&new, &next]);
}

#[test]
fn failures_that_pass_are_retried_at_most_five_calls_a_second() {
    let (fleet, stage, new, next) = about_to_change();
    fleet.plane.set(|settings| settings.lists_without_tags = true);
    for fault in [Fault::Throttled(Some(1)), Fault::Error(500, None), Fault::CutBody] {
        fleet.plane.fail("GetClientCertificates", fault);
    }
    fleet.fetch_well(&["--stage", &stage]);
    fleet.assert_ids([&new, &next]);
    let calls = fleet.plane.calls();
    let at = |n: usize| {
        let mut lists = calls.iter().filter(|call| call.action == "GetClientCertificates");
        lists.nth(n).unwrap().at
    };
    // The first poll listed once.
    assert!(at(2) - at(1) >= std::time::Duration::from_secs(1), "Retry-After is respected");
    assert!(fleet.plane.busiest_second() <= 5, "{calls:?}");
}

#[test]
fn list_that_ends_early_removes_nothing() {
    let fleet = Fleet::new();
    for _ in 0..3 {
        fleet.plane.add_certificate(1, &[("team", "x")]);
    }
    fleet.plane.set(|settings| settings.page = Some(1));
    let args = ["--tag", "team=x", "--keep-for", "0s"];
    fleet.fetch_well(&args);
    let all = fleet.disk();
    assert_eq!(fleet.ids().len(), 3);
    for _ in 0..3 {
        fleet.plane.fail("GetClientCertificates", Fault::MissingPage);
        fleet.fetch_well(&args);
        assert_eq!(fleet.disk(), all);
    }
    assert_eq!(fleet.plane.faults_left(), 0);
}

#[test]
fn deleted_certificate_goes_with_the_second_poll_that_finds_it_missing() {
    let fleet = Fleet::new();
    let a = fleet.plane.add_certificate(1, &[]);
    let b = fleet.plane.add_certificate(1, &[]);
    fleet.fetch_well(&["--all"]);
    fleet.plane.remove_certificate(&a);
    fleet.fetch_well(&["--all"]);
    fleet.assert_ids([&a, &b]);
    fleet.fetch_well(&["--all"]);
    fleet.assert_ids([&b]);
}

#[test]
fn certificate_stays_while_the_list_holds_no_other_one_of_the_manifest() {
    let fleet = Fleet::new();
    let a = fleet.plane.add_certificate(1, &[]);
    fleet.fetch_well(&["--all"]);
    fleet.plane.remove_certificate(&a);
    for _ in 0..3 {
        fleet.fetch_badly(&["--all", "--keep-for", "0s"], &["empty_list"]);
    }
    fleet.assert_ids([&a]);
}

#[test]
fn unselected_certificate_stays_for_keep_for() {
    let fleet = Fleet::new();
    let a = fleet.plane.add_certificate(1, &[("team", "x")]);
    let b = fleet.plane.add_certificate(1, &[("team", "x")]);
    fleet.fetch_well(&["--tag", "team=x"]);
    fleet.plane.tag_certificate(&a, "team", "y");
    fleet.fetch_well(&["--tag", "team=x"]);
    fleet.fetch_well(&["--tag", "team=x", "--keep-for", "1h"]);
    fleet.assert_ids([&a, &b]);
    fleet.fetch_well(&["--tag", "team=x", "--keep-for", "0s"]);
    fleet.assert_ids([&b]);
}

#[test]
fn last_valid_certificate_is_kept_and_goes_once_another_is_valid() {
    let fleet = Fleet::new();
    let valid = fleet.plane.add_certificate(1, &[("team", "x")]);
    let ended = fleet.plane.add_certificate(400, &[("team", "x")]);
    let args = ["--tag", "team=x"];
    fleet.fetch_well(&args);
    fleet.plane.tag_certificate(&valid, RETIRED, "yes");
    let finished = fleet.fetch_well(&args);
    assert!(finished.stderr.contains("certificate_kept"), "{finished}");
    fleet.assert_ids([&valid, &ended]);
    let next = fleet.plane.add_certificate(0, &[("team", "x")]);
    fleet.fetch_well(&args);
    fleet.assert_ids([&ended, &next]);
}

#[test]
fn other_region_or_endpoint_changes_nothing_and_exits_1() {
    let (fleet, stage, new, _) = about_to_change();
    let before = fleet.disk();
    fleet.fetch_badly(&["--stage", &stage, "--region", "us-east-1"], &["elsewhere", "us-east-1"]);
    let other = ControlPlane::start();
    other.add_certificate(1, &[]);
    let args = ["--all", "--keep-for", "0s", "--every", "1s"];
    let finished = run(&mut command(&other, &fleet.trust(), &args), "");
    assert_eq!(finished.code, Some(1), "a daemon too: {finished}");
    assert!(finished.stderr.contains("elsewhere"), "{finished}");
    assert_eq!(fleet.disk(), before);
    fleet.fetch_well(&["--stage", &stage]);
    assert!(fleet.ids().contains(&new));
}

#[test]
fn file_that_holds_the_certificate_is_adopted_and_another_is_left_alone() {
    let fleet = Fleet::new();
    let a = fleet.plane.add_certificate(1, &[]);
    let b = fleet.plane.add_certificate(1, &[]);
    std::fs::create_dir(fleet.trust()).unwrap();
    let same = fleet.plane.certificate(&a).unwrap().pem;
    std::fs::write(fleet.file(&a), &same).unwrap();
    std::fs::write(fleet.file(&b), &same).unwrap();
    let own = fleet.trust().join("own.pem");
    std::fs::write(&own, &same).unwrap();

    fleet.fetch_badly(&["--all"], &["certificate_adopted", "foreign_file", &b]);
    assert_eq!(std::fs::read_to_string(fleet.file(&b)).unwrap(), same);
    std::fs::remove_file(fleet.file(&b)).unwrap();
    fleet.fetch_well(&["--all"]);
    assert_eq!(std::fs::read_to_string(fleet.file(&a)).unwrap(), same);

    fleet.plane.tag_certificate(&a, RETIRED, "yes");
    fleet.fetch_well(&["--all"]);
    fleet.assert_ids([&b, &"own".to_owned()]);
}

#[test]
fn file_that_no_longer_holds_what_was_written_is_not_removed() {
    let fleet = Fleet::new();
    let a = fleet.plane.add_certificate(1, &[]);
    let b = fleet.plane.add_certificate(1, &[]);
    fleet.fetch_well(&["--all"]);
    std::fs::write(fleet.file(&a), "of the operator").unwrap();
    fleet.plane.tag_certificate(&a, RETIRED, "yes");
    let finished = fleet.fetch_well(&["--all"]);
    assert!(finished.stderr.contains("certificate_kept"), "{finished}");
    fleet.assert_ids([&a, &b]);
}

#[test]
fn manifest_that_cannot_be_read_changes_nothing() {
    let fleet = Fleet::new();
    let a = fleet.plane.add_certificate(1, &[]);
    fleet.fetch_well(&["--all"]);
    let manifest = fleet.trust().join(".portcullis-fetch.json");
    std::fs::write(&manifest, "{").unwrap();
    let before = fleet.disk();
    fleet.fetch_badly(&["--all"], &[".portcullis-fetch.json", "remove it"]);
    assert_eq!(fleet.disk(), before);
    std::fs::remove_file(&manifest).unwrap();
    let finished = fleet.fetch_well(&["--all"]);
    assert!(finished.stderr.contains("certificate_adopted"), "{finished}");
    fleet.assert_ids([&a]);
}
