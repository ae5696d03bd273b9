//! The access that a process keeps in its sandbox.

use std::path::PathBuf;

/// What the process needs from here on.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct Access {
    /// Files and directories, to read.
    pub(in crate::cli) read: Vec<PathBuf>,
    /// Directories, to keep files in.
    pub(in crate::cli) write: Vec<PathBuf>,
    /// TCP ports, to connect to.
    pub(in crate::cli) connect: Vec<u16>,
    /// Whether names of hosts are looked up.
    pub(in crate::cli) resolves: bool,
    /// Whether the process measures itself, for its metrics.
    pub(in crate::cli) metrics: bool,
}
