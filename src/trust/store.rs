//! The certificates that one generation trusts.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use rustls::DistinguishedName;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, UnixTime};

use super::chain::Anchors;
use super::fingerprint::Fingerprint;
use super::identity::{ClientIdentity, Origin};
use super::loaded::{LoadedCertificate, Role};
use super::nearest::{Nearest, NearestIndex};
use super::presented::PresentedCertificate;
use super::reason::{Reason, VerifyError};
use super::usage::UsageCounters;
use super::validity::{Validity, ValidityState, unix_time};

/// When the last pinned certificate ends, and when the last trust anchor does.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LatestEnds {
    pin: Option<UnixTime>,
    anchor: Option<UnixTime>,
}

impl LatestEnds {
    pub(crate) fn of<'a>(certificates: impl Iterator<Item = &'a LoadedCertificate>) -> Self {
        let mut ends = Self::default();
        for loaded in certificates {
            let end = Some(loaded.certificate.validity().not_after);
            let latest = match loaded.role {
                Role::Pin => &mut ends.pin,
                Role::Anchor => &mut ends.anchor,
            };
            *latest = (*latest).max(end);
        }
        ends
    }

    /// True if another certificate of the role ends later than this one.
    pub(crate) fn has_successor(self, role: Role, validity: Validity) -> bool {
        let latest = match role {
            Role::Pin => self.pin,
            Role::Anchor => self.anchor,
        };
        Some(validity.not_after) < latest
    }
}

/// Above this size the list of hints is left out: clients fail on longer ones.
const MAX_HINTS_SIZE: usize = 16 * 1024;

/// The certificates that decide which clients are accepted. A store never changes: a change of the
/// trusted certificates makes a new one.
///
/// The server makes its own from the trust files. An application with an accept loop of its own
/// makes one by [`TrustStore::builder`], for a
/// [`PinnedClientVerifier`](crate::PinnedClientVerifier) and [`TrustStore::identify`].
#[derive(Debug)]
pub struct TrustStore {
    /// Each certificate once in each role, in the order of the files.
    certificates: Vec<LoadedCertificate>,
    /// By their whole DER.
    pins: HashMap<Box<[u8]>, ClientIdentity>,
    anchors: Anchors,
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
    counts: HashMap<(Role, Fingerprint), Arc<UsageCounters>>,
    /// Built when the first rejection needs it.
    nearest: OnceLock<NearestIndex>,
}

impl TrustStore {
    /// Builds the store of these certificates. A certificate that is given twice in one role
    /// counts once, for the first file that holds it. An anchor that webpki cannot use is left
    /// out. The counters of a certificate that was in the store `before` continue.
    pub(crate) fn new(
        before: Option<&Self>,
        loaded: impl IntoIterator<Item = LoadedCertificate>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        let mut store = Self {
            certificates: Vec::new(),
            pins: HashMap::new(),
            anchors: Anchors::default(),
            hints: Vec::new(),
            algorithms,
            counts: HashMap::new(),
            nearest: OnceLock::new(),
        };
        let mut hints = BTreeSet::new();
        for loaded in loaded {
            let (certificate, key) = (&loaded.certificate, loaded.key());
            if store.counts.contains_key(&key) {
                continue;
            }
            let known = before.and_then(|before| before.counts.get(&key)).cloned();
            let counts = known.unwrap_or_else(|| Arc::new(UsageCounters::new(before.is_none())));
            match loaded.role {
                Role::Pin => {
                    hints.insert(certificate.issuer_der().to_vec());
                    let identity = ClientIdentity::new(
                        Arc::clone(certificate),
                        certificate.validity(),
                        Origin::Pin,
                        Arc::clone(&loaded.file),
                        Arc::clone(&counts),
                    );
                    store.pins.insert(Box::from(certificate.der().as_ref()), identity);
                }
                Role::Anchor => {
                    if !store.anchors.add(&loaded) {
                        continue;
                    }
                    hints.insert(certificate.subject_der().to_vec());
                }
            }
            store.counts.insert(key, counts);
            store.certificates.push(loaded);
        }
        // A length of two bytes precedes each name.
        if hints.iter().map(|name| name.len() + 2).sum::<usize>() <= MAX_HINTS_SIZE {
            store.hints = hints.into_iter().map(DistinguishedName::from).collect();
        }
        store
    }

    /// True if the store was built from exactly these certificates, each the same allocation: equal
    /// ones that were parsed again count as different.
    pub(crate) fn consists_of(&self, mut loaded: impl Iterator<Item = LoadedCertificate>) -> bool {
        let is_same = |own: &LoadedCertificate, other: &LoadedCertificate| {
            Arc::ptr_eq(&own.certificate, &other.certificate)
                && own.role == other.role
                && own.file.as_os_str() == other.file.as_os_str()
        };
        let mut own = self.certificates.iter();
        loaded.all(|other| own.next().is_some_and(|own| is_same(own, &other)))
            && own.next().is_none()
    }

    /// Every trusted certificate, once in each role, in the order of the files.
    pub(crate) fn certificates(&self) -> &[LoadedCertificate] {
        &self.certificates
    }

    /// The counters of one of its certificates.
    pub(crate) fn counts(&self, role: Role, fingerprint: Fingerprint) -> Arc<UsageCounters> {
        self.counts.get(&(role, fingerprint)).cloned().unwrap_or_default()
    }

    /// The trusted certificate that is nearest to a rejected one.
    pub(crate) fn nearest(&self, presented: &PresentedCertificate) -> Option<Nearest> {
        let index = self.nearest.get_or_init(|| NearestIndex::of(&self.certificates));
        let (relation, at) = index.find(presented)?;
        Some(Nearest::trusted(relation, self.certificates.get(at)?))
    }

    /// True if at least one certificate is valid at `now`.
    pub(crate) fn is_usable(&self, now: UnixTime) -> bool {
        self.certificates.iter().any(|loaded| loaded.certificate.validity().contains(now))
    }

    /// The names for CertificateRequest. A Java client, such as API Gateway's, sends no certificate
    /// if names are given and none is its issuer.
    pub(crate) fn hints(&self) -> &[DistinguishedName] {
        &self.hints
    }

    pub(crate) fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.algorithms
    }

    pub(crate) fn pin(&self, der: &CertificateDer<'_>) -> Option<&ClientIdentity> {
        self.pins.get(der.as_ref())
    }

    /// Decides whether the client that holds the key of `end_entity` is accepted at `now`.
    ///
    /// # Errors
    /// The reason, and the error whose TLS alert fits it.
    pub(crate) fn admit(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientIdentity, VerifyError> {
        match self.pin(end_entity) {
            Some(identity) => match identity.validity().at(now) {
                ValidityState::Valid(_) => Ok(identity.clone()),
                ValidityState::Expired(_) => Err(VerifyError::EXPIRED),
                ValidityState::NotYetValid(_) => Err(VerifyError::NOT_YET_VALID),
            },
            None if self.anchors.is_empty() => Err(VerifyError::UNKNOWN),
            None => self.admit_chain(end_entity, intermediates, now),
        }
    }

    fn admit_chain(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientIdentity, VerifyError> {
        let chain = self.anchors.verify(end_entity, intermediates, &self.algorithms, now)?;
        let anchor = chain.anchor.certificate.summary().fingerprint;
        let origin = Origin::Chain {
            anchor,
            intermediates: intermediates.iter().map(|der| der.clone().into_owned()).collect(),
        };
        Ok(ClientIdentity::new(
            Arc::new(chain.end_entity),
            chain.validity,
            origin,
            Arc::clone(&chain.anchor.file),
            self.counts(Role::Anchor, anchor),
        ))
    }

    /// Looks up whether a client that has proved possession of this certificate's key (DER) is
    /// accepted now.
    ///
    /// rustls asks no verifier when a session is resumed, and no verifier ends a live connection.
    /// Call this after each handshake, and before each request, with the newest store.
    ///
    /// # Errors
    /// The reason why the client is rejected.
    pub fn identify(&self, der: &[u8]) -> Result<ClientIdentity, Reason> {
        self.identify_chain(&[CertificateDer::from(der)], SystemTime::now())
    }

    /// As [`TrustStore::identify`], for a chain as `peer_certificates()` of a rustls connection has
    /// it, and at any time.
    ///
    /// # Errors
    /// The reason why the client is rejected.
    pub fn identify_chain(
        &self,
        chain: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<ClientIdentity, Reason> {
        let (end_entity, intermediates) = chain.split_first().ok_or(Reason::NoCertificate)?;
        self.admit(end_entity, intermediates, unix_time(now)).map_err(|error| error.reason)
    }
}
