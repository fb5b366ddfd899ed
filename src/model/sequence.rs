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
                 `max_length` {max_length}"
            ))
            .help("raise `max_length`: only answers are cut"));
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
}

impl Scribe {
    /// The tokenizer of the model in `folder`, and the template called `template` or the family's own.
    ///
    /// # Errors
    /// See [`Tokenizer::read`] and [`Template::named`]; also when the tokenizer lacks a special token that the template
    /// is made of.
    pub fn read(folder: &Path, image: u32, template: Option<&str>) -> Result<Self, ModelError> {
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
        Ok(Self { tokenizer, template })
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
