//! `portcullis explain`: whether a client certificate is accepted, and why not.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use rustls::crypto::aws_lc_rs::default_provider;

use super::environment::UnknownVariable;
use super::inspect::write_problems;
use super::outcome::Outcome;
use super::values::path;
use crate::reload::{read_chain, read_trust};
use crate::trust::{PresentedCertificate, TrustStore, WrittenPeriod, rfc3339, unix_time};
use crate::{Nearest, Role};

/// What to explain.
#[derive(Args, Debug)]
pub(super) struct Explain {
    /// Client certificates to accept, as for serve
    #[arg(
        long,
        value_name = "PATH",
        env = "PORTCULLIS_TRUST",
        value_delimiter = ',',
        required_unless_present = "trust_ca",
        value_parser = path()
    )]
    trust: Vec<PathBuf>,

    /// CA certificates to accept, as for serve
    #[arg(
        long,
        value_name = "PATH",
        env = "PORTCULLIS_TRUST_CA",
        value_delimiter = ',',
        value_parser = path()
    )]
    trust_ca: Vec<PathBuf>,

    /// PEM file that the client presents
    #[arg(
        value_name = "CERT",
        value_parser = path(),
        long_help = "PEM file that the client presents: its certificate, then its intermediate ones"
    )]
    certificate: PathBuf,
}

impl Explain {
    /// Writes whether the certificate is accepted now, and why not.
    ///
    /// # Errors
    /// Writing to `out` fails.
    pub(super) fn run(
        &self,
        unknown: &[UnknownVariable],
        out: &mut impl Write,
    ) -> io::Result<Outcome> {
        for variable in unknown {
            writeln!(out, "warning: {variable}")?;
        }
        let (mut trusted, mut problems) = (Vec::new(), Vec::new());
        let pins = self.trust.iter().map(|path| (Role::Pin, path));
        let anchors = self.trust_ca.iter().map(|path| (Role::Anchor, path));
        for (role, path) in pins.chain(anchors) {
            let (loaded, found) = read_trust(role, path);
            trusted.extend(loaded);
            problems.extend(found);
        }
        let chain = match read_chain(&self.certificate) {
            Ok(chain) => chain,
            Err(found) => {
                problems.extend(found);
                Vec::new()
            }
        };
        let mut outcome = Outcome::of(&problems);
        let Some((certificate, intermediates)) = chain.split_first() else {
            write_problems(out, &problems)?;
            return Ok(outcome);
        };
        let algorithms = default_provider().signature_verification_algorithms;
        let store = TrustStore::new(None, trusted, algorithms);
        let presented = PresentedCertificate::new(certificate);
        let name = self.certificate.display();
        match store.admit(certificate, intermediates, unix_time(SystemTime::now())) {
            Ok(identity) => {
                let file = identity.file().display();
                let until = rfc3339(identity.validity().not_after);
                match identity.anchor() {
                    None => writeln!(out, "accepted: {name} is trusted by {file}, until {until}")?,
                    Some(anchor) => writeln!(
                        out,
                        "accepted: {name} leads to the CA {anchor} in {file}, until {until}"
                    )?,
                }
            }
            Err(rejection) => {
                if outcome == Outcome::Success {
                    outcome = Outcome::NotAccepted;
                }
                let reason = rejection.reason;
                writeln!(out, "not accepted: {name}: {reason}")?;
                let nearest = store.nearest(&presented);
                let nearest = nearest.as_ref().map(Nearest::to_string);
                let nothing = "none has its key or its serial number".to_owned();
                if let Some(detail) = rejection.detail {
                    writeln!(out, "detail:      {detail}")?;
                }
                writeln!(out, "nearest:     {}", nearest.unwrap_or(nothing))?;
                writeln!(out, "remedy:      {}", reason.remedy())?;
            }
        }
        writeln!(out, "fingerprint: {}", presented.fingerprint)?;
        if let Some(summary) = &presented.summary {
            let period = WrittenPeriod::new(certificate, summary.validity);
            let (from, until) = (period.not_before, period.not_after);
            writeln!(out, "subject:     {}", summary.subject)?;
            writeln!(out, "serial:      {}", summary.serial)?;
            writeln!(out, "valid:       {from} to {until}")?;
        }
        write_problems(out, &problems)?;
        Ok(outcome)
    }
}
