//! Which request headers reach the application: the default table, and the operator's rules, on
//! the binary.

use crate::admin::site::AdminServer;
use crate::support::files::Files;
use crate::support::proxy::{App, Reply, Seen, connect, read_until, send};
use crate::support::{Portcullis, flags, run};

/// Headers that an application takes something unverified from.
const STRIPPED: &[&str] = &[
    "X-Client-IP",
    "True-Client-IP",
    "CF-Connecting-IP",
    "X-Cluster-Client-IP",
    "X-Envoy-External-Address",
    "X-Forwarded",
    "Remote-User",
    "X-Remote-User",
    "X-Forwarded-User",
    "X-Auth-Request-User",
    "X-Auth-Request-Email",
    "X-Forwarded-Prefix",
    "X-Forwarded-Ssl",
    "X-Forwarded-Scheme",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Original-Host",
    "X-HTTP-Method-Override",
    "Proxy",
];

async fn start(more: &[&str]) -> (App, AdminServer) {
    let app = App::start(|_, _| Reply::ok()).await;
    let upstream = format!("http://{}", app.address);
    let site = Files::new().serve(&[&["--upstream", upstream.as_str()], more].concat());
    (app, site)
}

/// A request with these headers, as the application gets it.
async fn seen(app: &App, site: &AdminServer, headers: &str) -> Seen {
    let before = app.record().requests.len();
    let mut tls = connect(site.server.addr(), "http/1.1").await;
    send(&mut tls, format!("GET / HTTP/1.1\r\nHost: api.example.com\r\n{headers}\r\n")).await;
    read_until(&mut tls, "ok").await;
    app.record().requests[before].1.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn unverified_header_is_stripped_in_every_spelling_and_a_plain_one_passes() {
    let (app, site) = start(&[]).await;
    for name in STRIPPED {
        for spelling in [(*name).to_owned(), name.to_uppercase(), name.replace('-', "_")] {
            let seen = seen(&app, &site, &format!("{spelling}: evil\r\nX-Plain: 1\r\n")).await;
            assert!(!seen.head.contains("evil"), "{spelling}: {}", seen.head);
            assert_eq!(seen.all("x-plain"), ["1"], "{spelling}");
        }
    }
    let seen = seen(&app, &site, "X-Forwarded-Host: evil\r\nX-Forwarded-For: 1.2.3.4\r\n").await;
    assert_eq!(seen.all("x-forwarded-host"), ["api.example.com"]);
    assert_eq!(seen.all("x-forwarded-for").join(", "), "1.2.3.4, 127.0.0.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn pass_header_lets_one_name_through_and_is_logged_at_start() {
    let (app, site) = start(&["--pass-header", "X-Remote-User"]).await;
    let event = site.server.wait_for_event("unverified_header_passed", |_| true);
    assert!(event.to_string().to_lowercase().contains("x-remote-user"), "{event}");
    let seen = seen(&app, &site, "X-Remote-User: me\r\nRemote-User: evil\r\n").await;
    assert_eq!((seen.all("x-remote-user"), seen.all("remote-user")), (vec!["me"], vec![]));
    let (app, site) = start(&["--pass-header", "X-Forwarded-Host"]).await;
    let seen = self::seen(&app, &site, "X-Forwarded-Host: caller\r\n").await;
    assert_eq!(seen.all("x-forwarded-host"), ["caller"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn strip_header_strips_and_set_header_replaces_without_splitting_at_commas() {
    let more = ["--strip-header", "X-A", "--set-header", "X-B=1, 2", "--set-header", "X-C=3"];
    let (app, site) = start(&more).await;
    let seen = seen(&app, &site, "X-A: 1\r\nx_a: 1\r\nX-B: old\r\nX-D: 4\r\n").await;
    assert!(seen.all("x-a").is_empty() && seen.all("x_a").is_empty(), "{}", seen.head);
    assert_eq!(seen.all("x-b"), ["1, 2"]);
    assert_eq!((seen.all("x-c"), seen.all("x-d")), (vec!["3"], vec!["4"]));
}

#[test]
fn header_flag_without_upstream_or_with_a_reserved_name_exits_2() {
    let files = Files::new();
    let check = |args: &[&str]| {
        let mut command = Portcullis::command();
        run(command.arg("check").args(flags(files.0.path())).args(args), "")
    };
    let upstream = ["--upstream", "http://127.0.0.1:1"];
    for (flag, good, end) in [
        ("--pass-header", "X-Remote-User", ""),
        ("--strip-header", "X-A", ""),
        ("--set-header", "X-A=1", "=1"),
    ] {
        assert_eq!(check(&[&upstream[..], &[flag, good]].concat()).code, Some(0), "{flag}");
        let finished = check(&[flag, good]);
        assert_eq!(finished.code, Some(2), "{flag} without --upstream: {finished}");
        assert!(finished.stderr.contains("--upstream"), "{finished}");
        for name in [
            "Client-Cert",
            "client_cert",
            "X-Client-Cert-Fingerprint",
            "Host",
            "Content-Length",
            "content_length",
            "Connection",
            "Keep-Alive",
            "TE",
            "Transfer-Encoding",
            "Upgrade",
            "Proxy-Connection",
            "a b",
            "",
        ] {
            let value = format!("{name}{end}");
            let finished = check(&[&upstream[..], &[flag, &value]].concat());
            assert_eq!(finished.code, Some(2), "{flag} {value:?}: {finished}");
            assert!(finished.stderr.contains(flag), "{flag} {value:?}: {finished}");
        }
    }
    for twice in [
        ["--pass-header", "X-Remote-User", "--strip-header", "x_remote_user"],
        ["--strip-header", "X-A", "--set-header", "X-A=1"],
        ["--set-header", "X-A=1", "--set-header", "x-a=2"],
    ] {
        assert_eq!(check(&[&upstream[..], &twice].concat()).code, Some(2), "{twice:?}");
    }
}
