//! What is told of an answer that is too large: its beginning, what is missing, and where the whole is.

use holdfast_store::{Answer, AnswerKind, Kept, Text};
use serde_json::{Map, Value, json};

use super::uri;

/// Bytes of content that are shown at most, where answers may be larger than that.
const PREVIEW: usize = 32 << 10;
/// Bytes up to which other members stay.
const MEMBER_MOST: usize = 4 << 10;
/// Where a result says what is missing of it.
const META: &str = "io.holdfast/answer";

/// The answer as it is told and journaled; `most` is the size up to which answers are told whole.
pub(super) fn told(answer: &Answer, kept: Kept, most: u64) -> Answer {
    let text = match (answer.kind, answer.text.value()) {
        (AnswerKind::Error, value) => error(&value, kept, most),
        (_, Value::Object(members)) => result(members, kept, most),
        // Nested so deeply that nobody looks into it.
        (_, _) => result(Map::new(), kept, most),
    };
    Answer { kind: answer.kind, text: Text::of(&text) }
}

/// Whether this is a result without the structure that its tool promises, because that was too large.
pub(crate) fn lacks_structure(result: &str) -> bool {
    if !result.contains(META) {
        return false;
    }
    let result: Value = serde_json::from_str(result).unwrap_or_default();
    result.get("structuredContent").is_none() && result.pointer("/_meta/io.holdfast~1answer").is_some()
}

fn result(members: Map<String, Value>, kept: Kept, most: u64) -> Value {
    let mut told = Map::new();
    let mut left_out: Vec<String> = Vec::new();
    let (mut blocks, mut meta) = (Vec::new(), Map::new());
    for (name, value) in members {
        let size = value.to_string().len();
        match name.as_str() {
            "content" => {
                let (shown, words) = preview(&value, most);
                blocks = shown;
                left_out.extend(words);
                told.insert(name, Value::Null);
            }
            "_meta" if size <= MEMBER_MOST => match value {
                Value::Object(members) => meta = members,
                other => drop(told.insert(name, other)),
            },
            "structuredContent" if size as u64 <= most => drop(told.insert(name, value)),
            _ if size <= MEMBER_MOST => drop(told.insert(name, value)),
            _ => left_out.push(format!("`{name}` ({size} bytes)")),
        }
    }
    if left_out.is_empty() {
        left_out.push("nothing but its spacing".to_owned());
    }
    blocks.push(json!({ "type": "text", "text": note(kept, most, &left_out) }));
    blocks.push(link(kept));
    told.insert("content".to_owned(), blocks.into());
    meta.insert(META.to_owned(), reference(kept, &left_out));
    told.insert("_meta".to_owned(), meta.into());
    Value::Object(told)
}

/// The first blocks, the last one of them cut where it is text; and what is missing, in words.
fn preview(content: &Value, most: u64) -> (Vec<Value>, Vec<String>) {
    let Some(blocks) = content.as_array() else { return (Vec::new(), vec!["its content".to_owned()]) };
    let (mut shown, mut words, mut room) = (Vec::new(), Vec::new(), room(most));
    for (at, block) in blocks.iter().enumerate() {
        let size = block.to_string().len();
        if size <= room {
            room -= size;
            shown.push(block.clone());
            continue;
        }
        let mut missing = blocks.len() - at;
        if let Some(text) = block.get("text").and_then(Value::as_str).filter(|_| block["type"] == "text") {
            let first = &text[..text.floor_char_boundary(room)];
            words.push(format!("all but the first {} of {} bytes of a text", first.len(), text.len()));
            let mut cut = block.clone();
            cut["text"] = first.into();
            shown.push(cut);
            missing -= 1;
        }
        if missing > 0 {
            words.push(format!("{missing} of {} content blocks", blocks.len()));
        }
        break;
    }
    (shown, words)
}

fn room(most: u64) -> usize {
    usize::try_from(most).map_or(PREVIEW, |most| most.min(PREVIEW))
}

fn error(error: &Value, kept: Kept, most: u64) -> Value {
    let message = error.get("message").and_then(Value::as_str).unwrap_or_default();
    let first = &message[..message.floor_char_boundary(MEMBER_MOST.min(room(most)))];
    let left_out = ["what else the error says".to_owned()];
    let message = format!("{first}\n{}", note(kept, most, &left_out));
    json!({
        "code": error.get("code").cloned().unwrap_or_else(|| (-32_603).into()),
        "message": message,
        "data": { (META): reference(kept, &left_out) },
    })
}

fn reference(kept: Kept, left_out: &[String]) -> Value {
    json!({ "uri": uri(kept.sha256), "size": kept.bytes, "leftOut": left_out })
}

fn note(kept: Kept, most: u64, left_out: &[String]) -> String {
    let (uri, left_out) = (uri(kept.sha256), left_out.join(", "));
    format!(
        "Note from Holdfast: this answer has {} bytes, more than the {most} that are told in one piece \
         (intake.max_answer). Left out here: {left_out}. The call is done; do not repeat it to see more. The whole \
         answer, as the JSON text that the server sent, is the resource {uri}; parts of it are read as \
         {uri}?offset=0&length=65536.",
        kept.bytes
    )
}

fn link(kept: Kept) -> Value {
    json!({
        "type": "resource_link",
        "uri": uri(kept.sha256),
        "name": format!("answer-{:.8}.json", kept.sha256.to_string()),
        "description": "The whole answer, as the server sent it",
        "mimeType": "application/json",
        "size": kept.bytes,
    })
}

#[cfg(test)]
mod tests {
    use holdfast_store::Hash32;

    use super::*;

    const KEPT: Kept = Kept { sha256: Hash32([7; 32]), bytes: 5_000_000 };

    fn of(kind: AnswerKind, value: &Value) -> Value {
        let answer = told(&Answer { kind, text: Text::of(value) }, KEPT, 1 << 20);
        assert_eq!(answer.kind, kind);
        answer.text.value()
    }

    fn large() -> String {
        "é".repeat(1 << 20)
    }

    #[test]
    fn a_text_is_cut_between_characters_and_says_so() {
        let value = json!({ "content": [{ "type": "text", "text": large(), "annotations": { "a": 1.50 } }] });
        let told = of(AnswerKind::Result, &value);
        let content = told["content"].as_array().expect("blocks");
        assert_eq!(content.len(), 3);
        let shown = content[0]["text"].as_str().expect("text");
        assert!(shown.len() <= PREVIEW && shown.len() > PREVIEW - 4 && large().starts_with(shown));
        assert_eq!(content[0]["annotations"], value["content"][0]["annotations"]);
        let note = content[1]["text"].as_str().expect("text");
        assert!(note.contains("first 32768 of 2097152 bytes of a text"), "{note}");
        assert_eq!(content[2]["type"], "resource_link");
        assert_eq!(content[2]["uri"], format!("holdfast://answers/{}", "07".repeat(32)));
        assert_eq!(content[2]["size"], 5_000_000);
        assert_eq!(told.get("isError"), None);
    }

    #[test]
    fn where_less_is_told_in_one_piece_less_is_shown() {
        let value = json!({ "content": [{ "type": "text", "text": large() }] });
        let told =
            told(&Answer { kind: AnswerKind::Result, text: Text::of(&value) }, KEPT, 1_000).text.value();
        let shown = told["content"][0]["text"].as_str().expect("text");
        assert!((997..=1_000).contains(&shown.len()), "{}", shown.len());
    }

    #[test]
    fn what_is_small_stays() {
        let value = json!({
            "content": [
                { "type": "text", "text": "first" },
                { "type": "image", "data": large(), "mimeType": "image/png" },
                { "type": "text", "text": "last" },
            ],
            "structuredContent": { "n": 9_007_199_254_740_993_u64 },
            "isError": true,
            "_meta": { "theirs": 1 },
            "x-large": large(),
            "x-small": 7,
        });
        let told = of(AnswerKind::ToolError, &value);
        for name in ["structuredContent", "isError", "x-small"] {
            assert_eq!(told[name], value[name], "{name}");
        }
        assert_eq!(told["_meta"]["theirs"], 1);
        assert_eq!(told["content"][0], value["content"][0]);
        let left_out = told["_meta"][META]["leftOut"].to_string();
        assert!(left_out.contains("2 of 3 content blocks") && left_out.contains("x-large"), "{left_out}");
        assert!(!lacks_structure(&told.to_string()));
    }

    #[test]
    fn structure_that_does_not_fit_is_missing() {
        let value = json!({ "content": [], "structuredContent": { "rows": large() } });
        let told = of(AnswerKind::Result, &value);
        assert_eq!(told.get("structuredContent"), None);
        assert!(lacks_structure(&told.to_string()));
        assert!(!lacks_structure(r#"{"content":[]}"#));
    }

    #[test]
    fn errors_and_oddities_stay_what_they_are() {
        let told = of(AnswerKind::Error, &json!({ "code": -7, "message": large(), "data": large() }));
        assert_eq!(told["code"], -7);
        assert!(told["message"].as_str().expect("text").len() < 2 * MEMBER_MOST);
        assert_eq!(told["data"][META]["size"], 5_000_000);
        for odd in [json!([large()]), json!({ "content": large() }), json!({ "content": [7, large()] })] {
            let told = of(AnswerKind::Result, &odd);
            assert!(told["content"].as_array().expect("blocks").len() >= 2, "{told}");
            assert!(told.to_string().len() < 2 * PREVIEW);
        }
    }
}
