//! From an accepted socket to a TLS connection, or to the one reason why not.

use std::io;
use std::time::Duration;

use rustls::{AlertDescription, Error};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::reload::Current;
use crate::server::accept::buffered::BufferedWriter;
use crate::server::accept::limiter::HandshakeLimiter;
use crate::trust::{Presented, Reason, take_rejection};

/// The content type of a TLS record that holds a handshake message (RFC 8446, 5.1).
const HANDSHAKE_RECORD: u8 = 0x16;

/// How a request in plain HTTP begins.
const METHODS: [&str; 10] = [
    "GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "OPTIONS ", "PATCH ", "CONNECT ", "TRACE ", "PRI ",
];

/// How long a refused client may go on sending before the socket is closed under it.
const LINGER: Duration = Duration::from_secs(2);

/// A TLS connection. It is large, and handed from one future to the next.
pub(in crate::server) type Tls = Box<TlsStream<BufferedWriter>>;

/// Why a handshake came to nothing.
#[derive(Debug)]
pub(in crate::server) enum HandshakeError {
    /// It connected and left without a word, as port scans and TCP health checks do.
    Left,
    /// It was refused. Where there is a socket, an alert or an answer is on its way in it.
    Rejection(Box<Rejection>, Option<BufferedWriter>),
}

/// A refusal, for the log.
#[derive(Debug)]
pub(in crate::server) struct Rejection {
    pub(in crate::server) reason: Reason,
    pub(in crate::server) presented: Option<Presented>,
    pub(in crate::server) detail: Option<String>,
}

impl Rejection {
    pub(in crate::server) fn because(reason: Reason) -> HandshakeError {
        HandshakeError::Rejection(Box::new(Self { reason, presented: None, detail: None }), None)
    }
}

/// Waits for the first octets, and returns those that are there then.
pub(in crate::server) async fn first_bytes<'a>(
    socket: &TcpStream,
    first: &'a mut [u8; 8],
    deadline: Instant,
) -> Result<&'a [u8], HandshakeError> {
    match timeout_at(deadline, socket.peek(first)).await {
        Ok(Ok(0) | Err(_)) => Err(HandshakeError::Left),
        Ok(Ok(count)) => Ok(first.get(..count).unwrap_or_default()),
        Err(_) => Err(Rejection::because(Reason::HandshakeTimeout)),
    }
}

/// Shakes hands with the newest generation of this moment. Returns, beside the connection, how long
/// it took.
pub(in crate::server) async fn shake(
    socket: TcpStream,
    first: &[u8],
    current: &Current,
    limiter: &HandshakeLimiter,
    deadline: Instant,
) -> Result<(Tls, Duration), HandshakeError> {
    if first.first() != Some(&HANDSHAKE_RECORD) {
        return Err(respond_to_plain_http(socket, first).await);
    }
    let began = Instant::now();
    let acceptor = TlsAcceptor::from(current.newest().tls.clone());
    let mut accept = acceptor.accept(BufferedWriter::new(socket)).into_fallible();
    let mut verdict = None;
    // The verifier runs within a poll, and leaves its verdict with the thread.
    let accepted = limiter.take(&mut accept, || verdict = take_rejection().or(verdict.take()));
    let (error, socket) = match timeout_at(deadline, accepted).await {
        Ok(Ok(mut stream)) => {
            stream.get_mut().0.release();
            return Ok((Box::new(stream), began.elapsed()));
        }
        Ok(Err(failed)) => failed,
        Err(_) => return Err(Rejection::because(Reason::HandshakeTimeout)),
    };
    Err(HandshakeError::Rejection(Box::new(classify(&error, verdict)), Some(socket)))
}

fn classify(error: &io::Error, verdict: Option<(Reason, Presented)>) -> Rejection {
    if let Some((reason, presented)) = verdict {
        return Rejection { reason, presented: Some(presented), detail: None };
    }
    let tls = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
    let reason = match tls {
        Some(Error::NoCertificatesPresented) => {
            return Rejection { reason: Reason::NoCertificate, presented: None, detail: None };
        }
        Some(Error::AlertReceived(
            AlertDescription::CloseNotify | AlertDescription::UserCanceled,
        ))
        | None => Reason::LeftHandshake,
        Some(Error::AlertReceived(_)) => Reason::RefusedByClient,
        Some(_) => Reason::TlsError,
    };
    Rejection { reason, presented: None, detail: Some(error.to_string()) }
}

/// Tells a client that speaks plain HTTP that this is the wrong way to speak here.
async fn respond_to_plain_http(mut socket: TcpStream, first: &[u8]) -> HandshakeError {
    let is_begun = |method: &&str| {
        let length = method.len().min(first.len());
        method.as_bytes().get(..length) == first.get(..length)
    };
    if !METHODS.iter().any(is_begun) {
        return Rejection::because(Reason::NotTls);
    }
    const ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
        Content-Type: text/plain; charset=utf-8\r\n\
        Content-Length: 65\r\n\
        Connection: close\r\n\r\n\
        This port speaks HTTPS only: send the request to an https:// URL\n";
    let is_sent = socket.write_all(ANSWER).await.is_ok();
    let refused = Rejection { reason: Reason::PlainHttp, presented: None, detail: None };
    HandshakeError::Rejection(Box::new(refused), is_sent.then(|| BufferedWriter::new(socket)))
}

/// Ends our side, and reads what the client still sends for a bounded time: a socket that is
/// closed with bytes unread is reset, and the reset overtakes the alert.
pub(in crate::server) async fn linger(socket: &mut BufferedWriter) {
    let drain = async {
        socket.shutdown().await?;
        let mut unread = vec![0; 4096];
        while socket.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    // However it ends, the client had its time.
    let _ = timeout(LINGER, drain).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refuse_plain(socket: TcpStream) {
        if let HandshakeError::Rejection(_, Some(mut socket)) =
            respond_to_plain_http(socket, b"GET / HT").await
        {
            linger(&mut socket).await;
        }
    }

    #[tokio::test]
    async fn the_answer_to_plain_http_is_framed_as_it_says() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        let (mut client, server) = (client.unwrap(), accepted.unwrap().0);
        let read = async {
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            drop(client);
            answer
        };
        let (answer, _) = tokio::join!(read, refuse_plain(server));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{answer}");
        assert!(body.contains("https://"));
    }
}
