//! API Gateway's control plane, as far as client certificates and stages go.
//!
//! Each call waits for its turn, is retried where that is safe, and returns plain data or one
//! [`CallError`]. The SDK itself never retries: it does not know `Retry-After`, nor which of these calls
//! create something.

mod certificates;
mod model;
mod stages;

use std::error::Error;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
use aws_sdk_apigateway::Client;
use aws_sdk_apigateway::config::http::HttpResponse;
use aws_sdk_apigateway::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_apigateway::config::retry::RetryConfig;
use aws_sdk_apigateway::config::timeout::TimeoutConfig;
use aws_sdk_apigateway::config::{Builder, ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_apigateway::error::{BoxError, ProvideErrorMetadata, SdkError};
use tokio::time::sleep;

use super::error::{Call, CallError, ErrorKind};
use super::pace::{Pace, Repeat, delay};
pub(crate) use model::{ClientCertificate, Invocation, Resource, RestApi, Stage, StageName, Tags};

/// The most that a page holds.
const PAGE: i32 = 500;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);
/// An integration may take 29 s, or longer where the quota is raised.
const INVOKE_TIMEOUT: Duration = Duration::from_secs(60);

/// A client of one account and region.
#[derive(Clone, Debug)]
pub(crate) struct ControlPlane {
    client: Client,
    region: String,
    endpoint: Arc<OnceLock<String>>,
    pace: Arc<Pace>,
}

impl ControlPlane {
    /// Reads the SDK's variables and profiles. No call is made yet.
    ///
    /// # Errors
    /// [`ErrorKind::NoRegion`].
    pub(crate) async fn new(
        region: Option<&str>,
        profile: Option<&str>,
    ) -> Result<Self, CallError> {
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        if let Some(region) = region {
            loader = loader.region(Region::new(region.to_owned()));
        }
        if let Some(profile) = profile {
            loader = loader.profile_name(profile);
        }
        let shared = loader.load().await;
        let Some(region) = shared.region().map(ToString::to_string) else {
            let error = Call::new("", "").error(ErrorKind::NoRegion, "no AWS region is set");
            return Err(error);
        };
        let endpoint = Arc::new(OnceLock::new());
        let config = Builder::from(&shared)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts(ATTEMPT_TIMEOUT))
            .interceptor(EndpointRecorder(Arc::clone(&endpoint)))
            .build();
        let client = Client::from_conf(config);
        Ok(Self { client, region, endpoint, pace: Arc::default() })
    }

    pub(crate) fn region(&self) -> &str {
        &self.region
    }

    /// The origin that calls go to, as `https://host`; empty before the first call.
    pub(crate) fn endpoint(&self) -> &str {
        self.endpoint.get().map_or("", String::as_str)
    }

    /// Sends a call at the process's pace, and repeats it where its failures allow.
    async fn call<T, E, F>(
        &self,
        call: &Call,
        repeat: Repeat,
        send: impl Fn() -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + Error + 'static,
    {
        let mut attempt = 1;
        loop {
            self.pace.wait().await;
            let error = match send().await {
                Ok(response) => return Ok(response),
                Err(error) => CallError::of(call, &error),
            };
            let Some(delay) = delay(repeat, attempt, &error) else { return Err(error) };
            tracing::debug!(%error, attempt, "call_repeated");
            sleep(delay).await;
            attempt += 1;
        }
    }

    /// Reads every page of a list.
    async fn pages<T>(
        &self,
        call: &Call,
        page: impl AsyncFn(Option<String>) -> Result<(Vec<T>, Option<String>), CallError>,
    ) -> Result<Vec<T>, CallError> {
        let (mut all, mut positions) = (Vec::new(), Vec::new());
        let mut position = None;
        loop {
            let (items, next) = page(position).await?;
            all.extend(items);
            match next.filter(|next| !next.is_empty()) {
                None => return Ok(all),
                Some(next) if positions.contains(&next) => {
                    return Err(call.error(ErrorKind::Incomplete, "the list has no end"));
                }
                Some(next) => {
                    positions.push(next.clone());
                    position = Some(next);
                }
            }
        }
    }
}

fn timeouts(attempt: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(attempt)
        .build()
}

fn without(call: &Call, field: &str) -> CallError {
    call.error(ErrorKind::Incomplete, format!("an item without {field}"))
}

/// Remembers where calls go: the SDK resolves it from several sources, and does not publish it.
#[derive(Debug)]
struct EndpointRecorder(Arc<OnceLock<String>>);

impl Intercept for EndpointRecorder {
    fn name(&self) -> &'static str {
        "EndpointRecorder"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.get_or_init(|| origin(context.request().uri()));
        Ok(())
    }
}

fn origin(uri: &str) -> String {
    let uri: Result<http::Uri, _> = uri.parse();
    let uri = uri.unwrap_or_default();
    let scheme = uri.scheme_str().unwrap_or_default();
    format!("{scheme}://{}", uri.authority().map(ToString::to_string).unwrap_or_default())
}
