//! Ranges of addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A range of addresses, as `10.0.0.0/8`, `2001:db8::/32` or a single address.
///
/// An IPv4 address that came by an IPv6 socket (`::ffff:10.0.0.1`) counts as what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    first: IpAddr,
    prefix: u32,
}

impl Cidr {
    /// What a load balancer in front has, as a rule: an address of this machine or of a private
    /// network (RFC 1918, 4193, 6598), or a link-local one.
    pub const PRIVATE: [Self; 8] = [
        Self::v4([127, 0, 0, 0], 8),
        Self::v4([10, 0, 0, 0], 8),
        Self::v4([172, 16, 0, 0], 12),
        Self::v4([192, 168, 0, 0], 16),
        Self::v4([100, 64, 0, 0], 10),
        Self { first: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 },
        Self { first: IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), prefix: 7 },
        Self { first: IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), prefix: 10 },
    ];

    const fn v4([a, b, c, d]: [u8; 4], prefix: u32) -> Self {
        Self { first: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
    }

    /// Whether the address is in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        // A shift by the whole width has no result, and compares nothing: the range is everything.
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => (first.to_bits() ^ address.to_bits())
                .checked_shr(u32::BITS - self.prefix)
                .is_none_or(|different| different == 0),
            (IpAddr::V6(first), IpAddr::V6(address)) => (first.to_bits() ^ address.to_bits())
                .checked_shr(u128::BITS - self.prefix)
                .is_none_or(|different| different == 0),
            _ => false,
        }
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const HOW: &str = "write it as 10.0.0.0/8, 2001:db8::/32 or a single address";
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let first: IpAddr = address.parse().map_err(|_| HOW.to_owned())?;
        let longest = if first.is_ipv4() { u32::BITS } else { u128::BITS };
        let prefix = prefix.map_or(Ok(longest), str::parse).map_err(|_| HOW.to_owned())?;
        if prefix > longest {
            return Err(format!("the prefix is {longest} at the most; {HOW}"));
        }
        Ok(Self { first, prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_in(range: &str, address: &str) -> bool {
        range.parse::<Cidr>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn a_range_holds_its_first_and_its_last_address_and_none_beside_them() {
        for (range, inside, outside) in [
            ("10.0.0.0/8", ["10.0.0.0", "10.255.255.255"], ["9.255.255.255", "11.0.0.0"]),
            ("10.1.2.3", ["10.1.2.3", "::ffff:10.1.2.3"], ["10.1.2.2", "10.1.2.4"]),
            ("10.1.2.3/31", ["10.1.2.2", "10.1.2.3"], ["10.1.2.1", "10.1.2.4"]),
            ("fd00::/8", ["fd00::", "fdff::1"], ["fc00::", "fe00::"]),
            ("::1", ["::1", "::1"], ["::", "127.0.0.1"]),
        ] {
            assert!(inside.iter().all(|address| is_in(range, address)), "{range}");
            assert!(!outside.iter().any(|address| is_in(range, address)), "{range}");
        }
        assert!(is_in("0.0.0.0/0", "203.0.113.7") && !is_in("0.0.0.0/0", "2001:db8::1"));
        assert!(is_in("::/0", "2001:db8::1") && !is_in("::/0", "203.0.113.7"));
    }

    #[test]
    fn what_is_no_range_is_an_error_that_says_how_to_write_one() {
        for text in ["", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0/8", "host/8", "10.0.0.0/-1"]
        {
            assert!(text.parse::<Cidr>().unwrap_err().contains("10.0.0.0/8"), "{text}");
        }
    }

    #[test]
    fn the_private_ranges_are_what_they_are_written_as() {
        for range in Cidr::PRIVATE {
            assert_eq!(range.to_string().parse(), Ok(range));
        }
    }
}
