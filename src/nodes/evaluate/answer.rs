//! Generates descriptions of pictures and answers to the questions about them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::{EvaluateNode, Form, Loaded, Reply};
use crate::artifact::Finish;
use crate::model::ModelError;
use crate::model::contract::ImageInput;
use crate::model::generate::{Generator, Request, Step};
use crate::model::processor::{Processor, round};
use stic_engine::digest::Digest;
use stic_engine::node::{BadItem, Context, Item, ItemValue, Progress};

/// A picture and the questions about it.
pub(super) struct Subject {
    /// The picture.
    pub image: Arc<ImageInput>,
    /// Its digest.
    pub picture: Digest,
    /// Indices of the questions about it.
    pub questions: Vec<usize>,
}

/// What is needed to answer the questions of one `map`.
pub(super) struct Run<'a> {
    pub node: &'a EvaluateNode,
    pub loaded: &'a Loaded,
    pub items: &'a [Item],
    pub processor: &'a Processor,
    pub generator: &'a Generator<'a>,
    pub context: &'a dyn Context,
    pub finished: &'a mut dyn FnMut(usize, Result<ItemValue, BadItem>) -> ControlFlow<()>,
    pub progress: Progress,
}

/// A description, none where the form has none, or why there is none.
type Described = Result<Option<String>, String>;

/// A text that the model wrote.
struct Written {
    text: String,
    tokens: usize,
    finish: Finish,
}

impl Run<'_> {
    /// Describes the pictures of a group if the form needs it, then answers the questions about them.
    pub fn group(&mut self, group: &[Subject]) -> ControlFlow<()> {
        let descriptions = self.describe(group)?;
        let (node, loaded, processor) = (self.node, self.loaded, self.processor);
        let mut prompts: BTreeMap<usize, (Option<String>, String)> = BTreeMap::new();
        let mut requests = Vec::new();
        for (subject, description) in std::iter::zip(group, descriptions) {
            for index in subject.questions.iter().copied() {
                let description = match &description {
                    Ok(description) => description.clone(),
                    Err(cause) => {
                        self.finish(index, Err(bad(loaded, index, cause)))?;
                        continue;
                    }
                };
                let prompt =
                    node.describe_and_respond.prompt(description.as_deref(), &loaded.suite.items[index].question);
                let sequence = processor.tokenize(&round(&prompt, None), &[&subject.image.layout]);
                let request = sequence.map(|sequence| Request {
                    tag: index,
                    subject: self.items[index].id.to_string(),
                    sequence,
                    image: Some(subject.image.clone()),
                });
                prompts.insert(index, (description, prompt));
                requests.push(request.map_err(|error| (index, error)));
            }
        }
        self.write(requests, |run, index, written| {
            let value = written.map_err(|error| bad(loaded, index, &error.message)).and_then(|written| {
                let (description, prompt) = prompts.get(&index).cloned().unwrap_or_default();
                let Written { text, tokens, finish } = written;
                let reply = Reply { description, prompt, text, tokens, finish };
                let value = serde_json::to_value(reply).map_err(|cause| bad(loaded, index, &cause.to_string()))?;
                Ok(ItemValue { value, objects: Vec::new() })
            });
            run.finish(index, value)
        })
    }

    /// The description of each picture of the group, or why there is none; no description where the form has none.
    fn describe(&mut self, group: &[Subject]) -> ControlFlow<(), Vec<Described>> {
        let (node, processor) = (self.node, self.processor);
        if !node.describe_and_respond.describes() || group.is_empty() {
            return ControlFlow::Continue(vec![Ok(None); group.len()]);
        }
        let sees = node.describe_and_respond != Form::Published;
        // What is neither shown a picture nor drawn is the same for all.
        let count = if sees || node.temperature > 0.0 { group.len() } else { 1 };
        let request = |(place, subject): (usize, &Subject)| {
            let image = sees.then(|| subject.image.clone());
            let layouts: Vec<_> = image.iter().map(|image| &image.layout).collect();
            let sequence = processor.tokenize(&round(&node.describe_prompt, None), &layouts);
            let sequence = sequence.map_err(|error| (place, error))?;
            Ok(Request { tag: place, subject: format!("description of {}", subject.picture), sequence, image })
        };
        let requests = group.iter().take(count).enumerate().map(request).collect();
        let mut descriptions = vec![Ok(None); group.len()];
        // A description that serves all pictures is one for each of them.
        let served = if count == group.len() { 1 } else { group.len() };
        self.write(requests, |run, place, written| {
            run.advance(served);
            descriptions[place] = written.map(|written| Some(written.text)).map_err(|error| error.message);
            ControlFlow::Continue(())
        })?;
        let first = descriptions[0].clone();
        descriptions[count..].fill(first);
        ControlFlow::Continue(descriptions)
    }

    /// Runs requests and hands on what was written, by tag.
    fn write(
        &mut self,
        requests: Vec<Result<Request, (usize, ModelError)>>,
        mut take: impl FnMut(&mut Self, usize, Result<Written, ModelError>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let (generator, tokenizer) = (self.generator, self.processor.tokenizer());
        generator.run(requests, &mut |step| {
            let flow = match step {
                Step::Tokens(count) => {
                    self.progress.tokens = self.progress.tokens.map(|tokens| tokens + count as u64);
                    self.context.progress(self.progress);
                    ControlFlow::Continue(())
                }
                Step::Done(tag, answer) => {
                    let written = answer.and_then(|answer| {
                        let (tokens, finish) = (answer.tokens.len(), answer.finish);
                        Ok(Written { text: tokenizer.decode(&answer.tokens)?, tokens, finish })
                    });
                    take(self, tag, written)
                }
            };
            if self.context.interrupted() { ControlFlow::Break(()) } else { flow }
        })
    }

    /// Hands an item's value on.
    pub fn finish(&mut self, index: usize, value: Result<ItemValue, BadItem>) -> ControlFlow<()> {
        self.advance(1);
        (self.finished)(index, value)
    }

    /// Counts further descriptions or answers.
    pub fn advance(&mut self, count: usize) {
        self.progress.done += count;
        self.context.progress(self.progress);
    }
}

fn bad(loaded: &Loaded, index: usize, cause: &str) -> BadItem {
    BadItem { what: loaded.suite.items[index].picture.display().to_string(), cause: cause.to_owned() }
}
