//! What every request passes before any service: one host, an allowed method, a whole head. Refused
//! and malformed requests have a reason in the log and in the counters.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::admin::site::{AdminServer, connector};
use crate::support::DEADLINE;
use crate::support::h2::{self, H2, fields, frame};
use crate::support::pki::PKI;

/// Sends bytes on a connection of their own; returns all that the server sends until it closes.
async fn exchange(site: &AdminServer, request: &str) -> String {
    let mut tls = connector(Some(&PKI.a)).connect(site.server.addr()).await.unwrap();
    tls.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    let _ = timeout(DEADLINE, tls.read_to_end(&mut response)).await.expect("the server closes");
    String::from_utf8(response).unwrap()
}

fn malformed(site: &AdminServer, reason: &str) -> Option<f64> {
    site.metric(&format!("portcullis_requests_malformed_total{{reason=\"{reason}\"}}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn request_without_one_host_is_refused_in_front_of_every_service() {
    let site = AdminServer::new();
    for (request, status, reason) in [
        ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 400, "no_host"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "several_hosts"),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "bad_host"),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "authority_differs"),
        ("GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", 400, "bad_host"),
        ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
        ("GET foo HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405, "method"),
    ] {
        let before = malformed(&site, reason);
        let response = exchange(&site, request).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{reason}: {response}");
        assert!(response.contains("application/problem+json"), "{reason}: {response}");
        let event = site.server.wait_for_event("request_refused", |it| it["reason"] == reason);
        let id = event["request_id"].as_str().unwrap();
        assert!(response.contains(id), "{event} {response}");
        assert_eq!(malformed(&site, reason), before.map(|count| count + 1.0), "{reason}");
        site.server.forget_events("request_refused");
    }
    for good in [
        "GET http://a/ HTTP/1.1\r\nHost: a",
        "GET / HTTP/1.1\r\nHost: a:",
        "GET / HTTP/1.1\r\nHost: a:65535",
        "OPTIONS * HTTP/1.1\r\nHost: a",
    ] {
        let response = exchange(&site, &format!("{good}\r\nConnection: close\r\n\r\n")).await;
        assert!(response.starts_with("HTTP/1.1 200 "), "{good}: {response}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_request_with_a_fragment_is_refused_and_one_without_is_served() {
    let site = AdminServer::new();
    let first = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n";
    for (second, status) in [("/2#x", "400"), ("/2", "200")] {
        let last = format!("GET {second} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let responses = exchange(&site, &format!("{first}{last}")).await;
        let statuses: Vec<_> =
            responses.split("HTTP/1.1 ").skip(1).filter_map(|it| it.get(..3)).collect();
        assert_eq!(statuses, ["200", status], "{second}: {responses}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn request_that_cannot_be_parsed_is_logged_with_its_reason_and_counted() {
    let site = AdminServer::new();
    let with = |lines: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    for (request, status, reason) in [
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "bad_target"),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n".to_owned(), 400, "bad_version"),
        (with("X Y: z\r\n"), 400, "bad_header"),
        (with(&"a: b\r\n".repeat(101)), 431, "too_many_headers"),
        (with(&format!("a: {}\r\n", "b".repeat(40_000))), 431, "head_too_large"),
    ] {
        let before = malformed(&site, reason);
        let response = exchange(&site, &request).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{reason}: {response}");
        let event = site.server.wait_for_event("request_malformed", |it| it["reason"] == reason);
        assert!(event["peer"].is_string() && event["certificate"].is_string(), "{event}");
        assert_eq!(malformed(&site, reason), before.map(|count| count + 1.0), "{reason}");
        if reason == "too_many_headers" {
            assert!(event["error"].as_str().unwrap().contains("100 header lines"), "{event}");
        }
    }
    let most = with(&format!("Connection: close\r\n{}", "a: b\r\n".repeat(98)));
    assert!(exchange(&site, &most).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn flood_of_malformed_requests_is_counted_whole_and_logged_in_part() {
    const FLOOD: u32 = 40;
    let site = AdminServer::new();
    let mut connections = Vec::new();
    for _ in 0..FLOOD {
        connections.push(connector(Some(&PKI.a)).connect(site.server.addr()).await.unwrap());
    }
    for connection in &mut connections {
        connection.write_all(b"GET / HTTP/3.0\r\n\r\n").await.unwrap();
        // A task that has used up its budget keeps what it wrote.
        connection.flush().await.unwrap();
    }
    let all = Some(f64::from(FLOOD));
    site.until("all counted", || malformed(&site, "bad_version") == all);
    let lines = site.server.log().matches("\"request_malformed\"").count();
    assert!((1..FLOOD as usize).contains(&lines), "{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_that_fails_names_its_cause() {
    let site = AdminServer::new();
    let mut tls = connector(Some(&PKI.a)).connect(site.server.addr()).await.unwrap();
    tls.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n").await.unwrap();
    let (tcp, _) = tls.get_mut();
    // No TLS record begins like this.
    tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let event = site.server.wait_for_event("connection_closed", |it| it["reason"] == "failed");
    assert!(event["error"].as_str().is_some_and(|error| error.len() > 10), "{event}");
}

/// What h2 handles by itself, as the documentation of the admin port lists it. Where a new version
/// passes one on, it is to be counted.
#[tokio::test(flavor = "multi_thread")]
async fn http2_request_that_the_library_refuses_is_counted_only_if_it_breaks_the_connection() {
    let site = AdminServer::new();
    let mut client = H2::connect(site.server.addr()).await;
    let good = [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/")];
    let with = |field| [&good[..], &[field]].concat();
    for (what, list) in [
        ("no path", good[..3].to_vec()),
        ("an empty path", [&good[..3], &[(":path", "")]].concat()),
        ("two paths", with((":path", "/"))),
        ("a late pseudo-header", [&good[..3], &[("a", "b")], &good[3..]].concat()),
        ("a status", with((":status", "200"))),
        ("a connection header", with(("connection", "close"))),
        ("transfer-encoding", with(("transfer-encoding", "chunked"))),
        ("te", with(("te", "gzip"))),
        ("a length that is no number", with(("content-length", "x"))),
        ("a length without a body", with(("content-length", "5"))),
        ("a protocol", with((":protocol", "websocket"))),
    ] {
        let stream = client.stream();
        client.headers(stream, &list, true).await;
        let came = client.next(stream, &[h2::HEADERS, h2::RST_STREAM]).await;
        assert_eq!(came.map(|it| it.kind), Some(h2::RST_STREAM), "{what}");
    }
    let stream = client.stream();
    let mut block = fields(&good);
    (0..400).for_each(|_| block.extend(fields(&[("a", &"b".repeat(100))])));
    let (first, rest) = block.split_at(16_000);
    client.send(&frame(h2::HEADERS, h2::END_STREAM, stream, first)).await.unwrap();
    for piece in rest.chunks(16_000) {
        let flags = if piece.len() < 16_000 { h2::END_HEADERS } else { 0 };
        client.send(&frame(h2::CONTINUATION, flags, stream, piece)).await.unwrap();
    }
    assert_eq!(client.status(stream).await, Some(431));
    assert!(!client.get().await.unwrap().is_empty());
    let (_, _, metrics) = site.get("/metrics");
    let counted = |line: &&str| {
        line.starts_with("portcullis_requests_malformed_total{") && !line.ends_with(" 0")
    };
    assert_eq!(metrics.lines().filter(counted).collect::<Vec<_>>(), Vec::<&str>::new());

    let stream = client.stream();
    client.headers(stream, &with(("X-Upper", "1")), true).await;
    let event = site.server.wait_for_event("request_malformed", |it| it["reason"] == "http2");
    assert!(event["error"].is_string(), "{event}");
    assert_eq!(malformed(&site, "http2"), Some(1.0));
}
