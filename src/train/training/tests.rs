//! Trainings of a tiny model: stopped, killed, damaged and overflowing ones among them.

use std::cell::Cell;

use super::super::checkpoint::tests::Kept;
use super::*;
use crate::model::llava::Llava;
use crate::model::tiny;
use crate::train::loss::dpo::Dpo;

const DPO: Objective<'static> = Objective::Dpo { loss: Dpo { beta: 0.1, chosen_weight: 0.01 }, reference: None };

fn settings() -> Settings {
    Settings {
        learning_rate: 1e-2,
        schedule: Schedule::Cosine,
        warmup_ratio: 0.1,
        epochs: 2,
        batch_size: 3,
        max_grad_norm: 1.0,
        adamw: AdamW::default(),
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
    kept: Kept,
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
            kept: Kept::default(),
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
            checkpoints: &self.kept,
        };
        training.run(tiny::fresh(&self.model), &mut |picture| Ok(tiny::features(&self.model, picture)), watch)
    }

    /// Goes on until `stop_after` steps of this call are done.
    fn go(&self, objective: Objective<'_>, stop_after: usize) -> Outcome {
        self.watched(objective, &mut Watch::new(stop_after, usize::MAX)).unwrap()
    }

    /// After how many steps the newest checkpoint was written.
    fn saved(&self) -> Option<usize> {
        let found = Checkpoint::load(&self.kept, &self.model.device()).unwrap();
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
        // The checkpoint has the number that the training began with.
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
    assert!((log[0].loss - first.dpo - first.regularizer).abs() < 1e-12);
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
    let with = run.finish(Objective::Dpo { loss: Dpo { beta: 0.1, chosen_weight: 0.01 }, reference: Some(&reference) });
    let without = Run::new(settings()).finish(DPO);
    assert_eq!(bits(&with.0), bits(&without.0), "an adapter whose second factors are zero is the base model");
    let other = tiny::adapter(&run.model);
    let run = Run::new(settings());
    let (_, log) = run.finish(Objective::Dpo { loss: Dpo { beta: 0.1, chosen_weight: 0.01 }, reference: Some(&other) });
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
        checkpoints: &run.kept,
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
    // Two micro-batches per step. Asked between them and after the first step; then, as there is something to save, before
    // either and before every layer: of the reference, forward and backward.
    for questions in [1, 2, 3, 5, 8, 11, 13, 16, 19, 22] {
        let run = Run { checkpoint_every: None, ..Run::new(settings()) };
        let stopped = run.watched(DPO, &mut Watch::new(usize::MAX, questions)).unwrap();
        assert!(matches!(stopped, Outcome::Stopped));
        assert_eq!(run.saved(), (questions > 1).then_some(1), "{questions}");
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
    let newest = run.kept.newest();
    run.kept.damage(&newest[..newest.len() / 2]);
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
    run.kept.damage(b"");
    let mut watch = Watch::new(usize::MAX, usize::MAX);
    assert!(matches!(run.watched(DPO, &mut watch).unwrap(), Outcome::Finished(..)));
    assert_eq!(usize::MAX - watch.steps, 6);
    assert_eq!(watch.notes[1], "there is no other checkpoint; training starts over");
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
