//! What an operator may ask a running server: its state at one moment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::reload::{Problem, ReloadState};
use crate::server::Handle;
use crate::server::meters::Handshakes;
use crate::server::rejections::RejectedClient;
use crate::trust::{
    ApiUsage, Assessment, Fingerprint, Role, Summary, Usage, ValidityState, assess, assess_server,
    system_time, unix_time,
};

/// The state of a running server at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// When it was taken, by the server's clock.
    pub at: SystemTime,
    /// Since when the server has served.
    pub since: SystemTime,
    /// Why it should get no traffic, where that is so.
    pub not_ready: Option<NotReady>,
    /// The number of the generation in force.
    pub generation: u64,
    /// How many connections are let in now.
    pub connections: usize,
    /// The server's own certificate.
    pub server: ServerCertificate,
    /// Every trusted certificate, once in each role, in the order of the files.
    pub trusted: Vec<TrustedCertificate>,
    /// How keeping it current goes.
    pub reload: ReloadState,
    /// What is wrong or odd with the files as they were last read, faults first.
    pub problems: Vec<Problem>,
    /// What handshakes came to.
    pub handshakes: Handshakes,
    /// The last clients that were refused, up to fifty, the latest first.
    pub refusals: Vec<RejectedClient>,
}

/// Why a server should get no traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotReady {
    /// It is being stopped, or has been.
    Stopping,
    /// Its own certificate has ended: API Gateway connects to no such server.
    ServerCertificateEnded,
    /// The time of its own certificate has not come.
    ServerCertificateNotYetValid,
    /// No trusted certificate is in its dates.
    NobodyTrusted,
}

impl NotReady {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopping => "it is being stopped",
            Self::ServerCertificateEnded => "the server's certificate has ended: renew it in place",
            Self::ServerCertificateNotYetValid => {
                "the server's certificate is not yet valid: if it should be, set the clock"
            }
            Self::NobodyTrusted => {
                "no client certificate and no CA is in its dates: put one into a --trust path"
            }
        }
    }
}

/// The server's own certificate.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerCertificate {
    /// The file that was given.
    pub file: PathBuf,
    /// SHA-256 of its DER.
    pub fingerprint: Fingerprint,
    /// Its subject, what does not print escaped.
    pub subject: String,
    /// From when it is valid,
    pub not_before: SystemTime,
    /// and until when.
    pub not_after: SystemTime,
    /// Its state, and what an operator should do about it.
    pub assessment: Assessment,
}

/// A trusted certificate.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TrustedCertificate {
    /// What it is trusted for.
    pub role: Role,
    /// The file that it was read from.
    pub file: PathBuf,
    /// SHA-256 of its DER.
    pub fingerprint: Fingerprint,
    /// Its subject, what does not print escaped.
    pub subject: String,
    /// Its serial number, lower-case hex.
    pub serial: String,
    /// The kind of its key.
    pub key: String,
    /// From when it is valid,
    pub not_before: SystemTime,
    /// and until when.
    pub not_after: SystemTime,
    /// Whether another of its role is loaded that ends later.
    pub has_successor: bool,
    /// What has been seen of it.
    pub usage: Usage,
    /// The part of each API, by the id in `x-amzn-apigateway-api-id`, of up to 100.
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
        match generation.identity.summary.validity.at(now) {
            ValidityState::Expired(_) => Some(NotReady::ServerCertificateEnded),
            ValidityState::NotYetValid(_) => Some(NotReady::ServerCertificateNotYetValid),
            ValidityState::Valid(_) if generation.store.is_usable(now) => None,
            ValidityState::Valid(_) => Some(NotReady::NobodyTrusted),
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
            trusted: self.trusted(),
            reload: self.current.reload_state(),
            problems: self.current.problems(),
            handshakes: self.meters.handshakes(),
            refusals: self.refusals.recent(),
        }
    }

    /// Tells the metrics recorder what is so now of each trusted certificate, by `fingerprint` and
    /// `file`: call it before the recorder is read. A recorder that remembers what it was told
    /// will go on to tell of certificates that were removed, unless it is made afresh each time.
    pub fn report_certificates(&self) {
        crate::server::meters::report_certificates(&self.trusted(), &self.server_certificate());
    }

    /// The server's own certificate.
    pub fn server_certificate(&self) -> ServerCertificate {
        let summary = &self.current.newest().identity.summary;
        ServerCertificate::new(&self.server_file, summary, self.current.clock().now())
    }

    /// Every trusted certificate, what has been seen of it, and what to do about it.
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
    fn new(file: &Path, summary: &Summary, now: SystemTime) -> Self {
        Self {
            file: file.to_owned(),
            fingerprint: summary.fingerprint,
            subject: summary.subject.clone(),
            not_before: system_time(summary.validity.not_before),
            not_after: system_time(summary.validity.not_after),
            assessment: assess_server(summary, now),
        }
    }
}
