//! The proxy between real sockets: what reaches the application, what comes back, and what happens
//! when either side fails.

mod support;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use portcullis::service::{ApiId, Authorize, Proxy, Upstream};
use portcullis::{ClientIdentity, PeerAddr};
use sha2_of::sha256;
use support::DEADLINE;
use support::pki::PKI;
use support::proxy::{
    App, Front, Reply, Seen, connect, is_silent, read_to_end, read_until, send, status,
};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::timeout;

/// SHA-256 without one more dependency.
mod sha2_of {
    pub fn sha256(bytes: &[u8]) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn der() -> Vec<u8> {
    use rustls::pki_types::pem::PemObject as _;
    rustls::pki_types::CertificateDer::from_pem_slice(PKI.a.cert.as_bytes()).unwrap().to_vec()
}

fn client_cert() -> String {
    use base64::Engine as _;
    format!(":{}:", base64::engine::general_purpose::STANDARD.encode(der()))
}

async fn echoing(_: ()) -> (App, Front) {
    let app = App::start(|_, _| Reply::ok()).await;
    let front = Front::before(&app);
    (app, front)
}

async fn seen_of(headers: &str) -> Seen {
    let (app, front) = echoing(()).await;
    let answer = front.get("/path?query=1", headers).await;
    assert_eq!(status(&answer), 200, "{answer}");
    app.record().whole()[0].clone()
}

#[tokio::test]
async fn the_application_is_told_who_asks() {
    let seen = seen_of("").await;
    assert_eq!(seen.line(), "GET /path?query=1 HTTP/1.1");
    assert_eq!(seen.all("host"), ["a"]);
    assert_eq!(seen.all("client-cert"), [client_cert()]);
    assert_eq!(seen.all("x-client-cert-fingerprint"), [sha256(&der())]);
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["https"]);
    assert_eq!(seen.all("via"), ["1.1 portcullis"]);
    assert!(seen.all("connection").is_empty());
}

#[tokio::test]
async fn nobody_else_tells_the_application_who_asks() {
    let forged = [
        "Client-Cert",
        "client_cert",
        "CLIENT-CERT-CHAIN",
        "Client_Cert_Chain",
        "Client.Cert",
        "X-Forwarded-Client-Cert",
        "X_Forwarded_Client_Cert",
        "X-Forwarded_Client-Cert",
        "X-SSL-Cert",
        "X_SSL_Client_Verify",
        "x-ssl-client-s-dn",
        "X.SSL.Client",
        "X!SSL!Client",
        "X-Client-Cert-Fingerprint",
        "X_Client_Cert_Fingerprint",
        "X-Client-Cert-Anything",
        "X-Client-Cert",
        "X-Amzn-Mtls-Clientcert",
        "X_Amzn_Mtls_Clientcert_Subject",
        "SSL-Client-Verify",
        "SSL_CLIENT_CERT",
        "X-ARR-ClientCert",
        "X-Forwarded-Tls-Client-Cert",
        "Cf-Client-Cert-Der-Base64",
        "Forwarded",
        "X-Real-IP",
        "X_Real_IP",
        "X_Forwarded_For",
        "X_Forwarded_Proto",
        "X-Forwarded_Proto",
        "X_Amzn_Apigateway_Api_Id",
        "Content_Length",
        "Transfer_Encoding",
        "Expect",
        "Proxy_Connection",
    ];
    for name in forged {
        let value = if name == "Expect" { "100-continue" } else { "forged" };
        let seen = seen_of(&format!("{name}: {value}\r\nX-Stays: 1\r\n")).await;
        assert!(!seen.head.contains(value), "{name}: {}", seen.head);
        assert_eq!(seen.all("x-stays"), ["1"]);
    }
}

#[tokio::test]
async fn what_was_meant_for_the_connection_stays_on_it() {
    let seen = seen_of(
        "Connection: keep-alive, X-Hop,client-cert , x-forwarded-for, host\r\nX-Hop: 1\r\n\
         Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\n\
         Upgrade: websocket\r\nProxy-Authorization: Basic eA==\r\nX-Forwarded-For: 192.0.2.1\r\n\
         HTTP2-Settings: AAAA\r\nX-Stays: 1\r\n",
    )
    .await;
    let names = seen.names();
    for gone in ["connection", "x-hop", "keep-alive", "proxy-connection", "te", "upgrade"] {
        assert!(!names.iter().any(|name| name == gone), "{gone}: {}", seen.head);
    }
    assert!(!names.iter().any(|name| name.starts_with("proxy-") || name == "http2-settings"));
    assert_eq!(seen.all("x-stays"), ["1"]);
    assert_eq!(seen.all("host"), ["a"]);
    // They cannot be named away.
    assert_eq!(seen.all("client-cert"), [client_cert()]);
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
}

#[tokio::test]
async fn what_else_came_reaches_the_application_as_it_came() {
    let seen = seen_of(
        "X-Amzn-Trace-Id: Root=1-a-b\r\nx-amzn-apigateway-api-id: abc123\r\nX-B: 2\r\n\
         X-Forwarded-Port: 443\r\nX-Forwarded-For: 192.0.2.1\r\nX-A: 1\r\nX-B: 3\r\n\
         X-Forwarded-For: 192.0.2.2, 192.0.2.3\r\nX-Forwarded-Proto: http\r\nVia: 1.1 first\r\n\
         Cookie: a=b\r\nCookie: c=d\r\nAuthorization: Bearer x\r\nX-Latin: \u{e9}\r\n",
    )
    .await;
    assert_eq!(seen.all("x-amzn-trace-id"), ["Root=1-a-b"]);
    assert_eq!(seen.all("x-amzn-apigateway-api-id"), ["abc123"]);
    assert_eq!(seen.all("x-forwarded-port"), ["443"]);
    assert_eq!(seen.all("x-forwarded-for"), ["192.0.2.1, 192.0.2.2, 192.0.2.3, 127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["https"]);
    assert_eq!(seen.all("via"), ["1.1 first, 1.1 portcullis"]);
    assert_eq!(seen.all("x-b"), ["2", "3"]);
    assert_eq!(seen.all("cookie"), ["a=b", "c=d"]);
    assert_eq!(seen.all("authorization"), ["Bearer x"]);
    assert_eq!(seen.all("x-latin"), ["\u{e9}"]);
    let names = seen.names();
    let order: Vec<_> = names
        .iter()
        .filter(|name| ["host", "x-amzn-trace-id", "x-b", "x-a"].contains(&name.as_str()))
        .collect();
    assert_eq!(order, ["host", "x-amzn-trace-id", "x-b", "x-b", "x-a"]);
}

#[tokio::test]
async fn an_answer_comes_back_without_what_was_meant_for_its_connection() {
    let app = App::start(|_, _| {
        Reply::text(
            "HTTP/1.1 299 Fine\r\nX-B: 1\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\
             Keep-Alive: timeout=5\r\nUpgrade: a\r\nProxy-Connection: b\r\nX-A: 2\r\nX-B: 3\r\n\
             Set-Cookie: a=b\r\nSet-Cookie: c=d\r\nContent-Length: 2\r\n\r\nok",
        )
    })
    .await;
    let answer = Front::before(&app).get("/", "").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "ok");
    let names: Vec<_> = head.lines().skip(1).filter_map(|line| line.split(':').next()).collect();
    assert_eq!(
        names,
        ["x-b", "x-b", "x-a", "set-cookie", "set-cookie", "content-length", "connection", "date"],
        "{head}"
    );
    assert!(head.starts_with("HTTP/1.1 299 Fine\r\n"), "{head}");
    assert!(head.contains("connection: close"), "our own: {head}");
}

#[tokio::test]
async fn answers_without_a_body_are_framed_so() {
    for (request, reply, head_has, has_not) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "content-length: 5", "chunked"),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "200 OK",
            "content-length",
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", "204", "content-length"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", "etag: \"a\"", "chunked"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "304", "chunked"),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "content-length: 0", "chunked"),
        (
            "GET",
            "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
            "204",
            "103",
        ),
        ("GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", "204", "100"),
    ] {
        let app = App::start(move |_, _| Reply::text(reply)).await;
        let front = Front::before(&app);
        let mut tls = front.connect().await;
        // The second answer is read right only if the first one was framed right.
        for _ in 0..2 {
            send(&mut tls, format!("{request} / HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            let head = read_until(&mut tls, "\r\n\r\n").await;
            assert!(head.contains(head_has) && !head.contains(has_not), "{reply}: {head}");
        }
        assert_eq!(app.record().connections, 1, "kept alive");
    }
}

#[tokio::test]
async fn bodies_of_all_framings_pass_both_ways() {
    for reply in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\n\r\nhello",
    ] {
        let app = App::start(move |_, _| {
            let is_delimited = reply.contains("Length") || reply.contains("chunked");
            let bytes = reply.as_bytes().to_vec();
            if is_delimited { Reply::Send(bytes) } else { Reply::SendAndClose(bytes) }
        })
        .await;
        let front = Front::before(&app);
        let mut tls = front.connect().await;
        for framing in [
            "Content-Length: 2\r\n\r\nhi",
            "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        ] {
            send(&mut tls, format!("PUT / HTTP/1.1\r\nHost: a\r\n{framing}")).await;
            let is_chunked = !reply.contains("Length: 5");
            let end = if is_chunked { "\r\n0\r\n\r\n" } else { "hello" };
            let answer = read_until(&mut tls, end).await;
            assert_eq!(answer.contains("content-length: 5"), !is_chunked, "{reply}: {answer}");
        }
        let record = app.record();
        let whole = record.whole();
        assert_eq!(whole[0].all("content-length"), ["2"]);
        assert_eq!(whole[1].all("transfer-encoding"), ["chunked"]);
        assert!(whole.iter().all(|seen| seen.body == b"hi"));
    }
    // To a client of HTTP/1.0 what is chunked ends with the connection.
    let app = App::start(|_, _| {
        Reply::text("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    })
    .await;
    let answer = Front::before(&app).exchange("GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.ends_with("\r\n\r\nhello") && !answer.contains("chunked"), "{answer}");
    assert_eq!(app.record().whole()[0].all("host"), [app.address.to_string()]);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_a_finished_one() {
    for (reply, end) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "hello"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "5\r\nhello\r\n"),
    ] {
        let app = App::start(move |_, _| Reply::SendAndClose(reply.as_bytes().to_vec())).await;
        let answer = Front::before(&app).exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(answer.ends_with(end), "{answer}");
    }
}

#[tokio::test]
async fn announced_trailers_pass_both_ways() {
    let app = App::start(|_, _| {
        Reply::text(
            "HTTP/1.1 200 OK\r\nTrailer: X-Sum, Client-Cert\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n",
        )
    })
    .await;
    let front = Front::before(&app);
    let mut tls = front.connect().await;
    send(
        &mut tls,
        "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: X-Sum, X_SSL_Cert, Client-Cert\r\n\
         Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 2\r\nX_SSL_Cert: forged\r\n\
         Client-Cert: forged\r\n\r\n",
    )
    .await;
    let answer = read_until(&mut tls, "0\r\nx-sum: 1\r\n\r\n").await;
    assert!(answer.contains("trailer: X-Sum"), "{answer}");
    let record = app.record();
    let seen = record.whole()[0];
    assert_eq!(seen.trailers.to_lowercase(), "x-sum: 2\r\n");
    assert_eq!(seen.all("trailer"), ["X-Sum, X_SSL_Cert, Client-Cert"]);
}

#[tokio::test]
async fn a_client_that_expects_100_continue_gets_it_and_the_application_never_hears() {
    let (app, front) = echoing(()).await;
    let mut tls = front.connect().await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    send(&mut tls, head).await;
    let interim = read_until(&mut tls, "\r\n\r\n").await;
    assert!(interim.starts_with("HTTP/1.1 100 Continue\r\n"), "{interim}");
    send(&mut tls, "hi").await;
    read_until(&mut tls, "ok").await;
    let record = app.record();
    assert_eq!(record.whole()[0].body, b"hi");
    assert!(record.whole()[0].all("expect").is_empty());
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_announced_or_not() {
    let app = App::start(|_, _| Reply::ok()).await;
    let front = Front::of(Proxy::new(app.upstream()).max_body(5));
    let head = "POST / HTTP/1.1\r\nHost: a\r\n";
    // One that is announced is not even asked for.
    let expecting = format!("{head}Expect: 100-continue\r\nContent-Length: 6\r\n\r\n");
    let answer = front.exchange(expecting).await;
    assert_eq!(status(&answer), 413, "{answer}");
    assert!(app.record().requests.is_empty());

    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
    let answer = front.exchange(format!("{chunked}3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")).await;
    assert_eq!(status(&answer), 413, "{answer}");
    let record = app.until("closed", |record| record.open == 0).await;
    assert!(record.whole().is_empty());

    let mut tls = front.connect().await;
    send(&mut tls, format!("{head}Content-Length: 5\r\n\r\nabcde")).await;
    read_until(&mut tls, "ok").await;
    send(&mut tls, format!("{chunked}3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")).await;
    read_until(&mut tls, "ok").await;
    let record = app.record();
    assert!(record.whole().iter().all(|seen| seen.body == b"abcde"));
}

#[tokio::test]
async fn server_sent_events_arrive_as_they_are_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = Front::of(Proxy::new(url(&listener)));
    let mut tls = front.connect().await;
    send(&mut tls, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut app, _) = listener.accept().await.unwrap();
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        assert_ne!(app.read_buf(&mut request).await.unwrap(), 0);
    }
    app.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n").await.unwrap();
    read_until(&mut tls, "\r\n\r\n").await;
    for number in 0..3 {
        // The next one is sent only once this one has arrived.
        app.write_all(format!("data: {number}\n\n").as_bytes()).await.unwrap();
        read_until(&mut tls, &format!("data: {number}\n\n\r\n")).await;
    }
    drop(app);
    read_until(&mut tls, "0\r\n\r\n").await;
}

fn url(listener: &TcpListener) -> Upstream {
    format!("http://{}", listener.local_addr().unwrap()).parse().unwrap()
}

fn problem(answer: &str) -> serde_json::Value {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: application/problem+json"), "{answer}");
    let problem: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(problem["status"], status(answer));
    assert_eq!(problem["request_id"].as_str().unwrap().len(), 16);
    problem
}

#[tokio::test]
async fn failures_of_the_application_are_told_apart() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = url(&nobody);
    drop(nobody);
    let short = Duration::from_millis(50);
    let answer = Front::of(Proxy::new(upstream.clone()).connect_timeout(short)).get("/", "").await;
    assert_eq!(status(&answer), 502);
    let told = problem(&answer);
    assert!(!answer.contains(&upstream.to_string()[7..]), "nothing internal: {told}");

    let app = App::start(|_, _| Reply::Close).await;
    let answer = Front::before(&app).get("/", "").await;
    assert_eq!((status(&answer), &problem(&answer)["title"]), (502, &"Bad Gateway".into()));
    assert_eq!(app.record().requests.len(), 1, "a new connection is no reason to try again");

    let app = App::start(|_, _| Reply::Hang).await;
    let answer = Front::of(Proxy::new(app.upstream()).timeout(short)).get("/", "").await;
    assert_eq!((status(&answer), &problem(&answer)["title"]), (504, &"Gateway Timeout".into()));
    app.until("cancelled", |record| record.open == 0).await;

    let app = App::start(|_, _| Reply::text("HTTP/1.1 200 OK\r\nContent-Le")).await;
    let answer = Front::of(Proxy::new(app.upstream()).timeout(short)).get("/", "").await;
    assert_eq!(status(&answer), 504, "half a head is none: {answer}");
}

#[tokio::test]
async fn an_application_that_accepts_nothing_is_a_timeout() {
    // One that listens and whose queue is full answers no handshake.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let mut queued = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(
        Duration::from_millis(100),
        tokio::net::TcpStream::connect(listener.local_addr().unwrap()),
    )
    .await
    {
        queued.push(stream);
    }
    let proxy = Proxy::new(url(&listener)).connect_timeout(Duration::from_millis(100));
    let answer = Front::of(proxy).get("/", "").await;
    assert_eq!(status(&answer), 504, "{answer}");
}

/// An application whose first connection ends, once it has answered one request, when the next one
/// has reached it.
async fn ending_on_the_second_request() -> App {
    App::start(|_, at| if at == 1 { Reply::Close } else { Reply::ok() }).await
}

#[tokio::test]
async fn a_request_is_sent_again_only_where_that_is_safe() {
    for (request, outcome, requests) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200, 3),
        ("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", 200, 3),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 200, 3),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", 502, 2),
        ("POST / HTTP/1.1\r\nHost: a\r\n\r\n", 502, 2),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", 502, 2),
        ("PATCH / HTTP/1.1\r\nHost: a\r\n\r\n", 502, 2),
    ] {
        let app = ending_on_the_second_request().await;
        let front = Front::before(&app);
        let mut tls = front.connect().await;
        send(&mut tls, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        read_until(&mut tls, "ok").await;
        send(&mut tls, request).await;
        let head = read_until(&mut tls, "\r\n\r\n").await;
        assert_eq!(status(&head), outcome, "{request}");
        assert_eq!(app.record().requests.len(), requests, "{request}");
    }
}

#[tokio::test]
async fn a_request_is_sent_again_once() {
    let app = App::start(|_, at| if at == 0 { Reply::ok() } else { Reply::Close }).await;
    let front = Front::before(&app);
    let mut tls = front.connect().await;
    send(&mut tls, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    read_until(&mut tls, "ok").await;
    send(&mut tls, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(status(&read_until(&mut tls, "\r\n\r\n").await), 502);
    assert_eq!(app.record().requests.len(), 3);
}

#[tokio::test]
async fn a_request_is_not_sent_again_once_an_answer_has_begun() {
    let app = App::start(|_, at| match at {
        0 => Reply::ok(),
        _ => Reply::SendAndClose(b"HTTP/1.1 2".to_vec()),
    })
    .await;
    let front = Front::before(&app);
    let mut tls = front.connect().await;
    send(&mut tls, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    read_until(&mut tls, "ok").await;
    send(&mut tls, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(status(&read_until(&mut tls, "\r\n\r\n").await), 502);
    assert_eq!(app.record().requests.len(), 2);
}

#[tokio::test]
async fn a_post_does_not_meet_a_connection_that_has_ended() {
    // The application ends each connection right after its answer, and says nothing of it.
    let app = App::start(|_, _| {
        Reply::SendAndClose(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec())
    })
    .await;
    let front = Front::before(&app);
    let mut tls = front.connect().await;
    for number in 1..=50 {
        send(&mut tls, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await;
        let head = read_until(&mut tls, "ok").await;
        assert_eq!(status(&head), 200, "{number}: {head}");
        app.until("ended", |record| record.open == 0).await;
    }
    assert_eq!(app.record().whole().len(), 50, "none was sent twice");
}

#[tokio::test]
async fn an_application_that_is_started_anew_loses_no_request_that_it_did_not_hold() {
    let app = App::start(|_, _| Reply::ok()).await;
    let (address, front) = (app.address, Front::before(&app));
    let mut tls = front.connect().await;
    send(&mut tls, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await;
    read_until(&mut tls, "ok").await;
    app.kill().await;
    // It comes while nobody listens.
    send(&mut tls, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await;
    while is_silent(&mut tls).await && front.handle.connections() == 0 {
        tokio::task::yield_now().await;
    }
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let app = App::at(socket.listen(16).unwrap(), |_, _| Reply::ok());
    let answer = read_until(&mut tls, "ok").await;
    assert_eq!(status(&answer), 200);
    assert_eq!(app.record().whole().len(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request() {
    for reply in [Reply::Hang, Reply::text("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")] {
        let app = App::start(move |_, _| reply.clone()).await;
        let front = Front::before(&app);
        let mut tls = front.connect().await;
        send(&mut tls, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        app.until("asked", |record| record.whole().len() == 1).await;
        drop(tls);
        app.until("cancelled", |record| record.open == 0).await;
    }
}

#[tokio::test]
async fn connections_are_reused_and_end_when_idle() {
    let app = App::start(|_, _| Reply::ok()).await;
    let front = Front::of(Proxy::new(app.upstream()).idle_timeout(Duration::from_millis(300)));
    for _ in 0..3 {
        assert_eq!(status(&front.get("/", "").await), 200);
    }
    assert_eq!(app.record().connections, 1);
    app.until("idle", |record| record.open == 0).await;
    assert_eq!(status(&front.get("/", "").await), 200);
    assert_eq!(app.record().connections, 2);

    // Where none is kept, each request has its own.
    let front = Front::of(Proxy::new(app.upstream()).idle_timeout(Duration::ZERO));
    for _ in 0..2 {
        assert_eq!(status(&front.get("/", "").await), 200);
    }
    assert_eq!(app.record().connections, 4);
}

#[tokio::test]
async fn there_are_no_more_connections_than_allowed_and_the_queue_is_bounded() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = Front::of(Proxy::new(url(&listener)).max_connections(2).queue(1));
    let ask = async |tls: &mut support::proxy::Tls| {
        send(tls, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    };
    let (mut first, mut second, mut third, mut fourth) = (
        front.connect().await,
        front.connect().await,
        front.connect().await,
        front.connect().await,
    );
    ask(&mut first).await;
    let (mut app, _) = listener.accept().await.unwrap();
    ask(&mut second).await;
    let _other = listener.accept().await.unwrap();
    // One of these waits, the other is past the queue: whichever comes last.
    ask(&mut third).await;
    ask(&mut fourth).await;
    let (refused, queued) = tokio::select! {
        head = read_until(&mut third, "\r\n\r\n") => (head, &mut fourth),
        head = read_until(&mut fourth, "\r\n\r\n") => (head, &mut third),
    };
    assert_eq!(status(&refused), 503, "{refused}");
    use tokio::io::AsyncWriteExt as _;
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    app.write_all(answer).await.unwrap();
    read_until(&mut first, "ok").await;
    app.write_all(answer).await.unwrap();
    assert_eq!(status(&read_until(queued, "ok").await), 200, "by the connection that became free");
}

#[tokio::test]
async fn who_waits_too_long_in_the_queue_is_told_so() {
    let app = App::start(|_, _| Reply::Hang).await;
    let proxy = Proxy::new(app.upstream()).max_connections(1).timeout(Duration::from_millis(200));
    let front = Front::of(proxy);
    let (one, other) = tokio::join!(front.get("/", ""), front.get("/", ""));
    assert_eq!((status(&one), status(&other)), (504, 504));
}

#[tokio::test]
async fn a_client_that_does_not_go_on_with_its_body_is_told_so() {
    let app = App::start(|_, _| Reply::ok()).await;
    let front = Front::of(Proxy::new(app.upstream()).timeout(Duration::from_millis(200)));
    let answer = front.exchange("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab").await;
    assert_eq!(status(&answer), 408, "{answer}");
    let record = app.until("ended", |record| record.open == 0).await;
    assert!(record.whole().is_empty());
}

#[tokio::test]
async fn an_answer_before_the_body_is_an_answer() {
    let early = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
    let app = App::start(move |_, _| Reply::Early(early.into())).await;
    let front = Front::before(&app);
    let mut tls = front.connect().await;
    send(&mut tls, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf").await;
    let answer = read_until(&mut tls, "no").await;
    assert_eq!(status(&answer), 403);
    app.until("ended", |record| record.open == 0).await;
}

type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn h2(front: &Front) -> Sender {
    let io = TokioIo::new(connect(front.address, b"h2").await);
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.handshake(io).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn h2_request(method: &str, body: &'static [u8]) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri("https://a/b?c");
    request.header("cookie", "a=b").header("cookie", "c=d").body(Full::from(body)).unwrap()
}

#[tokio::test]
async fn http_2_in_front_is_http_1_1_behind() {
    let app = App::start(|_, _| {
        Reply::text(
            "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\
             Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n",
        )
    })
    .await;
    let front = Front::before(&app);
    let mut sender = h2(&front).await;
    for (method, body) in [("POST", &b"hello"[..]), ("GET", b"")] {
        let response = sender.send_request(h2_request(method, body)).await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("keep-alive"));
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["x-sum"], "1");
        assert_eq!(body.to_bytes(), "ok");
    }
    let record = app.record();
    let post = record.whole()[0];
    assert_eq!(post.line(), "POST /b?c HTTP/1.1");
    assert_eq!((post.all("host"), &post.body[..]), (vec!["a"], &b"hello"[..]));
    assert_eq!(post.all("cookie"), ["a=b; c=d"]);
    assert_eq!(post.all("via"), ["2.0 portcullis"]);
    assert_eq!(record.connections, 1);
}

#[tokio::test]
async fn http_2_gets_its_answer_though_its_body_was_not_read() {
    let app = App::start(|_, _| Reply::ok()).await;
    let front = Front::of(Proxy::new(app.upstream()).max_body(3));
    let mut sender = h2(&front).await;
    let response = sender.send_request(h2_request("POST", b"hello")).await.unwrap();
    assert_eq!(response.status(), 413);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(body.starts_with(b"{"), "{body:?}");
    let response = sender.send_request(h2_request("POST", b"hey")).await.unwrap();
    assert_eq!(response.status(), 200);
}

/// What has been taken from an endless body.
#[derive(Default)]
struct Taken {
    bytes: AtomicUsize,
    more: tokio::sync::Notify,
}

impl Taken {
    /// Waits until nothing more is taken; returns how much was.
    async fn settled(&self) -> usize {
        timeout(DEADLINE, self.more.notified()).await.expect("something is taken");
        while timeout(Duration::from_millis(200), self.more.notified()).await.is_ok() {}
        self.bytes.load(Ordering::Relaxed)
    }
}

struct Endless(Arc<Taken>);

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        const PIECE: &[u8] = &[0; 1 << 16];
        self.0.bytes.fetch_add(PIECE.len(), Ordering::Relaxed);
        self.0.more.notify_one();
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(PIECE)))))
    }
}

#[tokio::test]
async fn whoever_does_not_read_holds_back_whoever_sends() {
    // The application sends without end, and the client reads nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = Front::of(Proxy::new(url(&listener)));
    let sent = Arc::new(Taken::default());
    let count = Arc::clone(&sent);
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper::service::service_fn(move |_: Request<hyper::body::Incoming>| {
            let body = Endless(Arc::clone(&count));
            async move { Ok::<_, Infallible>(Response::new(body)) }
        });
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await
    });
    let mut tls = front.connect().await;
    send(&mut tls, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let held = sent.settled().await;
    assert!(held < 32 << 20, "{held} bytes were taken");
    drop(tls);

    // The client sends without end, and the application reads nothing.
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = Front::of(Proxy::new(url(&app)).max_body(u64::MAX));
    let io = TokioIo::new(front.connect().await);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let sent = Arc::new(Taken::default());
    let request = Request::post("/").header("host", "a").body(Endless(Arc::clone(&sent))).unwrap();
    let asked = tokio::spawn(sender.send_request(request));
    let accepted = app.accept().await.unwrap();
    let held = sent.settled().await;
    assert!(held < 32 << 20, "{held} bytes were taken");
    drop((asked, accepted));
}

#[tokio::test]
async fn an_application_may_listen_at_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = support::proxy::socket_path(&dir);
    let listener = UnixListener::bind(&path).unwrap();
    let router = axum::Router::new().fallback(|headers: http::HeaderMap| async move {
        headers["client-cert"].as_bytes().to_vec()
    });
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    let front = Front::of(Proxy::new(format!("unix:{}", path.display()).parse().unwrap()));
    for _ in 0..2 {
        let answer = front.get("/", "").await;
        assert_eq!(status(&answer), 200);
        assert!(answer.contains(&client_cert()), "{answer}");
    }
}

async fn served<S, B>(service: S, headers: &str) -> String
where
    S: tower_service::Service<
            Request<hyper::body::Incoming>,
            Response = Response<B>,
            Error = Infallible,
            Future: Send,
        > + Clone
        + Send
        + Sync
        + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let site = support::tls::Site::new();
    site.trust("a.pem", &PKI.a.cert);
    let bound = site.config().trust(site.path("trust")).bind().unwrap();
    let address = bound.local_addrs()[0];
    let _running = bound.serve(service);
    let mut tls = connect(address, b"http/1.1").await;
    send(&mut tls, format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n"))
        .await;
    read_to_end(&mut tls).await
}

fn router() -> axum::Router {
    axum::Router::new().fallback(|| async { "ok" })
}

#[tokio::test]
async fn only_listed_apis_pass() {
    let ids = ["abc", "def"];
    let header = |id| format!("x-amzn-apigateway-api-id: {id}\r\n");
    for (headers, expected) in [
        (header("abc"), 200),
        (header("def"), 200),
        (header("abcd"), 403),
        (header("ABC"), 403),
        (header("abc") + &header("def"), 403),
        (String::new(), 403),
        (header("abc").replace('-', "_"), 403),
    ] {
        let answer = served(ApiId::new(ids, router()), &headers).await;
        assert_eq!(status(&answer), expected, "{headers}");
        if expected == 403 {
            assert_eq!(problem(&answer)["title"], "Forbidden");
        }
    }
    assert_eq!(status(&served(ApiId::new([""; 0], router()), "").await), 200);
}

#[tokio::test]
async fn the_applications_own_closure_is_asked() {
    let fingerprint = sha256(&der());
    let ours = fingerprint.clone();
    let knows = move |client: &ClientIdentity, head: &http::request::Parts| {
        client.fingerprint().to_string() == ours && head.headers.contains_key("x-please")
    };
    let app = router().layer(Authorize::new(knows));
    assert_eq!(status(&served(app.clone(), "X-Please: 1\r\n").await), 200);
    assert_eq!(status(&served(app, "").await), 403);

    let knows = move |client: ClientIdentity, head: http::request::Parts| {
        let ours = fingerprint.clone();
        async move {
            tokio::task::yield_now().await;
            client.fingerprint().to_string() == ours && head.headers.contains_key("x-please")
        }
    };
    let app = router().layer(Authorize::new_async(knows));
    assert_eq!(status(&served(app.clone(), "X-Please: 1\r\n").await), 200);
    let answer = served(app, "").await;
    assert_eq!(status(&answer), 403);
    assert!(answer.contains("application/problem+json"), "{answer}");
}

#[tokio::test]
async fn without_an_identity_nobody_is_let_through() {
    use tower::ServiceExt as _;
    let request = || Request::get("/").header("host", "a").body(axum::body::Body::empty()).unwrap();
    let app = router().layer(Authorize::new(|_, _| true));
    assert_eq!(app.oneshot(request()).await.unwrap().status(), 403);

    let app = App::start(|_, _| Reply::ok()).await;
    let mut request = request();
    request.extensions_mut().insert(PeerAddr("192.0.2.7:1".parse().unwrap()));
    let response = tower::ServiceExt::oneshot(Proxy::new(app.upstream()), request).await.unwrap();
    assert_eq!(response.status(), 403);
    assert!(app.record().requests.is_empty());
}
