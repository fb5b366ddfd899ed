//! Conversations as data files write them → turns: `from` and `value` (LLaVA, ShareGPT) or `role` and `content` (chat
//! messages, whose content may be a list of parts).

use serde_json::Value;

use super::fields::{is_picture_key, names, says};
use super::record_notes::RecordNote;
use crate::artifact::{Speaker, Turn};

/// The placeholder for the picture in a turn.
pub const IMAGE: &str = "<image>";

/// A conversation that was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversed {
    /// A human turn first, then by turns. The last one is an answer, unless there is none.
    pub turns: Vec<Turn>,
    /// The pictures that its parts name.
    pub pictures: Vec<String>,
    /// What was left out, and what is worth knowing.
    pub remarks: Vec<RecordNote>,
}

/// Reads the conversation `value`: a human turn first, then by turns, an answer last. What stands before the first
/// question (a system message, an answer) and a question at the end are left out, as LLaVA leaves them out of training.
///
/// # Errors
/// What is wrong with it, with the number of the turn.
pub fn read_turns(value: &Value) -> Result<Conversed, String> {
    let mut read = read_open_turns(value)?;
    let Conversed { turns, remarks, .. } = &mut read;
    if turns.first().is_some_and(|turn| turn.from == Speaker::Gpt) {
        turns.remove(0);
        remarks.push(RecordNote::LeadingAnswer);
    }
    let dropped = value.as_array().map_or(0, Vec::len) - turns.len();
    check_order_after(turns, dropped)?;
    remarks.extend(end_with_an_answer(turns));
    Ok(read)
}

/// Reads turns of any order, without the system messages in front.
///
/// # Errors
/// What is wrong with one, with its number.
pub fn read_open_turns(value: &Value) -> Result<Conversed, String> {
    let list = value.as_array().ok_or("the conversation is not a list of turns")?;
    let mut read = Conversed::default();
    for (index, value) in list.iter().enumerate() {
        let named = |cause| format!("turn {}: {cause}", index + 1);
        let (speaker, value, ignored) = read_turn(value, &mut read.pictures).map_err(named)?;
        if ignored && !read.remarks.contains(&RecordNote::Weighted) {
            read.remarks.push(RecordNote::Weighted);
        }
        match speaker {
            Role::Speaker(from) => read.turns.push(Turn { from, value }),
            Role::System if !read.turns.is_empty() => {
                return Err(named("a system message can only come first".to_owned()));
            }
            Role::System if !read.remarks.contains(&RecordNote::System) && !value.trim().is_empty() => {
                read.remarks.push(RecordNote::System);
            }
            Role::System => {}
        }
    }
    Ok(read)
}

/// Takes a question at the end out of `turns`, unless there is no answer at all; returns a note on it.
pub fn end_with_an_answer(turns: &mut Vec<Turn>) -> Option<RecordNote> {
    let answered = turns.iter().any(|turn| turn.from == Speaker::Gpt);
    match turns.last() {
        Some(last) if last.from == Speaker::Human && answered => {
            turns.pop();
            Some(RecordNote::TrailingQuestion)
        }
        _ if !answered => Some(RecordNote::Unanswered),
        _ => {
            let empty = turns.iter().any(|turn| turn.from == Speaker::Gpt && turn.value.trim().is_empty());
            empty.then_some(RecordNote::EmptyAnswer)
        }
    }
}

/// Whether there is an answer to train on.
pub fn is_answered(turns: &[Turn]) -> bool {
    turns.iter().any(|turn| turn.from == Speaker::Gpt)
}

/// Whether there is an answer that is not empty: from others nothing is learned.
pub fn says_something(turns: &[Turn]) -> bool {
    turns.iter().any(|turn| turn.from == Speaker::Gpt && !turn.value.trim().is_empty())
}

/// Whether a human turn comes first, then the speakers by turns.
///
/// # Errors
/// The turn that is out of order.
pub fn check_order(turns: &[Turn]) -> Result<(), String> {
    check_order_after(turns, 0)
}

fn check_order_after(turns: &[Turn], dropped: usize) -> Result<(), String> {
    let expected = [Speaker::Human, Speaker::Gpt].into_iter().cycle();
    match turns.iter().zip(expected).position(|(turn, expected)| turn.from != expected) {
        Some(0) if dropped == 0 => Err("turn 1 is not by the human".to_owned()),
        Some(index) => Err(format!("turn {} has the same speaker as the one before", index + dropped + 1)),
        None if turns.is_empty() => Err("the conversation has no human turn".to_owned()),
        None => Ok(()),
    }
}

enum Role {
    Speaker(Speaker),
    System,
}

/// The speaker, the text, and whether it is an answer that is marked as not to be trained on.
fn read_turn(value: &Value, pictures: &mut Vec<String>) -> Result<(Role, String, bool), String> {
    let given = |name: &str| value.get(name).filter(|value| !value.is_null());
    let field = |[name, other]: [&str; 2]| match (given(name), given(other)) {
        (Some(one), Some(two)) if name == "value" && one != two => Err(format!("its `{name}` and `{other}` differ")),
        (one, two) => {
            one.or(two).ok_or_else(|| match [name, other].into_iter().find(|name| value.get(*name).is_some()) {
                Some(name) => format!("its `{name}` is null"),
                None => format!("it has neither `{name}` nor `{other}`"),
            })
        }
    };
    let speaker = field(["from", "role"])?.as_str().ok_or("it has neither `from` nor `role`")?;
    if let Some(name) = ["tool_calls", "function_call"].into_iter().find(|name| given(name).is_some_and(says)) {
        return Err(format!("it calls a tool (`{name}`); only text and pictures are supported"));
    }
    let said = field(["value", "content"])?;
    let role = match speaker.to_ascii_lowercase().as_str() {
        "human" | "user" => Role::Speaker(Speaker::Human),
        "gpt" | "assistant" | "chatgpt" | "model" | "bot" => Role::Speaker(Speaker::Gpt),
        "system" => Role::System,
        _ => return Err(format!("`{speaker}` is neither `human` (`user`) nor `gpt` (`assistant`)")),
    };
    let before = pictures.len();
    let (mut text, mut images) = read_content(said, pictures)?;
    for (key, named) in turn_pictures(value)? {
        // A picture beside the text is the one that a placeholder in the text refers to; without one, it comes first.
        if images == 0 && !text.contains(IMAGE) {
            text = if text.is_empty() { IMAGE.to_owned() } else { format!("{IMAGE}\n{text}") };
        }
        images += 1;
        if named.len() > 1 {
            return Err(format!("`{key}` names {} pictures; a record can have only one", named.len()));
        }
        pictures.extend(named);
    }
    if images > 0 && !matches!(role, Role::Speaker(Speaker::Human)) {
        pictures.truncate(before);
        return Err("a picture is in a turn other than a question".to_owned());
    }
    let ignored = matches!(role, Role::Speaker(Speaker::Gpt))
        && NOT_TRAINED
            .iter()
            .any(|name| given(name).is_some_and(|value| *value == Value::Bool(false) || value.as_f64() == Some(0.0)));
    Ok((role, text, ignored))
}

/// Fields of an answer by which other tools leave it out of training, when they are false or 0.
const NOT_TRAINED: [&str; 6] = ["weight", "loss", "loss_weight", "train", "trainable", "training"];

/// The pictures that a turn names beside its text, by their keys.
fn turn_pictures(turn: &Value) -> Result<Vec<(&str, Vec<String>)>, String> {
    let fields = turn.as_object().into_iter().flatten();
    let named = fields.filter(|(key, value)| is_picture_key(key) && says(value)).map(|(key, value)| {
        let named = names(value).map_err(|cause| format!("`{key}` {cause}"))?;
        Ok((key.as_str(), named))
    });
    named.collect()
}

/// The text of a turn, with the placeholder for each picture part; and how many of these there are.
fn read_content(value: &Value, pictures: &mut Vec<String>) -> Result<(String, usize), String> {
    let parts = match value {
        Value::String(text) => return Ok((text.clone(), 0)),
        Value::Array(parts) => parts.as_slice(),
        Value::Object(_) => std::slice::from_ref(value),
        _ => return Err(format!("its content is `{value}`, not a string")),
    };
    let (mut text, mut images, mut after_image) = (String::new(), 0, false);
    for part in parts {
        match read_part(part)? {
            Part::Nothing => {}
            Part::Text(more) => {
                if after_image && !more.is_empty() && !more.starts_with('\n') {
                    text.push('\n');
                }
                after_image &= more.is_empty();
                text += more;
            }
            Part::Picture(names) => {
                if !text.is_empty() && !text.ends_with('\n') {
                    text.push('\n');
                }
                text += IMAGE;
                images += 1;
                after_image = true;
                pictures.extend(names);
            }
        }
    }
    Ok((text, images))
}

enum Part<'a> {
    Text(&'a str),
    Picture(Vec<String>),
    Nothing,
}

fn read_part(part: &Value) -> Result<Part<'_>, String> {
    let fields = match part {
        Value::Null => return Ok(Part::Nothing),
        Value::String(text) => return Ok(Part::Text(text)),
        Value::Object(fields) => fields,
        _ => return Err("one of its parts is neither text nor a picture".to_owned()),
    };
    let given = |names: &[&str]| names.iter().find_map(|name| fields.get(*name)).filter(|value| !value.is_null());
    let kind = match given(&["type"]).and_then(Value::as_str) {
        Some(kind) => kind,
        None if fields.contains_key("text") => "text",
        None if fields.contains_key("image") || fields.contains_key("image_url") => "image",
        None => return Err("one of its parts has no `type`".to_owned()),
    };
    match kind {
        "text" | "input_text" => {
            let text = given(&["text", "content", "value"]).and_then(Value::as_str);
            text.map(Part::Text).ok_or("one of its parts has no `text`".to_owned())
        }
        "image" | "image_url" | "input_image" => {
            let name = given(&["image", "image_url", "path", "url", "file_name"]);
            let names = name.map(names).transpose().map_err(|cause| format!("one of its pictures {cause}"))?;
            Ok(Part::Picture(names.unwrap_or_default()))
        }
        other => Err(format!("one of its parts has type `{other}`; only text and pictures are supported")),
    }
}

/// Adds the placeholder at the start of the first turn when there is a picture and no human turn names it. In an answer
/// it is text like any other.
///
/// # Errors
/// When a human turn has a placeholder without a picture, or the picture's placeholder twice.
pub fn place_image(turns: &mut [Turn], picture: bool) -> Result<(), String> {
    let humans = turns.iter().filter(|turn| turn.from == Speaker::Human);
    let count: usize = humans.map(|turn| turn.value.matches(IMAGE).count()).sum();
    match (turns.first_mut(), picture, count) {
        (Some(_), false, 1..) => Err(format!("a turn has `{IMAGE}`, but the record has no picture")),
        (Some(_), true, 2..) => Err(format!("the conversation has `{IMAGE}` {count} times, for one picture")),
        (Some(first), true, 0) => {
            first.value = format!("{IMAGE}\n{}", first.value);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// `text` without the placeholder and the line break that sets it apart.
pub fn without_image(text: &str) -> String {
    text.replace(&format!("{IMAGE}\n"), "").replace(&format!("\n{IMAGE}"), "").replace(IMAGE, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn turn(from: &str, value: &str) -> Value {
        json!({"from": from, "value": value})
    }

    fn said(value: Value) -> Vec<(Speaker, String)> {
        read_turns(&value).unwrap().turns.into_iter().map(|turn| (turn.from, turn.value)).collect()
    }

    #[test]
    fn all_forms_of_turns_are_read_alike() {
        let llava = json!([turn("human", "a"), turn("gpt", "b")]);
        let preference = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]);
        let parts = json!([
            {"role": "User", "content": [{"type": "text", "text": "a"}]},
            {"role": "Assistant", "content": [{"type": "text", "text": "b", "index": null}]},
        ]);
        assert_eq!(said(llava.clone()), said(preference));
        assert_eq!(said(llava.clone()), said(parts));
        assert_eq!(said(llava), said(json!([turn("user", "a"), turn("chatgpt", "b")])));
    }

    #[test]
    fn picture_parts_become_the_placeholder_and_name_the_picture() {
        let content = |parts: Value| {
            let read = read_turns(&json!([{"role": "user", "content": parts}, turn("gpt", "b")]))?;
            Ok::<_, String>((read.turns[0].value.clone(), read.pictures))
        };
        let text = json!({"type": "text", "text": "What?"});
        let image = json!({"type": "image"});
        assert_eq!(content(json!([image, text])), Ok(("<image>\nWhat?".to_owned(), vec![])));
        assert_eq!(content(json!([text, image])), Ok(("What?\n<image>".to_owned(), vec![])));
        assert_eq!(content(json!([text, image, text])), Ok(("What?\n<image>\nWhat?".to_owned(), vec![])));
        assert_eq!(
            content(json!([{"type": "image", "text": null}, text, text])),
            Ok(("<image>\nWhat?What?".to_owned(), vec![]))
        );
        for named in [
            json!({"type": "image", "image": "a.png"}),
            json!({"type": "image", "path": "a.png"}),
            json!({"type": "image_url", "image_url": {"url": "file://a.png"}}),
            json!({"image": "a.png"}),
        ] {
            assert_eq!(content(json!([named, text])), Ok(("<image>\nWhat?".to_owned(), vec!["a.png".to_owned()])));
        }
        assert_eq!(
            content(json!([{"type": "video"}])).unwrap_err(),
            "turn 1: one of its parts has type `video`; only text and pictures are supported"
        );
        assert!(content(json!([{"type": "image", "url": "https://a.org/b.png"}])).unwrap_err().contains("is a URL"));
        let answer = json!([turn("human", "a"), {"from": "gpt", "value": [image]}]);
        assert_eq!(read_turns(&answer).unwrap_err(), "turn 2: a picture is in a turn other than a question");
    }

    #[test]
    fn what_is_in_front_of_the_first_question_and_behind_the_last_answer_is_left_out_and_reported() {
        let rounds = [turn("human", "a"), turn("gpt", "b")];
        let read = |before: &[Value], after: &[Value]| {
            let read = read_turns(&Value::from([before, &rounds, after].concat())).unwrap();
            assert_eq!(read.turns, read_turns(&Value::from(rounds.to_vec())).unwrap().turns);
            read.remarks
        };
        assert_eq!(read(&[turn("gpt", "hello")], &[]), [RecordNote::LeadingAnswer]);
        assert_eq!(read(&[turn("system", "Be brief.")], &[]), [RecordNote::System]);
        assert_eq!(read(&[turn("system", "")], &[]), []);
        assert_eq!(read(&[], &[turn("human", "c")]), [RecordNote::TrailingQuestion]);
        assert_eq!(
            read(&[turn("system", "Be brief."), turn("gpt", "hello")], &[turn("human", "c")]),
            [RecordNote::System, RecordNote::LeadingAnswer, RecordNote::TrailingQuestion]
        );
        let open = read_turns(&json!([turn("human", "a")])).unwrap();
        assert_eq!((open.turns.len(), open.remarks), (1, vec![RecordNote::Unanswered]));
        let silent = read_turns(&json!([turn("human", "a"), turn("gpt", " ")])).unwrap();
        assert_eq!(silent.remarks, [RecordNote::EmptyAnswer]);
    }

    #[test]
    fn a_picture_beside_the_text_of_a_turn_is_not_lost() {
        let content = |user: Value| {
            let read = read_turns(&json!([user, turn("gpt", "b")]))?;
            Ok::<_, String>((read.turns[0].value.clone(), read.pictures))
        };
        let one = |text: &str| Ok((text.to_owned(), vec!["a.png".to_owned()]));
        assert_eq!(content(json!({"role": "user", "content": "a", "images": ["a.png"]})), one("<image>\na"));
        assert_eq!(content(json!({"from": "human", "value": "a", "image": "a.png"})), one("<image>\na"));
        assert_eq!(content(json!({"from": "human", "value": "a\n<image>", "image_path": "a.png"})), one("a\n<image>"));
        let part = json!([{"type": "image"}, {"type": "text", "text": "a"}]);
        assert_eq!(content(json!({"role": "user", "content": part, "images": ["a.png"]})), one("<image>\na"));
        let none = Ok(("a".to_owned(), vec![]));
        assert_eq!(content(json!({"role": "user", "content": "a", "images": [], "image": null})), none);
        let cause = |user| content(user).unwrap_err();
        assert_eq!(
            cause(json!({"role": "user", "content": "a", "images": ["a.png", "b.png"]})),
            "turn 1: `images` names 2 pictures; a record can have only one"
        );
        assert!(
            cause(json!({"role": "user", "content": "a", "image": "data:image/png;base64,"}))
                .contains("`image` contains")
        );
        let answer = json!([turn("human", "a"), {"from": "gpt", "value": "b", "image": "a.png"}]);
        assert_eq!(read_turns(&answer).unwrap_err(), "turn 2: a picture is in a turn other than a question");
    }

    #[test]
    fn answers_that_are_marked_as_not_to_be_trained_on_are_reported_and_calls_of_tools_are_refused() {
        let read = |extra: Value| {
            let mut answer = json!({"from": "gpt", "value": "b"});
            answer.as_object_mut().unwrap().extend(extra.as_object().cloned().unwrap());
            read_turns(&json!([turn("human", "a"), answer])).map(|read| read.remarks)
        };
        for extra in [json!({"weight": 0}), json!({"loss": false}), json!({"train": false}), json!({"loss": 0.0})] {
            assert_eq!(read(extra.clone()), Ok(vec![RecordNote::Weighted]), "{extra}");
        }
        for extra in [json!({"weight": 1}), json!({"loss": true}), json!({"weight": null}), json!({"tool_calls": []})] {
            assert_eq!(read(extra.clone()), Ok(vec![]), "{extra}");
        }
        assert_eq!(
            read(json!({"tool_calls": [{"id": "x"}]})).unwrap_err(),
            "turn 2: it calls a tool (`tool_calls`); only text and pictures are supported"
        );
        assert_eq!(read(json!({"content": "c"})).unwrap_err(), "turn 2: its `value` and `content` differ");
        assert_eq!(read(json!({"content": "b"})), Ok(vec![]));
        let other = json!([{"role": "user", "value": null, "content": "a"}, turn("gpt", "b")]);
        assert_eq!(read_turns(&other).unwrap().turns[0].value, "a");
    }

    #[test]
    fn broken_conversations_name_the_turn() {
        let cause = |value: Value| read_turns(&value).unwrap_err();
        assert_eq!(cause(json!("a")), "the conversation is not a list of turns");
        assert_eq!(cause(json!([])), "the conversation has no human turn");
        assert_eq!(cause(json!([turn("gpt", "a")])), "the conversation has no human turn");
        assert_eq!(cause(json!([{"from": "human", "value": 3}])), "turn 1: its content is `3`, not a string");
        assert_eq!(cause(json!([{"from": "human", "value": null}])), "turn 1: its `value` is null");
        assert_eq!(
            cause(json!([turn("tool", "")])),
            "turn 1: `tool` is neither `human` (`user`) nor `gpt` (`assistant`)"
        );
        assert_eq!(
            cause(json!([turn("human", "a"), turn("system", "b")])),
            "turn 2: a system message can only come first"
        );
        let twice = json!([turn("human", "a"), turn("human", "b")]);
        assert_eq!(cause(twice), "turn 2 has the same speaker as the one before");
        let twice = json!([turn("system", "s"), turn("human", "a"), turn("human", "b")]);
        assert_eq!(cause(twice), "turn 3 has the same speaker as the one before");
    }

    #[test]
    fn the_placeholder_is_put_where_it_is_missing() {
        let turn = |value: &str| vec![Turn { from: Speaker::Human, value: value.to_owned() }];
        let placed = |value: &str, picture| {
            let mut turns = turn(value);
            place_image(&mut turns, picture).map(|()| turns[0].value.clone())
        };
        assert_eq!(placed("What is it?", true), Ok("<image>\nWhat is it?".to_owned()));
        assert_eq!(placed("What is it?\n<image>", true), Ok("What is it?\n<image>".to_owned()));
        assert_eq!(placed("What is it?", false), Ok("What is it?".to_owned()));
        assert!(placed("<image>\nWhat is it?", false).is_err());
        let twice = placed("<image>\nWhat is it? <image>", true).unwrap_err();
        assert_eq!(twice, "the conversation has `<image>` 2 times, for one picture");
        let answer = Turn { from: Speaker::Gpt, value: "An <image>.".to_owned() };
        let mut turns = [turn("What is it?"), vec![answer]].concat();
        assert_eq!((place_image(&mut turns, false), turns[0].value.as_str()), (Ok(()), "What is it?"));
        assert_eq!((place_image(&mut turns, true), turns[0].value.as_str()), (Ok(()), "<image>\nWhat is it?"));
        assert_eq!(without_image("<image>\nWhat is it?"), "What is it?");
        assert_eq!(without_image("What is it?\n<image>"), "What is it?");
    }

    proptest! {
        #[test]
        fn any_turns_are_read_or_refused(
            turns in prop::collection::vec(("human|gpt|system|user|x", prop_oneof![Just(0), 1..6], "[a-z<>]{0,4}"), 0..6)
        ) {
            let content = |form: i32, text: String| match form {
                0 | 1 => json!(text),
                2 => json!([{"type": "text", "text": text}]),
                3 => json!([{"type": "image"}, {"type": "text", "text": text}, null]),
                4 => json!([{"type": text}]),
                _ => json!({"type": "image", "path": text}),
            };
            let turns: Vec<Value> = turns.into_iter().map(|(from, form, text)| json!({"from": from, "value": content(form, text)})).collect();
            if let Ok(read) = read_turns(&Value::from(turns)) {
                prop_assert_eq!(check_order(&read.turns), Ok(()));
                prop_assert!(read.turns.last().unwrap().from == Speaker::Gpt || !is_answered(&read.turns));
            }
        }
    }
}
