//! `[notify.*]`: who is told that a person is needed, and how.

use std::{fmt, net::IpAddr, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use holdfast_policy::Section;
use reqwest::Url;

use super::{
    listen::Listen,
    people::check_name,
    servers::{is_loopback, program},
};
use crate::notify::{Topic, refused_address};

/// Somebody who is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SinkConfig {
    /// Its name.
    pub(crate) name: String,
    /// How it is told.
    pub(crate) way: Way,
    /// What it is told about.
    pub(crate) topics: Vec<Topic>,
    /// Whether it may be at an address that only this network can reach.
    pub(crate) reach: Reach,
}

/// How somebody is told.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// A POST with a signature (Standard Webhooks).
    Webhook {
        /// Where.
        url: Url,
        /// The key of the signature.
        secret: Secret,
    },
    /// A Slack-compatible incoming webhook. Whoever knows the URL can write there.
    Slack {
        /// Where.
        url: Url,
    },
    /// A topic of an ntfy server.
    Ntfy {
        /// The topic's address.
        url: Url,
        /// The access token.
        token: Option<Secret>,
    },
    /// A program on this machine.
    Command {
        /// A program in `PATH`, or an absolute path. No shell.
        program: String,
        /// Its first arguments.
        args: Vec<String>,
    },
}

/// Which addresses a sink, or whoever gives tokens for a server, may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Those of the public internet, by https.
    #[default]
    Public,
    /// Any (`allow_private = true`).
    Any,
}

/// Bytes that nobody prints by accident.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Way {
    /// The word in the configuration.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Slack { .. } => "slack",
            Self::Ntfy { .. } => "ntfy",
            Self::Command { .. } => "command",
        }
    }

    /// Its address, where it has one.
    pub(crate) fn url(&self) -> Option<&Url> {
        match self {
            Self::Webhook { url, .. } | Self::Slack { url } | Self::Ntfy { url, .. } => Some(url),
            Self::Command { .. } => None,
        }
    }
}

/// Host or program: paths of URLs are passwords at Slack and ntfy.
impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command { program, .. } => f.write_str(program),
            other => {
                let origin = other.url().map(|url| url.origin().ascii_serialization());
                f.write_str(&origin.unwrap_or_default())
            }
        }
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({self})", self.name())
    }
}

const TOPICS: [(&str, Topic); 4] = [
    ("held", Topic::Held),
    ("in-doubt", Topic::InDoubt),
    ("expired", Topic::Expired),
    ("glass", Topic::Glass),
];
const KINDS: [(&str, Kind); 4] =
    [("webhook", Kind::Webhook), ("slack", Kind::Slack), ("ntfy", Kind::Ntfy), ("command", Kind::Command)];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Webhook,
    Slack,
    Ntfy,
    Command,
}

pub(super) fn read(root: &Section<'_>, base: &Path, listen: Option<&Listen>) -> Vec<SinkConfig> {
    let mut sinks = Vec::new();
    for (name, section) in root.named("notify") {
        check_name(&section, &name);
        let reach = match section.boolean("allow_private") {
            Some(true) => Reach::Any,
            _ => Reach::Public,
        };
        let topics = topics(&section);
        let way = way(&section, base, reach);
        section.finish();
        if let Some(way) = way {
            if let Some(listen) = listen {
                warn_of_links(&section, &way, listen);
            }
            sinks.push(SinkConfig { name, way, topics, reach });
        }
    }
    sinks
}

fn topics(section: &Section<'_>) -> Vec<Topic> {
    let all = TOPICS.map(|(_, topic)| topic).to_vec();
    let Some(words) = section.strings("events") else { return all };
    let known = TOPICS.map(|(word, _)| format!("\"{word}\"")).join(", ");
    if words.is_empty() {
        section.problem(
            "events",
            "it would be told nothing",
            format!("delete `events`, or name some of {known}"),
        );
    }
    let mut topics = Vec::new();
    for (index, word) in words.iter().enumerate() {
        match TOPICS.iter().find(|(known, _)| known == word) {
            Some((_, topic)) => topics.push(*topic),
            None => {
                let message = format!("`{}.events` does not know \"{word}\"", section.path());
                section.problem_in("events", index, message, format!("known: {known}"));
            }
        }
    }
    topics
}

fn way(section: &Section<'_>, base: &Path, reach: Reach) -> Option<Way> {
    let kind = section.one_of("kind", &KINDS);
    let url = section.string("url");
    let secret = section.string("secret");
    let token = section.string("token");
    let command = section.string("command");
    let args = section.strings("args");
    let Some(kind) = kind else {
        if !section.has("kind") {
            let hint = "write kind = \"webhook\", \"slack\", \"ntfy\" or \"command\"";
            section.problem("", format!("`{}` does not say how to tell it", section.path()), hint);
        }
        return None;
    };
    misplaced(section, kind);
    if kind == Kind::Command {
        let Some(command) = command else {
            missing(section, "command", "names no program", "write command = \"notify-send\"");
            return None;
        };
        return Some(Way::Command {
            program: program(section, command, base)?,
            args: args.unwrap_or_default(),
        });
    }
    let Some(url) = url else {
        missing(section, "url", "has no address", "write url = \"https://...\"");
        return None;
    };
    let url = address(section, &url, reach)?;
    match kind {
        Kind::Slack => Some(Way::Slack { url }),
        Kind::Ntfy => Some(Way::Ntfy { url: topic(section, url)?, token: bearer(section, token)? }),
        Kind::Webhook | Kind::Command => {
            let hint = "write secret = \"whsec_...\": make one with `echo whsec_$(openssl rand -base64 32)`";
            let Some(secret) = secret else {
                missing(section, "secret", "has no secret to sign with", hint);
                return None;
            };
            Some(Way::Webhook { url, secret: signing_key(section, &secret, hint)? })
        }
    }
}

/// Where the key is there, its shape has been complained about already.
fn missing(section: &Section<'_>, key: &str, what: &str, hint: &str) {
    if !section.has(key) {
        section.problem("", format!("`{}` {what}", section.path()), hint);
    }
}

fn misplaced(section: &Section<'_>, kind: Kind) {
    let foreign: &[&str] = match kind {
        Kind::Webhook => &["token", "command", "args"],
        Kind::Slack => &["secret", "token", "command", "args"],
        Kind::Ntfy => &["secret", "command", "args"],
        Kind::Command => &["url", "secret", "token", "allow_private"],
    };
    let word = KINDS.iter().find(|(_, known)| *known == kind).map_or("", |(word, _)| word);
    for key in foreign.iter().filter(|key| section.has(key)) {
        section.problem(key, format!("kind = \"{word}\" has no `{key}`"), "delete it, or change `kind`");
    }
}

fn address(section: &Section<'_>, text: &str, reach: Reach) -> Option<Url> {
    let shape = "write \"https://host/path\"";
    let Some(url) = Url::parse(text.trim()).ok().filter(|url| url.host_str().is_some()) else {
        section.problem("url", "`url` is not an address", shape);
        return None;
    };
    if !matches!(url.scheme(), "http" | "https") {
        section.problem("url", format!("`{}:` is not a way to tell somebody", url.scheme()), shape);
        return None;
    }
    if !url.username().is_empty() || url.password().is_some() {
        section.problem("url", "credentials in a URL end up in logs", "use `token` or `secret`");
        return None;
    }
    if reach == Reach::Public {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let why = host.parse::<IpAddr>().ok().and_then(refused_address);
        if let Some(why) = why.or(is_loopback(&url).then_some("this machine")) {
            section.problem(
                "url",
                format!("{host} is {why}: notifications do not go there"),
                "if that is meant, write allow_private = true",
            );
            return None;
        }
        if url.scheme() == "http" {
            let hint = "use https; within a network of your own, allow_private = true allows http";
            section.problem("url", "http: anybody on the way can read what is told", hint);
            return None;
        }
    }
    Some(url)
}

fn topic(section: &Section<'_>, url: Url) -> Option<Url> {
    if url.path().trim_matches('/').is_empty() {
        section.problem(
            "url",
            "this is an ntfy server without a topic",
            "write url = \"https://ntfy.sh/your-topic\"",
        );
        return None;
    }
    Some(url)
}

fn bearer(section: &Section<'_>, token: Option<String>) -> Option<Option<Secret>> {
    let Some(token) = token else { return Some(None) };
    if token.is_empty() || token.chars().any(|c| !c.is_ascii_graphic()) {
        let message = "a token cannot be empty or hold spaces, control or non-ASCII characters";
        section.problem("token", message, "make one with `ntfy token add`");
        return None;
    }
    Some(Some(Secret(token.into_bytes())))
}

/// As Standard Webhooks writes them: 24 to 64 bytes.
fn signing_key(section: &Section<'_>, text: &str, hint: &str) -> Option<Secret> {
    let key = text.strip_prefix("whsec_").and_then(|text| STANDARD.decode(text).ok());
    let key = key.filter(|key| (24..=64).contains(&key.len()));
    if key.is_none() {
        section.problem("secret", "this is not `whsec_` and the base64 of 24 to 64 bytes", hint);
    }
    key.map(Secret)
}

/// Who is told elsewhere cannot open an address of this machine.
fn warn_of_links(section: &Section<'_>, way: &Way, listen: &Listen) {
    let Some(url) = way.url().filter(|url| !is_loopback(url)) else { return };
    let here =
        listen.inbox_url.is_none() && (listen.inbox.ip().is_loopback() || listen.inbox.ip().is_unspecified());
    if here {
        section.warn(
            "",
            format!(
                "whoever reads {} gets links to {}, which only this machine can open",
                url.host_str().unwrap_or_default(),
                listen.inbox_base(listen.inbox)
            ),
            "write listen.inbox_url = \"https://...\", where people open the inbox",
        );
    }
}
