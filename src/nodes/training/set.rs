//! What a training is given: token sequences with their pictures, as far as those can be decoded.
//!
//! Knows nothing of objectives or steps.

use std::collections::{BTreeMap, HashMap};

use image::RgbImage;
use rayon::prelude::*;

use super::super::listing::allows;
use crate::data::picture::decode;
use crate::diagnostic::counted;
use crate::digest::Digest;
use crate::model::ModelError;
use crate::model::llava::{Config, ImageMode};
use crate::model::picture::{Processor, row_count};
use crate::model::sequence::Sequence;
use crate::node::{Context, Failure, OnBadItem};
use crate::train::batch::{answer_count, filled};
use crate::train::training::Example;

/// What is trained on, in the order of the inputs.
pub struct Set {
    max_length: usize,
    pub(super) examples: Vec<Example>,
    pub(super) pictures: Vec<Digest>,
    numbers: HashMap<Digest, usize>,
    answers: usize,
    empty: usize,
    /// How many pairs have equal responses.
    pub(super) equal: usize,
    /// How many examples were left out since none of their answers has a token.
    pub(super) unanswered: usize,
    /// Of each example that cannot be trained on, its name and why.
    bad: Vec<(String, String)>,
}

impl Set {
    /// An empty set of sequences of at most `max_length` tokens.
    pub(super) fn new(max_length: usize) -> Self {
        Self {
            max_length,
            examples: Vec::new(),
            pictures: Vec::new(),
            numbers: HashMap::new(),
            answers: 0,
            empty: 0,
            equal: 0,
            unanswered: 0,
            bad: Vec::new(),
        }
    }

    /// Adds what belongs to one item, which is called `name` in messages, unless there is nothing in it to learn from: an
    /// empty answer has no tokens. It is a bad item when a sequence could not be made, or when cutting it would leave
    /// nothing of its answer.
    pub fn add<const N: usize>(
        &mut self,
        name: String,
        picture: Option<Digest>,
        sequences: [Result<Sequence, ModelError>; N],
    ) {
        let cut = |sequence: Result<Sequence, ModelError>| sequence?.cut_to(self.max_length);
        let sequences: Vec<Sequence> = match sequences.into_iter().map(cut).collect() {
            Ok(sequences) => sequences,
            Err(error) => {
                self.bad.push((name, error.to_string()));
                return;
            }
        };
        if N > 0 && sequences.iter().all(|sequence| answer_count(sequence) == 0) {
            self.unanswered += 1;
            return;
        }
        let picture = picture.map(|digest| {
            *self.numbers.entry(digest).or_insert_with(|| {
                self.pictures.push(digest);
                self.pictures.len() - 1
            })
        });
        self.examples.push(Example { name, sequences, picture });
    }

    /// Leaves out the bad items, those whose pictures cannot be decoded with them, and says so; tells how many. Known
    /// before the first step, since steps and their learning rates depend on the number of examples.
    ///
    /// # Errors
    /// When there are more than `on_bad_item` allows, or a picture cannot be had.
    pub(super) fn leave_out_bad(&mut self, on_bad_item: OnBadItem, context: &dyn Context) -> Result<usize, Failure> {
        let look = |(number, digest): (usize, &Digest)| {
            if context.interrupted() {
                return Err(Failure::Interrupted);
            }
            Ok(decoded(digest, context)?.err().map(|cause| (number, cause)))
        };
        let looked: Result<Vec<_>, Failure> = self.pictures.par_iter().enumerate().map(look).collect();
        let undecodable: BTreeMap<usize, String> = looked?.into_iter().flatten().collect();
        let all = self.examples.len() + self.bad.len();
        let cause = |example: &Example| undecodable.get(&example.picture?).cloned();
        self.bad.extend(self.examples.iter().filter_map(|example| Some((example.name.clone(), cause(example)?))));
        self.examples.retain(|example| example.picture.is_none_or(|picture| !undecodable.contains_key(&picture)));
        let Some((name, cause)) = self.bad.first() else { return Ok(0) };
        let (count, first) = (self.bad.len(), format!("{name}: {cause}"));
        if !allows(on_bad_item, count, all) {
            let message = format!("{count} of {} cannot be trained on, first {first}", counted(all, "example"));
            let table = format!("[nodes.{}]", context.node());
            return Err(Failure::node(message).help(match on_bad_item {
                OnBadItem::Fail => {
                    format!("put them right or take them out, or leave out `on_bad_item = \"fail\"` in {table}")
                }
                OnBadItem::Skip { .. } if count == all => {
                    "put them right: nothing would be left to train on".to_owned()
                }
                OnBadItem::Skip { .. } => {
                    format!(
                        "put them right or take them out; `on_bad_item = \"skip\"` in {table} leaves any number out"
                    )
                }
            }));
        }
        context.left_out(count, all);
        context
            .note(&format!("left out {count} of {} that cannot be trained on, first {first}", counted(all, "example")));
        Ok(count)
    }

    /// Whether one of `end_tokens` is among what is learned.
    pub(super) fn ends(&self, end_tokens: &[u32]) -> bool {
        let mut sequences = self.examples.iter().flat_map(|example| &example.sequences);
        sequences.any(|sequence| sequence.answers().any(|index| end_tokens.contains(&sequence.tokens[index])))
    }

    /// Takes notice of an answer that is to be made likelier.
    pub fn wanted(&mut self, answer: &str) {
        self.answers += 1;
        self.empty += usize::from(answer.trim().is_empty());
    }

    /// Takes notice of a pair: from equal responses nothing is learned.
    pub fn compared(&mut self, chosen: &str, rejected: &str) {
        self.equal += usize::from(chosen == rejected);
    }

    /// That some of the answers that are to be made likelier are empty: nothing can be learned from them.
    pub(super) fn emptiness(&self) -> Option<String> {
        let Self { answers, empty, .. } = self;
        let are = if *empty == 1 { "is" } else { "are" };
        (*empty > 0).then(|| format!("{empty} of {} to be learnt {are} empty", counted(*answers, "answer")))
    }

    /// How many answers were cut.
    pub(super) fn cut(&self) -> usize {
        self.examples.iter().flat_map(|example| &example.sequences).filter(|sequence| sequence.cut > 0).count()
    }

    /// The most positions that an example takes, whatever the sides of its picture.
    pub(super) fn longest(&self, config: &Config, mode: ImageMode, processor: &Processor) -> usize {
        let sides = config.grid_pinpoints.iter().map(|[first, second]| (*first, *second));
        let rows = sides.chain([(1, 1)]).map(|(width, height)| row_count(width, height, mode, processor)).max();
        let rows = rows.unwrap_or_default();
        self.examples.iter().map(|example| filled(&example.sequences, rows)).max().unwrap_or_default()
    }
}

/// A picture, or what is told of it when it cannot be decoded.
///
/// # Errors
/// When it cannot be had.
pub(super) fn decoded(digest: &Digest, context: &dyn Context) -> Result<Result<RgbImage, String>, Failure> {
    let bytes = context.content(digest).map_err(|bad| Failure::environment(format!("{}: {}", bad.what, bad.cause)))?;
    Ok(decode(&bytes).map_err(|cause| {
        let path = context.content_path(digest);
        let name = path.map_or_else(|| digest.short(), |path| path.display().to_string());
        format!("`{name}`: {cause}")
    }))
}

#[cfg(test)]
mod tests {
    use super::super::tests::trial;
    use super::*;
    use crate::node::Objects;

    #[test]
    fn an_example_without_a_token_to_learn_is_left_out_and_counted() {
        let sequence = |answer: &[bool]| {
            Ok(Sequence { tokens: vec![5; answer.len()], picture: None, answer: answer.to_vec(), cut: 0 })
        };
        let (answered, empty) = (|| sequence(&[false, true]), || sequence(&[false, false]));
        let name = || "item".to_owned();
        let mut set = Set::new(9);
        set.add(name(), None, [empty()]);
        set.add(name(), None, [empty(), empty()]);
        set.add(name(), None, [answered(), empty()]);
        set.add(name(), None, [answered()]);
        assert_eq!((set.examples.len(), set.unanswered), (2, 2));
    }

    #[test]
    fn a_prompt_that_is_too_long_is_a_bad_item_among_many() {
        let (trial, _) = trial();
        let sequence = |prompt: usize| {
            let answer = [vec![false; prompt], vec![true; 2]].concat();
            Ok(Sequence { tokens: vec![5; answer.len()], picture: None, answer, cut: 0 })
        };
        let mut set = Set::new(9);
        (0..200).for_each(|index| set.add(format!("item {index}"), None, [sequence(3)]));
        set.add("the long one".to_owned(), None, [sequence(20)]);
        assert_eq!(set.leave_out_bad(OnBadItem::default(), &trial), Ok(1));
        assert_eq!(set.examples.len(), 200);
        let note = trial.notes.lock().unwrap()[0].clone();
        assert!(note.contains("first the long one: the prompt takes 20 tokens"), "{note}");
    }

    #[test]
    fn pictures_that_cannot_be_decoded_are_few_or_fail_the_node() {
        let (trial, pictures) = trial();
        let bad = trial.shelf.put(b"no picture").unwrap();
        let set = |good: usize| {
            let mut set = Set::new(9);
            let digests = pictures.iter().cycle().take(good).chain([&bad]);
            digests.for_each(|digest| set.add::<0>(digest.short(), Some(*digest), []));
            set
        };
        let mut many = set(200);
        assert_eq!(many.leave_out_bad(OnBadItem::default(), &trial), Ok(1));
        assert_eq!(many.examples.len(), 200);
        let note = trial.notes.lock().unwrap()[0].clone();
        assert!(note.starts_with("left out 1 of 201 examples that cannot be trained on, first "), "{note}");
        assert!(note.contains("`: not a picture: "), "{note}");
        assert!(set(200).leave_out_bad(OnBadItem::Fail, &trial).is_err());
        let error = set(3).leave_out_bad(OnBadItem::default(), &trial).unwrap_err().to_string();
        assert!(error.starts_with("1 of 4 examples cannot be trained on, first "), "{error}");
    }
}
