//! What a decoder asks of a GPU for one token: kernels launched, operations registered, bytes read and written, and bytes
//! uploaded, by layer. Counted on `STIC_TEST_DEVICE`; the counts do not depend on the device. They are for the whole
//! process, so there is one test here, and nothing else runs beside it.

#![cfg(feature = "kernels")]

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};

use burn::backend::fusion::observer::{BlockOperations, FusionObservation, FusionObserver};
use burn::backend::ir::{OperationIr, TensorIr};
use burn::tensor::{DType, Device, Distribution, Int, Tensor};
use cubecl::logging::{LaunchObservation, LaunchObserver};
use stic::device::{Backend, DeviceChoice, Precision};
use stic::model::ModelError;
use stic::model::adapter::{Change, LayerAdapter, Lora};
use stic::model::attention::Slot;
use stic::model::files::Tensors;
use stic::model::llama::{Config, Decoder};

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

/// What a block moves, at most: a cache is counted as a whole where it is read, and not where a token is appended to it.
fn moved(block: BlockOperations<'_>) -> usize {
    let (mut known, mut bytes) = (HashSet::new(), 0);
    for operation in block.iter() {
        let appends = matches!(operation, OperationIr::Custom(custom) if custom.id == "one_rotate_into");
        for tensor in operation.inputs().chain(operation.outputs()) {
            if known.insert(tensor.id) && !(appends && tensor.shape.num_dims() == 4) {
                bytes += size(tensor);
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

struct Setup {
    decoder: Decoder,
    adapters: Option<Vec<LayerAdapter>>,
    rows: usize,
}

fn setup(device: &Device, dtype: DType, layers: usize, rows: usize, adapted: bool) -> Setup {
    let config = Config {
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
    };
    let mut weights = Random(device.clone(), dtype);
    let decoder = Decoder::build(&config, &mut weights).unwrap();
    let factor = |shape: [usize; 2]| Random(device.clone(), DType::F32).tensor("", shape).unwrap();
    let lora = |[outputs, inputs]: [usize; 2]| {
        Some(Change::Lora(Lora { scale: 2.0, a: factor([8, inputs]), b: factor([outputs, 8]), dropout: None }))
    };
    let layer = |_| LayerAdapter(config.linears().iter().map(|linear| lora(linear.shape)).collect());
    let adapters = adapted.then(|| (0..layers).map(layer).collect());
    Setup { decoder, adapters, rows }
}

/// Decodes some tokens, as `generate` does on a GPU, and counts what the last one takes.
fn token(device: &Device, dtype: DType, layers: usize, rows: usize, adapted: bool) -> Counts {
    let Setup { decoder, adapters, rows } = setup(device, dtype, layers, rows, adapted);
    let (prompt, capacity) = (60, 64);
    let mut caches = decoder.caches(rows, capacity);
    let attention = |queries, keys| decoder.attention(&[Slot::line(queries)], &[Slot::line(keys)]);
    let mut tokens = Tensor::<1, Int>::zeros([rows], device);
    let places = attention(prompt..capacity, 0..capacity);
    let mut run = |hidden: Tensor<3>, attention: &_| {
        let adapter = |index: usize| adapters.as_ref().map(|adapters| &adapters[index]);
        (0..layers).fold(hidden, |hidden, index| {
            decoder.layer(index, hidden, attention, adapter(index), Some(&mut caches[index]))
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

#[test]
fn a_token_takes_few_kernels_and_uploads_nothing() {
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
        assert!(layer <= MOST_OF_A_LAYER, "{layer} launches a layer");
        assert!(all <= MOST_OF_A_TOKEN, "{all} launches a token");
        assert_eq!(many.uploads, Vec::<usize>::new(), "nothing is uploaded for a token");
    }
}
