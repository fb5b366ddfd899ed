//! Generation: tokens from prompts with pictures, in batches, with a KV cache.
//!
//! Requests come as a stream; those of like length are run together. The shape of a batch follows from the length of
//! its prompts and the model alone: prompts are padded at their end to a multiple of 32 positions, every row of a batch
//! goes through the same number of positions, and on the CPU a batch that is not full is filled with copies. So
//! on the CPU an answer's bits do not depend on the other requests. A row's place in the batch does not matter
//! either: every row of a product is computed alike.
//!
//! On a GPU shapes are few instead, so that kernels are compiled and tuned once: lengths are multiples of 64, batches
//! have powers of two of rows, and what changes from token to token stays on the device (`generate/ahead.rs`).
//!
//! Draws are functions of (seed, request), on the host. This module does not know templates, files or nodes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor};
use rayon::iter::{IndexedParallelIterator, IntoParallelRefMutIterator, ParallelIterator};
use rayon::slice::ParallelSlice;

mod ahead;

use super::ModelError;
use super::adapter::Adapter;
use super::attention::{LayerCache, Slot};
use super::batch::{Batch, Input, Member, integers};
use super::contract::{ImageFeatures, ImageInput, Model};
use super::device::suspect;
use super::forward::forward;
use super::sample::Sampling;
use super::sequence::Sequence;
use super::tokenizer::Tokenizer;
use crate::artifact::Finish;
use stic_engine::draw::Draws;

/// Prompts are padded to a multiple of so many positions, and the slots that are attended grow by so many at a time.
const STEP: usize = 64;
const STEP_ON_CPU: usize = 32;

/// How many positions go through the layers at once in the prefill. On the CPU few: copies that fill a batch are
/// computed for its last group alone, and one prompt of some hundred positions is a group.
const PREFILL: usize = 8192;
const PREFILL_ON_CPU: usize = 512;

/// How many prepared pictures may wait for prompts of like length.
const WAITING: usize = 256;

/// A prompt to complete.
#[derive(Clone, Debug)]
pub struct Request {
    /// The caller's number for it.
    pub tag: usize,
    /// What its draws depend on, beside the seed: an item's id.
    pub subject: String,
    /// The prompt.
    pub sequence: Sequence,
    /// The image that it shows. Requests that hold the same `Arc` share the tower's work.
    pub image: Option<Arc<ImageInput>>,
}

/// A model's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The tokens, the one that ends the answer included.
    pub tokens: Vec<u32>,
    /// Why it stopped.
    pub finish: Finish,
}

/// What happens during a generation.
#[derive(Debug)]
pub enum Step {
    /// So many tokens were generated.
    Tokens(usize),
    /// The outcome of the request with this tag.
    Done(usize, Result<Answer, ModelError>),
}

/// How to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The longest answer, in tokens.
    pub max_new_tokens: usize,
    /// For draws.
    pub seed: u64,
    /// Prompts per batch; `None`: as many as fit a limit of memory, at most 16 on the CPU and 64 on a GPU.
    pub batch_size: Option<usize>,
}

/// A model that writes.
pub struct Generator<'a> {
    model: &'a dyn Model,
    adapter: Option<&'a Adapter>,
    settings: Settings,
    /// By token id, whether the model may write it.
    allowed: Vec<bool>,
    on_cpu: bool,
}

/// One row of a batch.
struct Row {
    request: Request,
    /// Positions of the prompt, image tokens included.
    length: usize,
    /// The rotary position at which the answer begins.
    next: usize,
    /// The most tokens that it may get.
    limit: usize,
    draws: Draws,
    tokens: Vec<u32>,
    /// Whether the answer is unfinished.
    open: bool,
}

impl<'a> Generator<'a> {
    /// A generator over `model`, changed by `adapter`. Tokens that `tokenizer` has no text for are never written.
    pub fn new(model: &'a dyn Model, adapter: Option<&'a Adapter>, tokenizer: &Tokenizer, settings: Settings) -> Self {
        let shape = model.shape();
        let may_come = |id| tokenizer.is_text(id) || shape.end_tokens.contains(&id);
        let allowed = (0..shape.vocabulary as u32).map(may_come).collect();
        Self::among(model, adapter, allowed, settings)
    }

    /// The same with the tokens that are `allowed`, by id.
    pub fn among(model: &'a dyn Model, adapter: Option<&'a Adapter>, allowed: Vec<bool>, settings: Settings) -> Self {
        Self { model, adapter, settings, allowed, on_cpu: model.device() == Device::flex() }
    }

    /// Runs `requests`, which may be refused where they come from, and reports to `watch` what becomes of them, in no
    /// particular order. When `watch` says [`ControlFlow::Break`], requests in flight are dropped, and this returns
    /// `Break`: it is called before every layer and after every token.
    pub fn run(
        &self,
        requests: impl IntoIterator<Item = Result<Request, (usize, ModelError)>>,
        watch: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut waiting: BTreeMap<usize, Vec<Row>> = BTreeMap::new();
        for request in requests {
            let row = match request.and_then(|request| self.admit(request)) {
                Ok(row) => row,
                Err((tag, error)) => {
                    watch(Step::Done(tag, Err(error)))?;
                    continue;
                }
            };
            let length = row.length.next_multiple_of(self.at_a_time());
            let bucket = waiting.entry(length).or_default();
            bucket.push(row);
            let full = bucket.len() >= self.batch_size(length);
            let run_now = if full {
                Some(length)
            } else if waiting.values().map(Vec::len).sum::<usize>() > WAITING {
                waiting.iter().max_by_key(|(_, rows)| rows.len()).map(|(length, _)| *length)
            } else {
                None
            };
            if let Some(rows) = run_now.and_then(|length| waiting.remove(&length)) {
                self.batch(rows, watch)?;
            }
        }
        waiting.into_values().try_for_each(|rows| self.batch(rows, watch))
    }

    /// One request alone.
    ///
    /// # Errors
    /// When the prompt does not fit the model, or the model produces NaN or infinite logits.
    pub fn one(&self, request: Request) -> Result<Answer, ModelError> {
        let mut answer = Err(ModelError::new("the request was not run"));
        let alone = Self {
            settings: Settings { batch_size: Some(1), ..self.settings.clone() },
            allowed: self.allowed.clone(),
            ..*self
        };
        let _ = alone.run([Ok(request)], &mut |step| {
            if let Step::Done(_, result) = step {
                answer = result;
            }
            ControlFlow::Continue(())
        });
        answer
    }

    /// Measures a request, and refuses one that does not fit the model.
    fn admit(&self, request: Request) -> Result<Row, (usize, ModelError)> {
        let length = request.sequence.positions();
        let context = self.model.shape().context;
        if length == 0 {
            return Err((request.tag, ModelError::new("the prompt is empty")));
        }
        if length >= context {
            let error = ModelError::new(format!(
                "the prompt takes {length} positions, {} of them the picture's, and the model's context is {context}",
                request.sequence.image_tokens()
            ));
            let help = "shorten the prompt, or choose image settings with fewer image tokens";
            return Err((request.tag, error.help(help)));
        }
        let limit = self.settings.max_new_tokens.min(context - length);
        let draws = Draws::new(self.settings.seed, "token", &request.subject);
        let (_, next) = self.model.positions(&request.sequence);
        Ok(Row { request, length, next, limit, draws, tokens: Vec::new(), open: true })
    }

    /// How many prompts of `length` positions go together. By the length and the model alone, so that an item's batch
    /// has the same shape in every run.
    fn batch_size(&self, length: usize) -> usize {
        if let Some(size) = self.settings.batch_size {
            return size.max(1);
        }
        let shape = self.model.shape();
        let width = if self.model.dtype() == DType::F32 { 4 } else { 2 };
        let position = shape.layers * shape.cached * width;
        // On the CPU 16 rows per step cost as little per token as 64 (measured at 128 features), and a batch that is
        // not full is filled with fewer copies.
        let (memory, most) = if self.on_cpu { (1 << 30, 16) } else { (8 << 30, 64) };
        let fitting = (memory / (position * self.capacity(length))).clamp(1, most);
        // The power of two that is not above it.
        1 << fitting.ilog2()
    }

    fn capacity(&self, length: usize) -> usize {
        let context = self.model.shape().context + self.at_a_time();
        length.saturating_add(self.settings.max_new_tokens).min(context).next_multiple_of(self.at_a_time())
    }

    fn at_a_time(&self) -> usize {
        if self.on_cpu { STEP_ON_CPU } else { STEP }
    }

    /// Runs one batch; all rows' prompts round up to one length.
    fn batch(&self, mut rows: Vec<Row>, watch: &mut dyn FnMut(Step) -> ControlFlow<()>) -> ControlFlow<()> {
        let length = rows[0].length.next_multiple_of(self.at_a_time());
        let most = self.batch_size(length);
        let size = if self.on_cpu { most } else { rows.len().next_power_of_two().min(most) };
        let (mut caches, logits) = self.prefill(&rows, length, size, watch)?;
        if !self.on_cpu {
            return self.decode_ahead(&mut rows, &mut caches, logits, [length, size], watch);
        }
        let mut logits = read(logits);
        for step in 0.. {
            let open = rows.iter().filter(|row| row.open).count();
            report(open, self.choose(&mut rows, &logits), watch)?;
            if rows.iter().all(|row| !row.open) {
                break;
            }
            logits = read(self.decode(&rows, &mut caches, [length, step, size], watch)?);
        }
        ControlFlow::Continue(())
    }

    /// Gives every open row its next token, and says which rows that ended.
    fn choose(&self, rows: &mut [Row], logits: &[f32]) -> Vec<(usize, Result<Answer, ModelError>)> {
        let vocabulary = self.allowed.len();
        let sampling = &self.settings.sampling;
        rows.par_iter_mut()
            .zip(logits.par_chunks(vocabulary))
            .filter(|(row, _)| row.open)
            .filter_map(|(row, logits)| {
                let chosen = sampling.choose(logits, &self.allowed, &mut row.draws);
                let result = row.take(chosen, self.model)?;
                Some((row.request.tag, result))
            })
            .collect()
    }

    /// Runs the prompts, and gives the caches and the logits of the first tokens, `[size, vocabulary]`.
    fn prefill(
        &self,
        rows: &[Row],
        length: usize,
        size: usize,
        watch: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> ControlFlow<(), (Vec<LayerCache>, Tensor<2>)> {
        let most = if self.on_cpu { PREFILL_ON_CPU } else { PREFILL };
        let at_once = (1..=size).rev().find(|count| size.is_multiple_of(*count) && count * length <= most).unwrap_or(1);
        let mut images = Images::default();
        let asked = rows.len().next_multiple_of(at_once);
        let members: Vec<&Row> = (0..asked).map(|place| &rows[place % rows.len()]).collect();
        let (mut parts, mut last) = (Vec::new(), Vec::new());
        for rows in members.chunks(at_once) {
            let mut caches = self.model.caches(rows.len(), self.capacity(length));
            let image = |row: &&Row| row.request.image.as_ref().map(|image| images.place(self.model, image));
            let shown: Vec<Option<usize>> = rows.iter().map(image).collect();
            let members: Vec<Member<'_>> = std::iter::zip(rows, shown)
                .map(|(row, image)| Member { sequences: std::slice::from_ref(&row.request.sequence), image })
                .collect();
            let batch = Batch::new(self.model, &members, &images.features, |_| length);
            let hidden = self.run_layers(&batch.input, &mut caches, watch)?;
            let [count, _, features] = hidden.dims();
            let ends = rows.iter().enumerate().map(|(place, row)| (place * length + row.length - 1) as i32);
            let ends = integers(ends.collect(), &self.model.device());
            last.push(hidden.reshape([count * length, features]).select(0, ends));
            parts.push(caches);
        }
        // Whatever fills the batch up only has to have its shape.
        for copy in 0..(size - asked) / at_once {
            parts.push(parts[copy].clone());
            last.push(last[copy].clone());
        }
        ControlFlow::Continue((LayerCache::join(parts), self.model.logits(Tensor::cat(last, 0))))
    }

    /// Runs the last token of every row, and gives the logits of the next, `[size, vocabulary]`.
    fn decode(
        &self,
        rows: &[Row],
        caches: &mut [LayerCache],
        [length, step, size]: [usize; 3],
        watch: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> ControlFlow<(), Tensor<2>> {
        let members: Vec<&Row> = (0..size).map(|place| &rows[place % rows.len()]).collect();
        let tokens: Vec<u32> = members.iter().map(|row| row.tokens.last().copied().unwrap_or_default()).collect();
        let hidden = self.model.embed(&tokens);
        let features = hidden.dims()[1];
        let query = |row: &&Row| vec![Some(Slot::at(row.length + step, row.next + step))];
        let attended = (length + step + 1).next_multiple_of(self.at_a_time());
        let queries: Vec<_> = members.iter().map(query).collect();
        let keys: Vec<_> = members.iter().map(|row| row.keys(length, length + step + 1, attended)).collect();
        let attention = self.model.attention(&queries, &keys);
        let input = Input { hidden: hidden.reshape([size, 1, features]), added: Vec::new(), attention };
        let hidden = self.run_layers(&input, caches, watch)?;
        ControlFlow::Continue(self.model.logits(hidden.reshape([size, features])))
    }

    fn run_layers(
        &self,
        input: &Input,
        caches: &mut [LayerCache],
        watch: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> ControlFlow<(), Tensor<3>> {
        let adapter = |index: usize| self.adapter.map(|adapter| Cow::Borrowed(&adapter.layers[index]));
        forward(self.model, input, adapter, Some(caches), |_| watch(Step::Tokens(0)))
    }
}

fn read(logits: Tensor<2>) -> Vec<f32> {
    logits.into_data().try_to_vec().expect("logits are 32-bit floats")
}

/// Says that the `open` rows have got a token, and what ended by it: all of it, even when `watch` breaks off at the
/// first.
fn report(
    open: usize,
    ended: Vec<(usize, Result<Answer, ModelError>)>,
    watch: &mut dyn FnMut(Step) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut flow = watch(Step::Tokens(open));
    for (tag, result) in ended {
        if watch(Step::Done(tag, result)) == ControlFlow::Break(()) {
            flow = ControlFlow::Break(());
        }
    }
    flow
}

impl Row {
    /// The slots of its cache, `attended` of them, of which `filled` hold keys. The prompts of the batch take `length`
    /// slots. Keys were turned when they were computed: only their order matters.
    fn keys(&self, length: usize, filled: usize, attended: usize) -> Vec<Option<Slot>> {
        let slot = |order: usize| Some(Slot::at(order, order));
        let slot = |index: usize| match index {
            index if index < self.length => slot(index),
            index if index < length || index >= filled => None,
            index => slot(self.length + index - length),
        };
        (0..attended).map(slot).collect()
    }

    /// Takes the next token; the result once the answer is complete.
    fn take(&mut self, chosen: Option<u32>, model: &dyn Model) -> Option<Result<Answer, ModelError>> {
        let Some(token) = chosen else {
            self.open = false;
            let (on, test) = suspect(&model.device()).map_or_else(Default::default, |name| {
                (
                    format!(" on `{name}`"),
                    format!("; `stic devices --test {name}` tells whether the device computes right"),
                )
            });
            return Some(Err(ModelError::new(format!("all logits of the model are NaN or infinite{on}")).help(
                format!("a precision with more range (`bf16`, `f32`) may help, or the adapter is damaged{test}"),
            )));
        };
        self.tokens.push(token);
        let finish = if model.shape().end_tokens.contains(&token) {
            Finish::Stop
        } else if self.tokens.len() >= self.limit {
            Finish::Length
        } else {
            return None;
        };
        self.open = false;
        Some(Ok(Answer { tokens: self.tokens.clone(), finish }))
    }
}

/// The features of the images of a batch, each computed once.
#[derive(Default)]
struct Images {
    known: Vec<Arc<ImageInput>>,
    features: Vec<ImageFeatures>,
}

impl Images {
    /// Which of the features are those of `image`.
    fn place(&mut self, model: &dyn Model, image: &Arc<ImageInput>) -> usize {
        let known = self.known.iter().position(|known| Arc::ptr_eq(known, image));
        known.unwrap_or_else(|| {
            self.known.push(image.clone());
            self.features.extend(model.encode_images(&[image]));
            self.known.len() - 1
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::llava::Llava;
    use crate::model::tokenizer::tests::tokenizer;
    use crate::model::{llama, tiny};

    const VOCABULARY: usize = 97;

    /// A model with random weights, wide enough for the CPU's blocked products.
    pub fn model() -> Llava {
        model_on(&tiny::device())
    }

    fn model_on(device: &Device) -> Llava {
        let text = llama::Config {
            vocabulary: VOCABULARY,
            hidden: 128,
            intermediate: 344,
            layers: 2,
            head_size: 32,
            max_positions: 160,
            ..tiny::text()
        };
        tiny::build_on(text, DType::F32, device)
    }

    fn image(index: usize) -> Arc<ImageInput> {
        Arc::new(tiny::image(index))
    }

    /// A prompt whose length depends on `index`, every second one with a picture.
    pub fn request(index: usize) -> Request {
        let mut draws = Draws::new(index as u64, "prompt", "");
        let mut tokens: Vec<u32> = (0..5 + 7 * (index % 6)).map(|_| 3 + draws.below(90) as u32).collect();
        let shown = index.is_multiple_of(2);
        if shown {
            tokens[2] = tiny::IMAGE;
        }
        let answer = vec![false; tokens.len()];
        Request {
            tag: index,
            subject: format!("item {index}"),
            sequence: Sequence { tokens, images: tiny::runs(shown), answer, cut: 0 },
            image: shown.then(|| image(index)),
        }
    }

    pub fn settings(temperature: f64) -> Settings {
        let sampling = Sampling { temperature, top_k: 50, top_p: 1.0 };
        Settings { sampling, max_new_tokens: 40, seed: 7, batch_size: Some(8) }
    }

    fn run(model: &Llava, settings: Settings, requests: Vec<Request>) -> BTreeMap<usize, Answer> {
        let tokenizer = tokenizer("mistral");
        let generator = Generator::new(model, None, &tokenizer, settings);
        let mut answers = BTreeMap::new();
        let watch = &mut |step: Step| {
            if let Step::Done(tag, answer) = step {
                assert!(answers.insert(tag, answer.unwrap()).is_none(), "{tag} is reported once");
            }
            ControlFlow::Continue(())
        };
        assert!(generator.run(requests.into_iter().map(Ok), watch).is_continue());
        answers
    }

    #[test]
    fn answers_do_not_depend_on_what_they_were_batched_with() {
        let model = model_on(&Device::flex());
        for temperature in [0.0, 1.0] {
            let together = run(&model, settings(temperature), (0..20).map(request).collect());
            assert_eq!(together.len(), 20);
            let reversed = run(&model, settings(temperature), (0..20).rev().map(request).collect());
            assert_eq!(together, reversed);
            for index in 0..20 {
                let alone = run(&model, settings(temperature), vec![request(index)]);
                assert_eq!(alone[&index], together[&index], "request {index} at temperature {temperature}");
            }
        }
    }

    #[test]
    fn logits_do_not_depend_on_the_neighbors_to_the_last_bit() {
        let model = model_on(&Device::flex());
        let tokenizer = tokenizer("mistral");
        let generator = Generator::new(&model, None, &tokenizer, settings(0.0));
        let rows = |indices: &[usize]| -> Vec<Row> {
            indices.iter().map(|index| generator.admit(request(*index)).unwrap()).collect()
        };
        let logits = |indices: &[usize]| {
            let mut rows = rows(indices);
            let go_on = &mut |_: Step| ControlFlow::Continue(());
            let began = generator.prefill(&rows, 64, 16, go_on).continue_value();
            let (mut caches, logits) = began.unwrap();
            let mut logits = read(logits);
            let mut all = vec![logits.clone()];
            for step in 0..3 {
                generator.choose(&mut rows, &logits);
                let next = generator.decode(&rows, &mut caches, [64, step, 16], go_on).continue_value();
                logits = read(next.unwrap());
                all.push(logits.clone());
            }
            all
        };
        // More than one group of prompts, and less than one: then the other is not computed but copied.
        let asked = [4, 5, 10, 11, 16, 17, 22, 23];
        assert!(64 * asked.len() == PREFILL_ON_CPU, "a group");
        let (first, second) = (logits(&[&asked[..], &[28, 29, 34]].concat()), logits(&[23, 22, 4, 5]));
        for (a, b) in first.iter().zip(&second) {
            assert_eq!(a[..VOCABULARY], b[2 * VOCABULARY..3 * VOCABULARY]);
            assert_eq!(a[7 * VOCABULARY..8 * VOCABULARY], b[..VOCABULARY]);
        }
    }

    #[test]
    fn what_is_in_flight_is_let_go_of_when_it_is_told_to_stop() {
        let model = model();
        let tokenizer = tokenizer("mistral");
        let generator = Generator::new(&model, None, &tokenizer, settings(1.0));
        for stop_at in [1, model.shape().layers + 2] {
            let (mut asked, mut done) = (0, 0);
            let watch = &mut |step: Step| {
                asked += 1;
                done += usize::from(matches!(step, Step::Done(..)));
                if asked >= stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            assert!(generator.run((0..20).map(|index| Ok(request(index))), watch).is_break());
            assert_eq!(asked - done, stop_at, "nothing is computed once it was told to stop");
        }
    }

    #[test]
    fn the_cache_changes_nothing() {
        let model = model();
        let answers = run(&model, settings(0.0), (0..6).map(request).collect());
        let allowed = Generator::new(&model, None, &tokenizer("mistral"), settings(0.0)).allowed;
        for index in 0..6 {
            let Request { mut sequence, image, .. } = request(index);
            let features: Vec<_> = image.iter().flat_map(|image| model.encode_images(&[image])).collect();
            for token in &answers[&index].tokens {
                let sequences = std::slice::from_ref(&sequence);
                let member = Member { sequences, image: image.as_ref().map(|_| 0) };
                let batch = Batch::new(&model, &[member], &features, |longest| longest);
                let hidden = forward(&model, &batch.input, |_| None, None, |_| ControlFlow::Continue(()));
                let hidden = hidden.continue_value().unwrap();
                let [_, length, features] = hidden.dims();
                let logits = model.logits(hidden.reshape([length, features]).narrow(0, length - 1, 1));
                let logits: Vec<f32> = logits.into_data().try_to_vec().unwrap();
                let mut draws = Draws::new(0, "", "");
                let best = Sampling::GREEDY.choose(&logits, &allowed, &mut draws);
                assert_eq!(best, Some(*token), "request {index}");
                sequence.tokens.push(*token);
            }
        }
    }

    #[test]
    fn answers_end_at_the_end_token_the_limit_or_the_context() {
        let model = model();
        let limited = run(&model, Settings { max_new_tokens: 3, ..settings(1.0) }, (0..12).map(request).collect());
        for answer in limited.values() {
            let stopped = answer.tokens.last() == Some(&2);
            assert_eq!(answer.finish, if stopped { Finish::Stop } else { Finish::Length });
            assert!(answer.tokens.len() <= 3 && (stopped || answer.tokens.len() == 3));
        }
        // The context has 160 positions.
        let mut long = request(1);
        long.sequence.tokens.resize(158, 5);
        let answer = &run(&model, settings(0.0), vec![long.clone()])[&1];
        assert_eq!((answer.tokens.len(), answer.finish), (2, Finish::Length));
        long.sequence.tokens.resize(160, 5);
        let tokenizer = tokenizer("mistral");
        let error = Generator::new(&model, None, &tokenizer, settings(0.0)).one(long).unwrap_err();
        assert!(error.message.starts_with("the prompt takes 160 positions, 0 of them the picture's"), "{error}");
    }

    #[test]
    fn what_the_tokenizer_has_no_text_for_is_never_written() {
        let model = model();
        let tokenizer = tokenizer("mistral");
        let generator = Generator::new(&model, None, &tokenizer, settings(0.0));
        assert!(generator.allowed.iter().enumerate().all(|(id, allowed)| *allowed == tokenizer.is_text(id as u32)));
        let mut wide = generator;
        wide.allowed = vec![false; VOCABULARY];
        wide.allowed[5] = true;
        let answer = wide.one(request(1)).unwrap();
        assert!(answer.tokens.iter().all(|token| *token == 5));
    }
}
