//! The two-layer perceptron that takes the tower's features into the decoder's space.

use burn::tensor::Tensor;

use super::vision::activate;
use super::{Activation, Config, Tensors};
use crate::model::ModelError;
use crate::model::nn::Linear;

/// The projector's weights.
#[derive(Clone, Debug)]
pub struct Projector {
    first: Linear,
    activation: Activation,
    second: Linear,
}

impl Projector {
    /// Takes the projector's tensors out of `tensors`.
    pub(super) fn build(config: &Config, tensors: &mut dyn Tensors) -> Result<Self, ModelError> {
        let mut linear = |name: &str, shape: [usize; 2]| {
            let weight = tensors.matrix(&format!("multi_modal_projector.{name}.weight"), shape)?;
            let bias = if config.projector_bias {
                Some(tensors.vector(&format!("multi_modal_projector.{name}.bias"), [shape[0]])?)
            } else {
                None
            };
            Ok::<_, ModelError>(Linear { weight, bias })
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
        self.second.forward(activate(self.activation, self.first.forward(features)))
    }
}
