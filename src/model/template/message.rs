//! What a chat template renders, and what comes out: messages, and a text of which it is known who wrote what.

use std::ops::Range;

use crate::artifact::{Speaker, Turn};
use crate::model::ModelError;

/// The placeholder for a picture in data sets.
pub const PLACEHOLDER: &str = "<image>";

/// One turn, its picture distinguished from its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub from: Speaker,
    /// The text, without the placeholder.
    pub text: String,
    /// Whether the picture is shown with this turn; it comes before the text.
    pub picture: bool,
}

/// A rendered conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// What people and models wrote: there, no special token is recognized.
    pub plain: Vec<Range<usize>>,
    /// What a model is trained to write: answers, each with what closes it.
    pub answers: Vec<Range<usize>>,
}

impl Rendered {
    /// Replaces every `token` that nobody wrote by the next of `contents`, as long as there are any.
    pub fn expand<'a>(&mut self, token: &str, contents: impl IntoIterator<Item = &'a str>) {
        let mut from = 0;
        for text in contents {
            let is_written = |at: usize| self.plain.iter().any(|range| range.contains(&at));
            let found = self.text[from..].match_indices(token).map(|(at, _)| from + at).find(|at| !is_written(*at));
            let Some(at) = found else { return };
            self.text.replace_range(at..at + token.len(), text);
            let shift = |end: &mut usize| {
                if *end > at {
                    *end = *end + text.len() - token.len();
                }
            };
            for range in self.plain.iter_mut().chain(&mut self.answers) {
                shift(&mut range.start);
                shift(&mut range.end);
            }
            from = at + text.len();
        }
    }
}

/// Tells the picture apart from the text of `turns`, as LLaVA's `preprocess_multimodal` does: a turn that has the
/// placeholder anywhere gets it at the start, its text trimmed; where no turn has it, the first one gets it.
///
/// # Errors
/// When the turns do not alternate from a human one, when there is a placeholder without a picture, or more than one.
pub fn messages(turns: &[Turn], picture: bool) -> Result<Vec<Message>, ModelError> {
    if turns.is_empty() {
        return Err(ModelError::new("a conversation has no turn"));
    }
    for (index, turn) in turns.iter().enumerate() {
        if (turn.from == Speaker::Human) != (index % 2 == 0) {
            return Err(ModelError::new(format!(
                "turn {} of a conversation is not of the {}: they alternate, and a human one is the first",
                index + 1,
                if index % 2 == 0 { "human" } else { "model" }
            )));
        }
    }
    let humans = || turns.iter().filter(|turn| turn.from == Speaker::Human);
    let count: usize = humans().map(|turn| turn.value.matches(PLACEHOLDER).count()).sum();
    check_count(count, picture)?;
    Ok(turns
        .iter()
        .enumerate()
        .map(|(index, turn)| {
            let human = turn.from == Speaker::Human;
            let placed = human && turn.value.contains(PLACEHOLDER);
            let text =
                if placed { turn.value.replacen(PLACEHOLDER, "", 1).trim().to_owned() } else { turn.value.clone() };
            Message { from: turn.from, text, picture: placed || (picture && count == 0 && index == 0) }
        })
        .collect())
}

/// Whether `count` placeholders fit a prompt with or without a picture; with none, [`messages`] adds one at the start.
fn check_count(count: usize, picture: bool) -> Result<(), ModelError> {
    match (picture, count) {
        (false, 0) | (true, 0 | 1) => Ok(()),
        (false, _) => Err(ModelError::new(format!("the text contains `{PLACEHOLDER}`, but there is no picture"))
            .help(format!("add a picture, or remove `{PLACEHOLDER}` from the text"))),
        (true, _) => Err(ModelError::new(format!("the text contains `{PLACEHOLDER}` {count} times, for one picture"))
            .help(format!("keep one `{PLACEHOLDER}`, or none to have it added at the start"))),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn turns(contents: &[&str]) -> Vec<Turn> {
        let from = |index: usize| if index.is_multiple_of(2) { Speaker::Human } else { Speaker::Gpt };
        contents.iter().enumerate().map(|(i, text)| Turn { from: from(i), value: (*text).to_owned() }).collect()
    }

    #[test]
    fn a_placeholder_too_many_is_an_error() {
        let error = |contents: &[&str], picture| messages(&turns(contents), picture).unwrap_err().message;
        assert_eq!(error(&["a <image>"], false), "the text contains `<image>`, but there is no picture");
        assert!(error(&["<image> <image>"], true).starts_with("the text contains `<image>` 2 times"));
        // In an answer it is plain text.
        assert!(messages(&turns(&["a", "<image>"]), false).is_ok());
    }

    #[test]
    fn turns_alternate_from_a_human_one() {
        let turn = |from| Turn { from, value: "a".to_owned() };
        assert!(messages(&[turn(Speaker::Gpt)], false).is_err());
        assert!(messages(&[turn(Speaker::Human), turn(Speaker::Human)], false).is_err());
        assert!(messages(&[], false).is_err());
    }

    #[test]
    fn a_placeholder_that_was_written_is_not_expanded_and_ranges_move_with_the_text() {
        let mut rendered = Rendered {
            text: "[<image>] what is <image>? a cat".to_owned(),
            plain: vec![10..26],
            answers: vec![26..32],
        };
        rendered.expand("<image>", ["<one><image><two>"]);
        assert_eq!(rendered.text, "[<one><image><two>] what is <image>? a cat");
        assert_eq!(rendered.text[rendered.plain[0].clone()], *"what is <image>?");
        assert_eq!(rendered.text[rendered.answers[0].clone()], *" a cat");
    }
}
