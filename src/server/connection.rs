//! One connection that was let in, from its first request to its end.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
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
use crate::server::handshake::linger;
use crate::server::progress::Noted;
use crate::server::{GRACE, Limits, Phase};

/// How long a client may take to receive that the connection ends.
const CLOSE: Duration = Duration::from_secs(2);

/// Longer than any connection lives.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Why a connection ended, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// By the client, or by what it or the service did.
    Done,
    /// Its certificate was taken away or has expired.
    CertificateOut,
    /// Nothing was asked for too long.
    Idle,
    /// The head of a request did not come to its end in time.
    SlowHead,
    /// The client did not take what was there for it in time.
    SlowReader,
    /// It had lived for as long as it may.
    Aged,
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
    let mut io = TokioIo::new(Noted::new(tls, Arc::clone(&shared), !is_h2));
    let ended = if is_h2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(limits.max_head_size).unwrap_or(u32::MAX))
            .max_concurrent_streams(limits.max_streams);
        let connection = Box::pin(builder.serve_connection(&mut io, gate));
        drive(connection, &shared, limits).await
    } else {
        let mut builder = http1::Builder::new();
        // How long a head may take is decided here, for it counts from its first octet on.
        builder.header_read_timeout(None).max_header_size(limits.max_head_size);
        let connection = Box::pin(builder.serve_connection(&mut io, gate));
        drive(connection, &shared, limits).await
    };
    debug!(
        peer = %shared.peer,
        fingerprint = %shared.admission.identity().fingerprint(),
        reason = ?ended,
        "connection_ended"
    );
    if *shared.phase.borrow() != Phase::Cut {
        close(io.into_inner().into_inner()).await;
    }
}

/// Tells the client that the connection ends, whether or not that has been said before. Where it
/// is still sending, it is listened to for a while, or the last answer would be lost.
pub(super) async fn close(mut tls: TlsStream<TcpStream>) {
    // A client that does not take it has had its time.
    let _ = timeout(CLOSE, tls.shutdown()).await;
    let (mut socket, _) = tls.into_inner();
    if !matches!(socket.try_read(&mut [0]), Ok(0) | Err(_)) {
        linger(&mut socket).await;
    }
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

/// Drives a connection to its end, and ends it where its certificate goes, something takes too
/// long, or the server stops.
async fn drive<C: Drive>(mut connection: Pin<Box<C>>, shared: &Shared, limits: &Limits) -> Ended {
    let mut phase = shared.phase.clone();
    let mut taken_away = pin!(shared.admission.taken_away());
    let (mut at, _) = next_alarm(shared, limits);
    let mut alarm = pin!(sleep_until(at));
    // Why it has been told to end: from then on it may only finish what is in flight.
    let mut ending = None;
    loop {
        let why = tokio::select! {
            // Word that it must end comes before what is to be served.
            biased;
            () = &mut taken_away, if ending != Some(Ended::CertificateOut) => {
                Ended::CertificateOut
            }
            changed = phase.changed() => match *phase.borrow_and_update() {
                _ if changed.is_err() => return Ended::Stopped,
                Phase::Serving | Phase::LameDuck => continue,
                // It has come before the drain, and what it is about to ask is answered.
                Phase::Draining if shared.is_unasked() => {
                    at = next_alarm(shared, limits).0;
                    alarm.as_mut().reset(at);
                    continue;
                }
                Phase::Draining => Ended::Stopped,
                Phase::Cut => return Ended::Stopped,
            },
            () = shared.answered_last.notified() => Ended::Stopped,
            () = &mut alarm => {
                if let Some(ending) = ending {
                    return ending;
                }
                let (next, why) = next_alarm(shared, limits);
                if next > Instant::now() {
                    at = next;
                    alarm.as_mut().reset(at);
                    continue;
                }
                if matches!(why, Ended::SlowHead | Ended::SlowReader) {
                    return why;
                }
                why
            }
            rest = poll_fn(|context| match connection.as_mut().poll(context) {
                Poll::Ready(result) => Poll::Ready(Rest::Ended(result)),
                // It has come to rest: what it waits for now may be due before the alarm.
                Poll::Pending => match next_wait(shared, limits) {
                    Some((due, _)) if due < at && ending.is_none() => {
                        Poll::Ready(Rest::DueAt(due))
                    }
                    _ => Poll::Pending,
                },
            }) => match rest {
                Rest::Ended(result) => {
                    if let Err(error) = result {
                        debug!(peer = %shared.peer, %error, "connection_failed");
                    }
                    return ending.unwrap_or(Ended::Done);
                }
                Rest::DueAt(due) => {
                    at = due;
                    alarm.as_mut().reset(at);
                    continue;
                }
            },
        };
        if ending.is_none() || why == Ended::CertificateOut {
            connection.as_mut().graceful_shutdown();
            ending = Some(why);
            let grace = match why {
                // It has nothing to finish: a head that never comes does not hold it open.
                Ended::Idle => CLOSE,
                // It is cut with all others.
                Ended::Stopped => NEVER,
                _ => limits.drain_timeout,
            };
            alarm.as_mut().reset(Instant::now() + grace);
        }
    }
}

/// How a connection came to rest.
enum Rest {
    Ended(hyper::Result<()>),
    DueAt(Instant),
}

/// What ends the connection next if nothing moves, and when.
fn next_alarm(shared: &Shared, limits: &Limits) -> (Instant, Ended) {
    let now = Instant::now();
    // Where a request is in flight, it is looked again when nothing can have been idle for longer.
    let is_over = *shared.phase.borrow() >= Phase::Draining;
    let idle_timeout = if is_over { GRACE } else { limits.idle_timeout };
    let idle = shared.idle_since().unwrap_or(now) + idle_timeout;
    let certificate = now + shared.admission.time_left().unwrap_or_default().min(NEVER);
    let age = shared.began() + limits.max_connection_age.unwrap_or(NEVER);
    let known = [(idle, Ended::Idle), (certificate, Ended::CertificateOut), (age, Ended::Aged)];
    let first = known.into_iter().chain(next_wait(shared, limits)).min_by_key(|(at, _)| *at);
    first.unwrap_or((idle, Ended::Idle))
}

/// What of what the connection waits for is due next, and when.
fn next_wait(shared: &Shared, limits: &Limits) -> Option<(Instant, Ended)> {
    let head =
        shared.progress.head_since().map(|since| (since + limits.head_timeout, Ended::SlowHead));
    let write = shared.progress.write_since();
    let write = write.map(|since| (since + limits.write_timeout, Ended::SlowReader));
    head.into_iter().chain(write).min_by_key(|(at, _)| *at)
}
