//! The pool of connections to the application: bounded, and idle ones are kept for a while.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::service::proxy::failure::{BUFFER_SIZE, MAX_HEADERS, ProxyError};
use crate::service::proxy::upload::Upload;
use crate::service::proxy::upstream::{Stream, Traffic};

/// Room for a request's head beside a full buffer of its body, so that another buffer is taken.
const HEAD_ROOM: usize = 4 << 10;

/// A connection to the application, for one request at a time.
///
/// It has no task of its own: the task that waits for the response drives it. A request costs no
/// wake-up of another task, and dropping this cancels it.
pub(super) struct UpstreamConnection {
    pub(super) sender: SendRequest<Upload>,
    connection: Option<Connection<TokioIo<Stream>, Upload>>,
    pub(super) traffic: Arc<Traffic>,
}

impl UpstreamConnection {
    pub(super) async fn new(stream: Stream) -> Result<Box<Self>, hyper::Error> {
        let traffic = Arc::clone(&stream.traffic);
        let mut builder = http1::Builder::new();
        builder.max_buf_size(BUFFER_SIZE + HEAD_ROOM).max_headers(MAX_HEADERS);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        Ok(Box::new(Self { sender, connection: Some(connection), traffic }))
    }

    /// Makes progress with sending and receiving.
    pub(super) fn drive(&mut self, context: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && Pin::new(connection).poll(context).is_ready()
        {
            // hyper has passed the error to the response or its body.
            self.connection = None;
        }
    }

    /// True if it can take a request, as far as the last [`drive`](Self::drive) has seen.
    fn is_ready(&self) -> bool {
        self.connection.is_some() && self.sender.is_ready()
    }

    /// True if the peer has not closed it, which costs a system call.
    fn is_open(&mut self) -> bool {
        self.traffic.probe();
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.is_ready()
    }
}

/// The connections to one application.
pub(super) struct Pool {
    idle: Mutex<Idle>,
    idle_timeout: Duration,
    /// One permit a connection. Only the holder of a permit connects, and only if no connection is
    /// idle, so there are never more connections than permits.
    room: Arc<Semaphore>,
    waiting: AtomicUsize,
    most_waiting: usize,
}

#[derive(Default)]
struct Idle {
    /// In the order in which they became idle.
    connections: Vec<(Instant, Box<UpstreamConnection>)>,
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

    /// Closes connections that have been idle for too long; returns when the next one will be.
    fn sweep(&self, now: Instant) -> Option<Instant> {
        let mut idle = self.lock();
        let live = idle.connections.iter().position(|(since, _)| now - *since < self.idle_timeout);
        let count = live.unwrap_or(idle.connections.len());
        let gone: Vec<_> = idle.connections.drain(..count).collect();
        let next = idle.connections.first().map(|(since, _)| *since + self.idle_timeout);
        idle.is_swept = next.is_some();
        drop(idle);
        // Sockets are closed outside the lock.
        drop(gone);
        next
    }
}

/// A place in the queue for a connection.
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
    /// The idle connection that was used last. It may be closed, unless it `must_be_open`.
    pub(super) fn idle(&self, must_be_open: bool) -> Option<Box<UpstreamConnection>> {
        let oldest = Instant::now() - self.pool.idle_timeout;
        loop {
            let (since, mut connection) = self.pool.lock().connections.pop()?;
            if since > oldest && (!must_be_open || connection.is_open()) {
                return Some(connection);
            }
        }
    }

    /// Returns a connection to the pool, if it can take another request.
    pub(super) fn give_back(self, mut connection: Box<UpstreamConnection>) {
        // It also takes the waker of this task out of the connection, which would wake it for nothing.
        connection.drive(&mut Context::from_waker(Waker::noop()));
        if self.pool.idle_timeout.is_zero() || !connection.is_ready() {
            return;
        }
        let now = Instant::now();
        let mut idle = self.pool.lock();
        idle.connections.push((now, connection));
        if !idle.is_swept {
            idle.is_swept = true;
            tokio::spawn(sweep(Arc::downgrade(&self.pool), now + self.pool.idle_timeout));
        }
    }
}

/// Closes connections that are idle for too long, until none is idle.
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
    async fn probe_sees_a_connection_that_has_just_closed() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut connection = UpstreamConnection::new(Stream::of(ours)).await.unwrap();
        assert!(connection.is_open());
        drop(theirs);
        // The runtime has not polled the socket since.
        connection.drive(&mut Context::from_waker(Waker::noop()));
        assert!(connection.is_ready());
        assert!(!connection.is_open());
    }
}
