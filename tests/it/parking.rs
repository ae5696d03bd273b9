//! An idle connection is parked, and its client does not notice.

use std::fs;

use crate::support::pki::PKI;
use crate::support::tls::{BOTH, Client, Connector, Site, request, request_until};
use crate::support::{DEADLINE, Portcullis, wait_for};
use rustls::SupportedProtocolVersion;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

/// A server that trusts A, and logs when a connection parks.
fn serve(site: &Site, more: &[&str]) -> Portcullis {
    let log = ["--log", "info,portcullis::server=trace"];
    Portcullis::serve(site.flags(&[&log, more].concat()))
}

fn connector(version: &'static SupportedProtocolVersion) -> Connector {
    Connector::new(Some(&Client::from_pem(&PKI.a.cert, &PKI.a.key)), version)
}

/// Waits until connections have parked so many times.
#[track_caller]
fn at_rest(server: &Portcullis, times: usize) {
    let count = || server.log().matches("\"at_rest\"").count();
    assert!(wait_for(DEADLINE, || count() >= times), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_connection_resumes() {
    let site = Site::new();
    for version in BOTH {
        let server = serve(&site, &[]);
        let mut stream = connector(version).connect(server.addr()).await.unwrap();
        for times in 1..=3 {
            request(&mut stream, "").await.unwrap();
            at_rest(&server, times);
        }
        // The beginning of the next head comes with the one before.
        let begun = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET /rest HTT";
        stream.write_all(begun).await.unwrap();
        let mut response = Vec::new();
        while !response.ends_with(b"hello world\n") {
            assert!(stream.read_buf(&mut response).await.unwrap() > 0);
        }
        at_rest(&server, 4);
        assert!(server.log().contains("\"unread\":13"), "{}", server.log());
        let rest = b"P/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(rest).await.unwrap();
        let mut response = String::new();
        timeout(DEADLINE, stream.read_to_string(&mut response)).await.unwrap().unwrap();
        assert!(response.starts_with("HTTP/1.1 200") && response.ends_with("hello world\n"));
        server.wait_for_event("request", |event| event["path"] == "/rest");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_certificate_closes_parked_connection() {
    let site = Site::new();
    let server = serve(&site, &[]);
    let mut stream = connector(BOTH[1]).connect(server.addr()).await.unwrap();
    request(&mut stream, "").await.unwrap();
    at_rest(&server, 1);
    fs::rename(site.path("trust/a.pem"), site.path("a.pem")).unwrap();
    let mut rest = Vec::new();
    let end = timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("it is closed");
    // With a close_notify: without one, rustls makes an error of it.
    assert!(end.is_ok() && rest.is_empty(), "{end:?} {rest:?}");
    server.wait_for_event("connection_closed", |event| event["reason"] == "certificate_removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_connection_does_not_delay_a_stop_and_gets_a_last_response() {
    let site = Site::new();
    let server = serve(&site, &[]);
    let mut stream = connector(BOTH[1]).connect(server.addr()).await.unwrap();
    request(&mut stream, "").await.unwrap();
    at_rest(&server, 1);
    assert_eq!(server.terminate(), Some(0));
    let mut rest = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut rest)).await.unwrap().unwrap();

    let site = Site::new();
    let server = serve(&site, &["--shutdown-delay", "1m"]);
    let mut stream = connector(BOTH[1]).connect(server.addr()).await.unwrap();
    request(&mut stream, "").await.unwrap();
    at_rest(&server, 1);
    server.signal("TERM");
    server.wait_for_event("draining", |_| true);
    let response = request_until(&mut stream, "", b"hello world\n").await.unwrap();
    assert!(response.to_lowercase().contains("connection: close"), "{response}");
    let mut rest = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
}
