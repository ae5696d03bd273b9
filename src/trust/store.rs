//! The certificates that are trusted, all of one generation.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::DistinguishedName;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::certificate::{Certificate, Fingerprint, Summary, issuer};
use super::identity::{ClientIdentity, Origin};
use super::nearest::{Index, Nearest};
use super::reason::{Reason, VerifyError};
use super::usage::UsageCounters;
use super::validity::{Validity, ValidityState};
use super::verifier::Presented;

/// What a trusted certificate is trusted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// To be presented by a client, itself.
    Pin,
    /// To have issued, through intermediates, what a client presents.
    Anchor,
}

impl Role {
    /// Its stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pin => "pin",
            Self::Anchor => "anchor",
        }
    }
}

/// A certificate with its role and the file that it was read from.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) role: Role,
    pub(crate) certificate: Arc<Certificate>,
    pub(crate) file: Arc<Path>,
}

/// When the last pinned certificate ends, and when the last trust anchor does.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LatestEnds {
    pin: Option<UnixTime>,
    anchor: Option<UnixTime>,
}

impl LatestEnds {
    /// True if another certificate of the role ends later than this one.
    pub(crate) fn has_successor(self, role: Role, validity: Validity) -> bool {
        let latest = match role {
            Role::Pin => self.pin,
            Role::Anchor => self.anchor,
        };
        Some(validity.not_after) < latest
    }
}

/// Whether a chain can be verified up to this certificate.
pub(crate) fn is_anchor(certificate: &Certificate) -> bool {
    webpki::anchor_from_trusted_cert(certificate.der()).is_ok()
}

/// Past this, the list of hints is left out: clients fail on longer ones.
const LONGEST_HINTS: usize = 16 * 1024;

/// Who is let in. Never changes: a change on disk makes a new one.
#[derive(Debug)]
pub(crate) struct TrustStore {
    /// Each certificate once, in the order of the files.
    certificates: Vec<Loaded>,
    /// By their DER, every byte of it.
    pins: HashMap<Box<[u8]>, ClientIdentity>,
    anchors: Vec<TrustAnchor<'static>>,
    /// Beside each of `anchors`, where it came from.
    anchor_certificates: Vec<Loaded>,
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
    counts: HashMap<(Role, Fingerprint), Arc<UsageCounters>>,
    /// Made when the first refusal asks for it.
    nearest: OnceLock<Index>,
}

impl TrustStore {
    /// The store of these certificates. A certificate that is given twice in one role counts once,
    /// for the first file that it is in. An anchor that webpki cannot take is left out. What is
    /// counted of a certificate that was in the store `before` goes on.
    pub(crate) fn new(
        before: Option<&Self>,
        loaded: impl IntoIterator<Item = Loaded>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        let mut store = Self {
            certificates: Vec::new(),
            pins: HashMap::new(),
            anchors: Vec::new(),
            anchor_certificates: Vec::new(),
            hints: Vec::new(),
            algorithms,
            counts: HashMap::new(),
            nearest: OnceLock::new(),
        };
        let mut hints = BTreeSet::new();
        let mut anchors = BTreeSet::new();
        for loaded in loaded {
            let certificate = &loaded.certificate;
            let key = (loaded.role, certificate.summary().fingerprint);
            let known = before.and_then(|before| before.counts.get(&key)).cloned();
            let counts = known.unwrap_or_else(|| Arc::new(UsageCounters::new(before.is_none())));
            match loaded.role {
                Role::Pin => {
                    if store.pins.contains_key(certificate.der().as_ref()) {
                        continue;
                    }
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
                    let Ok(anchor) = webpki::anchor_from_trusted_cert(certificate.der()) else {
                        continue;
                    };
                    if !anchors.insert(certificate.summary().fingerprint) {
                        continue;
                    }
                    hints.insert(certificate.subject_der().to_vec());
                    store.anchors.push(anchor.to_owned());
                    store.anchor_certificates.push(loaded.clone());
                }
            }
            store.counts.insert(key, counts);
            store.certificates.push(loaded);
        }
        // Each name travels behind a length of two octets.
        if hints.iter().map(|name| name.len() + 2).sum::<usize>() <= LONGEST_HINTS {
            store.hints = hints.into_iter().map(DistinguishedName::from).collect();
        }
        store
    }

    /// Whether these are its certificates, one by one, as they were when it was made. Of the same
    /// ones, read again, it does not know that.
    pub(crate) fn consists_of(&self, mut loaded: impl Iterator<Item = Loaded>) -> bool {
        let is_same = |own: &Loaded, other: &Loaded| {
            Arc::ptr_eq(&own.certificate, &other.certificate)
                && own.role == other.role
                && own.file.as_os_str() == other.file.as_os_str()
        };
        let mut own = self.certificates.iter();
        loaded.all(|other| own.next().is_some_and(|own| is_same(own, &other)))
            && own.next().is_none()
    }

    /// Every trusted certificate, once in each role, in the order of the files.
    pub(crate) fn certificates(&self) -> &[Loaded] {
        &self.certificates
    }

    /// What has been counted of one of its certificates.
    pub(crate) fn counts(&self, role: Role, fingerprint: Fingerprint) -> Arc<UsageCounters> {
        self.counts.get(&(role, fingerprint)).cloned().unwrap_or_default()
    }

    /// Which of its certificates is nearest to one that was refused.
    pub(crate) fn nearest(&self, presented: &Presented) -> Option<Nearest> {
        let index = self.nearest.get_or_init(|| Index::of(&self.certificates));
        let (relation, at) = index.find(presented)?;
        let loaded = self.certificates.get(at)?;
        Some(Nearest {
            relation,
            fingerprint: loaded.certificate.summary().fingerprint,
            file: loaded.file.to_path_buf(),
            removed_at: None,
        })
    }

    /// For each role, when its last certificate ends. What ends earlier has a successor.
    pub(crate) fn latest_ends(&self) -> LatestEnds {
        let mut ends = LatestEnds::default();
        for loaded in &self.certificates {
            let end = Some(loaded.certificate.validity().not_after);
            let latest = match loaded.role {
                Role::Pin => &mut ends.pin,
                Role::Anchor => &mut ends.anchor,
            };
            *latest = (*latest).max(end);
        }
        ends
    }

    /// Whether a certificate is in its dates now that can let a client in.
    pub(crate) fn is_usable(&self, now: UnixTime) -> bool {
        self.certificates.iter().any(|loaded| loaded.certificate.validity().contains(now))
    }

    /// The names for CertificateRequest. Java, as API Gateway's client is, sends nothing where
    /// they are given and exclude the issuer of what it has.
    pub(crate) fn hints(&self) -> &[DistinguishedName] {
        &self.hints
    }

    pub(crate) fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.algorithms
    }

    pub(crate) fn pin(&self, der: &CertificateDer<'_>) -> Option<&ClientIdentity> {
        self.pins.get(der.as_ref())
    }

    /// Whether a client that holds the key of `end_entity` is let in at `now`, and as whom.
    ///
    /// # Errors
    /// Why not, and the error whose alert says so.
    pub(crate) fn admit(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientIdentity, VerifyError> {
        match self.pin(end_entity) {
            Some(identity) => {
                check_validity(identity.validity(), now)?;
                Ok(identity.clone())
            }
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
        // webpki would let an anchor's own certificate in as an end entity: it needs no issuer.
        if self.anchor_certificates.iter().any(|anchor| anchor.certificate.der() == end_entity) {
            return Err(VerifyError::UNKNOWN);
        }
        // webpki judges a certificate before it looks for its issuer: what is said of a stranger's
        // is that it is unknown, and nothing about its dates or its purpose.
        let refuse = |error| match self.names_an_anchor(end_entity, intermediates) {
            true => VerifyError::of_chain(&error),
            false => VerifyError::UNKNOWN,
        };
        let leaf = EndEntityCert::try_from(end_entity).map_err(refuse)?;
        // webpki does not look at an anchor's own dates, and holds a certificate good in the second
        // in which it ends.
        let in_their_dates = |path: &VerifiedPath<'_>| {
            let validity = self.validity_of(end_entity, path).ok_or(webpki::Error::BadDer)?;
            let Validity { not_before, not_after } = validity;
            match check_validity(validity, now) {
                Ok(()) => Ok(()),
                Err(refusal) if refusal.reason == Reason::Expired => {
                    Err(webpki::Error::CertExpired { time: now, not_after })
                }
                Err(_) => Err(webpki::Error::CertNotValidYet { time: now, not_before }),
            }
        };
        let path = leaf
            .verify_for_usage(
                self.algorithms.all,
                &self.anchors,
                intermediates,
                now,
                KeyUsage::client_auth(),
                None,
                Some(&in_their_dates),
            )
            .map_err(refuse)?;
        let anchor = self.anchor_of(&path).ok_or(VerifyError::UNKNOWN)?;
        let certificate = Certificate::parse(end_entity.clone().into_owned())
            .map_err(|_| VerifyError::of_chain(&webpki::Error::BadDer))?;
        let validity = self.validity_of(end_entity, &path).ok_or(VerifyError::UNKNOWN)?;
        let origin = Origin::Chain {
            anchor: anchor.certificate.summary().fingerprint,
            intermediates: intermediates.iter().map(|der| der.clone().into_owned()).collect(),
        };
        let counts = self.counts(Role::Anchor, anchor.certificate.summary().fingerprint);
        let file = Arc::clone(&anchor.file);
        Ok(ClientIdentity::new(Arc::new(certificate), validity, origin, file, counts))
    }

    /// Whether the issuer of any of these is the subject of an anchor.
    fn names_an_anchor(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> bool {
        std::iter::once(end_entity).chain(intermediates).any(|der| {
            issuer(der).is_some_and(|issuer| {
                let mut anchors = self.anchor_certificates.iter();
                anchors.any(|anchor| anchor.certificate.subject_der() == issuer)
            })
        })
    }

    /// The time in which all certificates of a path are valid, its anchor's own included.
    fn validity_of(
        &self,
        end_entity: &CertificateDer<'_>,
        path: &VerifiedPath<'_>,
    ) -> Option<Validity> {
        let mut validity = self.anchor_of(path)?.certificate.validity();
        let mut narrow = |der: &CertificateDer<'_>| {
            validity = validity.and(Summary::of(der)?.validity);
            Some(())
        };
        narrow(end_entity)?;
        path.intermediate_certificates().try_for_each(|certificate| narrow(&certificate.der()))?;
        Some(validity)
    }

    fn anchor_of(&self, path: &VerifiedPath<'_>) -> Option<&Loaded> {
        let index = self.anchors.iter().position(|anchor| std::ptr::eq(anchor, path.anchor()))?;
        self.anchor_certificates.get(index)
    }
}

fn check_validity(validity: Validity, now: UnixTime) -> Result<(), VerifyError> {
    match validity.at(now) {
        ValidityState::Valid(_) => Ok(()),
        ValidityState::Expired(_) => Err(VerifyError::EXPIRED),
        ValidityState::NotYetValid(_) => Err(VerifyError::NOT_YET_VALID),
    }
}
