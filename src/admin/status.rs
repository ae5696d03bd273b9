//! The state of a server as JSON, for `/status`.
//!
//! An object with `version`, which is 2 until a field changes its meaning or goes; fields may be
//! added at any time. Times are RFC 3339 in UTC, `null` for never.
//!
//! | field | meaning |
//! |---|---|
//! | `version`, `portcullis` | version of this format, and of the program |
//! | `instance` | of the process: 32 hex digits, random, another after a restart |
//! | `at`, `since` | now, and the start of the server |
//! | `ready`, `not_ready` | whether it should get traffic, and why not |
//! | `generation`, `connections` | the active trust generation, open connections of accepted clients |
//! | `server` | the server certificate: `file`, `fingerprint`, `subject`, `not_before`, `not_after`, `days_left`, `life_left` (0 to 1), `state`, `urgency`, `next_step`, `verdict`; `null` until the first one has been issued |
//! | `acme` | with the feature of that name: how ordering it goes (`domains`, `directory`, `next_attempt`, `last_issued`, `failures` since, `last_failure`: `at`, `step`, `problem_type`, `detail`); `null` without `--acme-domain` |
//! | `trusted[]` | each trusted certificate: the same, and `role` (`pin`, `anchor`), `serial`, `key`, `has_successor`, `first_seen`, `last_seen`, `last_request`, `handshakes`, `requests`, `connections` (since it was loaded), `apis` (for each id in `x-amzn-apigateway-api-id`, of up to 100: `requests`, `last_seen`; those that `--api-id` refuses too, as they also show which certificate the API presents) |
//! | `reload` | `last_successful`, `last_success`, `succeeded`, `failed`, `files_failed` |
//! | `problems[]` | problems of the files now: `severity` (`error`, `warning`), `file`, `line`, `problem`, `remedy` |
//! | `handshakes` | `accepted`, and `refused` by reason |
//! | `refusals[]` | the last fifty rejected clients, the latest first: `at`, `reason`, `peer`, `fingerprint`, `subject`, `serial`, `not_before`, `not_after`, `nearest`, `detail`, `remedy` |
//!
//! `state` is the stable name of a [`State`](crate::State), `urgency` of an
//! [`Urgency`](crate::Urgency). `next_step` is what an operator should do, or `null`; `verdict` is
//! all of it in one phrase.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::SystemTime;

use serde::Serialize;

use crate::trust::{days_left, rfc3339, unix_time};
use crate::{
    ApiUsage, Assessment, Fingerprint, Problem, RejectedClient, ReloadState, ServerCertificate,
    Severity, Snapshot, TrustedCertificate,
};

const VERSION: u32 = 2;

/// Identifies the process: a reader that compares counters must notice that they restart.
static INSTANCE: LazyLock<String> = LazyLock::new(|| {
    let mut bytes = [0; 16];
    // Where the system has no random numbers, the process could not have served TLS.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
});

#[derive(Serialize)]
struct Status<'a> {
    version: u32,
    portcullis: &'static str,
    instance: &'static str,
    at: String,
    since: String,
    ready: bool,
    not_ready: Option<&'static str>,
    generation: u64,
    connections: usize,
    server: Option<Certificate<'a>>,
    #[cfg(feature = "acme")]
    acme: Option<Acme<'a>>,
    trusted: Vec<Trusted<'a>>,
    reload: Reload,
    problems: Vec<Found<'a>>,
    handshakes: Handshakes,
    refusals: Vec<RejectedClientJson<'a>>,
}

#[derive(Serialize)]
struct Certificate<'a> {
    file: String,
    fingerprint: String,
    subject: &'a str,
    not_before: String,
    not_after: String,
    days_left: i64,
    life_left: f64,
    state: &'static str,
    urgency: &'static str,
    next_step: Option<&'static str>,
    verdict: &'a str,
}

#[derive(Serialize)]
struct Trusted<'a> {
    role: &'static str,
    #[serde(flatten)]
    certificate: Certificate<'a>,
    serial: &'a str,
    key: &'a str,
    has_successor: bool,
    first_seen: Option<String>,
    last_seen: Option<String>,
    last_request: Option<String>,
    handshakes: u64,
    requests: u64,
    connections: u64,
    apis: BTreeMap<&'a str, Api>,
}

#[derive(Serialize)]
struct Api {
    requests: u64,
    last_seen: Option<String>,
}

#[cfg(feature = "acme")]
#[derive(Serialize)]
struct Acme<'a> {
    domains: &'a [String],
    directory: &'a str,
    next_attempt: Option<String>,
    last_issued: Option<String>,
    failures: u32,
    last_failure: Option<AcmeFailure<'a>>,
}

#[cfg(feature = "acme")]
#[derive(Serialize)]
struct AcmeFailure<'a> {
    at: String,
    step: &'a str,
    problem_type: Option<&'a str>,
    detail: &'a str,
}

#[cfg(feature = "acme")]
impl<'a> Acme<'a> {
    fn new(state: &'a crate::AcmeState) -> Self {
        Self {
            domains: &state.domains,
            directory: &state.directory,
            next_attempt: state.next_attempt.map(text),
            last_issued: state.last_issued.map(text),
            failures: state.failures,
            last_failure: state.last_failure.as_ref().map(|failure| AcmeFailure {
                at: text(failure.at),
                step: &failure.step,
                problem_type: failure.problem_type.as_deref(),
                detail: &failure.detail,
            }),
        }
    }
}

#[derive(Serialize)]
struct Reload {
    last_successful: bool,
    last_success: Option<String>,
    succeeded: u64,
    failed: u64,
    files_failed: usize,
}

/// One problem, as `inspect --json` has it too.
#[derive(Serialize)]
pub(crate) struct Found<'a> {
    severity: &'static str,
    file: String,
    line: Option<usize>,
    problem: &'a str,
    remedy: &'a str,
}

#[derive(Serialize)]
struct Handshakes {
    accepted: u64,
    refused: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct RejectedClientJson<'a> {
    at: String,
    reason: &'static str,
    peer: String,
    fingerprint: Option<String>,
    subject: Option<&'a str>,
    serial: Option<&'a str>,
    not_before: Option<String>,
    not_after: Option<String>,
    nearest: Option<String>,
    detail: Option<&'a str>,
    remedy: &'static str,
}

/// The state as JSON text.
pub(super) fn json(snapshot: &Snapshot) -> serde_json::Result<Vec<u8>> {
    let now = snapshot.at;
    let trusted = snapshot.trusted.iter().map(|trusted| Trusted::new(trusted, now));
    let refused = snapshot.handshakes.rejected.iter();
    serde_json::to_vec(&Status {
        version: VERSION,
        portcullis: env!("CARGO_PKG_VERSION"),
        instance: &INSTANCE,
        at: text(now),
        since: text(snapshot.since),
        ready: snapshot.not_ready.is_none(),
        not_ready: snapshot.not_ready.map(|reason| reason.as_str()),
        generation: snapshot.generation,
        connections: snapshot.connections,
        server: snapshot.server.as_ref().map(|server| Certificate::of_server(server, now)),
        #[cfg(feature = "acme")]
        acme: snapshot.acme.as_ref().map(Acme::new),
        trusted: trusted.collect(),
        reload: Reload::new(snapshot.reload),
        problems: snapshot.problems.iter().map(Found::new).collect(),
        handshakes: Handshakes {
            accepted: snapshot.handshakes.accepted,
            refused: refused.map(|(reason, count)| (reason.as_str(), *count)).collect(),
        },
        refusals: snapshot.rejections.iter().map(RejectedClientJson::new).collect(),
    })
}

impl<'a> Certificate<'a> {
    fn of_server(server: &'a ServerCertificate, now: SystemTime) -> Self {
        let validity = [server.not_before, server.not_after];
        let file = server.file.display().to_string();
        Self::new(file, server.fingerprint, &server.subject, validity, &server.assessment, now)
    }

    fn of_trusted(trusted: &'a TrustedCertificate, now: SystemTime) -> Self {
        let validity = [trusted.not_before, trusted.not_after];
        let file = trusted.file.display().to_string();
        Self::new(file, trusted.fingerprint, &trusted.subject, validity, &trusted.assessment, now)
    }

    fn new(
        file: String,
        fingerprint: Fingerprint,
        subject: &'a str,
        [not_before, not_after]: [SystemTime; 2],
        assessment: &'a Assessment,
        now: SystemTime,
    ) -> Self {
        Self {
            file,
            fingerprint: fingerprint.to_string(),
            subject,
            not_before: text(not_before),
            not_after: text(not_after),
            days_left: days_left(not_after, now),
            life_left: life_left(not_before, not_after, now),
            state: assessment.state.as_str(),
            urgency: assessment.urgency.as_str(),
            next_step: assessment.next_step,
            verdict: &assessment.verdict,
        }
    }
}

impl<'a> Trusted<'a> {
    fn new(trusted: &'a TrustedCertificate, now: SystemTime) -> Self {
        let usage = trusted.usage;
        Self {
            role: trusted.role.as_str(),
            certificate: Certificate::of_trusted(trusted, now),
            serial: &trusted.serial,
            key: &trusted.key,
            has_successor: trusted.has_successor,
            first_seen: usage.first_seen.map(text),
            last_seen: usage.last_seen.map(text),
            last_request: usage.last_request.map(text),
            handshakes: usage.handshakes,
            requests: usage.requests,
            connections: usage.connections,
            apis: trusted.apis.iter().map(|(id, usage)| (id.as_str(), Api::new(*usage))).collect(),
        }
    }
}

impl Api {
    fn new(usage: ApiUsage) -> Self {
        Self { requests: usage.requests, last_seen: usage.last_seen.map(text) }
    }
}

impl Reload {
    fn new(state: ReloadState) -> Self {
        Self {
            last_successful: state.last_successful,
            last_success: state.last_success.map(text),
            succeeded: state.succeeded,
            failed: state.failed,
            files_failed: state.files_failed,
        }
    }
}

impl<'a> Found<'a> {
    pub(crate) fn new(problem: &'a Problem) -> Self {
        Self {
            severity: match problem.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            },
            file: problem.file.display().to_string(),
            line: problem.line,
            problem: &problem.message,
            remedy: &problem.remedy,
        }
    }
}

impl<'a> RejectedClientJson<'a> {
    fn new(client: &'a RejectedClient) -> Self {
        Self {
            at: text(client.at),
            reason: client.reason.as_str(),
            peer: client.peer.to_string(),
            fingerprint: client.fingerprint.map(|fingerprint| fingerprint.to_string()),
            subject: client.subject.as_deref(),
            serial: client.serial.as_deref(),
            not_before: client.not_before.map(text),
            not_after: client.not_after.map(text),
            nearest: client.nearest.as_ref().map(ToString::to_string),
            detail: client.detail.as_deref(),
            remedy: client.reason.remedy(),
        }
    }
}

fn text(time: SystemTime) -> String {
    rfc3339(unix_time(time))
}

/// The share of its lifetime that is left, from 1 to 0.
fn life_left(not_before: SystemTime, not_after: SystemTime, now: SystemTime) -> f64 {
    let life = not_after.duration_since(not_before).unwrap_or_default();
    let left = not_after.duration_since(now).unwrap_or_default();
    if life.is_zero() { 0.0 } else { (left.as_secs_f64() / life.as_secs_f64()).min(1.0) }
}
