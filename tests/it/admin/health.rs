//! `/livez`, `/readyz`, `/metrics` and `/status` of the binary.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use crate::admin::site::{AdminServer, connector, credential};
use crate::support::files::Files;
use crate::support::pki::PKI;
use crate::support::tls::request;
use crate::support::{DEADLINE, Portcullis, run};

#[test]
fn readyz_reports_stopping_during_the_shutdown_delay() {
    let site = Files::new().serve(&["--shutdown-delay", "20s"]);
    assert_eq!(site.get("/livez").0, 200);
    assert_eq!(site.get("/readyz").0, 200);
    site.server.signal("TERM");
    site.until("not ready", || site.get("/readyz").0 == 503);
    assert!(site.get("/readyz").2.contains("stopped"));
    assert_eq!(site.get("/livez").0, 200);
    assert!(TcpStream::connect(site.server.addr()).is_ok());
    assert_eq!(site.status()["ready"], false);
}

#[test]
fn readyz_fails_while_no_client_can_be_accepted() {
    let files = Files::new();
    files.remove("b.pem");
    let site = files.serve(&[]);
    site.files.remove("a.pem");
    site.until("not ready", || site.get("/readyz").0 == 503);
    assert!(site.get("/readyz").2.contains("--trust"), "{:?}", site.get("/readyz"));
    site.files.trust("old.pem", &PKI.expired.cert);
    site.until("old loaded", || site.status()["trusted"].as_array().unwrap().len() == 1);
    assert_eq!(site.get("/readyz").0, 503, "an expired one accepts no client");
    site.files.trust("b.pem", &PKI.b.cert);
    site.until("ready", || site.get("/readyz").0 == 200);
}

#[test]
fn readyz_fails_with_an_expired_server_certificate() {
    let files = Files::new();
    let ended = credential("localhost", 90, 0);
    files.write("server.pem", &ended.cert);
    files.write("server.key", &ended.key);
    let site = files.serve(&[]);
    let (status, _, body) = site.get("/readyz");
    assert_eq!(status, 503);
    assert!(body.contains("the server's certificate has ended"), "{body}");
    site.files.write("server.pem", &PKI.server.cert);
    site.files.write("server.key", &PKI.server.key);
    site.until("ready", || site.get("/readyz").0 == 200);
}

#[test]
fn admin_port_has_its_own_bounds() {
    let site = AdminServer::new();
    // More connections than it has room for, all silent.
    let mut silent: Vec<_> = (0..100).map(|_| TcpStream::connect(site.admin).unwrap()).collect();
    assert_eq!(site.get("/livez").0, 200);
    let mut last = silent.pop().unwrap();
    last.write_all(b"GET /livez HTTP/1.1\r\n").unwrap();
    last.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut response = Vec::new();
    // Whether the end comes as a close or a reset depends on what the kernel still held.
    if let Err(error) = last.read_to_end(&mut response) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "a head that never ends");
    }
    let (status, head, _) = site.exchange(
        b"POST /status HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(status, 405);
    assert!(head.to_lowercase().contains("allow: get, head"), "{head}");
    assert_eq!(site.get("/nothing").0, 404);
}

#[tokio::test]
async fn public_port_serves_no_admin_path() {
    let site = AdminServer::new();
    let mut stream = connector(Some(&PKI.a)).connect(site.server.addr()).await.unwrap();
    for path in ["/metrics", "/status", "/livez"] {
        let response = request(&mut stream, &format!("X: {path}\r\n")).await.unwrap();
        assert!(response.ends_with("hello world\n"));
    }
}

#[test]
fn taken_port_exits_1_and_names_the_flag() {
    let files = Files::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = Portcullis::command();
    command.args(["serve", "--listen", "127.0.0.1:0", "--admin", &address]).args(files.flags());
    let finished = run(&mut command, "");
    assert_eq!(finished.code, Some(1), "{finished}");
    assert!(finished.stderr.contains("--admin"), "{finished}");
}

#[tokio::test]
async fn metrics_have_the_documented_names() {
    let site = AdminServer::new();
    for _ in 0..3 {
        assert!(site.ask(Some(&PKI.a)).await);
    }
    assert!(!site.ask(None).await);
    assert!(!site.ask(Some(&PKI.stranger)).await);
    let mut open = connector(Some(&PKI.b)).connect(site.server.addr()).await.unwrap();
    request(&mut open, "").await.unwrap();
    let labels = |file: &str| {
        let it = site.trusted(file);
        let fingerprint = it["fingerprint"].as_str().unwrap().to_owned();
        format!("{{fingerprint=\"{fingerprint}\",file={}}}", it["file"])
    };
    let (a, b) = (labels("a.pem"), labels("b.pem"));
    let a_of = |name: &str| format!("portcullis_client_certificate_{name}{a}");
    let b_of = |name: &str| format!("portcullis_client_certificate_{name}{b}");
    site.until_refused(2);
    site.until("all closed but one", || site.metric("portcullis_connections") == Some(1.0));
    for (series, expected) in [
        ("portcullis_handshakes_total{result=\"accepted\"}", 4.0),
        ("portcullis_handshakes_total{result=\"no_certificate\"}", 1.0),
        ("portcullis_handshakes_total{result=\"unknown_certificate\"}", 1.0),
        ("portcullis_handshakes_total{result=\"expired\"}", 0.0),
        ("portcullis_handshake_duration_seconds_count", 4.0),
        ("portcullis_requests_total{status=\"200\"}", 4.0),
        ("portcullis_request_duration_seconds_count", 4.0),
        ("portcullis_resumptions_total{result=\"full\"}", 4.0),
        ("portcullis_trust_generation", 1.0),
        ("portcullis_reload_last_successful", 1.0),
        ("portcullis_reloads_total{result=\"success\"}", 0.0),
        ("portcullis_reloads_total{result=\"failure\"}", 0.0),
        ("portcullis_trust_files_failed", 0.0),
        (&a_of("handshakes_total"), 3.0),
        (&a_of("requests_total"), 3.0),
        (&a_of("connections"), 0.0),
        (&b_of("handshakes_total"), 1.0),
        (&b_of("connections"), 1.0),
    ] {
        assert_eq!(site.metric(series), Some(expected), "{series}\n{}", site.get("/metrics").2);
    }
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    for (series, least, most) in [
        (a_of("last_seen_timestamp_seconds"), now - 60.0, now),
        (a_of("expiration_timestamp_seconds"), now + 100.0 * 86400.0, now + 365.0 * 86400.0),
        ("portcullis_server_certificate_expiration_timestamp_seconds".to_owned(), now, f64::MAX),
        ("portcullis_reload_last_success_timestamp_seconds".to_owned(), now - 60.0, now),
    ] {
        let value = site.metric(&series).expect(&series);
        assert!((least..=most).contains(&value), "{series} {value}");
    }
}

#[test]
fn every_metric_has_help_text() {
    let site = AdminServer::new();
    let (_, head, text) = site.get("/metrics");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let name = line.split(['{', ' ']).next().unwrap();
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let family = family.filter(|name| name.ends_with("_duration_seconds")).unwrap_or(name);
        for about in ["HELP", "TYPE"] {
            assert!(text.contains(&format!("# {about} {family} ")), "{about} of {name}\n{text}");
        }
    }
}

#[tokio::test]
async fn series_of_a_removed_certificate_disappear() {
    let site = AdminServer::new();
    assert!(site.ask(Some(&PKI.b)).await);
    let has_b = || site.get("/metrics").2.contains("b.pem");
    assert!(has_b());
    site.files.remove("b.pem");
    site.until("gone", || !has_b());
    assert!(site.get("/metrics").2.contains("a.pem"));
    site.until("counted", || {
        site.metric("portcullis_reloads_total{result=\"success\"}") == Some(1.0)
    });
}

#[tokio::test]
async fn counters_survive_a_reload_that_keeps_the_certificate() {
    let site = AdminServer::new();
    assert!(site.ask(Some(&PKI.a)).await);
    site.files.trust("c.pem", &PKI.other_subject.cert);
    site.until("changed", || site.status()["generation"] == 2);
    let a = site.trusted("a.pem");
    assert_eq!((&a["handshakes"], &a["requests"]), (&1.into(), &1.into()));
    assert_eq!(a["verdict"], "in use");
    assert_eq!(site.trusted("c.pem")["verdict"], "waiting for its first use");
}

#[test]
fn file_error_is_counted_and_shown_until_it_is_fixed() {
    let site = AdminServer::new();
    site.files.trust("broken.pem", "junk");
    site.until("failed", || site.metric("portcullis_trust_files_failed") == Some(1.0));
    assert_eq!(site.metric("portcullis_reload_last_successful"), Some(0.0));
    assert_eq!(site.metric("portcullis_reloads_total{result=\"failure\"}"), Some(1.0));
    let status = site.status();
    assert_eq!(status["problems"][0]["severity"], "error");
    assert!(status["problems"][0]["file"].as_str().unwrap().ends_with("broken.pem"));
    assert_eq!(site.get("/readyz").0, 200, "what was good before is still active");
    site.files.remove("broken.pem");
    site.until("mended", || site.metric("portcullis_reload_last_successful") == Some(1.0));
    assert_eq!(site.metric("portcullis_trust_files_failed"), Some(0.0));
}

#[tokio::test]
async fn a_used_certificate_with_an_unused_successor_asks_for_the_switch() {
    let files = Files::new();
    let soon = credential("soon", 300, 9);
    files.trust("soon.pem", &soon.cert);
    let site = files.serve(&[]);
    assert!(site.ask(Some(&soon)).await);
    let certificate = site.trusted("soon.pem");
    assert_eq!((&certificate["state"], &certificate["urgency"]), (&"in_use".into(), &"now".into()));
    let step = "choose its successor for the stage, then deploy the API";
    assert_eq!(certificate["next_step"], step);
    // The twin, which ends last, is not urgent.
    let twin = site.trusted("a.pem");
    assert_eq!((&twin["urgency"], &twin["next_step"]), (&"none".into(), &Value::Null));
}

#[test]
fn metrics_of_the_process_and_the_build_are_there_in_the_sandbox() {
    let site = AdminServer::new();
    site.server.wait_for_event("sandboxed", |_| true);
    let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    let (_, _, metrics) = site.get("/metrics");
    let build = metrics.lines().find(|line| line.starts_with("portcullis_build_info{"));
    assert!(build.is_some_and(|build| build.contains(&version)), "{metrics}");
    for name in ["process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"]
    {
        assert!(site.metric(name).is_some_and(|value| value > 0.0), "{name}: {metrics}");
    }
}

#[test]
fn readyz_includes_the_application_only_if_asked() {
    let application = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", application.local_addr().unwrap());
    let site = Files::new().serve(&["--upstream", &url]);
    // Not yet known.
    assert!(site.metric("portcullis_upstream_up").is_some_and(f64::is_nan));
    assert_eq!(site.get("/readyz?upstream").0, 200);
    assert_eq!(site.metric("portcullis_upstream_up"), Some(1.0));
    drop(application);
    assert_eq!(site.get("/readyz").0, 200);
    let (status, _, body) = site.get("/readyz?upstream");
    assert_eq!((status, body.contains("the application")), (503, true), "{body}");
    assert_eq!(site.metric("portcullis_upstream_up"), Some(0.0));
    assert_eq!(site.get("/readyz?upstream=1").0, 503);
    for query in ["upstrem", "upstream=0", "upstream=1&x"] {
        assert_eq!(site.get(&format!("/readyz?{query}")).0, 400, "{query}");
    }
}

#[test]
fn only_addresses_and_internal_names_reach_the_state() {
    let site = AdminServer::new();
    let status = |path: &str, host: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        site.exchange(request.as_bytes()).0
    };
    for path in ["/status", "/metrics", "/"] {
        assert_eq!(status(path, "localhost:9443"), 200, "{path}");
        assert_eq!(status(path, "rebound.example.com"), 421, "{path}");
    }
    for path in ["/livez", "/readyz"] {
        assert_eq!(status(path, "rebound.example.com"), 200, "{path}");
    }
}

#[tokio::test]
async fn status_lists_the_last_fifty_rejections_latest_first() {
    let site = AdminServer::new();
    for _ in 0..60 {
        assert!(!site.ask(None).await);
    }
    site.until_refused(60);
    assert!(!site.ask(Some(&PKI.stranger)).await);
    site.until_refused(61);
    let status = site.status();
    assert_eq!(status["version"], 2);
    let refusals = status["refusals"].as_array().unwrap();
    assert_eq!(refusals.len(), 50);
    assert_eq!(refusals[0]["reason"], "unknown_certificate");
    assert_eq!(refusals[0]["subject"], "CN=ApiGateway,L=Seattle,C=US");
    assert_eq!(refusals[49]["reason"], "no_certificate");
    assert_eq!(status["handshakes"]["refused"]["no_certificate"], 60);
}

#[test]
fn certificate_that_ends_without_a_successor_is_urgent() {
    let files = Files::new();
    for name in ["a.pem", "b.pem"] {
        files.remove(name);
    }
    files.trust("soon.pem", &credential("soon", 300, 9).cert);
    let site = files.serve(&[]);
    let judged = |file: &str| {
        let certificate = site.trusted(file);
        ["state", "urgency", "verdict"]
            .map(|key| certificate[key].as_str().unwrap_or_default().to_owned())
    };
    let unused = "no request since the restart, less than a day ago";
    let verdict = format!("{unused}; ends in 9 days and no successor is loaded");
    assert_eq!(judged("soon.pem"), ["unknown", "now", &verdict]);
    assert!(site.trusted("soon.pem")["next_step"].as_str().unwrap().contains("generate"));
    let urgency = || {
        let (_, _, metrics) = site.get("/metrics");
        let is_its = |line: &&str| {
            line.starts_with("portcullis_client_certificate_urgency{") && line.contains("soon.pem")
        };
        metrics.lines().find(is_its).map(|line| line.rsplit_once(' ').unwrap().1.to_owned())
    };
    assert_eq!(urgency().as_deref(), Some("2"));
    let event = site.server.wait_for_event("certificate_expiring", |event| {
        event["file"].as_str().is_some_and(|file| file.ends_with("soon.pem"))
    });
    assert!(event["remedy"].as_str().unwrap().contains("no successor is loaded"), "{event}");
    site.files.trust("b.pem", &PKI.b.cert);
    site.until("succeeded", || judged("soon.pem")[1] == "soon");
    assert_eq!(urgency().as_deref(), Some("1"));
    site.files.trust("old.pem", &PKI.expired.cert);
    site.until("expired", || judged("old.pem")[0] == "expired");
    assert_eq!(judged("old.pem")[1], "none");
}

#[tokio::test(flavor = "multi_thread")]
async fn log_follows_a_certificate_that_becomes_more_urgent() {
    let files = Files::trusting(&[&PKI.b]);
    let soon = credential("soon", 300, 9);
    files.trust("soon.pem", &soon.cert);
    files.trust("old.pem", &PKI.expired.cert);
    let site = files.serve(&["--poll-interval", "1s"]);
    let event = |urgency: &str| {
        site.server.wait_for_event("certificate_expiring", |event| event["urgency"] == urgency)
    };
    event("soon");
    assert!(site.ask(Some(&soon)).await);
    let used = event("now");
    assert_eq!(used["remedy"], site.trusted("soon.pem")["next_step"]);
    assert_eq!(used["verdict"], site.trusted("soon.pem")["verdict"]);
    let ended = site.server.wait_for_event("trust_file_warning", |event| {
        event["file"].as_str().is_some_and(|file| file.ends_with("old.pem"))
    });
    assert_eq!(ended["remedy"], site.trusted("old.pem")["next_step"]);
}
