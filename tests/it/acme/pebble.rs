//! Pebble, the DNS that it asks, and the port to which it connects for a validation.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use serde_json::json;
use tempfile::TempDir;

use crate::support::pki::PKI;
use crate::support::{DEADLINE, Portcullis, wait_for};

pub const DOMAIN: &str = "api.example";

/// What a test wants of pebble.
pub struct Wanted {
    /// How long its certificates are valid, in seconds.
    pub lifetime: u64,
    /// Of how many of a hundred requests the nonce is refused.
    pub bad_nonces: u32,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { lifetime: 24 * 60 * 60, bad_nonces: 0 }
    }
}

/// An ACME directory, killed when it goes out of scope.
pub struct Pebble {
    processes: Vec<Child>,
    pub files: TempDir,
    pub port: u16,
    management: u16,
    pub gate: Gate,
}

/// The port of the validations, which leads to the server under test or nowhere.
#[derive(Clone)]
pub struct Gate(Arc<(Mutex<Way>, Condvar)>, Arc<AtomicU32>);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// A connection is closed at once.
    Closed,
    /// A connection is accepted and goes no further: the validation lasts.
    Held,
    To(SocketAddr),
}

impl Gate {
    fn open() -> (Self, u16) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let gate = Self(Arc::new((Mutex::new(Way::Closed), Condvar::new())), Arc::default());
        let way = gate.clone();
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let way = way.clone();
                thread::spawn(move || way.pass(socket));
            }
        });
        (gate, port)
    }

    pub fn lead_to(&self, server: &Portcullis) {
        self.set(Way::To(server.addr()));
    }

    pub fn close(&self) {
        self.set(Way::Closed);
    }

    /// Keeps each validation waiting, and with it the name open.
    pub fn hold(&self) {
        self.set(Way::Held);
    }

    /// How many connections of validations have come so far.
    pub fn connections(&self) -> u32 {
        self.1.load(Ordering::Relaxed)
    }

    fn set(&self, way: Way) {
        *self.0.0.lock().unwrap() = way;
        self.0.1.notify_all();
    }

    fn pass(&self, socket: TcpStream) {
        self.1.fetch_add(1, Ordering::Relaxed);
        let way = self.0.0.lock().unwrap();
        let wait = self.0.1.wait_timeout_while(way, DEADLINE, |way| *way == Way::Held);
        let Way::To(server) = *wait.unwrap().0 else { return };
        let Ok(onward) = TcpStream::connect(server) else { return };
        let pump = |mut from: TcpStream, mut to: TcpStream| {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                if to.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        };
        let (from, to) = (socket.try_clone().unwrap(), onward.try_clone().unwrap());
        let back = thread::spawn(move || pump(to, from));
        pump(socket, onward);
        let _ = back.join();
    }
}

impl Pebble {
    pub fn start(wanted: &Wanted) -> Self {
        let files = tempfile::tempdir().unwrap();
        let at = |name: &str| files.path().join(name);
        let (certificate, key, ca) = directory_certificate();
        for (name, text) in
            [("directory.pem", &certificate), ("directory.key", &key), ("ca.pem", &ca)]
        {
            fs::write(at(name), text).unwrap();
        }
        let (gate, tls_port) = Gate::open();
        let [dns, dns_management, port, management] = free_ports();
        let config = json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": at("directory.pem"),
            "privateKey": at("directory.key"),
            "httpPort": 1,
            "tlsPort": tls_port,
            "externalAccountBindingRequired": false,
            "domainBlocklist": ["blocked.example"],
            "certificateValidityPeriod": wanted.lifetime,
        }});
        fs::write(at("pebble.json"), config.to_string()).unwrap();
        let mut names = Command::new("pebble-challtestsrv");
        names.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]);
        names.arg("-dns01").arg(format!("127.0.0.1:{dns}"));
        names.arg("-management").arg(format!("127.0.0.1:{dns_management}"));
        let mut directory = Command::new("pebble");
        directory.arg("-config").arg(at("pebble.json"));
        directory.arg("-dnsserver").arg(format!("127.0.0.1:{dns}"));
        directory.env("PEBBLE_VA_NOSLEEP", "1");
        // By default every other order needs no validation.
        directory.env("PEBBLE_AUTHZREUSE", "0");
        directory.env("PEBBLE_WFE_NONCEREJECT", wanted.bad_nonces.to_string());
        let processes = vec![spawn(&mut names), spawn(&mut directory)];
        let is_up = |port: u16| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        assert!(wait_for(DEADLINE, || is_up(port) && is_up(management)), "pebble does not listen");
        Self { processes, files, port, management, gate }
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}/dir", self.port)
    }

    /// The CA of the certificates that it issues: PEM.
    pub fn root(&self) -> String {
        let url = format!("https://localhost:{}/roots/0", self.management);
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--fail", "--cacert"])
            .arg(self.files.path().join("ca.pem"))
            .arg(url);
        let finished = crate::support::run(&mut curl, "");
        assert_eq!(finished.code, Some(0), "{finished}");
        finished.stdout
    }

    /// Ends the directory, as a failure does.
    pub fn kill(&mut self) {
        for mut process in self.processes.drain(..) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The files of a server that orders its certificate.
pub struct AcmeServer {
    pub files: TempDir,
}

impl AcmeServer {
    pub fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        fs::create_dir(files.path().join("trust")).unwrap();
        fs::write(files.path().join("trust/a.pem"), &PKI.a.cert).unwrap();
        Self { files }
    }

    pub fn cache(&self) -> PathBuf {
        self.files.path().join("cache")
    }

    /// The file of the certificate with its chain and key.
    pub fn pair(&self) -> PathBuf {
        self.cache().join("certificate-and-key.pem")
    }

    /// Leaves a certificate for the name in the cache, valid between these days from now.
    pub fn fill_cache(&self, days: Range<i64>) {
        let write = |path: PathBuf, text: &str| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        };
        fs::create_dir(self.cache()).unwrap();
        fs::set_permissions(self.cache(), fs::Permissions::from_mode(0o700)).unwrap();
        write(self.pair(), &pair(days));
    }

    /// The flags of `serve`, beyond those that the tests give.
    pub fn flags(&self, directory: &str, ca: &std::path::Path, domains: &[&str]) -> Vec<String> {
        let path = |path: PathBuf| path.into_os_string().into_string().unwrap();
        let mut flags = vec![
            format!("--trust={}", path(self.files.path().join("trust"))),
            format!("--acme-cache={}", path(self.cache())),
            format!("--acme-directory={directory}"),
            format!("--acme-ca={}", path(ca.to_owned())),
            "--acme-agree-terms".to_owned(),
            "--acme-key=p256".to_owned(),
            "--admin=127.0.0.1:0".to_owned(),
        ];
        flags.extend(domains.iter().map(|domain| format!("--acme-domain={domain}")));
        flags
    }

    /// A server that orders of pebble, which reaches it.
    pub fn serve(&self, pebble: &Pebble, more: &[&str]) -> Portcullis {
        let server = self.serve_apart(pebble, more);
        pebble.gate.lead_to(&server);
        server
    }

    /// The same, where the way of the validations stays as it is.
    pub fn serve_apart(&self, pebble: &Pebble, more: &[&str]) -> Portcullis {
        let mut flags = self.flags(&pebble.url(), &pebble.files.path().join("ca.pem"), &[DOMAIN]);
        flags.extend(more.iter().map(|flag| (*flag).to_owned()));
        Portcullis::serve(flags)
    }
}

/// The address of the operator's port.
pub fn admin(server: &Portcullis) -> String {
    let event = server.wait_for_event("admin_listening", |_| true);
    event["addr"].as_str().unwrap().to_owned()
}

/// A response of the admin port: status and body.
pub fn ask(admin: &str, path: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(admin).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    socket.read_to_string(&mut response).unwrap();
    let status = response.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    let body = response.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}

/// A certificate for the name, its issuer and its key (PEM), valid between these days from now.
pub fn pair(days: Range<i64>) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let day = |offset: i64| {
        let seconds = now.as_secs().cast_signed() + offset * 24 * 60 * 60;
        date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds.cast_unsigned())
    };
    let issuer = ca("An issuer");
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([DOMAIN.to_owned()]).unwrap();
    params.not_before = day(days.start);
    params.not_after = day(days.end);
    let leaf = params.signed_by(&key, &issuer).unwrap();
    format!("{}{}{}", leaf.pem(), issuer.pem(), key.serialize_pem())
}

fn ca(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for `localhost`, its key and its CA.
pub fn directory_certificate() -> (String, String, String) {
    let ca = ca("CA of a directory");
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &ca).unwrap();
    (certificate.pem(), key.serialize_pem(), ca.pem())
}

/// Pebble does not report a port that the system chose.
fn free_ports<const N: usize>() -> [u16; N] {
    let sockets = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    sockets.map(|socket| socket.local_addr().unwrap().port())
}

/// What it logs is read, or it would come to wait for that.
fn spawn(command: &mut Command) -> Child {
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = BufReader::new(child.stdout.take().unwrap());
    thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(drop));
    child
}
