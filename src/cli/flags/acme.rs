//! The flags about a server certificate that renews itself.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use http::Uri;
use rustls::pki_types::{DnsName, ServerName};

use crate::cli::values::{boolean, path, positive};

/// The most names of one certificate.
const MOST_DOMAINS: usize = 100;
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// The flags exist in every build, so that one without ACME names the remedy.
#[derive(Args, Debug)]
#[command(next_help_heading = "Server certificate")]
#[cfg_attr(
    not(feature = "acme"),
    allow(dead_code, reason = "they are only asked whether they are set")
)]
pub(in crate::cli) struct AcmeFlags {
    /// Order a certificate for this name by ACME
    #[arg(
        long,
        value_name = "NAME",
        env = "PORTCULLIS_ACME_DOMAIN",
        value_delimiter = ',',
        value_parser = domain,
        conflicts_with_all = ["cert", "key"],
        long_help = "Order and renew the certificate for this name from an ACME directory, in place \
                     of --cert and --key. Port 443 of the name must lead to this server, as TCP. \
                     Repeatable. Needs --acme-cache and --acme-agree-terms"
    )]
    pub(in crate::cli) acme_domain: Vec<String>,

    /// Directory for certificate, key and account
    #[arg(
        long,
        value_name = "DIR",
        env = "PORTCULLIS_ACME_CACHE",
        value_parser = path(),
        long_help = "Directory for the ordered certificate, its key and the account. It must \
                     survive a restart. It is refused if every user of the machine can read it; \
                     access for its group is the operator's decision"
    )]
    pub(in crate::cli) acme_cache: Option<PathBuf>,

    /// Agree to the directory's terms of service
    #[arg(long, env = "PORTCULLIS_ACME_AGREE_TERMS", value_parser = boolean)]
    pub(in crate::cli) acme_agree_terms: bool,

    /// Address that the directory may write to
    #[arg(long, value_name = "ADDRESS", env = "PORTCULLIS_ACME_EMAIL", value_parser = email)]
    pub(in crate::cli) acme_email: Option<String>,

    /// ACME directory; default: Let's Encrypt
    #[arg(
        long,
        value_name = "URL",
        env = "PORTCULLIS_ACME_DIRECTORY",
        default_value = LETS_ENCRYPT,
        hide_default_value = true,
        value_parser = directory,
        long_help = "URL of the ACME directory. The default is that of Let's Encrypt"
    )]
    pub(in crate::cli) acme_directory: Uri,

    /// CA of a private directory, in PEM
    #[arg(
        long,
        value_name = "FILE",
        env = "PORTCULLIS_ACME_CA",
        value_parser = path(),
        long_help = "CA that issued the directory's own certificate, in PEM. The default is the \
                     system's CAs"
    )]
    pub(in crate::cli) acme_ca: Option<PathBuf>,

    /// Kind of the key: rsa2048 or p256
    #[arg(
        long,
        value_name = "KIND",
        env = "PORTCULLIS_ACME_KEY",
        default_value = "rsa2048",
        hide_possible_values = true,
        long_help = "Kind of the key that is made for each certificate: rsa2048, since AWS's support \
                     page warns of larger RSA keys, or p256"
    )]
    pub(in crate::cli) acme_key: AcmeKey,

    /// Longest time to a usable certificate
    #[arg(
        long,
        value_name = "TIME",
        env = "PORTCULLIS_ACME_TIMEOUT",
        default_value = "5m",
        value_parser = positive,
        long_help = "Longest time to a usable certificate after the start. Without one, or with an \
                     expired one, the exit code is then 1"
    )]
    pub(in crate::cli) acme_timeout: Duration,
}

/// The kind of a certificate's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum AcmeKey {
    /// RSA of 2048 bits.
    Rsa2048,
    /// ECDSA on P-256.
    P256,
}

impl AcmeFlags {
    /// True if the certificate is ordered.
    pub(in crate::cli) fn is_used(&self) -> bool {
        !self.acme_domain.is_empty()
    }

    /// Checks what the parser cannot check by itself. An error names its remedy.
    ///
    /// # Errors
    /// The flags do not describe an order.
    pub(super) fn validate(&self) -> Result<(), String> {
        let domains = self.acme_domain.len();
        if domains == 0 {
            return Ok(());
        }
        if cfg!(not(feature = "acme")) {
            return Err("--acme-domain: this portcullis was built without ACME; install a \
                        package or an image of it, or build it with `cargo build --release \
                        --features acme`"
                .to_owned());
        }
        if self.acme_cache.is_none() {
            let problem = "--acme-domain needs --acme-cache: a directory where certificate, key \
                           and account survive a restart";
            return Err(problem.to_owned());
        }
        if domains > MOST_DOMAINS {
            return Err(format!(
                "--acme-domain: {domains} names are more than the {MOST_DOMAINS} that a \
                 certificate is for; run several servers, or get the certificate elsewhere"
            ));
        }
        if !self.acme_agree_terms {
            return Err(format!(
                "--acme-domain needs --acme-agree-terms: read the terms of service that {} names, \
                 and agree to them by this flag",
                self.acme_directory
            ));
        }
        Ok(())
    }

    /// The settings of the order, if the flags describe one.
    #[cfg(feature = "acme")]
    pub(super) fn settings(&self, is_balanced: bool) -> Option<crate::acme::Settings> {
        use crate::acme::{KeyType, Settings};
        let mut domains = self.acme_domain.clone();
        domains.sort_unstable();
        domains.dedup();
        Some(Settings {
            cache: self.acme_cache.clone().filter(|_| self.is_used())?,
            domains,
            email: self.acme_email.clone(),
            directory: self.acme_directory.clone(),
            ca: self.acme_ca.clone(),
            key: match self.acme_key {
                AcmeKey::Rsa2048 => KeyType::Rsa2048,
                AcmeKey::P256 => KeyType::P256,
            },
            timeout: self.acme_timeout,
            is_balanced,
        })
    }
}

fn domain(text: &str) -> Result<String, String> {
    if text.contains('*') {
        let reason = "a wildcard is validated by DNS only, which portcullis cannot change; name \
                      each host, or get the certificate elsewhere and give it by --cert and --key";
        return Err(reason.to_owned());
    }
    let name = text.trim_end_matches('.').to_ascii_lowercase();
    match ServerName::try_from(name.as_str()) {
        Ok(ServerName::IpAddress(_)) => Err("an IP address is no name that API Gateway can call \
                                             by a certificate; give the DNS name of the endpoint"
            .to_owned()),
        _ => match DnsName::try_from(name.as_str()) {
            Ok(_) => Ok(name),
            Err(_) => Err("it is no DNS name; write it as api.example.com, without scheme, port \
                           and path"
                .to_owned()),
        },
    }
}

fn email(text: &str) -> Result<String, String> {
    let address = text.strip_prefix("mailto:").unwrap_or(text);
    let is_address = |(user, host): (&str, &str)| !user.is_empty() && !host.is_empty();
    let is_odd = |character: char| character.is_whitespace() || ",?<>".contains(character);
    match address.split_once('@').is_some_and(is_address) && !address.contains(is_odd) {
        true => Ok(address.to_owned()),
        false => Err("it must be one address, as operator@example.com".to_owned()),
    }
}

fn directory(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|error| format!("{error}; give the directory's URL"))?;
    let (Some("https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err("it must begin with https://".to_owned());
    };
    if authority.as_str().contains('@') {
        return Err("it holds a user name, which would be logged; an account at the directory is \
                    made by itself"
            .to_owned());
    }
    // The parser of URLs takes any number for a port.
    let has_port = authority.as_str().len() > authority.host().len();
    if authority.host().is_empty() || (has_port && authority.port_u16().is_none()) {
        return Err("its host or port is none; write it as https://ca.example/directory".to_owned());
    }
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domain_is_a_dns_name_in_lower_case() {
        assert_eq!(domain("API.Example.com."), Ok("api.example.com".to_owned()));
        for (wrong, word) in [
            ("*.example.com", "wildcard"),
            ("192.0.2.1", "IP address"),
            ("2001:db8::1", "IP address"),
            ("https://api.example.com", "without scheme"),
            ("api.example.com:443", "without scheme"),
            ("", "no DNS name"),
            ("exa mple.com", "no DNS name"),
        ] {
            let error = domain(wrong).unwrap_err();
            assert!(error.contains(word), "{wrong}: {error}");
        }
    }

    #[test]
    fn directory_is_an_https_url() {
        assert!(directory(LETS_ENCRYPT).is_ok());
        assert!(directory("https://127.0.0.1:14000/dir").is_ok());
        assert!(directory("https://[::1]/dir").is_ok());
        for wrong in ["http://ca.example/dir", "ca.example", "/dir", "https://", "ftp://a/", "a b"]
        {
            assert!(directory(wrong).is_err(), "{wrong}");
        }
        for (wrong, word) in [
            ("https://user:secret@ca.example/dir", "user name"),
            ("https://ca.example:99999/dir", "port"),
        ] {
            let error = directory(wrong).unwrap_err();
            assert!(error.contains(word) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn email_is_one_address() {
        for right in ["a@b.example", "mailto:a@b.example"] {
            assert_eq!(email(right), Ok("a@b.example".to_owned()));
        }
        for wrong in ["", "a", "@b", "a@", "a@b,c@d", "a b@c"] {
            assert!(email(wrong).is_err(), "{wrong}");
        }
    }
}
