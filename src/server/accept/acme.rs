//! The relaxed handshake of TLS-ALPN-01 (RFC 8737): the only one that asks for no client certificate.
//!
//! A ClientHello gets it if it offers `acme-tls/1` and nothing else, for a name that is being
//! validated at this moment. It proves to the certificate authority that the server holds the name,
//! and ends there: [`begin`] returns no connection for it, so that none can reach HTTP.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{counter, describe_counter};
use rustls::server::{Acceptor, ClientHello, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Error, ServerConfig};
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::{Accept, StartHandshake};

use crate::reload::Current;
use crate::server::accept::handshake_error::{HandshakeError, classify};
use crate::server::accept::limiter::HandshakeLimiter;
use crate::server::accept::pending::Pending;
use crate::server::buffered::BufferedSocket;
use crate::server::provider::provider;
use crate::server::tls_stream::shutdown_and_drain;
use crate::trust::Reason;

/// The protocol of a validation. (RFC 8737, 4)
const ACME_TLS: &[u8] = b"acme-tls/1";
/// How long a relaxed handshake may take, from its first byte to the closed socket.
const LONGEST: Duration = Duration::from_secs(5);
/// The limit of relaxed handshakes. When it is reached, the oldest one is dropped, so that stalled
/// ones do not block others.
const AT_ONCE: usize = 8;

/// The names that are being validated now, each with the certificate that proves it.
#[derive(Debug)]
pub(crate) struct Challenges {
    /// The only field that a handshake reads while nothing is being validated.
    is_open: AtomicBool,
    by_name: Mutex<HashMap<String, Arc<ServerConfig>>>,
    places: Arc<Pending>,
    /// One computes at a time. In a flood most are dropped before their turn, so that clients wait
    /// for fewer computations than in a flood of ordinary handshakes.
    limiter: HandshakeLimiter,
}

/// A validation of a name. It ends when this value is dropped.
#[derive(Debug)]
#[must_use = "the validation ends when it is dropped"]
pub(crate) struct Validation {
    challenges: Arc<Challenges>,
    name: String,
}

impl Challenges {
    pub(crate) fn new() -> Self {
        Self {
            is_open: AtomicBool::new(false),
            by_name: Mutex::default(),
            places: Arc::new(Pending::new(AT_ONCE)),
            limiter: HandshakeLimiter::uncounted(1),
        }
    }

    /// Registers the counters at zero.
    pub(crate) fn describe(&self) {
        describe_counter!(
            "portcullis_acme_handshakes_total",
            "Handshakes of ACME validations (acme-tls/1), by result. They reach no service and are \
             in no other series."
        );
        for result in ["completed", "failed", "timed_out", "dropped"] {
            counter!("portcullis_acme_handshakes_total", "result" => result).absolute(0);
        }
    }

    /// Presents this certificate to clients that validate the name, until the result is dropped.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub(crate) fn open(
        self: &Arc<Self>,
        name: &str,
        key: CertifiedKey,
    ) -> Result<Validation, Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.alpn_protocols = vec![ACME_TLS.to_vec()];
        // As in the strict configuration: the client has no say in what a handshake costs.
        config.ignore_client_order = true;
        // A session could be resumed elsewhere, by a client that never had a certificate.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let name = name.to_ascii_lowercase();
        let mut by_name = self.by_name();
        by_name.insert(name.clone(), Arc::new(config));
        self.is_open.store(true, Ordering::Release);
        Ok(Validation { challenges: Arc::clone(self), name })
    }

    /// True while any name is being validated.
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// The relaxed configuration, for a ClientHello that gets it.
    fn config_for(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        if !is_only_acme(hello.alpn()?) {
            return None;
        }
        let name = hello.server_name()?.to_ascii_lowercase();
        self.by_name().get(&name).cloned()
    }

    /// Performs the relaxed handshake and closes the connection.
    async fn validate(
        &self,
        start: StartHandshake<BufferedSocket>,
        config: Arc<ServerConfig>,
        deadline: Instant,
    ) {
        let place = self.places.enter();
        let exchange = timeout_at(deadline, exchange(start, config, &self.limiter));
        let result = tokio::select! {
            done = exchange => match done {
                Ok(true) => "completed",
                Ok(false) => "failed",
                Err(_) => "timed_out",
            },
            () = place.dropped() => "dropped",
        };
        counter!("portcullis_acme_handshakes_total", "result" => result).increment(1);
    }

    fn by_name(&self) -> MutexGuard<'_, HashMap<String, Arc<ServerConfig>>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Validation {
    fn drop(&mut self) {
        let mut by_name = self.challenges.by_name();
        by_name.remove(&self.name);
        self.challenges.is_open.store(!by_name.is_empty(), Ordering::Release);
    }
}

/// Reads the ClientHello while a name is being validated, and returns the strict handshake. A
/// relaxed handshake is completed here.
pub(super) async fn begin(
    socket: BufferedSocket,
    challenges: &Challenges,
    current: &Current,
    limiter: &HandshakeLimiter,
    deadline: Instant,
) -> Result<Accept<BufferedSocket>, HandshakeError> {
    let relaxed = deadline.min(Instant::now() + LONGEST);
    let mut hello = LazyConfigAcceptor::new(Acceptor::default(), socket);
    let start = match timeout_at(deadline, limiter.run(&mut hello, || {})).await {
        Ok(Ok(start)) => start,
        Ok(Err(error)) => {
            let rejection = Box::new(classify(&error, None));
            return Err(HandshakeError::Rejected(rejection, hello.take_io()));
        }
        Err(_) => return Err(Reason::HandshakeTimeout.into()),
    };
    match challenges.config_for(&start.client_hello()) {
        None => {
            let strict = Arc::clone(&current.newest().tls);
            let accept = timeout_at(deadline, compute_response(start, strict, limiter)).await;
            accept.map_err(|_| Reason::HandshakeTimeout.into())
        }
        Some(config) => {
            challenges.validate(start, config, relaxed).await;
            Err(HandshakeError::Validation)
        }
    }
}

/// Computes the response to a ClientHello, which is most of the work, in its turn.
#[expect(clippy::async_yields_async, reason = "the rest of the handshake goes on elsewhere")]
async fn compute_response(
    start: StartHandshake<BufferedSocket>,
    config: Arc<ServerConfig>,
    limiter: &HandshakeLimiter,
) -> Accept<BufferedSocket> {
    limiter.run(pin!(async move { start.into_stream(config) }), || {}).await
}

/// Returns whether the handshake succeeded. Nothing that follows it is decrypted.
async fn exchange(
    start: StartHandshake<BufferedSocket>,
    config: Arc<ServerConfig>,
    limiter: &HandshakeLimiter,
) -> bool {
    // Within the turn, as the response to the ClientHello is most of the work.
    let accept = pin!(async move { start.into_stream(config).into_fallible().await });
    let (mut socket, is_completed) = match limiter.run(accept, || {}).await {
        Ok(mut tls) => {
            // After a HelloRetryRequest the second ClientHello may offer less than the first.
            let is_acme = tls.get_ref().1.alpn_protocol() == Some(ACME_TLS);
            // A peer that has closed already has its proof.
            let _ = tls.shutdown().await;
            (tls.into_inner().0, is_acme)
        }
        Err((_, socket)) => (socket, false),
    };
    shutdown_and_drain(&mut socket).await;
    is_completed
}

/// True for a list of exactly one protocol, `acme-tls/1`.
fn is_only_acme<'a>(mut offered: impl Iterator<Item = &'a [u8]>) -> bool {
    offered.next() == Some(ACME_TLS) && offered.next().is_none()
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use bytes::Bytes;
    use proptest::prelude::*;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    fn key() -> CertifiedKey {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["api.example".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let key = provider().key_provider.load_private_key(key).unwrap();
        CertifiedKey::new(vec![CertificateDer::from(certificate.der().to_vec())], key)
    }

    /// A real ClientHello with this ALPN list and SNI.
    fn client_hello(alpn: &[Vec<u8>], name: &str) -> Vec<u8> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.to_vec();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// Whether it gets the relaxed configuration.
    fn is_relaxed(challenges: &Challenges, alpn: &[Vec<u8>], name: &str) -> bool {
        let mut acceptor = Acceptor::default();
        acceptor.read_tls(&mut client_hello(alpn, name).as_slice()).unwrap();
        let accepted = acceptor.accept().unwrap().unwrap();
        challenges.config_for(&accepted.client_hello()).is_some()
    }

    fn acme_only() -> Vec<Vec<u8>> {
        vec![ACME_TLS.to_vec()]
    }

    #[test]
    fn relaxed_handshake_is_for_a_name_that_is_being_validated_now() {
        let challenges = Arc::new(Challenges::new());
        assert!(!is_relaxed(&challenges, &acme_only(), "api.example"), "before");
        let validation = challenges.open("API.example", key()).unwrap();
        assert!(challenges.is_open());
        assert!(is_relaxed(&challenges, &acme_only(), "api.example"));
        assert!(is_relaxed(&challenges, &acme_only(), "Api.Example"));
        for other in ["other.example", "example", "x.api.example", "127.0.0.1"] {
            assert!(!is_relaxed(&challenges, &acme_only(), other), "{other}");
        }
        let other = challenges.open("b.example", key()).unwrap();
        drop(validation);
        assert!(challenges.is_open(), "the other name's validation goes on");
        assert!(!is_relaxed(&challenges, &acme_only(), "api.example"), "after");
        drop(other);
        assert!(!challenges.is_open());
    }

    /// Whether the response to a ClientHello is computed where so many are at once.
    async fn is_computed(at_once: usize) -> bool {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        client.unwrap().write_all(&client_hello(&acme_only(), "api.example")).await.unwrap();
        let socket = BufferedSocket::new(accepted.unwrap().0, Bytes::new());
        let start = LazyConfigAcceptor::new(Acceptor::default(), socket).await.unwrap();
        let challenges = Arc::new(Challenges::new());
        let _validation = challenges.open("api.example", key()).unwrap();
        let config = Arc::clone(&challenges.by_name()["api.example"]);
        let limiter = HandshakeLimiter::uncounted(at_once);
        let mut compute = pin!(compute_response(start, config, &limiter));
        // The first poll takes a permit and yields, the second one computes.
        let mut poll = || compute.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        poll() || poll()
    }

    #[tokio::test]
    async fn response_to_a_client_hello_is_computed_in_its_turn() {
        assert!(is_computed(1).await);
        assert!(!is_computed(0).await, "no turn");
    }

    #[test]
    fn relaxed_configuration_resumes_no_session() {
        let challenges = Arc::new(Challenges::new());
        let _validation = challenges.open("api.example", key()).unwrap();
        let config = Arc::clone(&challenges.by_name()["api.example"]);
        assert!(!config.ticketer.enabled());
        assert!(!config.session_storage.can_cache());
        assert_eq!((config.send_tls13_tickets, config.max_early_data_size), (0, 0));
        assert_eq!(config.alpn_protocols, acme_only());
    }

    fn protocol() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => Just(ACME_TLS.to_vec()),
            1 => Just(b"h2".to_vec()),
            1 => Just(b"http/1.1".to_vec()),
            1 => Just(b"acme-tls/1\0".to_vec()),
            1 => Just(b"ACME-TLS/1".to_vec()),
            1 => Just(b"acme-tls/".to_vec()),
            1 => proptest::collection::vec(any::<u8>(), 1..40),
        ]
    }

    proptest! {
        #[test]
        fn only_a_list_of_acme_alone_gets_the_relaxed_handshake(
            alpn in proptest::collection::vec(protocol(), 0..4),
        ) {
            let challenges = Arc::new(Challenges::new());
            let _validation = challenges.open("api.example", key()).unwrap();
            let is_relaxed = is_relaxed(&challenges, &alpn, "api.example");
            prop_assert_eq!(is_relaxed, alpn == acme_only(), "{:?}", alpn);
        }
    }
}
