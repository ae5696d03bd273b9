//! Files and paths that are not what they should be: each is named, with a remedy that fits.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use portcullis::{Config, Problem, Severity};

use crate::support::pki::PKI;
use crate::support::tls::Site;

/// The problems of one path, with everything else as it should be.
fn problems_of(config: &Config, path: &Path) -> Vec<Problem> {
    config.check().problems.into_iter().filter(|problem| problem.file == path).collect()
}

fn openssl(directory: &Path, command: &str) {
    let words = command.split_whitespace();
    let output = Command::new("openssl").args(words).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn path_that_is_no_file_is_named_with_its_kind_and_a_remedy() {
    let site = Site::new();
    site.trust("good.pem", &PKI.a.cert);
    let config = site.config().trust(site.path("trust"));
    fs::create_dir(site.path("trust/directory.pem")).unwrap();
    let _socket = UnixListener::bind(site.path("trust/socket.pem")).unwrap();
    let fifo = Command::new("mkfifo").arg(site.path("trust/fifo.pem")).status().unwrap();
    assert!(fifo.success());
    symlink("/dev/null", site.path("trust/device.pem")).unwrap();
    symlink("nowhere.pem", site.path("trust/link.pem")).unwrap();
    for (name, kind, remedy) in [
        ("directory.pem", "a directory", "mount"),
        ("socket.pem", "a socket", "regular file"),
        ("fifo.pem", "a FIFO", "regular file"),
        ("device.pem", "a device", "regular file"),
        ("link.pem", "a link to nowhere.pem, which does not exist", "restore its target"),
    ] {
        let path = site.path("trust").join(name);
        let problems = problems_of(&config, &path);
        let [problem] = problems.as_slice() else { panic!("{name}: {problems:?}") };
        assert_eq!(problem.severity, Severity::Error);
        assert!(problem.message.contains(kind), "{problem}");
        assert!(problem.remedy.contains(remedy), "{problem}");
    }
    assert_eq!(problems_of(&config, &site.path("trust/good.pem")), vec![]);
    assert!(config.check().not_startable.is_none());
}

#[test]
fn empty_trust_directory_is_named() {
    let site = Site::new();
    let config = site.config().trust(site.path("trust"));
    let problems = problems_of(&config, &site.path("trust"));
    assert!(problems[0].message.contains("holds no *.pem"), "{problems:?}");
    site.trust("a.pem", &PKI.a.cert);
    assert_eq!(problems_of(&config, &site.path("trust")), vec![]);
}

#[test]
#[ignore = "needs openssl; run by .ci/run"]
fn pinned_ca_certificate_is_a_warning_and_a_client_certificate_is_none() {
    let site = Site::new();
    let directory = site.path("trust");
    let request = "req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=x -keyout ../key.pem";
    openssl(&directory, &format!("{request} -out ca.pem -addext keyUsage=keyCertSign"));
    openssl(&directory, &format!("{request} -out default.pem"));
    // They are younger than the site.
    site.clock.set(SystemTime::now() + Duration::from_secs(60));
    let config = site.config().trust(&directory);
    let problems = problems_of(&config, &directory.join("ca.pem"));
    assert_eq!(problems[0].severity, Severity::Warning);
    assert!(problems[0].remedy.contains("--trust-ca"), "{problems:?}");
    assert_eq!(problems_of(&config, &directory.join("default.pem")), vec![]);
    let as_anchor = site.config().trust(&directory).trust_ca(directory.join("ca.pem"));
    assert!(as_anchor.check().not_startable.is_none());
}

#[test]
fn commented_out_certificate_hides_no_other_one() {
    let site = Site::new();
    let commented: String = PKI.b.cert.lines().map(|line| format!("# {line}\n")).collect();
    site.trust("both.pem", &format!("{commented}{}", PKI.a.cert));
    site.trust("only.pem", &commented);
    let config = site.config().trust(site.path("trust"));
    assert_eq!(problems_of(&config, &site.path("trust/both.pem")), vec![]);
    let problems = problems_of(&config, &site.path("trust/only.pem"));
    assert!(problems[0].remedy.contains("comment signs"), "{problems:?}");
    assert_eq!(problems[0].line, Some(1));
}

#[test]
fn text_around_a_certificate_gets_a_remedy_of_its_own() {
    let site = Site::new();
    let (pem, escaped) = (PKI.a.cert.trim_end(), PKI.a.cert.replace('\n', "\\n"));
    let indented: String = pem.lines().map(|line| format!("  {line}\n")).collect();
    let wide: Vec<u8> = pem.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let config = site.config().trust(site.path("trust"));
    for (text, remedy) in [
        (format!("\"{pem}\"\n").into_bytes(), "quotes"),
        (format!("CERT='{pem}'\n").into_bytes(), "quotes"),
        (format!("cert: {pem}\n").into_bytes(), "YAML"),
        (format!("- {pem}\n").into_bytes(), "YAML"),
        (format!("{{\"pemEncodedCertificate\": \"{escaped}\"}}").into_bytes(), "jq -r"),
        (wide, "ASCII"),
    ] {
        fs::write(site.path("trust/x.pem"), &text).unwrap();
        let problems = problems_of(&config, &site.path("trust/x.pem"));
        let [problem] = problems.as_slice() else { panic!("{remedy}: {problems:?}") };
        assert!(problem.remedy.contains(remedy), "{problem}");
    }
    // As a YAML block scalar its lines are PEM lines.
    fs::write(site.path("trust/x.pem"), format!("cert: |\n{indented}")).unwrap();
    assert_eq!(problems_of(&config, &site.path("trust/x.pem")), vec![]);
}

#[test]
#[ignore = "needs openssl; run by .ci/run"]
fn key_that_cannot_sign_is_named_and_its_remedy_is_not_to_use_what_it_is() {
    let site = Site::new();
    let at = site.path(".");
    for (make, message) in [
        ("genrsa -out k.pem 1024", "too short: 1024 bits"),
        ("genrsa -traditional -out k.pem 1024", "too short: 1024 bits"),
        ("genpkey -algorithm RSA-PSS -out k.pem", "restricted to PSS"),
        ("genpkey -algorithm ED448 -out k.pem", "does not sign with: Ed448"),
        ("genpkey -algorithm X25519 -out k.pem", "does not sign with: X25519"),
        ("genrsa -primes 3 -out k.pem 2048", "more than two primes"),
        ("genrsa -primes 4 -traditional -out k.pem 4096", "more than two primes"),
        ("ecparam -name secp256k1 -genkey -noout -out k.pem", "curve secp256k1"),
        ("ecparam -name secp224r1 -genkey -noout -out k.pem", "curve P-224"),
        (
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:brainpoolP256r1 -out k.pem",
            "curve brainpoolP256r1",
        ),
        ("genrsa -out k.pem 2048", ""),
        ("ecparam -name prime256v1 -genkey -noout -out k.pem", ""),
    ] {
        openssl(&at, make);
        let config = Config::new(site.path("server.pem"), site.path("k.pem"));
        if message.is_empty() {
            assert_eq!(problems_of(&config, &site.path("k.pem")), vec![], "{make}");
            continue;
        }
        let problems = problems_of(&config, &site.path("k.pem"));
        let is_named = problems.iter().any(|problem| problem.message.contains(message));
        assert!(is_named, "{make}: {:?}", config.check().problems);
    }
}

#[test]
#[ignore = "needs openssl; run by .ci/run"]
fn client_key_with_explicit_curve_parameters_is_named_and_one_with_a_name_is_accepted() {
    let site = Site::new();
    let directory = site.path("trust");
    for form in ["explicit", "named_curve"] {
        let key = format!("ecparam -name prime256v1 -genkey -noout -param_enc {form} -out k.key");
        openssl(&directory, &key);
        let request = "req -x509 -key k.key -days 9 -subj /CN=x";
        openssl(&directory, &format!("{request} -out {form}.pem"));
    }
    site.clock.set(SystemTime::now() + Duration::from_secs(60));
    let config = site.config().trust(&directory);
    let problems = problems_of(&config, &directory.join("explicit.pem"));
    assert!(problems[0].remedy.contains("named_curve"), "{problems:?}");
    assert_eq!(problems_of(&config, &directory.join("named_curve.pem")), vec![]);
}

#[test]
#[ignore = "needs openssl; run by .ci/run"]
fn archive_is_not_taken_for_a_certificate_in_der() {
    let site = Site::new();
    fs::write(site.path("key.pem"), &PKI.a.key).unwrap();
    fs::write(site.path("cert.pem"), &PKI.a.cert).unwrap();
    let export = "pkcs12 -export -inkey key.pem -in cert.pem -passout pass:x -out trust/x.pem";
    openssl(&site.path("."), export);
    let config = site.config().trust(site.path("trust"));
    let problems = problems_of(&config, &site.path("trust/x.pem"));
    assert!(problems[0].remedy.contains("openssl pkcs12"), "{problems:?}");
}

#[test]
#[ignore = "needs openssl; run by .ci/run"]
fn server_pair_with_explicit_curve_parameters_is_named_and_its_remedy_works() {
    let site = Site::new();
    let at = site.path(".");
    let request = "req -x509 -days 9 -subj /CN=x -addext extendedKeyUsage=serverAuth";
    openssl(&at, "ecparam -name prime256v1 -genkey -noout -param_enc explicit -out k.key");
    openssl(&at, &format!("{request} -key k.key -out k.pem"));
    let explicit = Config::new(site.path("k.pem"), site.path("k.key"));
    let problems = problems_of(&explicit, &site.path("k.pem"));
    assert!(problems[0].message.contains("explicit curve parameters"), "{problems:?}");
    assert_eq!(problems[0].severity, Severity::Error);
    let remedy = problems[0].remedy.split("openssl ").nth(1).unwrap();
    let command = remedy.split(',').next().unwrap().replace("KEY", "k.key").replace("NEW", "n.key");
    openssl(&at, &command);
    openssl(&at, &format!("{request} -key n.key -out n.pem"));
    let named = Config::new(site.path("n.pem"), site.path("n.key"));
    let problems = problems_of(&named, &site.path("n.pem"));
    assert!(problems.iter().all(|problem| problem.severity == Severity::Warning), "{problems:?}");
    assert_eq!(problems_of(&named, &site.path("n.key")), vec![]);
    // A pair of two keys is still named as one.
    let mixed = Config::new(site.path("n.pem"), site.path("server.key"));
    let problems = problems_of(&mixed, &site.path("n.pem"));
    assert!(problems[0].message.contains("is not this certificate's"), "{problems:?}");
}

#[test]
#[ignore = "needs openssl; run by .ci/run"]
fn command_in_the_remedy_of_another_format_makes_a_file_that_loads() {
    let site = Site::new();
    let at = site.path(".");
    fs::write(site.path("cert.pem"), &PKI.a.cert).unwrap();
    fs::write(site.path("key.pem"), &PKI.a.key).unwrap();
    let bundle = "crl2pkcs7 -nocrl -certfile cert.pem -out FILE";
    for (make, is_windows) in [
        (bundle.to_owned(), false),
        (bundle.to_owned(), true),
        (format!("{bundle} -outform der"), false),
        ("x509 -in cert.pem -outform der -out FILE".to_owned(), false),
        ("x509 -in cert.pem -trustout -out FILE".to_owned(), false),
        ("pkcs12 -export -inkey key.pem -in cert.pem -passout pass: -out FILE".to_owned(), false),
    ] {
        openssl(&at, &make.replace("FILE", "file"));
        if is_windows {
            let text = fs::read_to_string(site.path("file")).unwrap();
            fs::write(site.path("file"), text.replace("PKCS7", "CERTIFICATE")).unwrap();
        }
        let config = site.config().trust(site.path("file"));
        let problems = problems_of(&config, &site.path("file"));
        let remedy = problems[0].remedy.split("openssl ").nth(1).unwrap();
        let command = remedy.replace("FILE.pem", "mended.pem").replace("FILE", "file");
        let is_archive = command.starts_with("pkcs12");
        openssl(&at, &format!("{command}{}", if is_archive { " -passin pass:" } else { "" }));
        let config = site.config().trust(site.path("mended.pem"));
        assert_eq!(problems_of(&config, &site.path("mended.pem")), vec![], "{remedy}");
    }
}
