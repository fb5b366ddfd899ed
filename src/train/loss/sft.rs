//! Supervised fine-tuning: cross-entropy over the tokens of answers.
//!
//! The mean is over all answer tokens of a batch, as PyTorch's `cross_entropy` with `ignore_index` takes it over a
//! batch that is not divided; how a batch is divided into micro-batches therefore does not change it.

/// The sums over the answer tokens of one batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrossEntropy {
    /// How many answer tokens the whole batch has.
    pub tokens: usize,
}

impl CrossEntropy {
    /// The share of the batch's loss that tokens with these log-probabilities make up.
    pub fn share(&self, log_probabilities: &[f32]) -> f64 {
        -log_probabilities.iter().map(|value| f64::from(*value)).sum::<f64>() / self.tokens as f64
    }

    /// `∂loss/∂log p` of every answer token.
    pub fn weight(&self) -> f64 {
        -1.0 / self.tokens as f64
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Int, Tensor, TensorData};
    use serde::Deserialize;

    use super::*;
    use crate::model::forward::of_labels;
    use crate::train::loss::dpo::{Dpo, Sums};

    /// What `tests/reference/losses.py` wrote.
    #[derive(Deserialize)]
    struct Reference {
        vocabulary: usize,
        /// By sequence, by position, by token.
        logits: Vec<Vec<Vec<f32>>>,
        /// By sequence, by position: the token there, −100 where it is not of an answer.
        labels: Vec<Vec<i64>>,
        sft: ReferenceLoss,
        beta: f64,
        chosen_weight: f64,
        /// The reference's summed log-probabilities; sequences 2i and 2i + 1 are pair i.
        reference: Vec<f64>,
        dpo: ReferenceLoss,
    }

    #[derive(Deserialize)]
    struct ReferenceLoss {
        loss: f64,
        gradient: Vec<Vec<Vec<f32>>>,
    }

    fn reference() -> Reference {
        serde_json::from_str(include_str!("../../../tests/reference/losses.json")).unwrap()
    }

    /// Loss and gradient for all logits; `weigh` gives the loss and the weights of a sequence's tokens, by sequence.
    fn gradient(reference: &Reference, weigh: impl Fn(&[Vec<f32>]) -> (f64, Vec<f64>)) -> (f64, Vec<f32>) {
        let device = Device::flex();
        let flat: Vec<f32> = reference.logits.iter().flatten().flatten().copied().collect();
        let rows = flat.len() / reference.vocabulary;
        let logits = Tensor::<2>::from_data(TensorData::new(flat, [rows, reference.vocabulary]), &device);
        let logits = logits.autodiff().require_grad();
        // The logits at a position speak of the next token.
        let (mut predictors, mut labels, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        let length = reference.labels[0].len();
        for (index, sequence) in reference.labels.iter().enumerate() {
            let before = labels.len();
            for (position, label) in sequence.iter().enumerate().filter(|(_, label)| **label >= 0) {
                predictors.push((index * length + position - 1) as i64);
                labels.push(*label);
            }
            counts.push(labels.len() - before);
        }
        let count = labels.len();
        let predictors = Tensor::<1, Int>::from_data(TensorData::new(predictors, [count]), &device);
        let labels = Tensor::<2, Int>::from_data(TensorData::new(labels, [count, 1]), &device);
        let values = of_labels(logits.clone().select(0, predictors), labels);
        let mut rest: Vec<f32> = values.clone().inner().try_into_vec_as().unwrap();
        let by_sequence: Vec<Vec<f32>> = counts.iter().map(|count| rest.drain(..*count).collect()).collect();
        let (loss, weights) = weigh(&by_sequence);
        let weights: Vec<f32> =
            counts.iter().zip(weights).flat_map(|(count, weight)| vec![weight as f32; *count]).collect();
        let weights = Tensor::<1>::from_data(TensorData::new(weights, [count]), &device);
        let gradients = (values * weights.autodiff()).sum().backward();
        (loss, logits.grad(&gradients).unwrap().try_into_vec_as().unwrap())
    }

    fn compare((loss, gradient): (f64, Vec<f32>), expected: &ReferenceLoss) {
        assert!((loss - expected.loss).abs() < 1e-6, "{loss}, PyTorch {}", expected.loss);
        for (found, expected) in gradient.iter().zip(expected.gradient.iter().flatten().flatten()) {
            assert!((found - expected).abs() < 1e-7, "{found}, PyTorch {expected}");
        }
    }

    #[test]
    fn cross_entropy_and_its_gradient_equal_pytorch_s() {
        let reference = reference();
        let found = gradient(&reference, |values| {
            let batch = CrossEntropy { tokens: values.iter().map(Vec::len).sum() };
            (values.iter().map(|values| batch.share(values)).sum(), vec![batch.weight(); values.len()])
        });
        compare(found, &reference.sft);
    }

    #[test]
    fn dpo_and_its_gradient_equal_pytorch_s() {
        let reference = reference();
        let dpo = Dpo { beta: reference.beta, chosen_weight: reference.chosen_weight };
        let sum = |values: &Vec<f32>| values.iter().map(|value| f64::from(*value)).sum::<f64>();
        let found = gradient(&reference, |values| {
            let pairs = values.chunks(2).zip(reference.reference.chunks(2)).map(|(policy, reference)| {
                dpo.pair(
                    Sums { chosen: sum(&policy[0]), rejected: sum(&policy[1]) },
                    Sums { chosen: reference[0], rejected: reference[1] },
                )
            });
            let count = (values.len() / 2) as f64;
            let pairs: Vec<_> = pairs.collect();
            let loss = pairs.iter().map(|pair| pair.loss()).sum::<f64>() / count;
            (loss, pairs.iter().flat_map(|pair| [pair.weight_chosen / count, pair.weight_rejected / count]).collect())
        });
        compare(found, &reference.dpo);
    }

    #[test]
    fn the_mean_is_over_tokens_not_over_sequences() {
        // By hand: probabilities 1/2 | 1/4, 1/4, 1/4 give (ln 2 + 3 ln 4) / 4 = 7/4 ln 2.
        let batch = CrossEntropy { tokens: 4 };
        let ln = |value: f32| value.ln();
        let loss = batch.share(&[ln(0.5)]) + batch.share(&[ln(0.25); 3]);
        assert!((loss - 1.75 * 2f64.ln()).abs() < 1e-6, "{loss}");
        assert_eq!(batch.weight(), -0.25);
    }
}
