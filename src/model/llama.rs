//! The Llama and Mistral decoder: RMS norms, RoPE in two halves, grouped-query attention, SwiGLU.
//!
//! Layers are run one by one by the caller, who owns positions, masks, adapter and cache. This module knows no
//! pictures.

use burn::tensor::{DType, Device, Int, Tensor};
use serde_json::{Map, Value};

use super::ModelError;
use super::adapter::LayerAdapter;
use super::attention::{Attention, LayerCache, Mask, Rotary, Slot, in_rows};
use super::files::json::{
    LARGEST_BASE, LARGEST_EPSILON, MOST_FEATURES, MOST_HEADS, MOST_LAYERS, MOST_POSITIONS, MOST_TOKENS, divides,
    unsupported,
};
use super::files::{Fields, Tensors};
use super::nn::{Linear, RmsNorm, Weight, attend, gated};
use super::shape::LinearSpec;

/// The linear layers of a decoder layer, by name and path, in the order in which they are computed.
pub const LINEARS: [(&str, &str); 7] = [
    ("q_proj", "self_attn.q_proj"),
    ("k_proj", "self_attn.k_proj"),
    ("v_proj", "self_attn.v_proj"),
    ("o_proj", "self_attn.o_proj"),
    ("gate_proj", "mlp.gate_proj"),
    ("up_proj", "mlp.up_proj"),
    ("down_proj", "mlp.down_proj"),
];

/// The Llama or Mistral decoder; the two compute the same but for the sliding window.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
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

impl Config {
    /// Reads `text_config`. What the file leaves out is as in transformers' `LlamaConfig` or `MistralConfig`.
    ///
    /// # Errors
    /// When a value has the wrong type or size, or is not supported.
    pub fn read(fields: &Fields<'_>) -> Result<Self, ModelError> {
        let mistral = match fields.string("model_type", "llama")? {
            "llama" => false,
            "mistral" => true,
            other => return Err(unsupported("text_config.model_type", other, "`llama` and `mistral`")),
        };
        fields.only("hidden_act", "silu")?;
        for name in ["attention_bias", "mlp_bias"] {
            if fields.flag(name, false)? {
                return Err(unsupported(&format!("text_config.{name}"), "true", "`false`"));
            }
        }
        // Newer files hold the rotary parameters in one object.
        let empty = Map::new();
        let rope = fields.object("rope_parameters", &empty)?;
        for scaling in [&fields.object("rope_scaling", &empty)?, &rope] {
            let kind = scaling.string("rope_type", scaling.string("type", "default")?)?;
            if kind != "default" {
                return Err(unsupported("text_config.rope_scaling", kind, "rotary positions without scaling"));
            }
        }
        if rope.number("partial_rotary_factor", 1.0, 1.0)? != 1.0 {
            return Err(ModelError::new("unsupported `text_config.rope_parameters.partial_rotary_factor`")
                .help("supported: rotary positions in all of a head"));
        }
        let hidden = fields.positive("hidden_size", 4096, MOST_FEATURES)?;
        let heads = fields.positive("num_attention_heads", 32, MOST_HEADS)?;
        // A class has its own default where the field is left out; an explicit `null` means one for each head.
        let key_value_default = if mistral && !fields.map.contains_key("num_key_value_heads") { 8 } else { heads };
        let sliding_window = match fields.map.get("sliding_window") {
            _ if !mistral => None,
            None => Some(4096),
            Some(Value::Null) => None,
            Some(_) => Some(fields.positive("sliding_window", 4096, MOST_POSITIONS)?),
        };
        let text = Self {
            vocabulary: fields.positive("vocab_size", 32_000, MOST_TOKENS)?,
            hidden,
            intermediate: fields.positive("intermediate_size", if mistral { 14_336 } else { 11_008 }, MOST_FEATURES)?,
            layers: fields.positive("num_hidden_layers", 32, MOST_LAYERS)?,
            heads,
            key_value_heads: fields.positive("num_key_value_heads", key_value_default, MOST_HEADS)?,
            head_size: fields.positive("head_dim", hidden / heads, MOST_FEATURES)?,
            rope_theta: rope.number(
                "rope_theta",
                fields.number("rope_theta", 10_000.0, LARGEST_BASE)?,
                LARGEST_BASE,
            )?,
            norm_epsilon: fields.number("rms_norm_eps", 1e-6, LARGEST_EPSILON)?,
            tied: fields.flag("tie_word_embeddings", false)?,
            sliding_window,
            max_positions: fields.positive(
                "max_position_embeddings",
                if mistral { 131_072 } else { 2048 },
                MOST_POSITIONS,
            )?,
        };
        divides("text_config.num_key_value_heads", text.key_value_heads, "text_config.num_attention_heads", heads)?;
        if text.head_size == 0 {
            return Err(ModelError::new(format!(
                "`text_config.num_attention_heads`, {heads}, is more than `text_config.hidden_size`, {hidden}"
            )));
        }
        divides("2", 2, "text_config.head_dim", text.head_size)?;
        Ok(text)
    }

    /// The linear layers of every layer, in the order of [`LINEARS`].
    pub fn linears(&self) -> [LinearSpec; 7] {
        let (queries, keys) = (self.heads * self.head_size, self.key_value_heads * self.head_size);
        let (hidden, wide) = (self.hidden, self.intermediate);
        let shapes = [
            [queries, hidden],
            [keys, hidden],
            [keys, hidden],
            [hidden, queries],
            [wide, hidden],
            [wide, hidden],
            [hidden, wide],
        ];
        std::array::from_fn(|index| {
            let (name, path) = LINEARS[index];
            LinearSpec { name, path, shape: shapes[index], bias: false }
        })
    }
}

/// The decoder's weights.
#[derive(Clone, Debug)]
pub struct Decoder {
    config: Config,
    /// `[vocabulary, hidden]`.
    embedding: Tensor<2>,
    layers: Vec<Layer>,
    norm: RmsNorm,
    /// `[vocabulary, hidden]`.
    head: Linear,
}

#[derive(Clone, Debug)]
struct Layer {
    attention_norm: RmsNorm,
    /// In the order of [`LINEARS`].
    linears: [Linear; 7],
    feed_forward_norm: RmsNorm,
}

impl Decoder {
    /// Takes the decoder's tensors out of `tensors`, by the names that transformers before 4.52 gives them in LLaVA. A
    /// family that stores them under others hands on [`Tensors`] of its own that translate the names.
    ///
    /// # Errors
    /// When one is not there.
    pub fn build<T: Tensors>(config: &Config, tensors: &mut T) -> Result<Self, ModelError> {
        let Config { vocabulary, hidden, norm_epsilon: epsilon, .. } = *config;
        let embedding = tensors.tensor("language_model.model.embed_tokens.weight", [vocabulary, hidden])?;
        let specs = config.linears();
        let layers = (0..config.layers)
            .map(|index| {
                let prefix = format!("language_model.model.layers.{index}");
                let mut norm = |name: &str| RmsNorm::read(tensors, &format!("{prefix}.{name}"), hidden, epsilon);
                let attention_norm = norm("input_layernorm")?;
                let feed_forward_norm = norm("post_attention_layernorm")?;
                let mut linear = |spec: &LinearSpec| {
                    Linear::read(tensors, &format!("{prefix}.{}", spec.path), spec.shape, spec.bias)
                };
                let [q, k, v, o, gate, up, down] = specs.each_ref().map(&mut linear);
                Ok(Layer { attention_norm, linears: [q?, k?, v?, o?, gate?, up?, down?], feed_forward_norm })
            })
            .collect::<Result<_, ModelError>>()?;
        let norm = RmsNorm::read(tensors, "language_model.model.norm", hidden, epsilon)?;
        let head = if config.tied {
            Linear { weight: Weight::Dense(embedding.clone()), bias: None }
        } else {
            Linear::read(tensors, "language_model.lm_head", [vocabulary, hidden], false)?
        };
        Ok(Self { config: config.clone(), embedding, layers, norm, head })
    }

    /// The device of the weights.
    pub fn device(&self) -> Device {
        self.embedding.device()
    }

    /// The precision of weights and activations.
    pub fn dtype(&self) -> DType {
        self.embedding.dtype()
    }

    /// The rows of the embedding for `tokens`, `[tokens, hidden]`.
    pub fn embedded(&self, tokens: Tensor<1, Int>) -> Tensor<2> {
        self.embedding.clone().select(0, tokens)
    }

    /// Rotations and mask; see [`Model::attention`](super::contract::Model::attention).
    ///
    /// # Panics
    /// When rows differ in length.
    pub fn attention(&self, queries: &[Vec<Option<Slot>>], keys: &[Vec<Option<Slot>>]) -> Attention {
        let Config { heads, key_value_heads, head_size: size, rope_theta, sliding_window, .. } = self.config;
        let device = self.device();
        // In 32 bits like the reference: at position 3,000 the rounding of the angle is visible in the logits.
        let frequencies: Vec<f32> =
            (0..size / 2).map(|index| 1.0 / (rope_theta as f32).powf((2 * index) as f32 / size as f32)).collect();
        let rotary = Rotary::new(queries, &device, |[position, ..]| {
            frequencies.iter().map(|frequency| position as f32 * frequency).collect()
        });
        Attention { rotary, mask: Mask::new(queries, keys, sliding_window, heads / key_value_heads, &device) }
    }

    /// Empty KV caches, one per layer, for `batch` sequences of at most `capacity` positions.
    pub fn caches(&self, batch: usize, capacity: usize) -> Vec<LayerCache> {
        let shape = [batch, self.config.key_value_heads, capacity, self.config.head_size];
        self.layers.iter().map(|_| LayerCache::new(shape, (&self.device(), self.dtype()))).collect()
    }

    /// One layer; see [`Model::layer`](super::contract::Model::layer).
    pub fn layer(
        &self,
        index: usize,
        hidden: Tensor<3>,
        Attention { rotary, mask }: &Attention,
        adapter: Option<&LayerAdapter>,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let Layer { attention_norm, linears, feed_forward_norm } = &self.layers[index];
        let Config { key_value_heads, head_size, .. } = self.config;
        let [batch, length, features] = hidden.dims();
        let [q, k, v, o, gate, up, down] = std::array::from_fn(|linear| {
            move |rows: Tensor<2>| LayerAdapter::project(adapter, linear, &linears[linear], rows)
        });

        let rows = hidden.reshape([batch * length, features]);
        let normal = attention_norm.forward(rows.clone());
        let (query, key) = rotary.turn_both(q(normal.clone()), k(normal.clone()));
        let value = v(normal).reshape([batch, length, key_value_heads, head_size]).swap_dims(1, 2);
        let context = match cache {
            Some(cache) => {
                cache.append(key, value);
                cache.attend(query, mask)
            }
            None => in_rows(attend(query, key, value, Some(mask.hidden()))),
        };
        let rows = rows + o(context);

        let normal = feed_forward_norm.forward(rows.clone());
        let rows = rows + down(gated(gate(normal.clone()), up(normal)));
        rows.reshape([batch, length, features])
    }

    /// The final norm and the head.
    ///
    /// # Shapes
    /// - `hidden`: `[rows, hidden]`
    /// - returns: `[rows, vocabulary]`, 32 bits
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.head.forward(self.norm.forward(hidden)).cast(DType::F32)
    }
}
