//! The settings of a server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clock::{Clock, SystemClock};
use crate::reload::{Material, PemSource};
use crate::server::accept::cidr::Cidr;
#[cfg(feature = "acme")]
use crate::server::acme_link::AcmeLink;
use crate::server::limits::Limits;
use crate::trust::Role;

/// The settings of a server that has read no file and opened no socket yet.
///
/// The defaults suit API Gateway; each is documented at its setter.
#[derive(Clone, Debug)]
#[must_use = "it does nothing until it is bound"]
pub struct Config {
    pub(super) listen: Vec<SocketAddr>,
    pub(super) material: Material,
    pub(super) poll_interval: Duration,
    pub(super) shutdown_delay: Duration,
    pub(super) limits: Limits,
    pub(super) clock: Arc<dyn Clock>,
    #[cfg(feature = "acme")]
    pub(super) acme: Option<Arc<AcmeLink>>,
}

impl Config {
    /// A server with this certificate (PEM, the full chain, its own first) and its private key
    /// (PEM: PKCS#8, PKCS#1 or SEC1, not encrypted). It trusts no client yet.
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self::from_sources(PemSource::Path(certificate.into()), PemSource::Path(key.into()))
    }

    /// As [`Config::new`], with PEM texts in place of files. They are never read again: a renewal
    /// takes a new server.
    pub fn from_pem(certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        let bytes = |name: &str, pem: Vec<u8>| PemSource::Bytes(name.into(), pem.into());
        Self::from_sources(
            bytes("<server certificate>", certificate.into()),
            bytes("<server key>", key.into()),
        )
    }

    fn from_sources(certificate: PemSource, key: PemSource) -> Self {
        Self {
            listen: Vec::new(),
            material: Material { certificate, key, is_pair_awaited: false, trust: Vec::new() },
            poll_interval: Duration::from_secs(5),
            shutdown_delay: Duration::ZERO,
            limits: Limits::default(),
            clock: Arc::new(SystemClock),
            #[cfg(feature = "acme")]
            acme: None,
        }
    }

    /// Accepts clients that hold the key of a certificate in this file, or in this directory's
    /// files named `*.pem`, `*.crt` or `*.cer`. May be called again.
    pub fn trust(mut self, path: impl Into<PathBuf>) -> Self {
        self.material.trust.push((Role::Pin, PemSource::Path(path.into())));
        self
    }

    /// As [`Config::trust`], with a PEM text in place of a file; `name` appears in messages.
    pub fn trust_pem(mut self, name: impl Into<PathBuf>, pem: impl Into<Vec<u8>>) -> Self {
        self.material.trust.push((Role::Pin, PemSource::Bytes(name.into(), pem.into().into())));
        self
    }

    /// Accepts clients that present a chain to a CA certificate in this file or directory. May be
    /// called again.
    pub fn trust_ca(mut self, path: impl Into<PathBuf>) -> Self {
        self.material.trust.push((Role::Anchor, PemSource::Path(path.into())));
        self
    }

    /// As [`Config::trust_ca`], with a PEM text in place of a file; `name` appears in messages.
    pub fn trust_ca_pem(mut self, name: impl Into<PathBuf>, pem: impl Into<Vec<u8>>) -> Self {
        self.material.trust.push((Role::Anchor, PemSource::Bytes(name.into(), pem.into().into())));
        self
    }

    /// Listens on this address; port 0 lets the system choose. May be called again. Default: port
    /// 8443 of all addresses of both families, or of IPv4 where the system has no IPv6.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen.push(address);
        self
    }

    /// How often the files are checked where the file system reports no change. 5 s.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// How long a handshake may take, from the accepted socket to its end. 10 s.
    pub fn handshake_timeout(mut self, limit: Duration) -> Self {
        self.limits.handshake_timeout = limit;
        self
    }

    /// How long a connection may have no request in flight. 400 s, longer than API Gateway and
    /// common load balancers keep one.
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.limits.idle_timeout = limit;
        self
    }

    /// How long the server accepts connections after a stop has begun. 0 s.
    pub fn shutdown_delay(mut self, delay: Duration) -> Self {
        self.shutdown_delay = delay;
        self
    }

    /// How long requests in flight may take to finish when the server stops, or when their
    /// certificate is removed. 30 s.
    pub fn drain_timeout(mut self, limit: Duration) -> Self {
        self.limits.drain_timeout = limit;
        self
    }

    /// The highest number of admitted connections at once. 10,000.
    pub fn max_connections(mut self, limit: usize) -> Self {
        self.limits.max_connections = limit.min(Semaphore::MAX_PERMITS);
        self
    }

    /// How long a request's head may take, from its first byte, or from the handshake for the first
    /// one of a connection. 30 s. (In HTTP/2 the idle timeout applies instead.)
    pub fn head_timeout(mut self, limit: Duration) -> Self {
        self.limits.head_timeout = limit;
        self
    }

    /// How long a client may read nothing of the bytes that wait for it. 60 s.
    pub fn write_timeout(mut self, limit: Duration) -> Self {
        self.limits.write_timeout = limit;
        self
    }

    /// How long a connection may live: past that age it finishes its requests in flight, within the
    /// drain timeout, and closes. Default: as long as its certificate is valid.
    pub fn max_connection_age(mut self, limit: Duration) -> Self {
        self.limits.max_connection_age = Some(limit);
        self
    }

    /// The highest number of connections in their handshake at once. When the limit is reached, the
    /// oldest one of the larger group (silent, or begun) is dropped. 4096.
    pub fn max_handshakes(mut self, limit: usize) -> Self {
        self.limits.max_handshakes = limit;
        self
    }

    /// How many handshakes compute at once; the others wait, so that requests run between them. No
    /// more cores than that compute handshakes. 4 for each core of the machine.
    pub fn handshakes_at_once(mut self, limit: usize) -> Self {
        self.limits.handshakes_at_once = limit.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// The largest head of a request, in bytes. 32 KiB; API Gateway sends at most about 20 KiB.
    pub fn max_head_size(mut self, limit: usize) -> Self {
        self.limits.max_head_size = limit;
        self
    }

    /// The highest number of header lines of a request. 100.
    pub fn max_headers(mut self, limit: usize) -> Self {
        self.limits.max_headers = limit;
        self
    }

    /// The highest number of requests of one HTTP/2 connection in flight at once. 100.
    pub fn max_streams(mut self, limit: u32) -> Self {
        self.limits.max_streams = limit;
        self
    }

    /// How many requests of one HTTP/2 connection the client may reset before the server has
    /// accepted them: one more closes the connection with `ENHANCE_YOUR_CALM`. 100.
    pub fn max_resets(mut self, limit: usize) -> Self {
        self.limits.max_resets = limit;
        self
    }

    /// How many requests of one HTTP/2 connection may break the protocol, or arrive while
    /// [`max_streams`](Self::max_streams) are in flight, over its whole life: one more closes the
    /// connection with `ENHANCE_YOUR_CALM`. 1024.
    pub fn max_stream_errors(mut self, limit: usize) -> Self {
        self.limits.max_stream_errors = limit;
        self
    }

    /// Accepts connections only from load balancers with these addresses, each of which must begin
    /// with a PROXY protocol header, version 2. The client's address in it becomes the peer's.
    pub fn proxy_protocol(mut self, from: impl IntoIterator<Item = Cidr>) -> Self {
        self.limits.proxy_protocol_from = Some(from.into_iter().collect());
        self
    }

    /// The clock by which certificates are judged. The system's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}

#[cfg(feature = "acme")]
impl Config {
    /// Starts without the certificate and key if they are not there: they have been ordered.
    pub(crate) fn with_awaited_pair(mut self) -> Self {
        self.material.is_pair_awaited = true;
        self
    }

    /// Lets an ACME directory validate the names.
    pub(crate) fn acme(mut self, link: Arc<AcmeLink>) -> Self {
        self.acme = Some(link);
        self
    }
}
