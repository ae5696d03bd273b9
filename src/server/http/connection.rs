//! One connection that was let in, from its first request to its end.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, trace};

use crate::server::accept::handshake::{Tls, linger};
use crate::server::http::access_log::seconds;
use crate::server::http::gate::{Gate, Shared};
use crate::server::http::progress::ProgressIo;
use crate::server::{GRACE, Limits, Phase};

/// How long a client may take to receive that the connection ends.
const CLOSE: Duration = Duration::from_secs(2);

/// Within this time after the end of its certificate a connection is told of it.
const TOLD: Duration = Duration::from_secs(1);

/// When a connection has been idle for so long, it gives up its buffers.
const REST: Duration = Duration::from_millis(500);

/// How much of HTTP/1.1 is buffered in each direction, unless a head may be larger. hyper keeps
/// several pieces of this size in flight: more would cost megabytes a connection.
const BUFFER: usize = 64 << 10;

/// How many header lines hyper takes where it is not told.
const HEADERS: usize = 100;

/// Longer than any connection lives.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Why a connection ended, for the log and the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Ended {
    /// By the client, or by what it or the service did.
    Done,
    /// By what was wrong with what the client sent, or did not send.
    Failed,
    /// A request's head was larger than it may be.
    LargeHead,
    /// It took back, or broke, more requests than it may.
    Flooding,
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
    /// Nothing is in flight, and no octet has come or gone that is not done with. It goes on.
    AtRest,
}

impl Ended {
    /// All the names, the usual one first.
    pub(in crate::server) const NAMES: [&str; 11] = [
        "done",
        "failed",
        "large_head",
        "flooding",
        "certificate_removed",
        "certificate_expired",
        "idle",
        "slow_head",
        "slow_reader",
        "aged",
        "stopped",
    ];

    /// What an error says of why it ended.
    fn by(error: &hyper::Error) -> Self {
        let source = std::error::Error::source(error);
        let of_h2 = source.and_then(|source| source.downcast_ref::<h2::Error>());
        let is_our_word = of_h2.is_some_and(|error| {
            error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)
        });
        match error.is_parse_too_large() {
            true => Self::LargeHead,
            false if is_our_word => Self::Flooding,
            false => Self::Failed,
        }
    }

    /// Whether the client may still be sending what nobody will read.
    fn is_by_fault(self) -> bool {
        matches!(self, Self::Failed | Self::LargeHead | Self::Flooding)
    }

    /// Its stable name.
    fn as_str(self, shared: &Shared) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::LargeHead => "large_head",
            Self::Flooding => "flooding",
            Self::CertificateOut if shared.admission.time_left().is_none() => "certificate_expired",
            Self::CertificateOut => "certificate_removed",
            Self::Idle => "idle",
            Self::SlowHead => "slow_head",
            Self::SlowReader => "slow_reader",
            Self::Aged => "aged",
            Self::Stopped => "stopped",
            Self::AtRest => "at_rest",
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Serves HTTP on a connection, as ALPN says, until it ends.
pub(in crate::server) async fn serve<S, B>(
    tls: Tls,
    service: Arc<S>,
    shared: Arc<Shared>,
    limits: &Limits,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Future: Send + 'static> + Send + Sync,
    S::Error: Into<BoxError>,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let is_h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let mut io = TokioIo::new(ProgressIo::new(tls, Arc::clone(&shared), !is_h2));
    let mut phase = shared.phase.clone();
    // One that was let in while the drain had begun gets the one answer that it came for.
    phase.mark_unchanged();
    let ended = match is_h2 {
        true => {
            let gate = Gate::new(service, Arc::clone(&shared));
            let mut connection = Box::pin(h2(limits).serve_connection(&mut io, gate));
            drive(connection.as_mut(), &shared, &mut phase, limits, None).await
        }
        false => serve_h1(&mut io, service, &shared, &mut phase, limits).await,
    };
    let reason = ended.as_str(&shared);
    shared.meters.ended(reason);
    info!(
        peer = shared.peer_text(),
        certificate = shared.fingerprint(),
        reason,
        requests = shared.requests(),
        duration = seconds(shared.began().elapsed()),
        "connection_closed"
    );
    let io = io.into_inner();
    if !io.is_closed() && *shared.phase.borrow() != Phase::Aborting {
        Box::pin(close(io.into_inner(), ended.is_by_fault())).await;
    }
}

type Io = TokioIo<ProgressIo<Tls>>;

fn h2(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.max_head_size).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits.max_streams)
        .max_pending_accept_reset_streams(limits.max_resets)
        .max_local_error_reset_streams(limits.max_stream_errors);
    builder
}

/// What hyper keeps of a connection is several times what TLS does. One that is idle does without,
/// until something comes.
async fn serve_h1<S, B>(
    io: &mut Io,
    service: Arc<S>,
    shared: &Arc<Shared>,
    phase: &mut watch::Receiver<Phase>,
    limits: &Limits,
) -> Ended
where
    S: Service<Request<Incoming>, Response = Response<B>, Future: Send + 'static> + Send + Sync,
    S::Error: Into<BoxError>,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let mut builder = http1::Builder::new();
    // How long a head may take is decided here, for it counts from its first octet on.
    builder
        .header_read_timeout(None)
        .max_header_size(limits.max_head_size)
        .max_buf_size(BUFFER.max(limits.max_head_size));
    // Where it is told, it takes memory for them with each request.
    if limits.max_headers != HEADERS {
        builder.max_headers(limits.max_headers);
    }
    loop {
        let unread = {
            let gate = Gate::new(Arc::clone(&service), Arc::clone(shared));
            let mut connection = Box::new(builder.serve_connection(&mut *io, gate));
            let rests_after = Some(Instant::now());
            match drive(Pin::new(connection.as_mut()), shared, phase, limits, rests_after).await {
                Ended::AtRest => connection.into_parts().read_buf,
                ended => return ended,
            }
        };
        trace!(peer = %shared.peer, unread = unread.len(), "at_rest");
        if !unread.is_empty() {
            io.inner_mut().put_back(unread);
            continue;
        }
        // Empty as it is, it holds hyper's buffer.
        drop(unread);
        let mut resting =
            Resting { socket: io.inner().get_ref().get_ref().0.socket(), is_over: false };
        match drive(Pin::new(&mut resting), shared, phase, limits, None).await {
            Ended::Done => {}
            ended => return ended,
        }
    }
}

/// Tells the client that the connection ends, whether or not that has been said before. Where it
/// may still be sending, it is listened to for a while, or the last answer would be lost.
pub(in crate::server) async fn close(mut tls: Tls, may_be_sending: bool) {
    // A client that does not take it has had its time.
    let _ = timeout(CLOSE, tls.shutdown()).await;
    let (mut socket, _) = tls.into_inner();
    if may_be_sending || !matches!(socket.socket().try_read(&mut [0]), Ok(0) | Err(_)) {
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

/// A connection of which nothing is kept but TLS. It is ready when something comes.
struct Resting<'a> {
    socket: &'a TcpStream,
    is_over: bool,
}

impl Future for Resting<'_> {
    type Output = hyper::Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.is_over {
            true => Poll::Ready(Ok(())),
            // A socket that has failed says so to whoever reads it.
            false => self.socket.poll_read_ready(context).map(|_| Ok(())),
        }
    }
}

impl Drive for Resting<'_> {
    fn graceful_shutdown(mut self: Pin<&mut Self>) {
        self.is_over = true;
    }
}

/// Drives a connection to its end, or, where that is given, until it has been idle for [`REST`]
/// after `rests_after`, and ends it where its certificate goes, something takes too
/// long, or the server stops.
async fn drive<C: Drive>(
    mut connection: Pin<&mut C>,
    shared: &Shared,
    phase: &mut watch::Receiver<Phase>,
    limits: &Limits,
    rests_after: Option<Instant>,
) -> Ended {
    let (mut at, _) = next_alarm(shared, limits, rests_after);
    let mut alarm = pin!(sleep_until(at));
    // Why it has been told to end: from then on it may only finish what is in flight.
    let mut ending = None;
    loop {
        let knows_of_certificate = ending == Some(Ended::CertificateOut);
        let mut signal = pin!(next_signal(shared, phase, knows_of_certificate));
        let mut is_listening = false;
        let next = poll_fn(|context| {
            // Word that it must end comes before what is to be served. Once it is listened for, it
            // is looked for only where there is some.
            if !is_listening || !shared.has_no_pending_signal(knows_of_certificate) {
                is_listening = true;
                if let Poll::Ready(signal) = signal.as_mut().poll(context) {
                    return Poll::Ready(Next::Signal(signal));
                }
            }
            if alarm.as_mut().poll(context).is_ready() {
                return Poll::Ready(Next::Alarm);
            }
            if let Poll::Ready(result) = connection.as_mut().poll(context) {
                return Poll::Ready(Next::Over(result));
            }
            // It has come to rest: what it waits for now may be due before the alarm.
            match next_wait(shared, limits, rests_after) {
                Some((due, _)) if due < at && ending.is_none() => Poll::Ready(Next::DueAt(due)),
                _ => Poll::Pending,
            }
        })
        .await;
        let why = match next {
            Next::Signal(Signal::CertificateOut) => Ended::CertificateOut,
            Next::Signal(Signal::AnsweredLast) => Ended::Stopped,
            Next::Signal(Signal::Phase(Phase::Serving | Phase::LameDuck)) => continue,
            // It has come before the drain, and what it is about to ask is answered.
            Next::Signal(Signal::Phase(Phase::Draining)) if shared.is_unasked() => {
                at = next_alarm(shared, limits, rests_after).0;
                alarm.as_mut().reset(at);
                continue;
            }
            Next::Signal(Signal::Phase(Phase::Draining)) => Ended::Stopped,
            Next::Signal(Signal::Phase(Phase::Aborting)) => {
                shared.meters.cut();
                return Ended::Stopped;
            }
            Next::Signal(Signal::Gone) => return Ended::Stopped,
            Next::Alarm => {
                if let Some(ending) = ending {
                    if shared.is_busy() {
                        shared.meters.cut();
                    }
                    return ending;
                }
                let (next, why) = next_alarm(shared, limits, rests_after);
                if next > Instant::now() {
                    at = next;
                    alarm.as_mut().reset(at);
                    continue;
                }
                if matches!(why, Ended::SlowHead | Ended::SlowReader | Ended::AtRest) {
                    return why;
                }
                why
            }
            Next::DueAt(due) => {
                at = due;
                alarm.as_mut().reset(at);
                continue;
            }
            Next::Over(Ok(())) => return ending.unwrap_or(Ended::Done),
            Next::Over(Err(error)) => {
                debug!(peer = %shared.peer, %error, "connection_failed");
                return Ended::by(&error);
            }
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

/// What there is to do while a connection is driven.
enum Next {
    Signal(Signal),
    Alarm,
    /// It has come to rest, and what it waits for is due before the alarm.
    DueAt(Instant),
    Over(hyper::Result<()>),
}

/// What comes to a connection from elsewhere.
enum Signal {
    CertificateOut,
    Phase(Phase),
    /// The server is gone.
    Gone,
    AnsweredLast,
}

async fn next_signal(
    shared: &Shared,
    phase: &mut watch::Receiver<Phase>,
    knows_of_certificate: bool,
) -> Signal {
    tokio::select! {
        biased;
        () = shared.admission.removed(), if !knows_of_certificate => Signal::CertificateOut,
        changed = phase.changed() => match changed {
            Ok(()) => Signal::Phase(*phase.borrow_and_update()),
            Err(_) => Signal::Gone,
        },
        () = shared.answered_last.notified() => Signal::AnsweredLast,
    }
}

/// What ends the connection next if nothing moves, and when.
fn next_alarm(shared: &Shared, limits: &Limits, rests_after: Option<Instant>) -> (Instant, Ended) {
    let now = Instant::now();
    // Where a request is in flight, it is looked again when nothing can have been idle for longer.
    let is_over = *shared.phase.borrow() >= Phase::Draining;
    let idle_timeout = if is_over { GRACE } else { limits.idle_timeout };
    let idle = shared.idle_since().unwrap_or(now) + idle_timeout;
    // At the end of its certificate it is told; this is for a clock that has stepped.
    let left = shared.admission.time_left().map_or(Duration::ZERO, |left| left + TOLD);
    let certificate = now + left.min(NEVER);
    let age = shared.began() + limits.max_connection_age.unwrap_or(NEVER);
    let known = [(idle, Ended::Idle), (certificate, Ended::CertificateOut), (age, Ended::Aged)];
    let first =
        known.into_iter().chain(next_wait(shared, limits, rests_after)).min_by_key(|(at, _)| *at);
    first.unwrap_or((idle, Ended::Idle))
}

/// When it is to be looked whether a client lets its answers go on: in HTTP/2 these have tasks of
/// their own, and nothing tells the connection's that they have come to rest.
fn next_look(shared: &Shared, limits: &Limits) -> Option<(Instant, Ended)> {
    if !shared.is_busy() {
        return None;
    }
    let now = Instant::now();
    Some((shared.unread_since().unwrap_or(now) + limits.write_timeout, Ended::SlowReader))
}

/// What of what the connection waits for is due next, and when.
fn next_wait(
    shared: &Shared,
    limits: &Limits,
    rests_after: Option<Instant>,
) -> Option<(Instant, Ended)> {
    let head =
        shared.progress.head_since().map(|since| (since + limits.head_timeout, Ended::SlowHead));
    let write = shared.progress.write_since();
    let write = write.map(|since| (since + limits.write_timeout, Ended::SlowReader));
    if head.is_none() && write.is_none() && !shared.is_busy() {
        let since = rests_after.zip(shared.idle_since()).map(|(after, since)| after.max(since));
        return since.map(|since| (since + REST, Ended::AtRest));
    }
    let look = next_look(shared, limits);
    head.into_iter().chain(write).chain(look).min_by_key(|(at, _)| *at)
}
