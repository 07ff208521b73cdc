//! `[listen.trusted_proxy]`: a reverse proxy in front of the inbox that says who is there. Off unless it is configured.
//!
//! Whoever is believed here can be every operator, and an address alone proves little: agents live on the same machines
//! as proxies do. So the proxy must know a secret too.

use std::net::IpAddr;

use axum::http::HeaderName;
use holdfast_policy::Section;
use sha2::{Digest as _, Sha256};

/// A reverse proxy that is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TrustedProxy {
    /// Where it connects from.
    pub(crate) from: Vec<Network>,
    /// The header that names the operator; none where it only ends TLS.
    pub(crate) user_header: Option<HeaderName>,
    /// SHA-256 of what it shows in `Holdfast-Proxy-Secret`.
    pub(crate) secret_sha256: [u8; 32],
}

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    bits: u8,
}

/// A wider network than this is nobody's own.
const WIDEST: (u8, u8) = (8, 32);
/// Headers that mean something else already.
const TAKEN: [&str; 8] = [
    "authorization",
    "cookie",
    "host",
    "origin",
    "content-type",
    "content-length",
    "x-forwarded-proto",
    "holdfast-proxy-secret",
];

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.trim().split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().ok()?)),
            None => (text.trim(), None),
        };
        let address: IpAddr = address.parse().ok()?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(all);
        (bits <= all).then_some(Self { address, bits })
    }

    /// Whether `address` is in it; an IPv4 address is itself however it is written.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differ = u32::from(own) ^ u32::from(other);
                differ.checked_shr(32 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differ = u128::from(own) ^ u128::from(other);
                differ.checked_shr(128 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    fn is_too_wide(&self) -> bool {
        self.bits < if self.address.is_ipv4() { WIDEST.0 } else { WIDEST.1 }
    }
}

/// Reads the table below `[listen]`; problems are recorded.
pub(super) fn read(listen: &Section<'_>, root: &Section<'_>) -> Option<TrustedProxy> {
    let section = listen.section("trusted_proxy")?;
    let from = networks(&section);
    let user_header =
        section.parsed("user_header", "the name of a header: \"X-Forwarded-User\"", header_name);
    let secret = secret(&section);
    section.finish();
    if user_header.is_some() && root.named("operators").is_empty() {
        section.problem(
            "user_header",
            "the proxy is to name operators, and there are none",
            "write [operators.NAME]; with this header it needs no token",
        );
    }
    Some(TrustedProxy { from, user_header, secret_sha256: secret? })
}

fn secret(section: &Section<'_>) -> Option<[u8; 32]> {
    let Some(secret) = section.string("secret") else {
        if !section.has("secret") {
            let message = "an address proves little: every program there, an agent too, could say that it is an operator";
            let hint = "write secret = \"${VAR}\", and let the proxy send it as `Holdfast-Proxy-Secret`";
            section.problem("", message, hint);
        }
        return None;
    };
    if secret.len() < 16 || secret.chars().any(|c| !c.is_ascii_graphic()) {
        section.problem(
            "secret",
            "this secret is shorter than 16 characters, or cannot stand in a header",
            "make one with `openssl rand -hex 32`",
        );
    }
    Some(Sha256::digest(secret.as_bytes()).into())
}

/// Whether `[listen.trusted_proxy]` says who operators are, so that they need no tokens.
pub(super) fn names_operators(root: &Section<'_>) -> bool {
    let proxy = root.section("listen").and_then(|listen| listen.section("trusted_proxy"));
    proxy.is_some_and(|proxy| proxy.has("user_header"))
}

fn networks(section: &Section<'_>) -> Vec<Network> {
    let written = section.strings("from").unwrap_or_default();
    if written.is_empty() {
        section.problem(
            "from",
            "it is not said where the proxy connects from",
            "write its addresses: from = [\"10.0.0.5/32\"]",
        );
    }
    let mut networks = Vec::new();
    for text in written {
        match Network::parse(&text) {
            None => section.problem(
                "from",
                format!("`{text}` is no network"),
                "write an address, or one with the number of bits that count: \"10.0.0.5\", \"10.0.0.0/24\"",
            ),
            Some(network) if network.is_too_wide() => section.problem(
                "from",
                format!("`{text}` has strangers in it, and any of them could say that they are an operator"),
                "write the proxy's own address: \"10.0.0.5/32\"",
            ),
            Some(network) => networks.push(network),
        }
    }
    networks
}

fn header_name(text: &str) -> Option<HeaderName> {
    let name: HeaderName = text.parse().ok()?;
    (!TAKEN.contains(&name.as_str())).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_in_a_network() {
        let check = |network: &str, address: &str, expected: bool| {
            let network = Network::parse(network).expect("a network");
            assert_eq!(network.has(address.parse().expect("an address")), expected, "{network:?} {address}");
        };
        check("10.0.0.5", "10.0.0.5", true);
        check("10.0.0.5/32", "10.0.0.4", false);
        check("10.0.0.5/32", "::ffff:10.0.0.5", true);
        check("10.0.0.0/24", "10.0.0.255", true);
        check("10.0.0.0/24", "10.0.1.0", false);
        check("10.0.0.0/8", "10.9.9.9", true);
        check("2001:db8::/64", "2001:db8::1", true);
        check("2001:db8::/64", "2001:db8:0:1::1", false);
        check("::1", "127.0.0.1", false);
    }

    #[test]
    fn what_is_no_network() {
        for text in ["", "x", "10.0.0.0/33", "10.0.0.0/-1", "::/129", "10.0.0.0/", "localhost"] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
        for (text, wide) in [("0.0.0.0/0", true), ("::/0", true), ("10.0.0.0/7", true), ("10.0.0.0/8", false)]
        {
            assert_eq!(Network::parse(text).expect("a network").is_too_wide(), wide, "{text}");
        }
    }
}
