//! The training loop: epochs, batches, gradient accumulation over micro-batches, steps, checkpoints.
//!
//! What is computed depends on the examples, the settings, the seed and the size of micro-batches, which is kept in
//! its checkpoints; so a training that was stopped ends with the bits of one that was not. A step that
//! overflows keeps its place in the order and in the schedule, and changes nothing but the loss scale. This module does
//! not know where examples and pictures come from, nor what becomes of the adapter.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::checkpoint::{Checkpoint, Checkpoints, Found, State};
use super::dropout::Dropout;
use super::features::FeatureCache;
use super::log::Line;
use super::loss::dpo::Sums;
use super::objective::{BatchLoss, Objective, sums};
use super::optimizer::{AdamW, Parameters, clip, global_norm};
use super::scale::LossScale;
use super::schedule::{LearningRate, Schedule};
use super::step::{accumulate, gradients, parameters, replace};
use crate::model::ModelError;
use crate::model::adapter::Adapter;
use crate::model::batch::{Batch, Member, answer_count, few_counts};
use crate::model::contract::{ImageFeatures, LinearSpec, Model};
use crate::model::device::suspect;
use crate::model::forward::log_probabilities_unless;
use crate::model::sequence::Sequence;
use stic_engine::draw::Draws;

/// What is trained on as one: a conversation, or a pair's chosen and rejected sequence.
#[derive(Clone, Debug)]
pub struct Example {
    /// Its name in error messages.
    pub name: String,
    /// One sequence for fine-tuning; chosen and rejected for preferences. Each has answers; what two begin with alike
    /// goes through the model once.
    pub sequences: Vec<Sequence>,
    /// The picture that they show, as [`Training::run`]'s `pictures` numbers it.
    pub picture: Option<usize>,
}

/// How it is minimized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The learning rate after the warm-up.
    pub learning_rate: f64,
    /// How the learning rate falls.
    pub schedule: Schedule,
    /// The share of all steps that warm up.
    pub warmup_ratio: f64,
    /// How often every example is seen.
    pub epochs: usize,
    /// Examples per step; the last step of an epoch may have fewer.
    pub batch_size: usize,
    /// The largest 2-norm of a gradient; zero: any.
    pub max_grad_norm: f64,
    /// The optimizer's settings.
    pub adamw: AdamW,
    /// Whether every epoch has its own order.
    pub shuffle: bool,
    /// The share of A's inputs that drops out.
    pub dropout: f64,
    /// Of shuffles and dropout.
    pub seed: u64,
}

/// A training.
pub struct Training<'a> {
    /// The frozen model.
    pub model: &'a dyn Model,
    /// What is minimized.
    pub objective: Objective<'a>,
    /// How.
    pub settings: Settings,
    /// On what. Not empty.
    pub examples: &'a [Example],
    /// Examples that go through the model together, unless this training has begun with another number.
    pub micro_batch_size: usize,
    /// After how many steps a checkpoint is written, besides those that time asks for.
    pub checkpoint_every: Option<usize>,
    /// The longest time between checkpoints.
    pub checkpoint_after: Duration,
    /// The checkpoints of this very training.
    pub checkpoints: &'a dyn Checkpoints,
}

/// The longest time between checkpoints: as much work is lost when the process is killed.
pub const CHECKPOINT_AFTER: Duration = Duration::from_secs(5 * 60);

/// How a training ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// With an adapter and a line for each step.
    Finished(Adapter, Vec<Line>),
    /// It was interrupted, and has saved a checkpoint.
    Stopped,
}

/// Watches a training.
pub trait Observer {
    /// A step was taken.
    fn step(&mut self, step: Step<'_>);

    /// A note for the user.
    fn note(&mut self, text: &str);

    /// Whether to stop: checked between micro-batches, and before every layer if a stop would save steps. An unfinished
    /// step is repeated on resume.
    fn stops(&self) -> bool;
}

/// Progress after a step.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The step's line.
    pub line: &'a Line,
    /// How many steps there are in all.
    pub total: usize,
    /// How many positions went through the model in this process.
    pub tokens: u64,
}

/// What changes from step to step.
struct Progress<'a> {
    adapter: Adapter,
    checkpoint: Checkpoint,
    features: FeatureCache<'a>,
}

impl Training<'_> {
    /// How many steps there are.
    pub fn steps(&self) -> usize {
        self.settings.epochs * self.examples.len().div_ceil(self.settings.batch_size)
    }

    /// Trains `adapter`, or resumes from its checkpoint.
    ///
    /// `pictures` makes the features of a picture.
    ///
    /// # Errors
    /// When a picture cannot be read, a checkpoint not written, or a loss or gradient is not finite: in 16-bit floats
    /// of 5 exponent bits, when it stays so at any loss scale.
    pub fn run(
        &self,
        mut adapter: Adapter,
        pictures: &mut dyn FnMut(usize) -> Result<ImageFeatures, ModelError>,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, ModelError> {
        let settings = &self.settings;
        let total = self.steps();
        let rate = LearningRate::new(settings.schedule, settings.learning_rate, settings.warmup_ratio, total);
        let checkpoint = self.begin(&mut adapter, observer)?;
        let micro_batch_size = checkpoint.state.micro_batch_size.map_or(self.micro_batch_size, NonZeroUsize::get);
        let shown = self.examples.iter().filter_map(|example| example.picture);
        let features = FeatureCache::new(pictures, shown, settings.epochs);
        let mut progress = Progress { adapter, checkpoint, features };
        let mut tokens = 0;
        let steps_per_epoch = total / settings.epochs;
        let mut order = Vec::new();
        let (mut saved, mut saved_at) = (progress.checkpoint.state.log.len(), Instant::now());
        for step in progress.checkpoint.state.log.len()..total {
            let (epoch, place) = (step / steps_per_epoch, step % steps_per_epoch);
            if place == 0 || order.is_empty() {
                order = self.order(epoch);
            }
            let first = place * settings.batch_size;
            let batch = &order[first..(first + settings.batch_size).min(order.len())];
            let began = Instant::now();
            let mut line = Line {
                step: step + 1,
                epoch: epoch + 1,
                learning_rate: rate.at(step),
                loss_scale: progress.checkpoint.state.scale.map(LossScale::factor),
                ..Line::default()
            };
            let stops = || observer.stops();
            let unsaved = progress.checkpoint.state.log.len() > saved;
            let taken = self.step(&mut progress, batch, micro_batch_size, &mut line, unsaved, &stops)?;
            if taken {
                line.seconds = began.elapsed().as_secs_f64();
                tokens += line.tokens;
                observer.step(Step { line: &line, total, tokens });
                progress.checkpoint.state.log.push(line);
            }
            let done = progress.checkpoint.state.log.len();
            let stopped = !taken || observer.stops();
            let every = self.checkpoint_every.is_some_and(|every| done.is_multiple_of(every));
            let due = done < total && (every || saved_at.elapsed() >= self.checkpoint_after);
            if (due || stopped) && done > saved {
                progress.checkpoint.save(self.checkpoints)?;
                (saved, saved_at) = (done, Instant::now());
            }
            if stopped {
                return Ok(Outcome::Stopped);
            }
        }
        self.check_end(&progress.checkpoint)?;
        Ok(Outcome::Finished(progress.adapter, progress.checkpoint.state.log))
    }

    fn linears(&self) -> &[LinearSpec] {
        &self.model.shape().linears
    }

    /// The state before the first step, or that of the last checkpoint, whose parameters then replace those of
    /// `adapter`.
    fn begin(&self, adapter: &mut Adapter, observer: &mut dyn Observer) -> Result<Checkpoint, ModelError> {
        let Found { checkpoint, damaged } = Checkpoint::load(self.checkpoints, &self.model.device())?;
        damaged.iter().for_each(|damage| observer.note(damage));
        if let Some(checkpoint) = checkpoint {
            replace(adapter, self.linears(), &checkpoint.parameters);
            return Ok(checkpoint);
        }
        if !damaged.is_empty() {
            observer.note("there is no other checkpoint; training starts over");
        }
        Ok(Checkpoint {
            parameters: parameters(adapter, self.linears()),
            moments: BTreeMap::new(),
            state: State {
                reference: vec![None; self.examples.len()],
                scale: LossScale::of(self.model.dtype()),
                micro_batch_size: NonZeroUsize::new(self.micro_batch_size),
                ..State::default()
            },
        })
    }

    /// The order of the examples in `epoch`.
    fn order(&self, epoch: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.examples.len()).collect();
        if self.settings.shuffle {
            Draws::new(self.settings.seed, "shuffle", &format!("epoch {epoch}")).shuffle(&mut order);
        }
        order
    }

    /// One optimizer step on the examples `batch`; completes `line`. False when it `stops` on the way, and nothing has
    /// changed. With `unsaved` steps it stops at the next layer, since a process that takes longer may be killed before it
    /// saves them; otherwise not in the first micro-batch, so that a training that is stopped over and over gets on.
    fn step(
        &self,
        Progress { adapter, checkpoint, features }: &mut Progress<'_>,
        batch: &[usize],
        micro_batch_size: usize,
        line: &mut Line,
        unsaved: bool,
        stops: &dyn Fn() -> bool,
    ) -> Result<bool, ModelError> {
        let Checkpoint { parameters, moments, state } = checkpoint;
        let answers = |example: &usize| self.examples[*example].sequences.iter().map(answer_count).sum::<usize>();
        let mut loss = BatchLoss::new(self.objective, batch.len(), batch.iter().map(answers).sum());
        let mut sum = Parameters::new();
        let scale = state.scale.map_or(1.0, LossScale::factor);
        for (index, group) in batch.chunks(micro_batch_size).enumerate() {
            if (index > 0 || unsaved) && stops() {
                return Ok(false);
            }
            let proceed = || if unsaved && stops() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
            let micro = self.micro_batch(group, features)?;
            line.tokens += micro.filled.iter().sum::<usize>() as u64;
            let places = index * micro_batch_size..;
            let subjects: Vec<String> =
                places.take(group.len()).map(|place| format!("{} {place}", line.step)).collect();
            let dropout = Dropout { probability: self.settings.dropout, seed: self.settings.seed, subjects: &subjects };
            let dropout = (self.settings.dropout > 0.0).then_some(&dropout);
            let ControlFlow::Continue(references) = self.references(&mut state.reference, group, &micro, proceed)
            else {
                return Ok(false);
            };
            let weigh = |values: &[f32]| loss.add(&micro, values, &references);
            match gradients(self.model, adapter, dropout, &micro, scale, proceed, weigh) {
                ControlFlow::Continue(found) => accumulate(&mut sum, found),
                ControlFlow::Break(()) => return Ok(false),
            }
        }
        loss.finish(line);
        if self.settings.epochs == 1 {
            // Never needed again, and so not worth a place in a checkpoint.
            batch.iter().for_each(|example| state.reference[*example] = None);
        }
        line.gradient_norm = clip(&mut sum, self.settings.max_grad_norm);
        let is_finite = line.loss.is_finite() && line.gradient_norm.is_finite();
        if !is_finite {
            // In other precisions a smaller scale would not help.
            let smaller = state.scale.and_then(LossScale::after_overflow);
            state.scale = Some(smaller.ok_or_else(|| self.not_finite(line, batch, scale))?);
            line.skipped = true;
            line.preference = line.preference.filter(|_| line.loss.is_finite());
            return Ok(true);
        }
        state.taken += 1;
        self.settings.adamw.step(state.taken, moments, parameters, sum, line.learning_rate);
        state.scale = state.scale.map(LossScale::after_step);
        replace(adapter, self.linears(), parameters);
        Ok(true)
    }

    fn micro_batch(&self, group: &[usize], cache: &mut FeatureCache<'_>) -> Result<Batch, ModelError> {
        let mut features = Vec::new();
        let mut members = Vec::new();
        for example in group.iter().map(|&example| &self.examples[example]) {
            let image = match example.picture {
                Some(picture) => {
                    features.push(cache.take(picture)?);
                    Some(features.len() - 1)
                }
                None => None,
            };
            members.push(Member { sequences: &example.sequences, image });
        }
        let device = self.model.device();
        Ok(Batch::new(self.model, &members, &features, |longest| few_counts(padded_length(longest), &device)))
    }

    /// The reference's sums for the examples of `group`, out of `known` where an earlier epoch computed them; none
    /// without a reference.
    fn references(
        &self,
        known: &mut [Option<Sums>],
        group: &[usize],
        micro: &Batch,
        proceed: impl Fn() -> ControlFlow<()>,
    ) -> ControlFlow<(), Vec<Sums>> {
        let Objective::Dpo { reference, .. } = self.objective else { return ControlFlow::Continue(Vec::new()) };
        if group.iter().any(|example| known[*example].is_none()) {
            let values = log_probabilities_unless(self.model, reference, micro, proceed)?;
            for (sums, example) in std::iter::zip(sums(micro, &values), group) {
                known[*example].get_or_insert(sums);
            }
        }
        ControlFlow::Continue(group.iter().map(|example| known[*example].expect("just computed")).collect())
    }

    /// The error of a loss or gradient in `line` that is not finite.
    fn not_finite(&self, line: &Line, batch: &[usize], scale: f64) -> ModelError {
        let (what, value) =
            if line.loss.is_finite() { ("the gradient's norm", line.gradient_norm) } else { ("the loss", line.loss) };
        let names: Vec<&str> = batch.iter().take(3).map(|example| self.examples[*example].name.as_str()).collect();
        let more = if batch.len() > names.len() { ", …" } else { "" };
        let even = if line.loss_scale.is_some() { format!(" even at a loss scale of {scale}") } else { String::new() };
        let (on, test) = suspect(&self.model.device()).map_or_else(Default::default, |name| {
            (format!(" on `{name}`"), format!("; `stic devices --test {name}` tells whether the device computes right"))
        });
        ModelError::new(format!(
            "step {} of {}: {what} is {value}{even}{on}; the batch is {}{more}",
            line.step,
            self.steps(),
            names.join(", ")
        ))
        .help(format!(
            "lower `learning_rate`, or compute in another `dtype` (f16 overflows where bf16 and f32 do not){test}"
        ))
    }

    /// Whether a training that has taken its last step has anything to show.
    fn check_end(&self, Checkpoint { parameters, state, .. }: &Checkpoint) -> Result<(), ModelError> {
        if state.taken == 0 {
            return Err(ModelError::new(format!("each of the {} steps overflowed, and none was taken", self.steps()))
                .help("compute in another `dtype`: f16 overflows where bf16 and f32 do not"));
        }
        let norm = global_norm(parameters);
        if norm.is_finite() {
            return Ok(());
        }
        Err(ModelError::new(format!("after the last step the norm of the adapter is {norm}"))
            .help("lower `learning_rate`"))
    }
}

/// The length to which rows of a micro-batch are padded when the longest takes `longest` slots: few different lengths,
/// since GPU kernels are tuned for each one.
pub fn padded_length(longest: usize) -> usize {
    longest.next_multiple_of(if longest <= 64 { 8 } else { 64 })
}

#[cfg(test)]
mod tests;
