//! A socket that sends the many writes of a handshake in few segments.
//!
//! It begins with the bytes by which the server has told TLS from plain HTTP, which are read again.
//!
//! Each write costs more than its bytes: a system call, a segment, and a client that wakes for it.
//! During the handshake, writes are buffered until the server waits for the peer; no peer waits for
//! the session ticket, which is sent with the first response, or by a flush.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The highest number of buffered bytes.
const MAX_BUFFERED: usize = 16 << 10;

/// A socket and the bytes that were written to it but not sent.
#[derive(Debug)]
pub(in crate::server) struct BufferedWriter {
    socket: TcpStream,
    /// Bytes to be read again, before the next ones.
    unread: Bytes,
    buffer: Vec<u8>,
    is_buffering: bool,
}

impl BufferedWriter {
    /// Buffers writes, in spite of flushes, until a read waits for the peer. `unread` are the bytes
    /// that have been read from the socket already.
    pub(in crate::server) fn new(socket: TcpStream, unread: Bytes) -> Self {
        Self { socket, unread, buffer: Vec::new(), is_buffering: true }
    }

    /// Ends the buffering: what is buffered goes out with the next write or flush.
    pub(in crate::server) fn release(&mut self) {
        self.is_buffering = false;
    }

    pub(in crate::server) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.buffer.is_empty() {
            let sent = ready!(Pin::new(&mut self.socket).poll_write(context, &self.buffer))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.buffer.drain(..sent);
        }
        // An idle connection keeps no buffer.
        self.buffer = Vec::new();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for BufferedWriter {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let length = self.unread.len().min(buffer.remaining());
            buffer.put_slice(&self.unread.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let poll = Pin::new(&mut self.socket).poll_read(context, buffer);
        // Once buffering has ended, a flush follows, and hyper reads again before it writes.
        if poll.is_pending()
            && self.is_buffering
            && !self.buffer.is_empty()
            && let Poll::Ready(Err(error)) = self.poll_send(context)
        {
            return Poll::Ready(Err(error));
        }
        poll
    }
}

impl AsyncWrite for BufferedWriter {
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
        let length = slices.iter().map(|slice| slice.len()).sum::<usize>();
        if self.buffer.len() + length > MAX_BUFFERED {
            ready!(self.poll_send(context))?;
        }
        if self.buffer.is_empty() && (!self.is_buffering || length > MAX_BUFFERED) {
            return match slices {
                // A plain write is the cheaper system call.
                [slice] => Pin::new(&mut self.socket).poll_write(context, slice),
                slices => Pin::new(&mut self.socket).poll_write_vectored(context, slices),
            };
        }
        for slice in slices {
            self.buffer.extend_from_slice(slice);
        }
        if !self.is_buffering
            && let Poll::Ready(Err(error)) = self.poll_send(context)
        {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.is_buffering {
            true => Poll::Ready(Ok(())),
            // The socket itself has nothing to flush.
            false => self.poll_send(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (BufferedWriter, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        (BufferedWriter::new(accepted.unwrap().0, Bytes::new()), client.unwrap())
    }

    #[tokio::test]
    async fn buffered_bytes_are_sent_when_a_read_waits_for_the_peer() {
        let (mut writer, mut client) = pair().await;
        writer.write_all(b"one").await.unwrap();
        writer.flush().await.unwrap();
        assert!(client.try_read(&mut [0; 8]).is_err());
        let mut response = [0; 3];
        let exchange = async {
            let mut read = [0; 3];
            client.read_exact(&mut read).await.unwrap();
            client.write_all(b"two").await.unwrap();
            read
        };
        let (read, waited) = tokio::join!(exchange, writer.read_exact(&mut response));
        waited.unwrap();
        assert_eq!((&read, &response), (b"one", b"two"));
    }

    #[tokio::test]
    async fn bytes_that_were_read_already_come_before_the_next() {
        let (BufferedWriter { socket, .. }, mut client) = pair().await;
        let mut writer = BufferedWriter::new(socket, Bytes::from_static(b"first "));
        client.write_all(b"second").await.unwrap();
        let mut read = [0; 12];
        writer.read_exact(&mut read[..2]).await.unwrap();
        writer.read_exact(&mut read[2..]).await.unwrap();
        assert_eq!(&read, b"first second");
    }

    #[tokio::test]
    async fn buffered_bytes_go_out_before_the_next_write() {
        let (mut writer, mut client) = pair().await;
        writer.write_all(b"ticket ").await.unwrap();
        writer.release();
        writer.write_all(b"reply").await.unwrap();
        let mut read = [0; 12];
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"ticket reply");
        // More than the limit, in one write and in several.
        let much = vec![7; 3 * MAX_BUFFERED];
        let (mut writer, mut client) = pair().await;
        writer.write_all(b"ticket ").await.unwrap();
        for piece in [much.as_slice(), &much[..MAX_BUFFERED], &much[..MAX_BUFFERED - 1]] {
            writer.write_all(piece).await.unwrap();
        }
        writer.shutdown().await.unwrap();
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(read.len(), 7 + 5 * MAX_BUFFERED - 1);
        assert!(read.starts_with(b"ticket \x07"));
    }

    #[tokio::test]
    async fn buffered_ticket_waits_for_the_response_when_a_read_comes_first() {
        let (mut writer, mut client) = pair().await;
        writer.write_all(b"ticket ").await.unwrap();
        writer.release();
        let mut more = [0; 8];
        let is_pending = std::future::poll_fn(|context| {
            let mut buffer = ReadBuf::new(&mut more);
            Poll::Ready(Pin::new(&mut writer).poll_read(context, &mut buffer).is_pending())
        });
        assert!(is_pending.await);
        // Asks the system, since the runtime may not know yet.
        let nothing = socket2::SockRef::from(&client).peek(&mut [MaybeUninit::uninit()]);
        assert_eq!(nothing.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        writer.write_all(b"reply").await.unwrap();
        let mut read = [0; 12];
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"ticket reply");
    }
}
