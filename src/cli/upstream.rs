//! The flags about what answers: a greeting, or an application behind a proxy.

use std::time::Duration;

use clap::Args;

use super::{at_least_one, duration, positive, size};
use crate::service::{Hello, Proxy, Upstream};

/// What answers, and whom.
#[derive(Args, Debug)]
pub struct ServiceArgs {
    /// The application that requests are passed on to: http://HOST:PORT, or unix:/path of a socket.
    /// Without it each is answered `hello world`
    #[arg(long, value_name = "URL", env = "PORTCULLIS_UPSTREAM")]
    pub upstream: Option<Upstream>,

    /// How long it may take to connect to the application
    #[arg(long, value_name = "DURATION", env = "PORTCULLIS_UPSTREAM_CONNECT_TIMEOUT",
          default_value = "5s", value_parser = positive)]
    pub upstream_connect_timeout: Duration,

    /// How long the application may take to begin its answer, after the request or the last piece
    /// of its body; API Gateway waits for 29s
    #[arg(long, value_name = "DURATION", env = "PORTCULLIS_UPSTREAM_TIMEOUT",
          default_value = "29s", value_parser = positive)]
    pub upstream_timeout: Duration,

    /// For how long an idle connection to the application is kept: shorter than the application
    /// keeps it, which is 5s for Node.js
    #[arg(long, value_name = "DURATION", env = "PORTCULLIS_UPSTREAM_IDLE_TIMEOUT",
          default_value = "4s", value_parser = duration)]
    pub upstream_idle_timeout: Duration,

    /// How many connections to the application there may be, one for each request in progress
    #[arg(long, value_name = "N", env = "PORTCULLIS_UPSTREAM_MAX_CONNECTIONS",
          default_value = "1024", value_parser = at_least_one)]
    pub upstream_max_connections: usize,

    /// How many requests may wait for one; those past it are answered 503
    #[arg(long, value_name = "N", env = "PORTCULLIS_UPSTREAM_QUEUE", default_value = "1024")]
    pub upstream_queue: usize,

    /// How large a request's body may be: 500kB, 10MiB, 2GiB; 413 past it
    #[arg(long, value_name = "SIZE", env = "PORTCULLIS_MAX_BODY",
          default_value = "10MiB", value_parser = size)]
    pub max_body: u64,

    /// Let only requests of this API through, by its x-amzn-apigateway-api-id; 403 for others.
    /// Repeatable
    #[arg(long, value_name = "ID", env = "PORTCULLIS_API_ID", value_delimiter = ',')]
    pub api_id: Vec<String>,
}

impl ServiceArgs {
    /// The proxy that these flags describe, if they name an application.
    pub fn proxy(&self, body_timeout: Duration) -> Option<Proxy> {
        let proxy = Proxy::new(self.upstream.clone()?)
            .connect_timeout(self.upstream_connect_timeout)
            .timeout(self.upstream_timeout)
            .body_timeout(body_timeout)
            .idle_timeout(self.upstream_idle_timeout)
            .max_connections(self.upstream_max_connections)
            .queue(self.upstream_queue)
            .max_body(self.max_body);
        Some(proxy)
    }

    /// What answers where they name none.
    pub fn hello(&self, body_timeout: Duration) -> Hello {
        Hello::default().max_body(self.max_body).body_timeout(body_timeout)
    }
}
