//! Conversations as token ids, and the model run on batches of them.
//!
//! A row is what the tokenizer makes of a conversation in the template `mistral_instruct`, with a picture's nine rows
//! in place of its token.

use std::ops::{ControlFlow, Range};

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData};
use stic::model::attention::{LayerCache, Slot};
use stic::model::batch::Input;
use stic::model::contract::Model;
use stic::model::forward::forward;
use stic::model::llava::Llava;

use crate::vocabulary::{BEGIN, END, IMAGE, PAD, Vocabulary};
use crate::world::PLACES;

/// Where a picture's rows begin: after the beginning and the opening of the turn.
const PICTURE_START: usize = 2;
/// How many rows a picture takes: one a place.
pub const PICTURE_ROWS: usize = PLACES.len();

/// A conversation ready for the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its tokens, the picture's token as often as the picture has rows.
    pub tokens: Vec<u32>,
    /// For every turn, the positions of the answer's tokens and of what ends it.
    pub answers: Vec<Range<usize>>,
    /// The picture, by its number among the features.
    pub picture: Option<usize>,
}

impl Row {
    /// A conversation of (prompt, answer) turns about a picture, if any.
    pub fn new(vocabulary: &Vocabulary, picture: Option<usize>, turns: &[(Vec<u32>, Vec<u32>)]) -> Self {
        let [open, close, end] = ["[INST]", "[/INST]", END].map(|token| vocabulary.id(token));
        let mut tokens = vec![vocabulary.id(BEGIN)];
        let mut answers = Vec::with_capacity(turns.len());
        for (index, (prompt, answer)) in turns.iter().enumerate() {
            tokens.push(open);
            if index == 0 && picture.is_some() {
                tokens.extend([vocabulary.id(IMAGE); PICTURE_ROWS]);
                tokens.push(vocabulary.id("\n"));
            }
            tokens.extend(prompt);
            tokens.push(close);
            let start = tokens.len();
            tokens.extend(answer);
            tokens.push(end);
            answers.push(start..tokens.len());
        }
        Self { tokens, answers, picture }
    }
}

/// Embeddings of `rows`, short ones filled at their end, pictures in place: `[rows, length, hidden]`.
///
/// `features` are the tower's, `[pictures, 9, vision hidden]`; either all rows have a picture or none.
fn embed(model: &Llava, rows: &[Row], features: Option<&Tensor<3>>, pad: u32) -> Tensor<3> {
    let length = rows.iter().map(|row| row.tokens.len()).max().expect("rows");
    let filled = rows
        .iter()
        .flat_map(|row| row.tokens.iter().copied().chain(std::iter::repeat_n(pad, length - row.tokens.len())));
    let embedded = model.embed(&filled.collect::<Vec<_>>());
    let hidden = embedded.dims()[1];
    let embedded = embedded.reshape([rows.len(), length, hidden]);
    let Some(features) = features else {
        return embedded;
    };
    let pictures: Vec<i32> = rows.iter().map(|row| row.picture.expect("a picture") as i32).collect();
    let pictures = Tensor::<1, Int>::from_data(TensorData::new(pictures, [rows.len()]), &features.device());
    let [_, patches, width] = features.dims();
    let seen = features.clone().select(0, pictures).reshape([rows.len() * patches, width]);
    let seen = model.projector.forward(seen).reshape([rows.len(), patches, hidden]);
    let after = PICTURE_START + patches;
    let before = embedded.clone().narrow(1, 0, PICTURE_START);
    Tensor::cat(vec![before, seen, embedded.narrow(1, after, length - after)], 1)
}

/// `hidden`, which stands at `positions`, through all layers.
fn run(model: &Llava, hidden: Tensor<3>, positions: Range<usize>, caches: Option<&mut [LayerCache]>) -> Tensor<3> {
    let attention = model.attention(&[Slot::line(positions.clone())], &[Slot::line(0..positions.end)]);
    let input = Input { hidden, added: Vec::new(), attention };
    let hidden = forward(model, &input, |_| None, caches, |_| ControlFlow::Continue(()));
    hidden.continue_value().expect("nothing breaks it off")
}

/// Logits from which every token of an answer is predicted, and those tokens: `[tokens, vocabulary]`, by row and turn.
fn predictions(model: &Llava, rows: &[Row], features: Option<&Tensor<3>>, pad: u32) -> (Tensor<2>, Vec<u32>) {
    let hidden = embed(model, rows, features, pad);
    let [count, length, width] = hidden.dims();
    let hidden = run(model, hidden, 0..length, None);
    let (mut predictors, mut labels) = (Vec::new(), Vec::new());
    for (index, row) in rows.iter().enumerate() {
        for position in row.answers.iter().cloned().flatten() {
            predictors.push((index * length + position - 1) as i32);
            labels.push(row.tokens[position]);
        }
    }
    let predictors = TensorData::new(predictors, [labels.len()]);
    let predictors = Tensor::<1, Int>::from_data(predictors, &hidden.device());
    let hidden = hidden.reshape([count * length, width]).select(0, predictors);
    (model.logits(hidden), labels)
}

/// Rows that are run together, since they are of about one length, with the features that their pictures are among.
pub struct Group<'a> {
    /// The rows.
    pub rows: Vec<Row>,
    /// The tower's features, `[pictures, 9, vision hidden]`, if the rows have pictures.
    pub features: Option<&'a Tensor<3>>,
}

/// The mean cross-entropy of all answer tokens of `groups`, `[1]`.
pub fn cross_entropy(model: &Llava, groups: &[Group<'_>], pad: u32) -> Tensor<1> {
    let mut sums = Vec::new();
    let mut count = 0;
    for group in groups {
        let (logits, labels) = predictions(model, &group.rows, group.features, pad);
        count += labels.len();
        let labels = labels.into_iter().map(|label| label as i32).collect();
        let labels =
            Tensor::<2, Int>::from_data(TensorData::new::<i32, _>(labels, [logits.dims()[0], 1]), &logits.device());
        sums.push(log_softmax(logits, 1).gather(1, labels).sum());
    }
    Tensor::cat(sums, 0).sum() * (-1.0 / count as f64)
}

/// Whether the model would give each answer, turn by turn: whether every token of it is the likeliest after those
/// before it.
pub fn right(model: &Llava, rows: &[Row], features: Option<&Tensor<3>>, pad: u32) -> Vec<Vec<bool>> {
    let mut verdicts = Vec::with_capacity(rows.len());
    for rows in rows.chunks(256) {
        let (logits, labels) = predictions(model, rows, features, pad);
        let likeliest: Vec<i64> = logits.argmax(1).into_data().iter::<i64>().collect();
        let mut right = likeliest.iter().zip(&labels).map(|(found, label)| *found == i64::from(*label));
        verdicts.extend(rows.iter().map(|row| {
            let turns = row.answers.iter();
            turns
                .map(|answer| right.by_ref().take(answer.len()).filter(|right| !right).count() == 0)
                .collect::<Vec<_>>()
        }));
    }
    verdicts
}

/// What the model says, greedily, to `prompt` about each of the pictures of `features`, in at most `limit` tokens.
pub fn describe(
    model: &Llava,
    vocabulary: &Vocabulary,
    features: &Tensor<3>,
    prompt: u32,
    limit: usize,
) -> Vec<String> {
    let [pad, end] = [PAD, END].map(|token| vocabulary.id(token));
    let mut texts = Vec::new();
    let pictures: Vec<usize> = (0..features.dims()[0]).collect();
    for pictures in pictures.chunks(256) {
        let rows: Vec<Row> = pictures
            .iter()
            .map(|picture| {
                let mut row = Row::new(vocabulary, Some(*picture), &[(vec![prompt], Vec::new())]);
                row.tokens.pop();
                row
            })
            .collect();
        let length = rows[0].tokens.len();
        let mut caches = model.caches(rows.len(), length + limit);
        let mut hidden = embed(model, &rows, Some(features), pad);
        let mut said = vec![Vec::new(); rows.len()];
        let mut positions = 0..length;
        while said[0].len() < limit {
            hidden = run(model, hidden, positions.clone(), Some(&mut caches));
            let [count, length, width] = hidden.dims();
            let last = hidden.narrow(1, length - 1, 1).reshape([count, width]);
            let next: Vec<i64> = model.logits(last).argmax(1).into_data().iter::<i64>().collect();
            let next: Vec<u32> = next.into_iter().map(|token| token as u32).collect();
            said.iter_mut().zip(&next).for_each(|(said, token)| said.push(*token));
            hidden = model.embed(&next).reshape([count, 1, width]);
            positions = positions.end..positions.end + 1;
        }
        texts.extend(said.into_iter().map(|said| {
            let length = said.iter().position(|token| *token == end).unwrap_or(said.len());
            vocabulary.decode(&said[..length])
        }));
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_ends_every_answer_and_opens_every_turn() {
        let vocabulary = Vocabulary::new();
        let turn = |question: &str, answer: &str| (vocabulary.question(question), vocabulary.words(answer));
        let turns = [turn("What is at top-left?", "red-ring"), turn("How many objects are there?", "2")];
        let row = Row::new(&vocabulary, Some(3), &turns);
        let words: Vec<&str> = [BEGIN, "[INST]"]
            .into_iter()
            .chain([IMAGE; PICTURE_ROWS])
            .chain(["\n", "What is at", "top-left", "[/INST]", "red-ring", END, "[INST]", "How many objects are there"])
            .chain(["[/INST]", "2", END])
            .collect();
        assert_eq!(row.tokens, words.iter().map(|word| vocabulary.id(word)).collect::<Vec<_>>());
        assert_eq!(row.answers, [15..17, 20..22]);
    }
}
