//! One order (RFC 8555, 7.1.6): account → order → validations → key and CSR → certificate.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier,
    NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_RSA_SHA256, RsaKeySize,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use tokio::time::timeout;

use super::cache::{Cache, StoredAccount};
use super::client::Http;
use super::failure::{Failure, Step};
use super::settings::{KeyType, Settings};
use crate::server::{Challenges, Validation, provider};
use crate::trust::{rfc3339, unix_time};

/// How often the state of an order is fetched, where the directory sends no `Retry-After`.
const POLL: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(120));
/// How long an order may take, whatever the directory does.
const LONGEST: Duration = Duration::from_secs(10 * 60);

/// What an order needs.
pub(super) struct Client<'a> {
    pub(super) settings: &'a Settings,
    pub(super) cache: &'a Cache,
    pub(super) challenges: &'a Arc<Challenges>,
    pub(super) http: Http,
}

/// A certificate with its chain, and the key that was made for it: PEM.
pub(super) struct Issued {
    pub(super) chain: String,
    pub(super) key: String,
}

impl Client<'_> {
    /// Orders a certificate, in place of the one that is named.
    pub(super) async fn order(
        &self,
        replaces: Option<CertificateIdentifier<'_>>,
    ) -> Result<Issued, Failure> {
        let order = timeout(LONGEST, self.order_without_timeout(replaces)).await;
        let mut result =
            order.unwrap_or_else(|_| Err(Failure::new(Step::Order, "it took over 10 minutes")));
        if let Err(failure) = &mut result {
            let notes = self.http.take_notes();
            failure.retry_after =
                failure.retry_after.or(notes.retry_after.map(|time| unix_time(time).as_secs()));
            if let Some(other) = notes.other_clock {
                let other = rfc3339(unix_time(other));
                failure.detail.push_str(&format!(
                    " (the directory's clock says {other}: if it is right, set this machine's)"
                ));
            }
        }
        result
    }

    async fn order_without_timeout(
        &self,
        replaces: Option<CertificateIdentifier<'_>>,
    ) -> Result<Issued, Failure> {
        let account = self.account().await?;
        let names = self.settings.domains.iter().cloned();
        let identifiers: Vec<_> = names.map(Identifier::Dns).collect();
        let mut new_order = NewOrder::new(&identifiers);
        if let Some(replaces) = replaces {
            new_order = new_order.replaces(replaces);
        }
        let order = account.new_order(&new_order).await;
        let mut order = order.map_err(|error| Failure::of(Step::Order, &error))?;
        self.validate(&mut order).await?;
        let (names, key_type) = (self.settings.domains.clone(), self.settings.key);
        // Making an RSA key takes long.
        let request = tokio::task::spawn_blocking(move || request(names, key_type)).await;
        let (key, csr) = request
            .map_err(|error| Failure::new(Step::Finalize, error.to_string()))?
            .map_err(|error| Failure::new(Step::Finalize, error.to_string()))?;
        let finalized = order.finalize_csr(&csr).await;
        finalized.map_err(|error| Failure::of(Step::Finalize, &error))?;
        let chain = order.poll_certificate(&POLL).await;
        let chain = chain.map_err(|error| Failure::of(Step::Certificate, &error))?;
        Ok(Issued { chain, key })
    }

    /// The account of the cache, or a new one.
    pub(super) async fn account(&self) -> Result<Account, Failure> {
        let builder = Account::builder_with_http(Box::new(self.http.clone()));
        let directory = self.settings.directory.to_string();
        let email = self.settings.email.clone();
        let contact = email.as_ref().map(|email| format!("mailto:{email}"));
        let contact: Vec<_> = contact.as_deref().into_iter().collect();
        // A damaged one is logged at the start, and replaced here.
        let stored = self.cache.account().unwrap_or_default();
        let store = |credentials| {
            let account = StoredAccount { directory: directory.clone(), email, credentials };
            self.cache.write_account(&account).map_err(|error| Failure::of_store(&error))
        };
        let Some(stored) = stored else {
            let new = NewAccount {
                contact: &contact,
                terms_of_service_agreed: true,
                only_return_existing: false,
            };
            let created = builder.create(&new, directory.clone(), None).await;
            // It fetches the directory first; only the directory itself sends a problem.
            let (account, credentials) = created.map_err(|error| match error {
                Error::Api(_) => Failure::of(Step::Account, &error),
                _ => Failure::of(Step::Directory, &error),
            })?;
            store(credentials)?;
            return Ok(account);
        };
        let is_same_contact = stored.email == self.settings.email;
        // `AccountCredentials` cannot be cloned.
        let copy = serde_json::to_vec(&stored.credentials)
            .and_then(|bytes| serde_json::from_slice(&bytes))
            .map_err(|_| Failure::new(Step::Account, "the stored account is damaged"))?;
        let account = builder.from_credentials(stored.credentials).await;
        let account = account.map_err(|error| Failure::of(Step::Directory, &error))?;
        if !is_same_contact {
            let updated = account.update_contacts(&contact).await;
            updated.map_err(|error| Failure::of(Step::Account, &error))?;
            store(copy)?;
        }
        Ok(account)
    }

    /// Proves each name that is not proved yet.
    async fn validate(&self, order: &mut Order) -> Result<(), Failure> {
        let mut open = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization =
                authorization.map_err(|error| Failure::of(Step::Authorization, &error))?;
            let name = authorization.identifier().to_string();
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                status => {
                    let detail = format!("the authorization of {name} is {status:?}");
                    return Err(Failure::new(Step::Authorization, detail));
                }
            }
            if !self.settings.domains.contains(&name) {
                let detail = format!("the directory wants {name} validated, which is not ordered");
                return Err(Failure::new(Step::Authorization, detail));
            }
            let Some(mut challenge) = authorization.challenge(ChallengeType::TlsAlpn01) else {
                let detail = format!("the directory does not offer tls-alpn-01 for {name}");
                return Err(Failure::new(Step::Authorization, detail).hopeless());
            };
            let digest = challenge.key_authorization().digest();
            open.push(self.present(&name, digest.as_ref())?);
            let ready = challenge.set_ready().await;
            ready.map_err(|error| Failure::of(Step::Challenge, &error))?;
        }
        let status = match order.poll_ready(&POLL).await {
            Ok(OrderStatus::Ready | OrderStatus::Valid) => return Ok(()),
            Ok(status) => Failure::new(Step::Validation, format!("the order is {status:?}")),
            Err(error) => Failure::of(Step::Validation, &error),
        };
        Err(why_invalid(order).await.unwrap_or(status))
    }

    /// Has the handshake present the certificate that proves a name. (RFC 8737, 3)
    fn present(&self, name: &str, digest: &[u8]) -> Result<Validation, Failure> {
        let failure = |error: String| Failure::new(Step::Challenge, error);
        if digest.len() != 32 {
            return Err(failure("the key authorization has no SHA-256".to_owned()));
        }
        let certified_key = || {
            let mut params = CertificateParams::new([name.to_owned()])?;
            params.distinguished_name = DistinguishedName::new();
            params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            let certificate = params.self_signed(&key)?;
            let certificate = CertificateDer::from(certificate.der().to_vec());
            Ok::<_, rcgen::Error>((certificate, key.serialize_der()))
        };
        let (certificate, key) = certified_key().map_err(|error| failure(error.to_string()))?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
        let key = provider().key_provider.load_private_key(key);
        let key = key.map_err(|error| failure(error.to_string()))?;
        let validation = self.challenges.open(name, CertifiedKey::new(vec![certificate], key));
        validation.map_err(|error| failure(error.to_string()))
    }
}

/// The problems of the validations that failed: that of the order itself often has no detail.
async fn why_invalid(order: &mut Order) -> Option<Failure> {
    let mut found: Option<Failure> = None;
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if authorization.refresh().await.is_err() {
            continue;
        }
        if authorization.status != AuthorizationStatus::Invalid {
            continue;
        }
        let name = authorization.identifier().to_string();
        let mut problems = authorization.challenges.iter().filter_map(|it| it.error.clone());
        let failure = found.get_or_insert_with(|| match problems.next() {
            Some(problem) => {
                let failure = Failure::of(Step::Validation, &Error::Api(problem));
                Failure { detail: format!("{name}: {}", failure.detail), ..failure }
            }
            None => Failure::new(Step::Validation, format!("the validation of {name} failed")),
        });
        failure.invalid.push(name);
    }
    found
}

/// A new key (PEM), and the request for its certificate (DER).
fn request(names: Vec<String>, key_type: KeyType) -> Result<(String, Vec<u8>), rcgen::Error> {
    let key = match key_type {
        KeyType::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?,
        KeyType::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
    };
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key)?;
    Ok((key.serialize_pem(), request.der().to_vec()))
}
