//! Losses as numbers on the host, and their derivatives with respect to log-probabilities in closed form.
//!
//! A loss sees the log-probabilities of the answers' tokens and gives, beside its value, the weight with which each of
//! them enters the gradient: `∂loss/∂log p`. The model's backward pass starts from these weights, so that no loss needs
//! a graph of its own, and none knows how a batch is divided. This module does not know the model.

pub mod dpo;
pub mod sft;

use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Int, Tensor};

/// The log-probability, in nats, of each label under its row of logits; in 32 bits, differentiable.
///
/// # Shapes
/// - `logits`: `[n, vocabulary]`
/// - `labels`: `[n, 1]`
/// - returns: `[n]`
pub fn log_probabilities(logits: Tensor<2>, labels: Tensor<2, Int>) -> Tensor<1> {
    log_softmax(logits.cast(DType::F32), 1).gather(1, labels).squeeze_dim(1)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn labels_are_gathered_not_the_likeliest_tokens() {
        let device = Device::flex();
        let logits = Tensor::from_floats([[2.0, 1.0, 0.0, -1.0], [0.5, 0.0, 1.5, -0.5], [1.0, 3.0, 2.0, 0.0]], &device);
        let labels = Tensor::from_ints([[0], [2], [2]], &device);
        let found: Vec<f32> = log_probabilities(logits, labels).try_into_vec_as().unwrap();
        for (found, expected) in found.iter().zip([-0.440_190, -0.546_006, -1.440_19]) {
            assert!((found - expected).abs() < 1e-6, "{found:?}");
        }
        assert!((found.iter().sum::<f32>() + 2.426_386).abs() < 2e-6);
    }
}
