//! The API's description for programs (OpenAPI 3.1), made of the types that handlers take and give.
//!
//! Schemas are those that `schemars` derives: OpenAPI 3.1 takes JSON Schema 2020-12 as it is.

use std::collections::BTreeMap;

use axum::http::{Method, StatusCode};
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::report::Problem;

/// Who may use an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody who reaches the listener.
    Open,
    /// Whoever has an operator's token.
    Operators,
}

/// Where a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    Query,
    Header,
}

/// How a type is written down; a function, so that one generator collects what all of them share.
type Shape = fn(&mut SchemaGenerator) -> Schema;

/// One operation of the API, as the document tells it.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) access: Access,
    name: String,
    summary: &'static str,
    parameters: Vec<(Place, Shape)>,
    body: Option<Body>,
    answers: BTreeMap<u16, Answer>,
}

#[derive(Debug)]
struct Body {
    shape: Shape,
    is_required: bool,
}

#[derive(Debug)]
struct Answer {
    words: &'static str,
    kind: &'static str,
    shape: Shape,
}

const JSON: &str = "application/json";

impl Operation {
    /// An operation that answers nothing yet. `name` is unique.
    pub(super) fn new(
        access: Access,
        method: Method,
        path: String,
        name: String,
        summary: &'static str,
    ) -> Self {
        let operation = Self {
            method,
            path,
            access,
            name,
            summary,
            parameters: Vec::new(),
            body: None,
            answers: BTreeMap::new(),
        };
        let words = "Not for you: the wrong Host or Origin, an agent's token, or a role that is too small.";
        let operation = operation.fails(StatusCode::FORBIDDEN, words);
        match access {
            Access::Open => operation,
            Access::Operators => operation
                .fails(StatusCode::UNAUTHORIZED, "No operator's token came with it.")
                .fails(StatusCode::TOO_MANY_REQUESTS, "Too many wrong tokens came from your address."),
        }
    }

    /// The fields of `T` are parameters.
    pub(super) fn takes<T: JsonSchema>(mut self, place: Place) -> Self {
        self.parameters.push((place, SchemaGenerator::subschema_for::<T>));
        self
    }

    /// The body is a `T`.
    pub(super) fn with_body<T: JsonSchema>(mut self, is_required: Required) -> Self {
        let is_required = is_required == Required::Yes;
        self.body = Some(Body { shape: SchemaGenerator::subschema_for::<T>, is_required });
        self
    }

    /// The answer with this status is a `T`.
    pub(super) fn gives<T: JsonSchema>(self, status: StatusCode, words: &'static str) -> Self {
        self.gives_as::<T>(JSON, status, words)
    }

    /// The answer with this status is a stream of events, and the data of each is a `T`.
    pub(super) fn streams<T: JsonSchema>(self, words: &'static str) -> Self {
        self.gives_as::<T>("text/event-stream", StatusCode::OK, words)
    }

    fn gives_as<T: JsonSchema>(
        mut self,
        kind: &'static str,
        status: StatusCode,
        words: &'static str,
    ) -> Self {
        let answer = Answer { words, kind, shape: SchemaGenerator::subschema_for::<T> };
        self.answers.insert(status.as_u16(), answer);
        self
    }

    /// It can end with this status and a report.
    pub(super) fn fails(self, status: StatusCode, words: &'static str) -> Self {
        self.gives::<Problem<'static>>(status, words)
    }

    /// The statuses that it can end with.
    #[cfg(test)]
    pub(super) fn statuses(&self) -> impl Iterator<Item = u16> {
        self.answers.keys().copied()
    }
}

/// Whether there must be a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Required {
    Yes,
    No,
}

/// The whole document.
pub(super) fn document<'a>(operations: impl Iterator<Item = &'a Operation>) -> Value {
    // What is taken may leave out what has a default; what is given has everything.
    let mut taken = settings().into_generator();
    let mut given = settings().for_serialize().into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations {
        let methods = paths.entry(&operation.path).or_insert_with(|| json!({}));
        methods[operation.method.as_str().to_lowercase()] = operation_of(operation, &mut taken, &mut given);
    }
    let mut schemas = taken.take_definitions(true);
    schemas.extend(given.take_definitions(true));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Holdfast inbox",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Calls of tools, what became of them, and what operators decide about them. \
                Decisions carry the digest of what was looked at; a GET never changes anything.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "operator": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The token of an operator in the configuration, or the one that `holdfast serve` made. \
                        Agents' tokens never open the inbox.",
                },
            },
        },
    })
}

fn settings() -> SchemaSettings {
    SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    })
}

fn operation_of(operation: &Operation, taken: &mut SchemaGenerator, given: &mut SchemaGenerator) -> Value {
    let parameters: Vec<Value> =
        operation.parameters.iter().flat_map(|(place, shape)| parameters_of(*place, *shape)).collect();
    let answers: Map<String, Value> = operation
        .answers
        .iter()
        .map(|(status, answer)| {
            let schema = (answer.shape)(given);
            let mut told =
                json!({ "description": answer.words, "content": { answer.kind: { "schema": schema } } });
            if let Some(headers) = headers_of(*status) {
                told["headers"] = headers;
            }
            (status.to_string(), told)
        })
        .collect();
    let security = match operation.access {
        Access::Open => json!([]),
        Access::Operators => json!([{ "operator": [] }]),
    };
    let mut told = json!({
        "operationId": operation.name,
        "summary": operation.summary,
        "security": security,
        "parameters": parameters,
        "responses": answers,
    });
    if let Some(body) = &operation.body {
        let schema = (body.shape)(taken);
        told["requestBody"] =
            json!({ "required": body.is_required, "content": { JSON: { "schema": schema } } });
    }
    told
}

/// Each field of a type is a parameter.
fn parameters_of(place: Place, shape: Shape) -> Vec<Value> {
    let mut generator = settings().with(|settings| settings.inline_subschemas = true).into_generator();
    let schema = shape(&mut generator).to_value();
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let fields = schema["properties"].as_object().cloned().unwrap_or_default();
    let parameter = |(name, mut schema): (String, Value)| {
        let words = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        let place = match place {
            Place::Path => "path",
            Place::Query => "query",
            Place::Header => "header",
        };
        // A parameter that is not there has no value: there is no way to write `null`.
        if let Some(kinds) = schema["type"].as_array() {
            let kinds: Vec<&Value> = kinds.iter().filter(|kind| **kind != "null").collect();
            schema["type"] = kinds[0].clone();
        }
        if schema["default"].is_null() {
            schema.as_object_mut().map(|schema| schema.remove("default"));
        }
        let required = required.contains(&Value::from(name.as_str()));
        let mut told = json!({ "name": name, "in": place, "required": required, "schema": schema });
        if let Some(words) = words {
            told["description"] = words;
        }
        told
    };
    fields.into_iter().map(parameter).collect()
}

fn headers_of(status: u16) -> Option<Value> {
    let header = |name: &str, words: &str, schema: Value| {
        Some(json!({ name: { "description": words, "required": true, "schema": schema } }))
    };
    match status {
        401 => header("WWW-Authenticate", "How to show a token.", json!({ "type": "string" })),
        429 => header("Retry-After", "Seconds.", json!({ "type": "integer", "minimum": 1 })),
        _ => None,
    }
}
