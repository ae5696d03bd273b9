//! A socket until its client is admitted: accept → place → PROXY header → handshake → admission.
//!
//! An admitted connection goes on in `server/http/`. A rejected one is counted, logged and closed.

#[cfg_attr(not(feature = "acme"), path = "no_acme.rs")]
pub(super) mod acme;
pub(super) mod cidr;
mod handshake;
mod handshake_error;
pub(super) mod limiter;
pub(super) mod listen;
pub(super) mod pending;
pub(crate) mod proxy_header;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, warn};

use crate::reload::{Admission, Current};
use crate::server::accept::acme::Challenges;
use crate::server::accept::handshake_error::HandshakeError;
use crate::server::accept::limiter::HandshakeLimiter;
use crate::server::accept::pending::{Pending, Place};
use crate::server::http::connection;
use crate::server::http::failure_log::FailureLog;
use crate::server::http::state::ConnectionState;
use crate::server::limits::Limits;
use crate::server::meters::Meters;
use crate::server::phase::{FIRST_REQUEST_GRACE, Phase};
use crate::server::rejections::{Rejection, RejectionLog};
use crate::server::service::HttpService;
use crate::server::tls_stream::{self, TlsStream, shutdown_and_drain};
use crate::trust::{PresentedCertificate, Reason};

/// The pause before the next attempt if the machine has no descriptors or memory.
const RETRY_DELAY: Duration = Duration::from_millis(20);

/// The same, where handshakes have been dropped to make room.
const RETRY_DELAY_AFTER_DROP: Duration = Duration::from_millis(5);

/// The state that the accept loops and all handshakes share.
pub(in crate::server) struct Acceptor<S> {
    pub(in crate::server) service: Arc<S>,
    pub(in crate::server) current: Arc<Current>,
    pub(in crate::server) challenges: Option<Arc<Challenges>>,
    pub(in crate::server) limits: Limits,
    pub(in crate::server) pending: Arc<Pending>,
    pub(in crate::server) limiter: HandshakeLimiter,
    /// One permit for each admitted connection.
    pub(in crate::server) connection_permits: Arc<Semaphore>,
    pub(in crate::server) meters: Arc<Meters>,
    pub(in crate::server) rejections: Arc<RejectionLog>,
    pub(in crate::server) failures: FailureLog,
}

impl<S> Acceptor<S> {
    /// Counts and logs a rejected client.
    fn reject(&self, peer: SocketAddr, rejection: Rejection) {
        self.meters.rejected(rejection.reason);
        self.rejections.record(peer, rejection, &self.current);
    }

    /// Looks the client up again, as the trust store may have changed since its handshake, and
    /// takes a permit for its connection.
    fn admit(
        &self,
        presented: &[CertificateDer<'_>],
    ) -> Result<(Admission, OwnedSemaphorePermit), Box<Rejection>> {
        let admission = self.current.admit(presented).map_err(|refusal| {
            let presented = presented.first().map(PresentedCertificate::new);
            Box::new(Rejection { reason: refusal.reason, presented, detail: refusal.detail })
        })?;
        match Arc::clone(&self.connection_permits).try_acquire_owned() {
            Ok(permit) => Ok((admission, permit)),
            Err(_) => Err(Box::new(Reason::TooManyConnections.into())),
        }
    }
}

/// Accepts connections until the drain begins.
pub(in crate::server) async fn accept<S: HttpService>(
    listener: TcpListener,
    acceptor: Arc<Acceptor<S>>,
    mut phase: watch::Receiver<Phase>,
) {
    let mut is_starved = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = phase.wait_for(|phase| *phase >= Phase::Draining) => return,
        };
        match accepted {
            Ok((socket, peer)) => {
                is_starved = false;
                // A socket for both families reports IPv4 addresses in the form of IPv6.
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                // Before the task starts, so that places are taken in the order of accepting.
                let place = acceptor.pending.enter();
                tokio::spawn(serve(socket, peer, place, Arc::clone(&acceptor), phase.clone()));
            }
            Err(error) if is_peer_error(&error) => {}
            Err(error) => {
                acceptor.meters.accept_failed();
                if !is_starved {
                    let remedy = "raise the limit on open files, or lower --max-connections";
                    warn!(%error, remedy, "accept_failed");
                }
                is_starved = true;
                // Unauthenticated connections must not block clients.
                let has_dropped = acceptor.pending.drop_oldest();
                sleep(if has_dropped { RETRY_DELAY_AFTER_DROP } else { RETRY_DELAY }).await;
            }
        }
    }
}

/// True if accepting failed because the peer has left.
fn is_peer_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Serves one accepted socket until it closes.
async fn serve<S: HttpService>(
    socket: TcpStream,
    mut peer: SocketAddr,
    place: Place,
    acceptor: Arc<Acceptor<S>>,
    mut phase: watch::Receiver<Phase>,
) {
    let has_sent = AtomicBool::new(false);
    let mark_sent = || {
        has_sent.store(true, Ordering::Relaxed);
        place.mark_begun();
    };
    let established = tokio::select! {
        established = establish(socket, &mut peer, &acceptor, mark_sent) => established,
        () = place.dropped() => Err(Reason::TooManyHandshakes.into()),
        () = drain_ends_handshake(&mut phase, &has_sent) => return,
    };
    drop(place);
    let (tls, handshake_duration) = match established {
        Ok(established) => established,
        Err(HandshakeError::Validation) => return debug!(%peer, "acme_validation"),
        Err(HandshakeError::LeftSilently) => return debug!(%peer, "left_without_a_word"),
        Err(HandshakeError::Rejected(rejection, socket)) => {
            acceptor.reject(peer, *rejection);
            if let Some(mut socket) = socket {
                shutdown_and_drain(&mut socket).await;
            }
            return;
        }
    };
    let (_, session) = tls.get_ref();
    let admitted = acceptor.admit(session.peer_certificates().unwrap_or_default());
    let is_trusted =
        !matches!(&admitted, Err(rejection) if rejection.reason != Reason::TooManyConnections);
    acceptor.meters.resumption(session.handshake_kind(), is_trusted);
    match admitted {
        Ok((admission, _permit)) => {
            acceptor.meters.accepted(handshake_duration);
            let meters = Arc::clone(&acceptor.meters);
            let state = ConnectionState::new(admission, peer, phase, meters, &acceptor.limits);
            let service = Arc::clone(&acceptor.service);
            let (limits, failures) = (&acceptor.limits, &acceptor.failures);
            Box::pin(connection::serve(tls, service, Arc::new(state), limits, failures)).await;
        }
        Err(rejection) => {
            acceptor.reject(peer, *rejection);
            Box::pin(tls_stream::close(tls, true)).await;
        }
    }
}

/// Waits until a drain ends this handshake. A client that connected before the drain has a moment
/// to send its first byte, and one that has sent it may finish.
async fn drain_ends_handshake(phase: &mut watch::Receiver<Phase>, has_sent: &AtomicBool) {
    let grace_end = Instant::now() + FIRST_REQUEST_GRACE;
    if phase.wait_for(|phase| *phase >= Phase::Draining).await.is_err() {
        return;
    }
    let aborting = phase.wait_for(|phase| *phase == Phase::Aborting);
    let is_aborted = timeout_at(grace_end, aborting).await.is_ok();
    if !is_aborted && has_sent.load(Ordering::Relaxed) {
        let _ = phase.wait_for(|phase| *phase == Phase::Aborting).await;
    }
}

/// From an accepted socket to a TLS connection and the duration of its handshake. A PROXY header
/// replaces the `peer`. Calls `has_begun` at the first byte of the handshake.
async fn establish<S>(
    mut socket: TcpStream,
    peer: &mut SocketAddr,
    acceptor: &Acceptor<S>,
    has_begun: impl FnOnce(),
) -> Result<(TlsStream, Duration), HandshakeError> {
    let deadline = Instant::now() + acceptor.limits.handshake_timeout;
    if let Some(from) = &acceptor.limits.proxy_protocol_from {
        *peer = proxy_header::read(&mut socket, *peer, from, deadline).await?;
    }
    let first = handshake::read_first_bytes(&mut socket, deadline).await?;
    has_begun();
    let Acceptor { current, challenges, limiter, .. } = acceptor;
    let challenges = challenges.as_deref();
    // Boxed, so that a connection that waits for its first byte takes little memory.
    Box::pin(handshake::perform(socket, first, current, challenges, limiter, deadline)).await
}
