//! API Gateway's control plane, as far as client certificates and stages go.
//!
//! Each call waits for its turn, is retried where that is safe, and returns plain data or one
//! [`CallError`]. The SDK itself never retries: it does not know `Retry-After`, nor which of these calls
//! create something.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region};
use aws_sdk_apigateway::Client;
use aws_sdk_apigateway::config::http::HttpResponse;
use aws_sdk_apigateway::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_apigateway::config::retry::RetryConfig;
use aws_sdk_apigateway::config::timeout::TimeoutConfig;
use aws_sdk_apigateway::config::{Builder, ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_apigateway::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_sdk_apigateway::types;
use tokio::time::sleep;

use super::error::{Call, CallError, ErrorKind};
use super::pace::{Pace, Repeat, delay};

/// The most that a page holds.
const PAGE: i32 = 500;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);
/// An integration may take 29 s, or longer where the quota is raised.
const INVOKE_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) type Tags = BTreeMap<String, String>;

/// A stage as `API_ID/STAGE`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct StageName {
    pub(crate) api: String,
    pub(crate) stage: String,
}

impl FromStr for StageName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((api, stage)) if !api.is_empty() && !stage.is_empty() && !stage.contains('/') => {
                Ok(Self { api: api.to_owned(), stage: stage.to_owned() })
            }
            _ => Err("write it as API_ID/STAGE, for example a1b2c3d4e5/prod".to_owned()),
        }
    }
}

impl fmt::Display for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.api, self.stage)
    }
}

/// A client certificate that API Gateway generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    pub(crate) id: String,
    pub(crate) description: Option<String>,
    /// As the API has it: CR LF, no final newline.
    pub(crate) pem: String,
    pub(crate) created: Option<SystemTime>,
    pub(crate) expires: Option<SystemTime>,
    /// `None` where the response carries no tags, which does not mean that there are none.
    pub(crate) tags: Option<Tags>,
}

/// What a stage presents and serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) name: StageName,
    /// The id of a client certificate, or the ARN of an ACM certificate.
    pub(crate) client_certificate: Option<String>,
    pub(crate) deployment: Option<String>,
}

impl Stage {
    /// The ARN of the ACM certificate that it presents.
    pub(crate) fn acm_arn(&self) -> Option<&str> {
        self.client_certificate.as_deref().filter(|id| id.starts_with("arn:"))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RestApi {
    pub(crate) id: String,
    pub(crate) name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    pub(crate) id: String,
    pub(crate) path: String,
    pub(crate) methods: Vec<String>,
}

/// What TestInvokeMethod reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invocation {
    pub(crate) status: i32,
    pub(crate) body: String,
    pub(crate) log: String,
}

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

    /// The complete list, or an error.
    pub(crate) async fn list_certificates(&self) -> Result<Vec<ClientCertificate>, CallError> {
        let call = Call::new("GET", "/clientcertificates");
        let found = self
            .pages(&call, async |position| {
                let page = self
                    .call(&call, Repeat::Idempotent, || {
                        let request = self.client.get_client_certificates().limit(PAGE);
                        request.set_position(position.clone()).send()
                    })
                    .await?;
                Ok((page.items.unwrap_or_default(), page.position))
            })
            .await?;
        found.into_iter().map(|found| certificate(&call, found)).collect()
    }

    pub(crate) async fn certificate(&self, id: &str) -> Result<ClientCertificate, CallError> {
        let call = Call::new("GET", format!("/clientcertificates/{id}"));
        let found = self
            .call(&call, Repeat::Idempotent, || {
                self.client.get_client_certificate().client_certificate_id(id).send()
            })
            .await?;
        certificate(
            &call,
            types::ClientCertificate::builder()
                .set_client_certificate_id(found.client_certificate_id)
                .set_description(found.description)
                .set_pem_encoded_certificate(found.pem_encoded_certificate)
                .set_created_date(found.created_date)
                .set_expiration_date(found.expiration_date)
                .set_tags(found.tags)
                .build(),
        )
    }

    pub(crate) async fn certificate_tags(&self, id: &str) -> Result<Tags, CallError> {
        let arn = self.certificate_arn(id);
        let call = Call::new("GET", format!("/tags/{arn}"));
        let found = self
            .call(&call, Repeat::Idempotent, || self.client.get_tags().resource_arn(&arn).send())
            .await?;
        Ok(found.tags.unwrap_or_default().into_iter().collect())
    }

    /// Creates a certificate with its tags in one call, which is repeated only after throttling.
    ///
    /// After an [ambiguous](ErrorKind::is_ambiguous) error the certificate may exist: read the list until
    /// it settles before another try. [`ErrorKind::LimitExceeded`] means a full account, or the rate:
    /// the list tells them apart.
    pub(crate) async fn generate_certificate(
        &self,
        description: &str,
        tags: &Tags,
    ) -> Result<ClientCertificate, CallError> {
        let call = Call::new("POST", "/clientcertificates");
        let made = self
            .call(&call, Repeat::IfWithoutEffect, || {
                let tags = tags.clone().into_iter().collect();
                let request = self.client.generate_client_certificate().set_tags(Some(tags));
                request.description(description).send()
            })
            .await?;
        certificate(
            &call,
            types::ClientCertificate::builder()
                .set_client_certificate_id(made.client_certificate_id)
                .set_description(made.description)
                .set_pem_encoded_certificate(made.pem_encoded_certificate)
                .set_created_date(made.created_date)
                .set_expiration_date(made.expiration_date)
                .set_tags(made.tags)
                .build(),
        )
    }

    /// Adds tags to those that are there.
    pub(crate) async fn tag_certificate(&self, id: &str, tags: &Tags) -> Result<(), CallError> {
        let arn = self.certificate_arn(id);
        let call = Call::new("PUT", format!("/tags/{arn}"));
        self.call(&call, Repeat::Idempotent, || {
            let tags = tags.clone().into_iter().collect();
            self.client.tag_resource().resource_arn(&arn).set_tags(Some(tags)).send()
        })
        .await
        .map(drop)
    }

    /// Deletes a certificate. One that is gone already counts as deleted: an earlier attempt may have
    /// lost its response.
    pub(crate) async fn delete_certificate(&self, id: &str) -> Result<(), CallError> {
        let call = Call::new("DELETE", format!("/clientcertificates/{id}"));
        let deleted = self
            .call(&call, Repeat::Idempotent, || {
                self.client.delete_client_certificate().client_certificate_id(id).send()
            })
            .await;
        match deleted {
            Err(error) if error.kind != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    pub(crate) async fn list_apis(&self) -> Result<Vec<RestApi>, CallError> {
        let call = Call::new("GET", "/restapis");
        let found = self
            .pages(&call, async |position| {
                let page = self
                    .call(&call, Repeat::Idempotent, || {
                        let request = self.client.get_rest_apis().limit(PAGE);
                        request.set_position(position.clone()).send()
                    })
                    .await?;
                Ok((page.items.unwrap_or_default(), page.position))
            })
            .await?;
        let api = |found: types::RestApi| {
            let id = found.id.ok_or_else(|| without(&call, "id"))?;
            Ok(RestApi { id, name: found.name.unwrap_or_default() })
        };
        found.into_iter().map(api).collect()
    }

    pub(crate) async fn list_stages(&self, api: &str) -> Result<Vec<Stage>, CallError> {
        let call = Call::new("GET", format!("/restapis/{api}/stages"));
        let found = self
            .call(&call, Repeat::Idempotent, || self.client.get_stages().rest_api_id(api).send())
            .await?;
        let stage = |found: types::Stage| {
            let stage = found.stage_name.ok_or_else(|| without(&call, "stageName"))?;
            Ok(Stage {
                name: StageName { api: api.to_owned(), stage },
                client_certificate: found.client_certificate_id.filter(|id| !id.is_empty()),
                deployment: found.deployment_id,
            })
        };
        found.item.unwrap_or_default().into_iter().map(stage).collect()
    }

    pub(crate) async fn stage(&self, name: &StageName) -> Result<Stage, CallError> {
        let call = Call::new("GET", stage_path(name));
        let found = self
            .call(&call, Repeat::Idempotent, || {
                self.client.get_stage().rest_api_id(&name.api).stage_name(&name.stage).send()
            })
            .await?;
        Ok(Stage {
            name: name.clone(),
            client_certificate: found.client_certificate_id.filter(|id| !id.is_empty()),
            deployment: found.deployment_id,
        })
    }

    /// Has a stage present this certificate. Only a later [`stage`](Self::stage) confirms it.
    pub(crate) async fn set_stage_certificate(
        &self,
        name: &StageName,
        id: &str,
    ) -> Result<(), CallError> {
        self.replace_in_stage(name, "/clientCertificateId", id).await
    }

    /// Sets the deployment of a stage; its own one again has it deployed anew, unchanged.
    pub(crate) async fn set_stage_deployment(
        &self,
        name: &StageName,
        deployment: &str,
    ) -> Result<(), CallError> {
        self.replace_in_stage(name, "/deploymentId", deployment).await
    }

    async fn replace_in_stage(
        &self,
        name: &StageName,
        path: &str,
        value: &str,
    ) -> Result<(), CallError> {
        let call = Call::new("PATCH", stage_path(name));
        self.call(&call, Repeat::Idempotent, || {
            let operation = types::PatchOperation::builder()
                .op(types::Op::Replace)
                .path(path)
                .value(value)
                .build();
            let request = self.client.update_stage().rest_api_id(&name.api);
            request.stage_name(&name.stage).patch_operations(operation).send()
        })
        .await
        .map(drop)
    }

    /// Publishes the API as it is being edited to a stage.
    pub(crate) async fn create_deployment(
        &self,
        name: &StageName,
        description: &str,
    ) -> Result<(), CallError> {
        let call = Call::new("POST", format!("/restapis/{}/deployments", name.api));
        self.call(&call, Repeat::IfWithoutEffect, || {
            let request = self.client.create_deployment().rest_api_id(&name.api);
            request.stage_name(&name.stage).description(description).send()
        })
        .await
        .map(drop)
    }

    pub(crate) async fn list_resources(&self, api: &str) -> Result<Vec<Resource>, CallError> {
        let call = Call::new("GET", format!("/restapis/{api}/resources"));
        let found = self
            .pages(&call, async |position| {
                let page = self
                    .call(&call, Repeat::Idempotent, || {
                        let request = self.client.get_resources().rest_api_id(api).limit(PAGE);
                        request.set_position(position.clone()).send()
                    })
                    .await?;
                Ok((page.items.unwrap_or_default(), page.position))
            })
            .await?;
        let resource = |found: types::Resource| {
            let methods = found.resource_methods.unwrap_or_default().into_keys().collect();
            let id = found.id.ok_or_else(|| without(&call, "id"))?;
            let path = found.path.ok_or_else(|| without(&call, "path"))?;
            Ok(Resource { id, path, methods })
        };
        found.into_iter().map(resource).collect()
    }

    /// Calls the application through a method's integration, with this certificate.
    pub(crate) async fn test_invoke(
        &self,
        api: &str,
        resource: &str,
        method: &str,
        path: &str,
        certificate: &str,
    ) -> Result<Invocation, CallError> {
        let path_called = format!("/restapis/{api}/resources/{resource}/methods/{method}");
        let call = Call::new("POST", path_called);
        let done = self
            .call(&call, Repeat::IfWithoutEffect, || {
                let request = self.client.test_invoke_method().rest_api_id(api);
                let request = request.resource_id(resource).http_method(method);
                let request = request.path_with_query_string(path);
                let patient = Builder::new().timeout_config(timeouts(INVOKE_TIMEOUT));
                request
                    .client_certificate_id(certificate)
                    .customize()
                    .config_override(patient)
                    .send()
            })
            .await?;
        let (body, log) = (done.body.unwrap_or_default(), done.log.unwrap_or_default());
        Ok(Invocation { status: done.status, body, log })
    }

    fn certificate_arn(&self, id: &str) -> String {
        let partition = match self.region.as_str() {
            region if region.starts_with("cn-") => "aws-cn",
            region if region.starts_with("us-gov-") => "aws-us-gov",
            region if region.starts_with("us-iso-") => "aws-iso",
            region if region.starts_with("us-isob-") => "aws-iso-b",
            _ => "aws",
        };
        format!("arn:{partition}:apigateway:{}::/clientcertificates/{id}", self.region)
    }

    /// Sends a call in its turn, and again as far as its failures allow.
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

fn stage_path(name: &StageName) -> String {
    format!("/restapis/{}/stages/{}", name.api, name.stage)
}

fn without(call: &Call, field: &str) -> CallError {
    call.error(ErrorKind::Incomplete, format!("an item without {field}"))
}

fn certificate(
    call: &Call,
    found: types::ClientCertificate,
) -> Result<ClientCertificate, CallError> {
    Ok(ClientCertificate {
        id: found.client_certificate_id.ok_or_else(|| without(call, "clientCertificateId"))?,
        description: found.description,
        pem: found.pem_encoded_certificate.ok_or_else(|| without(call, "pemEncodedCertificate"))?,
        created: found.created_date.and_then(|date| date.try_into().ok()),
        expires: found.expiration_date.and_then(|date| date.try_into().ok()),
        tags: found.tags.map(|tags| tags.into_iter().collect()),
    })
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
