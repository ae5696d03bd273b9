//! An application that responds before it has read the request's body, and closes. The client is
//! still sending and gets the response.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const RESPONSE: &[u8] =
    b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntoo large";

/// Reads the head and a little, responds and closes: the system resets the connection.
async fn impatient() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while !seen.windows(4).any(|end| end == b"\r\n\r\n") {
                    stream.read_buf(&mut seen).await.unwrap();
                }
                let _ = stream.read(&mut [0; 1000]).await;
                stream.write_all(RESPONSE).await.unwrap();
            });
        }
    });
    address
}

/// Sends a request with a body of this size, all of it before it reads.
async fn upload(front: &Front, size: usize, is_chunked: bool) -> String {
    let mut tls = front.connect().await;
    let body = vec![b'x'; size];
    let (framing, body) = match is_chunked {
        false => (format!("Content-Length: {size}"), body),
        true => {
            let head = format!("{size:x}\r\n").into_bytes();
            ("Transfer-Encoding: chunked".to_owned(), [&head, &body[..], b"\r\n0\r\n\r\n"].concat())
        }
    };
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
    tls.write_all(head.as_bytes()).await.unwrap();
    for piece in body.chunks(64 << 10) {
        tls.write_all(piece).await.expect("the server reads on");
        tls.flush().await.expect("the server reads on");
    }
    read_until(&mut tls, "too large").await
}

#[tokio::test(flavor = "multi_thread")]
async fn early_response_reaches_every_client_that_is_still_sending() {
    const TRIES: usize = 40;
    let app = impatient().await;
    let front = Arc::new(Front::of(Proxy::new(format!("http://{app}").parse().unwrap())));
    for is_chunked in [false, true] {
        let mut closing = 0;
        let mut tries = tokio::task::JoinSet::new();
        for number in 0..TRIES {
            let front = Arc::clone(&front);
            tries.spawn(async move { upload(&front, (1 + number % 8) << 20, is_chunked).await });
        }
        while let Some(response) = tries.join_next().await {
            let response = response.unwrap();
            assert_eq!(status(&response), 413, "{response}");
            assert!(response.ends_with("too large"), "{response}");
            closing += usize::from(response.to_lowercase().contains("connection: close"));
        }
        // The rest were read whole before the response came.
        assert!(closing > TRIES / 2, "{closing}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusal_of_a_declared_length_reaches_a_client_that_is_still_sending() {
    let app = App::start(|_, _| Reply::ok()).await;
    let front = Front::of(Proxy::new(app.upstream()).max_body(2 << 20));
    for size in [1 << 20, 3 << 20] {
        let response = upload_to_end(&front, size).await;
        let expected = if size > 2 << 20 { 413 } else { 200 };
        assert_eq!(status(&response), expected, "{response}");
    }
}

/// The same with `Connection: close`, so that a complete exchange ends too.
async fn upload_to_end(front: &Front, size: usize) -> String {
    let mut tls = front.connect().await;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
    );
    tls.write_all(head.as_bytes()).await.unwrap();
    let _ = tls.write_all(&vec![b'x'; size]).await;
    let _ = tls.flush().await;
    read_to_end(&mut tls).await
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_sends_more_than_the_limit_after_its_response_is_closed() {
    let app = impatient().await;
    let proxy = Proxy::new(format!("http://{app}").parse().unwrap()).max_body(1 << 20);
    let front = Front::of(proxy);
    let mut tls = front.connect().await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n";
    tls.write_all(head.as_bytes()).await.unwrap();
    let endless = async { while tls.write_all(&[b'x'; 1 << 16]).await.is_ok() {} };
    timeout(DEADLINE, endless).await.expect("the server closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_stream_of_an_early_response_is_reset_without_an_error() {
    use crate::support::h2::{DATA, END_STREAM, H2, HEADERS, RST_STREAM};
    let app = impatient().await;
    let front = Front::of(Proxy::new(format!("http://{app}").parse().unwrap()));
    let mut client = H2::connect(front.address).await;
    let post = [(":method", "POST"), (":scheme", "https"), (":authority", "a"), (":path", "/")];
    client.headers(1, &post, false).await;
    for _ in 0..3 {
        client.data(1, &[b'x'; 16 << 10], false).await;
    }
    let came = client.next(1, &[HEADERS, RST_STREAM]).await.unwrap();
    assert_eq!(came.kind, HEADERS);
    let mut body = Vec::new();
    loop {
        let came = client.next(1, &[DATA]).await.unwrap();
        body.extend(came.payload);
        if came.flags & END_STREAM != 0 {
            break;
        }
    }
    assert_eq!(body, b"too large");
    let reset = client.next(1, &[RST_STREAM]).await.unwrap();
    assert_eq!(reset.payload, [0, 0, 0, 0], "NO_ERROR");
}
