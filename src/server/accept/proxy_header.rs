//! The PROXY protocol, version 2: the header in which a TCP load balancer names the client, before
//! the client's own bytes.
//!
//! Exactly the header's bytes are read, since the TLS handshake follows them. Version 1 is not
//! supported: its end has to be searched for, so that it cannot be read exactly.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::server::accept::cidr::Cidr;
use crate::server::accept::handshake_error::HandshakeError;
use crate::server::rejections::Rejection;
use crate::trust::Reason;

/// The first bytes of every header.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, the version and command, the family, and the length of what follows.
const FIXED: usize = 16;

/// The longest variable part that is read: addresses take 36 bytes, extensions some hundred.
const MAX_LENGTH: usize = 4096;

/// The state of a header that is being read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// At least this many more bytes belong to the header.
    Needs(usize),
    /// The header is complete. The address is the client's; there is none where the load balancer
    /// connects on its own behalf, or does not know.
    Whole(Option<SocketAddr>),
}

/// Why a header is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    Signature,
    Version(u8),
    Command(u8),
    Family(u8),
    TooLong(usize),
    TooShort(usize),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signature => write!(f, "it does not begin with a PROXY protocol v2 header"),
            Self::Version(version) => write!(f, "the header's version is {version}, not 2"),
            Self::Command(command) => {
                write!(f, "the header's command is {command}, neither LOCAL nor PROXY")
            }
            Self::Family(family) => {
                write!(f, "the header's family is {family:#04x}, not TCP over IPv4 or IPv6")
            }
            Self::TooLong(length) => {
                write!(f, "the header's length is {length} bytes, more than {MAX_LENGTH}")
            }
            Self::TooShort(length) => {
                write!(f, "the header's length is {length} bytes, too few for its addresses")
            }
        }
    }
}

/// Parses the bytes so far, which must be no more than [`Parsed::Needs`] asked for.
pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    if !bytes.iter().zip(SIGNATURE).all(|(byte, expected)| byte == expected) {
        return Err(Malformed::Signature);
    }
    let Some((&[.., version_and_command, family, high, low], rest)) =
        bytes.split_first_chunk::<FIXED>()
    else {
        return Ok(Parsed::Needs(FIXED - bytes.len()));
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if version_and_command >> 4 != 2 {
        return Err(Malformed::Version(version_and_command >> 4));
    }
    if length > MAX_LENGTH {
        return Err(Malformed::TooLong(length));
    }
    let is_local = match version_and_command & 0xf {
        0 => true,
        1 => false,
        command => return Err(Malformed::Command(command)),
    };
    let addresses = match family {
        // The load balancer's own connection, for example a health check: addresses mean nothing.
        _ if is_local => 0,
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        family => return Err(Malformed::Family(family)),
    };
    if length < addresses {
        return Err(Malformed::TooShort(length));
    }
    match length.checked_sub(rest.len()) {
        None | Some(0) => Ok(Parsed::Whole(if is_local { None } else { source(family, rest) })),
        Some(more) => Ok(Parsed::Needs(more)),
    }
}

/// The source of the addresses: source and destination, then the port of each. Extensions (type,
/// length, value) follow and are ignored.
fn source(family: u8, rest: &[u8]) -> Option<SocketAddr> {
    let (address, port): (IpAddr, _) = match family {
        0x11 => (rest.first_chunk::<4>().copied()?.into(), rest.get(8..10)?),
        0x21 => (rest.first_chunk::<16>().copied()?.into(), rest.get(32..34)?),
        _ => return None,
    };
    let port = u16::from_be_bytes(port.try_into().ok()?);
    Some(SocketAddr::new(address.to_canonical(), port))
}

/// Reads the header of a connection from a load balancer. Returns the client's address, or `peer`
/// where the load balancer connects on its own behalf.
pub(in crate::server) async fn read(
    socket: &mut TcpStream,
    peer: SocketAddr,
    from: &[Cidr],
    deadline: Instant,
) -> Result<SocketAddr, HandshakeError> {
    match timeout_at(deadline, read_from(socket, peer, from)).await {
        Ok(result) => result,
        Err(_) => Err(Reason::HandshakeTimeout.into()),
    }
}

async fn read_from(
    socket: &mut TcpStream,
    peer: SocketAddr,
    from: &[Cidr],
) -> Result<SocketAddr, HandshakeError> {
    // A client that connects and leaves is not rejected, wherever it comes from.
    if matches!(socket.peek(&mut [0]).await, Ok(0) | Err(_)) {
        return Err(HandshakeError::LeftSilently);
    }
    if !from.iter().any(|range| range.contains(peer.ip())) {
        return Err(malformed("its address is not one of --proxy-protocol-from".to_owned()));
    }
    let mut header = Vec::with_capacity(FIXED);
    loop {
        match parse(&header) {
            Ok(Parsed::Whole(client)) => return Ok(client.unwrap_or(peer)),
            Ok(Parsed::Needs(more)) => {
                let read = (&mut *socket).take(more as u64).read_buf(&mut header).await;
                if matches!(read, Ok(0) | Err(_)) {
                    let error = read.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                    return Err(malformed(format!(
                        "the connection ended in the middle of the header: {error}"
                    )));
                }
            }
            Err(error) => return Err(malformed(error.to_string())),
        }
    }
}

fn malformed(detail: String) -> HandshakeError {
    let rejection =
        Rejection { reason: Reason::ProxyProtocol, presented: None, detail: Some(detail) };
    HandshakeError::Rejected(Box::new(rejection), None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header with this version and command, family, and variable part.
    fn header(version_and_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[version_and_command, family], &length, rest].concat()
    }

    fn v4(tlvs: &[u8]) -> Vec<u8> {
        let rest = [203, 0, 113, 7, 10, 0, 0, 1, 0xd4, 0x31, 0x20, 0xfb];
        header(0x21, 0x11, &[&rest, tlvs].concat())
    }

    fn v6(source: &str) -> Vec<u8> {
        let source: std::net::Ipv6Addr = source.parse().unwrap();
        let rest = [&source.octets()[..], &[0; 16], &[0xd4, 0x31, 0x20, 0xfb]].concat();
        header(0x21, 0x21, &rest)
    }

    fn client(bytes: &[u8]) -> Option<String> {
        match parse(bytes) {
            Ok(Parsed::Whole(client)) => client.map(|client| client.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn source_address_is_the_client() {
        assert_eq!(client(&v4(&[])).unwrap(), "203.0.113.7:54321");
        assert_eq!(client(&v4(&[0xea, 0, 1, 1])).unwrap(), "203.0.113.7:54321");
        assert_eq!(client(&v6("2001:db8::7")).unwrap(), "[2001:db8::7]:54321");
        assert_eq!(client(&v6("::ffff:203.0.113.7")).unwrap(), "203.0.113.7:54321");
    }

    #[test]
    fn load_balancer_on_its_own_behalf_names_no_client() {
        assert_eq!(client(&header(0x20, 0x00, &[])), None);
        // Addresses after a LOCAL command are ignored, whatever their family.
        assert_eq!(client(&header(0x20, 0x11, &v4(&[])[FIXED..])), None);
        assert_eq!(client(&header(0x20, 0xff, &[1])), None);
        assert_eq!(client(&header(0x21, 0x00, &[])), None);
    }

    #[test]
    fn malformed_header_is_rejected_with_its_reason() {
        let two_too_short = header(0x21, 0x11, &[0; 10]);
        for (bytes, malformed) in [
            (b"\x16\x03\x01".to_vec(), Malformed::Signature),
            (b"PROXY TCP4 203.0.113.7".to_vec(), Malformed::Signature),
            (header(0x11, 0x11, &[0; 12]), Malformed::Version(1)),
            (header(0x22, 0x11, &[0; 12]), Malformed::Command(2)),
            (header(0x21, 0x12, &[0; 12]), Malformed::Family(0x12)),
            (header(0x21, 0x31, &[0; 216]), Malformed::Family(0x31)),
            (header(0x21, 0x21, &[0; 35]), Malformed::TooShort(35)),
            (two_too_short, Malformed::TooShort(10)),
            (header(0x20, 0x00, &[0; MAX_LENGTH + 1])[..FIXED].to_vec(), Malformed::TooLong(4097)),
        ] {
            assert_eq!(parse(&bytes), Err(malformed), "{bytes:x?}");
        }
    }

    proptest! {
        /// In whatever pieces the bytes arrive, it asks for exactly those of the header.
        #[test]
        fn exactly_the_header_is_read(
            tlvs in proptest::collection::vec(any::<u8>(), 0..300),
            steps in proptest::collection::vec(1_usize..40, 1..10),
        ) {
            let whole = v4(&tlvs);
            let (mut read, mut steps) = (0, steps.into_iter().cycle());
            while let Parsed::Needs(more) = parse(&whole[..read]).unwrap() {
                prop_assert!(more > 0 && read + more <= whole.len());
                read += more.min(steps.next().unwrap());
            }
            prop_assert_eq!(read, whole.len());
            prop_assert_eq!(client(&whole).unwrap(), "203.0.113.7:54321");
        }

        /// No bytes make it panic, or ask for more than its limit.
        #[test]
        fn header_length_is_bounded(tail in proptest::collection::vec(any::<u8>(), 0..64)) {
            for bytes in [tail.clone(), [SIGNATURE, &tail].concat()] {
                if let Ok(Parsed::Needs(more)) = parse(&bytes) {
                    prop_assert!(more > 0 && bytes.len() + more <= FIXED + MAX_LENGTH);
                }
            }
        }
    }
}
