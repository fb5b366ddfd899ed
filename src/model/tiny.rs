//! A small random model, sequences and an adapter for this module's tests.

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::draw::Draws;
use crate::model::llava::{Activation, AnyresRule, Architecture, Config, Llava, TextConfig, VisionConfig};
use crate::model::lora::{LayerLora, Lora, LoraPair, Target};
use crate::model::sequence::Sequence;

/// A model of three layers with grouped-query attention.
pub fn model() -> Llava {
    model_in(DType::F32)
}

/// The same with weights and activations in `dtype`.
pub fn model_in(dtype: DType) -> Llava {
    let text = TextConfig {
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
    };
    build(text, dtype)
}

/// A model with this decoder.
pub fn build(text: TextConfig, dtype: DType) -> Llava {
    let config = Config {
        architecture: Architecture::Llava,
        vision: VisionConfig {
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
        image_token: 22,
        end_tokens: vec![2],
        feature_layer: -2,
        drop_class_token: true,
        projector_activation: Activation::Gelu,
        projector_bias: true,
        grid_pinpoints: Vec::new(),
        image_newline: false,
        anyres_rule: AnyresRule::HuggingFace,
    };
    let device = Device::flex();
    let mut tensors: BTreeMap<String, Tensor<1>> = config
        .tensors()
        .into_iter()
        .map(|(name, shape)| {
            let scale = (*shape.last().unwrap() as f64).powf(-0.5);
            let values = normal(&name, shape.iter().product(), scale);
            let count = values.len();
            (name, Tensor::from_data(TensorData::new(values, [count]), (&device, dtype)))
        })
        .collect();
    Llava::build(&config, &mut tensors).unwrap()
}

/// An adapter of rank 2 on all linear layers, none of whose factors is zero.
pub fn lora(model: &Llava) -> Lora {
    lora_of_rank(model, 2)
}

/// The same of another rank.
pub fn lora_of_rank(model: &Llava, rank: usize) -> Lora {
    let text = &model.config.text;
    let alpha = 4.0;
    let (query, key) = (text.heads * text.head_size, text.key_value_heads * text.head_size);
    let sizes = |target: Target| match target {
        Target::Q => (text.hidden, query),
        Target::K | Target::V => (text.hidden, key),
        Target::O => (query, text.hidden),
        Target::Gate | Target::Up => (text.hidden, text.intermediate),
        Target::Down => (text.intermediate, text.hidden),
    };
    let matrix = |name: String, shape: [usize; 2]| {
        let values = normal(&name, shape[0] * shape[1], 0.2);
        Tensor::from_data(TensorData::new(values, shape), (&model.device(), DType::F32))
    };
    let layers = (0..text.layers)
        .map(|layer| LayerLora {
            scale: alpha / rank as f64,
            pairs: Target::ALL.map(|target| {
                let (inputs, outputs) = sizes(target);
                Some(LoraPair {
                    a: matrix(format!("{layer} {target:?} a"), [rank, inputs]),
                    b: matrix(format!("{layer} {target:?} b"), [outputs, rank]),
                    dropout: None,
                })
            }),
        })
        .collect();
    Lora { rank, alpha, targets: Target::ALL.to_vec(), layers }
}

/// Rows that stand for picture `index`, `[4, hidden]`.
pub fn rows(model: &Llava, index: usize) -> Tensor<2> {
    let values = normal(&format!("picture {index}"), 4 * model.config.text.hidden, 1.0);
    Tensor::from_data(TensorData::new(values, [4, model.config.text.hidden]), (&model.device(), model.dtype()))
}

/// A sequence of six tokens of prompt, the picture third among them if there is one, and `answer` tokens of answer.
pub fn sequence(index: usize, picture: bool, answer: usize) -> Sequence {
    let mut draws = Draws::new(index as u64, "sequence", "");
    let mut tokens: Vec<u32> = (0..6 + answer).map(|_| 3 + draws.below(19) as u32).collect();
    if picture {
        tokens[2] = 22;
    }
    let answers = (0..tokens.len()).map(|token| token >= 6).collect();
    Sequence { tokens, picture: picture.then_some(2), answer: answers, cut: 0 }
}

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
