//! The TLS connection that the handshake hands to HTTP, and how to close it so that the client
//! receives the last bytes.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::server::buffered::BufferedSocket;

/// How long a rejected client that still sends may go on before the socket is closed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a client may send the rest of a request body after the response: in total, and without
/// a byte.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(30);
const DISCARD_PAUSE: Duration = Duration::from_secs(2);

/// How many bytes are discarded at most, unless the response sets a limit.
pub(super) const DISCARD_LIMIT: u64 = 10 << 20;

/// How long a client may take to receive that the connection closes.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A TLS connection. It is boxed because it is large and moves from one future to the next.
pub(super) type TlsStream = Box<tokio_rustls::server::TlsStream<BufferedSocket>>;

/// Sends `close_notify` and closes the socket. Where the client may still be sending, its bytes
/// are discarded for a while, or the last response would be lost.
pub(super) async fn close(tls: TlsStream, may_be_sending: bool) {
    let mut socket = shutdown(tls).await;
    if may_be_sending || socket.has_unread() {
        shutdown_and_drain(&mut socket).await;
    }
}

/// Sends `close_notify` and discards the rest of a request body, up to `limit` bytes of it (RFC
/// 9112 section 9.6).
pub(super) async fn close_within_body(tls: TlsStream, limit: u64) {
    let mut socket = shutdown(tls).await;
    // TLS adds less than an eighth to what is sent in pieces of any sensible size.
    let limit = limit.saturating_add(limit / 8).saturating_add(64 << 10);
    let _ = timeout(DISCARD_TIMEOUT, discard(&mut socket, limit)).await;
}

async fn shutdown(mut tls: TlsStream) -> BufferedSocket {
    // A client that does not read `close_notify` in time loses it.
    let _ = timeout(CLOSE_TIMEOUT, tls.shutdown()).await;
    tls.into_inner().0
}

/// Shuts down the write side and discards what the client still sends, for a bounded time: the
/// system resets a socket that is closed with bytes unread, and the reset overtakes an alert.
pub(super) async fn shutdown_and_drain(socket: &mut BufferedSocket) {
    let _ = timeout(DRAIN_TIMEOUT, discard(socket, DISCARD_LIMIT)).await;
}

/// Shuts down the write side and reads until the client ends the connection, pauses, or has sent
/// too much.
async fn discard(socket: &mut BufferedSocket, limit: u64) -> io::Result<()> {
    socket.shutdown().await?;
    let mut buffer = vec![0; 16 << 10];
    let mut discarded = 0;
    while discarded < limit {
        match timeout(DISCARD_PAUSE, socket.read(&mut buffer)).await?? {
            0 => break,
            count => discarded += count as u64,
        }
    }
    Ok(())
}
