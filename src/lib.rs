//! An HTTPS server that lets in Amazon API Gateway, and nobody else.
//!
//! A client is let in if it proves that it holds the key of a certificate in the trust store,
//! equal to it byte for byte, within its dates. All certificates that API Gateway makes have the
//! same subject, and no extensions: nothing else about them tells one from another. The store may
//! hold as many as you like; what changes on disk is in force within a second; what was removed
//! is put out, live connections and resumable sessions included.
//!
//! It is a binary (see the README) and this library, which puts the same gate in front of any
//! [`tower`](tower_service::Service) or [hyper](hyper::service::Service) service:
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
//! Each stage is a type: a [`Config`] has read nothing, a [`Bound`] has loaded its files and
//! listens, a [`Running`] answers, and its [`Handle`] stops it and tells its state. Nothing here
//! installs anything process-wide: no signal handler, no subscriber, no crypto provider.
//!
//! # What happens to one connection
//!
//! 1. `server/accept.rs` accepts it and gives it a place among those that have not yet proved who
//!    they are; when these are all taken, the oldest gives up its own.
//! 2. Behind a load balancer, `server/proxy_header.rs` reads whose connection it is.
//!    `server/handshake.rs` waits for its first octet. Plain HTTP is answered `400`. Then it takes
//!    the newest generation and shakes hands; one deadline covers all of this.
//! 3. `trust/verifier.rs` asks `trust/store.rs`, which looks the certificate up by its octets (or
//!    verifies its chain, if CAs are trusted too), and checks the signature with the key that was
//!    parsed when the file was. A refusal leaves its reason and what was presented with the
//!    handshake, which logs it and lingers until the alert has arrived.
//! 4. `reload/live.rs` looks it up again in the newest generation: a resumed session asked no
//!    verifier, and the store may have changed. From here on it is in the table of live
//!    connections.
//! 5. `server/connection.rs` serves HTTP/1.1 or HTTP/2, as ALPN said. `server/gate.rs` asks for
//!    each request whether the certificate is still in, adds the [`ClientIdentity`] and the
//!    [`PeerAddr`] to its extensions, and passes it to the service.
//! 6. It ends when the client leaves, when nothing was asked for too long, when its certificate is
//!    taken away or expires, or when the server stops: what is in flight is finished, within a
//!    time.
//!
//! # What happens on a change
//!
//! 1. An event (`reload/watch.rs`), the poll, the moment in which a certificate begins or ends, or
//!    [`Handle::reload`] starts a look; after an event, when 100 ms have been quiet, and 500 ms
//!    later at the latest.
//! 2. `reload/files.rs` reads what has changed. What cannot be read or parsed keeps what it last
//!    held, and is a [`Finding`] until it is mended.
//! 3. `reload/mod.rs` compares the whole with the generation in force. If they differ, it makes a
//!    new one (`reload/generation.rs`): trust store, server certificate and key, session keys.
//!    The session keys are carried over only where nothing was taken away.
//! 4. `reload/live.rs` puts out the connections that the new generation does not let in, and
//!    publishes it. No other connection is woken.
//!
//! # What happens on a stop
//!
//! `server/mod.rs` goes through the phases: *lame duck*, for the shutdown delay, in which
//! everything is served and each answer is the last of its connection; *draining*, in which nobody
//! is accepted and what is in flight is finished; *cut*, in which the rest is ended and counted.
//! Every connection holds a receiver of the phase, and the server has stopped when the last of
//! them is gone.
//!
//! # Which module may use which
//!
//! ```text
//! trust/     who is let in        octets → certificates → store → verifier → identity
//! reload/    keeping that current files → trust store + server identity → generation
//! server/    one connection's life  accept → handshake → who is it → HTTP → drain
//! service/   what answers
//! cli.rs, main.rs   the binary: flags → parts → run → exit code
//!
//! main → cli → server → reload → trust          service knows the identity, and is known by main
//! ```
//!
//! `trust/` is pure: it reads no file and waits for nothing. Only `reload/` opens files. A flag is
//! added in `cli.rs` and [`Config`]; a reason for a refusal in `trust/refusal.rs`; a fault of a
//! file in `trust/pem.rs`.

#[cfg(feature = "cli")]
pub mod cli;
mod clock;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod reload;
mod server;
pub mod service;
mod trust;

pub use clock::{Clock, SystemClock};
pub use reload::{Finding, NotStartable, Severity};
pub use server::{Bound, Check, Cidr, Config, Handle, PeerAddr, Running, StartError, Stopped};
pub use trust::pem::Problem;
pub use trust::{ClientIdentity, Fingerprint, Reason};
