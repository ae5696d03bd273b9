//! Files of other formats, swapped files and odd paths: each error names what is there, and its
//! remedy fits.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use portcullis::{Config, Problem, Severity};

use crate::support::Portcullis;
use crate::support::files::Files;
use crate::support::pki::{Credential, PKI};

/// A file that is given by a flag.
#[derive(Clone, Copy, Debug)]
enum Flag {
    Cert,
    Key,
    Trust,
    TrustCa,
}

/// The problems of a path behind one flag, with everything else as it should be.
fn problems_of(files: &Files, flag: Flag, path: &Path) -> Vec<Problem> {
    let [cert, key] = ["server.pem", "server.key"].map(|name| files.path(name));
    let config = match flag {
        Flag::Cert => Config::new(path, key).trust(files.path("trust")),
        Flag::Key => Config::new(cert, path).trust(files.path("trust")),
        Flag::Trust => Config::new(cert, key).trust(path),
        Flag::TrustCa => Config::new(cert, key).trust_ca(path),
    };
    config.check().problems.into_iter().filter(|problem| problem.file == path).collect()
}

/// True if nothing behind the flag is an error.
fn is_good(files: &Files, flag: Flag, path: &Path) -> bool {
    problems_of(files, flag, path).iter().all(|problem| problem.severity == Severity::Warning)
}

#[track_caller]
fn assert_problem(problems: &[Problem], message: &str, remedy: &str) {
    let [problem] = problems else { panic!("{message}: {problems:?}") };
    assert!(problem.message.contains(message), "{message}: {problem}");
    assert!(problem.remedy.contains(remedy), "{remedy}: {problem}");
}

/// The text of a block under another label.
fn labelled(pem: &str, label: &str) -> String {
    let old = pem.split("-----").nth(1).unwrap().strip_prefix("BEGIN ").unwrap();
    pem.replace(&format!("BEGIN {old}"), &format!("BEGIN {label}"))
        .replace(&format!("END {old}"), &format!("END {label}"))
}

#[test]
fn file_of_another_kind_is_named_and_its_remedy_fits_the_flag() {
    let files = Files::new();
    let Credential { cert, key, .. } = &PKI.server;
    let certificate_der = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap().to_vec();
    let key_der = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap().secret_der().to_vec();
    let text = |label: &str| labelled(cert, label).into_bytes();
    let other_key = |label: &str| labelled(key, label).into_bytes();
    // ContentInfo { signedData, … }
    let pkcs7_der =
        [&[0x30, 0x82, 2, 0, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 7, 2], &[0; 501][..]];
    let swapped = "--cert and --key may be swapped";
    for (flag, bytes, message, remedy) in [
        (Flag::Trust, text("PKCS7"), "\"PKCS7\"", "openssl pkcs7 -in FILE -print_certs"),
        (Flag::Trust, pkcs7_der.concat(), "PKCS#7", "openssl pkcs7 -inform der -in FILE"),
        (Flag::Trust, text("CERTIFICATE REQUEST"), "REQUEST", "the CA has issued for it"),
        (Flag::Trust, other_key("OPENSSH PRIVATE KEY"), "a private key in it", "does not belong"),
        (Flag::Trust, key_der.clone(), "a private key in DER", "does not belong"),
        (Flag::Trust, b"\xfe\xed\xfe\xed\0\0\0\x02".to_vec(), "Java keystore", "keytool"),
        (Flag::Cert, text("PKCS7"), "\"PKCS7\"", "openssl pkcs7 -in FILE -print_certs"),
        (Flag::Cert, text("TRUSTED CERTIFICATE"), "\"TRUSTED CERT", "openssl x509 -in FILE"),
        (Flag::Cert, text("CERTIFICATE REQUEST"), "REQUEST", "the CA has issued for it"),
        (Flag::Cert, key.clone().into_bytes(), "\"PRIVATE KEY\"", swapped),
        (Flag::Cert, key_der.clone(), "a private key in DER", swapped),
        (Flag::Cert, certificate_der.clone(), "it is DER", "openssl x509 -inform der"),
        (Flag::Key, key_der, "a private key in DER", "openssl pkey -inform der"),
        (Flag::Key, certificate_der, "it is DER", swapped),
        (Flag::Key, cert.clone().into_bytes(), "\"CERTIFICATE\"", swapped),
        (Flag::Key, other_key("OPENSSH PRIVATE KEY"), "\"OPENSSH PRIV", "-m PKCS8"),
        (Flag::Key, other_key("PUBLIC KEY"), "\"PUBLIC KEY\"", "cannot sign"),
        (Flag::Key, other_key("DSA PRIVATE KEY"), "does not sign with: DSA", "use RSA"),
        (Flag::Key, Vec::new(), "there is no private key in it", "PKCS#8"),
    ] {
        let path = files.path("file");
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_problem(&problems_of(&files, flag, &path), message, remedy);
    }
    // What may stand beside: parameters and a request with the key, the key with the certificate.
    let beside = format!(
        "{}{}{key}{cert}",
        labelled(key, "EC PARAMETERS"),
        labelled(cert, "CERTIFICATE REQUEST")
    );
    files.write("file", &beside);
    for flag in [Flag::Cert, Flag::Key] {
        assert!(is_good(&files, flag, &files.path("file")), "{flag:?}");
    }
}

#[test]
fn text_beside_a_marker_is_not_taken_for_lost_line_breaks() {
    let files = Files::new();
    let pem = PKI.a.cert.trim_end();
    let each_line = |format: &dyn Fn(&str) -> String| pem.lines().map(format).collect::<String>();
    let lost = pem.replace('\n', " ");
    for (text, message) in [
        (each_line(&|line| format!("> {line}\n")), "other text"),
        (each_line(&|line| format!("| {line}\n")), "other text"),
        (each_line(&|line| format!("{line};\n")), "other text"),
        (format!("{lost}\n"), "lost its line breaks"),
        (format!("{}\n", pem.replacen('\n', "", 1)), "lost its line breaks"),
    ] {
        files.write("x.pem", &text);
        let problems = problems_of(&files, Flag::Trust, &files.path("x.pem"));
        let [problem] = problems.as_slice() else { panic!("{message}: {problems:?}") };
        assert!(problem.message.contains(message), "{message}: {problem}");
        assert_eq!(problem.line, Some(1), "{problem}");
    }
}

#[test]
fn path_that_leads_nowhere_is_named_with_its_culprit_and_a_remedy() {
    let files = Files::new();
    symlink("loop.pem", files.path("loop.pem")).unwrap();
    symlink(".", files.path("here")).unwrap();
    for flag in [Flag::Cert, Flag::Key, Flag::Trust, Flag::TrustCa] {
        for (path, message, remedy) in [
            ("loop.pem", "loop.pem leads back to itself", "ln -sfn FILE LINK"),
            ("loop.pem/x.pem", "loop.pem leads back to itself", "ln -sfn FILE LINK"),
            ("a.pem/", "a.pem is a file", "without a slash"),
            ("a.pem/x.pem", "a.pem is a file", "without a slash"),
        ] {
            assert_problem(&problems_of(&files, flag, &files.path(path)), message, remedy);
        }
    }
    assert!(is_good(&files, Flag::Cert, &files.path("here/server.pem")));
    assert_eq!(problems_of(&files, Flag::Trust, &files.path("here/trust/")), vec![]);
    // The remedy of a loop.
    let link = files.path("loop.pem");
    let mend = Command::new("ln").arg("-sfn").arg(files.path("a.pem")).arg(&link).status();
    assert!(mend.unwrap().success());
    assert_eq!(problems_of(&files, Flag::Trust, &link), vec![]);
}

#[test]
fn directory_in_place_of_a_file_to_trust_gets_the_remedy_of_containers() {
    let files = Files::new();
    for (name, is_expected) in [("x.pem", true), ("more", false)] {
        fs::create_dir(files.path(name)).unwrap();
        for flag in [Flag::Trust, Flag::TrustCa] {
            let problems = problems_of(&files, flag, &files.path(name));
            let [problem] = problems.as_slice() else { panic!("{problems:?}") };
            assert_eq!(problem.remedy.contains("mount the file"), is_expected, "{problem}");
        }
    }
}

#[test]
fn path_of_the_application_that_is_no_socket_is_a_warning_of_check_and_serve() {
    let files = Files::new();
    fs::create_dir(files.path("directory")).unwrap();
    let fifo = Command::new("mkfifo").arg(files.path("fifo")).status().unwrap();
    assert!(fifo.success());
    symlink("nowhere.sock", files.path("link")).unwrap();
    let _listener = UnixListener::bind(files.path("socket")).unwrap();
    symlink("socket", files.path("current")).unwrap();
    for (name, message) in [
        ("directory", "it is a directory, not a socket; give the socket in it"),
        ("a.pem", "it is a regular file, not a socket"),
        ("fifo", "it is a FIFO (named pipe), not a socket"),
        ("link", "it is a link to nowhere.sock, which does not exist"),
        ("a.pem/app.sock", "a.pem is a file"),
        ("socket", ""),
        ("current", ""),
        ("not-started-yet", ""),
    ] {
        let upstream = format!("unix:{}", files.path(name).display());
        let checked = files.run_with_flags("check", &["--upstream", &upstream]);
        let is_named =
            checked.stdout.contains(&format!("warning: {}: ", files.path(name).display()));
        assert_eq!(checked.code, Some(0), "{checked}");
        assert_eq!(is_named, !message.is_empty(), "{name}: {checked}");
        assert!(checked.stdout.contains(message), "{name}: {checked}");
    }
    let directory = format!("unix:{}", files.path("directory").display());
    let server = files.start(&["--upstream", &directory]);
    let event = server.wait_for_event("upstream_not_a_socket", |_| true);
    assert!(event["path"].as_str().unwrap().ends_with("/directory"), "{event}");
    assert!(event["remedy"].as_str().unwrap().contains("mount the directory"), "{event}");
    let socket = format!("unix:{}", files.path("socket").display());
    let server = files.start(&["--upstream", &socket]);
    assert!(!server.log().contains("upstream_not_a_socket"), "{}", server.log());
}

#[test]
fn exposed_key_is_reported_for_the_files_that_hold_one() {
    let files = Files::new();
    let mode = |name: &str, mode| {
        fs::set_permissions(files.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    let is_exposed = |flag, name: &str| {
        let problems = problems_of(&files, flag, &files.path(name));
        problems.iter().find(|problem| problem.message.contains("can read the key")).cloned()
    };
    let Credential { cert, key, .. } = &PKI.server;
    let der = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    files.write("certificate", cert);
    files.write("empty", "");
    files.write("key", key);
    files.write("both", &format!("{cert}{key}"));
    files.write("openssh", &labelled(key, "OPENSSH PRIVATE KEY"));
    files.write("cut", &key[..key.len() / 2]);
    fs::write(files.path("der"), der.secret_der()).unwrap();
    for (flag, name, expected) in [
        (Flag::Key, "certificate", false),
        (Flag::Key, "empty", false),
        (Flag::Key, "key", true),
        (Flag::Key, "openssh", true),
        (Flag::Key, "cut", true),
        (Flag::Key, "der", true),
        (Flag::Cert, "both", true),
        (Flag::Cert, "certificate", false),
    ] {
        mode(name, 0o644);
        let found = is_exposed(flag, name);
        assert_eq!(found.is_some(), expected, "{flag:?} {name}: {found:?}");
        if let Some(problem) = found {
            assert_eq!(problem.severity, Severity::Warning);
            // The remedy is a command that works.
            let mend = Command::new("sh").args(["-c", &problem.remedy]).status().unwrap();
            assert!(mend.success(), "{problem}");
            assert!(is_exposed(flag, name).is_none(), "{problem}");
        }
    }
}

#[test]
fn blank_item_of_a_list_of_paths_is_wrong_usage() {
    let files = Files::new();
    let serve = |flag: &str, value: &str| {
        let pair = ["check", "--cert", "server.pem", "--key", "server.key", flag, value];
        files.run(&pair)
    };
    for (flag, value) in [
        ("--trust", "a.pem, "),
        ("--trust", "a.pem,"),
        ("--trust", " "),
        ("--trust", "a.pem, b.pem"),
        ("--trust", "a.pem\n"),
        ("--trust-ca", " "),
    ] {
        let finished = serve(flag, value);
        assert_eq!(finished.code, Some(2), "{flag} {value:?}: {finished}");
        assert!(finished.stderr.contains(flag), "{finished}");
        assert!(!finished.stdout.contains("error"), "it is not read: {finished}");
    }
    for value in ["a.pem,b.pem", "trust"] {
        assert_eq!(serve("--trust", value).code, Some(0), "{value}");
    }
    let inside = files.path("a b.pem");
    fs::copy(files.path("a.pem"), &inside).unwrap();
    assert_eq!(serve("--trust", "a b.pem").code, Some(0), "a space within");
}

#[test]
fn one_warning_is_counted_in_the_singular() {
    let files = Files::new();
    fs::create_dir(files.path("empty")).unwrap();
    let warnings = |more: &[&str]| {
        let finished = files.run_with_flags("check", &[&["--strict"], more].concat());
        assert_eq!(finished.code, Some(2), "{finished}");
        finished.stdout.lines().last().unwrap_or_default().to_owned()
    };
    let empty = files.path("empty");
    let some = warnings(&["--trust", empty.to_str().unwrap()]);
    let before = warnings(&[]);
    assert!(before.ends_with("1 warning counts as an error (--strict)"), "{before}");
    assert!(some.ends_with("2 warnings count as errors (--strict)"), "{some}");
}

#[test]
fn ipv4_client_of_a_socket_for_both_families_is_logged_with_its_ipv4_address() {
    let files = Files::new();
    let mut command = Portcullis::command();
    command.args(["serve", "--listen", ":0", "--log-format", "json"]).args(files.flags());
    let server = Portcullis::start(&mut command);
    let port = server.addr().port();
    let stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    std::io::Write::write_all(&mut &stream, b"not TLS\r\n\r\n").unwrap();
    let rejected = server.wait_for_event("client_rejected", |_| true);
    let local = stream.local_addr().unwrap().to_string();
    assert_eq!(rejected["peer"], local, "{rejected}");
}
