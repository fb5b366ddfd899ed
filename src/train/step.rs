//! The gradient of one micro-batch. This module knows losses only as weights of log-probabilities.

use std::borrow::Cow;
use std::ops::ControlFlow;

use burn::tensor::{DType, IndexingUpdateOp, Tensor, TensorData};

use super::dropout::{Dropout, Masks};
use super::optimizer::Parameters;
use crate::model::adapter::Adapter;
use crate::model::batch::Batch;
use crate::model::contract::{LinearSpec, Model};
use crate::model::forward::{backward, forward, of_labels, predicting};

/// The gradient of a loss with respect to every tensor of `adapter`.
///
/// `weigh` is given the log-probabilities of the answer tokens, in nats, and gives `∂loss/∂log p` for each. On their
/// way through the layers gradients are multiplied by `scale`. `proceed` is asked before every layer, and may stop it all.
pub fn gradients(
    model: &dyn Model,
    adapter: &Adapter,
    dropout: Option<&Dropout<'_>>,
    batch: &Batch,
    scale: f64,
    proceed: impl Fn() -> ControlFlow<()>,
    weigh: impl FnOnce(&[f32]) -> Vec<f32>,
) -> ControlFlow<(), Parameters> {
    let linears = &model.shape().linears;
    let masks = dropout.map(|dropout| Masks::new(dropout, batch));
    let layer = |index: usize| {
        let layer = &adapter.layers[index];
        masks.as_ref().map_or(Cow::Borrowed(layer), |masks| Cow::Owned(masks.of(layer, index, linears)))
    };
    let mut entering = Vec::with_capacity(adapter.layers.len());
    let keep = |hidden: &Tensor<3>| {
        entering.push(hidden.clone());
        proceed()
    };
    let hidden = forward(model, &batch.input, |index| Some(layer(index)), None, keep)?;

    let [rows, length, width] = hidden.dims();
    let nothing = hidden.zeros_like().reshape([rows * length, width]);
    let top = predicting(hidden, batch).autodiff().require_grad();
    let values = of_labels(model.logits(top.clone()), batch.label_column());
    let mut known: Vec<f32> = values.clone().inner().try_into_vec_as().expect("log-probabilities are 32-bit floats");
    known.truncate(batch.labels.len());
    let mut weights: Vec<f32> = weigh(&known).into_iter().map(|weight| weight * scale as f32).collect();
    weights.resize(batch.predicted, 0.0);
    let weights = TensorData::new(weights, [batch.predicted]);
    let weights = Tensor::<1>::from_data(weights, (&model.device(), DType::F32));
    let mut found = (values * weights.autodiff()).sum().backward();
    let top = top.grad_remove(&mut found).expect("the loss depends on every gathered position");
    let upstream = nothing.select_assign(0, batch.predictors(), top, IndexingUpdateOp::Add);

    let mut gradients = Parameters::new();
    let upstream = upstream.reshape([rows, length, width]);
    backward(
        model,
        &batch.input,
        entering,
        upstream,
        |index| layer(index).into_owned(),
        &proceed,
        |index, layer, found| {
            for (path, tensor) in layer.tensors(index, linears) {
                let gradient = tensor.grad_remove(found).expect("a layer's output depends on its adapter");
                let gradient = gradient.flatten(0, 1);
                gradients.insert(path, if scale == 1.0 { gradient } else { gradient.div_scalar(scale) });
            }
        },
    )?;
    ControlFlow::Continue(gradients)
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

/// The tensors of `adapter` by path, flattened.
pub fn parameters(adapter: &Adapter, linears: &[LinearSpec]) -> Parameters {
    adapter.tensors(linears).map(|(path, tensor)| (path, tensor.clone().flatten(0, 1))).collect()
}

/// Puts `parameters`, as [`parameters`] gives them, into `adapter`.
///
/// # Panics
/// When one is missing or of another size.
pub fn replace(adapter: &mut Adapter, linears: &[LinearSpec], parameters: &Parameters) {
    for (index, layer) in adapter.layers.iter_mut().enumerate() {
        for (path, tensor) in layer.tensors_mut(index, linears) {
            *tensor = parameters[&path].clone().reshape(tensor.dims());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::batch::Member;
    use crate::model::forward::log_probabilities;
    use crate::model::tiny;
    use crate::train::scale::LossScale;

    const ANSWERS: [usize; 3] = [4, 1, 7];

    fn gradients(
        model: &dyn Model,
        adapter: &Adapter,
        dropout: Option<&Dropout<'_>>,
        batch: &Batch,
        scale: f64,
        weigh: impl FnOnce(&[f32]) -> Vec<f32>,
    ) -> Parameters {
        let always = || ControlFlow::Continue(());
        super::gradients(model, adapter, dropout, batch, scale, always, weigh).continue_value().unwrap()
    }

    fn batch(model: &dyn Model, indices: &[usize]) -> Batch {
        let sequences: Vec<_> =
            indices.iter().map(|&index| tiny::sequence(index, index != 1, ANSWERS[index])).collect();
        let pictures: Vec<_> = indices.iter().map(|&index| tiny::features(model, index)).collect();
        let members: Vec<_> = sequences
            .iter()
            .enumerate()
            .map(|(place, sequence)| Member {
                sequences: std::slice::from_ref(sequence),
                image: sequence.images.first().map(|_| place),
            })
            .collect();
        Batch::new(model, &members, &pictures, |longest| longest.next_multiple_of(8))
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
        let model = tiny::model();
        let (adapter, batch) = (tiny::adapter(&model), batch(&model, &[0, 1, 2]));
        let found = gradients(&model, &adapter, None, &batch, 1.0, |values| weights(values.len()));

        let linears = &model.shape().linears;
        let mut tracked = adapter.clone();
        for (index, layer) in tracked.layers.iter_mut().enumerate() {
            layer.tensors_mut(index, linears).for_each(|(_, it)| *it = it.clone().autodiff().require_grad());
        }
        let layer = |index: usize| Some(Cow::Borrowed(&tracked.layers[index]));
        let hidden = forward(&model, &batch.input, layer, None, |_| ControlFlow::Continue(()));
        let logits = model.logits(predicting(hidden.continue_value().unwrap(), &batch));
        let sums = of_labels(logits, batch.label_column());
        let weights = Tensor::<1>::from_floats(weights(12).as_slice(), &model.device());
        let graph = (sums * weights.autodiff()).sum().backward();
        let gradient = |(path, it): (String, &Tensor<2>)| (path, it.grad(&graph).unwrap().flatten(0, 1));
        let expected: Parameters = tracked.tensors(linears).map(gradient).collect();
        assert_eq!(expected.len(), 3 * 7 * 2);
        let largest = difference(&found, &expected);
        assert!(largest < 2e-6, "largest relative difference {largest}");
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_weighted_log_probabilities() {
        let model = tiny::model();
        let (adapter, batch) = (tiny::adapter(&model), batch(&model, &[2, 0]));
        let weights = weights(11);
        let found = gradients(&model, &adapter, None, &batch, 1.0, |_| weights.clone());
        let objective = |parameters: &Parameters| {
            let mut moved = adapter.clone();
            replace(&mut moved, &model.shape().linears, parameters);
            let values = log_probabilities(&model, Some(&moved), &batch);
            values.iter().zip(&weights).map(|(value, weight)| f64::from(value * weight)).sum::<f64>()
        };
        let start = parameters(&adapter, &model.shape().linears);
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

    #[test]
    fn positions_that_fill_up_change_neither_log_probabilities_nor_gradients() {
        let model = tiny::model();
        let adapter = tiny::adapter(&model);
        let batch = batch(&model, &[0, 1, 2]);
        let filled_up = Batch { predicted: 64, ..batch.clone() };
        let of = |batch: &Batch| {
            let mut seen = Vec::new();
            let found = gradients(&model, &adapter, None, batch, 1.0, |values| {
                seen = values.to_vec();
                weights(values.len())
            });
            assert_eq!(log_probabilities(&model, Some(&adapter), batch).len(), 12);
            (seen, found)
        };
        let ((values, found), (expected_values, expected)) = (of(&filled_up), of(&batch));
        assert_eq!(values.len(), 12);
        assert!(std::iter::zip(&values, &expected_values).all(|(value, expected)| (value - expected).abs() < 1e-5));
        let largest = difference(&found, &expected);
        assert!(largest < 2e-6, "largest relative difference {largest}");
    }

    fn norm(tensor: &Tensor<1>) -> f64 {
        values(tensor).iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn a_sequence_s_log_probabilities_do_not_depend_on_its_neighbors() {
        let model = tiny::model();
        let adapter = tiny::adapter(&model);
        let together = batch(&model, &[0, 1, 2]);
        let values = log_probabilities(&model, Some(&adapter), &together);
        for (index, own) in together.by_sequence(&values).enumerate() {
            let alone = log_probabilities(&model, Some(&adapter), &batch(&model, &[index]));
            assert_eq!(own.len(), ANSWERS[index]);
            for (found, expected) in own.iter().zip(&alone) {
                assert!((found - expected).abs() < 1e-5, "sequence {index}: {found}, alone {expected}");
            }
        }
    }

    #[test]
    fn micro_batches_add_up_to_the_batch() {
        let model = tiny::model();
        let adapter = tiny::adapter(&model);
        let dropout = |subjects| Dropout { probability: 0.25, seed: 5, subjects };
        let names = ["0".to_owned(), "1".to_owned(), "2".to_owned()];
        let all = weights(12);
        let whole =
            gradients(&model, &adapter, Some(&dropout(&names)), &batch(&model, &[0, 1, 2]), 1.0, |_| all.clone());
        let mut sum = Parameters::new();
        let first = batch(&model, &[0, 1]);
        accumulate(
            &mut sum,
            gradients(&model, &adapter, Some(&dropout(&names[..2])), &first, 1.0, |_| all[..5].to_vec()),
        );
        let second = batch(&model, &[2]);
        accumulate(
            &mut sum,
            gradients(&model, &adapter, Some(&dropout(&names[2..])), &second, 1.0, |_| all[5..].to_vec()),
        );
        let largest = difference(&sum, &whole);
        assert!(largest < 2e-6, "largest relative difference {largest}");
    }

    #[test]
    fn in_16_bits_the_gradient_keeps_its_direction_and_its_size() {
        let model = tiny::model();
        let adapter = tiny::adapter(&model);
        // Weights as small as those of a pair among many: without scaling, most of the gradient would be lost.
        let weights: Vec<f32> = weights(12).iter().map(|weight| weight * 1e-4).collect();
        let of = |model: &dyn Model, scale| {
            gradients(model, &adapter, None, &batch(model, &[0, 1, 2]), scale, |_| weights.clone())
        };
        let scale = LossScale::of(DType::F16).unwrap().factor();
        let (exact, found) = (of(&model, 1.0), of(&tiny::model_in(DType::F16), scale));
        let (mut difference, mut size) = (0.0, 0.0);
        for (path, exact) in &exact {
            assert_eq!(found[path].dtype(), DType::F32);
            difference += norm(&(found[path].clone() - exact.clone())).powi(2);
            size += norm(exact).powi(2);
        }
        let share = (difference / size).sqrt();
        assert!(share < 0.02, "{share}");
    }
}
