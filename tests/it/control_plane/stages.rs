//! What changes a stage.

use serde_json::{Value, json};

use super::account::{Stage, TakesEffect, new_id};
use super::faults::Fault;
use super::nodes;
use super::routes::{Route, not_found};
use super::server::Reply;
use super::{Shared, State};

pub fn shown(stage: &Stage) -> Value {
    let mut shown = json!({
        "stageName": stage.name,
        "deploymentId": stage.deployment,
        "cacheClusterEnabled": false,
        "cacheClusterStatus": "NOT_AVAILABLE",
        "methodSettings": {},
        "tracingEnabled": false,
    });
    if let Some(certificate) = &stage.certificate {
        shown["clientCertificateId"] = json!(certificate);
    }
    shown
}

pub fn update(
    state: &mut State,
    api: &str,
    name: &str,
    body: &Value,
    fault: Option<Fault>,
) -> Reply {
    let takes_effect = state.settings.takes_effect;
    let certificates: Vec<_> = state.account.certificates.keys().cloned().collect();
    let deployments = state.account.apis.get(api).map(|api| api.deployments.clone());
    let Some(stage) = state.account.stage_mut(api, name) else { return not_found("stage") };
    let mut changed = stage.clone();
    for operation in body["patchOperations"].as_array().into_iter().flatten() {
        let value = operation["value"].as_str().unwrap_or_default();
        match (operation["op"].as_str(), operation["path"].as_str()) {
            (Some("replace"), Some("/clientCertificateId")) => {
                if !certificates.iter().any(|id| id == value) && !value.starts_with("arn:aws:acm:")
                {
                    let text = "Invalid client certificate identifier specified";
                    return Reply::error(400, "BadRequestException", text);
                }
                changed.certificate = Some(value.to_owned());
                if takes_effect == TakesEffect::AtOnce {
                    changed.take_effect();
                }
            }
            (Some("replace"), Some("/deploymentId")) => {
                if !deployments.iter().flatten().any(|id| id == value) {
                    let text = "Deployment id does not exist";
                    return Reply::error(400, "BadRequestException", text);
                }
                value.clone_into(&mut changed.deployment);
                if takes_effect != TakesEffect::OnNewDeployment {
                    changed.take_effect();
                }
            }
            _ => return Reply::error(400, "BadRequestException", "Invalid patch operation"),
        }
    }
    let reply = Reply::of(200, shown(&changed));
    if fault != Some(Fault::LostUpdate) {
        *stage = changed;
    }
    reply
}

pub fn deploy(state: &mut State, api: &str, body: &Value) -> Reply {
    let id = new_id(6);
    let Some(api) = state.account.apis.get_mut(api) else { return not_found("API identifier") };
    if let Some(name) = body["stageName"].as_str() {
        let Some(stage) = api.stages.get_mut(name) else { return not_found("stage") };
        stage.deployment.clone_from(&id);
        stage.take_effect();
    }
    api.deployments.push(id.clone());
    let created = super::routes::seconds(std::time::SystemTime::now());
    Reply::of(201, json!({"id": id, "createdDate": created}))
}

/// Calls the backend as the gateway would, with the certificate of the request.
pub async fn test_invoke(shared: &Shared, route: &Route, body: &Value) -> Reply {
    let Route::TestInvokeMethod { api, resource, method } = route else {
        return not_found("path");
    };
    let (backend, certificate) = {
        let state = shared.lock();
        let id = body["clientCertificateId"].as_str().unwrap_or_default();
        let known = state.account.apis.get(api);
        let is_method = |of: &super::account::Api| of.health == *resource && method == "GET";
        if !known.is_some_and(is_method) {
            return not_found("method");
        }
        (state.settings.backend.clone(), state.account.ever.get(id).cloned())
    };
    let Some(backend) = backend else { return not_found("backend") };
    let path = body["pathWithQueryString"].as_str().unwrap_or("/");
    let tried = nodes::once(&backend, certificate.as_deref(), api, path).await;
    Reply::of(
        200,
        match tried {
            Ok((status, text)) => json!({
                "status": status, "body": text, "headers": {}, "latency": 7,
                "log": "Execution log for request\nMethod completed",
            }),
            Err(error) => json!({
                "status": 500, "body": "{\"message\": \"Internal server error\"}", "latency": 7,
                "log": format!("Execution failed due to configuration error: {error}"),
            }),
        },
    )
}
