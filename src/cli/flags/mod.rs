//! The flags of `serve`, grouped as in its help.

mod acme;
mod bounds;
mod observability;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::sandbox::Access;
use super::upstream::ServiceArgs;
use super::values::{ListenAddress, boolean, listen_address, path, positive};
use crate::service::Upstream;
use crate::{Cidr, Config};
use acme::AcmeFlags;
pub(super) use bounds::{Limits, Shutdown, Timeouts};
pub(super) use observability::{LogFlags, LogFormat, Observability, Switch};

/// The flags of `serve`.
#[derive(Args, Debug)]
pub(in crate::cli) struct Serve {
    #[command(flatten)]
    pub(in crate::cli) listening: Listening,
    #[command(flatten)]
    pub(in crate::cli) server_certificate: ServerCertificateFlags,
    #[command(flatten)]
    pub(in crate::cli) trusted_clients: TrustedClients,
    /// The service behind the server.
    #[command(flatten)]
    pub(in crate::cli) service: ServiceArgs,
    #[command(flatten)]
    pub(in crate::cli) timeouts: Timeouts,
    #[command(flatten)]
    pub(in crate::cli) limits: Limits,
    #[command(flatten)]
    pub(in crate::cli) shutdown: Shutdown,
    #[command(flatten)]
    pub(in crate::cli) observability: Observability,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Listening")]
pub(in crate::cli) struct Listening {
    /// Listen on this address
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "PORTCULLIS_LISTEN",
        value_delimiter = ',',
        value_parser = listen_address,
        long_help = "Listen on this address: 127.0.0.1:8443, [::1]:8443, localhost:8443 for both \
                     loopback addresses, or :8443 for every address of both families. Port 0 lets \
                     the system choose. Repeatable. The default is the sockets that systemd passes, \
                     or else :8443"
    )]
    pub(in crate::cli) listen: Vec<ListenAddress>,

    /// Expect a PROXY protocol v2 header
    #[arg(
        long,
        env = "PORTCULLIS_PROXY_PROTOCOL",
        value_parser = boolean,
        long_help = "Expect a PROXY protocol v2 header at the start of each connection. The \
                     address in it is the client's"
    )]
    pub(in crate::cli) proxy_protocol: bool,

    /// Accept that header from these addresses
    #[arg(
        long,
        value_name = "CIDR",
        env = "PORTCULLIS_PROXY_PROTOCOL_FROM",
        value_delimiter = ',',
        long_help = "Accept that header from these addresses only, those of the load balancer, and \
                     reject other connections. Repeatable. Needs --proxy-protocol. The default is \
                     the private, link-local and loopback addresses"
    )]
    pub(in crate::cli) proxy_protocol_from: Vec<Cidr>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Server certificate")]
pub(in crate::cli) struct ServerCertificateFlags {
    /// Certificate chain of the server, in PEM
    #[arg(
        long,
        value_name = "FILE",
        env = "PORTCULLIS_CERT",
        required_unless_present = "acme_domain",
        value_parser = path(),
        long_help = "Certificate chain of the server, in PEM: its own certificate first, then the \
                     intermediate ones. A change of the file is loaded without a restart"
    )]
    pub(in crate::cli) cert: Option<PathBuf>,

    /// Private key of the server, in PEM
    #[arg(
        long,
        value_name = "FILE",
        env = "PORTCULLIS_KEY",
        required_unless_present = "acme_domain",
        value_parser = path(),
        long_help = "Private key of the server, in PEM: PKCS#8, PKCS#1 or SEC1, not encrypted"
    )]
    pub(in crate::cli) key: Option<PathBuf>,

    #[command(flatten)]
    pub(in crate::cli) acme: AcmeFlags,
}

impl ServerCertificateFlags {
    /// Where the certificate and its key are, or will be.
    fn pair(&self) -> (PathBuf, PathBuf) {
        #[cfg(feature = "acme")]
        if let Some(cache) = self.acme.acme_cache.as_ref().filter(|_| self.acme.is_used()) {
            let pair = crate::acme::pair(cache);
            return (pair.clone(), pair);
        }
        (self.cert.clone().unwrap_or_default(), self.key.clone().unwrap_or_default())
    }
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Trusted clients")]
pub(in crate::cli) struct TrustedClients {
    /// Accept exactly these client certificates
    #[arg(
        long,
        value_name = "PATH",
        env = "PORTCULLIS_TRUST",
        value_delimiter = ',',
        required_unless_present = "trust_ca",
        value_parser = path(),
        long_help = "Accept exactly these client certificates: a PEM file, or a directory of *.pem, \
                     *.crt and *.cer files. Repeatable. A change is active within a second"
    )]
    pub(in crate::cli) trust: Vec<PathBuf>,

    /// Accept chains to these CA certificates
    #[arg(
        long,
        value_name = "PATH",
        env = "PORTCULLIS_TRUST_CA",
        value_delimiter = ',',
        value_parser = path(),
        long_help = "Accept client certificates with a chain to one of these CA certificates: a PEM \
                     file or a directory, as for --trust. Repeatable"
    )]
    pub(in crate::cli) trust_ca: Vec<PathBuf>,

    /// Interval between scans of the files
    #[arg(
        long,
        value_name = "TIME",
        env = "PORTCULLIS_POLL_INTERVAL",
        default_value = "5s",
        value_parser = positive,
        long_help = "Interval between scans of the files, for file systems that report no changes"
    )]
    pub(in crate::cli) poll_interval: Duration,
}

impl Serve {
    /// Checks flags that need another one.
    pub(in crate::cli) fn validate(&self) -> Result<(), clap::Error> {
        self.server_certificate.acme.validate().map_err(|problem| {
            clap::Error::raw(clap::error::ErrorKind::ValueValidation, format!("{problem}\n"))
        })?;
        if self.listening.proxy_protocol || self.listening.proxy_protocol_from.is_empty() {
            return Ok(());
        }
        let text = "--proxy-protocol-from (PORTCULLIS_PROXY_PROTOCOL_FROM) needs --proxy-protocol: \
                    without it every address is accepted\n";
        Err(clap::Error::raw(clap::error::ErrorKind::MissingRequiredArgument, text))
    }

    /// The server that these flags describe.
    pub(in crate::cli) fn config(&self) -> Config {
        let (timeouts, limits) = (&self.timeouts, &self.limits);
        let (cert, key) = self.server_certificate.pair();
        let mut config = Config::new(cert, key)
            .poll_interval(self.trusted_clients.poll_interval)
            .handshake_timeout(timeouts.handshake_timeout)
            .idle_timeout(timeouts.idle_timeout)
            .head_timeout(timeouts.head_timeout)
            .write_timeout(timeouts.write_timeout)
            .max_connections(limits.max_connections)
            .max_handshakes(limits.max_handshakes)
            .max_head_size(usize::try_from(limits.max_head_size).unwrap_or(usize::MAX))
            .max_headers(limits.max_headers)
            .max_streams(limits.max_streams)
            .max_resets(limits.max_resets)
            .max_stream_errors(limits.max_stream_errors)
            .shutdown_delay(self.shutdown.shutdown_delay)
            .drain_timeout(self.shutdown.drain_timeout);
        if let Some(limit) = timeouts.max_connection_age {
            config = config.max_connection_age(limit);
        }
        if let Some(most) = limits.handshakes_at_once {
            config = config.handshakes_at_once(most);
        }
        if self.listening.proxy_protocol {
            config = match self.listening.proxy_protocol_from.as_slice() {
                [] => config.proxy_protocol(Cidr::PRIVATE),
                from => config.proxy_protocol(from.iter().copied()),
            };
        }
        for address in self.listening.listen.iter().flat_map(|address| address.resolve()) {
            config = config.listen(address);
        }
        for path in &self.trusted_clients.trust {
            config = config.trust(path);
        }
        for path in &self.trusted_clients.trust_ca {
            config = config.trust_ca(path);
        }
        #[cfg(feature = "acme")]
        if self.server_certificate.acme.is_used() {
            config = config.with_awaited_pair();
        }
        config
    }

    /// The settings of the order, if the certificate is ordered.
    #[cfg(feature = "acme")]
    pub(in crate::cli) fn acme(&self) -> Option<crate::acme::Settings> {
        self.server_certificate.acme.settings(self.listening.proxy_protocol)
    }

    /// True if the certificate is ordered, and there is none yet.
    pub(in crate::cli) fn awaits_certificate(&self) -> bool {
        self.server_certificate.acme.is_used() && !self.server_certificate.pair().0.exists()
    }

    /// The access that the process needs once it runs.
    pub(in crate::cli) fn access(&self) -> Access {
        let (cert, key) = self.server_certificate.pair();
        let trusted = self.trusted_clients.trust.iter().chain(&self.trusted_clients.trust_ca);
        let read = [cert, key].into_iter().chain(trusted.cloned()).collect();
        let upstream = self.service.upstream.as_ref();
        let mut access = Access {
            read,
            write: Vec::new(),
            connect: upstream.and_then(Upstream::port).into_iter().collect(),
            resolves: upstream.is_some_and(Upstream::is_name),
            metrics: self.observability.admin.is_some(),
        };
        let acme = &self.server_certificate.acme;
        if acme.is_used() {
            const HTTPS: u16 = 443;
            access.write.extend(acme.acme_cache.clone());
            access.connect.push(acme.acme_directory.port_u16().unwrap_or(HTTPS));
            access.resolves = true;
        }
        access
    }
}
