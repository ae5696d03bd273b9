//! Suites of protocol cases, after those that others have for HTTP/1.1, HTTP/2 and TLS: each case
//! has its expected outcome in the script.

use std::process::Command;

use serde_json::json;

use crate::interop::{BOTH, InteropServer, Tls, report, run, source};
use crate::support::pki::PKI;
use crate::support::proxy::{App, Reply};

/// Runs the cases of a script, with the interpreter that has its packages.
#[track_caller]
fn assert_all_pass(script: &str, tls: Tls, more: &[&str]) {
    let site = InteropServer::start(&[("a", &PKI.a)], more);
    let interpreter = std::env::var("PORTCULLIS_SUITES_PYTHON").unwrap_or("python3".to_owned());
    let mut python = Command::new(interpreter);
    python.arg(source(script));
    let result = report(&run(&mut site.client(python, tls, Some(&PKI.a)), ""));
    assert_eq!(result["failed"], json!([]), "{tls}: {result}\n{}", site.server.log());
    assert!(result["passed"].as_u64() > Some(10), "{result}");
}

#[test]
#[ignore = "needs Python; run by .ci/run"]
fn http1_requests_as_raw_bytes_get_their_expected_status() {
    assert_all_pass("http1_cases.py", Tls::V13, &[]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Python; run by .ci/run"]
async fn proxied_http1_requests_as_raw_bytes_get_their_expected_status() {
    let app = App::start(|_, _| Reply::ok()).await;
    let upstream = format!("http://{}", app.address);
    assert_all_pass("http1_cases.py", Tls::V13, &["--upstream", &upstream]);
}

#[test]
#[ignore = "needs Python with hyperframe and hpack; run by .ci/run"]
fn http2_frames_get_their_expected_reaction() {
    assert_all_pass("http2_cases.py", Tls::V13, &[]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Python with hyperframe and hpack; run by .ci/run"]
async fn proxied_http2_frames_get_their_expected_reaction() {
    let app = App::start(|_, _| Reply::ok()).await;
    let upstream = format!("http://{}", app.address);
    assert_all_pass("http2_cases.py", Tls::V13, &["--upstream", &upstream]);
}

#[test]
#[ignore = "needs Python with tlslite-ng; run by .ci/run"]
fn malformed_tls_messages_get_their_expected_alert() {
    for tls in BOTH {
        assert_all_pass("tls_cases.py", tls, &[]);
    }
}
