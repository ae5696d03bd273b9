//! An order and its renewals, from the empty cache on.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use super::directory::{Behaviour, Directory};
use super::pebble::{AcmeServer, DOMAIN, Pebble, Wanted, admin, ask};
use crate::support::pki::PKI;
use crate::support::{DEADLINE, Portcullis, run, wait_for};

/// A client like API Gateway, which trusts pebble's root and calls the server by its name.
pub(super) struct Client {
    files: tempfile::TempDir,
    url: String,
}

impl Client {
    pub(super) fn new(pebble: &Pebble, server: &Portcullis) -> Self {
        let files = tempfile::tempdir().unwrap();
        for (name, text) in
            [("root.pem", &pebble.root()), ("a.pem", &PKI.a.cert), ("a.key", &PKI.a.key)]
        {
            fs::write(files.path().join(name), text).unwrap();
        }
        Self { files, url: format!("https://{DOMAIN}:{}/", server.addr().port()) }
    }

    pub(super) fn get(&self) -> crate::support::Finished {
        let at = |name: &str| self.files.path().join(name);
        let port = self.url.rsplit(':').next().unwrap().trim_end_matches('/');
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail"]);
        curl.arg("--resolve").arg(format!("{DOMAIN}:{port}:127.0.0.1"));
        curl.arg("--cacert").arg(at("root.pem")).arg("--cert").arg(at("a.pem"));
        curl.arg("--key").arg(at("a.key")).arg(&self.url);
        run(&mut curl, "")
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn empty_cache_listens_is_not_ready_and_rejects_every_handshake() {
    let directory = Directory::start(Behaviour::NeverValidates);
    let site = AcmeServer::new();
    let server = Portcullis::serve(site.flags(&directory.url(), &directory.ca(), &[DOMAIN]));
    let admin = admin(&server);
    let (status, body) = ask(&admin, "/readyz");
    assert_eq!(status, 503);
    assert!(body.contains("no server certificate yet"), "{body}");
    assert_eq!(ask(&admin, "/livez").0, 200);
    let status: serde_json::Value = serde_json::from_str(&ask(&admin, "/status").1).unwrap();
    assert_eq!(status["server"], serde_json::Value::Null);
    server.wait_for_event("acme_not_ready_until_issued", |event| {
        event["remedy"].as_str().unwrap().contains("publishNotReadyAddresses: true")
    });
    let mut strict = Command::new("openssl");
    strict.args(["s_client", "-connect", &server.addr().to_string(), "-servername", DOMAIN]);
    assert_ne!(run(&mut strict, "").code, Some(0), "there is no certificate to shake hands with");
    server.wait_for_event("client_rejected", |event| event["reason"] == "no_server_certificate");
}

#[test]
fn empty_cache_is_filled_and_the_certificate_becomes_active() {
    let pebble = Pebble::start(&Wanted::default());
    let site = AcmeServer::new();
    let server = site.serve(&pebble, &["--acme-email=operator@example.com", "--log=trace"]);
    let admin = admin(&server);
    let issued = server.wait_for_event("acme_certificate_issued", |_| true);
    assert_eq!(issued["domains"][0], DOMAIN);
    let changed = server.wait_for_event("server_certificate_changed", |_| true);
    assert_eq!(changed["generation"], 2, "one generation");
    assert_eq!(changed["fingerprint"], issued["fingerprint"]);
    assert_eq!(ask(&admin, "/readyz").0, 200);
    let finished = Client::new(&pebble, &server).get();
    assert_eq!(finished.stdout, "hello world\n", "{finished}");

    assert_eq!(mode(&site.cache()), 0o700);
    for entry in fs::read_dir(site.cache()).unwrap().map(Result::unwrap) {
        assert_eq!(mode(&entry.path()), 0o600, "{entry:?}");
    }
    let (_, status) = ask(&admin, "/status");
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["acme"]["domains"][0], DOMAIN);
    assert_eq!(status["acme"]["failures"], 0);
    assert!(status["acme"]["last_issued"].is_string(), "{status}");
    assert_eq!(status["server"]["fingerprint"], issued["fingerprint"]);
    let (_, metrics) = ask(&admin, "/metrics");
    for line in [
        "portcullis_acme_orders_total{result=\"success\"} 1",
        "portcullis_acme_orders_total{result=\"failure\"} 0",
        "portcullis_acme_next_attempt_timestamp_seconds ",
        "portcullis_acme_handshakes_total{result=\"completed\"} ",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    let log = server.log();
    assert!(!log.contains("PRIVATE KEY"), "{log}");
    let pair = fs::read_to_string(site.cache().join("certificate-and-key.pem")).unwrap();
    let (_, key) = pair.split_once("-----BEGIN PRIVATE KEY-----\n").unwrap();
    let account = fs::read_to_string(site.cache().join("account.json")).unwrap();
    let account: serde_json::Value = serde_json::from_str(&account).unwrap();
    for secret in
        [key.lines().next().unwrap(), account["credentials"]["key_pkcs8"].as_str().unwrap()]
    {
        assert!(secret.len() > 40 && !log.contains(secret), "a key in the log");
    }
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn load_balancer_that_spreads_connections_is_warned_of() {
    let directory = Directory::start(Behaviour::NeverValidates);
    for (more, is_balanced) in [(&["--proxy-protocol"][..], true), (&[], false)] {
        let site = AcmeServer::new();
        let mut flags = site.flags(&directory.url(), &directory.ca(), &[DOMAIN]);
        flags.extend(more.iter().map(|flag| (*flag).to_owned()));
        let server = Portcullis::serve(flags);
        server.wait_for_event("acme_not_ready_until_issued", |_| true);
        assert_eq!(server.log().contains("acme_behind_load_balancer"), is_balanced);
    }
}

#[test]
fn key_is_rsa_of_2048_bits_unless_another_is_asked_for() {
    let pebble = Pebble::start(&Wanted::default());
    let site = AcmeServer::new();
    let mut flags = site.flags(&pebble.url(), &pebble.files.path().join("ca.pem"), &[DOMAIN]);
    flags.retain(|flag| !flag.starts_with("--acme-key"));
    let server = Portcullis::serve(flags);
    pebble.gate.lead_to(&server);
    server.wait_for_event("acme_certificate_issued", |_| true);
    let mut openssl = Command::new("openssl");
    openssl.args(["pkey", "-noout", "-text", "-in"]);
    let finished = run(openssl.arg(site.cache().join("certificate-and-key.pem")), "");
    assert!(finished.stdout.contains("2048 bit"), "{finished}");
}

#[test]
fn sandbox_grants_the_cache_the_directory_and_dns() {
    let pebble = Pebble::start(&Wanted::default());
    let site = AcmeServer::new();
    let server = site.serve(&pebble, &[]);
    server.wait_for_event("acme_certificate_issued", |_| true);
    if server.log().contains("\"not_sandboxed\"") {
        return;
    }
    let event = server.wait_for_event("sandboxed", |_| true);
    let granted = |field: &str| event[field].to_string();
    assert!(granted("write").contains(site.cache().to_str().unwrap()), "{event}");
    let port = pebble.url().rsplit(':').next().unwrap().trim_end_matches("/dir").to_owned();
    assert!(granted("connect").contains(&port), "{event}");
    assert_eq!(event["resolves"], true, "{event}");
}

#[test]
fn restart_orders_nothing_while_the_certificate_is_good() {
    let mut pebble = Pebble::start(&Wanted::default());
    let site = AcmeServer::new();
    let server = site.serve(&pebble, &[]);
    let issued = server.wait_for_event("acme_certificate_issued", |_| true);
    assert_eq!(server.terminate(), Some(0));
    // Without a directory at all.
    pebble.kill();
    let server = site.serve_apart(&pebble, &[]);
    let admin = admin(&server);
    assert_eq!(ask(&admin, "/readyz").0, 200);
    let status: serde_json::Value = serde_json::from_str(&ask(&admin, "/status").1).unwrap();
    assert_eq!(status["server"]["fingerprint"], issued["fingerprint"]);
    assert!(
        wait_for(DEADLINE, || {
            let (_, status) = ask(&admin, "/status");
            let status: serde_json::Value = serde_json::from_str(&status).unwrap();
            status["acme"]["next_attempt"].is_string()
        }),
        "the next attempt is known"
    );
    assert!(!server.log().contains("acme_order_failed"), "{}", server.log());
}

#[test]
fn order_succeeds_although_half_of_the_nonces_are_refused() {
    let pebble = Pebble::start(&Wanted { bad_nonces: 50, ..Wanted::default() });
    let site = AcmeServer::new();
    let server = site.serve(&pebble, &[]);
    server.wait_for_event("acme_certificate_issued", |_| true);
}

#[test]
fn second_server_with_the_same_cache_uses_what_the_first_one_orders_and_takes_over_from_it() {
    let pebble = Pebble::start(&Wanted { lifetime: 15, ..Wanted::default() });
    let site = AcmeServer::new();
    let first = site.serve(&pebble, &[]);
    first.wait_for_event("acme_certificate_issued", |_| true);
    let second = site.serve_apart(&pebble, &[]);
    second.wait_for_event("acme_cache_in_use", |_| true);
    let renewed = first.wait_for_event("acme_certificate_issued", |_| true);
    second.wait_for_event("server_certificate_changed", |event| {
        event["fingerprint"] == renewed["fingerprint"]
    });
    assert!(!second.log().contains("acme_certificate_issued"), "{}", second.log());
    first.signal("KILL");
    pebble.gate.lead_to(&second);
    second.wait_for_event("acme_certificate_issued", |_| true);
}
