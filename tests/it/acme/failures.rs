//! What goes wrong: it is named with its remedy, changes nothing, and is not tried too often.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::directory::{Behaviour, Directory};
use super::pebble::{AcmeServer, DOMAIN, Pebble, Wanted, admin, ask};
use crate::support::{DEADLINE, Portcullis, run, wait_for};

/// How many seconds from now the next attempt of an event is.
fn pause(event: &Value) -> i64 {
    let text = event["next_attempt"].as_str().unwrap();
    let mut date = Command::new("date");
    let seconds: i64 = run(date.args(["+%s", "-d", text]), "").stdout.trim().parse().unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    seconds - i64::try_from(now.as_secs()).unwrap()
}

pub(super) fn failure(server: &Portcullis) -> Value {
    server.wait_for_event("acme_order_failed", |_| true)
}

#[test]
fn failed_validation_is_named_and_its_pause_survives_a_restart() {
    let pebble = Pebble::start(&Wanted::default());
    let site = AcmeServer::new();
    pebble.gate.close();
    let server = site.serve_apart(&pebble, &[]);
    let event = failure(&server);
    assert_eq!(event["step"], "validation", "{event}");
    let problem_type = event["problem_type"].as_str().unwrap();
    assert!(problem_type.starts_with("urn:ietf:params:acme:error:"), "{event}");
    assert!(event["detail"].as_str().unwrap().contains(DOMAIN), "{event}");
    let first = pause(&event);
    assert!((50..=66).contains(&first), "{event}");
    let admin_address = admin(&server);
    let status: Value = serde_json::from_str(&ask(&admin_address, "/status").1).unwrap();
    assert_eq!(status["server"], Value::Null);
    assert_eq!(status["acme"]["last_failure"]["step"], "validation");
    assert_eq!(status["acme"]["next_attempt"], event["next_attempt"]);
    drop(server);

    pebble.gate.close();
    let server = site.serve_apart(&pebble, &[]);
    let admin = admin(&server);
    let mut status = Value::Null;
    assert!(wait_for(DEADLINE, || {
        status = serde_json::from_str(&ask(&admin, "/status").1).unwrap();
        status["acme"]["next_attempt"].is_string()
    }));
    assert_eq!(status["acme"]["next_attempt"], event["next_attempt"], "no attempt before");
    assert_eq!(status["acme"]["failures"], 1);
    assert!(!server.log().contains("acme_order_failed"));
    let postponed = server.wait_for_event("acme_order_postponed", |_| true);
    for field in ["step", "problem_type", "detail", "next_attempt"] {
        assert_eq!(postponed[field], event[field], "{postponed}");
    }
}

#[test]
fn rejected_name_is_tried_again_after_a_day() {
    let pebble = Pebble::start(&Wanted::default());
    let site = AcmeServer::new();
    let ca = pebble.files.path().join("ca.pem");
    let server = Portcullis::serve(site.flags(&pebble.url(), &ca, &["www.blocked.example"]));
    let event = failure(&server);
    assert_eq!(event["problem_type"], "urn:ietf:params:acme:error:rejectedIdentifier", "{event}");
    assert!(pause(&event) > 23 * 60 * 60, "{event}");
    drop(server);
    // The pause is for that name, and an operator who corrects it does not wait.
    let server = site.serve(&pebble, &[]);
    server.wait_for_event("acme_certificate_issued", |_| true);
}

#[test]
fn failed_renewal_leaves_the_active_certificate() {
    let mut pebble = Pebble::start(&Wanted { lifetime: 30, ..Wanted::default() });
    let site = AcmeServer::new();
    let server = site.serve(&pebble, &[]);
    let issued = server.wait_for_event("acme_certificate_issued", |_| true);
    pebble.kill();
    let event = server.wait_for_event("acme_order_failed", |_| true);
    assert_eq!(event["step"], "directory", "{event}");
    let admin = admin(&server);
    assert_eq!(ask(&admin, "/readyz").0, 200);
    let status: Value = serde_json::from_str(&ask(&admin, "/status").1).unwrap();
    assert_eq!(status["server"]["fingerprint"], issued["fingerprint"]);
}

#[test]
fn directory_that_is_gone_during_an_order_changes_nothing() {
    let mut pebble = Pebble::start(&Wanted { lifetime: 15, ..Wanted::default() });
    let site = AcmeServer::new();
    let server = site.serve(&pebble, &[]);
    let issued = server.wait_for_event("acme_certificate_issued", |_| true);
    let pair = fs::read(site.cache().join("certificate-and-key.pem")).unwrap();
    pebble.gate.hold();
    let before = pebble.gate.connections();
    assert!(wait_for(DEADLINE, || pebble.gate.connections() > before), "{}", server.log());
    pebble.kill();
    let event = failure(&server);
    assert!(["challenge", "validation"].contains(&event["step"].as_str().unwrap()), "{event}");
    let status: Value = serde_json::from_str(&ask(&admin(&server), "/status").1).unwrap();
    assert_eq!(status["server"]["fingerprint"], issued["fingerprint"]);
    assert_eq!(fs::read(site.cache().join("certificate-and-key.pem")).unwrap(), pair);
}

#[test]
fn directory_that_is_none_is_named() {
    for (behaviour, word) in [
        (Behaviour::Html, "text/html"),
        (Behaviour::Redirects, "redirects to https://elsewhere.example/dir"),
        (Behaviour::Nonsense, "no JSON that makes sense"),
        (Behaviour::Unavailable, "503"),
        (Behaviour::OtherClock, "the directory's clock says 2020-01-01T00:00:00Z"),
    ] {
        let directory = Directory::start(behaviour);
        let site = AcmeServer::new();
        let server = Portcullis::serve(site.flags(&directory.url(), &directory.ca(), &[DOMAIN]));
        let event = failure(&server);
        let detail = event["detail"].as_str().unwrap();
        assert!(detail.contains(word), "{behaviour:?}: {event}");
        assert!(event["remedy"].as_str().unwrap().contains("--acme-directory"), "{event}");
        if behaviour == Behaviour::Unavailable {
            assert!(pause(&event) > 1700, "Retry-After is obeyed: {event}");
        }
    }
}

#[test]
fn directory_that_stalls_is_named() {
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("https://localhost:{}/dir", silent.local_addr().unwrap().port());
    let site = AcmeServer::new();
    let ca = Directory::start(Behaviour::Works).ca();
    let server = Portcullis::serve(site.flags(&url, &ca, &[DOMAIN]));
    let event = failure(&server);
    assert!(event["detail"].as_str().unwrap().contains("no whole response"), "{event}");
    assert!(event["detail"].as_str().unwrap().contains(&url), "{event}");
}

#[test]
fn directory_with_a_certificate_of_an_unknown_ca_is_named() {
    let directory = Directory::start(Behaviour::Works);
    let other = Directory::start(Behaviour::Works);
    let site = AcmeServer::new();
    let server = Portcullis::serve(site.flags(&directory.url(), &other.ca(), &[DOMAIN]));
    let event = failure(&server);
    assert_eq!(event["step"], "directory", "{event}");
    assert!(event["detail"].as_str().unwrap().contains("certificate"), "{event}");
    assert!(event["remedy"].as_str().unwrap().contains("--acme-ca"), "{event}");
}

#[test]
fn issued_certificate_that_does_not_fit_is_not_used() {
    let directory = Directory::start(Behaviour::IssuesForAnotherName);
    let site = AcmeServer::new();
    let server = Portcullis::serve(site.flags(&directory.url(), &directory.ca(), &[DOMAIN]));
    let event = failure(&server);
    assert_eq!(event["step"], "check", "{event}");
    assert!(event["detail"].as_str().unwrap().contains("not for api.example"), "{event}");
    assert!(!site.cache().join("certificate-and-key.pem").exists());
}

/// Starts, and expects that this is refused: the exit code and what is printed.
pub(super) fn refused(site: &AcmeServer, domains: &[&str], more: &[&str]) -> String {
    let mut command = Portcullis::command();
    let ca = site.files.path().join("trust/a.pem");
    let mut flags = site.flags("https://localhost:1/dir", &ca, domains);
    // A flag of `more` takes the place of the one that is there.
    let name = |flag: &str| flag.split('=').next().unwrap_or_default().to_owned();
    flags.retain(|flag| !more.iter().any(|other| name(other) == name(flag)));
    command.arg("serve").args(flags).args(more);
    let finished = run(command.args(["--listen", "127.0.0.1:0"]), "");
    assert_eq!(finished.code, Some(2), "{finished}");
    finished.stderr
}

#[test]
fn wrong_flags_are_named_with_their_remedy_and_exit_2() {
    let site = AcmeServer::new();
    let many: Vec<String> = (0..101).map(|number| format!("n{number}.example")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (domains, more, words) in [
        (&["*.example.com"][..], &[][..], ["--acme-domain", "wildcard"]),
        (&["192.0.2.1"], &[], ["--acme-domain", "IP address"]),
        (&many, &[], ["--acme-domain", "101 names"]),
        (&[DOMAIN], &["--cert=x", "--key=y"], ["--acme-domain", "--cert"]),
        (&[DOMAIN], &["--acme-directory=http://ca.example/"], ["--acme-directory", "https://"]),
        (&[DOMAIN], &["--acme-key=rsa4096"], ["--acme-key", "rsa2048"]),
        (&[DOMAIN], &["--acme-email=no-address"], ["--acme-email", "one address"]),
    ] {
        let output = refused(&site, domains, more);
        assert!(words.iter().all(|word| output.contains(word)), "{words:?}: {output}");
    }
}

#[test]
fn terms_must_be_agreed_to() {
    let site = AcmeServer::new();
    let mut command = Portcullis::command();
    let ca = site.files.path().join("trust/a.pem");
    let mut flags = site.flags("https://localhost:1/dir", &ca, &[DOMAIN]);
    flags.retain(|flag| flag != "--acme-agree-terms");
    let finished = run(command.arg("serve").args(flags), "");
    assert_eq!(finished.code, Some(2), "{finished}");
    assert!(finished.stderr.contains("--acme-agree-terms"), "{finished}");
}

#[test]
fn check_names_what_serve_would_refuse_and_writes_nothing() {
    let site = AcmeServer::new();
    let ca = Directory::start(Behaviour::Works).ca();
    let check = |ca: &std::path::Path| {
        let mut command = Portcullis::command();
        let flags = site.flags("https://localhost:1/dir", ca, &[DOMAIN]);
        run(command.arg("check").args(flags), "")
    };
    let finished = check(&ca);
    assert_eq!(finished.code, Some(0), "{finished}");
    assert!(finished.stdout.contains("serve orders the first one"), "{finished}");
    assert!(!site.cache().exists());
    let finished = check(&site.files.path().join("missing.pem"));
    assert_eq!(finished.code, Some(2), "{finished}");
    assert!(finished.stdout.contains("--acme-ca"), "{finished}");
    fs::create_dir(site.cache()).unwrap();
    fs::set_permissions(site.cache(), fs::Permissions::from_mode(0o755)).unwrap();
    let finished = check(&ca);
    assert_eq!(finished.code, Some(2), "{finished}");
    assert!(finished.stdout.contains("chmod"), "{finished}");
}

#[test]
fn one_more_name_is_ordered_at_once_while_the_old_certificate_stays() {
    let pebble = Pebble::start(&Wanted::default());
    let site = AcmeServer::new();
    let server = site.serve(&pebble, &[]);
    server.wait_for_event("acme_certificate_issued", |_| true);
    drop(server);
    pebble.gate.hold();
    let ca = pebble.files.path().join("ca.pem");
    let server = Portcullis::serve(site.flags(&pebble.url(), &ca, &[DOMAIN, "two.example"]));
    assert_eq!(ask(&admin(&server), "/readyz").0, 200);
    pebble.gate.lead_to(&server);
    let issued = server.wait_for_event("acme_certificate_issued", |_| true);
    assert_eq!(issued["domains"][1], "two.example");
}

#[test]
fn account_that_the_directory_does_not_know_is_replaced() {
    let pebble = Pebble::start(&Wanted::default());
    let site = AcmeServer::new();
    let server = site.serve(&pebble, &[]);
    server.wait_for_event("acme_certificate_issued", |_| true);
    drop(server);
    fs::remove_file(site.cache().join("certificate-and-key.pem")).unwrap();
    let account = site.cache().join("account.json");
    let stored = fs::read_to_string(&account).unwrap();
    let mut stored: Value = serde_json::from_str(&stored).unwrap();
    let id = stored["credentials"]["id"].as_str().unwrap().to_owned();
    stored["credentials"]["id"] = format!("{id}0000").into();
    fs::write(&account, stored.to_string()).unwrap();
    let server = site.serve(&pebble, &[]);
    server.wait_for_event("acme_certificate_issued", |_| true);
}

#[test]
#[ignore = "it takes more than a minute"]
fn order_that_failed_is_tried_again_and_succeeds() {
    let pebble = Pebble::start(&Wanted::default());
    let site = AcmeServer::new();
    pebble.gate.close();
    let server = site.serve_apart(&pebble, &[]);
    failure(&server);
    pebble.gate.lead_to(&server);
    let end = std::time::Instant::now() + Duration::from_secs(90);
    while !server.log().contains("acme_certificate_issued") {
        assert!(std::time::Instant::now() < end, "{}", server.log());
        std::thread::park_timeout(Duration::from_millis(100));
    }
}
