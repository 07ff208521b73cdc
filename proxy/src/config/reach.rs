//! How a server is spoken to and signed in to, and how long it may be silent.

use std::{fmt, path::PathBuf};

use holdfast_policy::Section;

use super::{
    notify::Reach,
    servers::{Transport, span},
};

/// How a server by HTTP is spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Http {
    /// Whether it is known to speak the transport of 2024-11-05; else that is found out.
    pub(crate) old: bool,
    /// How we sign in where it wants that.
    pub(crate) oauth: OAuth,
}

/// How we sign in to a server that wants OAuth.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct OAuth {
    /// False: what the server wants is for its `headers` to give.
    pub(crate) off: bool,
    /// Who we are there; none: we register ourselves. An https address is a Client ID Metadata Document.
    pub(crate) client_id: Option<String>,
    /// What proves it.
    pub(crate) client_secret: Option<String>,
    /// The only authorization server that we ask; none: whichever the server names, but always the same one.
    pub(crate) issuer: Option<String>,
    /// Which addresses that one may have.
    pub(crate) reach: Reach,
    /// What to ask for where the server does not say what it wants.
    pub(crate) scopes: Vec<String>,
    /// Who signs in.
    pub(crate) grant: Grant,
    /// Where tokens are kept.
    pub(crate) vault: Option<PathBuf>,
}

/// The secret stays out.
impl fmt::Debug for OAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OAuth({:?}, {:?}, {:?})", self.client_id, self.scopes, self.grant)
    }
}

/// Who signs in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Grant {
    /// A person, with a browser.
    #[default]
    Code,
    /// Holdfast itself, by `client_id` and `client_secret`.
    ClientCredentials,
}

/// What becomes of a server that takes requests and answers nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience {
    /// After so many milliseconds without a word it gets no new calls; none: it always does.
    pub(crate) hung_ms: Option<u64>,
    /// So many milliseconds later it is started anew, unless calls wait that it may have executed; none: never.
    pub(crate) restart_ms: Option<u64>,
    /// The same whether calls wait or not: those are in doubt then.
    pub(crate) give_up_ms: Option<u64>,
}

impl Default for Patience {
    fn default() -> Self {
        Self { hung_ms: Some(30_000), restart_ms: Some(60_000), give_up_ms: Some(600_000) }
    }
}

pub(super) fn http(section: &Section<'_>, transport: Option<&Transport>) -> Http {
    let choices = [("stdio", "stdio"), ("http", "http"), ("sse", "sse")];
    let kind = section.one_of("type", &choices);
    match (kind, transport) {
        (Some("stdio"), Some(Transport::Http { .. })) => {
            section.problem("type", "a server with `url` is not reached by stdio", "delete `type`");
        }
        (Some("http" | "sse"), Some(Transport::Stdio { .. })) => {
            section.problem("type", "a server with `command` is reached by stdio", "delete `type`");
        }
        _ => {}
    }
    Http { old: kind == Some("sse"), oauth: oauth(section, transport) }
}

fn oauth(section: &Section<'_>, transport: Option<&Transport>) -> OAuth {
    if section.value("oauth").is_some_and(|value| value == "off") {
        return OAuth { off: true, ..OAuth::default() };
    }
    let Some(section) = section.section("oauth") else { return OAuth::default() };
    if let Some(Transport::Stdio { .. }) = transport {
        section.problem("", "only servers with `url` want OAuth", "give a server with `command` its `env`");
    }
    let choices = [("code", Grant::Code), ("client_credentials", Grant::ClientCredentials)];
    let issuer = section.string("issuer");
    let is_address = |issuer: &String| issuer.parse::<reqwest::Url>().is_ok_and(|url| url.has_host());
    if issuer.as_ref().is_some_and(|issuer| !is_address(issuer)) {
        section.problem(
            "issuer",
            "an issuer is the address of an authorization server",
            "write issuer = \"https://login.example\", as that server's metadata has it",
        );
    }
    let reach = match section.boolean("allow_private") {
        Some(true) => Reach::Any,
        Some(false) | None => Reach::Public,
    };
    let oauth = OAuth {
        off: false,
        issuer,
        reach,
        client_id: section.string("client_id"),
        client_secret: section.string("client_secret"),
        scopes: section.strings("scopes").unwrap_or_default(),
        grant: section.one_of("grant", &choices).unwrap_or_default(),
        vault: None,
    };
    if oauth.grant == Grant::ClientCredentials && (oauth.client_id.is_none() || oauth.client_secret.is_none())
    {
        section.problem(
            "grant",
            "without anybody to sign in, Holdfast has to have a client of its own there",
            "write client_id = \"...\" and client_secret = \"${SECRET}\"",
        );
    }
    section.finish();
    oauth
}

pub(super) fn patience(section: &Section<'_>) -> Patience {
    let mut patience = Patience::default();
    let Some(section) = section.section("hung") else { return patience };
    for (key, place) in [
        ("after", &mut patience.hung_ms),
        ("restart", &mut patience.restart_ms),
        ("give_up", &mut patience.give_up_ms),
    ] {
        if section.value(key).is_some_and(|value| value == "off") {
            *place = None;
        } else {
            *place = span(&section, key).or(*place);
        }
    }
    section.finish();
    patience
}
