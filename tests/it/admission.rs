//! Which clients are accepted: promises 1, 2 and 4, over real sockets, TLS 1.2 and 1.3. Each
//! rejected client has a twin that differs in one thing and is accepted.

use std::time::{Duration, SystemTime};

use crate::support::pki::PKI;
use crate::support::shapes::{self, Shape, pem};
use crate::support::tls::{BOTH, Client, Connector, Server, Site, alert};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_ECDSA_P521_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize,
};
use rustls::{AlertDescription, HandshakeKind};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn key(algorithm: &'static rcgen::SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

fn p256() -> KeyPair {
    key(&PKCS_ECDSA_P256_SHA256)
}

/// Its signatures, and so its certificates, come out the same each time.
fn ed25519() -> KeyPair {
    key(&PKCS_ED25519)
}

async fn assert_accepted(server: &Server, client: &Client, what: &str) {
    for version in BOTH {
        let result = Connector::new(Some(client), version).ask(server.address).await;
        assert!(result.is_ok(), "{what}, {version:?}: {result:?}");
    }
}

async fn assert_rejected(
    server: &Server,
    client: Option<&Client>,
    with: AlertDescription,
    what: &str,
) {
    for version in BOTH {
        let result = Connector::new(client, version).ask(server.address).await;
        assert_eq!(alert(&result), Some(with), "{what}, {version:?}: {result:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pinned_certificate_is_accepted_whatever_its_key_and_extensions() {
    let rsa = |size| KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, size).unwrap();
    let keys = [
        ("RSA 2048", rsa(RsaKeySize::_2048)),
        ("RSA 3072", rsa(RsaKeySize::_3072)),
        ("RSA 4096", rsa(RsaKeySize::_4096)),
        ("P-256", p256()),
        ("P-384", key(&PKCS_ECDSA_P384_SHA384)),
        ("P-521", key(&PKCS_ECDSA_P521_SHA256)),
        ("Ed25519", key(&PKCS_ED25519)),
    ];
    let rsa = &keys[0].1;
    let with = |extensions| Shape { extensions, ..Shape::of(rsa) };
    let mut shapes: Vec<_> = keys.iter().map(|(what, key)| (*what, Shape::of(key))).collect();
    shapes.extend([
        ("CA:TRUE", with(&[shapes::CA_TRUE])),
        ("CA:FALSE", with(&[shapes::CA_FALSE])),
        ("serverAuth only", with(&[shapes::SERVER_AUTH])),
        ("keyCertSign only", with(&[shapes::KEY_CERT_SIGN])),
        ("unknown critical extension", with(&[shapes::UNKNOWN_CRITICAL])),
        ("SHA-1", Shape { signature: shapes::SHA1_RSA, ..Shape::of(rsa) }),
        ("SHA-512", Shape { signature: shapes::SHA512_RSA, ..Shape::of(rsa) }),
        ("PSS", Shape { signature: shapes::PSS, ..Shape::of(rsa) }),
        ("v1", Shape { is_v1: true, ..Shape::of(rsa) }),
        ("a serial number of nine bytes", Shape { serial: u64::MAX, ..Shape::of(rsa) }),
    ]);
    let site = Site::new();
    let pinned: Vec<_> =
        shapes.iter().map(|(what, shape)| (*what, shape.der(), shape.key)).collect();
    for (what, der, _) in &pinned {
        site.trust(&format!("{what}.pem"), &pem(der));
    }
    let server = site.serve();
    for (what, der, key) in &pinned {
        assert_accepted(&server, &Client::new(&[der], key), what).await;
    }

    assert_rejected(&server, None, AlertDescription::CertificateRequired, "no certificate").await;
    let other = p256();
    let stranger = Shape::of(&other).der();
    let unknown = AlertDescription::UnknownCA;
    assert_rejected(&server, Some(&Client::new(&[stranger], &other)), unknown, "a stranger").await;
    let issued = Shape { signer: Some(rsa), ..Shape::of(&other) }.der();
    let issued = Client::new(&[&issued, &pinned[0].1], &other);
    assert_rejected(&server, Some(&issued), unknown, "issued by the key of a pinned one").await;
    let again = Shape { serial: 7, ..Shape::of(rsa) }.der();
    let again = Client::new(&[again], rsa);
    assert_rejected(&server, Some(&again), unknown, "the same key in another certificate").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hybrid_ml_kem_is_offered_and_not_required() {
    use rustls::crypto::aws_lc_rs::kx_group::{SECP256R1, X25519, X25519MLKEM768};
    let key = ed25519();
    let certificate = Shape::of(&key).der();
    let site = Site::new();
    site.trust("it.pem", &pem(&certificate));
    let server = site.serve();
    let client = Client::new(&[certificate], &key);
    for group in [X25519MLKEM768, X25519, SECP256R1] {
        let connector = Connector::with_group(&client, group);
        connector.ask(server.address).await.unwrap_or_else(|error| panic!("{group:?}: {error}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_without_its_key_is_rejected() {
    let (mine, yours) = (ed25519(), ed25519());
    let site = Site::new();
    let certificate = Shape::of(&mine).der();
    site.trust("mine.pem", &pem(&certificate));
    let server = site.serve();
    assert_accepted(&server, &Client::new(&[&certificate], &mine), "with its key").await;
    let thief = Client::new(&[&certificate], &yours);
    assert_rejected(&server, Some(&thief), AlertDescription::DecryptError, "with another key")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn api_gateway_certificate_without_its_key_is_rejected() {
    let site = Site::new();
    site.trust("a.pem", &PKI.a.cert);
    let server = site.serve();
    let thief = Client::from_pem(&PKI.a.cert, &PKI.b.key);
    // Also when the key has been used before.
    for _ in 0..2 {
        assert_accepted(&server, &Client::from_pem(&PKI.a.cert, &PKI.a.key), "with its key").await;
        assert_rejected(&server, Some(&thief), AlertDescription::DecryptError, "with another key")
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_certificates_of_one_subject_are_accepted() {
    let keys = [ed25519(), ed25519()];
    let certificate =
        |serial: usize| Shape { serial: serial as u64, ..Shape::of(&keys[serial % 2]) }.der();
    let site = Site::new();
    for file in 0..4 {
        let text: String =
            (file * 500..(file + 1) * 500).map(|serial| pem(&certificate(serial))).collect();
        site.trust(&format!("{file}.pem"), &text);
    }
    let server = site.serve();
    for serial in [0, 1, 999, 1000, 1998, 1999] {
        assert_accepted(
            &server,
            &Client::new(&[certificate(serial)], &keys[serial % 2]),
            "one of them",
        )
        .await;
    }
    let other = Client::new(&[certificate(2000)], &keys[0]);
    assert_rejected(&server, Some(&other), AlertDescription::UnknownCA, "one more").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_is_accepted_within_its_validity_period_without_a_reload() {
    let key = ed25519();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let shape = Shape { from: now, until: now + 365 * DAY, ..Shape::of(&key) };
    let client = Client::new(&[shape.der()], &key);
    let always =
        Shape { serial: 1, from: now - 365 * DAY, until: now + 800 * DAY, ..Shape::of(&key) };
    let site = Site::new();
    site.trust("it.pem", &pem(&shape.der()));
    site.trust("always.pem", &pem(&always.der()));
    let second = Duration::from_secs(1);
    site.clock.set(now - second);
    let server = site.serve();
    let ended = AlertDescription::CertificateExpired;
    assert_rejected(&server, Some(&client), ended, "a second before its time").await;
    site.clock.set(now);
    assert_accepted(&server, &client, "from then on").await;
    site.clock.set(now + 365 * DAY - second);
    assert_accepted(&server, &client, "in its last second").await;
    site.clock.set(now + 365 * DAY);
    assert_rejected(&server, Some(&client), ended, "at its end").await;
    assert_accepted(&server, &Client::new(&[always.der()], &key), "its neighbour").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn session_is_not_resumed_after_not_after() {
    let key = ed25519();
    let shape = Shape::of(&key);
    let site = Site::new();
    site.trust("it.pem", &pem(&shape.der()));
    let other = Shape { serial: 9, until: shape.until + 365 * DAY, ..Shape::of(&key) };
    site.trust("other.pem", &pem(&other.der()));
    let server = site.serve();
    for version in BOTH {
        let connector = Connector::new(Some(&Client::new(&[shape.der()], &key)), version);
        assert_eq!(connector.ask(server.address).await.unwrap().1, HandshakeKind::Full);
        assert_eq!(connector.ask(server.address).await.unwrap().1, HandshakeKind::Resumed);
        site.clock.set(shape.until);
        let result = connector.ask(server.address).await;
        assert!(result.is_err(), "{version:?}: {result:?}");
        site.clock.set(SystemTime::now());
        server
            .until(&Connector::new(Some(&Client::new(&[shape.der()], &key)), version), true)
            .await;
    }
}

/// A CA, what it issues, and what else is needed to try it.
struct Ca {
    root: CertifiedIssuer<'static, KeyPair>,
    intermediates: Vec<CertifiedIssuer<'static, KeyPair>>,
}

impl Ca {
    fn new(name: &str, intermediates: usize) -> Self {
        let params = |name: String| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            params
        };
        let root = CertifiedIssuer::self_signed(params(format!("{name} root")), p256()).unwrap();
        let mut ca = Self { root, intermediates: Vec::new() };
        for number in 0..intermediates {
            let issuer = ca.intermediates.last().unwrap_or(&ca.root);
            let params = params(format!("{name} {number}"));
            let next = CertifiedIssuer::signed_by(params, p256(), issuer).unwrap();
            ca.intermediates.push(next);
        }
        ca
    }

    /// A leaf with its chain, its own first.
    fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> (Client, Vec<Vec<u8>>) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "client");
        params.not_before = (SystemTime::now() - DAY).into();
        params.not_after = (SystemTime::now() + 30 * DAY).into();
        change(&mut params);
        let key = p256();
        let issuer = self.intermediates.last().unwrap_or(&self.root);
        let leaf = params.signed_by(&key, issuer).unwrap();
        let mut chain = vec![leaf.der().to_vec()];
        chain.extend(self.intermediates.iter().rev().map(|ca| ca.der().to_vec()));
        (Client::new(&chain, &key), chain)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn valid_client_chain_to_a_trust_anchor_is_accepted() {
    let unknown = AlertDescription::UnknownCA;
    let site = Site::new();
    let (ca, deep, foreign) = (Ca::new("one", 0), Ca::new("two", 4), Ca::new("foreign", 0));
    std::fs::create_dir(site.path("ca")).unwrap();
    std::fs::write(site.path("ca/one.pem"), ca.root.pem()).unwrap();
    std::fs::write(site.path("ca/two.pem"), deep.root.pem()).unwrap();
    let server = Server::start(site.config().trust_ca(site.path("ca")));

    assert_accepted(&server, &ca.issue(|_| ()).0, "no EKU").await;
    let usages = |usages: &[ExtendedKeyUsagePurpose]| {
        let usages = usages.to_vec();
        move |params: &mut CertificateParams| params.extended_key_usages = usages
    };
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    assert_accepted(&server, &ca.issue(usages(&[ClientAuth])).0, "clientAuth").await;
    assert_accepted(&server, &ca.issue(usages(&[ServerAuth, ClientAuth])).0, "both").await;
    let purpose = AlertDescription::UnsupportedCertificate;
    assert_rejected(&server, Some(&ca.issue(usages(&[ServerAuth])).0), purpose, "serverAuth only")
        .await;

    let (five, chain) = deep.issue(|_| ());
    assert_eq!(chain.len(), 5);
    assert_accepted(&server, &five, "five certificates").await;
    let key = p256();
    let leaf = CertificateParams::default();
    let leaf = leaf.signed_by(&key, deep.intermediates.last().unwrap()).unwrap();
    let short = Client::new(&[leaf.der().to_vec()], &key);
    assert_rejected(&server, Some(&short), unknown, "without its intermediates").await;
    assert_rejected(&server, Some(&foreign.issue(|_| ()).0), unknown, "of another CA").await;
    let anchor = Client::new(&[ca.root.der().to_vec()], ca.root.key());
    assert_rejected(&server, Some(&anchor), unknown, "the anchor itself").await;
    assert_rejected(&server, None, AlertDescription::CertificateRequired, "none").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pin_is_no_anchor_and_anchor_is_no_pin() {
    let site = Site::new();
    let ca = Ca::new("ca", 0);
    let anchor = Client::new(&[ca.root.der().to_vec()], ca.root.key());
    site.trust("ca.pem", &ca.root.pem());
    let pins = Server::start(site.config().trust(site.path("trust")));
    assert_accepted(&pins, &anchor, "the pin itself").await;
    let issued = ca.issue(|_| ()).0;
    assert_rejected(&pins, Some(&issued), AlertDescription::UnknownCA, "issued by it").await;
    let config = site.config().trust(site.path("trust")).trust_ca(site.path("trust"));
    let both = Server::start(config);
    assert_accepted(&both, &anchor, "the pin, which is an anchor too").await;
    assert_accepted(&both, &issued, "issued by the anchor").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stranger_beside_a_trust_anchor_is_unknown_certificate() {
    let key = key(&PKCS_RSA_SHA256);
    let with = |extensions| Shape { extensions, ..Shape::of(&key) };
    let ended = SystemTime::now() - DAY;
    let site = Site::new();
    std::fs::write(site.path("ca.pem"), Ca::new("ca", 0).root.pem()).unwrap();
    let server = Server::start(site.config().trust_ca(site.path("ca.pem")));
    for (what, shape) in [
        ("no extensions", Shape::of(&key)),
        ("CA:TRUE", with(&[shapes::CA_TRUE])),
        ("unknown critical extension", with(&[shapes::UNKNOWN_CRITICAL])),
        ("serverAuth only", with(&[shapes::SERVER_AUTH])),
        ("v1", Shape { is_v1: true, ..Shape::of(&key) }),
        ("ended", Shape { from: ended - DAY, until: ended, ..Shape::of(&key) }),
    ] {
        let client = Client::new(&[shape.der()], &key);
        assert_rejected(&server, Some(&client), AlertDescription::UnknownCA, what).await;
    }
    // Another CA of the same name.
    let namesake = Ca::new("ca", 0).issue(|_| ()).0;
    assert_rejected(&server, Some(&namesake), AlertDescription::UnknownCA, "of a namesake").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chain_ends_at_its_earliest_not_after_and_so_do_its_sessions() {
    let site = Site::new();
    let ca = Ca::new("ca", 1);
    std::fs::write(site.path("ca.pem"), ca.root.pem()).unwrap();
    let server = Server::start(site.config().trust_ca(site.path("ca.pem")));
    let (client, _) = ca.issue(|params| params.not_after = (SystemTime::now() + DAY).into());
    for version in BOTH {
        let connector = Connector::new(Some(&client), version);
        assert_eq!(connector.ask(server.address).await.unwrap().1, HandshakeKind::Full);
        assert_eq!(connector.ask(server.address).await.unwrap().1, HandshakeKind::Resumed);
        site.clock.set(SystemTime::now() + DAY);
        assert!(connector.ask(server.address).await.is_err(), "{version:?}: resumed past its end");
        let result = Connector::new(Some(&client), version).ask(server.address).await;
        assert_eq!(alert(&result), Some(AlertDescription::CertificateExpired), "{version:?}");
        site.clock.set(SystemTime::now());
        assert_accepted(&server, &client, "before its end").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_issuer_is_hinted_once_and_none_above_16_kib() {
    let site = Site::new();
    for credential in [&PKI.a, &PKI.b, &PKI.other_subject] {
        site.trust(&format!("{}.pem", credential.name), &credential.cert);
    }
    std::fs::write(site.path("ca.pem"), Ca::new("hinted", 0).root.pem()).unwrap();
    let server =
        Server::start(site.config().trust(site.path("trust")).trust_ca(site.path("ca.pem")));
    let client = Client::from_pem(&PKI.a.cert, &PKI.a.key);
    for version in BOTH {
        let connector = Connector::new(Some(&client), version);
        connector.ask(server.address).await.unwrap();
        let hints = connector.hints();
        let has = |name: &str| {
            hints
                .iter()
                .filter(|hint| hint.windows(name.len()).any(|part| part == name.as_bytes()))
                .count()
        };
        assert_eq!(
            (hints.len(), has("ApiGateway"), has("hinted root"), has("SomebodyElse")),
            (3, 1, 1, 1)
        );
    }

    let key = p256();
    let many: String = (0..400)
        .map(|number| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, format!("{number:040}"));
            params.self_signed(&key).unwrap().pem()
        })
        .collect();
    site.trust("many.pem", &many);
    let server = site.serve();
    let connector = Connector::new(Some(&client), &rustls::version::TLS13);
    connector.ask(server.address).await.unwrap();
    assert_eq!(connector.hints().len(), 0);
}
