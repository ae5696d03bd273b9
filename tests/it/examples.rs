//! The examples of the library, as programs: each is run, and does what its first lines promise.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::support::tls::{Client, Connector};
use crate::support::{DEADLINE, run, wait_for};

const PROJECT: &str = env!("CARGO_MANIFEST_DIR");

/// Builds an example, where `cargo test` has not done so already, and returns its path.
fn build(name: &str) -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--example", name]).current_dir(PROJECT);
    let features = [
        ("axum", cfg!(feature = "axum")),
        ("aws", cfg!(feature = "aws")),
        ("parts", cfg!(feature = "parts")),
        ("test-util", cfg!(feature = "test-util")),
    ];
    for (feature, _) in features.iter().filter(|(_, is_on)| *is_on) {
        cargo.args(["--features", feature]);
    }
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    // It may wait for another build, so that it has no deadline.
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Path::new(env!("CARGO_BIN_EXE_portcullis")).with_file_name("examples").join(name)
}

/// A running example that serves.
struct Example {
    child: Child,
    address: SocketAddr,
    /// Kept, or the example would fail when it writes.
    _stdout: BufReader<ChildStdout>,
}

impl Example {
    fn start(name: &str) -> Self {
        let mut command = Command::new(build(name));
        command.arg("127.0.0.1:0").current_dir(PROJECT).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on ");
        let address = address.and_then(|address| address.parse().ok());
        let address = address.unwrap_or_else(|| panic!("{name} printed {line:?}"));
        Self { child, address, _stdout: stdout }
    }

    /// One request of a client of `certs-example/` on a connection of its own; `None` where the
    /// client is rejected.
    async fn ask(&self, client: &str, method: &str, path: &str) -> Option<String> {
        let file = |end: &str| format!("{PROJECT}/certs-example/{client}{end}");
        let read = |end| std::fs::read_to_string(file(end)).unwrap();
        let client = Client::from_pem(&read(".pem"), &read("-key.pem"));
        let root = format!("{PROJECT}/certs-example/root.pem");
        let root = CertificateDer::from_pem_file(root).unwrap();
        let connector = Connector::trusting(root, &client);
        let exchange = async {
            let mut stream = connector.connect(self.address).await.ok()?;
            let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await.ok()?;
            let mut response = String::new();
            stream.read_to_string(&mut response).await.ok()?;
            Some(response)
        };
        timeout(DEADLINE, exchange).await.unwrap()
    }

    /// Stops it as Ctrl-C does.
    fn interrupt(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
        assert!(wait_for(DEADLINE, || self.child.try_wait().unwrap().is_some()));
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg(feature = "axum")]
async fn axum_example_greets_each_trusted_client_and_no_stranger() {
    let example = Example::start("axum");
    for client in ["client-1", "client-2"] {
        let response = example.ask(client, "GET", "/").await.unwrap();
        assert!(response.contains("\r\n\r\nhello ") && response.contains(" at 127.0.0.1"));
        let response = example.ask(client, "GET", "/orders/7").await.unwrap();
        assert!(response.contains("order 7 for "), "{response}");
    }
    assert_eq!(example.ask("stranger", "GET", "/").await, None);
    example.interrupt();
}

#[tokio::test(flavor = "multi_thread")]
async fn authorize_example_lets_one_client_write_and_both_read() {
    let example = Example::start("authorize");
    for (client, method, status) in [
        ("client-1", "GET", "200"),
        ("client-2", "GET", "200"),
        ("client-1", "DELETE", "200"),
        ("client-2", "DELETE", "403"),
    ] {
        let response = example.ask(client, method, "/").await.unwrap();
        let expected = format!("HTTP/1.1 {status} ");
        assert!(response.starts_with(&expected), "{client} {method}: {response}");
    }
    assert_eq!(example.ask("stranger", "GET", "/").await, None);
    example.interrupt();
}

#[test]
fn accept_loop_example_refuses_a_resumed_session_and_a_live_connection_after_a_removal() {
    let finished = run(Command::new(build("accept_loop")).current_dir(PROJECT), "");
    assert_eq!(finished.code, Some(0), "{finished}");
    assert!(finished.stdout.contains("both refused"), "{finished}");
}
