//! What `benches/` measures one by one, and what `fuzz/` feeds. No part of the API.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, UnixTime};

use crate::reload::{Generation, Loader, Material, NotStartable, PemSource};
use crate::server::accept::proxy_header::{self, Parsed};
use crate::server::provider;
use crate::trust::{Certificate, Role, pem};
use crate::{ClientIdentity, SystemClock};

/// What a server is given at its start.
#[derive(Debug)]
pub struct Gate(Generation);

impl Gate {
    /// Reads all of it.
    ///
    /// # Errors
    /// A server would not start either.
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

    /// What it shakes hands by.
    pub fn tls(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.tls)
    }

    /// Whether a client that presents this is accepted.
    pub fn admit(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Option<ClientIdentity> {
        self.0.store.admit(certificate, &[], now).ok()
    }
}

/// Reads a trust file; how many of its certificates can be used.
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
    // Base64 keeps what is within a block from most of what is tried.
    let _ = Certificate::parse(CertificateDer::from(bytes.to_vec()));
}

/// A header that comes in pieces asks for its own bytes only, ends, and parses as it does in one.
pub fn fuzz_proxy_header(bytes: &[u8]) {
    let mut read = 0;
    let in_pieces = loop {
        let Some(piece) = bytes.get(..read) else { return };
        match proxy_header::parse(piece) {
            Ok(Parsed::Needs(more)) => {
                assert!(more > 0 && read + more <= 16 + 4096, "{more} more after {read}");
                // One by one, or as much as was asked for.
                read += if bytes.len().is_multiple_of(2) { 1 } else { more };
            }
            end => break end,
        }
    };
    if let Some(whole) = bytes.get(..read) {
        assert_eq!(proxy_header::parse(whole), in_pieces);
    }
}
