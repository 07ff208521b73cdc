//! SHA-256 over length-prefixed fields: fingerprints of calls, hashes of keys, digests of holds.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::accepted::KeySource;

/// 32 bytes of SHA-256, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash32(pub [u8; 32]);

/// What makes two requests "the same arguments": server identity, tool, argument text as received, and the members of
/// `params` that no specification knows, where there are any: a server may do another thing for them.
pub type Fingerprint = Hash32;
/// A claimed key: source, scope and the key itself. The key's own text is not kept.
pub type KeyHash = Hash32;
/// What an approver approves.
pub type Digest = Hash32;

/// The hash over `fields`, each preceded by its length, so that no two lists of fields read the same.
pub fn hash_fields(purpose: &str, fields: &[&[u8]]) -> Hash32 {
    let mut hasher = Sha256::new();
    for field in std::iter::once(&purpose.as_bytes()).chain(fields) {
        hasher.update((field.len() as u64).to_be_bytes());
        hasher.update(field);
    }
    Hash32(hasher.finalize().into())
}

/// The fingerprint of a call (semantics section 2) without extra members. Never covers `_meta` or what Holdfast injects.
pub fn fingerprint(identity: &str, tool: &str, arguments: &str) -> Fingerprint {
    fingerprint_with(identity, tool, arguments, None)
}

/// The fingerprint of a call that may have extra members: the text of an object.
pub fn fingerprint_with(identity: &str, tool: &str, arguments: &str, extra: Option<&str>) -> Fingerprint {
    let mut fields = vec![identity.as_bytes(), tool.as_bytes(), arguments.as_bytes()];
    fields.extend(extra.map(str::as_bytes));
    hash_fields("holdfast/fingerprint", &fields)
}

/// The hash of a tool's definition: the order of an object's members, which JSON gives no meaning, is not part of it, and
/// neither is `execution`, which a server writes for clients before 2026-07-28 and leaves out for others.
pub fn definition_hash(definition: &Value) -> Hash32 {
    let mut definition = definition.clone();
    if let Some(members) = definition.as_object_mut() {
        members.remove("execution");
    }
    definition.sort_all_objects();
    Hash32(Sha256::digest(definition.to_string().as_bytes()).into())
}

/// The hash of a key in the namespace of its source; `scope` holds principal, server and tool as they apply.
pub fn key_hash(source: KeySource, scope: &[&str], key: &str) -> KeyHash {
    let source = match source {
        KeySource::Transport => "transport",
        KeySource::Explicit => "explicit",
        KeySource::Effect => "effect",
        KeySource::Run => "run",
    };
    let mut fields = vec![source.as_bytes()];
    fields.extend(scope.iter().map(|part| part.as_bytes()));
    fields.push(key.as_bytes());
    hash_fields("holdfast/key", &fields)
}

/// Everything that an approval is bound to (semantics section 6).
#[derive(Clone, Copy, Debug)]
pub struct Approvable<'a> {
    /// Who asked.
    pub principal: &'a str,
    /// Command line or URL of the server.
    pub identity: &'a str,
    /// The tool.
    pub tool: &'a str,
    /// Hash of the tool's definition.
    pub definition: &'a str,
    /// The argument text that will be sent.
    pub arguments: &'a str,
    /// Members of `params` beside the arguments, as the text of an object, where there are any.
    pub extra: Option<&'a str>,
    /// What the approver was shown as the effect; empty without a preview.
    pub preview: &'a str,
    /// The rules that ask, in order.
    pub rules: &'a [&'a str],
    /// From 1.
    pub revision: u32,
}

impl Approvable<'_> {
    /// The digest.
    pub fn digest(&self) -> Digest {
        let revision = self.revision.to_be_bytes();
        let mut fields = vec![
            self.principal.as_bytes(),
            self.identity.as_bytes(),
            self.tool.as_bytes(),
            self.definition.as_bytes(),
            self.arguments.as_bytes(),
            self.preview.as_bytes(),
            &revision,
        ];
        fields.extend(self.rules.iter().map(|rule| rule.as_bytes()));
        match self.extra {
            None => hash_fields("holdfast/approvable", &fields),
            // Under a name of its own, so that no list of rules reads the same.
            Some(extra) => {
                fields.push(extra.as_bytes());
                hash_fields("holdfast/approvable-with-extra", &fields)
            }
        }
    }
}

impl Hash32 {
    /// As hexadecimal digits: every call is written with some of them.
    fn digits(&self) -> [u8; 64] {
        const DIGITS: [u8; 16] = *b"0123456789abcdef";
        let mut digits = [0; 64];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        digits
    }
}

fn as_text(digits: &[u8; 64]) -> &str {
    str::from_utf8(digits).expect("digits are ASCII")
}

/// The same hash as text.
impl PartialEq<str> for Hash32 {
    fn eq(&self, text: &str) -> bool {
        self.digits() == *text.as_bytes()
    }
}

impl fmt::Display for Hash32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(as_text(&self.digits()))
    }
}

impl fmt::Debug for Hash32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAHash;

impl fmt::Display for NotAHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected 64 hexadecimal digits")
    }
}

impl std::error::Error for NotAHash {}

impl FromStr for Hash32 {
    type Err = NotAHash;
    fn from_str(text: &str) -> Result<Self, NotAHash> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(NotAHash);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let [high, low] = [pair[0], pair[1]].map(|digit| (digit as char).to_digit(16));
            let (Some(high), Some(low)) = (high, low) else { return Err(NotAHash) };
            *byte = (high * 16 + low) as u8;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Hash32 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(as_text(&self.digits()))
    }
}

impl<'de> Deserialize<'de> for Hash32 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Approvable<'_> = Approvable {
        principal: "ana",
        identity: "bank --stdio",
        tool: "refund",
        definition: "d",
        arguments: "{}",
        extra: None,
        preview: "",
        rules: &["asks"],
        revision: 1,
    };

    /// Journals are full of these.
    #[test]
    fn hashes_of_calls_without_extra_members_are_what_they_were() {
        assert_eq!(
            fingerprint("bank --stdio", "refund", "{}").to_string(),
            "c593ca67f4cb057a07986fad4cc4ed540b4c593ccc5236361a780856970c95a1"
        );
        assert_eq!(
            NOTHING.digest().to_string(),
            "d4239b0c4d6f80b81cb2c9fa41e0597bffa106d13328559094f5fbd5f199aec2"
        );
    }

    #[test]
    fn extra_members_are_part_of_what_is_asked_and_approved() {
        let one = fingerprint_with("b", "t", "{}", Some(r#"{"x":1}"#));
        let other = fingerprint_with("b", "t", "{}", Some(r#"{"x":2}"#));
        assert!(one != other && one != fingerprint("b", "t", "{}"));
        let digest = |extra| Approvable { extra, ..NOTHING }.digest();
        assert!(
            digest(Some(r#"{"x":1}"#)) != digest(Some(r#"{"x":2}"#)) && digest(None) != digest(Some("{}"))
        );
        // No list of rules can be made to look like them.
        let rules = Approvable { rules: &["asks", r#"{"x":1}"#], ..NOTHING };
        assert_ne!(digest(Some(r#"{"x":1}"#)), rules.digest());
    }
}
