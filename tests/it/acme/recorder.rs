//! Stands between a server and pebble, records each request, and holds the response to one of them.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::pebble::Pebble;

/// Runs until the process ends.
pub struct Recorder {
    port: u16,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// The first segment of each path: pebble names them after the step.
    steps: Vec<String>,
    /// After so many requests no response is passed on.
    hold_after: Option<usize>,
    is_held: bool,
}

struct Relay {
    pebble: u16,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    seen: Arc<Mutex<Seen>>,
}

impl Recorder {
    pub fn start(pebble: &Pebble) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::<Mutex<Seen>>::default();
        let relay = Arc::new(Relay::new(pebble, Arc::clone(&seen)));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((socket, _)) = listener.accept().await {
                    tokio::spawn(Arc::clone(&relay).serve(socket));
                }
            });
        });
        Self { port, seen }
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}/dir", self.port)
    }

    /// Forgets what was recorded. The response to this request from now on, where there is a
    /// number, is not passed on, nor is any later one.
    pub fn restart(&self, hold_after: Option<usize>) {
        *self.seen.lock().unwrap() = Seen { hold_after, ..Seen::default() };
    }

    /// True once pebble has responded to the request whose response is held.
    pub fn is_held(&self) -> bool {
        self.seen.lock().unwrap().is_held
    }

    /// The step of each request.
    pub fn steps(&self) -> Vec<String> {
        self.seen.lock().unwrap().steps.clone()
    }
}

impl Relay {
    fn new(pebble: &Pebble, seen: Arc<Mutex<Seen>>) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let file = |name| pebble.files.path().join(name);
        let certificate = CertificateDer::from_pem_file(file("directory.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(file("directory.key")).unwrap();
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(file("ca.pem")).unwrap()).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (acceptor, connector) = (Arc::new(server).into(), Arc::new(client).into());
        Self { pebble: pebble.port, acceptor, connector, seen }
    }

    /// One connection of the server for one to pebble.
    async fn serve(self: Arc<Self>, socket: TcpStream) {
        let Ok(tls) = self.acceptor.accept(socket).await else { return };
        let Ok(onward) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.pebble)).await else {
            return;
        };
        let name = ServerName::try_from("localhost").unwrap();
        let Ok(onward) = self.connector.connect(name, onward).await else { return };
        let Ok((sender, connection)) = handshake(TokioIo::new(onward)).await else { return };
        tokio::spawn(connection);
        let sender = Arc::new(tokio::sync::Mutex::new(sender));
        let service = service_fn(|request| {
            let (relay, sender) = (Arc::clone(&self), Arc::clone(&sender));
            async move {
                let mut sender = sender.lock().await;
                Ok::<_, Infallible>(relay.pass(request, &mut sender).await)
            }
        });
        let _ = http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
    }

    async fn pass(
        &self,
        request: Request<Incoming>,
        sender: &mut SendRequest<Incoming>,
    ) -> Response<Full<Bytes>> {
        let step = request.uri().path().split('/').nth(1).unwrap_or_default().to_owned();
        let number = {
            let mut seen = self.seen.lock().unwrap();
            seen.steps.push(step);
            seen.steps.len()
        };
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let is_held = {
            let mut seen = self.seen.lock().unwrap();
            seen.is_held |= seen.hold_after.is_some_and(|last| number >= last);
            seen.is_held
        };
        if is_held {
            std::future::pending::<()>().await;
        }
        Response::from_parts(head, Full::new(body))
    }
}
