//! Why a client was rejected: one reason out of a closed list.

use std::fmt;

use rustls::CertificateError;

/// Why a client was rejected. The list is closed: logs and counters use these names only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It presented no certificate.
    NoCertificate,
    /// It presented one that is neither pinned nor issued under a trust anchor.
    UnknownCertificate,
    /// It presented a trusted one that is expired, or a chain with an expired certificate.
    Expired,
    /// It presented a trusted one that is not yet valid.
    NotYetValid,
    /// It presented a chain to a trust anchor that does not hold: a signature, a purpose, a
    /// constraint.
    InvalidChain,
    /// It could not prove that it holds the certificate's key.
    BadSignature,
    /// It spoke plain HTTP.
    PlainHttp,
    /// It spoke something that is neither TLS nor HTTP.
    NotTls,
    /// It shares no TLS version or cipher suite with the server, or broke the protocol.
    TlsError,
    /// It rejected the server with an alert: it may not trust the server's certificate.
    RefusedByClient,
    /// It closed the connection during the handshake.
    LeftHandshake,
    /// It did not finish the handshake in time.
    HandshakeTimeout,
    /// The limit of admitted connections was reached.
    TooManyConnections,
    /// The limit of handshakes was reached, and this one was the oldest.
    TooManyHandshakes,
    /// It bypassed the load balancer, or the load balancer sent no PROXY protocol v2 header.
    ProxyProtocol,
    /// The server's own certificate has not been issued yet.
    NoServerCertificate,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 16] = [
        Self::NoCertificate,
        Self::UnknownCertificate,
        Self::Expired,
        Self::NotYetValid,
        Self::InvalidChain,
        Self::BadSignature,
        Self::PlainHttp,
        Self::NotTls,
        Self::TlsError,
        Self::RefusedByClient,
        Self::LeftHandshake,
        Self::HandshakeTimeout,
        Self::TooManyConnections,
        Self::TooManyHandshakes,
        Self::ProxyProtocol,
        Self::NoServerCertificate,
    ];

    /// Its stable name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::UnknownCertificate => "unknown_certificate",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::InvalidChain => "invalid_chain",
            Self::BadSignature => "bad_signature",
            Self::PlainHttp => "plain_http",
            Self::NotTls => "not_tls",
            Self::TlsError => "tls_error",
            Self::RefusedByClient => "refused_by_client",
            Self::LeftHandshake => "left_handshake",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::TooManyConnections => "too_many_connections",
            Self::TooManyHandshakes => "too_many_handshakes",
            Self::ProxyProtocol => "proxy_protocol",
            Self::NoServerCertificate => "no_server_certificate",
        }
    }

    /// What an operator does to have this client accepted.
    pub(crate) fn remedy(self) -> &'static str {
        match self {
            Self::NoCertificate => {
                "choose a client certificate for the API's stage, and deploy the API again"
            }
            Self::UnknownCertificate => {
                "if it is API Gateway's, put it into a --trust path: aws apigateway \
                 get-client-certificate --client-certificate-id ID --query pemEncodedCertificate \
                 --output text"
            }
            Self::Expired => "generate a new client certificate and rotate to it",
            Self::NotYetValid => "if it should be valid by now, set this machine's clock",
            Self::InvalidChain => {
                "have the CA issue a certificate without what detail names: for client \
                 authentication, not a CA's own, in a chain that leads to a --trust-ca certificate"
            }
            Self::BadSignature => "the client does not hold the key of what it presents",
            Self::PlainHttp => "the endpoint's URL must begin with https://",
            Self::NotTls | Self::LeftHandshake => "nothing, if it is not API Gateway",
            Self::TlsError => {
                "nothing, if it is not API Gateway; portcullis supports TLS 1.2 and 1.3"
            }
            Self::RefusedByClient => {
                "if it is API Gateway, the server's certificate (--cert) needs its full chain to \
                 a CA that API Gateway trusts, the endpoint's name, and to be valid now"
            }
            Self::HandshakeTimeout => "raise --handshake-timeout if it is a slow, honest client",
            Self::TooManyConnections => "raise --max-connections",
            Self::TooManyHandshakes => {
                "raise --max-handshakes, and the limit on open files, if it is a slow, honest client"
            }
            Self::NoServerCertificate => {
                "wait for the first certificate; acme_order_failed gives the reason"
            }
            Self::ProxyProtocol => {
                "if it is the load balancer, give its addresses by --proxy-protocol-from, and have \
                 it send PROXY protocol v2"
            }
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A rejection, with the error whose TLS alert the client receives.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VerifyError {
    pub(crate) reason: Reason,
    pub(crate) error: CertificateError,
    /// The rule that a chain violates.
    pub(crate) detail: Option<String>,
}

impl VerifyError {
    pub(crate) const UNKNOWN: Self =
        Self::new(Reason::UnknownCertificate, CertificateError::UnknownIssuer);
    pub(crate) const EXPIRED: Self = Self::new(Reason::Expired, CertificateError::Expired);
    pub(crate) const NOT_YET_VALID: Self =
        Self::new(Reason::NotYetValid, CertificateError::NotValidYet);

    const fn new(reason: Reason, error: CertificateError) -> Self {
        Self { reason, error, detail: None }
    }

    /// Translates the error of webpki, which is that of the most promising path.
    pub(crate) fn of_chain(error: &webpki::Error) -> Self {
        let alert = match error {
            // A CA of the same name, or a certificate that only claims to be issued by it.
            webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
                return Self::UNKNOWN;
            }
            webpki::Error::CertExpired { .. } => return Self::EXPIRED,
            webpki::Error::CertNotValidYet { .. } => return Self::NOT_YET_VALID,
            webpki::Error::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
            _ => CertificateError::BadEncoding,
        };
        let detail = Some(violated_rule(error));
        Self { detail, ..Self::new(Reason::InvalidChain, alert) }
    }
}

/// The rule of RFC 5280 that a chain violates.
pub(crate) fn violated_rule(error: &webpki::Error) -> String {
    let rule = match error {
        webpki::Error::CaUsedAsEndEntity => "the first certificate is that of a CA",
        webpki::Error::EndEntityUsedAsCa => "an issuer in the chain is not a CA certificate",
        webpki::Error::UnsupportedCriticalExtension => {
            "a certificate has a critical extension that is not supported"
        }
        webpki::Error::RequiredEkuNotFoundContext(_) => {
            "an extended key usage does not include this use"
        }
        webpki::Error::PathLenConstraintViolated => {
            "the chain has more CA certificates than a path length constraint allows"
        }
        webpki::Error::NameConstraintViolation => "a name constraint of a CA excludes a name",
        webpki::Error::UnsupportedCertVersion => "a certificate is not of version 3",
        error => return in_words(error),
    };
    rule.to_owned()
}

/// The name of a webpki error in lower-case words: it has no message of its own.
pub(crate) fn in_words(error: &webpki::Error) -> String {
    let mut words = String::new();
    for c in format!("{error:?}").chars().take_while(char::is_ascii_alphanumeric) {
        if c.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::pki_types::UnixTime;

    use super::*;

    #[test]
    fn error_of_the_verifier_is_shown_in_words() {
        let error = webpki::Error::UnsupportedCriticalExtension;
        assert_eq!(in_words(&error), "unsupported critical extension");
        let time = UnixTime::since_unix_epoch(Duration::ZERO);
        let error = webpki::Error::CertExpired { time, not_after: time };
        assert_eq!(in_words(&error), "cert expired");
    }

    #[test]
    fn rejected_chain_names_the_rule_that_it_violates_and_an_unknown_one_none() {
        for (error, rule) in [
            (webpki::Error::CaUsedAsEndEntity, "that of a CA"),
            (webpki::Error::UnsupportedCriticalExtension, "a critical extension"),
            (webpki::Error::PathLenConstraintViolated, "path length"),
            (webpki::Error::ExtensionValueInvalid, "extension value invalid"),
        ] {
            let rejection = VerifyError::of_chain(&error);
            assert_eq!(rejection.reason, Reason::InvalidChain);
            assert!(rejection.detail.unwrap().contains(rule), "{error:?}");
        }
        assert_eq!(VerifyError::of_chain(&webpki::Error::UnknownIssuer).detail, None);
    }
}
