//! Parsers of flag values. A value that could be read in two ways is rejected, with an example.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser as _, ValueParser};

/// Deadlines are added to the clock, which must not overflow.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// More would overflow the semaphores that count them.
const MOST: usize = 100_000_000;

/// Reads whether a flag is on, from its variable.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" | "t" | "y" => Ok(true),
        "false" | "no" | "off" | "0" | "f" | "n" => Ok(false),
        _ => Err("it is true or false".to_owned()),
    }
}

/// Units of a duration. `humantime` also knows months, as `M`: too close to `m`, minutes.
const TIME_UNITS: [&str; 17] = [
    "ms", "msec", "s", "sec", "secs", "second", "seconds", "m", "min", "mins", "minute", "minutes",
    "h", "hour", "hours", "d", "days",
];

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let example = "write it as 500ms, 400s, 5m, 2h or 1d";
    let mut units = text.split(|character: char| !character.is_alphabetic());
    if let Some(unit) = units.find(|unit| !unit.is_empty() && !TIME_UNITS.contains(unit)) {
        return Err(format!("{unit:?} is not a unit of time here; {example}"));
    }
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= LONGEST => Ok(duration),
        Ok(_) => Err("longer than a year".to_owned()),
        Err(error) => Err(format!("{error}; {example}")),
    }
}

pub(super) fn positive(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be longer than 0s".to_owned()),
        duration => Ok(duration),
    }
}

pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=MOST) => Ok(number),
        _ => Err(format!("it must be a whole number from 1 to {MOST}")),
    }
}

/// A number of HTTP/2 streams, which takes 32 bits.
pub(super) fn streams(text: &str) -> Result<u32, String> {
    at_least_one(text).and_then(|number| u32::try_from(number).map_err(|error| error.to_string()))
}

pub(super) fn zero_or_more(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 0..=MOST) => Ok(number),
        _ => Err(format!("it must be a whole number from 0 to {MOST}")),
    }
}

const SIZE_UNITS: [(&str, u64); 8] = [
    ("", 1),
    ("B", 1),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

pub(super) fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let unit = text.strip_prefix(digits).unwrap_or_default().trim();
    let factor = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
    let number = digits.parse::<u64>().ok();
    let size = number.zip(factor).and_then(|(number, (_, factor))| number.checked_mul(*factor));
    size.ok_or_else(|| "write it as 500kB, 10MiB or 2GiB".to_owned())
}

/// hyper reads at least a few headers, whatever the limit: a smaller limit would not be one.
pub(super) fn head_size(text: &str) -> Result<u64, String> {
    const LEAST: u64 = 1 << 10;
    match size(text)? {
        size if size < LEAST => Err("it must be 1KiB or more".to_owned()),
        size => Ok(size),
    }
}

/// An item of a list of paths.
pub(super) fn path() -> ValueParser {
    let parser = OsStringValueParser::new().try_map(|text| {
        let shown = text.to_string_lossy();
        match shown.trim() {
            "" => Err(EMPTY_ITEM.to_owned()),
            trimmed if trimmed.len() < shown.len() => Err(PADDED_PATH.to_owned()),
            _ => Ok(PathBuf::from(text)),
        }
    });
    ValueParser::new(parser)
}

/// An empty item is a mistake: a trailing comma, or a variable that was never set.
pub(super) const EMPTY_ITEM: &str = "it is empty, or has an empty item in its list";

/// A path with a space at its beginning or end is a mistake: a space behind a comma, or a line break
/// in a variable.
const PADDED_PATH: &str = "it begins or ends with white space; write paths as in a.pem,b.pem, \
                           separated by commas without spaces";

/// An item of a list of API ids: API Gateway writes letters and digits.
pub(super) fn api_id(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match text {
        "" => Err(EMPTY_ITEM.to_owned()),
        id if id.bytes().all(is_plain) => Ok(id.to_owned()),
        _ => Err("write API ids as in a1b2c3d4e5, separated by commas without spaces".to_owned()),
    }
}

/// A name in a `Host` header, without the port.
pub(super) fn host_name(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match text {
        "" => Err(EMPTY_ITEM.to_owned()),
        name if name.bytes().all(is_plain) => Ok(name.to_ascii_lowercase()),
        _ => Err("write a host name without scheme and port, as in status.example.com".to_owned()),
    }
}

/// A place to listen at, which may be more than one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListenAddress {
    /// `192.0.2.1:8443` or `[2001:db8::1]:8443`.
    Socket(SocketAddr),
    /// `:8443`: every address of both families.
    Any(u16),
    /// `localhost:8443`: the loopback address of each family.
    Loopback(u16),
}

impl ListenAddress {
    /// The addresses to bind: those of IPv4 alone where the machine has no IPv6.
    pub(super) fn resolve(self) -> Vec<SocketAddr> {
        let has_ipv6 = || TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        let v4 = |ip: Ipv4Addr, port| SocketAddr::from((ip, port));
        match self {
            Self::Socket(address) => vec![address],
            Self::Any(port) if has_ipv6() => vec![(Ipv6Addr::UNSPECIFIED, port).into()],
            Self::Any(port) => vec![v4(Ipv4Addr::UNSPECIFIED, port)],
            Self::Loopback(port) if has_ipv6() => {
                vec![v4(Ipv4Addr::LOCALHOST, port), (Ipv6Addr::LOCALHOST, port).into()]
            }
            Self::Loopback(port) => vec![v4(Ipv4Addr::LOCALHOST, port)],
        }
    }
}

pub(super) fn listen_address(text: &str) -> Result<ListenAddress, String> {
    let example = "write it as 127.0.0.1:8443, [::1]:8443, localhost:8443, or :8443 for every \
                   address of this machine";
    if let Ok(address) = text.parse() {
        return Ok(ListenAddress::Socket(address));
    }
    if text.trim().is_empty() {
        return Err(format!("{EMPTY_ITEM}; {example}"));
    }
    let in_brackets = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = in_brackets.unwrap_or(text);
    if address.parse::<IpAddr>().is_ok() || !text.contains(':') && text.contains('.') {
        return Err(format!("it has no port; {example}"));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!("it has no address; {example}"));
    };
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let Some(port) = port.parse().ok().filter(|_| is_number) else {
        return Err(format!("{port:?} is not a port, a number from 0 to 65535; {example}"));
    };
    match host {
        "" => Ok(ListenAddress::Any(port)),
        host if host.eq_ignore_ascii_case("localhost") => Ok(ListenAddress::Loopback(port)),
        _ => Err(format!("{host:?} is not an IP address; {example}")),
    }
}

/// One address to listen at.
pub(super) fn admin_address(text: &str) -> Result<SocketAddr, String> {
    let address = listen_address(text)?.resolve();
    address.first().copied().ok_or_else(|| "it is no address".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_is_a_number_with_an_optional_unit() {
        assert_eq!(size("10MiB"), Ok(10 << 20));
        assert_eq!(size("2 GiB"), Ok(2 << 30));
        assert_eq!(size("500kB"), Ok(500_000));
        assert_eq!(size("0"), Ok(0));
        for wrong in ["", "MiB", "1TiBs", "-1", "1.5MiB", "99999999999999GiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert!(head_size("1023").is_err());
        assert_eq!(head_size("1KiB"), Ok(1024));
    }

    #[test]
    fn duration_has_a_unit_and_an_end() {
        assert_eq!(duration("400s"), Ok(Duration::from_secs(400)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("1h 30min"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for wrong in ["", "5", "5M", "5 M", "1month", "2years", "3w", "1us", "366d", "1s,2s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert!(positive("0s").is_err());
        assert!(positive("1ms").is_ok());
    }

    #[test]
    fn count_is_bounded() {
        assert_eq!(at_least_one("1"), Ok(1));
        assert_eq!(zero_or_more("0"), Ok(0));
        assert_eq!(streams("100"), Ok(100));
        for wrong in ["0", "-1", "", "x", "1e3", "18446744073709551615"] {
            assert!(at_least_one(wrong).is_err(), "{wrong}");
            assert!(streams(wrong).unwrap_err().contains("from 1 to 100000000"), "{wrong}");
        }
    }

    #[test]
    fn listen_address_may_leave_out_the_host_and_never_the_port() {
        assert_eq!(listen_address(":8443"), Ok(ListenAddress::Any(8443)));
        assert_eq!(listen_address("localhost:0"), Ok(ListenAddress::Loopback(0)));
        let loopback = SocketAddr::from(([127, 0, 0, 1], 1));
        assert_eq!(listen_address("127.0.0.1:1"), Ok(ListenAddress::Socket(loopback)));
        assert_eq!(ListenAddress::Socket(loopback).resolve(), [loopback]);
        assert_eq!(ListenAddress::Loopback(1).resolve().first(), Some(&loopback));
        for (wrong, reason) in [
            ("8443", "no address"),
            ("", "empty"),
            ("127.0.0.1", "no port"),
            ("::1", "no port"),
            ("[::1]", "no port"),
            (" ", "empty"),
            ("localhost", "no address"),
            (":", "not a port"),
            (":+1", "not a port"),
            (":65536", "not a port"),
            ("example.com:8443", "not an IP address"),
        ] {
            let error = listen_address(wrong).unwrap_err();
            assert!(error.contains(reason) && error.contains(":8443"), "{wrong}: {error}");
        }
    }

    #[test]
    fn api_id_is_neither_empty_nor_padded() {
        assert_eq!(api_id("a1b2c3d4e5"), Ok("a1b2c3d4e5".to_owned()));
        for wrong in ["", " a", "a b", "a;b", "\u{e9}"] {
            assert!(api_id(wrong).is_err(), "{wrong:?}");
        }
    }
}
