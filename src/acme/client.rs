//! The HTTP client for the directory: HTTPS only, no redirects, bounded responses.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, DATE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use crate::server::provider;
use crate::trust::pem;

/// How long one request may take, its response included.
const REQUEST: Duration = Duration::from_secs(20);
/// The largest response that is taken: a chain is a few KiB.
const LARGEST: usize = 1 << 20;
/// The interval of RFC 9773 (4.3.3) for a directory that sends no `Retry-After`.
const ARI_INTERVAL: HeaderValue = HeaderValue::from_static("21600");
/// The difference between two clocks that an operator should know of.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// An HTTP client for one order: orders are days apart.
#[derive(Clone)]
pub(super) struct Http {
    client: Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>,
    notes: Arc<Mutex<Notes>>,
}

/// Headers of responses that instant-acme does not pass on.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    /// When to try again, from an error response.
    pub(super) retry_after: Option<SystemTime>,
    /// The directory's clock, where it is far from ours.
    pub(super) other_clock: Option<SystemTime>,
}

/// Why a response is unusable.
#[derive(Debug)]
struct Unusable(String);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Unusable {}

impl Http {
    pub(super) fn new(roots: RootCertStore) -> Result<Self, rustls::Error> {
        let tls = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            notes: Arc::default(),
        })
    }

    /// The notes since the last call.
    pub(super) fn take_notes(&self) -> Notes {
        std::mem::take(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn exchange(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let is_get = request.method() == Method::GET;
        let uri = request.uri().clone();
        let exchange = async {
            let response = self.client.request(request).await;
            let response =
                response.map_err(|error| unusable(format!("{uri}: {}", describe(&error))))?;
            let (parts, body) = response.into_parts();
            self.note(parts.status.is_success(), &parts.headers);
            let body = Limited::new(body, LARGEST).collect().await.map_err(Error::Other)?;
            Ok::<_, Error>((parts, body.to_bytes()))
        };
        let (mut parts, body) = timeout(REQUEST, exchange)
            .await
            .map_err(|_| unusable(format!("{uri} sent no whole response within {REQUEST:?}")))??;
        if parts.status.is_redirection() {
            let target = parts.headers.get(LOCATION).and_then(|target| target.to_str().ok());
            let target = target.unwrap_or("another URL");
            return Err(unusable(format!(
                "{uri} redirects to {target}: give the URL of the directory itself"
            )));
        }
        let media_type = media_type(&parts.headers);
        let is_json = media_type.ends_with("json");
        let is_expected =
            if parts.status.is_success() { media_type != "text/html" } else { is_json };
        if !is_expected {
            let status = parts.status.as_u16();
            return Err(unusable(format!(
                "{uri} sent {status} with {media_type:?}: it is no ACME directory, or something \
                 stands before it"
            )));
        }
        if is_get && parts.status.is_success() {
            parts.headers.entry(RETRY_AFTER).or_insert(ARI_INTERVAL);
        }
        Ok(BytesResponse::from(Response::from_parts(parts, Full::new(body))))
    }

    fn note(&self, is_success: bool, headers: &HeaderMap) {
        let now = SystemTime::now();
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        if !is_success && let Some(value) = text(RETRY_AFTER) {
            notes.retry_after = retry_after(value, now);
        }
        let clock = text(DATE).and_then(|date| httpdate::parse_http_date(date).ok());
        let is_far = |clock: &SystemTime| {
            let apart = clock.duration_since(now).unwrap_or_else(|error| error.duration());
            apart > CLOCK_SKEW
        };
        notes.other_clock = clock.filter(is_far).or(notes.other_clock);
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        Box::pin(self.clone().exchange(request))
    }
}

fn unusable(problem: String) -> Error {
    Error::Other(Box::new(Unusable(problem)))
}

fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Seconds, or a date. (RFC 9110, 10.2.3)
fn retry_after(value: &str, now: SystemTime) -> Option<SystemTime> {
    match value.trim().parse::<u32>() {
        Ok(seconds) => now.checked_add(Duration::from_secs(seconds.into())),
        Err(_) => httpdate::parse_http_date(value).ok(),
    }
}

/// An error with its causes: hyper's own text names only the place.
pub(super) fn describe(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

/// The CAs that the directory's own certificate may come from: those of this file, or the system's.
pub(super) fn roots(file: Option<&Path>) -> Result<RootCertStore, (String, &'static str)> {
    let mut roots = RootCertStore::empty();
    let Some(file) = file else {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        return match roots.is_empty() {
            false => Ok(roots),
            true => Err((
                "this machine has no CA certificates to verify the ACME directory with".to_owned(),
                "install the package ca-certificates, or give the directory's CA with --acme-ca",
            )),
        };
    };
    const REMEDY: &str = "give a PEM file of the CA that issued the directory's own certificate";
    let named = |problem: String| (format!("--acme-ca {}: {problem}", file.display()), REMEDY);
    let bytes = std::fs::read(file).map_err(|error| named(error.to_string()))?;
    let (certificates, errors) = pem::certificates(&bytes);
    if let Some(error) = errors.first() {
        let line = error.line.map(|line| format!("line {line}: ")).unwrap_or_default();
        return Err(named(format!("{line}{}", error.kind)));
    }
    for (line, der) in certificates {
        roots.add(der).map_err(|error| named(format!("line {line}: {error}")))?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Thu, 26 Nov 2026 12:00:00 GMT").unwrap();
        let later = Some(now + Duration::from_secs(120));
        assert_eq!(retry_after("120", now), later);
        assert_eq!(retry_after("Thu, 26 Nov 2026 12:02:00 GMT", now), later);
        for nonsense in ["", "soon", "-5", "1e9"] {
            assert_eq!(retry_after(nonsense, now), None, "{nonsense}");
        }
    }

    #[test]
    fn an_error_is_described_with_its_causes() {
        let inner = std::io::Error::other(Unusable("the reason".to_owned()));
        let outer = std::io::Error::other(inner);
        assert_eq!(describe(&outer), "the reason");
    }
}
