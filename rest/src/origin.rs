//! Where a request comes from. The gateway finds it out, once; a route that asks for it need not know about proxies.

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use kernel::Problem;

use crate::Fault;

/// Most characters that are kept of what a client calls itself.
const MOST_OF_AN_AGENT: usize = 256;

/// The client's address and what it calls itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The address, as far as it can be believed: what proxies say counts only where the configuration trusts them.
    pub address: IpAddr,
    /// `User-Agent`, without control characters and cut to 256 characters. It is whatever the client likes to say.
    pub agent: Option<String>,
}

impl Origin {
    /// From an address and the header's text.
    #[must_use]
    pub fn new(address: IpAddr, agent: Option<&str>) -> Self {
        let clean = |text: &str| text.chars().filter(|c| !c.is_control()).take(MOST_OF_AN_AGENT).collect::<String>();
        // An IPv4 client of a socket that listens on IPv6 is the same client.
        Self { address: address.to_canonical(), agent: agent.map(clean).filter(|text| !text.is_empty()) }
    }

    /// What is to be counted as one client: the address, of IPv6 the network of 64 bits that one customer is given.
    #[must_use]
    pub fn network(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(_) => self.address,
            IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Origin {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        let found = parts.extensions.get::<Self>().cloned();
        found.ok_or_else(|| {
            tracing::error!(path = parts.uri.path(), "a route outside of the gateway asks for its client's address");
            Problem::new(500, "defect", "Something of ours broke while answering; it has been logged.").into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_is_one_network_however_many_addresses_it_has() {
        let network = |text: &str| Origin::new(text.parse().expect("an address"), None).network().to_string();
        assert_eq!(network("192.0.2.7"), "192.0.2.7");
        assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }

    #[test]
    fn what_a_client_calls_itself_is_cut_to_what_can_be_shown() {
        let agent = |text: &str| Origin::new(IpAddr::from([192, 0, 2, 7]), Some(text)).agent;
        assert_eq!(agent("curl/8.5.0\u{1b}[31m").as_deref(), Some("curl/8.5.0[31m"));
        assert_eq!(agent(""), None);
        assert_eq!(agent(&"x".repeat(1_000)).map(|text| text.len()), Some(256));
    }
}
