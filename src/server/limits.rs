//! The bounds of a connection's life.

use std::thread::available_parallelism;
use std::time::Duration;

use crate::server::accept::cidr::Cidr;

/// How many handshakes each core computes before other tasks run.
const HANDSHAKES_PER_CORE: usize = 4;

/// The bounds of a connection's life; `Config` documents each at its setter.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) handshake_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) head_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) max_connection_age: Option<Duration>,
    pub(crate) max_connections: usize,
    pub(crate) max_handshakes: usize,
    pub(crate) max_head_size: usize,
    pub(crate) max_headers: usize,
    pub(crate) max_streams: u32,
    pub(crate) max_resets: usize,
    pub(crate) max_stream_errors: usize,
    pub(crate) handshakes_at_once: usize,
    /// If set, every connection comes from these addresses and begins with a PROXY protocol header.
    pub(crate) proxy_protocol_from: Option<Vec<Cidr>>,
}

impl Default for Limits {
    fn default() -> Self {
        // Counted here: the sandbox hides the number of cores later.
        let cores = available_parallelism().map_or(1, usize::from);
        Self {
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(400),
            drain_timeout: Duration::from_secs(30),
            head_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            max_connection_age: None,
            max_connections: 10_000,
            max_handshakes: 4096,
            max_head_size: 32 << 10,
            max_headers: 100,
            max_streams: 100,
            max_resets: 100,
            max_stream_errors: 1024,
            handshakes_at_once: HANDSHAKES_PER_CORE * cores,
            proxy_protocol_from: None,
        }
    }
}
