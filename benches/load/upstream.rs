//! The application behind a proxy: `GET /N` gets N bytes, everything else `hello world`.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// Responds as fast as it can; prints where it listens.
pub fn serve() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    for stream in listener.incoming() {
        let stream = stream.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        thread::Builder::new()
            .stack_size(256 << 10)
            // It ends when the proxy closes.
            .spawn(move || drop(respond(stream)))
            .expect("a thread");
    }
}

fn respond(mut stream: TcpStream) -> io::Result<()> {
    let hello =
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 12\r\n\r\nhello world\n";
    let mut sized: (usize, Vec<u8>) = (0, Vec::new());
    let mut buffer = [0; 64 << 10];
    let mut received = 0;
    loop {
        match stream.read(&mut buffer[received..])? {
            0 => return Ok(()),
            more => received += more,
        }
        let Some(end) = buffer[..received].windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        let mut missing = body_length(&head).saturating_sub(received - end - 4);
        received = 0;
        while missing > 0 {
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                more => missing = missing.saturating_sub(more),
            }
        }
        let size = head.split(['/', ' ']).nth(2).and_then(|size| size.parse().ok());
        match size {
            Some(size) => {
                if sized.0 != size {
                    let head = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {size}\r\n\r\n"
                    );
                    sized = (size, [head.into_bytes(), vec![b'x'; size]].concat());
                }
                stream.write_all(&sized.1)?;
            }
            None => stream.write_all(hello)?,
        }
    }
}

/// Every upload here announces its length.
fn body_length(head: &str) -> usize {
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("content-length:"));
    line.and_then(|line| line.split(':').nth(1)?.trim().parse().ok()).unwrap_or(0)
}
