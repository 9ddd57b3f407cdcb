//! Where an `http` step may reach: public addresses, and what the configuration allows besides. Whoever may define a workflow
//! chooses its URLs, and this process stands where they do not: beside databases, metadata services, other people's machines.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits)
}

const fn v6(a: u16, b: u16, bits: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), bits)
}

/// What is not everybody's (IANA's registry of special addresses).
const SPECIAL_V4: [Ipv4Net; 15] = [
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    v4(169, 254, 0, 0, 16),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v4(224, 0, 0, 0, 4),
    v4(240, 0, 0, 0, 4),
];
/// Of IPv6 only this is given out at all; loopback, link-local, unique local and multicast addresses are outside it.
const GIVEN_OUT: Ipv6Net = v6(0x2000, 0, 3);
/// And of this not: protocols (Teredo among them), documentation, 6to4.
const SPECIAL_V6: [Ipv6Net; 4] = [v6(0x2001, 0, 23), v6(0x2001, 0xdb8, 32), v6(0x2002, 0, 16), v6(0x3fff, 0, 20)];
/// IPv4 as networks without it write it (RFC 6052).
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 96);

/// Which addresses may be connected to.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    allowed: Arc<[IpNet]>,
}

/// Nobody connects there. Where that is stays with the operators: a name that leads inside should not draw a map.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not at a public address; operators can allow it with workflows.allow_private")]
pub(crate) struct Refused(String);

impl Reach {
    /// Public addresses, and these networks.
    #[must_use]
    pub fn new(allowed: &[IpNet]) -> Self {
        Self { allowed: allowed.into() }
    }

    fn admits(&self, address: IpAddr) -> bool {
        let meant = meant(address);
        is_public(meant) || self.allowed.iter().any(|network| network.contains(&address) || network.contains(&meant))
    }

    /// Looks at a URL that names an address: nobody resolves that.
    pub(crate) fn check(&self, url: &str) -> Result<(), Refused> {
        let url = Url::parse(url).ok();
        // The parser has made one of every way to write an address: octal, in one number, with parts left out.
        let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) if !self.admits(address) => Err(Refused(host.to_owned())),
            _ => Ok(()),
        }
    }
}

/// The addresses of a name that may be connected to: the connection goes to one of these, whatever the name says later.
impl Resolve for Reach {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let addresses: Vec<SocketAddr> = found.filter(|address| reach.admits(address.ip())).collect();
            if addresses.is_empty() {
                return Err(Refused(name.as_str().to_owned()).into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// The address that is reached in the end.
fn meant(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(six) if NAT64.contains(&six) => {
            let [.., a, b, c, d] = six.octets();
            Ipv4Addr::new(a, b, c, d).into()
        }
        other => other.to_canonical(),
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => !SPECIAL_V4.iter().any(|network| network.contains(&four)),
        IpAddr::V6(six) => GIVEN_OUT.contains(&six) && !SPECIAL_V6.iter().any(|network| network.contains(&six)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(reach: &Reach, url: &str) -> bool {
        reach.check(url).is_err()
    }

    #[test]
    fn nothing_inside_is_reached_however_it_is_written() {
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "127.0.0.1.",
            "0.0.0.0",
            "10.1.2.3",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "[::]",
            "[::1]",
            "[::ffff:10.0.0.1]",
            "[::ffff:a9fe:a9fe]",
            "[::127.0.0.1]",
            "[64:ff9b::10.0.0.1]",
            "[64:ff9b:1::1]",
            "[fe80::1]",
            "[fc00::1]",
            "[fd12:3456::1]",
            "[fec0::1]",
            "[ff02::1]",
            "[2002:7f00:1::]",
            "[2001:0:7f00:1::]",
            "[2001:db8::1]",
        ] {
            assert!(refused(&Reach::default(), &format!("http://{host}:80/x")), "{host} was reached");
        }
        for host in ["1.1.1.1", "172.32.0.1", "[2606:4700::1111]", "[::ffff:1.1.1.1]", "[64:ff9b::1.1.1.1]"] {
            assert!(!refused(&Reach::default(), &format!("https://{host}/")), "{host} was refused");
        }
    }

    #[test]
    fn what_the_configuration_allows_is_reached_in_each_of_its_forms() {
        let reach = Reach::new(&["10.1.0.0/16".parse().expect("a network"), "fd00::/64".parse().expect("a network")]);
        for host in ["10.1.2.3", "[::ffff:10.1.2.3]", "[64:ff9b::10.1.2.3]", "[fd00::7]"] {
            assert!(!refused(&reach, &format!("http://{host}/")), "{host} was refused");
        }
        for host in ["10.2.0.1", "127.0.0.1", "[fd00:0:0:1::7]"] {
            assert!(refused(&reach, &format!("http://{host}/")), "{host} was reached");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_refused() {
        let resolved = async |reach: &Reach| reach.resolve("localhost".parse().expect("a name")).await;
        let error = resolved(&Reach::default()).await.err().expect("a refusal");
        assert!(error.is::<Refused>(), "{error}");
        let here = Reach::new(&["127.0.0.0/8".parse().expect("a network"), "::1/128".parse().expect("a network")]);
        assert!(resolved(&here).await.is_ok_and(|mut found| found.all(|address| address.ip().is_loopback())));
    }
}
