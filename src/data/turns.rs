//! Conversations as data files write them → turns: `from` and `value` (LLaVA) or `role` and `content` (preference data).

use serde_json::Value;

use crate::artifact::{Speaker, Turn};

/// What stands for the picture in a turn.
pub const IMAGE: &str = "<image>";

/// The turns of `value`: a human one first (a leading model turn is dropped, as LLaVA drops it), then by turns.
///
/// # Errors
/// What is wrong with them, with the number of the turn.
pub fn read_turns(value: &Value) -> Result<Vec<Turn>, String> {
    let list = value.as_array().ok_or("the conversation is not a list of turns")?;
    let mut turns = Vec::with_capacity(list.len());
    for (index, value) in list.iter().enumerate() {
        turns.push(read_turn(value).map_err(|cause| format!("turn {}: {cause}", index + 1))?);
    }
    if turns.first().is_some_and(|turn| turn.from == Speaker::Gpt) {
        turns.remove(0);
    }
    check_order_after(&turns, list.len() - turns.len())?;
    Ok(turns)
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
        Some(0) if dropped == 0 => Err("turn 1 is not a human one".to_owned()),
        Some(index) => Err(format!("turn {} is the same speaker's as the one before", index + dropped + 1)),
        None if turns.is_empty() => Err("the conversation has no human turn".to_owned()),
        None => Ok(()),
    }
}

fn read_turn(value: &Value) -> Result<Turn, String> {
    let text = |names: [&str; 2]| names.into_iter().find_map(|name| value.get(name)).and_then(Value::as_str);
    let speaker = text(["from", "role"]).ok_or("it has neither `from` nor `role`")?;
    let said = text(["value", "content"]).ok_or("it has neither `value` nor `content`")?;
    let from = match speaker {
        "human" | "user" => Speaker::Human,
        "gpt" | "assistant" => Speaker::Gpt,
        other => return Err(format!("`{other}` is neither `human` nor `gpt`")),
    };
    Ok(Turn { from, value: said.to_owned() })
}

/// Puts the placeholder in front of the first turn when there is a picture and no human turn names it. In an answer it
/// is text like any other.
///
/// # Errors
/// When a human turn names a picture that is not there, or the one that is there is named twice.
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
    use serde_json::json;

    #[test]
    fn both_forms_of_turns_are_read() {
        let llava = json!([{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]);
        let preference = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]);
        assert_eq!(read_turns(&llava).unwrap(), read_turns(&preference).unwrap());
    }

    #[test]
    fn a_leading_model_turn_is_dropped() {
        let turns =
            json!([{"from": "gpt", "value": "hello"}, {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]);
        let turns = read_turns(&turns).unwrap();
        assert_eq!((turns.len(), turns[0].value.as_str()), (2, "a"));
    }

    #[test]
    fn broken_conversations_name_the_turn() {
        let cause = |value: Value| read_turns(&value).unwrap_err();
        assert_eq!(cause(json!("a")), "the conversation is not a list of turns");
        assert_eq!(cause(json!([])), "the conversation has no human turn");
        assert_eq!(cause(json!([{"from": "human", "value": 3}])), "turn 1: it has neither `value` nor `content`");
        assert_eq!(cause(json!([{"from": "system", "value": ""}])), "turn 1: `system` is neither `human` nor `gpt`");
        let twice = json!([{"from": "human", "value": "a"}, {"from": "human", "value": "b"}]);
        assert_eq!(cause(twice), "turn 2 is the same speaker's as the one before");
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
}
