//! JSON text that is kept, shown and sent byte for byte, never parsed and printed again.

use std::{fmt, ops::Deref, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// One JSON value as text. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Text(Arc<str>);

impl Text {
    /// Keeps `text` as it is.
    ///
    /// # Errors
    /// Where `text` is not exactly one JSON value.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<&RawValue>(text).map(Self::from)
    }

    /// The compact text of `value`: the one serialisation that everything else uses.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Self {
        Self(serde_json::to_string(value).expect("JSON values and our own shapes always serialise").into())
    }

    /// Parses the text, to look into it; numbers keep their digits and objects their order.
    ///
    /// `Null` for a text that nests deeper than 128 levels: it is carried like any other, but nobody looks into it.
    pub fn value(&self) -> serde_json::Value {
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

impl From<&RawValue> for Text {
    fn from(raw: &RawValue) -> Self {
        Self(raw.get().into())
    }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Borrowing the text as a RawValue checks it once more; that is cheaper than escaping it into a string.
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw: Box<RawValue> = Deserialize::deserialize(deserializer)?;
        Ok(Self(Box::<str>::from(raw).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_too_deep_to_look_into_is_still_carried() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        match Text::parse(&deep) {
            Ok(text) => {
                assert_eq!(&*text, deep);
                assert_eq!(text.value(), serde_json::Value::Null);
            }
            Err(error) => assert!(error.to_string().contains("recursion"), "{error}"),
        }
        let shallow = Text::parse(r#"{"b":1.50,"a":[9007199254740993]}"#).expect("valid");
        assert_eq!(shallow.value().to_string(), &*shallow);
    }
}
