//! The binary with the clients that people use: curl, openssl, Node.js, Java and Python.
//!
//! Each test starts a server of its own, with a trust directory of its own. Each rejected client has
//! a twin in the same test that differs in one thing and is accepted. A rejection counts only with
//! its alert at the client and its reason in the log.

mod admin;
mod control_plane;
mod curl;
mod edge;
mod java;
mod node;
mod openssl;
mod proxy;
mod python;
mod suites;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::pki::{Credential, PKI};
use crate::support::{Finished, Portcullis, flags, run};
use serde_json::Value;
use tempfile::TempDir;

/// How soon a change in the trust directory holds.
const A_SECOND: Duration = Duration::from_secs(1);

/// The outcome of a client's request: the response, or the client's error message.
type Outcome = Result<String, String>;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Tls {
    V12,
    V13,
}

const BOTH: [Tls; 2] = [Tls::V12, Tls::V13];

/// The name that Node.js, Java and Python have for it.
impl fmt::Display for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tls::V12 => "TLSv1.2",
            Tls::V13 => "TLSv1.3",
        })
    }
}

/// How a refusal shows on both sides.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    /// In the server's log.
    reason: &'static str,
    /// At the client, who may spell it with underscores or in capitals.
    alert: &'static str,
    /// The number of that alert.
    number: u8,
}

const NONE: Refusal =
    Refusal { reason: "no_certificate", alert: "certificate required", number: 116 };
const UNKNOWN: Refusal = Refusal { reason: "unknown_certificate", alert: "unknown ca", number: 48 };
const EXPIRED: Refusal = Refusal { reason: "expired", alert: "certificate expired", number: 45 };
const NOT_YET_VALID: Refusal = Refusal { reason: "not_yet_valid", ..EXPIRED };

/// A server with everything that it and its clients read, in one directory.
struct InteropServer {
    server: Portcullis,
    /// Dropped after the server, which reads in it.
    dir: TempDir,
}

impl InteropServer {
    /// Starts a server that trusts these, each in its own file `NAME.pem`.
    fn trusting(credentials: &[&Credential]) -> Self {
        let named: Vec<_> = credentials.iter().map(|it| (it.name, *it)).collect();
        Self::trusting_files(&named)
    }

    /// The same, with the file names chosen.
    fn trusting_files(files: &[(&str, &Credential)]) -> Self {
        Self::start(files, &[])
    }

    /// The same, with further flags.
    fn start(files: &[(&str, &Credential)], more: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("trust")).expect("a trust directory");
        for (name, credential) in files {
            write(&path("trust").join(format!("{name}.pem")), &as_the_api_has_it(credential));
        }
        write(&path("root.pem"), &PKI.root);
        for credential in PKI.clients().into_iter().chain([&PKI.server]) {
            write(&path(&format!("{}.pem", credential.name)), &credential.cert);
            write(&path(&format!("{}.key", credential.name)), &credential.key);
        }
        let mut all = flags(dir.path());
        all.extend(more.iter().map(|flag| (*flag).to_owned()));
        let server = Portcullis::serve(all);
        Self { server, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn root(&self) -> PathBuf {
        self.path("root.pem")
    }

    fn cert(&self, credential: &Credential) -> PathBuf {
        self.path(&format!("{}.pem", credential.name))
    }

    fn key(&self, credential: &Credential) -> PathBuf {
        self.path(&format!("{}.key", credential.name))
    }

    fn trust_file(&self, credential: &Credential) -> PathBuf {
        self.path("trust").join(format!("{}.pem", credential.name))
    }

    fn port(&self) -> String {
        self.server.addr().port().to_string()
    }

    /// Puts a certificate into the trust directory; it holds from here on.
    fn trust(&self, credential: &Credential) {
        self.change(|| write(&self.trust_file(credential), &as_the_api_has_it(credential)));
    }

    /// Removes a certificate from the trust directory.
    fn remove(&self, credential: &Credential) {
        self.change(|| fs::remove_file(self.trust_file(credential)).expect("a trusted file"));
    }

    fn change(&self, act: impl FnOnce()) {
        self.server.forget_events("trust_reloaded");
        act();
        let changed = Instant::now();
        self.server.wait_for_event("trust_reloaded", |_| true);
        let took = changed.elapsed();
        assert!(took <= A_SECOND, "a change took {took:?}:\n{}", self.server.log());
    }

    /// `command` with the arguments of the client programs beside this file.
    fn client(&self, mut command: Command, tls: Tls, credential: Option<&Credential>) -> Command {
        command.args(["--port", &self.port(), "--tls", &tls.to_string()]);
        command.arg("--ca").arg(self.root());
        if let Some(credential) = credential {
            command.arg("--cert").arg(self.cert(credential)).arg("--key").arg(self.key(credential));
        }
        command
    }

    /// No response but the alert at the client, and the reason in the log.
    #[track_caller]
    fn assert_refused(&self, outcome: &Outcome, refusal: Refusal) {
        assert_alert(outcome, refusal);
        self.assert_refusal_logged(refusal);
    }

    /// One more refusal is in the log, with the reason and whom it was about.
    #[track_caller]
    fn assert_refusal_logged(&self, Refusal { reason, .. }: Refusal) {
        let event =
            self.server.wait_for_event("client_rejected", |event| event["reason"] == reason);
        let peer = event["peer"].as_str().unwrap_or_default();
        assert!(peer.starts_with("127.0.0.1:"), "no peer in {event}");
        if reason != NONE.reason {
            let subject = event["subject"].as_str().unwrap_or_default();
            assert!(subject.contains("ApiGateway"), "no subject in {event}");
            for field in ["fingerprint", "not_before", "not_after"] {
                assert!(event[field].is_string(), "no {field} in {event}");
            }
        }
    }
}

/// There was no response, and the alert came. In a flood of refusals this is all there is: their log
/// is summed up.
#[track_caller]
fn assert_alert(outcome: &Outcome, refusal: Refusal) {
    let seen = outcome.as_ref().expect_err("no response");
    assert!(shows_alert(seen, refusal.alert), "no alert `{}` in: {seen}", refusal.alert);
}

/// As `aws apigateway get-client-certificate` writes it: CRLF, and no end of the last line.
fn as_the_api_has_it(credential: &Credential) -> String {
    credential.cert.trim_end().lines().collect::<Vec<_>>().join("\r\n")
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("a file in the temporary directory");
}

/// OpenSSL writes `tlsv1 alert unknown ca`, Java `fatal alert: unknown_ca`, Node.js
/// `ERR_SSL_TLSV1_ALERT_UNKNOWN_CA`.
fn shows_alert(seen: &str, alert: &str) -> bool {
    let seen = seen.to_lowercase().replace('_', " ").replace("alert: ", "alert ");
    seen.contains(&format!("alert {alert}"))
}

/// A client program beside this file.
fn source(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "interop", name].iter().collect()
}

/// What a client program that ends well has printed as JSON.
#[track_caller]
fn report(finished: &Finished) -> Value {
    assert_eq!(finished.code, Some(0), "{finished}");
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}; {finished}"))
}

/// The outcome in `{"response": …}` or `{"error": …}`.
fn outcome(report: &Value) -> Outcome {
    let response = report["response"].as_str().map(str::to_owned);
    response.ok_or_else(|| report.to_string())
}
