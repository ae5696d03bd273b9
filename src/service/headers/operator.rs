//! The operator's own rules for the headers of requests, besides the table.

use std::fmt;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::service::headers::names::{CLIENT_CERT, FINGERPRINT, HOP_BY_HOP};
use crate::service::headers::rules::folded;

/// The operator's own rules for the headers of requests to an application.
///
/// ```
/// use http::{HeaderName, HeaderValue};
/// use portcullis::service::headers::HeaderRules;
///
/// let team = HeaderName::from_static("x-team");
/// let rules = HeaderRules::default()
///     .pass(HeaderName::from_static("x-forwarded-prefix"))?
///     .set(team.clone(), HeaderValue::from_static("payments"))?;
/// assert!(rules.clone().strip(team).is_err(), "one name, one rule");
/// assert!(rules.pass(HeaderName::from_static("client-cert")).is_err());
/// # Ok::<(), portcullis::service::headers::BadHeaderRule>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct HeaderRules(Option<Arc<Custom>>);

#[derive(Clone, Debug, Default)]
pub(super) struct Custom {
    pass: Vec<HeaderName>,
    /// Folded.
    strip: Vec<String>,
    pub(super) set: Vec<(HeaderName, HeaderValue)>,
}

/// Why a header rule is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadHeaderRule {
    /// portcullis or HTTP itself determines this header.
    Reserved(HeaderName),
    /// Two rules name this header.
    Conflict(HeaderName),
}

impl fmt::Display for BadHeaderRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reserved(name) => write!(
                f,
                "{name} cannot be changed: it carries the verified identity, the host, or how the \
                 message is framed"
            ),
            Self::Conflict(name) => write!(f, "two rules name the header {name}: keep one"),
        }
    }
}

impl std::error::Error for BadHeaderRule {}

impl HeaderRules {
    /// Passes this header on although the table strips it: in this spelling, and in the usual one
    /// with hyphens. The application gets what the caller of the API sent: it is not verified.
    ///
    /// # Errors
    /// The header is reserved, or another rule names it.
    pub fn pass(self, name: HeaderName) -> Result<Self, BadHeaderRule> {
        let custom = self.custom();
        let known = folded(&name);
        if custom.is_stripped(&known) || custom.is_set(&known) {
            return Err(BadHeaderRule::Conflict(name));
        }
        self.with(name, |custom, name| {
            if let Ok(usual) = HeaderName::try_from(known)
                && usual != name
            {
                custom.pass.push(usual);
            }
            custom.pass.push(name);
        })
    }

    /// Strips this header, in every spelling.
    ///
    /// # Errors
    /// The header is reserved, or another rule names it.
    pub fn strip(self, name: HeaderName) -> Result<Self, BadHeaderRule> {
        let custom = self.custom();
        let known = folded(&name);
        if custom.is_passed(&known) || custom.is_set(&known) {
            return Err(BadHeaderRule::Conflict(name));
        }
        self.with(name, |custom, _| custom.strip.push(known))
    }

    /// Sets this header, in place of any that the request has, in every spelling.
    ///
    /// # Errors
    /// The header is reserved, or another rule names it.
    pub fn set(self, name: HeaderName, value: HeaderValue) -> Result<Self, BadHeaderRule> {
        let custom = self.custom();
        let known = folded(&name);
        if custom.is_passed(&known) || custom.is_stripped(&known) || custom.is_set(&known) {
            return Err(BadHeaderRule::Conflict(name));
        }
        self.with(name, |custom, name| custom.set.push((name, value)))
    }

    /// The headers that pass although the table strips them.
    pub fn passed(&self) -> &[HeaderName] {
        self.0.as_ref().map_or(&[], |custom| &custom.pass)
    }

    pub(super) fn get(&self) -> Option<&Custom> {
        self.0.as_deref()
    }

    fn custom(&self) -> Custom {
        self.0.as_deref().cloned().unwrap_or_default()
    }

    fn with(
        mut self,
        name: HeaderName,
        add: impl FnOnce(&mut Custom, HeaderName),
    ) -> Result<Self, BadHeaderRule> {
        if is_reserved(&name) {
            return Err(BadHeaderRule::Reserved(name));
        }
        add(Arc::make_mut(self.0.get_or_insert_default()), name);
        Ok(self)
    }
}

/// True if no rule may name this header, in any spelling.
fn is_reserved(name: &HeaderName) -> bool {
    let name = folded(name);
    [CLIENT_CERT.as_str(), FINGERPRINT.as_str(), "host", "content-length", "trailer"]
        .iter()
        .chain(&HOP_BY_HOP)
        .any(|reserved| *reserved == name)
}

impl Custom {
    pub(super) fn passes(&self, name: &HeaderName) -> bool {
        self.pass.contains(name)
    }

    /// True if a header of this name is stripped, or replaced.
    pub(super) fn replaces(&self, name: &HeaderName) -> bool {
        let known = folded(name);
        self.is_stripped(&known) || self.is_set(&known)
    }

    fn is_passed(&self, known: &str) -> bool {
        self.pass.iter().any(|name| folded(name) == known)
    }

    fn is_stripped(&self, known: &str) -> bool {
        self.strip.iter().any(|name| name == known)
    }

    fn is_set(&self, known: &str) -> bool {
        self.set.iter().any(|(name, _)| folded(name) == known)
    }
}
