//! What API Gateway will make of the server's own certificate. These are judgements: a server
//! starts on whatever has its key, and some clients ask for less.

use std::path::Path;

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::reload::problem::Problem;
use crate::trust::{Certificate, KeyKind, rfc3339};

const DAY: u64 = 24 * 60 * 60;
/// From then on before its end a certificate should be renewed.
const RENEWAL: u64 = 30 * DAY;
/// AWS's support page says that a certificate must not exceed it.
const LONGEST_RSA: usize = 2048;

/// Judges a chain, the server's own certificate first.
pub(super) fn judge(
    file: &Path,
    chain: &[CertificateDer<'static>],
    names: &[ServerName<'_>],
    algorithms: &WebPkiSupportedAlgorithms,
    now: UnixTime,
) -> Vec<Problem> {
    let mut parsed = Vec::new();
    for (at, der) in chain.iter().enumerate() {
        match Certificate::parse(der.clone()) {
            Ok(certificate) => parsed.push(certificate),
            Err(problem) => {
                let problem = format!("certificate {} of the chain: {problem}", at + 1);
                return vec![Problem::warning(file, problem, problem_remedy())];
            }
        }
    }
    let mut problems = Vec::new();
    let mut warn = |problem: String, remedy: &str| {
        problems.push(Problem::warning(file, problem, remedy));
    };
    if let Some((problem, remedy)) = order(&parsed) {
        warn(problem, remedy);
    } else if let Some(error) = broken(chain, algorithms, now) {
        let remedy = "get certificate and intermediates again from their issuer";
        warn(format!("its chain does not hold: {error}"), remedy);
    }
    for (at, certificate) in parsed.iter().enumerate() {
        let whose = if at == 0 { "the server's certificate" } else { "an intermediate" };
        let end = certificate.summary().validity.not_after;
        let left = end.as_secs().saturating_sub(now.as_secs());
        // That it has ended is said of the server's own by whoever loads it.
        if left > 0 && left <= RENEWAL {
            let end = rfc3339(end);
            warn(format!("{whose} ends soon, at {end}"), "renew it in place, with its chain");
        } else if left == 0 && at > 0 {
            warn(format!("{whose} ended at {}", rfc3339(end)), "get the issuer's present chain");
        }
    }
    if let Some(KeyKind::Rsa(bits)) = parsed.first().map(Certificate::key)
        && bits > LONGEST_RSA
    {
        warn(
            format!("its key is RSA {bits}: AWS's support page warns of more than {LONGEST_RSA}"),
            "use RSA 2048, or ECDSA P-256",
        );
    }
    for name in names {
        if let Some(problem) = chain.first().and_then(|leaf| is_not_for(leaf, name)) {
            warn(problem, "get one whose subject alternative names hold the endpoint's name");
        }
    }
    problems
}

fn problem_remedy() -> &'static str {
    "take it out if it does not belong to the chain, or get it again from its issuer"
}

/// What is wrong with the order, each certificate issued by the one after it.
fn order(chain: &[Certificate]) -> Option<(String, &'static str)> {
    const APPEND: &str = "append the intermediates of its issuer: API Gateway fetches none";
    const SORT: &str = "put each certificate before the one that issued it, the server's own first";
    let own = chain.first()?;
    if own.issuer_der() == own.subject_der() {
        return Some((
            "it is self-signed: there is no root that API Gateway could trust".to_owned(),
            "get one from a CA that API Gateway supports; insecureSkipVerification, too, wants a \
             chain with its root",
        ));
    }
    if chain.len() == 1 {
        return Some(("the chain ends with the server's own certificate".to_owned(), APPEND));
    }
    for (at, pair) in chain.windows(2).enumerate() {
        let [issued, issuer] = pair else { continue };
        if issued.issuer_der() == issuer.subject_der() {
            continue;
        }
        let place = at + 1;
        let is_elsewhere = chain.iter().any(|other| other.subject_der() == issued.issuer_der());
        return Some(if is_elsewhere {
            (format!("the chain is out of order after certificate {place}"), SORT)
        } else {
            (format!("the chain lacks the issuer of certificate {place}"), APPEND)
        });
    }
    None
}

/// Whether the signatures hold and the purposes fit, from the end of the chain to its beginning.
fn broken(
    chain: &[CertificateDer<'static>],
    algorithms: &WebPkiSupportedAlgorithms,
    now: UnixTime,
) -> Option<webpki::Error> {
    let (own, rest) = chain.split_first()?;
    let (last, between) = rest.split_last()?;
    let verify = || {
        let anchor = webpki::anchor_from_trusted_cert(last)?;
        EndEntityCert::try_from(own)?.verify_for_usage(
            algorithms.all,
            &[anchor],
            between,
            now,
            KeyUsage::server_auth(),
            None,
            None,
        )?;
        Ok(())
    };
    match verify() {
        // Dates are spoken of elsewhere.
        Ok(()) | Err(webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. }) => {
            None
        }
        Err(error) => Some(error),
    }
}

fn is_not_for(own: &CertificateDer<'_>, name: &ServerName<'_>) -> Option<String> {
    let shown = name.to_str();
    let certificate = match EndEntityCert::try_from(own) {
        Ok(certificate) => certificate,
        Err(error) => return Some(format!("it cannot be held against {shown}: {error}")),
    };
    certificate.verify_is_valid_for_subject_name(name).err()?;
    let names: Vec<_> = certificate.valid_dns_names().collect();
    Some(match names.as_slice() {
        [] => format!("it is not for {shown}: it has no DNS name"),
        names => format!("it is not for {shown}, but for {}", names.join(", ")),
    })
}
