//! Parses descriptions and preference data in the formats of published data sets, one JSON value each. Instruction data
//! is in [`super::source`].

use serde_json::{Map, Value};

use super::fields::{fields_of, says, system_beside, take_picture};
use super::record_notes::RecordNote;
use super::records::RawRecord;
use super::turns::{Conversed, IMAGE, read_open_turns, without_image};
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

/// A preference record: `image`, `chosen`, `rejected`, and the origin of the rejected response.
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
    /// The origin of the rejected response.
    pub origin: Origin,
}

/// Parses a description. Also returns remarks.
///
/// # Errors
/// What is wrong with the record.
pub fn read_description(record: RawRecord) -> Result<(Description, Vec<RecordNote>), String> {
    let RawRecord { value, mut remarks } = record;
    let mut fields = object(value)?;
    let image = picture(&mut fields, &[], &mut remarks)?;
    let prompt = text(&fields, "prompt").map(without_image).unwrap_or_default();
    let description = text(&fields, "description").or_else(|| text(&fields, "text"));
    let description =
        description.ok_or_else(|| format!("the record has no `description`{}", fields_of(&fields)))?.trim().to_owned();
    Ok((Description { image, prompt, text: description }, remarks))
}

/// The fields that may hold the question, if the responses do not contain it.
const QUESTIONS: [&str; 7] =
    ["prompt", "question", "instruction", "query", "conversations", "messages", "conversation"];

/// Parses a preference record. Also returns remarks. Both sides are conversations of the same question and one answer,
/// or answers (strings or, as in TRL, messages) with the question under `prompt`.
///
/// # Errors
/// What is wrong with the record.
pub fn read_preference(record: RawRecord) -> Result<(Preference, Vec<RecordNote>), String> {
    let RawRecord { value, mut remarks } = record;
    let mut fields = with_two_sides(object(value)?)?;
    let mut inline = Vec::new();
    let mut side = |name: &str| {
        let value = match fields.get(name) {
            Some(Value::Null) => return Err(format!("`{name}` is null")),
            value => value,
        };
        let value = value.ok_or_else(|| format!("the record has no `{name}`{}", fields_of(&fields)))?;
        read_side(value, &mut inline, &mut remarks).map_err(|cause| format!("`{name}`: {cause}"))
    };
    let (asked, chosen) = side("chosen")?;
    let (also_asked, rejected) = side("rejected")?;
    if let Some(name) = ["history", "input"].into_iter().find(|name| fields.get(*name).is_some_and(says)) {
        return Err(format!("`{name}` belongs to the question, which is read from one field: move it into `prompt`"));
    }
    remarks.extend(system_beside(&fields).filter(|remark| !remarks.contains(remark)));
    let mut asked_by: Option<(&str, String)> = None;
    for name in QUESTIONS.into_iter().filter(|name| fields.get(*name).is_some_and(|value| !value.is_null())) {
        let question =
            read_question(&fields[name], &mut inline, &mut remarks).map_err(|cause| format!("`{name}`: {cause}"))?;
        match &asked_by {
            None => asked_by = Some((name, question)),
            Some((_, first)) if without_image(first).trim() == without_image(&question).trim() => {}
            Some((first, _)) => return Err(format!("`{first}` and `{name}` are different questions")),
        }
    }
    let (given, prompt) = asked_by.unzip();
    let no_prompt = || format!("the record has no `prompt`{}", fields_of(&fields));
    let asked = asked.or_else(|| prompt.clone()).ok_or_else(no_prompt)?;
    let also_asked = also_asked.or_else(|| prompt.clone()).ok_or_else(no_prompt)?;
    let placeholders = asked.matches(IMAGE).count();
    if placeholders > 1 {
        return Err(format!("the question has `{IMAGE}` {placeholders} times, for one picture"));
    }
    let instruction = without_image(&asked);
    if instruction != without_image(&also_asked) {
        return Err("`chosen` and `rejected` answer different questions".to_owned());
    }
    if let (Some(name), Some(prompt)) = (given, prompt)
        && without_image(&prompt).trim() != instruction.trim()
    {
        return Err(format!("`{name}` is a different question from the one that `chosen` answers"));
    }
    let image = picture(&mut fields, &inline, &mut remarks)?;
    if chosen.trim().is_empty() {
        remarks.push(RecordNote::EmptyChosen);
    }
    if instruction.trim().is_empty() {
        remarks.push(RecordNote::EmptyPrompt);
    }
    if chosen == rejected {
        remarks.push(RecordNote::EqualResponses);
    }
    let misleading = text(&fields, "hallu_prompt").filter(|prompt| !prompt.is_empty());
    let corrupted = fields.get("image_corruption").and_then(Value::as_bool).unwrap_or(false);
    let (kind, prompt) = match misleading {
        Some(prompt) => (OriginKind::Misled, prompt),
        None if corrupted => (OriginKind::Corrupted, instruction.as_str()),
        None => (OriginKind::Imported, instruction.as_str()),
    };
    let origin = Origin { kind, prompt: prompt.to_owned(), altered: None };
    remarks.dedup();
    Ok((Preference { image, instruction, chosen, rejected, origin }, remarks))
}

/// Renames the sides of a preference record to `chosen` and `rejected`. Supports RLHF-V (JSON in `text`), POVID and
/// ms-swift (the rejected side beside the conversation) and LLaVA-RLHF (two outputs, and which one is preferred).
///
/// # Errors
/// When it is unclear which side is preferred.
fn with_two_sides(mut fields: Map<String, Value>) -> Result<Map<String, Value>, String> {
    if fields.contains_key("chosen") {
        return Ok(fields);
    }
    if let Some(Ok(Value::Object(inner))) = text(&fields, "text").map(serde_json::from_str)
        && inner.contains_key("chosen")
    {
        fields.shift_remove("text");
        for (key, value) in inner {
            fields.entry(key).or_insert(value);
        }
        return Ok(fields);
    }
    let given = |name: &str| fields.get(name).filter(|value| !value.is_null()).cloned();
    let put = |chosen: Value, rejected: Value, beside: &[&str]| {
        let mut fields = fields.clone();
        beside.iter().for_each(|key| drop(fields.shift_remove(*key)));
        fields.insert("chosen".to_owned(), chosen);
        fields.insert("rejected".to_owned(), rejected);
        Ok(fields)
    };
    for (chosen, rejected) in [("conversations", "rejected_conversations"), ("messages", "rejected_messages")] {
        if let (Some(good), Some(bad)) = (given(chosen), given(rejected)) {
            return put(good, bad, &[chosen, rejected]);
        }
    }
    if let (Some(Value::Array(turns)), Some(bad)) = (given("messages"), given("rejected_response")) {
        let mut other = turns.clone();
        if let Some(Value::Object(last)) = other.last_mut() {
            last.insert("content".to_owned(), bad);
        }
        return put(turns.into(), other.into(), &["messages", "rejected_response"]);
    }
    if let (Some(good), Some(bad)) = (given("response"), given("rejected_response")) {
        return put(good, bad, &["response", "rejected_response"]);
    }
    if let (Some(first), Some(second)) = (given("output_1"), given("output_2")) {
        let said = |output: Value| output.get("value").cloned().unwrap_or(output);
        return match given("preference").and_then(|preference| preference.as_u64()) {
            Some(1) => put(said(first), said(second), &["output_1", "output_2"]),
            Some(2) => put(said(second), said(first), &["output_1", "output_2"]),
            _ => Err("`preference` is neither 1 nor 2, for `output_1` or `output_2`".to_owned()),
        };
    }
    Ok(fields)
}

/// A response, and the question before it if there is one.
fn read_side(
    value: &Value,
    pictures: &mut Vec<String>,
    remarks: &mut Vec<RecordNote>,
) -> Result<(Option<String>, String), String> {
    match value {
        Value::String(answer) => return Ok((None, answer.clone())),
        Value::Array(_) | Value::Object(_) => {}
        _ => return Err("must be a string or a list of turns".to_owned()),
    }
    let turns = open_turns(value, pictures, remarks)?;
    match <[Turn; 2]>::try_from(turns) {
        Ok([question, answer]) if (question.from, answer.from) == (Speaker::Human, Speaker::Gpt) => {
            Ok((Some(question.value), answer.value))
        }
        Err(turns) if turns.len() == 1 && turns[0].from == Speaker::Gpt => {
            Ok((None, turns.into_iter().map(|turn| turn.value).collect()))
        }
        Err(turns) if turns.is_empty() => Err("the conversation has no human turn".to_owned()),
        _ => Err("not one question and one answer: multiple rounds are not supported".to_owned()),
    }
}

/// A question: a string, or one message.
fn read_question(value: &Value, pictures: &mut Vec<String>, remarks: &mut Vec<RecordNote>) -> Result<String, String> {
    if let Value::String(question) = value {
        return Ok(question.clone());
    }
    match <[Turn; 1]>::try_from(open_turns(value, pictures, remarks)?) {
        Ok([question]) if question.from == Speaker::Human => Ok(question.value),
        _ => Err("not one question: multiple rounds are not supported".to_owned()),
    }
}

/// A list of turns, or a single one.
fn open_turns(value: &Value, pictures: &mut Vec<String>, remarks: &mut Vec<RecordNote>) -> Result<Vec<Turn>, String> {
    let alone = value.is_object().then(|| Value::Array(vec![value.clone()]));
    let Conversed { turns, pictures: named, remarks: made } = read_open_turns(alone.as_ref().unwrap_or(value))?;
    pictures.extend(named);
    remarks.extend(made.into_iter().filter(|remark| !remarks.contains(remark)).collect::<Vec<_>>());
    Ok(turns)
}

fn picture(
    fields: &mut Map<String, Value>,
    inline: &[String],
    remarks: &mut Vec<RecordNote>,
) -> Result<String, String> {
    let (image, remark) = take_picture(fields, inline)?;
    remarks.extend(remark);
    image.ok_or_else(|| format!("the record has no `image`{}", fields_of(fields)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn preference(value: Value) -> Result<Preference, String> {
        read_preference(RawRecord { value, remarks: Vec::new() }).map(|(preference, _)| preference)
    }

    fn description(value: Value) -> Result<Description, String> {
        read_description(RawRecord { value, remarks: Vec::new() }).map(|(description, _)| description)
    }

    #[test]
    fn published_formats_of_preference_data_are_read_alike() {
        let published = json!({
            "image": "COCO_train2014_000000000009.jpg", "image_corruption": false, "hallu_prompt": "Imagine.",
            "chosen": [{"role": "user", "content": "Explain."}, {"role": "assistant", "content": "A table."}],
            "rejected": [{"role": "user", "content": "Explain."}, {"role": "assistant", "content": "A dragon."}],
        });
        let read = preference(published).unwrap();
        assert_eq!((read.instruction.as_str(), read.rejected.as_str()), ("Explain.", "A dragon."));
        assert_eq!(read.origin, Origin { kind: OriginKind::Misled, prompt: "Imagine.".into(), altered: None });

        let llava = json!({
            "image": "a.jpg", "image_corruption": true, "hallu_prompt": "",
            "chosen": [{"from": "human", "value": "<image>\nExplain."}, {"from": "gpt", "value": "A table."}],
            "rejected": [{"from": "human", "value": "Explain."}, {"from": "gpt", "value": "A dragon."}],
        });
        let read = preference(llava).unwrap();
        assert_eq!((read.instruction.as_str(), read.origin.kind), ("Explain.", OriginKind::Corrupted));
    }

    #[test]
    fn formats_of_other_tools_are_read_alike() {
        let user = |content: Value| json!({"role": "user", "content": content});
        let assistant = |content: Value| json!({"role": "assistant", "content": content});
        let parts = |text: &str| json!([{"type": "text", "text": text}]);
        let asked = json!([{"type": "image"}, {"type": "text", "text": "Explain."}]);
        let round = |text: &str| json!([user(asked.clone()), assistant(parts(text))]);
        let system = json!({"role": "system", "content": "Be brief."});
        let mut named = json!({"chosen": round("A table."), "rejected": round("A dragon.")});
        named["chosen"][0]["content"][0] = json!({"type": "image", "image": "a.jpg"});
        for value in [
            json!({"image": "a.jpg", "prompt": "Explain.", "chosen": "A table.", "rejected": "A dragon."}),
            json!({"image": ["a.jpg"], "question": "<image>\nExplain.", "chosen": "A table.", "rejected": "A dragon."}),
            json!({"images": ["a.jpg"], "chosen": round("A table."), "rejected": round("A dragon.")}),
            json!({"images": ["a.jpg"], "prompt": "Explain.", "chosen": round("A table."), "rejected": round("A dragon.")}),
            json!({
                "images": ["a.jpg"], "prompt": [system, user(asked.clone())],
                "chosen": [assistant(parts("A table."))], "rejected": [assistant(json!("A dragon."))],
            }),
            json!({
                "images": [{"bytes": null, "path": "a.jpg"}], "prompt": [user(json!("Explain."))],
                "chosen": "A table.", "rejected": [assistant(parts("A dragon."))],
            }),
            json!({
                "images": ["a.jpg"], "conversations": [{"from": "human", "value": "<image>Explain."}],
                "chosen": {"from": "gpt", "value": "A table."}, "rejected": {"from": "gpt", "value": "A dragon."},
            }),
            named,
        ] {
            let read = preference(value.clone()).map_err(|cause| format!("{cause}: {value}")).unwrap();
            let fields = (read.image.as_str(), read.instruction.as_str(), read.chosen.as_str(), read.rejected.as_str());
            assert_eq!(fields, ("a.jpg", "Explain.", "A table.", "A dragon."), "{value}");
            assert_eq!(read.origin.kind, OriginKind::Imported);
        }
    }

    #[test]
    fn the_two_sides_are_found_under_the_names_of_published_sets() {
        let turns = |answer: &str| json!([{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": answer}]);
        let messages =
            |answer: &str| json!([{"role": "user", "content": "<image>q"}, {"role": "assistant", "content": answer}]);
        let question = json!([{"from": "human", "value": "<image>\nq"}]);
        let outputs = |preference: usize, first: &str, second: &str| {
            json!({"image": "a", "conversations": question, "output_1": {"from": "llava", "value": first},
                "output_2": {"from": "llava", "value": second}, "preference": preference})
        };
        for value in [
            json!({"image_path": "a", "text": r#"{"question": "q", "chosen": "c", "rejected": "r"}"#}),
            json!({"image": "a", "conversations": turns("c"), "rejected_conversations": turns("r")}),
            json!({"images": ["a"], "messages": messages("c"), "rejected_messages": messages("r")}),
            json!({"images": ["a"], "messages": messages("c"), "rejected_response": "r"}),
            json!({"images": ["a"], "query": "<image>q", "response": "c", "rejected_response": "r"}),
            outputs(1, "c", "r"),
            outputs(2, "r", "c"),
        ] {
            let read = preference(value.clone()).unwrap_or_else(|cause| panic!("{cause}: {value}"));
            let fields = (read.image.as_str(), read.instruction.trim(), read.chosen.as_str(), read.rejected.as_str());
            assert_eq!(fields, ("a", "q", "c", "r"), "{value}");
        }
        assert!(preference(outputs(0, "c", "r")).unwrap_err().starts_with("`preference` is neither 1 nor 2"));
        let null = json!({"image": "a", "prompt": "q", "chosen": "c", "rejected": null});
        assert_eq!(preference(null).unwrap_err(), "`rejected` is null");
        let twice = json!({"image": "a", "prompt": "<image><image>q", "chosen": "c", "rejected": "r"});
        assert_eq!(preference(twice).unwrap_err(), "the question has `<image>` 2 times, for one picture");
    }

    #[test]
    fn mistakes_in_records_are_reported() {
        let round = |question: &str| json!([{"from": "human", "value": question}, {"from": "gpt", "value": "x"}]);
        let cause = |value| preference(value).unwrap_err();
        assert_eq!(cause(json!([])), "not a record");
        assert_eq!(
            cause(json!({"chosen": round("a"), "rejected": round("a")})),
            "the record has no `image` (it has `chosen`, `rejected`)"
        );
        assert_eq!(cause(json!({"image": "a"})), "the record has no `chosen` (it has `image`)");
        assert_eq!(
            cause(json!({"image": "a", "chosen": [], "rejected": []})),
            "`chosen`: the conversation has no human turn"
        );
        let long = [round("a").as_array().unwrap().as_slice(), round("b").as_array().unwrap()].concat();
        assert_eq!(
            cause(json!({"image": "a", "chosen": long, "rejected": long})),
            "`chosen`: not one question and one answer: multiple rounds are not supported"
        );
        let differ = json!({"image": "a", "chosen": round("a"), "rejected": round("b")});
        assert_eq!(cause(differ), "`chosen` and `rejected` answer different questions");
        let differ = json!({"image": "a", "prompt": "c", "chosen": round("a"), "rejected": round("a")});
        assert_eq!(cause(differ), "`prompt` is a different question from the one that `chosen` answers");
        assert_eq!(
            cause(json!({"image": "a", "promt": "q", "chosen": "x", "rejected": "y"})),
            "the record has no `prompt` (it has `image`, `promt`, `chosen`, `rejected`)"
        );
        assert_eq!(
            cause(json!({"image": "a", "prompt": "q", "chosen": "x", "rejected": 3})),
            "`rejected`: must be a string or a list of turns"
        );
        assert_eq!(
            cause(json!({"images": ["a.png", "b.png"], "prompt": "a", "chosen": "x", "rejected": "y"})),
            "`images` names 2 pictures; a record can have only one"
        );
        assert_eq!(description(json!({"image": "a"})).unwrap_err(), "the record has no `description`");
        let read = description(json!({"image": "/d/a.jpg", "prompt": "<image>\nSay.", "description": " So. "}));
        assert_eq!(read.unwrap(), Description { image: "/d/a.jpg".into(), prompt: "Say.".into(), text: "So.".into() });
    }

    #[test]
    fn other_parts_of_a_question_are_never_dropped_silently() {
        let record = |extra: Value| {
            let mut value = json!({"image": "a", "instruction": "q", "chosen": "c", "rejected": "r"});
            value.as_object_mut().unwrap().extend(extra.as_object().cloned().unwrap());
            read_preference(RawRecord { value, remarks: Vec::new() })
        };
        let cause = |extra| record(extra).unwrap_err();
        assert!(cause(json!({"input": "more"})).starts_with("`input` belongs to the question"));
        assert!(cause(json!({"history": [["q", "a"]]})).starts_with("`history` belongs to the question"));
        assert_eq!(cause(json!({"prompt": "p"})), "`prompt` and `instruction` are different questions");
        for extra in [json!({"input": "", "history": []}), json!({"prompt": "<image>\nq"}), json!({"system": " "})] {
            let (read, remarks) = record(extra.clone()).unwrap_or_else(|cause| panic!("{cause}: {extra}"));
            assert_eq!((read.instruction.as_str(), remarks), ("q", vec![]), "{extra}");
        }
        assert_eq!(record(json!({"system": "Be brief."})).unwrap().1, [RecordNote::System]);
    }

    #[test]
    fn texts_that_are_empty_or_equal_are_remarked() {
        let remarks = |prompt: &str, chosen: &str| {
            let value = json!({"image": "a", "prompt": prompt, "chosen": chosen, "rejected": "r"});
            read_preference(RawRecord { value, remarks: Vec::new() }).unwrap().1
        };
        assert_eq!(remarks("q", " "), [RecordNote::EmptyChosen]);
        assert_eq!(remarks("<image>\n", "c"), [RecordNote::EmptyPrompt]);
        assert_eq!(remarks("q", "r"), [RecordNote::EqualResponses]);
        assert_eq!(remarks("q", "c"), []);
    }

    proptest! {
        #[test]
        fn any_text_is_a_record_or_an_error(text in r#"[\[\]{}",:a-z0-9 ]{0,60}"#) {
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                let _ = preference(value.clone());
                let _ = description(value);
            }
        }

        #[test]
        fn any_sides_are_read_or_refused(
            prompt in prop::option::of("[a<image>]{0,9}"),
            sides in prop::collection::vec(prop::collection::vec(("user|assistant|system|x", "[a<image>]{0,9}", any::<bool>()), 0..4), 2),
        ) {
            let message = |(role, text, part): &(String, String, bool)| {
                let content = if *part { json!([{"type": "image"}, {"type": "text", "text": text}]) } else { json!(text) };
                json!({"role": role, "content": content})
            };
            let side = |messages: &Vec<_>| Value::from(messages.iter().map(message).collect::<Vec<_>>());
            let mut record = json!({"image": "a", "chosen": side(&sides[0]), "rejected": side(&sides[1])});
            if let Some(prompt) = prompt {
                record["prompt"] = json!(prompt);
            }
            let _ = preference(record);
        }
    }
}
