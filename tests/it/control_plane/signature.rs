//! Signature Version 4, verified as the service does.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{digest, hmac};
use http::HeaderMap;
use http::request::Parts;
use x509_cert::der::DateTime;

use super::{ACCESS_KEY, REGION, SECRET_KEY};

/// How far the caller's clock may be off.
const SKEW: Duration = Duration::from_secs(15 * 60);

/// The error type and message of a refusal.
pub type Refused = (&'static str, String);

pub fn verify(parts: &Parts, body: &[u8]) -> Result<(), Refused> {
    let missing =
        || ("MissingAuthenticationTokenException", "Missing Authentication Token".to_owned());
    let authorization = text(&parts.headers, "authorization").ok_or_else(missing)?;
    let fields = authorization.strip_prefix("AWS4-HMAC-SHA256 ").ok_or_else(missing)?;
    let field = |name: &str| {
        let mut fields = fields.split(',').map(str::trim);
        fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('=')).ok_or_else(missing)
    };
    let (credential, signed, given) =
        (field("Credential")?, field("SignedHeaders")?, field("Signature")?);
    let date = text(&parts.headers, "x-amz-date").ok_or_else(missing)?;
    check_date(date)?;
    let Some((key, scope)) = credential.split_once('/') else { return Err(missing()) };
    let day = date.get(..8).unwrap_or_default();
    if key != ACCESS_KEY {
        let text = "The security token included in the request is invalid.".to_owned();
        return Err(("UnrecognizedClientException", text));
    }
    if scope != format!("{day}/{REGION}/apigateway/aws4_request") {
        let text = format!("Credential should be scoped to a valid region; it is {scope}");
        return Err(("InvalidSignatureException", text));
    }
    let is_signed = |name: &str| signed.split(';').any(|signed| signed == name);
    let canonical = canonical_request(parts, signed, body);
    let hash = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{hash}");
    let mut secret = format!("AWS4{SECRET_KEY}").into_bytes();
    for part in [day, REGION, "apigateway", "aws4_request", &to_sign] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        secret = hmac::sign(&key, part.as_bytes()).as_ref().to_vec();
    }
    match hex(&secret) == given && is_signed("host") && is_signed("x-amz-date") {
        true => Ok(()),
        false => Err((
            "InvalidSignatureException",
            format!("The request signature we calculated does not match: {canonical:?}"),
        )),
    }
}

fn check_date(date: &str) -> Result<(), Refused> {
    let number = |range: std::ops::Range<usize>| date.get(range)?.parse::<u16>().ok();
    let byte = |range| number(range).and_then(|number| u8::try_from(number).ok());
    let parsed = (|| {
        DateTime::new(
            number(0..4)?,
            byte(4..6)?,
            byte(6..8)?,
            byte(9..11)?,
            byte(11..13)?,
            byte(13..15)?,
        )
        .ok()
    })();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let off = parsed.map(|at| at.unix_duration().abs_diff(now));
    match off.is_some_and(|off| off <= SKEW) {
        true => Ok(()),
        false => Err(("InvalidSignatureException", format!("Signature expired: {date}"))),
    }
}

fn canonical_request(parts: &Parts, signed: &str, body: &[u8]) -> String {
    let mut query: Vec<_> = parts.uri.query().unwrap_or_default().split('&').collect();
    query.sort_unstable();
    let header = |name: &str| {
        let values = parts.headers.get_all(name).iter();
        let values = values.filter_map(|value| value.to_str().ok());
        let values = values.map(|value| value.split_whitespace().collect::<Vec<_>>().join(" "));
        format!("{name}:{}\n", values.collect::<Vec<_>>().join(","))
    };
    let headers: String = signed.split(';').map(header).collect();
    format!(
        "{}\n{}\n{}\n{headers}\n{signed}\n{}",
        parts.method,
        encode(parts.uri.path()),
        query.join("&"),
        hex(digest::digest(&digest::SHA256, body).as_ref()),
    )
}

/// The path as it was sent, encoded once more: only S3 does without.
fn encode(path: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    path.bytes().map(encode).collect()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
