//! What systemd does: pass a socket, and receive notifications.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::pki::PKI;
use crate::support::tls::{Site, connector, request};
use crate::support::{DEADLINE, Portcullis, wait_for};

/// A server that trusts A, and listens on a passed socket.
fn args(site: &Site) -> Vec<String> {
    let mut args = vec!["serve".to_owned()];
    args.extend(site.flags(&["--log-format", "json"]));
    args
}

/// Starts the server with this socket as its descriptor 3, as systemd does.
fn activate(listener: &TcpListener, site: &Site, more: &[&str]) -> Portcullis {
    let socket: OwnedFd = listener.as_fd().try_clone_to_owned().unwrap();
    let mut command = Command::new("sh");
    // The socket comes as its standard input; LISTEN_PID is the process that runs.
    let launch = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"";
    command.args(["-c", launch]).arg(Portcullis::command().get_program());
    command.args(args(site)).args(more).stdin(socket);
    Portcullis::start(&mut command)
}

#[tokio::test(flavor = "multi_thread")]
async fn passed_socket_is_used_unless_listen_is_given() {
    let site = Site::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = activate(&listener, &site, &[]);
    assert_eq!(server.addr(), address);
    connector(&PKI.a).ask(address).await.unwrap();
    let other = activate(&listener, &site, &["--listen", "127.0.0.1:0"]);
    assert_ne!(other.addr(), address);
    connector(&PKI.a).ask(other.addr()).await.unwrap();
}

#[test]
fn passed_descriptor_that_is_no_socket_is_named() {
    let site = Site::new();
    let mut command = Command::new("sh");
    let launch = "exec 3</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"";
    command.args(["-c", launch]).arg(Portcullis::command().get_program()).args(args(&site));
    let finished = crate::support::run(&mut command, "");
    assert_eq!(finished.code, Some(1), "{finished}");
    assert!(finished.stderr.contains("fd 3 is not a socket"), "{finished}");
}

/// Clients that ask without a pause, some on a connection of their own each time and some on one
/// that they keep for as long as it is offered.
struct Load {
    ends: Arc<AtomicBool>,
    responded: Arc<AtomicUsize>,
    clients: Vec<tokio::task::JoinHandle<std::io::Result<()>>>,
}

impl Load {
    fn on(address: SocketAddr) -> Self {
        let (ends, responded) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let clients = (0..6).map(|number| {
            let (ends, responded) = (Arc::clone(&ends), Arc::clone(&responded));
            tokio::spawn(async move {
                let connector = connector(&PKI.a);
                while !ends.load(Ordering::Relaxed) {
                    if number % 2 == 0 {
                        connector.ask(address).await?;
                        responded.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    let mut stream = connector.connect(address).await?;
                    while !ends.load(Ordering::Relaxed) {
                        let response = request(&mut stream, "").await?;
                        responded.fetch_add(1, Ordering::Relaxed);
                        if response.to_lowercase().contains("\r\nconnection: close\r\n") {
                            break;
                        }
                    }
                }
                Ok(())
            })
        });
        Self { clients: clients.collect(), ends, responded }
    }

    /// Waits until so many more were responded.
    fn goes_on(&self) {
        let before = self.responded.load(Ordering::Relaxed);
        let went_on = wait_for(DEADLINE, || self.responded.load(Ordering::Relaxed) >= before + 30);
        assert!(went_on, "no request is served");
    }

    async fn end(self) {
        self.ends.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap().expect("no request is lost");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn socket_handover_loses_no_request() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let delay = ["--shutdown-delay", "500ms"];
    let site = Site::new();
    let mut old = activate(&listener, &site, &delay);
    let load = Load::on(address);
    for _ in 0..3 {
        load.goes_on();
        let new = activate(&listener, &site, &delay);
        assert_eq!(std::mem::replace(&mut old, new).terminate(), Some(0));
        load.goes_on();
    }
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn next_process_may_start_after_the_previous_one_ended() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let site = Site::new();
    let old = activate(&listener, &site, &["--shutdown-delay", "200ms"]);
    let load = Load::on(address);
    load.goes_on();
    assert_eq!(old.terminate(), Some(0));
    let _new = activate(&listener, &site, &[]);
    load.goes_on();
    load.end().await;
}

#[test]
fn sd_notify_reports_ready_reloading_and_stopping() {
    let site = Site::new();
    let manager = UnixDatagram::bind(site.path("notify")).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let notified = || {
        let mut message = [0; 256];
        let length = manager.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let mut command = Portcullis::command();
    command.args(args(&site)).args(["--listen", "127.0.0.1:0"]);
    let server = Portcullis::start(command.env("NOTIFY_SOCKET", site.path("notify")));
    assert_eq!(notified(), "READY=1\n");
    server.signal("HUP");
    let reloading = notified();
    let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap_or_default();
    assert!(time.trim_end().parse::<u64>().is_ok(), "{reloading}");
    assert_eq!(notified(), "READY=1\n");
    assert_eq!(server.terminate(), Some(0));
    assert_eq!(notified(), "STOPPING=1\n");

    // A manager that has gone is no reason not to serve.
    fs::remove_file(site.path("notify")).unwrap();
    let mut command = Portcullis::command();
    command.args(args(&site)).args(["--listen", "127.0.0.1:0"]);
    let server = Portcullis::start(command.env("NOTIFY_SOCKET", site.path("notify")));
    server.wait_for_event("notify_failed", |_| true);
    assert_eq!(server.terminate(), Some(0));
}
