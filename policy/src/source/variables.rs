//! `${VAR}` and `${VAR:-default}` in configuration strings.

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

/// Expands `text`. What a variable holds is not expanded again: a value from outside cannot name others.
pub(super) fn expand(text: &str, vars: &dyn Fn(&str) -> Option<String>) -> Result<String, Fault> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$${") {
            expanded.push_str("${");
            rest = after;
        } else if let Some(inside) = rest.strip_prefix("${") {
            let end = inside.find('}').ok_or(Fault::Unclosed)?;
            expanded.push_str(&lookup(&inside[..end], vars)?);
            rest = &inside[end + 1..];
        } else {
            expanded.push('$');
            rest = &rest[1..];
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn lookup(inside: &str, vars: &dyn Fn(&str) -> Option<String>) -> Result<String, Fault> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts_well || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(Fault::BadName { name: inside.to_owned() });
    }
    match (vars(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Fault::Unset { name: name.to_owned() }),
    }
}
