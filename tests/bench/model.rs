//! How fast tower and decoder run, beside the least that the hardware must do.
//!
//! `cargo bench --bench model` prints, for every case, its floor as two throughputs: multiply-adds a second (`item/s`,
//! one multiply-add an item) and bytes of weights, cache and logits that must be read or written once (`B/s`). Divide
//! the machine's peaks by them to see what is left. Weights are random: nothing here depends on their values.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use burn::tensor::{DType, Device, Tensor, TensorData};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use stic::model::adapter::Adapter;
use stic::model::attention::{LayerCache, Slot};
use stic::model::batch::Input;
use stic::model::contract::Model;
use stic::model::forward::forward;
use stic::model::llava::{AnyresRule, Architecture, Config, Llava};
use stic::model::nn::Activation;
use stic::model::{clip, llama};
use stic_engine::draw::Draws;

fn main() {
    divan::main();
}

/// A shape to measure.
#[derive(Clone, Copy, Debug)]
enum Size {
    /// The quick start's.
    Small,
    /// Layers as wide as those of a model of 1 B parameters, but two of them.
    Wide,
}

impl Size {
    fn config(self) -> Config {
        let (hidden, intermediate, layers, heads, key_value_heads, head_size, vocabulary) = match self {
            Self::Small => (128, 344, 4, 4, 2, 32, 128),
            Self::Wide => (2048, 5632, 2, 32, 8, 64, 4096),
        };
        let (vision_hidden, vision_layers) = match self {
            Self::Small => (128, 3),
            Self::Wide => (1024, 2),
        };
        Config {
            architecture: Architecture::LlavaNext,
            vision: clip::Config {
                hidden: vision_hidden,
                intermediate: 4 * vision_hidden,
                layers: vision_layers,
                heads: vision_hidden / 32,
                image_size: 48,
                patch_size: 16,
                norm_epsilon: 1e-5,
                activation: Activation::QuickGelu,
            },
            text: llama::Config {
                vocabulary,
                hidden,
                intermediate,
                layers,
                heads,
                key_value_heads,
                head_size,
                rope_theta: 1e6,
                norm_epsilon: 1e-5,
                tied: false,
                sliding_window: None,
                max_positions: 4096,
            },
            image_token: 4,
            end_tokens: vec![2],
            feature_layer: -2,
            drop_class_token: true,
            projector_activation: Activation::Gelu,
            projector_bias: true,
            grid_pinpoints: vec![[48, 96], [96, 48], [96, 96]],
            image_newline: true,
            anyres_rule: AnyresRule::HuggingFace,
        }
    }

    fn tensors(self, dtype: DType) -> BTreeMap<String, Tensor<1>> {
        let device = Device::flex();
        let random = |(name, shape): (String, Vec<usize>)| {
            let count: usize = shape.iter().product();
            let scale = (shape[1..].iter().product::<usize>().max(1) as f64).powf(-0.5);
            let mut draws = Draws::new(1, "bench", &name);
            let values: Vec<f32> = (0..count).map(|_| draws.between(-scale, scale) as f32).collect();
            (name, Tensor::from_data(TensorData::new(values, [count]), (&device, dtype)))
        };
        self.config().tensors().into_iter().map(random).collect()
    }

    fn model(self, dtype: DType) -> Llava {
        Llava::build(&self.config(), &mut self.tensors(dtype)).expect("every tensor is there")
    }

    /// Multiply-adds of the decoder's linear layers for one position, and of the head.
    fn multiply_adds(self) -> (usize, usize) {
        let text = self.config().text;
        let layer: usize = text.linears().iter().map(|spec| spec.shape.iter().product::<usize>()).sum();
        (text.layers * layer, text.vocabulary * text.hidden)
    }

    /// Multiply-adds of attention for one query over `keys` keys.
    fn attention(self, keys: usize) -> usize {
        let text = self.config().text;
        2 * text.layers * text.heads * text.head_size * keys
    }
}

const CASES: [(Size, DType); 3] = [(Size::Small, DType::F32), (Size::Wide, DType::F32), (Size::Wide, DType::F16)];

fn bytes_of(dtype: DType) -> usize {
    if dtype == DType::F32 { 4 } else { 2 }
}

/// Runs `length` new positions for `batch` rows after what the caches hold; returns the logits of the last ones.
fn step(model: &Llava, adapter: Option<&Adapter>, batch: usize, length: usize, caches: &mut [LayerCache]) -> Tensor<2> {
    let start = caches[0].len();
    let attention = model.attention(&[Slot::line(start..start + length)], &[Slot::line(0..start + length)]);
    let features = model.config.text.hidden;
    let hidden = model.embed(&vec![5; batch * length]).reshape([batch, length, features]);
    let input = Input { hidden, added: Vec::new(), attention };
    let layer = |index: usize| adapter.map(|adapter| Cow::Borrowed(&adapter.layers[index]));
    let hidden = forward(model, &input, layer, Some(caches), |_| ControlFlow::Continue(()));
    let hidden = hidden.continue_value().expect("nothing breaks it off");
    model.logits(hidden.narrow(1, length - 1, 1).reshape([batch, features]))
}

/// A prompt of 256 positions.
#[divan::bench(args = CASES, sample_count = 10)]
fn prefill(bencher: Bencher, (size, dtype): (Size, DType)) {
    const LENGTH: usize = 256;
    let model = size.model(dtype);
    let (layers, head) = size.multiply_adds();
    // On average a query sees half of the keys.
    let operations = LENGTH * (layers + size.attention(LENGTH / 2)) + head;
    bencher
        .counter(ItemsCount::new(operations))
        .counter(BytesCount::new(bytes_of(dtype) * (layers + head)))
        .with_inputs(|| model.caches(1, LENGTH))
        .bench_values(|mut caches| step(&model, None, 1, LENGTH, &mut caches).into_data());
}

/// One more token for each of a batch after 256 positions.
#[divan::bench(args = CASES, consts = [1, 8], sample_count = 20)]
fn decode<const BATCH: usize>(bencher: Bencher, (size, dtype): (Size, DType)) {
    decode_with(bencher, size, dtype, BATCH, None);
}

/// The same with an adapter of rank 64 on every layer.
#[divan::bench(args = CASES, sample_count = 20)]
fn decode_adapted(bencher: Bencher, (size, dtype): (Size, DType)) {
    let adapter = Adapter::initial(&size.config().shape(), 64, 128.0, |_| true, 1, &Device::flex());
    decode_with(bencher, size, dtype, 1, Some(&adapter));
}

fn decode_with(bencher: Bencher, size: Size, dtype: DType, batch: usize, adapter: Option<&Adapter>) {
    const SEEN: usize = 256;
    let model = size.model(dtype);
    let (layers, head) = size.multiply_adds();
    let text = &model.config.text;
    let changed: usize = adapter.map_or(0, |adapter| {
        let sides: usize = text.linears().iter().map(|spec| spec.shape.iter().sum::<usize>()).sum();
        text.layers * adapter.rank * sides
    });
    let cache = 2 * batch * text.layers * text.key_value_heads * text.head_size * SEEN;
    let mut caches = model.caches(batch, SEEN + 1);
    step(&model, None, batch, SEEN, &mut caches);
    bencher
        .counter(ItemsCount::new(batch * (layers + head + changed + size.attention(SEEN))))
        .counter(BytesCount::new(bytes_of(dtype) * (layers + head + cache) + 4 * changed))
        .bench_local(|| {
            for cache in &mut caches {
                cache.truncate(SEEN);
            }
            step(&model, adapter, batch, 1, &mut caches).into_data()
        });
}

/// Sixteen views through the tower.
#[divan::bench(args = CASES, sample_count = 10)]
fn tower(bencher: Bencher, (size, dtype): (Size, DType)) {
    const VIEWS: usize = 16;
    let model = size.model(dtype);
    let vision = &model.config.vision;
    let positions = vision.patches_per_side().pow(2) + 1;
    let layer = 4 * vision.hidden * vision.hidden + 2 * vision.hidden * vision.intermediate;
    let layer = layer + 2 * positions * vision.hidden;
    let side = vision.image_size;
    bencher
        .counter(ItemsCount::new(VIEWS * positions * layer * model.config.tower_layers()))
        .with_inputs(|| Tensor::ones([VIEWS, 3, side, side], (&model.device(), dtype)))
        .bench_values(|views| model.vision.forward(views).into_data());
}

/// One step of training all weights of the decoder from nothing: 32 sequences of 32 positions, forward and backward.
#[divan::bench(sample_count = 10)]
fn train_small(bencher: Bencher) {
    const SHAPE: [usize; 2] = [32, 32];
    let [batch, length] = SHAPE;
    let size = Size::Small;
    let (layers, head) = size.multiply_adds();
    // A forward pass, and twice as much for the gradients of weights and activations.
    let operations = 3 * batch * length * (layers + head + size.attention(length / 2));
    let tensors = size.tensors(DType::F32);
    bencher.counter(ItemsCount::new(operations)).bench_local(|| {
        let mut tracked: BTreeMap<String, Tensor<1>> =
            tensors.iter().map(|(name, tensor)| (name.clone(), tensor.clone().autodiff().require_grad())).collect();
        let model = Llava::build(&size.config(), &mut tracked).expect("every tensor is there");
        let features = model.config.text.hidden;
        let slots = [Slot::line(0..length)];
        let hidden = model.embed(&vec![5; batch * length]).reshape([batch, length, features]);
        let input = Input { hidden, added: Vec::new(), attention: model.attention(&slots, &slots) };
        let hidden = forward(&model, &input, |_| None, None, |_| ControlFlow::Continue(())).continue_value();
        let logits = model.logits(hidden.expect("nothing breaks it off").reshape([batch * length, features]));
        let gradients = logits.powi_scalar(2).mean().backward();
        tracked.values().map(|tensor| tensor.grad(&gradients).is_some()).filter(|found| *found).count()
    });
}
