//! An integer training: epochs, batches, micro-batches, steps, checkpoints.
//!
//! What is computed depends on the examples, the settings, the seed and the size of micro-batches, which is fixed when
//! a training first starts; so a training that was stopped ends with the bits of one that was not. A step that overflows
//! keeps its place in the order and in the schedule, and changes nothing but the loss scale. This module does not know
//! where examples and pictures come from, nor what becomes of the adapter.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::checkpoint::{Checkpoint, Found, State, fixed};
use super::log::{Line, Preference};
use super::loss::dpo::{Dpo, PairLoss, Sums};
use super::loss::sft::BatchLoss;
use super::optimizer::{AdamW, AdamWConfig, Parameters, clip, global_norm};
use super::scale::LossScale;
use super::schedule::{LearningRate, Schedule};
use super::step::{Dropout, accumulate, gradients, parameters, replace};
use crate::draw::Draws;
use crate::model::ModelError;
use crate::model::adapter::Adapter;
use crate::model::batch::{Batch, Member, answer_count};
use crate::model::contract::{ImageFeatures, LinearSpec, Model};
use crate::model::forward::log_probabilities;
use crate::model::sequence::Sequence;

/// What is trained on as one: a conversation, or a pair's chosen and rejected sequence.
#[derive(Clone, Debug)]
pub struct Example {
    /// What a person would look for when it makes trouble.
    pub name: String,
    /// One sequence for fine-tuning; chosen and rejected for preferences. Each has answers; what two begin with alike
    /// goes through the model once.
    pub sequences: Vec<Sequence>,
    /// The picture that they show, as [`Training::run`]'s `pictures` numbers it.
    pub picture: Option<usize>,
}

/// What is minimised.
#[derive(Clone, Copy, Debug)]
pub enum Objective<'a> {
    /// Cross-entropy over answer tokens.
    Sft,
    /// Direct preference optimisation.
    Dpo {
        /// The loss.
        loss: Dpo,
        /// The reference's adapter; `None` is the base model.
        reference: Option<&'a Adapter>,
    },
}

/// How it is minimised.
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
    /// Examples a step; the last one of an epoch may have fewer.
    pub batch_size: usize,
    /// The largest 2-norm of a gradient; zero: any.
    pub max_grad_norm: f64,
    /// The optimiser's settings.
    pub adamw: AdamWConfig,
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
    /// What is minimised.
    pub objective: Objective<'a>,
    /// How.
    pub settings: Settings,
    /// On what. Not empty.
    pub examples: &'a [Example],
    /// Examples that go through the model together, unless a training in `scratch` has begun with another number.
    pub micro_batch_size: usize,
    /// After how many steps a checkpoint is written, besides those that time asks for.
    pub checkpoint_every: Option<usize>,
    /// How long a training goes on without writing a checkpoint.
    pub checkpoint_after: Duration,
    /// Where checkpoints are: a folder for this very training.
    pub scratch: &'a Path,
}

/// How long a training goes on without writing a checkpoint: what is lost when its process is killed.
pub const CHECKPOINT_AFTER: Duration = Duration::from_secs(5 * 60);

/// How a training ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// With an adapter and a line for each step.
    Finished(Adapter, Vec<Line>),
    /// It was asked to stop, and has left a checkpoint.
    Stopped,
}

/// Who looks on while a training runs.
pub trait Observer {
    /// A step was taken.
    fn step(&mut self, step: Step<'_>);

    /// Something that people should know.
    fn note(&mut self, text: &str);

    /// Whether to leave off: asked between micro-batches. The step that is under way is taken again later.
    fn stops(&self) -> bool;
}

/// What a training shows of itself after every step.
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
struct Progress {
    adapter: Adapter,
    parameters: Parameters,
    optimizer: AdamW,
    state: State,
}

/// The features of pictures, kept for as long as they will be needed again and while they fit.
struct Pictures<'a> {
    load: &'a mut dyn FnMut(usize) -> Result<ImageFeatures, ModelError>,
    /// How often each will still be asked for.
    uses: HashMap<usize, usize>,
    kept: HashMap<usize, ImageFeatures>,
    bytes: usize,
}

/// The most that kept features of pictures take, in bytes of the device's memory.
const PICTURES_LIMIT: usize = 1 << 30;

impl Training<'_> {
    /// How many steps there are.
    pub fn steps(&self) -> usize {
        self.settings.epochs * self.examples.len().div_ceil(self.settings.batch_size)
    }

    /// Trains `start`, or goes on from the checkpoint in `scratch`.
    ///
    /// `pictures` makes the features of a picture.
    ///
    /// # Errors
    /// When a picture cannot be read, a checkpoint not written, or a loss or gradient is not finite: in 16-bit floats of
    /// 5 exponent bits, when it stays so whatever the loss scale.
    pub fn run(
        &self,
        start: Adapter,
        pictures: &mut dyn FnMut(usize) -> Result<ImageFeatures, ModelError>,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, ModelError> {
        let micro_batch_size: usize = fixed(self.scratch, "micro_batch_size", || self.micro_batch_size)?;
        let settings = &self.settings;
        let total = self.steps();
        let rate = LearningRate::new(settings.schedule, settings.learning_rate, settings.warmup_ratio, total);
        let mut progress = self.begin(start, observer)?;
        let mut pictures = Pictures { load: pictures, uses: HashMap::new(), kept: HashMap::new(), bytes: 0 };
        for picture in self.examples.iter().filter_map(|example| example.picture) {
            *pictures.uses.entry(picture).or_default() += settings.epochs;
        }
        let mut tokens = 0;
        let steps_an_epoch = total / settings.epochs;
        let mut order = Vec::new();
        let (mut saved, mut saved_at) = (progress.state.log.len(), Instant::now());
        for step in progress.state.log.len()..total {
            let (epoch, place) = (step / steps_an_epoch, step % steps_an_epoch);
            if place == 0 || order.is_empty() {
                order = self.order(epoch);
            }
            let first = place * settings.batch_size;
            let batch = &order[first..(first + settings.batch_size).min(order.len())];
            let began = Instant::now();
            let mut line = Line {
                step: step + 1,
                epoch: epoch + 1,
                loss: 0.0,
                preference: None,
                learning_rate: rate.at(step),
                gradient_norm: 0.0,
                loss_scale: progress.state.scale.map(LossScale::factor),
                skipped: false,
                tokens: 0,
                seconds: 0.0,
            };
            let stops = || observer.stops();
            let taken = self.step(&mut progress, &mut pictures, batch, micro_batch_size, &mut line, &stops)?;
            if taken {
                line.seconds = began.elapsed().as_secs_f64();
                tokens += line.tokens;
                observer.step(Step { line: &line, total, tokens });
                progress.state.log.push(line);
            }
            let done = progress.state.log.len();
            let stopped = !taken || observer.stops();
            let every = self.checkpoint_every.is_some_and(|every| done.is_multiple_of(every));
            let due = done < total && (every || saved_at.elapsed() >= self.checkpoint_after);
            if (due || stopped) && done > saved {
                self.save(&progress)?;
                (saved, saved_at) = (done, Instant::now());
            }
            if stopped {
                return Ok(Outcome::Stopped);
            }
        }
        self.check_end(&progress)?;
        Ok(Outcome::Finished(progress.adapter, progress.state.log))
    }

    fn linears(&self) -> &[LinearSpec] {
        &self.model.shape().linears
    }

    /// The state at the first step, or after the last one that a checkpoint knows.
    fn begin(&self, mut adapter: Adapter, observer: &mut dyn Observer) -> Result<Progress, ModelError> {
        let config = self.settings.adamw;
        let Found { checkpoint, damaged } = Checkpoint::load(self.scratch, &self.model.device())?;
        damaged.iter().for_each(|damage| observer.note(damage));
        Ok(match checkpoint {
            Some(Checkpoint { parameters, moments, state }) => {
                replace(&mut adapter, self.linears(), &parameters);
                let optimizer = AdamW::resume(config, state.taken, moments);
                Progress { adapter, parameters, optimizer, state }
            }
            None => {
                if !damaged.is_empty() {
                    observer.note("no other checkpoint is there: the training begins anew");
                }
                let state = State {
                    log: Vec::new(),
                    reference: vec![None; self.examples.len()],
                    taken: 0,
                    scale: LossScale::of(self.model.dtype()),
                };
                Progress {
                    parameters: parameters(&adapter, self.linears()),
                    adapter,
                    optimizer: AdamW::new(config),
                    state,
                }
            }
        })
    }

    fn save(&self, progress: &Progress) -> Result<(), ModelError> {
        Checkpoint {
            parameters: progress.parameters.clone(),
            moments: progress.optimizer.moments().clone(),
            state: progress.state.clone(),
        }
        .save(self.scratch)
    }

    /// The order of the examples in `epoch`.
    fn order(&self, epoch: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.examples.len()).collect();
        if self.settings.shuffle {
            Draws::new(self.settings.seed, "shuffle", &format!("epoch {epoch}")).shuffle(&mut order);
        }
        order
    }

    /// One optimiser step on the examples `batch`; completes `line`. False when it `stops` on the way, and nothing has
    /// changed.
    fn step(
        &self,
        progress: &mut Progress,
        pictures: &mut Pictures<'_>,
        batch: &[usize],
        micro_batch_size: usize,
        line: &mut Line,
        stops: &dyn Fn() -> bool,
    ) -> Result<bool, ModelError> {
        let answers = |example: &usize| self.examples[*example].sequences.iter().map(answer_count).sum::<usize>();
        let cross_entropy = BatchLoss { tokens: batch.iter().map(answers).sum() };
        let mut sum = Parameters::new();
        let mut pairs = Vec::new();
        let scale = progress.state.scale.map_or(1.0, LossScale::factor);
        for (index, group) in batch.chunks(micro_batch_size).enumerate() {
            // Not before the first: a training that is stopped and started over and over gets on.
            if index > 0 && stops() {
                return Ok(false);
            }
            let micro = self.micro_batch(group, pictures)?;
            line.tokens += micro.filled.iter().sum::<usize>() as u64;
            let places = index * micro_batch_size..;
            let subjects: Vec<String> =
                places.take(group.len()).map(|place| format!("{} {place}", line.step)).collect();
            let dropout = Dropout { probability: self.settings.dropout, seed: self.settings.seed, subjects: &subjects };
            let dropout = (self.settings.dropout > 0.0).then_some(&dropout);
            if let Objective::Dpo { reference, .. } = self.objective {
                self.refer(&mut progress.state.reference, reference, group, &micro);
            }
            let gradient =
                gradients(self.model, &progress.adapter, dropout, &micro, scale, |values| match self.objective {
                    Objective::Sft => {
                        line.loss += cross_entropy.share(values);
                        vec![cross_entropy.weight() as f32; values.len()]
                    }
                    Objective::Dpo { loss, .. } => {
                        let policies = sums(&micro, values);
                        let own: Vec<PairLoss> = std::iter::zip(policies, group)
                            .map(|(policy, example)| {
                                loss.pair(policy, progress.state.reference[*example].expect("the reference was asked"))
                            })
                            .collect();
                        let weights = weights(&micro, &own, batch.len());
                        pairs.extend(own);
                        weights
                    }
                });
            accumulate(&mut sum, gradient);
        }
        if let Objective::Dpo { .. } = self.objective {
            line.preference = Some(means(&pairs));
            line.loss = pairs.iter().map(PairLoss::loss).sum::<f64>() / pairs.len() as f64;
            if self.settings.epochs == 1 {
                // Never needed again, and so not worth a place in a checkpoint.
                batch.iter().for_each(|example| progress.state.reference[*example] = None);
            }
        }
        line.gradient_norm = clip(&mut sum, self.settings.max_grad_norm);
        let is_finite = line.loss.is_finite() && line.gradient_norm.is_finite();
        if !is_finite {
            // In other precisions a smaller scale would not help.
            let smaller = progress.state.scale.and_then(LossScale::after_overflow);
            progress.state.scale = Some(smaller.ok_or_else(|| self.not_finite(line, batch, scale))?);
            line.skipped = true;
            line.preference = line.preference.filter(|_| line.loss.is_finite());
            return Ok(true);
        }
        progress.optimizer.step(&mut progress.parameters, sum, line.learning_rate);
        progress.state.taken = progress.optimizer.steps();
        progress.state.scale = progress.state.scale.map(LossScale::after_step);
        replace(&mut progress.adapter, self.linears(), &progress.parameters);
        Ok(true)
    }

    fn micro_batch(&self, group: &[usize], pictures: &mut Pictures<'_>) -> Result<Batch, ModelError> {
        let mut features = Vec::new();
        let mut members = Vec::new();
        for example in group.iter().map(|&example| &self.examples[example]) {
            let image = match example.picture {
                Some(picture) => {
                    features.push(pictures.take(picture)?);
                    Some(features.len() - 1)
                }
                None => None,
            };
            members.push(Member { sequences: &example.sequences, image });
        }
        Ok(Batch::new(self.model, &members, &features, padded_length))
    }

    /// Asks the reference about the examples of `group` unless it was asked in an earlier epoch.
    fn refer(&self, known: &mut [Option<Sums>], reference: Option<&Adapter>, group: &[usize], micro: &Batch) {
        if group.iter().any(|example| known[*example].is_none()) {
            let values = log_probabilities(self.model, reference, micro);
            for (sums, example) in std::iter::zip(sums(micro, &values), group) {
                known[*example].get_or_insert(sums);
            }
        }
    }

    /// That loss or gradient of `line` is not finite.
    fn not_finite(&self, line: &Line, batch: &[usize], scale: f64) -> ModelError {
        let (what, value) =
            if line.loss.is_finite() { ("the gradient's norm", line.gradient_norm) } else { ("the loss", line.loss) };
        let names: Vec<&str> = batch.iter().take(3).map(|example| self.examples[*example].name.as_str()).collect();
        let more = if batch.len() > names.len() { ", …" } else { "" };
        let even = if line.loss_scale.is_some() { format!(" even at a loss scale of {scale}") } else { String::new() };
        ModelError::new(format!(
            "step {} of {}: {what} is {value}{even}; the batch is {}{more}",
            line.step,
            self.steps(),
            names.join(", ")
        ))
        .help("lower `learning_rate`, or compute in another `dtype` (f16 overflows where bf16 and f32 do not)")
    }

    /// Whether a training that has taken its last step has anything to show.
    fn check_end(&self, progress: &Progress) -> Result<(), ModelError> {
        if progress.state.taken == 0 {
            return Err(ModelError::new(format!("each of the {} steps overflowed, and none was taken", self.steps()))
                .help("compute in another `dtype`: f16 overflows where bf16 and f32 do not"));
        }
        let norm = global_norm(&progress.parameters);
        if norm.is_finite() {
            return Ok(());
        }
        Err(ModelError::new(format!("after the last step the norm of the adapter is {norm}"))
            .help("lower `learning_rate`"))
    }
}

impl Pictures<'_> {
    fn take(&mut self, picture: usize) -> Result<ImageFeatures, ModelError> {
        let uses = self.uses.entry(picture).or_default();
        *uses = uses.saturating_sub(1);
        let again = *uses > 0;
        if let Some(features) = self.kept.get(&picture) {
            let features = features.clone();
            if !again {
                self.kept.remove(&picture);
                self.bytes -= features.bytes();
            }
            return Ok(features);
        }
        let features = (self.load)(picture)?;
        if again && self.bytes + features.bytes() <= PICTURES_LIMIT {
            self.bytes += features.bytes();
            self.kept.insert(picture, features.clone());
        }
        Ok(features)
    }
}

/// The length to which rows of a micro-batch are filled up when the longest takes `longest` slots: few different
/// lengths, since every new one makes a GPU's tuning start again.
pub fn padded_length(longest: usize) -> usize {
    longest.next_multiple_of(if longest <= 64 { 8 } else { 64 })
}

/// The summed log-probabilities of each pair of a micro-batch.
fn sums(micro: &Batch, values: &[f32]) -> Vec<Sums> {
    let sums: Vec<f64> = micro.by_sequence(values).map(|own| own.iter().map(|value| f64::from(*value)).sum()).collect();
    sums.chunks_exact(2).map(|pair| Sums { chosen: pair[0], rejected: pair[1] }).collect()
}

/// `∂loss/∂log p` of every answer token, the loss being the mean over `count` pairs.
fn weights(micro: &Batch, pairs: &[PairLoss], count: usize) -> Vec<f32> {
    let by_sequence = pairs.iter().flat_map(|pair| [pair.weight_chosen, pair.weight_rejected]);
    std::iter::zip(&micro.answers, by_sequence)
        .flat_map(|(&answers, weight)| std::iter::repeat_n((weight / count as f64) as f32, answers))
        .collect()
}

fn means(pairs: &[PairLoss]) -> Preference {
    let mean = |value: &dyn Fn(&PairLoss) -> f64| pairs.iter().map(value).sum::<f64>() / pairs.len() as f64;
    Preference {
        dpo: mean(&|pair| pair.dpo),
        regulariser: mean(&|pair| pair.regulariser),
        reward_chosen: mean(&|pair| pair.reward_chosen),
        reward_rejected: mean(&|pair| pair.reward_rejected),
        accuracy: mean(&|pair| f64::from(u8::from(pair.right()))),
        margin: mean(&PairLoss::margin),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tempfile::TempDir;

    use super::*;
    use crate::model::llava::Llava;
    use crate::model::tiny;

    const DPO: Objective<'static> = Objective::Dpo { loss: Dpo { beta: 0.1, chosen_weight: 0.01 }, reference: None };

    fn settings() -> Settings {
        Settings {
            learning_rate: 1e-2,
            schedule: Schedule::Cosine,
            warmup_ratio: 0.1,
            epochs: 2,
            batch_size: 3,
            max_grad_norm: 1.0,
            adamw: AdamWConfig::default(),
            shuffle: true,
            dropout: 0.0,
            seed: 9,
        }
    }

    /// Eight examples, the first two of one picture, one without.
    fn examples(objective: Objective<'_>) -> Vec<Example> {
        let sequence = |index: usize| tiny::sequence(index, index != 5, 1 + index % 4);
        (0..8)
            .map(|index| Example {
                name: format!("example {index}"),
                sequences: match objective {
                    Objective::Sft => vec![sequence(index)],
                    Objective::Dpo { .. } => {
                        vec![sequence(index), tiny::rival(&sequence(index), 1 + (index + 2) % 4)]
                    }
                },
                picture: (index != 5).then_some(index.max(1)),
            })
            .collect()
    }

    struct Run {
        model: Llava,
        settings: Settings,
        micro_batch_size: usize,
        checkpoint_every: Option<usize>,
        checkpoint_after: Duration,
        scratch: TempDir,
    }

    /// Stops a training after some steps, or at some question, and keeps what it says.
    struct Watch {
        steps: usize,
        questions: Cell<usize>,
        notes: Vec<String>,
    }

    impl Watch {
        fn new(steps: usize, questions: usize) -> Self {
            Self { steps, questions: questions.into(), notes: Vec::new() }
        }
    }

    impl Observer for Watch {
        fn step(&mut self, _: Step<'_>) {
            self.steps -= 1;
        }

        fn note(&mut self, text: &str) {
            self.notes.push(text.to_owned());
        }

        fn stops(&self) -> bool {
            self.questions.set(self.questions.get() - 1);
            self.steps == 0 || self.questions.get() == 0
        }
    }

    impl Run {
        fn new(settings: Settings) -> Self {
            Self {
                model: tiny::model(),
                settings,
                micro_batch_size: 2,
                checkpoint_every: Some(2),
                checkpoint_after: CHECKPOINT_AFTER,
                scratch: tempfile::tempdir().unwrap(),
            }
        }

        fn watched(&self, objective: Objective<'_>, watch: &mut Watch) -> Result<Outcome, ModelError> {
            let examples = examples(objective);
            let training = Training {
                model: &self.model,
                objective,
                settings: self.settings,
                examples: &examples,
                micro_batch_size: self.micro_batch_size,
                checkpoint_every: self.checkpoint_every,
                checkpoint_after: self.checkpoint_after,
                scratch: self.scratch.path(),
            };
            training.run(tiny::fresh(&self.model), &mut |picture| Ok(tiny::features(&self.model, picture)), watch)
        }

        /// Goes on until `stop_after` steps of this call are done.
        fn go(&self, objective: Objective<'_>, stop_after: usize) -> Outcome {
            self.watched(objective, &mut Watch::new(stop_after, usize::MAX)).unwrap()
        }

        /// After how many steps the newest checkpoint was written.
        fn saved(&self) -> Option<usize> {
            let found = Checkpoint::load(self.scratch.path(), &self.model.device()).unwrap();
            found.checkpoint.map(|found| found.state.log.len())
        }

        fn finish(&self, objective: Objective<'_>) -> (Parameters, Vec<Line>) {
            match self.go(objective, usize::MAX) {
                Outcome::Finished(adapter, log) => (parameters(&adapter, &self.model.shape().linears), log),
                Outcome::Stopped => panic!("nobody asked it to stop"),
            }
        }
    }

    fn bits(parameters: &Parameters) -> Vec<u32> {
        parameters.values().flat_map(|tensor| tensor.try_to_vec_as::<f32>().unwrap()).map(f32::to_bits).collect()
    }

    fn timeless(log: &[Line]) -> Vec<Line> {
        log.iter().map(|line| Line { seconds: 0.0, ..line.clone() }).collect()
    }

    #[test]
    fn a_training_that_was_stopped_ends_with_the_same_bits() {
        for (objective, dropout) in [(DPO, 0.0), (Objective::Sft, 0.25)] {
            let settings = Settings { dropout, ..settings() };
            let whole = Run::new(settings).finish(objective);
            let mut parts = Run::new(settings);
            assert!(matches!(parts.go(objective, 3), Outcome::Stopped));
            // What was fixed at the first start is not asked again.
            parts.micro_batch_size = 1;
            assert!(matches!(parts.go(objective, 2), Outcome::Stopped));
            let parts = parts.finish(objective);
            assert_eq!(timeless(&parts.1), timeless(&whole.1));
            assert_eq!(bits(&parts.0), bits(&whole.0));
        }
    }

    #[test]
    fn a_training_that_was_killed_goes_on_from_its_last_checkpoint() {
        let run = Run::new(settings());
        let whole = run.finish(DPO);
        // What a process killed in the last two steps leaves: the checkpoint of the fourth.
        assert_eq!(run.saved(), Some(4));
        let parts = run.finish(DPO);
        assert_eq!(timeless(&parts.1), timeless(&whole.1));
        assert_eq!(bits(&parts.0), bits(&whole.0));
    }

    #[test]
    fn the_first_step_of_dpo_finds_policy_and_reference_alike() {
        let (_, log) = Run::new(settings()).finish(DPO);
        let first = log[0].preference.unwrap();
        assert_eq!((first.reward_chosen, first.reward_rejected, first.accuracy), (0.0, 0.0, 0.0));
        assert!((first.dpo - 2f64.ln()).abs() < 1e-12);
        assert_eq!(log[0].learning_rate, 0.0);
        assert!((log[0].loss - first.dpo - first.regulariser).abs() < 1e-12);
        assert_eq!(log.len(), 6, "two epochs of 3 + 3 + 2");
    }

    #[test]
    fn training_widens_the_margin_and_lowers_the_cross_entropy() {
        let settings = Settings { epochs: 20, ..settings() };
        let (_, log) = Run::new(settings).finish(DPO);
        let last = log.last().unwrap().preference.unwrap();
        assert!(last.margin > 0.15 && last.accuracy == 1.0, "{last:?}");
        let (_, log) = Run::new(settings).finish(Objective::Sft);
        assert!(log.last().unwrap().loss < 0.8 * log[0].loss, "{} {}", log[0].loss, log.last().unwrap().loss);
    }

    #[test]
    fn the_size_of_micro_batches_changes_roundings_alone() {
        let (small, _) = Run { micro_batch_size: 1, ..Run::new(settings()) }.finish(DPO);
        let (large, _) = Run { micro_batch_size: 3, ..Run::new(settings()) }.finish(DPO);
        for (path, large) in &large {
            let difference = (small[path].clone() - large.clone()).abs().max().into_scalar::<f32>();
            assert!(difference < 1e-4, "{path}: {difference}");
        }
    }

    #[test]
    fn without_shuffling_the_order_is_that_of_the_examples() {
        let run = Run::new(Settings { shuffle: false, batch_size: 1, epochs: 1, ..settings() });
        let (_, log) = run.finish(Objective::Sft);
        let tokens: Vec<u64> = log.iter().map(|line| line.tokens).collect();
        // Six tokens of prompt, 1 + index % 4 of answer, four rows in place of the placeholder.
        assert_eq!(tokens, [10, 11, 12, 13, 10, 8, 12, 13]);
    }

    #[test]
    fn the_input_adapter_can_be_the_reference() {
        let run = Run::new(settings());
        let reference = tiny::fresh(&run.model);
        let with =
            run.finish(Objective::Dpo { loss: Dpo { beta: 0.1, chosen_weight: 0.01 }, reference: Some(&reference) });
        let without = Run::new(settings()).finish(DPO);
        assert_eq!(bits(&with.0), bits(&without.0), "an adapter whose second factors are zero is the base model");
        let other = tiny::adapter(&run.model);
        let run = Run::new(settings());
        let (_, log) =
            run.finish(Objective::Dpo { loss: Dpo { beta: 0.1, chosen_weight: 0.01 }, reference: Some(&other) });
        assert_ne!(log[0].preference.unwrap().reward_chosen, 0.0);
    }

    #[test]
    fn a_loss_that_is_not_finite_stops_the_training_with_step_and_examples() {
        let run = Run::new(settings());
        let examples = examples(Objective::Sft);
        let training = Training {
            model: &run.model,
            objective: Objective::Sft,
            settings: run.settings,
            examples: &examples,
            micro_batch_size: 2,
            checkpoint_every: None,
            checkpoint_after: CHECKPOINT_AFTER,
            scratch: run.scratch.path(),
        };
        let mut pictures = |picture| {
            let features = tiny::features(&run.model, picture);
            Ok(ImageFeatures { rows: features.rows.mul_scalar(f32::NAN), ..features })
        };
        let mut watch = Watch::new(usize::MAX, usize::MAX);
        let error = training.run(tiny::fresh(&run.model), &mut pictures, &mut watch).unwrap_err();
        assert!(error.message.starts_with("step 1 of 6: the loss is NaN; the batch is example "), "{error}");
        assert!(error.help.is_some());
    }

    #[test]
    fn a_training_that_is_stopped_within_a_step_takes_that_step_again() {
        let whole = Run::new(settings()).finish(DPO);
        // Two micro-batches a step: asked between them and after the step.
        for questions in [1, 3, 4] {
            let run = Run { checkpoint_every: None, ..Run::new(settings()) };
            let stopped = run.watched(DPO, &mut Watch::new(usize::MAX, questions)).unwrap();
            assert!(matches!(stopped, Outcome::Stopped));
            assert_eq!(run.saved(), (questions > 1).then_some(questions / 2));
            let rest = run.finish(DPO);
            assert_eq!(timeless(&rest.1), timeless(&whole.1));
            assert_eq!(bits(&rest.0), bits(&whole.0));
        }
    }

    #[test]
    fn checkpoints_are_written_by_time_also_in_short_trainings() {
        let run = Run { checkpoint_every: None, ..Run::new(settings()) };
        run.finish(DPO);
        assert_eq!(run.saved(), None, "less time has passed");
        let run = Run { checkpoint_every: None, checkpoint_after: Duration::ZERO, ..Run::new(settings()) };
        run.finish(DPO);
        assert_eq!(run.saved(), Some(5), "after every step but the last, whose result is published");
    }

    #[test]
    fn a_damaged_checkpoint_falls_back_to_the_one_before_and_ends_with_the_same_bits() {
        let whole = Run::new(settings()).finish(DPO);
        let run = Run { checkpoint_every: Some(1), ..Run::new(settings()) };
        assert!(matches!(run.go(DPO, 4), Outcome::Stopped));
        let newest = run.scratch.path().join("checkpoint.safetensors");
        let bytes = std::fs::read(&newest).unwrap();
        std::fs::write(&newest, &bytes[..bytes.len() / 2]).unwrap();
        let mut watch = Watch::new(usize::MAX, usize::MAX);
        let Outcome::Finished(lora, log) = run.watched(DPO, &mut watch).unwrap() else { panic!("nobody stopped it") };
        assert!(watch.notes.len() == 1 && watch.notes[0].contains("is damaged"), "{:?}", watch.notes);
        assert_eq!(usize::MAX - watch.steps, 3, "from the third step on");
        assert_eq!(timeless(&log), timeless(&whole.1));
        assert_eq!(bits(&parameters(&lora, &run.model.shape().linears)), bits(&whole.0));
    }

    #[test]
    fn when_every_checkpoint_is_damaged_the_training_begins_anew_and_says_so() {
        let run = Run { checkpoint_every: Some(1), ..Run::new(settings()) };
        assert!(matches!(run.go(DPO, 1), Outcome::Stopped));
        std::fs::write(run.scratch.path().join("checkpoint.safetensors"), b"").unwrap();
        let mut watch = Watch::new(usize::MAX, usize::MAX);
        assert!(matches!(run.watched(DPO, &mut watch).unwrap(), Outcome::Finished(..)));
        assert_eq!(usize::MAX - watch.steps, 6);
        assert_eq!(watch.notes[1], "no other checkpoint is there: the training begins anew");
    }

    /// A run in 16-bit floats of 5 exponent bits, whose gradients overflow as long as the scale is above some power.
    fn half(seed: u64) -> Run {
        Run { model: tiny::model_in(burn::tensor::DType::F16), ..Run::new(Settings { seed, epochs: 8, ..settings() }) }
    }

    #[test]
    fn an_overflow_skips_the_step_and_halves_the_loss_scale() {
        let run = half(9);
        // Weights of this size overflow at the first scales and not at the later ones.
        let loss = Dpo { beta: 40.0, chosen_weight: 2000.0 };
        let objective = Objective::Dpo { loss, reference: None };
        let (whole, log) = run.finish(objective);
        let skipped: Vec<&Line> = log.iter().filter(|line| line.skipped).collect();
        assert!(!skipped.is_empty() && skipped.len() < log.len(), "{} of {}", skipped.len(), log.len());
        assert_eq!(log[0].loss_scale, Some(65_536.0));
        for pair in log.windows(2) {
            let factor = if pair[0].skipped { 0.5 } else { 1.0 };
            assert_eq!(pair[1].loss_scale.unwrap(), pair[0].loss_scale.unwrap() * factor);
        }
        assert!(whole.values().flat_map(|tensor| tensor.try_to_vec_as::<f32>().unwrap()).all(f32::is_finite));

        // Stopped within the overflows and after them, it ends with the same bits.
        for stop in [1, skipped.len() + 1] {
            let parts = half(9);
            assert!(matches!(parts.go(objective, stop), Outcome::Stopped));
            let (rest, rest_log) = parts.finish(objective);
            assert_eq!(bits(&rest), bits(&whole));
            assert_eq!(rest_log.len(), log.len());
        }
    }

    #[test]
    fn an_endless_overflow_ends_with_an_error() {
        let run = half(9);
        let objective = Objective::Dpo { loss: Dpo { beta: 1e30, chosen_weight: 1e30 }, reference: None };
        let error = run.watched(objective, &mut Watch::new(usize::MAX, usize::MAX)).unwrap_err();
        assert!(error.message.starts_with("step 17 of 24: "), "{error}");
        assert!(error.message.contains(" even at a loss scale of 1; "), "{error}");
        // With fewer steps than scales to try.
        let run = Run { settings: Settings { epochs: 1, ..settings() }, ..half(9) };
        let error = run.watched(objective, &mut Watch::new(usize::MAX, usize::MAX)).unwrap_err();
        assert_eq!(error.message, "each of the 3 steps overflowed, and none was taken");
    }
}
