//! Clients that have not proved an identity.

use std::net::SocketAddr;

use rustls::AlertDescription;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, copy_bidirectional, duplex};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fire::harness::{Fire, connector, crowd, open};
use crate::support::DEADLINE;
use crate::support::pki::PKI;
use crate::support::tls::{BOTH, Client, Connector, alert, request};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; run by .ci/run against the release binary"]
async fn silent_connections() {
    let fire = Fire::new(&[]);
    fire.rounds(async |watch| {
        let _silent = open(fire.addr(), 5000, b"");
        fire.wait_for_descriptors(4096);
        watch.some_more();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; run by .ci/run against the release binary"]
async fn halves_of_a_client_hello() {
    let fire = Fire::new(&[]);
    let hello = connector(&PKI.a).hello();
    fire.rounds(async |watch| {
        let _halting = open(fire.addr(), 2000, &hello[..hello.len() / 2]);
        fire.wait_for_descriptors(2000);
        watch.some_more();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; run by .ci/run against the release binary"]
async fn flood_of_unknown_certificates() {
    let fire = Fire::new(&[]);
    let address = fire.addr();
    let stranger = connector(&PKI.stranger);
    fire.rounds(async |_| {
        crowd(2000, || {
            let stranger = stranger.clone();
            async move {
                let response = stranger.ask(address).await;
                assert_eq!(alert(&response), Some(AlertDescription::UnknownCA), "{response:?}");
            }
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; run by .ci/run against the release binary"]
async fn unknown_certificates_that_keep_their_sockets() {
    let fire = Fire::new(&[]);
    let address = fire.addr();
    let stranger = connector(&PKI.stranger);
    fire.rounds(async |watch| {
        let mut staying = Vec::new();
        for _ in 0..200 {
            staying.push(stranger.connect(address).await.unwrap());
        }
        watch.some_more();
        for stream in &mut staying {
            // The refusal is there, and the socket is closed under them soon after.
            assert!(timeout(DEADLINE, stream.read(&mut [0])).await.unwrap().is_err());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; run by .ci/run against the release binary"]
async fn garbage_and_plain_http() {
    let fire = Fire::new(&[]);
    let address = fire.addr();
    let garbage: Vec<u8> = (0..20_000_u32).map(|i| (i * i % 251) as u8).collect();
    let mut framed = b"\x16\x03\x01\x40\x00".to_vec();
    framed.extend(&garbage);
    let bytes: [(Vec<u8>, &[u8]); 4] = [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".into(), b"HTTP/1.1 400"),
        ([b"POST / HTTP/1.1\r\n".as_slice(), &garbage].concat(), b"HTTP/1.1 400"),
        (garbage, b""),
        (framed, b""),
    ];
    fire.rounds(async |watch| {
        for (bytes, response) in &bytes {
            let (bytes, response) = (bytes.clone(), response.to_vec());
            crowd(250, || {
                let (bytes, response) = (bytes.clone(), response.clone());
                async move {
                    let mut stream = TcpStream::connect(address).await.unwrap();
                    // A client refused by its first byte may not have sent its last.
                    let _ = stream.write_all(&bytes).await;
                    let mut got = Vec::new();
                    let _ = timeout(DEADLINE, stream.read_to_end(&mut got)).await.unwrap();
                    assert!(got.starts_with(&response), "{got:?}");
                }
            })
            .await;
        }
        watch.some_more();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; run by .ci/run against the release binary"]
async fn a_client_hello_in_pieces() {
    let fire = Fire::new(&[]);
    let client = Client::from_pem(&PKI.a.cert, &PKI.a.key);
    let by_byte = |record: &[u8]| record.chunks(1).map(<[u8]>::to_vec).collect();
    let by_record = |record: &[u8]| {
        let (head, body) = record.split_at(5);
        let header = |length: usize| [&head[..3], &[0, length as u8]].concat();
        body.chunks(100).map(|piece| [header(piece.len()), piece.to_vec()].concat()).collect()
    };
    type Split = fn(&[u8]) -> Vec<Vec<u8>>;
    let pieces: [Split; 2] = [by_byte, by_record];
    fire.rounds(async |watch| {
        for version in BOTH {
            for pieces in pieces {
                let connector = Connector::new(Some(&client), version);
                let io = in_pieces(fire.addr(), pieces).await;
                let mut stream = connector.shake(io).await.unwrap();
                request(&mut stream, "").await.unwrap();
            }
        }
        watch.some_more();
    })
    .await;
}

/// A connection whose first record goes out in pieces, each a segment of its own.
async fn in_pieces(address: SocketAddr, pieces: fn(&[u8]) -> Vec<Vec<u8>>) -> DuplexStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let (io, mut other) = duplex(1 << 16);
    tokio::spawn(async move {
        let mut record = vec![0; 5];
        other.read_exact(&mut record).await.unwrap();
        let length = usize::from(record[3]) << 8 | usize::from(record[4]);
        record.resize(5 + length, 0);
        other.read_exact(&mut record[5..]).await.unwrap();
        for piece in pieces(&record) {
            socket.write_all(&piece).await.unwrap();
            // The kernel has sent it before it gets the next.
            socket.writable().await.unwrap();
        }
        // It ends when either side has.
        let _ = copy_bidirectional(&mut other, &mut socket).await;
    });
    io
}
