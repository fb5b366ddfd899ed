//! Forward and backward through the decoder, one layer at a time.
//!
//! The forward pass keeps nothing but what enters each layer. The backward pass goes from the last layer to the first:
//! it runs the one layer again with tracked adapter factors, starts from the gradient of what left the layer, and ends
//! with the gradient of what entered it. Memory is that of one layer's graph, whatever the depth. The frozen weights are
//! not tracked and get no gradient. This module knows losses only as weights of log-probabilities.

use burn::tensor::{Bool, DType, IndexingUpdateOp, Tensor, TensorData};
use rand_core::RngCore;
use rayon::prelude::*;

use super::batch::MicroBatch;
use super::loss;
use super::optimizer::Parameters;
use crate::draw::Draws;
use crate::model::llava::Llava;
use crate::model::lora::{LayerLora, Lora, LoraPair, Target};

/// What drops out of the inputs of A in one micro-batch.
#[derive(Clone, Copy, Debug)]
pub struct Dropout<'a> {
    /// The share of values that drop out, of (0, 1).
    pub probability: f64,
    /// The node's seed.
    pub seed: u64,
    /// What names each row's draws: step and place in the batch.
    pub subjects: &'a [String],
}

/// The log-probabilities of a micro-batch's answer tokens, in nats, without a gradient.
pub fn log_probabilities(model: &Llava, lora: Option<&Lora>, batch: &MicroBatch) -> Vec<f32> {
    let mut hidden = batch.hidden.clone();
    for index in 0..model.decoder.layer_count() {
        let layer = lora.map(|lora| &lora.layers[index]);
        hidden = model.decoder.layer(index, hidden, &batch.rotary, &batch.mask, layer, None);
    }
    let values = loss::log_probabilities(model.decoder.logits(predicting(hidden, batch)), batch.labels.clone());
    read(values)
}

/// The gradient of a loss with respect to every factor of `lora`.
///
/// `weigh` is given the log-probabilities of the answer tokens, as [`log_probabilities`] would, and gives
/// `∂loss/∂log p` for each. On their way through the layers gradients are multiplied by `scale`.
pub fn gradients(
    model: &Llava,
    lora: &Lora,
    dropout: Option<&Dropout<'_>>,
    batch: &MicroBatch,
    scale: f64,
    weigh: impl FnOnce(&[f32]) -> Vec<f32>,
) -> Parameters {
    let decoder = &model.decoder;
    let mut entering = Vec::with_capacity(decoder.layer_count());
    let mut hidden = batch.hidden.clone();
    for index in 0..decoder.layer_count() {
        entering.push(hidden.clone());
        let layer = thinned(&lora.layers[index], index, dropout, batch);
        hidden = decoder.layer(index, hidden, &batch.rotary, &batch.mask, Some(&layer), None);
    }

    let [rows, length, width] = hidden.dims();
    let nothing = hidden.zeros_like().reshape([rows * length, width]);
    let top = predicting(hidden, batch).autodiff().require_grad();
    let values = loss::log_probabilities(decoder.logits(top.clone()), batch.labels.clone());
    let weights: Vec<f32> =
        weigh(&read(values.clone().inner())).into_iter().map(|weight| weight * scale as f32).collect();
    let weights = TensorData::new(weights, [batch.labels.dims()[0]]);
    let weights = Tensor::<1>::from_data(weights, (&model.device(), DType::F32));
    let mut found = (values * weights.autodiff()).sum().backward();
    let top = top.grad_remove(&mut found).expect("the loss depends on every gathered position");
    let upstream = nothing.select_assign(0, batch.predictors.clone(), top, IndexingUpdateOp::Add);
    let mut upstream = upstream.reshape([rows, length, width]);

    let mut gradients = Parameters::new();
    for index in (0..decoder.layer_count()).rev() {
        let entering = entering.pop().expect("one tensor a layer");
        // Below the first layer nothing is trained.
        let entering = if index > 0 { entering.autodiff().require_grad() } else { entering };
        let layer = tracked(thinned(&lora.layers[index], index, dropout, batch));
        let leaving = decoder.layer(index, entering.clone(), &batch.rotary, &batch.mask, Some(&layer), None);
        let mut found = (leaving * upstream.clone().autodiff()).sum().backward();
        for target in Target::ALL {
            let Some(LoraPair { a, b, .. }) = layer.pair(target) else { continue };
            for (factor, tensor) in [('A', a), ('B', b)] {
                let gradient = tensor.grad_remove(&mut found).expect("a layer's output depends on its adapter");
                let gradient = gradient.flatten(0, 1);
                let gradient = if scale == 1.0 { gradient } else { gradient.div_scalar(scale) };
                gradients.insert(path(index, target, factor), gradient);
            }
        }
        if index > 0 {
            upstream = entering.grad_remove(&mut found).expect("a layer's output depends on its input");
        }
    }
    gradients
}

/// Adds `more` to `sum`.
pub fn accumulate(sum: &mut Parameters, more: Parameters) {
    for (path, gradient) in more {
        let total = match sum.remove(&path) {
            Some(total) => total.add(gradient),
            None => gradient,
        };
        sum.insert(path, total);
    }
}

/// The factors of `lora` by path, flattened.
pub fn parameters(lora: &Lora) -> Parameters {
    let mut parameters = Parameters::new();
    for (index, layer) in lora.layers.iter().enumerate() {
        for target in Target::ALL {
            if let Some(LoraPair { a, b, .. }) = layer.pair(target) {
                parameters.insert(path(index, target, 'A'), a.clone().flatten(0, 1));
                parameters.insert(path(index, target, 'B'), b.clone().flatten(0, 1));
            }
        }
    }
    parameters
}

/// Puts `parameters`, as [`parameters`] gives them, into `lora`.
///
/// # Panics
/// When one is missing or of another size.
pub fn replace(lora: &mut Lora, parameters: &Parameters) {
    for (index, layer) in lora.layers.iter_mut().enumerate() {
        for target in Target::ALL {
            if let Some(LoraPair { a, b, .. }) = layer.pairs[target as usize].as_mut() {
                *a = parameters[&path(index, target, 'A')].clone().reshape(a.dims());
                *b = parameters[&path(index, target, 'B')].clone().reshape(b.dims());
            }
        }
    }
}

fn path(layer: usize, target: Target, factor: char) -> String {
    format!("layers.{layer}.{}.lora_{factor}", target.path())
}

/// The rows that predict answer tokens, `[n, hidden]`.
fn predicting(hidden: Tensor<3>, batch: &MicroBatch) -> Tensor<2> {
    let [rows, length, width] = hidden.dims();
    hidden.reshape([rows * length, width]).select(0, batch.predictors.clone())
}

fn read(values: Tensor<1>) -> Vec<f32> {
    values.try_into_vec_as().expect("log-probabilities are 32-bit floats")
}

/// `layer` with factors that gradients are wanted for.
fn tracked(mut layer: LayerLora) -> LayerLora {
    for pair in layer.pairs.iter_mut().flatten() {
        pair.a = pair.a.clone().autodiff().require_grad();
        pair.b = pair.b.clone().autodiff().require_grad();
    }
    layer
}

/// `layer` with what drops out. Called twice with the same arguments, it gives the same.
fn thinned(layer: &LayerLora, index: usize, dropout: Option<&Dropout<'_>>, batch: &MicroBatch) -> LayerLora {
    let mut layer = layer.clone();
    let Some(dropout) = dropout else { return layer };
    for target in Target::ALL {
        if let Some(pair) = layer.pairs[target as usize].as_mut() {
            pair.dropout = Some(dropout.mask(index, target, pair.a.dims()[1], batch));
        }
    }
    layer
}

impl Dropout<'_> {
    /// 0 where a value drops out, `1 / (1 − probability)` where it stays: `[rows · length, features]`.
    fn mask(&self, layer: usize, target: Target, features: usize, batch: &MicroBatch) -> Tensor<2> {
        let [rows, length, _] = batch.hidden.dims();
        // 16 bits a draw: the probability is met to within 1 / 131,072.
        let threshold = (self.probability * 65_536.0).round() as u32;
        let mut kept = vec![false; rows * length * features];
        kept.par_chunks_mut(length * features).enumerate().for_each(|(row, kept)| {
            let subject = format!("{} {layer} {}", self.subjects[row], target.name());
            let mut bytes = vec![0; 2 * batch.filled[row] * features];
            Draws::new(self.seed, "dropout", &subject).fill_bytes(&mut bytes);
            for (kept, draw) in kept.iter_mut().zip(bytes.chunks_exact(2)) {
                *kept = u32::from(u16::from_le_bytes([draw[0], draw[1]])) >= threshold;
            }
        });
        let kept =
            Tensor::<2, Bool>::from_data(TensorData::new(kept, [rows * length, features]), &batch.hidden.device());
        kept.float().cast(DType::F32).mul_scalar(1.0 / (1.0 - self.probability))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::batch::Member;
    use crate::train::scale::LossScale;
    use crate::train::small;

    const ANSWERS: [usize; 3] = [4, 1, 7];

    fn batch(model: &Llava, indices: &[usize]) -> MicroBatch {
        let sequences: Vec<_> =
            indices.iter().map(|&index| small::sequence(index, index != 1, ANSWERS[index])).collect();
        let pictures: Vec<_> = indices.iter().map(|&index| small::rows(model, index)).collect();
        let members: Vec<_> = sequences
            .iter()
            .enumerate()
            .map(|(place, sequence)| Member {
                sequences: std::slice::from_ref(sequence),
                picture: sequence.picture.map(|_| place),
            })
            .collect();
        MicroBatch::new(model, &members, &pictures)
    }

    fn values(tensor: &Tensor<1>) -> Vec<f32> {
        tensor.try_to_vec_as().unwrap()
    }

    fn weights(count: usize) -> Vec<f32> {
        (0..count).map(|index| (index as f32 * 0.7).sin()).collect()
    }

    /// The largest difference, relative to the largest value.
    fn difference(found: &Parameters, expected: &Parameters) -> f32 {
        assert!(found.keys().eq(expected.keys()));
        let mut largest = 0f32;
        for (path, expected) in expected {
            let (found, expected) = (values(&found[path]), values(expected));
            let scale = expected.iter().fold(0f32, |scale, value| scale.max(value.abs()));
            assert!(scale > 0.0, "`{path}` has a gradient");
            for (found, expected) in found.iter().zip(&expected) {
                largest = largest.max((found - expected).abs() / scale);
            }
        }
        largest
    }

    #[test]
    fn recomputing_layer_by_layer_equals_the_whole_graph() {
        let model = small::model();
        let (lora, batch) = (small::lora(&model), batch(&model, &[0, 1, 2]));
        let found = gradients(&model, &lora, None, &batch, 1.0, |values| weights(values.len()));

        let layers: Vec<_> = lora.layers.iter().cloned().map(tracked).collect();
        let mut hidden = batch.hidden.clone();
        for (index, layer) in layers.iter().enumerate() {
            hidden = model.decoder.layer(index, hidden, &batch.rotary, &batch.mask, Some(layer), None);
        }
        let logits = model.decoder.logits(predicting(hidden, &batch));
        let sums = loss::log_probabilities(logits, batch.labels.clone());
        let weights = Tensor::<1>::from_floats(weights(12).as_slice(), &model.device());
        let graph = (sums * weights.autodiff()).sum().backward();
        let mut expected = Parameters::new();
        for (index, layer) in layers.iter().enumerate() {
            for target in Target::ALL {
                let pair = layer.pair(target).unwrap();
                expected.insert(path(index, target, 'A'), pair.a.grad(&graph).unwrap().flatten(0, 1));
                expected.insert(path(index, target, 'B'), pair.b.grad(&graph).unwrap().flatten(0, 1));
            }
        }
        assert_eq!(expected.len(), 3 * 7 * 2);
        let largest = difference(&found, &expected);
        assert!(largest < 2e-6, "largest relative difference {largest}");
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_weighted_log_probabilities() {
        let model = small::model();
        let (lora, batch) = (small::lora(&model), batch(&model, &[2, 0]));
        let weights = weights(11);
        let found = gradients(&model, &lora, None, &batch, 1.0, |_| weights.clone());
        let objective = |parameters: &Parameters| {
            let mut moved = lora.clone();
            replace(&mut moved, parameters);
            let values = log_probabilities(&model, Some(&moved), &batch);
            values.iter().zip(&weights).map(|(value, weight)| f64::from(value * weight)).sum::<f64>()
        };
        let start = parameters(&lora);
        let step = 2e-3;
        for (path, gradient) in &found {
            // Along the gradient itself, so that rounding is small beside the slope.
            let at = |sign: f64| {
                let mut moved = start.clone();
                let value = moved[path].clone() + gradient.clone().mul_scalar(sign * step / norm(gradient));
                moved.insert(path.clone(), value);
                objective(&moved)
            };
            let slope = (at(1.0) - at(-1.0)) / (2.0 * step);
            let expected = norm(gradient);
            assert!((slope - expected).abs() < 0.02 * expected + 1e-3, "{path}: {slope}, gradient {expected}");
        }
    }

    fn norm(tensor: &Tensor<1>) -> f64 {
        values(tensor).iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn a_sequence_s_log_probabilities_do_not_depend_on_its_neighbours() {
        let model = small::model();
        let lora = small::lora(&model);
        let together = batch(&model, &[0, 1, 2]);
        let values = log_probabilities(&model, Some(&lora), &together);
        for (index, own) in together.by_sequence(&values).enumerate() {
            let alone = log_probabilities(&model, Some(&lora), &batch(&model, &[index]));
            assert_eq!(own.len(), ANSWERS[index]);
            for (found, expected) in own.iter().zip(&alone) {
                assert!((found - expected).abs() < 1e-5, "sequence {index}: {found}, alone {expected}");
            }
        }
    }

    #[test]
    fn micro_batches_add_up_to_the_batch() {
        let model = small::model();
        let lora = small::lora(&model);
        let dropout = |subjects| Dropout { probability: 0.25, seed: 5, subjects };
        let names = ["0".to_owned(), "1".to_owned(), "2".to_owned()];
        let all = weights(12);
        let whole = gradients(&model, &lora, Some(&dropout(&names)), &batch(&model, &[0, 1, 2]), 1.0, |_| all.clone());
        let mut sum = Parameters::new();
        let first = batch(&model, &[0, 1]);
        accumulate(&mut sum, gradients(&model, &lora, Some(&dropout(&names[..2])), &first, 1.0, |_| all[..5].to_vec()));
        let second = batch(&model, &[2]);
        accumulate(
            &mut sum,
            gradients(&model, &lora, Some(&dropout(&names[2..])), &second, 1.0, |_| all[5..].to_vec()),
        );
        let largest = difference(&sum, &whole);
        assert!(largest < 2e-6, "largest relative difference {largest}");
    }

    #[test]
    fn in_16_bits_the_gradient_keeps_its_direction_and_its_size() {
        let model = small::model();
        let lora = small::lora(&model);
        // Weights as small as those of a pair among many: without scaling, most of the gradient would be lost.
        let weights: Vec<f32> = weights(12).iter().map(|weight| weight * 1e-4).collect();
        let of =
            |model: &Llava, scale| gradients(model, &lora, None, &batch(model, &[0, 1, 2]), scale, |_| weights.clone());
        let scale = LossScale::of(DType::F16).unwrap().factor();
        let (exact, found) = (of(&model, 1.0), of(&small::model_in(DType::F16), scale));
        let (mut difference, mut size) = (0.0, 0.0);
        for (path, exact) in &exact {
            assert_eq!(found[path].dtype(), DType::F32);
            difference += norm(&(found[path].clone() - exact.clone())).powi(2);
            size += norm(exact).powi(2);
        }
        let share = (difference / size).sqrt();
        assert!(share < 0.02, "{share}");
    }

    #[test]
    fn dropout_keeps_the_expected_share_and_its_scale() {
        let model = small::model();
        let batch = batch(&model, &[0, 2]);
        let subjects = ["a".to_owned(), "b".to_owned()];
        let dropout = Dropout { probability: 0.25, seed: 1, subjects: &subjects };
        let mut counts = (0, 0);
        for layer in 0..40 {
            let mask: Vec<f32> = dropout.mask(layer, Target::Q, 16, &batch).try_into_vec_as().unwrap();
            let [_, length, _] = batch.hidden.dims();
            // The second sequence is the longest; what fills up the first has no draws.
            for value in &mask[length * 16..][..batch.filled[1] * 16] {
                assert!(*value == 0.0 || (value - 4.0 / 3.0).abs() < 1e-6);
                counts.0 += usize::from(*value == 0.0);
                counts.1 += 1;
            }
        }
        let share = counts.0 as f64 / counts.1 as f64;
        assert!((share - 0.25).abs() < 0.02, "{share}");
    }
}
