//! `[agents.*]` and `[operators.*]`: who may call and who may decide. Only hashes of tokens are kept.

use holdfast_policy::Section;
use holdfast_store::Hash32;
use sha2::{Digest as _, Sha256};

use super::proxy;

/// Who may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Agent {
    /// The principal.
    pub(crate) name: String,
    /// SHA-256 of the token.
    pub(crate) token_sha256: [u8; 32],
    /// The operator that counts as "self" for approvals.
    pub(crate) owner: Option<String>,
}

/// Who may decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operator {
    /// The name that decisions carry.
    pub(crate) name: String,
    /// SHA-256 of the token; none where only a trusted proxy can tell who it is.
    pub(crate) token_sha256: Option<[u8; 32]>,
    /// Groups that gates can name.
    pub(crate) groups: Vec<String>,
    /// What the operator may do.
    pub(crate) role: Role,
    /// Whether the operator may decide past the gates, on the record.
    pub(crate) break_glass: bool,
}

/// What an operator may do; each role includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Look.
    Viewer,
    /// Approve, reject, resolve.
    Approver,
    /// Cancel and release too.
    Admin,
}

impl Role {
    /// The word in the configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Approver => "approver",
            Self::Admin => "admin",
        }
    }
}

const ROLES: [(&str, Role); 3] =
    [("viewer", Role::Viewer), ("approver", Role::Approver), ("admin", Role::Admin)];
/// A token shorter than this can be guessed.
const SHORT_TOKEN: usize = 16;

pub(super) fn operators(root: &Section<'_>) -> Vec<Operator> {
    let mut operators: Vec<Operator> = Vec::new();
    let introduced = proxy::names_operators(root);
    for (name, section) in root.named("operators") {
        let needless = introduced && !section.has("token") && !section.has("token_sha256");
        let token = if needless {
            check_name(&section, &name);
            None
        } else {
            token(&section, &name)
        };
        let groups = section.strings("groups").unwrap_or_default();
        let role = section.one_of("role", &ROLES).unwrap_or(Role::Approver);
        let break_glass = section.boolean("break_glass").unwrap_or(false);
        section.finish();
        if token.is_none() && !needless {
            continue;
        }
        let same = operators.iter().find(|other| token.is_some() && other.token_sha256 == token);
        if let Some(same) = same {
            refuse_shared(&section, &format!("operator `{}`", same.name));
        }
        operators.push(Operator { name, token_sha256: token, groups, role, break_glass });
    }
    operators
}

pub(super) fn agents(root: &Section<'_>, operators: &[Operator]) -> Vec<Agent> {
    let known: Vec<String> = root.named("operators").into_iter().map(|(name, _)| name).collect();
    let mut agents: Vec<Agent> = Vec::new();
    for (name, section) in root.named("agents") {
        let token = token(&section, &name);
        let owner = section.string("owner");
        section.finish();
        if let Some(owner) = owner.as_ref().filter(|owner| !known.contains(owner)) {
            let names =
                if known.is_empty() { "(there are no operators)".to_owned() } else { known.join(", ") };
            section.warn(
                "owner",
                format!("`{owner}` is no operator, so nobody counts as \"self\" for agent `{name}`"),
                format!("write [operators.{owner}], or name one of: {names}"),
            );
        }
        let Some(token_sha256) = token else { continue };
        if let Some(same) = operators.iter().find(|other| other.token_sha256 == Some(token_sha256)) {
            // An agent with an operator's token could approve its own calls.
            refuse_shared(&section, &format!("operator `{}`", same.name));
        } else if let Some(same) = agents.iter().find(|other| other.token_sha256 == token_sha256) {
            refuse_shared(&section, &format!("agent `{}`", same.name));
        }
        agents.push(Agent { name, token_sha256, owner });
    }
    agents
}

/// Names are shown, logged and looked for.
pub(super) fn check_name(section: &Section<'_>, name: &str) {
    let known = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(known) {
        section.problem(
            "",
            format!("`{name}` cannot be a name"),
            "use up to 64 letters, digits and the characters . _ - @",
        );
    }
}

fn token(section: &Section<'_>, name: &str) -> Option<[u8; 32]> {
    check_name(section, name);
    let token = section.string("token");
    let shape = "64 hexadecimal digits, as `printf %s TOKEN | sha256sum` prints them";
    let hash = section.parsed("token_sha256", shape, |text| text.parse::<Hash32>().ok());
    match (token, hash) {
        (Some(_), Some(_)) => {
            section.problem(
                "token_sha256",
                "`token` and `token_sha256` are both given",
                "delete one of the two",
            );
            None
        }
        (Some(token), None) => plain(section, &token),
        (None, Some(hash)) => Some(hash.0),
        // Where one is there it has been complained about already.
        (None, None) if section.has("token") || section.has("token_sha256") => None,
        (None, None) => {
            section.problem(
                "",
                format!("`{}` has no token", section.path()),
                "write token = \"${VAR}\" or token_sha256 = \"...\"",
            );
            None
        }
    }
}

fn plain(section: &Section<'_>, token: &str) -> Option<[u8; 32]> {
    if token.is_empty() || token.chars().any(|c| !c.is_ascii_graphic()) {
        section.problem(
            "token",
            "a token cannot be empty or hold spaces, control or non-ASCII characters",
            "make one with `openssl rand -hex 32`",
        );
        return None;
    }
    if token.len() < SHORT_TOKEN {
        section.warn(
            "token",
            format!("this token has only {} characters and can be guessed", token.len()),
            "make one with `openssl rand -hex 32`",
        );
    }
    Some(Sha256::digest(token.as_bytes()).into())
}

fn refuse_shared(section: &Section<'_>, other: &str) {
    let key = if section.has("token") { "token" } else { "token_sha256" };
    section.problem(
        key,
        format!("this is also the token of {other}: who calls or decides would be a guess"),
        "give everybody a token of their own",
    );
}
