//! Certificates, made once a test run. Those of clients have the exact shape of API Gateway's:
//! X.509 v3 with the extensions absent, `C=US, L=Seattle, CN=ApiGateway` as subject and issuer in
//! printable strings, RSA-2048, a random 64-bit serial number, 365 days. The shape is the point:
//! with key identifiers in them, they would be distinguished by servers that fail at the real ones.

use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, DnValue, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, SerialNumber, date_time_ymd,
};

/// A certificate and its private key, both PEM.
pub struct Credential {
    pub name: &'static str,
    pub cert: String,
    pub key: String,
}

/// All that the tests need. Of each pair, one thing is different.
pub struct Pki {
    /// What clients trust: the issuer of `server`.
    pub root: String,
    /// The server's own, for `localhost` and `127.0.0.1`.
    pub server: Credential,
    pub a: Credential,
    /// Another key under the subject of `a`.
    pub b: Credential,
    /// One more, in no file until a test writes one.
    pub stranger: Credential,
    /// The key and subject of `a`, until yesterday.
    pub expired: Credential,
    /// The key and subject of `a`, from tomorrow.
    pub not_yet_valid: Credential,
    /// The key of `stranger`, `CN=SomebodyElse`.
    pub other_subject: Credential,
}

impl Pki {
    /// The certificates that clients present.
    pub fn clients(&self) -> [&Credential; 6] {
        let Self { a, b, stranger, expired, not_yet_valid, other_subject, .. } = self;
        [a, b, stranger, expired, not_yet_valid, other_subject]
    }
}

/// The one set of this process: RSA keys take their time.
pub static PKI: LazyLock<Pki> = LazyLock::new(|| {
    let [a, b, stranger] = rsa_keys();
    let server = another_server();
    Pki {
        root: ROOT.pem(),
        server,
        a: gateway_client("a", "ApiGateway", &a, -180),
        b: gateway_client("b", "ApiGateway", &b, -90),
        stranger: gateway_client("stranger", "ApiGateway", &stranger, -180),
        expired: gateway_client("expired", "ApiGateway", &a, -366),
        not_yet_valid: gateway_client("not-yet-valid", "ApiGateway", &a, 1),
        other_subject: gateway_client("other-subject", "SomebodyElse", &stranger, -180),
    }
});

fn rsa_keys<const N: usize>() -> [KeyPair; N] {
    let generate = || KeyPair::generate_for(&PKCS_RSA_SHA256).expect("an RSA-2048 key");
    thread::scope(|scope| {
        [(); N].map(|()| scope.spawn(generate)).map(|key| key.join().expect("a key"))
    })
}

/// A certificate that is valid for 365 days, starting so many days from now.
fn gateway_client(name: &'static str, common_name: &str, key: &KeyPair, from: i64) -> Credential {
    let mut subject = DistinguishedName::new();
    for (attribute, value) in [
        (DnType::CountryName, "US"),
        (DnType::LocalityName, "Seattle"),
        (DnType::CommonName, common_name),
    ] {
        subject.push(attribute, DnValue::PrintableString(value.try_into().expect("printable")));
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let day = |offset: i64| {
        let seconds = now.as_secs().cast_signed() + offset * 24 * 60 * 60;
        date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds.cast_unsigned())
    };

    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.not_before = day(from);
    params.not_after = day(from + 365);
    // Bytes of the modulus are as random as any.
    let start = key.public_key_raw().len() / 2;
    params.serial_number = Some(SerialNumber::from_slice(&key.public_key_raw()[start..start + 8]));
    let cert = params.self_signed(key).expect("a self-signed certificate");
    Credential { name, cert: cert.pem(), key: key.serialize_pem() }
}

/// The issuer of what servers prove themselves with.
static ROOT: LazyLock<CertifiedIssuer<'static, KeyPair>> = LazyLock::new(|| {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Test Root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root_key = KeyPair::generate().expect("a P-256 key");
    CertifiedIssuer::self_signed(params, root_key).expect("a root")
});

/// A certificate for a server, of a new key.
pub fn another_server() -> Credential {
    server_of(&KeyPair::generate().expect("a P-256 key"))
}

/// A certificate for a server with this key.
pub fn server_of(key: &KeyPair) -> Credential {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.use_authority_key_identifier_extension = true;
    let cert = params.signed_by(key, &*ROOT).expect("a certificate");
    Credential { name: "server", cert: cert.pem(), key: key.serialize_pem() }
}
