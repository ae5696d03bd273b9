//! Frames of HTTP/2 by hand, for what no library sends.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use super::DEADLINE;
use super::proxy::{Tls, connect, send};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const GOAWAY: u8 = 7;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
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

pub struct Client(pub Tls);

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let mut tls = connect(address, "h2").await;
        send(&mut tls, [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
        Self(tls)
    }

    pub async fn headers(&mut self, stream: u32, list: &[(&str, &str)], is_last: bool) {
        let flags = END_HEADERS | if is_last { END_STREAM } else { 0 };
        send(&mut self.0, frame(HEADERS, flags, stream, &fields(list))).await;
    }

    pub async fn data(&mut self, stream: u32, data: &[u8], is_last: bool) {
        let flags = if is_last { END_STREAM } else { 0 };
        send(&mut self.0, frame(DATA, flags, stream, data)).await;
    }

    /// The next frame of this stream that is of one of these kinds, or none where the
    /// connection ends.
    pub async fn next(&mut self, stream: u32, kinds: &[u8]) -> Option<(u8, u8, Vec<u8>)> {
        let read = async {
            loop {
                let mut head = [0; 9];
                self.0.read_exact(&mut head).await.ok()?;
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                let mut payload = vec![0; usize::try_from(length).unwrap()];
                self.0.read_exact(&mut payload).await.ok()?;
                let of = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                if head[3] == GOAWAY && of == 0 {
                    return None;
                }
                if of == stream && kinds.contains(&head[3]) {
                    return Some((head[3], head[4], payload));
                }
            }
        };
        timeout(DEADLINE, read).await.expect("an response in time")
    }

    /// The status of the response to one request; none where it is reset.
    pub async fn status(&mut self, stream: u32) -> Option<u16> {
        let (kind, _, block) = self.next(stream, &[HEADERS, RESET]).await?;
        if kind == RESET {
            return None;
        }
        // The status comes first: one of the static table, or a literal of it.
        match block.first()? {
            0x88 => Some(200),
            0x89 => Some(204),
            0x8b => Some(304),
            0x8c => Some(400),
            0x8d => Some(404),
            0x8e => Some(500),
            // Three digits by the Huffman code of HPACK, where those from 0 to 2 have five bits
            // and the others six.
            _ => Some(digits(block.get(1..)?)),
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
