//! The stand-in as a process of its own: `cargo run --example control-plane`.
//!
//! It prints how to reach it and what is in the account, as JSON on one line, and runs until its
//! standard input ends. A line `ADDR:PORT ROOT.pem` there has the nodes call that backend, which is
//! `localhost` by a certificate of this root; what became of their requests is the last line.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test tool"
)]

#[path = "mod.rs"]
mod control_plane;

use std::io::Write as _;
use std::net::SocketAddr;

use serde_json::json;

fn main() {
    let address = std::env::args().nth(1).map(|address| address.parse().expect("ADDR:PORT"));
    let address = address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
    let plane = control_plane::ControlPlane::start_at(address);
    let certificate = plane.add_certificate(330, &[]);
    let api = plane.add_api("example");
    plane.set_stage(&api, "prod", Some(&certificate));
    let variables: serde_json::Map<_, _> = plane
        .variables()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    let about = json!({
        "variables": variables, "certificate": certificate, "api": api, "stage": "prod",
    });
    let mut out = std::io::stdout();
    writeln!(out, "{about}").and_then(|()| out.flush()).expect("standard output");
    let mut traffic = None;
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let (backend, root) = line.split_once(' ').expect("ADDR:PORT ROOT.pem");
        let root = std::fs::read_to_string(root).expect("the root's file");
        let backend: SocketAddr = backend.parse().expect("ADDR:PORT");
        traffic = Some(plane.start_traffic(control_plane::Traffic::to([backend], &root)));
    }
    if let Some(traffic) = traffic {
        let report = traffic.report();
        let report = json!({
            "succeeded": report.succeeded,
            "by_certificate": report.by_certificate,
            "failures": report.failures,
        });
        writeln!(out, "{report}").expect("standard output");
    }
}
