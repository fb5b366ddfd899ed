//! The Llama and Mistral decoder: RMS norms, rotary positions in two halves, grouped-query attention, SwiGLU.
//!
//! Layers are run one by one by the caller, who owns positions, mask, adapter and cache: generation keeps a cache,
//! training recomputes layer by layer, and both see the same layer. This module knows no pictures and no tokens.

use burn::tensor::activation::silu;
use burn::tensor::{Bool, DType, Device, Tensor, TensorData};

use super::{Tensors, TextConfig};
use crate::model::ModelError;
use crate::model::lora::{LayerLora, Target};
use crate::model::nn::{Linear, RmsNorm, attend};

/// The decoder's weights.
#[derive(Clone, Debug)]
pub struct Decoder {
    config: TextConfig,
    /// `[vocabulary, hidden]`.
    embedding: Tensor<2>,
    layers: Vec<Layer>,
    norm: RmsNorm,
    /// `[vocabulary, hidden]`.
    head: Linear,
}

/// Cosines and sines of the rotary positions, 32 bits.
#[derive(Clone, Debug)]
pub struct Rotary {
    /// `[batch or 1, 1, length, head size]`.
    cosine: Tensor<4>,
    /// The same shape; the first half negated.
    sine: Tensor<4>,
}

/// Which keys each query sees.
#[derive(Clone, Debug)]
pub struct AttentionMask {
    /// `[batch or 1, 1, group · length, keys]`, `true` where hidden, a row for each query of a group of heads.
    hidden: Tensor<4, Bool>,
}

impl AttentionMask {
    /// How many keys it speaks of: with a cache, as many of its slots are attended.
    pub fn keys(&self) -> usize {
        self.hidden.dims()[3]
    }
}

/// Keys and values of one layer, allocated for the longest sequence to come.
#[derive(Clone, Debug)]
pub struct LayerCache {
    /// `[batch, key heads, capacity, head size]`.
    key: Tensor<4>,
    value: Tensor<4>,
    length: usize,
}

impl LayerCache {
    /// How many slots are filled.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether no slot is filled.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How many slots there are.
    pub fn capacity(&self) -> usize {
        self.key.dims()[2]
    }

    /// Forgets the slots from `length` on, which then are written again.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// A cache of `batch` copies of this one's only row: a prefix that several prompts share.
    pub fn repeat(&self, batch: usize) -> Self {
        Self {
            key: self.key.clone().repeat_dim(0, batch),
            value: self.value.clone().repeat_dim(0, batch),
            length: self.length,
        }
    }

    /// One cache a layer out of those of several batches, equally long, one batch after the other.
    pub fn join(parts: Vec<Vec<Self>>) -> Vec<Self> {
        let mut parts = parts.into_iter();
        let first = parts.next().unwrap_or_default();
        let rest: Vec<Vec<Self>> = parts.collect();
        if rest.is_empty() {
            return first;
        }
        let mut rest: Vec<_> = rest.into_iter().map(Vec::into_iter).collect();
        let join_layer = |first: Self| {
            let length = first.length;
            let (mut keys, mut values) = (vec![first.key], vec![first.value]);
            for cache in rest.iter_mut().filter_map(Iterator::next) {
                assert_eq!(cache.length, length, "caches of one length are joined");
                keys.push(cache.key);
                values.push(cache.value);
            }
            Self { key: Tensor::cat(keys, 0), value: Tensor::cat(values, 0), length }
        };
        first.into_iter().map(join_layer).collect()
    }

    /// Appends, in place while nobody else holds the tensors, and gives the first `keys` slots.
    fn append(&mut self, key: Tensor<4>, value: Tensor<4>, keys: usize) -> (Tensor<4>, Tensor<4>) {
        let [batch, heads, length, size] = key.dims();
        let slots = self.length..self.length + length;
        assert!(slots.end <= keys && keys <= self.capacity(), "the mask covers what the cache holds");
        let range = [0..batch, 0..heads, slots, 0..size];
        self.key.inplace(|cached| cached.slice_assign(range.clone(), key));
        self.value.inplace(|cached| cached.slice_assign(range, value));
        self.length += length;
        let seen = [0..batch, 0..heads, 0..keys, 0..size];
        (self.key.clone().slice(seen.clone()), self.value.clone().slice(seen))
    }
}

#[derive(Clone, Debug)]
struct Layer {
    attention_norm: RmsNorm,
    /// By [`Target`].
    linear: [Linear; 7],
    feed_forward_norm: RmsNorm,
}

impl Decoder {
    /// Takes the decoder's tensors out of `tensors`.
    pub(super) fn build(config: &TextConfig, tensors: &mut dyn Tensors) -> Result<Self, ModelError> {
        let TextConfig { vocabulary, hidden, .. } = *config;
        let epsilon = config.norm_epsilon;
        let embedding = tensors.matrix("language_model.model.embed_tokens.weight", [vocabulary, hidden])?;
        let layers = (0..config.layers)
            .map(|index| {
                let prefix = format!("language_model.model.layers.{index}");
                let mut norm = |name: &str| {
                    let weight = tensors.vector(&format!("{prefix}.{name}.weight"), [hidden])?;
                    Ok::<_, ModelError>(RmsNorm { weight, epsilon })
                };
                let attention_norm = norm("input_layernorm")?;
                let feed_forward_norm = norm("post_attention_layernorm")?;
                let mut linear = |target: Target| {
                    let weight = tensors.matrix(&format!("{prefix}.{}.weight", target.path()), config.shape(target))?;
                    Ok::<_, ModelError>(Linear { weight, bias: None })
                };
                let [q, k, v, o, gate, up, down] = Target::ALL.map(&mut linear);
                let linear = [q?, k?, v?, o?, gate?, up?, down?];
                Ok(Layer { attention_norm, linear, feed_forward_norm })
            })
            .collect::<Result<_, ModelError>>()?;
        let norm = RmsNorm { weight: tensors.vector("language_model.model.norm.weight", [hidden])?, epsilon };
        let head = if config.tied {
            embedding.clone()
        } else {
            tensors.matrix("language_model.lm_head.weight", [vocabulary, hidden])?
        };
        Ok(Self { config: config.clone(), embedding, layers, norm, head: Linear { weight: head, bias: None } })
    }

    /// The configuration that it was built by.
    pub fn config(&self) -> &TextConfig {
        &self.config
    }

    /// The device of the weights.
    pub fn device(&self) -> Device {
        self.embedding.device()
    }

    /// The precision of weights and activations.
    pub fn dtype(&self) -> DType {
        self.embedding.dtype()
    }

    /// How many layers.
    pub fn layer_count(&self) -> usize {
        self.layers.len()
    }

    /// The rows of the embedding for `tokens`, `[tokens, hidden]`.
    ///
    /// # Panics
    /// When `tokens` is empty, or a token has no row.
    pub fn embed(&self, tokens: &[u32]) -> Tensor<2> {
        let ids: Vec<i32> = tokens
            .iter()
            .map(|&token| {
                assert!((token as usize) < self.config.vocabulary, "token {token} has an embedding");
                token as i32
            })
            .collect();
        let ids = Tensor::from_data(TensorData::new(ids, [tokens.len()]), &self.device());
        self.embedding.clone().select(0, ids)
    }

    /// The rotations for queries and keys at `positions`: a row for each of the batch, or one row for all.
    ///
    /// # Panics
    /// When rows differ in length.
    pub fn rotary(&self, positions: &[Vec<usize>]) -> Rotary {
        let (size, length) = (self.config.head_size, positions[0].len());
        let half = size / 2;
        // In 32 bits like the reference: at position 3,000 the rounding of the angle is visible in the logits.
        let frequencies: Vec<f32> = (0..half)
            .map(|index| 1.0 / (self.config.rope_theta as f32).powf((2 * index) as f32 / size as f32))
            .collect();
        let mut cosine = Vec::with_capacity(positions.len() * length * size);
        let mut sine = Vec::with_capacity(cosine.capacity());
        for row in positions {
            assert_eq!(row.len(), length, "rows of one length");
            for &position in row {
                let angles = || frequencies.iter().map(move |frequency| position as f32 * frequency);
                cosine.extend(angles().chain(angles()).map(f32::cos));
                sine.extend(angles().map(|angle| -angle.sin()));
                sine.extend(angles().map(f32::sin));
            }
        }
        let device = self.device();
        let table = |values| {
            let data = TensorData::new(values, [positions.len(), 1, length, size]);
            Tensor::from_data(data, (&device, DType::F32))
        };
        Rotary { cosine: table(cosine), sine: table(sine) }
    }

    /// Which keys are seen: those at a query's own position and before, within the sliding window if there is one.
    ///
    /// - `queries`: positions, a row for each of the batch or one for all
    /// - `keys`: positions of the keys (with a cache, of its slots), `None` for padding and slots not yet filled; as
    ///   many rows as `queries`
    ///
    /// # Panics
    /// When rows differ in number or length.
    pub fn mask(&self, queries: &[Vec<usize>], keys: &[Vec<Option<usize>>]) -> AttentionMask {
        assert_eq!(queries.len(), keys.len(), "keys for every row of queries");
        let (length, count) = (queries[0].len(), keys[0].len());
        let rows = || queries.iter().zip(keys);
        assert!(rows().all(|(queries, keys)| queries.len() == length && keys.len() == count), "rows of one length");
        let window = self.config.sliding_window.unwrap_or(usize::MAX);
        self.mask_where([queries.len(), length, count], |row, query, key| {
            let query = queries[row][query];
            keys[row][key].is_none_or(|key| key > query || query - key >= window)
        })
    }

    /// The mask of rows in which several continuations follow one beginning: a key is seen by those of its own branch
    /// and, if it belongs to the beginning, by all.
    ///
    /// - `rows`: for every slot its position and its branch, 0 being the beginning; `None` fills up
    ///
    /// # Panics
    /// When rows differ in length.
    pub fn branching_mask(&self, rows: &[Vec<Option<(usize, usize)>>]) -> AttentionMask {
        let length = rows[0].len();
        assert!(rows.iter().all(|row| row.len() == length), "rows of one length");
        let window = self.config.sliding_window.unwrap_or(usize::MAX);
        self.mask_where([rows.len(), length, length], |row, query, key| match (rows[row][query], rows[row][key]) {
            (_, None) => true,
            // What fills up sees something, so that it stays finite.
            (None, Some(_)) => false,
            (Some((query, own)), Some((key, branch))) => {
                (branch != 0 && branch != own) || key > query || query - key >= window
            }
        })
    }

    /// The mask of the shape [rows, queries, keys] that hides where `hides` says so of (row, query, key).
    fn mask_where(&self, shape: [usize; 3], hides: impl Fn(usize, usize, usize) -> bool) -> AttentionMask {
        let [rows, queries, keys] = shape;
        let group = self.config.heads / self.config.key_value_heads;
        let mut hidden = Vec::with_capacity(rows * group * queries * keys);
        for row in 0..rows {
            let start = hidden.len();
            for query in 0..queries {
                hidden.extend((0..keys).map(|key| hides(row, query, key)));
            }
            for _ in 1..group {
                hidden.extend_from_within(start..start + queries * keys);
            }
        }
        let data = TensorData::new(hidden, [rows, 1, group * queries, keys]);
        AttentionMask { hidden: Tensor::from_data(data, &self.device()) }
    }

    /// The mask of sequences that start at position 0 and are padded, if at all, at the end.
    pub fn causal_mask(&self, length: usize) -> AttentionMask {
        self.mask(&[(0..length).collect()], &[(0..length).map(Some).collect()])
    }

    /// Empty caches, one a layer, for `batch` sequences of at most `capacity` positions.
    pub fn caches(&self, batch: usize, capacity: usize) -> Vec<LayerCache> {
        let shape = [batch, self.config.key_value_heads, capacity, self.config.head_size];
        let options = (&self.device(), self.dtype());
        (0..self.layers.len())
            .map(|_| LayerCache { key: Tensor::zeros(shape, options), value: Tensor::zeros(shape, options), length: 0 })
            .collect()
    }

    /// One layer.
    ///
    /// With a cache, keys and values of `hidden` are appended to it, and the first [`AttentionMask::keys`] of its slots
    /// are attended; without, the keys are those of `hidden`.
    ///
    /// # Shapes
    /// - `hidden`: `[batch, length, hidden]`
    /// - returns: the same
    pub fn layer(
        &self,
        index: usize,
        hidden: Tensor<3>,
        rotary: &Rotary,
        mask: &AttentionMask,
        lora: Option<&LayerLora>,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let Layer { attention_norm, linear, feed_forward_norm } = &self.layers[index];
        let TextConfig { heads, key_value_heads, head_size, .. } = self.config;
        let [batch, length, features] = hidden.dims();
        let project = |target: Target, rows: Tensor<2>| {
            let adapted = lora.and_then(|lora| lora.forward(target, &rows));
            let product = linear[target as usize].forward(rows);
            match adapted {
                Some(adapted) => {
                    let dtype = product.dtype();
                    product + adapted.cast(dtype)
                }
                None => product,
            }
        };
        let split = |rows: Tensor<2>, heads: usize| rows.reshape([batch, length, heads, head_size]).swap_dims(1, 2);

        let rows = hidden.reshape([batch * length, features]);
        let normal = attention_norm.forward(rows.clone());
        let query = rotary.turn(split(project(Target::Q, normal.clone()), heads));
        let key = rotary.turn(split(project(Target::K, normal.clone()), key_value_heads));
        let value = split(project(Target::V, normal), key_value_heads);
        let (key, value) = match cache {
            Some(cache) => cache.append(key, value, mask.keys()),
            None => (key, value),
        };
        let context = attend(query, key, value, Some(mask.hidden.clone()));
        let context = context.swap_dims(1, 2).reshape([batch * length, heads * head_size]);
        let rows = rows + project(Target::O, context);

        let normal = feed_forward_norm.forward(rows.clone());
        let gate = silu(project(Target::Gate, normal.clone()));
        let rows = rows + project(Target::Down, gate * project(Target::Up, normal));
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

impl Rotary {
    /// Turns each pair (i, i + half) of `heads`, `[batch, heads, length, head size]`.
    fn turn(&self, heads: Tensor<4>) -> Tensor<4> {
        let dtype = heads.dtype();
        let heads = heads.cast(DType::F32);
        let half = heads.dims()[3] / 2;
        let swapped = Tensor::cat(vec![heads.clone().narrow(3, half, half), heads.clone().narrow(3, 0, half)], 3);
        (heads * self.cosine.clone() + swapped * self.sine.clone()).cast(dtype)
    }
}
