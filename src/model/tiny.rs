//! The one small model of the tests and of `stic devices --test`: a random LLaVA, its images, sequences and adapters.

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::adapter::Adapter;
#[cfg(test)]
use super::adapter::{Change, Lora};
use super::contract::{ImageFeatures, ImageInput, ImageLayout, Model, Shape};
use super::llava::{AnyresRule, Architecture, Config, Llava};
use super::nn::Activation;
use super::sequence::{ImageRun, Sequence};
use super::{clip, llama};
#[cfg(test)]
use crate::device::{Backend, DeviceChoice, Precision};
use stic_engine::draw::Draws;

#[cfg(test)]
/// Where tests compute: on `STIC_TEST_DEVICE` (`vulkan`, `webgpu:1`), else on the CPU.
pub fn device() -> Device {
    let Ok(name) = std::env::var("STIC_TEST_DEVICE") else { return Device::flex() };
    let (name, index) = name.split_once(':').unwrap_or((&name, "0"));
    let backend = Backend::ALL.into_iter().find(|backend| backend.name() == name).expect("the name of a backend");
    let choice = DeviceChoice { backend, index: index.parse().unwrap(), precision: Precision::F32 };
    super::device::open(choice).unwrap().0
}

#[cfg(test)]
/// By how much results may differ from the reference's, in the dtype of weights and activations.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Of a logit; those of the fixtures are up to about 5.
    pub logits: f32,
    /// Of a response's log-probability, in nats, and of a loss.
    pub log_probability: f64,
    /// The share of an update's norm.
    pub update: f64,
}

#[cfg(test)]
impl Tolerance {
    /// On the device of the tests. CUDA computes products of 32-bit floats in TF32, as precise as 16 bits.
    pub fn of(dtype: DType) -> Self {
        let tf32 = format!("{:?}", device()).contains("Cuda");
        let of = |logits, log_probability, update| Self { logits, log_probability, update };
        match dtype {
            DType::F32 if !tf32 => of(3e-4, 1e-3, 1e-3),
            DType::F32 | DType::F16 => of(0.05, 0.05, 0.02),
            _ => of(0.5, 0.5, 0.15),
        }
    }
}

/// The image token.
pub const IMAGE: u32 = 22;

/// A decoder of three layers with grouped-query attention.
pub fn text() -> llama::Config {
    llama::Config {
        vocabulary: 23,
        hidden: 16,
        intermediate: 24,
        layers: 3,
        heads: 4,
        key_value_heads: 2,
        head_size: 4,
        rope_theta: 10_000.0,
        norm_epsilon: 1e-6,
        tied: false,
        sliding_window: None,
        max_positions: 64,
    }
}

/// A model with this decoder, whose tower sees two by two patches.
pub fn config(text: llama::Config) -> Config {
    Config {
        architecture: Architecture::Llava,
        vision: clip::Config {
            hidden: 8,
            intermediate: 16,
            layers: 2,
            heads: 2,
            image_size: 8,
            patch_size: 4,
            norm_epsilon: 1e-5,
            activation: Activation::QuickGelu,
        },
        text,
        image_token: IMAGE,
        end_tokens: vec![2],
        feature_layer: -2,
        drop_class_token: true,
        projector_activation: Activation::Gelu,
        projector_bias: true,
        grid_pinpoints: Vec::new(),
        image_newline: false,
        anyres_rule: AnyresRule::HuggingFace,
    }
}

/// Its sizes.
pub fn shape() -> Shape {
    config(text()).shape()
}

/// The model.
#[cfg(test)]
pub fn model() -> Llava {
    model_in(DType::F32)
}

/// The same with weights and activations in `dtype`.
#[cfg(test)]
pub fn model_in(dtype: DType) -> Llava {
    build(text(), dtype)
}

/// A model with this decoder.
#[cfg(test)]
pub fn build(text: llama::Config, dtype: DType) -> Llava {
    build_on(text, dtype, &device())
}

/// The same on `device`.
pub fn build_on(text: llama::Config, dtype: DType, device: &Device) -> Llava {
    let config = config(text);
    let mut tensors: BTreeMap<String, Tensor<1>> = config
        .tensors()
        .into_iter()
        .map(|(name, shape)| {
            let scale = (*shape.last().unwrap() as f64).powf(-0.5);
            let values = normal(&name, shape.iter().product(), scale);
            let count = values.len();
            (name, Tensor::from_data(TensorData::new(values, [count]), (device, dtype)))
        })
        .collect();
    Llava::build(&config, &mut tensors).unwrap()
}

/// An adapter of rank 2 on all linear layers, none of whose factors is zero.
pub fn adapter(model: &dyn Model) -> Adapter {
    adapter_of_rank(model, 2)
}

/// The same of another rank.
pub fn adapter_of_rank(model: &dyn Model, rank: usize) -> Adapter {
    let shape = model.shape();
    let mut adapter = Adapter::initial(shape, rank, 4.0, |_| true, 0, &model.device());
    for (index, layer) in adapter.layers.iter_mut().enumerate() {
        for (name, tensor) in layer.tensors_mut(index, &shape.linears) {
            let values = normal(&name, tensor.dims().iter().product(), 0.2);
            *tensor = Tensor::from_data(TensorData::new(values, tensor.dims()), (&model.device(), DType::F32));
        }
    }
    adapter
}

#[cfg(test)]
/// An adapter as a training starts from: the second factors are zero.
pub fn fresh(model: &dyn Model) -> Adapter {
    let mut adapter = adapter(model);
    for Change::Lora(Lora { b, .. }) in adapter.layers.iter_mut().flat_map(|layer| &mut layer.0).flatten() {
        *b = b.zeros_like();
    }
    adapter
}

/// What the tower reads of picture `index`.
pub fn image(index: usize) -> ImageInput {
    let layout =
        ImageLayout { size: [8, 8], text: "<image>".to_owned(), runs: vec![[1, 4]], tiles: None, shown: [0..2, 0..2] };
    ImageInput { pixels: TensorData::new(normal(&format!("pixels {index}"), 3 * 64, 1.0), [1, 3, 8, 8]), layout }
}

/// The features of picture `index`, four rows.
pub fn features(model: &dyn Model, index: usize) -> ImageFeatures {
    let hidden = model.shape().hidden;
    let values = TensorData::new(normal(&format!("picture {index}"), 4 * hidden, 1.0), [4, hidden]);
    ImageFeatures { rows: Tensor::from_data(values, (&model.device(), model.dtype())), added: Vec::new() }
}

/// A picture as the third token, or none.
pub fn runs(picture: bool) -> Vec<ImageRun> {
    if picture { vec![ImageRun { token: 2, grid: [1, 4] }] } else { Vec::new() }
}

/// A sequence of six tokens of prompt, the picture third among them if there is one, and `answer` tokens of answer.
pub fn sequence(index: usize, picture: bool, answer: usize) -> Sequence {
    let mut draws = Draws::new(index as u64, "sequence", "");
    let mut tokens: Vec<u32> = (0..6 + answer).map(|_| 3 + draws.below(19) as u32).collect();
    if picture {
        tokens[2] = IMAGE;
    }
    let answers = (0..tokens.len()).map(|token| token >= 6).collect();
    Sequence { tokens, images: runs(picture), answer: answers, cut: 0 }
}

#[cfg(test)]
/// The prompt of `sequence` with another answer, of `answer` tokens.
pub fn rival(sequence: &Sequence, answer: usize) -> Sequence {
    let mut draws = Draws::new(sequence.tokens.len() as u64, "rival", &format!("{:?}", sequence.tokens));
    let tokens: Vec<u32> =
        sequence.tokens[..6].iter().copied().chain((0..answer).map(|_| 3 + draws.below(19) as u32)).collect();
    Sequence { answer: (0..tokens.len()).map(|token| token >= 6).collect(), tokens, ..sequence.clone() }
}

fn normal(name: &str, count: usize, scale: f64) -> Vec<f32> {
    let mut draws = Draws::new(0, "small", name);
    (0..count).map(|_| (draws.normal() * scale) as f32).collect()
}
