//! Everything that a new connection needs, built together and replaced as one.

use std::collections::HashSet;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::UnixTime;
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert, StoresServerSessions};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{ServerConfig, crypto};

use crate::clock::Clock;
use crate::reload::identity::ServerIdentity;
use crate::reload::probe::probe_rejects_anonymous_client;
use crate::trust::{Fingerprint, LoadedCertificate, PinnedClientVerifier, Role, TrustStore};

/// One immutable state of everything that is loaded. A connection takes one and keeps it.
#[derive(Debug)]
pub(crate) struct Generation {
    /// 1 at start, one more at each change.
    pub(crate) number: u64,
    pub(crate) store: Arc<TrustStore>,
    /// `None` until the first pair has been issued: every handshake is rejected.
    pub(crate) identity: Option<Arc<ServerIdentity>>,
    pub(crate) tls: Arc<ServerConfig>,
    /// The certificates that were valid when it was made.
    pub(super) active: HashSet<(Role, Fingerprint)>,
}

/// Builds generations from the parts that all of them share.
#[derive(Debug)]
pub(super) struct GenerationBuilder {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) clock: Arc<dyn Clock>,
}

/// The wall clock behind the interface of rustls.
#[derive(Debug)]
pub(super) struct Time(pub(super) Arc<dyn Clock>);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(crate::clock::unix_now(self.0.as_ref()))
    }
}

/// Presents nothing, so that no handshake succeeds.
#[derive(Debug)]
struct NoServerCertificate;

impl ResolvesServerCert for NoServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

impl GenerationBuilder {
    /// Builds a generation, and probes that it rejects a client without a certificate. Sessions of
    /// `resumable` can be resumed in it: only its predecessor, and only if no certificate was
    /// removed, because rustls calls no verifier when a session is resumed.
    pub(super) fn make(
        &self,
        number: u64,
        store: Arc<TrustStore>,
        identity: Option<Arc<ServerIdentity>>,
        resumable: Option<&Generation>,
    ) -> Result<Generation, rustls::Error> {
        let now = crate::clock::unix_now(self.clock.as_ref());
        let time = Arc::new(Time(Arc::clone(&self.clock)));
        let provider = Arc::clone(&self.provider);
        let resolver: Arc<dyn ResolvesServerCert> = match &identity {
            Some(identity) => Arc::new(SingleCertAndKey::from(Arc::clone(&identity.certified_key))),
            None => Arc::new(NoServerCertificate),
        };
        let mut tls = ServerConfig::builder_with_details(provider, time)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(PinnedClientVerifier::new(Arc::clone(&store))))
            .with_cert_resolver(resolver);
        // The provider's order of cipher suites counts, not the client's.
        tls.ignore_client_order = true;
        // rustls sends two by default, which cost twice, and most are never used.
        tls.send_tls13_tickets = 1;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let (ticketer, sessions): (Arc<dyn ProducesTickets>, Arc<dyn StoresServerSessions>) =
            match resumable {
                Some(before) => {
                    (Arc::clone(&before.tls.ticketer), Arc::clone(&before.tls.session_storage))
                }
                None => (crypto::aws_lc_rs::Ticketer::new()?, Arc::clone(&tls.session_storage)),
            };
        tls.ticketer = ticketer;
        tls.session_storage = sessions;
        let tls = Arc::new(tls);
        if identity.is_some() {
            probe_rejects_anonymous_client(&tls, &self.provider)
                .map_err(|probe_error| rustls::Error::General(probe_error.to_string()))?;
        }
        let active = active(&store, now);
        Ok(Generation { number, store, identity, tls, active })
    }
}

/// The certificates of a store that are valid at `now`.
pub(super) fn active(store: &TrustStore, now: UnixTime) -> HashSet<(Role, Fingerprint)> {
    let certificates = store.certificates().iter();
    certificates
        .filter(|loaded| loaded.certificate.validity().contains(now))
        .map(LoadedCertificate::key)
        .collect()
}
