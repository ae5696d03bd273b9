//! The TLS connection that the handshake hands to HTTP, and how to close it so that the client
//! receives the last bytes.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::server::buffered::BufferedWriter;

/// How long a client that still sends may go on before the socket is closed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a client may take to receive that the connection closes.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A TLS connection. It is boxed because it is large and moves from one future to the next.
pub(super) type TlsStream = Box<tokio_rustls::server::TlsStream<BufferedWriter>>;

/// Sends `close_notify` and closes the socket. Where the client may still be sending, its bytes
/// are discarded for a while, or the last response would be lost.
pub(super) async fn close(mut tls: TlsStream, may_be_sending: bool) {
    // A client that does not read it in time loses it.
    let _ = timeout(CLOSE_TIMEOUT, tls.shutdown()).await;
    let (mut socket, _) = tls.into_inner();
    if may_be_sending || !matches!(socket.socket().try_read(&mut [0]), Ok(0) | Err(_)) {
        shutdown_and_drain(&mut socket).await;
    }
}

/// Shuts down the write side and discards what the client still sends, for a bounded time: the
/// system resets a socket that is closed with bytes unread, and the reset overtakes an alert.
pub(super) async fn shutdown_and_drain(socket: &mut BufferedWriter) {
    let drain = async {
        socket.shutdown().await?;
        let mut discarded = vec![0; 4096];
        while socket.read(&mut discarded).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(DRAIN_TIMEOUT, drain).await;
}
