//! Entry points for `benches/` and `fuzz/`. No part of the API.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, UnixTime};

use crate::reload::{Generation, Loader, Material, NotStartable, PemSource};
use crate::server::accept::proxy_header::{self, Parsed};
use crate::server::provider;
use crate::trust::{Certificate, Role, pem};
use crate::{ClientIdentity, SystemClock};

/// The loaded files of a server.
#[derive(Debug)]
pub struct Gate(Generation);

impl Gate {
    /// Loads certificate, key and trust files as a server does.
    ///
    /// # Errors
    /// A server would not start with these files.
    pub fn load(certificate: &Path, key: &Path, trust: &Path) -> Result<Self, NotStartable> {
        let material = Material {
            certificate: PemSource::Path(certificate.to_owned()),
            key: PemSource::Path(key.to_owned()),
            is_pair_awaited: false,
            trust: vec![(Role::Pin, PemSource::Path(trust.to_owned()))],
        };
        let loader = Loader::new(material, Arc::new(provider()), Arc::new(SystemClock));
        loader.first_generation().map(Self)
    }

    /// The TLS configuration of its handshakes.
    pub fn tls(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.tls)
    }

    /// The identity of a client that presents this certificate, if it is accepted.
    pub fn admit(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Option<ClientIdentity> {
        self.0.store.admit(certificate, &[], now).ok()
    }
}

/// Parses a trust file; returns the number of its usable certificates.
pub fn trust_file(bytes: &[u8]) -> usize {
    let (blocks, _) = pem::certificates(bytes);
    blocks.into_iter().filter_map(|(_, der)| Certificate::parse(der).ok()).count()
}

/// Every file yields a certificate or an error.
pub fn fuzz_pem(bytes: &[u8]) {
    let (blocks, errors) = pem::certificates(bytes);
    assert!(!blocks.is_empty() || !errors.is_empty(), "an empty file without an error");
    let lines = bytes.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() + 1;
    let error_lines = errors.iter().filter_map(|error| error.line);
    for line in blocks.iter().map(|(line, _)| *line).chain(error_lines) {
        assert!((1..=lines).contains(&line), "line {line} of {lines}");
    }
    for (_, der) in blocks {
        let _ = Certificate::parse(der);
    }
    let _ = pem::chain(bytes);
    let _ = pem::private_key(bytes);
    // Most mutations of a block break its base64, so the DER parser gets the bytes directly too.
    let _ = Certificate::parse(CertificateDer::from(bytes.to_vec()));
}

/// In pieces, parsing requests only the header's bytes, ends, and gives the same result.
pub fn fuzz_proxy_header(bytes: &[u8]) {
    let mut read = 0;
    let in_pieces = loop {
        let Some(piece) = bytes.get(..read) else { return };
        match proxy_header::parse(piece) {
            Ok(Parsed::Needs(more)) => {
                assert!(more > 0 && read + more <= 16 + 4096, "{more} more after {read}");
                // Byte by byte, or as many bytes as requested.
                read += if bytes.len().is_multiple_of(2) { 1 } else { more };
            }
            end => break end,
        }
    };
    if let Some(whole) = bytes.get(..read) {
        assert_eq!(proxy_header::parse(whole), in_pieces);
    }
}
