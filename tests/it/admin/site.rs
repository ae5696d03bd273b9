//! A server with an operator's port, and what is asked of it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};
use rustls::version::TLS13;
use serde_json::Value;

use crate::support::files::Files;
use crate::support::pki::Credential;
use crate::support::tls::{Client, Connector};
use crate::support::{DEADLINE, Portcullis, wait_for};

impl Files {
    pub fn serve(self, more: &[&str]) -> AdminServer {
        let mut flags = self.flags();
        flags.extend(["--admin", "127.0.0.1:0"].map(str::to_owned));
        flags.extend(more.iter().map(|flag| (*flag).to_owned()));
        let server = Portcullis::serve(&flags);
        let event = server.wait_for_event("admin_listening", |_| true);
        let admin = event["addr"].as_str().unwrap().parse().unwrap();
        AdminServer { server, admin, files: self }
    }
}

/// A running server.
pub struct AdminServer {
    pub server: Portcullis,
    pub admin: SocketAddr,
    /// Dropped after the server, which reads in it.
    pub files: Files,
}

impl AdminServer {
    pub fn new() -> Self {
        Files::new().serve(&[])
    }

    /// A response of the admin port: status, head and body.
    pub fn get(&self, path: &str) -> (u16, String, String) {
        let head = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        self.exchange(head.as_bytes())
    }

    pub fn exchange(&self, request: &[u8]) -> (u16, String, String) {
        let mut socket = TcpStream::connect(self.admin).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.write_all(request).unwrap();
        let mut response = String::new();
        socket.read_to_string(&mut response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_default(), head.to_owned(), body.to_owned())
    }

    pub fn status(&self) -> Value {
        serde_json::from_str(&self.get("/status").2).expect("JSON")
    }

    /// The value of a series, written as Prometheus has it.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let (_, _, text) = self.get("/metrics");
        let line = text.lines().find(|line| line.starts_with(&format!("{series} ")))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    pub fn until(&self, what: &str, holds: impl FnMut() -> bool) {
        assert!(wait_for(DEADLINE, holds), "never: {what}\n{}", self.server.log());
    }

    /// Waits until so many were refused: a client learns of it before it has been taken down.
    pub fn until_refused(&self, count: u64) {
        self.until("client_rejected", || {
            let refused = self.status()["handshakes"]["refused"].clone();
            let refused = refused.as_object().unwrap().values();
            refused.filter_map(Value::as_u64).sum::<u64>() == count
        });
    }

    /// One request on a connection of its own; returns true if it got a response.
    pub async fn ask(&self, client: Option<&Credential>) -> bool {
        connector(client).ask(self.server.addr()).await.is_ok()
    }

    /// The trusted certificate of a file, in the status.
    pub fn trusted(&self, file: &str) -> Value {
        let status = self.status();
        let trusted = status["trusted"].as_array().unwrap();
        let is_it = |it: &&Value| it["file"].as_str().is_some_and(|path| path.ends_with(file));
        trusted.iter().find(is_it).cloned().unwrap_or_default()
    }
}

pub fn connector(client: Option<&Credential>) -> Connector {
    let client = client.map(|client| Client::from_pem(&client.cert, &client.key));
    Connector::new(client.as_ref(), &TLS13)
}

pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Parameters of a certificate that is valid from so many days before now to so many after it.
pub fn params(name: &str, before: u32, after: u32) -> CertificateParams {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(1970, 1, 1) + (now - before * DAY);
    params.not_after = date_time_ymd(1970, 1, 1) + (now + after * DAY);
    params
}

/// A self-signed certificate with a key of its own.
pub fn credential(name: &str, before: u32, after: u32) -> Credential {
    let key = KeyPair::generate().unwrap();
    let cert = params(name, before, after).self_signed(&key).unwrap().pem();
    Credential { name: "", cert, key: key.serialize_pem() }
}
