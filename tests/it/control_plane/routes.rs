//! The operations, as botocore's model has them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Method;
use serde_json::{Map, Value, json};

use super::account::{Account, Api, Certificate, QUOTA};
use super::faults::{Fault, Settings};
use super::server::Reply;
use super::{REGION, State, stages};

/// A path and a method that mean something.
#[derive(Clone, Debug)]
pub enum Route {
    GetClientCertificates(Page),
    GenerateClientCertificate,
    GetClientCertificate(String),
    UpdateClientCertificate(String),
    DeleteClientCertificate(String),
    GetRestApis(Page),
    GetRestApi(String),
    GetResources { api: String, page: Page },
    TestInvokeMethod { api: String, resource: String, method: String },
    GetStages { api: String, deployment: Option<String> },
    GetStage { api: String, stage: String },
    UpdateStage { api: String, stage: String },
    GetDeployments { api: String, page: Page },
    CreateDeployment { api: String },
    GetTags(String),
    TagResource(String),
    UntagResource { arn: String, keys: Vec<String> },
    Unknown(Method),
}

#[derive(Clone, Debug, Default)]
pub struct Page {
    position: Option<String>,
    limit: Option<usize>,
}

impl Route {
    pub fn of(method: &Method, path: &str, query: &str) -> Self {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let pairs: Vec<_> = pairs.map(|(key, value)| (decode(key), decode(value))).collect();
        let first =
            |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let page = || Page {
            position: first("position"),
            limit: first("limit").and_then(|limit| limit.parse().ok()),
        };
        let segments: Vec<String> = path.split('/').skip(1).map(decode).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let own = str::to_owned;
        match (method.as_str(), segments.as_slice()) {
            ("GET", ["clientcertificates"]) => Self::GetClientCertificates(page()),
            ("POST", ["clientcertificates"]) => Self::GenerateClientCertificate,
            ("GET", ["clientcertificates", id]) => Self::GetClientCertificate(own(id)),
            ("PATCH", ["clientcertificates", id]) => Self::UpdateClientCertificate(own(id)),
            ("DELETE", ["clientcertificates", id]) => Self::DeleteClientCertificate(own(id)),
            ("GET", ["restapis"]) => Self::GetRestApis(page()),
            ("GET", ["restapis", api]) => Self::GetRestApi(own(api)),
            ("GET", ["restapis", api, "resources"]) => {
                Self::GetResources { api: own(api), page: page() }
            }
            ("POST", ["restapis", api, "resources", resource, "methods", method]) => {
                let [api, resource, method] = [api, resource, method].map(|text| own(text));
                Self::TestInvokeMethod { api, resource, method }
            }
            ("GET", ["restapis", api, "stages"]) => {
                Self::GetStages { api: own(api), deployment: first("deploymentId") }
            }
            ("GET", ["restapis", api, "stages", stage]) => {
                Self::GetStage { api: own(api), stage: own(stage) }
            }
            ("PATCH", ["restapis", api, "stages", stage]) => {
                Self::UpdateStage { api: own(api), stage: own(stage) }
            }
            ("GET", ["restapis", api, "deployments"]) => {
                Self::GetDeployments { api: own(api), page: page() }
            }
            ("POST", ["restapis", api, "deployments"]) => Self::CreateDeployment { api: own(api) },
            ("GET", ["tags", arn]) => Self::GetTags(own(arn)),
            ("PUT", ["tags", arn]) => Self::TagResource(own(arn)),
            ("DELETE", ["tags", arn]) => {
                let keys = pairs.iter().filter(|(key, _)| key == "tagKeys");
                let keys = keys.map(|(_, value)| value.clone()).collect();
                Self::UntagResource { arn: own(arn), keys }
            }
            _ => Self::Unknown(method.clone()),
        }
    }

    pub fn action(&self) -> &'static str {
        match self {
            Self::GetClientCertificates(_) => "GetClientCertificates",
            Self::GenerateClientCertificate => "GenerateClientCertificate",
            Self::GetClientCertificate(_) => "GetClientCertificate",
            Self::UpdateClientCertificate(_) => "UpdateClientCertificate",
            Self::DeleteClientCertificate(_) => "DeleteClientCertificate",
            Self::GetRestApis(_) => "GetRestApis",
            Self::GetRestApi(_) => "GetRestApi",
            Self::GetResources { .. } => "GetResources",
            Self::TestInvokeMethod { .. } => "TestInvokeMethod",
            Self::GetStages { .. } => "GetStages",
            Self::GetStage { .. } => "GetStage",
            Self::UpdateStage { .. } => "UpdateStage",
            Self::GetDeployments { .. } => "GetDeployments",
            Self::CreateDeployment { .. } => "CreateDeployment",
            Self::GetTags(_) => "GetTags",
            Self::TagResource(_) => "TagResource",
            Self::UntagResource { .. } => "UntagResource",
            Self::Unknown(_) => "Unknown",
        }
    }

    pub fn method(&self) -> Method {
        match self.action() {
            action if action.starts_with("Get") => Method::GET,
            action if action.starts_with("Update") => Method::PATCH,
            action if action.starts_with("Delete") || action.starts_with("Untag") => Method::DELETE,
            "TagResource" => Method::PUT,
            _ => Method::POST,
        }
    }

    /// What IAM names in a denial, after the region.
    fn resource(&self) -> String {
        match self {
            Self::GetClientCertificates(_) | Self::GenerateClientCertificate => {
                "/clientcertificates".to_owned()
            }
            Self::GetClientCertificate(id)
            | Self::UpdateClientCertificate(id)
            | Self::DeleteClientCertificate(id) => format!("/clientcertificates/{id}"),
            Self::GetRestApis(_) => "/restapis".to_owned(),
            Self::GetRestApi(api) => format!("/restapis/{api}"),
            Self::GetResources { api, .. } => format!("/restapis/{api}/resources"),
            Self::TestInvokeMethod { api, resource, method } => {
                format!("/restapis/{api}/resources/{resource}/methods/{method}")
            }
            Self::GetStages { api, .. } => format!("/restapis/{api}/stages"),
            Self::GetStage { api, stage } | Self::UpdateStage { api, stage } => {
                format!("/restapis/{api}/stages/{stage}")
            }
            Self::GetDeployments { api, .. } | Self::CreateDeployment { api } => {
                format!("/restapis/{api}/deployments")
            }
            Self::GetTags(arn) | Self::TagResource(arn) | Self::UntagResource { arn, .. } => {
                format!("/tags/{arn}")
            }
            Self::Unknown(_) => String::new(),
        }
    }
}

pub fn denied(route: &Route) -> Reply {
    let (method, resource) = (route.method(), route.resource());
    let message = format!(
        "User: arn:aws:iam::123456789012:user/rotation is not authorized to perform: \
         apigateway:{method} on resource: arn:aws:apigateway:{REGION}::{resource}"
    );
    Reply::error(403, "AccessDeniedException", message)
}

pub fn read(account: &Account, settings: &Settings, route: &Route, fault: Option<Fault>) -> Reply {
    let tagged = |certificate: &Certificate, in_list: bool| {
        shown(certificate, !(in_list && settings.lists_without_tags))
    };
    let list = |page: &Page, items: Vec<(String, Value)>| list(page, items, settings, fault);
    match route {
        Route::GetClientCertificates(page) => {
            let all = account.certificates.values();
            list(page, all.map(|one| (one.id.clone(), tagged(one, true))).collect())
        }
        Route::GetClientCertificate(id) => match account.certificates.get(id) {
            Some(found) if fault != Some(Fault::NotFound) => Reply::of(200, tagged(found, false)),
            _ => not_found("client certificate"),
        },
        Route::GetRestApis(page) => {
            list(page, account.apis.values().map(|api| (api.id.clone(), shown_api(api))).collect())
        }
        Route::GetRestApi(api) => with_api(account, api, |api| Reply::of(200, shown_api(api))),
        Route::GetResources { api, page } => with_api(account, api, |api| {
            let health = json!({"id": api.health, "parentId": api.root, "pathPart": "health", "path": "/health",
                       "resourceMethods": {"GET": {}}});
            let root = json!({"id": api.root, "path": "/"});
            list(page, vec![(api.root.clone(), root), (api.health.clone(), health)])
        }),
        Route::GetStages { api, deployment } => with_api(account, api, |api| {
            let is_of = |stage: &&super::Stage| {
                deployment.as_ref().is_none_or(|deployment| stage.deployment == *deployment)
            };
            let found: Vec<_> = api.stages.values().filter(is_of).map(stages::shown).collect();
            Reply::of(200, json!({ "item": found }))
        }),
        Route::GetStage { api, stage } => match account.stage(api, stage) {
            Some(stage) if fault != Some(Fault::NotFound) => Reply::of(200, stages::shown(stage)),
            _ => not_found("stage"),
        },
        Route::GetDeployments { api, page } => with_api(account, api, |api| {
            let found = api
                .deployments
                .iter()
                .map(|id| (id.clone(), json!({"id": id, "createdDate": seconds(api.created)})));
            list(page, found.collect())
        }),
        Route::GetTags(arn) => {
            match certificate_id(arn).and_then(|id| account.certificates.get(id)) {
                Some(found) => Reply::of(200, json!({ "tags": found.tags })),
                None => not_found("resource"),
            }
        }
        _ => not_found("path"),
    }
}

pub fn write(state: &mut State, route: &Route, body: &Value, fault: Option<Fault>) -> Reply {
    let account = &mut state.account;
    match route {
        Route::GenerateClientCertificate => {
            if account.certificates.len() >= QUOTA {
                let text =
                    "Maximum number of Client Certificates for this account has been reached";
                return Reply::error(429, "LimitExceededException", text);
            }
            let tags = strings(&body["tags"]);
            if tags.keys().any(|key| key.starts_with("aws:") || key.len() > 128) {
                return Reply::error(400, "BadRequestException", "Invalid tag key");
            }
            let description = body["description"].as_str().map(str::to_owned);
            let made = Certificate::generate(Duration::ZERO, description, tags);
            let reply = Reply::of(201, shown(&made, true));
            account.add_certificate(made);
            reply
        }
        Route::UpdateClientCertificate(id) => match account.certificates.get_mut(id) {
            Some(found) => {
                for operation in body["patchOperations"].as_array().into_iter().flatten() {
                    if operation["path"] == "/description" {
                        found.description = operation["value"].as_str().map(str::to_owned);
                    }
                }
                Reply::of(200, shown(found, true))
            }
            None => not_found("client certificate"),
        },
        Route::DeleteClientCertificate(id) => {
            let users = account.users(id);
            if !users.is_empty() {
                let text = format!("Client certificate {id} is in use by {}", users.join(", "));
                return match state.settings.in_use_is_bad_request {
                    true => Reply::error(400, "BadRequestException", text),
                    false => Reply::error(409, "ConflictException", text),
                };
            }
            match account.certificates.remove(id) {
                Some(_) => Reply::empty(202),
                None => not_found("client certificate"),
            }
        }
        Route::UpdateStage { api, stage } => stages::update(state, api, stage, body, fault),
        Route::CreateDeployment { api } => stages::deploy(state, api, body),
        Route::TagResource(arn) => {
            match certificate_id(arn).and_then(|id| account.certificates.get_mut(id)) {
                Some(found) => {
                    found.tags.extend(strings(&body["tags"]));
                    Reply::empty(204)
                }
                None => not_found("resource"),
            }
        }
        Route::UntagResource { arn, keys } => {
            match certificate_id(arn).and_then(|id| account.certificates.get_mut(id)) {
                Some(found) => {
                    found.tags.retain(|key, _| !keys.contains(key));
                    Reply::empty(204)
                }
                None => not_found("resource"),
            }
        }
        _ => not_found("path"),
    }
}

fn with_api(account: &Account, id: &str, show: impl FnOnce(&Api) -> Reply) -> Reply {
    account.apis.get(id).map_or_else(|| not_found("API identifier"), show)
}

/// One page: the id of the last item is where the next one begins.
fn list(
    page: &Page,
    items: Vec<(String, Value)>,
    settings: &Settings,
    fault: Option<Fault>,
) -> Reply {
    if fault == Some(Fault::EmptyList) {
        return Reply::of(200, json!({ "item": [] }));
    }
    let sorted: BTreeMap<_, _> = items.into_iter().collect();
    let limit = page.limit.unwrap_or(25).min(500);
    let limit = settings.page.map_or(limit, |page| page.min(limit));
    let from = page.position.as_ref().map(|position| position.trim_end_matches('='));
    let from = from.map_or(Bound::Unbounded, |id| Bound::Excluded(id.to_owned()));
    let mut rest = sorted.range((from, Bound::Unbounded));
    let found: Vec<_> = rest.by_ref().take(limit).collect();
    let mut body = Map::new();
    if rest.next().is_some() && fault != Some(Fault::MissingPage) {
        // Tokens have characters that must be encoded.
        let last = found.last().map(|(id, _)| format!("{id}=="));
        body.insert("position".to_owned(), last.into());
    }
    let found: Vec<_> = found.into_iter().map(|(_, item)| item.clone()).collect();
    body.insert("item".to_owned(), found.into());
    Reply::of(200, body.into())
}

pub fn not_found(what: &str) -> Reply {
    Reply::error(404, "NotFoundException", format!("Invalid {what} specified"))
}

fn shown(certificate: &Certificate, with_tags: bool) -> Value {
    let mut shown = json!({
        "clientCertificateId": certificate.id,
        "pemEncodedCertificate": certificate.pem,
        "createdDate": seconds(certificate.created),
        "expirationDate": seconds(certificate.expires),
    });
    if let Some(description) = &certificate.description {
        shown["description"] = json!(description);
    }
    if with_tags {
        shown["tags"] = json!(certificate.tags);
    }
    shown
}

fn shown_api(api: &Api) -> Value {
    json!({"id": api.id, "name": api.name, "createdDate": seconds(api.created), "rootResourceId": api.root})
}

pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn certificate_id(arn: &str) -> Option<&str> {
    arn.strip_prefix(&format!("arn:aws:apigateway:{REGION}::/clientcertificates/"))
}

fn strings(object: &Value) -> BTreeMap<String, String> {
    let pairs = object.as_object().into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        bytes.push(match byte {
            b'%' => match (hex(rest.next()), hex(rest.next())) {
                (Some(high), Some(low)) => u8::try_from(high * 16 + low).unwrap_or_default(),
                _ => b'%',
            },
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
