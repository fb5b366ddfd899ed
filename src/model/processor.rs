//! A conversation as a model reads it: token ids, the place of the picture, and which tokens carry the loss.
//!
//! One implementation serves generation, scoring, DPO and SFT. A sequence holds the picture as one token; whoever runs
//! the model puts the picture's rows in its place. This module does not know what the rows are.

use std::ops::Range;
use std::path::Path;

use super::ModelError;
use super::template::{Message, Template, messages};
use super::tokenizer::{PLACEHOLDER, Tokenizer};
use crate::artifact::{Speaker, Turn};

/// A tokenised conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// The ids, the picture's placeholder being one of them.
    pub tokens: Vec<u32>,
    /// Where among `tokens` the placeholder is; the picture's rows replace it.
    pub picture: Option<usize>,
    /// For every token whether it is part of an answer or closes one: what a model is trained on and what a score sums.
    pub answer: Vec<bool>,
    /// How many tokens were cut off the end.
    pub cut: usize,
}

impl Sequence {
    /// How many positions the model sees when the picture takes `rows`.
    pub fn positions(&self, rows: usize) -> usize {
        if self.picture.is_some() { self.tokens.len() - 1 + rows } else { self.tokens.len() }
    }

    /// The position of token `index` when the picture takes `rows`.
    pub fn position(&self, index: usize, rows: usize) -> usize {
        if self.picture.is_some_and(|place| place < index) { index + rows - 1 } else { index }
    }

    /// The tokens before and after the picture; all of them are before where there is none.
    pub fn around_picture(&self) -> (&[u32], &[u32]) {
        match self.picture {
            Some(place) => (&self.tokens[..place], &self.tokens[place + 1..]),
            None => (&self.tokens, &[]),
        }
    }

    /// The indices of the tokens of answers.
    pub fn answers(&self) -> impl Iterator<Item = usize> {
        self.answer.iter().enumerate().filter(|(_, answer)| **answer).map(|(index, _)| index)
    }

    /// Cuts to `max_length` tokens, a picture being one. What goes is the end of an answer, with the turns after it.
    ///
    /// # Errors
    /// When nothing of an answer would be left.
    pub fn cut_to(mut self, max_length: usize) -> Result<Self, ModelError> {
        if self.tokens.len() <= max_length {
            return Ok(self);
        }
        let Some(last) = self.answer[..max_length].iter().rposition(|answer| *answer) else {
            let needed = self.answer.iter().position(|answer| *answer).unwrap_or(self.tokens.len());
            return Err(ModelError::new(format!(
                "the prompt takes {needed} tokens, a picture being one, and leaves no room for an answer within \
                 `max_length` {max_length}, which cuts answers only"
            )));
        };
        self.cut = self.tokens.len() - (last + 1);
        self.tokens.truncate(last + 1);
        self.answer.truncate(last + 1);
        Ok(self)
    }
}

/// How a checkpoint writes and reads text: its tokenizer and a template.
pub struct Scribe {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The template.
    pub template: Template,
    /// How many tokens the model knows.
    pub vocabulary: usize,
    /// What is odd about the checkpoint's files, for people.
    pub notes: Vec<String>,
}

impl Scribe {
    /// The tokenizer of the model in `folder`, and the template called `template` or the family's own. `image` is the
    /// id of `<image>`, and `vocabulary` how many tokens the model knows.
    ///
    /// # Errors
    /// See [`Tokenizer::read`] and [`Template::named`]; also when the tokenizer lacks a special token that the template
    /// is made of.
    pub fn read(folder: &Path, image: u32, vocabulary: usize, template: Option<&str>) -> Result<Self, ModelError> {
        let tokenizer = Tokenizer::read(folder, image)?;
        let name = template.map_or_else(|| Template::default_name(folder), Ok)?;
        let template = Template::named(name, folder)?;
        if let Some(missing) = template.needs().iter().find(|text| tokenizer.special(text).is_none()) {
            return Err(ModelError::new(format!(
                "{}: the template `{}` needs the special token `{missing}`, which this tokenizer does not have",
                folder.display(),
                template.name()
            ))
            .help("name another with `template`, for example `checkpoint`"));
        }
        let notes = tokenizer.contradiction().map(str::to_owned).into_iter().collect();
        Ok(Self { tokenizer, template, vocabulary, notes })
    }

    /// A conversation that ends with a human turn: what a model goes on from.
    ///
    /// # Errors
    /// When the turns do not fit the template or the picture.
    pub fn prompt(&self, turns: &[Turn], picture: bool) -> Result<Sequence, ModelError> {
        if turns.last().is_some_and(|turn| turn.from == Speaker::Gpt) {
            return Err(ModelError::new("a prompt ends with a human turn"));
        }
        self.tokenise(&self.messages(turns, picture)?, picture)
    }

    /// A conversation with its answers closed: what a model is trained on or scored by.
    ///
    /// # Errors
    /// When the turns do not fit the template or the picture.
    pub fn conversation(&self, turns: &[Turn], picture: bool) -> Result<Sequence, ModelError> {
        if turns.last().is_some_and(|turn| turn.from == Speaker::Human) {
            return Err(ModelError::new("the last turn of a conversation has no answer"));
        }
        self.tokenise(&self.messages(turns, picture)?, picture)
    }

    /// One round: `prompt` and, where it is known, the response to it.
    ///
    /// # Errors
    /// When the texts do not fit the template or the picture.
    pub fn round(&self, prompt: &str, response: Option<&str>, picture: bool) -> Result<Sequence, ModelError> {
        self.tokenise(&self.round_messages(prompt, response, picture)?, picture)
    }

    /// The text of an open round, as the model reads it.
    ///
    /// # Errors
    /// When the text does not fit the template or the picture.
    pub fn rendered(&self, prompt: &str, picture: bool) -> Result<String, ModelError> {
        Ok(self.template.render(&self.round_messages(prompt, None, picture)?)?.text)
    }

    fn round_messages(&self, prompt: &str, response: Option<&str>, picture: bool) -> Result<Vec<Message>, ModelError> {
        let turns: Vec<Turn> = std::iter::once((Speaker::Human, prompt))
            .chain(response.map(|text| (Speaker::Gpt, text)))
            .map(|(from, value)| Turn { from, value: value.to_owned() })
            .collect();
        self.messages(&turns, picture)
    }

    /// With `none` a text is left as it is: where its placeholder stands is for whoever rendered it to say.
    fn messages(&self, turns: &[Turn], picture: bool) -> Result<Vec<Message>, ModelError> {
        if self.template == Template::None {
            let message = |turn: &Turn| Message { from: turn.from, text: turn.value.clone(), picture: false };
            return Ok(turns.iter().map(message).collect());
        }
        messages(turns, picture)
    }

    fn tokenise(&self, messages: &[Message], picture: bool) -> Result<Sequence, ModelError> {
        let page = self.template.render(messages)?;
        let tokens = self.tokenizer.encode(&page.text, &page.plain)?;
        if let Some(unknown) = tokens.ids.iter().find(|token| **token as usize >= self.vocabulary) {
            return Err(ModelError::new(format!(
                "`tokenizer.json` writes token {unknown}, and the model knows {} tokens, counted from 0",
                self.vocabulary
            ))
            .help("the tokenizer belongs to another model: take the one that the checkpoint was published with"));
        }
        let touches = |token: &Range<usize>, span: &Range<usize>| token.start < span.end && span.start < token.end;
        let answer = tokens.ranges.iter().map(|token| page.answers.iter().any(|span| touches(token, span))).collect();
        let image = self.tokenizer.image();
        let places: Vec<usize> = (0..tokens.ids.len()).filter(|index| tokens.ids[*index] == image).collect();
        let place = match (places.as_slice(), picture) {
            ([], false) => None,
            ([place], true) => Some(*place),
            ([], true) => {
                return Err(ModelError::new(format!(
                    "there is a picture, but no `{PLACEHOLDER}` in the rendered prompt"
                ))
                .help(format!("put `{PLACEHOLDER}` where the picture is meant to be")));
            }
            (places, false) => {
                return Err(ModelError::new(format!(
                    "`{PLACEHOLDER}` is in the rendered prompt {} times, but there is no picture",
                    places.len()
                )));
            }
            (places, true) => {
                return Err(ModelError::new(format!(
                    "`{PLACEHOLDER}` is in the rendered prompt {} times, for one picture",
                    places.len()
                )));
            }
        };
        Ok(Sequence { tokens: tokens.ids, picture: place, answer, cut: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tokenizer::tests::{folder, tokenizer};

    fn scribe(tokenizer_of: &str, template: &str) -> Scribe {
        Scribe {
            tokenizer: tokenizer(tokenizer_of),
            template: Template::named(template, Path::new("")).unwrap(),
            vocabulary: usize::MAX,
            notes: Vec::new(),
        }
    }

    fn turns(texts: &[&str]) -> Vec<Turn> {
        let from = |index: usize| if index.is_multiple_of(2) { Speaker::Human } else { Speaker::Gpt };
        texts.iter().enumerate().map(|(i, text)| Turn { from: from(i), value: (*text).to_owned() }).collect()
    }

    /// The ids that carry the loss.
    fn answered(sequence: &Sequence) -> Vec<u32> {
        sequence.answers().map(|index| sequence.tokens[index]).collect()
    }

    #[test]
    fn ids_around_the_picture_are_llavas() {
        let sequence = scribe("mistral", "mistral_instruct").round("What is this?", None, true).unwrap();
        let expected = [1, 733, 16289, 28793, 28705, 32000, 28705, 13, 3195, 349, 456, 28804, 733, 28748, 16289, 28793];
        assert_eq!(sequence.tokens, expected);
        assert_eq!(sequence.picture, Some(5));
        assert_eq!(sequence.answers().count(), 0);
        let sequence = scribe("mistral", "vicuna_v1").round("What is this?", Some("A cat."), true).unwrap();
        let expected = [
            1, 330, 10706, 1444, 264, 13903, 2188, 304, 396, 18278, 10895, 13892, 28723, 415, 13892, 5212, 10865,
            28725, 10537, 28725, 304, 27057, 11194, 298, 272, 2188, 28742, 28713, 4224, 28723, 2223, 725, 28747, 28705,
            32000, 28705, 13, 3195, 349, 456, 28804, 8602, 8048, 12738, 28747, 330, 5255, 28723, 2,
        ];
        assert_eq!(sequence.tokens, expected);
        assert_eq!(answered(&sequence), [330, 5255, 28723, 2]);
        let sequence = scribe("llama", "vicuna_v1").round("What is this?", Some("A cat."), true).unwrap();
        let place = sequence.picture.unwrap();
        assert_eq!(sequence.tokens[place - 5..place], [29889, 3148, 1001, 29901, 29871]);
        assert_eq!(
            sequence.tokens[place + 1..],
            [29871, 13, 5618, 338, 445, 29973, 319, 1799, 9047, 13566, 29901, 319, 6635, 29889, 2]
        );
    }

    #[test]
    fn every_answer_and_what_closes_it_carries_the_loss() {
        let four = turns(&["<image>\nQ one?", "Yes", "And two?", "No."]);
        let sequence = scribe("mistral", "mistral_instruct").conversation(&four, true).unwrap();
        assert_eq!(answered(&sequence), [5592, 28705, 2, 1770, 28723, 28705, 2]);
        let sequence = scribe("mistral", "vicuna_v1").conversation(&four, true).unwrap();
        assert_eq!(answered(&sequence), [5592, 2, 1770, 28723, 2]);
        let sequence = scribe("mistral", "plain").conversation(&turns(&["", "A cat."]), true).unwrap();
        assert_eq!(sequence.tokens, [1, 32000, 330, 5255, 28723, 13]);
        assert_eq!(answered(&sequence), [330, 5255, 28723, 13]);
    }

    #[test]
    fn a_blank_that_stays_a_token_of_its_own_belongs_to_the_answer() {
        // " 12" is a blank and two digits: the open turn ends before the blank, so the model has to write it.
        let sequence = scribe("mistral", "vicuna_v1").round("What is this?", Some("12"), true).unwrap();
        assert_eq!(answered(&sequence), [28705, 28740, 28750, 2]);
    }

    #[test]
    fn an_end_inside_a_text_is_spelled_out() {
        let scribe = scribe("mistral", "vicuna_v1");
        let sequence = scribe.round("a </s> b", Some("a </s> b"), false).unwrap();
        assert_eq!(sequence.tokens.iter().filter(|id| **id == 2).count(), 1);
        assert_eq!(answered(&sequence), [264, 1867, 28713, 28767, 287, 2]);
        assert_eq!(sequence.picture, None);
    }

    #[test]
    fn rendered_texts_are_left_alone() {
        let scribe = scribe("mistral", "none");
        let sequence = scribe.round("[INST] <image>\nWhat is this? [/INST]", Some(" A cat. </s>"), true).unwrap();
        assert_eq!(sequence.picture, Some(5));
        assert_eq!(answered(&sequence), [330, 5255, 28723, 28705, 2]);
        let error = scribe.round("What is this?", None, true).unwrap_err();
        assert_eq!(error.message, "there is a picture, but no `<image>` in the rendered prompt");
        assert!(scribe.round("<image>\n<image>", None, true).is_err());
        assert!(scribe.round("<image>", None, false).is_err());
    }

    #[test]
    fn positions_count_the_rows_of_the_picture() {
        let sequence = scribe("mistral", "mistral_instruct").round("What is this?", None, true).unwrap();
        assert_eq!((sequence.positions(576), sequence.position(4, 576), sequence.position(6, 576)), (591, 4, 581));
        let (before, after) = sequence.around_picture();
        assert_eq!((before.len(), after.len()), (5, 10));
    }

    #[test]
    fn only_answers_are_cut() {
        let scribe = scribe("mistral", "mistral_instruct");
        let four = turns(&["<image>\nQ one?", "Yes", "And two?", "No."]);
        let whole = scribe.conversation(&four, true).unwrap();
        assert_eq!(whole.tokens.len(), 32);
        assert_eq!(whole.clone().cut_to(32).unwrap(), whole);
        let inside = whole.clone().cut_to(30).unwrap();
        assert_eq!((inside.tokens.len(), inside.cut), (30, 2));
        // The limit falls into the second question: it goes as a whole.
        let between = whole.clone().cut_to(20).unwrap();
        assert_eq!((between.tokens.len(), between.cut, answered(&between)), (18, 14, vec![5592, 28705, 2]));
        let error = whole.cut_to(15).unwrap_err();
        assert!(error.message.starts_with("the prompt takes 15 tokens, a picture being one"), "{error}");
    }

    #[test]
    fn a_template_needs_its_special_tokens() {
        let error = Scribe::read(&folder("llama"), 32000, 32001, Some("chatml_direct")).err().unwrap();
        assert!(error.message.contains("needs the special token `<|im_start|>`"), "{error}");
    }
}
