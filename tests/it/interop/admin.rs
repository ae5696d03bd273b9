//! What the operator sees, before what operators have: a browser and Prometheus.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread;

use crate::admin::site::{AdminServer, credential, params};
use crate::support::files::Files;
use crate::support::pki::{Credential, PKI};
use crate::support::{Finished, run};
use rcgen::{DnType, KeyPair};
use serde_json::Value;

const MARKUP: &str = "<img src=x onerror=\"document.title='owned'\"><b>bold</b>";

/// One browser at a time: two cores have enough to do with it.
static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// What a page has become when its scripts have run for 10 s of a clock that does not wait.
fn browse(address: SocketAddr) -> String {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let profile = tempfile::tempdir().unwrap();
    let mut chromium = Command::new("chromium");
    chromium.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--virtual-time-budget=10000",
        "--dump-dom",
    ]);
    chromium.arg(format!("--user-data-dir={}", profile.path().display()));
    chromium.arg(format!("http://{address}/"));
    let Finished { code, stdout, stderr } = run(&mut chromium, "");
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("</html>"), "{stdout}\n{stderr}");
    // Style and script are not what it has become.
    let (_, body) = stdout.split_once("<body>").expect("a body");
    let (body, _) = body.split_once("<script>").expect("a script");
    let (head, _) = stdout.split_once("<style>").expect("a style");
    format!("{head}{body}")
}

#[tokio::test]
#[ignore = "needs Chromium and promtool; run by .ci/run"]
async fn status_page_shows_certificates_problems_and_rejections() {
    let files = Files::new();
    files.trust("old.pem", &PKI.expired.cert);
    let site = files.serve(&[]);
    assert!(site.ask(Some(&PKI.a)).await);
    site.files.trust("broken.pem", "junk");
    site.server.wait_for_event("reload_failed", |_| true);
    assert!(!site.ask(Some(&PKI.stranger)).await);
    site.until_refused(1);
    let page = browse(site.admin);
    let a = site.trusted("a.pem");
    for part in [
        "<title>ready · portcullis</title>",
        a["file"].as_str().unwrap(),
        a["fingerprint"].as_str().unwrap(),
        ">in use<",
        ">no request since the restart, less than a day ago<",
        ">expired ",
        "185 days left",
        "broken.pem: there is no certificate in it",
        ">unknown certificate<",
        "CN=ApiGateway,L=Seattle,C=US",
    ] {
        assert!(page.contains(part), "{part}\n{page}");
    }
}

#[tokio::test]
#[ignore = "needs Chromium and promtool; run by .ci/run"]
async fn subject_of_a_stranger_is_text_and_no_markup() {
    let site = AdminServer::new();
    let key = KeyPair::generate().unwrap();
    let mut hostile = params("", 1, 9);
    hostile.distinguished_name.push(DnType::CommonName, MARKUP);
    let cert = hostile.self_signed(&key).unwrap().pem();
    let hostile = Credential { name: "hostile", cert, key: key.serialize_pem() };
    assert!(!site.ask(Some(&hostile)).await);
    site.until_refused(1);
    let subject = site.status()["refusals"][0]["subject"].as_str().unwrap().to_owned();
    assert!(subject.contains("img src=x") && subject.contains("onerror"), "{subject}");
    let page = browse(site.admin);
    assert!(page.contains("&lt;img src=x onerror="), "{page}");
    is_unharmed(&page);
}

#[test]
#[ignore = "needs Chromium and promtool; run by .ci/run"]
fn status_text_is_never_markup() {
    let files = Files::new();
    files.trust("soon.pem", &credential("soon", 10, 9).cert);
    let site = files.serve(&[]);
    let mut status = site.status();
    status["refusals"] = serde_json::json!([{ "at": status["at"], "reason": "x", "peer": "x",
        "fingerprint": "x", "subject": "x", "serial": "x", "not_before": status["at"],
        "not_after": status["at"], "nearest": "x", "detail": "x", "remedy": "x" }]);
    status["problems"] = serde_json::json!([{ "severity": "error", "file": "x", "line": 7,
        "problem": "x", "remedy": "x" }]);
    spoil(&mut status);
    let page = browse(stand_in(&site, vec![status]));
    assert!(page.matches("&lt;img src=x").count() > 20, "{page}");
    is_unharmed(&page);
}

/// Every text but the dates becomes markup.
fn spoil(value: &mut Value) {
    match value {
        Value::String(text) if !text.ends_with('Z') => *text = MARKUP.to_owned(),
        Value::Array(values) => values.iter_mut().for_each(spoil),
        Value::Object(values) => values.values_mut().for_each(spoil),
        _ => {}
    }
}

fn is_unharmed(page: &str) {
    for markup in ["<img", "<b>bold", "owned</title>"] {
        assert!(!page.contains(markup), "{markup}\n{page}");
    }
}

#[test]
#[ignore = "needs Chromium and promtool; run by .ci/run"]
fn status_page_refreshes_itself() {
    let site = AdminServer::new();
    let before = site.status();
    let mut after = before.clone();
    after["generation"] = 4711.into();
    after["trusted"].as_array_mut().unwrap().pop();
    let page = browse(stand_in(&site, vec![before, after]));
    assert!(page.contains("generation 4711"), "{page}");
    assert!(page.contains("a.pem") && !page.contains("b.pem"), "{page}");
}

/// Serves the real page with its real headers, and these responses to `/status`, the last of them
/// again and again.
fn stand_in(site: &AdminServer, statuses: Vec<Value>) -> SocketAddr {
    let (_, head, page) = site.get("/");
    let policy = head.lines().find(|line| line.starts_with("content-security-policy: "));
    let policy = policy.expect("a policy").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (page, policy) = (page.clone(), policy.clone());
            let (statuses, asked) = (statuses.clone(), Arc::clone(&asked));
            thread::spawn(move || {
                let response = |path: &str| match path {
                    "/" => (policy.as_str(), "text/html; charset=utf-8", page.clone()),
                    "/status" => {
                        let nth = asked.fetch_add(1, Ordering::Relaxed).min(statuses.len() - 1);
                        ("x: x", "application/json", statuses[nth].to_string())
                    }
                    _ => ("x: x", "text/plain", String::new()),
                };
                let _ = respond_once(stream, response);
            });
        }
    });
    address
}

fn respond_once<'a>(
    mut stream: TcpStream,
    response: impl FnOnce(&str) -> (&'a str, &'a str, String),
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let (header, kind, body) = response(first.split(' ').nth(1).unwrap_or_default());
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\n{header}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all((head + &body).as_bytes())
}

fn promtool(arguments: &[&str], input: &str) {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let finished = run(
        Command::new("sh").current_dir(deploy).arg("-c").arg(
            // promtool reads metrics from standard input, to its end.
            format!("head -c {} | promtool {}", input.len(), arguments.join(" ")),
        ),
        input,
    );
    assert_eq!(finished.code, Some(0), "promtool {arguments:?}: {finished}");
}

#[test]
#[ignore = "needs Chromium and promtool; run by .ci/run"]
fn alert_rules_pass_their_tests() {
    promtool(&["check", "rules", "portcullis.rules.yml"], "");
    promtool(&["test", "rules", "portcullis.rules_test.yml"], "");
}

#[tokio::test]
#[ignore = "needs Chromium and promtool; run by .ci/run"]
async fn promtool_accepts_the_metrics() {
    let site = AdminServer::new();
    assert!(site.ask(Some(&PKI.a)).await);
    assert!(!site.ask(None).await);
    let (_, _, metrics) = site.get("/metrics");
    promtool(&["check", "metrics"], &metrics);
}

#[tokio::test]
#[ignore = "needs Chromium and promtool; run by .ci/run"]
async fn alert_rules_name_existing_metrics() {
    let names = metrics_named_in(include_str!("../../../deploy/portcullis.rules.yml"));
    assert_exported(&names).await;
}

#[tokio::test]
#[ignore = "needs Chromium and promtool; run by .ci/run"]
async fn dashboard_queries_existing_metrics() {
    let dashboard: Value =
        serde_json::from_str(include_str!("../../../deploy/grafana.json")).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let names = metrics_named_in(query);
            assert!(!names.is_empty(), "{query}");
            assert_exported(&names).await;
        }
    }
}

fn metrics_named_in(text: &str) -> Vec<&str> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let names = text.split(|c| !is_name(c));
    let is_metric =
        |name: &&str| ["portcullis_", "process_"].iter().any(|prefix| name.starts_with(prefix));
    names.filter(is_metric).map(|name| name.trim_end_matches("_bucket")).collect()
}

async fn assert_exported(names: &[&str]) {
    static METRICS: tokio::sync::OnceCell<String> = tokio::sync::OnceCell::const_new();
    let scrape = async || {
        let site = AdminServer::new();
        assert!(site.ask(Some(&PKI.a)).await);
        assert!(!site.ask(None).await);
        site.get("/metrics").2
    };
    let metrics = METRICS.get_or_init(scrape).await;
    for name in names {
        assert!(metrics.contains(&format!("# TYPE {name} ")), "{name}");
    }
}
