//! An HTTP/2 client that sends frame by frame (RFC 9113), as no library lets one.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::DEADLINE;
use super::proxy::{Tls, connect};

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

/// Literal fields, neither indexed nor compressed.
pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// A client's end of a connection.
pub struct H2<T> {
    io: T,
    last: u32,
}

impl H2<Tls> {
    /// Connects with the certificate of A.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::start(connect(address, "h2").await, 65_535).await.unwrap()
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> H2<T> {
    /// Sends the preface. `window` is the initial flow-control window of each stream.
    pub async fn start(mut io: T, window: u32) -> io::Result<Self> {
        let window = [&[0, 4], window.to_be_bytes().as_slice()].concat();
        let settings = frame(SETTINGS, 0, 0, &window);
        io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        io.write_all(&settings).await?;
        io.flush().await?;
        Ok(Self { io, last: 1 })
    }

    /// The number of a new stream.
    pub fn stream(&mut self) -> u32 {
        self.last += 2;
        self.last - 2
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

    /// Sends the head of a request. A server that has closed already need not read it.
    pub async fn headers(&mut self, stream: u32, list: &[(&str, &str)], is_last: bool) {
        let flags = END_HEADERS | if is_last { END_STREAM } else { 0 };
        let _ = self.send(&frame(HEADERS, flags, stream, &fields(list))).await;
    }

    /// Sends a piece of a body.
    pub async fn data(&mut self, stream: u32, data: &[u8], is_last: bool) {
        let flags = if is_last { END_STREAM } else { 0 };
        let _ = self.send(&frame(DATA, flags, stream, data)).await;
    }

    /// The next frame of this stream that is of one of these kinds, or none if the connection
    /// ends first.
    pub async fn next(&mut self, stream: u32, kinds: &[u8]) -> Option<Frame> {
        loop {
            let came = match self.receive().await {
                Err(error) if error.kind() == io::ErrorKind::TimedOut => panic!("no frame in time"),
                came => came.ok()?,
            };
            if came.kind == GOAWAY {
                return None;
            }
            if came.stream == stream && kinds.contains(&came.kind) {
                return Some(came);
            }
        }
    }

    /// The status of the response to one request; none where it is reset.
    pub async fn status(&mut self, stream: u32) -> Option<u16> {
        let came = self.next(stream, &[HEADERS, RST_STREAM]).await?;
        if came.kind == RST_STREAM {
            return None;
        }
        // The status comes first: one of the static table, or a literal of it.
        match came.payload.first()? {
            0x88 => Some(200),
            0x89 => Some(204),
            0x8b => Some(304),
            0x8c => Some(400),
            0x8d => Some(404),
            0x8e => Some(500),
            // Three digits by the Huffman code of HPACK, where those from 0 to 2 have five bits
            // and the others six.
            _ => Some(digits(came.payload.get(1..)?)),
        }
    }
}

fn digits(coded: &[u8]) -> u16 {
    let length = usize::from(coded.first().copied().unwrap_or(0) & 0x7f);
    let coded = &coded[..=length.min(coded.len() - 1)];
    let mut bits = coded[1..].iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    let mut status = 0;
    for _ in 0..3 {
        let mut code = 0;
        for _ in 0..5 {
            code = code << 1 | bits.next().unwrap_or(1);
        }
        let digit =
            if code <= 2 { code } else { (code << 1 | bits.next().unwrap_or(1)) - 0x19 + 3 };
        status = status * 10 + u16::from(digit);
    }
    status
}
