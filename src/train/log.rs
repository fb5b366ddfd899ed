//! What a training step came to, one JSON object a line.

use serde::{Deserialize, Serialize};

/// One optimiser step. Means are over the batch: its pairs for DPO, its answer tokens for SFT.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The step, counted from 1.
    pub step: usize,
    /// The epoch that it belongs to, counted from 1.
    pub epoch: usize,
    /// What was minimised, before the step.
    pub loss: f64,
    /// The parts of a DPO loss.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub preference: Option<Preference>,
    /// The learning rate of the step.
    pub learning_rate: f64,
    /// The 2-norm of the gradient, before clipping.
    pub gradient_norm: f64,
    /// How many positions went through the model: what fills up is not counted, what a pair shares is counted once.
    pub tokens: u64,
    /// How long the step took.
    pub seconds: f64,
}

/// Means over a batch of pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Preference {
    /// `ln(1 + exp(−margin))`.
    pub dpo: f64,
    /// `−chosen_weight · log p(chosen)`.
    pub regulariser: f64,
    /// The chosen responses' reward.
    pub reward_chosen: f64,
    /// The rejected responses' reward.
    pub reward_rejected: f64,
    /// The share of pairs whose chosen response has the greater reward.
    pub accuracy: f64,
    /// The chosen responses' reward less the rejected ones'.
    pub margin: f64,
}
