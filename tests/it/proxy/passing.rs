//! What reaches the application, and what comes back.

use super::*;

#[tokio::test]
async fn application_receives_the_verified_identity() {
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
async fn identity_headers_of_a_client_are_stripped() {
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
async fn hop_by_hop_headers_of_a_request_are_stripped() {
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
async fn other_headers_reach_the_application_unchanged() {
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
async fn hop_by_hop_headers_of_a_response_are_stripped() {
    let app = App::start(|_, _| {
        Reply::text(
            "HTTP/1.1 299 Fine\r\nX-B: 1\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\
             Keep-Alive: timeout=5\r\nUpgrade: a\r\nProxy-Connection: b\r\nX-A: 2\r\nX-B: 3\r\n\
             Set-Cookie: a=b\r\nSet-Cookie: c=d\r\nContent-Length: 2\r\n\r\nok",
        )
    })
    .await;
    let response = Front::before(&app).get("/", "").await;
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
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
async fn responses_without_a_body_are_framed_so() {
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
        // The second response is read right only if the first one was framed right.
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
            let response = read_until(&mut tls, end).await;
            assert_eq!(response.contains("content-length: 5"), !is_chunked, "{reply}: {response}");
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
    let response = Front::before(&app).exchange("GET / HTTP/1.0\r\n\r\n").await;
    assert!(response.ends_with("\r\n\r\nhello") && !response.contains("chunked"), "{response}");
    assert_eq!(app.record().whole()[0].all("host"), [app.address.to_string()]);
}

#[tokio::test]
async fn broken_off_response_is_not_a_complete_one() {
    for (reply, end) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "hello"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "5\r\nhello\r\n"),
    ] {
        let app = App::start(move |_, _| Reply::SendAndClose(reply.as_bytes().to_vec())).await;
        let response = Front::before(&app).exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(response.ends_with(end), "{response}");
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
    let response = read_until(&mut tls, "0\r\nx-sum: 1\r\n\r\n").await;
    assert!(response.contains("trailer: X-Sum"), "{response}");
    let record = app.record();
    let seen = record.whole()[0];
    assert_eq!(seen.trailers.to_lowercase(), "x-sum: 2\r\n");
    assert_eq!(seen.all("trailer"), ["X-Sum, X_SSL_Cert, Client-Cert"]);
}

#[tokio::test]
async fn expect_100_continue_ends_at_portcullis() {
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
async fn body_above_max_body_is_refused_with_and_without_content_length() {
    let app = App::start(|_, _| Reply::ok()).await;
    let front = Front::of(Proxy::new(app.upstream()).max_body(5));
    let head = "POST / HTTP/1.1\r\nHost: a\r\n";
    // One that is announced is not even asked for.
    let expecting = format!("{head}Expect: 100-continue\r\nContent-Length: 6\r\n\r\n");
    let response = front.exchange(expecting).await;
    assert_eq!(status(&response), 413, "{response}");
    assert!(app.record().requests.is_empty());

    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
    let response = front.exchange(format!("{chunked}3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")).await;
    assert_eq!(status(&response), 413, "{response}");
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
