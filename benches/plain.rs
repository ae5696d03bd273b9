//! What one writes in an afternoon with hyper, tokio-rustls and hyper-util's client, without any of
//! what portcullis promises: what its promises cost is the difference. It has the allocator, the
//! response and the timeouts of portcullis, and sets `X-Forwarded-For`. `benches/peers` runs it.
//!
//!     plain DIR [UPSTREAM]    certificates as `load certs` makes them; prints where it listens

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    missing_docs,
    reason = "this is a bench, and fails by panicking"
)]

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::DefaultTimeProvider;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long the application may take.
const TIMEOUT: Duration = Duration::from_secs(29);

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let certs = PathBuf::from(args.next().expect("the directory of the certificates"));
    let upstream = args.next();
    let acceptor = TlsAcceptor::from(Arc::new(tls(&certs)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Incoming> = Client::builder(TokioExecutor::new()).build(connector);
    loop {
        let (tcp, peer) = listener.accept().await.unwrap();
        let (acceptor, client, upstream) = (acceptor.clone(), client.clone(), upstream.clone());
        tokio::spawn(async move {
            tcp.set_nodelay(true).unwrap();
            let Ok(stream) = acceptor.accept(tcp).await else { return };
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let io = TokioIo::new(stream);
            let mut http1 = http1::Builder::new();
            // With a timer, the head of a request has 30 seconds.
            http1.timer(TokioTimer::new());
            let _ = match upstream {
                None if is_http2 => {
                    http2::Builder::new(TokioExecutor::new())
                        .serve_connection(io, service_fn(hello))
                        .await
                }
                None => http1.serve_connection(io, service_fn(hello)).await,
                Some(upstream) => {
                    let forwarded_for = HeaderValue::try_from(peer.ip().to_string()).unwrap();
                    let proxy = service_fn(|mut request: Request<Incoming>| {
                        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
                        *request.uri_mut() =
                            format!("http://{upstream}{path}").parse::<Uri>().unwrap();
                        request.headers_mut().append("x-forwarded-for", forwarded_for.clone());
                        let response = client.request(request);
                        async { timeout(TIMEOUT, response).await.expect("a response in time") }
                    });
                    http1.serve_connection(io, proxy).await
                }
            };
        });
    }
}

async fn hello(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"hello world\n")));
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    Ok(response)
}

fn tls(certs: &std::path::Path) -> ServerConfig {
    let read = |name| CertificateDer::from_pem_file(certs.join(name)).unwrap();
    let key = PrivateKeyDer::from_pem_file(certs.join("server-key.pem")).unwrap();
    let provider = Arc::new(default_provider());
    let mut trusted = RootCertStore::empty();
    trusted.add(read("client.pem")).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(trusted), Arc::clone(&provider));
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(DefaultTimeProvider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![read("server.pem")], key)
        .unwrap();
    config.ticketer = Ticketer::new().unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}
