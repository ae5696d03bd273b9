//! A certificate that is removed or expires takes its resumed sessions and live connections with it.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use crate::support::DEADLINE;
use crate::support::pki::PKI;
use crate::support::tls::{BOTH, Connector, Site, request};
use rustls::HandshakeKind;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn removed_certificate_resumes_no_session() {
    for version in BOTH {
        let (site, server, load) = loaded().await;
        let connector = |credential| Connector::new(Some(&client(credential)), version);
        let (a, b) = (connector(&PKI.a), connector(&PKI.b));
        let resumed = async |connector: &Connector| connector.ask(server.address).await.unwrap().1;
        for connector in [&a, &b] {
            assert_eq!(resumed(connector).await, HandshakeKind::Full);
            assert_eq!(resumed(connector).await, HandshakeKind::Resumed);
        }
        // No certificate is removed: sessions go on.
        let generation = server.handle.generation();
        site.trust("stranger.pem", &PKI.stranger.cert);
        timeout(DEADLINE, server.handle.generation_after(generation)).await.unwrap();
        assert_eq!(resumed(&a).await, HandshakeKind::Resumed);
        assert_eq!(resumed(&b).await, HandshakeKind::Resumed);

        fs::remove_file(site.path("trust/a.pem")).unwrap();
        timeout(DEADLINE, server.handle.generation_after(generation + 1)).await.unwrap();
        assert!(a.ask(server.address).await.is_err(), "{version:?}");
        assert!(b.ask(server.address).await.is_ok(), "{version:?}");
        load.lost_nothing().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_certificate_closes_idle_connection_and_no_other() {
    let (site, server, load) = loaded().await;
    let mut a = connector(&PKI.a).connect(server.address).await.unwrap();
    let mut b = connector(&PKI.b).connect(server.address).await.unwrap();
    request(&mut a, "").await.unwrap();
    request(&mut b, "").await.unwrap();
    fs::remove_file(site.path("trust/a.pem")).unwrap();
    let mut rest = Vec::new();
    let end = timeout(DEADLINE, a.read_to_end(&mut rest)).await.expect("it is closed");
    // With a close_notify: without one, rustls makes an error of it.
    assert!(end.is_ok() && rest.is_empty(), "{end:?} {rest:?}");
    request(&mut b, "").await.unwrap();
    load.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_request_after_removal_is_not_answered() {
    use tokio::io::AsyncWriteExt as _;
    let (site, server, load) = loaded().await;
    let mut open = Vec::new();
    for credential in [&PKI.a, &PKI.b] {
        let mut stream = connector(credential).connect(server.address).await.unwrap();
        request(&mut stream, "").await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
        stream.flush().await.unwrap();
        open.push(stream);
    }
    let generation = server.handle.generation();
    fs::remove_file(site.path("trust/a.pem")).unwrap();
    timeout(DEADLINE, server.handle.generation_after(generation)).await.unwrap();
    let mut responses = Vec::new();
    for stream in &mut open {
        // The server may have closed it by now.
        let _ = stream.write_all(b"st: localhost\r\nConnection: close\r\n\r\n").await;
        let mut response = Vec::new();
        let _ = timeout(DEADLINE, stream.read_to_end(&mut response)).await.expect("it ends");
        responses.push(String::from_utf8_lossy(&response).into_owned());
    }
    assert_eq!(responses[0], "");
    assert!(responses[1].ends_with("hello world\n"), "{}", responses[1]);
    load.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn request_in_flight_finishes_after_removal_and_its_connection_closes() {
    let site = Site::new();
    site.trust("a.pem", &PKI.a.cert);
    site.trust("b.pem", &PKI.b.cert);
    let bound = site.config().trust(site.path("trust")).poll_interval(NEVER).bind().unwrap();
    let address = bound.local_addrs()[0];
    let (begun, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
    let may_end = Arc::new(tokio::sync::Semaphore::new(0));
    let running = bound.serve_hyper(hyper::service::service_fn({
        let may_end = Arc::clone(&may_end);
        move |_| {
            let (begun, may_end) = (begun.clone(), Arc::clone(&may_end));
            async move {
                begun.send(()).unwrap();
                may_end.acquire().await.unwrap().forget();
                Ok::<_, std::convert::Infallible>(hyper::Response::new(String::from(
                    "hello world\n",
                )))
            }
        }
    }));
    let handle = running.handle();
    handle.reload().await;
    let ask = |credential| {
        let connector = connector(credential);
        tokio::spawn(async move {
            let mut stream = connector.connect(address).await?;
            let first = request(&mut stream, "").await?;
            Ok::<_, std::io::Error>((first, request(&mut stream, "").await))
        })
    };
    let (a, b) = (ask(&PKI.a), ask(&PKI.b));
    has_begun.recv().await.unwrap();
    has_begun.recv().await.unwrap();
    let generation = handle.generation();
    fs::remove_file(site.path("trust/a.pem")).unwrap();
    timeout(DEADLINE, handle.generation_after(generation)).await.unwrap();
    may_end.add_permits(3);
    let (first, second) = timeout(DEADLINE, a).await.unwrap().unwrap().unwrap();
    assert!(first.contains("connection: close"), "{first}");
    assert!(second.is_err(), "{second:?}");
    let (first, second) = timeout(DEADLINE, b).await.unwrap().unwrap().unwrap();
    assert!(!first.contains("connection: close"), "{first}");
    assert!(second.is_ok(), "{second:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_certificate_closes_live_connection() {
    let (site, server, load) = loaded().await;
    site.trust("twin.pem", &PKI.not_yet_valid.cert);
    server.handle.reload().await;
    let twin = connector(&PKI.not_yet_valid);
    let now = std::time::SystemTime::now();
    let day = Duration::from_secs(24 * 60 * 60);
    // B stays valid for longer than A does, whose 365 days began 180 days ago.
    let mut a = connector(&PKI.a).connect(server.address).await.unwrap();
    request(&mut a, "").await.unwrap();
    site.clock.set(now + 184 * day);
    request(&mut a, "").await.unwrap();
    assert!(twin.ask(server.address).await.is_ok(), "its time has come");
    site.clock.set(now + 186 * day);
    assert!(request(&mut a, "").await.is_err());
    assert!(connector(&PKI.a).ask(server.address).await.is_err());
    load.lost_nothing().await;
}
