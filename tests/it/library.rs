//! The library as an application uses it.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::support::DEADLINE;
use crate::support::h2::{DATA, END_HEADERS, END_STREAM, GET, H2, HEADERS, frame};
use crate::support::pki::PKI;
use crate::support::tls::{BOTH, Client, Connector, Site};
use axum::extract::Path;
use axum::{Extension, Router, routing::get};
use portcullis::admin::{Admin, Metrics};
use portcullis::{ClientIdentity, PeerAddr};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

async fn get_path(connector: &Connector, address: SocketAddr, path: &str) -> String {
    let mut stream = connector.connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut response = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut response)).await.unwrap().unwrap();
    response
}

#[tokio::test(flavor = "multi_thread")]
async fn axum_router_works_unchanged_and_sees_the_identity() {
    async fn who(
        Extension(client): Extension<ClientIdentity>,
        Extension(PeerAddr(peer)): Extension<PeerAddr>,
        Path(name): Path<String>,
    ) -> String {
        let days =
            |time: SystemTime| time.duration_since(SystemTime::now()).unwrap().as_secs() / 86400;
        format!(
            "{name} {} {} {} {} {} {}",
            client.subject(),
            client.file().file_name().unwrap().display(),
            client.serial().len() <= 16,
            days(client.not_after()),
            client.anchor().is_none(),
            peer.ip(),
        )
    }
    let site = Site::new();
    site.trust("a.pem", &PKI.a.cert);
    let bound = site.config().trust(site.path("trust")).bind().unwrap();
    let address = bound.local_addrs()[0];
    let router = Router::new().route("/who/{name}", get(who));
    let running = bound.serve(router);
    let client = Client::from_pem(&PKI.a.cert, &PKI.a.key);
    for version in BOTH {
        let response = get_path(&Connector::new(Some(&client), version), address, "/who/it").await;
        let expected = "it CN=ApiGateway,L=Seattle,C=US a.pem true 184 true 127.0.0.1";
        assert!(response.ends_with(expected), "{response}");
    }
    let missing = get_path(&Connector::new(Some(&client), BOTH[1]), address, "/nowhere").await;
    assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");

    let handle = running.handle();
    assert_eq!(handle.generation(), 1);
    handle.stop();
    let stopped = timeout(DEADLINE, running.stopped()).await.unwrap();
    assert_eq!(stopped.connections_aborted, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn panicking_service_costs_one_response_and_one_connection() {
    async fn boom() -> &'static str {
        panic!("as it must")
    }
    let metrics = Metrics::install().unwrap();
    let site = Site::new();
    site.trust("a.pem", &PKI.a.cert);
    let bound = site.config().trust(site.path("trust")).bind().unwrap();
    let address = bound.local_addrs()[0];
    let router = Router::new().route("/boom", get(boom)).route("/", get(async || "fine"));
    let running = bound.serve(router);
    let admin = Admin::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let operators = admin.local_addr();
    tokio::spawn(admin.serve(running.handle(), metrics));
    let connector = Connector::new(Some(&Client::from_pem(&PKI.a.cert, &PKI.a.key)), BOTH[1]);
    let response = get_path(&connector, address, "/boom").await;
    assert!(response.starts_with("HTTP/1.1 500"), "{response}");
    let response = get_path(&connector, address, "/").await;
    assert!(response.ends_with("fine"), "{response}");
    let mut stream = TcpStream::connect(operators).await.unwrap();
    let head = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut text = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    assert!(text.contains("\nportcullis_service_panics_total 1\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn handle_lists_problems_and_waits_for_the_next_generation() {
    let site = Site::new();
    site.trust("a.pem", &PKI.a.cert);
    let bound = site.config().trust(site.path("trust")).bind().unwrap();
    let running = bound.serve_hyper(portcullis::service::Hello::default());
    let handle = running.handle();
    handle.reload().await;
    let is_error = |problem: &portcullis::Problem| problem.severity == portcullis::Severity::Error;
    assert!(!handle.problems().iter().any(is_error), "{:?}", handle.problems());
    site.trust("bad.pem", "nothing");
    handle.reload().await;
    assert_eq!(handle.problems()[0].file, site.path("trust/bad.pem"));
    site.trust("b.pem", &PKI.b.cert);
    assert_eq!(timeout(DEADLINE, handle.generation_after(1)).await, Ok(2));
    handle.abort();
    timeout(Duration::from_secs(5), running.stopped()).await.unwrap();
    // No task reads files any more, and none waits for it.
    timeout(DEADLINE, handle.reload()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn server_serves_until_its_future_completes_and_finishes_what_is_in_flight() {
    let site = Site::new();
    site.trust("a.pem", &PKI.a.cert);
    let bound = site.config().trust(site.path("trust")).bind().unwrap();
    let address = bound.local_addrs()[0];
    let (stop, signal) = tokio::sync::oneshot::channel::<()>();
    let (began, has_begun) = tokio::sync::oneshot::channel();
    let (finish, may_finish) = tokio::sync::oneshot::channel::<()>();
    let shared = Arc::new(Mutex::new(Some((began, may_finish))));
    let slow = async move || {
        let (began, may_finish) = shared.lock().unwrap().take().unwrap();
        began.send(()).unwrap();
        may_finish.await.unwrap();
        "finished"
    };
    let router = Router::new().route("/slow", get(slow)).route("/", get(async || "served"));
    let running = bound.serve(router).with_graceful_shutdown(signal);
    let connector = Connector::new(Some(&Client::from_pem(&PKI.a.cert, &PKI.a.key)), BOTH[1]);
    let response = get_path(&connector, address, "/").await;
    assert!(response.ends_with("served"), "{response}");
    let in_flight = {
        let connector = connector.clone();
        tokio::spawn(async move { get_path(&connector, address, "/slow").await })
    };
    timeout(DEADLINE, has_begun).await.unwrap().unwrap();
    stop.send(()).unwrap();
    let refused = async { while TcpStream::connect(address).await.is_ok() {} };
    timeout(DEADLINE, refused).await.unwrap();
    finish.send(()).unwrap();
    let response = in_flight.await.unwrap();
    assert!(response.ends_with("finished"), "{response}");
    assert_eq!(timeout(DEADLINE, running).await.unwrap().connections_aborted, 0);
}

/// What an application's own tests do.
#[cfg(feature = "test-util")]
#[test]
fn identity_for_test_equals_a_verified_one() {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let der = CertificateDer::from_pem_slice(PKI.a.cert.as_bytes()).unwrap();
    let identity = ClientIdentity::for_test(der.to_vec(), "trust/a.pem").unwrap();
    assert_eq!(identity.der(), &*der);
    assert_eq!(identity.fingerprint().to_string().len(), 64);
    assert!(ClientIdentity::for_test(*b"nothing", "x").is_err());
}

/// Relays one connection to `server`, and counts the TLS records with data that the server sends.
fn counting_relay(server: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let records = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&records);
    thread::spawn(move || -> io::Result<()> {
        let (mut client, _) = listener.accept()?;
        let mut server = std::net::TcpStream::connect(server)?;
        let (mut requests, mut to_server) = (client.try_clone()?, server.try_clone()?);
        thread::spawn(move || io::copy(&mut requests, &mut to_server));
        loop {
            let mut record = vec![0; 5];
            server.read_exact(&mut record)?;
            let [kind, _, _, high, low] = record[..] else { unreachable!() };
            record.resize(5 + usize::from(u16::from_be_bytes([high, low])), 0);
            server.read_exact(&mut record[5..])?;
            counted.fetch_add(usize::from(kind == 23), Ordering::Relaxed);
            client.write_all(&record)?;
        }
    });
    (address, records)
}

// With one worker thread, the order of the tasks is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn responses_of_concurrent_streams_are_written_together() {
    const STREAMS: usize = 16;
    let site = Site::new();
    site.trust("a.pem", &PKI.a.cert);
    let bound = site.config().trust(site.path("trust")).bind().unwrap();
    let (address, records) = counting_relay(bound.local_addrs()[0]);
    let _running = bound.serve_hyper(portcullis::service::Hello::default());
    let client = Client::from_pem(&PKI.a.cert, &PKI.a.key);
    let connector = Connector::new(Some(&client), BOTH[1]).speaking("h2");
    let mut h2 = H2::start(connector.connect(address).await.unwrap(), 65_535).await.unwrap();
    assert_eq!(h2.get().await.unwrap(), "hello world\n");

    let before = records.load(Ordering::Relaxed);
    let requests: Vec<_> = (0..STREAMS)
        .flat_map(|_| frame(HEADERS, END_STREAM | END_HEADERS, h2.stream(), GET))
        .collect();
    h2.send(&requests).await.unwrap();
    let mut responses = 0;
    while responses < STREAMS {
        let frame = h2.receive().await.unwrap();
        responses += usize::from(frame.kind == DATA && frame.flags & END_STREAM != 0);
    }
    let records = records.load(Ordering::Relaxed) - before;
    assert!(records <= STREAMS / 4, "{records} records for {STREAMS} responses");
}
