//! Sequences → one micro-batch as the decoder reads it: rows of one length, and where the answers are.
//!
//! The shape of a micro-batch depends on its own sequences alone: they are filled up at their ends to the length that
//! [`padded_length`] gives for the longest. What fills them is never attended to and carries no loss. Only the
//! positions that predict answer tokens are gathered for the head. This module does not know what a loss is.

use burn::tensor::{Int, Tensor, TensorData};

use crate::model::llava::{AttentionMask, Llava, Rotary};
use crate::model::sequence::Sequence;

/// A sequence and the rows of its picture.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// The sequence, cut already.
    pub sequence: &'a Sequence,
    /// Which of the micro-batch's pictures it shows.
    pub picture: Option<usize>,
}

/// Sequences that go through the decoder together.
#[derive(Clone, Debug)]
pub struct MicroBatch {
    /// What enters the first layer, `[sequences, length, hidden]`.
    pub hidden: Tensor<3>,
    /// The rotations of the positions 0 … length − 1.
    pub rotary: Rotary,
    /// Every position sees itself and those before it.
    pub mask: AttentionMask,
    /// The positions before answer tokens, as indices into `[sequences · length]`; `[n]`.
    pub predictors: Tensor<1, Int>,
    /// The answer tokens, `[n, 1]`.
    pub labels: Tensor<2, Int>,
    /// How many of the `n` answer tokens belong to each sequence, in order.
    pub answers: Vec<usize>,
    /// How many positions of each sequence are filled.
    pub positions: Vec<usize>,
}

/// The length to which sequences of a micro-batch are filled up when the longest takes `longest` positions: few
/// different lengths, since every new one makes a GPU's tuning start again.
pub fn padded_length(longest: usize) -> usize {
    longest.next_multiple_of(if longest <= 64 { 8 } else { 64 })
}

impl MicroBatch {
    /// Puts `members` together; `pictures` holds the rows of each picture, `[rows, hidden]`.
    ///
    /// # Panics
    /// When there is no member, when none has an answer token, or when a sequence and its picture do not fit.
    pub fn new(model: &Llava, members: &[Member<'_>], pictures: &[Tensor<2>]) -> Self {
        let counts: Vec<usize> = pictures.iter().map(|rows| rows.dims()[0]).collect();
        let rows_of = |member: &Member<'_>| member.picture.map_or(0, |picture| counts[picture]);
        let positions: Vec<usize> = members.iter().map(|member| member.sequence.positions(rows_of(member))).collect();
        let length = padded_length(positions.iter().copied().max().expect("a micro-batch has members"));

        // The table that positions are drawn from: all text tokens, then all pictures' rows.
        let mut text = Vec::new();
        let text_count: usize = members.iter().map(|member| text_tokens(member.sequence)).sum();
        let starts: Vec<usize> = counts
            .iter()
            .scan(text_count, |next, count| {
                *next += count;
                Some(*next - count)
            })
            .collect();
        let mut places = Vec::with_capacity(members.len() * length);
        let (mut predictors, mut labels, mut answers) = (Vec::new(), Vec::new(), Vec::new());
        for (index, member) in members.iter().enumerate() {
            let sequence = member.sequence;
            assert_eq!(sequence.picture.is_some(), member.picture.is_some(), "a picture for every placeholder");
            let (before, after) = sequence.around_picture();
            places.extend((text.len()..).take(before.len()));
            text.extend_from_slice(before);
            if let Some(picture) = member.picture {
                places.extend((starts[picture]..).take(counts[picture]));
            }
            places.extend((text.len()..).take(after.len()));
            text.extend_from_slice(after);
            places.resize((index + 1) * length, 0);

            let rows = rows_of(member);
            let known = labels.len();
            for token in predicted(sequence) {
                predictors.push((index * length + sequence.position(token, rows) - 1) as i32);
                labels.push(sequence.tokens[token] as i32);
            }
            answers.push(labels.len() - known);
        }

        let device = model.device();
        let integers = |values: Vec<i32>| {
            let count = values.len();
            Tensor::<1, Int>::from_data(TensorData::new(values, [count]), &device)
        };
        let table = Tensor::cat(std::iter::once(model.embed(&text)).chain(pictures.iter().cloned()).collect(), 0);
        let hidden = table.dims()[1];
        let places = integers(places.into_iter().map(|place| place as i32).collect());
        let count = labels.len();
        assert!(count > 0, "a micro-batch has answers");
        Self {
            hidden: table.select(0, places).reshape([members.len(), length, hidden]),
            rotary: model.decoder.rotary(&[(0..length).collect()]),
            mask: model.decoder.causal_mask(length),
            predictors: integers(predictors),
            labels: integers(labels).reshape([count, 1]),
            answers,
            positions,
        }
    }

    /// Splits one value for every answer token by sequence.
    pub fn by_sequence<'a, T>(&'a self, values: &'a [T]) -> impl Iterator<Item = &'a [T]> {
        self.answers.iter().scan(values, |rest, count| {
            let (own, others) = rest.split_at(*count);
            *rest = others;
            Some(own)
        })
    }
}

/// The answer tokens of `sequence` that a position predicts: the first token of all follows nothing.
fn predicted(sequence: &Sequence) -> impl Iterator<Item = usize> {
    sequence.answers().filter(|token| *token > 0)
}

/// How many tokens of `sequence` carry loss.
pub fn answer_count(sequence: &Sequence) -> usize {
    predicted(sequence).count()
}

fn text_tokens(sequence: &Sequence) -> usize {
    let (before, after) = sequence.around_picture();
    before.len() + after.len()
}
