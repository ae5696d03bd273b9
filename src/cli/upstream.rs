//! The flags of the service: an application behind a proxy, or the example's greeting.

use std::path::Path;
use std::time::Duration;

use clap::Args;

use super::headers::HeaderArgs;
use super::values::{api_id, at_least_one, duration, positive, size, zero_or_more};
use crate::Problem;
use crate::reload::judge_socket;
use crate::service::{Hello, Proxy, Upstream};

/// The service behind the server.
#[derive(Args, Debug)]
#[command(next_help_heading = "Upstream")]
pub(super) struct ServiceArgs {
    /// Forward requests to this application
    #[arg(
        long,
        value_name = "URL",
        env = "PORTCULLIS_UPSTREAM",
        long_help = "Forward requests to this application: http://HOST:PORT, or unix:/PATH of a \
                     socket. Without it the response to each request is hello world"
    )]
    pub(super) upstream: Option<Upstream>,

    /// Longest time to connect
    #[arg(long, value_name = "TIME", env = "PORTCULLIS_UPSTREAM_CONNECT_TIMEOUT",
          default_value = "5s", value_parser = positive)]
    pub(super) upstream_connect_timeout: Duration,

    /// Longest wait for a response
    #[arg(
        long,
        value_name = "TIME",
        env = "PORTCULLIS_UPSTREAM_TIMEOUT",
        default_value = "29s",
        value_parser = positive,
        long_help = "Longest wait for a response of the application, after the last byte of the \
                     request. API Gateway waits for 29s"
    )]
    pub(super) upstream_timeout: Duration,

    /// Time to keep idle connections
    #[arg(
        long,
        value_name = "TIME",
        env = "PORTCULLIS_UPSTREAM_IDLE_TIMEOUT",
        default_value = "4s",
        value_parser = duration,
        long_help = "Time to keep idle connections to the application. It must be shorter than the \
                     application's own, which is 5s for Node.js"
    )]
    pub(super) upstream_idle_timeout: Duration,

    /// Most connections
    #[arg(
        long,
        value_name = "N",
        env = "PORTCULLIS_UPSTREAM_MAX_CONNECTIONS",
        default_value = "1024",
        value_parser = at_least_one,
        long_help = "Most connections to the application, one for each request in flight"
    )]
    pub(super) upstream_max_connections: usize,

    /// Most requests that wait for one
    #[arg(
        long,
        value_name = "N",
        env = "PORTCULLIS_UPSTREAM_QUEUE",
        default_value = "1024",
        value_parser = zero_or_more,
        long_help = "Most requests that wait for a connection. The response to more is 503"
    )]
    pub(super) upstream_queue: usize,

    /// Largest request body
    #[arg(
        long,
        value_name = "SIZE",
        env = "PORTCULLIS_MAX_BODY",
        default_value = "10MiB",
        value_parser = size,
        help_heading = "Limits",
        long_help = "Largest request body: 500kB, 10MiB or 2GiB. The response to a larger one is 413"
    )]
    pub(super) max_body: u64,

    /// Accept requests of this API only
    #[arg(
        long,
        value_name = "ID",
        env = "PORTCULLIS_API_ID",
        value_delimiter = ',',
        value_parser = api_id,
        help_heading = "Trusted clients",
        long_help = "Accept requests of this API only, by its x-amzn-apigateway-api-id. The response \
                     to others is 403. Repeatable"
    )]
    pub(super) api_id: Vec<String>,

    /// The request headers that reach the application.
    #[command(flatten)]
    pub(super) headers: HeaderArgs,
}

impl ServiceArgs {
    /// The proxy that these flags describe, if they name an application.
    pub(super) fn proxy(&self, body_timeout: Duration) -> Option<Proxy> {
        let proxy = Proxy::new(self.upstream.clone()?)
            .connect_timeout(self.upstream_connect_timeout)
            .timeout(self.upstream_timeout)
            .body_timeout(body_timeout)
            .idle_timeout(self.upstream_idle_timeout)
            .max_connections(self.upstream_max_connections)
            .queue(self.upstream_queue)
            .max_body(self.max_body)
            .headers(self.headers.rules.clone());
        for header in self.headers.rules.passed() {
            tracing::info!(
                header = header.as_str(),
                remedy = "have the application treat it as unverified",
                "unverified_header_passed"
            );
        }
        Some(proxy)
    }

    /// Why no application can listen at the socket that the flags name.
    pub(super) fn socket_problem(&self) -> Option<Problem> {
        let upstream = self.upstream.as_ref()?.to_string();
        judge_socket(Path::new(upstream.strip_prefix("unix:")?))
    }

    /// The service if the flags name no application.
    pub(super) fn hello(&self, body_timeout: Duration) -> Hello {
        Hello::default().max_body(self.max_body).body_timeout(body_timeout)
    }
}
