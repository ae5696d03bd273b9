//! A stop by a signal: what is finished, what is aborted, and when.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::support::DEADLINE;
use crate::support::files::Files;
use crate::support::pki::PKI;
use crate::support::tls::{connector, request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn stop_finishes_requests_closes_idle_connections_and_exits_0() {
    let files = Files::trusting(&[&PKI.a]);
    let server = files.start(&[]);
    let connector = connector(&PKI.a);
    let mut idle = connector.connect(server.addr()).await.unwrap();
    request(&mut idle, "").await.unwrap();
    let mut busy = connector.connect(server.addr()).await.unwrap();
    request(&mut busy, "").await.unwrap();
    busy.write_all(
        b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
    )
    .await
    .unwrap();
    // The service has it once the server asks for the body.
    let mut response = vec![0; 25];
    timeout(DEADLINE, busy.read_exact(&mut response)).await.unwrap().unwrap();
    assert!(response.starts_with(b"HTTP/1.1 100"));
    server.signal("TERM");
    server.wait_for_event("draining", |event| event["connections"] == 2);
    let mut rest = Vec::new();
    assert_eq!(timeout(DEADLINE, idle.read_to_end(&mut rest)).await.unwrap().unwrap(), 0);
    // A stopping server ignores SIGHUP.
    server.signal("HUP");
    busy.write_all(b"x").await.unwrap();
    timeout(DEADLINE, busy.read_to_end(&mut rest)).await.unwrap().unwrap();
    let response = String::from_utf8_lossy(&rest).to_lowercase();
    assert!(
        response.contains("connection: close") && response.ends_with("hello world\n"),
        "{response}"
    );
    server.wait_for_event("stopped", |event| event["connections_cut"] == 0);
    let mut server = server;
    assert_eq!(server.exit_code(), Some(0));
}

/// A connection that never finishes its request.
pub(crate) async fn stuck(
    address: SocketAddr,
) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let mut stuck = connector(&PKI.a).connect(address).await.unwrap();
    stuck
        .write_all(
            b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
        )
        .await
        .unwrap();
    let mut response = vec![0; 25];
    timeout(DEADLINE, stuck.read_exact(&mut response)).await.unwrap().unwrap();
    stuck
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_past_the_drain_timeout_are_aborted_and_counted() {
    let files = Files::trusting(&[&PKI.a]);
    let mut server = files.start(&["--drain-timeout", "300ms"]);
    let mut stuck = stuck(server.addr()).await;
    let begun = Instant::now();
    server.signal("TERM");
    server.wait_for_event("stopped", |event| event["connections_cut"] == 1);
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(server.exit_code(), Some(0));
    let _ = timeout(DEADLINE, stuck.read_to_end(&mut Vec::new())).await.expect("it is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn second_signal_stops_at_once() {
    let files = Files::trusting(&[&PKI.a]);
    let mut server = files.start(&["--shutdown-delay", "1h", "--drain-timeout", "1h"]);
    let _stuck = stuck(server.addr()).await;
    server.signal("TERM");
    server.wait_for_event("draining", |_| true);
    server.signal("TERM");
    server.wait_for_event("stopped", |event| event["connections_cut"] == 1);
    assert_eq!(server.exit_code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn lame_duck_accepts_and_sends_connection_close() {
    let files = Files::trusting(&[&PKI.a]);
    let mut server = files.start(&["--shutdown-delay", "2s"]);
    let connector = connector(&PKI.a);
    let mut kept = connector.connect(server.addr()).await.unwrap();
    let response = request(&mut kept, "").await.unwrap().to_lowercase();
    assert!(!response.contains("connection: close"), "{response}");
    server.signal("TERM");
    server.wait_for_event("draining", |_| true);
    let mut new = connector.connect(server.addr()).await.expect("it still accepts");
    for stream in [&mut kept, &mut new] {
        let response = request(stream, "").await.unwrap().to_lowercase();
        assert!(response.contains("connection: close"), "{response}");
        assert_eq!(timeout(DEADLINE, stream.read(&mut [0])).await.unwrap().unwrap(), 0);
    }
    assert_eq!(server.exit_code(), Some(0));
    assert!(TcpStream::connect(server.addr()).is_err());
}
