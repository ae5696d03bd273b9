//! An axum application behind the gate, whose handlers take the verified client as an argument.
//!
//!     cargo run --features axum --example axum -- 127.0.0.1:8443

use std::error::Error;

use axum::extract::Path;
use axum::{Router, routing::get};
use portcullis::{ClientIdentity, Config, PeerAddr};

async fn hello(client: ClientIdentity, PeerAddr(peer): PeerAddr) -> String {
    format!("hello {} at {}\n", client.fingerprint(), peer.ip())
}

/// Extractors combine with those of axum.
async fn order(client: ClientIdentity, Path(number): Path<u32>) -> String {
    format!("order {number} for {}\n", client.serial())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listen = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8443".to_owned());
    let bound = Config::new("certs-example/server-cert.pem", "certs-example/server-key.pem")
        .trust("certs-example/trust")
        .listen(listen.parse()?)
        .bind()?;
    println!("listening on {}", bound.local_addrs()[0]);
    let app = Router::new().route("/", get(hello)).route("/orders/{number}", get(order));
    let signal = tokio::signal::ctrl_c();
    let stopped = bound.serve(app).with_graceful_shutdown(signal).await;
    println!("stopped, {} connections aborted", stopped.connections_aborted);
    Ok(())
}
