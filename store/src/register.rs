//! The register: what stands beside all calls. Remembered decisions, and the tool definitions that are trusted.
//!
//! Its facts are in the one chain, under [`CallId::REGISTER`], so that who allowed what for later is as hard to change
//! unnoticed as who approved a call. Uses are counted by the journal: each is a key that is claimed with its call and
//! never given back (see [`crate::Claim::uses`]), so that no crash and no race can make one more of them.

use std::{collections::BTreeMap, fmt, str::FromStr};

use holdfast_policy::Gate;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    entry::{CallId, Decider, Entry, Millis},
    fingerprint::{Digest, Hash32, KeyHash, definition_hash, hash_fields},
    journal::Record,
    text::Text,
};

/// A remembered decision: a UUIDv7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RememberedId(pub Uuid);

impl fmt::Display for RememberedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RememberedId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// A fact that belongs to no call.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::large_enum_variant, reason = "an entry keeps it in a box")]
pub enum Note {
    /// An approval also speaks for later calls like the one that it was given to.
    Remembered(Remembered),
    /// From now on it does not.
    Forgotten {
        /// Which.
        id: RememberedId,
        /// Who says so.
        by: Decider,
        /// Why.
        reason: String,
    },
    /// A tool was seen for the first time: this definition is trusted.
    Defined {
        /// The server's name.
        server: String,
        /// The tool's name.
        tool: String,
        /// As the server gave it.
        definition: Text,
    },
    /// A tool has another definition than the trusted one: nothing is sent to it until somebody accepts that.
    Changed {
        /// The server's name.
        server: String,
        /// The tool's name.
        tool: String,
        /// Its hash; see [`definition_hash`]. What servers say as often as they like is not kept in full.
        definition: Hash32,
    },
    /// An operator accepted the definition that the tool had then.
    Trusted {
        /// The server's name.
        server: String,
        /// The tool's name.
        tool: String,
        /// As the server gave it.
        definition: Text,
        /// Who.
        by: Decider,
    },
}

impl Note {
    /// A stable kebab-case name of the fact's kind.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Remembered(_) => "remembered",
            Self::Forgotten { .. } => "forgotten",
            Self::Defined { .. } => "tool-defined",
            Self::Changed { .. } => "tool-changed",
            Self::Trusted { .. } => "tool-trusted",
        }
    }
}

/// An approval that also speaks for later calls, in the name of the one who gave it.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Remembered {
    /// Its id.
    pub id: RememberedId,
    /// Whose vote it is. It counts as much as theirs does at the moment of its use.
    pub by: Decider,
    /// The call that it was given to first.
    pub call: CallId,
    /// What was approved then.
    pub digest: Digest,
    /// Whose calls it speaks for.
    pub principal: String,
    /// The server's name.
    pub server: String,
    /// Command line or URL of the server.
    pub identity: String,
    /// The tool.
    pub tool: String,
    /// Hash of the tool's definition.
    pub definition: String,
    /// The gates that were asked. It does not speak where more is asked.
    pub gates: Vec<Gate>,
    /// Arguments that must be just these.
    pub pins: Vec<(String, Text)>,
    /// Arguments that may be anything, or missing. No call with an argument that is in neither list is spoken for.
    pub vary: Vec<String>,
    /// How many calls it speaks for.
    pub uses: u32,
    /// Until when.
    pub expires: Millis,
}

/// A held call, as far as a remembered decision looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Likeness<'a> {
    /// Whose call.
    pub principal: &'a str,
    /// The server's name.
    pub server: &'a str,
    /// Command line or URL of the server as it is now.
    pub identity: &'a str,
    /// The tool.
    pub tool: &'a str,
    /// Hash of the tool's definition as it is now.
    pub definition: &'a str,
    /// What would be sent.
    pub arguments: &'a Value,
    /// Who is to be asked.
    pub gates: &'a [Gate],
}

impl Remembered {
    /// Whether it speaks for such a call, uses apart.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn speaks_for(&self, now: Millis, asked: &Likeness<'_>) -> Result<(), String> {
        if now >= self.expires {
            return Err("it has expired".to_owned());
        }
        let wanted = [
            ("agent", self.principal.as_str(), asked.principal),
            ("server", &self.server, asked.server),
            ("tool", &self.tool, asked.tool),
        ];
        if let Some((what, mine, _)) = wanted.iter().find(|(_, mine, theirs)| mine != theirs) {
            return Err(format!("it is for the {what} `{mine}`"));
        }
        if self.identity != asked.identity {
            return Err("the server behind this name was another one then".to_owned());
        }
        if self.definition != asked.definition {
            return Err("the tool's definition was another one then".to_owned());
        }
        self.fits(asked.arguments)?;
        // Also a rule that would be content with the same people has reasons of its own to ask.
        let answered =
            |gate: &&Gate| self.gates.iter().any(|then| then.rule == gate.rule && then.covers(gate));
        match asked.gates.iter().find(|gate| !answered(gate)) {
            Some(gate) => Err(format!("what the rule `{}` asks was not asked then", gate.rule)),
            None => Ok(()),
        }
    }

    fn fits(&self, arguments: &Value) -> Result<(), String> {
        let Some(arguments) = arguments.as_object() else {
            return Err("the arguments are no object".to_owned());
        };
        for (name, pinned) in &self.pins {
            match arguments.get(name) {
                None => return Err(format!("it is for calls with `{name}` {}", &**pinned)),
                Some(value) if *value != pinned.value() => {
                    return Err(format!("it is for `{name}` {}, not {value}", &**pinned));
                }
                Some(_) => {}
            }
        }
        let known = |name: &String| self.vary.contains(name) || self.pins.iter().any(|(pin, _)| pin == name);
        match arguments.keys().find(|name| !known(name)) {
            Some(name) => Err(format!("it is for calls without `{name}`")),
            None => Ok(()),
        }
    }

    /// What the `n`-th use claims, from 1.
    pub fn use_key(&self, n: u32) -> KeyHash {
        hash_fields("holdfast/remembered", &[self.id.0.as_bytes(), &n.to_be_bytes()])
    }
}

/// A tool's definition, and what has become of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// The one that is trusted.
    pub trusted: Seen,
    /// Who accepted it; nobody had to for the first.
    pub by: Option<Decider>,
    /// Another one was seen since: the first of them, and when.
    pub changed: Option<(Hash32, Millis)>,
}

/// A definition as it was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// As the server gave it.
    pub definition: Text,
    /// Its hash.
    pub hash: Hash32,
    /// When.
    pub at: Millis,
}

impl Seen {
    fn new(at: Millis, definition: &Text) -> Self {
        Self { hash: definition_hash(&definition.value()), definition: definition.clone(), at }
    }
}

/// The fold of the register's facts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Register {
    /// Number of facts folded.
    pub entries: u32,
    remembered: BTreeMap<RememberedId, Remembered>,
    /// By server, then by tool.
    definitions: BTreeMap<String, BTreeMap<String, Definition>>,
}

/// A fact that cannot follow: the register is unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit(pub &'static str);

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Misfit {}

impl Register {
    /// The register that these entries make, in their order.
    ///
    /// # Errors
    /// [`Misfit`] where the journal holds what cannot follow.
    pub fn fold(records: &[Record]) -> Result<Self, Misfit> {
        let mut register = Self::default();
        for record in records {
            let Entry::Noted(note) = &record.entry else { return Err(Misfit("it holds a call's fact")) };
            register.apply(record.at, note)?;
        }
        Ok(register)
    }

    /// Folds one more fact.
    ///
    /// # Errors
    /// [`Misfit`] for one that cannot follow.
    pub fn apply(&mut self, at: Millis, note: &Note) -> Result<(), Misfit> {
        match note {
            Note::Remembered(remembered) => {
                if self.remembered.contains_key(&remembered.id) {
                    return Err(Misfit("a remembered decision of this id exists"));
                }
                self.remembered.insert(remembered.id, remembered.clone());
            }
            Note::Forgotten { id, .. } => {
                self.remembered.remove(id).ok_or(Misfit("there is no such remembered decision"))?;
            }
            Note::Defined { server, tool, definition } => {
                if self.definition(server, tool).is_some() {
                    return Err(Misfit("the tool was seen before"));
                }
                let definition = Definition { trusted: Seen::new(at, definition), by: None, changed: None };
                self.definitions.entry(server.clone()).or_default().insert(tool.clone(), definition);
            }
            Note::Changed { server, tool, definition } => {
                self.known(server, tool)?.changed = Some((*definition, at));
            }
            Note::Trusted { server, tool, definition, by } => {
                let known = self.known(server, tool)?;
                *known =
                    Definition { trusted: Seen::new(at, definition), by: Some(by.clone()), changed: None };
            }
        }
        self.entries += 1;
        Ok(())
    }

    /// All that are not forgotten, oldest first; also the expired and the used up.
    pub fn remembered(&self) -> impl Iterator<Item = &Remembered> {
        self.remembered.values()
    }

    /// The one of this id.
    pub fn decision(&self, id: RememberedId) -> Option<&Remembered> {
        self.remembered.get(&id)
    }

    /// What is known of a tool.
    pub fn definition(&self, server: &str, tool: &str) -> Option<&Definition> {
        self.definitions.get(server)?.get(tool)
    }

    /// How many tools of a server are known.
    pub fn tools_of(&self, server: &str) -> usize {
        self.definitions.get(server).map_or(0, BTreeMap::len)
    }

    fn known(&mut self, server: &str, tool: &str) -> Result<&mut Definition, Misfit> {
        let known = self.definitions.get_mut(server).and_then(|tools| tools.get_mut(tool));
        known.ok_or(Misfit("the tool was never seen"))
    }
}

#[cfg(test)]
mod tests;
