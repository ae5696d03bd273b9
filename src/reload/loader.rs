//! Loads every configured file, and builds the first generation from them.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{ServerName, UnixTime};

use crate::clock::{self, Clock};
use crate::reload::generation::{Generation, GenerationBuilder};
use crate::reload::identity::{IdentityFiles, ServerIdentity};
use crate::reload::judge::judge;
use crate::reload::problem::{Problem, Severity};
use crate::reload::read::PemSource;
use crate::reload::source::Source;
use crate::reload::trust_file::ReadContext;
use crate::reload::watch::BeingWritten;
use crate::trust::{
    LatestEnds, LoadedCertificate, Role, Summary, TrustStore, Validity, ValidityState,
    WrittenPeriod, rfc3339, step_after_end,
};

/// Where the server's certificate and key and the trusted certificates come from.
#[derive(Clone, Debug)]
pub(crate) struct Material {
    pub(crate) certificate: PemSource,
    pub(crate) key: PemSource,
    /// The pair may not be there yet: it has been ordered.
    pub(crate) is_pair_awaited: bool,
    /// In the order in which they were given.
    pub(crate) trust: Vec<(Role, PemSource)>,
}

/// Reads the files, and remembers the last good content of each.
#[derive(Debug)]
pub(crate) struct Loader {
    sources: Vec<Source>,
    identity: IdentityFiles,
    pub(super) builder: GenerationBuilder,
}

impl Loader {
    /// Reads everything for the first time.
    pub(crate) fn new(
        material: Material,
        provider: Arc<CryptoProvider>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let Material { certificate, key, is_pair_awaited, trust } = material;
        let mut loader = Self {
            sources: trust.into_iter().map(|(role, origin)| Source::new(role, origin)).collect(),
            identity: IdentityFiles::new(certificate, key, is_pair_awaited),
            builder: GenerationBuilder { provider, clock },
        };
        loader.read(&ReadContext { is_first: true, being_written: &BeingWritten::default() });
        loader
    }

    /// Reads what has changed.
    pub(super) fn read_again(&mut self, being_written: &BeingWritten) {
        self.read(&ReadContext { is_first: false, being_written });
    }

    fn read(&mut self, context: &ReadContext<'_>) {
        self.identity.read(&self.builder.provider);
        for source in &mut self.sources {
            source.read(context);
        }
    }

    /// Makes the next read ignore all stamps.
    pub(super) fn invalidate_stamps(&mut self) {
        self.sources.iter_mut().for_each(Source::invalidate_stamps);
    }

    /// The paths whose changes matter.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        let identity = [&self.identity.certificate, &self.identity.key];
        let identity = identity.into_iter().filter_map(PemSource::watched);
        identity.chain(self.sources.iter().flat_map(Source::watched))
    }

    /// The store of what is loaded now, which replaces `before`.
    pub(super) fn store(&self, before: Option<&TrustStore>) -> TrustStore {
        let algorithms = self.builder.provider.signature_verification_algorithms;
        TrustStore::new(before, self.loaded(), algorithms)
    }

    /// What is loaded now, in the order of the files.
    pub(super) fn loaded(&self) -> impl Iterator<Item = LoadedCertificate> {
        self.sources.iter().flat_map(Source::loaded)
    }

    /// The file of the server's certificate.
    pub(super) fn server_certificate(&self) -> &Path {
        self.identity.certificate.path()
    }

    /// The files of the server's own certificate and key.
    pub(super) fn identity_files(&self) -> [&Path; 2] {
        [self.identity.certificate.path(), self.identity.key.path()]
    }

    pub(super) fn identity(&self) -> Option<&Arc<ServerIdentity>> {
        self.identity.good()
    }

    /// The problems of the files now, errors first.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let now = clock::unix_now(self.builder.clock.as_ref());
        let mut problems: Vec<_> = self.identity.problems().cloned().collect();
        problems.extend(self.sources.iter().flat_map(Source::problems));
        if let Some(identity) = self.identity.good() {
            let file = self.identity.certificate.path();
            let validity = identity.summary.validity;
            problems.extend(server_validity(file, validity, identity.is_ordered, now));
        }
        let latest = LatestEnds::of(self.loaded().collect::<Vec<_>>().iter());
        problems.extend(self.loaded().filter_map(|loaded| trusted_validity(&loaded, latest, now)));
        problems.sort_by_key(|problem| problem.severity == Severity::Warning);
        let mut seen = HashSet::new();
        problems.retain(|problem| seen.insert(problem.clone()));
        problems
    }

    /// The same, with what API Gateway objects to in the server's own certificate. The published
    /// example is exempt, since API Gateway never calls it. An ordered certificate renews itself,
    /// so its end is not reported.
    pub(super) fn problems_while_serving(&self) -> Vec<Problem> {
        let mut problems = self.problems();
        if self.identity().is_some_and(|identity| !identity.is_example) {
            problems.extend(self.judge_identity(&[], !self.identity.is_awaited));
        }
        problems
    }

    /// What API Gateway objects to in the server's own certificate, under these names.
    pub(crate) fn judge(&self, names: &[ServerName<'_>]) -> Vec<Problem> {
        self.judge_identity(names, true)
    }

    fn judge_identity(&self, names: &[ServerName<'_>], reports_ends: bool) -> Vec<Problem> {
        let Some(identity) = self.identity() else { return Vec::new() };
        judge(
            self.identity.certificate.path(),
            &identity.certified_key.cert,
            names,
            &self.builder.provider.signature_verification_algorithms,
            clock::unix_now(self.builder.clock.as_ref()),
            reports_ends,
        )
    }

    /// Builds the first generation.
    ///
    /// # Errors
    /// Why a server cannot start.
    pub(crate) fn first_generation(&self) -> Result<Generation, NotStartable> {
        let now = clock::unix_now(self.builder.clock.as_ref());
        let identity = self.identity().cloned();
        if identity.is_none() && !self.identity.is_awaited {
            return Err(NotStartable::NoServerCertificate);
        }
        let store = self.store(None);
        let is_expired = |validity: Validity| matches!(validity.at(now), ValidityState::Expired(_));
        if store.certificates().iter().all(|loaded| is_expired(loaded.certificate.validity())) {
            return Err(NotStartable::NoValidTrust);
        }
        self.builder
            .make(1, Arc::new(store), identity, None)
            .map_err(|error| NotStartable::Tls(error.to_string()))
    }
}

const CHECK_CLOCK: &str = "if it should be valid now, set this machine's clock";

/// API Gateway connects to no server whose certificate is expired.
fn server_validity(
    file: &Path,
    validity: Validity,
    is_ordered: bool,
    now: UnixTime,
) -> Option<Problem> {
    match validity.at(now) {
        ValidityState::Valid(_) => None,
        ValidityState::Expired(_) => {
            let message =
                format!("the server's certificate ended at {}", rfc3339(validity.not_after));
            let remedy = match is_ordered {
                true => "serve orders another one at once: see acme_order_failed in its log",
                false => "renew it: API Gateway connects to no server without a valid one",
            };
            Some(Problem::error(file, message, remedy))
        }
        ValidityState::NotYetValid(_) => {
            let begin = rfc3339(validity.not_before);
            let message = format!("the server's certificate is not yet valid, until {begin}");
            Some(Problem::warning(file, message, CHECK_CLOCK))
        }
    }
}

fn trusted_validity(
    loaded: &LoadedCertificate,
    latest: LatestEnds,
    now: UnixTime,
) -> Option<Problem> {
    let Summary { fingerprint, validity, .. } = loaded.certificate.summary();
    match validity.at(now) {
        ValidityState::Valid(_) => None,
        ValidityState::Expired(_) => {
            let end = WrittenPeriod::new(loaded.certificate.der(), *validity).not_after;
            let message = format!("certificate {fingerprint} ended at {end}");
            let has_successor = latest.has_successor(loaded.role, *validity);
            let remedy = step_after_end(loaded.role, has_successor);
            Some(Problem::warning(&loaded.file, message, remedy))
        }
        ValidityState::NotYetValid(_) => {
            let begin = rfc3339(validity.not_before);
            let message = format!("certificate {fingerprint} is not yet valid, until {begin}");
            Some(Problem::warning(&loaded.file, message, CHECK_CLOCK))
        }
    }
}

/// Why the server cannot start with these files.
#[derive(Debug)]
pub enum NotStartable {
    /// The server's own certificate and key do not load.
    NoServerCertificate,
    /// No client certificate and no CA is usable.
    NoValidTrust,
    /// The TLS library rejects the configuration.
    Tls(String),
}

impl std::fmt::Display for NotStartable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoServerCertificate => {
                write!(f, "the server's certificate and key do not load")
            }
            Self::NoValidTrust => write!(
                f,
                "no client is trusted: give at least one client certificate or trust anchor that is \
                 not expired"
            ),
            Self::Tls(error) => write!(f, "TLS cannot be set up: {error}"),
        }
    }
}

impl std::error::Error for NotStartable {}

#[cfg(test)]
mod tests {
    use std::fs;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use rustls::crypto::aws_lc_rs::default_provider;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject as _;

    use super::*;
    use crate::clock::SystemClock;

    const CERTIFICATE: &str = include_str!("../../certs-example/server-cert.pem");
    const KEY: &str = include_str!("../../certs-example/server-key.pem");
    const CLIENT: &str = include_str!("../../certs-example/client-1.pem");

    /// The 32 secret bytes of a P-256 key in PKCS#8.
    fn secret() -> Vec<u8> {
        let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
        let der = key.secret_der();
        let at = der.windows(2).position(|pair| pair == [4, 32]).unwrap() + 2;
        der[at..at + 32].to_vec()
    }

    /// A part of the secret in each form in which it could be printed.
    fn spelled(secret: &[u8]) -> Vec<String> {
        let part = &secret[..12];
        let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
        let lists = [format!("{part:?}"), format!("{part:x?}"), format!("{part:#04x?}")];
        let lists = lists.map(|list| list.trim_matches(['[', ']', '\n', ',']).to_owned());
        // In base64 it may begin at each of three places.
        let base64 = (0..3).map(|at| STANDARD.encode(&secret[at..at + 12]));
        lists.into_iter().chain([hex.to_uppercase(), hex]).chain(base64).collect()
    }

    #[test]
    fn debug_output_holds_no_key() {
        let files = tempfile::tempdir().unwrap();
        let at = |name: &str, text: &str| {
            let path = files.path().join(name);
            fs::write(&path, text).unwrap();
            PemSource::Path(path)
        };
        let bytes = PemSource::Bytes("key given as bytes".into(), KEY.as_bytes().into());
        let material = Material {
            certificate: at("server.pem", CERTIFICATE),
            key: bytes.clone(),
            is_pair_awaited: false,
            // A key that was put among the certificates by mistake is read too.
            trust: vec![
                (Role::Pin, at("a.pem", CLIENT)),
                (Role::Pin, at("key.pem", KEY)),
                (Role::Pin, bytes),
            ],
        };
        let loader = Loader::new(material, Arc::new(default_provider()), Arc::new(SystemClock));
        let generation = loader.first_generation().unwrap();
        let output =
            format!("{loader:?} {generation:?} {generation:#?} {:?}", generation.tls.ticketer);
        assert!(output.contains("certified_key"), "the identity is in it");
        for spelling in spelled(&secret()) {
            assert!(!output.contains(&spelling), "{spelling}");
        }
    }

    #[test]
    fn printed_key_is_recognized() {
        let secret = secret();
        for output in [format!("{secret:?}"), format!("{secret:x?}"), STANDARD.encode(&secret)] {
            assert!(spelled(&secret).iter().any(|spelling| output.contains(spelling)), "{output}");
        }
    }
}
