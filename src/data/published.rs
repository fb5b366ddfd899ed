//! Records of the published data files, one JSON value each: descriptions and preference data.
//!
//! Instruction data is [`super::source`]'s. This module does not know where pictures lie, nor identities.

use serde_json::{Map, Value};

use super::source::take_image;
use super::turns::{read_turns, without_image};
use crate::artifact::{Origin, OriginKind, Speaker, Turn};

/// A description, as the published generator writes it: `image`, `prompt`, `description`.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// The picture's name.
    pub image: String,
    /// The prompt that was answered.
    pub prompt: String,
    /// The answer.
    pub text: String,
}

/// A preference record: `image`, `chosen`, `rejected`, and how the latter was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Preference {
    /// The picture's name.
    pub image: String,
    /// x, without the image placeholder.
    pub instruction: String,
    /// The preferred response.
    pub chosen: String,
    /// The rejected response.
    pub rejected: String,
    /// How the rejected response was made.
    pub origin: Origin,
}

/// Reads a description.
///
/// # Errors
/// What is wrong with the record.
pub fn read_description(value: Value) -> Result<Description, String> {
    let mut fields = object(value)?;
    let image = take_image(&mut fields)?.ok_or("the record has no `image`")?;
    let prompt = text(&fields, "prompt").map(without_image).unwrap_or_default();
    let text =
        text(&fields, "description").or_else(|| text(&fields, "text")).ok_or("the record has no `description`")?;
    Ok(Description { image, prompt, text: text.trim().to_owned() })
}

/// Reads a preference record. Its two conversations have one question each, and the same; plain texts with the
/// question under `prompt` are read as well.
///
/// # Errors
/// What is wrong with the record.
pub fn read_preference(value: Value) -> Result<Preference, String> {
    let mut fields = object(value)?;
    let image = take_image(&mut fields)?.ok_or("the record has no `image`")?;
    let side = |name: &str| match fields.get(name) {
        Some(Value::String(answer)) => {
            let question = text(&fields, "prompt").or_else(|| text(&fields, "question"));
            question
                .map(|question| (question.to_owned(), answer.clone()))
                .ok_or("the record has no `prompt`".to_owned())
        }
        Some(turns) => read_turns(turns).and_then(one_round).map_err(|cause| format!("`{name}`: {cause}")),
        None => Err(format!("the record has no `{name}`")),
    };
    let (asked, chosen) = side("chosen")?;
    let (also_asked, rejected) = side("rejected")?;
    let instruction = without_image(&asked);
    if instruction != without_image(&also_asked) {
        return Err("`chosen` and `rejected` answer different questions".to_owned());
    }
    let misleading = text(&fields, "hallu_prompt").filter(|prompt| !prompt.is_empty());
    let corrupted = fields.get("image_corruption").and_then(Value::as_bool).unwrap_or(false);
    let (kind, prompt) = match misleading {
        Some(prompt) => (OriginKind::Misled, prompt),
        None if corrupted => (OriginKind::Corrupted, instruction.as_str()),
        None => (OriginKind::Imported, instruction.as_str()),
    };
    let origin = Origin { kind, prompt: prompt.to_owned(), altered: None };
    Ok(Preference { image, instruction, chosen, rejected, origin })
}

fn object(value: Value) -> Result<Map<String, Value>, String> {
    match value {
        Value::Object(fields) => Ok(fields),
        _ => Err("not a record".to_owned()),
    }
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    fields.get(name).and_then(Value::as_str)
}

fn one_round(turns: Vec<Turn>) -> Result<(String, String), String> {
    match <[Turn; 2]>::try_from(turns) {
        Ok([question, answer]) if answer.from == Speaker::Gpt => Ok((question.value, answer.value)),
        _ => Err("not one question and one answer".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn the_published_forms_of_preference_data_are_read_alike() {
        let published = json!({
            "image": "COCO_train2014_000000000009.jpg", "image_corruption": false, "hallu_prompt": "Imagine.",
            "chosen": [{"role": "user", "content": "Explain."}, {"role": "assistant", "content": "A table."}],
            "rejected": [{"role": "user", "content": "Explain."}, {"role": "assistant", "content": "A dragon."}],
        });
        let preference = read_preference(published).unwrap();
        assert_eq!((preference.instruction.as_str(), preference.rejected.as_str()), ("Explain.", "A dragon."));
        assert_eq!(preference.origin, Origin { kind: OriginKind::Misled, prompt: "Imagine.".into(), altered: None });

        let llava = json!({
            "image": "a.jpg", "image_corruption": true, "hallu_prompt": "",
            "chosen": [{"from": "human", "value": "<image>\nExplain."}, {"from": "gpt", "value": "A table."}],
            "rejected": [{"from": "human", "value": "Explain."}, {"from": "gpt", "value": "A dragon."}],
        });
        let preference = read_preference(llava).unwrap();
        assert_eq!((preference.instruction.as_str(), preference.origin.kind), ("Explain.", OriginKind::Corrupted));

        let plain = json!({"image": "a.jpg", "prompt": "Explain.", "chosen": "A table.", "rejected": "A dragon."});
        let preference = read_preference(plain).unwrap();
        assert_eq!((preference.chosen.as_str(), preference.origin.kind), ("A table.", OriginKind::Imported));
    }

    #[test]
    fn what_is_wrong_with_a_record_is_said() {
        let round = |question: &str| json!([{"from": "human", "value": question}, {"from": "gpt", "value": "x"}]);
        let cause = |value| read_preference(value).unwrap_err();
        assert_eq!(cause(json!([])), "not a record");
        assert_eq!(cause(json!({"chosen": [], "rejected": []})), "the record has no `image`");
        assert_eq!(cause(json!({"image": "a"})), "the record has no `chosen`");
        assert_eq!(
            cause(json!({"image": "a", "chosen": [], "rejected": []})),
            "`chosen`: the conversation has no human turn"
        );
        let differ = json!({"image": "a", "chosen": round("a"), "rejected": round("b")});
        assert_eq!(cause(differ), "`chosen` and `rejected` answer different questions");
        assert_eq!(read_description(json!({"image": "a"})).unwrap_err(), "the record has no `description`");
        let description =
            read_description(json!({"image": "/d/a.jpg", "prompt": "<image>\nSay.", "description": " So. "}));
        assert_eq!(
            description.unwrap(),
            Description { image: "/d/a.jpg".into(), prompt: "Say.".into(), text: "So.".into() }
        );
    }

    proptest! {
        #[test]
        fn any_text_is_a_record_or_an_error(text in r#"[\[\]{}",:a-z0-9 ]{0,60}"#) {
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                let _ = read_preference(value.clone());
                let _ = read_description(value);
            }
        }
    }
}
