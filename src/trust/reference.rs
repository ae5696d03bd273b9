//! The store against a reference model: a list that is searched from end to end.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, UnixTime};

use super::{Certificate, LoadedCertificate, Reason, Role, TrustStore};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// 2024-01-01.
const BEGIN: Duration = Duration::from_secs(1_704_067_200);

/// A certificate. All have one name, as subject and as issuer.
struct Made {
    certificate: Arc<Certificate>,
    /// The numbers of its key and of its issuer's key.
    key: usize,
    signer: usize,
    is_ca: bool,
    /// The first day on which it is valid, and the first on which it is expired.
    days: (u32, u32),
}

static ALL: LazyLock<Vec<Made>> = LazyLock::new(|| {
    let keys: Vec<_> = (0..5).map(|_| KeyPair::generate().unwrap()).collect();
    let made = |key: usize, signer: usize, is_ca: bool, days: (u32, u32)| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "ApiGateway");
        params.not_before = date_time_ymd(2024, 1, 1) + days.0 * DAY;
        params.not_after = date_time_ymd(2024, 1, 1) + days.1 * DAY;
        if is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let issuer = Issuer::from_params(&params, &keys[signer]);
        let der = params.signed_by(&keys[key], &issuer).unwrap().der().to_vec();
        let certificate = Arc::new(Certificate::parse(CertificateDer::from(der)).unwrap());
        Made { certificate, key, signer, is_ca, days }
    };
    vec![
        // Two of one key, and one of another.
        made(0, 0, false, (2, 6)),
        made(0, 0, false, (4, 8)),
        made(1, 1, false, (0, 10)),
        // A CA, and an intermediate.
        made(2, 2, true, (1, 9)),
        made(INTERMEDIATE_KEY, 2, true, (2, 7)),
        // Issued by these, and by the key of the first.
        made(4, 2, false, (3, 8)),
        made(4, INTERMEDIATE_KEY, false, (0, 10)),
        made(4, 0, false, (0, 10)),
    ]
});

const INTERMEDIATE: usize = 4;
const INTERMEDIATE_KEY: usize = 3;

fn is_valid(index: usize, day: u32) -> bool {
    (ALL[index].days.0..ALL[index].days.1).contains(&day)
}

/// The trusted certificates, in order.
type Trusted = Vec<(Role, usize)>;

/// True if a certificate signed by this key has a valid path to an anchor.
fn leads_to_anchor(trusted: &Trusted, signer: usize, day: u32) -> bool {
    let mut anchors = trusted.iter().filter(|(role, _)| *role == Role::Anchor);
    let is_issuer = |index: usize| ALL[index].key == signer && is_valid(index, day);
    anchors.any(|(_, index)| is_issuer(*index))
        || is_issuer(INTERMEDIATE)
            && signer != ALL[INTERMEDIATE].signer
            && leads_to_anchor(trusted, ALL[INTERMEDIATE].signer, day)
}

/// Decides by the documented rules. The reason is known for pins and unknown certificates.
fn judge(trusted: &Trusted, index: usize, day: u32) -> Result<(), Option<Reason>> {
    let made = &ALL[index];
    let has_anchors = trusted.iter().any(|(role, _)| *role == Role::Anchor);
    if trusted.contains(&(Role::Pin, index)) {
        return match day {
            day if day >= made.days.1 => Err(Some(Reason::Expired)),
            day if day < made.days.0 => Err(Some(Reason::NotYetValid)),
            _ => Ok(()),
        };
    }
    if !has_anchors || trusted.contains(&(Role::Anchor, index)) {
        return Err(Some(Reason::UnknownCertificate));
    }
    let holds = !made.is_ca && is_valid(index, day) && leads_to_anchor(trusted, made.signer, day);
    if holds { Ok(()) } else { Err(None) }
}

fn store(before: Option<&TrustStore>, trusted: &Trusted) -> TrustStore {
    let file: Arc<Path> = Path::new("a.pem").into();
    let loaded = trusted.iter().map(|(role, index)| LoadedCertificate {
        role: *role,
        certificate: Arc::clone(&ALL[*index].certificate),
        file: Arc::clone(&file),
    });
    TrustStore::new(before, loaded, default_provider().signature_verification_algorithms)
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Add(Role, usize),
    Remove(Role, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let role = prop_oneof![Just(Role::Pin), Just(Role::Anchor)];
    (any::<bool>(), role, 0..8_usize).prop_map(|(adds, role, index)| match adds {
        true => Step::Add(role, index),
        false => Step::Remove(role, index),
    })
}

proptest! {
    #[test]
    fn store_decides_as_the_reference_model_does(
        steps in proptest::collection::vec((step(), 0..11_u32), 1..16)
    ) {
        let mut trusted = Trusted::new();
        let mut before = None;
        for (step, day) in steps {
            match step {
                Step::Add(role, index) => trusted.push((role, index)),
                Step::Remove(role, index) => trusted.retain(|other| *other != (role, index)),
            }
            let store = store(before.as_ref(), &trusted);
            let now = UnixTime::since_unix_epoch(BEGIN + day * DAY);
            for (index, made) in ALL.iter().enumerate() {
                let intermediates = [ALL[INTERMEDIATE].certificate.der().clone()];
                let result = store.admit(made.certificate.der(), &intermediates, now);
                match (judge(&trusted, index, day), result) {
                    (Ok(()), Ok(identity)) => {
                        prop_assert_eq!(identity.der(), made.certificate.der().as_ref());
                        prop_assert!(identity.validity().contains(now));
                    }
                    (Err(None), Err(_)) => {}
                    (Err(Some(reason)), Err(error)) => prop_assert_eq!(reason, error.reason),
                    (expected, got) => prop_assert!(
                        false, "{} on day {} with {:?}: {:?}, and not {:?}", index, day, trusted, got, expected
                    ),
                }
            }
            let mut once = Trusted::new();
            for one in &trusted {
                if !once.contains(one) {
                    once.push(*one);
                }
            }
            let fingerprint = |index: usize| ALL[index].certificate.summary().fingerprint;
            let expected: Vec<_> =
                once.iter().map(|(role, index)| (*role, fingerprint(*index))).collect();
            let listed: Vec<_> = store
                .certificates()
                .iter()
                .map(|loaded| (loaded.role, loaded.certificate.summary().fingerprint))
                .collect();
            prop_assert_eq!(listed, expected);
            let is_usable = once.iter().any(|(_, index)| is_valid(*index, day));
            prop_assert_eq!(store.is_usable(now), is_usable);
            let names: BTreeSet<_> = store.hints().iter().map(|name| name.as_ref()).collect();
            prop_assert_eq!(names.len(), usize::from(!trusted.is_empty()), "they have one name");
            before = Some(store);
        }
    }
}
