//! Reloads: promises 3, 5 and 6, each under the load of a client whose certificate stays and which
//! must lose no request.

mod removal;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::DEADLINE;
use crate::support::pki::{Credential, PKI};
use crate::support::tls::{Client, Connector, Server, Site, put, request};
use portcullis::Severity;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than any test takes: what is found is found by the file system's events.
const NEVER: Duration = Duration::from_secs(3600);

fn client(credential: &Credential) -> Client {
    Client::from_pem(&credential.cert, &credential.key)
}

fn connector(credential: &Credential) -> Connector {
    Connector::new(Some(&client(credential)), &rustls::version::TLS13)
}

/// A client that asks all the time, on one connection that it keeps and on new ones.
struct Load {
    is_over: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Load {
    fn start(server: &Server, credential: &Credential) -> Self {
        let (is_over, served) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (connector, address) = (connector(credential), server.address);
        let task = tokio::spawn({
            let (is_over, served) = (Arc::clone(&is_over), Arc::<AtomicUsize>::clone(&served));
            async move {
                let mut kept = connector.connect(address).await.unwrap();
                while !is_over.load(Ordering::Relaxed) {
                    request(&mut kept, "").await.expect("a kept connection stays");
                    connector.ask(address).await.expect("a new connection is accepted");
                    served.fetch_add(2, Ordering::Relaxed);
                }
            }
        });
        Self { is_over, served, task }
    }

    async fn lost_nothing(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.task.await.expect("no request is lost");
        assert!(self.served.load(Ordering::Relaxed) > 0, "there was no load");
    }
}

/// A server that trusts A and B, B under load.
async fn loaded() -> (Site, Server, Load) {
    let site = Site::new();
    site.trust("a.pem", &PKI.a.cert);
    site.trust("b.pem", &PKI.b.cert);
    let server = Server::start(site.config().trust(site.path("trust")).poll_interval(NEVER));
    // The directories are watched once the first scan is over.
    server.handle.reload().await;
    let load = Load::start(&server, &PKI.b);
    (site, server, load)
}

fn errors(server: &Server) -> Vec<String> {
    let problems = server.handle.problems();
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
    errors.map(ToString::to_string).collect()
}

async fn until_problem(server: &Server, text: &str) {
    until(|| errors(server).iter().any(|error| error.contains(text))).await;
}

async fn until(mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, wait).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn file_copied_renamed_edited_and_deleted() {
    let (site, server, load) = loaded().await;
    let stranger = connector(&PKI.stranger);
    assert!(stranger.ask(server.address).await.is_err());

    fs::write(site.path("trust/copied.pem"), &PKI.stranger.cert).unwrap();
    server.until(&stranger, true).await;
    fs::remove_file(site.path("trust/copied.pem")).unwrap();
    server.until(&stranger, false).await;

    site.trust("renamed.crt", &PKI.stranger.cert);
    server.until(&stranger, true).await;
    fs::rename(site.path("trust/renamed.crt"), site.path("trust/passed-over.txt")).unwrap();
    server.until(&stranger, false).await;

    // A is edited in place: half written it stays what it was, and whole it is another.
    let (half, rest) = PKI.stranger.cert.split_at(400);
    fs::write(site.path("trust/a.pem"), half).unwrap();
    until_problem(&server, "a.pem:1: the block that begins here has no end").await;
    assert!(connector(&PKI.a).ask(server.address).await.is_ok(), "A stays meanwhile");
    assert!(stranger.ask(server.address).await.is_err());
    let mut file = fs::OpenOptions::new().append(true).open(site.path("trust/a.pem")).unwrap();
    std::io::Write::write_all(&mut file, rest.as_bytes()).unwrap();
    drop(file);
    server.until(&stranger, true).await;
    server.until(&connector(&PKI.a), false).await;
    assert_eq!(errors(&server), Vec::<String>::new());
    load.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn error_in_one_file_does_not_delay_another() {
    let (site, server, load) = loaded().await;
    fs::write(site.path("trust/a.pem"), "garbage").unwrap();
    until_problem(&server, "a.pem").await;
    site.trust("stranger.pem", &PKI.stranger.cert);
    server.until(&connector(&PKI.stranger), true).await;
    assert!(connector(&PKI.a).ask(server.address).await.is_ok(), "its last good content stays");
    fs::remove_file(site.path("trust/a.pem")).unwrap();
    server.until(&connector(&PKI.a), false).await;
    load.lost_nothing().await;
}

/// What kubelet does: a new directory, a new link to it renamed over the old, the old one removed.
fn swap_volume(volume: &Path, version: usize, files: &[&Credential]) {
    let name = format!("..2026_{version}");
    fs::create_dir(volume.join(&name)).unwrap();
    for file in files {
        fs::write(volume.join(&name).join(format!("{}.pem", file.name)), &file.cert).unwrap();
    }
    let old = fs::read_link(volume.join("..data"));
    symlink(&name, volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    for file in files {
        let link = volume.join(format!("{}.pem", file.name));
        if !link.is_symlink() {
            symlink(Path::new("..data").join(format!("{}.pem", file.name)), link).unwrap();
        }
    }
    for entry in fs::read_dir(volume).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() && !path.exists() {
            fs::remove_file(path).unwrap();
        }
    }
    if let Ok(old) = old {
        fs::remove_dir_all(volume.join(old)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubernetes_volume_is_swapped_twelve_times_in_a_row() {
    let site = Site::new();
    let volume = site.path("trust");
    swap_volume(&volume, 0, &[&PKI.b]);
    let server = Server::start(site.config().trust(&volume).poll_interval(NEVER));
    server.handle.reload().await;
    let load = Load::start(&server, &PKI.b);
    let a = connector(&PKI.a);
    for version in 1..=12 {
        let is_in = version % 2 == 1;
        let both = [&PKI.b, &PKI.a];
        swap_volume(&volume, version, if is_in { &both } else { &both[..1] });
        server.until(&a, is_in).await;
    }
    load.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vanished_or_empty_replaced_directory_changes_nothing() {
    let (site, server, load) = loaded().await;
    let trust = site.path("trust");
    fs::remove_dir_all(&trust).unwrap();
    until_problem(&server, "it cannot be read").await;
    assert!(connector(&PKI.a).ask(server.address).await.is_ok(), "vanished");

    fs::create_dir(&trust).unwrap();
    until_problem(&server, "a new directory without a usable certificate").await;
    assert!(connector(&PKI.a).ask(server.address).await.is_ok(), "empty");

    // Filled, it is what counts.
    put(&trust, "b.pem", &PKI.b.cert);
    server.until(&connector(&PKI.a), false).await;
    assert_eq!(errors(&server), Vec::<String>::new());
    load.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recreated_directory_is_watched_again() {
    let (site, server, load) = loaded().await;
    let trust = site.path("trust");
    // Its inode may be the same.
    fs::remove_dir_all(&trust).unwrap();
    fs::create_dir(&trust).unwrap();
    until_problem(&server, "a new directory without a usable certificate").await;
    put(&trust, "b.pem", &PKI.b.cert);
    server.until(&connector(&PKI.a), false).await;
    for _ in 0..2 {
        put(&trust, "stranger.pem", &PKI.stranger.cert);
        server.until(&connector(&PKI.stranger), true).await;
        fs::remove_file(trust.join("stranger.pem")).unwrap();
        server.until(&connector(&PKI.stranger), false).await;
    }
    load.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn file_replaced_by_rename_all_the_time_is_never_missing() {
    let (site, server, load) = loaded().await;
    let names = [site.path("trust/b.pem"), site.path("trust/renamed.pem")];
    for _ in 0..30 {
        fs::rename(&names[0], &names[1]).unwrap();
        server.handle.reload().await;
        fs::rename(&names[1], &names[0]).unwrap();
    }
    load.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_written_file_loses_no_certificate() {
    use std::io::Write as _;
    let site = Site::new();
    site.trust("all.pem", &format!("{}{}", PKI.a.cert, PKI.b.cert));
    let server = Server::start(site.config().trust(site.path("trust")).poll_interval(NEVER));
    server.handle.reload().await;
    let load = Load::start(&server, &PKI.b);
    let mut file = fs::File::create(site.path("trust/all.pem")).unwrap();
    file.write_all(PKI.stranger.cert.as_bytes()).unwrap();
    file.flush().unwrap();
    // What comes is in before the file is closed, and what may go is not out.
    server.until(&connector(&PKI.stranger), true).await;
    assert!(connector(&PKI.a).ask(server.address).await.is_ok());
    file.write_all(PKI.b.cert.as_bytes()).unwrap();
    drop(file);
    server.until(&connector(&PKI.a), false).await;
    load.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn emptied_directory_trusts_no_client_until_it_is_filled() {
    let site = Site::new();
    site.trust("a.pem", &PKI.a.cert);
    let server = Server::start(site.config().trust(site.path("trust")).poll_interval(NEVER));
    server.handle.reload().await;
    fs::remove_file(site.path("trust/a.pem")).unwrap();
    server.until(&connector(&PKI.a), false).await;
    site.trust("a.pem", &PKI.a.cert);
    server.until(&connector(&PKI.a), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trust_file_replaced_by_rename_is_loaded_and_vanished_one_changes_nothing() {
    let site = Site::new();
    fs::write(site.path("pins"), format!("{}{}", PKI.a.cert, PKI.b.cert)).unwrap();
    let server = Server::start(site.config().trust(site.path("pins")).poll_interval(NEVER));
    server.handle.reload().await;
    let load = Load::start(&server, &PKI.b);
    for (cert, a, stranger) in [(&PKI.stranger.cert, false, true), (&PKI.a.cert, true, false)] {
        put(site.dir.path(), "pins", &format!("{}{cert}", PKI.b.cert));
        server.until(&connector(&PKI.stranger), stranger).await;
        server.until(&connector(&PKI.a), a).await;
    }
    fs::remove_file(site.path("pins")).unwrap();
    until_problem(&server, "pins: it cannot be read").await;
    assert!(connector(&PKI.a).ask(server.address).await.is_ok());
    load.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn swapped_link_to_the_trust_directory_is_followed() {
    let site = Site::new();
    for (version, credentials) in [("v1", [&PKI.a, &PKI.b]), ("v2", [&PKI.stranger, &PKI.b])] {
        fs::create_dir_all(site.path("releases").join(version)).unwrap();
        for credential in credentials {
            put(
                &site.path("releases").join(version),
                &format!("{}.pem", credential.name),
                &credential.cert,
            );
        }
    }
    symlink("releases/v1", site.path("current")).unwrap();
    let server = Server::start(site.config().trust(site.path("current")).poll_interval(NEVER));
    server.handle.reload().await;
    let load = Load::start(&server, &PKI.b);
    symlink("releases/v2", site.path("next")).unwrap();
    fs::rename(site.path("next"), site.path("current")).unwrap();
    server.until(&connector(&PKI.stranger), true).await;
    server.until(&connector(&PKI.a), false).await;
    load.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poll_finds_changes_without_events() {
    let site = Site::new();
    fs::create_dir(site.path("elsewhere")).unwrap();
    fs::write(site.path("elsewhere/a.pem"), &PKI.a.cert).unwrap();
    site.trust("b.pem", &PKI.b.cert);
    // A hard link: its content changes without an event in this directory.
    fs::hard_link(site.path("elsewhere/a.pem"), site.path("trust/a.pem")).unwrap();
    let poll = Duration::from_millis(200);
    let server = Server::start(site.config().trust(site.path("trust")).poll_interval(poll));
    assert!(connector(&PKI.a).ask(server.address).await.is_ok());
    fs::write(site.path("elsewhere/a.pem"), &PKI.stranger.cert).unwrap();
    server.until(&connector(&PKI.stranger), true).await;
    server.until(&connector(&PKI.a), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn server_pair_is_renewed_in_either_order() {
    let site = Site::new();
    site.trust("b.pem", &PKI.b.cert);
    let server = Server::start(site.config().trust(site.path("trust")).poll_interval(NEVER));
    server.handle.reload().await;
    let load = Load::start(&server, &PKI.b);
    let seen = async || {
        let stream = connector(&PKI.b).connect(server.address).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    for order in [["server.pem", "server.key"], ["server.key", "server.pem"]] {
        let (old, new) = (seen().await, crate::support::pki::another_server());
        let content = |name: &str| if name == "server.pem" { &new.cert } else { &new.key };
        put(site.dir.path(), order[0], content(order[0]));
        until_problem(&server, "is not this certificate's").await;
        assert_eq!(seen().await, old, "the old pair stays");
        let generation = server.handle.generation();
        put(site.dir.path(), order[1], content(order[1]));
        timeout(DEADLINE, server.handle.generation_after(generation)).await.unwrap();
        assert_ne!(seen().await, old);
        assert_eq!(errors(&server), Vec::<String>::new());
    }
    load.lost_nothing().await;
}
