//! A client that costs a server as much as API Gateway would, and reads what it cost. `benches/peers`
//! runs it; by hand:
//!
//!     load certs DIR                         certificates and keys, made afresh
//!     load trusted DIR COUNT                 a trust directory of so many, the client's own the last
//!     load upstream                          an application: `hello world`, or as many bytes as the path says
//!     load bare                              a TCP server that reads and writes and knows no TLS
//!     load floor DIR [--tls 1.2]             rustls' server half, in memory
//!     load full|resumed|kept|idle|hold|paced|download|upload|http2|rate|bare-client DIR --to ADDR:PORT --pid PID \
//!         [--tls 1.2] [--count N] [--batch N] [--rate N] [--body TEXT] \
//!         [--size BYTES]
//!
//! One thread, blocking sockets, in steps: what all connections of a batch send is computed first
//! and sent then, so that the server has a queue to work on and never waits for its client
//! within it. Each measurement is one line of JSON. `server_us` is the processor time of the process
//! `PID` and all its descendants for one operation, `own_us` that of this one; `errors` counts
//! whatever was not `200` and the expected body.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "this is a bench, and fails by panicking"
)]

mod certs;
mod client;
mod concurrent;
mod floor;
mod meter;
mod run;
mod upstream;

use std::net::SocketAddr;
use std::path::PathBuf;

use http::Version;
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

use crate::concurrent::{Exchange, closed_loop, open_loop};

/// The command line.
pub struct Options {
    pub certs: PathBuf,
    pub to: SocketAddr,
    pub pid: i32,
    pub tls: &'static SupportedProtocolVersion,
    pub count: usize,
    pub batch: usize,
    /// Requests a second, where they are paced.
    pub rate: u32,
    pub body: Vec<u8>,
    /// Bytes of an upload or a download.
    pub size: usize,
}

impl Options {
    fn read(mode: &str, mut args: impl Iterator<Item = String>) -> Self {
        let mut options = Self {
            certs: args.next().expect("the directory of the certificates").into(),
            to: ([127, 0, 0, 1], 0).into(),
            pid: 0,
            tls: &TLS13,
            count: 1000,
            batch: if matches!(mode, "hold" | "paced") { 1000 } else { run::BATCH },
            rate: 2000,
            body: b"hello world\n".to_vec(),
            size: 10_000,
        };
        while let Some(name) = args.next() {
            let value = args.next().expect("a value");
            match name.as_str() {
                "--to" => options.to = value.parse().expect("an address"),
                "--pid" => options.pid = value.parse().expect("a process"),
                "--tls" => options.tls = if value == "1.2" { &TLS12 } else { &TLS13 },
                "--count" => options.count = value.parse().expect("a number"),
                "--batch" => options.batch = value.parse().expect("a number"),
                "--rate" => options.rate = value.parse().expect("a number"),
                "--size" => options.size = value.parse().expect("a number"),
                "--body" => options.body = value.into_bytes(),
                _ => panic!("unknown: {name}"),
            }
        }
        options
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let mode = args.next().expect("what to do: see the head of benches/load/main.rs");
    match mode.as_str() {
        "certs" => certs::make(&PathBuf::from(args.next().expect("a directory"))),
        "trusted" => {
            let directory = PathBuf::from(args.next().expect("a directory"));
            certs::trusted(&directory, args.next().expect("how many").parse().expect("a number"));
        }
        "upstream" => upstream::serve(),
        "bare" => floor::serve_bare(),
        _ => {
            let options = Options::read(&mode, args);
            match mode.as_str() {
                "full" => run::full(&options),
                "resumed" => run::resumed(&options),
                "kept" => run::kept(&options),
                "idle" => run::idle(&options),
                "hold" => run::hold(&options),
                "paced" => run::paced(&options),
                "download" => closed_loop(&mode, &options, Exchange::download(&options)),
                "upload" => closed_loop(&mode, &options, Exchange::upload(&options)),
                "http2" => closed_loop(&mode, &options, Exchange::short(&options, Version::HTTP_2)),
                "rate" => open_loop(&options),
                "floor" => floor::in_memory(&options),
                "bare-client" => floor::measure_bare(&options),
                _ => panic!("unknown: {mode}"),
            }
        }
    }
}
