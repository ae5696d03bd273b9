//! The binary as a process: its messages, its exit codes, its signals, its deadlines.

use std::fs;
use std::net::{SocketAddr, TcpListener};

use crate::support::files::Files;
use crate::support::pki::PKI;
use crate::support::tls::{connector, put, request};
use crate::support::{DEADLINE, Portcullis, run, wait_for};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

#[test]
fn usage_error_exits_2_and_names_the_flag() {
    for (args, named) in [
        (vec!["serve"], "--cert"),
        (vec!["serve", "--cert", "c", "--key", "k"], "--trust"),
        (vec!["serve", "--cert", "c", "--key", "k", "--trust", "t", "--no-such"], "--no-such"),
        (
            vec!["serve", "--cert", "c", "--key", "k", "--trust", "t", "--idle-timeout", "0s"],
            "--idle-timeout",
        ),
        (
            vec!["serve", "--cert", "c", "--key", "k", "--trust", "t", "--listen", "8443"],
            "--listen",
        ),
        (vec!["serve", "--cert", "c", "--key", "k", "--trust", "t", "--log", "a=b=c"], "--log"),
        (vec![], "Usage"),
    ] {
        let finished = run(Portcullis::command().args(&args), "");
        assert_eq!(finished.code, Some(2), "{args:?}: {finished}");
        assert!(finished.stderr.contains(named), "{args:?}: {finished}");
    }
    assert_eq!(run(Portcullis::command().arg("--help"), "").code, Some(0));
}

#[test]
fn unusable_files_exit_2_and_all_problems_are_listed() {
    let files = Files::trusting(&[&PKI.a]);
    files.write("server.key", &PKI.a.key);
    files.write("trust/a.pem", "nothing");
    files.write("trust/key.pem", &PKI.a.key);
    files.write("trust/cut.pem", &PKI.b.cert[..300]);
    for command in ["serve", "check"] {
        let finished = files.run_with_flags(command, &[]);
        assert_eq!(finished.code, Some(2), "{finished}");
        let output = format!("{}{}", finished.stdout, finished.stderr);
        for part in [
            "is not this certificate's",
            "a.pem: there is no certificate in it",
            "key.pem:1: there is a private key in it",
            "does not belong",
            "cut.pem:1: the block that begins here has no end",
        ] {
            let (file, problem) = part.split_once(": ").unwrap_or(("", part));
            assert!(output.contains(problem), "{command}: {part}: {finished}");
            assert!(
                output.contains(file.split(':').next().unwrap()),
                "{command}: {part}: {finished}"
            );
        }
    }
}

#[test]
fn starts_with_one_good_certificate_and_not_with_expired_ones_alone() {
    let files = Files::trusting(&[&PKI.a]);
    files.write("trust/bad.pem", "nothing");
    let server = files.start(&[]);
    let problem = server.wait_for_event("load_failed", |_| true);
    assert!(problem["file"].as_str().unwrap().ends_with("bad.pem"), "{problem}");
    assert!(problem["remedy"].is_string(), "{problem}");
    assert_eq!(server.terminate(), Some(0));
    assert_eq!(files.run_with_flags("check", &[]).code, Some(2), "check is the strict one");

    fs::remove_file(files.path("trust/bad.pem")).unwrap();
    files.write("trust/a.pem", &PKI.expired.cert);
    let finished = files.run_with_flags("serve", &[]);
    assert_eq!(finished.code, Some(2), "{finished}");
    assert!(finished.stderr.contains("no client is trusted"), "{finished}");
}

#[test]
fn check_lists_warnings_opens_no_socket_and_exits_0() {
    let files = Files::trusting(&[&PKI.a]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let finished = files.run_with_flags("check", &["--listen", &address]);
    assert_eq!(finished.code, Some(0), "{finished}");
    assert!(finished.stdout.ends_with("\nok\n"), "{finished}");
    files.write("trust/expired.pem", &PKI.expired.cert);
    files.write("trust/tomorrow.pem", &PKI.not_yet_valid.cert);
    files.write("trust/upper.PEM", &PKI.b.cert);
    let finished = files.run_with_flags("check", &[]);
    assert_eq!(finished.code, Some(0), "{finished}");
    for (file, problem) in [
        ("expired.pem", "ended at"),
        ("tomorrow.pem", "not yet valid"),
        ("upper.PEM", "passed over"),
    ] {
        let output = |line: &str| {
            line.starts_with("warning") && line.contains(file) && line.contains(problem)
        };
        assert!(finished.stdout.lines().any(output), "{file}: {finished}");
    }
    let finished = files.run_with_flags("serve", &["--listen", &address]);
    assert_eq!(finished.code, Some(1), "{finished}");
    assert!(finished.stderr.contains(&address), "{finished}");
}

#[test]
fn skipped_file_is_logged_once() {
    let files = Files::trusting(&[&PKI.a]);
    files.write("trust/notes.txt", "");
    let server = files.start(&["--poll-interval", "50ms"]);
    server.wait_for_event("trust_file_warning", |event| {
        event["file"].as_str().unwrap().ends_with("notes.txt")
    });
    for name in ["b", "stranger"] {
        put(&files.path("trust"), &format!("{name}.pem"), &PKI.b.cert);
        put(&files.path("trust"), "more.txt", "");
        server.wait_for_event("trust_file_warning", |event| {
            event["file"].as_str().unwrap().ends_with("more.txt")
        });
        fs::remove_file(files.path("trust/more.txt")).unwrap();
        server.signal("HUP");
        server.wait_for_event("reloaded", |_| true);
        fs::write(files.path("trust/a.pem"), if name == "b" { "x" } else { &PKI.a.cert }).unwrap();
        server.wait_for_event(if name == "b" { "reload_failed" } else { "fault_mended" }, |_| true);
    }
    assert_eq!(server.log().matches("notes.txt").count(), 1, "{}", server.log());
}

#[test]
fn encrypted_server_key_is_named_and_the_decrypted_one_loads() {
    let files = Files::trusting(&[&PKI.a]);
    let key = PKI.server.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    files.write("server.key", &key);
    let finished = files.run_with_flags("check", &[]);
    assert_eq!(finished.code, Some(2));
    assert!(finished.stdout.contains("server.key:1: the private key is encrypted"), "{finished}");
    assert!(finished.stdout.contains("openssl pkey"), "{finished}");
    files.write("server.key", &PKI.server.key);
    assert_eq!(files.run_with_flags("check", &[]).code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn listens_on_each_address_and_on_both_families_by_default() {
    let files = Files::trusting(&[&PKI.a]);
    let server = files.start(&["--listen", "[::]:0"]);
    let both = server.wait_for_event("listening", |_| true);
    let both: SocketAddr = both["addr"].as_str().unwrap().parse().unwrap();
    let a = connector(&PKI.a);
    for address in [
        server.addr(),
        SocketAddr::from(([127, 0, 0, 1], both.port())),
        SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], both.port())),
    ] {
        a.ask(address).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_the_files_again() {
    let files = Files::trusting(&[&PKI.a]);
    // Nothing else reports the change: no event in the directory, and no poll for an hour.
    fs::create_dir(files.path("elsewhere")).unwrap();
    fs::hard_link(files.path("trust/a.pem"), files.path("elsewhere/a.pem")).unwrap();
    let server = files.start(&["--poll-interval", "1h"]);
    // The first scan is over when a second one is.
    server.signal("HUP");
    server.wait_for_event("reloaded", |_| true);
    files.write("elsewhere/a.pem", &PKI.b.cert);
    assert!(connector(&PKI.b).ask(server.addr()).await.is_err());
    server.signal("HUP");
    server.wait_for_event("trust_reloaded", |_| true);
    connector(&PKI.b).ask(server.addr()).await.unwrap();
    assert!(connector(&PKI.a).ask(server.addr()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn change_is_one_event_that_names_added_and_removed() {
    let files = Files::trusting(&[&PKI.a]);
    let server = files.start(&[]);
    let mut a = connector(&PKI.a).connect(server.addr()).await.unwrap();
    request(&mut a, "").await.unwrap();
    put(&files.path("trust"), "a.pem", &PKI.b.cert);
    let event = server.wait_for_event("trust_reloaded", |_| true);
    assert_eq!(event["generation"], 2, "{event}");
    assert_eq!(event["connections_ended"], 1, "{event}");
    for list in ["added", "removed"] {
        let list = event[list][0].as_str().unwrap();
        let file = files.path("trust/a.pem");
        assert!(list.starts_with(file.to_str().unwrap()) && list.contains(" until 20"), "{event}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn open_file_limit_is_raised_to_the_hard_limit() {
    let files = Files::trusting(&[&PKI.a]);
    let mut command = std::process::Command::new("sh");
    let log = fs::File::create(files.path("log")).unwrap();
    let program = Portcullis::command().get_program().to_owned();
    command.args(["-c", "ulimit -Sn 256; exec \"$0\" \"$@\""]).arg(program).arg("serve");
    command.args(files.flags()).args(["--listen", "127.0.0.1:0"]).stderr(log);
    let mut child = command.spawn().unwrap();
    let log = || fs::read_to_string(files.path("log")).unwrap();
    let is_there = wait_for(DEADLINE, || log().contains(" listening addr="));
    let limits = fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(is_there, "{}", log());
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let [soft, hard] = line.split_whitespace().skip(3).take(2).collect::<Vec<_>>()[..] else {
        panic!("{line}")
    };
    assert_eq!(soft, hard);
}

#[test]
fn text_log_has_event_and_fields() {
    let files = Files::trusting(&[&PKI.a]);
    let mut child = Portcullis::command()
        .arg("serve")
        .args(files.flags())
        .args(["--listen", "127.0.0.1:0"])
        .stderr(fs::File::create(files.path("log")).unwrap())
        .spawn()
        .unwrap();
    let log = || fs::read_to_string(files.path("log")).unwrap();
    let is_there = wait_for(DEADLINE, || log().contains(" listening addr=127.0.0.1:"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(is_there, "{}", log());
    assert!(!log().contains('\u{1b}'), "no colours in a file: {}", log());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_in_the_log() {
    let files = Files::trusting(&[&PKI.a]);
    // A key that has strayed into a place of certificates is read too, and is named.
    files.write("trust/stray.pem", &PKI.b.key);
    let server = files.start(&["--log", "trace"]);
    for protocol in ["http/1.1", "h2"] {
        let speaking = connector(&PKI.a).speaking(protocol);
        let _open = speaking.connect(server.addr()).await.unwrap();
    }
    connector(&PKI.a).ask(server.addr()).await.unwrap();
    assert!(connector(&PKI.stranger).ask(server.addr()).await.is_err());
    // One that does not match, then nothing at all.
    for (text, event) in [(PKI.a.key.as_str(), "reload_failed"), ("", "reload_failed")] {
        files.write("server.key", text);
        server.signal("HUP");
        server.wait_for_event(event, |_| true);
    }
    server.wait_for_event("client_rejected", |_| true);
    let log = server.log();
    assert!(log.contains("\"level\":\"TRACE\""), "{log}");
    for key in [&PKI.server.key, &PKI.a.key, &PKI.b.key] {
        let der = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let der = der.secret_der();
        // In PKCS#8, the scalar of a P-256 key, or a prime of an RSA key.
        let scalar = der.windows(2).position(|bytes| bytes == [4, 32]).map(|at| at + 2);
        let at = if der.len() < 200 { scalar.unwrap() } else { der.len() * 2 / 3 };
        let secret = &der[at..at + 12];
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let list = format!("{secret:?}");
        let list = list.trim_matches(['[', ']']).to_owned();
        let base64 = key.lines().filter(|line| !line.starts_with("-----")).map(str::to_owned);
        for spelling in base64.chain([hex.to_uppercase(), hex, list]) {
            assert!(!log.contains(&spelling), "{spelling}");
        }
    }
}
