//! HTTP/2 in front, and back-pressure.

use super::*;
use crate::support::h2::{self, H2};

type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn h2(front: &Front) -> Sender {
    let io = TokioIo::new(connect(front.address, "h2").await);
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
async fn http2_in_front_is_http1_behind() {
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
async fn http2_response_arrives_although_the_body_was_not_read() {
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

#[tokio::test(flavor = "multi_thread")]
async fn http2_client_gets_what_came_before_a_response_broke_off() {
    // Without the flush less than one in a hundred loses its head on an idle machine.
    const ROUNDS: usize = 200;
    for (reply, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", h2::RST_STREAM),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx\r\n", h2::RST_STREAM),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", h2::DATA),
    ] {
        let app = App::start(move |_, _| Reply::SendAndClose(reply.into())).await;
        let front = Front::before(&app);
        let mut client = H2::connect(front.address).await;
        for round in 0..ROUNDS {
            let stream = client.stream();
            let flags = h2::END_STREAM | h2::END_HEADERS;
            client.send(&h2::frame(h2::HEADERS, flags, stream, h2::GET)).await.unwrap();
            assert_eq!(client.status(stream).await, Some(200), "{reply:?} in round {round}");
            let mut body = Vec::new();
            let last = loop {
                let kinds = [h2::DATA, h2::RST_STREAM];
                let came = client.next(stream, &kinds).await.expect("the connection stays open");
                body.extend(if came.kind == h2::DATA { &came.payload[..] } else { b"" });
                if came.kind == h2::RST_STREAM || came.flags & h2::END_STREAM != 0 {
                    break came.kind;
                }
            };
            assert_eq!((&body[..], last), (&b"abc"[..], expected), "{reply:?} in round {round}");
        }
    }
}

/// h2 removes it. What matters is that no one reads the target in another way.
#[tokio::test]
async fn fragment_in_an_http2_path_reaches_no_application() {
    let app = App::start(|_, _| Reply::ok()).await;
    let front = Front::before(&app);
    let mut client = H2::connect(front.address).await;
    for path in ["/a#b", "/a"] {
        let stream = client.stream();
        let list = [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", path)];
        client.headers(stream, &list, true).await;
        assert_eq!(client.status(stream).await, Some(200), "{path}");
    }
    let record = app.record();
    let lines: Vec<_> = record.whole().iter().map(|seen| seen.line()).collect();
    assert_eq!(lines, ["GET /a HTTP/1.1"; 2]);
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
async fn slow_reader_applies_backpressure_to_the_upstream() {
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
