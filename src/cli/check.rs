//! `portcullis check`: the problems that `serve` would have with the same flags.

use std::io::{self, Write};

use clap::Args;
use rustls::pki_types::ServerName;

use super::environment::UnknownVariable;
use super::flags::Serve;
use super::inspect::write_problems;
use super::outcome::Outcome;
use super::values::boolean;
use crate::Severity;

/// What to check.
#[derive(Args, Debug)]
pub(super) struct Check {
    /// The flags that `serve` would get.
    #[command(flatten)]
    pub(super) serve: Serve,

    /// Name under which API Gateway calls the server
    #[arg(
        long,
        value_name = "NAME",
        env = "PORTCULLIS_NAME",
        value_delimiter = ',',
        value_parser = server_name,
        help_heading = "Server certificate",
        long_help = "Name under which API Gateway calls the server, as in the endpoint's URL. \
                     Repeatable"
    )]
    pub(super) name: Vec<ServerName<'static>>,

    /// Exit 2 on warnings too
    #[arg(long, env = "PORTCULLIS_STRICT", value_parser = boolean)]
    pub(super) strict: bool,
}

impl Check {
    /// Writes the problems, and whether a server would start.
    ///
    /// # Errors
    /// Writing to `out` fails.
    pub(super) fn run(
        &self,
        unknown: &[UnknownVariable],
        out: &mut impl Write,
    ) -> io::Result<Outcome> {
        let mut check = self.serve.config().check_for(&self.names());
        check.problems.extend(self.serve.service.socket_problem());
        write_problems(out, &check.problems)?;
        for variable in unknown {
            writeln!(out, "warning: {variable}")?;
        }
        #[cfg(feature = "acme")]
        if let Some(Err(error)) = self.serve.acme().as_ref().map(crate::acme::Acme::check) {
            writeln!(out, "error: {error}; {}", error.remedy())?;
            return Ok(Outcome::Unusable);
        }
        if let Some(reason) = &check.not_startable {
            writeln!(out, "error: {reason}")?;
        } else if self.serve.awaits_certificate() {
            writeln!(out, "no server certificate yet: serve orders the first one")?;
        } else {
            writeln!(out, "probe: a handshake without a client certificate is refused")?;
        }
        if !check.is_good() {
            return Ok(Outcome::Unusable);
        }
        let warnings = check.problems.iter().filter(|found| found.severity == Severity::Warning);
        let warnings = warnings.count() + unknown.len();
        if self.strict && warnings > 0 {
            let count = match warnings {
                1 => "1 warning counts as an error".to_owned(),
                _ => format!("{warnings} warnings count as errors"),
            };
            writeln!(out, "error: {count} (--strict)")?;
            return Ok(Outcome::Unusable);
        }
        writeln!(out, "ok")?;
        Ok(Outcome::Success)
    }
}

impl Check {
    /// The names of `--name`, and those of an ordered certificate.
    fn names(&self) -> Vec<ServerName<'static>> {
        let ordered = self.serve.server_certificate.acme.acme_domain.iter();
        let ordered = ordered.filter_map(|name| ServerName::try_from(name.clone()).ok());
        self.name.iter().cloned().chain(ordered).collect()
    }
}

fn server_name(text: &str) -> Result<ServerName<'static>, String> {
    let name = ServerName::try_from(text.to_owned());
    name.map_err(|_| "it is neither a DNS name nor an IP address".to_owned())
}
