//! Which headers of a request reach an application by default: one table.

use http::HeaderName;

/// What happens to the request headers of a name, as an application may spell it.
#[derive(Clone, Copy)]
enum Action {
    /// Stripped, as all names that begin with it: applications take the client's identity from
    /// them.
    Identity,
    /// Stripped: an application or a framework takes something from it that was not verified, or
    /// it belongs to one connection.
    Strip,
    /// Passes in exactly this spelling and is stripped in every other.
    ExactSpelling,
}

use Action::{ExactSpelling, Identity, Strip};

/// The rules by name, sorted by first and third character, the most frequent first. Names that
/// Akamai, AWS, Apache, authentik, Azure, Cloudflare, DigitalOcean, Envoy, Fastly, Fly, Google,
/// HAProxy, Imperva, Kong, Netlify, Next.js, nginx, oauth2-proxy, Pomerium, Rack, Tailscale, Traefik,
/// Vercel, Vouch and RFC 9440 use. API Gateway itself sets those that pass in one spelling.
const TABLE: &[(&str, Action)] = &[
    ("akamai-client-ip", Strip),
    ("cf-access-", Identity),
    ("cf-client-cert", Identity),
    ("cf-connecting-ip", Identity),
    ("cf-pseudo-ipv4", Strip),
    ("client-cert", Identity),
    ("client-ip", Strip),
    ("connection", Strip),
    ("content-length", Strip),
    ("do-connecting-ip", Strip),
    ("expect", Strip),
    ("front-end-https", Strip),
    ("forwarded", Strip),
    ("forwarded-for", Strip),
    ("fastly-client-ip", Strip),
    ("fly-client-ip", Strip),
    ("http2-settings", Strip),
    ("incap-client-ip", Strip),
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
    ("x-accel-mapping", Strip),
    ("x-amzn-mtls-", Identity),
    ("x-amzn-oidc-", Identity),
    ("x-appengine-", Identity),
    ("x-arr-clientcert", Identity),
    ("x-auth-request-", Identity),
    ("x-auth-user", Identity),
    ("x-authenticated-", Identity),
    ("x-authentik-", Identity),
    ("x-azure-clientip", Strip),
    ("x-azure-socketip", Strip),
    ("x-client-cert", Identity),
    ("x-client-dn", Identity),
    ("x-client-ip", Strip),
    ("x-client-verif", Identity),
    ("x-cluster-client-ip", Strip),
    ("x-consumer-", Identity),
    ("x-credential-identifier", Identity),
    ("x-envoy-external-address", Strip),
    ("x-envoy-original-", Identity),
    ("x-forwarded-for", ExactSpelling),
    ("x-forwarded-port", ExactSpelling),
    ("x-forwarded-proto", Strip),
    ("x-forwarded", Strip),
    ("x-forwarded-access-token", Strip),
    ("x-forwarded-by", Strip),
    ("x-forwarded-client-cert", Identity),
    ("x-forwarded-email", Strip),
    ("x-forwarded-groups", Strip),
    ("x-forwarded-host", Strip),
    ("x-forwarded-https", Strip),
    ("x-forwarded-login", Strip),
    ("x-forwarded-method", Strip),
    ("x-forwarded-path", Strip),
    ("x-forwarded-preferred-username", Strip),
    ("x-forwarded-prefix", Strip),
    ("x-forwarded-protocol", Strip),
    ("x-forwarded-roles", Strip),
    ("x-forwarded-scheme", Strip),
    ("x-forwarded-server", Strip),
    ("x-forwarded-ssl", Strip),
    ("x-forwarded-tls-client", Identity),
    ("x-forwarded-uri", Strip),
    ("x-forwarded-url", Strip),
    ("x-forwarded-user", Identity),
    ("x-goog-authenticated-user-", Identity),
    ("x-goog-iap-", Identity),
    ("x-host", Strip),
    ("x-http-host-override", Strip),
    ("x-http-method", Strip),
    ("x-http-method-override", Strip),
    ("x-method-override", Strip),
    ("x-middleware-subrequest", Strip),
    ("x-ms-client-principal", Identity),
    ("x-mtls-", Identity),
    ("x-nf-client-connection-ip", Strip),
    ("x-orig-host", Strip),
    ("x-original-forwarded-for", Strip),
    ("x-original-host", Strip),
    ("x-original-method", Strip),
    ("x-original-uri", Strip),
    ("x-original-url", Strip),
    ("x-originating-ip", Strip),
    ("x-pomerium-", Identity),
    ("x-proxyuser-ip", Strip),
    ("x-real-host", Strip),
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
    ("x-sendfile-type", Strip),
    ("x-ssl", Identity),
    ("x-tls-", Identity),
    ("x-true-client-ip", Strip),
    ("x-url-scheme", Strip),
    ("x-vercel-forwarded-for", Strip),
    ("x-vercel-proxied-for", Strip),
    ("x-vouch-", Identity),
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

pub(super) fn folded(name: &HeaderName) -> String {
    name.as_str().bytes().map(|byte| char::from(fold(byte))).collect()
}
