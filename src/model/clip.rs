//! CLIP's vision tower up to the layer whose output is read. It does not know how pictures become views.

use burn::tensor::Tensor;

use super::ModelError;
use super::files::json::{LARGEST_EPSILON, MOST_FEATURES, MOST_HEADS, MOST_LAYERS, MOST_PIXELS, divides};
use super::files::{Fields, Tensors};
use super::nn::{Activation, LayerNorm, Linear, Weight, attend};

/// The CLIP vision tower.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Features of a patch.
    pub hidden: usize,
    /// Features inside the feed-forward part.
    pub intermediate: usize,
    /// Layers of the checkpoint. Those after the feature layer are not read.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Side of a view in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Added to the variance by the layer norms.
    pub norm_epsilon: f64,
    /// The size of the feed-forward part.
    pub activation: Activation,
}

impl Config {
    /// Reads `vision_config`. What the file leaves out is as in transformers' `CLIPVisionConfig`.
    ///
    /// # Errors
    /// When a value has the wrong type or size, or is not supported.
    pub fn read(fields: &Fields<'_>) -> Result<Self, ModelError> {
        fields.only("model_type", "clip_vision_model")?;
        let vision = Self {
            hidden: fields.positive("hidden_size", 768, MOST_FEATURES)?,
            intermediate: fields.positive("intermediate_size", 3072, MOST_FEATURES)?,
            layers: fields.positive("num_hidden_layers", 12, MOST_LAYERS)?,
            heads: fields.positive("num_attention_heads", 12, MOST_HEADS)?,
            image_size: fields.positive("image_size", 224, MOST_PIXELS)?,
            patch_size: fields.positive("patch_size", 32, MOST_PIXELS)?,
            norm_epsilon: fields.number("layer_norm_eps", 1e-5, LARGEST_EPSILON)?,
            activation: Activation::read(fields, "hidden_act", Activation::QuickGelu)?,
        };
        if fields.positive("num_channels", 3, MOST_FEATURES)? != 3 {
            return Err(ModelError::new("`vision_config.num_channels` is not 3"));
        }
        divides("vision_config.num_attention_heads", vision.heads, "vision_config.hidden_size", vision.hidden)?;
        if vision.patch_size > vision.image_size {
            return Err(ModelError::new(format!(
                "`vision_config.patch_size`, {}, is more than `vision_config.image_size`, {}",
                vision.patch_size, vision.image_size
            )));
        }
        Ok(vision)
    }

    /// Whole patches along a side of a view; pixels that are left over at its end are not read.
    pub fn patches_per_side(&self) -> usize {
        self.image_size / self.patch_size
    }
}

/// The tower's weights.
#[derive(Clone, Debug)]
pub struct Tower {
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

impl Tower {
    /// Takes the tensors of the first `depth` layers out of `tensors`.
    ///
    /// # Errors
    /// When one is not there.
    pub fn build<T: Tensors>(
        config: &Config,
        depth: usize,
        drop_class_token: bool,
        tensors: &mut T,
    ) -> Result<Self, ModelError> {
        let Config { hidden, intermediate, patch_size, norm_epsilon: epsilon, .. } = *config;
        let prefix = "vision_tower.vision_model";
        let class = tensors.tensor(&format!("{prefix}.embeddings.class_embedding"), [hidden])?;
        let kernel = [hidden, 3, patch_size, patch_size];
        let patch = tensors.tensor(&format!("{prefix}.embeddings.patch_embedding.weight"), kernel)?;
        let positions = config.patches_per_side().pow(2) + 1;
        let position =
            tensors.tensor(&format!("{prefix}.embeddings.position_embedding.weight"), [positions, hidden])?;
        let norm = LayerNorm::read(tensors, &format!("{prefix}.pre_layrnorm"), hidden, epsilon)?;
        let layers = (0..depth)
            .map(|index| {
                let layer = format!("{prefix}.encoder.layers.{index}");
                let mut linear = |name: &str, shape| Linear::read(tensors, &format!("{layer}.{name}"), shape, true);
                let [query, key, value, output] = ["q_proj", "k_proj", "v_proj", "out_proj"]
                    .map(|name| linear(&format!("self_attn.{name}"), [hidden, hidden]));
                let widen = linear("mlp.fc1", [intermediate, hidden])?;
                let narrow = linear("mlp.fc2", [hidden, intermediate])?;
                let mut norm = |name: &str| LayerNorm::read(tensors, &format!("{layer}.{name}"), hidden, epsilon);
                Ok(Layer {
                    attention_norm: norm("layer_norm1")?,
                    feed_forward_norm: norm("layer_norm2")?,
                    query: query?,
                    key: key?,
                    value: value?,
                    output: output?,
                    widen,
                    narrow,
                })
            })
            .collect::<Result<_, ModelError>>()?;
        let patch = patch.reshape([hidden, 3 * patch_size * patch_size]);
        Ok(Self {
            heads: config.heads,
            patch_size,
            activation: config.activation,
            drop_class_token,
            class,
            patch: Linear { weight: Weight::Dense(patch), bias: None },
            position,
            norm,
            layers,
        })
    }

    /// The output of the last layer that was read, a row for each patch, in reading order; the class token first where
    /// it is kept.
    ///
    /// # Shapes
    /// - `views`: `[views, 3, size, size]`, normalized
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
        rows + layer.narrow.forward(self.activation.forward(wide))
    }
}
