//! Behind a load balancer with PROXY protocol v2: the client's address, and which peers may send
//! it.

use std::convert::Infallible;
use std::net::SocketAddr;

use crate::support::pki::PKI;
use crate::support::tls::{Connector, Site, connector, request, request_until};
use crate::support::{DEADLINE, Portcullis};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use portcullis::{Cidr, PeerAddr};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const CLIENT: &str = "203.0.113.7:54321";

/// A header that names 203.0.113.7 as the client, with one extension.
fn header() -> Vec<u8> {
    let addresses = [203, 0, 113, 7, 10, 0, 0, 1, 0xd4, 0x31, 0x20, 0xfb];
    let addition = [0xea, 0, 2, 1, 2];
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11", &addresses[..], &addition].concat()
}

/// A health check of the load balancer's own.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

fn a() -> Connector {
    connector(&PKI.a)
}

fn serve(site: &Site, more: &[&str]) -> Portcullis {
    Portcullis::serve(site.flags(&[&["--proxy-protocol"], more].concat()))
}

/// Sends these bytes, then does the handshake.
async fn connect_after(
    bytes: &[u8],
    address: SocketAddr,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(bytes).await?;
    a().shake(socket).await
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_header_names_the_client() {
    let site = Site::new();
    site.trust("a.pem", &PKI.a.cert);
    let config = site.config().trust(site.path("trust")).proxy_protocol(Cidr::PRIVATE);
    let bound = config.bind().unwrap();
    let address = bound.local_addrs()[0];
    let running = bound.serve_hyper(service_fn(|request: Request<Incoming>| async move {
        let PeerAddr(peer) = request.extensions().get().expect("a peer");
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(format!("{peer}\n")))))
    }));
    let mut stream = connect_after(&header(), address).await.unwrap();
    let response = request_until(&mut stream, "", b"\n").await.unwrap();
    assert!(response.ends_with(&format!("\r\n\r\n{CLIENT}\n")), "{response}");
    // Where the load balancer speaks for itself, it is the peer.
    let mut stream = connect_after(LOCAL, address).await.unwrap();
    let own = stream.get_ref().0.local_addr().unwrap();
    let response = request_until(&mut stream, "", b"\n").await.unwrap();
    assert!(response.ends_with(&format!("\r\n\r\n{own}\n")), "{response}");
    running.handle().abort();
    running.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_header_may_come_in_pieces() {
    let site = Site::new();
    let server = serve(&site, &["--proxy-protocol-from", "127.0.0.1"]);
    let mut socket = TcpStream::connect(server.addr()).await.unwrap();
    socket.set_nodelay(true).unwrap();
    for byte in header() {
        socket.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut stream = a().shake(socket).await.unwrap();
    request(&mut stream, "").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rejection_names_the_client_and_not_the_load_balancer() {
    let site = Site::new();
    let server = serve(&site, &[]);
    let mut socket = TcpStream::connect(server.addr()).await.unwrap();
    socket.write_all(&header()).await.unwrap();
    let closed = Connector::new(None, &rustls::version::TLS13);
    let mut stream = closed.shake(socket).await.unwrap();
    assert!(request(&mut stream, "").await.is_err());
    let event = server.wait_for_event("client_rejected", |_| true);
    assert_eq!((&event["reason"], &event["peer"]), (&"no_certificate".into(), &CLIENT.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_from_outside_proxy_protocol_from_is_refused() {
    let site = Site::new();
    let server = serve(&site, &["--proxy-protocol-from", "10.0.0.0/8,127.0.0.2"]);
    assert!(connect_after(&header(), server.addr()).await.is_err());
    let event = server.wait_for_event("client_rejected", |_| true);
    assert_eq!(event["reason"], "proxy_protocol");
    assert!(event["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{event}");
    assert!(event["detail"].as_str().unwrap().contains("--proxy-protocol-from"), "{event}");

    // The twin comes from one of the addresses.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut socket = socket.connect(server.addr()).await.unwrap();
    socket.write_all(&header()).await.unwrap();
    let mut stream = a().shake(socket).await.unwrap();
    request(&mut stream, "").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_without_a_whole_proxy_header_is_refused() {
    let site = Site::new();
    let server = serve(&site, &[]);
    let mut broken = header();
    broken[12] = 0x11;
    for bytes in [&b""[..], b"PROXY TCP4 203.0.113.7 10.0.0.1 54321 8443\r\n", &broken] {
        assert!(connect_after(bytes, server.addr()).await.is_err(), "{bytes:x?}");
        server.wait_for_event("client_rejected", |event| event["reason"] == "proxy_protocol");
    }
    let mut half = TcpStream::connect(server.addr()).await.unwrap();
    half.write_all(&header()[..20]).await.unwrap();
    drop(half);
    server.wait_for_event("client_rejected", |event| {
        event["detail"].as_str().is_some_and(|detail| detail.contains("in the middle"))
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_header_counts_towards_the_handshake_timeout() {
    let site = Site::new();
    let server = serve(&site, &["--handshake-timeout", "300ms"]);
    let mut silent = TcpStream::connect(server.addr()).await.unwrap();
    let mut half = TcpStream::connect(server.addr()).await.unwrap();
    half.write_all(&header()[..20]).await.unwrap();
    for socket in [&mut silent, &mut half] {
        let read = timeout(DEADLINE, socket.read(&mut [0])).await.expect("it is closed");
        assert!(matches!(read, Ok(0) | Err(_)));
        server.wait_for_event("client_rejected", |event| event["reason"] == "handshake_timeout");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_check_is_no_rejection() {
    let site = Site::new();
    let server = serve(&site, &["--log", "info,portcullis=debug"]);
    for bytes in [&b""[..], LOCAL, &header()] {
        let mut socket = TcpStream::connect(server.addr()).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        drop(socket);
        server.wait_for_event("left_without_a_word", |_| true);
    }
    assert!(!server.log().contains("client_rejected"), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_header_without_proxy_protocol_is_not_tls() {
    let site = Site::new();
    let server = Portcullis::serve(site.flags(&[]));
    assert!(connect_after(&header(), server.addr()).await.is_err());
    server.wait_for_event("client_rejected", |event| event["reason"] == "not_tls");
    a().ask(server.addr()).await.unwrap();
}

#[test]
fn proxy_protocol_from_without_proxy_protocol_is_a_usage_error() {
    let site = Site::new();
    for from in ["10.0.0.0/8", "nowhere"] {
        let mut command = Portcullis::command();
        command.arg("check").args(site.flags(&[])).args(["--proxy-protocol-from", from]);
        let finished = crate::support::run(&mut command, "");
        assert_eq!(finished.code, Some(2), "{finished}");
        assert!(finished.stderr.contains("--proxy-protocol"), "{finished}");
    }
}
