//! What `benches/` measures one by one, and what `fuzz/` feeds. No part of the API.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, UnixTime};

use crate::reload::{Generation, Loader, Material, NotStartable};
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
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            trust: vec![(Role::Pin, trust.to_owned())],
        };
        let loader = Loader::new(material, Arc::new(provider()), Arc::new(SystemClock));
        loader.first_generation().map(Self)
    }

    /// What it shakes hands by.
    pub fn tls(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.tls)
    }

    /// Whether a client is let in that presents this.
    pub fn admit(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Option<ClientIdentity> {
        self.0.store.admit(certificate, &[], now).ok()
    }
}

/// Reads a trust file; how many of its certificates can be used.
pub fn trust_file(bytes: &[u8]) -> usize {
    let (blocks, _) = pem::certificates(bytes);
    blocks.into_iter().filter_map(|(_, der)| Certificate::parse(der).ok()).count()
}

/// Whatever a file holds, something is said of it.
pub fn fuzz_pem(bytes: &[u8]) {
    let (blocks, faults) = pem::certificates(bytes);
    assert!(!blocks.is_empty() || !faults.is_empty(), "an empty file without a fault");
    let lines = bytes.iter().filter(|octet| matches!(octet, b'\n' | b'\r')).count() + 1;
    let fault_lines = faults.iter().filter_map(|fault| fault.line);
    for line in blocks.iter().map(|(line, _)| *line).chain(fault_lines) {
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

/// However a header comes, it asks for its own octets only, ends, and says the same as at once.
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
