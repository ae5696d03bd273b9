//! The binary before applications that people have: Express, a Python WSGI app, an axum app at a
//! Unix socket; driven by curl, by Node.js, and by raw bytes.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;

use crate::support::pki::{Credential, PKI};
use crate::support::proxy::{connect, read_to_end, send, status};
use crate::support::{DEADLINE, Finished, Portcullis, flags, run, wait_for};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;
use tempfile::TempDir;

fn fingerprint(credential: &Credential) -> String {
    let der = CertificateDer::from_pem_slice(credential.cert.as_bytes()).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An application as a process of its own, which reports the requests that it gets.
struct Application {
    child: Child,
    port: u16,
    seen: Arc<Mutex<Vec<Value>>>,
}

impl Application {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the application starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let port = lines.next().expect("a port").expect("a line").parse().expect("a port");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                record.lock().unwrap().extend(serde_json::from_str::<Value>(&line));
            }
        });
        Self { child, port, seen }
    }

    fn seen(&self) -> Vec<Value> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn source(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "interop", name].iter().collect()
}

/// Express, installed once for all tests.
static EXPRESS: LazyLock<TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(dir.path());
    let installed = run(npm.arg("express@5"), "");
    assert_eq!(installed.code, Some(0), "{installed}");
    dir
});

fn express(who: &Credential) -> Application {
    let modules = EXPRESS.path().join("node_modules");
    let mut node = Command::new("node");
    node.arg(source("express.cjs")).arg(fingerprint(who)).env("NODE_PATH", modules);
    Application::start(&mut node)
}

fn wsgi(who: &Credential) -> Application {
    Application::start(Command::new("python3").arg(source("wsgi.py")).arg(fingerprint(who)))
}

/// A server that lets two in, before an application.
struct ProxiedApp {
    dir: TempDir,
    server: Portcullis,
}

impl ProxiedApp {
    fn before(upstream: &str, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| dir.path().join(name);
        let write = |name: &str, text: &str| fs::write(path(name), text).expect("a file");
        fs::create_dir(path("trust")).expect("a directory");
        write("root.pem", &PKI.root);
        for credential in [&PKI.server, &PKI.a, &PKI.b] {
            write(&format!("{}.pem", credential.name), &credential.cert);
            write(&format!("{}.key", credential.name), &credential.key);
        }
        for trusted in [&PKI.a, &PKI.b] {
            write(&format!("trust/{}.pem", trusted.name), &trusted.cert);
        }
        let mut args = flags(dir.path());
        args.extend(["--upstream", upstream].iter().chain(more).map(|arg| (*arg).to_owned()));
        Self { server: Portcullis::serve(args), dir }
    }

    fn curl(&self, who: &Credential, path: &str, more: &[&str]) -> Finished {
        let file = |name: &str| self.dir.path().join(name);
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--no-buffer", "--max-time", "300", "--cacert"])
            .arg(file("root.pem"))
            .arg("--cert")
            .arg(file(&format!("{}.pem", who.name)))
            .arg("--key")
            .arg(file(&format!("{}.key", who.name)))
            .args(["--write-out", "\n%{http_code}"])
            .args(more)
            .arg(format!("https://localhost:{}{path}", self.server.addr().port()));
        run(&mut curl, "")
    }

    /// The body and the status, as Node.js has them.
    fn ask_by_node(&self, who: &Credential, path: &str) -> (String, String) {
        const SCRIPT: &str = "
            const [port, path, ...files] = process.argv.slice(1);
            const [ca, cert, key] = files.map((file) => require('fs').readFileSync(file));
            require('https').get({ host: 'localhost', port, path, ca, cert, key }, (response) => {
              let body = '';
              response.on('data', (data) => { body += data; });
              response.on('end', () => process.stdout.write(`${body}\n${response.statusCode}`));
            });";
        let file = |name: &str| self.dir.path().join(name);
        let mut node = Command::new("node");
        node.args(["-e", SCRIPT, &self.server.addr().port().to_string(), path])
            .arg(file("root.pem"))
            .arg(file(&format!("{}.pem", who.name)))
            .arg(file(&format!("{}.key", who.name)));
        let finished = run(&mut node, "");
        let (body, status) = finished.stdout.rsplit_once('\n').unwrap_or_default();
        (body.to_owned(), status.to_owned())
    }

    /// The body and the status.
    fn ask(&self, who: &Credential, path: &str, more: &[&str]) -> (String, String) {
        let finished = self.curl(who, path, more);
        let (body, status) = finished.stdout.rsplit_once('\n').unwrap_or_default();
        (body.to_owned(), status.to_owned())
    }
}

fn assert_authorizes(site: &ProxiedApp) {
    let (body, status) = site.ask_by_node(&PKI.a, "/who");
    let response: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status.as_str(), &response["who"]), ("200", &fingerprint(&PKI.a).into()));
    assert_eq!(site.ask_by_node(&PKI.b, "/who").1, "401");
    for version in ["--http1.1", "--http2"] {
        let (body, status) = site.ask(&PKI.a, "/who", &[version]);
        let response: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((status.as_str(), &response["who"]), ("200", &fingerprint(&PKI.a).into()));
        assert_eq!(response["reported"], response["who"]);
        let forged = format!("X_Client_Cert_Fingerprint: {}", fingerprint(&PKI.a));
        let forged =
            [version, "-H", "Client-Cert: :AAAA:", "-H", "Client_Cert: :AAAA:", "-H", &forged];
        // By its own certificate, and under no other identity.
        assert_eq!(site.ask(&PKI.a, "/who", &forged).1, "200");
        assert_eq!(site.ask(&PKI.b, "/who", &forged).1, "401");
    }
}

#[test]
#[ignore = "needs Node.js, npm, Python; run by .ci/run"]
fn express_app_authorizes_by_client_certificate() {
    let app = express(&PKI.a);
    let site =
        ProxiedApp::before(&format!("http://127.0.0.1:{}", app.port), &["--max-body", "2GiB"]);
    assert_authorizes(&site);
    for seen in app.seen() {
        let names: Vec<_> = seen["headers"].as_object().expect("headers").keys().collect();
        assert!(!names.iter().any(|name| name.contains('_')), "{names:?}");
    }

    // Server-sent events as they are sent: each is seen before the next one is sent.
    let events = thread::scope(|scope| {
        let reading = scope.spawn(|| site.ask(&PKI.a, "/events", &[]));
        for _ in 0..3 {
            let responded = || site.ask(&PKI.a, "/seen", &["-X", "POST"]).1 == "204";
            assert!(wait_for(DEADLINE, || reading.is_finished() || responded()));
        }
        while !reading.is_finished() {
            site.ask(&PKI.a, "/seen", &["-X", "POST"]);
        }
        reading.join().expect("curl ends")
    });
    assert_eq!(events, ("data: 0\n\ndata: 1\n\ndata: 2\n\n".to_owned(), "200".to_owned()));
}

#[test]
#[ignore = "needs Node.js, npm, Python; run by .ci/run"]
fn large_bodies_are_not_buffered() {
    const SIZE: u64 = 1 << 30;
    let app = express(&PKI.a);
    let site =
        ProxiedApp::before(&format!("http://127.0.0.1:{}", app.port), &["--max-body", "2GiB"]);
    assert_eq!(site.ask(&PKI.a, "/who", &[]).1, "200");
    let file = site.dir.path().join("large");
    fs::File::create(&file).and_then(|file| file.set_len(SIZE)).expect("a sparse file");
    let before = site.server.peak_memory();
    let upload = format!("@{}", file.display());
    for headers in ["Expect:", "Transfer-Encoding: chunked"] {
        let (body, _) = site.ask(
            &PKI.a,
            "/upload",
            &["-X", "POST", "-T", upload.trim_start_matches('@'), "-H", headers, "--http1.1"],
        );
        let sum: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(sum["length"], SIZE);
    }
    for version in ["--http1.1", "--http2"] {
        let path = format!("/large?bytes={SIZE}");
        let out = ["-o", "/dev/null", "--write-out", "\n%{size_download}", version];
        assert_eq!(site.ask(&PKI.a, &path, &out).1, SIZE.to_string());
    }
    let grown = site.server.peak_memory().saturating_sub(before);
    assert!(grown < 12 << 20, "{grown} bytes more");
}

#[test]
#[ignore = "needs Node.js, npm, Python; run by .ci/run"]
fn wsgi_app_authorizes_by_client_certificate() {
    let app = wsgi(&PKI.a);
    let site = ProxiedApp::before(&format!("http://127.0.0.1:{}", app.port), &[]);
    assert_authorizes(&site);
    let spoof = ["-H", "X_SSL_Client_Verify: SUCCESS", "-H", "X.Forwarded.For: 192.0.2.1"];
    let (_, status) = site.ask(&PKI.a, "/", &[&spoof[..], &["-d", "hello"]].concat());
    assert_eq!(status, "200");
    let seen = app.seen();
    let last = seen.last().expect("a request");
    assert_eq!((&last["method"], &last["length"]), (&"POST".into(), &5.into()));
    assert_eq!(last["headers"]["HTTP_X_SSL_CLIENT_VERIFY"], Value::Null);
    assert_eq!(last["headers"]["HTTP_X_FORWARDED_FOR"], "127.0.0.1");
}

#[test]
#[ignore = "needs Node.js, npm, Python; run by .ci/run"]
fn axum_app_on_a_unix_socket_authorizes_by_client_certificate() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("app.sock");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
    let allowed = fingerprint(&PKI.a);
    let app = axum::Router::new().fallback(move |headers: http::HeaderMap| {
        let allowed = allowed.clone();
        async move {
            let reported = headers["x-client-cert-fingerprint"].to_str().unwrap_or_default();
            let value = headers["client-cert"].to_str().unwrap_or_default().trim_matches(':');
            use base64::Engine as _;
            let der = base64::engine::general_purpose::STANDARD.decode(value).unwrap_or_default();
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
            let who: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            let status = if who == allowed { 200 } else { 401 };
            let response = format!(r#"{{"who":"{who}","reported":"{reported}"}}"#);
            (http::StatusCode::from_u16(status).expect("a status"), response)
        }
    });
    runtime.spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            let service = hyper_util::service::TowerToHyperService::new(app.clone());
            let io = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
        }
    });
    assert_authorizes(&ProxiedApp::before(&format!("unix:{}", path.display()), &[]));
}

/// Two requests to a parser that reads it otherwise than the proxy does.
fn smuggled() -> Vec<String> {
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    let post = "POST /open HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
    let framings = [
        format!("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!(
            "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n1\r\na\r\n0\r\n\r\n{hidden}"
        ),
        format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n\r\n0\r\n\r\n{hidden}"),
        format!("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: xchunked\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len()),
        format!("Transfer_Encoding: chunked\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len()),
        format!("Content_Length: 0\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len()),
        format!("Content-Length: 0\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len()),
        format!("Content-Length: {}\r\n\r\n{hidden}", hidden.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len()),
        format!("X: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("Connection: content-length\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len()),
        format!("\r\n{hidden}"),
    ];
    let posts = framings.iter().map(|rest| format!("{post}{rest}"));
    let gets = framings.iter().map(|rest| format!("{post}{rest}").replacen("POST", "GET", 1));
    posts.chain(gets).collect()
}

#[test]
#[ignore = "needs Node.js, npm, Python; run by .ci/run"]
fn node_and_python_see_no_smuggled_request() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for app in [express(&PKI.a), wsgi(&PKI.a)] {
        let site = ProxiedApp::before(&format!("http://127.0.0.1:{}", app.port), &[]);
        runtime.block_on(async {
            for bytes in smuggled() {
                let mut tls = connect(site.server.addr(), "http/1.1").await;
                send(&mut tls, &bytes).await;
                let response = read_to_end(&mut tls).await;
                assert!(response.matches("HTTP/1.1 ").count() <= 1, "{bytes}: {response}");
                assert_ne!(status(&response), 502, "{bytes}: {response}");
            }
        });
        // Whatever was left on a connection would show in front of this one.
        assert_eq!(site.ask(&PKI.a, "/who", &[]).1, "200");
        let is_last = |seen: &Value| seen["url"] == "/who";
        assert!(wait_for(DEADLINE, || app.seen().iter().any(is_last)));
        let seen = app.seen();
        assert!(seen.len() > 4, "some get through: {seen:?}");
        assert!(!seen.iter().any(|seen| seen["url"] == "/hidden"), "{seen:?}");
    }
}
