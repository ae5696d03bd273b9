//! Makes every certificate and key of this folder afresh: `certs-example/generate`.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_RSA_SHA256, RsaKeySize, SerialNumber, date_time_ymd,
};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

fn main() -> Result<()> {
    let folder = Folder(Path::new(env!("CARGO_MANIFEST_DIR")).join("certs-example"));
    fs::create_dir_all(folder.0.join("trust"))?;

    make_server(&folder)?;
    for name in ["client-1", "client-2"] {
        let certificate = make_client(&folder, name)?;
        folder.write(&format!("trust/{name}.pem"), &certificate)?;
    }
    make_client(&folder, "stranger")?;
    Ok(())
}

/// `server-cert.pem` for this machine's own names, issued by `root.pem`. The root's key is dropped
/// here, unwritten: nothing more can be issued in its name.
fn make_server(folder: &Folder) -> Result<()> {
    let mut root = params(&[(DnType::CommonName, "portcullis example root (throw-away)")], &[])?;
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)?;

    let names = ["localhost", "127.0.0.1", "::1"];
    let mut leaf = params(&[(DnType::CommonName, "localhost")], &names)?;
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;

    folder.write("root.pem", &root.pem())?;
    folder.write("server-cert.pem", &leaf.signed_by(&key, &root)?.pem())?;
    folder.write_key("server-key.pem", &key)
}

/// One client in the exact shape of what API Gateway generates: RSA 2048, self-signed with SHA-256,
/// always the same name, a random serial number of 64 bits, and the extensions field absent (rcgen
/// leaves it out where nothing asks for one).
fn make_client(folder: &Folder, name: &str) -> Result<String> {
    let api_gateway = [
        (DnType::CountryName, "US"),
        (DnType::LocalityName, "Seattle"),
        (DnType::CommonName, "ApiGateway"),
    ];
    let mut client = params(&api_gateway, &[])?;
    let mut serial = [0; 8];
    aws_lc_rs::rand::fill(&mut serial)?;
    client.serial_number = Some(SerialNumber::from_slice(&serial));

    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
    let certificate = client.self_signed(&key)?.pem();
    folder.write(&format!("{name}.pem"), &certificate)?;
    folder.write_key(&format!("{name}-key.pem"), &key)?;
    Ok(certificate)
}

/// With a name whose every part is a `PrintableString`, as API Gateway writes it, and with dates
/// that do not end the example: up to the last day that X.509 writes as a `UTCTime`.
fn params(subject: &[(DnType, &str)], alt_names: &[&str]) -> Result<CertificateParams> {
    let alt_names: Vec<String> = alt_names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(alt_names)?;
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);

    let mut name = DistinguishedName::new();
    for (kind, value) in subject {
        name.push(kind.clone(), DnValue::PrintableString((*value).try_into()?));
    }
    params.distinguished_name = name;
    Ok(params)
}

struct Folder(PathBuf);

impl Folder {
    fn write(&self, name: &str, pem: &str) -> Result<()> {
        let path = self.0.join(name);
        fs::write(&path, pem).map_err(|error| format!("{}: {error}", path.display()).into())
    }

    /// A key in PKCS#8, with a warning in front that readers of PEM pass over.
    fn write_key(&self, name: &str, key: &KeyPair) -> Result<()> {
        let warning = "THROW-AWAY EXAMPLE KEY - PUBLISHED - PROTECTS NOTHING";
        self.write(name, &format!("{warning}\n{}", key.serialize_pem()))
    }
}
