//! Whether a device computes what the CPU does: single operations first, then parts of a small model, a generation and
//! a training step. What is wrong is named by the first of these that differs. This module does not know backends.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use burn::tensor::activation::{gelu, silu, softmax};
use burn::tensor::{Bool, DType, Device, IndexingUpdateOp, Int, Tensor, TensorData};

use super::dropout::Dropout;
use super::optimizer::{AdamW, Parameters, clip};
use super::scale::LossScale;
use super::step::gradients;
use crate::device::Precision;
use crate::model::adapter::Adapter;
use crate::model::attention::{Position, Rotary, Slot};
use crate::model::batch::{Batch, Member};
use crate::model::contract::Model;
use crate::model::device::dtype;
use crate::model::forward::{forward, log_probabilities};
use crate::model::generate::{Generator, Request, Settings, Step};
use crate::model::llava::Llava;
use crate::model::nn::{LayerNorm, RmsNorm, attend};
use crate::model::sample::Sampling;
use crate::model::tiny;
use stic_engine::draw::Draws;

/// How one operation or part compares.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What was computed.
    pub what: &'static str,
    /// In which precision.
    pub precision: Precision,
    /// The largest difference from the CPU's values in `f32`, as a share of the largest of these. NaN where the
    /// device's are not finite.
    pub difference: f32,
    /// The largest that rounding explains.
    pub allowed: f32,
    /// Why there are no values.
    pub problem: Option<String>,
    /// Whether that is no mistake: the device says that it has no buffers of this size.
    pub is_limit: bool,
}

impl Finding {
    /// Whether the device computes this right.
    pub fn is_right(&self) -> bool {
        self.is_limit || (self.problem.is_none() && self.difference <= self.allowed)
    }
}

/// Compares `device` with the CPU in `precisions`, and reports each finding to `seen`, until that breaks it off.
/// `tf32` is whether the device computes products of 32-bit floats in TF32.
pub fn compare(
    device: &Device,
    precisions: &[Precision],
    tf32: bool,
    mut seen: impl FnMut(Finding) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let cpu = Place { device: Device::flex(), dtype: DType::F32 };
    for &precision in precisions {
        let place = Place { device: device.clone(), dtype: dtype(precision) };
        for Part { what, of, kind } in PARTS {
            if matches!(kind, Kind::Tokens) && precision != Precision::F32 {
                // Rounding may decide between tokens that are almost equally likely.
                continue;
            }
            let expected = of(&cpu);
            let found = catch_unwind(AssertUnwindSafe(|| of(&place)));
            let (difference, problem) = match &found {
                Ok(found) => (distance(found, &expected), None),
                Err(panic) => (f32::NAN, Some(said(&**panic))),
            };
            let allowed = kind.allowed(precision, tf32);
            let is_limit =
                *what == LARGE && problem.as_ref().is_some_and(|said| said.contains("can't allocate buffer"));
            seen(Finding { what, precision, difference, allowed, problem, is_limit })?;
        }
    }
    ControlFlow::Continue(())
}

/// The cause in the message of a panic.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    // The first line says that something failed, the one before the stacks what.
    let lines = || text.unwrap_or("no reason given").lines();
    let cause =
        lines().rfind(|line| !line.contains("backtrace") && !["Caused by:", "Asked at:"].contains(&line.trim()));
    cause.map_or_else(String::new, |line| line.trim().to_owned())
}

/// The largest difference, as a share of the largest expected value; NaN where a value is.
fn distance(found: &[f32], expected: &[f32]) -> f32 {
    if found.len() != expected.len() {
        return f32::INFINITY;
    }
    let largest = expected.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    let differences = std::iter::zip(found, expected).map(|(found, expected)| (found - expected).abs() / largest);
    differences.fold(0.0, |worst, it| if worst.is_nan() || it.is_nan() { f32::NAN } else { worst.max(it) })
}

/// Where something is computed.
struct Place {
    device: Device,
    dtype: DType,
}

/// How much rounding there may be.
#[derive(Clone, Copy)]
enum Kind {
    /// Of one operation.
    Operation,
    /// Of the layers of a model, there and back.
    Layers,
    /// None: integers.
    Tokens,
}

impl Kind {
    fn allowed(self, precision: Precision, tf32: bool) -> f32 {
        let one = match precision {
            Precision::F32 if !tf32 => 1e-5,
            Precision::F32 | Precision::F16 => 4e-3,
            Precision::Bf16 => 3e-2,
        };
        match self {
            Self::Operation => one,
            Self::Layers => 8.0 * one,
            Self::Tokens => 0.0,
        }
    }
}

struct Part {
    what: &'static str,
    of: fn(&Place) -> Vec<f32>,
    kind: Kind,
}

const fn operation(what: &'static str, of: fn(&Place) -> Vec<f32>) -> Part {
    Part { what, of, kind: Kind::Operation }
}

const fn layers(what: &'static str, of: fn(&Place) -> Vec<f32>) -> Part {
    Part { what, of, kind: Kind::Layers }
}

/// WebGPU promises no buffers of more.
pub const LARGE: &str = "product by a matrix of more than 128 MiB";

/// From what everything needs to what needs everything.
const PARTS: &[Part] = &[
    operation("addition and multiplication", |place| {
        let [a, b] = ["a", "b"].map(|name| place.normal::<2>(name, [37, 65]));
        values(a.clone() * b.clone() + a.mul_scalar(0.5) - b)
    }),
    operation("exponential, logarithm, root and sine", |place| {
        let a = place.normal::<2>("a", [37, 65]).cast(DType::F32);
        values(a.clone().exp().log() + a.clone().abs().sqrt() + a.sin())
    }),
    operation("sums along a dimension", |place| {
        let a = place.normal::<3>("a", [5, 37, 65]).cast(DType::F32);
        values(Tensor::cat(vec![a.clone().sum_dim(2).flatten::<1>(0, 2), a.sum_dim(1).flatten(0, 2)], 0))
    }),
    operation("concatenation, slices and transposition", |place| {
        let [a, b] = ["a", "b"].map(|name| place.normal::<2>(name, [37, 65]));
        values(Tensor::cat(vec![a.narrow(0, 3, 20), b.narrow(0, 0, 11)], 0).transpose().narrow(0, 7, 50))
    }),
    operation("selection of rows", |place| {
        let rows = integers(place, &[3, 0, 36, 3, 17]);
        values(place.normal::<2>("a", [37, 65]).select(0, rows))
    }),
    operation("addition to selected rows", |place| {
        let [a, b] = [place.normal::<2>("a", [37, 65]), place.normal::<2>("b", [4, 65])];
        values(a.cast(DType::F32).select_assign(
            0,
            integers(place, &[3, 0, 36, 3]),
            b.cast(DType::F32),
            IndexingUpdateOp::Add,
        ))
    }),
    operation("matrix product", |place| values(place.normal::<2>("a", [70, 130]).matmul(place.normal("b", [130, 90])))),
    operation("product of one row by a transposed matrix", |place| {
        values(place.normal::<2>("a", [1, 256]).matmul(place.normal::<2>("b", [96, 256]).transpose()))
    }),
    operation("products of a batch of matrices", |place| {
        values(place.normal::<4>("a", [2, 3, 17, 36]).matmul(place.normal("b", [2, 3, 36, 20])))
    }),
    operation(LARGE, |place| {
        // Zeros but for the last rows, so that the CPU does not draw 34 million numbers.
        let size = if place.dtype == DType::F32 { 4 } else { 2 };
        let rows = (129 << 20) / (1024 * size);
        let last = place.normal::<2>("last", [16, 1024]);
        let zeros = Tensor::zeros([rows, 1024], (&place.device, place.dtype));
        let weight = zeros.slice_assign([rows - 16..rows, 0..1024], last);
        let product = place.normal::<2>("a", [1, 1024]).matmul(weight.transpose());
        values(product.narrow(1, rows - 32, 32))
    }),
    operation("softmax", |place| values(softmax(place.normal::<2>("a", [37, 65]).cast(DType::F32), 1))),
    operation("activations", |place| {
        let a = place.normal::<2>("a", [37, 65]);
        values(silu(a.clone()) + gelu(a))
    }),
    operation("RMS norm", |place| {
        let norm = RmsNorm { weight: place.normal("weight", [128]), epsilon: 1e-5 };
        values(norm.forward(place.normal("a", [37, 128])))
    }),
    operation("layer norm", |place| {
        let norm = LayerNorm { weight: place.normal("w", [128]), bias: place.normal("b", [128]), epsilon: 1e-5 };
        values(norm.forward(place.normal("a", [37, 128])))
    }),
    operation("rotary embedding", |place| {
        let slots = [Slot::line(0..19), Slot::line(3..22)];
        let angles = |[time, ..]: Position| (0..16).map(|pair| time as f32 * 10f32.powf(pair as f32 / -4.0)).collect();
        let rotary = Rotary::new(&slots, &place.device, angles);
        values(rotary.turn(place.normal("heads", [2, 4, 19, 32])))
    }),
    operation("attention", |place| {
        let mask = Tensor::<4, Bool>::from_data(
            TensorData::new((0..19 * 24).map(|at| at % 24 > at / 24 + 5).collect(), [1, 1, 19, 24]),
            &place.device,
        );
        let [key, value] = ["key", "value"].map(|name| place.normal::<4>(name, [2, 4, 24, 32]));
        values(attend(place.normal("query", [2, 4, 19, 32]), key, value, Some(mask)))
    }),
    operation("the most likely tokens", |place| {
        let (top, at) = place.normal::<2>("a", [5, 300]).cast(DType::F32).topk_with_indices(8, 1);
        let best = place.normal::<2>("a", [5, 300]).argmax(1);
        // Equal in 16 bits, two may change places: their values may not.
        let found = place.normal::<2>("a", [5, 300]).cast(DType::F32).gather(1, Tensor::cat(vec![at, best], 1));
        values(Tensor::cat(vec![top, found], 1))
    }),
    layers("image features", |place| values(place.model().encode_images(&[&tiny::image(1)]).remove(0).rows)),
    layers("logits", |place| logits(place, false)),
    layers("logits with an adapter", |place| logits(place, true)),
    layers("log-probabilities", |place| {
        let model = place.model();
        log_probabilities(&model, Some(&place.adapter(&model)), &batch(&model))
    }),
    Part { what: "generation", of: generation, kind: Kind::Tokens },
    layers("gradients", |place| flat(&place.gradients(0.0))),
    layers("gradients with dropout", |place| flat(&place.gradients(0.25))),
    operation("an optimizer step", |place| {
        let of = |name| Parameters::from([("a".to_owned(), place.normal::<1>(name, [300]).cast(DType::F32))]);
        let (mut parameters, mut gradients) = (of("parameters"), of("gradients"));
        clip(&mut gradients, 1.0);
        AdamW { epsilon: 1e-2, ..AdamW::default() }.step(1, &mut BTreeMap::new(), &mut parameters, gradients, 0.01);
        flat(&parameters)
    }),
];

impl Place {
    fn normal<const D: usize>(&self, name: &str, shape: [usize; D]) -> Tensor<D> {
        let mut draws = Draws::new(1, "parity", name);
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| draws.normal() as f32).collect();
        Tensor::from_data(TensorData::new(values, shape), (&self.device, self.dtype))
    }

    fn model(&self) -> Llava {
        tiny::build_on(tiny::text(), self.dtype, &self.device)
    }

    fn adapter(&self, model: &Llava) -> Adapter {
        tiny::adapter(model)
    }

    fn gradients(&self, probability: f64) -> Parameters {
        let model = self.model();
        let subjects = ["0", "1", "2"].map(str::to_owned);
        let dropout = Dropout { probability, seed: 5, subjects: &subjects };
        let dropout = (probability > 0.0).then_some(&dropout);
        let scale = LossScale::of(self.dtype).map_or(1.0, LossScale::factor);
        let weigh = |values: &[f32]| (0..values.len()).map(|index| (index as f32 * 0.7).sin()).collect();
        let go_on = || ControlFlow::Continue(());
        let found = gradients(&model, &self.adapter(&model), dropout, &batch(&model), scale, go_on, weigh);
        found.continue_value().expect("nothing breaks it off")
    }
}

fn batch(model: &Llava) -> Batch {
    let sequences = [0, 1, 2].map(|index| tiny::sequence(index, index != 1, 2 + index));
    let pictures = [0, 1, 2].map(|index| tiny::features(model, index));
    let members = [0, 1, 2].map(|index| Member {
        sequences: std::slice::from_ref(&sequences[index]),
        image: (index != 1).then_some(index),
    });
    Batch::new(model, &members, &pictures, |longest| longest.next_multiple_of(16))
}

fn logits(place: &Place, adapted: bool) -> Vec<f32> {
    let model = place.model();
    let adapter = adapted.then(|| place.adapter(&model));
    let layer = |index: usize| adapter.as_ref().map(|adapter| Cow::Borrowed(&adapter.layers[index]));
    let batch = batch(&model);
    let hidden = forward(&model, &batch.input, layer, None, |_| ControlFlow::Continue(())).continue_value();
    let hidden = hidden.expect("nothing breaks it off");
    let filled = hidden.clone().narrow(1, 0, *batch.filled.iter().min().expect("three rows"));
    let [rows, length, width] = filled.dims();
    values(model.logits(filled.reshape([rows * length, width])))
}

/// The tokens of the answers to five prompts, in one batch.
fn generation(place: &Place) -> Vec<f32> {
    let model = place.model();
    let settings = Settings { sampling: Sampling::GREEDY, max_new_tokens: 8, seed: 0, batch_size: Some(8) };
    let mut allowed = vec![true; model.shape().vocabulary];
    allowed[tiny::IMAGE as usize] = false;
    let generator = Generator::among(&model, None, allowed, settings);
    let requests = (0..5).map(|tag| {
        let sequence = tiny::sequence(tag, tag != 1, 0);
        Ok(Request { tag, subject: tag.to_string(), sequence, image: (tag != 1).then(|| Arc::new(tiny::image(tag))) })
    });
    let mut answers = vec![Vec::new(); 5];
    let _ = generator.run(requests, &mut |step| {
        if let Step::Done(tag, answer) = step {
            answers[tag] = answer.map_or_else(|_| vec![f32::NAN], |it| it.tokens.iter().map(|id| *id as f32).collect());
            answers[tag].push(-1.0);
        }
        ControlFlow::Continue(())
    });
    answers.concat()
}

fn integers(place: &Place, values: &[i32]) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &place.device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.cast(DType::F32).into_data().try_into_vec().expect("32-bit floats")
}

fn flat(parameters: &Parameters) -> Vec<f32> {
    parameters.values().flat_map(|tensor| values(tensor.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_of_the_tests_computes_what_the_cpu_does() {
        let device = tiny::device();
        let supported = |precision: &Precision| device.supports_dtype(dtype(*precision));
        let precisions: Vec<Precision> = Precision::ALL.into_iter().filter(supported).collect();
        let mut count = 0;
        let done = compare(&device, &precisions, format!("{device:?}").contains("Cuda"), |finding| {
            println!("{:?} {}: {}", finding.precision, finding.what, finding.difference);
            assert!(finding.is_right(), "{finding:?}");
            count += 1;
            ControlFlow::Continue(())
        });
        assert!(done.is_continue() && count >= PARTS.len());
    }

    #[test]
    fn what_differs_is_wrong_and_so_is_what_is_not_a_number_or_not_there() {
        let finding = |difference, problem: Option<&str>| Finding {
            what: "softmax",
            precision: Precision::F32,
            difference,
            allowed: 1e-4,
            problem: problem.map(str::to_owned),
            is_limit: false,
        };
        assert!(finding(5e-5, None).is_right());
        assert!(!finding(5e-3, None).is_right() && !finding(f32::NAN, None).is_right());
        assert!(!finding(0.0, Some("lost")).is_right());
        assert_eq!(distance(&[1.0, 2.0], &[1.0, 4.0]), 0.5);
        assert!(distance(&[f32::NAN, 2.0], &[1.0, 2.0]).is_nan() && distance(&[1.0, f32::NAN], &[1.0, 2.0]).is_nan());
        assert_eq!(distance(&[1.0], &[1.0, 2.0]), f32::INFINITY);
    }
}
