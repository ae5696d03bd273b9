//! Accepting connections, and what becomes of each.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use crate::reload::Current;
use crate::server::connection;
use crate::server::gate::Shared;
use crate::server::handshake::{self, Failure, Refused};
use crate::server::pending::{Pending, Place};
use crate::server::{GRACE, Limits, Phase, proxy_header};
use crate::trust::{Presented, Reason, Summary, rfc3339};

/// Between two attempts where the machine has no more descriptors or memory.
const STARVED: Duration = Duration::from_millis(100);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What every connection needs.
pub(super) struct Door<S> {
    pub(super) service: Arc<S>,
    pub(super) current: Arc<Current>,
    pub(super) limits: Limits,
    pub(super) pending: Arc<Pending>,
    /// One permit a handshake that computes just now, as many as there are cores: those who have
    /// been let in keep their share of them.
    pub(super) cores: Semaphore,
    /// One permit a connection that is let in.
    pub(super) room: Arc<Semaphore>,
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
                // Here, so that the places are taken in the order of accepting.
                let place = door.pending.enter();
                tokio::spawn(admit(socket, peer, place, Arc::clone(&door), phase.clone()));
            }
            Err(error) if is_about_the_peer(&error) => {}
            Err(error) => {
                if !is_starved {
                    let remedy = "raise the limit on open files, or lower --max-connections";
                    warn!(%error, remedy, "accept_failed");
                }
                is_starved = true;
                sleep(STARVED).await;
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
    // A small answer must not wait for the acknowledgement of the one before.
    let _ = socket.set_nodelay(true);
    let shaken = tokio::select! {
        shaken = greet(socket, &mut peer, &door) => shaken,
        () = place.put_out() => Err(Refused::because(Reason::TooManyConnections)),
        () = too_late(&mut phase) => return,
    };
    drop(place);
    let tls = match shaken {
        Ok(tls) => tls,
        Err(Failure::Left) => return debug!(%peer, "left_without_a_word"),
        Err(Failure::Refused(refused)) => return say_refused(peer, &refused),
    };
    let (_, session) = tls.get_ref();
    let presented = session.peer_certificates().unwrap_or_default();
    let refused = match door.current.admit(presented) {
        Ok(admission) => match Arc::clone(&door.room).try_acquire_owned() {
            Ok(_permit) => {
                let shared = Arc::new(Shared::new(admission, peer, phase));
                let service = Arc::clone(&door.service);
                return connection::serve(tls, service, shared, &door.limits).await;
            }
            Err(_) => Refused { reason: Reason::TooManyConnections, presented: None, detail: None },
        },
        Err(refusal) => Refused {
            reason: refusal.reason,
            presented: presented.first().map(Presented::new),
            detail: None,
        },
    };
    say_refused(peer, &refused);
    connection::close(tls).await;
}

/// Waits until the drain has gone on for so long that who is still in the handshake gets no answer:
/// whoever has come before it began is served.
async fn too_late(phase: &mut watch::Receiver<Phase>) {
    if phase.wait_for(|phase| *phase >= Phase::Draining).await.is_ok() {
        let _ = timeout(GRACE, phase.wait_for(|phase| *phase == Phase::Cut)).await;
    }
}

/// From an accepted socket to a TLS connection. Where a load balancer says whose it is, that client
/// is the `peer` from there on.
async fn greet<S>(
    mut socket: TcpStream,
    peer: &mut SocketAddr,
    door: &Door<S>,
) -> Result<TlsStream<TcpStream>, Failure> {
    let deadline = Instant::now() + door.limits.handshake_timeout;
    if let Some(from) = &door.limits.proxy_protocol_from {
        *peer = proxy_header::read(&mut socket, *peer, from, deadline).await?;
    }
    handshake::shake(socket, &door.current, &door.cores, deadline).await
}

fn say_refused(peer: SocketAddr, refused: &Refused) {
    let Refused { reason, presented, detail } = refused;
    let summary = presented.as_ref().and_then(|presented| presented.summary.as_ref());
    let date = |of: fn(&Summary) -> String| summary.map(of);
    let not_before = date(|summary| rfc3339(summary.validity.not_before));
    let not_after = date(|summary| rfc3339(summary.validity.not_after));
    let fingerprint = presented.as_ref().map(|presented| presented.fingerprint.to_string());
    let subject = summary.map(|summary| summary.subject.as_str());
    let serial = summary.map(|summary| summary.serial.as_str());
    let remedy = reason.remedy();
    warn!(
        reason = reason.as_str(),
        %peer,
        fingerprint,
        subject,
        serial,
        not_before,
        not_after,
        detail,
        remedy,
        "refused"
    );
}
