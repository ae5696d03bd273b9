//! wip
#[cfg(feature = "cli")]
pub mod cli;
mod clock;
mod reload;
mod server;
pub mod service;
mod trust;

pub use clock::{Clock, SystemClock};
pub use reload::{Finding, NotStartable, Severity};
pub use server::{Bound, Check, Config, Handle, PeerAddr, Running, StartError, Stopped};
pub use trust::{ClientIdentity, Fingerprint, Reason};
