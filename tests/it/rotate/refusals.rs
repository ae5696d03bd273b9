//! What stops a rotation before it changes anything, and usage.

use super::*;

#[test]
fn replica_that_does_not_respond_stops_before_anything_is_generated() {
    let mut fleet = Fleet::new();
    let gone = fleet.servers.pop().unwrap();
    let admin = gone.admin;
    assert_eq!(gone.process.terminate(), Some(0));
    let finished = fleet.rotate(&["--replicas", &format!("http://{admin}")]);
    fail(&finished, 1, &["plan", &admin.to_string(), "does not respond"]);
    fleet.assert_untouched();
    assert_eq!(fleet.plane.count("GenerateClientCertificate"), 0);
}

#[test]
fn replica_that_does_not_trust_the_old_one_stops_before_anything_is_generated() {
    let fleet = Fleet::new();
    let other = Fleet::new();
    let admin = format!("http://{}", other.servers[0].admin);
    fail(&fleet.rotate(&["--replicas", &admin]), 1, &["does not trust", &fleet.old]);
    assert_eq!(fleet.plane.count("GenerateClientCertificate"), 0);
}

#[test]
fn replica_that_never_trusts_the_new_one_stops_before_the_switch() {
    let fleet = Fleet::new();
    let other = Fleet::new();
    put(&other.trust(), "of-the-other.pem", &fleet.plane.certificate(&fleet.old).unwrap().pem);
    other.servers[0].process.wait_for_event("trust_reloaded", |_| true);
    let admin = format!("http://{}", other.servers[0].admin);
    let finished = fleet.rotate(&["--replicas", &admin, "--timeout", "3s"]);
    fail(&finished, 1, &["trust", "does not trust", "to continue: portcullis rotate"]);
    assert_eq!(fleet.presented(), fleet.old);
    assert_eq!(fleet.plane.count("UpdateStage"), 0);
}

/// The probe succeeds, at a server that is no replica.
#[test]
fn probe_that_no_replica_counts_stops_before_the_switch() {
    let fleet = Fleet::new();
    let elsewhere = Server::start(&fleet.dir);
    fleet.plane.set_backend(Traffic::to([elsewhere.process.addr()], &PKI.root));
    let finished = fleet.rotate(&["--probe", "GET /health", "--timeout", "10s"]);
    fail(&finished, 1, &["stopped in step try", "no replica", "to continue: portcullis rotate"]);
    assert_eq!(fleet.plane.count("TestInvokeMethod"), 1);
    assert_eq!(fleet.presented(), fleet.old);
    assert_eq!(fleet.plane.count("UpdateStage"), 0);
}

#[test]
fn file_that_holds_other_certificates_too_stops_before_the_switch() {
    let fleet = Fleet::new();
    let old = fleet.plane.certificate(&fleet.old).unwrap().pem;
    put(&fleet.trust(), "gateway-2025.pem", &format!("{old}\n{}", PKI.a.cert));
    fail(&fleet.rotate(&[]), 1, &["gateway-2025.pem", "not edited", "split"]);
    fleet.assert_untouched();
    assert_eq!(fleet.plane.count("GenerateClientCertificate"), 0);
}

#[test]
fn second_run_on_one_directory_is_refused() {
    let fleet = Fleet::new();
    let lock = fs::File::create(fleet.trust().join(".portcullis-rotate.lock")).unwrap();
    lock.lock().unwrap();
    fail(&fleet.rotate(&[]), 1, &["another rotation"]);
    drop(lock);
    succeed(&fleet.rotate(&["--dry-run"]));
}

#[test]
fn acm_certificate_is_left_to_acm() {
    let fleet = Fleet::new();
    let arn = "arn:aws:acm:eu-west-1:123456789012:certificate/12345678";
    fleet.plane.set_stage(&fleet.api, "prod", Some(arn));
    let text = "ACM renews it; trust its CA with --trust-ca";
    fail(&fleet.rotate(&[]), 2, &[text]);
    let checked = fleet.rotate(&["--check"]);
    assert_eq!(checked.code, Some(2), "{checked}");
    assert!(checked.stdout.contains(text), "{checked}");
}

#[test]
fn usage_is_refused_with_the_flag() {
    let fleet = Fleet::new();
    let file = fleet.trust().join("gateway-2025.pem");
    let mut command = fleet.bare(&[]);
    command.arg("--trust").arg(&file);
    fail(&finish(command), 2, &["--trust", "not a directory"]);
    fail(&finish(fleet.bare(&[])), 2, &["--trust", "--fleet-fetches"]);
    fail(&fleet.rotate(&["--fleet-fetches"]), 2, &["--fleet-fetches"]);
    fail(&fleet.rotate(&["--stage", "no-slash"]), 2, &["API_ID/STAGE"]);
    fail(&fleet.rotate(&["--replicas", "10.0.0.1:9"]), 2, &["http://"]);
    fail(&fleet.rotate(&["--probe", "health"]), 2, &["GET /resource"]);
    fleet.assert_untouched();
}

#[test]
fn check_says_what_is_presented_trusted_and_left() {
    let fleet = Fleet::new();
    let checked = fleet.rotate(&["--check", "--json"]);
    succeed(&checked);
    let stage = &objects(&checked)[0]["stages"][0];
    assert_eq!(stage["certificate"], fleet.old.as_str());
    assert_eq!(stage["days_left"], 25);
    assert_eq!(stage["trusted_by_all"], true);
    let text = fleet.rotate(&["--check"]);
    assert!(text.stdout.contains("ends in 25 days; 2 replicas trust it"), "{text}");
    let other = Fleet::new();
    let admin = format!("http://{}", other.servers[0].admin);
    let checked = fleet.rotate(&["--check", "--replicas", &admin]);
    assert_eq!(checked.code, Some(1), "{checked}");
    assert!(checked.stdout.contains(&format!("{admin} does not trust it")), "{checked}");
    assert!(fleet.plane.calls().iter().all(|call| call.action.starts_with("Get")));
}

#[test]
fn interrupt_says_the_step_what_is_active_and_how_to_continue() {
    for signal in ["INT", "TERM"] {
        let fleet = Fleet::new().with_traffic();
        let child = spawn(&mut fleet.command(&["--quiet-for", "1h", "--quiet-timeout", "2h"]));
        assert!(wait_for(ENDS, || fleet.plane.count("UpdateStage") > 0), "never switched");
        let sent = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        for part in ["stopped in step ", "active now: ", "to continue: portcullis rotate --stage"] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
        assert!(text.contains(&format!("presents {}", fleet.presented())), "{text}");
        succeed(&fleet.rotate(&[]));
        fleet.assert_rotated();
    }
}
