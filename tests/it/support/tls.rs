//! A TLS client of our own, and a server in this process.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use portcullis::service::Hello;
use portcullis::{Clock, Config, Handle, Running};
use rcgen::KeyPair;
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs::{default_provider, sign::any_supported_type};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, ClientConfig, Error, HandshakeKind, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::DEADLINE;
use super::pki::{Credential, PKI};

pub const BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// A chain and its key, as a client holds them.
#[derive(Clone, Debug)]
pub struct Client(pub Arc<CertifiedKey>);

impl Client {
    pub fn new(chain: &[impl AsRef<[u8]>], key: &KeyPair) -> Self {
        let chain = chain.iter().map(|der| CertificateDer::from(der.as_ref().to_vec())).collect();
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        Self(Arc::new(CertifiedKey::new(chain, any_supported_type(&key).expect("a signing key"))))
    }

    pub fn from_pem(certificate: &str, key: &str) -> Self {
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
        let key = any_supported_type(&key).expect("a signing key");
        Self(Arc::new(CertifiedKey::new(chain.map(Result::unwrap).collect(), key)))
    }
}

/// Presents its certificate whatever the hints are, and remembers them.
#[derive(Debug)]
struct Resolver(Option<Client>, Arc<Mutex<Vec<Vec<u8>>>>);

impl ResolvesClientCert for Resolver {
    fn resolve(&self, hints: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        *self.1.lock().unwrap() = hints.iter().map(|hint| hint.to_vec()).collect();
        self.0.as_ref().map(|client| Arc::clone(&client.0))
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

/// A client's configuration, with its sessions and the hints that it was last given.
#[derive(Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
    hints: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Connector {
    pub fn new(client: Option<&Client>, version: &'static SupportedProtocolVersion) -> Self {
        Self::with_provider(client, version, default_provider())
    }

    /// One that can do no other key exchange than this.
    pub fn with_group(client: &Client, group: &'static dyn SupportedKxGroup) -> Self {
        let provider = CryptoProvider { kx_groups: vec![group], ..default_provider() };
        Self::with_provider(Some(client), &rustls::version::TLS13, provider)
    }

    fn with_provider(
        client: Option<&Client>,
        version: &'static SupportedProtocolVersion,
        provider: CryptoProvider,
    ) -> Self {
        let root = CertificateDer::from_pem_slice(PKI.root.as_bytes()).unwrap();
        Self::with_root(root, client, version, provider)
    }

    /// One that verifies the server by this root.
    pub fn trusting(root: CertificateDer<'_>, client: &Client) -> Self {
        Self::with_root(root, Some(client), &rustls::version::TLS13, default_provider())
    }

    fn with_root(
        root: CertificateDer<'_>,
        client: Option<&Client>,
        version: &'static SupportedProtocolVersion,
        provider: CryptoProvider,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(root.into_owned()).unwrap();
        let hints = Arc::default();
        let resolver = Resolver(client.cloned(), Arc::clone(&hints));
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_cert_resolver(Arc::new(resolver));
        Self { config: Arc::new(config), hints }
    }

    pub fn hints(&self) -> Vec<Vec<u8>> {
        self.hints.lock().unwrap().clone()
    }

    /// One that asks for this protocol by ALPN, and resumes no session of this one.
    pub fn speaking(mut self, protocol: &str) -> Self {
        let config = Arc::make_mut(&mut self.config);
        config.alpn_protocols = vec![protocol.into()];
        config.resumption = rustls::client::Resumption::default();
        self
    }

    /// A ClientHello.
    pub fn hello(&self) -> Vec<u8> {
        let name = ServerName::try_from("localhost").unwrap();
        let client = rustls::ClientConnection::new(Arc::clone(&self.config), name);
        let mut hello = Vec::new();
        client.unwrap().write_tls(&mut hello).unwrap();
        hello
    }

    /// Shakes hands over a connection that is there already.
    pub async fn shake<T>(&self, io: T) -> io::Result<TlsStream<T>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from("localhost").unwrap();
        let connect = TlsConnector::from(Arc::clone(&self.config)).connect(name, io);
        tokio::time::timeout(DEADLINE, connect).await?
    }

    /// Connects. With TLS 1.3 the server may still reject the client after that.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        self.shake(TcpStream::connect(address).await?).await
    }

    /// One request on a connection of its own: the response and how the handshake went.
    pub async fn ask(&self, address: SocketAddr) -> io::Result<(String, HandshakeKind)> {
        let mut stream = self.connect(address).await?;
        let response = request(&mut stream, "Connection: close\r\n").await?;
        // Tickets come with the response.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        Ok((response, stream.get_ref().1.handshake_kind().expect("a handshake")))
    }
}

/// One that presents this, with TLS 1.3.
pub fn connector(credential: &Credential) -> Connector {
    let client = Client::from_pem(&credential.cert, &credential.key);
    Connector::new(Some(&client), &rustls::version::TLS13)
}

/// One request on a connection that stays; the response's body.
pub async fn request<T>(stream: &mut TlsStream<T>, header: &str) -> io::Result<String>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    request_until(stream, header, b"hello world\n").await
}

/// One request on a connection that stays, and what is received up to this.
pub async fn request_until<T>(
    stream: &mut TlsStream<T>,
    header: &str,
    last: &[u8],
) -> io::Result<String>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let exchange = async {
        let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{header}\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut response = Vec::new();
        while !response.ends_with(last) {
            if stream.read_buf(&mut response).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(String::from_utf8_lossy(&response).into_owned())
    };
    tokio::time::timeout(DEADLINE, exchange).await?
}

/// The alert by which the server refused, if it did.
pub fn alert<T>(result: &io::Result<T>) -> Option<AlertDescription> {
    let error = result.as_ref().err()?;
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// A clock that tests set.
#[derive(Debug)]
pub struct SetClock(Mutex<SystemTime>);

impl SetClock {
    pub fn set(&self, time: SystemTime) {
        *self.0.lock().unwrap() = time;
    }
}

impl Clock for SetClock {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }
}

/// A server in this process, with an empty trust directory `trust` beside its own files.
pub struct Site {
    pub dir: TempDir,
    pub clock: Arc<SetClock>,
}

impl Site {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("trust")).unwrap();
        fs::write(dir.path().join("server.pem"), &PKI.server.cert).unwrap();
        fs::write(dir.path().join("server.key"), &PKI.server.key).unwrap();
        let own = fs::Permissions::from_mode(0o600);
        fs::set_permissions(dir.path().join("server.key"), own).unwrap();
        Self { dir, clock: Arc::new(SetClock(Mutex::new(SystemTime::now()))) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file of the trust directory as a careful operator does: whole, then renamed.
    pub fn trust(&self, name: &str, pem: &str) {
        put(&self.path("trust"), name, pem);
    }

    /// The flags of a process with these files, which trusts A.
    pub fn flags(&self, more: &[&str]) -> Vec<String> {
        self.trust("a.pem", &PKI.a.cert);
        let mut flags = super::flags(self.dir.path());
        flags.extend(more.iter().map(|flag| (*flag).to_owned()));
        flags
    }

    pub fn config(&self) -> Config {
        Config::new(self.path("server.pem"), self.path("server.key"))
            .listen(SocketAddr::from(([127, 0, 0, 1], 0)))
            .poll_interval(Duration::from_secs(1))
            .clock(Arc::clone(&self.clock) as Arc<dyn Clock>)
    }

    pub fn serve(&self) -> Server {
        Server::start(self.config().trust(self.path("trust")))
    }
}

pub fn put(directory: &Path, name: &str, pem: &str) {
    let unfinished = directory.join(".unfinished");
    fs::write(&unfinished, pem).unwrap();
    fs::rename(unfinished, directory.join(name)).unwrap();
}

/// A server that runs in this process.
pub struct Server {
    pub address: SocketAddr,
    pub handle: Handle,
    pub running: Running,
}

impl Server {
    pub fn start(config: Config) -> Self {
        let bound = config.bind().unwrap();
        let address = bound.local_addrs()[0];
        let running = bound.serve_hyper(Hello::default());
        Self { address, handle: running.handle(), running }
    }

    /// Asks again and again until the response is of this kind.
    pub async fn until(&self, connector: &Connector, is_in: bool) {
        let end = tokio::time::Instant::now() + DEADLINE;
        while connector.ask(self.address).await.is_ok() != is_in {
            assert!(
                tokio::time::Instant::now() < end,
                "never {}",
                if is_in { "in" } else { "out" }
            );
        }
    }
}
