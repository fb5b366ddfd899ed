//! What a training is given: conversations with their pictures, as far as those can be decoded.
//!
//! Knows nothing of objectives or steps.

use std::collections::HashMap;

use image::RgbImage;
use rayon::prelude::*;

use super::super::listing::allows;
use crate::artifact::Turn;
use crate::data::picture::decode;
use crate::model::ModelError;
use crate::model::batch::{answer_count, filled};
use crate::model::processor::Processor;
use crate::model::sequence::Sequence;
use crate::train::training::Example;
use stic_engine::diagnostic::counted;
use stic_engine::digest::Digest;
use stic_engine::node::{Context, Failure, OnBadItem};

/// What must be trained on, in the order of the inputs.
#[derive(Default)]
pub struct Set {
    items: Vec<Conversations>,
    pub(super) pictures: Vec<Digest>,
    numbers: HashMap<Digest, usize>,
    answers: usize,
    empty: usize,
    /// How many pairs have equal responses.
    pub(super) equal: usize,
}

/// What is trained on.
pub(super) struct Examples {
    /// In the order of the inputs.
    pub list: Vec<Example>,
    /// How many items were left out since none of their answers has a token: there is nothing in them to learn from.
    pub unanswered: usize,
    /// How many items were left out since they cannot be trained on.
    pub bad: usize,
}

/// The conversations of one item.
struct Conversations {
    name: String,
    /// As [`Set::pictures`] numbers it.
    picture: Option<usize>,
    turns: Vec<Vec<Turn>>,
}

impl Set {
    /// Adds what belongs to one item, which is called `name` in messages: one conversation, or a pair of them.
    pub fn add(&mut self, name: String, picture: Option<Digest>, turns: Vec<Vec<Turn>>) {
        let picture = picture.map(|digest| {
            *self.numbers.entry(digest).or_insert_with(|| {
                self.pictures.push(digest);
                self.pictures.len() - 1
            })
        });
        self.items.push(Conversations { name, picture, turns });
    }

    /// Whether nothing was added.
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The examples, of at most `max_length` tokens. Bad items are left out and reported: those whose picture cannot
    /// be decoded, whose conversations cannot be tokenized, or of whose answers nothing would be left. Known before the
    /// first step, since steps and their learning rates depend on the number of examples.
    ///
    /// # Errors
    /// When there are more bad items than `on_bad_item` allows, or a picture cannot be had.
    pub(super) fn examples(
        &self,
        processor: &Processor,
        max_length: usize,
        on_bad_item: OnBadItem,
        context: &dyn Context,
    ) -> Result<Examples, Failure> {
        let look = |digest: &Digest| {
            if context.interrupted() {
                return Err(Failure::Interrupted);
            }
            Ok(decoded(digest, context)?.map(|picture| picture.dimensions().into()))
        };
        // How many image tokens a picture takes may depend on its size.
        let sizes = self.pictures.par_iter().map(look).collect::<Result<Vec<_>, Failure>>()?;
        let sequences = |item: &Conversations| {
            let size = item.picture.map(|picture| sizes[picture].clone()).transpose()?;
            let layouts = processor.images().layout(size.as_slice());
            let layouts: Vec<_> = layouts.iter().collect();
            let sequence = |turns: &Vec<Turn>| processor.tokenize(turns, &layouts)?.cut_to(max_length);
            let sequences = item.turns.iter().map(sequence).collect::<Result<Vec<Sequence>, ModelError>>();
            sequences.map_err(|error| error.to_string())
        };
        let (mut list, mut unanswered, mut bad) = (Vec::with_capacity(self.items.len()), 0, Vec::new());
        for item in &self.items {
            match sequences(item) {
                Ok(sequences) if sequences.iter().all(|sequence| answer_count(sequence) == 0) => unanswered += 1,
                Ok(sequences) => list.push(Example { name: item.name.clone(), sequences, picture: item.picture }),
                Err(cause) => bad.push(format!("{}: {cause}", item.name)),
            }
        }
        let (count, all) = (bad.len(), list.len() + bad.len());
        let Some(first) = bad.first() else { return Ok(Examples { list, unanswered, bad: 0 }) };
        if !allows(on_bad_item, count, all) {
            let message = format!("{count} of {} cannot be trained on, first {first}", counted(all, "example"));
            let table = format!("[nodes.{}]", context.node());
            return Err(Failure::node(message).help(match on_bad_item {
                OnBadItem::Fail => {
                    format!("fix or remove them, or remove `on_bad_item = \"fail\"` in {table}")
                }
                OnBadItem::Skip { .. } if count == all => "fix them: nothing would be left to train on".to_owned(),
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
        Ok(Examples { list, unanswered, bad: count })
    }

    /// Takes notice of an answer that must be made likelier.
    pub fn wanted(&mut self, answer: &str) {
        self.answers += 1;
        self.empty += usize::from(answer.trim().is_empty());
    }

    /// Takes notice of a pair: from equal responses nothing is learned.
    pub fn compared(&mut self, chosen: &str, rejected: &str) {
        self.equal += usize::from(chosen == rejected);
    }

    /// That some of the answers that must be made likelier are empty: nothing can be learned from them.
    pub(super) fn emptiness(&self) -> Option<String> {
        let Self { answers, empty, .. } = self;
        let are = if *empty == 1 { "is" } else { "are" };
        (*empty > 0).then(|| format!("{empty} of {} to be learnt {are} empty", counted(*answers, "answer")))
    }
}

/// Whether one of `end_tokens` is among what `examples` teach.
pub(super) fn teach_end(examples: &[Example], end_tokens: &[u32]) -> bool {
    let mut sequences = examples.iter().flat_map(|example| &example.sequences);
    sequences.any(|sequence| sequence.answers().any(|index| end_tokens.contains(&sequence.tokens[index])))
}

/// The most positions that one of `examples` takes, regardless of its picture's size: at most `image_tokens` are a
/// picture's.
pub(super) fn longest(examples: &[Example], image_tokens: usize) -> usize {
    let positions = |example: &Example| {
        let own = example.sequences[0].image_tokens();
        filled(&example.sequences) - own + if own > 0 { image_tokens } else { 0 }
    };
    examples.iter().map(positions).max().unwrap_or_default()
}

/// A picture, or what is reported of it when it cannot be decoded.
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
    use std::path::Path;

    use super::super::tests::harness;
    use super::*;
    use crate::model::processor::round;
    use crate::nodes::harness::TestContext;
    use stic_engine::node::Objects;

    fn processor() -> Processor {
        let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/llava");
        Processor::read(&checkpoint, None, &[].into()).unwrap()
    }

    fn examples(set: &Set, on_bad_item: OnBadItem, harness: &TestContext) -> Result<Examples, Failure> {
        set.examples(&processor(), 99, on_bad_item, harness)
    }

    #[test]
    fn an_example_without_a_token_to_learn_is_left_out_and_counted() {
        let answered = |answers: &[&str]| answers.iter().map(|answer| round("What?", Some(answer))).collect();
        let mut set = Set::default();
        for answers in [&[""][..], &["", ""], &["yes", ""], &["yes"]] {
            set.add("item".to_owned(), None, answered(answers));
        }
        let found = examples(&set, OnBadItem::default(), &harness().0).unwrap();
        assert_eq!((found.list.len(), found.unanswered, found.bad), (2, 2, 0));
    }

    #[test]
    fn a_prompt_that_is_too_long_is_a_bad_item_among_many() {
        let (harness, _) = harness();
        let asked = |words: usize| vec![round(&"what ".repeat(words), Some("yes"))];
        let mut set = Set::default();
        (0..200).for_each(|index| set.add(format!("item {index}"), None, asked(1)));
        set.add("the long one".to_owned(), None, asked(200));
        let found = examples(&set, OnBadItem::default(), &harness).unwrap();
        assert_eq!((found.list.len(), found.bad), (200, 1));
        let note = harness.notes.lock().unwrap()[0].clone();
        assert!(note.contains("first the long one: the prompt takes "), "{note}");
    }

    #[test]
    fn pictures_that_cannot_be_decoded_are_few_or_fail_the_node() {
        let (harness, pictures) = harness();
        let bad = harness.objects.put(b"no picture").unwrap();
        let set = |good: usize| {
            let mut set = Set::default();
            let digests = pictures.iter().cycle().take(good).chain([&bad]);
            digests.for_each(|digest| set.add(digest.short(), Some(*digest), vec![round("What?", Some("A ring."))]));
            set
        };
        let found = examples(&set(200), OnBadItem::default(), &harness).unwrap();
        assert_eq!((found.list.len(), found.bad), (200, 1));
        let note = harness.notes.lock().unwrap()[0].clone();
        assert!(note.starts_with("left out 1 of 201 examples that cannot be trained on, first "), "{note}");
        assert!(note.contains("`: not a picture: "), "{note}");
        assert!(examples(&set(200), OnBadItem::Fail, &harness).is_err());
        let error = examples(&set(3), OnBadItem::default(), &harness).err().unwrap().to_string();
        assert!(error.starts_with("1 of 4 examples cannot be trained on, first "), "{error}");
    }
}
