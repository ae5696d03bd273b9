//! The PROXY protocol, version 2: what a load balancer that passes TCP through says of the client
//! before the client's own octets.
//!
//! Exactly the header's octets are read, for what comes after them is the TLS handshake. Version 1
//! is not spoken: a header whose end has to be searched for cannot be read exactly.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::server::Cidr;
use crate::server::accept::handshake::{HandshakeError, Rejection};
use crate::trust::Reason;

/// What every header begins with.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, the version and command, the family, and the length of the rest.
const FIXED: usize = 16;

/// The longest rest that is read: addresses take 36 octets, what load balancers add some hundred.
const LONGEST: usize = 4096;

/// What the octets so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// This many more are part of the header for sure.
    Needs(usize),
    /// The header, and nothing else. The address is the client's; there is none where the load
    /// balancer speaks for itself, or does not know.
    Whole(Option<SocketAddr>),
}

/// Why something is no header that is taken here.
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
                write!(f, "the header says that {length} octets follow, more than {LONGEST}")
            }
            Self::TooShort(length) => {
                write!(f, "the header says that {length} octets follow, too few for its addresses")
            }
        }
    }
}

/// Parses what has come so far, which must be no more than was asked for.
pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    if !bytes.iter().zip(SIGNATURE).all(|(octet, expected)| octet == expected) {
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
    if length > LONGEST {
        return Err(Malformed::TooLong(length));
    }
    let is_local = match version_and_command & 0xf {
        0 => true,
        1 => false,
        command => return Err(Malformed::Command(command)),
    };
    let addresses = match family {
        // The load balancer's own connection, a health check say: whatever follows says nothing.
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

/// The source among the addresses: source and destination, then the port of each. What comes after
/// them (type, length, value) is passed over.
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
/// where the load balancer speaks for itself.
pub(in crate::server) async fn read(
    socket: &mut TcpStream,
    peer: SocketAddr,
    from: &[Cidr],
    deadline: Instant,
) -> Result<SocketAddr, HandshakeError> {
    match timeout_at(deadline, read_from(socket, peer, from)).await {
        Ok(result) => result,
        Err(_) => Err(Rejection::because(Reason::HandshakeTimeout)),
    }
}

async fn read_from(
    socket: &mut TcpStream,
    peer: SocketAddr,
    from: &[Cidr],
) -> Result<SocketAddr, HandshakeError> {
    // Who connects and leaves is refused nothing, wherever it comes from.
    if matches!(socket.peek(&mut [0]).await, Ok(0) | Err(_)) {
        return Err(HandshakeError::Left);
    }
    if !from.iter().any(|range| range.contains(peer.ip())) {
        return Err(refused("it does not come from a --proxy-protocol-from address".to_owned()));
    }
    let mut header = Vec::with_capacity(FIXED);
    loop {
        match parse(&header) {
            Ok(Parsed::Whole(client)) => return Ok(client.unwrap_or(peer)),
            Ok(Parsed::Needs(more)) => {
                let read = (&mut *socket).take(more as u64).read_buf(&mut header).await;
                if matches!(read, Ok(0) | Err(_)) {
                    let error = read.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                    return Err(refused(format!("it left in the middle of the header: {error}")));
                }
            }
            Err(malformed) => return Err(refused(malformed.to_string())),
        }
    }
}

fn refused(detail: String) -> HandshakeError {
    let refused =
        Rejection { reason: Reason::ProxyProtocol, presented: None, detail: Some(detail) };
    HandshakeError::Rejection(Box::new(refused), None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header with this version and command, family, and rest.
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
    fn the_source_is_the_client() {
        assert_eq!(client(&v4(&[])).unwrap(), "203.0.113.7:54321");
        assert_eq!(client(&v4(&[0xea, 0, 1, 1])).unwrap(), "203.0.113.7:54321");
        assert_eq!(client(&v6("2001:db8::7")).unwrap(), "[2001:db8::7]:54321");
        assert_eq!(client(&v6("::ffff:203.0.113.7")).unwrap(), "203.0.113.7:54321");
    }

    #[test]
    fn a_load_balancer_that_speaks_for_itself_names_nobody() {
        assert_eq!(client(&header(0x20, 0x00, &[])), None);
        // What follows a LOCAL command says nothing, whatever family it claims to be.
        assert_eq!(client(&header(0x20, 0x11, &v4(&[])[FIXED..])), None);
        assert_eq!(client(&header(0x20, 0xff, &[1])), None);
        assert_eq!(client(&header(0x21, 0x00, &[])), None);
    }

    #[test]
    fn what_is_malformed_is_named() {
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
            (header(0x20, 0x00, &[0; LONGEST + 1])[..FIXED].to_vec(), Malformed::TooLong(4097)),
        ] {
            assert_eq!(parse(&bytes), Err(malformed), "{bytes:x?}");
        }
    }

    proptest! {
        /// However the octets come, it asks for exactly those of the header, and for no octet of
        /// what follows.
        #[test]
        fn it_reads_exactly_the_header(
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

        /// No octets make it panic, or ask for more than its bound.
        #[test]
        fn it_is_bounded(tail in proptest::collection::vec(any::<u8>(), 0..64)) {
            for bytes in [tail.clone(), [SIGNATURE, &tail].concat()] {
                if let Ok(Parsed::Needs(more)) = parse(&bytes) {
                    prop_assert!(more > 0 && bytes.len() + more <= FIXED + LONGEST);
                }
            }
        }
    }
}
