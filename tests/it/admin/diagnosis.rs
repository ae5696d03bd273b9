//! `inspect`, `explain` and `check`.

use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_RSA_SHA256, RsaKeySize,
};
use serde_json::Value;

use crate::admin::site::{credential, params};
use crate::support::Finished;
use crate::support::files::Files;
use crate::support::pki::PKI;
use crate::support::shapes::pem;

#[test]
fn inspect_lists_files_and_directories() {
    let files = Files::new();
    let finished = files.run(&["inspect", "trust", "stranger.pem"]);
    assert_eq!(finished.code, Some(0), "{finished}");
    let lines: Vec<_> = finished.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{finished}");
    assert!(lines[0].starts_with("FILE") && lines[1].starts_with("trust/a.pem"), "{finished}");
    assert!(lines[3].contains("CN=ApiGateway,L=Seattle,C=US"), "{finished}");
    assert!(lines[3].contains("RSA 2048") && lines[3].contains("valid for 185 days"), "{finished}");
}

#[test]
fn inspect_writes_when_a_certificate_ended_or_begins() {
    let files = Files::new();
    files.write("old.pem", &PKI.expired.cert);
    files.write("new.pem", &PKI.not_yet_valid.cert);
    let finished = files.run(&["inspect", "old.pem", "new.pem"]);
    assert_eq!(finished.code, Some(0), "{finished}");
    let lines: Vec<_> = finished.stdout.lines().collect();
    assert!(lines[1].contains("  expired ") && lines[1].contains(" ago  "), "{finished}");
    assert!(lines[2].contains("  not valid until 20"), "{finished}");
    assert!(!finished.stdout.contains(" -"), "{finished}");
}

#[test]
fn inspect_json_names_what_does_not_load() {
    let files = Files::new();
    files.trust("broken.pem", "junk");
    let finished = files.run(&["inspect", "--json", "trust"]);
    assert_eq!(finished.code, Some(2), "{finished}");
    let output: Value = serde_json::from_str(&finished.stdout).unwrap();
    let first = &output["certificates"][0];
    assert_eq!(output["certificates"].as_array().unwrap().len(), 2, "{output}");
    assert_eq!(first["fingerprint"].as_str().unwrap().len(), 64, "{output}");
    assert_eq!(first["days_left"], 185, "{output}");
    assert_eq!(output["problems"][0]["severity"], "error", "{output}");
    assert_eq!(files.run(&["inspect", "nowhere"]).code, Some(2));
}

#[test]
fn explain_tells_whether_a_certificate_is_accepted_and_why_not() {
    let files = Files::new();
    let explain = |certificate: &str| files.run(&["explain", "--trust", "trust", certificate]);
    let says = |finished: &Finished, parts: &[&str]| {
        let code = i32::from(parts[0].starts_with("not accepted"));
        assert_eq!(finished.code, Some(code), "{finished}");
        for part in parts {
            assert!(finished.stdout.contains(part), "{part}: {finished}");
        }
    };
    says(&explain("a.pem"), &["accepted: a.pem is trusted by trust/a.pem"]);
    says(&explain("stranger.pem"), &["not accepted", "unknown_certificate", "remedy"]);
    says(&explain("expired.pem"), &["not accepted", "nearest:     same key as", "trust/a.pem"]);
    files.trust("old.pem", &PKI.expired.cert);
    says(&explain("expired.pem"), &["not accepted: expired.pem: expired", "trust/old.pem"]);
    assert_eq!(explain("nowhere.pem").code, Some(2));
    files.trust("broken.pem", "junk");
    let finished = explain("a.pem");
    assert_eq!(finished.code, Some(2), "{finished}");
    assert!(finished.stdout.contains("accepted: a.pem") && finished.stdout.contains("broken.pem"));
}

#[test]
fn explain_follows_a_chain_to_its_ca() {
    let files = Files::new();
    let (ca, _) = chain(&files, 365);
    files.write("ca.pem", &ca);
    let explain = |certificate| files.run(&["explain", "--trust-ca", "ca.pem", certificate]);
    let finished = explain("server.pem");
    assert!(finished.stdout.starts_with("accepted: server.pem leads to the CA "), "{finished}");
    let finished = explain("a.pem");
    assert!(finished.stdout.starts_with("not accepted: a.pem: unknown_certificate"), "{finished}");
}

#[test]
fn explain_names_the_rule_that_a_chain_violates() {
    let files = Files::new();
    let (ca, between) = chain(&files, 365);
    files.write("ca.pem", &ca);
    files.write("between.pem", &between);
    let explain = |certificate| files.run(&["explain", "--trust-ca", "ca.pem", certificate]);
    let finished = explain("between.pem");
    assert_eq!(finished.code, Some(1), "{finished}");
    for part in [
        "not accepted: between.pem: invalid_chain",
        "detail:      the first certificate is that of a CA",
        "without what detail names",
    ] {
        assert!(finished.stdout.contains(part), "{finished}");
    }
    assert!(!explain("server.pem").stdout.contains("detail"));
}

#[test]
fn inspect_and_explain_show_times_before_1970_as_they_are_written() {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let files = Files::new();
    let text = include_bytes!("../../../certs-example/client-1.pem");
    let der = CertificateDer::from_pem_slice(text).unwrap().to_vec();
    let patched = |changes: &[(&[u8], &[u8])]| {
        let mut der = der.clone();
        for (old, new) in changes {
            let at = der.windows(old.len()).position(|window| window == *old).unwrap();
            der[at..at + old.len()].copy_from_slice(new);
        }
        pem(&der)
    };
    let begin: (&[u8], &[u8]) = (b"260101000000Z", b"500101000000Z");
    let end: (&[u8], &[u8]) = (b"491231000000Z", b"600102030405Z");
    files.write("old.pem", &patched(&[begin]));
    files.write("over.pem", &patched(&[begin, end]));
    let finished = files.run(&["inspect", "--json", "old.pem", "over.pem"]);
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    let [old, over] = report["certificates"].as_array().unwrap().as_slice() else { panic!() };
    assert_eq!(old["not_before"], "1950-01-01T00:00:00Z", "{finished}");
    assert_eq!(old["not_after"], "2049-12-31T00:00:00Z", "{finished}");
    assert_eq!(over["not_after"], "1960-01-02T03:04:05Z", "{finished}");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    // Ten years with three leap days, less a day.
    let days = now.cast_signed() / 86_400 + 3652;
    let left = over["days_left"].as_i64().unwrap();
    assert!((-left - days).abs() <= 1, "{left} {days}");
    let finished = files.run(&["inspect", "over.pem"]);
    assert!(finished.stdout.contains(&format!("expired {} days ago", -left)), "{finished}");
    let finished = files.run(&["explain", "--trust", "old.pem", "old.pem"]);
    assert!(finished.stdout.starts_with("accepted"), "{finished}");
    assert!(finished.stdout.contains("1950-01-01T00:00:00Z to 2049"), "{finished}");
    let checked = check(&files, &["--trust", files.path("over.pem").to_str().unwrap()]);
    assert!(checked.stdout.contains("ended at 1960-01-02T03:04:05Z"), "{checked}");
}

/// Writes a server's chain of leaf and intermediate, valid for so many days more, and its key.
/// Returns the root's PEM and the intermediate's.
fn chain(files: &Files, days: u32) -> (String, String) {
    chain_of(files, days, KeyPair::generate().unwrap())
}

fn chain_of(files: &Files, days: u32, key: KeyPair) -> (String, String) {
    let ca = |name: &str| {
        let mut params = params(name, 10, 1000);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    };
    let root = CertifiedIssuer::self_signed(ca("root"), KeyPair::generate().unwrap()).unwrap();
    let between =
        CertifiedIssuer::signed_by(ca("between"), KeyPair::generate().unwrap(), &root).unwrap();
    let names = CertificateParams::new(vec!["api.example.com".to_owned()]).unwrap();
    let mut leaf = params("leaf", 10, days);
    leaf.subject_alt_names = names.subject_alt_names;
    let leaf = leaf.signed_by(&key, &between).unwrap();
    files.write("server.pem", &(leaf.pem() + &between.pem()));
    files.write("leaf.pem", &leaf.pem());
    files.write("server.key", &key.serialize_pem());
    (root.pem(), between.pem())
}

fn check(files: &Files, more: &[&str]) -> Finished {
    let flags = files.flags();
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    files.run(&[&["check"], flags.as_slice(), more].concat())
}

/// Exactly one warning, with this text.
fn warns(finished: &Finished, what: &str) {
    assert_eq!(finished.code, Some(0), "{finished}");
    let warnings = finished.stdout.lines().filter(|line| line.starts_with("warning: "));
    let warnings: Vec<_> = warnings.collect();
    assert!(warnings.len() == 1 && warnings[0].contains(what), "{what}: {finished}");
}

#[test]
fn check_accepts_what_api_gateway_accepts() {
    let files = Files::new();
    chain(&files, 365);
    let finished = check(&files, &["--name", "api.example.com"]);
    let probe = "probe: a handshake without a client certificate is refused\nok\n";
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), probe));
}

#[test]
fn check_reports_chain_name_validity_and_key() {
    let files = Files::new();
    let (root, between) = chain(&files, 365);
    let leaf = std::fs::read_to_string(files.path("leaf.pem")).unwrap();
    let with = |chain: &[&str]| {
        files.write("server.pem", &chain.concat());
        check(&files, &[])
    };
    warns(&with(&[&leaf]), "the chain ends with the server's own certificate");
    warns(&with(&[&leaf, &root, &between]), "out of order after certificate 1");
    warns(&with(&[&leaf, &root]), "lacks the issuer of certificate 1");
    assert!(with(&[&leaf, &between, &root]).stdout.starts_with("probe"));
    warns(&check(&files, &["--name", "other.example.com"]), "it is not for other.example.com");
    chain(&files, 9);
    warns(&check(&files, &[]), "ends soon");
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_3072).unwrap();
    chain_of(&files, 365, rsa);
    warns(&check(&files, &[]), "RSA 3072");
    let alone = credential("localhost", 10, 365);
    files.write("server.pem", &alone.cert);
    files.write("server.key", &alone.key);
    warns(&check(&files, &[]), "self-signed");
}

#[test]
fn check_reports_an_intermediate_of_the_same_name_with_another_key() {
    let files = Files::new();
    chain(&files, 365);
    let leaf = std::fs::read_to_string(files.path("leaf.pem")).unwrap();
    let key = std::fs::read_to_string(files.path("server.key")).unwrap();
    let (_, stranger) = chain(&files, 365);
    files.write("server.pem", &(leaf + &stranger));
    files.write("server.key", &key);
    warns(&check(&files, &[]), "its chain does not hold");
}
