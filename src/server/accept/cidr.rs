//! Ranges of addresses, for the load balancers that may send a PROXY header.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A range of addresses: `10.0.0.0/8`, `2001:db8::/32` or a single address.
///
/// An IPv4 address from an IPv6 socket (`::ffff:10.0.0.1`) counts as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr(IpNet);

impl Cidr {
    /// The addresses that a load balancer usually has: loopback, private (RFC 1918, 4193, 6598) and
    /// link-local ones.
    pub const PRIVATE: [Self; 8] = [
        Self::v4([127, 0, 0, 0], 8),
        Self::v4([10, 0, 0, 0], 8),
        Self::v4([172, 16, 0, 0], 12),
        Self::v4([192, 168, 0, 0], 16),
        Self::v4([100, 64, 0, 0], 10),
        Self::v6(Ipv6Addr::LOCALHOST, 128),
        Self::v6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
        Self::v6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    ];

    const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Self {
        Self(IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)))
    }

    const fn v6(first: Ipv6Addr, prefix: u8) -> Self {
        Self(IpNet::V6(Ipv6Net::new_assert(first, prefix)))
    }

    /// True if the address is in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let single = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse().or_else(|_| single()).map(Self).map_err(|_| {
            "write it as 10.0.0.0/8, 2001:db8::/32 or a single address; the prefix is at most 32 \
             for IPv4 and 128 for IPv6"
                .to_owned()
        })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(range: &str, address: &str) -> bool {
        range.parse::<Cidr>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn range_contains_its_first_and_last_address_and_no_neighbour() {
        for (range, inside, outside) in [
            ("10.0.0.0/8", ["10.0.0.0", "10.255.255.255"], ["9.255.255.255", "11.0.0.0"]),
            ("10.1.2.3", ["10.1.2.3", "::ffff:10.1.2.3"], ["10.1.2.2", "10.1.2.4"]),
            ("10.1.2.3/31", ["10.1.2.2", "10.1.2.3"], ["10.1.2.1", "10.1.2.4"]),
            ("fd00::/8", ["fd00::", "fdff::1"], ["fc00::", "fe00::"]),
            ("::1", ["::1", "::1"], ["::", "127.0.0.1"]),
        ] {
            assert!(inside.iter().all(|address| contains(range, address)), "{range}");
            assert!(!outside.iter().any(|address| contains(range, address)), "{range}");
        }
        assert!(contains("0.0.0.0/0", "203.0.113.7") && !contains("0.0.0.0/0", "2001:db8::1"));
        assert!(contains("::/0", "2001:db8::1") && !contains("::/0", "203.0.113.7"));
    }

    #[test]
    fn malformed_range_gets_an_error_with_an_example() {
        for text in ["", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0/8", "host/8", "10.0.0.0/-1"]
        {
            assert!(text.parse::<Cidr>().unwrap_err().contains("10.0.0.0/8"), "{text}");
        }
    }

    #[test]
    fn private_ranges_parse_back_from_their_text() {
        for range in Cidr::PRIVATE {
            assert_eq!(range.to_string().parse(), Ok(range));
        }
    }
}
