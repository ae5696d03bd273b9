//! Certificates: the server's ECDSA P-256, the clients' in API Gateway's shape (RSA 2048, X.509 v3
//! with the extensions absent, always the same name, a serial number of 64 bits).

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, DnValue, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize, SerialNumber,
    date_time_ymd,
};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// As many as fit into a file that portcullis reads.
const A_FILE: usize = 500;

pub fn make(directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    let write = |name: &str, text: String| fs::write(directory.join(name), text).unwrap();

    let mut root = CertificateParams::default();
    root.distinguished_name.push(DnType::CommonName, "bench root");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let root = CertifiedIssuer::self_signed(root, root_key).unwrap();
    let mut leaf = CertificateParams::new(["localhost".to_owned()]).unwrap();
    leaf.distinguished_name.push(DnType::CommonName, "localhost");
    leaf.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    write("root.pem", root.pem());
    let server = leaf.signed_by(&key, &root).unwrap().pem();
    write("server.pem", server.clone());
    write("server-key.pem", key.serialize_pem());
    // HAProxy wants both in one file.
    write("server-both.pem", server + &key.serialize_pem());

    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    write("client.pem", client(&key, 1));
    write("client-key.pem", key.serialize_pem());
}

/// A directory of so many trusted certificates. That they share their key makes no difference to
/// a server that compares their bytes, and a thousand RSA keys would take their time.
pub fn trusted(directory: &Path, count: usize) {
    let to = directory.join(format!("trusted-{count}"));
    fs::create_dir_all(&to).unwrap();
    let own = fs::read_to_string(directory.join("client.pem")).unwrap();
    let key = fs::read_to_string(directory.join("client-key.pem")).unwrap();
    let key = KeyPair::from_pem(&key).unwrap();
    let all: Vec<_> = (2..=count).map(|serial| client(&key, serial as u64)).chain([own]).collect();
    for (index, some) in all.chunks(A_FILE).enumerate() {
        fs::write(to.join(format!("{index:04}.pem")), some.concat()).unwrap();
    }
}

fn client(key: &KeyPair, serial: u64) -> String {
    let mut name = DistinguishedName::new();
    for (kind, value) in [
        (DnType::CountryName, "US"),
        (DnType::LocalityName, "Seattle"),
        (DnType::CommonName, "ApiGateway"),
    ] {
        name.push(kind, DnValue::PrintableString(value.try_into().unwrap()));
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    // Spread over all of its bits, as the real ones are.
    let serial = serial.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1;
    params.serial_number = Some(SerialNumber::from_slice(&serial.to_be_bytes()));
    params.self_signed(key).unwrap().pem()
}

/// A chain and its key, as both ends hold one.
pub fn certified_key(directory: &Path, name: &str) -> Arc<CertifiedKey> {
    let chain = vec![der(directory, name)];
    let key = PrivateKeyDer::from_pem_file(directory.join(format!("{name}-key.pem"))).unwrap();
    Arc::new(CertifiedKey::new(chain, any_supported_type(&key).unwrap()))
}

pub fn der(directory: &Path, name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(directory.join(format!("{name}.pem"))).unwrap()
}
