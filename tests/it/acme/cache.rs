//! The cache: who may read it, whose it is, and what becomes of a damaged one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::directory::{Behaviour, Directory};
use super::failures::{failure, refused};
use super::pebble::{AcmeServer, DOMAIN, Pebble, Wanted, admin, ask};
use crate::support::{Portcullis, run};

#[test]
fn cache_that_others_can_read_is_refused() {
    for (name, mode) in [("", 0o755), ("certificate-and-key.pem", 0o644), ("account.json", 0o604)] {
        let site = AcmeServer::new();
        fs::create_dir(site.cache()).unwrap();
        fs::set_permissions(site.cache(), fs::Permissions::from_mode(0o700)).unwrap();
        let mut path = site.cache();
        if !name.is_empty() {
            path.push(name);
            fs::write(&path, "").unwrap();
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let output = refused(&site, &[DOMAIN], &[]);
        assert!(output.contains("chmod") && output.contains(path.to_str().unwrap()), "{output}");
    }
}

#[test]
fn cache_that_its_group_can_read_is_accepted() {
    let site = AcmeServer::new();
    site.fill_cache(-1..60);
    fs::set_permissions(site.cache(), fs::Permissions::from_mode(0o2770)).unwrap();
    fs::set_permissions(site.pair(), fs::Permissions::from_mode(0o660)).unwrap();
    let ca = Directory::start(Behaviour::Works).ca();
    let server = Portcullis::serve(site.flags("https://localhost:1/dir", &ca, &[DOMAIN]));
    assert_eq!(ask(&admin(&server), "/readyz").0, 200, "{}", server.log());
}

#[test]
fn cache_that_cannot_be_written_to_is_refused() {
    let site = AcmeServer::new();
    fs::write(site.cache(), "a file").unwrap();
    let output = refused(&site, &[DOMAIN], &[]);
    assert!(output.contains("--acme-cache") && output.contains("cannot be made"), "{output}");
}

#[test]
fn cache_on_a_read_only_disk_is_refused() {
    let unshare = |command: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-c", command]);
        unshare
    };
    if run(&mut unshare("true"), "").code != Some(0) {
        eprintln!("SKIPPED: no mount namespaces here");
        return;
    }
    let site = AcmeServer::new();
    fs::create_dir(site.cache()).unwrap();
    let binary = Portcullis::command().get_program().to_str().unwrap().to_owned();
    let flags =
        site.flags("https://localhost:1/dir", &site.files.path().join("trust/a.pem"), &[DOMAIN]);
    let cache = site.cache().to_str().unwrap().to_owned();
    let start = format!(
        "mount -t tmpfs -o ro,mode=0700 none {cache} && exec {binary} serve --listen 127.0.0.1:0 {}",
        flags.join(" ")
    );
    let finished = run(&mut unshare(&start), "");
    assert_eq!(finished.code, Some(2), "{finished}");
    let words =
        ["--acme-cache cannot be written to", "Read-only file system", "not mounted read-only"];
    assert!(words.iter().all(|word| finished.stderr.contains(word)), "{finished}");
}

#[test]
fn cache_that_vanishes_is_named_before_anything_is_ordered() {
    let pebble = Pebble::start(&Wanted { lifetime: 15, ..Wanted::default() });
    let site = AcmeServer::new();
    let server = site.serve(&pebble, &[]);
    server.wait_for_event("acme_certificate_issued", |_| true);
    let orders = pebble.gate.connections();
    fs::remove_dir_all(site.cache()).unwrap();
    let event = failure(&server);
    assert_eq!(event["step"], "store", "{event}");
    assert!(event["remedy"].as_str().unwrap().contains("--acme-cache"), "{event}");
    assert_eq!(pebble.gate.connections(), orders, "no validation in vain");
    assert_eq!(ask(&admin(&server), "/readyz").0, 200);
}

#[test]
fn cache_of_another_server_is_refused() {
    let pebble = Pebble::start(&Wanted::default());
    let site = AcmeServer::new();
    let server = site.serve(&pebble, &[]);
    server.wait_for_event("acme_certificate_issued", |_| true);
    drop(server);
    let output = refused(&site, &[DOMAIN], &[]);
    assert!(output.contains("holds an account of"), "{output}");
    fs::remove_file(site.cache().join("account.json")).unwrap();
    let output = refused(&site, &["other.example"], &[]);
    assert!(output.contains("api.example, not for other.example"), "{output}");
}

#[test]
fn damaged_cache_is_named_and_ordered_anew() {
    let pebble = Pebble::start(&Wanted::default());
    let site = AcmeServer::new();
    let server = site.serve(&pebble, &[]);
    server.wait_for_event("acme_certificate_issued", |_| true);
    drop(server);
    for name in ["certificate-and-key.pem", "account.json", "history.json"] {
        let path = site.cache().join(name);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    }
    let server = site.serve(&pebble, &[]);
    server.wait_for_event("load_failed", |event| {
        event["file"].as_str().unwrap().ends_with("certificate-and-key.pem")
    });
    for name in ["account.json", "history.json"] {
        server.wait_for_event("acme_cache_damaged", |event| {
            event["problem"].as_str().unwrap().contains(name)
        });
    }
    server.wait_for_event("acme_certificate_issued", |_| true);
}

#[test]
fn history_with_impossible_times_keeps_no_server_from_its_order() {
    let directory = Directory::start(Behaviour::Works);
    let site = AcmeServer::new();
    site.fill_cache(-60..10);
    let at = u64::MAX;
    let history = serde_json::json!({
        "order": format!("{DOMAIN} from {}", directory.url()),
        "failures": u32::MAX,
        "not_before": at,
        "last_failure": {"at": at, "step": "order", "problem_type": null, "detail": "none"},
        "last_issued": at,
        "failed_validations": {DOMAIN: [at, at, at, at, at, 0]},
        "early_renewals": u32::MAX,
    });
    fs::write(site.cache().join("history.json"), history.to_string()).unwrap();
    let server = Portcullis::serve(site.flags(&directory.url(), &directory.ca(), &[DOMAIN]));
    server.wait_for_event("acme_certificate_issued", |_| true);
    assert_eq!(ask(&admin(&server), "/status").0, 200);
}
