//! The state of a running server at one moment, for an operator.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use metrics::{counter, describe_counter, describe_gauge, gauge};

use crate::reload::{Problem, ReloadState, ServerIdentity};
#[cfg(feature = "acme")]
use crate::server::acme_link::AcmeState;
use crate::server::handle::Handle;
use crate::server::meters::Handshakes;
use crate::server::rejections::RejectedClient;
use crate::trust::{
    ApiUsage, Assessment, Fingerprint, Role, Urgency, Usage, ValidityState, assess, assess_server,
    system_time, unix_time,
};

/// The state of a running server at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// The time of the snapshot, by the server's clock.
    pub at: SystemTime,
    /// When the server began to serve.
    pub since: SystemTime,
    /// Why the server should get no traffic; `None` while it is ready.
    pub not_ready: Option<NotReady>,
    /// The number of the active generation.
    pub generation: u64,
    /// The number of admitted connections that are open.
    pub connections: usize,
    /// The server's own certificate; `None` until the first one has been issued.
    pub server: Option<ServerCertificate>,
    /// How ordering it goes, where an ACME directory issues it.
    #[cfg(feature = "acme")]
    pub acme: Option<AcmeState>,
    /// Every trusted certificate, once for each role, in the order of the files.
    pub trusted: Vec<TrustedCertificate>,
    /// The results of the reloads so far.
    pub reload: ReloadState,
    /// The problems of the files as they were last read, errors first.
    pub problems: Vec<Problem>,
    /// The number of handshakes by their result.
    pub handshakes: Handshakes,
    /// The last rejected clients, up to fifty, the latest first.
    pub rejections: Vec<RejectedClient>,
}

/// Why a server should get no traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotReady {
    /// The server stops or has stopped.
    Stopping,
    /// Its own certificate has expired: API Gateway does not connect.
    ServerCertificateExpired,
    /// Its own certificate is not yet valid.
    ServerCertificateNotYetValid,
    /// No trusted certificate is valid now.
    NoValidTrust,
    /// The first certificate of its own has not been issued yet.
    NoServerCertificate,
}

impl NotReady {
    /// The reason and its remedy, for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopping => "it is being stopped",
            Self::ServerCertificateExpired => {
                "the server's certificate has ended: renew it in place; with --acme-domain, see \
                 acme_order_failed in the log"
            }
            Self::ServerCertificateNotYetValid => {
                "the server's certificate is not yet valid: if it should be, set the clock"
            }
            Self::NoServerCertificate => {
                "there is no server certificate yet: it is being ordered; the log has the failures"
            }
            Self::NoValidTrust => {
                "no client certificate and no CA is valid now: put one into a --trust path"
            }
        }
    }
}

/// The server's own certificate.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerCertificate {
    /// Its file.
    pub file: PathBuf,
    /// SHA-256 of its DER.
    pub fingerprint: Fingerprint,
    /// Its subject, with unprintable characters escaped.
    pub subject: String,
    /// The begin of its validity period.
    pub not_before: SystemTime,
    /// The end of its validity period.
    pub not_after: SystemTime,
    /// Its state, and what an operator should do about it.
    pub assessment: Assessment,
}

/// A certificate by which clients are accepted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TrustedCertificate {
    /// Whether it is pinned or a trust anchor.
    pub role: Role,
    /// Its file.
    pub file: PathBuf,
    /// SHA-256 of its DER.
    pub fingerprint: Fingerprint,
    /// Its subject, with unprintable characters escaped.
    pub subject: String,
    /// Its serial number, lower-case hex.
    pub serial: String,
    /// The kind of its key.
    pub key: String,
    /// The begin of its validity period.
    pub not_before: SystemTime,
    /// The end of its validity period.
    pub not_after: SystemTime,
    /// True if another certificate of its role is loaded that expires later.
    pub has_successor: bool,
    /// How it has been used.
    pub usage: Usage,
    /// The usage by each API, by the id in `x-amzn-apigateway-api-id`, of up to 100. A request that
    /// is refused for its API counts too: it shows which certificate the API presents, and that is
    /// what a rotation waits for.
    pub apis: BTreeMap<String, ApiUsage>,
    /// Its state, and what an operator should do about it.
    pub assessment: Assessment,
}

impl Handle {
    /// Why the server should get no traffic now; `None` while it is ready.
    pub fn not_ready(&self) -> Option<NotReady> {
        let now = unix_time(self.current.clock().now());
        let generation = self.current.newest();
        if self.stop.has_begun() {
            return Some(NotReady::Stopping);
        }
        let Some(identity) = &generation.identity else {
            return Some(NotReady::NoServerCertificate);
        };
        match identity.summary.validity.at(now) {
            ValidityState::Expired(_) => Some(NotReady::ServerCertificateExpired),
            ValidityState::NotYetValid(_) => Some(NotReady::ServerCertificateNotYetValid),
            ValidityState::Valid(_) if generation.store.is_usable(now) => None,
            ValidityState::Valid(_) => Some(NotReady::NoValidTrust),
        }
    }

    /// The state of the server now.
    pub fn snapshot(&self) -> Snapshot {
        let generation = self.current.newest();
        Snapshot {
            at: self.current.clock().now(),
            since: self.since,
            not_ready: self.not_ready(),
            generation: generation.number,
            connections: self.current.live_count(),
            server: self.server_certificate(),
            #[cfg(feature = "acme")]
            acme: self.acme.as_ref().map(|link| link.state()),
            trusted: self.trusted(),
            reload: self.results.state(),
            problems: self.results.problems(),
            handshakes: self.meters.handshakes(),
            rejections: self.rejections.recent(),
        }
    }

    /// Updates the metrics of each trusted certificate, by `fingerprint` and `file`: call it before
    /// the recorder is read. A recorder that keeps its series still has those of certificates that
    /// were removed since.
    pub fn report_certificates(&self) {
        report_certificates(&self.trusted(), self.server_certificate().as_ref());
    }

    /// The server's own certificate.
    pub fn server_certificate(&self) -> Option<ServerCertificate> {
        let generation = self.current.newest();
        let identity = generation.identity.as_ref()?;
        Some(ServerCertificate::new(&self.server_file, identity, self.current.clock().now()))
    }

    /// Every trusted certificate, its usage and what to do about it.
    pub fn trusted(&self) -> Vec<TrustedCertificate> {
        let store = &self.current.newest().store;
        let assessed = assess(store, self.since, self.current.clock().now());
        let trusted = store.certificates().iter().zip(assessed).map(|(loaded, assessed)| {
            let summary = loaded.certificate.summary();
            let counts = store.counts(loaded.role, summary.fingerprint);
            TrustedCertificate {
                role: loaded.role,
                file: loaded.file.to_path_buf(),
                fingerprint: summary.fingerprint,
                subject: summary.subject.clone(),
                serial: summary.serial.clone(),
                key: loaded.certificate.key().to_string(),
                not_before: system_time(summary.validity.not_before),
                not_after: system_time(summary.validity.not_after),
                has_successor: assessed.has_successor,
                usage: assessed.usage,
                assessment: assessed.assessment,
                apis: counts.apis(),
            }
        });
        trusted.collect()
    }
}

impl ServerCertificate {
    fn new(file: &Path, identity: &ServerIdentity, now: SystemTime) -> Self {
        let summary = &identity.summary;
        Self {
            file: file.to_owned(),
            fingerprint: summary.fingerprint,
            subject: summary.subject.clone(),
            not_before: system_time(summary.validity.not_before),
            not_after: system_time(summary.validity.not_after),
            assessment: assess_server(summary, identity.is_ordered, now),
        }
    }
}

/// Updates the metrics of each trusted certificate. Both roles of one file make one series.
fn report_certificates(trusted: &[TrustedCertificate], server: Option<&ServerCertificate>) {
    describe_certificates();
    if let Some(server) = server {
        gauge!("portcullis_server_certificate_urgency").set(server.assessment.urgency as u8);
    }
    let mut urgencies = BTreeMap::<_, Urgency>::new();
    for certificate in trusted {
        let key = (certificate.fingerprint, &certificate.file);
        let urgency = urgencies.entry(key).or_insert(Urgency::None);
        *urgency = certificate.assessment.urgency.max(*urgency);
    }
    for ((fingerprint, file), urgency) in urgencies {
        gauge!("portcullis_client_certificate_urgency", &labels(fingerprint, file))
            .set(urgency as u8);
    }
    let mut series = BTreeMap::<_, (f64, [u64; 4])>::new();
    for certificate in trusted {
        let usage = certificate.usage;
        let key = (certificate.fingerprint, &certificate.file);
        let (end, sums) = series.entry(key).or_default();
        *end = float(unix_time(certificate.not_after).as_secs());
        let seen = usage.last_seen.map_or(0, |at| unix_time(at).as_secs());
        let [handshakes, requests, connections, last_seen] = *sums;
        *sums = [
            handshakes + usage.handshakes,
            requests + usage.requests,
            connections + usage.connections,
            last_seen.max(seen),
        ];
    }
    for ((fingerprint, file), (end, [handshakes, requests, connections, last_seen])) in series {
        let labels = labels(fingerprint, file);
        gauge!("portcullis_client_certificate_expiration_timestamp_seconds", &labels).set(end);
        counter!("portcullis_client_certificate_handshakes_total", &labels).absolute(handshakes);
        counter!("portcullis_client_certificate_requests_total", &labels).absolute(requests);
        gauge!("portcullis_client_certificate_connections", &labels).set(float(connections));
        gauge!("portcullis_client_certificate_last_seen_timestamp_seconds", &labels)
            .set(float(last_seen));
    }
}

#[expect(clippy::cast_precision_loss, reason = "nothing here comes near 2^53")]
fn float(number: u64) -> f64 {
    number as f64
}

fn labels(fingerprint: Fingerprint, file: &Path) -> [(&'static str, String); 2] {
    [("fingerprint", fingerprint.to_string()), ("file", file.display().to_string())]
}

fn describe_certificates() {
    describe_gauge!(
        "portcullis_client_certificate_urgency",
        "How soon an operator has to act on a trusted certificate: 0 not at all, 1 soon, 2 now."
    );
    describe_gauge!(
        "portcullis_server_certificate_urgency",
        "How soon an operator has to act on the server certificate: 0 not at all, 1 soon, 2 now."
    );
    describe_gauge!(
        "portcullis_client_certificate_expiration_timestamp_seconds",
        "When a trusted certificate expires."
    );
    describe_counter!(
        "portcullis_client_certificate_handshakes_total",
        "Connections accepted by a trusted certificate since it was loaded."
    );
    describe_counter!(
        "portcullis_client_certificate_requests_total",
        "Requests on these connections."
    );
    describe_gauge!(
        "portcullis_client_certificate_connections",
        "Open connections accepted by a trusted certificate."
    );
    describe_gauge!(
        "portcullis_client_certificate_last_seen_timestamp_seconds",
        "When a trusted certificate was last used since it was loaded; 0 for never."
    );
}
