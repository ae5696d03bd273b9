//! The rules of the operator: pass, strip and set.

use http::Request;

use super::tests::{client, header};
use super::*;

fn rules_for(name: &str) -> [Result<HeaderRules, BadHeaderRule>; 3] {
    let rules = HeaderRules::default();
    [
        rules.clone().pass(header(name)),
        rules.clone().strip(header(name)),
        rules.set(header(name), HeaderValue::from_static("1")),
    ]
}

#[test]
fn reserved_header_has_no_rule_in_any_spelling() {
    for name in [
        "client-cert",
        "Client_Cert",
        "x-client-cert-fingerprint",
        "host",
        "Content_Length",
        "connection",
        "keep.alive",
        "te",
        "transfer_encoding",
        "upgrade",
        "proxy-connection",
    ] {
        for rule in rules_for(name) {
            assert_eq!(rule.unwrap_err(), BadHeaderRule::Reserved(header(name)));
        }
    }
    for name in ["x-remote-user", "x-team", "x-forwarded-host", "via", "hosts"] {
        assert!(rules_for(name).iter().all(Result::is_ok), "{name}");
    }
}

fn sent(rules: &HeaderRules, headers: &[(&str, &str)]) -> HeaderMap {
    let mut request = Request::new(());
    for (name, value) in headers {
        request.headers_mut().append(header(name), HeaderValue::from_str(value).unwrap());
    }
    rules.for_application(&request.into_parts().0, &client(), "192.0.2.7".parse().ok())
}

#[test]
fn operator_rules_pass_strip_and_set() {
    let rules = HeaderRules::default()
        .pass(header("X-Forwarded-Host"))
        .and_then(|rules| rules.pass(header("X-Remote-User")))
        .and_then(|rules| rules.strip(header("X-Debug")))
        .and_then(|rules| rules.strip(header("Via")))
        .and_then(|rules| rules.set(header("X-Team"), HeaderValue::from_static("a, b")))
        .unwrap();
    let received = [
        ("host", "api.example"),
        ("x-forwarded-host", "caller.example"),
        ("x_forwarded_host", "forged"),
        ("x-remote-user", "alice"),
        ("x_remote_user", "forged"),
        ("x_debug", "1"),
        ("x_team", "forged"),
        ("x-team", "forged"),
        ("x-stays", "1"),
    ];
    let headers = sent(&rules, &received);
    assert_eq!(headers["x-forwarded-host"], "caller.example");
    assert_eq!(headers["x-remote-user"], "alice");
    assert_eq!(headers.get_all("x-team").iter().collect::<Vec<_>>(), ["a, b"]);
    assert_eq!(headers["x-stays"], "1");
    for gone in ["x_forwarded_host", "x_remote_user", "x_debug", "x_team", "via"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }

    let headers = sent(&HeaderRules::default(), &received);
    assert_eq!(headers["x-forwarded-host"], "api.example");
    assert!(!headers.contains_key("x-remote-user"));
    assert_eq!((&headers["x_debug"] == "1", &headers["via"] == "1.1 portcullis"), (true, true));
}

#[test]
fn passed_header_is_meant_in_its_usual_spelling_too() {
    for (named, received, expected) in [
        ("x_forwarded_host", "x-forwarded-host", "caller.example"),
        ("X.Forwarded_Host", "x-forwarded-host", "caller.example"),
        ("x-forwarded-host", "x-forwarded-host", "caller.example"),
        ("x_forwarded_host", "x.forwarded.host", "api.example"),
        ("x_real_host", "x-forwarded-host", "api.example"),
    ] {
        let rules = HeaderRules::default().pass(header(named)).unwrap();
        let headers = sent(&rules, &[("host", "api.example"), (received, "caller.example")]);
        assert_eq!(headers["x-forwarded-host"], expected, "{named} {received}");
        assert!(!headers.contains_key("x.forwarded.host"), "{named}");
    }
    let rules = HeaderRules::default().pass(header("x_remote_user")).unwrap();
    assert!(rules.clone().strip(header("x-remote-user")).is_err());
    let headers = sent(&rules, &[("x_remote_user", "alice")]);
    assert_eq!(headers["x_remote_user"], "alice");
}
