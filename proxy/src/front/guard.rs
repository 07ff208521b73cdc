//! Who may speak to a listener at all: the `Host` and `Origin` checks that stop DNS rebinding and cross-site requests.

use std::net::{IpAddr, SocketAddr};

use hyper::{HeaderMap, Uri, header};

use crate::config::TrustedProxy;

/// The checks of one listener.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    configured: SocketAddr,
    /// Another name that it goes by.
    alias: Option<String>,
    tokens: Tokens,
    pages: Pages,
    proxy: Option<TrustedProxy>,
}

/// How a request came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// From whoever sent it.
    Straight,
    /// Through the trusted proxy, which answers for the name that it was asked by.
    ByProxy,
}

/// Whether the listener serves pages, which send requests to where they come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pages {
    Own,
    None,
}

/// Whether every request to the listener must carry a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tokens {
    /// Yes: a page in a browser that was tricked into sending a request has none.
    Required,
    /// No.
    None,
}

impl Guard {
    /// The guard of a listener that was configured to be at `configured`.
    pub(crate) fn new(configured: SocketAddr, tokens: Tokens) -> Self {
        Self { configured, alias: None, tokens, pages: Pages::None, proxy: None }
    }

    /// Pages of this very listener may send requests to it, by whatever allowed name they were asked for.
    #[must_use]
    pub(crate) fn with_pages(self) -> Self {
        Self { pages: Pages::Own, ..self }
    }

    /// The listener goes by this name as well: that of a reverse proxy before it.
    #[must_use]
    pub(crate) fn known_as(self, alias: Option<String>) -> Self {
        Self { alias, ..self }
    }

    /// This proxy is believed.
    #[must_use]
    pub(crate) fn behind(self, proxy: Option<TrustedProxy>) -> Self {
        Self { proxy, ..self }
    }

    /// The proxy that is believed.
    pub(crate) fn proxy(&self) -> Option<&TrustedProxy> {
        self.proxy.as_ref()
    }

    /// Checks `Host` (or the authority of an absolute request target) and `Origin`.
    ///
    /// # Errors
    /// What is not allowed, in words for the sender.
    pub(crate) fn check(&self, came: Came, uri: &Uri, headers: &HeaderMap) -> Result<(), String> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = match (uri.authority(), hosts.next()) {
            (Some(authority), _) => authority.as_str(),
            (None, Some(host)) => host.to_str().map_err(|_| "the Host header is not text".to_owned())?,
            (None, None) => return Err("the Host header is missing".to_owned()),
        };
        if hosts.next().is_some() {
            return Err("the Host header stands twice".to_owned());
        }
        if came == Came::Straight && !self.host_is_ours(host) {
            return Err(format!("Host {host:?} is not this server (listen is {})", self.configured));
        }
        for origin in headers.get_all(header::ORIGIN) {
            let own = |origin: &str| self.pages == Pages::Own && origin_is(origin, host);
            // Through the proxy people are signed in without a token of ours, so other pages of their machines are strangers.
            let local = |origin: &str| came == Came::Straight && origin_is_local(origin);
            if !origin.to_str().is_ok_and(|origin| local(origin) || own(origin)) {
                return Err("requests from web pages of other origins are not served".to_owned());
            }
        }
        Ok(())
    }

    fn host_is_ours(&self, host: &str) -> bool {
        let Some(name) = name_of(host) else { return false };
        // On all addresses nobody can know by which name clients call us; there a token is what keeps pages out.
        if self.tokens == Tokens::Required && self.configured.ip().is_unspecified() {
            return true;
        }
        let alias = self.alias.as_deref().is_some_and(|alias| alias.eq_ignore_ascii_case(name));
        alias || is_loopback(name) || name.parse::<IpAddr>().is_ok_and(|ip| ip == self.configured.ip())
    }
}

/// `http(s)://` followed by a loopback name and any port.
fn origin_is_local(origin: &str) -> bool {
    let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    rest.and_then(name_of).is_some_and(|name| matches!(name, "localhost" | "127.0.0.1" | "::1"))
}

/// Whether `origin` is that of pages at `host`, its port included.
fn origin_is(origin: &str, host: &str) -> bool {
    let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    rest.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

/// The host without its port and brackets; none where the text is no authority.
fn name_of(authority: &str) -> Option<&str> {
    let (name, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest.split_once(']')?;
            (name, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => match authority.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (authority, None),
        },
    };
    let port_is_fine = port.is_none_or(|port| port.parse::<u16>().is_ok());
    (port_is_fine && !name.is_empty()).then_some(name)
}

fn is_loopback(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(listen: &str, tokens: Tokens, host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().expect("a header value"));
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().expect("a header value"));
        }
        let guard = Guard::new(listen.parse().expect("an address"), tokens);
        guard.check(Came::Straight, &Uri::from_static("/mcp"), &headers).is_ok()
    }

    #[test]
    fn hosts() {
        let check = |host: &str, expected: bool| {
            assert_eq!(allows("127.0.0.1:7411", Tokens::None, host, None), expected, "{host}");
        };
        check("127.0.0.1:7411", true);
        check("localhost", true);
        check("LOCALHOST:1", true);
        check("[::1]:7411", true);
        check("127.8.8.8", true);
        check("evil.example", false);
        check("localhost.evil.example", false);
        check("127.0.0.1.evil.example:7411", false);
        check("127.0.0.1:evil", false);
        check("user@127.0.0.1", false);
        check("192.168.1.5:7411", false);
        check("", false);
    }

    #[test]
    fn the_configured_address_counts() {
        assert!(allows("192.168.1.5:7411", Tokens::Required, "192.168.1.5:7411", None));
        assert!(!allows("192.168.1.5:7411", Tokens::Required, "holdfast.example", None));
        assert!(allows("0.0.0.0:7411", Tokens::Required, "holdfast.example", None));
        assert!(!allows("0.0.0.0:7411", Tokens::None, "holdfast.example", None));
    }

    #[test]
    fn another_name_counts_too() {
        let guard = Guard::new("127.0.0.1:7412".parse().expect("an address"), Tokens::None).with_pages();
        let check = |guard: &Guard, host: &str, origin: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().expect("a header value"));
            headers.insert(header::ORIGIN, origin.parse().expect("a header value"));
            guard.check(Came::Straight, &Uri::from_static("/"), &headers).is_ok()
        };
        assert!(!check(&guard, "holdfast.example", "https://holdfast.example"));
        let guard = guard.known_as(Some("holdfast.example".to_owned()));
        assert!(check(&guard, "holdfast.example", "https://holdfast.example"));
        assert!(!check(&guard, "holdfast.example", "https://evil.example"));
        assert!(!check(&guard, "evil.example", "https://evil.example"));
    }

    #[test]
    fn origins() {
        let check = |origin: &str, expected: bool| {
            let allowed = allows("127.0.0.1:7411", Tokens::None, "localhost", Some(origin));
            assert_eq!(allowed, expected, "{origin}");
        };
        check("http://localhost:5173", true);
        check("https://127.0.0.1", true);
        check("http://[::1]:80", true);
        check("null", false);
        check("http://evil.example", false);
        check("http://localhost.evil.example", false);
        check("http://127.0.0.1.nip.example", false);
        check("http://localhost@evil.example", false);
        check("file://localhost", false);
    }

    #[test]
    fn pages_of_the_listener_itself() {
        let guard = Guard::new("192.168.1.5:7412".parse().expect("an address"), Tokens::Required);
        let check = |guard: &Guard, origin: &'static str, expected: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, header::HeaderValue::from_static("192.168.1.5:7412"));
            headers.insert(header::ORIGIN, header::HeaderValue::from_static(origin));
            assert_eq!(
                guard.check(Came::Straight, &Uri::from_static("/"), &headers).is_ok(),
                expected,
                "{origin}"
            );
        };
        check(&guard, "http://192.168.1.5:7412", false);
        let guard = guard.with_pages();
        check(&guard, "http://192.168.1.5:7412", true);
        check(&guard, "http://192.168.1.5:7411", false);
        check(&guard, "http://192.168.1.5.evil.example:7412", false);
        check(&guard, "null", false);
    }

    #[test]
    fn a_missing_or_doubled_host_is_refused() {
        let guard = Guard::new("127.0.0.1:1".parse().expect("an address"), Tokens::None);
        let mut headers = HeaderMap::new();
        assert!(guard.check(Came::Straight, &Uri::from_static("/mcp"), &headers).is_err());
        headers.append(header::HOST, "localhost".parse().expect("a header value"));
        headers.append(header::HOST, "evil.example".parse().expect("a header value"));
        assert!(guard.check(Came::Straight, &Uri::from_static("/mcp"), &headers).is_err());
        assert!(
            guard
                .check(Came::Straight, &Uri::from_static("http://evil.example/mcp"), &HeaderMap::new())
                .is_err()
        );
    }
}
