//! A directory of our own: it validates nothing, verifies no signature, and does as a test wants.

use std::convert::Infallible;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use super::pebble::directory_certificate;
use crate::support::run;

/// What a directory does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Behaviour {
    Works,
    IssuesForAnotherName,
    Html,
    Redirects,
    Nonsense,
    Unavailable,
    /// Its clock is years behind, and it refuses.
    OtherClock,
    /// Each validation lasts.
    NeverValidates,
}

/// Runs until the process ends.
pub struct Directory {
    port: u16,
    state: Arc<State>,
}

struct State {
    behaviour: Behaviour,
    files: TempDir,
    base: String,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// RFC 3339, and how often it is asked for; without it there is no renewal information.
    window: Option<(String, String)>,
    asked: Vec<String>,
    replaces: Vec<Option<String>>,
    chain: String,
}

impl Directory {
    pub fn start(behaviour: Behaviour) -> Self {
        let files = tempfile::tempdir().unwrap();
        let (certificate, key, ca) = directory_certificate();
        fs::write(files.path().join("ca.pem"), ca).unwrap();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let base = format!("https://localhost:{port}");
        let state = Arc::new(State { behaviour, files, base, seen: Mutex::default() });
        state.make_issuer();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        let (acceptor, shared) = (TlsAcceptor::from(Arc::new(tls)), Arc::clone(&state));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((socket, _)) = listener.accept().await {
                    let (acceptor, state) = (acceptor.clone(), Arc::clone(&shared));
                    tokio::spawn(async move {
                        let Ok(tls) = acceptor.accept(socket).await else { return };
                        let service =
                            service_fn(move |request| response(Arc::clone(&state), request));
                        let _ = http1::Builder::new()
                            .serve_connection(TokioIo::new(tls), service)
                            .await;
                    });
                }
            });
        });
        Self { port, state }
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}/dir", self.port)
    }

    pub fn ca(&self) -> PathBuf {
        self.state.files.path().join("ca.pem")
    }

    /// From now on it suggests to renew in this window.
    pub fn suggest(&self, start: &str, end: &str) {
        self.state.seen.lock().unwrap().window = Some((start.to_owned(), end.to_owned()));
    }

    /// Which certificates renewal information was asked for.
    pub fn asked(&self) -> Vec<String> {
        self.state.seen.lock().unwrap().asked.clone()
    }

    /// The `replaces` of each order.
    pub fn replaces(&self) -> Vec<Option<String>> {
        self.state.seen.lock().unwrap().replaces.clone()
    }
}

impl State {
    fn openssl(&self, arguments: &str) {
        let mut openssl = Command::new("openssl");
        openssl.args(arguments.split(' ')).current_dir(self.files.path());
        let finished = run(&mut openssl, "");
        assert_eq!(finished.code, Some(0), "{finished}");
    }

    fn make_issuer(&self) {
        self.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=Issuer \
             -keyout issuer.key -out issuer.pem",
        );
    }

    /// A chain for this request (DER).
    fn issue(&self, request: &[u8]) -> String {
        fs::write(self.files.path().join("request.der"), request).unwrap();
        let names = match self.behaviour {
            Behaviour::IssuesForAnotherName => "subjectAltName=DNS:other.example\n",
            _ => "",
        };
        let extensions = format!("{names}authorityKeyIdentifier=keyid\n");
        fs::write(self.files.path().join("extensions"), extensions).unwrap();
        let copy = if names.is_empty() { "copyall" } else { "none" };
        self.openssl(&format!(
            "x509 -req -inform der -in request.der -CA issuer.pem -CAkey issuer.key -days 9 \
             -copy_extensions {copy} -extfile extensions -out leaf.pem"
        ));
        let read = |name| fs::read_to_string(self.files.path().join(name)).unwrap();
        format!("{}{}", read("leaf.pem"), read("issuer.pem"))
    }

    fn order(&self, status: &str, replaces: Option<&str>) -> Value {
        let base = &self.base;
        let mut order = json!({
            "status": status,
            "identifiers": [{"type": "dns", "value": "api.example"}],
            "authorizations": [format!("{base}/authorization")],
            "finalize": format!("{base}/finalize"),
        });
        if status == "valid" {
            order["certificate"] = format!("{base}/certificate").into();
        }
        if let Some(replaces) = replaces {
            order["replaces"] = replaces.into();
        }
        order
    }
}

type FullResponse = Response<Full<Bytes>>;

async fn response(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<FullResponse, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Ok(respond(&state, &parts.method, parts.uri.path(), &body))
}

fn with(status: StatusCode, kind: &str, body: String) -> FullResponse {
    Response::builder()
        .status(status)
        .header("content-type", kind)
        .header("replay-nonce", "bm9uY2U")
        .body(Full::from(body))
        .unwrap()
}

fn json_with(status: StatusCode, location: Option<String>, value: &Value) -> FullResponse {
    let mut response = with(status, "application/json", value.to_string());
    if let Some(location) = location {
        response.headers_mut().insert("location", location.parse().unwrap());
    }
    response
}

/// The response of a directory that does not work, whatever it is asked for.
fn misbehave(behaviour: Behaviour) -> Option<FullResponse> {
    let response = match behaviour {
        Behaviour::Works | Behaviour::IssuesForAnotherName | Behaviour::NeverValidates => {
            return None;
        }
        Behaviour::Html => with(StatusCode::OK, "text/html; charset=utf-8", "<p>".to_owned()),
        Behaviour::OtherClock => {
            let problem = json!({"type": "urn:ietf:params:acme:error:serverInternal"});
            let mut response = json_with(StatusCode::INTERNAL_SERVER_ERROR, None, &problem);
            let date = "Wed, 01 Jan 2020 00:00:00 GMT".parse().unwrap();
            response.headers_mut().insert("date", date);
            response
        }
        Behaviour::Nonsense => with(StatusCode::OK, "application/json", "{]".to_owned()),
        Behaviour::Redirects => {
            let elsewhere = Some("https://elsewhere.example/dir".to_owned());
            json_with(StatusCode::FOUND, elsewhere, &json!({}))
        }
        Behaviour::Unavailable => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            let mut response = with(status, "text/plain", "later".to_owned());
            response.headers_mut().insert("retry-after", "1800".parse().unwrap());
            response
        }
    };
    Some(response)
}

fn respond(state: &State, method: &Method, path: &str, body: &[u8]) -> FullResponse {
    let base = &state.base;
    if let Some(response) = misbehave(state.behaviour) {
        return response;
    }
    let mut seen = state.seen.lock().unwrap();
    let outer: Value = serde_json::from_slice(body).unwrap_or_default();
    let payload = outer["payload"].as_str().unwrap_or_default();
    let payload = URL_SAFE_NO_PAD.decode(payload).unwrap();
    let payload: Value = serde_json::from_slice(&payload).unwrap_or_default();
    let is_ready = match state.behaviour {
        Behaviour::NeverValidates => "pending",
        _ => "ready",
    };
    let url = format!("{base}/challenge");
    let challenge =
        json!({"type": "tls-alpn-01", "url": url, "token": "dG9rZW4", "status": "pending"});
    match path {
        "/dir" => {
            let mut directory = json!({
                "newNonce": format!("{base}/nonce"),
                "newAccount": format!("{base}/account"),
                "newOrder": format!("{base}/orders"),
            });
            if seen.window.is_some() {
                directory["renewalInfo"] = format!("{base}/renewal").into();
            }
            json_with(StatusCode::OK, None, &directory)
        }
        "/nonce" => with(StatusCode::OK, "text/plain", String::new()),
        "/account" => {
            let location = Some(format!("{base}/account/1"));
            json_with(StatusCode::CREATED, location, &json!({"status": "valid"}))
        }
        "/orders" => {
            let replaces = payload["replaces"].as_str();
            seen.replaces.push(replaces.map(str::to_owned));
            let location = Some(format!("{base}/order"));
            json_with(StatusCode::CREATED, location, &state.order(is_ready, replaces))
        }
        "/order" => {
            let status = if seen.chain.is_empty() { is_ready } else { "valid" };
            json_with(StatusCode::OK, None, &state.order(status, None))
        }
        "/authorization" => {
            let identifier = json!({"type": "dns", "value": "api.example"});
            let status = if is_ready == "ready" { "valid" } else { "pending" };
            let challenges = json!([challenge]);
            let authorization =
                json!({"identifier": identifier, "status": status, "challenges": challenges});
            json_with(StatusCode::OK, None, &authorization)
        }
        "/challenge" => json_with(StatusCode::OK, None, &challenge),
        "/finalize" => {
            let request = URL_SAFE_NO_PAD.decode(payload["csr"].as_str().unwrap()).unwrap();
            seen.chain = state.issue(&request);
            json_with(StatusCode::OK, None, &state.order("processing", None))
        }
        "/certificate" => {
            let chain = std::mem::take(&mut seen.chain);
            with(StatusCode::OK, "application/pem-certificate-chain", chain)
        }
        path if *method == Method::GET && path.starts_with("/renewal/") => {
            seen.asked.push(path.trim_start_matches("/renewal/").to_owned());
            let (start, end) = seen.window.clone().unwrap_or_default();
            let window = json!({"suggestedWindow": {"start": start, "end": end}});
            let mut response = json_with(StatusCode::OK, None, &window);
            response.headers_mut().insert("retry-after", "1".parse().unwrap());
            response
        }
        _ => with(StatusCode::NOT_FOUND, "application/problem+json", "{}".to_owned()),
    }
}
