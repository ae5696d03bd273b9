//! One connection's life: accept → handshake → admission → HTTP → close.
//!
//! ```text
//! config → bind → bound ─┬→ accept/   a socket until its client is admitted
//!                        │    └→ http/  an admitted connection until it closes
//!                        ├→ running, handle, snapshot   what the caller holds
//!                        └→ stop        the phases at the end
//! ```
//!
//! Both wings use the leaf files beside them (limits, phase, meters, rejections, tls_stream).

pub(crate) mod accept;
#[cfg(feature = "acme")]
mod acme_link;
mod bind;
mod bound;
mod buffered;
mod config;
mod handle;
mod http;
mod limits;
mod log_limiter;
mod meters;
mod phase;
mod provider;
mod rejections;
mod running;
mod service;
mod snapshot;
mod stop;
mod tls_stream;

#[cfg(feature = "acme")]
pub(crate) use accept::acme::{Challenges, Validation};
pub use accept::cidr::Cidr;
#[cfg(feature = "cli")]
pub(crate) use accept::pending::Pending;
#[cfg(feature = "acme")]
pub(crate) use acme_link::AcmeLink;
#[cfg(feature = "acme")]
pub use acme_link::{AcmeFailure, AcmeState};
pub use bind::{CheckReport, StartError};
pub use bound::Bound;
pub use config::Config;
pub use handle::Handle;
pub use http::state::PeerAddr;
pub use meters::Handshakes;
#[cfg(any(feature = "acme", feature = "parts"))]
pub(crate) use provider::provider;
pub use rejections::RejectedClient;
pub use running::Running;
pub use service::HttpService;
pub use snapshot::{NotReady, ServerCertificate, Snapshot, TrustedCertificate};
pub use stop::Stopped;
