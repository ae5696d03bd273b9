//! The bounds of a proxy hold, and reaching one is counted.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{interval, timeout};

use crate::support::proxy::{App, Reply};

use super::bounds::*;

/// What a proxy of these flags counts when a request comes to such an application.
async fn proxied(flags: &[&str], reason: &str, requests: usize, bytes: &'static [u8]) {
    let app = App::start(|_, _| Reply::Hang).await;
    let upstream = format!("http://{}", app.address);
    let flags = [&["--upstream", &upstream], flags].concat();
    counted(&flags, &failed(reason), |address| async move {
        let mut streams = Vec::new();
        for _ in 0..requests {
            let mut stream = a(address).await;
            stream.write_all(bytes).await.unwrap();
            streams.push(stream);
        }
        streams
    })
    .await;
}

const GET_H1: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn upstream_queue_and_upstream_max_connections() {
    let flags = ["--upstream-max-connections", "1", "--upstream-queue", "1"];
    proxied(&flags, "queue_full", 3, GET_H1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upstream_timeout_in_the_queue() {
    let app = App::start(|_, _| Reply::Hang).await;
    let upstream = format!("http://{}", app.address);
    let flags = ["--upstream", &upstream, "--upstream-max-connections", "1"];
    let flags = [&flags[..], &["--upstream-timeout", "500ms"]].concat();
    counted(&flags, &failed("queue_timeout"), |address| async move {
        let (mut busy, mut queued) = (a(address).await, a(address).await);
        busy.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n").await.unwrap();
        app.until("asked", |record| record.requests.len() == 1).await;
        queued.write_all(GET_H1).await.unwrap();
        // As long as its body goes on, it keeps the only connection.
        let mut pace = interval(Duration::from_millis(50));
        let mut response = [0; 12];
        let mut received = pin!(queued.read_exact(&mut response));
        loop {
            tokio::select! {
                received = &mut received => break assert_eq!(received.unwrap(), 12),
                _ = pace.tick() => busy.write_all(b"x").await.unwrap(),
            }
        }
        assert_eq!(&response, b"HTTP/1.1 504");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upstream_timeout() {
    proxied(&["--upstream-timeout", "100ms"], "response_timeout", 1, GET_H1).await;
    proxied(&["--upstream-timeout", "100ms"], "body_timeout", 1, POST_OF_9).await;
    proxied(&["--body-timeout", "100ms"], "body_timeout", 1, POST_OF_9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn max_body_of_a_proxy() {
    proxied(&["--max-body", "8B"], "body_too_large", 1, POST_OF_9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upstream_connect_timeout() {
    // It listens, and a connection beyond its full backlog gets no response.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let listener = socket.listen(1).unwrap();
    let upstream = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(Ok(stream)) =
        timeout(Duration::from_millis(200), TcpStream::connect(upstream)).await
    {
        queued.push(stream);
    }
    let upstream = format!("http://{upstream}");
    let flags = ["--upstream", &upstream, "--upstream-connect-timeout", "100ms"];
    counted(&flags, &failed("connect_timeout"), |address| async move {
        let mut stream = a(address).await;
        stream.write_all(GET_H1).await.unwrap();
        let mut response = [0; 12];
        stream.read_exact(&mut response).await.unwrap();
        assert_eq!(&response, b"HTTP/1.1 504");
    })
    .await;
    drop((listener, queued));
}
