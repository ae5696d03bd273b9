//! Reads files once, for the subcommands that inspect them.

use std::path::Path;

use rustls::pki_types::CertificateDer;

use crate::reload::problem::Problem;
use crate::reload::read::PemSource;
use crate::reload::source::Source;
use crate::reload::trust_file::ReadContext;
use crate::reload::watch::BeingWritten;
use crate::trust::{LoadedCertificate, Role, pem};

/// Reads a trust file or directory once: the usable certificates, and the problems.
pub(crate) fn read_trust(role: Role, path: &Path) -> (Vec<LoadedCertificate>, Vec<Problem>) {
    let mut source = Source::new(role, PemSource::Path(path.to_owned()));
    source.read(&ReadContext { is_first: true, being_written: &BeingWritten::default() });
    (source.loaded().collect(), source.problems().collect())
}

/// Reads the chain that a client presents: its own certificate first.
pub(crate) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Vec<Problem>> {
    let bytes = PemSource::Path(path.to_owned())
        .read()
        .map_err(|error| vec![Problem::unreadable(path, &error)])?;
    let chain = pem::chain(&bytes).map_err(|errors| {
        errors.iter().map(|error| Problem::in_pem(path, error)).collect::<Vec<_>>()
    })?;
    Ok(chain.into_iter().map(|(_, der)| der).collect())
}
