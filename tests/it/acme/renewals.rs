//! Renewals under load: no client loses a request.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::orders::Client;
use super::pebble::{AcmeServer, DOMAIN, Pebble, Wanted};
use crate::support::h2::H2;
use crate::support::pki::PKI;
use crate::support::proxy::Tls;
use crate::support::tls;

/// Long enough for other tests, short enough that each renewal sees many.
const PAUSE: Duration = Duration::from_millis(10);

/// Connects with the certificate of A, and verifies the server by this root.
async fn connect(address: SocketAddr, root: &str, protocol: &str) -> Tls {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
    let client = tls::Client::from_pem(&PKI.a.cert, &PKI.a.key);
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(client.0)));
    config.alpn_protocols = vec![protocol.into()];
    let name = ServerName::try_from(DOMAIN).unwrap();
    let socket = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap()
}

/// SHA-256 of the certificate that the server presents.
fn fingerprint(tls: &Tls) -> String {
    let leaf = &tls.get_ref().1.peer_certificates().unwrap()[0];
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, leaf);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Clients that send requests until they are told to stop.
struct Load<'a> {
    address: SocketAddr,
    root: &'a str,
    is_done: AtomicBool,
    /// Responses to each client.
    responses: [AtomicU32; 3],
}

impl Load<'_> {
    /// A connection for each request.
    fn reconnect(&self, client: &Client) {
        while !self.is_done() {
            let finished = client.get();
            assert_eq!(finished.stdout, "hello world\n", "{finished}");
            self.count(0);
        }
    }

    /// One connection for all requests: one that closes it loses the next.
    async fn keep_http1(&self) {
        let mut connection = connect(self.address, self.root, "http/1.1").await;
        while !self.is_done() {
            tls::request(&mut connection, "").await.unwrap();
            self.count(1);
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn keep_http2(&self) {
        let connection = connect(self.address, self.root, "h2").await;
        let mut connection = H2::start(connection, 65_535).await.unwrap();
        while !self.is_done() {
            assert_eq!(connection.get().await.unwrap(), "hello world\n");
            self.count(2);
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn count(&self, client: usize) {
        self.responses[client].fetch_add(1, Ordering::Relaxed);
    }

    fn counted(&self) -> [u32; 3] {
        self.responses.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    fn is_done(&self) -> bool {
        self.is_done.load(Ordering::Relaxed)
    }
}

/// Stops the load, also where the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn renewal_changes_certificate_and_key_and_loses_no_request() {
    let renewals = match std::env::var("PORTCULLIS_RENEWALS") {
        Ok(number) => number.parse().unwrap(),
        Err(_) => 2,
    };
    // Renewed when a third is left.
    let pebble = Pebble::start(&Wanted { lifetime: 9, ..Wanted::default() });
    let site = AcmeServer::new();
    let server = site.serve(&pebble, &[]);
    let issued = server.wait_for_event("acme_certificate_issued", |_| true);
    let client = Client::new(&pebble, &server);
    let root = pebble.root();
    let load = Load {
        address: server.addr(),
        root: &root,
        is_done: AtomicBool::new(false),
        responses: Default::default(),
    };
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let presented = || {
        let connection = runtime().block_on(connect(load.address, &root, "http/1.1"));
        fingerprint(&connection)
    };
    let key = || {
        let text = fs::read_to_string(site.pair()).unwrap();
        text.split("-----BEGIN PRIVATE KEY").nth(1).unwrap().to_owned()
    };
    thread::scope(|scope| {
        let _stop = Stop(&load.is_done);
        let clients = [
            scope.spawn(|| load.reconnect(&client)),
            scope.spawn(|| runtime().block_on(load.keep_http1())),
            scope.spawn(|| runtime().block_on(load.keep_http2())),
        ];
        let mut before = (issued["fingerprint"].clone(), key());
        for number in 0..renewals {
            let counted = load.counted();
            let issued = server.wait_for_event("acme_certificate_issued", |_| true);
            let after = (issued["fingerprint"].clone(), key());
            assert_ne!(before.0, after.0, "another certificate");
            assert_ne!(before.1, after.1, "a new key each time");
            assert_eq!(presented(), after.0.as_str().unwrap(), "a new connection gets it");
            before = after;
            for (client, (now, then)) in load.counted().into_iter().zip(counted).enumerate() {
                assert!(now > then, "renewal {number}: client {client} made no request");
            }
            let is_lost = |it: &thread::ScopedJoinHandle<'_, ()>| it.is_finished();
            assert!(!clients.iter().any(is_lost), "renewal {number}\n{}", server.log());
        }
    });
    let (_, status) = super::pebble::ask(&super::pebble::admin(&server), "/status");
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let total: u64 = load.counted().into_iter().map(u64::from).sum();
    assert_eq!(status["trusted"][0]["requests"], total, "each request is one response");
}
