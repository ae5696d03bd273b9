//! Each bound holds, and reaching it is counted.

use std::future::Future;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::process::Command;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::admin::site::{AdminServer, connector};
use crate::support::files::Files;
use crate::support::h2::{
    CANCEL, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GET, GOAWAY, H2, HEADERS, POST, RST_STREAM,
    frame,
};
use crate::support::pki::PKI;
use crate::support::tls::request;
use crate::support::{DEADLINE, Portcullis, wait_for};

pub const POST_OF_9: &[u8] =
    b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9\r\n\r\nhalf";

/// Shorter than any of the defaults: a bound that is not as the flag says is not met in it.
pub const SOON: Duration = Duration::from_secs(4);

pub fn ended(reason: &str) -> String {
    format!("portcullis_connections_ended_total{{reason=\"{reason}\"}}")
}

pub fn refused(reason: &str) -> String {
    format!("portcullis_handshakes_total{{result=\"{reason}\"}}")
}

pub fn responded(status: u16) -> String {
    format!("portcullis_requests_total{{status=\"{status}\"}}")
}

pub fn failed(reason: &str) -> String {
    format!("portcullis_proxy_failures_total{{reason=\"{reason}\"}}")
}

/// A server of these flags, and what is done to it: the series must count it, and begin at zero
/// (those of statuses begin with the first response).
pub async fn counted<F: Future>(flags: &[&str], series: &str, act: impl FnOnce(SocketAddr) -> F) {
    let site = Files::new().serve(flags);
    let before = site.metric(series);
    let is_of_status = series.contains("status=");
    assert_eq!(before, (!is_of_status).then_some(0.0), "{series}\n{}", site.get("/metrics").2);
    let _held = timeout(SOON, act(site.server.addr())).await.expect("in time");
    let is_counted = wait_for(SOON, || site.metric(series).is_some_and(|count| count >= 1.0));
    assert!(is_counted, "{series}\n{}", site.server.log());
}

pub async fn a(address: SocketAddr) -> TlsStream<TcpStream> {
    connector(Some(&PKI.a)).connect(address).await.unwrap()
}

/// One that has been served.
pub async fn served(address: SocketAddr) -> TlsStream<TcpStream> {
    let mut stream = a(address).await;
    request(&mut stream, "").await.unwrap();
    stream
}

pub async fn h2(address: SocketAddr) -> H2<TlsStream<TcpStream>> {
    let connector = connector(Some(&PKI.a)).speaking("h2");
    H2::start(connector.connect(address).await.unwrap(), 65_535).await.unwrap()
}

/// What comes until the server ends the connection.
pub async fn until_closed(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut got = Vec::new();
    let _ = stream.read_to_end(&mut got).await;
    String::from_utf8_lossy(&got).into_owned()
}

/// Sends these bytes, and returns the response until the connection closes.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = a(address).await;
    let _ = stream.write_all(bytes).await;
    until_closed(&mut stream).await
}

/// The code of the server's GOAWAY.
pub async fn goaway(h2: &mut H2<TlsStream<TcpStream>>) -> Option<u32> {
    loop {
        match h2.receive().await {
            Ok(frame) if frame.kind == GOAWAY => return frame.goaway_code(),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn max_connections() {
    let flags = ["--max-connections", "1"];
    counted(&flags, &refused("too_many_connections"), |address| async move {
        let first = served(address).await;
        assert!(connector(Some(&PKI.a)).ask(address).await.is_err());
        first
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn max_handshakes() {
    let flags = ["--max-handshakes", "2", "--handshake-timeout", "1h"];
    counted(&flags, &refused("too_many_handshakes"), |address| async move {
        let mut oldest = TcpStream::connect(address).await.unwrap();
        let others = [(); 2].map(|()| StdTcpStream::connect(address).unwrap());
        until_closed(&mut oldest).await;
        others
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_at_once() {
    let delayed = "portcullis_handshakes_delayed_total";
    let crowd = |address| async move {
        let mut all = JoinSet::new();
        (0..64).for_each(|_| drop(all.spawn(async move { a(address).await })));
        all.join_all().await
    };
    counted(&["--handshakes-at-once", "1"], delayed, crowd).await;
    let site = Files::new().serve(&["--handshakes-at-once", "64"]);
    let _held = crowd(site.server.addr()).await;
    assert_eq!(site.metric(delayed), Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn handshake_timeout() {
    let flags = ["--handshake-timeout", "100ms"];
    counted(&flags, &refused("handshake_timeout"), |address| async move {
        until_closed(&mut TcpStream::connect(address).await.unwrap()).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn head_timeout() {
    counted(&["--head-timeout", "100ms"], &ended("slow_head"), |address| async move {
        let mut slow = served(address).await;
        slow.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
        until_closed(&mut slow).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn body_timeout() {
    counted(&["--body-timeout", "100ms"], &responded(408), |address| async move {
        let response = exchange(address, POST_OF_9).await;
        assert!(response.starts_with("HTTP/1.1 408"), "{response}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn write_timeout() {
    counted(&["--write-timeout", "100ms"], &ended("slow_reader"), |address| async move {
        let connector = connector(Some(&PKI.a)).speaking("h2");
        // It reads the frames, and no byte of any response.
        let mut deaf = H2::start(connector.connect(address).await.unwrap(), 0).await.unwrap();
        let stream = deaf.stream();
        deaf.send(&frame(HEADERS, END_STREAM | END_HEADERS, stream, GET)).await.unwrap();
        while deaf.receive().await.is_ok() {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_timeout() {
    counted(&["--idle-timeout", "100ms"], &ended("idle"), |address| async move {
        until_closed(&mut served(address).await).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn max_connection_age() {
    counted(&["--max-connection-age", "100ms"], &ended("aged"), |address| async move {
        until_closed(&mut served(address).await).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn max_head_size() {
    counted(&["--max-head-size", "10KiB"], &ended("large_head"), |address| async move {
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(11 << 10));
        let response = exchange(address, head.as_bytes()).await;
        assert!(response.starts_with("HTTP/1.1 431"), "{response}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn max_body() {
    counted(&["--max-body", "8B"], &responded(413), |address| async move {
        let response = exchange(address, &[POST_OF_9, b"whole"].concat()).await;
        assert!(response.starts_with("HTTP/1.1 413"), "{response}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn max_headers() {
    let with = |number: usize| {
        let lines: String = (1..number).map(|i| format!("X-{i}: y\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n")
    };
    for (flags, most) in
        [(&["--max-headers", "5"][..], 5), (&[], 100), (&["--max-headers", "200"], 200)]
    {
        counted(flags, &ended("large_head"), |address| async move {
            let mut stream = served(address).await;
            stream.write_all(with(most).as_bytes()).await.unwrap();
            let mut response = [0; 12];
            stream.read_exact(&mut response).await.unwrap();
            assert_eq!(&response, b"HTTP/1.1 200", "{most}");
            let response = exchange(address, with(most + 1).as_bytes()).await;
            assert!(response.starts_with("HTTP/1.1 431"), "{most}: {response}");
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn max_headers_of_http_2() {
    counted(&["--max-headers", "1"], &responded(431), |address| async move {
        let mut h2 = h2(address).await;
        // `x: y` twice, as literals without indexing (RFC 7541, 6.2.2).
        let line = [0, 1, b'x', 1, b'y'];
        for lines in [1, 2] {
            let stream = h2.stream();
            let head = [GET, &line.repeat(lines)].concat();
            let flags = END_STREAM | END_HEADERS;
            h2.send(&frame(HEADERS, flags, stream, &head)).await.unwrap();
            let status = loop {
                let came = h2.receive().await.unwrap();
                if (came.kind, came.stream) == (HEADERS, stream) {
                    break came.payload;
                }
            };
            // `:status: 200` is in the static table.
            assert_eq!(status.first() == Some(&0x88), lines == 1, "{status:x?}");
        }
        h2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn max_streams() {
    let flags = ["--max-streams", "2"];
    counted(&flags, "portcullis_streams_exhausted_total", |address| async move {
        let mut h2 = h2(address).await;
        for _ in 0..3 {
            let stream = h2.stream();
            h2.send(&frame(HEADERS, END_HEADERS, stream, POST)).await.unwrap();
        }
        // One too many is refused, and costs no other client anything.
        loop {
            let came = h2.receive().await.unwrap();
            assert_ne!(came.kind, GOAWAY);
            if came.kind == RST_STREAM {
                assert_eq!((came.stream, came.payload.as_slice()), (5, &[0, 0, 0, 7][..]));
                return h2;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn max_resets() {
    counted(&["--max-resets", "3"], &ended("flooding"), |address| async move {
        let mut h2 = h2(address).await;
        let mut flood = Vec::new();
        // Fewer than may be by default.
        for _ in 0..90 {
            let stream = h2.stream();
            flood.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, GET));
            flood.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
        }
        let _ = h2.send(&flood).await;
        assert_eq!(goaway(&mut h2).await, Some(ENHANCE_YOUR_CALM));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn max_stream_errors() {
    let flags = ["--max-streams", "1", "--max-stream-errors", "3"];
    counted(&flags, &ended("flooding"), |address| async move {
        let mut h2 = h2(address).await;
        // The first stays, and all others are too many.
        for _ in 0..10 {
            let stream = h2.stream();
            let _ = h2.send(&frame(HEADERS, END_HEADERS, stream, POST)).await;
        }
        assert_eq!(goaway(&mut h2).await, Some(ENHANCE_YOUR_CALM));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_timeout() {
    let site = Files::new().serve(&["--drain-timeout", "100ms"]);
    let mut stuck = a(site.server.addr()).await;
    stuck.write_all(POST_OF_9).await.unwrap();
    let cut = "portcullis_connections_cut_total";
    assert_eq!(site.metric(cut), Some(0.0));
    site.until("in", || site.metric("portcullis_connections") == Some(1.0));
    site.files.remove("a.pem");
    timeout(DEADLINE, until_closed(&mut stuck)).await.expect("it is closed");
    site.until(cut, || site.metric(&ended("certificate_removed")) == Some(1.0));
    assert_eq!(site.metric(cut), Some(1.0), "{}", site.get("/metrics").2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_close_reason_is_counted() {
    counted(&[], &ended("done"), |address| async move {
        connector(Some(&PKI.a)).ask(address).await.unwrap();
    })
    .await;
    counted(&[], &ended("failed"), |address| async move {
        let response = exchange(address, b"GET / HTTP/0.9\r\n\r\n").await;
        assert!(response.starts_with("HTTP/1.1 400"), "{response}");
    })
    .await;
}

#[test]
#[cfg(target_os = "linux")]
fn descriptors() {
    let files = Files::new();
    let mut command = Command::new("sh");
    let program = Portcullis::command().get_program().to_owned();
    command.args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""]).arg(program);
    let flags = [files.flags(), ["--admin", "127.0.0.1:0"].map(str::to_owned).into()].concat();
    let server = Portcullis::serve_by(command, flags);
    let event = server.wait_for_event("admin_listening", |_| true);
    let admin = event["addr"].as_str().unwrap().parse().unwrap();
    let site = AdminServer { server, admin, files };
    let failures = "portcullis_accept_failures_total";
    assert_eq!(site.metric(failures), Some(0.0));
    let mut silent: Vec<_> =
        (0..100).map(|_| StdTcpStream::connect(site.server.addr()).unwrap()).collect();
    site.server.wait_for_event("accept_failed", |_| true);
    // Handshakes that were dropped for lack of room are rejections.
    site.server.wait_for_event("client_rejected", |event| event["reason"] == "too_many_handshakes");
    for stream in &mut silent {
        let _ = stream.write_all(b"x");
    }
    drop(silent);
    site.until(failures, || site.metric(failures).is_some_and(|count| count >= 1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_protocol_from() {
    let flags = ["--proxy-protocol", "--proxy-protocol-from", "192.0.2.0/24"];
    counted(&flags, &refused("proxy_protocol"), |address| async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // A header as good as any, and what is not TLS.
        let _ = stream.write_all(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0x").await;
        until_closed(&mut stream).await
    })
    .await;
}

#[test]
fn every_series_begins_at_zero() {
    let text = AdminServer::new().get("/metrics").2;
    let reasons = ["done", "failed", "large_head", "flooding", "certificate_removed"]
        .into_iter()
        .chain(["certificate_expired", "idle", "slow_head", "slow_reader", "aged", "stopped"]);
    let alone = ["connections_cut", "streams_exhausted", "accept_failures", "service_panics"];
    let alone = alone.map(|name| format!("portcullis_{name}_total"));
    for series in reasons.map(ended).chain(alone) {
        assert!(text.contains(&format!("\n{series} 0\n")), "{series}\n{text}");
    }
}
