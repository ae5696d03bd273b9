//! The access log, the refusals, and a flood of them.

use serde_json::Value;

use crate::admin::site::{AdminServer, connector};
use crate::support::files::Files;
use crate::support::pki::PKI;
use crate::support::tls::request;
use crate::support::{DEADLINE, wait_for};

fn events(site: &AdminServer, name: &str) -> Vec<Value> {
    let log = site.server.log();
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["message"] == name).collect()
}

#[tokio::test]
async fn access_line_names_certificate_and_peer() {
    let site = AdminServer::new();
    let headers = "x-amzn-apigateway-api-id: a1b2c3\r\nX-Amzn-Trace-Id: Root=1-5\r\n";
    let mut stream = connector(Some(&PKI.a)).connect(site.server.addr()).await.unwrap();
    request(&mut stream, headers).await.unwrap();
    request(&mut stream, "").await.unwrap();
    let line = site.server.wait_for_event("request", |_| true);
    for (field, value) in [
        ("target", Value::from("portcullis::access")),
        ("level", "INFO".into()),
        ("method", "GET".into()),
        ("path", "/".into()),
        ("status", 200.into()),
        ("bytes", 12.into()),
        ("certificate", site.trusted("a.pem")["fingerprint"].clone()),
        ("api_id", "a1b2c3".into()),
        ("trace_id", "Root=1-5".into()),
        ("peer", stream.get_ref().0.local_addr().unwrap().to_string().into()),
        ("cut_off", Value::Null),
    ] {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    assert!(line["duration"].as_f64().is_some_and(|took| took > 0.0 && took < 30.0), "{line}");
    let second = site.server.wait_for_event("request", |_| true);
    assert_eq!(second.get("api_id"), None, "{second}");
    drop(stream);
    let ended = site.server.wait_for_event("connection_closed", |_| true);
    assert_eq!((&ended["requests"], &ended["reason"]), (&2.into(), &"done".into()));
}

#[tokio::test]
async fn access_log_off_drops_only_request_events() {
    let site = Files::new().serve(&["--access-log", "off"]);
    assert!(site.ask(Some(&PKI.a)).await);
    site.server.wait_for_event("connection_closed", |_| true);
    assert!(events(&site, "request").is_empty(), "{}", site.server.log());
    assert_eq!(site.trusted("a.pem")["requests"], 1);
}

#[tokio::test]
async fn rejection_names_the_nearest_trusted_certificate() {
    let site = AdminServer::new();
    // `expired` and `not_yet_valid` have the key of `a`.
    assert!(!site.ask(Some(&PKI.expired)).await);
    let event = site.server.wait_for_event("client_rejected", |_| true);
    assert_eq!(event["reason"], "unknown_certificate");
    let nearest = event["nearest"].as_str().unwrap();
    assert!(nearest.contains("same key") && nearest.contains("a.pem"), "{event}");
    assert!(!site.ask(Some(&PKI.stranger)).await);
    let event = site.server.wait_for_event("client_rejected", |_| true);
    assert_eq!(event.get("nearest"), None, "{event}");
    site.files.remove("b.pem");
    site.server.wait_for_event("trust_reloaded", |_| true);
    assert!(!site.ask(Some(&PKI.b)).await);
    let event = site.server.wait_for_event("client_rejected", |_| true);
    let nearest = event["nearest"].as_str().unwrap();
    assert!(nearest.contains("removed at 20") && nearest.contains("b.pem"), "{event}");
    site.files.trust("old.pem", &PKI.expired.cert);
    site.server.wait_for_event("trust_reloaded", |_| true);
    assert!(!site.ask(Some(&PKI.expired)).await);
    let event = site.server.wait_for_event("client_rejected", |_| true);
    assert_eq!(event["reason"], "expired");
    assert!(event["nearest"].as_str().unwrap().contains("same certificate"), "{event}");
}

#[tokio::test]
async fn flood_of_rejections_is_summed_up_and_none_is_lost() {
    const MANY: u64 = 150;
    let site = AdminServer::new();
    for _ in 0..MANY {
        assert!(!site.ask(None).await);
    }
    let output = || {
        let one_by_one = events(&site, "client_rejected").len() as u64;
        let sums = events(&site, "refusals_summed");
        (one_by_one, sums.iter().map(|sum| sum["count"].as_u64().unwrap()).sum::<u64>())
    };
    // The summary comes although no client is rejected any more.
    assert!(wait_for(DEADLINE, || output().0 + output().1 == MANY), "{:?}", output());
    assert!(output().0 <= MANY / 3, "{:?}", output());
    let sum = &events(&site, "refusals_summed")[0];
    assert!(sum["reasons"][0].as_str().unwrap().starts_with("no_certificate "), "{sum}");
}

#[tokio::test]
async fn pending_rejection_summary_is_logged_before_the_end() {
    let site = AdminServer::new();
    for _ in 0..12 {
        assert!(!site.ask(None).await);
    }
    site.until_refused(12);
    site.server.signal("TERM");
    site.server.wait_for_event("stopped", |_| true);
    let sums: u64 =
        events(&site, "refusals_summed").iter().filter_map(|sum| sum["count"].as_u64()).sum();
    assert_eq!(events(&site, "client_rejected").len() as u64 + sums, 12, "{}", site.server.log());
}
