//! Where the application listens, and the connecting to it.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderValue, Uri};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, timeout_at};

use crate::service::proxy::failure::ProxyError;

/// The longest path that a Unix socket can have.
const LONGEST_PATH: usize = 107;

/// For how long a connection that is refused is tried again: as long as a process takes that is
/// started anew. What waits meanwhile has not been sent, so it is not lost.
const RESTART: Duration = Duration::from_secs(2);

/// How long to wait at first before it is tried again, and at most.
const PAUSE: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(160)];

/// Where an application listens: `http://HOST:PORT` or `unix:/path`.
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

/// Why a text does not say where an application listens.
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
            return Err(BadUpstream("the URL has no host, or a port that is none"));
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
    /// The TCP port that is connected to, if it is one.
    #[cfg(feature = "cli")]
    pub(crate) fn port(&self) -> Option<u16> {
        match self.0 {
            Address::Tcp { port, .. } => Some(port),
            Address::Unix(_) => None,
        }
    }

    /// Whether its host is a name, which has to be looked up.
    #[cfg(feature = "cli")]
    pub(crate) fn is_name(&self) -> bool {
        match &self.0 {
            Address::Tcp { host, .. } => {
                host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_err()
            }
            Address::Unix(_) => false,
        }
    }

    /// What a request that names no host, which HTTP/1.0 allows, gets as `Host`.
    pub(super) fn host(&self) -> HeaderValue {
        let host = match &self.0 {
            Address::Tcp { host, port } => HeaderValue::try_from(format!("{host}:{port}")).ok(),
            Address::Unix(_) => None,
        };
        host.unwrap_or(HeaderValue::from_static("localhost"))
    }

    /// Connects within `limit`. A connection that is refused is tried again for a while: an
    /// application that is started anew loses no request that it did not hold.
    pub(super) async fn connect(&self, limit: Duration) -> Result<Stream, ProxyError> {
        let began = Instant::now();
        let [mut pause, longest] = PAUSE;
        let mut refused = None;
        loop {
            let error = match timeout_at(began + limit, self.connect_once()).await {
                Ok(Ok(socket)) => return Ok(Stream { socket, seen: Arc::default() }),
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

    async fn connect_once(&self) -> io::Result<Socket> {
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

/// What has passed on a connection since it was last asked to forget.
#[derive(Debug, Default)]
pub(super) struct Seen {
    read: AtomicBool,
    written: AtomicBool,
    look: AtomicBool,
}

impl Seen {
    /// Forgets what has passed.
    pub(super) fn forget(&self) {
        self.read.store(false, Ordering::Relaxed);
        self.written.store(false, Ordering::Relaxed);
    }

    /// Whether a byte has come.
    pub(super) fn read(&self) -> bool {
        self.read.load(Ordering::Relaxed)
    }

    /// Whether a byte has gone out.
    pub(super) fn written(&self) -> bool {
        self.written.load(Ordering::Relaxed)
    }

    /// Has the next read ask the system whether the other side has ended the connection, instead of
    /// trusting what it has told so far.
    pub(super) fn look(&self) {
        self.look.store(true, Ordering::Relaxed);
    }
}

/// A connection to the application.
#[derive(Debug)]
pub(super) struct Stream {
    socket: Socket,
    pub(super) seen: Arc<Seen>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    #[cfg(test)]
    pub(super) fn of(stream: UnixStream) -> Self {
        Self { socket: Socket::Unix(stream), seen: Arc::default() }
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
        if self.seen.look.load(Ordering::Relaxed) {
            self.seen.look.store(false, Ordering::Relaxed);
            if self.has_ended() {
                return Poll::Ready(Ok(()));
            }
        }
        let before = buffer.filled().len();
        let poll = match &mut self.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Socket::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        if buffer.filled().len() > before {
            self.seen.read.store(true, Ordering::Relaxed);
        }
        poll
    }
}

// Without vectored writes: hyper then sends the head and what there is of a body as one piece, and
// gives back the buffers that large bodies came in at once.
impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = match &mut self.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Socket::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        };
        if matches!(poll, Poll::Ready(Ok(count)) if count > 0) {
            self.seen.written.store(true, Ordering::Relaxed);
        }
        poll
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Neither kind of socket holds anything back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
