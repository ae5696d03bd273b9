//! Node.js: `https`, `http2` and `tls`, with connections that are kept.

use std::process::Command;

use serde_json::{Value, json};

use crate::interop::{
    BOTH, InteropServer, NONE, Outcome, Tls, UNKNOWN, outcome, report, run, source,
};
use crate::support::pki::{Credential, PKI};

const VIA: [&str; 2] = ["https", "http2"];

fn client(
    site: &InteropServer,
    command: &str,
    tls: Tls,
    credential: Option<&Credential>,
    more: &[&str],
) -> Value {
    let mut node = Command::new("node");
    node.arg(source("client.mjs")).arg(command).args(more);
    report(&run(&mut site.client(node, tls, credential), ""))
}

fn get(site: &InteropServer, tls: Tls, via: &str, credential: Option<&Credential>) -> Outcome {
    outcome(&client(site, "get", tls, credential, &["--via", via]))
}

fn hello(tls: Tls, via: &str) -> String {
    let version = if via == "http2" { "2.0" } else { "1.1" };
    format!("{tls} HTTP/{version} 200 hello world\n")
}

#[test]
#[ignore = "needs curl, openssl, Node.js, Java 17 and Python; run by .ci/run"]
fn two_certificates_of_one_subject_are_accepted_and_no_other() {
    let site = InteropServer::trusting(&[&PKI.a, &PKI.b]);
    for tls in BOTH {
        for via in VIA {
            for trusted in [&PKI.a, &PKI.b] {
                assert_eq!(get(&site, tls, via, Some(trusted)), Ok(hello(tls, via)));
            }
            site.assert_refused(&get(&site, tls, via, Some(&PKI.stranger)), UNKNOWN);
            site.assert_refused(&get(&site, tls, via, None), NONE);
        }
    }
}

#[test]
#[ignore = "needs curl, openssl, Node.js, Java 17 and Python; run by .ci/run"]
fn requests_share_a_connection() {
    let site = InteropServer::trusting(&[&PKI.a]);
    for tls in BOTH {
        for via in VIA {
            let seen = client(&site, "keep-alive", tls, Some(&PKI.a), &["--via", via]);
            let responses = vec![hello(tls, via); 5];
            assert_eq!(seen, json!({"responses": responses, "connections": 1}));
        }
    }
}

#[test]
#[ignore = "needs curl, openssl, Node.js, Java 17 and Python; run by .ci/run"]
fn sessions_are_resumed() {
    let site = InteropServer::trusting(&[&PKI.a]);
    for tls in BOTH {
        let seen = client(&site, "resume", tls, Some(&PKI.a), &[]);
        let visit = |reused| json!({"statusLine": "HTTP/1.1 200 OK", "reused": reused});
        assert_eq!(seen, json!({"visits": [visit(false), visit(true)]}));
    }
}

#[test]
#[ignore = "needs curl, openssl, Node.js, Java 17 and Python; run by .ci/run"]
fn removed_certificate_closes_idle_connection() {
    removal("removal-while-idle");
}

#[test]
#[ignore = "needs curl, openssl, Node.js, Java 17 and Python; run by .ci/run"]
fn removed_certificate_ends_busy_connection_after_requests_in_flight() {
    removal("removal-while-busy");
}

/// One is rejected within a second; the other keeps its connection and loses nothing.
fn removal(command: &str) {
    for tls in BOTH {
        for via in VIA {
            let site = InteropServer::trusting(&[&PKI.a, &PKI.b]);
            let [cert, key] = [site.cert(&PKI.b), site.key(&PKI.b)];
            let file = site.trust_file(&PKI.a);
            let paths = [&cert, &key, &file].map(|path| path.display().to_string());
            let [cert, key, file] = paths.each_ref().map(String::as_str);
            let more = ["--via", via, "--twin-cert", cert, "--twin-key", key, "--remove", file];
            let seen = client(&site, command, tls, Some(&PKI.a), &more);

            let out_after = seen["outAfter"].as_f64();
            assert!(out_after.is_some_and(|ms| ms <= 1000.0), "{tls} {via}: {seen}");
            site.assert_refused(&Err(seen["next"].to_string()), UNKNOWN);
            let stayed = &seen["stayed"];
            assert_eq!(stayed["failures"], json!([]), "{tls} {via}: {seen}");
            assert_eq!(stayed["connections"], 1, "{tls} {via}: {seen}");
            assert!(stayed["responses"].as_u64() > Some(5), "{tls} {via}: {seen}");
        }
    }
}
