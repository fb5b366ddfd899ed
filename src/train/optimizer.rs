//! AdamW and global-norm clipping, in f32 and as PyTorch computes them, over parameters named by path.
//!
//! State is keyed by path, so that it can be written beside the parameters and read back. This module does not know
//! what the parameters belong to, nor how their gradients were made.

use std::collections::BTreeMap;

use burn::tensor::Tensor;

/// Parameters, or their gradients, by path; each flattened to one dimension, f32.
pub type Parameters = BTreeMap<String, Tensor<1>>;

/// The two moments of one parameter.
#[derive(Clone, Debug)]
pub struct Moments {
    /// The decaying mean of gradients.
    pub first: Tensor<1>,
    /// The decaying mean of squared gradients.
    pub second: Tensor<1>,
}

/// AdamW of <https://arxiv.org/abs/1711.05101> with bias correction, `epsilon` outside the root and the decay
/// decoupled, as `torch.optim.AdamW`. The defaults are PyTorch's but for the decay, which is zero as in the paper.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// The decay rates of the first and the second moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Every step shrinks parameters by this times the learning rate.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], epsilon: 1e-8, weight_decay: 0.0 }
    }
}

impl AdamW {
    /// Takes step number `step`, counted from 1, and updates `moments`, which are empty before the first. Parameters
    /// without a gradient stay as they are, and so do their moments.
    ///
    /// # Shapes
    /// - `parameters[path]`, `gradients[path]`: `[n]`, f32
    ///
    /// # Panics
    /// When a gradient has no parameter, or another shape.
    pub fn step(
        &self,
        step: u64,
        moments: &mut BTreeMap<String, Moments>,
        parameters: &mut Parameters,
        gradients: Parameters,
        learning_rate: f64,
    ) {
        let Self { betas: [beta1, beta2], epsilon, weight_decay } = *self;
        let step_size = learning_rate / (1.0 - beta1.powf(step as f64));
        let correction = (1.0 - beta2.powf(step as f64)).sqrt();
        for (path, gradient) in gradients {
            let mut value = parameters.remove(&path).expect("a gradient belongs to a parameter");
            let (first, second) = match moments.remove(&path) {
                Some(Moments { first, second }) => (first, second),
                None => (gradient.zeros_like(), gradient.zeros_like()),
            };
            // The order of operations is that of `torch.optim._single_tensor_adamw`, for the sake of the last bits.
            if weight_decay != 0.0 {
                value = value.mul_scalar(1.0 - learning_rate * weight_decay);
            }
            let second = second.mul_scalar(beta2).add(gradient.clone().square().mul_scalar(1.0 - beta2));
            let first = first.clone().add(gradient.sub(first).mul_scalar(1.0 - beta1));
            let denominator = second.clone().sqrt().div_scalar(correction).add_scalar(epsilon);
            let value = value.sub(first.clone().div(denominator).mul_scalar(step_size));
            parameters.insert(path.clone(), value);
            moments.insert(path, Moments { first, second });
        }
    }
}

/// Scales `gradients` together so that their joint 2-norm is at most `max_norm`, as
/// `torch.nn.utils.clip_grad_norm_`, and returns the norm that they had. Zero leaves them as they are.
///
/// The norm is not finite when a gradient is not; the caller decides what that means.
pub fn clip(gradients: &mut Parameters, max_norm: f64) -> f64 {
    let norm = global_norm(gradients);
    let scale = max_norm / (norm + 1e-6);
    if max_norm > 0.0 && scale < 1.0 {
        for gradient in gradients.values_mut() {
            gradient.inplace(|gradient| gradient.mul_scalar(scale));
        }
    }
    norm
}

/// The 2-norm of all of `gradients` as one vector; the device is read once.
pub fn global_norm(gradients: &Parameters) -> f64 {
    if gradients.is_empty() {
        return 0.0;
    }
    let squares = gradients.values().map(|gradient| gradient.clone().square().sum()).collect();
    f64::from(Tensor::cat(squares, 0).sum().sqrt().into_scalar::<f32>())
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use serde::Deserialize;

    use super::*;
    use crate::train::schedule::{LearningRate, Schedule};

    /// What `tests/reference/optimizer.py` wrote.
    #[derive(Deserialize)]
    struct Reference {
        learning_rate: f64,
        warmup_ratio: f64,
        weight_decay: f64,
        max_norm: f64,
        initial: BTreeMap<String, Vec<f32>>,
        steps: Vec<ReferenceStep>,
    }

    #[derive(Deserialize)]
    struct ReferenceStep {
        gradients: BTreeMap<String, Vec<f32>>,
        norm: f64,
        learning_rate: f64,
        parameters: BTreeMap<String, Vec<f32>>,
    }

    fn tensors(values: &BTreeMap<String, Vec<f32>>) -> Parameters {
        let device = Device::flex();
        let tensor = |values: &Vec<f32>| Tensor::from_floats(values.as_slice(), &device);
        values.iter().map(|(path, values)| (path.clone(), tensor(values))).collect()
    }

    fn values(tensor: &Tensor<1>) -> Vec<f32> {
        tensor.try_to_vec_as().unwrap()
    }

    #[test]
    fn six_steps_equal_pytorch_s() {
        let reference: Reference = serde_json::from_str(include_str!("../../tests/reference/optimizer.json")).unwrap();
        let config = AdamW { weight_decay: reference.weight_decay, ..AdamW::default() };
        let total = reference.steps.len();
        let rate = LearningRate::new(Schedule::Cosine, reference.learning_rate, reference.warmup_ratio, total);
        let mut moments = BTreeMap::new();
        let mut parameters = tensors(&reference.initial);
        for (index, step) in reference.steps.iter().enumerate() {
            let mut gradients = tensors(&step.gradients);
            let norm = clip(&mut gradients, reference.max_norm);
            assert!((norm / step.norm - 1.0).abs() < 1e-6, "norm {norm}, PyTorch {}", step.norm);
            assert!((rate.at(index) - step.learning_rate).abs() < 1e-15);
            config.step(index as u64 + 1, &mut moments, &mut parameters, gradients, rate.at(index));
            for (path, expected) in &step.parameters {
                for (found, expected) in values(&parameters[path]).iter().zip(expected) {
                    assert!((found - expected).abs() < 1e-7, "step {index}, {path}: {found}, PyTorch {expected}");
                }
            }
        }
    }

    #[test]
    fn the_first_step_moves_every_value_by_the_learning_rate() {
        // With bias correction m/√v = g/|g|, regardless of the gradient's size.
        let mut parameters = tensors(&BTreeMap::from([("a".to_owned(), vec![1.0, 1.0])]));
        let gradients = tensors(&BTreeMap::from([("a".to_owned(), vec![5.0, -0.01])]));
        AdamW::default().step(1, &mut BTreeMap::new(), &mut parameters, gradients, 0.1);
        let found = values(&parameters["a"]);
        assert!((found[0] - 0.9).abs() < 1e-6 && (found[1] - 1.1).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn clipping_looks_at_all_gradients_together() {
        let mut gradients = tensors(&BTreeMap::from([("a".to_owned(), vec![3.0]), ("b".to_owned(), vec![4.0])]));
        assert_eq!(clip(&mut gradients, 1.0), 5.0);
        let found = (values(&gradients["a"])[0], values(&gradients["b"])[0]);
        assert!((found.0 - 0.6).abs() < 1e-6 && (found.1 - 0.8).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn small_gradients_and_a_limit_of_zero_are_not_clipped() {
        for limit in [10.0, 0.0] {
            let mut gradients = tensors(&BTreeMap::from([("a".to_owned(), vec![3.0, 4.0])]));
            assert_eq!(clip(&mut gradients, limit), 5.0);
            assert_eq!(values(&gradients["a"]), [3.0, 4.0]);
        }
    }

    #[test]
    fn a_gradient_that_is_not_finite_shows_in_the_norm() {
        let mut gradients = tensors(&BTreeMap::from([("a".to_owned(), vec![1.0, f32::NAN])]));
        assert!(clip(&mut gradients, 1.0).is_nan());
    }
}
