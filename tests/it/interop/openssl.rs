//! `openssl s_client`, which shows what the others hide: the numbers of alerts, sessions, hints.

use std::path::Path;
use std::process::Command;

use crate::interop::{
    BOTH, EXPIRED, Finished, InteropServer, NONE, NOT_YET_VALID, Outcome, Refusal, Tls, UNKNOWN,
    run,
};
use crate::support::pki::{Credential, PKI};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Connects, types `input` and stays until the server closes the connection.
fn s_client(
    site: &InteropServer,
    tls: Tls,
    credential: Option<&Credential>,
    more: &[&str],
    input: &str,
) -> Finished {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &site.server.addr().to_string()]);
    command.arg(match tls {
        Tls::V12 => "-tls1_2",
        Tls::V13 => "-tls1_3",
    });
    command.args(["-verify_return_error", "-CAfile"]).arg(site.root());
    if let Some(credential) = credential {
        command.arg("-cert").arg(site.cert(credential)).arg("-key").arg(site.key(credential));
    }
    run(command.args(more), input)
}

/// The transcript of a request that got a response, or of one that did not.
fn outcome(Finished { stdout, stderr, .. }: Finished) -> Outcome {
    let responded = stdout.contains("HTTP/1.1 200 OK\r\n") && stdout.contains("hello world\n");
    if responded { Ok(stdout) } else { Err(stdout + &stderr) }
}

fn get(site: &InteropServer, tls: Tls, credential: Option<&Credential>, more: &[&str]) -> Outcome {
    outcome(s_client(site, tls, credential, more, REQUEST))
}

#[track_caller]
fn assert_response(outcome: &Outcome) {
    if let Err(seen) = outcome {
        panic!("no response: {seen}");
    }
}

#[track_caller]
fn assert_refused(site: &InteropServer, outcome: &Outcome, refusal: Refusal) {
    site.assert_refused(outcome, refusal);
    let number = format!("SSL alert number {}", refusal.number);
    assert!(outcome.as_ref().is_err_and(|seen| seen.contains(&number)), "no {number}");
}

#[test]
#[ignore = "needs curl, openssl, Node.js, Java 17 and Python; run by .ci/run"]
fn each_rejection_reason_has_its_alert() {
    let site = InteropServer::trusting(&[&PKI.a, &PKI.expired, &PKI.not_yet_valid]);
    for tls in BOTH {
        for (client, refusal) in [
            (None, NONE),
            (Some(&PKI.stranger), UNKNOWN),
            (Some(&PKI.expired), EXPIRED),
            (Some(&PKI.not_yet_valid), NOT_YET_VALID),
        ] {
            assert_refused(&site, &get(&site, tls, client, &[]), refusal);
        }
        // The subject of the stranger; the subject, the key and the place in the trust directory
        // of the other two.
        assert_response(&get(&site, tls, Some(&PKI.a), &[]));
    }
}

/// Sessions of TLS 1.3 serve once. So there are two of the certificate that goes: one is spent to
/// show that a session alone would let its owner in, the other is what the removal must undo.
#[test]
#[ignore = "needs curl, openssl, Node.js, Java 17 and Python; run by .ci/run"]
fn session_ends_with_its_certificate() {
    for tls in BOTH {
        let site = InteropServer::trusting(&[&PKI.a, &PKI.b]);
        let [spent, saved, twin] = ["spent", "saved", "twin"].map(|name| site.path(name));
        for (client, file) in [(&PKI.a, &spent), (&PKI.a, &saved), (&PKI.b, &twin)] {
            let first = get(&site, tls, Some(client), &["-sess_out", text(file)]);
            assert!(first.as_ref().is_ok_and(|seen| seen.contains("\nNew, TLSv1.")), "{first:?}");
        }
        let resume = |client, file| get(&site, tls, client, &["-sess_in", text(file)]);

        let resumed = resume(None, &spent);
        assert!(
            resumed.as_ref().is_ok_and(|seen| seen.contains("\nReused, TLSv1.")),
            "{resumed:?}"
        );
        site.remove(&PKI.a);
        assert_refused(&site, &resume(None, &saved), NONE);
        assert_refused(&site, &resume(Some(&PKI.a), &saved), UNKNOWN);
        assert_response(&resume(Some(&PKI.b), &twin));
    }
}

#[test]
#[ignore = "needs curl, openssl, Node.js, Java 17 and Python; run by .ci/run"]
fn each_issuer_is_hinted_once() {
    const GATEWAY: &str = "C = US, L = Seattle, CN = ApiGateway\n";
    const OTHER: &str = "C = US, L = Seattle, CN = SomebodyElse\n";
    let alike = InteropServer::trusting(&[&PKI.a, &PKI.b, &PKI.stranger]);
    let mixed = InteropServer::trusting(&[&PKI.a, &PKI.other_subject, &PKI.b]);
    for tls in BOTH {
        for (site, expected) in [(&alike, &[GATEWAY][..]), (&mixed, &[GATEWAY, OTHER])] {
            let seen = get(site, tls, Some(&PKI.a), &[]).expect("a response");
            let mut hints = hints(&seen);
            hints.sort_unstable();
            assert_eq!(hints, expected, "{seen}");
        }
    }
}

/// The lines of the list of names, up to the next item.
fn hints(transcript: &str) -> Vec<&str> {
    let (_, list) = transcript
        .split_once("Acceptable client certificate CA names\n")
        .unwrap_or_else(|| panic!("no hints: {transcript}"));
    list.split_inclusive('\n').take_while(|line| line.contains(" = ")).collect()
}

#[test]
#[ignore = "needs curl, openssl, Node.js, Java 17 and Python; run by .ci/run"]
fn tls_is_not_renegotiated() {
    let site = InteropServer::trusting(&[&PKI.a]);
    let asked = s_client(&site, Tls::V12, Some(&PKI.a), &[], "R\n");
    assert!(asked.stderr.contains("RENEGOTIATING\n"), "{asked}");
    assert!(asked.stderr.contains(":no renegotiation:"), "{asked}");
    assert_response(&get(&site, Tls::V12, Some(&PKI.a), &[]));
}

#[test]
#[ignore = "needs curl, openssl, Node.js, Java 17 and Python; run by .ci/run"]
fn early_data_is_rejected() {
    let site = InteropServer::trusting(&[&PKI.a]);
    let session = site.path("session");
    let first = get(&site, Tls::V13, Some(&PKI.a), &["-sess_out", text(&session)]);
    let seen = first.expect("a response");
    assert!(seen.contains("    Max Early Data: 0\n"), "{seen}");

    let early = site.path("early");
    crate::interop::write(&early, REQUEST);
    let more = ["-sess_in", text(&session), "-early_data", text(&early)];
    let seen = get(&site, Tls::V13, Some(&PKI.a), &more).expect("a response");
    assert!(seen.contains("\nReused, TLSv1.3"), "{seen}");
    assert!(seen.contains("Early data was not sent\n"), "{seen}");
}

/// What all the other tests rest on: OpenSSL itself, and so Node.js and nginx, cannot tell the two
/// certificates apart. One with a key identifier or a critical extension would not show it.
#[test]
#[ignore = "needs curl, openssl, Node.js, Java 17 and Python; run by .ci/run"]
fn openssl_rejects_the_second_of_two_with_one_subject() {
    let site = InteropServer::trusting(&[&PKI.a]);
    let both = site.path("both.pem");
    crate::interop::write(&both, &[&*PKI.a.cert, &*PKI.b.cert].concat());
    let verify = |client| {
        let mut command = Command::new("openssl");
        run(command.args(["verify", "-CAfile", text(&both)]).arg(site.cert(client)), "")
    };
    assert_eq!(verify(&PKI.a).code, Some(0));
    let second = verify(&PKI.b);
    assert!(second.stderr.contains("error 18 at 0 depth lookup"), "{second}");

    let mut dump = Command::new("openssl");
    dump.args(["x509", "-noout", "-text", "-in"]).arg(site.cert(&PKI.a));
    let shape = run(&mut dump, "").stdout;
    for expected in ["Version: 3 (0x2)", "CN = ApiGateway", "Public-Key: (2048 bit)"] {
        assert!(shape.contains(expected), "{shape}");
    }
    assert!(!shape.contains("X509v3"), "{shape}");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary directory with a plain name")
}
