//! The application's address, and connections to it.

use std::fmt;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderValue, Uri};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, timeout_at};

use crate::service::proxy::failure::{BUFFER_SIZE, ProxyError};

/// The longest path of a Unix socket.
const LONGEST_PATH: usize = 107;

/// How long a refused connection is retried: the time that an application takes to restart.
/// Requests that wait meanwhile have not been sent, so none is lost.
const RESTART: Duration = Duration::from_secs(2);

/// The first and the longest pause between retries.
const PAUSE: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(160)];

/// The address of an application: `http://HOST:PORT` or `unix:/path`.
///
/// ```
/// use portcullis::service::Upstream;
///
/// let upstream: Upstream = "http://127.0.0.1:3000".parse()?;
/// assert_eq!(upstream.to_string(), "http://127.0.0.1:3000");
/// assert!("unix:/run/app.sock".parse::<Upstream>().is_ok());
/// assert!("https://127.0.0.1:3000".parse::<Upstream>().is_err());
/// # Ok::<(), portcullis::service::proxy::BadUpstream>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream(Address);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// Why a text is not the address of an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadUpstream(&'static str);

impl fmt::Display for BadUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; write http://HOST:PORT or unix:/path", self.0)
    }
}

impl std::error::Error for BadUpstream {}

impl FromStr for Upstream {
    type Err = BadUpstream;

    fn from_str(text: &str) -> Result<Self, BadUpstream> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                path if !path.starts_with('/') => Err(BadUpstream("the path is not absolute")),
                path if path.len() > LONGEST_PATH => {
                    Err(BadUpstream("the path is longer than the 107 bytes of a socket's"))
                }
                path => Ok(Self(Address::Unix(path.into()))),
            };
        }
        let uri: Uri = text.parse().map_err(|_| BadUpstream("not a URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(BadUpstream("TLS to the upstream is not supported")),
            _ => return Err(BadUpstream("not a URL")),
        }
        if uri.path() != "/" || uri.query().is_some() || text.contains('#') {
            return Err(BadUpstream("the URL has a path"));
        }
        let authority = uri.authority().map_or("", Authority::as_str);
        if authority.contains('@') {
            return Err(BadUpstream("the URL has a user name"));
        }
        let host = uri.host().unwrap_or_default();
        let port = match authority.strip_prefix(host) {
            Some("") => 80,
            Some(port) => port.strip_prefix(':').and_then(|port| port.parse().ok()).unwrap_or(0),
            None => 0,
        };
        if host.is_empty() || port == 0 {
            return Err(BadUpstream("the URL has no host, or its port is invalid"));
        }
        Ok(Self(Address::Tcp { host: host.to_owned(), port }))
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Address::Tcp { host, port } => write!(f, "http://{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Upstream {
    /// The TCP port, unless this is a Unix socket.
    #[cfg(feature = "cli")]
    pub(crate) fn port(&self) -> Option<u16> {
        match self.0 {
            Address::Tcp { port, .. } => Some(port),
            Address::Unix(_) => None,
        }
    }

    /// True if the host is a name, which needs a DNS lookup.
    #[cfg(feature = "cli")]
    pub(crate) fn is_name(&self) -> bool {
        match &self.0 {
            Address::Tcp { host, .. } => {
                host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_err()
            }
            Address::Unix(_) => false,
        }
    }

    /// `Host` for a request of HTTP/1.0 that has none.
    pub(super) fn host(&self) -> HeaderValue {
        let host = match &self.0 {
            Address::Tcp { host, port } => HeaderValue::try_from(format!("{host}:{port}")).ok(),
            Address::Unix(_) => None,
        };
        host.unwrap_or(HeaderValue::from_static("localhost"))
    }

    /// Connects within `limit`. A refused connection is retried for a while, so that a restart of
    /// the application loses no waiting request.
    pub(super) async fn connect(&self, limit: Duration) -> Result<Stream, ProxyError> {
        let began = Instant::now();
        let [mut pause, longest] = PAUSE;
        let mut refused = None;
        loop {
            let error = match timeout_at(began + limit, self.connect_once()).await {
                Ok(Ok(socket)) => return Ok(socket.into()),
                Ok(Err(error)) => error,
                Err(_) => {
                    return Err(refused.map_or(ProxyError::ConnectTimeout, ProxyError::Connect));
                }
            };
            let is_down =
                matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound);
            if !is_down || began.elapsed() + pause >= limit.min(RESTART) {
                return Err(ProxyError::Connect(error));
            }
            refused = Some(error);
            sleep(pause).await;
            pause = longest.min(pause * 2);
        }
    }

    pub(super) async fn connect_once(&self) -> io::Result<Socket> {
        match &self.0 {
            Address::Tcp { host, port } => {
                let host = host.trim_start_matches('[').trim_end_matches(']');
                let stream = TcpStream::connect((host, *port)).await?;
                stream.set_nodelay(true)?;
                Ok(Socket::Tcp(stream))
            }
            Address::Unix(path) => Ok(Socket::Unix(UnixStream::connect(path).await?)),
        }
    }
}

/// What the connection has transferred since the last [`Traffic::reset`].
#[derive(Debug, Default)]
pub(super) struct Traffic {
    read: AtomicUsize,
    has_written: AtomicBool,
    has_write_failed: AtomicBool,
    was_reset: AtomicBool,
    must_probe: AtomicBool,
}

impl Traffic {
    /// Forgets the previous request.
    pub(super) fn reset(&self) {
        self.read.store(0, Ordering::Relaxed);
        self.has_written.store(false, Ordering::Relaxed);
    }

    /// The bytes that have been read.
    pub(super) fn read(&self) -> usize {
        self.read.load(Ordering::Relaxed)
    }

    pub(super) fn has_written(&self) -> bool {
        self.has_written.load(Ordering::Relaxed)
    }

    /// True if the application no longer reads.
    pub(super) fn has_write_failed(&self) -> bool {
        self.has_write_failed.load(Ordering::Relaxed)
    }

    /// True if the application reset the connection, or closed it while we were writing: which of
    /// the two calls gets the error is a matter of chance.
    pub(super) fn was_reset(&self) -> bool {
        self.was_reset.load(Ordering::Relaxed) || self.has_write_failed()
    }

    /// Makes the next read ask the system whether the peer has closed the connection: the runtime
    /// may not have been notified yet.
    pub(super) fn probe(&self) {
        self.must_probe.store(true, Ordering::Relaxed);
    }
}

/// A connection to the application.
#[derive(Debug)]
pub(super) struct Stream {
    socket: Socket,
    pub(super) traffic: Arc<Traffic>,
    /// True while a write has waited once for more to write.
    has_waited: bool,
}

impl From<Socket> for Stream {
    fn from(socket: Socket) -> Self {
        Self { socket, traffic: Arc::default(), has_waited: false }
    }
}

#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    #[cfg(test)]
    pub(super) fn of(stream: UnixStream) -> Self {
        Socket::Unix(stream).into()
    }

    fn has_ended(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let peeked = match &self.socket {
            Socket::Tcp(stream) => SockRef::from(stream).peek(&mut byte),
            Socket::Unix(stream) => SockRef::from(stream).peek(&mut byte),
        };
        match peeked {
            Ok(count) => count == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.traffic.must_probe.load(Ordering::Relaxed) {
            self.traffic.must_probe.store(false, Ordering::Relaxed);
            if self.has_ended() {
                return Poll::Ready(Ok(()));
            }
        }
        let before = buffer.filled().len();
        let poll = match &mut self.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Socket::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        let read = buffer.filled().len() - before;
        if read > 0 {
            self.traffic.read.fetch_add(read, Ordering::Relaxed);
        }
        if let Poll::Ready(Err(error)) = &poll {
            let is_reset = error.kind() == io::ErrorKind::ConnectionReset;
            if is_reset {
                self.traffic.was_reset.store(true, Ordering::Relaxed);
            }
            // After a failed write the system reports either a reset or the end, as it happens.
            if is_reset && self.traffic.has_write_failed.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
        }
        poll
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        let discarded = || Poll::Ready(Ok(length));
        if self.traffic.has_write_failed.load(Ordering::Relaxed) {
            return discarded();
        }
        // Another full buffer of the body probably follows at once. A write wakes the application,
        // which costs more than another poll.
        let is_one_full = (BUFFER_SIZE..2 * BUFFER_SIZE).contains(&length);
        if is_one_full && !std::mem::replace(&mut self.has_waited, true) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let poll = match (&mut self.socket, slices) {
            // A plain write is the cheaper system call.
            (Socket::Tcp(stream), [bytes]) => Pin::new(stream).poll_write(context, bytes),
            (Socket::Tcp(stream), _) => Pin::new(stream).poll_write_vectored(context, slices),
            (Socket::Unix(stream), _) => Pin::new(stream).poll_write_vectored(context, slices),
        };
        self.has_waited &= poll.is_pending();
        let traffic = &self.traffic;
        match poll {
            Poll::Ready(Ok(count)) if count > 0 => {
                traffic.has_written.store(true, Ordering::Relaxed);
            }
            // The application has closed the connection, perhaps after an early response. hyper
            // would give up. So its further writes are discarded, and it reads the response.
            Poll::Ready(Err(_)) => {
                traffic.has_write_failed.store(true, Ordering::Relaxed);
                context.waker().wake_by_ref();
                return discarded();
            }
            _ => {}
        }
        poll
    }

    // So hyper does not copy bodies behind the head.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Neither kind of socket buffers.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.traffic.has_write_failed.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        match &mut self.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    /// A connection whose application closes it, with or without unread input.
    async fn closed_by_application(has_unread: bool) -> Stream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let upstream: Upstream = url.parse().unwrap();
        let mut ours = upstream.connect(Duration::from_secs(9)).await.unwrap();
        let (mut theirs, _) = listener.accept().await.unwrap();
        ours.write_all(b"half an upload").await.unwrap();
        theirs.readable().await.unwrap();
        if !has_unread {
            theirs.read_exact(&mut [0; 14]).await.unwrap();
        }
        drop(theirs);
        let Socket::Tcp(socket) = &ours.socket else { panic!("it is TCP") };
        socket.readable().await.unwrap();
        ours
    }

    #[tokio::test]
    async fn reset_is_seen_whichever_call_gets_its_error() {
        let mut reading = closed_by_application(true).await;
        assert!(reading.read(&mut [0; 9]).await.is_err());
        assert!(reading.traffic.was_reset());

        let mut writing = closed_by_application(true).await;
        writing.write_all(b"more").await.unwrap();
        assert_eq!(writing.read(&mut [0; 9]).await.unwrap(), 0);
        assert!(writing.traffic.was_reset());

        let mut ended = closed_by_application(false).await;
        assert_eq!(ended.read(&mut [0; 9]).await.unwrap(), 0);
        assert!(!ended.traffic.was_reset());
    }

    #[tokio::test]
    async fn full_buffer_waits_once_for_the_next() {
        let one = vec![b'x'; BUFFER_SIZE];
        for (slices, waits) in [
            (&[IoSlice::new(&one)][..], true),
            (&[IoSlice::new(b"head"), IoSlice::new(&one)], true),
            (&[IoSlice::new(&one), IoSlice::new(&one)], false),
            (&[IoSlice::new(&one[1..])], false),
        ] {
            let (ours, _theirs) = UnixStream::pair().unwrap();
            let mut stream = Stream::of(ours);
            let mut context = Context::from_waker(Waker::noop());
            let first = Pin::new(&mut stream).poll_write_vectored(&mut context, slices);
            assert_eq!(first.is_pending(), waits);
        }
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut stream = Stream::of(ours);
        // A task of its own is polled again only if it is woken.
        let write =
            tokio::spawn(async move { stream.write(&one).await.is_ok() && !stream.has_waited });
        assert!(timeout(Duration::from_secs(9), write).await.unwrap().unwrap());
    }

    #[tokio::test]
    async fn head_and_body_are_written_as_one_or_discarded_as_one() {
        let slices = [IoSlice::new(b"head "), IoSlice::new(b"body")];
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut open = Stream::of(ours);
        assert_eq!(open.write_vectored(&slices).await.unwrap(), 9);
        let mut read = [0; 10];
        assert_eq!(theirs.read(&mut read).await.unwrap(), 9);
        assert_eq!(&read[..9], b"head body");
        assert!(open.traffic.has_written() && !open.traffic.has_write_failed());

        drop(theirs);
        for _ in 0..2 {
            assert_eq!(open.write_vectored(&slices).await.unwrap(), 9);
            assert!(open.traffic.has_write_failed());
        }
    }
}
