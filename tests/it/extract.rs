//! `ClientIdentity` and `PeerAddr` as axum extractors.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::{Router, routing::get};
use http_body_util::BodyExt as _;
use hyper::{Request, StatusCode};
use portcullis::{ClientIdentity, PeerAddr};
use tower::ServiceExt as _;
use tracing::field::Field;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::support::pki::PKI;
use crate::support::tls::{Site, connector, request_until};

fn router() -> Router {
    let who = async |client: ClientIdentity, PeerAddr(peer): PeerAddr| {
        format!("{} at {}\n", client.fingerprint(), peer.ip())
    };
    let peer = async |PeerAddr(peer): PeerAddr| format!("{}\n", peer.ip());
    let open = async || "open to all\n";
    Router::new().route("/", get(who)).route("/peer", get(peer)).route("/open", get(open))
}

#[tokio::test(flavor = "multi_thread")]
async fn handler_takes_the_verified_client_and_its_address() {
    let site = Site::new();
    site.trust("a.pem", &PKI.a.cert);
    let bound = site.config().trust(site.path("trust")).bind().unwrap();
    let address = bound.local_addrs()[0];
    let running = bound.serve(router());
    let mut stream = connector(&PKI.a).connect(address).await.unwrap();
    let response = request_until(&mut stream, "", b" at 127.0.0.1\n").await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    running.handle().abort();
    let _ = running.await;
}

/// Collects the fields of each event as text.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<String>>>);

impl Subscriber for Events {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = event.metadata().level().to_string();
        event.record(&mut |field: &Field, value: &dyn Debug| {
            text.push_str(&format!(" {field}={value:?}"));
        });
        self.0.lock().unwrap().push(text);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn request_that_passed_no_gate_gets_500_and_a_log_line() {
    let events = Events::default();
    let _guard = tracing::subscriber::set_default(events.clone());
    for (path, status) in [
        ("/", StatusCode::INTERNAL_SERVER_ERROR),
        ("/peer", StatusCode::INTERNAL_SERVER_ERROR),
        ("/open", StatusCode::OK),
    ] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        let is_problem = response
            .headers()
            .get("content-type")
            .is_some_and(|kind| kind == "application/problem+json");
        assert_eq!(is_problem, status.is_server_error());
        let logged = std::mem::take(&mut *events.0.lock().unwrap());
        let is_named = |line: &String| line.starts_with("ERROR") && line.contains("gate_missing");
        assert_eq!(logged.iter().any(is_named), status.is_server_error(), "{path}: {logged:?}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert_eq!(text.contains("request_id"), status.is_server_error(), "{text}");
    }
}
