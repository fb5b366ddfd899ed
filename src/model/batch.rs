//! Sequences → one micro-batch as the decoder reads it: rows of one length, and where the answers are.
//!
//! The sequences of one example (a pair's chosen and rejected one) go into one row: what they have in common, the
//! picture and the prompt, is there once, and each continuation sees it and itself. With a picture of 576 rows and
//! answers of 150 tokens that is six tenths of the positions.
//!
//! The shape of a micro-batch depends on its own sequences alone: rows are filled up at their ends to the length that
//! [`padded_length`] gives for the longest. What fills them is never attended to and carries no loss. Only the
//! positions that predict answer tokens are gathered for the head. This module does not know what a loss is.

use burn::tensor::{Int, Tensor, TensorData};

use crate::model::llava::{AttentionMask, Llava, Rotary};
use crate::model::sequence::Sequence;

/// The sequences of an example and their picture.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// One sequence, or several with a common beginning; cut already.
    pub sequences: &'a [Sequence],
    /// Which of the micro-batch's pictures they show.
    pub picture: Option<usize>,
}

/// Examples that go through the decoder together.
#[derive(Clone, Debug)]
pub struct MicroBatch {
    /// What enters the first layer, `[examples, length, hidden]`.
    pub hidden: Tensor<3>,
    /// The rotations of the positions, which start again where a continuation does.
    pub rotary: Rotary,
    /// Every position sees itself and those before it, but for other continuations.
    pub mask: AttentionMask,
    /// The slots before answer tokens, as indices into `[examples · length]`; `[n]`.
    pub predictors: Tensor<1, Int>,
    /// The answer tokens, `[n, 1]`.
    pub labels: Tensor<2, Int>,
    /// How many of the `n` answer tokens belong to each sequence, in order.
    pub answers: Vec<usize>,
    /// How many slots of each row are filled.
    pub filled: Vec<usize>,
}

/// The length to which rows of a micro-batch are filled up when the longest takes `longest` slots: few different
/// lengths, since every new one makes a GPU's tuning start again.
pub fn padded_length(longest: usize) -> usize {
    longest.next_multiple_of(if longest <= 64 { 8 } else { 64 })
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
    /// The layout of `sequences` when their picture takes `rows`.
    fn new(sequences: &[Sequence], rows: usize) -> Self {
        let first = &sequences[0];
        let shared = sequences.iter().map(|other| {
            let common = std::iter::zip(&first.tokens, &other.tokens).take_while(|(own, other)| own == other).count();
            let answer = other.answers().next().unwrap_or(other.tokens.len());
            common.min(answer)
        });
        let shared = shared.min().unwrap_or_default();
        let shared = if sequences.len() == 1 { first.positions(rows) } else { first.position(shared, rows) };
        let positions: Vec<usize> = sequences.iter().map(|sequence| sequence.positions(rows)).collect();
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

    /// Position and branch of every slot.
    fn slots(&self) -> impl Iterator<Item = (usize, usize)> {
        let branches = self.positions.iter().enumerate();
        let continuations = branches.flat_map(|(index, &end)| (self.shared..end).map(move |place| (place, index + 1)));
        (0..self.shared).map(|place| (place, 0)).chain(continuations)
    }
}

/// How many slots the sequences of an example take when their picture takes `rows`.
pub fn filled(sequences: &[Sequence], rows: usize) -> usize {
    Layout::new(sequences, rows).filled()
}

impl MicroBatch {
    /// Puts `members` together; `pictures` holds the rows of each picture, `[rows, hidden]`.
    ///
    /// # Panics
    /// When there is no member, when none has an answer token, or when a sequence and its picture do not fit.
    pub fn new(model: &Llava, members: &[Member<'_>], pictures: &[Tensor<2>]) -> Self {
        let counts: Vec<usize> = pictures.iter().map(|rows| rows.dims()[0]).collect();
        let rows_of = |member: &Member<'_>| member.picture.map_or(0, |picture| counts[picture]);
        let layouts: Vec<Layout> =
            members.iter().map(|member| Layout::new(member.sequences, rows_of(member))).collect();
        let filled: Vec<usize> = layouts.iter().map(Layout::filled).collect();
        let length = padded_length(filled.iter().copied().max().expect("a micro-batch has members"));

        // The table that slots are drawn from: all text tokens, then all pictures' rows.
        let mut text = Vec::new();
        let sequences = || members.iter().flat_map(|member| member.sequences);
        let text_count: usize = sequences().map(text_tokens).sum();
        let starts: Vec<usize> = counts
            .iter()
            .scan(text_count, |next, count| {
                *next += count;
                Some(*next - count)
            })
            .collect();
        let mut places = vec![0; members.len() * length];
        let (mut predictors, mut labels, mut answers) = (Vec::new(), Vec::new(), Vec::new());
        for (row, (member, layout)) in std::iter::zip(members, &layouts).enumerate() {
            for (index, sequence) in member.sequences.iter().enumerate() {
                assert_eq!(sequence.picture.is_some(), member.picture.is_some(), "a picture for every placeholder");
                let (before, after) = sequence.around_picture();
                let picture = member.picture.map_or(0..0, |picture| starts[picture]..starts[picture] + counts[picture]);
                let text_start = text.len();
                text.extend_from_slice(before);
                text.extend_from_slice(after);
                let drawn =
                    (text_start..text_start + before.len()).chain(picture).chain(text_start + before.len()..text.len());
                for (position, place) in drawn.enumerate() {
                    places[row * length + layout.slot(index, position)] = place as i32;
                }
                let known = labels.len();
                for token in predicted(sequence) {
                    let position = sequence.position(token, rows_of(member)) - 1;
                    predictors.push((row * length + layout.slot(index, position)) as i32);
                    labels.push(sequence.tokens[token] as i32);
                }
                answers.push(labels.len() - known);
            }
        }

        let device = model.device();
        let integers = |values: Vec<i32>| {
            let count = values.len();
            Tensor::<1, Int>::from_data(TensorData::new(values, [count]), &device)
        };
        let table = Tensor::cat(std::iter::once(model.embed(&text)).chain(pictures.iter().cloned()).collect(), 0);
        let hidden = table.dims()[1];
        let count = labels.len();
        assert!(count > 0, "a micro-batch has answers");
        let (rotary, mask) = Self::attention(model, members, &layouts, length);
        Self {
            hidden: table.select(0, integers(places)).reshape([members.len(), length, hidden]),
            rotary,
            mask,
            predictors: integers(predictors),
            labels: integers(labels).reshape([count, 1]),
            answers,
            filled,
        }
    }

    /// Rotations and mask: one row for all where no example has several sequences.
    fn attention(model: &Llava, members: &[Member<'_>], layouts: &[Layout], length: usize) -> (Rotary, AttentionMask) {
        let decoder = &model.decoder;
        if members.iter().all(|member| member.sequences.len() == 1) {
            return (decoder.rotary(&[(0..length).collect()]), decoder.causal_mask(length));
        }
        let slots: Vec<Vec<Option<(usize, usize)>>> = layouts
            .iter()
            .map(|layout| {
                let mut slots: Vec<_> = layout.slots().map(Some).collect();
                slots.resize(length, None);
                slots
            })
            .collect();
        let positions: Vec<Vec<usize>> = slots
            .iter()
            .map(|slots| slots.iter().map(|slot| slot.map_or(0, |(position, _)| position)).collect())
            .collect();
        (decoder.rotary(&positions), decoder.branching_mask(&slots))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::small;
    use crate::train::step::log_probabilities;

    /// Sequences of one prompt and these answers.
    fn answered(picture: bool, answers: &[&[u32]]) -> Vec<Sequence> {
        let prompt = small::sequence(1, picture, 0);
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
        let layout = Layout::new(&pair, 4);
        assert_eq!((layout.shared, layout.starts.clone(), layout.filled()), (9, vec![9, 12], 14));
        assert_eq!((layout.slot(1, 8), layout.slot(1, 9), layout.slot(0, 11)), (8, 12, 11));
        let slots: Vec<_> = layout.slots().collect();
        assert_eq!(slots[8..], [(8, 0), (9, 1), (10, 1), (11, 1), (9, 2), (10, 2)]);
        assert_eq!(filled(&pair[..1], 4), 12);
    }

    #[test]
    fn sequences_in_one_row_do_not_see_each_other() {
        let model = small::model();
        let pictures = [small::rows(&model, 0)];
        for (picture, answers) in [(true, [&[3u32, 4, 5][..], &[3, 6]]), (false, [&[7, 8], &[9, 10, 11, 12]])] {
            let pair = answered(picture, &answers);
            let picture = picture.then_some(0);
            let values = |sequences: &[Sequence]| {
                let micro = MicroBatch::new(&model, &[Member { sequences, picture }], &pictures);
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
        let model = small::model();
        let pair = [small::sequence(3, true, 2), small::sequence(4, true, 3)];
        assert_eq!(Layout::new(&pair, 4).shared, 0);
        let pictures = [small::rows(&model, 0)];
        let micro = MicroBatch::new(&model, &[Member { sequences: &pair, picture: Some(0) }], &pictures);
        let values = log_probabilities(&model, None, &micro);
        for (sequence, own) in std::iter::zip(&pair, micro.by_sequence(&values)) {
            let members = [Member { sequences: std::slice::from_ref(sequence), picture: Some(0) }];
            let alone = log_probabilities(&model, None, &MicroBatch::new(&model, &members, &pictures));
            for (own, alone) in std::iter::zip(own, &alone) {
                assert!((own - alone).abs() < 1e-5, "{own}, alone {alone}");
            }
        }
    }
}
