//! The Llama and Mistral decoder: RMS norms, RoPE in two halves, grouped-query attention, SwiGLU.
//!
//! Layers are run one by one by the caller, who owns positions, masks, adapter and cache. On a GPU, what is not a
//! matrix product is a kernel, unless a gradient is wanted. This module knows no pictures.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use serde_json::{Map, Value};

use super::ModelError;
use super::adapter::LayerAdapter;
use super::attention::{Attention, LayerCache, Mask, Rotary, Slot, in_rows};
use super::files::json::{
    LARGEST_BASE, LARGEST_EPSILON, MOST_FEATURES, MOST_HEADS, MOST_LAYERS, MOST_POSITIONS, MOST_TOKENS, divides,
    unsupported,
};
use super::files::{Fields, Tensors};
use super::kernels::{self, HeadCounts};
use super::nn::{Linear, RmsNorm, Weight, attend, gated};
use super::products::{Outputs, Products};
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
    /// The rotations of the first positions, on the device: see [`Rotary::looked_up`].
    rotations: Arc<Mutex<Option<Tensor<2>>>>,
}

/// The linear layers are in the order of [`LINEARS`].
#[derive(Clone, Debug)]
struct Layer {
    attention_norm: RmsNorm,
    query_key_value: Products,
    output: Products,
    feed_forward_norm: RmsNorm,
    gate_up: Products,
    down: Products,
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
                let mut products = |range: std::ops::Range<usize>| {
                    let linears = specs[range.clone()].iter().map(&mut linear).collect::<Result<Vec<_>, _>>()?;
                    Products::new(range.start, linears)
                };
                Ok(Layer {
                    attention_norm,
                    query_key_value: products(0..3)?,
                    output: products(3..4)?,
                    feed_forward_norm,
                    gate_up: products(4..6)?,
                    down: products(6..7)?,
                })
            })
            .collect::<Result<_, ModelError>>()?;
        let norm = RmsNorm::read(tensors, "language_model.model.norm", hidden, epsilon)?;
        let head = if config.tied {
            Linear { weight: Weight::Dense(embedding.clone()), bias: None }
        } else {
            Linear::read(tensors, "language_model.lm_head", [vocabulary, hidden], false)?
        };
        Ok(Self { config: config.clone(), embedding, layers, norm, head, rotations: Arc::default() })
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
        let Config { heads, key_value_heads, sliding_window, .. } = self.config;
        let device = self.device();
        let rotary = if kernels::on(&device) {
            let last = queries.iter().flatten().flatten().map(|slot| slot.position[0]).max().unwrap_or_default();
            Rotary::looked_up(self.rotations(last + 1), queries)
        } else {
            Rotary::new(queries, &device, self.angles())
        };
        Attention { rotary, mask: Mask::new(queries, keys, sliding_window, heads / key_value_heads, &device) }
    }

    /// The angles of a position, half as many as a head has features.
    fn angles(&self) -> impl Fn([usize; 3]) -> Vec<f32> {
        let Config { head_size: size, rope_theta, .. } = self.config;
        // In 32 bits like the reference: at position 3,000 the rounding of the angle is visible in the logits.
        let frequencies: Vec<f32> =
            (0..size / 2).map(|index| 1.0 / (rope_theta as f32).powf((2 * index) as f32 / size as f32)).collect();
        move |[position, ..]| frequencies.iter().map(|frequency| position as f32 * frequency).collect()
    }

    /// The cosines and sines of at least the first `count` positions, on the device, where they stay. They are computed
    /// here: shaders need not be accurate beyond π.
    fn rotations(&self, count: usize) -> Tensor<2> {
        let mut known = self.rotations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = known.as_ref().filter(|table| table.dims()[0] >= count) {
            return table.clone();
        }
        let (count, size, angles) = (count.max(4096).next_power_of_two(), self.config.head_size, self.angles());
        let mut values = Vec::with_capacity(count * size);
        for position in 0..count {
            let angles = angles([position; 3]);
            values.extend(angles.iter().map(|angle| angle.cos()));
            values.extend(angles.iter().map(|angle| angle.sin()));
        }
        let table = Tensor::from_data(TensorData::new(values, [count, size]), (&self.device(), DType::F32));
        known.insert(table).clone()
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
        let Layer { attention_norm, query_key_value, output, feed_forward_norm, gate_up, down } = &self.layers[index];
        let [batch, length, features] = hidden.dims();
        let rows = hidden.reshape([batch * length, features]);
        let turned = query_key_value.forward(adapter, attention_norm.forward(rows.clone()));
        let context = match cache {
            Some(cache) => {
                let query = self.append(turned, rotary, cache);
                cache.attend(query, mask)
            }
            None => {
                let [query, key, value] = self.turned(turned, rotary);
                in_rows(attend(query, key, value, Some(mask.hidden())))
            }
        };
        let (rows, normal) = feed_forward_norm.forward_sum(rows, output.forward(adapter, context).one());
        let outputs = gate_up.forward(adapter, normal);
        let product = outputs.together().and_then(kernels::swiglu).unwrap_or_else(|| {
            let [gate, up] = outputs.apart();
            gated(gate, up)
        });
        let rows = rows + down.forward(adapter, product).one();
        rows.reshape([batch, length, features])
    }

    fn head_counts(&self) -> HeadCounts {
        HeadCounts { queries: self.config.heads, keys: self.config.key_value_heads }
    }

    /// Queries and keys turned, and values, by head.
    fn turned(&self, outputs: Outputs, rotary: &Rotary) -> [Tensor<4>; 3] {
        if let (Some(product), Some(turns)) = (outputs.together(), rotary.turns())
            && let Some(turned) = kernels::rotate(product, turns, self.head_counts())
        {
            return turned;
        }
        let [query, key, value] = outputs.apart();
        let (query, key) = rotary.turn_both(query, key);
        let [batch, heads, length, size] = key.dims();
        (query, key, value.reshape([batch, length, heads, size]).swap_dims(1, 2)).into()
    }

    /// Appends keys and values to `cache`, and gives the queries.
    fn append(&self, outputs: Outputs, rotary: &Rotary, cache: &mut LayerCache) -> Tensor<4> {
        if let Some(product) = outputs.together()
            && let Some(query) = cache.append_turned(product, rotary, self.head_counts())
        {
            return query;
        }
        let [query, key, value] = self.turned(outputs, rotary);
        cache.append(key, value);
        query
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
