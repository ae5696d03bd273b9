//! The gateway's nodes: HTTPS requests to the backends with the certificate of the stage.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Shared;
use super::account::Certificate;

/// A request that takes longer counts as lost.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What the nodes call.
#[derive(Clone, Debug)]
pub struct Traffic {
    pub backends: Vec<SocketAddr>,
    /// PEM of the root under which the backends' certificates for `localhost` are.
    pub root: String,
    pub nodes: u32,
    /// The pause of a node between two requests for one stage.
    pub every: Duration,
    /// After so many requests a connection is replaced; 1 means a new one for each request.
    pub requests_per_connection: usize,
}

impl Traffic {
    /// Three nodes that keep connections for a few requests.
    pub fn to(backends: impl IntoIterator<Item = SocketAddr>, root: &str) -> Self {
        Self {
            backends: backends.into_iter().collect(),
            root: root.to_owned(),
            nodes: 3,
            every: Duration::from_millis(20),
            requests_per_connection: 5,
        }
    }
}

/// What became of the requests.
#[derive(Clone, Debug, Default)]
pub struct TrafficReport {
    pub succeeded: usize,
    /// By the id of the certificate that the connection presented.
    pub by_certificate: BTreeMap<String, usize>,
    pub failures: Vec<String>,
}

/// Traffic that stops when this goes out of scope.
pub struct Running {
    report: Arc<Mutex<TrafficReport>>,
    stop: Arc<AtomicBool>,
}

impl Running {
    pub fn report(&self) -> TrafficReport {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

pub(super) fn start(
    runtime: &tokio::runtime::Handle,
    shared: Arc<Shared>,
    traffic: Traffic,
) -> Running {
    let running = Running { report: Arc::default(), stop: Arc::default() };
    let stages: Vec<(String, String)> = {
        let state = shared.lock();
        let apis = state.account.apis.values();
        let stages = |api: &super::account::Api| {
            let names: Vec<_> = api.stages.keys().cloned().collect();
            names.into_iter().map(|name| (api.id.clone(), name)).collect::<Vec<_>>()
        };
        apis.flat_map(stages).collect()
    };
    for node in 0..traffic.nodes {
        for (api, stage) in &stages {
            for backend in &traffic.backends {
                let node = Node {
                    shared: Arc::clone(&shared),
                    traffic: Traffic { backends: vec![*backend], ..traffic.clone() },
                    api: api.clone(),
                    stage: stage.clone(),
                    node,
                };
                runtime.spawn(node.run(Arc::clone(&running.report), Arc::clone(&running.stop)));
            }
        }
    }
    running
}

struct Node {
    shared: Arc<Shared>,
    traffic: Traffic,
    api: String,
    stage: String,
    node: u32,
}

impl Node {
    async fn run(self, report: Arc<Mutex<TrafficReport>>, stop: Arc<AtomicBool>) {
        let mut connection: Option<(SendRequest<Empty<Bytes>>, String, usize)> = None;
        while !stop.load(Ordering::Relaxed) {
            let result = self.request(&mut connection).await;
            if result.is_err() {
                connection = None;
            }
            self.count(result, &report);
            tokio::time::sleep(self.traffic.every).await;
        }
    }

    fn count(&self, result: Result<String, String>, report: &Mutex<TrafficReport>) {
        let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(certificate) => {
                report.succeeded += 1;
                *report.by_certificate.entry(certificate).or_default() += 1;
            }
            Err(error) => {
                let (api, stage, node) = (&self.api, &self.stage, self.node);
                report.failures.push(format!("{api}/{stage}, node {node}: {error}"));
            }
        }
    }

    /// The certificate that this node presents now.
    fn certificate(&self) -> Option<Arc<Certificate>> {
        let state = self.shared.lock();
        let lag = state.settings.node_lag * self.node / (self.traffic.nodes - 1).max(1);
        let stage = state.account.stage(&self.api, &self.stage)?;
        state.account.ever.get(stage.presented_by(lag)?).cloned()
    }

    async fn request(
        &self,
        connection: &mut Option<(SendRequest<Empty<Bytes>>, String, usize)>,
    ) -> Result<String, String> {
        let most = self.traffic.requests_per_connection;
        let mut kept =
            connection.take().filter(|(sender, _, used)| *used < most && !sender.is_closed());
        if let Some((sender, ..)) = &mut kept
            && sender.ready().await.is_err()
        {
            kept = None;
        }
        let (mut sender, certificate, used) = match kept {
            Some(kept) => kept,
            None => {
                let certificate = self.certificate();
                let sender = connect(&self.traffic, certificate.as_deref()).await?;
                (sender, certificate.map(|one| one.id.clone()).unwrap_or_default(), 0)
            }
        };
        let (status, _) = send(&mut sender, &self.api, "/").await?;
        if status != StatusCode::OK {
            return Err(format!("{status} with {certificate}"));
        }
        *connection = Some((sender, certificate.clone(), used + 1));
        Ok(certificate)
    }
}

/// One request on a connection of its own: status and body.
pub(super) async fn once(
    traffic: &Traffic,
    certificate: Option<&Certificate>,
    api: &str,
    path: &str,
) -> Result<(u16, String), String> {
    let mut sender = connect(traffic, certificate).await?;
    let (status, body) = send(&mut sender, api, path).await?;
    Ok((status.as_u16(), body))
}

async fn connect(
    traffic: &Traffic,
    certificate: Option<&Certificate>,
) -> Result<SendRequest<Empty<Bytes>>, String> {
    let name = certificate.map_or("no certificate", |certificate| &certificate.id);
    let text = |error: &dyn std::fmt::Display| format!("connecting with {name}: {error}");
    let config = config(&traffic.root, certificate);
    let address = *traffic.backends.first().ok_or("no backend")?;
    let connecting = async {
        let socket = TcpStream::connect(address).await.map_err(|error| text(&error))?;
        let server = ServerName::try_from("localhost").expect("a name");
        let tls = TlsConnector::from(Arc::new(config)).connect(server, socket).await;
        let tls = tls.map_err(|error| text(&error))?;
        let (sender, connection) =
            handshake(TokioIo::new(tls)).await.map_err(|error| text(&error))?;
        tokio::spawn(connection);
        Ok(sender)
    };
    tokio::time::timeout(TIMEOUT, connecting).await.map_err(|error| text(&error))?
}

async fn send(
    sender: &mut SendRequest<Empty<Bytes>>,
    api: &str,
    path: &str,
) -> Result<(StatusCode, String), String> {
    let request = Request::get(path)
        .header("host", "localhost")
        .header("connection", "Keep-Alive")
        .header("x-amzn-apigateway-api-id", api)
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    let sending = async {
        let response = sender.send_request(request).await.map_err(|error| format!("{error:?}"))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| format!("{error:?}"))?;
        Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    };
    tokio::time::timeout(TIMEOUT, sending).await.map_err(|error| error.to_string())?
}

fn config(root: &str, certificate: Option<&Certificate>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(root.as_bytes()) {
        roots.add(root.expect("a certificate")).expect("a root");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    match certificate {
        None => builder.with_no_client_auth(),
        Some(certificate) => {
            let chain = CertificateDer::pem_slice_iter(certificate.pem.as_bytes());
            let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).expect("a key");
            let chain = chain.map(|one| one.expect("a certificate")).collect();
            builder.with_client_auth_cert(chain, key).expect("a key that fits")
        }
    }
}
