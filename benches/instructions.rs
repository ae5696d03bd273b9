//! Does one thing of what is ours on the hot path so many times, for `benches/instructions` to
//! count: `instructions CASE DIR`, after `instructions prepare DIR`, which makes the certificates.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "this is a bench, and fails by panicking"
)]

#[allow(dead_code, reason = "the load generator uses the rest")]
#[path = "load/certs.rs"]
mod certs;
#[allow(dead_code, reason = "the benches of the parts use the rest")]
mod support;

use std::hint::black_box;

use http::{HeaderMap, request};
use portcullis::ClientIdentity;
use portcullis::parts::Gate;
use portcullis::service::headers;
use rustls::pki_types::{CertificateDer, UnixTime};
use support::{Bench, now};

/// How often: `benches/instructions` divides by it.
const TIMES: usize = 1000;

fn main() {
    let mut args = std::env::args().skip(1);
    let case = args.next().expect("a case");
    let bench = Bench(args.next().expect("a directory").into());
    if case == "prepare" {
        bench.make(&[1, 10_000]);
        return;
    }
    let (client, now) = (bench.client(), now());
    match case.as_str() {
        "admission-1" => measured_admission(&bench.gate(1), &client, now),
        "admission-10000" => measured_admission(&bench.gate(10_000), &client, now),
        "header-policy-request" => {
            let identity = bench.gate(1).admit(&client, now).expect("it is accepted");
            let request = support::request();
            // What is made once a connection is there then.
            headers::for_application(&request, &identity, None);
            measured_request(&request, &identity);
        }
        "header-policy-response" => measured_response(&mut vec![support::response(); TIMES]),
        _ => panic!("unknown: {case}"),
    }
}

#[inline(never)]
fn measured_admission(gate: &Gate, client: &CertificateDer<'_>, now: UnixTime) {
    for _ in 0..TIMES {
        black_box(gate.admit(black_box(client), now)).expect("it is accepted");
    }
}

#[inline(never)]
fn measured_request(request: &request::Parts, client: &ClientIdentity) {
    let peer = "192.0.2.7".parse().ok();
    for _ in 0..TIMES {
        black_box(headers::for_application(black_box(request), client, peer));
    }
}

#[inline(never)]
fn measured_response(responses: &mut [HeaderMap]) {
    for response in responses {
        headers::for_client(black_box(response));
    }
}
