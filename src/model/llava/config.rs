//! What a LLaVA checkpoint is: its shapes, the features it uses, the tensors it consists of.
//!
//! This module reads no file and touches no tensor.

use crate::model::lora::Target;

/// The architectures that are read, as `model_type` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// `llava`: one view of a picture (LLaVA-1.5).
    Llava,
    /// `llava_next`: tiles of a picture beside a view of the whole (LLaVA-1.6).
    LlavaNext,
}

impl Architecture {
    /// Its `model_type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llava => "llava",
            Self::LlavaNext => "llava_next",
        }
    }
}

/// How a picture becomes what the tower reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageMode {
    /// The shortest side scaled to the tower's size, the centre cut out.
    Crop,
    /// Padded to a square with the mean colour, then scaled.
    Pad,
    /// The whole squashed to a square, and tiles of the picture at the best of several resolutions.
    Anyres,
}

impl ImageMode {
    /// All modes.
    pub const ALL: [Self; 3] = [Self::Crop, Self::Pad, Self::Anyres];

    /// Its name in a pipeline file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crop => "crop",
            Self::Pad => "pad",
            Self::Anyres => "anyres",
        }
    }
}

/// Whose arithmetic decides tiles and unpadding of `anyres`: the two differ on ties and on some sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnyresRule {
    /// The original repository's: grid points are (width, height), the unpadded side is truncated.
    Original,
    /// transformers': grid points are (height, width), the side is rounded to seven places before it is truncated.
    HuggingFace,
}

impl AnyresRule {
    /// Both rules.
    pub const ALL: [Self; 2] = [Self::Original, Self::HuggingFace];

    /// Its name in a pipeline file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Original => "original",
            Self::HuggingFace => "huggingface",
        }
    }
}

/// An activation function of the tower or of the projector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x · sigmoid(1.702 x).
    QuickGelu,
    /// The exact Gaussian error linear unit.
    Gelu,
    /// Its approximation by a hyperbolic tangent.
    TanhGelu,
    /// max(x, 0).
    Relu,
    /// x · sigmoid(x).
    Silu,
}

/// The CLIP vision tower.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
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
    /// Of the feed-forward part.
    pub activation: Activation,
}

impl VisionConfig {
    /// Whole patches along a side of a view; pixels that are left over at its end are not read.
    pub fn patches_per_side(&self) -> usize {
        self.image_size / self.patch_size
    }
}

/// The Llama or Mistral decoder; the two compute the same but for the sliding window.
#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    /// Rows of the embedding and of the head.
    pub vocabulary: usize,
    /// Features of a position.
    pub hidden: usize,
    /// Features inside the feed-forward part.
    pub intermediate: usize,
    /// Layers.
    pub layers: usize,
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of keys and values; each serves `heads / key_value_heads` query heads.
    pub key_value_heads: usize,
    /// Features of a head.
    pub head_size: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Added to the mean square by the norms.
    pub norm_epsilon: f64,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// How far back a position sees, itself included; `None`: to the start.
    pub sliding_window: Option<usize>,
    /// The longest sequence that the model was made for, in positions. Nothing enforces it.
    pub max_positions: usize,
}

impl TextConfig {
    /// The shape of a linear layer's weight, `[out, in]`.
    pub fn shape(&self, target: Target) -> [usize; 2] {
        let (queries, keys) = (self.heads * self.head_size, self.key_value_heads * self.head_size);
        match target {
            Target::Q => [queries, self.hidden],
            Target::K | Target::V => [keys, self.hidden],
            Target::O => [self.hidden, queries],
            Target::Gate | Target::Up => [self.intermediate, self.hidden],
            Target::Down => [self.hidden, self.intermediate],
        }
    }
}

/// A LLaVA checkpoint's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Which architecture.
    pub architecture: Architecture,
    /// The tower.
    pub vision: VisionConfig,
    /// The decoder.
    pub text: TextConfig,
    /// The token that stands for a picture.
    pub image_token: u32,
    /// The tokens that end a text.
    pub end_tokens: Vec<u32>,
    /// Which of the tower's hidden states is read: 0 is the embedding, −1 the last layer's output.
    pub feature_layer: i64,
    /// Whether the class token's row is dropped.
    pub drop_class_token: bool,
    /// Between the projector's layers.
    pub projector_activation: Activation,
    /// Whether the projector's layers have a bias.
    pub projector_bias: bool,
    /// The resolutions of `anyres` in pixels, as stored; what comes first is by `anyres_rule`. Empty for `llava`.
    pub grid_pinpoints: Vec<[u32; 2]>,
    /// Whether the checkpoint has a learned row that ends a line of patches.
    pub image_newline: bool,
    /// Whose arithmetic `anyres` follows.
    pub anyres_rule: AnyresRule,
}

impl Config {
    /// How many of the tower's layers come before the feature that is read.
    pub fn tower_layers(&self) -> usize {
        feature_index(self.feature_layer, self.vision.layers).unwrap_or(self.vision.layers)
    }

    /// Every tensor that the model reads, with its shape, in the names of Hugging Face's first generation.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let mut tensors = Vec::new();
        let mut add = |name: String, shape: &[usize]| tensors.push((name, shape.to_vec()));

        let VisionConfig { hidden, intermediate, patch_size, .. } = self.vision;
        let positions = self.vision.patches_per_side().pow(2) + 1;
        let prefix = "vision_tower.vision_model";
        add(format!("{prefix}.embeddings.class_embedding"), &[hidden]);
        add(format!("{prefix}.embeddings.patch_embedding.weight"), &[hidden, 3, patch_size, patch_size]);
        add(format!("{prefix}.embeddings.position_embedding.weight"), &[positions, hidden]);
        let mut affine = |name: String, shape: &[usize]| {
            add(format!("{name}.weight"), shape);
            add(format!("{name}.bias"), &shape[..1]);
        };
        affine(format!("{prefix}.pre_layrnorm"), &[hidden]);
        for layer in 0..self.tower_layers() {
            let layer = format!("{prefix}.encoder.layers.{layer}");
            for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                affine(format!("{layer}.self_attn.{name}"), &[hidden, hidden]);
            }
            affine(format!("{layer}.layer_norm1"), &[hidden]);
            affine(format!("{layer}.layer_norm2"), &[hidden]);
            affine(format!("{layer}.mlp.fc1"), &[intermediate, hidden]);
            affine(format!("{layer}.mlp.fc2"), &[hidden, intermediate]);
        }

        let TextConfig { vocabulary, hidden: width, .. } = self.text;
        for (name, inputs) in [("linear_1", hidden), ("linear_2", width)] {
            add(format!("multi_modal_projector.{name}.weight"), &[width, inputs]);
            if self.projector_bias {
                add(format!("multi_modal_projector.{name}.bias"), &[width]);
            }
        }
        if self.image_newline {
            add("image_newline".to_owned(), &[width]);
        }

        add("language_model.model.embed_tokens.weight".to_owned(), &[vocabulary, width]);
        for layer in 0..self.text.layers {
            let layer = format!("language_model.model.layers.{layer}");
            add(format!("{layer}.input_layernorm.weight"), &[width]);
            add(format!("{layer}.post_attention_layernorm.weight"), &[width]);
            for target in Target::ALL {
                add(format!("{layer}.{}.weight", target.path()), &self.text.shape(target));
            }
        }
        add("language_model.model.norm.weight".to_owned(), &[width]);
        if !self.text.tied {
            add("language_model.lm_head.weight".to_owned(), &[vocabulary, width]);
        }
        tensors
    }
}

/// The index into the embedding's and the layers' outputs.
pub(super) fn feature_index(layer: i64, layers: usize) -> Option<usize> {
    let count = layers as i64 + 1;
    let index = if layer < 0 { count + layer } else { layer };
    (0..count).contains(&index).then_some(index as usize)
}
