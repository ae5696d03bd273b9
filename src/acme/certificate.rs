//! Properties of a certificate: its names, its ACME identifier, and whether an issued one may
//! replace the active one.

use std::path::Path;

use instant_acme::CertificateIdentifier;
use rustls::pki_types::{CertificateDer, Der, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;
use x509_cert::Certificate as X509;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::AuthorityKeyIdentifier;

use super::failure::{Failure, Step};
use super::order::Issued;
use crate::reload::{self, INCOMPLETE_CHAIN};
use crate::server::provider;
use crate::trust::{Summary, pem, rfc3339};

/// The given names that a certificate covers.
pub(super) fn covered<'a>(leaf: &CertificateDer<'_>, names: &'a [String]) -> Vec<&'a str> {
    let Ok(certificate) = EndEntityCert::try_from(leaf) else { return Vec::new() };
    let is_for = |name: &&str| {
        ServerName::try_from(*name)
            .is_ok_and(|name| certificate.verify_is_valid_for_subject_name(&name).is_ok())
    };
    names.iter().map(String::as_str).filter(is_for).collect()
}

/// The DNS names that a certificate is for.
pub(super) fn names(leaf: &CertificateDer<'_>) -> Vec<String> {
    let certificate = EndEntityCert::try_from(leaf);
    certificate.map_or_else(|_| Vec::new(), |it| it.valid_dns_names().map(str::to_owned).collect())
}

/// The identifier of a certificate in renewal information (RFC 9773, 4.1); `None` if it has none.
pub(super) fn identifier(leaf: &CertificateDer<'_>) -> Option<CertificateIdentifier<'static>> {
    let certificate = X509::from_der(leaf).ok()?;
    let certificate = certificate.tbs_certificate();
    let (_, authority) = certificate.get_extension::<AuthorityKeyIdentifier>().ok()??;
    let authority = authority.key_identifier?;
    // As DER encodes a positive number: with a zero byte before a first bit that is set.
    let mut serial = certificate.serial_number().as_bytes().to_vec();
    if serial.first().is_none_or(|first| first & 0x80 != 0) {
        serial.insert(0, 0);
    }
    let authority = Der::from_slice(authority.as_bytes());
    Some(CertificateIdentifier::new(authority, Der::from_slice(&serial)).into_owned())
}

/// Judges an issued certificate as `portcullis check` does, and returns its summary. A worse chain
/// must not replace the active one. `file` is where it would be stored.
pub(super) fn check(
    issued: &Issued,
    names: &[String],
    active: Option<&[CertificateDer<'static>]>,
    file: &Path,
    now: UnixTime,
) -> Result<Summary, Failure> {
    let failure = |detail: String| Failure::new(Step::Check, format!("what was issued {detail}"));
    let chain = pem::chain(issued.chain.as_bytes()).map_err(|errors| {
        let error = errors.first().map(|error| error.kind.to_string());
        failure(format!("is no PEM chain: {}", error.unwrap_or_default()))
    })?;
    let chain: Vec<_> = chain.into_iter().map(|(_, der)| der).collect();
    let summary = chain.first().and_then(Summary::of);
    let summary = summary.ok_or_else(|| failure("cannot be parsed".to_owned()))?;
    let key = pem::private_key(issued.key.as_bytes())
        .ok()
        .and_then(|key| provider().key_provider.load_private_key(key).ok())
        .ok_or_else(|| Failure::new(Step::Check, "the key that was made does not load"))?;
    if CertifiedKey::new(chain.clone(), key).keys_match().is_err() {
        return Err(failure("is for another key than the one of the request".to_owned()));
    }
    let validity = summary.validity;
    if !validity.contains(now) {
        let (from, until) = (rfc3339(validity.not_before), rfc3339(validity.not_after));
        return Err(failure(format!(
            "is valid from {from} until {until}, which is not now: set this machine's clock"
        )));
    }
    let judge = |chain: &[CertificateDer<'static>]| {
        let names: Vec<_> =
            names.iter().filter_map(|name| ServerName::try_from(name.as_str()).ok()).collect();
        let algorithms = provider().signature_verification_algorithms;
        let problems = reload::judge(file, chain, &names, &algorithms, now, false);
        problems.into_iter().map(|it| it.message).collect::<Vec<_>>()
    };
    let is_worse = |problem: &&String| {
        // Some private directories send no chain. That is used unless a complete one is active.
        *problem != INCOMPLETE_CHAIN || active.is_some_and(|active| judge(active).is_empty())
    };
    match judge(&chain).iter().find(is_worse) {
        Some(problem) => Err(failure(format!("is not used: {problem}"))),
        None => Ok(summary),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SerialNumber,
    };

    use super::*;

    const NAME: &str = "api.example";

    struct Ca(CertifiedIssuer<'static, KeyPair>);

    impl Ca {
        fn new() -> Self {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, "A CA");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
        }

        fn issue(&self, name: &str, serial: Option<&[u8]>) -> Issued {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new([name.to_owned()]).unwrap();
            params.use_authority_key_identifier_extension = true;
            params.serial_number = serial.map(SerialNumber::from_slice);
            let certificate = params.signed_by(&key, &*self.0).unwrap();
            let chain = format!("{}{}", certificate.pem(), self.0.pem());
            Issued { chain, key: key.serialize_pem() }
        }
    }

    fn ders(issued: &Issued) -> Vec<CertificateDer<'static>> {
        let chain = pem::chain(issued.chain.as_bytes()).unwrap();
        chain.into_iter().map(|(_, der)| der).collect()
    }

    fn judged(issued: &Issued, active: Option<&[CertificateDer<'static>]>) -> Result<(), String> {
        let names = [NAME.to_owned()];
        let now = UnixTime::now();
        let result = check(issued, &names, active, Path::new("pair.pem"), now);
        result.map(|_| ()).map_err(|failure| failure.detail)
    }

    #[test]
    fn issued_certificate_that_fits_is_used_and_one_for_another_name_is_not() {
        let ca = Ca::new();
        assert_eq!(judged(&ca.issue(NAME, None), None), Ok(()));
        let detail = judged(&ca.issue("other.example", None), None).unwrap_err();
        assert!(detail.contains("it is not for api.example"), "{detail}");
    }

    #[test]
    fn issued_certificate_for_another_key_is_not_used() {
        let ca = Ca::new();
        let key = ca.issue(NAME, None).key;
        let detail = judged(&Issued { key, ..ca.issue(NAME, None) }, None).unwrap_err();
        assert!(detail.contains("another key"), "{detail}");
    }

    #[test]
    fn issued_certificate_with_a_foreign_chain_is_not_used() {
        let (ca, other) = (Ca::new(), Ca::new());
        let Issued { chain, key } = ca.issue(NAME, None);
        let own = chain.replace(&ca.0.pem(), &other.0.pem());
        let detail = judged(&Issued { chain: own, key }, None).unwrap_err();
        assert!(detail.contains("its chain does not hold"), "{detail}");
    }

    #[test]
    fn issued_certificate_is_not_used_outside_its_validity_period() {
        let issued = Ca::new().issue(NAME, None);
        let names = [NAME.to_owned()];
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1));
        let failure = check(&issued, &names, None, Path::new("pair.pem"), at).unwrap_err();
        assert!(failure.detail.contains("set this machine's clock"), "{}", failure.detail);
    }

    #[test]
    fn chain_without_its_issuer_is_used_only_where_nothing_better_is_active() {
        let ca = Ca::new();
        let whole = ca.issue(NAME, None);
        let alone = Issued { chain: whole.chain.replace(&ca.0.pem(), ""), key: whole.key.clone() };
        assert_eq!(judged(&alone, None), Ok(()));
        assert_eq!(judged(&alone, Some(&ders(&alone))), Ok(()));
        assert!(judged(&alone, Some(&ders(&whole))).is_err());
    }

    #[test]
    fn names_are_covered_one_by_one() {
        let leaf = ders(&Ca::new().issue(NAME, None)).remove(0);
        let wanted = [NAME.to_owned(), "other.example".to_owned()];
        assert_eq!(covered(&leaf, &wanted), [NAME]);
        assert_eq!(names(&leaf), [NAME]);
    }

    #[test]
    fn certificate_is_named_by_its_authority_and_its_serial_number_as_encoded() {
        // The serial number of RFC 9773's example (4.1), whose first bit is set.
        let issued = Ca::new().issue(NAME, Some(&[0x87, 0x65, 0x43, 0x21]));
        let id = identifier(&ders(&issued)[0]).unwrap();
        assert_eq!(id.serial, "AIdlQyE");
        assert!(id.authority_key_identifier.len() >= 20);
        let issued = Ca::new().issue(NAME, Some(&[0x07, 0x65]));
        assert_eq!(identifier(&ders(&issued)[0]).unwrap().serial, "B2U");
    }
}
