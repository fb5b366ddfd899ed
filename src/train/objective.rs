//! What a training minimizes: the loss of a batch, independent of its micro-batches, and how much each answer token's
//! log-probability weighs in the gradient.

use super::log::{Line, Preference};
use super::loss::dpo::{Dpo, PairLoss, Sums};
use super::loss::sft::CrossEntropy;
use crate::model::adapter::Adapter;
use crate::model::batch::Batch;

/// What is minimized.
#[derive(Clone, Copy, Debug)]
pub enum Objective<'a> {
    /// Cross-entropy over answer tokens.
    Sft,
    /// Direct preference optimization.
    Dpo {
        /// The loss.
        loss: Dpo,
        /// The reference's adapter; `None` is the base model.
        reference: Option<&'a Adapter>,
    },
}

/// The loss of a batch, added up over its micro-batches.
pub(super) struct BatchLoss<'a> {
    objective: Objective<'a>,
    examples: usize,
    cross_entropy: CrossEntropy,
    loss: f64,
    pairs: Vec<PairLoss>,
}

impl<'a> BatchLoss<'a> {
    /// The loss of a batch of so many examples, with so many answer tokens.
    pub fn new(objective: Objective<'a>, examples: usize, tokens: usize) -> Self {
        Self { objective, examples, cross_entropy: CrossEntropy { tokens }, loss: 0.0, pairs: Vec::new() }
    }

    /// Adds a micro-batch, given the log-probabilities of its answer tokens and the reference's sums for its examples.
    /// Returns `∂loss/∂log p` of every answer token.
    pub fn add(&mut self, micro: &Batch, values: &[f32], references: &[Sums]) -> Vec<f32> {
        match self.objective {
            Objective::Sft => {
                self.loss += self.cross_entropy.share(values);
                vec![self.cross_entropy.weight() as f32; values.len()]
            }
            Objective::Dpo { loss, .. } => {
                let pairs = std::iter::zip(sums(micro, values), references);
                let pairs: Vec<PairLoss> = pairs.map(|(policy, reference)| loss.pair(policy, *reference)).collect();
                let by_sequence = pairs.iter().flat_map(|pair| [pair.weight_chosen, pair.weight_rejected]);
                let weights = std::iter::zip(&micro.answers, by_sequence).flat_map(|(&answers, weight)| {
                    std::iter::repeat_n((weight / self.examples as f64) as f32, answers)
                });
                let weights = weights.collect();
                self.pairs.extend(pairs);
                weights
            }
        }
    }

    /// Writes the loss of the whole batch into `line`.
    pub fn finish(&self, line: &mut Line) {
        let mean = |value: fn(&PairLoss) -> f64| self.pairs.iter().map(value).sum::<f64>() / self.pairs.len() as f64;
        (line.loss, line.preference) = match self.objective {
            Objective::Sft => (self.loss, None),
            Objective::Dpo { .. } => {
                let preference = Preference {
                    dpo: mean(|pair| pair.dpo),
                    regularizer: mean(|pair| pair.regularizer),
                    reward_chosen: mean(|pair| pair.reward_chosen),
                    reward_rejected: mean(|pair| pair.reward_rejected),
                    accuracy: mean(|pair| f64::from(u8::from(pair.right()))),
                    margin: mean(PairLoss::margin),
                };
                (mean(PairLoss::loss), Some(preference))
            }
        };
    }
}

/// The summed log-probabilities of each pair of a micro-batch.
pub(super) fn sums(micro: &Batch, values: &[f32]) -> Vec<Sums> {
    let sums: Vec<f64> = micro.by_sequence(values).map(|own| own.iter().map(|value| f64::from(*value)).sum()).collect();
    sums.chunks_exact(2).map(|pair| Sums { chosen: pair[0], rejected: pair[1] }).collect()
}
