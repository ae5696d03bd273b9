//! The flags of `serve` for timeouts, limits and shutdown.

use std::time::Duration;

use clap::Args;

use crate::cli::values::{at_least_one, boolean, duration, head_size, positive, streams};

#[derive(Args, Debug)]
#[command(next_help_heading = "Timeouts")]
pub(in crate::cli) struct Timeouts {
    /// Longest TLS handshake
    #[arg(long, value_name = "TIME", env = "PORTCULLIS_HANDSHAKE_TIMEOUT",
          default_value = "10s", value_parser = positive)]
    pub(in crate::cli) handshake_timeout: Duration,

    /// Longest time to receive a request head
    #[arg(
        long,
        value_name = "TIME",
        env = "PORTCULLIS_HEAD_TIMEOUT",
        default_value = "30s",
        value_parser = positive,
        long_help = "Longest time to receive a request head, from its first byte, or from the \
                     handshake for the first head of a connection"
    )]
    pub(in crate::cli) head_timeout: Duration,

    /// Longest pause within a request body
    #[arg(
        long,
        value_name = "TIME",
        env = "PORTCULLIS_BODY_TIMEOUT",
        default_value = "30s",
        value_parser = positive,
        long_help = "Longest pause within a request body. The response is then 408"
    )]
    pub(in crate::cli) body_timeout: Duration,

    /// Longest pause of a client that reads
    #[arg(
        long,
        value_name = "TIME",
        env = "PORTCULLIS_WRITE_TIMEOUT",
        default_value = "60s",
        value_parser = positive,
        long_help = "Close a connection whose client reads nothing of a response for this long"
    )]
    pub(in crate::cli) write_timeout: Duration,

    /// Longest time without a request
    #[arg(
        long,
        value_name = "TIME",
        env = "PORTCULLIS_IDLE_TIMEOUT",
        default_value = "400s",
        value_parser = positive,
        long_help = "Close a connection that has had no request for this long. API Gateway and \
                     network load balancers keep idle connections for about six minutes"
    )]
    pub(in crate::cli) idle_timeout: Duration,

    /// Longest life of a connection
    #[arg(
        long,
        value_name = "TIME",
        env = "PORTCULLIS_MAX_CONNECTION_AGE",
        value_parser = positive,
        long_help = "Longest life of a connection. It then finishes its requests in flight and \
                     closes. The default is the end of the client certificate"
    )]
    pub(in crate::cli) max_connection_age: Option<Duration>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Limits")]
pub(in crate::cli) struct Limits {
    /// Most admitted connections
    #[arg(long, value_name = "N", env = "PORTCULLIS_MAX_CONNECTIONS",
          default_value = "10000", value_parser = at_least_one)]
    pub(in crate::cli) max_connections: usize,

    /// Most connections in the handshake
    #[arg(
        long,
        value_name = "N",
        env = "PORTCULLIS_MAX_HANDSHAKES",
        default_value = "4096",
        value_parser = at_least_one,
        long_help = "Most connections in the handshake. When the limit is reached, the oldest one is \
                     dropped: a silent one, unless most have begun their handshake"
    )]
    pub(in crate::cli) max_handshakes: usize,

    /// Most handshakes computed at once
    #[arg(
        long,
        value_name = "N",
        env = "PORTCULLIS_HANDSHAKES_AT_ONCE",
        value_parser = at_least_one,
        long_help = "Most handshakes computed at once, so that requests are served in between. The \
                     default is 4 for each core"
    )]
    pub(in crate::cli) handshakes_at_once: Option<usize>,

    /// Largest request head
    #[arg(
        long,
        value_name = "SIZE",
        env = "PORTCULLIS_MAX_HEAD_SIZE",
        default_value = "32KiB",
        value_parser = head_size,
        long_help = "Largest request head. The response to a larger one is 431"
    )]
    pub(in crate::cli) max_head_size: u64,

    /// Most header lines of a request
    #[arg(
        long,
        value_name = "N",
        env = "PORTCULLIS_MAX_HEADERS",
        default_value = "100",
        value_parser = at_least_one,
        long_help = "Most header lines of a request. The response to more is 431"
    )]
    pub(in crate::cli) max_headers: usize,

    /// Most HTTP/2 requests in flight
    #[arg(
        long,
        value_name = "N",
        env = "PORTCULLIS_MAX_STREAMS",
        default_value = "100",
        value_parser = streams,
        long_help = "Most requests in flight on one HTTP/2 connection"
    )]
    pub(in crate::cli) max_streams: u32,

    /// Most HTTP/2 requests reset early
    #[arg(
        long,
        value_name = "N",
        env = "PORTCULLIS_MAX_RESETS",
        default_value = "100",
        value_parser = at_least_one,
        long_help = "Most requests of one HTTP/2 connection that its client resets before they are \
                     read. One more closes the connection"
    )]
    pub(in crate::cli) max_resets: usize,

    /// Most HTTP/2 stream errors
    #[arg(
        long,
        value_name = "N",
        env = "PORTCULLIS_MAX_STREAM_ERRORS",
        default_value = "1024",
        value_parser = at_least_one,
        long_help = "Most requests of one HTTP/2 connection that violate the protocol. One more \
                     closes the connection"
    )]
    pub(in crate::cli) max_stream_errors: usize,

    /// Keep access to all files and ports
    #[arg(
        long,
        env = "PORTCULLIS_NO_SANDBOX",
        value_parser = boolean,
        long_help = "Keep access to files and ports that these flags do not name. Without it \
                     Landlock takes that access away at start, where the kernel has it"
    )]
    pub(in crate::cli) no_sandbox: bool,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Shutdown")]
pub(in crate::cli) struct Shutdown {
    /// Time to go on accepting after SIGTERM
    #[arg(
        long,
        value_name = "TIME",
        env = "PORTCULLIS_SHUTDOWN_DELAY",
        default_value = "0s",
        value_parser = duration,
        long_help = "Time to go on accepting after SIGTERM, each response with Connection: close, \
                     until load balancers send no more"
    )]
    pub(in crate::cli) shutdown_delay: Duration,

    /// Time to finish requests in flight
    #[arg(
        long,
        value_name = "TIME",
        env = "PORTCULLIS_DRAIN_TIMEOUT",
        default_value = "30s",
        value_parser = duration,
        long_help = "Time to finish requests in flight, after that delay or when their certificate \
                     is removed. The rest is aborted"
    )]
    pub(in crate::cli) drain_timeout: Duration,
}
