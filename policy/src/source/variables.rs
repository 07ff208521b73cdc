//! `${VAR}` and `${VAR:-default}` in configuration strings.

/// What is found where a text has a `$`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dollar<'a> {
    /// What stands between `${` and the next `}`.
    Braced(&'a str),
    /// `${` that no `}` follows.
    Unclosed,
    /// What follows a `$` without a brace.
    Bare(&'a str),
}

/// What takes the place of a `$` and this many bytes behind it (of [`Dollar::Braced`] the braces and what is between
/// them are meant in any case). None leaves the `$` as it is.
pub type Replaced = Option<(String, usize)>;

/// Replaces what `found` knows, and `$${` by a literal `${`. What takes its place is not looked at again: a value from
/// outside cannot name others.
///
/// # Errors
/// The first that `found` makes.
pub fn replace_dollars<E>(
    text: &str,
    mut found: impl FnMut(Dollar<'_>) -> Result<Replaced, E>,
) -> Result<String, E> {
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        replaced.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$${") {
            replaced.push_str("${");
            rest = after;
            continue;
        }
        let (dollar, whole) = match rest.strip_prefix("${") {
            Some(inside) => match inside.find('}') {
                Some(end) => (Dollar::Braced(&inside[..end]), Some(end + "${}".len())),
                None => (Dollar::Unclosed, None),
            },
            None => (Dollar::Bare(&rest[1..]), None),
        };
        let (text, length) = match found(dollar)? {
            Some((text, behind)) => (text, whole.unwrap_or(1 + behind)),
            None => ("$".to_owned(), 1),
        };
        replaced.push_str(&text);
        rest = &rest[length..];
    }
    replaced.push_str(rest);
    Ok(replaced)
}

/// What `VAR` and `VAR:-default` refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable<'a> {
    /// Letters, digits and `_`.
    pub name: &'a str,
    /// What stands for it where it is unset or empty.
    pub default: Option<&'a str>,
}

impl<'a> Variable<'a> {
    /// Reads what stands between the braces; none where it names no environment variable.
    pub fn read(inside: &'a str) -> Option<Self> {
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        Self::is_name(name).then_some(Self { name, default })
    }

    /// Whether an environment variable can have this name.
    pub fn is_name(name: &str) -> bool {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    }

    /// Its value, as the shell has it: with a default, an empty one is none.
    pub fn value(self, vars: &dyn Fn(&str) -> Option<String>) -> Option<String> {
        let given = vars(self.name);
        match self.default {
            Some(default) => {
                Some(given.filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned()))
            }
            None => given,
        }
    }
}

/// Why a string could not be expanded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Unset { name: String },
    BadName { name: String },
    Unclosed,
}

impl Fault {
    /// Message and hint.
    pub(super) fn words(&self) -> (String, String) {
        match self {
            Fault::Unset { name } => (
                format!("the environment variable `{name}` is not set"),
                format!("set {name}, or write a default: ${{{name}:-value}}"),
            ),
            Fault::BadName { name } => (
                format!("`${{{name}}}` does not name an environment variable"),
                "names are letters, digits and _; write $${ for a literal ${".to_owned(),
            ),
            Fault::Unclosed => {
                ("`${` without a closing `}`".to_owned(), "write $${ for a literal ${".to_owned())
            }
        }
    }
}

/// Expands `text`, strictly: whatever begins with `${` is a variable.
pub(super) fn expand(text: &str, vars: &dyn Fn(&str) -> Option<String>) -> Result<String, Fault> {
    replace_dollars(text, |dollar| match dollar {
        Dollar::Bare(_) => Ok(None),
        Dollar::Unclosed => Err(Fault::Unclosed),
        Dollar::Braced(inside) => {
            let bad = || Fault::BadName { name: inside.to_owned() };
            let variable = Variable::read(inside).ok_or_else(bad)?;
            let unset = || Fault::Unset { name: variable.name.to_owned() };
            Ok(Some((variable.value(vars).ok_or_else(unset)?, 0)))
        }
    })
}
