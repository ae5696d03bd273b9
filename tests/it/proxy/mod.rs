//! The proxy between real sockets: what reaches the application, what comes back, and what happens
//! when either side fails.

mod early;
mod failing;
mod http2;
mod library;
mod passing;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::support::DEADLINE;
use crate::support::pki::PKI;
use crate::support::proxy::{
    App, Front, Reply, Seen, connect, is_silent, read_to_end, read_until, send, status,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use portcullis::service::{ApiId, Authorize, Proxy, Upstream};
use portcullis::{ClientIdentity, PeerAddr};
use sha2_of::sha256;
use tokio::net::{TcpListener, UnixListener};
use tokio::time::timeout;

/// SHA-256 without one more dependency.
mod sha2_of {
    pub fn sha256(bytes: &[u8]) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn der() -> Vec<u8> {
    use rustls::pki_types::pem::PemObject as _;
    rustls::pki_types::CertificateDer::from_pem_slice(PKI.a.cert.as_bytes()).unwrap().to_vec()
}

fn client_cert() -> String {
    use base64::Engine as _;
    format!(":{}:", base64::engine::general_purpose::STANDARD.encode(der()))
}

async fn echoing(_: ()) -> (App, Front) {
    let app = App::start(|_, _| Reply::ok()).await;
    let front = Front::before(&app);
    (app, front)
}

async fn seen_of(headers: &str) -> Seen {
    let (app, front) = echoing(()).await;
    let response = front.get("/path?query=1", headers).await;
    assert_eq!(status(&response), 200, "{response}");
    app.record().whole()[0].clone()
}

fn url(listener: &TcpListener) -> Upstream {
    format!("http://{}", listener.local_addr().unwrap()).parse().unwrap()
}

fn problem(response: &str) -> serde_json::Value {
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: application/problem+json"), "{response}");
    let problem: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(problem["status"], status(response));
    assert_eq!(problem["request_id"].as_str().unwrap().len(), 16);
    problem
}
