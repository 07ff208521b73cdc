//! Changes single members of an object's text and leaves every other byte of its values alone.

use std::borrow::Cow;

use serde_json::Value;

use crate::wire::members;

/// What delivery puts on a result.
#[derive(Clone, Debug, Default)]
pub(super) struct Dressing<'a> {
    /// `resultType` must be there (2026-07-28), or must not (before).
    pub(super) modern: bool,
    /// Members of `_meta` that are ours: they replace what the server wrote under the same name.
    pub(super) ours: &'a [(&'a str, Value)],
    /// Members of `_meta` that count only where the server gave none.
    pub(super) defaults: &'a [(&'a str, Value)],
}

/// Appends `result` to `out` with its `_meta` and `resultType` as `dressing` says.
///
/// Digits, unknown members, repeated members and the order stay as they came. A text that is not an object is appended
/// unchanged: it is the server's fault and the client's to judge.
pub(super) fn splice_result(out: &mut String, result: &str, dressing: &Dressing<'_>) {
    let Some(members) = members(result) else {
        out.push_str(result);
        return;
    };
    // Where a name stands twice readers take the last one, so the last `_meta` is the one to extend.
    let meta_at = members.iter().rposition(|(name, _)| name == "_meta");
    let has_type = members.iter().any(|(name, _)| name == "resultType");
    let mut object = Object::open(out);
    for (index, (name, value)) in members.iter().enumerate() {
        if meta_at == Some(index) {
            splice_meta(object.name("_meta"), Some(value), dressing);
        } else if name != "_meta" && !(name == "resultType" && !dressing.modern && *value == r#""complete""#)
        {
            object.name(name).push_str(value);
        }
    }
    if dressing.modern && !has_type {
        object.name("resultType").push_str(r#""complete""#);
    }
    if meta_at.is_none() && !(dressing.ours.is_empty() && dressing.defaults.is_empty()) {
        splice_meta(object.name("_meta"), None, dressing);
    }
    object.close();
}

fn splice_meta(out: &mut String, theirs: Option<&str>, dressing: &Dressing<'_>) {
    let theirs = theirs.and_then(members).unwrap_or_default();
    let mut object = Object::open(out);
    for (name, value) in &theirs {
        if !dressing.ours.iter().any(|(ours, _)| ours == name) {
            object.name(name).push_str(value);
        }
    }
    let defaults =
        dressing.defaults.iter().filter(|(name, _)| theirs.iter().all(|(theirs, _)| theirs != name));
    for (name, value) in dressing.ours.iter().chain(defaults) {
        object.name(name).push_str(&value.to_string());
    }
    object.close();
}

/// The object `text` with one member set to the JSON text `value`: in its place, or at the end.
///
/// A text that is not an object comes back unchanged.
pub(super) fn set_member(text: &str, wanted: &str, value: &str) -> String {
    let Some(members) = members(text) else { return text.to_owned() };
    let mut out = String::with_capacity(text.len() + wanted.len() + value.len() + 8);
    let mut object = Object::open(&mut out);
    let mut found = false;
    for (name, old) in &members {
        let hit = name == wanted;
        found |= hit;
        object.name(name).push_str(if hit { value } else { old });
    }
    if !found {
        object.name(wanted).push_str(value);
    }
    object.close();
    out
}

/// `json` without line breaks, for framings that end a message at one.
///
/// Inside strings JSON allows no raw line break, so only insignificant white space changes.
pub(crate) fn one_line(json: &str) -> Cow<'_, str> {
    if json.bytes().any(|byte| matches!(byte, b'\n' | b'\r')) {
        Cow::Owned(json.replace(['\n', '\r'], " "))
    } else {
        Cow::Borrowed(json)
    }
}

struct Object<'a> {
    out: &'a mut String,
    first: bool,
}

impl<'a> Object<'a> {
    fn open(out: &'a mut String) -> Self {
        out.push('{');
        Self { out, first: true }
    }

    /// Writes a member's name; the caller appends the value.
    fn name(&mut self, name: &str) -> &mut String {
        if !std::mem::replace(&mut self.first, false) {
            self.out.push(',');
        }
        self.out.push_str(&Value::from(name).to_string());
        self.out.push(':');
        self.out
    }

    fn close(self) {
        self.out.push('}');
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(modern: bool, result: &str, expected: &str) {
        let ours = [("io.holdfast/call", json!("c1"))];
        let defaults = [("x/info", json!(1))];
        let mut out = String::from(">");
        splice_result(&mut out, result, &Dressing { modern, ours: &ours, defaults: &defaults });
        assert_eq!(out, format!(">{expected}"), "{result}");
        if serde_json::from_str::<Value>(result).is_ok() {
            serde_json::from_str::<Value>(&out[1..]).expect("still JSON");
        }
    }

    #[test]
    fn our_members_go_in_and_nothing_else_changes() {
        check(false, "{}", r#"{"_meta":{"io.holdfast/call":"c1","x/info":1}}"#);
        check(
            false,
            r#"{"n":1.50e400,"x":{"b":1,"a":[9007199254740993,-0]},"content":[{"type":"odd","y":1}]}"#,
            r#"{"n":1.50e400,"x":{"b":1,"a":[9007199254740993,-0]},"content":[{"type":"odd","y":1}],"_meta":{"io.holdfast/call":"c1","x/info":1}}"#,
        );
        check(
            false,
            r#"{ "_meta" : { "up/stream" : 1.0 , "x/info": 2 }, "z":"\u0041\/" }"#,
            r#"{"_meta":{"up/stream":1.0,"x/info":2,"io.holdfast/call":"c1"},"z":"\u0041\/"}"#,
        );
    }

    #[test]
    fn a_server_cannot_speak_in_our_name() {
        check(
            false,
            r#"{"_meta":{"io.holdfast/call":"forged","\u0069o.holdfast/call":"too"}}"#,
            r#"{"_meta":{"io.holdfast/call":"c1","x/info":1}}"#,
        );
        check(
            false,
            r#"{"_meta":{"a":1},"b":2,"_meta":{"c":3}}"#,
            r#"{"b":2,"_meta":{"c":3,"io.holdfast/call":"c1","x/info":1}}"#,
        );
        check(false, r#"{"_meta":null}"#, r#"{"_meta":{"io.holdfast/call":"c1","x/info":1}}"#);
    }

    #[test]
    fn the_result_type_follows_the_era() {
        let meta = r#""_meta":{"io.holdfast/call":"c1","x/info":1}"#;
        check(true, "{}", &format!(r#"{{"resultType":"complete",{meta}}}"#));
        check(true, r#"{"resultType":"task"}"#, &format!(r#"{{"resultType":"task",{meta}}}"#));
        check(false, r#"{"resultType":"complete","a":1}"#, &format!(r#"{{"a":1,{meta}}}"#));
        check(false, r#"{"resultType":"task"}"#, &format!(r#"{{"resultType":"task",{meta}}}"#));
    }

    #[test]
    fn what_is_not_an_object_passes() {
        for text in ["5", "null", r#""x""#, "[1,2]", "not json"] {
            check(true, text, text);
        }
    }

    #[test]
    fn one_member_is_set() {
        let check =
            |text: &str, expected: &str| assert_eq!(set_member(text, "progressToken", "\"t\""), expected);
        check(r#"{"progressToken":7,"progress":1.00}"#, r#"{"progressToken":"t","progress":1.00}"#);
        check(r#"{"progress":0.10,"a\"b":[ 1 ]}"#, r#"{"progress":0.10,"a\"b":[ 1 ],"progressToken":"t"}"#);
        check("{}", r#"{"progressToken":"t"}"#);
        check("3", "3");
    }

    #[test]
    fn line_breaks_go_only_from_between_the_tokens() {
        assert_eq!(one_line("{\"a\":\r\n \"b\\n\"}"), "{\"a\":   \"b\\n\"}");
        assert!(matches!(one_line("{\"a\":1}"), Cow::Borrowed(_)));
    }
}
