//! `portcullis rotate` against the stand-in for API Gateway, and two servers under its traffic.

mod faults;
mod killed;
mod refusals;
mod roll_back;
mod whole;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::control_plane::{ControlPlane, Traffic, TrafficReport, nodes};
use crate::support::pki::PKI;
use crate::support::tls::put;
use crate::support::{Finished, Portcullis, flags, wait_for};

/// A rotation takes about twenty seconds; on a busy machine several times that.
const ENDS: Duration = Duration::from_secs(180);

/// A fleet of two servers that share a trust directory, and the account whose stage calls them.
struct Fleet {
    plane: ControlPlane,
    api: String,
    old: String,
    dir: TempDir,
    servers: Vec<Server>,
    traffic: Option<nodes::Running>,
}

struct Server {
    process: Portcullis,
    admin: SocketAddr,
}

impl Server {
    fn start(dir: &TempDir) -> Self {
        let mut flags = flags(dir.path());
        flags.extend(["--admin", "127.0.0.1:0", "--access-log", "off"].map(str::to_owned));
        let process = Portcullis::serve(&flags);
        let event = process.wait_for_event("admin_listening", |_| true);
        let admin = event["addr"].as_str().unwrap().parse().unwrap();
        Self { process, admin }
    }
}

impl Fleet {
    /// The stage `prod` presents a certificate that ends in 25 days, and both servers trust it.
    fn new() -> Self {
        Self::with_age(340)
    }

    fn with_age(days: u64) -> Self {
        let plane = ControlPlane::start();
        let old = plane.add_certificate(days, &[]);
        let api = plane.add_api("orders");
        plane.set_stage(&api, "prod", Some(&old));
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("trust")).unwrap();
        fs::write(dir.path().join("server.pem"), &PKI.server.cert).unwrap();
        fs::write(dir.path().join("server.key"), &PKI.server.key).unwrap();
        // A name that the operator chose.
        put(&dir.path().join("trust"), "gateway-2025.pem", &plane.certificate(&old).unwrap().pem);
        let servers = vec![Server::start(&dir), Server::start(&dir)];
        let fleet = Self { plane, api, old, dir, servers, traffic: None };
        fleet.plane.set_backend(fleet.backends());
        fleet
    }

    fn backends(&self) -> Traffic {
        Traffic::to(self.servers.iter().map(|server| server.process.addr()), &PKI.root)
    }

    fn with_traffic(mut self) -> Self {
        self.traffic = Some(self.plane.start_traffic(self.backends()));
        self
    }

    fn trust(&self) -> PathBuf {
        self.dir.path().join("trust")
    }

    /// `fetch` adopts the file, and removes it later.
    fn name_file_as_fetch_does(&self) {
        let fetched = self.trust().join(format!("{}.pem", self.old));
        fs::rename(self.trust().join("gateway-2025.pem"), fetched).unwrap();
    }

    fn stage(&self) -> String {
        format!("{}/prod", self.api)
    }

    /// `rotate` with waits that suit a test.
    fn command(&self, more: &[&str]) -> Command {
        let mut command = self.bare(more);
        command.arg("--trust").arg(self.trust());
        command
    }

    /// Without `--trust`. Waits that `more` names are not set.
    fn bare(&self, more: &[&str]) -> Command {
        let mut command = Portcullis::command();
        command.envs(self.plane.variables()).args(["rotate", "--stage", &self.stage()]);
        command.arg("--replicas");
        command.args(self.servers.iter().map(|server| format!("http://{}", server.admin)));
        for (flag, value) in [
            ("--timeout", "30s"),
            ("--switch-timeout", "8s"),
            ("--quiet-for", "2s"),
            ("--quiet-timeout", "60s"),
        ] {
            if !more.contains(&flag) {
                command.args([flag, value]);
            }
        }
        command.args(more);
        command
    }

    fn rotate(&self, more: &[&str]) -> Finished {
        finish(self.command(more))
    }

    fn report(&self) -> TrafficReport {
        self.traffic.as_ref().unwrap().report()
    }

    fn presented(&self) -> String {
        self.plane.presented(&self.api, "prod").unwrap()
    }

    /// The names in the trust directory, sorted.
    fn files(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.trust()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// The old certificate is gone everywhere, one was generated, and no request was lost.
    #[track_caller]
    fn assert_rotated(&self) -> String {
        let new = self.presented();
        assert_ne!(new, self.old);
        let ids: Vec<_> = self.plane.certificates().into_keys().collect();
        assert_eq!(ids, [new.as_str()], "one certificate is left");
        let tags = self.plane.certificate(&new).unwrap().tags;
        assert_eq!(tags.get("portcullis:replaces"), Some(&self.old));
        let files = [format!("{new}.pem"), ".portcullis-rotate.lock".to_owned()];
        assert_eq!(self.files(), files.into());
        if self.traffic.is_some() {
            self.assert_nothing_lost();
        }
        new
    }

    #[track_caller]
    fn assert_nothing_lost(&self) {
        let report = self.report();
        assert!(report.succeeded > 100, "only {} requests", report.succeeded);
        assert_eq!(report.failures, Vec::<String>::new(), "of {}", report.succeeded);
    }

    /// Nothing has changed.
    #[track_caller]
    fn assert_untouched(&self) {
        assert_eq!(self.presented(), self.old);
        assert!(self.plane.certificates().contains_key(&self.old));
        assert!(self.files().contains("gateway-2025.pem"));
    }
}

#[track_caller]
fn finish(mut command: Command) -> Finished {
    let mut child = spawn(&mut command);
    let mut status = None;
    wait_for(ENDS, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    if status.is_none() {
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let finished = Finished {
        code: output.status.code(),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    };
    assert!(status.is_some(), "{command:?} did not end; {finished}");
    finished
}

fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[track_caller]
fn succeed(finished: &Finished) {
    assert_eq!(finished.code, Some(0), "{finished}");
}

/// It stopped with this exit code, and says this.
#[track_caller]
fn fail(finished: &Finished, code: i32, parts: &[&str]) {
    assert_eq!(finished.code, Some(code), "{finished}");
    for part in parts {
        assert!(finished.stderr.contains(part), "no {part:?} in {finished}");
    }
}

/// The JSON objects that it wrote.
#[track_caller]
fn objects(finished: &Finished) -> Vec<Value> {
    let lines = finished.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}
