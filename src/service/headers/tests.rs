//! Which headers pass, in every spelling.

use http::Request;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

pub(super) fn header(name: &str) -> HeaderName {
    HeaderName::from_bytes(name.as_bytes()).unwrap()
}

#[test]
fn identity_header_is_recognised_in_every_spelling() {
    for name in [
        "client-cert",
        "client_cert",
        "client.cert-chain",
        "x-ssl-client-verify",
        "x_ssl_cert",
        "x-client-cert-fingerprint",
        "x-client_cert",
        "x-amzn-mtls-clientcert",
        "x_amzn_mtls_anything",
        "x-forwarded-client-cert",
        "x~forwarded~client~cert",
    ] {
        assert!(is_identity(name), "{name}");
        assert!(is_stripped(&header(name)), "{name}");
    }
    for name in [
        "host",
        "client-id",
        "x-client-id",
        "x-amzn-trace-id",
        "x-amzn-apigateway-api-id",
        "x-forwarded-port",
        "x-auth-token",
        "x-authentication",
        "x-consumers",
        "x-goog-api-key",
        "x-real-time",
        "x-vercel-id",
        "sslx",
        "authorization",
        "cookie",
        "content-type",
        "transfer",
        "trailer",
    ] {
        assert!(!is_identity(name), "{name}");
        assert!(!is_stripped(&header(name)), "{name}");
    }
}

#[test]
fn connection_nominates_headers_but_never_host() {
    let mut headers = HeaderMap::new();
    headers.append(header::CONNECTION, HeaderValue::from_static("close"));
    headers.append(header::CONNECTION, HeaderValue::from_static("keep-alive , X-One,,host"));
    headers.append(header::CONNECTION, HeaderValue::from_static("x-two"));
    let nominating = nominating_values(&headers);
    for (name, expected) in
        [("x-one", true), ("x-two", true), ("host", false), ("x-three", false), ("x", false)]
    {
        assert_eq!(is_nominated(&nominating, &header(name)), expected, "{name}");
    }
}

#[test]
fn trailers_that_frame_or_identify_are_stripped() {
    let mut trailers = HeaderMap::new();
    for name in ["x-sum", "content-length", "host", "client_cert", "x-forwarded-for", "cookie"] {
        trailers.insert(header(name), HeaderValue::from_static("1"));
    }
    for_trailers(&mut trailers);
    assert_eq!(trailers.keys().collect::<Vec<_>>(), ["x-sum"]);
}

/// A name that an application folds to this one.
fn spelled(name: &'static str) -> impl Strategy<Value = String> {
    let separators = proptest::collection::vec("[-_.!#$%&'*+^`|~]", name.len());
    let capitals = proptest::collection::vec(any::<bool>(), name.len());
    (separators, capitals).prop_map(|(separators, capitals)| {
        let characters = name.chars().zip(separators).zip(capitals);
        let spell = |((character, separator), is_capital): ((char, String), bool)| match character {
            '-' => separator,
            other if is_capital => other.to_uppercase().to_string(),
            other => other.to_string(),
        };
        characters.map(spell).collect()
    })
}

const IDENTITY: [&str; 30] = [
    "cf-client-cert",
    "client-cert",
    "ssl-client",
    "x-amzn-mtls-",
    "x-arr-clientcert",
    "x-client-cert",
    "x-client-dn",
    "x-client-verif",
    "x-forwarded-client-cert",
    "x-forwarded-tls-client",
    "x-mtls-",
    "x-ssl",
    "x-tls-",
    "remote-user",
    "x-remote-user",
    "x-forwarded-user",
    "x-auth-request-",
    "cf-connecting-ip",
    "cf-access-",
    "tailscale-user-",
    "x-amzn-oidc-",
    "x-appengine-",
    "x-auth-user",
    "x-authentik-",
    "x-consumer-",
    "x-credential-identifier",
    "x-goog-iap-",
    "x-ms-client-principal",
    "x-pomerium-",
    "x-vouch-",
];
const STRIPPED: [&str; 42] = [
    "forwarded",
    "x-forwarded-proto",
    "x-real-ip",
    "content-length",
    "expect",
    "x-client-ip",
    "true-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-forwarded",
    "x-forwarded-host",
    "x-forwarded-prefix",
    "x-forwarded-ssl",
    "x-forwarded-scheme",
    "x-original-url",
    "x-rewrite-url",
    "x-original-host",
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-forwarded-uri",
    "x-forwarded-server",
    "x-script-name",
    "proxy",
    "akamai-client-ip",
    "cf-pseudo-ipv4",
    "do-connecting-ip",
    "fastly-client-ip",
    "fly-client-ip",
    "incap-client-ip",
    "x-accel-mapping",
    "x-forwarded-https",
    "x-forwarded-login",
    "x-forwarded-roles",
    "x-middleware-subrequest",
    "x-nf-client-connection-ip",
    "x-orig-host",
    "x-original-forwarded-for",
    "x-real-host",
    "x-sendfile-type",
    "x-vercel-forwarded-for",
    "x-vercel-proxied-for",
];
const CONNECTION_ONLY: [&str; 9] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];
const EXACT_SPELLING: [&str; 3] =
    ["x-amzn-apigateway-api-id", "x-forwarded-for", "x-forwarded-port"];

fn known() -> impl Strategy<Value = String> {
    let names = [&IDENTITY[..], &STRIPPED, &CONNECTION_ONLY].concat();
    proptest::sample::select(names).prop_flat_map(spelled)
}

proptest! {
    #[test]
    fn stripped_header_is_stripped_in_every_spelling(name in known()) {
        prop_assert!(is_stripped(&header(&name)), "{}", name);
    }

    #[test]
    fn lookalike_of_a_passing_header_is_stripped(
        name in proptest::sample::select(EXACT_SPELLING.to_vec()).prop_flat_map(spelled)
    ) {
        let is_right = EXACT_SPELLING.contains(&name.to_lowercase().as_str());
        prop_assert_eq!(!is_stripped(&header(&name)), is_right, "{}", name);
    }

    /// For any request, only the verified identity is sent, and the other headers keep their order.
    #[test]
    fn application_receives_only_the_verified_identity(
        received in proptest::collection::vec(
            (prop_oneof![known(), "[a-z]{1,3}(-[a-z]{1,3})?"], "[ -~]{0,9}"), 0..12)
    ) {
        let client = client();
        let mut request = Request::new(());
        for (name, value) in &received {
            let Ok(value) = HeaderValue::from_str(value) else { continue };
            request.headers_mut().append(header(name), value);
        }
        let head = request.into_parts().0;
        let sent = for_application(&head, &client, "192.0.2.7".parse().ok());
        let certificate = sent.get_all(CLIENT_CERT).iter().collect::<Vec<_>>();
        prop_assert_eq!(certificate, [&certificate_headers(&client)[0]]);
        let ours = [CLIENT_CERT, FINGERPRINT, FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST, header::VIA];
        for name in sent.keys().filter(|name| !ours.contains(name)) {
            prop_assert!(!is_identity(name.as_str()), "{}", name);
        }
        let nominating = nominating_values(&head.headers);
        let kept = |name: &&HeaderName| {
            !ours.contains(name) && !is_stripped(name) && !is_nominated(&nominating, name)
        };
        let before: Vec<_> = head.headers.keys().filter(kept).collect();
        let after: Vec<_> = sent.keys().filter(|name| !ours.contains(name)).collect();
        prop_assert_eq!(before, after);
    }

    /// The same by the rules of README and RFC 9110, with headers that `Connection` names.
    #[test]
    fn headers_pass_exactly_by_the_documented_rules(
        received in proptest::collection::vec((any_name(), "[!-~]{1,9}"), 0..12),
        named in proptest::collection::vec(
            (any::<Option<Index>>(), any_name(), "[ \t]{0,2}"), 0..4),
        is_joined in any::<bool>(),
    ) {
        let mut request = Request::new(());
        let headers = request.headers_mut();
        for (name, value) in &received {
            headers.append(header(name), HeaderValue::from_str(value).unwrap());
        }
        let named: Vec<_> =
            named
                .iter()
                .map(|(of_those_that_received, name, space)| {
                    let index = of_those_that_received.filter(|_| !received.is_empty());
                    let name = index.map_or(name, |index| &index.get(&received).0);
                    format!("{space}{name}{space}")
                })
                .collect();
        let lines = if is_joined { vec![named.join(",")] } else { named.clone() };
        for line in &lines {
            headers.append(header::CONNECTION, HeaderValue::from_str(line).unwrap());
        }
        let is_named = |name: &str| {
            // A received header called Connection nominates too.
            let more = received.iter().filter(|(name, _)| name.eq_ignore_ascii_case("connection"));
            let more = more.flat_map(|(_, value)| value.split(','));
            let mut all = named.iter().map(String::as_str).chain(more);
            name != "host" && all.any(|other| other.trim().eq_ignore_ascii_case(name))
        };
        let head = request.into_parts().0;
        let sent = for_application(&head, &client(), "192.0.2.7".parse().ok());

        let expected: Vec<_> = head
            .headers
            .iter()
            .filter(|(name, _)| passes_by_the_rules(name.as_str()) && !is_named(name.as_str()))
            .map(|(name, value)| (name.to_string(), value.clone()))
            .collect();
        let ours = [CLIENT_CERT, FINGERPRINT, FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST, header::VIA];
        let passed: Vec<_> = sent
            .iter()
            .filter(|(name, _)| !ours.contains(name))
            .map(|(name, value)| (name.to_string(), value.clone()))
            .collect();
        prop_assert_eq!(passed, expected);

        for (name, last) in [("x-forwarded-for", "192.0.2.7"), ("via", "1.1 portcullis")] {
            let before = received.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
            let before = before.map(|(_, value)| value.as_str()).filter(|_| !is_named(name));
            let all: Vec<_> = before.chain([last]).collect();
            prop_assert_eq!(sent.get_all(header(name)).iter().count(), 1);
            prop_assert_eq!(sent[name].to_str().unwrap(), all.join(", "));
        }
        prop_assert_eq!(sent.get_all(FORWARDED_PROTO).iter().collect::<Vec<_>>(), ["https"]);
        for (name, value) in [CLIENT_CERT, FINGERPRINT].iter().zip(certificate_headers(&client())) {
            prop_assert_eq!(sent.get_all(name).iter().collect::<Vec<_>>(), [&value]);
        }
    }

    #[test]
    fn response_headers_keep_their_order(names in proptest::collection::vec("(x-[a-e]|keep-alive|te)", 0..12)) {
        let mut headers = HeaderMap::new();
        for (number, name) in names.iter().enumerate() {
            headers.append(header(name), HeaderValue::from(number));
        }
        let expected: Vec<_> = headers
            .iter()
            .filter(|(name, _)| name.as_str().starts_with("x-"))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        for_client(&mut headers);
        let left: Vec<_> =
            headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        prop_assert_eq!(left, expected);
    }
}

/// Names that are stripped, that resemble passing ones, and that pass.
fn any_name() -> impl Strategy<Value = String> {
    let lookalikes = proptest::sample::select(EXACT_SPELLING.to_vec()).prop_flat_map(spelled);
    let right = proptest::sample::select(vec![
        "x-forwarded-for",
        "X-Forwarded-For",
        "via",
        "Connection",
        "host",
        "x-one",
        "x-two",
        "accept",
        "cookie",
        "x-amzn-apigateway-api-id",
        "x-forwarded-port",
        "x-auth-token",
        "authorization",
        "xclient-cert",
        "client-cer",
        "x-amzn-trace-id",
        "content-lengths",
        "hosts",
        "trailer",
    ]);
    prop_oneof![2 => known(), 1 => lookalikes, 3 => right.prop_map(str::to_owned)]
}

/// True if a received header passes, by README and RFC 9110.
fn passes_by_the_rules(name: &str) -> bool {
    let folded: String = name
        .chars()
        .map(|character| if character.is_ascii_alphanumeric() { character } else { '-' })
        .collect();
    let is_alike = EXACT_SPELLING.contains(&folded.as_str());
    !IDENTITY.iter().any(|prefix| folded.starts_with(prefix))
        && !STRIPPED.contains(&folded.as_str())
        && !CONNECTION_ONLY.contains(&folded.as_str())
        && (!is_alike || folded == name)
        && !["via", "x-forwarded-for"].contains(&name)
}

pub(super) fn client() -> ClientIdentity {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    let pem = include_bytes!("../../../certs-example/client-1.pem");
    ClientIdentity::for_test(CertificateDer::from_pem_slice(pem).unwrap().to_vec(), "a").unwrap()
}

#[test]
fn client_cert_header_follows_rfc_9440() {
    let client = client();
    let [certificate, fingerprint] = certificate_headers(&client);
    let inner = certificate.to_str().unwrap().strip_prefix(':').unwrap();
    let der = STANDARD.decode(inner.strip_suffix(':').unwrap()).unwrap();
    assert_eq!(der, client.der());
    assert_eq!(fingerprint.to_str().unwrap(), client.fingerprint().to_string());
    let head = Request::new(()).into_parts().0;
    let sent = for_application(&head, &client, "::ffff:192.0.2.7".parse().ok());
    assert_eq!(sent[FORWARDED_FOR], "192.0.2.7");
    assert_eq!(sent[header::VIA], "1.1 portcullis");
}

proptest! {
    #[test]
    fn address_is_formatted_as_display_does(bits: u32, digit in 0u8..=255) {
        for address in [bits, bits & 0xff, u32::from_be_bytes([digit; 4])] {
            let address = IpAddr::V4(address.into());
            let mut list = List::default();
            list.push_address(address);
            prop_assert_eq!(list.value().unwrap(), address.to_string());
        }
    }
}
