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
use crate::server::held::Held;
use crate::server::turns::Turns;
use crate::trust::{Presented, Reason, take_refused};

/// The content type of a TLS record that holds a handshake message (RFC 8446, 5.1).
const HANDSHAKE_RECORD: u8 = 0x16;

/// How a request in plain HTTP begins.
const METHODS: [&str; 10] = [
    "GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "OPTIONS ", "PATCH ", "CONNECT ", "TRACE ", "PRI ",
];

/// How long a refused client may go on sending before the socket is closed under it.
const LINGER: Duration = Duration::from_secs(2);

/// A TLS connection. It is large, and handed from one future to the next.
pub(super) type Tls = Box<TlsStream<Held>>;

/// Why a handshake came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// It connected and left without a word, as port scans and TCP health checks do.
    Left,
    /// It was refused. Where there is a socket, an alert or an answer is on its way in it.
    Refused(Box<Refused>, Option<Held>),
}

/// A refusal, for the log.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) reason: Reason,
    pub(super) presented: Option<Presented>,
    pub(super) detail: Option<String>,
}

impl Refused {
    pub(super) fn because(reason: Reason) -> Failure {
        Failure::Refused(Box::new(Self { reason, presented: None, detail: None }), None)
    }
}

/// Waits for the first octets, and returns those that are there then.
pub(super) async fn first_octets<'a>(
    socket: &TcpStream,
    first: &'a mut [u8; 8],
    deadline: Instant,
) -> Result<&'a [u8], Failure> {
    match timeout_at(deadline, socket.peek(first)).await {
        Ok(Ok(0) | Err(_)) => Err(Failure::Left),
        Ok(Ok(count)) => Ok(first.get(..count).unwrap_or_default()),
        Err(_) => Err(Refused::because(Reason::HandshakeTimeout)),
    }
}

/// Shakes hands with the newest generation of this moment. Returns, beside the connection, how long
/// it took.
pub(super) async fn shake(
    socket: TcpStream,
    first: &[u8],
    current: &Current,
    turns: &Turns,
    deadline: Instant,
) -> Result<(Tls, Duration), Failure> {
    if first.first() != Some(&HANDSHAKE_RECORD) {
        return Err(answer_plain(socket, first).await);
    }
    let began = Instant::now();
    let acceptor = TlsAcceptor::from(current.newest().tls.clone());
    let mut accept = acceptor.accept(Held::new(socket)).into_fallible();
    let mut verdict = None;
    // The verifier runs within a poll, and leaves its verdict with the thread.
    let accepted = turns.take(&mut accept, || verdict = take_refused().or(verdict.take()));
    let (error, socket) = match timeout_at(deadline, accepted).await {
        Ok(Ok(mut stream)) => {
            stream.get_mut().0.release();
            return Ok((Box::new(stream), began.elapsed()));
        }
        Ok(Err(failed)) => failed,
        Err(_) => return Err(Refused::because(Reason::HandshakeTimeout)),
    };
    Err(Failure::Refused(Box::new(classify(&error, verdict)), Some(socket)))
}

fn classify(error: &io::Error, verdict: Option<(Reason, Presented)>) -> Refused {
    if let Some((reason, presented)) = verdict {
        return Refused { reason, presented: Some(presented), detail: None };
    }
    let tls = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
    let reason = match tls {
        Some(Error::NoCertificatesPresented) => {
            return Refused { reason: Reason::NoCertificate, presented: None, detail: None };
        }
        Some(Error::AlertReceived(
            AlertDescription::CloseNotify | AlertDescription::UserCanceled,
        ))
        | None => Reason::LeftHandshake,
        Some(Error::AlertReceived(_)) => Reason::RefusedByClient,
        Some(_) => Reason::TlsError,
    };
    Refused { reason, presented: None, detail: Some(error.to_string()) }
}

/// Tells a client that speaks plain HTTP that this is the wrong way to speak here.
async fn answer_plain(mut socket: TcpStream, first: &[u8]) -> Failure {
    let is_begun = |method: &&str| {
        let length = method.len().min(first.len());
        method.as_bytes().get(..length) == first.get(..length)
    };
    if !METHODS.iter().any(is_begun) {
        return Refused::because(Reason::NotTls);
    }
    const ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
        Content-Type: text/plain; charset=utf-8\r\n\
        Content-Length: 65\r\n\
        Connection: close\r\n\r\n\
        This port speaks HTTPS only: send the request to an https:// URL\n";
    let is_sent = socket.write_all(ANSWER).await.is_ok();
    let refused = Refused { reason: Reason::PlainHttp, presented: None, detail: None };
    Failure::Refused(Box::new(refused), is_sent.then(|| Held::new(socket)))
}

/// Ends our side, and reads what the client still sends for a bounded time: a socket that is
/// closed with bytes unread is reset, and the reset overtakes the alert.
pub(super) async fn linger(socket: &mut Held) {
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
        if let Failure::Refused(_, Some(mut socket)) = answer_plain(socket, b"GET / HT").await {
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
