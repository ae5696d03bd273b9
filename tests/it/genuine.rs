//! Genuine certificates of API Gateway, public halves, long expired. They are not part of the
//! project: `PORTCULLIS_GENUINE` names the directory that holds them.

use std::fs;
use std::time::{Duration, SystemTime};

use crate::support::tls::{Server, Site};
use portcullis::Problem;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs genuine certificates, named by PORTCULLIS_GENUINE; run by .ci/run"]
async fn genuine_certificates_are_accepted_within_their_validity_period() {
    let directory = std::env::var("PORTCULLIS_GENUINE").expect("PORTCULLIS_GENUINE is set");
    let site = Site::new();
    let mut found = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let text = fs::read(entry.unwrap().path()).unwrap();
        let der = CertificateDer::from_pem_slice(&text).unwrap();
        let certificate = Certificate::from_der(&der).unwrap();
        assert!(certificate.tbs_certificate().extensions().is_none());
        let validity = certificate.tbs_certificate().validity();
        let begin = SystemTime::from(validity.not_before);
        let end = SystemTime::from(validity.not_after);
        let day = Duration::from_secs(24 * 60 * 60);
        fs::write(site.path("trust/genuine.pem"), &text).unwrap();
        for (time, is_in) in
            [(begin - day, false), (begin, true), (begin + 180 * day, true), (end, false)]
        {
            site.clock.set(time);
            let config = site.config().trust(site.path("trust"));
            let check = config.check();
            // Only its validity period is a problem.
            let is_about_it = |problem: &&Problem| problem.file.ends_with("genuine.pem");
            let problems: Vec<_> = check.problems.iter().filter(is_about_it).collect();
            assert!(problems.iter().all(|problem| {
                problem.message.contains("ended at") || problem.message.contains("not yet valid")
            }));
            let has_problems = !problems.is_empty();
            assert_eq!(has_problems, !is_in, "{:?}", check.problems);
            assert_eq!(check.is_good(), time < end, "{:?}", check.not_startable);
        }
        site.clock.set(begin);
        let server = Server::start(site.config().trust(site.path("trust")));
        server.handle.abort();
        server.running.stopped().await;
        found += 1;
    }
    assert!(found >= 6, "only {found} certificates were found");
}
