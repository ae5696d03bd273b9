//! What the servers of the fleet report on their admin ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// How long one replica may take to respond.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Ten thousand certificates take a few megabytes.
const MAX_STATUS: usize = 64 << 20;
const DEFAULT_PORT: u16 = 80;

/// The admin URL of one replica, or of all behind a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplicaUrl {
    host: String,
    port: u16,
}

impl FromStr for ReplicaUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = "write it as http://10.0.0.1:9090 or http://portcullis-admin:9090";
        let url: http::Uri = text.parse().map_err(|_| example.to_owned())?;
        let host = url.host().filter(|host| !host.is_empty()).ok_or(example)?;
        match url.scheme_str() {
            Some("http") => {}
            Some("https") => return Err("the admin port has plain HTTP: write http://".to_owned()),
            _ => return Err(example.to_owned()),
        }
        if !matches!(url.path(), "" | "/" | "/status") || url.query().is_some() {
            return Err(format!("it is the admin port itself, without a path: {example}"));
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port: url.port_u16().unwrap_or(DEFAULT_PORT) })
    }
}

impl std::fmt::Display for ReplicaUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "http://[{}]:{}", self.host, self.port),
            false => write!(f, "http://{}:{}", self.host, self.port),
        }
    }
}

/// The state of one server process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replica {
    pub(crate) address: SocketAddr,
    /// Of the process: another one after a restart.
    pub(crate) instance: String,
    /// The certificates that it accepts by their bytes, by fingerprint.
    pub(crate) trusted: BTreeMap<String, Counters>,
}

impl Replica {
    pub(crate) fn accepts(&self, fingerprint: &str) -> bool {
        self.trusted.get(fingerprint).is_some_and(|counters| counters.is_valid)
    }

    pub(crate) fn trusts(&self, fingerprint: &str) -> bool {
        self.trusted.contains_key(fingerprint)
    }
}

/// What a process reports of one certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) file: String,
    /// True if it is within its validity period by the clock of the replica.
    pub(crate) is_valid: bool,
    pub(crate) handshakes: u64,
    pub(crate) requests: u64,
    pub(crate) apis: BTreeMap<String, u64>,
}

/// The result of one scan of all replicas.
#[derive(Clone, Debug, Default)]
pub(crate) struct FleetScan {
    /// Each process once.
    pub(crate) replicas: Vec<Replica>,
    /// A replica and why it did not respond.
    pub(crate) failures: Vec<String>,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    instance: String,
    trusted: Vec<Trusted>,
}

#[derive(Deserialize)]
struct Trusted {
    role: String,
    fingerprint: String,
    #[serde(default)]
    file: String,
    #[serde(default)]
    state: String,
    handshakes: u64,
    requests: u64,
    #[serde(default)]
    apis: BTreeMap<String, Api>,
}

#[derive(Deserialize)]
struct Api {
    requests: u64,
}

/// Reads `/status` at every address of every URL.
pub(crate) async fn scan(urls: &[ReplicaUrl]) -> FleetScan {
    let mut scan = FleetScan::default();
    let mut addresses = BTreeSet::new();
    for url in urls {
        let found = timeout(TIMEOUT, lookup_host((url.host.as_str(), url.port))).await;
        match found.map_err(|_| "the name is not resolved in time".to_owned()) {
            Ok(Ok(found)) => {
                let before = addresses.len();
                let found: Vec<_> = found.collect();
                addresses.extend(found.iter().copied());
                if found.is_empty() && addresses.len() == before {
                    scan.failures.push(format!("{url}: the name has no address"));
                }
            }
            Ok(Err(error)) => scan.failures.push(format!("{url}: {error}")),
            Err(error) => scan.failures.push(format!("{url}: {error}")),
        }
    }
    let asked: Vec<_> = addresses
        .into_iter()
        .map(|address| (address, tokio::spawn(timeout(TIMEOUT, status(address)))))
        .collect();
    let mut instances = BTreeSet::new();
    for (address, asked) in asked {
        let status = match asked.await {
            Ok(Ok(status)) => status,
            Ok(Err(_)) => Err(format!("no response in {} s", TIMEOUT.as_secs())),
            Err(error) => Err(error.to_string()),
        };
        match status {
            // One process may have several addresses.
            Ok(replica) if instances.insert(replica.instance.clone()) => {
                scan.replicas.push(replica)
            }
            Ok(_) => {}
            Err(error) => scan.failures.push(format!("http://{address}: {error}")),
        }
    }
    scan
}

async fn status(address: SocketAddr) -> Result<Replica, String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let socket = TcpStream::connect(address).await.map_err(|error| text(&error))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(socket)).await.map_err(|error| text(&error))?;
    let connection = tokio::spawn(connection);
    let request = Request::get("/status")
        .header(header::HOST, address.to_string())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| text(&error))?;
    let response = sender.send_request(request).await.map_err(|error| text(&error))?;
    let code = response.status();
    let body = Limited::new(response.into_body(), MAX_STATUS).collect().await;
    connection.abort();
    if code != StatusCode::OK {
        return Err(format!(
            "GET /status responded {code}; name the admin port (--admin of serve)"
        ));
    }
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    parse(address, &body)
}

fn parse(address: SocketAddr, body: &[u8]) -> Result<Replica, String> {
    let status: Status = serde_json::from_slice(body)
        .map_err(|error| format!("/status is not that of portcullis: {error}"))?;
    if status.instance.is_empty() {
        return Err("this portcullis is too old: its /status has no `instance`".to_owned());
    }
    let pins = status.trusted.into_iter().filter(|trusted| trusted.role == "pin");
    let trusted = pins.map(|trusted| {
        let Trusted { fingerprint, file, state, handshakes, requests, apis, .. } = trusted;
        let is_valid = !matches!(state.as_str(), "not_yet_valid" | "expired");
        let apis = apis.into_iter().map(|(id, api)| (id, api.requests)).collect();
        (fingerprint, Counters { file, is_valid, handshakes, requests, apis })
    });
    Ok(Replica { address, instance: status.instance, trusted: trusted.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_urls_are_parsed_and_others_refused_with_an_example() {
        let parse = |text: &str| text.parse::<ReplicaUrl>();
        assert_eq!(parse("http://10.0.0.1:9090").unwrap().to_string(), "http://10.0.0.1:9090");
        assert_eq!(parse("http://[::1]:9090/").unwrap().to_string(), "http://[::1]:9090");
        assert_eq!(parse("http://fleet").unwrap().to_string(), "http://fleet:80");
        for bad in ["10.0.0.1:9090", "https://a:1", "http://", "fleet", "http://a:1/metrics"] {
            let error = parse(bad).unwrap_err();
            assert!(error.contains("http://"), "{bad}: {error}");
        }
    }

    #[test]
    fn status_without_instance_is_of_a_server_that_is_too_old() {
        let address = "127.0.0.1:1".parse().unwrap();
        let good = br#"{"instance": "ab", "trusted": [
            {"role": "pin", "fingerprint": "f", "file": "a.pem", "handshakes": 1, "requests": 2,
             "apis": {"x": {"requests": 2, "last_seen": null}}},
            {"role": "pin", "fingerprint": "h", "state": "expired", "handshakes": 0, "requests": 0},
            {"role": "anchor", "fingerprint": "g", "handshakes": 0, "requests": 0}]}"#;
        let replica = parse(address, good).unwrap();
        assert!(replica.trusts("f") && !replica.trusts("g"));
        assert_eq!(replica.trusted["f"].apis["x"], 2);
        assert!(replica.accepts("f") && !replica.accepts("h") && replica.trusts("h"));
        assert!(parse(address, br#"{"trusted": []}"#).unwrap_err().contains("too old"));
        assert!(parse(address, b"hello").is_err());
    }
}
