//! A whole training: epochs, batches, micro-batches, steps, checkpoints.
//!
//! What is computed depends on the examples, the settings, the seed and the size of micro-batches, which is fixed when
//! a training first starts; so a training that was stopped ends with the bits of one that was not. This module does not
//! know where examples and pictures come from, nor what becomes of the adapter.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use burn::tensor::Tensor;

use super::batch::{Member, MicroBatch, answer_count};
use super::checkpoint::{Checkpoint, State, fixed};
use super::log::{Line, Preference};
use super::loss::dpo::{Dpo, PairLoss, Sums};
use super::loss::sft::BatchLoss;
use super::optimizer::{AdamW, AdamWConfig, Parameters, clip};
use super::schedule::{LearningRate, Schedule};
use super::step::{Dropout, accumulate, gradients, log_probabilities, parameters, replace};
use crate::draw::Draws;
use crate::model::ModelError;
use crate::model::llava::Llava;
use crate::model::lora::Lora;
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
        reference: Option<&'a Lora>,
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
    pub model: &'a Llava,
    /// What is minimised.
    pub objective: Objective<'a>,
    /// How.
    pub settings: Settings,
    /// On what. Not empty.
    pub examples: &'a [Example],
    /// Examples that go through the model together, unless a training in `scratch` has begun with another number.
    pub micro_batch_size: usize,
    /// After how many steps a checkpoint is written.
    pub checkpoint_every: usize,
    /// Where checkpoints are: a folder for this very training.
    pub scratch: &'a Path,
}

/// How a training ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// With an adapter and a line for each step.
    Finished(Lora, Vec<Line>),
    /// It was asked to stop, and has left a checkpoint.
    Stopped,
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
    lora: Lora,
    parameters: Parameters,
    optimizer: AdamW,
    state: State,
}

/// The rows of pictures, kept for as long as they will be needed again and while they fit.
struct Pictures<'a> {
    load: &'a mut dyn FnMut(usize) -> Result<Tensor<2>, ModelError>,
    /// How often each will still be asked for.
    uses: HashMap<usize, usize>,
    kept: HashMap<usize, Tensor<2>>,
    bytes: usize,
}

/// The most that kept rows of pictures take, in bytes of the device's memory.
const PICTURES_LIMIT: usize = 1 << 30;

impl Training<'_> {
    /// How many steps there are.
    pub fn steps(&self) -> usize {
        self.settings.epochs * self.examples.len().div_ceil(self.settings.batch_size)
    }

    /// Trains `start`, or goes on from the checkpoint in `scratch`.
    ///
    /// `pictures` makes the rows of a picture, `[rows, hidden]`; `watch` is told of every step and says whether to go
    /// on.
    ///
    /// # Errors
    /// When a picture cannot be read, a checkpoint not written, or a loss or gradient is not finite.
    pub fn run(
        &self,
        start: Lora,
        pictures: &mut dyn FnMut(usize) -> Result<Tensor<2>, ModelError>,
        watch: &mut dyn FnMut(Step<'_>) -> bool,
    ) -> Result<Outcome, ModelError> {
        let micro_batch_size: usize = fixed(self.scratch, "micro_batch_size", || self.micro_batch_size)?;
        let settings = &self.settings;
        let total = self.steps();
        let rate = LearningRate::new(settings.schedule, settings.learning_rate, settings.warmup_ratio, total);
        let mut progress = self.begin(start)?;
        let mut pictures = Pictures { load: pictures, uses: HashMap::new(), kept: HashMap::new(), bytes: 0 };
        for picture in self.examples.iter().filter_map(|example| example.picture) {
            *pictures.uses.entry(picture).or_default() += settings.epochs;
        }
        let mut tokens = 0;
        let steps_an_epoch = total / settings.epochs;
        let mut order = Vec::new();
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
                tokens: 0,
                seconds: 0.0,
            };
            self.step(&mut progress, &mut pictures, batch, micro_batch_size, &mut line)?;
            line.seconds = began.elapsed().as_secs_f64();
            tokens += line.tokens;
            let go_on = watch(Step { line: &line, total, tokens });
            progress.state.log.push(line);
            let due = (step + 1).is_multiple_of(self.checkpoint_every) && step + 1 < total;
            if due || !go_on {
                self.save(&progress)?;
            }
            if !go_on {
                return Ok(Outcome::Stopped);
            }
        }
        Ok(Outcome::Finished(progress.lora, progress.state.log))
    }

    /// The state at the first step, or after the last one that a checkpoint knows.
    fn begin(&self, mut lora: Lora) -> Result<Progress, ModelError> {
        let config = self.settings.adamw;
        Ok(match Checkpoint::load(self.scratch, &self.model.device())? {
            Some(Checkpoint { parameters, moments, state }) => {
                replace(&mut lora, &parameters);
                let optimizer = AdamW::resume(config, state.log.len() as u64, moments);
                Progress { lora, parameters, optimizer, state }
            }
            None => {
                let state = State { log: Vec::new(), reference: vec![None; self.examples.len()] };
                Progress { parameters: parameters(&lora), lora, optimizer: AdamW::new(config), state }
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

    /// One optimiser step on the examples `batch`; completes `line`.
    fn step(
        &self,
        progress: &mut Progress,
        pictures: &mut Pictures<'_>,
        batch: &[usize],
        micro_batch_size: usize,
        line: &mut Line,
    ) -> Result<(), ModelError> {
        let answers = |example: &usize| self.examples[*example].sequences.iter().map(answer_count).sum::<usize>();
        let cross_entropy = BatchLoss { tokens: batch.iter().map(answers).sum() };
        let mut sum = Parameters::new();
        let mut pairs = Vec::new();
        for (index, group) in batch.chunks(micro_batch_size).enumerate() {
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
            let gradient = gradients(self.model, &progress.lora, dropout, &micro, |values| match self.objective {
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
        self.check(line, batch)?;
        progress.optimizer.step(&mut progress.parameters, sum, line.learning_rate);
        replace(&mut progress.lora, &progress.parameters);
        Ok(())
    }

    fn micro_batch(&self, group: &[usize], pictures: &mut Pictures<'_>) -> Result<MicroBatch, ModelError> {
        let mut rows = Vec::new();
        let mut members = Vec::new();
        for example in group.iter().map(|&example| &self.examples[example]) {
            let picture = match example.picture {
                Some(picture) => {
                    rows.push(pictures.take(picture)?);
                    Some(rows.len() - 1)
                }
                None => None,
            };
            members.push(Member { sequences: &example.sequences, picture });
        }
        Ok(MicroBatch::new(self.model, &members, &rows))
    }

    /// Asks the reference about the examples of `group` unless it was asked in an earlier epoch.
    fn refer(&self, known: &mut [Option<Sums>], lora: Option<&Lora>, group: &[usize], micro: &MicroBatch) {
        if group.iter().any(|example| known[*example].is_none()) {
            let values = log_probabilities(self.model, lora, micro);
            for (sums, example) in std::iter::zip(sums(micro, &values), group) {
                known[*example].get_or_insert(sums);
            }
        }
    }

    fn check(&self, line: &Line, batch: &[usize]) -> Result<(), ModelError> {
        let (what, value) =
            if line.loss.is_finite() { ("the gradient's norm", line.gradient_norm) } else { ("the loss", line.loss) };
        if value.is_finite() {
            return Ok(());
        }
        let names: Vec<&str> = batch.iter().take(3).map(|example| self.examples[*example].name.as_str()).collect();
        let more = if batch.len() > names.len() { ", …" } else { "" };
        Err(ModelError::new(format!(
            "step {} of {}: {what} is {value}; the batch is {}{more}",
            line.step,
            self.steps(),
            names.join(", ")
        ))
        .help("lower `learning_rate`, or compute in another `dtype` (f16 overflows where bf16 and f32 do not)"))
    }
}

impl Pictures<'_> {
    fn take(&mut self, picture: usize) -> Result<Tensor<2>, ModelError> {
        let uses = self.uses.entry(picture).or_default();
        *uses = uses.saturating_sub(1);
        let again = *uses > 0;
        if let Some(rows) = self.kept.get(&picture) {
            let rows = rows.clone();
            if !again {
                self.kept.remove(&picture);
                self.bytes -= bytes(&rows);
            }
            return Ok(rows);
        }
        let rows = (self.load)(picture)?;
        if again && self.bytes + bytes(&rows) <= PICTURES_LIMIT {
            self.bytes += bytes(&rows);
            self.kept.insert(picture, rows.clone());
        }
        Ok(rows)
    }
}

fn bytes(rows: &Tensor<2>) -> usize {
    rows.shape().num_elements() * rows.dtype().size()
}

/// The summed log-probabilities of each pair of a micro-batch.
fn sums(micro: &MicroBatch, values: &[f32]) -> Vec<Sums> {
    let sums: Vec<f64> = micro.by_sequence(values).map(|own| own.iter().map(|value| f64::from(*value)).sum()).collect();
    sums.chunks_exact(2).map(|pair| Sums { chosen: pair[0], rejected: pair[1] }).collect()
}

/// `∂loss/∂log p` of every answer token, the loss being the mean over `count` pairs.
fn weights(micro: &MicroBatch, pairs: &[PairLoss], count: usize) -> Vec<f32> {
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
    use tempfile::TempDir;

    use super::*;
    use crate::train::small;

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
        let sequence = |index: usize| small::sequence(index, index != 5, 1 + index % 4);
        (0..8)
            .map(|index| Example {
                name: format!("example {index}"),
                sequences: match objective {
                    Objective::Sft => vec![sequence(index)],
                    Objective::Dpo { .. } => {
                        vec![sequence(index), small::rival(&sequence(index), 1 + (index + 2) % 4)]
                    }
                },
                picture: (index != 5).then_some(index.max(1)),
            })
            .collect()
    }

    /// An adapter as a training starts from: the second factors are zero.
    fn fresh(model: &Llava) -> Lora {
        let mut lora = small::lora(model);
        for pair in lora.layers.iter_mut().flat_map(|layer| &mut layer.pairs).flatten() {
            pair.b = pair.b.zeros_like();
        }
        lora
    }

    struct Run {
        model: Llava,
        settings: Settings,
        micro_batch_size: usize,
        scratch: TempDir,
    }

    impl Run {
        fn new(settings: Settings) -> Self {
            Self { model: small::model(), settings, micro_batch_size: 2, scratch: tempfile::tempdir().unwrap() }
        }

        /// Goes on until `stop_after` steps of this call are done.
        fn go(&self, objective: Objective<'_>, stop_after: usize) -> Outcome {
            let examples = examples(objective);
            let training = Training {
                model: &self.model,
                objective,
                settings: self.settings,
                examples: &examples,
                micro_batch_size: self.micro_batch_size,
                checkpoint_every: 2,
                scratch: self.scratch.path(),
            };
            let mut done = 0;
            let mut watch = |_: Step<'_>| {
                done += 1;
                done < stop_after
            };
            training.run(fresh(&self.model), &mut |picture| Ok(small::rows(&self.model, picture)), &mut watch).unwrap()
        }

        fn finish(&self, objective: Objective<'_>) -> (Parameters, Vec<Line>) {
            match self.go(objective, usize::MAX) {
                Outcome::Finished(lora, log) => (parameters(&lora), log),
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
        let left = Checkpoint::load(run.scratch.path(), &run.model.device()).unwrap().unwrap();
        assert_eq!(left.state.log.len(), 4);
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
        let reference = fresh(&run.model);
        let with =
            run.finish(Objective::Dpo { loss: Dpo { beta: 0.1, chosen_weight: 0.01 }, reference: Some(&reference) });
        let without = Run::new(settings()).finish(DPO);
        assert_eq!(bits(&with.0), bits(&without.0), "an adapter whose second factors are zero is the base model");
        let other = small::lora(&run.model);
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
            checkpoint_every: 100,
            scratch: run.scratch.path(),
        };
        let mut pictures = |picture| Ok(small::rows(&run.model, picture).mul_scalar(f32::NAN));
        let error = training.run(fresh(&run.model), &mut pictures, &mut |_| true).unwrap_err();
        assert!(error.message.starts_with("step 1 of 6: the loss is NaN; the batch is example "), "{error}");
        assert!(error.help.is_some());
    }
}
