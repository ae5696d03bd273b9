//! What `fuzz/` feeds. No part of the API.

use rustls::pki_types::CertificateDer;

use crate::server::proxy_header::{self, Parsed};
use crate::trust::Certificate;
use crate::trust::pem;

/// Whatever a file holds, something is said of it.
pub fn pem(bytes: &[u8]) {
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
pub fn proxy_header(bytes: &[u8]) {
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
