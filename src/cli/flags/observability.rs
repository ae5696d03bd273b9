//! What `serve` reports, and where.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};

use crate::cli::log_filter::LogFilter;
use crate::cli::values::{admin_address, host_name};

#[derive(Args, Debug)]
#[command(next_help_heading = "Observability")]
pub(in crate::cli) struct Observability {
    /// Serve health, metrics and status here
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "PORTCULLIS_ADMIN",
        value_parser = admin_address,
        long_help = "Serve /livez, /readyz, /metrics, /status and a status page on this address. \
                     Plain HTTP, for this machine or the pod's network only. Port 0 lets the system \
                     choose"
    )]
    pub(in crate::cli) admin: Option<SocketAddr>,

    /// Accept this Host on that address
    #[arg(
        long,
        value_name = "NAME",
        env = "PORTCULLIS_ADMIN_HOST",
        value_delimiter = ',',
        value_parser = host_name,
        long_help = "Accept this name in the Host header of requests to --admin, besides addresses, \
                     names without a dot, and names under .svc, .cluster.local and .internal. \
                     Repeatable"
    )]
    pub(in crate::cli) admin_host: Vec<String>,

    #[command(flatten)]
    pub(in crate::cli) log: LogFlags,

    /// Log each request
    #[arg(
        long,
        value_name = "SWITCH",
        env = "PORTCULLIS_ACCESS_LOG",
        default_value = "on",
        hide_possible_values = true,
        long_help = "Log each request: on or off. The level is info, the target portcullis::access"
    )]
    pub(in crate::cli) access_log: Switch,
}

/// The flags of the log, for every command that has one.
#[derive(Args, Debug)]
#[command(next_help_heading = "Observability")]
pub(in crate::cli) struct LogFlags {
    /// Levels to log
    #[arg(
        long,
        value_name = "FILTER",
        env = "PORTCULLIS_LOG",
        default_value = "info",
        long_help = "Levels to log: one of off, error, warn, info, debug and trace, and others for \
                     single targets, as in warn,portcullis::server=debug"
    )]
    pub(in crate::cli) log: LogFilter,

    /// Format of the log: text or json
    #[arg(
        long,
        value_name = "FORMAT",
        env = "PORTCULLIS_LOG_FORMAT",
        default_value = "text",
        hide_possible_values = true,
        long_help = "Format of the log: text, or json with one object a line. It is written to \
                     standard error"
    )]
    pub(in crate::cli) log_format: LogFormat,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Switch {
    On,
    Off,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum LogFormat {
    Text,
    Json,
}
