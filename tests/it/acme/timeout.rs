//! `--acme-timeout`: a server without a usable certificate ends, and no other does.

use super::directory::{Behaviour, Directory};
use super::pebble::{AcmeServer, DOMAIN, Pebble, Wanted, admin, ask};
use crate::support::{Portcullis, run};

/// A server whose directory is gone.
fn serve_alone(site: &AcmeServer, more: &[&str]) -> Portcullis {
    let ca = Directory::start(Behaviour::Works).ca();
    let mut flags = site.flags("https://localhost:1/dir", &ca, &[DOMAIN]);
    flags.extend(more.iter().map(|flag| (*flag).to_owned()));
    Portcullis::serve(flags)
}

#[test]
fn without_a_certificate_in_time_it_exits_1() {
    let pebble = Pebble::start(&Wanted::default());
    let site = AcmeServer::new();
    pebble.gate.close();
    let mut server = site.serve_apart(&pebble, &["--acme-timeout=2s"]);
    assert_eq!(server.exit_code(), Some(1));
    server.wait_for_event("acme_timed_out", |event| {
        event["reason"].as_str().unwrap().contains("--acme-timeout")
    });
}

#[test]
fn certificate_outside_its_validity_period_is_no_certificate() {
    for (days, word) in [(-60..-1, "has ended"), (1..60, "not yet valid")] {
        let site = AcmeServer::new();
        site.fill_cache(days.clone());
        let server = serve_alone(&site, &[]);
        let (status, body) = ask(&admin(&server), "/readyz");
        assert!(status == 503 && body.contains(word), "{status} {body}");
        server.wait_for_event("acme_not_ready_until_issued", |_| true);
        drop(server);

        let site = AcmeServer::new();
        site.fill_cache(days);
        let mut server = serve_alone(&site, &["--acme-timeout=1s"]);
        assert_eq!(server.exit_code(), Some(1), "{word}");
        server.wait_for_event("acme_timed_out", |event| {
            let reason = event["reason"].as_str().unwrap();
            reason.contains("--acme-timeout") && reason.contains(word)
        });
    }
}

#[test]
fn valid_certificate_outlives_the_timeout_without_a_directory() {
    let site = AcmeServer::new();
    site.fill_cache(-1..60);
    let server = serve_alone(&site, &["--acme-timeout=1s"]);
    server.wait_for_event("acme_started", |_| true);
    // One that starts after it and has no certificate shows that the time is over.
    let other = AcmeServer::new();
    assert_eq!(serve_alone(&other, &["--acme-timeout=1s"]).exit_code(), Some(1));
    assert_eq!(ask(&admin(&server), "/readyz").0, 200);
    assert!(!server.log().contains("acme_not_ready_until_issued"), "{}", server.log());
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn expired_certificate_is_replaced_at_once() {
    let directory = Directory::start(Behaviour::Works);
    let site = AcmeServer::new();
    site.fill_cache(-60..-1);
    let server = Portcullis::serve(site.flags(&directory.url(), &directory.ca(), &[DOMAIN]));
    server.wait_for_event("acme_certificate_issued", |_| true);
    assert_eq!(ask(&admin(&server), "/readyz").0, 200);
}

#[test]
fn check_reports_an_expired_certificate_in_the_cache_and_no_valid_one() {
    let ca = Directory::start(Behaviour::Works).ca();
    for (days, code) in [(-60..-1, 2), (-1..60, 0)] {
        let site = AcmeServer::new();
        site.fill_cache(days);
        let flags = site.flags("https://localhost:1/dir", &ca, &[DOMAIN]);
        let finished = run(Portcullis::command().arg("check").args(flags), "");
        assert_eq!(finished.code, Some(code), "{finished}");
        assert_eq!(finished.stdout.contains("serve orders another one"), code == 2, "{finished}");
    }
}
