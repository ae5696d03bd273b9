//! Accepting connections, and what becomes of each.

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
use crate::server::connection;
use crate::server::gate::Shared;
use crate::server::handshake::{self, Failure, Refused, Tls};
use crate::server::meters::Meters;
use crate::server::pending::{Pending, Place};
use crate::server::refusals::Refusals;
use crate::server::turns::Turns;
use crate::server::{GRACE, Limits, Phase, proxy_header};
use crate::trust::{Presented, Reason};

/// Between two attempts where the machine has no more descriptors or memory.
const STARVED: Duration = Duration::from_millis(20);

/// The same, where some who have not proved who they are have been put out for the next.
const ROOM_MADE: Duration = Duration::from_millis(5);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What every connection needs.
pub(super) struct Door<S> {
    pub(super) service: Arc<S>,
    pub(super) current: Arc<Current>,
    pub(super) limits: Limits,
    pub(super) pending: Arc<Pending>,
    pub(super) turns: Turns,
    /// One permit a connection that is let in.
    pub(super) room: Arc<Semaphore>,
    pub(super) meters: Arc<Meters>,
    pub(super) refusals: Arc<Refusals>,
}

impl<S> Door<S> {
    /// Takes down that a client was refused.
    fn refuse(&self, peer: SocketAddr, refused: Refused) {
        self.meters.refused(refused.reason);
        self.refusals.take(peer, refused, &self.current);
    }
}

/// Accepts until the drain begins.
pub(super) async fn accept<S, B>(
    listener: TcpListener,
    door: Arc<Door<S>>,
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
                door.meters.open(Arc::strong_count(&door));
                // Here, so that the places are taken in the order of accepting.
                let place = door.pending.enter();
                tokio::spawn(admit(socket, peer, place, Arc::clone(&door), phase.clone()));
            }
            Err(error) if is_about_the_peer(&error) => {}
            Err(error) => {
                door.meters.accept_failed();
                if !is_starved {
                    let remedy = "raise the limit on open files, or lower --max-connections";
                    warn!(%error, remedy, "accept_failed");
                }
                is_starved = true;
                // Those who have not proved who they are keep nobody out.
                let is_room_made = door.pending.put_out_oldest();
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
    door: Arc<Door<S>>,
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
        shaken = greet(socket, &mut peer, &door, || has_spoken.store(true, Ordering::Relaxed)) => {
            shaken
        }
        () = place.put_out() => Err(Refused::because(Reason::TooManyHandshakes)),
        () = too_late(&mut phase, &has_spoken) => return,
    };
    drop(place);
    let (tls, took) = match shaken {
        Ok(shaken) => shaken,
        Err(Failure::Left) => return debug!(%peer, "left_without_a_word"),
        Err(Failure::Refused(refused, socket)) => {
            door.refuse(peer, *refused);
            if let Some(mut socket) = socket {
                handshake::linger(&mut socket).await;
            }
            return;
        }
    };
    let (_, session) = tls.get_ref();
    let presented = session.peer_certificates().unwrap_or_default();
    let admitted = door.current.admit(presented);
    door.meters.resumption(session.handshake_kind(), admitted.is_ok());
    let refused = match admitted {
        Ok(admission) => match Arc::clone(&door.room).try_acquire_owned() {
            Ok(_permit) => {
                door.meters.accepted(took);
                let meters = Arc::clone(&door.meters);
                let shared = Arc::new(Shared::new(admission, peer, phase, meters, &door.limits));
                let service = Arc::clone(&door.service);
                return Box::pin(connection::serve(tls, service, shared, &door.limits)).await;
            }
            Err(_) => Refused { reason: Reason::TooManyConnections, presented: None, detail: None },
        },
        Err(refusal) => Refused {
            reason: refusal.reason,
            presented: presented.first().map(Presented::new),
            detail: None,
        },
    };
    door.refuse(peer, refused);
    Box::pin(connection::close(tls, true)).await;
}

/// Waits until a drain has begun and nothing more is to come of this handshake: who came before it
/// began has a moment to speak, and who has spoken is let finish.
async fn too_late(phase: &mut watch::Receiver<Phase>, has_spoken: &AtomicBool) {
    let by = Instant::now() + GRACE;
    if phase.wait_for(|phase| *phase >= Phase::Draining).await.is_err() {
        return;
    }
    let is_cut = timeout_at(by, phase.wait_for(|phase| *phase == Phase::Cut)).await.is_ok();
    if !is_cut && has_spoken.load(Ordering::Relaxed) {
        let _ = phase.wait_for(|phase| *phase == Phase::Cut).await;
    }
}

/// From an accepted socket to a TLS connection, and how long its handshake took. Where a load
/// balancer says whose it is, that client is the `peer` from there on.
async fn greet<S>(
    mut socket: TcpStream,
    peer: &mut SocketAddr,
    door: &Door<S>,
    has_begun: impl FnOnce(),
) -> Result<(Tls, Duration), Failure> {
    let deadline = Instant::now() + door.limits.handshake_timeout;
    if let Some(from) = &door.limits.proxy_protocol_from {
        *peer = proxy_header::read(&mut socket, *peer, from, deadline).await?;
    }
    let mut first = [0; 8];
    let first = handshake::first_octets(&socket, &mut first, deadline).await?;
    has_begun();
    // Of its own, so that one that waits takes little memory.
    Box::pin(handshake::shake(socket, first, &door.current, &door.turns, deadline)).await
}
