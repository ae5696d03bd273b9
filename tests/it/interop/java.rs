//! Java 17, as API Gateway's client seems to be: `HttpsURLConnection` and `java.net.http`.

use std::process::Command;
use std::sync::LazyLock;

use tempfile::TempDir;

use crate::interop::{InteropServer, NONE, Outcome, Refusal, UNKNOWN, run, source};
use crate::support::pki::{Credential, PKI};

/// The client, compiled once.
static CLASSES: LazyLock<TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut javac = Command::new("javac");
    let finished = run(javac.arg("-d").arg(dir.path()).arg(source("Client.java")), "");
    assert_eq!(finished.code, Some(0), "{finished}");
    dir
});

/// What Java's clients made of their requests: which client, which TLS version, the outcome.
fn requests(
    site: &InteropServer,
    credential: Option<&Credential>,
) -> Vec<(String, String, Outcome)> {
    let mut java = Command::new("java");
    java.args(["-XX:TieredStopAtLevel=1", "-cp"]).arg(CLASSES.path()).arg("Client");
    java.arg(format!("https://localhost:{}/", site.port())).arg(site.root());
    if let Some(credential) = credential {
        java.arg(site.cert(credential)).arg(site.key(credential));
    }
    let finished = run(&mut java, "");
    assert_eq!(finished.code, Some(0), "{finished}");
    let requests: Vec<_> = finished.stdout.lines().map(parse).collect();
    assert_eq!(requests.len(), 6, "two TLS versions, three clients; {finished}");
    requests
}

fn parse(line: &str) -> (String, String, Outcome) {
    let parts: Vec<_> = line.splitn(4, '\t').map(str::to_owned).collect();
    let Ok([client, tls, kind, what]) = <[_; 4]>::try_from(parts) else {
        panic!("not a line of the client: {line}");
    };
    (client, tls, if kind == "response" { Ok(what) } else { Err(what) })
}

fn assert_accepted(site: &InteropServer, credential: &Credential) {
    for (client, tls, outcome) in requests(site, Some(credential)) {
        let version = if client == "HttpClient/2" { "HTTP_2" } else { "HTTP_1_1" };
        assert_eq!(outcome, Ok(format!("{tls} {version} 200 hello world")), "{client}");
    }
}

/// Refused, whichever client. That of HTTP/2 over TLS 1.3 is finished with its handshake when the
/// alert comes, and if it comes soon loses it in Java 17: it throws a bare `IOException` or even
/// waits until its timeout.
fn assert_refused(site: &InteropServer, credential: Option<&Credential>, refusal: Refusal) {
    for (client, tls, outcome) in requests(site, credential) {
        if (&*client, &*tls) == ("HttpClient/2", "TLSv1.3") {
            assert!(outcome.is_err(), "{outcome:?}");
            site.assert_refusal_logged(refusal);
        } else {
            site.assert_refused(&outcome, refusal);
        }
    }
}

#[test]
#[ignore = "needs curl, openssl, Node.js, Java 17 and Python; run by .ci/run"]
fn two_certificates_of_one_subject_are_accepted() {
    let site = InteropServer::trusting(&[&PKI.a, &PKI.b]);
    assert_accepted(&site, &PKI.a);
    assert_accepted(&site, &PKI.b);
}

#[test]
#[ignore = "needs curl, openssl, Node.js, Java 17 and Python; run by .ci/run"]
fn stranger_of_the_same_subject_is_rejected_until_trusted() {
    let site = InteropServer::trusting(&[&PKI.a]);
    assert_refused(&site, Some(&PKI.stranger), UNKNOWN);
    site.trust(&PKI.stranger);
    assert_accepted(&site, &PKI.stranger);
}

/// The second is the key manager's doing and shows that it heeds the hints: were they wrong, it
/// would keep back the trusted certificates as well.
#[test]
#[ignore = "needs curl, openssl, Node.js, Java 17 and Python; run by .ci/run"]
fn client_that_presents_nothing_is_no_certificate() {
    let site = InteropServer::trusting(&[&PKI.a]);
    assert_refused(&site, None, NONE);
    assert_refused(&site, Some(&PKI.other_subject), NONE);
    site.trust(&PKI.other_subject);
    assert_accepted(&site, &PKI.other_subject);
}
