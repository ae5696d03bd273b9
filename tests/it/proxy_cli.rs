//! The proxy's flags, and its log lines when it fails, on the binary.

use std::fs;
use std::net::TcpListener;

use crate::support::pki::PKI;
use crate::support::proxy::{connect, read_to_end, send, status};
use crate::support::{Portcullis, run};
use tempfile::TempDir;

fn files() -> (TempDir, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let args = vec![
        "--cert".to_owned(),
        write("server.pem", &PKI.server.cert),
        "--key".to_owned(),
        write("server.key", &PKI.server.key),
        "--trust".to_owned(),
        write("a.pem", &PKI.a.cert),
    ];
    (dir, args)
}

#[test]
fn meaningless_flag_combinations_are_usage_errors() {
    let (_dir, args) = files();
    let check = |flag: &str, value: &str| {
        let mut command = Portcullis::command();
        command.arg("check").args(&args).args([flag, value]);
        let finished = run(&mut command, "");
        (finished.code, finished.stderr)
    };
    for (flag, bad, good) in [
        ("--upstream", "https://127.0.0.1:1", "http://127.0.0.1:1"),
        ("--upstream", "127.0.0.1:1", "http://localhost"),
        ("--upstream", "http://127.0.0.1:1/path", "http://127.0.0.1:1/"),
        ("--upstream", "http://u@127.0.0.1:1", "http://[::1]:1"),
        ("--upstream", "http://127.0.0.1:0", "http://127.0.0.1:65535"),
        ("--upstream", "http://127.0.0.1:99999", "http://app.internal:80"),
        ("--upstream", "http://", "http://a"),
        ("--upstream", "unix:app.sock", "unix:/run/app.sock"),
        ("--upstream", "", "unix:/a"),
        ("--max-body", "10MiX", "10MiB"),
        ("--max-body", "1e9", "0"),
        ("--upstream-timeout", "0s", "1s"),
        ("--upstream-connect-timeout", "5", "5s"),
        ("--upstream-idle-timeout", "4", "0s"),
        ("--upstream-max-connections", "0", "1"),
        ("--upstream-queue", "x", "0"),
    ] {
        let (code, output) = check(flag, bad);
        assert_eq!(code, Some(2), "{flag} {bad}: {output}");
        assert!(output.contains(flag), "{flag} {bad}: {output}");
        assert_eq!(check(flag, good).0, Some(0), "{flag} {good}");
    }
}

async fn ask(server: &Portcullis, request: &str) -> String {
    let mut tls = connect(server.addr(), "http/1.1").await;
    send(&mut tls, request).await;
    read_to_end(&mut tls).await
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn problem_response_has_the_request_id_and_the_log_the_reason() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let (_dir, mut args) = files();
    args.extend(["--upstream".to_owned(), format!("http://{address}")]);
    args.extend(["--upstream-connect-timeout", "100ms"].map(str::to_owned));
    let server = Portcullis::serve(args);
    let response = ask(&server, GET).await;
    assert_eq!(status(&response), 502, "{response}");
    let event = server.wait_for_event("upstream_failed", |event| event["reason"] == "connect");
    assert!(event["error"].as_str().unwrap().to_lowercase().contains("refused"), "{event}");
    assert!(response.contains(event["request_id"].as_str().unwrap()), "{response}: {event}");
    assert!(!response.contains("efused") && !response.contains(&address.port().to_string()));

    let response = ask(&server, "GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(status(&response), 400, "{response}");
    let event = server.wait_for_event("request_refused", |event| event["reason"] == "no_host");
    assert!(response.contains(event["request_id"].as_str().unwrap()), "{response}: {event}");
}

#[tokio::test]
async fn max_body_and_api_id_hold_without_upstream() {
    let (_dir, mut args) = files();
    args.extend(["--max-body", "5B", "--api-id", "abc", "--api-id", "def"].map(str::to_owned));
    let server = Portcullis::serve(args);
    let post = |api: &str, body: &str| {
        let length = body.len();
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nx-amzn-apigateway-api-id: {api}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
    };
    assert_eq!(status(&ask(&server, &post("def", "hello")).await), 200);
    assert_eq!(status(&ask(&server, &post("def", "hello!")).await), 413);
    assert_eq!(status(&ask(&server, &post("ghi", "hello")).await), 403);
    assert_eq!(status(&ask(&server, GET).await), 403);
}
