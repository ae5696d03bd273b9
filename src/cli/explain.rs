//! `portcullis explain`: would this certificate be let in, and if not, why?

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use rustls::crypto::aws_lc_rs::default_provider;

use crate::cli::Outcome;
use crate::cli::inspect::say;
use crate::reload::{read_chain, read_trust};
use crate::trust::{Presented, TrustStore, rfc3339, unix_time};
use crate::{Nearest, Role};

/// What to explain.
#[derive(Args, Debug)]
pub struct Explain {
    /// Client certificates that are let in, as for `serve`
    #[arg(
        long,
        value_name = "PATH",
        env = "PORTCULLIS_TRUST",
        value_delimiter = ',',
        required_unless_present = "trust_ca"
    )]
    pub trust: Vec<PathBuf>,

    /// CA certificates, as for `serve`
    #[arg(long, value_name = "PATH", env = "PORTCULLIS_TRUST_CA", value_delimiter = ',')]
    pub trust_ca: Vec<PathBuf>,

    /// What the client presents: a PEM file with its certificate, its intermediates after it
    #[arg(value_name = "CERT")]
    pub certificate: PathBuf,
}

impl Explain {
    /// Writes whether the certificate would be let in now, and why not.
    ///
    /// # Errors
    /// `out` does not take it.
    pub fn run(&self, out: &mut impl Write) -> io::Result<Outcome> {
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
        let verdict = Outcome::of(&problems);
        let Some((certificate, intermediates)) = chain.split_first() else {
            say(out, &problems)?;
            return Ok(verdict);
        };
        let algorithms = default_provider().signature_verification_algorithms;
        let store = TrustStore::new(None, trusted, algorithms);
        let presented = Presented::new(certificate);
        let name = self.certificate.display();
        match store.admit(certificate, intermediates, unix_time(SystemTime::now())) {
            Ok(identity) => {
                let file = identity.file().display();
                let until = rfc3339(identity.validity().not_after);
                match identity.anchor() {
                    None => writeln!(out, "let in: {name} is trusted by {file}, until {until}")?,
                    Some(anchor) => writeln!(
                        out,
                        "let in: {name} leads to the CA {anchor} in {file}, until {until}"
                    )?,
                }
            }
            Err(refusal) => {
                let reason = refusal.reason;
                writeln!(out, "not let in: {name}: {reason}")?;
                let nearest = store.nearest(&presented);
                let nearest = nearest.as_ref().map(Nearest::to_string);
                let nothing = "none has its key or its serial number".to_owned();
                writeln!(out, "nearest:     {}", nearest.unwrap_or(nothing))?;
                writeln!(out, "remedy:      {}", reason.remedy())?;
            }
        }
        writeln!(out, "fingerprint: {}", presented.fingerprint)?;
        if let Some(summary) = &presented.summary {
            let from = rfc3339(summary.validity.not_before);
            let until = rfc3339(summary.validity.not_after);
            writeln!(out, "subject:     {}", summary.subject)?;
            writeln!(out, "serial:      {}", summary.serial)?;
            writeln!(out, "valid:       {from} to {until}")?;
        }
        say(out, &problems)?;
        Ok(verdict)
    }
}
