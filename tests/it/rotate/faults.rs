//! Each way in which the control plane and the gateway may fail.

use super::*;
use crate::control_plane::{Fault, Settings, TakesEffect};

/// Runs a rotation under these faults, which must end well.
#[track_caller]
fn rotate_despite(
    faults: &[(&'static str, Fault)],
    change: impl FnOnce(&mut Settings),
    more: &[&str],
) -> Fleet {
    let fleet = Fleet::new().with_traffic();
    for (action, fault) in faults {
        fleet.plane.fail(action, *fault);
    }
    fleet.plane.set(change);
    succeed(&fleet.rotate(more));
    fleet.assert_rotated();
    assert_eq!(fleet.plane.faults_left(), 0, "each fault happened");
    fleet
}

const CHANGES: [&str; 4] =
    ["GenerateClientCertificate", "UpdateStage", "TagResource", "DeleteClientCertificate"];

#[test]
fn throttled_calls_are_repeated_after_the_time_that_was_asked_for() {
    let faults: Vec<_> = CHANGES
        .into_iter()
        .chain(["GetClientCertificates", "GetStage", "GetRestApis", "GetStages"])
        .map(|action| (action, Fault::Throttled(Some(1))))
        .collect();
    let fleet = rotate_despite(&faults, |_| {}, &[]);
    assert_eq!(fleet.plane.count("GenerateClientCertificate"), 2);
}

#[test]
fn server_errors_are_repeated_and_generate_once() {
    let faults: Vec<_> = CHANGES.map(|action| (action, Fault::Error(503, Some(1)))).into();
    rotate_despite(&faults, |_| {}, &[]);
}

#[test]
fn lost_responses_are_repeated_and_generate_once() {
    for fault in [Fault::CutAfter, Fault::CutBody, Fault::CutBefore] {
        let faults: Vec<_> = CHANGES.map(|action| (action, fault)).into();
        let fleet = rotate_despite(&faults, |_| {}, &[]);
        let expected = if fault == Fault::CutBefore { 2 } else { 1 };
        assert_eq!(fleet.plane.count("GenerateClientCertificate"), expected, "{fault:?}");
    }
}

#[test]
fn lost_stage_update_is_sent_again() {
    let fleet = rotate_despite(&[("UpdateStage", Fault::LostUpdate)], |_| {}, &[]);
    assert_eq!(fleet.plane.count("UpdateStage"), 2);
}

#[test]
fn lagging_reads_generate_once() {
    let lag = |settings: &mut Settings| settings.read_lag = Duration::from_secs(3);
    let fleet = rotate_despite(&[], lag, &[]);
    assert_eq!(fleet.plane.count("GenerateClientCertificate"), 1);
    let again = fleet.rotate(&[]);
    succeed(&again);
    fleet.assert_rotated();
}

#[test]
fn lists_without_tags_and_with_many_pages_are_read_whole() {
    let change = |settings: &mut Settings| {
        settings.lists_without_tags = true;
        settings.page = Some(1);
    };
    rotate_despite(&[], change, &[]);
}

#[test]
fn nodes_that_lag_lose_no_request() {
    let lag = |settings: &mut Settings| settings.node_lag = Duration::from_secs(12);
    rotate_despite(&[], lag, &[]);
}

#[test]
fn stage_that_goes_on_presenting_the_old_one_gets_its_own_deployment_again() {
    let change =
        |settings: &mut Settings| settings.takes_effect = TakesEffect::OnDeploymentSetAgain;
    let fleet = rotate_despite(&[], change, &[]);
    assert_eq!(fleet.plane.count("CreateDeployment"), 0);
    assert_eq!(fleet.plane.count("UpdateStage"), 2);
}

#[test]
fn deployment_is_created_only_if_allowed() {
    let fleet = Fleet::new().with_traffic();
    fleet.plane.set(|settings| settings.takes_effect = TakesEffect::OnNewDeployment);
    let finished = fleet.rotate(&[]);
    fail(&finished, 1, &["switch", "--deploy", "--roll-back", "active now"]);
    assert_eq!(fleet.plane.count("CreateDeployment"), 0);
    assert!(fleet.files().contains("gateway-2025.pem"));
    succeed(&fleet.rotate(&["--deploy"]));
    assert_eq!(fleet.plane.count("CreateDeployment"), 1);
    fleet.assert_rotated();
}

#[test]
fn full_account_names_what_no_stage_uses() {
    let fleet = Fleet::new();
    fleet.plane.fill();
    let unused = fleet.plane.certificates().into_keys().find(|id| *id != fleet.old).unwrap();
    fail(&fleet.rotate(&[]), 1, &["generate", "full", "60", &unused]);
    fleet.assert_untouched();
}

#[test]
fn denied_access_names_the_missing_action() {
    for (denied, action) in [
        ("GenerateClientCertificate", "apigateway:POST"),
        ("GetRestApis", "apigateway:GET on arn:aws:apigateway:eu-west-1::/restapis"),
        ("UpdateStage", "apigateway:PATCH"),
    ] {
        let fleet = Fleet::new();
        fleet.plane.set(|settings| {
            settings.denied.insert(denied);
        });
        fail(&fleet.rotate(&[]), 1, &[action]);
        fleet.assert_untouched();
    }
}

#[test]
fn refusal_to_delete_names_the_stages() {
    for is_bad_request in [false, true] {
        let fleet = Fleet::new().with_traffic();
        fleet.plane.set(|settings| settings.in_use_is_bad_request = is_bad_request);
        let mut command = fleet.command(&[]);
        let child = spawn(&mut command);
        // Another stage presents it after the last scan.
        let is_tagged = || fleet.plane.count("TagResource") > 0;
        assert!(wait_for(ENDS, is_tagged), "never retired");
        fleet.plane.set_stage(&fleet.api, "late", Some(&fleet.old));
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(&format!("{}/late", fleet.api)), "{stderr}");
    }
}
