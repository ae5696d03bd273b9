//! From an accepted socket to a TLS connection, or to the one reason why not.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;

use crate::reload::Current;
use crate::server::accept::acme::{self, Challenges};
use crate::server::accept::handshake_error::{HandshakeError, classify};
use crate::server::accept::limiter::HandshakeLimiter;
use crate::server::buffered::BufferedSocket;
use crate::server::tls_stream::TlsStream;
use crate::trust::{Reason, take_rejection};

/// The content type of a TLS record that holds a handshake message (RFC 8446, 5.1).
const HANDSHAKE_RECORD: u8 = 0x16;

/// The largest ClientHello that most clients send: post-quantum key shares are large.
const CLIENT_HELLO_SIZE: usize = 2048;

/// How a request in plain HTTP begins.
const METHODS: [&str; 10] = [
    "GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "OPTIONS ", "PATCH ", "CONNECT ", "TRACE ", "PRI ",
];

/// Waits for the first bytes, and reads those that have arrived by then.
pub(in crate::server) async fn read_first_bytes(
    socket: &mut TcpStream,
    deadline: Instant,
) -> Result<Bytes, HandshakeError> {
    // The buffer is no part of the future: a silent connection takes no memory.
    let first = poll_fn(|context| {
        let mut buffer = [MaybeUninit::uninit(); CLIENT_HELLO_SIZE];
        let mut buffer = ReadBuf::uninit(&mut buffer);
        let read = Pin::new(&mut *socket).poll_read(context, &mut buffer);
        read.map_ok(|()| Bytes::copy_from_slice(buffer.filled()))
    });
    match timeout_at(deadline, first).await {
        Ok(Ok(first)) if !first.is_empty() => Ok(first),
        Ok(_) => Err(HandshakeError::LeftSilently),
        Err(_) => Err(Reason::HandshakeTimeout.into()),
    }
}

/// Performs the TLS handshake with the newest generation. Returns the connection and the duration.
pub(in crate::server) async fn perform(
    socket: TcpStream,
    first: Bytes,
    current: &Current,
    challenges: Option<&Challenges>,
    limiter: &HandshakeLimiter,
    deadline: Instant,
) -> Result<(TlsStream, Duration), HandshakeError> {
    if first.first() != Some(&HANDSHAKE_RECORD) {
        return Err(respond_to_plain_http(socket, &first).await);
    }
    let began = Instant::now();
    let socket = BufferedSocket::new(socket, first);
    let accept = match challenges.filter(|challenges| challenges.is_open()) {
        None => TlsAcceptor::from(current.newest().tls.clone()).accept(socket),
        Some(challenges) => {
            Box::pin(acme::begin(socket, challenges, current, limiter, deadline)).await?
        }
    };
    let mut accept = accept.into_fallible();
    let mut verdict = None;
    // The verifier runs within a poll and leaves its verdict in a slot of the thread.
    let accepted = limiter.run(&mut accept, || verdict = take_rejection().or(verdict.take()));
    let (error, socket) = match timeout_at(deadline, accepted).await {
        Ok(Ok(mut stream)) => {
            stream.get_mut().0.release();
            return Ok((Box::new(stream), began.elapsed()));
        }
        Ok(Err(failed)) => failed,
        Err(_) => return Err(Reason::HandshakeTimeout.into()),
    };
    let mut rejection = Box::new(classify(&error, verdict));
    if current.newest().identity.is_none() && rejection.reason == Reason::TlsError {
        rejection.reason = Reason::NoServerCertificate;
    }
    Err(HandshakeError::Rejected(rejection, Some(socket)))
}

/// Responds to plain HTTP with a 400 that names the scheme to use.
async fn respond_to_plain_http(mut socket: TcpStream, first: &[u8]) -> HandshakeError {
    let matches_so_far = |method: &&str| {
        let length = method.len().min(first.len());
        method.as_bytes().get(..length) == first.get(..length)
    };
    if !METHODS.iter().any(matches_so_far) {
        return Reason::NotTls.into();
    }
    const RESPONSE: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
        Content-Type: text/plain; charset=utf-8\r\n\
        Content-Length: 65\r\n\
        Connection: close\r\n\r\n\
        This port speaks HTTPS only: send the request to an https:// URL\n";
    let is_sent = socket.write_all(RESPONSE).await.is_ok();
    let socket = is_sent.then(|| BufferedSocket::new(socket, Bytes::new()));
    HandshakeError::Rejected(Box::new(Reason::PlainHttp.into()), socket)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::server::tls_stream::shutdown_and_drain;

    async fn reject_plain(socket: TcpStream) {
        if let HandshakeError::Rejected(_, Some(mut socket)) =
            respond_to_plain_http(socket, b"GET / HT").await
        {
            shutdown_and_drain(&mut socket).await;
        }
    }

    #[tokio::test]
    async fn response_to_plain_http_has_its_declared_length() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        let (mut client, server) = (client.unwrap(), accepted.unwrap().0);
        let read = async {
            let mut response = String::new();
            client.read_to_string(&mut response).await.unwrap();
            drop(client);
            response
        };
        let (response, _) = tokio::join!(read, reject_plain(server));
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{response}");
        assert!(body.contains("https://"));
    }
}
