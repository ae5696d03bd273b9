//! Accepting connections, and what becomes of each.

pub(super) mod buffered;
pub(super) mod cidr;
pub(super) mod handshake;
pub(super) mod limiter;
pub(super) mod listen;
pub(super) mod pending;
pub(crate) mod proxy_header;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, warn};

use crate::reload::Current;
use crate::server::accept::handshake::{HandshakeError, Rejection, Tls};
use crate::server::accept::limiter::HandshakeLimiter;
use crate::server::accept::pending::{Pending, Place};
use crate::server::http::connection;
use crate::server::http::gate::Shared;
use crate::server::meters::Meters;
use crate::server::rejections::RejectionLog;
use crate::server::{GRACE, Limits, Phase};
use crate::trust::{Presented, Reason};

/// Between two attempts where the machine has no more descriptors or memory.
const STARVED: Duration = Duration::from_millis(20);

/// The same, where some who have not proved who they are have been put out for the next.
const ROOM_MADE: Duration = Duration::from_millis(5);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What every connection needs.
pub(in crate::server) struct Acceptor<S> {
    pub(in crate::server) service: Arc<S>,
    pub(in crate::server) current: Arc<Current>,
    pub(in crate::server) limits: Limits,
    pub(in crate::server) pending: Arc<Pending>,
    pub(in crate::server) limiter: HandshakeLimiter,
    /// One permit a connection that is let in.
    pub(in crate::server) room: Arc<Semaphore>,
    pub(in crate::server) meters: Arc<Meters>,
    pub(in crate::server) refusals: Arc<RejectionLog>,
}

impl<S> Acceptor<S> {
    /// Takes down that a client was refused.
    fn refuse(&self, peer: SocketAddr, refused: Rejection) {
        self.meters.refused(refused.reason);
        self.refusals.take(peer, refused, &self.current);
    }
}

/// Accepts until the drain begins.
pub(in crate::server) async fn accept<S, B>(
    listener: TcpListener,
    acceptor: Arc<Acceptor<S>>,
    mut phase: watch::Receiver<Phase>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Future: Send + 'static>
        + Send
        + Sync
        + 'static,
    S::Error: Into<BoxError>,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let mut is_starved = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = phase.wait_for(|phase| *phase >= Phase::Draining) => return,
        };
        match accepted {
            Ok((socket, peer)) => {
                is_starved = false;
                acceptor.meters.open(Arc::strong_count(&acceptor));
                // Here, so that the places are taken in the order of accepting.
                let place = acceptor.pending.enter();
                tokio::spawn(admit(socket, peer, place, Arc::clone(&acceptor), phase.clone()));
            }
            Err(error) if is_about_the_peer(&error) => {}
            Err(error) => {
                acceptor.meters.accept_failed();
                if !is_starved {
                    let remedy = "raise the limit on open files, or lower --max-connections";
                    warn!(%error, remedy, "accept_failed");
                }
                is_starved = true;
                // Those who have not proved who they are keep nobody out.
                let is_room_made = acceptor.pending.drop_oldest();
                sleep(if is_room_made { ROOM_MADE } else { STARVED }).await;
            }
        }
    }
}

/// Whether accepting failed because the one that was to be accepted has left.
fn is_about_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

async fn admit<S, B>(
    socket: TcpStream,
    mut peer: SocketAddr,
    place: Place,
    acceptor: Arc<Acceptor<S>>,
    mut phase: watch::Receiver<Phase>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Future: Send + 'static>
        + Send
        + Sync
        + 'static,
    S::Error: Into<BoxError>,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let has_spoken = AtomicBool::new(false);
    let shaken = tokio::select! {
        shaken = greet(socket, &mut peer, &acceptor, || has_spoken.store(true, Ordering::Relaxed)) => {
            shaken
        }
        () = place.dropped() => Err(Rejection::because(Reason::TooManyHandshakes)),
        () = too_late(&mut phase, &has_spoken) => return,
    };
    drop(place);
    let (tls, took) = match shaken {
        Ok(shaken) => shaken,
        Err(HandshakeError::Left) => return debug!(%peer, "left_without_a_word"),
        Err(HandshakeError::Rejection(refused, socket)) => {
            acceptor.refuse(peer, *refused);
            if let Some(mut socket) = socket {
                handshake::linger(&mut socket).await;
            }
            return;
        }
    };
    let (_, session) = tls.get_ref();
    let presented = session.peer_certificates().unwrap_or_default();
    let admitted = acceptor.current.admit(presented);
    acceptor.meters.resumption(session.handshake_kind(), admitted.is_ok());
    let refused = match admitted {
        Ok(admission) => match Arc::clone(&acceptor.room).try_acquire_owned() {
            Ok(_permit) => {
                acceptor.meters.accepted(took);
                let meters = Arc::clone(&acceptor.meters);
                let shared =
                    Arc::new(Shared::new(admission, peer, phase, meters, &acceptor.limits));
                let service = Arc::clone(&acceptor.service);
                return Box::pin(connection::serve(tls, service, shared, &acceptor.limits)).await;
            }
            Err(_) => {
                Rejection { reason: Reason::TooManyConnections, presented: None, detail: None }
            }
        },
        Err(refusal) => Rejection {
            reason: refusal.reason,
            presented: presented.first().map(Presented::new),
            detail: None,
        },
    };
    acceptor.refuse(peer, refused);
    Box::pin(connection::close(tls, true)).await;
}

/// Waits until a drain has begun and nothing more is to come of this handshake: who came before it
/// began has a moment to speak, and who has spoken is let finish.
async fn too_late(phase: &mut watch::Receiver<Phase>, has_spoken: &AtomicBool) {
    let by = Instant::now() + GRACE;
    if phase.wait_for(|phase| *phase >= Phase::Draining).await.is_err() {
        return;
    }
    let is_cut = timeout_at(by, phase.wait_for(|phase| *phase == Phase::Aborting)).await.is_ok();
    if !is_cut && has_spoken.load(Ordering::Relaxed) {
        let _ = phase.wait_for(|phase| *phase == Phase::Aborting).await;
    }
}

/// From an accepted socket to a TLS connection, and how long its handshake took. Where a load
/// balancer says whose it is, that client is the `peer` from there on.
async fn greet<S>(
    mut socket: TcpStream,
    peer: &mut SocketAddr,
    acceptor: &Acceptor<S>,
    has_begun: impl FnOnce(),
) -> Result<(Tls, Duration), HandshakeError> {
    let deadline = Instant::now() + acceptor.limits.handshake_timeout;
    if let Some(from) = &acceptor.limits.proxy_protocol_from {
        *peer = proxy_header::read(&mut socket, *peer, from, deadline).await?;
    }
    let mut first = [0; 8];
    let first = handshake::first_bytes(&socket, &mut first, deadline).await?;
    has_begun();
    // Of its own, so that one that waits takes little memory.
    Box::pin(handshake::shake(socket, first, &acceptor.current, &acceptor.limiter, deadline)).await
}
