//! Shapes of what is written as text, for whoever describes an API (cargo feature `schema`).

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{
    gate::Approver,
    pattern::Pattern,
    plan::UpstreamKey,
    pointer::Pointer,
    template::{KeyTemplate, Template},
};

macro_rules! texts {
    ($($type:ident: $words:literal),* $(,)?) => {$(
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $words })
            }
        }
    )*};
}

texts! {
    Approver: "`group:NAME` or `operator:NAME`.",
    KeyTemplate: "A text with `{/pointer}` and `{principal}` in it.",
    Pattern: "A regular expression.",
    Pointer: "A JSON pointer.",
    UpstreamKey: "`arg:POINTER`, `meta:NAME` or `header:NAME`.",
}

/// JSON of any shape.
impl JsonSchema for Template {
    fn schema_name() -> Cow<'static, str> {
        "Template".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": "JSON, in whose texts `{/pointer}` stands for a value." })
    }
}
