//! The training log: one JSON object per line and step.

use serde::{Deserialize, Serialize};

/// One optimizer step. Means are over the batch: its pairs for DPO, its answer tokens for SFT.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The step, counted from 1.
    pub step: usize,
    /// The epoch that it belongs to, counted from 1.
    pub epoch: usize,
    /// What was minimized, before the step. NaN, written as `null`, when it overflowed.
    #[serde(with = "finite_or_null")]
    pub loss: f64,
    /// The parts of a DPO loss.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub preference: Option<Preference>,
    /// The learning rate of the step.
    pub learning_rate: f64,
    /// The 2-norm of the gradient, before clipping. NaN, written as `null`, when it overflowed.
    #[serde(with = "finite_or_null")]
    pub gradient_norm: f64,
    /// What the loss was multiplied by on its way back, where that is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<f64>,
    /// Whether the step was left out because its gradient overflowed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
    /// How many positions went through the model: padding is not counted, what a pair shares is counted once.
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
    pub regularizer: f64,
    /// The chosen responses' reward.
    pub reward_chosen: f64,
    /// The rejected responses' reward.
    pub reward_rejected: f64,
    /// The share of pairs whose chosen response has the greater reward.
    pub accuracy: f64,
    /// The chosen responses' reward less the rejected ones'.
    pub margin: f64,
}

/// Numbers that JSON does not have, as `null`.
mod finite_or_null {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        Some(*value).filter(|value| value.is_finite()).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Option::deserialize(deserializer).map(|value| value.unwrap_or(f64::NAN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_whose_loss_overflowed_reads_back() {
        let line = Line {
            step: 1,
            epoch: 1,
            loss: f64::INFINITY,
            preference: None,
            learning_rate: 0.0,
            gradient_norm: f64::NAN,
            loss_scale: Some(2.0),
            skipped: true,
            tokens: 3,
            seconds: 0.5,
        };
        let text = serde_json::to_string(&line).unwrap();
        let read: Line = serde_json::from_str(&text).unwrap();
        assert!(read.loss.is_nan() && read.gradient_norm.is_nan() && read.skipped, "{text}");
        let written_before =
            r#"{"step":1,"epoch":1,"loss":2.5,"learning_rate":0,"gradient_norm":1,"tokens":3,"seconds":1}"#;
        let read: Line = serde_json::from_str(written_before).unwrap();
        assert!(!read.skipped && read.loss_scale.is_none());
    }
}
