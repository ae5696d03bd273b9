//! Accepted clients that behave badly.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{interval, timeout};
use tokio_rustls::client::TlsStream;

use crate::fire::harness::{Fire, connector, crowd};
use crate::support::DEADLINE;
use crate::support::h2::{
    CANCEL, CONTINUATION, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GET, GOAWAY, H2, HEADERS,
    POST, RST_STREAM, frame,
};
use crate::support::pki::PKI;
use crate::support::tls::Connector;

const WINDOW: u32 = 65_535;

fn of_h1() -> Connector {
    connector(&PKI.a)
}

fn of_h2() -> Connector {
    connector(&PKI.a).speaking("h2")
}

async fn h2(address: SocketAddr, window: u32) -> H2<TlsStream<TcpStream>> {
    H2::start(of_h2().connect(address).await.unwrap(), window).await.unwrap()
}

/// Reads until the server ends the connection.
async fn is_closed(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut got = Vec::new();
    let _ = timeout(DEADLINE, stream.read_to_end(&mut got)).await.expect("it is closed");
    got
}

/// Reads frames until the server ends the connection; the code of the last GOAWAY.
async fn is_ended<T: AsyncRead + AsyncWrite + Unpin>(h2: &mut H2<T>) -> Option<u32> {
    let mut code = None;
    loop {
        match h2.receive().await {
            Ok(frame) if frame.kind == GOAWAY => code = frame.goaway_code(),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut => panic!("it goes on"),
            Err(_) => return code,
        }
    }
}

/// Sends byte by byte, slowly, until the server closes the connection.
async fn drip(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    let mut pace = interval(Duration::from_millis(100));
    for byte in bytes {
        pace.tick().await;
        stream.write_all(&[*byte]).await?;
        stream.flush().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; run by .ci/run against the release binary"]
async fn connections_without_a_request_after_the_handshake() {
    let fire = Fire::new(&["--head-timeout", "2s"]);
    let address = fire.addr();
    fire.rounds(async |watch| {
        for connector in [of_h1(), of_h2()] {
            let mut silent = Vec::new();
            for _ in 0..500 {
                silent.push(connector.connect(address).await.unwrap());
            }
            watch.some_more();
            for stream in &mut silent {
                is_closed(stream).await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; run by .ci/run against the release binary"]
async fn slow_heads() {
    let fire = Fire::new(&["--head-timeout", "2s"]);
    let address = fire.addr();
    fire.rounds(async |_| {
        crowd(128, || async move {
            let mut stream = of_h1().connect(address).await.unwrap();
            let head = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(1000));
            let dripping = timeout(DEADLINE, drip(&mut stream, head.as_bytes()));
            assert!(dripping.await.expect("it is closed").is_err());
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; run by .ci/run against the release binary"]
async fn slow_bodies() {
    let fire = Fire::new(&["--body-timeout", "2s"]);
    let address = fire.addr();
    let post = |length: usize| {
        format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\nx").into_bytes()
    };
    fire.rounds(async |_| {
        // Of these nothing more comes.
        crowd(192, || async move {
            let mut stream = of_h1().connect(address).await.unwrap();
            stream.write_all(&post(1000)).await.unwrap();
            assert!(is_closed(&mut stream).await.starts_with(b"HTTP/1.1 408"));
        })
        .await;
        crowd(64, || async move {
            let mut h2 = h2(address, WINDOW).await;
            let stream = h2.stream();
            h2.send(&frame(HEADERS, END_HEADERS, stream, POST)).await.unwrap();
            assert!(
                h2.response(stream).await.unwrap().contains("The body did not arrive in time.")
            );
            // The connection is none the worse for it.
            assert_eq!(h2.get().await.unwrap(), "hello world\n");
        })
        .await;
        // These are slow, and make progress all the same.
        crowd(64, || async move {
            let mut stream = of_h1().connect(address).await.unwrap();
            stream.write_all(&post(31)).await.unwrap();
            drip(&mut stream, &[b'x'; 30]).await.unwrap();
            let mut response = [0; 12];
            timeout(DEADLINE, stream.read_exact(&mut response)).await.unwrap().unwrap();
            assert_eq!(&response, b"HTTP/1.1 200");
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; run by .ci/run against the release binary"]
async fn clients_that_never_read() {
    // They send millions of requests, and this test keeps the log.
    let fire = Fire::new(&["--write-timeout", "2s", "--access-log", "off"]);
    let address = fire.addr();
    fire.rounds(async |_| {
        crowd(32, || async move {
            let socket = TcpSocket::new_v4().unwrap();
            // What the kernels hold for it is not held by the server.
            socket.set_recv_buffer_size(4096).unwrap();
            let socket = socket.connect(address).await.unwrap();
            let mut stream = of_h1().shake(socket).await.unwrap();
            let requests = "GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(500);
            let asking = async { while stream.write_all(requests.as_bytes()).await.is_ok() {} };
            timeout(DEADLINE, asking).await.expect("it is closed");
        })
        .await;
        // These read the frames, and no byte of any response.
        crowd(64, || async move {
            let mut h2 = h2(address, 0).await;
            for _ in 0..20 {
                let stream = h2.stream();
                let get = frame(HEADERS, END_STREAM | END_HEADERS, stream, GET);
                h2.send(&get).await.unwrap();
            }
            is_ended(&mut h2).await;
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; run by .ci/run against the release binary"]
async fn header_values_of_100_kb() {
    let fire = Fire::new(&[]);
    let address = fire.addr();
    fire.rounds(async |_| {
        crowd(200, || async move {
            let mut stream = of_h1().connect(address).await.unwrap();
            let head = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(100_000));
            let _ = stream.write_all(head.as_bytes()).await;
            assert!(is_closed(&mut stream).await.starts_with(b"HTTP/1.1 431"));
        })
        .await;
        crowd(200, || async move {
            let mut h2 = h2(address, WINDOW).await;
            let stream = h2.stream();
            // A literal field `x` with a value of 100,000 bytes (127 and 99,873 more, in sevens).
            let field = [b"\x00\x01x\x7f\xa1\x8c\x06".as_slice(), &[b'x'; 100_000]].concat();
            let block = [GET, &field].concat();
            let pieces: Vec<_> = block.chunks(16_384).collect();
            for (at, piece) in pieces.iter().enumerate() {
                let (kind, first) = if at == 0 { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
                let last = if at + 1 == pieces.len() { END_HEADERS } else { 0 };
                // It may have had enough before the last.
                let _ = h2.send(&frame(kind, first | last, stream, piece)).await;
            }
            let response = h2.response(stream).await;
            assert!(!response.is_ok_and(|body| body.contains("hello")));
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; run by .ci/run against the release binary"]
async fn rapid_resets() {
    let fire = Fire::new(&[]);
    let address = fire.addr();
    fire.rounds(async |_| {
        crowd(20, || async move {
            let mut h2 = h2(address, WINDOW).await;
            let mut flood = Vec::new();
            for _ in 0..10_000 {
                let stream = h2.stream();
                flood.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, GET));
                flood.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
            }
            // It may have had enough before the last.
            let _ = h2.send(&flood).await;
            assert_eq!(is_ended(&mut h2).await, Some(ENHANCE_YOUR_CALM));
        })
        .await;
    })
    .await;
}
