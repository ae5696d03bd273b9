//! The binary behind the load balancer that people have: HAProxy in TCP mode.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use crate::support::pki::PKI;
use crate::support::proxy::{App, Reply};
use crate::support::tls::{Site, alert, connector, request};
use crate::support::{DEADLINE, Portcullis, wait_for};
use tokio::net::{TcpSocket, TcpStream};

/// A HAProxy that passes TCP through, killed when it goes out of scope.
struct Haproxy {
    process: Child,
    address: SocketAddr,
}

impl Haproxy {
    /// In front of the server, with `send` as its PROXY protocol option.
    fn before(site: &Site, server: SocketAddr, send: &str) -> Self {
        // It names no port that the system chose, so one that was free a moment ago it is.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let configuration = format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
             listen edge\n bind {address}\n server one {server} {send} check inter 100ms\n"
        );
        fs::write(site.path("haproxy.cfg"), configuration).unwrap();
        let process = Command::new("haproxy")
            .arg("-db")
            .arg("-f")
            .arg(site.path("haproxy.cfg"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("haproxy, of Debian's package of that name");
        let haproxy = Self { process, address };
        let is_there = wait_for(DEADLINE, || std::net::TcpStream::connect(address).is_ok());
        assert!(is_there, "HAProxy does not listen");
        haproxy
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A connection from an address of this machine that is not HAProxy's.
async fn come_from_afar(edge: SocketAddr) -> (TcpStream, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 7], 0).into()).unwrap();
    let stream = socket.connect(edge).await.unwrap();
    let own = stream.local_addr().unwrap().to_string();
    (stream, own)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs HAProxy"]
async fn haproxy_in_front_passes_the_client_address_and_health_checks_are_no_rejections() {
    let site = Site::new();
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello world\n";
    let app = App::start(move |_, _| Reply::text(response)).await;
    let upstream = format!("http://{}", app.address);
    let from = ["--proxy-protocol", "--proxy-protocol-from", "127.0.0.1/32"];
    let more = ["--upstream", &upstream, "--log", "info,portcullis=debug"];
    let server = Portcullis::serve(site.flags(&[&from[..], &more].concat()));
    let both = ["send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c check-send-proxy"];
    for (round, send) in both.into_iter().enumerate() {
        let haproxy = Haproxy::before(&site, server.addr(), send);
        for _ in 0..3 {
            server.wait_for_event("left_without_a_word", |_| true);
        }
        let (stream, own) = come_from_afar(haproxy.address).await;
        let mut stream = connector(&PKI.a).shake(stream).await.unwrap();
        request(&mut stream, "").await.unwrap();
        server.wait_for_event("request", |event| event["peer"] == own.as_str());
        let seen = app.record();
        assert_eq!(seen.whole()[round].all("x-forwarded-for"), ["127.0.0.7"]);
        let refusals = server.log().matches("\"client_rejected\"").count();
        assert_eq!(refusals, round, "{}", server.log());
        drop(stream);
        server.wait_for_event("connection_closed", |event| event["peer"] == own.as_str());

        // The twin presents a certificate that is not trusted.
        let (stream, own) = come_from_afar(haproxy.address).await;
        let mut stream = connector(&PKI.stranger).shake(stream).await.unwrap();
        let response = request(&mut stream, "").await;
        assert_eq!(alert(&response), Some(rustls::AlertDescription::UnknownCA));
        let event = server.wait_for_event("client_rejected", |_| true);
        assert_eq!(
            (&event["reason"], &event["peer"]),
            (&"unknown_certificate".into(), &own.into())
        );
        drop(haproxy);
    }
}
