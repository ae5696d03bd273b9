//! What `parts` and `instructions` share.

use std::path::PathBuf;

use http::{HeaderMap, HeaderName, HeaderValue, Request, request};
use portcullis::parts::Gate;
use rustls::pki_types::{CertificateDer, UnixTime};

use crate::certs;

/// A directory of certificates.
pub struct Bench(pub PathBuf);

impl Bench {
    /// Makes them, with trust directories of so many.
    pub fn make(&self, counts: &[usize]) {
        certs::make(&self.0);
        counts.iter().for_each(|count| certs::trusted(&self.0, *count));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn client(&self) -> CertificateDer<'static> {
        certs::der(&self.0, "client")
    }

    /// One that trusts so many, the client among them.
    pub fn gate(&self, count: usize) -> Gate {
        let trust = self.path(&format!("trusted-{count}"));
        Gate::load(&self.path("server.pem"), &self.path("server-key.pem"), &trust).unwrap()
    }
}

pub fn now() -> UnixTime {
    UnixTime::now()
}

/// A request as API Gateway passes it on.
pub fn request() -> request::Parts {
    let request = Request::get("/prod/orders?id=7")
        .header("host", "backend.example.com")
        .header("user-agent", "AmazonAPIGateway_a1b2c3d4e5")
        .header("accept", "application/json")
        .header("accept-encoding", "gzip,deflate")
        .header("authorization", "Bearer abcdef0123456789")
        .header("content-type", "application/json")
        .header("x-forwarded-for", "203.0.113.9")
        .header("x-forwarded-port", "443")
        .header("x-forwarded-proto", "https")
        .header("x-amzn-trace-id", "Root=1-67891233-abcdef012345678912345678")
        .header("x-amzn-apigateway-api-id", "a1b2c3d4e5")
        .header("connection", "Keep-Alive");
    request.body(()).unwrap().into_parts().0
}

/// The headers of an application's response.
pub fn response() -> HeaderMap {
    let all = [
        ("content-type", "application/json"),
        ("content-length", "12"),
        ("cache-control", "no-store"),
        ("date", "Mon, 23 Nov 2026 01:56:30 GMT"),
        ("connection", "keep-alive"),
        ("keep-alive", "timeout=5"),
    ];
    let header = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    all.into_iter().map(header).collect()
}
