//! The files that were given, read into what they mean together.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;

use crate::clock::{self, Clock};
use crate::reload::files::{ReadContext, Source};
use crate::reload::generation::{Generation, GenerationBuilder};
use crate::reload::identity::{IdentityFiles, ServerIdentity};
use crate::reload::judge::judge;
use crate::reload::problem::{Problem, Severity};
use crate::reload::watch::BeingWritten;
use crate::trust::{Loaded, Role, TrustStore, rfc3339};

/// Which files say who the server is and whom it trusts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Material {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Files and directories, in the order in which they were given.
    pub(crate) trust: Vec<(Role, PathBuf)>,
}

/// Reads the files, again and again, and remembers what each last held that was good.
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
        let Material { certificate, key, trust } = material;
        let mut loader = Self {
            sources: trust.into_iter().map(|(role, path)| Source::new(role, path)).collect(),
            identity: IdentityFiles::new(certificate, key),
            builder: GenerationBuilder { provider, clock },
        };
        loader.read(&ReadContext { is_first: true, being_written: &BeingWritten::default() });
        loader
    }

    /// Reads what has changed.
    pub(super) fn read_again(&mut self, being_written: &BeingWritten) {
        self.read(&ReadContext { is_first: false, being_written });
    }

    fn read(&mut self, how: &ReadContext<'_>) {
        self.identity.read(&self.builder.provider);
        for source in &mut self.sources {
            source.read(how);
        }
    }

    /// Has everything read again at the next time, whatever the time stamps say.
    pub(super) fn invalidate_stamps(&mut self) {
        self.sources.iter_mut().for_each(Source::invalidate_stamps);
    }

    /// The paths whose changes matter.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        let identity = [self.identity.certificate.as_path(), self.identity.key.as_path()];
        let trust = self.sources.iter().flat_map(|source| {
            // Within a directory only links lead elsewhere.
            let links = source.files().filter(|path| path.is_symlink());
            std::iter::once(source.path()).chain(links)
        });
        identity.into_iter().chain(trust)
    }

    /// The store of what is loaded now. `before` is the one that it takes the place of.
    pub(super) fn store(&self, before: Option<&TrustStore>) -> TrustStore {
        let algorithms = self.builder.provider.signature_verification_algorithms;
        TrustStore::new(before, self.loaded(), algorithms)
    }

    /// What is loaded now, in the order of the files.
    pub(super) fn loaded(&self) -> impl Iterator<Item = Loaded> {
        self.sources.iter().flat_map(Source::loaded)
    }

    /// The file of the server's certificate.
    pub(super) fn server_certificate(&self) -> &Path {
        &self.identity.certificate
    }

    /// The files of the server's own certificate and key.
    pub(super) fn identity_files(&self) -> [&Path; 2] {
        [self.identity.certificate.as_path(), self.identity.key.as_path()]
    }

    pub(super) fn identity(&self) -> Option<&Arc<ServerIdentity>> {
        self.identity.good()
    }

    /// All that is wrong or odd with the files now, faults first.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let now = clock::unix_now(self.builder.clock.as_ref());
        let mut problems: Vec<_> = self.identity.problems().cloned().collect();
        problems.extend(self.sources.iter().flat_map(Source::problems));
        if let Some(identity) = self.identity.good() {
            let validity = identity.summary.validity;
            if now >= validity.not_after {
                let problem =
                    format!("the server's certificate ended at {}", rfc3339(validity.not_after));
                let remedy = "renew it: API Gateway connects to no server without a valid one";
                problems.push(Problem::warning(&self.identity.certificate, problem, remedy));
            } else if now < validity.not_before {
                let begin = rfc3339(validity.not_before);
                let problem = format!("the server's certificate is not yet valid, until {begin}");
                problems.push(Problem::warning(&self.identity.certificate, problem, CHECK_CLOCK));
            }
        }
        for loaded in self.loaded() {
            let summary = loaded.certificate.summary();
            let name = || format!("certificate {}", summary.fingerprint);
            if now >= summary.validity.not_after {
                let end = rfc3339(summary.validity.not_after);
                let problem = format!("{} ended at {end}", name());
                let remedy = "remove it, or put its successor beside it";
                problems.push(Problem::warning(&loaded.file, problem, remedy));
            } else if now < summary.validity.not_before {
                let begin = rfc3339(summary.validity.not_before);
                let problem = format!("{} is not yet valid, until {begin}", name());
                problems.push(Problem::warning(&loaded.file, problem, CHECK_CLOCK));
            }
        }
        problems.sort_by_key(|problem| problem.severity == Severity::Warning);
        let mut seen = HashSet::new();
        problems.retain(|problem| seen.insert(problem.clone()));
        problems
    }

    /// What API Gateway will make of the server's own certificate under these names.
    pub(crate) fn judge(&self, names: &[ServerName<'_>]) -> Vec<Problem> {
        let Some(identity) = self.identity() else { return Vec::new() };
        judge(
            &self.identity.certificate,
            &identity.certified_key.cert,
            names,
            &self.builder.provider.signature_verification_algorithms,
            clock::unix_now(self.builder.clock.as_ref()),
        )
    }

    /// The first generation, or what stands in its way.
    pub(crate) fn first_generation(&self) -> Result<Generation, NotStartable> {
        let now = clock::unix_now(self.builder.clock.as_ref());
        let identity = self.identity().ok_or(NotStartable::NoServerCertificate)?;
        let store = self.store(None);
        if !store.certificates().iter().any(|loaded| now < loaded.certificate.validity().not_after)
        {
            return Err(NotStartable::NobodyTrusted);
        }
        let identity = Arc::clone(identity);
        self.builder
            .make(1, Arc::new(store), identity, None)
            .map_err(|error| NotStartable::Tls(error.to_string()))
    }
}

const CHECK_CLOCK: &str = "if it should be by now, set this machine's clock";

/// Why the server cannot start on what was read.
#[derive(Debug)]
pub enum NotStartable {
    /// The server's own certificate and key do not load.
    NoServerCertificate,
    /// No client certificate and no CA is usable.
    NobodyTrusted,
    /// The TLS library refuses the configuration.
    Tls(String),
}

impl std::fmt::Display for NotStartable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoServerCertificate => {
                write!(f, "the server's certificate (--cert) and key (--key) do not load")
            }
            Self::NobodyTrusted => write!(
                f,
                "there is nobody to let in: give at least one client certificate (--trust) or CA \
                 (--trust-ca) that has not ended"
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

    /// The 32 octets of a P-256 key in PKCS#8 that are the secret.
    fn secret() -> Vec<u8> {
        let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
        let der = key.secret_der();
        let at = der.windows(2).position(|octets| octets == [4, 32]).unwrap() + 2;
        der[at..at + 32].to_vec()
    }

    /// A part of it in each form in which something might be printed.
    fn spelled(secret: &[u8]) -> Vec<String> {
        let part = &secret[..12];
        let hex: String = part.iter().map(|octet| format!("{octet:02x}")).collect();
        let lists = [format!("{part:?}"), format!("{part:x?}"), format!("{part:#04x?}")];
        let lists = lists.map(|list| list.trim_matches(['[', ']', '\n', ',']).to_owned());
        // In base64 it may begin at each of three places.
        let base64 = (0..3).map(|at| STANDARD.encode(&secret[at..at + 12]));
        lists.into_iter().chain([hex.to_uppercase(), hex]).chain(base64).collect()
    }

    #[test]
    fn no_key_is_in_what_debug_says() {
        let files = tempfile::tempdir().unwrap();
        let at = |name: &str, text: &str| {
            let path = files.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let material = Material {
            certificate: at("server.pem", CERTIFICATE),
            key: at("server.key", KEY),
            // A key that has strayed into a place of certificates is read too.
            trust: vec![(Role::Pin, at("a.pem", CLIENT)), (Role::Pin, at("key.pem", KEY))],
        };
        let loader = Loader::new(material, Arc::new(default_provider()), Arc::new(SystemClock));
        let generation = loader.first_generation().unwrap();
        let said =
            format!("{loader:?} {generation:?} {generation:#?} {:?}", generation.tls.ticketer);
        assert!(said.contains("certified_key"), "it is in there");
        for spelling in spelled(&secret()) {
            assert!(!said.contains(&spelling), "{spelling}");
        }
    }

    #[test]
    fn what_would_be_said_of_a_key_is_recognised() {
        let secret = secret();
        for said in [format!("{secret:?}"), format!("{secret:x?}"), STANDARD.encode(&secret)] {
            assert!(spelled(&secret).iter().any(|spelling| said.contains(spelling)), "{said}");
        }
    }
}
