//! Client certificates and their tags.

use aws_sdk_apigateway::types;

use super::{
    Call, CallError, ClientCertificate, ControlPlane, ErrorKind, PAGE, Repeat, Tags, without,
};

impl ControlPlane {
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
    /// After an [ambiguous](ErrorKind::is_ambiguous) error the certificate may exist: read the list
    /// until it settles before another try. [`ErrorKind::LimitExceeded`] means a full account, or
    /// the rate: the list distinguishes them.
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
