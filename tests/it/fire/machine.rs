//! A machine that fails.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use axum::{Router, routing::get};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::fire::harness::{Fire, SERVED_WITHIN, Watch, connector, crowd, open};
use crate::support::pki::PKI;
use crate::support::shapes::{Shape, pem};
use crate::support::tls::{Site, put, request};
use crate::support::{DEADLINE, Portcullis, wait_for};

/// The binary, run by a shell that has done this before.
fn after(script: &str) -> Command {
    let mut command = Command::new("sh");
    let program = Portcullis::command().get_program().to_owned();
    command.args(["-c", &format!("{script} && exec \"$0\" \"$@\"")]).arg(program);
    command
}

fn is_permitted(command: &[&str]) -> bool {
    let tried = Command::new(command[0]).args(&command[1..]).output();
    let is_permitted = tried.is_ok_and(|output| output.status.success());
    if !is_permitted {
        println!("skipped: {command:?} is not permitted here");
    }
    is_permitted
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; run by .ci/run against the release binary"]
async fn more_silent_connections_than_descriptors() {
    let fire = Fire::started_by(after("ulimit -n 256"), &[], |_| {});
    fire.rounds(async |watch| {
        let _silent = open(fire.addr(), 1000, b"");
        watch.some_more();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; run by .ci/run against the release binary"]
async fn no_descriptors_left() {
    let fire = Fire::started_by(after("ulimit -n 256"), &[], |_| {});
    let connector = connector(&PKI.a);
    // Accepted clients hold them all.
    let mut held = Vec::new();
    while fire.descriptors() < 256 {
        let mut stream = connector.connect(fire.addr()).await.unwrap();
        request(&mut stream, "").await.unwrap();
        held.push(stream);
    }
    let waiting = open(fire.addr(), 100, b"");
    fire.server.wait_for_event("accept_failed", |_| true);
    let (begun, before) = (Instant::now(), fire.cpu_time());
    wait_for(Duration::from_secs(3), || false);
    let computed = fire.cpu_time() - before;
    println!("computed for {computed:?} of {:?} without descriptors", begun.elapsed());
    assert!(computed < begun.elapsed() / 10, "it spins: {computed:?}");
    // Those whom it holds are served meanwhile.
    request(&mut held[0], "").await.unwrap();
    assert_eq!(fire.server.log().matches("accept_failed").count(), 1);

    held.truncate(100);
    let begun = Instant::now();
    connector.ask(fire.addr()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    drop((held, waiting));
    fire.rounds(async |watch| watch.some_more()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; run by .ci/run against the release binary"]
async fn unreadable_trust_directory() {
    // Root reads what it may not, unless that is taken from it.
    const AS_ANYBODY: [&str; 3] = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"];
    let is_root = rustix::process::geteuid().is_root();
    if is_root && !is_permitted(&[&AS_ANYBODY[..], &["true"]].concat()) {
        return;
    }
    let command = if is_root {
        let mut command = Command::new(AS_ANYBODY[0]);
        command.args(&AS_ANYBODY[1..]).arg(Portcullis::command().get_program());
        command
    } else {
        Portcullis::command()
    };
    let fire = Fire::started_by(command, &["--poll-interval", "200ms"], |_| {});
    let trust = fire.path("trust");
    fire.rounds(async |watch| {
        set_mode(&trust, 0);
        fire.server.wait_for_event("reload_failed", |event| {
            event["file"].as_str().is_some_and(|file| file.ends_with("trust"))
        });
        watch.some_more();
        set_mode(&trust, 0o700);
        fire.server.wait_for_event("fault_mended", |_| true);
        watch.some_more();
    })
    .await;
}

fn set_mode(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; run by .ci/run against the release binary"]
async fn unmounted_trust_directory() {
    if !is_permitted(&["unshare", "-m", "sh", "-c", "mount -t tmpfs none /mnt"]) {
        return;
    }
    let mut command = Command::new("unshare");
    // Mounted is a directory with A's certificate; the place where it is so is empty.
    let script = "trust=$(cd \"$(dirname \"$0\")\" && pwd)/trust && mount -t tmpfs none \"$trust\" \
                  && cp \"$trust/../a.pem\" \"$trust\" && shift && exec \"$@\"";
    command.args(["-m", "sh", "-c", script]);
    let dir = tempfile::tempdir().unwrap();
    command.arg(dir.path().join("x")).arg("x").arg(Portcullis::command().get_program());
    fs::create_dir(dir.path().join("trust")).unwrap();
    fs::write(dir.path().join("a.pem"), &PKI.a.cert).unwrap();
    let trust = dir.path().join("trust").into_os_string().into_string().unwrap();
    let flags = ["--poll-interval", "200ms", "--trust", &trust];
    let fire = Fire::started_by(command, &flags, |own| {
        fs::write(own.join("trust/a.pem"), &PKI.b.cert).unwrap();
    });
    let pid = fire.server.proc("").file_name().unwrap().to_owned();
    let within = |script: &str| {
        let mut entered = Command::new("nsenter");
        entered.arg("-m").arg("-t").arg(&pid).args(["sh", "-c", script]).env("T", &trust);
        assert!(entered.status().unwrap().success(), "{script}");
    };
    fire.rounds(async |watch| {
        within("umount -l \"$T\"");
        fire.server.wait_for_event("reload_failed", |_| true);
        watch.some_more();
        within("mount -t tmpfs none \"$T\" && cp \"$T/../a.pem\" \"$T\"");
        fire.server.wait_for_event("fault_mended", |_| true);
        watch.some_more();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; run by .ci/run against the release binary"]
async fn trust_directory_of_10_000_files() {
    const FILES: u64 = 10_000;
    let fire = Fire::new(&[]);
    let elsewhere = fire.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    for serial in 0..FILES {
        // The signature is not verified: the certificate is compared byte by byte.
        let certificate = pem(&Shape { serial, ..Shape::of(&key) }.der());
        put(&elsewhere, &format!("{serial}.pem"), &certificate);
    }
    fire.rounds(async |watch| {
        let each = |change: fn(&std::path::Path, &std::path::Path)| {
            for serial in 0..FILES {
                let name = format!("{serial}.pem");
                change(&elsewhere.join(&name), &fire.path("trust").join(&name));
            }
        };
        each(|from, to| fs::hard_link(from, to).unwrap());
        put(&fire.path("trust"), "b.pem", &PKI.b.cert);
        let is_in = async |is_in| {
            let end = Instant::now() + DEADLINE;
            while connector(&PKI.b).ask(fire.addr()).await.is_ok() != is_in {
                assert!(Instant::now() < end, "{is_in}");
            }
        };
        is_in(true).await;
        watch.some_more();
        each(|_, to| fs::remove_file(to).unwrap());
        fs::remove_file(fire.path("trust/b.pem")).unwrap();
        is_in(false).await;
        watch.some_more();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; run by .ci/run against the release binary"]
async fn clients_that_leave_in_the_middle() {
    let fire = Fire::new(&[]);
    let address = fire.addr();
    fire.rounds(async |_| {
        crowd(500, || async move {
            let mut stream = connector(&PKI.a).connect(address).await.unwrap();
            let post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nxxx";
            stream.write_all(post).await.unwrap();
        })
        .await;
    })
    .await;
}

/// A clock can be stepped in this process only, so the server runs in it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; run by .ci/run against the release binary"]
async fn clock_step() {
    use std::time::SystemTime;
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let site = Site::new();
    site.trust("a.pem", &PKI.a.cert);
    let server = site.serve();
    let connector = connector(&PKI.a);
    let now = SystemTime::now();
    for (then, is_in) in [
        (now - 100 * DAY, true),
        (now - 200 * DAY, false),
        (now + 100 * DAY, true),
        (now + 10_000 * DAY, false),
        (now, true),
        (SystemTime::UNIX_EPOCH, false),
        (now, true),
    ] {
        site.clock.set(then);
        server.until(&connector, is_in).await;
    }
    let watch = Watch::start(server.address);
    for hours in [-2, 2, 0, 1, -1_i32] {
        let step = Duration::from_secs(3600) * hours.unsigned_abs();
        site.clock.set(if hours < 0 { now - step } else { now + step });
        watch.some_more();
    }
    watch.end("");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; run by .ci/run against the release binary"]
async fn machine_without_inotify() {
    // The instances are counted by user, and here they are those of a user namespace of its own.
    let script = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$0\" \"$@\"";
    let alone = ["unshare", "--user", "--map-root-user", "sh", "-c", script];
    if !is_permitted(&[&alone[..], &["true"]].concat()) {
        return;
    }
    let mut command = Command::new(alone[0]);
    command.args(&alone[1..]).arg(Portcullis::command().get_program());
    let fire = Fire::started_by(command, &["--poll-interval", "200ms"], |_| {});
    fire.server.wait_for_event("watch_unavailable", |_| true);
    fire.rounds(async |watch| {
        put(&fire.path("trust"), "b.pem", &PKI.b.cert);
        fire.server.wait_for_event("trust_reloaded", |_| true);
        watch.some_more();
        fs::remove_file(fire.path("trust/b.pem")).unwrap();
        fire.server.wait_for_event("trust_reloaded", |_| true);
        watch.some_more();
    })
    .await;
    assert_eq!(fire.server.log().matches("watch_unavailable").count(), 1);
}

/// Asks on a new connection, again and again until it has been served so many times.
async fn is_served(address: SocketAddr, times: usize) {
    let connector = connector(&PKI.a);
    for _ in 0..times {
        let begun = Instant::now();
        connector.ask(address).await.unwrap();
        assert!(begun.elapsed() <= SERVED_WITHIN, "{:?}", begun.elapsed());
    }
}

/// A request whose last byte the server waits for.
async fn unfinished(address: SocketAddr) -> TlsStream<TcpStream> {
    let mut stream = connector(&PKI.a).connect(address).await.unwrap();
    let post = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
    stream.write_all(post).await.unwrap();
    let mut asked = [0; 25];
    timeout(DEADLINE, stream.read_exact(&mut asked)).await.unwrap().unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; run by .ci/run against the release binary"]
async fn sighup_while_draining() {
    let mut fire = Fire::new(&["--shutdown-delay", "1s"]);
    let mut unfinished = unfinished(fire.addr()).await;
    fire.server.signal("TERM");
    fire.server.wait_for_event("draining", |_| true);
    for _ in 0..10 {
        fire.server.signal("HUP");
        is_served(fire.addr(), 2).await;
    }
    // The second half of a stop, in which no connection is accepted.
    assert!(wait_for(DEADLINE, || std::net::TcpStream::connect(fire.addr()).is_err()));
    fire.server.signal("HUP");
    unfinished.write_all(b"x").await.unwrap();
    let mut response = Vec::new();
    let _ = timeout(DEADLINE, unfinished.read_to_end(&mut response)).await.unwrap();
    assert!(response.starts_with(b"HTTP/1.1 200"));
    assert_eq!(fire.server.exit_code(), Some(0));
    assert!(!fire.server.log().contains("\"reloaded\""), "{}", fire.server.log());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; run by .ci/run against the release binary"]
async fn second_signal() {
    let mut fire = Fire::new(&["--shutdown-delay", "1h", "--drain-timeout", "1h"]);
    let _unfinished = unfinished(fire.addr()).await;
    fire.server.signal("TERM");
    fire.server.wait_for_event("draining", |_| true);
    is_served(fire.addr(), 20).await;
    let begun = Instant::now();
    fire.server.signal("TERM");
    assert_eq!(fire.server.exit_code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    fire.server.wait_for_event("stopped", |event| event["connections_cut"] == 1);
}

/// The binary's own service does not panic: this one is one of an application's own, in
/// this process.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; run by .ci/run against the release binary"]
async fn panicking_service() {
    async fn boom() -> &'static str {
        panic!("as it must")
    }
    let site = Site::new();
    site.trust("a.pem", &PKI.a.cert);
    let bound = site.config().trust(site.path("trust")).bind().unwrap();
    let address = bound.local_addrs()[0];
    let router = Router::new().route("/", get(async || "hello world\n")).route("/boom", get(boom));
    let _running = bound.serve(router);
    // They would be hundreds of messages about what is meant to be.
    std::panic::set_hook(Box::new(|_| {}));
    let watch = Watch::start(address);
    // Not more at once: they, the server and the one who watches share what is not optimised.
    crowd(8, || async move {
        for _ in 0..25 {
            let mut stream = connector(&PKI.a).connect(address).await.unwrap();
            stream.write_all(b"GET /boom HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut response = Vec::new();
            // It is the last of its connection.
            let _ =
                timeout(DEADLINE, stream.read_to_end(&mut response)).await.expect("it is closed");
            assert!(
                response.starts_with(b"HTTP/1.1 500"),
                "{}",
                String::from_utf8_lossy(&response)
            );
        }
    })
    .await;
    watch.some_more();
    let _ = std::panic::take_hook();
    watch.end("");
}
