//! One connection that was let in, from its first request to its end.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::server::TlsStream;
use tracing::debug;

use crate::server::gate::{Gate, Shared};
use crate::server::{Limits, Phase};

/// How long a client may take to receive that the connection ends.
const CLOSE: Duration = Duration::from_secs(2);

/// How much is buffered in each direction, and how large the head of a request may be. hyper keeps
/// pieces of up to this size in flight, several at once: more would cost megabytes a connection.
const BUFFER: usize = 64 << 10;

/// Why a connection ended, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// By the client, or by what it or the service did.
    Done,
    /// Its certificate was taken away or has expired.
    CertificateOut,
    /// Nothing was asked for too long.
    Idle,
    /// The server stops.
    Stopped,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Serves HTTP on a connection, as ALPN says, until it ends.
pub(super) async fn serve<S, B>(
    tls: TlsStream<TcpStream>,
    service: Arc<S>,
    shared: Arc<Shared>,
    limits: &Limits,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Future: Send + 'static> + Send + Sync,
    S::Error: Into<BoxError>,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let is_h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let gate = Gate::new(service, Arc::clone(&shared));
    let mut io = TokioIo::new(tls);
    let ended = if is_h2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new());
        // On the heap: it is large, and most connections are HTTP/1.1.
        let connection = Box::pin(builder.serve_connection(&mut io, gate));
        drive(connection, &shared, limits).await
    } else {
        // How long a connection may be idle is decided here, for both protocols alike.
        let mut builder = http1::Builder::new();
        builder.header_read_timeout(None).max_buf_size(BUFFER);
        let connection = builder.serve_connection(&mut io, gate);
        drive(Box::pin(connection), &shared, limits).await
    };
    debug!(
        peer = %shared.peer,
        fingerprint = %shared.admission.identity().fingerprint(),
        reason = ?ended,
        "connection_ended"
    );
    close(io.inner_mut()).await;
}

/// Tells the client that the connection ends, whether or not that has been said before.
pub(super) async fn close(tls: &mut TlsStream<TcpStream>) {
    // A client that does not take it has had its time.
    let _ = timeout(CLOSE, tls.shutdown()).await;
}

/// What both kinds of connections can do.
trait Drive: Future<Output = hyper::Result<()>> {
    fn graceful_shutdown(self: Pin<&mut Self>);
}

impl<I, S, B> Drive for http1::Connection<I, S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    B: Body<Error: Into<BoxError>> + 'static,
{
    fn graceful_shutdown(self: Pin<&mut Self>) {
        http1::Connection::graceful_shutdown(self);
    }
}

impl<I, S, B> Drive for http2::Connection<I, S, TokioExecutor>
where
    S: Service<Request<Incoming>, Response = Response<B>, Future: Send + 'static>,
    S::Error: Into<BoxError>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    fn graceful_shutdown(self: Pin<&mut Self>) {
        http2::Connection::graceful_shutdown(self);
    }
}

/// Drives a connection to its end, and ends it where its certificate goes, nothing is asked, or
/// the server stops.
async fn drive<C: Drive>(mut connection: Pin<Box<C>>, shared: &Shared, limits: &Limits) -> Ended {
    let mut phase = shared.phase.clone();
    let mut taken_away = pin!(shared.admission.taken_away());
    let mut alarm = pin!(sleep_until(Instant::now() + limits.idle_timeout));
    // Why it has been told to end: from then on it may only finish what is in flight.
    let mut ending = None;
    alarm.as_mut().reset(next_alarm(shared, limits));
    loop {
        let why = tokio::select! {
            biased;
            result = connection.as_mut() => {
                if let Err(error) = result {
                    debug!(peer = %shared.peer, %error, "connection_failed");
                }
                return ending.unwrap_or(Ended::Done);
            }
            () = &mut taken_away, if ending != Some(Ended::CertificateOut) => {
                Ended::CertificateOut
            }
            changed = phase.changed() => match *phase.borrow_and_update() {
                _ if changed.is_err() => return Ended::Stopped,
                Phase::Serving | Phase::LameDuck => continue,
                Phase::Draining => Ended::Stopped,
                Phase::Cut => return Ended::Stopped,
            },
            () = shared.answered_last.notified() => Ended::Stopped,
            () = &mut alarm => {
                if let Some(ending) = ending {
                    return ending;
                }
                if shared.admission.time_left().is_none() {
                    Ended::CertificateOut
                } else if shared.idle_for().is_some_and(|idle| idle >= limits.idle_timeout) {
                    Ended::Idle
                } else {
                    alarm.as_mut().reset(next_alarm(shared, limits));
                    continue;
                }
            }
        };
        if ending.is_none() || why == Ended::CertificateOut {
            connection.as_mut().graceful_shutdown();
            ending = Some(why);
            // An idle one has nothing to finish: a head that never comes does not hold it open.
            let grace = if why == Ended::Idle { CLOSE } else { limits.drain_timeout };
            alarm.as_mut().reset(Instant::now() + grace);
        }
    }
}

/// When to look next whether a connection has been idle for too long or its certificate has
/// expired.
fn next_alarm(shared: &Shared, limits: &Limits) -> Instant {
    let idle = limits.idle_timeout.saturating_sub(shared.idle_for().unwrap_or_default());
    let left = shared.admission.time_left().unwrap_or_default();
    // Never at once: a clock that stands still must not make a busy loop.
    Instant::now() + idle.min(left).max(Duration::from_millis(1))
}
