//! Renewal information (RFC 9773): when to renew, and what a new certificate replaces.

use super::directory::{Behaviour, Directory};
use super::pebble::{AcmeServer, DOMAIN, admin, ask};
use crate::support::{DEADLINE, Portcullis, wait_for};

fn serve(site: &AcmeServer, directory: &Directory) -> Portcullis {
    Portcullis::serve(site.flags(&directory.url(), &directory.ca(), &[DOMAIN]))
}

fn next_attempt(admin: &str) -> String {
    let status: serde_json::Value = serde_json::from_str(&ask(admin, "/status").1).unwrap();
    status["acme"]["next_attempt"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn certificate_is_renewed_within_the_window_and_names_what_it_replaces() {
    let directory = Directory::start(Behaviour::Works);
    directory.suggest("2100-01-01T00:00:00Z", "2100-01-02T00:00:00Z");
    let site = AcmeServer::new();
    let server = serve(&site, &directory);
    server.wait_for_event("acme_certificate_issued", |_| true);
    assert!(wait_for(DEADLINE, || !directory.asked().is_empty()), "renewal information is fetched");
    assert_eq!(directory.replaces(), [None]);
    // It has begun and has not ended: the moment that is chosen in it may lie a little ahead.
    directory.suggest("2020-01-01T00:00:00Z", "2020-01-02T00:00:00+00:00");
    server.wait_for_event("acme_certificate_issued", |_| true);
    let asked = directory.asked();
    assert_eq!(directory.replaces()[1].as_ref(), asked.first(), "replaces is sent");
    let (authority, serial) = asked[0].split_once('.').unwrap();
    assert!(!authority.is_empty() && !serial.is_empty(), "{asked:?}");
}

#[test]
fn moment_is_chosen_within_the_window_and_a_restart_does_not_choose_again() {
    let directory = Directory::start(Behaviour::Works);
    let tomorrow = std::process::Command::new("date")
        .args(["-u", "-d", "tomorrow", "+%Y-%m-%d"])
        .output()
        .unwrap();
    let day = String::from_utf8(tomorrow.stdout).unwrap().trim().to_owned();
    directory.suggest(&format!("{day}T01:00:00Z"), &format!("{day}T02:00:00.5Z"));
    let site = AcmeServer::new();
    let server = serve(&site, &directory);
    server.wait_for_event("acme_certificate_issued", |_| true);
    let hour = format!("{day}T01:");
    let address = admin(&server);
    assert!(
        wait_for(DEADLINE, || next_attempt(&address).starts_with(&hour)),
        "{}\n{}",
        next_attempt(&address),
        server.log()
    );
    let chosen = next_attempt(&address);
    drop(server);
    let asked = directory.asked().len();
    let server = serve(&site, &directory);
    let address = admin(&server);
    assert!(wait_for(DEADLINE, || directory.asked().len() > asked), "fetched after a restart");
    assert_eq!(next_attempt(&address), chosen);
}

#[test]
fn without_renewal_information_a_third_of_the_lifetime_is_left() {
    let directory = Directory::start(Behaviour::Works);
    let site = AcmeServer::new();
    let server = serve(&site, &directory);
    let issued = server.wait_for_event("acme_certificate_issued", |_| true);
    let seconds = |text: &serde_json::Value| -> i64 {
        let mut date = std::process::Command::new("date");
        let finished = crate::support::run(date.args(["+%s", "-d", text.as_str().unwrap()]), "");
        finished.stdout.trim().parse().unwrap()
    };
    let left = seconds(&issued["not_after"]) - seconds(&issued["next_attempt"]);
    assert_eq!(left, 9 * 24 * 60 * 60 / 3, "{issued}");
    assert!(directory.asked().is_empty());
}
