//! A conversation as a model reads it: token ids, the places of images, and which tokens carry the loss.
//!
//! A sequence holds an image token once for all the positions that it takes; whoever runs the model puts the image's
//! features in its place.

use super::ModelError;

/// A tokenized conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// The ids.
    pub tokens: Vec<u32>,
    /// The image tokens among them, in order.
    pub images: Vec<ImageRun>,
    /// For every token whether it is part of an answer or closes one: what a model is trained on and what a score sums.
    pub answer: Vec<bool>,
    /// How many tokens were cut off the end.
    pub cut: usize,
}

/// An image token and the positions that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageRun {
    /// Its index among the tokens.
    pub token: usize,
    /// Rows and columns of the positions that it takes; `[1, n]` where they are in a line.
    pub grid: [usize; 2],
}

impl ImageRun {
    /// How many positions it takes.
    pub fn positions(&self) -> usize {
        self.grid[0] * self.grid[1]
    }
}

/// The content of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A token of the text.
    Token(u32),
    /// A row of the image features, counted over all images.
    Image(usize),
}

impl Sequence {
    /// How many positions the model sees.
    pub fn positions(&self) -> usize {
        self.position(self.tokens.len())
    }

    /// The position of token `index`.
    pub fn position(&self, index: usize) -> usize {
        let before = self.images.iter().filter(|run| run.token < index);
        before.fold(index, |position, run| position + run.positions() - 1)
    }

    /// How many positions images take.
    pub fn image_tokens(&self) -> usize {
        self.images.iter().map(ImageRun::positions).sum()
    }

    /// The content of every position.
    pub fn sources(&self) -> impl Iterator<Item = Source> {
        let mut runs = self.images.iter().peekable();
        let mut seen = 0;
        self.tokens.iter().enumerate().flat_map(move |(index, token)| {
            let run = runs.next_if(|run| run.token == index).map(ImageRun::positions);
            let first = seen;
            seen += run.unwrap_or_default();
            let text = run.is_none().then_some(Source::Token(*token));
            text.into_iter().chain((first..seen).map(Source::Image))
        })
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
        self.images.retain(|run| run.token <= last);
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_tokens_take_positions_between_those_of_the_text() {
        let run = |token, positions| ImageRun { token, grid: [1, positions] };
        let sequence = Sequence {
            tokens: vec![1, 9, 2, 9, 3],
            images: vec![run(1, 3), run(3, 2)],
            answer: vec![false; 5],
            cut: 0,
        };
        assert_eq!((sequence.positions(), sequence.position(2), sequence.position(4)), (8, 4, 7));
        let image = Source::Image;
        let token = Source::Token;
        let expected = [token(1), image(0), image(1), image(2), token(2), image(3), image(4), token(3)];
        assert_eq!(sequence.sources().collect::<Vec<_>>(), expected);
        // Some models see an image by the side: its token takes no position.
        let beside = Sequence { images: vec![run(1, 0), run(3, 0)], ..sequence };
        assert_eq!((beside.positions(), beside.position(4)), (3, 2));
        assert_eq!(beside.sources().collect::<Vec<_>>(), [token(1), token(2), token(3)]);
    }
}
