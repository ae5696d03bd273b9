//! Keeps the trusted certificates and the server's own certificate current.
//!
//! ```text
//! event, poll, request or expiry → read what changed → parse → compare → publish
//!
//! loader      every file: sources (trust paths), identity (the server's certificate and key)
//! watch       inotify, as a hint to read
//! reloader    the loop
//! generation  what a new connection needs, built and replaced as one
//! live        the newest generation and the live connections
//! results     problems, removed certificates and counters of the scans
//! ```
//!
//! Only a difference is published. A file that cannot be read or parsed makes none: its last good
//! content stays active, and it is a [`Problem`] until it is good again.

mod change;
mod expiry;
mod generation;
mod identity;
mod judge;
mod live;
mod loader;
#[cfg(feature = "cli")]
mod once;
mod probe;
mod problem;
mod read;
mod reloader;
mod removed;
mod results;
#[cfg(feature = "cli")]
mod socket;
mod source;
mod stamp;
mod state;
mod trust_file;
mod watch;

#[cfg(feature = "parts")]
pub(crate) use generation::Generation;
pub(crate) use identity::ServerIdentity;
#[cfg(feature = "acme")]
pub(crate) use judge::{INCOMPLETE_CHAIN, judge};
pub(crate) use live::{Admission, Current};
pub use loader::NotStartable;
pub(crate) use loader::{Loader, Material};
#[cfg(feature = "cli")]
pub(crate) use once::{read_chain, read_trust};
#[cfg(feature = "cli")]
pub(crate) use problem::log_problem;
pub use problem::{Problem, Severity};
pub(crate) use read::PemSource;
pub(crate) use reloader::{Reload, ReloadRequest};
pub(crate) use results::ScanResults;
#[cfg(feature = "cli")]
pub(crate) use socket::judge_socket;
pub use state::ReloadState;
#[cfg(all(feature = "cli", target_os = "linux"))]
pub(crate) use watch::directories;
