//! The rotation as it should go.

use super::*;

#[test]
fn whole_rotation_under_traffic_loses_no_request() {
    let fleet = Fleet::new().with_traffic();
    let finished = fleet.rotate(&["--probe", "GET /health"]);
    succeed(&finished);
    let new = fleet.assert_rotated();
    for step in ["plan", "generate", "trust", "try", "switch", "quiet", "retire"] {
        assert!(finished.stdout.contains(&format!("] {step}: ")), "no {step} in {finished}");
    }
    assert_eq!(fleet.plane.count("GenerateClientCertificate"), 1);
    assert_eq!(fleet.plane.count("CreateDeployment"), 0);
    assert!(fleet.plane.busiest_second() <= 6, "{}", fleet.plane.busiest_second());
    let by_certificate = fleet.report().by_certificate;
    assert!(by_certificate.contains_key(&new) && by_certificate.contains_key(&fleet.old));

    let again = fleet.rotate(&[]);
    succeed(&again);
    assert!(again.stdout.contains("nothing to do"), "{again}");
    assert_eq!(fleet.assert_rotated(), new);
}

#[test]
fn certificate_with_time_left_is_not_replaced() {
    let fleet = Fleet::with_age(300);
    let finished = fleet.rotate(&["--json"]);
    succeed(&finished);
    let last = objects(&finished).pop().unwrap();
    assert_eq!(last["event"], "nothing_to_do", "{finished}");
    assert_eq!(last["days_left"], 65, "{finished}");
    let renewed = fleet.rotate(&["--renew-before", "70d", "--dry-run"]);
    succeed(&renewed);
    assert!(renewed.stdout.contains("a new certificate"), "{renewed}");
    fleet.assert_untouched();
}

#[test]
fn dry_run_prints_the_plan_and_changes_nothing() {
    let fleet = Fleet::new();
    fleet.plane.set_stage(&fleet.api, "other", Some(&fleet.old));
    let finished = fleet.rotate(&["--dry-run", "--json"]);
    succeed(&finished);
    let plan = objects(&finished).into_iter().find(|object| object["event"] == "plan").unwrap();
    assert_eq!(plan["from"], fleet.old.as_str());
    assert_eq!(plan["to"], Value::Null);
    assert_eq!(plan["not_named"][0], format!("{}/other", fleet.api));
    assert_eq!(fleet.files(), ["gateway-2025.pem".to_owned()].into());
    assert!(fleet.plane.calls().iter().all(|call| call.action.starts_with("Get")));
}

#[test]
fn several_stages_and_replicas_follow_one_flag_or_are_split_at_commas() {
    let fleet = Fleet::new();
    let other = fleet.plane.add_api("payments");
    fleet.plane.set_stage(&other, "live", Some(&fleet.old));
    let traffic = fleet.plane.start_traffic(fleet.backends());
    let replicas: Vec<_> =
        fleet.servers.iter().map(|server| format!("http://{}", server.admin)).collect();
    let mut command = Portcullis::command();
    command.envs(fleet.plane.variables()).args(["rotate", "--replicas", &replicas.join(",")]);
    command.arg("--stage").args([fleet.stage(), format!("{other}/live")]);
    command.arg("--trust").arg(fleet.trust());
    command.args(["--quiet-for", "2s", "--switch-timeout", "8s"]);
    succeed(&finish(command));
    fleet.assert_rotated();
    assert_eq!(fleet.plane.presented(&other, "live"), Some(fleet.presented()));
    assert_eq!(traffic.report().failures, Vec::<String>::new());
}

#[test]
fn unnamed_stage_keeps_the_certificate_and_is_named() {
    let fleet = Fleet::new().with_traffic();
    let other = fleet.plane.add_api("payments");
    fleet.plane.set_stage(&other, "live", Some(&fleet.old));
    let finished = fleet.rotate(&[]);
    fail(&finished, 1, &["retire", &format!("{other}/live"), "to continue: portcullis rotate"]);
    assert!(fleet.files().contains("gateway-2025.pem"));
    assert!(fleet.plane.certificates().contains_key(&fleet.old));
    assert_ne!(fleet.presented(), fleet.old);
    // Once that stage presents another one, the rotation is finished.
    fleet.plane.set_stage(&other, "live", Some(&fleet.presented()));
    let _traffic = fleet.plane.start_traffic(fleet.backends());
    succeed(&fleet.rotate(&["--stage", &format!("{other}/live"), "--renew-before", "0s"]));
}

#[test]
fn fleet_that_fetches_is_only_waited_for() {
    let fleet = Fleet::new().with_traffic();
    let mut fetch = Portcullis::command();
    fetch.envs(fleet.plane.variables()).arg("fetch").arg("--into").arg(fleet.trust());
    fetch.args(["--stage", &fleet.stage(), "--every", "1s", "--keep-for", "1h"]);
    fleet.name_file_as_fetch_does();
    let mut fetching = spawn(&mut fetch);
    let finished = finish(fleet.bare(&["--fleet-fetches"]));
    fetching.kill().unwrap();
    let log = fetching.wait_with_output().unwrap();
    assert_eq!(finished.code, Some(0), "{finished}\n{}", String::from_utf8_lossy(&log.stderr));
    let new = fleet.presented();
    assert_ne!(new, fleet.old);
    assert_eq!(fleet.plane.certificates().into_keys().collect::<Vec<_>>(), [new.as_str()]);
    fleet.assert_nothing_lost();
}

#[test]
fn two_runs_at_once_agree_on_one_certificate() {
    let fleet = Fleet::new().with_traffic();
    put(&fleet.trust(), "unrelated.pem", &PKI.a.cert);
    fleet.name_file_as_fetch_does();
    let mut fetch = Portcullis::command();
    fetch.envs(fleet.plane.variables()).arg("fetch").arg("--into").arg(fleet.trust());
    fetch.args(["--stage", &fleet.stage(), "--every", "1s"]);
    let mut fetching = spawn(&mut fetch);
    let runs: Vec<_> = (0..2).map(|_| fleet.bare(&["--fleet-fetches"])).collect();
    let finished: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = runs.into_iter().map(|run| scope.spawn(|| finish(run))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    fetching.kill().unwrap();
    fetching.wait().unwrap();
    for finished in &finished {
        assert!(finished.code == Some(0), "{finished}");
    }
    let new = fleet.presented();
    assert_ne!(new, fleet.old);
    assert_eq!(fleet.plane.certificates().into_keys().collect::<Vec<_>>(), [new.as_str()]);
    fleet.assert_nothing_lost();
}
