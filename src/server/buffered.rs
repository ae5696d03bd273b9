//! A socket that makes few system calls of the many reads and writes of TLS.
//!
//! rustls reads a record in pieces of 4 KiB. So a whole record is read, and what rustls has not asked
//! for yet is kept. The first are the bytes by which the server has told TLS from plain HTTP.
//!
//! Each write costs more than its bytes: a system call, a segment, and a client that wakes for it.
//! During the handshake, writes are buffered until the server waits for the peer; no peer waits for
//! the session ticket, which is sent with the first response, or by a flush.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The highest number of buffered bytes.
const MAX_BUFFERED: usize = 16 << 10;

/// What rustls asks for while it has no part of a record.
const PIECE: usize = 4 << 10;

/// More than the largest TLS record (RFC 8446, 5.2). What follows it matters: while rustls has a part
/// of a record, it asks for whole ones itself, and nothing is copied here.
const READ_AHEAD: usize = 18 << 10;

/// A socket, the bytes that were received and not read, and those that were written and not sent.
#[derive(Debug)]
pub(in crate::server) struct BufferedSocket {
    socket: TcpStream,
    unread: Bytes,
    buffer: Vec<u8>,
    is_buffering: bool,
}

impl BufferedSocket {
    /// Buffers writes, in spite of flushes, until a read waits for the peer. `unread` has been
    /// received from the socket already.
    pub(in crate::server) fn new(socket: TcpStream, unread: Bytes) -> Self {
        Self { socket, unread, buffer: Vec::new(), is_buffering: true }
    }

    /// Ends the buffering: what is buffered goes out with the next write or flush.
    pub(in crate::server) fn release(&mut self) {
        self.is_buffering = false;
    }

    /// Waits for bytes to read, or the end.
    pub(in crate::server) fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        match self.unread.is_empty() {
            // A socket that has failed is ready, and reports its error to the next read.
            true => self.socket.poll_read_ready(context).map(|_| ()),
            false => Poll::Ready(()),
        }
    }

    /// True if the peer has sent something that was not read. This may take a byte of it.
    pub(in crate::server) fn has_unread(&self) -> bool {
        !self.unread.is_empty() || !matches!(self.socket.try_read(&mut [0]), Ok(0) | Err(_))
    }

    /// Receives a whole record, even if rustls asks for the first piece of one.
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() > PIECE {
            return Pin::new(&mut self.socket).poll_read(context, buffer);
        }
        let mut bytes = [MaybeUninit::uninit(); READ_AHEAD];
        let mut bytes = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut self.socket).poll_read(context, &mut bytes))?;
        let (now, later) = bytes.filled().split_at(bytes.filled().len().min(buffer.remaining()));
        buffer.put_slice(now);
        if !later.is_empty() {
            self.unread = Bytes::copy_from_slice(later);
        }
        Poll::Ready(Ok(()))
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

impl AsyncRead for BufferedSocket {
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
        let poll = self.poll_receive(context, buffer);
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

impl AsyncWrite for BufferedSocket {
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
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (BufferedSocket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        (BufferedSocket::new(accepted.unwrap().0, Bytes::new()), client.unwrap())
    }

    #[tokio::test]
    async fn buffered_bytes_are_sent_when_a_read_waits_for_the_peer() {
        let (mut socket, mut client) = pair().await;
        socket.write_all(b"one").await.unwrap();
        socket.flush().await.unwrap();
        assert!(client.try_read(&mut [0; 8]).is_err());
        let mut response = [0; 3];
        let exchange = async {
            let mut read = [0; 3];
            client.read_exact(&mut read).await.unwrap();
            client.write_all(b"two").await.unwrap();
            read
        };
        let (read, waited) = tokio::join!(exchange, socket.read_exact(&mut response));
        waited.unwrap();
        assert_eq!((&read, &response), (b"one", b"two"));
    }

    #[tokio::test]
    async fn bytes_that_were_read_already_come_before_the_next() {
        let (BufferedSocket { socket, .. }, mut client) = pair().await;
        let mut socket = BufferedSocket::new(socket, Bytes::from_static(b"first "));
        client.write_all(b"second").await.unwrap();
        let mut read = [0; 12];
        socket.read_exact(&mut read[..2]).await.unwrap();
        socket.read_exact(&mut read[2..]).await.unwrap();
        assert_eq!(&read, b"first second");
    }

    #[tokio::test]
    async fn record_is_received_at_once_and_read_in_pieces() {
        for length in [3 * PIECE, READ_AHEAD + 9] {
            let (mut socket, mut client) = pair().await;
            let record: Vec<u8> = (0..=250).cycle().take(length).collect();
            client.write_all(&record).await.unwrap();
            let mut read = vec![0; length];
            let (first, rest) = read.split_at_mut(PIECE);
            socket.read_exact(first).await.unwrap();
            // The socket itself may have nothing more to read.
            let is_ready = poll_fn(|context| Poll::Ready(socket.poll_read_ready(context)));
            assert!(is_ready.await.is_ready() && socket.has_unread());
            for piece in rest.chunks_mut(PIECE) {
                socket.read_exact(piece).await.unwrap();
            }
            assert_eq!(read, record);
            assert!(!socket.has_unread());
        }
    }

    #[tokio::test]
    async fn buffered_bytes_go_out_before_the_next_write() {
        let (mut socket, mut client) = pair().await;
        socket.write_all(b"ticket ").await.unwrap();
        socket.release();
        socket.write_all(b"reply").await.unwrap();
        let mut read = [0; 12];
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"ticket reply");
        // More than the limit, in one write and in several.
        let much = vec![7; 3 * MAX_BUFFERED];
        let (mut socket, mut client) = pair().await;
        socket.write_all(b"ticket ").await.unwrap();
        for piece in [much.as_slice(), &much[..MAX_BUFFERED], &much[..MAX_BUFFERED - 1]] {
            socket.write_all(piece).await.unwrap();
        }
        socket.shutdown().await.unwrap();
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(read.len(), 7 + 5 * MAX_BUFFERED - 1);
        assert!(read.starts_with(b"ticket \x07"));
    }

    #[tokio::test]
    async fn buffered_ticket_waits_for_the_response_when_a_read_comes_first() {
        let (mut socket, mut client) = pair().await;
        socket.write_all(b"ticket ").await.unwrap();
        socket.release();
        let mut more = [0; 8];
        let is_pending = poll_fn(|context| {
            let mut buffer = ReadBuf::new(&mut more);
            Poll::Ready(Pin::new(&mut socket).poll_read(context, &mut buffer).is_pending())
        });
        assert!(is_pending.await);
        // Asks the system, since the runtime may not know yet.
        let nothing = socket2::SockRef::from(&client).peek(&mut [MaybeUninit::uninit()]);
        assert_eq!(nothing.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        socket.write_all(b"reply").await.unwrap();
        let mut read = [0; 12];
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"ticket reply");
    }
}
