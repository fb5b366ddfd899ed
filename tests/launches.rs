//! What a decoder asks of a GPU for one token: kernels launched, operations registered, bytes read and written, and
//! bytes uploaded, by layer; and what a training step uploads. Counted on `STIC_TEST_DEVICE`; the counts do not depend
//! on the device. They are for the whole process, so there is one test here, and nothing else runs beside it.

#![cfg(feature = "kernels")]

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use burn::backend::fusion::observer::{BlockOperations, FusionObservation, FusionObserver};
use burn::backend::ir::{OperationIr, TensorIr};
use burn::tensor::{DType, Device, Distribution, Int, Tensor};
use cubecl::logging::{LaunchObservation, LaunchObserver};
use stic::device::{Backend, DeviceChoice, Precision};
use stic::model::ModelError;
use stic::model::adapter::{Adapter, Change, LayerAdapter, Lora};
use stic::model::attention::Slot;
use stic::model::batch::{Batch, Member};
use stic::model::clip;
use stic::model::files::Tensors;
use stic::model::llama::{Config, Decoder};
use stic::model::llava::{self, Llava};
use stic::model::nn::Activation;
use stic::model::sequence::Sequence;
use stic::train::dropout::Dropout;
use stic::train::step::gradients;

/// The most kernels for a layer, and for a token of a model with 32 layers.
const MOST_OF_A_LAYER: usize = 20;
const MOST_OF_A_TOKEN: usize = 700;

/// What happened while it was watched.
#[derive(Clone, Debug, Default, PartialEq)]
struct Counts {
    kernels: BTreeMap<String, usize>,
    operations: usize,
    uploads: Vec<usize>,
    /// Read and written by blocks that launched kernels.
    bytes: usize,
}

impl Counts {
    fn launches(&self) -> usize {
        self.kernels.values().sum()
    }
}

#[derive(Default)]
struct Watch(Mutex<(Counts, Option<(usize, usize)>)>);

fn size(tensor: &TensorIr) -> usize {
    tensor.shape.num_elements() * tensor.dtype.size()
}

/// What a block moves, at most. A cache is counted as a whole where it is read; where a token is appended to it, what
/// is read is the product, and as much is written.
fn moved(block: BlockOperations<'_>) -> usize {
    let (mut known, mut bytes) = (HashSet::new(), 0);
    for operation in block.iter() {
        match operation {
            OperationIr::Custom(custom) if custom.id == "one_rotate_into" => bytes += 2 * size(&custom.inputs[0]),
            _ => {
                let new = operation.inputs().chain(operation.outputs()).filter(|tensor| known.insert(tensor.id));
                bytes += new.map(size).sum::<usize>();
            }
        }
    }
    bytes
}

impl FusionObserver for Watch {
    fn registered(&self, operation: &OperationIr) {
        let (counts, _) = &mut *self.0.lock().unwrap();
        match operation {
            OperationIr::Init(init) => counts.uploads.push(size(&init.out)),
            OperationIr::Drop(_) => (),
            _ => counts.operations += 1,
        }
    }

    fn block_starts(&self, block: BlockOperations<'_>) {
        let (counts, running) = &mut *self.0.lock().unwrap();
        *running = Some((counts.launches(), moved(block)));
    }

    fn block_ran(&self) {
        let (counts, running) = &mut *self.0.lock().unwrap();
        if let Some((before, bytes)) = running.take()
            && counts.launches() > before
        {
            counts.bytes += bytes;
        }
    }
}

impl LaunchObserver for Watch {
    fn launched(&self, kernel: &'static str) {
        let name = kernel.split(['<', ' ']).next().unwrap_or(kernel).rsplit("::").next().unwrap_or(kernel);
        *self.0.lock().unwrap().0.kernels.entry(name.to_owned()).or_default() += 1;
    }
}

/// What `work` does on `device`.
fn counted(device: &Device, work: impl FnOnce()) -> Counts {
    device.sync().unwrap();
    let watch = Arc::new(Watch::default());
    let (launches, operations) = (LaunchObservation::new(watch.clone()), FusionObservation::new(watch.clone()));
    work();
    device.sync().unwrap();
    drop((launches, operations));
    let (counts, _) = &*watch.0.lock().unwrap();
    counts.clone()
}

/// Random weights.
struct Random(Device, DType);

impl Tensors for Random {
    fn tensor<const D: usize>(&mut self, _: &str, shape: [usize; D]) -> Result<Tensor<D>, ModelError> {
        let values = Tensor::<D>::random(shape, Distribution::Normal(0.0, 0.05), (&Device::flex(), DType::F32));
        Ok(Tensor::from_data(values.into_data().convert_dtype(self.1), (&self.0, self.1)))
    }
}

fn config(layers: usize) -> Config {
    Config {
        vocabulary: 64,
        hidden: 64,
        intermediate: 96,
        layers,
        heads: 4,
        key_value_heads: 2,
        head_size: 16,
        rope_theta: 10_000.0,
        norm_epsilon: 1e-5,
        tied: false,
        sliding_window: None,
        max_positions: 512,
    }
}

fn adapter(device: &Device, config: &Config) -> Adapter {
    let factor = |shape: [usize; 2]| Random(device.clone(), DType::F32).tensor("", shape).unwrap();
    let lora = |[outputs, inputs]: [usize; 2]| {
        Some(Change::Lora(Lora { scale: 2.0, a: factor([8, inputs]), b: factor([outputs, 8]), dropout: None }))
    };
    let layer = |_| LayerAdapter(config.linears().iter().map(|linear| lora(linear.shape)).collect());
    let targets = config.linears().iter().map(|linear| linear.name.to_owned()).collect();
    Adapter { rank: 8, alpha: 16.0, targets, layers: (0..config.layers).map(layer).collect() }
}

/// Decodes some tokens, as `generate` does on a GPU, and counts what the last one takes.
fn token(device: &Device, dtype: DType, layers: usize, rows: usize, adapted: bool) -> Counts {
    let config = config(layers);
    let decoder = Decoder::build(&config, &mut Random(device.clone(), dtype)).unwrap();
    let adapter = adapted.then(|| adapter(device, &config));
    let (prompt, capacity) = (60, 64);
    let mut caches = decoder.caches(rows, capacity);
    let attention = |queries, keys| decoder.attention(&[Slot::line(queries)], &[Slot::line(keys)]);
    let mut tokens = Tensor::<1, Int>::zeros([rows], device);
    let places = attention(prompt..capacity, 0..capacity);
    let mut run = |hidden: Tensor<3>, attention: &_| {
        (0..layers).fold(hidden, |hidden, index| {
            let adapter = adapter.as_ref().map(|adapter| &adapter.layers[index]);
            decoder.layer(index, hidden, attention, adapter, Some(&mut caches[index]))
        })
    };
    let hidden = Tensor::zeros([rows, prompt, 64], (device, dtype));
    run(hidden, &attention(0..prompt, 0..capacity));
    let mut counts = Counts::default();
    for place in 0..capacity - prompt {
        counts = counted(device, || {
            let hidden = decoder.embedded(tokens.clone()).reshape([rows, 1, 64]);
            let hidden = run(hidden, &places.at(place));
            tokens = decoder.logits(hidden.reshape([rows, 64])).argmax(1).squeeze_dim(1);
        });
    }
    assert_eq!(tokens.dims(), [rows]);
    counts
}

/// The bytes of every upload of a training step, after a first one; there are `rows` rows of `length` positions.
fn step(device: &Device, rows: usize, length: usize) -> Vec<usize> {
    let vision = clip::Config {
        hidden: 8,
        intermediate: 16,
        layers: 2,
        heads: 2,
        image_size: 8,
        patch_size: 4,
        norm_epsilon: 1e-5,
        activation: Activation::QuickGelu,
    };
    let config = llava::Config {
        architecture: llava::Architecture::Llava,
        vision,
        text: config(1),
        image_token: 63,
        end_tokens: vec![2],
        feature_layer: -2,
        drop_class_token: true,
        projector_activation: Activation::Gelu,
        projector_bias: true,
        grid_pinpoints: Vec::new(),
        image_newline: false,
        anyres_rule: llava::AnyresRule::HuggingFace,
    };
    let model = Llava::build(&config, &mut Random(device.clone(), DType::F32)).unwrap();
    let adapter = adapter(device, &config.text);
    let sequence = |row: usize| {
        let tokens: Vec<u32> = (0..length - row).map(|token| 3 + (token * 7 + row) as u32 % 50).collect();
        let answer = (0..tokens.len()).map(|token| token >= length / 2).collect();
        Sequence { tokens, images: Vec::new(), answer, cut: 0 }
    };
    let sequences: Vec<Sequence> = (0..rows).map(sequence).collect();
    let subjects: Vec<String> = (0..rows).map(|row| format!("1 {row}")).collect();
    let run = || {
        let member = |sequence| Member { sequences: std::slice::from_ref(sequence), image: None };
        let members: Vec<Member<'_>> = sequences.iter().map(member).collect();
        let batch = Batch::new(&model, &members, &[], |_| length);
        let dropout = Dropout { probability: 0.25, seed: 1, subjects: &subjects };
        let weigh = |values: &[f32]| vec![1.0; values.len()];
        let proceed = || ControlFlow::Continue(());
        let found = gradients(&model, &adapter, Some(&dropout), &batch, 1.0, proceed, weigh);
        assert_eq!(found.continue_value().unwrap().len(), 14);
    };
    run();
    counted(device, run).uploads
}

#[test]
fn a_token_takes_few_kernels_and_uploads_nothing_and_a_step_uploads_numbers_of_positions() {
    let Ok(name) = std::env::var("STIC_TEST_DEVICE") else {
        eprintln!("nothing is counted: `STIC_TEST_DEVICE` names no device");
        return;
    };
    let (name, index) = name.split_once(':').unwrap_or((&name, "0"));
    let backend = Backend::ALL.into_iter().find(|backend| backend.name() == name).expect("the name of a backend");
    let choice = DeviceChoice { backend, index: index.parse().unwrap(), precision: Precision::F32 };
    let (device, _) = stic::model::device::open(choice).unwrap();
    if device == Device::flex() {
        return;
    }
    let upload = || drop(Tensor::<1>::from_floats([1.0, 2.0], &device));
    assert_eq!(counted(&device, upload).uploads, [8], "uploads are seen");
    let dtype = if device.supports_dtype(DType::F16) { DType::F16 } else { DType::F32 };
    for (rows, adapted) in [(1, false), (1, true), (8, true)] {
        let (few, many) = (token(&device, dtype, 1, rows, adapted), token(&device, dtype, 3, rows, adapted));
        let half = |of: &dyn Fn(&Counts) -> usize| (of(&many) - of(&few)) / 2;
        let layer = half(&|counts| counts.launches());
        let all = few.launches() + 31 * layer;
        let of_kernel = |name: &String| (name.clone(), half(&|counts| counts.kernels.get(name).copied().unwrap_or(0)));
        let kernels: Vec<_> = many.kernels.keys().map(of_kernel).filter(|(_, count)| *count > 0).collect();
        println!(
            "{rows} rows, adapter: {adapted}: {layer} launches, {} operations and {} bytes a layer, {all} launches a \
             token of 32 layers; {kernels:?}; all of one layer: {:?}",
            half(&|counts| counts.operations),
            half(&|counts| counts.bytes),
            few.kernels
        );
        // Weights, caches and factors have to be read; activations are to be little beside them.
        let linears = config(1).linears();
        let of = |size: &dyn Fn(&[usize; 2]) -> usize| linears.iter().map(|linear| size(&linear.shape)).sum::<usize>();
        let weights = of(&|[outputs, inputs]| outputs * inputs * dtype.size());
        let factors = of(&|[outputs, inputs]| 8 * (outputs + inputs) * size_of::<f32>());
        let caches = 2 * rows * 2 * 64 * 16 * dtype.size();
        let least = weights + caches + if adapted { factors } else { 0 };
        let bytes = half(&|counts| counts.bytes);
        assert!((least..=least * 3 / 2).contains(&bytes), "{bytes} bytes a layer; at least {least} are needed");
        assert!(layer <= MOST_OF_A_LAYER, "{layer} launches a layer");
        assert!(all <= MOST_OF_A_TOKEN, "{all} launches a token");
        assert_eq!(many.uploads, Vec::<usize>::new(), "nothing is uploaded for a token");
    }
    // Tokens, places, positions, orders, labels, weights of the loss and seeds: no mask, no rotation, no hidden state.
    let (rows, length) = (2, 32);
    let uploads = step(&device, rows, length);
    println!("a training step of {rows} × {length} positions uploads {uploads:?} bytes");
    assert!(uploads.iter().all(|bytes| *bytes <= rows * length * size_of::<i32>()), "{uploads:?}");
}
