//! Deadlines and bounds of connections, on the binary.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::shutdown::stuck;
use crate::support::DEADLINE;
use crate::support::files::Files;
use crate::support::pki::PKI;
use crate::support::tls::{connector, request};

#[test]
fn handshake_has_a_deadline_and_a_port_scan_is_no_rejection() {
    let files = Files::trusting(&[&PKI.a]);
    let server = files.start(&["--handshake-timeout", "200ms"]);
    drop(TcpStream::connect(server.addr()).unwrap());
    let mut silent = TcpStream::connect(server.addr()).unwrap();
    // A TLS record is announced, and half a ClientHello comes.
    let mut halting = TcpStream::connect(server.addr()).unwrap();
    halting.write_all(&[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3]).unwrap();
    for stream in [&mut silent, &mut halting] {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let _ = stream.read(&mut [0]).expect("it is closed");
        let address = stream.local_addr().unwrap().to_string();
        let event =
            server.wait_for_event("client_rejected", |event| event["peer"] == address.as_str());
        assert_eq!(event["reason"], "handshake_timeout");
    }
    assert_eq!(server.log().matches("client_rejected").count(), 2, "{}", server.log());
}

#[test]
fn garbage_and_plain_http_have_distinct_reasons() {
    let files = Files::trusting(&[&PKI.a]);
    let server = files.start(&[]);
    for (sent, reason, response) in [
        (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], "plain_http", "HTTP/1.1 400"),
        (b"\x00\x01\x02garbage", "not_tls", ""),
        (b"\x16\x03\x01\x00\x04\x0e\x00\x00\x00", "tls_error", "\x15"),
    ] {
        let mut stream = TcpStream::connect(server.addr()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(sent).unwrap();
        let mut got = Vec::new();
        let _ = stream.read_to_end(&mut got);
        assert!(got.starts_with(response.as_bytes()), "{reason}: {got:?}");
        server.wait_for_event("client_rejected", |event| event["reason"] == reason);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_timeout_closes_idle_connection_and_no_busy_one() {
    let files = Files::trusting(&[&PKI.a]);
    let server = files.start(&["--idle-timeout", "400ms"]);
    let connector = connector(&PKI.a);
    let mut idle = connector.connect(server.addr()).await.unwrap();
    request(&mut idle, "").await.unwrap();
    let mut unused = connector.connect(server.addr()).await.unwrap();
    let busy = stuck(server.addr()).await;
    let begun = Instant::now();
    for stream in [&mut idle, &mut unused] {
        assert_eq!(
            timeout(DEADLINE, stream.read_to_end(&mut Vec::new())).await.unwrap().unwrap(),
            0
        );
    }
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    let mut busy = busy;
    busy.write_all(b"x").await.unwrap();
    let mut response = [0; 15];
    timeout(DEADLINE, busy.read_exact(&mut response)).await.unwrap().unwrap();
    assert_eq!(&response, b"HTTP/1.1 200 OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_above_max_connections_is_refused_until_one_closes() {
    let files = Files::trusting(&[&PKI.a]);
    let server = files.start(&["--max-connections", "1"]);
    let connector = connector(&PKI.a);
    let mut first = connector.connect(server.addr()).await.unwrap();
    request(&mut first, "").await.unwrap();
    assert!(connector.ask(server.addr()).await.is_err());
    server.wait_for_event("client_rejected", |event| event["reason"] == "too_many_connections");
    drop(first);
    let end = Instant::now() + DEADLINE;
    while connector.ask(server.addr()).await.is_err() {
        assert!(Instant::now() < end, "{}", server.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn head_timeout_counts_from_the_first_byte_or_the_handshake() {
    let files = Files::trusting(&[&PKI.a]);
    let server = files.start(&["--head-timeout", "300ms"]);
    let connector = connector(&PKI.a);
    let mut kept = connector.connect(server.addr()).await.unwrap();
    request(&mut kept, "").await.unwrap();
    let mut silent = connector.connect(server.addr()).await.unwrap();
    let mut slow = connector.connect(server.addr()).await.unwrap();
    request(&mut slow, "").await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
    for stream in [&mut silent, &mut slow] {
        let _ = timeout(DEADLINE, stream.read(&mut [0])).await.expect("it is closed");
    }
    // One that only waits between two requests is none of that.
    request(&mut kept, "").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_reads_nothing_is_closed() {
    let files = Files::trusting(&[&PKI.a]);
    let server = files.start(&["--write-timeout", "300ms", "--log", "info,portcullis=debug"]);
    let mut deaf = connector(&PKI.a).connect(server.addr()).await.unwrap();
    let requests = "GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
    let is_closed = async { while deaf.write_all(requests.as_bytes()).await.is_ok() {} };
    timeout(DEADLINE, is_closed).await.expect("it is closed");
    server.wait_for_event("connection_closed", |event| event["reason"] == "slow_reader");
}

#[tokio::test(flavor = "multi_thread")]
async fn max_connection_age_closes_between_two_requests() {
    let files = Files::trusting(&[&PKI.a]);
    let server = files.start(&["--max-connection-age", "300ms"]);
    let mut old = connector(&PKI.a).connect(server.addr()).await.unwrap();
    request(&mut old, "").await.unwrap();
    assert_eq!(timeout(DEADLINE, old.read(&mut [0])).await.unwrap().unwrap(), 0);
    connector(&PKI.a).ask(server.addr()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn head_above_the_limit_is_431_and_a_smaller_one_200() {
    let files = Files::trusting(&[&PKI.a]);
    let server = files.start(&["--max-head-size", "20KiB"]);
    for (size, response) in
        [(18 << 10, "HTTP/1.1 200"), (22 << 10, "HTTP/1.1 431"), (100_000, "HTTP/1.1 431")]
    {
        let mut stream = connector(&PKI.a).connect(server.addr()).await.unwrap();
        let head = format!(
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: {}\r\n\r\n",
            "x".repeat(size)
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut got = Vec::new();
        let _ = timeout(DEADLINE, stream.read_to_end(&mut got)).await.expect("it ends");
        assert!(got.starts_with(response.as_bytes()), "{size}: {}", String::from_utf8_lossy(&got));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_keep_no_client_out() {
    let files = Files::trusting(&[&PKI.a]);
    let server = files.start(&["--max-handshakes", "10", "--handshake-timeout", "1h"]);
    let mut silent: Vec<_> = (0..50).map(|_| TcpStream::connect(server.addr()).unwrap()).collect();
    let begun = Instant::now();
    connector(&PKI.a).ask(server.addr()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    // The oldest was dropped first.
    silent[0].set_read_timeout(Some(DEADLINE)).unwrap();
    let _ = silent[0].read(&mut [0]).expect("it is closed");
    server.wait_for_event("client_rejected", |event| event["reason"] == "too_many_handshakes");
}
