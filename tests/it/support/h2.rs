//! HTTP/2 frame by frame (RFC 9113), for clients that no library lets one be.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::DEADLINE;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// `GET https://localhost/`, as HPACK writes it without a table.
pub const GET: &[u8] = b"\x82\x87\x84\x01\x09localhost";
/// `POST https://localhost/`.
pub const POST: &[u8] = b"\x83\x87\x84\x01\x09localhost";

/// A frame as it came.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code of a GOAWAY.
    pub fn goaway_code(&self) -> Option<u32> {
        let code = self.payload.get(4..8)?.try_into().ok()?;
        (self.kind == GOAWAY).then(|| u32::from_be_bytes(code))
    }
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A client's end of a connection.
pub struct H2<T> {
    io: T,
    next: u32,
}

impl<T: AsyncRead + AsyncWrite + Unpin> H2<T> {
    /// Says hello; what the server sends on a stream may be so much ahead of what was taken.
    pub async fn start(mut io: T, window: u32) -> io::Result<Self> {
        let window = [&[0, 4], window.to_be_bytes().as_slice()].concat();
        let settings = frame(SETTINGS, 0, 0, &window);
        io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        io.write_all(&settings).await?;
        io.flush().await?;
        Ok(Self { io, next: 1 })
    }

    /// The number of a new stream.
    pub fn stream(&mut self) -> u32 {
        self.next += 2;
        self.next - 2
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.write_all(bytes).await?;
        self.io.flush().await
    }

    /// The next frame; what wants an acknowledgement has got it.
    pub async fn receive(&mut self) -> io::Result<Frame> {
        timeout(DEADLINE, self.receive_for_ever()).await?
    }

    async fn receive_for_ever(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.io.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, s, t, u, v] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.io.read_exact(&mut payload).await?;
        if matches!(kind, SETTINGS | PING) && flags & ACK == 0 {
            let echo = if kind == PING { payload.as_slice() } else { &[] };
            self.send(&frame(kind, ACK, 0, echo)).await?;
        }
        Ok(Frame { kind, flags, stream: u32::from_be_bytes([s, t, u, v]), payload })
    }

    /// One request with nothing in it; the response's body.
    pub async fn get(&mut self) -> io::Result<String> {
        let stream = self.stream();
        self.send(&frame(HEADERS, END_STREAM | END_HEADERS, stream, GET)).await?;
        self.response(stream).await
    }

    /// The body of the response on this stream.
    pub async fn response(&mut self, stream: u32) -> io::Result<String> {
        let mut body = Vec::new();
        loop {
            let came = self.receive().await?;
            if came.kind == DATA && !came.payload.is_empty() {
                let taken = u32::try_from(came.payload.len()).unwrap().to_be_bytes();
                self.send(&frame(WINDOW_UPDATE, 0, 0, &taken)).await?;
            }
            if came.stream != stream {
                continue;
            }
            match came.kind {
                RST_STREAM => return Err(io::ErrorKind::ConnectionReset.into()),
                DATA => body.extend(came.payload),
                _ => {}
            }
            if matches!(came.kind, HEADERS | DATA) && came.flags & END_STREAM != 0 {
                return Ok(String::from_utf8_lossy(&body).into_owned());
            }
        }
    }
}
