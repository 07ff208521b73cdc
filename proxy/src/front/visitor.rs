//! Who asks: the principal by its token, and the bridge by the secret of the address file.

use std::{net::IpAddr, sync::Arc};

use holdfast_store::Text;
use hyper::{HeaderMap, StatusCode, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{
    BRIDGE_CAN, BRIDGE_CAPABILITIES, BRIDGE_CLIENT, BRIDGE_INSTANCE, BRIDGE_LOG_LEVEL, BRIDGE_REQUEST,
    BRIDGE_TOKEN, Front, VISIT_PAGES, era, listen::Link, problem::Problem, surface::Surface,
};
use crate::{
    upstream::{Client, Speaks},
    wire,
};

/// The principal without configured agents.
const LOCAL: &str = "local";
/// Names and ids in headers are for humans and hashes; longer ones are nobody's.
const TEXT_MOST: usize = 256;

/// Who sent a request.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    /// The name of the agent's token.
    pub(super) principal: String,
    /// Present where our own stdio bridge relays.
    pub(super) bridge: Option<Bridge>,
}

/// What the bridge says about a message.
#[derive(Clone, Debug)]
pub(super) struct Bridge {
    instance: String,
    request: Option<String>,
    /// The name of the client behind it.
    pub(super) name: String,
    /// What that client declared.
    pub(super) client: Arc<Client>,
    /// What that client is given where a call waits for a person.
    pub(super) surface: Surface,
}

/// Why a visitor is turned away.
#[derive(Clone, Debug)]
pub(super) enum Refused {
    /// No token, or an unknown one: 401.
    NoToken(Problem),
    /// Whoever it is: 403.
    Forbidden(Problem),
}

impl Visitor {
    /// Finds out who asks.
    pub(super) fn of(
        front: &Front,
        agents: &[(String, [u8; 32])],
        link: &Link,
        headers: &HeaderMap,
    ) -> Result<Self, Refused> {
        let principal = if agents.is_empty() {
            if !is_loopback(link.peer.ip()) {
                let message = "without [agents] in the configuration only this machine is served";
                let problem =
                    Problem::new(StatusCode::FORBIDDEN, wire::INVALID_REQUEST, "forbidden", message);
                return Err(Refused::Forbidden(problem));
            }
            LOCAL.to_owned()
        } else {
            agent(agents, headers)
                .ok_or_else(|| no_token("send `Authorization: Bearer <token of an agent>`"))?
        };
        let bridge = match headers.get(BRIDGE_TOKEN) {
            None => None,
            Some(token) if bool::from(hash(token.as_bytes()).ct_eq(&front.bridge)) => Bridge::of(headers),
            Some(_) => {
                return Err(no_token("the bridge's token is not the one in this server's address file"));
            }
        };
        Ok(Self { principal, bridge })
    }
}

impl Bridge {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name| {
            let text = era::single(headers, name).ok().flatten()?;
            (text.len() <= TEXT_MOST).then(|| text.to_owned())
        };
        let instance = text(BRIDGE_INSTANCE)?;
        let visits = text(BRIDGE_CAN).as_deref() == Some(VISIT_PAGES);
        Some(Self {
            instance,
            surface: if visits { Surface::Offer } else { Surface::Result },
            request: text(BRIDGE_REQUEST),
            name: text(BRIDGE_CLIENT).unwrap_or_default(),
            client: declared(headers),
        })
    }

    /// The channel: one bridge is one agent.
    pub(super) fn channel(&self) -> String {
        format!("bridge:{}", self.instance)
    }

    /// The name of the request, the same each time it is sent.
    pub(super) fn transport_key(&self) -> Option<String> {
        self.request.as_ref().map(|request| format!("{}:{request}", self.instance))
    }
}

/// What a legacy client behind a bridge declared at `initialize`; the bridge says it each time.
fn declared(headers: &HeaderMap) -> Arc<Client> {
    let text = |name| era::single(headers, name).ok().flatten();
    let Some(capabilities) = text(BRIDGE_CAPABILITIES).and_then(|text| Text::parse(text).ok()) else {
        return Client::unknown();
    };
    let log_level = text(BRIDGE_LOG_LEVEL).map(str::to_owned);
    Arc::new(Client { speaks: Speaks::Legacy, capabilities, log_level })
}

fn no_token(message: &str) -> Refused {
    Refused::NoToken(Problem::new(StatusCode::UNAUTHORIZED, wire::INVALID_REQUEST, "unauthorized", message))
}

fn agent(agents: &[(String, [u8; 32])], headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let hash = hash(token.trim().as_bytes());
    // Every hash is compared in full, so that time says nothing about which one came close.
    let mut found = None;
    for (name, theirs) in agents {
        if bool::from(hash.ct_eq(theirs)) {
            found = Some(name.clone());
        }
    }
    found
}

fn hash(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn is_loopback(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_agent() {
        let agents = [("ana".to_owned(), hash(b"s3cret")), ("bob".to_owned(), hash(b"other"))];
        let check = |value: Option<&str>, expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(header::AUTHORIZATION, value.parse().expect("a header value"));
            }
            assert_eq!(agent(&agents, &headers).as_deref(), expected, "{value:?}");
        };
        check(Some("Bearer s3cret"), Some("ana"));
        check(Some("bearer other"), Some("bob"));
        check(Some("Bearer s3cre"), None);
        check(Some("Basic s3cret"), None);
        check(Some("s3cret"), None);
        check(None, None);
        let mut twice = HeaderMap::new();
        twice.append(header::AUTHORIZATION, "Bearer s3cret".parse().expect("a header value"));
        twice.append(header::AUTHORIZATION, "Bearer other".parse().expect("a header value"));
        assert_eq!(agent(&agents, &twice), None);
    }

    #[test]
    fn loopback_in_all_its_spellings() {
        for ip in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"] {
            assert!(is_loopback(ip.parse().expect("an address")), "{ip}");
        }
        for ip in ["10.0.0.1", "::", "::ffff:10.0.0.1"] {
            assert!(!is_loopback(ip.parse().expect("an address")), "{ip}");
        }
    }
}
