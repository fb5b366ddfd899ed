//! Every kernel on `STIC_TEST_DEVICE`, in every precision that the device has, against the tensor operations that it
//! replaces, which run on the CPU, for random shapes. Without a device there are no kernels, and what is tested is
//! that.

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::*;
use crate::model::attention::{Mask, Rotary, Slot, in_rows};
use crate::model::nn::{RmsNorm, attend as attend_composed, gated};
use crate::model::{adapter, tiny};
use stic_engine::draw::Draws;

/// By precision, the largest difference from the composed operations, of the largest value: in 32 bits sums in another
/// order, in 16 a rounding or two at another place.
const TOLERANCES: [(DType, f32); 3] = [(DType::F32, 4e-6), (DType::F16, 4e-3), (DType::BF16, 3e-2)];

/// How many shapes each kernel is tried with in each precision.
const SHAPES: usize = 6;

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.cast(DType::F32).into_data().try_to_vec().unwrap()
}

#[track_caller]
fn close<const D: usize>(found: Tensor<D>, expected: Tensor<D>, tolerance: f32, what: &str) {
    assert_eq!((found.dims(), found.dtype()), (expected.dims(), expected.dtype()), "{what}");
    let (found, expected) = (values(found), values(expected));
    let largest = expected.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    let difference = |(found, expected): (&f32, &f32)| (found - expected).abs() / largest;
    let difference =
        found.iter().zip(&expected).map(difference).fold(0.0, |most: f32, it| if it <= most { most } else { it });
    assert!(difference <= tolerance, "{what}: {difference} of {largest} is more than {tolerance}");
}

/// Random inputs of one case.
struct Case {
    draws: Draws,
    device: Device,
    dtype: DType,
}

impl Case {
    fn between(&mut self, range: std::ops::RangeInclusive<usize>) -> usize {
        range.start() + self.draws.below(range.end() - range.start() + 1)
    }

    fn one_of(&mut self, choices: &[usize]) -> usize {
        choices[self.draws.below(choices.len())]
    }

    fn tensor<const D: usize>(&mut self, shape: [usize; D]) -> Tensor<D> {
        self.tensor_in(shape, self.dtype)
    }

    fn tensor_in<const D: usize>(&mut self, shape: [usize; D], dtype: DType) -> Tensor<D> {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| self.draws.normal() as f32).collect();
        Tensor::from_data(TensorData::new(values, shape), (&Device::flex(), dtype))
    }

    /// The same on the device with kernels.
    fn there<const D: usize>(&self, tensor: &Tensor<D>) -> Tensor<D> {
        Tensor::from_data(tensor.to_data(), (&self.device, tensor.dtype()))
    }
}

/// Runs `test` for every precision and some seeds on the device with kernels.
fn cases(name: &str, test: impl Fn(&mut Case, &dyn Fn(&str) -> String, f32)) {
    let device = tiny::device();
    assert_eq!(on(&device), cfg!(feature = "kernels") && device != Device::flex());
    for (dtype, tolerance) in TOLERANCES.into_iter().filter(|(dtype, _)| on(&device) && device.supports_dtype(*dtype)) {
        for seed in 0..SHAPES {
            let draws = Draws::new(seed as u64, "kernels", name);
            let mut case = Case { draws, device: device.clone(), dtype };
            test(&mut case, &|what| format!("{name} {what} {dtype:?}, case {seed}"), tolerance);
        }
    }
}

#[test]
fn norms_equal_the_composed_operations() {
    cases("norm", |case, name, tolerance| {
        let (rows, features) = (case.between(1..=9), case.between(1..=700));
        let (own, more) = (case.tensor([rows, features]), case.tensor([rows, features]));
        let norm = RmsNorm { weight: case.tensor([features]), epsilon: 1e-5 };
        let weight = case.there(&norm.weight);
        let found = rms_norm(&case.there(&own), &weight, norm.epsilon).unwrap();
        close(found, norm.composed(own.clone()), tolerance, &name("alone"));
        let (sum, found) = add_rms_norm(&case.there(&own), &case.there(&more), &weight, norm.epsilon).unwrap();
        close(sum, own.clone() + more.clone(), 0.0, &name("sum"));
        close(found, norm.composed(own + more), tolerance, &name("of a sum"));
    });
}

#[test]
fn swiglu_equals_the_composed_operations() {
    cases("swiglu", |case, name, tolerance| {
        let (rows, features) = (case.between(1..=9), case.between(1..=300));
        let product = case.tensor([rows, 2 * features]) * 4.0;
        let [gate, up] = [0, features].map(|start| product.clone().narrow(1, start, features));
        let there = case.there(&product);
        close(swiglu(&there).unwrap(), gated(gate, up), tolerance, &name(""));
        // A part of a wider tensor: its rows are apart.
        if features > 1 {
            let part = there.narrow(1, 0, features / 2 * 2);
            let [gate, up] = [0, features / 2].map(|start| product.clone().narrow(1, start, features / 2));
            close(swiglu(&part).unwrap(), gated(gate, up), tolerance, &name("of a part"));
        }
    });
}

#[test]
fn rotations_equal_the_composed_operations() {
    cases("rotate", |case, name, tolerance| {
        let (batch, length, size) = (case.between(1..=3), case.between(1..=7), 2 * case.between(1..=20));
        let key_heads = case.between(1..=3);
        let counts = HeadCounts { queries: key_heads * case.between(1..=4), keys: key_heads };
        let product = case.tensor([batch * length, (counts.queries + 2 * key_heads) * size]);
        let table = case.tensor_in([50, size], DType::F32);
        let rows = case.one_of(&[1, batch]);
        let mut slots = || Some(Slot::at(0, case.between(0..=49)));
        let slots: Vec<Vec<_>> = (0..rows).map(|_| (0..length).map(|_| slots()).collect()).collect();
        let (rotary, there) = (Rotary::looked_up(table.clone(), &slots), Rotary::looked_up(case.there(&table), &slots));

        let part = |start: usize, count: usize| product.clone().narrow(1, start * size, count * size);
        let (queries, keys) = (counts.queries, counts.keys);
        let (query, key) = rotary.turn_both(part(0, queries), part(queries, keys));
        let value = part(queries + keys, keys).reshape([batch, length, keys, size]).swap_dims(1, 2);
        let (turns, product) = (there.turns().unwrap(), case.there(&product));
        let found = rotate(&product, turns, counts).unwrap();
        let expected = [query.clone(), key.clone(), value.clone()];
        for (found, expected) in found.into_iter().zip(expected) {
            close(found, expected, tolerance, &name(""));
        }

        let capacity = length + case.between(0..=5);
        let filled = case.between(0..=capacity - length);
        let caches = [(); 2].map(|()| case.tensor([batch, keys, capacity, size]));
        let assigned = |cache: &Tensor<4>, new: Tensor<4>| {
            cache.clone().slice_assign([0..batch, 0..keys, filled..filled + length, 0..size], new)
        };
        let expected = [assigned(&caches[0], key), assigned(&caches[1], value)];
        let caches = caches.map(|cache| case.there(&cache));
        let before = values(caches[0].clone());
        let mut own = caches.clone();
        let [one, two] = &mut own;
        let found = rotate_into(&product, turns, counts, [one, two], filled).unwrap();
        close(found, query, tolerance, &name("into"));
        for (found, expected) in own.into_iter().zip(expected) {
            close(found, expected, tolerance, &name("cache"));
        }
        assert_eq!(values(caches[0].clone()), before, "what others hold is left alone");
    });
}

#[test]
fn attention_equals_the_composed_operations() {
    cases("attend", |case, name, tolerance| {
        let (batch, key_heads, size) = (case.between(1..=3), case.between(1..=3), case.one_of(&[4, 8, 32, 40, 128]));
        let group = case.one_of(&[1, 2, 3, 4, 6, 7, 8]);
        let capacity = case.one_of(&[5, 64, 128, 130, 300, 700]);
        let count = case.between(1..=capacity);
        let window = [None, Some(case.between(1..=capacity))][case.one_of(&[0, 1])];
        let query = case.tensor([batch, key_heads * group, 1, size]);
        let caches = [(); 2].map(|()| case.tensor([batch, key_heads, capacity, size]));
        // Prompts of several lengths, padded to one; the query is the last of the slots that are filled.
        let padded = case.between(1..=count);
        let mut rows = |_| {
            let own = case.between(1..=padded);
            let key = |slot: usize| match slot {
                slot if slot < own => Some(Slot::at(slot, slot)),
                slot if slot < padded => None,
                slot => Some(Slot::at(slot - padded + own, slot)),
            };
            let query = Some(Slot::at(count - padded + own - 1, 0));
            (vec![Some(Slot::at(0, 0)), query], (0..capacity).map(key).collect::<Vec<_>>())
        };
        let (queries, keys): (Vec<_>, Vec<_>) = (0..batch).map(&mut rows).unzip();
        let slots = Mask::new(&queries, &keys, window, group, &case.device).slots;
        let last: Vec<_> = queries.iter().map(|row| row[1..].to_vec()).collect();
        let expected = Mask::new(&last, &keys, window, group, &Device::flex()).hidden();
        let expected = in_rows(attend_composed(query.clone(), caches[0].clone(), caches[1].clone(), Some(expected)));
        let orders = Orders { queries: &slots.queries, start: 1, keys: &slots.keys, window };
        let [keys, values] = caches.map(|cache| case.there(&cache));
        let found = attend(&case.there(&query), &keys, &values, orders, count).unwrap();
        let what = format!("{batch} × {key_heads} × {group} heads of {size}, {count} of {capacity}, {window:?}");
        close(found, expected, tolerance, &name(&what));
    });
}

#[test]
fn adapters_equal_the_composed_operations() {
    cases("lora", |case, name, tolerance| {
        let (rows, inputs, rank) = (case.between(1..=20), case.between(1..=600), case.between(1..=40));
        let sizes: Vec<usize> = (0..case.between(1..=3)).map(|_| case.between(1..=90)).collect();
        let x = case.tensor([rows, inputs]);
        let product = case.tensor([rows, sizes.iter().sum()]) * 10.0;
        let scale = (inputs as f64).powf(-0.5);
        let changed: Vec<bool> = sizes.iter().map(|_| case.one_of(&[0, 1, 2]) > 0).collect();
        let mut factors = Vec::new();
        let (mut start, mut parts) = (0, Vec::new());
        for (size, changed) in sizes.iter().zip(changed) {
            let part = product.clone().narrow(1, start, *size);
            parts.push(if changed {
                let (a, b) = (case.tensor_in([rank, inputs], DType::F32), case.tensor_in([*size, rank], DType::F32));
                factors.push((start, case.there(&a), case.there(&b)));
                let lora = adapter::Lora { scale, a, b, dropout: None };
                part + adapter::Change::Lora(lora).forward(&x).cast(case.dtype)
            } else {
                part
            });
            start += size;
        }
        let changes: Vec<_> = factors.iter().map(|(start, a, b)| Change { start: *start, a, b }).collect();
        match lora(&case.there(&x), &case.there(&product), &changes, scale) {
            Some(found) => close(found, Tensor::cat(parts, 1), tolerance, &name("")),
            None => assert!(changes.is_empty()),
        }
    });
}

#[test]
fn a_decoder_with_kernels_writes_and_learns_what_it_does_on_the_cpu() {
    use crate::model::contract::Model;
    use crate::model::llama;

    let device = tiny::device();
    let text = llama::Config {
        layers: 2,
        hidden: 64,
        head_size: 16,
        intermediate: 96,
        sliding_window: Some(8),
        ..tiny::text()
    };
    let (there, here) = (tiny::build_on(text.clone(), DType::F32, &device), tiny::build(text, DType::F32));
    let run = |model: &dyn Model, adapted: bool, tracked: bool| {
        let (mut all, batch) = (Vec::new(), 2);
        let adapter = adapted.then(|| tiny::adapter(model));
        let slots = |range: std::ops::Range<usize>| vec![Slot::line(range)];
        let mut caches = model.caches(batch, 20);
        let mut draws = Draws::new(5, "hidden", "");
        let mut hidden = |length: usize| {
            let count = batch * length * 64;
            let values: Vec<f32> = (0..count).map(|_| draws.normal() as f32).collect();
            Tensor::<3>::from_data(TensorData::new(values, [batch, length, 64]), (&model.device(), DType::F32))
        };
        // A prompt, and tokens one by one, whose places are known before.
        let prompt = model.attention(&slots(0..7), &slots(0..20));
        let tokens = model.attention(&slots(7..17), &slots(0..20));
        let tokens = (0..if tracked { 0 } else { 4 }).map(|place| (1, tokens.at(place)));
        for (length, attention) in std::iter::once((7, prompt)).chain(tokens) {
            let mut hidden = hidden(length);
            let entered = tracked.then(|| hidden.clone().autodiff().require_grad());
            for (index, cache) in caches.iter_mut().enumerate() {
                let adapter = adapter.as_ref().map(|adapter| &adapter.layers[index]);
                hidden = match entered.clone().filter(|_| index == 0) {
                    Some(entered) => {
                        // With a gradient there is no cache: the tokens see themselves.
                        let places = slots(0..length);
                        let attention = model.attention(&places, &places);
                        let left = model.layer(0, entered.clone(), &attention, adapter, None);
                        let gradients = left.square().sum().backward();
                        entered.grad(&gradients).unwrap()
                    }
                    None if tracked => hidden,
                    None => model.layer(index, hidden, &attention, adapter, Some(cache)),
                };
            }
            all.extend(values(hidden));
        }
        all
    };
    for (adapted, tracked) in [(false, false), (true, false), (false, true), (true, true)] {
        let (found, expected) = (run(&there, adapted, tracked), run(&here, adapted, tracked));
        let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let far = found.iter().zip(&expected).map(|(found, expected)| (found - expected).abs() / largest);
        let far = far.fold(0f32, f32::max);
        assert!(far < 2e-5, "adapter: {adapted}, gradient: {tracked}: {far}");
    }
}
