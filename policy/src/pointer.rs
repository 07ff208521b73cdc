//! JSON Pointers (RFC 6901), parsed once: following one allocates nothing.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// A checked JSON Pointer: `""` is the whole document, `"/a/0"` the first element of member `a`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pointer {
    text: Arc<str>,
    tokens: Arc<[String]>,
}

/// A text that is no JSON Pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPointer;

impl fmt::Display for NoPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a JSON Pointer: it begins with `/`, and `~` is written `~0`, `/` inside a name `~1`")
    }
}

impl std::error::Error for NoPointer {}

/// A pointer that leads through something that is neither object nor array, or past an array's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoRoom(pub Pointer);

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nothing can be put at {}", self.0)
    }
}

impl std::error::Error for NoRoom {}

impl Pointer {
    /// Parses RFC 6901 text.
    ///
    /// # Errors
    /// [`NoPointer`] when it does not begin with `/` (and is not empty) or has a stray `~`.
    pub fn parse(text: &str) -> Result<Pointer, NoPointer> {
        let tokens: Vec<String> = match text.strip_prefix('/') {
            None if text.is_empty() => Vec::new(),
            None => return Err(NoPointer),
            Some(rest) => rest.split('/').map(unescape).collect::<Option<_>>().ok_or(NoPointer)?,
        };
        Ok(Pointer { text: text.into(), tokens: tokens.into() })
    }

    /// The pointer as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What the pointer leads to.
    pub fn find<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.tokens.iter().try_fold(value, |value, token| match value {
            Value::Object(members) => members.get(token),
            Value::Array(items) => items.get(index(token)?),
            _ => None,
        })
    }

    /// Takes what stands there out of its object; nothing where it does not stand in one.
    pub fn take(&self, target: &mut Value) -> Option<Value> {
        let (last, way) = self.tokens.split_last()?;
        let parent = way.iter().try_fold(target, |place, token| match place {
            Value::Object(members) => members.get_mut(token),
            _ => None,
        })?;
        parent.as_object_mut()?.shift_remove(last)
    }

    /// Puts `value` there, replacing what stood there and creating the objects in between.
    ///
    /// # Errors
    /// [`NoRoom`] when the way leads through a text, number or boolean, or past the end of an array;
    /// `target` is then unchanged but for objects created on the way.
    pub fn put(&self, target: &mut Value, value: Value) -> Result<(), NoRoom> {
        let mut place = target;
        for token in self.tokens.iter() {
            if place.is_null() {
                *place = Value::Object(Map::new());
            }
            place = match place {
                Value::Object(members) => members.entry(token.as_str()).or_insert(Value::Null),
                Value::Array(items) => {
                    let length = items.len();
                    match index(token) {
                        Some(at) if at < length => &mut items[at],
                        _ => return Err(NoRoom(self.clone())),
                    }
                }
                _ => return Err(NoRoom(self.clone())),
            };
        }
        *place = value;
        Ok(())
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

impl Serialize for Pointer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Pointer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Pointer::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// An array index as RFC 6901 allows it: digits without a leading zero.
fn index(token: &str) -> Option<usize> {
    let digits = token.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (token.len() > 1 && token.starts_with('0')) {
        return None;
    }
    token.parse().ok()
}

fn unescape(token: &str) -> Option<String> {
    let mut pieces = token.split('~');
    let mut name = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (escaped, rest) = match piece.as_bytes().first()? {
            b'0' => ('~', &piece[1..]),
            b'1' => ('/', &piece[1..]),
            _ => return None,
        };
        name.push(escaped);
        name.push_str(rest);
    }
    Some(name)
}
