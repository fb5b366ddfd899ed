//! The two-layer perceptron that takes the tower's features into the decoder's space.

use burn::tensor::Tensor;

use super::config::Config;
use crate::model::ModelError;
use crate::model::files::Tensors;
use crate::model::nn::{Activation, Linear};

/// The projector's weights.
#[derive(Clone, Debug)]
pub struct Projector {
    first: Linear,
    activation: Activation,
    second: Linear,
}

impl Projector {
    /// Takes the projector's tensors out of `tensors`.
    pub(super) fn build<T: Tensors>(config: &Config, tensors: &mut T) -> Result<Self, ModelError> {
        let mut linear = |name: &str, shape| {
            Linear::read(tensors, &format!("multi_modal_projector.{name}"), shape, config.projector_bias)
        };
        let hidden = config.text.hidden;
        Ok(Self {
            first: linear("linear_1", [hidden, config.vision.hidden])?,
            activation: config.projector_activation,
            second: linear("linear_2", [hidden, hidden])?,
        })
    }

    /// # Shapes
    /// - `features`: `[rows, vision hidden]`
    /// - returns: `[rows, hidden]`
    pub fn forward(&self, features: Tensor<2>) -> Tensor<2> {
        self.second.forward(self.activation.forward(self.first.forward(features)))
    }
}
