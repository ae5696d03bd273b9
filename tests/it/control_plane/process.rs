//! The stand-in as a process of its own: `cargo run --example control-plane`.
//!
//! It prints how to reach it and what is in the account, as JSON on one line, and runs until its
//! standard input ends.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test tool"
)]

#[path = "mod.rs"]
mod control_plane;

use std::io::{Read as _, Write as _};
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
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
