//! Connections to the application: at most so many, the idle ones kept for a while.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::service::proxy::failure::ProxyError;
use crate::service::proxy::upload::Upload;
use crate::service::proxy::upstream::{Seen, Stream};

/// How much is buffered in each direction, and how large the head of an answer may be. hyper keeps
/// pieces of up to this size in flight, several at once: more would cost megabytes a connection.
const BUFFER: usize = 64 << 10;

/// A connection to the application, for one request at a time.
///
/// It has no task of its own: whoever waits for the answer drives it. A request costs no wake-up of
/// another task, and dropping this cancels it.
pub(super) struct UpstreamConnection {
    pub(super) sender: SendRequest<Upload>,
    connection: Option<Connection<TokioIo<Stream>, Upload>>,
    pub(super) seen: Arc<Seen>,
}

impl UpstreamConnection {
    pub(super) async fn new(stream: Stream) -> Result<Box<Self>, hyper::Error> {
        let seen = Arc::clone(&stream.seen);
        let mut builder = http1::Builder::new();
        builder.max_buf_size(BUFFER);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        Ok(Box::new(Self { sender, connection: Some(connection), seen }))
    }

    /// Goes on with what is to be sent and received.
    pub(super) fn drive(&mut self, context: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && Pin::new(connection).poll(context).is_ready()
        {
            // Whatever went wrong, whoever waits for the answer or its body has been told.
            self.connection = None;
        }
    }

    /// Whether it can take a request. `look` asks the system whether the other side has ended it,
    /// at the price of a system call, instead of relying on what has been heard.
    fn is_ready(&mut self, look: bool) -> bool {
        if look {
            self.seen.look();
        }
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.connection.is_some() && self.sender.is_ready()
    }
}

/// The connections to one application.
pub(super) struct Pool {
    idle: Mutex<Idle>,
    idle_timeout: Duration,
    /// As many permits as there may be connections. A connection is made only by the holder of a
    /// permit who finds none idle, so there are never more connections than permits.
    room: Arc<Semaphore>,
    waiting: AtomicUsize,
    most_waiting: usize,
}

#[derive(Default)]
struct Idle {
    /// In the order in which they became idle.
    links: Vec<(Instant, Box<UpstreamConnection>)>,
    is_swept: bool,
}

impl Pool {
    pub(super) fn new(most: usize, most_waiting: usize, idle_timeout: Duration) -> Self {
        Self {
            idle: Mutex::default(),
            idle_timeout,
            room: Arc::new(Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
            most_waiting,
        }
    }

    /// Waits for the right to use a connection.
    pub(super) async fn enter(self: &Arc<Self>, deadline: Instant) -> Result<Slot, ProxyError> {
        let permit = match Arc::clone(&self.room).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let _waiting = Waiting::new(self).ok_or(ProxyError::QueueFull)?;
                let room = Arc::clone(&self.room);
                match timeout_at(deadline, room.acquire_owned()).await {
                    Ok(Ok(permit)) => permit,
                    _ => return Err(ProxyError::QueueTimeout),
                }
            }
        };
        Ok(Slot { pool: Arc::clone(self), _permit: permit })
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out those that have been idle for too long; returns when the next one will have been.
    fn sweep(&self, now: Instant) -> Option<Instant> {
        let mut idle = self.lock();
        let live = idle.links.iter().position(|(since, _)| now - *since < self.idle_timeout);
        let count = live.unwrap_or(idle.links.len());
        let gone: Vec<_> = idle.links.drain(..count).collect();
        let next = idle.links.first().map(|(since, _)| *since + self.idle_timeout);
        idle.is_swept = next.is_some();
        drop(idle);
        // Closing sockets takes its time: nobody waits for it.
        drop(gone);
        next
    }
}

/// Somebody who waits for a connection.
struct Waiting<'a>(&'a Pool);

impl<'a> Waiting<'a> {
    fn new(pool: &'a Pool) -> Option<Self> {
        let waiting = Self(pool);
        let before = pool.waiting.fetch_add(1, Ordering::Relaxed);
        (before < pool.most_waiting).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The right to use a connection.
pub(super) struct Slot {
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl Slot {
    /// An idle connection, the one that was used last.
    pub(super) fn idle(&self, look: bool) -> Option<Box<UpstreamConnection>> {
        let oldest = Instant::now() - self.pool.idle_timeout;
        loop {
            let (since, mut link) = self.pool.lock().links.pop()?;
            if since > oldest && link.is_ready(look) {
                return Some(link);
            }
        }
    }

    /// Keeps a connection for the next request, if it is good for one, and gives up the right to it.
    pub(super) fn give_back(self, mut link: Box<UpstreamConnection>) {
        if self.pool.idle_timeout.is_zero() || !link.is_ready(false) {
            return;
        }
        let now = Instant::now();
        let mut idle = self.pool.lock();
        idle.links.push((now, link));
        if !idle.is_swept {
            idle.is_swept = true;
            tokio::spawn(sweep(Arc::downgrade(&self.pool), now + self.pool.idle_timeout));
        }
    }
}

/// Closes connections that are idle for too long, as long as there are idle ones.
async fn sweep(pool: Weak<Pool>, mut next: Instant) {
    loop {
        sleep_until(next).await;
        let Some(pool) = pool.upgrade() else { return };
        match pool.sweep(Instant::now()) {
            Some(later) => next = later,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn a_connection_that_has_just_ended_is_seen_by_who_looks() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut link = UpstreamConnection::new(Stream::of(ours)).await.unwrap();
        assert!(link.is_ready(true));
        drop(theirs);
        // The runtime has not heard of it: it has had no turn since.
        assert!(link.is_ready(false));
        assert!(!link.is_ready(true));
    }
}
