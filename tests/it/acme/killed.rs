//! A server that is killed during an order, at each request to the directory, and in between.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::directory::{Behaviour, Directory};
use super::pebble::{AcmeServer, DOMAIN, Pebble, Wanted, admin, ask, pair};
use super::recorder::Recorder;
use crate::support::{DEADLINE, Portcullis, wait_for};

/// The steps of an order, as pebble calls the resources.
const STEPS: [&str; 9] = [
    "dir",
    "nonce-plz",
    "sign-me-up",
    "order-plz",
    "authZ",
    "chalZ",
    "my-order",
    "finalize-order",
    "certZ",
];
const NEW_ACCOUNT: &str = "sign-me-up";
const NEW_ORDER: &str = "order-plz";

fn fingerprint(admin: &str) -> serde_json::Value {
    let status: serde_json::Value = serde_json::from_str(&ask(admin, "/status").1).unwrap();
    status["server"]["fingerprint"].clone()
}

/// Kills a server once pebble has received so many requests. `None` if it makes fewer, or else
/// their steps.
fn kill_after(
    requests: usize,
    site: &AcmeServer,
    pebble: &Pebble,
    recorder: &Recorder,
) -> Option<Vec<String>> {
    let ca = pebble.files.path().join("ca.pem");
    recorder.restart(Some(requests));
    pebble.gate.hold();
    let server = Portcullis::serve(site.flags(&recorder.url(), &ca, &[DOMAIN]));
    pebble.gate.lead_to(&server);
    let is_issued = || server.log().contains("acme_certificate_issued");
    assert!(wait_for(DEADLINE, || recorder.is_held() || is_issued()), "{}", server.log());
    server.signal("KILL");
    recorder.is_held().then(|| recorder.steps()[..requests].to_vec())
}

/// Starts a server with the cache of one that was killed, and expects that it comes to a
/// certificate with the fewest requests.
fn recover(
    site: &AcmeServer,
    pebble: &Pebble,
    recorder: &Recorder,
    (before, steps_before): (Option<&[u8]>, &[String]),
) {
    let kept = fs::read(site.pair()).ok();
    // The response to all requests but the last came, and so that account is in the cache.
    let has_account = steps_before.iter().rev().skip(1).any(|step| step == NEW_ACCOUNT);
    let is_issued = kept.as_deref() != before;
    let ca = pebble.files.path().join("ca.pem");
    recorder.restart(None);
    pebble.gate.hold();
    let server = Portcullis::serve(site.flags(&recorder.url(), &ca, &[DOMAIN]));
    let admin = admin(&server);
    if before.is_some() || is_issued {
        assert_eq!(ask(&admin, "/readyz").0, 200, "never less than before\n{}", server.log());
    }
    pebble.gate.lead_to(&server);
    if !is_issued {
        let issued = server.wait_for_event("acme_certificate_issued", |_| true);
        assert_eq!(fingerprint(&admin), issued["fingerprint"]);
    }
    assert_eq!(ask(&admin, "/readyz").0, 200, "{}", server.log());
    let steps = recorder.steps();
    let count = |step| steps.iter().filter(|it| *it == step).count();
    assert_eq!(count(NEW_ORDER), usize::from(!is_issued), "{steps:?}");
    assert_eq!(count(NEW_ACCOUNT), usize::from(!has_account), "{steps_before:?} {steps:?}");
    for event in ["acme_order_failed", "acme_cache_damaged", "load_failed"] {
        let event = format!("\"message\":\"{event}\"");
        assert!(!server.log().contains(&event), "{}", server.log());
    }
    for name in ["certificate-and-key.pem.unfinished", "account.json.unfinished"] {
        assert!(!site.cache().join(name).exists(), "{name}");
    }
}

/// Kills a server at each request of an order. `prepare` fills its cache.
fn kill_at_each_request(prepare: impl Fn(&AcmeServer)) {
    let pebble = Pebble::start(&Wanted::default());
    let recorder = Recorder::start(&pebble);
    let mut killed_at = BTreeSet::new();
    for requests in 1.. {
        assert!(requests < 100, "an order has an end: {killed_at:?}");
        let site = AcmeServer::new();
        prepare(&site);
        let before = fs::read(site.pair()).ok();
        let Some(steps) = kill_after(requests, &site, &pebble, &recorder) else { break };
        let is_over = fs::read(site.pair()).ok() != before;
        recover(&site, &pebble, &recorder, (before.as_deref(), &steps));
        killed_at.extend(steps.last().cloned());
        if is_over {
            break;
        }
    }
    let missed: Vec<_> = STEPS.iter().filter(|step| !killed_at.contains(**step)).collect();
    assert!(missed.is_empty(), "not killed at {missed:?}, only at {killed_at:?}");
}

#[test]
fn server_killed_at_each_request_of_its_first_order_needs_one_more_order() {
    kill_at_each_request(|_| {});
}

#[test]
fn server_killed_at_each_request_of_a_renewal_keeps_the_certificate_of_before() {
    // Less than a third of its lifetime is left.
    kill_at_each_request(|site| site.fill_cache(-60..10));
}

/// A file that a server was writing when it was killed.
fn leave(site: &AcmeServer, name: &str, text: &str) {
    let path = site.cache().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn pair_that_was_being_written_is_not_used_and_the_one_of_before_is() {
    let whole = pair(-1..60);
    let (chain, key) = whole.split_at(whole.find("-----BEGIN PRIVATE KEY").unwrap());
    for unfinished in [&whole, &whole[..whole.len() / 3], chain, key, ""] {
        let site = AcmeServer::new();
        site.fill_cache(-1..60);
        let before = fs::read(site.pair()).unwrap();
        leave(&site, "certificate-and-key.pem.unfinished", unfinished);
        let ca = Directory::start(Behaviour::Works).ca();
        let server = Portcullis::serve(site.flags("https://localhost:1/dir", &ca, &[DOMAIN]));
        assert_eq!(ask(&admin(&server), "/readyz").0, 200, "{}", server.log());
        assert_eq!(fs::read(site.pair()).unwrap(), before);
        assert!(!site.cache().join("certificate-and-key.pem.unfinished").exists());
    }
}

#[test]
fn part_of_a_pair_is_not_used_and_ordered_anew() {
    let (whole, other) = (pair(-1..60), pair(-1..60));
    let (chain, key) = whole.split_at(whole.find("-----BEGIN PRIVATE KEY").unwrap());
    let (_, other_key) = other.split_at(other.find("-----BEGIN PRIVATE KEY").unwrap());
    let of_another = format!("{chain}{other_key}");
    let directory = Directory::start(Behaviour::Works);
    for part in [chain, key, &whole[..whole.len() - 40], &of_another] {
        let site = AcmeServer::new();
        site.fill_cache(-1..60);
        leave(&site, "certificate-and-key.pem", part);
        let server = Portcullis::serve(site.flags(&directory.url(), &directory.ca(), &[DOMAIN]));
        server.wait_for_event("load_failed", |_| true);
        server.wait_for_event("acme_certificate_issued", |_| true);
        assert_eq!(ask(&admin(&server), "/readyz").0, 200, "{}", server.log());
    }
}
