//! Ids of events: which stream it is, as the next process can tell as well, and the number of the event in it.

use std::fmt::Write as _;

use holdfast_store::CallId;

/// Ids and progress tokens of requests that are longer make no resumable stream.
pub(super) const TEXT_MOST: usize = 256;

/// Which stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// What servers announce; one for each process.
    Announcements(String),
    /// The response to one `tools/call`.
    Call(CallStream),
}

/// The response to one `tools/call`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CallStream {
    /// The call that the request became or joined.
    pub(super) call: CallId,
    /// What the request was about.
    pub(super) about: About,
    /// The request's id, as JSON text.
    pub(super) id: String,
    /// Its progress token, as JSON text.
    pub(super) progress_token: Option<String>,
}

/// What a request was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// A tool without an output schema.
    Free,
    /// A tool whose results are structured.
    Structured,
    /// `holdfast_wait`.
    Collecting,
}

impl Name {
    /// What ids of its events begin with; none where they would be too long.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Announcements(process) => Some(format!("s.{process}")),
            Self::Call(CallStream { call, about, id, progress_token }) => {
                let token = progress_token.as_deref().unwrap_or_default();
                if id.len().max(token.len()) > TEXT_MOST {
                    return None;
                }
                let about = match about {
                    About::Free => "f",
                    About::Structured => "s",
                    About::Collecting => "w",
                };
                Some(format!("{about}.{call}.{}.{}", hex(id), hex(token)))
            }
        }
    }

    /// The stream and the number of the event with this id; none where it is no id of ours.
    pub(super) fn of_event(id: &str) -> Option<(Self, u64)> {
        let (name, n) = id.rsplit_once('.')?;
        let n = n.parse().ok()?;
        let mut parts = name.split('.');
        let about = match parts.next()? {
            "s" if name.split('.').count() == 2 => {
                return Some((Self::Announcements(parts.next()?.to_owned()), n));
            }
            "f" => About::Free,
            "s" => About::Structured,
            "w" => About::Collecting,
            _ => return None,
        };
        let call = parts.next()?.parse().ok()?;
        let (id, token) = (json(parts.next()?)?, parts.next()?);
        let progress_token = if token.is_empty() { None } else { Some(json(token)?) };
        parts.next().is_none().then_some((Self::Call(CallStream { call, about, id, progress_token }), n))
    }
}

fn hex(text: &str) -> String {
    text.bytes().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
        hex
    })
}

/// The JSON string or number that was written in hex.
fn json(hex: &str) -> Option<String> {
    if !hex.is_ascii() || hex.len() > 2 * TEXT_MOST {
        return None;
    }
    let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok());
    let text = String::from_utf8(bytes.collect::<Option<Vec<u8>>>()?).ok()?;
    let value: serde_json::Value = serde_json::from_str(&text).ok()?;
    (value.is_string() || value.is_number()).then_some(text)
}
