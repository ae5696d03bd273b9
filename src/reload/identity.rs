//! The server's own certificate and key, which are good only together.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

use crate::reload::files::{LARGEST, read_regular};
use crate::reload::problem::Problem;
use crate::trust::pem::{self, PemError, PemErrorKind};
use crate::trust::{Fingerprint, Summary};

/// The chain and the key that the server proves itself with.
#[derive(Debug)]
pub(crate) struct ServerIdentity {
    pub(crate) certified_key: Arc<CertifiedKey>,
    /// The end-entity certificate.
    pub(crate) summary: Summary,
}

/// The two files, and the last pair from them that was good.
#[derive(Debug)]
pub(super) struct IdentityFiles {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    /// Of what was read last.
    digest: Option<Fingerprint>,
    /// Of what `good` was read from.
    good_digest: Option<Fingerprint>,
    good: Option<Arc<ServerIdentity>>,
    faults: Vec<Problem>,
    key_is_open: Option<Problem>,
}

impl IdentityFiles {
    pub(super) fn new(certificate: PathBuf, key: PathBuf) -> Self {
        Self {
            certificate,
            key,
            digest: None,
            good_digest: None,
            good: None,
            faults: Vec::new(),
            key_is_open: None,
        }
    }

    /// The last pair that was good.
    pub(super) fn good(&self) -> Option<&Arc<ServerIdentity>> {
        self.good.as_ref()
    }

    /// What is wrong with them.
    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.faults.iter().chain(&self.key_is_open)
    }

    /// Reads both files. What does not load, or does not belong together, changes nothing.
    pub(super) fn read(&mut self, provider: &CryptoProvider) {
        self.key_is_open = self.open_key();
        let mut faults = Vec::new();
        let mut contents = Vec::new();
        for path in [&self.certificate, &self.key] {
            let read = fs::metadata(path).and_then(|metadata| read_regular(path, &metadata));
            match read {
                Ok(bytes) if bytes.len() as u64 > LARGEST => {
                    let fault = PemError::whole(PemErrorKind::TooLarge);
                    faults.push(Problem::in_pem(path, &fault));
                }
                Ok(bytes) => contents.push(bytes),
                Err(error) => faults.push(Problem::unreadable(path, &error)),
            }
        }
        let [certificate, key] = contents.as_slice() else {
            self.faults = faults;
            self.digest = None;
            return;
        };
        let digests = [Fingerprint::of(certificate), Fingerprint::of(key)];
        let digest = Some(Fingerprint::of(&digests.map(|digest| *digest.as_bytes()).concat()));
        if self.digest == digest {
            return;
        }
        self.digest = digest;
        match self.load(certificate, key, provider) {
            Ok(identity) => {
                self.faults.clear();
                // The same pair may have been away for a while.
                if self.good_digest != digest {
                    self.good = Some(Arc::new(identity));
                    self.good_digest = digest;
                }
            }
            Err(faults) => self.faults = faults,
        }
    }

    /// Whether everybody on this machine can read the key. A group that can is somebody's choice.
    fn open_key(&self) -> Option<Problem> {
        const OTHERS_READ: u32 = 0o004;
        let mode = fs::metadata(&self.key).ok()?.permissions().mode() & 0o7777;
        (mode & OTHERS_READ != 0).then(|| {
            let problem = format!("every user of this machine can read the key (mode {mode:04o})");
            Problem::warning(&self.key, problem, "chmod o= on it")
        })
    }

    fn load(
        &self,
        certificate: &[u8],
        key: &[u8],
        provider: &CryptoProvider,
    ) -> Result<ServerIdentity, Vec<Problem>> {
        let in_certificate =
            |fault: &PemError| Problem::in_server_pem(&self.certificate, fault, false);
        let in_key = |fault: &PemError| Problem::in_server_pem(&self.key, fault, true);
        let chain = pem::chain(certificate)
            .map_err(|faults| faults.iter().map(in_certificate).collect::<Vec<_>>());
        let key =
            pem::private_key(key).map_err(|faults| faults.iter().map(in_key).collect::<Vec<_>>());
        let (chain, key) = match (chain, key) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => {
                let faults = [chain.err(), key.err()].into_iter().flatten().flatten();
                return Err(faults.collect());
            }
        };
        let chain: Vec<CertificateDer<'static>> = chain.into_iter().map(|(_, der)| der).collect();
        let summary = chain.first().and_then(Summary::of).ok_or_else(|| {
            let problem = "its first certificate cannot be parsed";
            vec![Problem::fault(&self.certificate, problem, "get it again from its issuer")]
        })?;
        let key = provider.key_provider.load_private_key(key).map_err(|_| {
            let remedy = "use an RSA (2048 bits or more), ECDSA P-256, P-384, P-521 or Ed25519 key";
            vec![Problem::fault(&self.key, "the private key is of no kind that can sign", remedy)]
        })?;
        let certified_key = CertifiedKey::new(chain, key);
        match certified_key.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => {
                let problem =
                    format!("the key in {} is not this certificate's", self.key.display());
                let remedy =
                    "put the certificate first in its file, and its own key into the other";
                return Err(vec![Problem::fault(&self.certificate, problem, remedy)]);
            }
            Err(error) => {
                let problem = format!("its first certificate cannot be used: {error}");
                let remedy = "get it again from its issuer";
                return Err(vec![Problem::fault(&self.certificate, problem, remedy)]);
            }
        }
        Ok(ServerIdentity { certified_key: Arc::new(certified_key), summary })
    }
}
