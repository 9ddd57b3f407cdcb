//! Where a request comes from: the peer of its connection, or the client that trusted proxies tell of.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, header};
use axum::middleware::Next;
use axum::response::Response;
use ipnet::IpNet;
use rest::Origin;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The header in which proxies tell who has asked them. One of them, and only the one that our proxies write: the other
/// would pass through them as a client has made it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardedBy {
    /// `X-Forwarded-For: client, proxy, …`.
    #[default]
    XForwardedFor,
    /// `Forwarded: for=client, for=proxy, …` (RFC 7239).
    Forwarded,
}

/// The proxies that are believed.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// Their networks. Empty: nobody is believed, and whoever connects is the client.
    pub trusted: Vec<IpNet>,
    /// Where they write who has asked them.
    pub header: ForwardedBy,
}

impl Proxies {
    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&address))
    }

    /// The client. Each proxy appends whom it has seen, so the list is read from its end for as long as whoever has said
    /// it is trusted: what stands further left may be a client's invention.
    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut address = peer.to_canonical();
        if !self.trusts(address) {
            return address;
        }
        let hops = match self.header {
            ForwardedBy::XForwardedFor => list(headers, &X_FORWARDED_FOR),
            ForwardedBy::Forwarded => list(headers, &header::FORWARDED),
        };
        for hop in hops.iter().rev() {
            let said = match self.header {
                ForwardedBy::XForwardedFor => parsed(hop),
                ForwardedBy::Forwarded => forwarded(hop),
            };
            // `unknown`, a made-up name or nonsense: the last proxy that is believed is as far as we can see.
            let Some(said) = said else { return address };
            address = said;
            if !self.trusts(address) {
                return address;
            }
        }
        address
    }
}

/// The elements of a list header, over all of its lines.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let lines = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or_default());
    lines.flat_map(|line| line.split(',')).map(str::trim).collect()
}

/// The `for` of an element such as `for="[2001:db8::1]:4711";proto=https`.
fn forwarded(element: &str) -> Option<IpAddr> {
    let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, node) = pairs.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    parsed(node.trim().trim_matches('"'))
}

/// An address, with or without a port.
fn parsed(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

/// The layer: everything inside finds an [`Origin`].
pub(crate) async fn origin(State(proxies): State<Arc<Proxies>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map_or(IpAddr::from([0, 0, 0, 0]), |ConnectInfo(peer)| peer.ip());
    let agent = request.headers().get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    let origin = Origin::new(proxies.client(peer, request.headers()), agent);
    request.extensions_mut().insert(origin);
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(header: ForwardedBy, peer: &str, lines: &[&str], expected: &str) {
        let trusted = ["10.0.0.0/8", "2001:db8:ffff::/48"].map(|network| network.parse().expect("a network"));
        let mut headers = HeaderMap::new();
        let name = if header == ForwardedBy::Forwarded { header::FORWARDED } else { X_FORWARDED_FOR };
        for line in lines {
            headers.append(&name, line.parse().expect("a header"));
        }
        let client = Proxies { trusted: trusted.to_vec(), header }.client(peer.parse().expect("a peer"), &headers);
        assert_eq!(client.to_string(), expected, "{peer} {lines:?}");
    }

    #[test]
    fn only_what_trusted_proxies_have_said_is_believed() {
        use ForwardedBy::XForwardedFor as X;
        check(X, "192.0.2.1", &["198.51.100.7"], "192.0.2.1");
        check(X, "10.0.0.1", &[], "10.0.0.1");
        check(X, "10.0.0.1", &["198.51.100.7"], "198.51.100.7");
        // The client has put something in front.
        check(X, "10.0.0.1", &["203.0.113.9, 198.51.100.7"], "198.51.100.7");
        check(X, "10.0.0.1", &["203.0.113.9", "198.51.100.7, 10.2.3.4"], "198.51.100.7");
        check(X, "::ffff:10.0.0.1", &["2001:db8::5"], "2001:db8::5");
        check(X, "10.0.0.1", &["198.51.100.7:4711"], "198.51.100.7");
        check(X, "10.0.0.1", &["198.51.100.7, unknown"], "10.0.0.1");
        check(X, "10.0.0.1", &["198.51.100.7, nonsense, 10.9.9.9"], "10.9.9.9");
        check(X, "10.0.0.1", &["10.0.0.9, 10.0.0.8"], "10.0.0.9");
    }

    #[test]
    fn the_standard_header_says_the_same() {
        use ForwardedBy::Forwarded as F;
        check(F, "10.0.0.1", &["for=198.51.100.7;proto=https;by=10.0.0.1"], "198.51.100.7");
        check(F, "10.0.0.1", &["proto=https;For=\"[2001:db8::5]:4711\""], "2001:db8::5");
        check(F, "10.0.0.1", &["for=203.0.113.9, for=198.51.100.7, for=10.1.1.1"], "198.51.100.7");
        check(F, "10.0.0.1", &["for=203.0.113.9, for=_hidden"], "10.0.0.1");
        check(F, "2001:db8:ffff::1", &["for=\"[2001:db8::5]\""], "2001:db8::5");
    }
}
