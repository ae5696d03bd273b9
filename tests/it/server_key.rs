//! The formats of the server's private key. Each is loaded and used in a handshake.

use std::fs;

use rcgen::{KeyPair, PKCS_RSA_SHA256};
use rustls::pki_types::PrivateKeyDer;
use x509_cert::der::pem::{LineEnding, encode_string};

use crate::support::pki::{PKI, server_of};
use crate::support::tls::{BOTH, Client, Connector, Site};

/// The key inside of PKCS#8: what follows the header of the OCTET STRING behind the algorithm.
fn inside_pkcs8(key: &KeyPair, algorithm_end: &[u8]) -> Vec<u8> {
    let der = key.serialize_der();
    let at = der.windows(algorithm_end.len()).position(|window| window == algorithm_end);
    let header = at.unwrap() + algorithm_end.len();
    assert_eq!(der[header], 4, "an OCTET STRING");
    let length_bytes = usize::from(der[header + 1].saturating_sub(0x80));
    der[header + 2 + length_bytes..].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn key_in_pkcs1_sec1_and_pkcs8_serves_handshakes() {
    let ec = KeyPair::generate().unwrap();
    let rsa = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let pem = |label, der: &[u8]| encode_string(label, LineEnding::LF, der).unwrap();
    let pkcs1 = inside_pkcs8(&rsa, &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 1, 5, 0]);
    let sec1 = inside_pkcs8(&ec, &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]);
    let client = Client::from_pem(&PKI.a.cert, &PKI.a.key);
    for (format, key, text) in [
        ("PKCS#8 RSA", &rsa, rsa.serialize_pem()),
        ("PKCS#8 EC", &ec, ec.serialize_pem()),
        ("PKCS#1", &rsa, pem("RSA PRIVATE KEY", &pkcs1)),
        ("SEC1", &ec, pem("EC PRIVATE KEY", &sec1)),
    ] {
        let read = <PrivateKeyDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(
            text.as_bytes(),
        );
        let is_format = match read.unwrap() {
            PrivateKeyDer::Pkcs1(_) => format == "PKCS#1",
            PrivateKeyDer::Sec1(_) => format == "SEC1",
            _ => format.starts_with("PKCS#8"),
        };
        assert!(is_format, "{format}");
        let site = Site::new();
        site.trust("a.pem", &PKI.a.cert);
        fs::write(site.path("server.pem"), server_of(key).cert).unwrap();
        fs::write(site.path("server.key"), text).unwrap();
        let server = site.serve();
        for version in BOTH {
            let result = Connector::new(Some(&client), version).ask(server.address).await;
            assert!(result.is_ok(), "{format}: {result:?}");
        }
    }
}
