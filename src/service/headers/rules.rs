//! Which headers of a request reach an application: one table, and the operator's own rules.

use std::fmt;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::service::headers::{CLIENT_CERT, FINGERPRINT, HOP_BY_HOP};

/// What happens to the request headers of a name, as an application may spell it.
#[derive(Clone, Copy)]
enum Action {
    /// Stripped: the name and all that begin with it tell an application who the client is.
    Identity,
    /// Stripped: an application or a framework takes something from it that was not verified, or
    /// it belongs to one connection.
    Strip,
    /// Passes in exactly this spelling and is stripped in every other.
    ExactSpelling,
}

use Action::{ExactSpelling, Identity, Strip};

/// The rules by name, sorted by first and third character, the most frequent first. Names that AWS, Apache, Azure,
/// Cloudflare, Envoy, Google, HAProxy, nginx, oauth2-proxy, Tailscale, Traefik and RFC 9440 use.
const TABLE: &[(&str, Action)] = &[
    ("cf-access-authenticated-user", Identity),
    ("cf-client-cert", Identity),
    ("cf-connecting-ip", Identity),
    ("client-cert", Identity),
    ("client-ip", Strip),
    ("connection", Strip),
    ("content-length", Strip),
    ("expect", Strip),
    ("front-end-https", Strip),
    ("forwarded", Strip),
    ("forwarded-for", Strip),
    ("fastly-client-ip", Strip),
    ("fly-client-ip", Strip),
    ("http2-settings", Strip),
    ("keep-alive", Strip),
    ("proxy", Strip),
    ("proxy-authenticate", Strip),
    ("proxy-authorization", Strip),
    ("proxy-client-ip", Strip),
    ("proxy-connection", Strip),
    ("remote-addr", Strip),
    ("remote-email", Identity),
    ("remote-group", Identity),
    ("remote-name", Identity),
    ("remote-user", Identity),
    ("ssl-client", Identity),
    ("script-name", Strip),
    ("te", Strip),
    ("transfer-encoding", Strip),
    ("tailscale-user-", Identity),
    ("true-client-ip", Strip),
    ("upgrade", Strip),
    ("wl-proxy-client-ip", Strip),
    ("x-amzn-apigateway-api-id", ExactSpelling),
    ("x-amzn-mtls-", Identity),
    ("x-amzn-oidc-", Identity),
    ("x-appengine-user-", Identity),
    ("x-arr-clientcert", Identity),
    ("x-auth-request-", Identity),
    ("x-authenticated-", Identity),
    ("x-azure-clientip", Strip),
    ("x-azure-socketip", Strip),
    ("x-client-cert", Identity),
    ("x-client-dn", Identity),
    ("x-client-ip", Strip),
    ("x-client-verif", Identity),
    ("x-cluster-client-ip", Strip),
    ("x-envoy-external-address", Strip),
    ("x-envoy-original-", Identity),
    ("x-forwarded-for", ExactSpelling),
    ("x-forwarded-proto", Strip),
    ("x-forwarded", Strip),
    ("x-forwarded-access-token", Strip),
    ("x-forwarded-by", Strip),
    ("x-forwarded-client-cert", Identity),
    ("x-forwarded-email", Strip),
    ("x-forwarded-groups", Strip),
    ("x-forwarded-host", Strip),
    ("x-forwarded-method", Strip),
    ("x-forwarded-path", Strip),
    ("x-forwarded-preferred-username", Strip),
    ("x-forwarded-prefix", Strip),
    ("x-forwarded-protocol", Strip),
    ("x-forwarded-scheme", Strip),
    ("x-forwarded-server", Strip),
    ("x-forwarded-ssl", Strip),
    ("x-forwarded-tls-client", Identity),
    ("x-forwarded-uri", Strip),
    ("x-forwarded-url", Strip),
    ("x-forwarded-user", Identity),
    ("x-goog-authenticated-user-", Identity),
    ("x-host", Strip),
    ("x-http-host-override", Strip),
    ("x-http-method", Strip),
    ("x-http-method-override", Strip),
    ("x-method-override", Strip),
    ("x-ms-client-principal", Identity),
    ("x-mtls-", Identity),
    ("x-original-forwarded-for", Strip),
    ("x-original-host", Strip),
    ("x-original-method", Strip),
    ("x-original-uri", Strip),
    ("x-original-url", Strip),
    ("x-originating-ip", Strip),
    ("x-proxyuser-ip", Strip),
    ("x-real-ip", Strip),
    ("x-remote-addr", Strip),
    ("x-remote-extra-", Identity),
    ("x-remote-group", Identity),
    ("x-remote-ip", Strip),
    ("x-remote-user", Identity),
    ("x-rewrite-uri", Strip),
    ("x-rewrite-url", Strip),
    ("x-scheme", Strip),
    ("x-script-name", Strip),
    ("x-ssl", Identity),
    ("x-tls-", Identity),
    ("x-true-client-ip", Strip),
    ("x-url-scheme", Strip),
    ("x-webauth-", Identity),
];

/// Buckets of the table: by first letter, and by third character, which is a letter or not.
const LETTERS: usize = 26;
const BUCKETS: usize = LETTERS * (LETTERS + 1);

const fn letter(byte: u8) -> Option<usize> {
    match byte.to_ascii_lowercase() {
        byte @ b'a'..=b'z' => Some((byte - b'a') as usize),
        _ => None,
    }
}

const fn bucket(first: u8, third: u8) -> Option<usize> {
    let third = match letter(third) {
        Some(letter) => letter + 1,
        None => 0,
    };
    match letter(first) {
        Some(first) => Some(first * (LETTERS + 1) + third),
        None => None,
    }
}

/// Where each bucket begins in the table. A table that is not sorted does not compile.
#[expect(clippy::indexing_slicing, reason = "it runs at compile time")]
#[expect(clippy::cast_possible_truncation, reason = "a table of over 255 rules does not compile")]
const STARTS: [u8; BUCKETS + 1] = {
    assert!(TABLE.len() < 256);
    let mut starts = [TABLE.len() as u8; BUCKETS + 1];
    let mut rule = TABLE.len();
    let mut next = BUCKETS;
    while rule > 0 {
        rule -= 1;
        let name = TABLE[rule].0.as_bytes();
        let third = if name.len() > 2 { name[2] } else { 0 };
        let Some(own) = bucket(name[0], third) else { panic!("a name begins with a letter") };
        assert!(own <= next, "the table is not sorted by first and third character");
        while next > own {
            starts[next] = rule as u8 + 1;
            next -= 1;
        }
    }
    while next > 0 {
        starts[next] = 0;
        next -= 1;
    }
    starts[0] = 0;
    starts
};

/// The rules that may apply to a name: for nearly all names none.
fn candidates(name: &[u8]) -> &'static [(&'static str, Action)] {
    let at = |index| name.get(index).copied().unwrap_or_default();
    let Some(bucket) = bucket(at(0), at(2)) else { return &[] };
    let range = STARTS.get(bucket).zip(STARTS.get(bucket + 1));
    range
        .and_then(|(start, end)| TABLE.get(usize::from(*start)..usize::from(*end)))
        .unwrap_or_default()
}

/// True if an application could take a header of this name for the client's identity, in any
/// spelling: CGI and WSGI read `X_SSL_Client` as `X-SSL-Client`, and some servers fold every
/// character that is neither a letter nor a digit.
///
/// ```
/// use portcullis::service::headers::is_identity;
///
/// assert!(is_identity("client-cert"));
/// assert!(is_identity("X_SSL.Client-Verify"));
/// assert!(!is_identity("x-forwarded-port"));
/// ```
pub fn is_identity(name: &str) -> bool {
    let name = name.as_bytes();
    let is_prefix = |(prefix, action): &(&str, Action)| {
        matches!(action, Identity) && folds_to_prefix(name, prefix.as_bytes())
    };
    candidates(name).iter().any(is_prefix)
}

/// True if the table strips request headers of this name.
pub(super) fn is_stripped(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    let is_match = |(rule, action): &&(&str, Action)| {
        let rule = rule.as_bytes();
        match action {
            Identity => folds_to_prefix(name, rule),
            // Comparing whole names is quicker than folding them.
            Strip | ExactSpelling => {
                name.len() == rule.len() && (name == rule || folds_to_prefix(name, rule))
            }
        }
    };
    let rule = candidates(name).iter().find(is_match);
    rule.is_some_and(|(rule, action)| !matches!(action, ExactSpelling) || name != rule.as_bytes())
}

fn fold(character: u8) -> u8 {
    if character.is_ascii_alphanumeric() { character.to_ascii_lowercase() } else { b'-' }
}

fn folds_to_prefix(name: &[u8], prefix: &[u8]) -> bool {
    let are_alike = |(one, other): (&u8, &u8)| {
        one.to_ascii_lowercase() == *other || *other == b'-' && !one.is_ascii_alphanumeric()
    };
    // From the end: many names begin alike.
    let beginning = name.get(..prefix.len());
    beginning.is_some_and(|it| it.iter().rev().zip(prefix.iter().rev()).all(are_alike))
}

fn folded(name: &HeaderName) -> String {
    name.as_str().bytes().map(|byte| char::from(fold(byte))).collect()
}

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
    /// Passes this header on although the table strips it. The application gets what the caller of
    /// the API sent: it is not verified.
    ///
    /// # Errors
    /// The header is reserved, or another rule names it.
    pub fn pass(self, name: HeaderName) -> Result<Self, BadHeaderRule> {
        let custom = self.custom();
        let known = folded(&name);
        if custom.is_stripped(&known) || custom.is_set(&known) {
            return Err(BadHeaderRule::Conflict(name));
        }
        self.with(name, |custom, name| custom.pass.push(name))
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
