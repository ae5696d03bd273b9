//! The server's own certificate and key, which are usable only as a pair.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

use crate::reload::problem::Problem;
use crate::reload::read::{MAX_FILE_SIZE, PemSource};
use crate::trust::pem::{self, PemError, PemErrorKind};
use crate::trust::{Certificate, Fingerprint, Summary, unsupported_private_key};

/// The certificate chain and key of the server.
#[derive(Debug)]
pub(crate) struct ServerIdentity {
    pub(crate) certified_key: Arc<CertifiedKey>,
    /// The end-entity certificate.
    pub(crate) summary: Summary,
    /// True for the published key of `certs-example/`.
    pub(super) is_example: bool,
    /// True if the server itself orders and renews it.
    pub(crate) is_ordered: bool,
}

/// The two files, and the last good pair.
#[derive(Debug)]
pub(super) struct IdentityFiles {
    pub(super) certificate: PemSource,
    pub(super) key: PemSource,
    /// True if the server may start without them: they have been ordered.
    pub(super) is_awaited: bool,
    /// Of the pair that was read last.
    digest: Option<Fingerprint>,
    /// Of the pair in `good`.
    good_digest: Option<Fingerprint>,
    good: Option<Arc<ServerIdentity>>,
    errors: Vec<Problem>,
    exposed_keys: Vec<Problem>,
}

impl IdentityFiles {
    pub(super) fn new(certificate: PemSource, key: PemSource, is_awaited: bool) -> Self {
        Self {
            certificate,
            key,
            is_awaited,
            digest: None,
            good_digest: None,
            good: None,
            errors: Vec::new(),
            exposed_keys: Vec::new(),
        }
    }

    /// The last good pair.
    pub(super) fn good(&self) -> Option<&Arc<ServerIdentity>> {
        self.good.as_ref()
    }

    /// The problems of both files.
    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.errors.iter().chain(&self.exposed_keys)
    }

    /// Reads both files. A pair that does not load, or does not belong together, changes nothing.
    pub(super) fn read(&mut self, provider: &CryptoProvider) {
        let is_yet_to_come = self.is_awaited && self.good.is_none();
        let mut errors = Vec::new();
        let mut contents = Vec::new();
        for source in [&self.certificate, &self.key] {
            match source.read() {
                Ok(bytes) if bytes.len() as u64 > MAX_FILE_SIZE => {
                    let error = PemError::whole(PemErrorKind::TooLarge);
                    errors.push(Problem::in_pem(source.path(), &error));
                }
                Ok(bytes) => contents.push(bytes),
                Err(error) if is_yet_to_come && error.is_not_found() => {}
                Err(error) => errors.push(Problem::unreadable(source.path(), &error)),
            }
        }
        let [certificate, key] = contents.as_slice() else {
            self.errors = errors;
            self.digest = None;
            return;
        };
        let is_example = is_example(key);
        let files = [(&self.certificate, certificate), (&self.key, key)];
        let exposed = files.into_iter().filter(|_| !is_example);
        self.exposed_keys =
            exposed.filter_map(|(source, bytes)| exposed_key(source, bytes)).collect();
        let digests = [Fingerprint::of(certificate), Fingerprint::of(key)];
        let digest = Some(Fingerprint::of(&digests.map(|digest| *digest.as_bytes()).concat()));
        if self.digest == digest {
            return;
        }
        self.digest = digest;
        match self.load(certificate, key, provider) {
            Ok(identity) => {
                self.errors.clear();
                // The same pair may have been away for a while.
                if self.good_digest != digest {
                    self.good = Some(Arc::new(ServerIdentity { is_example, ..identity }));
                    self.good_digest = digest;
                }
            }
            Err(errors) => self.errors = errors,
        }
    }

    fn load(
        &self,
        certificate: &[u8],
        key: &[u8],
        provider: &CryptoProvider,
    ) -> Result<ServerIdentity, Vec<Problem>> {
        let (certificate_file, key_file) = (self.certificate.path(), self.key.path());
        let in_certificate =
            |error: &PemError| Problem::in_server_pem(certificate_file, error, false);
        let in_key = |error: &PemError| Problem::in_server_pem(key_file, error, true);
        let chain = pem::chain(certificate)
            .map_err(|errors| errors.iter().map(in_certificate).collect::<Vec<_>>());
        let key =
            pem::private_key(key).map_err(|errors| errors.iter().map(in_key).collect::<Vec<_>>());
        let (chain, key) = match (chain, key) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => {
                let errors = [chain.err(), key.err()].into_iter().flatten().flatten();
                return Err(errors.collect());
            }
        };
        let chain: Vec<CertificateDer<'static>> = chain.into_iter().map(|(_, der)| der).collect();
        let summary = chain.first().and_then(Summary::of).ok_or_else(|| {
            let message = "its first certificate cannot be parsed";
            vec![Problem::error(certificate_file, message, "get it again from its issuer")]
        })?;
        let der = key.clone_key();
        let key = provider.key_provider.load_private_key(key).map_err(|_| {
            let kind = unsupported_private_key(der.secret_der());
            vec![Problem::error(key_file, kind.to_string(), kind.remedy())]
        })?;
        let certified_key = CertifiedKey::new(chain, key);
        match certified_key.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => {
                // The key may be the right one in a form that no certificate may have.
                if let Some(kind) = unusable_key(&certified_key) {
                    let error = PemError::whole(kind);
                    return Err(vec![Problem::in_pem(certificate_file, &error)]);
                }
                let message =
                    format!("the key in {} is not this certificate's", key_file.display());
                let remedy =
                    "put the certificate first in its file, and its own key into the other";
                return Err(vec![Problem::error(certificate_file, message, remedy)]);
            }
            Err(error) => {
                let message = format!("its first certificate cannot be used: {error}");
                let remedy = "get it again from its issuer";
                return Err(vec![Problem::error(certificate_file, message, remedy)]);
            }
        }
        Ok(ServerIdentity {
            certified_key: Arc::new(certified_key),
            summary,
            is_example: false,
            is_ordered: self.is_awaited,
        })
    }
}

/// A private key that every user of the machine can read. Access for a group is deliberate.
fn exposed_key(source: &PemSource, bytes: &[u8]) -> Option<Problem> {
    const OTHERS_READ: u32 = 0o004;
    let path = source.watched()?;
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let mode = metadata.permissions().mode() & 0o7777;
    (mode & OTHERS_READ != 0 && pem::holds_private_key(bytes)).then(|| {
        let message = format!("every user of this machine can read the key (mode {mode:04o})");
        Problem::warning(path, message, &format!("chmod o= {}", path.display()))
    })
}

/// Why no client can verify a signature with the certificate's public key, if none can.
fn unusable_key(certified_key: &CertifiedKey) -> Option<PemErrorKind> {
    let leaf = certified_key.cert.first()?;
    match Certificate::parse(leaf.clone()) {
        Ok(_) | Err(PemErrorKind::BadDer(_) | PemErrorKind::TrailingBytes) => None,
        Err(kind) => Some(kind),
    }
}

/// True for a key that `certs-example/generate` wrote. It is published, so its mode does not
/// matter.
fn is_example(key: &[u8]) -> bool {
    key.starts_with(b"THROW-AWAY EXAMPLE KEY - PUBLISHED - PROTECTS NOTHING\n")
}
