//! Plain data of the control plane, as far as this crate needs it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

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
