//! What a server says when it wants a token: the `Bearer` challenge (RFC 6750, RFC 9728).

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// What is known of a server's wishes; grows with each refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Challenge {
    /// Whether there was any.
    pub(super) seen: bool,
    /// Where the server describes itself.
    pub(super) metadata: Option<String>,
    /// Scopes that were asked for, each once.
    pub(super) scopes: Vec<String>,
    /// `error`.
    error: Option<String>,
}

impl Challenge {
    /// The challenge in the headers of a refusal.
    pub(in super::super) fn of(headers: &HeaderMap) -> Self {
        let mut challenge = Self { seen: true, ..Self::default() };
        for value in headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()) {
            let Some(rest) = bearer(value) else { continue };
            for (name, value) in params(rest) {
                match name.to_ascii_lowercase().as_str() {
                    "resource_metadata" => challenge.metadata = Some(value),
                    "scope" => challenge.scopes = value.split_ascii_whitespace().map(str::to_owned).collect(),
                    "error" => challenge.error = Some(value),
                    _ => {}
                }
            }
        }
        challenge
    }

    /// Whether the token was good, but not for this.
    pub(in super::super) fn wants_more(&self) -> bool {
        self.error.as_deref() == Some("insufficient_scope")
    }

    /// Takes a later refusal in: what was granted or asked for before is asked for again, so that nothing is lost.
    pub(super) fn take_in(&mut self, later: Self) {
        let before = std::mem::replace(self, later);
        self.metadata = self.metadata.take().or(before.metadata);
        if self.wants_more() {
            let mut scopes = before.scopes;
            scopes.extend(std::mem::take(&mut self.scopes));
            self.scopes = scopes;
        } else if self.scopes.is_empty() {
            self.scopes = before.scopes;
        }
        let mut seen = std::collections::HashSet::new();
        self.scopes.retain(|scope| seen.insert(scope.clone()));
    }

    /// These are granted: a wish for more is a wish for more than these.
    pub(super) fn granted(&mut self, scope: Option<&str>) {
        for scope in scope.unwrap_or_default().split_ascii_whitespace() {
            if !self.scopes.iter().any(|known| known == scope) {
                self.scopes.push(scope.to_owned());
            }
        }
    }
}

/// The parameters of a `Bearer` challenge.
fn bearer(value: &str) -> Option<&str> {
    let at = value.to_ascii_lowercase().find("bearer")?;
    let before = value[..at].trim_end();
    (before.is_empty() || before.ends_with(',')).then(|| &value[at + "bearer".len()..])
}

fn params(mut text: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    loop {
        text = text.trim_start_matches([' ', '\t', ',']);
        let Some((name, rest)) = text.split_once('=') else { return all };
        let name = name.trim();
        // Another scheme begins.
        if name.is_empty() || name.contains(' ') {
            return all;
        }
        let rest = rest.trim_start();
        let (value, after) = match rest.strip_prefix('"') {
            Some(quoted) => match unquoted(quoted) {
                Some(found) => found,
                None => return all,
            },
            None => {
                let end = rest.find([',', ' ']).unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        all.push((name.to_owned(), value));
        text = after;
    }
}

fn unquoted(text: &str) -> Option<(String, &str)> {
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((value, &text[at + 1..])),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Challenge {
        let mut headers = HeaderMap::new();
        headers.insert(WWW_AUTHENTICATE, value.parse().expect("a header"));
        Challenge::of(&headers)
    }

    #[test]
    fn challenges_are_read_whatever_they_look_like() {
        let read = of(
            r#"Basic realm="a, b", Bearer realm="x=\"y\"", error=invalid_token, scope="a  b",resource_metadata="https://h/.well-known/x""#,
        );
        assert_eq!(read.metadata.as_deref(), Some("https://h/.well-known/x"));
        assert_eq!(
            (read.scopes, read.error.as_deref()),
            (vec!["a".to_owned(), "b".into()], Some("invalid_token"))
        );
        for odd in ["Bearer", "", "Negotiate abc", r#"Bearer realm="open"#, "Bearer =,=,", "xbearer scope=a"]
        {
            let read = of(odd);
            assert_eq!((read.metadata, read.scopes), (None, Vec::new()), "{odd}");
        }
    }

    #[test]
    fn stepping_up_keeps_what_was_granted() {
        let mut challenge = of(r#"Bearer scope="read""#);
        challenge.granted(Some("read list"));
        challenge.take_in(of(r#"Bearer error="insufficient_scope", scope="write""#));
        assert!(challenge.wants_more());
        assert_eq!(challenge.scopes, ["read", "list", "write"]);
    }
}
