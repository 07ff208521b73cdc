//! `[listen]`: loopback unless there are tokens.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use holdfast_policy::Section;
use reqwest::Url;

use super::servers::is_loopback;

use super::proxy::{self, TrustedProxy};

/// Where to listen; port 0 lets the kernel choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listen {
    /// For agents.
    pub(crate) mcp: SocketAddr,
    /// For operators.
    pub(crate) inbox: SocketAddr,
    /// Where people open the inbox, without the last slash; none: where it listens.
    pub(crate) inbox_url: Option<String>,
}

impl Listen {
    /// Where people open an inbox that is bound to `bound`, without the last slash.
    pub(crate) fn inbox_base(&self, bound: SocketAddr) -> String {
        if let Some(url) = &self.inbox_url {
            return url.clone();
        }
        let host = match bound {
            // Not an address that anybody could open.
            any if any.ip().is_unspecified() => SocketAddr::from(([127, 0, 0, 1], any.port())),
            one => one,
        };
        format!("http://{host}")
    }

    /// The host of `inbox_url`.
    pub(crate) fn inbox_host(&self) -> Option<String> {
        let url = Url::parse(self.inbox_url.as_deref()?).ok()?;
        url.host_str().map(|host| host.trim_matches(['[', ']']).to_owned())
    }
}

impl Default for Listen {
    fn default() -> Self {
        let at = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        Self { mcp: at(7411), inbox: at(7412), inbox_url: None }
    }
}

/// `None` where an address is missing its meaning; the problem is recorded.
pub(super) fn read(root: &Section<'_>) -> Option<(Listen, Option<TrustedProxy>)> {
    let mut listen = Listen::default();
    let Some(section) = root.section("listen") else { return Some((listen, None)) };
    let mcp = address(&section, "mcp", &mut listen.mcp);
    let inbox = address(&section, "inbox", &mut listen.inbox);
    listen.inbox_url = inbox_url(&section);
    let trusted_proxy = proxy::read(&section, root);
    section.finish();
    mcp?;
    inbox?;
    if listen.mcp == listen.inbox && listen.mcp.port() != 0 {
        section.problem(
            "inbox",
            "`listen.mcp` and `listen.inbox` are the same address",
            "give each a port of its own",
        );
    }
    // An agent or operator whose token is missing or wrong is an error of its own.
    if root.named("agents").is_empty() && !listen.mcp.ip().is_loopback() {
        section.problem(
            "mcp",
            format!("`listen.mcp` is {}, which others can reach, and no agent has a token", listen.mcp),
            "write [agents.NAME] with token = \"${VAR}\", or listen on 127.0.0.1",
        );
    }
    if root.named("operators").is_empty() && !listen.inbox.ip().is_loopback() {
        section.problem(
            "inbox",
            format!(
                "`listen.inbox` is {}, which others can reach, and no operator has a token",
                listen.inbox
            ),
            "write [operators.NAME] with token = \"${VAR}\", or listen on 127.0.0.1",
        );
    }
    Some((listen, trusted_proxy))
}

/// Links lead there, and they end up in chats and mails: no credential may stand in them.
fn inbox_url(section: &Section<'_>) -> Option<String> {
    let text = section.string("inbox_url")?;
    let shape = "write \"https://holdfast.example\": where people open the inbox, without a path";
    let Some(url) = Url::parse(text.trim()).ok().filter(|url| matches!(url.scheme(), "http" | "https"))
    else {
        section.problem("inbox_url", "`listen.inbox_url` is not an address that a browser opens", shape);
        return None;
    };
    if !url.username().is_empty() || url.password().is_some() {
        section.problem("inbox_url", "credentials in a URL end up in logs", shape);
    } else if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        section.problem("inbox_url", "the inbox stands at the root of its host", shape);
    } else if url.scheme() == "http" && !is_loopback(&url) {
        section.warn(
            "inbox_url",
            "http to another machine: anybody on the way can read tokens and decide",
            "use https, with a reverse proxy before the inbox",
        );
    }
    Some(url.as_str().trim_end_matches('/').to_owned())
}

fn address(section: &Section<'_>, key: &str, to: &mut SocketAddr) -> Option<()> {
    let shape = "an IP address and a port: \"127.0.0.1:7411\", \"[::1]:7411\"; port 0 lets the kernel choose";
    let given = section.has(key);
    // Asked for in any case, so that the key counts as known.
    match section.parsed(key, shape, |text| text.trim().parse().ok()) {
        Some(address) => *to = address,
        None if given => return None,
        None => {}
    }
    Some(())
}
