//! Shapes of what has one of its own on paper, for whoever describes an API (cargo feature `schema`).

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{entry::CallId, fingerprint::Hash32, register::RememberedId, state::State, text::Text};

macro_rules! shapes {
    ($($type:ident: $shape:tt),* $(,)?) => {$(
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($shape)
            }
        }
    )*};
}

shapes! {
    CallId: { "type": "string", "format": "uuid", "description": "The id of a call." },
    RememberedId: { "type": "string", "format": "uuid", "description": "The id of a remembered decision." },
    Hash32: { "type": "string", "pattern": "^[0-9a-fA-F]{64}$", "description": "SHA-256, in hexadecimal digits." },
    State: {
        "type": "string",
        "description": "Where a call stands.",
        "enum": State::ALL.map(State::name),
    },
    Text: { "description": "JSON of any shape, as it was received." },
}
