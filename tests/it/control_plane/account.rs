//! What an account of one region holds: certificates, APIs and their stages.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, PKCS_RSA_SHA256, SerialNumber,
    date_time_ymd,
};

/// The client certificates of an account and region.
pub const QUOTA: usize = 60;

/// A client certificate.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub id: String,
    pub description: Option<String>,
    /// CR LF line ends and no final newline, as the API has it.
    pub pem: String,
    pub key: String,
    pub created: SystemTime,
    pub expires: SystemTime,
    pub tags: BTreeMap<String, String>,
}

impl Certificate {
    pub fn generate(
        age: Duration,
        description: Option<String>,
        tags: BTreeMap<String, String>,
    ) -> Self {
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).expect("an RSA-2048 key");
        let mut subject = DistinguishedName::new();
        for (attribute, value) in [
            (DnType::CountryName, "US"),
            (DnType::LocalityName, "Seattle"),
            (DnType::CommonName, "ApiGateway"),
        ] {
            let value = value.try_into().expect("printable");
            subject.push(attribute, DnValue::PrintableString(value));
        }
        // Whole seconds, as X.509 and the API have them.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let created = Duration::from_secs(now) - age;
        let expires = created + Duration::from_secs(365 * 24 * 60 * 60);
        let mut params = CertificateParams::default();
        params.distinguished_name = subject;
        params.not_before = date_time_ymd(1970, 1, 1) + created;
        params.not_after = date_time_ymd(1970, 1, 1) + expires;
        let mut serial = [0; 8];
        aws_lc_rs::rand::fill(&mut serial).expect("random bytes");
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self {
            id: new_id(6),
            description,
            pem: pem.trim_end().lines().collect::<Vec<_>>().join("\r\n"),
            key: key.serialize_pem(),
            created: UNIX_EPOCH + created,
            expires: UNIX_EPOCH + expires,
            tags,
        }
    }
}

/// Lower-case letters and digits.
pub fn new_id(length: usize) -> String {
    const CHARACTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut bytes = vec![0; length];
    aws_lc_rs::rand::fill(&mut bytes).expect("random bytes");
    bytes.iter().map(|byte| char::from(CHARACTERS[usize::from(*byte) % 36])).collect()
}

/// When the nodes present what UpdateStage has set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TakesEffect {
    #[default]
    AtOnce,
    /// Once the stage's `deploymentId` is set again.
    OnDeploymentSetAgain,
    /// Once a deployment is created for the stage.
    OnNewDeployment,
}

#[derive(Clone, Debug)]
pub struct Stage {
    pub name: String,
    pub deployment: String,
    /// What GetStage returns.
    pub certificate: Option<String>,
    /// What the nodes present, since when.
    pub presented: Vec<(Instant, Option<String>)>,
}

impl Stage {
    /// Has the nodes present the certificate of the stage.
    pub fn take_effect(&mut self) {
        if self.presented.last().map(|(_, certificate)| certificate) != Some(&self.certificate) {
            self.presented.push((Instant::now(), self.certificate.clone()));
        }
    }

    /// What a node presents that learns of changes this late.
    pub fn presented_by(&self, lag: Duration) -> Option<&str> {
        let mut known = self.presented.iter().rev().filter(|(since, _)| since.elapsed() >= lag);
        let first = self.presented.first();
        known.next().or(first).and_then(|(_, certificate)| certificate.as_deref())
    }
}

#[derive(Clone, Debug)]
pub struct Api {
    pub id: String,
    pub name: String,
    pub created: SystemTime,
    pub root: String,
    pub health: String,
    pub deployments: Vec<String>,
    pub stages: BTreeMap<String, Stage>,
}

#[derive(Clone, Debug, Default)]
pub struct Account {
    pub certificates: BTreeMap<String, Certificate>,
    pub apis: BTreeMap<String, Api>,
    /// The keys of deleted ones too: a node that lags still presents them.
    pub ever: BTreeMap<String, Arc<Certificate>>,
}

impl Account {
    pub fn add_certificate(&mut self, certificate: Certificate) {
        self.ever.insert(certificate.id.clone(), Arc::new(certificate.clone()));
        self.certificates.insert(certificate.id.clone(), certificate);
    }

    pub fn add_api(&mut self, name: &str) -> String {
        let id = new_id(10);
        let api = Api {
            id: id.clone(),
            name: name.to_owned(),
            created: SystemTime::now(),
            root: new_id(10),
            health: new_id(6),
            deployments: vec![new_id(6)],
            stages: BTreeMap::new(),
        };
        self.apis.insert(id.clone(), api);
        id
    }

    pub fn set_stage(&mut self, api: &str, stage: &str, certificate: Option<&str>) {
        let api = self.apis.get_mut(api).expect("an API");
        let deployment = api.deployments.last().expect("a deployment").clone();
        let stage = api.stages.entry(stage.to_owned()).or_insert_with(|| Stage {
            name: stage.to_owned(),
            deployment,
            certificate: None,
            presented: Vec::new(),
        });
        stage.certificate = certificate.map(str::to_owned);
        stage.take_effect();
    }

    pub fn stage(&self, api: &str, stage: &str) -> Option<&Stage> {
        self.apis.get(api)?.stages.get(stage)
    }

    pub fn stage_mut(&mut self, api: &str, stage: &str) -> Option<&mut Stage> {
        self.apis.get_mut(api)?.stages.get_mut(stage)
    }

    /// The stages whose setting is this certificate, as `API/STAGE`.
    pub fn users(&self, certificate: &str) -> Vec<String> {
        let stages = self.apis.values().flat_map(|api| {
            api.stages.values().map(move |stage| (format!("{}/{}", api.id, stage.name), stage))
        });
        let uses = |stage: &Stage| stage.certificate.as_deref() == Some(certificate);
        stages.filter(|(_, stage)| uses(stage)).map(|(name, _)| name).collect()
    }
}
