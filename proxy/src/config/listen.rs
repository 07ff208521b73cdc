//! `[listen]`: loopback unless there are tokens.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use holdfast_policy::Section;

/// Where to listen; port 0 lets the kernel choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listen {
    /// For agents.
    pub(crate) mcp: SocketAddr,
    /// For operators.
    pub(crate) inbox: SocketAddr,
}

impl Default for Listen {
    fn default() -> Self {
        let at = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        Self { mcp: at(7411), inbox: at(7412) }
    }
}

/// `None` where an address is missing its meaning; the problem is recorded.
pub(super) fn read(root: &Section<'_>) -> Option<Listen> {
    let mut listen = Listen::default();
    let Some(section) = root.section("listen") else { return Some(listen) };
    let mcp = address(&section, "mcp", &mut listen.mcp);
    let inbox = address(&section, "inbox", &mut listen.inbox);
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
    Some(listen)
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
