//! The binary in front of an application that fails: what the client, the log and the metrics get.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use serde_json::Value;

use crate::admin::site::AdminServer;
use crate::support::files::Files;
use crate::support::h2::{DATA, END_STREAM, H2};
use crate::support::proxy::{App, Reply, connect, read_to_end, send, status};

const IDS: &str = "x-amzn-apigateway-api-id: abc\r\nX-Amzn-Trace-Id: Root=1-2\r\n\
                   traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";

fn site(upstream: SocketAddr, more: &[&str]) -> AdminServer {
    let upstream = format!("http://{upstream}");
    Files::new().serve(&[&["--upstream", upstream.as_str()], more].concat())
}

async fn ask(site: &AdminServer, path: &str, headers: &str) -> String {
    let mut tls = connect(site.server.addr(), "http/1.1").await;
    let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n");
    send(&mut tls, head).await;
    read_to_end(&mut tls).await
}

/// Responds with this to each request; resets the connection after it, or closes it.
fn application(response: Vec<u8>, resets: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                seen.push(byte[0]);
            }
            stream.write_all(&response).unwrap();
            if resets {
                let socket = socket2::SockRef::from(&stream);
                socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
            }
        }
    });
    address
}

fn assert_ids(event: &Value) {
    assert_eq!(event["request_id"].as_str().map(str::len), Some(16), "{event}");
    assert_eq!(event["api_id"], "abc", "{event}");
    assert_eq!(event["trace_id"], "Root=1-2", "{event}");
    assert!(event["traceparent"].as_str().unwrap().starts_with("00-0af765"), "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn response_that_breaks_off_is_one_line_with_its_cause_and_ids() {
    let length = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".to_vec();
    let chunk =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n".to_vec();
    for (cause, response, resets) in [
        ("short_body", length.clone(), false),
        ("reset", length, true),
        ("bad_chunk", chunk, false),
    ] {
        let site = site(application(response, resets), &[]);
        let response = ask(&site, "/broken?secret", IDS).await;
        assert!(response.starts_with("HTTP/1.1 200 ") || resets, "{cause}: {response}");
        let event = site.server.wait_for_event("upstream_failed", |_| true);
        // A reset may overtake the head of the response.
        if resets && event["reason"] == "closed" {
            continue;
        }
        assert_eq!((&event["reason"], &event["cause"]), (&"body".into(), &cause.into()), "{event}");
        assert_eq!((&event["method"], &event["path"]), (&"GET".into(), &"/broken".into()));
        assert_ids(&event);
        let line = site.server.wait_for_event("request", |_| true);
        assert_eq!(line["request_id"], event["request_id"], "{line}");
        assert_eq!(line["cut_off"], true, "{line}");
        assert_eq!(site.server.log().matches("\"upstream_failed\"").count(), 1);
        let failures = site.metric("portcullis_proxy_failures_total{reason=\"body\"}");
        assert_eq!(failures, Some(1.0), "{cause}");
    }
    let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nwhole".to_vec();
    let site = site(application(whole, false), &[]);
    assert!(ask(&site, "/", IDS).await.ends_with("whole"));
    let line = site.server.wait_for_event("request", |_| true);
    assert_eq!(line["cut_off"], Value::Null, "{line}");
    assert!(!site.server.log().contains("upstream_failed"), "{}", site.server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn reset_during_an_upload_is_always_logged_as_a_reset() {
    const ROUNDS: usize = 20;
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".to_vec();
    // It closes with unread input, which resets the connection.
    let site = site(application(response, false), &[]);
    let body = "x".repeat(1 << 20);
    let mut causes = Vec::new();
    for _ in 0..ROUNDS {
        let mut tls = connect(site.server.addr(), "http/1.1").await;
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
        send(&mut tls, head + &body).await;
        read_to_end(&mut tls).await;
        let event = site.server.wait_for_event("upstream_failed", |_| true);
        site.server.forget_events("upstream_failed");
        // The reset may overtake the head of the response.
        if event["reason"] != "closed" {
            causes.push(event["cause"].as_str().unwrap_or_default().to_owned());
        }
    }
    assert!(!causes.is_empty() && causes.iter().all(|cause| cause == "reset"), "{causes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn application_that_closes_without_responding_is_not_called_unreachable() {
    let site = site(application(Vec::new(), false), &[]);
    let response = ask(&site, "/", "").await;
    assert_eq!(status(&response), 502, "{response}");
    assert!(response.contains("closed the connection without responding"), "{response}");
    let event = site.server.wait_for_event("upstream_failed", |_| true);
    assert_eq!(event["reason"], "closed", "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn access_line_refusal_and_problem_have_one_set_of_ids() {
    let app = App::start(|_, _| Reply::ok()).await;
    let site = site(app.address, &["--api-id", "abc", "--max-body", "5B"]);
    let body = "Content-Length: 6\r\n";
    for (headers, expected) in [(IDS.to_owned(), 200), (format!("{IDS}{body}"), 413)] {
        let response = ask(&site, "/", &headers).await;
        assert_eq!(status(&response), expected, "{response}");
        let line = site.server.wait_for_event("request", |it| it["status"] == expected);
        assert_ids(&line);
        if expected != 200 {
            let refusal = site.server.wait_for_event("request_refused", |_| true);
            assert_ids(&refusal);
            let (_, body) = response.split_once("\r\n\r\n").unwrap();
            let problem: Value = serde_json::from_str(body).unwrap();
            assert_ids(&problem);
            assert_eq!(problem["request_id"], line["request_id"]);
            assert_eq!(refusal["request_id"], line["request_id"]);
        }
    }
    let other = IDS.replace("abc", "xyz");
    assert_eq!(status(&ask(&site, "/", &other).await), 403);
    let refusal = site.server.wait_for_event("request_refused", |it| it["reason"] == "api_id");
    assert_eq!(refusal["api_id"], "xyz", "{refusal}");
    let record = app.record();
    assert_eq!(record.requests[0].1.all("traceparent").len(), 1);
    // None is invented.
    ask(&site, "/", "x-amzn-apigateway-api-id: abc\r\n").await;
    let record = app.record();
    assert!(record.requests.last().unwrap().1.all("traceparent").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn head_of_a_response_up_to_its_limits_passes_and_one_above_names_the_limit() {
    for (lines, length, problem) in [
        (101, 10, None),
        (255, 10, None),
        (256, 10, Some(("too many header lines", "more than 256 header lines"))),
        (60, 1000, None),
        (70, 1000, Some(("head of the application's response is too large", "64 KiB"))),
        (200, 1000, Some(("head of the application's response is too large", "64 KiB"))),
    ] {
        // With one line for the length.
        let mut head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n".to_owned();
        let line = |number| format!("X-{number}: {}\r\n", "x".repeat(length));
        head.extend((0..lines).map(line));
        let response = format!("{head}\r\nok").into_bytes();
        let app = App::start(move |_, _| Reply::Send(response.clone())).await;
        let site = site(app.address, &[]);
        let response = ask(&site, "/", "").await;
        let Some((detail, error)) = problem else {
            assert!(response.starts_with("HTTP/1.1 200 "), "{lines} {length}: {response}");
            assert_eq!(response.matches("\r\nx-").count(), lines, "{lines} {length}");
            continue;
        };
        assert_eq!(status(&response), 502, "{lines} {length}: {response}");
        assert!(response.contains(detail), "{lines} {length}: {response}");
        let event = site.server.wait_for_event("upstream_failed", |_| true);
        assert!(event["error"].as_str().unwrap().contains(error), "{event}");
    }
}

/// The status and the body of a POST over HTTP/2 that declares this length.
async fn post_by_h2(site: &AdminServer, length: &str) -> (u16, String) {
    let mut client = H2::connect(site.server.addr()).await;
    let head = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "a"),
        (":path", "/"),
        ("content-length", length),
    ];
    client.headers(1, &head, false).await;
    let length = length.parse().unwrap();
    client.data(1, &vec![b'x'; 10.min(length)], length <= 10).await;
    let status = client.status(1).await.expect("a response");
    let mut body = Vec::new();
    loop {
        let came = client.next(1, &[DATA]).await.expect("a body");
        body.extend(came.payload);
        if came.flags & END_STREAM != 0 {
            return (status, String::from_utf8(body).unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn body_above_the_limit_over_http2_is_a_problem_in_both_modes() {
    let app = App::start(|_, _| Reply::ok()).await;
    let upstream = format!("http://{}", app.address);
    for mode in [&["--upstream", upstream.as_str()][..], &[]] {
        let site = Files::new().serve(&[mode, &["--max-body", "1KiB"]].concat());
        let (status, body) = post_by_h2(&site, "5000000").await;
        assert_eq!(status, 413, "{mode:?}");
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["status"], 413, "{problem}");
        assert_eq!(problem["request_id"].as_str().map(str::len), Some(16), "{problem}");
        assert_eq!(post_by_h2(&site, "10").await.0, 200, "{mode:?}");
    }
}
