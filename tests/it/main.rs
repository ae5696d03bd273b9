//! The tests of the library and of the binary from outside, in one crate so that `support` compiles
//! once. Tests that change the whole process or the user's limits stand alone beside it.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail"
)]

#[cfg(feature = "acme")]
mod acme;
mod admin;
mod admission;
mod binary;
mod control_plane;
mod deadlines;
mod environment;
mod examples;
#[cfg(feature = "axum")]
mod extract;
#[cfg(feature = "aws")]
mod fetch;
mod file_kinds;
mod fire;
mod genuine;
mod interop;
mod library;
mod model;
#[cfg(not(feature = "acme"))]
mod no_acme;
mod parking;
mod proxy;
mod proxy_cli;
mod proxy_failures;
mod proxy_headers;
mod proxy_protocol;
mod proxy_smuggling;
mod reload;
mod request_check;
#[cfg(feature = "aws")]
mod rotate;
#[cfg(target_os = "linux")]
mod sandbox;
mod server_key;
mod shutdown;
mod support;
mod systemd;
mod trust_files;
