//! What happens when either side fails, and what bounds there are.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

#[tokio::test]
async fn upstream_failures_have_distinct_status_and_reason() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = url(&closed);
    drop(closed);
    let short = Duration::from_millis(50);
    let response =
        Front::of(Proxy::new(upstream.clone()).connect_timeout(short)).get("/", "").await;
    assert_eq!(status(&response), 502);
    let reported = problem(&response);
    assert!(!response.contains(&upstream.to_string()[7..]), "nothing internal: {reported}");

    let app = App::start(|_, _| Reply::Close).await;
    let response = Front::before(&app).get("/", "").await;
    assert_eq!((status(&response), &problem(&response)["title"]), (502, &"Bad Gateway".into()));
    assert_eq!(app.record().requests.len(), 1, "a new connection is no reason to try again");

    let app = App::start(|_, _| Reply::Hang).await;
    let response = Front::of(Proxy::new(app.upstream()).timeout(short)).get("/", "").await;
    assert_eq!((status(&response), &problem(&response)["title"]), (504, &"Gateway Timeout".into()));
    app.until("cancelled", |record| record.open == 0).await;

    let app = App::start(|_, _| Reply::text("HTTP/1.1 200 OK\r\nContent-Le")).await;
    let response = Front::of(Proxy::new(app.upstream()).timeout(short)).get("/", "").await;
    assert_eq!(status(&response), 504, "half a head is none: {response}");
}

#[tokio::test]
async fn upstream_that_accepts_no_connection_is_a_timeout() {
    // One that listens and whose queue is full accepts no handshake.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let mut queued = Vec::new();
    while let Ok(Ok(stream)) = timeout(
        Duration::from_millis(100),
        tokio::net::TcpStream::connect(listener.local_addr().unwrap()),
    )
    .await
    {
        queued.push(stream);
    }
    let proxy = Proxy::new(url(&listener)).connect_timeout(Duration::from_millis(100));
    let response = Front::of(proxy).get("/", "").await;
    assert_eq!(status(&response), 504, "{response}");
}

/// An application whose first connection ends, after its response to one request, when the next one
/// has reached it.
async fn ending_on_the_second_request() -> App {
    App::start(|_, at| if at == 1 { Reply::Close } else { Reply::ok() }).await
}

#[tokio::test]
async fn request_is_retried_only_where_that_is_safe() {
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
async fn request_is_retried_once() {
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
async fn request_is_not_retried_once_a_response_has_begun() {
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
async fn unasked_response_on_an_idle_upstream_connection_is_not_relayed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = Front::of(Proxy::new(url(&listener)));
    let mut tls = front.connect().await;
    let mut upstream = Vec::new();
    for number in 1..=3 {
        send(&mut tls, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        stream.write_all(ok).await.unwrap();
        let head = read_until(&mut tls, "ok").await;
        assert_eq!(status(&head), 200, "{number}: {head}");
        let unasked = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(unasked).await.unwrap();
        upstream.push(stream);
    }
}

#[tokio::test]
async fn post_is_not_sent_on_a_closed_upstream_connection() {
    // The application closes each connection right after its response, without `Connection: close`.
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
async fn restarted_upstream_loses_no_request_that_it_did_not_hold() {
    let app = App::start(|_, _| Reply::ok()).await;
    let (address, front) = (app.address, Front::before(&app));
    let mut tls = front.connect().await;
    send(&mut tls, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await;
    read_until(&mut tls, "ok").await;
    app.kill().await;
    // It comes while no process listens.
    send(&mut tls, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await;
    while is_silent(&mut tls).await && front.handle.connections() == 0 {
        tokio::task::yield_now().await;
    }
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let app = App::at(socket.listen(16).unwrap(), |_, _| Reply::ok());
    let response = read_until(&mut tls, "ok").await;
    assert_eq!(status(&response), 200);
    assert_eq!(app.record().whole().len(), 1);
}

#[tokio::test]
async fn client_that_disconnects_cancels_its_request() {
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
async fn upstream_connections_are_reused_and_close_when_idle() {
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
async fn upstream_connections_and_queue_are_bounded() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = Front::of(Proxy::new(url(&listener)).max_connections(2).queue(1));
    let ask = async |tls: &mut crate::support::proxy::Tls| {
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
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    app.write_all(response).await.unwrap();
    read_until(&mut first, "ok").await;
    app.write_all(response).await.unwrap();
    assert_eq!(status(&read_until(queued, "ok").await), 200, "by the connection that became free");
}

#[tokio::test]
async fn request_past_the_queue_timeout_is_503() {
    let app = App::start(|_, _| Reply::Hang).await;
    let proxy = Proxy::new(app.upstream()).max_connections(1).timeout(Duration::from_millis(200));
    let front = Front::of(proxy);
    let (one, other) = tokio::join!(front.get("/", ""), front.get("/", ""));
    assert_eq!((status(&one), status(&other)), (504, 504));
}

#[tokio::test]
async fn stalled_request_body_is_408() {
    let app = App::start(|_, _| Reply::ok()).await;
    let front = Front::of(Proxy::new(app.upstream()).timeout(Duration::from_millis(200)));
    let response =
        front.exchange("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab").await;
    assert_eq!(status(&response), 408, "{response}");
    let record = app.until("ended", |record| record.open == 0).await;
    assert!(record.whole().is_empty());
}

#[tokio::test]
async fn response_before_the_body_was_read_is_delivered() {
    let early = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
    let app = App::start(move |_, _| Reply::Early(early.into())).await;
    let front = Front::before(&app);
    let mut tls = front.connect().await;
    send(&mut tls, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf").await;
    let response = read_until(&mut tls, "no").await;
    assert_eq!(status(&response), 403);
    app.until("ended", |record| record.open == 0).await;
}

#[tokio::test]
async fn early_response_closes_the_connection() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    for (sent, end, is_last) in [("", "\r\n\r\n", true), ("body", "\r\n\r\nbody", false)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = Front::of(Proxy::new(url(&listener)));
        let app = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(end.as_bytes()) {
                stream.read_buf(&mut seen).await.unwrap();
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly").await.unwrap();
            stream
        });
        let mut tls = front.connect().await;
        send(&mut tls, format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n{sent}"))
            .await;
        let response = read_until(&mut tls, "early").await.to_lowercase();
        assert_eq!(response.contains("connection: close"), is_last, "{sent:?}: {response}");
        app.await.unwrap();
    }
}
