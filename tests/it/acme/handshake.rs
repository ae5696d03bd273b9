//! The handshake without a client certificate: who gets it, and that it leads nowhere.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, HandshakeKind, SignatureScheme,
    SupportedProtocolVersion,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::directory::{Behaviour, Directory};
use super::pebble::{AcmeServer, DOMAIN, admin, ask};
use crate::support::pki::PKI;
use crate::support::tls::{BOTH, Client};
use crate::support::{DEADLINE, Portcullis, wait_for};

pub(super) const ACME: &str = "acme-tls/1";
/// The OID of the extension that proves a name, as DER. (RFC 8737, 6.1)
const PROOF: [u8; 10] = [6, 8, 0x2b, 6, 1, 5, 5, 7, 1, 0x1f];

/// A server that presents a certificate for the name, and has it validated for the next one.
pub(super) struct Validating {
    pub(super) server: Portcullis,
    admin: String,
    _directory: Directory,
    _site: AcmeServer,
}

impl Validating {
    pub(super) fn start() -> Self {
        let directory = Directory::start(Behaviour::NeverValidates);
        let site = AcmeServer::new();
        site.fill_cache(-1..60);
        let flags = site.flags(&directory.url(), &directory.ca(), &[DOMAIN, "two.example"]);
        let server = Portcullis::serve(flags);
        let admin = admin(&server);
        let validating = Self { server, admin, _directory: directory, _site: site };
        let connector = Connector::new(&[ACME], &rustls::version::TLS13, None);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let mut proof = Ok(HandshakeKind::Full);
        let is_open = || {
            proof = runtime.block_on(connector.proof(validating.addr(), DOMAIN));
            proof.is_ok()
        };
        let is_open = wait_for(DEADLINE, is_open);
        assert!(is_open, "{proof:?}\n{}", validating.server.log());
        validating
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// The value of a series.
    pub(super) fn metric(&self, series: &str) -> f64 {
        let (_, metrics) = ask(&self.admin, "/metrics");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("{series} ")));
        line.and_then(|value| value.parse().ok()).unwrap_or_default()
    }
}

/// A client that takes any certificate and remembers no verdict of its own.
pub(super) struct Connector(TlsConnector);

impl Connector {
    pub(super) fn new(
        alpn: &[&str],
        version: &'static SupportedProtocolVersion,
        client: Option<&Client>,
    ) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(provider)));
        let mut config = match client {
            None => config.with_no_client_auth(),
            Some(client) => config.with_client_cert_resolver(Arc::new(
                rustls::sign::SingleCertAndKey::from(Arc::clone(&client.0)),
            )),
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Self(TlsConnector::from(Arc::new(config)))
    }

    /// The bytes of a ClientHello.
    pub(super) fn hello(&self, name: &str) -> Vec<u8> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let config = Arc::clone(self.0.config());
        let mut session = rustls::ClientConnection::new(config, name).unwrap();
        let mut hello = Vec::new();
        session.write_tls(&mut hello).unwrap();
        hello
    }

    async fn connect(&self, addr: SocketAddr, name: &str) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connect = self.0.connect(name, TcpStream::connect(addr).await?);
        tokio::time::timeout(DEADLINE, connect).await?
    }

    /// The handshake of a validation, to its clean end: how it went.
    pub(super) async fn proof(&self, addr: SocketAddr, name: &str) -> io::Result<HandshakeKind> {
        let mut tls = self.connect(addr, name).await?;
        let (_, session) = tls.get_ref();
        let has_proof = session.peer_certificates().unwrap()[0]
            .windows(PROOF.len())
            .any(|bytes| bytes == PROOF);
        if !has_proof {
            return Err(io::Error::other("not the certificate of the challenge"));
        }
        assert_eq!(session.alpn_protocol(), Some(ACME.as_bytes()));
        let kind = session.handshake_kind().unwrap();
        let mut rest = Vec::new();
        tokio::time::timeout(DEADLINE, tls.read_to_end(&mut rest)).await??;
        assert_eq!(rest, b"", "nothing is sent");
        assert_eq!(tls.get_ref().1.tls13_tickets_received(), 0);
        Ok(kind)
    }

    /// The response to a request. In TLS 1.3 a rejection shows only then.
    pub(super) async fn request(&self, addr: SocketAddr, name: &str) -> io::Result<String> {
        let mut tls = self.connect(addr, name).await?;
        let head = format!("GET /secret HTTP/1.1\r\nHost: {DOMAIN}\r\nConnection: close\r\n\r\n");
        tls.write_all(head.as_bytes()).await?;
        let mut response = String::new();
        tokio::time::timeout(DEADLINE, tls.read_to_string(&mut response)).await??;
        Ok(response)
    }
}

#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    // webpki does not parse a certificate with the critical extension of a challenge.
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

pub(super) fn accepted() -> Client {
    Client::from_pem(&PKI.a.cert, &PKI.a.key)
}

#[tokio::test]
async fn validation_gets_its_proof_a_clean_close_and_no_session() {
    let validating = tokio::task::spawn_blocking(Validating::start).await.unwrap();
    for version in BOTH {
        let connector = Connector::new(&[ACME], version, None);
        for _ in 0..2 {
            let kind = connector.proof(validating.addr(), DOMAIN).await.unwrap();
            assert_eq!(kind, HandshakeKind::Full, "{version:?}");
        }
    }
}

#[tokio::test]
async fn request_after_a_validation_reaches_nothing() {
    let validating = tokio::task::spawn_blocking(Validating::start).await.unwrap();
    for version in BOTH {
        let connector = Connector::new(&[ACME], version, None);
        let response = connector.request(validating.addr(), DOMAIN).await.unwrap();
        assert_eq!(response, "", "{version:?}");
    }
    let before = validating.metric("portcullis_handshakes_total{result=\"accepted\"}");
    assert_eq!(before, 0.0, "it counts as no client");
    // One that is accepted shows that the log and the counters work.
    let connector = Connector::new(&["http/1.1"], &rustls::version::TLS13, Some(&accepted()));
    let response = connector.request(validating.addr(), DOMAIN).await.unwrap();
    assert!(response.contains("hello world"), "{response}");
    let line = validating.server.wait_for_event("request", |_| true);
    assert_eq!(line["path"], "/secret");
    assert_eq!(validating.server.log().matches("/secret").count(), 1);
    assert_eq!(validating.metric("portcullis_handshakes_total{result=\"accepted\"}"), 1.0);
}

#[tokio::test]
async fn everything_else_gets_the_strict_handshake_during_a_validation() {
    let validating = tokio::task::spawn_blocking(Validating::start).await.unwrap();
    let addr = validating.addr();
    for version in BOTH {
        for (alpn, name) in [
            (&[ACME, "h2"][..], DOMAIN),
            (&["h2", ACME], DOMAIN),
            (&[ACME, "http/1.1"], DOMAIN),
            (&[ACME, ACME], DOMAIN),
            (&["http/1.1"], DOMAIN),
            (&[], DOMAIN),
            (&[ACME], "other.example"),
            // Without SNI.
            (&[ACME], "127.0.0.1"),
        ] {
            let anonymous = Connector::new(alpn, version, None);
            let proof = anonymous.proof(addr, name).await;
            assert!(proof.is_err(), "{alpn:?} {name} {version:?}");
            let response = anonymous.request(addr, name).await;
            assert!(response.is_err(), "{alpn:?} {name} {version:?}: {response:?}");
        }
        for alpn in [&["http/1.1"][..], &[], &[ACME, "http/1.1"]] {
            let client = Connector::new(alpn, version, Some(&accepted()));
            let response = client.request(addr, DOMAIN).await.unwrap();
            assert!(response.contains("hello world"), "{alpn:?} {version:?}: {response}");
        }
        // An accepted client does not get past its certificate by the other handshake either.
        let client = Connector::new(&[ACME], version, Some(&accepted()));
        assert_eq!(client.request(addr, DOMAIN).await.unwrap(), "");
    }
}

#[tokio::test]
async fn outside_a_validation_nothing_gets_the_relaxed_handshake() {
    let directory = Directory::start(Behaviour::Works);
    let site = AcmeServer::new();
    let flags = site.flags(&directory.url(), &directory.ca(), &[DOMAIN]);
    let server = tokio::task::spawn_blocking(move || {
        let server = Portcullis::serve(flags);
        server.wait_for_event("acme_certificate_issued", |_| true);
        server
    });
    let server = server.await.unwrap();
    for version in BOTH {
        let anonymous = Connector::new(&[ACME], version, None);
        assert!(anonymous.connect(server.addr(), DOMAIN).await.is_err());
    }
    let client = Connector::new(&["http/1.1"], &rustls::version::TLS13, Some(&accepted()));
    assert!(client.request(server.addr(), DOMAIN).await.unwrap().contains("hello world"));
}
