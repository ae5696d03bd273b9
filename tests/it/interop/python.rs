//! Python: `ssl` under `http.client`.

use std::process::Command;

use serde_json::{Value, json};

use crate::interop::{
    BOTH, InteropServer, NONE, Outcome, Tls, UNKNOWN, assert_alert, outcome, report, run, source,
};
use crate::support::pki::{Credential, PKI};

fn client(site: &InteropServer, command: &str, tls: Tls, credential: Option<&Credential>) -> Value {
    let mut python = Command::new("python3");
    python.arg(source("client.py")).arg(command);
    report(&run(&mut site.client(python, tls, credential), ""))
}

fn get(site: &InteropServer, tls: Tls, credential: Option<&Credential>) -> Outcome {
    outcome(&client(site, "get", tls, credential))
}

fn hello(tls: Tls) -> String {
    format!("{tls} HTTP/1.1 200 hello world\n")
}

#[test]
#[ignore = "needs curl, openssl, Node.js, Java 17 and Python; run by .ci/run"]
fn two_certificates_of_one_subject_are_accepted_and_no_other() {
    let site = InteropServer::trusting(&[&PKI.a, &PKI.b]);
    for tls in BOTH {
        for trusted in [&PKI.a, &PKI.b] {
            assert_eq!(get(&site, tls, Some(trusted)), Ok(hello(tls)));
        }
        site.assert_refused(&get(&site, tls, Some(&PKI.stranger)), UNKNOWN);
        site.assert_refused(&get(&site, tls, None), NONE);
    }
}

#[test]
#[ignore = "needs curl, openssl, Node.js, Java 17 and Python; run by .ci/run"]
fn requests_share_a_connection() {
    let site = InteropServer::trusting(&[&PKI.a]);
    for tls in BOTH {
        let seen = client(&site, "keep-alive", tls, Some(&PKI.a));
        assert_eq!(seen, json!({"responses": vec![hello(tls); 5], "connections": 1}));
    }
}

#[test]
#[ignore = "needs curl, openssl, Node.js, Java 17 and Python; run by .ci/run"]
fn alert_arrives_while_a_body_is_being_sent() {
    let site = InteropServer::trusting(&[&PKI.a]);
    for tls in BOTH {
        for lost in outcomes(&client(&site, "post", tls, None)) {
            assert_alert(&lost, NONE);
        }
        site.assert_refusal_logged(NONE);
        for outcome in outcomes(&client(&site, "post", tls, Some(&PKI.a))) {
            assert_eq!(outcome, Ok(hello(tls)));
        }
    }
}

/// All twenty of them.
fn outcomes(report: &Value) -> Vec<Outcome> {
    let outcomes = report["outcomes"].as_array().expect("a list");
    assert_eq!(outcomes.len(), 20, "{report}");
    outcomes.iter().map(outcome).collect()
}
