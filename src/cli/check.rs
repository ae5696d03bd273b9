//! `portcullis check`: all that is wrong with what `serve` would be given.

use std::io::{self, Write};

use clap::Args;
use rustls::pki_types::ServerName;

use crate::cli::inspect::say;
use crate::cli::{Outcome, Serve};

/// What to check.
#[derive(Args, Debug)]
pub struct Check {
    #[command(flatten)]
    /// What `serve` would be given.
    pub serve: Serve,

    /// A name by which API Gateway will call the server, as in the endpoint's URL. Repeatable
    #[arg(long, value_name = "NAME", env = "PORTCULLIS_NAME", value_delimiter = ',',
          value_parser = server_name)]
    pub name: Vec<ServerName<'static>>,
}

impl Check {
    /// Writes what is wrong and what is odd.
    ///
    /// # Errors
    /// `out` does not take it.
    pub fn run(&self, out: &mut impl Write) -> io::Result<Outcome> {
        let check = self.serve.config().check_for(&self.name);
        say(out, &check.problems)?;
        if let Some(reason) = &check.not_startable {
            writeln!(out, "error: {reason}")?;
        } else {
            writeln!(out, "probe: a handshake without a client certificate is refused")?;
        }
        if !check.is_good() {
            return Ok(Outcome::Faulty);
        }
        writeln!(out, "ok")?;
        Ok(Outcome::Good)
    }
}

fn server_name(text: &str) -> Result<ServerName<'static>, String> {
    let name = ServerName::try_from(text.to_owned());
    name.map_err(|_| "it is neither a DNS name nor an IP address".to_owned())
}
