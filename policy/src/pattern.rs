//! Globs and regular expressions that match in linear time and are bounded in size.

use std::fmt;
use std::sync::{Arc, OnceLock};

use globset::GlobBuilder;
use regex::{Regex, RegexBuilder, bytes};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The largest pattern text, in bytes, and the largest compiled program. Both keep a hostile or careless
/// policy from costing memory; matching itself is linear in the subject (`regex` never backtracks).
const PATTERN_MAX_BYTES: usize = 4 * 1024;
const PROGRAM_MAX_BYTES: usize = 256 * 1024;

/// Why a pattern was refused, in words for the author of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadPattern(String);

impl fmt::Display for BadPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadPattern {}

/// An anchored glob: `*` matches any text, `?` one ASCII character, `[a-z]` a class, `{a,b*}` either;
/// `\` escapes; everything else stands for itself.
#[derive(Clone)]
pub struct Glob {
    text: Arc<str>,
    matcher: Matcher,
}

#[derive(Clone)]
enum Matcher {
    Any,
    /// Most rules name one server and one tool, and comparing bytes is far cheaper than any automaton.
    Exact,
    Regex(bytes::Regex),
}

impl Glob {
    /// Compiles a glob.
    ///
    /// # Errors
    /// [`BadPattern`] for unbalanced braces or brackets, and for a glob that compiles to too much.
    pub fn parse(text: &str) -> Result<Glob, BadPattern> {
        if text.len() > PATTERN_MAX_BYTES {
            return Err(BadPattern(format!("a glob may have at most {PATTERN_MAX_BYTES} bytes")));
        }
        let matcher = if text == "*" {
            Matcher::Any
        } else if !text.contains(['*', '?', '[', ']', '{', '}', '\\']) {
            Matcher::Exact
        } else {
            // Backslashes escape on every system: a policy must mean the same wherever it is read.
            let mut builder = GlobBuilder::new(text);
            builder.backslash_escape(true).empty_alternates(true);
            let glob = builder.build().map_err(|error| BadPattern(error.kind().to_string()))?;
            let regex = bytes::RegexBuilder::new(glob.regex())
                .dot_matches_new_line(true)
                .size_limit(PROGRAM_MAX_BYTES)
                .build()
                .map_err(|_| BadPattern("this glob is too large once compiled".to_owned()))?;
            Matcher::Regex(regex)
        };
        Ok(Glob { text: text.into(), matcher })
    }

    /// The glob that matches everything.
    pub fn any() -> Glob {
        Glob { text: "*".into(), matcher: Matcher::Any }
    }

    /// Whether the whole of `subject` matches.
    pub fn matches(&self, subject: &str) -> bool {
        match &self.matcher {
            Matcher::Any => true,
            Matcher::Exact => *self.text == *subject,
            Matcher::Regex(regex) => regex.is_match(subject.as_bytes()),
        }
    }

    /// The glob as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether everything that `other` matches is certainly matched by this one too. `false` means
    /// "not certain": it is asked for warnings only.
    pub fn covers(&self, other: &Glob) -> bool {
        if matches!(self.matcher, Matcher::Any) || self.text == other.text {
            return true;
        }
        let wide = alternatives(&self.text);
        alternatives(&other.text).iter().all(|narrow| {
            let plain = narrow.find(['*', '?', '[', '{', '\\']);
            let literal = &narrow[..plain.unwrap_or(narrow.len())];
            (plain.is_none() && self.matches(narrow))
                || wide.iter().any(|wide| {
                    wide == narrow
                        || wide.strip_suffix('*').is_some_and(|prefix| {
                            !prefix.contains(['*', '?', '[', '{', '\\']) && literal.starts_with(prefix)
                        })
                })
        })
    }
}

/// The globs of one outermost brace list without anything around it, or the glob itself.
fn alternatives(glob: &str) -> Vec<String> {
    let inner = glob.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    match inner {
        Some(inner) if !inner.contains(['{', '}', '\\', '[']) => {
            inner.split(',').map(str::to_owned).collect()
        }
        _ => vec![glob.to_owned()],
    }
}

impl PartialEq for Glob {
    fn eq(&self, other: &Glob) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

impl Serialize for Glob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// A regular expression that keeps its source: it is journaled as text and compiled when first used.
#[derive(Clone)]
pub struct Pattern {
    source: Arc<str>,
    compiled: Arc<OnceLock<Option<Regex>>>,
}

impl Pattern {
    /// Compiles a regular expression in the syntax of the `regex` crate (linear time, no look-around,
    /// no back-references). It searches: write `^` and `$` for the whole text.
    ///
    /// # Errors
    /// [`BadPattern`] when it is malformed, or too large once compiled.
    pub fn parse(source: &str) -> Result<Pattern, BadPattern> {
        let regex = compile(source)?;
        Ok(Pattern { source: source.into(), compiled: Arc::new(OnceLock::from(Some(regex))) })
    }

    /// Whether it is found in `subject`. A pattern that does not compile, which only a damaged journal
    /// can hold, is never found.
    pub fn matches(&self, subject: &str) -> bool {
        let compiled = self.compiled.get_or_init(|| compile(&self.source).ok());
        compiled.as_ref().is_some_and(|regex| regex.is_match(subject))
    }

    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        &self.source
    }
}

fn compile(source: &str) -> Result<Regex, BadPattern> {
    if source.len() > PATTERN_MAX_BYTES {
        return Err(BadPattern(format!("a pattern may have at most {PATTERN_MAX_BYTES} bytes")));
    }
    let mut builder = RegexBuilder::new(source);
    builder.size_limit(PROGRAM_MAX_BYTES).dfa_size_limit(PROGRAM_MAX_BYTES).nest_limit(64);
    builder.build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => {
            BadPattern("this pattern is too large once compiled; use smaller repetitions".to_owned())
        }
        // The crate draws a picture over several lines; its last line says what is wrong.
        other => BadPattern(other.to_string().lines().last().unwrap_or_default().trim().to_owned()),
    })
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.source == other.source
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.source, f)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.source)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let source = String::deserialize(deserializer)?;
        Ok(Pattern { source: source.into(), compiled: Arc::default() })
    }
}
