//! An HTTPS server that accepts Amazon API Gateway and rejects every other client.
//!
//! A client is accepted if it proves possession of the key of a certificate in the trust store,
//! equal byte for byte, within its validity period. All certificates of API Gateway have the same
//! subject and no extensions, so only their bytes distinguish them. The store holds any number of
//! them, a change on disk becomes active within a second, and the connections and sessions of a
//! removed certificate are closed.
//!
//! It is a binary (see the README) and this library, which puts the same gate in front of any
//! [`tower`](tower_service::Service) or [hyper](hyper::service::Service) service, with the verified
//! [`ClientIdentity`] and the [`PeerAddr`] in each request's extensions:
//!
//! ```no_run
//! use axum::{Extension, Router, routing::get};
//! use portcullis::{ClientIdentity, Config};
//!
//! async fn hello(Extension(client): Extension<ClientIdentity>) -> String {
//!     format!("hello {}\n", client.fingerprint())
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), portcullis::StartError> {
//! let bound = Config::new("server-cert.pem", "server-key.pem")
//!     .trust("trust/")
//!     .listen(([127, 0, 0, 1], 8443).into())
//!     .bind()?;
//! let running = bound.serve(Router::new().route("/", get(hello)));
//! // Call `running.handle().stop()` from where your signals arrive.
//! running.stopped().await;
//! # Ok(())
//! # }
//! ```
//!
//! With the feature `axum` both are extractors (`async fn hello(client: ClientIdentity)`), and a
//! router that is served without the gate responds `500` and logs `gate_missing`. `examples/` has
//! an axum application, a tower service with an authorisation closure, and a custom accept loop.
//!
//! Each stage is a type: a [`Config`] has read nothing, a [`Bound`] has loaded its files and
//! listens, a [`Running`] serves, and its [`Handle`] stops it and reports its state. The library
//! installs nothing process-wide: no signal handler, no subscriber, no crypto provider.
//!
//! # One connection
//!
//! 1. `server/accept/` accepts a socket and takes a slot among the pending handshakes
//!    (`pending.rs`); if all are taken, the oldest one of the larger
//!    group (silent, or begun) is dropped.
//! 2. Behind a load balancer, `proxy_header.rs` reads the client's address. `handshake.rs` waits
//!    for the first byte, responds to plain HTTP with `400`, and performs the handshake with the
//!    active generation. `limiter.rs` bounds how many handshakes compute at once, so that requests
//!    run between them. One deadline covers all.
//! 3. `trust/verifier.rs` looks the certificate up by its bytes in `trust/store.rs` (or verifies its
//!    chain, if CAs are trusted too), and checks the signature with the key parsed at load. A
//!    rejection carries its [`Reason`] to the log, the counter and the alert.
//! 4. `reload/live.rs` looks the certificate up in the newest generation: a resumed session skips
//!    the verifier, and the store may have changed. Then it is a live connection.
//! 5. `server/http/` serves HTTP/1.1 or HTTP/2, by ALPN. For each request, `gate.rs` checks that the
//!    certificate is still accepted, adds [`ClientIdentity`] and [`PeerAddr`] to the extensions, and
//!    calls the service. An HTTP/1.1 connection that is idle for half a second is parked: it frees
//!    hyper's buffers until the next byte.
//! 6. The connection closes when the client leaves, a deadline passes, its certificate is removed or
//!    expires, or the server stops. Requests in flight finish first, within `drain_timeout`.
//!
//! # One change
//!
//! 1. An event (`reload/watch.rs`), the poll, the begin or end of a certificate, or
//!    [`Handle::reload`] starts a scan: after 100 ms without events, 500 ms at most.
//! 2. `reload/source.rs` reads what changed. A file that cannot be read or parsed keeps its last good
//!    content, and is a [`Problem`] until it is fixed.
//! 3. `reload/change.rs` compares the result with the active generation. If they differ, a new one is
//!    built: trust store, server certificate and key, session keys. Session keys are carried over
//!    only if no certificate was removed.
//! 4. `reload/live.rs` closes the connections that the new generation does not accept, and publishes
//!    it. No other connection is woken.
//!
//! # One stop
//!
//! Serving → *lame duck*, for the shutdown delay: everything is served, each response is the last of
//! its connection → *draining*: no new connections, requests in flight finish → *aborting*: what is
//! left is closed and counted. A connection accepted just before the drain has a second for its first
//! request. The server has stopped when its last connection is gone.
//!
//! The binary reports its progress to the service manager (`cli/systemd.rs`) and listens on the
//! sockets that it passes, so that connections wait for the next process. In the library that is
//! [`Config::bind_to`].
//!
//! # The sandbox of the binary
//!
//! Before a second thread starts and a key is read, `cli/sandbox.rs` gives up every right to read,
//! write or connect that the flags do not name, and keeps the memory out of core dumps. The library
//! does none of this.
//!
//! # Which module may use which
//!
//! ```text
//! trust/     who is accepted           bytes → certificates → store → verifier → identity
//! reload/    keeping that current      files → trust store + server identity → generation
//! server/    one connection's life     accept/ (socket → admitted client) → http/ (requests → close)
//! service/   what responds             hello · proxy · header policy
//! admin/     what the operator sees    health · metrics · status page
//! acme/      its own certificate       order → pair in a cache, which reload finds (feature acme)
//! aws/       API Gateway's side        control plane client · fetch · rotate     (feature aws)
//! cli, log, main.rs   the binary       flags → parts → run → exit code
//!
//! cli → server → reload → trust      cli also uses service, admin, acme and aws
//!                                    service uses the identity and the peer's address
//!                                    admin uses the Handle, and the upstream's state
//!                                    acme uses the Handle, and gives its proofs to server/accept
//!                                    aws uses the certificate parser
//! ```
//!
//! `trust/` is pure: it reads no file and awaits nothing. Only `reload/` opens trust files. What
//! each boundary keeps out is in [`threat_model`].
//!
//! # Where to change what
//!
//! | change | place |
//! |---|---|
//! | a flag | `cli/flags/`, and its setting in `server/config.rs` |
//! | which client is accepted | `trust/store.rs` |
//! | a rejection reason, its alert or remedy | `trust/reason.rs` |
//! | an error of a PEM file, its remedy | `trust/pem/error.rs` |
//! | a warning about the server certificate | `reload/judge.rs` |
//! | when a certificate is reported, and its next step | `trust/assessment.rs`, `reload/expiry.rs` |
//! | a timeout of a connection | `server/limits.rs`, `server/http/deadlines.rs` |
//! | why a connection closes | `server/http/close_reason.rs` |
//! | why a request is malformed | `server/http/malformed.rs` |
//! | a request header that is stripped | the table in `service/headers/rules.rs` |
//! | a failure of the upstream | `service/proxy/failure.rs` |
//! | an event, a metric or a field of `/status` | where it happens; `admin/mod.rs` and `admin/status.rs` list them |

#![forbid(unsafe_code)]
// In tests, a panic is how a test fails.
#![cfg_attr(
    not(test),
    warn(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::dbg_macro,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::todo,
        clippy::unimplemented,
        clippy::unwrap_used
    )
)]

#[cfg(feature = "acme")]
mod acme;
#[cfg(feature = "cli")]
pub mod admin;
#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "cli")]
mod cli;
mod clock;
mod error;
#[cfg(feature = "axum")]
mod extract;
mod fields;
#[cfg(feature = "cli")]
mod log;
#[cfg(feature = "parts")]
#[doc(hidden)]
pub mod parts;
mod problem;
#[cfg(any(feature = "acme", feature = "aws"))]
mod random;
mod reload;
mod request_context;
mod server;
pub mod service;
pub mod threat_model;
mod trust;

pub use clock::{Clock, SystemClock};
#[cfg(feature = "axum")]
pub use extract::GateMissing;
pub use reload::{NotStartable, Problem, ReloadState, Severity};
#[cfg(feature = "acme")]
pub use server::{AcmeFailure, AcmeState};
pub use server::{
    Bound, CheckReport, Cidr, Config, Handle, Handshakes, HttpService, NotReady, PeerAddr,
    RejectedClient, Running, ServerCertificate, Snapshot, StartError, Stopped, TrustedCertificate,
};
pub use trust::pem::{PemError, PemErrorKind};
pub use trust::{
    ApiUsage, Assessment, ClientIdentity, Fingerprint, Nearest, PinnedClientVerifier, Reason,
    Relation, Role, State, TrustStore, TrustStoreBuilder, Urgency, Usage,
};

/// The binary, for `main.rs`; no part of the API.
#[cfg(feature = "cli")]
#[doc(hidden)]
pub use cli::main as run_command_line;
