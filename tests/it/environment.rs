//! Flags and their variables: what is accepted, what is rejected, and who gets the blame.

use crate::support::pki::PKI;
use crate::support::tls::Site;
use crate::support::{Finished, Portcullis, run};

/// Each variable of `check` with a value that is accepted and one that is not. A variable without
/// the latter takes any text.
const VARIABLES: &[(&str, &str, Option<&str>)] = &[
    ("PORTCULLIS_LISTEN", "127.0.0.1:1,localhost:2,:3", Some("8443")),
    ("PORTCULLIS_PROXY_PROTOCOL", "true", Some("maybe")),
    ("PORTCULLIS_PROXY_PROTOCOL_FROM", "10.0.0.0/8", Some("10.0.0.0/33")),
    ("PORTCULLIS_CERT", "server.pem", Some("missing.pem")),
    ("PORTCULLIS_KEY", "server.key", Some("missing.key")),
    ("PORTCULLIS_TRUST", "trust", Some("trust,")),
    ("PORTCULLIS_TRUST_CA", "ca.pem", Some(",ca.pem")),
    ("PORTCULLIS_POLL_INTERVAL", "1s", Some("0s")),
    ("PORTCULLIS_API_ID", "a1,b2", Some("a1,")),
    ("PORTCULLIS_UPSTREAM", "http://127.0.0.1:1", Some("127.0.0.1:1")),
    ("PORTCULLIS_UPSTREAM_CONNECT_TIMEOUT", "1s", Some("1")),
    ("PORTCULLIS_UPSTREAM_TIMEOUT", "1s", Some("1")),
    ("PORTCULLIS_UPSTREAM_IDLE_TIMEOUT", "1s", Some("5M")),
    ("PORTCULLIS_UPSTREAM_MAX_CONNECTIONS", "1", Some("0")),
    ("PORTCULLIS_UPSTREAM_QUEUE", "0", Some("-1")),
    ("PORTCULLIS_PASS_HEADER", "X-Remote-User,Proxy", Some("X-Remote-User,Host")),
    ("PORTCULLIS_PASS_HEADER", "X-Remote-User", Some("a b")),
    ("PORTCULLIS_STRIP_HEADER", "X-A,X-B", Some("Content-Length")),
    ("PORTCULLIS_SET_HEADER", "X-A=1,2\nX-B=3\n", Some("Client-Cert=x")),
    ("PORTCULLIS_SET_HEADER", "X-A=1", Some("X-A")),
    ("PORTCULLIS_SET_HEADER", "X-A=", Some("X-A=1\nX-A=2")),
    ("PORTCULLIS_SET_HEADER", "X-A=\u{e9}", Some("X-A=\u{1}")),
    ("PORTCULLIS_MAX_BODY", "1MiB", Some("1 mile")),
    ("PORTCULLIS_HANDSHAKE_TIMEOUT", "1s", Some("0s")),
    ("PORTCULLIS_HEAD_TIMEOUT", "1s", Some("soon")),
    ("PORTCULLIS_BODY_TIMEOUT", "1s", Some("never")),
    ("PORTCULLIS_WRITE_TIMEOUT", "1s", Some("400")),
    ("PORTCULLIS_IDLE_TIMEOUT", "1s", Some("never")),
    ("PORTCULLIS_MAX_CONNECTION_AGE", "1h", Some("2years")),
    ("PORTCULLIS_MAX_CONNECTIONS", "1", Some("99999999999999999999")),
    ("PORTCULLIS_MAX_HANDSHAKES", "1", Some("0")),
    ("PORTCULLIS_HANDSHAKES_AT_ONCE", "1", Some("0")),
    ("PORTCULLIS_MAX_HEAD_SIZE", "16KiB", Some("1")),
    ("PORTCULLIS_MAX_HEADERS", "50", Some("many")),
    ("PORTCULLIS_MAX_STREAMS", "1", Some("0")),
    ("PORTCULLIS_MAX_RESETS", "1", Some("0")),
    ("PORTCULLIS_MAX_STREAM_ERRORS", "1", Some("0")),
    ("PORTCULLIS_NO_SANDBOX", "true", Some("perhaps")),
    ("PORTCULLIS_SHUTDOWN_DELAY", "0s", Some("1 fortnight")),
    ("PORTCULLIS_DRAIN_TIMEOUT", "0s", Some("1 fortnight")),
    ("PORTCULLIS_ADMIN", "127.0.0.1:9090", Some("9090")),
    ("PORTCULLIS_ADMIN_HOST", "status.example.com", Some("http://x")),
    ("PORTCULLIS_LOG", "warn,portcullis::access=off", Some("verbose")),
    ("PORTCULLIS_LOG_FORMAT", "json", Some("xml")),
    ("PORTCULLIS_ACCESS_LOG", "off", Some("no")),
    ("PORTCULLIS_NAME", "localhost", Some("a b")),
    ("PORTCULLIS_STRICT", "false", Some("very")),
];

fn check(site: &Site, args: &[&str], variables: &[(&str, &str)]) -> Finished {
    let mut command = Portcullis::command();
    command.arg("check").args(args).envs(variables.iter().copied());
    run(command.current_dir(site.dir.path()), "")
}

fn site() -> Site {
    let site = Site::new();
    site.flags(&[]);
    std::fs::write(site.path("ca.pem"), &PKI.root).unwrap();
    site
}

const FILES: [(&str, &str); 3] = [
    ("PORTCULLIS_CERT", "server.pem"),
    ("PORTCULLIS_KEY", "server.key"),
    ("PORTCULLIS_TRUST", "trust"),
];

#[test]
fn every_flag_works_by_its_variable_and_an_error_names_the_variable() {
    let site = site();
    for (variable, good, bad) in VARIABLES {
        let with = |value| {
            let mut variables = FILES.to_vec();
            if variable.ends_with("PROXY_PROTOCOL_FROM") {
                variables.push(("PORTCULLIS_PROXY_PROTOCOL", "true"));
            }
            if variable.ends_with("_HEADER") {
                variables.push(("PORTCULLIS_UPSTREAM", "http://127.0.0.1:1"));
            }
            variables.retain(|(name, _)| name != variable);
            variables.push((variable, value));
            check(&site, &[], &variables)
        };
        let finished = with(good);
        assert_eq!(finished.code, Some(0), "{variable}={good}: {finished}");
        let Some(bad) = bad else { continue };
        let finished = with(bad);
        assert_eq!(finished.code, Some(2), "{variable}={bad}: {finished}");
        let is_file = bad.starts_with("missing");
        let culprit = if is_file { bad } else { variable };
        let output = format!("{}{}", finished.stdout, finished.stderr);
        assert!(output.contains(culprit), "{variable}={bad}: {finished}");
        let flag = variable.trim_start_matches("PORTCULLIS_").to_lowercase().replace('_', "-");
        let named = ["for '--".to_owned(), format!("--{flag}: ")];
        let is_flag_blamed = named.iter().any(|named| finished.stderr.contains(named));
        assert!(is_file || !is_flag_blamed, "{variable}={bad}: {finished}");
    }
}

#[test]
fn table_of_variables_is_complete() {
    let help = run(Portcullis::command().args(["check", "--help"]), "").stdout;
    let named = help.split("[env: ").skip(1).filter_map(|rest| rest.split([']', '=']).next());
    let missing = |name: &&str| !VARIABLES.iter().any(|(variable, ..)| variable == name);
    let missing: Vec<_> = named.clone().filter(missing).collect();
    // ACME's are tested where their files are.
    let is_here = |name: &&str| !name.contains("PORTCULLIS_ACME");
    assert!(!missing.iter().any(is_here), "{missing:?}");
    assert!(named.count() >= 40, "{help}");
}

#[test]
fn flag_counts_before_its_variable_and_is_blamed_itself() {
    let site = site();
    let with = |flag: &str, variable: &str| {
        let variables = [&FILES[..], &[("PORTCULLIS_IDLE_TIMEOUT", variable)]].concat();
        check(&site, &["--idle-timeout", flag], &variables)
    };
    assert_eq!(with("5s", "never").code, Some(0));
    let finished = with("never", "5s");
    assert_eq!(finished.code, Some(2), "{finished}");
    assert!(finished.stderr.contains("for '--idle-timeout"), "{finished}");
}

#[test]
fn empty_variable_counts_as_unset_unless_it_would_drop_a_restriction() {
    let site = site();
    let with = |variable| check(&site, &[], &[&FILES[..], &[(variable, "")]].concat());
    assert_eq!(with("PORTCULLIS_IDLE_TIMEOUT").code, Some(0));
    assert_eq!(with("PORTCULLIS_ADMIN").code, Some(0));
    for variable in [
        "PORTCULLIS_API_ID",
        "PORTCULLIS_TRUST",
        "PORTCULLIS_TRUST_CA",
        "PORTCULLIS_PROXY_PROTOCOL_FROM",
    ] {
        let finished = with(variable);
        assert_eq!(finished.code, Some(2), "{variable}: {finished}");
        let output = format!("{variable} is set but empty");
        assert!(finished.stderr.contains(&output), "{variable}: {finished}");
    }
}

#[test]
fn empty_item_of_a_list_is_rejected() {
    let site = site();
    let files = ["--cert", "server.pem", "--key", "server.key", "--trust", "trust"];
    for (flag, good) in [
        ("--api-id", "good"),
        ("--listen", ":8443"),
        ("--trust", "trust"),
        ("--name", "localhost"),
        ("--admin-host", "status.example.com"),
    ] {
        let with = |value: &str| check(&site, &[&files[..], &[flag, value]].concat(), &[]);
        assert_eq!(with(good).code, Some(0), "{flag} {good}");
        for wrong in [String::new(), format!("{good},"), format!(",{good}"), ",".to_owned()] {
            let finished = with(&wrong);
            assert_eq!(finished.code, Some(2), "{flag} {wrong:?}: {finished}");
            assert!(finished.stderr.contains(flag), "{flag} {wrong:?}: {finished}");
        }
    }
}

#[test]
fn filter_of_the_load_balancer_is_not_ignored_without_its_protocol() {
    let site = site();
    let from = ("PORTCULLIS_PROXY_PROTOCOL_FROM", "10.0.0.0/8");
    let with = |value| {
        let protocol = ("PORTCULLIS_PROXY_PROTOCOL", value);
        check(&site, &[], &[&FILES[..], &[from, protocol]].concat())
    };
    assert_eq!(with("true").code, Some(0));
    let finished = with("false");
    assert_eq!(finished.code, Some(2), "{finished}");
    assert!(finished.stderr.contains("needs --proxy-protocol"), "{finished}");
}

#[test]
fn misspelt_variable_is_a_warning_that_names_the_nearest_one() {
    let site = site();
    let typo = ("PORTCULLIS_TRSUT", "x");
    let service = ("PORTCULLIS_PORT_8443_TCP_ADDR", "10.0.0.1");
    let with =
        |args: &[&str], more: &[(&str, &str)]| check(&site, args, &[&FILES[..], more].concat());
    let finished = with(&[], &[typo, service]);
    assert_eq!(finished.code, Some(0), "{finished}");
    let warning = "PORTCULLIS_TRSUT; the nearest one is PORTCULLIS_TRUST\n";
    assert!(finished.stdout.contains(warning), "{finished}");
    assert!(!finished.stdout.contains("PORTCULLIS_PORT"), "{finished}");
    assert_eq!(with(&["--strict"], &[typo]).code, Some(2));

    let mut command = Portcullis::command();
    command.envs([typo, service]);
    let server = Portcullis::serve_by(command, site.flags(&[]));
    let warning = server.wait_for_event("unknown_variable", |_| true);
    assert_eq!(warning["variable"], "PORTCULLIS_TRSUT", "{warning}");
    assert_eq!(warning["nearest"], "PORTCULLIS_TRUST", "{warning}");
    assert_eq!(server.log().matches("unknown_variable").count(), 1, "{}", server.log());
}

#[test]
fn combination_is_blamed_on_the_variable_that_set_its_part() {
    let site = site();
    let check = |args: &[&str], more: &[(&str, &str)]| check(&site, args, &[&FILES, more].concat());
    let pass = ("PORTCULLIS_PASS_HEADER", "X-Remote-User");
    let without_upstream = check(&[], &[pass]);
    assert_eq!(without_upstream.code, Some(2), "{without_upstream}");
    let text = "PORTCULLIS_PASS_HEADER is set, and needs --upstream";
    assert!(without_upstream.stderr.contains(text), "{without_upstream}");
    let by_flag = check(&["--pass-header", "X-Remote-User"], &[]);
    assert_eq!(by_flag.code, Some(2), "{by_flag}");
    assert!(!by_flag.stderr.contains("PORTCULLIS_PASS_HEADER"), "{by_flag}");
    let upstream = ("PORTCULLIS_UPSTREAM", "http://127.0.0.1:1");
    let both = check(&[], &[pass, upstream]);
    assert_eq!(both.code, Some(0), "{both}");
}

#[test]
fn address_that_is_taken_is_blamed_on_the_variable_that_set_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let site = site();
    let serve = |more: &[&str], variable: &str| {
        let mut command = Portcullis::command();
        command.arg("serve").args(site.flags(more)).env(variable, &address);
        run(&mut command, "")
    };
    let listen = serve(&["--admin", "127.0.0.1:0"], "PORTCULLIS_LISTEN");
    assert_eq!(listen.code, Some(1), "{listen}");
    assert!(listen.stderr.contains("flag=PORTCULLIS_LISTEN"), "{listen}");
    let admin = serve(&["--listen", "127.0.0.1:0"], "PORTCULLIS_ADMIN");
    assert_eq!(admin.code, Some(1), "{admin}");
    assert!(admin.stderr.contains("(PORTCULLIS_ADMIN)"), "{admin}");
}

#[tokio::test(flavor = "multi_thread")]
async fn localhost_is_both_loopback_addresses() {
    let site = Site::new();
    let server = Portcullis::serve(site.flags(&["--listen", "localhost:0"]));
    let mut addresses: Vec<_> =
        (0..2).map(|_| server.wait_for_event("listening", |_| true)).collect();
    addresses.sort_by_key(|event| event["addr"].to_string());
    assert!(addresses[0]["addr"].as_str().unwrap().starts_with("127.0.0.1:"), "{addresses:?}");
    assert!(addresses[1]["addr"].as_str().unwrap().starts_with("[::1]:"), "{addresses:?}");
}

#[test]
fn completions_and_manual_name_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let finished = run(Portcullis::command().args(["completions", shell]), "");
        assert_eq!(finished.code, Some(0), "{finished}");
        assert!(finished.stdout.contains("handshake-timeout"), "{shell}");
    }
    assert_eq!(run(Portcullis::command().args(["completions", "csh"]), "").code, Some(2));
    let finished = run(Portcullis::command().arg("man"), "");
    assert!(finished.stdout.contains(".TH portcullis"), "{finished}");
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("man1");
    let finished = run(Portcullis::command().arg("man").arg(&pages), "");
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), ""), "{finished}");
    let page = std::fs::read_to_string(pages.join("portcullis-serve.1")).unwrap();
    assert!(page.contains("PORTCULLIS_TRUST"), "{page}");
}
