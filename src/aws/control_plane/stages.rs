//! APIs, their stages and resources.

use aws_sdk_apigateway::config::Builder;
use aws_sdk_apigateway::types;

use super::{
    Call, CallError, ControlPlane, INVOKE_TIMEOUT, Invocation, PAGE, Repeat, Resource, RestApi,
    Stage, StageName, timeouts, without,
};

impl ControlPlane {
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

    /// Sets the deployment of a stage. Setting the current one deploys it again, unchanged.
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
                        request.embed("methods").set_position(position.clone()).send()
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
}

fn stage_path(name: &StageName) -> String {
    format!("/restapis/{}/stages/{}", name.api, name.stage)
}
