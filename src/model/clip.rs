//! CLIP's vision tower up to the layer whose output LLaVA reads. It does not know how pictures become views.

use burn::tensor::Tensor;
use burn::tensor::activation::{gelu, gelu_approximate, relu, sigmoid, silu};

use super::{Activation, Config, Tensors};
use crate::model::ModelError;
use crate::model::nn::{LayerNorm, Linear, attend};

/// The tower's weights.
#[derive(Clone, Debug)]
pub struct Vision {
    heads: usize,
    patch_size: usize,
    activation: Activation,
    drop_class_token: bool,
    /// `[hidden]`.
    class: Tensor<1>,
    /// `[hidden, 3 · patch · patch]`.
    patch: Linear,
    /// `[patches + 1, hidden]`.
    position: Tensor<2>,
    norm: LayerNorm,
    layers: Vec<Layer>,
}

#[derive(Clone, Debug)]
struct Layer {
    attention_norm: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    feed_forward_norm: LayerNorm,
    widen: Linear,
    narrow: Linear,
}

impl Vision {
    /// Takes the tower's tensors out of `tensors`, as far as the feature layer.
    pub(super) fn build(config: &Config, tensors: &mut dyn Tensors) -> Result<Self, ModelError> {
        let vision = &config.vision;
        let (hidden, patch_size) = (vision.hidden, vision.patch_size);
        let prefix = "vision_tower.vision_model";
        let class = tensors.vector(&format!("{prefix}.embeddings.class_embedding"), [hidden])?;
        let kernel = [hidden, 3, patch_size, patch_size];
        let patch = tensors.kernel(&format!("{prefix}.embeddings.patch_embedding.weight"), kernel)?;
        let positions = vision.patches_per_side().pow(2) + 1;
        let position =
            tensors.matrix(&format!("{prefix}.embeddings.position_embedding.weight"), [positions, hidden])?;
        let norm = |tensors: &mut dyn Tensors, name: String| {
            let weight = tensors.vector(&format!("{name}.weight"), [hidden])?;
            let bias = tensors.vector(&format!("{name}.bias"), [hidden])?;
            Ok::<_, ModelError>(LayerNorm { weight, bias, epsilon: vision.norm_epsilon })
        };
        let pre_norm = norm(tensors, format!("{prefix}.pre_layrnorm"))?;
        let layers = (0..config.tower_layers())
            .map(|index| {
                let layer = format!("{prefix}.encoder.layers.{index}");
                let attention_norm = norm(tensors, format!("{layer}.layer_norm1"))?;
                let feed_forward_norm = norm(tensors, format!("{layer}.layer_norm2"))?;
                let mut linear = |name: &str, shape: [usize; 2]| {
                    let weight = tensors.matrix(&format!("{layer}.{name}.weight"), shape)?;
                    let bias = tensors.vector(&format!("{layer}.{name}.bias"), [shape[0]])?;
                    Ok::<_, ModelError>(Linear { weight, bias: Some(bias) })
                };
                Ok(Layer {
                    attention_norm,
                    query: linear("self_attn.q_proj", [hidden, hidden])?,
                    key: linear("self_attn.k_proj", [hidden, hidden])?,
                    value: linear("self_attn.v_proj", [hidden, hidden])?,
                    output: linear("self_attn.out_proj", [hidden, hidden])?,
                    feed_forward_norm,
                    widen: linear("mlp.fc1", [vision.intermediate, hidden])?,
                    narrow: linear("mlp.fc2", [hidden, vision.intermediate])?,
                })
            })
            .collect::<Result<_, ModelError>>()?;
        Ok(Self {
            heads: vision.heads,
            patch_size,
            activation: vision.activation,
            drop_class_token: config.drop_class_token,
            class,
            patch: Linear { weight: patch.reshape([hidden, 3 * patch_size * patch_size]), bias: None },
            position,
            norm: pre_norm,
            layers,
        })
    }

    /// The feature that LLaVA reads, a row for each patch, in reading order; the class token first where it is kept.
    ///
    /// # Shapes
    /// - `views`: `[views, 3, size, size]`, normalised
    /// - returns: `[views, patches (+ 1), hidden]`
    pub fn forward(&self, views: Tensor<4>) -> Tensor<3> {
        let [count, channels, size, _] = views.dims();
        let (side, patch) = (size / self.patch_size, self.patch_size);
        let hidden = self.class.dims()[0];
        // A convolution whose stride is its kernel's size is a product over patches, and leaves out what is left over.
        let whole = side * patch;
        let patches = views
            .narrow(2, 0, whole)
            .narrow(3, 0, whole)
            .reshape([count, channels, side, patch, side, patch])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([count * side * side, channels * patch * patch]);
        let patches = self.patch.forward(patches).reshape([count, side * side, hidden]);
        let class = self.class.clone().reshape([1, 1, hidden]).expand([count, 1, hidden]);
        let length = side * side + 1;
        let rows = Tensor::cat(vec![class, patches], 1) + self.position.clone().unsqueeze();
        let mut rows = self.norm.forward(rows.reshape([count * length, hidden]));
        for layer in &self.layers {
            rows = self.layer(layer, rows, count, length);
        }
        let features = rows.reshape([count, length, hidden]);
        if self.drop_class_token { features.narrow(1, 1, length - 1) } else { features }
    }

    fn layer(&self, layer: &Layer, rows: Tensor<2>, count: usize, length: usize) -> Tensor<2> {
        let hidden = rows.dims()[1];
        let split = |rows: Tensor<2>| rows.reshape([count, length, self.heads, hidden / self.heads]).swap_dims(1, 2);
        let normal = layer.attention_norm.forward(rows.clone());
        let query = split(layer.query.forward(normal.clone()));
        let key = split(layer.key.forward(normal.clone()));
        let value = split(layer.value.forward(normal));
        let context = attend(query, key, value, None).swap_dims(1, 2).reshape([count * length, hidden]);
        let rows = rows + layer.output.forward(context);

        let wide = layer.widen.forward(layer.feed_forward_norm.forward(rows.clone()));
        rows + layer.narrow.forward(activate(self.activation, wide))
    }
}

/// `rows` through `activation`.
pub(super) fn activate(activation: Activation, rows: Tensor<2>) -> Tensor<2> {
    match activation {
        Activation::QuickGelu => rows.clone() * sigmoid(rows * 1.702),
        Activation::Gelu => gelu(rows),
        Activation::TanhGelu => gelu_approximate(rows),
        Activation::Relu => relu(rows),
        Activation::Silu => silu(rows),
    }
}
