//! What API Gateway objects to in the server's own certificate. These are warnings: a server starts
//! with any certificate whose key it has, and some clients require less.

use std::path::Path;

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::reload::problem::Problem;
use crate::trust::{
    Certificate, KeyKind, Urgency, ValidityState, assess_server, in_words, rfc3339, system_time,
    violated_rule,
};

/// AWS's support page warns of longer keys.
const MAX_RSA_BITS: usize = 2048;

/// The message for a chain that is only the server's own certificate.
pub(crate) const INCOMPLETE_CHAIN: &str = "the chain ends with the server's own certificate";

/// Judges a chain that begins with the server's own certificate. `reports_ends` adds the parts that
/// end soon.
pub(crate) fn judge(
    file: &Path,
    chain: &[CertificateDer<'static>],
    names: &[ServerName<'_>],
    algorithms: &WebPkiSupportedAlgorithms,
    now: UnixTime,
    reports_ends: bool,
) -> Vec<Problem> {
    let parsed = match parse(file, chain) {
        Ok(parsed) => parsed,
        Err(problem) => return vec![problem],
    };
    let mut problems = Vec::new();
    let mut warn = |message: String, remedy: &str| {
        problems.push(Problem::warning(file, message, remedy));
    };
    let is_for_servers = parsed.first().is_none_or(Certificate::is_for_servers);
    if !is_for_servers {
        warn(
            "its extended key usage does not include server authentication".to_owned(),
            "get a certificate for TLS servers (serverAuth)",
        );
    }
    if let Some((message, remedy)) = order(&parsed) {
        warn(message, remedy);
    } else if is_for_servers && let Some(error) = broken(chain, algorithms, now) {
        let remedy = "get certificate and intermediates again from their issuer";
        warn(format!("its chain does not hold: {}", violated_rule(&error)), remedy);
    }
    if let Some(KeyKind::Rsa(bits)) = parsed.first().map(Certificate::key)
        && bits > MAX_RSA_BITS
    {
        warn(
            format!("its key is RSA {bits}: AWS's support page warns of more than {MAX_RSA_BITS}"),
            "use RSA 2048, or ECDSA P-256",
        );
    }
    for name in names {
        if let Some(message) = chain.first().and_then(|leaf| name_mismatch(leaf, name)) {
            warn(message, "get one whose subject alternative names hold the endpoint's name");
        }
    }
    if reports_ends {
        problems.extend(ends(file, &parsed, now));
    }
    problems
}

fn parse(file: &Path, chain: &[CertificateDer<'static>]) -> Result<Vec<Certificate>, Problem> {
    let parse = |(at, der): (usize, &CertificateDer<'static>)| {
        Certificate::parse(der.clone()).map_err(|kind| {
            let message = format!("certificate {} of the chain: {kind}", at + 1);
            let remedy =
                "take it out if it does not belong to the chain, or get it again from its issuer";
            Problem::warning(file, message, remedy)
        })
    };
    chain.iter().enumerate().map(parse).collect()
}

/// The parts of a chain that end soon.
fn ends(file: &Path, parsed: &[Certificate], now: UnixTime) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut warn = |message: String, remedy: &str| {
        problems.push(Problem::warning(file, message, remedy));
    };
    for (at, certificate) in parsed.iter().enumerate() {
        let whose = if at == 0 { "the server's certificate" } else { "an intermediate" };
        let validity = certificate.validity();
        let end = rfc3339(validity.not_after);
        match validity.at(now) {
            ValidityState::Valid(_)
                if assess_server(certificate.summary(), false, system_time(now)).urgency
                    > Urgency::None =>
            {
                warn(format!("{whose} ends soon, at {end}"), "renew it in place, with its chain");
            }
            // The loader reports it for the server's own certificate.
            ValidityState::Expired(_) if at > 0 => {
                warn(format!("{whose} ended at {end}"), "get the issuer's current chain");
            }
            _ => {}
        }
    }
    problems
}

/// An error in the order: each certificate must be issued by the next one.
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
        return Some((INCOMPLETE_CHAIN.to_owned(), APPEND));
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

/// Why signatures or purposes do not verify, from the end of the chain to its beginning.
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
        // The caller judges validity periods.
        Ok(()) | Err(webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. }) => {
            None
        }
        Err(error) => Some(error),
    }
}

/// Why the certificate is not for this name.
fn name_mismatch(own: &CertificateDer<'_>, name: &ServerName<'_>) -> Option<String> {
    let shown = name.to_str();
    let certificate = match EndEntityCert::try_from(own) {
        Ok(certificate) => certificate,
        Err(error) => {
            return Some(format!("it cannot be compared with {shown}: {}", in_words(&error)));
        }
    };
    certificate.verify_is_valid_for_subject_name(name).err()?;
    let names: Vec<_> = certificate.valid_dns_names().collect();
    Some(match names.as_slice() {
        [] => format!("it is not for {shown}: it has no DNS name"),
        names => format!("it is not for {shown}, but for {}", names.join(", ")),
    })
}
