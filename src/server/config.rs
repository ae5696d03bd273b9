//! What a server is made from, and the loading of it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::ServerName;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};

use crate::clock::{Clock, SystemClock};
use crate::reload::{Loader, Material, NotStartable, Problem, Reload, Severity};
use crate::server::accept::listen::{adopt, listen, listen_by_default};
use crate::server::{Bound, Cidr, Limits};
use crate::trust::Role;

/// How many handshakes are computed on each core before everybody else has a turn.
const AT_ONCE: usize = 4;

/// A server that is configured, and has neither read a file nor opened a socket.
///
/// The defaults suit API Gateway; each is documented at its setter.
#[derive(Clone, Debug)]
#[must_use = "it does nothing until it is bound"]
pub struct Config {
    listen: Vec<SocketAddr>,
    material: Material,
    poll_interval: Duration,
    shutdown_delay: Duration,
    limits: Limits,
    clock: Arc<dyn Clock>,
}

impl Config {
    /// A server with this certificate (PEM, the full chain, its own first) and its private key
    /// (PEM: PKCS#8, PKCS#1 or SEC1, not encrypted). It trusts nobody yet.
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            listen: Vec::new(),
            material: Material {
                certificate: certificate.into(),
                key: key.into(),
                trust: Vec::new(),
            },
            poll_interval: Duration::from_secs(5),
            shutdown_delay: Duration::ZERO,
            limits: Limits {
                handshake_timeout: Duration::from_secs(10),
                idle_timeout: Duration::from_secs(400),
                drain_timeout: Duration::from_secs(30),
                head_timeout: Duration::from_secs(30),
                write_timeout: Duration::from_secs(60),
                max_connection_age: None,
                max_connections: 10_000,
                max_handshakes: 4096,
                max_head_size: 32 << 10,
                max_headers: 100,
                max_streams: 100,
                max_resets: 100,
                max_stream_errors: 1024,
                proxy_protocol_from: None,
                // Asked here: a process that has given up its rights cannot find it out later.
                handshakes_at_once: AT_ONCE * available_parallelism().map_or(1, usize::from),
            },
            clock: Arc::new(SystemClock),
        }
    }

    /// Lets in whoever holds the key of a certificate in this file, or in this directory's files
    /// named `*.pem`, `*.crt` or `*.cer`. May be called again.
    pub fn trust(mut self, path: impl Into<PathBuf>) -> Self {
        self.material.trust.push((Role::Pin, path.into()));
        self
    }

    /// Lets in whoever presents a chain to a CA certificate in this file or directory. May be
    /// called again.
    pub fn trust_ca(mut self, path: impl Into<PathBuf>) -> Self {
        self.material.trust.push((Role::Anchor, path.into()));
        self
    }

    /// Listens at this address; port 0 lets the system choose. May be called again. Without it:
    /// port 8443 of all addresses of both families, or of IPv4 where there is no IPv6.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen.push(address);
        self
    }

    /// How often the files are looked at where the file system tells of no change. 5 s.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// How long a handshake may take, from the accepted socket to its end. 10 s.
    pub fn handshake_timeout(mut self, limit: Duration) -> Self {
        self.limits.handshake_timeout = limit;
        self
    }

    /// How long a connection may go without a request in flight. 400 s, longer than API Gateway
    /// and a load balancer in front keep one.
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.limits.idle_timeout = limit;
        self
    }

    /// How long after a stop has begun connections are still accepted. 0 s.
    pub fn shutdown_delay(mut self, delay: Duration) -> Self {
        self.shutdown_delay = delay;
        self
    }

    /// How long requests in flight may take to finish when the server stops, or when their
    /// certificate is taken away. 30 s.
    pub fn drain_timeout(mut self, limit: Duration) -> Self {
        self.limits.drain_timeout = limit;
        self
    }

    /// How many connections may be let in at once. 10,000.
    pub fn max_connections(mut self, most: usize) -> Self {
        self.limits.max_connections = most.min(Semaphore::MAX_PERMITS);
        self
    }

    /// How long a request's head may take, from its first octet on, or from the handshake on for
    /// the first one of a connection. 30 s. (In HTTP/2 the idle timeout stands in for it.)
    pub fn head_timeout(mut self, limit: Duration) -> Self {
        self.limits.head_timeout = limit;
        self
    }

    /// How long a client may take nothing of what is there for it. 60 s.
    pub fn write_timeout(mut self, limit: Duration) -> Self {
        self.limits.write_timeout = limit;
        self
    }

    /// How long a connection may live: past that it finishes what is in flight, within the drain
    /// time, and ends. Without it: for as long as its certificate.
    pub fn max_connection_age(mut self, limit: Duration) -> Self {
        self.limits.max_connection_age = Some(limit);
        self
    }

    /// How many connections may be in their handshake at once: for one more, the oldest is put
    /// out. 4096.
    pub fn max_handshakes(mut self, most: usize) -> Self {
        self.limits.max_handshakes = most;
        self
    }

    /// How many handshakes compute before all else that is ready has its turn again; the others
    /// wait. No more cores than that compute handshakes. 4 for each core of the machine.
    pub fn handshakes_at_once(mut self, most: usize) -> Self {
        self.limits.handshakes_at_once = most.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// How large the head of a request may be, in octets. 32 KiB; API Gateway sends about 20 KiB
    /// at the most.
    pub fn max_head_size(mut self, most: usize) -> Self {
        self.limits.max_head_size = most;
        self
    }

    /// How many header lines a request may have. 100.
    pub fn max_headers(mut self, most: usize) -> Self {
        self.limits.max_headers = most;
        self
    }

    /// How many requests of one HTTP/2 connection may be in flight at once. 100.
    pub fn max_streams(mut self, most: u32) -> Self {
        self.limits.max_streams = most;
        self
    }

    /// How many requests of one HTTP/2 connection its client may take back before they have been
    /// looked at: for one more the connection is ended with `ENHANCE_YOUR_CALM`. 100.
    pub fn max_resets(mut self, most: usize) -> Self {
        self.limits.max_resets = most;
        self
    }

    /// How many requests of one HTTP/2 connection may break the protocol, or come when
    /// [`max_streams`](Self::max_streams) are in flight, over its whole life: for one more the
    /// connection is ended with `ENHANCE_YOUR_CALM`. 1024.
    pub fn max_stream_errors(mut self, most: usize) -> Self {
        self.limits.max_stream_errors = most;
        self
    }

    /// Takes connections from load balancers only, which have these addresses and begin each with a
    /// PROXY protocol header, version 2. The client's address that it names is the peer's.
    pub fn proxy_protocol(mut self, from: impl IntoIterator<Item = Cidr>) -> Self {
        self.limits.proxy_protocol_from = Some(from.into_iter().collect());
        self
    }

    /// The clock by which certificates are judged. The system's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Reads the files and says all that is wrong with them, and what API Gateway will make of the
    /// server's own. Opens no socket.
    pub fn check(&self) -> CheckReport {
        self.check_for(&[])
    }

    /// The same, where API Gateway will call the server by these names.
    pub fn check_for(&self, names: &[ServerName<'_>]) -> CheckReport {
        let loader = self.load();
        let mut problems = loader.problems();
        problems.extend(loader.judge(names));
        CheckReport { problems, not_startable: loader.first_generation().err() }
    }

    /// Reads the files and listens. Must be called within a tokio runtime.
    ///
    /// A file with faults does not keep the server from starting, as long as its own certificate
    /// is good and somebody is trusted. What was found is said in the log once it serves.
    ///
    /// # Errors
    /// The files do not make a server, or an address cannot be listened at.
    pub fn bind(self) -> Result<Bound, StartError> {
        self.bind_with(Self::listeners)
    }

    /// As [`Config::bind`], with sockets that listen already in place of addresses to listen at: a
    /// service manager has opened them, or a server that ends passes them on.
    ///
    /// # Errors
    /// The files do not make a server, or a socket does not listen.
    pub fn bind_to(self, sockets: Vec<std::net::TcpListener>) -> Result<Bound, StartError> {
        self.bind_with(|_| {
            let adopt = |socket: std::net::TcpListener| {
                let address = socket.local_addr().ok();
                adopt(socket).map_err(|error| StartError::Listen { address, error })
            };
            sockets.into_iter().map(adopt).collect()
        })
    }

    fn bind_with(
        self,
        listeners: impl FnOnce(&Self) -> Result<Vec<TcpListener>, StartError>,
    ) -> Result<Bound, StartError> {
        let loader = self.load();
        let first = match loader.first_generation() {
            Ok(first) => first,
            Err(reason) => {
                return Err(StartError::Material { problems: loader.problems(), reason });
            }
        };
        let listeners = listeners(&self)?;
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>();
        let (asked, who_asks) = mpsc::unbounded_channel();
        Ok(Bound {
            addresses: addresses.map_err(|error| StartError::Listen { address: None, error })?,
            listeners,
            server_file: self.material.certificate.clone(),
            reload: Reload::new(loader, first, self.poll_interval, who_asks),
            limits: self.limits,
            shutdown_delay: self.shutdown_delay,
            asked,
        })
    }

    fn load(&self) -> Loader {
        Loader::new(self.material.clone(), Arc::new(provider()), Arc::clone(&self.clock))
    }

    fn listeners(&self) -> Result<Vec<TcpListener>, StartError> {
        if self.listen.is_empty() {
            let listener = listen_by_default();
            let listener = listener.map_err(|error| StartError::Listen { address: None, error })?;
            return Ok(vec![listener]);
        }
        let listen_at = |address: &SocketAddr| {
            listen(*address).map_err(|error| StartError::Listen { address: Some(*address), error })
        };
        self.listen.iter().map(listen_at).collect()
    }
}

/// rustls' own, with the cheapest cipher suites first: those of SHA-256, which processors compute and
/// which a handshake is full of, are as safe here as those of SHA-384.
pub(crate) fn provider() -> CryptoProvider {
    let mut provider = default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        !matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    });
    provider
}

/// What [`Config::check`] found.
#[derive(Debug)]
pub struct CheckReport {
    /// All that is wrong or odd with the files, faults first.
    pub problems: Vec<Problem>,
    /// Why a server could not start on them, where that is so.
    pub not_startable: Option<NotStartable>,
}

impl CheckReport {
    /// Whether nothing is wrong. Warnings alone are not wrong.
    pub fn is_good(&self) -> bool {
        self.not_startable.is_none()
            && self.problems.iter().all(|problem| problem.severity == Severity::Warning)
    }
}

/// Why a server did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The files do not make a server.
    Material {
        /// All that is wrong or odd with them.
        problems: Vec<Problem>,
        /// What stands in the way of a start.
        reason: NotStartable,
    },
    /// An address cannot be listened at; `None` for the default.
    Listen {
        /// The address.
        address: Option<SocketAddr>,
        /// Why not.
        error: io::Error,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Material { reason, .. } => write!(f, "{reason}"),
            Self::Listen { address, error } => {
                match address {
                    Some(address) => write!(f, "cannot listen at {address} (--listen): {error}"),
                    None => write!(f, "cannot listen at the default [::]:8443 (--listen): {error}"),
                }?;
                match error.kind() {
                    io::ErrorKind::AddrInUse => {
                        write!(f, "; stop what listens there, or choose another port")
                    }
                    io::ErrorKind::AddrNotAvailable => {
                        write!(f, "; give an address of this machine")
                    }
                    io::ErrorKind::PermissionDenied => {
                        write!(f, "; choose a port from 1024 on, or allow CAP_NET_BIND_SERVICE")
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Material { reason, .. } => Some(reason),
            Self::Listen { error, .. } => Some(error),
        }
    }
}
