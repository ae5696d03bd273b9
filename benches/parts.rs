//! The parts, one by one: `cargo bench --features parts`.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    missing_docs,
    reason = "this is a bench, and fails by panicking"
)]

// The certificates and the client of the load generator.
#[allow(dead_code, reason = "the load generator uses the rest")]
#[path = "load/certs.rs"]
mod certs;
mod support;

use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput};
use portcullis::parts::trust_file;
use portcullis::service::headers;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use support::{Bench, now};

fn admission(bench: &Bench, criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("admission among");
    for count in [1, 100, 10_000] {
        let gate = bench.gate(count);
        let (client, now) = (bench.client(), now());
        group.bench_function(count.to_string(), |bencher| {
            bencher.iter(|| gate.admit(black_box(&client), now).expect("it is accepted"));
        });
    }
}

fn pem_loading(bench: &Bench, criterion: &mut Criterion) {
    let one = std::fs::read(bench.path("client.pem")).unwrap();
    let mut group = criterion.benchmark_group("PEM loading");
    for count in [1, 100] {
        let file = one.repeat(count);
        group.throughput(Throughput::Bytes(file.len() as u64));
        group.bench_function(count.to_string(), |bencher| {
            bencher.iter(|| assert_eq!(trust_file(black_box(&file)), count));
        });
    }
}

fn header_policy(bench: &Bench, criterion: &mut Criterion) {
    let client = bench.gate(1).admit(&bench.client(), now()).expect("it is accepted");
    let (request, response, peer) =
        (support::request(), support::response(), "192.0.2.7".parse().ok());
    let mut group = criterion.benchmark_group("header policy");
    group.bench_function("request", |bencher| {
        bencher.iter(|| headers::for_application(black_box(&request), &client, peer));
    });
    group.bench_function("response", |bencher| {
        bencher.iter_batched_ref(
            || response.clone(),
            |headers| headers::for_client(black_box(headers)),
            BatchSize::SmallInput,
        );
    });
}

/// Both halves, the client's RSA signature included.
fn handshake(bench: &Bench, criterion: &mut Criterion) {
    let server = bench.gate(1).tls();
    let mut group = criterion.benchmark_group("handshake in memory");
    for (name, version) in [("TLS 1.3", &TLS13), ("TLS 1.2", &TLS12)] {
        for (kind, resumption) in
            [("full", Resumption::disabled()), ("resumed", Resumption::in_memory_sessions(8))]
        {
            let mut roots = RootCertStore::empty();
            roots.add(certs::der(&bench.0, "root")).unwrap();
            let key = certs::certified_key(&bench.0, "client");
            let mut client = ClientConfig::builder_with_provider(Arc::new(default_provider()))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots)
                .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
            client.resumption = resumption;
            let client = Arc::new(client);
            shake(&server, &client);
            group.bench_function(format!("{name} {kind}"), |bencher| {
                bencher.iter(|| shake(&server, &client));
            });
        }
    }
}

/// A handshake and the first bytes in both directions, so that tickets have arrived.
fn shake(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) {
    let name = "localhost".try_into().unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    client.writer().write_all(b"request").unwrap();
    server.writer().write_all(b"response").unwrap();
    let mut wire = Vec::new();
    while client.wants_write() || server.wants_write() {
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().unwrap();
        }
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
        wire.clear();
    }
    let mut response = [0; 8];
    client.reader().read_exact(&mut response).unwrap();
    assert_eq!(&response, b"response");
}

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench(directory.path().to_owned());
    bench.make(&[1, 100, 10_000]);
    let mut criterion = Criterion::default().configure_from_args();
    for part in [admission, pem_loading, header_policy, handshake] {
        part(&bench, &mut criterion);
    }
    criterion.final_summary();
}
