//! One batch of sequences as the decoder reads it: padded rows, image features in place, and where the answers are.
//!
//! The sequences of one example (a pair's chosen and rejected one) go into one row: what they have in common, the
//! picture and the prompt, is stored once, and each continuation attends to it and to itself. With a picture of 576
//! rows and answers of 150 tokens that is six tenths of the positions. Padding is never attended to and carries no
//! loss.

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::attention::{Attention, Slot};
use super::contract::{ImageFeatures, Model};
use super::sequence::{Sequence, Source};

/// The sequences of an example and their picture.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// One sequence, or several with a common beginning; cut already.
    pub sequences: &'a [Sequence],
    /// Which of the batch's images they show.
    pub image: Option<usize>,
}

/// What goes through the layers.
#[derive(Clone, Debug)]
pub struct Input {
    /// What enters the first layer, `[rows, length, hidden]`.
    pub hidden: Tensor<3>,
    /// What is added to the hidden states after the first layers, one per layer, of the same shape.
    pub added: Vec<Tensor<3>>,
    /// Rotations and mask: every slot sees itself and those before it, but for other continuations.
    pub attention: Attention,
}

/// Examples that go through the decoder together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// What goes through the layers.
    pub input: Input,
    /// The slots before answer tokens, as indices into `[rows · length]`.
    pub predictors: Vec<i32>,
    /// The answer tokens.
    pub labels: Vec<i32>,
    /// How many of the answer tokens belong to each sequence, in order.
    pub answers: Vec<usize>,
    /// How many slots of each row are filled.
    pub filled: Vec<usize>,
    /// How many positions go through the head: those before answer tokens, and copies of the first position that carry
    /// no loss and fill their number up.
    pub predicted: usize,
}

/// Where the sequences of an example go in their row.
struct Layout {
    /// How many positions the common beginning takes.
    shared: usize,
    /// Where the slots of each sequence's continuation start.
    starts: Vec<usize>,
    /// How many positions each sequence takes.
    positions: Vec<usize>,
}

impl Layout {
    fn new(sequences: &[Sequence]) -> Self {
        let first = &sequences[0];
        let shared = sequences.iter().map(|other| {
            let common = std::iter::zip(&first.tokens, &other.tokens).take_while(|(own, other)| own == other).count();
            let answer = other.answers().next().unwrap_or(other.tokens.len());
            common.min(answer)
        });
        let shared = shared.min().unwrap_or_default();
        let shared = if sequences.len() == 1 { first.positions() } else { first.position(shared) };
        let positions: Vec<usize> = sequences.iter().map(Sequence::positions).collect();
        let starts = positions.iter().scan(shared, |next, positions| {
            *next += positions - shared;
            Some(*next - (positions - shared))
        });
        Self { shared, starts: starts.collect(), positions }
    }

    /// How many slots are filled.
    fn filled(&self) -> usize {
        self.shared + self.positions.iter().map(|positions| positions - self.shared).sum::<usize>()
    }

    /// The slot of a sequence's position.
    fn slot(&self, sequence: usize, position: usize) -> usize {
        if position < self.shared { position } else { self.starts[sequence] + position - self.shared }
    }

    /// Place and branch of every slot.
    fn slots(&self) -> impl Iterator<Item = (usize, usize)> {
        let branches = self.positions.iter().enumerate();
        let continuations = branches.flat_map(|(index, &end)| (self.shared..end).map(move |place| (place, index + 1)));
        (0..self.shared).map(|place| (place, 0)).chain(continuations)
    }
}

/// How many slots the sequences of an example take.
pub fn filled(sequences: &[Sequence]) -> usize {
    Layout::new(sequences).filled()
}

impl Batch {
    /// Puts `members` together in rows of the length that `length` gives for the longest; `features` are those of the
    /// batch's images.
    ///
    /// # Panics
    /// When there is no member, or when a sequence and its image do not fit.
    pub fn new(
        model: &dyn Model,
        members: &[Member<'_>],
        features: &[ImageFeatures],
        length: impl FnOnce(usize) -> usize,
    ) -> Self {
        let layouts: Vec<Layout> = members.iter().map(|member| Layout::new(member.sequences)).collect();
        let filled: Vec<usize> = layouts.iter().map(Layout::filled).collect();
        let length = length(filled.iter().copied().max().expect("a batch has members"));

        // The table that slots are drawn from: all text tokens, then all images' rows.
        let mut text = Vec::new();
        let text_count: usize = members.iter().flat_map(|member| member.sequences).map(text_tokens).sum();
        let text_count = few_counts(text_count, &model.device());
        let counts = features.iter().map(|features| features.rows.dims()[0]);
        let starts: Vec<usize> =
            counts.scan(text_count, |next, count| Some(std::mem::replace(next, *next + count))).collect();
        let mut places = vec![0; members.len() * length];
        let (mut predictors, mut labels, mut answers) = (Vec::new(), Vec::new(), Vec::new());
        for (row, (member, layout)) in std::iter::zip(members, &layouts).enumerate() {
            for (index, sequence) in member.sequences.iter().enumerate() {
                let slot = |position| row * length + layout.slot(index, position);
                for (position, source) in sequence.sources().enumerate() {
                    places[slot(position)] = match source {
                        Source::Token(token) => {
                            text.push(token);
                            text.len() - 1
                        }
                        Source::Image(image) => starts[member.image.expect("an image for every image token")] + image,
                    };
                }
                let known = labels.len();
                for token in predicted(sequence) {
                    predictors.push(slot(sequence.position(token) - 1) as i32);
                    labels.push(sequence.tokens[token] as i32);
                }
                answers.push(labels.len() - known);
            }
        }

        text.resize(text_count, 0);
        let (device, shape) = (model.device(), [members.len(), length]);
        let embedded = (!text.is_empty()).then(|| model.embed(&text));
        let rows = features.iter().map(|features| features.rows.clone());
        let table = Tensor::cat(embedded.into_iter().chain(rows).collect(), 0);
        let hidden = drawn(table, places.iter().map(|place| *place as i32), shape, &device);
        let added = features.iter().map(|features| features.added.len()).max().unwrap_or_default();
        let added = (0..added).map(|layer| {
            // What is no image token gets nothing.
            let nothing = Tensor::zeros([1, hidden.dims()[2]], (&device, hidden.dtype()));
            let rows = features.iter().map(|features| features.added[layer].clone());
            let table = Tensor::cat(std::iter::once(nothing).chain(rows).collect(), 0);
            let image = |place: &usize| (place + 1).saturating_sub(text_count) as i32;
            drawn(table, places.iter().map(image), shape, &device)
        });
        let added = added.collect();
        let attention = Self::attention(model, members, &layouts, length);
        let predicted = few_counts(labels.len(), &device);
        Self { input: Input { hidden, added, attention }, predictors, labels, answers, filled, predicted }
    }

    /// Rotations and mask: one row for all where all are alike.
    fn attention(model: &dyn Model, members: &[Member<'_>], layouts: &[Layout], length: usize) -> Attention {
        let alone = members.iter().all(|member| member.sequences.len() == 1);
        let mut rows: Vec<Vec<Option<Slot>>> = Vec::with_capacity(members.len());
        for (member, layout) in std::iter::zip(members, layouts) {
            let positions: Vec<_> = member.sequences.iter().map(|sequence| model.positions(sequence)).collect();
            let slot = |(order, branch): (usize, usize)| {
                Some(Slot { order, branch, position: positions[branch.saturating_sub(1)].0[order] })
            };
            let mut slots: Vec<_> = layout.slots().map(slot).collect();
            if alone {
                // Padding comes after everything else, so nothing else attends to it.
                let next = positions[0].1;
                slots.extend((slots.len()..length).map(|order| Some(Slot::at(order, next + order - layout.shared))));
            }
            slots.resize(length, None);
            rows.push(slots);
        }
        if rows.iter().all(|row| *row == rows[0]) {
            rows.truncate(1);
        }
        model.attention(&rows, &rows)
    }

    /// The predictors of answer tokens, on the device of `hidden`, `[predicted]`.
    pub fn predictors(&self) -> Tensor<1, Int> {
        self.filled_up(&self.predictors)
    }

    /// The answer tokens, on the device of `hidden`, `[predicted, 1]`.
    pub fn label_column(&self) -> Tensor<2, Int> {
        self.filled_up(&self.labels).reshape([self.predicted, 1])
    }

    fn filled_up(&self, values: &[i32]) -> Tensor<1, Int> {
        let mut values = values.to_vec();
        values.resize(self.predicted, 0);
        integers(values, &self.input.hidden.device())
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

/// What `count` is filled up to on `device`: GPUs, which compile and tune kernels by shape, are to see few shapes.
pub fn few_counts(count: usize, device: &Device) -> usize {
    if *device == Device::flex() { count } else { count.next_multiple_of(64) }
}

/// The rows `places` of `table`, `[rows, length, features]`.
fn drawn(
    table: Tensor<2>,
    places: impl Iterator<Item = i32>,
    [rows, length]: [usize; 2],
    device: &Device,
) -> Tensor<3> {
    let features = table.dims()[1];
    table.select(0, integers(places.collect(), device)).reshape([rows, length, features])
}

/// A vector of integers.
pub(super) fn integers(values: Vec<i32>, device: &Device) -> Tensor<1, Int> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
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
    sequence.tokens.len() - sequence.images.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::forward::log_probabilities;
    use crate::model::tiny;

    /// Sequences of one prompt and these answers.
    fn answered(picture: bool, answers: &[&[u32]]) -> Vec<Sequence> {
        let prompt = tiny::sequence(1, picture, 0);
        let answered = |answer: &&[u32]| {
            let tokens: Vec<u32> = prompt.tokens.iter().chain(*answer).copied().collect();
            let count = prompt.tokens.len();
            Sequence { answer: (0..tokens.len()).map(|token| token >= count).collect(), tokens, ..prompt.clone() }
        };
        answers.iter().map(answered).collect()
    }

    #[test]
    fn what_sequences_have_in_common_is_there_once() {
        let pair = answered(true, &[&[3, 4, 5], &[3, 6]]);
        // Five tokens and four rows in common, though both answers begin alike; then three and two.
        let layout = Layout::new(&pair);
        assert_eq!((layout.shared, layout.starts.clone(), layout.filled()), (9, vec![9, 12], 14));
        assert_eq!((layout.slot(1, 8), layout.slot(1, 9), layout.slot(0, 11)), (8, 12, 11));
        let slots: Vec<_> = layout.slots().collect();
        assert_eq!(slots[8..], [(8, 0), (9, 1), (10, 1), (11, 1), (9, 2), (10, 2)]);
        assert_eq!(filled(&pair[..1]), 12);
    }

    #[test]
    fn sequences_in_one_row_do_not_see_each_other() {
        let model = tiny::model();
        let pictures = [tiny::features(&model, 0)];
        for (picture, answers) in [(true, [&[3u32, 4, 5][..], &[3, 6]]), (false, [&[7, 8], &[9, 10, 11, 12]])] {
            let pair = answered(picture, &answers);
            let picture = picture.then_some(0);
            let values = |sequences: &[Sequence]| {
                let micro = Batch::new(&model, &[Member { sequences, image: picture }], &pictures, |longest| {
                    longest.next_multiple_of(8)
                });
                log_probabilities(&model, None, &micro)
            };
            let alone = [values(&pair[..1]), values(&pair[1..])].concat();
            let together = values(&pair);
            assert_eq!(together.len(), alone.len());
            for (together, alone) in std::iter::zip(&together, &alone) {
                assert!((together - alone).abs() < 1e-5, "{together}, alone {alone}");
            }
        }
    }

    #[test]
    fn sequences_without_a_common_beginning_share_nothing() {
        let model = tiny::model();
        let pair = [tiny::sequence(3, true, 2), tiny::sequence(4, true, 3)];
        assert_eq!(Layout::new(&pair).shared, 0);
        let pictures = [tiny::features(&model, 0)];
        let micro = Batch::new(&model, &[Member { sequences: &pair, image: Some(0) }], &pictures, |longest| {
            longest.next_multiple_of(8)
        });
        let values = log_probabilities(&model, None, &micro);
        for (sequence, own) in std::iter::zip(&pair, micro.by_sequence(&values)) {
            let members = [Member { sequences: std::slice::from_ref(sequence), image: Some(0) }];
            let alone = log_probabilities(
                &model,
                None,
                &Batch::new(&model, &members, &pictures, |longest| longest.next_multiple_of(8)),
            );
            for (own, alone) in std::iter::zip(own, &alone) {
                assert!((own - alone).abs() < 1e-5, "{own}, alone {alone}");
            }
        }
    }
}
