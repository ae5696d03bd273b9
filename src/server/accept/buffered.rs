//! A socket that sends in few segments what a handshake says in many writes.
//!
//! Each write costs more than what it carries: a system call, a segment, and a client that is woken
//! for it. What is written in a handshake is held until the peer is waited for; the session ticket,
//! which nobody waits for, goes with the first answer, or when there is none to write.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// How much is held at the most.
const MOST: usize = 16 << 10;

/// A socket, and what is held back of what was written to it.
#[derive(Debug)]
pub(in crate::server) struct BufferedWriter {
    socket: TcpStream,
    held: Vec<u8>,
    is_holding: bool,
}

impl BufferedWriter {
    /// Holds what is written until the peer is waited for, and is not sent by a flush.
    pub(in crate::server) fn new(socket: TcpStream) -> Self {
        Self { socket, held: Vec::new(), is_holding: true }
    }

    /// From here on what is held goes with the next write or at a flush, which is not held back.
    pub(in crate::server) fn release(&mut self) {
        self.is_holding = false;
    }

    pub(in crate::server) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let sent = ready!(Pin::new(&mut self.socket).poll_write(context, &self.held))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.drain(..sent);
        }
        // An idle connection keeps no buffer.
        self.held = Vec::new();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for BufferedWriter {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.socket).poll_read(context, buffer);
        // After that somebody flushes, and hyper looks for more before it writes an answer.
        if poll.is_pending()
            && self.is_holding
            && !self.held.is_empty()
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
        if self.held.len() + length > MOST {
            ready!(self.poll_send(context))?;
        }
        if self.held.is_empty() && (!self.is_holding || length > MOST) {
            return match slices {
                // A cheaper system call.
                [slice] => Pin::new(&mut self.socket).poll_write(context, slice),
                slices => Pin::new(&mut self.socket).poll_write_vectored(context, slices),
            };
        }
        for slice in slices {
            self.held.extend_from_slice(slice);
        }
        if !self.is_holding
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
        match self.is_holding {
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
        (BufferedWriter::new(accepted.unwrap().0), client.unwrap())
    }

    #[tokio::test]
    async fn what_is_held_is_sent_when_the_peer_is_waited_for() {
        let (mut held, mut client) = pair().await;
        held.write_all(b"one").await.unwrap();
        held.flush().await.unwrap();
        assert!(client.try_read(&mut [0; 8]).is_err());
        let mut answer = [0; 3];
        let talk = async {
            let mut read = [0; 3];
            client.read_exact(&mut read).await.unwrap();
            client.write_all(b"two").await.unwrap();
            read
        };
        let (read, waited) = tokio::join!(talk, held.read_exact(&mut answer));
        waited.unwrap();
        assert_eq!((&read, &answer), (b"one", b"two"));
    }

    #[tokio::test]
    async fn what_is_held_goes_before_what_is_written_next() {
        let (mut held, mut client) = pair().await;
        held.write_all(b"ticket ").await.unwrap();
        held.release();
        held.write_all(b"answer").await.unwrap();
        let mut read = [0; 13];
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"ticket answer");
        // More than may be held, in one write and in many.
        let much = vec![7; 3 * MOST];
        let (mut held, mut client) = pair().await;
        held.write_all(b"ticket ").await.unwrap();
        for piece in [much.as_slice(), &much[..MOST], &much[..MOST - 1]] {
            held.write_all(piece).await.unwrap();
        }
        held.shutdown().await.unwrap();
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(read.len(), 7 + 5 * MOST - 1);
        assert!(read.starts_with(b"ticket \x07"));
    }

    #[tokio::test]
    async fn what_is_held_waits_for_the_answer_when_more_is_looked_for_before_it() {
        let (mut held, mut client) = pair().await;
        held.write_all(b"ticket ").await.unwrap();
        held.release();
        let mut more = [0; 8];
        let is_pending = std::future::poll_fn(|context| {
            let mut buffer = ReadBuf::new(&mut more);
            Poll::Ready(Pin::new(&mut held).poll_read(context, &mut buffer).is_pending())
        });
        assert!(is_pending.await);
        // Of the system, whatever the runtime has heard.
        let nothing = socket2::SockRef::from(&client).peek(&mut [MaybeUninit::uninit()]);
        assert_eq!(nothing.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        held.write_all(b"answer").await.unwrap();
        let mut read = [0; 13];
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"ticket answer");
    }
}
