//! wip
#[cfg(feature = "cli")]
pub mod admin;
#[cfg(feature = "cli")]
pub mod cli;
mod clock;
#[cfg(feature = "cli")]
pub mod log;
mod reload;
mod server;
pub mod service;
mod trust;

pub use clock::{Clock, SystemClock};
pub use reload::{Finding, NotStartable, ReloadState, Severity};
pub use server::{
    Bound, Check, Config, Handle, Handshakes, NotReady, PeerAddr, RefusedClient, Running,
    ServerCertificate, Snapshot, StartError, Stopped, TrustedCertificate,
};
pub use trust::{ClientIdentity, Fingerprint, Nearest, Reason, Relation, Role, Usage};
