//! curl, over HTTP/1.1 and HTTP/2, at the server's address: without SNI.

use std::fs;
use std::process::Command;

use crate::interop::{BOTH, InteropServer, NONE, Outcome, Tls, UNKNOWN, assert_alert, run};
use crate::support::pki::{Credential, PKI};

#[derive(Clone, Copy)]
enum Http {
    V1,
    V2,
}

const HTTP: [Http; 2] = [Http::V1, Http::V2];

impl Http {
    fn flag(self) -> &'static str {
        match self {
            Http::V1 => "--http1.1",
            Http::V2 => "--http2",
        }
    }

    /// What curl has to print for a `200` over this.
    fn hello(self) -> String {
        let version = match self {
            Http::V1 => "1.1",
            Http::V2 => "2",
        };
        format!("hello world\n{version} 200")
    }
}

/// Every TLS version with every HTTP version.
fn ways() -> impl Iterator<Item = (Tls, Http)> {
    BOTH.into_iter().flat_map(|tls| HTTP.map(|http| (tls, http)))
}

/// Body, HTTP version and status, or the exit code and the complaint.
fn curl(
    site: &InteropServer,
    (tls, http): (Tls, Http),
    credential: Option<&Credential>,
    more: &[&str],
) -> Outcome {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--disable", "--max-time", "20", http.flag()]);
    command.args(["--write-out", "%{http_version} %{http_code}"]);
    command.args(match tls {
        Tls::V12 => ["--tlsv1.2", "--tls-max", "1.2"],
        Tls::V13 => ["--tlsv1.3", "--tls-max", "1.3"],
    });
    command.arg("--cacert").arg(site.root());
    if let Some(credential) = credential {
        command.arg("--cert").arg(site.cert(credential)).arg("--key").arg(site.key(credential));
    }
    let finished = run(command.args(more).arg(format!("https://{}/", site.server.addr())), "");
    match finished.code {
        Some(0) => Ok(finished.stdout),
        code => Err(format!("curl ended with {code:?}: {}{}", finished.stdout, finished.stderr)),
    }
}

#[test]
#[ignore = "needs curl, openssl, Node.js, Java 17 and Python; run by .ci/run"]
fn two_certificates_of_one_subject_are_accepted_in_either_order() {
    for files in [[("1", &PKI.a), ("2", &PKI.b)], [("1", &PKI.b), ("2", &PKI.a)]] {
        let site = InteropServer::trusting_files(&files);
        for way in ways() {
            for client in [&PKI.a, &PKI.b] {
                assert_eq!(curl(&site, way, Some(client), &[]), Ok(way.1.hello()));
            }
        }
    }
}

#[test]
#[ignore = "needs curl, openssl, Node.js, Java 17 and Python; run by .ci/run"]
fn client_without_a_certificate_gets_only_the_alert() {
    let site = InteropServer::trusting(&[&PKI.a, &PKI.b]);
    for way in ways() {
        site.assert_refused(&curl(&site, way, None, &[]), NONE);
        assert_eq!(curl(&site, way, Some(&PKI.a), &[]), Ok(way.1.hello()));
    }
}

#[test]
#[ignore = "needs curl, openssl, Node.js, Java 17 and Python; run by .ci/run"]
fn stranger_of_the_same_subject_is_rejected_until_trusted_and_again_after() {
    let site = InteropServer::trusting(&[&PKI.a, &PKI.b]);
    let assert_out = || {
        for way in ways() {
            site.assert_refused(&curl(&site, way, Some(&PKI.stranger), &[]), UNKNOWN);
            assert_eq!(curl(&site, way, Some(&PKI.a), &[]), Ok(way.1.hello()));
        }
    };
    assert_out();
    site.trust(&PKI.stranger);
    for way in ways() {
        assert_eq!(curl(&site, way, Some(&PKI.stranger), &[]), Ok(way.1.hello()));
    }
    site.remove(&PKI.stranger);
    assert_out();
}

#[test]
#[ignore = "needs curl, openssl, Node.js, Java 17 and Python; run by .ci/run"]
fn request_of_three_megabytes_is_served() {
    let site = InteropServer::trusting(&[&PKI.a]);
    let post = sending(&site, 3_000_000);
    for way in ways() {
        assert_eq!(curl(&site, way, Some(&PKI.a), &["--data-binary", &post]), Ok(way.1.hello()));
    }
}

#[test]
#[ignore = "needs curl, openssl, Node.js, Java 17 and Python; run by .ci/run"]
fn alert_arrives_while_a_body_is_being_sent() {
    let site = InteropServer::trusting(&[&PKI.a]);
    let post = sending(&site, 300_000);
    for way in ways() {
        for _ in 0..20 {
            assert_alert(&curl(&site, way, None, &["--data-binary", &post]), NONE);
        }
        site.assert_refusal_logged(NONE);
        assert_eq!(curl(&site, way, Some(&PKI.a), &["--data-binary", &post]), Ok(way.1.hello()));
    }
}

#[test]
#[ignore = "needs curl, openssl, Node.js, Java 17 and Python; run by .ci/run"]
fn plain_http_gets_400() {
    let site = InteropServer::trusting(&[&PKI.a]);
    let url = format!("http://{}/", site.server.addr());
    let mut plain = Command::new("curl");
    plain.args(["--silent", "--show-error", "--disable", "--max-time", "20", "--include", &url]);
    let finished = run(&mut plain, "");
    assert!(finished.stdout.starts_with("HTTP/1.1 400 "), "{finished}");
    assert!(finished.stdout.to_lowercase().contains("https"), "{finished}");
    let way = (Tls::V13, Http::V1);
    assert_eq!(curl(&site, way, Some(&PKI.a), &[]), Ok(way.1.hello()));
}

/// The argument that has curl send so many bytes.
fn sending(site: &InteropServer, bytes: usize) -> String {
    let file = site.path("body");
    fs::write(&file, vec![b'x'; bytes]).expect("a file in the temporary directory");
    format!("@{}", file.display())
}
